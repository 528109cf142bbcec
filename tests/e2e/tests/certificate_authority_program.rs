//! `keymill ca` as an operator has it: an authority from nothing, certificates for requests and with keys made here, and their end, with `openssl` as
//! the one that checks; and the HTTP listener of the real program, as whoever verifies asks it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

use keymill_e2e::OpenSsl;
use keymill_harness::program::{Server, program, serve};
use serde_json::Value;
use tempfile::TempDir;

struct Scene {
    place: TempDir,
    server: Server,
    tool: OpenSsl,
}

impl Scene {
    fn start() -> Self {
        let place = TempDir::new().unwrap();
        let config = place.path().join("keymill.toml");
        fs::write(&config, "[authorities]\npublic_url = \"http://pki.example\"\n").unwrap();
        let mut command = serve(place.path());
        command.arg("--config").arg(config);
        let server = Server::start_by(command, place.path());
        Self { place, server, tool: OpenSsl::new() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        for variable in ["KEYMILL_TCP", "KEYMILL_URL", "KEYMILL_CA"] {
            command.env_remove(variable);
        }
        let tcp = self.server.msgpack.to_string();
        command.current_dir(self.tool.path()).arg("ca").args(arguments).args([
            "--tcp",
            &tcp,
            "--credentials",
        ]);
        command.arg(self.place.path().join("credentials.json")).output().unwrap()
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
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Asks the HTTP listener as anybody does.
    fn get(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server.http).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&all[..100]));
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        all[end + 4..].to_vec()
    }
}

#[test]
fn an_authority_from_nothing_to_what_it_revoked() {
    let scene = Scene::start();
    let tool = &scene.tool;
    tool.put(
        "root.pem",
        scene.text(&["create", "root", "--subject", "CN=Root,O=Example", "--spec", "EC_P384"]),
    );
    tool.put(
        "issuing.pem",
        scene.text(&[
            "create",
            "issuing",
            "--subject",
            "CN=Issuing,O=Example",
            "--parent",
            "root",
            "--permit",
            "example",
        ]),
    );
    let listed = scene.text(&["list"]);
    assert!(
        listed.contains("issuing") && listed.contains("Enabled") && listed.contains("CN=Root"),
        "{listed}"
    );
    tool.request("a", "/CN=a.example", &["DNS:a.example"]);
    tool.put("a.pem", scene.text(&["issue", "issuing", "--profile", "server", "--csr", "a.csr"]));
    tool.put(
        "b.pem",
        scene.text(&["issue", "issuing", "--profile", "client", "--subject", "CN=orders", "--days", "10"]),
    );
    let verify = |leaf: &str, more: &[&str]| {
        tool.run(&[&["verify", "-CAfile", "root.pem", "-untrusted", "issuing.pem"], more, &[leaf]].concat())
    };
    assert!(
        verify("a.pem", &["-verify_hostname", "a.example"]).0
            && verify("b.pem", &["-purpose", "sslclient"]).0
    );
    assert!(
        scene
            .refused(&["issue", "issuing", "--profile", "server", "--name", "a.test"], 1)
            .contains("name constraints")
    );
    assert!(scene.refused(&["issue", "issuing"], 2).contains("--profile"));

    for name in ["c", "d"] {
        tool.request(name, &format!("/CN={name}.example"), &[&format!("DNS:{name}.example")]);
    }
    tool.put("odd.csr", "odd");
    let told =
        scene.refused(&["issue-batch", "issuing", "--profile", "server", "c.csr", "odd.csr", "d.csr"], 1);
    assert!(told.contains("odd.csr: Csr: ") && told.contains("1 of 3 requests were refused"), "{told}");
    assert!(verify("c.crt", &[]).0 && verify("d.crt", &[]).0 && !tool.file("odd.crt").exists());

    let made = scene.json(&["issue", "issuing", "--profile", "server", "--name", "e.example"]);
    let id = made["CertificateId"].as_str().unwrap();
    let renewed = scene.json(&["renew", id]);
    assert_ne!(renewed["SerialNumber"], made["SerialNumber"]);
    tool.put("e.pem", renewed["Certificate"].as_str().unwrap());
    let lists = || {
        let pem = ["root", "issuing"].map(|name| {
            tool.put("list", scene.get(&format!("/pki/{name}.crl")));
            tool.does(&["crl", "-inform", "DER", "-in", "list", "-outform", "PEM"])
        });
        tool.put("lists.pem", pem.concat());
    };
    lists();
    let crl_check = ["-crl_check_all", "-CRLfile", "lists.pem"];
    assert!(verify("e.pem", &crl_check).0);
    let told = scene.text(&["revoke", id, "--reason", "superseded"]);
    assert!(told.contains("is revoked (Superseded)"), "{told}");
    lists();
    let (believed, told) = verify("e.pem", &crl_check);
    assert!(!believed && told.contains("certificate revoked"), "{told}");
    let told = scene.text(&["crl", "issuing"]);
    assert!(told.contains("http://pki.example/pki/issuing.crl") && told.contains("2 of"), "{told}");
    // A question in a path, as `GET` has it.
    tool.does(&["ocsp", "-issuer", "issuing.pem", "-cert", "e.pem", "-no_nonce", "-reqout", "question"]);
    tool.does(&["base64", "-A", "-in", "question", "-out", "question.txt"]);
    let question =
        fs::read_to_string(tool.file("question.txt")).unwrap().trim().replace('/', "%2F").replace('+', "%2B");
    tool.put("answer", scene.get(&format!("/pki/issuing/ocsp/{question}")));
    let told = tool.does(&[
        "ocsp",
        "-issuer",
        "issuing.pem",
        "-cert",
        "e.pem",
        "-CAfile",
        "root.pem",
        "-respin",
        "answer",
        "-no_nonce",
    ]);
    assert!(told.contains("e.pem: revoked"), "{told}");

    let shown = scene.text(&["show", "issuing"]);
    assert!(shown.contains("server-client") && shown.contains("BEGIN CERTIFICATE"), "{shown}");
    assert!(scene.refused(&["update", "issuing"], 2).contains("nothing is changed"));
    let profiles = r#"[{"Name":"short","Usage":"Server","ValidityDays":1,"MaxValidityDays":2,"AllowedNames":["*.example"]}]"#;
    tool.put("profiles.json", profiles);
    scene.text(&["update", "issuing", "--profiles", "profiles.json", "--crl-hours", "24"]);
    scene.text(&["issue", "issuing", "--profile", "short", "--name", "f.example"]);
    assert!(
        scene
            .refused(&["issue", "issuing", "--profile", "short", "--name", "f.f.example"], 1)
            .contains("AllowedNames")
    );
    scene.text(&["update", "issuing", "--disable"]);
    assert!(
        scene
            .refused(&["issue", "issuing", "--profile", "short", "--name", "g.example"], 1)
            .contains("Disabled")
    );
    assert!(scene.refused(&["delete", "issuing"], 1).contains("are valid"));
    assert!(scene.refused(&["show", "none"], 1).contains("not found"));
}
