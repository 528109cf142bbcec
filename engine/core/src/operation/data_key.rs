//! Data keys: made here, given out in clear and encrypted (an EDK), or encrypted alone.

use serde::{Deserialize, Serialize};

use super::{Bin, ItemError};
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{CmkId, KeyRef, KeyVersionId, RequestId};
use crate::key::{DecryptAlgorithm, KeySpec};
use crate::limit;

/// The length of a data key by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataKeySpec {
    /// 32 bytes.
    #[serde(rename = "AES_256")]
    Aes256,
    /// 16 bytes.
    #[serde(rename = "AES_128")]
    Aes128,
}

/// Returns the bytes of a data key that was asked for by name, by number, or not at all.
///
/// # Errors
/// `InvalidParameter` for zero bytes, `LimitExceeded` for more than 1,024.
pub fn data_key_bytes(spec: Option<DataKeySpec>, number_of_bytes: Option<u32>) -> Result<usize> {
    match (number_of_bytes, spec) {
        (Some(0), _) => Err(Error::new(ErrorKind::InvalidParameter, "NumberOfBytes must be at least 1")),
        (Some(n), _) if n as usize > limit::DATA_KEY_BYTES => Err(Error::new(
            ErrorKind::LimitExceeded(Limit::DataKeyBytes),
            format!("NumberOfBytes of {n} exceeds the limit of {}", limit::DATA_KEY_BYTES),
        )),
        (Some(n), _) => Ok(n as usize),
        (None, Some(DataKeySpec::Aes128)) => Ok(16),
        (None, Some(DataKeySpec::Aes256) | None) => Ok(32),
    }
}

/// Makes a data key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateDataKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// 32 or 16 bytes; `AES_256` if neither this nor `NumberOfBytes` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<DataKeySpec>,
    /// 1 to 1,024; wins over `KeySpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<u32>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GenerateDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyReply<'a> {
    /// The data key in clear.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// The data key, encrypted.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a data key and gives it out encrypted alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateDataKeyWithoutPlaintextRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// 32 or 16 bytes; `AES_256` if neither this nor `NumberOfBytes` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<DataKeySpec>,
    /// 1 to 1,024; wins over `KeySpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<u32>,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GenerateDataKeyWithoutPlaintext`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyWithoutPlaintextReply<'a> {
    /// The data key, encrypted.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Opens a data key that was given out encrypted, and encrypts it for somebody else's key pair. Needs the right to `Decrypt`, too: whoever
/// holds that private key has the data key in clear.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExportDataKeyRequest<'a> {
    /// The data key, encrypted, as it was given out.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The public half that it is encrypted for (SubjectPublicKeyInfo in DER): RSA of 2,048, 3,072 or 4,096 bits with an odd exponent of at
    /// least 65,537 and below 2^256, or SM2.
    #[serde(borrow)]
    pub public_key_blob: Bin<'a>,
    /// Of which kind that is; `RSA_2048`, `RSA_3072`, `RSA_4096` or `EC_SM2`.
    pub wrapping_key_spec: KeySpec,
    /// How it is encrypted.
    pub wrapping_algorithm: DecryptAlgorithm,
    /// The pairs that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ExportDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExportDataKeyReply<'a> {
    /// The data key, encrypted for the given key pair.
    #[serde(borrow)]
    pub exported_data_key: Bin<'a>,
    /// The key that it was under.
    pub key_id: CmkId,
    /// The version that it was under.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes a data key, and gives it out encrypted twice: as ever, and for somebody else's key pair. Needs the right to `Decrypt`, too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GenerateAndExportDataKeyRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// 32 or 16 bytes; `AES_256` if neither this nor `NumberOfBytes` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<DataKeySpec>,
    /// 1 to 1,024, and what fits the public key; wins over `KeySpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<u32>,
    /// The public half that it is encrypted for, as in [`ExportDataKeyRequest`].
    #[serde(borrow)]
    pub public_key_blob: Bin<'a>,
    /// Of which kind that is.
    pub wrapping_key_spec: KeySpec,
    /// How it is encrypted.
    pub wrapping_algorithm: DecryptAlgorithm,
    /// Pairs that must be given again to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<EncryptionContext>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GenerateAndExportDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateAndExportDataKeyReply<'a> {
    /// The data key, encrypted.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The data key, encrypted for the given key pair.
    #[serde(borrow)]
    pub exported_data_key: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Makes many data keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchGenerateDataKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// How many, 1 to 65,536.
    pub count: u32,
    /// 32 or 16 bytes; `AES_256` if neither this nor `NumberOfBytes` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<DataKeySpec>,
    /// 1 to 1,024; wins over `KeySpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<u32>,
    /// Whether to leave out the clear keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_plaintext: Option<bool>,
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

/// The reply of `BatchGenerateDataKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchGenerateDataKeyReply<'a> {
    /// For each data key: ciphertext, and plaintext or nil; nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<(Bin<'a>, Option<Bin<'a>>)>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
}
