//! Keys that stay on a token: made there, or taken over from somebody else; used, found again, and refused where they are not the ones of
//! before or not as a key must be.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    Adopt, AeadBatch, AeadItem, CryptoProvider, DeriveJob, JobError, KeyHandle, KeyMaterial, ProviderError,
    SignJob, StoredKey,
};
use keymill_provider_pkcs11::module::{Attribute, Mechanism, Object, Session, User, number::*};
use keymill_provider_pkcs11::{DOMAIN_KEY_LABEL, MAC_KEY_LABEL, Pkcs11Provider};

fn look(label: &str) -> Session {
    let session = support::module().open_session(support::slot(label), true).unwrap();
    let _already = session.login(User::User, &Sensitive::copied(support::PIN));
    session
}

const SEALS: [(CK_ATTRIBUTE_TYPE, bool); 2] = [(CKA_ENCRYPT, true), (CKA_DECRYPT, true)];
const MACS: [(CK_ATTRIBUTE_TYPE, bool); 1] = [(CKA_SIGN, true)];

/// Makes a token key as another program would, with attributes over those of a good one.
fn key(session: &Session, label: &str, id: &[u8], uses: &[(CK_ATTRIBUTE_TYPE, bool)]) -> Object {
    keyed(session, label, id, uses, CKM_AES_KEY_GEN, 32)
}

fn keyed(
    session: &Session,
    label: &str,
    id: &[u8],
    uses: &[(CK_ATTRIBUTE_TYPE, bool)],
    mechanism: CK_MECHANISM_TYPE,
    bytes: CK_ULONG,
) -> Object {
    let mut flags = vec![
        (CKA_TOKEN, true),
        (CKA_PRIVATE, true),
        (CKA_SENSITIVE, true),
        (CKA_EXTRACTABLE, false),
        (CKA_ENCRYPT, false),
        (CKA_DECRYPT, false),
        (CKA_SIGN, false),
        (CKA_VERIFY, false),
        (CKA_WRAP, false),
        (CKA_UNWRAP, false),
        (CKA_DERIVE, false),
    ];
    for (kind, value) in uses {
        flags.iter_mut().filter(|(other, _)| other == kind).for_each(|(_, flag)| *flag = *value);
    }
    let mut template = vec![Attribute::number(CKA_VALUE_LEN, bytes)];
    template.extend(flags.iter().map(|(kind, value)| Attribute::flag(*kind, *value)));
    template.extend([Attribute::bytes(CKA_LABEL, label.as_bytes()), Attribute::bytes(CKA_ID, id)]);
    session.generate_key(Mechanism::Plain(mechanism), &template).unwrap()
}

fn wanted(label: &str) -> Adopt {
    Adopt {
        spec: KeySpec::Aes256,
        usage: KeyUsage::EncryptDecrypt,
        bulk_mode: Some(BulkMode::InHsm),
        label: Some(label.into()),
        id: None,
    }
}

fn derives(label: &str) -> Adopt {
    Adopt { bulk_mode: Some(BulkMode::HsmDerived), ..wanted(label) }
}

fn adopt(provider: &Pkcs11Provider, wanted: &Adopt) -> Result<StoredKey, ProviderError> {
    provider.custody().unwrap().adopt(wanted)
}

/// Makes a key to stay; and finds it on the token.
fn made(provider: &Pkcs11Provider, session: &Session) -> (StoredKey, Object) {
    let (usage, mode) = (KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm));
    let stored = provider.custody().unwrap().generate_to_stay(KeySpec::Aes256, usage, mode).unwrap();
    let id = &stored.token_object().unwrap().id;
    let found = session.find_objects(&[Attribute::bytes(CKA_ID, id)]).unwrap();
    assert_eq!(found.len(), 1);
    (stored, found[0])
}

fn refusal(provider: &Pkcs11Provider, wanted: &Adopt) -> String {
    match adopt(provider, wanted) {
        Err(ProviderError::Rejected(why)) => why,
        other => panic!("{:?}", other.map(drop)),
    }
}

