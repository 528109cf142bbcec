//! What authorities say of revocation where something went wrong: records that are lost, damaged or of an older day, numbers that are not the newest,
//! authorities above that are revoked. What was said to be revoked is never unsaid.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::ServerError;
use keymill_e2e::{OpenSsl, Rows, Scene, Web, eventually, get, metric, post, text};
use keymill_harness::Setup;
use serde_json::{Value, json};

const WRONG_STATE: &str = "Rejected.StateModifiedFailed";

/// A root, one below it, and one below that.
fn begin() -> Scene {
    let mut scene = Scene::empty(Setup::new(Scene::config()));
    for (name, parent, length) in
        [("root", None, 2), ("middle", Some("root"), 1), ("issuing", Some("middle"), 0)]
    {
        let asked = json!({ "AuthorityName": name, "Subject": format!("CN={name},O=Example"), "Parent": parent, "PathLength": length });
        scene.ask("CreateCertificateAuthority", asked).unwrap();
    }
    scene
}

fn issue(scene: &mut Scene, name: &str) -> Value {
    try_issue(scene, name).unwrap()
}

fn try_issue(scene: &mut Scene, name: &str) -> Result<Value, ServerError> {
    scene.issue(json!({ "AltNames": [name] }))
}

fn revoke(scene: &mut Scene, issued: &Value) -> Value {
    let asked = json!({ "CertificateId": issued["CertificateId"], "Reason": "KeyCompromise" });
    scene.ask("RevokeCertificate", asked).unwrap()
}

/// Takes what was answered well.
fn good((status, head, body): (u16, String, Vec<u8>)) -> Vec<u8> {
    assert_eq!(status, 200, "{head}");
    body
}

/// What `openssl` reads in the list of an authority.
fn list(scene: &Scene, tool: &OpenSsl, authority: &str) -> String {
    let web = Web::over(&scene.live);
    tool.put("list", good(get(web.address, &format!("/pki/{authority}.crl"))));
    tool.does(&["crl", "-inform", "DER", "-in", "list", "-noout", "-text"]).to_lowercase()
}

/// What `openssl` reads in the answer about a number.
fn answer(scene: &mut Scene, tool: &OpenSsl, serial: &str) -> String {
    tool.put("issuing.pem", scene.pem_of("issuing"));
    let serial = format!("0x{serial}");
    tool.does(&["ocsp", "-issuer", "issuing.pem", "-serial", &serial, "-no_nonce", "-reqout", "question"]);
    let question = std::fs::read(tool.file("question")).unwrap();
    let web = Web::over(&scene.live);
    tool.put("answer", good(post(web.address, "/pki/issuing/ocsp", &question)));
    tool.does(&[
        "ocsp",
        "-issuer",
        "issuing.pem",
        "-serial",
        &serial,
        "-respin",
        "answer",
        "-noverify",
        "-resp_text",
    ])
}

#[test]
fn what_a_list_has_named_stays_named_where_its_record_is_lost_damaged_or_of_before() {
    let (mut scene, tool) = (begin(), OpenSsl::new());
    let certificates = ["a.example", "b.example", "c.example"].map(|name| issue(&mut scene, name));
    let serials = certificates.each_ref().map(|issued| text(issued, "SerialNumber"));
    let paths =
        certificates.each_ref().map(|issued| format!("certificate/{}", text(issued, "CertificateId")));
    let mut before = Vec::new();
    let mut scene = scene.meanwhile(|rows| before = rows.get(&paths[2]).unwrap());
    certificates.iter().for_each(|issued| drop(revoke(&mut scene, issued)));
    let number = scene.describe("issuing")["CrlNumber"].as_u64().unwrap();
    let mut scene = scene.meanwhile(|rows| {
        rows.delete(&paths[0]);
        rows.flip(&paths[1]);
        rows.put(&paths[2], &before);
    });
    let other = issue(&mut scene, "d.example");
    let revoked = revoke(&mut scene, &other);
    assert!(revoked["CrlNumber"].as_u64().unwrap() > number);
    let told = list(&scene, &tool, "issuing");
    for serial in &serials {
        assert!(told.contains(serial), "{serial} in {told}");
        let told = answer(&mut scene, &tool, serial);
        assert!(told.contains("Cert Status: revoked") && told.contains("keyCompromise"), "{told}");
    }
    assert!(told.contains(&text(&other, "SerialNumber")));
}

