//! The one decision: pure, deny by default, explicit deny wins, order of grants and statements without effect.

use std::borrow::Cow;
use std::fmt;

use super::key_policy::Says;
use super::{AccessKeyStatus, AccessSnapshot, Effect, KeyPolicy, Principal, ResourcePattern, Role};
use crate::id::CmkId;
use crate::operation::Operation;

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// One key.
    Key(CmkId),
    /// The keys as a whole: creating one, listing them (rows are decided one by one).
    Keys,
    /// Access keys.
    AccessKeys,
    /// Nothing in particular.
    Nothing,
}

/// The answer, with the rule that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the operation may go on.
    pub allowed: bool,
    /// What decided.
    pub rule: Rule,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The grant of that number, from 0, of the caller's access key.
    Grant {
        /// Its place among the access key's grants.
        index: u16,
        /// Its role.
        role: Role,
    },
    /// The statement of that number, from 0, of the key's policy.
    Statement {
        /// Its place among the statements.
        index: u16,
    },
    /// A grant allows it, but the key's policy leaves it to nobody's grants.
    KeyPolicy,
    /// Neither a grant nor a statement speaks of it.
    Default,
    /// The access key is gone or inactive.
    NoSuchPrincipal,
}

impl Rule {
    /// Returns the rule as the audit writes it.
    pub fn to_text(self) -> Cow<'static, str> {
        match self {
            Rule::Default => Cow::Borrowed("default"),
            Rule::NoSuchPrincipal => Cow::Borrowed("no-principal"),
            Rule::KeyPolicy => Cow::Borrowed("key-policy"),
            Rule::Grant { .. } | Rule::Statement { .. } => Cow::Owned(self.to_string()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Grant { index, role } => write!(f, "grant {index} {}", role.name()),
            Rule::Statement { index } => write!(f, "key-policy {index}"),
            Rule::KeyPolicy => f.write_str("key-policy"),
            Rule::Default => f.write_str("default"),
            Rule::NoSuchPrincipal => f.write_str("no-principal"),
        }
    }
}

/// Tells whether `principal` may do `operation` on `resource`, and by which rule; `policy` is that of the key, where it was given one.
///
/// What denies, denies. Then a grant allows what the key's policy leaves to grants, which one that was never set does with everything; and a
/// statement allows it to those whom it names. Nobody is locked out of a key for good: `Root` finds it, and sees and sets its policy, whatever
/// that says.
pub fn decide(
    snapshot: &AccessSnapshot,
    principal: &Principal,
    operation: Operation,
    resource: Resource,
    policy: Option<&KeyPolicy>,
) -> Decision {
    let Some(key) = snapshot.access_keys.get(&*principal.access_key) else {
        return Decision { allowed: false, rule: Rule::NoSuchPrincipal };
    };
    if key.status != AccessKeyStatus::Active {
        return Decision { allowed: false, rule: Rule::NoSuchPrincipal };
    }
    let mut granted = None;
    let mut is_root = false;
    for (index, grant) in key.grants.iter().enumerate() {
        // What is about nothing in particular (DescribeLimits) needs a role, but no resource; a deny of one key leaves it alone.
        let unbound = resource == Resource::Nothing && grant.effect == Effect::Allow;
        if !grant.role.covers(operation)
            || !(unbound || grant.resources.iter().any(|pattern| pattern.covers(resource)))
        {
            continue;
        }
        let rule = Rule::Grant { index: index as u16, role: grant.role };
        match grant.effect {
            Effect::Deny => return Decision { allowed: false, rule },
            Effect::Allow => {
                is_root |= grant.role == Role::Root;
                granted = granted.or(Some(rule));
            }
        }
    }
    match policy {
        Some(policy) if !(is_root && keeps_keys_manageable(operation)) => {
            by_policy(policy, principal, operation, granted)
        }
        _ => Decision { allowed: granted.is_some(), rule: granted.unwrap_or(Rule::Default) },
    }
}

/// Decides by a key's policy, and by the grant that allows the operation, if one does.
fn by_policy(
    policy: &KeyPolicy,
    principal: &Principal,
    operation: Operation,
    granted: Option<Rule>,
) -> Decision {
    let (mut allowed, mut delegates) = (None, false);
    for (index, statement) in policy.statements().iter().enumerate() {
        let rule = Rule::Statement { index: index as u16 };
        match statement.says(&principal.access_key, operation) {
            Says::Denies => return Decision { allowed: false, rule },
            Says::Allows => allowed = allowed.or(Some(rule)),
            Says::Delegates => delegates = true,
            Says::Nothing => {}
        }
    }
    match granted.filter(|_| delegates).or(allowed) {
        Some(rule) => Decision { allowed: true, rule },
        None if granted.is_some() => Decision { allowed: false, rule: Rule::KeyPolicy },
        None => Decision { allowed: false, rule: Rule::Default },
    }
}

