//! Several nodes that die under a request, drain, refuse, fall silent and come back: nothing is lost, nothing is sent twice that must not be.

use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::ErrorKind;
use keymill_core::id::KeyRef;
use keymill_core::operation::{DescribeLimitsRequest, RotateKeyRequest};

use super::super::*;
use crate::fake::{self, SECRET};
use crate::fake_node::{FakeNode, Mood};

fn client(addresses: Addresses) -> Client {
    let mut config = Config::of_cluster(addresses, fake::credentials(SECRET));
    (config.first_backoff, config.last_backoff) = (Duration::from_millis(1), Duration::from_millis(5));
    Client::connect(config).unwrap()
}

fn cluster(count: usize) -> (Vec<FakeNode>, Client) {
    let (nodes, addresses) = FakeNode::several(count);
    (nodes, client(addresses))
}

fn read() -> DescribeLimitsRequest {
    DescribeLimitsRequest::default()
}

fn rotate(name: &str) -> RotateKeyRequest {
    RotateKeyRequest { key_id: KeyRef::parse(&format!("alias/{name}")), timeout_ms: None }
}

fn asked(nodes: &[FakeNode]) -> Vec<usize> {
    nodes.iter().map(FakeNode::asked).collect()
}

#[test]
fn requests_are_spread_about_evenly() {
    let (nodes, client) = cluster(3);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..150).for_each(|_| drop(client.call(read()).unwrap())));
        }
    });
    let asked = asked(&nodes);
    assert_eq!(asked.iter().sum::<usize>(), 600);
    // By chance alone each has 200, give or take 12; one that the machine lets wait while others answer has less.
    assert!(asked.iter().all(|count| (60..=420).contains(count)), "{asked:?}");
    assert!(nodes.iter().all(|node| node.logins() <= 2), "connections are kept");
}

#[test]
fn what_is_idempotent_moves_from_a_node_that_dies_under_it() {
    let (nodes, client) = cluster(3);
    nodes[1].is(Mood::Dies);
    (0..100).for_each(|_| drop(client.call(read()).unwrap()));
    let asked = asked(&nodes);
    assert_eq!(asked[0] + asked[2], 100, "{asked:?}");
}

#[test]
fn what_is_not_idempotent_is_sent_once_and_its_outcome_told_as_unknown() {
    let (nodes, client) = cluster(2);
    nodes[0].is(Mood::Dies);
    let mut unknown = 0;
    for at in 0..60 {
        match client.call(rotate(&at.to_string())) {
            Ok(_) => {}
            Err(ClientError::OutcomeUnknown(error)) => {
                assert!(error.to_string().contains("127.0.0.1:"), "the node is named: {error}");
                unknown += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((nodes[0].asked(), nodes[0].asked() + nodes[1].asked()), (unknown, 60));
    assert!(unknown >= 1);
}

#[test]
fn a_node_that_drains_loses_no_request_of_any_kind() {
    let (nodes, client) = cluster(2);
    nodes[0].is(Mood::Drains);
    for at in 0..60 {
        client.call(rotate(&at.to_string())).unwrap();
        client.call(read()).unwrap();
    }
    assert!(nodes[0].rotated().is_empty() && nodes[0].asked() >= 1);
    assert_eq!(nodes[1].rotated().len(), 60);
}

#[test]
fn a_refusal_that_may_have_done_something_is_told_for_a_change_and_moves_a_read() {
    let (nodes, client) = cluster(2);
    nodes[0].is(Mood::Refuses(ErrorKind::StoreUnavailable));
    let mut refused = 0;
    for at in 0..60 {
        match client.call(rotate(&at.to_string())) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.refusal().expect("a refusal").code, ErrorKind::StoreUnavailable.code());
                refused += 1;
            }
        }
        client.call(read()).unwrap();
    }
    assert_eq!(nodes[1].rotated().len() + refused, 60);
}

