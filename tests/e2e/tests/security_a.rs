//! Group A of the security cases: what may be done to a symmetric ciphertext, and what must come of it. A12 has a file of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{Credentials, ServerError};
use keymill_core::id::CmkId;
use keymill_core::key::{KeySpec, ProtectionLevel};
use keymill_core::limit::MAX_TIMEOUT_MS;
use keymill_core::operation::*;
use keymill_e2e::{Caller, Named, Owner, Raw, audit_lines, batch_encrypt, context, requests_of, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use rmpv::Value;

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

/// All of an error that a caller can see, but for the id of its request, which has one length.
fn face(error: &ServerError) -> (u16, &str, &str, bool, Option<u32>, usize) {
    let ServerError { status, code, message, request_id, retryable, retry_after_ms, nothing_done } = error;
    // It says where a request came to, which a refusal of these kinds must not.
    assert!(!nothing_done);
    (*status, code, message, *retryable, *retry_after_ms, request_id.len())
}

/// The one error of what does not open.
fn opaque() -> (u16, &'static str, &'static str, bool, Option<u32>, usize) {
    (400, "InvalidParameter", "the ciphertext does not open with this key and context", false, None, 36)
}

/// The one error of a key that is not there, or not for this caller.
fn not_found() -> (u16, &'static str, &'static str, bool, Option<u32>, usize) {
    (404, "Forbidden.KeyNotFound", "the specified key is not found", false, None, 36)
}

fn assert_opaque(caller: &mut Caller, blob: &[u8], what: &str) {
    let error = caller.decrypt(blob, &[]).expect_err(what);
    assert_eq!(face(&error), opaque(), "{what}");
}

/// Opens blobs in one batch and expects the one error of each, or the not-found error where `is_id` says so.
fn assert_all_refused(caller: &mut Caller, blobs: &[Vec<u8>], is_id: impl Fn(usize) -> bool) {
    let opened = caller.batch_decrypt(blobs).unwrap();
    assert!(opened.items.iter().all(Option::is_none), "never a plaintext");
    assert_eq!(opened.errors.len(), blobs.len());
    assert_eq!(opened.keys, []);
    for ItemError(i, code, message) in &opened.errors {
        let expected = if is_id(*i as usize) { not_found() } else { opaque() };
        assert_eq!((&**code, &**message), (expected.1, expected.2), "blob {i}");
    }
}

#[test]
fn a1_every_flipped_bit_is_refused_alike_under_every_algorithm() {
    const TEXT: &[u8] = b"a plaintext of 24 bytes!";
    let (_live, mut caller) = begin();
    let usual = caller.create_key();
    // The others are of software, which has them all.
    let mut of = |spec| caller.create_pair(spec, None, Some(ProtectionLevel::Software)).unwrap().key;
    let keys = [
        (usual, None),
        (of(KeySpec::Sm4), Some(3)),
        (of(KeySpec::Aes128), Some(4)),
        (of(KeySpec::Aes192), Some(5)),
    ];
    for (key, algorithm) in keys {
        let blob = caller.encrypt(key, TEXT, &[]).unwrap();
        assert!(algorithm.is_none_or(|algorithm| blob[1] == algorithm));
        let flipped: Vec<Vec<u8>> = (0..8 * blob.len())
            .map(|bit| {
                let mut blob = blob.clone();
                blob[bit / 8] ^= 1 << (bit % 8);
                blob
            })
            .collect();
        // A flipped id names a key that does not exist, which has an error of its own.
        let is_id = |bit: usize| (2..18).contains(&(bit / 8));
        assert_all_refused(&mut caller, &flipped, is_id);
        for (bit, blob) in flipped.iter().enumerate() {
            let error = caller.decrypt(blob, &[]).expect_err("it was flipped");
            let expected = if is_id(bit) { not_found() } else { opaque() };
            assert_eq!(face(&error), expected, "bit {bit}");
        }
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), TEXT);
    }
}

