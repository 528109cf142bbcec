//! A farm of tokens on bad days: one taken away under load, all of them, one that hangs, one drained, forged ciphertexts, a wrong PIN, a
//! slow key generation. The module behind each simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it. The
//! numbers are those of the failures in the field that each is about.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_core::key::BulkMode;
use keymill_e2e::{Caller, eventually, metric};
use keymill_harness::{Farm, Live, Setup, Started, next};
use keymill_runtime::{ConnectError, EngineConfig, TokenConfig, TokenPart};

fn begin(farm: &Farm, set: impl Fn(&mut TokenConfig)) -> (Live, Credentials, Caller) {
    let setup = Setup::new(EngineConfig::default()).with_tokens(farm.parts_with(set)).with_workers(1);
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    // With every session: a call that hangs may hold what the opening of another needs.
    eventually("every session is open", || {
        let tokens = caller.tokens().unwrap();
        tokens
            .iter()
            .all(|token| token.state == "up" && token.sessions == token.sessions_wanted)
            .then_some(())
    });
    (live, credentials, caller)
}

fn await_state(caller: &mut Caller, farm: &Farm, state: &str) {
    eventually("the tokens are as wanted", || {
        caller.tokens().unwrap().iter().all(|token| token.state == state).then_some(())
    });
    assert!(!farm.hsms.is_empty());
}

