//! What opening old records costs a token: records of many sealing epochs, in random order, and the MACs that the token is asked for, counted
//! at a simulated HSM. A subkey is two of them.

use std::collections::HashSet;
use std::time::Duration;

use super::{TokenRow, Tokens};
use crate::error::{BenchError, Result};
use crate::fixture::Fixture;
use crate::in_process::Caller;
use crate::plan::Plan;
use crate::report::Unit;
use crate::stats::Target;
use crate::token::Kind;

/// Records of an epoch.
const RECORDS: usize = 10;
const RECORD_BYTES: usize = 100;
const BATCH: usize = 256;
/// Of an epoch: the next batch begins another one.
const AGE: Duration = Duration::from_millis(1);
/// Where the prefix of its epoch is in a blob (`spec/ciphertext.md`).
const PREFIX: std::ops::Range<usize> = 22..34;

pub(super) fn rows(quick: bool) -> Vec<TokenRow> {
    let epochs = if quick { 200 } else { 10_000 };
    vec![TokenRow {
        name: format!("hsm derived open {} records of {epochs} epochs at random", RECORDS * epochs),
        needs: &[Kind::SoftHsm, Kind::Simulator],
        hsms: 1,
        measure: Box::new(move |plan, tokens, name| measure(plan, tokens, name, epochs)),
    }]
}

fn measure(plan: &mut Plan<'_>, tokens: &mut Tokens, name: String, epochs: usize) -> Result<()> {
    plan.say(&name);
    let farm = tokens.farm()?;
    let hsm = &farm.hsms[0];
    let fixture = Fixture::start_with_epochs(vec![hsm.token.part(None)], AGE)?;
    let mut sealing = Caller::sealing(&fixture, RECORDS, RECORD_BYTES);
    let mut records = Vec::with_capacity(epochs * RECORDS);
    for _ in 0..epochs {
        let blobs = sealing.blobs()?;
        records.extend(blobs.chunks_exact(blobs.len() / RECORDS).map(<[u8]>::to_vec));
        std::thread::sleep(AGE);
    }
    let distinct = records.iter().map(|blob| &blob[PREFIX]).collect::<HashSet<_>>().len();
    if distinct != epochs {
        return Err(BenchError::new(format!("{epochs} batches were sealed in {distinct} epochs")));
    }
    shuffle(&mut records);
    let before = hsm.calls("C_Sign")?;
    for some in records.chunks(BATCH) {
        Caller::opening_blobs(&fixture, some.concat(), some[0].len()).batch()?;
    }
    let macs = hsm.calls("C_Sign")? - before;
    plan.counted(name, ("epochs", Target::AtMost(2.0)), Unit::Calls, macs as f64, epochs as f64);
    Ok(())
}

/// Brings them into a random order, the same each time.
fn shuffle<T>(all: &mut [T]) {
    let mut state: u64 = 1;
    for last in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(last, (state >> 33) as usize % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_keeps_all_and_leaves_few_in_their_place() {
        let mut all: Vec<usize> = (0..1000).collect();
        shuffle(&mut all);
        assert!(all.iter().enumerate().filter(|(at, value)| at == *value).count() < 10);
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }
}
