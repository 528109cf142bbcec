//! Key pairs and keys of MACs, end to end, in software and in tokens: signatures, MACs, and what is encrypted for a private half; and
//! symmetric keys of other sizes, which go the same way. The module is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm};
use keymill_core::operation::MessageType;
use keymill_crypto::digest;
use keymill_e2e::{Caller, Items, Pair, audit_lines, eventually};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::EngineConfig;

const SOFTWARE: Option<ProtectionLevel> = Some(ProtectionLevel::Software);
const HSM: Option<ProtectionLevel> = Some(ProtectionLevel::Hsm);
const INVALID: &str = "InvalidParameter";

fn software() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

fn tokens(farm: &Farm) -> (Live, Caller) {
    let setup = Setup::new(EngineConfig::default()).with_tokens(farm.parts(2));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    eventually("a token is up", || {
        caller.tokens().unwrap().iter().all(|token| token.state == "up").then_some(())
    });
    (live, caller)
}

/// Creates a key where it is offered; `None` where it is not, with an error that says so.
fn offered(
    caller: &mut Caller,
    spec: KeySpec,
    usage: KeyUsage,
    protection: Option<ProtectionLevel>,
) -> Option<Pair> {
    match caller.create_pair(spec, Some(usage), protection) {
        Ok(pair) => Some(pair),
        Err(refused) => {
            assert_eq!(refused.code, "UnsupportedOperation", "{refused}");
            assert!(refused.message.contains(spec.name()), "{refused}");
            None
        }
    }
}

fn all(items: Items) -> Vec<Vec<u8>> {
    items.into_iter().map(|item| item.expect("no item failed")).collect()
}

fn signs(caller: &mut Caller, pair: Pair, other: Pair, algorithm: SignAlgorithm) {
    let name = algorithm.name();
    let signature = caller.sign_message(pair, algorithm, b"pay 5").unwrap();
    assert!(caller.verify(pair, algorithm, (None, Some(b"pay 5")), &signature).unwrap(), "{name}");
    assert!(!caller.verify(pair, algorithm, (None, Some(b"pay 6")), &signature).unwrap(), "{name}");
    assert!(!caller.verify(other, algorithm, (None, Some(b"pay 5")), &signature).unwrap(), "{name}");
    for bad in [&signature[..signature.len() - 1], &[&signature[..], &[0]].concat(), b"", &[0; 64]] {
        assert!(!caller.verify(pair, algorithm, (None, Some(b"pay 5")), bad).unwrap(), "{name}");
    }
    let bytes = match algorithm.digest_bytes() {
        None => {
            let refused = caller.sign_digest(pair, algorithm, &[7; 32]).unwrap_err();
            assert_eq!(refused.code, INVALID, "{name}: {refused}");
            return;
        }
        Some(bytes) => bytes,
    };
    let digest = vec![7; bytes];
    let signature = caller.sign_digest(pair, algorithm, &digest).unwrap();
    assert!(caller.verify(pair, algorithm, (Some(&digest), None), &signature).unwrap(), "{name}");
    if bytes == 32 && algorithm != SignAlgorithm::Sm2Dsa {
        let digest = digest::sha256(b"pay 5");
        let of_message = caller.sign_message(pair, algorithm, b"pay 5").unwrap();
        assert!(caller.verify(pair, algorithm, (Some(&digest), None), &of_message).unwrap(), "{name}");
    }
    for length in [0, 1, bytes - 1, bytes + 1, 64] {
        let digest = vec![7; length];
        let refused = caller.sign_digest(pair, algorithm, &digest).unwrap_err();
        assert_eq!((&*refused.code, refused.status), (INVALID, 400), "{name} {length}");
        let refused = caller.verify(pair, algorithm, (Some(&digest), None), &signature).unwrap_err();
        assert_eq!(refused.code, INVALID, "{name} {length}");
    }
}

