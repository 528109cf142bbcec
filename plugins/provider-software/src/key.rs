//! Keys of every specification: made, decoded once when they are loaded, and used. To decode a private key costs half as much as
//! to sign with it.

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use keymill_core::Sensitive;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{JobError, ProviderError, PublicKey};

use crate::public::oaep;
use crate::random;
use crate::sm2::PrivateHalf;
use crate::spki;
use crate::symmetric::SymmetricKey;

/// The object behind this provider's handles: a key, ready for its usage.
pub(crate) enum SoftwareKey {
    Symmetric(SymmetricKey),
    Mac(Box<hmac::Key>),
    RsaSigner(RsaKeyPair),
    RsaOpener(OaepPrivateDecryptingKey),
    /// Of certificates, which do both.
    Rsa(Box<(RsaKeyPair, OaepPrivateDecryptingKey)>),
    Curve(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
    Lattice(PqdsaKeyPair),
    Sm2Signer(PrivateHalf),
    Sm2Opener(PrivateHalf),
    Sm2(PrivateHalf),
}

/// Makes material: bytes of a secret key, or PKCS #8 of a private one and its public half.
pub(crate) fn generate(spec: KeySpec) -> Result<(Sensitive, Option<PublicKey>), ProviderError> {
    if let Some(bytes) = spec.material_bytes() {
        let mut material = Sensitive::zeroed(bytes);
        random::fill(material.expose_mut())?;
        return Ok((material, None));
    }
    let pair = || match spec {
        KeySpec::Ed25519 => edwards(&Ed25519KeyPair::generate().ok()?),
        KeySpec::MlDsa65 => lattice(&PqdsaKeyPair::generate(&ML_DSA_65_SIGNING).ok()?),
        KeySpec::EcSm2 => sm2(&PrivateHalf::generate().ok()?),
        _ => match size(spec) {
            Some(size) => rsa(&RsaKeyPair::generate(size).ok()?),
            None => elliptic(&EcdsaKeyPair::generate(curve(spec)?).ok()?),
        },
    };
    let (private, public) = pair()
        .ok_or_else(|| ProviderError::unavailable(format!("no key pair of {} was made", spec.name())))?;
    Ok((private, Some(public)))
}

/// Reads PKCS #8 and writes it as [`generate`] does, with its public half; `None` where it is none of its specification.
pub(crate) fn reencode(spec: KeySpec, pkcs8: &[u8]) -> Option<(Sensitive, PublicKey)> {
    match spec {
        KeySpec::Ed25519 => edwards(&Ed25519KeyPair::from_pkcs8(pkcs8).ok()?),
        KeySpec::MlDsa65 => lattice(&PqdsaKeyPair::from_pkcs8(&ML_DSA_65_SIGNING, pkcs8).ok()?),
        KeySpec::EcSm2 => sm2(&PrivateHalf::from_pkcs8(pkcs8)?),
        _ => match curve(spec) {
            Some(curve) => elliptic(&EcdsaKeyPair::from_pkcs8(curve, pkcs8).ok()?),
            None => rsa(&RsaKeyPair::from_pkcs8(pkcs8).ok()?),
        },
    }
}

impl SoftwareKey {
    /// Decodes material; `None` where it is none of its specification, or its public half is another.
    pub(crate) fn decode(
        spec: KeySpec,
        usage: KeyUsage,
        material: &Sensitive,
        public: Option<&PublicKey>,
    ) -> Option<Self> {
        if spec.material_bytes().is_some_and(|bytes| bytes != material.len()) {
            return None;
        }
        let (key, derived) = match (spec, usage) {
            (
                KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128 | KeySpec::Sm4,
                KeyUsage::EncryptDecrypt,
            ) => (Self::Symmetric(SymmetricKey::new(spec, material)?), None),
            (
                KeySpec::HmacSha256 | KeySpec::HmacSha384 | KeySpec::HmacSha512,
                KeyUsage::GenerateVerifyMac,
            ) => {
                let key = hmac::Key::new(mac(*spec.signatures().first()?)?, material.expose());
                (Self::Mac(Box::new(key)), None)
            }
            (KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcP256K, KeyUsage::SignVerify) => {
                let pair = EcdsaKeyPair::from_pkcs8(curve(spec)?, material.expose()).ok()?;
                let public = curve_public(&pair)?;
                (Self::Curve(pair), Some(public))
            }
            (KeySpec::Ed25519, KeyUsage::SignVerify) => {
                let pair = Ed25519KeyPair::from_pkcs8(material.expose()).ok()?;
                let public = edwards_public(&pair)?;
                (Self::Edwards(pair), Some(public))
            }
            (KeySpec::MlDsa65, KeyUsage::SignVerify) => {
                let pair = PqdsaKeyPair::from_pkcs8(&ML_DSA_65_SIGNING, material.expose()).ok()?;
                let public = lattice_public(&pair)?;
                (Self::Lattice(pair), Some(public))
            }
            (KeySpec::EcSm2, KeyUsage::SignVerify | KeyUsage::EncryptDecrypt | KeyUsage::SignDecrypt) => {
                let half = PrivateHalf::from_pkcs8(material.expose())?;
                let public = half.public()?;
                let key = match usage {
                    KeyUsage::SignVerify => Self::Sm2Signer(half),
                    KeyUsage::EncryptDecrypt => Self::Sm2Opener(half),
                    _ => Self::Sm2(half),
                };
                (key, Some(public))
            }
            (KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096, KeyUsage::SignVerify) => {
                let (pair, public) = rsa_signer(spec, material)?;
                (Self::RsaSigner(pair), Some(public))
            }
            (KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096, KeyUsage::EncryptDecrypt) => {
                let (key, public) = rsa_opener(spec, material)?;
                (Self::RsaOpener(key), Some(public))
            }
            (KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096, KeyUsage::SignDecrypt) => {
                let ((pair, public), (key, _)) = (rsa_signer(spec, material)?, rsa_opener(spec, material)?);
                (Self::Rsa(Box::new((pair, key))), Some(public))
            }
            // The other usages are none that these have.
            _ => return None,
        };
        (derived.as_ref() == public).then_some(key)
    }

