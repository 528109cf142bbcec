//! Distinguished names: written from their vocabulary, read from others' bytes into text that shows what they say and nothing else.

use der::asn1::{Any, Ia5String, ObjectIdentifier, PrintableString, SetOfVec};
use der::{Encode, Tag};
use keymill_core::Result;
use keymill_core::certificate::{AttributeKind, DistinguishedName};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

use crate::invalid;
use crate::parts::{Part, Parts};

/// The most attributes of a name that is read.
const MAX_ATTRIBUTES: usize = 64;
/// The most bytes of a value that is read.
const MAX_VALUE_BYTES: usize = 1_024;

fn oid(kind: AttributeKind) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(match kind {
        AttributeKind::CommonName => "2.5.4.3",
        AttributeKind::SerialNumber => "2.5.4.5",
        AttributeKind::Country => "2.5.4.6",
        AttributeKind::Locality => "2.5.4.7",
        AttributeKind::State => "2.5.4.8",
        AttributeKind::Street => "2.5.4.9",
        AttributeKind::Organization => "2.5.4.10",
        AttributeKind::OrganizationalUnit => "2.5.4.11",
        AttributeKind::DomainComponent => "0.9.2342.19200300.100.1.25",
        AttributeKind::UserId => "0.9.2342.19200300.100.1.1",
        AttributeKind::EmailAddress => "1.2.840.113549.1.9.1",
    })
}

/// Returns a name in DER: PrintableString for country and serial number, IA5String for domain components and mail addresses, UTF8String for
/// all others (RFC 5280 §4.1.2.4 and appendix A.1).
///
/// # Errors
/// `InvalidParameter` for a serial number with other characters than PrintableString has, and a value that would not be read again: whose letters
/// are of scripts that look alike.
pub fn name_der(name: &DistinguishedName) -> Result<Vec<u8>> {
    let mut sequence = RdnSequence::default();
    for (kind, value) in name.attributes() {
        check_text(value).map_err(|why| invalid(format!("{}: the value {why}", kind.name())))?;
        let odd = |_| invalid(format!("{}: a character that the encoding has not", kind.name()));
        let value = match kind {
            AttributeKind::Country | AttributeKind::SerialNumber => {
                Any::encode_from(&PrintableString::new(value.as_str()).map_err(odd)?)
            }
            AttributeKind::DomainComponent | AttributeKind::EmailAddress => {
                Any::encode_from(&Ia5String::new(value.as_str()).map_err(odd)?)
            }
            _ => Any::new(Tag::Utf8String, value.as_bytes()),
        };
        let attribute = AttributeTypeAndValue { oid: oid(*kind), value: value.map_err(odd)? };
        let set = SetOfVec::try_from(vec![attribute]).map_err(odd)?;
        sequence.push(RelativeDistinguishedName::from(set));
    }
    sequence.to_der().map_err(|_| invalid("a name that has no encoding"))
}

/// A name that was read.
pub(crate) struct ReadName {
    /// RFC 4514.
    pub(crate) text: String,
    /// In our vocabulary, or why it is not.
    pub(crate) known: Result<DistinguishedName>,
}

/// An attribute that was read.
struct Attribute<'a> {
    oid: ObjectIdentifier,
    part: Part<'a>,
    text: Option<String>,
}

/// Reads a Name; `what` it is of goes into errors.
pub(crate) fn read(what: &'static str, name: Part<'_>) -> Result<ReadName> {
    let relative = relatives(what, name)?;
    let known = known(what, &relative);
    let mut text = String::new();
    for attributes in relative.iter().rev() {
        let separators = std::iter::once(",").chain(std::iter::repeat("+"));
        for (separator, attribute) in separators.zip(attributes) {
            if !text.is_empty() {
                text.push_str(separator);
            }
            show(&mut text, attribute);
        }
    }
    Ok(ReadName { text, known })
}

/// Tells whether two names, in DER, are the same: byte for byte, or but for case, space and the kind of string (RFC 5280 §7.1).
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || matches!((comparable(one), comparable(other)), (Ok(one), Ok(other)) if one == other)
}

/// Returns the relative names of a name, each so that equal ones are the same.
pub(crate) fn comparable(name: &[u8]) -> Result<Vec<Vec<String>>> {
    let mut parts = Parts::new("name", name)?;
    let relative = relatives("name", parts.take("the name", Tag::Sequence)?)?;
    let folded = |attribute: &Attribute<'_>| match &attribute.text {
        Some(text) => {
            let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
            format!("{}={}", attribute.oid, words.join(" "))
        }
        None => format!("{}=#{:?}", attribute.oid, attribute.part.whole),
    };
    let sorted = |attributes: &Vec<Attribute<'_>>| {
        let mut folded: Vec<_> = attributes.iter().map(folded).collect();
        folded.sort();
        folded
    };
    Ok(relative.iter().map(sorted).collect())
}

