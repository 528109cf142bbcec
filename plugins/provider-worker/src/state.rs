//! What is known of the worker: whether there is one, how the last ended, and when the next may be started.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::process::Worker;

/// Behind the supervisor's lock.
pub(crate) struct State {
    pub(crate) worker: Option<Worker>,
    /// Somebody is starting one.
    pub(crate) starting: bool,
    pub(crate) backoff: Backoff,
    /// Why no worker is started until an operator opens the provider again: above all a PIN that was refused, since tokens lock after a
    /// few such tries.
    pub(crate) needs_operator: Option<String>,
    pub(crate) last_end: Option<String>,
}

/// How a worker is, for those who watch and for tests.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its process id, while it lives.
    pub pid: Option<u32>,
    /// How many were started.
    pub starts: u64,
    /// Its sessions that answer.
    pub sessions: usize,
    /// Its sessions with a call that does not come back.
    pub hung: usize,
    /// How the one before it ended.
    pub last_end: Option<String>,
    /// Whether it is not started again before an operator opens the provider anew.
    pub needs_operator: bool,
}

impl State {
    pub(crate) fn new(worker: Worker, backoff: Backoff) -> Self {
        Self { worker: Some(worker), starting: false, backoff, needs_operator: None, last_end: None }
    }

    /// Tells how the worker is, after so many starts.
    pub(crate) fn status(&mut self, starts: u64) -> WorkerStatus {
        self.notice_end(Duration::ZERO);
        if let Some(worker) = &mut self.worker {
            worker.forget_late_answers();
        }
        let worker = self.worker.as_ref();
        WorkerStatus {
            pid: worker.and_then(Worker::pid),
            starts,
            sessions: worker.map_or(0, |worker| worker.sessions),
            hung: worker.map_or(0, |worker| worker.hung.len()),
            last_end: self.last_end.clone(),
            needs_operator: self.needs_operator.is_some(),
        }
    }

    /// Returns the worker, if it is of this generation.
    pub(crate) fn of(&mut self, generation: u64) -> Option<&mut Worker> {
        self.worker.as_mut().filter(|worker| worker.generation == generation)
    }

    /// Checks that a worker may be started now.
    pub(crate) fn may_start(&self, now: Instant) -> Result<(), String> {
        if let Some(why) = &self.needs_operator {
            return Err(why.clone());
        }
        match self.backoff.wait(now) {
            Some(wait) => {
                let ended = self.last_end.as_deref().unwrap_or("it did not start");
                let wait = wait.as_millis();
                Err(format!("the worker ended ({ended}) and is started again in {wait} ms"))
            }
            None => Ok(()),
        }
    }

    /// Notes where the worker has ended, or does within `patience`.
    pub(crate) fn notice_end(&mut self, patience: Duration) {
        if let Some(worker) = &mut self.worker
            && let Some(status) = worker.wait(patience)
        {
            self.last_end = Some(status.to_string());
            self.backoff.ended(worker.started, Instant::now());
            self.worker = None;
        }
    }

    /// Kills the worker.
    pub(crate) fn end(&mut self, why: &str) {
        if let Some(mut worker) = self.worker.take() {
            worker.kill();
            self.last_end = Some(format!("killed, since {why}"));
            self.backoff.ended(worker.started, Instant::now());
        }
    }
}
