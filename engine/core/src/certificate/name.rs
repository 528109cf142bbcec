//! Names in certificates: distinguished names in their text form (RFC 4514), and alternative names (RFC 5280 §4.2.1.6), each checked before
//! it is one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};

/// What an attribute of a distinguished name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeKind {
    /// `CN`, 2.5.4.3.
    CommonName,
    /// `O`, 2.5.4.10.
    Organization,
    /// `OU`, 2.5.4.11.
    OrganizationalUnit,
    /// `C`, 2.5.4.6: two letters (ISO 3166).
    Country,
    /// `ST`, 2.5.4.8.
    State,
    /// `L`, 2.5.4.7.
    Locality,
    /// `STREET`, 2.5.4.9.
    Street,
    /// `SERIALNUMBER`, 2.5.4.5.
    SerialNumber,
    /// `DC`, 0.9.2342.19200300.100.1.25.
    DomainComponent,
    /// `UID`, 0.9.2342.19200300.100.1.1.
    UserId,
    /// `emailAddress`, 1.2.840.113549.1.9.1.
    EmailAddress,
}

impl AttributeKind {
    /// Every kind.
    pub const ALL: [AttributeKind; 11] = [
        AttributeKind::CommonName,
        AttributeKind::Organization,
        AttributeKind::OrganizationalUnit,
        AttributeKind::Country,
        AttributeKind::State,
        AttributeKind::Locality,
        AttributeKind::Street,
        AttributeKind::SerialNumber,
        AttributeKind::DomainComponent,
        AttributeKind::UserId,
        AttributeKind::EmailAddress,
    ];

    /// Returns its name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            AttributeKind::CommonName => "CN",
            AttributeKind::Organization => "O",
            AttributeKind::OrganizationalUnit => "OU",
            AttributeKind::Country => "C",
            AttributeKind::State => "ST",
            AttributeKind::Locality => "L",
            AttributeKind::Street => "STREET",
            AttributeKind::SerialNumber => "SERIALNUMBER",
            AttributeKind::DomainComponent => "DC",
            AttributeKind::UserId => "UID",
            AttributeKind::EmailAddress => "emailAddress",
        }
    }

    /// Returns the most characters that a value may have (RFC 5280, appendix A.1: the upper bounds).
    pub fn max_characters(self) -> usize {
        match self {
            AttributeKind::Country => 2,
            AttributeKind::CommonName
            | AttributeKind::Organization
            | AttributeKind::OrganizationalUnit
            | AttributeKind::SerialNumber => 64,
            AttributeKind::State | AttributeKind::Locality | AttributeKind::Street => 128,
            AttributeKind::DomainComponent => 63,
            AttributeKind::UserId => 256,
            AttributeKind::EmailAddress => 255,
        }
    }
}

/// A distinguished name, in the order of its encoding: the attribute that the text form names last comes first. Each relative name has one
/// attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DistinguishedName(Vec<(AttributeKind, String)>);

/// The most attributes that a name has.
const ATTRIBUTES: usize = 16;
/// The most characters of the text form.
const TEXT_CHARACTERS: usize = 2_048;

impl DistinguishedName {
    /// Makes a name of its attributes, in the order of their encoding.
    ///
    /// # Errors
    /// `InvalidParameter` for a value that is empty, too long, or holds a control character, and for none or too many of them.
    pub fn new(attributes: Vec<(AttributeKind, String)>) -> Result<Self> {
        if attributes.is_empty() || attributes.len() > ATTRIBUTES {
            let why = format!("a name has 1 to {ATTRIBUTES} attributes, not {}", attributes.len());
            return Err(invalid(why));
        }
        for (kind, value) in &attributes {
            let (name, most) = (kind.name(), kind.max_characters());
            if value.trim().is_empty() {
                return Err(invalid(format!("{name}: the value is empty")));
            }
            if value.chars().count() > most {
                return Err(invalid(format!("{name}: the value is longer than {most} characters")));
            }
            if let Some(odd) = value.chars().find(|c| is_deceiving(*c)) {
                let why = format!(
                    "{name}: the character U+{:04X} is a control or formatting character",
                    odd as u32
                );
                return Err(invalid(why));
            }
            let is_country = value.len() == 2 && value.bytes().all(|b| b.is_ascii_uppercase());
            if *kind == AttributeKind::Country && !is_country {
                return Err(invalid("C: a country is two capital letters (ISO 3166)".into()));
            }
            let is_ascii = matches!(
                kind,
                AttributeKind::DomainComponent | AttributeKind::EmailAddress | AttributeKind::SerialNumber
            );
            if is_ascii && !value.is_ascii() {
                return Err(invalid(format!("{name}: the value is not ASCII")));
            }
        }
        Ok(Self(attributes))
    }

