//! Many secrets in one request: each is decided on, opened, counted and told of by itself; and taken out of the server by a right of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::Credentials;
use keymill_core::access::Grant;
use keymill_core::limit;
use keymill_e2e::{Caller, GRANTED, Rows, audit_lines, named, policy, statement, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NO_SECRET: &str = "Forbidden.ResourceNotFound";
const READER: &str = "RbacPermission/Template/CryptoServiceSecretUser";

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn grants(value: Value) -> Vec<Grant> {
    serde_json::from_value(value).expect("grants")
}

/// What came of a request: name, version and value of each that was read, and name, code and status of each that was not.
type Came = (Vec<(String, String, String)>, Vec<(String, String, u64)>);

fn read_by(caller: &mut Caller, operation: &str, list: Value) -> Came {
    let told = caller.ask_json(operation, json!({ "SecretsList": list })).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let values = told["SecretValues"].as_array().unwrap().iter().map(|row| {
        assert_eq!(row["RequestId"], told["RequestId"]);
        (text(row, "SecretName"), text(row, "VersionId"), text(row, "SecretData"))
    });
    let errors = told["Errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(row, "SecretName"), text(row, "Code"), row["HttpStatus"].as_u64().unwrap()));
    (values.collect(), errors.collect())
}

fn read(caller: &mut Caller, list: Value) -> Came {
    read_by(caller, "BatchGetSecretValue", list)
}

fn rows(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    rows.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
}

fn faults(rows: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    rows.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), *c)).collect()
}

#[test]
fn what_is_wrong_with_one_of_them_is_told_of_that_one_and_the_audit_names_each() {
    let (live, mut root, _) = begin();
    let (key, shut) = (root.create_key(), root.create_key());
    root.create_secret_under(key, "a", "v1", "one").unwrap();
    root.put_value("a", "v2", "two", &[]).unwrap();
    root.create_secret("b", "v1", "bee").unwrap();
    root.create_secret_under(shut, "shut", "v1", "x").unwrap();
    root.create_secret("ending", "v1", "x").unwrap();
    root.create_secret("denied", "v1", "x").unwrap();
    root.disable(shut).unwrap();
    root.delete_secret("ending", Some(7)).unwrap();
    let credentials = root.credentials(grants(json!([{ "Role": READER }])));
    let denied = statement("Deny", &[&named(credentials.access_key_id())], &["kms:GetSecretValue"]);
    let document = policy(&[statement("Allow", &[GRANTED], &["kms:*"]), denied]);
    root.ask_json("SetSecretPolicy", json!({ "SecretName": "denied", "Policy": document })).unwrap();
    let mut user = Caller::new(&live, &credentials);

    let (values, errors) = read(
        &mut user,
        json!([
            { "SecretName": "b" },
            { "SecretName": "shut" },
            { "SecretName": "a", "VersionStage": "ACSPrevious" },
            { "SecretName": "none" },
            { "SecretName": "ending" },
            { "SecretName": "denied" },
            { "SecretName": "a", "VersionId": "v9" },
            { "SecretName": "a", "VersionId": "v1", "VersionStage": "ACSCurrent" },
            { "SecretName": "a" },
            { "SecretName": "b", "FetchExtendedConfig": "true" },
        ]),
    );
    assert_eq!(
        values,
        rows(&[("b", "v1", "bee"), ("a", "v1", "one"), ("a", "v2", "two"), ("b", "v1", "bee")])
    );
    let expected = [
        ("shut", "Rejected.Disabled", 409),
        ("none", NO_SECRET, 404),
        ("ending", NO_SECRET, 404),
        ("denied", NO_SECRET, 404),
        ("a", NO_SECRET, 404),
        ("a", "InvalidParameter", 400),
    ];
    assert_eq!(errors, faults(&expected));
    // None of them: that is told of each, and is no refusal of the whole.
    assert_eq!(read(&mut user, json!([{ "SecretName": "none" }])).1, faults(&[("none", NO_SECRET, 404)]));
    // Two values were opened under the key.
    assert_eq!(root.uses(key).unwrap(), [(2, 2)]);

    let site = live.halt();
    let lines = audit_lines(&site);
    let line = lines.iter().find(|line| line["operation"] == "BatchGetSecretValue").unwrap();
    assert_eq!((&line["items"], &line["failed"], &line["outcome"]), (&json!(10), &json!(6), &json!("ok")));
    let touched: Vec<_> = line["secrets"].as_array().unwrap().iter().map(|touch| &touch["name"]).collect();
    // The one that the caller has no right to is not named, and the rule is the one that refused it.
    assert_eq!(touched, ["b", "shut", "a", "none", "ending", "a", "a", "a", "b"]);
    assert_eq!(line["secrets"][2]["version"], "v1");
    assert!(line["rule"].as_str().unwrap().contains("policy"), "{line}");
    verified(&site);
}

