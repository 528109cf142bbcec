//! `keymill cert` as an operator has it: made, signed elsewhere, put here, found by when it ends, and used to sign files that `openssl` checks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use keymill_core::Timestamp;
use keymill_e2e::Elsewhere;
use keymill_harness::program::{Server, program};
use serde_json::Value;
use tempfile::TempDir;

const SUBJECT: &str = "CN=builds,OU=release,O=Example,C=CN";

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

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        for variable in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_CA", "KEYMILL_PKCS12_PASSWORD"] {
            command.env_remove(variable);
        }
        command.arg("cert").args(arguments).args([
            "--tcp",
            &self.server.msgpack.to_string(),
            "--credentials",
        ]);
        command.arg(self.path("credentials.json")).env("KEYMILL_PKCS12_PASSWORD", "over the hills 7");
        command.output().unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Makes an active certificate; returns its id.
    fn active(&self, spec: &str, elsewhere: &Elsewhere) -> String {
        let made = self.json(&["create", "--subject", SUBJECT, "--name", "builds.example", "--spec", spec]);
        let id = made["CertificateId"].as_str().unwrap().to_owned();
        // An hour more than twenty days: as many are left whenever the test looks.
        let from_then = Timestamp::from_ms(now().as_ms() + 3_600_000);
        let certificate = elsewhere.certify(made["Csr"].as_str().unwrap(), from_then, (-1, 20));
        fs::write(self.path("leaf.pem"), format!("{certificate}{}", elsewhere.pem())).unwrap();
        self.text(&["upload", &id, self.path("leaf.pem").to_str().unwrap()]);
        id
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_ms(since.as_millis() as u64)
}

/// Has `openssl` check a detached signature of a file.
fn checks(signature: &Path, content: &Path, root: &Path) -> bool {
    let mut command = Command::new("openssl");
    command.args([
        "cms",
        "-verify",
        "-binary",
        "-inform",
        "DER",
        "-purpose",
        "any",
        "-out",
        "/dev/null",
        "-in",
    ]);
    let output =
        command.arg(signature).arg("-content").arg(content).arg("-CAfile").arg(root).output().unwrap();
    output.status.success()
}

#[test]
fn files_are_signed_and_openssl_checks_them() {
    let scene = Scene::start();
    let elsewhere = Elsewhere::new("elsewhere", now());
    let root = scene.path("root.pem");
    fs::write(&root, elsewhere.pem()).unwrap();
    for spec in ["EC_P256", "RSA_2048", "EC_P384"] {
        let id = scene.active(spec, &elsewhere);
        let (file, signature) = (scene.path(spec), scene.path(&format!("{spec}.p7s")));
        fs::write(&file, spec.repeat(100_000)).unwrap();
        scene.text(&["sign-file", &id, file.to_str().unwrap()]);
        assert!(checks(&signature, &file, &root), "{spec}");
        fs::write(&file, spec.repeat(100_001)).unwrap();
        assert!(!checks(&signature, &file, &root), "{spec}: another file");
    }
}

#[test]
fn a_certificate_is_followed_from_its_request_to_its_end() {
    let scene = Scene::start();
    let pem = scene.text(&["create", "--subject", SUBJECT]);
    assert!(pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{pem}");
    let rows = scene.json(&["list"]);
    let pending = rows["Certificates"]["Certificate"][0]["CertificateId"].as_str().unwrap().to_owned();
    let told = scene.refused(&["get", &pending]);
    assert!(told.contains("PENDING") && told.contains("cert upload"), "{told}");
    assert_eq!(scene.text(&["get", &pending, "--request"]), pem);
    let file = scene.path("file");
    fs::write(&file, "text").unwrap();
    assert!(scene.refused(&["sign-file", &pending, file.to_str().unwrap()]).contains("PENDING"));

    let id = scene.active("EC_P256", &Elsewhere::new("elsewhere", now()));
    let shown = scene.text(&["show", &id]);
    for told in ["ACTIVE", "builds.example", "CN=elsewhere", "(in 20 days)", "key may leave  yes"] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    assert!(scene.text(&["list", "--expiring", "30d"]).contains(&id));
    assert!(!scene.text(&["list", "--expiring", "30d"]).contains(&pending));
    assert!(scene.text(&["list", "--expiring", "10d"]).contains("no certificate ends"));
    assert!(scene.text(&["list", "--name", "builds.example"]).contains(&id));
    assert_eq!(scene.text(&["get", &id]).matches("BEGIN CERTIFICATE").count(), 2);

    let out = scene.path("out.p12");
    let out = out.to_str().unwrap();
    scene.text(&["export", &id, "--out", out]);
    assert!(scene.refused(&["export", &id, "--out", out]).contains("exist"));
    assert!(scene.text(&["import", "--pkcs12", out]).contains("is active"));

    scene.text(&["deactivate", &id]);
    assert!(scene.refused(&["sign-file", &id, file.to_str().unwrap()]).contains("cert activate"));
    scene.text(&["activate", &id]);
    scene.text(&["sign-file", &id, file.to_str().unwrap()]);
    scene.text(&["revoke", &id]);
    assert!(scene.refused(&["activate", &id]).contains("REVOKED"));
    scene.text(&["delete", &id]);
    let told = scene.refused(&["show", &id]);
    assert!(told.contains("Certificate.NotFound") && told.contains("cert list"), "{told}");
}

#[test]
fn what_the_audit_remembers_of_certificates_is_compared_with_the_store() {
    let scene = Scene::start();
    let elsewhere = Elsewhere::new("elsewhere", now());
    let id = scene.active("EC_P256", &elsewhere);
    let data = scene.path("data");
    let Scene { place, server } = scene;
    assert!(server.stop().success());
    let verify = || {
        let mut command = Command::new(program());
        command.args(["audit", "verify", "--store", "--json", "--data-dir"]).arg(&data);
        command.output().unwrap()
    };
    let found = verify();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
    // One that somebody takes away is missed.
    keymill_e2e::Rows::at(&data).delete(&format!("certificate-body/{id}"));
    let found = verify();
    let told = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        !found.status.success() && told.contains("certificate-body/") && !told.contains("\"cmk/"),
        "{told}"
    );
    drop(place);
}
