//! A session actor: one session of a token on a thread of its own, since PKCS#11 blocks. It takes batches from the lane, gives back what
//! it could not finish, and opens another session when its own is lost. It ends when it is retired, drained or given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind};
use keymill_core::seam::provider::{CryptoSession, JobError, ProviderError, SessionLost};

use super::token::{Lane, watch_over};
use crate::lane::Taken;
use crate::pool::Pool;
use crate::pool::chunk::{Chunk, Work, call, send_home};
use crate::pool::slot::Slot;
use crate::pool::token::{LoadError, Token, back_off, out_of_sessions};
use crate::shared::Shared;
use crate::work::Served;

/// How long a session waits for work before it shows the network that its connection lives.
const IDLE: Duration = Duration::from_secs(1);
/// Idle rounds after which it does.
const IDLE_ROUNDS: u32 = 30;
/// How long a session waits for its turn before it looks whether it is still wanted.
const TURN: Duration = Duration::from_millis(100);
/// Sessions that may be lost over one chunk: one that brings down whatever touches it shall not bring down a farm.
const ATTEMPTS: u32 = 8;
/// How often a key is loaded anew for one chunk.
const LOADS: usize = 3;

/// One session of a token.
pub(crate) struct SessionActor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) token: Arc<Token>,
    pub(crate) slot: Arc<Slot>,
}

/// Why a session ends.
enum End {
    NotWanted,
    Lost(SessionLost),
}

