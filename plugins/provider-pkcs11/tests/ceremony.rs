//! The ceremony on real tokens: one domain on several, a copy for custodians, a token that joins later, and what is left where any
//! step of it fails.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{AeadBatch, AeadItem, CryptoProvider, StoredKey};
use keymill_provider_pkcs11::module::{Attribute, Mechanism, Session, User, number::*};
use keymill_provider_pkcs11::{
    Ceremony, DOMAIN_KEY_LABEL, DomainCopy, Initialize, MAC_KEY_LABEL, OpenErrorKind,
    PRIVATE_DOMAIN_KEY_LABEL, Party, Pkcs11Provider, clean, initialize, join, wrapping_key,
};

use support::faults;

/// Keys that every token of a domain has.
const KEYS: usize = 3;

fn party(label: &str) -> Party {
    Party {
        module: support::module(),
        token_label: label.into(),
        token_serial: None,
        domain: None,
        pin: Sensitive::copied(support::PIN),
    }
}

fn parties(labels: &[String]) -> Vec<Party> {
    labels.iter().map(|label| party(label)).collect()
}

/// Makes tokens that have their PINs and no keys.
fn tokens<const N: usize>() -> [String; N] {
    std::array::from_fn(|_| support::new_token_without_keys())
}

/// Makes a domain of new tokens with a copy for custodians.
fn domain<const N: usize>() -> ([String; N], Sensitive, DomainCopy) {
    let labels = tokens();
    let mut ceremony = Ceremony::begin(&parties(&labels)).unwrap();
    let kek = ceremony.draw_kek().unwrap();
    let (_, copy) = ceremony.make_domain(Some(&kek)).unwrap();
    ceremony.finish().unwrap();
    (labels, kek, copy.unwrap())
}

/// A session of a token that is logged in, to look with.
fn look(label: &str) -> Session {
    let session = support::module().open_session(support::slot(label), true).unwrap();
    let _already = session.login(User::User, &Sensitive::copied(support::PIN));
    session
}

/// Counts every object on the token that a ceremony could have left.
fn objects(label: &str) -> usize {
    let session = look(label);
    [CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY]
        .map(|class| session.find_objects(&[Attribute::number(CKA_CLASS, class)]).unwrap().len())
        .into_iter()
        .sum()
}

fn domain_keys(label: &str) -> usize {
    look(label).find_objects(&[Attribute::number(CKA_CLASS, CKO_SECRET_KEY)]).unwrap().len()
}

fn sealed(provider: &Pkcs11Provider, key: &StoredKey) -> AeadBatch {
    let handle = provider.custody().unwrap().load(key).unwrap();
    let mut batch = AeadBatch { buffer: vec![7; 56], aad: Vec::new(), items: Vec::new() };
    batch.items.push(AeadItem { nonce: [1; 12], aad: 0..0, text: 0..40, outcome: None });
    provider.open_session().unwrap().encrypt(&handle, &mut batch).unwrap();
    assert_eq!(batch.items[0].outcome.take(), Some(Ok(())));
    batch
}

#[track_caller]
fn opens(provider: &Pkcs11Provider, key: &StoredKey, mut batch: AeadBatch) {
    let handle = provider.custody().unwrap().load(key).unwrap();
    provider.open_session().unwrap().decrypt(&handle, &mut batch).unwrap();
    assert_eq!(batch.items[0].outcome, Some(Ok(())));
    assert_eq!(batch.buffer[..40], [7; 40]);
}

