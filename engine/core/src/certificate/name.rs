//! Distinguished names in their text form (RFC 4514), each checked before it is one.

use std::fmt;

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

/// Has types serialise as their text, and read from it.
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

pub(super) use as_text;

as_text! {
    DistinguishedName: DistinguishedName::parse;
}

/// Tells whether a character shows nothing, or makes others show elsewhere: control characters, and those of direction, joining and width.
fn is_deceiving(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

pub(super) fn invalid(why: String) -> Error {
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
}
