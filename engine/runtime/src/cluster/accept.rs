//! An operator's word that a store which was put back is the store from now on. What this node's audit remembers otherwise is written anew as it
//! stands, above all numbers that were given in the history that is lost, so that every node takes it. What that comes to is for `safe` to say: what can be
//! switched off comes back so, and the rest is told. What the audit says was removed stays removed, and what is missing has ended.
//!
//! It is begun and finished in the store: in between, however it was cut short, no node starts without that word, and whoever does it again has the audit
//! name all of it.

mod lost;
mod parent;
mod safe;
mod taking;

use keymill_core::audit::RecordStamp;
use keymill_core::id::NodeName;
use keymill_core::seam::store::{Entry, Page, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::Stamps;
use keymill_crypto::record::RecordSealer;

use self::lost::{Found, spared};
use self::taking::{Taking, WRITES};
use super::history::{Standing, next};
use crate::records::{self, HistoryRecord, InstallationRecord, Kind};

/// How far above all that was given numbers go on: no record is written as often between two histories.
const LEAP: u64 = 1 << 32;

/// Accepts what stands in a store, against what the audit remembers: of records, and of what the node itself has left there. Returns what the audit is to
/// name before it is [finished](finish); `None` where there was nothing to accept.
///
/// # Errors
/// A sentence that says why not, and that it may be tried again.
pub(crate) fn accept(
    node: &NodeName,
    store: &dyn Store,
    sealer: &RecordSealer,
    (stamps, witnesses): (Stamps, &[RecordStamp]),
    now: Timestamp,
) -> Result<Option<Vec<RecordStamp>>, String> {
    let failed = |error: StoreError| {
        format!("store: {error}; what was accepted so far stays, and the same may be run again")
    };
    if !is_ours(store, sealer).map_err(failed)? {
        return Err(
            "--accept-history: the store is empty, or another installation's: nothing is accepted".to_owned()
        );
    }
    let standing = Standing::read(store, sealer).map_err(failed)?;
    let Found { lost, mut done } =
        Found::read(store, sealer, stamps, standing.record.accepting.is_some()).map_err(failed)?;
    let is_well = standing.trouble(node, store, witnesses).map_err(failed)?.is_none();
    if lost.is_empty() && is_well {
        tracing::warn!(
            "--accept-history: there is nothing to accept. Start the next time without it: it would accept what nobody has looked at"
        );
        return Ok(None);
    }
    let begun = HistoryRecord { accepting: Some(node.clone()), ..standing.record.clone() };
    standing.replace(store, sealer, &begun).map_err(failed)?;
    let mut taking = Taking::new(store, sealer, now, spared(store, sealer, &lost).map_err(failed)?);
    for family in lost.chunk_by(|one, next| one.head == next.head) {
        taking.take(family).map_err(failed)?;
    }
    let taken = taking.finish().map_err(failed)?;
    forget_witnesses(store).map_err(failed)?;
    let accepted = next(node, now, standing.record.accepted, witnesses);
    // An alarm stands until here.
    let standing = Standing::read(store, sealer).map_err(failed)?;
    let record = HistoryRecord { accepted, alarm: None, ..standing.record.clone() };
    standing.replace(store, sealer, &record).map_err(failed)?;
    let (records, before) = (taken.len(), done.len());
    tracing::warn!(records, before, "the history of the store was accepted, by an operator's word");
    done.extend(taken);
    Ok(Some(done))
}

/// Lets other nodes start, and this one without the word: the audit says what was accepted.
///
/// # Errors
/// [`StoreError`] where the store does not take that: all is to be done again.
pub(crate) fn finish(store: &dyn Store, sealer: &RecordSealer) -> Result<(), StoreError> {
    let standing = Standing::read(store, sealer)?;
    standing.replace(store, sealer, &HistoryRecord { accepting: None, ..standing.record.clone() })
}

fn is_ours(store: &dyn Store, sealer: &RecordSealer) -> Result<bool, StoreError> {
    let installation = store.get(&records::installation_path())?;
    Ok(installation.is_some_and(|Entry { path, value, .. }| {
        records::open::<InstallationRecord>(sealer, &path, Kind::Installation, &value).is_ok()
    }))
}

/// Takes away what nodes had left for their next starts: those begin anew.
fn forget_witnesses(store: &dyn Store) -> Result<(), StoreError> {
    let below = records::prefix(records::WITNESSES);
    loop {
        let page = store.list(&below, Page { after: None, limit: WRITES })?;
        if page.is_empty() {
            return Ok(());
        }
        let removal = |entry: Entry| Write { path: entry.path, expected: Some(entry.revision), value: None };
        store.commit(&page.into_iter().map(removal).collect::<Vec<_>>())?;
    }
}

/// Returns the number of a record that is above all that were given in what is lost.
fn leap(sequence: u64) -> u64 {
    (sequence / LEAP + 1).saturating_mul(LEAP)
}

/// Tells whether a record has such a number: it stands as it was accepted.
fn is_leapt(sequence: u64) -> bool {
    sequence > 0 && sequence.is_multiple_of(LEAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_far_above_what_was_given_and_leap_again() {
        assert_eq!((leap(0), leap(7)), (LEAP, LEAP));
        assert_eq!((leap(LEAP), leap(LEAP + 9)), (2 * LEAP, 2 * LEAP));
        let leapt = [0, 1, LEAP - 1, LEAP, LEAP + 1, 2 * LEAP].map(is_leapt);
        assert_eq!(leapt, [false, false, false, true, false, true]);
    }
}
