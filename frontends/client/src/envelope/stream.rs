//! Tink's streaming AEAD, AES256-GCM-HKDF: segments under a key derived for this stream, numbered, the last one marked. So none can be
//! cut off, added, or moved. Source: developers.google.com/tink/wire-format, "Streaming AEAD", and Tink's own implementations.
//!
//! ```text
//! stream   40 ‖ salt (32) ‖ prefix (7) ‖ segment 0 ‖ segment 1 …
//! key      HKDF-SHA256(data key, salt, info = associated data), 32 bytes
//! segment  AES-256-GCM, no associated data, nonce = prefix ‖ u32 number ‖ 1 for the last, else 0; ciphertext ‖ tag (16)
//! ```
//!
//! Every segment but the last fills `segment_bytes`; the first is shorter by the 40 bytes before it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use keymill_core::Sensitive;
use zeroize::Zeroize;

use super::error::EnvelopeError;

/// Bytes of a segment with its tag, in an envelope.
pub(super) const SEGMENT_BYTES: usize = 1024 * 1024;
/// Bytes of a data key.
pub(crate) const DATA_KEY_BYTES: usize = 32;
/// Bytes of salt.
const SALT_BYTES: usize = 32;
/// Bytes that all nonces of a stream begin with.
const PREFIX_BYTES: usize = 7;
/// Bytes before the first segment, which the first of them tells.
pub(super) const START_BYTES: usize = 1 + SALT_BYTES + PREFIX_BYTES;
/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 16;

/// What stands before the segments: salt and prefix, drawn anew for each stream.
pub(super) struct Start([u8; START_BYTES]);

impl Start {
    /// Draws a start.
    ///
    /// # Errors
    /// `NoRandomness`.
    pub(super) fn random() -> Result<Self, EnvelopeError> {
        let mut bytes = [0; START_BYTES];
        rand::fill(&mut bytes[1..]).map_err(|_| EnvelopeError::NoRandomness)?;
        Ok(Self::from_random(bytes))
    }

    /// Makes a start of random bytes, all but the first.
    pub(super) fn from_random(mut bytes: [u8; START_BYTES]) -> Self {
        bytes[0] = START_BYTES as u8;
        Self(bytes)
    }

    /// Reads a start; `None` where it tells another length.
    pub(super) fn parse(bytes: &[u8; START_BYTES]) -> Option<Self> {
        (usize::from(bytes[0]) == START_BYTES).then_some(Self(*bytes))
    }

    /// Returns the bytes in the stream.
    pub(super) fn as_bytes(&self) -> &[u8; START_BYTES] {
        &self.0
    }
}

/// Returns the bytes that segment `number` of a stream fills, with its tag.
pub(super) fn room(number: u64, segment_bytes: usize) -> usize {
    if number == 0 { segment_bytes - START_BYTES } else { segment_bytes }
}

struct DerivedKeyLength;

impl KeyType for DerivedKeyLength {
    fn len(&self) -> usize {
        32
    }
}

/// Seals or opens the segments of one stream, one after the other.
pub(super) struct Segments {
    // Its memory is the library's, which wipes it.
    key: LessSafeKey,
    prefix: [u8; PREFIX_BYTES],
    /// `None` behind the last segment, and past the last number.
    next: Option<u32>,
}

impl Segments {
    /// Derives the key of a stream.
    ///
    /// # Panics
    /// Where the data key has no 32 bytes.
    pub(super) fn new(data_key: &Sensitive, aad: &[u8], start: &Start) -> Self {
        assert_eq!(data_key.len(), DATA_KEY_BYTES, "a data key was checked as it came");
        let (salt, prefix) = start.0[1..].split_at(SALT_BYTES);
        let secret = Salt::new(HKDF_SHA256, salt).extract(data_key.expose());
        let mut derived = Sensitive::zeroed(32);
        secret
            .expand(&[aad], DerivedKeyLength)
            .and_then(|key| key.fill(derived.expose_mut()))
            .expect("HKDF gives 32 bytes for any associated data");
        let key = UnboundKey::new(&AES_256_GCM, derived.expose()).expect("32 bytes are an AES-256 key");
        let prefix = prefix.try_into().expect("7 bytes follow the salt");
        Self { key: LessSafeKey::new(key), prefix, next: Some(0) }
    }

