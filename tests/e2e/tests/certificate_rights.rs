//! Rights beside that of issuing: what makes an authority, or changes what one signs by, is not for whoever may ask for certificates.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{Credentials, ServerError};
use keymill_e2e::{Caller, OpenSsl, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const DENIED: &str = "Forbidden.NoPermission";

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()));
    let mut caller = Caller::new(&live, &credentials);
    let root = json!({ "AuthorityName": "root", "Subject": "CN=Root,O=Example" });
    caller.ask_json("CreateCertificateAuthority", root).unwrap();
    let below = json!({ "AuthorityName": "issuing", "Subject": "CN=Issuing,O=Example", "Parent": "root", "PathLength": 1 });
    caller.ask_json("CreateCertificateAuthority", below).unwrap();
    (live, caller)
}

fn other(live: &Live, caller: &mut Caller, grants: Value) -> Caller {
    let credentials: Credentials = caller.credentials(serde_json::from_value(grants).unwrap());
    Caller::new(live, &credentials)
}

/// Checks that something is denied, and that it is told what is missing.
fn denied(answered: Result<Value, ServerError>, missing: &str) {
    let error = answered.expect_err("it is refused");
    assert!(error.code == DENIED && error.message.contains(missing), "{}: {}", error.code, error.message);
}

#[test]
fn whoever_asks_for_certificates_makes_no_authority_of_itself() {
    let (live, mut root) = begin();
    let tool = OpenSsl::new();
    let mut requester = other(
        &live,
        &mut root,
        json!([{ "Role": "RbacPermission/Template/CertificateRequester", "Resources": ["authority/issuing"] }]),
    );
    let mut maker = other(
        &live,
        &mut root,
        json!([{ "Role": "CertificateAdministrator", "Resources": ["authority/issuing"] }]),
    );
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
    root.ask_json("UpdateCertificateAuthority", json!({ "AuthorityName": "issuing", "Profiles": profiles }))
        .unwrap();
    let plain = json!({ "AuthorityName": "issuing", "Profile": "plain", "Csr": csr });
    denied(requester.ask_json("IssueCertificate", plain), missing);
    let client = json!({ "AuthorityName": "issuing", "Profile": "client", "Csr": csr });
    let leaf = requester.ask_json("IssueCertificate", client).unwrap();
    requester.ask_json("RenewCertificate", json!({ "CertificateId": leaf["CertificateId"] })).unwrap();
    verified(&live.halt());
}

#[test]
fn the_certificate_of_an_authority_is_renewed_by_who_may_change_it() {
    let (live, mut root) = begin();
    let told = root.ask_json("DescribeCertificateAuthority", json!({ "AuthorityName": "issuing" })).unwrap();
    let id = json!({ "CertificateId": told["CertificateId"] });
    let own = root.ask_json("DescribeCertificateAuthority", json!({ "AuthorityName": "root" })).unwrap();
    let own = json!({ "CertificateId": own["CertificateId"] });
    let mut requester = other(
        &live,
        &mut root,
        json!([{ "Role": "RbacPermission/Template/CertificateRequester", "Resources": ["authority/root", "authority/issuing"] }]),
    );
    let missing =
        |name: &str| format!("the right to UpdateCertificateAuthority of authority/{name} is missing");
    denied(requester.ask_json("RenewCertificate", id.clone()), &missing("issuing"));
    denied(requester.ask_json("RenewCertificate", own), &missing("root"));
    root.ask_json("RenewCertificate", id).unwrap();
    verified(&live.halt());
}

#[test]
fn what_ends_with_its_authority_is_told_to_be_shortened() {
    let (live, mut caller) = begin();
    let brief = json!({ "AuthorityName": "brief", "Subject": "CN=Brief", "ValidityDays": 10 });
    caller.ask_json("CreateCertificateAuthority", brief).unwrap();
    let mut issue = |days: u32| {
        let asked = json!({ "AuthorityName": "brief", "Profile": "server", "AltNames": ["a.example"], "ValidityDays": days });
        caller.ask_json("IssueCertificate", asked).unwrap()
    };
    let (cut, whole) = (issue(90), issue(5));
    assert_eq!((&cut["IsShortened"], &whole["IsShortened"]), (&json!(true), &Value::Null));
    let anew = json!({ "CertificateId": whole["CertificateId"], "ValidityDays": 20 });
    assert_eq!(caller.ask_json("RenewCertificate", anew).unwrap()["IsShortened"], json!(true));
    let csr = OpenSsl::new().request("a", "/CN=a.example", &[]);
    let many = json!({ "AuthorityName": "brief", "Profile": "server", "Requests": [{ "Csr": csr }] });
    let outcome = caller.ask_json("BatchIssueCertificate", many).unwrap();
    assert_eq!(outcome["Certificates"][0]["IsShortened"], json!(true), "{outcome}");
    verified(&live.halt());
}
