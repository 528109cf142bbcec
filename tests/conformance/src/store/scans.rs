//! What a scan tells of.

use std::collections::BTreeMap;

use keymill_core::seam::store::{Entry, Row, Store};

use super::{path, put, removal, value_at};

/// Tells of what is there, whatever its path, with the value and the revision that a read has.
pub fn a_scan_tells_of_every_record_once(store: &dyn Store) {
    assert_eq!(scanned(store, usize::MAX).len(), 0);
    let all: Vec<String> = (0..300).map(|i| format!("{}/{i}", ["cmk", "material", "a"][i % 3])).collect();
    let writes: Vec<_> = all.iter().map(|at| put(at, None, at.as_bytes())).collect();
    let revision = store.commit(&writes).expect("the paths are free");
    let replaced = store.commit(&[put("cmk/0", Some(revision), b"new"), removal("a/2", Some(revision))]);
    let told = scanned(store, usize::MAX);
    assert_eq!(told.len(), all.len() - 1);
    let by_path: BTreeMap<String, Entry> = told.into_iter().map(|e| (e.path.to_string(), e)).collect();
    assert_eq!(by_path.len(), all.len() - 1, "none comes twice");
    assert_eq!(by_path["cmk/0"].value, b"new");
    assert_eq!(by_path["cmk/0"].revision, replaced.expect("nobody wrote them meanwhile"));
    assert_eq!((&by_path["a/5"].value[..], by_path["a/5"].revision), (&b"a/5"[..], revision));
    assert!(!by_path.contains_key("a/2"));
}

/// Does not tell of more than is wanted.
pub fn a_scan_ends_where_it_is_told_to(store: &dyn Store) {
    let writes: Vec<_> = (0..10).map(|i| put(&format!("key/{i}"), None, b"")).collect();
    store.commit(&writes).expect("the paths are free");
    for wanted in [1, 3, 10] {
        assert_eq!(scanned(store, wanted).len(), wanted);
    }
}

/// Goes on as it began where records come and go meanwhile, by the hand of whom it tells, too.
pub fn a_scan_is_of_one_moment_and_may_use_the_store(store: &dyn Store) {
    let writes: Vec<_> = (0..100).map(|i| put(&format!("key/{i}"), None, b"old")).collect();
    let revision = store.commit(&writes).expect("the paths are free");
    let mut told = Vec::new();
    let scan = store.scan(&mut |row| {
        if told.is_empty() {
            let changes = [
                put("key/99", Some(revision), b"new"),
                removal("key/98", Some(revision)),
                put("key/x", None, b""),
            ];
            store.commit(&changes).expect("a scan keeps nobody from writing");
        }
        told.push(row.value.to_vec());
        true
    });
    scan.expect("the store reads");
    assert_eq!(told.len(), 100);
    assert!(told.iter().all(|value| value == b"old"));
    assert_eq!(value_at(store, "key/99").as_deref(), Some(&b"new"[..]));
}

fn scanned(store: &dyn Store, wanted: usize) -> Vec<Entry> {
    let mut told = Vec::new();
    let scan = store.scan(&mut |Row { path: at, value, revision }| {
        told.push(Entry { path: path(at), value: value.to_vec(), revision });
        told.len() < wanted
    });
    scan.expect("the store reads");
    told
}
