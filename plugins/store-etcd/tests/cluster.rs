//! A cluster of three under fire: its leader is killed or stopped while commits go on, and most of it goes away.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use keymill_core::seam::store::{Change, Page, Revision, Store, StoreError};
use keymill_databases::{Etcd, EtcdOptions};
use keymill_store_etcd::{Config, EtcdStore};

fn three() -> Etcd {
    Etcd::start_with(EtcdOptions { members: 3, ..EtcdOptions::default() })
}

/// What a writer knows after its end.
struct Written {
    /// What was acknowledged: number and revision.
    acknowledged: Vec<(u64, Revision)>,
    /// What was refused, and how.
    failed: Vec<(u64, StoreError)>,
}

/// Creates numbered records, and counts them in another, until it is told to end. A failed commit is not repeated.
fn write(store: &EtcdStore, writer: usize, is_over: &AtomicBool) -> Written {
    let counter = format!("counter/{writer}");
    let mut written = Written { acknowledged: Vec::new(), failed: Vec::new() };
    let mut number = 0;
    let mut last = None;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let writes = [
            put(&counter, last, &u64::to_le_bytes(number)),
            put(&format!("log/{writer}-{number:06}"), None, b""),
        ];
        match store.commit(&writes) {
            Ok(revision) => {
                last = Some(revision);
                written.acknowledged.push((number, revision));
            }
            Err(error) => {
                written.failed.push((number, error));
                // Whether it was made is read, as a caller would.
                last = loop {
                    if let Ok(entry) = store.get(&path(&counter)) {
                        break entry.map(|entry| entry.revision);
                    }
                };
            }
        }
    }
    written
}

fn numbers(store: &EtcdStore) -> Vec<(String, Revision)> {
    let listed = store.list(&path("log/"), Page { after: None, limit: usize::MAX }).expect("it lists");
    listed.into_iter().map(|entry| (entry.path.to_string(), entry.revision)).collect()
}

/// Checks that what was acknowledged is there as it was said, and nothing that nobody asked for.
fn check(store: &EtcdStore, written: &[Written]) {
    let there: BTreeMap<_, _> = numbers(store).into_iter().collect();
    let mut known = BTreeSet::new();
    for (writer, written) in written.iter().enumerate() {
        for (number, revision) in &written.acknowledged {
            let at = format!("log/{writer}-{number:06}");
            assert_eq!(there.get(&at), Some(revision), "{at} was acknowledged");
            known.insert(at);
        }
        for (number, error) in &written.failed {
            let at = format!("log/{writer}-{number:06}");
            let is_unknown = error.to_string().contains("not known");
            assert!(!there.contains_key(&at) || is_unknown, "{at} is there, though it failed: {error}");
            known.insert(at);
        }
    }
    assert!(there.keys().all(|at| known.contains(at)));
}

#[test]
fn no_acknowledged_commit_is_lost_or_made_twice_when_leaders_are_killed() {
    let mut etcd = three();
    let store = Arc::new(opened(config(&etcd)));
    let (told, watching) = watched(store.clone(), "log/", Revision(0));
    let is_over = AtomicBool::new(false);
    let written: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (store, is_over) = (&store, &is_over);
                scope.spawn(move || write(store, writer, is_over))
            })
            .collect();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_secs(1));
            let leader = etcd.leader();
            etcd.kill(leader);
            std::thread::sleep(Duration::from_secs(2));
            etcd.start_again(leader);
        }
        std::thread::sleep(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it ends")).collect()
    });
    let (all, failed): (Vec<_>, Vec<_>) =
        written.iter().map(|written| (written.acknowledged.len(), &written.failed)).unzip();
    println!("acknowledged: {all:?}, failed: {failed:?}");
    assert!(all.iter().sum::<usize>() > 100, "{all:?}");
    check(&store, &written);

    // The watch went from member to member, and left nothing out, nor told anything twice.
    let newest = store.revision().expect("it reads");
    let there = numbers(&store);
    let mut heard = Vec::new();
    let until = Instant::now() + PATIENCE;
    while heard.len() < there.len() {
        let left = until.saturating_duration_since(Instant::now());
        match told.recv_timeout(left).expect("the watch goes on") {
            Heard::Wrote(path, _, revision) => heard.push((path, revision)),
            Heard::Current => {}
        }
    }
    assert!(heard.is_sorted_by_key(|(_, revision)| *revision));
    assert!(heard.iter().all(|(_, revision)| *revision <= newest));
    heard.sort();
    assert_eq!(heard, there);
    store.close();
    drop(told);
    watching.join().expect("the watch ends").expect("without an error");
}

