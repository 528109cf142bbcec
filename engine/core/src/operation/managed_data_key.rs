//! Managed data keys. The cloud's API reads them alone; that they are made and ended here is beyond it.

use serde::{Deserialize, Serialize};

use super::{Bin, DataKeySpec};
use crate::id::{CmkId, DataKeyName, DataKeyVersionId, KeyRef, RequestId};
use crate::time::Timestamp;

/// Makes a data key that is kept here, encrypted under a CMK, with its first version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateManagedDataKeyRequest {
    /// Its name; taken by no other.
    pub data_key_name: DataKeyName,
    /// Key id, ARN or alias of a symmetric CMK.
    pub key_id: KeyRef,
    /// 32 or 16 bytes; `AES_256` if neither this nor `NumberOfBytes` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<DataKeySpec>,
    /// 1 to 1,024; wins over `KeySpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateManagedDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateManagedDataKeyReply {
    /// As asked for.
    pub data_key_name: DataKeyName,
    /// Its first version.
    pub data_key_version_id: DataKeyVersionId,
    /// The version's whole name.
    pub data_key_version_name: String,
    /// The CMK.
    pub key_id: CmkId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes another version of a managed data key, under the newest version of its CMK; the ones before stay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateManagedDataKeyVersionRequest {
    /// The name.
    pub data_key_name: DataKeyName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateManagedDataKeyVersion`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateManagedDataKeyVersionReply {
    /// As asked for.
    pub data_key_name: DataKeyName,
    /// The new version.
    pub data_key_version_id: DataKeyVersionId,
    /// Its whole name.
    pub data_key_version_name: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Ends a managed data key with all its versions: what was encrypted under them is lost, unless somebody kept them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteManagedDataKeyRequest {
    /// The name.
    pub data_key_name: DataKeyName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteManagedDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteManagedDataKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Gives out a managed data key in clear; needs the right to `Decrypt` under its CMK, too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetManagedDataKeyRequest {
    /// The name.
    pub data_key_name: DataKeyName,
    /// Which version; the first one if absent, or the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key_version_id: Option<DataKeyVersionId>,
    /// Whether it is the latest version, where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_latest: Option<bool>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetManagedDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetManagedDataKeyReply<'a> {
    /// As asked for.
    pub data_key_name: DataKeyName,
    /// The version.
    pub data_key_version_id: DataKeyVersionId,
    /// Its whole name.
    pub data_key_version_name: String,
    /// The data key in clear.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the managed data keys under the CMKs that the caller may see (beyond the cloud).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListManagedDataKeysRequest {
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

/// The reply of `ListManagedDataKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListManagedDataKeysReply {
    /// The rows, by name.
    pub managed_data_keys: ManagedDataKeyList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Over all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// The rows of managed data keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedDataKeyList {
    /// The rows.
    pub managed_data_key: Vec<ManagedDataKeyRow>,
}

/// One managed data key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedDataKeyRow {
    /// The name.
    pub data_key_name: DataKeyName,
    /// Its CMK.
    pub key_id: CmkId,
    /// How long it is.
    pub number_of_bytes: u32,
    /// When it was made.
    pub creation_date: Timestamp,
    /// How many versions it has.
    pub versions: u64,
}

/// Lists the versions of a managed data key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListManagedDataKeyVersionsRequest {
    /// The name.
    pub data_key_name: DataKeyName,
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

/// The reply of `ListManagedDataKeyVersions`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListManagedDataKeyVersionsReply {
    /// As asked for.
    pub data_key_name: DataKeyName,
    /// The rows, the oldest first.
    pub managed_data_key_versions: ManagedDataKeyVersionList,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Over all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// The rows of versions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedDataKeyVersionList {
    /// The rows.
    pub managed_data_key_version: Vec<ManagedDataKeyVersionRow>,
}

/// One version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedDataKeyVersionRow {
    /// The id.
    pub data_key_version_id: DataKeyVersionId,
    /// The whole name.
    pub data_key_version_name: String,
    /// When it was made.
    pub creation_date: Timestamp,
}
