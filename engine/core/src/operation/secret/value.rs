//! The values of secrets: put as new versions, read by version or stage, and the stages moved.

use serde::{Deserialize, Serialize};

use super::{SecretDataType, SecretText, SecretType, VersionStageList};
use crate::id::{RequestId, SecretName, SecretRef, SecretVersionId, VersionStage};
use crate::key::AutomaticRotation;
use crate::secret::SecretInterval;
use crate::time::Timestamp;

/// Puts a value of a `Generic` secret as a new version. `ACSCurrent` points to it then, and `ACSPrevious` to the one before, unless stages are named.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PutSecretValueRequest<'a> {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// The name of the version. One that is there, of the same value and stages, is left as it is.
    pub version_id: SecretVersionId,
    /// The value: up to 30,720 bytes of UTF-8.
    #[serde(borrow)]
    pub secret_data: SecretText<'a>,
    /// What the value is taken for; `text` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_data_type: Option<SecretDataType>,
    /// The stages that point to it; `ACSCurrent` if absent. They leave the versions that they pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_stages: Option<Vec<VersionStage>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `PutSecretValue`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutSecretValueReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The name of the version.
    pub version_id: SecretVersionId,
    /// The stages that point to it.
    pub version_stages: VersionStageList,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Reads the value of a version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetSecretValueRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// The version; that of the stage if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<SecretVersionId>,
    /// The stage that points to it; `ACSCurrent` if neither is given. It points to the version, where both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_stage: Option<VersionStage>,
    /// Whether it is told how it is rotated; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_extended_config: Option<bool>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetSecretValue`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretValueReply<'a> {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// What it is of.
    pub secret_type: SecretType,
    /// The value.
    #[serde(borrow)]
    pub secret_data: SecretText<'a>,
    /// What it was put as.
    pub secret_data_type: SecretDataType,
    /// The version.
    pub version_id: SecretVersionId,
    /// The stages that point to it.
    pub version_stages: VersionStageList,
    /// When the version was put.
    pub create_time: Timestamp,
    /// Whether the secret is rotated by itself, where it has a rotator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic_rotation: Option<AutomaticRotation>,
    /// How often, in seconds, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<SecretInterval>,
    /// When the next time, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Timestamp>,
    /// When it was rotated the last time, where it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_date: Option<Timestamp>,
    /// How it is rotated, where it has a rotator and that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_config: Option<String>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Has a stage point to another version, or to none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateSecretVersionStageRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// The stage. `ACSCurrent` leaves `ACSPrevious` behind.
    pub version_stage: VersionStage,
    /// The version that it points to then; needed for `ACSCurrent` and `ACSPrevious`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_to_version: Option<SecretVersionId>,
    /// The version that it points to now; needed where a stage of the caller's own leaves one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_from_version: Option<SecretVersionId>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateSecretVersionStage`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretVersionStageReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The id of the request.
    pub request_id: RequestId,
}
