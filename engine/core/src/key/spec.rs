//! The kinds of key material, what each may be used for, and the algorithms of those uses, under the names that the cloud has.

use serde::{Deserialize, Serialize};

/// The kind of key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeySpec {
    /// A 256-bit AES key.
    #[serde(rename = "Aliyun_AES_256")]
    Aes256,
    /// A 192-bit AES key.
    #[serde(rename = "Aliyun_AES_192")]
    Aes192,
    /// A 128-bit AES key.
    #[serde(rename = "Aliyun_AES_128")]
    Aes128,
    /// An SM4 key (GB/T 32907).
    #[serde(rename = "Aliyun_SM4")]
    Sm4,
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
    /// A key pair of Ed25519 (RFC 8032); beyond the cloud.
    #[serde(rename = "Ed25519")]
    Ed25519,
    /// A key pair of ML-DSA-65 (FIPS 204); beyond the cloud.
    #[serde(rename = "ML_DSA_65")]
    MlDsa65,
    /// A key pair on the SM2 curve (GB/T 32918).
    #[serde(rename = "EC_SM2")]
    EcSm2,
    /// A 256-bit key of HMAC-SHA-256; the name is ours.
    #[serde(rename = "HMAC_SHA_256")]
    HmacSha256,
    /// A 384-bit key of HMAC-SHA-384; the name is ours.
    #[serde(rename = "HMAC_SHA_384")]
    HmacSha384,
    /// A 512-bit key of HMAC-SHA-512; the name is ours.
    #[serde(rename = "HMAC_SHA_512")]
    HmacSha512,
}

