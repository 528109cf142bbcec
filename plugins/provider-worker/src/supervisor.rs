//! Sees to it that there is a worker: starts it, counts what hangs in it, ends it, and starts it again when it is next needed. The
//! data path never comes here.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::seam::provider::ProviderError;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::connection::{Connection, Trouble};
use crate::key::Owner;
use crate::process::{LAG, StartFailure, Worker};
use crate::state::{State, WorkerStatus};
use crate::wire::{Failed, Kind, ReadyProfile};

/// The one who owns the worker.
pub(crate) struct Supervisor {
    pub(crate) config: Config,
    /// What workers are told; the configuration's went here.
    setup: Mutex<Arc<Sensitive>>,
    /// Who the handles belong to.
    pub(crate) owner: Owner,
    profile: ReadyProfile,
    /// Which start of a worker is the last.
    generation: AtomicU64,
    state: Mutex<State>,
    /// A start is over, however it went.
    started: Condvar,
}

impl Supervisor {
    /// Starts the first worker.
    pub(crate) fn start(mut config: Config) -> Result<(Self, ReadyProfile), StartFailure> {
        let generation = 1;
        let setup = std::mem::replace(&mut config.setup, Sensitive::zeroed(0));
        let (worker, profile) = Worker::start(&config, &setup, generation)?;
        let supervisor = Self {
            setup: Mutex::new(Arc::new(setup)),
            owner: Owner::default(),
            profile: profile.clone(),
            generation: AtomicU64::new(generation),
            state: Mutex::new(State::new(worker, Backoff::new(config.first_backoff, config.max_backoff))),
            started: Condvar::new(),
            config,
        };
        Ok((supervisor, profile))
    }

