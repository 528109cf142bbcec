//! What nodes say of themselves in the store: whose software reads none of the others' formats does not start, and whatever somebody else writes there
//! disturbs nobody.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_core::id::NodeName;
use keymill_core::seam::store::{Path, Revision, Store, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::record::{RecordSealer, sequence_of};
use keymill_e2e::{eventually, metric};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::records::{self, Formats, Kind, NodeRecord};
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
