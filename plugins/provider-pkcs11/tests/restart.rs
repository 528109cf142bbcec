//! What happens to every token of a module at once: the module finalised, the storage gone. Alone in its process, and one at a time.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::sync::{Mutex, PoisonError};

use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{AeadBatch, AeadItem, CryptoProvider, CryptoSession, JobError, KeyHandle};
use keymill_provider_pkcs11::module::Failure;
use keymill_provider_pkcs11::{GcmMethod, Pkcs11Provider, open_on};

use support::faults;

fn provider(label: &str) -> Pkcs11Provider {
    let mut config = support::config(label);
    config.overrides.gcm = Some(GcmMethod::Classic);
    open_on(faults::interpose(&support::module()), config).unwrap()
}

fn encrypt(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
) -> (bool, Option<Result<(), JobError>>, Vec<u8>) {
    let item = AeadItem { nonce: [1; 12], aad: 0..0, text: 0..4, outcome: None };
    let mut batch = AeadBatch { buffer: vec![7; 20], aad: Vec::new(), items: vec![item] };
    let lives = session.encrypt(key, &mut batch).is_ok();
    (lives, batch.items[0].outcome, batch.buffer)
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn handles_of_an_earlier_initialisation_never_touch_a_later_one() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (label, other) = (support::new_token(), support::new_token());
    let (ours, theirs) = (provider(&label), provider(&other));
    let mut custody = ours.custody().unwrap();
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)).unwrap();
    let old_key = custody.load(&stored).unwrap();
    let mut old_session = ours.open_session().unwrap();
    let (_, done, sealed) = encrypt(&mut *old_session, &old_key);
    assert_eq!(done, Some(Ok(())));
    let raw = support::module().open_session(support::slot(&label), false).unwrap();

    ours.restart_module().unwrap();

    // Sessions of now have the numbers of those of before, and are neither used nor closed by them.
    let new_key = custody.load(&stored).unwrap();
    assert_ne!(new_key.generation, old_key.generation);
    let mut new_session = ours.open_session().unwrap();
    assert_eq!(raw.random(&mut [0; 8]).unwrap_err(), Failure::OldHandle { call: "C_GenerateRandom" });
    drop(raw);
    let calls = faults::calls("C_EncryptInit");
    let (lives, undone, untouched) = encrypt(&mut *old_session, &new_key);
    assert_eq!((lives, undone, untouched), (false, None, vec![7; 20]));
    assert_eq!(faults::calls("C_EncryptInit"), calls);
    drop(old_session);
    let (lives, stale, untouched) = encrypt(&mut *new_session, &old_key);
    assert_eq!((lives, stale, untouched), (true, Some(Err(JobError::StaleHandle)), vec![7; 20]));
    drop(old_key);
    custody.canary().unwrap();
    let (_, done, again) = encrypt(&mut *new_session, &new_key);
    assert_eq!((done, again), (Some(Ok(())), sealed.clone()));

    // The module's other token comes back by itself, too.
    let mut their_custody = theirs.custody().unwrap();
    their_custody.canary().unwrap();
    theirs.open_session().unwrap();

    // Another library of this process finalises the module under us: the code says so once, and the next use initialises it.
    let generation = ours.module().generation();
    faults::finalize_behind_our_back();
    let (lives, undone, untouched) = encrypt(&mut *new_session, &new_key);
    assert_eq!((lives, undone, untouched), (false, None, vec![7; 20]));
    assert_eq!(ours.module().generation(), generation + 1);
    let key = custody.load(&stored).unwrap();
    let mut session = ours.open_session().unwrap();
    let (_, done, again) = encrypt(&mut *session, &key);
    assert_eq!((done, again), (Some(Ok(())), sealed));
    their_custody.canary().unwrap();

    // Finalised twice, it stays so until it is used.
    ours.module().finalize().unwrap();
    ours.module().finalize().unwrap();
    assert!(encrypt(&mut *session, &key).1.is_none());
    custody.canary().unwrap();
}

/// One module goes on with what it has open, another loses its domain key for good, and says so in its own time.
#[test]
fn a_token_whose_storage_goes_and_comes_is_taken_back() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let label = support::new_token();
    let ours = provider(&label);
    let mut custody = ours.custody().unwrap();
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)).unwrap();
    let (here, away) = (support::directory(), support::directory().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    let alive = custody.canary().is_ok();
    assert_eq!(alive, support::is_kryoptic());
    assert_eq!(custody.load(&stored).is_ok(), alive);
    fs::rename(&away, &here).unwrap();
    custody.canary().unwrap();
    let key = custody.load(&stored).unwrap();
    let (_, done, _) = encrypt(&mut *ours.open_session().unwrap(), &key);
    assert_eq!(done, Some(Ok(())));
}
