//! Validators of ACME at work: a bounded number of threads of their own, and a bounded queue before them, since a validator blocks on somebody
//! else. What was found is the ACME actor's to keep.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_core::acme::{ChallengeKind, ChallengeStatus, Outcome, Problem, ProblemKind};
use keymill_core::id::AcmeOrderId;
use keymill_core::seam::validator::Proof;
use parking_lot::Mutex;

use crate::acme::AcmeConfig;
use crate::gate::Gate;

/// How long the threads may take to end; one in a look that does not return is left behind.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A proof that is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Look {
    pub(crate) order: AcmeOrderId,
    /// Which of its names.
    pub(crate) index: usize,
    pub(crate) kind: ChallengeKind,
}

/// The queue before the threads.
pub(crate) struct ValidationQueue {
    sender: Mutex<Option<flume::Sender<Look>>>,
    waiting: flume::Receiver<Look>,
    /// Those that are queued, looked for, or at rest: each once.
    at_work: Mutex<HashSet<Look>>,
    is_over: AtomicBool,
}

impl ValidationQueue {
    pub(crate) fn new(bound: usize) -> Self {
        let (sender, waiting) = flume::bounded(bound.max(1));
        let (sender, at_work) = (Mutex::new(Some(sender)), Mutex::default());
        Self { sender, waiting, at_work, is_over: AtomicBool::new(false) }
    }

    /// Queues a look, unless it is at work. Where there is no room it is left, and come upon again.
    pub(crate) fn submit(&self, look: Look) {
        if self.at_work.lock().insert(look) && !self.send(look) {
            self.rests(&look);
        }
    }

    fn send(&self, look: Look) -> bool {
        self.sender.lock().as_ref().is_some_and(|sender| sender.try_send(look).is_ok())
    }

    fn rests(&self, look: &Look) {
        self.at_work.lock().remove(look);
    }

    fn close(&self) {
        self.is_over.store(true, Ordering::Release);
        self.sender.lock().take();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// The threads, and the look from time to time at what is left to do.
pub(crate) struct ValidationThreads {
    gate: Gate,
    timer: tokio::sync::oneshot::Sender<()>,
    /// Disconnected once they all have ended.
    ended: flume::Receiver<()>,
}

impl ValidationThreads {
    /// Starts them, where ACME is offered.
    pub(crate) fn start(gate: &Gate) -> std::io::Result<Option<Self>> {
        let Some(config) = gate.inner().shared.config.acme.clone() else { return Ok(None) };
        let config = Arc::new(config);
        let (alive, ended) = flume::bounded(1);
        for number in 0..config.threads.max(1) {
            let (worker, alive) = (Worker { gate: gate.clone(), config: config.clone() }, alive.clone());
            let run = move || {
                worker.run();
                drop(alive);
            };
            std::thread::Builder::new().name(format!("km-validate-{number}")).spawn(run)?;
        }
        let (timer, mut stopped) = tokio::sync::oneshot::channel();
        let (looking, every) = (gate.clone(), config.check);
        gate.inner().actors.control.spawn(async move {
            let _alive = alive;
            // Whatever was being issued when this process began was cut short, unless another node is at it.
            let is_alone = looking.inner().shared.cluster.is_none();
            let mut seen = if is_alone { looking.inner().shared.acme.unfinished().1 } else { Vec::new() };
            let mut times = tokio::time::interval(every);
            times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = times.tick() => looking.look_after_acme(&mut seen).await,
                    _ = &mut stopped => break,
                }
            }
        });
        Ok(Some(Self { gate: gate.clone(), timer, ended }))
    }

    /// Ends them, each after the look that it is at.
    pub(crate) fn stop(self) {
        self.gate.inner().shared.validations.close();
        let _ended = self.timer.send(());
        if self.ended.recv_timeout(END_WITHIN) == Err(flume::RecvTimeoutError::Timeout) {
            tracing::warn!("a validator does not return: its challenge is looked at with the next start");
        }
    }
}

struct Worker {
    gate: Gate,
    config: Arc<AcmeConfig>,
}

