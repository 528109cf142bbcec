//! The use of keys: derivations, and batches of items.

use std::sync::Arc;

use keymill_core::blob::Algorithm;
use keymill_core::key::KeySpec;
use keymill_core::seam::provider::{CryptoSession, DeriveJob, JobError, KeyHandle};

use super::{Fixture, Message, Use, bytes, derive, open, pack, seal, unpack};

/// SP 800-38B, AES-256: the key of its examples.
const CMAC_KEY: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";

/// Computes the one-block example of SP 800-38B, in each half.
pub fn derivation_is_the_cmac_of_the_standard(fixture: &Fixture) {
    let key = fixture.known(&bytes::<32>(CMAC_KEY), Use::Derive);
    let message = bytes("6bc1bee22e409f96e93d7e117393172a");
    let expected: [u8; 16] = bytes("28a7023f452e8f82bd4bf28d8c37c35c");
    // The halves must not be exchanged or computed from one message.
    let other = bytes("ae2d8a571e03ac9c9eb76fac45af8e51");
    let mut session = fixture.session();
    let forth = derive(&mut *session, &key, [message, other]).expect("it derives");
    let back = derive(&mut *session, &key, [other, message]).expect("it derives");
    assert_eq!((&forth[..16], &back[16..]), (&expected[..], &expected[..]));
    assert_eq!(forth[16..], back[..16]);
    assert_ne!(forth[..16], forth[16..]);
}

/// Does many jobs as it does one, and none twice.
pub fn derivation_does_each_job_that_is_not_done(fixture: &Fixture) {
    let key = fixture.fresh(Use::Derive);
    let mut session = fixture.session();
    let mut jobs: Vec<_> = (0..100).map(|i| DeriveJob::new([[i; 16], [!i; 16]])).collect();
    jobs[50].output = Some(Err(JobError::Rejected));
    session.derive(&key, &mut jobs).expect("the session lives");
    for (i, job) in jobs.into_iter().enumerate() {
        let output = job.output.expect("each job is done").map(|output| output.expose().to_vec());
        if i == 50 {
            assert_eq!(output, Err(JobError::Rejected), "it had its outcome");
        } else {
            assert_eq!(output, derive(&mut *session, &key, job.messages));
        }
    }
}

/// Test case 16 of the GCM submission to NIST (McGrew and Viega, appendix B).
pub fn sealing_is_the_aes_gcm_of_the_standard(fixture: &Fixture) {
    let key = [bytes::<16>(GCM_KEY); 2].concat();
    let key = fixture.known(&key, Use::Aead);
    let text = concat!(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
    );
    seals_as_known(fixture, &key, text, "76fc6ece0f4e1768cddf8853bb2d551b");
}

/// Test cases 4 and 10 of the same, where such keys are offered; they derive nothing.
pub fn sealing_by_shorter_keys_is_that_of_the_standard(fixture: &Fixture) {
    let cases = [
        (
            KeySpec::Aes128,
            Algorithm::Aes128Gcm,
            bytes::<16>(GCM_KEY).to_vec(),
            concat!(
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
                "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
            ),
            "5bc94fbc3221a5db94fae95ae7121a47",
        ),
        (
            KeySpec::Aes192,
            Algorithm::Aes192Gcm,
            bytes::<24>("feffe9928665731c6d6a8f9467308308feffe9928665731c").to_vec(),
            concat!(
                "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c",
                "7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710"
            ),
            "2519498e80f1478f37ba55bd6d27618c",
        ),
    ];
    for (spec, algorithm, material, text, tag) in cases {
        if !fixture.provider.profile().specs.contains(&spec) {
            continue;
        }
        assert!(fixture.provider.profile().algorithms.contains(&algorithm));
        let key = fixture.load(&(fixture.bring)(spec, &material, fixture.mode(Use::Aead)));
        seals_as_known(fixture, &key, text, tag);
        assert_eq!(derive(&mut *fixture.session(), &key, [[1; 16], [2; 16]]), Err(JobError::Rejected));
    }
}

