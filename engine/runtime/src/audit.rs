//! The engine's side of the audit: one chain for each desk, one for management, their health, and the thread that makes them
//! durable. What a record says is in `keymill_core::audit`, how a chain holds together in `keymill_crypto::audit`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use keymill_core::audit::{AuditRecord, KeyTouch, Outcome, RecordStamp, SecretTouch};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, RequestId};
use keymill_core::seam::audit::{AuditError, AuditLog, AuditSink, AuditSync, Beside, Shed};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{ChainHead, ChainKeys, ChainReport, ChainWriter, Note, Opening};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::AuditFiles;
use crate::shared::Shared;
use crate::work::Served;

/// The suffix of the chain that management operations are written to.
pub const MANAGEMENT: &str = "management";

/// What all chains of this process share.
pub struct AuditHub {
    log: Arc<dyn AuditLog>,
    keys: ChainKeys,
    /// Time of the start and a random number: no two processes share it.
    process: String,
    node: String,
    clock: Clock,
    /// Heads of chains of earlier processes that the first line of the management chain names.
    previous: Vec<ChainHead>,
    /// How far each chain of this process has come, as far as it is durable or about to be.
    heads: Mutex<Vec<Arc<Reached>>>,
    syncs: Mutex<Vec<ChainSync>>,
    failed_since: Mutex<Option<Timestamp>>,
    healthy: AtomicBool,
    refused: AtomicU64,
    next_chain: AtomicUsize,
    strangers: Mutex<HashMap<(String, &'static str), u64>>,
    files: AuditFiles,
    /// Whether requests are audited at all.
    pub enabled: bool,
    /// Records and bytes written, and failures, for the metrics.
    pub records: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Failed writes.
    pub failures: AtomicU64,
    /// Files that were followed by others, and files that were removed, their time being over.
    pub rotated: AtomicU64,
    /// Files that were removed, their time being over.
    pub retired: AtomicU64,
}

/// How far a chain has come.
struct Reached {
    head: Mutex<ChainHead>,
    /// Whether its writer has gone on to another.
    has_ended: AtomicBool,
}

struct ChainSync {
    dirty: Arc<AtomicBool>,
    sync: Box<dyn AuditSync>,
}

/// Distinct (source prefix, reason) pairs of strangers that are counted apart between two notes.
const MAX_STRANGERS: usize = 1_024;

impl AuditHub {
    /// Makes the hub of one process.
    pub fn new(
        log: Arc<dyn AuditLog>,
        keys: ChainKeys,
        process: String,
        node: String,
        clock: Clock,
        previous: Vec<ChainHead>,
        (enabled, files): (bool, AuditFiles),
    ) -> Self {
        Self {
            log,
            keys,
            process,
            node,
            clock,
            previous,
            heads: Mutex::default(),
            syncs: Mutex::default(),
            failed_since: Mutex::default(),
            healthy: AtomicBool::new(true),
            refused: AtomicU64::new(0),
            next_chain: AtomicUsize::new(0),
            strangers: Mutex::default(),
            files,
            enabled,
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            rotated: AtomicU64::new(0),
            retired: AtomicU64::new(0),
        }
    }

    /// Checks that audited requests may be taken.
    ///
    /// # Errors
    /// `AuditUnavailable` while the log cannot be written.
    pub fn check(&self) -> Result<()> {
        if self.healthy.load(Ordering::Acquire) || !self.enabled {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::new(
            ErrorKind::AuditUnavailable,
            "the audit log cannot be written, so the request is refused",
        ))
    }

    /// Tells whether the log can be written.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    /// Counts a refusal of a caller who never logged in.
    pub fn note_stranger(&self, source: Option<IpAddr>, reason: &'static str) {
        let mut strangers = self.strangers.lock();
        let key = (source_prefix(source), reason);
        if strangers.len() >= MAX_STRANGERS && !strangers.contains_key(&key) {
            *strangers.entry(("others".into(), reason)).or_default() += 1;
        } else {
            *strangers.entry(key).or_default() += 1;
        }
    }

    fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.healthy.swap(false, Ordering::AcqRel) {
            *self.failed_since.lock() = Some(self.clock.now());
            tracing::error!("the audit log cannot be written: audited requests are refused until it can");
        }
    }

