//! What a module can do to its process, and what of it the parent sees.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keymill_core::key::{KeySpec, KeyUsage};
use keymill_core::seam::provider::{
    AeadBatch, Cause, CryptoProvider, FailureCode, JobError, KeyHandle, ProviderError,
};
use keymill_provider_worker::{Config, WorkerProvider, open};
use rustix::process::{Pid, Signal, kill_process};

use support::{batch, config, key, software};

// The nonces that the example takes for orders.
const CRASHES: u8 = 0xc1;
const EXITS: u8 = 0xc2;
const HANGS: u8 = 0xc3;
const IS_SLOW: u8 = 0xc4;
const PANICS: u8 = 0xc5;
const LOSES: u8 = 0xc6;

/// Seals a good batch on a new session.
fn seals(provider: &WorkerProvider, key: &KeyHandle) -> Vec<Option<Result<(), JobError>>> {
    let mut batch = batch(10, 100, &[]);
    provider.open_session().unwrap().encrypt(key, &mut batch).unwrap();
    outcomes(&batch)
}

fn outcomes(batch: &AeadBatch) -> Vec<Option<Result<(), JobError>>> {
    batch.items.iter().map(|item| item.outcome).collect()
}

/// Runs a batch whose item 5 is bad, and returns why the session was lost. What has no outcome must be untouched.
fn lost(provider: &WorkerProvider, key: &KeyHandle, bad: u8) -> (Cause, AeadBatch) {
    let mut session = provider.open_session().unwrap();
    let mut batch = batch(10, 100, &[(5, bad)]);
    let before = batch.buffer.clone();
    let lost: ProviderError = session.encrypt(key, &mut batch).unwrap_err().into();
    let ProviderError::Unavailable(cause) = lost else { panic!("{lost}") };
    for item in &batch.items {
        let tagged = item.text.start..item.text.end + 16;
        assert_eq!(item.outcome.is_none(), batch.buffer[tagged.clone()] == before[tagged]);
    }
    assert!(session.encrypt(key, &mut batch).is_err(), "a session that was lost stays lost");
    (cause, batch)
}

fn pid(provider: &WorkerProvider) -> Pid {
    Pid::from_raw(provider.status().pid.unwrap().try_into().unwrap()).unwrap()
}

fn kill(provider: &WorkerProvider) {
    kill_process(pid(provider), Signal::KILL).unwrap();
}

/// Waits for what comes without our doing.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_crash_in_mid_batch_loses_the_session_and_no_item() {
    let provider = software();
    let old = key(&provider);
    let mut idle = provider.open_session().unwrap();
    let (Cause { reason, .. }, crashed) = lost(&provider, &old, CRASHES);
    assert!(reason.contains("SIGSEGV"), "{reason}");
    assert!(outcomes(&crashed).iter().all(Option::is_none));
    assert_eq!(provider.status().pid, None);
    assert!(idle.encrypt(&old, &mut batch(1, 10, &[])).is_err(), "every session went with the process");
    // The next one that needs it has it started, and finds its handles stale and the rest as it was.
    assert_eq!(seals(&provider, &old), [Some(Err(JobError::StaleHandle)); 10]);
    assert_eq!(provider.status().starts, 2);
    assert!(idle.encrypt(&old, &mut batch(1, 10, &[])).is_err());
    assert_eq!(seals(&provider, &key(&provider)), [Some(Ok(())); 10]);
    assert_eq!(provider.status().starts, 2);
}

#[test]
fn an_exit_a_panic_and_a_lost_token_lose_what_they_must() {
    let provider = software();
    let key = key(&provider);
    let mut bystander = provider.open_session().unwrap();
    let (_, panicked) = lost(&provider, &key, PANICS);
    assert!(outcomes(&panicked).iter().all(Option::is_none));
    let (Cause { reason, code }, gone) = lost(&provider, &key, LOSES);
    assert_eq!((&*reason, code.map(FailureCode::name)), ("the token is gone", Some("CKR_TOKEN_NOT_PRESENT")));
    assert_eq!(outcomes(&gone)[..5], [Some(Ok(())); 5], "what was done is done");
    assert!(outcomes(&gone)[5..].iter().all(Option::is_none));
    bystander.encrypt(&key, &mut batch(3, 10, &[])).unwrap();
    assert_eq!(provider.status().starts, 1, "the process was not touched");
    let (Cause { reason, code }, _) = lost(&provider, &key, EXITS);
    assert_eq!(code, None, "a process that ends returns none");
    assert!(reason.contains("exit status: 3"), "{reason}");
    assert!(bystander.encrypt(&key, &mut batch(3, 10, &[])).is_err());
    assert!(provider.open_session().is_ok());
    assert_eq!(provider.status().starts, 2);
}

