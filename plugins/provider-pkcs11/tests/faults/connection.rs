//! The way to the token: a login or sessions that go behind our back, PINs that are refused, a token that is away, a process that was
//! forked.

use std::sync::{Barrier, mpsc};
use std::time::Duration;

use cryptoki_sys::*;
use keymill_core::Sensitive;
use keymill_core::key::BulkMode;
use keymill_core::seam::provider::{CryptoProvider, JobError, ProviderError};
use keymill_provider_pkcs11::module::Failure;
use keymill_provider_pkcs11::open_on;

use crate::support::{self, faults};
use crate::{assert_plain_after, batch, outcomes, provider, provider_with, sealed, stored};

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

/// Whoever finds the login gone mends it for all: no thread logs in beside another, and none logs out.
#[test]
fn a_login_that_many_threads_miss_is_made_once() {
    const THREADS: usize = 4;
    let (provider, label) = provider_with(|_| {});
    let stored = stored(&mut *provider.custody().unwrap(), BulkMode::InHsm);
    let behind_our_back = support::module().open_session(support::slot(&label), false).unwrap();
    for _ in 0..5 {
        let ready = Barrier::new(THREADS + 1);
        let logins: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut custody = provider.custody().unwrap();
                        let mut session = provider.open_session().unwrap();
                        let mut handle = custody.load(&stored).unwrap();
                        ready.wait();
                        ready.wait();
                        loop {
                            let mut work = batch(3);
                            if session.encrypt(&handle, &mut work).is_err() {
                                session = provider.open_session().unwrap();
                            } else if outcomes(&work) == [Some(Ok(())); 3] {
                                break faults::calls("C_Login");
                            }
                            handle = custody.load(&stored).unwrap();
                        }
                    })
                })
                .collect();
            ready.wait();
            behind_our_back.logout().unwrap();
            ready.wait();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(logins, 1);
    }
}

#[test]
fn a_call_that_hangs_keeps_none_from_loading_and_no_reconnection_waits_longer_than_it_says() {
    let (provider, _) = provider_with(|config| config.quiesce = Duration::from_millis(20));
    let mut custody = provider.custody().unwrap();
    let keys = [0; 2].map(|_| stored(&mut *custody, BulkMode::InHsm));
    let handle = custody.load(&keys[0]).unwrap();
    let (began, has_begun) = mpsc::channel();
    let (may_go_on, go_on) = mpsc::channel();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| {
            let mut session = provider.open_session().unwrap();
            faults::hold("C_Encrypt", began, go_on);
            sealed(&mut *session, &handle, 2)
        });
        has_begun.recv().unwrap();
        let other = custody.load(&keys[1]).unwrap();
        sealed(&mut *provider.open_session().unwrap(), &other, 2);
        // The connection is gone, and cannot be made anew under the call that hangs.
        custody.destroy(&keys[1]).unwrap();
        faults::plan("C_UnwrapKey", 0, 2, CKR_SESSION_HANDLE_INVALID);
        let Err(ProviderError::Unavailable(why)) = custody.load(&keys[1]) else {
            panic!("it is not to be had")
        };
        assert!(why.reason.contains("do not come back"), "{why}");
        may_go_on.send(()).unwrap();
        // What it did is done, under its own key.
        let work = hung.join().unwrap();
        let handle = custody.load(&keys[0]).unwrap();
        assert_plain_after(&mut *provider.open_session().unwrap(), &handle, work);
        custody.load(&keys[1]).unwrap();
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
fn sessions_are_given_up_to_the_limit_and_taken_back() {
    let (provider, _) = provider_with(|config| config.max_sessions = 3);
    assert_eq!(provider.profile().max_sessions, 3);
    let sessions: Vec<_> = (0..3).map(|_| provider.open_session().unwrap()).collect();
    assert!(matches!(provider.open_session().err(), Some(ProviderError::Unavailable(_))));
    drop(sessions);
    // One service says odd things where it has no more.
    for rv in [CKR_SESSION_COUNT, CKR_ARGUMENTS_BAD, CKR_DEVICE_MEMORY] {
        let calls = faults::calls("C_OpenSession");
        faults::plan("C_OpenSession", 0, 1, rv);
        assert!(matches!(provider.open_session().err(), Some(ProviderError::Unavailable(_))));
        assert_eq!(faults::calls("C_OpenSession"), calls + 1, "it is not asked in a loop");
    }
    drop((0..3).map(|_| provider.open_session().unwrap()).collect::<Vec<_>>());
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
fn a_pin_on_its_final_try_is_not_tried() {
    let label = support::new_token();
    let module = faults::interpose(&support::module())
        .with_table(|table| table.base.C_GetTokenInfo = Some(faults::final_try));
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
