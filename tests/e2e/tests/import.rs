//! Key material of a caller's own (`Origin` `EXTERNAL`), and the security cases that are about its import: C9, other material; C10, tokens;
//! F1, its records.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::sync::Barrier;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use keymill_core::id::CmkId;
use keymill_core::key::{
    DecryptAlgorithm, KeySpec, KeyState, KeyUsage, Origin, ProtectionLevel, SignAlgorithm, WrappingAlgorithm,
};
use keymill_core::operation::*;
use keymill_core::seam::provider::PublicKey;
use keymill_crypto::{digest, payload};
use keymill_e2e::{Answered, Caller, Parameters, Rows, audit_lines, eventually, key_wrap, verified};
use keymill_harness::{Fuse, Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;

const DAY_MS: i64 = 86_400_000;
const MATERIAL: [u8; 32] = *b"material of our own, 32 bytes!!!";
const OTHER: [u8; 32] = *b"material of another, 32 bytes!!!";

fn config() -> EngineConfig {
    EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() }
}

fn begin() -> (Live, keymill_client::Credentials, Caller) {
    let Started { live, credentials } = Live::start(config());
    let caller = Caller::new(&live, &credentials);
    (live, credentials, caller)
}

fn external(caller: &mut Caller) -> CmkId {
    caller.create_external(KeySpec::Aes256, None).unwrap().key
}

/// Checks that a request is refused with a code, and its status.
fn refused<T: std::fmt::Debug>(answered: Answered<T>, code: &str) {
    let error = answered.unwrap_err();
    let status = if code.starts_with("Rejected.") { 409 } else { 400 };
    assert_eq!((&*error.code, error.status), (code, status), "{error}");
}

const INVALID_MATERIAL: &str = "InvalidKeyMaterial";
const INVALID_TOKEN: &str = "InvalidImportToken";
const EXPIRED_TOKEN: &str = "ExpiredImportToken";

fn state(caller: &mut Caller, key: CmkId) -> KeyState {
    caller.describe(key).unwrap().key_state
}

fn import_path(key: CmkId) -> String {
    format!("import/{key}")
}

#[test]
fn material_is_brought_in_every_wrapping_and_is_what_the_key_computes_with() {
    let (_live, _, mut caller) = begin();
    for spec in [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096] {
        for algorithm in [
            WrappingAlgorithm::RsaesOaepSha1,
            WrappingAlgorithm::RsaesOaepSha256,
            WrappingAlgorithm::RsaAesKeyWrapSha256,
        ] {
            let key = caller.create_external(KeySpec::HmacSha256, None).unwrap().key;
            assert_eq!(caller.describe(key).unwrap().origin, Origin::External);
            assert_eq!(state(&mut caller, key), KeyState::PendingImport);
            let by = caller.import_parameters(key, spec, algorithm).unwrap();
            caller.import_by(key, &by, &MATERIAL).unwrap();
            assert_eq!(state(&mut caller, key), KeyState::Enabled);
            let mac = caller.mac(key, SignAlgorithm::HmacSha256, b"message").unwrap();
            assert_eq!(mac, digest::hmac_sha256(&MATERIAL, b"message"), "{spec:?} {algorithm:?}");
        }
    }
    for (spec, bytes) in [(KeySpec::Aes256, 32), (KeySpec::Aes128, 16)] {
        let key = caller.create_external(spec, None).unwrap().key;
        caller.import(key, &MATERIAL[..bytes], None).unwrap();
        let blob = caller.encrypt(key, b"x", &[("a", "b")]).unwrap();
        assert_eq!(caller.decrypt(&blob, &[("a", "b")]).unwrap(), b"x");
        // One that is brought into two keys is not theirs in common.
        let twin = caller.create_external(spec, None).unwrap().key;
        caller.import(twin, &MATERIAL[..bytes], None).unwrap();
        assert_eq!(caller.decrypt_under(twin, &blob).unwrap_err().code, "InvalidParameter");
    }
}

