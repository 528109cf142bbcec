//! Secrets at the gate: found by name and by the right to them, and their values opened where any caller's text is. The right to a secret is the
//! right to its value, and no right to its CMK is asked for beside it.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::access::{Decision, Resource};
use keymill_core::audit::SecretTouch;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{SecretName, SecretRef, SecretVersionId};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::secret::{PasswordRules, RotationTold, Secret, SecretVersion, context_of_secret, password};
use keymill_crypto::random;
use keymill_crypto::record::tag_of;

use super::data::common;
use super::{Call, Gate};
use crate::records::{self, Kind, SecretValueRecord};
use crate::secrets::SecretEntry;
use crate::work::{Items, Job, NamedSecret, OpenTask, OpenedSecret, Sheet, Task};

impl Gate {
    /// Finds a secret, if the caller may do `right` with it; one that it may not looks like one that is not there.
    pub(super) fn find_secret(
        &self,
        job: &mut Job,
        name: &SecretName,
        right: Operation,
    ) -> Result<Arc<SecretEntry>> {
        let Decision { allowed, rule } = self.decide(job, right, Resource::Secret(name));
        job.rule = Some(rule);
        if !allowed {
            return Err(Error::secret_not_found());
        }
        note(job, name, None);
        self.0.shared.keyring.secrets.find(name)
    }