/// RFC 8998, A.1, where keys of SM4 are offered.
pub fn sealing_by_sm4_is_that_of_the_standard(fixture: &Fixture) {
    if !fixture.provider.profile().specs.contains(&KeySpec::Sm4) {
        return;
    }
    assert!(fixture.provider.profile().algorithms.contains(&Algorithm::Sm4Gcm));
    let material = bytes::<16>("0123456789abcdeffedcba9876543210");
    let key = fixture.load(&(fixture.bring)(KeySpec::Sm4, &material, fixture.mode(Use::Aead)));
    let plain = Message {
        nonce: bytes("00001234567800000000abcd"),
        aad: bytes::<20>("feedfacedeadbeeffeedfacedeadbeefabaddad2").into(),
        text: bytes::<64>(concat!(
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd",
            "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
        ))
        .into(),
        tag: [0; 16],
    };
    let sealed = Message {
        text: bytes::<64>(concat!(
            "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735",
            "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
        ))
        .into(),
        tag: bytes("83de3541e4c2b58177e065a9bf7b62ec"),
        ..plain.clone()
    };
    let mut session = fixture.session();
    assert_eq!(seal(&mut *session, &key, std::slice::from_ref(&plain)), [Ok(sealed.clone())]);
    assert_eq!(
        open(&mut *session, &key, std::slice::from_ref(&sealed))[0],
        Ok(Message { tag: sealed.tag, ..plain.clone() })
    );
    let bytes: [fn(&mut Message) -> &mut u8; 4] =
        [|m| &mut m.tag[15], |m| &mut m.text[0], |m| &mut m.nonce[11], |m| &mut m.aad[3]];
    for byte in bytes {
        let mut altered = sealed.clone();
        *byte(&mut altered) ^= 1;
        assert_eq!(open(&mut *session, &key, &[altered]), [Err(JobError::InvalidCiphertext)]);
    }
    // Texts of no block, of a part of one, and of several.
    for length in [0, 1, 15, 17, 300] {
        let message = Message { text: vec![7; length], ..plain.clone() };
        let sealed =
            seal(&mut *session, &key, std::slice::from_ref(&message)).remove(0).expect("it is sealed");
        assert_eq!(open(&mut *session, &key, &[sealed])[0].as_ref().expect("it opens").text, message.text);
    }
    assert_eq!(derive(&mut *session, &key, [[1; 16], [2; 16]]), Err(JobError::Rejected));
}

/// The key of the examples of GCM, once for 128 bits and twice for 256.
const GCM_KEY: &str = "feffe9928665731c6d6a8f9467308308";

fn seals_as_known(fixture: &Fixture, key: &KeyHandle, text: &str, tag: &str) {
    let plain = Message {
        nonce: bytes("cafebabefacedbaddecaf888"),
        aad: bytes::<20>("feedfacedeadbeeffeedfacedeadbeefabaddad2").into(),
        text: bytes::<60>(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ))
        .into(),
        tag: [0; 16],
    };
    let sealed = Message { text: bytes::<60>(text).into(), tag: bytes(tag), ..plain.clone() };
    let mut session = fixture.session();
    assert_eq!(seal(&mut *session, key, std::slice::from_ref(&plain)), [Ok(sealed.clone())]);
    // Some do a batch of several in another way than one.
    let twice = [plain.clone(), plain.clone()];
    assert_eq!(seal(&mut *session, key, &twice), [Ok(sealed.clone()), Ok(sealed.clone())]);
    assert_eq!(open(&mut *session, key, &[sealed])[0].as_ref().expect("it opens").text, plain.text);
}

