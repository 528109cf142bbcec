//! The header of an envelope: which key opens it. Its bytes are the associated data of the stream behind it, so that none of them can
//! be another's. The layout stands in `ENVELOPE.md`; every length is bounded.

use std::fmt;
use std::io::Read;

use keymill_core::EncryptionContext;
use keymill_core::id::CmkId;

use super::error::EnvelopeError;

/// The first eight bytes: the name, version 1, and suite 1, which is AES256-GCM-HKDF in segments of 1 MiB.
const MAGIC: [u8; 8] = *b"KMENV\0\x01\x01";
/// Magic, key id, and the length of the EDK.
const FIXED_BYTES: usize = 8 + 16 + 2;
/// Bytes of an EDK, at most: the service's own blobs have about a hundred.
pub const MAX_EDK_BYTES: usize = 4 * 1024;
/// Bytes of a canonical context, at most: 8,192 characters of up to four bytes, and the lengths between them.
pub const MAX_CONTEXT_BYTES: usize = 64 * 1024;

/// What stands before the stream of an envelope.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    key_id: CmkId,
    edk_bytes: usize,
    context: EncryptionContext,
    bytes: Box<[u8]>,
}

impl Header {
    /// Makes the header of an envelope under `key_id`; `None` for an EDK that is empty or longer than 4 KiB.
    pub fn new(key_id: CmkId, edk: &[u8], context: EncryptionContext) -> Option<Self> {
        let canonical = context.canonical();
        if edk.is_empty() || edk.len() > MAX_EDK_BYTES || canonical.len() > MAX_CONTEXT_BYTES {
            return None;
        }
        let edk_length = u16::try_from(edk.len()).ok()?.to_be_bytes();
        let context_length = u32::try_from(canonical.len()).ok()?.to_be_bytes();
        let bytes =
            [&MAGIC[..], key_id.as_bytes(), &edk_length, edk, &context_length, canonical].concat().into();
        Some(Self { key_id, edk_bytes: edk.len(), context, bytes })
    }

    /// Reads a header, and nothing behind it.
    ///
    /// # Errors
    /// `NotAnEnvelope` for bytes that are none, also where they end early; `Read` where the input fails.
    pub fn read(input: &mut impl Read) -> Result<Self, EnvelopeError> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES);
        take(input, FIXED_BYTES, &mut bytes)?;
        if bytes[..MAGIC.len()] != MAGIC {
            return Err(EnvelopeError::NotAnEnvelope);
        }
        let key_id = CmkId::from_bytes(*bytes[8..].first_chunk().expect("16 bytes follow the magic"));
        let edk_bytes = u16::from_be_bytes(*bytes.last_chunk().expect("the fixed part ends with a length"));
        let edk_bytes = usize::from(edk_bytes);
        if edk_bytes == 0 || edk_bytes > MAX_EDK_BYTES {
            return Err(EnvelopeError::NotAnEnvelope);
        }
        take(input, edk_bytes + 4, &mut bytes)?;
        let context_bytes = u32::from_be_bytes(*bytes.last_chunk().expect("a length was just read")) as usize;
        if context_bytes > MAX_CONTEXT_BYTES {
            return Err(EnvelopeError::NotAnEnvelope);
        }
        let start = bytes.len();
        take(input, context_bytes, &mut bytes)?;
        let context = context(&bytes[start..]).ok_or(EnvelopeError::NotAnEnvelope)?;
        Ok(Self { key_id, edk_bytes, context, bytes: bytes.into() })
    }

    /// Returns the key that the data key is encrypted under.
    pub fn key_id(&self) -> CmkId {
        self.key_id
    }

    /// Returns the data key, encrypted by the service.
    pub fn edk(&self) -> &[u8] {
        &self.bytes[FIXED_BYTES..FIXED_BYTES + self.edk_bytes]
    }

    /// Returns the context that the data key was made with.
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// Returns the header as it stands in the envelope, which is the associated data of the stream.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

// An EDK is no secret, but there is nothing to see in it; a context may name persons.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({}, {} bytes)", self.key_id, self.bytes.len())
    }
}

/// Appends so many bytes of the input. A length takes memory as far as there are bytes.
fn take(input: &mut impl Read, length: usize, bytes: &mut Vec<u8>) -> Result<(), EnvelopeError> {
    match input.take(length as u64).read_to_end(bytes) {
        Ok(read) if read == length => Ok(()),
        Ok(_) => Err(EnvelopeError::NotAnEnvelope),
        Err(error) => Err(EnvelopeError::Read(error)),
    }
}

