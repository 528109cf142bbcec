//! Certificates that others made: read, and checked by the key of their issuer.

use der::{Decode, Tag};
use keymill_core::Result;
use keymill_core::certificate::{AltName, ExtendedUsage, KeyPurpose, Validity};
use keymill_core::key::KeySpec;
use keymill_core::time::Timestamp;
use x509_cert::time::Time;

use crate::algorithm::Scheme;
use crate::constraints::Constraints;
use crate::extension::Extensions;
use crate::parts::{Part, Parts, context};
use crate::public_key::{self, PublicKey};
use crate::{MAX_DER_BYTES, invalid, name, shown};

/// What errors call it.
const WHAT: &str = "certificate";
/// The most bytes of a serial number (RFC 5280 §4.1.2.2).
const MAX_SERIAL_BYTES: usize = 20;

/// A certificate of version 3 that is well-formed, with a key and a signature that are not weak. Who signed it is another question.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// All of it.
    pub der: Vec<u8>,
    /// Whose it is, as text (RFC 4514); values that are not known here are in hexadecimal.
    pub subject: String,
    /// The same in DER.
    pub subject_der: Vec<u8>,
    /// Who signed it, as text.
    pub issuer: String,
    /// The same in DER.
    pub issuer_der: Vec<u8>,
    /// The serial number, in lower-case hexadecimal.
    pub serial: String,
    /// From when to when.
    pub validity: Validity,
    /// The other names, of the kinds that are known here.
    pub alt_names: Vec<AltName>,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// Of which specification the key is, where it is of one.
    pub key_spec: Option<KeySpec>,
    /// How it is signed.
    pub signature_algorithm: &'static str,
    /// Whether it is of an authority, and then how many authorities may stand below it.
    pub authority: Option<Option<u8>>,
    /// What the key may do; all where the certificate does not say.
    pub key_purposes: Vec<KeyPurpose>,
    /// What it is for, of what is known here.
    pub extended_usages: Vec<ExtendedUsage>,
    /// Whether it is for certain uses alone, known here or not; else it is for anything.
    pub has_extended_usages: bool,
    /// The identifier of the key.
    pub subject_key_id: Option<Vec<u8>>,
    /// The identifier of the key that signed it.
    pub authority_key_id: Option<Vec<u8>>,
    pub(crate) constraints: Option<Constraints>,
    pub(crate) common_name: Option<String>,
    scheme: Scheme,
    signed: std::ops::Range<usize>,
    signature: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong: it is malformed, too long, of version 1, signed with a hash that can be forged, has a weak key, a serial
    /// number that none may have, a name that deceives, or an extension that is critical and not known here.
    pub fn read(der: &[u8]) -> Result<Self> {
        let mut outer = Parts::only(WHAT, der, Tag::Sequence, MAX_DER_BYTES)?;
        // What is signed comes first in the outermost value, which ends where all does.
        let start = der.len() - outer.len();
        let tbs = outer.take("what is signed", Tag::Sequence)?;
        let algorithm = outer.take("the algorithm of the signature", Tag::Sequence)?;
        let signature = outer.bits("the signature")?.to_vec();
        let mut parts = outer.open(tbs)?;
        outer.end()?;

        version(&mut parts)?;
        let serial = serial(&mut parts)?;
        let inner = parts.take("the algorithm of the signature", Tag::Sequence)?;
        if inner.whole != algorithm.whole {
            return Err(parts.wrong("the algorithm that is signed is another than that of the signature"));
        }
        let scheme = Scheme::read(WHAT, algorithm)?;
        let issuer = parts.take("the issuer", Tag::Sequence)?;
        let validity = parts.take("the validity", Tag::Sequence)?;
        let validity = self::validity(parts.open(validity)?)?;
        let subject = parts.take("the subject", Tag::Sequence)?;
        let public_key = parts.take("the key", Tag::Sequence)?;
        let key = PublicKey::read(WHAT, public_key)?;
        // Identifiers of names that are used again: nobody has them, and nothing rests on them (RFC 5280 §4.1.2.8).
        parts.optional("the issuer's identifier", context(1, false))?;
        parts.optional("the subject's identifier", context(2, false))?;
        let extensions = match parts.optional("the extensions", context(3, true))? {
            None => Extensions::default(),
            Some(part) => {
                let mut inner = parts.open(part)?;
                let list = inner.take("the extensions", Tag::Sequence)?;
                inner.end()?;
                Extensions::read(WHAT, list)?
            }
        };
        parts.end()?;

        let issuer_name = name::read(WHAT, issuer)?;
        if issuer.value.is_empty() {
            return Err(invalid(format!("{WHAT}: it has no issuer")));
        }
        let subject_name = name::read(WHAT, subject)?;
        let alt_names = extensions.alt_names;
        if subject.value.is_empty() && alt_names.known.is_empty() && alt_names.others == 0 {
            return Err(invalid(format!("{WHAT}: it has neither a subject nor an alternative name")));
        }
        Ok(Self {
            subject: subject_name.text,
            common_name: subject_name.known.ok().and_then(|name| {
                name.first(keymill_core::certificate::AttributeKind::CommonName).map(str::to_owned)
            }),
            subject_der: subject.whole.to_vec(),
            issuer: issuer_name.text,
            issuer_der: issuer.whole.to_vec(),
            serial,
            validity,
            alt_names: alt_names.known,
            key_spec: key.spec,
            public_key: public_key.whole.to_vec(),
            signature_algorithm: scheme.name(),
            authority: extensions.authority,
            key_purposes: extensions.key_purposes.unwrap_or_default(),
            has_extended_usages: extensions.extended_usages.is_some(),
            extended_usages: extensions.extended_usages.unwrap_or_default(),
            subject_key_id: extensions.subject_key_id,
            authority_key_id: extensions.authority_key_id,
            constraints: extensions.constraints,
            scheme,
            signed: start..start + tbs.whole.len(),
            signature,
            der: der.to_vec(),
        })
    }

    /// Makes sure that another certificate's key signed this one, and that this one names it as its issuer.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what does not fit.
    pub fn is_signed_by(&self, issuer: &Certificate) -> Result<()> {
        if !name::is_same(&self.issuer_der, &issuer.subject_der) {
            return Err(invalid(format!(
                "{WHAT} of {}: it was issued by {}, not by {}",
                shown(&self.subject),
                shown(&self.issuer),
                shown(&issuer.subject)
            )));
        }
        let key = public_key::read(&issuer.public_key)?;
        let what = format!("{WHAT} of {}", shown(&self.subject));
        key.verify(&what, self.scheme, &self.der[self.signed.clone()], &self.signature)
    }

    /// Returns the bytes of its serial number, the most significant first, without zeros in front.
    pub fn serial_bytes(&self) -> Vec<u8> {
        let digits = self.serial.as_bytes().chunks(2);
        digits.filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
    }

    /// Tells whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        name::is_same(&self.issuer_der, &self.subject_der)
    }

    /// Returns how long the signature is, in bytes: of RSA as long as the key that made it.
    pub fn signature_bytes(&self) -> usize {
        self.signature.len()
    }

    /// Returns it in PEM.
    pub fn pem(&self) -> String {
        crate::pem("CERTIFICATE", &self.der)
    }
}