    /// Reads the text form: `CN=orders,O=Example,C=CN`, with `\` and hexadecimal escapes (RFC 4514 §3); semicolons and spaces after
    /// separators are taken as RFC 2253 says of its predecessor.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong and where.
    pub fn parse(text: &str) -> Result<Self> {
        if text.chars().count() > TEXT_CHARACTERS {
            return Err(invalid(format!("a name has at most {TEXT_CHARACTERS} characters")));
        }
        let mut attributes = Vec::new();
        let mut rest = text.trim_start();
        loop {
            let (name, after) =
                rest.split_once('=').ok_or_else(|| invalid(format!("expected TYPE=value at {rest:?}")))?;
            let name = name.trim();
            let kind = AttributeKind::ALL
                .into_iter()
                .find(|kind| kind.name().eq_ignore_ascii_case(name))
                .or_else(|| is_other_name(name))
                .ok_or_else(|| invalid(format!("{name:?} is no attribute that is known here")))?;
            let (value, left) = value(after)?;
            attributes.push((kind, value));
            match left {
                None => break,
                Some(left) => rest = left.trim_start(),
            }
            if attributes.len() > ATTRIBUTES {
                break;
            }
        }
        attributes.reverse();
        Self::new(attributes)
    }

    /// Returns the attributes, in the order of their encoding.
    pub fn attributes(&self) -> &[(AttributeKind, String)] {
        &self.0
    }

    /// Returns the value of the first attribute of a kind.
    pub fn first(&self, kind: AttributeKind) -> Option<&str> {
        self.0.iter().find(|(own, _)| *own == kind).map(|(_, value)| &**value)
    }
}

/// Returns the attribute of another name that is in use.
fn is_other_name(name: &str) -> Option<AttributeKind> {
    match &*name.to_ascii_uppercase() {
        "S" => Some(AttributeKind::State),
        "E" | "EMAIL" => Some(AttributeKind::EmailAddress),
        _ => None,
    }
}

