//! Who may call the store, and who may share its prefix.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use keymill_core::seam::store::{Change, Revision, Store, StoreError};
use keymill_databases::Etcd;
use keymill_store_etcd::{Config, OpenError, open};

#[test]
fn threads_of_other_runtimes_may_call_and_drop_it() {
    let etcd = Etcd::start();
    for is_current in [true, false] {
        let runtime = match is_current {
            true => tokio::runtime::Builder::new_current_thread().enable_all().build(),
            false => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        };
        runtime.expect("a runtime").block_on(async {
            let store = opened(config(&etcd));
            let revision = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
            assert_eq!(value_at(&store, "key/a").as_deref(), Some(&b"1"[..]));
            let mut told = 0;
            let watched = store.watch(&path("key/"), Revision(0), &mut |change| match change {
                Change::Commit { .. } => {
                    told += 1;
                    true
                }
                Change::Current { .. } => false,
            });
            watched.expect("the watch ends");
            assert_eq!((told, store.revision().expect("it reads")), (1, revision));
            store.lease(&path("timer"), "node-1", Duration::from_secs(5)).expect("it is given");
            drop(store);
        });
    }
}

#[test]
fn more_callers_than_calls_at_once_are_all_served() {
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    std::thread::scope(|scope| {
        for thread in 0..100 {
            let store = &store;
            scope.spawn(move || {
                let at = format!("key/{thread}");
                store.commit(&[put(&at, None, b"1")]).expect("it commits");
                assert!(value_at(store, &at).is_some());
            });
        }
    });
    // Slots are lent again: there are as many as commits were under way at once, and they go with the process.
    let slots = || etcd.ctl(&["get", "--prefix", "--keys-only", "test-0/slot/"]).expect("etcdctl does it");
    let count = slots().lines().filter(|line| !line.is_empty()).count();
    assert!((1..=100).contains(&count), "{count}");
    for i in 0..50 {
        store.commit(&[put(&format!("more/{i}"), None, b"")]).expect("it commits");
    }
    assert_eq!(slots().lines().filter(|line| !line.is_empty()).count(), count);
    drop(store);
    assert_eq!(slots().trim(), "");
}

#[test]
fn slots_whose_lease_is_gone_are_made_anew() {
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    let mut last = store.commit(&[put("key/a", None, b"0")]).expect("it commits");
    for i in 0..3 {
        // As after a pause of more than an hour.
        let leases = etcd.ctl(&["lease", "list"]).expect("etcdctl does it");
        let leases: Vec<_> = leases.lines().filter(|line| !line.contains("found")).collect();
        assert_eq!(leases.len(), 1, "{leases:?}");
        etcd.ctl(&["lease", "revoke", leases[0].trim()]).expect("etcdctl does it");
        last = store.commit(&[put("key/a", Some(last), &[i])]).expect("it commits");
    }
}

#[test]
fn several_stores_under_one_prefix_are_one_store() {
    let etcd = Etcd::start();
    let shared = config(&etcd);
    let (one, other) = (opened(again(&shared)), opened(again(&shared)));
    let elsewhere = opened(config(&etcd));
    let first = one.commit(&[put("key/a", None, b"1")]).expect("it commits");
    assert_eq!(other.get(&path("key/a")).expect("it reads").map(|entry| entry.revision), Some(first));
    assert_eq!(other.revision().expect("it reads"), first);
    assert_eq!(elsewhere.revision().expect("it reads"), Revision(0));
    let second = other.commit(&[put("key/a", Some(first), b"2")]).expect("it commits");
    let conflict = one.commit(&[put("key/a", Some(first), b"3")]);
    assert!(matches!(conflict, Err(StoreError::Conflict(at)) if at.as_str() == "key/a"));
    drop(one);
    assert_eq!(other.revision().expect("it reads"), second);
    other.commit(&[put("key/a", Some(second), b"4")]).expect("the end of one is not that of another");
}

#[test]
fn closing_ends_watches_and_writes_but_not_reads() {
    let etcd = Etcd::start();
    let store = Arc::new(opened(config(&etcd)));
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let (told, watching) = watched(store.clone(), "key/", first);
    assert_eq!(told.recv_timeout(PATIENCE).expect("it is current"), Heard::Current);
    store.close();
    watching.join().expect("the watch ends").expect("without an error");
    assert!(matches!(store.commit(&[put("key/b", None, b"2")]), Err(StoreError::Unavailable(_))));
    assert!(store.lease(&path("timer"), "node-1", Duration::from_secs(1)).is_err());
    assert!(value_at(&*store, "key/a").is_some());
}

#[test]
fn what_is_not_ours_or_not_there_does_not_open() {
    let etcd = Etcd::start();
    let ours = config(&etcd);
    etcd.ctl(&["put", &format!("{}/format", ours.prefix), "2"]).expect("etcdctl does it");
    let error = open(ours).expect_err("it is refused");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

    // Nobody listens there: said in time.
    let began = Instant::now();
    let timeout = Duration::from_secs(1);
    let error = open(Config { timeout, ..Config::new(["http://127.0.0.1:1"]) }).expect_err("it is refused");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[test]
fn a_holder_that_was_paused_finds_its_lease_gone_and_a_greater_fence() {
    let etcd = Etcd::start();
    let shared = config(&etcd);
    let (one, other) = (opened(again(&shared)), opened(again(&shared)));
    let (name, short) = (path("timer"), Duration::from_secs(1));
    let held = one.lease(&name, "node-1", short).expect("it is given").expect("it is free");
    // Not less than it was asked for, by the cluster's clock.
    let began = Instant::now();
    let next = loop {
        if let Some(next) = other.lease(&name, "node-2", short).expect("it is asked for") {
            break next;
        }
        assert!(began.elapsed() < PATIENCE, "it runs out");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(began.elapsed() + Duration::from_millis(100) >= short, "after {:?}", began.elapsed());
    assert!(next.fence > held.fence);
    assert_eq!(one.lease(&name, "node-1", short).expect("it is asked for"), None);
    // Another time for the same holder is the same lease, and a long one outlasts the short.
    let long = Duration::from_secs(600);
    assert_eq!(other.lease(&name, "node-2", long).expect("it is renewed"), Some(next));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(one.lease(&name, "node-1", short).expect("it is asked for"), None);
    assert_eq!(other.lease(&name, "node-2", long).expect("it is renewed"), Some(next));
}
