//! Records of certificates and authorities that were altered or lost while nobody looked: what is left signs nothing that it should not, and no key is
//! destroyed for it. And what another application had issued is nobody else's.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::ServerError;
use keymill_e2e::{Caller, Rows, Scene, audit_lines, code, text};
use keymill_harness::{Setup, Site};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

fn setup() -> Setup {
    Setup::new(EngineConfig::default())
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
    let mut scene = Scene::empty(setup());
    let id = authority(&mut scene.caller, "own");
    assert_eq!(code(sign(&mut scene.caller, &id)), "Forbidden.NoPermission");
    let mut scene = scene.again(setup(), |site| {
        let rows = Rows::of(site);
        let [path] = &rows.paths("authority/")[..] else { panic!("there is one authority") };
        rows.flip(path);
    });
    assert_eq!(code(sign(&mut scene.caller, &id)), "Forbidden.NoPermission");
    assert_ne!(code(scene.ask("DeleteCertificate", json!({ "CertificateId": id }))), "Certificate.NotFound");
    assert!(issue(&mut scene.caller, "own", "a.example").is_err());
}

#[test]
fn a_certificate_that_is_lost_takes_no_key_with_it() {
    let mut scene = Scene::empty(setup());
    let id = authority(&mut scene.caller, "own");
    let keys = |site: &Site| Rows::of(site).paths("material/").len();
    let mut before = 0;
    let mut scene = scene.again(setup(), |site| {
        Rows::of(site).delete(&format!("certificate/{id}"));
        before = keys(site);
    });
    assert_eq!(code(scene.ask("GetCertificate", json!({ "CertificateId": id }))), "Rejected.Quarantined");
    let site = scene.live.halt();
    assert_eq!(keys(&site), before, "the key of the authority is still there");
    assert!(!audit_lines(&site).iter().any(|line| line["operation"] == "DeleteKey"));
}

#[test]
fn what_one_application_had_issued_is_not_for_another() {
    let mut scene = Scene::empty(setup());
    authority(&mut scene.caller, "own");
    let roles = ["CertificateRequester", "CryptoServiceCertificateUser"];
    let all = ["certificate/*", "authority/own"];
    let mut shop = scene.application("shop", &roles, &all);
    let mut till = scene.application("till", &roles, &all);
    let points =
        json!([{ "AccessPoint": "shop", "Profiles": ["server"], "AllowedNames": ["*.shop.example"] }]);
    scene
        .ask("UpdateCertificateAuthority", json!({ "AuthorityName": "own", "AccessPoints": points }))
        .unwrap();
    let of_shop = text(&issue(&mut shop, "own", "a.shop.example").unwrap(), "CertificateId");
    let of_root = text(&issue(&mut scene.caller, "own", "b.example").unwrap(), "CertificateId");
    sign(&mut shop, &of_shop).unwrap();
    sign(&mut till, &of_root).unwrap();
    assert_eq!(code(sign(&mut till, &of_shop)), "Certificate.NotFound");
    let named = |id: &str| json!({ "CertificateId": id });
    assert_eq!(code(till.ask_json("GetCertificate", named(&of_shop))), "Certificate.NotFound");
    let listed = till.ask_json("ListCertificates", json!({})).unwrap().to_string();
    assert!(listed.contains(&of_root) && !listed.contains(&of_shop), "{listed}");
    // A policy that names it by its id says so.
    let mut other = scene.application("other", &roles, &["certificate/*", &format!("certificate/{of_shop}")]);
    sign(&mut other, &of_shop).unwrap();
}
