//! XAES-256-GCM against known answers: the cases and accumulated hashes published by C2SP, and the project's own file.

use keymill_core::Sensitive;
use keymill_crypto::digest::hex;
use keymill_crypto::xaes::{Xaes, subkey_messages};
use serde_json::Value;

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal digits")
        })
        .collect()
}

fn xaes(key: &[u8]) -> Xaes {
    Xaes::new(&Sensitive::copied(key)).expect("32 bytes")
}

/// C2SP XAES-256-GCM.md: key, nonce, associated data, plaintext, ciphertext ‖ tag.
const PUBLISHED: [[&str; 5]; 2] = [
    [
        "0101010101010101010101010101010101010101010101010101010101010101",
        "4142434445464748494a4b4c4d4e4f505152535455565758",
        "",
        "584145532d3235362d47434d",
        "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
    ],
    [
        "0303030303030303030303030303030303030303030303030303030303030303",
        "4142434445464748494a4b4c4d4e4f505152535455565758",
        "633273702e6f72672f584145532d3235362d47434d",
        "584145532d3235362d47434d",
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    ],
];

#[test]
fn the_published_cases_come_out() {
    for [key, nonce, aad, plaintext, sealed] in PUBLISHED.map(|case| case.map(bytes)) {
        let nonce = nonce.try_into().unwrap();
        assert_eq!(xaes(&key).seal(&nonce, &aad, &plaintext), sealed);
        assert_eq!(xaes(&key).open(&nonce, &aad, &sealed).unwrap().expose(), plaintext);
    }
}

#[test]
fn the_subkey_messages_are_those_of_the_specification() {
    let messages = subkey_messages(b"ABCDEFGHIJKL");
    assert_eq!(messages, [*b"\0\x01X\0ABCDEFGHIJKL", *b"\0\x02X\0ABCDEFGHIJKL"]);
}

/// Keys, nonces, plaintexts and associated data from one SHAKE-128 stream; SHAKE-128 over all ciphertexts, 32 bytes.
fn accumulated(iterations: u32) -> String {
    let (mut stream, mut sum) = (Shake128::default(), Shake128::default());
    for _ in 0..iterations {
        let key = stream.squeeze(32);
        let nonce = stream.squeeze(24).try_into().expect("24 bytes");
        let mut text = || {
            let len = stream.squeeze(1)[0];
            stream.squeeze(usize::from(len))
        };
        let (plaintext, aad) = (text(), text());
        let sealed = xaes(&key).seal(&nonce, &aad, &plaintext);
        assert_eq!(xaes(&key).open(&nonce, &aad, &sealed).expect("it opens").expose(), plaintext);
        sum.absorb(&sealed);
    }
    hex(&sum.squeeze(32))
}

#[test]
fn ten_thousand_messages_accumulate_to_the_published_hash() {
    assert_eq!(accumulated(10_000), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
}

/// Takes a minute in a debug build, so it is compiled into optimised ones.
#[cfg(not(debug_assertions))]
#[test]
fn a_million_messages_accumulate_to_the_published_hash() {
    assert_eq!(accumulated(1_000_000), "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15");
}

#[test]
fn every_case_of_our_own_file_comes_out() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/xaes_256_gcm_test.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut sealed_again, mut refused, mut refused_sizes) = (0, 0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        for case in group["tests"].as_array().unwrap() {
            let field = |name: &str| bytes(case[name].as_str().unwrap());
            let (aad, msg, ct) = (field("aad"), field("msg"), [field("ct"), field("tag")].concat());
            let valid = case["result"] == "valid";
            let Ok(nonce) = field("iv").try_into() else {
                assert!(!valid, "{case}");
                refused_sizes += 1;
                continue;
            };
            let xaes = xaes(&field("key"));
            match xaes.open(&nonce, &aad, &ct) {
                Ok(plaintext) => {
                    assert!(valid, "{case}");
                    assert_eq!(plaintext.expose(), msg, "{case}");
                    assert_eq!(xaes.seal(&nonce, &aad, &msg), ct, "{case}");
                    sealed_again += 1;
                }
                Err(_) => {
                    assert!(!valid, "{case}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((sealed_again, refused, refused_sizes), (78, 33, 7));
    assert_eq!(file["numberOfTests"], 118);
}

/// SHAKE-128 (FIPS 202), which the library does not offer: absorb first, then squeeze.
#[derive(Default)]
struct Shake128 {
    lanes: [u64; 25],
    at: usize,
    squeezing: bool,
}

const RATE_BYTES: usize = 168;

impl Shake128 {
    fn absorb(&mut self, input: &[u8]) {
        for byte in input {
            self.xor(self.at, *byte);
            self.at += 1;
            if self.at == RATE_BYTES {
                keccak_f(&mut self.lanes);
                self.at = 0;
            }
        }
    }

    fn squeeze(&mut self, len: usize) -> Vec<u8> {
        if !self.squeezing {
            self.xor(self.at, 0x1f);
            self.xor(RATE_BYTES - 1, 0x80);
            (self.at, self.squeezing) = (RATE_BYTES, true);
        }
        (0..len)
            .map(|_| {
                if self.at == RATE_BYTES {
                    keccak_f(&mut self.lanes);
                    self.at = 0;
                }
                self.at += 1;
                self.lanes[(self.at - 1) / 8].to_le_bytes()[(self.at - 1) % 8]
            })
            .collect()
    }

    fn xor(&mut self, at: usize, byte: u8) {
        self.lanes[at / 8] ^= u64::from(byte) << (8 * (at % 8));
    }
}

fn keccak_f(a: &mut [u64; 25]) {
    let mut lfsr = 1u8;
    for _ in 0..24 {
        // θ
        let c: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ a[x + 5 * y]));
        for i in 0..25 {
            a[i] ^= c[(i + 4) % 5] ^ c[(i + 1) % 5].rotate_left(1);
        }
        // ρ and π
        let (mut x, mut y, mut lane) = (1, 0, a[1]);
        for t in 0..24 {
            (x, y) = (y, (2 * x + 3 * y) % 5);
            lane = std::mem::replace(&mut a[x + 5 * y], lane.rotate_left((t + 1) * (t + 2) / 2 % 64));
        }
        // χ
        for row in a.as_chunks_mut::<5>().0 {
            let old = *row;
            for x in 0..5 {
                row[x] = old[x] ^ (!old[(x + 1) % 5] & old[(x + 2) % 5]);
            }
        }
        // ι
        for j in 0..7 {
            if lfsr & 1 == 1 {
                a[0] ^= 1 << ((1 << j) - 1);
            }
            lfsr = (lfsr << 1) ^ if lfsr & 0x80 != 0 { 0x71 } else { 0 };
        }
    }
}

#[test]
fn the_hash_of_this_test_is_that_of_the_standard() {
    // FIPS 202 example: SHAKE-128 of no input
    assert_eq!(
        hex(&Shake128::default().squeeze(32)),
        "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
    );
}
