//! Three servers on three members of etcd under load, while each of them is killed, paused and cut off in random order. Every answer is right, all that
//! was answered is there, no request that may be repeated fails through the client, and no key is used later than is stated after it was disabled.
//! Where this process may, all six are in network namespaces of their own, between any two of which nothing passes once they are cut.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stdout, reason = "what befalls it, and what that came to")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_client::client::Config;
use keymill_client::{Addresses, Client, ClientError, Connection, Credentials, Options, Tls};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_databases::{Etcd, EtcdOptions, Network};
use keymill_e2e::{Authority, Disabled, History, Place, Used};
use keymill_harness::program::{self, Server, program};

const NODES: usize = 3;
const VIEW: Duration = Duration::from_secs(3);
/// What one server has answered all know within this time, or refuse: what comes between is the way there and back.
const KNOWN: Duration = Duration::from_millis(3_500);
/// How long after its failure a change may yet be made whose outcome is not known: a server may be paused with it, and its store away.
const UNKNOWN: Duration = Duration::from_secs(20);
/// What a request may take with all its tries: longer than any one fault.
const PATIENCE_MS: u64 = 30_000;

/// The servers, the members, and what joins them.
struct Cluster {
    nodes: Mutex<Vec<Option<Server>>>,
    etcd: Mutex<Etcd>,
    places: Vec<Place>,
    ports: Vec<u16>,
    network: Option<Network>,
    tls: Tls,
}

impl Cluster {
    fn start() -> Self {
        let network = Network::try_new(2 * NODES);
        if network.is_none() {
            println!("without network namespaces: nothing is cut off, but paused instead");
        }
        let seats = (NODES..2 * NODES).filter_map(|n| Some(network.as_ref()?.seat(n).clone())).collect();
        let etcd =
            Etcd::start_with(EtcdOptions { members: NODES, seats, is_tls: true, ..EtcdOptions::default() });
        let host = |node: usize| match &network {
            Some(network) => network.seat(node).address.to_string(),
            None => "127.0.0.1".to_owned(),
        };
        let hosts: Vec<String> = (0..NODES).map(host).collect();
        let authority = Authority::new("servers");
        let issued = authority.server(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
        let places: Vec<Place> = (0..NODES).map(|_| Place::with(&issued)).collect();
        let tls = Tls { tls: places[0].client(&authority, None), host: None };
        for (node, place) in places.iter().enumerate() {
            let mut text = format!(
                "[engine]\nnode = \"node-{node}\"\nusage_flush_ms = 500\n[cluster]\nview_ms = {}\nlease_ms = 3000\n",
                VIEW.as_millis()
            );
            let ((cert_file, key_file), endpoints) = (etcd.identity(), etcd.endpoints());
            write!(
                text,
                "[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {endpoints:?}\nserver_name = \"localhost\"\nca_file = {:?}\n\
                 cert_file = {cert_file:?}\nkey_file = {key_file:?}\n",
                etcd.ca_file()
            )
            .unwrap();
            for listener in ["http", "msgpack"] {
                write!(
                    text,
                    "[{listener}.tls]\ncertificate = {:?}\nkey = {:?}\n",
                    place.path("server.crt"),
                    place.path("server.key")
                )
                .unwrap();
            }
            place.put("keymill.toml", &text);
        }
        let mut cluster = Self {
            nodes: Mutex::default(),
            etcd: Mutex::new(etcd),
            ports: vec![0; NODES],
            network,
            tls,
            places,
        };
        let first = cluster.run(0);
        // All have one root.
        for place in &cluster.places[1..] {
            std::fs::copy(cluster.places[0].path("data.root"), place.path("data.root")).unwrap();
        }
        let nodes = vec![Some(first), Some(cluster.run(1)), Some(cluster.run(2))];
        cluster.ports = nodes.iter().flatten().map(|server| server.msgpack.port()).collect();
        cluster.nodes = Mutex::new(nodes);
        cluster
    }

    fn host(&self, node: usize) -> String {
        match &self.network {
            Some(network) => network.seat(node).address.to_string(),
            None => "127.0.0.1".to_owned(),
        }
    }

    /// Starts a server, at the port that it had.
    fn run(&self, node: usize) -> Server {
        let home = self.places[node].path("");
        let (host, port) = (self.host(node), self.ports[node]);
        let mut command = program::serve_on(&home, &format!("{host}:0"), &format!("{host}:{port}"));
        command.arg("--config").arg(self.places[node].path("keymill.toml"));
        if let Some(network) = &self.network {
            command = network.seat(node).wrap(&command);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        }
        Server::start_by(command, &home)
    }

    fn root(&self) -> Credentials {
        program::credentials(&self.places[0].path(""))
    }

    fn options(&self) -> Options {
        Options { tls: Some(self.tls.clone()), connect_timeout: Duration::from_secs(2), ..Options::default() }
    }

    fn client(&self) -> Client {
        let addresses = (0..NODES).map(|node| format!("{}:{}", self.host(node), self.ports[node]));
        let addresses = Addresses::new(addresses).unwrap();
        Client::connect(Config { options: self.options(), ..Config::of_cluster(addresses, self.root()) })
            .unwrap()
    }

    /// Logs in at one node, if it is there.
    fn direct(&self, node: usize) -> Option<Connection> {
        let address = format!("{}:{}", self.host(node), self.ports[node]).parse().unwrap();
        let connection = Connection::open(address, &self.root(), &self.options()).ok()?;
        connection.set_read_timeout(Duration::from_secs(2)).unwrap();
        Some(connection)
    }
}

/// One thing that goes wrong, for a while.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode(usize),
    KillMember(usize),
    PauseNode(usize),
    PauseMember(usize),
    CutNodeFromMember(usize, usize),
    CutMembers(usize, usize),
    CutNodeFromAll(usize),
    CutNodeFromClients(usize),
}