#[test]
fn a2_every_other_length_is_refused() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let blob = caller.encrypt(key, b"a plaintext", &[]).unwrap();
    let mut others: Vec<Vec<u8>> = (0..blob.len()).map(|n| blob[..n].to_vec()).collect();
    others.push([&blob[..], &[0]].concat());
    others.push([&blob[..], &blob].concat());
    others.push(vec![0xa5; 333]);
    let last = others.len();
    others.push(vec![0; blob.len()]);
    others.push([&[1, 1], &[0; 16][..], &[0, 0, 0, 1], &[0; 60]].concat());
    assert_all_refused(&mut caller, &others, |i| i == last + 1);
    for n in [0, 1, 21, 22, 37] {
        assert_opaque(&mut caller, &blob[..n], &format!("{n} bytes"));
    }
}

#[test]
fn a3_a_tag_that_is_short_zero_or_anothers_is_refused() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let one = caller.encrypt(key, b"one plaintext", &[]).unwrap();
    let other = caller.encrypt(key, b"2nd plaintext", &[]).unwrap();
    let body = one.len() - 16;
    let mut bad: Vec<Vec<u8>> = [15, 12, 8, 4].map(|tag| one[..body + tag].to_vec()).into();
    bad.push([&one[..body], &[0; 16]].concat());
    bad.push([&one[..body], &other[body..]].concat());
    for blob in &bad {
        assert_opaque(&mut caller, blob, "the tag");
    }
    assert_all_refused(&mut caller, &bad, |_| false);
}

#[test]
fn a4_another_context_is_refused_and_the_order_of_pairs_does_not_matter() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let given = [("tenant", "a"), ("Row", "7"), ("caf\u{e9}", "\u{e9}")];
    let blob = caller.encrypt(key, b"x", &given).unwrap();
    let mut reversed = given;
    reversed.reverse();
    assert_eq!(caller.decrypt(&blob, &reversed).unwrap(), b"x");
    let others: [&[(&str, &str)]; 9] = [
        &[],
        &given[..2],
        &[given[0], given[1], given[2], ("more", "")],
        &[given[0], ("Row", "8"), given[2]],
        &[given[0], ("row", "7"), given[2]],
        &[("a", "tenant"), ("7", "Row"), ("\u{e9}", "caf\u{e9}")],
        &[given[0], given[1], ("cafe\u{301}", "\u{e9}")],
        &[given[0], given[1], ("caf\u{e9}", "e\u{301}")],
        &[("tenant", "a "), given[1], given[2]],
    ];
    for other in others {
        let error = caller.decrypt(&blob, other).expect_err("another context");
        assert_eq!(face(&error), opaque(), "{other:?}");
    }
}

