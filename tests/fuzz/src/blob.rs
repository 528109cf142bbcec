//! Ciphertext blobs: what parses is made of its parts and nothing else, and what was not sealed does not open.

use std::sync::LazyLock;

use keymill_core::Sensitive;
use keymill_core::blob::{Algorithm, Blob, HEADER_BYTES, Header, TAG_BYTES};
use keymill_core::id::CmkId;
use keymill_crypto::xaes::Xaes;

use crate::memory::{room, within};
use crate::target::Seed;

static KEY: LazyLock<Xaes> = LazyLock::new(|| Xaes::new(&Sensitive::zeroed(32)).expect("it has 32 bytes"));

/// The one message that opens.
const PLAINTEXT: &[u8] = b"plain";

/// Takes a blob apart, puts it together, and tries to open it.
pub(crate) fn check(bytes: &[u8]) {
    // Nothing of a blob is copied.
    let Some(blob) = within(0, || Blob::parse(bytes)) else { return };
    assert_eq!(blob.header.to_bytes(), *blob.header_bytes);
    assert_eq!([&blob.header_bytes[..], blob.nonce, blob.ciphertext, blob.tag].concat(), bytes);
    assert_eq!(blob.nonce.len(), blob.header.algorithm.nonce_bytes());
    assert_eq!(bytes.len(), blob.header.algorithm.overhead() + blob.ciphertext.len());
    assert_ne!(blob.header.version, 0);
    if let Ok(nonce) = blob.nonce.try_into() {
        let sealed = &bytes[HEADER_BYTES + blob.nonce.len()..];
        let opened = within(room(bytes.len()), || KEY.open(nonce, blob.header_bytes, sealed));
        assert_eq!(opened.is_ok(), bytes == sample(), "only what was sealed here opens");
    }
}

fn sample() -> Vec<u8> {
    let header =
        Header { algorithm: Algorithm::Xaes256Gcm, text: false, cmk: CmkId::from_bytes([7; 16]), version: 1 };
    let header = header.to_bytes();
    let nonce = [9; 24];
    [&header[..], &nonce, &KEY.seal(&nonce, &header, PLAINTEXT)].concat()
}

/// Returns the blob that opens, and short ones of each other algorithm.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds = vec![("sealed", sample())];
    let others =
        [("aes-256", Algorithm::Aes256Gcm), ("sm4", Algorithm::Sm4Gcm), ("aes-128", Algorithm::Aes128Gcm)];
    for (name, algorithm) in others {
        let header = Header { algorithm, text: true, cmk: CmkId::from_bytes([7; 16]), version: u32::MAX };
        seeds.push((name, [&header.to_bytes()[..], &[0; 12 + TAG_BYTES + 1]].concat()));
    }
    seeds
}