impl Fault {
    /// Every fault there is, on each that it can befall.
    fn all(has_network: bool) -> Vec<Fault> {
        let mut all = Vec::new();
        for n in 0..NODES {
            all.extend([Self::KillNode(n), Self::KillMember(n), Self::PauseNode(n), Self::PauseMember(n)]);
            if has_network {
                all.extend([
                    Self::CutNodeFromAll(n),
                    Self::CutNodeFromClients(n),
                    Self::CutMembers(n, (n + 1) % NODES),
                ]);
                all.extend((0..NODES).map(|member| Self::CutNodeFromMember(n, member)));
            }
        }
        all
    }

    /// Has it happen, and mends it.
    fn befall(self, cluster: &Cluster) {
        let network = || cluster.network.as_ref().unwrap();
        let wait = |ms: u64| std::thread::sleep(Duration::from_millis(ms));
        match self {
            Self::KillNode(n) => {
                let server = cluster.nodes.lock().unwrap()[n].take().unwrap();
                server.kill();
                wait(500);
                let again = cluster.run(n);
                cluster.nodes.lock().unwrap()[n] = Some(again);
            }
            Self::KillMember(n) => {
                cluster.etcd.lock().unwrap().kill(n);
                wait(2_000);
                cluster.etcd.lock().unwrap().start_again(n);
            }
            Self::PauseNode(n) => {
                // Longer than its leases, and than its view may be old: what it has in hand when it wakes is out of date.
                let signal = |name: &str| cluster.nodes.lock().unwrap()[n].as_ref().unwrap().signal(name);
                signal("STOP");
                wait(5_000);
                signal("CONT");
            }
            Self::PauseMember(n) => {
                cluster.etcd.lock().unwrap().pause(n, true);
                wait(3_000);
                cluster.etcd.lock().unwrap().pause(n, false);
            }
            Self::CutNodeFromMember(n, member) => Self::cut(network(), &[(n, NODES + member)], 4_000),
            Self::CutMembers(one, other) => Self::cut(network(), &[(NODES + one, NODES + other)], 4_000),
            Self::CutNodeFromAll(n) => {
                let pairs: Vec<_> = (0..NODES).map(|member| (n, NODES + member)).collect();
                Self::cut(network(), &pairs, 6_000);
            }
            Self::CutNodeFromClients(n) => {
                network().cut_from_host(n, true);
                wait(4_000);
                network().cut_from_host(n, false);
            }
        }
    }

    fn cut(network: &Network, pairs: &[(usize, usize)], ms: u64) {
        pairs.iter().for_each(|(one, other)| network.cut(*one, *other, true));
        std::thread::sleep(Duration::from_millis(ms));
        pairs.iter().for_each(|(one, other)| network.cut(*one, *other, false));
    }
}

/// Numbers of which one seed gives always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        keymill_harness::next(&mut self.0) % n
    }
}

fn create_key(client: &Client) -> Result<CmkId, ClientError> {
    let reply = client.call(CreateKeyRequest { timeout_ms: Some(PATIENCE_MS), ..Default::default() })?;
    match reply.reply()? {
        Reply::CreateKey(reply) => Ok(reply.key_metadata.key_id),
        other => panic!("{other:?}"),
    }
}

fn encrypt_request(key: CmkId, text: &[u8], timeout_ms: u64) -> EncryptRequest<'_> {
    EncryptRequest {
        key_id: KeyRef::Id(key),
        plaintext: Bin::from(text),
        encryption_context: None,
        timeout_ms: Some(timeout_ms),
    }
}

