//! Simulated HSMs of a stated latency and rate behind one engine, against the sum of what they do by themselves.

use std::time::Duration;

use keymill_core::key::BulkMode;

use super::{TokenRow, Tokens};
use crate::error::Result;
use crate::fixture::Fixture;
use crate::in_process::{self, Caller};
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;
use crate::token::Kind;

/// HSMs, calls a second of each, and its sessions: more than are at work at once where it does as many calls of a millisecond.
const FARMS: [(usize, u64, usize); 4] = [(1, 5_000, 8), (4, 5_000, 8), (16, 1_000, 3), (32, 1_000, 3)];
const LATENCY: Duration = Duration::from_millis(1);
const ITEMS: usize = 256;
const ITEM_BYTES: usize = 1024;

pub(super) fn rows() -> Vec<TokenRow> {
    let row = |(hsms, per_second, sessions): (usize, u64, usize)| TokenRow {
        name: format!("hsm farm of {hsms} x {per_second}/s, BatchEncrypt {ITEMS} x 1 KiB"),
        needs: &[Kind::SoftHsm, Kind::Simulator],
        hsms,
        measure: Box::new(move |plan, tokens, name| {
            measure(plan, tokens, name, (hsms, per_second, sessions))
        }),
    };
    FARMS.map(row).into()
}

fn measure(
    plan: &mut Plan<'_>,
    tokens: &mut Tokens,
    name: String,
    (hsms, per_second, sessions): (usize, u64, usize),
) -> Result<()> {
    let farm = tokens.farm()?;
    let parts = farm.hsms[..hsms].iter().map(|hsm| hsm.token.part(Some(sessions))).collect();
    let fixture = Fixture::start_in_tokens(parts, BulkMode::InHsm)?;
    // From here on, and not while the tokens are made ready.
    farm.pace(LATENCY, per_second)?;
    // Enough that every session has work, whichever batch ends.
    let callers = hsms.clamp(4, 16);
    let sum = (hsms as u64 * per_second) as f64;
    plan.measure(
        Spec { name, against: vec![("sum", Some(Target::AtLeast(0.97)))], unit: Unit::Items },
        vec![
            Box::new(|time| {
                in_process::rate(callers, time, || Ok(Caller::sealing(&fixture, ITEMS, ITEM_BYTES)))
            }),
            Box::new(move |_| Ok(sum)),
        ],
    )?;
    farm.unpaced()
}