impl KeySpec {
    /// Every specification there is.
    pub const ALL: [KeySpec; 16] = [
        KeySpec::Aes256,
        KeySpec::Aes192,
        KeySpec::Aes128,
        KeySpec::Sm4,
        KeySpec::Rsa2048,
        KeySpec::Rsa3072,
        KeySpec::Rsa4096,
        KeySpec::EcP256,
        KeySpec::EcP384,
        KeySpec::EcP256K,
        KeySpec::Ed25519,
        KeySpec::MlDsa65,
        KeySpec::EcSm2,
        KeySpec::HmacSha256,
        KeySpec::HmacSha384,
        KeySpec::HmacSha512,
    ];

    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            KeySpec::Aes256 => "Aliyun_AES_256",
            KeySpec::Aes192 => "Aliyun_AES_192",
            KeySpec::Aes128 => "Aliyun_AES_128",
            KeySpec::Sm4 => "Aliyun_SM4",
            KeySpec::Rsa2048 => "RSA_2048",
            KeySpec::Rsa3072 => "RSA_3072",
            KeySpec::Rsa4096 => "RSA_4096",
            KeySpec::EcP256 => "EC_P256",
            KeySpec::EcP384 => "EC_P384",
            KeySpec::EcP256K => "EC_P256K",
            KeySpec::Ed25519 => "Ed25519",
            KeySpec::MlDsa65 => "ML_DSA_65",
            KeySpec::EcSm2 => "EC_SM2",
            KeySpec::HmacSha256 => "HMAC_SHA_256",
            KeySpec::HmacSha384 => "HMAC_SHA_384",
            KeySpec::HmacSha512 => "HMAC_SHA_512",
        }
    }

    /// Returns the bytes of a symmetric key's material; `None` for a key pair.
    pub fn material_bytes(self) -> Option<usize> {
        match self {
            KeySpec::HmacSha512 => Some(64),
            KeySpec::HmacSha384 => Some(48),
            KeySpec::Aes256 | KeySpec::HmacSha256 => Some(32),
            KeySpec::Aes192 => Some(24),
            KeySpec::Aes128 | KeySpec::Sm4 => Some(16),
            KeySpec::Rsa2048
            | KeySpec::Rsa3072
            | KeySpec::Rsa4096
            | KeySpec::EcP256
            | KeySpec::EcP384
            | KeySpec::EcP256K
            | KeySpec::Ed25519
            | KeySpec::MlDsa65
            | KeySpec::EcSm2 => None,
        }
    }

    /// Returns the bytes of the modulus; `None` for other than RSA.
    pub fn modulus_bytes(self) -> Option<usize> {
        match self {
            KeySpec::Rsa2048 => Some(256),
            KeySpec::Rsa3072 => Some(384),
            KeySpec::Rsa4096 => Some(512),
            _ => None,
        }
    }

    /// Tells whether the key is a pair with a public half.
    pub fn is_key_pair(self) -> bool {
        self.material_bytes().is_none()
    }

    /// Returns what a key of this specification may be used for; the first is the usual one.
    pub fn usages(self) -> &'static [KeyUsage] {
        match self {
            KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128 | KeySpec::Sm4 => &[KeyUsage::EncryptDecrypt],
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 | KeySpec::EcSm2 => {
                &[KeyUsage::SignVerify, KeyUsage::EncryptDecrypt]
            }
            KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcP256K | KeySpec::Ed25519 | KeySpec::MlDsa65 => {
                &[KeyUsage::SignVerify]
            }
            KeySpec::HmacSha256 | KeySpec::HmacSha384 | KeySpec::HmacSha512 => &[KeyUsage::GenerateVerifyMac],
        }
    }

    /// Tells whether a key of this specification can have that usage; beside those that callers ask for, the one of certificates.
    pub fn allows(self, usage: KeyUsage) -> bool {
        let does_both =
            || [KeyUsage::SignVerify, KeyUsage::EncryptDecrypt].map(|one| self.usages().contains(&one));
        self.usages().contains(&usage) || (usage == KeyUsage::SignDecrypt && does_both() == [true; 2])
    }

    /// Returns what the key of a certificate is for: all that its specification does.
    pub fn usage_of_certificate(self) -> KeyUsage {
        match self.allows(KeyUsage::SignDecrypt) {
            true => KeyUsage::SignDecrypt,
            false => KeyUsage::SignVerify,
        }
    }

    /// Returns how a key of this specification signs or computes MACs.
    pub fn signatures(self) -> &'static [SignAlgorithm] {
        match self {
            KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128 | KeySpec::Sm4 => &[],
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
                &[SignAlgorithm::RsaPssSha256, SignAlgorithm::RsaPkcs1Sha256]
            }
            KeySpec::EcP256 | KeySpec::EcP256K => &[SignAlgorithm::EcdsaSha256],
            KeySpec::EcP384 => &[SignAlgorithm::EcdsaSha384],
            KeySpec::Ed25519 => &[SignAlgorithm::Ed25519],
            KeySpec::MlDsa65 => &[SignAlgorithm::MlDsa65],
            KeySpec::EcSm2 => &[SignAlgorithm::Sm2Dsa],
            KeySpec::HmacSha256 => &[SignAlgorithm::HmacSha256],
            KeySpec::HmacSha384 => &[SignAlgorithm::HmacSha384],
            KeySpec::HmacSha512 => &[SignAlgorithm::HmacSha512],
        }
    }

    /// Returns how a key of this specification opens what was encrypted under its public half.
    pub fn decryptions(self) -> &'static [DecryptAlgorithm] {
        match self {
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => {
                &[DecryptAlgorithm::RsaesOaepSha256, DecryptAlgorithm::RsaesOaepSha1]
            }
            KeySpec::EcSm2 => &[DecryptAlgorithm::Sm2Pke],
            _ => &[],
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
    /// Signatures and decryption both, as the keys of certificates do; no key is made for it that is not one of those. The name is ours.
    #[serde(rename = "SIGN/VERIFY,ENCRYPT/DECRYPT")]
    SignDecrypt,
}