#[test]
fn twenty_kills_are_twenty_starts_and_the_control_lane_goes_on() {
    let provider = software();
    let mut custody = provider.custody().unwrap();
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, None).unwrap();
    for start in 1..=20 {
        let handle = custody.load(&stored).unwrap();
        assert_eq!(seals(&provider, &handle), [Some(Ok(())); 10]);
        let mut session = provider.open_session().unwrap();
        std::thread::scope(|scope| {
            // In the middle of a call.
            let call = scope.spawn(|| session.encrypt(&handle, &mut batch(10, 100, &[(5, HANGS)])));
            kill(&provider);
            assert!(call.join().unwrap().is_err());
        });
        // Not a process of ours any more once it was waited for, so the lane starts another.
        eventually("it is dead", || provider.status().pid.is_none());
        custody.unload(handle).unwrap();
        assert_eq!(provider.status().starts, start);
        custody.canary().unwrap();
        assert_eq!(provider.status().starts, start + 1);
    }
}

#[test]
fn a_hung_call_loses_its_session_and_the_others_go_on_until_too_many_hang() {
    let provider =
        open(Config { call_timeout: Duration::from_millis(600), max_hung: 2, ..config(&["software"]) })
            .unwrap();
    let key = key(&provider);
    let first = provider.status().pid;
    let mut bystander = provider.open_session().unwrap();
    let (Cause { reason, .. }, hung) = lost(&provider, &key, HANGS);
    assert!(reason.contains("within 600 ms"), "{reason}");
    assert!(outcomes(&hung).iter().all(Option::is_none));
    bystander.encrypt(&key, &mut batch(3, 10, &[])).unwrap();
    let status = provider.status();
    assert_eq!((status.pid, status.hung, status.sessions), (first, 1, 1));
    lost(&provider, &key, HANGS);
    assert!(
        bystander
            .encrypt(&key, &mut batch(3, 10, &[]))
            .unwrap_err()
            .reason
            .contains("2 calls did not come back")
    );
    assert_eq!(provider.status().pid, None);
    assert!(provider.open_session().is_ok());
    assert_eq!(provider.status().starts, 2);
}

#[test]
fn where_the_only_session_hangs_the_worker_is_killed_at_once() {
    let provider =
        open(Config { call_timeout: Duration::from_millis(600), ..config(&["software"]) }).unwrap();
    let key = key(&provider);
    lost(&provider, &key, HANGS);
    let status = provider.status();
    assert_eq!((status.pid, status.starts), (None, 1));
    assert_eq!(status.last_end.as_deref(), Some("killed, since 1 calls did not come back"));
}

#[test]
fn a_call_that_comes_back_late_does_not_count_as_hung() {
    let provider =
        open(Config { call_timeout: Duration::from_millis(500), ..config(&["software"]) }).unwrap();
    let key = key(&provider);
    let bystander = provider.open_session().unwrap();
    lost(&provider, &key, IS_SLOW);
    assert_eq!(provider.status().hung, 1);
    eventually("it came back", || provider.status().hung == 0);
    drop(bystander);
    assert_eq!(provider.status().starts, 1);
}

#[test]
fn a_control_lane_that_hangs_has_the_worker_killed() {
    let provider =
        open(Config { control_timeout: Duration::from_millis(600), ..config(&["stuck"]) }).unwrap();
    let mut custody = provider.custody().unwrap();
    for start in 1..=2 {
        assert_eq!(provider.status().starts, start);
        assert!(matches!(custody.canary(), Err(ProviderError::Unavailable(_))));
        assert_eq!(provider.status().pid, None);
        custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, None).unwrap();
    }
}

