//! The control thread of a token: connects it, makes keys, takes them over and destroys them, tries an idle token by its canary, unloads
//! what was forgotten. One call at a time, and spaced: a loop of key generations was seen to stall a real module's data path for eight
//! seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind};
use keymill_core::seam::provider::{CryptoProvider, KeyCustody, ProviderError};

use super::CustodyJob;
use super::token::{Lane, watch_over};
use crate::lane::Taken;
use crate::pool::slot::Slot;
use crate::pool::token::Token;
use crate::pool::{TokenState, leaving};
use crate::shared::Shared;
use crate::work::Served;

/// How long the thread waits for key generations before it looks after the token.
const ROUND: Duration = Duration::from_millis(250);
/// How long it rests after a key generation, at most.
const MAX_SPACE: Duration = Duration::from_millis(100);
/// Tokens that one key generation is tried on.
const TRIES: u32 = 3;

/// The thread that does the control work of a token.
pub(crate) struct ControlActor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) token: Arc<Token>,
    pub(crate) slot: Arc<Slot>,
}

impl ControlActor {
    pub(crate) fn start(self, number: usize) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(format!("km-control-{number}")).spawn(move || {
            let of = (self.shared.clone(), self.token.clone(), self.slot.clone());
            watch_over(of, Lane::Control, || self.run());
        })
    }

    /// Does `call` where it is watched; `None` where the thread was given up meanwhile.
    fn watched<T>(&self, allowed: Duration, call: impl FnOnce() -> T) -> Option<T> {
        if !self.slot.begin(allowed, Vec::new()) {
            return None;
        }
        let done = call();
        self.slot.end().then_some(done)
    }

    fn run(self) {
        // With the provider that it is of: a token that is enabled anew has another.
        let mut custody: Option<(Arc<dyn CryptoProvider>, Box<dyn KeyCustody>)> = None;
        let mut batch = Vec::new();
        let mut probed = Instant::now();
        let config = &self.token.config;
        while !self.slot.is_retired() && !self.shared.pool.is_stopped() {
            if self.token.is_out_of_pool() {
                if self.token.slots.lock().is_empty() {
                    let _given_up = self.watched(config.generate_timeout, || {
                        custody = None;
                        self.token.let_go();
                    });
                    return;
                }
                self.slot.rest(Duration::from_millis(20));
                continue;
            }
            // To connect may take longer than a call: modules list slots, log in, and are probed.
            let connected = self.watched(config.generate_timeout, || {
                let connected = self.token.connect();
                if !connected {
                    // Maybe the last of its provider, which closes its sessions then.
                    custody = None;
                }
                connected
            });
            match connected {
                None => return,
                Some(false) => {
                    self.slot.rest(Duration::from_millis(20));
                    continue;
                }
                Some(true) => {}
            }
            let Some(provider) = self.token.provider() else { continue };
            if custody.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, &provider)) {
                let opened = self.watched(config.generate_timeout, || {
                    custody = None;
                    provider.custody()
                });
                match opened {
                    None => return,
                    Some(Ok(opened)) => custody = Some((provider, opened)),
                    Some(Err(error)) => {
                        self.token.failed_with(&error);
                        tracing::warn!(token = %config.name, %error, "the control lane cannot be opened");
                        self.slot.rest(ROUND);
                        continue;
                    }
                }
            }
            let Some((_, custody)) = custody.as_mut() else { continue };
            loop {
                match self.watched(config.call_timeout, || self.token.unload_forgotten()) {
                    None => return,
                    Some(true) => {}
                    Some(false) => break,
                }
            }
            if self.token.is_drained() || self.token.report().state != TokenState::Up {
                self.slot.rest(Duration::from_millis(20));
                continue;
            }
            if probed.elapsed() > config.probe_interval {
                probed = Instant::now();
                match self.watched(config.call_timeout, || custody.canary()) {
                    None => return,
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        self.token.failed_with(&error);
                        tracing::warn!(token = %config.name, %error, "the canary of the token failed");
                    }
                }
            }
            if self.slot.set_joined(true) {
                self.shared.pool.control.join(self.token.at);
            }
            let mut kept = true;
            if self.shared.pool.control.take_within(self.token.at, ROUND, 1, &mut batch) == Taken::Batch {
                kept = batch.drain(..).all(|job| self.do_job(&mut **custody, job));
            }
            if self.slot.set_joined(false) {
                self.shared.pool.control.leave(self.token.at);
            }
            if !kept {
                return;
            }
        }
    }

    /// Does a job on the life of a key; false where the thread was given up over it.
    fn do_job(&self, custody: &mut dyn KeyCustody, mut job: CustodyJob) -> bool {
        // Expired and abandoned jobs are dropped before they reach the module.
        if job.is_abandoned() {
            return true;
        }
        let started = Instant::now();
        if started >= job.deadline {
            job.answer(Err(Error::new(ErrorKind::Deadline, "not done within the time allowed")));
            return true;
        }
        if job.stays() && !self.token.is_open_to_keys() {
            job.answer(Err(leaving()));
            return true;
        }
        let allowed = self.token.config.generate_timeout;
        if !self.slot.begin(allowed, Vec::new()) {
            job.answer(Err(Error::new(ErrorKind::Unavailable, "the token did not answer in time")));
            return false;
        }
        job.by = Served::token(self.token.at);
        let outcome = job.carry_out(custody);
        if !self.slot.end() {
            // What comes late comes all the same: whoever waits no longer has a key that was to stay named in the log.
            job.answer(outcome.map_err(Error::from));
            return false;
        }
        if let Err(error) = &outcome {
            self.token.failed_with(error);
        }
        match outcome {
            Err(ProviderError::Unavailable(cause)) if job.attempts + 1 < TRIES => {
                tracing::warn!(token = %self.token.config.name, why = cause.reason, "work on a key goes to another session or token");
                job.attempts += 1;
                let principal = job.principal.clone();
                self.shared.pool.control.restore(&principal, job.berth, job);
            }
            outcome => job.answer(outcome.map_err(Error::from)),
        }
        self.slot.rest(started.elapsed().min(MAX_SPACE));
        true
    }
}