impl KeyUsage {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            KeyUsage::EncryptDecrypt => "ENCRYPT/DECRYPT",
            KeyUsage::SignVerify => "SIGN/VERIFY",
            KeyUsage::GenerateVerifyMac => "GENERATE/VERIFY",
            KeyUsage::SignDecrypt => "SIGN/VERIFY,ENCRYPT/DECRYPT",
        }
    }

    /// Tells whether a key of this usage signs, or computes MACs.
    pub fn signs(self) -> bool {
        self != KeyUsage::EncryptDecrypt
    }

    /// Tells whether a key of this usage encrypts and decrypts.
    pub fn encrypts(self) -> bool {
        matches!(self, KeyUsage::EncryptDecrypt | KeyUsage::SignDecrypt)
    }
}

/// How a key signs, or computes the MAC of a message.
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
    /// Ed25519 of a message (RFC 8032, 5.1; neither pre-hashed nor with a context); beyond the cloud.
    #[serde(rename = "ED25519")]
    Ed25519,
    /// ML-DSA-65 of a message (FIPS 204, algorithm 2; with an empty context); beyond the cloud.
    #[serde(rename = "ML_DSA_65")]
    MlDsa65,
    /// SM2 of a digest, SM3(ZA ‖ M) (GB/T 32918.2).
    #[serde(rename = "SM2DSA")]
    Sm2Dsa,
    /// HMAC-SHA-256 of a message.
    #[serde(rename = "HMAC_SHA_256")]
    HmacSha256,
    /// HMAC-SHA-384 of a message.
    #[serde(rename = "HMAC_SHA_384")]
    HmacSha384,
    /// HMAC-SHA-512 of a message.
    #[serde(rename = "HMAC_SHA_512")]
    HmacSha512,
}

impl SignAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            SignAlgorithm::RsaPssSha256 => "RSA_PSS_SHA_256",
            SignAlgorithm::RsaPkcs1Sha256 => "RSA_PKCS1_SHA_256",
            SignAlgorithm::EcdsaSha256 => "ECDSA_SHA_256",
            SignAlgorithm::EcdsaSha384 => "ECDSA_SHA_384",
            SignAlgorithm::Ed25519 => "ED25519",
            SignAlgorithm::MlDsa65 => "ML_DSA_65",
            SignAlgorithm::Sm2Dsa => "SM2DSA",
            SignAlgorithm::HmacSha256 => "HMAC_SHA_256",
            SignAlgorithm::HmacSha384 => "HMAC_SHA_384",
            SignAlgorithm::HmacSha512 => "HMAC_SHA_512",
        }
    }

    /// Returns the bytes of the digest that is signed; `None` where it is the message.
    pub fn digest_bytes(self) -> Option<usize> {
        match self {
            SignAlgorithm::RsaPssSha256
            | SignAlgorithm::RsaPkcs1Sha256
            | SignAlgorithm::EcdsaSha256
            | SignAlgorithm::Sm2Dsa => Some(32),
            SignAlgorithm::EcdsaSha384 => Some(48),
            SignAlgorithm::Ed25519
            | SignAlgorithm::MlDsa65
            | SignAlgorithm::HmacSha256
            | SignAlgorithm::HmacSha384
            | SignAlgorithm::HmacSha512 => None,
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
    /// SM2 public-key encryption: the point, the digest and the ciphertext in DER (GB/T 35276, GM/T 0009).
    #[serde(rename = "SM2PKE")]
    Sm2Pke,
}

impl DecryptAlgorithm {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            DecryptAlgorithm::RsaesOaepSha256 => "RSAES_OAEP_SHA_256",
            DecryptAlgorithm::RsaesOaepSha1 => "RSAES_OAEP_SHA_1",
            DecryptAlgorithm::Sm2Pke => "SM2PKE",
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
                    KeyUsage::SignDecrypt => false,
                };
                assert!(works && spec.allows(*usage), "{} {}", spec.name(), usage.name());
            }
            let does_both = spec.is_key_pair() && !spec.decryptions().is_empty();
            assert_eq!(spec.allows(KeyUsage::SignDecrypt), does_both, "{}", spec.name());
            let opens = spec.is_key_pair() && spec.usages().contains(&KeyUsage::EncryptDecrypt);
            assert_eq!(opens, !spec.decryptions().is_empty(), "{}", spec.name());
        }
    }
}