fn load(provider: &Pkcs11Provider, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
    provider.custody().unwrap().load(key)
}

fn batch() -> AeadBatch {
    let mut batch = AeadBatch { buffer: vec![7; 56], aad: Vec::new(), items: Vec::new() };
    batch.items.push(AeadItem { nonce: [1; 12], aad: 0..0, text: 0..40, outcome: None });
    batch
}

fn sealed(provider: &Pkcs11Provider, key: &StoredKey) -> AeadBatch {
    let mut batch = batch();
    let handle = load(provider, key).unwrap();
    provider.open_session().unwrap().encrypt(&handle, &mut batch).unwrap();
    assert_eq!(batch.items[0].outcome.take(), Some(Ok(())));
    batch
}

fn opens(provider: &Pkcs11Provider, key: &StoredKey, mut batch: AeadBatch) {
    let handle = load(provider, key).unwrap();
    provider.open_session().unwrap().decrypt(&handle, &mut batch).unwrap();
    assert_eq!((batch.items[0].outcome, &batch.buffer[..40]), (Some(Ok(())), &[7; 40][..]));
}

#[test]
fn a_key_of_another_program_serves_and_is_found_again_by_its_id() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    key(&session, "payments", b"pay-1", &SEALS);
    key(&session, "roots", b"root-1", &MACS);
    let by_label = adopt(&provider, &wanted("payments")).unwrap();
    let by_id = adopt(&provider, &Adopt { label: None, id: Some(b"pay-1".to_vec()), ..wanted("") }).unwrap();
    let text = sealed(&provider, &by_label);
    opens(&provider, &by_id, text);
    let KeyMaterial::TokenObject(object) = &by_label.material else { panic!("it stays where it is") };
    assert_eq!((&object.label[..], &object.id[..]), ("payments", &b"pay-1"[..]));

    // As the store has it, after a start.
    let text = sealed(&provider, &by_label);
    let stored = serde_json::to_string(&by_label).unwrap();
    drop(provider);
    let provider = support::open_token(&token);
    opens(&provider, &serde_json::from_str(&stored).unwrap(), text);

    let roots = adopt(&provider, &derives("roots")).unwrap();
    let handle = load(&provider, &roots).unwrap();
    let mut jobs = [DeriveJob::new([[1; 16], [2; 16]]), DeriveJob::new([[1; 16], [2; 16]])];
    provider.open_session().unwrap().derive(&handle, &mut jobs).unwrap();
    let outputs = jobs.map(|job| job.output.unwrap().unwrap().expose().to_vec());
    assert_eq!(outputs[0], outputs[1]);
    // What it was pinned by is nothing that it derives.
    let KeyMaterial::TokenObject(object) = &roots.material else { panic!("it stays where it is") };
    assert!(!outputs[0].windows(16).any(|window| window == object.check));
}

