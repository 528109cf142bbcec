//! Access points, client keys, policies and network rules at the gate: read from what is published, and changed by the policy actor.

use std::collections::BTreeMap;

use keymill_core::access::{
    Aap, AccessChange, ClientKey, NamedResource, NetworkRule, PermissionPolicy, Resource, ResourcePattern,
    SHARED,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AapName, AccessKeyId, KeyRef, PolicyName, RequestId};
use keymill_core::operation::*;

use super::Gate;
use super::client_key::plan_client_certificate;
use super::parameters::describe;
use super::plan::Plan;
use super::read::cut;
use crate::work::Job;

/// Rows of a page of these lists where the request does not say.
pub(super) const ROWS: u32 = 20;

pub(super) type Answer = Box<dyn FnOnce(RequestId) -> Reply<'static> + Send>;

impl Gate {
    /// Authorises a change of who may do what, and checks its parameters.
    pub(super) fn plan_access(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        self.require(job, request.operation(), Resource::Aaps)?;
        let now = self.now();
        let (change, answer): (AccessChange, Answer) = match request {
            Request::CreateApplicationAccessPoint(r) => {
                let description = describe(r.description.unwrap_or_default())?;
                let aap = Aap { name: r.name, description, policies: r.policies, created_at: now };
                let shown = self.shown_aap(&aap);
                let answer = move |request_id| {
                    let reply = CreateApplicationAccessPointReply {
                        name: shown.name,
                        arn: shown.arn,
                        authentication_method: shown.authentication_method,
                        description: shown.description,
                        policies: shown.policies,
                        request_id,
                    };
                    Reply::CreateApplicationAccessPoint(reply)
                };
                (AccessChange::CreateAap(aap), Box::new(answer))
            }
            Request::UpdateApplicationAccessPoint(r) => {
                let description = r.description.map(describe).transpose()?;
                let answer = move |request_id| {
                    Reply::UpdateApplicationAccessPoint(UpdateApplicationAccessPointReply { request_id })
                };
                (
                    AccessChange::UpdateAap { name: r.name, policies: r.policies, description },
                    Box::new(answer),
                )
            }
            Request::DeleteApplicationAccessPoint(r) => {
                let answer = move |request_id| {
                    Reply::DeleteApplicationAccessPoint(DeleteApplicationAccessPointReply { request_id })
                };
                (AccessChange::DeleteAap(r.name), Box::new(answer))
            }
            Request::CreateClientKey(r) => return self.plan_client_key(r, now),
            Request::RegisterClientKey(r) => self.plan_registration(r, now)?,
            Request::RegisterClientCertificate(r) => plan_client_certificate(r, now)?,
            Request::CreateAcmeBinding(r) => self.plan_binding(r, now)?,
            Request::DeleteClientKey(r) => {
                let answer = |request_id| Reply::DeleteClientKey(DeleteClientKeyReply { request_id });
                (AccessChange::DeleteClientKey(r.client_key_id), Box::new(answer))
            }
            Request::CreatePolicy(r) => {
                let policy = PermissionPolicy {
                    name: r.name,
                    description: describe(r.description.unwrap_or_default())?,
                    instance: self.instance_of_policy(r.kms_instance)?,
                    permissions: r.permissions,
                    resources: self.named(job, r.resources)?,
                    access_control: r.access_control_rules.unwrap_or_default(),
                    created_at: now,
                };
                let (shown, arn) = (policy.clone(), self.name_arn("policy", policy.name.as_str()));
                let answer = move |request_id| {
                    Reply::CreatePolicy(CreatePolicyReply {
                        name: shown.name,
                        arn,
                        kms_instance: shown.instance,
                        permissions: TextList(shown.permissions),
                        resources: TextList(shown.resources),
                        access_control_rules: shown.access_control,
                        description: shown.description,
                        request_id,
                    })
                };
                (AccessChange::CreatePolicy(policy), Box::new(answer))
            }
            Request::UpdatePolicy(r) => {
                let change = AccessChange::UpdatePolicy {
                    name: r.name,
                    permissions: r.permissions,
                    resources: r.resources.map(|named| self.named(job, named)).transpose()?,
                    access_control: r.access_control_rules,
                    description: r.description.map(describe).transpose()?,
                };
                (change, Box::new(|request_id| Reply::UpdatePolicy(UpdatePolicyReply { request_id })))
            }
            Request::DeletePolicy(r) => {
                let answer = |request_id| Reply::DeletePolicy(DeletePolicyReply { request_id });
                (AccessChange::DeletePolicy(r.name), Box::new(answer))
            }
            Request::CreateNetworkRule(r) => {
                let description = describe(r.description.unwrap_or_default())?;
                let sources = r.source_private_ip.unwrap_or_default();
                let rule = NetworkRule::new(r.name, description, &sources)?;
                let (shown, arn) = (rule.clone(), self.name_arn("networkrule", rule.name.as_str()));
                let answer = move |request_id| {
                    Reply::CreateNetworkRule(CreateNetworkRuleReply {
                        source_private_ip: texts(&shown),
                        name: shown.name,
                        arn,
                        r#type: NetworkRuleType::Private,
                        description: shown.description,
                        request_id,
                    })
                };
                (AccessChange::CreateNetworkRule(rule), Box::new(answer))
            }
            Request::UpdateNetworkRule(r) => {
                let change = AccessChange::UpdateNetworkRule {
                    name: r.name,
                    sources: r.source_private_ip,
                    description: r.description.map(describe).transpose()?,
                };
                (
                    change,
                    Box::new(|request_id| Reply::UpdateNetworkRule(UpdateNetworkRuleReply { request_id })),
                )
            }
            Request::DeleteNetworkRule(r) => {
                let answer = |request_id| Reply::DeleteNetworkRule(DeleteNetworkRuleReply { request_id });
                (AccessChange::DeleteNetworkRule(r.name), Box::new(answer))
            }
            other => return Err(Error::internal(format!("{} changes nothing", other.operation().name()))),
        };
        Ok(Plan::ChangeAccess(change, answer))
    }