    /// Admits `GetSecretValue`: the opening of the version that is asked for.
    pub(super) fn admit_secret(&self, job: &mut Job, r: GetSecretValueRequest) -> Result<()> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::GetSecretValue)?;
        let secret = &entry.secret;
        if secret.delete_at.is_some() {
            return Err(Error::secret_not_found());
        }
        let version = secret.asked(r.version_id.as_ref(), r.version_stage.as_ref())?.clone();
        note(job, &name, Some(&version.id));
        self.open_version(job, &entry, version, r.fetch_extended_config.unwrap_or(false))
    }

    /// Makes a job the opening of a version.
    fn open_version(
        &self,
        job: &mut Job,
        entry: &SecretEntry,
        version: SecretVersion,
        fetch_extended: bool,
    ) -> Result<()> {
        let (shared, secret) = (&self.0.shared, &entry.secret);
        let blob = self.blob_of(entry, &version)?;
        let context = context_of_secret(&shared.config.instance, &secret.name, &version.id);
        let contexts = common(job, Some(context));
        // At once: a buffer that grows leaves copies of opened texts behind.
        job.sheet.reserve(1, blob.len());
        let items = Items::locate(None, std::slice::from_ref(&blob));
        job.task = Task::Open(OpenTask::new(items, contexts, Some(secret.cmk), limit::SECRET_BYTES));
        let touch = SecretTouch { name: secret.name.clone(), version: Some(version.id.clone()) };
        let opened = Some(self.opened(secret, version, fetch_extended));
        job.secret = Some(Box::new(NamedSecret { touch, opened }));
        Ok(())
    }

    /// Opens the value of a version, for whoever keeps it to itself; the use of the CMK has its own record. Blocks.
    pub(super) fn open_now(
        &self,
        call: Call,
        entry: &SecretEntry,
        version: &SecretVersion,
        deadline: Instant,
    ) -> Result<Sensitive> {
        let unopened = Task::Refused(Error::internal("no task"));
        let job = Job::new(call, Some(Operation::GetSecretValue), unopened);
        let mut job = Box::new(Job { deadline, sheet: Sheet::plain(None), ..job });
        self.open_version(&mut job, entry, version.clone(), false)?;
        let mut finished = self.perform(job)?;
        finished.result?;
        let value = finished.sheet.item(0).map(Sensitive::copied);
        finished.sheet.wipe();
        value.ok_or_else(|| Error::internal("a value was not opened"))
    }

    /// Returns what is told of a version that is opened, beside its value.
    pub(super) fn opened(
        &self,
        secret: &Secret,
        version: SecretVersion,
        fetch_extended: bool,
    ) -> OpenedSecret {
        let rotation = self.told_of_rotation(secret);
        OpenedSecret { version, secret_type: secret.secret_type, rotation, fetch_extended }
    }

    /// Returns what is told of the rotation of a secret, where it has a rotator.
    pub(super) fn told_of_rotation(&self, secret: &Secret) -> Option<RotationTold> {
        let rotation = secret.rotation.as_ref()?;
        secret.rotation_told(self.0.shared.config.rotators.get(&rotation.rotator).is_some())
    }

    /// Reads the sealed value of a version, if the CMK of the secret can open it.
    pub(super) fn blob_of(&self, entry: &SecretEntry, version: &SecretVersion) -> Result<Bin<'static>> {
        let (shared, secret) = (&self.0.shared, &entry.secret);
        let cmk =
            shared.keyring.cmk(&secret.cmk).ok_or_else(|| match shared.keyring.quarantined(&secret.cmk) {
                Some(why) => Error::new(ErrorKind::Quarantined, why),
                None => Error::new(ErrorKind::KeyNotFound, "the CMK of the secret is gone"),
            })?;
        shared.check_usable(&cmk.cmk)?;
        self.sealed_value(entry, version)
    }

    /// Reads the sealed value of a version from the store, which is not trusted: the record of the secret knows its tag.
    fn sealed_value(&self, entry: &SecretEntry, version: &SecretVersion) -> Result<Bin<'static>> {
        let shared = &self.0.shared;
        let name = &entry.secret.name;
        let damaged = |why: &str| {
            tracing::error!(secret = %name, version = %version.id, why, "the value of a secret is damaged");
            Error::new(ErrorKind::Quarantined, "the stored value of the secret failed its check")
        };
        let path = records::secret_value_path(name, version.number);
        let stored = shared.stored(&path)?;
        let Some(stored) = stored.filter(|stored| tag_of(&stored.value) == Some(version.tag)) else {
            // What goes together with its value is the record of the secret: where that is another by now, the version was deleted meanwhile.
            let now = shared.stored(&records::secret_path(name))?;
            return match now.is_some_and(|stored| stored.revision == entry.stamp.revision) {
                true => Err(damaged("the record is missing, or another")),
                false => Err(Error::secret_not_found()),
            };
        };
        let opened =
            records::open::<SecretValueRecord>(&shared.sealer, &path, Kind::SecretValue, &stored.value);
        let (record, ..) = opened.map_err(|error| damaged(&error.to_string()))?;
        match record.name == *name && record.version == version.id {
            true => Ok(record.blob),
            false => Err(damaged("the record is of another version")),
        }
    }

    pub(super) fn admit_password(&self, job: &mut Job, r: &GetRandomPasswordRequest) -> Result<()> {
        self.require(job, Operation::GetRandomPassword, Resource::Nothing)?;
        let random_password = password(&PasswordRules::of(r)?, &mut below)?.into();
        let reply = GetRandomPasswordReply { random_password, request_id: job.call.request_id };
        job.task = Task::Answered(Box::new(Reply::GetRandomPassword(reply)));
        Ok(())
    }
}

/// Has the audit name the secret, and the version where it is about one.
pub(super) fn note(job: &mut Job, name: &SecretName, version: Option<&SecretVersionId>) {
    let touch = SecretTouch { name: name.clone(), version: version.cloned() };
    job.secret = Some(Box::new(NamedSecret::of(touch)));
}

/// Draws a number below `bound`, each as likely as any other.
pub(super) fn below(bound: u32) -> Result<u32> {
    // What lies behind the last whole multiple would come too often.
    let fair = u32::MAX - u32::MAX % bound;
    loop {
        let drawn = u32::from_be_bytes(random::array()?);
        if drawn < fair {
            return Ok(drawn % bound);
        }
    }
}
