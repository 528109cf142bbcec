//! Access points, client keys, policies and network rules at the gate: read from what is published, and changed by the policy actor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keymill_core::access::{
    Aap, AccessChange, ClientKey, ClientKeyAlgorithm, ClientKeyOrigin, KnownBy, NamedResource, NetworkRule,
    PermissionPolicy, Resource, ResourcePattern, SHARED,
};
use keymill_core::certificate::{Serial, Validity};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AapName, AccessKeyId, ClientKeyId, KeyRef, PolicyName, RequestId};
use keymill_core::key::{Fallback, KeySpec, KeyUsage, ProtectionLevel};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::provider::{KeyMaterial, PublicKey};
use keymill_core::time::Timestamp;
use keymill_crypto::random;
use keymill_x509::client_key;

use super::manage::{Done, done};
use super::parameters::describe;
use super::plan::Plan;
use super::read::cut;
use super::{Call, Gate};
use crate::actor::policy::ChangeAccess;
use crate::actor::{Owners, Wanted};
use crate::work::Job;

/// Rows of a page of these lists where the request does not say.
pub(super) const ROWS: u32 = 20;

/// A client key that is to be made.
pub(super) struct WantedClientKey {
    aap: AapName,
    password: Password,
    span: (Timestamp, Timestamp),
}

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
            Request::CreateClientKey(_)
                if self.0.shared.config.dual_control.contains(&Operation::RegisterClientKey) =>
            {
                // Its password cannot be shown to a second caller.
                let why = "client keys wait for a second caller here: make one on your side, and register its public half (RegisterClientKey)";
                return Err(Error::new(ErrorKind::Denied, why));
            }
            Request::CreateClientKey(r) => {
                check_password(r.password.expose())?;
                let span = span(r.not_before, r.not_after, now)?;
                // Before a key is made for it; the policy actor asks again.
                self.0.shared.access.read().check_room(&r.aap_name)?;
                let wanted = WantedClientKey { aap: r.aap_name, password: r.password, span };
                return Ok(Plan::MakeClientKey(wanted));
            }
            Request::RegisterClientKey(r) => self.plan_registration(r, now)?,
            Request::RegisterClientCertificate(r) => plan_certificate(r, now)?,
            Request::CreateAcmeBinding(r) => self.plan_binding(r, now)?,
            Request::DeleteClientKey(r) => {
                let answer = |request_id| Reply::DeleteClientKey(DeleteClientKeyReply { request_id });
                (AccessChange::DeleteClientKey(r.client_key_id), Box::new(answer))
            }
            Request::CreatePolicy(r) => {
                let policy = PermissionPolicy {
                    name: r.name,
                    description: describe(r.description.unwrap_or_default())?,
                    instance: instance(r.kms_instance)?,
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

    fn plan_registration(
        &self,
        r: RegisterClientKeyRequest,
        now: Timestamp,
    ) -> Result<(AccessChange, Answer)> {
        let span = span(r.not_before, r.not_after, now)?;
        let public = PublicKey::from_pem(&r.public_key).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, "PublicKey is no PEM of a SubjectPublicKeyInfo")
        })?;
        let offered = [
            (KeySpec::Rsa2048, ClientKeyAlgorithm::Rsa2048),
            (KeySpec::Rsa3072, ClientKeyAlgorithm::Rsa3072),
            (KeySpec::Rsa4096, ClientKeyAlgorithm::Rsa4096),
            (KeySpec::EcP256, ClientKeyAlgorithm::EcP256),
        ];
        let provider = &self.0.shared.provider;
        let found = offered.into_iter().find(|(spec, _)| provider.public_half(*spec, &public).is_ok());
        let (_, algorithm) = found.ok_or_else(|| {
            let why = "PublicKey is none of RSA of 2,048, 3,072 or 4,096 bits, nor on P-256";
            Error::new(ErrorKind::InvalidParameter, why)
        })?;
        let id = ClientKeyId::from_random(random::array()?);
        let shown = public.to_pem();
        let key = ClientKey {
            id: id.clone(),
            aap: r.aap_name,
            algorithm,
            origin: ClientKeyOrigin::User,
            public_key: public.as_der().to_vec(),
            shown,
            certificate: None,
            not_before: span.0,
            not_after: span.1,
            created_at: now,
        };
        let answer = move |request_id| {
            Reply::RegisterClientKey(RegisterClientKeyReply {
                client_key_id: id,
                key_algorithm: algorithm,
                not_before: span.0,
                not_after: span.1,
                request_id,
            })
        };
        Ok((AccessChange::AddClientKey(key), Box::new(answer)))
    }

    /// Makes a client key by which accounts of ACME are bound.
    fn plan_binding(&self, r: CreateAcmeBindingRequest, now: Timestamp) -> Result<(AccessChange, Answer)> {
        let (not_before, not_after) = span(r.not_before, r.not_after, now)?;
        let id = ClientKeyId::from_random(random::array()?);
        let hmac_key = Password::new(self.0.shared.login_tokens.binding_text(&id));
        let key = ClientKey {
            id: id.clone(),
            aap: r.aap_name,
            algorithm: ClientKeyAlgorithm::Acme,
            origin: ClientKeyOrigin::Kms,
            public_key: Vec::new(),
            shown: String::new(),
            certificate: None,
            not_before,
            not_after,
            created_at: now,
        };
        let answer = move |request_id| {
            Reply::CreateAcmeBinding(CreateAcmeBindingReply {
                client_key_id: id,
                hmac_key,
                not_before,
                not_after,
                request_id,
            })
        };
        Ok((AccessChange::AddClientKey(key), Box::new(answer)))
    }

    /// Makes a client key: its private half goes to the caller, its public half stays.
    pub(super) async fn make_client_key(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        WantedClientKey { aap, password, span }: WantedClientKey,
        deadline: Instant,
    ) -> Result<Done> {
        let wanted = Wanted {
            spec: KeySpec::Rsa2048,
            usage: KeyUsage::SignVerify,
            protection: ProtectionLevel::Software,
            bulk_mode: None,
            fallback: Fallback::Never,
            stays: false,
        };
        let made = self.generate(call, wanted, None, deadline).await?.key;
        let (KeyMaterial::Clear(material), Some(public)) = (made.material, made.public_key) else {
            return Err(Error::internal("a key of software has no material in clear, or no public half"));
        };
        let id = ClientKeyId::from_random(random::array()?);
        let named = id.clone();
        // The password takes its time to become a key.
        let serial = Serial::from_random(random::array()?);
        let validity = Validity { not_before: span.0, not_after: span.1 };
        let packaged = tokio::task::spawn_blocking(move || {
            client_key::package(&material, &named, validity, serial, password.expose())
        });
        let packaged = packaged.await.map_err(|_| Error::internal("the packaging was cut off"))??;
        let algorithm = ClientKeyAlgorithm::Rsa2048;
        let key = ClientKey {
            id: id.clone(),
            aap,
            algorithm,
            origin: ClientKeyOrigin::Kms,
            public_key: public.as_der().to_vec(),
            shown: packaged.certificate,
            certificate: None,
            not_before: span.0,
            not_after: span.1,
            created_at: self.now(),
        };
        let changed = actors.policy(ChangeAccess(AccessChange::AddClientKey(key))).await?;
        let reply = CreateClientKeyReply {
            client_key_id: id,
            key_algorithm: algorithm,
            not_before: span.0,
            not_after: span.1,
            private_key_data: packaged.pkcs12.into(),
            request_id: call.request_id,
        };
        Ok(done(Reply::CreateClientKey(reply), changed))
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

    pub(super) fn name_arn(&self, kind: &str, name: &str) -> String {
        let config = &self.0.shared.config;
        format!("acs:kms:{}:{}:{kind}/{name}", config.region, config.account)
    }
}

