//! Revocation: for good, with all that was issued in the place of the certificate before; or of one of those alone.

use serde::{Deserialize, Serialize};

use crate::certificate::{RevocationReason, Serial};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{AuthorityName, CertificateId, RequestId};
use crate::time::Timestamp;

/// Revokes a certificate that an authority here issued, with those before it that have not ended. By the serial number of one before the newest, that
/// one alone is revoked, and the certificate stays in use. Where it is revoked already it stays as it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RevokeCertificateRequest {
    /// The certificate; or its authority and serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateId>,
    /// The authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_name: Option<AuthorityName>,
    /// The serial number in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<Serial>,
    /// Why; `Unspecified` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RevocationReason>,
    /// Milliseconds that the request may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The reply of `RevokeCertificate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RevokeCertificateReply {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// When it was revoked.
    pub revocation_time: Timestamp,
    /// Why.
    pub reason: RevocationReason,
    /// The number of the list that says so; absent where none could be made by now, which is tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_number: Option<u64>,
    /// The id of the request.
    pub request_id: RequestId,
}

/// How a certificate is named that is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// By its id.
    Certificate(CertificateId),
    /// By who issued it, and under which number.
    Serial(AuthorityName, Serial),
}

impl RevokeCertificateRequest {
    /// Returns what is named.
    ///
    /// # Errors
    /// `MissingParameter` for nothing, `InvalidParameter` for both or half of it.
    pub fn named(&self) -> Result<Revoked> {
        match (self.certificate_id, &self.authority_name, self.serial_number) {
            (Some(id), None, None) => Ok(Revoked::Certificate(id)),
            (None, Some(authority), Some(serial)) => Ok(Revoked::Serial(authority.clone(), serial)),
            (None, None, None) => {
                let why = "CertificateId, or AuthorityName and SerialNumber, is needed";
                Err(Error::new(ErrorKind::MissingParameter, why))
            }
            _ => {
                let why = "either CertificateId is given, or AuthorityName and SerialNumber";
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_in_one_way() {
        let of = |json: &str| serde_json::from_str::<RevokeCertificateRequest>(json).unwrap().named();
        let id = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";
        let serial = "5a".repeat(16);
        assert!(matches!(of(&format!(r#"{{"CertificateId":"{id}"}}"#)).unwrap(), Revoked::Certificate(_)));
        let both = format!(r#"{{"AuthorityName":"issuing","SerialNumber":"{serial}"}}"#);
        assert!(matches!(of(&both).unwrap(), Revoked::Serial(..)));
        assert_eq!(of("{}").unwrap_err().kind(), ErrorKind::MissingParameter);
        for odd in [
            r#"{"AuthorityName":"issuing"}"#.to_owned(),
            format!(r#"{{"SerialNumber":"{serial}"}}"#),
            format!(r#"{{"CertificateId":"{id}","SerialNumber":"{serial}"}}"#),
        ] {
            assert_eq!(of(&odd).unwrap_err().kind(), ErrorKind::InvalidParameter, "{odd}");
        }
        assert!(serde_json::from_str::<RevokeCertificateRequest>(r#"{"Reason":"CertificateHold"}"#).is_err());
    }
}
