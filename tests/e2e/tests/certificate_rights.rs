//! Rights around issuing: which certificates an access point gets, whose certificates are nobody else's, and what the right to ask for certificates
//! does not give: to make an authority, or to change what one signs by.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::ServerError;
use keymill_e2e::{Caller, OpenSsl, Scene, code, message, text, verified};
use keymill_harness::Setup;
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const DENIED: &str = "Forbidden.NoPermission";
const NO_SUCH: &str = "Forbidden.ResourceNotFound";

/// A root and an authority below it, below which there may be another.
fn begin() -> Scene {
    let mut scene = Scene::empty(Setup::new(EngineConfig::default()));
    let root = json!({ "AuthorityName": "root", "Subject": "CN=Root,O=Example" });
    scene.ask("CreateCertificateAuthority", root).unwrap();
    scene.below("issuing", json!({ "PathLength": 1 })).unwrap();
    scene
}

/// Checks that something is denied, and that it is told what is missing.
fn denied(answered: Result<Value, ServerError>, missing: &str) {
    let error = answered.expect_err("it is refused");
    assert!(error.code == DENIED && error.message.contains(missing), "{}: {}", error.code, error.message);
}

#[test]
fn whoever_asks_for_certificates_makes_no_authority_of_itself() {
    let mut scene = begin();
    let tool = OpenSsl::new();
    let mut requester = scene.other(
        json!([{ "Role": "RbacPermission/Template/CertificateRequester", "Resources": ["authority/issuing"] }]),
    );
    let mut maker =
        scene.other(json!([{ "Role": "CertificateAdministrator", "Resources": ["authority/issuing"] }]));
    let csr = tool.request("sub", "/CN=Sub", &[]);
    let missing = "the right to CreateCertificateAuthority of authority/issuing is missing";
    let asked = json!({ "AuthorityName": "issuing", "Profile": "ca", "Csr": csr });
    let many = json!({ "AuthorityName": "issuing", "Profile": "ca", "Requests": [{ "Csr": csr }] });
    denied(requester.ask_json("IssueCertificate", asked.clone()), missing);
    denied(requester.ask_json("BatchIssueCertificate", many.clone()), missing);
    // By the usage, whatever the profile is called.
    let profiles = json!([
        { "Name": "plain", "Usage": "Ca", "ValidityDays": 30, "MaxValidityDays": 30 },
        { "Name": "client", "Usage": "Client", "ValidityDays": 30, "MaxValidityDays": 30 },
    ]);
    let sub = maker.ask_json("IssueCertificate", asked).unwrap();
    maker.ask_json("BatchIssueCertificate", many).unwrap();
    let id = json!({ "CertificateId": sub["CertificateId"] });
    denied(requester.ask_json("RenewCertificate", id.clone()), missing);
    maker.ask_json("RenewCertificate", id).unwrap();
    scene
        .ask("UpdateCertificateAuthority", json!({ "AuthorityName": "issuing", "Profiles": profiles }))
        .unwrap();
    let plain = json!({ "AuthorityName": "issuing", "Profile": "plain", "Csr": csr });
    denied(requester.ask_json("IssueCertificate", plain), missing);
    let client = json!({ "AuthorityName": "issuing", "Profile": "client", "Csr": csr });
    let leaf = requester.ask_json("IssueCertificate", client).unwrap();
    requester.ask_json("RenewCertificate", json!({ "CertificateId": leaf["CertificateId"] })).unwrap();
    verified(&scene.live.halt());
}

#[test]
fn the_certificate_of_an_authority_is_renewed_by_who_may_change_it() {
    let mut scene = begin();
    let told = scene.describe("issuing");
    let id = json!({ "CertificateId": told["CertificateId"] });
    let own = scene.describe("root");
    let own = json!({ "CertificateId": own["CertificateId"] });
    let mut requester = scene.other(
        json!([{ "Role": "RbacPermission/Template/CertificateRequester", "Resources": ["authority/root", "authority/issuing"] }]),
    );
    let missing =
        |name: &str| format!("the right to UpdateCertificateAuthority of authority/{name} is missing");
    denied(requester.ask_json("RenewCertificate", id.clone()), &missing("issuing"));
    denied(requester.ask_json("RenewCertificate", own), &missing("root"));
    scene.ask("RenewCertificate", id).unwrap();
    verified(&scene.live.halt());
}

#[test]
fn what_ends_with_its_authority_is_told_to_be_shortened() {
    let mut scene = begin();
    let brief = json!({ "AuthorityName": "brief", "Subject": "CN=Brief", "ValidityDays": 10 });
    scene.ask("CreateCertificateAuthority", brief).unwrap();
    let mut issue = |days: u32| {
        let asked = json!({ "AuthorityName": "brief", "Profile": "server", "AltNames": ["a.example"], "ValidityDays": days });
        scene.ask("IssueCertificate", asked).unwrap()
    };
    let (cut, whole) = (issue(90), issue(5));
    assert_eq!((&cut["IsShortened"], &whole["IsShortened"]), (&json!(true), &Value::Null));
    let anew = json!({ "CertificateId": whole["CertificateId"], "ValidityDays": 20 });
    assert_eq!(scene.ask("RenewCertificate", anew).unwrap()["IsShortened"], json!(true));
    let csr = OpenSsl::new().request("a", "/CN=a.example", &[]);
    let many = json!({ "AuthorityName": "brief", "Profile": "server", "Requests": [{ "Csr": csr }] });
    let outcome = scene.ask("BatchIssueCertificate", many).unwrap();
    assert_eq!(outcome["Certificates"][0]["IsShortened"], json!(true), "{outcome}");
    verified(&scene.live.halt());
}

/// Makes an access point that may ask an authority for certificates, and logs in as it.
fn application(scene: &mut Scene, name: &str, allowed: Value) -> Caller {
    let caller = scene.application(name, &["CertificateRequester"], &["authority/issuing"]);
    if !allowed.is_null() {
        let points =
            json!([{ "AccessPoint": name, "Profiles": ["server", "client"], "AllowedNames": allowed }]);
        let change = json!({ "AuthorityName": "issuing", "AccessPoints": points });
        scene.ask("UpdateCertificateAuthority", change).unwrap();
    }
    caller
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
