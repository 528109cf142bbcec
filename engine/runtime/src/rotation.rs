//! Rotators at work: a bounded number of threads of their own, since a rotator blocks on somebody else. What is
//! to be done is decided by a pure rule on the published secret, and what came of it is the keyring actor's to commit.

mod queue;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Handler, Message};
use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorClass, ErrorKind, Result};
use keymill_core::id::{RotatorName, SecretName, SecretVersionId};
use keymill_core::seam::rotator::{RotationFault, RotationFaultKind, Rotator, Turn};
use keymill_core::secret::{BackOff, Due, Pending, Rotation, SecretVersion, Step};

use crate::actor::keyring::{DraftFailed, KeyringActor, RotationRests, StepBegins, Stepped};
use crate::gate::Gate;
use crate::secrets::SecretEntry;
use crate::shared::Shared;

pub(crate) use queue::{RotationJob, RotationQueue, Submitted};

/// How long the threads may take to end; one in a call that does not return is left behind.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Characters of what a rotator says went wrong, at most.
const WHY_CHARACTERS: usize = 256;

/// The rotators of the configuration, by their names.
#[derive(Clone, Default)]
pub struct Rotators(BTreeMap<RotatorName, Arc<dyn Rotator>>);

impl Rotators {
    /// Adds one, in the place of another of its name.
    pub fn add(&mut self, name: RotatorName, rotator: Arc<dyn Rotator>) {
        self.0.insert(name, rotator);
    }

    /// Returns one.
    pub fn get(&self, name: &RotatorName) -> Option<&Arc<dyn Rotator>> {
        self.0.get(name)
    }

    /// Finds one that a secret names.
    ///
    /// # Errors
    /// `InvalidParameter` where the configuration has none of the name.
    pub fn find(&self, name: &RotatorName) -> Result<&Arc<dyn Rotator>> {
        self.get(name).ok_or_else(|| {
            let why = format!("the configuration of the server has no rotator {name}");
            Error::new(ErrorKind::InvalidParameter, why)
        })
    }

    /// Lists their kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.values().map(|rotator| rotator.kind())
    }
}

impl fmt::Debug for Rotators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How secrets are rotated.
#[derive(Clone, Debug)]
pub struct RotationConfig {
    /// Rotations at once, each on a thread.
    pub threads: usize,
    /// Rotations that wait for a thread; beyond them they are looked for again.
    pub queue: usize,
    /// How often secrets are looked for whose time has come.
    pub check: Duration,
    /// How long a rotator may take for one step.
    pub step_timeout: Duration,
    /// How long a rotation rests after it was tried in vain.
    pub back_off: BackOff,
}

impl Default for RotationConfig {
    fn default() -> Self {
        Self {
            threads: 4,
            queue: 1_024,
            check: Duration::from_secs(5),
            step_timeout: Duration::from_secs(30),
            back_off: BackOff { first: Duration::from_secs(60), most: Duration::from_secs(3_600) },
        }
    }
}

/// The threads.
pub(crate) struct RotationThreads {
    shared: Arc<Shared>,
    /// Disconnected once they all have ended.
    ended: flume::Receiver<()>,
}

impl RotationThreads {
    /// Starts them, where there is a rotator at all, or a secret that had one: its rotation fails then, and is told.
    pub(crate) fn start(gate: &Gate) -> std::io::Result<Option<Self>> {
        let shared = gate.inner().shared.clone();
        if shared.config.rotators.0.is_empty() && shared.keyring.secrets.rotated().is_empty() {
            return Ok(None);
        }
        for kind in shared.config.rotators.kinds() {
            for outcome in ["rotated", "failed"] {
                shared.metrics.rotations.with_label_values(&[kind, outcome]);
            }
        }
        let (alive, ended) = flume::bounded(1);
        for number in 0..shared.config.rotation.threads.max(1) {
            let (worker, alive) = (Worker { gate: gate.clone(), shared: shared.clone() }, alive.clone());
            let run = move || {
                worker.run();
                drop(alive);
            };
            std::thread::Builder::new().name(format!("km-rotation-{number}")).spawn(run)?;
        }
        Ok(Some(Self { shared, ended }))
    }

