//! Application access points: who an application is, by which keys it shows that, and which policies say what it may do.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{AapName, ClientKeyId, PolicyName};
use crate::operation::Bin;
use crate::time::Timestamp;

/// An application access point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aap {
    /// Its name.
    pub name: AapName,
    /// Free text.
    pub description: String,
    /// The policies that say what it may do, 1 to 3.
    pub policies: Vec<PolicyName>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The public half of a key by which an application shows which access point it is of. The private half was told once, or never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    /// Its id, which requests are signed under.
    pub id: ClientKeyId,
    /// Whose it is.
    pub aap: AapName,
    /// What it signs with.
    pub algorithm: ClientKeyAlgorithm,
    /// Where it was made.
    pub origin: ClientKeyOrigin,
    /// SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7).
    #[serde(with = "der")]
    pub public_key: Vec<u8>,
    /// A certificate that it signs itself, in PEM; of one that was registered the public key in PEM; of a TLS certificate what it is known by.
    pub shown: String,
    /// The TLS certificate that it stands for, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<KnownBy>,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken; not then any more.
    pub not_after: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
}

mod der {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        der: &[u8],
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        Bin::from(der).serialize(serializer)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Vec<u8>, D::Error> {
        Bin::deserialize(deserializer).map(Bin::into_vec)
    }
}

impl ClientKey {
    /// Tells whether the key is taken at that time.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// By what a TLS client certificate is known that stands for a client key. That it is good, its CA says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KnownBy {
    /// SHA-256 of the certificate in DER, in hex: that one, and no renewal of it.
    Fingerprint(String),
    /// A URI among its subject alternative names (RFC 5280 §4.2.1.6), as SPIFFE has them: whoever holds one with it.
    Uri(String),
}

impl KnownBy {
    /// Reads a fingerprint: 64 hexadecimal digits, in any case, with or without colons between the bytes.
    ///
    /// # Errors
    /// `InvalidParameter` for anything else.
    pub fn fingerprint(text: &str) -> Result<Self> {
        let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
        let bytes = text.split(':');
        let is_even = !text.contains(':') || bytes.clone().all(|byte| byte.len() == 2);
        match digits.len() == 64 && digits.bytes().all(|c| c.is_ascii_hexdigit()) && is_even {
            true => Ok(Self::Fingerprint(digits)),
            false => Err(Error::new(
                ErrorKind::InvalidParameter,
                "Fingerprint is SHA-256 of a certificate: 64 hexadecimal digits",
            )),
        }
    }

    /// Reads a URI: a scheme, a colon, and what follows, of printable ASCII, up to 2,048 bytes. It is compared byte by byte.
    ///
    /// # Errors
    /// `InvalidParameter` for anything else.
    pub fn uri(text: &str) -> Result<Self> {
        let scheme =
            text.split_once(':').filter(|(_, rest)| !rest.is_empty()).map_or("", |(scheme, _)| scheme);
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'));
        match is_scheme && text.len() <= 2_048 && text.bytes().all(|c| c.is_ascii_graphic()) {
            true => Ok(Self::Uri(text.to_owned())),
            false => Err(Error::new(
                ErrorKind::InvalidParameter,
                "Uri is one such as spiffe://example/loader: printable ASCII, up to 2048 bytes",
            )),
        }
    }
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KnownBy::Fingerprint(digits) => write!(f, "sha256:{digits}"),
            KnownBy::Uri(uri) => f.write_str(uri),
        }
    }
}

/// What a client key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientKeyAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 under a modulus of 2,048 bits (RFC 8017 §8.2).
    #[serde(rename = "RSA_2048")]
    Rsa2048,
    /// The same under 3,072 bits.
    #[serde(rename = "RSA_3072")]
    Rsa3072,
    /// The same under 4,096 bits.
    #[serde(rename = "RSA_4096")]
    Rsa4096,
    /// ECDSA on P-256 with SHA-256, signatures in DER (FIPS 186-5 §6).
    #[serde(rename = "EC_P256")]
    EcP256,
    /// Nothing: the TLS handshake has shown that the caller holds the certificate's key.
    #[serde(rename = "X509_CERTIFICATE")]
    Certificate,
    /// Nothing: it binds accounts of ACME (RFC 8555 §7.3.4), by an HMAC key that is derived of its id.
    #[serde(rename = "ACME")]
    Acme,
}

impl ClientKeyAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            ClientKeyAlgorithm::Rsa2048 => "RSA_2048",
            ClientKeyAlgorithm::Rsa3072 => "RSA_3072",
            ClientKeyAlgorithm::Rsa4096 => "RSA_4096",
            ClientKeyAlgorithm::EcP256 => "EC_P256",
            ClientKeyAlgorithm::Certificate => "X509_CERTIFICATE",
            ClientKeyAlgorithm::Acme => "ACME",
        }
    }

    /// Tells whether requests are signed with it.
    pub fn signs(self) -> bool {
        !matches!(self, ClientKeyAlgorithm::Certificate | ClientKeyAlgorithm::Acme)
    }
}

/// Where a client key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientKeyOrigin {
    /// Here; its private half was returned once.
    #[serde(rename = "KMS_PROVIDED")]
    Kms,
    /// Elsewhere; its private half was never here.
    #[serde(rename = "USER_PROVIDED")]
    User,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_key_is_taken_from_its_first_moment_to_the_one_before_its_last() {
        let at = Timestamp::from_ms;
        let key = ClientKey {
            id: ClientKeyId::from_random([7; 16]),
            aap: "app".parse().unwrap(),
            algorithm: ClientKeyAlgorithm::Rsa2048,
            origin: ClientKeyOrigin::Kms,
            public_key: Vec::new(),
            shown: String::new(),
            certificate: None,
            not_before: at(1_000),
            not_after: at(2_000),
            created_at: at(0),
        };
        for (now, expected) in [(999, false), (1_000, true), (1_999, true), (2_000, false)] {
            assert_eq!(key.is_valid_at(at(now)), expected, "{now}");
        }
    }

    #[test]
    fn a_certificate_is_known_by_its_fingerprint_or_a_uri_and_nothing_looser() {
        let digits = "0aF1".repeat(16);
        let lower = KnownBy::Fingerprint(digits.to_lowercase());
        let colons: Vec<_> =
            digits.as_bytes().chunks(2).map(|byte| std::str::from_utf8(byte).unwrap()).collect();
        assert_eq!(KnownBy::fingerprint(&digits).unwrap(), lower);
        assert_eq!(KnownBy::fingerprint(&colons.join(":")).unwrap(), lower);
        for wrong in [
            "",
            "0a",
            &digits[1..],
            &format!("{digits}0"),
            &digits.replace('F', "G"),
            &format!("0:{}", &digits[1..]),
        ] {
            assert!(KnownBy::fingerprint(wrong).is_err(), "{wrong}");
        }
        KnownBy::uri("spiffe://example/ns/prod/sa/loader").unwrap();
        for wrong in
            ["", "spiffe", ":a", "a:", "1a:b", "a:b c", "a:b\u{e9}", &format!("a:{}", "b".repeat(2_047))]
        {
            assert!(KnownBy::uri(wrong).is_err(), "{wrong}");
        }
        assert_eq!(lower.to_string(), format!("sha256:{}", digits.to_lowercase()));
    }
}