    /// Returns which start of a worker is the last.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn status(&self) -> WorkerStatus {
        self.state.lock().status(self.generation())
    }

    /// Opens a conversation with the worker, which is started where there is none, by a first question. The answer is `expected`, or
    /// an error.
    pub(crate) fn converse(
        &self,
        (kind, expected): (Kind, Kind),
        timeout: Duration,
        question: &[u8],
    ) -> Result<(u64, Connection), ProviderError> {
        let (generation, stream) = self.connect().map_err(ProviderError::unavailable)?;
        let mut connection = Connection::new(stream, timeout)
            .map_err(|error| ProviderError::unavailable(format!("the socket of a worker fails: {error}")))?;
        connection.begin().extend(question);
        match connection.ask_for(kind, expected) {
            Ok(Ok(_)) => {}
            Ok(Err(failed)) => return Err(self.judged(failed)),
            Err(trouble) => {
                let reason = self.reason(generation, &trouble, timeout);
                if matches!(trouble, Trouble::Hung) {
                    self.hung(generation, connection.into_stream(), false);
                }
                return Err(ProviderError::unavailable(reason));
            }
        }
        Ok((generation, connection))
    }

    /// Asks the worker's program something that is beside the seam.
    pub(crate) fn ask(&self, question: &[u8]) -> Result<Sensitive, ProviderError> {
        let kinds = (Kind::Ask, Kind::Bytes);
        let (_, connection) = self.converse(kinds, self.config.control_timeout, question)?;
        Ok(Sensitive::copied(connection.answer()))
    }

    /// Replaces what later workers are told.
    pub(crate) fn replace_setup(&self, setup: Sensitive) {
        *self.setup.lock() = Arc::new(setup);
    }

    /// Connects to the worker, started where there is none.
    fn connect(&self) -> Result<(u64, UnixStream), String> {
        // Where this process has no descriptor left, the worker is not to blame.
        let (ours, theirs) =
            UnixStream::pair().map_err(|error| format!("no socket for a worker: {error}"))?;
        let patience = Instant::now() + self.config.call_timeout;
        let mut state = self.state.lock();
        loop {
            state.notice_end(Duration::ZERO);
            if let Some(worker) = &state.worker {
                return match worker.pass(&theirs) {
                    Ok(()) => Ok((worker.generation, ours)),
                    Err(error) => {
                        // It is dead or takes nothing, which is the same to us.
                        state.end(&format!("it takes no connection: {error}"));
                        Err("the worker has just ended".into())
                    }
                };
            }
            if !state.starting {
                break;
            }
            if self.started.wait_until(&mut state, patience).timed_out() {
                return Err("the worker is being started".into());
            }
        }
        state.may_start(Instant::now())?;
        state.starting = true;
        // Not under the lock: a start takes seconds, and whoever has just lost a session is not to wait for it.
        let started = MutexGuard::unlocked(&mut state, || self.start_again(&theirs));
        state.starting = false;
        self.started.notify_all();
        match started {
            Ok(worker) => {
                let generation = worker.generation;
                state.worker = Some(worker);
                Ok((generation, ours))
            }
            Err(StartFailure { why, needs_operator, .. }) => {
                let now = Instant::now();
                state.backoff.ended(now, now);
                state.last_end = Some(why.clone());
                if needs_operator {
                    state.needs_operator = Some(why.clone());
                }
                Err(why)
            }
        }
    }

    /// Starts a worker, and hands it one end of its first connection.
    fn start_again(&self, theirs: &UnixStream) -> Result<Worker, StartFailure> {
        // Every handle of before is void from here on, whether the start succeeds or not.
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let setup = Arc::clone(&self.setup.lock());
        let (worker, profile) = Worker::start(&self.config, &setup, generation)?;
        if !self.profile.offers_the_same(&profile) {
            return Err(StartFailure::new("the worker came back with another provider".into()));
        }
        worker
            .pass(theirs)
            .map_err(|error| StartFailure::new(format!("the worker takes no connection: {error}")))?;
        Ok(worker)
    }

    /// Tells whether the worker of a generation still runs.
    pub(crate) fn runs(&self, generation: u64) -> bool {
        let mut state = self.state.lock();
        state.notice_end(Duration::ZERO);
        state.of(generation).is_some()
    }

    /// Counts a session of a generation.
    pub(crate) fn session_opened(&self, generation: u64) {
        if let Some(worker) = self.state.lock().of(generation) {
            worker.sessions += 1;
        }
    }

    /// Counts it no longer.
    pub(crate) fn session_closed(&self, generation: u64) {
        if let Some(worker) = self.state.lock().of(generation) {
            worker.sessions = worker.sessions.saturating_sub(1);
        }
    }

    /// Notes a call that does not come back. Nothing can cancel one, so the worker is killed when too many hang, or when there
    /// is no session left to lose, or when it `blocks` all others.
    pub(crate) fn hung(&self, generation: u64, stream: UnixStream, blocks: bool) {
        let mut state = self.state.lock();
        let Some(worker) = state.of(generation) else { return };
        worker.forget_late_answers();
        worker.hung.push(stream);
        let hung = worker.hung.len();
        if blocks || worker.sessions == 0 || hung >= self.config.max_hung {
            state.end(&format!("{hung} calls did not come back"));
        }
    }

    /// Says what happened to a conversation, and how the worker ended if it did.
    pub(crate) fn reason(&self, generation: u64, trouble: &Trouble, timeout: Duration) -> String {
        if matches!(trouble, Trouble::Gone(_)) {
            let mut state = self.state.lock();
            if state.of(generation).is_some() {
                state.notice_end(LAG);
            }
            if state.of(generation).is_none()
                && let Some(ended) = &state.last_end
            {
                return format!("the worker is gone: {ended}");
            }
        }
        trouble.reason(timeout)
    }

    /// Returns the error of a request that failed, and remembers where an operator must act.
    pub(crate) fn judged(&self, failed: Failed) -> ProviderError {
        let Failed { error, needs_operator } = failed;
        if needs_operator {
            let why = || format!("no worker is started until the provider is opened anew: {error}");
            self.state.lock().needs_operator.get_or_insert_with(why);
        }
        error
    }
}
