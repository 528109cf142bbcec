//! A desk's dealings with the pool: jobs that wait for what they have under way in tokens, and what several of them wait for together: a
//! subkey is derived once for all jobs of the desk, however many ask for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::SendError;
use keymill_core::Sensitive;
use keymill_core::access::Caller;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::KeyVersionId;
use keymill_core::key::ProtectionLevel;
use keymill_core::limit;
use keymill_core::seam::provider::{DeriveJob, PublicKey};
use keymill_crypto::epoch::EpochDraft;
use keymill_crypto::xaes::{PREFIX_BYTES, Subkey, SubkeyCipher, subkey_messages};

use super::away::{Away, SubkeyId, job_fault};
use super::{Cancel, Fault, Job, Served, pair};
use crate::actor::keyring::Reserve;
use crate::keyring::{CmkEntry, VersionEntry};
use crate::pool::chunk::{Chunk, Home, Return, Tag, Work};
use crate::pool::token::out_of_sessions;
use crate::shared::Shared;

/// How often work is sent out again that was in the hands of a call which does not return.
const HANGS: u32 = 4;

/// The jobs of one desk that are away.
pub(super) struct Trips {
    shared: Arc<Shared>,
    home: Arc<dyn Home>,
    next: u64,
    away: HashMap<u64, Away>,
    parked: HashMap<u64, Box<Job>>,
    derivations: HashMap<u64, Derivation>,
    /// Which derivation brings a subkey.
    deriving: HashMap<SubkeyId, u64>,
    epochs: HashMap<KeyVersionId, u64>,
    reserving: HashMap<KeyVersionId, Vec<u64>>,
    /// What no token did and software is to do, in the order that it came.
    fallen: VecDeque<Box<Chunk>>,
}

/// Subkeys that are being derived.
struct Derivation {
    entry: Arc<CmkEntry>,
    version: Arc<VersionEntry>,
    principal: Caller,
    deadline: Instant,
    what: Subkeys,
    hangs: u32,
}

enum Subkeys {
    /// Of a sealing epoch; these jobs wait for it.
    Epoch { draft: EpochDraft, trips: Vec<u64> },
    /// For opening; among what `owner` has out, though others may have come to wait, too.
    Prefixes { owner: u64, rows: Vec<Row> },
}

/// A subkey that is being derived for opening, and the segments that wait for it.
struct Row {
    prefix: [u8; PREFIX_BYTES],
    waiters: Waiters,
}

/// What came of asking for subkeys.
#[derive(Default)]
pub(super) struct Asked {
    /// Subkeys that are waited for.
    pub(super) waiting: usize,
    /// Chunks that went out for them.
    pub(super) chunks: usize,
    /// Subkeys that are not on their way, and why.
    pub(super) refused: Vec<([u8; PREFIX_BYTES], Fault)>,
}

/// Jobs by their numbers, and segments of theirs by where they start.
type Waiters = Vec<(u64, usize)>;

impl Trips {
    pub(super) fn new(shared: Arc<Shared>, home: Arc<dyn Home>) -> Self {
        Self {
            shared,
            home,
            next: 1,
            away: HashMap::new(),
            parked: HashMap::new(),
            derivations: HashMap::new(),
            deriving: HashMap::new(),
            epochs: HashMap::new(),
            reserving: HashMap::new(),
            fallen: VecDeque::new(),
        }
    }

    /// Tells whether any job is parked.
    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Takes what a job has under way, to work on it; a job that had nothing gets a number.
    pub(super) fn open(&mut self, job: &mut Job) -> Away {
        let trip = *job.trip.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let mut away = self.away.remove(&trip).unwrap_or_default();
        away.cut_to = away.cut_to.max(job.next);
        job.fallback = job.fallback.max(away.fallback);
        job.served.add(away.served);
        away
    }

    /// Keeps what a job has under way until it is worked on again.
    pub(super) fn close(&mut self, job: &Job, away: Away) {
        if let Some(trip) = job.trip {
            self.away.insert(trip, away);
        }
    }

    /// Sets a job aside until something comes back for it.
    pub(super) fn park(&mut self, job: Box<Job>) {
        let trip = job.trip.expect("a job that waits has a number");
        self.parked.insert(trip, job);
    }

    /// Forgets what a job has under way; what comes back of it is dropped.
    pub(super) fn forget(&mut self, job: &mut Job) {
        if let Some(trip) = job.trip.take() {
            self.away.remove(&trip);
        }
        job.waits = false;
    }

