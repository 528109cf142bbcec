//! Key policies: what a key's own document says of who may do what with it, beside what access keys are granted. The document is the cloud's:
//! `{"Version": "1", "Statement": [{"Effect", "Principal": {"RAM": […]}, "Action": […], "Resource": […]}]}`.
//!
//! | principal | whom it speaks of |
//! |---|---|
//! | `acs:ram::<account>:*` | in an `Allow`: those whom a grant of their access key allows it; in a `Deny`: everybody |
//! | `acs:ram::<account>:access-key/<id>` | that access key, whatever it is granted |
//! | `acs:ram::<account>:aap/<name>` | that application access point, whatever its policies say |
//! | `*` | everybody; in a `Deny` alone |
//!
//! A statement can have conditions (see `condition.rs`). Secrets have policies of the same language, which speak of the rights
//! to secrets. A key or a secret without a policy has the one of [`default_document`]. An action of a single operation speaks of its batch form,
//! too.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::condition::{self, Conditions};
use super::operation_set::{OperationSet, clip};
use super::{Effect, Question};
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{AapName, AccessKeyId};
use crate::limit;
use crate::operation::Operation;

/// The document of a key, read; clones share it.
#[derive(Clone)]
pub struct KeyPolicy(Arc<Parts>);

struct Parts {
    /// As it was given.
    document: Box<str>,
    statements: Box<[Statement]>,
}

/// One statement.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    principals: Principals,
    operations: OperationSet,
    conditions: Conditions,
}

/// Whom a statement speaks of.
#[derive(Debug, Default)]
struct Principals {
    everybody: bool,
    /// Those whom a grant allows it.
    granted: bool,
    named: BTreeSet<AccessKeyId>,
    aaps: BTreeSet<AapName>,
}

/// What a policy is of: it may name nothing else.
#[derive(Clone, Copy, Debug)]
pub struct PolicyTarget<'a> {
    /// The account of the installation.
    pub account: &'a str,
    /// The ARN of the key or the secret; `None` for a key that is yet to be made.
    pub arn: Option<&'a str>,
}

impl PolicyTarget<'_> {
    /// Tells whether it is a secret: its ARN says so.
    fn is_secret(&self) -> bool {
        let resource = self.arn.and_then(|arn| arn.splitn(5, ':').nth(4));
        resource.is_some_and(|resource| resource.starts_with("secret/"))
    }

    /// Returns the operations that are rights to it, and what it is called.
    fn rights(&self) -> (fn(Operation) -> bool, &'static str) {
        match self.is_secret() {
            true => (Operation::is_right_to_a_secret, "secret"),
            false => (Operation::is_right_to_a_key, "key"),
        }
    }
}

/// Returns the document of a key that was given none: what access keys are granted decides.
pub fn default_document(account: &str) -> String {
    format!(
        r#"{{"Version":"1","Statement":[{{"Sid":"default","Effect":"Allow","Principal":{{"RAM":["acs:ram::{account}:*"]}},"Action":["kms:*"],"Resource":["*"]}}]}}"#
    )
}

impl KeyPolicy {
    /// Reads the document of a key.
    ///
    /// # Errors
    /// `InvalidParameter` naming what is wrong, `LimitExceeded` past 32,768 bytes or 64 statements.
    pub fn of(target: PolicyTarget<'_>, document: &str) -> Result<Self> {
        if document.len() > limit::POLICY_BYTES {
            let why =
                format!("Policy of {} bytes exceeds the limit of {}", document.len(), limit::POLICY_BYTES);
            return Err(Error::new(ErrorKind::LimitExceeded(Limit::PolicyBytes), why));
        }
        Self::read(Some(target), document)
    }

    fn read(target: Option<PolicyTarget<'_>>, document: &str) -> Result<Self> {
        let read: Document =
            serde_json::from_str(document).map_err(|error| invalid(shown(&error.to_string())))?;
        if read.version != "1" {
            return Err(invalid("Version is not \"1\"".into()));
        }
        if read.statement.is_empty() || read.statement.len() > limit::POLICY_STATEMENTS {
            let why = format!(
                "Statement has {} entries, not 1 to {}",
                read.statement.len(),
                limit::POLICY_STATEMENTS
            );
            return Err(invalid(why));
        }
        let statements = read.statement.into_iter().enumerate().map(|(at, statement)| {
            statement.compile(target).map_err(|why| invalid(format!("Statement {at}: {why}")))
        });
        let statements = statements.collect::<Result<_>>()?;
        Ok(Self(Arc::new(Parts { document: document.into(), statements })))
    }

