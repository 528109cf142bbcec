//! TLS as an operator has it: the real program with a configuration, its files, its signals and its command line.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use keymill_client::{ClientTls, HttpClient};
use keymill_e2e::{Authority, Place, eventually};
use keymill_harness::program::{self, Server, program};

const HERE: &[&str] = &["127.0.0.1"];
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes a configuration whose listeners both have the certificate of `place`; `interval_ms` between two looks at the files.
fn configure(place: &Place, interval_ms: u64, more: &str) {
    let section = |name: &str| {
        format!(
            "[{name}.tls]\ncertificate = \"{}\"\nkey = \"{}\"\nreload_interval_ms = {interval_ms}\n{more}\n",
            place.path("server.crt").display(),
            place.path("server.key").display(),
        )
    };
    place.put("keymill.toml", &(section("http") + &section("msgpack")));
}

fn start(place: &Place) -> Server {
    let home = place.path("");
    let mut command = program::serve(&home);
    command.arg("--config").arg(place.path("keymill.toml")).env("KEYMILL_LOG", "info");
    Server::start_by(command, &home)
}

fn addresses(place: &Place) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(place.path("data/addresses.json")).unwrap()).unwrap()
}

/// Runs a command of the CLI as the bootstrap access key.
fn ask(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    for variable in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_CA"] {
        command.env_remove(variable);
    }
    command.args(arguments).arg("--credentials").arg(place.path("credentials.json")).output().unwrap()
}