#[test]
fn key_pairs_come_as_pkcs_8_and_none_as_another() {
    let (live, credentials, mut caller) = begin();
    let hybrid = WrappingAlgorithm::RsaAesKeyWrapSha256;
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let curve = signer.to_pkcs8v1().unwrap().as_ref().to_vec();
    let public: PublicKeyX509Der<'_> = signer.public_key().as_der().unwrap();
    let verifier = PublicKey::from_der(public.as_ref().to_vec());
    let modulus = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let modulus: Pkcs8V1Der<'_> = modulus.as_der().unwrap();
    let pair = caller.create_external(KeySpec::EcP256, None).unwrap();
    for wrong in [modulus.as_ref(), &MATERIAL, &curve[1..]] {
        let by = caller.import_parameters(pair.key, KeySpec::Rsa2048, hybrid).unwrap();
        refused(caller.import_by(pair.key, &by, wrong), INVALID_MATERIAL);
    }
    let by = caller.import_parameters(pair.key, KeySpec::Rsa2048, hybrid).unwrap();
    caller.import_by(pair.key, &by, &curve).unwrap();
    let algorithm = SignAlgorithm::EcdsaSha256;
    let signature = caller.sign_digest(pair, algorithm, &[7; 32]).unwrap();
    let half = keymill_provider_software::public_half(KeySpec::EcP256, &verifier).unwrap();
    assert_eq!(half.verify(algorithm, &[7; 32], &signature), Ok(true), "the public half is the caller's own");
    assert_eq!(caller.public_key(pair).unwrap(), verifier.to_pem());
    refused(caller.create_version(pair.key), "UnsupportedOperation");

    let opener = caller.create_external(KeySpec::Rsa2048, Some(KeyUsage::EncryptDecrypt)).unwrap();
    for wrong in [&curve[..], &MATERIAL] {
        let by = caller.import_parameters(opener.key, KeySpec::Rsa3072, hybrid).unwrap();
        refused(caller.import_by(opener.key, &by, wrong), INVALID_MATERIAL);
    }
    let by = caller.import_parameters(opener.key, KeySpec::Rsa3072, hybrid).unwrap();
    caller.import_by(opener.key, &by, modulus.as_ref()).unwrap();
    let oaep = DecryptAlgorithm::RsaesOaepSha256;
    let sealed = caller.encrypt_for(opener, oaep, b"x").unwrap();
    drop(caller);
    let live = live.halt().start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.decrypt_by(opener, oaep, &sealed).unwrap(), b"x");
    caller.delete_material(opener.key).unwrap();
    refused(caller.decrypt_by(opener, oaep, &sealed), "Rejected.PendingImport");
    refused(caller.public_key(opener), "Rejected.PendingImport");
}

#[test]
fn what_is_not_for_such_keys_or_not_offered_is_refused_plainly() {
    let (_live, _, mut caller) = begin();
    let (key, usual) = (external(&mut caller), caller.create_key());
    refused(caller.usual_parameters(usual), "Unsupported.Origin");
    refused(caller.import_wrapped(usual, &ImportToken("x".into()), b"x", None), "Unsupported.Origin");
    refused(caller.delete_material(usual), "Unsupported.Origin");
    caller.create_alias("alias/brought", key).unwrap();
    refused(caller.usual_parameters("alias/brought"), "Unsupported.Alias");
    refused(caller.delete_material("alias/brought"), "Unsupported.Alias");
    for (spec, algorithm) in [
        (KeySpec::Rsa2048, WrappingAlgorithm::RsaesPkcs1V15),
        (KeySpec::EcSm2, WrappingAlgorithm::Sm2Pke),
        (KeySpec::Aes256, WrappingAlgorithm::RsaesOaepSha256),
    ] {
        refused(caller.import_parameters(key, spec, algorithm), "UnsupportedOperation");
    }
    let asked = |protection_level, rotated| CreateKeyRequest {
        origin: Some(Origin::External),
        protection_level: Some(protection_level),
        enable_automatic_rotation: Some(rotated),
        rotation_interval: rotated
            .then(|| keymill_core::key::RotationInterval::parse("7d").expect("it is one")),
        ..Default::default()
    };
    refused(caller.ask(asked(ProtectionLevel::Hsm, false), |_| ()), "UnsupportedOperation");
    refused(caller.ask(asked(ProtectionLevel::Software, true), |_| ()), "UnsupportedOperation");
    caller.import(key, &MATERIAL, None).unwrap();
    refused(caller.rotate(key), "UnsupportedOperation");
    let pair = caller.create_external(KeySpec::EcP256, Some(KeyUsage::SignVerify)).unwrap();
    refused(caller.create_version(pair.key), "Rejected.PendingImport");
    let by = caller.usual_parameters(key).unwrap();
    for past in [1, 253_402_300_800] {
        let wrapped = by.wrap(&MATERIAL);
        refused(caller.import_wrapped(key, &by.token, &wrapped, Some(past)), "InvalidParameter");
    }
    let long = vec![0; 8_193];
    refused(caller.import_wrapped(key, &by.token, &long, None), "InvalidParameter");
}