impl SessionActor {
    pub(crate) fn start(self, number: usize) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(format!("km-session-{number}")).spawn(move || {
            let of = (self.shared.clone(), self.token.clone(), self.slot.clone());
            watch_over(of, Lane::Data, || self.run());
        })
    }

    fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    fn run(self) {
        let mut failures = 0;
        while let Some(provider) = self.token.await_provider(&self.slot) {
            if let Err(wait) = self.token.may_open(Instant::now()) {
                self.token.rest_before_opening(wait);
                continue;
            }
            if !self.slot.begin(self.token.config.open_timeout, Vec::new()) {
                return;
            }
            let opened = provider.open_session();
            if !self.slot.end() {
                return;
            }
            let mut session = match opened {
                Ok(session) => session,
                Err(error) => {
                    failures += 1;
                    self.token.failed_with(&error);
                    self.token.open_failed(&error.to_string());
                    self.slot.rest(back_off(failures));
                    continue;
                }
            };
            if self.pool().control.sessions() == 0 {
                // The control thread sees a moment after others that the token is up.
                self.pool().control.expect(self.token.at);
            }
            self.token.opened();
            self.slot.set_open(Some(Instant::now()));
            let end = self.serve(&mut *session, &mut failures);
            self.stop_work();
            // Given up: whoever did that has counted it out.
            if !self.slot.set_open(None) {
                return;
            }
            let lost = matches!(end, End::Lost(_));
            match end {
                End::NotWanted => self.token.closed(None),
                End::Lost(SessionLost { reason, code }) => {
                    tracing::debug!(token = %self.token.config.name, why = reason, "a session was lost");
                    self.token.failed(code);
                    self.token.closed(Some(&reason));
                }
            }
            // To close a session is a call, too, and of one that was lost the likeliest not to return.
            if !self.slot.begin(self.token.config.call_timeout, Vec::new()) {
                return;
            }
            drop((session, provider));
            if !self.slot.end() {
                return;
            }
            if lost {
                failures += 1;
                self.slot.rest(back_off(failures.saturating_sub(1)).min(Duration::from_millis(100)));
            }
        }
    }

    fn is_wanted(&self) -> bool {
        !self.slot.is_retired() && !self.token.is_drained()
    }

    /// Goes to work, or rests for a while, as many sessions of the token as there are to be at work; tells whether it is at work now.
    fn is_at_work(&self, before: bool) -> bool {
        if before {
            if !self.token.shift.leave_surplus() {
                return true;
            }
            // Its place is given back already.
            if self.slot.set_joined(false) {
                self.pool().lane.leave(self.token.at);
            }
        }
        if !self.token.shift.enter(IDLE, || self.is_wanted()) {
            return false;
        }
        if self.slot.set_joined(true) {
            self.pool().lane.join(self.token.at);
        }
        true
    }

    /// Gives its place at work to whoever rests.
    fn stop_work(&self) {
        if self.slot.set_joined(false) {
            self.token.shift.leave();
            self.pool().lane.leave(self.token.at);
        }
    }

    /// Takes batches until the session is lost or not wanted.
    fn serve(&self, session: &mut dyn CryptoSession, failures: &mut u32) -> End {
        let mut batch = Vec::new();
        let mut idle = 0;
        let mut proved = Instant::now();
        let mut at_work = false;
        loop {
            if !self.is_wanted() {
                return End::NotWanted;
            }
            at_work = self.is_at_work(at_work);
            let taken = match at_work {
                true => self.take(&mut batch),
                false => Some(Taken::Idle),
            };
            let Some(taken) = taken else { continue };
            match taken {
                Taken::Closed => {
                    self.slot.retire();
                    return End::NotWanted;
                }
                Taken::Idle => {
                    idle += 1;
                    if idle % IDLE_ROUNDS == 0
                        && let Some(end) = self.keep_alive(session)
                    {
                        return end;
                    }
                }
                Taken::Batch => {
                    idle = 0;
                    match self.work(session, &mut batch, proved) {
                        Some(end) => return end,
                        None => (*failures, proved) = (0, Instant::now()),
                    }
                }
            }
        }
    }

    /// Takes a batch from the lane once there is one, and a turn at the token to do it in; `None` where there is only one of them.
    fn take(&self, batch: &mut Vec<Box<Chunk>>) -> Option<Taken> {
        let (lane, at) = (&self.pool().lane, self.token.at);
        match lane.await_within(at, IDLE) {
            Taken::Batch => {}
            none => return Some(none),
        }
        let seat = &self.token.seat;
        let turn = seat.take(Duration::ZERO).or_else(|| {
            // Another token may have one at once, and it is this session that was woken for the job.
            if self.pool().members().nth(1).is_some() {
                lane.nudge();
            }
            seat.take(TURN)
        });
        let Some(turn) = turn else {
            // Maybe it is not wanted any more: another may be.
            lane.nudge();
            return None;
        };
        self.slot.hold(turn);
        let taken = lane.take_within(at, Duration::ZERO, self.token.batch_items(), batch);
        if taken != Taken::Batch {
            self.slot.let_go();
        }
        // Another session has it already: to find nothing then is not to have waited.
        (taken != Taken::Idle).then_some(taken)
    }

    fn keep_alive(&self, session: &mut dyn CryptoSession) -> Option<End> {
        if !self.slot.begin(self.token.config.call_timeout, Vec::new()) {
            return Some(End::NotWanted);
        }
        let alive = session.random(&mut [0; 8]);
        match (self.slot.end(), alive) {
            (false, _) => Some(End::NotWanted),
            (true, Ok(())) => None,
            (true, Err(error)) => Some(End::Lost(match error {
                ProviderError::Unavailable(cause) => cause.into(),
                other => other.to_string().into(),
            })),
        }
    }

    /// Does a batch; what is done goes home, what is not goes back to the lane. `proved`: when the session was last known to live.
    fn work(
        &self,
        session: &mut dyn CryptoSession,
        batch: &mut Vec<Box<Chunk>>,
        proved: Instant,
    ) -> Option<End> {
        let now = Instant::now();
        gather(batch);
        let held = batch.iter().map(|chunk| (Arc::clone(&chunk.home), chunk.tag)).collect();
        if !self.slot.begin(self.token.config.call_timeout, held) {
            return Some(End::NotWanted);
        }
        let mut lost = None;
        let (mut items, mut operations) = (0, 0);
        for chunk in batch.iter_mut() {
            // Expired and abandoned chunks are dropped before they reach the module.
            if chunk.cancel.is_cancelled() || Instant::now() >= chunk.deadline {
                let late = Error::new(ErrorKind::Deadline, "not done within the time allowed");
                chunk.fault = Some(late.into());
                continue;
            }
            // Each has its own time: a batch of keys that are yet to be loaded takes long, and yet nothing hangs.
            if !self.slot.go_on(self.token.allowed(chunk.operations())) {
                break;
            }
            match self.do_chunk(session, chunk) {
                Ok(()) if chunk.is_unfinished() => {}
                Ok(()) => {
                    items += chunk.len();
                    operations += chunk.operations();
                    // Another engine is next at the token. What is left goes back to the lane, and is first there.
                    if self.token.seat.gives_way() {
                        break;
                    }
                }
                Err(why) => {
                    // All sessions of a token may have died long ago, and each is found dead by a chunk: not the chunk's doing.
                    chunk.attempts += u32::from(proved >= chunk.since);
                    lost = Some(why);
                    break;
                }
            }
        }
        let is_kept = self.slot.end();
        self.slot.let_go();
        if !is_kept {
            // Given up: the desks know, and have it done elsewhere.
            batch.clear();
            return Some(End::NotWanted);
        }
        if items > 0 {
            // Signatures take many times longer, and say nothing of how chunks of sealed items are to be cut.
            let is_symmetric = batch.iter().all(|chunk| chunk.is_symmetric());
            self.token.timed(items, operations, is_symmetric.then(|| now.elapsed()));
        }
        let mut home = Vec::with_capacity(batch.len());
        // Last first: each that goes back is put before its principal's others.
        for mut chunk in batch.drain(..).rev() {
            if chunk.fault.is_none() && chunk.is_unfinished() {
                if chunk.attempts < ATTEMPTS {
                    let principal = chunk.principal.clone();
                    self.pool().lane.restore(&principal, chunk.berth, chunk);
                    continue;
                }
                tracing::error!(token = %self.token.config.name, sessions = ATTEMPTS, "a chunk was given up: every session that took it was lost");
                chunk.fault = Some(out_of_sessions());
            }
            home.push(chunk);
        }
        send_home(home);
        lost.map(End::Lost)
    }

    fn do_chunk(&self, session: &mut dyn CryptoSession, chunk: &mut Chunk) -> Result<(), SessionLost> {
        for _ in 0..LOADS {
            let handle = match self.token.handle(&self.shared, &chunk.entry, &chunk.version) {
                Ok(handle) => handle,
                Err(LoadError::Fault(fault)) => {
                    chunk.fault = Some(fault);
                    return Ok(());
                }
                Err(LoadError::Token(cause)) => return Err(cause.into()),
                // It goes back, maybe to another token, up to its deadline; the session goes on with what is loaded.
                Err(LoadError::Busy) => return Ok(()),
            };
            call(session, &handle, &mut chunk.work)?;
            chunk.served.add(Served::token(self.token.at));
            if !forget_stale(&mut chunk.work) {
                return Ok(());
            }
            self.token.forget_stale(&chunk.version, &handle);
        }
        Err("a loaded key was gone again and again".into())
    }
}

