//! The gate: the only way in. It authenticates, authorises, resolves, hands work to where it is done, and lets no answer out that
//! the audit does not have.

mod access;
mod acme;
mod approval;
mod authority;
mod certificate;
mod certificate_make;
mod certificate_use;
mod client_key;
mod data;
mod data_compute;
mod explain;
mod filter;
mod grant;
mod instance;
mod key_policy;
mod login_token;
mod manage;
mod managed_data_key;
mod offer;
mod parameters;
mod plan;
mod read;
mod reseal;
mod role;
mod rotation;
mod secret;
mod secret_batch;
mod secret_change;
mod secret_list;
mod secret_put;
mod share;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keymill_core::access::{AccessSnapshot, Decision, Principal, Resource};
use keymill_core::context::EncryptionContext;
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{KeyRef, RequestId};
use keymill_core::key::KeySketch;
use keymill_core::limit;
use keymill_core::operation::{Class, Operation, Request};
use keymill_core::seam::auth::{AuthError, Credential};
use parking_lot::Mutex;

use crate::actor::{Actors, ArbiterHandle, SoftwareActor};
use crate::cluster::{AsOf, parts_of_all};
use crate::keyring::CmkEntry;
use crate::metrics::{ClusterSample, Metrics, Sample};
use crate::nonces::SignedNonce;
use crate::shared::Shared;
use crate::work::{Cancel, Contexts, Desk, DeskKind, Finished, Job, ReplyTo, Sheet, Task};

pub use acme::{AccountChange, Revoker};
pub use authority::OfListener;
pub use authority::Published;
pub use manage::Managed;

/// What a frontend knows of a request beside its parameters.
#[derive(Clone)]
pub struct Call {
    /// The id of the request.
    pub request_id: RequestId,
    /// Who asks.
    pub principal: Principal,
    /// From where.
    pub source: Option<IpAddr>,
    /// The frontend's name.
    pub frontend: &'static str,
    /// When the last byte of it was read.
    pub received: Instant,
    /// The nonce that it was signed with, where each request is signed: what it changes is changed once.
    pub nonce: Option<SignedNonce>,
}

/// A request as a frontend brings it to the gate.
pub struct Ask<'a> {
    /// What the frontend knows of it.
    pub call: Call,
    /// The request.
    pub request: Request<'a>,
    /// Whether the plaintext of an `Encrypt` is text that the dialect took as it stood.
    pub is_text: bool,
    /// Whether it is only tried: what would have succeeded is refused as `DryRun`, and nothing is given out.
    pub is_dry_run: bool,
    /// The frame that the request borrows from.
    pub frame: Option<&'a Bytes>,
    /// Where results go.
    pub sheet: Sheet,
    /// Who takes the answer of a job; `None` where the job is performed on the spot.
    pub reply_to: Option<Arc<dyn ReplyTo>>,
    /// Calls it off.
    pub cancel: Cancel,
    /// Comes back with the answer.
    pub ticket: u64,
}

/// What became of a request at the gate.
pub enum Opened {
    /// Work for a desk (a refusal, too: it is recorded there).
    Job(Box<Job>),
    /// A management operation, for [`Gate::manage`].
    Managed(Box<Managed>),
}

/// The way into an engine; clones lead to the same one.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) actors: Actors,
    desks: Mutex<Vec<Desk>>,
    open_desks: Mutex<usize>,
    pub(crate) arbiters: Mutex<Vec<ArbiterHandle>>,
}

impl Gate {
    pub(crate) fn new(shared: Arc<Shared>, actors: Actors) -> Self {
        Self(Arc::new(Inner {
            shared,
            actors,
            desks: Mutex::default(),
            open_desks: Mutex::new(0),
            arbiters: Mutex::default(),
        }))
    }

    /// Returns a fresh request id.
    pub fn request_id(&self) -> RequestId {
        self.0.shared.request_ids.next()
    }

    /// Returns the largest frame, body and answer, in bytes.
    pub fn max_frame_bytes(&self) -> usize {
        self.0.shared.config.max_frame_bytes
    }

