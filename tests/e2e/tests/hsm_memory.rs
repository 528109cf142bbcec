//! Memory: many more CMKs than a token may hold loaded, used in turn, so that nearly every item unwraps its key and puts another out. What the
//! server itself holds stays flat, to the byte; and so does the process, but for what the module leaks: SoftHSM four pieces of 208 bytes together
//! at each unwrap (SoftHSMv2 issue 562), which a plain loop over it, driven alike, measures first. A short one by default; with
//! `KEYMILL_TEST_ALL` 100,000 CMKs through an LRU of 1,000, ten million items on Kryoptic and one on SoftHSM.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cap::Cap;
use keymill_conformance::MemoryStore;
use keymill_core::key::BulkMode;
use keymill_e2e::{Caller, eventually};
use keymill_harness::{Farm, Live, Plain, Setup, Started, next, resident};
use keymill_runtime::EngineConfig;

/// Counts what the server holds, but for what AWS-LC takes by itself. The modules are not counted: one is no Rust, the other is a library with an
/// allocator of its own.
#[global_allocator]
static HELD: Cap<System> = Cap::new(System, usize::MAX);

/// What the server may hold more at the end: a connection's buffer not yet given back, and of the store of this test its latest 4,096 changes.
const HELD_SLACK: u64 = 1 << 20;
/// What the usual allocator makes more of what is leaked where it lies between pieces that are used again, as those of a server are: 6 to 36 bytes
/// an unwrap were seen. It hands out 16 bytes more than asked for where what is left over is too short for a piece: 64 for four pieces, at most.
const ROUNDED: f64 = 40.0;
/// What the process may grow by otherwise: what allocators keep free.
const SLACK: u64 = 24 << 20;
const BATCH: usize = 256;

struct Plan {
    cmks: usize,
    loaded: usize,
    items: u64,
    callers: usize,
}

#[test]
fn memory_stays_flat_while_keys_pass_through_a_small_cache() {
    let is_kryoptic = std::env::var_os("KEYMILL_KRYOPTIC_MODULE").is_some();
    let plan = match std::env::var_os("KEYMILL_TEST_ALL") {
        Some(_) => Plan {
            cmks: 100_000,
            loaded: 1_000,
            items: if is_kryoptic { 10_000_000 } else { 1_000_000 },
            callers: 3,
        },
        None => Plan { cmks: 400, loaded: 20, items: 20_000, callers: 2 },
    };
    // Before there is a server: nothing else may run then.
    let leak = if is_kryoptic { 0.0 } else { leaked(&plan) };
    let farm = Farm::with(1, "lazy_control = true");
    let tokens = farm.parts_with(|config| {
        config.sessions = 1;
        config.cached_keys = plan.loaded;
    });
    let setup = Setup::new(EngineConfig::default())
        .with_tokens(tokens)
        .with_store(|_| Arc::new(MemoryStore::new()) as Arc<dyn keymill_core::seam::store::Store>);
    let Started { live, credentials } = Live::start_with(setup);
    let blobs = make(&live, &credentials, plan.cmks);
    let done = AtomicU64::new(0);
    let run = |until: u64| {
        std::thread::scope(|scope| {
            for number in 0..plan.callers {
                let (done, blobs) = (&done, &blobs);
                let mut caller = Caller::new(&live, &credentials);
                scope.spawn(move || {
                    let mut state = (number as u64 + 1) * 7_919 + until;
                    while done.load(Ordering::Relaxed) < until {
                        let batch: Vec<Vec<u8>> =
                            (0..BATCH).map(|_| blobs[next(&mut state) % blobs.len()].clone()).collect();
                        let opened = caller.batch_decrypt(&batch).unwrap();
                        assert_eq!(opened.errors, []);
                        assert!(opened.items.iter().all(|item| item.as_deref() == Some(b"kept")));
                        done.fetch_add(BATCH as u64, Ordering::Relaxed);
                    }
                });
            }
        });
    };
    // Every CMK once, for the first use of each is counted in a record of its own; and a tenth to warm up: every buffer has its size then.
    let mut caller = Caller::new(&live, &credentials);
    for some in blobs.chunks(BATCH) {
        assert_eq!(caller.batch_decrypt(some).unwrap().errors, []);
    }
    run(plan.items / 10);
    std::thread::sleep(EngineConfig::default().usage_flush + Duration::from_secs(1));
    let (before, unwraps_before) = (resident(), farm.hsms[0].calls("C_UnwrapKey"));
    let held_before = HELD.allocated() as u64;
    let began = Instant::now();
    run(plan.items / 10 + plan.items);
    let took = began.elapsed();
    std::thread::sleep(EngineConfig::default().usage_flush + Duration::from_secs(1));
    let held = (HELD.allocated() as u64).saturating_sub(held_before);
    let (after, unwraps) = (resident(), farm.hsms[0].calls("C_UnwrapKey") - unwraps_before);
    let grown = after.saturating_sub(before);
    let each = |bytes: u64| bytes as f64 / unwraps as f64;
    let stats = farm.hsms[0].stats();
    println!(
        "{} CMKs, {} loaded at most: {} items in {:.0} s, {unwraps} unwraps, {} session objects at most; {} KiB before, {} KiB grown, {:.0} bytes an unwrap, where the module by itself loses {leak:.0}; the server holds {held} bytes more",
        plan.cmks,
        plan.loaded,
        plan.items,
        took.as_secs_f64(),
        stats["objects_peak"],
        before / 1_024,
        grown / 1_024,
        each(grown),
    );
    assert!(unwraps > plan.items / 2, "nearly every item unwraps its key");
    let peak = stats["objects_peak"].as_u64().unwrap();
    assert!(peak < plan.loaded as u64 * 2 + 600, "{peak} session objects at once");
    assert!(held < HELD_SLACK, "the server holds {held} bytes more than before");
    let jemalloc = std::fs::read_to_string("/proc/self/maps").unwrap().contains("/libjemalloc.so");
    // There every piece has its size (`LD_PRELOAD`, as `tests/run --all` does).
    let rounded = if jemalloc { 0.0 } else { ROUNDED };
    let leaked = if is_kryoptic { 0 } else { (unwraps as f64 * (leak + rounded)) as u64 };
    assert!(grown < leaked + SLACK, "{grown} bytes, where {leaked} are the module's");
}

/// What the module by itself leaks at an unwrap: driven as the server drives it, which has one session.
fn leaked(plan: &Plan) -> f64 {
    let farm = Farm::with(1, "lazy_control = true");
    let plain = Plain { keys: plan.cmks, different: plan.cmks, loaded: plan.loaded, opens: true, threads: 1 };
    let legs = plain.lost(&farm.hsms[0], plan.items.min(200_000)).unwrap();
    legs.iter().sum::<f64>() / legs.len() as f64
}

/// Makes CMKs, and a blob under each.
fn make(live: &Live, credentials: &keymill_client::Credentials, cmks: usize) -> Vec<Vec<u8>> {
    const MAKERS: usize = 4;
    let mut first = Caller::new(live, credentials);
    eventually("the token is up", || first.create_in_hsm(BulkMode::InHsm).ok());
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|_| {
                let mut caller = Caller::new(live, credentials);
                scope.spawn(move || {
                    let blob = |_| {
                        let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
                        caller.encrypt(key, b"kept", &[]).unwrap()
                    };
                    (0..cmks / MAKERS).map(blob).collect::<Vec<_>>()
                })
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    })
}
