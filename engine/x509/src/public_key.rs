//! Public keys of certificates (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7): read, weighed, and used to check signatures.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{self as lib, UnparsedPublicKey, VerificationAlgorithm};
use der::Tag;
use der::asn1::ObjectIdentifier;
use keymill_core::Result;
use keymill_core::key::KeySpec;
use sm2::dsa::signature::Verifier;

use crate::algorithm::{Hash, Scheme};
use crate::invalid;
use crate::parts::{Part, Parts};

/// The identity that everybody signs with who has agreed on no other (GB/T 35276, 10).
const IDENTITY: &str = "1234567812345678";
/// The most bits of a modulus that signatures are checked under.
const MAX_MODULUS_BITS: usize = 8_192;
/// RFC 3279 §2.3.1, RFC 4055 §1.2.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// RFC 5480 §2.1.1.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVES: [(ObjectIdentifier, KeySpec, usize); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), KeySpec::EcP256, 65),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), KeySpec::EcP384, 97),
    (ObjectIdentifier::new_unwrap("1.3.132.0.10"), KeySpec::EcP256K, 65),
    (ObjectIdentifier::new_unwrap("1.2.156.10197.1.301"), KeySpec::EcSm2, 65),
];
/// RFC 8410 §3, RFC 9881 §2.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");

/// A public key.
pub(crate) struct PublicKey<'a> {
    kind: Kind,
    /// Of which specification of ours it is, where it is of one.
    pub(crate) spec: Option<KeySpec>,
    /// SubjectPublicKeyInfo.
    whole: &'a [u8],
    /// What the bit string holds.
    bits: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    /// For RSA-PSS alone.
    RsaPss,
    Ec,
    Ed25519,
    MlDsa65,
    Sm2,
    /// Nothing that signatures are checked under.
    Other,
}

impl<'a> PublicKey<'a> {
    /// Reads a key; `what` it is of goes into errors.
    ///
    /// # Errors
    /// `InvalidParameter` for what is malformed or weak: RSA of less than 2,048 bits, or with an exponent that is even or 1.
    pub(crate) fn read(what: &'static str, part: Part<'a>) -> Result<Self> {
        let mut parts = Parts::new(what, part.value)?;
        let algorithm = parts.take("the algorithm of the key", Tag::Sequence)?;
        let bits = parts.bits("the key")?;
        let mut inner = parts.open(algorithm)?;
        parts.end()?;
        let oid = inner.oid("the algorithm of the key")?;
        let parameters = match inner.is_finished() {
            true => None,
            false => Some(inner.next("parameters of the key")?),
        };
        let made = |kind, spec| Self { kind, spec, whole: part.whole, bits };
        let fits = |length: usize| match bits.len() == length && parameters.is_none() {
            true => Ok(()),
            false => Err(invalid(format!("{what}: the key is not {length} bytes without parameters"))),
        };
        let key = match oid {
            RSA | RSA_PSS => {
                if oid == RSA && !parameters.is_some_and(|p| p.tag == Tag::Null && p.value.is_empty()) {
                    return Err(inner.wrong("the parameters of an RSA key are not NULL"));
                }
                let spec = rsa(what, bits)?;
                made(if oid == RSA { Kind::Rsa } else { Kind::RsaPss }, spec.filter(|_| oid == RSA))
            }
            EC => curve(what, parameters, bits).map(|(kind, spec)| made(kind, spec))?,
            ED25519 => {
                fits(32)?;
                made(Kind::Ed25519, Some(KeySpec::Ed25519))
            }
            ML_DSA_65 => {
                fits(1952)?;
                made(Kind::MlDsa65, Some(KeySpec::MlDsa65))
            }
            _ => made(Kind::Other, None),
        };
        inner.end()?;
        Ok(key)
    }

    /// Returns what the bit string holds.
    pub(crate) fn bits(&self) -> &'a [u8] {
        self.bits
    }

    /// Returns its identifier (RFC 7093 §2, method 1).
    pub(crate) fn id(&self) -> [u8; 20] {
        let mut id = [0; 20];
        id.copy_from_slice(&digest(&SHA256, self.bits).as_ref()[..20]);
        id
    }

    /// Checks a signature.
    ///
    /// # Errors
    /// `InvalidParameter` where the key has no such signatures, or this one is none of the message.
    pub(crate) fn verify(&self, what: &str, scheme: Scheme, message: &[u8], signature: &[u8]) -> Result<()> {
        let verifies = match (self.kind, scheme) {
            (Kind::Sm2, Scheme::Sm2) => sm2::dsa::VerifyingKey::from_sec1_bytes(IDENTITY, self.bits)
                .and_then(|key| key.verify(message, &sm2::dsa::Signature::from_der(signature)?))
                .is_ok(),
            _ => {
                let algorithm = self.verifier(scheme).ok_or_else(|| {
                    invalid(format!(
                        "{what}: it is signed with {}, which the key of its issuer is not for",
                        scheme.name()
                    ))
                })?;
                // The library would take a bare key of ML-DSA for an encoding that looks like one.
                let key = if self.kind == Kind::MlDsa65 { self.whole } else { self.bits };
                UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
            }
        };
        verifies.then_some(()).ok_or_else(|| invalid(format!("{what}: the signature does not verify")))
    }

    fn verifier(&self, scheme: Scheme) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self.kind, scheme, self.spec) {
            (Kind::Rsa, Scheme::RsaPkcs1(Hash::Sha256), _) => &lib::RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, Scheme::RsaPkcs1(Hash::Sha384), _) => &lib::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, Scheme::RsaPkcs1(Hash::Sha512), _) => &lib::RSA_PKCS1_2048_8192_SHA512,
            (Kind::Rsa | Kind::RsaPss, Scheme::RsaPss(Hash::Sha256), _) => &lib::RSA_PSS_2048_8192_SHA256,
            (Kind::Rsa | Kind::RsaPss, Scheme::RsaPss(Hash::Sha384), _) => &lib::RSA_PSS_2048_8192_SHA384,
            (Kind::Rsa | Kind::RsaPss, Scheme::RsaPss(Hash::Sha512), _) => &lib::RSA_PSS_2048_8192_SHA512,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha256), Some(KeySpec::EcP256)) => &lib::ECDSA_P256_SHA256_ASN1,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha384), Some(KeySpec::EcP256)) => &lib::ECDSA_P256_SHA384_ASN1,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha512), Some(KeySpec::EcP256)) => &lib::ECDSA_P256_SHA512_ASN1,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha256), Some(KeySpec::EcP384)) => &lib::ECDSA_P384_SHA256_ASN1,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha384), Some(KeySpec::EcP384)) => &lib::ECDSA_P384_SHA384_ASN1,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha512), Some(KeySpec::EcP384)) => &lib::ECDSA_P384_SHA512_ASN1,
            (Kind::Ec, Scheme::Ecdsa(Hash::Sha256), Some(KeySpec::EcP256K)) => &lib::ECDSA_P256K1_SHA256_ASN1,
            (Kind::Ed25519, Scheme::Ed25519, _) => &lib::ED25519,
            (Kind::MlDsa65, Scheme::MlDsa65, _) => &lib::ML_DSA_65,
            _ => return None,
        })
    }
}

