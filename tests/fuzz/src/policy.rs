//! Policies of keys: a document that is taken is kept to the byte and decides the same when it is read again from its record; one statement
//! more that denies gives nobody anything.

use std::net::Ipv4Addr;
use std::sync::Arc;

use keymill_core::access::{
    AccessKey, AccessKeyStatus, AccessSnapshot, Effect, Grant, KeyPolicy, PolicyTarget, Principal, Question,
    Resource, ResourcePattern, Role, decide, default_document,
};
use keymill_core::error::Limit;
use keymill_core::id::{AccessKeyId, CmkId};
use keymill_core::key::KeySpec;
use keymill_core::operation::Operation;
use keymill_core::{EncryptionContext, ErrorKind, Sensitive, Timestamp, limit};

use crate::memory::{room, within};
use crate::target::{Seed, tells};

const ARN: &str = "acs:kms:local:1:key/00000000-0000-4000-8000-00000000000f";

/// Reads the document, and asks for every operation by those whom it names.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(document) = std::str::from_utf8(bytes) else { return };
    let target = PolicyTarget { account: "1", arn: Some(ARN) };
    let policy = match within(room(8 * bytes.len()), || KeyPolicy::of(target, document)) {
        Ok(policy) => policy,
        Err(error) => {
            tells(&error);
            let is_long = document.len() > limit::POLICY_BYTES;
            let expected = if is_long {
                ErrorKind::LimitExceeded(Limit::PolicyBytes)
            } else {
                ErrorKind::InvalidParameter
            };
            assert_eq!(error.kind(), expected);
            return;
        }
    };
    assert_eq!(policy.document(), document);
    let record = serde_json::to_string(&policy).expect("a text has a JSON form");
    let again: KeyPolicy = serde_json::from_str(&record).expect("what was taken is taken again");
    let denied = with_a_denial(document);
    let access = administrators(policy.named().take(4).chain([&"KMAK00000000".parse().expect("an id")]));
    let context = EncryptionContext::from_pairs([("tenant", "a")]).expect("a context");
    let key = Resource::Key(CmkId::from_bytes([1; 16]));
    for id in access.access_keys.keys() {
        let principal = Principal::of_access_key(id.clone());
        for operation in Operation::ALL.into_iter().filter(|operation| operation.is_right_to_a_key()) {
            // With all that a condition reads, and with nothing of it.
            let has_facts = operation as usize % 2 == 0;
            let question = Question {
                principal: &principal,
                operation,
                resource: key,
                source: has_facts.then(|| Ipv4Addr::LOCALHOST.into()),
                now: Timestamp::from_ms(0),
                spec: has_facts.then_some(KeySpec::Aes256),
                context: has_facts.then_some(&context),
            };
            let asked = |policy| decide(&access, &question, Some(policy));
            assert_eq!(asked(&policy), asked(&again));
            if let Some(denied) = &denied {
                assert!(!asked(denied).allowed, "{operation:?}");
            }
        }
    }
}

/// Makes access keys that may do everything with keys, but are not root.
fn administrators<'a>(ids: impl Iterator<Item = &'a AccessKeyId>) -> AccessSnapshot {
    let roles = [Role::KeyAdministrator, Role::PolicyAdministrator, Role::CryptoServiceKeyUser];
    let grant = |role: Role| Grant {
        effect: Effect::Allow,
        role: role.into(),
        resources: vec![ResourcePattern::All],
    };
    let mut access = AccessSnapshot::default();
    for id in ids {
        let key = AccessKey {
            id: id.clone(),
            secret: Sensitive::copied(b"secret"),
            description: String::new(),
            status: AccessKeyStatus::Active,
            grants: roles.map(grant).to_vec(),
            created_at: Timestamp::from_ms(0),
        };
        access.access_keys.insert(id.clone(), Arc::new(key));
    }
    access
}

/// Returns the policy with a statement more that denies everything to everybody, where it has room for one.
fn with_a_denial(document: &str) -> Option<KeyPolicy> {
    let mut read: serde_json::Value = serde_json::from_str(document).ok()?;
    let denial =
        serde_json::json!({ "Effect": "Deny", "Principal": { "RAM": "*" }, "Action": "*", "Resource": "*" });
    read.get_mut("Statement")?.as_array_mut()?.push(denial);
    KeyPolicy::of(PolicyTarget { account: "1", arn: Some(ARN) }, &read.to_string()).ok()
}

/// Returns documents of each form.
pub(crate) fn seeds() -> Vec<Seed> {
    let named = format!(
        r#"{{"Version":"1","Statement":[{{"Sid":"a","Effect":"Allow","Principal":{{"RAM":["acs:ram::1:access-key/KMAK00000001"]}},"Action":["kms:Encrypt","kms:Get*"],"Resource":"{ARN}"}},{{"Effect":"Deny","Principal":{{"RAM":"*"}},"Action":"kms:Decrypt","Resource":"*"}}]}}"#
    );
    let conditions = concat!(
        r#"{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":"acs:ram::1:*"},"Action":"kms:*","Resource":"*","Condition":{"#,
        r#""StringEquals":{"kms:EncryptionContext:tenant":["a","b"]},"StringLike":{"kms:KeySpec":"Aliyun_*"},"#,
        r#""NotIpAddress":{"acs:SourceIp":["10.0.0.0/8","::1"]},"DateLessThan":{"acs:CurrentTime":"2030-01-01T00:00:00Z"}}}]}"#
    )
    .to_owned();
    vec![
        ("default", default_document("1").into_bytes()),
        ("named", named.into_bytes()),
        ("conditions", conditions.into_bytes()),
    ]
}
