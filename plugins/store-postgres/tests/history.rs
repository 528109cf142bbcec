//! A server that lost what it had acknowledged is told from the one that had it, by whatever asks first, and one that a kept connection leads to
//! after another took its place is told from both.
#![allow(clippy::unwrap_used, reason = "tests")]

mod scene;

use std::time::Duration;

use keymill_core::seam::store::{Change, Lease, Revision, Store, StoreError};
use keymill_databases::{Database, Postgres};
use keymill_store_postgres::{PostgresStore, open};
use scene::{Between, at, fresh, fresh_schema, path, put, server, shared_server};

fn is_other<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::OtherHistory(_)))
}

/// Has a server take over that had the first commit alone, and gives the numbers of all others anew; returns a store there.
fn take_over(postgres: &Postgres, schema: &str, lost: Revision) -> PostgresStore {
    for statement in ["UPDATE {}.state SET revision = 1", "DELETE FROM {}.commits WHERE revision > 1"] {
        postgres.sql(&statement.replace("{}", schema));
    }
    postgres.sql(&format!("UPDATE {schema}.records SET value = '1', revision = 1, position = 0"));
    let other = open(at(postgres.port(), schema)).unwrap();
    for n in 2..=lost.0 + 5 {
        let made = other.commit(&[put(&format!("key/of-others/{n}"), None, b"")]).unwrap();
        assert_eq!(made, Revision(n));
    }
    other
}

#[test]
fn a_watch_notices_another_history() {
    type Statement = fn(&str) -> String;
    let postgres = shared_server();
    let others: [Statement; 2] = [
        // A server took over that had not the last commit, and made another in its place.
        |schema| format!("UPDATE {schema}.commits SET id = '\\x00'"),
        |schema| format!("UPDATE {schema}.state SET revision = 0"),
    ];
    for other in others {
        let (store, schema) = fresh(&postgres);
        store.commit(&[put("key/a", None, b"1")]).unwrap();
        let mut idle = 0;
        let watched = store.watch(&path("key/"), Revision(1), &mut |_| {
            idle += 1;
            if idle == 1 {
                postgres.sql(&other(&schema));
            }
            idle < 5
        });
        assert!(is_other(&watched), "{watched:?}");
    }
    let (store, _) = fresh(&postgres);
    for from in [1, u64::MAX] {
        let watched = store.watch(&path("key/"), Revision(from), &mut |_| false);
        assert!(matches!(watched, Err(StoreError::Compacted)), "{from}");
    }
}

#[test]
fn a_watch_notices_that_a_commit_which_it_told_of_was_replaced_though_a_later_one_stands() {
    let postgres = shared_server();
    let (store, schema) = fresh(&postgres);
    store.commit(&[put("key/a", None, b"1")]).unwrap();
    let mut is_told = false;
    let watched = store.watch(&path("key/"), Revision(0), &mut |change| {
        if !is_told && matches!(change, Change::Current { .. }) {
            is_told = true;
            store.commit(&[put("key/b", None, b"1")]).unwrap();
            postgres.sql(&format!("UPDATE {schema}.commits SET id = '\\x00' WHERE revision = 1"));
        }
        true
    });
    assert!(is_other(&watched), "{watched:?}");
}

#[test]
fn nothing_but_the_alarm_is_written_to_another_history_however_far_that_went() {
    let postgres = shared_server();
    let (store, schema) = fresh(&postgres);
    let first = store.commit(&[put("key/a", None, b"1")]).unwrap();
    let second = store.commit(&[put("key/a", Some(first), b"2")]).unwrap();
    let other = take_over(&postgres, &schema, second);
    let written = store.commit(&[put("key/a", Some(first), b"4")]);
    assert!(is_other(&written), "{written:?}");
    assert_eq!(other.get(&path("key/a")).unwrap().unwrap().value, b"1");
    let watched = store.watch(&path("key/"), second, &mut |_| true);
    assert!(is_other(&watched), "{watched:?}");
    store.commit(&[put("history", None, b"lost")]).unwrap();
    let written = store.commit(&[put("key/b", None, b"")]);
    assert!(is_other(&written), "it is found out once and for all");
}

/// Who asks for the newest commit, or takes a lease, sees a commit of the other history as well: it is not taken for the newest of this one.
#[test]
fn another_history_is_noticed_by_who_asks_how_far_it_is_and_by_who_takes_a_lease() {
    type Ask = fn(&PostgresStore) -> Result<(), StoreError>;
    let lease = |store: &PostgresStore| -> Result<Option<Lease>, StoreError> {
        store.lease(&path("timers"), "node", Duration::from_secs(60))
    };
    let postgres = shared_server();
    let asked: [Ask; 2] = [
        |store| store.revision().map(drop),
        |store| store.lease(&path("timers"), "node", Duration::from_secs(60)).map(drop),
    ];
    for ask in asked {
        let (store, schema) = fresh(&postgres);
        let first = store.commit(&[put("key/a", None, b"1")]).unwrap();
        let second = store.commit(&[put("key/a", Some(first), b"2")]).unwrap();
        let other = take_over(&postgres, &schema, second);
        let before = other.revision().unwrap();
        let answer = ask(&store);
        assert!(is_other(&answer), "{answer:?}");
        let written = store.commit(&[put("key/b", None, b"4")]);
        assert!(is_other(&written), "{written:?}");
        assert_eq!(other.revision().unwrap(), before, "nothing was written");
        assert!(lease(&other).unwrap().is_some(), "nobody has it");
    }
}

/// A server that another took the place of goes on answering over connections that were made before.
#[test]
fn a_kept_connection_to_a_server_that_is_behind_raises_no_alarm() {
    let (old, new) = (server(), shared_server());
    let schema = fresh_schema();
    let behind = open(at(old.port(), &schema)).unwrap();
    behind.commit(&[put("key/a", None, b"1")]).unwrap();
    let ahead = open(at(new.port(), &schema)).unwrap();
    let mut newest = ahead.commit(&[put("key/a", None, b"1")]).unwrap();
    newest = ahead.commit(&[put("key/a", Some(newest), b"2")]).unwrap();

    type Ask = fn(&PostgresStore, Revision);
    let asked: [Ask; 4] = [
        |store, newest| assert_eq!(store.revision().unwrap(), newest),
        |store, newest| store.watch(&path("key/"), newest, &mut |_| false).unwrap(),
        |store, newest| assert_eq!(store.commit(&[put("key/b", None, b"")]).unwrap(), Revision(newest.0 + 1)),
        |store, newest| {
            let lease = store.lease(&path("timers"), "node", Duration::from_secs(60)).unwrap();
            assert_eq!(lease, Some(Lease { fence: Revision(newest.0 + 1) }));
        },
    ];
    for ask in asked {
        let between = Between::start(old.port());
        let store = open(at(between.port, &schema)).unwrap();
        // One connection is lent for the scan, and comes back to be used first; the other one is to the server that took over.
        store
            .scan(&mut |_| {
                between.lead_to(new.port());
                assert_eq!(store.revision().unwrap(), newest);
                true
            })
            .unwrap();
        ask(&store, newest);
        newest = ahead.revision().unwrap();
    }
}
