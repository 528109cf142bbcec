//! What goes wrong with a session, a key, a token or its login, on a real module whose calls fail as planned: who is blamed, what is
//! left undone, and that it works again without anything being restarted.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use cryptoki_sys::*;
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, DeriveJob, JobError, KeyCustody, KeyHandle,
    KeyMaterial, ProviderError, StoredKey,
};
use keymill_provider_pkcs11::module::{Attribute, Class, Failure, MAX_CALL_BYTES, Mechanism, User};
use keymill_provider_pkcs11::{
    CancelMethod, Config, DOMAIN_KEY_LABEL, GcmMethod, Initialize, ModuleProfile, Pkcs11Provider,
    WrapMechanism, initialize, open_on,
};

use support::faults;

/// A provider whose calls can fail as planned, and the label of its token.
fn provider_with(edit: impl FnOnce(&mut Config)) -> (Pkcs11Provider, String) {
    let label = support::new_token();
    let mut config = support::config(&label);
    // The faults are planned for the classic calls.
    config.overrides.gcm = Some(GcmMethod::Classic);
    // It would drop the tokens of the tests beside.
    config.restart_module = false;
    edit(&mut config);
    let provider = open_on(faults::interpose(&support::module()), config).unwrap();
    faults::clear();
    (provider, label)
}

fn provider() -> Pkcs11Provider {
    provider_with(|_| {}).0
}

fn stored(custody: &mut dyn KeyCustody, mode: BulkMode) -> StoredKey {
    custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(mode)).unwrap()
}

fn key(provider: &Pkcs11Provider, mode: BulkMode) -> KeyHandle {
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, mode);
    custody.load(&stored).unwrap()
}

/// Makes a batch of texts of 40 bytes, each its number.
fn batch(count: usize) -> AeadBatch {
    let mut batch = AeadBatch { buffer: Vec::new(), aad: b"context".to_vec(), items: Vec::new() };
    for i in 0..count {
        let start = batch.buffer.len();
        batch.buffer.extend([i as u8; 40]);
        batch.buffer.extend([0; 16]);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(i as u64).to_be_bytes());
        batch.items.push(AeadItem { nonce, aad: 0..7, text: start..start + 40, outcome: None });
    }
    batch
}

fn sealed(session: &mut dyn CryptoSession, key: &KeyHandle, count: usize) -> AeadBatch {
    let mut batch = batch(count);
    session.encrypt(key, &mut batch).unwrap();
    assert!(batch.items.iter().all(|item| item.outcome == Some(Ok(()))));
    fresh(&mut batch);
    batch
}

fn fresh(batch: &mut AeadBatch) {
    batch.items.iter_mut().for_each(|item| item.outcome = None);
}

fn outcomes(batch: &AeadBatch) -> Vec<Option<Result<(), JobError>>> {
    batch.items.iter().map(|item| item.outcome).collect()
}

fn assert_plain(batch: &AeadBatch) {
    for (i, item) in batch.items.iter().enumerate() {
        assert_eq!(item.outcome, Some(Ok(())), "item {i}");
        assert_eq!(batch.buffer[item.text.clone()], [i as u8; 40], "item {i}");
    }
}

#[test]
fn a_session_lost_in_mid_batch_leaves_the_rest_undone_and_untouched() {
    let provider = provider();
    let key = key(&provider, BulkMode::InHsm);
    let mut session = provider.open_session().unwrap();
    for rv in [CKR_SESSION_HANDLE_INVALID, CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT, CKR_USER_NOT_LOGGED_IN]
    {
        for function in ["C_EncryptInit", "C_Encrypt"] {
            let mut work = batch(10);
            let before = work.buffer.clone();
            faults::plan(function, 4, 1, rv);
            let lost = session.encrypt(&key, &mut work).unwrap_err();
            assert!(lost.reason.contains(function), "{}", lost.reason);
            let undone = work.items[4].text.start;
            assert!(work.items[..4].iter().all(|item| item.outcome == Some(Ok(()))));
            assert!(work.items[4..].iter().all(|item| item.outcome.is_none()));
            assert_eq!(work.buffer[undone..], before[undone..]);
            // Another session does the rest, and all of it opens.
            session = provider.open_session().unwrap();
            session.encrypt(&key, &mut work).unwrap();
            fresh(&mut work);
            session.decrypt(&key, &mut work).unwrap();
            assert_plain(&work);
        }
    }
}

