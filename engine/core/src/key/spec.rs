//! The kinds of key material, what each may be used for, and the algorithms of those uses, under the names that the cloud has.

use serde::{Deserialize, Serialize};

/// The kind of key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeySpec {
    /// A 256-bit AES key.
    #[serde(rename = "Aliyun_AES_256")]
    Aes256,
    /// A 128-bit AES key.
    #[serde(rename = "Aliyun_AES_128")]
    Aes128,
    /// An RSA key pair with a modulus of 2,048 bits.
    #[serde(rename = "RSA_2048")]
    Rsa2048,
    /// An RSA key pair with a modulus of 3,072 bits.
    #[serde(rename = "RSA_3072")]
    Rsa3072,
    /// An RSA key pair with a modulus of 4,096 bits.
    #[serde(rename = "RSA_4096")]
    Rsa4096,
    /// A key pair on the curve P-256.
    #[serde(rename = "EC_P256")]
    EcP256,
    /// A key pair on the curve P-384; beyond the cloud.
    #[serde(rename = "EC_P384")]
    EcP384,
    /// A key pair on the curve secp256k1.
    #[serde(rename = "EC_P256K")]
    EcP256K,
    /// A 256-bit key of HMAC-SHA-256; the name is ours.
    #[serde(rename = "HMAC_SHA_256")]
    HmacSha256,
}

impl KeySpec {
    /// Every specification there is.
    pub const ALL: [KeySpec; 9] = [
        KeySpec::Aes256,
        KeySpec::Aes128,
        KeySpec::Rsa2048,
        KeySpec::Rsa3072,
        KeySpec::Rsa4096,
        KeySpec::EcP256,
        KeySpec::EcP384,
        KeySpec::EcP256K,
        KeySpec::HmacSha256,
    ];

    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            KeySpec::Aes256 => "Aliyun_AES_256",
            KeySpec::Aes128 => "Aliyun_AES_128",
            KeySpec::Rsa2048 => "RSA_2048",
            KeySpec::Rsa3072 => "RSA_3072",
            KeySpec::Rsa4096 => "RSA_4096",
            KeySpec::EcP256 => "EC_P256",
            KeySpec::EcP384 => "EC_P384",
            KeySpec::EcP256K => "EC_P256K",
            KeySpec::HmacSha256 => "HMAC_SHA_256",
        }
    }

    /// Returns the bytes of a symmetric key's material; `None` for a key pair.
    pub fn material_bytes(self) -> Option<usize> {
        match self {
            KeySpec::Aes256 | KeySpec::HmacSha256 => Some(32),
            KeySpec::Aes128 => Some(16),
            KeySpec::Rsa2048
            | KeySpec::Rsa3072
            | KeySpec::Rsa4096
            | KeySpec::EcP256
            | KeySpec::EcP384
            | KeySpec::EcP256K => None,
        }
    }

    /// Returns the bytes of the modulus; `None` for other than RSA.
    pub fn modulus_bytes(self) -> Option<usize> {
        match self {
            KeySpec::Rsa2048 => Some(256),
            KeySpec::Rsa3072 => Some(384),
            KeySpec::Rsa4096 => Some(512),
            KeySpec::Aes256
            | KeySpec::Aes128
            | KeySpec::EcP256
            | KeySpec::EcP384
            | KeySpec::EcP256K
            | KeySpec::HmacSha256 => None,
        }
    }

    /// Tells whether the key is a pair with a public half.
    pub fn is_key_pair(self) -> bool {
        self.material_bytes().is_none()
    }

    /// Returns what a key of this specification may be used for; the first is the usual one.
    pub fn usages(self) -> &'static [KeyUsage] {
        match self {
            KeySpec::Aes256 | KeySpec::Aes128 => &[KeyUsage::EncryptDecrypt],
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
                &[KeyUsage::SignVerify, KeyUsage::EncryptDecrypt]
            }
            KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcP256K => &[KeyUsage::SignVerify],
            KeySpec::HmacSha256 => &[KeyUsage::GenerateVerifyMac],
        }
    }

    /// Returns how a key of this specification signs or computes MACs.
    pub fn signatures(self) -> &'static [SignAlgorithm] {
        match self {
            KeySpec::Aes256 | KeySpec::Aes128 => &[],
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
                &[SignAlgorithm::RsaPssSha256, SignAlgorithm::RsaPkcs1Sha256]
            }
            KeySpec::EcP256 | KeySpec::EcP256K => &[SignAlgorithm::EcdsaSha256],
            KeySpec::EcP384 => &[SignAlgorithm::EcdsaSha384],
            KeySpec::HmacSha256 => &[SignAlgorithm::HmacSha256],
        }
    }

    /// Returns how a key of this specification opens what was encrypted under its public half.
    pub fn decryptions(self) -> &'static [DecryptAlgorithm] {
        match self {
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
                &[DecryptAlgorithm::RsaesOaepSha256, DecryptAlgorithm::RsaesOaepSha1]
            }
            KeySpec::Aes256
            | KeySpec::Aes128
            | KeySpec::EcP256
            | KeySpec::EcP384
            | KeySpec::EcP256K
            | KeySpec::HmacSha256 => &[],
        }
    }
}