    /// Returns the most requests in flight on one connection.
    pub fn max_in_flight(&self) -> usize {
        self.0.shared.config.max_in_flight
    }

    /// Returns the wall clock of the engine.
    pub fn now(&self) -> keymill_core::Timestamp {
        self.0.shared.clock.now()
    }

    /// Returns the metrics, for what only a frontend sees.
    pub fn metrics(&self) -> &Metrics {
        &self.0.shared.metrics
    }

    /// Draws 32 random bytes, for a challenge.
    ///
    /// # Errors
    /// `Unavailable` where randomness fails.
    pub fn challenge(&self) -> Result<[u8; 32]> {
        Ok(keymill_crypto::random::array()?)
    }

    /// Tells who signed one of the texts: where a dialect has more than one form of the same request, it may be any. Once nothing else stands in
    /// the way of the login, [`Self::logged_in`] is to be told.
    ///
    /// # Errors
    /// One of the unauthenticated kinds, or `LoginThrottled` where too many logins from there failed; it is counted by reason and source.
    pub fn authenticate(
        &self,
        scheme: &str,
        offered: &Credential<'_>,
        signed: &[&[u8]],
        source: Option<IpAddr>,
    ) -> Result<Principal> {
        let shared = &self.0.shared;
        let authenticator = shared.authenticators.get(scheme).ok_or_else(|| {
            Error::new(ErrorKind::UnsupportedAuthentication, "this way of logging in is not offered here")
        })?;
        if let Some(id) = offered.id() {
            self.check_login(id, source).inspect_err(|error| self.refused_stranger(error.kind(), source))?;
        }
        let known = shared.access.read();
        let mut outcome = Err(AuthError::Mismatch);
        for text in signed {
            outcome = authenticator.authenticate(offered, text, &known);
            if !matches!(outcome, Err(AuthError::Mismatch)) {
                break;
            }
        }
        self.let_in(&known, outcome, source)
    }

    /// Lets in whom a login has shown to be known, and counts who is not let in.
    fn let_in(
        &self,
        known: &AccessSnapshot,
        outcome: Result<Principal, AuthError>,
        source: Option<IpAddr>,
    ) -> Result<Principal> {
        // Whoever is known and not admitted was so before its time, or after it.
        let outcome = outcome.and_then(|principal| match self.is_admitted_by(known, &principal) {
            true => Ok(principal),
            false => Err(AuthError::Inactive),
        });
        outcome.map_err(Error::from).inspect_err(|error| {
            self.note_failed_login(error.kind(), source);
            self.refused_stranger(error.kind(), source);
        })
    }

    /// Counts a caller who was not let in, for metrics and audit.
    pub fn refused_stranger(&self, kind: ErrorKind, source: Option<IpAddr>) {
        self.0.shared.metrics.authentication_failed(kind);
        self.0.shared.audit.note_stranger(source, kind.code());
    }

