//! Sessions at work and sessions that rest: whatever the feedback finds, and whatever befalls those at work, every request is answered.
//! How it finds the number is tested where it is decided, without clocks: `keymill-runtime`, `pool::token::feedback`. The module behind
//! the simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_core::key::BulkMode;
use keymill_e2e::{Caller, eventually, metric};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::{EngineConfig, InFlight};

const SESSIONS: usize = 8;

/// Failures 1, 7 and 9, with sessions at rest: those that are lost, or hang, have others stand in for them.
#[test]
fn sessions_that_rest_stand_in_for_those_that_are_lost_or_hang() {
    // Calls go one by one, so that most sessions will be at rest.
    let quiet = "latency_us = 300\nengines = 1";
    let farm = Farm::with(1, quiet);
    let parts = farm.parts_with(|config| config.sessions = SESSIONS);
    let setup = Setup::new(EngineConfig::default()).with_tokens(parts).with_workers(1);
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    eventually("all sessions are open", || {
        caller.tokens().unwrap().iter().all(|token| token.sessions == SESSIONS as u64).then_some(())
    });
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..3)
        .map(|number| {
            let (stop, done) = (stop.clone(), done.clone());
            let mut caller = Caller::new(&live, &credentials);
            std::thread::spawn(move || {
                let items: Vec<Vec<u8>> = (0..64).map(|i| vec![number * 64 + i; 100]).collect();
                while !stop.load(Ordering::Relaxed) {
                    let blobs = caller.batch_encrypt(key, &items).unwrap();
                    let opened = caller.batch_decrypt(&blobs).unwrap();
                    assert_eq!(opened.errors, []);
                    assert!(opened.items.iter().zip(&items).all(|(got, item)| got.as_ref() == Some(item)));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let goes_on = |what: &str| {
        let wanted = done.load(Ordering::Relaxed) + 20;
        eventually(what, || (done.load(Ordering::Relaxed) >= wanted).then_some(()));
    };
    let series = format!("keymill_hsm_sessions_at_work{{token=\"{}\"}}", farm.hsms[0].name);
    let at_work = || metric(&live, &series) as usize;
    // However long it takes on a machine that is busy with other things: what follows holds for any number.
    let began = Instant::now();
    while at_work() > SESSIONS / 2 && began.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(20));
    }
    for round in 1..=4 {
        farm.control(&format!("{quiet}\nlose_sessions = {round}"));
        goes_on("after all sessions were lost");
        assert!(at_work() <= SESSIONS);
        let name = &farm.hsms[0].name;
        let lost =
            format!("keymill_hsm_failures_total{{code=\"CKR_SESSION_HANDLE_INVALID\",token=\"{name}\"}}");
        assert!(metric(&live, &lost) >= f64::from(round));
    }
    let hang =
        "faults = [{ id = \"one\", functions = [\"C_Encrypt\", \"C_Decrypt\"], next = 1, hang_ms = 3000 }]";
    farm.control(&format!("{quiet}\nlose_sessions = 4\n{hang}"));
    goes_on("while a call hangs");
    farm.control("latency_us = 300\nlose_sessions = 4");
    goes_on("with an engine for each");
    assert!((1..=SESSIONS).contains(&at_work()), "{}", at_work());
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().expect("no request failed"));
    let name = farm.hsms[0].name.clone();
    caller.drain_token(&name).unwrap();
    eventually("those at rest heed a drain", || {
        let token = caller.tokens().unwrap().remove(0);
        (token.state == "drained" && token.sessions == 0 && token.sessions_at_work == 0).then_some(())
    });
    caller.enable_token(&name).unwrap();
    eventually("all are open again", || {
        (caller.tokens().unwrap()[0].sessions == SESSIONS as u64).then_some(())
    });
}

#[test]
fn with_all_in_flight_no_session_rests() {
    let farm = Farm::with(1, "engines = 1");
    let parts = farm.parts_with(|config| {
        config.sessions = SESSIONS;
        config.in_flight = InFlight::All;
    });
    let setup = Setup::new(EngineConfig::default()).with_tokens(parts).with_workers(1);
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    eventually("all sessions work", || {
        (caller.tokens().unwrap()[0].sessions_at_work == SESSIONS as u64).then_some(())
    });
}
