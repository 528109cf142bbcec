//! The life of secrets: made, described, deleted behind a window, and brought back.

use serde::{Deserialize, Serialize};

use super::{SecretDataType, SecretTagList, SecretText, SecretType};
use crate::id::{CmkId, InstanceId, KeyRef, RequestId, SecretName, SecretRef, SecretVersionId};
use crate::key::AutomaticRotation;
use crate::operation::{ExtendedConfigUpdate, TagPair};
use crate::secret::SecretInterval;
use crate::time::Timestamp;

/// Makes a secret with its first version, to which `ACSCurrent` points.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateSecretRequest<'a> {
    /// Its name, which no other secret has; not from `acs/` on.
    pub secret_name: SecretName,
    /// The name of its first version.
    pub version_id: SecretVersionId,
    /// The value: up to 30,720 bytes of UTF-8.
    #[serde(borrow)]
    pub secret_data: SecretText<'a>,
    /// What the value is taken for; `text` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_data_type: Option<SecretDataType>,
    /// `Generic`, which it is if absent, or `Rds`: its value is then the accounts, `{"Accounts":[{"AccountName":…,"AccountPassword":…}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_type: Option<SecretType>,
    /// JSON text of up to 1,024 characters that says how it is rotated: `{"SecretSubType":"SingleUser","DBInstanceId":"NAME"}` of an `Rds` one (or
    /// `DoubleUsers`), `{"Rotator":"NAME"}` of a `Generic` one, where `NAME` is a rotator of the configuration, and up to ten texts in
    /// `CustomData`. Where the rotator works by another secret, the caller needs the right to read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_config: Option<String>,
    /// Whether it is rotated by itself; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_automatic_rotation: Option<bool>,
    /// How often, `6h` to `8760h` (or in `d`, `m`, `s`); needed where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<SecretInterval>,
    /// The CMK that its values are sealed under, which the caller needs the right to `Encrypt` under; a CMK that is kept for this if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_id: Option<KeyRef>,
    /// Free text of up to 8,192 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Up to 20 tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagPair>>,
    /// Its own policy, as of `SetSecretPolicy`, which the caller needs the right to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The instance that it is of: the one that is asked, or absent.
    #[serde(rename = "DKMSInstanceId", default, skip_serializing_if = "Option::is_none")]
    pub dkms_instance_id: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// Its ARN.
    pub arn: String,
    /// The name of its first version.
    pub version_id: SecretVersionId,
    /// What it is of.
    pub secret_type: SecretType,
    /// Whether it is rotated by itself; `Invalid` where its rotator is not in the configuration any more.
    pub automatic_rotation: AutomaticRotation,
    /// How often, in seconds, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<SecretInterval>,
    /// When the next time, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Timestamp>,
    /// How it is rotated, where it has a rotator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_config: Option<String>,
    /// The instance that it is of; absent where it is of none.
    #[serde(rename = "DKMSInstanceId", default, skip_serializing_if = "Option::is_none")]
    pub dkms_instance_id: Option<InstanceId>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Tells what is known of a secret, but its values.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeSecretRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// Whether its tags are told as well; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_tags: Option<bool>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// Its ARN.
    pub arn: String,
    /// What it is of.
    pub secret_type: SecretType,
    /// Free text.
    pub description: String,
    /// The CMK that its values are sealed under.
    pub encryption_key_id: CmkId,
    /// Whether it is rotated by itself; `Invalid` where its rotator is not in the configuration any more.
    pub automatic_rotation: AutomaticRotation,
    /// How often, in seconds, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<SecretInterval>,
    /// When the next time, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Timestamp>,
    /// When it was rotated the last time, where it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_date: Option<Timestamp>,
    /// How it is rotated, where it has a rotator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_config: Option<String>,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it, or one of its versions, was changed last.
    pub update_time: Timestamp,
    /// When it ends, where it waits for its deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_delete_time: Option<Timestamp>,
    /// Its tags, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<SecretTagList>,
    /// The instance that it is of; absent where it is of none.
    #[serde(rename = "DKMSInstanceId", default, skip_serializing_if = "Option::is_none")]
    pub dkms_instance_id: Option<InstanceId>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Changes what is said of a secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateSecretRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// Free text of up to 8,192 characters; as it was if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is changed of how it is rotated; passed over where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_config: Option<ExtendedConfigUpdate>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Ends a secret with all its versions, behind a window in which it can be brought back, or at once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteSecretRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// 7 to 30; 30 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_window_in_days: Option<u32>,
    /// Whether it ends at once; not if absent, and not beside a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_delete_without_recovery: Option<bool>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// When it ends, or did.
    pub planned_delete_time: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Brings a secret back that waits for its deletion.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RestoreSecretRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RestoreSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestoreSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Seals the values of a secret anew, all or none: under another CMK, or under the newest version of its own. What is sealed so already is left
/// as it is, so that it can be asked for again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResealSecretRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// The CMK that its values are sealed under from then on, which the caller needs the right to `Encrypt` under; its own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_id: Option<KeyRef>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ResealSecret`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResealSecretReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The CMK that its values are sealed under.
    pub encryption_key_id: CmkId,
    /// Whether any was sealed anew.
    pub is_changed: bool,
    /// The id of the request.
    pub request_id: RequestId,
}
