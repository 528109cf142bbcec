//! A12 of the security cases through the whole server: one plaintext under one key, from many connections and threads, with a
//! restart between; every nonce is drawn once. Replays of the library's generator are tested where it is called.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_e2e::Caller;
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;

const THREADS: usize = 4;
const BATCH: usize = 250;

type Nonce = [u8; 24];

/// What one connection saw: the nonces of its batches, in their order.
fn seal(live: &Live, credentials: &Credentials, key: CmkId, batches: usize) -> Vec<Vec<Nonce>> {
    let mut caller = Caller::new(live, credentials);
    let items = vec![b"one plaintext".to_vec(); BATCH];
    let nonce = |blob: &Vec<u8>| *blob[22..].first_chunk().expect("a blob holds its nonce");
    let mut seen = Vec::new();
    for _ in 0..batches {
        let blobs = caller.batch_encrypt(key, &items).unwrap();
        seen.push(blobs.iter().map(nonce).collect());
        let single = caller.encrypt(key, b"one plaintext", &[]).unwrap();
        let (_, edk) = caller.data_key(key, &[]).unwrap();
        seen.push(vec![nonce(&single)]);
        seen.push(vec![nonce(&edk)]);
    }
    seen
}

#[test]
fn a12_no_nonce_and_no_start_of_a_run_comes_twice_over_threads_and_a_restart() {
    let total = if std::env::var_os("KEYMILL_TEST_ALL").is_some() { 1_000_000 } else { 100_000 };
    let batches = total / BATCH / THREADS / 2;
    let Started { mut live, credentials } = Live::start(EngineConfig::default());
    let key = Caller::new(&live, &credentials).create_key();
    let mut nonces: HashSet<Nonce> = HashSet::new();
    let mut starts: HashSet<Nonce> = HashSet::new();
    let mut prefixes: Vec<HashSet<[u8; 12]>> = Vec::new();
    for round in 0..2 {
        let seen: Vec<Vec<Nonce>> = std::thread::scope(|scope| {
            let thread = || scope.spawn(|| seal(&live, &credentials, key, batches));
            let threads: Vec<_> = (0..THREADS).map(|_| thread()).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no caller fails")).collect()
        });
        let mut of_round = HashSet::new();
        for run in seen {
            assert!(starts.insert(run[0]), "a run begins where another did");
            of_round.extend(run.iter().map(|nonce| *nonce.first_chunk::<12>().expect("24 bytes")));
            for nonce in run {
                assert!(nonces.insert(nonce), "a nonce comes twice");
            }
        }
        prefixes.push(of_round);
        if round == 0 {
            live = live.restart(EngineConfig::default());
        }
    }
    assert!(nonces.len() >= total, "{} nonces", nonces.len());
    assert!(prefixes[0].is_disjoint(&prefixes[1]), "an epoch does not outlive its process");
}
