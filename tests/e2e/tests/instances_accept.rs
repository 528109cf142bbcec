//! An operator's word that a store is accepted as it stands is of the instances that are there when the server starts, and of none that is made or
//! comes later.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use keymill_client::{Connection, Credentials, Options};
use keymill_databases::{Etcd, EtcdOptions};
use keymill_e2e::{Caller, eventually};
use keymill_harness::program::{self, Server};
use serde_json::json;
use tempfile::TempDir;

const WORD: &str = "--accept-history";
/// What is said for each store that there is nothing to accept of.
const IN_VAIN: &str = "there is nothing to accept";

fn start(place: &TempDir, node: &str, etcd: &Etcd, flags: &[&str]) -> Server {
    let endpoints = etcd.endpoints();
    let config = format!(
        "[engine]\nnode = {node:?}\n[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {endpoints:?}\n"
    );
    let file = place.path().join("keymill.toml");
    fs::write(&file, config).unwrap();
    Server::start_with(place.path(), &[&["--config", file.to_str().unwrap()], flags].concat())
}

fn caller(server: &Server, root: &Credentials) -> Caller {
    Caller::of(Connection::open(server.msgpack, root, &Options::default()).unwrap())
}

fn make(caller: &mut Caller) -> String {
    let made = caller.ask_json("CreateKmsInstance", json!({ "TimeoutMs": 50_000 })).unwrap();
    made["KmsInstanceId"].as_str().unwrap().to_owned()
}

#[test]
fn the_word_is_of_the_instances_that_are_there_and_of_none_that_comes_later() {
    let etcd = Etcd::start_with(EtcdOptions::default());
    let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = start(&places[0], "a", &etcd, &[]);
    fs::copy(places[0].path().join("data.root"), places[1].path().join("data.root")).unwrap();
    let root = program::credentials(places[0].path());
    make(&mut caller(&first, &root));
    assert!(!first.stop_and_read().contains(IN_VAIN));

    let first = start(&places[0], "a", &etcd, &[WORD]);
    let second = start(&places[1], "b", &etcd, &[]);
    let mut at_first = caller(&first, &root);
    // Its store is empty: there is nothing in it that could be accepted.
    make(&mut at_first);
    let elsewhere = make(&mut caller(&second, &root));
    eventually("the first serves it as well", || {
        let asked = json!({ "KmsInstanceId": elsewhere });
        let told = at_first.ask_json("GetKmsInstance", asked).ok()?;
        (told["KmsInstance"]["Status"] == json!("Uninitialized")).then_some(())
    });
    drop(at_first);
    let told = first.stop_and_read();
    assert_eq!(told.matches(IN_VAIN).count(), 2, "the installation, and the one that was there: {told}");
    second.stop_and_read();
}