#[test]
fn key_pairs_and_keys_for_macs_are_taken_over_too() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    let private = |id: &'static [u8]| {
        vec![
            Attribute::flag(CKA_TOKEN, true),
            Attribute::flag(CKA_PRIVATE, true),
            Attribute::flag(CKA_SENSITIVE, true),
            Attribute::flag(CKA_EXTRACTABLE, false),
            Attribute::flag(CKA_SIGN, true),
            Attribute::flag(CKA_DECRYPT, false),
            Attribute::flag(CKA_UNWRAP, false),
            Attribute::flag(CKA_DERIVE, false),
            Attribute::bytes(CKA_LABEL, b"signer"),
            Attribute::bytes(CKA_ID, id),
        ]
    };
    let p256 = Attribute::bytes(CKA_EC_PARAMS, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let (bits, exponent) =
        (Attribute::number(CKA_MODULUS_BITS, 2048), Attribute::bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1]));
    for (spec, mechanism, public, id, algorithm) in [
        (KeySpec::EcP256, CKM_EC_KEY_PAIR_GEN, vec![p256], &b"ec"[..], SignAlgorithm::EcdsaSha256),
        (
            KeySpec::Rsa2048,
            CKM_RSA_PKCS_KEY_PAIR_GEN,
            vec![bits, exponent],
            &b"rsa"[..],
            SignAlgorithm::RsaPkcs1Sha256,
        ),
    ] {
        let mut public = public;
        public.extend([Attribute::flag(CKA_TOKEN, true), Attribute::flag(CKA_VERIFY, true)]);
        public.push(Attribute::bytes(CKA_ID, id));
        let mechanism = Mechanism::Plain(mechanism);
        let (_, made) = session.generate_key_pair(mechanism, &public, &private(id)).unwrap();
        let wanted =
            Adopt { spec, usage: KeyUsage::SignVerify, bulk_mode: None, label: None, id: Some(id.to_vec()) };
        let stored = adopt(&provider, &wanted).unwrap();
        assert!(stored.public_key.is_some());
        let handle = load(&provider, &stored).unwrap();
        let mut jobs = [SignJob::new(algorithm, vec![7; 32])];
        provider.open_session().unwrap().sign(&handle, &mut jobs).unwrap();
        assert!(matches!(jobs[0].output, Some(Ok(_))), "{}", spec.name());
        // Another pair of the same id.
        session.destroy_object(made).unwrap();
        session.generate_key_pair(mechanism, &public, &private(id)).unwrap();
        drop(handle);
        let provider = support::open_token(&token);
        assert!(matches!(load(&provider, &stored), Err(ProviderError::Corrupt(_))), "{}", spec.name());
    }
    keyed(&session, "mac", b"mac", &MACS, CKM_GENERIC_SECRET_KEY_GEN, 32);
    let wanted = Adopt {
        spec: KeySpec::HmacSha256,
        usage: KeyUsage::GenerateVerifyMac,
        bulk_mode: None,
        ..wanted("mac")
    };
    let stored = adopt(&provider, &wanted).unwrap();
    let handle = load(&provider, &stored).unwrap();
    let mut jobs = [SignJob::new(SignAlgorithm::HmacSha256, b"message".to_vec())];
    provider.open_session().unwrap().sign(&handle, &mut jobs).unwrap();
    assert!(matches!(&jobs[0].output, Some(Ok(mac)) if mac.len() == 32));
}

#[test]
fn a_key_that_could_leave_or_do_more_than_one_thing_is_refused() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    for (flag, value, told) in [
        (CKA_EXTRACTABLE, true, "CKA_EXTRACTABLE is true"),
        (CKA_SENSITIVE, false, "CKA_SENSITIVE is false"),
        (CKA_WRAP, true, "CKA_WRAP is true"),
        (CKA_UNWRAP, true, "CKA_UNWRAP is true"),
        (CKA_DERIVE, true, "CKA_DERIVE is true"),
        (CKA_SIGN, true, "CKA_SIGN is true"),
        (CKA_DECRYPT, false, "CKA_DECRYPT is false"),
    ] {
        let made = key(&session, "loose", b"loose", &[&SEALS[..], &[(flag, value)]].concat());
        let why = refusal(&provider, &wanted("loose"));
        assert!(why.contains(told), "{why}");
        session.destroy_object(made).unwrap();
    }
    key(&session, "seals", b"seals", &SEALS);
    assert!(refusal(&provider, &derives("seals")).contains("CKA_"));
    let short = Adopt { spec: KeySpec::Aes128, ..wanted("seals") };
    assert!(refusal(&provider, &short).contains("32 bytes"));
    key(&session, "nameless", b"", &SEALS);
    assert!(refusal(&provider, &wanted("nameless")).contains("no id"));
    // The keys of the domain are nobody's CMK, though one of them would do.
    assert!(refusal(&provider, &derives(MAC_KEY_LABEL)).contains("the domain's own"));
    assert!(refusal(&provider, &wanted(DOMAIN_KEY_LABEL)).contains("the domain's own"));
    let unnamed = Adopt { label: None, ..wanted("") };
    assert!(refusal(&provider, &unnamed).contains("by its label or its id"));
    assert!(refusal(&provider, &wanted("absent")).contains("0 keys"));
}

