//! What authorities say of revocation where something went wrong: records that are lost, damaged or of an older day, numbers that are not the newest,
//! authorities above that are revoked. What was said to be revoked is never unsaid.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use keymill_client::{Credentials, ServerError};
use keymill_e2e::{Caller, OpenSsl, Rows, Web, eventually, metric};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;
use keymill_runtime::config::AuthorityConfig;
use serde_json::{Value, json};

const WRONG_STATE: &str = "Rejected.StateModifiedFailed";

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
    /// A root, one below it, and one below that.
    fn begin() -> Self {
        let Started { live, credentials } = Live::start_with(Setup::new(config()));
        let caller = Caller::new(&live, &credentials);
        let mut scene = Self { live, caller, credentials };
        for (name, parent, length) in
            [("root", None, 2), ("middle", Some("root"), 1), ("issuing", Some("middle"), 0)]
        {
            let asked = json!({ "AuthorityName": name, "Subject": format!("CN={name},O=Example"), "Parent": parent, "PathLength": length });
            scene.ask("CreateCertificateAuthority", asked).unwrap();
        }
        scene
    }

    fn ask(&mut self, operation: &str, parameters: Value) -> Result<Value, ServerError> {
        self.caller.ask_json(operation, parameters)
    }

    fn issue(&mut self, name: &str) -> Value {
        self.try_issue(name).unwrap()
    }

    fn try_issue(&mut self, name: &str) -> Result<Value, ServerError> {
        self.ask(
            "IssueCertificate",
            json!({ "AuthorityName": "issuing", "Profile": "server", "AltNames": [name] }),
        )
    }

    fn revoke(&mut self, issued: &Value) -> Value {
        self.ask(
            "RevokeCertificate",
            json!({ "CertificateId": issued["CertificateId"], "Reason": "KeyCompromise" }),
        )
        .unwrap()
    }

    fn describe(&mut self, authority: &str) -> Value {
        self.ask("DescribeCertificateAuthority", json!({ "AuthorityName": authority })).unwrap()
    }

    /// What `openssl` reads in the list of an authority.
    fn list(&self, tool: &OpenSsl, authority: &str) -> String {
        let web = Web::over(&self.live);
        tool.put(
            "list",
            http(
                web.address,
                format!("GET /pki/{authority}.crl HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    .as_bytes(),
            ),
        );
        tool.does(&["crl", "-inform", "DER", "-in", "list", "-noout", "-text"]).to_lowercase()
    }

    /// What `openssl` reads in the answer about a number.
    fn answer(&mut self, tool: &OpenSsl, serial: &str) -> String {
        tool.put("issuing.pem", text(&self.describe("issuing"), "Certificate"));
        let serial = format!("0x{serial}");
        tool.does(&[
            "ocsp",
            "-issuer",
            "issuing.pem",
            "-serial",
            &serial,
            "-no_nonce",
            "-reqout",
            "question",
        ]);
        let question = std::fs::read(tool.file("question")).unwrap();
        let head = format!(
            "POST /pki/issuing/ocsp HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/ocsp-request\r\ncontent-length: {}\r\n\r\n",
            question.len()
        );
        let web = Web::over(&self.live);
        tool.put("answer", http(web.address, &[head.as_bytes(), &question].concat()));
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

    /// Has something done to what is stored while nothing runs.
    fn meanwhile(self, change: impl FnOnce(&Rows)) -> Self {
        let credentials = self.credentials;
        drop(self.caller);
        let site: Site = self.live.halt();
        change(&Rows::of(&site));
        let live = site.start(Setup::new(config()));
        let caller = Caller::new(&live, &credentials);
        Self { live, caller, credentials }
    }
}

fn text(reply: &Value, member: &str) -> String {
    reply[member].as_str().unwrap_or_else(|| panic!("{member} in {reply}")).to_owned()
}

fn http(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    assert!(all.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&all[..end]));
    all[end + 4..].to_vec()
}

#[test]
fn what_a_list_has_named_stays_named_where_its_record_is_lost_damaged_or_of_before() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let certificates = ["a.example", "b.example", "c.example"].map(|name| scene.issue(name));
    let serials = certificates.each_ref().map(|issued| text(issued, "SerialNumber"));
    let paths =
        certificates.each_ref().map(|issued| format!("certificate/{}", text(issued, "CertificateId")));
    let mut before = Vec::new();
    let mut scene = scene.meanwhile(|rows| before = rows.get(&paths[2]).unwrap());
    certificates.iter().for_each(|issued| drop(scene.revoke(issued)));
    let number = scene.describe("issuing")["CrlNumber"].as_u64().unwrap();
    let mut scene = scene.meanwhile(|rows| {
        rows.delete(&paths[0]);
        rows.flip(&paths[1]);
        rows.put(&paths[2], &before);
    });
    let other = scene.issue("d.example");
    let revoked = scene.revoke(&other);
    assert!(revoked["CrlNumber"].as_u64().unwrap() > number);
    let told = scene.list(&tool, "issuing");
    for serial in &serials {
        assert!(told.contains(serial), "{serial} in {told}");
        let told = scene.answer(&tool, serial);
        assert!(told.contains("Cert Status: revoked") && told.contains("keyCompromise"), "{told}");
    }
    assert!(told.contains(&text(&other, "SerialNumber")));
}