impl Worker {
    fn run(&self) {
        let queue = &self.gate.inner().shared.validations;
        while let Ok(look) = queue.waiting.recv() {
            if queue.is_over() {
                continue;
            }
            match self.look(&look) {
                true => self.look_again_later(look),
                false => queue.rests(&look),
            }
        }
    }

    /// Looks for a proof, and has kept what was found; tells whether it is to be looked for again.
    fn look(&self, look: &Look) -> bool {
        let shared = &self.gate.inner().shared;
        let Some(order) = shared.acme.order(&look.order) else { return false };
        let Some(account) = shared.acme.account(&order.account) else { return false };
        let Some(authorization) = order.authorizations.get(look.index) else { return false };
        let challenge = authorization.challenges.iter().find(|challenge| challenge.kind == look.kind);
        let Some(challenge) = challenge.filter(|challenge| challenge.status == ChallengeStatus::Processing)
        else {
            return false;
        };
        let proof = Proof {
            name: &authorization.name,
            token: &challenge.token,
            thumbprint: &account.key.thumbprint,
            deadline: Instant::now() + self.config.look_timeout,
        };
        let found = self.ask(look.kind, &proof);
        let is_last = challenge.attempts + 1 >= self.config.looks;
        let ends = found.is_ok() || is_last;
        if ends {
            shared.metrics.acme.validated(look.kind, found.is_ok());
        }
        match self.keep(*look, found, is_last) {
            Ok(()) => !ends,
            Err(problem) => {
                tracing::warn!(order = %look.order, %problem, "what a validator found could not be kept");
                false
            }
        }
    }

    fn ask(&self, kind: ChallengeKind, proof: &Proof<'_>) -> Outcome<()> {
        let validator = self.config.validators.iter().find(|validator| validator.kind() == kind);
        let Some(validator) = validator else {
            return Err(Problem::new(
                ProblemKind::ServerInternal,
                "nobody here looks for such a proof any more",
            ));
        };
        // One that panics ends no thread of ours.
        let looked = catch_unwind(AssertUnwindSafe(|| validator.check(proof)));
        looked.unwrap_or_else(|_| Err(Problem::new(ProblemKind::ServerInternal, "the validator failed")))
    }

    /// Has the actor keep what was found, and waits for it.
    fn keep(&self, look: Look, found: Outcome<()>, is_last: bool) -> Outcome<()> {
        let (sender, answer) = flume::bounded(1);
        let gate = self.gate.clone();
        self.gate.inner().actors.control.spawn(async move {
            let _gone = sender.send(gate.keep_found(look, found, is_last).await);
        });
        let gone = |_| Problem::new(ProblemKind::ServerInternal, "the engine is shutting down");
        answer.recv().map_err(gone)?
    }

    /// Queues a look anew once it has rested.
    fn look_again_later(&self, look: Look) {
        let (gate, rest) = (self.gate.clone(), self.config.rest);
        self.gate.inner().actors.control.spawn(async move {
            tokio::time::sleep(rest).await;
            let queue = &gate.inner().shared.validations;
            if !queue.send(look) {
                queue.rests(&look);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(n: u8) -> Look {
        Look { order: AcmeOrderId::from_random([n; 16]), index: 0, kind: ChallengeKind::Http01 }
    }

    #[test]
    fn a_look_is_queued_once_and_what_has_no_room_may_come_again() {
        let queue = ValidationQueue::new(1);
        queue.submit(look(1));
        queue.submit(look(1));
        queue.submit(look(2));
        assert_eq!(queue.waiting.drain().collect::<Vec<_>>(), [look(1)]);
        queue.submit(look(1));
        assert!(queue.waiting.is_empty(), "it is still at work");
        queue.submit(look(2));
        assert_eq!(queue.waiting.drain().collect::<Vec<_>>(), [look(2)]);
        queue.rests(&look(1));
        queue.submit(look(1));
        assert_eq!(queue.waiting.len(), 1);
        queue.close();
        queue.submit(look(3));
        assert_eq!(queue.waiting.len(), 1);
    }
}