    /// Ends them, each after the step that it is at.
    pub(crate) fn stop(self) {
        self.shared.rotations.close();
        if self.ended.recv_timeout(END_WITHIN) == Err(flume::RecvTimeoutError::Timeout) {
            tracing::warn!("a rotator does not return: its rotation goes on with the next start");
        }
    }
}

/// Why a step was not done.
pub(crate) struct Failed {
    /// As the audit has it.
    pub(crate) kind: ErrorKind,
    /// In a word, for callers.
    pub(crate) word: &'static str,
    /// For the log and the audit.
    pub(crate) why: String,
    /// Whether the value was shown not to be valid, so that it is to be set anew.
    pub(crate) is_not_valid: bool,
}

impl From<RotationFault> for Failed {
    fn from(RotationFault { kind, why }: RotationFault) -> Self {
        let is_not_valid = kind == RotationFaultKind::NotValid;
        let (kind, word) = match kind {
            RotationFaultKind::Unreachable => (ErrorKind::Unavailable, "unreachable"),
            RotationFaultKind::Refused => (ErrorKind::Denied, "refused"),
            RotationFaultKind::NotValid => (ErrorKind::StateConflict, "not valid"),
            RotationFaultKind::Misconfigured => (ErrorKind::InvalidParameter, "misconfigured"),
        };
        Self { kind, word, why: short(&why), is_not_valid }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let word = match error.kind().class() {
            ErrorClass::State => "the key or a secret is not usable",
            ErrorClass::Unavailable | ErrorClass::Busy | ErrorClass::Deadline => "unavailable",
            _ => "misconfigured",
        };
        Self { kind: error.kind(), word, why: short(error.message()), is_not_valid: false }
    }
}

/// Keeps what is said in one line.
fn short(why: &str) -> String {
    why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_CHARACTERS).collect()
}

struct Worker {
    gate: Gate,
    shared: Arc<Shared>,
}

/// Tells the actor that nobody works on a secret any more, whatever became of it.
struct Rests<'w> {
    worker: &'w Worker,
    job: RotationJob,
    /// Whether what became of it could be kept; else it is left until the next look.
    is_kept: bool,
}

impl Drop for Rests<'_> {
    fn drop(&mut self) {
        self.worker.shared.rotations.done(&self.job.rotator);
        let rests = RotationRests { name: self.job.name.clone(), is_kept: self.is_kept };
        self.worker.gate.inner().actors.keyring.do_send(rests);
    }
}

impl Worker {
    fn run(&self) {
        while let Some(job) = self.shared.rotations.next() {
            let mut rests = Rests { worker: self, job, is_kept: false };
            rests.is_kept = self.rotate(&rests.job);
        }
    }

    /// Goes on with a rotation as far as it gets; false where what became of it could not be kept.
    fn rotate(&self, job: &RotationJob) -> bool {
        if job.draft && !self.draft(&job.name) {
            return false;
        }
        let back_off = self.shared.config.rotation.back_off;
        while !self.shared.rotations.is_over() {
            let Some(entry) = self.shared.keyring.secrets.secret(&job.name) else { return true };
            // None is begun here, and so it does not matter whether the clock is trusted.
            let due = entry.secret.rotation_due(self.shared.clock.now(), true, back_off);
            let rotation = entry.secret.rotation.as_deref();
            let pending = rotation.and_then(|rotation| Some((rotation, rotation.pending.as_ref()?)));
            let (Some(Due::Step(step)), Some((rotation, pending))) = (due, pending) else { return true };
            let (name, version) = (job.name.clone(), pending.version.clone());
            let begins = StepBegins { name: name.clone(), version: version.clone(), step };
            if let Err(error) = self.tell(begins) {
                tracing::warn!(secret = %job.name, step = step.name(), ?error, "a step of a rotation was not begun");
                return self.has_moved_on(&job.name, pending);
            }
            let outcome = self.step(&entry, rotation, pending, step);
            let has_failed = outcome.is_err();
            if !self.is_kept(&job.name, self.tell(Stepped { name, version, step, outcome })) {
                // Another rotation may have begun meanwhile, which does not wait for the next look.
                return self.has_moved_on(&job.name, pending);
            }
            if has_failed {
                return true;
            }
        }
        true
    }