#[test]
fn a5_contexts_that_collide_under_naive_joins_are_told_apart() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let contexts: [&[(&str, &str)]; 14] = [
        &[("a", "bc")],
        &[("ab", "c")],
        &[("a", "1"), ("b", "2")],
        &[("a", "1b2")],
        &[("a", "1\",\"b\":\"2")],
        &[("a", "1,b=2")],
        &[("a=1,b", "2")],
        &[("a", "1&b=2")],
        &[("a\0", "")],
        &[("a", "\0")],
        &[("", "a")],
        &[("a", "")],
        &[("a", "\\u0000")],
        &[],
    ];
    let items = vec![b"x".to_vec(); contexts.len()];
    let each = |contexts: Vec<&[(&str, &str)]>| Some(contexts.iter().map(|pairs| context(pairs)).collect());
    let request = BatchEncryptRequest {
        encryption_contexts: each(contexts.to_vec()),
        ..keymill_e2e::batch_encrypt(key, &items)
    };
    let blobs: Vec<Vec<u8>> = caller
        .ask(request, |reply| match reply {
            Reply::BatchEncrypt(reply) => {
                reply.items.into_iter().map(|item| item.expect("sealed").into_vec()).collect()
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
    for shift in 0..contexts.len() {
        let shifted: Vec<_> = (0..contexts.len()).map(|i| contexts[(i + shift) % contexts.len()]).collect();
        let request = BatchDecryptRequest {
            items: blobs.iter().map(|blob| Bin::from(&blob[..])).collect(),
            key_id: None,
            encryption_context: None,
            encryption_contexts: each(shifted),
            timeout_ms: None,
        };
        let failed = caller
            .ask(request, |reply| match reply {
                Reply::BatchDecrypt(reply) => reply.errors.len(),
                other => panic!("{other:?}"),
            })
            .unwrap();
        assert_eq!(failed, if shift == 0 { 0 } else { contexts.len() }, "shifted by {shift}");
    }
}

#[test]
fn a6_a_context_key_that_comes_twice_is_refused_before_any_work() {
    let (live, mut caller) = begin();
    let key = caller.create_key();
    let (id, secret) = caller.create_access_key(grants_of("Root")).unwrap();
    let blob = caller.encrypt(key, b"x", &[("a", "1")]).unwrap();
    let twice = |one: &str, other: &str| {
        Value::Map(vec![("a".into(), one.into()), ("b".into(), "".into()), ("a".into(), other.into())])
    };
    assert_eq!(caller.uses(key).unwrap(), [(1, 0)]);
    let mut raw = Raw::log_in(live.address, &id, &secret);
    for (one, other) in [("1", "1"), ("1", "2"), ("2", "1")] {
        let encrypt = vec![
            ("KeyId", key.to_string().into()),
            ("Plaintext", Value::Binary(b"x".to_vec())),
            ("EncryptionContext", twice(one, other)),
        ];
        let decrypt =
            vec![("CiphertextBlob", Value::Binary(blob.clone())), ("EncryptionContext", twice(one, other))];
        let data_key = vec![("KeyId", key.to_string().into()), ("EncryptionContext", twice(one, other))];
        // Each place that a context has in other operations.
        let re_encrypt = |place| {
            vec![
                ("CiphertextBlob", Value::Binary(blob.clone())),
                ("DestinationKeyId", key.to_string().into()),
                (place, twice(one, other)),
            ]
        };
        let batch = vec![
            ("KeyId", key.to_string().into()),
            ("Items", Value::Array(vec![Value::Binary(b"x".to_vec())])),
            ("EncryptionContexts", Value::Array(vec![twice(one, other)])),
        ];
        for (operation, place, parameters) in [
            ("Encrypt", "EncryptionContext", encrypt),
            ("Decrypt", "EncryptionContext", decrypt),
            ("GenerateDataKey", "EncryptionContext", data_key.clone()),
            ("GenerateDataKeyWithoutPlaintext", "EncryptionContext", data_key),
            ("ReEncrypt", "SourceEncryptionContext", re_encrypt("SourceEncryptionContext")),
            ("ReEncrypt", "DestinationEncryptionContext", re_encrypt("DestinationEncryptionContext")),
            ("BatchEncrypt", "EncryptionContexts", batch),
        ] {
            let told = raw.ask(operation, parameters);
            assert_eq!((told.status, told.text("Code")), (400, "InvalidParameter"), "{operation}: {told:?}");
            assert!(told.text("Message").contains(place), "{operation}: {told:?}");
        }
    }
    assert_eq!(caller.uses(key).unwrap(), [(1, 0)], "nothing was computed");
    caller.decrypt(&blob, &[("a", "1")]).unwrap();
    assert_eq!(caller.uses(key).unwrap(), [(1, 1)], "and it is counted at once where something is");
}

fn grants_of(role: &str) -> Vec<keymill_core::access::Grant> {
    serde_json::from_value(serde_json::json!([{ "Role": role }])).unwrap()
}

fn with_id(blob: &[u8], id: CmkId) -> Vec<u8> {
    let mut blob = blob.to_vec();
    blob[2..18].copy_from_slice(id.as_bytes());
    blob
}

#[test]
fn a7_a_blob_under_another_keys_id_is_refused_and_does_not_tell_whether_its_own_exists() {
    let (live, mut caller) = begin();
    let (a, b) = (caller.create_key(), caller.create_key());
    let nowhere = CmkId::from_random([7; 16]);
    let blob = caller.encrypt(a, b"x", &[]).unwrap();
    assert_opaque(&mut caller, &with_id(&blob, b), "the id of another key");
    let error = caller.decrypt_under(b, &blob).unwrap_err();
    assert_eq!(face(&error), opaque());

    // One with rights on B alone: A's blob, a blob of no key, and both with B named.
    let grant = serde_json::json!([
        { "Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": [format!("key/{b}")] }
    ]);
    let credentials = caller.credentials(serde_json::from_value(grant).unwrap());
    let mut stranger = Caller::new(&live, &credentials);
    let gone = with_id(&blob, nowhere);
    for foreign in [&blob, &gone] {
        assert_eq!(face(&stranger.decrypt(foreign, &[]).unwrap_err()), not_found());
        assert_eq!(face(&stranger.decrypt_under(b, foreign).unwrap_err()), opaque());
        assert_eq!(face(&stranger.decrypt_under(a, foreign).unwrap_err()), not_found());
        assert_eq!(face(&stranger.decrypt_under(nowhere, foreign).unwrap_err()), not_found());
        assert_eq!(face(&stranger.re_encrypt(foreign, b).unwrap_err()), not_found());
        assert_eq!(
            face(&stranger.export(foreign, &[], &Owner::shared().recipient()).unwrap_err()),
            not_found()
        );
    }
    // The same in batches, beside what it may open.
    let own = stranger.encrypt(b, b"y", &[]).unwrap();
    let items = [blob.clone(), own, gone, with_id(&blob, b)];
    let opened = stranger.batch_decrypt(&items).unwrap();
    let (sealed, errors) = stranger.batch_re_encrypt(&items, b).unwrap();
    assert_eq!(opened.items, [None, Some(b"y".to_vec()), None, None]);
    assert_eq!(sealed.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, false]);
    for errors in [opened.errors, errors] {
        let error = |i, face: (u16, &'static str, &'static str, bool, Option<u32>, usize)| {
            ItemError(i, face.1.into(), face.2.into())
        };
        assert_eq!(errors, [error(0, not_found()), error(2, not_found()), error(3, opaque())]);
    }
    for absent in [a, nowhere] {
        assert_eq!(face(&stranger.encrypt(absent, b"x", &[]).unwrap_err()), not_found());
        assert_eq!(face(&stranger.describe(absent).unwrap_err()), not_found());
    }
}

#[test]
fn a8_another_version_number_is_refused_alike() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let first = caller.encrypt(key, b"first", &[]).unwrap();
    caller.rotate(key).unwrap();
    caller.rotate(key).unwrap();
    let third = caller.encrypt(key, b"third", &[]).unwrap();
    assert_eq!((first[18..22].to_vec(), third[18..22].to_vec()), (vec![0, 0, 0, 1], vec![0, 0, 0, 3]));
    for (blob, own) in [(&first, 1), (&third, 3)] {
        for version in [0, 1, 2, 3, 4, u32::MAX / 2, u32::MAX] {
            let mut other = blob.clone();
            other[18..22].copy_from_slice(&version.to_be_bytes());
            match version == own {
                true => assert!(caller.decrypt(&other, &[]).is_ok()),
                false => assert_opaque(&mut caller, &other, &format!("version {version} for {own}")),
            }
        }
    }
}

