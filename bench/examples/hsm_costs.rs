//! What bad days cost a token, counted at a simulated HSM: a request of forged prefixes beside a neighbour's calls; one of four tokens killed
//! under load; what the module itself leaks. `cargo run --release -p keymill-bench --example hsm_costs`, or `… leak` for the last alone, and
//! `… leak as-the-test` for one way of driving it; the simulator and SoftHSM are built and found by `tests/modules/build`.

#![allow(clippy::print_stdout, reason = "its table")]
#![allow(clippy::unwrap_used, reason = "what fails here ends the run")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::access::{Effect, Grant, ResourcePattern, Role};
use keymill_core::key::BulkMode;
use keymill_e2e::{Caller, eventually};
use keymill_harness::{Farm, Live, Plain, Setup, Started};
use keymill_runtime::EngineConfig;

const FORGED: usize = 65_536;

fn main() {
    match std::env::args().nth(1).as_deref() {
        None => {
            forged();
            killed();
            leak();
        }
        Some("leak") => match std::env::args().nth(2) {
            None => leak(),
            Some(name) => drive(&name),
        },
        Some(other) => eprintln!("{other} is none of: leak"),
    }
}

/// Ways of driving the module by itself: the least that there is, as the test of memory does, whose token has one session, and with as many
/// sessions as a token has by default.
const DRIVES: [(&str, Plain); 4] = [
    ("one-by-one", Plain { keys: STORED, different: 1, loaded: 1, opens: false, threads: 1 }),
    ("one-key", Plain { keys: STORED, different: 1, loaded: 1_000, opens: true, threads: 1 }),
    ("as-the-test", Plain { keys: STORED, different: STORED, loaded: 1_000, opens: true, threads: 1 }),
    ("four-sessions", Plain { keys: STORED, different: STORED, loaded: 1_000, opens: true, threads: 4 }),
];
const STORED: usize = 100_000;

/// What the module itself loses at each unwrap and destroy, by plain loops over its own calls.
fn leak() {
    // A process each: the next would use what one has freed.
    for (name, _) in DRIVES {
        let this = std::env::current_exe().unwrap();
        assert!(std::process::Command::new(this).args(["leak", name]).status().unwrap().success());
    }
}

fn drive(name: &str) {
    const UNWRAPS: u64 = 1_000_000;
    let (_, plain) = DRIVES.iter().find(|(known, _)| *known == name).expect("a name of those");
    let farm = Farm::with(1, "lazy_control = true");
    let Some(lost) = plain.lost(&farm.hsms[0], UNWRAPS) else { return };
    let quarters = lost.map(|bytes| format!("{bytes:.0}")).join(", ");
    let mean = lost.iter().sum::<f64>() / lost.len() as f64;
    println!(
        "the module by itself, {name}: {} different keys, {} loaded, {} threads: {mean:.0} bytes lost at each of {UNWRAPS} unwraps ({quarters} by quarters)",
        plain.different, plain.loaded, plain.threads
    );
}

fn await_tokens(caller: &mut Caller) {
    eventually("the tokens are up", || {
        caller.tokens().unwrap().iter().all(|token| token.state == "up").then_some(())
    });
}

fn start(config: EngineConfig, farm: &Farm, sessions: usize) -> (Live, Credentials, Caller) {
    let setup = Setup::new(config).with_tokens(farm.parts(sessions));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    await_tokens(&mut caller);
    (live, credentials, caller)
}

