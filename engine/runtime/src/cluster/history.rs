//! Whether the store is still the one that was seen. An etcd that was restored from a snapshot and a PostgreSQL that failed over to a standby which
//! had not all of it hold less than was answered, or something else in its place: a key that was disabled may be enabled there, an access key that was
//! taken away be back. No node serves by itself on such a store.
//!
//! - While it runs, a store plugin finds out that a commit which it has seen is not there. The node uses no key from then on, and raises an alarm in the
//!   store, so that those who had seen less, and those who start, do not either.
//! - Over its own restart, a node finds out by its witness: a record that it has left in the store, and its audit remembers. While it runs it looks for
//!   the last before it leaves another.
//!
//! Only an operator's word takes the alarm away: see [`accept`](super::accept). Whoever remembers more than was accepted then does not start until it was
//! given for it as well.

use std::sync::atomic::{AtomicU64, Ordering};

use keymill_core::audit::RecordStamp;
use keymill_core::id::NodeName;
use keymill_core::seam::store::{Entry, Revision, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};

use super::Cluster;
use crate::clock::Clock;
use crate::engine::EngineError;
use crate::records::{self, AlarmRecord, HistoryRecord, Kind};

/// What an operator is to do.
const NEXT: &str = "an operator is to find out what was lost, stop all servers, and start one with --accept-history \
                    (README, \"When the store was put back\")";

/// Which history this node knows.
#[derive(Default)]
pub(crate) struct History {
    /// When it was accepted; zero: there was never another.
    accepted: AtomicU64,
}

impl History {
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }
}

/// The record of it, as it stands.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) record: HistoryRecord,
    revision: Option<Revision>,
    sequence: u64,
    /// Somebody else wrote it: as good as an alarm.
    is_damaged: bool,
}

impl Standing {
    /// Reads it.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub(super) fn read(store: &dyn Store, sealer: &RecordSealer) -> Result<Self, StoreError> {
        let path = records::history_path();
        let Some(Entry { value, revision, .. }) = store.get(&path)? else { return Ok(Self::default()) };
        let revision = Some(revision);
        Ok(match records::open(sealer, &path, Kind::History, &value) {
            Ok((record, sequence, _)) => Self { record, revision, sequence, is_damaged: false },
            Err(_) => {
                let sequence = sequence_of(&value).unwrap_or(0);
                Self { record: HistoryRecord::default(), revision, sequence, is_damaged: true }
            }
        })
    }

    /// Tells why a node is not to serve on the store, if it is not: somebody has raised an alarm, or it does not hold what the node has left there.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub(super) fn trouble(
        &self,
        node: &NodeName,
        store: &dyn Store,
        witnesses: &[RecordStamp],
    ) -> Result<Option<Trouble>, StoreError> {
        if self.is_damaged {
            return Ok(Some(Trouble::Damaged));
        }
        if let Some(by) = &self.record.accepting {
            return Ok(Some(Trouble::Unfinished(by.clone())));
        }
        if let Some(alarm) = &self.record.alarm {
            return Ok(Some(Trouble::Told(alarm.clone())));
        }
        let accepted = self.record.accepted;
        let stands = store.get(&records::witness_path(node, accepted))?;
        let stands = stands.and_then(|entry| sequence_of(&entry.value).zip(tag_of(&entry.value)));
        Ok(missed(node, accepted, witnesses, stands).map(Trouble::Missed))
    }

    /// Puts another in its place.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn replace(
        &self,
        store: &dyn Store,
        sealer: &RecordSealer,
        record: &HistoryRecord,
    ) -> Result<(), StoreError> {
        let path = records::history_path();
        let sequence = self.sequence.saturating_add(1);
        let sealed = records::seal(sealer, &path, Kind::History, sequence, record)
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        store.commit(&[Write { path, expected: self.revision, value: Some(sealed.bytes) }]).map(drop)
    }
}

/// Why a node is not to serve on a store.
pub(super) enum Trouble {
    /// Somebody else wrote the record that says so.
    Damaged,
    /// It is being accepted by a node, or that was cut short.
    Unfinished(NodeName),
    /// A node has raised an alarm.
    Told(AlarmRecord),
    /// This one misses something.
    Missed(String),
}

