//! Certificate authorities: made with roots and below them, issuing by request and with keys made here, one by one and in batches, renewing and
//! revoking; believed by `openssl` and by webpki as far as they should be, over HTTP where lists and answers are; kept over a restart.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use keymill_client::{Credentials, ServerError};
use keymill_e2e::{Caller, OpenSsl, Web, audit_lines, eventually, metric, verified};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::config::AuthorityConfig;
use keymill_runtime::{EngineConfig, PoolConfig};
use serde_json::{Value, json};

const DENIED: &str = "Forbidden.NoPermission";
const NO_SUCH: &str = "Forbidden.ResourceNotFound";
const WRONG_STATE: &str = "Rejected.StateModifiedFailed";
const IN_USE: &str = "Rejected.ResourceInUse";
const DAY_MS: i64 = 86_400_000;

fn config() -> EngineConfig {
    let authorities =
        AuthorityConfig { public_url: Some("http://pki.example".into()), check: Duration::from_millis(20) };
    EngineConfig { authorities, ..EngineConfig::default() }
}

struct Scene {
    live: Live,
    caller: Caller,
    credentials: Credentials,
}

impl Scene {
    /// A root and an authority below it.
    fn begin() -> Self {
        let mut scene = Self::empty(Setup::new(config()));
        scene
            .ask(
                "CreateCertificateAuthority",
                json!({ "AuthorityName": "root", "Subject": "CN=Root,O=Example" }),
            )
            .unwrap();
        scene.below("issuing", json!({})).unwrap();
        scene
    }

    fn empty(setup: Setup) -> Self {
        let Started { live, credentials } = Live::start_with(setup);
        let caller = Caller::new(&live, &credentials);
        Self { live, caller, credentials }
    }

    fn ask(&mut self, operation: &str, parameters: Value) -> Result<Value, ServerError> {
        self.caller.ask_json(operation, parameters)
    }

    fn below(&mut self, name: &str, with: Value) -> Result<Value, ServerError> {
        let mut asked = json!({
            "AuthorityName": name, "Subject": format!("CN={name},O=Example"), "Parent": "root", "PathLength": 0,
        });
        asked.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        self.ask("CreateCertificateAuthority", asked)
    }

    fn issue(&mut self, with: Value) -> Result<Value, ServerError> {
        let mut asked = json!({ "AuthorityName": "issuing", "Profile": "server" });
        asked.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        self.ask("IssueCertificate", asked)
    }

    fn pem_of(&mut self, authority: &str) -> String {
        let told = self.ask("DescribeCertificateAuthority", json!({ "AuthorityName": authority })).unwrap();
        text(&told, "Certificate")
    }

    /// Somebody with these grants.
    fn other(&mut self, grants: Value) -> Caller {
        let credentials = self.caller.credentials(serde_json::from_value(grants).unwrap());
        Caller::new(&self.live, &credentials)
    }

    fn restart(self, config: EngineConfig) -> Self {
        let credentials = self.credentials;
        let live = self.live.restart(config);
        let caller = Caller::new(&live, &credentials);
        Self { live, caller, credentials }
    }
}

/// Counts what was signed by now.
fn signatures(scene: &Scene) -> usize {
    let lines = audit_lines(scene.live.site());
    lines.iter().filter(|line| line["operation"] == "CertificatePrivateKeySign").count()
}

fn text(reply: &Value, member: &str) -> String {
    reply[member].as_str().unwrap_or_else(|| panic!("{member} in {reply}")).to_owned()
}

fn code(answered: Result<Value, ServerError>) -> String {
    answered.expect_err("it is refused").code
}

fn message(answered: Result<Value, ServerError>) -> String {
    answered.expect_err("it is refused").message
}

/// Asks over HTTP as anybody does; returns the status, the head, and the body.
fn http(server: SocketAddr, request: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, all[end + 4..].to_vec())
}

