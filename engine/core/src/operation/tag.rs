//! Operations on tags: text of the caller's own on keys, to find and to sort them by. They decide nothing here.

use serde::{Deserialize, Serialize};

use crate::id::{CertificateId, CertificateRef, CmkId, KeyRef, RequestId, SecretRef};

/// A tag, as the operations on one resource spell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagPair {
    /// 1 to 128 characters; not from `acs:` or `aliyun` on.
    pub tag_key: String,
    /// Up to 128 characters.
    pub tag_value: String,
}

/// A tag, as the operations on several resources spell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// As of [`TagPair`].
    pub key: String,
    /// As of [`TagPair`]; empty if absent.
    #[serde(default)]
    pub value: String,
}

/// Puts tags on a key, a secret or a certificate; those of the same name are replaced.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagResourceRequest {
    /// The key, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// Or the secret, by name or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<SecretRef>,
    /// Or the certificate, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateRef>,
    /// 1 to 20 tags.
    pub tags: Vec<TagPair>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `TagResource`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagResourceReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Takes tags off a key, a secret or a certificate; one that it does not have is passed over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UntagResourceRequest {
    /// The key, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// Or the secret, by name or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<SecretRef>,
    /// Or the certificate, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateRef>,
    /// 1 to 20 names of tags.
    pub tag_keys: Vec<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UntagResource`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UntagResourceReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the tags of a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListResourceTagsRequest {
    /// The key, by id or ARN; it or `CertificateId` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// The certificate, by id or ARN. Beyond the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateRef>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ListResourceTags`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListResourceTagsReply {
    /// The rows.
    pub tags: TagList,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListResourceTags`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagList {
    /// The rows, by the name of the tag.
    pub tag: Vec<KeyTagRow>,
}

/// One row of `ListResourceTags`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyTagRow {
    /// The key, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<CmkId>,
    /// The certificate, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateId>,
    /// The name of the tag.
    pub tag_key: String,
    /// Its value.
    pub tag_value: String,
}

/// What carries tags, as the operations on several resources name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceType {
    /// Keys.
    Key,
    /// Secrets, whose tags other operations are about.
    Secret,
}

/// Puts tags on several keys, all or none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagResourcesRequest {
    /// What they are.
    pub resource_type: ResourceType,
    /// 1 to 50 keys, by id or ARN.
    pub resource_id: Vec<KeyRef>,
    /// 1 to 20 tags.
    pub tag: Vec<Tag>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `TagResources`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagResourcesReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Takes tags off several keys, of all or none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UntagResourcesRequest {
    /// What they are.
    pub resource_type: ResourceType,
    /// 1 to 50 keys, by id or ARN.
    pub resource_id: Vec<KeyRef>,
    /// Up to 20 names of tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_key: Option<Vec<String>>,
    /// Whether every tag goes; only where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UntagResources`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UntagResourcesReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the tags of keys that are named, or that have the tags that are named; both where both are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListTagResourcesRequest {
    /// What they are.
    pub resource_type: ResourceType,
    /// Up to 50 keys, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<Vec<KeyRef>>,
    /// Up to 20 tags, all of which a key has; of one without a value the name alone counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Vec<TagFilter>>,
    /// Where the last answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A tag that is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TagFilter {
    /// The name.
    pub key: String,
    /// The value; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The reply of `ListTagResources`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagResourcesReply {
    /// The rows.
    pub tag_resources: TagResourceList,
    /// Where to go on; empty where this is all.
    pub next_token: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListTagResources`, wrapped twice as the cloud has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagResourceList {
    /// The rows.
    pub tag_resource: Vec<TagResourceRow>,
}

/// One row of `ListTagResources`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagResourceRow {
    /// The key.
    pub resource_id: CmkId,
    /// What it is.
    pub resource_type: ResourceType,
    /// The name of the tag.
    pub tag_key: String,
    /// Its value.
    pub tag_value: String,
}