#[test]
fn the_number_of_a_list_grows_where_the_list_before_is_damaged_or_lost() {
    let mut scene = Scene::begin();
    let issued = scene.issue("a.example");
    let mut number = scene.revoke(&issued)["CrlNumber"].as_u64().unwrap();
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
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let first = scene.issue("a.example");
    let second = scene.ask("RenewCertificate", json!({ "CertificateId": first["CertificateId"] })).unwrap();
    let (old, new) = (text(&first, "SerialNumber"), text(&second, "SerialNumber"));
    let by = |authority: &str, serial: &str| json!({ "AuthorityName": authority, "SerialNumber": serial });
    let revoked = scene.ask("RevokeCertificate", by("issuing", &old)).unwrap();
    let told = scene.list(&tool, "issuing");
    assert!(told.contains(&old) && !told.contains(&new), "{told}");
    assert!(told.contains(&revoked["CrlNumber"].to_string()), "{told}");
    assert!(scene.answer(&tool, &old).contains("Cert Status: revoked"));
    assert!(scene.answer(&tool, &new).contains("Cert Status: good"));
    // Answers begin a little back, for clocks that are behind.
    let told = scene.answer(&tool, &new);
    let at = |what: &str| told.lines().find_map(|line| line.trim().strip_prefix(what)).unwrap().to_owned();
    assert_ne!(at("This Update: "), at("Produced At: "));
    let described =
        scene.ask("DescribeCertificate", json!({ "CertificateId": first["CertificateId"] })).unwrap();
    assert_eq!(described["Status"], "ACTIVE");
    // Once more changes nothing, and the whole can be revoked still.
    let again = scene.ask("RevokeCertificate", by("issuing", &old)).unwrap();
    assert_eq!(again["RevocationTime"], revoked["RevocationTime"]);
    scene.revoke(&first);
    assert!(scene.list(&tool, "issuing").contains(&new));

    // An authority goes on by its newest certificate.
    let own = scene.describe("issuing");
    let certificate = json!({ "CertificateId": own["CertificateId"] });
    let before = scene.ask("DescribeCertificate", certificate.clone()).unwrap();
    scene.ask("RenewCertificate", certificate).unwrap();
    scene.ask("RevokeCertificate", by("middle", &text(&before, "Serial"))).unwrap();
    assert!(scene.list(&tool, "middle").contains(&text(&before, "Serial")));
    assert_eq!(scene.describe("issuing")["Status"], "Enabled");
    scene.issue("b.example");
}

#[test]
fn below_one_that_is_revoked_nothing_is_issued_and_below_one_that_is_disabled_it_is() {
    let mut scene = Scene::begin();
    let issued = scene.issue("a.example");
    let disable = json!({ "AuthorityName": "middle", "Status": "Disabled" });
    scene.ask("UpdateCertificateAuthority", disable).unwrap();
    scene.issue("b.example");
    let middle = scene.describe("middle");
    scene.revoke(&middle);
    let refused = scene.try_issue("c.example").unwrap_err();
    assert_eq!(refused.code, WRONG_STATE);
    assert!(refused.message.contains("middle above issuing is Revoked"), "{}", refused.message);
    let renew = json!({ "CertificateId": issued["CertificateId"] });
    assert_eq!(scene.ask("RenewCertificate", renew).unwrap_err().code, WRONG_STATE);
    // It goes on to say what was revoked.
    assert!(scene.revoke(&issued)["CrlNumber"].is_u64());
}

#[test]
fn an_authority_that_has_to_tell_of_revocations_is_not_ended() {
    let mut scene = Scene::begin();
    let issued = scene.issue("a.example");
    scene.revoke(&issued);
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
    scene.revoke(&own);
    scene.ask("DeleteCertificateAuthority", end).unwrap();
}

#[test]
fn one_authority_whose_certificate_is_damaged_does_not_hide_the_others() {
    let mut scene = Scene::begin();
    let path = format!("certificate/{}", text(&scene.describe("issuing"), "CertificateId"));
    let mut scene = scene.meanwhile(|rows| rows.flip(&path));
    let told = scene.ask("ListCertificateAuthorities", json!({})).unwrap();
    let names: Vec<_> =
        told["Authorities"].as_array().unwrap().iter().map(|row| text(row, "AuthorityName")).collect();
    assert_eq!(names, ["middle", "root"]);
}

#[test]
fn a_key_that_somebody_else_has_is_not_certified_again() {
    let (mut scene, tool) = (Scene::begin(), OpenSsl::new());
    let csr = tool.request("a", "/CN=a.example", &["DNS:a.example"]);
    let other = tool.request("b", "/CN=b.example", &["DNS:b.example"]);
    let asked = |csr: &str| json!({ "AuthorityName": "issuing", "Profile": "server", "Csr": csr });
    let first = scene.ask("IssueCertificate", asked(&csr)).unwrap();
    let beside = scene.ask("IssueCertificate", asked(&csr)).unwrap();
    let superseded = scene.ask("IssueCertificate", asked(&other)).unwrap();
    scene.revoke(&first);
    let with = json!({ "CertificateId": superseded["CertificateId"], "Reason": "Superseded" });
    scene.ask("RevokeCertificate", with).unwrap();
    // Another reason comes too late, and it is told what it is.
    assert_eq!(scene.revoke(&superseded)["Reason"], "Superseded");
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