/// Returns the order of a curve whose signatures have a second s.
fn order(spec: KeySpec) -> Option<Vec<u8>> {
    let digits = match spec {
        KeySpec::EcP256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        KeySpec::EcP256K => "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        KeySpec::EcP384 => concat!(
            "ffffffffffffffffffffffffffffffffffffffffffffffff",
            "c7634d81f4372ddf581a0db248b0a77aecec196accc52973"
        ),
        _ => return None,
    };
    digest::unhex(digits)
}

/// Takes r and s out of a signature in DER, each in so many bytes.
fn numbers(der: &[u8], bytes: usize) -> [Vec<u8>; 2] {
    let mut rest = &der[2..];
    [(); 2].map(|()| {
        let (number, behind) = rest[2..].split_at(rest[1].into());
        rest = behind;
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        [&vec![0; bytes - digits.len()], digits].concat()
    })
}

/// Puts r and s together in DER.
fn in_der(numbers: [&[u8]; 2]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let digits = &number[number.iter().take_while(|digit| **digit == 0).count()..];
        let sign = &[0][..usize::from(digits[0] >> 7)];
        [&[2, (sign.len() + digits.len()) as u8], sign, digits].concat()
    };
    let body = numbers.map(integer).concat();
    [&[0x30, body.len() as u8], &body[..]].concat()
}

/// Subtracts a number from one that is larger and as long.
fn less(from: &[u8], number: &[u8]) -> Vec<u8> {
    let mut out = vec![0; from.len()];
    let mut borrow = 0;
    for i in (0..from.len()).rev() {
        let digit = 256 + i32::from(from[i]) - i32::from(number[i]) - borrow;
        borrow = i32::from(digit < 256);
        out[i] = (digit % 256) as u8;
    }
    out
}

/// Cases B4 and B5: a signature of ECDSA is taken in DER and in no other form, and with the other s as with its own.
fn has_one_form_and_two_values(caller: &mut Caller, pair: Pair, algorithm: SignAlgorithm, order: &[u8]) {
    let message = (None, Some(&b"pay 5"[..]));
    // Leading zeroes come up among many.
    for _ in 0..20 {
        let signature = caller.sign_message(pair, algorithm, b"pay 5").unwrap();
        let [r, s] = numbers(&signature, order.len());
        assert_eq!(in_der([&r, &s]), signature);
        let other = in_der([&r, &less(order, &s)]);
        let swapped = in_der([&s, &r]);
        for (offered, valid) in
            [(&signature, true), (&other, true), (&[r, s].concat(), false), (&swapped, false)]
        {
            assert_eq!(caller.verify(pair, algorithm, message, offered), Ok(valid), "{}", algorithm.name());
        }
    }
}

