//! Reads: answered from what is published, on the spot.

use keymill_core::access::{Question, Resource, Scope, decide, default_document, scope};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AliasName, CmkId, KeyRef, RequestId};
use keymill_core::key::{BulkMode, DeletionProtection, KeySpec, KeyState, KeyUsage, ProtectionLevel};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::time::Timestamp;

use super::parameters::{bounded, is_symmetric, keys_only};
use super::{Gate, filter};
use crate::keyring::{CmkEntry, Keyring, Uses, VersionEntry};
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
                let filters = r.filters.unwrap_or_default();
                filter::check(&filters)?;
                let visible = self.visible_keys(job, Operation::ListKeys);
                let keyring = &self.0.shared.keyring;
                let (rows, total_count) = match filters.is_empty() {
                    true => visible.page(keyring, page.skip(), page.size as usize),
                    false => {
                        let names = |name: &AliasName| keyring.alias(name).map(|alias| alias.cmk);
                        let mut ids = visible.all(keyring);
                        ids.retain(|id| {
                            keyring.cmk(id).is_some_and(|entry| {
                                filter::asks_for(&filters, &entry.cmk, names, self.own_instance())
                            })
                        });
                        cut(ids, page)
                    }
                };
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
            Request::GetKeyPolicy(r) => {
                let entry = self.find_key(job, id_only(&r.key_id)?, Operation::GetKeyPolicy)?;
                let policy = match &entry.cmk.policy {
                    Some(policy) => policy.document().to_owned(),
                    None => default_document(&self.0.shared.config.account),
                };
                Ok(Reply::GetKeyPolicy(GetKeyPolicyReply { policy, request_id }))
            }
            Request::DescribeKeyVersion(r) => {
                let entry = self.find_key(job, &r.key_id, Operation::DescribeKeyVersion)?;
                let at = entry.versions.iter().position(|v| v.id == r.key_version_id);
                let at = at.ok_or_else(version_not_found)?;
                let key_version = self.version_row(&entry, at);
                Ok(Reply::DescribeKeyVersion(DescribeKeyVersionReply { key_version, request_id }))
            }
            Request::GetPublicKey(r) => {
                let entry = self.find_key(job, &r.key_id, Operation::GetPublicKey)?;
                // What a disabled key has signed is verified all the same.
                if entry.cmk.state != KeyState::Disabled {
                    self.0.shared.check_usable(&entry.cmk)?;
                }
                if !entry.cmk.spec.is_key_pair() {
                    let why = format!("a key of KeySpec {} has no public half", entry.cmk.spec.name());
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                let version = entry.versions.iter().find(|v| v.id == r.key_version_id);
                let version = version.ok_or_else(version_not_found)?;
                let stored = self.0.shared.stored_key(&entry, version)?;
                let public = stored.public_key.ok_or_else(|| {
                    Error::new(ErrorKind::Unsupported, "the public half of the key is not known here")
                })?;
                Ok(Reply::GetPublicKey(GetPublicKeyReply {
                    public_key: public.to_pem(),
                    key_id: entry.cmk.id,
                    key_version_id: version.id,
                    request_id,
                }))
            }
            Request::ListKeyVersions(r) => {
                let page = PageRequest::new(r.page_number, r.page_size)?;
                let entry = self.find_key(job, &r.key_id, Operation::ListKeyVersions)?;
                let (rows, total_count) = cut((0..entry.versions.len()).collect(), page);
                let key_version = rows.into_iter().map(|at| self.version_row(&entry, at)).collect();
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
            Request::ListManagedDataKeys(r) => self.list_data_keys(job, &r),
            Request::ListManagedDataKeyVersions(r) => self.list_data_key_versions(job, r),
            Request::DescribeSecret(r) => self.describe_secret(job, r),
            Request::GetSecretPolicy(r) => self.secret_policy(job, r),
            Request::ListSecrets(r) => self.list_secrets(job, r),
            Request::ListSecretVersionIds(r) => self.list_secret_versions(job, r),
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
            Request::ExplainAccess(r) => self.explain(job, r),
            Request::ListTokens(_) => {
                self.require(job, Operation::ListTokens, Resource::Nothing)?;
                let tokens = self.0.shared.pool.reports().into_iter().map(token_row).collect();
                Ok(Reply::ListTokens(ListTokensReply { tokens, request_id }))
            }
            Request::DescribeLimits(_) => {
                self.require(job, Operation::DescribeLimits, Resource::Nothing)?;
                let (frame, in_flight) = (self.max_frame_bytes(), self.max_in_flight());
                let records = **self.0.shared.max_records.read();
                Ok(Reply::DescribeLimits(DescribeLimitsReply::gather(request_id, frame, in_flight, records)))
            }
            Request::DescribeCertificateAuthority(r) => self.describe_authority(job, &r),
            Request::ListCertificateAuthorities(r) => self.list_authorities(job, &r),
            Request::GetCertificate(r) => self.certificate(job, &r),
            Request::DescribeCertificate(r) => self.describe_certificate(job, &r),
            Request::ListCertificates(r) => self.list_certificates(job, r),
            Request::ListResourceTags(r) => {
                let key = match (r.key_id, r.certificate_id) {
                    (None, Some(certificate)) => return self.certificate_tags(job, certificate),
                    (Some(_), Some(_)) => return Err(super::parameters::one_is_tagged()),
                    (key, None) => super::parameters::tagged(key)?,
                };
                let entry = self.find_key(job, id_only(&key)?, Operation::ListResourceTags)?;
                let row = |(tag_key, tag_value): (&String, &String)| KeyTagRow {
                    key_id: Some(entry.cmk.id),
                    certificate_id: None,
                    tag_key: tag_key.clone(),
                    tag_value: tag_value.clone(),
                };
                let tags = TagList { tag: entry.cmk.tags.iter().map(row).collect() };
                Ok(Reply::ListResourceTags(ListResourceTagsReply { tags, request_id }))
            }
            Request::ListTagResources(r) => self.tag_resources(job, r),
            Request::DescribeRegions(_) => {
                self.require(job, Operation::DescribeRegions, Resource::Nothing)?;
                let region = vec![RegionRow { region_id: self.0.shared.config.region.clone() }];
                Ok(Reply::DescribeRegions(DescribeRegionsReply {
                    regions: RegionList { region },
                    request_id,
                }))
            }
            Request::DescribeAccountKmsStatus(_) => {
                self.require(job, Operation::DescribeAccountKmsStatus, Resource::Nothing)?;
                let account_status = "Enabled".to_owned();
                Ok(Reply::DescribeAccountKmsStatus(DescribeAccountKmsStatusReply {
                    account_status,
                    request_id,
                }))
            }
            Request::DescribeService(_) => {
                self.require(job, Operation::DescribeService, Resource::Nothing)?;
                Ok(Reply::DescribeService(self.service(request_id)))
            }
            Request::OpenKmsService(_) => {
                self.require(job, Operation::OpenKmsService, Resource::Nothing)?;
                Err(Error::new(ErrorKind::AlreadyOpen, "the service is open"))
            }
            Request::ListApprovals(r) => self.list_approvals(job, r),
            instance @ (Request::GetKmsInstance(_)
            | Request::ListKmsInstances(_)
            | Request::GetDefaultKmsInstance(_)
            | Request::GetKmsInstanceQuotaInfos(_)) => self.read_instance(job, instance),
            role @ (Request::DescribeRole(_) | Request::ListRoles(_)) => self.read_role(job, role),
            other => self.read_access(job, other),
        }
    }

    /// Finds the keys that the caller may see. There may be millions: those alone are asked about that are not like the others.
    fn visible_keys(&self, job: &mut Job, operation: Operation) -> Visible {
        // One snapshot for all: what is said of a key must not be older than what is said of the others.
        let (access, principal) = (self.0.shared.access.read(), job.call.principal.clone());
        let (source, now) = (job.call.source, self.now());
        let asked = Question {
            principal: &principal,
            operation,
            resource: Resource::Keys,
            source,
            now,
            spec: None,
            context: None,
        };
        job.rule = Some(decide(&access, &asked, None).rule);
        let Scope { others, mut named } = scope(&access, &asked);
        let keyring = &self.0.shared.keyring;
        named.extend(keyring.with_policies());
        let differs = |id: &CmkId| {
            let policy = keyring.policy(id);
            let resource = Resource::Key(*id);
            let spec = policy.as_ref().and_then(|policy| self.0.shared.spec_for(policy, resource));
            let asked = Question { resource, spec, ..asked };
            decide(&access, &asked, policy.as_ref()).allowed != others
        };
        let different = named.into_iter().filter(differs).collect();
        match others {
            true => Visible::AllBut(different),
            false => Visible::Only(different),
        }
    }

    /// Lists tags of the keys that the caller may see, by the order of the keys and the names of the tags.
    fn tag_resources(&self, job: &mut Job, r: ListTagResourcesRequest) -> Result<Reply<'static>> {
        keys_only(r.resource_type)?;
        let (ids, wanted) = (r.resource_id.unwrap_or_default(), r.tag.unwrap_or_default());
        bounded(ids.len(), limit::TAGGED_KEYS, "ResourceId")?;
        bounded(wanted.len(), limit::TAGS, "Tag")?;
        if ids.is_empty() && wanted.is_empty() {
            return Err(Error::new(ErrorKind::MissingParameter, "ResourceId or Tag is needed"));
        }
        let from: usize = match r.next_token.as_deref() {
            None | Some("") => 0,
            Some(token) => token
                .parse()
                .map_err(|_| Error::new(ErrorKind::InvalidParameter, "NextToken is of no answer"))?,
        };
        let mut entries = Vec::new();
        for id in &ids {
            entries.push(self.find_key(job, id_only(id)?, Operation::ListTagResources)?);
        }
        if ids.is_empty() {
            let keyring = &self.0.shared.keyring;
            let visible = self.visible_keys(job, Operation::ListTagResources).all(keyring);
            entries.extend(visible.iter().filter_map(|id| keyring.cmk(id)));
        }
        let has = |entry: &CmkEntry| {
            wanted.iter().all(|filter| {
                let tag = entry.cmk.tags.get(&filter.key);
                tag.is_some_and(|value| filter.value.as_ref().is_none_or(|wanted| wanted == value))
            })
        };
        let rows = entries.iter().filter(|entry| has(entry)).flat_map(|entry| {
            entry.cmk.tags.iter().map(|(tag_key, tag_value)| TagResourceRow {
                resource_id: entry.cmk.id,
                resource_type: ResourceType::Key,
                tag_key: tag_key.clone(),
                tag_value: tag_value.clone(),
            })
        });
        let mut tag_resource: Vec<_> = rows.skip(from).take(limit::TAG_ROWS + 1).collect();
        let next_token = match tag_resource.len() > limit::TAG_ROWS {
            true => (from + limit::TAG_ROWS).to_string(),
            false => String::new(),
        };
        tag_resource.truncate(limit::TAG_ROWS);
        let request_id = job.call.request_id;
        let tag_resources = TagResourceList { tag_resource };
        Ok(Reply::ListTagResources(ListTagResourcesReply { tag_resources, next_token, request_id }))
    }

    /// Tells which keys can be made: those that `CreateKey` lets pass.
    fn service(&self, request_id: RequestId) -> DescribeServiceReply {
        let mut levels = vec![ProtectionLevel::Software];
        levels.extend((!self.0.shared.pool.is_empty()).then_some(ProtectionLevel::Hsm));
        let modes = [None, Some(BulkMode::InHsm), Some(BulkMode::HsmDerived)];
        let row = |spec: KeySpec| {
            let made = |level: ProtectionLevel, usage: KeyUsage| {
                let is_symmetric = is_symmetric(spec);
                let fits = |mode: &Option<BulkMode>| {
                    mode.is_some() == (is_symmetric && level == ProtectionLevel::Hsm)
                };
                modes
                    .into_iter()
                    .filter(fits)
                    .any(|mode| self.check_offered(spec, usage, level, mode).is_ok())
            };
            let usage: Vec<_> = spec
                .usages()
                .iter()
                .copied()
                .filter(|usage| levels.iter().any(|level| made(*level, *usage)))
                .collect();
            let offers = |level: &&ProtectionLevel| usage.iter().any(|usage| made(**level, *usage));
            let supported_protection_level: Vec<_> = levels.iter().filter(offers).copied().collect();
            (!supported_protection_level.is_empty()).then_some(KeySpecRow {
                name: spec,
                supported_protection_levels: SupportedProtectionLevelList { supported_protection_level },
                usages: UsageList { usage },
            })
        };
        let key_spec = KeySpec::ALL.into_iter().filter_map(row).collect();
        let protection_level = levels.iter().map(|level| ProtectionLevelRow { r#type: *level }).collect();
        DescribeServiceReply {
            protection_levels: ProtectionLevelList { protection_level },
            key_specs: KeySpecList { key_spec },
            request_id,
        }
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

    pub(super) fn arn(&self, kind: &str, id: &CmkId) -> String {
        let config = &self.0.shared.config;
        format!("acs:kms:{}:{}:{kind}/{id}", config.region, config.account)
    }

    pub(super) fn metadata(&self, entry: &CmkEntry) -> KeyMetadata {
        let cmk = &entry.cmk;
        let expires_at = cmk.external.as_ref().and_then(|external| external.expires_at);
        let keyring = &self.0.shared.keyring;
        let used_of = entry.versions.iter().map(|version| keyring.uses(&cmk.id, version));
        let uses = used_of.fold(Uses::default(), Uses::with);
        KeyMetadata {
            key_id: cmk.id,
            arn: self.arn("key", &cmk.id),
            creation_date: cmk.created_at,
            creator: cmk.creator.clone(),
            description: cmk.description.to_string(),
            key_spec: cmk.spec,
            key_usage: cmk.usage,
            key_state: cmk.state,
            origin: cmk.origin,
            protection_level: cmk.protection,
            bulk_mode: cmk.bulk_mode,
            fallback: (cmk.protection == ProtectionLevel::Hsm).then_some(cmk.fallback),
            key_storage_mechanism: cmk.storage(),
            token_serial_number: cmk.token_serial.as_deref().map(str::to_owned),
            primary_key_version: cmk.primary().id,
            last_rotation_date: cmk.primary().created_at,
            automatic_rotation: cmk.automatic_rotation(),
            rotation_interval: cmk.rotation.map(|policy| policy.interval),
            next_rotation_date: cmk.rotation.map(|policy| policy.next_at),
            deletion_protection: match cmk.deletion_protection {
                Some(_) => DeletionProtection::Enabled,
                None => DeletionProtection::Disabled,
            },
            deletion_protection_description: cmk.deletion_protection.as_deref().map(str::to_owned),
            delete_date: cmk.delete_at.map(|at| at.to_string()).unwrap_or_default(),
            material_expire_time: expires_at.map(|at| at.to_string()).unwrap_or_default(),
            dkms_instance_id: self.own_instance().cloned(),
            last_used_date: used(uses.last_ms),
            use_count: uses.total(),
        }
    }
}

/// The keys that a caller may see.
enum Visible {
    /// All but these.
    AllBut(Vec<CmkId>),
    /// These alone, of those that there are.
    Only(Vec<CmkId>),
}

impl Visible {
    /// Returns `most` of them from `skip` on, the oldest first, and how many there are in all.
    fn page(&self, keyring: &Keyring, skip: usize, most: usize) -> (Vec<CmkId>, u64) {
        let (rows, total) = match self {
            Visible::AllBut(hidden) => keyring.page_without(hidden, skip, most),
            Visible::Only(ids) => {
                let ids = keyring.in_order(ids);
                (ids.iter().copied().skip(skip).take(most).collect(), ids.len())
            }
        };
        (rows, total as u64)
    }

    /// Returns all of them, the oldest first.
    fn all(&self, keyring: &Keyring) -> Vec<CmkId> {
        self.page(keyring, 0, usize::MAX).0
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

pub(super) fn version_not_found() -> Error {
    Error::new(ErrorKind::KeyVersionNotFound, "the specified key version is not found")
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

impl Gate {
    pub(super) fn version_row(&self, entry: &CmkEntry, at: usize) -> KeyVersionRow {
        let version: &VersionEntry = &entry.versions[at];
        let uses = self.0.shared.keyring.uses(&entry.cmk.id, version);
        KeyVersionRow {
            key_id: entry.cmk.id,
            key_version_id: version.id,
            creation_date: entry.cmk.versions[at].created_at,
            version_number: version.number,
            last_used_date: used(uses.last_ms),
            encrypt_count: uses.encrypted,
            decrypt_count: uses.decrypted,
        }
    }
}

pub(super) fn cut<T>(rows: Vec<T>, page: PageRequest) -> (Vec<T>, u64) {
    let total = rows.len() as u64;
    (rows.into_iter().skip(page.skip()).take(page.size as usize).collect(), total)
}