#[test]
fn a_device_that_dies_under_decryption_blames_no_ciphertext() {
    let provider = provider();
    let key = key(&provider, BulkMode::InHsm);
    let mut session = provider.open_session().unwrap();
    let mut work = sealed(&mut *session, &key, 40);
    let before = work.buffer.clone();
    for rv in [CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, CKR_FUNCTION_FAILED] {
        fresh(&mut work);
        // The canary's song does not open either.
        faults::plan("C_Decrypt", 0, usize::MAX, rv);
        session.decrypt(&key, &mut work).unwrap_err();
        assert_eq!(outcomes(&work), [None; 40]);
        assert_eq!(work.buffer, before);
        faults::clear();
        session = provider.open_session().unwrap();
    }
    session.decrypt(&key, &mut work).unwrap();
    assert_plain(&work);
}

#[test]
fn a_device_that_fails_now_and_then_makes_no_good_ciphertext_a_forged_one() {
    let provider = provider();
    let key = key(&provider, BulkMode::InHsm);
    let mut session = provider.open_session().unwrap();
    for (function, rv) in [("C_Decrypt", CKR_GENERAL_ERROR), ("C_DecryptInit", CKR_DEVICE_ERROR)] {
        let mut work = sealed(&mut *session, &key, 40);
        faults::plan(function, 7, 1, rv);
        session.decrypt(&key, &mut work).unwrap();
        assert_plain(&work);
    }
    for (function, rv) in [("C_Encrypt", CKR_FUNCTION_FAILED), ("C_EncryptInit", CKR_DEVICE_ERROR)] {
        faults::plan(function, 7, 1, rv);
        let mut work = sealed(&mut *session, &key, 40);
        session.decrypt(&key, &mut work).unwrap();
        assert_plain(&work);
    }
}

#[test]
fn ten_thousand_forged_ciphertexts_lose_no_session_and_no_key() {
    let provider = provider();
    let key = key(&provider, BulkMode::InHsm);
    let mut session = provider.open_session().unwrap();
    let sessions = faults::calls("C_OpenSession");
    let logins = faults::calls("C_Login");
    let mut opened = 0;
    let good = sealed(&mut *session, &key, 100);
    for round in 0..100 {
        let mut work = sealed(&mut *session, &key, 101);
        assert_eq!(work.buffer[..good.buffer.len()], good.buffer);
        // One good one among a hundred, at a place of its own.
        for (i, item) in work.items.iter().enumerate() {
            if i != round {
                work.buffer[item.text.end + round % 16] ^= 1 << (i % 8);
            }
        }
        session.decrypt(&key, &mut work).unwrap();
        for (i, outcome) in outcomes(&work).into_iter().enumerate() {
            assert_eq!(outcome, Some(if i == round { Ok(()) } else { Err(JobError::InvalidCiphertext) }));
            opened += 1;
        }
    }
    assert_eq!(opened, 10_100);
    let replaced = faults::calls("C_OpenSession") - sessions;
    assert_eq!((replaced, faults::calls("C_Login") - logins), (0, 0));
    // Nor is the token in doubt: the handle is of now still.
    let mut custody = provider.custody().unwrap();
    custody.canary().unwrap();
    assert_plain_after(&mut *session, &key, good);
}

fn assert_plain_after(session: &mut dyn CryptoSession, key: &KeyHandle, mut work: AeadBatch) {
    fresh(&mut work);
    session.decrypt(key, &mut work).unwrap();
    assert_plain(&work);
}

