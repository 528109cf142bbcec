//! Has the other nodes know of this one: a record that says what it is, written anew while it runs and removed when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind};
use keymill_core::seam::store::{Path, Revision, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::record::sequence_of;

use super::callers::Callers;
use super::{Cluster, shares};
use crate::assembly::Tag;
use crate::records::{self, Formats, Kind, NodeRecord};
use crate::shared::Shared;

/// How long between two looks at what this node is asked for, at most.
const LOOK: Duration = Duration::from_secs(1);
/// Words of which it is not known whether they were taken, at most; past that nobody is taken for a copy.
const OWN: usize = 64;
/// How often within a lease it is said anew that this node is there.
const SIGNS: u32 = 3;

/// The thread that speaks for this node.
pub(crate) struct Herald {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Herald {
    /// Starts it.
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (here, is_over) = (shared.clone(), stop.clone());
        let run = move || {
            let Some(cluster) = &here.cluster else { return };
            let mut word = Word::new(&here, cluster);
            while !is_over.load(Ordering::Acquire) {
                word.go();
                cluster.wait((cluster.config.lease / SIGNS).min(LOOK));
            }
            word.end();
        };
        let thread = std::thread::Builder::new().name("km-herald".into()).spawn(run)?;
        Ok(Self { shared: shared.clone(), stop, thread })
    }

    /// Has it end, and the others know that this node has ended; returns the thread that does.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.store(true, Ordering::Release);
        if let Some(cluster) = &self.shared.cluster {
            cluster.wake();
        }
        self.thread
    }
}

/// What was said last, and what was counted then.
struct Word<'a> {
    shared: &'a Shared,
    cluster: &'a Cluster,
    path: Path,
    started_at: Timestamp,
    /// The commit that it stands by, once that was looked for.
    stands: Option<Option<Revision>>,
    /// The sequence number that was used last: whatever somebody puts there, the next is greater.
    sequence: u64,
    /// What was written, or may have been, since it was last known: sequence numbers and tags.
    own: Vec<(u64, Tag)>,
    told: Option<(Instant, NodeRecord)>,
    counted: (Instant, [u64; 3]),
    asked: shares::Asked,
    callers: Callers,
    is_failing: bool,
}

impl<'a> Word<'a> {
    fn new(shared: &'a Shared, cluster: &'a Cluster) -> Self {
        Self {
            shared,
            cluster,
            path: records::node_path(&cluster.node),
            started_at: shared.clock.now(),
            stands: None,
            sequence: 0,
            own: Vec::new(),
            told: None,
            counted: (Instant::now(), shared.quotas.asked()),
            asked: [0; 3],
            callers: Callers::default(),
            is_failing: false,
        }
    }

