//! A token that fails one call in a hundred with whatever code, and what a caller makes of it who does as the seam says: nothing lost,
//! nothing wrong, nothing done twice, and no restart. `KEYMILL_TEST_ALL` makes it longer.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use cryptoki_sys::*;
use keymill_conformance::provider::verifies;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, DeriveJob, JobError, KeyCustody, KeyHandle,
    ProviderError, SignJob, StoredKey,
};
use keymill_provider_pkcs11::{GcmMethod, Pkcs11Provider, open_on};

use support::faults;

/// Every kind of failure but two: a code that says for certain that the data is bad, which no caller could tell from the truth, and a
/// PIN that is refused, after which nothing goes on by itself.
const CODES: &[CK_RV] = &[
    // That an object is gone is taken for the truth: none is destroyed that may be another by now.
    CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_GENERAL_ERROR,
    CKR_DEVICE_ERROR,
    CKR_FUNCTION_FAILED,
    CKR_SESSION_HANDLE_INVALID,
    CKR_SESSION_CLOSED,
    CKR_DEVICE_REMOVED,
    CKR_TOKEN_NOT_PRESENT,
    CKR_USER_NOT_LOGGED_IN,
    CKR_OPERATION_ACTIVE,
    CKR_DEVICE_MEMORY,
    CKR_HOST_MEMORY,
    CKR_SESSION_COUNT,
];

/// A caller of the seam: it opens sessions and loads keys again as it is told to.
struct Caller {
    provider: Pkcs11Provider,
    custody: Box<dyn KeyCustody>,
    session: Option<Box<dyn CryptoSession>>,
    lost: usize,
    stale: usize,
    unavailable: usize,
}

impl Caller {
    fn patiently<T>(&mut self, mut work: impl FnMut(&mut Self) -> Result<T, ProviderError>) -> T {
        for _ in 0..100 {
            match work(self) {
                Ok(done) => return done,
                Err(ProviderError::Unavailable(_)) => self.unavailable += 1,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a token that works at ninety-nine calls of a hundred is not to be had");
    }

    fn generate(&mut self, mode: BulkMode) -> StoredKey {
        self.patiently(|caller| {
            caller.custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(mode))
        })
    }

    fn pair(&mut self) -> StoredKey {
        self.patiently(|caller| caller.custody.generate(KeySpec::EcP256, KeyUsage::SignVerify, None))
    }

    fn load(&mut self, key: &StoredKey) -> KeyHandle {
        self.patiently(|caller| caller.custody.load(key))
    }

    /// Runs `work` on a session, which it has lost if that says so.
    fn on_session(&mut self, work: impl FnOnce(&mut dyn CryptoSession) -> bool) {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.patiently(|caller| caller.provider.open_session()),
        };
        if work(&mut *session) {
            self.session = Some(session);
        } else {
            self.lost += 1;
        }
    }

    /// Does a batch to its end.
    fn aead(&mut self, key: &StoredKey, batch: &mut AeadBatch, seals: bool) {
        for _ in 0..1_000 {
            let handle = self.load(key);
            self.on_session(|session| {
                let done =
                    if seals { session.encrypt(&handle, batch) } else { session.decrypt(&handle, batch) };
                done.is_ok()
            });
            for item in &mut batch.items {
                if item.outcome == Some(Err(JobError::StaleHandle)) {
                    self.stale += 1;
                    item.outcome = None;
                }
            }
            if batch.items.iter().all(|item| item.outcome.is_some()) {
                return;
            }
        }
        panic!("a batch does not end");
    }

    /// Signs digests until all are signed, and has each verified.
    fn sign(&mut self, key: &StoredKey, seed: u8) {
        let mut jobs: Vec<_> =
            (0..4).map(|i| SignJob::new(SignAlgorithm::EcdsaSha256, vec![seed ^ i; 32])).collect();
        for _ in 0..1_000 {
            let handle = self.load(key);
            self.on_session(|session| session.sign(&handle, &mut jobs).is_ok());
            for job in jobs.iter_mut().filter(|job| matches!(job.output, Some(Err(JobError::StaleHandle)))) {
                self.stale += 1;
                job.output = None;
            }
            if jobs.iter().all(|job| job.output.is_some()) {
                break;
            }
        }
        for job in jobs {
            let signature = job.output.unwrap().unwrap();
            let public = key.public_key.as_ref().unwrap();
            assert!(verifies(key.spec, job.algorithm, public, &job.input, &signature));
        }
    }

