//! Each fault, limit and delay of the control file, seen to happen by an application.
#![allow(dead_code, reason = "the support serves several programs")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use support::*;

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Unwraps a copy of the key under itself.
fn unwrap(
    session: &Session,
    key: ObjectHandle,
    wrapped: &[u8],
) -> Result<ObjectHandle, cryptoki::error::Error> {
    let mut template = aes_template();
    template.extend([Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)]);
    session.unwrap_key(&Mechanism::AesKeyWrapPad, key, wrapped, &template)
}

#[test]
fn every_call_takes_its_latency() {
    let hsm = Hsm::new("latency", "");
    let session = hsm.user();
    let key = aes_key(&session);
    hsm.control("latency_us = 50000\nfree = ['C_*Init']\n[latency.latency_us_of]\nC_GenerateRandom = 80000");
    let start = Instant::now();
    // The length and the bytes; the beginning of the operation is free.
    encrypt(&session, key).unwrap();
    let took = start.elapsed();
    assert!((milliseconds(100)..milliseconds(150)).contains(&took), "{took:?}");
    let start = Instant::now();
    session.generate_random_vec(8).unwrap();
    assert!(start.elapsed() >= milliseconds(80));
}

#[test]
fn calls_beyond_the_engines_and_the_rate_wait() {
    let hsm = Hsm::new("engines", "");
    let anchor = hsm.user();
    let draws = |threads: usize, each: usize| {
        let sessions: Vec<_> = (0..threads).map(|_| hsm.session()).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            for session in sessions {
                scope.spawn(move || (0..each).for_each(|_| drop(session.generate_random_vec(8).unwrap())));
            }
        });
        start.elapsed()
    };
    hsm.control("latency_us = 10000\nengines = 2\nfree = ['C_*Session']");
    let took = draws(4, 5);
    assert!(took >= milliseconds(100), "20 calls of 10 ms on 2 engines: {took:?}");
    hsm.control("calls_per_s = 200\nfree = ['C_*Session']");
    let took = draws(4, 10);
    assert!(took >= milliseconds(180), "40 calls at 200 a second: {took:?}");
    drop(anchor);
}

#[test]
fn every_nth_call_answers_the_named_code() {
    let hsm = Hsm::new("every", "");
    let session = hsm.user();
    hsm.control("faults = [{ functions = ['C_GenerateRandom'], every = 3, answer = 'CKR_DEVICE_ERROR' }]");
    for call in 1..=9 {
        let random = session.generate_random_vec(8);
        match call % 3 {
            0 => assert_eq!(code(random), RvError::DeviceError),
            _ => drop(random.unwrap()),
        }
    }
    let stats = hsm.control_and_stats("");
    assert_eq!(stats["calls"]["C_GenerateRandom"]["CKR_DEVICE_ERROR"], 3);
    assert_eq!(stats["calls"]["C_GenerateRandom"]["CKR_OK"], 6);
}

#[test]
fn chances_strike_about_as_often_as_said_with_each_code_of_the_list() {
    let hsm = Hsm::new("chance", "");
    let session = hsm.user();
    let fault = "faults = [{ functions = ['C_Gen*Random'], chance = 1000, answer = ['CKR_DEVICE_ERROR', 'CKR_HOST_MEMORY'] }]";
    hsm.control(fault);
    let failed = (0..5000).filter(|_| session.generate_random_vec(8).is_err()).count();
    assert!((400..600).contains(&failed), "{failed} of about 500");
    let stats = hsm.control_and_stats(fault);
    assert_eq!(stats["faults"][0], failed as u64);
    for code in ["CKR_DEVICE_ERROR", "CKR_HOST_MEMORY"] {
        assert!(stats["calls"]["C_GenerateRandom"][code].as_u64().unwrap() > 150, "{stats}");
    }
}

