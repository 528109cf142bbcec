//! Instances on two servers that share a store: one that is made at one of them is served by the other as well, and ends there, too.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_databases::{Etcd, EtcdOptions};
use keymill_e2e::{Caller, From, eventually};
use keymill_harness::program::{self, Server};
use serde_json::json;
use tempfile::TempDir;

const WITHIN: &str = "127.0.0.2";
const ELSEWHERE: &str = "127.0.0.9";

fn start(place: &TempDir, node: &str, endpoints: &[String]) -> Server {
    let config = format!(
        "[engine]\nnode = {node:?}\n[cluster]\nview_ms = 3000\nlease_ms = 3000\n[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {endpoints:?}\n\
         [networks.one]\nsources = [\"{WITHIN}\"]\n"
    );
    let file = place.path().join("keymill.toml");
    fs::write(&file, config).unwrap();
    Server::start_with(place.path(), &["--config", file.to_str().unwrap()])
}

fn try_caller(source: &str, server: &Server, credentials: &Credentials) -> Result<Caller, String> {
    let way = From::address(source, server.msgpack);
    match Connection::open(way.address, credentials, &Options::default()) {
        Ok(connection) => Ok(Caller::of(connection)),
        Err(ClientError::Refused(error)) => Err(error.code),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_instance_that_is_made_at_one_server_is_served_and_ended_by_the_other() {
    let etcd = Etcd::start_with(EtcdOptions::default());
    let endpoints = etcd.endpoints();
    let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = start(&places[0], "a", &endpoints);
    // Both have one root.
    fs::copy(places[0].path().join("data.root"), places[1].path().join("data.root")).unwrap();
    let second = start(&places[1], "b", &endpoints);
    let root = program::credentials(places[0].path());
    let mut at_first = try_caller(ELSEWHERE, &first, &root).unwrap();
    let made = at_first.ask_json("CreateKmsInstance", json!({ "TimeoutMs": 50_000 })).unwrap();
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    let credentials = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
    let id = text("KmsInstanceId");
    at_first.ask_json("ConnectKmsInstance", json!({ "KmsInstanceId": id, "VpcId": "one" })).unwrap();

    let mut inside = try_caller(WITHIN, &first, &credentials).unwrap();
    let key = inside.create_key();
    let blob = inside.encrypt(key, b"of both", &[]).unwrap();
    let mut other =
        eventually("the other server serves it", || try_caller(WITHIN, &second, &credentials).ok());
    eventually("the key is there", || other.decrypt(&blob, &[]).ok());
    let mut at_second = try_caller(ELSEWHERE, &second, &root).unwrap();
    let shown = at_second.ask_json("GetKmsInstance", json!({ "KmsInstanceId": id })).unwrap();
    assert_eq!(shown["KmsInstance"]["Status"], json!("Connected"));
    other.disable(key).unwrap();
    eventually("it is disabled at the first", || inside.encrypt(key, b"x", &[]).err());
    // Ceilings go from node to node as well.
    at_second.ask_json("UpdateKmsInstancePool", json!({ "KmsInstanceId": id, "MaxKeys": 1 })).unwrap();
    eventually("the ceiling is in force at the first", || inside.create_described("").err());
    // So do workers: the first has those that the other was told of.
    at_second
        .ask_json("UpdateKmsInstancePool", json!({ "KmsInstanceId": id, "SoftwareWorkers": 3 }))
        .unwrap();
    eventually("the workers are there at the first", || {
        let asked = json!({ "KmsInstanceId": id, "ResourceType": "softwareWorker" });
        let infos = at_first.ask_json("GetKmsInstanceQuotaInfos", asked).unwrap();
        (infos["KmsInstanceQuotaInfos"][0]["UsedQuantity"] == json!(3)).then_some(())
    });

    let release = json!({ "KmsInstanceId": id, "ForceDeleteWithoutBackup": "true", "TimeoutMs": 50_000 });
    at_second.ask_json("ReleaseKmsInstance", release).unwrap();
    eventually("it ends at the first", || {
        let refused = try_caller(WITHIN, &first, &credentials).err()?;
        (refused == "SignatureDoesNotMatch").then_some(())
    });
    eventually("the first no longer knows it", || {
        at_first.ask_json("GetKmsInstance", json!({ "KmsInstanceId": id })).err()
    });
    for server in [first, second] {
        let told = server.stop_and_read();
        assert!(!told.contains("panicked") && !told.contains("is refused"), "{told}");
    }
}