    fn derive(&mut self, key: &StoredKey, messages: [[u8; 16]; 2]) -> Vec<u8> {
        for _ in 0..1_000 {
            let handle = self.load(key);
            let mut jobs = [DeriveJob::new(messages)];
            self.on_session(|session| session.derive(&handle, &mut jobs).is_ok());
            match jobs[0].output.take() {
                Some(Ok(output)) => return output.expose().to_vec(),
                Some(Err(JobError::StaleHandle)) => self.stale += 1,
                None => {}
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
        panic!("a derivation does not end");
    }
}

fn batch(round: usize, count: usize) -> AeadBatch {
    let mut batch = AeadBatch { buffer: Vec::new(), aad: b"context".to_vec(), items: Vec::new() };
    for i in 0..count {
        let start = batch.buffer.len();
        batch.buffer.extend([i as u8; 24]);
        batch.buffer.extend([0; 16]);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&((round * count + i) as u64).to_be_bytes());
        batch.items.push(AeadItem { nonce, aad: 0..7, text: start..start + 24, outcome: None });
    }
    batch
}

#[test]
fn a_token_that_fails_now_and_then_loses_nothing_and_gets_nothing_wrong() {
    let label = support::new_token();
    let mut config = support::config(&label);
    config.overrides.gcm = Some(GcmMethod::Classic);
    config.cached_keys = 3;
    let provider = open_on(faults::interpose(&support::module()), config).unwrap();
    let custody = provider.custody().unwrap();
    let mut caller = Caller { provider, custody, session: None, lost: 0, stale: 0, unavailable: 0 };
    let keys: Vec<_> = (0..5).map(|_| caller.generate(BulkMode::InHsm)).collect();
    let mac = caller.generate(BulkMode::HsmDerived);
    let mut pair = caller.pair();
    let derived = caller.derive(&mac, [[1; 16], [2; 16]]);
    // What each key seals is known from fair weather.
    let (rounds, count) = (if std::env::var_os("KEYMILL_TEST_ALL").is_some() { 20_000 } else { 400 }, 50);
    faults::weather(0x6b65_796d_696c_6c00, 100, CODES);
    for round in 0..rounds {
        let key = &keys[round % keys.len()];
        let mut work = batch(round, count);
        caller.aead(key, &mut work, true);
        let sealed = work.buffer.clone();
        for item in &mut work.items {
            assert_eq!(item.outcome, Some(Ok(())), "round {round}");
            item.outcome = None;
        }
        // One in eight is forged: that one and no other is said to be.
        let forged = (round % 8 == 0).then_some(round % count);
        if let Some(at) = forged {
            work.buffer[work.items[at].text.end] ^= 1;
        }
        caller.aead(key, &mut work, false);
        for (i, item) in work.items.iter().enumerate() {
            if forged == Some(i) {
                assert_eq!(item.outcome, Some(Err(JobError::InvalidCiphertext)), "round {round}");
            } else {
                assert_eq!(item.outcome, Some(Ok(())), "round {round}, item {i}");
                assert_eq!(work.buffer[item.text.clone()], [i as u8; 24], "round {round}, item {i}");
            }
        }
        if round % 50 == 0 {
            // Again in fair weather: it was sealed under its own key.
            faults::clear();
            let mut again = batch(round, count);
            caller.aead(key, &mut again, true);
            assert_eq!(again.buffer, sealed, "round {round}");
            assert_eq!(caller.derive(&mac, [[1; 16], [2; 16]]), derived);
            faults::weather(round as u64 * 2 + 3, 100, CODES);
        }
        if round % 4 == 0 {
            caller.sign(&pair, round as u8);
        }
        if round % 40 == 0 {
            // Born in this weather, too.
            pair = caller.pair();
        }
        if round % 10 == 0 {
            assert_eq!(caller.derive(&mac, [[1; 16], [2; 16]]), derived, "round {round}");
        }
    }
    faults::clear();
    assert!(caller.lost > 0 && caller.stale > 0 && caller.unavailable > 0, "the weather was bad");
    println!(
        "{} items: {} sessions lost, {} items stale, {} refusals, {} logins",
        2 * rounds * count,
        caller.lost,
        caller.stale,
        caller.unavailable,
        faults::calls("C_Login")
    );
    // Where objects are not said to be gone that are not, each is destroyed in the end.
    caller.provider.restart_module().unwrap();
    faults::weather(7, 10, &CODES[2..]);
    for round in 0..rounds {
        caller.load(&keys[round % keys.len()]);
        if round % 20 == 0 {
            caller.generate(BulkMode::InHsm);
            caller.pair();
        }
    }
    faults::clear();
    caller.session = None;
    caller.patiently(|caller| caller.custody.canary());
    assert_eq!(support::session_objects(&label), 3 + 1, "the cache holds three, and the canary is one");
    let watch = support::module().open_session(support::slot(&label), false).unwrap();
    for class in [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY] {
        assert_eq!(support::objects(&watch, class), 0, "what was born is gone");
    }
}