    /// Makes every chain durable that was written since the last call; false where the disk refused one.
    pub(crate) fn sync(&self) -> bool {
        let mut is_durable = true;
        for chain in self.syncs.lock().iter_mut() {
            if chain.dirty.swap(false, Ordering::AcqRel)
                && let Err(error) = chain.sync.sync()
            {
                chain.dirty.store(true, Ordering::Release);
                tracing::error!(%error, "audit log: sync failed");
                self.fail();
                is_durable = false;
            }
        }
        is_durable
    }

    /// Returns the heads that changed since `known`, and remembers them there.
    pub(crate) fn changed_heads(&self, known: &mut HashMap<String, u64>) -> Vec<ChainHead> {
        let heads = self.heads.lock();
        heads
            .iter()
            .map(|reached| reached.head.lock().clone())
            .filter(|head| head.sequence > 0)
            .filter(|head| known.insert(head.chain.clone(), head.sequence) != Some(head.sequence))
            .collect()
    }

    /// Forgets the chains that have ended and whose ends are `known`, in the store; returns their names.
    pub(crate) fn forget_ended(&self, known: &HashMap<String, u64>) -> Vec<String> {
        let mut forgotten = Vec::new();
        self.heads.lock().retain(|reached| {
            let head = reached.head.lock();
            let is_over =
                reached.has_ended.load(Ordering::Acquire) && known.get(&head.chain) == Some(&head.sequence);
            if is_over {
                forgotten.push(head.chain.clone());
            }
            !is_over
        });
        forgotten
    }

    /// Names the chains of this process that are still written to.
    pub(crate) fn live(&self) -> HashSet<String> {
        let heads = self.heads.lock();
        let live = heads.iter().filter(|reached| !reached.has_ended.load(Ordering::Acquire));
        live.map(|reached| reached.head.lock().chain.clone()).collect()
    }

    /// Returns how the place is that lines are sent to beside the log, where there is one.
    pub(crate) fn beside(&self) -> Option<Beside> {
        self.log.beside()
    }

    /// Returns where the chains are kept.
    pub(crate) fn log(&self) -> &dyn AuditLog {
        &*self.log
    }

    /// Returns the keys of the chains.
    pub(crate) fn keys(&self) -> &ChainKeys {
        &self.keys
    }

    fn next_name(&self, kind: &str) -> String {
        let number = self.next_chain.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:03}-{kind}", self.process)
    }

    /// Has a chain made durable from now on, and its progress seen.
    fn watch(&self, sync: Box<dyn AuditSync>, head: ChainHead) -> Watched {
        let watched = Watched {
            dirty: Arc::default(),
            reached: Arc::new(Reached { head: Mutex::new(head), has_ended: AtomicBool::new(false) }),
        };
        self.syncs.lock().push(ChainSync { dirty: watched.dirty.clone(), sync });
        self.heads.lock().push(watched.reached.clone());
        watched
    }
}

/// What a chain's writer shares with the hub.
struct Watched {
    /// Whether something is not durable yet.
    dirty: Arc<AtomicBool>,
    /// How far the chain has come, as the hub sees it.
    reached: Arc<Reached>,
}

