//! Secrets at the gate: found by name and by the right to them. Their values are sealed and opened where any caller's text is; the right to a
//! secret is the right to its value, and no right to its CMK is asked for beside it.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::access::{Decision, Question, Resource, Scope, decide, default_document, scope_of_secrets};
use keymill_core::audit::SecretTouch;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, RequestId, SecretName, SecretRef, SecretVersionId, VersionStage};
use keymill_core::key::{AutomaticRotation, KeySpec, KeyUsage, Tags};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::rotator::FirstValue;
use keymill_core::secret::{
    NewVersion, PasswordRules, Put, RotationTold, Secret, SecretVersion, context_of_secret, password,
};
use keymill_crypto::random;
use keymill_crypto::record::tag_of;

use super::data::common;
use super::manage::{Done, done};
use super::parameters::{describe, one_is_tagged, some, tags};
use super::plan::Plan;
use super::read::cut;
use super::{Call, Gate};
use crate::actor::keyring::{CreateCmk, MakeSecretCmk, Material, NewSecret, PutSecret, SecretChange};
use crate::actor::{Owners, Wanted};
use crate::records::{self, Kind, SecretValueRecord};
use crate::secrets::SecretEntry;
use crate::work::{Contexts, Items, Job, NamedSecret, OpenTask, OpenedSecret, Sealing, Sheet, Task};

