//! Envelopes: a header that parses is made of its parts and nothing else, a stream opens to what was sealed, and not once it is cut,
//! altered, or put in another order. Segments are short here, so that an input of a few hundred bytes has several. The client keeps
//! these files to itself; they are taken in by their paths.

#[path = "../../../frontends/client/src/envelope/error.rs"]
#[allow(dead_code, reason = "the rest of the client uses it")]
mod error;
#[path = "../../../frontends/client/src/envelope/header.rs"]
mod header;
#[path = "../../../frontends/client/src/envelope/stream.rs"]
#[allow(dead_code, reason = "the rest of the client uses it")]
mod stream;

use keymill_core::id::CmkId;
use keymill_core::{EncryptionContext, Sensitive};

use crate::memory::{room, within};
use crate::target::Seed;
use header::Header;
use stream::{START_BYTES, Start, open_slice, opened_bytes, seal_slice, sealed_bytes};

/// Bytes of a segment here.
const SEGMENT: usize = 80;

/// Reads the input as an envelope, and seals it as a payload.
pub(crate) fn check(bytes: &[u8]) {
    read(bytes);
    seal(bytes);
}

fn read(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(header) = within(room(bytes.len()), || Header::read(&mut rest)) else { return };
    assert_eq!([header.as_bytes(), rest].concat(), bytes);
    let made = Header::new(header.key_id(), header.edk(), header.context().clone());
    assert_eq!(made.as_ref(), Some(&header), "a header has one spelling");
    let opened = within(room(bytes.len()), || open(header.as_bytes(), rest));
    if let Some(payload) = opened {
        let start = Start::parse(rest.first_chunk().expect("a stream has a start")).expect("it was opened");
        assert_eq!(stream(header.as_bytes(), &start, &payload), rest, "only what is sealed here opens");
    }
}

/// The first three bytes say what is done to the stream that comes of the others.
fn seal(bytes: &[u8]) {
    let Some(([what, high, low], payload)) = bytes.split_first_chunk() else { return };
    let aad = b"header";
    let whole = stream(aad, &start(), payload);
    assert_eq!(open(aad, &whole).as_deref(), Some(payload));
    let at = usize::from(u16::from_be_bytes([*high, *low])) % whole.len();
    let changed = match what % 5 {
        0 => whole[..at].to_vec(),
        1 => {
            let mut altered = whole.clone();
            altered[at] ^= what | 1;
            altered
        }
        2 => [&whole[..at], &[*what], &whole[at..]].concat(),
        3 => [&whole[..], &payload[..payload.len().min(at + 1)], &[*what]].concat(),
        _ => {
            let mut segments: Vec<&[u8]> = whole.chunks(SEGMENT).collect();
            let count = segments.len();
            segments.rotate_left(at % count);
            segments.concat()
        }
    };
    let opened = within(room(changed.len()), || open(aad, &changed));
    assert_eq!(opened.is_some(), changed == whole, "what was changed does not open");
}

fn key() -> Sensitive {
    Sensitive::new(vec![3; 32])
}

fn start() -> Start {
    Start::from_random([9; START_BYTES])
}

fn stream(aad: &[u8], start: &Start, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; sealed_bytes(payload.len(), SEGMENT)];
    seal_slice(&key(), aad, start, payload, SEGMENT, &mut out).expect("it is short");
    out
}

fn open(aad: &[u8], stream: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; opened_bytes(stream.len(), SEGMENT)?];
    open_slice(&key(), aad, stream, SEGMENT, &mut out).ok().map(|()| out)
}

/// Returns envelopes that open, and one whose context has another order; the first bytes of each make a payload, too.
pub(crate) fn seeds() -> Vec<Seed> {
    let envelope = |pairs: &[(&str, &str)], payload: &[u8]| {
        let context = EncryptionContext::from_pairs(pairs.iter().copied()).expect("the pairs are fine");
        let header = Header::new(CmkId::from_bytes([7; 16]), b"an edk", context).expect("its EDK is short");
        [header.as_bytes(), &stream(header.as_bytes(), &start(), payload)].concat()
    };
    let mut unsorted = envelope(&[("a", "1"), ("b", "2")], b"text");
    let [a, b] = [b"\x01a", b"\x01b"].map(|key| unsorted.windows(2).position(|bytes| bytes == key));
    unsorted.swap(a.expect("it is a key") + 1, b.expect("it is a key") + 1);
    let moves =
        |what: u8, at: u8, length: u8| [&[what, 0, at][..], &vec![length; usize::from(length)]].concat();
    vec![
        ("empty", envelope(&[], b"")),
        ("one", envelope(&[("tenant", "a"), ("row", "7")], b"text")),
        ("segments", envelope(&[("", "")], &[5; 200])),
        ("unsorted", unsorted),
        ("cut", moves(0, 80, 150)),
        ("altered", moves(1, 45, 150)),
        ("inserted", moves(2, 120, 150)),
        ("longer", moves(3, 15, 150)),
        ("rotated", moves(4, 1, 200)),
    ]
}