/// Has a TLS certificate stand for a client key.
fn plan_certificate(r: RegisterClientCertificateRequest, now: Timestamp) -> Result<(AccessChange, Answer)> {
    let (not_before, not_after) = span(r.not_before, r.not_after, now)?;
    let by = match (r.fingerprint, r.uri) {
        (Some(text), None) => KnownBy::fingerprint(&text)?,
        (None, Some(text)) => KnownBy::uri(&text)?,
        _ => {
            let why = "one of Fingerprint and Uri says what the certificate is known by";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
    };
    let id = ClientKeyId::from_random(random::array()?);
    let key = ClientKey {
        id: id.clone(),
        aap: r.aap_name,
        algorithm: ClientKeyAlgorithm::Certificate,
        origin: ClientKeyOrigin::User,
        public_key: Vec::new(),
        shown: by.to_string(),
        certificate: Some(by),
        not_before,
        not_after,
        created_at: now,
    };
    let answer = move |request_id| {
        Reply::RegisterClientCertificate(RegisterClientCertificateReply {
            client_key_id: id,
            not_before,
            not_after,
            request_id,
        })
    };
    Ok((AccessChange::AddClientKey(key), Box::new(answer)))
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

/// Reads which instance a policy is for.
fn instance(asked: Option<String>) -> Result<String> {
    match asked.as_deref() {
        None | Some(SHARED) => Ok(SHARED.to_owned()),
        Some(_) => Err(Error::new(ErrorKind::Unsupported, "KmsInstance: this server has no instances yet")),
    }
}

/// Reads for how long a client key is taken.
fn span(
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp)> {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
    let (default, most) = limit::CLIENT_KEY_YEARS;
    // To the second, as it is shown.
    let now = Timestamp::from_ms(now.as_s() * 1_000);
    let (from, until) = match (not_before, not_after) {
        (None, None) => (now, now.plus(YEAR * default as u32)),
        (Some(from), Some(until)) => (from, until),
        _ => return invalid("NotBefore and NotAfter come together".into()),
    };
    if until <= from || until <= now {
        return invalid("NotAfter lies behind NotBefore and in the future".into());
    }
    match until.since(from) <= YEAR * most as u32 {
        true => Ok((from, until)),
        false => invalid(format!("NotAfter is up to {most} years behind NotBefore")),
    }
}

/// Checks the password of a PKCS #12 against the cloud's rule.
fn check_password(password: &str) -> Result<()> {
    const SPECIAL: &str = "~!@#$%^&*?_-";
    let has = |kind: fn(char) -> bool| usize::from(password.chars().any(kind));
    let is_special = |c: char| SPECIAL.contains(c);
    let kinds = has(|c| c.is_ascii_digit())
        + has(|c| c.is_ascii_alphabetic())
        + usize::from(password.chars().any(is_special));
    let is_known = password.chars().all(|c| c.is_ascii_alphanumeric() || is_special(c));
    match (8..=64).contains(&password.len()) && kinds >= 2 && is_known {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidParameter,
            "Password has 8 to 64 characters, of two kinds at least of digits, letters and ~!@#$%^&*?_-",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_key_is_taken_for_five_years_or_as_its_maker_says() {
        let at = |s: u64| Timestamp::from_ms(s * 1_000);
        let now = Timestamp::from_ms(1_800_000_000_999);
        let (from, until) = span(None, None, now).unwrap();
        assert_eq!((from, until.since(from).as_secs()), (at(1_800_000_000), 5 * 365 * 86_400));
        let early = at(1_700_000_000);
        assert_eq!(span(Some(early), Some(at(1_800_000_001)), now).unwrap().0, early);
        let year = 365 * 86_400;
        for (from, until) in [
            (Some(at(5)), None),
            (None, Some(at(1_900_000_000))),
            (Some(at(1_900_000_000)), Some(at(1_900_000_000))),
            (Some(at(5)), Some(at(1_800_000_000))),
            (Some(at(1_800_000_000)), Some(at(1_800_000_001 + 10 * year))),
        ] {
            assert_eq!(span(from, until, now).unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
        span(Some(at(1_800_000_000)), Some(at(1_800_000_000 + 10 * year)), now).unwrap();
    }

    #[test]
    fn a_password_is_of_two_kinds_of_characters_and_shown_in_no_error() {
        for good in ["secret-1234", "abcdefg1", "1234567!", &"a1".repeat(32)] {
            check_password(good).unwrap();
        }
        for bad in
            ["", "abc1", "abcdefgh", "12345678", "abc def1", "пароль123", &"a1".repeat(33), "abcdefg1\n"]
        {
            let error = check_password(bad).unwrap_err();
            assert!(bad.is_empty() || !error.message().contains(bad), "{bad}");
        }
    }
}
