//! The life of authorities: made with a key of their own, described, changed, and deleted once nothing valid is theirs.

use serde::{Deserialize, Serialize};

use crate::certificate::{
    AccessPointNames, AuthorityState, CertificateProfile, DistinguishedName, NameConstraints,
};
use crate::error::Result;
use crate::id::{AuthorityName, CertificateId, RequestId};
use crate::key::{Fallback, KeySpec, ProtectionLevel};
use crate::time::Timestamp;

/// The name constraints of an authority (RFC 5280 §4.2.1.10). Where any are permitted, names of the kinds that none of those speak of are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PermittedNames {
    /// DNS names that are permitted, with all below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted_dns: Vec<String>,
    /// DNS names that are not, with all below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_dns: Vec<String>,
    /// Networks that are permitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted_ip: Vec<String>,
    /// Networks that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_ip: Vec<String>,
}

impl PermittedNames {
    /// Reads them.
    ///
    /// # Errors
    /// `InvalidParameter`, naming the entry that is wrong.
    pub fn read(&self) -> Result<NameConstraints> {
        NameConstraints::read(&self.permitted_dns, &self.excluded_dns, &self.permitted_ip, &self.excluded_ip)
    }
}

impl From<&NameConstraints> for PermittedNames {
    fn from(constraints: &NameConstraints) -> Self {
        let networks = |all: &[(std::net::IpAddr, u8)]| {
            all.iter().map(|(address, bits)| format!("{address}/{bits}")).collect()
        };
        Self {
            permitted_dns: constraints.permitted_dns.clone(),
            excluded_dns: constraints.excluded_dns.clone(),
            permitted_ip: networks(&constraints.permitted_ip),
            excluded_ip: networks(&constraints.excluded_ip),
        }
    }
}

