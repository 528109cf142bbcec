//! A12 of `security-cases.md`: a million seals under one key over many threads, restarts, and resumed clones of the machine
//! that replay the library's generator: no nonce and no (prefix, batch value) comes twice. A test of its own, since it
//! collects every nonce.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use keymill_core::blob::HEADER_BYTES;

use super::tests::{derive, header};
use super::{EpochLimits, EpochSlot};
use crate::digest::sha256;
use crate::random::{RandomFailed, Source, draw_from, operating_system};

// The full count where the code is fast; debug builds of this crate spend their time in the test's own bookkeeping.
const SEALS: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const THREADS: u32 = 4;
/// The first life of the process and two restarts, each with the library's generator set back.
const LIVES: u32 = 3;
const EPOCH: u32 = 4_096;

/// The library's generator of one thread, as saved: every life replays it from its first byte.
fn replayed(thread: u32) -> impl Fn(&mut [u8]) -> Result<(), RandomFailed> {
    let drawn = Cell::new(0u64);
    move |out: &mut [u8]| {
        for chunk in out.chunks_mut(32) {
            let seed = [&thread.to_be_bytes()[..], &drawn.get().to_be_bytes()].concat();
            chunk.copy_from_slice(&sha256(&seed)[..chunk.len()]);
            drawn.set(drawn.get() + 1);
        }
        Ok(())
    }
}

/// Seals `seals` times in runs of growing length and returns every 24-byte nonce, and the nonce that each run began with.
fn live(slot: &EpochSlot, os: Source<'_>, thread: u32, seals: u32) -> (Vec<[u8; 24]>, Vec<[u8; 24]>) {
    let library = replayed(thread);
    let draw = |out: &mut [u8]| draw_from(os, &library, out);
    let limits = EpochLimits { messages: EPOCH, ..EpochLimits::default() };
    let (now, header) = (Instant::now(), header());
    let (mut nonces, mut starts, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = seals;
    while left > 0 {
        let count = (1 + starts.len() as u32 % 500).min(left);
        let mut run = slot.begin_with(&draw, count, now, &limits, &mut derive).unwrap();
        for i in 0..count {
            out.clear();
            run.seal_with_aad(&header, b"the same plaintext", &mut out).unwrap();
            let nonce = *out[HEADER_BYTES..].first_chunk().unwrap();
            if i == 0 {
                starts.push(nonce);
            }
            nonces.push(nonce);
        }
        left -= count;
    }
    (nonces, starts)
}

fn repeats(nonces: &[[u8; 24]]) -> usize {
    nonces.len() - nonces.iter().collect::<HashSet<_>>().len()
}

#[test]
fn no_nonce_repeats_over_threads_restarts_and_replayed_generators() {
    let (mut nonces, mut starts) = (Vec::new(), Vec::new());
    for life in 0..LIVES {
        let slot = EpochSlot::new();
        let each = (SEALS - nonces.len() as u32).div_ceil((LIVES - life) * THREADS);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let slot = &slot;
                    scope.spawn(move || live(slot, &operating_system, thread, each))
                })
                .collect();
            for thread in threads {
                let (n, s) = thread.join().unwrap();
                nonces.extend(n);
                starts.extend(s);
            }
        });
    }
    assert!(nonces.len() >= SEALS as usize);
    assert_eq!((repeats(&nonces), repeats(&starts)), (0, 0));
    let mut epochs = HashMap::<&[u8], u32>::new();
    nonces.iter().for_each(|nonce| *epochs.entry(&nonce[..12]).or_default() += 1);
    assert!(epochs.len() as u32 >= SEALS / EPOCH);
    assert!(epochs.values().all(|count| *count <= EPOCH));
}

#[test]
fn a_clone_that_resumes_within_an_epoch_shares_its_prefix_and_no_nonce() {
    let slot = EpochSlot::new();
    let (original, starts) = live(&slot, &operating_system, 0, 1_000);
    // `live` replays the library's generator from its first byte, as the clone would.
    let (resumed, resumed_starts) = live(&slot, &operating_system, 0, 1_000);
    assert_eq!(original.last().unwrap()[..12], resumed[0][..12]);
    assert_eq!(repeats(&[original, resumed].concat()), 0);
    assert_eq!(repeats(&[starts, resumed_starts].concat()), 0);
}

/// The control: the tests above would notice, were the operating system's share left out.
#[test]
fn with_the_library_alone_a_replay_repeats_every_nonce() {
    let silent = |out: &mut [u8]| {
        out.fill(0);
        Ok(())
    };
    let (a, _) = live(&EpochSlot::new(), &silent, 0, 1_000);
    let (b, _) = live(&EpochSlot::new(), &silent, 0, 1_000);
    assert_eq!(repeats(&[a, b].concat()), 1_000);
}