    /// Returns a number that changes with every change of access keys; what was found under an older one is to be looked up anew.
    pub fn access_version(&self) -> u64 {
        self.0.shared.access_version.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Tells whether the principal may still do anything at all: its access key is there and active, or its client key and access point are
    /// there, and the time is one at which the key is taken.
    pub fn is_admitted(&self, principal: &Principal) -> bool {
        self.is_admitted_by(&self.0.shared.access.read(), principal)
    }

    fn is_admitted_by(&self, access: &AccessSnapshot, principal: &Principal) -> bool {
        access.admits(principal, self.0.shared.clock.now())
    }

    /// Tells a dialect what its request leaves to the key, if the caller may do any of `rights` with it: of a key that one may not use, and of
    /// one that does not exist, there is nothing to tell. Whatever comes of it is decided and recorded by [`Self::open`].
    pub fn sketch(
        &self,
        call: &Call,
        key: &KeyRef,
        rights: &[Operation],
        context: Option<&EncryptionContext>,
    ) -> Option<KeySketch> {
        let shared = &self.0.shared;
        let id = match key {
            KeyRef::Id(id) => *id,
            KeyRef::Alias(name) => shared.keyring.alias(name)?.cmk,
            KeyRef::Unknown => return None,
        };
        let (principal, source) = (&call.principal, call.source);
        let decide = |right| shared.decide_under(principal, source, right, Resource::Key(id), context);
        let may = |right: &Operation| decide(*right).allowed;
        let entry = rights.iter().any(may).then(|| shared.keyring.cmk(&id)).flatten()?;
        let cmk = &entry.cmk;
        // The key of a certificate is no key of its own.
        if cmk.certificate.is_some() {
            return None;
        }
        Some(KeySketch { spec: cmk.spec, usage: cmk.usage, first_version: cmk.versions.first()?.id })
    }

    /// Takes a request: authorises it, checks it against the limits, pins its key version.
    pub fn open(&self, ask: Ask<'_>) -> Opened {
        let Ask { call, request, is_text, is_dry_run, frame, sheet, reply_to, cancel, ticket } = ask;
        let operation = request.operation();
        let unopened = Task::Refused(Error::new(ErrorKind::Internal, "not yet opened"));
        let mut job = Box::new(Job {
            sheet,
            reply_to,
            ticket,
            is_dry_run,
            ..Job::under(cancel, call, Some(operation), unopened)
        });
        match self.admit(&mut job, request, frame, is_text) {
            Ok(None) => {
                self.share_data(&mut job);
                Opened::Job(job)
            }
            Ok(Some(plan)) => match self.share_managed(&job) {
                Ok(()) => Opened::Managed(Box::new(Managed::new(*job, plan))),
                Err(error) => {
                    job.refuse(error);
                    Opened::Job(job)
                }
            },
            Err(error) => {
                self.share_refused(&job);
                job.refuse(error);
                Opened::Job(job)
            }
        }
    }

    fn admit(
        &self,
        job: &mut Job,
        request: Request<'_>,
        frame: Option<&Bytes>,
        is_text: bool,
    ) -> Result<Option<plan::Plan>> {
        if let Some(ms) = request.timeout_ms() {
            if ms == 0 {
                return Err(Error::new(ErrorKind::InvalidParameter, "TimeoutMs must be at least 1"));
            }
            if ms > limit::MAX_TIMEOUT_MS {
                return Err(Error::new(
                    ErrorKind::LimitExceeded(Limit::TimeoutMs),
                    format!("TimeoutMs of {ms} exceeds the limit of {}", limit::MAX_TIMEOUT_MS),
                ));
            }
            job.deadline = job.call.received + Duration::from_millis(ms);
        }
        self.0.shared.check_open()?;
        self.0.shared.audit.check()?;
        match self.held(job, &request)? {
            None => self.authorise(job, request, frame, is_text),
            Some(held) => {
                let plan = self.authorise(job, held.request()?, None, false)?;
                self.pass(job, &held, plan)
            }
        }
    }

    /// Authorises a request and checks its parameters; what it comes to is the task of the job, or a plan.
    fn authorise(
        &self,
        job: &mut Job,
        request: Request<'_>,
        frame: Option<&Bytes>,
        is_text: bool,
    ) -> Result<Option<plan::Plan>> {
        let class = request.operation().class();
        // What is told to everybody may be told of an older view as well.
        if !request.operation().tells_what_is_public() {
            self.0.shared.check_view().map_err(Error::nothing_done)?;
        }
        match class {
            Class::Data => self.admit_data(job, request, frame, is_text).map(|()| None),
            Class::Read => {
                let reply = self.read(job, request)?;
                job.task = Task::Answered(Box::new(reply));
                Ok(None)
            }
            Class::Management => self.plan(job, request).map(Some),
        }
    }

    /// Makes a job of a request that was refused before it reached the gate, so that the refusal is recorded like any other.
    pub fn refuse(
        &self,
        call: Call,
        operation: Option<Operation>,
        error: Error,
        reply_to: Option<Arc<dyn ReplyTo>>,
        cancel: Cancel,
        ticket: u64,
    ) -> Box<Job> {
        Box::new(Job { reply_to, ticket, ..Job::under(cancel, call, operation, Task::Refused(error)) })
    }

    /// Performs a job to its end on the caller's thread.
    ///
    /// # Errors
    /// `Unavailable` or `AuditUnavailable` where no desk can be opened.
    pub fn perform(&self, job: Box<Job>) -> Result<Finished> {
        if job.over_quota.is_some() {
            // The caller's thread does it: nothing waits.
            self.0.shared.metrics.over_quota.admitted.inc();
        }
        let desk = self.0.desks.lock().pop();
        let mut desk = match desk {
            Some(desk) => desk,
            None => {
                let desk = Desk::open(&self.0.shared, DeskKind::InProcess)?;
                *self.0.open_desks.lock() += 1;
                desk
            }
        };
        let finished = desk.perform(job);
        self.0.desks.lock().push(desk);
        Ok(finished)
    }

    /// Starts the software actor of this arbiter; the frontend that runs it submits its jobs there.
    ///
    /// # Errors
    /// `Unavailable` or `AuditUnavailable` where no desk can be opened.
    pub fn arbiter(&self) -> Result<ArbiterHandle> {
        let mut arbiters = self.0.arbiters.lock();
        // Asked under the lock: whoever closes the gate takes the arbiters behind that.
        self.0.shared.check_open()?;
        let handle = SoftwareActor::start_here(&self.0.shared)?;
        arbiters.push(handle.clone());
        Ok(handle)
    }

    /// Takes room for bytes of a request and its answer; it is given back when the returned value is dropped.
    pub fn buffer(&self, bytes: usize) -> Option<Buffered> {
        use std::sync::atomic::Ordering;
        let shared = &self.0.shared;
        let before = shared.buffered.fetch_add(bytes, Ordering::Relaxed);
        let taken = Buffered { shared: shared.buffered.clone(), bytes };
        // A request that is alone fits always: it is bounded by the frame.
        (before == 0 || before + bytes <= shared.config.max_buffered_bytes).then_some(taken)
    }

    /// Writes the metrics in Prometheus's text format.
    pub fn expose_metrics(&self) -> String {
        use std::sync::atomic::Ordering;
        let shared = &self.0.shared;
        let arbiters = self.0.arbiters.lock();
        let sample = Sample {
            queue_depth: arbiters.iter().map(ArbiterHandle::queued).sum(),
            queue_limit: shared.config.max_queued_jobs * arbiters.len(),
            lane_depth: self.0.actors.lane_len(),
            buffered: shared.buffered.load(Ordering::Relaxed),
            keys: shared.keyring.len(),
            quarantined: shared.quarantined,
            failing_rotations: shared.keyring.secrets.failing(),
            certificates: self.sample_of_certificates(),
            acme: shared.acme.len(),
            waiting: self.waiting(),
            kept_out: shared.logins.kept_out(self.steady_ms()),
            subkeys: shared.subkeys.len(),
            subkey_counts: [shared.subkeys.hits(), shared.subkeys.misses(), shared.subkeys.evictions()],
            audit_counts: [
                shared.audit.records.load(Ordering::Relaxed),
                shared.audit.bytes.load(Ordering::Relaxed),
                shared.audit.failures.load(Ordering::Relaxed),
                shared.audit.rotated.load(Ordering::Relaxed),
                shared.audit.retired.load(Ordering::Relaxed),
            ],
            audit_beside: shared.audit.beside(),
            cluster: shared.cluster.as_ref().map(|cluster| ClusterSample {
                view_age: cluster.view.age(AsOf::now(&shared.clock)),
                keeps_time: shared.keeps_time(),
                is_forked: cluster.view.is_forked(),
                nodes: cluster.nodes(),
                format: cluster.writable_format(),
                parts: parts_of_all(shared, cluster),
                records: [&cluster.followed, &cluster.rejected].map(|count| count.load(Ordering::Relaxed)),
            }),
            audit_healthy: shared.audit.is_healthy(),
            store_healthy: shared.store_trouble.lock().is_none(),
            hsm_lane_depth: shared.pool.lane.len(),
            software_lane_depth: shared.software.len(),
            tokens: shared.pool.reports(),
        };
        drop(arbiters);
        shared.metrics.expose(sample)
    }

    /// Has the other nodes of a cluster know that this one takes nothing new from now on, and will end.
    pub fn drain(&self) {
        if let Some(cluster) = &self.0.shared.cluster {
            cluster.drain();
        }
    }

    /// Tells what keeps the engine from serving everything, in a sentence each; empty where all is well.
    pub fn troubles(&self) -> Vec<String> {
        let shared = &self.0.shared;
        let mut troubles = Vec::new();
        if !shared.audit.is_healthy() {
            troubles.push("the audit log cannot be written: audited requests are refused".to_owned());
        }
        if let Some(trouble) = &*shared.store_trouble.lock() {
            troubles.push(format!("the store refuses writes: {trouble}"));
        }
        if let Some(cluster) = &shared.cluster {
            troubles.extend(cluster.view.trouble(AsOf::now(&shared.clock)));
        }
        if !shared.pool.is_empty() && shared.pool.lane.is_down() {
            troubles
                .push("no token of the crypto pool is up: requests under its keys are refused".to_owned());
        }
        troubles
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn take_arbiters(&self) -> Vec<ArbiterHandle> {
        std::mem::take(&mut *self.0.arbiters.lock())
    }

    pub(crate) fn take_desks(&self) -> Vec<Desk> {
        std::mem::take(&mut *self.0.desks.lock())
    }

    /// Lets idle in-process desks write the checkpoints that are due.
    pub(crate) fn tick_desks(&self) {
        for desk in self.0.desks.lock().iter_mut() {
            desk.tick();
        }
    }

    fn decide(&self, job: &Job, operation: Operation, resource: Resource<'_>) -> Decision {
        self.0.shared.decide(&job.call.principal, job.call.source, operation, resource)
    }

    /// Checks a right that has nothing to hide.
    fn require(&self, job: &mut Job, operation: Operation, resource: Resource<'_>) -> Result<()> {
        let Decision { allowed, rule } = self.decide(job, operation, resource);
        job.rule = Some(rule);
        match allowed {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Denied, "the caller may not do this")),
        }
    }

