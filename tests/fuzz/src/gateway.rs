//! The instance gateway: its headers, what is signed of them, its messages, and what becomes of them.

use keymill_core::Timestamp;
use keymill_core::id::KeyVersionId;
use keymill_core::key::{KeySketch, KeySpec};
use keymill_wire::gateway::headers::read;
use keymill_wire::gateway::{Api, error};

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Takes a head of lines `name: value`, an empty line, a byte for the kind of key, and a body.
pub(crate) fn check(bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]);
    let headers: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let offered = within(room(8 * bytes.len()), || read("POST", &headers));
    let name = match &offered {
        Ok(offered) => {
            reads_back(&offered.to_sign, &headers);
            let _ = offered.check_date(Timestamp::parse("2026-01-02T03:04:05Z").expect("a date"));
            let _ = offered.check_version();
            offered.api
        }
        Err(error) => {
            tells(error);
            let (status, body) = error::encode(error, keymill_core::id::RequestId::from_bytes([7; 16]));
            assert!((400..500).contains(&status) && !body.is_empty());
            headers.iter().find(|(name, _)| *name == "x-kms-apiname").map_or("", |(_, value)| value)
        }
    };
    let Some((kind, body)) = bytes.get(end + 2..).and_then(<[u8]>::split_first) else { return };
    let known = KeySpec::ALL.get(usize::from(*kind)).map(|spec| KeySketch {
        spec: *spec,
        usage: spec.usages()[0],
        first_version: KeyVersionId::from_bytes([9; 16]),
    });
    match Api::by_name(name) {
        Ok(api) => asks(api, body, known.as_ref()),
        Err(error) => {
            tells(&error);
            Api::ALL.into_iter().for_each(|api| asks(api, body, known.as_ref()));
        }
    }
}

fn asks(api: Api, body: &[u8], known: Option<&KeySketch>) {
    let body = bytes::Bytes::copy_from_slice(body);
    let said = match within(room(16 * body.len()), || api.decode(&body)) {
        Ok(said) => said,
        Err(error) => return tells(&error),
    };
    match within(room(16 * body.len()), || said.ask(known)) {
        // What is encrypted by a key pair is another operation, as its key or the caller has it.
        Ok(asked) => assert!(
            asked.request.operation() == api.operation() || matches!(api, Api::Encrypt | Api::Decrypt),
            "{api:?} asks for {:?}",
            asked.request.operation()
        ),
        Err(error) => tells(&error),
    }
}

/// Reads the string to sign again: it holds what is signed, each on a line of its own.
fn reads_back(to_sign: &[u8], headers: &[(&str, &str)]) {
    let text = std::str::from_utf8(to_sign).expect("it is made of texts");
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!((lines[0], lines.last()), ("POST", Some(&"/")));
    let mut signed: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-kms-"))
        .map(|(n, v)| format!("{n}:{v}"))
        .collect();
    assert_eq!(lines.len(), signed.len() + 5);
    signed.sort_unstable();
    let mut told: Vec<&str> = lines[4..lines.len() - 1].to_vec();
    told.sort_unstable();
    assert_eq!(told, signed);
}

/// Returns requests of some operations.
pub(crate) fn seeds() -> Vec<Seed> {
    let seed = |api: &str, kind: u8, body: &[u8]| {
        let head = format!(
            "date: Fri, 02 Jan 2026 03:04:05 GMT\nx-kms-apiversion: dkms-gcs-0.2\nx-kms-apiname: {api}\nx-kms-signaturemethod: RSA_PKCS1_SHA_256\nx-kms-acccesskeyid: KAAP.00000000-0000-4000-8000-000000000001\ncontent-type: application/x-protobuf\ncontent-sha256: {}\nauthorization: Bearer AAAA\n\n",
            "0".repeat(64)
        );
        [head.as_bytes(), &[kind], body].concat()
    };
    vec![
        ("encrypt", seed("Encrypt", 255, b"\x0a\x07alias/a\x12\x05hello\x1a\x07AES_GCM\x22\x03aad")),
        ("encrypt-pair", seed("Encrypt", 4, b"\x0a\x07alias/a\x12\x05hello")),
        (
            "decrypt",
            seed("Decrypt", 0, b"\x0a\x05hello\x12\x07alias/a\x2a\x0c000000000000\x32\x0aNO_PADDING"),
        ),
        ("data-key", seed("GenerateDataKey", 0, b"\x0a\x07alias/a\x18\x10\x22\x01a")),
        ("pair", seed("GenerateDataKeyPair", 0, b"\x0a\x07alias/a\x1a\x08RSA_2048\x22\x03DER")),
        ("sign", seed("Sign", 7, b"\x0a\x07alias/a\x22\x01m\x2a\x03RAW")),
        ("verify", seed("Verify", 7, b"\x0a\x07alias/a\x12\x01d\x1a\x02sg\x22\x0dECDSA_SHA_256")),
        ("random", seed("GenerateRandom", 0, b"\x08\x20")),
        ("negative", seed("GenerateRandom", 0, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
        ("unknown", seed("Hash", 0, b"\x0a\x01m")),
        ("secret", seed("GetSecretValue", 0, b"\x0a\x07db/conn\x12\x0aACSCurrent\x20\x01\x7b\x08\x01\x7c")),
        ("alone", b"\n\n\x00\x0a\x03abc\x12\x03def".to_vec()),
    ]
}