/// The planned code comes without the real call, so that the operation stays active in the module.
#[test]
fn an_operation_left_active_is_ended_before_the_next() {
    let provider = provider();
    let mut session = provider.open_session().unwrap();
    let aead = key(&provider, BulkMode::InHsm);
    let mac = key(&provider, BulkMode::HsmDerived);
    for left in ["C_Encrypt", "C_Decrypt"] {
        let sessions = faults::calls("C_OpenSession");
        let mut work = sealed(&mut *session, &aead, 3);
        faults::plan(left, 1, 1, CKR_FUNCTION_FAILED);
        if left == "C_Encrypt" {
            work = batch(3);
            session.encrypt(&aead, &mut work).unwrap();
            fresh(&mut work);
        }
        session.decrypt(&aead, &mut work).unwrap();
        assert_plain(&work);
        let replaced = faults::calls("C_OpenSession") - sessions;
        let replaces = provider.module_profile().cancel == CancelMethod::ReplaceSession;
        assert_eq!(replaced, usize::from(replaces), "where it cannot be cancelled the session is replaced");
    }
    // A failure after which the session is closed loses the session; one that only leaves it busy does not.
    faults::plan("C_Sign", 0, 1, CKR_HOST_MEMORY);
    let mut jobs = [DeriveJob::new([[1; 16], [2; 16]])];
    session.derive(&mac, &mut jobs).unwrap_err();
    assert!(jobs[0].output.is_none());
    session.derive(&mac, &mut jobs).unwrap();
    assert!(jobs[0].output.as_ref().unwrap().is_ok());
}

#[test]
fn a_key_that_the_token_has_lost_is_stale_and_loads_again() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    let handle = custody.load(&stored).unwrap();
    let mut session = provider.open_session().unwrap();
    let mut work = sealed(&mut *session, &handle, 5);
    for rv in [CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID] {
        fresh(&mut work);
        let handle = custody.load(&stored).unwrap();
        faults::plan("C_DecryptInit", 0, 1, rv);
        session.decrypt(&handle, &mut work).unwrap();
        assert_eq!(outcomes(&work), [Some(Err(JobError::StaleHandle)); 5]);
    }
    let unwrapped = faults::calls("C_UnwrapKey");
    let handle = custody.load(&stored).unwrap();
    assert_eq!(faults::calls("C_UnwrapKey"), unwrapped + 1, "the lost object is not handed out again");
    assert_plain_after(&mut *session, &handle, work);
}

#[test]
fn a_logout_behind_our_back_is_mended_by_one_login() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    let handle = custody.load(&stored).unwrap();
    let mut session = provider.open_session().unwrap();
    let mut work = sealed(&mut *session, &handle, 5);
    support::module().open_session(support::slot(&label), false).unwrap().logout().unwrap();
    let logins = faults::calls("C_Login");
    // The objects are gone with the login: either of the two says so, and nothing is blamed.
    if session.decrypt(&handle, &mut work).is_ok() {
        assert_eq!(outcomes(&work), [Some(Err(JobError::StaleHandle)); 5]);
    } else {
        assert_eq!(outcomes(&work), [None; 5]);
    }
    let handle = custody.load(&stored).unwrap();
    let mut session = provider.open_session().unwrap();
    assert_plain_after(&mut *session, &handle, work);
    assert_eq!(faults::calls("C_Login"), logins + 1);
}

#[test]
fn sessions_closed_behind_our_back_are_opened_again() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    let before = custody.load(&stored).unwrap();
    faults::plan("C_UnwrapKey", 0, 2, CKR_SESSION_HANDLE_INVALID);
    let another = self::stored(&mut *custody, BulkMode::InHsm);
    custody.load(&another).unwrap();
    // The owner session was replaced: what it owned is void, although the session that uses it lives.
    let mut session = provider.open_session().unwrap();
    let mut work = batch(2);
    session.encrypt(&before, &mut work).unwrap();
    assert_eq!(outcomes(&work), [Some(Err(JobError::StaleHandle)); 2]);
    let after = custody.load(&stored).unwrap();
    assert_ne!(before.generation, after.generation);
    sealed(&mut *session, &after, 2);
}