fn get(server: SocketAddr, path: &str) -> (u16, String, Vec<u8>) {
    http(server, format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
}

fn post(server: SocketAddr, path: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/ocsp-request\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    http(server, &[head.as_bytes(), body].concat())
}

/// Puts root, issuer and leaf where `openssl` finds them.
fn put_chain(tool: &OpenSsl, scene: &mut Scene, issued: &Value) {
    let (root, issuing) = (scene.pem_of("root"), scene.pem_of("issuing"));
    tool.put("root.pem", root);
    tool.put("issuing.pem", &issuing);
    tool.put("leaf.pem", text(issued, "Certificate"));
    assert_eq!(text(issued, "CertificateChain"), issuing, "all above the leaf but the root");
}

#[test]
fn what_is_issued_is_believed_by_openssl_and_says_what_the_profile_says() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let csr = tool.request("a", "/CN=a.example", &["DNS:a.example", "DNS:b.example", "IP:10.0.0.1"]);
    let issued = scene.issue(json!({ "Csr": csr })).unwrap();
    put_chain(&tool, &mut scene, &issued);
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "b.example"];
    tool.does(&[&verify[..], &["-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"]].concat());
    let (done, _) = tool.run(&[
        "verify",
        "-CAfile",
        "root.pem",
        "-purpose",
        "sslclient",
        "-untrusted",
        "issuing.pem",
        "leaf.pem",
    ]);
    assert!(!done, "it is no client's");
    let told = tool.does(&["x509", "-in", "leaf.pem", "-noout", "-text"]);
    for said in [
        "DNS:a.example, DNS:b.example, IP Address:10.0.0.1",
        "TLS Web Server Authentication",
        "URI:http://pki.example/pki/issuing.crl",
        "OCSP - URI:http://pki.example/pki/issuing/ocsp",
        "CA Issuers - URI:http://pki.example/pki/issuing.crt",
        "Signature Algorithm: ecdsa-with-SHA256",
    ] {
        assert!(told.contains(said), "{said} in {told}");
    }
    let told = tool.does(&["x509", "-in", "issuing.pem", "-noout", "-text"]);
    assert!(
        told.contains("CA:TRUE, pathlen:0") && told.contains("URI:http://pki.example/pki/root.crl"),
        "{told}"
    );
    // All of it is found by the operations on certificates, which the authority's own are, too.
    let id = text(&issued, "CertificateId");
    let described = scene.ask("DescribeCertificate", json!({ "CertificateId": id })).unwrap();
    assert_eq!((&described["Origin"], &described["Status"]), (&json!("ISSUED"), &json!("ACTIVE")));
    let serial = text(&issued, "SerialNumber");
    let filters = json!([{ "Key": "Serial", "Values": [serial] }]);
    let found = scene.ask("ListCertificates", json!({ "Filters": filters })).unwrap();
    assert_eq!(found["TotalCount"], 1);
    for (key, value, count) in [
        ("AuthorityName", "issuing", 1),
        ("AuthorityName", "root", 2),
        ("Profile", "server", 1),
        ("Profile", "client", 0),
        ("AccessPoint", "shop", 0),
    ] {
        let filters = json!([{ "Key": key, "Values": [value] }]);
        assert_eq!(
            scene.ask("ListCertificates", json!({ "Filters": filters })).unwrap()["TotalCount"],
            count,
            "{key}"
        );
    }
    assert_eq!(scene.ask("ListCertificates", json!({})).unwrap()["TotalCount"], 3);
    let rows = scene.ask("ListCertificateAuthorities", json!({})).unwrap();
    assert_eq!(
        (&rows["TotalCount"], &rows["Authorities"][0]["AuthorityName"]),
        (&json!(2), &json!("issuing"))
    );
}

#[test]
fn every_kind_of_key_makes_authorities_whose_chains_verify() {
    let (mut scene, tool) = (Scene::empty(Setup::new(config())), OpenSsl::new());
    for spec in ["RSA_2048", "RSA_3072", "EC_P256", "EC_P384", "Ed25519"] {
        let name = spec.to_lowercase();
        let mut root = json!({ "AuthorityName": name, "Subject": format!("CN={spec}"), "KeySpec": spec });
        let mut asked =
            json!({ "AuthorityName": name, "Profile": "client", "Subject": "CN=orders", "KeySpec": spec });
        if spec == "Ed25519" {
            // No token of ours makes one, and the suite runs over tokens, too.
            root["ProtectionLevel"] = json!("SOFTWARE");
            asked["ProtectionLevel"] = json!("SOFTWARE");
        }
        let made = scene.ask("CreateCertificateAuthority", root).unwrap();
        let issued = scene.ask("IssueCertificate", asked).unwrap();
        tool.put("root.pem", text(&made, "Certificate"));
        tool.put("leaf.pem", text(&issued, "Certificate"));
        tool.does(&["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root.pem", "leaf.pem"]);
    }
    let odd = json!({ "AuthorityName": "odd", "Subject": "CN=odd", "KeySpec": "EC_P256K" });
    assert!(message(scene.ask("CreateCertificateAuthority", odd)).contains("EC_P256K"));
}

