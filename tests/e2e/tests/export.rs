//! Data keys that are exported: encrypted for a key pair of somebody else, who never sees a CMK.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::access::{Effect, Grant, ResourcePattern, Role};
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage};
use keymill_crypto::digest;
use keymill_e2e::{Caller, Owner, Recipient, audit_lines};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;

const INVALID: &str = "InvalidParameter";
const CONTEXT: &[(&str, &str)] = &[("for", "partner")];

#[test]
fn a_data_key_is_exported_for_whoever_has_the_private_key_and_never_in_clear() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let owner = Owner::shared();
    for algorithm in [DecryptAlgorithm::RsaesOaepSha256, DecryptAlgorithm::RsaesOaepSha1] {
        let to = Recipient { algorithm, ..owner.recipient() };
        let (clear, sealed) = caller.data_key(key, CONTEXT).unwrap();
        let exported = caller.export(&sealed, CONTEXT, &to).unwrap();
        assert_eq!(owner.open(algorithm, &exported), clear);
        // Neither randomised by nobody, nor of another context.
        assert_ne!(caller.export(&sealed, CONTEXT, &to).unwrap(), exported);
        assert_eq!(caller.export(&sealed, &[], &to).unwrap_err().code, INVALID);
        for bytes in [1, 16, 190] {
            let (sealed, exported) = caller.generate_and_export(key, bytes, &to).unwrap();
            let clear = owner.open(algorithm, &exported);
            assert_eq!(clear.len(), bytes as usize);
            assert_eq!(caller.decrypt(&sealed, &[]).unwrap(), clear);
        }
    }
    let too_long = "Rejected.LimitExceeded.DataKeyBytes";
    let to = owner.recipient();
    assert_eq!(caller.generate_and_export(key, 191, &to).unwrap_err().code, too_long);
    let long = caller.encrypt(key, &[7; 191], &[]).unwrap();
    assert_eq!(caller.export(&long, &[], &to).unwrap_err().code, too_long);
    drop(caller);

    let site = live.halt();
    let recipient = digest::hex(&digest::sha256(&to.public));
    let lines = audit_lines(&site);
    let told = |operation: &str| {
        let of = lines.iter().filter(|line| line["operation"] == operation && line["outcome"] == "ok");
        of.inspect(|line| assert_eq!(line["recipient"], *recipient)).count()
    };
    assert!(told("ExportDataKey") > 0 && told("GenerateAndExportDataKey") > 0);
    assert!(
        lines.iter().any(|line| line["operation"] == "GenerateDataKey" && line.get("recipient").is_none())
    );
}

#[test]
fn a_key_pair_of_this_service_can_be_exported_for() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    for (spec, algorithm) in
        [(KeySpec::Rsa3072, DecryptAlgorithm::RsaesOaepSha1), (KeySpec::EcSm2, DecryptAlgorithm::Sm2Pke)]
    {
        let software = Some(keymill_core::key::ProtectionLevel::Software);
        let pair = caller.create_pair(spec, Some(KeyUsage::EncryptDecrypt), software).unwrap();
        let pem = caller.public_key(pair).unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let to = Recipient { public: base64(&text), spec, algorithm };
        let (sealed, exported) = caller.generate_and_export(key, 32, &to).unwrap();
        assert_eq!(
            caller.decrypt_by(pair, algorithm, &exported).unwrap(),
            caller.decrypt(&sealed, &[]).unwrap()
        );
    }
}

/// Reads base64 without padding checks, since what comes is the server's own.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | DIGITS.iter().position(|digit| *digit == byte).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

#[test]
fn public_keys_that_are_weak_or_none_are_refused() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let good = Owner::shared().recipient();
    let ends_with = |exponent: [u8; 3]| {
        let mut public = good.public.clone();
        let at = public.len() - 3;
        public[at..].copy_from_slice(&exponent);
        Recipient { public, ..good.clone() }
    };
    // Odd and of 65,537 or more.
    assert!(caller.generate_and_export(key, 32, &ends_with([1, 0, 3])).is_ok());
    let mut bad = vec![
        ends_with([1, 0, 0]),
        // 32,769
        ends_with([0, 0x80, 1]),
        // A negative one, and one that is not encoded as DER has it.
        ends_with([0x80, 0, 1]),
        ends_with([0, 0, 3]),
    ];
    for public in [
        vec![],
        vec![0x30],
        good.public[1..].to_vec(),
        good.public[..good.public.len() - 1].to_vec(),
        [&good.public[..], &[0]].concat(),
        b"-----BEGIN PUBLIC KEY-----".to_vec(),
    ] {
        bad.push(Recipient { public, ..good.clone() });
    }
    for (spec, algorithm) in [
        (KeySpec::Rsa3072, DecryptAlgorithm::RsaesOaepSha256),
        (KeySpec::Rsa2048, DecryptAlgorithm::Sm2Pke),
        (KeySpec::EcSm2, DecryptAlgorithm::Sm2Pke),
        (KeySpec::EcP256, DecryptAlgorithm::RsaesOaepSha256),
        (KeySpec::Aes256, DecryptAlgorithm::RsaesOaepSha256),
    ] {
        bad.push(Recipient { spec, algorithm, ..good.clone() });
    }
    let sealed = caller.data_key_sealed(key).unwrap();
    for bad in &bad {
        let refused = caller.generate_and_export(key, 32, bad).unwrap_err();
        assert_eq!((&*refused.code, refused.status), (INVALID, 400), "{bad:?}");
        assert_eq!(caller.export(&sealed, &[], bad).unwrap_err().code, INVALID, "{bad:?}");
    }
}

#[test]
fn an_access_key_without_a_right_to_the_key_exports_nothing() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut root = Caller::new(&live, &credentials);
    let (key, other) = (root.create_key(), root.create_key());
    let sealed = root.data_key_sealed(key).unwrap();
    let mut with = |role: Role, resource| {
        let grants = vec![Grant { effect: Effect::Allow, role: role.into(), resources: vec![resource] }];
        Caller::new(&live, &root.credentials(grants))
    };
    let mut user = with(Role::CryptoServiceKeyUser, ResourcePattern::Key(other));
    let to = Owner::shared().recipient();
    assert!(user.generate_and_export(other, 32, &to).is_ok());
    assert_eq!(user.generate_and_export(key, 32, &to).unwrap_err().code, "Forbidden.KeyNotFound");
    let refused = user.export(&sealed, &[], &to).unwrap_err();
    let opened = user.decrypt(&sealed, &[]).unwrap_err();
    assert_eq!((refused.code, refused.status, refused.message), (opened.code, opened.status, opened.message));
    // Who administers keys opens none.
    let mut admin = with(Role::KeyAdministrator, ResourcePattern::All);
    assert!(admin.generate_and_export(key, 32, &to).is_err() && admin.export(&sealed, &[], &to).is_err());
}
