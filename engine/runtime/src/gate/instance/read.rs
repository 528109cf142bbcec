//! What is told of instances.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use keymill_core::access::Resource;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::instance::{BoundVpc, Connection, Instance, InstanceTerms};
use keymill_core::operation::*;

use crate::gate::Gate;
use crate::gate::access::ROWS;
use crate::gate::read::cut;
use crate::host::InstanceHost;
use crate::pool::{TokenReport, TokenState};
use crate::work::Job;

/// Filters of a list, at most.
const FILTERS: usize = 10;

/// What an instance holds, and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    keys: u64,
    secrets: u64,
    requests_per_s: u64,
    hsm_sessions: u64,
    software_workers: u64,
}

impl Gate {
    /// Answers what is asked of instances.
    pub(in crate::gate) fn read_instance(
        &self,
        job: &mut Job,
        request: Request<'_>,
    ) -> Result<Reply<'static>> {
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
            domain: instance.domain.clone(),
            software_workers: terms.workers() as u64,
            weight: terms.weight.unwrap_or(1).into(),
            tokens: token_rows(terms, host.gate(&instance.id).map(|gate| gate.0.shared.pool.reports())),
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
        let sessions = instance.terms.tokens.iter().map(|share| u64::from(share.sessions)).sum();
        let all = [
            ("key", records.keys as u64, held.keys),
            ("secret", records.secrets as u64, held.secrets),
            ("qps", qps, held.requests_per_s),
            ("vpc", instance.max_vpcs().into(), vpcs as u64),
            ("hsmSession", sessions, held.hsm_sessions),
            ("softwareWorker", instance.terms.workers() as u64, held.software_workers),
        ];
        let asked = asked.filter(|asked| !asked.is_empty());
        if asked.is_some_and(|asked| all.iter().all(|(kind, ..)| *kind != asked)) {
            let why = "ResourceType is key, secret, qps, vpc, hsmSession or softwareWorker";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        let rows = all.into_iter().filter(|(kind, ..)| asked.is_none_or(|asked| asked == *kind));
        let row = |(kind, resource_quota, used_quantity): (&str, u64, u64)| QuotaInfo {
            resource_type: kind.to_owned(),
            resource_quota,
            used_quantity,
        };
        Ok(rows.map(row).collect())
    }

    /// Returns what is in use on all nodes together: what one of them answered within the second that it has told of last.
    fn used(&self) -> Use {
        let shared = &self.0.shared;
        let others =
            shared.cluster.iter().flat_map(|cluster| cluster.members.there(|other| other.requests_per_s));
        let here = shared.metrics.requests_a_second(self.steady_ms());
        Use {
            keys: shared.keyring.len() as u64,
            secrets: shared.keyring.secrets.len() as u64,
            requests_per_s: others.fold(here, u64::saturating_add),
            hsm_sessions: shared.pool.reports().iter().map(|token| token.sessions as u64).sum(),
            software_workers: shared.crew.len() as u64,
        }
    }
}

/// Lists the tokens of an instance with what is in force of them here, `None` where it does not run; those that yet leave it as well.
fn token_rows(terms: &InstanceTerms, reports: Option<Vec<TokenReport>>) -> Vec<InstanceTokenShown> {
    let reports = reports.unwrap_or_default();
    let row = |name: &str, sessions: u32| {
        let report = reports.iter().find(|report| report.name == name);
        InstanceTokenShown {
            token_name: name.to_owned(),
            sessions,
            open_sessions: report.map_or(0, |report| report.sessions as u64),
            state: report.map_or(TokenState::Out, |report| report.state).name().to_owned(),
        }
    };
    let wanted = terms.tokens.iter().map(|share| row(&share.name, share.sessions));
    let leaving = reports.iter().filter(|report| terms.sessions_of(&report.name) == 0);
    wanted.chain(leaving.map(|report| row(&report.name, 0))).collect()
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