/// Returns the source without what an attacker can vary freely: /24 of IPv4, /48 of IPv6.
fn source_prefix(source: Option<IpAddr>) -> String {
    match source.map(|ip| ip.to_canonical()) {
        None => "local".into(),
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(ip)) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// Bytes of refusals that one chain holds for a log that cannot be written.
const MAX_PENDING: usize = 64 << 10;

/// The file that follows another, and where the chain in that one ended.
struct NextFile {
    ended: ChainHead,
    sink: Box<dyn AuditSink>,
    sync: Box<dyn AuditSync>,
}

/// How long after it failed the change to another file is tried again.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// One writer's chain with its sink; it has one owner. A file that is large or old is followed by another, and so is its chain.
pub struct DeskChain {
    hub: Arc<AuditHub>,
    kind: Box<str>,
    writer: ChainWriter,
    sink: Box<dyn AuditSink>,
    watched: Watched,
    /// Bytes in the file, and since when it is written to, or tried to be followed by another.
    file_bytes: u64,
    file_since: Timestamp,
    /// Lines that the sink does not have yet.
    pending: Vec<u8>,
    records: u64,
    reserve_released: bool,
}

impl DeskChain {
    /// Opens a chain of its own for a writer of that kind.
    ///
    /// # Errors
    /// [`AuditError`] where the sink cannot be opened.
    pub fn open(hub: &Arc<AuditHub>, kind: &str) -> Result<Self, AuditError> {
        let name = hub.next_name(kind);
        let sink = hub.log.open_chain(&name)?;
        let mut pending = Vec::new();
        let now = hub.clock.now();
        let opening = Opening {
            time: now,
            node: &hub.node,
            software: env!("CARGO_PKG_VERSION"),
            previous: if kind == MANAGEMENT { &hub.previous } else { &[] },
        };
        let writer = ChainWriter::new(&hub.keys, &name, &opening, &mut pending)
            .map_err(|error| AuditError::Failed(error.to_string()))?;
        // Nothing is durable yet; the first hand-over says how far it has come.
        let watched = hub.watch(sink.syncer()?, ChainHead { sequence: 0, ..writer.head() });
        let mut chain = Self {
            hub: hub.clone(),
            kind: kind.into(),
            writer,
            sink,
            watched,
            file_bytes: 0,
            file_since: now,
            pending,
            records: 0,
            reserve_released: false,
        };
        chain.flush().map_err(|error| AuditError::Failed(error.to_string()))?;
        Ok(chain)
    }

    /// Adds a record; it is kept once [`Self::flush`] has returned.
    pub fn append(&mut self, record: &AuditRecord<'_>) {
        // Memory does not stand in for the disk: past this, refusals are counted alone, and the gap says how many.
        let is_refusal = matches!(record.outcome, Outcome::Failed(_));
        if is_refusal && self.pending.len() >= MAX_PENDING && !self.hub.is_healthy() {
            if record.outcome != Outcome::Failed(ErrorKind::AuditUnavailable) {
                self.hub.refused.fetch_add(1 + record.alike.len() as u64, Ordering::Relaxed);
            }
            return;
        }
        if self.hub.enabled {
            self.records += 1 + record.alike.len() as u64;
            self.writer.append(record, &mut self.pending);
        }
    }

    /// Adds a note.
    pub fn note(&mut self, note: &Note<'_>) {
        self.writer.note(self.hub.clock.now(), note, &mut self.pending);
    }

    /// Hands all lines to the sink, with a checkpoint where one is due.
    ///
    /// # Errors
    /// `AuditUnavailable`: the lines are kept for the next try, and audited requests are refused until it succeeds.
    pub fn flush(&mut self) -> Result<()> {
        let now = self.hub.clock.now();
        if self.writer.due(now) {
            self.writer.checkpoint(now, &mut self.pending);
        }
        self.hand_over()?;
        if self.tell_shed(false) {
            self.hand_over()?;
        }
        if self.is_file_over(now) {
            self.rotate(now)?;
        }
        Ok(())
    }

    /// Adds a note of lines that a place beside the log did not get; tells whether there is one.
    fn tell_shed(&mut self, is_end: bool) -> bool {
        let Some(Shed { sink, lines, first, last }) = self.sink.take_shed(is_end) else { return false };
        self.note(&Note::Shed { sink, lines, first, last });
        true
    }

    /// Tells whether the file is to be followed by another. One that holds no more than what begins it is not, however old it is.
    fn is_file_over(&self, now: Timestamp) -> bool {
        const BEGINNING: u64 = 2;
        let AuditFiles { rotate_bytes, rotate_age, .. } = self.hub.files;
        let is_large = self.file_bytes >= rotate_bytes;
        (is_large || now.since(self.file_since) >= rotate_age) && self.writer.position().0 > BEGINNING
    }

    /// Ends the chain and goes on with another in a file of its own, which names the end of this one. Where that cannot be, this one goes on.
    ///
    /// # Errors
    /// As [`Self::flush`], of the first line of the new chain.
    fn rotate(&mut self, now: Timestamp) -> Result<()> {
        if self.tell_shed(true) {
            self.hand_over()?;
        }
        let name = self.hub.next_name(&self.kind);
        let NextFile { ended, sink, sync } = match self.end_file(now, &name) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, chain = self.writer.head().chain, "the audit file cannot be followed by another yet");
                // Not with every flush.
                self.file_since = now.minus(self.hub.files.rotate_age).plus(ROTATE_AGAIN);
                self.file_bytes = self.file_bytes.min(self.hub.files.rotate_bytes / 2);
                return Ok(());
            }
        };
        let opening = Opening {
            time: now,
            node: &self.hub.node,
            software: env!("CARGO_PKG_VERSION"),
            previous: std::slice::from_ref(&ended),
        };
        self.writer = ChainWriter::new(&self.hub.keys, &name, &opening, &mut self.pending)?;
        let watched = self.hub.watch(sync, ChainHead { sequence: 0, ..self.writer.head() });
        let before = std::mem::replace(&mut self.watched, watched);
        // All of it is durable.
        self.hub.syncs.lock().retain(|sync| !Arc::ptr_eq(&sync.dirty, &before.dirty));
        *before.reached.head.lock() = ended;
        before.reached.has_ended.store(true, Ordering::Release);
        self.sink = sink;
        (self.file_bytes, self.file_since) = (0, now);
        self.hub.rotated.fetch_add(1, Ordering::Relaxed);
        self.hand_over()
    }

    /// Opens the next file, ends the chain in this one, and has all of it durable: the next chain says that it is there.
    fn end_file(&mut self, now: Timestamp, next: &str) -> Result<NextFile, AuditError> {
        let sink = self.hub.log.open_chain(next)?;
        // On a copy: where the sink does not take the end, the chain has none.
        let (mut ended, mut end) = (self.writer.clone(), Vec::new());
        ended.close(now, &mut end);
        // Once it is taken nothing may follow in this file.
        let ready = sink.syncer().and_then(|sync| self.sink.append(&end).map(|()| sync));
        let sync = match ready {
            Ok(sync) => sync,
            Err(error) => {
                drop(sink);
                if let Err(error) = self.hub.log.remove(next) {
                    tracing::warn!(%error, chain = next, "an empty audit file is left behind");
                }
                return Err(error);
            }
        };
        self.hub.bytes.fetch_add(end.len() as u64, Ordering::Relaxed);
        if let Err(error) = self.sink.syncer().and_then(|mut syncer| syncer.sync()) {
            tracing::error!(%error, "audit log: sync failed");
            self.hub.fail();
        }
        Ok(NextFile { ended: ended.head(), sink, sync })
    }

    fn hand_over(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // While the log is well the reserve stands, whoever had given it up before.
        self.reserve_released &= !self.hub.is_healthy();
        let mut outcome = self.sink.append(&self.pending);
        // Space is no help where something else than the disk refuses.
        let needs_space = !matches!(outcome, Ok(()) | Err(AuditError::Blocked(_)));
        if needs_space && !self.reserve_released {
            // What is in flight can still be recorded; from here on nothing new is taken.
            self.sink.release_reserve();
            self.reserve_released = true;
            self.hub.fail();
            outcome = self.sink.append(&self.pending);
        }
        match outcome {
            Ok(()) => {
                self.hub.bytes.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
                self.hub.records.fetch_add(std::mem::take(&mut self.records), Ordering::Relaxed);
                self.file_bytes += self.pending.len() as u64;
                self.pending.clear();
                self.watched.dirty.store(true, Ordering::Release);
                let mut head = self.watched.reached.head.lock();
                (head.sequence, head.mac) = self.writer.position();
                Ok(())
            }
            Err(error) => {
                self.hub.fail();
                Err(error.into())
            }
        }
    }

    /// Closes the chain: nothing may follow its last checkpoint.
    pub fn close(&mut self) {
        self.tell_shed(true);
        self.writer.close(self.hub.clock.now(), &mut self.pending);
        if let Err(error) = self.hand_over() {
            tracing::error!(%error, "audit log: the chain could not be closed");
        }
    }
}