    /// Returns the document as it was given.
    pub fn document(&self) -> &str {
        &self.0.document
    }

    /// Tells whether what it says depends on the encryption context of a request.
    pub fn reads_context(&self) -> bool {
        self.statements().iter().any(|statement| statement.conditions.read_context())
    }

    /// Tells whether what it says depends on the specification of the key.
    pub fn reads_spec(&self) -> bool {
        self.statements().iter().any(|statement| statement.conditions.read_spec())
    }

    /// Returns the first condition of a statement that does not hold, as it was written.
    pub(super) fn unmet(&self, index: u16, asked: &Question<'_>) -> Option<String> {
        self.statements().get(usize::from(index))?.conditions.unmet(asked)
    }

    /// Returns the access keys that it names.
    pub fn named(&self) -> impl Iterator<Item = &AccessKeyId> {
        self.0.statements.iter().flat_map(|statement| &statement.principals.named)
    }

    /// Returns the application access points that it names.
    pub fn named_aaps(&self) -> impl Iterator<Item = &AapName> {
        self.0.statements.iter().flat_map(|statement| &statement.principals.aaps)
    }

    pub(super) fn statements(&self) -> &[Statement] {
        &self.0.statements
    }
}

/// What a statement says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Nothing,
    /// Allows it to those whom a grant allows it.
    Delegates,
    Allows,
    Denies,
    /// Would allow it, or leave it to grants, if its conditions held.
    Unmet {
        /// Whether it would allow it by itself.
        by_name: bool,
    },
}

impl Statement {
    pub(super) fn says(&self, asked: &Question<'_>) -> Says {
        if !self.operations.has(asked.operation) {
            return Says::Nothing;
        }
        let caller = asked.principal;
        let Principals { everybody, granted, named, aaps } = &self.principals;
        let is_named = match &caller.aap {
            None => named.contains(&*caller.access_key),
            Some(aap) => aaps.contains(aap),
        };
        let speaks = match self.effect {
            Effect::Deny => *everybody || *granted || is_named,
            Effect::Allow => *granted || is_named,
        };
        // Asked last: most statements are about others, and have none.
        match self.effect {
            _ if !speaks => Says::Nothing,
            Effect::Deny if self.conditions.hold(asked) => Says::Denies,
            Effect::Deny => Says::Nothing,
            Effect::Allow if !self.conditions.hold(asked) => Says::Unmet { by_name: is_named },
            Effect::Allow if is_named => Says::Allows,
            Effect::Allow => Says::Delegates,
        }
    }
}

/// The document as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: String,
    statement: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    #[serde(default, rename = "Sid")]
    _sid: Option<String>,
    effect: Effect,
    principal: WrittenPrincipal,
    action: OneOrMany,
    resource: OneOrMany,
    #[serde(default)]
    condition: condition::Written,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrincipal {
    #[serde(rename = "RAM")]
    ram: OneOrMany,
}

/// A text, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_list(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }

    fn listed(&self, what: &str) -> std::result::Result<&[String], String> {
        let all = match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        };
        match all.is_empty() {
            true => Err(format!("{what} is empty")),
            false => Ok(all),
        }
    }
}

impl Written {
    fn compile(&self, target: Option<PolicyTarget<'_>>) -> std::result::Result<Statement, String> {
        let mut principals = Principals::default();
        for principal in self.principal.ram.listed("Principal")? {
            principals.add(principal, self.effect, target.map(|target| target.account))?;
        }
        // What was checked when it was set is asked of its own kind of resource alone.
        let either = |operation: Operation| operation.is_right_to_a_key() || operation.is_right_to_a_secret();
        let (is_right, what) =
            target.map_or((either as fn(Operation) -> bool, "key"), |target| target.rights());
        let mut operations = OperationSet::default();
        for action in self.action.listed("Action")? {
            operations.add_action(action, is_right, what)?;
        }
        for resource in self.resource.listed("Resource")? {
            check_resource(resource, target)?;
        }
        let conditions = Conditions::of(&self.condition)?;
        if target.is_some_and(|target| target.is_secret())
            && (conditions.read_context() || conditions.read_spec())
        {
            return Err("Condition: a secret has no kms:KeySpec and no kms:EncryptionContext".into());
        }
        Ok(Statement { effect: self.effect, principals, operations, conditions })
    }
}

