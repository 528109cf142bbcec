//! Message authentication codes, single and in batches. A key of MACs has one version for good: a MAC does not say which made it.

use serde::{Deserialize, Serialize};

use super::{Bin, ItemError};
use crate::id::{CmkId, KeyRef, RequestId};
use crate::key::SignAlgorithm;

/// Computes the MAC of a message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateMacRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// How it is computed; that of the key.
    pub algorithm: SignAlgorithm,
    /// Up to 64 KiB.
    #[serde(borrow)]
    pub message: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GenerateMac`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateMacReply<'a> {
    /// The whole MAC.
    #[serde(borrow)]
    pub mac: Bin<'a>,
    /// As asked for.
    pub algorithm: SignAlgorithm,
    /// The key that did it.
    pub key_id: CmkId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Checks the MAC of a message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct VerifyMacRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// How it was computed.
    pub algorithm: SignAlgorithm,
    /// Up to 64 KiB.
    #[serde(borrow)]
    pub message: Bin<'a>,
    /// The whole MAC: a part of it is none.
    #[serde(borrow)]
    pub mac: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `VerifyMac`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VerifyMacReply {
    /// Whether it is the MAC of that.
    pub value: bool,
    /// As asked for.
    pub algorithm: SignAlgorithm,
    /// The key.
    pub key_id: CmkId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Computes the MACs of many messages.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchGenerateMacRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// How they are computed.
    pub algorithm: SignAlgorithm,
    /// Up to 65,536 messages of up to 64 KiB.
    #[serde(borrow)]
    pub messages: Vec<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchGenerateMac`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchGenerateMacReply<'a> {
    /// The MACs in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key that did it.
    pub key_id: CmkId,
}

/// Checks the MACs of many messages.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchVerifyMacRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// How they were computed.
    pub algorithm: SignAlgorithm,
    /// Up to 65,536 messages of up to 64 KiB.
    #[serde(borrow)]
    pub messages: Vec<Bin<'a>>,
    /// A MAC for each.
    #[serde(borrow)]
    pub macs: Vec<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchVerifyMac`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchVerifyMacReply {
    /// Whether each is the MAC of its message, nil where an item failed.
    pub valid: Vec<Option<bool>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key.
    pub key_id: CmkId,
}
