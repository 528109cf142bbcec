//! Instances on two servers that share a store: one that is made at one of them is served by the other as well, and ends there, too. Its ceilings are
//! those of both together.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_databases::{Etcd, EtcdOptions};
use keymill_e2e::{Caller, Ends, From, Load, eventually, let_in};
use keymill_harness::program::{self, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

const WITHIN: &str = "127.0.0.2";
const ELSEWHERE: &str = "127.0.0.9";

/// Starts a server; what is over a quota it refuses always.
fn start(place: &TempDir, node: &str, endpoints: &[String]) -> Server {
    let config = format!(
        "[engine]\nnode = {node:?}\n[quota]\nidle_jobs = 0\n[cluster]\nview_ms = 3000\nlease_ms = 3000\n[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {endpoints:?}\n\
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

/// Two servers on one store, and an instance that both serve.
struct Pair {
    servers: [Server; 2],
    root: Credentials,
    id: String,
    credentials: Credentials,
    _places: [TempDir; 2],
    _etcd: Etcd,
}

impl Pair {
    fn start() -> Self {
        let etcd = Etcd::start_with(EtcdOptions::default());
        let endpoints = etcd.endpoints();
        let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let first = start(&places[0], "a", &endpoints);
        // Both have one root.
        fs::copy(places[0].path().join("data.root"), places[1].path().join("data.root")).unwrap();
        let second = start(&places[1], "b", &endpoints);
        let root = program::credentials(places[0].path());
        let nobody = Credentials::new("nobody-yet".parse().unwrap(), "none".to_owned());
        let servers = [first, second];
        let mut pair =
            Self { servers, root, id: String::new(), credentials: nobody, _places: places, _etcd: etcd };
        pair.make();
        pair
    }

    /// Makes an instance at the first, and waits until the other serves it.
    fn make(&mut self) {
        let mut at_first = self.administrator(0);
        let made = at_first.ask_json("CreateKmsInstance", json!({ "TimeoutMs": 50_000 })).unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        self.credentials = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
        self.id = text("KmsInstanceId");
        at_first.ask_json("ConnectKmsInstance", json!({ "KmsInstanceId": self.id, "VpcId": "one" })).unwrap();
        eventually("the other server serves it", || self.try_inside(1).ok());
    }

    fn release(&self, force: &str) -> Result<Value, String> {
        let asked =
            json!({ "KmsInstanceId": self.id, "ForceDeleteWithoutBackup": force, "TimeoutMs": 50_000 });
        self.administrator(0).ask_json("ReleaseKmsInstance", asked).map_err(|error| error.message)
    }

    /// Tells whether the first shows the instance to serve.
    fn is_connected(&self) -> bool {
        let shown = self.administrator(0).ask_json("GetKmsInstance", json!({ "KmsInstanceId": self.id }));
        shown.is_ok_and(|shown| shown["KmsInstance"]["Status"] == json!("Connected"))
    }

    fn try_inside(&self, at: usize) -> Result<Caller, String> {
        try_caller(WITHIN, &self.servers[at], &self.credentials)
    }

    fn inside(&self, at: usize) -> Caller {
        self.try_inside(at).unwrap()
    }

    fn administrator(&self, at: usize) -> Caller {
        try_caller(ELSEWHERE, &self.servers[at], &self.root).unwrap()
    }

    /// Changes what the instance may take, as one server is told.
    fn set(&self, at: usize, mut terms: Value) {
        terms["KmsInstanceId"] = json!(self.id);
        self.administrator(at).ask_json("UpdateKmsInstancePool", terms).unwrap();
    }

    /// Returns what a server tells of the use of a resource.
    fn used(&self, at: usize, kind: &str) -> u64 {
        let asked = json!({ "KmsInstanceId": self.id, "ResourceType": kind });
        let told = self.administrator(at).ask_json("GetKmsInstanceQuotaInfos", asked).unwrap();
        told["KmsInstanceQuotaInfos"][0]["UsedQuantity"].as_u64().unwrap()
    }

    fn end(self) {
        for server in self.servers {
            let told = server.stop_and_read();
            assert!(!told.contains("panicked") && !told.contains("is refused"), "{told}");
        }
    }
}

#[test]
fn an_instance_that_is_made_at_one_server_is_served_and_ended_by_the_other() {
    let pair = Pair::start();
    let (mut inside, mut other) = (pair.inside(0), pair.inside(1));
    let key = inside.create_key();
    let blob = inside.encrypt(key, b"of both", &[]).unwrap();
    eventually("the key is there", || other.decrypt(&blob, &[]).ok());
    let (mut at_first, mut at_second) = (pair.administrator(0), pair.administrator(1));
    let shown = at_second.ask_json("GetKmsInstance", json!({ "KmsInstanceId": pair.id })).unwrap();
    assert_eq!(shown["KmsInstance"]["Status"], json!("Connected"));
    other.disable(key).unwrap();
    eventually("it is disabled at the first", || inside.encrypt(key, b"x", &[]).err());
    // Ceilings go from node to node as well.
    pair.set(1, json!({ "MaxKeys": 1 }));
    eventually("the ceiling is in force at the first", || inside.create_described("").err());
    // So do workers: the first has those that the other was told of.
    pair.set(1, json!({ "SoftwareWorkers": 3 }));
    eventually("the workers are there at the first", || (pair.used(0, "softwareWorker") == 3).then_some(()));

    let release =
        json!({ "KmsInstanceId": pair.id, "ForceDeleteWithoutBackup": "true", "TimeoutMs": 50_000 });
    at_second.ask_json("ReleaseKmsInstance", release).unwrap();
    eventually("it ends at the first", || {
        let refused = pair.try_inside(0).err()?;
        (refused == "SignatureDoesNotMatch").then_some(())
    });
    eventually("the first no longer knows it", || {
        at_first.ask_json("GetKmsInstance", json!({ "KmsInstanceId": pair.id })).err()
    });
    drop((inside, other, at_first, at_second));
    pair.end();
}

/// The other server is held while the first counts, and has both the request and the end of the instance before it when it goes on.
#[test]
fn an_instance_is_not_released_as_empty_where_another_server_makes_a_key_meanwhile() {
    let mut pair = Pair::start();
    for _ in 0..3 {
        let mut maker = pair.inside(1);
        pair.servers[1].signal("STOP");
        let (key, released) = std::thread::scope(|scope| {
            let makes = scope.spawn(move || maker.create_described("").ok());
            let releases = scope.spawn(|| pair.release("false"));
            eventually("the release begins", || (!pair.is_connected()).then_some(()));
            pair.servers[1].signal("CONT");
            (makes.join().unwrap(), releases.join().unwrap())
        });
        println!("a key: {}, released: {}", key.is_some(), released.is_ok());
        match released {
            Ok(_) => assert!(key.is_none(), "a key is lost that somebody was told of"),
            Err(why) => {
                assert!(why.contains("the instance holds 1 keys"), "{why}");
                for at in [0, 1] {
                    let listed = eventually("it serves on", || {
                        pair.try_inside(at).ok()?.ask_json("ListKeys", json!({})).ok()
                    });
                    assert_eq!(listed["TotalCount"], json!(1));
                }
                pair.release("true").unwrap();
            }
        }
        pair.make();
    }
    pair.end();
}

/// Requests a second that the instance may have: few, so that callers can ask for many more on a machine that is busy with other tests.
const LIMIT: u64 = 60;
const CALLERS: usize = 3;

#[test]
fn the_rate_of_an_instance_holds_over_both_servers_whoever_asks_for_how_much() {
    let pair = Pair::start();
    pair.set(0, json!({ "RequestsPerSecond": LIMIT }));
    let key = pair.inside(0).create_key();
    let mut there = pair.inside(1);
    eventually("the key is there", || there.describe(key).ok());
    let loads = <[Load; 2]>::default();
    std::thread::scope(|scope| {
        let ends = Ends(&loads);
        for (server, load) in pair.servers.iter().zip(&loads) {
            for _ in 0..CALLERS {
                let caller = try_caller(WITHIN, server, &pair.credentials).unwrap();
                scope.spawn(move || load.run(caller, key));
            }
        }
        // Who is asked, how long until they know of each other, and what may be taken.
        for (is_asked, settles_s, limit) in [
            ([true, true], 4, LIMIT),
            ([true, false], 8, LIMIT),
            ([true, true], 4, LIMIT),
            ([true, true], 3, LIMIT / 2),
        ] {
            if limit != LIMIT {
                pair.set(1, json!({ "RequestsPerSecond": limit }));
            }
            loads.iter().zip(is_asked).for_each(|(load, asks)| load.ask(asks));
            std::thread::sleep(Duration::from_secs(settles_s));
            let [a, b] = let_in(&loads, limit);
            println!("{is_asked:?} are asked, of {limit}: {a:.3} and {b:.3}");
            assert!((0.9..=1.1).contains(&(a + b)), "{is_asked:?}: {a} and {b}");
            assert_eq!(b > 0.3, is_asked[1], "{a} and {b}");
            // Each tells what both do: also the one that is not asked.
            let told = [0, 1].map(|at| pair.used(at, "qps"));
            println!("told: {told:?}");
            assert!(told.iter().all(|told| *told > limit / 2), "{told:?}");
        }
        drop(ends);
    });
    pair.end();
}

#[test]
fn two_servers_that_make_keys_at_once_stop_at_the_ceiling_or_little_above() {
    const MAX: u64 = 60;
    let pair = Pair::start();
    pair.set(0, json!({ "MaxKeys": MAX }));
    eventually("the ceiling is known at both", || {
        let asked = json!({ "KmsInstanceId": pair.id, "ResourceType": "key" });
        let told = pair.administrator(1).ask_json("GetKmsInstanceQuotaInfos", asked).unwrap();
        (told["KmsInstanceQuotaInfos"][0]["ResourceQuota"] == json!(MAX)).then_some(())
    });
    let made: u64 = std::thread::scope(|scope| {
        let makers = [0, 1].map(|at| {
            let mut caller = pair.inside(at);
            scope.spawn(move || {
                let mut made = 0;
                loop {
                    match caller.create_described("") {
                        Ok(_) => made += 1,
                        Err(error) => break (made, error.code),
                    }
                    assert!(made <= MAX, "it goes on");
                }
            })
        });
        let of = |(made, code): (u64, String)| {
            assert_eq!(code, "Rejected.LimitExceeded.Keys");
            made
        };
        makers.into_iter().map(|maker| of(maker.join().unwrap())).sum()
    });
    println!("{made} keys of {MAX}");
    assert!((MAX..MAX + MAX / 2).contains(&made), "{made} keys of {MAX}");
    // Each knows of all, and nobody makes another.
    for at in [0, 1] {
        eventually("it knows of all", || (pair.used(at, "key") == made).then_some(()));
        assert!(pair.inside(at).create_described("").is_err());
    }
    pair.end();
}