/// Opens what it sealed, of every length, under the same key alone.
pub fn a_batch_seals_and_opens_again(fixture: &Fixture) {
    let key = fixture.fresh(Use::Aead);
    let mut session = fixture.session();
    let plain: Vec<_> = (0..100).map(Message::numbered).collect();
    let sealed = sealed(&mut *session, &key, &plain);
    for (plain, sealed) in plain.iter().zip(&sealed) {
        assert_eq!(
            (&plain.nonce, &plain.aad, plain.text.len()),
            (&sealed.nonce, &sealed.aad, sealed.text.len())
        );
        assert_ne!(sealed.tag, plain.tag);
        assert!(plain.text.len() < 16 || plain.text != sealed.text);
    }
    for (opened, plain) in open(&mut *session, &key, &sealed).into_iter().zip(&plain) {
        assert_eq!(opened.expect("it opens").text, plain.text);
    }
    let another = fixture.fresh(Use::Aead);
    let refused = open(&mut *session, &another, &sealed);
    assert!(refused.iter().all(|outcome| *outcome == Err(JobError::InvalidCiphertext)));
}

/// Refuses each flipped bit, and each part cut or lengthened, alike.
pub fn an_altered_tag_text_nonce_or_aad_does_not_open(fixture: &Fixture) {
    let key = fixture.fresh(Use::Aead);
    let mut session = fixture.session();
    let good = sealed(&mut *session, &key, &[Message::numbered(9)]).remove(0);
    let mut bad = Vec::new();
    let parts: [fn(&mut Message) -> &mut [u8]; 4] =
        [|m| &mut m.tag, |m| &mut m.text, |m| &mut m.nonce, |m| &mut m.aad];
    for part in parts {
        for bit in 0..8 * part(&mut good.clone()).len() {
            let mut altered = good.clone();
            part(&mut altered)[bit / 8] ^= 1 << (bit % 8);
            bad.push(altered);
        }
    }
    bad.push(Message { tag: [0; 16], ..good.clone() });
    bad.push(Message { aad: Vec::new(), ..good.clone() });
    bad.push(Message { aad: [&good.aad[..], &[0]].concat(), ..good.clone() });
    bad.push(Message { text: Vec::new(), ..good.clone() });
    bad.push(Message { text: [&good.text[..], &[0]].concat(), ..good.clone() });
    for (i, outcome) in open(&mut *session, &key, &bad).into_iter().enumerate() {
        assert_eq!(outcome, Err(JobError::InvalidCiphertext), "alteration {i}");
    }
    assert!(open(&mut *session, &key, &[good])[0].is_ok());
}

/// Blames the one item, releases nothing of it, and does the others.
pub fn a_bad_item_leaves_its_neighbours_fine(fixture: &Fixture) {
    let key = fixture.fresh(Use::Aead);
    let mut session = fixture.session();
    let plain: Vec<_> = (0..20).map(Message::numbered).collect();
    let mut sealed = sealed(&mut *session, &key, &plain);
    for at in [0, 7, 19] {
        sealed[at].tag[0] ^= 1;
    }
    let mut batch = pack(&sealed);
    session.decrypt(&key, &mut batch).expect("the session lives");
    for (i, outcome) in unpack(&batch).into_iter().enumerate() {
        if [0, 7, 19].contains(&i) {
            assert_eq!(outcome, Err(JobError::InvalidCiphertext), "item {i}");
            let left = &batch.buffer[batch.items[i].text.clone()];
            assert!(left.is_empty() || left != plain[i].text, "item {i}: its plaintext was released");
        } else {
            assert_eq!(outcome.expect("it opens").text, plain[i].text, "item {i}");
        }
    }
    // One whose ranges lie outside the batch is its caller's fault, and no other item's.
    let mut batch = pack(&plain);
    batch.items[3].text.start = batch.buffer.len() - 15;
    batch.items[3].text.end = batch.buffer.len();
    batch.items[4].aad = 0..batch.aad.len() + 1;
    session.encrypt(&key, &mut batch).expect("the session lives");
    let outcomes: Vec<_> = batch.items.iter().map(|item| item.outcome.expect("each item is done")).collect();
    for (i, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome, if i == 3 || i == 4 { Err(JobError::Rejected) } else { Ok(()) }, "item {i}");
    }
}