fn version(parts: &mut Parts<'_>) -> Result<()> {
    let Some(version) = parts.optional("the version", context(0, true))? else {
        return Err(
            parts.wrong("it is of version 1, which has no extensions: nothing says what its key may do")
        );
    };
    let mut inner = parts.open(version)?;
    match inner.natural("the version")? {
        [2] => inner.end(),
        [1] => Err(inner.wrong("it is of version 2; version 3 is taken")),
        _ => Err(inner.wrong("it is of another version than 3")),
    }
}

fn serial(parts: &mut Parts<'_>) -> Result<String> {
    let part = parts.take("the serial number", Tag::Integer)?;
    if part.value.len() > MAX_SERIAL_BYTES {
        return Err(parts.wrong(format!("the serial number is longer than {MAX_SERIAL_BYTES} bytes")));
    }
    match crate::parts::natural(WHAT, "the serial number", part.value)? {
        [] => Err(parts.wrong("the serial number is zero")),
        bytes => Ok(hex(bytes)),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn validity(mut parts: Parts<'_>) -> Result<Validity> {
    let not_before = time(&mut parts, "the first moment")?;
    let not_after = time(&mut parts, "the last moment")?;
    if not_after < not_before {
        return Err(parts.wrong("its last moment is before its first"));
    }
    parts.end()?;
    Ok(Validity { not_before, not_after })
}

pub(crate) fn time(parts: &mut Parts<'_>, field: &str) -> Result<Timestamp> {
    let part: Part<'_> = parts.next(field)?;
    let time = Time::from_der(part.whole).map_err(|_| parts.wrong(format!("{field} is no time")))?;
    let ms = time.to_unix_duration().as_secs().saturating_mul(1_000);
    Ok(Timestamp::from_ms(ms))
}
