//! The store over its life: restarts, a second opener, closing, damage, and a bound on its size.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use keymill_core::seam::store::{Change, Page, Path, Revision, Store, StoreError, Write};
use keymill_store_sqlite::{Config, OpenError, SqliteStore, open};
use tempfile::TempDir;

const PAGE_BYTES: usize = 4096;

fn path(text: &str) -> Path {
    Path::new(text).expect("the tests name paths")
}

fn put(at: &str, value: &[u8]) -> Write {
    Write { path: path(at), expected: None, value: Some(value.to_vec()) }
}

fn reopen(directory: &TempDir) -> SqliteStore {
    open(Config::new(directory.path())).expect("the store opens")
}

fn fresh() -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = reopen(&directory);
    (directory, store)
}

#[test]
fn records_revision_and_fences_outlast_a_restart() {
    let (directory, store) = fresh();
    let revision = store.commit(&[put("key/a", b"1"), put("key/b", b"2")]).expect("it commits");
    let ttl = Duration::from_secs(600);
    let before = store.lease(&path("lease/x"), "node-1", ttl).expect("it is given").expect("it is free");
    drop(store);

    let store = reopen(&directory);
    let listed = store.list(&path("key/"), Page { after: None, limit: 9 }).expect("it lists");
    assert_eq!(listed.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [revision; 2]);
    assert!(store.revision().expect("it reads") >= before.fence);
    let after =
        store.lease(&path("lease/x"), "node-2", ttl).expect("it is given").expect("a restart frees it");
    assert!(after.fence > before.fence);
    let next = store.commit(&[put("key/c", b"3")]).expect("it commits");
    assert!(next > after.fence);
}

#[test]
fn a_second_store_on_the_directory_is_refused_until_the_first_is_dropped() {
    let (directory, store) = fresh();
    let refused = open(Config::new(directory.path())).expect_err("it is refused");
    assert!(
        matches!(&refused, OpenError::InUse { pid, .. } if *pid == Some(std::process::id())),
        "{refused}"
    );
    drop(store);
    reopen(&directory);
}

#[test]
fn all_files_are_private_and_the_log_goes_with_the_store() {
    let outer = tempfile::tempdir().expect("a temporary directory");
    let directory = outer.path().join("data");
    let store = open(Config::new(&directory)).expect("it opens");
    store.commit(&[put("key/a", b"1")]).expect("it commits");
    store.get(&path("key/a")).expect("it reads");
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&directory)
            .expect("it is there")
            .map(|file| {
                let file = file.expect("a file");
                assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
                file.file_name().into_string().expect("it is ASCII")
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(fs::metadata(&directory).expect("it is there").permissions().mode() & 0o777, 0o700);
    assert_eq!(names(), ["keymill.db", "keymill.db-shm", "keymill.db-wal", "keymill.lock"]);
    drop(store);
    assert_eq!(names(), ["keymill.db", "keymill.lock"]);
}

#[test]
fn closing_ends_watches_and_writes_but_not_reads() {
    let (_directory, store) = fresh();
    store.commit(&[put("key/a", b"1")]).expect("it commits");
    let (idle, is_idle) = mpsc::channel();
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            store.watch(&path("key/"), Revision(1), &mut |change| {
                assert!(matches!(change, Change::Current { .. }));
                idle.send(()).is_ok()
            })
        });
        is_idle.recv().expect("the watch is current first");
        store.close();
        watching.join().expect("the watch ends").expect("without an error");
    });
    assert!(matches!(store.commit(&[put("key/b", b"2")]), Err(StoreError::Unavailable(_))));
    assert!(store.lease(&path("lease/x"), "node-1", Duration::from_secs(1)).is_err());
    assert!(store.get(&path("key/a")).expect("it reads").is_some());
}

#[test]
fn a_watch_from_another_history_is_told_to_list_again() {
    let (_directory, store) = fresh();
    for from in [1, u64::MAX] {
        let watched = store.watch(&path("key/"), Revision(from), &mut |_| false);
        assert!(matches!(watched, Err(StoreError::Compacted)), "{from}");
    }
}

#[test]
fn a_store_at_its_bound_refuses_writes_and_takes_them_again_once_there_is_space() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = Config { max_pages: Some(64), ..Config::new(directory.path()) };
    let store = open(config).expect("it opens");
    let value = [7; 10 * PAGE_BYTES];
    let mut kept = Vec::new();
    let why = loop {
        let at = format!("key/{}", kept.len());
        match store.commit(&[put(&at, &value)]) {
            Ok(revision) => kept.push((at, revision)),
            Err(StoreError::Full(why)) => break why,
            Err(other) => panic!("the store is full, not {other}"),
        }
        assert!(kept.len() < 64, "the bound holds");
    };
    assert!(why.contains("full"), "{why}");
    assert!(kept.len() > 2);
    let both = [put("small/a", b""), put("small/b", &value)];
    assert!(matches!(store.commit(&both), Err(StoreError::Full(_))));
    assert!(store.get(&path("small/a")).expect("it reads").is_none(), "all or none");
    for (at, revision) in &kept {
        let entry = store.get(&path(at)).expect("it reads").expect("it was acknowledged");
        assert!(entry.value == value && entry.revision == *revision);
    }
    assert_eq!(store.revision().expect("it reads"), kept[kept.len() - 1].1);

    let (at, revision) = kept.swap_remove(0);
    let removal = Write { path: path(&at), expected: Some(revision), value: None };
    store.commit(&[removal]).expect("a removal needs no page");
    store.commit(&[put("key/again", &value)]).expect("there is space again");
}

#[test]
fn a_damaged_page_is_corrupt_for_its_records_and_the_rest_is_served() {
    let (directory, store) = fresh();
    let value = |i: usize| format!("value of record {i:03}, at length: {}", "x".repeat(900)).into_bytes();
    let writes: Vec<_> = (0..200).map(|i| put(&format!("key/{i:03}"), &value(i))).collect();
    store.commit(&writes).expect("it commits");
    drop(store);

    let file = directory.path().join("keymill.db");
    let bytes = fs::read(&file).expect("it is readable");
    let marker = b"value of record 100";
    let place = bytes.windows(marker.len()).position(|window| window == marker).expect("it is stored");
    let page = place / PAGE_BYTES * PAGE_BYTES;
    let opened = fs::OpenOptions::new().write(true).open(&file).expect("it is ours");
    opened.write_all_at(&[0xa5; PAGE_BYTES], page as u64).expect("it is written");

    let store = reopen(&directory);
    let (mut served, mut corrupt) = (0, 0);
    for i in 0..200 {
        match store.get(&path(&format!("key/{i:03}"))) {
            Ok(entry) => {
                assert!(entry.expect("it was committed").value == value(i));
                served += 1;
            }
            Err(StoreError::Corrupt(_)) => corrupt += 1,
            Err(other) => panic!("the page is corrupt, not {other}"),
        }
    }
    assert!((1..=4).contains(&corrupt) && served == 200 - corrupt, "{corrupt} corrupt, {served} served");
    let whole = store.list(&path("key/"), Page { after: None, limit: 1000 });
    assert!(matches!(whole, Err(StoreError::Corrupt(_))));
    store.commit(&[put("key/new", b"")]).expect("other pages take writes");
}
