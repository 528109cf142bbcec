//! `keymill secret` as an operator has it: values from files and standard input, to standard output and nowhere else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use keymill_harness::program::{Server, program};
use serde_json::Value;
use tempfile::TempDir;

struct Scene {
    place: TempDir,
    server: Server,
}

impl Scene {
    fn start() -> Self {
        let place = TempDir::new().unwrap();
        let server = Server::start(place.path());
        Self { place, server }
    }

    /// Starts it with a configuration.
    fn configured(place: TempDir, text: &str) -> Self {
        let file = place.path().join("keymill.toml");
        std::fs::write(&file, text).unwrap();
        let server = Server::start_with(place.path(), &["--config", file.to_str().unwrap()]);
        Self { place, server }
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(program());
        for variable in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_CA"] {
            command.env_remove(variable);
        }
        command
            .arg("secret")
            .args(arguments)
            .args(["--tcp", &self.server.msgpack.to_string(), "--credentials"])
            .arg(self.place.path().join("credentials.json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that does not read its input may be gone by now.
        let _unread = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn done(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.done(arguments, b"")).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], input: &[u8], code: i32) -> String {
        let output = self.run(arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    fn place(&self) -> &Path {
        self.place.path()
    }
}

#[test]
fn values_come_from_files_and_standard_input_and_go_to_standard_output() {
    let scene = Scene::start();
    let (first, second) = ("first värde\nof two lines", "second");
    let made = scene.done(&["create", "db", "--version", "v1", "--from", "-"], first.as_bytes());
    assert!(!String::from_utf8(made).unwrap().contains("värde"));
    assert_eq!(scene.done(&["get", "db"], b""), first.as_bytes());
    let file = scene.place().join("value");
    std::fs::write(&file, second).unwrap();
    let file = file.to_str().unwrap();
    scene.text(&["put", "db", "--version", "v2", "--from", file]);
    assert_eq!(scene.text(&["get", "db"]), second);
    assert_eq!(scene.text(&["get", "db", "--stage", "ACSPrevious"]), first);
    assert_eq!(scene.json(&["get", "db", "--version", "v1"])["SecretData"], first);
    // Bytes come back as bytes.
    let bytes: Vec<u8> = (0..=255).collect();
    let error = scene.refused(&["put", "db", "--version", "v3", "--from", "-"], &bytes, 1);
    assert!(error.contains("--binary"), "{error}");
    scene.done(&["put", "db", "--version", "v3", "--from", "-", "--binary", "--stage", "raw"], &bytes);
    assert_eq!(scene.done(&["get", "db", "--stage", "raw"], b""), bytes);
    assert_eq!(scene.text(&["get", "db"]), second);
    scene.refused(&["put", "db", "--version", "v4", "--from", "-"], &[b'x'; 30_721], 1);
    scene.refused(&["put", "db", "--version", "v4", "--from", "/nowhere"], b"", 1);
}

#[test]
fn a_secret_is_shown_staged_deleted_and_brought_back() {
    let scene = Scene::start();
    assert!(scene.text(&["list"]).contains("no secrets"));
    scene.done(
        &["create", "shop/db", "--version", "v1", "--from", "-", "--description", "of the shop"],
        b"one",
    );
    scene.done(&["put", "shop/db", "--version", "v2", "--from", "-"], b"two");
    scene.done(&["create", "other", "--version", "v1", "--from", "-"], b"x");
    assert!(scene.text(&["list"]).contains("shop/db"));
    assert_eq!(scene.json(&["list", "--prefix", "shop/"])["TotalCount"], 1);
    scene.text(&["update", "shop/db", "--description", "another"]);
    let shown = scene.text(&["show", "shop/db"]);
    assert!(shown.contains("another") && !shown.contains("two"), "{shown}");
    scene.text(&["stage", "shop/db", "ACSCurrent", "--to", "v1"]);
    assert_eq!(scene.text(&["get", "shop/db"]), "one");
    let versions = scene.text(&["versions", "shop/db"]);
    assert!(versions.contains("ACSPrevious"), "{versions}");
    let told = scene.text(&["delete", "shop/db", "--days", "7"]);
    assert!(told.contains("secret restore shop/db"), "{told}");
    scene.refused(&["get", "shop/db"], b"", 1);
    scene.text(&["restore", "shop/db"]);
    assert_eq!(scene.text(&["get", "shop/db"]), "one");
    scene.text(&["delete", "shop/db", "--now"]);
    scene.refused(&["restore", "shop/db"], b"", 1);
    let password = scene.text(&["password", "--length", "20", "--no-punctuation"]);
    assert!(
        password.trim_end().len() == 20 && password.trim_end().bytes().all(|c| c.is_ascii_alphanumeric())
    );
}

#[test]
fn a_secret_is_rotated_by_hand_and_by_itself() {
    let scene = Scene::configured(
        TempDir::new().unwrap(),
        "[rotators.passwords]\nkind = \"password\"\nlength = 24\n",
    );
    let extended = r#"{"Rotator":"passwords"}"#;
    let create = ["create", "cookie", "--version", "v1", "--from", "-", "--extended-config", extended];
    scene.done(&[&create[..], &["--rotate-every", "7d"]].concat(), b"first");
    let shown = scene.text(&["describe", "cookie"]);
    assert!(shown.contains("every 604800s") && shown.contains(extended.trim_end_matches('}')), "{shown}");
    let told = scene.text(&["rotate", "cookie", "--version", "v2"]);
    assert!(told.contains("version v2"), "{told}");
    assert_eq!(scene.text(&["get", "cookie"]).len(), 24);
    assert_eq!(scene.text(&["get", "cookie", "--stage", "ACSPrevious"]), "first");
    scene.text(&["set-rotation", "cookie", "--off"]);
    assert!(scene.text(&["show", "cookie"]).contains("when it is asked for"));
    scene.text(&["set-rotation", "cookie", "--every", "6h"]);
    assert_eq!(scene.json(&["show", "cookie"])["RotationInterval"], "21600s");
    scene.refused(&["set-rotation", "cookie", "--every", "5h"], b"", 2);
    scene.refused(&["set-rotation", "cookie"], b"", 2);
    let none =
        ["create", "x", "--version", "v1", "--from", "-", "--extended-config", r#"{"Rotator":"none"}"#];
    assert!(scene.refused(&none, b"x", 1).contains("no rotator none"));
    scene.refused(&["create", "x", "--version", "v1", "--from", "-", "--type", "Redis"], b"x", 2);
    scene.refused(&["create", "x", "--version", "v1", "--from", "-", "--type", "Rds"], b"x", 1);
    scene.done(&["create", "plain", "--version", "v1", "--from", "-"], b"x");
    assert!(scene.refused(&["rotate", "plain", "--version", "v2"], b"", 1).contains("no rotator"));
}

/// The receiver that the README of the webhook shows.
#[test]
fn a_receiver_in_python_rotates_by_signed_requests() {
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no python3 here to run the receiver by");
        return;
    }
    let place = TempDir::new().unwrap();
    let (key, file) = (place.path().join("hook.key"), place.path().join("password.txt"));
    private_file(&key, &"0123456789abcdef".repeat(4));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/rotate-webhook/examples/receiver.py");
    let receiver = Command::new("python3")
        .arg(example)
        .args([&key, &file])
        .arg(port.to_string())
        .stderr(Stdio::null())
        .spawn();
    let receiver = Ends(receiver.unwrap());
    let config = format!(
        "[rotation]\ncheck_ms = 50\nfirst_retry_ms = 50\n[rotators.hook]\nkind = \"webhook\"\nsecrets = [\"hooked\"]\nurl = \"http://127.0.0.1:{port}/keymill\"\nkey_file = \"{}\"\n",
        key.display()
    );
    let scene = Scene::configured(place, &config);
    let extended = r#"{"Rotator":"hook"}"#;
    scene.done(
        &["create", "hooked", "--version", "v1", "--from", "-", "--extended-config", extended],
        b"first",
    );
    // The receiver may not listen yet: then it is tried again.
    let _either = scene.run(&["rotate", "hooked", "--version", "v2"], b"");
    keymill_e2e::eventually("it is rotated", || {
        let versions = scene.text(&["versions", "hooked"]);
        versions.lines().any(|line| line.contains("v2") && line.contains("ACSCurrent")).then_some(())
    });
    assert_eq!(scene.text(&["get", "hooked"]), std::fs::read_to_string(&file).unwrap());
    drop(receiver);
    let current = scene.text(&["get", "hooked"]);
    let told = scene.refused(&["rotate", "hooked", "--version", "v3"], b"", 1);
    assert!(told.contains("v3") && told.contains("set"), "{told}");
    assert_eq!(scene.text(&["get", "hooked"]), current);
}

/// A process that ends with the test, however that ends.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn private_file(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
