//! The records of management, owned so that they can travel to the audit actor, and the chain that it writes them to.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use keymill_core::audit::{AuditRecord, KeyTouch, Outcome, RecordStamp, SecretTouch};
use keymill_core::error::Result;
use keymill_core::id::CertificateId;
use keymill_core::id::{AccessKeyId, RequestId};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{ChainReport, Note};

use super::DeskChain;
use crate::shared::Shared;
use crate::work::Served;

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
    pub rule: Cow<'static, str>,
    /// The keys that it touched.
    pub keys: Vec<KeyTouch>,
    /// The secrets that it was about.
    pub secrets: Vec<SecretTouch>,
    /// The certificates that it was about.
    pub certificates: Vec<CertificateId>,
    /// The second caller who approved it, where the installation has it wait for one.
    pub approved_by: Option<Arc<str>>,
    /// Who made what it keeps.
    pub(crate) served: Served,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// What it wrote.
    pub writes: Vec<RecordStamp>,
}

impl ManagementRecord {
    /// Begins the record of what the engine itself has done, by that rule.
    pub(crate) fn own(request: RequestId, operation: &'static str, rule: &'static str) -> Self {
        Self {
            request,
            principal: None,
            source: None,
            frontend: "engine",
            operation,
            outcome: Outcome::Done,
            rule: rule.into(),
            keys: Vec::new(),
            secrets: Vec::new(),
            certificates: Vec::new(),
            approved_by: None,
            served: Served::default(),
            micros: 0,
            writes: Vec::new(),
        }
    }
}

/// What the audit actor is told.
pub(crate) enum AuditMessage {
    /// Keep the record, durably, then answer.
    Durable(Box<ManagementRecord>, tokio::sync::oneshot::Sender<Result<()>>),
    /// Keep a note of a jump of the clock.
    ClockJump { from: Timestamp, to: Timestamp },
    /// Keep a note of records that a crash had kept out of the audit.
    Recovered(Vec<RecordStamp>),
    /// Keep a note of records that other nodes wrote and this one took over.
    Followed(Vec<RecordStamp>),
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
    pub(crate) rule: Cow<'static, str>,
    pub(crate) outcome: Outcome,
    pub(crate) touch: TimerTouch,
    pub(crate) writes: Vec<RecordStamp>,
}

/// What a timer did something to.
pub(crate) enum TimerTouch {
    Key(KeyTouch),
    Secret(SecretTouch),
    /// For what an authority does by the clock.
    Certificate(CertificateId),
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
                certificates: &record.certificates,
                providers: &providers,
                items: 0,
                failed: 0,
                context: None,
                fallback: None,
                recipient: None,
                approved_by: record.approved_by.as_deref().map(Into::into),
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
