//! The policy of a secret: its own document of who may do what with it, in the language of the policies of keys.

use serde::{Deserialize, Serialize};

use crate::id::{RequestId, SecretRef};
use crate::operation::PolicyName;

/// Tells the policy of a secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetSecretPolicyRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// `default`; there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<PolicyName>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetSecretPolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretPolicyReply {
    /// The document as it was set; of a secret that was given none, the one that leaves everything to what access keys are granted.
    pub policy: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Gives a secret another policy; it is in force with the next request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SetSecretPolicyRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
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

/// The reply of `SetSecretPolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SetSecretPolicyReply {
    /// The id of the request.
    pub request_id: RequestId,
}
