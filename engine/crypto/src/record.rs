//! Records of the store, sealed with their path, kind and sequence number, so that none can be altered or stand in
//! another's place. XAES-256-GCM under the storage key, a fresh random nonce each time:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version, `0x01` |
//! | 1 | 1 | kind |
//! | 2 | 8 | sequence number, big-endian |
//! | 10 | 24 | nonce |
//! | 34 | n | ciphertext, as long as the payload |
//! | .. | 16 | tag |
//!
//! Associated data: `keymill-record-1` ‖ 0 ‖ kind ‖ sequence number ‖ `u16` path length ‖ path.

use std::fmt;

use keymill_core::blob::TAG_BYTES;
use keymill_core::{Error, ErrorKind, Sensitive};

use crate::random::{self, RandomFailed};
use crate::xaes::{WrongLength, XAES_NONCE_BYTES, Xaes};

const VERSION: u8 = 1;
const LABEL: &[u8] = b"keymill-record-1\0";
const HEAD_BYTES: usize = 10;
const NONCE_END: usize = HEAD_BYTES + XAES_NONCE_BYTES;

/// Seals and opens records under the storage key.
pub struct RecordSealer(Xaes);

/// A record as it is stored.
#[derive(Clone, Debug)]
pub struct SealedRecord {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its tag, by which the audit remembers it.
    pub tag: [u8; TAG_BYTES],
}

/// A record that opened.
pub struct OpenRecord {
    /// Its sequence number.
    pub sequence: u64,
    /// What it holds.
    pub payload: Sensitive,
    /// Its tag, by which the audit remembers it.
    pub tag: [u8; TAG_BYTES],
}

impl RecordSealer {
    /// Prepares the storage key.
    ///
    /// # Errors
    /// [`WrongLength`] for other than 32 bytes.
    pub fn new(storage: &Sensitive) -> Result<Self, WrongLength> {
        Xaes::new(storage).map(Self)
    }

    /// Seals `payload` as the record at `path`.
    ///
    /// # Errors
    /// `Random` where a source of randomness fails, `PathTooLong` past 65,535 bytes.
    pub fn seal(
        &self,
        path: &str,
        kind: u8,
        sequence: u64,
        payload: &[u8],
    ) -> Result<SealedRecord, RecordError> {
        let aad = associated_data(path, kind, sequence)?;
        let nonce = random::array::<XAES_NONCE_BYTES>().map_err(RecordError::Random)?;
        let sealed = self.0.seal(&nonce, &aad, payload);
        let mut bytes = Vec::with_capacity(NONCE_END + sealed.len());
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        let tag = *sealed.last_chunk().expect("a sealed message ends in its tag");
        Ok(SealedRecord { bytes, tag })
    }

    /// Opens the record that stands at `path`.
    ///
    /// # Errors
    /// [`RecordError`]; the record is to be quarantined then, and the rest served.
    pub fn open(&self, path: &str, expected_kind: u8, bytes: &[u8]) -> Result<OpenRecord, RecordError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(RecordError::Cut(bytes.len()))?;
        if head[0] != VERSION {
            return Err(RecordError::Version(head[0]));
        }
        if head[1] != expected_kind {
            return Err(RecordError::Kind { expected: expected_kind, found: head[1] });
        }
        let (nonce, sealed) =
            rest.split_first_chunk::<XAES_NONCE_BYTES>().ok_or(RecordError::Cut(bytes.len()))?;
        let tag = *sealed.last_chunk().ok_or(RecordError::Cut(bytes.len()))?;
        let sequence = sequence_in(head);
        let aad = associated_data(path, expected_kind, sequence)?;
        let payload = self.0.open(nonce, &aad, sealed).map_err(|_| RecordError::Seal)?;
        Ok(OpenRecord { sequence, payload, tag })
    }
}

/// Returns the tag of a stored record, unverified; `None` for what is too short to be one.
pub fn tag_of(bytes: &[u8]) -> Option<[u8; TAG_BYTES]> {
    bytes.get(NONCE_END..)?.last_chunk().copied()
}

/// Returns the sequence number of a stored record, unverified; `None` for what is too short to be one.
pub fn sequence_of(bytes: &[u8]) -> Option<u64> {
    tag_of(bytes)?;
    bytes.first_chunk().map(sequence_in)
}

fn sequence_in(head: &[u8; HEAD_BYTES]) -> u64 {
    u64::from_be_bytes(*head.last_chunk().expect("the head ends in 8 bytes of sequence number"))
}

fn associated_data(path: &str, kind: u8, sequence: u64) -> Result<Vec<u8>, RecordError> {
    let len = u16::try_from(path.len()).map_err(|_| RecordError::PathTooLong(path.len()))?;
    let mut aad = Vec::with_capacity(LABEL.len() + 11 + path.len());
    aad.extend_from_slice(LABEL);
    aad.push(kind);
    aad.extend_from_slice(&sequence.to_be_bytes());
    aad.extend_from_slice(&len.to_be_bytes());
    aad.extend_from_slice(path.as_bytes());
    Ok(aad)
}