fn told(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn series(url: &str, client: &ClientTls, name: &str) -> Option<f64> {
    let (_, text) = HttpClient::over_tls(url, PATIENCE, client).unwrap().get("/metrics").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

const RENEWED: &str = "keymill_tls_reloads_total{frontend=\"http\",outcome=\"ok\"}";
const FAILED: &str = "keymill_tls_reloads_total{frontend=\"http\",outcome=\"failed\"}";

#[test]
fn the_command_line_reaches_a_server_under_tls_and_its_certificates_change_under_way() {
    let (authority, next) = (Authority::new("servers"), Authority::new("next"));
    let place = Place::with(&authority.server(HERE));
    // The files are looked at on SIGHUP alone, within this test.
    configure(&place, 3_600_000, "");
    let server = start(&place);
    let [url, tcp] = ["url", "tcp"].map(|name| addresses(&place)[name].as_str().unwrap().to_owned());
    assert_eq!((&*url, &*tcp), (&*format!("https://{}", server.http), &*format!("tls://{}", server.msgpack)));
    let ca = place.put("ca.crt", &authority.pem());
    let ca = ca.to_str().unwrap();
    for way in [["--url", &url], ["--tcp", &tcp]] {
        let listed = ask(&place, &["key", "list", "--json", way[0], way[1], "--ca", ca]);
        assert!(listed.status.success(), "{listed:?}");
        let created = ask(&place, &["key", "create", "--json", way[0], way[1], "--ca", ca]);
        assert!(created.status.success(), "{created:?}");
        assert!(told(&ask(&place, &["key", "list", way[0], way[1]])).contains("--ca FILE"));
        let plain = way[1].trim_start_matches("tls://").replace("https://", "http://");
        let output = ask(&place, &["key", "list", way[0], &plain]);
        assert!(!output.status.success(), "{output:?}");
    }
    let old = place.client(&authority, None);
    let days = series(&url, &old, "keymill_tls_certificate_expiry_days{frontend=\"http\"}").unwrap();
    assert!(days > 1000.0, "{days}");
    assert_eq!((series(&url, &old, RENEWED), series(&url, &old, FAILED)), (Some(0.0), Some(0.0)));

    let good = next.server(HERE);
    place.serve(&good);
    server.signal("HUP");
    let new = place.client(&next, None);
    eventually("the new certificate is served", || (series(&url, &new, RENEWED)? == 1.0).then_some(()));
    let refused = told(&ask(&place, &["key", "list", "--url", &url, "--ca", ca]));
    assert!(refused.contains("no safe channel") && refused.contains("--ca"), "{refused}");

    place.put("server.crt", "-----BEGIN CERTIFICATE-----\n");
    server.signal("HUP");
    eventually("the broken one is told", || (series(&url, &new, FAILED)? == 1.0).then_some(()));
    assert_eq!(series(&url, &new, RENEWED), Some(1.0), "what was before stays in force");
    let log = server.stop_and_read();
    assert!(log.contains("https://") && log.contains("tls://"), "{log}");
    assert_eq!(log.matches("those before stay in force").count(), 2, "once a listener: {log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn files_that_change_are_seen_without_a_signal() {
    let (authority, next) = (Authority::new("servers"), Authority::new("next"));
    let place = Place::with(&authority.server(HERE));
    configure(&place, 100, "");
    let server = start(&place);
    let url = format!("https://{}", server.http);
    let old = place.client(&authority, None);
    assert!(series(&url, &old, RENEWED).is_some());
    // Key and certificate are two files: what is seen between the two is broken, and passes.
    place.serve(&next.server(HERE));
    let new = place.client(&next, None);
    eventually("the new certificate is served", || series(&url, &new, RENEWED));
}

/// Expects that the server does not start at `address`, and returns what it says.
fn does_not_start(place: &Place, address: &str) -> String {
    let mut command = program::serve_at(&place.path(""), address);
    command.arg("--config").arg(place.path("keymill.toml"));
    told(&command.output().unwrap())
}

#[test]
fn d12_a_listener_outside_loopback_starts_with_tls_alone() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    configure(&place, 5000, "");
    let both = std::fs::read_to_string(place.path("keymill.toml")).unwrap();
    let of_http = both.split("[msgpack.tls]").next().unwrap();
    for (text, section) in [("", "[http.tls]"), (of_http, "[msgpack.tls]")] {
        place.put("keymill.toml", text);
        let refused = does_not_start(&place, "0.0.0.0:0");
        assert!(refused.contains("outside loopback") && refused.contains(section), "{refused}");
    }
    assert!(!place.path("credentials.json").exists(), "nothing was made");
    configure(&place, 5000, "");
    let home = place.path("");
    let mut command = program::serve_at(&home, "0.0.0.0:0");
    command.arg("--config").arg(place.path("keymill.toml"));
    let server = Server::start_by(command, &home);
    assert!(server.http.ip().is_unspecified());
    let url = format!("https://127.0.0.1:{}", server.http.port());
    assert!(series(&url, &place.client(&authority, None), RENEWED).is_some());
}

#[test]
fn files_that_are_loose_or_wrong_are_told_at_the_start() {
    let authority = Authority::new("servers");
    let place = Place::with(&authority.server(HERE));
    configure(&place, 5000, "");
    let loosen = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let key = place.path("server.key");
    loosen(&key, 0o644);
    let refused = does_not_start(&place, "127.0.0.1:0");
    assert!(refused.contains("server.key is open to others") && refused.contains("[http.tls]"), "{refused}");
    loosen(&key, 0o600);
    let real = place.path("real.key");
    std::fs::rename(&key, &real).unwrap();
    std::os::unix::fs::symlink(&real, &key).unwrap();
    assert!(does_not_start(&place, "127.0.0.1:0").contains("symbolic link"));
    std::fs::remove_file(&key).unwrap();
    assert!(does_not_start(&place, "127.0.0.1:0").contains("server.key does not exist"));
    std::fs::rename(&real, &key).unwrap();
    configure(&place, 5000, "client_certificates = \"required\"");
    assert!(does_not_start(&place, "127.0.0.1:0").contains("needs client_ca"));
    configure(&place, 5000, &format!("client_ca = [{:?}]", place.path("server.crt")));
    assert!(does_not_start(&place, "127.0.0.1:0").contains("are for client_certificates"));
    place.put("server.crt", &authority.server(HERE).certificate);
    configure(&place, 5000, "");
    assert!(
        does_not_start(&place, "127.0.0.1:0").contains("server.crt with "),
        "a key of another certificate"
    );
}
