//! Extensions of certificates (RFC 5280 §4.2): read, each once, and refused where one is critical that is not looked at here.

use der::Tag;
use der::asn1::ObjectIdentifier;
use keymill_core::Result;
use keymill_core::certificate::{ExtendedUsage, KeyPurpose};

use crate::alt_name::{self, Names};
use crate::constraints::Constraints;
use crate::parts::{Part, Parts, context, natural};

/// The most extensions of a certificate.
const MAX_EXTENSIONS: usize = 64;
/// The most purposes of the extended key usage.
const MAX_USAGES: usize = 64;
/// The most bytes of a key identifier.
const MAX_KEY_ID_BYTES: usize = 64;

const fn ce(text: &'static str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const SUBJECT_KEY_ID: ObjectIdentifier = ce("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ce("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ce("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ce("2.5.29.19");
const NAME_CONSTRAINTS: ObjectIdentifier = ce("2.5.29.30");
/// With no policy asked for, any is right (RFC 5280 §6.1.1).
const POLICIES: ObjectIdentifier = ce("2.5.29.32");
const AUTHORITY_KEY_ID: ObjectIdentifier = ce("2.5.29.35");
const EXTENDED_USAGE: ObjectIdentifier = ce("2.5.29.37");

/// Any purpose (RFC 5280 §4.2.1.12).
const ANY_USAGE: ObjectIdentifier = ce("2.5.29.37.0");

/// What extensions say.
#[derive(Default)]
pub(crate) struct Extensions {
    pub(crate) alt_names: Names,
    pub(crate) authority: Option<Option<u8>>,
    /// `None` where the key may do all.
    pub(crate) key_purposes: Option<Vec<KeyPurpose>>,
    /// `None` where it is for anything.
    pub(crate) extended_usages: Option<Vec<ExtendedUsage>>,
    pub(crate) constraints: Option<Constraints>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
}

/// Returns the identifier of an extended usage (RFC 5280 §4.2.1.12).
pub(crate) fn usage_oid(usage: ExtendedUsage) -> ObjectIdentifier {
    ce(match usage {
        ExtendedUsage::ServerAuth => "1.3.6.1.5.5.7.3.1",
        ExtendedUsage::ClientAuth => "1.3.6.1.5.5.7.3.2",
        ExtendedUsage::CodeSigning => "1.3.6.1.5.5.7.3.3",
        ExtendedUsage::EmailProtection => "1.3.6.1.5.5.7.3.4",
        ExtendedUsage::TimeStamping => "1.3.6.1.5.5.7.3.8",
        ExtendedUsage::OcspSigning => "1.3.6.1.5.5.7.3.9",
    })
}

const USAGES: [ExtendedUsage; 6] = [
    ExtendedUsage::ServerAuth,
    ExtendedUsage::ClientAuth,
    ExtendedUsage::CodeSigning,
    ExtendedUsage::EmailProtection,
    ExtendedUsage::TimeStamping,
    ExtendedUsage::OcspSigning,
];

const PURPOSES: [KeyPurpose; 7] = [
    KeyPurpose::DigitalSignature,
    KeyPurpose::NonRepudiation,
    KeyPurpose::KeyEncipherment,
    KeyPurpose::DataEncipherment,
    KeyPurpose::KeyAgreement,
    KeyPurpose::KeyCertSign,
    KeyPurpose::CrlSign,
];

/// Calls `each` with every extension of a sequence of them: its identifier, whether it is critical, and its value.
pub(crate) fn each<'a>(
    what: &'static str,
    sequence: Part<'a>,
    mut each: impl FnMut(ObjectIdentifier, bool, &'a [u8]) -> Result<()>,
) -> Result<()> {
    let mut list = Parts::new(what, sequence.value)?;
    let mut seen: Vec<ObjectIdentifier> = Vec::new();
    if list.is_finished() {
        return Err(list.wrong("a list of extensions that is empty"));
    }
    while !list.is_finished() {
        let part = list.take("an extension", Tag::Sequence)?;
        let mut parts = list.open(part)?;
        let oid = parts.oid("the identifier of an extension")?;
        let critical = match parts.optional("whether an extension is critical", Tag::Boolean)? {
            None => false,
            Some(Part { value: [0xff], .. }) => true,
            // DER leaves out what is the default (X.690 §11.5).
            Some(_) => return Err(parts.wrong(format!("extension {oid}: critical is not written as true"))),
        };
        let value = parts.take("the value of an extension", Tag::OctetString)?;
        parts.end()?;
        if seen.contains(&oid) {
            return Err(list.wrong(format!("extension {oid} is there twice")));
        }
        if seen.len() == MAX_EXTENSIONS {
            return Err(list.wrong(format!("more than {MAX_EXTENSIONS} extensions")));
        }
        seen.push(oid);
        each(oid, critical, value.value)?;
    }
    Ok(())
}

impl Extensions {
    /// Reads the extensions of a certificate.
    ///
    /// # Errors
    /// `InvalidParameter` for one that is there twice, is malformed, or is critical and not known here.
    pub(crate) fn read(what: &'static str, sequence: Part<'_>) -> Result<Self> {
        let mut extensions = Self::default();
        each(what, sequence, |oid, critical, value| match oid {
            POLICIES => Ok(()),
            _ if extensions.take(what, oid, value)? || !critical => Ok(()),
            _ => Err(crate::invalid(format!("{what}: extension {oid} is critical, and not known here"))),
        })?;
        Ok(extensions)
    }

    /// Takes an extension over; false for one that is not known.
    pub(crate) fn take(&mut self, what: &'static str, oid: ObjectIdentifier, value: &[u8]) -> Result<bool> {
        match oid {
            SUBJECT_KEY_ID => {
                let mut parts = Parts::new(what, value)?;
                let id = parts.take("the subject's key identifier", Tag::OctetString)?.value;
                parts.end()?;
                self.subject_key_id = Some(key_id(what, id)?);
            }
            KEY_USAGE => self.key_purposes = Some(purposes(what, value)?),
            SUBJECT_ALT_NAME => self.alt_names = alt_name::read(what, value)?,
            BASIC_CONSTRAINTS => self.authority = authority(what, value)?,
            NAME_CONSTRAINTS => self.constraints = Some(Constraints::read(what, value)?),
            AUTHORITY_KEY_ID => {
                // Issuer and serial number may follow, which say no more than the chain does.
                let mut parts = Parts::only(what, value, Tag::Sequence, usize::MAX)?;
                let id = parts.optional("the authority's key identifier", context(0, false))?;
                self.authority_key_id = id.map(|id| key_id(what, id.value)).transpose()?;
            }
            EXTENDED_USAGE => self.extended_usages = Some(usages(what, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn key_id(what: &str, id: &[u8]) -> Result<Vec<u8>> {
    match (1..=MAX_KEY_ID_BYTES).contains(&id.len()) {
        true => Ok(id.to_vec()),
        false => Err(crate::invalid(format!("{what}: a key identifier has 1 to {MAX_KEY_ID_BYTES} bytes"))),
    }
}

/// Reads a KeyUsage: bits of which the first is the most significant, without zeros at the end (X.690 §11.2.2).
fn purposes(what: &'static str, value: &[u8]) -> Result<Vec<KeyPurpose>> {
    let mut parts = Parts::new(what, value)?;
    let bits = parts.take("the key usage", Tag::BitString)?.value;
    let well_formed = match bits {
        [unused @ 0..=7, bytes @ .., last] => bytes.len() <= 1 && last.trailing_zeros() == u32::from(*unused),
        _ => false,
    };
    if !well_formed {
        return Err(parts.wrong("the key usage is malformed, or names nothing"));
    }
    parts.end()?;
    let is_set = |(bit, _): &(usize, KeyPurpose)| bits[1] & (0x80 >> bit) != 0;
    let known: Vec<_> = PURPOSES.into_iter().enumerate().filter(is_set).map(|(_, purpose)| purpose).collect();
    // What is left are two that bound key agreement; by themselves they allow nothing, and no purpose stands for all.
    match known.is_empty() {
        true => Err(crate::invalid(format!("{what}: the key usage names nothing that a key is used for"))),
        false => Ok(known),
    }
}

/// Reads the basic constraints (RFC 5280 §4.2.1.9).
fn authority(what: &'static str, value: &[u8]) -> Result<Option<Option<u8>>> {
    let mut parts = Parts::only(what, value, Tag::Sequence, usize::MAX)?;
    let is_one = match parts.optional("whether it is of an authority", Tag::Boolean)? {
        None => false,
        Some(Part { value: [0xff], .. }) => true,
        Some(_) => return Err(parts.wrong("the basic constraints are not written as DER has them")),
    };
    let length = parts.optional("the path length", Tag::Integer)?;
    let length = match length {
        None => None,
        // Longer ones than chains can be are all alike.
        Some(part) => Some(match natural(what, "the path length", part.value)? {
            [] => 0,
            [length] => *length,
            _ => u8::MAX,
        }),
    };
    parts.end()?;
    match (is_one, length) {
        (false, Some(_)) => {
            Err(crate::invalid(format!("{what}: a path length without being of an authority")))
        }
        (false, None) => Ok(None),
        (true, length) => Ok(Some(length)),
    }
}

fn usages(what: &'static str, value: &[u8]) -> Result<Vec<ExtendedUsage>> {
    let mut parts = Parts::only(what, value, Tag::Sequence, usize::MAX)?;
    let mut usages = Vec::new();
    let mut count = 0;
    if parts.is_finished() {
        return Err(parts.wrong("an extended key usage that names nothing"));
    }
    while !parts.is_finished() {
        count += 1;
        if count > MAX_USAGES {
            return Err(parts.wrong(format!("more than {MAX_USAGES} extended key usages")));
        }
        let oid = parts.oid("an extended key usage")?;
        let known = USAGES.into_iter().filter(|usage| oid == ANY_USAGE || usage_oid(*usage) == oid);
        usages.extend(known.filter(|usage| !usages.contains(usage)).collect::<Vec<_>>());
    }
    Ok(usages)
}
