//! Faults of tokens that come in between: calls beside the data path that do not return, keys that take long to load, a driver that
//! panics, a lane that is full. The module behind each simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keymill_core::id::CmkId;
use keymill_core::key::BulkMode;
use keymill_core::seam::provider::{
    AeadBatch, CryptoProvider, CryptoSession, DecryptJob, DeriveJob, KeyCustody, KeyHandle, ProviderError,
    ProviderProfile, SessionLost, SignJob,
};
use keymill_e2e::{Caller, Opened, eventually, metric};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::{EngineConfig, PoolConfig, TokenConfig, TokenPart};

fn begin_with(pool: PoolConfig, tokens: Vec<TokenPart>) -> (Live, keymill_client::Credentials, Caller) {
    let config = EngineConfig { pool, ..EngineConfig::default() };
    let setup = Setup::new(config).with_tokens(tokens).with_workers(1);
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    // With every session: a call that hangs may hold what the opening of another needs.
    eventually("the tokens come up", || {
        let tokens = caller.tokens().unwrap();
        tokens
            .iter()
            .all(|token| token.state == "up" && token.sessions == token.sessions_wanted)
            .then_some(())
    });
    (live, credentials, caller)
}

fn begin(farm: &Farm, set: impl Fn(&mut TokenConfig)) -> (Live, keymill_client::Credentials, Caller) {
    begin_with(PoolConfig::default(), farm.parts_with(set))
}

/// Blobs of so many prefixes that nobody ever drew.
fn forged(blob: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut forged = vec![blob.to_vec(); count];
    for (i, blob) in forged.iter_mut().enumerate() {
        blob[22..30].copy_from_slice(&(i as u64).to_be_bytes());
    }
    forged
}

