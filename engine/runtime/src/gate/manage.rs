//! Management operations: one message to the owning actor, recorded durably, then answered. They run to their end whatever
//! becomes of the caller, so that nothing is changed without a record.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use actix::{Addr, Handler, Message};
use keymill_core::access::AccessChange;
use keymill_core::audit::{KeyTouch, Outcome, RecordStamp, SecretTouch};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::CertificateId;
use keymill_core::key::{
    Cmk, Fallback, KeyChange, KeySpec, KeyUsage, ProtectionLevel, Tags, WrappingAlgorithm,
};
use keymill_core::operation::*;
use keymill_core::seam::provider::{ProviderError, WrappedImport};

use super::approval::approval_needed;
use super::plan::Plan;
use super::read::used;
use super::{Call, Gate};
use crate::actor::keyring::{
    BeginImport, Begun, ChangeDescription, ChangeSecret, ChangeState, CheckNonce, CreateCmk,
    DeleteAlias as RemoveAlias, DeleteMaterial, EndCertificate, EndSecret, FinishImport, KeepKeys, Material,
    PutAlias, PutParameters, RemoveDataKey, Rotate,
};
use crate::actor::policy::{AddAccessKey, ChangeAccess, ChangeAccessKey, RemoveAccessKey, fresh_access_key};
use crate::actor::{Changed, CustodyJob, Drain, Enable, Made, Owners, TokenActor, Wanted, Wrapped};
use crate::audit::{AuditMessage, ManagementRecord};
use crate::nonces::Claim;
use crate::records::certificate_at;
use crate::work::{Job, Served};

/// A management operation that was authorised and is yet to be done.
pub struct Managed {
    call: Call,
    operation: Operation,
    rule: std::borrow::Cow<'static, str>,
    deadline: std::time::Instant,
    plan: Plan,
    /// The secret that it is about, where it is about one.
    secret: Option<SecretTouch>,
    /// The certificate that it is about, where it is about one that was there.
    certificate: Option<CertificateId>,
    /// The second caller who approved it.
    approved_by: Option<Arc<str>>,
    /// What the frontend gave with the request.
    pub ticket: u64,
    /// The sheet that the frontend gave with the request.
    pub sheet: crate::work::Sheet,
}