#[test]
fn a_node_whose_queue_is_full_is_passed_over_and_does_not_rest() {
    let (nodes, client) = cluster(2);
    nodes[0].is(Mood::Refuses(ErrorKind::Busy));
    let began = Instant::now();
    (0..200).for_each(|_| drop(client.call(read()).unwrap()));
    assert_eq!(nodes[1].asked(), 200);
    // One that rests is asked a few times at most within these milliseconds.
    assert!(nodes[0].asked() > 50, "{}", nodes[0].asked());
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_node_that_comes_back_gets_work_again() {
    let (nodes, addresses) = FakeNode::several(2);
    nodes[0].is(Mood::Away);
    let client = client(addresses);
    (0..50).for_each(|_| drop(client.call(read()).unwrap()));
    assert_eq!(asked(&nodes), [0, 50]);
    nodes[0].is(Mood::Well);
    let deadline = Instant::now() + Duration::from_secs(30);
    while nodes[0].asked() < 20 {
        client.call(read()).unwrap();
        assert!(Instant::now() < deadline, "it is left alone for good");
    }
}

#[test]
fn a_silent_node_is_left_for_another_in_time_and_then_let_be() {
    let (nodes, client) = cluster(2);
    nodes[0].is(Mood::Silent);
    let request = || DescribeLimitsRequest { timeout_ms: Some(100) };
    let began = Instant::now();
    (0..60).for_each(|_| drop(client.call(request()).unwrap()));
    assert!(nodes[0].asked() <= 3, "{}", nodes[0].asked());
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn where_no_node_serves_the_tries_are_few_and_end_with_the_time() {
    let (nodes, addresses) = FakeNode::several(2);
    let mut config = Config::of_cluster(addresses, fake::credentials(SECRET));
    (config.first_backoff, config.last_backoff) = (Duration::from_millis(200), Duration::from_millis(800));
    let client = Client::connect(config).unwrap();
    nodes.iter().for_each(|node| node.is(Mood::Refuses(ErrorKind::Unavailable)));
    let began = Instant::now();
    let error = client.call(DescribeLimitsRequest { timeout_ms: Some(1) }).unwrap_err();
    assert_eq!(error.refusal().unwrap().code, ErrorKind::Unavailable.code());
    assert!(began.elapsed() < Duration::from_secs(4));
    // Two at once; then waits of 100 ms, 200 ms, and 400 ms from there on, at least, within two seconds.
    let tries: usize = asked(&nodes).iter().sum();
    assert!((3..=8).contains(&tries), "{tries}");
}

#[test]
fn one_node_that_answers_is_enough_to_begin_and_a_wrong_secret_is_told_at_once() {
    let (nodes, addresses) = FakeNode::several(3);
    nodes[0].is(Mood::Away);
    nodes[1].is(Mood::Away);
    for _ in 0..5 {
        client(addresses.clone()).call(read()).unwrap();
    }
    let config = Config::of_cluster(addresses.clone(), fake::credentials("wrong"));
    let error = Client::connect(config).unwrap_err();
    assert_eq!(error.refusal().unwrap().code, "SignatureDoesNotMatch");
    nodes[2].is(Mood::Away);
    let error = Client::connect(Config::of_cluster(addresses, fake::credentials(SECRET))).unwrap_err();
    assert!(matches!(error, ClientError::Io(_)), "{error}");
}

#[test]
fn under_nodes_that_fail_in_turn_no_read_is_lost_and_no_change_is_made_twice() {
    let (nodes, client) = cluster(3);
    let is_over = AtomicBool::new(false);
    let outcomes: Vec<(String, bool)> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let moods =
                [Mood::Dies, Mood::Away, Mood::Drains, Mood::Refuses(ErrorKind::Unavailable), Mood::Well];
            for round in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let node = &nodes[round % 3];
                node.is(moods[round % 5]);
                std::thread::sleep(Duration::from_millis(3));
                node.is(Mood::Well);
            }
        });
        let client = &client;
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                scope.spawn(move || {
                    let call = |at: usize| {
                        client.call(read()).expect("a read is never lost");
                        let name = format!("{caller}-{at}");
                        match client.call(rotate(&name)) {
                            Ok(_) => (name, true),
                            Err(ClientError::OutcomeUnknown(_) | ClientError::Refused(_)) => (name, false),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    (0..150).map(call).collect::<Vec<_>>()
                })
            })
            .collect();
        let outcomes = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        is_over.store(true, Ordering::SeqCst);
        outcomes
    });
    let mut rotated: Vec<_> = nodes.iter().flat_map(FakeNode::rotated).collect();
    rotated.sort();
    let count = rotated.len();
    rotated.dedup();
    assert_eq!(rotated.len(), count, "a change was made twice");
    for (name, _) in outcomes.iter().filter(|(_, is_done)| *is_done) {
        assert!(rotated.binary_search(&format!("alias/{name}")).is_ok(), "{name} was answered and not done");
    }
}