#[test]
fn an_operation_between_init_and_final_call_can_be_left_active() {
    let hsm = Hsm::new("left-active", "");
    let session = hsm.user();
    let key = aes_key(&session);
    hsm.control("faults = [{ functions = ['C_Sign'], next = 1, answer = 'CKR_DEVICE_ERROR' }]");
    assert_eq!(code(session.sign(&Mechanism::AesCMac, key, b"data")), RvError::DeviceError);
    assert_eq!(code(session.sign(&Mechanism::AesCMac, key, b"data")), RvError::OperationActive);
}

#[test]
fn an_answer_can_be_lost_after_the_work_was_done() {
    let hsm = Hsm::new("lost-answer", "");
    let session = hsm.user();
    hsm.control(
        "faults = [{ functions = ['C_GenerateKey'], next = 1, answer = 'CKR_DEVICE_ERROR', after = true }]",
    );
    let template = [Attribute::ValueLen(32.into()), Attribute::Token(false)];
    assert_eq!(code(session.generate_key(&Mechanism::AesKeyGen, &template)), RvError::DeviceError);
    assert_eq!(hsm.control_and_stats("")["objects"], 1, "the key is there, though nobody knows its handle");
}

#[test]
fn a_call_hangs_while_others_go_on() {
    let hsm = Hsm::new("hang", "");
    let (session, other) = (hsm.user(), hsm.session());
    let key = aes_key(&session);
    hsm.control("faults = [{ functions = ['C_EncryptInit'], next = 1, hang_ms = 600 }]");
    thread::scope(|scope| {
        let hung = scope.spawn(move || {
            let start = Instant::now();
            encrypt(&session, key).unwrap();
            start.elapsed()
        });
        let start = Instant::now();
        for _ in 0..100 {
            other.generate_random_vec(8).unwrap();
        }
        assert!(start.elapsed() < milliseconds(600));
        assert!(hung.join().unwrap() >= milliseconds(600));
    });
}

#[test]
fn a_call_that_hung_across_a_finalize_touches_no_new_session() {
    let hsm = Hsm::new("hang-across", "");
    let session = hsm.user();
    let fault = "faults = [{ functions = ['C_GenerateRandom'], next = 1, hang_ms = 300 }]";
    hsm.control(fault);
    thread::scope(|scope| {
        let hung = scope.spawn(move || {
            // The session comes back alive: its drop would close the new one, whose handle is the same.
            (code(session.generate_random_vec(8)), session)
        });
        hsm.wait_until(fault, |stats| stats["in_flight"] == 1);
        hsm.pkcs11.clone().finalize().unwrap();
        hsm.start();
        let new = hsm.session();
        let (answer, _old) = hung.join().unwrap();
        assert_eq!(answer, RvError::SessionHandleInvalid);
        new.generate_random_vec(8).unwrap();
    });
}

#[test]
fn session_handles_start_anew_after_a_finalize_so_that_an_old_one_aliases_a_new_one() {
    let hsm = Hsm::new("aliases", "");
    let old = hsm.user();
    hsm.pkcs11.clone().finalize().unwrap();
    hsm.start();
    assert_eq!(code(old.generate_random_vec(8)), RvError::SessionHandleInvalid);
    let new = hsm.user();
    old.generate_random_vec(8).unwrap();
    drop(old);
    assert_eq!(code(new.generate_random_vec(8)), RvError::SessionHandleInvalid);
}

#[test]
fn a_crash_ends_the_process_and_leaves_its_statistics() {
    if std::env::var_os("KEYMILL_SIM_TEST_CRASH").is_some() {
        let hsm = Hsm::new("crash", "");
        let session = hsm.user();
        session.generate_random_vec(8).unwrap();
        hsm.control("faults = [{ functions = ['C_GenerateRandom'], next = 1, abort = true }]");
        let _ = session.generate_random_vec(8);
        unreachable!("the process has ended");
    }
    let scratch = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_crash_ends_the_process_and_leaves_its_statistics"])
        .env("KEYMILL_SIM_TEST_CRASH", "1")
        .env("TMPDIR", scratch.path())
        .output()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{child:?}");
    let entries = std::fs::read_dir(scratch.path()).unwrap().flatten();
    let files = entries.filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flat_map(Iterator::flatten);
    let stats =
        files.map(|file| file.path()).find(|file| file.extension().is_some_and(|ending| ending == "stats"));
    let stats: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(stats.expect("statistics were left")).unwrap())
            .unwrap();
    assert_eq!(stats["faults"][0], 1);
    assert_eq!(stats["calls"]["C_GenerateRandom"]["CKR_OK"], 1);
}