impl Principals {
    fn add(
        &mut self,
        principal: &str,
        effect: Effect,
        account: Option<&str>,
    ) -> std::result::Result<(), String> {
        if principal == "*" {
            self.everybody = true;
            return match effect {
                Effect::Deny => Ok(()),
                Effect::Allow => Err("principal * is for Deny alone".into()),
            };
        }
        let unknown = || {
            let principal = clip(principal);
            format!(
                "principal {principal:?} is not acs:ram::<account>:*, acs:ram::<account>:access-key/<id>, …:aap/<name> or *"
            )
        };
        let rest = principal.strip_prefix("acs:ram::").ok_or_else(unknown)?;
        let (of, who) = rest.split_once(':').ok_or_else(unknown)?;
        if account.is_some_and(|account| account != of) {
            return Err(format!("principal {:?} is of another account", clip(principal)));
        }
        match who.split_once('/') {
            None if who == "*" => self.granted = true,
            Some(("access-key", id)) => drop(self.named.insert(id.parse().map_err(|_| unknown())?)),
            Some(("aap", name)) => drop(self.aaps.insert(name.parse().map_err(|_| unknown())?)),
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn check_resource(resource: &str, target: Option<PolicyTarget<'_>>) -> std::result::Result<(), String> {
    match target {
        _ if resource == "*" => Ok(()),
        None => Ok(()),
        Some(PolicyTarget { arn: Some(arn), .. }) if arn == resource => Ok(()),
        Some(target) => {
            let (_, what) = target.rights();
            Err(format!("resource {:?} is neither * nor the ARN of the {what}", clip(resource)))
        }
    }
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("Policy: {why}"))
}

/// Returns what is shown of a message that may quote the document.
fn shown(message: &str) -> String {
    message.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

// The names of access keys are no secrets, but a document is long.
impl fmt::Debug for KeyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPolicy({} statements)", self.0.statements.len())
    }
}

impl PartialEq for KeyPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.0.document == other.0.document
    }
}

impl Serialize for KeyPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.document)
    }
}