fn signs_many(caller: &mut Caller, pair: Pair, algorithm: SignAlgorithm) {
    let messages: Vec<Vec<u8>> = (0..150).map(|i| format!("record {i}").repeat(i % 7).into()).collect();
    let (made, errors) = caller.batch_sign(pair, algorithm, MessageType::Raw, &messages).unwrap();
    assert_eq!(errors, []);
    let mut signatures = all(made);
    let (valid, errors) =
        caller.batch_verify(pair, algorithm, MessageType::Raw, &messages, &signatures).unwrap();
    assert_eq!((valid, errors), (vec![Some(true); 150], vec![]));
    signatures.swap(1, 2);
    signatures[149].truncate(3);
    let (valid, errors) =
        caller.batch_verify(pair, algorithm, MessageType::Raw, &messages, &signatures).unwrap();
    let wrong = [1, 2, 149];
    assert_eq!(errors, []);
    assert!(valid.iter().enumerate().all(|(i, valid)| *valid == Some(!wrong.contains(&i))), "{valid:?}");
    let Some(bytes) = algorithm.digest_bytes() else { return };
    // A digest of the wrong length is the error of its item.
    let digests = [vec![1; bytes], vec![1; bytes + 1], vec![2; bytes]];
    let (made, errors) = caller.batch_sign(pair, algorithm, MessageType::Digest, &digests).unwrap();
    assert_eq!(made.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(errors.iter().map(|error| (error.0, &*error.1)).collect::<Vec<_>>(), [(1, INVALID)]);
    let claims: Vec<_> = made.into_iter().map(Option::unwrap_or_default).collect();
    let (valid, errors) =
        caller.batch_verify(pair, algorithm, MessageType::Digest, &digests, &claims).unwrap();
    assert_eq!((valid, errors.len()), (vec![Some(true), None, Some(true)], 1));
    let refused =
        caller.batch_verify(pair, algorithm, MessageType::Raw, &messages, &signatures[1..]).unwrap_err();
    assert_eq!(refused.code, INVALID);
}

fn every_signature(caller: &mut Caller, protection: Option<ProtectionLevel>) -> Vec<&'static str> {
    let mut done = Vec::new();
    for spec in KeySpec::ALL.into_iter().filter(|spec| spec.usages().contains(&KeyUsage::SignVerify)) {
        let Some(pair) = offered(caller, spec, KeyUsage::SignVerify, protection) else { continue };
        let other = caller.create_pair(spec, None, protection).unwrap();
        for algorithm in spec.signatures() {
            signs(caller, pair, other, *algorithm);
        }
        signs_many(caller, pair, spec.signatures()[0]);
        if let Some(order) = order(spec) {
            has_one_form_and_two_values(caller, pair, spec.signatures()[0], &order);
        }
        // An algorithm of other keys.
        let foreign = match spec.modulus_bytes() {
            Some(_) => SignAlgorithm::EcdsaSha256,
            None => SignAlgorithm::RsaPkcs1Sha256,
        };
        assert_eq!(caller.sign_digest(pair, foreign, &[7; 32]).unwrap_err().code, INVALID);
        done.push(spec.name());
    }
    done
}

#[test]
fn key_pairs_of_software_sign_and_verify_digests_and_messages() {
    let (_live, mut caller) = software();
    let done = every_signature(&mut caller, SOFTWARE);
    let expected = KeySpec::ALL.into_iter().filter(|spec| spec.usages().contains(&KeyUsage::SignVerify));
    assert_eq!(done, expected.map(KeySpec::name).collect::<Vec<_>>());
}

#[test]
fn key_pairs_of_tokens_sign_and_verify_digests_and_messages() {
    let farm = Farm::new(2);
    let (_live, mut caller) = tokens(&farm);
    let done = every_signature(&mut caller, HSM);
    assert!(done.starts_with(&["RSA_2048", "RSA_3072", "RSA_4096", "EC_P256", "EC_P384"]), "{done:?}");
}

fn opens(caller: &mut Caller, pair: Pair, other: Pair, algorithm: DecryptAlgorithm, most: usize) {
    for length in [0, 1, 32, most] {
        let text = vec![9; length];
        let sealed = caller.encrypt_for(pair, algorithm, &text).unwrap();
        assert_eq!(caller.decrypt_by(pair, algorithm, &sealed).unwrap(), text, "{length}");
    }
    let refused = caller.encrypt_for(pair, algorithm, &vec![9; most + 1]).unwrap_err();
    assert_eq!(refused.code, "Rejected.LimitExceeded.PlaintextBytes");
    let sealed = caller.encrypt_for(pair, algorithm, b"text").unwrap();
    let mut flipped = sealed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let bad = [
        &[][..],
        &[0],
        &sealed[1..],
        &[&sealed[..], &[0]].concat(),
        &flipped,
        &vec![0xff; sealed.len()],
        &vec![0; sealed.len()],
    ];
    let refused: Vec<_> =
        bad.iter().map(|bad| caller.decrypt_by(pair, algorithm, bad).unwrap_err()).collect();
    let foreign = caller.decrypt_by(other, algorithm, &sealed).unwrap_err();
    for refused in &refused {
        assert_eq!((&refused.code, &refused.message, refused.status), (&foreign.code, &foreign.message, 400));
    }
    let texts: Vec<Vec<u8>> = (0..20).map(|i| vec![i; usize::from(i)]).collect();
    let (made, errors) = caller.batch_encrypt_for(pair, algorithm, &texts).unwrap();
    assert_eq!(errors, []);
    let mut blobs = all(made);
    let (opened, errors) = caller.batch_decrypt_by(pair, algorithm, &blobs).unwrap();
    assert_eq!((all(opened), errors), (texts.clone(), vec![]));
    blobs[7] = flipped;
    let (opened, errors) = caller.batch_decrypt_by(pair, algorithm, &blobs).unwrap();
    assert_eq!(errors.iter().map(|error| (error.0, &*error.1)).collect::<Vec<_>>(), [(7, INVALID)]);
    assert!(opened.iter().zip(&texts).enumerate().all(|(i, (got, text))| match i {
        7 => got.is_none(),
        _ => got.as_ref() == Some(text),
    }));
}