pub(super) type Done = (Reply<'static>, Vec<KeyTouch>, Vec<RecordStamp>);

impl Managed {
    pub(super) fn new(job: Job, plan: Plan) -> Self {
        Self {
            rule: job.rule.map_or("none".into(), |rule| rule.to_text()),
            operation: job.operation.expect("a plan is made for an operation of ours"),
            deadline: job.deadline,
            call: job.call,
            ticket: job.ticket,
            sheet: job.sheet,
            secret: job.secret.map(|named| named.touch),
            certificate: job.certificate,
            approved_by: job.approved_by,
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
            return Err(Error::new(ErrorKind::Unavailable, "the engine is shutting down").nothing_done());
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
        let Managed { call, operation, rule, plan, deadline, secret, certificate, approved_by, .. } = managed;
        let waits = match &plan {
            Plan::AskApproval(approval) => Some(approval.id.clone()),
            _ => None,
        };
        let received = call.received;
        self.0.shared.metrics.in_flight.inc();
        let served = AtomicU64::new(0);
        let (outcome, used) = self.carry_out_once(&call, plan, deadline, &served).await;
        let (answer, keys, mut writes) = match (outcome, &waits) {
            // That it waits was written down; what was asked for is not done.
            (Ok((_, keys, writes)), Some(id)) => (Err(approval_needed(id)), keys, writes),
            (Ok((reply, keys, writes)), None) => (Ok(reply), keys, writes),
            (Err(error), _) => {
                if !matches!(error.kind(), ErrorKind::StateConflict | ErrorKind::AliasExists) {
                    tracing::info!(operation = operation.name(), request = %call.request_id, ?error, "refused");
                }
                (Err(error), Vec::new(), Vec::new())
            }
        };
        writes.extend(used);
        let record = ManagementRecord {
            request: call.request_id,
            principal: Some(call.principal.access_key.clone()),
            source: call.source,
            frontend: call.frontend,
            operation: operation.name(),
            outcome: answer.as_ref().map_or_else(|error| Outcome::Failed(error.kind()), |_| Outcome::Done),
            rule,
            keys,
            secrets: secret.into_iter().collect(),
            certificates: certificates(certificate, &writes),
            approved_by,
            served: Served::of_bits(served.into_inner()),
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

    /// Carries out a plan, unless its request was signed and has been carried out before. From then on the nonce is kept whatever came of
    /// it: what changed nothing now may change something when it comes again. Returns beside what came of it what was written of its approval.
    async fn carry_out_once(
        &self,
        call: &Call,
        plan: Plan,
        deadline: std::time::Instant,
        served: &AtomicU64,
    ) -> (Result<Done>, Vec<RecordStamp>) {
        let claim = call.nonce.as_ref().map(|nonce| Arc::new(Claim::new(&call.principal.access_key, nonce)));
        let actors = Owners { actors: &self.0.actors, claim: claim.as_ref(), served };
        if let Some(claim) = &claim {
            // Before keys are generated for it, or an approval is used up.
            let checked = self.0.actors.keyring(CheckNonce(claim.clone())).await;
            if let Err(error) = checked.inspect_err(|error| self.count_replay(error)) {
                return (Err(error), Vec::new());
            }
        }
        let (plan, used) = match self.use_approval(plan).await {
            Ok(approved) => approved,
            Err(error) => return (Err(error), Vec::new()),
        };
        let outcome = self.carry_out(call, &actors, plan, deadline).await;
        let kept = actors.keep_nonce().await;
        let outcome = match (outcome, kept) {
            (Ok(done), kept) => kept.map(|()| done),
            (Err(why), Err(error)) if error.kind() != ErrorKind::NonceUsed => {
                tracing::warn!(request = %call.request_id, ?error, "the nonce of a request that failed is not kept");
                Err(why)
            }
            (Err(why), _) => Err(why),
        };
        (outcome.inspect_err(|error| self.count_replay(error)), used)
    }

    /// Uses up the approval of a plan that has one, before anything is done, so that of two requests one goes on; returns the plan, and what was
    /// written.
    async fn use_approval(&self, plan: Plan) -> Result<(Plan, Vec<RecordStamp>)> {
        let Plan::Approved { id, plan } = plan else { return Ok((plan, Vec::new())) };
        let used = AccessChange::EndApproval { id: id.clone(), used: true, now: self.now() };
        match self.0.actors.policy(ChangeAccess(used)).await {
            Ok(changed) => Ok((*plan, changed.writes)),
            // Another request used it meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::ResourceNotFound | ErrorKind::StateConflict) => {
                Err(approval_needed(&id))
            }
            Err(error) => Err(error),
        }
    }

    /// Counts a replay like those that a frontend refuses.
    fn count_replay(&self, error: &Error) {
        if error.kind() == ErrorKind::NonceUsed {
            self.0.shared.metrics.authentication_failed(error.kind());
        }
    }

    async fn carry_out(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        plan: Plan,
        deadline: std::time::Instant,
    ) -> Result<Done> {
        let request_id = call.request_id;
        match plan {
            Plan::AskApproval(approval) => {
                let changed = actors.policy(ChangeAccess(AccessChange::AskApproval(*approval))).await?;
                // Nobody is told this: it waits.
                Ok(done(Reply::RejectRequest(RejectRequestReply { request_id }), changed))
            }
            Plan::Approved { .. } => {
                Err(Error::internal("an approval is used before its plan is carried out"))
            }
            Plan::CreateKey { description, wanted, rotation, tags, policy, is_external } => {
                let Wanted { spec, usage, protection, bulk_mode, fallback, .. } = wanted;
                let material = match is_external {
                    true => Material::Awaited { spec, usage, bulk_mode },
                    false => {
                        let made = self.generate(call, wanted, None, deadline).await?;
                        actors.served_by(made.by);
                        Material::Made(Box::new(made))
                    }
                };
                let creator = (*call.principal.access_key).clone();
                let create = CreateCmk {
                    material,
                    protection,
                    fallback,
                    description,
                    creator,
                    rotation,
                    tags,
                    policy,
                };
                let changed = actors.keyring(create).await?;
                let key_metadata = self.metadata(&changed.value);
                Ok(done(Reply::CreateKey(CreateKeyReply { key_metadata, request_id }), changed))
            }
            Plan::AdoptKey { description, wanted, token } => {
                let principal = call.principal.caller();
                let (job, adopted) = CustodyJob::adopt(wanted, token, deadline, principal.clone());
                let lane = &self.0.shared.pool.control;
                lane.submit(&principal, Some(token), job).map_err(|(error, _)| error)?;
                let made = adopted.await.map_err(|_| shut_down())?.map_err(told)?;
                actors.served_by(made.by);
                let material = Material::Made(Box::new(made));
                let creator = (*call.principal.access_key).clone();
                let (protection, fallback) = (ProtectionLevel::Hsm, Fallback::Never);
                let create = CreateCmk {
                    material,
                    protection,
                    fallback,
                    description,
                    creator,
                    rotation: None,
                    tags: Tags::new(),
                    policy: None,
                };
                let changed = actors.keyring(create).await?;
                let key_metadata = self.metadata(&changed.value);
                Ok(done(Reply::AdoptKey(AdoptKeyReply { key_metadata, request_id }), changed))
            }
            Plan::MakeParameters { id, spec, algorithm, berth } => {
                let Made { key: wrapping, by, .. } =
                    self.wrapping(call, spec, algorithm, berth, deadline).await?;
                actors.served_by(by);
                let public_key = wrapping.public_key.as_ref().map(|public| public.as_der().to_vec());
                let public_key = public_key.ok_or_else(|| Error::internal("a pair has no public half"))?;
                let changed = actors.keyring(PutParameters { id, wrapping, algorithm }).await?;
                let (import_token, token_expire_time) = changed.value.clone();
                let reply = GetParametersForImportReply {
                    key_id: id,
                    import_token,
                    public_key: public_key.into(),
                    token_expire_time,
                    request_id,
                };
                Ok(done(Reply::GetParametersForImport(reply), changed))
            }
            Plan::Import { id, token, wrapped, expires_at } => {
                let begun = actors.keyring(BeginImport { id, token }).await?;
                let token = begun.token;
                let made = self.unwrap(call, begun, wrapped, deadline).await;
                if let Ok(made) = &made {
                    actors.served_by(made.by);
                }
                let changed = actors.keyring(FinishImport { id, token, made, expires_at }).await?;
                Ok(done(Reply::ImportKeyMaterial(ImportKeyMaterialReply { request_id }), changed))
            }
            Plan::DeleteMaterial { id } => {
                let changed = actors.keyring(DeleteMaterial { id }).await?;
                Ok(done(Reply::DeleteKeyMaterial(DeleteKeyMaterialReply { request_id }), changed))
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
            Plan::Rotate { id, pair } => {
                let entry = self.0.shared.keyring.cmk(&id).ok_or_else(Error::key_not_found)?;
                let Cmk { spec, usage, protection, bulk_mode, fallback, .. } = entry.cmk;
                let stays = entry.cmk.token_serial.is_some();
                let berth = self.0.shared.pool.berth(&entry.cmk)?;
                let wanted = Wanted { spec, usage, protection, bulk_mode, fallback, stays };
                let made = self.generate(call, wanted, berth, deadline).await?;
                actors.served_by(made.by);
                let changed = actors.keyring(Rotate { id, made }).await?;
                let reply = match pair {
                    false => {
                        let key_version_id = changed.value.primary().id;
                        Reply::RotateKey(RotateKeyReply { key_version_id, request_id })
                    }
                    true => {
                        let key_version = self.version_row(&changed.value, changed.value.versions.len() - 1);
                        Reply::CreateKeyVersion(CreateKeyVersionReply { key_version, request_id })
                    }
                };
                Ok(done(reply, changed))
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
            Plan::PutSecret(wanted) => self.put_secret(call, actors, *wanted, deadline).await,
            Plan::ResealSecret { name, cmk } => self.reseal_secret(call, actors, (name, cmk), deadline).await,
            Plan::ChangeSecret { name, change, reply } => {
                let changed = actors.keyring(ChangeSecret { name, change }).await?;
                Ok(done(reply(&changed.value.secret, request_id), changed))
            }
            Plan::RotateSecret { name, version } => {
                self.rotate_secret(call, actors, (name, version), deadline).await
            }
            Plan::EndSecret { name } => {
                let changed = actors.keyring(EndSecret { name: name.clone() }).await?;
                let planned_delete_time = self.now();
                let reply = DeleteSecretReply { secret_name: name, planned_delete_time, request_id };
                Ok(done(Reply::DeleteSecret(reply), changed))
            }
            Plan::Authority(plan) => self.carry_out_authority(call, actors, *plan, deadline).await,
            Plan::MakeCertificate(wanted) => self.make_certificate(call, actors, *wanted, deadline).await,
            Plan::ImportCertificate(wanted) => self.import_certificate(call, actors, *wanted).await,
            Plan::ChangeCertificate { id, change, reply } => {
                self.change_certificate(call, actors, (id, *change, reply)).await
            }
            Plan::EndCertificate { id } => {
                let changed = actors.keyring(EndCertificate(id)).await?;
                Ok(done(Reply::DeleteCertificate(DeleteCertificateReply { request_id }), changed))
            }
            Plan::ExportCertificate { id, password } => self.export_certificate(call, (id, password)).await,
            Plan::MakeDataKey(wanted) => self.make_data_key(call, actors, wanted, deadline).await,
            Plan::RemoveDataKey { name } => {
                let changed = actors.keyring(RemoveDataKey { name }).await?;
                Ok(done(Reply::DeleteManagedDataKey(DeleteManagedDataKeyReply { request_id }), changed))
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
                // What it changes is in memory alone: the nonce goes first.
                actors.keep_nonce().await?;
                ask_token(&self.0.actors.tokens[at], Drain).await?;
                Ok((Reply::DrainToken(DrainTokenReply { request_id }), Vec::new(), Vec::new()))
            }
            Plan::EnableToken(at) => {
                actors.keep_nonce().await?;
                ask_token(&self.0.actors.tokens[at], Enable).await?;
                Ok((Reply::EnableToken(EnableTokenReply { request_id }), Vec::new(), Vec::new()))
            }
            Plan::ChangeAccess(change, reply) => {
                let changed = actors.policy(ChangeAccess(change)).await?;
                Ok(done(reply(request_id), changed))
            }
            Plan::Instance(plan) => self.carry_out_instance(call, actors, *plan, deadline).await,
            Plan::MakeClientKey(wanted) => self.make_client_key(call, actors, wanted, deadline).await,
            Plan::RemoveAccessKey(id) => {
                let changed = actors.policy(RemoveAccessKey { id }).await?;
                Ok((Reply::DeleteAccessKey(DeleteAccessKeyReply { request_id }), Vec::new(), changed.writes))
            }
        }
    }

    /// Has key material generated: in a token where the key has a bulk mode, the one at `berth` where it must be that; else in the
    /// software lane.
    pub(super) async fn generate(
        &self,
        call: &Call,
        wanted: Wanted,
        berth: Option<usize>,
        deadline: std::time::Instant,
    ) -> Result<Made> {
        let principal = call.principal.caller();
        let (job, made) = CustodyJob::make(&self.0.shared, wanted, berth, deadline, principal.clone())?;
        let lane = match wanted.protection {
            ProtectionLevel::Hsm => &self.0.shared.pool.control,
            ProtectionLevel::Software => &*self.0.actors.lane,
        };
        lane.submit(&principal, berth, job).map_err(|(error, _)| error)?;
        made.await.map_err(|_| shut_down())?
    }

    /// Has a key made that wraps material: in the token at `berth`, or in the software lane.
    async fn wrapping(
        &self,
        call: &Call,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
        berth: Option<usize>,
        deadline: std::time::Instant,
    ) -> Result<Made> {
        let Some(berth) = berth else {
            let wanted = Wanted {
                spec,
                usage: KeyUsage::EncryptDecrypt,
                protection: ProtectionLevel::Software,
                bulk_mode: None,
                fallback: Fallback::Never,
                stays: false,
            };
            return self.generate(call, wanted, None, deadline).await;
        };
        let principal = call.principal.caller();
        let (job, made) = CustodyJob::make_wrapping(spec, algorithm, berth, deadline, principal.clone());
        let lane = &self.0.shared.pool.control;
        lane.submit(&principal, Some(berth), job).map_err(|(error, _)| error)?;
        let made = made.await.map_err(|_| shut_down())?;
        made.map_err(|error| said(error, ErrorKind::Unsupported))
    }

    /// Has key material unwrapped where its wrapping key is: in a token, or in the software lane.
    async fn unwrap(
        &self,
        call: &Call,
        begun: Begun,
        bytes: Vec<u8>,
        deadline: std::time::Instant,
    ) -> Result<Made> {
        let principal = call.principal.caller();
        let Begun { spec, usage, bulk_mode, wrapping, algorithm, berth, check, .. } = begun;
        let (job, made, lane) = match berth {
            None => {
                let provider = self.0.shared.provider.clone();
                let wrapped = Wrapped { provider, key: wrapping, algorithm, bytes };
                let (job, made) = CustodyJob::import(wrapped, spec, usage, deadline, principal.clone());
                (job, made, &*self.0.actors.lane)
            }
            Some(berth) => {
                let wrapped = bytes;
                let import = WrappedImport { spec, usage, bulk_mode, wrapping, algorithm, wrapped, check };
                let (job, made) = CustodyJob::import_wrapped(import, berth, deadline, principal.clone());
                (job, made, &self.0.shared.pool.control)
            }
        };
        lane.submit(&principal, berth, job).map_err(|(error, _)| error)?;
        made.await.map_err(|_| shut_down())?.map_err(not_taken)
    }
}

/// Tells nothing of why material was not taken.
fn not_taken(error: Error) -> Error {
    use std::error::Error as _;
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(ProviderError::Rejected(why)) => {
            tracing::debug!(why, "imported key material was refused");
            Error::invalid_key_material()
        }
        Some(ProviderError::Corrupt(_)) => {
            let why = "the wrapping key of the import is damaged or gone: get others";
            Error::new(ErrorKind::Quarantined, why).caused_by(error)
        }
        _ => error,
    }
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the crypto pool is shut down")
}

/// Tells an operator what is wrong with the key that was to be taken over.
fn told(error: Error) -> Error {
    said(error, ErrorKind::InvalidParameter)
}

/// Tells why a token refuses to do something before there is anything secret to it: the provider's words hold names and attributes alone.
fn said(error: Error, kind: ErrorKind) -> Error {
    use std::error::Error as _;
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(ProviderError::Rejected(why)) => Error::new(kind, why.clone()),
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

/// Returns the certificates that a request was about: the one that it named, and those that it made.
fn certificates(named: Option<CertificateId>, writes: &[RecordStamp]) -> Vec<CertificateId> {
    let mut all: Vec<_> = named.into_iter().collect();
    all.extend(writes.iter().filter_map(|stamp| certificate_at(&stamp.path)));
    all.sort_unstable();
    all.dedup();
    all
}

pub(super) fn done<T>(reply: Reply<'static>, changed: Changed<T>) -> Done {
    (reply, changed.keys, changed.writes)
}