    /// Seals a segment in place: all but the last 16 bytes are plaintext, those become its tag.
    ///
    /// # Errors
    /// `TooLong` past 2^32 segments.
    pub(super) fn seal(&mut self, segment: &mut [u8], is_last: bool) -> Result<(), EnvelopeError> {
        let nonce = self.nonce(is_last).ok_or(EnvelopeError::TooLong)?;
        let (text, tag) = segment.split_at_mut(segment.len() - TAG_BYTES);
        let made = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
        tag.copy_from_slice(made.expect("a segment is far below what one nonce takes").as_ref());
        Ok(())
    }

    /// Opens a segment in place, and returns how long its plaintext is, which stands at its beginning.
    ///
    /// # Errors
    /// `Unopenable` for anything but the next segment of this stream.
    pub(super) fn open(&mut self, segment: &mut [u8], is_last: bool) -> Result<usize, EnvelopeError> {
        let nonce = self.nonce(is_last).ok_or(EnvelopeError::Unopenable)?;
        let opened = self.key.open_in_place(nonce, Aad::empty(), segment);
        opened.map(|plaintext| plaintext.len()).map_err(|_| EnvelopeError::Unopenable)
    }

    /// Seals a segment into `segment`, which is 16 bytes longer.
    ///
    /// # Errors
    /// `TooLong` past 2^32 segments.
    fn seal_to(&mut self, text: &[u8], segment: &mut [u8], is_last: bool) -> Result<(), EnvelopeError> {
        let nonce = self.nonce(is_last).ok_or(EnvelopeError::TooLong)?;
        let (sealed, tag) = segment.split_at_mut(text.len());
        let made = self.key.seal_out_of_place_scatter(nonce, Aad::empty(), text, sealed, &[], tag);
        made.expect("16 bytes follow, and a segment is far below what one nonce takes");
        Ok(())
    }

    /// Opens a segment into `text`, which is 16 bytes shorter.
    ///
    /// # Errors
    /// `Unopenable` for anything but the next segment of this stream.
    fn open_to(&mut self, segment: &[u8], text: &mut [u8], is_last: bool) -> Result<(), EnvelopeError> {
        let nonce = self.nonce(is_last).ok_or(EnvelopeError::Unopenable)?;
        let (sealed, tag) = segment.split_at(text.len());
        let opened = self.key.open_separate_gather(nonce, Aad::empty(), sealed, tag, text);
        opened.map_err(|_| EnvelopeError::Unopenable)
    }

