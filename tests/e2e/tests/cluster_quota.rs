//! The quota of an instance over all of its nodes: together they let in what one alone would, those that are asked for more get more, and one that
//! is left has all. With `idle_jobs` of 0 what is over a quota is refused always.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU64;
use std::time::Duration;

use keymill_core::quota::{Quota, Rate};
use keymill_core::seam::store::Path;
use keymill_e2e::{Caller, Ends, Load, eventually, let_in, metric};
use keymill_harness::{Live, Setup, Started, Wire};
use keymill_runtime::{ClusterConfig, EngineConfig, QuotaConfig};

/// Requests a second: few, so that callers can ask for many more on a machine that is busy with other tests.
const LIMIT: u64 = 50;
const LEASE: Duration = Duration::from_secs(2);
const CALLERS: usize = 3;

/// What of everything that callers ask for is limited: `true`, that of all together.
fn node_of(name: &str, is_of_instance: bool) -> Setup {
    let rate = |per_second| NonZeroU64::new(per_second).unwrap();
    let requests = Some(Rate::new(rate(LIMIT), rate(LIMIT / 4)));
    let limited = Quota { requests, ..Quota::default() };
    let (instance, caller) = match is_of_instance {
        true => (limited, Quota::default()),
        false => (Quota::default(), limited),
    };
    let quota = QuotaConfig { instance, caller, idle_jobs: 0, ..QuotaConfig::default() };
    let cluster = ClusterConfig { lease: LEASE, ..ClusterConfig::default() };
    Setup::new(EngineConfig { quota, ..EngineConfig::default() }).as_node(name, cluster)
}

fn node(name: &str) -> Setup {
    node_of(name, true)
}

fn share(live: &Live) -> f64 {
    metric(live, "keymill_cluster_share{limit=\"requests\"}")
}

fn nodes(live: &Live) -> f64 {
    metric(live, "keymill_cluster_nodes")
}

#[test]
fn a_quota_of_the_instance_holds_over_all_nodes_whoever_asks_for_how_much() {
    let Started { live: first, credentials: root } = Live::start_with(node("a"));
    assert_eq!((nodes(&first), share(&first)), (1.0, 1.0));
    let second = first.beside(node("b")).unwrap();
    for live in [&first, &second] {
        eventually("both know of both", || (nodes(live) == 2.0 && share(live) == 0.5).then_some(()));
    }
    let key = Caller::new(&first, &root).create_key();
    let mut there = Caller::new(&second, &root);
    eventually("the key is there", || there.describe(key).ok());
    let loads = <[Load; 2]>::default();
    std::thread::scope(|scope| {
        let ends = Ends(&loads);
        for (live, load) in [&first, &second].into_iter().zip(&loads) {
            for _ in 0..CALLERS {
                // Its own load alone, as much of it as there can be.
                let caller = Caller::of(live.connect(&root));
                scope.spawn(move || load.run(caller, key));
            }
        }
        let is_within = |counted: f64| (0.9..=1.1).contains(&counted);
        let both = |what: &str| {
            std::thread::sleep(Duration::from_secs(2));
            let [a, b] = let_in(&loads, LIMIT);
            println!("{what}: {a:.3} and {b:.3}");
            assert!(is_within(a + b), "{what}: {a} and {b}");
            assert!(a > 0.3 && b > 0.3, "{what}: {a} and {b}");
        };
        loads.iter().for_each(|load| load.ask(true));
        both("both are asked");

        // One alone is asked: it soon has nearly all.
        loads[1].ask(false);
        eventually("the other has left it", || (share(&first) > 0.95).then_some(()));
        let [a, b] = let_in(&loads, LIMIT);
        println!("one is asked: {a:.3} and {b:.3}");
        assert!(is_within(a) && b == 0.0, "{a} and {b}");
        // Whoever comes to the other now is served, before anybody knows.
        there.describe(key).unwrap();

        loads[1].ask(true);
        eventually("it has its part again", || (share(&second) > 0.4).then_some(()));
        both("both are asked again");
        drop(ends);
    });
    // One that ends leaves all at once.
    drop((there, second.halt()));
    eventually("it is alone", || (nodes(&first) == 1.0 && share(&first) == 1.0).then_some(()));
}

#[test]
fn a_quota_of_a_caller_holds_over_all_nodes_that_it_asks() {
    let Started { live: first, credentials: root } = Live::start_with(node_of("a", false));
    let second = first.beside(node_of("b", false)).unwrap();
    eventually("they know of each other", || (nodes(&first) == 2.0 && nodes(&second) == 2.0).then_some(()));
    let key = Caller::new(&first, &root).create_key();
    let mut there = Caller::new(&second, &root);
    eventually("the key is there", || there.describe(key).ok());
    let loads = <[Load; 2]>::default();
    std::thread::scope(|scope| {
        let _ends = Ends(&loads);
        for (live, load) in [&first, &second].into_iter().zip(&loads) {
            for _ in 0..CALLERS {
                // Its own load alone, as much of it as there can be.
                let caller = Caller::of(live.connect(&root));
                scope.spawn(move || load.run(caller, key));
            }
        }
        for (is_asked, settled) in [([true, true], 3), ([true, false], 8), ([true, true], 4)] {
            loads.iter().zip(is_asked).for_each(|(load, asks)| load.ask(asks));
            std::thread::sleep(Duration::from_secs(settled));
            let [a, b] = let_in(&loads, LIMIT);
            println!("{is_asked:?} are asked: {a:.3} and {b:.3}");
            assert!((0.9..=1.1).contains(&(a + b)), "{is_asked:?}: {a} and {b}");
            assert_eq!(b > 0.3, is_asked[1], "{a} and {b}");
        }
    });
}

#[test]
fn one_that_drains_or_died_leaves_its_part_and_what_it_said_is_removed() {
    let Started { live: first, credentials: _ } = Live::start_with(node("a"));
    let wire = Wire::default();
    let behind = wire.clone();
    let mut second = first.beside(node("b").with_store(move |store| behind.to(store))).unwrap();
    let store = first.store();
    let said = |name: &str| store.get(&Path::new(format!("node/{name}")).unwrap()).unwrap();
    eventually("they know of each other", || (nodes(&first) == 2.0).then_some(()));
    second.gate().drain();
    eventually("it drains", || (nodes(&first) == 1.0 && share(&first) == 1.0).then_some(()));
    assert!(said("b").is_some(), "it is still there");

    // One that is cut off counts on those that it knew: it cannot know that it is alone.
    let third = first.beside(node("c")).unwrap();
    eventually("they know of each other", || (nodes(&first) == 2.0 && share(&third) == 0.5).then_some(()));
    eventually("it knows of both", || (nodes(&second) == 3.0).then_some(()));
    wire.cut();
    std::thread::sleep(LEASE * 3);
    // Itself, and both others: whatever becomes of them is not heard of.
    assert_eq!(nodes(&second), 3.0);
    second.stop();
    eventually("what it said is removed by another", || said("b").is_none().then_some(()));
    assert!(said("a").is_some() && said("c").is_some());
    assert_eq!((nodes(&first), nodes(&third)), (2.0, 2.0));
    drop(third);
    eventually("one that ends removes it itself", || said("c").is_none().then_some(()));
}
