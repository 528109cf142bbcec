//! Certificate authorities: made with roots and below them, issuing by request and with keys made here, one by one and in batches, in tokens as well;
//! by profiles and within constraints, and believed by `openssl`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_e2e::{OpenSsl, Scene, Web, code, eventually, get, message, put_chain, text, verified};
use keymill_harness::{Farm, Setup};
use keymill_runtime::{EngineConfig, PoolConfig};
use serde_json::{Value, json};

const NO_SUCH: &str = "Forbidden.ResourceNotFound";

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
    let (mut scene, tool) = (Scene::empty(Setup::new(Scene::config())), OpenSsl::new());
    for spec in ["RSA_2048", "RSA_3072", "EC_P256", "EC_P384", "Ed25519"] {
        let name = spec.to_lowercase();
        // A key of RSA takes its time on a machine that is busy.
        let mut root = json!({
            "AuthorityName": name, "Subject": format!("CN={spec}"), "KeySpec": spec, "TimeoutMs": 60_000,
        });
        let mut asked = json!({
            "AuthorityName": name, "Profile": "client", "Subject": "CN=orders", "KeySpec": spec, "TimeoutMs": 60_000,
        });
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
fn an_authority_in_an_hsm_issues_by_any_token_that_is_up_and_says_when_none_is() {
    let farm = Farm::new(2);
    let tokens = farm.parts_with(|config| {
        config.sessions = 2;
        config.call_timeout = Duration::from_millis(500);
    });
    let engine = EngineConfig {
        pool: PoolConfig { patience: Duration::from_millis(300), ..PoolConfig::default() },
        ..Scene::config()
    };
    let (mut scene, tool) = (Scene::empty(Setup::new(engine).with_tokens(tokens)), OpenSsl::new());
    let root = json!({ "AuthorityName": "root", "Subject": "CN=Root", "KeySpec": "RSA_2048", "ProtectionLevel": "HSM" });
    let made = eventually("the control lane is up", || {
        match scene.ask("CreateCertificateAuthority", root.clone()) {
            Err(error) if error.code == "ServiceUnavailableTemporary" => None,
            answered => Some(answered.unwrap()),
        }
    });
    let told = scene.describe("root");
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
    let number = |scene: &mut Scene| scene.describe("root")["CrlNumber"].as_u64();
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
