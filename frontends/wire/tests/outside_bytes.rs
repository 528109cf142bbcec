//! Every decoder of outside bytes, on arbitrary bytes and on good ones with a few changed: none may panic, and what one of
//! them takes must mean the same when it is written again.

use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{
    BatchDecryptReply, BatchEncryptRequest, Bin, DecryptRequest, Operation, Reply, Request,
};
use keymill_core::{EncryptionContext, ErrorKind};
use keymill_wire::{acs3, answer, frame, hello, request, response};
use proptest::prelude::*;

/// Good frames without their length, to be damaged.
fn good() -> Vec<Vec<u8>> {
    let context = EncryptionContext::from_pairs([("a", "1"), ("ä", "")]).ok();
    let batch = BatchEncryptRequest {
        key_id: KeyRef::Id(CmkId::from_bytes([7; 16])),
        items: vec![Bin::from(vec![]), Bin::from(vec![1; 300]), Bin::from(vec![2; 3])],
        encryption_context: None,
        encryption_contexts: Some(vec![None, context.clone(), Some(EncryptionContext::default())]),
        timeout_ms: Some(70_000),
    };
    let single = DecryptRequest {
        ciphertext_blob: Bin::from(vec![1; 20]),
        key_id: None,
        encryption_context: context,
        timeout_ms: None,
    };
    let reply = Reply::BatchDecrypt(BatchDecryptReply {
        items: vec![None, Some(Bin::from(vec![3; 5]))],
        errors: vec![],
        key_ids: vec![CmkId::from_bytes([7; 16])],
        key_index: vec![None, Some(0)],
    });
    let auth = hello::Auth::AccessKey { id: "AK.12345678".into(), signature: [9; 32] };
    let greeting = hello::Hello { client: "c".into(), auth };
    let challenge = hello::Challenge { nonce: [1; 32], server: "s".into(), max_frame: 9, max_in_flight: 3 };
    let mut frames = vec![Vec::new(); 5];
    request::encode_request(1 << 40, &batch.into(), &mut frames[0]).expect("it has an encoding");
    request::encode_request(1, &single.into(), &mut frames[1]).expect("it has an encoding");
    response::encode_reply(1, &reply, &mut frames[2]);
    hello::encode_hello(&greeting, &mut frames[3]);
    hello::encode_challenge(&challenge, &mut frames[4]);
    frames.into_iter().map(|frame| frame[frame::LENGTH_BYTES..].to_vec()).collect()
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    (prop::sample::select(good()), prop::collection::vec(change, 0..4)).prop_map(|(mut bytes, changes)| {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len().max(1));
            match how {
                0 => bytes.insert(at.min(bytes.len()), byte),
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.truncate(at),
                _ if !bytes.is_empty() => bytes[at] = byte,
                _ => {}
            }
        }
        bytes
    })
}

fn decode_everything(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(shape) = frame::check(bytes) {
        for operation in Operation::ALL {
            if let Ok(request) = shape.decode(operation) {
                written_again(shape.id, &request)?;
            }
        }
    }
    if let Ok(answer) = answer::check_answer(bytes) {
        let _ = answer::decode_error(answer.body);
        let _ = hello::decode_welcome(answer.body);
        for operation in Operation::ALL {
            let _ = answer::decode_reply(operation, answer.body);
        }
    }
    if let Ok(found) = hello::decode_hello(bytes) {
        let mut out = Vec::new();
        hello::encode_hello(&found, &mut out);
        prop_assert_eq!(hello::decode_hello(&out[frame::LENGTH_BYTES..]).ok(), Some(found));
    }
    let _ = hello::decode_challenge(bytes);
    for operation in Operation::ALL {
        let _ = request::decode_body(operation, bytes);
        let _ = request::decode_json(operation, bytes);
        let _ = answer::decode_json_reply(operation, bytes);
    }
    let _ = answer::decode_json_error(bytes);
    Ok(())
}

fn written_again(id: u64, request: &Request<'_>) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    request::encode_request(id, request, &mut out).expect("it has an encoding");
    let again = frame::check(&out[frame::LENGTH_BYTES..]).expect("it was written here");
    prop_assert_eq!((again.id, again.operation, again.flaw), (id, request.operation().name(), None));
    let again = again.decode(request.operation()).expect("it was written here");
    prop_assert_eq!(format!("{request:?}"), format!("{again:?}"));
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_everything(&bytes)?;
    }

    #[test]
    fn damaged_frames_are_refused_or_read(bytes in damaged()) {
        decode_everything(&bytes)?;
    }

    #[test]
    fn damaged_json_is_refused_or_read(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = br#"{"KeyId":"alias/a","Items":["AQ==",""],"EncryptionContexts":[{"a":"b"},null],"TimeoutMs":5}"#.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(request) = request::decode_json(Operation::BatchEncrypt, &body) {
            let again = request::encode_json(&request).unwrap();
            let again = request::decode_json(Operation::BatchEncrypt, &again).unwrap();
            prop_assert_eq!(format!("{request:?}"), format!("{again:?}"));
        }
    }

    #[test]
    fn authorization_texts_are_refused_or_read(text in "(ACS3-HMAC-SHA256 )?(Credential=)?[a-z;,=-]{0,60}(,Signature=)?[0-9a-f]{0,64}") {
        if let Ok(read) = acs3::Authorization::parse(&text) {
            prop_assert_eq!(read.format(), text);
        }
    }

    #[test]
    fn a_length_never_passes_its_limit(prefix in any::<[u8; 4]>(), max in 1usize..1 << 25) {
        match frame::length(prefix, max) {
            Ok(length) => prop_assert!((1..=max).contains(&length)),
            Err(fault) => prop_assert_ne!(keymill_core::Error::from(fault).kind(), ErrorKind::Internal),
        }
    }
}

#[test]
fn undamaged_frames_are_read() {
    let frames = good();
    assert!(frame::check(&frames[0]).unwrap().decode(Operation::BatchEncrypt).is_ok());
    assert!(frame::check(&frames[1]).unwrap().decode(Operation::Decrypt).is_ok());
    let reply = answer::check_answer(&frames[2]).unwrap();
    assert!(answer::decode_reply(Operation::BatchDecrypt, reply.body).is_ok());
    assert!(hello::decode_hello(&frames[3]).is_ok() && hello::decode_challenge(&frames[4]).is_ok());
}
