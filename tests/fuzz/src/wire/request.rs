//! Requests in frames, in MessagePack bodies and in JSON bodies: what is taken is written again to something that is taken
//! alike, in both encodings.

use keymill_core::operation::{Operation, Request};
use keymill_wire::frame::{self, Shape};
use keymill_wire::request::{decode_body, decode_json, encode_json, encode_request};

use super::{choice, operation, without_length};
use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Reads a frame as a request of every operation.
pub(crate) fn check_frame(bytes: &[u8]) {
    let Ok(shape) = within(room(0), || frame::check(bytes)) else { return };
    assert!((1..=frame::MAX_ID).contains(&shape.id));
    assert!(bytes.ends_with(shape.parameters));
    for operation in Operation::ALL {
        match within(room(bytes.len()), || shape.decode(operation)) {
            Ok(request) => {
                assert_eq!(shape.flaw, None);
                comes_back(shape.id, &request);
            }
            Err(error) => tells(&error),
        }
    }
}

/// Reads a body, in MessagePack or JSON, as a request of the operation that the first byte picks.
pub(crate) fn check_body(bytes: &[u8]) {
    let Some((operation, json, body)) = operation(bytes) else { return };
    let decoded = within(room(body.len()), || match json {
        true => decode_json(operation, body),
        false => decode_body(operation, body),
    });
    match &decoded {
        Ok(request) => comes_back(1, request),
        Err(error) => tells(error),
    }
    if !json {
        let frame = [&b"\x93\x01\xa1x"[..], body].concat();
        // What a frame takes a body takes; the other way round a frame has one level less to give.
        if let Ok(framed) = frame::check(&frame).map_err(Into::into).and_then(|shape| shape.decode(operation))
        {
            let alone = decoded.expect("the frame was taken");
            assert_eq!(in_frame(1, &alone), in_frame(1, &framed));
        }
    }
}

/// Writes a request in both encodings, reads each, and writes it again.
fn comes_back(id: u64, request: &Request<'_>) {
    let written = in_frame(id, request);
    let shape: Shape<'_> = frame::check(&written).expect("it was written here");
    assert_eq!((shape.id, shape.operation, shape.flaw), (id, request.operation().name(), None));
    let again = shape.decode(request.operation()).expect("it was written here");
    assert_eq!(in_frame(id, &again), written);
    let body = encode_json(request).expect("a request has a JSON form");
    let again = decode_json(request.operation(), &body).expect("it was written here");
    assert_eq!(in_frame(id, &again), written);
}

fn in_frame(id: u64, request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(id, request, &mut out).expect("a request has an encoding");
    without_length(out)
}

/// Good requests, as the JSON of their bodies.
const GOOD: [(&str, Operation, &str); 8] = [
    (
        "batch-encrypt",
        Operation::BatchEncrypt,
        r#"{"KeyId":"alias/people","Items":["","AQID"],"EncryptionContexts":[{"a":"1","ä":""},null],"TimeoutMs":70000}"#,
    ),
    (
        "decrypt",
        Operation::Decrypt,
        r#"{"CiphertextBlob":"AQID","KeyId":"00000000-0000-4000-8000-000000000001","EncryptionContext":{"a":"\u00e4\n"}}"#,
    ),
    (
        "re-encrypt",
        Operation::BatchReEncrypt,
        r#"{"Items":["AQ=="],"DestinationKeyId":"acs:kms:r:1:alias/a","SourceEncryptionContexts":[{}],"DestinationEncryptionContext":{"a":"b"}}"#,
    ),
    (
        "data-keys",
        Operation::BatchGenerateDataKey,
        r#"{"KeyId":"alias/a","Count":2,"KeySpec":"AES_128","NumberOfBytes":64,"WithoutPlaintext":true}"#,
    ),
    (
        "access-key",
        Operation::CreateAccessKey,
        r#"{"Description":"d","Grants":[{"Effect":"Deny","Role":"Auditor","Resources":["*","key/*"]}]}"#,
    ),
    (
        "create-key",
        Operation::CreateKey,
        r#"{"KeySpec":"Aliyun_AES_256","KeyUsage":"ENCRYPT/DECRYPT","Description":"d"}"#,
    ),
    ("list-keys", Operation::ListKeys, r#"{"PageNumber":1,"PageSize":100,"TimeoutMs":1}"#),
    ("limits", Operation::DescribeLimits, "{}"),
];

/// Returns frames.
pub(crate) fn frame_seeds() -> Vec<Seed> {
    let frame = |operation, json: &str| {
        in_frame(1 << 40, &decode_json(operation, json.as_bytes()).expect("the seed is a request"))
    };
    let mut seeds: Vec<Seed> =
        GOOD.iter().map(|(name, operation, json)| (*name, frame(*operation, json))).collect();
    seeds.push((
        "flaw",
        b"\x93\x01\xa7Encrypt\x81\xa1a\x83\xca\0\0\0\0\xa1\xff\xd6\xff\0\0\0\x01\xc0\x90\xc3".to_vec(),
    ));
    seeds
}

/// Returns bodies of both kinds.
pub(crate) fn body_seeds() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = GOOD
        .iter()
        .map(|(name, operation, json)| (*name, [&[choice(*operation, true)], json.as_bytes()].concat()))
        .collect();
    for (name, frame) in frame_seeds().into_iter().take(2) {
        let shape = frame::check(&frame).expect("the seed is a request");
        let operation = Operation::by_name(shape.operation).expect("the seed is a request");
        let name = if name == "decrypt" { "decrypt-msgpack" } else { "batch-encrypt-msgpack" };
        seeds.push((name, [&[choice(operation, false)], shape.parameters].concat()));
    }
    seeds
}