#[test]
fn what_is_revoked_is_in_the_list_and_in_the_answers_and_nobody_believes_it() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let web = Web::over(&scene.live);
    let first =
        scene.issue(json!({ "Csr": tool.request("a", "/CN=a.example", &["DNS:a.example"]) })).unwrap();
    let second =
        scene.issue(json!({ "Csr": tool.request("b", "/CN=b.example", &["DNS:b.example"]) })).unwrap();
    put_chain(&tool, &mut scene, &first);
    tool.put("other.pem", text(&second, "Certificate"));
    let fetch = |name: &str| {
        let (status, head, der) = get(web.address, &format!("/pki/{name}"));
        assert_eq!(status, 200, "{head}");
        tool.put(name, der);
        head
    };
    let lists = |tool: &OpenSsl| {
        for name in ["root", "issuing"] {
            assert!(fetch(&format!("{name}.crl")).contains("application/pkix-crl"));
            let (crl, pem) = (format!("{name}.crl"), format!("{name}.crl.pem"));
            tool.does(&["crl", "-inform", "DER", "-in", &crl, "-out", &pem]);
            tool.does(&["crl", "-in", &pem, "-noout", "-CAfile", &format!("{name}.pem")]);
        }
        let both =
            ["root.crl.pem", "issuing.crl.pem"].map(|name| std::fs::read(tool.file(name)).unwrap()).concat();
        tool.put("all.crl.pem", both);
    };
    let verify = |leaf: &str| {
        tool.run(&[
            "verify",
            "-crl_check_all",
            "-CRLfile",
            "all.crl.pem",
            "-CAfile",
            "root.pem",
            "-untrusted",
            "issuing.pem",
            leaf,
        ])
    };
    let ask = |leaf: &str, nonce: &str| {
        tool.does(&["ocsp", "-issuer", "issuing.pem", "-cert", leaf, nonce, "-reqout", "question"]);
        let (status, head, answer) =
            post(web.address, "/pki/issuing/ocsp", &std::fs::read(tool.file("question")).unwrap());
        assert!(status == 200 && head.contains("application/ocsp-response"), "{head}");
        tool.put("answer", answer);
        tool.does(&[
            "ocsp",
            "-issuer",
            "issuing.pem",
            "-cert",
            leaf,
            "-CAfile",
            "root.pem",
            "-verify_other",
            "issuing.pem",
            "-respin",
            "answer",
            "-no_nonce",
        ])
    };
    lists(&tool);
    assert!(verify("leaf.pem").0 && verify("other.pem").0);
    assert!(ask("leaf.pem", "-no_nonce").contains("leaf.pem: good"));
    assert!(fetch("issuing.crt").contains("application/pkix-cert"));
    tool.does(&["x509", "-inform", "DER", "-in", "issuing.crt", "-noout"]);

    let id = text(&first, "CertificateId");
    let revoked =
        scene.ask("RevokeCertificate", json!({ "CertificateId": id, "Reason": "KeyCompromise" })).unwrap();
    assert_eq!(revoked["Reason"], "KeyCompromise");
    lists(&tool);
    let (believed, told) = verify("leaf.pem");
    assert!(!believed && told.contains("certificate revoked"), "{told}");
    assert!(verify("other.pem").0);
    let told = tool.does(&["crl", "-in", "issuing.crl.pem", "-noout", "-text"]);
    assert!(
        told.contains("Key Compromise") && told.to_lowercase().contains(&text(&first, "SerialNumber")),
        "{told}"
    );
    let told = ask("leaf.pem", "-no_nonce");
    assert!(told.contains("leaf.pem: revoked") && told.contains("keyCompromise"), "{told}");
    // What somebody puts into a question does not have it answered anew.
    let before = signatures(&scene);
    for _ in 0..5 {
        assert!(ask("leaf.pem", "-nonce").contains("leaf.pem: revoked"));
    }
    assert_eq!(signatures(&scene), before);
    let told = scene.ask("DescribeCertificate", json!({ "CertificateId": id })).unwrap();
    assert_eq!((&told["Status"], &told["RevocationReason"]), (&json!("REVOKED"), &json!("KeyCompromise")));
    assert_eq!(
        (&told["AuthorityName"], &told["Profile"], &told["AutoRenew"]),
        (&json!("issuing"), &json!("server"), &json!(false))
    );
    // Once more it stays as it was, and its id may be its number.
    let again = json!({ "AuthorityName": "issuing", "SerialNumber": text(&first, "SerialNumber") });
    let again = scene.ask("RevokeCertificate", again).unwrap();
    assert_eq!(
        (&again["Reason"], &again["RevocationTime"]),
        (&revoked["Reason"], &revoked["RevocationTime"])
    );
    assert_eq!(code(scene.ask("RenewCertificate", json!({ "CertificateId": id }))), WRONG_STATE);
    assert_eq!(code(scene.ask("DeleteCertificate", json!({ "CertificateId": id }))), WRONG_STATE);
    drop(web);
    let mut scene = scene.restart(config());
    let web = Web::over(&scene.live);
    let told = scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "issuing" })).unwrap();
    assert_eq!((&told["Issued"], &told["Revoked"]), (&json!(2), &json!(1)));
    let number = || {
        let (_, _, der) = get(web.address, "/pki/issuing.crl");
        tool.put("now.crl", der);
        let told = tool.does(&["crl", "-inform", "DER", "-in", "now.crl", "-noout", "-crlnumber"]);
        u64::from_str_radix(
            told.trim().trim_start_matches("crlNumber=0x").trim_start_matches("crlNumber="),
            16,
        )
        .unwrap()
    };
    assert!(number() >= 2);
    drop(web);
    verified(&scene.live.halt());
}

#[test]
fn strangers_are_answered_from_what_is_there_and_have_nothing_signed() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let web = Web::over(&scene.live);
    let issued =
        scene.issue(json!({ "Csr": tool.request("a", "/CN=a.example", &["DNS:a.example"]) })).unwrap();
    put_chain(&tool, &mut scene, &issued);
    let before = signatures(&scene);
    for serial in ["0x01", "0x5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"] {
        tool.does(&["ocsp", "-issuer", "issuing.pem", "-serial", serial, "-reqout", "question"]);
        let question = std::fs::read(tool.file("question")).unwrap();
        // Unauthorized (6), unsigned (RFC 5019 §2.2.3).
        assert_eq!(post(web.address, "/pki/issuing/ocsp", &question).2, [0x30, 3, 0x0a, 1, 6]);
    }
    tool.does(&["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-reqout", "question"]);
    let question = std::fs::read(tool.file("question")).unwrap();
    assert_eq!(post(web.address, "/pki/root/ocsp", &question).2, [0x30, 3, 0x0a, 1, 6]);
    tool.does(&["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-serial", "0x01", "-reqout", "two"]);
    for odd in [&b""[..], b"odd", &question[..20], &std::fs::read(tool.file("two")).unwrap()] {
        assert_eq!(post(web.address, "/pki/issuing/ocsp", odd).2, [0x30, 3, 0x0a, 1, 1]);
    }
    assert_eq!(signatures(&scene), before);
    for (path, status) in [
        ("/pki/none.crl", 404),
        ("/pki/none.crt", 404),
        ("/pki/..%2f.crl", 404),
        ("/pki/none/ocsp/MEUw", 404),
        ("/pki/issuing/ocsp/%%%", 400),
        ("/pki/issuing", 404),
        ("/pki/issuing/ocsp", 404),
    ] {
        let (answered, head, _) = get(web.address, path);
        assert_eq!(answered, status, "{path}: {head}");
    }
    let (status, ..) = post(web.address, "/pki/issuing/ocsp", &vec![0; 5_000]);
    assert_eq!(status, 413);
    drop(web);
}

fn named_as(names: &[&str], subject: &str) -> Value {
    json!({ "Subject": subject, "AltNames": names })
}

