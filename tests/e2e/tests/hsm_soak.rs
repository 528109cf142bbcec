//! The fault soak: many items through four tokens of which one call in a hundred fails, calls hang, and tokens are taken away and brought
//! back. Nothing is lost, nothing comes back wrong, no key is made twice, and nothing has to be restarted. A short one by default;
//! with `KEYMILL_TEST_ALL` a million items, twenty hangs of five seconds and twenty tokens killed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_core::key::BulkMode;
use keymill_core::operation::ItemError;
use keymill_e2e::{Caller, eventually, verified};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::{EngineConfig, TokenConfig};

/// One call in a hundred of these answers so.
const FAULTS: &str = r#"{ functions = ["C_Encrypt*", "C_Decrypt*", "C_Message*", "C_Sign*", "C_UnwrapKey", "C_GenerateKey",
    "C_WrapKey", "C_DestroyObject", "C_OpenSession"], chance = 100, answer = ["CKR_DEVICE_ERROR", "CKR_GENERAL_ERROR",
    "CKR_FUNCTION_FAILED", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_CLOSED", "CKR_KEY_HANDLE_INVALID", "CKR_DEVICE_MEMORY",
    "CKR_HOST_MEMORY", "CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", "CKR_USER_NOT_LOGGED_IN", "CKR_OPERATION_ACTIVE",
    "CKR_SESSION_COUNT", "0x80000042"] }"#;
const BATCH: usize = 64;
const TEXT_BYTES: usize = 100;
/// How long one batch may take before the soak has failed.
const STUCK: Duration = Duration::from_secs(60);

struct Plan {
    items: u64,
    hangs: usize,
    hang_ms: u64,
    kills: usize,
    crashes: usize,
    callers: usize,
}

fn plan(isolated: bool) -> Plan {
    let plan = match std::env::var_os("KEYMILL_TEST_ALL") {
        Some(_) => Plan { items: 1_000_000, hangs: 20, hang_ms: 5_000, kills: 20, crashes: 0, callers: 8 },
        None => Plan { items: 20_000, hangs: 4, hang_ms: 2_500, kills: 4, crashes: 0, callers: 4 },
    };
    // Each crash of a module is a process that ends.
    Plan { crashes: if isolated { plan.kills } else { 0 }, ..plan }
}

/// What all callers did.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    /// Items that were told to come again, and did.
    again: AtomicU64,
    keys: Mutex<Vec<CmkId>>,
    over: AtomicBool,
}

fn text(number: u64) -> Vec<u8> {
    let mut text = number.to_le_bytes().repeat(TEXT_BYTES / 8);
    text.truncate(TEXT_BYTES);
    text
}

