//! The rotation of secrets: asked for, and by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{RequestId, SecretName, SecretRef, SecretVersionId};
use crate::secret::SecretInterval;

/// Has a secret rotated to a new version. It is answered once that is the current one; where that takes longer, it goes on, and the same may
/// be asked again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RotateSecretRequest {
    /// The secret, by name or ARN. It has a rotator.
    pub secret_name: SecretRef,
    /// The name of the new version. One that is there already is left as it is.
    pub version_id: SecretVersionId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RotateSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotateSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// Its ARN.
    pub arn: String,
    /// The name of the version.
    pub version_id: SecretVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Has a secret rotated by itself, or no longer; a rotation that is under way goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateSecretRotationPolicyRequest {
    /// The secret, by name or ARN. It has a rotator.
    pub secret_name: SecretRef,
    /// Whether it is.
    pub enable_automatic_rotation: bool,
    /// How often, `6h` to `8760h` (or in `d`, `m`, `s`); needed to switch it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<SecretInterval>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateSecretRotationPolicy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretRotationPolicyReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The id of the request.
    pub request_id: RequestId,
}

/// What `UpdateSecret` changes of the `ExtendedConfig` of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtendedConfigUpdate {
    /// Text for the rotator, up to ten entries, in the place of what was there; as it was if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_data: Option<BTreeMap<String, String>>,
}
