//! What nodes say of themselves in the store: whose software reads none of the others' formats does not start, and whatever somebody else writes there
//! disturbs nobody.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_core::id::NodeName;
use keymill_core::seam::store::{Path, Revision, Store, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::record::{RecordSealer, sequence_of};
use keymill_e2e::{Caller, eventually, metric};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::records::{self, AlarmRecord, Formats, HistoryRecord, Kind, NodeRecord};
use keymill_runtime::{ClusterConfig, EngineConfig};

const LEASE: Duration = Duration::from_secs(2);

fn node(name: &str) -> Setup {
    let cluster = ClusterConfig { lease: LEASE, ..ClusterConfig::default() };
    Setup::new(EngineConfig::default()).as_node(name, cluster)
}

fn nodes(live: &Live) -> f64 {
    metric(live, "keymill_cluster_nodes")
}

fn path(name: &str) -> Path {
    records::node_path(&name.parse::<NodeName>().unwrap())
}

/// Says of a node that it reads formats of times to come.
fn say(store: &dyn Store, sealer: &RecordSealer, name: &str, sequence: u64) {
    let record = NodeRecord {
        process: "later".into(),
        software: "9.8.7".into(),
        formats: Formats { oldest: 2, newest: 3 },
        started_at: Timestamp::from_ms(0),
        drains: false,
        asked: [0; 3],
        requests_per_s: 0,
        callers: Vec::new(),
    };
    let sealed = records::seal(sealer, &path(name), Kind::Node, sequence, &record).unwrap();
    put(store, name, Some(sealed.bytes));
}

fn put(store: &dyn Store, name: &str, value: Option<Vec<u8>>) -> Revision {
    let expected = store.get(&path(name)).unwrap().map(|stored| stored.revision);
    store.commit(&[Write { path: path(name), expected, value }]).unwrap()
}

#[test]
fn one_whose_formats_no_other_reads_does_not_start_beside_it_and_does_once_it_is_gone() {
    let first = Live::start_with(node("a")).live;
    let (store, sealer) = (first.store(), first.site().sealer());
    let is_over = AtomicBool::new(false);
    say(&*store, &sealer, "z", 1);
    let why = std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 2.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(LEASE / 4);
                say(&*store, &sealer, "z", sequence);
            }
        });
        let why = first.beside(node("b")).err().map(|error| error.to_string());
        is_over.store(true, Ordering::Relaxed);
        why.unwrap()
    });
    assert!(why.contains("node z (keymill 9.8.7) reads record formats 2 to 3"), "{why}");
    // It says nothing any more.
    let second = first.beside(node("b")).unwrap();
    eventually("both are there", || (nodes(&first) == 2.0 && nodes(&second) == 2.0).then_some(()));
    eventually("what the third left is removed", || store.get(&path("z")).unwrap().is_none().then_some(()));
}

#[test]
fn an_alarm_that_one_raises_stops_all_also_those_that_miss_nothing() {
    let Started { live: first, credentials } = Live::start_with(node("a"));
    let second = first.beside(node("b")).unwrap();
    let (store, sealer) = (first.store(), first.site().sealer());
    let mut callers = [&first, &second].map(|live| Caller::new(live, &credentials));
    let key = callers[0].create_key();
    eventually("the key is there", || callers[1].describe(key).ok());
    let at = records::history_path();
    let alarm = AlarmRecord { node: "z".parse().unwrap(), at: Timestamp::from_ms(0), why: "commit 7".into() };
    let record = HistoryRecord { alarm: Some(alarm), ..HistoryRecord::default() };
    let sealed = records::seal(&sealer, &at, Kind::History, 1, &record).unwrap();
    store.commit(&[Write { path: at, expected: None, value: Some(sealed.bytes) }]).unwrap();
    for caller in &mut callers {
        let refused = eventually("no key is used", || caller.encrypt(key, b"text", &[]).err());
        assert!(refused.message.contains("as z found"), "{}", refused.message);
        assert!(caller.disable(key).is_err() && caller.keys().is_err());
    }
}

#[test]
fn of_a_process_that_goes_on_twice_one_uses_no_key_any_more() {
    let Started { live: first, credentials } = Live::start_with(node("a"));
    let (store, sealer) = (first.store(), first.site().sealer());
    let mut caller = Caller::new(&first, &credentials);
    let key = caller.create_key();
    // What a copy would say that has the same memory, once it comes first.
    let process = eventually("the copy says something", || {
        let stored = store.get(&path("a")).unwrap()?;
        let (record, sequence, _) =
            records::open::<NodeRecord>(&sealer, &path("a"), Kind::Node, &stored.value).unwrap();
        let said = records::seal(&sealer, &path("a"), Kind::Node, sequence + 1, &record).unwrap();
        let write = Write { path: path("a"), expected: Some(stored.revision), value: Some(said.bytes) };
        store.commit(&[write]).ok().map(|_| record.process)
    });
    eventually("it finds out", || {
        caller.encrypt(key, b"text", &[]).err().filter(|error| error.message.contains("cloned"))
    });
    // Nor does it say any more how far its chains have come: those of the copy have the same names.
    assert!(caller.encrypt(key, b"text", &[]).is_err());
    let heads = || {
        let mut heads = Vec::new();
        let scanned = store.scan(&mut |row| {
            if row.path.starts_with("audit") {
                heads.push((row.path.to_owned(), row.revision));
            }
            true
        });
        scanned.map(|()| heads).unwrap()
    };
    let before = heads();
    assert!(!before.is_empty());
    // The name stays the copy's, which renews a lease that both take for their own: it is not given back.
    assert!(store.lease(&path("a"), &process, 10 * LEASE).unwrap().is_some());
    drop(caller);
    drop(first);
    assert_eq!(heads(), before);
    assert!(store.lease(&path("a"), "another", LEASE).unwrap().is_none());
}

#[test]
fn what_somebody_else_writes_of_a_node_is_refused_and_a_node_says_anew_what_was_taken_from_it() {
    let Started { live: first, .. } = Live::start_with(node("a"));
    let second = first.beside(node("b")).unwrap();
    let store = first.store();
    for live in [&first, &second] {
        eventually("both are there", || (nodes(live) == 2.0).then_some(()));
    }
    let before = store.get(&path("b")).unwrap().unwrap().value;
    put(&*store, "b", None);
    eventually("it is said anew, many times", || {
        let said = sequence_of(&store.get(&path("b")).unwrap()?.value);
        (said > sequence_of(&before).map(|before| before + 10)).then_some(())
    });
    // An older word, in the place of a newer one: the newer one stays known.
    put(&*store, "b", Some(before));
    put(&*store, "c", Some(b"no record".to_vec()));
    for live in [&first, &second] {
        eventually("it is refused", || {
            (metric(live, "keymill_cluster_rejected_records_total") >= 1.0).then_some(())
        });
        assert_eq!(nodes(live), 2.0);
    }
    let began = Instant::now();
    while began.elapsed() < LEASE * 3 {
        assert_eq!((nodes(&first), nodes(&second)), (2.0, 2.0));
        std::thread::sleep(LEASE / 10);
    }
}
