//! Instances at the gate of their installation: what is asked of them is read from what is published, and what changes them is carried out by the
//! owner of their records and by whoever runs them, in an order that an end of the process in between does no harm to.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use keymill_core::access::Resource;
use keymill_core::audit::{Outcome, RecordStamp};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{InstanceId, VpcId};
use keymill_core::instance::{
    Arrival, BoundVpc, Connection, Instance, InstanceChange, InstanceTerms, Networks, Stage, TokenShare,
    check_label,
};
use keymill_core::operation::*;
use keymill_crypto::random;

use super::Gate;
use super::access::ROWS;
use super::manage::Done;
use super::parameters::{describe, name};
use super::plan::Plan;
use super::read::cut;
use crate::actor::Owners;
use crate::actor::instances::ChangeInstance;
use crate::actor::keyring::FlushUsage;
use crate::audit::ManagementRecord;
use crate::host::{InstanceHost, aside};
use crate::work::{Job, Served};

/// Entries of a list that is kept as it is told, at most.
const LABELS: usize = 8;
/// Filters of a list, at most.
const FILTERS: usize = 10;

/// What is to become of an instance.
pub(super) enum InstancePlan {
    Create(Box<Instance>),
    /// The reply is made once it is done.
    Change(InstanceChange, fn(keymill_core::id::RequestId) -> Reply<'static>),
    Release {
        id: InstanceId,
        /// Also where it holds keys.
        is_forced: bool,
    },
}

/// What an instance holds, and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    keys: u64,
    secrets: u64,
    requests_per_s: u64,
}

impl Gate {
    /// Finds the way into the instance that a request reaches; `None` for one that reaches the installation itself.
    pub fn reached(&self, arrival: &Arrival<'_>) -> Option<Gate> {
        let shared = &self.0.shared;
        let host = shared.hosting.host()?;
        let book = shared.instances.read();
        if book.instances().len() == 0 {
            return None;
        }
        host.gate(&host.networks().reached(&book, arrival)?)
    }

    /// Returns a number that changes whenever requests may reach another instance than before.
    pub fn reach_version(&self) -> u64 {
        self.0.shared.hosting.version()
    }

    /// Tells whether both lead into the same engine.
    pub fn is(&self, other: &Gate) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Tells whether nothing is taken here any more.
    pub fn is_closed(&self) -> bool {
        self.0.shared.is_closed()
    }

    /// Has an instance keep to other ceilings from now on.
    pub fn keep_to(&self, terms: &crate::config::Ceilings) {
        let shared = &self.0.shared;
        shared.quotas.set_instance(terms.quota);
        shared.max_records.publish(terms.max_records);
    }

    /// Checks that an instance that a request names, to place something in it, is the one that it has reached.
    ///
    /// # Errors
    /// `ResourceNotFound` for any other, and for each at the gate of an installation: whoever is here is in none.
    pub(super) fn check_placed(&self, asked: Option<&str>) -> Result<()> {
        let own = self.own_instance();
        match asked {
            None | Some("") => Ok(()),
            Some(asked) if own.is_some_and(|own| own.as_str() == asked) => Ok(()),
            Some(_) => Err(keymill_core::instance::instance_not_found()),
        }
    }

    /// Returns the instance that this is the gate of; an installation has none.
    pub(super) fn own_instance(&self) -> Option<&InstanceId> {
        let config = &self.0.shared.config;
        config.is_dedicated.then_some(&config.instance)
    }