/// Items whose error says that they may come again; any other error ends the test.
fn come_again(errors: &[ItemError], tally: &Tally) -> HashSet<usize> {
    for error in errors {
        let retryable = ["ServiceUnavailableTemporary", "Rejected.Throttling", "RequestTimeout"];
        assert!(retryable.contains(&&*error.1), "{error:?}");
    }
    tally.again.fetch_add(errors.len() as u64, Ordering::Relaxed);
    if !errors.is_empty() {
        // As a client would: a pool that is down is not asked as fast as it can refuse.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    errors.iter().map(|error| error.0 as usize).collect()
}

/// Encrypts and decrypts batches until as many items are done as the plan says.
fn work(mut caller: Caller, number: u64, total: u64, tally: &Tally) {
    let mut batch = 0u64;
    let mut patience = Instant::now();
    while tally.done.load(Ordering::Relaxed) < total {
        batch += 1;
        let keys = tally.keys.lock().unwrap().clone();
        let key = keys[(batch as usize * 7 + number as usize) % keys.len()];
        let first = number << 40 | batch << 16;
        let mut open: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut left: Vec<Vec<u8>> = (0..BATCH as u64).map(|i| text(first + i)).collect();
        while !left.is_empty() {
            assert!(patience.elapsed() < STUCK, "nothing was done for {STUCK:?}: {:?}", caller.tokens());
            let request = keymill_e2e::batch_encrypt(key, &left);
            let answer = caller.ask(request, |reply| match reply {
                keymill_core::operation::Reply::BatchEncrypt(reply) => (
                    reply.items.into_iter().map(|item| item.map(|item| item.into_vec())).collect::<Vec<_>>(),
                    reply.errors,
                ),
                other => panic!("{other:?}"),
            });
            let (blobs, errors) = answer.unwrap();
            let again = come_again(&errors, tally);
            let mut next = Vec::new();
            for (i, (text, blob)) in left.into_iter().zip(blobs).enumerate() {
                match blob {
                    Some(blob) => open.push((text, blob)),
                    None => {
                        assert!(again.contains(&i));
                        next.push(text);
                    }
                }
            }
            left = next;
        }
        let mut left = open;
        while !left.is_empty() {
            assert!(patience.elapsed() < STUCK, "nothing was done for {STUCK:?}: {:?}", caller.tokens());
            let blobs: Vec<Vec<u8>> = left.iter().map(|(_, blob)| blob.clone()).collect();
            let opened = caller.batch_decrypt(&blobs).unwrap();
            let again = come_again(&opened.errors, tally);
            for (i, (text, _)) in left.iter().enumerate() {
                assert_eq!(opened.items[i].as_ref(), (!again.contains(&i)).then_some(text), "item {i}");
            }
            left = left
                .into_iter()
                .enumerate()
                .filter(|(i, _)| again.contains(i))
                .map(|(_, pair)| pair)
                .collect();
        }
        tally.done.fetch_add(BATCH as u64, Ordering::Relaxed);
        patience = Instant::now();
    }
}

/// What befalls a token.
#[derive(Clone, Copy)]
enum Event {
    Hang,
    Kill,
    Crash,
}

/// Has hangs, kills and crashes strike, spread over the items and over the tokens.
fn trouble(farm: &Farm, plan: &Plan, tally: &Tally) {
    let most = plan.hangs.max(plan.kills).max(plan.crashes);
    let events: Vec<Event> = (0..most)
        .flat_map(|n| {
            [(n < plan.kills, Event::Kill), (n < plan.hangs, Event::Hang), (n < plan.crashes, Event::Crash)]
        })
        .filter_map(|(is_due, event)| is_due.then_some(event))
        .collect();
    for (number, event) in events.iter().enumerate() {
        let due = plan.items * (number as u64 + 1) / (events.len() as u64 + 1);
        while tally.done.load(Ordering::Relaxed) < due {
            if tally.over.load(Ordering::Relaxed) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let hsm = &farm.hsms[number % farm.hsms.len()];
        let usual = format!("slot_shift = {number}\nfaults = [{FAULTS}]");
        let strikes =
            "functions = [\"C_Encrypt\", \"C_Decrypt\", \"C_EncryptMessage\", \"C_DecryptInit\"], next = 1";
        match event {
            Event::Kill => {
                hsm.control("removed = true");
                std::thread::park_timeout(Duration::from_millis(700));
                hsm.control(&usual);
            }
            Event::Hang => {
                let hang = format!("{{ id = \"hang {number}\", {strikes}, hang_ms = {} }}", plan.hang_ms);
                hsm.control(&format!("faults = [{hang}, {FAULTS}]"));
            }
            Event::Crash => {
                let crash = format!("{{ id = \"crash {number}\", {strikes}, abort = true }}");
                hsm.control(&format!("faults = [{crash}, {FAULTS}]"));
                // A process that is started anew would crash anew, as long as this stands there.
                std::thread::park_timeout(Duration::from_millis(150));
                hsm.control(&usual);
            }
        }
    }
}

fn start(farm: &Farm, isolated: bool) -> (Live, Credentials) {
    let set = |config: &mut TokenConfig| {
        config.sessions = 2;
        config.call_timeout = Duration::from_millis(500);
    };
    let tokens = if isolated { farm.isolated_parts_with(set) } else { farm.parts_with(set) };
    let Started { live, credentials } =
        Live::start_with(Setup::new(EngineConfig::default()).with_tokens(tokens));
    (live, credentials)
}

#[test]
fn nothing_is_lost_or_wrong_while_calls_fail_and_hang_and_tokens_come_and_go() {
    soak(false);
}

#[test]
fn nothing_is_lost_or_wrong_while_modules_crash_too_each_in_a_process_of_its_own() {
    soak(true);
}

fn soak(isolated: bool) {
    let plan = plan(isolated);
    let farm = Farm::new(4);
    let (live, credentials) = start(&farm, isolated);
    let mut caller = Caller::new(&live, &credentials);
    // Each worker finds out what its module can do, which takes seconds by itself, and four of them share the machine.
    let patience = Instant::now() + Duration::from_secs(90);
    while !caller.tokens().unwrap().iter().all(|token| token.state == "up") {
        assert!(Instant::now() < patience, "{:?}", caller.tokens());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let tally = Tally::default();
    let mut create = |mode| {
        let key = eventually("a key is made", || caller.create_in_hsm(mode).ok());
        tally.keys.lock().unwrap().push(key);
    };
    create(BulkMode::InHsm);
    create(BulkMode::HsmDerived);
    farm.control(&format!("faults = [{FAULTS}]"));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..plan.callers as u64)
            .map(|number| {
                let caller = Caller::new(&live, &credentials);
                let (tally, total) = (&tally, plan.items);
                scope.spawn(move || work(caller, number, total, tally))
            })
            .collect();
        let troubled = scope.spawn(|| trouble(&farm, &plan, &tally));
        // Keys are made meanwhile, in both modes.
        for n in 0..10 {
            create(if n % 2 == 0 { BulkMode::InHsm } else { BulkMode::HsmDerived });
        }
        let failed = callers.into_iter().filter_map(|caller| caller.join().err()).next();
        tally.over.store(true, Ordering::Relaxed);
        troubled.join().unwrap();
        if let Some(failed) = failed {
            std::panic::resume_unwind(failed);
        }
    });
    let took = began.elapsed();
    farm.control("");
    // Every token is back, by itself.
    let tokens = eventually("all tokens are up again", || {
        let tokens = caller.tokens().unwrap();
        tokens.iter().all(|token| token.state == "up" && token.hung_calls == 0).then_some(tokens)
    });
    let keys = tally.keys.lock().unwrap().clone();
    let distinct: HashSet<_> = keys.iter().collect();
    assert_eq!((distinct.len(), keys.len()), (12, 12));
    let known = caller.keys().unwrap();
    assert_eq!(known.iter().collect::<HashSet<_>>(), distinct, "no key but those that were answered");
    // No two of them have the same material: a blob of one does not open as another's.
    let blobs: Vec<_> = keys.iter().map(|key| caller.encrypt(*key, b"mine", &[]).unwrap()).collect();
    for (n, blob) in blobs.iter().enumerate() {
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), b"mine");
        for other in blobs.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| other) {
            let mut posing = blob.clone();
            posing[1..22].copy_from_slice(&other[1..22]);
            assert!(caller.decrypt(&posing, &[]).is_err());
        }
    }
    let lost: u64 = tokens.iter().map(|token| token.sessions_lost).sum();
    println!(
        "{} items encrypted and decrypted in {:.0} s: 0 lost, 0 wrong; {} items came again, {lost} sessions were lost, {} hangs, {} kills, {} crashes",
        tally.done.load(Ordering::Relaxed),
        took.as_secs_f64(),
        tally.again.load(Ordering::Relaxed),
        plan.hangs,
        plan.kills,
        plan.crashes
    );
    drop(caller);
    verified(&live.halt());
}
