//! What the world sees of authorities over HTTP: certificates, lists and answers about revocation, as `openssl` and webpki verify by them; and what
//! strangers may ask for.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_e2e::{OpenSsl, Scene, Web, audit_lines, code, get, post, put_chain, text, verified};
use serde_json::{Value, json};

const WRONG_STATE: &str = "Rejected.StateModifiedFailed";

/// Counts what was signed by now.
fn signatures(scene: &Scene) -> usize {
    let lines = audit_lines(scene.live.site());
    lines.iter().filter(|line| line["operation"] == "CertificatePrivateKeySign").count()
}

/// Returns where an authority is asked about its certificates.
fn responder(authority: &str) -> String {
    format!("/pki/{authority}/ocsp")
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
            post(web.address, &responder("issuing"), &std::fs::read(tool.file("question")).unwrap());
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
    let mut scene = scene.restart();
    let web = Web::over(&scene.live);
    let told = scene.describe("issuing");
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
        assert_eq!(post(web.address, &responder("issuing"), &question).2, [0x30, 3, 0x0a, 1, 6]);
    }
    tool.does(&["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-reqout", "question"]);
    let question = std::fs::read(tool.file("question")).unwrap();
    assert_eq!(post(web.address, &responder("root"), &question).2, [0x30, 3, 0x0a, 1, 6]);
    tool.does(&["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-serial", "0x01", "-reqout", "two"]);
    for odd in [&b""[..], b"odd", &question[..20], &std::fs::read(tool.file("two")).unwrap()] {
        assert_eq!(post(web.address, &responder("issuing"), odd).2, [0x30, 3, 0x0a, 1, 1]);
    }
    assert_eq!(signatures(&scene), before);
    for (path, status) in [
        ("/pki/none.crl", 404),
        ("/pki/none.crt", 404),
        ("/pki/..%2f.crl", 404),
        ("/pki/none/ocsp/MEUw", 404),
        ("/pki/issuing/ocsp/%%%", 400),
        ("/pki/issuing", 404),
        (&responder("issuing"), 404),
    ] {
        let (answered, head, _) = get(web.address, path);
        assert_eq!(answered, status, "{path}: {head}");
    }
    let (status, ..) = post(web.address, &responder("issuing"), &vec![0; 5_000]);
    assert_eq!(status, 413);
    drop(web);
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
    let own = scene.describe("orders");
    let own = json!({ "CertificateId": text(&own, "CertificateId"), "Reason": "CaCompromise" });
    scene.ask("RevokeCertificate", own).unwrap();
    assert_eq!(
        believes(&orders, "a.orders.example"),
        Err(Error::InvalidCertificate(CertificateError::Revoked))
    );
    drop(web);
}
