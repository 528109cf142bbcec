//! Batches of AES-GCM and derivations: a session that is lost among them, a device that fails now and then, forged ciphertexts, and
//! what never reaches the module.

use cryptoki_sys::*;
use keymill_core::key::BulkMode;
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, DeriveJob, FailureCode, JobError, ProviderError,
};
use keymill_provider_pkcs11::CancelMethod;
use keymill_provider_pkcs11::module::{Class, Failure, MAX_CALL_BYTES, Rv};

use crate::support::{self, faults};
use crate::{assert_plain, assert_plain_after, batch, fresh, key, outcomes, provider, provider_with, sealed};

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
            assert_eq!(lost.code.map(FailureCode::name), Rv(rv).name());
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
fn a_failing_generator_gives_nothing() {
    let provider = provider();
    let mut session = provider.open_session().unwrap();
    faults::plan("C_GenerateRandom", 1, 1, CKR_RANDOM_NO_RNG);
    let mut out = vec![7; 10_000];
    assert!(matches!(session.random(&mut out).err(), Some(ProviderError::Unavailable(_))));
    assert!(out.iter().all(|byte| *byte == 0), "no half-filled buffer is left");
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
