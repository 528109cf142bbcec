//! Roles of an installation's own: what they give is what they name, to access keys and to applications, and nobody makes more of one than it has.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::Credentials;
use keymill_core::access::Grant;
use keymill_e2e::{Answered, Caller, Rows, audit_lines, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NO_KEY: &str = "Forbidden.KeyNotFound";
const DENIED: &str = "Forbidden.NoPermission";
const NO_RESOURCE: &str = "Forbidden.ResourceNotFound";
const PASSWORD: &str = "secret-1234";

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let root = Caller::new(&live, &credentials);
    (live, root, credentials)
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

fn granted(role: &str) -> Vec<Grant> {
    serde_json::from_value(json!([{ "Role": role }])).expect("grants")
}

fn create(caller: &mut Caller, name: &str, actions: &[&str]) -> Answered<Value> {
    caller.ask_json("CreateRole", json!({ "Name": name, "Actions": actions, "Description": "writes" }))
}

#[test]
fn a_role_gives_what_it_names_and_changes_under_an_open_connection() {
    let (live, mut root, credentials) = begin();
    let key = root.create_key();
    create(&mut root, "ingest", &["kms:Encrypt", "kms:Describe*"]).unwrap();
    let of_writer = root.credentials(granted("role/ingest"));
    let mut writer = Caller::new(&live, &of_writer);
    let blob = writer.encrypt(key, b"x", &[]).unwrap();
    writer.batch_encrypt(key, &[b"x".to_vec()]).unwrap();
    writer.describe(key).unwrap();
    assert_eq!(code(writer.decrypt(&blob, &[])), NO_KEY);
    assert_eq!(code(writer.ask_json("CreateKey", json!({}))), DENIED);
    // What is told to all who may do anything.
    writer.ask_json("DescribeLimits", json!({})).unwrap();
    root.ask_json("UpdateRole", json!({ "Name": "ingest", "Actions": ["kms:Decrypt"] })).unwrap();
    writer.decrypt(&blob, &[]).unwrap();
    assert_eq!(code(writer.encrypt(key, b"x", &[])), NO_KEY);
    // A role may be denied as well.
    let both = json!([{ "Role": "Root" }, { "Effect": "Deny", "Role": "role/ingest" }]);
    let of_denied = root.credentials(serde_json::from_value(both).unwrap());
    let mut denied = Caller::new(&live, &of_denied);
    denied.encrypt(key, b"x", &[]).unwrap();
    assert_eq!(code(denied.decrypt(&blob, &[])), NO_KEY);
    // It outlives a restart.
    let live = live.restart(EngineConfig::default());
    let (mut root, mut writer) = (Caller::new(&live, &credentials), Caller::new(&live, &of_writer));
    writer.decrypt(&blob, &[]).unwrap();
    assert_eq!(code(writer.encrypt(key, b"x", &[])), NO_KEY);
    let shown = root.ask_json("DescribeRole", json!({ "Name": "ingest" })).unwrap();
    assert_eq!((&shown["Actions"], &shown["Description"]), (&json!(["kms:Decrypt"]), &json!("writes")));
    let listed = root.ask_json("ListRoles", json!({})).unwrap();
    assert_eq!((&listed["Roles"][0]["Name"], &listed["TotalCount"]), (&json!("ingest"), &json!(1)));
    // One that is granted stays; then it goes, and leaves nothing.
    assert_eq!(code(root.ask_json("DeleteRole", json!({ "Name": "ingest" }))), "Rejected.ResourceInUse");
    for credentials in [&of_writer, &of_denied] {
        root.ask_json("DeleteAccessKey", json!({ "AccessKeyId": credentials.access_key_id() })).unwrap();
    }
    root.ask_json("DeleteRole", json!({ "Name": "ingest" })).unwrap();
    assert_eq!(code(root.ask_json("DescribeRole", json!({ "Name": "ingest" }))), NO_RESOURCE);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("role/"), Vec::<String>::new());
    let lines = audit_lines(&site);
    assert!(lines.iter().any(|line| line["rule"] == "grant 0 role/ingest"), "the audit names the role");
    verified(&site);
}

