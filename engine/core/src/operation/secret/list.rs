//! Lists of secrets, and of the versions of one.

use serde::{Deserialize, Serialize};

use super::{SecretTagList, SecretType, VersionStageList};
use crate::id::{RequestId, SecretName, SecretRef, SecretVersionId};
use crate::operation::KeyFilter;
use crate::time::Timestamp;

/// Lists the secrets that the caller may see, by their names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListSecretsRequest {
    /// Up to ten filters, of `SecretName`, `Description` (both: what they begin with), `TagKey`, `TagValue`, `SecretType`, `Creator` and `DKMSInstanceId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<KeyFilter>>,
    /// Whether tags are told as well; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_tags: Option<bool>,
    /// From 1, which it is if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u32>,
    /// 1 to 100; 10 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListSecrets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListSecretsReply {
    /// The rows.
    pub secret_list: SecretList,
    /// The page.
    pub page_number: u32,
    /// Rows of a page.
    pub page_size: u32,
    /// Rows of all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListSecrets`, wrapped twice as the cloud has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretList {
    /// The rows.
    pub secret: Vec<SecretRow>,
}

/// One row of `ListSecrets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretRow {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// What it is of.
    pub secret_type: SecretType,
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
}

/// Lists the versions of a secret, the newest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListSecretVersionIdsRequest {
    /// The secret, by name or ARN.
    pub secret_name: SecretRef,
    /// Whether those are listed to which no stage points; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_deprecated: Option<bool>,
    /// From 1, which it is if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u32>,
    /// 1 to 100; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListSecretVersionIds`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListSecretVersionIdsReply {
    /// The name of the secret.
    pub secret_name: SecretName,
    /// The rows.
    pub version_ids: SecretVersionList,
    /// The page.
    pub page_number: u32,
    /// Rows of a page.
    pub page_size: u32,
    /// Rows of all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListSecretVersionIds`, wrapped twice as the cloud has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretVersionList {
    /// The rows.
    pub version_id: Vec<SecretVersionRow>,
}

/// One row of `ListSecretVersionIds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretVersionRow {
    /// The version.
    pub version_id: SecretVersionId,
    /// When it was put.
    pub create_time: Timestamp,
    /// The stages that point to it.
    pub version_stages: VersionStageList,
}
