//! Requests for certificates (PKCS #10, RFC 2986) that others made: read, with their signature checked, which proves that who asks has the key.

use der::Tag;
use der::asn1::ObjectIdentifier;
use keymill_core::Result;
use keymill_core::certificate::{AltName, DistinguishedName};
use keymill_core::key::KeySpec;

use crate::algorithm::Scheme;
use crate::extension::{self, Extensions};
use crate::parts::{Part, Parts, context};
use crate::public_key::PublicKey;
use crate::{MAX_DER_BYTES, name, pem};

/// What errors call it.
const WHAT: &str = "certificate request";
/// The most attributes of a request.
const MAX_ATTRIBUTES: usize = 16;
/// RFC 2985 §5.4.2.
const EXTENSIONS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");

/// A request whose signature is right.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    /// Whose certificate it shall be; `None` where only alternative names say so.
    pub subject: Option<DistinguishedName>,
    /// The other names that are asked for.
    pub alt_names: Vec<AltName>,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// Of which specification the key is, where it is of one.
    pub key_spec: Option<KeySpec>,
}

impl SigningRequest {
    /// Reads a request, in PEM or DER. Of what it asks for, names are taken: all else is for the profile to say. A challenge password is a
    /// secret that nobody has agreed on here, and is passed over, as are attributes of other kinds.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong.
    pub fn read(pem_or_der: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(pem_or_der).ok().filter(|text| text.contains("-----BEGIN "));
        let Some(text) = text else { return Self::read_der(pem_or_der) };
        match &pem::read(WHAT, text, 1, MAX_DER_BYTES)?[..] {
            [("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST", der)] => Self::read_der(der),
            _ => Err(crate::invalid(format!("{WHAT}: the block of PEM is none"))),
        }
    }

    fn read_der(der: &[u8]) -> Result<Self> {
        let mut outer = Parts::only(WHAT, der, Tag::Sequence, MAX_DER_BYTES)?;
        let info = outer.take("what is signed", Tag::Sequence)?;
        let algorithm = outer.take("the algorithm of the signature", Tag::Sequence)?;
        let signature = outer.bits("the signature")?;
        let mut parts = outer.open(info)?;
        outer.end()?;

        if !parts.natural("the version")?.is_empty() {
            return Err(parts.wrong("it is of another version than 1"));
        }
        let subject = parts.take("the subject", Tag::Sequence)?;
        let public_key = parts.take("the key", Tag::Sequence)?;
        let attributes = parts.take("the attributes", context(0, true))?;
        parts.end()?;

        let scheme = Scheme::read(WHAT, algorithm)?;
        let key = PublicKey::read(WHAT, public_key)?;
        key.verify(WHAT, scheme, info.whole, signature)?;
        let subject_name = match subject.value.is_empty() {
            true => None,
            false => Some(name::read(WHAT, subject)?.known?),
        };
        let extensions = self::extensions(attributes)?;
        if extensions.alt_names.others > 0 {
            let why = "an alternative name of another kind than DNS, IP, email and URI";
            return Err(crate::invalid(format!("{WHAT}: {why}")));
        }
        if subject_name.is_none() && extensions.alt_names.known.is_empty() {
            return Err(crate::invalid(format!("{WHAT}: it has neither a subject nor an alternative name")));
        }
        Ok(Self {
            subject: subject_name,
            alt_names: extensions.alt_names.known,
            public_key: public_key.whole.to_vec(),
            key_spec: key.spec,
        })
    }
}

/// Reads the extensions that are asked for. Those that are not known are passed over, critical or not: what is issued has none of them.
fn extensions(attributes: Part<'_>) -> Result<Extensions> {
    let mut list = Parts::new(WHAT, attributes.value)?;
    let mut extensions = None;
    let mut count = 0;
    while !list.is_finished() {
        count += 1;
        if count > MAX_ATTRIBUTES {
            return Err(list.wrong(format!("more than {MAX_ATTRIBUTES} attributes")));
        }
        let attribute = list.take("an attribute", Tag::Sequence)?;
        let mut attribute = list.open(attribute)?;
        let oid = attribute.oid("the kind of an attribute")?;
        let values = attribute.take("the values of an attribute", Tag::Set)?;
        let mut values = attribute.open(values)?;
        attribute.end()?;
        if oid != EXTENSIONS {
            continue;
        }
        let sequence = values.take("the extensions", Tag::Sequence)?;
        values.end()?;
        if extensions.is_some() {
            return Err(list.wrong("extensions are asked for twice"));
        }
        let mut asked = Extensions::default();
        extension::each(WHAT, sequence, |oid, _, value| asked.take(WHAT, oid, value).map(drop))?;
        extensions = Some(asked);
    }
    Ok(extensions.unwrap_or_default())
}
