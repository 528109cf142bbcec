//! Secrets through their whole life: made, read, put, staged, kept over a restart, deleted and brought back; two writers, a disabled key, a
//! clock that jumps; and nobody else's.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_client::{Credentials, ServerError};
use keymill_core::access::Grant;
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_e2e::{
    Answered, Caller, GRANTED, Logs, Rows, audit_lines, create_secret, eventually, find_in_files, named,
    policy, statement, verified,
};
use keymill_harness::{Fuse, Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NO_SECRET: &str = "Forbidden.ResourceNotFound";
const ENDING: &str = "Rejected.ResourceInDeleteWindow";
const TAKEN: &str = "Rejected.ResourceExist";
const NAME: &str = "apps/orders+1=x.y@z";
const DAY_MS: i64 = 86_400_000;

fn config() -> EngineConfig {
    EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() }
}

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(config());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn grants(value: Value) -> Vec<Grant> {
    serde_json::from_value(value).expect("grants")
}

fn code<T>(answered: Result<T, ServerError>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

fn told(version: &str, value: &str, stages: &[&str]) -> (String, String, Vec<String>) {
    (version.into(), value.into(), stages.iter().map(|stage| (*stage).into()).collect())
}

/// Asks for an operation whose parameters are written as they are in the API.
fn ask(caller: &mut Caller, operation: &str, parameters: Value) -> Answered<Value> {
    let operation = Operation::by_name(operation).expect("an operation");
    let request = Request::deserialize(operation, &parameters).expect("its parameters");
    caller.ask(request, |reply| serde_json::to_value(reply).expect("a reply has a JSON form"))
}

#[test]
fn a_secret_is_read_by_version_and_stage_and_is_the_same_after_a_restart() {
    let (live, mut caller, credentials) = begin();
    let key = caller.create_key();
    let (one, two, three) = ("marked-value-one", "marked-value-two", "marked-value-three");
    let arn = caller.create_secret_under(key, NAME, "v1", one).unwrap();
    assert!(arn.ends_with(&format!(":secret/{NAME}")), "{arn}");
    assert_eq!(caller.value(NAME).unwrap(), told("v1", one, &["ACSCurrent"]));
    assert_eq!(caller.put_value(NAME, "v2", two, &[]).unwrap(), ["ACSCurrent"]);
    assert_eq!(caller.put_value(NAME, "v3", three, &["test"]).unwrap(), ["test"]);
    assert_eq!(caller.value(NAME).unwrap(), told("v2", two, &["ACSCurrent"]));
    let previous = caller.value_of(NAME, None, Some("ACSPrevious")).unwrap();
    assert_eq!(previous, told("v1", one, &["ACSPrevious"]));
    assert_eq!(caller.value_of(NAME, Some("v3"), Some("test")).unwrap().1, three);
    assert_eq!(code(caller.value_of(NAME, Some("v3"), Some("ACSCurrent"))), "InvalidParameter");
    for (version, stage) in [(Some("v9"), None), (None, Some("none"))] {
        assert_eq!(code(caller.value_of(NAME, version, stage)), NO_SECRET);
    }
    // Three values were sealed under the key, and four opened.
    assert_eq!(caller.uses(key).unwrap(), [(3, 4)]);
    let live = live.restart(config());
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.value_of(NAME, Some("v1"), None).unwrap().1, one);
    caller.move_stage(NAME, "ACSCurrent", Some("v3"), Some("v2")).unwrap();
    assert_eq!(caller.value(NAME).unwrap(), told("v3", three, &["ACSCurrent", "test"]));
    let rows = caller.secret_versions(NAME).unwrap();
    let rows: Vec<_> = rows.iter().map(|(id, stages)| (&**id, stages.join(","))).collect();
    assert_eq!(rows, [("v3", "ACSCurrent,test".into()), ("v2", "ACSPrevious".into()), ("v1", String::new())]);
    assert_eq!(caller.key_of_secret(NAME), key);
    let site = live.halt();
    for value in [one, two, three] {
        assert!(find_in_files(site.path(), value.as_bytes()).is_empty());
    }
    verified(&site);
}

