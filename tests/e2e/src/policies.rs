//! Policies of keys.

use keymill_core::id::AccessKeyId;
use keymill_core::operation::*;

use crate::{Answered, Caller, Named};

/// Writes a statement: effect, principals, actions; of the key itself.
pub fn statement(effect: &str, principals: &[&str], actions: &[&str]) -> serde_json::Value {
    serde_json::json!({
        "Effect": effect, "Principal": { "RAM": principals }, "Action": actions, "Resource": ["*"],
    })
}

/// Writes a policy of statements.
pub fn policy(statements: &[serde_json::Value]) -> String {
    serde_json::json!({ "Version": "1", "Statement": statements }).to_string()
}

/// Names an access key as a statement does, in the account of the tests.
pub fn named(id: &AccessKeyId) -> String {
    format!("acs:ram::0:access-key/{id}")
}

/// Those whom a grant allows it.
pub const GRANTED: &str = "acs:ram::0:*";

impl Caller {
    /// Gives a key another policy.
    pub fn set_policy(&mut self, key: impl Named, document: &str) -> Answered<()> {
        let (key_id, policy) = (key.key_ref(), document.to_owned());
        self.ask(SetKeyPolicyRequest { key_id, policy_name: None, policy, timeout_ms: None }, |_| ())
    }

    /// Returns the policy of a key.
    pub fn policy(&mut self, key: impl Named) -> Answered<String> {
        let request = GetKeyPolicyRequest {
            key_id: key.key_ref(),
            policy_name: Some(PolicyName::Default),
            timeout_ms: None,
        };
        self.ask(request, take!(GetKeyPolicy, reply => reply.policy))
    }
}