/// Reads a value up to its separator; returns what comes after that, where there is one.
fn value(text: &str) -> Result<(String, Option<&str>)> {
    let text = text.trim_start();
    if text.starts_with('#') {
        return Err(invalid("values in hexadecimal (#...) are not taken".into()));
    }
    let mut bytes = Vec::new();
    // Spaces at the end count where they are escaped.
    let mut kept = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | ';' => return Ok((utf8(bytes, kept)?, Some(&text[at + 1..]))),
            '+' => return Err(invalid("relative names of several attributes (+) are not taken".into())),
            '"' => return Err(invalid("quotation marks are written as \\\"".into())),
            '<' | '>' => return Err(invalid(format!("{c} is written as \\{c}"))),
            '\\' => {
                let (_, next) = chars.next().ok_or_else(|| invalid("a name ends in \\".into()))?;
                match next {
                    ',' | ';' | '+' | '"' | '<' | '>' | '\\' | '=' | '#' | ' ' => bytes.push(next as u8),
                    _ => {
                        let low = chars.next().and_then(|(_, low)| low.to_digit(16));
                        match (next.to_digit(16), low) {
                            (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
                            _ => return Err(invalid(format!("\\{next} escapes nothing"))),
                        }
                    }
                }
                kept = bytes.len();
            }
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                if c != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    Ok((utf8(bytes, kept)?, None))
}

fn utf8(mut bytes: Vec<u8>, kept: usize) -> Result<String> {
    bytes.truncate(kept);
    String::from_utf8(bytes).map_err(|_| invalid("an escaped value is not UTF-8".into()))
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, value)) in self.0.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}=", kind.name())?;
            let last = value.chars().count() - 1;
            for (at, c) in value.chars().enumerate() {
                let is_edge_space = c == ' ' && (at == 0 || at == last);
                if matches!(c, ',' | ';' | '+' | '"' | '<' | '>' | '\\')
                    || is_edge_space
                    || (c == '#' && at == 0)
                {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// A name beside the subject's that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AltName {
    /// A DNS name in lower case: letters, digits and hyphens, of other scripts in its ASCII form (RFC 5891), perhaps with `*` as its first label.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mail address.
    Email(String),
    /// A URI, of services above all (SPIFFE).
    Uri(String),
}

impl AltName {
    /// Makes a DNS name.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong.
    pub fn dns(name: &str) -> Result<Self> {
        let told = |why: &str| invalid(format!("the DNS name {} {why}", shown(name)));
        if !name.is_ascii() {
            return Err(told(
                "is not ASCII; names of other scripts are written in their ASCII form (xn--...)",
            ));
        }
        if name.is_empty() || name.len() > 253 {
            return Err(told("has 1 to 253 characters"));
        }
        let host = name.strip_prefix("*.").unwrap_or(name);
        for label in host.split('.') {
            let is_well_formed = !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !is_well_formed {
                return Err(told("has a label that is none: 1 to 63 letters, digits and inner hyphens"));
            }
        }
        if host.parse::<IpAddr>().is_ok()
            || host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(told("is an address, or looks like one"));
        }
        Ok(AltName::Dns(name.to_ascii_lowercase()))
    }

    /// Makes the name of an address. One of IPv4 is written as such: in its mapped form (RFC 4291 §2.5.5.2) it would pass by what is said of
    /// networks of IPv4, and software would still reach the host that it is.
    ///
    /// # Errors
    /// `InvalidParameter` for a mapped address.
    pub fn ip(address: IpAddr) -> Result<Self> {
        let mapped = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        };
        match mapped {
            None => Ok(AltName::Ip(address)),
            Some(v4) => {
                Err(invalid(format!("the address {address} is {v4} in its form of IPv6: write it as {v4}")))
            }
        }
    }

    /// Makes the name of a host: an address where it is one, and a DNS name else; never by the text form's prefixes.
    ///
    /// # Errors
    /// `InvalidParameter`, naming what is wrong.
    pub fn host(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(address) => AltName::ip(address),
            Err(_) => AltName::dns(text),
        }
    }

    /// Makes a URI: of a host, where it names one, that could be named by itself, with nothing about it that readers take differently.
    fn uri(text: &str) -> Result<Self> {
        let told = |why: &str| invalid(format!("{} {why}", shown(text)));
        let (scheme, rest) = text.split_once(':').ok_or_else(|| told("is no URI"))?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let is_one = is_scheme && !rest.is_empty() && text.len() <= 2_048;
        if !is_one || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(told("is no URI"));
        }
        if text.contains('\\') {
            return Err(told("is no URI: it has a \\, which some readers take for a /"));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            // Browsers find a host in those, however many slashes there are.
            let has_host = ["http", "https", "ws", "wss", "ftp"].contains(&&*scheme.to_ascii_lowercase());
            return match has_host {
                true => Err(told("is no URI of its scheme: a host stands behind ://")),
                false => Ok(AltName::Uri(text.to_owned())),
            };
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(told("names a user before its host, which is not certified"));
        }
        let host = uri_host(authority).ok_or_else(|| told("has a host or port that is none"))?;
        match AltName::host(host) {
            Ok(AltName::Dns(name)) if name.starts_with('*') => Err(told("has a host with *")),
            // Brackets are of addresses of IPv6 alone, and those have them.
            Ok(AltName::Dns(_) | AltName::Ip(IpAddr::V4(_))) if authority.starts_with('[') => {
                Err(told("has a host in brackets that is no address of IPv6"))
            }
            Ok(_) => Ok(AltName::Uri(text.to_owned())),
            Err(error) => Err(told(&format!("has a host that is none: {}", error.message()))),
        }
    }

    /// Returns what kind of name it is, as the text form writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            AltName::Dns(_) => "DNS",
            AltName::Ip(_) => "IP",
            AltName::Email(_) => "email",
            AltName::Uri(_) => "URI",
        }
    }
}