    /// Returns the key of AES or SM4 that this is.
    pub(crate) fn symmetric(&self) -> Result<&SymmetricKey, JobError> {
        match self {
            Self::Symmetric(key) => Ok(key),
            _ => Err(JobError::Rejected),
        }
    }

    /// Signs a digest or a message, or computes the MAC of one.
    pub(crate) fn sign(&self, algorithm: SignAlgorithm, input: &[u8]) -> Result<Vec<u8>, JobError> {
        let digest = |algorithm| Digest::import_less_safe(input, algorithm).map_err(|_| JobError::Rejected);
        match (self, algorithm) {
            (Self::Mac(key), _) if mac(algorithm) == Some(key.algorithm()) => {
                Ok(hmac::sign(key, input).as_ref().to_vec())
            }
            (
                Self::RsaSigner(_) | Self::Rsa(_),
                SignAlgorithm::RsaPssSha256 | SignAlgorithm::RsaPkcs1Sha256,
            ) => {
                let pair = match self {
                    Self::RsaSigner(pair) => pair,
                    Self::Rsa(both) => &both.0,
                    _ => return Err(JobError::Rejected),
                };
                let padding: &'static dyn RsaEncoding = match algorithm {
                    SignAlgorithm::RsaPssSha256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(padding, &digest(&digest::SHA256)?, &mut signature)
                    .map_err(|_| JobError::Rejected)?;
                Ok(signature)
            }
            (Self::Curve(pair), SignAlgorithm::EcdsaSha256 | SignAlgorithm::EcdsaSha384) => {
                let kind = match algorithm {
                    SignAlgorithm::EcdsaSha256 => &digest::SHA256,
                    _ => &digest::SHA384,
                };
                // It refuses a digest of another algorithm than the curve's.
                let signature = pair.sign_digest(&digest(kind)?).map_err(|_| JobError::Rejected)?;
                Ok(signature.as_ref().to_vec())
            }
            (Self::Edwards(pair), SignAlgorithm::Ed25519) => {
                let signature = pair.try_sign(input).map_err(|_| JobError::Rejected)?;
                Ok(signature.as_ref().to_vec())
            }
            (Self::Lattice(pair), SignAlgorithm::MlDsa65) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                pair.sign(input, &mut signature).map_err(|_| JobError::Rejected)?;
                Ok(signature)
            }
            (Self::Sm2Signer(half) | Self::Sm2(half), SignAlgorithm::Sm2Dsa) => half.sign(input),
            _ => Err(JobError::Rejected),
        }
    }