fn every_opening(caller: &mut Caller, protection: Option<ProtectionLevel>) {
    for spec in [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096] {
        let pair = caller.create_pair(spec, Some(KeyUsage::EncryptDecrypt), protection).unwrap();
        let other = caller.create_pair(spec, Some(KeyUsage::EncryptDecrypt), protection).unwrap();
        let modulus = spec.modulus_bytes().unwrap();
        opens(caller, pair, other, DecryptAlgorithm::RsaesOaepSha1, modulus - 42);
        if protection == SOFTWARE {
            opens(caller, pair, other, DecryptAlgorithm::RsaesOaepSha256, modulus - 66);
        }
        assert_eq!(
            caller.sign_digest(pair, SignAlgorithm::RsaPssSha256, &[7; 32]).unwrap_err().code,
            INVALID
        );
    }
}

#[test]
fn what_is_encrypted_for_a_key_pair_of_software_opens_and_all_else_fails_alike() {
    let (_live, mut caller) = software();
    every_opening(&mut caller, SOFTWARE);
    if let Some(pair) = offered(&mut caller, KeySpec::EcSm2, KeyUsage::EncryptDecrypt, SOFTWARE) {
        let other = caller.create_pair(KeySpec::EcSm2, Some(KeyUsage::EncryptDecrypt), SOFTWARE).unwrap();
        for length in [1, 32, 6_047] {
            let text = vec![9; length];
            let sealed = caller.encrypt_for(pair, DecryptAlgorithm::Sm2Pke, &text).unwrap();
            assert_eq!(caller.decrypt_by(pair, DecryptAlgorithm::Sm2Pke, &sealed).unwrap(), text);
            assert!(caller.decrypt_by(other, DecryptAlgorithm::Sm2Pke, &sealed).is_err());
        }
        assert!(caller.encrypt_for(pair, DecryptAlgorithm::Sm2Pke, &[0; 6_048]).is_err());
    }
}

#[test]
fn what_is_encrypted_for_a_key_pair_of_a_token_opens_and_all_else_fails_alike() {
    let farm = Farm::new(1);
    let (_live, mut caller) = tokens(&farm);
    every_opening(&mut caller, HSM);
}

fn every_mac(caller: &mut Caller, protection: Option<ProtectionLevel>) -> usize {
    let mut done = 0;
    for spec in [KeySpec::HmacSha256, KeySpec::HmacSha384, KeySpec::HmacSha512] {
        let Some(Pair { key, .. }) = offered(caller, spec, KeyUsage::GenerateVerifyMac, protection) else {
            continue;
        };
        let algorithm = spec.signatures()[0];
        let mac = caller.mac(key, algorithm, b"pay 5").unwrap();
        assert_eq!(Some(mac.len()), spec.material_bytes());
        assert!(caller.verify_mac(key, algorithm, b"pay 5", &mac).unwrap());
        assert!(!caller.verify_mac(key, algorithm, b"pay 6", &mac).unwrap());
        for bad in [&mac[..16], &[&mac[..], &[0]].concat(), b"", &vec![0; mac.len()]] {
            assert!(!caller.verify_mac(key, algorithm, b"pay 5", bad).unwrap());
        }
        let messages: Vec<Vec<u8>> = (0..300).map(|i| vec![i as u8; i]).collect();
        let (made, errors) = caller.batch_mac(key, algorithm, &messages).unwrap();
        assert_eq!(errors, []);
        let mut macs = all(made);
        assert_eq!(macs[5], caller.mac(key, algorithm, &messages[5]).unwrap());
        macs[9][0] ^= 1;
        let (valid, errors) = caller.batch_verify_mac(key, algorithm, &messages, &macs).unwrap();
        assert_eq!(errors, []);
        assert!(valid.iter().enumerate().all(|(i, valid)| *valid == Some(i != 9)));
        let (made, errors) = caller.batch_mac(key, algorithm, &[vec![0; 65_536], vec![0; 65_537]]).unwrap();
        assert!(made[0].is_some() && made[1].is_none());
        assert_eq!(errors[0].1, "Rejected.LimitExceeded.ItemBytes");
        let foreign = match spec {
            KeySpec::HmacSha256 => SignAlgorithm::HmacSha512,
            _ => SignAlgorithm::HmacSha256,
        };
        assert_eq!(caller.mac(key, foreign, b"x").unwrap_err().code, INVALID);
        done += 1;
    }
    done
}