impl FromStr for AltName {
    type Err = Error;

    /// Reads `DNS:`, `IP:`, `email:` or `URI:` and a name; without one of those it is an address where it is one, and a DNS name else.
    fn from_str(text: &str) -> Result<Self> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) if ["dns", "ip", "email", "uri"].contains(&&*kind.to_ascii_lowercase()) => {
                (kind.to_ascii_lowercase(), name)
            }
            _ if text.parse::<IpAddr>().is_ok() => ("ip".into(), text),
            _ => ("dns".into(), text),
        };
        match &*kind {
            "ip" => {
                let address = name.parse().map_err(|_| invalid(format!("{} is no address", shown(name))))?;
                AltName::ip(address)
            }
            "email" => {
                let is_one = name.is_ascii()
                    && name.len() <= 255
                    && !name.bytes().any(|b| b.is_ascii_control() || b == b' ')
                    && name
                        .split_once('@')
                        .is_some_and(|(who, host)| !who.is_empty() && AltName::dns(host).is_ok());
                match is_one {
                    true => Ok(AltName::Email(name.to_owned())),
                    false => Err(invalid(format!("{} is no mail address", shown(name)))),
                }
            }
            "uri" => AltName::uri(name),
            _ => AltName::dns(name),
        }
    }
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AltName::Dns(name) => write!(f, "DNS:{name}"),
            AltName::Ip(address) => write!(f, "IP:{address}"),
            AltName::Email(address) => write!(f, "email:{address}"),
            AltName::Uri(uri) => write!(f, "URI:{uri}"),
        }
    }
}

macro_rules! as_text {
    ($($type:ty: $parse:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                $parse(&text).map_err(de::Error::custom)
            }
        }
    )*};
}

as_text! {
    DistinguishedName: DistinguishedName::parse;
    AltName: str::parse::<AltName>;
}

/// Returns the host of a URI's authority without a user (RFC 3986 §3.2), whose port is one; addresses of IPv6 lose their brackets.
pub(super) fn uri_host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            match after {
                "" => (host, None),
                after => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    (!host.is_empty() && port.is_none_or(is_port)).then_some(host)
}