    /// Opens what was encrypted under the public half.
    pub(crate) fn decrypt(
        &self,
        algorithm: DecryptAlgorithm,
        ciphertext: &[u8],
    ) -> Result<Sensitive, JobError> {
        let key = match (self, algorithm) {
            (Self::RsaOpener(key), _) => key,
            (Self::Rsa(both), _) => &both.1,
            (Self::Sm2Opener(half) | Self::Sm2(half), DecryptAlgorithm::Sm2Pke) => {
                return half.decrypt(ciphertext);
            }
            _ => return Err(JobError::Rejected),
        };
        let algorithm = oaep(algorithm).ok_or(JobError::Rejected)?;
        let mut out = Sensitive::zeroed(key.min_output_size());
        let opened = key.decrypt(algorithm, ciphertext, out.expose_mut(), None);
        opened.map(|text| Sensitive::copied(text)).map_err(|_| JobError::InvalidCiphertext)
    }
}

fn rsa_signer(spec: KeySpec, material: &Sensitive) -> Option<(RsaKeyPair, PublicKey)> {
    let pair = RsaKeyPair::from_pkcs8(material.expose()).ok()?;
    let public = rsa_public(&pair).filter(|_| Some(pair.public_modulus_len()) == spec.modulus_bytes())?;
    Some((pair, public))
}

fn rsa_opener(spec: KeySpec, material: &Sensitive) -> Option<(OaepPrivateDecryptingKey, PublicKey)> {
    let key = PrivateDecryptingKey::from_pkcs8(material.expose()).ok()?;
    if Some(key.key_size_bytes()) != spec.modulus_bytes() {
        return None;
    }
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().ok()?;
    let public = PublicKey::from_der(public.as_ref().to_vec());
    Some((OaepPrivateDecryptingKey::new(key).ok()?, public))
}

fn size(spec: KeySpec) -> Option<KeySize> {
    match spec {
        KeySpec::Rsa2048 => Some(KeySize::Rsa2048),
        KeySpec::Rsa3072 => Some(KeySize::Rsa3072),
        KeySpec::Rsa4096 => Some(KeySize::Rsa4096),
        _ => None,
    }
}

fn curve(spec: KeySpec) -> Option<&'static EcdsaSigningAlgorithm> {
    match spec {
        KeySpec::EcP256 => Some(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeySpec::EcP384 => Some(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeySpec::EcP256K => Some(&ECDSA_P256K1_SHA256_ASN1_SIGNING),
        _ => None,
    }
}

fn mac(algorithm: SignAlgorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        SignAlgorithm::HmacSha256 => Some(hmac::HMAC_SHA256),
        SignAlgorithm::HmacSha384 => Some(hmac::HMAC_SHA384),
        SignAlgorithm::HmacSha512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa(pair: &RsaKeyPair) -> Option<(Sensitive, PublicKey)> {
    let private: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    Some((Sensitive::copied(private.as_ref()), rsa_public(pair)?))
}

fn elliptic(pair: &EcdsaKeyPair) -> Option<(Sensitive, PublicKey)> {
    Some((Sensitive::copied(pair.to_pkcs8v1().ok()?.as_ref()), curve_public(pair)?))
}

fn edwards(pair: &Ed25519KeyPair) -> Option<(Sensitive, PublicKey)> {
    Some((Sensitive::copied(pair.to_pkcs8v1().ok()?.as_ref()), edwards_public(pair)?))
}

fn lattice(pair: &PqdsaKeyPair) -> Option<(Sensitive, PublicKey)> {
    Some((Sensitive::copied(pair.to_pkcs8v1().ok()?.as_ref()), lattice_public(pair)?))
}

fn sm2(half: &PrivateHalf) -> Option<(Sensitive, PublicKey)> {
    Some((half.to_pkcs8()?, half.public()?))
}

fn edwards_public(pair: &Ed25519KeyPair) -> Option<PublicKey> {
    spki::encode(KeySpec::Ed25519, pair.public_key().as_ref())
}

fn lattice_public(pair: &PqdsaKeyPair) -> Option<PublicKey> {
    spki::encode(KeySpec::MlDsa65, pair.public_key().as_ref())
}

fn rsa_public(pair: &RsaKeyPair) -> Option<PublicKey> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some(PublicKey::from_der(der.as_ref().to_vec()))
}

fn curve_public(pair: &EcdsaKeyPair) -> Option<PublicKey> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some(PublicKey::from_der(der.as_ref().to_vec()))
}