#[test]
fn profiles_constraints_and_path_lengths_are_kept_and_what_is_wrong_is_named() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let constraints = json!({ "PermittedDns": ["orders.example"], "ExcludedDns": ["x.orders.example"] });
    let orders = json!({ "NameConstraints": constraints, "Profiles": [{
        "Name": "short", "Usage": "Server", "ValidityDays": 2, "MaxValidityDays": 5, "AllowedNames": ["*.orders.example"],
        "KeySpecs": ["EC_P256"],
    }, { "Name": "server", "Usage": "Server", "ValidityDays": 90, "MaxValidityDays": 200 }] });
    scene.below("orders", orders).unwrap();
    let mut issue = |profile: &str, name: &str, with: Value| {
        let csr = tool.request("a", &format!("/CN={name}"), &[&format!("DNS:{name}")]);
        let mut asked = json!({ "AuthorityName": "orders", "Profile": profile, "Csr": csr });
        asked.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        scene.ask("IssueCertificate", asked)
    };
    let issued = issue("short", "a.orders.example", json!({})).unwrap();
    tool.put("leaf.pem", text(&issued, "Certificate"));
    assert!(
        message(issue("short", "b.a.orders.example", json!({})))
            .contains("DNS:b.a.orders.example is none of its AllowedNames")
    );
    assert!(
        message(issue("server", "a.example", json!({})))
            .contains("DNS:a.example is outside the name constraints")
    );
    assert!(message(issue("server", "x.orders.example", json!({}))).contains("name constraints"));
    assert!(
        message(issue("short", "a.orders.example", json!({ "ValidityDays": 6 })))
            .contains("ValidityDays of 6 is not in 1 to 5")
    );
    assert!(message(issue("none", "a.orders.example", json!({}))).contains("no profile none"));
    // What is built in is no way around its own profiles.
    assert!(message(issue("client", "a.orders.example", json!({}))).contains("offers those alone"));
    let own = named_as(&["a.orders.example"], "CN=b.a.orders.example");
    assert!(message(issue("short", "a.orders.example", own)).contains("is none of its AllowedNames"));
    assert!(
        message(issue("server", "a.orders.example", json!({ "KeySpec": "EC_P256" })))
            .contains("Csr has its key elsewhere")
    );
    tool.put("root.pem", scene.pem_of("root"));
    tool.put("orders.pem", scene.pem_of("orders"));
    tool.does(&["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "orders.pem", "leaf.pem"]);
    // Of another's request, and of one whose signature is another's.
    let rsa = json!({ "AuthorityName": "orders", "Profile": "short", "Csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n" });
    assert!(message(scene.ask("IssueCertificate", rsa)).starts_with("Csr: "));
    let (one, two) =
        (tool.request("a", "/CN=a.orders.example", &[]), tool.request("b", "/CN=b.orders.example", &[]));
    let spliced = {
        let der = |name: &str, pem: &str| {
            tool.put(name, pem);
            tool.does(&["req", "-in", name, "-outform", "DER", "-out", "der"]);
            std::fs::read(tool.file("der")).unwrap()
        };
        let (mut one, two) = (der("one", &one), der("two", &two));
        let (end, from) = (one.len() - 16, two.len() - 16);
        one[end..].copy_from_slice(&two[from..]);
        tool.put("spliced", &one);
        keymill_x509::pem("CERTIFICATE REQUEST", &one)
    };
    let asked = json!({ "AuthorityName": "orders", "Profile": "short", "Csr": spliced });
    assert!(message(scene.ask("IssueCertificate", asked)).contains("signature"));
    let deeper = json!({ "AuthorityName": "deeper", "Subject": "CN=deeper", "Parent": "orders" });
    assert!(
        message(scene.ask("CreateCertificateAuthority", deeper))
            .contains("path length of the authority orders is 0")
    );
    for (odd, told) in [
        (json!({ "AuthorityName": "a", "Subject": "CN=a", "CrlHours": 0 }), "CrlHours"),
        (json!({ "AuthorityName": "a", "Subject": "CN=a", "ValidityDays": 40_000 }), "ValidityDays"),
        (
            json!({ "AuthorityName": "a", "Subject": "CN=a", "NameConstraints": { "PermittedIp": ["10.0.0.1/8"] } }),
            "PermittedIp",
        ),
        (
            json!({ "AuthorityName": "a", "Subject": "CN=a", "Parent": "root", "IsSignedElsewhere": true }),
            "exclude each other",
        ),
    ] {
        let said = message(scene.ask("CreateCertificateAuthority", odd));
        assert!(said.contains(told), "{said}");
    }
    assert_eq!(code(scene.below("orders", json!({}))), "Rejected.ResourceExist");
    assert_eq!(code(scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "none" }))), NO_SUCH);
}

