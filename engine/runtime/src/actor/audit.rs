//! The audit actor: writes the management chain, makes every chain durable within 50 ms, keeps the heads in the store. On a
//! thread of its own, since a disk blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::error::{Error, Result};
use keymill_core::seam::store::{Path, Revision, StoreError, Write};
use keymill_crypto::audit::{ChainHead, Note};

use crate::audit::{AuditMessage, ManagementChain, ManagementRecord, TimerRecord, TimerTouch};
use crate::cluster::Witness;
use crate::gate::Gate;
use crate::records::{self, Kind};
use crate::shared::Shared;
use crate::work::Served;

/// What was written must be durable within this time.
const DURABLE_WITHIN: Duration = Duration::from_millis(50);
/// What waking up may take, beside it.
const WAKE_UP: Duration = Duration::from_millis(5);
const TICK_EVERY: Duration = Duration::from_secs(1);
/// Records that are made durable with one sync, at most.
const GROUP: usize = 1_024;
/// Records that one note of recovered ones names, at most: a line of them is an eighth of what the audit files read as a line.
const RECOVERED: usize = 1_024;
/// Heads of earlier processes that one commit removes, at most.
const FORGOTTEN: usize = 1_024;

pub(crate) struct AuditActor {
    shared: Arc<Shared>,
    lane: flume::Receiver<AuditMessage>,
    chain: ManagementChain,
    known_heads: HashMap<String, u64>,
    head_revisions: HashMap<String, Revision>,
    /// Heads of earlier processes that the management chain names, and the store need not keep.
    to_forget: Vec<(Path, Revision)>,
    gate: Option<Gate>,
    /// How long a sync is expected to take.
    sync_takes: Duration,
    /// Why the place beside the log has no connection, as it was said last.
    trouble_beside: Option<String>,
    /// What this node leaves in a store that others use, too.
    witness: Witness,
}

/// What a sync is taken for before one was seen.
const CAUTIOUS: Duration = Duration::from_millis(10);

/// Returns what the next sync may take: the longest of late. Rounds in which nothing was to be synced take no time and tell little, so
/// that a long one is forgotten slowly.
fn expected(before: Duration, took: Duration) -> Duration {
    took.max(before - before / 32)
}

/// Returns how long after the begin of a sync the next one begins, where one takes so long: a line that just missed the first waits until
/// then, and for all of the next. As late as the time allows, since each sync holds up those who write meanwhile.
fn pause(sync_takes: Duration) -> Duration {
    (DURABLE_WITHIN - WAKE_UP).saturating_sub(sync_takes).max(WAKE_UP)
}