#[test]
fn lost_sessions_are_invalid_for_ever_and_new_ones_work() {
    let hsm = Hsm::new("lost-sessions", "");
    let (first, second) = (hsm.user(), hsm.session());
    let key = aes_key(&first);
    hsm.control("lose_sessions = 1");
    for _ in 0..3 {
        assert_eq!(code(first.generate_random_vec(8)), RvError::SessionHandleInvalid);
        assert_eq!(code(encrypt(&second, key)), RvError::SessionHandleInvalid);
    }
    let new = hsm.user();
    encrypt(&new, aes_key(&new)).unwrap();
    assert_eq!(code(first.generate_random_vec(8)), RvError::SessionHandleInvalid);
    let stats = hsm.control_and_stats("lose_sessions = 1");
    assert_eq!((&stats["sessions"], &stats["objects"]), (&1.into(), &1.into()), "nothing was lost twice");
}

#[test]
fn a_lost_login_is_lost_until_the_next_one() {
    let hsm = Hsm::new("lost-login", "");
    let (session, other) = (hsm.user(), hsm.session());
    let key = aes_key(&session);
    hsm.control("lose_login = 1");
    assert_eq!(code(encrypt(&session, key)), RvError::UserNotLoggedIn);
    assert_eq!(code(encrypt(&other, key)), RvError::UserNotLoggedIn);
    session.generate_random_vec(8).unwrap();
    other.login(UserType::User, Some(&pin(PIN))).unwrap();
    assert_eq!(
        code(encrypt(&session, key)),
        RvError::ObjectHandleInvalid,
        "session objects go with the login"
    );
    encrypt(&session, aes_key(&session)).unwrap();
}

#[test]
fn a_token_is_removed_and_comes_back_in_another_slot() {
    let hsm = Hsm::new("removed", "");
    let session = hsm.user();
    let mut kept = aes_template();
    kept[0] = Attribute::Token(true);
    kept.extend([Attribute::ValueLen(32.into()), Attribute::Label(b"kept".to_vec())]);
    session.generate_key(&Mechanism::AesKeyGen, &kept).unwrap();

    hsm.control("removed = true");
    assert_eq!(code(session.generate_random_vec(8)), RvError::TokenNotPresent);
    assert!(hsm.pkcs11.get_all_slots().unwrap().is_empty());
    assert_eq!(code(hsm.pkcs11.get_token_info(hsm.slot)), RvError::TokenNotPresent);
    assert_eq!(code(hsm.pkcs11.open_rw_session(hsm.slot)), RvError::TokenNotPresent);
    hsm.control("removed = true\nremoved_code = 'CKR_DEVICE_REMOVED'");
    assert_eq!(code(session.generate_random_vec(8)), RvError::DeviceRemoved);

    hsm.control("slot_shift = 5");
    assert_eq!(code(session.generate_random_vec(8)), RvError::SessionHandleInvalid);
    assert_eq!(code(hsm.pkcs11.get_token_info(hsm.slot)), RvError::SlotIdInvalid);
    let slot = hsm.pkcs11.get_slots_with_initialized_token().unwrap()[0];
    assert_eq!(slot.id(), hsm.slot.id() + 5);
    let session = hsm.pkcs11.open_rw_session(slot).unwrap();
    assert_eq!(session.get_session_info().unwrap().slot_id(), slot);
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
    let key = session.find_objects(&[Attribute::Label(b"kept".to_vec())]).unwrap()[0];
    encrypt(&session, key).unwrap();
}

