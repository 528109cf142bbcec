//! Key pairs: signatures, and encryption for the private half; single and in batches. Asymmetric keys have no primary version: callers name
//! theirs. Ciphertexts and signatures are bare, as any other implementation makes and takes them.

use serde::{Deserialize, Serialize};

use super::{Bin, ItemError};
use crate::id::{CertificateRef, CmkId, KeyRef, KeyVersionId, RequestId};
use crate::key::{DecryptAlgorithm, SignAlgorithm};

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageType {
    /// The digest of a message, which the caller made; of exactly the algorithm's length.
    #[serde(rename = "DIGEST")]
    Digest,
    /// The message, which is digested here as the algorithm wants it; beyond the cloud.
    #[serde(rename = "RAW")]
    Raw,
}

/// Signs with the private half of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AsymmetricSignRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version that signs.
    pub key_version_id: KeyVersionId,
    /// How it is signed; one that the key has.
    pub algorithm: SignAlgorithm,
    /// The digest of the message; it or `Message` is needed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Bin<'a>>,
    /// The message itself, up to 64 KiB; beyond the cloud. `ED25519` and `ML_DSA_65` sign messages alone.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `AsymmetricSign`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsymmetricSignReply<'a> {
    /// The signature. RSA: as many bytes as the modulus (RFC 8017); ECDSA and SM2: two integers in DER (RFC 3279, 2.2.3).
    #[serde(borrow)]
    pub value: Bin<'a>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Checks a signature with the public half of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AsymmetricVerifyRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version that signed.
    pub key_version_id: KeyVersionId,
    /// How it was signed.
    pub algorithm: SignAlgorithm,
    /// The digest of the message; it or `Message` is needed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Bin<'a>>,
    /// The message itself, up to 64 KiB; beyond the cloud.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Bin<'a>>,
    /// The signature.
    #[serde(borrow)]
    pub value: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `AsymmetricVerify`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsymmetricVerifyReply {
    /// Whether it is a signature of that.
    pub value: bool,
    /// The key.
    pub key_id: CmkId,
    /// The version.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Encrypts for the private half of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AsymmetricEncryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version that is to decrypt.
    pub key_version_id: KeyVersionId,
    /// How it is encrypted; one that the key has.
    pub algorithm: DecryptAlgorithm,
    /// As much as modulus and padding leave room for; with SM2 up to 6,047 bytes.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `AsymmetricEncrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsymmetricEncryptReply<'a> {
    /// The ciphertext, with nothing around it.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The key.
    pub key_id: CmkId,
    /// The version.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Decrypts what was encrypted, here or elsewhere, under the public half of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AsymmetricDecryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version that decrypts.
    pub key_version_id: KeyVersionId,
    /// How it was encrypted.
    pub algorithm: DecryptAlgorithm,
    /// The ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `AsymmetricDecrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsymmetricDecryptReply<'a> {
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

/// Tells the public half of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetPublicKeyRequest {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version.
    pub key_version_id: KeyVersionId,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetPublicKey`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetPublicKeyReply {
    /// SubjectPublicKeyInfo in PEM (RFC 7468, 13).
    pub public_key: String,
    /// The key.
    pub key_id: CmkId,
    /// The version.
    pub key_version_id: KeyVersionId,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Signs many messages with one version of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchSignRequest<'a> {
    /// Key id, ARN or alias; it and the version are needed, or `CertificateId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// The version that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version_id: Option<KeyVersionId>,
    /// The certificate whose key it is, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateRef>,
    /// How they are signed.
    pub algorithm: SignAlgorithm,
    /// What `Messages` holds.
    pub message_type: MessageType,
    /// Up to 65,536 messages of up to 64 KiB, or their digests.
    #[serde(borrow)]
    pub messages: Vec<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchSign`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchSignReply<'a> {
    /// The signatures in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
}

/// Checks many signatures with one version of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchVerifyRequest<'a> {
    /// Key id, ARN or alias; it and the version are needed, or `CertificateId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyRef>,
    /// The version that signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version_id: Option<KeyVersionId>,
    /// The certificate whose key it is, by id or ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateRef>,
    /// How they were signed.
    pub algorithm: SignAlgorithm,
    /// What `Messages` holds.
    pub message_type: MessageType,
    /// Up to 65,536 messages of up to 64 KiB, or their digests.
    #[serde(borrow)]
    pub messages: Vec<Bin<'a>>,
    /// A signature for each.
    #[serde(borrow)]
    pub signatures: Vec<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchVerify`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchVerifyReply {
    /// Whether each is a signature of its message, nil where an item failed.
    pub valid: Vec<Option<bool>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key.
    pub key_id: CmkId,
    /// The version.
    pub key_version_id: KeyVersionId,
}

/// Encrypts many texts for one version of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchAsymmetricEncryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version that is to decrypt.
    pub key_version_id: KeyVersionId,
    /// How they are encrypted.
    pub algorithm: DecryptAlgorithm,
    /// Up to 65,536 plaintexts.
    #[serde(borrow)]
    pub items: Vec<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchAsymmetricEncrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchAsymmetricEncryptReply<'a> {
    /// The ciphertexts in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key.
    pub key_id: CmkId,
    /// The version.
    pub key_version_id: KeyVersionId,
}

/// Decrypts many ciphertexts with one version of a key pair.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchAsymmetricDecryptRequest<'a> {
    /// Key id, ARN or alias.
    pub key_id: KeyRef,
    /// The version that decrypts.
    pub key_version_id: KeyVersionId,
    /// How they were encrypted.
    pub algorithm: DecryptAlgorithm,
    /// Up to 65,536 ciphertexts.
    #[serde(borrow)]
    pub items: Vec<Bin<'a>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `BatchAsymmetricDecrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchAsymmetricDecryptReply<'a> {
    /// The plaintexts in the order of the request, nil where an item failed.
    #[serde(borrow)]
    pub items: Vec<Option<Bin<'a>>>,
    /// The items that failed, by index; empty where all went well.
    pub errors: Vec<ItemError>,
    /// The key that did it.
    pub key_id: CmkId,
    /// The version that did it.
    pub key_version_id: KeyVersionId,
}
