//! Noisy neighbours: engines that share one token and weigh 3:1, while both have all that they can do; then single calls of one that is idle else while
//! another saturates the token, beside what they take alone. The token is a simulated HSM, so that this machine is not the limit.
//! `cargo run --release -p keymill-bench --example neighbours [SECONDS [ROUNDS]]`.

#![allow(clippy::print_stdout, reason = "its tables")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_core::key::{BulkMode, ProtectionLevel};
use keymill_e2e::Caller;
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::pool::{InFlight, Turns};
use keymill_runtime::{EngineConfig, TokenPart};

/// What a call takes, calls that run side by side, and the sessions of each engine.
const LATENCY_US: u64 = 1_000;
const ENGINES: usize = 4;
const SESSIONS: usize = 8;
/// Callers of each, and the items of a batch.
const CALLERS: usize = 4;
const ITEMS: usize = 64;

/// One engine on the token, a client of it, and its key.
struct Neighbour {
    live: Live,
    credentials: keymill_client::Credentials,
    key: keymill_core::id::CmkId,
    done: AtomicU64,
}

impl Neighbour {
    fn start(part: TokenPart) -> Self {
        let mut config = EngineConfig {
            protection: ProtectionLevel::Hsm,
            bulk_mode: BulkMode::InHsm,
            ..EngineConfig::default()
        };
        config.pool.patience = Duration::from_secs(30);
        let Started { live, credentials } = Live::start_with(Setup::new(config).with_tokens(vec![part]));
        let key = Caller::new(&live, &credentials).create_key();
        Self { live, credentials, key, done: AtomicU64::new(0) }
    }

    /// Saturates the token until told to stop.
    fn saturate(&self, stop: &AtomicBool) {
        let texts = vec![vec![7; 1_024]; ITEMS];
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let mut caller = Caller::new(&self.live, &self.credentials);
                    while !stop.load(Ordering::Relaxed) {
                        let items = caller.batch_encrypt(self.key, &texts).expect("no item fails").len();
                        self.done.fetch_add(items as u64, Ordering::Relaxed);
                    }
                });
            }
        });
    }

    /// Makes so many single calls, one each few milliseconds; what each took, the least first.
    fn singles(&self, count: usize) -> Vec<Duration> {
        let mut caller = Caller::new(&self.live, &self.credentials);
        let mut took: Vec<_> = (0..count)
            .map(|at| {
                std::thread::sleep(Duration::from_micros(3_000 + 137 * (at as u64 % 16)));
                let began = Instant::now();
                caller.encrypt(self.key, b"a text", &[]).expect("it is encrypted");
                began.elapsed()
            })
            .collect();
        took.sort_unstable();
        took
    }
}

fn at(took: &[Duration], part: f64) -> f64 {
    took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

fn main() {
    let argument =
        |at: usize, or: u64| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(or);
    let (seconds, rounds) = (argument(1, 10), argument(2, 2_000) as usize);
    let farm = Farm::new(1);
    let turns = Turns::new(InFlight::Feedback);
    // One login for both: a module has one in each process.
    let part = farm.parts(SESSIONS).remove(0);
    let provider = (part.connect)().expect("the token is connected");
    let neighbour = |weight: u32| {
        let provider = provider.clone();
        let connect = Box::new(move || Ok(provider.clone()));
        Neighbour::start(TokenPart {
            config: part.config.clone(),
            connect,
            seat: turns.sit(weight, SESSIONS),
        })
    };
    let (heavy, light) = (neighbour(3), neighbour(1));
    // From here on, and not while the token is made ready.
    farm.control(&format!(
        "latency_us = {LATENCY_US}\nengines = {ENGINES}\nfree = [\"C_*Init\"]\nlazy_control = true"
    ));
    let idle = light.singles(rounds);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| heavy.saturate(&stop));
        scope.spawn(|| light.saturate(&stop));
        // The feedback finds how many calls at a time the token takes.
        std::thread::sleep(Duration::from_secs(10));
        let counts = || [&heavy, &light].map(|of| of.done.load(Ordering::Relaxed));
        let (before, began) = (counts(), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        let (after, took) = (counts(), began.elapsed().as_secs_f64());
        let [heavy, light] = [0, 1].map(|of| (after[of] - before[of]) as f64 / took);
        let all = heavy + light;
        println!("both saturate it:  {heavy:.0} and {light:.0} items/s, of {all:.0} in all");
        println!("  shares           {:.3} and {:.3}, due 0.750 and 0.250", heavy / all, light / all);
        println!(
            "  off by           {:+.1} % and {:+.1} %",
            (heavy / all / 0.75 - 1.0) * 100.0,
            (light / all / 0.25 - 1.0) * 100.0
        );
        stop.store(true, Ordering::Relaxed);
    });

    stop.store(false, Ordering::Relaxed);
    let busy = std::thread::scope(|scope| {
        scope.spawn(|| heavy.saturate(&stop));
        std::thread::sleep(Duration::from_secs(5));
        let took = light.singles(rounds);
        stop.store(true, Ordering::Relaxed);
        took
    });
    println!("single calls, ms:  p50    p99    most");
    for (name, took) in [("alone", &idle), ("beside", &busy)] {
        println!("  {name:<15}  {:.2}   {:.2}   {:.2}", at(took, 0.5), at(took, 0.99), at(took, 1.0));
    }
    println!("  p99 beside it is {:.2} times what it is alone, allowed 3", at(&busy, 0.99) / at(&idle, 0.99));
}
