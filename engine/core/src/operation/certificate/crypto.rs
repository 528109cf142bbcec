//! Requests and replies of work with the key of a certificate.

use serde::{Deserialize, Serialize};

use crate::id::{CertificateId, CertificateRef, RequestId};
use crate::key::{DecryptAlgorithm, SignAlgorithm};
use crate::operation::{Bin, MessageType};

/// Signs with the private key of a certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CertificatePrivateKeySignRequest<'a> {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// `RSA_PKCS1_SHA_256`, `RSA_PSS_SHA_256`, `ECDSA_SHA_256` or `SM2DSA`; beyond the cloud those of the other keys.
    pub algorithm: SignAlgorithm,
    /// The message, up to 4,096 bytes, or its digest.
    #[serde(borrow)]
    pub message: Bin<'a>,
    /// Which of both it is; a message if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<MessageType>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CertificatePrivateKeySign`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificatePrivateKeySignReply<'a> {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// The signature, as of `AsymmetricSign`.
    #[serde(borrow)]
    pub signature_value: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Checks a signature with the public key of a certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CertificatePublicKeyVerifyRequest<'a> {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// `RSA_PKCS1_SHA_256`, `RSA_PSS_SHA_256`, `ECDSA_SHA_256` or `SM2DSA`; beyond the cloud those of the other keys.
    pub algorithm: SignAlgorithm,
    /// The message, up to 4,096 bytes, or its digest.
    #[serde(borrow)]
    pub message: Bin<'a>,
    /// Which of both it is; a message if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<MessageType>,
    /// The signature.
    #[serde(borrow)]
    pub signature_value: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CertificatePublicKeyVerify`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificatePublicKeyVerifyReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Whether it is a signature of that.
    pub signature_valid: bool,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Encrypts for the private key of a certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CertificatePublicKeyEncryptRequest<'a> {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// `RSAES_OAEP_SHA_1`, `RSAES_OAEP_SHA_256` or `SM2PKE`.
    pub algorithm: DecryptAlgorithm,
    /// Up to 214 bytes with `RSAES_OAEP_SHA_1` and 2,048 bits, 190 with `RSAES_OAEP_SHA_256`, 6,047 with `SM2PKE`.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CertificatePublicKeyEncrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificatePublicKeyEncryptReply<'a> {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// The ciphertext, with nothing around it.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Decrypts with the private key of a certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CertificatePrivateKeyDecryptRequest<'a> {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// `RSAES_OAEP_SHA_1`, `RSAES_OAEP_SHA_256` or `SM2PKE`.
    pub algorithm: DecryptAlgorithm,
    /// The ciphertext.
    #[serde(borrow)]
    pub ciphertext_blob: Bin<'a>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CertificatePrivateKeyDecrypt`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificatePrivateKeyDecryptReply<'a> {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// The plaintext.
    #[serde(borrow)]
    pub plaintext: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}