#[test]
fn what_one_token_of_the_domain_wraps_each_other_opens() {
    let labels = tokens::<3>();
    let mut ceremony = Ceremony::begin(&parties(&labels)).unwrap();
    let keys = ceremony.wrapping_keys();
    assert_eq!(keys.iter().map(|key| &key.token).collect::<Vec<_>>(), labels.iter().collect::<Vec<_>>());
    assert!(keys.iter().all(|key| key.made && key.spki.len() == 422));
    assert!(keys[0].spki != keys[1].spki && keys[1].spki != keys[2].spki);
    let (made, copy) = ceremony.make_domain(None).unwrap();
    assert!(copy.is_none());
    assert_eq!(made.parties.len(), 3);
    assert!(made.parties.iter().all(|party| party.unwraps_limited), "{made:?}");
    ceremony.finish().unwrap();

    let providers: Vec<_> = labels.iter().map(|label| support::open_token(label)).collect();
    for (spec, usage) in [(KeySpec::EcP256, KeyUsage::SignVerify), (KeySpec::Rsa2048, KeyUsage::SignVerify)] {
        let key = providers[0].custody().unwrap().generate(spec, usage, None).unwrap();
        for provider in &providers {
            // A private key is proved by use when it is loaded.
            provider.custody().unwrap().load(&key).unwrap();
        }
    }
    for mode in [BulkMode::InHsm, BulkMode::HsmDerived] {
        let key = providers[0]
            .custody()
            .unwrap()
            .generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(mode))
            .unwrap();
        for provider in &providers {
            provider.custody().unwrap().load(&key).unwrap();
        }
    }
    for from in &providers {
        let key = from
            .custody()
            .unwrap()
            .generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm))
            .unwrap();
        for to in &providers {
            opens(to, &key, sealed(from, &key));
        }
        let root = |provider: &Pkcs11Provider| provider.root_derive([[1; 16], [2; 16]]).unwrap();
        assert_eq!(root(from).expose(), root(&providers[0]).expose());
    }
    drop(providers);
    // The domain's keys, and nothing of the ceremony; none of them may leave.
    for label in &labels {
        assert_eq!(objects(label), KEYS, "{label}");
        let session = look(label);
        for key in [DOMAIN_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, MAC_KEY_LABEL] {
            let found = session.find_objects(&[Attribute::bytes(CKA_LABEL, key.as_bytes())]).unwrap();
            assert!(!session.flag(found[0], CKA_EXTRACTABLE).unwrap());
            assert!(session.flag(found[0], CKA_SENSITIVE).unwrap());
        }
    }
}

#[test]
fn a_token_that_joins_from_the_copy_opens_every_key_of_the_domain() {
    let (labels, kek, copy) = domain::<2>();
    let old = support::open_token(&labels[1]);
    let keys: Vec<_> = (0..5)
        .map(|_| {
            old.custody()
                .unwrap()
                .generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm))
                .unwrap()
        })
        .collect();
    let texts: Vec<_> = keys.iter().map(|key| sealed(&old, key)).collect();
    let [late] = tokens();
    let report = join(&party(&late), &kek, &copy).unwrap();
    assert!(report.unwraps_limited && report.oaep.is_none());
    let new = support::open_token(&late);
    keys.iter().zip(texts).for_each(|(key, text)| opens(&new, key, text));
    let root = |provider: &Pkcs11Provider| provider.root_derive([[1; 16], [2; 16]]).unwrap();
    assert_eq!(root(&new).expose(), root(&old).expose());
    drop((old, new));
    assert_eq!(objects(&late), KEYS);
    let again = join(&party(&late), &kek, &copy).unwrap_err();
    assert_eq!(again.kind(), OpenErrorKind::Occupied, "{again}");
}

