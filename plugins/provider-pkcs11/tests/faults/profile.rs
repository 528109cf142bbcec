//! What is found out about a module, and what a token was initialised with.

use cryptoki_sys::*;
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{CryptoProvider, KeyMaterial, ProviderError, PublicKey, StoredKey};
use keymill_provider_pkcs11::module::{Attribute, Mechanism, User};
use keymill_provider_pkcs11::{
    CancelMethod, DOMAIN_KEY_LABEL, GcmMethod, Initialize, ModuleProfile, PRIVATE_DOMAIN_KEY_LABEL,
    Pkcs11Provider, WrapMechanism, initialize,
};

use crate::provider_with;
use crate::support;

#[test]
fn a_token_that_has_its_keys_is_not_initialised_again() {
    let label = support::new_token();
    let again = |pin: &[u8]| {
        initialize(Initialize {
            module: support::module_path(),
            token_label: label.clone(),
            token_serial: None,
            domain: None,
            so_pin: Some(Sensitive::copied(b"0815-officer")),
            pin: Sensitive::copied(pin),
            keys: true,
        })
    };
    let refused = again(support::PIN).unwrap_err().to_string();
    assert!(refused.contains("already"), "{refused}");
    support::open_token(&label);
}

#[test]
fn the_profile_of_a_known_module_is_what_was_measured() {
    let provider = support::open_token(&support::new_token());
    let profile = provider.module_profile();
    let rv = |rv: Option<keymill_provider_pkcs11::module::Rv>| rv.and_then(|rv| rv.name());
    assert!(profile.unwrap_template_honoured && profile.derives && profile.warnings().is_empty());
    assert_eq!(profile.max_item_bytes, 64 * 1024);
    assert!(profile.private_domain && profile.private_template_honoured == Some(true));
    // What each refuses: one has no curve P-256K, the other no OAEP but with SHA-1. And what no token is asked for.
    const NEVER: [KeySpec; 4] = [KeySpec::Sm4, KeySpec::Ed25519, KeySpec::MlDsa65, KeySpec::EcSm2];
    let all = |refused: &[KeySpec]| {
        let mut specs = KeySpec::ALL.to_vec();
        specs.retain(|spec| !refused.contains(spec) && !NEVER.contains(spec));
        specs
    };
    let mut specs = profile.specs.clone();
    specs.sort_by_key(|spec| KeySpec::ALL.iter().position(|other| other == spec));
    let signatures = [
        SignAlgorithm::RsaPssSha256,
        SignAlgorithm::RsaPkcs1Sha256,
        SignAlgorithm::EcdsaSha256,
        SignAlgorithm::EcdsaSha384,
        SignAlgorithm::HmacSha256,
        SignAlgorithm::HmacSha384,
        SignAlgorithm::HmacSha512,
    ];
    assert_eq!(profile.signatures.len(), signatures.len());
    assert!(signatures.iter().all(|algorithm| profile.signatures.contains(algorithm)));
    let oaep = [DecryptAlgorithm::RsaesOaepSha256, DecryptAlgorithm::RsaesOaepSha1];
    if support::is_kryoptic() {
        assert_eq!((specs, &profile.decryptions[..]), (all(&[KeySpec::EcP256K]), &oaep[..]));
    } else {
        assert_eq!((specs, &profile.decryptions[..]), (all(&[]), &oaep[1..]));
    }
    if support::is_kryoptic() {
        assert_eq!(profile.wrap, WrapMechanism::Kwp);
        assert_eq!((profile.gcm, profile.cancel), (GcmMethod::Message, CancelMethod::SessionCancel));
        assert_eq!(rv(profile.bad_tag), Some("CKR_ENCRYPTED_DATA_INVALID"));
        assert_eq!(rv(profile.damaged_blob), Some("CKR_DEVICE_ERROR"));
    } else {
        assert_eq!(profile.wrap, WrapMechanism::Pad);
        assert_eq!((profile.gcm, profile.cancel), (GcmMethod::Classic, CancelMethod::ReplaceSession));
        assert_eq!(rv(profile.bad_tag), Some("CKR_GENERAL_ERROR"));
        assert_eq!(rv(profile.damaged_blob), Some("CKR_GENERAL_ERROR"));
    }
    let json = serde_json::to_string(profile).unwrap();
    assert_eq!(serde_json::from_str::<ModuleProfile>(&json).unwrap(), *profile);
}

