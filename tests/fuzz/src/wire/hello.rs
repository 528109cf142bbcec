//! The frames before the first request: challenge and welcome as the client reads them, hello as the server does. What is
//! taken is written again to something that is taken alike.

use keymill_core::operation::Bin;
use keymill_wire::answer::check_answer;
use keymill_wire::hello::{
    Auth, Challenge, Hello, Welcome, decode_challenge, decode_hello, decode_welcome, encode_challenge,
    encode_hello, encode_welcome, signed_bytes,
};

use super::without_length;
use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Reads a frame as each of the three.
pub(crate) fn check(bytes: &[u8]) {
    match within(room(bytes.len()), || decode_hello(bytes)) {
        Ok(hello) => {
            if let Auth::AccessKey { id, .. } | Auth::ClientKey { id, .. } = &hello.auth {
                let signed = signed_bytes(&[1; 32], id, &[]);
                assert_eq!(signed.len(), 16 + 32 + 2 + id.len() + 2);
            }
            let written = written(|out| encode_hello(&hello, out));
            assert_eq!(decode_hello(&written).ok(), Some(hello));
        }
        Err(error) => tells(&error),
    }
    match within(room(bytes.len()), || decode_challenge(bytes)) {
        Ok(challenge) => {
            let written = written(|out| encode_challenge(&challenge, out));
            assert_eq!(decode_challenge(&written).ok(), Some(challenge));
        }
        Err(error) => tells(&error),
    }
    let Ok(answer) = check_answer(bytes) else { return };
    match within(room(bytes.len()), || decode_welcome(answer.body)) {
        Ok(welcome) => {
            let written = written(|out| encode_welcome(&welcome, out));
            let answer = check_answer(&written).expect("it was written here");
            assert_eq!(decode_welcome(answer.body).ok(), Some(welcome));
        }
        Err(error) => tells(&error),
    }
}

fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    without_length(out)
}

/// Returns one frame of each kind.
pub(crate) fn seeds() -> Vec<Seed> {
    let hello = |auth| written(|out| encode_hello(&Hello { client: "c/1".into(), auth }, out));
    let challenge =
        Challenge { nonce: [1; 32], server: "s/1".into(), max_frame: 1 << 24, max_in_flight: 1024 };
    let welcome = Welcome { principal: "access-key/AK.12345678".into() };
    vec![
        ("access-key", hello(Auth::AccessKey { id: "AK.12345678".into(), signature: [9; 32] })),
        ("client-key", hello(Auth::ClientKey { id: "KAAP.1".into(), signature: Bin::from(vec![1; 64]) })),
        ("certificate", hello(Auth::Certificate)),
        ("challenge", written(|out| encode_challenge(&challenge, out))),
        ("welcome", written(|out| encode_welcome(&welcome, out))),
    ]
}
