//! Answers as a client reads them, in frames and in JSON bodies: what is taken is written again to something that is taken
//! alike. A server is trusted more than a client, but not with the client's memory.

use keymill_core::id::RequestId;
use keymill_core::operation::{Operation, Reply};
use keymill_core::{Error, ErrorKind};
use keymill_wire::answer::{check_answer, decode_error, decode_json_error, decode_json_reply, decode_reply};
use keymill_wire::response::{encode_body, encode_error, encode_reply, json_error, json_reply};

use super::{choice, operation, without_length};
use crate::memory::within;
use crate::target::{Seed, tells};

/// What reading an answer of `length` bytes may take: a data key that failed is one byte, and 56 in its vector.
fn room(length: usize) -> usize {
    // Nobody has counted the items of a JSON body or an unchecked list, so serde makes room for up to 1 MiB of them.
    1024 * 1024 + 64 * 1024 + 256 * length
}

/// Reads a frame or a JSON body as the answer to the operation that the first byte picks.
pub(crate) fn check(bytes: &[u8]) {
    let Some((operation, json, body)) = operation(bytes) else { return };
    if json {
        match within(room(body.len()), || decode_json_reply(operation, body)) {
            Ok(reply) => comes_back(&reply),
            Err(error) => tells(&error),
        }
        if let Ok(error) = within(room(body.len()), || decode_json_error(body)) {
            let again = serde_json::to_vec(&error).expect("an error has a JSON form");
            assert_eq!(decode_json_error(&again).ok(), Some(error));
        }
        return;
    }
    let Ok(answer) = within(room(0), || check_answer(body)) else { return };
    match within(room(body.len()), || decode_reply(operation, answer.body)) {
        Ok(reply) => comes_back(&reply),
        Err(error) => tells(&error),
    }
    if let Ok(error) = within(room(body.len()), || decode_error(answer.body)) {
        let again = serde_json::to_vec(&error).expect("an error has a JSON form");
        assert_eq!(decode_json_error(&again).ok(), Some(error));
    }
}

fn comes_back(reply: &Reply<'_>) {
    let operation = reply.operation();
    let mut written = Vec::new();
    encode_body(reply, &mut written);
    let again = decode_reply(operation, &written).expect("it was written here");
    let mut rewritten = Vec::new();
    encode_body(&again, &mut rewritten);
    assert_eq!(rewritten, written);
    let json = json_reply(reply);
    let again = decode_json_reply(operation, &json).expect("it was written here");
    assert_eq!(json_reply(&again), json);
}

/// Good replies, as the JSON of their bodies.
const GOOD: [(&str, Operation, &str); 5] = [
    (
        "batch-decrypt",
        Operation::BatchDecrypt,
        r#"{"Items":["AQID",null],"Errors":[[1,"InvalidCiphertext","no"]],"KeyIds":["00000000-0000-4000-8000-000000000001"],"KeyIndex":[0,null]}"#,
    ),
    (
        "data-keys",
        Operation::BatchGenerateDataKey,
        r#"{"Items":[["AQID","AQ=="],["AQID",null],null],"Errors":[],"KeyId":"00000000-0000-4000-8000-000000000001","KeyVersionId":"00000000-0000-4000-8000-000000000002"}"#,
    ),
    (
        "encrypt",
        Operation::Encrypt,
        r#"{"CiphertextBlob":"AQID","KeyId":"00000000-0000-4000-8000-000000000001","KeyVersionId":"00000000-0000-4000-8000-000000000002","RequestId":"00000000-0000-4000-8000-000000000003"}"#,
    ),
    (
        "list-keys",
        Operation::ListKeys,
        r#"{"Keys":{"Key":[{"KeyId":"00000000-0000-4000-8000-000000000001","KeyArn":"a"}]},"PageNumber":1,"PageSize":10,"TotalCount":1,"RequestId":"00000000-0000-4000-8000-000000000003"}"#,
    ),
    (
        "schedule-deletion",
        Operation::ScheduleKeyDeletion,
        r#"{"DeleteDate":"2026-11-24T12:00:17Z","UseCount":1,"RequestId":"00000000-0000-4000-8000-000000000003"}"#,
    ),
];

/// Returns answers of both kinds.
pub(crate) fn seeds() -> Vec<Seed> {
    let error = Error::new(ErrorKind::Busy, "the lane is full").retry_after_ms(20);
    let request_id = RequestId::from_bytes([1; 16]);
    let mut framed = Vec::new();
    encode_error(7, &error, request_id, &mut framed);
    let mut seeds: Vec<Seed> = vec![
        ("error", [&[choice(Operation::Encrypt, false)], &without_length(framed)[..]].concat()),
        ("error-json", [&[choice(Operation::Encrypt, true)], &json_error(&error, request_id)[..]].concat()),
    ];
    for (name, operation, json) in GOOD {
        let reply = decode_json_reply(operation, json.as_bytes()).expect("the seed is a reply");
        let mut framed = Vec::new();
        encode_reply(7, &reply, &mut framed);
        seeds.push((name, [&[choice(operation, false)], &without_length(framed)[..]].concat()));
    }
    let (_, operation, json) = GOOD[0];
    seeds.push(("batch-decrypt-json", [&[choice(operation, true)], json.as_bytes()].concat()));
    seeds
}
