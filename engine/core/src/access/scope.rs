//! What grants say of all keys at once. A list of a million keys asks about those that a grant names or that have a policy of their own, and
//! once about all others.

use std::collections::BTreeSet;

use super::{AccessSnapshot, Question, Resource, ResourcePattern, decide};
use crate::id::CmkId;

/// Which keys are alike to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Whether the caller may do it to every key that is not named, and has no policy of its own.
    pub others: bool,
    /// Keys that a grant of the caller names: each is decided by itself.
    pub named: BTreeSet<CmkId>,
}

/// Tells what the principal may do that to, as far as one decision holds for all keys; the resource asked about has no meaning.
pub fn scope(snapshot: &AccessSnapshot, asked: &Question<'_>) -> Scope {
    let named: BTreeSet<CmkId> = match &asked.principal.aap {
        None => {
            let key = snapshot.access_keys.get(&*asked.principal.access_key);
            let grants = key.map_or(&[][..], |key| &key.grants);
            let patterns = grants.iter().flat_map(|grant| &grant.resources);
            patterns.filter_map(ResourcePattern::key).collect()
        }
        Some(aap) => {
            let permissions = snapshot.permissions(aap).unwrap_or_default();
            permissions.iter().flat_map(|policy| policy.keys()).copied().collect()
        }
    };
    let mut ids = (0u128..).map(|n| CmkId::from_bytes(n.to_be_bytes()));
    let unnamed = ids.find(|id| !named.contains(id)).expect("grants name fewer keys than there are ids");
    let others = decide(snapshot, &Question { resource: Resource::Key(unnamed), ..*asked }, None).allowed;
    Scope { others, named }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{AccessKey, AccessKeyStatus, Effect, Grant, Principal, Role};
    use super::*;
    use crate::Sensitive;
    use crate::operation::Operation;
    use crate::time::Timestamp;

    fn asked(principal: &Principal, operation: Operation) -> Question<'_> {
        Question {
            principal,
            operation,
            resource: Resource::Keys,
            source: None,
            now: Timestamp::from_ms(0),
            spec: None,
            context: None,
        }
    }

    fn id(n: u128) -> CmkId {
        CmkId::from_bytes(n.to_be_bytes())
    }

    fn any_grant() -> impl Strategy<Value = Grant> {
        let pattern = prop_oneof![
            Just(ResourcePattern::All),
            Just(ResourcePattern::AllKeys),
            Just(ResourcePattern::AllAccessKeys),
            // The ids that a key that nobody names is looked for among.
            (0u128..4).prop_map(|n| ResourcePattern::Key(id(n))),
        ];
        let role = prop::sample::select(Role::ALL.to_vec());
        (any::<bool>(), role, prop::collection::vec(pattern, 0..3)).prop_map(|(deny, role, resources)| {
            Grant { effect: if deny { Effect::Deny } else { Effect::Allow }, role: role.into(), resources }
        })
    }

    proptest! {
        #[test]
        fn what_holds_for_the_others_is_what_each_of_them_is_told(
            grants in prop::collection::vec(any_grant(), 0..6),
            operation in prop::sample::select(Operation::ALL.to_vec()),
            is_active in prop::bool::weighted(0.9),
            unnamed in 4u128..,
        ) {
            let principal = Principal::of_access_key("KMAK00000001".parse().unwrap());
            let key = AccessKey {
                id: (*principal.access_key).clone(),
                secret: Sensitive::copied(b"s"),
                description: String::new(),
                status: if is_active { AccessKeyStatus::Active } else { AccessKeyStatus::Inactive },
                grants,
                created_at: Timestamp::from_ms(0),
            };
            let mut snapshot = AccessSnapshot::default();
            snapshot.access_keys.insert(key.id.clone(), Arc::new(key));
            let asked = asked(&principal, operation);
            let Scope { others, named } = scope(&snapshot, &asked);
            for n in (0..5).chain([unnamed]).filter(|n| !named.contains(&id(*n))) {
                let asked = Question { resource: Resource::Key(id(n)), ..asked };
                let decision = decide(&snapshot, &asked, None);
                prop_assert_eq!(decision.allowed, others, "key {}", n);
            }
        }
    }

    #[test]
    fn who_is_not_there_may_see_nothing() {
        let gone = Principal::of_access_key("KMAK00000002".parse().unwrap());
        let seen = scope(&AccessSnapshot::default(), &asked(&gone, Operation::ListKeys));
        assert_eq!(seen, Scope { others: false, named: BTreeSet::new() });
    }
}
