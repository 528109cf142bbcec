//! In-process batches on all cores, against raw AES-256-GCM on as many threads.

use keymill_ceilings::{Load, Run, raw};

use super::size;
use crate::error::Result;
use crate::in_process::{self, Caller};
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;

/// Bytes of our header with an empty encryption context, which is what the cipher authenticates.
const AAD_BYTES: usize = 26;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for (items, item_len) in [(256, 32), (256, 256), (256, 1024), (256, 4096), (64, 65_536)] {
        for open in [false, true] {
            let what = if open { "BatchDecrypt" } else { "BatchEncrypt" };
            let name = format!("in-process {what} {items} x {}", size(item_len));
            if !plan.args.wants(&name) {
                continue;
            }
            let fixture = plan.fixture()?;
            let threads = cores();
            let make = || match open {
                true => Caller::opening(&fixture, items, item_len),
                false => Ok(Caller::sealing(&fixture, items, item_len)),
            };
            let load = Load { items, item_len, aad_len: AAD_BYTES, threads };
            let target = match item_len {
                32 => Some(Target::AtLeast(0.60)),
                1024 => Some(Target::AtLeast(0.90)),
                65_536 => Some(Target::AtLeast(0.97)),
                _ => None,
            };
            plan.measure(
                Spec { name, against: vec![("raw", target)], unit: Unit::Items },
                vec![
                    Box::new(|time| in_process::rate(threads, time, make)),
                    Box::new(move |time| {
                        let run = Run::For(time);
                        Ok(if open { raw::open(load, run) } else { raw::seal(load, run) })
                    }),
                ],
            )?;
        }
    }
    Ok(())
}
