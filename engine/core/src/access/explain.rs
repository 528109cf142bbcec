//! What would be needed: a decision, told to whoever administers it.

use super::{Decision, KeyPolicy, Question, Resource, Role, Rule};
use crate::operation::Operation;

/// Tells in a sentence why it was decided so, and what would change it; `policy` is the one that it was decided by, if there is one.
pub fn explain(asked: &Question<'_>, decision: &Decision, policy: Option<&KeyPolicy>) -> String {
    let what = asked.operation.name();
    let on = match asked.resource {
        Resource::Key(id) => format!("key/{id}"),
        Resource::Keys => "key/*".to_owned(),
        Resource::Secret(name) => format!("secret/{name}"),
        Resource::Secrets => "secret/*".to_owned(),
        Resource::Certificate(id) => format!("certificate/{id}"),
        Resource::Authority(name) => format!("authority/{name}"),
        Resource::Certificates => "certificate/*".to_owned(),
        Resource::AccessKeys => "access-key/*".to_owned(),
        Resource::Aaps => "aap/*".to_owned(),
        Resource::Nothing => "any resource".to_owned(),
    };
    let roles = |may: fn(Role) -> bool| {
        let fit = Role::ALL.into_iter().filter(|role| role.covers(asked.operation) && may(*role));
        fit.map(Role::name).collect::<Vec<_>>().join(", ")
    };
    let whose = match asked.resource {
        Resource::Secret(_) => "secret",
        _ => "key",
    };
    match (&decision.rule, decision.allowed) {
        (Rule::Grant { index, role }, true) => {
            format!("grant {index} of the access key, {role}, allows it")
        }
        (Rule::Grant { index, role }, false) => {
            format!(
                "grant {index} of the access key, {role}, denies it, whatever else allows it: take it away"
            )
        }
        (Rule::Policy { name }, _) => format!("policy {name} of the access point allows it"),
        (Rule::Network { policy }, _) => match asked.source {
            Some(address) => format!(
                "policy {policy} allows it, but not from {address}: put the address into one of its network rules"
            ),
            None => format!(
                "policy {policy} allows it from the addresses of its network rules alone, and no address is given"
            ),
        },
        (Rule::Statement { index }, true) => {
            format!("statement {index} of the {whose}'s policy allows it by name")
        }
        (Rule::Statement { index }, false) => {
            format!(
                "statement {index} of the {whose}'s policy denies it, whatever else allows it: take it away"
            )
        }
        (Rule::Condition { index }, _) => {
            let unmet = policy.and_then(|policy| policy.unmet(*index, asked)).unwrap_or_default();
            format!(
                "statement {index} of the {whose}'s policy would allow it, but a condition does not hold: {unmet}"
            )
        }
        (Rule::KeyPolicy, _) => format!(
            "the caller's own rights allow it, but the {whose}'s policy leaves {what} to nobody's: it needs a statement that allows kms:{what} \
             to the account (acs:ram::<account>:*), or to the caller by name"
        ),
        (Rule::NotValidNow, _) => "the client key is not taken at this time".to_owned(),
        (Rule::NoSuchPrincipal, _) => match asked.principal.aap {
            None => "there is no such access key, or it is inactive".to_owned(),
            Some(_) => "there is no such client key of this access point".to_owned(),
        },
        (Rule::Default, _) => match &asked.principal.aap {
            _ if !is_given(asked.operation) => {
                format!("{what} is carried out by other rights: no role gives it")
            }
            None => format!("nothing allows it: the access key needs a grant of {} on {on}", roles(|_| true)),
            Some(_) => match roles(Role::is_for_applications).as_str() {
                "" => format!("nothing allows it, and no policy of an access point can give {what}"),
                fit => format!("nothing allows it: the access point needs a policy with {fit} on {on}"),
            },
        },
    }
}

/// Tells whether a role gives it.
fn is_given(operation: Operation) -> bool {
    Role::ALL.into_iter().any(|role| role.covers(operation))
}

#[cfg(test)]
mod tests {
    use super::super::{PolicyTarget, Principal};
    use super::*;
    use crate::id::CmkId;
    use crate::time::Timestamp;

    #[test]
    fn each_rule_is_told_with_what_would_change_it() {
        let key = Principal::of_access_key("KMAK00000001".parse().unwrap());
        let app = Principal::of_client_key("KMAK00000001".parse().unwrap(), "shop".parse().unwrap());
        let document = r#"{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":"acs:ram::1:*"},"Action":"kms:*",
            "Resource":"*","Condition":{"StringEquals":{"kms:EncryptionContext:tenant":["a","b"]}}}]}"#;
        let policy = KeyPolicy::of(PolicyTarget { account: "1", arn: None }, document).unwrap();
        let told = |principal: &Principal, operation, allowed, rule| {
            let source = Some("10.0.0.1".parse().unwrap());
            let resource = Resource::Key(CmkId::from_bytes([1; 16]));
            let now = Timestamp::from_ms(0);
            let asked = Question { principal, operation, resource, source, now, spec: None, context: None };
            explain(&asked, &Decision { allowed, rule }, Some(&policy))
        };
        let encrypt = Operation::Encrypt;
        let name = || "orders".parse().unwrap();
        for (principal, operation, allowed, rule, words) in [
            (
                &key,
                encrypt,
                true,
                Rule::Grant { index: 2, role: Role::Root.into() },
                vec!["grant 2", "Root", "allows"],
            ),
            (
                &key,
                encrypt,
                false,
                Rule::Grant { index: 0, role: Role::Root.into() },
                vec!["denies", "take it away"],
            ),
            (&key, encrypt, false, Rule::Statement { index: 1 }, vec!["statement 1", "denies"]),
            (&key, encrypt, true, Rule::Statement { index: 1 }, vec!["by name"]),
            (
                &key,
                encrypt,
                false,
                Rule::Condition { index: 0 },
                vec!["statement 0", r#"kms:EncryptionContext:tenant StringEquals "a", "b""#],
            ),
            (&key, encrypt, false, Rule::KeyPolicy, vec!["kms:Encrypt"]),
            (&key, encrypt, false, Rule::Default, vec!["Root", "CryptoServiceKeyUser", "key/01010101-"]),
            (
                &app,
                encrypt,
                false,
                Rule::Default,
                vec!["policy with RbacPermission/Template/CryptoServiceKeyUser on"],
            ),
            (
                &app,
                Operation::CreateKey,
                false,
                Rule::Default,
                vec!["no policy of an access point can give CreateKey"],
            ),
            (&app, encrypt, true, Rule::Policy { name: name() }, vec!["policy orders"]),
            (&app, encrypt, false, Rule::Network { policy: name() }, vec!["not from 10.0.0.1"]),
            (&app, encrypt, false, Rule::NotValidNow, vec!["not taken at this time"]),
            (&app, encrypt, false, Rule::NoSuchPrincipal, vec!["no such client key"]),
            (&key, encrypt, false, Rule::NoSuchPrincipal, vec!["no such access key"]),
        ] {
            let text = told(principal, operation, allowed, rule.clone());
            assert!(words.iter().all(|word| text.contains(word)), "{rule:?}: {text}");
        }
        let root_alone = told(&app, Operation::DisableKey, false, Rule::Default);
        assert!(root_alone.contains("can give DisableKey"), "{root_alone}");
    }
}