    /// Authorises a change of instances, and checks its parameters.
    pub(super) fn plan_instance(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        let operation = request.operation();
        self.require(job, operation, Resource::Nothing)?;
        let host = self.0.shared.hosting.need()?;
        let book = self.0.shared.instances.read();
        let change = |change, reply| Ok(InstancePlan::Change(change, reply));
        let plan: Result<InstancePlan> = match request {
            Request::CreateKmsInstance(r) => {
                let tokens = shares(&**host, r.tokens)?.unwrap_or_default();
                let terms = InstanceTerms {
                    tokens,
                    software_workers: r.software_workers,
                    requests_per_s: r.requests_per_second,
                    items_per_s: r.items_per_second,
                    bytes_per_s: r.bytes_per_second,
                    keys: r.max_keys,
                    secrets: r.max_secrets,
                    certificates: r.max_certificates,
                    vpcs: r.max_vpcs,
                };
                let instance = Box::new(Instance {
                    id: InstanceId::from_random(random::array()?),
                    name: name(r.instance_name.unwrap_or_default())?,
                    created_at: self.now(),
                    stage: Stage::Begun,
                    connection: None,
                    bound: Vec::new(),
                    terms,
                    protection: None,
                });
                // Whether there may be one more.
                book.plan(InstanceChange::Create(instance.clone()))?;
                Ok(InstancePlan::Create(instance))
            }
            Request::ConnectKmsInstance(r) => {
                let id = book.named(&r.kms_instance_id)?.id.clone();
                if r.km_provider.as_deref().is_some_and(|provider| provider != "Aliyun") {
                    return Err(Error::new(ErrorKind::InvalidParameter, "KMProvider is Aliyun"));
                }
                let connection = Connection {
                    vpc: known(host.networks(), &r.vpc_id)?,
                    vswitches: labels(r.v_switch_ids.as_deref(), "VSwitchIds")?,
                    zones: labels(r.zone_ids.as_deref(), "ZoneIds")?,
                };
                change(InstanceChange::Connect(id, connection), |request_id| {
                    Reply::ConnectKmsInstance(ConnectKmsInstanceReply { request_id })
                })
            }
            Request::UpdateKmsInstanceBindVpc(r) => {
                let id = book.named(&r.kms_instance_id)?.id.clone();
                let most = keymill_core::limit::INSTANCE_VPCS as usize;
                if r.bind_vpcs.len() > most {
                    let why =
                        format!("BindVpcs of {} entries exceeds the limit of {most}", r.bind_vpcs.len());
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                let bound = r.bind_vpcs.into_iter().map(|row| bound(host.networks(), row));
                change(InstanceChange::Bind(id, bound.collect::<Result<_>>()?), |request_id| {
                    Reply::UpdateKmsInstanceBindVpc(UpdateKmsInstanceBindVpcReply { request_id })
                })
            }
            Request::UpdateKmsInstancePool(r) => {
                let instance = book.named(&r.kms_instance_id)?;
                let mut r = r;
                let tokens = shares(&**host, r.tokens.take())?;
                let terms = changed(&instance.terms, tokens, &r);
                change(InstanceChange::Terms(instance.id.clone(), terms), |request_id| {
                    Reply::UpdateKmsInstancePool(UpdateKmsInstancePoolReply { request_id })
                })
            }
            Request::ReleaseKmsInstance(r) => {
                let is_forced = match r.force_delete_without_backup.as_deref() {
                    None | Some("" | "false" | "False") => false,
                    Some("true" | "True") => true,
                    Some(_) => {
                        let why = "ForceDeleteWithoutBackup is true or false";
                        return Err(Error::new(ErrorKind::InvalidParameter, why));
                    }
                };
                let instance = book.named(&r.kms_instance_id)?;
                instance.check_release()?;
                Ok(InstancePlan::Release { id: instance.id.clone(), is_forced })
            }
            other => {
                return Err(Error::internal(format!("{} changes no instance", other.operation().name())));
            }
        };
        plan.map(|plan| Plan::Instance(Box::new(plan)))
    }

    /// Authorises the protection of an instance against its release: whoever may release it decides on that.
    pub(super) fn plan_protection(
        &self,
        job: &mut Job,
        id: &str,
        protection: Option<String>,
    ) -> Result<Plan> {
        self.require(job, Operation::ReleaseKmsInstance, Resource::Nothing)?;
        self.0.shared.hosting.need()?;
        let id = self.0.shared.instances.read().named(id)?.id.clone();
        let reply = |request_id| Reply::SetDeletionProtection(SetDeletionProtectionReply { request_id });
        let protection = protection.map(describe).transpose()?;
        Ok(Plan::Instance(Box::new(InstancePlan::Change(InstanceChange::Protect(id, protection), reply))))
    }

    /// Carries out what is to become of an instance.
    pub(super) async fn carry_out_instance(
        &self,
        call: &super::Call,
        actors: &Owners<'_>,
        plan: InstancePlan,
        deadline: Instant,
    ) -> Result<Done> {
        let hosting = &self.0.shared.hosting;
        let host = hosting.need()?.clone();
        let request_id = call.request_id;
        match plan {
            InstancePlan::Create(instance) => {
                let _turn = hosting.turn()?;
                let (first, writes) = self.create_instance(actors, host, *instance.clone(), deadline).await?;
                let reply = CreateKmsInstanceReply {
                    kms_instance_id: instance.id,
                    access_key_id: first.id,
                    access_key_secret: String::from_utf8_lossy(first.secret.expose()).into_owned(),
                    request_id,
                };
                Ok((Reply::CreateKmsInstance(reply), Vec::new(), writes))
            }
            InstancePlan::Change(change, reply) => {
                let changed = actors.instances(ChangeInstance(change)).await?;
                if let Some(instance) = &changed.value {
                    host.change(instance);
                }
                Ok((reply(request_id), Vec::new(), changed.writes))
            }
            InstancePlan::Release { id, is_forced } => {
                let _turn = hosting.turn()?;
                let writes = self.release_instance(actors, host, id, is_forced).await?;
                let reply = Reply::ReleaseKmsInstance(ReleaseKmsInstanceReply { request_id });
                Ok((reply, Vec::new(), writes))
            }
        }
    }

    /// Makes an instance: its record, its engine with the first access key, and then the record once more. One whose key reaches nobody is taken
    /// back.
    async fn create_instance(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        instance: Instance,
        deadline: Instant,
    ) -> Result<(crate::engine::Bootstrap, Vec<RecordStamp>)> {
        let id = instance.id.clone();
        let begun =
            actors.instances(ChangeInstance(InstanceChange::Create(Box::new(instance.clone())))).await?;
        let mut writes = begun.writes;
        let started = {
            let host = host.clone();
            aside(move || host.create(&instance)).await
        };
        let made = match started {
            Ok(_) if Instant::now() >= deadline => {
                Err(Error::new(ErrorKind::Deadline, "the instance was not made within the time allowed"))
            }
            Ok(first) => match actors.instances(ChangeInstance(InstanceChange::Make(id.clone()))).await {
                Ok(changed) => {
                    writes.extend(changed.writes);
                    Ok(first)
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match made {
            Ok(first) => Ok((first, writes)),
            Err(error) => {
                if let Err(left) = self.remove_instance(actors, host, id.clone()).await {
                    tracing::error!(instance = %id, ?left, "an instance that was not made is left: release it");
                }
                Err(error)
            }
        }
    }

    /// Releases an instance: from the first write on nobody reaches it, its engine ends, its records go, and then its own.
    async fn release_instance(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: InstanceId,
        is_forced: bool,
    ) -> Result<Vec<RecordStamp>> {
        let is_ending = match self.0.shared.instances.read().named(id.as_str())?.stage {
            Stage::Ending | Stage::Begun => true,
            Stage::Made => false,
        };
        if !is_forced && !is_ending {
            let why = "the instance does not run, so that nobody knows what it holds: force its release";
            let gate = host.gate(&id).ok_or_else(|| Error::new(ErrorKind::InstanceState, why))?;
            let keys = gate.close_empty().await;
            if keys > 0 {
                let why = format!(
                    "the instance holds {keys} keys, which would be lost: ForceDeleteWithoutBackup true releases it all the same"
                );
                return Err(Error::new(ErrorKind::InstanceState, why));
            }
        }
        let gate = host.gate(&id);
        let removed = self.remove_instance(actors, host, id).await;
        // Refused before anything was done: it goes on.
        if let (Err(_), Some(gate)) = (&removed, gate)
            && !is_ending
        {
            gate.0.shared.reopen();
        }
        removed
    }

    async fn remove_instance(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: InstanceId,
    ) -> Result<Vec<RecordStamp>> {
        let ended = actors.instances(ChangeInstance(InstanceChange::End(id.clone()))).await?;
        let mut writes = ended.writes;
        let of_host = id.clone();
        aside(move || host.release(&of_host)).await?;
        let removed = actors.instances(ChangeInstance(InstanceChange::Remove(id))).await?;
        writes.extend(removed.writes);
        Ok(writes)
    }

    /// Ends the release of an instance that was cut short by the end of the process.
    pub(crate) async fn end_released(&self, id: InstanceId) -> Result<()> {
        let host = self.0.shared.hosting.need()?.clone();
        let served = AtomicU64::new(0);
        let owners = Owners { actors: &self.0.actors, claim: None, served: &served };
        let writes = self.remove_instance(&owners, host, id).await?;
        let record = ManagementRecord {
            request: self.request_id(),
            principal: None,
            source: None,
            frontend: "engine",
            operation: Operation::ReleaseKmsInstance.name(),
            outcome: Outcome::Done,
            rule: "its release was cut short".into(),
            keys: Vec::new(),
            secrets: Vec::new(),
            certificates: Vec::new(),
            approved_by: None,
            served: Served::default(),
            micros: 0,
            writes,
        };
        self.record(record).await
    }

    /// Closes the gate of an instance where it holds no key, and returns how many it does.
    async fn close_empty(&self) -> usize {
        let shared = &self.0.shared;
        shared.close();
        // What its owner of keys was at is done behind this, and nothing more is kept.
        let _refused = self.0.actors.keyring(FlushUsage).await;
        let keys = shared.keyring.len();
        if keys > 0 {
            shared.reopen();
        }
        keys
    }

    /// Answers what is asked of instances.
    pub(super) fn read_instance(&self, job: &mut Job, request: Request<'_>) -> Result<Reply<'static>> {
        self.require(job, request.operation(), Resource::Nothing)?;
        let request_id = job.call.request_id;
        let host = self.0.shared.hosting.need()?;
        let book = self.0.shared.instances.read();
        Ok(match request {
            Request::GetKmsInstance(r) => {
                let kms_instance = self.shown(&**host, book.named(&r.kms_instance_id)?);
                Reply::GetKmsInstance(GetKmsInstanceReply { kms_instance, request_id })
            }
            Request::ListKmsInstances(r) => {
                let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
                let filters = r.filters.unwrap_or_default();
                check_filters(&filters)?;
                let is_asked =
                    |instance: &&Arc<Instance>| asks(&filters, instance, host.gate(&instance.id).is_some());
                let (rows, total_count) = cut(book.instances().filter(is_asked).collect(), page);
                let row = |instance: &Arc<Instance>| KmsInstanceRow {
                    kms_instance_id: instance.id.clone(),
                    kms_instance_arn: self.name_arn("keystore", instance.id.as_str()),
                };
                Reply::ListKmsInstances(ListKmsInstancesReply {
                    kms_instances: KmsInstanceList { kms_instance: rows.into_iter().map(row).collect() },
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                })
            }
            Request::GetDefaultKmsInstance(_) => Reply::GetDefaultKmsInstance(GetDefaultKmsInstanceReply {
                default_kms_instance_id: book.default_instance().map(|instance| instance.id.clone()),
                request_id,
            }),
            Request::GetKmsInstanceQuotaInfos(r) => {
                let instance = match r.kms_instance_id.as_deref() {
                    None | Some("") => {
                        book.default_instance().ok_or_else(keymill_core::instance::instance_not_found)?
                    }
                    Some(id) => book.named(id)?,
                };
                let kms_instance_quota_infos = self.quotas(&**host, instance, r.resource_type.as_deref())?;
                Reply::GetKmsInstanceQuotaInfos(GetKmsInstanceQuotaInfosReply {
                    kms_instance_id: instance.id.clone(),
                    kms_instance_quota_infos,
                    request_id,
                })
            }
            other => {
                return Err(Error::internal(format!("{} is no read of instances", other.operation().name())));
            }
        })
    }

    fn shown(&self, host: &dyn InstanceHost, instance: &Instance) -> KmsInstanceShown {
        let Instance { terms, connection, .. } = instance;
        let records = self.max_of(terms);
        let unlimited = |rate: Option<NonZeroU64>| rate.map_or(0, NonZeroU64::get);
        let (vpc_id, vswitch_ids, zone_ids) = match connection {
            Some(Connection { vpc, vswitches, zones }) => (vpc.to_string(), vswitches.clone(), zones.clone()),
            None => Default::default(),
        };
        let bind_vpc = |bound: &BoundVpc| BindVpc {
            vpc_id: bound.vpc.to_string(),
            v_switch_id: bound.vswitch.clone(),
            region_id: bound.region.clone(),
            vpc_owner_id: bound.owner.clone(),
        };
        KmsInstanceShown {
            instance_id: instance.id.clone(),
            instance_name: instance.name.clone(),
            status: instance.status(host.gate(&instance.id).is_some()).name().to_owned(),
            create_time: instance.created_at,
            vpc_id,
            vswitch_ids,
            zone_ids,
            bind_vpcs: BindVpcList { bind_vpc: instance.bound.iter().map(bind_vpc).collect() },
            vpc_num: instance.max_vpcs().into(),
            key_num: records.keys as u64,
            secret_num: records.secrets.to_string(),
            spec: unlimited(terms.requests_per_s),
            product_version: env!("CARGO_PKG_VERSION").to_owned(),
            ca_certificate_chain_pem: host.issuer().map(str::to_owned),
            deletion_protection: instance.protection.is_some(),
            deletion_protection_description: instance.protection.clone(),
            software_workers: terms.software_workers.unwrap_or(1).into(),
            tokens: terms.tokens.iter().map(row_of_token).collect(),
            items_per_second: unlimited(terms.items_per_s),
            bytes_per_second: unlimited(terms.bytes_per_s),
            certificate_num: records.certificates as u64,
        }
    }

    /// Returns how much an instance may hold: as its terms say, and as the installation does else.
    fn max_of(&self, terms: &InstanceTerms) -> keymill_core::limit::MaxRecords {
        crate::config::Ceilings::of(terms, &self.0.shared.config).max_records
    }

    fn quotas(
        &self,
        host: &dyn InstanceHost,
        instance: &Instance,
        asked: Option<&str>,
    ) -> Result<Vec<QuotaInfo>> {
        let held = host.gate(&instance.id).map(|gate| gate.used()).unwrap_or_default();
        let records = self.max_of(&instance.terms);
        let qps = instance.terms.requests_per_s.map_or(0, NonZeroU64::get);
        let vpcs = instance.vpcs().collect::<BTreeSet<_>>().len();
        let all = [
            ("key", records.keys as u64, held.keys),
            ("secret", records.secrets as u64, held.secrets),
            ("qps", qps, held.requests_per_s),
            ("vpc", instance.max_vpcs().into(), vpcs as u64),
        ];
        let asked = asked.filter(|asked| !asked.is_empty());
        if asked.is_some_and(|asked| all.iter().all(|(kind, ..)| *kind != asked)) {
            return Err(Error::new(ErrorKind::InvalidParameter, "ResourceType is key, secret, qps or vpc"));
        }
        let rows = all.into_iter().filter(|(kind, ..)| asked.is_none_or(|asked| asked == *kind));
        let row = |(kind, resource_quota, used_quantity): (&str, u64, u64)| QuotaInfo {
            resource_type: kind.to_owned(),
            resource_quota,
            used_quantity,
        };
        Ok(rows.map(row).collect())
    }

    fn used(&self) -> Use {
        let shared = &self.0.shared;
        Use {
            keys: shared.keyring.len() as u64,
            secrets: shared.keyring.secrets.len() as u64,
            requests_per_s: shared.metrics.requests_a_second(self.steady_ms()),
        }
    }
}

/// Reads which tokens an instance is to have.
fn shares(host: &dyn InstanceHost, asked: Option<Vec<InstanceToken>>) -> Result<Option<Vec<TokenShare>>> {
    let Some(asked) = asked else { return Ok(None) };
    let share = |InstanceToken { token_name: name, sessions }| TokenShare { name, sessions };
    let shares: Vec<_> = asked.into_iter().map(share).collect();
    host.check_tokens(&shares).map(|()| Some(shares))
}

fn row_of_token(share: &TokenShare) -> InstanceToken {
    InstanceToken { token_name: share.name.clone(), sessions: share.sessions }
}

/// Finds a network of the configuration.
fn known(networks: &Networks, vpc: &str) -> Result<VpcId> {
    let found = vpc.parse().ok().filter(|vpc| networks.has(vpc));
    found.ok_or_else(|| {
        Error::new(ErrorKind::ResourceNotFound, "VpcId: the configuration names no such network")
    })
}

fn bound(networks: &Networks, row: BindVpc) -> Result<BoundVpc> {
    let label = |text: Option<String>, what| {
        let text = text.filter(|text| !text.is_empty());
        text.map(|text| check_label(&text, what).map(|()| text)).transpose()
    };
    Ok(BoundVpc {
        vpc: known(networks, &row.vpc_id)?,
        vswitch: label(row.v_switch_id, "VSwitchId")?,
        region: label(row.region_id, "RegionId")?,
        owner: label(row.vpc_owner_id, "VpcOwnerId")?,
    })
}

/// Splits what has commas between its entries, and is kept as it is.
fn labels(text: Option<&str>, what: &'static str) -> Result<Vec<String>> {
    let entries = text.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let entries: Vec<_> = entries.map(str::to_owned).collect();
    if entries.len() > LABELS {
        return Err(Error::new(ErrorKind::InvalidParameter, format!("{what} has up to {LABELS} entries")));
    }
    entries.iter().try_for_each(|entry| check_label(entry, what))?;
    Ok(entries)
}

/// Returns terms as a request changes them.
fn changed(
    before: &InstanceTerms,
    tokens: Option<Vec<TokenShare>>,
    r: &UpdateKmsInstancePoolRequest,
) -> InstanceTerms {
    let rate = |before, asked: Option<u64>| asked.map_or(before, NonZeroU64::new);
    InstanceTerms {
        software_workers: r.software_workers.or(before.software_workers),
        tokens: tokens.unwrap_or_else(|| before.tokens.clone()),
        requests_per_s: rate(before.requests_per_s, r.requests_per_second),
        items_per_s: rate(before.items_per_s, r.items_per_second),
        bytes_per_s: rate(before.bytes_per_s, r.bytes_per_second),
        keys: r.max_keys.or(before.keys),
        secrets: r.max_secrets.or(before.secrets),
        certificates: r.max_certificates.or(before.certificates),
        vpcs: r.max_vpcs.or(before.vpcs),
    }
}

fn check_filters(filters: &[KeyFilter]) -> Result<()> {
    const KEYS: [&str; 4] = ["InstanceId", "InstanceName", "Status", "VpcId"];
    let fits = filters.len() <= FILTERS && filters.iter().all(|filter| filter.values.len() <= FILTERS);
    match fits && filters.iter().all(|filter| KEYS.contains(&&*filter.key)) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidParameter,
            "Filters has up to 10 entries of up to 10 Values; the Key of one is InstanceId, InstanceName, Status or VpcId",
        )),
    }
}

fn asks(filters: &[KeyFilter], instance: &Instance, is_running: bool) -> bool {
    let has = |key: &str, value: &str| match key {
        "InstanceId" => instance.id.as_str() == value,
        "InstanceName" => instance.name == value,
        "Status" => instance.status(is_running).name() == value,
        "VpcId" => instance.vpcs().any(|vpc| vpc.as_str() == value),
        _ => false,
    };
    filters.iter().all(|filter| filter.values.iter().any(|value| has(&filter.key, value)))
}
