//! The engine's side of the audit: what its chains share, their health, and how far they have come. What a record says is in `keymill_core::audit`, how a chain holds together in `keymill_crypto::audit`.

mod chain;
mod management;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::seam::audit::{AuditLog, AuditSync, Beside};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{ChainHead, ChainKeys};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::AuditFiles;

pub use chain::DeskChain;
pub use management::ManagementRecord;
pub(crate) use management::{AuditMessage, ManagementChain, Retiring, TimerRecord, TimerTouch};

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
