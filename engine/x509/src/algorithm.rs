//! Algorithms of signatures, as certificates name them: written for ours, read for all that are taken.

use der::asn1::{Any, ObjectIdentifier};
use der::{Sequence, Tag};
use keymill_core::Result;
use keymill_core::key::{KeySpec, SignAlgorithm};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::invalid;
use crate::parts::{Part, Parts, context};

/// A hash of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// How something is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    RsaPkcs1(Hash),
    /// With MGF1 of the same hash, and a salt of its length.
    RsaPss(Hash),
    Ecdsa(Hash),
    Ed25519,
    MlDsa65,
    /// With SM3 and the usual identity.
    Sm2,
}

/// RFC 4055 §3.
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
/// RFC 8410 §3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 9881 §2.
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
/// GM/T 0006: SM2 with SM3.
const SM2_SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.501");
/// RFC 4055 §5, RFC 5758 §3.2.
const HASHED: [(ObjectIdentifier, Scheme); 6] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), Scheme::RsaPkcs1(Hash::Sha256)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), Scheme::RsaPkcs1(Hash::Sha384)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), Scheme::RsaPkcs1(Hash::Sha512)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), Scheme::Ecdsa(Hash::Sha256)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), Scheme::Ecdsa(Hash::Sha384)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), Scheme::Ecdsa(Hash::Sha512)),
];
/// Signatures that prove nothing any more (RFC 6151, RFC 8017 appendix A.2.4, RFC 9155), by their hash.
const BROKEN: [(ObjectIdentifier, &str); 6] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.2"), "MD2"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"), "MD5"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), "SHA-1"),
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.29"), "SHA-1"),
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"), "SHA-1"),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), "SHA-1"),
];

impl Hash {
    const ALL: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

    /// FIPS 180-4, as RFC 5754 names them.
    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Hash::Sha256 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
            Hash::Sha384 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
            Hash::Sha512 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        }
    }

    fn bytes(self) -> u8 {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }
}

impl Scheme {
    /// Reads an AlgorithmIdentifier; `what` it is of goes into errors.
    pub(crate) fn read(what: &'static str, part: Part<'_>) -> Result<Self> {
        let mut parts = Parts::new(what, part.value)?;
        let oid = parts.oid("the algorithm of the signature")?;
        let parameters = match parts.is_finished() {
            true => None,
            false => Some(parts.next("parameters of the algorithm")?),
        };
        if let Some((_, hash)) = BROKEN.iter().find(|(own, _)| *own == oid) {
            return Err(parts.wrong(format!("it is signed with {hash}, which can be forged")));
        }
        let is_null = parameters.is_some_and(|p| p.tag == Tag::Null && p.value.is_empty());
        let (scheme, fits) = match HASHED.iter().find(|(own, _)| *own == oid) {
            // RFC 4055 §5: NULL, and absent is taken; RFC 5758 §3.2: absent.
            Some((_, scheme @ Scheme::RsaPkcs1(_))) => (*scheme, is_null || parameters.is_none()),
            Some((_, scheme)) => (*scheme, parameters.is_none()),
            None if oid == ED25519 => (Scheme::Ed25519, parameters.is_none()),
            None if oid == ML_DSA_65 => (Scheme::MlDsa65, parameters.is_none()),
            None if oid == SM2_SM3 => (Scheme::Sm2, is_null || parameters.is_none()),
            None if oid == RSA_PSS => {
                let hash = parameters.and_then(|p| pss(p).ok().flatten()).ok_or_else(|| {
                    parts.wrong(
                        "of RSA-PSS one hash is taken, SHA-256, 384 or 512, in MGF1, too, and a salt of its length",
                    )
                })?;
                (Scheme::RsaPss(hash), true)
            }
            None => return Err(parts.wrong(format!("signatures of algorithm {oid} are not taken"))),
        };
        if !fits {
            return Err(parts.wrong(format!("the parameters of algorithm {oid} are none it has")));
        }
        parts.end()?;
        Ok(scheme)
    }

    /// Returns the name under which the API has it, or would have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scheme::RsaPkcs1(Hash::Sha256) => "RSA_PKCS1_SHA_256",
            Scheme::RsaPkcs1(Hash::Sha384) => "RSA_PKCS1_SHA_384",
            Scheme::RsaPkcs1(Hash::Sha512) => "RSA_PKCS1_SHA_512",
            Scheme::RsaPss(Hash::Sha256) => "RSA_PSS_SHA_256",
            Scheme::RsaPss(Hash::Sha384) => "RSA_PSS_SHA_384",
            Scheme::RsaPss(Hash::Sha512) => "RSA_PSS_SHA_512",
            Scheme::Ecdsa(Hash::Sha256) => "ECDSA_SHA_256",
            Scheme::Ecdsa(Hash::Sha384) => "ECDSA_SHA_384",
            Scheme::Ecdsa(Hash::Sha512) => "ECDSA_SHA_512",
            Scheme::Ed25519 => "ED25519",
            Scheme::MlDsa65 => "ML_DSA_65",
            Scheme::Sm2 => "SM2DSA",
        }
    }
}

