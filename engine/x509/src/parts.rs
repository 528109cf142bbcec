//! Reading of DER (X.690), one value at a time: nothing is copied, nothing is reserved by a length that is merely announced, and there is no
//! recursion, so that nesting costs nothing.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, ErrorKind, Reader, SliceReader, Tag, TagNumber, Tagged};
use keymill_core::Result;

use crate::invalid;

/// A value.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) tag: Tag,
    /// Its contents.
    pub(crate) value: &'a [u8],
    /// All of it, with tag and length.
    pub(crate) whole: &'a [u8],
}

/// The values of a sequence or set, or those that follow one another.
pub(crate) struct Parts<'a> {
    /// What they are of, for errors.
    what: &'static str,
    bytes: &'a [u8],
    reader: SliceReader<'a>,
}

impl<'a> Parts<'a> {
    /// Reads values that follow one another.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self> {
        let reader = SliceReader::new(bytes).map_err(|error| unreadable(what, "its length", error))?;
        Ok(Self { what, bytes, reader })
    }

    /// Reads one value of a tag that is all there is, of at most `most` bytes, and opens it.
    pub(crate) fn only(what: &'static str, bytes: &'a [u8], tag: Tag, most: usize) -> Result<Self> {
        if bytes.len() > most {
            return Err(invalid(format!("{what}: {} bytes exceed the limit of {most}", bytes.len())));
        }
        let mut outer = Self::new(what, bytes)?;
        let part = outer.take("the outermost value", tag)?;
        outer.end()?;
        Self::new(what, part.value)
    }

    /// Opens a part of this one's.
    pub(crate) fn open(&self, part: Part<'a>) -> Result<Self> {
        Self::new(self.what, part.value)
    }

    /// Returns how many bytes there are in all.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether nothing is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// Reads the next value; `field` names it in an error.
    pub(crate) fn next(&mut self, field: &str) -> Result<Part<'a>> {
        if self.is_finished() {
            return Err(invalid(format!("{}: {field} is missing", self.what)));
        }
        let at = |reader: &SliceReader<'_>| usize::try_from(reader.position()).unwrap_or(usize::MAX);
        let from = at(&self.reader);
        let any = AnyRef::decode(&mut self.reader).map_err(|error| unreadable(self.what, field, error))?;
        Ok(Part { tag: any.tag(), value: any.value(), whole: &self.bytes[from..at(&self.reader)] })
    }

    /// Reads the next value, which has a tag.
    pub(crate) fn take(&mut self, field: &str, tag: Tag) -> Result<Part<'a>> {
        let part = self.next(field)?;
        if part.tag != tag {
            return Err(invalid(format!("{}: {field} is {}, not {tag}", self.what, part.tag)));
        }
        Ok(part)
    }

    /// Reads the next value where it has a tag.
    pub(crate) fn optional(&mut self, field: &str, tag: Tag) -> Result<Option<Part<'a>>> {
        let is_there = !self.is_finished() && Tag::peek(&self.reader).is_ok_and(|next| next == tag);
        is_there.then(|| self.next(field)).transpose()
    }

    /// Reads an object identifier.
    pub(crate) fn oid(&mut self, field: &str) -> Result<ObjectIdentifier> {
        let part = self.take(field, Tag::ObjectIdentifier)?;
        ObjectIdentifier::from_bytes(part.value)
            .map_err(|_| invalid(format!("{}: {field} is a malformed object identifier", self.what)))
    }

    /// Reads an integer that is not negative, as its bytes without a zero in front; zero is none at all.
    pub(crate) fn natural(&mut self, field: &str) -> Result<&'a [u8]> {
        let part = self.take(field, Tag::Integer)?;
        natural(self.what, field, part.value)
    }

    /// Reads a bit string of whole bytes.
    pub(crate) fn bits(&mut self, field: &str) -> Result<&'a [u8]> {
        let part = self.take(field, Tag::BitString)?;
        match part.value.split_first() {
            Some((0, bytes)) => Ok(bytes),
            _ => Err(invalid(format!("{}: {field} does not end at a byte", self.what))),
        }
    }

    /// Makes sure that nothing is left.
    pub(crate) fn end(self) -> Result<()> {
        match self.is_finished() {
            true => Ok(()),
            false => Err(invalid(format!("{}: bytes follow that belong to nothing", self.what))),
        }
    }

    /// Returns an error about what is read.
    pub(crate) fn wrong(&self, why: impl std::fmt::Display) -> keymill_core::Error {
        invalid(format!("{}: {why}", self.what))
    }
}

/// Returns the bytes of an integer's contents, where it is not negative and in its shortest form.
pub(crate) fn natural<'a>(what: &str, field: &str, value: &'a [u8]) -> Result<&'a [u8]> {
    match value {
        [] => Err(invalid(format!("{what}: {field} is an integer of no bytes"))),
        [0] => Ok(&[]),
        [0, next, ..] if next & 0x80 == 0 => {
            Err(invalid(format!("{what}: {field} is an integer with zeros in front")))
        }
        [0, rest @ ..] => Ok(rest),
        [first, ..] if first & 0x80 != 0 => Err(invalid(format!("{what}: {field} is negative"))),
        rest => Ok(rest),
    }
}

/// Returns a tag of the context.
pub(crate) fn context(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific { constructed, number: TagNumber(number) }
}

fn unreadable(what: &str, field: &str, error: der::Error) -> keymill_core::Error {
    let why = match error.kind() {
        ErrorKind::IndefiniteLength => "its length is indefinite, which DER has not".to_owned(),
        ErrorKind::Overlength | ErrorKind::Length { .. } => {
            "its length is not in the shortest form, or too long".to_owned()
        }
        ErrorKind::Incomplete { .. } => "it is cut short".to_owned(),
        kind => kind.to_string(),
    };
    invalid(format!("{what}: {field} cannot be read: {why}"))
}