#[test]
fn secrets_that_name_no_key_share_one_that_is_made_with_the_first_of_them() {
    let (live, mut caller, credentials) = begin();
    // At once: one key comes of it.
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (live, credentials) = (&live, &credentials);
            scope.spawn(move || {
                let mut caller = Caller::new(live, credentials);
                caller.create_secret(&format!("s{n}"), "v1", "value").unwrap();
            });
        }
    });
    let key = caller.key_of_secret("s0");
    assert!((1..4).all(|n| caller.key_of_secret(&format!("s{n}")) == key));
    assert_eq!(caller.keys().unwrap(), [key]);
    let live = live.restart(config());
    let mut caller = Caller::new(&live, &credentials);
    caller.create_secret("later", "v1", "value").unwrap();
    assert_eq!(caller.key_of_secret("later"), key);
    assert_eq!(caller.secrets().unwrap(), ["later", "s0", "s1", "s2", "s3"]);
    let site = live.halt();
    let made =
        |line: &Value| line["operation"] == "CreateKey" && line["rule"] == "secrets are sealed under it";
    assert_eq!(audit_lines(&site).iter().filter(|line| made(line)).count(), 1);
    verified(&site);
}

/// F11: exactly one version is current at any time, whoever writes; the second of two writers of one version is told.
#[test]
fn f11_of_two_writers_one_wins_and_the_other_is_told() {
    let (live, mut caller, credentials) = begin();
    caller.create_secret("raced", "v0", "value").unwrap();
    for round in 0..8 {
        let version = format!("v{}", round + 1);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let writers = ["left", "right"].map(|value| {
                let (live, credentials, version) = (&live, &credentials, &version);
                scope.spawn(move || {
                    let mut caller = Caller::new(live, credentials);
                    (value, caller.put_value("raced", version, value, &[]).map_err(|error| error.code))
                })
            });
            writers.map(|writer| writer.join().unwrap()).into()
        });
        let won: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).collect();
        let lost: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
        assert_eq!((won.len(), lost), (1, vec![&TAKEN.to_owned()]));
        assert_eq!(caller.value("raced").unwrap(), told(&version, won[0].0, &["ACSCurrent"]));
        // The same once more is no other writer.
        caller.put_value("raced", &version, won[0].0, &[]).unwrap();
    }
    let rows = caller.secret_versions("raced").unwrap();
    let holders = |stage: &str| rows.iter().filter(|(_, stages)| stages.iter().any(|s| s == stage)).count();
    assert_eq!((holders("ACSCurrent"), holders("ACSPrevious")), (1, 1));
    // A stage moves from where its mover says that it is.
    caller.move_stage("raced", "test", Some("v1"), None).unwrap();
    caller.move_stage("raced", "test", Some("v2"), Some("v1")).unwrap();
    assert_eq!(code(caller.move_stage("raced", "test", Some("v3"), Some("v1"))), "InvalidParameter");
}

#[test]
fn f11_the_limits_are_exact() {
    let (live, mut caller, _) = begin();
    let full = "ж".repeat(limit::SECRET_BYTES / 2);
    caller.create_secret("full", "v1", &full).unwrap();
    assert_eq!(caller.value("full").unwrap().1, full);
    let error = caller.create_secret("more", "v1", &format!("{full}x")).unwrap_err();
    assert_eq!((&*error.code, error.message.contains("30721")), ("InvalidParameter", true));
    assert_eq!(code(caller.create_secret("acs/mine", "v1", "x")), "InvalidParameter");
    // Beyond ten the oldest goes that no stage points to, and its value with it.
    caller.move_stage("full", "kept", Some("v1"), None).unwrap();
    for n in 2..=12 {
        caller.put_value("full", &format!("v{n}"), "value", &[]).unwrap();
    }
    let rows = caller.secret_versions("full").unwrap();
    assert_eq!(rows.len(), limit::SECRET_VERSIONS);
    assert_eq!(caller.value_of("full", None, Some("kept")).unwrap().1, full);
    assert_eq!(code(caller.value_of("full", Some("v2"), None)), NO_SECRET);
    let site = live.halt();
    assert_eq!(Rows::of(&site).paths("secret-value/").len(), limit::SECRET_VERSIONS);
    verified(&site);
}