/// What a key may be used for; a key has one usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyUsage {
    /// Encryption and decryption, and data keys.
    #[default]
    #[serde(rename = "ENCRYPT/DECRYPT")]
    EncryptDecrypt,
    /// Signatures.
    #[serde(rename = "SIGN/VERIFY")]
    SignVerify,
    /// MACs; the cloud documents no name for it.
    #[serde(rename = "GENERATE/VERIFY")]
    GenerateVerifyMac,
}

impl KeyUsage {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            KeyUsage::EncryptDecrypt => "ENCRYPT/DECRYPT",
            KeyUsage::SignVerify => "SIGN/VERIFY",
            KeyUsage::GenerateVerifyMac => "GENERATE/VERIFY",
        }
    }
}

/// How a key signs a digest, or computes the MAC of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SignAlgorithm {
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes.
    #[serde(rename = "RSA_PSS_SHA_256")]
    RsaPssSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RSA_PKCS1_SHA_256")]
    RsaPkcs1Sha256,
    /// ECDSA of a SHA-256 digest.
    #[serde(rename = "ECDSA_SHA_256")]
    EcdsaSha256,
    /// ECDSA of a SHA-384 digest; beyond the cloud.
    #[serde(rename = "ECDSA_SHA_384")]
    EcdsaSha384,
    /// HMAC-SHA-256 of a message.
    #[serde(rename = "HMAC_SHA_256")]
    HmacSha256,
}

impl SignAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            SignAlgorithm::RsaPssSha256 => "RSA_PSS_SHA_256",
            SignAlgorithm::RsaPkcs1Sha256 => "RSA_PKCS1_SHA_256",
            SignAlgorithm::EcdsaSha256 => "ECDSA_SHA_256",
            SignAlgorithm::EcdsaSha384 => "ECDSA_SHA_384",
            SignAlgorithm::HmacSha256 => "HMAC_SHA_256",
        }
    }

    /// Returns the bytes of the digest that is signed; `None` where it is the message.
    pub fn digest_bytes(self) -> Option<usize> {
        match self {
            SignAlgorithm::RsaPssSha256 | SignAlgorithm::RsaPkcs1Sha256 | SignAlgorithm::EcdsaSha256 => {
                Some(32)
            }
            SignAlgorithm::EcdsaSha384 => Some(48),
            SignAlgorithm::HmacSha256 => None,
        }
    }
}

/// How a private key opens what was encrypted under its public half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DecryptAlgorithm {
    /// RSAES-OAEP with SHA-256, in MGF1, too, and no label.
    #[serde(rename = "RSAES_OAEP_SHA_256")]
    RsaesOaepSha256,
    /// RSAES-OAEP with SHA-1, in MGF1, too, and no label.
    #[serde(rename = "RSAES_OAEP_SHA_1")]
    RsaesOaepSha1,
}

impl DecryptAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            DecryptAlgorithm::RsaesOaepSha256 => "RSAES_OAEP_SHA_256",
            DecryptAlgorithm::RsaesOaepSha1 => "RSAES_OAEP_SHA_1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_specification_has_uses_and_an_algorithm_for_each() {
        for spec in KeySpec::ALL {
            assert!(!spec.usages().is_empty(), "{}", spec.name());
            for usage in spec.usages() {
                let works = match usage {
                    KeyUsage::EncryptDecrypt => !spec.is_key_pair() || !spec.decryptions().is_empty(),
                    KeyUsage::SignVerify | KeyUsage::GenerateVerifyMac => !spec.signatures().is_empty(),
                };
                assert!(works, "{} {}", spec.name(), usage.name());
            }
            assert_eq!(spec.modulus_bytes().is_some(), !spec.decryptions().is_empty(), "{}", spec.name());
        }
    }
}