/// Makes an authority with a key of its own: a root, which signs its certificate itself, or one that another signs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateCertificateAuthorityRequest {
    /// Its name, which no other authority has, and which is a part of the addresses of its lists.
    pub authority_name: AuthorityName,
    /// Whose its certificate is: `CN=Example issuing,O=Example,C=CN`.
    pub subject: DistinguishedName,
    /// The kind of its key; `EC_P256` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// Where its key lives; as the configuration says of new keys if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection_level: Option<ProtectionLevel>,
    /// For an HSM key: when a software copy of it may stand in; never if absent, and at most what the pool allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// The authority here that signs its certificate, which the caller needs the right to `IssueCertificate` of; itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<AuthorityName>,
    /// Whether one elsewhere signs it: the answer has a request for that (PKCS #10), and `ActivateCertificateAuthority` brings what comes of it. Not if absent, and not beside a parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_signed_elsewhere: Option<bool>,
    /// Days that its certificate is valid, up to 36,500; 3,650 if absent. It ends no later than its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_days: Option<u32>,
    /// How many authorities may stand below it; of a root any number, else one less than its parent's, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_length: Option<u8>,
    /// What names it may certify; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_constraints: Option<PermittedNames>,
    /// Hours that its list of what was revoked is good for, 1 to 8,784; 72 if absent. A new one is made at half that time, and with each revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_hours: Option<u32>,
    /// Profiles of its own, up to 64: it offers those alone. One that has none offers those that are built in: `server`, `client`, `server-client`,
    /// `code-signing`, `ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<CertificateProfile>>,
    /// What access points may ask it for, up to 1,024; others may not ask for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_points: Option<Vec<AccessPointNames>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `CreateCertificateAuthority`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateCertificateAuthorityReply {
    /// Its name.
    pub authority_name: AuthorityName,
    /// The certificate that it signs by.
    pub certificate_id: CertificateId,
    /// That certificate in PEM; absent where one elsewhere signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The request for it in PEM, where one elsewhere signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Brings the certificate of an authority that one elsewhere signed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ActivateCertificateAuthorityRequest {
    /// The authority.
    pub authority_name: AuthorityName,
    /// Its certificate in PEM: of its key and subject, and of an authority.
    pub certificate: String,
    /// Those above it in PEM, each signed by the next, up to ten; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<String>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `ActivateCertificateAuthority`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ActivateCertificateAuthorityReply {
    /// Its name.
    pub authority_name: AuthorityName,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Tells what is known of an authority.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeCertificateAuthorityRequest {
    /// The authority.
    pub authority_name: AuthorityName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DescribeCertificateAuthority`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeCertificateAuthorityReply {
    /// Its name.
    pub authority_name: AuthorityName,
    /// The certificate that it signs by.
    pub certificate_id: CertificateId,
    /// The authority that signed it, where that is one here and another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<AuthorityName>,
    /// What it does.
    pub status: AuthorityState,
    /// The subject of its certificate.
    pub subject: DistinguishedName,
    /// The kind of its key.
    pub key_spec: KeySpec,
    /// Where its key lives.
    pub protection_level: ProtectionLevel,
    /// When its certificate begins, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// How many authorities may stand below it; any number where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_length: Option<u8>,
    /// What names it may certify, where not any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_constraints: Option<PermittedNames>,
    /// Hours that its list of what was revoked is good for.
    pub crl_hours: u32,
    /// Its profiles, with those that every one has.
    pub profiles: Vec<CertificateProfile>,
    /// What access points may ask it for.
    pub access_points: Vec<AccessPointNames>,
    /// Its certificate in PEM, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Those above it in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<String>,
    /// The request for its certificate in PEM, where it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// How many certificates it issued that have not ended.
    pub issued: u64,
    /// How many of those it revoked.
    pub revoked: u64,
    /// The number of its newest list of what was revoked, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_number: Option<u64>,
    /// When that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_this_update: Option<Timestamp>,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_next_update: Option<Timestamp>,
    /// Where that list is, where the server has a public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_url: Option<String>,
    /// Where revocation is answered for, there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp_url: Option<String>,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it was changed last.
    pub update_time: Timestamp,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Lists the authorities that the caller may see, by their names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ListCertificateAuthoritiesRequest {
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

/// The reply of `ListCertificateAuthorities`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListCertificateAuthoritiesReply {
    /// The rows.
    pub authorities: Vec<CertificateAuthorityRow>,
    /// The page.
    pub page_number: u32,
    /// Rows of a page.
    pub page_size: u32,
    /// Rows of all pages.
    pub total_count: u64,
    /// The id of the request.
    pub request_id: RequestId,
}

/// One row of `ListCertificateAuthorities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateAuthorityRow {
    /// Its name.
    pub authority_name: AuthorityName,
    /// The certificate that it signs by.
    pub certificate_id: CertificateId,
    /// The authority that signed it, where that is one here and another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<AuthorityName>,
    /// What it does.
    pub status: AuthorityState,
    /// The subject of its certificate.
    pub subject: DistinguishedName,
    /// The kind of its key.
    pub key_spec: KeySpec,
    /// Where its key lives.
    pub protection_level: ProtectionLevel,
    /// When its certificate begins, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// Changes an authority. What is absent stays as it is; lists are changed as a whole. One that is disabled issues nothing and goes on to say what was
/// revoked; those below it go on issuing, unlike below one whose certificate was revoked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateCertificateAuthorityRequest {
    /// The authority.
    pub authority_name: AuthorityName,
    /// `Enabled`, or `Disabled`: it then issues nothing, and goes on to say what was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AuthorityState>,
    /// Hours that its list of what was revoked is good for, 1 to 8,784, from the next one on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_hours: Option<u32>,
    /// The profiles of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<CertificateProfile>>,
    /// What access points may ask it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_points: Option<Vec<AccessPointNames>>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `UpdateCertificateAuthority`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateCertificateAuthorityReply {
    /// Its name.
    pub authority_name: AuthorityName,
    /// The id of the request.
    pub request_id: RequestId,
}

/// Deletes an authority with its certificate and key. It is disabled, or never had a certificate, and nothing that it issued is valid, unless revoked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeleteCertificateAuthorityRequest {
    /// The authority.
    pub authority_name: AuthorityName,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `DeleteCertificateAuthority`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteCertificateAuthorityReply {
    /// Its name.
    pub authority_name: AuthorityName,
    /// The id of the request.
    pub request_id: RequestId,
}