/// Returns what all are told while an alarm stands.
pub(super) fn told(alarm: &AlarmRecord) -> String {
    let AlarmRecord { node, at, why } = alarm;
    format!("the store is of another history, as {node} found at {at}: {why}. No key is used; {NEXT}")
}

/// Takes note of what stands in the store, as it came by the watch.
pub(super) fn follow(cluster: &Cluster, record: &HistoryRecord) {
    if let Some(alarm) = &record.alarm {
        let why = told(alarm);
        if cluster.view.fork(&*why) {
            tracing::error!("{why}");
        }
    }
}

/// Has no key used here from now on, since the store does not hold what was seen.
pub(super) fn lose(cluster: &Cluster, why: &str) {
    let told = format!("the store is of another history: {why}. No key is used; {NEXT}");
    if cluster.view.fork(&*told) {
        tracing::error!("{told}");
    }
}

/// Has all others know. One whose history another was accepted after is only behind: it is to be started anew.
///
/// # Errors
/// What the store says.
pub(super) fn raise(
    cluster: &Cluster,
    store: &dyn Store,
    sealer: &RecordSealer,
    at: Timestamp,
    why: &str,
) -> Result<(), StoreError> {
    let standing = Standing::read(store, sealer)?;
    if standing.record.alarm.is_some() || standing.record.accepted > cluster.history.accepted() {
        return Ok(());
    }
    let alarm = AlarmRecord { node: cluster.node.clone(), at, why: why.into() };
    let record = HistoryRecord { alarm: Some(alarm), ..standing.record.clone() };
    standing.replace(store, sealer, &record)
}

/// Checks at the start that no alarm stands, and that the store holds what this node's audit remembers to have left there.
///
/// # Errors
/// Why the node does not start.
pub(crate) fn check(
    cluster: &Cluster,
    store: &dyn Store,
    sealer: &RecordSealer,
    clock: &Clock,
    witnesses: &[RecordStamp],
) -> Result<(), EngineError> {
    let mut standing = Standing::read(store, sealer)?;
    // Where it was accepted just now, that ends once the audit says so.
    if cluster.config.accept_history {
        standing.record.accepting = None;
    }
    cluster.history.accepted.store(standing.record.accepted, Ordering::Release);
    match standing.trouble(&cluster.node, store, witnesses)? {
        None => Ok(()),
        Some(Trouble::Damaged) => Err(EngineError::new(format!(
            "the record that says of what history the store is does not open: {NEXT}"
        ))),
        // That takes a moment.
        Some(Trouble::Unfinished(by)) => Err(EngineError::passing(format!(
            "the history of the store is being accepted at {by}, or that was cut short: where {by} does not run, it is to be done again: {NEXT}"
        ))),
        Some(Trouble::Told(alarm)) => Err(EngineError::new(told(&alarm))),
        Some(Trouble::Missed(why)) => {
            if let Err(error) = raise(cluster, store, sealer, clock.now(), &why) {
                tracing::warn!(%error, "other servers could not be told that the store is of another history");
            }
            Err(EngineError::new(format!("the store is of another history: {why}. {NEXT}")))
        }
    }
}

/// Checks at the start of a node that has not run in the history which was accepted last that its audit remembers nothing otherwise than that has it: what
/// whoever accepted it had not heard of, an operator is to look at, too. `lost`: the records that it does.
///
/// # Errors
/// A sentence that says why the node does not start.
pub(crate) fn check_known(
    cluster: &Cluster,
    witnesses: &[RecordStamp],
    lost: &[String],
) -> Result<(), EngineError> {
    let Cluster { node, config, history, .. } = cluster;
    match lost {
        [first, ..] if !config.accept_history && !has_run(node, history.accepted(), witnesses) => {
            Err(EngineError::new(format!(
                "a history of the store was accepted, and the audit of {node} remembers {} records otherwise, as {first}: once that was looked at, this \
             server is to be started with --accept-history, once (README, \"When the store was put back\")",
                lost.len()
            )))
        }
        _ => Ok(()),
    }
}

/// Tells whether a node has run in the history that was accepted last; there may never have been another.
fn has_run(node: &NodeName, accepted: u64, witnesses: &[RecordStamp]) -> bool {
    accepted == 0 || newest(node, witnesses).is_some_and(|of| of >= accepted)
}

/// Returns the newest history in which a node has left something.
fn newest(node: &NodeName, witnesses: &[RecordStamp]) -> Option<u64> {
    witnesses.iter().filter_map(|stamp| records::witness_at(&stamp.path, node)).max()
}