/// Ways to bring what is no material of an AES-256 key.
fn spoilt(by: &Parameters) -> Vec<Vec<u8>> {
    let good = by.wrap(&MATERIAL);
    let mut flipped = good.clone();
    flipped[7] ^= 1;
    vec![
        flipped,
        by.wrap(&MATERIAL[1..]),
        by.encrypt(&OAEP_SHA1_MGF1SHA1, &MATERIAL),
        good[1..].to_vec(),
        Vec::new(),
    ]
}

#[test]
fn whatever_does_not_unwrap_is_refused_alike_and_the_fifth_try_is_the_last() {
    let (live, _, mut caller) = begin();
    let key = external(&mut caller);
    let by = caller.usual_parameters(key).unwrap();
    let mut told = Vec::new();
    for wrapped in spoilt(&by) {
        let error = caller.import_wrapped(key, &by.token, &wrapped, None).unwrap_err();
        assert_eq!((&*error.code, error.status, error.retryable), (INVALID_MATERIAL, 400, false));
        told.push(error.message);
    }
    assert_eq!(told.len(), 5);
    assert!(told.iter().all(|message| *message == told[0]), "{told:?}");
    refused(caller.import_by(key, &by, &MATERIAL), INVALID_TOKEN);

    let hybrid = WrappingAlgorithm::RsaAesKeyWrapSha256;
    let by = caller.import_parameters(key, KeySpec::Rsa2048, hybrid).unwrap();
    let short = [by.encrypt(&OAEP_SHA256_MGF1SHA256, &[0x5c; 16]), key_wrap(&[0x5c; 32], &MATERIAL)].concat();
    let mut flipped = by.wrap(&MATERIAL);
    *flipped.last_mut().unwrap() ^= 1;
    for wrapped in [by.encrypt(&OAEP_SHA256_MGF1SHA256, &MATERIAL), short, flipped, by.wrap(&[7; 33])] {
        let error = caller.import_wrapped(key, &by.token, &wrapped, None).unwrap_err();
        assert_eq!((&*error.code, &*error.message), (INVALID_MATERIAL, &*told[0]));
    }
    // The fifth.
    caller.import_by(key, &by, &MATERIAL).unwrap();
    assert_eq!(state(&mut caller, key), KeyState::Enabled);
    drop(caller);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), Vec::<String>::new());
    verified(&site);
}

#[test]
fn c11_material_of_zero_bytes_alone_is_refused_as_what_does_not_unwrap() {
    let (_live, _, mut caller) = begin();
    for (spec, bytes) in [(KeySpec::Aes256, 32), (KeySpec::Aes128, 16), (KeySpec::HmacSha256, 32)] {
        let key = caller.create_external(spec, None).unwrap().key;
        for algorithm in [
            WrappingAlgorithm::RsaesOaepSha1,
            WrappingAlgorithm::RsaesOaepSha256,
            WrappingAlgorithm::RsaAesKeyWrapSha256,
        ] {
            let by = caller.import_parameters(key, KeySpec::Rsa2048, algorithm).unwrap();
            let other = caller.import_by(key, &by, &[1, 2, 3]).unwrap_err();
            let zero = caller.import_by(key, &by, &vec![0; bytes]).unwrap_err();
            assert_eq!(&*zero.code, INVALID_MATERIAL, "{spec:?} {algorithm:?}");
            assert_eq!((zero.status, zero.message), (other.status, other.message));
            assert_eq!(state(&mut caller, key), KeyState::PendingImport);
        }
        // One bit of it is enough to be material.
        let mut material = vec![0; bytes];
        *material.last_mut().unwrap() = 0x80;
        caller.import(key, &material, None).unwrap();
        assert_eq!(state(&mut caller, key), KeyState::Enabled);
    }
}