#[test]
fn the_number_of_a_list_grows_where_the_list_before_is_damaged_or_lost() {
    let mut scene = begin();
    let issued = issue(&mut scene, "a.example");
    let mut number = revoke(&mut scene, &issued)["CrlNumber"].as_u64().unwrap();
    for harm in [Rows::flip, Rows::delete] {
        scene = scene.meanwhile(|rows| harm(rows, "crl/nissuing"));
        let next = eventually("the list is made anew", || scene.describe("issuing")["CrlNumber"].as_u64());
        assert!(next > number, "{next} after {number}");
        assert!(metric(&scene.live, "keymill_quarantined_records") >= 1.0, "it is told of");
        number = next;
    }
}

#[test]
fn a_number_before_the_newest_is_revoked_alone() {
    let (mut scene, tool) = (begin(), OpenSsl::new());
    let first = issue(&mut scene, "a.example");
    let second = scene.ask("RenewCertificate", json!({ "CertificateId": first["CertificateId"] })).unwrap();
    let (old, new) = (text(&first, "SerialNumber"), text(&second, "SerialNumber"));
    let by = |authority: &str, serial: &str| json!({ "AuthorityName": authority, "SerialNumber": serial });
    let revoked = scene.ask("RevokeCertificate", by("issuing", &old)).unwrap();
    let told = list(&scene, &tool, "issuing");
    assert!(told.contains(&old) && !told.contains(&new), "{told}");
    assert!(told.contains(&revoked["CrlNumber"].to_string()), "{told}");
    assert!(answer(&mut scene, &tool, &old).contains("Cert Status: revoked"));
    assert!(answer(&mut scene, &tool, &new).contains("Cert Status: good"));
    // Answers begin a little back, for clocks that are behind.
    let told = answer(&mut scene, &tool, &new);
    let at = |what: &str| told.lines().find_map(|line| line.trim().strip_prefix(what)).unwrap().to_owned();
    assert_ne!(at("This Update: "), at("Produced At: "));
    let described =
        scene.ask("DescribeCertificate", json!({ "CertificateId": first["CertificateId"] })).unwrap();
    assert_eq!(described["Status"], "ACTIVE");
    // Once more changes nothing, and the whole can be revoked still.
    let again = scene.ask("RevokeCertificate", by("issuing", &old)).unwrap();
    assert_eq!(again["RevocationTime"], revoked["RevocationTime"]);
    revoke(&mut scene, &first);
    assert!(list(&scene, &tool, "issuing").contains(&new));

    // An authority goes on by its newest certificate.
    let own = scene.describe("issuing");
    let certificate = json!({ "CertificateId": own["CertificateId"] });
    let before = scene.ask("DescribeCertificate", certificate.clone()).unwrap();
    scene.ask("RenewCertificate", certificate).unwrap();
    scene.ask("RevokeCertificate", by("middle", &text(&before, "Serial"))).unwrap();
    assert!(list(&scene, &tool, "middle").contains(&text(&before, "Serial")));
    assert_eq!(scene.describe("issuing")["Status"], "Enabled");
    issue(&mut scene, "b.example");
}

#[test]
fn below_one_that_is_revoked_nothing_is_issued_and_below_one_that_is_disabled_it_is() {
    let mut scene = begin();
    let issued = issue(&mut scene, "a.example");
    let disable = json!({ "AuthorityName": "middle", "Status": "Disabled" });
    scene.ask("UpdateCertificateAuthority", disable).unwrap();
    issue(&mut scene, "b.example");
    let middle = scene.describe("middle");
    revoke(&mut scene, &middle);
    let refused = try_issue(&mut scene, "c.example").unwrap_err();
    assert_eq!(refused.code, WRONG_STATE);
    assert!(refused.message.contains("middle above issuing is Revoked"), "{}", refused.message);
    let renew = json!({ "CertificateId": issued["CertificateId"] });
    assert_eq!(scene.ask("RenewCertificate", renew).unwrap_err().code, WRONG_STATE);
    // It goes on to say what was revoked.
    assert!(revoke(&mut scene, &issued)["CrlNumber"].is_u64());
}

