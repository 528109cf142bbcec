//! The life of authorities and of what they issue: certificates that are renewed by themselves, authorities that are switched off and ended in order,
//! and those that wait for a certificate that is signed elsewhere.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_e2e::{OpenSsl, Scene, audit_lines, code, eventually, message, metric, text, verified};
use keymill_harness::Setup;
use serde_json::json;

const DENIED: &str = "Forbidden.NoPermission";
const WRONG_STATE: &str = "Rejected.StateModifiedFailed";
const IN_USE: &str = "Rejected.ResourceInUse";
const DAY_MS: i64 = 86_400_000;

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
    let mut scene = scene.again(Setup::new(Scene::config()).at_offset_ms(25 * DAY_MS), |_| ());
    let serial = |scene: &mut Scene, id: &str| {
        text(&scene.ask("DescribeCertificate", json!({ "CertificateId": id })).unwrap(), "Serial")
    };
    eventually("it is renewed", || (serial(&mut scene, &id) != text(&renewed, "SerialNumber")).then_some(()));
    scene.ask("CertificatePrivateKeySign", signed).unwrap();
    assert_eq!(serial(&mut scene, &text(&left, "CertificateId")), text(&left, "SerialNumber"));
    assert_eq!(metric(&scene.live, "keymill_certificates_expiring{days=\"7\"}"), 1.0);
    // All three of them are revoked at once.
    scene.ask("RevokeCertificate", json!({ "CertificateId": id })).unwrap();
    let told = scene.describe("issuing");
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
    let own = text(&scene.describe("issuing"), "CertificateId");
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
    let root = scene.describe("root");
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
    let mut scene = scene.restart();
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
    let told = scene.describe("off");
    assert_eq!(
        (&told["Status"], &told["PathLength"], told["CrlNumber"].is_u64()),
        (&json!("Enabled"), &json!(0), true)
    );
}
