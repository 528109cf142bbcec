//! The end of an instance: released where that is allowed, also under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keymill_client::{ClientError, Credentials, HttpClient};
use keymill_core::operation::*;
use keymill_e2e::From;
use serde_json::json;

use super::scene::{Made, NOT_FOUND, STATE, STRANGER, Scene, source_of};

/// What a request is told whose access key went with its instance.
const GONE: &str = "InvalidAccessKeyId.NotFound";
/// How long one who is at work in an instance may take to notice its end, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_instance_is_released_where_it_is_empty_or_by_force_and_not_while_it_is_protected() {
    let scene = Scene::start();
    let (first, second) = (scene.connected("a", "one"), scene.connected("b", "two"));
    let protect = |is_protected: bool| {
        let parameters = json!({ "KmsInstanceId": first.id, "EnableDeletionProtection": is_protected, "DeletionProtectionDescription": "production" });
        scene.asked("SetDeletionProtection", parameters).unwrap();
    };
    protect(true);
    let shown = scene.shown(&first.id);
    assert_eq!(
        (&shown["DeletionProtection"], &shown["DeletionProtectionDescription"]),
        (&json!(true), &json!("production"))
    );
    assert_eq!(scene.release(&first.id, "true").unwrap_err(), "Rejected.StateModifiedFailed");
    protect(false);
    let mut inside = scene.caller(source_of("one"), &first.credentials);
    let key = inside.create_key();
    for force in ["", "false"] {
        assert_eq!(scene.release(&first.id, force).unwrap_err(), STATE);
    }
    assert_eq!(scene.release(&first.id, "perhaps").unwrap_err(), "InvalidParameter");
    // What was refused has changed nothing.
    inside.encrypt(key, b"x", &[]).unwrap();
    inside.create_key();
    scene.release(&first.id, "true").unwrap();
    assert_eq!(scene.release(&first.id, "true").unwrap_err(), NOT_FOUND);
    assert_eq!(scene.try_caller(source_of("one"), &first.credentials).err().unwrap(), STRANGER);
    // One that holds nothing needs no force, and the network is free for another.
    scene.release(&second.id, "").unwrap();
    let third = scene.connected("c", "one");
    let mut inside = scene.caller(source_of("one"), &third.credentials);
    assert_eq!(inside.ask_json("ListKeys", json!({})).unwrap()["TotalCount"], json!(0));
    // The audit of what is gone stays.
    assert!(scene.audit_of(&first.id).is_dir());
}

/// Callers that are at work while their instance goes are answered or refused, each request once; the neighbour notices nothing.
#[test]
fn an_instance_ends_under_load_without_harm_to_its_neighbour() {
    let mut scene = Scene::start();
    let (ending, staying) = (Arc::new(scene.connected("a", "one")), scene.connected("b", "two"));
    let is_over = Arc::new(AtomicBool::new(false));
    // Whoever is at work in what ends goes on until it has noticed, however long the machine lets it wait.
    let load = |made: &Made, vpc: &str, ends: bool| {
        let mut caller = scene.caller(source_of(vpc), &made.credentials);
        let key = caller.create_key();
        let (is_over, done) = (is_over.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = done.clone();
        let thread = std::thread::spawn(move || {
            let mut refused = Vec::new();
            let until = Instant::now() + PATIENCE;
            while !is_over.load(Ordering::Relaxed) || (ends && refused.is_empty() && Instant::now() < until) {
                match caller.encrypt(key, b"0123456789abcdef", &[]) {
                    Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        refused.push(error.code);
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
            refused
        });
        (done, thread)
    };
    let ends: Vec<_> = (0..3).map(|_| load(&ending, "one", true)).collect();
    let (stays_done, stays) = load(&staying, "two", false);
    let web = {
        let (address, ending) = (scene.server().http, ending.clone());
        let is_over = is_over.clone();
        std::thread::spawn(move || asks_on(address, &ending.credentials, &is_over))
    };
    let all = |least: usize| {
        while ends
            .iter()
            .map(|(done, _)| done)
            .chain([&stays_done])
            .any(|done| done.load(Ordering::Relaxed) < least)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    all(200);
    scene.release(&ending.id, "true").unwrap();
    let before = stays_done.load(Ordering::Relaxed);
    while stays_done.load(Ordering::Relaxed) < before + 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
    is_over.store(true, Ordering::Relaxed);
    for (_, thread) in ends {
        let refused = thread.join().unwrap();
        assert!(!refused.is_empty(), "it went on behind its end");
        for code in refused {
            assert!(
                ["ServiceUnavailableTemporary", "InvalidAccessKeyId.Inactive"].contains(&&*code),
                "{code}"
            );
        }
    }
    assert_eq!(stays.join().unwrap(), Vec::<String>::new());
    let refused = web.join().unwrap();
    assert_eq!(refused.last().map(String::as_str), Some(GONE), "{refused:?}");
    let told = scene.server.take().unwrap().stop_and_read();
    assert!(!told.contains("panicked"), "{told}");
    scene.serve();
    assert_eq!(scene.asked("ListKmsInstances", json!({})).unwrap()["TotalCount"], json!(1));
    scene.caller(source_of("two"), &staying.credentials);
}

/// Lists keys until it is over and the access key is gone, and returns the codes of what was refused.
fn asks_on(server: SocketAddr, credentials: &Credentials, is_over: &AtomicBool) -> Vec<String> {
    let way = From::address(source_of("one"), server);
    let client = HttpClient::new(&format!("http://{}", way.address), Duration::from_secs(20)).unwrap();
    let (mut refused, until) = (Vec::<String>::new(), Instant::now() + PATIENCE);
    let is_gone = |refused: &[String]| refused.last().is_some_and(|code| code == GONE);
    while !is_over.load(Ordering::Relaxed) || (!is_gone(&refused) && Instant::now() < until) {
        match client.call(ListKeysRequest::default(), credentials) {
            Ok(_) => {}
            Err(ClientError::Refused(error)) => {
                refused.push(error.code);
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(other) => panic!("{other}"),
        }
    }
    refused
}
