//! Management operations: one message to the owning actor, recorded durably, then answered. They run to their end whatever
//! becomes of the caller, so that nothing is changed without a record.

use actix::{Addr, Handler, Message};
use keymill_core::access::{Grant, Resource, Role};
use keymill_core::audit::{KeyTouch, Outcome, RecordStamp};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{AccessKeyId, AliasName, CmkId, KeyRef, RequestId};
use keymill_core::key::{
    BulkMode, Cmk, Fallback, KeyChange, KeySpec, Origin, ProtectionLevel, RotationInterval, Tags,
};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::provider::{Adopt, ProviderError};

use super::parameters::{
    bounded, describe, keys_only, name, named, offered, rotation, some, stays, tagged, tags,
};
use super::read::{id_only, used};
use super::{Call, Gate};
use crate::actor::keyring::{
    ChangeDescription, ChangeState, CreateCmk, DeleteAlias as RemoveAlias, KeepKeys, Keeping, PutAlias,
    Rotate,
};
use crate::actor::policy::{AddAccessKey, ChangeAccessKey, RemoveAccessKey, fresh_access_key};
use crate::actor::{Changed, CustodyJob, Drain, Enable, Made, TokenActor, Wanted};
use crate::audit::{AuditMessage, ManagementRecord};
use crate::work::Job;

/// A management operation that was authorised and is yet to be done.
pub struct Managed {
    call: Call,
    operation: Operation,
    rule: std::borrow::Cow<'static, str>,
    deadline: std::time::Instant,
    plan: Plan,
    /// What the frontend gave with the request.
    pub ticket: u64,
    /// The sheet that the frontend gave with the request.
    pub sheet: crate::work::Sheet,
}

/// What is to be done.
pub(super) enum Plan {
    CreateKey {
        description: String,
        wanted: Wanted,
        rotation: Option<RotationInterval>,
        tags: Tags,
    },
    /// From the token at this place in the pool.
    AdoptKey {
        description: String,
        wanted: Adopt,
        token: usize,
    },
    ChangeState {
        id: CmkId,
        change: KeyChange,
        window_days: Option<u32>,
    },
    Describe {
        id: CmkId,
        description: String,
    },
    Rotate {
        id: CmkId,
    },
    Keep {
        ids: Vec<CmkId>,
        change: Keeping,
        /// Made once it is done.
        reply: fn(RequestId) -> Reply<'static>,
    },
    PutAlias {
        name: AliasName,
        to: CmkId,
        create: bool,
    },
    RemoveAlias {
        name: AliasName,
    },
    AddAccessKey {
        description: String,
        grants: Vec<Grant>,
    },
    ChangeAccessKey(UpdateAccessKeyRequest),
    RemoveAccessKey(AccessKeyId),
    /// By its place in the pool.
    DrainToken(usize),
    EnableToken(usize),
}