/// Callers that encrypt and decrypt until told to stop; what goes wrong ends the test.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(live: &Live, credentials: &Credentials, key: CmkId, callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let threads = (0..callers)
            .map(|number| {
                let (stop, done) = (stop.clone(), done.clone());
                let mut caller = Caller::new(live, credentials);
                std::thread::spawn(move || {
                    let items: Vec<Vec<u8>> = (0..16).map(|i| vec![(number * 16 + i) as u8; 100]).collect();
                    while !stop.load(Ordering::Relaxed) {
                        let blobs = caller.batch_encrypt(key, &items).unwrap();
                        let opened = caller.batch_decrypt(&blobs).unwrap();
                        assert_eq!(opened.errors, []);
                        assert!(
                            opened.items.iter().zip(&items).all(|(got, item)| got.as_ref() == Some(item))
                        );
                        done.fetch_add(2 * items.len() as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    fn await_more(&self, items: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + items;
        eventually("the load goes on", || (self.done.load(Ordering::Relaxed) >= wanted).then_some(()));
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no request failed");
        }
    }
}

/// Failures 1, 2 and 9: sessions and handles of a token that went are never used again, and one that returns serves without a restart.
#[test]
fn a_token_taken_away_under_load_fails_no_request_and_serves_again_within_a_second() {
    let farm = Farm::with(4, "latency_us = 200");
    let (live, credentials, mut caller) = begin(&farm, |config| config.sessions = 2);
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let load = Load::start(&live, &credentials, key, 3);
    load.await_more(500);
    for slot_shift in [0, 1_000] {
        let name = farm.hsms[1].name.clone();
        let mut is = |state: &str| {
            let tokens = caller.tokens().unwrap();
            tokens.iter().any(|token| token.token_name == name && token.state == state).then_some(())
        };
        farm.hsms[1].control("latency_us = 200\nremoved = true");
        eventually("the token is out", || is("out"));
        load.await_more(500);
        farm.hsms[1].control(&format!("latency_us = 200\nslot_shift = {slot_shift}"));
        let began = Instant::now();
        eventually("the token is back", || is("up"));
        assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
        load.await_more(500);
    }
    load.end();
}

/// Failure 6: with all tokens gone, requests are refused fast, not one by one at their deadlines; and all is well when they return.
#[test]
fn without_any_token_requests_are_refused_fast_and_answered_again_when_one_returns() {
    let farm = Farm::new(2);
    let (live, _, mut caller) = begin(&farm, |config| config.sessions = 1);
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"before", &[]).unwrap();
    farm.control("removed = true");
    eventually("the pool is down", || {
        let refused = caller.decrypt(&blob, &[]).err()?;
        assert_eq!(refused.code, "ServiceUnavailableTemporary");
        Some(())
    });
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(caller.decrypt(&blob, &[]).unwrap_err().code, "ServiceUnavailableTemporary");
        assert!(caller.create_in_hsm(BulkMode::InHsm).is_err());
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(live.gate().troubles().iter().any(|trouble| trouble.contains("no token")));
    farm.control("");
    let began = Instant::now();
    eventually("a token returns", || caller.decrypt(&blob, &[]).ok());
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// Failure 7: a call that does not return costs its thread, not the request: its work is done by another, and the thread is replaced.
#[test]
fn a_call_that_hangs_is_done_elsewhere_and_its_late_answer_is_dropped() {
    let farm = Farm::new(1);
    let (_live, _, mut caller) = begin(&farm, |config| {
        config.sessions = 2;
        config.call_timeout = Duration::from_millis(300);
        config.probe_interval = Duration::from_secs(3600);
    });
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    for (id, function) in [(1, "C_Decrypt"), (2, "C_DecryptInit")] {
        farm.control(&format!(
            "faults = [{{ id = \"hang {id}\", functions = [\"{function}\"], next = 1, hang_ms = 2500 }}]"
        ));
        let began = Instant::now();
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
        let took = began.elapsed();
        assert!(took > Duration::from_millis(250) && took < Duration::from_millis(1_500), "{took:?}");
        let tokens = caller.tokens().unwrap();
        assert_eq!((tokens[0].hung_calls, tokens[0].state.as_str()), (1, "up"), "{tokens:?}");
        eventually("the call returns, and its thread ends", || {
            (caller.tokens().unwrap()[0].hung_calls == 0).then_some(())
        });
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
    }
    // Sealing, too: under other nonces.
    farm.control("faults = [{ id = \"hang 3\", functions = [\"C_Encrypt*\", \"C_MessageEncryptInit\"], next = 1, hang_ms = 2500 }]");
    let sealed = caller.encrypt(key, b"more", &[]).unwrap();
    assert_eq!(caller.decrypt(&sealed, &[]).unwrap(), b"more");
}

#[test]
fn a_request_whose_call_hangs_is_answered_at_its_deadline() {
    let farm = Farm::new(1);
    let (_live, _, mut caller) = begin(&farm, |config| config.sessions = 1);
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    caller.encrypt(key, b"text", &[]).unwrap();
    farm.control(
        "faults = [{ functions = [\"C_Encrypt*\", \"C_MessageEncryptInit\"], next = 1, hang_ms = 4000 }]",
    );
    let request = keymill_core::operation::EncryptRequest {
        key_id: keymill_core::id::KeyRef::Id(key),
        plaintext: b"text"[..].into(),
        encryption_context: None,
        timeout_ms: Some(200),
    };
    let began = Instant::now();
    let refused = caller.ask(request, |_| ()).unwrap_err();
    assert_eq!(refused.code, "RequestTimeout", "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Failure 17: bad data is not a bad device.
#[test]
fn ten_thousand_forged_ciphertexts_neither_take_a_token_out_nor_cost_a_session() {
    let farm = Farm::new(1);
    let (live, _, mut caller) = begin(&farm, |config| config.sessions = 2);
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    let mut forged = vec![blob.clone(); 2_500];
    for (i, blob) in forged.iter_mut().enumerate() {
        let at = 22 + i % (blob.len() - 22);
        blob[at] ^= 1 + (i % 255) as u8;
    }
    for _ in 0..4 {
        let opened = caller.batch_decrypt(&forged).unwrap();
        assert_eq!(opened.errors.len(), forged.len());
        assert!(opened.errors.iter().all(|error| error.1 == "InvalidParameter"), "{:?}", opened.errors[0]);
    }
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
    let name = &farm.hsms[0].name;
    assert_eq!(metric(&live, &format!("keymill_hsm_sessions_lost_total{{token=\"{name}\"}}")), 0.0);
    assert_eq!(caller.tokens().unwrap()[0].state, "up");
}

/// Case G8: forged prefixes under an `HsmDerived` key cost the token a derivation each, leave nothing behind, and hold nobody up.
#[test]
fn forged_prefixes_are_derived_in_bounded_parts_and_kept_nowhere() {
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm, |config| config.sessions = 2);
    let key = caller.create_in_hsm(BulkMode::HsmDerived).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
    let cached = metric(&live, "keymill_subkey_cache_entries");
    let before = farm.hsms[0].calls("C_Sign");
    let mut forged = vec![blob.clone(); 4_096];
    for (i, blob) in forged.iter_mut().enumerate() {
        blob[22..30].copy_from_slice(&(i as u64).to_be_bytes());
    }
    let neighbour = {
        let mut caller = Caller::new(&live, &credentials);
        let blob = blob.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
                slowest = slowest.max(began.elapsed());
            }
            slowest
        });
        (stop, thread)
    };
    let opened = caller.batch_decrypt(&forged).unwrap();
    assert_eq!(opened.errors.len(), forged.len());
    neighbour.0.store(true, Ordering::Relaxed);
    let slowest = neighbour.1.join().unwrap();
    assert!(slowest < Duration::from_secs(1), "a neighbour waited {slowest:?}");
    let calls = farm.hsms[0].calls("C_Sign") - before;
    assert!((8_192..8_192 + 512).contains(&calls), "{calls} calls: two a prefix");
    assert_eq!(metric(&live, "keymill_subkey_cache_entries"), cached, "nothing forged is kept");
}

/// Old records in any order cost a token one derivation an epoch, also where items of one epoch are in several segments of a request.
#[test]
fn an_epoch_is_derived_once_however_its_records_lie_in_a_request() {
    const EPOCHS: u64 = 100;
    let age = Duration::from_millis(1);
    let farm = Farm::new(1);
    let mut config = EngineConfig::default();
    config.pool.epoch_max_age = age;
    let Started { live, credentials } = Live::start_with(Setup::new(config).with_tokens(farm.parts(4)));
    let mut caller = Caller::new(&live, &credentials);
    await_state(&mut caller, &farm, "up");
    let key = caller.create_in_hsm(BulkMode::HsmDerived).unwrap();
    let mut blobs = Vec::new();
    for _ in 0..EPOCHS {
        blobs.extend(caller.batch_encrypt(key, &vec![b"text".to_vec(); 10]).unwrap());
        std::thread::sleep(age);
    }
    let mut state = 1;
    for i in (1..blobs.len()).rev() {
        blobs.swap(i, next(&mut state) % (i + 1));
    }
    let before = farm.hsms[0].calls("C_Sign");
    for some in blobs.chunks(256) {
        assert_eq!(caller.batch_decrypt(some).unwrap().errors, []);
    }
    assert_eq!(farm.hsms[0].calls("C_Sign") - before, 2 * EPOCHS, "two MACs are a subkey");
}

/// Failure 15, case G1: a wrong PIN is tried once, whatever is asked meanwhile; and the next try is an operator's.
#[test]
fn a_wrong_pin_is_tried_once_until_an_operator_enables_the_token() {
    let farm = Farm::with(1, "pin_lock_after = 3");
    let wrong = Arc::new(AtomicBool::new(true));
    let hsm = Arc::clone(&farm.hsms[0]);
    let (told, tries) = (wrong.clone(), Arc::new(AtomicU64::new(0)));
    let counted = tries.clone();
    let config = TokenConfig { sessions: 8, ..TokenConfig::new(hsm.name.clone()) };
    let options = config.clone();
    let connect = move || -> Result<_, ConnectError> {
        counted.fetch_add(1, Ordering::Relaxed);
        hsm.connect(&options, if told.load(Ordering::Relaxed) { b"wrong" } else { b"user-pin" })
    };
    let part = TokenPart::new(config, Box::new(connect));
    let setup = Setup::new(EngineConfig::default()).with_tokens(vec![part]);
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    await_state(&mut caller, &farm, "refused");
    for _ in 0..20 {
        assert!(caller.create_in_hsm(BulkMode::InHsm).is_err());
    }
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert_eq!(farm.hsms[0].stats()["wrong_pins"], 1);
    assert!(caller.tokens().unwrap()[0].reason.as_ref().unwrap().contains("PIN"));
    wrong.store(false, Ordering::Relaxed);
    caller.enable_token(&farm.hsms[0].name).unwrap();
    await_state(&mut caller, &farm, "up");
    caller.create_in_hsm(BulkMode::InHsm).unwrap();
    assert_eq!(tries.load(Ordering::Relaxed), 2);
}

#[test]
fn a_drained_token_is_given_nothing_until_it_is_enabled() {
    let farm = Farm::new(2);
    let (_live, _, mut caller) = begin(&farm, |config| config.sessions = 1);
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let name = farm.hsms[0].name.clone();
    caller.drain_token(&name).unwrap();
    eventually("it has no session", || {
        let token = caller.tokens().unwrap().into_iter().find(|token| token.token_name == name)?;
        (token.state == "drained" && token.sessions == 0).then_some(())
    });
    let before = farm.hsms[0].stats()["calls"].clone();
    let items = vec![b"text".to_vec(); 300];
    let blobs = caller.batch_encrypt(key, &items).unwrap();
    assert_eq!(caller.batch_decrypt(&blobs).unwrap().errors, []);
    assert_eq!(farm.hsms[0].stats()["calls"], before, "nothing was asked of it");
    caller.enable_token(&name).unwrap();
    await_state(&mut caller, &farm, "up");
    assert!(caller.drain_token("no-such-token").unwrap_err().message.contains("TokenName"));
}

/// Failure 16: a key generation that takes seconds holds up neither loaded keys nor those that are to be loaded.
#[test]
fn a_slow_key_generation_holds_nobody_up() {
    let farm = Farm::new(1);
    let (_live, credentials, mut caller) = begin(&farm, |config| config.sessions = 2);
    let keys: Vec<CmkId> = (0..8).map(|_| caller.create_in_hsm(BulkMode::InHsm).unwrap()).collect();
    farm.control("keygen_ms = 1500");
    let mut slow = Caller::new(&_live, &credentials);
    let generating = std::thread::spawn(move || slow.create_in_hsm(BulkMode::InHsm).unwrap());
    let began = Instant::now();
    for key in keys {
        // Each is unwrapped at its first use.
        let blob = caller.encrypt(key, b"text", &[]).unwrap();
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!generating.is_finished(), "it takes a second and a half");
    generating.join().unwrap();
}