#[test]
fn c9_other_material_is_refused_for_ever_and_the_same_opens_old_blobs() {
    let (live, credentials, mut caller) = begin();
    let key = external(&mut caller);
    caller.import(key, &MATERIAL, None).unwrap();
    let blob = caller.encrypt(key, b"old", &[]).unwrap();
    refused(caller.import(key, &OTHER, None), INVALID_MATERIAL);
    caller.delete_material(key).unwrap();
    caller.delete_material(key).unwrap();
    assert_eq!(state(&mut caller, key), KeyState::PendingImport);
    refused(caller.decrypt(&blob, &[]), "Rejected.PendingImport");
    refused(caller.encrypt(key, b"x", &[]), "Rejected.PendingImport");
    refused(caller.import(key, &OTHER, None), INVALID_MATERIAL);
    drop(caller);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths(&format!("material/{key}")), Vec::<String>::new());

    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    refused(caller.decrypt(&blob, &[]), "Rejected.PendingImport");
    refused(caller.import(key, &OTHER, None), INVALID_MATERIAL);
    caller.import(key, &MATERIAL, None).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
    // It is remembered over a deletion that was called off, too.
    caller.schedule_deletion(key).unwrap();
    refused(caller.import(key, &MATERIAL, None), "Rejected.StateModifiedFailed");
    caller.delete_material(key).unwrap();
    assert_eq!(state(&mut caller, key), KeyState::PendingDeletion);
    caller.cancel_deletion(key).unwrap();
    assert_eq!(state(&mut caller, key), KeyState::PendingImport);
    refused(caller.import(key, &OTHER, None), INVALID_MATERIAL);
    caller.import(key, &MATERIAL, None).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
    // One that is disabled stays so.
    caller.disable(key).unwrap();
    caller.import(key, &MATERIAL, None).unwrap();
    assert_eq!(state(&mut caller, key), KeyState::Disabled);
    drop(caller);
    let site = live.halt();
    let deleted = |line: &&serde_json::Value| {
        line["operation"] == "DeleteKeyMaterial" && line["keys"][0]["cmk"] == key.to_string()
    };
    assert_eq!(audit_lines(&site).iter().filter(deleted).count(), 3);
    verified(&site);
}

#[test]
fn c10_a_token_is_of_one_key_and_dies_with_its_use_and_with_the_next_one() {
    let (live, _, mut caller) = begin();
    let (key, other) = (external(&mut caller), external(&mut caller));
    let first = caller.usual_parameters(key).unwrap();
    let of_other = caller.usual_parameters(other).unwrap();
    refused(caller.import_by(key, &of_other, &MATERIAL), INVALID_TOKEN);
    refused(caller.import_by(other, &first, &MATERIAL), INVALID_TOKEN);
    // The token of one, and what wraps for the other.
    let wrapped = of_other.wrap(&MATERIAL);
    refused(caller.import_wrapped(key, &first.token, &wrapped, None), INVALID_MATERIAL);
    let token = &first.token.0;
    let swapped = format!("{}{}", &token[1..], &token[..1]);
    for tampered in ["", &token[1..], &format!("{token}0"), &token.to_uppercase(), &swapped] {
        let tampered = ImportToken(tampered.into());
        if tampered != first.token {
            refused(caller.import_wrapped(key, &tampered, &first.wrap(&MATERIAL), None), INVALID_TOKEN);
        }
    }
    let second = caller.usual_parameters(key).unwrap();
    assert_ne!(second.public, first.public);
    refused(caller.import_by(key, &first, &MATERIAL), INVALID_TOKEN);
    let mixed = Parameters { token: second.token.clone(), ..first };
    refused(caller.import_by(key, &mixed, &MATERIAL), INVALID_MATERIAL);
    caller.import_by(key, &second, &MATERIAL).unwrap();
    for material in [MATERIAL, OTHER] {
        refused(caller.import_by(key, &second, &material), INVALID_TOKEN);
    }
    caller.import_by(other, &of_other, &OTHER).unwrap();
    drop(caller);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), Vec::<String>::new(), "the wrapping keys are destroyed");
    verified(&site);
}

