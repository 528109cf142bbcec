//! Several nodes on one store. First how their rate grows with their number, where each has an HSM of its own that takes time and no processor: beside
//! the sum of the HSMs. Then how long a change takes to be in force on another node. `cargo run --release -p keymill-bench --example cluster [SECONDS
//! [ROUNDS]]`; `KEYMILL_TEST_STORE=etcd` puts the store into an etcd, else it is an SQLite of this process.

#![allow(clippy::print_stdout, reason = "its tables")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::key::{BulkMode, KeyState, ProtectionLevel};
use keymill_e2e::Caller;
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::{ClusterConfig, EngineConfig};

/// Calls a second of each HSM, what one takes, and its sessions.
const RATE: u64 = 1_000;
const LATENCY_US: u64 = 1_000;
const SESSIONS: usize = 3;
/// Callers at each node, and the items of a batch.
const CALLERS: usize = 2;
const ITEMS: usize = 128;

fn node(name: usize, config: EngineConfig) -> Setup {
    Setup::new(config).as_node(&format!("node-{name}"), ClusterConfig::default())
}

/// Starts so many nodes, each by its number.
fn start(count: usize, setup: impl Fn(usize) -> Setup) -> (Vec<Live>, Credentials) {
    let Started { live, credentials } = Live::start_with(setup(0));
    let mut nodes = vec![live];
    for number in 1..count {
        nodes.push(nodes[0].beside(setup(number)).expect("the node starts"));
    }
    (nodes, credentials)
}

fn rate(count: usize, time: Duration) -> f64 {
    let farm = Farm::new(count);
    let parts = std::cell::RefCell::new(farm.parts(SESSIONS));
    let (nodes, root) = start(count, |number| {
        let mut config = EngineConfig {
            protection: ProtectionLevel::Hsm,
            bulk_mode: BulkMode::InHsm,
            ..EngineConfig::default()
        };
        config.pool.patience = Duration::from_secs(30);
        node(number, config).with_tokens(parts.borrow_mut().drain(..1).collect())
    });
    let key = Caller::new(&nodes[0], &root).create_key();
    let texts = vec![vec![7; 1_024]; ITEMS];
    // From here on, and not while the tokens are made ready.
    farm.control(&format!(
        "latency_us = {LATENCY_US}\ncalls_per_s = {RATE}\nfree = [\"C_*Init\"]\nlazy_control = true"
    ));
    let done = AtomicU64::new(0);
    let run = |time: Duration| {
        let before = done.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            for live in nodes.iter().flat_map(|live| std::iter::repeat_n(live, CALLERS)) {
                let (root, texts, done) = (&root, &texts, &done);
                scope.spawn(move || {
                    let mut caller = Caller::new(live, root);
                    let began = Instant::now();
                    while began.elapsed() < time {
                        // One that has not heard of the key yet says so.
                        let items = caller.batch_encrypt(key, texts).map_or(0, |blobs| blobs.len());
                        done.fetch_add(items as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        done.load(Ordering::Relaxed) - before
    };
    run(Duration::from_secs(1));
    let began = Instant::now();
    run(time) as f64 / began.elapsed().as_secs_f64()
}

/// Measures how long after its answer each of so many changes is in force on another node.
fn in_force(rounds: usize) -> Vec<Duration> {
    let (nodes, root) = start(3, |number| node(number, EngineConfig::default()));
    let (mut one, mut other) = (Caller::new(&nodes[0], &root), Caller::new(&nodes[1], &root));
    let key = one.create_key();
    while other.describe(key).is_err() {}
    let mut took: Vec<Duration> = (0..rounds)
        .map(|_| {
            one.disable(key).expect("it is enabled");
            let answered = Instant::now();
            while other.encrypt(key, b"text", &[]).is_ok() {}
            let took = answered.elapsed();
            one.enable(key).expect("it is disabled");
            while other.describe(key).is_ok_and(|key| key.key_state != KeyState::Enabled) {}
            took
        })
        .collect();
    took.sort_unstable();
    took
}

fn main() {
    let argument =
        |at: usize, or: u64| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(or);
    let (seconds, rounds) = (argument(1, 5), argument(2, 500) as usize);
    println!("nodes   items/s      sum  ratio  to one node");
    let mut one = None;
    for count in [1, 2, 4] {
        let ours = rate(count, Duration::from_secs(seconds));
        let (sum, one) = ((count as u64 * RATE) as f64, *one.get_or_insert(ours));
        println!(
            "{count:>5}  {ours:>8.0} {sum:>8.0}  {:>5.2}  {:>11.2}",
            ours / sum,
            ours / (one * count as f64)
        );
    }
    let took = in_force(rounds);
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    println!(
        "a disable is refused elsewhere, behind its answer: p50 {:?}, p99 {:?}, at most {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