fn encrypt(client: &Client, key: CmkId, text: &[u8]) -> Result<Vec<u8>, ClientError> {
    let reply = client.call(encrypt_request(key, text, PATIENCE_MS))?;
    match reply.reply()? {
        Reply::Encrypt(reply) => Ok(reply.ciphertext_blob.into_vec()),
        other => panic!("{other:?}"),
    }
}

fn decrypt_request(blob: &[u8]) -> DecryptRequest<'_> {
    DecryptRequest {
        ciphertext_blob: Bin::from(blob),
        key_id: None,
        encryption_context: None,
        timeout_ms: Some(PATIENCE_MS),
    }
}

fn decrypt(client: &Client, blob: &[u8]) -> Result<Vec<u8>, ClientError> {
    let reply = client.call(decrypt_request(blob))?;
    match reply.reply()? {
        Reply::Decrypt(reply) => Ok(reply.plaintext.into_vec()),
        other => panic!("{other:?}"),
    }
}

/// A text that was sealed under a key of its own.
#[derive(Clone)]
struct Sealed {
    key: CmkId,
    /// When its making was answered.
    made: Instant,
    blob: Vec<u8>,
    text: Vec<u8>,
}

/// What was answered, and what went wrong.
#[derive(Default)]
struct Seen {
    sealed: Mutex<Vec<Sealed>>,
    /// Requests that came to a server which had not heard of the key yet, as it may.
    early: AtomicU64,
    failed: Mutex<Vec<String>>,
    refused: Mutex<BTreeMap<String, u64>>,
    opened: AtomicU64,
    history: History,
}

