//! The rotation of secrets, as it is kept: each step that was done, or was tried in vain, is decided by a pure rule, committed, published and
//! recorded, and whoever waits for it is told. The steps themselves are done by threads of their own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Context, Handler, Message};
use keymill_core::audit::{Outcome, RecordStamp, SecretTouch};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, CmkId, SecretName, SecretVersionId};
use keymill_core::secret::{Due, NewVersion, Pending, Rotation, Secret, Step, Trouble};
use keymill_crypto::random;
use tokio::sync::oneshot;

use super::KeyringActor;
use super::secret::Sealed;
use crate::actor::Changed;
use crate::audit::{AuditMessage, TimerRecord, TimerTouch};
use crate::keyring::Stamp;
use crate::records::{self, Kind};
use crate::rotation::{Failed, RotationJob, Submitted};
use crate::secrets::SecretEntry;

/// The operation that rotations are recorded as.
const OPERATION: &str = "RotateSecret";

/// Tells that the version of a rotation is current, or why it is not yet.
pub(crate) type Rotated = oneshot::Receiver<Result<()>>;

/// Who waits for which version, and is told.
pub(super) type Waiting = (SecretVersionId, oneshot::Sender<Result<()>>);

/// Keeps the version that a rotation begins with.
pub(crate) struct BeginRotation {
    pub(crate) name: SecretName,
    pub(crate) cmk: CmkId,
    pub(crate) version: NewVersion,
    pub(crate) blob: Vec<u8>,
    /// The version that it was drafted from.
    pub(crate) from: SecretVersionId,
    /// Who asks for it; the timer, if absent.
    pub(crate) by: Option<AccessKeyId>,
}

/// Has the rotation to a version, which is under way, tried at once.
pub(crate) struct HastenRotation {
    pub(crate) name: SecretName,
    pub(crate) version: SecretVersionId,
}

/// A step begins. Nobody gives the rotation up until it was done, or tried in vain: what it sets would be nobody's any more.
pub(crate) struct StepBegins {
    pub(crate) name: SecretName,
    pub(crate) version: SecretVersionId,
    pub(crate) step: Step,
}

/// A step was done, or tried in vain.
pub(crate) struct Stepped {
    pub(crate) name: SecretName,
    pub(crate) version: SecretVersionId,
    pub(crate) step: Step,
    pub(crate) outcome: Result<(), Failed>,
}

/// No version could be drafted.
pub(crate) struct DraftFailed {
    pub(crate) name: SecretName,
    pub(crate) failed: Failed,
}

/// Nobody works on a secret any more.
pub(crate) struct RotationRests {
    pub(crate) name: SecretName,
    /// Whether what became of it was kept.
    pub(crate) is_kept: bool,
}

impl Message for BeginRotation {
    type Result = Result<Changed<(Arc<SecretEntry>, Rotated)>>;
}

impl Message for HastenRotation {
    type Result = Result<Changed<(Arc<SecretEntry>, Rotated)>>;
}

impl Message for StepBegins {
    type Result = Result<()>;
}

impl Message for Stepped {
    type Result = Result<()>;
}

impl Message for DraftFailed {
    type Result = Result<()>;
}

impl Message for RotationRests {
    type Result = ();
}

/// What the audit is told of a rotation.
struct Told<'t> {
    rule: Cow<'static, str>,
    version: Option<&'t SecretVersionId>,
    by: Option<AccessKeyId>,
    outcome: Outcome,
}

/// How a rotation stands.
pub(super) type Standing = (Option<Pending>, Option<Trouble>);

/// What a step takes at most, with what it takes to be kept and to be seen elsewhere.
const STEP: Duration = Duration::from_secs(60);
/// After so long it is forgotten how a rotation stood.
const FORGOTTEN: Duration = Duration::from_secs(86_400);

impl KeyringActor {
    /// Has those secrets rotated whose time has come, and those rotations go on that rest.
    pub(super) fn rotate_secrets_due(&mut self) -> Result<()> {
        let now = self.look_at_clock();
        let rests = now.as_ms() < self.installation.rest_until_ms;
        // Each step needs its record and its place: without them nothing is done that could not be kept.
        if self.shared.audit.check().is_err() || self.shared.store_trouble.lock().is_some() {
            return Ok(());
        }
        let back_off = self.shared.config.rotation.back_off;
        for entry in self.shared.keyring.secrets.rotated() {
            let Some(due) = entry.secret.rotation_due(now, rests, back_off) else { continue };
            if matches!(due, Due::Step(_)) && self.may_be_elsewhere(&entry.secret) {
                continue;
            }
            // The others have their turn at the next look.
            if self.submit_rotation(&entry.secret, due == Due::Draft) == Submitted::IsFull {
                break;
            }
        }
        Ok(())
    }