    /// Takes the parked jobs that were called off, or whose time is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Box<Job>> {
        let due = |job: &Job| now >= job.deadline || job.cancel.is_cancelled();
        let trips: Vec<u64> = self.parked.iter().filter(|(_, job)| due(job)).map(|(trip, _)| *trip).collect();
        trips.iter().filter_map(|trip| self.parked.remove(trip)).collect()
    }

    /// Takes all parked jobs.
    pub(super) fn take_all(&mut self) -> Vec<Box<Job>> {
        self.parked.drain().map(|(_, job)| job).collect()
    }

    /// Makes a chunk of a job's.
    pub(super) fn chunk(
        &self,
        job: &Job,
        tag: Tag,
        entry: &Arc<CmkEntry>,
        version: &Arc<VersionEntry>,
        work: Work,
    ) -> Box<Chunk> {
        Box::new(Chunk {
            tag,
            principal: job.call.principal.caller(),
            entry: entry.clone(),
            version: version.clone(),
            berth: None,
            work,
            deadline: job.deadline,
            cancel: job.cancel.clone(),
            since: Instant::now(),
            attempts: 0,
            home: self.home.clone(),
            over_quota: job.over_quota,
            fault: None,
            fallback: None,
            served: Served::default(),
        })
    }

    /// Sends a chunk out; one that the lane does not take is software's where that may be, and else comes back with the lane's fault.
    pub(super) fn send(&mut self, mut chunk: Box<Chunk>) -> Result<(), Box<Chunk>> {
        let principal = chunk.principal.clone();
        // A pair is made in software, whatever seals it.
        if chunk.entry.cmk.protection == ProtectionLevel::Software || matches!(chunk.work, Work::Pair(_)) {
            return match self.shared.software.submit(&principal, None, chunk) {
                Ok(shed) => {
                    self.let_go(shed);
                    Ok(())
                }
                Err((error, mut chunk)) => {
                    chunk.fault = Some(self.refusal(&chunk, error).into());
                    Err(chunk)
                }
            };
        }
        chunk.berth = match self.shared.pool.berth(&chunk.entry.cmk) {
            Ok(berth) => berth,
            Err(error) => return self.fall_back(chunk, error.into()),
        };
        match self.shared.pool.lane.submit(&principal, chunk.berth, chunk) {
            Ok(shed) => {
                self.let_go(shed);
                Ok(())
            }
            Err((error, chunk)) => {
                let error = self.refusal(&chunk, error);
                self.fall_back(chunk, error.into())
            }
        }
    }

    /// Sends a chunk home that had to make room for another.
    fn let_go(&self, shed: Option<Box<Chunk>>) {
        let Some(mut chunk) = shed else { return };
        self.shared.metrics.over_quota.shed.inc();
        chunk.fault = chunk.over_quota.map(|over| over.error().into());
        let home = chunk.home.clone();
        home.returned(vec![Return::Done(chunk)]);
    }

    /// Returns why a lane did not take a chunk: where it is full, what is over its quota is no matter for software either.
    fn refusal(&self, chunk: &Chunk, error: Error) -> Error {
        match chunk.over_quota {
            Some(over) if error.kind() == ErrorKind::Busy => {
                self.shared.metrics.over_quota.shed.inc();
                over.error()
            }
            _ => error,
        }
    }

    /// Has software do a chunk, where pool and key allow it; else it comes back with the fault.
    pub(super) fn fall_back(&mut self, mut chunk: Box<Chunk>, fault: Fault) -> Result<(), Box<Chunk>> {
        match self.shared.pool.fallback(&chunk.entry.cmk, fault.kind) {
            // Once: software's own faults are final.
            Some(reason) if chunk.fallback.is_none() => {
                chunk.fault = None;
                chunk.fallback = Some(reason);
                self.fallen.push_back(chunk);
                Ok(())
            }
            _ => {
                chunk.fault = Some(fault);
                Err(chunk)
            }
        }
    }

    /// Takes the next chunk that software is to do; [`Self::returned`] is to be told when it is done.
    pub(super) fn take_fallen(&mut self) -> Option<Box<Chunk>> {
        self.fallen.pop_front()
    }

    /// Tells whether software is to do any.
    pub(super) fn has_fallen(&self) -> bool {
        !self.fallen.is_empty()
    }

    /// Has subkeys of a key version derived for a segment, but for those that are on their way already.
    pub(super) fn derive(
        &mut self,
        job: &Job,
        (trip, segment): (u64, usize),
        (entry, version): (&Arc<CmkEntry>, &Arc<VersionEntry>),
        prefixes: Vec<[u8; PREFIX_BYTES]>,
        each: usize,
    ) -> Asked {
        let mut asked = Asked::default();
        let mut missing = Vec::new();
        for prefix in prefixes {
            let under_way = self.deriving.get(&(version.id, prefix));
            match under_way.and_then(|number| self.derivations.get_mut(number)) {
                Some(Derivation { what: Subkeys::Prefixes { rows, .. }, .. }) => {
                    if let Some(row) = rows.iter_mut().find(|row| row.prefix == prefix) {
                        row.waiters.push((trip, segment));
                        asked.waiting += 1;
                    }
                }
                _ => missing.push(prefix),
            }
        }
        for some in missing.chunks(each.max(1)) {
            let row = |prefix: &[u8; PREFIX_BYTES]| Row { prefix: *prefix, waiters: vec![(trip, segment)] };
            let what = Subkeys::Prefixes { owner: trip, rows: some.iter().map(row).collect() };
            match self.begin(job, entry, version, what) {
                Ok(number) => {
                    asked.waiting += some.len();
                    asked.chunks += 1;
                    self.deriving.extend(some.iter().map(|prefix| ((version.id, *prefix), number)));
                }
                // Those that went out before it are on their way all the same, and come back.
                Err(fault) => asked.refused.extend(some.iter().map(|prefix| (*prefix, fault.clone()))),
            }
        }
        asked
    }

    /// Has the subkey of the next sealing epoch derived, unless it is on its way; the job waits for it.
    pub(super) fn derive_epoch(
        &mut self,
        job: &Job,
        entry: &Arc<CmkEntry>,
        version: &Arc<VersionEntry>,
    ) -> Result<(), Fault> {
        let trip = job.trip.expect("a job that waits has a number");
        let under_way = self.epochs.get(&version.id).and_then(|number| self.derivations.get_mut(number));
        if let Some(Derivation { what: Subkeys::Epoch { trips, .. }, .. }) = under_way {
            trips.push(trip);
            return Ok(());
        }
        let draft = version.in_use().epoch.draft().map_err(Error::from)?;
        let number = self.begin(job, entry, version, Subkeys::Epoch { draft, trips: vec![trip] })?;
        self.epochs.insert(version.id, number);
        Ok(())
    }

    fn begin(
        &mut self,
        job: &Job,
        entry: &Arc<CmkEntry>,
        version: &Arc<VersionEntry>,
        what: Subkeys,
    ) -> Result<u64, Fault> {
        self.next += 1;
        let number = self.next;
        let derivation = Derivation {
            entry: entry.clone(),
            version: version.clone(),
            principal: job.call.principal.caller(),
            // Others may come to wait for it, who have more time.
            deadline: Instant::now() + Duration::from_millis(limit::DEFAULT_TIMEOUT_MS),
            what,
            hangs: 0,
        };
        self.send(self.derivation_chunk(number, &derivation))
            .map_err(|chunk| chunk.fault.clone().expect("the lane says why it took no chunk"))?;
        self.derivations.insert(number, derivation);
        Ok(number)
    }

    fn derivation_chunk(&self, number: u64, derivation: &Derivation) -> Box<Chunk> {
        let jobs = match &derivation.what {
            Subkeys::Epoch { draft, .. } => vec![DeriveJob::new(draft.messages())],
            Subkeys::Prefixes { rows, .. } => {
                rows.iter().map(|row| DeriveJob::new(subkey_messages(&row.prefix))).collect()
            }
        };
        Box::new(Chunk {
            tag: Tag::Subkeys(number),
            principal: derivation.principal.clone(),
            entry: derivation.entry.clone(),
            version: derivation.version.clone(),
            berth: None,
            work: Work::Derive(jobs),
            deadline: derivation.deadline,
            cancel: Cancel::default(),
            since: Instant::now(),
            attempts: 0,
            home: self.home.clone(),
            // Jobs that are within theirs may come to wait for it.
            over_quota: None,
            fault: None,
            fallback: None,
            served: Served::default(),
        })
    }

    /// Has invocations of a key version reserved; the job waits for them.
    pub(super) fn reserve(
        &mut self,
        job: &Job,
        entry: &CmkEntry,
        version: &VersionEntry,
    ) -> Result<(), Fault> {
        let trip = job.trip.expect("a job that waits has a number");
        self.reserve_ahead(entry, version)?;
        self.reserving.entry(version.id).or_default().push(trip);
        Ok(())
    }

    /// Has invocations of a key version reserved, unless some are on their way; nobody waits for them yet.
    pub(super) fn reserve_ahead(&mut self, entry: &CmkEntry, version: &VersionEntry) -> Result<(), Fault> {
        if self.reserving.contains_key(&version.id) {
            return Ok(());
        }
        self.reserving.insert(version.id, Vec::new());
        let message = Reserve { cmk: entry.cmk.id, version: version.id, home: self.home.clone() };
        let sent = match self.shared.reserver.get() {
            Some(reserver) => reserver.try_send(message),
            None => Err(SendError::Closed(message)),
        };
        sent.map_err(|refused| {
            self.reserving.remove(&version.id);
            let kind = match refused {
                SendError::Full(_) => ErrorKind::Busy,
                SendError::Closed(_) => ErrorKind::Unavailable,
            };
            Error::new(kind, "no invocations of the key could be reserved").retry_after_ms(50).into()
        })
    }

    /// Takes what came back, and appends the jobs that can go on to `ready`.
    pub(super) fn returned(&mut self, returns: Vec<Return>, now: Instant, ready: &mut Vec<Box<Job>>) {
        for one in returns {
            match one {
                Return::Done(chunk) if let Tag::Pair(trip) = chunk.tag => {
                    self.made_pair(trip, chunk, ready);
                }
                Return::Done(mut chunk) => {
                    let chunk = match chunk.fault.take() {
                        None => chunk,
                        Some(fault) => match self.fall_back(chunk, fault) {
                            Ok(()) => continue,
                            Err(chunk) => chunk,
                        },
                    };
                    match chunk.tag {
                        Tag::Items { trip, segment, chunk: number } => {
                            self.came_back(trip, segment, number, chunk, ready);
                        }
                        Tag::Subkeys(number) => self.derived(number, chunk, now, ready),
                        Tag::Pair(trip) => self.made_pair(trip, chunk, ready),
                    }
                }
                Return::Lost(Tag::Items { trip, segment, chunk }) => {
                    self.lost_items(trip, segment, chunk, ready);
                }
                Return::Lost(Tag::Pair(trip)) => self.take_pair(trip, Err(pair::lost()), ready),
                Return::Lost(Tag::Subkeys(number)) => self.lost_subkeys(number, ready),
                Return::Reserved(version, outcome) => {
                    for trip in self.reserving.remove(&version).unwrap_or_default() {
                        if let (Err(fault), Some(away)) = (&outcome, self.away.get_mut(&trip)) {
                            away.refused = Some(fault.clone());
                        }
                        self.resume(trip, ready);
                    }
                }
            }
        }
    }

    fn resume(&mut self, trip: u64, ready: &mut Vec<Box<Job>>) {
        if let Some(mut job) = self.parked.remove(&trip) {
            job.waits = false;
            if let Some(away) = self.away.get(&trip) {
                job.fallback = job.fallback.max(away.fallback);
                job.served.add(away.served);
            }
            ready.push(job);
        }
    }

    fn made_pair(&mut self, trip: u64, mut chunk: Box<Chunk>, ready: &mut Vec<Box<Job>>) {
        let outcome = match (chunk.fault.take(), &mut chunk.work) {
            (Some(fault), _) => Err(fault),
            (None, Work::Pair(job)) => job.output.take().ok_or_else(pair::lost),
            (None, _) => Err(pair::lost()),
        };
        self.take_pair(trip, outcome, ready);
    }

    fn take_pair(
        &mut self,
        trip: u64,
        outcome: Result<(Sensitive, PublicKey), Fault>,
        ready: &mut Vec<Box<Job>>,
    ) {
        if let Some(away) = self.away.get_mut(&trip) {
            away.pair = Some(outcome);
        }
        self.resume(trip, ready);
    }

    fn came_back(
        &mut self,
        trip: u64,
        segment: usize,
        number: usize,
        chunk: Box<Chunk>,
        ready: &mut Vec<Box<Job>>,
    ) {
        let Some(away) = self.away.get_mut(&trip) else { return };
        let Some(of) = away.segments.iter_mut().find(|other| other.range.start == segment) else { return };
        // A chunk that was given up for lost and sent out again may come back twice.
        if of.chunks.get(number).is_none_or(Option::is_some) {
            return;
        }
        away.fallback = away.fallback.max(chunk.fallback);
        away.served.add(chunk.served);
        of.chunks[number] = Some(chunk);
        of.waiting -= 1;
        away.out -= 1;
        self.resume_if_useful(trip, ready);
    }

    /// Has a job go on whose first segment is back, or that could send out more.
    fn resume_if_useful(&mut self, trip: u64, ready: &mut Vec<Box<Job>>) {
        let Some(away) = self.away.get(&trip) else { return };
        let is_head_back = away.segments.front().is_some_and(|head| head.is_back());
        let is_low = self.parked.get(&trip).is_some_and(|job| away.cut_to < job.len())
            && away.relay.is_none()
            && away.has_room(self.shared.pool.window() / 2);
        if is_head_back || is_low {
            self.resume(trip, ready);
        }
    }

    fn derived(&mut self, number: u64, mut chunk: Box<Chunk>, now: Instant, ready: &mut Vec<Box<Job>>) {
        let Some(Derivation { version, what, .. }) = self.derivations.remove(&number) else { return };
        let (fault, fallback, served) = (chunk.fault.take(), chunk.fallback, chunk.served);
        let Work::Derive(jobs) = &mut chunk.work else { return };
        let mut subkeys = jobs.iter_mut().map(|job| match (&fault, job.output.take()) {
            (Some(fault), _) => Err(fault.clone()),
            (None, Some(Ok(subkey))) => Ok(subkey),
            (None, Some(Err(error))) => Err(job_fault(error)),
            (None, None) => Err(Error::internal("a derivation came back undone").into()),
        });
        match what {
            Subkeys::Epoch { draft, trips } => {
                self.epochs.remove(&version.id);
                let installed = subkeys.next().expect("an epoch is one derivation").and_then(|subkey| {
                    version
                        .in_use()
                        .epoch
                        .install(&draft, subkey, now)
                        .map_err(|e| Fault::from(Error::internal(e)))
                });
                for trip in trips {
                    if let Some(away) = self.away.get_mut(&trip) {
                        away.fallback = away.fallback.max(fallback);
                        away.served.add(served);
                        away.refused = installed.as_ref().err().cloned().or(away.refused.take());
                    }
                    self.resume(trip, ready);
                }
            }
            Subkeys::Prefixes { owner, rows } => {
                let mut touched = Vec::new();
                if let Some(away) = self.away.get_mut(&owner) {
                    away.out -= 1;
                    touched.push(owner);
                }
                for (Row { prefix, waiters }, subkey) in rows.into_iter().zip(subkeys) {
                    self.deriving.remove(&(version.id, prefix));
                    let cipher = subkey.and_then(|subkey| {
                        let subkey =
                            Subkey::from_sensitive(subkey).map_err(|e| Fault::from(Error::internal(e)))?;
                        Ok(Arc::new(SubkeyCipher::new(&subkey)))
                    });
                    for (trip, segment) in waiters {
                        let Some(away) = self.away.get_mut(&trip) else { continue };
                        away.fallback = away.fallback.max(fallback);
                        away.served.add(served);
                        let of = away.segments.iter_mut().find(|other| other.range.start == segment);
                        let Some(of) = of else { continue };
                        of.subkeys.insert((version.id, prefix), cipher.clone());
                        of.waiting -= 1;
                        if !touched.contains(&trip) {
                            touched.push(trip);
                        }
                    }
                }
                for trip in touched {
                    self.resume_if_useful(trip, ready);
                }
            }
        }
    }

    /// Sends items out again that are in the hands of a call which does not return.
    fn lost_items(&mut self, trip: u64, segment: usize, number: usize, ready: &mut Vec<Box<Job>>) {
        let Some(away) = self.away.get_mut(&trip) else { return };
        let Some(of) = away.segments.iter_mut().find(|other| other.range.start == segment) else { return };
        if of.chunks.get(number).is_none_or(Option::is_some) {
            return;
        }
        // What went out is remembered by the job; it is cut anew from there.
        of.lost.push(number);
        self.resume(trip, ready);
    }

    fn lost_subkeys(&mut self, number: u64, ready: &mut Vec<Box<Job>>) {
        let Some(derivation) = self.derivations.get_mut(&number) else { return };
        derivation.hangs += 1;
        let derivation = &self.derivations[&number];
        let chunk = self.derivation_chunk(number, derivation);
        let sent = match derivation.hangs > HANGS {
            false => self.send(chunk),
            true => self.fall_back(chunk, out_of_sessions()),
        };
        if let Err(chunk) = sent {
            self.derived(number, chunk, Instant::now(), ready);
        }
    }
}