    /// Looks at what this node is asked for, says what is news, and has all know their parts.
    fn go(&mut self) {
        self.count();
        let drains = self.cluster.drains();
        let record = NodeRecord {
            process: self.cluster.process.as_str().into(),
            software: env!("CARGO_PKG_VERSION").into(),
            formats: Formats::OURS,
            started_at: self.started_at,
            drains,
            asked: if drains { [0; 3] } else { self.asked },
            requests_per_s: self.shared.metrics.requests_a_second(self.shared.clock.steady_ns() / 1_000_000),
            callers: if drains { Vec::new() } else { self.callers.said() },
        };
        let view = &self.cluster.view;
        if self.is_due(&record) && !view.is_displaced() && !view.is_copied() && !view.is_forked() {
            match self.say(record) {
                Ok(()) => self.is_failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(?error, "other nodes cannot be told of this one");
                    }
                }
            }
        }
        shares::settle(self.shared, self.cluster);
        let told = self.told.as_ref().map(|(_, told)| told.callers.as_slice());
        self.callers.settle(&self.shared.quotas, told.unwrap_or_default(), &self.cluster.members);
        self.bury();
    }

    fn count(&mut self) {
        let (now, units) = (Instant::now(), self.shared.quotas.asked());
        let (then, before) = std::mem::replace(&mut self.counted, (now, units));
        // Where there was no quota meanwhile, it is counted from nothing.
        let more = std::array::from_fn(|at| units[at].saturating_sub(before[at]));
        let time = now.saturating_duration_since(then);
        // Too short to tell a rate by: woken for something else.
        if time < LOOK / 10 {
            self.counted = (then, before);
            return;
        }
        self.asked = shares::asked(self.asked, more, time, self.shared.quotas.limits());
        self.callers.count(self.shared.quotas.watched(), time);
    }

    fn is_due(&self, record: &NodeRecord) -> bool {
        self.told.as_ref().is_none_or(|(at, told)| {
            told.drains != record.drains
                || at.elapsed() >= self.cluster.config.lease / SIGNS
                || shares::is_news(told.asked, record.asked, self.shared.quotas.limits())
                || self.callers.are_news(&told.callers, &record.callers)
        })
    }

    fn say(&mut self, record: NodeRecord) -> Result<(), Error> {
        let expected = match self.stands {
            Some(stands) => stands,
            None => self.look()?,
        };
        self.sequence += 1;
        let sealed = records::seal(&self.shared.sealer, &self.path, Kind::Node, self.sequence, &record)?;
        let write = Write { path: self.path.clone(), expected, value: Some(sealed.bytes) };
        if self.own.len() < OWN {
            self.own.push((self.sequence, sealed.tag));
        }
        // Where it is not known whether that was done, it is looked for the next time.
        self.stands = None;
        self.stands = Some(Some(self.shared.store.commit(&[write])?));
        self.own = vec![(self.sequence, sealed.tag)];
        // By what the others know of it, so that all parts are of one sum.
        *self.cluster.asked.lock() = record.asked;
        self.told = Some((Instant::now(), record));
        Ok(())
    }

    /// Looks for what stands there, of a process that was killed or of this one.
    fn look(&mut self) -> Result<Option<Revision>, Error> {
        let Some(stored) = self.shared.store.get(&self.path)? else { return Ok(None) };
        if self.is_of_a_copy(&stored.value) {
            let node = &self.cluster.node;
            if self.cluster.view.copy() {
                tracing::error!(%node, "a copy of this process uses its name: no key is used here any more");
            }
            return Err(Error::new(ErrorKind::Conflict, "a copy of this process speaks in its name"));
        }
        self.sequence = self.sequence.max(sequence_of(&stored.value).unwrap_or(0));
        Ok(Some(stored.revision))
    }

    /// Tells whether what stands there was said by this process, as it has it, and not by us: a machine that was copied while it ran goes on twice, and
    /// both take the leases for their own.
    fn is_of_a_copy(&self, value: &[u8]) -> bool {
        let opened = records::open::<NodeRecord>(&self.shared.sealer, &self.path, Kind::Node, value);
        opened.is_ok_and(|(record, sequence, tag)| {
            let is_newer = self.own.first().is_some_and(|(known, _)| sequence >= *known);
            let is_ours = self.own.len() >= OWN || self.own.contains(&(sequence, tag));
            *record.process == *self.cluster.process && is_newer && !is_ours
        })
    }

    /// Removes what nodes have left that went without a word: one node does that for all.
    fn bury(&self) {
        if !self.shared.keeps_time() {
            return;
        }
        for (node, revision) in self.cluster.members.gone() {
            let write = Write { path: records::node_path(&node), expected: Some(revision), value: None };
            match self.shared.store.commit(&[write]) {
                Ok(_) => {
                    tracing::warn!(%node, "a node says nothing any more: it counts as gone");
                    self.cluster.members.ended(&node);
                }
                // It has said something meanwhile, or the store is away.
                Err(error) => tracing::debug!(%error, %node, "what a node left was not removed"),
            }
        }
    }

    /// Has the others know at once that this node has ended.
    fn end(self) {
        // A store that is away keeps nobody from stopping.
        let is_away = self.is_failing || self.cluster.gives_up();
        let Some(revision) = self.stands.flatten().filter(|_| !is_away) else { return };
        let write = Write { path: self.path, expected: Some(revision), value: None };
        if let Err(error) = self.shared.store.commit(&[write]) {
            tracing::debug!(%error, "the others will find out by themselves that this node has ended");
        }
    }
}
