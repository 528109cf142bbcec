//! The connections: a bounded number, lent one at a time and kept, made anew with back-off where they are lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::seam::store::StoreError;
use parking_lot::{Condvar, Mutex};
use tokio_postgres::{Client, Error};

use crate::bridge::Bridge;
use crate::connect::{Connector, Refusal, Session};
use crate::error::{describe, is_transient, late, store_error};

/// Between two attempts to connect: from the first to the longest, which is a part of an operation's time.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The connections.
pub(crate) struct Pool {
    /// Waits for answers.
    pub(crate) bridge: Bridge,
    connector: Arc<Connector>,
    max: usize,
    timeout: Duration,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Session>,
    lent: usize,
    failures: u32,
    /// No attempt to connect before this.
    rests_until: Option<Instant>,
    /// Why the last attempt failed.
    why: String,
}

impl Pool {
    /// Makes an empty pool; connections are made when they are needed.
    pub(crate) fn new(bridge: Bridge, connector: Arc<Connector>, max: usize, timeout: Duration) -> Self {
        Self { bridge, connector, max, timeout, state: Mutex::default(), returned: Condvar::new() }
    }

    /// Returns when an operation that begins now is over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Returns how long an operation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Lends a connection, a new one where none is idle.
    pub(crate) fn lend(&self, until: Instant) -> Result<Lent<'_>, StoreError> {
        self.try_lend(until).map_err(|refusal| match refusal {
            Refusal::Later(why) | Refusal::Unfit(why) => StoreError::Unavailable(why),
            Refusal::Final(error) => error,
        })
    }

    /// Lends a connection, and says why there is none.
    pub(crate) fn try_lend(&self, until: Instant) -> Result<Lent<'_>, Refusal> {
        let mut lent = self.place(until)?;
        while lent.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            let mut state = self.state.lock();
            lent.session = state.idle.pop();
            if lent.session.is_none() {
                drop(state);
                lent.session = Some(self.connect(until)?);
            }
        }
        Ok(lent)
    }

    /// Waits for a place among those who have a connection.
    fn place(&self, until: Instant) -> Result<Lent<'_>, Refusal> {
        let mut state = self.state.lock();
        while state.lent == self.max {
            if self.returned.wait_until(&mut state, until).timed_out() {
                return Err(Refusal::Later(format!("all {} connections are in use", self.max)));
            }
        }
        state.lent += 1;
        Ok(Lent { pool: self, session: None })
    }

    fn connect(&self, until: Instant) -> Result<Session, Refusal> {
        loop {
            let (rests_until, why) = {
                let state = self.state.lock();
                (state.rests_until, state.why.clone())
            };
            if let Some(rests_until) = rests_until {
                if rests_until >= until {
                    return Err(Refusal::Later(why));
                }
                std::thread::sleep(rests_until.saturating_duration_since(Instant::now()));
            }
            let connected = self.bridge.wait(self.connector.connect(until.into()));
            let mut state = self.state.lock();
            match connected {
                Ok(session) => {
                    (state.failures, state.rests_until) = (0, None);
                    return Ok(session);
                }
                Err(Refusal::Later(why)) => {
                    let backoff = FIRST_BACKOFF * 2_u32.pow(state.failures.min(10));
                    state.failures += 1;
                    state.rests_until = Some(Instant::now() + backoff.min(MAX_BACKOFF).min(self.timeout / 4));
                    state.why = why;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Asks something that may be asked twice, until there is an answer or time is over.
    pub(crate) fn ask<T>(
        &self,
        question: impl AsyncFn(&Client) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        self.ask_twice(question, |_| false)
    }

    /// The same; an answer that is odd counts only over a connection that was made to ask: one that was kept may lead to a server that another took
    /// the place of.
    pub(crate) fn ask_twice<T>(
        &self,
        question: impl AsyncFn(&Client) -> Result<T, Error>,
        is_odd: impl Fn(&T) -> bool,
    ) -> Result<T, StoreError> {
        let until = self.deadline();
        loop {
            let lent = self.lend(until)?;
            let limit = lent.limit(until);
            let answer = self.bridge.wait_until(limit, question(lent.client()));
            match answer {
                Ok(Ok(answer)) if !(lent.was_kept() && is_odd(&answer)) => {
                    lent.keep();
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    let is_over = !is_transient(&error) || Instant::now() >= until;
                    self.lost(lent, &error);
                    if is_over {
                        return Err(store_error(&error));
                    }
                }
                Ok(Ok(_)) | Err(_) => {
                    self.silent(lent);
                    if Instant::now() >= until {
                        return Err(late(self.timeout));
                    }
                }
            }
        }
    }

    /// Gives up a connection that failed, and rests a little where a server that is there would be asked in a circle.
    pub(crate) fn lost(&self, lent: Lent<'_>, error: &Error) {
        drop(lent);
        if error.code().is_some() && is_transient(error) {
            let mut state = self.state.lock();
            state.rests_until = Some(Instant::now() + FIRST_BACKOFF);
            state.why = describe(error);
        }
    }

    /// Gives up a connection that did not answer, or whose answer is odd, and with it all that may be the same.
    pub(crate) fn silent(&self, lent: Lent<'_>) {
        drop(lent);
        self.forget();
    }

    /// Closes all idle connections.
    pub(crate) fn forget(&self) {
        let idle = std::mem::take(&mut self.state.lock().idle);
        drop(idle);
    }
}

/// A connection that is lent. It is closed where it is not kept.
pub(crate) struct Lent<'a> {
    pool: &'a Pool,
    session: Option<Session>,
}

impl Lent<'_> {
    /// Returns what statements are sent by.
    pub(crate) fn client(&self) -> &Client {
        &self.session.as_ref().expect("it is there until the drop").client
    }

    /// Returns until when an attempt may wait. A connection that was used before may have died in silence, with the machine at its other
    /// end: it leaves time for another one.
    pub(crate) fn limit(&self, until: Instant) -> Instant {
        match self.was_kept() {
            true => until.min(Instant::now() + self.pool.timeout / 2),
            false => until,
        }
    }

    /// Tells whether it was used before.
    pub(crate) fn was_kept(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_used)
    }

    /// Gives it back in order.
    pub(crate) fn keep(mut self) {
        if let Some(mut session) = self.session.take() {
            session.is_used = true;
            self.pool.state.lock().idle.push(session);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.session = None;
        self.pool.state.lock().lent -= 1;
        self.pool.returned.notify_one();
    }
}
