//! Records of certificates and authorities that were altered or lost while nobody looked: what is left signs nothing that it should not, and no key is
//! destroyed for it. And what another application had issued is nobody else's.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{Credentials, ServerError};
use keymill_e2e::{Caller, Rows, audit_lines};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn again(site: Site, credentials: &Credentials) -> (Live, Caller) {
    let live = site.start(Setup::new(EngineConfig::default()));
    let caller = Caller::new(&live, credentials);
    (live, caller)
}

fn code(answered: Result<Value, ServerError>) -> String {
    answered.expect_err("it is refused").code
}

fn text(reply: &Value, member: &str) -> String {
    reply[member].as_str().unwrap_or_else(|| panic!("{member} in {reply}")).to_owned()
}

fn authority(caller: &mut Caller, name: &str) -> String {
    let asked = json!({ "AuthorityName": name, "Subject": format!("CN={name}"), "KeySpec": "EC_P256" });
    text(&caller.ask_json("CreateCertificateAuthority", asked).unwrap(), "CertificateId")
}

fn sign(caller: &mut Caller, id: &str) -> Result<Value, ServerError> {
    let asked = json!({ "CertificateId": id, "Algorithm": "ECDSA_SHA_256", "Message": "aGVsbG8=" });
    caller.ask_json("CertificatePrivateKeySign", asked)
}

fn issue(caller: &mut Caller, authority: &str, host: &str) -> Result<Value, ServerError> {
    let asked = json!({
        "AuthorityName": authority, "Profile": "server", "AltNames": [host], "KeySpec": "EC_P256",
    });
    caller.ask_json("IssueCertificate", asked)
}

#[test]
fn the_key_of_an_authority_signs_nothing_else_where_the_record_of_the_authority_is_damaged() {
    let (live, mut caller, credentials) = begin();
    let id = authority(&mut caller, "own");
    assert_eq!(code(sign(&mut caller, &id)), "Forbidden.NoPermission");
    let site = live.halt();
    let rows = Rows::of(&site);
    let [path] = &rows.paths("authority/")[..] else { panic!("there is one authority") };
    rows.flip(path);
    drop(rows);
    let (_live, mut caller) = again(site, &credentials);
    assert_eq!(code(sign(&mut caller, &id)), "Forbidden.NoPermission");
    assert_ne!(
        code(caller.ask_json("DeleteCertificate", json!({ "CertificateId": id }))),
        "Certificate.NotFound"
    );
    assert!(issue(&mut caller, "own", "a.example").is_err());
}

#[test]
fn a_certificate_that_is_lost_takes_no_key_with_it() {
    let (live, mut caller, credentials) = begin();
    let id = authority(&mut caller, "own");
    let site = live.halt();
    let path = format!("certificate/{id}");
    Rows::of(&site).delete(&path);
    let keys = |site: &Site| Rows::of(site).paths("material/").len();
    let before = keys(&site);
    let (live, mut caller) = again(site, &credentials);
    assert_eq!(
        code(caller.ask_json("GetCertificate", json!({ "CertificateId": id }))),
        "Rejected.Quarantined"
    );
    let site = live.halt();
    assert_eq!(keys(&site), before, "the key of the authority is still there");
    assert!(!audit_lines(&site).iter().any(|line| line["operation"] == "DeleteKey"));
}

/// Makes an access point with these resources, and logs in as it.
fn application(live: &Live, root: &mut Caller, name: &str, resources: &[&str]) -> Caller {
    let template = |role: &str| format!("RbacPermission/Template/{role}");
    let policy = json!({
        "Name": name, "KmsInstance": "shared", "Resources": resources,
        "Permissions": [template("CertificateRequester"), template("CryptoServiceCertificateUser")],
    });
    root.ask_json("CreatePolicy", policy).unwrap();
    root.ask_json("CreateApplicationAccessPoint", json!({ "Name": name, "Policies": [name] })).unwrap();
    let key = json!({ "AapName": name, "Password": "secret-1234", "TimeoutMs": 60_000 });
    let key = root.ask_json("CreateClientKey", key).unwrap();
    let file = json!({ "KeyId": key["ClientKeyId"], "PrivateKeyData": key["PrivateKeyData"] });
    let credentials = Credentials::of_client_key_file(file.to_string().as_bytes(), "secret-1234").unwrap();
    Caller::new(live, &credentials)
}

#[test]
fn what_one_application_had_issued_is_not_for_another() {
    let (live, mut root, _) = begin();
    authority(&mut root, "own");
    let all = ["certificate/*", "authority/own"];
    let mut shop = application(&live, &mut root, "shop", &all);
    let mut till = application(&live, &mut root, "till", &all);
    let points =
        json!([{ "AccessPoint": "shop", "Profiles": ["server"], "AllowedNames": ["*.shop.example"] }]);
    root.ask_json("UpdateCertificateAuthority", json!({ "AuthorityName": "own", "AccessPoints": points }))
        .unwrap();
    let of_shop = text(&issue(&mut shop, "own", "a.shop.example").unwrap(), "CertificateId");
    let of_root = text(&issue(&mut root, "own", "b.example").unwrap(), "CertificateId");
    sign(&mut shop, &of_shop).unwrap();
    sign(&mut till, &of_root).unwrap();
    assert_eq!(code(sign(&mut till, &of_shop)), "Certificate.NotFound");
    let named = |id: &str| json!({ "CertificateId": id });
    assert_eq!(code(till.ask_json("GetCertificate", named(&of_shop))), "Certificate.NotFound");
    let listed = till.ask_json("ListCertificates", json!({})).unwrap().to_string();
    assert!(listed.contains(&of_root) && !listed.contains(&of_shop), "{listed}");
    // A policy that names it by its id says so.
    let mut other =
        application(&live, &mut root, "other", &["certificate/*", &format!("certificate/{of_shop}")]);
    sign(&mut other, &of_shop).unwrap();
}
