//! An installation moves from SQLite to etcd and from there to PostgreSQL by the real program, the second time under a running server: what was
//! sealed before opens afterwards, and nothing is served from a store that is half there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::id::CmkId;
use keymill_databases::{Database, Etcd, EtcdOptions, Postgres};
use keymill_e2e::Caller;
use keymill_harness::program::{Server, credentials, program, serve};
use serde_json::json;
use tempfile::TempDir;

/// One place with a configuration for each store.
struct Scene {
    place: TempDir,
    sqlite: PathBuf,
    etcd: PathBuf,
    postgres: PathBuf,
    // Until the end.
    _etcd: Etcd,
    _postgres: Postgres,
}

impl Scene {
    fn make() -> Self {
        let place = TempDir::new().unwrap();
        let etcd = Etcd::start_with(EtcdOptions { is_tls: true, ..EtcdOptions::default() });
        let postgres = Postgres::start_with(&["fsync=on", "log_statement=none", "log_min_messages=warning"]);
        postgres.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
        postgres.sql("CREATE DATABASE keymill OWNER keymill");
        let write = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let data = format!("data_dir = {:?}\n", place.path().join("data"));
        let sqlite = write("sqlite.toml", &data);
        let (cert_file, key_file) = etcd.identity();
        let text = format!(
            "{data}[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {:?}\nca_file = {:?}\ncert_file = {cert_file:?}\nkey_file = {key_file:?}\n",
            etcd.endpoints(),
            etcd.ca_file(),
        );
        let for_etcd = write("etcd.toml", &text);
        let password = write("store.password", "a password\n");
        let text = format!(
            "{data}[store]\nkind = \"postgres\"\n[store.postgres]\nhosts = [\"localhost:{}\"]\nca_file = {:?}\npassword_file = {password:?}\n",
            postgres.port(),
            postgres.ca_file(),
        );
        let for_postgres = write("postgres.toml", &text);
        Self { place, sqlite, etcd: for_etcd, postgres: for_postgres, _etcd: etcd, _postgres: postgres }
    }

    fn serve(&self, config: &Path) -> Server {
        Server::start_with(self.place.path(), &["--config", config.to_str().unwrap()])
    }

    fn call(&self, server: &Server) -> Caller {
        Caller::of(Server::connect(server.msgpack, &credentials(self.place.path())).unwrap())
    }

    /// Tries to serve as another node, and returns what was said.
    fn refused(config: &Path) -> String {
        let elsewhere = TempDir::new().unwrap();
        let output = serve(elsewhere.path()).arg("--config").arg(config).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn verify(&self, config: &Path) {
        let verify = Command::new(program())
            .args(["audit", "verify", "--store", "--config"])
            .arg(config)
            .output()
            .unwrap();
        assert!(verify.status.success(), "{}", said(&verify));
    }
}

fn command(from: &Path, to: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("migrate").arg("--from").arg(from).arg("--to").arg(to).args(flags);
    command
}

fn migrate(from: &Path, to: &Path, flags: &[&str]) -> Output {
    command(from, to, flags).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).join("\n")
}

/// A migration that follows.
struct Following(Child);

impl Following {
    /// Starts one, and waits until it has caught up.
    fn start(from: &Path, to: &Path) -> Self {
        let mut child = command(from, to, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("caught up")), "it ended without catching up");
        Self(child)
    }

    fn end(mut self, signal: &str) -> bool {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
        self.0.wait().unwrap().success()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Says that it is over, at its own end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes keys and seals something under each until it is told to stop; aliases come and go meanwhile.
fn load(caller: &mut Caller, is_over: &AtomicBool) -> Vec<(CmkId, Vec<u8>)> {
    let mut sealed = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let key = caller.create_key();
        let blob = caller.encrypt(key, key.to_string().as_bytes(), &[]).unwrap();
        sealed.push((key, blob));
        let alias = format!("alias/of-{}", sealed.len());
        caller.ask_json("CreateAlias", json!({"KeyId": key.to_string(), "AliasName": alias})).unwrap();
        if sealed.len() % 2 == 0 {
            caller.ask_json("DeleteAlias", json!({"AliasName": alias})).unwrap();
        }
    }
    sealed
}

fn assert_opens(caller: &mut Caller, sealed: &[(CmkId, Vec<u8>)]) {
    for (key, blob) in sealed {
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), key.to_string().as_bytes());
    }
    let listed = caller.ask_json("ListKeys", json!({})).unwrap();
    assert_eq!(listed["TotalCount"], json!(sealed.len()));
}

#[test]
fn an_installation_moves_from_sqlite_to_etcd_and_under_load_to_postgresql() {
    let scene = Scene::make();
    let is_over = AtomicBool::new(false);
    let server = scene.serve(&scene.sqlite);
    let mut caller = scene.call(&server);
    let mut sealed = Vec::new();
    for _ in 0..20 {
        let key = caller.create_key();
        sealed.push((key, caller.encrypt(key, key.to_string().as_bytes(), &[]).unwrap()));
    }
    // The server has its store to itself.
    let refused = migrate(&scene.sqlite, &scene.etcd, &[]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("stop"), "{}", said(&refused));
    drop(caller);
    assert!(server.stop().success());
    let moved = migrate(&scene.sqlite, &scene.etcd, &["--json"]);
    assert!(moved.status.success(), "{}", said(&moved));
    let told: serde_json::Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!((&told["finished"], &told["verified"]), (&true.into(), &true.into()));
    assert_eq!(told["records"], told["changed"]);
    let again = migrate(&scene.sqlite, &scene.etcd, &[]);
    assert!(!again.status.success() && said(&again).contains("holds records"), "{}", said(&again));

    let server = scene.serve(&scene.etcd);
    assert_opens(&mut scene.call(&server), &sealed);
    let mut caller = scene.call(&server);
    let made = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&mut caller, &is_over));
        let _also_where_this_panics = Ends(&is_over);
        // Killed, and run again beside the server.
        assert!(!Following::start(&scene.etcd, &scene.postgres).end("KILL"));
        let refused = Scene::refused(&scene.postgres);
        assert!(refused.contains("is not finished"), "{refused}");
        let refused = migrate(&scene.etcd, &scene.postgres, &["--finish"]);
        assert!(
            !refused.status.success() && said(&refused).contains("still written to"),
            "{}",
            said(&refused)
        );
        assert!(Following::start(&scene.etcd, &scene.postgres).end("INT"));
        is_over.store(true, Ordering::Relaxed);
        loading.join().unwrap()
    });
    assert!(!made.is_empty());
    sealed.extend(made);
    drop(caller);
    assert!(server.stop().success());
    let moved = migrate(&scene.etcd, &scene.postgres, &["--finish"]);
    assert!(moved.status.success(), "{}", said(&moved));
    assert!(said(&moved).contains("SHA-256"), "{}", said(&moved));

    let server = scene.serve(&scene.postgres);
    assert_opens(&mut scene.call(&server), &sealed);
    assert!(server.stop().success());
    scene.verify(&scene.postgres);
    println!("{} keys moved twice", sealed.len());
}
