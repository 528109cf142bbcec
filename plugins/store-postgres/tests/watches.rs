//! Watches on a real server: told in order and soon, woken by others, and too late.
#![allow(clippy::unwrap_used, reason = "tests")]

mod scene;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Change, Revision, Store, StoreError};
use keymill_databases::Database;
use keymill_store_postgres::{Config, PostgresStore, open};
use scene::{Between, HAS_NO_LISTEN, at, fresh, fresh_schema, path, put, removal, shared_server};

#[test]
fn watches_see_the_commits_of_all_nodes_once_and_in_order() {
    const NODES: usize = 4;
    const EACH: usize = 40;
    let postgres = shared_server();
    let schema = fresh_schema();
    let stores: Vec<_> = (0..NODES).map(|_| open(at(postgres.port(), &schema)).unwrap()).collect();
    let watched = |store: &PostgresStore| {
        let mut seen: Vec<(Revision, String)> = Vec::new();
        let result = store.watch(&path("key/"), Revision(0), &mut |change| {
            if let Change::Commit { revision, writes } = change {
                assert_eq!(writes.len(), 2, "a commit comes whole");
                seen.extend(writes.iter().map(|write| (revision, write.path.to_string())));
            }
            seen.len() < NODES * EACH * 2
        });
        result.map(|()| seen)
    };
    thread::scope(|scope| {
        let watches: Vec<_> = stores[..2].iter().map(|store| scope.spawn(move || watched(store))).collect();
        let committers: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(node, store)| {
                scope.spawn(move || {
                    (0..EACH)
                        .map(|i| {
                            let two = ["a", "b"].map(|end| put(&format!("key/{node}-{i}{end}"), None, b""));
                            (store.commit(&two).unwrap(), format!("key/{node}-{i}"))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut committed: Vec<_> =
            committers.into_iter().flat_map(|committer| committer.join().unwrap()).collect();
        committed.sort();
        let all: Vec<_> = committed
            .into_iter()
            .flat_map(|(revision, at)| ["a", "b"].map(|end| (revision, format!("{at}{end}"))))
            .collect();
        for watch in watches {
            assert!(watch.join().unwrap().unwrap() == all, "each once, in the order of the revisions");
        }
    });
}

/// Commits on one node as soon as a watch on another has nothing to tell, and returns how long each took to be told.
fn delays(writer: &PostgresStore, watcher: &PostgresStore, commits: usize) -> Vec<Duration> {
    let (idle, is_idle) = mpsc::channel();
    let (seen, is_seen) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut left = commits;
            let watched = watcher.watch(&path("key/"), Revision(0), &mut |change| {
                match change {
                    Change::Current { .. } => drop(idle.send(())),
                    Change::Commit { .. } => {
                        left -= 1;
                        seen.send(Instant::now()).unwrap();
                    }
                }
                left > 0
            });
            watched.unwrap();
        });
        (0..commits)
            .map(|i| {
                while is_idle.try_recv().is_ok() {}
                is_idle.recv().unwrap();
                writer.commit(&[put(&format!("key/{i}"), None, b"")]).unwrap();
                // On a busy disk the commit itself takes longer than its word of it.
                let began = Instant::now();
                is_seen.recv().unwrap().saturating_duration_since(began)
            })
            .collect()
    })
}

#[test]
fn a_watch_is_woken_by_the_commit_of_another_node() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let node = || open(Config { poll: Duration::from_millis(900), ..at(postgres.port(), &schema) }).unwrap();
    let delays = delays(&node(), &node(), 8);
    // A third of the time after which it asks by itself: the word of a commit is synced to the disk, too.
    assert!(delays.iter().any(|delay| *delay < Duration::from_millis(300)), "{delays:?}");
}

#[test]
fn watches_ask_where_nothing_notifies() {
    let postgres = shared_server();
    // A server that does not know LISTEN, and a store that was told not to.
    let between = Between::start(postgres.port());
    between.set(HAS_NO_LISTEN);
    for (port, notify) in [(between.port, true), (postgres.port(), false)] {
        let schema = fresh_schema();
        let watcher = open(Config { notify, ..at(port, &schema) }).unwrap();
        let writer = open(at(postgres.port(), &schema)).unwrap();
        let delays = delays(&writer, &watcher, 5);
        assert!(delays.iter().all(|delay| *delay < Duration::from_secs(5)), "{delays:?}");
    }
    assert_eq!(between.losses(), 1, "LISTEN is not tried again and again");
}

#[test]
fn a_commit_does_not_hang_on_notifications() {
    let postgres = scene::server();
    postgres.sql("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC");
    let (store, _) = fresh(&postgres);
    for i in 0..5 {
        store.commit(&[put(&format!("key/{i}"), None, b"")]).unwrap();
    }
    assert_eq!(store.revision().unwrap(), Revision(5));
}

#[test]
fn a_watch_that_slept_over_too_much_is_told_to_list_again() {
    let postgres = shared_server();
    let schema = fresh_schema();
    let node = || open(Config { kept_removals: 8, ..at(postgres.port(), &schema) }).unwrap();
    let (sleeper, writer) = (node(), node());
    let first = writer.commit(&[put("key/a", None, b"1")]).unwrap();
    let mut woken = 0;
    let watched = sleeper.watch(&path("key/"), Revision(0), &mut |change| {
        // It is told of the first record and then that it is current, and sleeps at that.
        if matches!(change, Change::Current { .. }) {
            woken += 1;
            for i in 0..20 {
                let at = format!("key/{i}");
                let revision = writer.commit(&[put(&at, None, b"")]).unwrap();
                writer.commit(&[removal(&at, revision)]).unwrap();
            }
        }
        true
    });
    assert!(matches!(watched, Err(StoreError::Compacted)), "{watched:?}");
    assert_eq!(woken, 1);
    let old = sleeper.watch(&path("key/"), first, &mut |_| false);
    assert!(matches!(old, Err(StoreError::Compacted)), "{old:?}");
    let kept: u32 = postgres.sql(&format!("SELECT count(*) FROM {schema}.removals")).parse().unwrap();
    assert!(kept <= 8, "{kept}");
}
