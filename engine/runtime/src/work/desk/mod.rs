//! A desk: what one thread needs to do symmetric work, from the crypto session to its own audit chain. Whoever sits at it takes
//! parts of jobs, does them, records them, and only then lets the answers go.

mod finish;

use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::Rule;
use keymill_core::audit::{Alike, KeyTouch};
use keymill_core::error::{Error, ErrorKind};
use keymill_core::seam::provider::CryptoSession;

use crate::audit::DeskChain;
use crate::metrics::DeskMetrics;
use crate::pool::chunk::{Chunk, Home, Return, call};
use crate::ready::Part;
use crate::shared::Shared;
use crate::work::hsm::{Where, rights_of, where_sealed};
use crate::work::open::Memo;
use crate::work::trips::Trips;
use crate::work::{Fault, Finished, Job, ReplyTo, Sealing, Served, Task, seal};

/// Who sits at a desk; it names the audit chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeskKind {
    /// An arbiter of a frontend.
    Arbiter,
    /// A thread of the host program.
    InProcess,
}

/// How long a desk that waits for tokens does so before it looks at the clock.
const LOOK_UP: std::time::Duration = std::time::Duration::from_millis(20);

/// What opening needs, out of a desk.
macro_rules! opener {
    ($desk:expr, $principal:expr, $source:expr, $rights:expr) => {
        $crate::work::open::Opener {
            shared: &$desk.shared,
            session: &mut *$desk.session,
            memo: &mut $desk.memo,
            aad: &mut $desk.aad,
            plaintext: &mut $desk.plaintext,
            principal: $principal,
            source: $source,
            rights: $rights,
        }
    };
}
pub(in crate::work) use opener;

/// What one thread needs to do symmetric work.
pub struct Desk {
    pub(in crate::work) shared: Arc<Shared>,
    pub(in crate::work) session: Box<dyn CryptoSession>,
    chain: Option<DeskChain>,
    pub(in crate::work) metrics: DeskMetrics,
    pub(in crate::work) memo: Memo,
    pub(in crate::work) aad: Vec<u8>,
    pub(in crate::work) plaintext: Vec<u8>,
    /// Jobs that wait for tokens.
    pub(in crate::work) trips: Trips,
    /// Where what comes back from tokens arrives, at a desk that waits for it.
    arrivals: Option<flume::Receiver<Vec<Return>>>,
    /// Jobs that are being answered; empty between.
    done: Vec<Box<Job>>,
    touches: Vec<KeyTouch>,
    other_touches: Vec<KeyTouch>,
    alike: Vec<Alike>,
    /// The rule that was last recorded, and its text.
    rule: (Option<Rule>, Box<str>),
}

impl Desk {
    /// Opens a desk.
    ///
    /// # Errors
    /// `Unavailable` where the provider gives no session, `AuditUnavailable` where there is no chain to be had.
    pub(crate) fn open(shared: &Arc<Shared>, kind: DeskKind) -> Result<Self, Error> {
        let (sender, arrivals) = flume::unbounded();
        let mut desk = Self::open_at(shared, kind, Arc::new(Waiting(sender)))?;
        desk.arrivals = Some(arrivals);
        Ok(desk)
    }

