//! The one decision: pure, deny by default, explicit deny wins, order of grants, policies and statements without effect.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::key_policy::Says;
use super::permission::Permits;
use super::{AccessKeyStatus, AccessSnapshot, Effect, KeyPolicy, Principal, ResourcePattern, Role, RoleRef};
use crate::context::EncryptionContext;
use crate::id::{AapName, AuthorityName, CertificateId, CmkId, PolicyName, SecretName};
use crate::key::KeySpec;
use crate::operation::Operation;
use crate::time::Timestamp;

/// Who asks to do what, with what, from where, and when.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// To do what.
    pub operation: Operation,
    /// With what.
    pub resource: Resource<'a>,
    /// The address that the request came from; `None` inside this process.
    pub source: Option<IpAddr>,
    /// When it is decided.
    pub now: Timestamp,
    /// The specification of the key, where it is about one that is there.
    pub spec: Option<KeySpec>,
    /// The encryption context that it is to be done under, where it has one.
    pub context: Option<&'a EncryptionContext>,
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// One key.
    Key(CmkId),
    /// The keys as a whole: creating one, listing them (rows are decided one by one).
    Keys,
    /// One secret.
    Secret(&'a SecretName),
    /// The secrets as a whole.
    Secrets,
    /// One certificate.
    Certificate(CertificateId),
    /// The certificates as a whole, and the authorities that sign them.
    Certificates,
    /// One authority that signs certificates.
    Authority(&'a AuthorityName),
    /// Access keys.
    AccessKeys,
    /// Access points, with their client keys, policies and network rules.
    Aaps,
    /// Nothing in particular.
    Nothing,
}

/// The answer, with the rule that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the operation may go on.
    pub allowed: bool,
    /// What decided.
    pub rule: Rule,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The grant of that number, from 0, of the caller's access key.
    Grant {
        /// Its place among the access key's grants.
        index: u16,
        /// Its role.
        role: RoleRef,
    },
    /// The statement of that number, from 0, of the policy of the key or the secret.
    Statement {
        /// Its place among the statements.
        index: u16,
    },
    /// The statement of that number, from 0, of the key's policy would allow it if its conditions held.
    Condition {
        /// Its place among the statements.
        index: u16,
    },
    /// A policy of the caller's access point.
    Policy {
        /// Its name.
        name: PolicyName,
    },
    /// A policy of the caller's access point would allow it from another address.
    Network {
        /// Its name.
        policy: PolicyName,
    },
    /// A grant or a policy of the caller allows it, but the policy of the key or the secret leaves it to nobody's grants.
    KeyPolicy,
    /// Neither a grant, nor a policy, nor a statement speaks of it.
    Default,
    /// The access key is gone or inactive, or the client key or its access point is gone.
    NoSuchPrincipal,
    /// The client key is not taken yet, or not any more.
    NotValidNow,
}

impl Rule {
    /// Returns the rule as the audit writes it.
    pub fn to_text(&self) -> Cow<'static, str> {
        match self {
            Rule::Default => Cow::Borrowed("default"),
            Rule::NoSuchPrincipal => Cow::Borrowed("no-principal"),
            Rule::NotValidNow => Cow::Borrowed("not-valid-now"),
            Rule::KeyPolicy => Cow::Borrowed("key-policy"),
            Rule::Grant { .. }
            | Rule::Statement { .. }
            | Rule::Condition { .. }
            | Rule::Policy { .. }
            | Rule::Network { .. } => Cow::Owned(self.to_string()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Grant { index, role } => write!(f, "grant {index} {role}"),
            Rule::Statement { index } => write!(f, "key-policy {index}"),
            Rule::Condition { index } => write!(f, "key-policy {index} condition"),
            Rule::Policy { name } => write!(f, "policy {name}"),
            Rule::Network { policy } => write!(f, "network {policy}"),
            Rule::Default | Rule::NoSuchPrincipal | Rule::NotValidNow | Rule::KeyPolicy => {
                f.write_str(&self.to_text())
            }
        }
    }
}