#[test]
fn under_a_disabled_key_nothing_is_given_out_and_nothing_is_lost() {
    let (_live, mut caller, _) = begin();
    let key = caller.create_key();
    caller.create_secret_under(key, NAME, "v1", "value").unwrap();
    caller.disable(key).unwrap();
    assert_eq!(code(caller.value(NAME)), "Rejected.Disabled");
    assert_eq!(code(caller.put_value(NAME, "v2", "other", &[])), "Rejected.Disabled");
    assert_eq!(caller.describe_secret(NAME).unwrap().encryption_key_id, key);
    caller.enable(key).unwrap();
    assert_eq!(caller.value(NAME).unwrap(), told("v1", "value", &["ACSCurrent"]));
    caller.put_value(NAME, "v2", "other", &[]).unwrap();
    caller.schedule_deletion(key).unwrap();
    assert_eq!(code(caller.value(NAME)), "Rejected.PendingDeletion");
    caller.cancel_deletion(key).unwrap();
    caller.enable(key).unwrap();
    assert_eq!(caller.value(NAME).unwrap().1, "other");
}

#[test]
fn a_deleted_secret_is_brought_back_within_its_window_and_ends_behind_it() {
    let (live, mut caller, credentials) = begin();
    let key = caller.create_key();
    for name in ["back", "gone"] {
        caller.create_secret_under(key, name, "v1", "value").unwrap();
    }
    for (days, code_of) in [(6, "InvalidParameter"), (31, "InvalidParameter")] {
        assert_eq!(code(caller.delete_secret("back", Some(days))), code_of);
    }
    assert_eq!(code(caller.restore_secret("back")), "Rejected.StateModifiedFailed");
    for name in ["back", "gone"] {
        caller.delete_secret(name, Some(7)).unwrap();
        assert_eq!(code(caller.value(name)), NO_SECRET);
        assert!(caller.describe_secret(name).unwrap().planned_delete_time.is_some());
    }
    assert_eq!(code(caller.put_value("back", "v2", "x", &[])), ENDING);
    assert_eq!(code(caller.update_secret("back", "x")), ENDING);
    assert_eq!(code(caller.move_stage("back", "test", Some("v1"), None)), ENDING);
    assert_eq!(code(caller.create_secret("back", "v1", "x")), ENDING);
    assert_eq!(code(caller.delete_secret("back", Some(7))), ENDING);
    caller.restore_secret("back").unwrap();
    assert_eq!(caller.value("back").unwrap().1, "value");
    let site = live.halt();
    let live = site.start(Setup::new(config()).at_offset_ms(8 * DAY_MS));
    let mut caller = Caller::new(&live, &credentials);
    eventually("the secret is gone", || (caller.secrets().unwrap() == ["back"]).then_some(()));
    // Its name is free again, and what comes is another.
    caller.create_secret_under(key, "gone", "v1", "another").unwrap();
    assert_eq!(caller.value("gone").unwrap().1, "another");
    // At once, also out of a window.
    caller.delete_secret("back", Some(30)).unwrap();
    caller.delete_secret("back", None).unwrap();
    assert_eq!(code(caller.restore_secret("back")), NO_SECRET);
    let site = live.halt();
    let rows = Rows::of(&site);
    assert_eq!((rows.paths("secret/").len(), rows.paths("secret-value/").len()), (1, 1));
    drop(rows);
    let ended: Vec<_> = audit_lines(&site).into_iter().filter(|line| line["frontend"] == "timer").collect();
    assert!(
        ended.iter().any(|line| line["operation"] == "DeleteSecret" && line["secrets"][0]["name"] == "gone")
    );
    verified(&site);
}

