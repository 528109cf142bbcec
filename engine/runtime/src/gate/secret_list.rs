//! What is told of secrets but their values: one by one, and in lists of those that a caller may see.

use std::sync::Arc;

use keymill_core::access::{Question, Resource, Scope, decide, scope_of_secrets};
use keymill_core::error::Result;
use keymill_core::id::{SecretName, SecretRef};
use keymill_core::key::{AutomaticRotation, Tags};
use keymill_core::operation::*;
use keymill_core::secret::{Secret, SecretVersion};

use super::Gate;
use super::read::cut;
use crate::secrets::SecretEntry;
use crate::work::Job;

impl Gate {
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
            dkms_instance_id: self.own_instance().cloned(),
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
        let is_asked = |secret: &Secret| super::filter::asks_for_secret(filters, secret, self.own_instance());
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

fn tag_list(tags: &Tags) -> SecretTagList {
    let pair = |(tag_key, tag_value): (&String, &String)| TagPair {
        tag_key: tag_key.clone(),
        tag_value: tag_value.clone(),
    };
    SecretTagList { tag: tags.iter().map(pair).collect() }
}