#[test]
fn a_label_that_is_meant_for_terminals_is_shown_without_its_tricks() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    key(&look(&token), "pay\u{1b}[2J\n", b"tricks", &SEALS);
    let by_id = Adopt { label: None, id: Some(b"tricks".to_vec()), ..wanted("") };
    let stored = adopt(&provider, &by_id).unwrap();
    assert_eq!(stored.token_object().unwrap().label, "pay?[2J?");
    load(&provider, &stored).unwrap();
}

/// G4: two of one label or id, and one that was put in the place of another.
#[test]
fn a_key_in_the_place_of_another_is_refused() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    let first = key(&session, "twin", b"one", &SEALS);
    key(&session, "twin", b"two", &SEALS);
    assert!(refusal(&provider, &wanted("twin")).contains("2 keys"));
    let by_id = Adopt { label: None, id: Some(b"one".to_vec()), ..wanted("") };
    let stored = adopt(&provider, &by_id).unwrap();
    let handle = load(&provider, &stored).unwrap();
    let text = sealed(&provider, &stored);

    // A second of that id.
    let second = key(&session, "other", b"one", &SEALS);
    let again = support::open_token(&token);
    assert!(matches!(load(&again, &stored), Err(ProviderError::Corrupt(_))));
    assert!(refusal(&again, &wanted("other")).contains("2 keys have the id"));
    // The first is gone, and the second has its id and label.
    session.destroy_object(first).unwrap();
    drop(again);
    let again = support::open_token(&token);
    assert!(matches!(load(&again, &stored), Err(ProviderError::Corrupt(_))));
    // It is somebody else's, whichever it is.
    again.custody().unwrap().destroy(&stored).unwrap();
    drop(again);
    let mut batch = batch();
    provider.open_session().unwrap().encrypt(&handle, &mut batch).unwrap();
    assert_eq!(batch.items[0].outcome, Some(Err(JobError::StaleHandle)), "its handle names nothing now");
    assert!(matches!(load(&provider, &stored), Err(ProviderError::Corrupt(_))));
    provider.custody().unwrap().canary().unwrap();
    drop(text);
    // The second is as it was.
    assert!(session.flag(second, CKA_SENSITIVE).unwrap());
}

#[test]
fn a_key_stays_when_it_is_put_out_and_goes_when_it_is_destroyed() {
    let token = support::new_token();
    let mut config = support::config(&token);
    config.cached_keys = 2;
    let provider = keymill_provider_pkcs11::open_on(support::module(), config).unwrap();
    let session = look(&token);
    let made = key(&session, "payments", b"pay", &SEALS);
    let stored = adopt(&provider, &wanted("payments")).unwrap();
    let text = sealed(&provider, &stored);
    let mut custody = provider.custody().unwrap();
    for _ in 0..5 {
        let other =
            custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)).unwrap();
        custody.load(&other).unwrap();
    }
    let handle = custody.load(&stored).unwrap();
    custody.unload(handle).unwrap();
    custody.canary().unwrap();
    assert!(session.flag(made, CKA_TOKEN).unwrap());
    opens(&provider, &stored, text);

    custody.destroy(&stored).unwrap();
    assert!(session.flag(made, CKA_TOKEN).unwrap(), "what was adopted is somebody else's");
    custody.load(&stored).unwrap();
}

