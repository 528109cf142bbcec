//! What other nodes commit, on its way from the store to the actors that own it. One thread watches and opens records; each owner takes what is its
//! own from a bounded line, a commit at a time, before whatever else it is asked to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Message, Recipient};
use keymill_core::id::NodeName;
use keymill_core::seam::store::{ALARM, Change, Path, Revision, Row, StoreError, Wrote};
use keymill_crypto::record::{sequence_of, tag_of};

use super::{AsOf, history, shares};
use crate::assembly::Tag;
use crate::records::{self, HistoryRecord, Kind, NodeRecord};
use crate::scan::{self, What};
use crate::shared::Shared;

/// Commits that wait for an owner, at most; past that the watch waits.
const WAITING: usize = 1_024;
/// How long the thread waits at a time, so that it sees that it is to end.
const ROUND: Duration = Duration::from_millis(100);
/// How long it rests after the store could not be watched, at least and at most.
const RESTS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Who owns records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Keyring = 0,
    Policy = 1,
    Acme = 2,
    Instances = 3,
}

impl Owner {
    pub(crate) const ALL: [Owner; 4] = [Owner::Keyring, Owner::Policy, Owner::Acme, Owner::Instances];

    /// Tells who owns the record at a path; nobody does of what each node has for itself, or says of itself.
    fn of(path: &str) -> Option<Self> {
        match path.split('/').next().unwrap_or_default() {
            // What is in an instance is followed by the engine of that.
            "nonce" | "audit-head" | "node" | "history" | "witness" | "instance-data" => None,
            "instance" => Some(Self::Instances),
            kind if kind.starts_with("acme-") => Some(Self::Acme),
            _ if records::is_of_access(path) => Some(Self::Policy),
            _ => Some(Self::Keyring),
        }
    }
}

/// A record that somebody wrote.
pub(crate) struct Written {
    pub(crate) path: Box<str>,
    /// Its sequence number and tag, unverified; nothing where it is too short to have them.
    pub(crate) mark: Option<(u64, Tag)>,
    pub(crate) revision: Revision,
    /// What it is now; `None` where nothing stands there any more.
    pub(crate) what: Option<What>,
}

/// What an owner is told.
pub(crate) enum Told {
    /// What one commit wrote of its own.
    Commit(Vec<Written>),
    /// It has been told of every commit before a moment.
    Current(AsOf),
}

/// The line before an owner.
pub(crate) struct Line {
    sender: flume::Sender<Told>,
    receiver: flume::Receiver<Told>,
    /// Whether the owner has been asked to look.
    is_called: AtomicBool,
}

impl Default for Line {
    fn default() -> Self {
        let (sender, receiver) = flume::bounded(WAITING);
        Self { sender, receiver, is_called: AtomicBool::new(false) }
    }
}

impl Line {
    /// Takes what waits; whatever comes from here on calls the owner anew.
    pub(crate) fn take(&self) -> flume::TryIter<'_, Told> {
        self.is_called.store(false, Ordering::Release);
        self.receiver.try_iter()
    }
}

/// Has an owner take what waits for it.
pub(crate) struct CatchUp;

impl Message for CatchUp {
    type Result = ();
}

/// Where owners are called, in the order of [`Owner::ALL`].
pub(crate) type Readers = [Recipient<CatchUp>; Owner::ALL.len()];

/// The thread that watches the store.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Starts it behind a revision: all until then was read already.
    pub(crate) fn start(shared: &Arc<Shared>, readers: Readers, from: Revision) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let follow = Follow { shared: shared.clone(), readers, stop: stop.clone() };
        let thread = std::thread::Builder::new().name("km-follow".into()).spawn(move || follow.run(from))?;
        Ok(Self { stop, thread })
    }

    /// Has it end; returns the thread that does.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.store(true, Ordering::Release);
        self.thread
    }
}

struct Follow {
    shared: Arc<Shared>,
    readers: Readers,
    stop: Arc<AtomicBool>,
}

