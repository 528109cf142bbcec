//! What a management operation comes to: authorised, its parameters checked, and nothing done yet.

use keymill_core::access::{AccessChange, Approval, Grant, KeyPolicy, Resource};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{
    AccessKeyId, AliasName, ApprovalId, CertificateId, CmkId, DataKeyName, KeyRef, RequestId, SecretName,
    SecretVersionId,
};
use keymill_core::key::{
    BulkMode, KeyChange, KeySpec, KeyUsage, Origin, ProtectionLevel, RotationInterval, Tags,
    WrappingAlgorithm,
};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::provider::Adopt;
use keymill_core::time::Timestamp;

use super::Gate;
use super::authority::AuthorityPlan;
use super::certificate::CertificateReply;
use super::certificate_make::{WantedCertificate, WantedImport};
use super::client_key::WantedClientKey;
use super::instance::InstancePlan;
use super::managed_data_key::WantedDataKey;
use super::parameters::{
    bounded, check_external, check_modes, check_wrapping, describe, expiry, is_symmetric, keys_only, name,
    named, rotation, some, stays, tagged, tags, wrapped,
};
use super::read::id_only;
use super::secret_change::SecretReply;
use super::secret_put::WantedSecret;
use crate::actor::Wanted;
use crate::actor::keyring::{CertificateChange, Keeping, SecretChange, data_key_exists};
use crate::work::Job;

