//! What is written into a certificate before it is signed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AltName, DistinguishedName};
use crate::time::Timestamp;

/// A serial number: positive, and of at most 20 bytes (RFC 5280 §4.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Makes a serial number of random bytes, with 126 bits of them; positive, and of 16 bytes in any case.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Self(bytes)
    }

    /// Returns its bytes, the most significant first.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// From when to when, both ends within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The first moment; whole seconds count.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// Tells whether a moment is within.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    /// Returns how long it is.
    pub fn length(&self) -> Duration {
        self.not_after.since(self.not_before)
    }
}

/// What a key may do (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyPurpose {
    /// Bit 0.
    DigitalSignature,
    /// Bit 1, also called content commitment.
    NonRepudiation,
    /// Bit 2: RSA of TLS 1.2 and before.
    KeyEncipherment,
    /// Bit 3.
    DataEncipherment,
    /// Bit 4.
    KeyAgreement,
    /// Bit 5: signs certificates.
    KeyCertSign,
    /// Bit 6: signs revocation lists.
    CrlSign,
}

/// What a certificate is for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExtendedUsage {
    /// A TLS server.
    ServerAuth,
    /// A TLS client.
    ClientAuth,
    /// Signatures of code.
    CodeSigning,
    /// Mail.
    EmailProtection,
    /// Time stamps.
    TimeStamping,
    /// Answers about revocation.
    OcspSigning,
}

/// Which names an authority may certify (RFC 5280 §4.2.1.10): DNS names and their subdomains, and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameConstraints {
    /// DNS names that are permitted, with all below them; all where there are none of any kind.
    pub permitted_dns: Vec<String>,
    /// DNS names that are not, with all below them.
    pub excluded_dns: Vec<String>,
    /// Networks that are permitted: address and bits of the prefix.
    pub permitted_ip: Vec<(std::net::IpAddr, u8)>,
    /// Networks that are not.
    pub excluded_ip: Vec<(std::net::IpAddr, u8)>,
}

/// A certificate before it is signed.
#[derive(Clone, Debug)]
pub struct Template<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// The subject of the authority's certificate in DER, so that both are the same byte for byte.
    pub issuer_der: &'a [u8],
    /// Whose it is.
    pub subject: &'a DistinguishedName,
    /// The other names; the subject's common name is none of them by itself.
    pub alt_names: &'a [AltName],
    /// From when to when.
    pub validity: Validity,
    /// SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7).
    pub public_key: &'a [u8],
    /// Whether it is of an authority, and then how many authorities may stand below it.
    pub authority: Option<Option<u8>>,
    /// What its key may do.
    pub key_purposes: &'a [KeyPurpose],
    /// What it is for.
    pub extended_usages: &'a [ExtendedUsage],
    /// What names it may certify, where it is of an authority.
    pub name_constraints: Option<&'a NameConstraints>,
    /// The key identifier of the authority; none where it is signed by itself.
    pub authority_key_id: Option<&'a [u8]>,
    /// Where the list of what was revoked is, over HTTP.
    pub crl_urls: &'a [String],
    /// Where revocation is answered for (RFC 6960).
    pub ocsp_urls: &'a [String],
    /// Where the authority's own certificate is.
    pub issuer_urls: &'a [String],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_of_one_length() {
        for byte in [0, 0x7f, 0x80, 0xff] {
            let serial = Serial::from_random([byte; 16]);
            assert!(serial.as_bytes()[0] & 0x80 == 0 && serial.as_bytes()[0] >= 0x40);
        }
    }

    #[test]
    fn both_ends_are_within() {
        let at = Timestamp::from_ms;
        let validity = Validity { not_before: at(10), not_after: at(20) };
        assert_eq!([9, 10, 20, 21].map(|ms| validity.covers(at(ms))), [false, true, true, false]);
        assert_eq!(validity.length(), Duration::from_millis(10));
    }
}
