//! The root file: what is read is written to the same bytes. The check digits keep a fuzzer out of what follows them, so each
//! input is also read with the digits that fit it.

use keymill_core::Sensitive;
use keymill_crypto::digest;
use keymill_crypto::root::RootKeys;

use crate::memory::{room, within};
use crate::target::Seed;

/// Reads the text as it is, and with its last line made to fit.
pub(crate) fn check(bytes: &[u8]) {
    read(bytes);
    let body = match bytes.strip_suffix(b"\n").unwrap_or(bytes).iter().rposition(|byte| *byte == b'\n') {
        Some(end) => &bytes[..=end],
        None => return,
    };
    let check = digest::hex(&digest::sha256(body)[..8]);
    read(&[body, format!("check {check}\n").as_bytes()].concat());
}

fn read(text: &[u8]) {
    match within(room(0), || RootKeys::decode(text)) {
        Ok(keys) => assert_eq!(keys.encode().expose(), text),
        // No digit of a key may stand in it: only line numbers and lengths.
        Err(error) => assert!(error.to_string().len() < 100, "{error}"),
    }
}

/// Returns a root file, and one that is cut.
pub(crate) fn seeds() -> Vec<Seed> {
    let keys = RootKeys { domain: Sensitive::copied(&[0x5a; 32]), mac: Sensitive::copied(&[0xa5; 32]) };
    let text = keys.encode().expose().to_vec();
    let cut = text[..100].to_vec();
    vec![("whole", text), ("cut", cut)]
}