/// Reads a context that must be in its one canonical form.
fn context(canonical: &[u8]) -> Option<EncryptionContext> {
    let (count, mut rest) = canonical.split_first_chunk::<4>()?;
    let mut part = || {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (text, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = tail;
        std::str::from_utf8(text).ok()
    };
    // A count is believed as far as there are pairs.
    let mut pairs = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        pairs.push((part()?, part()?));
    }
    // Made anew it is the same only where it was sorted, without doubles, and without bytes behind it.
    EncryptionContext::from_pairs(pairs).ok().filter(|context| context.canonical() == canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(pairs: &[(&str, &str)]) -> Header {
        let context = EncryptionContext::from_pairs(pairs.iter().copied()).unwrap();
        Header::new(CmkId::from_bytes([7; 16]), b"an edk", context).unwrap()
    }

    #[test]
    fn a_header_is_laid_out_as_the_document_says() {
        let header = header(&[("b", "2"), ("a", "1")]);
        let expected = [
            &b"KMENV\0\x01\x01"[..],
            &[7; 16],
            b"\0\x06an edk",
            b"\0\0\0\x18\0\0\0\x02\0\0\0\x01a\0\0\0\x011\0\0\0\x01b\0\0\0\x012",
        ];
        assert_eq!(header.as_bytes(), expected.concat());
        assert_eq!(format!("{header:?}"), "Header(07070707-0707-0707-0707-070707070707, 60 bytes)");
    }

    #[test]
    fn a_header_reads_back_and_leaves_what_follows() {
        for header in [header(&[]), header(&[("", "")]), header(&[("tenant", "a"), ("row", "7")])] {
            let bytes = [header.as_bytes(), b"stream"].concat();
            let mut rest = &bytes[..];
            let read = Header::read(&mut rest).unwrap();
            assert_eq!((&read, read.edk(), rest), (&header, &b"an edk"[..], &b"stream"[..]));
            assert_eq!(read.context(), header.context());
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let header = header(&[("a", "1")]);
        for length in 0..header.as_bytes().len() {
            let cut = Header::read(&mut &header.as_bytes()[..length]);
            assert!(matches!(cut, Err(EnvelopeError::NotAnEnvelope)), "{length}");
        }
    }

    #[test]
    fn lengths_out_of_bounds_and_contexts_in_another_form_are_refused() {
        let context = EncryptionContext::default;
        assert!(Header::new(CmkId::from_bytes([7; 16]), &[], context()).is_none());
        assert!(Header::new(CmkId::from_bytes([7; 16]), &[0; MAX_EDK_BYTES + 1], context()).is_none());
        let good = header(&[("a", "1"), ("b", "2")]);
        let refused = |at: usize, with: &[u8]| {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at..at + with.len()].copy_from_slice(with);
            // As many bytes follow as any length could ask for.
            bytes.resize(bytes.len() + 1024 * 1024, 0);
            assert!(Header::read(&mut &bytes[..]).is_err(), "{at} {with:?}");
        };
        refused(24, &[0, 0]);
        refused(24, &[0x10, 0x01]);
        refused(32, &[0, 1, 0, 1]);
        refused(32, &[0xff; 4]);
        // Count, order, a double, a part that is longer than the whole.
        refused(36, &[0, 0, 0, 3]);
        refused(36, &[0, 0, 0, 1]);
        refused(44, b"c");
        refused(44, b"b");
        refused(40, &[0, 0, 0, 99]);
        refused(44, &[0xff]);
    }

    #[test]
    fn the_longest_context_of_the_service_fits() {
        let value = "\u{1F600}".repeat(keymill_core::limit::CONTEXT_CHARACTERS - 8);
        let header = header(&[("k", &value)]);
        assert_eq!(Header::read(&mut header.as_bytes()).unwrap(), header);
        let many: Vec<String> = (0..700).map(|n| format!("{n:03}")).collect();
        let pairs: Vec<_> = many.iter().map(|key| (key.as_str(), "x")).collect();
        let context = EncryptionContext::from_pairs(pairs).unwrap();
        assert!(Header::new(CmkId::from_bytes([7; 16]), b"e", context).is_some());
    }
}