#[test]
fn a_generation_that_takes_long_keeps_nothing_else_waiting() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    let (began, has_begun) = mpsc::channel();
    let (may_go_on, go_on) = mpsc::channel();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            faults::hold("C_GenerateKey", began, go_on);
            self::stored(&mut *provider.custody().unwrap(), BulkMode::InHsm)
        });
        has_begun.recv().unwrap();
        let handle = custody.load(&stored).unwrap();
        sealed(&mut *provider.open_session().unwrap(), &handle, 3);
        custody.unload(handle).unwrap();
        custody.canary().unwrap();
        // Not even a connection that is made anew: what is born meanwhile is born once more.
        let before = custody.load(&stored).unwrap().generation;
        let other = StoredKey { material: KeyMaterial::Wrapped(vec![0; 40]), ..good_copy(&stored) };
        faults::plan("C_UnwrapKey", 0, 2, CKR_SESSION_HANDLE_INVALID);
        custody.load(&other).unwrap_err();
        assert_ne!(custody.load(&stored).unwrap().generation, before);
        may_go_on.send(()).unwrap();
        custody.load(&slow.join().unwrap()).unwrap();
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let label = support::new_token();
    let mut config = support::config(&label);
    config.pin = Sensitive::copied(b"4711-wrong");
    let before = faults::calls("C_Login");
    let refused = open_on(faults::interpose(&support::module()), config).err().unwrap().to_string();
    assert!(refused.contains("CKR_PIN_INCORRECT") && !refused.contains("4711"), "{refused}");
    assert_eq!(faults::calls("C_Login"), before + 1);
}

#[test]
fn a_pin_refused_later_ends_all_logins_until_the_provider_is_opened_anew() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    for rv in [CKR_PIN_INCORRECT, CKR_PIN_LOCKED] {
        let logins = faults::calls("C_Login");
        faults::plan("C_UnwrapKey", 0, usize::MAX, CKR_DEVICE_REMOVED);
        faults::plan("C_Login", 0, usize::MAX, rv);
        for _ in 0..100 {
            assert!(matches!(custody.load(&stored).err(), Some(ProviderError::Unavailable(_))));
            assert!(matches!(provider.open_session().err(), Some(ProviderError::Unavailable(_))));
        }
        faults::clear();
        // The device is back, and still nobody tries.
        assert!(matches!(custody.canary().err(), Some(ProviderError::Unavailable(_))));
        let tried = faults::calls("C_Login") - logins;
        assert_eq!(tried, usize::from(rv == CKR_PIN_INCORRECT), "the first refusal is the last try");
    }
    let anew = support::open_token(&label);
    anew.custody().unwrap().load(&stored).unwrap();
}

#[test]
fn a_token_that_is_away_is_taken_back_without_a_restart() {
    let (provider, _) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    faults::plan("C_UnwrapKey", 0, usize::MAX, CKR_TOKEN_NOT_PRESENT);
    faults::plan("C_OpenSession", 0, usize::MAX, CKR_TOKEN_NOT_PRESENT);
    for _ in 0..20 {
        assert!(matches!(custody.canary().err(), Some(ProviderError::Unavailable(_))));
        assert!(matches!(provider.open_session().err(), Some(ProviderError::Unavailable(_))));
    }
    faults::clear();
    let handle = custody.load(&stored).unwrap();
    sealed(&mut *provider.open_session().unwrap(), &handle, 3);
    custody.canary().unwrap();
}

#[test]
fn a_damaged_blob_is_corrupt_and_casts_no_doubt_on_the_token() {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let good = stored(&mut *custody, BulkMode::InHsm);
    let generation = custody.load(&good).unwrap().generation;
    let KeyMaterial::Wrapped(blob) = &good.material else { panic!("an HSM key is wrapped") };
    for at in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[at] ^= 1;
        let damaged = StoredKey { material: KeyMaterial::Wrapped(damaged), ..good_copy(&good) };
        let refused = custody.load(&damaged).err();
        assert!(matches!(refused, Some(ProviderError::Corrupt(_))), "byte {at}: {refused:?}");
    }
    assert_eq!(custody.load(&good).unwrap().generation, generation);
    // A device that fails now and then damages nothing, and one that unwraps nothing at all is another matter.
    let other = stored(&mut *custody, BulkMode::InHsm);
    faults::plan("C_UnwrapKey", 0, 1, CKR_DEVICE_ERROR);
    custody.load(&other).unwrap();
    faults::plan("C_UnwrapKey", 0, usize::MAX, CKR_DEVICE_ERROR);
    let mut damaged = blob.clone();
    damaged[0] ^= 1;
    let damaged = StoredKey { material: KeyMaterial::Wrapped(damaged), ..good_copy(&good) };
    assert!(matches!(custody.load(&damaged).err(), Some(ProviderError::Unavailable(_))));
}