#[test]
fn a_batch_is_one_commit_and_what_is_wrong_with_one_is_told_of_that_one() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let good = tool.request("a", "/CN=a.example", &["DNS:a.example"]);
    let mut requests: Vec<Value> =
        (0..50).map(|n| json!({ "Csr": good, "AltNames": [format!("n{n}.example")] })).collect();
    requests[7] = json!({ "Csr": "odd" });
    requests[9] = json!({ "Csr": good, "AltNames": [] , "Subject": "CN=no host" });
    let asked = json!({ "AuthorityName": "issuing", "Profile": "server", "Requests": requests });
    let reply = scene.ask("BatchIssueCertificate", asked).unwrap();
    let outcomes = reply["Certificates"].as_array().unwrap();
    assert_eq!(outcomes.len(), 50);
    let mut serials = std::collections::BTreeSet::new();
    for (n, outcome) in outcomes.iter().enumerate() {
        match n {
            7 | 9 => assert!(
                outcome["Certificate"].is_null() && outcome["Code"] == "InvalidParameter",
                "{outcome}"
            ),
            _ => assert!(serials.insert(text(outcome, "SerialNumber")), "{outcome}"),
        }
    }
    assert_eq!(serials.len(), 48);
    put_chain(
        &tool,
        &mut scene,
        &json!({ "Certificate": outcomes[0]["Certificate"], "CertificateChain": reply["CertificateChain"] }),
    );
    tool.does(&[
        "verify",
        "-CAfile",
        "root.pem",
        "-untrusted",
        "issuing.pem",
        "-verify_hostname",
        "n0.example",
        "leaf.pem",
    ]);
    assert_eq!(scene.ask("ListCertificates", json!({})).unwrap()["TotalCount"], 50);
    let none = json!({ "AuthorityName": "issuing", "Profile": "server", "Requests": [] });
    assert_eq!(code(scene.ask("BatchIssueCertificate", none)), "MissingParameter");
    let many: Vec<Value> = (0..1_025).map(|_| json!({ "Csr": "a" })).collect();
    let many = json!({ "AuthorityName": "issuing", "Profile": "server", "Requests": many });
    assert!(message(scene.ask("BatchIssueCertificate", many)).contains("1025"));
    verified(&scene.live.halt());
}

#[test]
fn what_is_due_is_renewed_by_itself_in_its_place_and_with_its_key() {
    let mut scene = Scene::begin();
    let issued = scene.issue(json!({ "AltNames": ["a.example"], "ValidityDays": 30 })).unwrap();
    let left =
        scene.issue(json!({ "AltNames": ["b.example"], "ValidityDays": 30, "AutoRenew": false })).unwrap();
    let id = text(&issued, "CertificateId");
    let signed = json!({ "CertificateId": id, "Algorithm": "ECDSA_SHA_256", "Message": "aGVsbG8=", "MessageType": "RAW" });
    scene.ask("CertificatePrivateKeySign", signed.clone()).unwrap();
    let renewed = scene.ask("RenewCertificate", json!({ "CertificateId": id })).unwrap();
    assert_eq!(text(&renewed, "CertificateId"), id);
    assert_ne!(text(&renewed, "SerialNumber"), text(&issued, "SerialNumber"));
    // Twenty-five days later.
    let credentials = scene.credentials;
    let site = scene.live.halt();
    let live = site.start(Setup::new(config()).at_offset_ms(25 * DAY_MS));
    let mut scene = Scene { caller: Caller::new(&live, &credentials), live, credentials };
    let serial = |scene: &mut Scene, id: &str| {
        text(&scene.ask("DescribeCertificate", json!({ "CertificateId": id })).unwrap(), "Serial")
    };
    eventually("it is renewed", || (serial(&mut scene, &id) != text(&renewed, "SerialNumber")).then_some(()));
    scene.ask("CertificatePrivateKeySign", signed).unwrap();
    assert_eq!(serial(&mut scene, &text(&left, "CertificateId")), text(&left, "SerialNumber"));
    assert_eq!(metric(&scene.live, "keymill_certificates_expiring{days=\"7\"}"), 1.0);
    // All three of them are revoked at once.
    scene.ask("RevokeCertificate", json!({ "CertificateId": id })).unwrap();
    let told = scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "issuing" })).unwrap();
    assert_eq!((&told["Issued"], &told["Revoked"]), (&json!(4), &json!(3)));
    let lines = audit_lines(scene.live.site());
    assert!(lines.iter().any(|line| line["operation"] == "RenewCertificate" && line["frontend"] == "timer"));
    verified(&scene.live.halt());
}