#[test]
fn f11_a_clock_that_jumps_over_a_window_ends_nothing() {
    let fuse = Fuse::new();
    let around = fuse.clone();
    let setup = Setup::new(config()).with_store(move |inner| around.store(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    caller.create_secret("kept", "v1", "value").unwrap();
    caller.delete_secret("kept", Some(7)).unwrap();
    live.clock.jump_to_offset_ms(365 * DAY_MS);
    let looked = fuse.commits();
    eventually("five looks at the clock", || (fuse.commits() >= looked + 5).then_some(()));
    caller.restore_secret("kept").unwrap();
    assert_eq!(caller.value("kept").unwrap().1, "value");
}

#[test]
fn d6_who_may_not_have_one_is_told_of_none() {
    let (live, mut root, _) = begin();
    root.create_secret("own", "v1", "value").unwrap();
    root.create_secret("other", "v1", "value").unwrap();
    let role = "RbacPermission/Template/CryptoServiceSecretUser";
    let of_user = root.credentials(grants(json!([{ "Role": role, "Resources": ["secret/own"] }])));
    let mut user = Caller::new(&live, &of_user);
    assert_eq!(user.value("own").unwrap().1, "value");
    let refused = [
        user.value("other").unwrap_err(),
        user.value("none").unwrap_err(),
        user.describe_secret("other").map(drop).unwrap_err(),
        user.secret_versions("none").map(drop).unwrap_err(),
        // What it may not do to its own is told like what is not there, too.
        user.put_value("own", "v2", "x", &[]).map(drop).unwrap_err(),
        user.delete_secret("own", None).unwrap_err(),
    ];
    let said: Vec<_> = refused.iter().map(|error| (&*error.code, &*error.message, error.status)).collect();
    assert_eq!(said, [(NO_SECRET, "the specified secret is not found", 404); 6]);
    assert_eq!(user.secrets().unwrap(), ["own"]);
    assert_eq!(code(user.create_secret("own", "v1", "x")), "Forbidden.NoPermission");
    assert_eq!(code(user.create_secret("mine", "v1", "x")), "Forbidden.NoPermission");
    // Who administers secrets does not read them, and takes no key that it may not encrypt under.
    let key = root.create_key();
    let of_admin = root.credentials(grants(json!([{ "Role": "SecretAdministrator" }])));
    let mut admin = Caller::new(&live, &of_admin);
    admin.put_value("own", "v2", "new", &[]).unwrap();
    assert_eq!(code(admin.value("own")), NO_SECRET);
    assert_eq!(code(admin.create_secret_under(key, "mine", "v1", "x")), "Forbidden.KeyNotFound");
    admin.create_secret("mine", "v1", "x").unwrap();
    assert_eq!(admin.secrets().unwrap(), ["mine", "other", "own"]);
    // And who administers keys finds no secrets.
    let of_keeper = root.credentials(grants(json!([{ "Role": "KeyAdministrator" }])));
    let mut keeper = Caller::new(&live, &of_keeper);
    assert_eq!(keeper.secrets().unwrap(), Vec::<String>::new());
    assert_eq!(code(keeper.value("own")), NO_SECRET);
}

#[test]
fn an_application_reads_the_one_secret_that_its_policy_names() {
    let (live, mut root, _) = begin();
    root.create_secret("shop/db", "v1", "value").unwrap();
    root.create_secret("shop/other", "v1", "value").unwrap();
    ask(
        &mut root,
        "CreatePolicy",
        json!({
            "Name": "shop", "KmsInstance": "shared",
            "Permissions": ["RbacPermission/Template/CryptoServiceSecretUser"], "Resources": ["secret/shop/db"],
        }),
    )
    .unwrap();
    ask(&mut root, "CreateApplicationAccessPoint", json!({ "Name": "shop", "Policies": ["shop"] })).unwrap();
    // An RSA key takes its time, and a password that becomes a key, too.
    let parameters = json!({ "AapName": "shop", "Password": "secret-1234", "TimeoutMs": 60_000 });
    let reply = ask(&mut root, "CreateClientKey", parameters).unwrap();
    let file = json!({ "KeyId": reply["ClientKeyId"], "PrivateKeyData": reply["PrivateKeyData"] });
    let credentials = Credentials::of_client_key_file(file.to_string().as_bytes(), "secret-1234").unwrap();
    let mut shop = Caller::new(&live, &credentials);
    assert_eq!(shop.value("shop/db").unwrap().1, "value");
    for name in ["shop/other", "shop", "none"] {
        assert_eq!(code(shop.value(name)), NO_SECRET, "{name}");
    }
    assert_eq!(shop.secrets().unwrap(), ["shop/db"]);
    ask(&mut root, "UpdatePolicy", json!({ "Name": "shop", "Resources": ["secret/shop/other"] })).unwrap();
    assert_eq!(code(shop.value("shop/db")), NO_SECRET);
    let explained = |root: &mut Caller, name: &str| {
        let id = &reply["ClientKeyId"];
        let asked = json!({ "Operation": "GetSecretValue", "SecretName": name, "ClientKeyId": id });
        ask(root, "ExplainAccess", asked).unwrap()["Allowed"].clone()
    };
    assert_eq!(
        (explained(&mut root, "shop/db"), explained(&mut root, "shop/other")),
        (json!(false), json!(true))
    );
}

#[test]
fn d8_a_policy_of_its_own_denies_whatever_is_granted_and_names_who_may() {
    let (live, mut root, _) = begin();
    root.create_secret("own", "v1", "value").unwrap();
    let role = "RbacPermission/Template/CryptoServiceSecretUser";
    let of_user = root.credentials(grants(json!([{ "Role": role }])));
    let of_other = root.credentials(Vec::new());
    let (mut user, mut other) = (Caller::new(&live, &of_user), Caller::new(&live, &of_other));
    let set = |root: &mut Caller, document: &str| {
        ask(root, "SetSecretPolicy", json!({ "SecretName": "own", "Policy": document })).map(drop)
    };
    let allowed = statement("Allow", &[GRANTED], &["kms:*"]);
    let denied = statement("Deny", &[&named(of_user.access_key_id())], &["kms:GetSecretValue"]);
    set(&mut root, &policy(&[allowed.clone(), denied])).unwrap();
    assert_eq!(code(user.value("own")), NO_SECRET);
    user.describe_secret("own").unwrap();
    // To make one is no right to the one that is there, of which its policy speaks.
    assert_eq!(code(root.create_secret("own", "v1", "value")), TAKEN);
    let names =
        statement("Allow", &[&named(of_other.access_key_id())], &["kms:GetSecretValue", "kms:ListSecrets"]);
    set(&mut root, &policy(&[allowed, names])).unwrap();
    assert_eq!(other.value("own").unwrap().1, "value");
    assert_eq!(other.secrets().unwrap(), ["own"]);
    assert_eq!(code(other.describe_secret("own")), NO_SECRET);
    assert_eq!(user.value("own").unwrap().1, "value");
    // Who reads it neither sees its policy nor sets it; rights to keys are none of its.
    let own = json!({ "SecretName": "own" });
    assert_eq!(code(ask(&mut user, "GetSecretPolicy", own.clone())), NO_SECRET);
    let of_keys = policy(&[statement("Allow", &[GRANTED], &["kms:Decrypt"])]);
    assert_eq!(code(set(&mut root, &of_keys)), "InvalidParameter");
    // It is gone with its secret, and kept over a restart until then.
    let nobody = policy(&[
        statement("Deny", &["*"], &["kms:GetSecretValue"]),
        statement("Allow", &[GRANTED], &["kms:*"]),
    ]);
    set(&mut root, &nobody).unwrap();
    let told = ask(&mut root, "GetSecretPolicy", own).unwrap();
    assert_eq!(told["Policy"], nobody);
    let live = live.restart(config());
    let mut user = Caller::new(&live, &of_user);
    assert_eq!(code(user.value("own")), NO_SECRET);
}

/// A value is none of anything else: rows that change places are refused, and so is an older row.
#[test]
fn f1_a_value_in_the_place_of_another_is_refused() {
    let (live, mut caller, credentials) = begin();
    for name in ["a", "b"] {
        caller.create_secret(name, "v1", name).unwrap();
    }
    let site = live.halt();
    let rows = Rows::of(&site);
    let paths = rows.paths("secret-value/");
    assert_eq!(paths.len(), 2);
    rows.swap(&paths[0], &paths[1]);
    drop(rows);
    let live = site.start(Setup::new(config()));
    let mut caller = Caller::new(&live, &credentials);
    for name in ["a", "b"] {
        assert_eq!(code(caller.value(name)), "Rejected.Quarantined");
        // What is put anew is read.
        caller.put_value(name, "v2", "new", &[]).unwrap();
        assert_eq!(caller.value(name).unwrap().1, "new");
    }
}

/// F6: a value is in no log, no audit line and no error, and each request about a secret names it and its version in the audit.
#[test]
fn f6_the_audit_names_secrets_and_nothing_shows_their_values() {
    let logs = Logs::keep();
    let (live, mut caller, _) = begin();
    let marked = "marked-value-7f3a";
    caller
        .create_secret_as(CreateSecretRequest {
            tags: Some(vec![TagPair { tag_key: "team".into(), tag_value: "shop".into() }]),
            ..create_secret("db", "v1", marked)
        })
        .unwrap();
    caller.value("db").unwrap();
    caller.value_of("db", Some("v9"), None).unwrap_err();
    caller.describe_secret("db").unwrap();
    let error = caller.put_value("db", "v1", &format!("{marked}x"), &[]).unwrap_err();
    assert!(!format!("{error:?}").contains(marked));
    caller.create_secret("db", "v2", marked).unwrap_err();
    let password = ask(&mut caller, "GetRandomPassword", json!({ "PasswordLength": 40 })).unwrap();
    let password = password["RandomPassword"].as_str().unwrap().to_owned();
    assert_eq!(password.len(), 40);
    let site = live.halt();
    for hidden in [marked, &password] {
        assert!(!logs.text().contains(hidden));
        assert!(find_in_files(site.path(), hidden.as_bytes()).is_empty());
    }
    let named: Vec<_> = audit_lines(&site)
        .into_iter()
        .filter(|line| line["secrets"][0]["name"] == "db")
        .map(|line| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            (text(&line["operation"]), text(&line["secrets"][0]["version"]), text(&line["outcome"]))
        })
        .collect();
    let has = |operation: &str, version: &str, outcome: &str| {
        named.contains(&(operation.into(), version.into(), outcome.into()))
    };
    assert!(has("CreateSecret", "v1", "ok") && has("Encrypt", "v1", "ok"), "{named:?}");
    assert!(has("GetSecretValue", "v1", "ok") && has("GetSecretValue", "-", "ResourceNotFound"), "{named:?}");
    assert!(has("DescribeSecret", "-", "ok") && has("PutSecretValue", "v1", "ResourceExists"), "{named:?}");
    assert!(has("CreateSecret", "v2", "ResourceExists"), "{named:?}");
    verified(&site);
}

#[test]
fn lists_are_paged_and_filtered_and_tags_are_put_on_and_taken_off() {
    let (_live, mut caller, _) = begin();
    for n in 0..12 {
        caller.create_secret(&format!("s{n:02}"), "v1", "value").unwrap();
    }
    let tags = json!([{ "TagKey": "team", "TagValue": "shop" }]);
    ask(&mut caller, "TagResource", json!({ "SecretName": "s07", "Tags": tags })).unwrap();
    let names = |reply: &Value| -> Vec<String> {
        let rows = reply["SecretList"]["Secret"].as_array().unwrap();
        rows.iter().map(|row| row["SecretName"].as_str().unwrap().to_owned()).collect()
    };
    let second = ask(&mut caller, "ListSecrets", json!({ "PageNumber": 2, "PageSize": 5 })).unwrap();
    assert_eq!((names(&second).len(), &names(&second)[0][..], &second["TotalCount"]), (5, "s05", &json!(12)));
    let filters = json!([{ "Key": "TagKey", "Values": ["team"] }]);
    let tagged = ask(&mut caller, "ListSecrets", json!({ "Filters": filters, "FetchTags": true })).unwrap();
    assert_eq!(names(&tagged), ["s07"]);
    assert_eq!(tagged["SecretList"]["Secret"][0]["Tags"]["Tag"], tags);
    let begins = json!([{ "Key": "SecretName", "Values": ["s1"] }]);
    assert_eq!(
        names(&ask(&mut caller, "ListSecrets", json!({ "Filters": begins })).unwrap()),
        ["s10", "s11"]
    );
    let odd = json!([{ "Key": "Colour", "Values": ["red"] }]);
    assert_eq!(code(ask(&mut caller, "ListSecrets", json!({ "Filters": odd }))), "InvalidParameter");
    ask(&mut caller, "UntagResource", json!({ "SecretName": "s07", "TagKeys": ["team"] })).unwrap();
    assert_eq!(caller.describe_secret("s07").unwrap().tags.unwrap().tag, []);
    let both = json!({ "SecretName": "s07", "KeyId": "alias/x", "Tags": tags });
    assert_eq!(code(ask(&mut caller, "TagResource", both)), "InvalidParameter");
}