fn good_copy(stored: &StoredKey) -> StoredKey {
    StoredKey {
        spec: stored.spec,
        usage: stored.usage,
        bulk_mode: stored.bulk_mode,
        material: KeyMaterial::Wrapped(Vec::new()),
        public_key: stored.public_key.clone(),
    }
}

#[test]
fn objects_are_as_many_as_the_cache_holds_and_users_hold() {
    let (provider, label) = provider_with(|config| config.cached_keys = 4);
    let mut custody = provider.custody().unwrap();
    let keys: Vec<_> = (0..12).map(|_| stored(&mut *custody, BulkMode::InHsm)).collect();
    let canary = support::session_objects(&label);
    assert_eq!(canary, 1, "born keys are destroyed once they are wrapped");
    let balance = || {
        let made = ["C_GenerateKey", "C_UnwrapKey"].into_iter().map(faults::calls).sum::<usize>();
        made - faults::calls("C_DestroyObject")
    };
    custody.canary().unwrap();
    let mut held = Vec::new();
    for round in 0..20 {
        for (i, key) in keys.iter().enumerate() {
            let handle = custody.load(key).unwrap();
            if round == 0 && i < 3 {
                held.push(handle);
            }
        }
    }
    custody.canary().unwrap();
    // Three that are in use left the cache long ago.
    assert_eq!(support::session_objects(&label), canary + 4 + 3);
    let mut session = provider.open_session().unwrap();
    for handle in &held {
        sealed(&mut *session, handle, 2);
    }
    let before = balance();
    held.clear();
    assert_eq!(
        support::session_objects(&label),
        canary + 4 + 3,
        "no session is used from another thread's drop"
    );
    custody.canary().unwrap();
    assert_eq!(support::session_objects(&label), canary + 4);
    assert_eq!(before - balance(), 3);
    // Given up and destroyed ones go at once.
    let handle = custody.load(&keys[11]).unwrap();
    custody.unload(handle).unwrap();
    custody.destroy(&keys[10]).unwrap();
    assert_eq!(support::session_objects(&label), canary + 2);
}

#[test]
fn a_token_without_memory_gets_some_back_and_is_asked_again() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let keys: Vec<_> = (0..8).map(|_| stored(&mut *custody, BulkMode::InHsm)).collect();
    keys[..7].iter().for_each(|key| drop(custody.load(key).unwrap()));
    faults::plan("C_UnwrapKey", 0, 1, CKR_DEVICE_MEMORY);
    let handle = custody.load(&keys[7]).unwrap();
    sealed(&mut *provider.open_session().unwrap(), &handle, 1);
    assert_eq!(support::session_objects(&label), 1 + 3 + 1, "half of the seven have left");
}

#[test]
fn sessions_are_given_up_to_the_limit_and_taken_back() {
    let (provider, _) = provider_with(|config| config.max_sessions = 3);
    assert_eq!(provider.profile().max_sessions, 3);
    let sessions: Vec<_> = (0..3).map(|_| provider.open_session().unwrap()).collect();
    assert!(matches!(provider.open_session().err(), Some(ProviderError::Unavailable(_))));
    drop(sessions);
    let calls = faults::calls("C_OpenSession");
    faults::plan("C_OpenSession", 0, 1, CKR_SESSION_COUNT);
    assert!(matches!(provider.open_session().err(), Some(ProviderError::Unavailable(_))));
    assert_eq!(faults::calls("C_OpenSession"), calls + 1, "it is not asked in a loop");
    drop((0..3).map(|_| provider.open_session().unwrap()).collect::<Vec<_>>());
}