fn relatives<'a>(what: &'static str, name: Part<'a>) -> Result<Vec<Vec<Attribute<'a>>>> {
    let mut sequence = Parts::new(what, name.value)?;
    let mut relative = Vec::new();
    let mut count = 0;
    while !sequence.is_finished() {
        let set = sequence.take("a relative name", Tag::Set)?;
        let mut set = sequence.open(set)?;
        let mut attributes = Vec::with_capacity(1);
        while !set.is_finished() {
            count += 1;
            if count > MAX_ATTRIBUTES {
                return Err(set.wrong(format!("a name of more than {MAX_ATTRIBUTES} attributes")));
            }
            let pair = set.take("an attribute of a name", Tag::Sequence)?;
            let mut pair = set.open(pair)?;
            let oid = pair.oid("the kind of an attribute")?;
            let part = pair.next("the value of an attribute")?;
            pair.end()?;
            let text = value(what, part)?;
            attributes.push(Attribute { oid, part, text });
        }
        if attributes.is_empty() {
            return Err(set.wrong("a relative name of no attributes"));
        }
        relative.push(attributes);
    }
    Ok(relative)
}

/// Reads a value; `None` for what is no string.
fn value(what: &str, part: Part<'_>) -> Result<Option<String>> {
    let wrong = |why: &str| invalid(format!("{what}: a value of a name {why}"));
    if part.value.len() > MAX_VALUE_BYTES {
        return Err(wrong(&format!("has more than {MAX_VALUE_BYTES} bytes")));
    }
    let text = match part.tag {
        Tag::Utf8String => String::from_utf8(part.value.to_vec()).map_err(|_| wrong("is not UTF-8"))?,
        Tag::PrintableString | Tag::Ia5String | Tag::TeletexString | Tag::NumericString => {
            if !part.value.is_ascii() {
                return Err(wrong("has characters that its kind of string has not"));
            }
            part.value.iter().map(|byte| char::from(*byte)).collect()
        }
        Tag::BmpString => {
            let units = part.value.chunks(2).map(|pair| match pair {
                [high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            });
            let units: Option<Vec<_>> = units.collect();
            units.and_then(|units| String::from_utf16(&units).ok()).ok_or_else(|| wrong("is not UTF-16"))?
        }
        _ => return Ok(None),
    };
    check_text(&text).map_err(|why| wrong(&why))?;
    Ok(Some(text))
}

/// Makes sure that a text shows what it is: no control character (NUL above all), none of direction, joining or width, and no word whose
/// letters are of scripts that look alike.
pub(crate) fn check_text(text: &str) -> Result<(), String> {
    // RFC 5890 and UTS 39 §5 say more; what passes here is shown to people, and compared by machines byte for byte.
    let odd = text.chars().find(|c| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    });
    if let Some(odd) = odd {
        return Err(format!("has the control or formatting character U+{:04X}", odd as u32));
    }
    let odd = text.chars().find(|c| matches!(c, '\u{ff01}'..='\u{ff5e}' | '\u{1d400}'..='\u{1d7ff}'));
    if let Some(odd) = odd {
        return Err(format!("has U+{:04X}, which looks like an ASCII character", odd as u32));
    }
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let mut scripts = word.chars().filter_map(script);
        if let Some(first) = scripts.next()
            && let Some(other) = scripts.find(|other| *other != first)
        {
            return Err(format!("mixes {first} and {other} letters in one word"));
        }
    }
    Ok(())
}

/// Returns the script of a letter, of those whose letters look alike.
fn script(c: char) -> Option<&'static str> {
    match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Some("Latin"),
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Some("Greek"),
        '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' => Some("Cyrillic"),
        '\u{531}'..='\u{58f}' => Some("Armenian"),
        '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' => Some("Cherokee"),
        _ => None,
    }
}

fn known(what: &str, relative: &[Vec<Attribute<'_>>]) -> Result<DistinguishedName> {
    let mut attributes = Vec::with_capacity(relative.len());
    for set in relative {
        let [attribute] = &set[..] else {
            return Err(invalid(format!("{what}: a relative name of several attributes is not taken")));
        };
        let kind = AttributeKind::ALL.into_iter().find(|kind| oid(*kind) == attribute.oid);
        let kind = kind
            .ok_or_else(|| invalid(format!("{what}: the attribute {} is not known here", attribute.oid)))?;
        let text = attribute
            .text
            .clone()
            .ok_or_else(|| invalid(format!("{what}: the value of {} is no string", kind.name())))?;
        attributes.push((kind, text));
    }
    DistinguishedName::new(attributes).map_err(|error| invalid(format!("{what}: {error}")))
}

/// Adds `TYPE=value` (RFC 4514 §2.3 and §2.4).
fn show(out: &mut String, attribute: &Attribute<'_>) {
    let kind = AttributeKind::ALL.into_iter().find(|kind| oid(*kind) == attribute.oid);
    match kind {
        Some(kind) => out.push_str(kind.name()),
        None => out.push_str(&attribute.oid.to_string()),
    }
    out.push('=');
    match &attribute.text {
        Some(text) if kind.is_some() => {
            let last = text.chars().count().saturating_sub(1);
            for (at, c) in text.chars().enumerate() {
                let is_edge = c == ' ' && (at == 0 || at == last);
                if matches!(c, ',' | ';' | '+' | '"' | '<' | '>' | '\\') || is_edge || (c == '#' && at == 0) {
                    out.push('\\');
                }
                out.push(c);
            }
        }
        _ => {
            out.push('#');
            out.push_str(&crate::certificate::hex(attribute.part.whole));
        }
    }
}