#[test]
fn a9_another_algorithm_or_format_byte_is_refused_before_any_key_is_used() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    let mut bad = Vec::new();
    for algorithm in (0..=255).filter(|byte| *byte != blob[1]) {
        let mut other = blob.clone();
        other[1] = algorithm;
        bad.push(other);
    }
    for format in (0..=255).filter(|byte| *byte != blob[0]) {
        let mut other = blob.clone();
        other[0] = format;
        bad.push(other);
    }
    assert_all_refused(&mut caller, &bad, |_| false);
    for blob in bad.iter().step_by(37) {
        assert_opaque(&mut caller, blob, "format or algorithm");
    }
}

#[test]
fn a10_the_header_of_one_blob_does_not_go_with_the_body_of_another() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let context = [("row", "7")];
    let old = caller.encrypt(key, b"same length", &context).unwrap();
    caller.rotate(key).unwrap();
    let new = caller.encrypt(key, b"same length", &context).unwrap();
    for (head, body) in [(&old, &new), (&new, &old)] {
        for cut in [2, 18, 22, 34, 46] {
            let mixed = [&head[..cut], &body[cut..]].concat();
            if mixed != *body && mixed != *head {
                let error = caller.decrypt(&mixed, &context).expect_err("a mixed blob");
                assert_eq!(face(&error), opaque(), "cut at {cut}");
            }
        }
    }
}

