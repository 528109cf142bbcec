//! Keys of every specification: made, decoded once when they are loaded, and used. To decode a private key costs half as much as
//! to sign with it.

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use keymill_core::Sensitive;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{JobError, ProviderError, PublicKey};

use crate::random;
use crate::symmetric::SymmetricKey;

/// The object behind this provider's handles: a key, ready for its one usage.
pub(crate) enum SoftwareKey {
    Symmetric(SymmetricKey),
    Mac(Box<hmac::Key>),
    RsaSigner(RsaKeyPair),
    RsaOpener(OaepPrivateDecryptingKey),
    Curve(EcdsaKeyPair),
}

/// Makes material: bytes of a secret key, or PKCS #8 of a private one and its public half.
pub(crate) fn generate(spec: KeySpec) -> Result<(Sensitive, Option<PublicKey>), ProviderError> {
    if let Some(bytes) = spec.material_bytes() {
        let mut material = Sensitive::zeroed(bytes);
        random::fill(material.expose_mut())?;
        return Ok((material, None));
    }
    let pair = || {
        if let Some(size) = size(spec) {
            let pair = RsaKeyPair::generate(size).ok()?;
            let private: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            return Some((Sensitive::copied(private.as_ref()), rsa_public(&pair)?));
        }
        let pair = EcdsaKeyPair::generate(curve(spec)?).ok()?;
        Some((Sensitive::copied(pair.to_pkcs8v1().ok()?.as_ref()), curve_public(&pair)?))
    };
    let (private, public) = pair()
        .ok_or_else(|| ProviderError::unavailable(format!("no key pair of {} was made", spec.name())))?;
    Ok((private, Some(public)))
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
            (KeySpec::Aes256 | KeySpec::Aes128, KeyUsage::EncryptDecrypt) => {
                (Self::Symmetric(SymmetricKey::new(material)?), None)
            }
            (KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac) => {
                (Self::Mac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, material.expose()))), None)
            }
            (_, KeyUsage::SignVerify) if curve(spec).is_some() => {
                let pair = EcdsaKeyPair::from_pkcs8(curve(spec)?, material.expose()).ok()?;
                let public = curve_public(&pair)?;
                (Self::Curve(pair), Some(public))
            }
            (_, KeyUsage::SignVerify) => {
                let pair = RsaKeyPair::from_pkcs8(material.expose()).ok()?;
                let public =
                    rsa_public(&pair).filter(|_| Some(pair.public_modulus_len()) == spec.modulus_bytes())?;
                (Self::RsaSigner(pair), Some(public))
            }
            (_, KeyUsage::EncryptDecrypt) => {
                let key = PrivateDecryptingKey::from_pkcs8(material.expose()).ok()?;
                let public: PublicKeyX509Der<'_> = key.public_key().as_der().ok()?;
                let public = PublicKey::from_der(public.as_ref().to_vec());
                if Some(key.key_size_bytes()) != spec.modulus_bytes() {
                    return None;
                }
                (Self::RsaOpener(OaepPrivateDecryptingKey::new(key).ok()?), Some(public))
            }
            (_, KeyUsage::GenerateVerifyMac) => return None,
        };
        (derived.as_ref() == public).then_some(key)
    }

    /// Returns the AES key that this is.
    pub(crate) fn symmetric(&self) -> Result<&SymmetricKey, JobError> {
        match self {
            Self::Symmetric(key) => Ok(key),
            _ => Err(JobError::Rejected),
        }
    }

    /// Signs a digest, or computes the MAC of a message.
    pub(crate) fn sign(&self, algorithm: SignAlgorithm, input: &[u8]) -> Result<Vec<u8>, JobError> {
        let digest = |algorithm| Digest::import_less_safe(input, algorithm).map_err(|_| JobError::Rejected);
        match (self, algorithm) {
            (Self::Mac(key), SignAlgorithm::HmacSha256) => Ok(hmac::sign(key, input).as_ref().to_vec()),
            (Self::RsaSigner(pair), SignAlgorithm::RsaPssSha256 | SignAlgorithm::RsaPkcs1Sha256) => {
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
            _ => Err(JobError::Rejected),
        }
    }

    /// Opens what was encrypted under the public half.
    pub(crate) fn decrypt(
        &self,
        algorithm: DecryptAlgorithm,
        ciphertext: &[u8],
    ) -> Result<Sensitive, JobError> {
        let Self::RsaOpener(key) = self else { return Err(JobError::Rejected) };
        let algorithm = match algorithm {
            DecryptAlgorithm::RsaesOaepSha256 => &OAEP_SHA256_MGF1SHA256,
            DecryptAlgorithm::RsaesOaepSha1 => &OAEP_SHA1_MGF1SHA1,
        };
        let mut out = Sensitive::zeroed(key.min_output_size());
        let opened = key.decrypt(algorithm, ciphertext, out.expose_mut(), None);
        opened.map(|text| Sensitive::copied(text)).map_err(|_| JobError::InvalidCiphertext)
    }
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

fn rsa_public(pair: &RsaKeyPair) -> Option<PublicKey> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some(PublicKey::from_der(der.as_ref().to_vec()))
}

fn curve_public(pair: &EcdsaKeyPair) -> Option<PublicKey> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    Some(PublicKey::from_der(der.as_ref().to_vec()))
}
