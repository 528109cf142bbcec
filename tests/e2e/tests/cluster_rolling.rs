//! Servers of one cluster that stop: each in its turn under load, as in an upgrade, without a request that fails; and within seconds while the store is
//! away.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_client::client::Config;
use keymill_client::{Addresses, Client, ClientError, Credentials, Options};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_databases::Etcd;
use keymill_harness::program::{self, Server};
use tempfile::TempDir;

const NODES: usize = 3;
/// What a request may take with all its tries: longer than a server takes to stop and start.
const PATIENCE_MS: u64 = 30_000;
/// The time-out of the store.
const STORE_MS: u64 = 3_000;

/// Where a server keeps its things.
struct Home {
    place: TempDir,
    /// Zero before the first start.
    port: u16,
}

impl Home {
    fn new(name: &str, etcd: &Etcd) -> Self {
        let private = Permissions::from_mode(0o700);
        let place = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let endpoints = etcd.endpoints();
        let text = format!(
            "[engine]\nnode = \"{name}\"\n[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {endpoints:?}\ntimeout_ms = {STORE_MS}\n"
        );
        std::fs::write(place.path().join("keymill.toml"), text).unwrap();
        Self { place, port: 0 }
    }

    /// Starts a server, at the port that it had.
    fn run(&mut self) -> Server {
        let home = self.place.path();
        let mut command = program::serve_on(home, "127.0.0.1:0", &format!("127.0.0.1:{}", self.port));
        command.arg("--config").arg(home.join("keymill.toml"));
        let server = Server::start_by(command, home);
        self.port = server.msgpack.port();
        server
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of this server alone.
    fn client(&self, credentials: Credentials) -> Client {
        let addresses = Addresses::new([self.address()]).unwrap();
        Client::connect(Config::of_cluster(addresses, credentials)).unwrap()
    }
}

/// Waits until a server knows a key that another one made: within a second it does, where the machine has time for it.
fn is_known_at(home: &Home, root: Credentials, key: CmkId) {
    let (client, began) = (home.client(root), Instant::now());
    while let Err(error) = encrypt(&client, key, b"text") {
        assert!(
            matches!(&error, ClientError::Refused(refusal) if refusal.code == "Forbidden.KeyNotFound"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn create_key(client: &Client) -> Result<CmkId, ClientError> {
    let reply = client.call(CreateKeyRequest { timeout_ms: Some(PATIENCE_MS), ..Default::default() })?;
    match reply.reply()? {
        Reply::CreateKey(reply) => Ok(reply.key_metadata.key_id),
        other => panic!("{other:?}"),
    }
}

fn encrypt(client: &Client, key: CmkId, text: &[u8]) -> Result<Vec<u8>, ClientError> {
    let reply = client.call(EncryptRequest {
        key_id: KeyRef::Id(key),
        plaintext: Bin::from(text),
        encryption_context: None,
        timeout_ms: Some(PATIENCE_MS),
    })?;
    match reply.reply()? {
        Reply::Encrypt(reply) => Ok(reply.ciphertext_blob.into_vec()),
        other => panic!("{other:?}"),
    }
}

fn decrypt(client: &Client, blob: &[u8]) -> Result<Vec<u8>, ClientError> {
    let reply = client.call(DecryptRequest {
        ciphertext_blob: Bin::from(blob),
        key_id: None,
        encryption_context: None,
        timeout_ms: Some(PATIENCE_MS),
    })?;
    match reply.reply()? {
        Reply::Decrypt(reply) => Ok(reply.plaintext.into_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_server_is_replaced_in_its_turn_and_no_request_fails() {
    let etcd = Etcd::start();
    let mut homes: Vec<Home> = (0..NODES).map(|n| Home::new(&format!("node-{n}"), &etcd)).collect();
    let first = homes[0].run();
    let first_home = homes[0].place.path().to_owned();
    let root = || program::credentials(&first_home);
    let (root_file, others) = (homes[0].place.path().join("data.root"), &homes[1..]);
    for home in others {
        std::fs::copy(&root_file, home.place.path().join("data.root")).unwrap();
    }
    let mut servers = vec![first];
    servers.extend(homes[1..].iter_mut().map(Home::run));
    let addresses = Addresses::new(homes.iter().map(Home::address)).unwrap();
    let options = Options { connect_timeout: Duration::from_secs(2), ..Options::default() };
    let client = Client::connect(Config { options, ..Config::of_cluster(addresses, root()) }).unwrap();
    let key = create_key(&client).unwrap();
    homes.iter().for_each(|home| is_known_at(home, root(), key));

    let (is_over, sealed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (client, sealed, is_over) = (&client, &sealed, &is_over);
            scope.spawn(move || {
                let mut round = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    let text = format!("text {round} of {thread}").into_bytes();
                    let blob = encrypt(client, key, &text).unwrap();
                    assert_eq!(decrypt(client, &blob).unwrap(), text);
                    sealed.lock().unwrap().push((blob, text));
                    round += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (node, home) in homes.iter_mut().enumerate() {
                let before = sealed.lock().unwrap().len();
                let status = servers.remove(node).stop();
                assert!(status.success(), "{status}");
                servers.insert(node, home.run());
                let began = Instant::now();
                // The load goes on, also while it is gone.
                while sealed.lock().unwrap().len() < before + 50 {
                    assert!(began.elapsed() < Duration::from_secs(60), "nothing is answered");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        replaced.unwrap();
    });
    // By servers of which none is one of those that sealed it.
    let sealed = sealed.into_inner().unwrap();
    for (blob, text) in &sealed {
        assert_eq!(decrypt(&client, blob).unwrap(), *text);
    }
    for server in servers {
        assert!(server.stop().success());
    }
}

#[test]
fn a_server_stops_within_seconds_while_its_store_is_away() {
    let etcd = Etcd::start();
    let mut home = Home::new("a", &etcd);
    let mut server = home.run();
    let place = home.place.path().to_owned();
    let root = || program::credentials(&place);
    let key = create_key(&home.client(root())).unwrap();
    for is_known in [false, true] {
        let blob = encrypt(&home.client(root()), key, b"text").unwrap();
        etcd.pause(0, true);
        if is_known {
            // The server knows by then that the store is away.
            let began = Instant::now();
            while encrypt(&home.client(root()), key, b"text").is_ok() {
                assert!(began.elapsed() < Duration::from_secs(60));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let began = Instant::now();
        let status = server.stop();
        let took = began.elapsed();
        etcd.pause(0, false);
        assert!(status.success(), "{status}");
        // Five seconds, on a machine that does other things as well.
        assert!(took < Duration::from_secs(9), "it took {took:?}");
        server = home.run();
        assert_eq!(decrypt(&home.client(root()), &blob).unwrap(), b"text", "what was answered is there");
    }
    assert!(server.stop().success());
}
