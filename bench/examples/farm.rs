//! A simulated farm beside the sum of its tokens: so many HSMs of a stated latency and rate behind one engine, asked by batches in this
//! process. `cargo run --release -p keymill-bench --example farm [SECONDS]`; the simulator and SoftHSM are built and found by
//! `tests/modules/build`.

#![allow(clippy::print_stdout, reason = "its table")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_bench::Fixture;
use keymill_bench::in_process::Caller;
use keymill_core::key::BulkMode;
use keymill_harness::Farm;

/// Tokens, microseconds a call, calls a second of each, sessions of each.
const FARMS: [(usize, u64, u64, usize); 3] =
    [(1, 1_000, 5_000, 8), (4, 1_000, 5_000, 8), (16, 1_000, 1_000, 3)];
const CALLERS: usize = 4;
const ITEMS: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    println!("tokens  µs a call  calls/s each   items/s      sum  ratio");
    for (tokens, latency_us, rate, sessions) in FARMS {
        let farm = Farm::with(tokens, "");
        let fixture = Fixture::start_in_tokens(farm.parts(sessions), BulkMode::InHsm)?;
        // From here on, and not while the tokens are made ready.
        farm.control(&format!(
            "latency_us = {latency_us}\ncalls_per_s = {rate}\nfree = [\"C_*Init\"]\nlazy_control = true"
        ));
        let done = AtomicU64::new(0);
        let run = |time: Duration| -> u64 {
            done.store(0, Ordering::Relaxed);
            std::thread::scope(|scope| {
                for _ in 0..CALLERS {
                    scope.spawn(|| {
                        let mut caller = Caller::sealing(&fixture, ITEMS, 1_024);
                        let began = Instant::now();
                        while began.elapsed() < time {
                            done.fetch_add(caller.batch().expect("no item fails") as u64, Ordering::Relaxed);
                        }
                    });
                }
            });
            done.load(Ordering::Relaxed)
        };
        run(Duration::from_secs(1));
        let began = Instant::now();
        let items = run(Duration::from_secs(seconds));
        let ours = items as f64 / began.elapsed().as_secs_f64();
        let sum = (tokens as u64 * rate) as f64;
        println!("{tokens:>6}  {latency_us:>9}  {rate:>12}  {ours:>8.0} {sum:>8.0}  {:>5.2}", ours / sum);
    }
    Ok(())
}