    /// Opens a desk; what comes back from tokens goes to `home`, and from there to [`Self::returned`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_at(shared: &Arc<Shared>, kind: DeskKind, home: Arc<dyn Home>) -> Result<Self, Error> {
        let name = match kind {
            DeskKind::Arbiter => "data",
            DeskKind::InProcess => "in-process",
        };
        let chain = match shared.audit.enabled {
            true => Some(DeskChain::open(&shared.audit, name)?),
            false => None,
        };
        Ok(Self {
            session: shared.provider.open_session()?,
            chain,
            metrics: shared.metrics.desk(),
            memo: Memo::default(),
            aad: Vec::new(),
            plaintext: Vec::new(),
            trips: Trips::new(shared.clone(), home),
            arrivals: None,
            done: Vec::new(),
            touches: Vec::new(),
            other_touches: Vec::new(),
            alike: Vec::new(),
            rule: (None, "none".into()),
            shared: shared.clone(),
        })
    }

    /// Does the parts, in order. What is finished is answered; what is not is pushed to `unfinished`, but for jobs that wait for tokens:
    /// those are kept until `returned`.
    pub fn work(&mut self, parts: &mut Vec<(Box<Job>, Part)>, unfinished: &mut Vec<Box<Job>>) {
        let started = Instant::now();
        for (job, _) in parts.iter_mut() {
            if job.started.is_none() {
                job.started = Some(started);
                job.lay_out();
                self.metrics.queued(started.saturating_duration_since(job.call.received));
            }
            if job.cancel.is_cancelled() {
                job.refuse(Error::new(ErrorKind::Cancelled, "the caller went away"));
            }
        }
        let at = self.shared.clock.now();
        let mut i = 0;
        while i < parts.len() {
            if started >= parts[i].0.deadline {
                expire(&mut parts[i].0);
                i += 1;
                continue;
            }
            if self.awaits_pair(&mut parts[i].0) {
                i += 1;
                continue;
            }
            let group = group_len(&parts[i..], started);
            self.do_group(&mut parts[i..i + group], started, at);
            i += group;
        }
        self.metrics.worked(started.elapsed());
        let mut done = std::mem::take(&mut self.done);
        for (job, _) in parts.drain(..) {
            if job.waits && job.next < job.len() {
                self.trips.park(job);
            } else if job.next < job.len() {
                unfinished.push(job);
            } else {
                done.push(job);
            }
        }
        self.finish(&mut done, unfinished);
        self.done = done;
    }

    /// Takes what came back from tokens; jobs that can go on are pushed to `ready`.
    pub(crate) fn returned(&mut self, returns: Vec<Return>, ready: &mut Vec<Box<Job>>) {
        self.trips.returned(returns, Instant::now(), ready);
    }

    /// Tells whether software is to do what tokens did not.
    pub(crate) fn is_behind(&self) -> bool {
        self.trips.has_fallen()
    }

    /// Has software do what tokens did not, for about a slice; jobs that can go on are pushed to `ready`.
    pub(crate) fn catch_up(&mut self, ready: &mut Vec<Box<Job>>) {
        let started = Instant::now();
        while let Some(mut chunk) = self.trips.take_fallen() {
            if chunk.cancel.is_cancelled() || started >= chunk.deadline {
                chunk.fault =
                    Some(Error::new(ErrorKind::Deadline, "not done within the time allowed").into());
            } else if let Err(fault) = self.do_fallen(&mut chunk) {
                chunk.fault = Some(fault);
            }
            self.returned(vec![Return::Done(chunk)], ready);
            if started.elapsed() >= self.shared.config.slice {
                break;
            }
        }
        self.metrics.worked(started.elapsed());
    }

    fn do_fallen(&mut self, chunk: &mut Chunk) -> Result<(), Fault> {
        let handle = self.shared.handle(&chunk.entry, &chunk.version)?;
        chunk.served.add(Served::SOFTWARE);
        call(&mut *self.session, &handle, &mut chunk.work).map_err(|lost| {
            Error::new(ErrorKind::Unavailable, "the crypto session was lost").caused_by(lost.reason)
        })?;
        if let Some(reason) = chunk.fallback {
            self.shared.metrics.fell_back(reason, chunk.len());
        }
        Ok(())
    }

    /// Tells whether any job waits for tokens.
    pub(crate) fn awaits(&self) -> bool {
        !self.trips.is_empty()
    }

    /// Answers jobs that wait for tokens and were called off, or whose time is over: a call may never return.
    pub(crate) fn expire_waiting(&mut self, unfinished: &mut Vec<Box<Job>>) {
        let mut due = self.trips.take_due(Instant::now());
        for job in &mut due {
            match job.cancel.is_cancelled() {
                true => job.refuse(Error::new(ErrorKind::Cancelled, "the caller went away")),
                false => expire(job),
            }
        }
        self.finish(&mut due, unfinished);
    }

    /// Answers all jobs that wait for tokens, for nobody will be here to take what comes back.
    pub(crate) fn refuse_waiting(&mut self) {
        let mut waiting = self.trips.take_all();
        for job in &mut waiting {
            job.refuse(Error::new(ErrorKind::Unavailable, "the engine is shutting down"));
        }
        self.finish(&mut waiting, &mut Vec::new());
    }

    /// Does consecutive parts that seal under one key version with one run, or one part of any other kind.
    fn do_group(&mut self, group: &mut [(Box<Job>, Part)], now: Instant, at: keymill_core::Timestamp) {
        let destination = match &group[0].0.task {
            Task::Seal { to, .. } => to.clone(),
            Task::Open(_) => {
                for (job, part) in group {
                    self.metrics.batch(part.items as u32);
                    self.open_items(job, part.items, at);
                }
                return;
            }
            Task::Compute(_) => {
                for (job, part) in group {
                    self.compute(job, part.items, at);
                }
                return;
            }
            Task::Answered(_) | Task::Refused(_) => return,
        };
        let place = where_sealed(&destination);
        if place == Where::Away {
            for (job, _) in group {
                match &job.task {
                    Task::Seal { what: Sealing::Blobs(_), .. } => self.relay(job, now, at),
                    _ => self.seal_in_token(job, at),
                }
            }
            return;
        }
        let count = group.iter().map(|(_, part)| part.items as u32).sum();
        self.metrics.batch(count);
        let mut run = match place {
            Where::HereByEpochOfToken => {
                let limits = self.shared.epoch_limits(&destination.entry);
                let run = destination.version.in_use().epoch.try_begin(count, now, &limits);
                // Where there is no epoch, each job waits for its subkey.
                run.map_err(|error| Fault::from(Error::from(error))).transpose()
            }
            _ => Some(seal::begin(&self.shared, &mut *self.session, &destination, count, now)),
        };
        for (job, part) in group {
            // What was begun with a token is ended that way.
            if matches!(job.task, Task::Seal { what: Sealing::Blobs(_), .. }) && job.trip.is_some() {
                self.relay(job, now, at);
                continue;
            }
            let mut own;
            let run = match &mut run {
                Some(run) => run,
                None => match self.begin_by_token(job, &destination, part.items as u32, now) {
                    Ok(None) => continue,
                    Ok(Some(run)) => {
                        own = Ok(run);
                        &mut own
                    }
                    Err(fault) => {
                        own = Err(fault);
                        &mut own
                    }
                },
            };
            let (principal, source) = (job.call.principal.clone(), job.call.source);
            let rights = rights_of(job);
            let mut opener = opener!(self, &principal, source, rights);
            let sealed = seal::seal(job, part.items, run, at, &mut opener);
            job.next += sealed;
            if sealed < part.items {
                self.relay(job, now, at);
            }
        }
    }

    /// Does one job to its end, on the caller's thread.
    pub(crate) fn perform(&mut self, mut job: Box<Job>) -> Finished {
        self.shared.metrics.in_flight.inc();
        let slot = Arc::new(Slot::default());
        job.reply_to = Some(slot.clone());
        let mut job = Some(job);
        let mut parts = Vec::with_capacity(1);
        let mut unfinished = Vec::new();
        while let Some(next) = job.take() {
            let part = crate::ready::Divisible::part(&next, u64::from(u32::MAX));
            parts.push((next, part));
            self.work(&mut parts, &mut unfinished);
            job = unfinished.pop();
            while job.is_none() && self.awaits() {
                match self.is_behind() {
                    true => self.catch_up(&mut unfinished),
                    false => self.await_arrivals(&mut unfinished),
                }
                job = unfinished.pop();
            }
        }
        slot.0.lock().take().expect("a job that is done was answered")
    }

    /// Waits for something to come back from tokens, for a little while.
    fn await_arrivals(&mut self, ready: &mut Vec<Box<Job>>) {
        let arrivals = self.arrivals.clone().expect("a desk that performs jobs waits for what comes back");
        if let Ok(returns) = arrivals.recv_timeout(LOOK_UP) {
            self.returned(returns, ready);
            while let Ok(returns) = arrivals.try_recv() {
                self.returned(returns, ready);
            }
        }
        if ready.is_empty() {
            self.expire_waiting(ready);
        }
    }

    /// Writes a checkpoint where one is due though no request came.
    pub(crate) fn tick(&mut self) {
        if let Some(chain) = &mut self.chain
            && let Err(error) = chain.flush()
        {
            tracing::debug!(%error, "audit log");
        }
    }

    /// Closes the desk's audit chain.
    pub(crate) fn close(self) {
        if let Some(mut chain) = self.chain {
            chain.close();
        }
    }
}

