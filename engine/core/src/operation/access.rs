//! Operations on access keys: credentials with what they grant.

use serde::{Deserialize, Serialize};

use crate::access::{AccessKeyStatus, Grant};
use crate::id::{AccessKeyId, RequestId};
use crate::time::Timestamp;

/// Makes an access key; nobody can give out more than `Root`, and only `Root` can give that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateAccessKeyRequest {
    /// What it grants; without any it may log in and do nothing.
    pub grants: Vec<Grant>,
    /// Free text of up to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateAccessKey`: the secret is told once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateAccessKeyReply {
    /// The id.
    pub access_key_id: AccessKeyId,
    /// The secret, never shown again.
    pub access_key_secret: String,
    /// The id of the request.
    pub request_id: RequestId,
}

impl std::fmt::Debug for CreateAccessKeyReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CreateAccessKeyReply({})", self.access_key_id)
    }
}

impl Drop for CreateAccessKeyReply {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.access_key_secret);
    }
}

/// Lists access keys, without their secrets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListAccessKeysRequest {
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

/// The reply of `ListAccessKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListAccessKeysReply {
    /// The rows.
    pub access_keys: Vec<AccessKeyRow>,
    /// As asked for.
    pub page_number: u32,
    /// As asked for.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `ListAccessKeys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccessKeyRow {
    /// The id.
    pub access_key_id: AccessKeyId,
    /// Free text.
    pub description: String,
    /// Whether it may log in.
    pub status: AccessKeyStatus,
    /// What it grants.
    pub grants: Vec<Grant>,
    /// When it was made.
    pub creation_date: Timestamp,
}

/// Changes an access key; in force with the next request of each of its connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateAccessKeyRequest {
    /// The access key.
    pub access_key_id: AccessKeyId,
    /// Whether it may log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AccessKeyStatus>,
    /// What it grants from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// Free text of up to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateAccessKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateAccessKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes an access key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteAccessKeyRequest {
    /// The access key.
    pub access_key_id: AccessKeyId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteAccessKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteAccessKeyReply {
    /// The id of the request.
    pub request_id: RequestId,
}
