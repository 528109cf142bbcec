//! Answers that are lost, a server that is killed under commits, and one that takes no writes any more: what was acknowledged is there once,
//! and what was not is there once or not at all.
#![allow(clippy::unwrap_used, reason = "tests")]

mod scene;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Change, Page, Revision, Store, StoreError};
use keymill_databases::Database;
use keymill_store_postgres::{Config, PostgresStore, open};
use scene::{Between, LOSES_ANSWER, LOSES_COMMIT, at, fresh_schema, path, put, server, shared_server};

#[test]
fn a_commit_whose_answer_was_lost_is_found_and_not_made_twice() {
    let postgres = shared_server();
    let between = Between::start(postgres.port());
    let store = open(at(between.port, &fresh_schema())).unwrap();
    let mut head = None;
    for i in 0..40_u8 {
        // Every other one is lost: before it arrives, and behind it.
        between.set([scene::PASSES, LOSES_ANSWER, scene::PASSES, LOSES_COMMIT][usize::from(i % 4)]);
        let writes = [put("head", head, &[i]), put(&format!("log/{i:02}"), None, &[i])];
        let revision = store.commit(&writes).unwrap();
        assert_eq!(revision, Revision(u64::from(i) + 1), "each is made once");
        let entry = store.get(&path("head")).unwrap().unwrap();
        assert_eq!((entry.value, entry.revision), (vec![i], revision));
        head = Some(revision);
    }
    assert_eq!(between.losses(), 20);
    assert_eq!(store.list(&path("log/"), Page { after: None, limit: 100 }).unwrap().len(), 40);
}

#[test]
fn a_conflict_is_not_taken_for_a_lost_commit() {
    let postgres = shared_server();
    let between = Between::start(postgres.port());
    let schema = fresh_schema();
    let store = open(at(between.port, &schema)).unwrap();
    let other = open(at(postgres.port(), &schema)).unwrap();
    let first = store.commit(&[put("key/a", None, b"1")]).unwrap();
    between.set(LOSES_COMMIT);
    thread::scope(|scope| {
        let committing = scope.spawn(|| store.commit(&[put("key/a", Some(first), b"ours")]));
        let theirs = other.commit(&[put("key/a", Some(first), b"theirs")]);
        let ours = committing.join().unwrap();
        assert!(ours.is_ok() != theirs.is_ok(), "{ours:?} {theirs:?}");
        let winner: &[u8] = if ours.is_ok() { b"ours" } else { b"theirs" };
        assert_eq!(other.get(&path("key/a")).unwrap().unwrap().value, winner);
    });
}

#[test]
fn a_lease_whose_answer_was_lost_is_the_holder_s() {
    let postgres = shared_server();
    let between = Between::start(postgres.port());
    let store = open(at(between.port, &fresh_schema())).unwrap();
    for mode in [LOSES_ANSWER, LOSES_COMMIT] {
        between.set(mode);
        let name = path(&format!("lease/{mode}"));
        let lease = store.lease(&name, "node-1", Duration::from_secs(600)).unwrap().unwrap();
        assert_eq!(store.lease(&name, "node-1", Duration::from_secs(600)).unwrap(), Some(lease));
    }
    assert_eq!(between.losses(), 2);
}