/// What a change of a secret is answered with.
pub(super) type SecretReply = fn(&Secret, RequestId) -> Reply<'static>;

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
        job.sheet.reserve(blob.len());
        let items = Items::locate(None, std::slice::from_ref(&blob));
        job.task = Task::Open(OpenTask {
            items,
            contexts,
            required: Some(secret.cmk),
            slots: Vec::new(),
            allowed_by: None,
            denied_by: None,
            index: Vec::with_capacity(1),
            max_item_bytes: limit::SECRET_BYTES,
        });
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
    fn told_of_rotation(&self, secret: &Secret) -> Option<RotationTold> {
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
        let stored = shared.store.get(&path)?;
        let Some(stored) = stored.filter(|stored| tag_of(&stored.value) == Some(version.tag)) else {
            // What goes together with its value is the record of the secret: where that is another by now, the version was deleted meanwhile.
            let now = shared.store.get(&records::secret_path(name))?;
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

    pub(super) fn plan_new_secret(&self, job: &mut Job, r: CreateSecretRequest<'_>) -> Result<Plan> {
        let name = r.secret_name;
        self.require(job, Operation::CreateSecret, Resource::Secret(&name))?;
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

    pub(super) fn plan_secret_description(&self, job: &mut Job, r: UpdateSecretRequest) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::UpdateSecret)?;
        let description = r.description.map(describe).transpose()?;
        let custom = r.extended_config.and_then(|extended| extended.custom_data);
        if let (Some(_), Some(rotation)) = (&custom, &entry.secret.rotation) {
            self.rotator_for(job, &name, &rotation.rotator)?;
        }
        let reply: SecretReply = |secret, request_id| {
            Reply::UpdateSecret(UpdateSecretReply { secret_name: secret.name.clone(), request_id })
        };
        Ok(Plan::ChangeSecret { name, change: SecretChange::Describe { description, custom }, reply })
    }

    pub(super) fn plan_secret_policy(&self, job: &mut Job, r: SetSecretPolicyRequest) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        self.find_secret(job, &name, Operation::SetSecretPolicy)?;
        let policy = self.policy_of_secret(job, &name, &r.policy)?;
        let reply: SecretReply = |_, request_id| Reply::SetSecretPolicy(SetSecretPolicyReply { request_id });
        Ok(Plan::ChangeSecret { name, change: SecretChange::Policy(policy), reply })
    }

    pub(super) fn secret_policy(&self, job: &mut Job, r: GetSecretPolicyRequest) -> Result<Reply<'static>> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::GetSecretPolicy)?;
        let policy = match &entry.secret.policy {
            Some(policy) => policy.document().to_owned(),
            None => default_document(&self.0.shared.config.account),
        };
        Ok(Reply::GetSecretPolicy(GetSecretPolicyReply { policy, request_id: job.call.request_id }))
    }

    pub(super) fn plan_stage(&self, job: &mut Job, r: UpdateSecretVersionStageRequest) -> Result<Plan> {
        let SecretRef(name) = r.secret_name;
        self.find_secret(job, &name, Operation::UpdateSecretVersionStage)?;
        let (stage, to, from) = (r.version_stage, r.move_to_version, r.remove_from_version);
        note(job, &name, to.as_ref().or(from.as_ref()));
        let reply: SecretReply = |secret, request_id| {
            let secret_name = secret.name.clone();
            Reply::UpdateSecretVersionStage(UpdateSecretVersionStageReply { secret_name, request_id })
        };
        Ok(Plan::ChangeSecret { name, change: SecretChange::MoveStage { stage, to, from }, reply })
    }

    pub(super) fn plan_secret_end(&self, job: &mut Job, r: &DeleteSecretRequest) -> Result<Plan> {
        let SecretRef(name) = &r.secret_name;
        self.find_secret(job, name, Operation::DeleteSecret)?;
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        let name = name.clone();
        match (r.force_delete_without_recovery.unwrap_or(false), r.recovery_window_in_days) {
            (true, Some(_)) => {
                invalid("ForceDeleteWithoutRecovery and RecoveryWindowInDays exclude each other".into())
            }
            (true, None) => Ok(Plan::EndSecret { name }),
            (false, days) => {
                let days = days.unwrap_or(limit::SECRET_WINDOW_DAYS_DEFAULT);
                if !limit::SECRET_WINDOW_DAYS.contains(&days) {
                    let (least, most) = limit::SECRET_WINDOW_DAYS.into_inner();
                    return invalid(format!("RecoveryWindowInDays of {days} is not in {least} to {most}"));
                }
                let reply: SecretReply = |secret, request_id| {
                    Reply::DeleteSecret(DeleteSecretReply {
                        secret_name: secret.name.clone(),
                        planned_delete_time: secret.delete_at.unwrap_or_default(),
                        request_id,
                    })
                };
                Ok(Plan::ChangeSecret { name, change: SecretChange::Delete(days), reply })
            }
        }
    }

    pub(super) fn plan_restore(&self, job: &mut Job, r: &RestoreSecretRequest) -> Result<Plan> {
        let SecretRef(name) = &r.secret_name;
        self.find_secret(job, name, Operation::RestoreSecret)?;
        let reply: SecretReply = |secret, request_id| {
            Reply::RestoreSecret(RestoreSecretReply { secret_name: secret.name.clone(), request_id })
        };
        Ok(Plan::ChangeSecret { name: name.clone(), change: SecretChange::Restore, reply })
    }

    pub(super) fn plan_secret_tags(&self, job: &mut Job, r: TagResourceRequest) -> Result<Plan> {
        let name = self.tagged_secret(
            job,
            r.secret_name,
            r.key_id.is_some() || r.certificate_id.is_some(),
            Operation::TagResource,
        )?;
        some(r.tags.len(), limit::TAGS, "Tags")?;
        let tags = tags(r.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect())?;
        let reply: SecretReply = |_, request_id| Reply::TagResource(TagResourceReply { request_id });
        Ok(Plan::ChangeSecret { name, change: SecretChange::Tag(tags), reply })
    }

    pub(super) fn plan_secret_untagging(&self, job: &mut Job, r: UntagResourceRequest) -> Result<Plan> {
        let name = self.tagged_secret(
            job,
            r.secret_name,
            r.key_id.is_some() || r.certificate_id.is_some(),
            Operation::UntagResource,
        )?;
        some(r.tag_keys.len(), limit::TAGS, "TagKeys")?;
        let reply: SecretReply = |_, request_id| Reply::UntagResource(UntagResourceReply { request_id });
        Ok(Plan::ChangeSecret { name, change: SecretChange::Untag(r.tag_keys), reply })
    }

    fn tagged_secret(
        &self,
        job: &mut Job,
        secret: Option<SecretRef>,
        names_another: bool,
        right: Operation,
    ) -> Result<SecretName> {
        match secret {
            Some(SecretRef(name)) if !names_another => {
                self.find_secret(job, &name, right)?;
                Ok(name)
            }
            _ => Err(one_is_tagged()),
        }
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
        let protection = shared.config.protection;
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

    pub(super) fn describe_secret(&self, job: &mut Job, r: DescribeSecretRequest) -> Result<Reply<'static>> {
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::DescribeSecret)?;
        let secret = &entry.secret;
        let told = self.told_of_rotation(secret);
        let told = told.as_ref();
        Ok(Reply::DescribeSecret(DescribeSecretReply {
            arn: self.secret_arn(&name),
            secret_name: name,
            secret_type: secret.secret_type,
            description: secret.description.clone(),
            encryption_key_id: secret.cmk,
            automatic_rotation: told.map_or(AutomaticRotation::Disabled, |told| told.automatic),
            rotation_interval: told.and_then(|told| told.interval),
            next_rotation_date: told.and_then(|told| told.next_at),
            last_rotation_date: told.and_then(|told| told.last_at),
            extended_config: told.map(|told| told.extended.clone()),
            create_time: secret.created_at,
            update_time: secret.updated_at,
            planned_delete_time: secret.delete_at,
            tags: r.fetch_tags.unwrap_or(false).then(|| tag_list(&secret.tags)),
            request_id: job.call.request_id,
        }))
    }

    pub(super) fn list_secrets(&self, job: &mut Job, r: ListSecretsRequest) -> Result<Reply<'static>> {
        let page = PageRequest::new(r.page_number, r.page_size)?;
        let filters = r.filters.unwrap_or_default();
        super::filter::check_of_secrets(&filters)?;
        let (rows, total_count) = self.visible_secrets(job, &filters, page);
        let fetch_tags = r.fetch_tags.unwrap_or(false);
        let row = |entry: Arc<SecretEntry>| SecretRow {
            secret_name: entry.secret.name.clone(),
            secret_type: entry.secret.secret_type,
            create_time: entry.secret.created_at,
            update_time: entry.secret.updated_at,
            planned_delete_time: entry.secret.delete_at,
            tags: fetch_tags.then(|| tag_list(&entry.secret.tags)),
        };
        Ok(Reply::ListSecrets(ListSecretsReply {
            secret_list: SecretList { secret: rows.into_iter().map(row).collect() },
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }

    /// Finds those of the secrets that are asked for which the caller may see. There may be a million: those alone are decided about that are
    /// not like the others.
    fn visible_secrets(
        &self,
        job: &mut Job,
        filters: &[KeyFilter],
        page: PageRequest,
    ) -> (Vec<Arc<SecretEntry>>, u64) {
        // One snapshot for all, as of keys.
        let (access, principal) = (self.0.shared.access.read(), job.call.principal.clone());
        let asked = Question {
            principal: &principal,
            operation: Operation::ListSecrets,
            resource: Resource::Secrets,
            source: job.call.source,
            now: self.now(),
            spec: None,
            context: None,
        };
        job.rule = Some(decide(&access, &asked, None).rule);
        let secrets = &self.0.shared.keyring.secrets;
        let Scope { others, mut named } = scope_of_secrets(&access, &asked);
        named.extend(secrets.with_policies());
        named.retain(|name| {
            let asked = Question { resource: Resource::Secret(name), ..asked };
            decide(&access, &asked, secrets.policy(name).as_ref()).allowed != others
        });
        if others && filters.is_empty() {
            let (rows, total) = secrets.page_without(&named, page.skip(), page.size as usize);
            return (rows, total as u64);
        }
        let is_asked = |secret: &Secret| super::filter::asks_for_secret(filters, secret);
        let rows = match others {
            true => {
                let prefix = super::filter::prefix_of_secrets(filters);
                secrets.matching(prefix, |secret| is_asked(secret) && !named.contains(&secret.name))
            }
            false => {
                let known = named.iter().filter_map(|name| secrets.secret(name));
                known.filter(|entry| is_asked(&entry.secret)).collect()
            }
        };
        cut(rows, page)
    }

    pub(super) fn list_secret_versions(
        &self,
        job: &mut Job,
        r: ListSecretVersionIdsRequest,
    ) -> Result<Reply<'static>> {
        const ROWS: u32 = 20;
        let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
        let SecretRef(name) = r.secret_name;
        let entry = self.find_secret(job, &name, Operation::ListSecretVersionIds)?;
        let all = r.include_deprecated.unwrap_or(false);
        let versions = entry.secret.versions.iter().rev();
        let rows = versions.filter(|version| all || !version.stages.is_empty()).collect();
        let (rows, total_count) = cut(rows, page);
        let row = |version: &SecretVersion| SecretVersionRow {
            version_id: version.id.clone(),
            create_time: version.created_at,
            version_stages: VersionStageList { version_stage: version.stages.clone() },
        };
        Ok(Reply::ListSecretVersionIds(ListSecretVersionIdsReply {
            secret_name: name,
            version_ids: SecretVersionList { version_id: rows.into_iter().map(row).collect() },
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }

    pub(super) fn secret_arn(&self, name: &SecretName) -> String {
        let config = &self.0.shared.config;
        format!("acs:kms:{}:{}:secret/{name}", config.region, config.account)
    }
}

/// Has the audit name the secret, and the version where it is about one.
pub(super) fn note(job: &mut Job, name: &SecretName, version: Option<&SecretVersionId>) {
    let touch = SecretTouch { name: name.clone(), version: version.cloned() };
    job.secret = Some(Box::new(NamedSecret::of(touch)));
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

fn tag_list(tags: &Tags) -> SecretTagList {
    let pair = |(tag_key, tag_value): (&String, &String)| TagPair {
        tag_key: tag_key.clone(),
        tag_value: tag_value.clone(),
    };
    SecretTagList { tag: tags.iter().map(pair).collect() }
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