impl Seen {
    /// Makes keys, and seals a text under each; a key whose making was not answered is nobody's.
    fn write(&self, client: &Client, thread: usize, is_over: &AtomicBool) {
        for round in 0_u64.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(key) = create_key(client).inspect_err(|error| self.refuse(error)) else { continue };
            let made = Instant::now();
            let text = format!("text {round} of {thread}").into_bytes();
            loop {
                match encrypt(client, key, &text) {
                    Ok(blob) => self.sealed.lock().unwrap().push(Sealed { key, made, blob, text }),
                    Err(error) if self.is_early(&error, made) => {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    Err(error) => self.failed.lock().unwrap().push(format!("encrypt under {key}: {error}")),
                }
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Opens what was sealed, at random.
    fn read(&self, client: &Client, seed: u64, is_over: &AtomicBool) {
        let mut dice = Dice(seed);
        while !is_over.load(Ordering::Relaxed) {
            let chosen = {
                let sealed = self.sealed.lock().unwrap();
                (!sealed.is_empty()).then(|| sealed[dice.below(sealed.len())].clone())
            };
            let Some(Sealed { key, made, blob, text }) = chosen else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            match decrypt(client, &blob) {
                Ok(opened) => {
                    assert!(opened == text, "{key} opened something else");
                    self.opened.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if self.is_early(&error, made) => {}
                Err(error) => self.failed.lock().unwrap().push(format!("decrypt under {key}: {error}")),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Disables and enables a key, again and again.
    fn toggle(&self, client: &Client, key: CmkId, is_over: &AtomicBool) {
        let mut sure = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            let disable = DisableKeyRequest { key_id: KeyRef::Id(key), timeout_ms: Some(PATIENCE_MS) };
            // Whether it was done is known only where that is answered.
            if let Err(error) = client.call(disable) {
                self.refuse(&error);
                continue;
            }
            let from = Instant::now();
            std::thread::sleep(VIEW + Duration::from_millis(1_500));
            let until = Instant::now();
            if from > sure {
                self.history.disabled(Disabled { key, from, until });
            }
            let enable = || EnableKeyRequest { key_id: KeyRef::Id(key), timeout_ms: Some(PATIENCE_MS) };
            while let Err(error) = client.call(enable()) {
                self.refuse(&error);
                // It may yet be done, by a server that was paused with it in hand.
                sure = Instant::now() + UNKNOWN;
            }
            std::thread::sleep(Duration::from_millis(700));
        }
    }

    /// Uses such a key at one node, whatever that says, and notes when it did.
    fn use_at(&self, cluster: &Cluster, node: usize, key: CmkId, is_over: &AtomicBool) {
        let mut connection = None;
        while !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            let Some(open) = connection.get_or_insert_with(|| cluster.direct(node)).as_mut() else {
                connection = None;
                continue;
            };
            let asked = Instant::now();
            let sent = open.send(&encrypt_request(key, b"now", 1_500).into()).is_ok();
            match open.receive().map(|answer| answer.result().map(|_| ()).map_err(|e| e.to_string())) {
                Ok(Ok(())) if sent => self.history.used(Used { key, node, asked, answered: Instant::now() }),
                Ok(Err(_)) => {}
                _ => connection = None,
            }
        }
    }

    /// Tells whether a server may not have heard of a key yet.
    fn is_early(&self, error: &ClientError, made: Instant) -> bool {
        let is_unknown =
            matches!(error, ClientError::Refused(refused) if refused.code == "Forbidden.KeyNotFound");
        let is_early = is_unknown && made.elapsed() < KNOWN;
        self.early.fetch_add(is_early.into(), Ordering::Relaxed);
        is_early
    }

    fn refuse(&self, error: &ClientError) {
        let why = match error {
            ClientError::Refused(refused) => refused.code.clone(),
            other => other.to_string().split(':').next().unwrap_or_default().to_owned(),
        };
        *self.refused.lock().unwrap().entry(why).or_default() += 1;
    }
}

/// Ends the load, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn seconds() -> u64 {
    let is_long = std::env::var_os("KEYMILL_TEST_ALL").is_some();
    std::env::var("KEYMILL_CLUSTER_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(if is_long {
        300
    } else {
        40
    })
}

fn verify(place: &Place) {
    let data = place.path("data");
    let mut command = Command::new(program());
    command.args(["audit", "verify", "--store", "--config"]).arg(place.path("keymill.toml"));
    let output = command.arg("--data-dir").arg(Path::new(&data)).output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[test]
fn nothing_that_was_answered_is_lost_and_nothing_that_was_disabled_is_used_whatever_dies_or_is_cut_off() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let (seen, is_over) = (Seen::default(), AtomicBool::new(false));
    let toggled: Vec<CmkId> = (0..2).map(|_| create_key(&client).unwrap()).collect();
    let seed = std::env::var("KEYMILL_CLUSTER_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    let (mut dice, mut faults) = (Dice(seed), Vec::new());
    let until = Instant::now() + Duration::from_secs(seconds());
    let mut count = 0;
    std::thread::scope(|scope| {
        let (seen, is_over, client, cluster) = (&seen, &is_over, &client, &cluster);
        for thread in 0..2 {
            scope.spawn(move || seen.write(client, thread, is_over));
            scope.spawn(move || seen.read(client, seed ^ thread as u64, is_over));
        }
        for key in &toggled {
            scope.spawn(move || seen.toggle(client, *key, is_over));
            for node in 0..NODES {
                scope.spawn(move || seen.use_at(cluster, node, *key, is_over));
            }
        }
        let _over = Over(is_over);
        while Instant::now() < until {
            if faults.is_empty() {
                faults = Fault::all(cluster.network.is_some());
            }
            let fault = faults.swap_remove(dice.below(faults.len()));
            println!("{:>4} s: {fault:?}", seconds() - (until - Instant::now()).as_secs().min(seconds()));
            fault.befall(cluster);
            count += 1;
            std::thread::sleep(Duration::from_millis(1_500));
        }
        std::thread::sleep(Duration::from_secs(5));
    });

    let failed = seen.failed.lock().unwrap();
    assert!(
        failed.is_empty(),
        "seed {seed}: {} failed: {:#?}",
        failed.len(),
        &failed[..failed.len().min(10)]
    );
    let (wrong, uses, disables) = seen.history.check(KNOWN);
    assert!(wrong.is_empty(), "seed {seed}: used after its disable: {wrong:?}");
    assert!(uses > 100 && disables >= 1, "{uses} uses, {disables} disables");
    // All of it is there, at each.
    let sealed = seen.sealed.lock().unwrap();
    assert!(sealed.len() > 20, "{}", sealed.len());
    for node in 0..NODES {
        let mut connection = cluster.direct(node).unwrap();
        for Sealed { key, blob, text, .. } in sealed.iter() {
            connection.send(&decrypt_request(blob).into()).unwrap();
            match connection.receive().unwrap().result() {
                Ok(Reply::Decrypt(reply)) => assert!(reply.plaintext.as_ref() == text, "{key} at {node}"),
                other => panic!("seed {seed}: {key} at node {node}: {other:?}"),
            }
        }
    }
    println!(
        "{count} faults: {} keys made and {} texts opened, {uses} uses and {disables} disables of keys that come and go; {} were early; refused: {:?}",
        sealed.len(),
        seen.opened.load(Ordering::Relaxed),
        seen.early.load(Ordering::Relaxed),
        seen.refused.lock().unwrap(),
    );
    for server in cluster.nodes.lock().unwrap().drain(..).flatten() {
        assert!(server.stop().success());
    }
    cluster.places.iter().for_each(verify);
}