#[test]
fn a11_an_encrypted_data_key_opens_under_its_own_context_alone() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let (clear, sealed) = caller.data_key(key, &[("use", "disk")]).unwrap();
    for other in [&[][..], &[("use", "tape")], &[("disk", "use")]] {
        assert_eq!(face(&caller.decrypt(&sealed, other).unwrap_err()), opaque());
    }
    assert_eq!(caller.decrypt(&sealed, &[("use", "disk")]).unwrap(), clear);
    let hidden = caller.data_key_sealed(key).unwrap();
    assert_eq!(caller.decrypt(&hidden, &[]).unwrap().len(), 32);
    // What was encrypted goes out as a data key does: under its own context alone.
    let owner = Owner::shared();
    let to = owner.recipient();
    let text = caller.encrypt(key, b"a key of our own", &[("use", "disk")]).unwrap();
    for (blob, own) in [(&text, &b"a key of our own"[..]), (&sealed, &clear)] {
        for other in [&[][..], &[("use", "tape")], &[("disk", "use")]] {
            assert_eq!(face(&caller.export(blob, other, &to).unwrap_err()), opaque());
        }
        let exported = caller.export(blob, &[("use", "disk")], &to).unwrap();
        assert_eq!(owner.open(to.algorithm, &exported), own);
    }
}

/// What the audit must say of a refusal: the request, who asked, for what, why not, and the key where the request named one that exists.
#[derive(Debug, PartialEq)]
struct Refusal<'a>(String, &'a str, &'a str, &'a str, Option<(CmkId, u32)>);