#[test]
fn wrong_pins_lock_the_token_though_the_module_would_go_on() {
    let hsm = Hsm::new("pin-lock", "pin_lock_after = 3");
    let session = hsm.session();
    let wrong = || code(session.login(UserType::User, Some(&pin("no-such-pin"))));
    assert_eq!(wrong(), RvError::PinIncorrect);
    assert!(hsm.pkcs11.get_token_info(hsm.slot).unwrap().user_pin_count_low());
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
    session.logout().unwrap();
    assert!(!hsm.pkcs11.get_token_info(hsm.slot).unwrap().user_pin_count_low());

    assert_eq!([wrong(), wrong()], [RvError::PinIncorrect; 2]);
    assert!(hsm.pkcs11.get_token_info(hsm.slot).unwrap().user_pin_final_try());
    assert_eq!(wrong(), RvError::PinLocked);
    assert!(hsm.pkcs11.get_token_info(hsm.slot).unwrap().user_pin_locked());
    assert_eq!(code(session.login(UserType::User, Some(&pin(PIN)))), RvError::PinLocked);
    hsm.pkcs11.clone().finalize().unwrap();
    hsm.start();
    let session = hsm.session();
    assert_eq!(code(session.login(UserType::User, Some(&pin(PIN)))), RvError::PinLocked);
    let stats = hsm.control_and_stats("pin_lock_after = 3");
    assert_eq!((&stats["wrong_pins"], &stats["logins"]), (&3.into(), &8.into()));

    // The security officer sets a new one.
    session.login(UserType::So, Some(&pin("officer-pin"))).unwrap();
    session.init_pin(&pin(PIN)).unwrap();
    session.logout().unwrap();
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
}

#[test]
fn sessions_beyond_the_limit_are_refused_with_the_code_of_choice() {
    let hsm = Hsm::new("session-limit", "session_limit = 3");
    let mut open: Vec<_> = (0..3).map(|_| hsm.session()).collect();
    assert_eq!(code(hsm.pkcs11.open_rw_session(hsm.slot)), RvError::SessionCount);
    hsm.control("session_limit = 3\nsession_limit_code = 'CKR_ARGUMENTS_BAD'");
    assert_eq!(code(hsm.pkcs11.open_rw_session(hsm.slot)), RvError::ArgumentsBad);
    open.pop();
    open.push(hsm.session());
    assert_eq!(hsm.control_and_stats("")["sessions_peak"], 3);
}

#[test]
fn objects_beyond_the_limit_find_no_memory() {
    let hsm = Hsm::new("object-limit", "object_limit = 3");
    let session = hsm.user();
    let key = aes_key(&session);
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrapPad, key, key).unwrap();
    let copies: Vec<_> = (0..2).map(|_| unwrap(&session, key, &wrapped).unwrap()).collect();
    assert_eq!(code(unwrap(&session, key, &wrapped)), RvError::DeviceMemory);
    encrypt(&session, copies[1]).unwrap();
    session.destroy_object(copies[0]).unwrap();
    unwrap(&session, key, &wrapped).unwrap();
    let stats = hsm.control_and_stats("");
    assert_eq!((&stats["objects"], &stats["objects_peak"]), (&3.into(), &3.into()));
    assert_eq!(stats["calls"]["C_UnwrapKey"]["CKR_DEVICE_MEMORY"], 1);
    drop(session);
    assert_eq!(hsm.control_and_stats("")["objects"], 0, "they went with their session");
}

#[test]
fn a_slow_key_generation_stalls_the_others_only_where_it_is_exclusive() {
    let hsm = Hsm::new("keygen", "");
    let (session, other) = (hsm.user(), hsm.session());
    let draw_during_keygen = |options: &str| {
        let options = format!("keygen_ms = 800\n{options}");
        hsm.control(&options);
        thread::scope(|scope| {
            let session = hsm.session();
            let keygen = scope.spawn(move || aes_key(&session));
            hsm.wait_until(&options, |stats| stats["in_flight"] == 1);
            let start = Instant::now();
            other.generate_random_vec(8).unwrap();
            let took = start.elapsed();
            keygen.join().unwrap();
            took
        })
    };
    assert!(draw_during_keygen("") < milliseconds(300));
    assert!(draw_during_keygen("exclusive = ['C_GenerateKey*']") > milliseconds(300));
    drop(session);
}

