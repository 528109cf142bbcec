//! What is asked of instances to be changed: authorised, and its parameters checked.

use std::num::NonZeroU64;

use keymill_core::access::Resource;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{DomainName, InstanceId, VpcId};
use keymill_core::instance::{
    BoundVpc, Connection, Instance, InstanceChange, InstanceTerms, Networks, Stage, TokenShare, check_label,
};
use keymill_core::operation::*;
use keymill_crypto::random;

use super::InstancePlan;
use crate::gate::Gate;
use crate::gate::parameters::{describe, name};
use crate::gate::plan::Plan;
use crate::host::InstanceHost;
use crate::work::Job;

/// Entries of a list that is kept as it is told, at most.
const LABELS: usize = 8;
impl Gate {
    /// Authorises a change of instances, and checks its parameters.
    pub(in crate::gate) fn plan_instance(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        let operation = request.operation();
        self.require(job, operation, Resource::Nothing)?;
        let host = self.0.shared.hosting.need()?;
        let book = self.0.shared.instances.read();
        let change = |change, reply| Ok(InstancePlan::Change(change, reply));
        let plan: Result<InstancePlan> = match request {
            Request::CreateKmsInstance(r) => {
                let tokens = shares(&**host, r.domain.as_ref(), r.tokens)?.unwrap_or_default();
                let terms = InstanceTerms {
                    tokens,
                    software_workers: r.software_workers,
                    weight: r.weight,
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
                    domain: r.domain,
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
                let tokens = shares(&**host, instance.domain.as_ref(), r.tokens.take())?;
                Ok(InstancePlan::Terms(instance.id.clone(), Box::new(TermsAsked { tokens, others: r })))
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
    pub(in crate::gate) fn plan_protection(
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
}

/// What is asked to be other of the terms of an instance.
pub(in crate::gate) struct TermsAsked {
    /// The tokens that it is to have; those that it has if absent.
    tokens: Option<Vec<TokenShare>>,
    /// All else.
    others: UpdateKmsInstancePoolRequest,
}

impl TermsAsked {
    /// Returns what becomes of the terms that are in force: what nobody asks to be other stays.
    pub(super) fn over(self, before: &InstanceTerms) -> InstanceTerms {
        let Self { tokens, others: r } = self;
        // A rate of 0 is none.
        let rate = |before, asked: Option<u64>| asked.map_or(before, NonZeroU64::new);
        InstanceTerms {
            software_workers: r.software_workers.or(before.software_workers),
            tokens: tokens.unwrap_or_else(|| before.tokens.clone()),
            weight: r.weight.or(before.weight),
            requests_per_s: rate(before.requests_per_s, r.requests_per_second),
            items_per_s: rate(before.items_per_s, r.items_per_second),
            bytes_per_s: rate(before.bytes_per_s, r.bytes_per_second),
            keys: r.max_keys.or(before.keys),
            secrets: r.max_secrets.or(before.secrets),
            certificates: r.max_certificates.or(before.certificates),
            vpcs: r.max_vpcs.or(before.vpcs),
        }
    }
}

/// Reads the tokens that an instance is to have; `None` where nothing is said of them.
///
/// # Errors
/// As of [`InstanceHost::check_tokens`].
fn shares(
    host: &dyn InstanceHost,
    domain: Option<&DomainName>,
    asked: Option<Vec<InstanceToken>>,
) -> Result<Option<Vec<TokenShare>>> {
    let Some(asked) = asked else { return Ok(None) };
    let share = |InstanceToken { token_name: name, sessions }| TokenShare { name, sessions };
    let shares: Vec<_> = asked.into_iter().map(share).collect();
    host.check_tokens(domain, &shares).map(|()| Some(shares))
}

/// Reads the name of a network.
///
/// # Errors
/// `ResourceNotFound` for one that the configuration does not name.
fn known(networks: &Networks, vpc: &str) -> Result<VpcId> {
    let found = vpc.parse().ok().filter(|vpc| networks.has(vpc));
    found.ok_or_else(|| {
        Error::new(ErrorKind::ResourceNotFound, "VpcId: the configuration names no such network")
    })
}

/// Reads a further network of an instance.
///
/// # Errors
/// As of [`known`], and `InvalidParameter` for what is kept with it and is too long.
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

/// Reads a list that is kept as it is told; its entries are parted by commas.
///
/// # Errors
/// `InvalidParameter` where there are too many, or one is too long.
fn labels(text: Option<&str>, what: &'static str) -> Result<Vec<String>> {
    let entries = text.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let entries: Vec<_> = entries.map(str::to_owned).collect();
    if entries.len() > LABELS {
        return Err(Error::new(ErrorKind::InvalidParameter, format!("{what} has up to {LABELS} entries")));
    }
    entries.iter().try_for_each(|entry| check_label(entry, what))?;
    Ok(entries)
}