#[test]
fn keys_of_macs_do_what_they_are_for() {
    let (_live, mut caller) = software();
    assert_eq!(every_mac(&mut caller, SOFTWARE), 3);
    let farm = Farm::new(1);
    let (_live, mut caller) = tokens(&farm);
    assert!(every_mac(&mut caller, HSM) >= 1);
}

#[test]
fn a_version_is_named_and_another_keys_version_is_none() {
    let (_live, mut caller) = software();
    let a = caller.create_pair(KeySpec::EcP256, None, SOFTWARE).unwrap();
    let b = caller.create_pair(KeySpec::EcP256, None, SOFTWARE).unwrap();
    let crossed = Pair { key: a.key, version: b.version };
    let ecdsa = SignAlgorithm::EcdsaSha256;
    let not_found = "Forbidden.KeyVersionNotFound";
    assert_eq!(caller.sign_digest(crossed, ecdsa, &[7; 32]).unwrap_err().code, not_found);
    assert_eq!(caller.public_key(crossed).unwrap_err().code, not_found);
    let refused = caller.create_version(a.key).unwrap_err();
    assert_eq!((&*refused.code, refused.status), ("Rejected.StateModifiedFailed", 409));
    assert!(refused.message.contains("can be made from"), "{refused}");
    // What a disabled key signed is verified elsewhere, by its public half.
    let pem = caller.public_key(a).unwrap();
    assert!(
        pem.starts_with("-----BEGIN PUBLIC KEY-----\nMFkw") && pem.ends_with("\n-----END PUBLIC KEY-----\n")
    );
    caller.disable(a.key).unwrap();
    assert_eq!(caller.public_key(a).unwrap(), pem);
    assert_eq!(caller.sign_digest(a, ecdsa, &[7; 32]).unwrap_err().code, "Rejected.Disabled");
    assert_eq!(caller.verify(a, ecdsa, (Some(&[7; 32]), None), b"").unwrap_err().code, "Rejected.Disabled");
    caller.schedule_deletion(b.key).unwrap();
    assert_eq!(caller.public_key(b).unwrap_err().code, "Rejected.PendingDeletion");
}