    /// Tells whether another node may be at a rotation: it is, for all that is known, until nothing was seen of it for as long as a step may take.
    fn may_be_elsewhere(&mut self, secret: &Secret) -> bool {
        if self.shared.cluster.is_none() || self.rotating.contains_key(&secret.name) {
            return false;
        }
        let Some(rotation) = &secret.rotation else { return false };
        let standing = (rotation.pending.clone(), rotation.trouble);
        let now = Instant::now();
        match self.elsewhere.get(&secret.name) {
            Some((seen, since)) if *seen == standing => now.duration_since(*since) < STEP,
            _ => {
                self.elsewhere.retain(|_, (_, since)| now.duration_since(*since) < FORGOTTEN);
                self.elsewhere.insert(secret.name.clone(), (standing, now));
                true
            }
        }
    }

    /// Queues the rotation of a secret, unless it is worked on.
    fn submit_rotation(&mut self, secret: &Secret, draft: bool) -> Submitted {
        let (name, Some(rotation)) = (&secret.name, &secret.rotation) else { return Submitted::Queued };
        if self.rotating.contains_key(name) {
            return Submitted::Queued;
        }
        let job = RotationJob { name: name.clone(), rotator: rotation.rotator.clone(), draft };
        let submitted = self.shared.rotations.submit(job);
        if submitted == Submitted::Queued {
            self.rotating.insert(name.clone(), None);
        }
        submitted
    }

    /// Checks that no step of a rotation is under way, which would be done after it was given up.
    ///
    /// # Errors
    /// `Conflict`.
    pub(super) fn check_no_step(&self, name: &SecretName) -> Result<()> {
        match self.rotating.get(name) {
            Some(Some(step)) => {
                let why = format!(
                    "the rotation is at its step {} just now: it can be given up once that is done, or has failed",
                    step.name()
                );
                Err(Error::new(ErrorKind::Conflict, why))
            }
            _ => Ok(()),
        }
    }

    /// Commits what a rotation made of a secret, records and publishes it.
    fn keep_rotation(
        &mut self,
        before: &SecretEntry,
        secret: Secret,
        told: Told<'_>,
    ) -> Result<Arc<SecretEntry>> {
        let path = records::secret_path(&secret.name);
        let draft = self.draft(path, Kind::Secret, Some(before.stamp), &secret)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let entry = self.shared.keyring.secrets.put(SecretEntry { secret, stamp });
        self.record_rotation(&entry.secret.name, told, writes)?;
        Ok(entry)
    }

    fn record_rotation(&self, name: &SecretName, told: Told<'_>, writes: Vec<RecordStamp>) -> Result<()> {
        let Told { rule, version, by, outcome } = told;
        let touch = SecretTouch { name: name.clone(), version: version.cloned() };
        let recorded = self.audit.send(AuditMessage::Timer(Box::new(TimerRecord {
            frontend: if by.is_some() { "rotation" } else { "timer" },
            by,
            operation: OPERATION,
            rule,
            outcome,
            touch: TimerTouch::Secret(touch),
            writes,
        })));
        recorded.map_err(|_| Error::new(ErrorKind::AuditUnavailable, "the audit log is closed"))
    }

    fn await_rotation(&mut self, name: &SecretName, version: SecretVersionId) -> Rotated {
        let (sender, rotated) = oneshot::channel();
        let waiting = self.awaited.entry(name.clone()).or_default();
        // Those whose time was over wait no more.
        waiting.retain(|(_, sender)| !sender.is_closed());
        waiting.push((version, sender));
        rotated
    }

    /// Tells those who wait for a version.
    fn tell_waiting(
        &mut self,
        name: &SecretName,
        version: &SecretVersionId,
        outcome: impl Fn() -> Result<()>,
    ) {
        let waiting = self.awaited.remove(name).unwrap_or_default();
        for (_, sender) in waiting.into_iter().filter(|(of, _)| of == version) {
            let _gone = sender.send(outcome());
        }
    }