fn percentile(mut values: Vec<Duration>, at: f64) -> Duration {
    values.sort_unstable();
    values
        .get(((values.len() as f64 * at) as usize).min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn forged() {
    let farm = Farm::with(1, "latency_us = 200\nfree = [\"C_*Init\"]\nlazy_control = true");
    let (live, credentials, mut caller) = start(EngineConfig::default(), &farm, 4);
    let key = caller.create_in_hsm(BulkMode::HsmDerived).unwrap();
    let in_hsm = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let blob = caller.encrypt(key, b"text", &[]).unwrap();
    let forged: Vec<Vec<u8>> = (0..FORGED)
        .map(|i| {
            let mut blob = blob.clone();
            blob[22..30].copy_from_slice(&(i as u64).to_be_bytes());
            blob
        })
        .collect();
    // Another principal, whose every call needs the token.
    let grant =
        Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
    let other = caller.credentials(vec![grant]);
    let stop = AtomicBool::new(false);
    let under = AtomicBool::new(false);
    let took = Mutex::new((Vec::new(), Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut neighbour = Caller::new(&live, &other);
            while !stop.load(Ordering::Relaxed) {
                let is_under = under.load(Ordering::Relaxed);
                let began = Instant::now();
                neighbour.encrypt(in_hsm, b"a single call", &[]).unwrap();
                let mut took = took.lock().unwrap();
                if is_under { took.1.push(began.elapsed()) } else { took.0.push(began.elapsed()) }
            }
        });
        std::thread::sleep(Duration::from_secs(3));
        let mut forger = Caller::new(&live, &credentials);
        let before = farm.hsms[0].calls("C_Sign");
        under.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let opened = forger.batch_decrypt(&forged);
        let ended = began.elapsed();
        under.store(false, Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        let calls = farm.hsms[0].calls("C_Sign") - before;
        let told = match &opened {
            Ok(opened) => format!("{} items refused", opened.errors.len()),
            Err(error) => format!("refused: {}", error.code),
        };
        println!(
            "{FORGED} forged prefixes in one request: {told} in {:.1} s, {calls} MACs of the token",
            ended.as_secs_f64()
        );
    });
    let (alone, beside) = took.into_inner().unwrap();
    println!(
        "  a neighbour's single calls, p99: {:.1} ms before, {:.1} ms beside it ({} and {} calls)",
        percentile(alone.clone(), 0.99).as_secs_f64() * 1e3,
        percentile(beside.clone(), 0.99).as_secs_f64() * 1e3,
        alone.len(),
        beside.len()
    );
}

fn killed() {
    let options = "latency_us = 1000\nfree = [\"C_*Init\"]\nlazy_control = true";
    let farm = Farm::with(4, options);
    let (live, credentials, mut caller) = start(EngineConfig::default(), &farm, 4);
    let key = caller.create_in_hsm(BulkMode::InHsm).unwrap();
    let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let took: Mutex<Vec<(Instant, Duration)>> = Mutex::default();
    let items: Vec<Vec<u8>> = (0..16).map(|i| vec![i; 1_024]).collect();
    for kill in 0..3 {
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut caller = Caller::new(&live, &credentials);
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        match caller.batch_encrypt(key, &items) {
                            Ok(blobs) if blobs.len() == items.len() => {
                                took.lock().unwrap().push((began, began.elapsed()));
                            }
                            _ => drop(failed.fetch_add(1, Ordering::Relaxed)),
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_secs(3));
            let name = farm.hsms[kill].name.clone();
            let killed = Instant::now();
            farm.hsms[kill].control(&format!("{options}\nremoved = true"));
            std::thread::sleep(Duration::from_secs(2));
            farm.hsms[kill].control(options);
            let returned = Instant::now();
            eventually("the token is back", || {
                let tokens = caller.tokens().unwrap();
                tokens.iter().any(|token| token.token_name == name && token.state == "up").then_some(())
            });
            let back = returned.elapsed();
            stop.store(true, Ordering::Relaxed);
            let took = std::mem::take(&mut *took.lock().unwrap());
            let second = |from: Instant, to: Instant| -> Vec<Duration> {
                took.iter().filter(|(began, _)| (from..to).contains(began)).map(|(_, took)| *took).collect()
            };
            let before = second(killed - Duration::from_secs(1), killed);
            let during = second(killed, killed + Duration::from_secs(1));
            println!(
                "one of four tokens killed under load: {} requests failed; p99 {:.0} ms in the second before, {:.0} ms in that of the kill ({} requests); back {:.2} s after its return",
                failed.load(Ordering::Relaxed),
                percentile(before, 0.99).as_secs_f64() * 1e3,
                percentile(during.clone(), 0.99).as_secs_f64() * 1e3,
                during.len(),
                back.as_secs_f64()
            );
        });
    }
}