/// Touches no item that another session has done.
pub fn an_item_that_has_its_outcome_is_left_alone(fixture: &Fixture) {
    let key = fixture.fresh(Use::Aead);
    let mut batch = pack(&[Message::numbered(5), Message::numbered(6)]);
    batch.items[0].outcome = Some(Err(JobError::Rejected));
    let before = batch.buffer.clone();
    fixture.session().encrypt(&key, &mut batch).expect("the session lives");
    assert_eq!(batch.items[0].outcome, Some(Err(JobError::Rejected)));
    assert_eq!(batch.items[1].outcome, Some(Ok(())));
    let first = batch.items[0].text.end + 16;
    assert_eq!(batch.buffer[..first], before[..first]);
}

/// Takes batches from none to what its profile names.
pub fn batches_of_nothing_and_of_the_largest_size_are_done(fixture: &Fixture) {
    let key = fixture.fresh(Use::Aead);
    let mut session = fixture.session();
    assert!(seal(&mut *session, &key, &[]).is_empty());
    session.derive(&fixture.fresh(Use::Derive), &mut []).expect("the session lives");
    let plain: Vec<_> = (0..fixture.provider.profile().max_batch)
        .map(|i| Message { text: vec![1], aad: Vec::new(), ..Message::numbered(i) })
        .collect();
    let sealed = sealed(&mut *session, &key, &plain);
    assert!(
        open(&mut *session, &key, &sealed)
            .iter()
            .all(|outcome| outcome.as_ref().expect("it opens").text == [1])
    );
}

/// Lets sessions on several threads use one key at once.
pub fn a_handle_serves_every_session(fixture: &Fixture) {
    let key = fixture.fresh(Use::Aead);
    let plain = [Message::numbered(40)];
    let sealed = sealed(&mut *fixture.session(), &key, &plain);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (mut session, key, sealed, plain) = (fixture.session(), &key, &sealed, &plain);
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(
                        open(&mut *session, key, sealed)[0].as_ref().expect("it opens").text,
                        plain[0].text
                    );
                }
            });
        }
    });
}

/// Refuses, and never uses, a handle of another opening, an older generation, another technology.
pub fn a_handle_of_another_provider_is_stale(fixture: &Fixture) {
    let ours = fixture.fresh(Use::Aead);
    let mut strangers = fixture.other.open_session().expect("a session opens");
    let older = KeyHandle { generation: ours.generation.wrapping_sub(1), ..ours.clone() };
    let foreign =
        KeyHandle { generation: ours.generation, object: Arc::new("an object of another technology") };
    let mut own = fixture.session();
    let cases: [(&mut dyn CryptoSession, _); 3] =
        [(&mut *strangers, &ours), (&mut *own, &older), (&mut *fixture.session(), &foreign)];
    for (session, handle) in cases {
        let mut batch = pack(&[Message::numbered(3), Message::numbered(4)]);
        let before = batch.buffer.clone();
        session.encrypt(handle, &mut batch).expect("the session lives");
        assert!(batch.items.iter().all(|item| item.outcome == Some(Err(JobError::StaleHandle))));
        assert_eq!(batch.buffer, before);
        assert_eq!(open(session, handle, &[Message::numbered(3)]), [Err(JobError::StaleHandle)]);
        assert_eq!(derive(session, handle, [[0; 16]; 2]), Err(JobError::StaleHandle));
    }
}

fn sealed(session: &mut dyn CryptoSession, key: &KeyHandle, plain: &[Message]) -> Vec<Message> {
    seal(session, key, plain).into_iter().map(|outcome| outcome.expect("it is sealed")).collect()
}
