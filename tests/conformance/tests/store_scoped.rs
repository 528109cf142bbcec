//! The suite for `Store` on the part of a store that is an instance's; and what stands beside it is not seen from there, nor it from beside.

use std::sync::Arc;
use std::time::Duration;

use keymill_conformance::memory_store::MemoryStore;
use keymill_conformance::store::Fixture;
use keymill_core::seam::store::{Change, Page, Path, Revision, Store, StoreError, Write};
use keymill_runtime::scoped::Scoped;

fn scoped(beneath: &Arc<dyn Store>, instance: &str) -> Scoped {
    Scoped::of(beneath.clone(), &instance.parse().expect("an id"))
}

fn fixture() -> Fixture {
    Fixture::new(scoped(&(Arc::new(MemoryStore::new()) as Arc<dyn Store>), "kst-one"))
}

keymill_conformance::store_suite!(fixture);

fn path(text: &str) -> Path {
    Path::new(text).expect("a path")
}

fn put(store: &dyn Store, at: &str, value: &str) -> Revision {
    let write = Write { path: path(at), expected: None, value: Some(value.into()) };
    store.commit(&[write]).expect("it commits")
}

fn all(store: &dyn Store) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut push = |path: &str, value: &[u8]| {
        rows.push((path.to_owned(), String::from_utf8_lossy(value).into_owned()));
        true
    };
    store.scan(&mut |row| push(row.path, row.value)).expect("it scans");
    rows.sort();
    rows
}

/// One beneath and three beside each other, of which one's name begins with another's.
fn neighbours() -> (Arc<dyn Store>, [Scoped; 3]) {
    let beneath: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let parts = ["kst-1", "kst-12", "kst-2"].map(|instance| scoped(&beneath, instance));
    put(&*beneath, "cmk/a", "outer");
    for (at, part) in parts.iter().enumerate() {
        put(part, "cmk/a", &format!("of {at}"));
    }
    (beneath, parts)
}

#[test]
fn each_sees_its_own_and_nothing_beside() {
    let (beneath, parts) = neighbours();
    for (at, part) in parts.iter().enumerate() {
        assert_eq!(all(part), [("cmk/a".to_owned(), format!("of {at}"))]);
        let listed = part.list(&path("cmk/"), Page { after: None, limit: 10 }).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(part.get(&path("cmk/a")).unwrap().unwrap(), listed[0]);
        for foreign in ["instance-data/kst-2/cmk/a", "instance-data/kst-12/cmk/a", "kst-2/cmk/a"] {
            assert!(part.get(&path(foreign)).unwrap().is_none(), "{foreign}");
        }
    }
    let outer = beneath.list(&path("cmk/"), Page { after: None, limit: 10 }).unwrap();
    assert_eq!(outer.iter().map(|entry| &*entry.value).collect::<Vec<_>>(), [b"outer"]);
}

#[test]
fn a_watch_and_a_conflict_tell_paths_as_the_instance_has_them() {
    let (_, [one, twelve, _]) = neighbours();
    let from = one.revision().unwrap();
    put(&twelve, "cmk/b", "beside");
    put(&one, "cmk/b", "own");
    let mut seen = Vec::new();
    one.watch(&path("cmk/"), from, &mut |change| match change {
        Change::Commit { writes, .. } => {
            seen.extend(writes.iter().map(|wrote| wrote.path.to_string()));
            true
        }
        Change::Current { .. } => false,
    })
    .unwrap();
    assert_eq!(seen, ["cmk/b"]);
    let again = Write { path: path("cmk/b"), expected: None, value: None };
    assert!(matches!(one.commit(&[again]), Err(StoreError::Conflict(at)) if at == path("cmk/b")));
}

#[test]
fn leases_are_of_one_instance() {
    let (beneath, [one, twelve, _]) = neighbours();
    let take = |store: &dyn Store, who| store.lease(&path("timers"), who, Duration::from_secs(60)).unwrap();
    assert!(take(&one, "a").is_some() && take(&one, "b").is_none());
    assert!(take(&twelve, "b").is_some() && take(&*beneath, "c").is_some());
}

#[test]
fn what_is_cleared_is_one_instances_alone() {
    let (beneath, [one, twelve, two]) = neighbours();
    for number in 0..200 {
        put(&one, &format!("material/{number}"), "more than go at once");
    }
    one.clear().unwrap();
    assert_eq!((all(&one), all(&twelve).len(), all(&two).len()), (Vec::new(), 1, 1));
    assert_eq!(all(&*beneath).len(), 3);
}

#[test]
fn a_path_that_does_not_fit_below_is_refused() {
    let (_, [one, ..]) = neighbours();
    let long = path(&"a".repeat(512));
    assert!(matches!(one.get(&long), Err(StoreError::Corrupt(_))));
}