#[test]
fn what_is_too_large_never_reaches_the_module() {
    let provider = provider();
    let key = key(&provider, BulkMode::InHsm);
    let mut session = provider.open_session().unwrap();
    let limit = provider.module_profile().max_item_bytes;
    let mut large = AeadBatch { buffer: vec![7; limit + 17], aad: vec![7; limit + 1], items: Vec::new() };
    let item = |aad, text| AeadItem { nonce: [9; 12], aad, text, outcome: None };
    large.items.push(item(0..0, 0..limit + 1));
    large.items.push(item(0..limit + 1, 0..0));
    let calls = faults::calls("C_EncryptInit");
    session.encrypt(&key, &mut large).unwrap();
    session.decrypt(&key, &mut large).unwrap();
    assert_eq!(outcomes(&large), [Some(Err(JobError::Rejected)); 2]);
    assert_eq!(faults::calls("C_EncryptInit"), calls);
    large.items = vec![item(0..limit, 0..limit)];
    session.encrypt(&key, &mut large).unwrap();
    assert_eq!(outcomes(&large), [Some(Ok(()))]);
    // Below it all, the calls have a limit of their own.
    let (provider, label) = provider_with(|_| {});
    let raw = provider.module().open_session(support::slot(&label), false).unwrap();
    let too_large = vec![0; MAX_CALL_BYTES + 1];
    let refused = raw.encrypt(&too_large, &mut []).unwrap_err();
    assert_eq!(refused, Failure::TooLarge { call: "C_Encrypt", bytes: MAX_CALL_BYTES + 1 });
}

/// Writes nothing and claims much.
#[allow(unsafe_code)]
unsafe extern "C" fn boastful(
    _: CK_SESSION_HANDLE,
    _: *mut CK_BYTE,
    _: CK_ULONG,
    _: *mut CK_BYTE,
    len: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: the caller's length.
    unsafe { *len = 10_000 };
    CKR_OK
}

#[test]
fn a_module_that_claims_more_than_there_is_room_for_loses_its_session() {
    let label = support::new_token();
    let module = support::module().with_table(|table| table.base.C_Encrypt = Some(boastful));
    let session = module.open_session(support::slot(&label), false).unwrap();
    let mut out = [0; 20];
    let failure = session.encrypt(&[1, 2, 3, 4], &mut out).unwrap_err();
    assert_eq!(failure, Failure::Overlong { call: "C_Encrypt", bytes: 10_000 });
    assert_eq!(failure.class(), Class::SessionGone);
}

#[test]
fn a_forked_process_calls_nothing() {
    let label = support::new_token();
    let elsewhere = faults::interpose(&support::module()).with_owner(std::process::id() + 1);
    let calls = faults::calls("C_OpenSession");
    let slot = support::slot(&label);
    assert_eq!(elsewhere.slots().unwrap_err(), Failure::Forked { call: "C_GetSlotList" });
    assert_eq!(elsewhere.open_session(slot, false).err().unwrap(), Failure::Forked { call: "C_OpenSession" });
    assert_eq!(elsewhere.finalize().unwrap_err(), Failure::Forked { call: "C_Finalize" });
    let refused = open_on(elsewhere, support::config(&label)).err().unwrap().to_string();
    assert!(refused.contains("fork"), "{refused}");
    assert_eq!(faults::calls("C_OpenSession"), calls);
}

#[test]
fn a_failing_generator_gives_nothing() {
    let provider = provider();
    let mut session = provider.open_session().unwrap();
    faults::plan("C_GenerateRandom", 1, 1, CKR_RANDOM_NO_RNG);
    let mut out = vec![7; 10_000];
    assert!(matches!(session.random(&mut out).err(), Some(ProviderError::Unavailable(_))));
    assert!(out.iter().all(|byte| *byte == 0), "no half-filled buffer is left");
}