fn codes(opened: &Opened) -> Vec<&str> {
    let mut codes: Vec<&str> = opened.errors.iter().map(|error| &*error.1).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Some of a segment's subkeys find no place in the lane: those that did come back all the same, and each item has its answer.
#[test]
fn a_full_lane_refuses_some_subkeys_of_a_request_and_answers_the_others() {
    let farm = Farm::with(1, "latency_us = 500");
    let pool = PoolConfig { queue: 4, ..PoolConfig::default() };
    let (_live, _, mut caller) = begin_with(pool, farm.parts(1));
    let key = caller.create_in_hsm(BulkMode::HsmDerived).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    for _ in 0..3 {
        let began = Instant::now();
        let opened = caller.batch_decrypt(&forged(&blob, 300)).unwrap();
        assert_eq!(opened.errors.len(), 300);
        assert_eq!(codes(&opened), ["InvalidParameter", "Rejected.Throttling"]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
}

/// Case G8: however many prefixes one request names, it leaves room in the lane for others.
#[test]
fn a_request_of_many_prefixes_leaves_room_in_the_lane() {
    let farm = Farm::with(1, "latency_us = 1000\nfree = [\"C_*Init\"]");
    let pool = PoolConfig { queue: 64, ..PoolConfig::default() };
    let (live, credentials, mut caller) = begin_with(pool, farm.parts(2));
    let derived = caller.create_in_hsm(BulkMode::HsmDerived).unwrap();
    let blob = caller.encrypt(derived, b"text", &[]).unwrap();
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let single = caller.encrypt(key, b"single", &[]).unwrap();
    let mut bulk = Caller::new(&live, &credentials);
    let bulk = std::thread::spawn(move || bulk.batch_decrypt(&forged(&blob, 600)).unwrap());
    while !bulk.is_finished() {
        assert_eq!(caller.decrypt(&single, &[]).unwrap(), b"single");
    }
    assert_eq!(codes(&bulk.join().unwrap()), ["InvalidParameter"]);
}

/// Failures 7 and 11: to destroy the object of a key that left the cache may take for ever; nobody who only looks waits for it.
#[test]
fn a_token_that_does_not_destroy_an_object_holds_up_nobody_who_looks() {
    let farm = Farm::new(1);
    let (live, _, mut caller) = begin(&farm, |config| {
        config.sessions = 2;
        config.cached_keys = 1;
        config.call_timeout = Duration::from_millis(300);
        config.probe_interval = Duration::from_secs(3600);
    });
    let keys = [0; 2].map(|_| caller.create_in_hsm(BulkMode::InHsm).unwrap());
    let blob = caller.encrypt(keys[0], b"text", &[]).unwrap();
    farm.control("faults = [{ functions = [\"C_DestroyObject\"], next = 1, hang_ms = 4000 }]");
    let began = Instant::now();
    // It puts the other key out.
    let _late = caller.encrypt(keys[1], b"text", &[]);
    eventually("the call is missed", || (caller.tokens().unwrap()[0].hung_calls >= 1).then_some(()));
    let _scraped = metric(&live, "keymill_requests_in_flight");
    caller.disable(keys[0]).unwrap();
    caller.enable(keys[0]).unwrap();
    assert!(began.elapsed() < Duration::from_millis(3_000), "{:?}", began.elapsed());
    eventually("the call returns", || caller.decrypt(&blob, &[]).ok());
}

/// Failures 1 and 7: a session that was lost is closed, which may not return either; another takes its place.
#[test]
fn a_session_whose_closing_hangs_is_replaced() {
    let farm = Farm::new(1);
    let (_live, _, mut caller) = begin(&farm, |config| {
        config.sessions = 1;
        config.call_timeout = Duration::from_millis(300);
        config.probe_interval = Duration::from_secs(3600);
    });
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    let name = farm.hsms[0].name.clone();
    farm.control("faults = [{ functions = [\"C_CloseSession\"], next = 1, hang_ms = 10000 }]");
    let began = Instant::now();
    caller.drain_token(&name).unwrap();
    // Not before: a session that hears of both at once has nothing to close.
    eventually("the thread is given up", || {
        (caller.tokens().unwrap()[0].hung_calls == 1).then_some(()).or_else(|| {
            assert!(began.elapsed() < Duration::from_secs(8), "its thread is never missed");
            None
        })
    });
    caller.enable_token(&name).unwrap();
    assert_eq!(eventually("another serves", || caller.decrypt(&blob, &[]).ok()), b"text");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// A token that returns knows no key any more, and much has come to wait for it: to load one after another is slow, but nothing hangs.
#[test]
fn keys_that_are_slow_to_load_give_up_no_session() {
    let farm = Farm::new(1);
    let parts = farm.parts_with(|config| {
        config.sessions = 1;
        config.call_timeout = Duration::from_millis(400);
    });
    let pool = PoolConfig { patience: Duration::from_secs(20), ..PoolConfig::default() };
    let (live, credentials, mut caller) = begin_with(pool, parts);
    let keys: Vec<CmkId> = (0..100).map(|_| caller.create_in_hsm(BulkMode::InHsm).unwrap()).collect();
    let blobs: Vec<Vec<u8>> = keys.iter().map(|key| caller.encrypt(*key, b"text", &[]).unwrap()).collect();
    // Many quick ones, so that the session takes many in one go.
    for _ in 0..3 {
        caller.batch_decrypt(&vec![blobs[0].clone(); 5_000]).unwrap();
    }
    farm.control("removed = true");
    let mut waiting = Caller::new(&live, &credentials);
    let waiting = std::thread::spawn(move || waiting.batch_decrypt(&blobs).unwrap());
    eventually("the token is out", || (caller.tokens().unwrap()[0].state == "out").then_some(()));
    let lost = format!("keymill_hsm_sessions_lost_total{{token=\"{}\"}}", farm.hsms[0].name);
    let before = metric(&live, &lost);
    farm.control("latency_us_of = { C_UnwrapKey = 15000 }");
    assert_eq!(waiting.join().unwrap().errors, []);
    assert_eq!(metric(&live, &lost), before);
}

/// Failure 16: a key that does not load holds up those that are loaded no longer than it takes to notice.
#[test]
fn a_key_whose_loading_hangs_does_not_stop_those_that_are_loaded() {
    let farm = Farm::new(1);
    let (_live, _, mut caller) = begin(&farm, |config| {
        config.sessions = 3;
        config.call_timeout = Duration::from_secs(1);
        config.probe_interval = Duration::from_secs(3600);
    });
    let [loaded, other] = [0; 2].map(|_| caller.create_in_hsm(BulkMode::InHsm).unwrap());
    let blob = caller.encrypt(loaded, b"text", &[]).unwrap();
    farm.control("faults = [{ functions = [\"C_UnwrapKey\"], next = 1, hang_ms = 8000 }]");
    let began = Instant::now();
    let _late = caller.encrypt(other, b"text", &[]);
    while began.elapsed() < Duration::from_secs(6) {
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("the other is loaded", || caller.encrypt(other, b"text", &[]).ok());
}

/// Failure 1: many idle sessions died at once, and each is found out by use; the one request that finds them all is answered.
#[test]
fn a_request_that_finds_every_session_dead_is_answered_all_the_same() {
    let farm = Farm::new(1);
    let (_live, _, mut caller) = begin(&farm, |config| config.sessions = 24);
    eventually("all sessions are open", || (caller.tokens().unwrap()[0].sessions == 24).then_some(()));
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    for round in 1..=3 {
        farm.control(&format!("lose_sessions = {round}"));
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
    }
}

/// A driver that panics a few times.
struct Panicking {
    inner: Arc<dyn CryptoProvider>,
    left: Arc<AtomicU32>,
}

struct PanickingSession {
    inner: Box<dyn CryptoSession>,
    left: Arc<AtomicU32>,
}

impl CryptoProvider for Panicking {
    fn profile(&self) -> &ProviderProfile {
        self.inner.profile()
    }
    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        let inner = self.inner.open_session()?;
        Ok(Box::new(PanickingSession { inner, left: self.left.clone() }))
    }
    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        self.inner.custody()
    }
}

impl CryptoSession for PanickingSession {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.inner.encrypt(key, batch)
    }
    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "the driver panics, as it is told to");
        self.inner.decrypt(key, batch)
    }
    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        self.inner.derive(key, jobs)
    }
    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        self.inner.sign(key, jobs)
    }
    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        self.inner.decrypt_asymmetric(key, jobs)
    }
    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        self.inner.random(out)
    }
}

