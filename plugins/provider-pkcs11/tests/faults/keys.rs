//! The life of keys: born, wrapped, unwrapped, evicted, lost, damaged, and never mixed up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use cryptoki_sys::*;
use keymill_core::key::{BulkMode, KeySpec};
use keymill_core::seam::provider::{CryptoProvider, JobError, KeyMaterial, ProviderError, StoredKey};
use keymill_provider_pkcs11::module::Attribute;

use crate::support::{self, faults};
use crate::{assert_plain_after, batch, fresh, good_copy, outcomes, provider, provider_with, sealed, stored};

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
fn a_generation_that_takes_long_keeps_nothing_else_waiting() {
    for (function, spec) in [("C_GenerateKey", KeySpec::HmacSha256), ("C_GenerateKeyPair", KeySpec::Rsa2048)]
    {
        while_held(function, spec);
    }
}

fn while_held(function: &'static str, spec: KeySpec) {
    let provider = provider();
    let mut custody = provider.custody().unwrap();
    let stored = stored(&mut *custody, BulkMode::InHsm);
    let (began, has_begun) = mpsc::channel();
    let (may_go_on, go_on) = mpsc::channel();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            faults::hold(function, began, go_on);
            provider.custody().unwrap().generate(spec, spec.usages()[0], None).unwrap()
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

/// Generated well, and then not to be used: nobody would know of it.
#[test]
fn a_key_made_to_stay_that_cannot_be_told_is_destroyed_or_named() {
    let (provider, label) = provider_with(|_| {});
    let mut custody = provider.custody().unwrap();
    let mut generate = |spec: KeySpec, mode: Option<BulkMode>| {
        custody.generate_to_stay(spec, spec.usages()[0], mode).map(drop).unwrap_err().to_string()
    };
    let on_token = || {
        let session = support::module().open_session(support::slot(&label), false).unwrap();
        let objects = session.find_objects(&[Attribute::flag(CKA_TOKEN, true)]).unwrap();
        let mut bytes = [0; 100];
        let labels = objects.into_iter().map(|object| {
            let len = session.attribute(object, CKA_LABEL, &mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..len]).into_owned()
        });
        labels.filter(|label| label.starts_with("keymill CMK")).collect::<Vec<_>>()
    };
    faults::plan("C_EncryptInit", 0, 2, CKR_GENERAL_ERROR);
    let why = generate(KeySpec::Aes256, Some(BulkMode::InHsm));
    assert!(why.contains("CKR_GENERAL_ERROR") && !why.contains("keymill CMK"), "{why}");
    assert_eq!(on_token(), Vec::<String>::new());
    faults::plan("C_SignInit", 0, 2, CKR_GENERAL_ERROR);
    generate(KeySpec::Rsa2048, None);
    assert_eq!(on_token(), Vec::<String>::new(), "neither half");

    faults::plan("C_EncryptInit", 0, 2, CKR_GENERAL_ERROR);
    faults::plan("C_DestroyObject", 0, 2, CKR_GENERAL_ERROR);
    let why = generate(KeySpec::Aes256, Some(BulkMode::InHsm));
    let left = on_token();
    assert!(left.len() == 1 && why.contains(&left[0]), "{why}: {left:?}");
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