    fn has_moved_on(&self, name: &SecretName, from: &Pending) -> bool {
        let entry = self.shared.keyring.secrets.secret(name);
        let rotation = entry.as_ref().and_then(|entry| entry.secret.rotation.as_ref());
        let pending = rotation.and_then(|rotation| rotation.pending.as_ref());
        pending.is_none_or(|pending| pending.version != from.version || pending.step != from.step)
    }

    /// Drafts a version for a secret whose time has come; false where what became of it could not be kept.
    fn draft(&self, name: &SecretName) -> bool {
        let begun = || {
            let entry = self.shared.keyring.secrets.secret(name).ok_or_else(Error::secret_not_found)?;
            let id = SecretVersionId::from_random(keymill_crypto::random::array()?);
            let begin = self.gate.draft_rotation(&entry, id, None, self.deadline())?;
            self.tell(begin).map(drop)
        };
        match begun() {
            Ok(()) => true,
            Err(error) => {
                let failed = DraftFailed { name: name.clone(), failed: error.into() };
                self.is_kept(name, self.tell(failed))
            }
        }
    }

    fn is_kept(&self, name: &SecretName, told: Result<()>) -> bool {
        told.inspect_err(|error| {
            tracing::warn!(secret = %name, ?error, "what became of a rotation could not be kept");
        })
        .is_ok()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.config.rotation.step_timeout
    }

    fn step(
        &self,
        entry: &SecretEntry,
        rotation: &Rotation,
        pending: &Pending,
        step: Step,
    ) -> Result<(), Failed> {
        let secret = &entry.secret;
        let missing = |what: &str| {
            let why = format!("{what} version of the secret is not there any more");
            Failed::from(RotationFault::new(RotationFaultKind::Misconfigured, why))
        };
        let rotator = self.shared.config.rotators.find(&rotation.rotator)?;
        let (current, previous) = match &pending.left {
            None => (secret.at(&"ACSCurrent".parse()?), secret.at(&"ACSPrevious".parse()?)),
            Some(left) => (
                secret.version(&left.current),
                left.previous.as_ref().and_then(|previous| secret.version(previous)),
            ),
        };
        let open = |version: &SecretVersion| self.gate.open_for_rotation(entry, version, self.deadline());
        let current = open(current.ok_or_else(|| missing("the current"))?)?;
        let value = open(secret.version(&pending.version).ok_or_else(|| missing("the pending"))?)?;
        let previous = previous.map(open).transpose()?;
        let admin = self.admin(rotator)?;
        let turn = Turn {
            secret: &secret.name,
            version: &pending.version,
            settings: &rotation.settings,
            current: &current,
            previous: previous.as_ref(),
            pending: &value,
            admin: admin.as_ref(),
            deadline: self.deadline(),
        };
        let outcome = guarded(|| match step {
            Step::Set => rotator.set(&turn),
            Step::Test => rotator.test(&turn),
            Step::Finish => rotator.finish(&turn),
        });
        Ok(outcome.unwrap_or_else(|| {
            Err(RotationFault::new(RotationFaultKind::Misconfigured, "the rotator panicked"))
        })?)
    }

    /// Opens the secret that a rotator works by; its value goes to the rotator alone.
    fn admin(&self, rotator: &Arc<dyn Rotator>) -> Result<Option<Sensitive>, Failed> {
        let Some(name) = rotator.admin() else { return Ok(None) };
        let entry = self.shared.keyring.secrets.secret(name).filter(|entry| entry.secret.delete_at.is_none());
        let entry = entry.ok_or_else(|| {
            let why = format!("the secret {name}, which the rotator works by, is not there");
            RotationFault::new(RotationFaultKind::Misconfigured, why)
        })?;
        let version = entry.secret.asked(None, None)?.clone();
        Ok(Some(self.gate.open_for_rotation(&entry, &version, self.deadline())?))
    }

    /// Asks the keyring actor, and waits for what it says.
    fn tell<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        KeyringActor: Handler<M>,
    {
        let (sender, answer) = flume::bounded(1);
        let actors = self.gate.inner().actors.clone();
        self.gate.inner().actors.control.spawn(async move {
            let _gone = sender.send(actors.keyring(message).await);
        });
        let gone = |_| Error::new(ErrorKind::Unavailable, "the engine is shutting down");
        answer.recv().map_err(gone)?
    }
}

/// Calls a rotator; `None` where it panics, which ends no thread of ours.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
