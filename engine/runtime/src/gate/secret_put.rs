//! Values of secrets that are put: sealed where any caller's text is, and kept as versions; a secret is made with its first.

use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::access::Resource;
use keymill_core::audit::SecretTouch;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, RequestId, SecretName, SecretRef, SecretVersionId, VersionStage};
use keymill_core::key::{AutomaticRotation, KeySpec, KeyUsage, Tags};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::rotator::FirstValue;
use keymill_core::secret::{NewVersion, Put, Secret, context_of_secret};
use keymill_crypto::random;

use super::data::common;
use super::manage::{Done, done};
use super::parameters::{describe, tags};
use super::plan::Plan;
use super::secret::note;
use super::{Call, Gate};
use crate::actor::keyring::{CreateCmk, MakeSecretCmk, Material, NewSecret, PutSecret};
use crate::actor::{Owners, Wanted};
use crate::work::{Contexts, Items, Job, NamedSecret, Sealing, Sheet, Task};

/// A version of a secret that is to be put.
pub(super) struct WantedSecret {
    name: SecretName,
    /// What it is made of, where it is the first one.
    create: Option<NewSecret>,
    /// The CMK that is asked for; that of the secret, or of secrets that name none, if absent.
    cmk: Option<CmkId>,
    /// Put one after the other: the answer is of the last.
    versions: Vec<(NewVersion, Sensitive)>,
}

