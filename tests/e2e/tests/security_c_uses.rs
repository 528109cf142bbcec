//! Case C7 of the security cases: a key does one thing, in software and in tokens.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::id::CmkId;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm};
use keymill_core::operation::ItemError;
use keymill_e2e::{Caller, Owner, Pair, eventually};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::EngineConfig;

const SOFTWARE: Option<ProtectionLevel> = Some(ProtectionLevel::Software);
const HSM: Option<ProtectionLevel> = Some(ProtectionLevel::Hsm);
const INVALID: &str = "InvalidParameter";

/// Case C7: nobody uses a key for what it is not.
fn one_use(caller: &mut Caller, protection: Option<ProtectionLevel>) {
    let symmetric = caller.create_pair(KeySpec::Aes256, None, protection).unwrap();
    let signs = caller.create_pair(KeySpec::Rsa2048, None, protection).unwrap();
    let opens = caller.create_pair(KeySpec::Rsa2048, Some(KeyUsage::EncryptDecrypt), protection).unwrap();
    let macs = caller.create_pair(KeySpec::HmacSha256, None, protection).unwrap();
    // What every module has.
    let (pss, oaep, hmac) =
        (SignAlgorithm::RsaPssSha256, DecryptAlgorithm::RsaesOaepSha1, SignAlgorithm::HmacSha256);
    let recipient = Owner::shared().recipient();
    for pair in [symmetric, opens, macs] {
        assert_eq!(caller.sign_digest(pair, pss, &[7; 32]).unwrap_err().code, INVALID);
        assert_eq!(caller.verify(pair, pss, (Some(&[7; 32]), None), &[0; 256]).unwrap_err().code, INVALID);
    }
    for pair in [symmetric, signs, macs] {
        assert_eq!(caller.encrypt_for(pair, oaep, b"x").unwrap_err().code, INVALID);
        assert_eq!(caller.decrypt_by(pair, oaep, &[0; 256]).unwrap_err().code, INVALID);
    }
    for pair in [symmetric, signs, opens] {
        assert_eq!(caller.mac(pair.key, hmac, b"x").unwrap_err().code, INVALID);
        assert_eq!(caller.verify_mac(pair.key, hmac, b"x", &[0; 32]).unwrap_err().code, INVALID);
    }
    let blob = caller.encrypt(symmetric.key, b"x", &[]).unwrap();
    let of = |key: CmkId| [&blob[..2], key.as_bytes(), &blob[18..]].concat();
    // As under a key that could have sealed it, and did not.
    let other = caller.create_pair(KeySpec::Aes256, None, protection).unwrap();
    let opaque = caller.decrypt(&of(other.key), &[]).unwrap_err();
    assert_eq!(opaque.code, INVALID);
    let items = std::slice::from_ref(&blob);
    for Pair { key, .. } in [signs, opens, macs] {
        for refused in [
            caller.encrypt(key, b"x", &[]).unwrap_err(),
            caller.batch_encrypt(key, items).unwrap_err(),
            caller.data_key(key, &[]).unwrap_err(),
            caller.data_key_sealed(key).unwrap_err(),
            caller.data_keys(key, 2).unwrap_err(),
            caller.generate_and_export(key, 32, &recipient).unwrap_err(),
            caller.re_encrypt(&blob, key).unwrap_err(),
            caller.batch_re_encrypt(items, key).unwrap_err(),
        ] {
            assert_eq!((refused.status, &*refused.code), (400, INVALID), "{refused}");
        }
        assert_eq!(caller.rotate(key).unwrap_err().code, "UnsupportedOperation");
        // Nor does it open a blob that names it.
        let forged = of(key);
        for refused in [
            caller.decrypt(&forged, &[]).unwrap_err(),
            caller.re_encrypt(&forged, symmetric.key).unwrap_err(),
            caller.export(&forged, &[], &recipient).unwrap_err(),
        ] {
            assert_eq!(
                (refused.status, refused.code, refused.message),
                (400, INVALID.into(), opaque.message.clone())
            );
        }
        let opened = caller.batch_decrypt(&[forged, blob.clone()]).unwrap();
        assert_eq!(opened.items, [None, Some(b"x".to_vec())]);
        assert_eq!(opened.errors, [ItemError(0, INVALID.into(), opaque.message.clone().into())]);
        assert_eq!(opened.keys, [symmetric.key]);
    }
    for pair in [symmetric, macs] {
        assert_eq!(caller.public_key(pair).unwrap_err().code, INVALID);
        assert_eq!(caller.create_version(pair.key).unwrap_err().code, "UnsupportedOperation");
    }
}

#[test]
fn a_key_of_software_has_one_use() {
    let Started { live: _live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&_live, &credentials);
    one_use(&mut caller, SOFTWARE);
}

#[test]
fn a_key_of_a_token_has_one_use() {
    let farm = Farm::new(1);
    let setup = Setup::new(EngineConfig::default()).with_tokens(farm.parts(2));
    let Started { live: _live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&_live, &credentials);
    eventually("the token is up", || (caller.tokens().unwrap()[0].state == "up").then_some(()));
    one_use(&mut caller, HSM);
}