/// Tells whether the principal may do that, and by which rule; `policy` is that of the key or the secret, where it was given one.
///
/// What denies, denies. Then a grant of an access key, or a policy of an access point, allows what the key's policy leaves to grants, which
/// one that was never set does with everything; and a statement allows it to those whom it names. Nobody is locked out of a key for good:
/// `Root` finds it, and sees and sets its policy, whatever that says.
pub fn decide(snapshot: &AccessSnapshot, asked: &Question<'_>, policy: Option<&KeyPolicy>) -> Decision {
    let allows = match &asked.principal.aap {
        None => by_grants(snapshot, asked),
        Some(aap) => by_policies(snapshot, asked, aap),
    };
    let Allows { granted, is_root, otherwise } = match allows {
        Ok(allows) => allows,
        Err(rule) => return Decision { allowed: false, rule },
    };
    match policy {
        Some(policy) if !(is_root && keeps_keys_manageable(asked.operation)) => {
            by_policy(policy, asked, granted, otherwise)
        }
        _ => Decision { allowed: granted.is_some(), rule: granted.unwrap_or(otherwise) },
    }
}

/// What the caller's own grants or policies come to, where none of them denies.
struct Allows {
    /// The first that allows it.
    granted: Option<Rule>,
    /// Whether it is one of `Root`.
    is_root: bool,
    /// What is to be said where none does.
    otherwise: Rule,
}

/// Looks for a grant of an access key.
///
/// # Errors
/// The rule that denies.
fn by_grants(snapshot: &AccessSnapshot, asked: &Question<'_>) -> Result<Allows, Rule> {
    let key = snapshot.access_keys.get(&*asked.principal.access_key).ok_or(Rule::NoSuchPrincipal)?;
    if key.status != AccessKeyStatus::Active {
        return Err(Rule::NoSuchPrincipal);
    }
    let mut granted = None;
    let mut is_root = false;
    for (index, grant) in key.grants.iter().enumerate() {
        // What is about nothing in particular (DescribeLimits) needs a role, but no resource; a deny of one key leaves it alone.
        let unbound = asked.resource == Resource::Nothing && grant.effect == Effect::Allow;
        if !snapshot.covers(&grant.role, asked.operation)
            || !(unbound || grant.resources.iter().any(|pattern| pattern.covers(asked.resource)))
        {
            continue;
        }
        let rule = || Rule::Grant { index: index as u16, role: grant.role.clone() };
        match grant.effect {
            Effect::Deny => return Err(rule()),
            Effect::Allow => {
                is_root |= grant.role.is(Role::Root);
                granted = granted.or_else(|| Some(rule()));
            }
        }
    }
    Ok(Allows { granted, is_root, otherwise: Rule::Default })
}

/// Looks for a policy of an access point.
///
/// # Errors
/// The rule that lets its client key do nothing at all.
fn by_policies(snapshot: &AccessSnapshot, asked: &Question<'_>, aap: &AapName) -> Result<Allows, Rule> {
    let key = snapshot.client_key(&asked.principal.access_key).filter(|key| key.aap == *aap);
    let permissions = snapshot.permissions(aap).ok_or(Rule::NoSuchPrincipal)?;
    if !key.ok_or(Rule::NoSuchPrincipal)?.is_valid_at(asked.now) || !asked.principal.is_at(asked.now) {
        return Err(Rule::NotValidNow);
    }
    let mut allows = Allows { granted: None, is_root: false, otherwise: Rule::Default };
    for policy in permissions {
        let name = || policy.name().clone();
        match policy.permits(asked.operation, asked.resource, asked.source) {
            Permits::Allows => {
                allows.granted = Some(Rule::Policy { name: name() });
                break;
            }
            Permits::Elsewhere if allows.otherwise == Rule::Default => {
                allows.otherwise = Rule::Network { policy: name() };
            }
            Permits::Elsewhere | Permits::Nothing => {}
        }
    }
    Ok(allows)
}

