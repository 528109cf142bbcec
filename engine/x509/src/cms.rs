//! Detached signatures in CMS (RFC 5652 §5): of a content that stays where it is, by one certificate, with the chain beside it. The crate
//! `cms` is there through PKCS #12, and of a version that is not finished yet; what is needed are these few types.

use der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec, Uint};
use der::{Sequence, ValueOrd};
use keymill_core::Result;
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::algorithm::{self, Hash};
use crate::build::{any, encode, time, unwritable};
use crate::{Certificate, MAX_CHAIN, alt_name, invalid};

/// RFC 5652 §4, §5.1 and §11.
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");

/// What is signed: the attributes that name the digest of the content.
#[derive(Clone, Debug)]
pub struct SignedAttributes {
    attributes: Attributes,
    bytes: Vec<u8>,
    algorithm: SignAlgorithm,
}

/// Returns the hash of a content that is signed in a way: that of the signature; SHA-512 for Ed25519 (RFC 8419 §3) and ML-DSA (RFC 9882 §3.3).
///
/// # Errors
/// `InvalidParameter` for SM2, whose signed messages have identifiers of their own (GM/T 0010), and for what signs none.
pub fn content_digest(algorithm: SignAlgorithm) -> Result<&'static aws_lc_rs::digest::Algorithm> {
    Ok(match hash(algorithm)? {
        Hash::Sha256 => &aws_lc_rs::digest::SHA256,
        Hash::Sha384 => &aws_lc_rs::digest::SHA384,
        Hash::Sha512 => &aws_lc_rs::digest::SHA512,
    })
}

fn hash(algorithm: SignAlgorithm) -> Result<Hash> {
    match algorithm {
        SignAlgorithm::RsaPssSha256 | SignAlgorithm::RsaPkcs1Sha256 | SignAlgorithm::EcdsaSha256 => {
            Ok(Hash::Sha256)
        }
        SignAlgorithm::EcdsaSha384 => Ok(Hash::Sha384),
        SignAlgorithm::Ed25519 | SignAlgorithm::MlDsa65 => Ok(Hash::Sha512),
        SignAlgorithm::Sm2Dsa
        | SignAlgorithm::HmacSha256
        | SignAlgorithm::HmacSha384
        | SignAlgorithm::HmacSha512 => Err(invalid(format!("{} signs no messages of CMS", algorithm.name()))),
    }
}

/// Builds what is signed of a content: by its digest ([`content_digest`] says which), at a time.
///
/// # Errors
/// `InvalidParameter` for a digest of another length.
pub fn attributes(
    digest: &[u8],
    signing_time: Timestamp,
    algorithm: SignAlgorithm,
) -> Result<SignedAttributes> {
    let length = content_digest(algorithm)?.output_len();
    if digest.len() != length {
        return Err(invalid(format!(
            "a digest of {} bytes; {} has one of {length}",
            digest.len(),
            algorithm.name()
        )));
    }
    let attribute = |oid, value: der::Result<Any>| -> Result<Attribute> {
        let values = SetOfVec::try_from(vec![value.map_err(unwritable)?]).map_err(unwritable)?;
        Ok(Attribute { oid, values })
    };
    let attributes = SetOfVec::try_from(vec![
        attribute(CONTENT_TYPE, Any::encode_from(&DATA))?,
        attribute(MESSAGE_DIGEST, Any::encode_from(&alt_name::octets(digest)?))?,
        attribute(SIGNING_TIME, Any::encode_from(&time(signing_time)?))?,
    ])
    .map_err(unwritable)?;
    // RFC 5652 §5.4: signed as a set, though the message holds it under another tag.
    let bytes = encode(&attributes)?;
    Ok(SignedAttributes { attributes, bytes, algorithm })
}

#[derive(Sequence)]
struct ContentInfo {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0")]
    content: SignedData,
}

#[derive(Sequence)]
struct SignedData {
    version: u8,
    digests: SetOfVec<AlgorithmIdentifierOwned>,
    content: DetachedContent,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    certificates: SetOfVec<Any>,
    signers: SetOfVec<SignerInfo>,
}

#[derive(Clone, Sequence)]
struct DetachedContent {
    kind: ObjectIdentifier,
}

#[derive(Clone, Sequence, ValueOrd)]
struct SignerInfo {
    version: u8,
    signer: IssuerAndSerial,
    digest: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    attributes: Attributes,
    algorithm: AlgorithmIdentifierOwned,
    signature: OctetString,
}

#[derive(Clone, Sequence, ValueOrd)]
struct IssuerAndSerial {
    issuer: Any,
    serial: Uint,
}

impl SignedAttributes {
    /// Returns the message that is signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns how it is signed.
    pub fn algorithm(&self) -> SignAlgorithm {
        self.algorithm
    }

    /// Puts the signature and the chain, the signer's certificate first, to it: a ContentInfo in DER. The content is not in it.
    ///
    /// # Errors
    /// `InvalidParameter` for a chain of none or too many certificates, and a signature of no bytes.
    pub fn finish(self, chain: &[Certificate], signature: &[u8]) -> Result<Vec<u8>> {
        let signer = match chain {
            [signer, ..] if chain.len() <= MAX_CHAIN => signer,
            _ => {
                return Err(invalid(format!(
                    "a chain has 1 to {MAX_CHAIN} certificates, not {}",
                    chain.len()
                )));
            }
        };
        if signature.is_empty() {
            return Err(invalid("a signature of no bytes"));
        }
        // RFC 5754 §2: without parameters.
        let digest = AlgorithmIdentifierOwned { oid: hash(self.algorithm)?.oid(), parameters: None };
        let issuer = Any::from(any(&signer.issuer_der)?);
        let serial = Uint::new(&signer.serial_bytes()).map_err(unwritable)?;
        let info = SignerInfo {
            version: 1,
            signer: IssuerAndSerial { issuer, serial },
            digest: digest.clone(),
            attributes: self.attributes,
            algorithm: algorithm::identifier(self.algorithm)?,
            signature: alt_name::octets(signature)?,
        };
        let certificates = chain.iter().map(|one| any(&one.der).map(Any::from));
        let content = SignedData {
            version: 1,
            digests: SetOfVec::try_from(vec![digest]).map_err(unwritable)?,
            content: DetachedContent { kind: DATA },
            certificates: SetOfVec::try_from(certificates.collect::<Result<Vec<_>>>()?)
                .map_err(unwritable)?,
            signers: SetOfVec::try_from(vec![info]).map_err(unwritable)?,
        };
        encode(&ContentInfo { kind: SIGNED_DATA, content })
    }
}