#[test]
fn c10_of_two_materials_that_race_by_one_token_one_is_taken() {
    const CALLERS: usize = 8;
    let (live, credentials, mut caller) = begin();
    let keys = [(); 5].map(|()| external(&mut caller));
    let mut winners = Vec::new();
    for key in keys {
        let by = caller.usual_parameters(key).unwrap();
        let start = Barrier::new(CALLERS);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let race = |n: usize| {
                let (live, credentials, by, start) = (&live, &credentials, &by, &start);
                scope.spawn(move || {
                    let mut caller = Caller::new(live, credentials);
                    let material = [MATERIAL, OTHER][n % 2];
                    let wrapped = by.wrap(&material);
                    start.wait();
                    (material, caller.import_wrapped(key, &by.token, &wrapped, None))
                })
            };
            let threads: Vec<_> = (0..CALLERS).map(race).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let taken = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(material, _)| *material);
        let taken: HashSet<_> = taken.collect();
        assert_eq!(taken.len(), 1, "{answers:?}");
        winners.extend(taken);
        for refused in answers.into_iter().filter_map(|(_, answer)| answer.err()) {
            assert!([INVALID_MATERIAL, INVALID_TOKEN].contains(&&*refused.code), "{refused}");
        }
        assert_eq!(state(&mut caller, key), KeyState::Enabled);
    }
    let blobs = keys.map(|key| caller.encrypt(key, b"x", &[]).unwrap());
    drop(caller);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("import/"), Vec::<String>::new());
    for key in keys {
        let is_try = |line: &&serde_json::Value| {
            line["operation"] == "TryImport" && line["keys"][0]["cmk"] == key.to_string()
        };
        let tries = audit_lines(&site).iter().filter(is_try).count();
        assert!((1..=5).contains(&tries), "{tries}");
    }
    verified(&site);
    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    for ((key, winner), blob) in keys.into_iter().zip(winners).zip(&blobs) {
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), b"x");
        caller.delete_material(key).unwrap();
        let loser = if winner == MATERIAL { OTHER } else { MATERIAL };
        refused(caller.import(key, &loser, None), INVALID_MATERIAL);
        caller.import(key, &winner, None).unwrap();
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), b"x");
    }
}

/// Tells whether the wrapping key of an import is in the store.
fn has_wrapping_key(site: &Site, key: CmkId) -> bool {
    let path = import_path(key);
    let record = Rows::of(site).get(&path).unwrap();
    let opened = site.sealer().open(&path, 9, &record).unwrap();
    let record: keymill_runtime::records::ImportRecord = payload::decode(&opened.payload).unwrap();
    record.wrapping.is_some()
}

#[test]
fn c10_a_token_outlives_a_restart_and_its_tries_do_and_its_day_ends_it() {
    let (live, credentials, mut caller) = begin();
    let [used, tried, late] = [(); 3].map(|()| external(&mut caller));
    let by_used = caller.usual_parameters(used).unwrap();
    let by_tried = caller.usual_parameters(tried).unwrap();
    let by_late = caller.usual_parameters(late).unwrap();
    for _ in 0..4 {
        refused(caller.import_by(tried, &by_tried, &MATERIAL[1..]), INVALID_MATERIAL);
    }
    drop(caller);
    let site = live.halt();
    assert!(has_wrapping_key(&site, late));
    let hour = DAY_MS / 24;
    let live = site.start(Setup::new(config()).at_offset_ms(DAY_MS - hour));
    let mut caller = Caller::new(&live, &credentials);
    caller.import_by(used, &by_used, &MATERIAL).unwrap();
    refused(caller.import_by(tried, &by_tried, &MATERIAL[1..]), INVALID_MATERIAL);
    refused(caller.import_by(tried, &by_tried, &MATERIAL), INVALID_TOKEN);
    drop(caller);

    let live = live.halt().start(Setup::new(config()).at_offset_ms(DAY_MS + 1_000));
    let mut caller = Caller::new(&live, &credentials);
    refused(caller.import_by(late, &by_late, &MATERIAL), EXPIRED_TOKEN);
    drop(caller);
    // The look at the start destroys it.
    let site = live.halt();
    assert!(!has_wrapping_key(&site, late), "it is destroyed when its time is over");
    let live = site.start(Setup::new(config()).at_offset_ms(DAY_MS + 2_000));
    let mut caller = Caller::new(&live, &credentials);
    refused(caller.import_by(late, &by_late, &MATERIAL), EXPIRED_TOKEN);
    caller.import(late, &MATERIAL, None).unwrap();
    assert_eq!(state(&mut caller, late), KeyState::Enabled);
    drop(caller);
    verified(&live.halt());
}

