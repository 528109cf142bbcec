//! How a key is kept: rotation by policy, and protection against deletion.

use serde::{Deserialize, Serialize};

use crate::id::{KeyRef, RequestId};
use crate::key::RotationInterval;

/// Has a key rotated by itself, or no longer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateRotationPolicyRequest {
    /// The key, by id or ARN.
    pub key_id: KeyRef,
    /// Whether it is.
    pub enable_automatic_rotation: bool,
    /// How often, `7d` to `730d` (or in `h`, `m`, `s`); needed to switch it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<RotationInterval>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateRotationPolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateRotationPolicyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Protects a key against deletion, or no longer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SetDeletionProtectionRequest {
    /// The key, by ARN; it or `KeyId` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_resource_arn: Option<KeyRef>,
    /// The key, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// An instance, which there are none of yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_instance_id: Option<String>,
    /// Whether it is.
    pub enable_deletion_protection: bool,
    /// Why, in up to 8,192 characters; kept for as long as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection_description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `SetDeletionProtection`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SetDeletionProtectionReply {
    /// The id of the request.
    pub request_id: RequestId,
}