/// Clulow's attacks, with the service's own login: each must fail by the attributes of the objects.
#[test]
fn what_is_loaded_cannot_be_taken_out() {
    let (provider, label) = provider_with(|_| {});
    let held = [key(&provider, BulkMode::InHsm), key(&provider, BulkMode::HsmDerived)];
    let session = support::module().open_session(support::slot(&label), false).unwrap();
    let secrets = [Attribute::number(CKA_CLASS, CKO_SECRET_KEY)];
    let found = session.find_objects(&secrets).unwrap();
    // Two loaded, the canary, the domain key, the root MAC key.
    assert_eq!(found.len(), 5);
    let domain = support::domain_key(&session);
    let wrap = provider.module_profile().wrap.mechanism();
    let chosen = session
        .generate_key(
            Mechanism::Plain(CKM_AES_KEY_GEN),
            &[
                Attribute::number(CKA_VALUE_LEN, 32),
                Attribute::flag(CKA_TOKEN, false),
                Attribute::flag(CKA_WRAP, true),
            ],
        )
        .unwrap();
    for object in found {
        let mut out = [0; 256];
        session.attribute(object, CKA_VALUE, &mut out).unwrap_err();
        session.wrap_key(wrap, domain, object, &mut out).unwrap_err();
        session.wrap_key(wrap, chosen, object, &mut out).unwrap_err();
        assert!(session.flag(object, CKA_SENSITIVE).unwrap());
        assert!(!session.flag(object, CKA_EXTRACTABLE).unwrap());
    }
    // Nor is a stored key unwrapped as anything that brings it or another out.
    let KeyMaterial::Wrapped(blob) = stored(&mut *provider.custody().unwrap(), BulkMode::InHsm).material
    else {
        panic!("an HSM key is wrapped")
    };
    for (kind, value) in [
        (CKA_SENSITIVE, false),
        (CKA_EXTRACTABLE, true),
        (CKA_TOKEN, true),
        (CKA_WRAP, true),
        (CKA_UNWRAP, true),
        (CKA_DERIVE, true),
    ] {
        let mut template =
            vec![Attribute::number(CKA_CLASS, CKO_SECRET_KEY), Attribute::number(CKA_KEY_TYPE, CKK_AES)];
        for (kept, usual) in [
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_TOKEN, false),
            (CKA_WRAP, false),
            (CKA_UNWRAP, false),
            (CKA_DERIVE, false),
        ] {
            template.push(Attribute::flag(kept, if kept == kind { value } else { usual }));
        }
        session.unwrap_key(wrap, domain, &blob, &template).unwrap_err();
    }
    // The domain key opens no wrapped key as if it were data.
    session.decrypt_init(Mechanism::Gcm { nonce: &[0; 12], aad: &[] }, domain).unwrap_err();
    drop(held);
}

#[test]
fn a_key_does_one_thing() {
    let provider = provider();
    let (aead, mac) = (key(&provider, BulkMode::InHsm), key(&provider, BulkMode::HsmDerived));
    let mut session = provider.open_session().unwrap();
    let mut work = batch(2);
    session.encrypt(&mac, &mut work).unwrap();
    assert_eq!(outcomes(&work), [Some(Err(JobError::Rejected)); 2]);
    let mut jobs = [DeriveJob::new([[1; 16], [2; 16]])];
    session.derive(&aead, &mut jobs).unwrap();
    assert!(matches!(jobs[0].output, Some(Err(JobError::Rejected))));
}

#[test]
fn a_domain_key_that_could_leave_or_is_not_the_only_one_is_refused() {
    let label = support::new_token();
    let session = support::module().open_session(support::slot(&label), true).unwrap();
    session.login(User::User, &Sensitive::copied(support::PIN)).unwrap();
    let generate = |extractable| {
        let template = [
            Attribute::number(CKA_VALUE_LEN, 32),
            Attribute::flag(CKA_TOKEN, true),
            Attribute::flag(CKA_EXTRACTABLE, extractable),
            Attribute::flag(CKA_SENSITIVE, true),
            Attribute::bytes(CKA_LABEL, DOMAIN_KEY_LABEL.as_bytes()),
        ];
        session.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).unwrap()
    };
    let refusal = || open_on(support::module(), support::config(&label)).err().unwrap().to_string();
    let second = generate(false);
    assert!(refusal().contains("2 keys have the label"), "{}", refusal());
    session.destroy_object(second).unwrap();
    session.destroy_object(support::domain_key(&session)).unwrap();
    assert!(refusal().contains("has no key keymill-domain"), "{}", refusal());
    generate(true);
    assert!(refusal().contains("could be taken out"), "{}", refusal());
}

