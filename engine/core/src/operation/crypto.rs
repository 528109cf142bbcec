//! Symmetric encryption, single and in batches. Limits and forms: `spec/msgpack-tcp.md`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Bin;
use crate::context::EncryptionContext;
use crate::error::Error;
use crate::id::{CmkId, KeyRef, KeyVersionId, RequestId};

/// Encrypts under a CMK.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EncryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Up to 6,144 bytes.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `Encrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptReply<'a> {
    /// The ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Decrypts what this service encrypted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DecryptRequest<'a> {
    /// The ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that it must be under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `Decrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DecryptReply<'a> {
    /// The plaintext.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Decrypts and encrypts under another key, without the plaintext leaving.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ReEncryptRequest<'a> {
    /// The ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The context that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_encryption_context: Option<EncryptionContext>,
    /// Key id, ARN or alias of the key to encrypt under.
    pub destination_key_id: KeyRef,
    /// The context to make it with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ReEncrypt`; the key is the one that encrypted.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReEncryptReply<'a> {
    /// The new ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Encrypts many items under one CMK.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchEncryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// Up to 65,536 plaintexts of up to 64 KiB.
    #[serde(borrow)]
    pub items: Vec<Bin<'a>>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// One context an item; not together with `EncryptionContext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_contexts: Option<Vec<Option<EncryptionContext>>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchEncrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchEncryptReply<'a> {
    /// The results in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
}

/// Decrypts many items, each under the CMK that it names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchDecryptRequest<'a> {
    /// Up to 65,536 ciphertexts, of any CMKs.
    #[serde(borrow)]
    pub items: Vec<Bin<'a>>,
    /// The key that all must be under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// One context an item; not together with `EncryptionContext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_contexts: Option<Vec<Option<EncryptionContext>>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchDecrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchDecryptReply<'a> {
    /// The results in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The keys that did it.
    pub key_ids: Vec<CmkId>,
    /// For each item its place in `KeyIds`, nil where it failed.
    pub key_index: Vec<Option<u32>>,
}

/// Re-encrypts many items under one CMK.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchReEncryptRequest<'a> {
    /// Up to 65,536 ciphertexts, of any CMKs.
    #[serde(borrow)]
    pub items: Vec<Bin<'a>>,
    /// Key id, ARN or alias of the key to encrypt under.
    pub destination_key_id: KeyRef,
    /// The context of all items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_encryption_context: Option<EncryptionContext>,
    /// One context an item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_encryption_contexts: Option<Vec<Option<EncryptionContext>>>,
    /// The new context of all items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_encryption_context: Option<EncryptionContext>,
    /// One new context an item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_encryption_contexts: Option<Vec<Option<EncryptionContext>>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchReEncrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchReEncryptReply<'a> {
    /// The results in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
}

/// An item that failed: `[index, code, message]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError(
    /// Its place in the request.
    pub u32,
    /// The code, as a single operation would answer.
    pub Cow<'static, str>,
    /// The message.
    pub Cow<'static, str>,
);

impl ItemError {
    /// Makes the error of item `index`.
    pub fn new(index: usize, error: Error) -> Self {
        Self(index as u32, Cow::Borrowed(error.kind().code()), error.into_message())
    }
}