    fn nonce(&mut self, is_last: bool) -> Option<Nonce> {
        let number = self.next?;
        self.next = if is_last { None } else { number.checked_add(1) };
        let mut nonce = [0; 12];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..11].copy_from_slice(&number.to_be_bytes());
        nonce[11] = is_last.into();
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

/// Returns the bytes of the stream of a payload.
pub(super) fn sealed_bytes(payload_bytes: usize, segment_bytes: usize) -> usize {
    let segments = (START_BYTES + payload_bytes).div_ceil(segment_bytes - TAG_BYTES);
    START_BYTES + payload_bytes + segments * TAG_BYTES
}

/// Returns the bytes of the payload of a stream; `None` where no stream has this length.
pub(super) fn opened_bytes(stream_bytes: usize, segment_bytes: usize) -> Option<usize> {
    let segments = stream_bytes.div_ceil(segment_bytes);
    stream_bytes.checked_sub(START_BYTES + segments * TAG_BYTES)
}

/// Seals `payload` as one stream, from where it lies into `out`, which has the bytes for it.
///
/// # Errors
/// `TooLong` past 2^32 segments.
pub(super) fn seal_slice(
    data_key: &Sensitive,
    aad: &[u8],
    start: &Start,
    payload: &[u8],
    segment_bytes: usize,
    out: &mut [u8],
) -> Result<(), EnvelopeError> {
    let mut segments = Segments::new(data_key, aad, start);
    let (begin, mut out) = out.split_at_mut(START_BYTES);
    begin.copy_from_slice(start.as_bytes());
    let mut rest = payload;
    for number in 0.. {
        let (text, tail) = rest.split_at(rest.len().min(room(number, segment_bytes) - TAG_BYTES));
        let (segment, further) = out.split_at_mut(text.len() + TAG_BYTES);
        segments.seal_to(text, segment, tail.is_empty())?;
        (rest, out) = (tail, further);
        if rest.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Opens a whole stream, from where it lies into `out`, which has the bytes for it, and is wiped where it does not open.
///
/// # Errors
/// `Unopenable` for anything that was not sealed so.
pub(super) fn open_slice(
    data_key: &Sensitive,
    aad: &[u8],
    stream: &[u8],
    segment_bytes: usize,
    out: &mut [u8],
) -> Result<(), EnvelopeError> {
    let opened = open_segments(data_key, aad, stream, segment_bytes, out);
    if opened.is_err() {
        out.zeroize();
    }
    opened
}

fn open_segments(
    data_key: &Sensitive,
    aad: &[u8],
    stream: &[u8],
    segment_bytes: usize,
    mut out: &mut [u8],
) -> Result<(), EnvelopeError> {
    let (start, mut rest) = stream.split_first_chunk().ok_or(EnvelopeError::Unopenable)?;
    let start = Start::parse(start).ok_or(EnvelopeError::Unopenable)?;
    let mut segments = Segments::new(data_key, aad, &start);
    for number in 0.. {
        let (segment, tail) = rest.split_at(rest.len().min(room(number, segment_bytes)));
        let length = segment.len().checked_sub(TAG_BYTES).ok_or(EnvelopeError::Unopenable)?;
        let (text, further) = out.split_at_mut_checked(length).ok_or(EnvelopeError::Unopenable)?;
        segments.open_to(segment, text, tail.is_empty())?;
        (rest, out) = (tail, further);
        if rest.is_empty() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short, so that every cut of a few segments can be tried.
    const SHORT: usize = 64;

    /// The bytes 0 to 199 in segments of 80, sealed by PyPI tink 1.16.1 under 32 bytes of 3 and the associated data `header`.
    const BY_TINK: &str = "\
        2882bb55237332f8d087f3c5567c6632a0babd121026acd8804448ba3adc7f47737c5e63584921bf1761086853\
        8f18771a18bbec892e67ecde5da0004911b3cf6cb86557e52f9955b3bd044ab628d4ad201bc85a53c70e4a133d\
        481a15925a679fe77bd8715eb25998009c4444aa96d4fc6d7519d5a529259235f691063988351654925992512b\
        d8f4ee6d5c3b4ad4994752bca68b563b9296590b8d201ea77d69a65617bacddf87f29ad6cbfa2aab1887c99e2b\
        414ce70136bb35a277fdf10bae6a4dfc00fd00bba46053185c0e5a81dca7aba3093bc23177342a82ed9b9c220f\
        ce1624b0636261e105dac76692f2adcbc6bc6fca95958500ee94dd5d2834c2ff05b97b8ac635422d25ae29f4ab\
        529eb87124b83a382c667f3c649c55481df13a39f5da3028d6a5fb12d7b718fbf498";

    fn key() -> Sensitive {
        Sensitive::new(vec![3; DATA_KEY_BYTES])
    }

    fn sealed(payload: &[u8], segment_bytes: usize) -> Vec<u8> {
        let mut out = vec![0; sealed_bytes(payload.len(), segment_bytes)];
        seal_slice(&key(), b"aad", &Start::random().unwrap(), payload, segment_bytes, &mut out).unwrap();
        out
    }

    fn open(key: &Sensitive, aad: &[u8], stream: &[u8], segment_bytes: usize) -> Option<Vec<u8>> {
        let mut out = vec![0xff; opened_bytes(stream.len(), segment_bytes)?];
        let opened = open_slice(key, aad, stream, segment_bytes, &mut out);
        assert!(opened.is_ok() || out.iter().all(|byte| *byte == 0), "what was opened of it is wiped");
        opened.ok().map(|()| out)
    }

    fn opens(stream: &[u8]) -> bool {
        open(&key(), b"aad", stream, SHORT).is_some()
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8).collect()
    }

    #[test]
    fn payloads_of_every_length_come_back_and_segments_are_full() {
        for length in 0..300 {
            let stream = sealed(&payload(length), SHORT);
            let segments = match length.checked_sub(SHORT - START_BYTES - TAG_BYTES) {
                None => 1,
                Some(rest) => 1 + rest.div_ceil(SHORT - TAG_BYTES),
            };
            assert_eq!(stream.len(), START_BYTES + length + segments * TAG_BYTES, "{length}");
            assert_eq!(open(&key(), b"aad", &stream, SHORT).unwrap(), payload(length));
        }
    }

    #[test]
    fn what_tink_sealed_opens_and_is_sealed_to_the_same_bytes() {
        let stream: Vec<u8> = (0..BY_TINK.len() / 2)
            .map(|at| u8::from_str_radix(&BY_TINK[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let payload: Vec<u8> = (0..200).collect();
        assert_eq!(open(&key(), b"header", &stream, 80).unwrap(), payload);
        let start = Start::parse(stream.first_chunk().unwrap()).unwrap();
        let mut again = vec![0; sealed_bytes(200, 80)];
        seal_slice(&key(), b"header", &start, &payload, 80, &mut again).unwrap();
        assert_eq!(again, stream);
    }

    #[test]
    fn nothing_shorter_longer_or_altered_opens() {
        for length in [0, 1, 8, 9, 56, 57, 150] {
            let stream = sealed(&payload(length), SHORT);
            for cut in 0..stream.len() {
                assert!(!opens(&stream[..cut]), "{length} cut to {cut}");
                let mut altered = stream.clone();
                altered[cut] ^= 1;
                assert!(!opens(&altered), "{length} altered at {cut}");
                assert!(!opens(&[&stream[..cut], &[0], &stream[cut..]].concat()));
            }
            assert!(!opens(&[&stream[..], &[0]].concat()));
            assert!(!opens(&[&stream[..], &stream[START_BYTES..]].concat()));
        }
    }

    #[test]
    fn segments_stay_in_their_place() {
        let stream = sealed(&payload(8 + 3 * 48), SHORT);
        let parts: Vec<&[u8]> = stream.chunks(SHORT).collect();
        assert_eq!(parts.len(), 4);
        assert!(opens(&parts.concat()));
        let arranged = |order: &[usize]| order.iter().flat_map(|at| parts[*at]).copied().collect::<Vec<u8>>();
        for order in [&[0, 2, 1, 3][..], &[0, 1, 3, 2], &[0, 1, 1, 2, 3], &[0, 1, 3], &[0, 1, 2], &[0, 2, 3]]
        {
            assert!(!opens(&arranged(order)), "{order:?}");
        }
        let other = sealed(&payload(8 + 3 * 48), SHORT);
        let mixed = [parts[0], &other[SHORT..2 * SHORT], parts[2], parts[3]].concat();
        assert!(!opens(&mixed), "a segment of another stream under the same key");
    }

    #[test]
    fn another_key_or_associated_data_does_not_open() {
        let stream = sealed(b"text", SHORT);
        assert!(open(&Sensitive::new(vec![4; 32]), b"aad", &stream, SHORT).is_none());
        assert!(open(&key(), b"aae", &stream, SHORT).is_none());
        assert!(open(&key(), b"aad", &stream, SEGMENT_BYTES).is_some(), "one segment is alike in any size");
    }

    #[test]
    fn numbers_end_at_their_limit_and_behind_the_last_segment() {
        let mut segments = Segments::new(&key(), b"aad", &Start::random().unwrap());
        segments.next = Some(u32::MAX);
        segments.seal(&mut [0; 17], false).unwrap();
        assert!(matches!(segments.seal(&mut [0; 17], false), Err(EnvelopeError::TooLong)));
        let mut segments = Segments::new(&key(), b"aad", &Start::random().unwrap());
        segments.seal(&mut [0; 17], true).unwrap();
        assert!(segments.seal(&mut [0; 17], true).is_err());
    }
}
