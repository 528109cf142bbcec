//! What etcd has bounds for: its space, the size of a request, the operations of a transaction, and its past.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use keymill_core::seam::store::{Page, Revision, Store, StoreError, Write};
use keymill_databases::{Etcd, EtcdOptions};

#[test]
fn a_full_etcd_refuses_writes_reads_on_and_takes_them_again() {
    let flags = vec!["--quota-backend-bytes=16777216".to_owned()];
    let etcd = Etcd::start_with(EtcdOptions { flags, ..EtcdOptions::default() });
    let store = opened(config(&etcd));
    let value = vec![7; 1 << 20];
    let mut kept = Vec::new();
    let why = loop {
        let at = format!("key/{:03}", kept.len());
        match store.commit(&[put(&at, None, &value)]) {
            Ok(revision) => kept.push((at, revision)),
            Err(StoreError::Full(why)) => break why,
            Err(other) => panic!("etcd is full, not {other}"),
        }
        assert!(kept.len() < 40, "the quota holds");
    };
    println!("after {} records of a mebibyte: {why}", kept.len());
    assert!(matches!(store.commit(&[put("small", None, b"")]), Err(StoreError::Full(_))));
    assert!(value_at(&store, "small").is_none());
    for (at, revision) in &kept {
        let entry = store.get(&path(at)).expect("it reads").expect("it was acknowledged");
        assert!(entry.value == value && entry.revision == *revision);
    }
    // What an operator does: history away, the file made smaller, the alarm off. Without `--physical` etcd answers before the history is gone.
    etcd.ctl(&["compact", "--physical", &etcd.revision().to_string()]).expect("etcdctl does it");
    etcd.ctl(&["defrag"]).expect("etcdctl does it");
    // All of them: etcd looks at its size between batches, and lets a fast writer go far over the quota before it says so.
    etcd.ctl(&["del", "--prefix", "test-0/record/key/"]).expect("a removal needs no space");
    etcd.ctl(&["compact", "--physical", &etcd.revision().to_string()]).expect("etcdctl does it");
    etcd.ctl(&["defrag"]).expect("etcdctl does it");
    etcd.ctl(&["alarm", "disarm"]).expect("etcdctl does it");
    store.commit(&[put("small", None, b"")]).expect("there is space again");
}

#[test]
fn a_commit_that_is_too_large_is_refused_and_nothing_of_it_is_written() {
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    // etcd's own bound, and that of its transport behind it.
    for bytes in [1_700_000, 4_000_000] {
        let writes = [put("key/a", Some(first), b"2"), put("key/b", None, &vec![0; bytes])];
        match store.commit(&writes) {
            Err(StoreError::Full(why)) => println!("{why}"),
            other => panic!("it is too large, not {other:?}"),
        }
        assert_eq!(value_at(&store, "key/a").as_deref(), Some(&b"1"[..]));
        assert_eq!(value_at(&store, "key/b"), None);
    }
    let many: Vec<Write> = (0..30_000).map(|i| put(&format!("key/{i}"), None, b"")).collect();
    assert!(matches!(store.commit(&many), Err(StoreError::Full(_))));
    assert_eq!(store.revision().expect("it reads"), first);
    store.commit(&[put("key/a", Some(first), b"2")]).expect("others pass");
}

#[test]
fn commits_of_any_count_are_whole_and_of_one_revision() {
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    // About the bounds: of one transaction, of a transaction in another, of one more level.
    for count in [1, 125, 126, 127, 128, 512, 3_360, 3_361, 10_000] {
        let all: Vec<String> = (0..count).map(|i| format!("of-{count}/{i:05}")).collect();
        let writes: Vec<_> = all.iter().map(|at| put(at, None, b"1")).collect();
        let created = store.commit(&writes).expect("the paths are free");
        let listed = |revision: Revision| {
            let prefix = path(&format!("of-{count}/"));
            let listed = store.list(&prefix, Page { after: None, limit: usize::MAX }).expect("it lists");
            assert!(listed.iter().all(|entry| entry.revision == revision));
            listed.len()
        };
        assert_eq!(listed(created), count);
        // One that conflicts, wherever it stands, keeps all from being written.
        for at in [0, count / 2, count - 1] {
            let mut writes: Vec<_> = all.iter().map(|at| removal(at, created)).collect();
            writes[at].expected = Some(Revision(created.0 - 1));
            match store.commit(&writes) {
                Err(StoreError::Conflict(path)) => assert_eq!(path.as_str(), all[at]),
                other => panic!("a conflict was due, not {other:?}"),
            }
        }
        assert_eq!(listed(created), count);
        assert_eq!(store.revision().expect("it reads"), created);
        let removals: Vec<_> = all.iter().map(|at| removal(at, created)).collect();
        store.commit(&removals).expect("nobody wrote them meanwhile");
        assert_eq!(listed(created), 0);
    }
}

