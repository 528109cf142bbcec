//! Operations on the life of keys.

use serde::{Deserialize, Serialize};

use super::TagPair;
use crate::id::{AccessKeyId, CmkId, InstanceId, KeyRef, KeyVersionId, RequestId};
use crate::key::{
    AutomaticRotation, BulkMode, DeletionProtection, Fallback, KeySpec, KeyState, KeyStorageMechanism,
    KeyUsage, Origin, ProtectionLevel, RotationInterval,
};
use crate::time::Timestamp;

/// Creates a CMK with its first version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// The kind of material; `Aliyun_AES_256` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// What it is for; `SIGN/VERIFY` of a key pair if absent, `GENERATE/VERIFY` of a key of MACs, else `ENCRYPT/DECRYPT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_usage: Option<KeyUsage>,
    /// Where its material comes from; `Aliyun_KMS` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Where its material lives; `SOFTWARE` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection_level: Option<ProtectionLevel>,
    /// For a symmetric HSM key: where AES-GCM runs; `InHsm` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_mode: Option<BulkMode>,
    /// For a symmetric HSM key: when a software copy of it may stand in; never if absent, and at most what the pool allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// For an HSM key: where its material is kept; `HsmEncryptedDatabase` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_storage_mechanism: Option<KeyStorageMechanism>,
    /// Free text of up to 8,192 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is rotated by itself; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_automatic_rotation: Option<bool>,
    /// How often, then: `7d` to `730d` (or in `h`, `m`, `s`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<RotationInterval>,
    /// Up to 20 tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagPair>>,
    /// Its own policy, as of `SetKeyPolicy`, which the caller needs the right to; its resources are `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The instance that it is of: the one that is asked, or absent.
    #[serde(rename = "DKMSInstanceId", default, skip_serializing_if = "Option::is_none")]
    pub dkms_instance_id: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKeyReply {
    /// The new key.
    pub key_metadata: KeyMetadata,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a CMK of a key that a token of the pool holds already (beyond the cloud). Nothing is changed in the token; the key stays there,
/// and is pinned by what it does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AdoptKeyRequest {
    /// The token, by the name that the configuration gives it; may be absent where the pool has one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_name: Option<String>,
    /// The label of the key (`CKA_LABEL`); it or `ObjectId` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_label: Option<String>,
    /// The id of the key (`CKA_ID`), in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// The kind of material; `Aliyun_AES_256` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// What it is for; as of `CreateKey` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_usage: Option<KeyUsage>,
    /// Of a symmetric key: where AES-GCM runs; `InHsm` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_mode: Option<BulkMode>,
    /// Free text of up to 8,192 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `AdoptKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AdoptKeyReply {
    /// The new key.
    pub key_metadata: KeyMetadata,
    /// The id of the request.
    pub request_id: RequestId,
}

// What a server that knows neither does.
fn not_rotated() -> AutomaticRotation {
    AutomaticRotation::Disabled
}

fn not_protected() -> DeletionProtection {
    DeletionProtection::Disabled
}

/// What `DescribeKey` tells of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    /// The id.
    pub key_id: CmkId,
    /// The resource name.
    pub arn: String,
    /// When it was created.
    pub creation_date: Timestamp,
    /// The access key that created it.
    pub creator: AccessKeyId,
    /// Free text.
    pub description: String,
    /// The kind of material.
    pub key_spec: KeySpec,
    /// What it is for.
    pub key_usage: KeyUsage,
    /// The state.
    pub key_state: KeyState,
    /// Where its material comes from.
    pub origin: Origin,
    /// Where its material lives.
    pub protection_level: ProtectionLevel,
    /// For an HSM key: where AES-GCM runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_mode: Option<BulkMode>,
    /// For an HSM key: when its software copy may stand in, where the pool allows it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// For an HSM key: where its material is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_storage_mechanism: Option<KeyStorageMechanism>,
    /// For a key that stays in its token (`HsmInternal`): the serial number of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_serial_number: Option<String>,
    /// The version that encrypts.
    pub primary_key_version: KeyVersionId,
    /// When the primary version was made.
    pub last_rotation_date: Timestamp,
    /// Whether it is rotated by itself.
    #[serde(default = "not_rotated")]
    pub automatic_rotation: AutomaticRotation,
    /// How often, where it is or would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval: Option<RotationInterval>,
    /// When it is next, where it is or would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<Timestamp>,
    /// Whether it is protected against deletion.
    #[serde(default = "not_protected")]
    pub deletion_protection: DeletionProtection,
    /// Why it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection_description: Option<String>,
    /// When it is to be deleted; empty unless the state is `PendingDeletion`.
    pub delete_date: String,
    /// When its imported material expires; empty where it never does.
    pub material_expire_time: String,
    /// The instance that it is of; absent where it is of none.
    #[serde(rename = "DKMSInstanceId", default, skip_serializing_if = "Option::is_none")]
    pub dkms_instance_id: Option<InstanceId>,
    /// The last use of any version; absent for a key that was never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_date: Option<Timestamp>,
    /// Items encrypted and decrypted under all versions.
    pub use_count: u64,
}

