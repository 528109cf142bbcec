//! Certificates that come with their private key, and leave with it: in PEM and PKCS #12, and never where that was not allowed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use keymill_client::{Credentials, ServerError};
use keymill_e2e::{Authority, Caller, Elsewhere, find_in_files, text, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const PASSWORD: &str = "a pass word 1";

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn refused(answered: Result<Value, ServerError>) -> (String, String) {
    let error = answered.expect_err("it is refused");
    (error.code, error.message)
}

/// Returns the PKCS #8 of a private key in PEM, in base64.
fn pkcs8(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

fn import(
    caller: &mut Caller,
    certificate: &str,
    chain: &str,
    key: &str,
    exportable: bool,
) -> Result<Value, ServerError> {
    let asked = json!({
        "Certificate": certificate, "CertificateChain": chain, "PrivateKey": key, "ExportablePrivateKey": exportable,
    });
    caller.ask_json("ImportCertificate", asked)
}

#[test]
fn what_was_brought_in_signs_and_leaves_under_a_password_that_opens_it_elsewhere() {
    let (live, mut caller, _) = begin();
    let authority = Authority::new("elsewhere");
    let issued = authority.server(&["shop.example"]);
    let key = pkcs8(&issued.key);
    let id = text(
        &import(&mut caller, &issued.certificate, &authority.pem(), &key, true).unwrap(),
        "CertificateId",
    );
    let told = caller.ask_json("DescribeCertificate", json!({ "CertificateId": id })).unwrap();
    assert_eq!((&told["Status"], &told["Origin"]), (&json!("ACTIVE"), &json!("IMPORTED")));
    assert_eq!(told["SubjectAlternativeNames"], json!(["shop.example"]));
    let asked = json!({ "CertificateId": id, "Algorithm": "ECDSA_SHA_256", "Message": "aGVsbG8=" });
    caller.ask_json("CertificatePrivateKeySign", asked).unwrap();

    let asked = json!({ "CertificateId": id, "Password": PASSWORD });
    let container = text(&caller.ask_json("ExportCertificate", asked).unwrap(), "Pkcs12");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.p12");
    let bytes = decode(&container);
    std::fs::write(&file, &bytes).unwrap();
    let opened = |password: &str| {
        let arguments = ["pkcs12", "-nodes", "-passin", &format!("pass:{password}"), "-in"];
        Command::new("openssl").args(arguments).arg(&file).output().unwrap()
    };
    let shown = opened(PASSWORD);
    let shown_text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert_eq!(shown_text.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(shown_text.matches("BEGIN PRIVATE KEY").count(), 1);
    assert!(!opened("another one 1").status.success());

    // And it comes back as it left.
    let again = json!({ "Pkcs12": container, "Password": PASSWORD });
    let other = text(&caller.ask_json("ImportCertificate", again).unwrap(), "CertificateId");
    let got = caller.ask_json("GetCertificate", json!({ "CertificateId": other })).unwrap();
    assert_eq!(
        (text(&got, "Certificate"), text(&got, "CertificateChain")),
        (issued.certificate.clone(), authority.pem())
    );
    // It may not leave a second time: nobody said so.
    let (code, message) = refused(
        caller.ask_json("ExportCertificate", json!({ "CertificateId": other, "Password": PASSWORD })),
    );
    assert!(code == "Forbidden.NoPermission" && message.contains("ExportablePrivateKey"), "{code} {message}");
    let site = live.halt();
    let part = &decode(&key)[40..60];
    assert!(find_in_files(site.path(), part).is_empty(), "the private key stands in no file in clear");
    verified(&site);
}

fn decode(text: &str) -> Vec<u8> {
    let quoted = json!(text).to_string();
    let bytes: keymill_core::operation::Bin<'_> = serde_json::from_str(&quoted).unwrap();
    bytes.to_vec()
}

#[test]
fn what_does_not_belong_together_is_not_taken() {
    let (_live, mut caller, _) = begin();
    let (authority, stranger) = (Authority::new("elsewhere"), Authority::new("stranger"));
    let (issued, other) = (authority.server(&["a.example"]), authority.server(&["b.example"]));
    let expired = authority.expired(&["c.example"]);
    for (certificate, chain, key, told) in [
        (&issued.certificate, authority.pem(), pkcs8(&other.key), "not the key of the certificate"),
        (&issued.certificate, stranger.pem(), pkcs8(&issued.key), "out of order"),
        (&expired.certificate, authority.pem(), pkcs8(&expired.key), "expired"),
        (&issued.certificate, authority.pem(), "AAAA".to_owned(), "PrivateKey"),
    ] {
        let (code, message) = refused(import(&mut caller, certificate, &chain, &key, false));
        assert!(code == "InvalidParameter" && message.contains(told), "{told}: {code} {message}");
    }
    for asked in [
        json!({}),
        json!({ "Certificate": issued.certificate }),
        json!({ "Pkcs12": "AAAA" }),
        json!({ "Certificate": issued.certificate, "PrivateKey": pkcs8(&issued.key), "Password": PASSWORD }),
    ] {
        assert_eq!(refused(caller.ask_json("ImportCertificate", asked)).0, "InvalidParameter");
    }
    let (code, message) =
        refused(caller.ask_json("ImportCertificate", json!({ "Pkcs12": "AAAA", "Password": PASSWORD })));
    assert!(code == "InvalidParameter" && message.starts_with("Pkcs12"), "{code} {message}");
    assert_eq!(caller.ask_json("ListCertificates", json!({})).unwrap()["TotalCount"], json!(0));
    assert!(caller.keys().unwrap().is_empty());
}

#[test]
fn a_key_leaves_neither_before_it_is_signed_nor_where_that_was_forbidden() {
    let (live, mut caller, _) = begin();
    let elsewhere = Elsewhere::new("elsewhere", live.clock.now());
    let mut create = |exportable: Value| {
        let asked = json!({
            "KeySpec": "EC_P256", "Subject": "CN=a,O=b,OU=c,C=CN", "ExportablePrivateKey": exportable,
            "ProtectionLevel": "SOFTWARE",
        });
        let reply = caller.ask_json("CreateCertificate", asked).unwrap();
        (text(&reply, "CertificateId"), text(&reply, "Csr"))
    };
    let (may, may_csr) = create(json!(true));
    let (may_not, csr) = create(json!(false));
    let export = |caller: &mut Caller, id: &str, password: &str| {
        caller.ask_json("ExportCertificate", json!({ "CertificateId": id, "Password": password }))
    };
    assert_eq!(refused(export(&mut caller, &may, PASSWORD)).0, "Rejected.StateModifiedFailed");
    for (id, csr) in [(&may, &may_csr), (&may_not, &csr)] {
        let certificate = elsewhere.certify(csr, live.clock.now(), (-1, 30));
        let asked =
            json!({ "CertificateId": id, "Certificate": certificate, "CertificateChain": elsewhere.pem() });
        caller.ask_json("UploadCertificate", asked).unwrap();
    }
    assert_eq!(refused(export(&mut caller, &may_not, PASSWORD)).0, "Forbidden.NoPermission");
    assert_eq!(refused(export(&mut caller, &may, "short")).0, "InvalidParameter");
    export(&mut caller, &may, PASSWORD).unwrap();
}