/// Decides by a key's policy, and by what allows the operation, if anything does.
fn by_policy(policy: &KeyPolicy, asked: &Question<'_>, granted: Option<Rule>, otherwise: Rule) -> Decision {
    let (mut allowed, mut delegates, mut unmet) = (None, false, None);
    let is_granted = granted.is_some();
    for (index, statement) in policy.statements().iter().enumerate() {
        let rule = Rule::Statement { index: index as u16 };
        match statement.says(asked) {
            Says::Denies => return Decision { allowed: false, rule },
            Says::Allows => allowed = allowed.or(Some(rule)),
            Says::Delegates => delegates = true,
            Says::Unmet { by_name } if by_name || is_granted => {
                unmet = unmet.or(Some(Rule::Condition { index: index as u16 }));
            }
            Says::Unmet { .. } | Says::Nothing => {}
        }
    }
    match (granted.filter(|_| delegates).or(allowed), unmet) {
        (Some(rule), _) => Decision { allowed: true, rule },
        (None, Some(rule)) => Decision { allowed: false, rule },
        (None, None) if is_granted => Decision { allowed: false, rule: Rule::KeyPolicy },
        (None, None) => Decision { allowed: false, rule: otherwise },
    }
}

/// Tells whether it is what finds a policy that locks everybody out, and mends it.
fn keeps_keys_manageable(operation: Operation) -> bool {
    use Operation::*;
    matches!(operation, ListKeys | DescribeKey | GetKeyPolicy | SetKeyPolicy)
        || matches!(operation, ListSecrets | DescribeSecret | GetSecretPolicy | SetSecretPolicy)
}