/// A record of a management operation, owned so that it can travel to the audit actor.
pub struct ManagementRecord {
    /// The request.
    pub request: RequestId,
    /// Who asked.
    pub principal: Option<Arc<AccessKeyId>>,
    /// From where.
    pub source: Option<IpAddr>,
    /// Over which frontend.
    pub frontend: &'static str,
    /// What.
    pub operation: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// By which rule.
    pub rule: std::borrow::Cow<'static, str>,
    /// The keys that it touched.
    pub keys: Vec<KeyTouch>,
    /// The secrets that it was about.
    pub secrets: Vec<SecretTouch>,
    /// Who made what it keeps.
    pub(crate) served: Served,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// What it wrote.
    pub writes: Vec<RecordStamp>,
}

/// What the audit actor is told.
pub(crate) enum AuditMessage {
    /// Keep the record, durably, then answer.
    Durable(Box<ManagementRecord>, tokio::sync::oneshot::Sender<Result<()>>),
    /// Keep a note of a jump of the clock.
    ClockJump { from: Timestamp, to: Timestamp },
    /// Keep a note of records that a crash had kept out of the audit.
    Recovered(Vec<RecordStamp>),
    /// Keep the record of what a timer did to a key, or to a secret.
    Timer(Box<TimerRecord>),
    /// Keep a note, durably, of a chain that is to be removed, then answer.
    Retire(Box<Retiring>, tokio::sync::oneshot::Sender<Result<()>>),
    /// Write what there is, close the chain, answer.
    Stop(tokio::sync::oneshot::Sender<()>),
}