#[test]
fn a_key_that_is_made_to_stay_never_leaves_and_is_destroyed_with_its_cmk() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    let (stored, object) = made(&provider, &session);
    for (flag, value) in
        [(CKA_TOKEN, true), (CKA_SENSITIVE, true), (CKA_EXTRACTABLE, false), (CKA_WRAP, false)]
    {
        assert_eq!(session.flag(object, flag).unwrap(), value);
    }
    let text = sealed(&provider, &stored);
    let kept = serde_json::to_string(&stored).unwrap();
    drop(provider);
    let provider = support::open_token(&token);
    opens(&provider, &serde_json::from_str(&kept).unwrap(), text);

    let mut custody = provider.custody().unwrap();
    custody.destroy(&stored).unwrap();
    assert!(session.flag(object, CKA_TOKEN).is_err());
    custody.destroy(&stored).unwrap();
    assert!(matches!(custody.load(&stored), Err(ProviderError::Corrupt(_))));

    // Another that came to have the id is left alone.
    let (stored, object) = made(&provider, &session);
    session.destroy_object(object).unwrap();
    let other = key(&session, "other", &stored.token_object().unwrap().id, &SEALS);
    assert!(matches!(custody.destroy(&stored), Err(ProviderError::Corrupt(_))));
    assert!(session.flag(other, CKA_TOKEN).unwrap());
}

#[test]
fn keys_of_every_kind_are_made_to_stay() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    let mut custody = provider.custody().unwrap();
    let mut kinds = vec![(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::HsmDerived))];
    for spec in provider.profile().specs.iter().copied() {
        let aes = matches!(spec, KeySpec::Aes256 | KeySpec::Aes192 | KeySpec::Aes128);
        let mode = aes.then_some(BulkMode::InHsm);
        kinds.extend(spec.usages().iter().map(|usage| (spec, *usage, mode)));
    }
    for (spec, usage, mode) in kinds {
        // Pairs of RSA take seconds: one length stands for all.
        if matches!(spec, KeySpec::Rsa3072 | KeySpec::Rsa4096) || !provider.profile().offers(spec, usage) {
            continue;
        }
        let stored = custody.generate_to_stay(spec, usage, mode).unwrap();
        custody.load(&stored).unwrap();
        assert_eq!(stored.public_key.is_some(), spec.is_key_pair(), "{}", spec.name());
        custody.destroy(&stored).unwrap();
        let id = &stored.token_object().unwrap().id;
        let left = session.find_objects(&[Attribute::bytes(CKA_ID, id)]).unwrap();
        assert!(left.is_empty(), "{} leaves nothing behind", spec.name());
    }
}

/// A token that was away for a moment takes calls again, and shows no private object until somebody logs in.
#[test]
fn a_key_that_nobody_logged_in_sees_is_neither_gone_nor_another() {
    let token = support::new_token();
    let provider = support::open_token(&token);
    let session = look(&token);
    let (stored, _) = made(&provider, &session);
    session.logout().unwrap();
    let text = sealed(&provider, &stored);
    opens(&provider, &stored, text);
    key(&session, "payments", b"pay", &SEALS);
    session.logout().unwrap();
    adopt(&provider, &wanted("payments")).unwrap();
    session.logout().unwrap();
    provider.custody().unwrap().destroy(&stored).unwrap();
    provider.custody().unwrap().canary().unwrap();
    let id = &stored.token_object().unwrap().id;
    let left = session.find_objects(&[Attribute::bytes(CKA_ID, id)]).unwrap();
    assert!(left.is_empty());
}

#[test]
fn a_key_is_bound_to_its_token() {
    let (token, other) = (support::new_token(), support::new_token());
    let provider = support::open_token(&token);
    key(&look(&token), "payments", b"pay", &SEALS);
    let stored = adopt(&provider, &wanted("payments")).unwrap();
    let elsewhere = support::open_token(&other);
    key(&look(&other), "payments", b"pay", &SEALS);
    let refused = load(&elsewhere, &stored);
    assert!(matches!(refused, Err(ProviderError::Rejected(why)) if why.contains("serial number")));
}