/// Counts on until it is told to stop; returns the last count that was acknowledged, and how many commits failed.
fn count_on(store: &PostgresStore, is_over: &AtomicBool) -> (u64, u64) {
    let read = || loop {
        match store.get(&path("head")) {
            Ok(entry) => break entry,
            Err(StoreError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    let (mut count, mut revision, mut failures) = (0_u64, None, 0);
    while !is_over.load(Ordering::SeqCst) {
        let next = count + 1;
        let bytes = next.to_le_bytes();
        match store.commit(&[put("head", revision, &bytes), put(&format!("log/{next:06}"), None, &bytes)]) {
            Ok(done) => (count, revision) = (next, Some(done)),
            Err(StoreError::Unavailable(_)) => {
                failures += 1;
                let entry = read();
                let found = entry
                    .as_ref()
                    .map_or(0, |entry| u64::from_le_bytes(entry.value.as_slice().try_into().unwrap()));
                assert!(found == count || found == next, "{count} were acknowledged, {found} are there");
                (count, revision) = (found, entry.map(|entry| entry.revision));
            }
            Err(other) => panic!("nobody else writes, and this is no time for {other}"),
        }
    }
    (count, failures)
}

#[test]
fn no_acknowledged_commit_is_lost_or_doubled_when_the_server_is_killed() {
    let mut postgres = server();
    let schema = fresh_schema();
    let store = open(Config { timeout: Duration::from_secs(5), ..at(postgres.port(), &schema) }).unwrap();
    let watcher = open(Config { timeout: Duration::from_secs(5), ..at(postgres.port(), &schema) }).unwrap();
    let (is_over, is_counted) = (AtomicBool::new(false), AtomicBool::new(false));
    let (count, seen) = thread::scope(|scope| {
        let counting = scope.spawn(|| count_on(&store, &is_over));
        // A watch over all of it, which goes on where it was when the server is back.
        let watching = scope.spawn(|| {
            let (mut seen, mut last, mut is_done) = (Vec::new(), Revision(0), false);
            while !is_done {
                let watched = watcher.watch(&path("log/"), last, &mut |change| match change {
                    Change::Commit { revision, writes } => {
                        seen.extend(writes.iter().map(|write| write.path.to_string()));
                        last = revision;
                        true
                    }
                    Change::Current { .. } => {
                        is_done = is_counted.load(Ordering::SeqCst) && counting_is_over(&watcher, &seen);
                        !is_done
                    }
                });
                assert!(matches!(watched, Ok(()) | Err(StoreError::Unavailable(_))), "{watched:?}");
            }
            seen
        });
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(400));
            postgres.kill();
            postgres.start_again();
        }
        thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::SeqCst);
        let (count, failures) = counting.join().unwrap();
        // Not before: the last commit was under way when it was told to stop.
        is_counted.store(true, Ordering::SeqCst);
        eprintln!("{count} commits over 5 kills, {failures} of them not answered in time");
        (count, watching.join().unwrap())
    });
    let names: Vec<_> = (1..=count).map(|i| format!("log/{i:06}")).collect();
    assert!(count > 5 && seen == names, "{count} counted, {} seen", seen.len());
    let listed = store.list(&path("log/"), Page { after: None, limit: usize::MAX }).unwrap();
    assert!(listed.iter().map(|entry| entry.path.as_str()).eq(names.iter()));
    // One revision each: none was made twice.
    assert_eq!(store.revision().unwrap(), Revision(count));

    takes_no_writes_for_a_while(&postgres, &store, count);
}

/// Whether all that is there was seen.
fn counting_is_over(store: &PostgresStore, seen: &[String]) -> bool {
    let last = store.get(&path("head")).ok().flatten();
    last.is_some_and(|entry| u64::from_le_bytes(entry.value.try_into().unwrap()) == seen.len() as u64)
}

/// A server that another took the place of, as far as it can be told from outside: it takes no writes.
fn takes_no_writes_for_a_while(postgres: &keymill_databases::Postgres, store: &PostgresStore, count: u64) {
    postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    postgres.sql("SELECT pg_reload_conf()");
    let began = Instant::now();
    // Sessions hear of it with their next statement or the one after it.
    let refused = loop {
        match store.commit(&[put("key/x", None, b"")]) {
            Err(error) => break error,
            Ok(revision) => {
                store.commit(&[scene::removal("key/x", revision)]).map(drop).unwrap_or_default();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let watched = store.watch(&path("key/"), Revision(count), &mut |_| true);
    assert!(matches!(watched, Err(StoreError::Unavailable(_))), "{watched:?}");
    postgres.sql("ALTER SYSTEM RESET default_transaction_read_only");
    postgres.sql("SELECT pg_reload_conf()");
    let began = Instant::now();
    while store.commit(&[put("key/y", None, b"")]).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
