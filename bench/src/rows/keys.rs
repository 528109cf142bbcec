//! What it costs that requests come in under ten thousand CMKs at random, against the same under one.

use keymill_core::id::KeyRef;

use crate::error::Result;
use crate::in_process::{self, Caller};
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;

const CMKS: usize = 10_000;
/// Where it matters only that it runs.
const FEW: usize = 100;
const ITEMS: usize = 64;
const ITEM_BYTES: usize = 1024;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let cmks = if plan.args.quick { FEW } else { CMKS };
    let name = format!("in-process BatchEncrypt {ITEMS} x 1 KiB, {cmks} CMKs at random");
    if !plan.args.wants(&name) {
        return Ok(());
    }
    let fixture = plan.fixture()?;
    let one = [fixture.key()];
    let many = fixture.keys(cmks)?;
    let threads = cores();
    let rate = |keys: &[KeyRef], time| {
        in_process::rate(threads, time, || {
            Ok(Caller::sealing_under(&fixture, keys.to_vec(), ITEMS, ITEM_BYTES))
        })
    };
    plan.measure(
        Spec { name, against: vec![("one CMK", Some(Target::AtLeast(0.85)))], unit: Unit::Items },
        vec![Box::new(|time| rate(&many, time)), Box::new(|time| rate(&one, time))],
    )?;
    Ok(())
}