/// What is to be done.
pub(super) enum Plan {
    CreateKey {
        description: String,
        wanted: Wanted,
        rotation: Option<RotationInterval>,
        tags: Tags,
        policy: Option<KeyPolicy>,
        /// Whether its material is imported.
        is_external: bool,
    },
    /// Makes a key pair that wraps material to be imported.
    MakeParameters {
        id: CmkId,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
        /// Of the token that makes it, for a key of the tokens.
        berth: Option<usize>,
    },
    Import {
        id: CmkId,
        token: ImportToken,
        wrapped: Vec<u8>,
        expires_at: Option<Timestamp>,
    },
    DeleteMaterial {
        id: CmkId,
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
    /// Makes a new version; of a key pair, or of a symmetric key.
    Rotate {
        id: CmkId,
        pair: bool,
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
    PutSecret(Box<WantedSecret>),
    /// Of a secret, under a CMK.
    ResealSecret {
        name: SecretName,
        cmk: CmkId,
    },
    ChangeSecret {
        name: SecretName,
        change: SecretChange,
        /// Made once it is done.
        reply: SecretReply,
    },
    EndSecret {
        name: SecretName,
    },
    RotateSecret {
        name: SecretName,
        version: SecretVersionId,
    },
    Authority(Box<AuthorityPlan>),
    MakeCertificate(Box<WantedCertificate>),
    ImportCertificate(Box<WantedImport>),
    ChangeCertificate {
        id: CertificateId,
        change: Box<CertificateChange>,
        /// Made once it is done.
        reply: CertificateReply,
    },
    EndCertificate {
        id: CertificateId,
    },
    ExportCertificate {
        id: CertificateId,
        password: Password,
    },
    MakeDataKey(WantedDataKey),
    RemoveDataKey {
        name: DataKeyName,
    },
    AddAccessKey {
        description: String,
        grants: Vec<Grant>,
    },
    ChangeAccessKey(UpdateAccessKeyRequest),
    RemoveAccessKey(AccessKeyId),
    /// Of access points and what they name; the reply is made once it is done.
    ChangeAccess(AccessChange, Box<dyn FnOnce(RequestId) -> Reply<'static> + Send>),
    MakeClientKey(WantedClientKey),
    /// Waits for a second caller.
    AskApproval(Box<Approval>),
    /// Was approved by one, which is used up.
    Approved {
        id: ApprovalId,
        plan: Box<Plan>,
    },
    Instance(Box<InstancePlan>),
    /// By its place in the pool.
    DrainToken(usize),
    EnableToken(usize),
}

impl Gate {
    /// Authorises a management operation and checks its parameters.
    pub(super) fn plan(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        match request {
            Request::CreateKey(r) => {
                self.require(job, Operation::CreateKey, Resource::Keys)?;
                self.check_placed(r.dkms_instance_id.as_deref())?;
                self.0.shared.check_room(Limit::Keys)?;
                let spec = r.key_spec.unwrap_or(KeySpec::Aes256);
                let usage = r.key_usage.unwrap_or(spec.usages()[0]);
                let protection = r.protection_level.unwrap_or(self.0.shared.protection());
                let bulk_mode = self.bulk_mode(spec, protection, r.bulk_mode)?;
                let fallback = self.fallback(protection, bulk_mode, r.fallback)?;
                self.check_offered(spec, usage, protection, bulk_mode)?;
                let stays = stays(protection, fallback, r.key_storage_mechanism)?;
                if r.origin == Some(Origin::Adopted) {
                    let why = "Origin ADOPTED is of keys that AdoptKey takes over";
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                let is_external = r.origin == Some(Origin::External);
                let description = describe(r.description.unwrap_or_default())?;
                let rotation = rotation(r.enable_automatic_rotation, r.rotation_interval)?;
                if is_external {
                    check_external(stays, fallback, rotation)?;
                    if protection == ProtectionLevel::Hsm {
                        self.0.shared.pool.check_imports(spec)?;
                    }
                }
                if rotation.is_some() && !is_symmetric(spec) {
                    let why = "only a symmetric key is rotated by itself";
                    return Err(Error::new(ErrorKind::Unsupported, why));
                }
                let pairs = r.tags.unwrap_or_default().into_iter().map(|tag| (tag.tag_key, tag.tag_value));
                let tags = tags(pairs.collect())?.into_iter().collect();
                let policy =
                    r.policy.map(|document| self.policy_of_new_key(job, spec, &document)).transpose()?;
                Ok(Plan::CreateKey {
                    description,
                    rotation,
                    tags,
                    policy,
                    is_external,
                    wanted: Wanted { spec, usage, protection, bulk_mode, fallback, stays },
                })
            }
            Request::AdoptKey(r) => {
                self.require(job, Operation::AdoptKey, Resource::Keys)?;
                self.0.shared.check_room(Limit::Keys)?;
                let spec = r.key_spec.unwrap_or(KeySpec::Aes256);
                let usage = r.key_usage.unwrap_or(spec.usages()[0]);
                // Where an object of the token says what it is for, what the configuration says of others does not count.
                let mode = r.bulk_mode.or(is_symmetric(spec).then_some(BulkMode::InHsm));
                let bulk_mode = self.bulk_mode(spec, ProtectionLevel::Hsm, mode)?;
                check_modes(spec, usage, bulk_mode)?;
                let token = self.token_of_adoption(r.token_name.as_deref())?;
                let (label, id) = named(r.object_label, r.object_id.as_deref())?;
                let description = describe(r.description.unwrap_or_default())?;
                let wanted = Adopt { spec, usage, bulk_mode, label, id };
                Ok(Plan::AdoptKey { description, wanted, token })
            }
            Request::GetParametersForImport(r) => {
                let right = Operation::GetParametersForImport;
                let entry = self.find_key(job, id_only(&r.key_id)?, right)?;
                entry.cmk.external.as_ref().ok_or_else(Error::not_external)?;
                let (spec, algorithm) = (r.wrapping_key_spec, r.wrapping_algorithm);
                check_wrapping(spec, algorithm)?;
                let berth = match entry.cmk.protection {
                    ProtectionLevel::Software => {
                        let software = ProtectionLevel::Software;
                        self.check_offered(spec, KeyUsage::EncryptDecrypt, software, None)?;
                        None
                    }
                    ProtectionLevel::Hsm => Some(self.0.shared.pool.importer(entry.cmk.spec, algorithm)?),
                };
                Ok(Plan::MakeParameters { id: entry.cmk.id, spec, algorithm, berth })
            }
            Request::ImportKeyMaterial(r) => {
                let entry = self.find_key(job, id_only(&r.key_id)?, Operation::ImportKeyMaterial)?;
                entry.cmk.check_importable()?;
                let expires_at = expiry(r.key_material_expire_unix, self.now())?;
                let wrapped = wrapped(r.encrypted_key_material)?;
                Ok(Plan::Import { id: entry.cmk.id, token: r.import_token, wrapped, expires_at })
            }
            Request::DeleteKeyMaterial(r) => {
                let entry = self.find_key(job, id_only(&r.key_id)?, Operation::DeleteKeyMaterial)?;
                entry.cmk.external.as_ref().ok_or_else(Error::not_external)?;
                Ok(Plan::DeleteMaterial { id: entry.cmk.id })
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
                if !is_symmetric(entry.cmk.spec) {
                    let why =
                        "a symmetric key is rotated; a key pair has a new version made by CreateKeyVersion";
                    return Err(Error::new(ErrorKind::Unsupported, why));
                }
                if entry.cmk.external.is_some() {
                    let why = "a key whose material is imported has one version";
                    return Err(Error::new(ErrorKind::Unsupported, why));
                }
                entry.cmk.check_rotation()?;
                Ok(Plan::Rotate { id: entry.cmk.id, pair: false })
            }
            Request::CreateKeyVersion(r) => {
                let entry = self.find_key(job, &r.key_id, Operation::CreateKeyVersion)?;
                entry.cmk.state.check_usable()?;
                entry.cmk.check_new_version(self.now())?;
                Ok(Plan::Rotate { id: entry.cmk.id, pair: true })
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
                    (None, None, Some(id)) => {
                        let why = r.deletion_protection_description.unwrap_or_default();
                        return self.plan_protection(job, &id, r.enable_deletion_protection.then_some(why));
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
            Request::SetKeyPolicy(r) => {
                let id = self.find_key(job, id_only(&r.key_id)?, Operation::SetKeyPolicy)?.cmk.id;
                let policy = self.policy_of_key(job, id, &r.policy)?;
                let reply = |request_id| Reply::SetKeyPolicy(SetKeyPolicyReply { request_id });
                Ok(Plan::Keep { ids: vec![id], change: Keeping::Policy(policy), reply })
            }
            Request::TagResource(r) if r.secret_name.is_some() => self.plan_secret_tags(job, r),
            Request::TagResource(r) if r.certificate_id.is_some() => self.plan_certificate_tags(job, r),
            Request::UntagResource(r) if r.secret_name.is_some() => self.plan_secret_untagging(job, r),
            Request::UntagResource(r) if r.certificate_id.is_some() => {
                self.plan_certificate_untagging(job, r)
            }
            Request::TagResource(r) => {
                let ids = self.tagged_keys(job, &[tagged(r.key_id)?], Operation::TagResource)?;
                some(r.tags.len(), limit::TAGS, "Tags")?;
                let pairs = r.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect();
                let reply = |request_id| Reply::TagResource(TagResourceReply { request_id });
                Ok(Plan::Keep { ids, change: Keeping::Tag(tags(pairs)?), reply })
            }
            Request::UntagResource(r) => {
                let ids = self.tagged_keys(job, &[tagged(r.key_id)?], Operation::UntagResource)?;
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
            Request::CreateManagedDataKey(r) => {
                let right = Operation::CreateManagedDataKey;
                let entry = self.find_key(job, &r.key_id, right)?;
                self.sealing_under(entry.clone())?;
                if self.0.shared.keyring.data_key(&r.data_key_name).is_some() {
                    return Err(data_key_exists());
                }
                let bytes = data_key_bytes(r.key_spec, r.number_of_bytes)?;
                let (name, cmk) = (r.data_key_name, entry.cmk.id);
                Ok(Plan::MakeDataKey(WantedDataKey { name, cmk, bytes, create: true }))
            }
            Request::CreateManagedDataKeyVersion(r) => {
                let right = Operation::CreateManagedDataKeyVersion;
                let data_key = self.find_data_key(job, &r.data_key_name, &[right])?;
                data_key.key.check_new_version()?;
                let (cmk, bytes) = (data_key.key.cmk, data_key.key.bytes as usize);
                Ok(Plan::MakeDataKey(WantedDataKey { name: r.data_key_name, cmk, bytes, create: false }))
            }
            Request::DeleteManagedDataKey(r) => {
                self.find_data_key(job, &r.data_key_name, &[Operation::DeleteManagedDataKey])?;
                Ok(Plan::RemoveDataKey { name: r.data_key_name })
            }
            Request::CreateSecret(r) => self.plan_new_secret(job, r),
            Request::PutSecretValue(r) => self.plan_value(job, r),
            Request::UpdateSecret(r) => self.plan_secret_description(job, r),
            Request::SetSecretPolicy(r) => self.plan_secret_policy(job, r),
            Request::UpdateSecretVersionStage(r) => self.plan_stage(job, r),
            Request::DeleteSecret(r) => self.plan_secret_end(job, &r),
            Request::RestoreSecret(r) => self.plan_restore(job, &r),
            Request::ResealSecret(r) => self.plan_reseal(job, r),
            Request::RotateSecret(r) => self.plan_rotation(job, r),
            Request::UpdateSecretRotationPolicy(r) => self.plan_rotation_policy(job, r),
            request @ (Request::CreateCertificateAuthority(_)
            | Request::ActivateCertificateAuthority(_)
            | Request::UpdateCertificateAuthority(_)
            | Request::DeleteCertificateAuthority(_)
            | Request::IssueCertificate(_)
            | Request::BatchIssueCertificate(_)
            | Request::RenewCertificate(_)
            | Request::RevokeCertificate(_)) => self.plan_authority(job, request),
            Request::CreateCertificate(r) => self.plan_new_certificate(job, r),
            Request::UploadCertificate(r) => self.plan_upload(job, &r),
            Request::ImportCertificate(r) => self.plan_certificate_import(job, r),
            Request::UpdateCertificateStatus(r) => self.plan_certificate_status(job, &r),
            Request::DeleteCertificate(r) => self.plan_certificate_end(job, &r),
            Request::ExportCertificate(r) => self.plan_certificate_export(job, r),
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
            approval @ (Request::ApproveRequest(_) | Request::RejectRequest(_)) => {
                self.plan_approval(job, approval)
            }
            instance @ (Request::CreateKmsInstance(_)
            | Request::ConnectKmsInstance(_)
            | Request::UpdateKmsInstanceBindVpc(_)
            | Request::UpdateKmsInstancePool(_)
            | Request::ReleaseKmsInstance(_)) => self.plan_instance(job, instance),
            role @ (Request::CreateRole(_) | Request::UpdateRole(_) | Request::DeleteRole(_)) => {
                self.plan_role(job, role)
            }
            other => self.plan_access(job, other),
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
}
