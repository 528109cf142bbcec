//! `keymill envelope` by the built program, against a server of its own.

// All of it is test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A running server with a key, and a directory to work in.
struct Site {
    directory: TempDir,
    server: Child,
    tcp: String,
}

impl Site {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let server = command(directory.path())
            .args(["serve", "--http", "127.0.0.1:0", "--msgpack", "127.0.0.1:0"])
            .args(["--data-dir", "data", "--credentials", "credentials.json"])
            .env("KEYMILL_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut site = Self { directory, server, tcp: String::new() };
        let patience = Instant::now() + Duration::from_secs(60);
        site.tcp = loop {
            assert!(
                site.server.try_wait().unwrap().is_none() && Instant::now() < patience,
                "it does not serve"
            );
            let text = fs::read(site.path("data/addresses.json")).unwrap_or_default();
            let told: Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(tcp) = told["msgpack"].as_str() {
                break tcp.to_owned();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        site.done(&["key", "create", "--alias", "alias/files"]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.directory.path());
        command.args(args).args(["--tcp", &self.tcp, "--credentials", "credentials.json"]);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail, and returns what it says.
    #[track_caller]
    fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn seal(&self, from: &str, to: &str) -> String {
        self.done(&[
            "envelope",
            "seal",
            "--in",
            from,
            "--out",
            to,
            "--key",
            "alias/files",
            "--context",
            "a=1",
        ])
    }

    /// Returns the names in the directory, without what the server needs.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("data") && name != "credentials.json");
        names.sort();
        names
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keymill"));
    for name in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_ACCESS_KEY_ID", "KEYMILL_ACCESS_KEY_SECRET"] {
        command.env_remove(name);
    }
    command.current_dir(directory).env("HOME", directory).env_remove("XDG_CONFIG_HOME");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_of_any_size_come_back_and_what_is_wrong_is_refused() {
    let site = Site::start();
    for length in [0, 1, (1 << 20) - 56, 1 << 20, 5_000_000] {
        fs::write(site.path("plain"), payload(length)).unwrap();
        let told = site.seal("plain", "sealed");
        assert!(told.contains(" bytes in ") && told.contains("MiB/s"), "{told}");
        let json = site.done(&["envelope", "open", "--in", "sealed", "--out", "again", "--json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        let sealed_length = fs::metadata(site.path("sealed")).unwrap().len();
        assert_eq!(
            (json["bytes"].as_u64(), json["envelope_bytes"].as_u64()),
            (Some(length as u64), Some(sealed_length))
        );
        assert!(fs::read(site.path("again")).unwrap() == payload(length));
        assert_eq!(mode(&site.path("again")), 0o600);
        assert_ne!(mode(&site.path("sealed")), 0o600, "sealed data is for whom the umask lets read it");
        let out = site.run(&["envelope", "open", "--in", "sealed", "--stdout"]);
        assert!(out.status.success() && out.stdout == payload(length), "{length}");
        assert_eq!(site.names(), ["again", "plain", "sealed"]);
        fs::remove_file(site.path("sealed")).unwrap();
        fs::remove_file(site.path("again")).unwrap();
    }
    site.seal("plain", "sealed");
    what_is_there_stays(&site);
    altered_envelopes_do_not_open(&site);
    standard_input_is_taken(&site);
    what_the_server_refuses_is_told(&site);
}

fn what_is_there_stays(site: &Site) {
    let seal =
        ["envelope", "seal", "--in", "plain", "--out", "sealed", "--key", "alias/files", "--context", "a=1"];
    let before = fs::read(site.path("sealed")).unwrap();
    assert!(site.refused(&seal, 1).contains("exists already"));
    assert!(fs::read(site.path("sealed")).unwrap() == before);
    site.done(&[&seal[..], &["--force"]].concat());
    assert!(fs::read(site.path("sealed")).unwrap() != before);
    let onto_itself =
        ["envelope", "seal", "--in", "plain", "--out", "plain", "--key", "alias/files", "--force"];
    assert!(site.refused(&onto_itself, 2).contains("the input itself"));
}

fn altered_envelopes_do_not_open(site: &Site) {
    let whole = fs::read(site.path("sealed")).unwrap();
    let tail = whole.len() - 1;
    let altered = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let context = whole.windows(5).position(|window| window == b"\0\0\0\x01a").unwrap() + 4;
    let mut said = Vec::new();
    // In the key id, the EDK, the context, salt, text, tag; cut within a segment and between two; longer.
    let all = [10, 60, context, context + 20, 2_000_000, tail].map(altered);
    let longer = [&whole[..], &[0]].concat();
    for bytes in all.iter().map(Vec::as_slice).chain([&whole[..tail], &whole[..3_000_000], &longer]) {
        fs::write(site.path("altered"), bytes).unwrap();
        said.push(site.refused(&["envelope", "open", "--in", "altered", "--out", "never"], 1));
        assert!(!site.path("never").exists());
    }
    said.dedup();
    said.retain(|text| !text.contains("no envelope"));
    assert_eq!(said.len(), 1, "one error whatever was altered: {said:?}");
    let plain = site.refused(&["envelope", "open", "--in", "plain", "--out", "never"], 1);
    assert!(plain.contains("no envelope"), "{plain}");
    fs::remove_file(site.path("altered")).unwrap();
    assert_eq!(site.names(), ["plain", "sealed"], "nothing is left beside");
}

fn standard_input_is_taken(site: &Site) {
    let through = |args: &[&str], bytes: Vec<u8>| {
        let mut child = site.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&bytes).unwrap();
        drop(input);
        assert!(child.wait_with_output().unwrap().status.success(), "{args:?}");
    };
    let bytes = payload(3_000_001);
    through(&["envelope", "seal", "--in", "-", "--out", "piped", "--key", "alias/files"], bytes.clone());
    let sealed = fs::read(site.path("piped")).unwrap();
    through(&["envelope", "open", "--in", "-", "--out", "back"], sealed);
    assert!(fs::read(site.path("back")).unwrap() == bytes);
}

fn what_the_server_refuses_is_told(site: &Site) {
    let args = ["envelope", "seal", "--in", "plain", "--out", "never", "--key", "alias/absent"];
    let told = site.refused(&args, 1);
    assert!(told.contains("Forbidden.AliasNotFound") && told.contains("next:"), "{told}");
    site.done(&["key", "disable", "alias/files"]);
    let told = site.refused(&["envelope", "open", "--in", "sealed", "--out", "never"], 1);
    assert!(told.contains("Rejected.Disabled"), "{told}");
    assert!(!site.names().iter().any(|name| name == "never" || name.starts_with(".keymill")));
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let site = Site::start();
    let args = ["envelope", "seal", "--in", "/dev/zero", "--out", "never", "--key", "alias/files"];
    let child = site.command(&args).stdin(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let is_on = || {
        site.names().iter().any(|name| {
            name.starts_with(".keymill")
                && fs::metadata(site.path(name)).is_ok_and(|found| found.len() > 3 << 20)
        })
    };
    while !is_on() {
        assert!(Instant::now() < patience, "nothing is written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(site.names().is_empty(), "{:?}", site.names());
}

#[test]
fn a_second_signal_ends_what_waits_for_its_input_and_leaves_nothing_behind_either() {
    let site = Site::start();
    let args = ["envelope", "seal", "--in", "-", "--out", "never", "--key", "alias/files"];
    let mut child = site.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let idle = child.stdin.take();
    let patience = Instant::now() + Duration::from_secs(60);
    while site.names().is_empty() {
        assert!(Instant::now() < patience, "nothing is begun");
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = loop {
        assert!(Instant::now() < patience, "it does not end");
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        let _asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        std::thread::sleep(Duration::from_millis(200));
    };
    drop(idle);
    assert_eq!(ended.code(), Some(130));
    assert!(site.names().is_empty(), "{:?}", site.names());
}

#[test]
fn envelopes_are_sealed_anew_in_their_place_and_only_where_they_need_it() {
    let site = Site::start();
    fs::write(site.path("plain"), payload(3_000_000)).unwrap();
    for name in ["one", "two", "cut"] {
        site.seal("plain", name);
    }
    fs::set_permissions(site.path("one"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::read(site.path("one")).unwrap();
    let told = site.done(&["envelope", "reencrypt", "one", "two"]);
    assert_eq!(told, "one: up to date\ntwo: up to date\n");
    assert_eq!(fs::read(site.path("one")).unwrap(), before);

    site.done(&["key", "rotate", "alias/files"]);
    let told = site.done(&["envelope", "reencrypt", "one"]);
    assert!(told.starts_with("one: 3,000,000 bytes in "), "{told}");
    assert_ne!(fs::read(site.path("one")).unwrap(), before);
    assert_eq!(mode(&site.path("one")), 0o640);
    // The same once more goes on with what is left.
    let told = site.done(&["envelope", "reencrypt", "one", "two"]);
    assert!(told.starts_with("one: up to date\ntwo: 3,000,000 bytes in "), "{told}");

    site.done(&["key", "create", "--alias", "alias/others"]);
    let told = site.done(&["envelope", "reencrypt", "--key", "alias/others", "--json", "one"]);
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["bytes"], 3_000_000);
    for name in ["one", "two"] {
        site.done(&["envelope", "open", "--in", name, "--out", "again", "--force"]);
        assert_eq!(fs::read(site.path("again")).unwrap(), payload(3_000_000));
    }

    // What does not open is left as it was, and nothing stays beside it.
    let whole = fs::read(site.path("cut")).unwrap();
    for broken in [&whole[..whole.len() - 1], &whole[..2_000_000], b"no envelope"] {
        fs::write(site.path("cut"), broken).unwrap();
        let names = site.names();
        let told = site.refused(&["envelope", "reencrypt", "cut"], 1);
        assert!(told.contains("cut: "), "{told}");
        assert_eq!((fs::read(site.path("cut")).unwrap(), site.names()), (broken.to_vec(), names));
    }
}