/// The home of a desk that waits for what comes back.
struct Waiting(flume::Sender<Vec<Return>>);

impl Home for Waiting {
    fn returned(&self, returns: Vec<Return>) {
        // Bounded by the chunks that the desk has out; a desk that is gone waits for none.
        let _gone = self.0.send(returns);
    }
}

#[derive(Default)]
struct Slot(parking_lot::Mutex<Option<Finished>>);

impl ReplyTo for Slot {
    fn finished(&self, finished: Finished) {
        *self.0.lock() = Some(finished);
    }
}

/// Returns how many parts from the first one on seal under one key version within one run.
fn group_len(parts: &[(Box<Job>, Part)], now: Instant) -> usize {
    let Task::Seal { to: first, .. } = &parts[0].0.task else { return 1 };
    let mut count = parts[0].1.items;
    let more = parts[1..].iter().take_while(|(job, part)| {
        count += part.items;
        matches!(&job.task, Task::Seal { to, what, .. } if Arc::ptr_eq(&to.version, &first.version)
            && !matches!(what, Sealing::Pair(_)))
            && count <= keymill_core::limit::BATCH_ITEMS
            && now < job.deadline
    });
    1 + more.count()
}

/// Answers all items that are not done with the deadline's error.
fn expire(job: &mut Job) {
    let total = job.len();
    if total == 0 {
        return;
    }
    let pair = matches!(&job.task, Task::Seal { what: Sealing::DataKeys { .. }, .. });
    for i in job.next..total {
        if pair {
            job.sheet.pair();
            job.sheet.absent();
        }
        job.sheet.absent();
        if let Task::Open(open) = &mut job.task {
            open.index.push(None);
        }
        job.fail_item(
            i,
            Fault { kind: ErrorKind::Deadline, message: "not done within the time allowed".into() },
        );
    }
    job.next = total;
}