#[test]
fn large_commits_of_several_at_once_are_whole() {
    const COUNT: usize = 300;
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    let writes = |expected, by: u8| -> Vec<Write> {
        (0..COUNT).map(|i| put(&format!("key/{i:03}"), expected, &[by])).collect()
    };
    let mut last = store.commit(&writes(None, 255)).expect("the paths are free");
    for _ in 0..10 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|by| {
                    let (store, writes) = (&store, &writes);
                    scope.spawn(move || store.commit(&writes(Some(last), by)))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        let won: Vec<_> = (0..4).filter(|by| results[*by].is_ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        last = *results[won[0]].as_ref().expect("it won");
        let listed = store.list(&path("key/"), Page { after: None, limit: usize::MAX }).expect("it lists");
        assert_eq!(listed.len(), COUNT);
        assert!(listed.iter().all(|entry| entry.value == [won[0] as u8] && entry.revision == last));
    }
}

#[test]
fn a_watcher_that_slept_over_a_compaction_is_told_to_list_again() {
    let etcd = Etcd::start();
    let store = Arc::new(opened(config(&etcd)));
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let second = store.commit(&[removal("key/a", first)]).expect("nobody wrote it meanwhile");
    let third = store.commit(&[put("key/b", None, b"1")]).expect("it commits");
    etcd.ctl(&["compact", &third.0.to_string()]).expect("etcdctl does it");
    for from in [Revision(0), first, second] {
        let watched = store.watch(&path("key/"), from, &mut |_| false);
        assert!(matches!(watched, Err(StoreError::Compacted)), "{from:?}: {watched:?}");
    }
    // From the very revision that was compacted to, everything is known.
    let fourth = store.commit(&[put("key/c", None, b"1")]).expect("it commits");
    let (told, watching) = watched(store.clone(), "key/", third);
    let heard = told.recv_timeout(PATIENCE).expect("it is told");
    assert_eq!(heard, Heard::Wrote("key/c".into(), Some(b"1".to_vec()), fourth));

    // A watch that is awake is not disturbed, nor is one that begins anew where nothing of ours was written.
    etcd.ctl(&["put", "of-another", "1"]).expect("etcdctl does it");
    etcd.ctl(&["compact", &etcd.revision().to_string()]).expect("etcdctl does it");
    let fifth = store.commit(&[put("key/d", None, b"1")]).expect("it commits");
    let heard = loop {
        match told.recv_timeout(PATIENCE).expect("it is told") {
            Heard::Current => {}
            heard => break heard,
        }
    };
    assert_eq!(heard, Heard::Wrote("key/d".into(), Some(b"1".to_vec()), fifth));
    drop(told);
    watching.join().expect("the watch ends").expect("without an error");

    let later = store.watch(&path("key/"), Revision(fifth.0 + 1000), &mut |_| false);
    assert!(matches!(later, Err(StoreError::Compacted)), "of another history: {later:?}");
}

#[test]
fn a_scan_is_of_one_moment_or_says_that_it_is_not() {
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    let value = vec![1; 1000];
    let all: Vec<Write> = (0..1_200).map(|i| put(&format!("key/{i:04}"), None, &value)).collect();
    for some in all.chunks(300) {
        store.commit(some).expect("the paths are free");
    }
    let mut count = 0;
    let compacted = store.scan(&mut |_| {
        if count == 0 {
            // The first page is here and the second on its way; what follows is not any more.
            std::thread::sleep(Duration::from_millis(300));
            store.commit(&[put("another", None, b"")]).expect("it commits");
            etcd.ctl(&["compact", &etcd.revision().to_string()]).expect("etcdctl does it");
        }
        count += 1;
        true
    });
    match compacted {
        Ok(()) => assert_eq!(count, 1_200, "the second page was the last"),
        Err(StoreError::Compacted) => assert!(count < 1_200),
        Err(other) => panic!("it was compacted, not {other}"),
    }
    let mut count = 0;
    store
        .scan(&mut |_| {
            count += 1;
            true
        })
        .expect("it scans again");
    assert_eq!(count, 1_201);
}

#[test]
fn lists_of_large_records_come_in_pages_that_fit() {
    let etcd = Etcd::start();
    let store = opened(config(&etcd));
    // More than one answer may have, after a page of small ones.
    let small: Vec<Write> = (0..100).map(|i| put(&format!("key/a{i:03}"), None, b"")).collect();
    store.commit(&small).expect("the paths are free");
    for i in 0..40 {
        store.commit(&[put(&format!("key/b{i:03}"), None, &vec![i; 1 << 20])]).expect("the path is free");
    }
    let listed = store.list(&path("key/"), Page { after: None, limit: usize::MAX }).expect("it lists");
    assert_eq!(listed.len(), 140);
    assert!((0..40).all(|i| listed[100 + usize::from(i)].value == vec![i; 1 << 20]));
    let mut bytes = 0;
    store
        .scan(&mut |row| {
            bytes += row.value.len();
            true
        })
        .expect("it scans");
    assert_eq!(bytes, 40 << 20);
}
