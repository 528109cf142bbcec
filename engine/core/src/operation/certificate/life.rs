//! Requests and replies of the life of a certificate: made, signed elsewhere and put here, imported, changed, ended, and its key taken out.

use serde::{Deserialize, Serialize};

use crate::certificate::CertificateStatus;
use crate::id::{CertificateId, CertificateRef, RequestId};
use crate::key::{KeySpec, ProtectionLevel};
use crate::operation::{Bin, Password, TagPair};

/// Makes a key pair and a request that an authority signs (RFC 2986).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateCertificateRequest {
    /// `RSA_2048`, `EC_P256` or `EC_SM2`; beyond the cloud `RSA_3072`, `RSA_4096`, `EC_P384` and `Ed25519`, too.
    pub key_spec: KeySpec,
    /// Whose it is to be (RFC 4514), with `CN`, `O`, `OU` and `C`.
    pub subject: String,
    /// Up to ten other names; DNS names, and beyond the cloud `IP:`, `email:` and `URI:` ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_alternative_names: Option<Vec<String>>,
    /// Whether the private key may leave by `ExportCertificate`; it may if absent, but that of an HSM never may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportable_private_key: Option<bool>,
    /// Where the key lives; as `CreateKey` has it if absent. Beyond the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection_level: Option<ProtectionLevel>,
    /// Up to 20 tags. Beyond the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagPair>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Its ARN.
    pub arn: String,
    /// The request, in PEM.
    pub csr: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Puts what an authority signed to the key that it is for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UploadCertificateRequest {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// The certificate in PEM; its key is the one that was made.
    pub certificate: String,
    /// Those that signed it, each followed by its own issuer, up to the root, which may be left out; in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UploadCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UploadCertificateReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Takes a certificate over with its private key. Beyond the cloud.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ImportCertificateRequest<'a> {
    /// The certificate in PEM; it or `Pkcs12` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Those that signed it, as of `UploadCertificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<String>,
    /// The private key: PKCS #8 in DER (RFC 5958).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Bin<'a>>,
    /// A container of all of them (RFC 7292), up to 256 KiB.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<Bin<'a>>,
    /// What opens the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// Whether the private key may leave by `ExportCertificate`; it may not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportable_private_key: Option<bool>,
    /// Up to 20 tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagPair>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ImportCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImportCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Its ARN.
    pub arn: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Gives a certificate, its chain, and what it was signed from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GetCertificateRequest {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `GetCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// The certificate in PEM, once it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Those that signed it, in PEM, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<String>,
    /// The signing request in PEM, where its key was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Changes the state of a certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateCertificateStatusRequest {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// `ACTIVE`, `INACTIVE` or `REVOKED`; the last one is for good.
    pub status: CertificateStatus,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateCertificateStatus`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateCertificateStatusReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Ends a certificate with its chain and its private key, at once and for good.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteCertificateRequest {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteCertificateReply {
    /// The id of the request.
    pub request_id: RequestId,
}

/// Gives a certificate out with its private key, where that may leave. Beyond the cloud.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExportCertificateRequest {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// What locks the container: 8 to 64 characters.
    pub password: Password,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ExportCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExportCertificateReply<'a> {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Certificate, chain and private key (RFC 7292), under the password.
    #[serde(borrow)]
    pub pkcs12: Bin<'a>,
    /// The id of the request.
    pub request_id: RequestId,
}