/// Tells whether a character shows nothing, or makes others show elsewhere: control characters, and those of direction, joining and width.
fn is_deceiving(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns a name as an error shows it: bounded, and escaped.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    format!("{short:?}")
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidParameter, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        DistinguishedName::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_name_reads_back_as_it_was_written_and_its_encoding_begins_with_the_last() {
        let name = DistinguishedName::parse("CN=orders\\, inc,OU=a b ,O=Ex\\C3\\A4mple, C=CN").unwrap();
        assert_eq!(name.attributes()[0], (AttributeKind::Country, "CN".into()));
        assert_eq!(name.first(AttributeKind::CommonName), Some("orders, inc"));
        assert_eq!(name.first(AttributeKind::OrganizationalUnit), Some("a b"));
        assert_eq!(name.to_string(), "CN=orders\\, inc,OU=a b,O=Exämple,C=CN");
        assert_eq!(DistinguishedName::parse(&name.to_string()).unwrap(), name);
        let spaced = DistinguishedName::parse("CN=\\ a\\ ").unwrap();
        assert_eq!(spaced.first(AttributeKind::CommonName), Some(" a "));
        assert_eq!(DistinguishedName::parse(&spaced.to_string()).unwrap(), spaced);
    }

    #[test]
    fn odd_names_are_refused_with_what_is_wrong() {
        for (text, told) in [
            ("", "expected TYPE=value"),
            ("CN", "expected TYPE=value"),
            ("X=1", "no attribute"),
            ("CN=", "empty"),
            ("CN=a,", "expected TYPE=value"),
            ("C=China", "longer than 2"),
            ("C=cn", "capital letters"),
            ("CN=a\\", "ends in"),
            ("CN=a\\zz", "escapes nothing"),
            ("CN=a\\ff", "UTF-8"),
            ("CN=a\\00b", "U+0000"),
            ("CN=a\u{202e}b", "U+202E"),
            ("CN=a+O=b", "several attributes"),
            ("CN=#0401", "hexadecimal"),
            ("CN=\"a\"", "quotation"),
            ("DC=ä", "ASCII"),
        ] {
            let error = refused(text);
            assert!(error.contains(told), "{text:?}: {error}");
        }
        assert!(refused(&format!("CN={}", "a".repeat(65))).contains("longer than 64"));
        assert!(refused(&"CN=a,".repeat(20)).contains("attributes"));
        assert!(refused(&"a".repeat(3_000)).contains("2048"));
    }

    #[test]
    fn alternative_names_are_checked_and_written_in_one_way() {
        for (text, written) in [
            ("Example.COM", "DNS:example.com"),
            ("dns:*.example.com", "DNS:*.example.com"),
            ("10.0.0.1", "IP:10.0.0.1"),
            ("::1", "IP:::1"),
            ("IP:2001:db8::1", "IP:2001:db8::1"),
            ("email:a@example.com", "email:a@example.com"),
            ("URI:spiffe://example/orders", "URI:spiffe://example/orders"),
            ("URI:urn:orders", "URI:urn:orders"),
            ("URI:https://10.0.0.1:8443/a", "URI:https://10.0.0.1:8443/a"),
            ("URI:https://[2001:db8::1]:1/a?b#c", "URI:https://[2001:db8::1]:1/a?b#c"),
        ] {
            let name: AltName = text.parse().unwrap();
            assert_eq!(name.to_string(), written);
            assert_eq!(written.parse::<AltName>().unwrap(), name);
        }
        for odd in [
            "",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b",
            "a b",
            "a\0.example.com",
            "ex\u{430}mple.com",
            "*",
            "a.*.b",
            "**.a",
            "DNS:10.0.0.1",
            "DNS:1.2.3",
            "IP:none",
            "email:none",
            "email:a@",
            "URI:none",
            "URI:a:b c",
            // One host, written so that what is said of networks and names would pass it by.
            "::ffff:10.0.0.1",
            "IP:::ffff:a00:1",
            "URI:https://[::ffff:10.0.0.1]/a",
            "URI:spiffe://",
            "URI:spiffe:///a",
            "URI:spiffe://a.example./a",
            "URI:spiffe://user@a.example/a",
            "URI:spiffe://a.example\\@b.example/a",
            "URI:spiffe://*.example/a",
            "URI:spiffe://a%2eexample/a",
            "URI:spiffe://2130706433/a",
            "URI:spiffe://a.example:x/a",
            "URI:spiffe://a.example:1:2/a",
            "URI:spiffe://[a.example]/a",
            "URI:spiffe://[10.0.0.1]/a",
            "URI:spiffe://[::1/a",
            "URI:spiffe://[::1]a/a",
            "URI:https:/a.example/a",
            "URI:HTTPS:a.example",
        ] {
            assert!(odd.parse::<AltName>().is_err(), "{odd:?}");
        }
        assert!(AltName::dns(&format!("{}.example", "a".repeat(64))).is_err());
        let mapped = "::ffff:10.0.0.1".parse::<AltName>().unwrap_err();
        assert!(mapped.message().contains("write it as 10.0.0.1"), "{mapped}");
        assert!(AltName::host("IP:10.0.0.1").is_err() && AltName::host("10.0.0.1").is_ok());
    }
}