/// What the templates for applications do not have is given to none of them, whatever a role names.
#[test]
fn an_application_with_a_role_of_its_own_writes_and_does_not_read() {
    let (live, mut root, _) = begin();
    let key = root.create_key();
    create(&mut root, "ingest", &["kms:Encrypt", "kms:DisableKey", "kms:ListAccessKeys"]).unwrap();
    let missing = json!({ "Name": "shop", "Permissions": ["role/none"], "Resources": ["key/*"] });
    assert_eq!(code(root.ask_json("CreatePolicy", missing)), NO_RESOURCE);
    let policy = json!({ "Name": "shop", "Permissions": ["role/ingest"], "Resources": ["key/*"] });
    root.ask_json("CreatePolicy", policy).unwrap();
    root.ask_json("CreateApplicationAccessPoint", json!({ "Name": "shop", "Policies": ["shop"] })).unwrap();
    let wanted = json!({ "AapName": "shop", "Password": PASSWORD, "TimeoutMs": 60_000 });
    let made = root.ask_json("CreateClientKey", wanted).unwrap();
    let file = json!({ "KeyId": made["ClientKeyId"], "PrivateKeyData": made["PrivateKeyData"] });
    let credentials = Credentials::of_client_key_file(file.to_string().as_bytes(), PASSWORD).unwrap();
    let mut shop = Caller::new(&live, &credentials);
    let blob = shop.encrypt(key, b"x", &[]).unwrap();
    assert_eq!(code(shop.decrypt(&blob, &[])), NO_KEY);
    assert_eq!(code(shop.ask_json("DisableKey", json!({ "KeyId": key }))), NO_KEY);
    assert_eq!(code(shop.ask_json("ListAccessKeys", json!({}))), DENIED);
    assert_eq!(code(root.ask_json("DeleteRole", json!({ "Name": "ingest" }))), "Rejected.ResourceInUse");
    root.ask_json("UpdateRole", json!({ "Name": "ingest", "Actions": ["kms:Decrypt"] })).unwrap();
    assert_eq!(shop.decrypt(&blob, &[]).unwrap(), b"x");
    assert_eq!(code(shop.encrypt(key, b"x", &[])), NO_KEY);
    verified(&live.halt());
}

#[test]
fn nobody_makes_or_grants_by_a_role_what_root_alone_may_do() {
    let (live, mut root, _) = begin();
    let of_administrator = root.credentials(granted("PolicyAdministrator"));
    let mut administrator = Caller::new(&live, &of_administrator);
    create(&mut administrator, "writer", &["kms:Encrypt"]).unwrap();
    for actions in [&["kms:*"][..], &["*"], &["kms:Encrypt", "kms:DrainToken"]] {
        assert_eq!(code(create(&mut administrator, "mighty", actions)), DENIED, "{actions:?}");
        let more = json!({ "Name": "writer", "Actions": actions });
        assert_eq!(code(administrator.ask_json("UpdateRole", more)), DENIED, "{actions:?}");
    }
    create(&mut root, "mighty", &["kms:*"]).unwrap();
    let grants = || json!([{ "Role": "role/mighty" }]);
    assert_eq!(code(administrator.ask_json("CreateAccessKey", json!({ "Grants": grants() }))), DENIED);
    let own = json!({ "AccessKeyId": of_administrator.access_key_id(), "Grants": grants() });
    assert_eq!(code(administrator.ask_json("UpdateAccessKey", own)), DENIED);
    root.ask_json("CreateAccessKey", json!({ "Grants": grants() })).unwrap();
    for (operation, parameters, told) in [
        ("CreateAccessKey", json!({ "Grants": [{ "Role": "role/none" }] }), NO_RESOURCE),
        ("CreateRole", json!({ "Name": "writer", "Actions": ["kms:Encrypt"] }), "Rejected.ResourceExist"),
        ("CreateRole", json!({ "Name": "a", "Actions": [] }), "InvalidParameter"),
        ("CreateRole", json!({ "Name": "a", "Actions": ["kms:encrypt"] }), "InvalidParameter"),
        ("UpdateRole", json!({ "Name": "none" }), NO_RESOURCE),
        ("DeleteRole", json!({ "Name": "none" }), NO_RESOURCE),
    ] {
        assert_eq!(code(root.ask_json(operation, parameters.clone())), told, "{operation} {parameters}");
    }
    // What `Root` is denied by a role is for `Root` to change; and to be denied `Root`, or to have it over one key, is not to be it.
    create(&mut root, "readers", &["kms:Decrypt"]).unwrap();
    let denied = json!([{ "Role": "Root" }, { "Effect": "Deny", "Role": "role/readers" }]);
    root.ask_json("CreateAccessKey", json!({ "Grants": denied })).unwrap();
    let looser = || json!({ "Name": "readers", "Actions": ["kms:DescribeKey"] });
    assert_eq!(code(administrator.ask_json("UpdateRole", looser())), DENIED);
    root.ask_json("UpdateRole", looser()).unwrap();
    let key = root.create_key();
    for held_back in [
        json!({ "Effect": "Deny", "Role": "Root", "Resources": ["key/*"] }),
        json!({ "Role": "Root", "Resources": [format!("key/{key}")] }),
    ] {
        let grants = json!([{ "Role": "PolicyAdministrator" }, held_back]);
        let mut held_back = Caller::new(&live, &root.credentials(serde_json::from_value(grants).unwrap()));
        let more = json!({ "Grants": [{ "Role": "Root" }] });
        assert_eq!(code(held_back.ask_json("CreateAccessKey", more)), DENIED);
        assert_eq!(code(create(&mut held_back, "mightier", &["kms:*"])), DENIED);
    }
    // Roles are of those who administer access, and nobody else's to see.
    let mut user =
        Caller::new(&live, &root.credentials(granted("RbacPermission/Template/CryptoServiceKeyUser")));
    for (operation, parameters) in [
        ("ListRoles", json!({})),
        ("DescribeRole", json!({ "Name": "writer" })),
        ("CreateRole", json!({ "Name": "mine", "Actions": ["kms:Encrypt"] })),
        ("DeleteRole", json!({ "Name": "writer" })),
    ] {
        assert_eq!(code(user.ask_json(operation, parameters)), DENIED, "{operation}");
    }
    verified(&live.halt());
}
