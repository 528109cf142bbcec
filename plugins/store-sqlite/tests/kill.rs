//! `kill -9` at random moments: no acknowledged commit is lost, none is there by half. The test starts itself again as the
//! process that is killed.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write as _, stdout};
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use keymill_core::seam::store::{Path, Store, Write};
use keymill_store_sqlite::{Config, OpenError, open};

const DIRECTORY: &str = "TEST_STORE_DIRECTORY";
const ROUNDS: &str = "TEST_KILL_ROUNDS";

fn path(text: &str) -> Path {
    Path::new(text).expect("the test names paths")
}

fn number(store: &dyn Store, at: &str) -> Option<u64> {
    let entry = store.get(&path(at)).expect("the store reads")?;
    Some(u64::from_le_bytes(entry.value.try_into().expect("it has 8 bytes")))
}

/// The process that is killed: it counts on, and says what was acknowledged. Without its variable it is no test.
#[test]
fn role_of_the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = open(Config::new(directory)).expect("the store opens after every kill");
    let mut head = store.get(&path("head")).expect("the store reads");
    let mut count =
        head.take().map_or(0, |entry| u64::from_le_bytes(entry.value.try_into().expect("it has 8 bytes")));
    let mut revision = store.get(&path("head")).expect("the store reads").map(|entry| entry.revision);
    loop {
        count += 1;
        let value = count.to_le_bytes().to_vec();
        let mut writes = vec![
            Write { path: path("head"), expected: revision, value: Some(value.clone()) },
            Write { path: path(&format!("log/{count:08}")), expected: None, value: Some(value) },
        ];
        // The record of ten counts ago goes, so that the log is cleaned under fire too.
        if let Some(old) = count.checked_sub(10).map(|old| path(&format!("log/{old:08}")))
            && let Some(entry) = store.get(&old).expect("the store reads")
        {
            writes.push(Write { path: old, expected: Some(entry.revision), value: None });
        }
        revision = Some(store.commit(&writes).expect("nobody else writes"));
        writeln!(stdout(), "acknowledged {count}").expect("the parent reads");
    }
}

fn start(directory: &FilePath) -> Child {
    Command::new(std::env::current_exe().expect("the test is a file"))
        .args(["--exact", "role_of_the_process_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test starts itself")
}

fn random(below: u64) -> u64 {
    RandomState::new().hash_one(below) % below
}

/// Lets the child work for a while, kills it, and returns the last count that it acknowledged.
fn work_and_kill(directory: &FilePath) -> u64 {
    let mut child = start(directory);
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut counts = lines
        .map_while(Result::ok)
        .filter_map(|line| line.split_once("acknowledged ")?.1.trim().parse::<u64>().ok());
    let first = counts.next().expect("the child acknowledges before it is killed");
    let refused = open(Config::new(directory)).expect_err("the child has the directory");
    assert!(matches!(&refused, OpenError::InUse { pid, .. } if *pid == Some(child.id())), "{refused}");

    let wanted = usize::try_from(random(40)).expect("it is small");
    let some = counts.by_ref().take(wanted).last();
    thread::sleep(Duration::from_micros(random(5000)));
    child.kill().expect("the child is ours");
    let last = counts.last().or(some).unwrap_or(first);
    child.wait().expect("the child is ours");
    last
}

#[test]
fn no_acknowledged_commit_is_lost_to_kill_9() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rounds = std::env::var(ROUNDS).map_or(8, |text| text.parse().expect("a number of rounds"));
    for round in 0..rounds {
        let acknowledged = work_and_kill(directory.path());
        let store = open(Config::new(directory.path())).expect("the lock went with the process");
        let head = number(&store, "head").expect("it was acknowledged");
        // The commit under way may have become durable before its answer.
        assert!(
            head == acknowledged || head == acknowledged + 1,
            "round {round}: {acknowledged} were acknowledged, the store has {head}"
        );
        for count in 1..=head + 1 {
            let expected = (head.saturating_sub(10) < count && count <= head).then_some(count);
            assert_eq!(number(&store, &format!("log/{count:08}")), expected, "round {round}, head {head}");
        }
    }
}
