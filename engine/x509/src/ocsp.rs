//! Questions about revocation, read, and the answers to them, built (RFC 6960).

mod answer;

use aws_lc_rs::digest;
use der::Tag;
use der::asn1::ObjectIdentifier;
use keymill_core::Result;

use crate::parts::{Part, Parts, context, natural};
use crate::{extension, invalid, public_key};

pub(crate) use answer::successful;
pub use answer::{Answer, Failure, Status, answer, failure};

/// What errors call it.
const WHAT: &str = "OCSP request";
/// The most bytes of a question.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// The most certificates that a question asks about.
pub const MAX_IDS: usize = 16;
/// RFC 9654 §2.1.
const MAX_NONCE_BYTES: usize = 128;
/// RFC 6960 §4.4.1.
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which certificates it is about: 1 to [`MAX_IDS`].
    pub ids: Vec<CertId>,
    /// What the answer has to repeat, where it is asked to.
    pub nonce: Option<Vec<u8>>,
}

/// A certificate that is asked about, by its authority's name and key, hashed, and its serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertId {
    /// The hash; `None` for one that nothing is found by here, whose answer is [`Status::Unknown`].
    pub hash: Option<IdHash>,
    /// The hash of the authority's name.
    pub issuer_name_hash: Vec<u8>,
    /// The hash of the authority's key.
    pub issuer_key_hash: Vec<u8>,
    /// The serial number, the most significant byte first, without zeros in front.
    pub serial: Vec<u8>,
    /// All of it, which the answer repeats.
    der: Vec<u8>,
}

/// How authorities are named. Nothing rests on the hash but that it finds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdHash {
    /// SHA-1, which most clients use, and which RFC 5019 asked for.
    Sha1,
    /// SHA-256 (RFC 9654 and what replaces RFC 5019).
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl IdHash {
    /// Every hash.
    pub const ALL: [IdHash; 4] = [IdHash::Sha1, IdHash::Sha256, IdHash::Sha384, IdHash::Sha512];

    fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            IdHash::Sha1 => "1.3.14.3.2.26",
            IdHash::Sha256 => "2.16.840.1.101.3.4.2.1",
            IdHash::Sha384 => "2.16.840.1.101.3.4.2.2",
            IdHash::Sha512 => "2.16.840.1.101.3.4.2.3",
        })
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            IdHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            IdHash::Sha256 => &digest::SHA256,
            IdHash::Sha384 => &digest::SHA384,
            IdHash::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    /// Returns the hashes by which an authority is named: of its name in DER, and of the bits of its key.
    ///
    /// # Errors
    /// `InvalidParameter` for what is no SubjectPublicKeyInfo.
    pub fn authority(self, name_der: &[u8], spki: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((self.digest(name_der), self.digest(public_key::read(spki)?.bits())))
    }
}

impl CertId {
    /// Tells whether it is of an authority: of its name in DER and its key.
    ///
    /// # Errors
    /// `InvalidParameter` for what is no SubjectPublicKeyInfo.
    pub fn is_of(&self, name_der: &[u8], spki: &[u8]) -> Result<bool> {
        let Some(hash) = self.hash else { return Ok(false) };
        let (name, key) = hash.authority(name_der, spki)?;
        Ok(name == self.issuer_name_hash && key == self.issuer_key_hash)
    }
}

/// Reads a question. A signature under it is passed over: everybody may ask.
///
/// # Errors
/// `InvalidParameter`, naming what is wrong; the answer to that is [`Failure::MalformedRequest`].
pub fn read_request(der: &[u8]) -> Result<Asked> {
    let mut outer = Parts::only(WHAT, der, Tag::Sequence, MAX_REQUEST_BYTES)?;
    let request = outer.take("the request", Tag::Sequence)?;
    outer.optional("the signature", context(0, true))?;
    let mut parts = outer.open(request)?;
    outer.end()?;
    if let Some(version) = parts.optional("the version", context(0, true))? {
        let mut version = parts.open(version)?;
        let is_first = version.natural("the version")?.is_empty();
        version.end()?;
        if !is_first {
            return Err(parts.wrong("it is of another version than 1"));
        }
    }
    parts.optional("the name of who asks", context(1, true))?;
    let list = parts.take("the list of certificates", Tag::Sequence)?;
    let extensions = parts.optional("the extensions", context(2, true))?;
    let mut list = parts.open(list)?;
    let mut ids = Vec::new();
    while !list.is_finished() {
        if ids.len() == MAX_IDS {
            return Err(list.wrong(format!("more than {MAX_IDS} certificates")));
        }
        let one = list.take("a certificate", Tag::Sequence)?;
        let mut one = list.open(one)?;
        let id = one.take("the identity of a certificate", Tag::Sequence)?;
        if let Some(extensions) = one.optional("extensions of a certificate", context(0, true))? {
            self::extensions(&one, extensions)?;
        }
        one.end()?;
        ids.push(cert_id(id)?);
    }
    if ids.is_empty() {
        return Err(list.wrong("it asks about no certificate"));
    }
    let nonce = match extensions {
        Some(extensions) => self::extensions(&parts, extensions)?,
        None => None,
    };
    parts.end()?;
    Ok(Asked { ids, nonce })
}

fn cert_id(part: Part<'_>) -> Result<CertId> {
    let mut parts = Parts::new(WHAT, part.value)?;
    let algorithm = parts.take("the hash", Tag::Sequence)?;
    let name_hash = parts.take("the hash of the issuer's name", Tag::OctetString)?;
    let key_hash = parts.take("the hash of the issuer's key", Tag::OctetString)?;
    let serial = parts.take("the serial number", Tag::Integer)?;
    let mut algorithm = parts.open(algorithm)?;
    let oid = algorithm.oid("the hash")?;
    algorithm.optional("parameters of the hash", Tag::Null)?;
    algorithm.end()?;
    parts.end()?;
    if serial.value.len() > 20 {
        return Err(invalid(format!("{WHAT}: a serial number is longer than 20 bytes")));
    }
    Ok(CertId {
        hash: IdHash::ALL.into_iter().find(|hash| hash.oid() == oid),
        issuer_name_hash: name_hash.value.to_vec(),
        issuer_key_hash: key_hash.value.to_vec(),
        serial: natural(WHAT, "a serial number", serial.value)?.to_vec(),
        der: part.whole.to_vec(),
    })
}

/// Reads extensions: the nonce, where there is one.
fn extensions(of: &Parts<'_>, part: Part<'_>) -> Result<Option<Vec<u8>>> {
    let mut inner = of.open(part)?;
    let list = inner.take("the extensions", Tag::Sequence)?;
    inner.end()?;
    let mut nonce = None;
    extension::each(WHAT, list, |oid, critical, value| match oid {
        NONCE => {
            let mut parts = Parts::new(WHAT, value)?;
            let value = parts.take("the nonce", Tag::OctetString)?.value;
            parts.end()?;
            if value.is_empty() || value.len() > MAX_NONCE_BYTES {
                return Err(invalid(format!("{WHAT}: a nonce has 1 to {MAX_NONCE_BYTES} bytes")));
            }
            nonce = Some(value.to_vec());
            Ok(())
        }
        _ if critical => Err(invalid(format!("{WHAT}: extension {oid} is critical, and not known here"))),
        _ => Ok(()),
    })?;
    Ok(nonce)
}