    /// Counts how a rotation ended, by the kind of its rotator.
    fn count_rotation(&self, rotation: Option<&Rotation>, outcome: &str) {
        let rotator = rotation.and_then(|rotation| self.shared.config.rotators.get(&rotation.rotator));
        let kind = rotator.map_or("none", |rotator| rotator.kind());
        self.shared.metrics.rotations.with_label_values(&[kind, outcome]).inc();
    }

    fn passed(&mut self, before: &SecretEntry, version: &SecretVersionId, step: Step) -> Result<()> {
        let (mut secret, now) = (before.secret.clone(), self.shared.clock.now());
        let by = by(&secret);
        secret.rotation_passed(version, step, now, draw()?)?;
        let rule = match step {
            Step::Set => "rotation: the value is set",
            Step::Test => "rotation: the version was tested and is current",
            Step::Finish => "rotation: finished",
        };
        let told = Told { rule: rule.into(), version: Some(version), by, outcome: Outcome::Done };
        let entry = self.keep_rotation(before, secret, told)?;
        if step == Step::Test {
            tracing::info!(secret = %entry.secret.name, %version, "the secret was rotated");
            self.count_rotation(entry.secret.rotation.as_deref(), "rotated");
            self.tell_waiting(&entry.secret.name, version, || Ok(()));
        }
        Ok(())
    }

    fn failed(
        &mut self,
        before: &SecretEntry,
        at: Option<(&SecretVersionId, Step)>,
        failed: &Failed,
    ) -> Result<()> {
        let (mut secret, now) = (before.secret.clone(), self.shared.clock.now());
        let back_off = self.shared.config.rotation.back_off;
        let trouble = match at {
            Some((version, Step::Test)) if failed.is_not_valid => {
                secret.rotation_lost(version, now, back_off, draw()?)?
            }
            _ => secret.rotation_failed(at, now, back_off, draw()?)?,
        };
        let (name, Failed { kind, word, why, .. }) = (&before.secret.name, failed);
        let step = at.map_or("draft", |(_, step)| step.name());
        let (version, by) = (at.map(|(version, _)| version), by(&secret));
        self.count_rotation(secret.rotation.as_deref(), "failed");
        tracing::error!(
            secret = %name,
            version = version.map(|version| version.as_str()),
            step,
            why,
            attempts = trouble.attempts,
            retry_at = %trouble.retry_at,
            "the rotation of a secret failed: its current value stays, and it is tried again"
        );
        let rule = format!("rotation: {step} failed: {why}").into();
        let told = Told { rule, version, by, outcome: Outcome::Failed(*kind) };
        self.keep_rotation(before, secret, told)?;
        if let Some(version) = version {
            self.tell_waiting(name, version, || {
                let why = format!(
                    "the rotation to version {version} failed at its step {step} ({word}), and is tried again at {}: the log of the server \
                     says why; ask for the same version once more",
                    trouble.retry_at
                );
                Err(Error::new(ErrorKind::Unavailable, why))
            });
        }
        Ok(())
    }
}

impl Handler<BeginRotation> for KeyringActor {
    type Result = Result<Changed<(Arc<SecretEntry>, Rotated)>>;

    fn handle(&mut self, message: BeginRotation, _: &mut Context<Self>) -> Self::Result {
        let BeginRotation { name, cmk, version, blob, from, by } = message;
        // Once more: it may have been disabled, or be waiting for its deletion, since the value was sealed.
        self.entry(&cmk)?.cmk.state.check_usable()?;
        let before = self.secret(&name)?;
        if before.secret.cmk != cmk {
            return Err(Error::new(ErrorKind::Conflict, "the secret was changed meanwhile"));
        }
        let (mut secret, id) = (before.secret.clone(), version.id.clone());
        let put = secret.begin_rotation(version, &from, by.clone(), self.shared.clock.now())?;
        let sealed = Sealed { id: id.clone(), blob, put };
        let (entry, writes) = self.keep_versions(Some(before.stamp), secret, vec![sealed])?;
        let rule = match unfinished(&before.secret) {
            None => "rotation: the version is kept, and pending".into(),
            Some(left) => {
                tracing::warn!(secret = %name, version = %left, "the rotation before was never finished: what it left behind is not ended");
                format!("rotation: the version is kept, and pending; that to {left} is left unfinished")
                    .into()
            }
        };
        let told = Told { rule, version: Some(&id), by, outcome: Outcome::Done };
        self.record_rotation(&name, told, writes)?;
        let rotated = self.await_rotation(&name, id);
        // Where there is no room it is found by the next look.
        self.submit_rotation(&entry.secret, false);
        Ok(Changed { value: (entry, rotated), keys: Vec::new(), writes: Vec::new() })
    }
}

