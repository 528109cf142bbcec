//! Public halves, decoded once: what they verify, and what they encrypt for the private half.

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ML_DSA_65,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
};
use keymill_core::key::{DecryptAlgorithm, KeySpec, SignAlgorithm};
use keymill_core::limit;
use keymill_core::seam::provider::{JobError, PublicHalf, PublicKey};

use crate::sm2::PublicSm2;
use crate::{exponent, spki};

/// A public half.
pub(crate) enum SoftwareHalf {
    /// A verifier for each algorithm of its specification, and what encrypts, where it does.
    Library { verifiers: Vec<(SignAlgorithm, ParsedPublicKey)>, sealer: Option<OaepPublicEncryptingKey> },
    /// What the library has not.
    Sm2(PublicSm2),
}

impl SoftwareHalf {
    /// Decodes an encoding; `None` for one that is not, to the byte, what a pair of `spec` has.
    pub(crate) fn decode(spec: KeySpec, public: &PublicKey) -> Option<Self> {
        let der = public.as_der();
        let (key, sealer) = match (spec, spec.modulus_bytes()) {
            (_, Some(modulus)) => {
                let key = PublicEncryptingKey::from_der(der).ok()?;
                let again: PublicKeyX509Der<'_> = key.as_der().ok()?;
                if key.key_size_bytes() != modulus || again.as_ref() != der {
                    return None;
                }
                // What was signed under a small exponent is verified; nothing is encrypted under one.
                let sealer = OaepPublicEncryptingKey::new(key).ok()?;
                (der, exponent::is_strong(der).then_some(sealer))
            }
            (KeySpec::EcSm2, _) => return Some(Self::Sm2(PublicSm2::new(spki::key_of(spec, der)?)?)),
            // The library would take a bare key for an encoding that looks like one.
            (KeySpec::MlDsa65, _) => (spki::key_of(spec, der).map(|_| der)?, None),
            _ => (spki::key_of(spec, der)?, None),
        };
        let verifier = |algorithm: &SignAlgorithm| {
            Some((*algorithm, ParsedPublicKey::new(verification(spec, *algorithm)?, key).ok()?))
        };
        Some(Self::Library {
            verifiers: spec.signatures().iter().map(verifier).collect::<Option<_>>()?,
            sealer,
        })
    }
}

impl PublicHalf for SoftwareHalf {
    fn signed(&self, algorithm: SignAlgorithm, message: &[u8]) -> Result<Vec<u8>, JobError> {
        match (self, hash(algorithm)) {
            (Self::Sm2(key), _) if algorithm == SignAlgorithm::Sm2Dsa => Ok(key.digest(message)),
            (Self::Sm2(_), _) => Err(JobError::Rejected),
            (Self::Library { verifiers, .. }, hash) => {
                verifier(verifiers, algorithm)?;
                Ok(hash
                    .map_or_else(|| message.to_vec(), |hash| digest::digest(hash, message).as_ref().to_vec()))
            }
        }
    }

    fn verify(&self, algorithm: SignAlgorithm, signed: &[u8], signature: &[u8]) -> Result<bool, JobError> {
        let verifiers = match self {
            Self::Library { verifiers, .. } => verifiers,
            Self::Sm2(key) => {
                let fits =
                    algorithm == SignAlgorithm::Sm2Dsa && algorithm.digest_bytes() == Some(signed.len());
                return fits.then(|| key.verifies(signed, signature)).ok_or(JobError::Rejected);
            }
        };
        let key = verifier(verifiers, algorithm)?;
        let verified = match hash(algorithm) {
            Some(hash) => {
                let digest = Digest::import_less_safe(signed, hash).map_err(|_| JobError::Rejected)?;
                key.verify_digest_sig(&digest, signature)
            }
            None => key.verify_sig(signed, signature),
        };
        Ok(verified.is_ok())
    }

    fn encrypt(&self, algorithm: DecryptAlgorithm, plaintext: &[u8]) -> Result<Vec<u8>, JobError> {
        let longest = self.max_plaintext_bytes(algorithm).ok_or(JobError::Rejected)?;
        match (self, oaep(algorithm)) {
            (Self::Sm2(key), _) => key.encrypt(plaintext),
            (Self::Library { sealer: Some(key), .. }, Some(algorithm)) if plaintext.len() <= longest => {
                let mut out = vec![0; key.ciphertext_size()];
                let sealed = key.encrypt(algorithm, plaintext, &mut out, None).map(|sealed| sealed.len());
                out.truncate(sealed.map_err(|_| JobError::Rejected)?);
                Ok(out)
            }
            _ => Err(JobError::Rejected),
        }
    }

