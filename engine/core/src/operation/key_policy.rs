//! The policy of a key: its own document of who may do what with it.

use serde::{Deserialize, Serialize};

use crate::id::{KeyRef, RequestId};

/// The one name that a policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// `default`
    Default,
}

/// Tells the policy of a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetKeyPolicyRequest {
    /// The key, by id or ARN.
    pub key_id: KeyRef,
    /// `default`; there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<PolicyName>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetKeyPolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyPolicyReply {
    /// The document as it was set; of a key that was given none, the one that leaves everything to what access keys are granted.
    pub policy: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Gives a key another policy; it is in force with the next request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SetKeyPolicyRequest {
    /// The key, by id or ARN.
    pub key_id: KeyRef,
    /// `default`; there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<PolicyName>,
    /// The document, JSON of up to 32,768 bytes, as [`KeyPolicy`](crate::access::KeyPolicy) has it. One under which the caller could not set it
    /// again is refused, but to `Root`.
    pub policy: String,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `SetKeyPolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SetKeyPolicyReply {
    /// The id of the request.
    pub request_id: RequestId,
}
