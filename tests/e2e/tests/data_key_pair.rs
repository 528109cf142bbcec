//! Data key pairs, made in software whatever seals them, and random bytes.
#![allow(clippy::unwrap_used, reason = "tests")]

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use keymill_client::ServerError;
use keymill_core::access::Grant;
use keymill_core::key::{KeySpec, KeyUsage};
use keymill_core::operation::{KeyFormat, Operation};
use keymill_e2e::{Caller, GRANTED, named, policy, statement};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::json;

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

fn code<T>(answered: Result<T, ServerError>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

/// Returns the public half that belongs to a private one.
fn public_of(spec: KeySpec, private: &[u8]) -> Option<Vec<u8>> {
    let der = |der: Result<PublicKeyX509Der<'static>, _>| {
        let der: Result<_, aws_lc_rs::error::Unspecified> = der;
        der.unwrap().as_ref().to_vec()
    };
    match spec {
        KeySpec::Rsa2048 | KeySpec::Rsa3072 => {
            Some(der(RsaKeyPair::from_pkcs8(private).unwrap().public_key().as_der()))
        }
        KeySpec::EcP256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private).unwrap();
            Some(der(pair.public_key().as_der()))
        }
        _ => None,
    }
}

#[test]
fn the_private_half_opens_under_its_context_and_belongs_to_the_public_one() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let context = [("device", "7")];
    for spec in [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::EcP256, KeySpec::EcP256K, KeySpec::EcSm2] {
        let der = caller.data_key_pair(key, spec, KeyFormat::Der, &context).unwrap();
        let private = der.private.unwrap();
        assert_eq!(caller.decrypt(&der.sealed, &context).unwrap(), private);
        assert_eq!(code(caller.decrypt(&der.sealed, &[])), "InvalidParameter");
        if let Some(public) = public_of(spec, &private) {
            assert_eq!(public, der.public, "{spec:?}");
        }
        let pem = caller.data_key_pair(key, spec, KeyFormat::Pem, &[]).unwrap();
        let text = String::from_utf8(pem.private.unwrap()).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{spec:?}");
        assert!(pem.public.starts_with(b"-----BEGIN PUBLIC KEY-----\n"));
        assert_eq!(caller.decrypt(&pem.sealed, &[]).unwrap(), text.as_bytes());
        let sealed = caller.data_key_pair_sealed(key, spec).unwrap();
        assert_ne!(sealed.public, der.public, "each is another one");
        let private = caller.decrypt(&sealed.sealed, &[]).unwrap();
        assert!(public_of(spec, &private).is_none_or(|public| public == sealed.public));
    }
    // One for each pair, and two or three for what was opened of each.
    assert_eq!(caller.uses(key).unwrap()[0].0, 15);
}

#[test]
fn what_is_no_data_key_pair_is_refused_and_so_is_a_key_that_seals_nothing() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    for spec in [KeySpec::Aes256, KeySpec::Ed25519, KeySpec::EcP384, KeySpec::HmacSha256, KeySpec::MlDsa65] {
        assert_eq!(
            code(caller.data_key_pair(key, spec, KeyFormat::Pem, &[])),
            "InvalidParameter",
            "{spec:?}"
        );
    }
    let pair = caller.create_pair(KeySpec::EcP256, Some(KeyUsage::SignVerify), None).unwrap();
    assert_eq!(code(caller.data_key_pair_sealed(pair.key, KeySpec::EcP256)), "InvalidParameter");
}

#[test]
fn the_right_to_pairs_without_plaintext_is_not_one_to_see_them() {
    let (live, mut root) = begin();
    let key = root.create_key();
    let grants: Vec<Grant> =
        serde_json::from_value(json!([{"Role": "RbacPermission/Template/CryptoServiceKeyUser"}])).unwrap();
    let credentials = root.credentials(grants);
    let mut user = Caller::new(&live, &credentials);
    user.data_key_pair(key, KeySpec::EcP256, KeyFormat::Pem, &[]).unwrap();
    let who = named(credentials.access_key_id());
    let denied = statement("Deny", &[&who], &["kms:GenerateDataKeyPair", "kms:Decrypt"]);
    root.set_policy(key, &policy(&[statement("Allow", &[GRANTED], &["kms:*"]), denied])).unwrap();
    assert_eq!(code(user.data_key_pair(key, KeySpec::EcP256, KeyFormat::Pem, &[])), "Forbidden.KeyNotFound");
    let sealed = user.data_key_pair_sealed(key, KeySpec::EcP256).unwrap().sealed;
    assert_eq!(code(user.decrypt(&sealed, &[])), "Forbidden.KeyNotFound");
    assert!(root.decrypt(&sealed, &[]).is_ok());
}

#[test]
fn random_bytes_differ_and_have_the_length_that_was_asked_for() {
    let (live, mut root) = begin();
    let (one, two) = (root.random(32).unwrap(), root.random(32).unwrap());
    assert_eq!((one.len(), two.len()), (32, 32));
    assert_ne!(one, two);
    assert_eq!(root.random(1_024).unwrap().len(), 1_024);
    for length in [0, 1_025, u32::MAX] {
        assert_eq!(code(root.random(length)), "InvalidParameter", "{length}");
    }
    let grants: Vec<Grant> = serde_json::from_value(json!([{"Role": "Auditor"}])).unwrap();
    let mut auditor = Caller::new(&live, &root.credentials(grants));
    assert_eq!(code(auditor.random(8)), "Forbidden.NoPermission");
    assert!(!Operation::GenerateRandom.is_right_to_a_key());
}