#[test]
fn a_worker_that_does_not_come_up_says_why_and_is_gone() {
    let quick = |words: &[&str]| Config { start_timeout: Duration::from_secs(1), ..config(words) };
    for (config, why) in [
        (Config { args: vec!["babble".into()], ..quick(&["software"]) }, "garbled"),
        (quick(&["panics"]), "the worker panicked"),
        (quick(&["silent", "/"]), "no answer came in time"),
        (quick(&["dies"]), "SIGSEGV"),
        (quick(&["nonsense"]), "the setup is none"),
        (Config { program: "/nonexistent/worker".into(), ..quick(&["software"]) }, "does not start"),
        (Config { program: "/bin/true".into(), ..quick(&["software"]) }, "exit status: 0"),
    ] {
        let error = open(config).err().expect("it does not come up");
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.needs_operator());
    }
}

#[test]
fn nobody_waits_for_a_start_but_those_who_need_the_worker() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("silent");
    let provider = open(Config {
        start_timeout: Duration::from_secs(2),
        call_timeout: Duration::from_millis(500),
        ..config(&["silent", file.to_str().unwrap()])
    })
    .unwrap();
    fs::write(&file, "").unwrap();
    let key = key(&provider);
    let mut session = provider.open_session().unwrap();
    kill(&provider);
    eventually("it is dead", || provider.status().pid.is_none());
    std::thread::scope(|scope| {
        let starter = scope.spawn(|| provider.open_session().map(drop));
        eventually("it is being started", || provider.status().starts == 2);
        let begun = Instant::now();
        assert!(session.encrypt(&key, &mut batch(3, 10, &[])).is_err());
        assert!(begun.elapsed() < Duration::from_secs(1), "a lost session is told at once");
        let Err(ProviderError::Unavailable(Cause { reason: why, .. })) = provider.open_session().map(drop)
        else {
            panic!("it started")
        };
        assert_eq!(why, "the worker is being started");
        assert!(starter.join().unwrap().is_err());
    });
}

#[test]
fn a_worker_that_dies_young_is_not_started_in_a_tight_loop() {
    let hour = Duration::from_secs(3600);
    let provider = open(Config { first_backoff: hour, max_backoff: hour, ..config(&["software"]) }).unwrap();
    let key = key(&provider);
    lost(&provider, &key, CRASHES);
    for _ in 0..100 {
        let Err(ProviderError::Unavailable(Cause { reason: why, .. })) = provider.open_session().map(drop)
        else {
            panic!("it started")
        };
        assert!(why.contains("SIGSEGV") && why.contains("started again in"), "{why}");
        assert!(provider.custody().is_err());
    }
    assert_eq!(provider.status().starts, 1);
}

#[test]
fn a_refused_pin_is_tried_once_and_by_no_later_worker() {
    let directory = tempfile::tempdir().unwrap();
    let (tries, wrong) = (directory.path().join("tries"), directory.path().join("wrong"));
    let words = || ["pin", tries.to_str().unwrap(), wrong.to_str().unwrap()].map(str::to_owned);
    let setup = |words: [String; 3]| config(&[&words[0], &words[1], &words[2]]);
    let tried = || fs::read_to_string(&tries).unwrap().lines().count();
    let provider = open(setup(words())).unwrap();
    // The PIN is changed at the token while a worker runs.
    fs::write(&wrong, "").unwrap();
    for _ in 0..10 {
        let _killed = provider.status().pid.map(|_| kill(&provider));
        eventually("it is dead", || provider.status().pid.is_none());
        let Err(ProviderError::Unavailable(Cause { reason: why, .. })) = provider.open_session().map(drop)
        else {
            panic!("it opened")
        };
        assert!(why.contains("the PIN is wrong"), "{why}");
        assert!(provider.custody().is_err());
    }
    assert_eq!(tried(), 2);
    assert!(provider.status().needs_operator);
    // An operator opens it anew: one more try, which is told apart from other failures.
    assert!(open(setup(words())).err().unwrap().needs_operator());
    assert_eq!(tried(), 3);
    fs::remove_file(&wrong).unwrap();
    assert!(open(setup(words())).is_ok());
    assert!(provider.open_session().is_err(), "the old one is not asked to guess");
    assert_eq!(tried(), 4);
}

#[test]
fn a_pin_that_was_changed_is_the_one_that_later_workers_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (old, wrong, new) = (path("old"), path("wrong"), path("new"));
    let provider = open(config(&["pin", old.to_str().unwrap(), wrong.to_str().unwrap()])).unwrap();
    fs::write(&wrong, "").unwrap();
    provider.replace_setup(config(&["pin", new.to_str().unwrap(), path("right").to_str().unwrap()]).setup);
    kill(&provider);
    eventually("it is dead", || provider.status().pid.is_none());
    assert!(provider.open_session().is_ok());
    assert_eq!(fs::read_to_string(old).unwrap().lines().count(), 1, "the old one is not tried again");
    assert!(matches!(provider.ask(b"anything").err(), Some(ProviderError::Rejected(_))));
}