#[test]
fn a_control_file_that_is_not_understood_changes_nothing_and_is_told() {
    let hsm = Hsm::new("misspelt", "session_limit = 2");
    let _first = hsm.session();
    hsm.control("sesion_limit = 1");
    let _second = hsm.session();
    assert_eq!(code(hsm.pkcs11.open_rw_session(hsm.slot)), RvError::SessionCount, "the old limit holds");
    hsm.control("");
    hsm.session();
}

#[test]
fn a_lazy_control_file_holds_from_the_next_tick() {
    let hsm = Hsm::new("lazy", "");
    let session = hsm.user();
    hsm.control_and_stats("lazy_control = true");
    let removed = "lazy_control = true\nremoved = true";
    hsm.control_and_stats(removed);
    assert_eq!(code(session.generate_random_vec(8)), RvError::TokenNotPresent);
    hsm.control_and_stats("");
    hsm.user();
}

#[test]
fn two_threads_in_one_session_are_noticed() {
    let hsm = Hsm::new("overlaps", "");
    let session = hsm.user();
    session.generate_random_vec(8).unwrap();
    assert_eq!(hsm.control_and_stats("")["overlaps"], 0);
    /// Moves a session to where its type would not let it go.
    struct Everywhere(Session);
    // SAFETY: the module is thread-safe; that the session is shared is what the test is about.
    unsafe impl Sync for Everywhere {}
    let shared = &Everywhere(session);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let Everywhere(session) = shared;
                for _ in 0..200 {
                    let _ = session.generate_random_vec(1 << 20);
                }
            });
        }
    });
    assert!(hsm.control_and_stats("")["overlaps"].as_u64().unwrap() > 0);
}

#[test]
fn events_under_load_neither_crash_nor_block() {
    let faults = "faults = [{ functions = ['C_*'], chance = 100, answer = ['CKR_DEVICE_ERROR', 'CKR_GENERAL_ERROR'] }]";
    let hsm = Hsm::new("under-load", "");
    let stop = AtomicBool::new(false);
    let sealed = AtomicUsize::new(0);
    let pkcs11 = &hsm.pkcs11;
    let slot = || pkcs11.get_slots_with_initialized_token().ok()?.first().copied();
    // What a client without any care does: begin again from the slot list on each error.
    let work = || -> Option<()> {
        let session = pkcs11.open_rw_session(slot()?).ok()?;
        let _ = session.login(UserType::User, Some(&pin(PIN)));
        let template: Vec<_> = aes_template().into_iter().chain([Attribute::ValueLen(32.into())]).collect();
        let key = session.generate_key(&Mechanism::AesKeyGen, &template).ok()?;
        for _ in 0..20 {
            assert_eq!(encrypt(&session, key).ok()?.len(), 8 + 16);
            sealed.fetch_add(1, Ordering::Relaxed);
        }
        session.destroy_object(key).ok()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    work();
                }
            });
        }
        for event in 1..=100 {
            let removed = event % 5 == 0;
            hsm.control(&format!(
                "lose_sessions = {event}\nlose_login = {}\nremoved = {removed}\nslot_shift = {}\n{faults}",
                event / 3,
                event / 10,
            ));
            thread::sleep(milliseconds(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let stats = hsm.control_and_stats("lose_sessions = 100\nlose_login = 33\nslot_shift = 10");
    assert_eq!((&stats["panics"], &stats["in_flight"]), (&0.into(), &0.into()), "{stats}");
    assert!(sealed.load(Ordering::Relaxed) > 100, "{stats}");
    let session = pkcs11.open_rw_session(slot().unwrap()).unwrap();
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
    encrypt(&session, aes_key(&session)).unwrap();
}