type Done = (Reply<'static>, Vec<KeyTouch>, Vec<RecordStamp>);

impl Managed {
    pub(super) fn new(job: Job, plan: Plan) -> Self {
        Self {
            rule: job.rule.map_or("none".into(), |rule| rule.to_text()),
            operation: job.operation.expect("a plan is made for an operation of ours"),
            deadline: job.deadline,
            call: job.call,
            ticket: job.ticket,
            sheet: job.sheet,
            plan,
        }
    }

    /// Returns the request.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Returns the operation.
    pub fn operation(&self) -> Operation {
        self.operation
    }
}

impl Gate {
    /// Authorises a management operation and checks its parameters.
    pub(super) fn plan(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        match request {
            Request::CreateKey(r) => {
                self.require(job, Operation::CreateKey, Resource::Keys)?;
                let spec = r.key_spec.unwrap_or(KeySpec::Aes256);
                let bulk_mode = self.bulk_mode(r.protection_level, r.bulk_mode)?;
                let fallback = self.fallback(bulk_mode, r.fallback)?;
                let usage = r.key_usage.unwrap_or_default();
                offered(spec, usage, bulk_mode)?;
                let stays = stays(bulk_mode, fallback, r.key_storage_mechanism)?;
                if let Some(mode) = bulk_mode {
                    self.0.shared.pool.check(spec, mode)?;
                }
                if r.origin == Some(Origin::Adopted) {
                    let why = "Origin ADOPTED is of keys that AdoptKey takes over";
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                let description = describe(r.description.unwrap_or_default())?;
                let rotation = rotation(r.enable_automatic_rotation, r.rotation_interval)?;
                let pairs = r.tags.unwrap_or_default().into_iter().map(|tag| (tag.tag_key, tag.tag_value));
                let tags = tags(pairs.collect())?.into_iter().collect();
                Ok(Plan::CreateKey {
                    description,
                    rotation,
                    tags,
                    wanted: Wanted { spec, usage, bulk_mode, fallback, stays },
                })
            }
            Request::AdoptKey(r) => {
                self.require(job, Operation::AdoptKey, Resource::Keys)?;
                let (spec, usage) = (r.key_spec.unwrap_or(KeySpec::Aes256), r.key_usage.unwrap_or_default());
                let bulk_mode = Some(r.bulk_mode.unwrap_or(BulkMode::InHsm));
                offered(spec, usage, bulk_mode)?;
                let token = self.token_of_adoption(r.token_name.as_deref())?;
                let (label, id) = named(r.object_label, r.object_id.as_deref())?;
                let description = describe(r.description.unwrap_or_default())?;
                let wanted = Adopt { spec, usage, bulk_mode, label, id };
                Ok(Plan::AdoptKey { description, wanted, token })
            }
            Request::EnableKey(r) => {
                self.plan_change(job, &r.key_id, Operation::EnableKey, KeyChange::Enable)
            }
            Request::DisableKey(r) => {
                self.plan_change(job, &r.key_id, Operation::DisableKey, KeyChange::Disable)
            }
            Request::CancelKeyDeletion(r) => {
                self.plan_change(job, &r.key_id, Operation::CancelKeyDeletion, KeyChange::CancelDeletion)
            }
            Request::ScheduleKeyDeletion(r) => {
                let days = r.pending_window_in_days;
                let id = self.find_key(job, id_only(&r.key_id)?, Operation::ScheduleKeyDeletion)?.cmk.id;
                if !limit::DELETION_WINDOW_DAYS.contains(&days) {
                    return Err(Error::new(
                        ErrorKind::InvalidParameter,
                        format!(
                            "PendingWindowInDays of {days} is not in {} to {}",
                            limit::DELETION_WINDOW_DAYS.start(),
                            limit::DELETION_WINDOW_DAYS.end()
                        ),
                    ));
                }
                Ok(Plan::ChangeState { id, change: KeyChange::ScheduleDeletion, window_days: Some(days) })
            }
            Request::UpdateKeyDescription(r) => {
                let id = self.find_key(job, id_only(&r.key_id)?, Operation::UpdateKeyDescription)?.cmk.id;
                Ok(Plan::Describe { id, description: describe(r.description)? })
            }
            Request::RotateKey(r) => {
                let entry = self.find_key(job, id_only(&r.key_id)?, Operation::RotateKey)?;
                entry.cmk.state.check_usable()?;
                Ok(Plan::Rotate { id: entry.cmk.id })
            }
            Request::UpdateRotationPolicy(r) => {
                let id = self.find_key(job, id_only(&r.key_id)?, Operation::UpdateRotationPolicy)?.cmk.id;
                let interval = rotation(
                    Some(r.enable_automatic_rotation),
                    r.rotation_interval.filter(|_| r.enable_automatic_rotation),
                )?;
                let reply =
                    |request_id| Reply::UpdateRotationPolicy(UpdateRotationPolicyReply { request_id });
                Ok(Plan::Keep { ids: vec![id], change: Keeping::Rotate(interval), reply })
            }
            Request::SetDeletionProtection(r) => {
                let key = match (r.protected_resource_arn, r.key_id, r.kms_instance_id) {
                    (Some(key), None, None) | (None, Some(key), None) => key,
                    (None, None, Some(_)) => {
                        return Err(Error::new(ErrorKind::Unsupported, "this server has no instances yet"));
                    }
                    (None, None, None) => {
                        let why = "ProtectedResourceArn: the parameter is missing";
                        return Err(Error::new(ErrorKind::MissingParameter, why));
                    }
                    _ => {
                        let why =
                            "one of ProtectedResourceArn, KeyId and KmsInstanceId names what is protected";
                        return Err(Error::new(ErrorKind::InvalidParameter, why));
                    }
                };
                let id = self.find_key(job, id_only(&key)?, Operation::SetDeletionProtection)?.cmk.id;
                let why = describe(r.deletion_protection_description.unwrap_or_default())?;
                let change = Keeping::Protect(r.enable_deletion_protection.then_some(why));
                let reply =
                    |request_id| Reply::SetDeletionProtection(SetDeletionProtectionReply { request_id });
                Ok(Plan::Keep { ids: vec![id], change, reply })
            }
            Request::TagResource(r) => {
                let key = tagged(r.key_id, r.secret_name.as_ref(), r.certificate_id.as_ref())?;
                let ids = self.tagged_keys(job, &[key], Operation::TagResource)?;
                some(r.tags.len(), limit::TAGS, "Tags")?;
                let pairs = r.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect();
                let reply = |request_id| Reply::TagResource(TagResourceReply { request_id });
                Ok(Plan::Keep { ids, change: Keeping::Tag(tags(pairs)?), reply })
            }
            Request::UntagResource(r) => {
                let key = tagged(r.key_id, r.secret_name.as_ref(), r.certificate_id.as_ref())?;
                let ids = self.tagged_keys(job, &[key], Operation::UntagResource)?;
                some(r.tag_keys.len(), limit::TAGS, "TagKeys")?;
                let reply = |request_id| Reply::UntagResource(UntagResourceReply { request_id });
                Ok(Plan::Keep { ids, change: Keeping::Untag(r.tag_keys), reply })
            }
            Request::TagResources(r) => {
                keys_only(r.resource_type)?;
                let ids = self.tagged_keys(job, &r.resource_id, Operation::TagResources)?;
                some(r.tag.len(), limit::TAGS, "Tag")?;
                let pairs = r.tag.into_iter().map(|tag| (tag.key, tag.value)).collect();
                let reply = |request_id| Reply::TagResources(TagResourcesReply { request_id });
                Ok(Plan::Keep { ids, change: Keeping::Tag(tags(pairs)?), reply })
            }
            Request::UntagResources(r) => {
                keys_only(r.resource_type)?;
                let ids = self.tagged_keys(job, &r.resource_id, Operation::UntagResources)?;
                let names = r.tag_key.unwrap_or_default();
                bounded(names.len(), limit::TAGS, "TagKey")?;
                let change = match (r.all.unwrap_or(false), names.is_empty()) {
                    (_, false) => Keeping::Untag(names),
                    (true, true) => Keeping::UntagAll,
                    (false, true) => {
                        return Err(Error::new(ErrorKind::MissingParameter, "TagKey or All is needed"));
                    }
                };
                let reply = |request_id| Reply::UntagResources(UntagResourcesReply { request_id });
                Ok(Plan::Keep { ids, change, reply })
            }
            Request::CreateAlias(r) => {
                let to = self.find_key(job, id_only(&r.key_id)?, Operation::CreateAlias)?.cmk.id;
                Ok(Plan::PutAlias { name: r.alias_name, to, create: true })
            }
            Request::UpdateAlias(r) => {
                // The right to the key that the alias leaves is needed, too.
                let name = KeyRef::Alias(r.alias_name.clone());
                self.find_key(job, &name, Operation::UpdateAlias)?;
                let to = self.find_key(job, id_only(&r.key_id)?, Operation::UpdateAlias)?.cmk.id;
                Ok(Plan::PutAlias { name: r.alias_name, to, create: false })
            }
            Request::DeleteAlias(r) => {
                let name = KeyRef::Alias(r.alias_name.clone());
                self.find_key(job, &name, Operation::DeleteAlias)?;
                Ok(Plan::RemoveAlias { name: r.alias_name })
            }
            Request::CreateAccessKey(r) => {
                self.require(job, Operation::CreateAccessKey, Resource::AccessKeys)?;
                self.check_grants(job, &r.grants)?;
                let description = name(r.description.unwrap_or_default())?;
                Ok(Plan::AddAccessKey { description, grants: r.grants })
            }
            Request::UpdateAccessKey(r) => {
                self.require(job, Operation::UpdateAccessKey, Resource::AccessKeys)?;
                self.check_target(job, &r.access_key_id)?;
                if let Some(grants) = &r.grants {
                    self.check_grants(job, grants)?;
                }
                let description = r.description.map(name).transpose()?;
                Ok(Plan::ChangeAccessKey(UpdateAccessKeyRequest { description, ..r }))
            }
            Request::DeleteAccessKey(r) => {
                self.require(job, Operation::DeleteAccessKey, Resource::AccessKeys)?;
                self.check_target(job, &r.access_key_id)?;
                Ok(Plan::RemoveAccessKey(r.access_key_id))
            }
            Request::DrainToken(r) => {
                self.require(job, Operation::DrainToken, Resource::Nothing)?;
                self.find_token(&r.token_name).map(Plan::DrainToken)
            }
            Request::EnableToken(r) => {
                self.require(job, Operation::EnableToken, Resource::Nothing)?;
                self.find_token(&r.token_name).map(Plan::EnableToken)
            }
            other => Err(Error::internal(format!("{} changes nothing", other.operation().name()))),
        }
    }

    /// Finds keys that tags are put on or taken off, each once.
    fn tagged_keys(&self, job: &mut Job, keys: &[KeyRef], right: Operation) -> Result<Vec<CmkId>> {
        some(keys.len(), limit::TAGGED_KEYS, "ResourceId")?;
        let mut ids = Vec::with_capacity(keys.len());
        for key in keys {
            let id = self.find_key(job, id_only(key)?, right)?.cmk.id;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Returns the place of the token that a key is taken over from.
    fn token_of_adoption(&self, name: Option<&str>) -> Result<usize> {
        match (name, self.0.shared.pool.tokens.len()) {
            (_, 0) => {
                let why = "no crypto pool of this installation has a hardware security module";
                Err(Error::new(ErrorKind::Unsupported, why))
            }
            (Some(name), _) => self.find_token(name),
            (None, 1) => Ok(0),
            (None, tokens) => {
                let why = format!("the pool has {tokens} tokens: TokenName says which one");
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }

    fn find_token(&self, name: &str) -> Result<usize> {
        let found = self.0.shared.pool.tokens.iter().position(|token| token.config.name == name);
        found
            .ok_or_else(|| Error::new(ErrorKind::InvalidParameter, "no token of the pool has this TokenName"))
    }

    /// Returns the bulk mode of a key to be made in a token; `None` for one of software.
    fn bulk_mode(
        &self,
        protection: Option<ProtectionLevel>,
        mode: Option<BulkMode>,
    ) -> Result<Option<BulkMode>> {
        let config = &self.0.shared.config;
        match (protection.unwrap_or(config.protection), mode) {
            (ProtectionLevel::Hsm, mode) => Ok(Some(mode.unwrap_or(config.bulk_mode))),
            (ProtectionLevel::Software, None) => Ok(None),
            (ProtectionLevel::Software, Some(_)) => {
                Err(Error::new(ErrorKind::InvalidParameter, "BulkMode is for keys of ProtectionLevel HSM"))
            }
        }
    }

    /// Returns when a key to be made may fall back to software: only where it is asked for, and at most when the pool does.
    fn fallback(&self, bulk_mode: Option<BulkMode>, asked: Option<Fallback>) -> Result<Fallback> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        let allowed = self.0.shared.config.pool.fallback;
        match (bulk_mode, asked) {
            (_, None) => Ok(Fallback::Never),
            (None, Some(_)) => invalid("Fallback is for keys of ProtectionLevel HSM".into()),
            (Some(_), Some(fallback)) if fallback > allowed => invalid(format!(
                "Fallback of {} is more than the pool allows, which is {}",
                fallback.name(),
                allowed.name()
            )),
            (Some(_), Some(fallback)) => Ok(fallback),
        }
    }

    fn plan_change(
        &self,
        job: &mut Job,
        key: &KeyRef,
        operation: Operation,
        change: KeyChange,
    ) -> Result<Plan> {
        let id = self.find_key(job, id_only(key)?, operation)?.cmk.id;
        Ok(Plan::ChangeState { id, change, window_days: None })
    }

    /// Checks that nobody gives out more than it has: only who is `Root` makes or changes what is `Root`.
    fn check_grants(&self, job: &Job, grants: &[Grant]) -> Result<()> {
        let most = grants.iter().map(|grant| grant.resources.len()).max().unwrap_or(0);
        if grants.len() > limit::GRANTS || most > limit::GRANT_RESOURCES {
            return Err(Error::new(
                ErrorKind::LimitExceeded(Limit::Grants),
                format!(
                    "{} grants of up to {most} resources exceed the limit of {} of {}",
                    grants.len(),
                    limit::GRANTS,
                    limit::GRANT_RESOURCES
                ),
            ));
        }
        if grants.iter().any(|grant| grant.role == Role::Root)
            && !self.is_root(&job.call.principal.access_key)
        {
            return Err(Error::new(ErrorKind::Denied, "only Root can grant Root"));
        }
        Ok(())
    }

    fn check_target(&self, job: &Job, target: &AccessKeyId) -> Result<()> {
        if self.is_root(target) && !self.is_root(&job.call.principal.access_key) {
            return Err(Error::new(ErrorKind::Denied, "only Root can change an access key that has Root"));
        }
        Ok(())
    }

    fn is_root(&self, id: &AccessKeyId) -> bool {
        let access = self.0.shared.access.read();
        access.access_keys.get(id).is_some_and(|key| key.grants.iter().any(|grant| grant.role == Role::Root))
    }

    /// Does a management operation and returns its answer; it is done and recorded even where the caller stops waiting.
    pub async fn manage(&self, managed: Managed) -> Result<Reply<'static>> {
        let (sender, answer) = tokio::sync::oneshot::channel();
        let gate = self.clone();
        let deadline = managed.deadline;
        let spawned = self.0.actors.control.spawn(async move {
            let answer = gate.manage_to_the_end(managed).await;
            let _gone = sender.send(answer);
        });
        if !spawned {
            return Err(Error::new(ErrorKind::Unavailable, "the engine is shutting down"));
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(Error::new(ErrorKind::Unavailable, "the engine is shutting down")),
            Err(_late) => Err(Error::new(
                ErrorKind::Deadline,
                "not done within the time allowed; the change may still be made",
            )),
        }
    }

    async fn manage_to_the_end(&self, managed: Managed) -> Result<Reply<'static>> {
        let Managed { call, operation, rule, plan, deadline, .. } = managed;
        let received = call.received;
        self.0.shared.metrics.in_flight.inc();
        let outcome = self.carry_out(&call, plan, deadline).await;
        let (answer, keys, writes) = match outcome {
            Ok((reply, keys, writes)) => (Ok(reply), keys, writes),
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::StateConflict | ErrorKind::AliasExists) {
                    tracing::info!(operation = operation.name(), request = %call.request_id, ?error, "refused");
                }
                (Err(error), Vec::new(), Vec::new())
            }
        };
        let record = ManagementRecord {
            request: call.request_id,
            principal: Some(call.principal.access_key.clone()),
            source: call.source,
            frontend: call.frontend,
            operation: operation.name(),
            outcome: answer.as_ref().map_or_else(|error| Outcome::Failed(error.kind()), |_| Outcome::Done),
            rule,
            keys,
            micros: received.elapsed().as_micros() as u64,
            writes,
        };
        let recorded = self.record(record).await;
        let answer = answer.and_then(|reply| recorded.map(|()| reply));
        self.0.shared.metrics.in_flight.dec();
        self.0.shared.metrics.answered(Some(operation), answer.as_ref().err().map(Error::kind), received);
        answer
    }

    /// Has a management record written and made durable.
    pub(crate) async fn record(&self, record: ManagementRecord) -> Result<()> {
        if !self.0.shared.audit.enabled {
            return Ok(());
        }
        let unavailable = || Error::new(ErrorKind::AuditUnavailable, "the audit log is closed");
        let (sender, recorded) = tokio::sync::oneshot::channel();
        let message = AuditMessage::Durable(Box::new(record), sender);
        self.0.actors.audit.send_async(message).await.map_err(|_| unavailable())?;
        recorded.await.map_err(|_| unavailable())?
    }

    async fn carry_out(&self, call: &Call, plan: Plan, deadline: std::time::Instant) -> Result<Done> {
        let actors = &self.0.actors;
        let request_id = call.request_id;
        match plan {
            Plan::CreateKey { description, wanted, rotation, tags } => {
                let made = self.generate(call, wanted, None, deadline).await?;
                let creator = (*call.principal.access_key).clone();
                let protection = match wanted.bulk_mode {
                    Some(_) => ProtectionLevel::Hsm,
                    None => ProtectionLevel::Software,
                };
                let fallback = wanted.fallback;
                let create = CreateCmk { made, protection, fallback, description, creator, rotation, tags };
                let changed = actors.keyring(create).await?;
                let key_metadata = self.metadata(&changed.value);
                Ok(done(Reply::CreateKey(CreateKeyReply { key_metadata, request_id }), changed))
            }
            Plan::AdoptKey { description, wanted, token } => {
                let principal = call.principal.access_key.clone();
                let (job, adopted) = CustodyJob::adopt(wanted, token, deadline, principal.clone());
                let lane = &self.0.shared.pool.control;
                lane.submit(&principal, Some(token), job).map_err(|(error, _)| error)?;
                let made = adopted.await.map_err(|_| shut_down())?.map_err(told)?;
                let creator = (*principal).clone();
                let (protection, fallback) = (ProtectionLevel::Hsm, Fallback::Never);
                let (rotation, tags) = (None, Tags::new());
                let create = CreateCmk { made, protection, fallback, description, creator, rotation, tags };
                let changed = actors.keyring(create).await?;
                let key_metadata = self.metadata(&changed.value);
                Ok(done(Reply::AdoptKey(AdoptKeyReply { key_metadata, request_id }), changed))
            }
            Plan::ChangeState { id, change, window_days } => {
                let changed = actors.keyring(ChangeState { id, change, window_days }).await?;
                let metadata = self.metadata(&changed.value);
                let reply = match change {
                    KeyChange::Enable => Reply::EnableKey(EnableKeyReply { request_id }),
                    KeyChange::Disable => Reply::DisableKey(DisableKeyReply { request_id }),
                    KeyChange::CancelDeletion => {
                        Reply::CancelKeyDeletion(CancelKeyDeletionReply { request_id })
                    }
                    KeyChange::ScheduleDeletion => Reply::ScheduleKeyDeletion(ScheduleKeyDeletionReply {
                        delete_date: changed.value.cmk.delete_at.unwrap_or_default(),
                        last_used_date: metadata.last_used_date.and_then(|at| used(at.as_ms())),
                        use_count: metadata.use_count,
                        request_id,
                    }),
                };
                Ok(done(reply, changed))
            }
            Plan::Describe { id, description } => {
                let changed = actors.keyring(ChangeDescription { id, description }).await?;
                let reply = Reply::UpdateKeyDescription(UpdateKeyDescriptionReply { request_id });
                Ok(done(reply, changed))
            }
            Plan::Rotate { id } => {
                let entry = self.0.shared.keyring.cmk(&id).ok_or_else(Error::key_not_found)?;
                let Cmk { spec, usage, bulk_mode, fallback, .. } = entry.cmk;
                let stays = entry.cmk.token_serial.is_some();
                let berth = self.0.shared.pool.berth(&entry.cmk)?;
                let wanted = Wanted { spec, usage, bulk_mode, fallback, stays };
                let made = self.generate(call, wanted, berth, deadline).await?;
                let changed = actors.keyring(Rotate { id, made }).await?;
                let key_version_id = changed.value.primary().id;
                Ok(done(Reply::RotateKey(RotateKeyReply { key_version_id, request_id }), changed))
            }
            Plan::Keep { ids, change, reply } => {
                let changed = actors.keyring(KeepKeys { ids, change }).await?;
                Ok(done(reply(request_id), changed))
            }
            Plan::PutAlias { name, to, create } => {
                let changed = actors.keyring(PutAlias { name, to, create }).await?;
                let reply = match create {
                    true => Reply::CreateAlias(CreateAliasReply { request_id }),
                    false => Reply::UpdateAlias(UpdateAliasReply { request_id }),
                };
                Ok(done(reply, changed))
            }
            Plan::RemoveAlias { name } => {
                let changed = actors.keyring(RemoveAlias { name }).await?;
                Ok(done(Reply::DeleteAlias(DeleteAliasReply { request_id }), changed))
            }
            Plan::AddAccessKey { description, grants } => {
                let key = fresh_access_key(description, grants, self.0.shared.clock.now())?;
                let reply = CreateAccessKeyReply {
                    access_key_id: key.id.clone(),
                    access_key_secret: String::from_utf8_lossy(key.secret.expose()).into_owned(),
                    request_id,
                };
                let changed = actors.policy(AddAccessKey(key)).await?;
                Ok((Reply::CreateAccessKey(reply), Vec::new(), changed.writes))
            }
            Plan::ChangeAccessKey(r) => {
                let change = ChangeAccessKey {
                    id: r.access_key_id,
                    status: r.status,
                    grants: r.grants,
                    description: r.description,
                };
                let changed = actors.policy(change).await?;
                Ok((Reply::UpdateAccessKey(UpdateAccessKeyReply { request_id }), Vec::new(), changed.writes))
            }
            Plan::DrainToken(at) => {
                ask_token(&actors.tokens[at], Drain).await?;
                Ok((Reply::DrainToken(DrainTokenReply { request_id }), Vec::new(), Vec::new()))
            }
            Plan::EnableToken(at) => {
                ask_token(&actors.tokens[at], Enable).await?;
                Ok((Reply::EnableToken(EnableTokenReply { request_id }), Vec::new(), Vec::new()))
            }
            Plan::RemoveAccessKey(id) => {
                let changed = actors.policy(RemoveAccessKey { id }).await?;
                Ok((Reply::DeleteAccessKey(DeleteAccessKeyReply { request_id }), Vec::new(), changed.writes))
            }
        }
    }

    /// Has key material generated: in a token where the key has a bulk mode, the one at `berth` where it must be that; else in the
    /// software lane.
    async fn generate(
        &self,
        call: &Call,
        wanted: Wanted,
        berth: Option<usize>,
        deadline: std::time::Instant,
    ) -> Result<Made> {
        let principal = call.principal.access_key.clone();
        let (job, made) = CustodyJob::make(&self.0.shared, wanted, berth, deadline, principal.clone())?;
        let lane = match wanted.bulk_mode {
            Some(_) => &self.0.shared.pool.control,
            None => &*self.0.actors.lane,
        };
        lane.submit(&principal, berth, job).map_err(|(error, _)| error)?;
        made.await.map_err(|_| shut_down())?
    }
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the crypto pool is shut down")
}

/// Tells an operator what is wrong with the key that was to be taken over: the provider's words hold names and attributes alone.
fn told(error: Error) -> Error {
    use std::error::Error as _;
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(ProviderError::Rejected(why)) => Error::new(ErrorKind::InvalidParameter, why.clone()),
        _ => error,
    }
}

async fn ask_token<M>(token: &Addr<TokenActor>, message: M) -> Result<()>
where
    M: Message<Result = ()> + Send + 'static,
    TokenActor: Handler<M>,
{
    let gone = |_| Error::new(ErrorKind::Unavailable, "the engine is shutting down");
    token.send(message).await.map_err(gone)
}

fn done<T>(reply: Reply<'static>, changed: Changed<T>) -> Done {
    (reply, changed.keys, changed.writes)
}