impl ResourcePattern {
    /// Tells whether the pattern covers the resource.
    pub fn covers(&self, resource: Resource<'_>) -> bool {
        match (self, resource) {
            (ResourcePattern::All, _) => true,
            (ResourcePattern::AllKeys, Resource::Key(_) | Resource::Keys) => true,
            // Whoever may list one key may ask for the list; each row is decided on its own.
            (ResourcePattern::Key(_), Resource::Keys) => false,
            (ResourcePattern::Key(own), Resource::Key(asked)) => *own == asked,
            (ResourcePattern::AllSecrets, Resource::Secret(_) | Resource::Secrets) => true,
            (ResourcePattern::Secret(own), Resource::Secret(asked)) => own == asked,
            (ResourcePattern::AllCertificates, Resource::Certificate(_) | Resource::Certificates) => true,
            (ResourcePattern::AllCertificates, Resource::Authority(_)) => true,
            (ResourcePattern::Certificate(own), Resource::Certificate(asked)) => *own == asked,
            (ResourcePattern::Authority(own), Resource::Authority(asked)) => own == asked,
            (ResourcePattern::AllAccessKeys, Resource::AccessKeys) => true,
            (ResourcePattern::AllAaps, Resource::Aaps) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Aap, AccessControlRules, AccessKey, ClientKey, ClientKeyAlgorithm, ClientKeyOrigin, Edit, Grant,
        NetworkRule, PermissionPolicy, PolicyTarget, SHARED,
    };
    use super::*;
    use crate::Sensitive;
    use crate::id::{AccessKeyId, ClientKeyId};
    use proptest::prelude::*;
    use std::sync::{Arc, LazyLock};

    fn snapshot(grants: Vec<Grant>, status: AccessKeyStatus) -> (AccessSnapshot, Principal) {
        let id: AccessKeyId = "KMAK00000001".parse().unwrap();
        let key = AccessKey {
            id: id.clone(),
            secret: Sensitive::copied(b"s"),
            description: String::new(),
            status,
            grants,
            created_at: Timestamp::from_ms(0),
        };
        let mut snapshot = AccessSnapshot::default();
        snapshot.access_keys.insert(id.clone(), Arc::new(key));
        (snapshot, Principal::of_access_key(id))
    }

    const A: CmkId = CmkId::from_bytes([1; 16]);
    const B: CmkId = CmkId::from_bytes([2; 16]);

    fn any_grant() -> impl Strategy<Value = Grant> {
        let pattern = prop::sample::select(vec![
            ResourcePattern::All,
            ResourcePattern::AllKeys,
            ResourcePattern::Key(A),
            ResourcePattern::Key(B),
            ResourcePattern::AllAccessKeys,
            ResourcePattern::AllSecrets,
            ResourcePattern::AllCertificates,
        ]);
        (any::<bool>(), prop::sample::select(Role::ALL.to_vec()), prop::collection::vec(pattern, 0..3))
            .prop_map(|(deny, role, resources)| Grant {
                effect: if deny { Effect::Deny } else { Effect::Allow },
                role: role.into(),
                resources,
            })
    }

    fn any_question() -> impl Strategy<Value = (Operation, Resource<'static>)> {
        (
            prop::sample::select(Operation::ALL.to_vec()),
            prop::sample::select(vec![
                Resource::Key(A),
                Resource::Key(B),
                Resource::Keys,
                Resource::Secrets,
                Resource::Certificates,
                Resource::AccessKeys,
                Resource::Nothing,
            ]),
        )
    }

    fn allowed(grants: &[Grant], statements: &[String], question: (Operation, Resource<'_>)) -> bool {
        let (snapshot, principal) = snapshot(grants.to_vec(), AccessKeyStatus::Active);
        let policy = policy(statements);
        decide(&snapshot, &asked(&principal, question), policy.as_ref()).allowed
    }

    fn asked<'a>(principal: &'a Principal, (operation, resource): (Operation, Resource<'a>)) -> Question<'a> {
        // What is done with the one key has a context, and with the other has none.
        let (spec, context) = match resource {
            Resource::Key(A) => (Some(KeySpec::Aes256), Some(&*OF_A)),
            Resource::Key(_) => (Some(KeySpec::Rsa2048), None),
            _ => (None, None),
        };
        Question { principal, operation, resource, source: None, now: Timestamp::from_ms(0), spec, context }
    }

    static OF_A: LazyLock<EncryptionContext> =
        LazyLock::new(|| EncryptionContext::from_pairs([("tenant", "a")]).expect("a context"));

    /// Makes a policy of statements; of none where there are none.
    fn policy(statements: &[String]) -> Option<KeyPolicy> {
        let document = format!(r#"{{"Version":"1","Statement":[{}]}}"#, statements.join(","));
        let target = PolicyTarget { account: "1", arn: None };
        (!statements.is_empty()).then(|| KeyPolicy::of(target, &document).unwrap())
    }

    fn statement(effect: Effect, principal: &str, actions: &str) -> String {
        format!(
            r#"{{"Effect":"{effect:?}","Principal":{{"RAM":"{principal}"}},"Action":[{actions}],"Resource":"*"}}"#
        )
    }

    const GRANTED: &str = "acs:ram::1:*";
    const CALLER: &str = "acs:ram::1:access-key/KMAK00000001";
    const OTHER: &str = "acs:ram::1:access-key/KMAK00000002";

    fn any_condition() -> impl Strategy<Value = Option<&'static str>> {
        prop::option::of(prop::sample::select(vec![
            r#"{"StringEquals":{"kms:EncryptionContext:tenant":"a"}}"#,
            r#"{"StringNotEquals":{"kms:EncryptionContext:tenant":["a","b"]}}"#,
            r#"{"StringLike":{"kms:KeySpec":"Aliyun_*"}}"#,
            r#"{"IpAddress":{"acs:SourceIp":"10.0.0.0/8"}}"#,
            r#"{"NotIpAddress":{"acs:SourceIp":"10.0.0.0/8"},"DateLessThan":{"acs:CurrentTime":"1970-01-01T00:00:02Z"}}"#,
        ]))
    }

    fn any_statement() -> impl Strategy<Value = (Effect, String)> {
        let principal = prop::sample::select(vec![GRANTED, CALLER, OTHER]);
        let name = prop::sample::select(Operation::ALL.to_vec())
            .prop_filter("a right to a key", |operation| operation.is_right_to_a_key())
            .prop_map(|operation| format!("\"kms:{}\"", operation.name()));
        let action = prop_oneof![Just("\"kms:*\"".to_owned()), name];
        (any::<bool>(), principal, prop::collection::vec(action, 1..4), any_condition()).prop_map(
            |(deny, principal, actions, condition)| {
                let effect = if deny { Effect::Deny } else { Effect::Allow };
                let mut text = statement(effect, principal, &actions.join(","));
                if let Some(condition) = condition {
                    text.truncate(text.len() - 1);
                    text.push_str(&format!(r#","Condition":{condition}}}"#));
                }
                (effect, text)
            },
        )
    }

    fn texts(statements: &[(Effect, String)]) -> Vec<String> {
        statements.iter().map(|(_, text)| text.clone()).collect()
    }

    proptest! {
        #[test]
        fn adding_an_allow_removes_nothing_and_adding_a_deny_gives_nothing(
            grants in prop::collection::vec(any_grant(), 0..6), statements in prop::collection::vec(any_statement(), 0..4),
            extra in any_grant(), question in any_question()
        ) {
            let statements = texts(&statements);
            let before = allowed(&grants, &statements, question);
            let mut more = grants;
            let effect = extra.effect;
            more.push(extra);
            let after = allowed(&more, &statements, question);
            match effect {
                Effect::Allow => prop_assert!(after || !before),
                Effect::Deny => prop_assert!(!after || before),
            }
        }

        #[test]
        fn a_statement_that_allows_removes_nothing_and_one_that_denies_gives_nothing(
            grants in prop::collection::vec(any_grant(), 0..6), statements in prop::collection::vec(any_statement(), 1..4),
            extra in any_statement(), question in any_question()
        ) {
            let statements = texts(&statements);
            let before = allowed(&grants, &statements, question);
            let mut more = statements;
            more.push(extra.1);
            let after = allowed(&grants, &more, question);
            match extra.0 {
                Effect::Allow => prop_assert!(after || !before),
                Effect::Deny => prop_assert!(!after || before),
            }
        }

        #[test]
        fn order_never_matters(
            grants in prop::collection::vec(any_grant(), 0..6), statements in prop::collection::vec(any_statement(), 0..4),
            question in any_question()
        ) {
            let statements = texts(&statements);
            let (mut reversed, mut backwards) = (grants.clone(), statements.clone());
            reversed.reverse();
            backwards.reverse();
            prop_assert_eq!(allowed(&grants, &statements, question), allowed(&reversed, &backwards, question));
        }
    }

    /// An application with these policies, each with these network rules, asks from an address.
    fn application_is_allowed(policies: &[Written], statements: &[String], question: Asked) -> bool {
        let mut snapshot = AccessSnapshot::default();
        for (name, network) in [("here", "10.0.0.0/8"), ("there", "192.168.0.0/16")] {
            let sources = [network.to_owned()];
            let rule = NetworkRule::new(name.parse().unwrap(), String::new(), &sources).unwrap();
            snapshot.apply(Edit::PutNetworkRule(rule));
        }
        let mut names = Vec::new();
        for (at, (roles, resources, rules)) in policies.iter().enumerate() {
            let name: PolicyName = format!("p{at}").parse().unwrap();
            let rules = serde_json::json!({ "NetworkRules": rules }).to_string();
            snapshot.apply(Edit::PutPolicy(PermissionPolicy {
                name: name.clone(),
                description: String::new(),
                instance: SHARED.into(),
                permissions: roles.iter().map(|role| RoleRef::from(*role)).collect(),
                resources: resources.clone(),
                access_control: AccessControlRules::parse(&rules).unwrap(),
                created_at: Timestamp::from_ms(0),
            }));
            names.push(name);
        }
        let aap: AapName = "app".parse().unwrap();
        let created_at = Timestamp::from_ms(0);
        let description = String::new();
        snapshot.apply(Edit::PutAap(Aap { name: aap.clone(), description, policies: names, created_at }));
        let key = ClientKey {
            id: ClientKeyId::from_random([7; 16]),
            aap: aap.clone(),
            algorithm: ClientKeyAlgorithm::Rsa2048,
            origin: ClientKeyOrigin::Kms,
            public_key: Vec::new(),
            shown: String::new(),
            certificate: None,
            not_before: Timestamp::from_ms(1_000),
            not_after: Timestamp::from_ms(2_000),
            created_at,
        };
        let principal = Principal::of_client_key(AccessKeyId::from(&key.id), aap);
        snapshot.apply(Edit::PutClientKey(key));
        let ((operation, resource), source, now) = question;
        let now = Timestamp::from_ms(now);
        let asked = Question { source, now, ..asked(&principal, (operation, resource)) };
        decide(&snapshot, &asked, policy(statements).as_ref()).allowed
    }

    /// Roles, resources, network rules.
    type Written = (Vec<Role>, Vec<ResourcePattern>, Vec<&'static str>);
    /// Operation and resource, from where, and when in milliseconds.
    type Asked = ((Operation, Resource<'static>), Option<IpAddr>, u64);

    fn any_policy() -> impl Strategy<Value = Written> {
        let role = prop::sample::select(vec![Role::CryptoServiceKeyUser, Role::CryptoServiceSecretUser]);
        let resource = prop::sample::select(vec![
            ResourcePattern::AllKeys,
            ResourcePattern::Key(A),
            ResourcePattern::Key(B),
            ResourcePattern::AllSecrets,
        ]);
        let rules = prop::collection::vec(prop::sample::select(vec!["here", "there"]), 0..3);
        (prop::collection::vec(role, 0..3), prop::collection::vec(resource, 0..3), rules)
    }

    fn any_asked() -> impl Strategy<Value = Asked> {
        let sources = [None, Some("10.1.2.3"), Some("::ffff:10.1.2.3"), Some("192.168.0.1"), Some("9.9.9.9")];
        let sources = sources.map(|source| source.map(|text| text.parse::<IpAddr>().unwrap()));
        let source = prop::sample::select(sources.to_vec());
        // Mostly in the time of the client key.
        let now = prop_oneof![8 => Just(1_500u64), 1 => Just(999u64), 1 => Just(2_000u64)];
        (any_question(), source, now)
    }

    proptest! {
        #[test]
        fn another_policy_of_an_access_point_removes_nothing_and_order_never_matters(
            policies in prop::collection::vec(any_policy(), 0..4), extra in any_policy(), asked in any_asked(),
            statements in prop::collection::vec(any_statement(), 0..4)
        ) {
            let statements = texts(&statements);
            let before = application_is_allowed(&policies, &statements, asked);
            let mut backwards = policies.clone();
            backwards.reverse();
            prop_assert_eq!(before, application_is_allowed(&backwards, &statements, asked));
            let mut more = policies;
            more.push(extra);
            prop_assert!(!before || application_is_allowed(&more, &statements, asked));
        }

        /// From nowhere else, at no other time, and nothing but the use of keys.
        #[test]
        fn what_an_access_point_may_do_is_bounded_by_time_network_and_role(
            policies in prop::collection::vec(any_policy(), 0..4), asked in any_asked()
        ) {
            let ((operation, _), source, now) = asked;
            if application_is_allowed(&policies, &[], asked) {
                prop_assert!((1_000..2_000).contains(&now));
                prop_assert!(Role::CryptoServiceKeyUser.covers(operation) || Role::CryptoServiceSecretUser.covers(operation));
                let named = |(.., rules): &Written| rules.is_empty() || source.is_some();
                prop_assert!(policies.iter().any(named));
            }
        }
    }

    /// Each side of a condition: who is left to grants or named under one, and a deny that holds for those who have no context, too.
    #[test]
    fn a_statement_speaks_only_where_its_conditions_hold() {
        let user = [Grant {
            effect: Effect::Allow,
            role: Role::CryptoServiceKeyUser.into(),
            resources: vec![ResourcePattern::AllKeys],
        }];
        let under = |effect: Effect, principal: &str, condition: &str| {
            let text = statement(effect, principal, r#""kms:*""#);
            format!(r#"{},"Condition":{condition}}}"#, &text[..text.len() - 1])
        };
        let rule = |grants: &[Grant], statements: &[String], key: CmkId| {
            let (snapshot, principal) = snapshot(grants.to_vec(), AccessKeyStatus::Active);
            let asked = asked(&principal, (Operation::Encrypt, Resource::Key(key)));
            decide(&snapshot, &asked, policy(statements).as_ref())
        };
        let tenant = r#"{"StringEquals":{"kms:EncryptionContext:tenant":"a"}}"#;
        let unmet = Decision { allowed: false, rule: Rule::Condition { index: 0 } };
        let left = [under(Effect::Allow, GRANTED, tenant)];
        assert!(rule(&user, &left, A).allowed);
        assert_eq!(rule(&user, &left, B), unmet);
        // Whoever has no grant either is not told of it.
        assert_eq!(rule(&[], &left, B).rule, Rule::Default);
        let named = [under(Effect::Allow, CALLER, tenant)];
        assert!(rule(&[], &named, A).allowed);
        assert_eq!(rule(&[], &named, B), unmet);
        let all = statement(Effect::Allow, GRANTED, r#""kms:*""#);
        let others = under(Effect::Deny, "*", r#"{"StringNotEquals":{"kms:EncryptionContext:tenant":"a"}}"#);
        let denied = [all, others];
        assert!(rule(&user, &denied, A).allowed);
        assert_eq!(rule(&user, &denied, B), Decision { allowed: false, rule: Rule::Statement { index: 1 } });
    }

    #[test]
    fn a_policy_takes_and_gives_and_root_can_mend_it() {
        let key = Resource::Key(A);
        let user = [Grant {
            effect: Effect::Allow,
            role: Role::CryptoServiceKeyUser.into(),
            resources: vec![ResourcePattern::AllKeys],
        }];
        let root =
            [Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] }];
        let encrypt = (Operation::Encrypt, key);
        let named = |principal: &str, actions: &str| vec![statement(Effect::Allow, principal, actions)];
        assert!(allowed(&user, &[], encrypt));
        assert!(allowed(&user, &named(GRANTED, r#""kms:*""#), encrypt));
        // Left to nobody's grants: those who are not named are out.
        assert!(!allowed(&user, &named(OTHER, r#""kms:*""#), encrypt));
        assert!(!allowed(&user, &named(GRANTED, r#""kms:Decrypt""#), encrypt));
        // Named: no grant is needed, for what is named.
        assert!(allowed(&[], &named(CALLER, r#""kms:Encrypt""#), encrypt));
        assert!(!allowed(&[], &named(CALLER, r#""kms:Encrypt""#), (Operation::Decrypt, key)));
        assert!(!allowed(&[], &named(GRANTED, r#""kms:*""#), encrypt));
        let shut = [statement(Effect::Deny, "*", r#""kms:*""#)];
        for operation in Operation::ALL {
            let is_open = !operation.is_right_to_a_key();
            assert!(is_open || !allowed(&user, &shut, (operation, key)));
            let mends = keeps_keys_manageable(operation);
            assert!(is_open || allowed(&root, &shut, (operation, key)) == mends);
        }
        let mut denied = root.to_vec();
        denied.push(Grant { effect: Effect::Deny, ..root[0].clone() });
        assert!(!allowed(&denied, &shut, (Operation::SetKeyPolicy, key)));
    }

    #[test]
    fn nothing_is_allowed_by_default_nor_to_a_key_that_is_gone_or_inactive() {
        let root = vec![Grant {
            effect: Effect::Allow,
            role: Role::Root.into(),
            resources: vec![ResourcePattern::All],
        }];
        for operation in Operation::ALL {
            assert!(!allowed(&[], &[], (operation, Resource::Key(A))));
            let (snapshot, principal) = snapshot(root.clone(), AccessKeyStatus::Inactive);
            let question = (operation, Resource::Key(A));
            assert!(!decide(&snapshot, &asked(&principal, question), None).allowed);
            let gone = Principal::of_access_key("KMAK00000002".parse().unwrap());
            let decision = decide(&snapshot, &asked(&gone, question), None);
            assert_eq!(decision.rule, Rule::NoSuchPrincipal);
        }
    }
}