#[test]
fn material_expires_by_the_clock_and_comes_again() {
    let (live, credentials, mut caller) = begin();
    let [expires, kept, disabled, doomed] = [(); 4].map(|()| external(&mut caller));
    let now = caller.describe(kept).unwrap().creation_date.as_s();
    let soon = now + 3_600;
    for key in [expires, kept, disabled, doomed] {
        caller.import(key, &MATERIAL, Some(soon)).unwrap();
        let shown = caller.describe(key).unwrap().material_expire_time;
        assert_eq!(shown, keymill_core::Timestamp::from_ms(soon * 1_000).to_string());
    }
    let blob = caller.encrypt(expires, b"old", &[]).unwrap();
    // Brought again it expires anew, or never.
    caller.import(kept, &MATERIAL, None).unwrap();
    assert_eq!(caller.describe(kept).unwrap().material_expire_time, "");
    caller.disable(disabled).unwrap();
    caller.schedule_deletion(doomed).unwrap();
    drop(caller);

    let live = live.halt().start(Setup::new(config()).at_offset_ms(7_200_000));
    let mut caller = Caller::new(&live, &credentials);
    eventually("it expires", || (state(&mut caller, expires) == KeyState::PendingImport).then_some(()));
    eventually("the disabled one, too", || {
        (state(&mut caller, disabled) == KeyState::PendingImport).then_some(())
    });
    refused(caller.decrypt(&blob, &[]), "Rejected.PendingImport");
    assert_eq!(caller.describe(expires).unwrap().material_expire_time, "");
    assert_eq!(
        (state(&mut caller, kept), state(&mut caller, doomed)),
        (KeyState::Enabled, KeyState::PendingDeletion)
    );
    assert!(caller.encrypt(kept, b"x", &[]).is_ok());
    eventually("that of the doomed one is gone", || {
        caller.describe(doomed).unwrap().material_expire_time.is_empty().then_some(())
    });
    refused(caller.import(expires, &OTHER, None), INVALID_MATERIAL);
    caller.import(expires, &MATERIAL, None).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
    drop(caller);
    let site = live.halt();
    let expired = |line: &&serde_json::Value| line["operation"] == "ExpireKeyMaterial";
    assert_eq!(audit_lines(&site).iter().filter(expired).count(), 3);
    assert_eq!(Rows::of(&site).paths(&format!("material/{disabled}")), Vec::<String>::new());
    verified(&site);
}

#[test]
fn material_does_not_expire_while_the_clock_may_be_wrong() {
    let fuse = Fuse::new();
    let around = fuse.clone();
    let Started { live, credentials } =
        Live::start_with(Setup::new(config()).with_store(move |inner| around.store(inner)));
    let mut caller = Caller::new(&live, &credentials);
    let key = external(&mut caller);
    let soon = caller.describe(key).unwrap().creation_date.as_s() + 7 * 86_400;
    caller.import(key, &MATERIAL, Some(soon)).unwrap();
    live.clock.jump_to_offset_ms(365 * DAY_MS);
    let looked = fuse.commits();
    eventually("five looks at the clock", || (fuse.commits() >= looked + 5).then_some(()));
    assert_eq!(state(&mut caller, key), KeyState::Enabled);
    assert!(caller.encrypt(key, b"x", &[]).is_ok());
}