#[test]
fn a_wrong_or_damaged_copy_leaves_nothing_on_the_token() {
    let (_, kek, copy) = domain::<1>();
    let (_, other_kek, other) = domain::<1>();
    let [late] = tokens();
    let refused = |kek: &Sensitive, copy: &DomainCopy| {
        let error = join(&party(&late), kek, copy).unwrap_err();
        assert_eq!(objects(&late), 0, "{error}");
        error
    };
    refused(&other_kek, &copy);
    let mut damaged = copy.clone();
    damaged.keys[0].1[8] ^= 1;
    refused(&kek, &damaged);
    damaged = copy.clone();
    damaged.keys[2].1[39] ^= 1;
    refused(&kek, &damaged);
    // Whole keys, but the one for private keys is another's.
    damaged = copy.clone();
    damaged.keys[1].1 = copy.keys[2].1.clone();
    assert!(refused(&kek, &damaged).to_string().contains("answers"));
    // Whole keys, but of another domain than the answers.
    damaged = DomainCopy { keys: copy.keys.clone(), ..other.clone() };
    assert!(refused(&kek, &damaged).to_string().contains("answers"));
    damaged = copy.clone();
    damaged.keys[0].1.pop();
    assert_eq!(refused(&kek, &damaged).kind(), OpenErrorKind::Input);
    damaged = copy.clone();
    damaged.keys.pop();
    assert!(refused(&kek, &damaged).to_string().contains(DOMAIN_KEY_LABEL));
    join(&party(&late), &kek, &copy).unwrap();
}

#[test]
fn a_ceremony_that_is_dropped_at_any_point_leaves_nothing() {
    let labels = tokens::<2>();
    let nothing = || assert_eq!(labels.each_ref().map(|label| objects(label)), [0; 2]);
    drop(Ceremony::begin(&parties(&labels)).unwrap());
    nothing();
    let mut ceremony = Ceremony::begin(&parties(&labels)).unwrap();
    let kek = ceremony.draw_kek().unwrap();
    ceremony.make_domain(Some(&kek)).unwrap();
    assert_eq!(ceremony.roll_back(), Vec::<String>::new());
    nothing();
    drop(ceremony);
    // And it can be held again.
    let ceremony = Ceremony::begin(&parties(&labels)).unwrap();
    assert!(ceremony.wrapping_keys().iter().all(|key| key.made));
}

#[test]
fn a_wrapping_key_of_before_is_used_and_outlives_a_ceremony_that_fails() {
    let labels = tokens::<2>();
    let before = wrapping_key(&party(&labels[1])).unwrap();
    assert!(before.made);
    let again = wrapping_key(&party(&labels[1])).unwrap();
    assert!(!again.made && again.spki == before.spki);
    let ceremony = Ceremony::begin(&parties(&labels)).unwrap();
    assert_eq!(ceremony.wrapping_keys()[1], again);
    drop(ceremony);
    assert_eq!(objects(&labels[1]), 2, "it is there yet");
    let mut ceremony = Ceremony::begin(&parties(&labels)).unwrap();
    ceremony.make_domain(None).unwrap();
    ceremony.finish().unwrap();
    assert_eq!(labels.each_ref().map(|label| objects(label)), [KEYS; 2]);
}

#[test]
fn tokens_with_keys_absent_tokens_and_the_same_token_twice_are_refused_before_anything_is_written() {
    let labels = tokens::<1>();
    let used = support::new_token();
    let kind = |parties: &[Party]| Ceremony::begin(parties).err().unwrap().kind();
    assert_eq!(kind(&parties(&[labels[0].clone(), used.clone()])), OpenErrorKind::Occupied);
    assert_eq!(kind(&parties(&[used, labels[0].clone()])), OpenErrorKind::Occupied);
    assert_eq!(kind(&parties(&[labels[0].clone(), "nobody".into()])), OpenErrorKind::NoSuchToken);
    assert_eq!(kind(&parties(&[labels[0].clone(), labels[0].clone()])), OpenErrorKind::Input);
    assert_eq!(kind(&[]), OpenErrorKind::Input);
    assert_eq!(objects(&labels[0]), 0);
}

