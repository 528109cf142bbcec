//! keymill's own listeners under a certificate of its own authority: served under it, another with each start, renewed without a restart, and
//! refused by whoever trusts another root.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keymill_harness::program::{Server, program, serve};
use serde_json::Value;
use tempfile::TempDir;

struct Scene {
    place: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { place: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        for variable in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_CA"] {
            command.env_remove(variable);
        }
        command.args(arguments).arg("--credentials").arg(self.path("credentials.json")).output().unwrap()
    }

    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes an authority while the listeners are plain; writes its certificate to a file.
    fn make_authority(&self, name: &str) {
        let server = Server::start(self.place.path());
        let tcp = server.msgpack.to_string();
        self.text(&["ca", "create", name, "--subject", &format!("CN={name},O=Example,C=CN"), "--tcp", &tcp]);
        let shown: Value =
            serde_json::from_str(&self.text(&["ca", "show", name, "--json", "--tcp", &tcp])).unwrap();
        let id = shown["CertificateId"].as_str().unwrap().to_owned();
        let pem = self.text(&["cert", "get", &id, "--alone", "--tcp", &tcp]);
        fs::write(self.path(&format!("{name}.pem")), pem).unwrap();
        server.stop();
    }

    /// Has both listeners take their certificates from an authority.
    fn configure(&self, authority: &str) -> PathBuf {
        let of = |listener: &str| {
            format!(
                "[{listener}.tls]\nauthority = \"{authority}\"\nnames = [\"localhost\", \"IP:127.0.0.1\"]\nreload_interval_ms = 100\n"
            )
        };
        let file = self.path("keymill.toml");
        fs::write(&file, format!("{}{}", of("http"), of("msgpack"))).unwrap();
        file
    }
}

fn start(place: &Path, config: &Path) -> Server {
    let mut command = serve(place);
    command.arg("--config").arg(config);
    Server::start_by(command, place)
}

#[test]
fn listeners_serve_under_what_the_authority_signed_and_whoever_trusts_another_stays_away() {
    let scene = Scene::new();
    scene.make_authority("own");
    scene.make_authority("other");
    let config = scene.configure("own");
    let list = |server: &Server, ca: &str| {
        let (tcp, url) = (format!("tls://{}", server.msgpack), format!("https://{}", server.http));
        let ca = scene.path(ca);
        let ca = ca.to_str().unwrap();
        [["key", "list", "--tcp", &tcp, "--ca", ca], ["key", "list", "--url", &url, "--ca", ca]]
            .map(|arguments| scene.run(&arguments).status.success())
    };
    let issued = |server: &Server| -> Vec<String> {
        let (tcp, ca) = (format!("tls://{}", server.msgpack), scene.path("own.pem"));
        let arguments = [
            "cert",
            "list",
            "--json",
            "--name",
            "localhost",
            "--status",
            "ACTIVE",
            "--tcp",
            &tcp,
            "--ca",
            ca.to_str().unwrap(),
        ];
        let rows: Value = serde_json::from_str(&scene.text(&arguments)).unwrap();
        let rows = rows["Certificates"]["Certificate"].as_array().unwrap().clone();
        rows.iter().map(|row| row["Serial"].as_str().unwrap().to_owned()).collect()
    };
    let server = start(scene.place.path(), &config);
    assert_eq!(list(&server, "own.pem"), [true, true]);
    assert_eq!(list(&server, "other.pem"), [false, false]);
    let first = issued(&server);
    assert_eq!(first.len(), 2, "one a listener");
    // SIGHUP takes nothing away.
    server.signal("HUP");
    assert_eq!(list(&server, "own.pem"), [true, true]);
    server.stop();
    let server = start(scene.place.path(), &config);
    assert_eq!(list(&server, "own.pem"), [true, true]);
    let second = issued(&server);
    let has_others = second.len() == 2 && second.iter().all(|serial| !first.contains(serial));
    assert!(has_others, "keys are in memory alone: each start has others, and those before are retired");
    assert!(server.stop().success());
}

#[test]
fn what_cannot_be_had_is_told_before_anybody_is_served() {
    let scene = Scene::new();
    scene.make_authority("own");
    let told = |config: &str| {
        let file = scene.path("keymill.toml");
        fs::write(&file, config).unwrap();
        let mut command = serve(scene.place.path());
        let output = command.arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{config}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let missing = told("[http.tls]\nauthority = \"none\"\nnames = [\"a.example\"]\n");
    assert!(
        missing.contains("[http.tls] authority none") && missing.contains("keymill ca create none"),
        "{missing}"
    );
    let profile = told("[http.tls]\nauthority = \"own\"\nnames = [\"a.example\"]\nprofile = \"odd\"\n");
    assert!(profile.contains("odd"), "{profile}");
    for (config, why) in [
        ("[http.tls]\nauthority = \"own\"\n", "names"),
        ("[http.tls]\ncertificate = \"a\"\n", "either certificate and key"),
        (
            "[http.tls]\nauthority = \"own\"\nnames = [\"a.example\"]\ncertificate = \"a\"\nkey = \"b\"\n",
            "either certificate and key",
        ),
        ("[http.tls]\nauthority = \"own\"\nnames = [\"a b\"]\n", "a b"),
    ] {
        let told = told(config);
        assert!(told.contains(why), "{why}: {told}");
    }
}
