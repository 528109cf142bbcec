//! Issuing: one certificate, many at once, and one anew.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::certificate::{AltName, DistinguishedName, Serial};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AuthorityName, CertificateId, ProfileName, RequestId};
use crate::key::{KeySpec, ProtectionLevel};
use crate::limit;
use crate::operation::TagPair;
use crate::time::Timestamp;

/// Issues a certificate: for the key of a request (PKCS #10), or for one that is made here with it. By a profile of usage `Ca` it makes an authority of
/// its subject, and needs the right to `CreateCertificateAuthority` on the authority beside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct IssueCertificateRequest {
    /// The authority.
    pub authority_name: AuthorityName,
    /// The profile.
    pub profile: ProfileName,
    /// The request in PEM, which its key signed; a key is made here if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// Whose it is to be; as the request says, or named after its first name, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<DistinguishedName>,
    /// What it is to be for: `orders.example`, `IP:10.0.0.1`, `email:ops@example.com`, `URI:spiffe://example/orders`, up to 100; as the request says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alt_names: Option<Vec<AltName>>,
    /// Days that it is valid, up to what the profile allows; as the profile says if absent. It ends no later than the authority's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_days: Option<u32>,
    /// The kind of the key that is made here; `EC_P256` if absent. Not beside a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// Where that key lives; as the configuration says of new keys if absent. Not beside a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection_level: Option<ProtectionLevel>,
    /// Whether that key may be exported with it; not if absent. Not beside a request, nor in an HSM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportable_private_key: Option<bool>,
    /// Whether it is renewed by itself, two thirds into its time; so it is if absent where the key is made here, and else not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_renew: Option<bool>,
    /// Up to 20 tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagPair>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `IssueCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IssueCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// It in PEM.
    pub certificate: String,
    /// Those of authorities above it in PEM, its issuer first, without the root.
    pub certificate_chain: String,
    /// Its serial number in hexadecimal.
    pub serial_number: Serial,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// Whether it ends earlier than was asked for: with the certificate of the authority itself. Absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_shortened: Option<bool>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Issues certificates for up to 1,024 requests (PKCS #10). What is wrong with one of them is told of that one; the others are issued all or none.
/// By a profile of usage `Ca` it needs the right to `CreateCertificateAuthority` on the authority beside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BatchIssueCertificateRequest {
    /// The authority.
    pub authority_name: AuthorityName,
    /// The profile.
    pub profile: ProfileName,
    /// The requests.
    pub requests: Vec<CertificateAsked>,
    /// Days that they are valid, up to what the profile allows; as the profile says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_days: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// One request of many.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CertificateAsked {
    /// The request in PEM, which its key signed.
    pub csr: String,
    /// Whose it is to be; as the request says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<DistinguishedName>,
    /// What it is to be for; as the request says if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alt_names: Option<Vec<AltName>>,
}

/// The reply of `BatchIssueCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchIssueCertificateReply {
    /// What came of each request, in their order.
    pub certificates: Vec<CertificateOutcome>,
    /// Those of authorities above all of them in PEM, the issuer first, without the root.
    pub certificate_chain: String,
    /// The id of the request.
    pub request_id: RequestId,
}

/// What came of one request of many: a certificate, or what is wrong.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateOutcome {
    /// The certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateId>,
    /// It in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its serial number in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<Serial>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Whether it ends earlier than was asked for: with the certificate of the authority itself. Absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_shortened: Option<bool>,
    /// The code, as `IssueCertificate` would answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
    /// The message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'static, str>>,
}

impl CertificateOutcome {
    /// Tells what is wrong with a request: kind and message, never the source.
    pub fn refused(error: &Error) -> Self {
        Self {
            certificate_id: None,
            certificate: None,
            serial_number: None,
            not_after: None,
            is_shortened: None,
            code: Some(Cow::Borrowed(error.kind().code())),
            message: Some(Cow::Owned(error.message().to_owned())),
        }
    }
}

/// Checks that so many certificates may be asked for at once.
///
/// # Errors
/// `MissingParameter` for none, `InvalidParameter` for more than 1,024.
pub fn check_requests(list: &[CertificateAsked]) -> Result<()> {
    match list.len() {
        0 => Err(Error::new(ErrorKind::MissingParameter, "Requests is empty")),
        1..=limit::CERTIFICATES_A_BATCH => Ok(()),
        more => {
            let why =
                format!("Requests of {more} entries exceeds the limit of {}", limit::CERTIFICATES_A_BATCH);
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    }
}

/// Issues a certificate anew, of the same subject, names and profile, in its place: its id stays, and those before it are valid to their ends.
/// The right to `CreateCertificateAuthority` is needed beside where its profile is of usage `Ca`, and that to `UpdateCertificateAuthority` where an
/// authority here signs by it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RenewCertificateRequest {
    /// The certificate, which an authority here issued.
    pub certificate_id: CertificateId,
    /// A request in PEM for another key, where its key is not kept here; the key stays if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// Days that it is valid; as the last time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_days: Option<u32>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RenewCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RenewCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// It in PEM.
    pub certificate: String,
    /// Those of authorities above it in PEM, its issuer first, without the root.
    pub certificate_chain: String,
    /// Its serial number in hexadecimal.
    pub serial_number: Serial,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// Whether it ends earlier than was asked for: with the certificate of the authority itself. Absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_shortened: Option<bool>,
    /// The id of the request.
    pub request_id: RequestId,
}