    /// Finds the keys that aliases name now, of those that the caller may see: a policy is about keys, and one that an alias leads to later is
    /// another.
    fn named(&self, job: &mut Job, resources: Vec<NamedResource>) -> Result<Vec<ResourcePattern>> {
        let right = job.rule.take();
        let found = resources.into_iter().map(|resource| match resource {
            NamedResource::Pattern(pattern) => Ok(pattern),
            NamedResource::Alias(name) => {
                let entry = self.find_key(job, &KeyRef::Alias(name), Operation::DescribeKey)?;
                Ok(ResourcePattern::Key(entry.cmk.id))
            }
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        job.rule = right;
        Ok(found)
    }

    /// Answers what is asked of who may do what.
    pub(super) fn read_access(&self, job: &mut Job, request: Request<'_>) -> Result<Reply<'static>> {
        self.require(job, request.operation(), Resource::Aaps)?;
        let request_id = job.call.request_id;
        let access = self.0.shared.access.read();
        Ok(match request {
            Request::DescribeApplicationAccessPoint(r) => {
                let aap = access.aap(&r.name).ok_or_else(|| not_found("access point"))?;
                let shown = self.shown_aap(aap);
                Reply::DescribeApplicationAccessPoint(DescribeApplicationAccessPointReply {
                    name: shown.name,
                    arn: shown.arn,
                    authentication_method: shown.authentication_method,
                    description: shown.description,
                    policies: shown.policies,
                    request_id,
                })
            }
            Request::ListApplicationAccessPoints(r) => {
                let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
                let (rows, total_count) = by_name(access.aaps().map(|aap| (&aap.name, ())), page);
                let method = AuthenticationMethod::ClientKey;
                let row =
                    |(name, ()): (&AapName, ())| AapRow { name: name.clone(), authentication_method: method };
                Reply::ListApplicationAccessPoints(ListApplicationAccessPointsReply {
                    application_access_points: AapList {
                        application_access_point: rows.into_iter().map(row).collect(),
                    },
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                })
            }
            Request::GetClientKey(r) => {
                let key = access.client_key(&AccessKeyId::from(&r.client_key_id));
                let row = client_key_row(key.ok_or_else(|| not_found("client key"))?);
                Reply::GetClientKey(GetClientKeyReply {
                    client_key_id: row.client_key_id,
                    aap_name: row.aap_name,
                    key_algorithm: row.key_algorithm,
                    key_origin: row.key_origin,
                    public_key_data: row.public_key_data,
                    not_before: row.not_before,
                    not_after: row.not_after,
                    create_time: row.create_time,
                    request_id,
                })
            }
            Request::ListClientKeys(r) => {
                if let Some(name) = &r.aap_name {
                    access.aap(name).ok_or_else(|| not_found("access point"))?;
                }
                let is_asked = |key: &ClientKey| r.aap_name.as_ref().is_none_or(|name| *name == key.aap);
                let mut keys: Vec<_> = access.client_keys().filter(|key| is_asked(key)).collect();
                keys.sort_unstable_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
                keys.truncate(LISTED_CLIENT_KEYS);
                let client_keys = keys.into_iter().map(|key| client_key_row(key)).collect();
                Reply::ListClientKeys(ListClientKeysReply { client_keys, request_id })
            }
            Request::DescribePolicy(r) => {
                let policy = access.policy(&r.name).ok_or_else(|| not_found("policy"))?;
                let policy = PermissionPolicy::clone(policy);
                Reply::DescribePolicy(DescribePolicyReply {
                    arn: self.name_arn("policy", policy.name.as_str()),
                    name: policy.name,
                    kms_instance: policy.instance,
                    permissions: policy.permissions,
                    resources: policy.resources,
                    access_control_rules: policy.access_control,
                    description: policy.description,
                    request_id,
                })
            }
            Request::ListPolicies(r) => {
                let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
                let (rows, total_count) = by_name(access.policies().map(|policy| (&policy.name, ())), page);
                let row = |(name, ()): (&PolicyName, ())| PolicyRow { name: name.clone() };
                Reply::ListPolicies(ListPoliciesReply {
                    policies: PolicyList { policy: rows.into_iter().map(row).collect() },
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                })
            }
            Request::DescribeNetworkRule(r) => {
                let rule = access.network_rule(&r.name).ok_or_else(|| not_found("network rule"))?;
                Reply::DescribeNetworkRule(DescribeNetworkRuleReply {
                    name: rule.name.clone(),
                    arn: self.name_arn("networkrule", rule.name.as_str()),
                    r#type: NetworkRuleType::Private,
                    source_private_ip: texts(rule),
                    description: rule.description.clone(),
                    request_id,
                })
            }
            Request::ListNetworkRules(r) => {
                let page = PageRequest::with_default(r.page_number, r.page_size, ROWS)?;
                let (rows, total_count) = by_name(access.network_rules().map(|rule| (&rule.name, ())), page);
                let row = |(name, ()): (&_, ())| NetworkRuleRow {
                    name: Clone::clone(name),
                    r#type: NetworkRuleType::Private,
                };
                Reply::ListNetworkRules(ListNetworkRulesReply {
                    network_rules: NetworkRuleList { network_rule: rows.into_iter().map(row).collect() },
                    page_number: page.number,
                    page_size: page.size,
                    total_count,
                    request_id,
                })
            }
            other => return Err(Error::internal(format!("{} is no read", other.operation().name()))),
        })
    }

    fn shown_aap(&self, aap: &Aap) -> DescribeApplicationAccessPointReply {
        DescribeApplicationAccessPointReply {
            name: aap.name.clone(),
            arn: self.name_arn("applicationaccesspoint", aap.name.as_str()),
            authentication_method: AuthenticationMethod::ClientKey,
            description: aap.description.clone(),
            policies: TextList(aap.policies.clone()),
            request_id: RequestId::from_bytes([0; 16]),
        }
    }

    /// Reads which instance a policy is for: that which it is made in.
    fn instance_of_policy(&self, asked: Option<String>) -> Result<String> {
        let own = self.own_instance().map_or(SHARED, |own| own.as_str());
        match asked.as_deref() {
            None | Some("") => {}
            Some(asked) if asked == own => {}
            Some(_) => return Err(keymill_core::instance::instance_not_found()),
        }
        Ok(own.to_owned())
    }

    pub(super) fn name_arn(&self, kind: &str, name: &str) -> String {
        let config = &self.0.shared.config;
        format!("acs:kms:{}:{}:{kind}/{name}", config.region, config.account)
    }
}

/// Rows of `ListClientKeys`, which has no pages, at most: those of one access point always fit.
const LISTED_CLIENT_KEYS: usize = 1_000;

/// Returns a page of what is listed by name, and how much there is.
pub(super) fn by_name<K: Ord, V>(all: impl Iterator<Item = (K, V)>, page: PageRequest) -> (Vec<(K, V)>, u64) {
    cut(all.collect::<BTreeMap<_, _>>().into_iter().collect(), page)
}

fn client_key_row(key: &ClientKey) -> ClientKeyRow {
    ClientKeyRow {
        client_key_id: key.id.clone(),
        aap_name: key.aap.clone(),
        key_algorithm: key.algorithm,
        key_origin: key.origin,
        public_key_data: key.shown.clone(),
        not_before: key.not_before,
        not_after: key.not_after,
        create_time: key.created_at,
    }
}

fn texts(rule: &NetworkRule) -> TextList<String> {
    TextList(rule.sources.iter().map(ToString::to_string).collect())
}

fn not_found(what: &str) -> Error {
    Error::new(ErrorKind::ResourceNotFound, format!("the specified {what} is not found"))
}