/// Puts chunks of one key version and operation in a row; those that came first stay first.
fn gather(batch: &mut [Box<Chunk>]) {
    for i in 1..batch.len() {
        if !batch[i].is_akin(&batch[i - 1])
            && let Some(j) = (i + 1..batch.len()).find(|j| batch[*j].is_akin(&batch[i - 1]))
        {
            batch.swap(i, j);
        }
    }
}

/// Takes back the outcome of items whose key was gone; tells whether there was one.
fn forget_stale(work: &mut Work) -> bool {
    let mut stale = false;
    match work {
        Work::Encrypt(batch) | Work::Decrypt(batch) => {
            for item in &mut batch.items {
                if item.outcome == Some(Err(JobError::StaleHandle)) {
                    item.outcome = None;
                    stale = true;
                }
            }
        }
        Work::Derive(jobs) => jobs.iter_mut().for_each(|job| stale |= forgotten(&mut job.output)),
        Work::Sign(jobs) => jobs.iter_mut().for_each(|job| stale |= forgotten(&mut job.output)),
        Work::Open(jobs) => jobs.iter_mut().for_each(|job| stale |= forgotten(&mut job.output)),
        Work::Pair(_) => {}
    }
    stale
}

/// Takes back an output that says so; tells whether it did.
fn forgotten<T>(output: &mut Option<Result<T, JobError>>) -> bool {
    let stale = matches!(output, Some(Err(JobError::StaleHandle)));
    if stale {
        *output = None;
    }
    stale
}