#[test]
fn a_new_version_is_made_a_week_after_the_last_one_and_both_are_used() {
    const DAY_MS: i64 = 86_400_000;
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let old = caller.create_pair(KeySpec::EcP256, None, SOFTWARE).unwrap();
    let ecdsa = SignAlgorithm::EcdsaSha256;
    let signature = caller.sign_digest(old, ecdsa, &[7; 32]).unwrap();
    drop(caller);
    let live = live.halt().start(Setup::new(EngineConfig::default()).at_offset_ms(7 * DAY_MS - 60_000));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.create_version(old.key).unwrap_err().code, "Rejected.StateModifiedFailed");
    drop(caller);
    let live = live.halt().start(Setup::new(EngineConfig::default()).at_offset_ms(7 * DAY_MS + 60_000));
    let mut caller = Caller::new(&live, &credentials);
    let new = Pair { version: caller.create_version(old.key).unwrap(), ..old };
    assert_ne!((new.version, caller.public_key(new)), (old.version, caller.public_key(old)));
    assert!(caller.verify(old, ecdsa, (Some(&[7; 32]), None), &signature).unwrap());
    assert!(!caller.verify(new, ecdsa, (Some(&[7; 32]), None), &signature).unwrap());
    let signature = caller.sign_digest(new, ecdsa, &[7; 32]).unwrap();
    assert!(caller.verify(new, ecdsa, (Some(&[7; 32]), None), &signature).unwrap());
    assert_eq!(caller.versions(old.key).unwrap().len(), 2);
    assert_eq!(caller.create_version(old.key).unwrap_err().code, "Rejected.StateModifiedFailed");
    // However many ask at once, one is made.
    let rsa = caller.create_pair(KeySpec::Rsa2048, None, SOFTWARE).unwrap();
    drop(caller);
    let live = live.halt().start(Setup::new(EngineConfig::default()).at_offset_ms(15 * DAY_MS));
    let made: usize = std::thread::scope(|scope| {
        let ask = || Caller::new(&live, &credentials).create_version(rsa.key).is_ok();
        let asking: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asks| usize::from(asks.join().unwrap())).sum()
    });
    assert_eq!(made, 1);
}

#[test]
fn symmetric_keys_of_other_sizes_seal_under_counted_nonces_and_open() {
    let (live, mut caller) = software();
    let other = caller.create_key();
    for (spec, algorithm) in [(KeySpec::Aes192, 5), (KeySpec::Aes128, 4), (KeySpec::Sm4, 3)] {
        let Some(Pair { key, .. }) = offered(&mut caller, spec, KeyUsage::EncryptDecrypt, SOFTWARE) else {
            panic!("{} is offered", spec.name());
        };
        let pairs = [("a", "b")];
        let blob = caller.encrypt(key, b"text", &pairs).unwrap();
        assert_eq!((blob.len(), blob[1]), (4 + 50, algorithm), "{}", spec.name());
        assert_eq!(caller.decrypt(&blob, &pairs).unwrap(), b"text");
        assert_eq!(caller.decrypt(&blob, &[]).unwrap_err().code, INVALID);
        for at in 0..blob.len() {
            let mut forged = blob.clone();
            forged[at] ^= 1;
            assert!(caller.decrypt(&forged, &pairs).is_err(), "byte {at}");
        }
        let items: Vec<Vec<u8>> = (0..1_000).map(|i| vec![i as u8; i % 300]).collect();
        let blobs = caller.batch_encrypt(key, &items).unwrap();
        let mut nonces: Vec<_> = blobs.iter().map(|blob| blob[22..34].to_vec()).collect();
        nonces.sort_unstable();
        nonces.dedup();
        assert_eq!(nonces.len(), items.len());
        assert_eq!(all(caller.batch_decrypt(&blobs).unwrap().items), items);
        let (moved, errors) = caller.batch_re_encrypt(&blobs, other).unwrap();
        assert_eq!(errors, []);
        let (back, errors) = caller.batch_re_encrypt(&all(moved), key).unwrap();
        assert_eq!(errors, []);
        assert_eq!(all(caller.batch_decrypt(&all(back)).unwrap().items), items);
        let (clear, sealed) = caller.data_key(key, &[]).unwrap();
        assert_eq!(caller.decrypt(&sealed, &[]).unwrap(), clear);
        caller.rotate(key).unwrap();
        assert_eq!(caller.decrypt(&blob, &pairs).unwrap(), b"text");
        caller.disable(key).unwrap();
        assert_eq!(caller.decrypt(&blob, &pairs).unwrap_err().code, "Rejected.Disabled");
    }
    drop(caller);
    let lines = audit_lines(&live.halt());
    let reserved = lines.iter().filter(|line| line["operation"] == "ReserveInvocations").count();
    assert!(reserved >= 3, "{reserved}");
}