impl Gate {
    pub(super) fn plan_new_secret(&self, job: &mut Job, r: CreateSecretRequest<'_>) -> Result<Plan> {
        let name = r.secret_name;
        self.require(job, Operation::CreateSecret, Resource::Secret(&name))?;
        self.check_placed(r.dkms_instance_id.as_deref())?;
        note(job, &name, Some(&r.version_id));
        if name.as_str().starts_with("acs/") {
            let why = "SecretName: names from acs/ on are for the secrets of other services";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        let secret_type = r.secret_type.unwrap_or_default();
        secret_type.check()?;
        let value = r.secret_data.into_value()?;
        let extended = r.extended_config.as_deref();
        let (enable, interval) = (r.enable_automatic_rotation, r.rotation_interval);
        let rotation = self.rotation_of_new(secret_type, extended, enable, interval)?;
        let description = describe(r.description.unwrap_or_default())?;
        let pairs = r.tags.unwrap_or_default().into_iter().map(|tag| (tag.tag_key, tag.tag_value));
        let tags: Tags = tags(pairs.collect())?.into_iter().collect();
        let cmk = match r.encryption_key_id {
            None => None,
            Some(key) => {
                let right = job.rule.take();
                let context = context_of_secret(&self.0.shared.config.instance, &name, &r.version_id);
                let entry = self.find_key_under(job, &key, Operation::Encrypt, &Contexts::Common(context))?;
                job.rule = right;
                self.sealing_under(entry.clone())?;
                Some(entry.cmk.id)
            }
        };
        match self.0.shared.keyring.secrets.find(&name) {
            Ok(there) => {
                there.secret.check_alive()?;
                return Err(Error::new(ErrorKind::ResourceExists, "the name of the secret is taken"));
            }
            Err(error) if error.kind() == ErrorKind::ResourceNotFound => {}
            Err(error) => return Err(error),
        }
        let policy = match &r.policy {
            None => None,
            Some(document) => {
                let right = job.rule.take();
                self.require(job, Operation::SetSecretPolicy, Resource::Secret(&name))?;
                job.rule = right;
                Some(self.policy_of_secret(job, &name, document)?)
            }
        };
        let creator = (*job.call.principal.access_key).clone();
        let data_type = r.secret_data_type.unwrap_or_default();
        let first = match &rotation {
            None => FirstValue { current: value, previous: None },
            Some(rotation) => {
                let rotator = self.rotator_for(job, &name, &rotation.rotator)?;
                rotator.admit(&rotation.settings, &value)?
            }
        };
        let mut versions = Vec::with_capacity(2);
        if let Some(value) = first.previous {
            let id = SecretVersionId::from_random(random::array()?);
            let version = self.new_version(&name, id, data_type, &value);
            versions.push((NewVersion { stages: vec![VersionStage::previous()], ..version }, value));
        }
        versions.push((self.new_version(&name, r.version_id, data_type, &first.current), first.current));
        let create = Some(NewSecret { secret_type, rotation, description, tags, policy, creator });
        Ok(Plan::PutSecret(Box::new(WantedSecret { name, create, cmk, versions })))
    }

    pub(super) fn plan_value(&self, job: &mut Job, r: PutSecretValueRequest<'_>) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::PutSecretValue)?;
        note(job, &name, Some(&r.version_id));
        entry.secret.secret_type.check_put()?;
        // What is put is what a rotation goes on from: that takes what making such a secret takes.
        let rotator = entry.secret.rotation.as_ref().map(|rotation| &rotation.rotator);
        if let Some(rotator) = rotator.filter(|name| self.0.shared.config.rotators.get(name).is_some()) {
            self.rotator_for(job, &name, rotator)?;
        }
        let value = r.secret_data.into_value()?;
        let data_type = r.secret_data_type.unwrap_or_default();
        let mut version = self.new_version(&name, r.version_id, data_type, &value);
        version.stages = r.version_stages.unwrap_or_default();
        // Before anything is sealed for it; the keyring asks again.
        entry.secret.clone().put(version.clone(), self.now())?;
        let cmk = Some(entry.secret.cmk);
        Ok(Plan::PutSecret(Box::new(WantedSecret {
            name,
            create: None,
            cmk,
            versions: vec![(version, value)],
        })))
    }

    pub(super) fn new_version(
        &self,
        name: &SecretName,
        id: SecretVersionId,
        data_type: SecretDataType,
        value: &Sensitive,
    ) -> NewVersion {
        let mark = self.0.shared.fingerprints.of_secret(name, &id, value);
        NewVersion { id, data_type, stages: Vec::new(), mark }
    }

    /// Seals a value and keeps it as a version; a secret with it, where that is new.
    pub(super) async fn put_secret(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        WantedSecret { name, create, cmk, versions }: WantedSecret,
        deadline: Instant,
    ) -> Result<Done> {
        let request_id = call.request_id;
        if create.is_none()
            && let [(version, _)] = &versions[..]
            && let Some(entry) = self.0.shared.keyring.secrets.secret(&name)
            && entry.secret.clone().put(version.clone(), self.now())? == Put::Same
        {
            return Ok((put_reply(&entry.secret, &version.id, request_id), Vec::new(), Vec::new()));
        }
        let cmk = match cmk {
            Some(cmk) => cmk,
            None => self.secret_cmk(call, deadline).await?,
        };
        let is_new = create.is_some();
        let last = versions.last().map(|(version, _)| version.id.clone());
        let id = last.ok_or_else(|| Error::internal("no version is to be put"))?;
        let mut sealed = Vec::with_capacity(versions.len());
        for (version, value) in versions {
            let blob = self.seal_value(call, cmk, (&name, &version.id), value, deadline).await?;
            sealed.push((version, blob));
        }
        let changed = actors.keyring(PutSecret { name, create, cmk, versions: sealed }).await?;
        let secret = &changed.value.secret;
        let reply = match is_new {
            true => {
                let told = self.told_of_rotation(secret);
                let told = told.as_ref();
                Reply::CreateSecret(CreateSecretReply {
                    secret_name: secret.name.clone(),
                    arn: self.secret_arn(&secret.name),
                    version_id: id,
                    secret_type: secret.secret_type,
                    automatic_rotation: told.map_or(AutomaticRotation::Disabled, |told| told.automatic),
                    rotation_interval: told.and_then(|told| told.interval),
                    next_rotation_date: told.and_then(|told| told.next_at),
                    extended_config: told.map(|told| told.extended.clone()),
                    dkms_instance_id: self.own_instance().cloned(),
                    request_id,
                })
            }
            false => put_reply(secret, &id, request_id),
        };
        Ok(done(reply, changed))
    }

    /// Returns the CMK of secrets that name none, made with the first of them: where and as CMKs are made that say nothing of it.
    async fn secret_cmk(&self, call: &Call, deadline: Instant) -> Result<CmkId> {
        let shared = &self.0.shared;
        if let Some(entry) = shared.keyring.secrets.cmk().and_then(|id| shared.keyring.cmk(&id)) {
            return Ok(entry.cmk.id);
        }
        let (spec, usage) = (KeySpec::Aes256, KeyUsage::EncryptDecrypt);
        let protection = shared.protection();
        let bulk_mode = self.bulk_mode(spec, protection, None)?;
        let fallback = self.fallback(protection, bulk_mode, None)?;
        self.check_offered(spec, usage, protection, bulk_mode)?;
        let wanted = Wanted { spec, usage, protection, bulk_mode, fallback, stays: false };
        let made = self.generate(call, wanted, None, deadline).await?;
        let create = CreateCmk {
            material: Material::Made(Box::new(made)),
            protection,
            fallback,
            description: "of secrets that name no CMK".into(),
            creator: (*call.principal.access_key).clone(),
            rotation: None,
            tags: Tags::new(),
            policy: None,
        };
        // It has a record of its own, whatever becomes of the secret.
        self.0.actors.keyring(MakeSecretCmk(create)).await
    }

    /// Has a value sealed where any plaintext is; the use of the CMK has its own record.
    async fn seal_value(
        &self,
        call: &Call,
        cmk: CmkId,
        (name, version): (&SecretName, &SecretVersionId),
        value: Sensitive,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let (gate, call, name, version) = (self.clone(), call.clone(), name.clone(), version.clone());
        // A desk waits for its token on the thread that it is on.
        let sealed = tokio::task::spawn_blocking(move || {
            gate.seal_now(&call, cmk, (&name, &version), value, deadline)
        });
        sealed.await.map_err(|_| Error::internal("the sealing of a value was cut off"))?
    }

    /// The same, on the thread that calls. Blocks.
    pub(super) fn seal_now(
        &self,
        call: &Call,
        cmk: CmkId,
        (name, version): (&SecretName, &SecretVersionId),
        value: Sensitive,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let shared = &self.0.shared;
        let gone = || Error::new(ErrorKind::KeyNotFound, "the CMK of the secret is gone");
        let to = self.sealing_under(shared.keyring.cmk(&cmk).ok_or_else(gone)?)?;
        let mut job =
            Job::new(call.clone(), Some(Operation::Encrypt), Task::Refused(Error::internal("no task")));
        let context = context_of_secret(&shared.config.instance, name, version);
        let contexts: Contexts = common(&mut job, Some(context));
        let items = Items::locate(None, &[Bin::from(value.expose())]);
        let what = Sealing::Plaintexts { items, max_item_bytes: limit::SECRET_BYTES, is_text: false };
        let touch = SecretTouch { name: name.clone(), version: Some(version.clone()) };
        let job = Job {
            deadline,
            sheet: Sheet::plain(None),
            secret: Some(Box::new(NamedSecret::of(touch))),
            task: Task::Seal { to, contexts, what, done: 0 },
            ..job
        };
        let finished = self.perform(Box::new(job))?;
        finished.result?;
        let sealed = finished.sheet.item(0).ok_or_else(|| Error::internal("a value was not sealed"))?;
        Ok(sealed.to_vec())
    }
}

fn put_reply(secret: &Secret, id: &SecretVersionId, request_id: RequestId) -> Reply<'static> {
    let stages = secret.version(id).map(|version| version.stages.clone()).unwrap_or_default();
    Reply::PutSecretValue(PutSecretValueReply {
        secret_name: secret.name.clone(),
        version_id: id.clone(),
        version_stages: VersionStageList { version_stage: stages },
        request_id,
    })
}