#[test]
fn the_number_is_bounded_and_twenty_of_full_size_pass() {
    let (_live, mut root, _) = begin();
    let value = "ж".repeat(limit::SECRET_BYTES / 2);
    for n in 0..limit::SECRETS_A_BATCH {
        root.create_secret(&format!("s{n}"), "v1", &value).unwrap();
    }
    let list =
        |count: usize| -> Value { (0..count).map(|n| json!({ "SecretName": format!("s{n}") })).collect() };
    let (values, errors) = read(&mut root, list(limit::SECRETS_A_BATCH));
    assert!(errors.is_empty() && values.iter().all(|(_, _, text)| *text == value));
    assert_eq!(values.len(), limit::SECRETS_A_BATCH);
    let refused = |root: &mut Caller, count| {
        root.ask_json("BatchGetSecretValue", json!({ "SecretsList": list(count) })).unwrap_err().code
    };
    assert_eq!(refused(&mut root, 0), "MissingParameter");
    assert_eq!(refused(&mut root, limit::SECRETS_A_BATCH + 1), "InvalidParameter");
}

/// A value is none of anything else: rows that change places are refused one by one, and the others are read.
#[test]
fn f1_a_value_in_the_place_of_another_is_refused_beside_the_others() {
    let (live, mut root, credentials) = begin();
    for name in ["a", "b", "c"] {
        root.create_secret(name, "v1", name).unwrap();
    }
    let site = live.halt();
    let stored = Rows::of(&site);
    let paths = stored.paths("secret-value/");
    stored.swap(&paths[0], &paths[1]);
    drop(stored);
    let live = site.start(Setup::new(EngineConfig::default()));
    let mut root = Caller::new(&live, &credentials);
    let whole = |root: &mut Caller, name: &str| root.value(name).is_ok();
    let good = ["a", "b", "c"].into_iter().find(|name| whole(&mut root, name)).unwrap();
    let (values, errors) =
        read(&mut root, json!([{ "SecretName": "a" }, { "SecretName": "b" }, { "SecretName": "c" }]));
    assert_eq!(values, rows(&[(good, "v1", good)]));
    assert!(
        errors.len() == 2
            && errors.iter().all(|(_, code, status)| code == "Rejected.Quarantined" && *status == 503)
    );
}

#[test]
fn to_take_values_out_of_the_server_is_a_right_of_its_own() {
    let (live, mut root, _) = begin();
    for name in ["a", "b"] {
        root.create_secret(name, "v1", name).unwrap();
    }
    let of_reader = root.credentials(grants(json!([{ "Role": READER }])));
    let mut reader = Caller::new(&live, &of_reader);
    let both = json!([{ "SecretName": "a" }, { "SecretName": "b" }]);
    assert_eq!(read(&mut reader, both.clone()).0, rows(&[("a", "v1", "a"), ("b", "v1", "b")]));
    let none = faults(&[("a", NO_SECRET, 404), ("b", NO_SECRET, 404)]);
    assert_eq!(read_by(&mut reader, "ExportSecrets", both.clone()), (Vec::new(), none));
    assert_eq!(read_by(&mut root, "ExportSecrets", both.clone()).0.len(), 2);
    // The policy of a secret gives the right to it, and takes it away.
    let me = named(of_reader.access_key_id());
    let allowed = policy(&[
        statement("Allow", &[GRANTED], &["kms:*"]),
        statement("Allow", &[&me], &["kms:ExportSecrets"]),
    ]);
    root.ask_json("SetSecretPolicy", json!({ "SecretName": "a", "Policy": allowed })).unwrap();
    let (values, errors) = read_by(&mut reader, "ExportSecrets", both.clone());
    assert_eq!((values, errors), (rows(&[("a", "v1", "a")]), faults(&[("b", NO_SECRET, 404)])));
    // The right to export is none to read.
    let denied = policy(&[
        statement("Allow", &[GRANTED], &["kms:*"]),
        statement("Allow", &[&me], &["kms:ExportSecrets"]),
        statement("Deny", &[&me], &["kms:GetSecretValue"]),
    ]);
    root.ask_json("SetSecretPolicy", json!({ "SecretName": "a", "Policy": denied })).unwrap();
    assert!(read_by(&mut reader, "ExportSecrets", both).0.is_empty());
    let site = live.halt();
    let exports = audit_lines(&site).into_iter().filter(|line| line["operation"] == "ExportSecrets");
    assert_eq!(exports.count(), 4);
    verified(&site);
}
