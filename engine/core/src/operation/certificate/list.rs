//! What is told of certificates: of one, and in lists.

use serde::{Deserialize, Serialize};

use crate::certificate::{CertificateOrigin, CertificateStatus, RevocationReason};
use crate::id::{AuthorityName, CertificateId, CertificateRef, ProfileName, RequestId};
use crate::key::{KeySpec, ProtectionLevel, Tags};
use crate::operation::KeyFilter;
use crate::time::Timestamp;

/// Tells what a certificate is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeCertificateRequest {
    /// The certificate, by id or ARN.
    pub certificate_id: CertificateRef,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// Its ARN.
    pub arn: String,
    /// The state.
    pub status: CertificateStatus,
    /// What kind of key it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// Where its private key lives; absent where that is elsewhere. Beyond the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection_level: Option<ProtectionLevel>,
    /// Where it comes from. Beyond the cloud.
    pub origin: CertificateOrigin,
    /// Whether its private key may leave.
    pub exportable_private_key: bool,
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// The other names, as they were asked for; once it is signed, as it says.
    pub subject_alternative_names: Vec<String>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The serial number, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The first moment of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// How it was signed: `RSA2048-SHA256`, `ECDSA-SHA256`, `SM2-SM3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_algorithm: Option<String>,
    /// The key identifier: pairs of hexadecimal digits, with spaces between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_key_identifier: Option<String>,
    /// The public key in PEM (RFC 7468 §13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_public_key: Option<String>,
    /// The authority here that signed it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_name: Option<AuthorityName>,
    /// By which profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Whether it is renewed by itself, then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_renew: Option<bool>,
    /// When it was revoked, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_time: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_reason: Option<RevocationReason>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the certificates that the caller may see, the oldest first. Beyond the cloud.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListCertificatesRequest {
    /// Up to ten filters, of `Status`, `KeySpec`, `Origin`, `Subject`, `Issuer` (both: what they contain), `Name` (one of its names, whole), `Serial`, `TagKey`, `TagValue` and `Creator`, and of what authorities here issued `AuthorityName`, `Profile` and `AccessPoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<KeyFilter>>,
    /// Those alone that end before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_before: Option<Timestamp>,
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

/// The reply of `ListCertificates`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListCertificatesReply {
    /// The rows.
    pub certificates: CertificateList,
    /// The page.
    pub page_number: u32,
    /// Rows of a page.
    pub page_size: u32,
    /// Rows of all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Rows of `ListCertificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateList {
    /// The rows.
    pub certificate: Vec<CertificateRow>,
}

/// One row of `ListCertificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateRow {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// The state.
    pub status: CertificateStatus,
    /// Where it comes from.
    pub origin: CertificateOrigin,
    /// What kind of key it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// Whose it is.
    pub subject: String,
    /// The other names.
    pub subject_alternative_names: Vec<String>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The last moment of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}