#[test]
fn an_authority_is_switched_off_ended_and_its_certificate_revoked_in_order() {
    let mut scene = Scene::begin();
    let issued = scene.issue(json!({ "AltNames": ["a.example"] })).unwrap();
    let state = |scene: &mut Scene, to: &str| {
        scene.ask("UpdateCertificateAuthority", json!({ "AuthorityName": "issuing", "Status": to }))
    };
    let end = |scene: &mut Scene, name: &str| {
        scene.ask("DeleteCertificateAuthority", json!({ "AuthorityName": name }))
    };
    assert_eq!(code(end(&mut scene, "issuing")), WRONG_STATE);
    state(&mut scene, "Disabled").unwrap();
    assert_eq!(code(scene.issue(json!({ "AltNames": ["b.example"] }))), WRONG_STATE);
    assert_eq!(code(end(&mut scene, "issuing")), IN_USE);
    let own = text(
        &scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "issuing" })).unwrap(),
        "CertificateId",
    );
    assert_eq!(code(scene.ask("DeleteCertificate", json!({ "CertificateId": own }))), IN_USE);
    state(&mut scene, "Enabled").unwrap();
    // Its key signs what it issues alone.
    let sign = json!({ "CertificateId": own, "Algorithm": "ECDSA_SHA_256", "Message": "aGVsbG8=", "MessageType": "RAW" });
    assert_eq!(code(scene.ask("CertificatePrivateKeySign", sign)), DENIED);
    let batch = json!({ "CertificateId": own, "Algorithm": "ECDSA_SHA_256", "Messages": ["aGVsbG8="], "MessageType": "RAW" });
    assert_eq!(code(scene.ask("BatchSign", batch)), DENIED);
    assert_eq!(code(scene.issue(json!({ "Profile": "ca", "Subject": "CN=sub" }))), "MissingParameter");
    let serial = text(&issued, "SerialNumber");
    scene.ask("RevokeCertificate", json!({ "AuthorityName": "issuing", "SerialNumber": serial })).unwrap();
    // Its own is its parent's to revoke, and a root's is nobody's.
    scene.ask("UpdateCertificateStatus", json!({ "CertificateId": own, "Status": "REVOKED" })).unwrap();
    assert_eq!(code(scene.issue(json!({ "AltNames": ["b.example"] }))), WRONG_STATE);
    assert_eq!(code(state(&mut scene, "Enabled")), WRONG_STATE);
    let root = scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "root" })).unwrap();
    assert_eq!(root["Revoked"], 1);
    let root = text(&root, "CertificateId");
    assert_eq!(code(scene.ask("RevokeCertificate", json!({ "CertificateId": root }))), WRONG_STATE);
    assert_eq!(code(end(&mut scene, "root")), WRONG_STATE);
    end(&mut scene, "issuing").unwrap();
    let off = |scene: &mut Scene, name: &str| {
        scene.ask("UpdateCertificateAuthority", json!({ "AuthorityName": name, "Status": "Disabled" }))
    };
    off(&mut scene, "root").unwrap();
    // It alone says that the certificate below it is revoked.
    assert!(message(end(&mut scene, "root")).contains("has not ended"));
    let other = json!({ "AuthorityName": "other", "Subject": "CN=Other" });
    scene.ask("CreateCertificateAuthority", other.clone()).unwrap();
    off(&mut scene, "other").unwrap();
    end(&mut scene, "other").unwrap();
    assert_eq!(scene.ask("ListCertificateAuthorities", json!({})).unwrap()["TotalCount"], 1);
    // Made anew under a name that was there before.
    scene.ask("CreateCertificateAuthority", other).unwrap();
    let mut scene = scene.restart(config());
    assert_eq!(scene.ask("ListCertificateAuthorities", json!({})).unwrap()["TotalCount"], 2);
    verified(&scene.live.halt());
}

#[test]
fn one_whose_certificate_is_signed_elsewhere_waits_for_it() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let asked = json!({ "AuthorityName": "off", "Subject": "CN=Off,O=Example", "IsSignedElsewhere": true });
    let made = scene.ask("CreateCertificateAuthority", asked).unwrap();
    assert!(made["Certificate"].is_null());
    assert_eq!(
        code(scene.ask(
            "IssueCertificate",
            json!({ "AuthorityName": "off", "Profile": "server", "AltNames": ["a.example"] })
        )),
        WRONG_STATE
    );
    tool.put("off.csr", text(&made, "Csr"));
    let own = text(&made, "CertificateId");
    tool.does(&["req", "-in", "off.csr", "-noout", "-verify"]);
    tool.does(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "top.key",
        "-out",
        "top.pem",
        "-subj",
        "/CN=Top",
        "-days",
        "30",
    ]);
    let sign = |extension: &str| {
        tool.put("ext", extension);
        tool.does(&[
            "x509",
            "-req",
            "-in",
            "off.csr",
            "-CA",
            "top.pem",
            "-CAkey",
            "top.key",
            "-CAcreateserial",
            "-days",
            "20",
            "-extfile",
            "ext",
            "-out",
            "off.pem",
        ]);
        std::fs::read_to_string(tool.file("off.pem")).unwrap()
    };
    let top = std::fs::read_to_string(tool.file("top.pem")).unwrap();
    let upload = json!({ "CertificateId": own, "Certificate": top, "CertificateChain": top });
    assert!(message(scene.ask("UploadCertificate", upload)).contains("ActivateCertificateAuthority"));
    let mut bring = |certificate: String| {
        scene.ask(
            "ActivateCertificateAuthority",
            json!({ "AuthorityName": "off", "Certificate": certificate, "CertificateChain": top }),
        )
    };
    assert!(message(bring(sign("basicConstraints=critical,CA:FALSE"))).contains("none of an authority"));
    assert!(message(bring(top.clone())).contains("its key is another"));
    for (usage, lacks) in [
        ("digitalSignature", "keyCertSign"),
        ("digitalSignature,cRLSign", "keyCertSign"),
        ("digitalSignature,keyCertSign", "cRLSign"),
    ] {
        let told =
            message(bring(sign(&format!("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,{usage}"))));
        assert!(told.contains(&format!("no {lacks}")), "{told}");
    }
    let good = sign(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\nsubjectKeyIdentifier=hash",
    );
    bring(good.clone()).unwrap();
    assert_eq!(code(bring(good)), WRONG_STATE);
    let issued = scene
        .ask(
            "IssueCertificate",
            json!({ "AuthorityName": "off", "Profile": "server", "AltNames": ["a.example"] }),
        )
        .unwrap();
    tool.put("leaf.pem", text(&issued, "Certificate"));
    tool.put("chain.pem", text(&issued, "CertificateChain"));
    tool.does(&["verify", "-CAfile", "top.pem", "-untrusted", "chain.pem", "leaf.pem"]);
    let told = scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "off" })).unwrap();
    assert_eq!(
        (&told["Status"], &told["PathLength"], told["CrlNumber"].is_u64()),
        (&json!("Enabled"), &json!(0), true)
    );
}

