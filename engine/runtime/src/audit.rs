//! The engine's side of the audit: one chain for each desk, one for management, their health, and the thread that makes them
//! durable. What a record says is in `keymill_core::audit`, how a chain holds together in `keymill_crypto::audit`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use keymill_core::audit::{AuditRecord, KeyTouch, Outcome, RecordStamp};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, RequestId};
use keymill_core::seam::audit::{AuditError, AuditLog, AuditSink, AuditSync};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{ChainHead, ChainKeys, ChainWriter, Note, Opening};
use parking_lot::Mutex;

use crate::clock::Clock;

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
    heads: Mutex<Vec<Arc<Mutex<ChainHead>>>>,
    syncs: Mutex<Vec<ChainSync>>,
    failed_since: Mutex<Option<Timestamp>>,
    healthy: AtomicBool,
    refused: AtomicU64,
    next_chain: AtomicUsize,
    strangers: Mutex<HashMap<(String, &'static str), u64>>,
    /// Whether requests are audited at all.
    pub enabled: bool,
    /// Records and bytes written, and failures, for the metrics.
    pub records: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Failed writes.
    pub failures: AtomicU64,
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
        enabled: bool,
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
            enabled,
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
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
            .map(|head| head.lock().clone())
            .filter(|head| head.sequence > 0)
            .filter(|head| known.insert(head.chain.clone(), head.sequence) != Some(head.sequence))
            .collect()
    }
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

/// One chain with its sink; it has one owner.
pub struct DeskChain {
    hub: Arc<AuditHub>,
    writer: ChainWriter,
    sink: Box<dyn AuditSink>,
    dirty: Arc<AtomicBool>,
    /// How far the chain has come, as the hub sees it.
    head: Arc<Mutex<ChainHead>>,
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
        let number = hub.next_chain.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number:03}-{kind}", hub.process);
        let sink = hub.log.open_chain(&name)?;
        let dirty = Arc::new(AtomicBool::new(false));
        hub.syncs.lock().push(ChainSync { dirty: dirty.clone(), sync: sink.syncer()? });
        let mut pending = Vec::new();
        let opening = Opening {
            time: hub.clock.now(),
            node: &hub.node,
            software: env!("CARGO_PKG_VERSION"),
            previous: if kind == MANAGEMENT { &hub.previous } else { &[] },
        };
        let writer = ChainWriter::new(&hub.keys, &name, &opening, &mut pending)
            .map_err(|error| AuditError::Failed(error.to_string()))?;
        // Nothing is durable yet; the first hand-over says how far it has come.
        let head = Arc::new(Mutex::new(ChainHead { sequence: 0, ..writer.head() }));
        hub.heads.lock().push(head.clone());
        let mut chain = Self {
            hub: hub.clone(),
            writer,
            sink,
            dirty,
            head,
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
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // While the log is well the reserve stands, whoever had given it up before.
        self.reserve_released &= !self.hub.is_healthy();
        let mut outcome = self.sink.append(&self.pending);
        if outcome.is_err() && !self.reserve_released {
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
                self.pending.clear();
                self.dirty.store(true, Ordering::Release);
                let mut head = self.head.lock();
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
    /// Keep the record of what a timer did to a key.
    Timer { operation: &'static str, rule: &'static str, key: KeyTouch, writes: Vec<RecordStamp> },
    /// Write what there is, close the chain, answer.
    Stop(tokio::sync::oneshot::Sender<()>),
}

/// The management chain as the audit actor drives it.
pub(crate) struct ManagementChain {
    pub(crate) chain: DeskChain,
}

impl ManagementChain {
    /// Writes records and makes them durable in one go.
    pub(crate) fn write(&mut self, records: &[Box<ManagementRecord>]) -> Result<()> {
        let now = self.chain.hub.clock.now();
        for record in records {
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
