//! The one decision: pure, deny by default, explicit deny wins, order of grants without effect.

use std::borrow::Cow;
use std::fmt;

use super::{AccessKeyStatus, AccessSnapshot, Effect, Principal, ResourcePattern, Role};
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
    /// No grant speaks of it.
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
            Rule::Grant { .. } => Cow::Owned(self.to_string()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Grant { index, role } => write!(f, "grant {index} {}", role.name()),
            Rule::Default => f.write_str("default"),
            Rule::NoSuchPrincipal => f.write_str("no-principal"),
        }
    }
}

/// Tells whether `principal` may do `operation` on `resource`, and by which rule.
pub fn decide(
    snapshot: &AccessSnapshot,
    principal: &Principal,
    operation: Operation,
    resource: Resource,
) -> Decision {
    let Some(key) = snapshot.access_keys.get(&*principal.access_key) else {
        return Decision { allowed: false, rule: Rule::NoSuchPrincipal };
    };
    if key.status != AccessKeyStatus::Active {
        return Decision { allowed: false, rule: Rule::NoSuchPrincipal };
    }
    let mut decision = Decision { allowed: false, rule: Rule::Default };
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
            Effect::Allow if !decision.allowed => decision = Decision { allowed: true, rule },
            Effect::Allow => {}
        }
    }
    decision
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
    use super::super::{AccessKey, Grant};
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

    fn allowed(grants: &[Grant], (operation, resource): (Operation, Resource)) -> bool {
        let (snapshot, principal) = snapshot(grants.to_vec(), AccessKeyStatus::Active);
        decide(&snapshot, &principal, operation, resource).allowed
    }

    proptest! {
        #[test]
        fn adding_an_allow_removes_nothing_and_adding_a_deny_gives_nothing(
            grants in prop::collection::vec(any_grant(), 0..6), extra in any_grant(), question in any_question()
        ) {
            let before = allowed(&grants, question);
            let mut more = grants;
            let effect = extra.effect;
            more.push(extra);
            let after = allowed(&more, question);
            match effect {
                Effect::Allow => prop_assert!(after || !before),
                Effect::Deny => prop_assert!(!after || before),
            }
        }

        #[test]
        fn order_never_matters(grants in prop::collection::vec(any_grant(), 0..6), question in any_question()) {
            let mut reversed = grants.clone();
            reversed.reverse();
            prop_assert_eq!(allowed(&grants, question), allowed(&reversed, question));
        }
    }

    #[test]
    fn nothing_is_allowed_by_default_nor_to_a_key_that_is_gone_or_inactive() {
        let root =
            vec![Grant { effect: Effect::Allow, role: Role::Root, resources: vec![ResourcePattern::All] }];
        for operation in Operation::ALL {
            assert!(!allowed(&[], (operation, Resource::Key(A))));
            let (snapshot, principal) = snapshot(root.clone(), AccessKeyStatus::Inactive);
            assert!(!decide(&snapshot, &principal, operation, Resource::Key(A)).allowed);
            let gone = Principal::of_access_key("KMAK00000002".parse().unwrap());
            assert_eq!(decide(&snapshot, &gone, operation, Resource::Key(A)).rule, Rule::NoSuchPrincipal);
        }
    }
}
