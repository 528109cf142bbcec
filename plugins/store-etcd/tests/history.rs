//! An etcd that was restored from a snapshot is told from the one that went on, by whoever has seen what is lost, and no other is.

mod common;

use common::*;
use keymill_core::seam::store::{Revision, Store, StoreError};
use keymill_databases::Etcd;
use keymill_store_etcd::EtcdStore;

fn is_other<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::OtherHistory(_)))
}

/// Has a new process commit until all numbers are given that were lost.
fn go_on(other: &EtcdStore, lost: Revision) -> Revision {
    let (name, mut at) = (format!("of-others/{}", lost.0), None);
    while at <= Some(lost) {
        at = Some(other.commit(&[put(&name, at, b"3")]).expect("it is the only one that writes"));
    }
    at.expect("it has committed")
}

/// An etcd that was restored to before the second commit of a store, and went on beyond that.
struct Lost {
    etcd: Etcd,
    store: EtcdStore,
    /// One that was opened since.
    other: EtcdStore,
    first: Revision,
    second: Revision,
}

impl Lost {
    fn found() -> Self {
        let mut etcd = Etcd::start();
        let options = config(&etcd);
        let store = opened(again(&options));
        let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
        etcd.save();
        let second = store.commit(&[put("key/a", Some(first), b"2")]).expect("nobody wrote it meanwhile");
        etcd.put_back();
        let other = opened(options);
        go_on(&other, second);
        Self { etcd, store, other, first, second }
    }
}

#[test]
fn an_etcd_that_was_restored_is_told_from_one_that_went_on_however_far_it_went_since() {
    let Lost { etcd: _etcd, store, other, first, second } = Lost::found();
    // Nor does it matter how soon it asks.
    for write in [put("key/a", Some(first), b"4"), put("key/b", None, b"4")] {
        let written = store.commit(&[write]);
        assert!(is_other(&written), "{written:?}");
    }
    assert_eq!(value_at(&other, "key/a").as_deref(), Some(&b"1"[..]));
    let watched = store.watch(&path("key/"), second, &mut |_| true);
    assert!(is_other(&watched), "{watched:?}");
    store.commit(&[put("history", None, b"lost")]).expect("the alarm is raised");
    assert_eq!(value_at(&other, "history").as_deref(), Some(&b"lost"[..]));
}

#[test]
fn nothing_is_committed_where_what_another_node_made_is_lost() {
    let mut etcd = Etcd::start();
    let options = config(&etcd);
    let (store, peer) = (opened(again(&options)), opened(again(&options)));
    store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    etcd.save();
    let theirs = peer.commit(&[put("key/b", None, b"1")]).expect("it commits");
    assert_eq!(store.revision().expect("it reads"), theirs, "it has seen it");
    etcd.put_back();
    let other = opened(options);
    go_on(&other, theirs);
    // Its own mark is as it was left.
    let written = store.commit(&[put("key/c", None, b"1")]);
    assert!(is_other(&written), "{written:?}");
    assert_eq!(value_at(&other, "key/c"), None);
}

/// As `etcdutl snapshot restore --bump-revision --mark-compacted` leaves it: further than it ever was, and without its past.
#[test]
fn an_etcd_that_was_restored_without_its_past_is_told_by_the_own_last_mark() {
    let Lost { etcd, store, other, second, .. } = Lost::found();
    etcd.ctl(&["compact", &etcd.revision().to_string()]).expect("etcdctl does it");
    let watched = store.watch(&path("key/"), second, &mut |_| true);
    assert!(is_other(&watched), "{watched:?}");
    let written = store.commit(&[put("key/b", None, b"4")]);
    assert!(is_other(&written), "{written:?}");
    assert_eq!(value_at(&other, "key/b"), None);
}

#[test]
fn an_etcd_that_went_on_and_forgot_is_the_one_that_it_was() {
    let etcd = Etcd::start();
    let options = config(&etcd);
    let (store, other) = (opened(again(&options)), opened(options));
    let mut seen = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    for is_revoked in [false, true] {
        let newest = go_on(&other, Revision(seen.0 + 2));
        etcd.ctl(&["compact", &etcd.revision().to_string()]).expect("etcdctl does it");
        // A process that was stopped for long enough finds its marks gone.
        if is_revoked {
            let leases = etcd.ctl(&["lease", "list"]).expect("etcdctl does it");
            for lease in leases.lines().skip(1) {
                etcd.ctl(&["lease", "revoke", lease]).expect("etcdctl does it");
            }
        }
        assert_eq!(store.revision().expect("it reads"), newest);
        seen = store.commit(&[put("key/a", Some(seen), b"2")]).expect("nobody wrote it meanwhile");
    }
}