/// What was done by itself, at its time or since a caller had asked for it.
pub(crate) struct TimerRecord {
    /// `timer`, or who works for callers.
    pub(crate) frontend: &'static str,
    /// The caller, where one had asked.
    pub(crate) by: Option<AccessKeyId>,
    pub(crate) operation: &'static str,
    pub(crate) rule: std::borrow::Cow<'static, str>,
    pub(crate) outcome: Outcome,
    pub(crate) touch: TimerTouch,
    pub(crate) writes: Vec<RecordStamp>,
}

/// What a timer did something to.
pub(crate) enum TimerTouch {
    Key(KeyTouch),
    Secret(SecretTouch),
}

/// A chain whose time is over, as the note of it has it.
pub(crate) struct Retiring {
    pub(crate) report: ChainReport,
    pub(crate) bytes: u64,
    pub(crate) rule: &'static str,
}

/// The management chain as the audit actor drives it.
pub(crate) struct ManagementChain {
    pub(crate) chain: DeskChain,
}

impl ManagementChain {
    /// Writes records and makes them durable in one go.
    pub(crate) fn write(&mut self, shared: &Shared, records: &[Box<ManagementRecord>]) -> Result<()> {
        let now = self.chain.hub.clock.now();
        let mut providers = Vec::new();
        for record in records {
            shared.provider_names(record.served, &mut providers);
            self.chain.append(&AuditRecord {
                time: now,
                request: record.request,
                principal: record.principal.as_deref(),
                source: record.source,
                frontend: record.frontend,
                operation: record.operation,
                outcome: record.outcome,
                rule: record.rule.clone(),
                keys: &record.keys,
                secrets: &record.secrets,
                providers: &providers,
                items: 0,
                failed: 0,
                context: None,
                fallback: None,
                recipient: None,
                micros: record.micros,
                alike: &[],
                writes: &record.writes,
            });
        }
        self.chain.flush()?;
        self.chain.hub.sync();
        self.chain.hub.check()
    }

    /// Writes the note of a chain that is to be removed, and makes it durable.
    pub(crate) fn retire(&mut self, Retiring { report, bytes, rule }: &Retiring) -> Result<()> {
        let (head, requests) = (&report.head, report.requests);
        let (from, to) = (&*report.from, &*report.to);
        self.chain.note(&Note::Retired { head, requests, from, to, bytes: *bytes, rule });
        self.chain.flush()?;
        self.chain.hub.sync();
        self.chain.hub.check()
    }

    /// Writes the notes that wait, tries to recover a log that had failed, and checkpoints where one is due.
    pub(crate) fn tick(&mut self) {
        let hub = self.chain.hub.clone();
        if !hub.is_healthy() && self.chain.hand_over().is_ok() && self.chain.sink.restore_reserve() {
            let since = hub.failed_since.lock().take().unwrap_or(hub.clock.now());
            let refused = hub.refused.swap(0, Ordering::Relaxed);
            self.chain.reserve_released = false;
            hub.healthy.store(true, Ordering::Release);
            self.chain.note(&Note::Gap { since, refused });
            tracing::warn!(refused, "the audit log can be written again");
        }
        let strangers = std::mem::take(&mut *hub.strangers.lock());
        for ((source, reason), count) in strangers {
            self.chain.note(&Note::Strangers { source: &source, reason, count });
        }
        if let Err(error) = self.chain.flush() {
            tracing::debug!(%error, "audit log");
        }
    }
}