/// Returns when a history is accepted: later than whichever was before, also where the clock was set back, or that one is lost.
pub(super) fn next(node: &NodeName, now: Timestamp, accepted: u64, witnesses: &[RecordStamp]) -> u64 {
    let before = newest(node, witnesses).map_or(accepted, |newest| newest.max(accepted));
    now.as_ms().max(before.saturating_add(1))
}

/// Tells what is missed in a store by a node's own witnesses, if anything is. `stands`: the sequence number and tag of what is left there of the history
/// that was `accepted` last; witnesses of earlier ones are none any more.
fn missed(
    node: &NodeName,
    accepted: u64,
    witnesses: &[RecordStamp],
    stands: Option<(u64, [u8; 16])>,
) -> Option<String> {
    witnesses.iter().find_map(|stamp| {
        let of = records::witness_at(&stamp.path, node).filter(|of| *of >= accepted)?;
        lacks(stamp, stands.filter(|_| of == accepted))
            .map(|found| format!("the audit of {node} remembers {found}"))
    })
}

/// Says what a witness was and what stands in its place, where that is older: one that was left since is as good.
pub(super) fn lacks(stamp: &RecordStamp, stands: Option<(u64, [u8; 16])>) -> Option<String> {
    let is_there = stands.is_some_and(|(sequence, tag)| match sequence == stamp.sequence {
        true => digest::hex(&tag) == stamp.tag,
        false => sequence > stamp.sequence,
    });
    let (path, sequence) = (&stamp.path, stamp.sequence);
    (!is_there).then(|| {
        let found = stands.map_or("nothing".to_owned(), |(sequence, _)| format!("number {sequence}"));
        format!("{path} of number {sequence}, and {found} stands there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_holds_less_than_was_left_there_is_missed_something() {
        let node: NodeName = "a".parse().unwrap();
        let stamp = |path: &str, sequence, tag: u8| RecordStamp {
            path: path.into(),
            sequence,
            tag: digest::hex(&[tag; 16]),
        };
        let left = [stamp("witness/a/0", 9, 1), stamp("witness/a/5", 3, 1), stamp("witness/b/7", 3, 1)];
        for (accepted, stands, is_missed) in [
            (5, Some((3, [1; 16])), false),
            // Left and not remembered: a crash came between the two.
            (5, Some((4, [2; 16])), false),
            (5, Some((3, [2; 16])), true),
            (5, Some((2, [1; 16])), true),
            (5, None, true),
            // Another was accepted since, by another node.
            (6, None, false),
            // It went back to before one was accepted.
            (0, Some((9, [1; 16])), true),
        ] {
            assert_eq!(missed(&node, accepted, &left, stands).is_some(), is_missed, "{accepted} {stands:?}");
        }
        assert_eq!(missed(&node, 0, &[], None), None, "nothing is remembered");
    }

    fn left(paths: &[&str]) -> Vec<RecordStamp> {
        let stamp = |path: &&str| RecordStamp { path: (*path).into(), sequence: 1, tag: String::new() };
        paths.iter().map(stamp).collect()
    }

    #[test]
    fn a_history_is_accepted_later_than_all_before_whatever_the_clock_says() {
        let (node, now) = ("a".parse().unwrap(), Timestamp::from_ms(100));
        let next = |accepted, paths: &[&str]| next(&node, now, accepted, &left(paths));
        assert_eq!((next(0, &[]), next(99, &["witness/a/0"])), (100, 100));
        assert_eq!(next(200, &[]), 201);
        // The store went back to before one was accepted by a clock that was ahead.
        assert_eq!(next(0, &["witness/a/0", "witness/a/300", "witness/b/400"]), 301);
        assert_eq!(next(u64::MAX, &[]), u64::MAX);
    }

    #[test]
    fn a_node_has_run_in_the_history_in_which_it_has_left_something() {
        let node = "a".parse().unwrap();
        let has_run = |accepted, paths: &[&str]| has_run(&node, accepted, &left(paths));
        assert!(has_run(0, &[]) && has_run(5, &["witness/a/0", "witness/a/5"]));
        assert!(!has_run(5, &[]) && !has_run(5, &["witness/a/4", "witness/b/5"]));
    }
}
