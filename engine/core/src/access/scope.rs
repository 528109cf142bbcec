//! What grants say of all keys, or secrets, at once. A list of a million keys asks about those that a grant names or that have a policy of their
//! own, and once about all others.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{AccessSnapshot, Principal, Question, Resource, ResourcePattern, decide};
use crate::id::{CmkId, SecretName};

/// Which resources of a kind are alike to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope<T> {
    /// Whether the caller may do it to every one that is not named, and has no policy of its own.
    pub others: bool,
    /// Those that a grant or policy of the caller names: each is decided by itself.
    pub named: BTreeSet<T>,
}

/// Tells what the principal may do that to which keys, as far as one decision holds for all; the resource asked about has no meaning.
pub fn scope(snapshot: &AccessSnapshot, asked: &Question<'_>) -> Scope<CmkId> {
    let named: BTreeSet<CmkId> = match &asked.principal.aap {
        None => patterns(snapshot, asked.principal).filter_map(ResourcePattern::key).collect(),
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

/// Tells what the principal may do that to which secrets, as [`scope`] does of keys.
pub fn scope_of_secrets(snapshot: &AccessSnapshot, asked: &Question<'_>) -> Scope<SecretName> {
    let named: BTreeSet<SecretName> = match &asked.principal.aap {
        None => {
            let named = patterns(snapshot, asked.principal).filter_map(ResourcePattern::secret);
            named.cloned().collect()
        }
        Some(aap) => {
            let permissions = snapshot.permissions(aap).unwrap_or_default();
            permissions.iter().flat_map(|policy| policy.secrets()).cloned().collect()
        }
    };
    let mut names = (0u32..).map(|n| SecretName::from_str(&n.to_string()).expect("digits are a name"));
    let unnamed = names.find(|name| !named.contains(name)).expect("fewer are named than there are names");
    let others = decide(snapshot, &Question { resource: Resource::Secret(&unnamed), ..*asked }, None).allowed;
    Scope { others, named }
}

/// Returns the resources that the grants of an access key are about.
fn patterns<'s>(
    snapshot: &'s AccessSnapshot,
    principal: &Principal,
) -> impl Iterator<Item = &'s ResourcePattern> {
    let key = snapshot.access_keys.get(&*principal.access_key);
    let grants = key.map_or(&[][..], |key| &key.grants);
    grants.iter().flat_map(|grant| &grant.resources)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{AccessKey, AccessKeyStatus, Effect, Grant, Role};
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

    fn secret(n: u128) -> SecretName {
        n.to_string().parse().unwrap()
    }

    fn any_grant() -> impl Strategy<Value = Grant> {
        let pattern = prop_oneof![
            Just(ResourcePattern::All),
            Just(ResourcePattern::AllKeys),
            Just(ResourcePattern::AllAccessKeys),
            // The ids that a key that nobody names is looked for among.
            (0u128..4).prop_map(|n| ResourcePattern::Key(id(n))),
            Just(ResourcePattern::AllSecrets),
            (0u128..4).prop_map(|n| ResourcePattern::Secret(secret(n))),
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
            let Scope { others, named } = scope_of_secrets(&snapshot, &asked);
            for n in (0..5).chain([unnamed]).map(secret).filter(|name| !named.contains(name)) {
                let asked = Question { resource: Resource::Secret(&n), ..asked };
                let decision = decide(&snapshot, &asked, None);
                prop_assert_eq!(decision.allowed, others, "secret {}", n);
            }
        }
    }

    #[test]
    fn who_is_not_there_may_see_nothing() {
        let gone = Principal::of_access_key("KMAK00000002".parse().unwrap());
        let seen = scope(&AccessSnapshot::default(), &asked(&gone, Operation::ListKeys));
        assert_eq!(seen, Scope { others: false, named: BTreeSet::new() });
        let seen = scope_of_secrets(&AccessSnapshot::default(), &asked(&gone, Operation::ListSecrets));
        assert_eq!(seen, Scope { others: false, named: BTreeSet::new() });
    }
}
