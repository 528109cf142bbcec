//! Rotation at the gate: asked for by callers, and the values that rotators are handed. Those go to the rotator and to nobody else: whoever makes
//! a secret that is rotated by another secret needs the right to read that one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::access::{Principal, Resource};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, RotatorName, SecretName, SecretRef, SecretVersionId, VersionStage};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::rotator::{RotationSettings, Rotator};
use keymill_core::secret::{Rotation, SecretInterval, SecretVersion, no_rotator};
use keymill_crypto::random;

use super::manage::{Done, done};
use super::plan::Plan;
use super::secret::{below, note};
use super::secret_change::SecretReply;
use super::{Call, Gate};
use crate::actor::keyring::{BeginRotation, HastenRotation, Rotated, SecretChange};
use crate::actor::{Changed, Owners};
use crate::rotation::guarded;
use crate::secrets::SecretEntry;
use crate::work::Job;

/// Whom the audit names where a rotation uses a key.
const ROTATION: &str = "keymill.rotation";
/// How long before its deadline a caller is told that the rotation goes on.
const TOLD_BEFORE: Duration = Duration::from_millis(50);

impl Gate {
    /// Finds the rotator that a secret of a caller's is to have.
    pub(super) fn rotator_for(
        &self,
        job: &Job,
        own: &SecretName,
        name: &RotatorName,
    ) -> Result<&Arc<dyn Rotator>> {
        let rotator = self.0.shared.config.rotators.find(name)?;
        if !rotator.serves(own) {
            let why = format!("rotator {name} is for other secrets: its configuration names them");
            return Err(Error::new(ErrorKind::Denied, why));
        }
        if let Some(admin) = rotator.admin() {
            if admin == own {
                let why = format!("rotator {name} works by this secret, and so does not rotate it");
                return Err(Error::new(ErrorKind::InvalidParameter, why));
            }
            // Nobody does by the rotator what it could not do by itself.
            if !self.decide(job, Operation::GetSecretValue, Resource::Secret(admin)).allowed {
                let why = format!(
                    "rotator {name} works by another secret, and the caller has not the right to GetSecretValue of that"
                );
                return Err(Error::new(ErrorKind::Denied, why));
            }
        }
        Ok(rotator)
    }

    /// Returns how a new secret is rotated, where it is.
    pub(super) fn rotation_of_new(
        &self,
        of: SecretType,
        extended: Option<&str>,
        enable: Option<bool>,
        interval: Option<SecretInterval>,
    ) -> Result<Option<Rotation>> {
        let interval = scheduled(enable.unwrap_or(false), interval)?;
        let asked = keymill_core::secret::extended::parse(of, extended)?;
        let Some((rotator, settings)) = asked else {
            return if interval.is_some() { Err(no_rotator()) } else { Ok(None) };
        };
        let (mut rotation, now) = (Rotation::new(rotator, settings), self.now());
        rotation.schedule(interval, now, now, draw()?);
        Ok(Some(rotation))
    }

