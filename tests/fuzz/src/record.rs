//! Sealed records of the store, and below the payloads in them: a record opens at its place with its number, and nothing else
//! opens.

pub(crate) mod payload;

use std::sync::LazyLock;

use keymill_core::Sensitive;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};
use keymill_crypto::xaes::Xaes;

use crate::memory::{room, within};
use crate::target::Seed;

const KEY: [u8; 32] = [1; 32];
const PATH: &str = "cmk/1";
const KIND: u8 = 3;

static SEALER: LazyLock<RecordSealer> =
    LazyLock::new(|| RecordSealer::new(&Sensitive::copied(&KEY)).expect("it has 32 bytes"));

/// Reads a record as it stands; then seals the input as a payload and changes one byte of the record.
pub(crate) fn check(bytes: &[u8]) {
    let opened = within(room(bytes.len()), || SEALER.open(PATH, KIND, bytes));
    assert_eq!(opened.is_ok(), bytes == sample(), "only what was sealed here opens");
    assert_eq!(tag_of(bytes).is_some(), bytes.len() >= 50);
    assert_eq!(sequence_of(bytes).is_some(), bytes.len() >= 50);
    if let Ok(open) = opened {
        assert_eq!((sequence_of(bytes), tag_of(bytes)), (Some(open.sequence), Some(open.tag)));
    }

    let Some(([at, low, flip], payload)) = bytes.split_first_chunk() else { return };
    let sequence = u64::from(*at) << 56 | u64::from(*flip);
    let sealed = SEALER.seal(PATH, KIND, sequence, payload).expect("the path is short");
    let open = SEALER.open(PATH, KIND, &sealed.bytes).expect("it was sealed here");
    assert_eq!((open.sequence, open.payload.expose(), open.tag), (sequence, payload, sealed.tag));
    if *flip != 0 {
        let mut changed = sealed.bytes;
        let at = (usize::from(*at) << 8 | usize::from(*low)) % changed.len();
        changed[at] ^= flip;
        assert!(SEALER.open(PATH, KIND, &changed).is_err());
    }
}

/// The record of number 7 at the place, under a nonce that does not change: written from the table of its form.
fn sample() -> Vec<u8> {
    let (head, nonce) = ([1, KIND, 0, 0, 0, 0, 0, 0, 0, 7], [0x24; 24]);
    let aad = [b"keymill-record-1\0", &head[1..], &[0, 5], PATH.as_bytes()].concat();
    let xaes = Xaes::new(&Sensitive::copied(&KEY)).expect("it has 32 bytes");
    [&head[..], &nonce, &xaes.seal(&nonce, &aad, b"payload")].concat()
}

/// Returns the record that opens.
pub(crate) fn seeds() -> Vec<Seed> {
    vec![("sealed", sample()), ("short", sample()[..50].to_vec())]
}