/// Makes an access point that may ask an authority for certificates, and logs in as it.
fn application(scene: &mut Scene, name: &str, allowed: Value) -> Caller {
    let policy = json!({
        "Name": name, "KmsInstance": "shared", "Permissions": ["RbacPermission/Template/CertificateRequester"], "Resources": ["authority/issuing"],
    });
    scene.ask("CreatePolicy", policy).unwrap();
    scene.ask("CreateApplicationAccessPoint", json!({ "Name": name, "Policies": [name] })).unwrap();
    if !allowed.is_null() {
        let points =
            json!([{ "AccessPoint": name, "Profiles": ["server", "client"], "AllowedNames": allowed }]);
        let change = json!({ "AuthorityName": "issuing", "AccessPoints": points });
        scene.ask("UpdateCertificateAuthority", change).unwrap();
    }
    let key = json!({ "AapName": name, "Password": "secret-1234", "TimeoutMs": 60_000 });
    let key = scene.ask("CreateClientKey", key).unwrap();
    let file = json!({ "KeyId": key["ClientKeyId"], "PrivateKeyData": key["PrivateKeyData"] });
    let credentials = Credentials::of_client_key_file(file.to_string().as_bytes(), "secret-1234").unwrap();
    Caller::new(&scene.live, &credentials)
}

#[test]
fn an_application_gets_the_names_that_are_its_own_and_ends_what_it_asked_for() {
    let mut scene = Scene::begin();
    let others = scene.issue(json!({ "AltNames": ["a.bank.example"] })).unwrap();
    let mut till = application(&mut scene, "till", Value::Null);
    let mut shop = application(&mut scene, "shop", json!(["*.shop.example", "CN:shop-*"]));
    let issue = |caller: &mut Caller, profile: &str, subject: Option<&str>, names: &[&str]| {
        let mut asked = json!({ "AuthorityName": "issuing", "Profile": profile, "AltNames": names });
        if let Some(subject) = subject {
            asked["Subject"] = json!(subject);
        }
        caller.ask_json("IssueCertificate", asked)
    };
    let issued = issue(&mut shop, "server", None, &["a.shop.example"]).unwrap();
    issue(&mut shop, "client", Some("CN=shop-7,O=Example"), &[]).unwrap();
    for (profile, subject, names, told) in [
        ("server", None, &["a.bank.example"][..], "DNS:a.bank.example"),
        ("server", None, &["shop.example"], "DNS:shop.example"),
        ("client", Some("CN=admin"), &[], "CN=admin"),
        ("client", Some("CN=shop-7,O=Bank"), &[], "O=Bank"),
        ("code-signing", Some("CN=shop-7"), &[], "code-signing"),
    ] {
        let error = issue(&mut shop, profile, subject, names).unwrap_err();
        assert!(error.code == DENIED && error.message.contains(told), "{}", error.message);
    }
    assert!(
        message(issue(&mut till, "server", None, &["a.shop.example"]))
            .contains("the access point till may not ask")
    );
    // What another asked for is not there for it.
    let id = |issued: &Value| json!({ "CertificateId": text(issued, "CertificateId") });
    for operation in ["RevokeCertificate", "RenewCertificate"] {
        assert_eq!(code(shop.ask_json(operation, id(&others))), "Certificate.NotFound");
        assert_eq!(code(till.ask_json(operation, id(&issued))), "Certificate.NotFound");
    }
    let by_number = json!({ "AuthorityName": "issuing", "SerialNumber": text(&others, "SerialNumber") });
    assert_eq!(code(shop.ask_json("RevokeCertificate", by_number)), "Certificate.NotFound");
    shop.ask_json("RenewCertificate", id(&issued)).unwrap();
    shop.ask_json("RevokeCertificate", id(&issued)).unwrap();
    assert_eq!(
        code(
            shop.ask_json(
                "CreateCertificateAuthority",
                json!({ "AuthorityName": "own", "Subject": "CN=own" })
            )
        ),
        DENIED
    );
    verified(&scene.live.halt());
}

#[test]
fn webpki_believes_what_is_issued_and_not_what_is_revoked_or_elsewhere() {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
    use rustls::{CertificateError, Error, RootCertStore};

    let mut scene = Scene::begin();
    scene.below("orders", json!({ "NameConstraints": { "PermittedDns": ["orders.example"] } })).unwrap();
    let web = Web::over(&scene.live);
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&scene.pem_of("root"))).unwrap();
    let roots = std::sync::Arc::new(roots);
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let believes = |issued: &Value, name: &str| {
        let lists = ["root", "issuing", "orders"]
            .map(|name| CertificateRevocationListDer::from(get(web.address, &format!("/pki/{name}.crl")).2));
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.with_crls(lists).enforce_revocation_expiration().build().unwrap();
        let (leaf, chain) = (der(&text(issued, "Certificate")), der(&text(issued, "CertificateChain")));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[chain], &name, &[], UnixTime::now()).map(drop)
    };
    let issued = scene.issue(json!({ "AltNames": ["a.example", "10.0.0.1"] })).unwrap();
    believes(&issued, "a.example").unwrap();
    believes(&issued, "10.0.0.1").unwrap();
    assert!(believes(&issued, "b.example").is_err());
    let orders = json!({ "AuthorityName": "orders", "Profile": "server", "AltNames": ["a.orders.example"] });
    let orders = scene.ask("IssueCertificate", orders).unwrap();
    believes(&orders, "a.orders.example").unwrap();
    let client = json!({ "AuthorityName": "issuing", "Profile": "client", "AltNames": ["a.example"] });
    let client = scene.ask("IssueCertificate", client).unwrap();
    assert!(believes(&client, "a.example").is_err(), "it is no server's");
    let id = json!({ "CertificateId": text(&issued, "CertificateId"), "Reason": "Superseded" });
    scene.ask("RevokeCertificate", id).unwrap();
    assert_eq!(believes(&issued, "a.example"), Err(Error::InvalidCertificate(CertificateError::Revoked)));
    // An authority that is revoked takes all that it issued with it.
    let own = scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "orders" })).unwrap();
    let own = json!({ "CertificateId": text(&own, "CertificateId"), "Reason": "CaCompromise" });
    scene.ask("RevokeCertificate", own).unwrap();
    assert_eq!(
        believes(&orders, "a.orders.example"),
        Err(Error::InvalidCertificate(CertificateError::Revoked))
    );
    drop(web);
}

