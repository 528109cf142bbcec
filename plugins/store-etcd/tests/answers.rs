//! Commits whose answer, or request, is lost on the way: what is said of them is true, and none is made twice.

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use std::time::Duration;

use common::*;
use keymill_core::seam::store::{Page, Revision, Store, StoreError};
use keymill_databases::Etcd;
use keymill_store_etcd::{Config, EtcdStore};
use proxy::{Loss, Proxy};

/// An etcd, a store that reaches it through a proxy, and one that does so directly.
fn both() -> (Etcd, Proxy, EtcdStore, EtcdStore) {
    let etcd = Etcd::start();
    let proxy = Proxy::before(etcd.port(0));
    let direct = config(&etcd);
    let timeout = Duration::from_secs(6);
    let through = Config { endpoints: vec![proxy.endpoint()], timeout, ..again(&direct) };
    (etcd, proxy, opened(through), opened(direct))
}

fn log(store: &EtcdStore) -> Vec<(String, Revision)> {
    let listed = store.list(&path("log/"), Page { after: None, limit: usize::MAX }).expect("it lists");
    listed.into_iter().map(|entry| (entry.path.to_string(), entry.revision)).collect()
}

#[test]
fn a_commit_whose_answer_or_request_is_lost_is_made_once_and_acknowledged() {
    let (_etcd, proxy, store, direct) = both();
    let mut made = Vec::new();
    let mut last = None;
    for (i, loss) in
        [None, Some(Loss::Answer), Some(Loss::Request), Some(Loss::Answer), None].iter().enumerate()
    {
        // A small one, and one in several levels.
        for count in [1, 200] {
            loss.iter().for_each(|loss| proxy.lose(*loss));
            let at = format!("log/{i}-{count}");
            let mut writes = vec![put("counter", last, &[i as u8]), put(&at, None, b"")];
            writes.extend((1..count).map(|j| put(&format!("more/{i}-{j}"), None, b"")));
            let revision = store.commit(&writes).expect("it is acknowledged");
            last = Some(revision);
            made.push((at, revision));
        }
    }
    assert_eq!(proxy.lost(), 6, "each loss came to pass");
    let mut there = log(&direct);
    there.sort_by_key(|(_, revision)| *revision);
    assert_eq!(there, made, "each is there once, at the revision that was told");
    // Nothing else was committed: what was not made is not made later either.
    assert_eq!(direct.revision().expect("it reads"), last.expect("some were made"));
}

#[test]
fn a_conflict_whose_answer_is_lost_is_still_a_conflict() {
    let (_etcd, proxy, store, direct) = both();
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let second = direct.commit(&[put("key/a", Some(first), b"2")]).expect("it commits");
    for loss in [Loss::Answer, Loss::Request] {
        proxy.lose(loss);
        match store.commit(&[put("key/b", None, b"1"), put("key/a", Some(first), b"3")]) {
            Err(StoreError::Conflict(at)) => assert_eq!(at.as_str(), "key/a"),
            other => panic!("a conflict was due, not {other:?}"),
        }
    }
    assert_eq!(proxy.lost(), 2);
    assert_eq!(direct.revision().expect("it reads"), second);
}

#[test]
fn a_request_that_arrives_late_is_not_carried_out() {
    let (_etcd, proxy, store, direct) = both();
    let first = store.commit(&[put("counter", None, b"0"), put("log/0", None, b"")]).expect("it commits");
    proxy.lose(Loss::Late);
    // It is not known to have arrived, is kept from being made, and made anew.
    let second = store.commit(&[put("counter", Some(first), b"1"), put("log/1", None, b"")]);
    let second = second.expect("it is acknowledged");
    let removed = direct.commit(&[removal("log/1", second)]).expect("nobody wrote it meanwhile");
    assert!(proxy.deliver() > 0, "it arrives now");
    // Its records would take it: "log/1" is gone again.
    assert_eq!(log(&direct).len(), 1);
    assert_eq!(direct.revision().expect("it reads"), removed);
    store.commit(&[put("counter", Some(second), b"2")]).expect("others pass");
}

#[test]
fn a_lease_whose_answer_is_lost_is_given_once() {
    let (_etcd, proxy, store, direct) = both();
    let ttl = Duration::from_secs(600);
    for (i, loss) in [Loss::Answer, Loss::Request].into_iter().enumerate() {
        let name = path(&format!("timer/{i}"));
        proxy.lose(loss);
        let given = store.lease(&name, "node-1", ttl).expect("it is given").expect("it is free");
        assert_eq!(direct.lease(&name, "node-2", ttl).expect("it is asked for"), None);
        proxy.lose(loss);
        assert_eq!(store.lease(&name, "node-1", ttl).expect("it is renewed"), Some(given));
    }
}

#[test]
fn a_watch_goes_on_behind_a_connection_that_breaks() {
    let (_etcd, proxy, store, direct) = both();
    let store = std::sync::Arc::new(store);
    let (told, watching) = watched(store.clone(), "key/", Revision(0));
    for i in 0..20 {
        if i % 5 == 2 {
            proxy.lose(Loss::Answer);
        }
        let writes: Vec<_> = (0..3).map(|j| put(&format!("key/{i:02}-{j}"), None, b"")).collect();
        direct.commit(&writes).expect("the paths are free");
    }
    let mut heard = Vec::new();
    while heard.len() < 60 {
        if let Heard::Wrote(at, _, _) = told.recv_timeout(PATIENCE).expect("the watch goes on") {
            heard.push(at);
        }
    }
    let all: Vec<_> = (0..20).flat_map(|i| (0..3).map(move |j| format!("key/{i:02}-{j}"))).collect();
    assert_eq!(heard, all);
    drop(told);
    watching.join().expect("the watch ends").expect("without an error");
}
