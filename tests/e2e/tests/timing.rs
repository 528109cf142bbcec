//! Refusals that must not be told apart, not by their time either (cases A1, A7, B3): each kind is asked for in a random order among the
//! others, and kinds are compared by Welch's t of the logarithms of their times. A machine that does other things has no say in whether a
//! change is good: times are compared where `KEYMILL_TEST_ALL` is set alone, and answers always.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use keymill_client::{Credentials, ServerError};
use keymill_core::id::CmkId;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel};
use keymill_e2e::Caller;
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;

/// Where a difference counts as shown.
const SHOWN: f64 = 4.5;

/// A kind of request: its name, and how it is asked for the n-th time.
type Kind<'a> = (&'a str, Box<dyn FnMut(&mut Caller, usize) -> ServerError + 'a>);

fn is_measured() -> bool {
    std::env::var_os("KEYMILL_TEST_ALL").is_some()
}

/// What one kind took: the logarithm of each time.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The variance of the mean.
    fn error(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|time| (time - mean).powi(2)).sum();
        squares / (self.0.len() as f64 - 1.0) / self.0.len() as f64
    }

    /// Welch's t.
    fn t(&self, other: &Self) -> f64 {
        (self.mean() - other.mean()) / (self.error() + other.error()).sqrt()
    }
}

/// Asks for each kind as often; returns the times of each, and the one answer of all but the last, which is the control: it must be told
/// apart, or nothing was measured.
fn ask_for(caller: &mut Caller, kinds: &mut [Kind<'_>]) -> Vec<Times> {
    // One test at a time has the machine.
    static MACHINE: Mutex<()> = Mutex::new(());
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let rounds = if is_measured() { 10_000 } else { 100 };
    let mut times: Vec<Times> = kinds.iter().map(|_| Times::default()).collect();
    let mut answers = Vec::new();
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    // A fixed sequence of orders (Lehmer, MINSTD), so that a failure can be repeated.
    let mut seed = 20_261_129u64;
    for round in 0..rounds {
        for last in (1..order.len()).rev() {
            seed = seed * 48_271 % 0x7fff_ffff;
            order.swap(last, (seed % (last as u64 + 1)) as usize);
        }
        for &kind in &order {
            let began = Instant::now();
            let ServerError { status, code, message, .. } = kinds[kind].1(caller, round);
            times[kind].0.push((began.elapsed().as_nanos() as f64).ln());
            if kind + 1 < kinds.len() {
                answers.push((status, code, message));
            }
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    times
}

/// Compares kinds of which the last is the control.
fn compare(caller: &mut Caller, mut kinds: Vec<Kind<'_>>) {
    let times = ask_for(caller, &mut kinds);
    if !is_measured() {
        return;
    }
    let control = times.len() - 1;
    for one in 0..control {
        for other in one + 1..=control {
            let t = times[one].t(&times[other]);
            let names = format!("{} and {}: t = {t:.2}", kinds[one].0, kinds[other].0);
            assert_eq!(t.abs() > SHOWN, other == control, "{names}");
        }
    }
}

fn begin() -> (Live, Caller) {
    let setup = Setup::new(EngineConfig::default()).with_workers(1);
    let Started { live, credentials } = Live::start_with(setup);
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

#[test]
fn a1_where_a_blob_was_altered_shows_in_no_time() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let pairs = [("tenant", "a")];
    let blob = caller.encrypt(key, &[7; 256], &pairs).unwrap();
    let long = caller.encrypt(key, &[7; 6_144], &pairs).unwrap();
    let flipped = |blob: &[u8], at: usize| {
        let mut flipped = blob.to_vec();
        flipped[at] ^= 1;
        flipped
    };
    let decrypt = |blob: Vec<u8>, pairs: [(&'static str, &'static str); 1]| {
        Box::new(move |caller: &mut Caller, _| caller.decrypt(&blob, &pairs).unwrap_err())
    };
    compare(
        &mut caller,
        vec![
            ("first byte of the tag", decrypt(flipped(&blob, blob.len() - 16), pairs)),
            ("last byte of the tag", decrypt(flipped(&blob, blob.len() - 1), pairs)),
            ("first byte of the text", decrypt(flipped(&blob, 46), pairs)),
            ("last byte of the text", decrypt(flipped(&blob, blob.len() - 17), pairs)),
            ("context", decrypt(blob, [("tenant", "b")])),
            ("a longer text", decrypt(flipped(&long, long.len() - 1), pairs)),
        ],
    );
}

#[test]
fn a7_whether_somebody_elses_key_exists_shows_in_no_time() {
    let (live, mut caller) = begin();
    let (foreign, own) = (caller.create_key(), caller.create_key());
    let blob = caller.encrypt(foreign, b"x", &[]).unwrap();
    let long = caller.encrypt(foreign, &[7; 6_144], &[]).unwrap();
    let mut nowhere = blob.clone();
    nowhere[2..18].copy_from_slice(CmkId::from_random([7; 16]).as_bytes());
    let grants = serde_json::json!([
        { "Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": [format!("key/{own}")] }
    ]);
    let (id, secret) = caller.create_access_key(serde_json::from_value(grants).unwrap()).unwrap();
    let mut stranger = Caller::new(&live, &Credentials::new(id, secret));
    let decrypt =
        |blob: Vec<u8>| Box::new(move |caller: &mut Caller, _| caller.decrypt(&blob, &[]).unwrap_err());
    compare(
        &mut stranger,
        vec![
            ("a key of another", decrypt(blob)),
            ("no key", decrypt(nowhere)),
            ("a longer blob", decrypt(long)),
        ],
    );
}

#[test]
fn b3_where_oaep_fails_shows_in_no_time() {
    const TEXTS: usize = 64;
    let (_live, mut caller) = begin();
    let software = Some(ProtectionLevel::Software);
    let pair = caller.create_pair(KeySpec::Rsa2048, Some(KeyUsage::EncryptDecrypt), software).unwrap();
    let mut encrypt = |oaep| -> Vec<Vec<u8>> {
        (0..TEXTS).map(|_| caller.encrypt_for(pair, oaep, b"text").unwrap()).collect()
    };
    let other = encrypt(DecryptAlgorithm::RsaesOaepSha1);
    // Of one bit that is changed nothing is left: the first byte is 0 once in 256.
    let mut altered = encrypt(DecryptAlgorithm::RsaesOaepSha256);
    altered.iter_mut().for_each(|ciphertext| ciphertext[100] ^= 1);
    let cut = altered.iter().map(|ciphertext| ciphertext[1..].to_vec()).collect();
    let decrypt = |ciphertexts: Vec<Vec<u8>>| {
        let oaep = DecryptAlgorithm::RsaesOaepSha256;
        Box::new(move |caller: &mut Caller, n: usize| {
            caller.decrypt_by(pair, oaep, &ciphertexts[n % TEXTS]).unwrap_err()
        })
    };
    compare(
        &mut caller,
        vec![
            ("first byte", decrypt(altered)),
            ("hash of the label", decrypt(other)),
            ("length", decrypt(cut)),
        ],
    );
}