#[test]
fn every_refusal_leaves_one_record_that_says_who_was_refused_what_and_of_which_key() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let root = live.bootstrap_id().unwrap().to_owned();
    let (a, b) = (caller.create_key(), caller.create_key());
    let pairs = [("a", "bc")];
    let blob = caller.encrypt(a, b"x", &pairs).unwrap();
    let other = caller.encrypt(b, b"x", &pairs).unwrap();
    let (_, data_key) = caller.data_key(a, &pairs).unwrap();
    let changed = |at: usize, bits: u8| {
        let mut changed = blob.clone();
        changed[at] ^= bits;
        changed
    };
    let last = blob.len() - 1;
    const CLOSED: &str = "InvalidCiphertext";
    const ABSENT: &str = "KeyNotFound";
    let mut expected = Vec::new();
    type Case<'a> = (Vec<u8>, &'a [(&'a str, &'a str)], &'static str, Option<(CmkId, u32)>);
    let decrypts: [Case<'_>; 16] = [
        // A1
        (changed(last, 1), &pairs, CLOSED, Some((a, 1))),
        (changed(2, 1), &pairs, ABSENT, None),
        // A2
        (Vec::new(), &pairs, CLOSED, None),
        (blob[..21].to_vec(), &pairs, CLOSED, None),
        (blob[..last].to_vec(), &pairs, CLOSED, Some((a, 1))),
        ([&blob[..], &[0]].concat(), &pairs, CLOSED, Some((a, 1))),
        // A3
        ([&blob[..=last - 16], &[0; 16]].concat(), &pairs, CLOSED, Some((a, 1))),
        // A4, A5
        (blob.clone(), &[], CLOSED, Some((a, 1))),
        (blob.clone(), &[("a", "bd")], CLOSED, Some((a, 1))),
        (blob.clone(), &[("ab", "c")], CLOSED, Some((a, 1))),
        // A7
        (with_id(&blob, b), &pairs, CLOSED, Some((b, 1))),
        // A8; 0 is the number of no version.
        (changed(21, 1), &pairs, CLOSED, None),
        (changed(21, 2), &pairs, CLOSED, Some((a, 3))),
        // A9: nothing of it is looked at.
        (changed(0, 3), &pairs, CLOSED, None),
        (changed(1, 0x40), &pairs, CLOSED, None),
        // A10
        ([&blob[..22], &other[22..]].concat(), &pairs, CLOSED, Some((a, 1))),
    ];
    for (blob, pairs, outcome, key) in decrypts {
        let error = caller.decrypt(&blob, pairs).expect_err("it is refused");
        expected.push(Refusal(error.request_id, &root, "Decrypt", outcome, key));
    }
    // A6
    let (raw_id, secret) = caller.create_access_key(grants_of("Root")).unwrap();
    let mut raw = Raw::log_in(live.address, &raw_id, &secret);
    let twice = Value::Map(vec![("a".into(), "1".into()), ("a".into(), "1".into())]);
    let parameters = vec![("CiphertextBlob", Value::Binary(blob.clone())), ("EncryptionContext", twice)];
    let told = raw.ask("Decrypt", parameters);
    let request = told.text("RequestId").to_owned();
    expected.push(Refusal(request, raw_id.as_str(), "Decrypt", "InvalidParameter", None));
    // A7, of one with rights on the other key alone: as of a key that is not there, whose time it must have.
    let grants = serde_json::json!([
        { "Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": [format!("key/{b}")] }
    ]);
    let (stranger_id, secret) = caller.create_access_key(serde_json::from_value(grants).unwrap()).unwrap();
    let mut stranger = Caller::new(&live, &Credentials::new(stranger_id.clone(), secret));
    let error = stranger.decrypt(&blob, &pairs).unwrap_err();
    expected.push(Refusal(error.request_id, stranger_id.as_str(), "Decrypt", ABSENT, None));
    let error = stranger.re_encrypt(&blob, b).unwrap_err();
    expected.push(Refusal(error.request_id, stranger_id.as_str(), "ReEncrypt", ABSENT, Some((b, 1))));
    let error = stranger.decrypt_under(b, &blob).unwrap_err();
    expected.push(Refusal(error.request_id, stranger_id.as_str(), "Decrypt", CLOSED, None));
    // A11
    let error = caller.decrypt(&data_key, &[]).unwrap_err();
    expected.push(Refusal(error.request_id, &root, "Decrypt", CLOSED, Some((a, 1))));
    let error = caller.export(&data_key, &[], &Owner::shared().recipient()).unwrap_err();
    expected.push(Refusal(error.request_id, &root, "ExportDataKey", CLOSED, Some((a, 1))));
    drop((caller, raw, stranger));

    let site = live.halt();
    let lines = audit_lines(&site);
    for refusal in &expected {
        let of_it: Vec<_> = lines.iter().filter(|line| requests_of(line).contains(&refusal.0)).collect();
        let [line] = of_it[..] else { panic!("{refusal:?}: {of_it:?}") };
        let text = |field: &str| line[field].as_str().unwrap_or_default();
        // Of a re-encryption it is the key that it was to go to.
        let touched = line["keys"].as_array().unwrap().first();
        let key = touched.map(|touch| {
            assert_eq!(touch["items"], 0, "nothing was done");
            (touch["cmk"].as_str().and_then(CmkId::parse).unwrap(), touch["version"].as_u64().unwrap() as u32)
        });
        let told = Refusal(refusal.0.clone(), text("principal"), text("operation"), text("outcome"), key);
        assert_eq!(told, *refusal, "{line}");
        assert_eq!(line["failed"], line["items"], "{line}");
    }
    verified(&site);
}