/// Tells whether it is what finds a policy that locks everybody out, and mends it.
fn keeps_keys_manageable(operation: Operation) -> bool {
    use Operation::*;
    matches!(operation, ListKeys | DescribeKey | GetKeyPolicy | SetKeyPolicy)
}

impl ResourcePattern {
    /// Tells whether the pattern covers the resource.
    pub fn covers(&self, resource: Resource) -> bool {
        match (self, resource) {
            (ResourcePattern::All, _) => true,
            (ResourcePattern::AllKeys, Resource::Key(_) | Resource::Keys) => true,
            // Whoever may list one key may ask for the list; each row is decided on its own.
            (ResourcePattern::Key(_), Resource::Keys) => false,
            (ResourcePattern::Key(own), Resource::Key(asked)) => *own == asked,
            (ResourcePattern::AllAccessKeys, Resource::AccessKeys) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccessKey, Grant, PolicyTarget};
    use super::*;
    use crate::Sensitive;
    use crate::id::AccessKeyId;
    use crate::time::Timestamp;
    use proptest::prelude::*;
    use std::sync::Arc;

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
        ]);
        (any::<bool>(), prop::sample::select(Role::ALL.to_vec()), prop::collection::vec(pattern, 0..3))
            .prop_map(|(deny, role, resources)| Grant {
                effect: if deny { Effect::Deny } else { Effect::Allow },
                role,
                resources,
            })
    }

    fn any_question() -> impl Strategy<Value = (Operation, Resource)> {
        (
            prop::sample::select(Operation::ALL.to_vec()),
            prop::sample::select(vec![
                Resource::Key(A),
                Resource::Key(B),
                Resource::Keys,
                Resource::AccessKeys,
                Resource::Nothing,
            ]),
        )
    }

    fn allowed(grants: &[Grant], statements: &[String], question: (Operation, Resource)) -> bool {
        let (snapshot, principal) = snapshot(grants.to_vec(), AccessKeyStatus::Active);
        let policy = policy(statements);
        decide(&snapshot, &principal, question.0, question.1, policy.as_ref()).allowed
    }

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

    fn any_statement() -> impl Strategy<Value = (Effect, String)> {
        let principal = prop::sample::select(vec![GRANTED, CALLER, OTHER]);
        let name = prop::sample::select(Operation::ALL.to_vec())
            .prop_filter("a right to a key", |operation| operation.is_right_to_a_key())
            .prop_map(|operation| format!("\"kms:{}\"", operation.name()));
        let action = prop_oneof![Just("\"kms:*\"".to_owned()), name];
        (any::<bool>(), principal, prop::collection::vec(action, 1..4)).prop_map(
            |(deny, principal, actions)| {
                let effect = if deny { Effect::Deny } else { Effect::Allow };
                (effect, statement(effect, principal, &actions.join(",")))
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

    #[test]
    fn a_policy_takes_and_gives_and_root_can_mend_it() {
        let key = Resource::Key(A);
        let user = [Grant {
            effect: Effect::Allow,
            role: Role::CryptoServiceKeyUser,
            resources: vec![ResourcePattern::AllKeys],
        }];
        let root = [Grant { effect: Effect::Allow, role: Role::Root, resources: vec![ResourcePattern::All] }];
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
        let root =
            vec![Grant { effect: Effect::Allow, role: Role::Root, resources: vec![ResourcePattern::All] }];
        for operation in Operation::ALL {
            assert!(!allowed(&[], &[], (operation, Resource::Key(A))));
            let (snapshot, principal) = snapshot(root.clone(), AccessKeyStatus::Inactive);
            assert!(!decide(&snapshot, &principal, operation, Resource::Key(A), None).allowed);
            let gone = Principal::of_access_key("KMAK00000002".parse().unwrap());
            let decision = decide(&snapshot, &gone, operation, Resource::Key(A), None);
            assert_eq!(decision.rule, Rule::NoSuchPrincipal);
        }
    }
}