/// Reads what was checked when it was set: a document that names what this version does not know makes the record one that does not open.
impl<'de> Deserialize<'de> for KeyPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let document = crate::id::Text::deserialize(deserializer)?;
        KeyPolicy::read(None, &document.0).map_err(|error| de::Error::custom(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Principal, Resource};
    use super::*;
    use crate::time::Timestamp;

    const TARGET: PolicyTarget<'static> =
        PolicyTarget { account: "1", arn: Some("acs:kms:local:1:key/00000000-0000-4000-8000-000000000001") };

    fn document(statement: &str) -> String {
        format!(r#"{{"Version":"1","Statement":[{statement}]}}"#)
    }

    fn statement(effect: &str, principal: &str, action: &str, resource: &str) -> String {
        document(&format!(
            r#"{{"Effect":"{effect}","Principal":{{"RAM":["{principal}"]}},"Action":["{action}"],"Resource":["{resource}"]}}"#
        ))
    }

    fn statement_of(effect: &str, principal: &str) -> String {
        format!(
            r#"{{"Effect":"{effect}","Principal":{{"RAM":["{principal}"]}},"Action":["kms:*"],"Resource":["*"]}}"#
        )
    }

    fn refused(document: &str) -> String {
        KeyPolicy::of(TARGET, document).unwrap_err().message().to_owned()
    }

    fn says(document: &str, operation: Operation) -> Says {
        let policy = KeyPolicy::of(TARGET, document).unwrap();
        said(&policy, &Principal::of_access_key("KMAK0000000A".parse().unwrap()), operation)
    }

    fn said(policy: &KeyPolicy, principal: &Principal, operation: Operation) -> Says {
        policy.statements()[0].says(&Question {
            principal,
            operation,
            resource: Resource::Keys,
            source: None,
            now: Timestamp::from_ms(0),
            spec: None,
            context: None,
        })
    }

    /// D8: what is not known is refused when it is written, and nothing is a prefix of anything by chance.
    #[test]
    fn d8_what_a_document_may_not_say_is_named() {
        let all = "acs:ram::1:*";
        let arn = TARGET.arn.unwrap();
        for (wrong, told) in [
            (String::new(), "EOF"),
            ("[]".into(), "expected"),
            (document(""), "Statement has 0 entries"),
            (r#"{"Version":"2","Statement":[]}"#.into(), "Version"),
            (r#"{"Version":"1","Version":"1","Statement":[]}"#.into(), "duplicate field"),
            (format!(r#"{{"Version":"1","\u0007{}":1}}"#, "x".repeat(5_000)), "unknown field `?xxx"),
            (format!("{} x", default_document("1")), "trailing"),
            (statement("allow", all, "kms:*", "*"), "allow"),
            (statement("Allow", "*", "kms:*", "*"), "Deny alone"),
            (statement("Allow", "acs:ram::2:*", "kms:*", "*"), "another account"),
            (statement("Allow", "acs:ram::1:user/alice", "kms:*", "*"), "access-key/<id>"),
            (statement("Allow", "KMAK0000000A", "kms:*", "*"), "principal"),
            (statement("Allow", all, "kms:encrypt", "*"), "case matters"),
            (statement("Allow", all, "kms:Encryp", "*"), "names no operation"),
            (statement("Allow", all, "Encrypt", "*"), "does not begin with kms:"),
            (statement("Allow", all, "kms:Enc*pt", "*"), "names no operation"),
            (statement("Allow", all, "kms:*rypt*", "*"), "names no operation"),
            (statement("Allow", all, "kms:", "*"), "names no operation"),
            (statement("Allow", all, "kms:CreateKey", "*"), "is not decided on a key"),
            (statement("Allow", all, "kms:ReEncrypt", "*"), "is not decided on a key"),
            (statement("Allow", all, "kms:*", "key/*"), "neither * nor the ARN"),
            (statement("Allow", all, "kms:*", &format!("{arn}0")), "neither * nor the ARN"),
            (statement("Allow", all, "kms:*", &arn[..arn.len() - 1]), "neither * nor the ARN"),
            (
                document(r#"{"Effect":"Allow","Principal":{"RAM":[]},"Action":["kms:*"],"Resource":["*"]}"#),
                "Principal is empty",
            ),
            (
                document(r#"{"Effect":"Deny","Principal":{"RAM":"*"},"Action":[],"Resource":["*"]}"#),
                "Action is empty",
            ),
            (
                document(r#"{"Effect":"Deny","Principal":{"RAM":"*"},"Action":"kms:*","Resource":[]}"#),
                "Resource is empty",
            ),
            (
                document(
                    r#"{"Effect":"Deny","Principal":{"RAM":"*"},"Action":"kms:*","Resource":"*","Condition":[]}"#,
                ),
                "Condition",
            ),
            (
                document(
                    r#"{"Effect":"Deny","Principal":{"RAM":"*"},"Action":"kms:*","Resource":"*","Condition":{"Bool":{"acs:SecureTransport":"true"}}}"#,
                ),
                "Statement 0: Condition: operator",
            ),
            (
                document(
                    r#"{"Effect":"Deny","Principal":{"RAM":"*"},"Action":"kms:*","Resource":"*","Condition":{},"Condition":{}}"#,
                ),
                "duplicate field",
            ),
            (
                document(r#"{"Effect":"Deny","Principal":{"RAM":"*"},"NotAction":"kms:*","Resource":"*"}"#),
                "NotAction",
            ),
        ] {
            let message = refused(&wrong);
            assert!(message.starts_with("Policy: ") && message.contains(told), "{wrong}: {message}");
        }
        let long = statement("Allow", all, &format!("kms:{}", "x".repeat(40_000)), "*");
        assert!(refused(&long).contains("exceeds the limit"));
    }

    #[test]
    fn the_default_leaves_everything_to_grants_and_names_survive_the_record() {
        let document = default_document("1");
        assert_eq!(says(&document, Operation::Decrypt), Says::Delegates);
        let policy = KeyPolicy::of(TARGET, &document).unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<KeyPolicy>(&json).unwrap(), policy);
        assert_eq!(policy.document(), document);
    }

    #[test]
    fn the_policy_of_a_secret_speaks_of_rights_to_secrets() {
        let arn = "acs:kms:local:1:secret/db/key:1";
        let secret = PolicyTarget { account: "1", arn: Some(arn) };
        let all = "acs:ram::1:*";
        let policy = KeyPolicy::of(secret, &statement("Allow", all, "kms:*", arn)).unwrap();
        let caller = Principal::of_access_key("KMAK0000000A".parse().unwrap());
        let says = |operation| said(&policy, &caller, operation);
        assert_eq!(says(Operation::GetSecretValue), Says::Delegates);
        assert_eq!((says(Operation::Decrypt), says(Operation::CreateSecret)), (Says::Nothing, Says::Nothing));
        let of_key = PolicyTarget { account: "1", arn: Some("acs:kms:local:1:key/x") };
        for (target, action, told) in [
            (secret, "kms:Decrypt", "is not decided on a secret"),
            (secret, "kms:CreateSecret", "is not decided on a secret"),
            (of_key, "kms:GetSecretValue", "is not decided on a key"),
        ] {
            let error = KeyPolicy::of(target, &statement("Allow", all, action, "*")).unwrap_err();
            assert!(error.message().contains(told), "{error}");
        }
        // What a secret does not have would always be another.
        for condition in [
            r#"{"StringNotEquals":{"kms:EncryptionContext:env":"prod"}}"#,
            r#"{"StringNotLike":{"kms:KeySpec":"RSA_*"}}"#,
        ] {
            let document = statement("Allow", all, "kms:*", "*");
            let document = document.replace("}]}", &format!(r#","Condition":{condition}}}]}}"#));
            let error = KeyPolicy::of(secret, &document).unwrap_err();
            assert!(error.message().contains("a secret has no kms:KeySpec"), "{document}: {error}");
            KeyPolicy::of(TARGET, &document).unwrap();
        }
        let other = KeyPolicy::of(secret, &statement("Allow", all, "kms:*", "acs:kms:local:1:secret/other"));
        assert!(other.unwrap_err().message().contains("neither * nor the ARN of the secret"));
        // What is read back from its record says the same.
        let json = serde_json::to_string(&policy).unwrap();
        let back: KeyPolicy = serde_json::from_str(&json).unwrap();
        assert_eq!(said(&back, &caller, Operation::GetSecretValue), Says::Delegates);
    }

    /// An access point is no access key, whatever either is called.
    #[test]
    fn an_access_point_is_named_as_one() {
        let one = |who: &str| document(&statement_of("Allow", &format!("acs:ram::1:{who}")));
        let policy = |who: &str| KeyPolicy::of(TARGET, &one(who)).unwrap();
        let app = Principal::of_client_key("KMAK0000000A".parse().unwrap(), "shop-1234".parse().unwrap());
        let key = Principal::of_access_key("shop-1234".parse().unwrap());
        for (who, app_is, key_is) in [
            ("aap/shop-1234", Says::Allows, Says::Nothing),
            ("access-key/shop-1234", Says::Nothing, Says::Allows),
            ("access-key/KMAK0000000A", Says::Nothing, Says::Nothing),
        ] {
            let says = |caller| said(&policy(who), caller, Operation::Encrypt);
            assert_eq!((says(&app), says(&key)), (app_is, key_is), "{who}");
        }
        assert!(refused(&one("aap/a b")).contains("principal"));
        assert!(refused(&one("aap/")).contains("principal"));
        assert_eq!(policy("aap/shop-1234").named_aaps().count(), 1);
    }

    #[test]
    fn an_action_takes_its_batch_form_along_and_wildcards_take_their_prefix() {
        let named = "acs:ram::1:access-key/KMAK0000000A";
        let decrypt = statement("Deny", named, "kms:Decrypt", "*");
        assert_eq!(says(&decrypt, Operation::BatchDecrypt), Says::Denies);
        assert_eq!(says(&decrypt, Operation::Encrypt), Says::Nothing);
        let batch = statement("Allow", named, "kms:BatchDecrypt", "*");
        assert_eq!(says(&batch, Operation::BatchDecrypt), Says::Allows);
        assert_eq!(says(&batch, Operation::Decrypt), Says::Nothing);
        let gets = statement("Allow", named, "kms:Get*", "*");
        assert_eq!(says(&gets, Operation::GetPublicKey), Says::Allows);
        assert_eq!(says(&gets, Operation::GenerateDataKey), Says::Nothing);
        let other = statement("Allow", "acs:ram::1:access-key/KMAK0000000B", "kms:*", "*");
        assert_eq!(says(&other, Operation::Encrypt), Says::Nothing);
        let twice = document(
            r#"{"Effect":"Deny","Principal":{"RAM":"*"},"Action":["kms:*","kms:Encrypt","kms:Get*"],"Resource":"*"}"#,
        );
        assert_eq!(says(&twice, Operation::GetKeyPolicy), Says::Denies);
    }
}