#[test]
fn what_opens_the_provider_is_in_neither_arguments_nor_environment() {
    let secret = tempfile::tempdir().unwrap();
    let (tries, wrong) = (secret.path().join("tries"), secret.path().join("wrong"));
    let words = ["pin", tries.to_str().unwrap(), wrong.to_str().unwrap()];
    let withheld = std::env::vars_os().next().expect("there are variables").0;
    let provider = open(Config { withheld_variables: vec![withheld.clone()], ..config(&words) }).unwrap();
    let of = |file: &str| fs::read(format!("/proc/{}/{file}", provider.status().pid.unwrap())).unwrap();
    let holds = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let (arguments, environment) = (of("cmdline"), of("environ"));
    assert!(!arguments.is_empty() && !environment.is_empty());
    for bytes in [&arguments, &environment] {
        assert!(!holds(bytes, secret.path().as_os_str().as_encoded_bytes()));
    }
    let named = [withheld.as_encoded_bytes(), b"="].concat();
    assert!(!environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&named)));
}

#[test]
fn a_worker_ends_with_its_parent_even_in_a_call_that_hangs() {
    let mut parent = Command::new(support::program()).arg("parent").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // A zombie is dead, too: whoever inherits it may take its time.
    let alive = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    };
    let worker = line.trim();
    assert!(alive(worker), "{worker:?}");
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("the worker ends", || !alive(worker));
}

#[test]
fn a_provider_that_is_dropped_leaves_no_process() {
    let provider = software();
    let (session, custody) = (provider.open_session().unwrap(), provider.custody().unwrap());
    let pid = provider.status().pid.unwrap();
    let begun = Instant::now();
    drop((session, custody, provider));
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(begun.elapsed() < Duration::from_millis(900), "it waited for nothing");
}

#[test]
fn handles_without_a_user_make_room_in_the_table() {
    let provider = open(Config { max_keys: 8, ..config(&["software"]) }).unwrap();
    let mut custody = provider.custody().unwrap();
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, None).unwrap();
    (0..100).for_each(|_| drop(custody.load(&stored).unwrap()));
    let held: Vec<_> = (0..8).map(|_| custody.load(&stored).unwrap()).collect();
    assert!(matches!(custody.load(&stored).err(), Some(ProviderError::Unavailable(_))));
    custody.unload(held[0].clone()).unwrap();
    assert_eq!(seals(&provider, &held[0]), [Some(Ok(())); 10], "a handle that has a user is used");
    drop(held);
    assert!(custody.load(&stored).is_ok());
}

#[test]
fn large_items_and_large_batches_go_over_in_parts() {
    let provider = software();
    let key = key(&provider);
    let mut session = provider.open_session().unwrap();
    let mut large = batch(3, 5_000_000, &[]);
    session.encrypt(&key, &mut large).unwrap();
    let mut many = batch(3000, 1024, &[]);
    let plain = many.buffer.clone();
    session.encrypt(&key, &mut many).unwrap();
    assert!(large.items.iter().chain(&many.items).all(|item| item.outcome == Some(Ok(()))));
    many.items.iter_mut().for_each(|item| item.outcome = None);
    session.decrypt(&key, &mut many).unwrap();
    assert!(many.items.iter().all(|item| many.buffer[item.text.clone()] == plain[item.text.clone()]));
    let mut huge = batch(2, 32 * 1024 * 1024, &[]);
    huge.items[0].text.end = huge.items[0].text.start + 10;
    session.encrypt(&key, &mut huge).unwrap();
    assert_eq!(outcomes(&huge), [Some(Ok(())), Some(Err(JobError::Rejected))], "no message carries it");
}

#[test]
fn places_of_sessions_are_free_when_they_are_dropped() {
    let provider = software();
    let sessions: Vec<_> = (0..64).map(|_| provider.open_session().unwrap()).collect();
    assert_eq!(provider.status().sessions, 64);
    drop(sessions);
    assert_eq!(provider.status().sessions, 0);
}