    /// Finds the key that a request names, if the caller may do `operation` with it; a key that one may not use looks like one
    /// that does not exist.
    fn find_key(&self, job: &mut Job, key: &KeyRef, operation: Operation) -> Result<Arc<CmkEntry>> {
        self.find_key_under(job, key, operation, &Contexts::None)
    }

    /// The same for what is to be done under encryption contexts: the caller may do it under each of them, or it is not done at all.
    fn find_key_under(
        &self,
        job: &mut Job,
        key: &KeyRef,
        operation: Operation,
        contexts: &Contexts,
    ) -> Result<Arc<CmkEntry>> {
        let keyring = &self.0.shared.keyring;
        let not_found = || match key {
            KeyRef::Alias(_) => Error::new(ErrorKind::AliasNotFound, "the specified alias is not found"),
            KeyRef::Id(_) | KeyRef::Unknown => Error::key_not_found(),
        };
        let id = match key {
            KeyRef::Id(id) => *id,
            KeyRef::Alias(name) => keyring.alias(name).ok_or_else(not_found)?.cmk,
            KeyRef::Unknown => return Err(not_found()),
        };
        for context in contexts.distinct(|| keyring.policy(&id).is_some_and(|policy| policy.reads_context()))
        {
            let Decision { allowed, rule } = self.0.shared.decide_under(
                &job.call.principal,
                job.call.source,
                operation,
                Resource::Key(id),
                context,
            );
            job.rule = Some(rule);
            if !allowed {
                return Err(not_found());
            }
        }
        // What the key of a certificate does, it does by that alone.
        let entry = keyring.cmk(&id).filter(|entry| entry.cmk.certificate.is_none());
        entry.ok_or_else(|| match keyring.quarantined(&id) {
            Some(why) => Error::new(ErrorKind::Quarantined, why),
            None => not_found(),
        })
    }
}

/// Room that was taken for a request and its answer.
pub struct Buffered {
    shared: Arc<std::sync::atomic::AtomicUsize>,
    bytes: usize,
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.shared.fetch_sub(self.bytes, std::sync::atomic::Ordering::Relaxed);
    }
}