impl AuditActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lane: flume::Receiver<AuditMessage>,
        chain: ManagementChain,
        to_forget: Vec<(Path, Revision)>,
    ) -> Self {
        let (known_heads, head_revisions) = (HashMap::new(), HashMap::new());
        Self {
            shared,
            lane,
            chain,
            known_heads,
            head_revisions,
            to_forget,
            gate: None,
            sync_takes: CAUTIOUS,
            trouble_beside: None,
            witness: Witness::new(),
        }
    }

    pub(crate) fn start(mut self, gate: Gate) -> std::io::Result<std::thread::JoinHandle<()>> {
        self.gate = Some(gate);
        std::thread::Builder::new().name("km-audit".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        // From the first moment: a process may be killed within its first second.
        self.keep_heads();
        let mut next_tick = Instant::now() + TICK_EVERY;
        let mut synced = Instant::now();
        loop {
            let mut stop = None;
            let first = self.lane.recv_timeout(pause(self.sync_takes).saturating_sub(synced.elapsed()));
            let disconnected = matches!(first, Err(flume::RecvTimeoutError::Disconnected));
            for message in first.into_iter().chain(self.lane.try_iter().take(GROUP)) {
                match message {
                    AuditMessage::Durable(record, reply) => {
                        records.push(record);
                        waiting.push(reply);
                    }
                    AuditMessage::Timer(record) => records.push(self.of_timer(*record)),
                    AuditMessage::ClockJump { from, to } => {
                        self.chain.chain.note(&Note::ClockJump { from, to });
                    }
                    AuditMessage::Recovered(writes) => {
                        for writes in writes.chunks(RECOVERED) {
                            self.chain.chain.note(&Note::Recovered { writes });
                        }
                    }
                    AuditMessage::Followed(writes) => {
                        for writes in writes.chunks(RECOVERED) {
                            self.chain.chain.note(&Note::Followed { writes });
                        }
                    }
                    AuditMessage::Retire(chain, reply) => {
                        let _gone = reply.send(self.chain.retire(&chain));
                    }
                    AuditMessage::Stop(reply) => stop = Some(reply),
                }
            }
            let started = Instant::now();
            if records.is_empty() {
                self.shared.audit.sync();
            } else {
                let outcome = self.chain.write(&self.shared, &records);
                records.clear();
                for reply in waiting.drain(..) {
                    let _gone = reply.send(match &outcome {
                        Ok(()) => Ok(()),
                        Err(error) => Err(Error::new(error.kind(), error.message().to_owned())),
                    });
                }
            }
            self.sync_takes = expected(self.sync_takes, started.elapsed());
            synced = started;
            if stop.is_some() || Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK_EVERY;
                if let Some(gate) = &self.gate {
                    gate.tick_desks();
                }
                self.leave_witness(stop.is_some());
                self.chain.tick();
                self.keep_heads();
                self.look_beside();
            }
            if stop.is_some() || disconnected {
                self.chain.chain.close();
                self.keep_heads();
                if let Some(reply) = stop {
                    let _gone = reply.send(());
                }
                return;
            }
        }
    }

    fn of_timer(&self, record: TimerRecord) -> Box<ManagementRecord> {
        let TimerRecord { frontend, by, operation, rule, outcome, touch, writes } = record;
        let (mut keys, mut secrets, mut certificates) = (Vec::new(), Vec::new(), Vec::new());
        match touch {
            TimerTouch::Key(key) => keys.push(key),
            TimerTouch::Secret(secret) => secrets.push(secret),
            TimerTouch::Certificate(id) => certificates.push(id),
        }
        Box::new(ManagementRecord {
            request: self.shared.request_ids.next(),
            principal: by.map(Arc::new),
            source: None,
            frontend,
            operation,
            outcome,
            rule,
            keys,
            secrets,
            certificates,
            approved_by: None,
            served: Served::default(),
            micros: 0,
            writes,
        })
    }

    /// Leaves in the store what the next start is to find there; the last of all when this one ends.
    fn leave_witness(&mut self, is_end: bool) {
        let Some(cluster) = &self.shared.cluster else { return };
        if (!is_end && !self.witness.is_due()) || self.leaves_store_alone() {
            return;
        }
        let Shared { store, sealer, clock, .. } = &*self.shared;
        match self.witness.leave(cluster, &**store, sealer, clock.now()) {
            Ok(stamp) => self.chain.chain.note(&Note::Witness { stamp: &stamp }),
            // The one before is as good, but for what came since.
            Err(error) => tracing::debug!(%error, "nothing was left in the store for the next start"),
        }
    }

    /// Says in the log when the place beside the audit log goes, and when it is there again.
    fn look_beside(&mut self) {
        let Some(beside) = self.shared.audit.beside() else { return };
        let sink = beside.name;
        if beside.trouble != self.trouble_beside {
            match &beside.trouble {
                Some(why) => {
                    tracing::warn!(sink, why, queued = beside.queued_lines, "audit lines are not sent")
                }
                None => tracing::info!(sink, queued = beside.queued_lines, "audit lines are sent again"),
            }
            self.trouble_beside = beside.trouble;
        }
    }

    /// Tells whether nothing is kept in the store any more: it is away while this engine ends, or a copy of this process is the one that goes on, and
    /// its chains have the same names.
    fn leaves_store_alone(&self) -> bool {
        self.shared.cluster.as_ref().is_some_and(|cluster| cluster.gives_up() || cluster.view.is_copied())
    }

    /// Writes how far the chains have come, and removes heads that the management chain names by now.
    fn keep_heads(&mut self) {
        if self.leaves_store_alone() {
            return;
        }
        let heads = self.shared.audit.changed_heads(&mut self.known_heads);
        if heads.is_empty() && self.to_forget.is_empty() {
            return;
        }
        // A head in the store must not be ahead of what is durable, and none goes before the line that names it is.
        if !self.shared.audit.sync() {
            self.write_again(&heads);
            return;
        }
        match self.try_keep_heads(&heads) {
            Ok(()) => {
                *self.shared.store_trouble.lock() = None;
                for chain in self.shared.audit.forget_ended(&self.known_heads) {
                    self.known_heads.remove(&chain);
                    self.head_revisions.remove(&chain);
                }
            }
            Err(error) => {
                self.write_again(&heads);
                if let StoreError::Conflict(changed) = &error {
                    self.look_again(&heads, changed);
                    // What it holds by now is for the next start to judge.
                    self.to_forget.retain(|(path, _)| path != changed);
                }
                let mut trouble = self.shared.store_trouble.lock();
                if trouble.is_none() {
                    tracing::error!(%error, "the store refuses writes");
                }
                *trouble = Some(error.to_string());
            }
        }
    }

    /// Finds out how a head of ours stands in the store: one whose answer was lost was kept all the same.
    fn look_again(&mut self, heads: &[ChainHead], changed: &Path) {
        let path = |head: &ChainHead| records::audit_head_path(self.shared.node(), &head.chain);
        let Some(head) = heads.iter().find(|head| path(head) == *changed) else { return };
        let Ok(Some(stored)) = self.shared.store.get(changed) else { return };
        let opened = records::open::<ChainHead>(&self.shared.sealer, changed, Kind::AuditHead, &stored.value);
        if opened.is_ok_and(|(stored, ..)| stored.chain == head.chain && stored.sequence <= head.sequence) {
            self.head_revisions.insert(head.chain.clone(), stored.revision);
        }
    }

    fn write_again(&mut self, heads: &[ChainHead]) {
        for head in heads {
            self.known_heads.remove(&head.chain);
        }
    }

    fn try_keep_heads(&mut self, heads: &[ChainHead]) -> Result<(), StoreError> {
        let kept = self.to_forget.len().saturating_sub(FORGOTTEN);
        let mut writes = heads
            .iter()
            .map(|head| {
                let path = records::audit_head_path(self.shared.node(), &head.chain);
                let sealed = records::seal(&self.shared.sealer, &path, Kind::AuditHead, head.sequence, head)
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                let expected = self.head_revisions.get(&head.chain).copied();
                Ok(Write { path, expected, value: Some(sealed.bytes) })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        writes.extend(self.to_forget[kept..].iter().map(|(path, revision)| Write {
            path: path.clone(),
            expected: Some(*revision),
            value: None,
        }));
        let revision = self.shared.store.commit(&writes)?;
        self.to_forget.truncate(kept);
        for head in heads {
            self.head_revisions.insert(head.chain.clone(), revision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_asked_sooner_and_never_without_pause() {
        let ms = Duration::from_millis;
        for (takes, waits) in [(0, 45), (2, 43), (10, 35), (39, 6), (45, 5), (1_000, 5)] {
            assert_eq!(pause(ms(takes)), ms(waits), "{takes}");
        }
    }

    #[test]
    fn one_long_sync_is_expected_again_through_a_second_of_idle_rounds() {
        let long = Duration::from_millis(10);
        let after = (0..20).fold(expected(Duration::ZERO, long), |takes, _| expected(takes, Duration::ZERO));
        assert!(after > long / 2 && after < long, "{after:?}");
        assert_eq!(expected(after, 2 * long), 2 * long);
    }
}
