//! Changes of secrets that are none of their values: what is said of them, their policies, stages and tags, their deletion and what brings them back.

use keymill_core::access::default_document;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{RequestId, SecretName, SecretRef};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::secret::Secret;

use super::Gate;
use super::parameters::{describe, one_is_tagged, some, tags};
use super::plan::Plan;
use super::secret::note;
use crate::actor::keyring::SecretChange;
use crate::work::Job;

/// What a change of a secret is answered with.
pub(super) type SecretReply = fn(&Secret, RequestId) -> Reply<'static>;

impl Gate {
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
}
