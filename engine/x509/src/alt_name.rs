//! Alternative names (GeneralName, RFC 5280 §4.2.1.6): written from their vocabulary, and read.

use std::net::IpAddr;

use der::asn1::{Ia5String, OctetString};
use der::{Class, Tag};
use keymill_core::Result;
use keymill_core::certificate::AltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::parts::{Part, Parts};
use crate::{MAX_ALT_NAMES, invalid};

/// Returns a name as extensions hold it.
pub(crate) fn general(name: &AltName) -> Result<GeneralName> {
    let text = |text: &str| {
        Ia5String::new(text).map_err(|_| invalid(format!("the {} name is not ASCII", name.kind())))
    };
    Ok(match name {
        AltName::Dns(name) => GeneralName::DnsName(text(name)?),
        AltName::Email(address) => GeneralName::Rfc822Name(text(address)?),
        AltName::Uri(uri) => GeneralName::UniformResourceIdentifier(text(uri)?),
        AltName::Ip(address) => GeneralName::from(*address),
    })
}

/// Returns a place on the network, of HTTP.
pub(crate) fn url(url: &str) -> Result<GeneralName> {
    let is_one = url.len() <= 2_048 && url.bytes().all(|b| b.is_ascii_graphic()) && url.contains("://");
    let text = Ia5String::new(url).ok().filter(|_| is_one);
    text.map(GeneralName::UniformResourceIdentifier)
        .ok_or_else(|| invalid("a URL of an authority that is none"))
}

/// Returns octets, which are always few enough.
pub(crate) fn octets(bytes: impl Into<Box<[u8]>>) -> Result<OctetString> {
    OctetString::new(bytes).map_err(|_| invalid("too many bytes for an encoding"))
}

/// Names that were read.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) known: Vec<AltName>,
    /// How many are of other kinds: names of directories, of other systems.
    pub(crate) others: usize,
}

/// Reads the value of a subject alternative name.
pub(crate) fn read(what: &'static str, der: &[u8]) -> Result<Names> {
    let mut parts = Parts::only(what, der, Tag::Sequence, usize::MAX)?;
    let mut names = Names::default();
    if parts.is_finished() {
        return Err(parts.wrong("an extension of alternative names that has none"));
    }
    while !parts.is_finished() {
        if names.known.len() + names.others == MAX_ALT_NAMES {
            return Err(parts.wrong(format!("more than {MAX_ALT_NAMES} alternative names")));
        }
        match one(what, parts.next("an alternative name")?)? {
            Some(name) => names.known.push(name),
            None => names.others += 1,
        }
    }
    Ok(names)
}

fn one(what: &str, part: Part<'_>) -> Result<Option<AltName>> {
    if part.tag.class() != Class::ContextSpecific || part.tag.number().value() > 8 {
        return Err(invalid(format!("{what}: an alternative name of no kind that there is")));
    }
    let number = part.tag.number().value();
    // Names of other kinds are of several values, but for the last (RFC 5280 §4.2.1.6).
    if part.tag.is_constructed() != matches!(number, 0 | 3 | 4 | 5) {
        return Err(invalid(format!("{what}: an alternative name that is malformed")));
    }
    let read = |kind: &str| {
        let told = |why: String| invalid(format!("{what}: {why}"));
        let text = std::str::from_utf8(part.value).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| told(format!("an alternative name ({kind}) that is not ASCII")))?;
        format!("{kind}:{text}").parse::<AltName>().map_err(|error| told(error.to_string()))
    };
    match number {
        1 => read("email").map(Some),
        2 => read("DNS").map(Some),
        6 => read("URI").map(Some),
        7 => {
            let address = <[u8; 4]>::try_from(part.value).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(part.value).map(IpAddr::from));
            let wrong = |_| invalid(format!("{what}: an address of {} bytes", part.value.len()));
            let name = AltName::ip(address.map_err(wrong)?);
            name.map(Some).map_err(|error| invalid(format!("{what}: {}", error.message())))
        }
        _ => Ok(None),
    }
}