/// Whatever call fails, once or for good, at whatever moment: the ceremony is held, or nothing of it is left.
#[test]
fn a_ceremony_whose_calls_fail_is_held_or_leaves_nothing() {
    let labels = tokens::<2>();
    let module = faults::interpose(&support::module());
    let parties = labels.each_ref().map(|label| Party { module: module.clone(), ..party(label) });
    let held = || -> Result<(), keymill_provider_pkcs11::OpenError> {
        let mut ceremony = Ceremony::begin(&parties)?;
        let kek = ceremony.draw_kek()?;
        let (made, _) = ceremony.make_domain(Some(&kek))?;
        assert_eq!(made.keys.len(), KEYS);
        ceremony.finish()
    };
    let mut refused = 0;
    // How often each is called where nothing fails.
    let functions = [
        "C_GenerateKeyPair",
        "C_CreateObject",
        "C_GenerateKey",
        "C_WrapKey",
        "C_UnwrapKey",
        "C_GetAttributeValue",
        "C_Sign",
        "C_GenerateRandom",
    ];
    parties.iter().for_each(|party| drop(wrapping_key(party).unwrap()));
    let before = functions.map(faults::calls);
    held().unwrap();
    let after = functions.map(faults::calls);
    wipe(&labels);
    // Each moment takes a rehearsal, and with it new RSA keys: one for each function, and with `KEYMILL_TEST_ALL` all.
    let all = std::env::var_os("KEYMILL_TEST_ALL").is_some();
    for (index, function) in functions.into_iter().enumerate() {
        let calls = after[index] - before[index];
        let moments: Vec<usize> = if all { (0..calls).collect() } else { vec![calls * (1 + index % 3) / 4] };
        for times in if all { vec![1, usize::MAX] } else { vec![3] } {
            for &after in &moments {
                // Made before, for making them takes long.
                parties.iter().for_each(|party| drop(wrapping_key(party).unwrap()));
                let before = faults::calls(function);
                faults::plan(function, after, times, CKR_DEVICE_ERROR);
                let result = held();
                faults::clear();
                let met = faults::calls(function) - before > after;
                match result {
                    Ok(()) => {
                        for label in &labels {
                            assert_eq!(objects(label), KEYS, "{function} {after}");
                            let provider = support::open_token(label);
                            let honoured = provider.module_profile().unwraps_limited();
                            assert!(honoured, "{function} {after}: a fault has weakened the keys");
                        }
                        wipe(&labels);
                    }
                    Err(error) => {
                        assert!(met, "{function} {after}: {error}");
                        refused += 1;
                        labels.iter().for_each(|label| {
                            // The wrapping key of before alone.
                            assert_eq!(objects(label), 2, "{function} {after} {times}: {error}");
                            assert_eq!(domain_keys(label), 0, "{function} {after} {times}: {error}");
                        });
                    }
                }
            }
        }
    }
    assert!(refused > 2, "{refused}");
}

/// Takes the keys of a domain off tokens, as the vendor's tool could.
fn wipe(labels: &[String]) {
    for label in labels {
        let session = look(label);
        for object in session.find_objects(&[Attribute::number(CKA_CLASS, CKO_SECRET_KEY)]).unwrap() {
            session.destroy_object(object).unwrap();
        }
    }
}