#[test]
fn a15_limits_are_exact() {
    let (live, mut caller) = begin();
    let key = caller.create_key();
    for n in [0, 1, 6_144] {
        let plaintext = vec![7; n];
        let blob = caller.encrypt(key, &plaintext, &[]).unwrap();
        assert_eq!(blob.len(), n + keymill_harness::overhead());
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), plaintext);
    }
    let error = caller.encrypt(key, &[7; 6_145], &[]).unwrap_err();
    assert_eq!((error.status, &*error.code), (400, "Rejected.LimitExceeded.PlaintextBytes"));
    assert!(error.message.contains("6145") && error.message.contains("6144"), "{}", error.message);

    // {"k":"…"}: eight characters around the value.
    let value = "x".repeat(8_192 - 8);
    let blob = caller.encrypt(key, b"x", &[("k", &value)]).unwrap();
    assert_eq!(caller.decrypt(&blob, &[("k", &value)]).unwrap(), b"x");
    let (id, secret) = caller.create_access_key(grants_of("Root")).unwrap();
    let mut raw = Raw::log_in(live.address, &id, &secret);
    let told = raw.ask(
        "Encrypt",
        vec![
            ("KeyId", key.to_string().into()),
            ("Plaintext", Value::Binary(b"x".to_vec())),
            ("EncryptionContext", Value::Map(vec![("k".into(), format!("{value}x").into())])),
        ],
    );
    assert_eq!((told.status, told.text("Code")), (400, "Rejected.LimitExceeded.ContextCharacters"));

    let items = vec![vec![7; 65_536], vec![7; 65_537], vec![7]];
    let request = keymill_e2e::batch_encrypt(key, &items);
    let (sealed, errors) = caller
        .ask(request, |reply| match reply {
            Reply::BatchEncrypt(reply) => {
                let items: Vec<_> = reply.items.into_iter().map(|item| item.map(Bin::into_vec)).collect();
                (items, reply.errors)
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert_eq!(sealed.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(
        errors.iter().map(|error| (error.0, &*error.1)).collect::<Vec<_>>(),
        [(1, "Rejected.LimitExceeded.ItemBytes")]
    );
    let largest = sealed[0].clone().expect("it was sealed");
    assert_eq!(caller.batch_decrypt(&[largest]).unwrap().items[0].as_deref(), Some(&items[0][..]));
}

#[test]
fn a15_a_batch_holds_65_536_items_and_not_one_more() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let mut items = vec![Vec::new(); 65_536];
    // In a token of a machine that is busy they take longer than a request usually may.
    let request = BatchEncryptRequest { timeout_ms: Some(MAX_TIMEOUT_MS), ..batch_encrypt(key, &items) };
    let counts = caller.ask(request, |reply| match reply {
        Reply::BatchEncrypt(reply) => (reply.items.iter().flatten().count(), reply.errors.len()),
        other => panic!("{:?}", other.operation()),
    });
    assert_eq!(counts.unwrap(), (65_536, 0));
    items.push(Vec::new());
    let error = caller.batch_encrypt(key, &items).unwrap_err();
    assert_eq!(&*error.code, "Rejected.LimitExceeded.BatchItems");
    let request = BatchGenerateDataKeyRequest {
        key_id: key.key_ref(),
        count: 65_537,
        key_spec: None,
        number_of_bytes: None,
        without_plaintext: Some(true),
        encryption_context: None,
        encryption_contexts: None,
        timeout_ms: None,
    };
    assert_eq!(&*caller.ask(request, |_| ()).unwrap_err().code, "Rejected.LimitExceeded.BatchItems");
}