impl Handler<HastenRotation> for KeyringActor {
    type Result = Result<Changed<(Arc<SecretEntry>, Rotated)>>;

    fn handle(&mut self, message: HastenRotation, _: &mut Context<Self>) -> Self::Result {
        let HastenRotation { name, version } = message;
        let before = self.secret(&name)?;
        let mut secret = before.secret.clone();
        if !secret.hasten_rotation(&version, self.shared.clock.now())? {
            self.confirm(records::secret_path(&before.secret.name), before.stamp)?;
            let (sender, rotated) = oneshot::channel();
            let _kept = sender.send(Ok(()));
            return Ok(Changed { value: (before, rotated), keys: Vec::new(), writes: Vec::new() });
        }
        let rule = "rotation: asked for again".into();
        let told = Told { rule, version: Some(&version), by: by(&secret), outcome: Outcome::Done };
        let entry = self.keep_rotation(&before, secret, told)?;
        let rotated = self.await_rotation(&name, version);
        self.submit_rotation(&entry.secret, false);
        Ok(Changed { value: (entry, rotated), keys: Vec::new(), writes: Vec::new() })
    }
}

impl Handler<StepBegins> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, message: StepBegins, _: &mut Context<Self>) -> Self::Result {
        let StepBegins { name, version, step } = message;
        let entry = self.secret(&name)?;
        entry.secret.check_step(&version, step)?;
        // It may have been given up, or gone on, at another node.
        self.confirm(records::secret_path(&name), entry.stamp)?;
        if let Some(at) = self.rotating.get_mut(&name) {
            *at = Some(step);
        }
        Ok(())
    }
}

impl Handler<Stepped> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, message: Stepped, _: &mut Context<Self>) -> Self::Result {
        let Stepped { name, version, step, outcome } = message;
        if let Some(at) = self.rotating.get_mut(&name) {
            *at = None;
        }
        let before = self.secret(&name)?;
        match outcome {
            Ok(()) => self.passed(&before, &version, step),
            Err(failed) => self.failed(&before, Some((&version, step)), &failed),
        }
    }
}

impl Handler<DraftFailed> for KeyringActor {
    type Result = Result<()>;

    fn handle(&mut self, DraftFailed { name, failed }: DraftFailed, _: &mut Context<Self>) -> Self::Result {
        let before = self.secret(&name)?;
        self.failed(&before, None, &failed)
    }
}

impl Handler<RotationRests> for KeyringActor {
    type Result = ();

    fn handle(&mut self, RotationRests { name, is_kept }: RotationRests, _: &mut Context<Self>) {
        self.rotating.remove(&name);
        let entry = self.shared.keyring.secrets.secret(&name);
        let rotation = entry.as_ref().and_then(|entry| entry.secret.rotation.as_ref());
        match rotation.and_then(|rotation| rotation.pending.as_ref()) {
            // At once it would fail again, as often as it can: the next look goes on with it.
            Some(_) if !is_kept => {}
            // Somebody asked for it while it was failing.
            Some(_) => {
                let (now, back_off) = (self.shared.clock.now(), self.shared.config.rotation.back_off);
                let is_due =
                    |entry: &&Arc<SecretEntry>| entry.secret.rotation_due(now, true, back_off).is_some();
                if let Some(entry) = entry.as_ref().filter(is_due) {
                    self.submit_rotation(&entry.secret, false);
                }
            }
            // It was given up, or the secret is gone: those who wait see that nobody is left to tell them.
            None => drop(self.awaited.remove(&name)),
        }
    }
}

/// Returns the version of a rotation whose end was never done.
fn unfinished(secret: &Secret) -> Option<&SecretVersionId> {
    let pending = secret.rotation.as_ref()?.pending.as_ref()?;
    (pending.step == Step::Finish).then_some(&pending.version)
}

/// Returns who asked for the rotation under way.
fn by(secret: &Secret) -> Option<AccessKeyId> {
    secret.rotation.as_ref()?.pending.as_ref()?.by.clone()
}

/// Draws what times are spread by.
fn draw() -> Result<u32> {
    Ok(u32::from_be_bytes(random::array()?))
}