/// What a process leaves that is killed between the two keys of a token, or with all of them there and its wrapping key, too.
#[test]
fn what_a_killed_ceremony_left_is_told_and_cleaned() {
    let [label] = tokens();
    let generate = |key: &str| {
        let session = look(&label);
        let template = [
            Attribute::number(CKA_VALUE_LEN, 32),
            Attribute::flag(CKA_TOKEN, true),
            Attribute::flag(CKA_SENSITIVE, true),
            Attribute::flag(CKA_EXTRACTABLE, false),
            Attribute::bytes(CKA_LABEL, key.as_bytes()),
            Attribute::bytes(CKA_ID, &[7; 16]),
        ];
        session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).unwrap();
    };
    wrapping_key(&party(&label)).unwrap();
    generate(MAC_KEY_LABEL);
    let kind = |result: Result<(), keymill_provider_pkcs11::OpenError>| result.unwrap_err().kind();
    let begin = || Ceremony::begin(&[party(&label)]).map(drop);
    assert_eq!(kind(begin()), OpenErrorKind::Unfinished);
    let init = || {
        let options = Initialize {
            module: support::module_path(),
            token_label: label.clone(),
            token_serial: None,
            domain: None,
            so_pin: None,
            pin: Sensitive::copied(support::PIN),
            keys: true,
        };
        initialize(options).map(|_| ())
    };
    assert_eq!(kind(init()), OpenErrorKind::Unfinished, "init must not complete what a ceremony began");

    // Looked at, and left.
    let (found, cleaned) = clean(&party(&label), false, |_| false).unwrap();
    assert_eq!(
        (found.wrapping_halves, &*found.keys, found.complete),
        (2, &[MAC_KEY_LABEL.to_owned()][..], false)
    );
    assert!(cleaned.is_none() && objects(&label) == 3);
    // Incomplete keys were never in use, and go.
    let (_, cleaned) = clean(&party(&label), false, |_| true).unwrap();
    assert_eq!(cleaned.unwrap().keys, [MAC_KEY_LABEL]);
    assert_eq!(objects(&label), 0);

    // Complete ones stay, unless it is said that they go.
    wrapping_key(&party(&label)).unwrap();
    generate(MAC_KEY_LABEL);
    generate(DOMAIN_KEY_LABEL);
    assert_eq!(kind(begin()), OpenErrorKind::Unfinished);
    let (found, cleaned) = clean(&party(&label), true, |_| true).unwrap();
    assert!(found.complete);
    assert_eq!(cleaned.unwrap().keys, [DOMAIN_KEY_LABEL, MAC_KEY_LABEL]);
    wrapping_key(&party(&label)).unwrap();
    generate(MAC_KEY_LABEL);
    generate(DOMAIN_KEY_LABEL);
    let (_, cleaned) = clean(&party(&label), false, |_| true).unwrap();
    assert_eq!(cleaned.unwrap().keys, <[&str; 0]>::default());
    assert_eq!(objects(&label), 2, "only the mark has gone");
    let refused = clean(&party(&label), true, |_| true).unwrap_err();
    assert_eq!(refused.kind(), OpenErrorKind::Occupied, "without the mark they may be in use");
}

#[test]
fn an_initialisation_that_was_cut_short_is_completed_with_the_key_that_is_there() {
    let label = support::new_token();
    let before = support::open_token(&label).root_derive([[1; 16], [2; 16]]).unwrap();
    // As if it had died before the last key.
    let session = look(&label);
    session.destroy_object(support::domain_key(&session)).unwrap();
    drop(session);
    let refused = keymill_provider_pkcs11::open_on(support::module(), support::config(&label)).err().unwrap();
    assert_eq!(refused.kind(), OpenErrorKind::NotInitialized, "{refused}");
    let options = || Initialize {
        module: support::module_path(),
        token_label: label.clone(),
        token_serial: None,
        domain: None,
        so_pin: None,
        pin: Sensitive::copied(support::PIN),
        keys: true,
    };
    let made = initialize(options()).unwrap();
    assert_eq!(made.keys.unwrap().kept, [MAC_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL]);
    let after = support::open_token(&label).root_derive([[1; 16], [2; 16]]).unwrap();
    assert_eq!(before.expose(), after.expose());
    assert_eq!(initialize(options()).unwrap_err().kind(), OpenErrorKind::Occupied);
}

#[test]
fn a_token_without_its_users_pin_gets_it_where_the_officers_is_given() {
    let label = format!("bare-{}", std::process::id());
    support::new_bare_token(&label);
    let options = |so_pin| Initialize {
        module: support::module_path(),
        token_label: label.clone(),
        token_serial: None,
        domain: None,
        so_pin,
        pin: Sensitive::copied(support::PIN),
        keys: true,
    };
    assert_eq!(initialize(options(None)).unwrap_err().kind(), OpenErrorKind::Pin);
    let made = initialize(options(Some(Sensitive::copied(support::SO_PIN)))).unwrap();
    assert!(!made.token_made && made.keys.unwrap().unwraps_limited);
}