/// Why a record could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// It is shorter than any record; so many bytes.
    Cut(usize),
    /// It is of a version that this program does not know.
    Version(u8),
    /// It is a record of another kind.
    Kind {
        /// The kind that stands at this path.
        expected: u8,
        /// The kind that it names.
        found: u8,
    },
    /// Its seal does not fit: altered, moved from another path, or sealed under another storage key.
    Seal,
    /// Its path has so many bytes.
    PathTooLong(usize),
    /// A source of randomness failed.
    Random(RandomFailed),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Cut(len) => write!(f, "a record of {len} bytes is cut short"),
            RecordError::Version(version) => write!(f, "record version {version} is not known"),
            RecordError::Kind { expected, found } => {
                write!(f, "a record of kind {found} stands where kind {expected} belongs")
            }
            RecordError::Seal => {
                f.write_str("the seal does not fit: altered, moved, or of another storage key")
            }
            RecordError::PathTooLong(len) => {
                write!(f, "path of {len} bytes exceeds the limit of {}", u16::MAX)
            }
            RecordError::Random(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Random(error) => error.into(),
            RecordError::PathTooLong(_) => Error::internal(error),
            RecordError::Cut(_) | RecordError::Version(_) | RecordError::Kind { .. } | RecordError::Seal => {
                Error::new(ErrorKind::Quarantined, "a stored record failed its check").caused_by(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> RecordSealer {
        RecordSealer::new(&Sensitive::copied(&[byte; 32])).unwrap()
    }

    fn refusal(sealer: &RecordSealer, path: &str, kind: u8, bytes: &[u8]) -> RecordError {
        sealer.open(path, kind, bytes).err().expect("it is refused")
    }

    #[test]
    fn a_record_opens_at_its_path_with_its_number_and_tag() {
        let sealer = sealer(1);
        for payload in [&b""[..], b"payload", &[5; 100_000]] {
            let sealed = sealer.seal("cmk/1", 3, 0x0102_0304_0506_0708, payload).unwrap();
            assert_eq!(sealed.bytes.len(), 50 + payload.len());
            assert_eq!(sealed.bytes[..10], [1, 3, 1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(tag_of(&sealed.bytes), Some(sealed.tag));
            assert_eq!(sequence_of(&sealed.bytes), Some(0x0102_0304_0506_0708));
            let open = sealer.open("cmk/1", 3, &sealed.bytes).unwrap();
            assert_eq!(
                (open.sequence, open.payload.expose(), open.tag),
                (0x0102_0304_0506_0708, payload, sealed.tag)
            );
        }
    }

    #[test]
    fn a_record_in_anothers_place_is_refused() {
        let (ours, theirs) = (sealer(1), sealer(2));
        let sealed = ours.seal("cmk/1", 3, 7, b"payload").unwrap();
        assert_eq!(refusal(&ours, "cmk/2", 3, &sealed.bytes), RecordError::Seal);
        assert_eq!(refusal(&ours, "cmk/1", 4, &sealed.bytes), RecordError::Kind { expected: 4, found: 3 });
        assert_eq!(refusal(&theirs, "cmk/1", 3, &sealed.bytes), RecordError::Seal);
        let other = ours.seal("cmk/1", 3, 8, b"payload").unwrap();
        let body_of_another = [&other.bytes[..10], &sealed.bytes[10..]].concat();
        assert_eq!(refusal(&ours, "cmk/1", 3, &body_of_another), RecordError::Seal);
    }

    #[test]
    fn each_flipped_bit_and_every_shorter_length_is_refused() {
        let sealer = sealer(1);
        let sealed = sealer.seal("cmk/1", 3, 7, b"payload").unwrap().bytes;
        for bit in 0..8 * sealed.len() {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => RecordError::Version(bad[0]),
                1 => RecordError::Kind { expected: 3, found: bad[1] },
                _ => RecordError::Seal,
            };
            assert_eq!(refusal(&sealer, "cmk/1", 3, &bad), expected, "bit {bit}");
        }
        for len in 0..sealed.len() {
            let expected = if len < 50 { RecordError::Cut(len) } else { RecordError::Seal };
            assert_eq!(refusal(&sealer, "cmk/1", 3, &sealed[..len]), expected);
        }
        assert_eq!((tag_of(&sealed[..49]), sequence_of(&sealed[..49])), (None, None));
    }

    #[test]
    fn nonces_are_fresh_and_long_paths_refused() {
        let sealer = sealer(1);
        let nonces: std::collections::HashSet<_> = (0..1_000)
            .map(|_| sealer.seal("a", 1, 1, b"same").unwrap().bytes[HEAD_BYTES..NONCE_END].to_vec())
            .collect();
        assert_eq!(nonces.len(), 1_000);
        assert!(sealer.seal(&"a".repeat(65_535), 1, 1, b"").is_ok());
        assert_eq!(
            sealer.seal(&"a".repeat(65_536), 1, 1, b"").unwrap_err(),
            RecordError::PathTooLong(65_536)
        );
    }

    /// Sealed by an implementation in Python, from the table above and the C2SP text.
    #[test]
    fn a_record_sealed_by_a_stranger_opens() {
        let head = [&[1, 3, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0x24; 24]].concat();
        let sealed = SEALED
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        let bytes: Vec<u8> = head.into_iter().chain(sealed).collect();
        let open = sealer(1).open("cmk/1", 3, &bytes).unwrap();
        assert_eq!((open.sequence, open.payload.expose()), (7, &b"payload"[..]));
    }

    const SEALED: &[u8] = b"44e13d601e71cd3f0b616fa9ae3eba50f61d63840b21ea";
}