#[test]
fn an_authority_that_has_to_tell_of_revocations_is_not_ended() {
    let mut scene = begin();
    let issued = issue(&mut scene, "a.example");
    revoke(&mut scene, &issued);
    let disable = json!({ "AuthorityName": "issuing", "Status": "Disabled" });
    scene.ask("UpdateCertificateAuthority", disable).unwrap();
    let end = json!({ "AuthorityName": "issuing" });
    let path = format!("certificate/{}", text(&issued, "CertificateId"));
    for is_there in [true, false] {
        let refused = scene.ask("DeleteCertificateAuthority", end.clone()).unwrap_err();
        assert_eq!(refused.code, "Rejected.ResourceInUse");
        assert!(refused.message.contains("has not ended"), "{}", refused.message);
        // Also where its list alone still knows.
        if is_there {
            scene = scene.meanwhile(|rows| rows.delete(&path));
        }
    }
    let own = scene.describe("issuing");
    revoke(&mut scene, &own);
    scene.ask("DeleteCertificateAuthority", end).unwrap();
}

#[test]
fn one_authority_whose_certificate_is_damaged_does_not_hide_the_others() {
    let mut scene = begin();
    let path = format!("certificate/{}", text(&scene.describe("issuing"), "CertificateId"));
    let mut scene = scene.meanwhile(|rows| rows.flip(&path));
    let told = scene.ask("ListCertificateAuthorities", json!({})).unwrap();
    let names: Vec<_> =
        told["Authorities"].as_array().unwrap().iter().map(|row| text(row, "AuthorityName")).collect();
    assert_eq!(names, ["middle", "root"]);
}

#[test]
fn a_key_that_somebody_else_has_is_not_certified_again() {
    let (mut scene, tool) = (begin(), OpenSsl::new());
    let csr = tool.request("a", "/CN=a.example", &["DNS:a.example"]);
    let other = tool.request("b", "/CN=b.example", &["DNS:b.example"]);
    let asked = |csr: &str| json!({ "AuthorityName": "issuing", "Profile": "server", "Csr": csr });
    let first = scene.ask("IssueCertificate", asked(&csr)).unwrap();
    let beside = scene.ask("IssueCertificate", asked(&csr)).unwrap();
    let superseded = scene.ask("IssueCertificate", asked(&other)).unwrap();
    revoke(&mut scene, &first);
    let with = json!({ "CertificateId": superseded["CertificateId"], "Reason": "Superseded" });
    scene.ask("RevokeCertificate", with).unwrap();
    // Another reason comes too late, and it is told what it is.
    assert_eq!(revoke(&mut scene, &superseded)["Reason"], "Superseded");
    scene.ask("IssueCertificate", asked(&other)).unwrap();
    for _ in 0..2 {
        let refused = scene.ask("IssueCertificate", asked(&csr)).unwrap_err();
        assert_eq!(refused.code, "InvalidParameter");
        assert!(refused.message.contains("compromised"), "{}", refused.message);
        let renew = json!({ "CertificateId": beside["CertificateId"] });
        assert_eq!(scene.ask("RenewCertificate", renew).unwrap_err().code, "InvalidParameter");
        let requests = json!([{ "Csr": csr }, { "Csr": other }]);
        let batch = json!({ "AuthorityName": "issuing", "Profile": "server", "Requests": requests });
        let told = scene.ask("BatchIssueCertificate", batch).unwrap();
        assert_eq!(told["Certificates"][0]["Code"], "InvalidParameter");
        assert!(told["Certificates"][1]["Certificate"].is_string());
        scene = scene.meanwhile(|_| ());
    }
}