/// Reads the parameters of RSA-PSS (RFC 4055 §3.1): the hash, where MGF1 has the same and the salt its length. What is left out stands for
/// SHA-1.
fn pss(part: Part<'_>) -> Result<Option<Hash>> {
    let mut parts = Parts::new("RSA-PSS", part.value)?;
    let mut opened = |number| -> Result<Part<'_>> {
        let field = parts.take("a parameter", context(number, true))?;
        let mut inner = parts.open(field)?;
        let part = inner.next("a parameter")?;
        inner.end()?;
        Ok(part)
    };
    let (hash, mask, salt) = (opened(0)?, opened(1)?, opened(2)?);
    // RFC 4055 §3.1: the trailer is 1, which DER leaves out.
    if part.tag != Tag::Sequence || !parts.is_finished() {
        return Ok(None);
    }
    let mut mask = Parts::new("MGF1", mask.value)?;
    if mask.oid("the function")? != MGF1 {
        return Ok(None);
    }
    let mask_hash = mask.next("the hash")?;
    mask.end()?;
    let hash_of = |part: Part<'_>| -> Result<Option<Hash>> {
        let mut parts = Parts::new("hash", part.value)?;
        let oid = parts.oid("the hash")?;
        parts.optional("parameters", Tag::Null)?;
        parts.end()?;
        Ok(Hash::ALL.into_iter().find(|hash| hash.oid() == oid))
    };
    let hash = hash_of(hash)?;
    let fits = hash == hash_of(mask_hash)? && salt.tag == Tag::Integer;
    Ok(hash.filter(|hash| fits && salt.value == [hash.bytes()]))
}

/// Returns how a key signs certificates; `None` for one that they have not.
pub fn signing_algorithm(spec: KeySpec) -> Option<SignAlgorithm> {
    match spec {
        KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => Some(SignAlgorithm::RsaPkcs1Sha256),
        KeySpec::EcP256 => Some(SignAlgorithm::EcdsaSha256),
        KeySpec::EcP384 => Some(SignAlgorithm::EcdsaSha384),
        KeySpec::Ed25519 => Some(SignAlgorithm::Ed25519),
        KeySpec::EcSm2 => Some(SignAlgorithm::Sm2Dsa),
        KeySpec::MlDsa65 => Some(SignAlgorithm::MlDsa65),
        KeySpec::EcP256K
        | KeySpec::Aes256
        | KeySpec::Aes192
        | KeySpec::Aes128
        | KeySpec::Sm4
        | KeySpec::HmacSha256
        | KeySpec::HmacSha384
        | KeySpec::HmacSha512 => None,
    }
}

/// Parameters of RSA-PSS (RFC 4055 §3.1); the trailer field has its default.
#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0")]
    hash: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "1")]
    mask: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "2")]
    salt: u8,
}

/// Returns the AlgorithmIdentifier of what is signed here.
pub(crate) fn identifier(algorithm: SignAlgorithm) -> Result<AlgorithmIdentifierOwned> {
    let bare = |oid| Ok(AlgorithmIdentifierOwned { oid, parameters: None });
    let failed = |_| invalid("an algorithm that has no encoding");
    match algorithm {
        SignAlgorithm::RsaPkcs1Sha256 => {
            Ok(AlgorithmIdentifierOwned { oid: HASHED[0].0, parameters: Some(Any::null()) })
        }
        SignAlgorithm::RsaPssSha256 => {
            let sha256 = AlgorithmIdentifierOwned { oid: Hash::Sha256.oid(), parameters: Some(Any::null()) };
            let mask = AlgorithmIdentifierOwned {
                oid: MGF1,
                parameters: Some(Any::encode_from(&sha256).map_err(failed)?),
            };
            let parameters = PssParameters { hash: sha256, mask, salt: Hash::Sha256.bytes() };
            let parameters = Some(Any::encode_from(&parameters).map_err(failed)?);
            Ok(AlgorithmIdentifierOwned { oid: RSA_PSS, parameters })
        }
        SignAlgorithm::EcdsaSha256 => bare(HASHED[3].0),
        SignAlgorithm::EcdsaSha384 => bare(HASHED[4].0),
        SignAlgorithm::Ed25519 => bare(ED25519),
        SignAlgorithm::MlDsa65 => bare(ML_DSA_65),
        SignAlgorithm::Sm2Dsa => bare(SM2_SM3),
        SignAlgorithm::HmacSha256 | SignAlgorithm::HmacSha384 | SignAlgorithm::HmacSha512 => {
            Err(invalid(format!("{} signs no certificates", algorithm.name())))
        }
    }
}