#[test]
fn an_authority_in_an_hsm_issues_by_any_token_that_is_up_and_says_when_none_is() {
    let farm = Farm::new(2);
    let tokens = farm.parts_with(|config| {
        config.sessions = 2;
        config.call_timeout = Duration::from_millis(500);
    });
    let engine = EngineConfig {
        pool: PoolConfig { patience: Duration::from_millis(300), ..PoolConfig::default() },
        ..config()
    };
    let (mut scene, tool) = (Scene::empty(Setup::new(engine).with_tokens(tokens)), OpenSsl::new());
    let root = json!({ "AuthorityName": "root", "Subject": "CN=Root", "KeySpec": "RSA_2048", "ProtectionLevel": "HSM" });
    let made = eventually("the control lane is up", || {
        match scene.ask("CreateCertificateAuthority", root.clone()) {
            Err(error) if error.code == "ServiceUnavailableTemporary" => None,
            answered => Some(answered.unwrap()),
        }
    });
    let told = scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "root" })).unwrap();
    assert_eq!(told["ProtectionLevel"], "HSM");
    tool.put("root.pem", text(&made, "Certificate"));
    let good = tool.request("a", "/CN=a.example", &["DNS:a.example"]);
    let requests: Vec<Value> = (0..20).map(|_| json!({ "Csr": good })).collect();
    let batch = json!({ "AuthorityName": "root", "Profile": "server", "Requests": requests });
    let reply = scene.ask("BatchIssueCertificate", batch.clone()).unwrap();
    for outcome in reply["Certificates"].as_array().unwrap() {
        tool.put("leaf.pem", text(outcome, "Certificate"));
        tool.does(&["verify", "-CAfile", "root.pem", "leaf.pem"]);
    }
    let first = scene.caller.tokens().unwrap()[0].token_name.clone();
    scene.caller.drain_token(&first).unwrap();
    scene.ask("BatchIssueCertificate", batch.clone()).unwrap();
    farm.control("removed = true");
    let refused = eventually("no token is up", || scene.ask("BatchIssueCertificate", batch.clone()).err());
    assert_eq!(refused.code, "ServiceUnavailableTemporary", "{}", refused.message);
    // What is revoked is, though no list can be signed; the list comes once a token is back.
    let serial = text(&reply["Certificates"][0], "SerialNumber");
    let revoke = json!({ "AuthorityName": "root", "SerialNumber": serial, "TimeoutMs": 5_000 });
    let revoked = scene.ask("RevokeCertificate", revoke).unwrap();
    assert!(revoked["CrlNumber"].is_null(), "{revoked}");
    let number = |scene: &mut Scene| {
        scene.ask("DescribeCertificateAuthority", json!({ "AuthorityName": "root" })).unwrap()["CrlNumber"]
            .as_u64()
    };
    let before = number(&mut scene);
    farm.control("");
    eventually("the list is made", || (number(&mut scene) > before).then_some(()));
    let web = Web::over(&scene.live);
    tool.put("root.crl", get(web.address, "/pki/root.crl").2);
    let told = tool.does(&["crl", "-inform", "DER", "-in", "root.crl", "-noout", "-text"]);
    assert!(told.to_lowercase().contains(&serial), "{told}");
    drop(web);
    verified(&scene.live.halt());
}

#[test]
fn whoever_has_no_right_to_an_authority_does_not_find_it() {
    let mut scene = Scene::begin();
    let issued = scene.issue(json!({ "AltNames": ["a.example"] })).unwrap();
    let grants = json!([{ "Role": "CertificateAdministrator", "Resources": ["authority/issuing"] }]);
    let mut other = scene.other(grants);
    let asked = json!({ "AuthorityName": "issuing", "Profile": "client", "Subject": "CN=orders" });
    other.ask_json("IssueCertificate", asked.clone()).unwrap();
    let elsewhere = json!({ "AuthorityName": "root", "Profile": "client", "Subject": "CN=orders" });
    assert_eq!(code(other.ask_json("IssueCertificate", elsewhere)), NO_SUCH);
    assert_eq!(
        code(other.ask_json("DescribeCertificateAuthority", json!({ "AuthorityName": "root" }))),
        NO_SUCH
    );
    let rows = other.ask_json("ListCertificateAuthorities", json!({})).unwrap();
    assert_eq!(
        (&rows["TotalCount"], &rows["Authorities"][0]["AuthorityName"]),
        (&json!(1), &json!("issuing"))
    );
    let create = json!({ "AuthorityName": "own", "Subject": "CN=own" });
    assert_eq!(code(other.ask_json("CreateCertificateAuthority", create)), DENIED);
    other.ask_json("RevokeCertificate", json!({ "CertificateId": text(&issued, "CertificateId") })).unwrap();
    let grants = json!([{ "Role": "KeyAdministrator" }]);
    let mut stranger = scene.other(grants);
    assert_eq!(code(stranger.ask_json("IssueCertificate", asked)), NO_SUCH);
    let id = json!({ "CertificateId": text(&issued, "CertificateId") });
    assert_eq!(code(stranger.ask_json("RevokeCertificate", id.clone())), "Certificate.NotFound");
    assert_eq!(code(stranger.ask_json("RenewCertificate", id)), "Certificate.NotFound");
}