#[test]
fn a_token_that_has_its_keys_is_not_initialised_again() {
    let label = support::new_token();
    let again = |pin: &[u8]| {
        initialize(Initialize {
            module: support::module_path(),
            token_label: label.clone(),
            so_pin: Some(Sensitive::copied(b"0815-officer")),
            pin: Sensitive::copied(pin),
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

/// Several threads use more keys than the cache holds, while the owner session is lost and made again under them: what each key
/// seals is known beforehand, so that a handle that named another key for once would show.
#[test]
fn keys_are_never_mixed_up_by_evictions_and_reconnections() {
    const THREADS: usize = 4;
    let (provider, _) = provider_with(|config| config.cached_keys = 3);
    let custody = Mutex::new(provider.custody().unwrap());
    let keys: Vec<_> = (0..10).map(|_| stored(&mut **custody.lock().unwrap(), BulkMode::InHsm)).collect();
    let load = |key: &StoredKey| custody.lock().unwrap().load(key).unwrap();
    let known: Vec<_> =
        keys.iter().map(|key| sealed(&mut *provider.open_session().unwrap(), &load(key), 4).buffer).collect();
    let before = load(&keys[0]).generation;
    let (stale, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (provider, keys, known, load, stale, lost) = (&provider, &keys, &known, &load, &stale, &lost);
            scope.spawn(move || {
                let mut session = provider.open_session().unwrap();
                for round in 0..400 {
                    let at = (round * 7 + thread * 3) % keys.len();
                    if thread == 0 && round % 40 == 39 {
                        faults::plan("C_UnwrapKey", 0, 2, CKR_SESSION_HANDLE_INVALID);
                    }
                    let handle = load(&keys[at]);
                    let mut work = batch(4);
                    if session.encrypt(&handle, &mut work).is_err() {
                        lost.fetch_add(1, Ordering::Relaxed);
                        session = provider.open_session().unwrap();
                        continue;
                    }
                    if outcomes(&work).contains(&Some(Err(JobError::StaleHandle))) {
                        stale.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(work.buffer, known[at], "key {at} sealed as another would");
                    }
                }
            });
        }
    });
    assert_ne!(load(&keys[0]).generation, before, "the owner session was replaced on the way");
    let (stale, lost) = (stale.into_inner(), lost.into_inner());
    assert!(stale + lost < THREADS * 100, "{stale} stale, {lost} lost: nearly all went well");
}

/// Answers as the real function, and says that one more wrong PIN locks the token.
#[allow(unsafe_code)]
unsafe extern "C" fn final_try(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let mut real = None;
    let _ = support::module().with_table(|table| real = table.base.C_GetTokenInfo);
    // SAFETY: what came in goes on; the caller's structure was filled by then.
    unsafe {
        let rv = real.unwrap()(slot, info);
        (*info).flags |= CKF_USER_PIN_FINAL_TRY;
        rv
    }
}

#[test]
fn a_pin_on_its_final_try_is_not_tried() {
    let label = support::new_token();
    let module =
        faults::interpose(&support::module()).with_table(|table| table.base.C_GetTokenInfo = Some(final_try));
    let logins = faults::calls("C_Login");
    let refused = open_on(module, support::config(&label)).err().unwrap().to_string();
    assert!(refused.contains("locks it"), "{refused}");
    assert_eq!(faults::calls("C_Login"), logins);
}

#[test]
fn two_tokens_of_one_label_are_told_apart_by_their_serial_numbers() {
    let label = support::new_token();
    let serial = support::module().token_info(support::slot(&label)).unwrap().serial;
    support::new_bare_token(&label);
    let open = |serial: Option<&str>| {
        let mut config = support::config(&label);
        config.token_serial = serial.map(str::to_owned);
        open_on(support::module(), config).map(drop).map_err(|error| error.to_string())
    };
    assert!(open(None).unwrap_err().contains("2 tokens have the label"));
    open(Some(&serial)).unwrap();
    assert!(open(Some("another")).unwrap_err().contains("no token"));
}