#[test]
fn a_leader_that_stands_still_is_left_for_the_others() {
    let etcd = three();
    let store = opened(config(&etcd));
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let leader = etcd.leader();
    etcd.pause(leader, true);
    // Whichever member is asked first: the election takes a second or two.
    let began = Instant::now();
    let mut done = None;
    while done.is_none() && began.elapsed() < PATIENCE {
        done = match store.commit(&[put("key/a", Some(first), b"2")]) {
            Ok(revision) => Some(revision),
            Err(StoreError::Unavailable(_)) => None,
            // A try that was said to be of unknown outcome was made.
            Err(StoreError::Conflict(_)) => {
                store.get(&path("key/a")).expect("it reads").map(|at| at.revision)
            }
            Err(other) => panic!("it is unavailable for a while, not {other}"),
        };
    }
    println!("another leads after {:?}", began.elapsed());
    assert_eq!(value_at(&store, "key/a").as_deref(), Some(&b"2"[..]));
    etcd.pause(leader, false);
    store.commit(&[put("key/a", done, b"3")]).expect("it commits");
    assert_eq!(value_at(&store, "key/a").as_deref(), Some(&b"3"[..]));
}

#[test]
fn without_most_of_its_members_everything_is_unavailable_in_time_and_comes_back() {
    let mut etcd = three();
    let timeout = Duration::from_secs(2);
    let store = Arc::new(opened(Config { timeout, ..config(&etcd) }));
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let (told, watching) = watched(store.clone(), "key/", first);
    assert_eq!(told.recv_timeout(PATIENCE).expect("it is current"), Heard::Current);
    etcd.kill(0);
    etcd.kill(1);
    let within = |what: &str, call: &dyn Fn() -> Result<(), StoreError>| {
        let began = Instant::now();
        let result = call();
        let took = began.elapsed();
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{what}: {result:?}");
        // Time for a busy machine.
        assert!(took < timeout + Duration::from_secs(2), "{what} took {took:?}");
    };
    within("a read", &|| store.get(&path("key/a")).map(drop));
    within("a list", &|| store.list(&path("key/"), Page { after: None, limit: 9 }).map(drop));
    within("a scan", &|| store.scan(&mut |_| true));
    within("a commit", &|| store.commit(&[put("key/b", None, b"1")]).map(drop));
    within("a lease", &|| store.lease(&path("timer"), "node-1", Duration::from_secs(60)).map(drop));
    within("the revision", &|| store.revision().map(drop));
    // A watch does not say that it is current, and ends instead.
    let ended = watching.join().expect("the watch ends");
    assert!(matches!(ended, Err(StoreError::Unavailable(_))), "{ended:?}");

    etcd.start_again(0);
    let until = Instant::now() + PATIENCE;
    while store.get(&path("key/a")).is_err() {
        assert!(Instant::now() < until, "it comes back");
    }
    let made = value_at(&*store, "key/b");
    store.commit(&[put("key/c", None, b"1")]).expect("it commits");
    // What was of unknown outcome then stays as it was found after a commit.
    assert_eq!(value_at(&*store, "key/b"), made);
    etcd.start_again(1);
}

#[test]
fn a_member_that_is_cut_off_makes_no_view_current() {
    let etcd = three();
    let store = Arc::new(opened(config(&etcd)));
    let last = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let (tell, told) = std::sync::mpsc::channel();
    let watcher = store.clone();
    let watching = std::thread::spawn(move || {
        watcher.watch(&path("key/"), last, &mut |change| match change {
            Change::Current { as_of } => tell.send(as_of).is_ok(),
            Change::Commit { .. } => true,
        })
    });
    told.recv_timeout(PATIENCE).expect("it is current");
    // The watch hangs on the first one, which hears nothing from the others.
    etcd.pause(1, true);
    etcd.pause(2, true);
    let cut_off = Instant::now();
    while let Some(left) = Duration::from_secs(2).checked_sub(cut_off.elapsed()) {
        if let Ok(as_of) = told.recv_timeout(left) {
            assert!(as_of < cut_off, "nobody can know that");
        }
    }
    let over = Instant::now();
    etcd.pause(1, false);
    etcd.pause(2, false);
    while told.recv_timeout(PATIENCE).expect("it is current again") < over {}
    drop(told);
    watching.join().expect("the watch ends").expect("without an error");
}