#[test]
fn f1_records_of_an_import_that_were_changed_are_refused_and_the_rest_is_served() {
    let (live, credentials, mut caller) = begin();
    let [a, b, flipped, gone, older] = [(); 5].map(|()| external(&mut caller));
    let [by_a, by_b, by_flipped, by_gone] =
        [a, b, flipped, gone].map(|key| caller.usual_parameters(key).unwrap());
    let before = caller.usual_parameters(older).unwrap();
    drop(caller);
    let site = live.halt();
    let kept = Rows::of(&site).get(&import_path(older)).unwrap();
    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    let newer = caller.usual_parameters(older).unwrap();
    drop(caller);
    let site = live.halt();
    let rows = Rows::of(&site);
    rows.swap(&import_path(a), &import_path(b));
    rows.flip(&import_path(flipped));
    rows.delete(&import_path(gone));
    rows.put(&import_path(older), &kept);
    drop(rows);
    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    for (key, by) in [
        (a, &by_a),
        (a, &by_b),
        (b, &by_a),
        (b, &by_b),
        (flipped, &by_flipped),
        (gone, &by_gone),
        (older, &before),
        (older, &newer),
    ] {
        refused(caller.import_by(key, by, &MATERIAL), INVALID_TOKEN);
    }
    // Others can be asked for, and are remembered as the newest.
    let again = [a, b, flipped, gone, older].map(|key| (key, caller.usual_parameters(key).unwrap()));
    drop(caller);
    let live = live.halt().start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    for (key, by) in &again {
        caller.import_by(*key, by, &MATERIAL).unwrap();
        assert!(caller.encrypt(*key, b"x", &[]).is_ok());
    }
}

#[test]
fn f1_a_key_that_is_to_forget_its_material_or_when_it_expires_is_refused() {
    let (live, credentials, mut caller) = begin();
    let [new, dated] = [(); 2].map(|()| external(&mut caller));
    let soon = caller.describe(dated).unwrap().creation_date.as_s() + 3_600;
    caller.import(dated, &MATERIAL, None).unwrap();
    drop(caller);
    let site = live.halt();
    let path = |key| format!("cmk/{key}");
    let [blank, undated] = [new, dated].map(|key| Rows::of(&site).get(&path(key)).unwrap());
    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    caller.import(new, &MATERIAL, None).unwrap();
    caller.import(dated, &MATERIAL, Some(soon)).unwrap();
    drop(caller);
    let site = live.halt();
    let rows = Rows::of(&site);
    rows.put(&path(new), &blank);
    rows.put(&path(dated), &undated);
    drop(rows);
    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    for key in [new, dated] {
        for error in [
            caller.usual_parameters(key).unwrap_err(),
            caller.delete_material(key).unwrap_err(),
            caller.encrypt(key, b"x", &[]).unwrap_err(),
        ] {
            assert_eq!((error.status, &*error.code), (503, "Rejected.Quarantined"));
        }
    }
}

#[test]
fn who_uses_keys_imports_none_and_who_administers_them_does() {
    let (live, _, mut caller) = begin();
    let key = external(&mut caller);
    for (role, may) in [
        ("RbacPermission/Template/CryptoServiceKeyUser", false),
        ("Auditor", false),
        ("KeyAdministrator", true),
    ] {
        let grants = serde_json::json!([{ "Role": role }]);
        let (id, secret) = caller.create_access_key(serde_json::from_value(grants).unwrap()).unwrap();
        let mut other = Caller::new(&live, &keymill_client::Credentials::new(id, secret));
        let imported = other.import(key, &MATERIAL, None);
        let deleted = other.delete_material(key);
        match may {
            true => assert!(imported.is_ok() && deleted.is_ok()),
            false => {
                assert_eq!(imported.unwrap_err().code, "Forbidden.KeyNotFound", "{role}");
                assert_eq!(deleted.unwrap_err().code, "Forbidden.KeyNotFound", "{role}");
            }
        }
    }
}
