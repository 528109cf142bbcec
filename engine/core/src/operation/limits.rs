//! The limits, told to whoever asks.

use serde::{Deserialize, Serialize};

use crate::id::RequestId;
use crate::limit::{self, MaxRecords};

/// Tells every limit.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeLimitsRequest {
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeLimits`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeLimitsReply {
    /// Items of a batch.
    pub batch_items: u64,
    /// Bytes of an item of a batch.
    pub batch_item_bytes: u64,
    /// Bytes of plaintext of a single `Encrypt`.
    pub encrypt_bytes: u64,
    /// Characters of an encryption context as compact JSON.
    pub encryption_context_characters: u64,
    /// Bytes of a data key.
    pub data_key_bytes: u64,
    /// Characters of a description.
    pub description_characters: u64,
    /// Grants of an access key.
    pub grants: u64,
    /// Resources of a grant.
    pub grant_resources: u64,
    /// Tags of a key.
    pub tags: u64,
    /// Versions of a key pair.
    pub key_versions: u64,
    /// Versions of a symmetric key that `RotateKey` makes.
    #[serde(default)]
    pub symmetric_key_versions: u64,
    /// Versions of a managed data key.
    #[serde(default)]
    pub data_key_versions: u64,
    /// Bytes of the policy of a key.
    pub policy_bytes: u64,
    /// Customer master keys, of all callers.
    #[serde(default)]
    pub keys: u64,
    /// Aliases, of all callers.
    #[serde(default)]
    pub aliases: u64,
    /// Managed data keys, of all callers.
    #[serde(default)]
    pub managed_data_keys: u64,
    /// Access keys, of all callers.
    #[serde(default)]
    pub access_keys: u64,
    /// Application access points, policies and network rules, of each.
    #[serde(default)]
    pub access_records: u64,
    /// Client keys of an application access point.
    #[serde(default)]
    pub client_keys: u64,
    /// Bytes of the value of a secret.
    pub secret_bytes: u64,
    /// Versions of a secret.
    pub secret_versions: u64,
    /// Secrets of the installation.
    pub secrets: u64,
    /// Certificates of the installation.
    #[serde(default)]
    pub certificates: u64,
    /// Certificate authorities of the installation.
    #[serde(default)]
    pub certificate_authorities: u64,
    /// Certificates that one request has issued.
    #[serde(default)]
    pub batch_certificates: u64,
    /// Milliseconds that a request may take unless it says otherwise.
    pub default_timeout_ms: u64,
    /// Milliseconds that a request may ask for.
    pub max_timeout_ms: u64,
    /// Rows of a page.
    pub page_size: u64,
    /// Bytes of a MessagePack frame and of an answer.
    pub max_frame_bytes: u64,
    /// Requests in flight on one connection.
    pub max_in_flight: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

impl DescribeLimitsReply {
    /// Gathers the limits; frame and in-flight limits are the listener's, those of records the installation's.
    pub fn gather(
        request_id: RequestId,
        max_frame_bytes: usize,
        max_in_flight: usize,
        records: MaxRecords,
    ) -> Self {
        Self {
            batch_items: limit::BATCH_ITEMS as u64,
            batch_item_bytes: limit::BATCH_ITEM_BYTES as u64,
            encrypt_bytes: limit::ENCRYPT_BYTES as u64,
            encryption_context_characters: limit::CONTEXT_CHARACTERS as u64,
            data_key_bytes: limit::DATA_KEY_BYTES as u64,
            description_characters: limit::DESCRIPTION_CHARACTERS as u64,
            grants: limit::GRANTS as u64,
            grant_resources: limit::GRANT_RESOURCES as u64,
            tags: limit::TAGS as u64,
            key_versions: limit::KEY_VERSIONS as u64,
            symmetric_key_versions: limit::SYMMETRIC_KEY_VERSIONS as u64,
            data_key_versions: limit::DATA_KEY_VERSIONS as u64,
            policy_bytes: limit::POLICY_BYTES as u64,
            keys: records.keys as u64,
            aliases: records.aliases as u64,
            managed_data_keys: records.data_keys as u64,
            access_keys: records.access_keys as u64,
            access_records: limit::ACCESS_RECORDS as u64,
            client_keys: limit::CLIENT_KEYS as u64,
            secret_bytes: limit::SECRET_BYTES as u64,
            secret_versions: limit::SECRET_VERSIONS as u64,
            secrets: records.secrets as u64,
            certificates: records.certificates as u64,
            certificate_authorities: limit::AUTHORITIES as u64,
            batch_certificates: limit::CERTIFICATES_A_BATCH as u64,
            default_timeout_ms: limit::DEFAULT_TIMEOUT_MS,
            max_timeout_ms: limit::MAX_TIMEOUT_MS,
            page_size: limit::PAGE_SIZE as u64,
            max_frame_bytes: max_frame_bytes as u64,
            max_in_flight: max_in_flight as u64,
            request_id,
        }
    }
}
