//! Reads: answered from what is published, on the spot.

use std::sync::atomic::Ordering;

use keymill_core::access::Resource;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AliasName, CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_core::time::Timestamp;

use super::Gate;
use crate::keyring::{CmkEntry, VersionEntry};
use crate::pool::TokenReport;
use crate::work::Job;

impl Gate {
    pub(super) fn read(&self, job: &mut Job, request: Request<'_>) -> Result<Reply<'static>> {
        let request_id = job.call.request_id;
        match request {
            Request::DescribeKey(r) => {
                let entry = self.find_key(job, &r.key_id, Operation::DescribeKey)?;
                let key_metadata = self.metadata(&entry);
                Ok(Reply::DescribeKey(DescribeKeyReply { key_metadata, request_id }))
            }
            Request::ListKeys(r) => {
                let page = PageRequest::new(r.page_number, r.page_size)?;
                let visible = self.visible_keys(job, Operation::ListKeys);
                let (rows, total_count) = cut(visible, page);
                let key = rows
                    .into_iter()
                    .map(|key_id| KeyRow { key_id, key_arn: self.arn("key", &key_id) })
                    .collect();
                Ok(Reply::ListKeys(ListKeysReply {
                    keys: KeyList { key },
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                }))
            }
            Request::DescribeKeyVersion(r) => {
                let entry = self.find_key(job, &r.key_id, Operation::DescribeKeyVersion)?;
                let at = entry.versions.iter().position(|v| v.id == r.key_version_id).ok_or_else(|| {
                    Error::new(ErrorKind::KeyVersionNotFound, "the specified key version is not found")
                })?;
                let key_version = version_row(&entry, at);
                Ok(Reply::DescribeKeyVersion(DescribeKeyVersionReply { key_version, request_id }))
            }
            Request::ListKeyVersions(r) => {
                let page = PageRequest::new(r.page_number, r.page_size)?;
                let entry = self.find_key(job, &r.key_id, Operation::ListKeyVersions)?;
                let (rows, total_count) = cut((0..entry.versions.len()).collect(), page);
                let key_version = rows.into_iter().map(|at| version_row(&entry, at)).collect();
                Ok(Reply::ListKeyVersions(ListKeyVersionsReply {
                    key_versions: KeyVersionList { key_version },
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                }))
            }
            Request::ListAliases(r) => {
                let page = PageRequest::new(r.page_number, r.page_size)?;
                let rows = self
                    .0
                    .shared
                    .keyring
                    .aliases(|cmk| self.decide(job, Operation::ListAliases, Resource::Key(*cmk)).allowed);
                job.rule = Some(self.decide(job, Operation::ListAliases, Resource::Keys).rule);
                let (rows, total_count) = cut(rows, page);
                Ok(Reply::ListAliases(ListAliasesReply {
                    aliases: self.alias_list(rows),
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                }))
            }
            Request::ListAliasesByKeyId(r) => {
                let page = PageRequest::new(r.page_number, r.page_size)?;
                let entry = self.find_key(job, id_only(&r.key_id)?, Operation::ListAliasesByKeyId)?;
                let (rows, total_count) =
                    cut(self.0.shared.keyring.aliases(|cmk| *cmk == entry.cmk.id), page);
                Ok(Reply::ListAliasesByKeyId(ListAliasesByKeyIdReply {
                    aliases: self.alias_list(rows),
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                }))
            }
            Request::ListAccessKeys(r) => {
                let page = PageRequest::new(r.page_number, r.page_size)?;
                self.require(job, Operation::ListAccessKeys, Resource::AccessKeys)?;
                let access = self.0.shared.access.read();
                let mut keys: Vec<_> = access.access_keys.values().collect();
                keys.sort_unstable_by(|a, b| a.id.cmp(&b.id));
                let (rows, total_count) = cut(keys, page);
                let access_keys = rows
                    .into_iter()
                    .map(|key| AccessKeyRow {
                        access_key_id: key.id.clone(),
                        description: key.description.clone(),
                        status: key.status,
                        grants: key.grants.clone(),
                        creation_date: key.created_at,
                    })
                    .collect();
                Ok(Reply::ListAccessKeys(ListAccessKeysReply {
                    access_keys,
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                }))
            }
            Request::ListTokens(_) => {
                self.require(job, Operation::ListTokens, Resource::Nothing)?;
                let tokens =
                    self.0.shared.pool.tokens.iter().map(|token| token_row(token.report())).collect();
                Ok(Reply::ListTokens(ListTokensReply { tokens, request_id }))
            }
            Request::DescribeLimits(_) => {
                self.require(job, Operation::DescribeLimits, Resource::Nothing)?;
                let (frame, in_flight) = (self.max_frame_bytes(), self.max_in_flight());
                Ok(Reply::DescribeLimits(DescribeLimitsReply::gather(request_id, frame, in_flight)))
            }
            other => Err(Error::internal(format!("{} is no read", other.operation().name()))),
        }
    }

    /// Returns the keys that the caller may see, the oldest first.
    fn visible_keys(&self, job: &mut Job, operation: Operation) -> Vec<CmkId> {
        job.rule = Some(self.decide(job, operation, Resource::Keys).rule);
        let mut ids = self.0.shared.keyring.ids();
        ids.retain(|id| self.decide(job, operation, Resource::Key(*id)).allowed);
        ids
    }

    fn alias_list(&self, rows: Vec<(AliasName, CmkId)>) -> AliasList {
        let alias = rows
            .into_iter()
            .map(|(alias_name, key_id)| {
                let config = &self.0.shared.config;
                let alias_arn = format!("acs:kms:{}:{}:{alias_name}", config.region, config.account);
                AliasRow { key_id, alias_name, alias_arn }
            })
            .collect();
        AliasList { alias }
    }

    fn arn(&self, kind: &str, id: &CmkId) -> String {
        let config = &self.0.shared.config;
        format!("acs:kms:{}:{}:{kind}/{id}", config.region, config.account)
    }

    pub(super) fn metadata(&self, entry: &CmkEntry) -> KeyMetadata {
        let cmk = &entry.cmk;
        let last_ms =
            entry.versions.iter().map(|v| v.usage.last_ms.load(Ordering::Relaxed)).max().unwrap_or(0);
        KeyMetadata {
            key_id: cmk.id,
            arn: self.arn("key", &cmk.id),
            creation_date: cmk.created_at,
            creator: cmk.creator.clone(),
            description: cmk.description.clone(),
            key_spec: cmk.spec,
            key_usage: cmk.usage,
            key_state: cmk.state,
            origin: cmk.origin,
            protection_level: cmk.protection,
            bulk_mode: cmk.bulk_mode,
            fallback: cmk.bulk_mode.map(|_| cmk.fallback),
            key_storage_mechanism: cmk.storage(),
            token_serial_number: cmk.token_serial.clone(),
            primary_key_version: cmk.primary().id,
            last_rotation_date: cmk.primary().created_at,
            delete_date: cmk.delete_at.map(|at| at.to_string()).unwrap_or_default(),
            material_expire_time: String::new(),
            last_used_date: used(last_ms),
            use_count: entry.versions.iter().map(|v| v.usage.total()).sum(),
        }
    }
}

fn token_row(report: TokenReport) -> TokenRow {
    TokenRow {
        token_name: report.name,
        state: report.state.name().to_owned(),
        reason: report.reason,
        sessions: report.sessions as u64,
        sessions_at_work: report.sessions_at_work as u64,
        oldest_session_seconds: report.oldest_session.map(|age| age.as_secs()),
        generation: report.generation,
        sessions_wanted: report.sessions_wanted as u64,
        hung_calls: report.hung as u64,
        sessions_lost: report.sessions_lost,
        items: report.items,
        keys_loaded: report.keys_loaded as u64,
        nanoseconds_per_item: report.item_ns,
    }
}

pub(super) fn used(last_ms: u64) -> Option<Timestamp> {
    (last_ms > 0).then(|| Timestamp::from_ms(last_ms))
}

/// Takes a key that is named by id or ARN; an alias is refused where the API takes none.
pub(super) fn id_only(key: &KeyRef) -> Result<&KeyRef> {
    match key {
        KeyRef::Alias(_) => {
            Err(Error::new(ErrorKind::UnsupportedAlias, "this operation takes a key id, not an alias"))
        }
        KeyRef::Id(_) | KeyRef::Unknown => Ok(key),
    }
}

fn version_row(entry: &CmkEntry, at: usize) -> KeyVersionRow {
    let version: &VersionEntry = &entry.versions[at];
    KeyVersionRow {
        key_id: entry.cmk.id,
        key_version_id: version.id,
        creation_date: entry.cmk.versions[at].created_at,
        version_number: version.number,
        last_used_date: used(version.usage.last_ms.load(Ordering::Relaxed)),
        encrypt_count: version.usage.encrypted.load(Ordering::Relaxed),
        decrypt_count: version.usage.decrypted.load(Ordering::Relaxed),
    }
}

fn cut<T>(rows: Vec<T>, page: PageRequest) -> (Vec<T>, u64) {
    let total = rows.len() as u64;
    (rows.into_iter().skip(page.skip()).take(page.size as usize).collect(), total)
}
