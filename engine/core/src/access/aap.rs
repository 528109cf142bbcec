//! Application access points: who an application is, by which keys it shows that, and which policies say what it may do.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// A certificate that it signs itself, in PEM; of one that was registered the public key in PEM.
    pub shown: String,
    /// From when on it is taken.
    pub not_before: Timestamp,
    /// Until when it is taken; not then any more.
    pub not_after: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
}

mod der {
    use super::*;

    pub(super) fn serialize<S: Serializer>(der: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Bin::from(der).serialize(serializer)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Bin::deserialize(deserializer).map(Bin::into_vec)
    }
}

impl ClientKey {
    /// Tells whether the key is taken at that time.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
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
}

impl ClientKeyAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            ClientKeyAlgorithm::Rsa2048 => "RSA_2048",
            ClientKeyAlgorithm::Rsa3072 => "RSA_3072",
            ClientKeyAlgorithm::Rsa4096 => "RSA_4096",
            ClientKeyAlgorithm::EcP256 => "EC_P256",
        }
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
            not_before: at(1_000),
            not_after: at(2_000),
            created_at: at(0),
        };
        for (now, expected) in [(999, false), (1_000, true), (1_999, true), (2_000, false)] {
            assert_eq!(key.is_valid_at(at(now)), expected, "{now}");
        }
    }
}