/// Weighs an RSAPublicKey (RFC 8017 §A.1.1).
fn rsa(what: &'static str, bits: &[u8]) -> Result<Option<KeySpec>> {
    let mut parts = Parts::only(what, bits, Tag::Sequence, usize::MAX)?;
    let modulus = parts.natural("the modulus")?;
    let exponent = parts.natural("the exponent")?;
    let size = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if size < 2_048 {
        return Err(parts.wrong(format!("an RSA key of {size} bits; at least 2048 are taken")));
    }
    if size > MAX_MODULUS_BITS {
        return Err(parts.wrong(format!("an RSA key of {size} bits; at most {MAX_MODULUS_BITS} are taken")));
    }
    if modulus.last().is_some_and(|last| last & 1 == 0) {
        return Err(parts.wrong("the modulus of the RSA key is even"));
    }
    match exponent {
        [] | [1] => return Err(parts.wrong("the exponent of the RSA key is 0 or 1: it would sign anything")),
        [.., last] if last & 1 == 0 => return Err(parts.wrong("the exponent of the RSA key is even")),
        [first, _, _, _, _] if *first <= 1 => {}
        long if long.len() > 4 => {
            return Err(parts.wrong("the exponent of the RSA key has more than 33 bits"));
        }
        _ => {}
    }
    parts.end()?;
    let specs = [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096];
    Ok(specs.into_iter().find(|spec| spec.modulus_bytes().is_some_and(|bytes| bytes * 8 == size)))
}

/// Finds the curve of a key (RFC 5480 §2.1.1): a named one; what is spelled out could be anything.
fn curve(what: &'static str, parameters: Option<Part<'_>>, bits: &[u8]) -> Result<(Kind, Option<KeySpec>)> {
    let named = parameters.filter(|part| part.tag == Tag::ObjectIdentifier);
    let oid = named.and_then(|part| ObjectIdentifier::from_bytes(part.value).ok());
    let oid = oid.ok_or_else(|| invalid(format!("{what}: the curve of the key is not named")))?;
    let Some((_, spec, length)) = CURVES.iter().find(|(own, ..)| *own == oid) else {
        return Ok((Kind::Other, None));
    };
    if bits.len() != *length || bits[0] != 4 {
        return Err(invalid(format!("{what}: the key is no uncompressed point of {}", spec.name())));
    }
    let is_sm2 = *spec == KeySpec::EcSm2;
    let is_on_curve = match spec {
        KeySpec::EcSm2 => sm2::dsa::VerifyingKey::from_sec1_bytes(IDENTITY, bits).is_ok(),
        KeySpec::EcP256 => lib::ParsedPublicKey::new(&lib::ECDSA_P256_SHA256_ASN1, bits).is_ok(),
        KeySpec::EcP384 => lib::ParsedPublicKey::new(&lib::ECDSA_P384_SHA384_ASN1, bits).is_ok(),
        _ => lib::ParsedPublicKey::new(&lib::ECDSA_P256K1_SHA256_ASN1, bits).is_ok(),
    };
    match is_on_curve {
        true => Ok((if is_sm2 { Kind::Sm2 } else { Kind::Ec }, Some(*spec))),
        false => Err(invalid(format!("{what}: the key is no point of {}", spec.name()))),
    }
}

/// Reads a SubjectPublicKeyInfo that stands alone.
pub(crate) fn read(spki: &[u8]) -> Result<PublicKey<'_>> {
    if spki.len() > crate::MAX_DER_BYTES {
        return Err(invalid("a public key that is longer than certificates are"));
    }
    let mut parts = Parts::new("public key", spki)?;
    let part = parts.take("the key", Tag::Sequence)?;
    parts.end()?;
    PublicKey::read("public key", part)
}

/// Returns the identifier of a key: the first 20 bytes of the SHA-256 of its bits (RFC 7093 §2, method 1).
///
/// # Errors
/// `InvalidParameter` for what is no SubjectPublicKeyInfo, or a weak key.
pub fn key_id(spki: &[u8]) -> Result<[u8; 20]> {
    Ok(read(spki)?.id())
}