#[test]
fn a_domain_key_without_limits_is_warned_of() {
    let label = support::new_token();
    let session = support::module().open_session(support::slot(&label), true).unwrap();
    session.login(User::User, &Sensitive::copied(support::PIN)).unwrap();
    session.destroy_object(support::domain_key(&session)).unwrap();
    let template = [
        Attribute::number(CKA_VALUE_LEN, 32),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::flag(CKA_EXTRACTABLE, false),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_WRAP, true),
        Attribute::flag(CKA_UNWRAP, true),
        Attribute::bytes(CKA_LABEL, DOMAIN_KEY_LABEL.as_bytes()),
    ];
    session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).unwrap();
    let provider = support::open_token(&label);
    assert!(!provider.module_profile().unwrap_template_honoured);
    assert!(provider.module_profile().warnings()[0].contains("can be read"));
}

#[test]
fn the_root_mac_key_derives_the_same_each_time_it_is_found() {
    let label = support::new_token();
    let messages = [[1; 16], [2; 16]];
    let derive = |provider: &Pkcs11Provider| provider.root_derive(messages).unwrap().expose().to_vec();
    let first = derive(&support::open_token(&label));
    let (other, _) = provider_with(|_| {});
    assert_eq!(first, derive(&support::open_token(&label)));
    assert_ne!(first, derive(&other));
    assert_ne!(first[..16], first[16..]);
}

#[test]
fn a_token_that_was_initialised_before_there_were_key_pairs_holds_none_and_says_so() {
    let label = support::new_token();
    let pair = {
        let provider = support::open_token(&label);
        provider.custody().unwrap().generate(KeySpec::EcP256, KeyUsage::SignVerify, None).unwrap()
    };
    let session = support::module().open_session(support::slot(&label), true).unwrap();
    session.login(User::User, &Sensitive::copied(support::PIN)).unwrap();
    session.destroy_object(support::token_key(&session, PRIVATE_DOMAIN_KEY_LABEL)).unwrap();
    let provider = support::open_token(&label);
    let profile = provider.module_profile();
    assert!(!profile.private_domain && profile.private_template_honoured.is_none());
    assert!(profile.warnings().iter().any(|warning| warning.contains(PRIVATE_DOMAIN_KEY_LABEL)));
    assert!(profile.specs.iter().all(|spec| !spec.is_key_pair()) && profile.decryptions.is_empty());
    let mut custody = provider.custody().unwrap();
    let born = custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None).map(drop);
    for refused in [born.err(), custody.load(&pair).err()] {
        let Some(ProviderError::Rejected(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("EC_P256") && why.contains(PRIVATE_DOMAIN_KEY_LABEL), "{why}");
    }
    // What needs no such key is as it was.
    custody.generate(KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac, None).unwrap();
    custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::HsmDerived)).unwrap();
}

#[test]
fn a_private_domain_key_without_limits_is_warned_of() {
    let label = support::new_token();
    let session = support::module().open_session(support::slot(&label), true).unwrap();
    session.login(User::User, &Sensitive::copied(support::PIN)).unwrap();
    session.destroy_object(support::token_key(&session, PRIVATE_DOMAIN_KEY_LABEL)).unwrap();
    let template = [
        Attribute::number(CKA_VALUE_LEN, 32),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::flag(CKA_EXTRACTABLE, false),
        Attribute::flag(CKA_SENSITIVE, true),
        Attribute::flag(CKA_WRAP, true),
        Attribute::flag(CKA_UNWRAP, true),
        Attribute::bytes(CKA_LABEL, PRIVATE_DOMAIN_KEY_LABEL.as_bytes()),
    ];
    session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).unwrap();
    let provider = support::open_token(&label);
    let profile = provider.module_profile();
    assert_eq!((profile.unwrap_template_honoured, profile.private_template_honoured), (true, Some(false)));
    assert!(profile.warnings()[0].contains("private keys as keys that can be read"));
}

#[test]
fn an_operator_can_narrow_what_a_token_holds() {
    let (provider, _) =
        provider_with(|config| config.overrides.specs = Some(vec![KeySpec::Aes256, KeySpec::EcP384]));
    assert_eq!(provider.profile().specs, [KeySpec::Aes256, KeySpec::EcP384]);
    let mut custody = provider.custody().unwrap();
    let refused = custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None).err();
    assert!(matches!(refused, Some(ProviderError::Rejected(_))), "{refused:?}");
    let pair = custody.generate(KeySpec::EcP384, KeyUsage::SignVerify, None).unwrap();
    custody.load(&pair).unwrap();
    // Nor is one loaded that another token of the domain has made.
    let foreign = StoredKey {
        spec: KeySpec::EcP256,
        usage: KeyUsage::SignVerify,
        bulk_mode: None,
        material: KeyMaterial::Wrapped(vec![7; 80]),
        public_key: Some(PublicKey::from_der(vec![7; 91])),
    };
    assert!(matches!(custody.load(&foreign).err(), Some(ProviderError::Rejected(_))));
}