impl Follow {
    fn run(self, mut from: Revision) {
        let mut rest = RESTS.0;
        let (mut is_told, mut is_known) = (false, false);
        let mut last = AsOf::now(&self.shared.clock);
        while !self.is_over() {
            let mut is_well = false;
            let watched = self.shared.store.watch(&Path::all(), from, &mut |change| {
                is_well = true;
                match change {
                    Change::Commit { revision, writes } => {
                        let rows = writes.iter().map(|Wrote { path, value }| (path.as_str(), *value));
                        self.commit(revision, rows);
                        from = revision;
                    }
                    Change::Current { as_of } => {
                        self.current(AsOf::past(&self.shared.clock, as_of, &last));
                        last = AsOf::now(&self.shared.clock);
                    }
                }
                !self.is_over()
            });
            if is_well {
                (rest, is_told) = (RESTS.0, false);
            }
            let failed = match watched {
                Ok(()) => continue,
                Err(StoreError::Compacted) => {
                    tracing::warn!(
                        revision = from.0,
                        "the store no longer knows all changes since the last one seen: it is read anew"
                    );
                    match self.read_anew(from) {
                        Ok(read) => {
                            from = read;
                            std::thread::sleep(rest);
                            rest = (rest * 2).min(RESTS.1);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(StoreError::OtherHistory(why)) => {
                    is_known = is_known || self.lose(&why);
                    // Whatever comes of it, this node has to be started anew.
                    std::thread::sleep(if is_known { ROUND } else { rest });
                    continue;
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut is_told, true) {
                tracing::error!(error = %failed, "the store cannot be watched: once the view of this node is too old, no key is used");
            }
            std::thread::sleep(rest);
            rest = (rest * 2).min(RESTS.1);
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Tells each owner what a commit wrote of its own.
    fn commit<'a>(&self, revision: Revision, rows: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) {
        let mut written = Owner::ALL.map(|_| Vec::new());
        for (path, value) in rows {
            if let Some(node) = records::node_at(path) {
                self.node(node, Row { path, value: value.unwrap_or_default(), revision });
                continue;
            }
            if path == ALARM {
                self.history(value.unwrap_or_default());
                continue;
            }
            let Some(owner) = Owner::of(path) else { continue };
            let (mark, what) = match value {
                Some(value) => {
                    let row = Row { path, value, revision };
                    let Some(what) = scan::open(&self.shared.sealer, row) else { continue };
                    (sequence_of(value).zip(tag_of(value)), Some(what))
                }
                None => (None, None),
            };
            written[owner as usize].push(Written { path: path.into(), mark, revision, what });
        }
        for (owner, written) in Owner::ALL.into_iter().zip(written) {
            if !written.is_empty() {
                self.tell(owner, Told::Commit(written));
            }
        }
    }

    /// Takes what a node says of itself, or that it has ended.
    fn node(&self, node: NodeName, row: Row<'_>) {
        let Some(cluster) = self.shared.cluster.as_ref().filter(|cluster| cluster.node != node) else {
            return;
        };
        match row.value {
            [] => cluster.members.ended(&node),
            value => match records::open_at::<NodeRecord>(&self.shared.sealer, row.path, Kind::Node, value) {
                Ok((record, sequence, _)) => {
                    cluster.members.said(node, record, sequence, row.revision, self.shared.clock.instant());
                }
                Err(error) => cluster.reject(row.path, &error.to_string()),
            },
        }
        shares::settle(&self.shared, cluster);
    }

    /// Takes what is said of the history of the store.
    fn history(&self, value: &[u8]) {
        let Some(cluster) = &self.shared.cluster else { return };
        match records::open_at::<HistoryRecord>(&self.shared.sealer, ALARM, Kind::History, value) {
            Ok((record, ..)) => history::follow(cluster, &record),
            Err(error) => cluster.reject(ALARM, &error.to_string()),
        }
    }

    /// Uses no key any more, and has the others know; tells whether they do.
    fn lose(&self, why: &str) -> bool {
        let Some(cluster) = &self.shared.cluster else { return true };
        history::lose(cluster, why);
        let Shared { store, sealer, clock, .. } = &*self.shared;
        let raised = history::raise(cluster, &**store, sealer, clock.now(), why);
        raised.inspect_err(|error| tracing::debug!(%error, "the others could not be told yet")).is_ok()
    }

    fn current(&self, as_of: AsOf) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.members.heard(as_of.at());
        }
        for owner in Owner::ALL {
            self.tell(owner, Told::Current(as_of));
        }
    }

    fn tell(&self, owner: Owner, mut told: Told) {
        let Some(cluster) = &self.shared.cluster else { return };
        let line = cluster.line(owner);
        loop {
            let sent = line.sender.send_timeout(told, ROUND);
            // Also where the line is full: somebody must take of it.
            if !line.is_called.swap(true, Ordering::AcqRel) {
                self.readers[owner as usize].do_send(CatchUp);
            }
            match sent {
                Err(flume::SendTimeoutError::Timeout(back)) if !self.is_over() => told = back,
                _ => return,
            }
        }
    }

    /// Reads all that was written since a revision, in the order of the commits; returns as of which revision. That something is gone without a
    /// record of its end is not looked for: a node that took it for lost would only be another way to lose it.
    fn read_anew(&self, since: Revision) -> Result<Revision, StoreError> {
        let as_of = self.shared.store.revision()?;
        let mut newer: Vec<(Revision, Box<str>, Vec<u8>)> = Vec::new();
        self.shared.store.scan(&mut |row| {
            // What is said of the history itself counts whenever it was said: revisions may have gone back.
            if row.revision > since || row.path == ALARM {
                newer.push((row.revision, row.path.into(), row.value.to_vec()));
            }
            !self.is_over()
        })?;
        newer.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for commit in newer.chunk_by(|a, b| a.0 == b.0) {
            self.commit(commit[0].0, commit.iter().map(|(_, path, value)| (&**path, Some(&**value))));
        }
        Ok(as_of)
    }
}