    pub(super) fn plan_rotation(&self, job: &mut Job, r: RotateSecretRequest) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::RotateSecret)?;
        note(job, &name, Some(&r.version_id));
        let rotation = entry.secret.check_rotation(&r.version_id)?;
        self.0.shared.config.rotators.find(&rotation.rotator)?;
        // Before anything is made for it; the keyring asks again.
        if entry.secret.version(&r.version_id).is_none() {
            rotation.check_asked(self.now())?;
        }
        Ok(Plan::RotateSecret { name, version: r.version_id })
    }

    pub(super) fn plan_rotation_policy(
        &self,
        job: &mut Job,
        r: UpdateSecretRotationPolicyRequest,
    ) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::UpdateSecretRotationPolicy)?;
        let rotation = entry.secret.rotation.as_ref().ok_or_else(no_rotator)?;
        // What cannot be done any more is not planned; to end it is always possible.
        let interval = scheduled(r.enable_automatic_rotation, r.rotation_interval)?;
        if interval.is_some() {
            self.0.shared.config.rotators.find(&rotation.rotator)?;
        }
        let reply: SecretReply = |secret, request_id| {
            let secret_name = secret.name.clone();
            Reply::UpdateSecretRotationPolicy(UpdateSecretRotationPolicyReply { secret_name, request_id })
        };
        Ok(Plan::ChangeSecret { name, change: SecretChange::Schedule { interval, draw: draw()? }, reply })
    }

    /// Rotates a secret, and waits until the version is current, or it is said when it is tried again.
    pub(super) async fn rotate_secret(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        (name, version): (SecretName, SecretVersionId),
        deadline: Instant,
    ) -> Result<Done> {
        let entry = self.0.shared.keyring.secrets.secret(&name).ok_or_else(Error::secret_not_found)?;
        let reply = Reply::RotateSecret(RotateSecretReply {
            secret_name: name.clone(),
            arn: self.secret_arn(&name),
            version_id: version.clone(),
            request_id: call.request_id,
        });
        let pending = entry.secret.check_rotation(&version)?.pending.as_ref();
        // Once its version is current, what is left to be finished keeps nobody waiting.
        let is_under_way =
            pending.is_some_and(|pending| pending.version == version && pending.left.is_none());
        let changed: Changed<(Arc<SecretEntry>, Rotated)> = if is_under_way {
            actors.keyring(HastenRotation { name, version: version.clone() }).await?
        } else if entry.secret.version(&version).is_some() {
            return match entry.secret.was_rotated_to(&version) {
                true => Ok((reply, Vec::new(), Vec::new())),
                false => Err(Error::new(
                    ErrorKind::StateConflict,
                    format!(
                        "version {version} is there, is not current, and no rotation to it is under way: name a new one"
                    ),
                )),
            };
        } else {
            let (gate, by) = (self.clone(), (*call.principal.access_key).clone());
            let id = version.clone();
            // A desk waits for its token on the thread that it is on.
            let drafted =
                tokio::task::spawn_blocking(move || gate.draft_rotation(&entry, id, Some(by), deadline))
                    .await;
            let begin = drafted.map_err(|_| Error::internal("the making of a value was cut off"))??;
            actors.keyring(begin).await?
        };
        let Changed { value: (_, rotated), keys, writes } = changed;
        let until = deadline.checked_sub(TOLD_BEFORE).unwrap_or(deadline);
        match tokio::time::timeout_at(until.into(), rotated).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_gone)) => {
                let why = "the rotation was given up, or the secret deleted, meanwhile";
                return Err(Error::new(ErrorKind::Conflict, why));
            }
            Err(_late) => {
                let why = format!(
                    "the rotation to version {version} goes on: it was not done within the time allowed; ask for the same version once more"
                );
                return Err(Error::new(ErrorKind::Deadline, why));
            }
        }
        Ok(done(reply, Changed { value: (), keys, writes }))
    }

    /// Drafts the version that a rotation begins with, sealed. Blocks.
    pub(crate) fn draft_rotation(
        &self,
        entry: &SecretEntry,
        id: SecretVersionId,
        by: Option<AccessKeyId>,
        deadline: Instant,
    ) -> Result<BeginRotation> {
        let secret = &entry.secret;
        let rotation = secret.check_rotation(&id)?;
        let rotator = self.0.shared.config.rotators.find(&rotation.rotator)?;
        let current = secret.asked(None, None)?;
        let value = self.open_for_rotation(entry, current, deadline)?;
        let previous = secret.at(&VersionStage::previous());
        let previous =
            previous.map(|version| self.open_for_rotation(entry, version, deadline)).transpose()?;
        let next = drafted(rotator, &rotation.settings, &value, previous.as_ref())?;
        let version = self.new_version(&secret.name, id, SecretDataType::Text, &next);
        let call = self.rotation_call()?;
        let blob = self.seal_now(&call, secret.cmk, (&secret.name, &version.id), next, deadline)?;
        Ok(BeginRotation {
            name: secret.name.clone(),
            cmk: secret.cmk,
            version,
            blob,
            from: current.id.clone(),
            by,
        })
    }

    /// Opens the value of a version for a rotator. Blocks.
    pub(crate) fn open_for_rotation(
        &self,
        entry: &SecretEntry,
        version: &SecretVersion,
        deadline: Instant,
    ) -> Result<Sensitive> {
        let call = self.rotation_call()?;
        self.open_now(call, entry, version, deadline)
    }

    fn rotation_call(&self) -> Result<Call> {
        Ok(Call {
            request_id: self.request_id(),
            principal: Principal::of_access_key(ROTATION.parse()?),
            source: None,
            frontend: "rotation",
            received: Instant::now(),
            nonce: None,
        })
    }
}

/// Has a rotator make the next value, and checks that it can be one.
fn drafted(
    rotator: &Arc<dyn Rotator>,
    settings: &RotationSettings,
    current: &Sensitive,
    previous: Option<&Sensitive>,
) -> Result<Sensitive> {
    let drafted = guarded(|| rotator.draft(settings, current, previous, &mut below));
    let next = drafted.ok_or_else(|| Error::internal("the rotator panicked"))??;
    let is_value = (1..=limit::SECRET_BYTES).contains(&next.len());
    match is_value && std::str::from_utf8(next.expose()).is_ok() {
        true => Ok(next),
        false => Err(Error::internal("the rotator made no value that a secret can have")),
    }
}

/// Returns how often a secret is rotated by itself.
fn scheduled(enable: bool, interval: Option<SecretInterval>) -> Result<Option<SecretInterval>> {
    match (enable, interval) {
        (true, None) => {
            Err(Error::new(ErrorKind::MissingParameter, "RotationInterval: the parameter is missing"))
        }
        (true, interval) => Ok(interval),
        // As of keys: it is passed over where nothing is rotated.
        (false, _) => Ok(None),
    }
}

/// Draws what times are spread by.
fn draw() -> Result<u32> {
    Ok(u32::from_be_bytes(random::array()?))
}