/// Describes a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeKeyReply {
    /// The key.
    pub key_metadata: KeyMetadata,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the keys that the caller may see.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListKeysRequest {
    /// From 1; the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u32>,
    /// Rows, up to 100; ten if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Up to ten filters: any of the values of one key, and all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<KeyFilter>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A filter of `ListKeys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeyFilter {
    /// What is looked at: `KeyState`, `KeySpec`, `KeyUsage`, `ProtectionLevel`, `CreatorType`, `Creator`, `DKMSInstanceId`, `keyId`, `AliasName`,
    /// `TagKey` or `TagValue`.
    pub key: String,
    /// What it may be, up to ten.
    pub values: Vec<String>,
}

/// The reply of `ListKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeysReply {
    /// The rows.
    pub keys: KeyList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListKeys`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyList {
    /// The rows.
    pub key: Vec<KeyRow>,
}

/// One row of `ListKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyRow {
    /// The id.
    pub key_id: CmkId,
    /// The resource name.
    pub key_arn: String,
}

/// Enables a disabled key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EnableKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `EnableKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EnableKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Disables a key; it is refused from the answer on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DisableKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DisableKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DisableKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Cancels a scheduled deletion; the key is enabled again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CancelKeyDeletionRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CancelKeyDeletion`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CancelKeyDeletionReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a new version and lets it encrypt (beyond the cloud, which rotates by policy alone).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RotateKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RotateKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotateKeyReply {
    /// The new version.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a new version of a key pair. The versions of before go on: callers name the one that they mean.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateKeyVersionRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateKeyVersion`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKeyVersionReply {
    /// The new version.
    pub key_version: KeyVersionRow,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Schedules the deletion of a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ScheduleKeyDeletionRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Days until the deletion, 7 to 366.
    pub pending_window_in_days: u32,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ScheduleKeyDeletion`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduleKeyDeletionReply {
    /// When the key will be deleted.
    pub delete_date: Timestamp,
    /// The last use of any version; absent for a key that was never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_date: Option<Timestamp>,
    /// Items encrypted and decrypted under all versions.
    pub use_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Changes the description of a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateKeyDescriptionRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Free text of up to 8,192 characters.
    pub description: String,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateKeyDescription`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateKeyDescriptionReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// What is told of a key version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyVersionRow {
    /// The key.
    pub key_id: CmkId,
    /// The version.
    pub key_version_id: KeyVersionId,
    /// When it was made.
    pub creation_date: Timestamp,
    /// Its number, as it stands in ciphertexts.
    pub version_number: u32,
    /// The last use; absent for a version that was never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_date: Option<Timestamp>,
    /// Items encrypted, signed or authenticated under it.
    pub encrypt_count: u64,
    /// Items decrypted or verified under it.
    pub decrypt_count: u64,
}

/// Describes a version of a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeKeyVersionRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version.
    pub key_version_id: KeyVersionId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeKeyVersion`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeKeyVersionReply {
    /// The version.
    pub key_version: KeyVersionRow,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the versions of a key, the oldest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListKeyVersionsRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// From 1; the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u32>,
    /// Rows, up to 100; ten if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListKeyVersions`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyVersionsReply {
    /// The rows.
    pub key_versions: KeyVersionList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListKeyVersions`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyVersionList {
    /// The rows.
    pub key_version: Vec<KeyVersionRow>,
}