    fn max_plaintext_bytes(&self, algorithm: DecryptAlgorithm) -> Option<usize> {
        match self {
            Self::Sm2(_) => (algorithm == DecryptAlgorithm::Sm2Pke).then_some(limit::SM2_PLAINTEXT_BYTES),
            Self::Library { sealer, .. } => Some(sealer.as_ref()?.max_plaintext_size(oaep(algorithm)?)),
        }
    }
}

fn verifier(
    verifiers: &[(SignAlgorithm, ParsedPublicKey)],
    algorithm: SignAlgorithm,
) -> Result<&ParsedPublicKey, JobError> {
    let found = verifiers.iter().find(|(other, _)| *other == algorithm);
    found.map(|(_, key)| key).ok_or(JobError::Rejected)
}

/// Returns what the library calls an algorithm of OAEP.
pub(crate) fn oaep(algorithm: DecryptAlgorithm) -> Option<&'static OaepAlgorithm> {
    match algorithm {
        DecryptAlgorithm::RsaesOaepSha256 => Some(&OAEP_SHA256_MGF1SHA256),
        DecryptAlgorithm::RsaesOaepSha1 => Some(&OAEP_SHA1_MGF1SHA1),
        DecryptAlgorithm::Sm2Pke => None,
    }
}

/// Returns the hash of what is signed; `None` where the library takes the message.
pub(crate) fn hash(algorithm: SignAlgorithm) -> Option<&'static digest::Algorithm> {
    match algorithm {
        SignAlgorithm::RsaPssSha256 | SignAlgorithm::RsaPkcs1Sha256 | SignAlgorithm::EcdsaSha256 => {
            Some(&digest::SHA256)
        }
        SignAlgorithm::EcdsaSha384 => Some(&digest::SHA384),
        _ => None,
    }
}

fn verification(spec: KeySpec, algorithm: SignAlgorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match (spec, algorithm) {
        (_, SignAlgorithm::RsaPssSha256) => Some(&RSA_PSS_2048_8192_SHA256),
        (_, SignAlgorithm::RsaPkcs1Sha256) => Some(&RSA_PKCS1_2048_8192_SHA256),
        (KeySpec::EcP256, SignAlgorithm::EcdsaSha256) => Some(&ECDSA_P256_SHA256_ASN1),
        (KeySpec::EcP256K, SignAlgorithm::EcdsaSha256) => Some(&ECDSA_P256K1_SHA256_ASN1),
        (_, SignAlgorithm::EcdsaSha384) => Some(&ECDSA_P384_SHA384_ASN1),
        (_, SignAlgorithm::Ed25519) => Some(&ED25519),
        (_, SignAlgorithm::MlDsa65) => Some(&ML_DSA_65),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};

    #[test]
    fn a_public_half_verifies_and_encrypts_and_every_other_encoding_is_refused() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let rsa =
            SoftwareHalf::decode(KeySpec::Rsa2048, &PublicKey::from_der(der.as_ref().to_vec())).unwrap();
        assert_eq!(rsa.max_plaintext_bytes(DecryptAlgorithm::RsaesOaepSha256), Some(190));
        assert_eq!(rsa.max_plaintext_bytes(DecryptAlgorithm::RsaesOaepSha1), Some(214));
        assert_eq!(rsa.encrypt(DecryptAlgorithm::RsaesOaepSha256, &[7; 190]).unwrap().len(), 256);
        assert_eq!(rsa.encrypt(DecryptAlgorithm::RsaesOaepSha256, &[7; 191]), Err(JobError::Rejected));
        assert!(
            SoftwareHalf::decode(KeySpec::Rsa3072, &PublicKey::from_der(der.as_ref().to_vec())).is_none()
        );

        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let whole: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let decode = |der: &[u8]| SoftwareHalf::decode(KeySpec::EcP256, &PublicKey::from_der(der.to_vec()));
        let half = decode(whole.as_ref()).unwrap();
        let digest = half.signed(SignAlgorithm::EcdsaSha256, b"message").unwrap();
        let signature = pair.sign_digest(&digest::digest(&digest::SHA256, b"message")).unwrap();
        assert_eq!(half.verify(SignAlgorithm::EcdsaSha256, &digest, signature.as_ref()), Ok(true));
        assert_eq!(half.verify(SignAlgorithm::EcdsaSha256, &[1; 32], signature.as_ref()), Ok(false));
        let cut = &digest[1..];
        assert_eq!(half.verify(SignAlgorithm::EcdsaSha256, cut, signature.as_ref()), Err(JobError::Rejected));
        let other = half.verify(SignAlgorithm::EcdsaSha384, &[1; 48], signature.as_ref());
        assert_eq!(other, Err(JobError::Rejected));
        for length in 0..whole.as_ref().len() {
            assert!(decode(&whole.as_ref()[..length]).is_none(), "{length} bytes");
        }
        assert!(decode(&[whole.as_ref(), &[0]].concat()).is_none());
    }
}