#[test]
fn a_driver_that_panics_costs_a_session_each_time_and_none_for_ever() {
    let farm = Farm::new(1);
    let left = Arc::new(AtomicU32::new(0));
    let parts = farm.parts_with(|config| {
        config.sessions = 2;
        config.max_abandoned = 4;
        config.call_timeout = Duration::from_secs(30);
    });
    let wrap = |part: TokenPart| {
        let (inner, left) = (part.connect, left.clone());
        let connect = Box::new(move || {
            let inner = inner()?;
            Ok(Arc::new(Panicking { inner, left: left.clone() }) as Arc<dyn CryptoProvider>)
        });
        TokenPart { connect, ..part }
    };
    let (_live, _, mut caller) = begin_with(PoolConfig::default(), parts.into_iter().map(wrap).collect());
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    for _ in 0..4 {
        left.store(2, Ordering::Relaxed);
        assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"text");
    }
    let tokens = caller.tokens().unwrap();
    assert_eq!((tokens[0].hung_calls, tokens[0].state.as_str()), (0, "up"), "{tokens:?}");
}

/// What waits for a token when the server stops is answered and recorded, not dropped.
#[test]
fn requests_that_wait_for_a_token_are_recorded_when_the_server_stops() {
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm, |config| {
        config.sessions = 1;
        config.call_timeout = Duration::from_secs(60);
    });
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    farm.control("faults = [{ functions = [\"C_DecryptInit\"], next = 1, hang_ms = 20000 }]");
    let sent = Arc::new(AtomicBool::new(false));
    let (mut waiting, told) = (Caller::new(&live, &credentials), sent.clone());
    let waiting = std::thread::spawn(move || {
        told.store(true, Ordering::Relaxed);
        waiting.ask(
            keymill_core::operation::DecryptRequest {
                ciphertext_blob: blob[..].into(),
                key_id: None,
                encryption_context: None,
                timeout_ms: Some(60_000),
            },
            |_| (),
        )
    });
    eventually("it is under way", || {
        (sent.load(Ordering::Relaxed) && metric(&live, "keymill_requests_in_flight") >= 1.0).then_some(())
    });
    drop(caller);
    let site = live.halt();
    let _closed = waiting.join();
    let lines = keymill_e2e::audit_lines(&site);
    assert_eq!(lines.iter().filter(|line| line["operation"] == "Decrypt").count(), 1, "{lines:?}");
}
