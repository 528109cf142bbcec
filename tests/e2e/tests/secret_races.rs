//! Secrets that change while they are read, records that fail their check, and lists of those that a caller may see.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};

use keymill_client::Credentials;
use keymill_e2e::{Answered, Caller, GRANTED, Rows, named, policy, statement};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NOT_FOUND: &str = "Forbidden.ResourceNotFound";
const QUARANTINED: &str = "Rejected.Quarantined";

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

fn names(reply: &Value) -> Vec<String> {
    let rows = reply["SecretList"]["Secret"].as_array().unwrap();
    rows.iter().map(|row| row["SecretName"].as_str().unwrap().to_owned()).collect()
}

/// F11: what a read finds gone was deleted or pruned meanwhile: that is no damage, and the log says nothing of any.
#[test]
fn f11_a_read_that_races_a_deletion_finds_a_secret_or_none() {
    let (live, mut writer, credentials) = begin();
    let is_over = AtomicBool::new(false);
    writer.create_secret("raced", "v0", "0").unwrap();
    let (found, lost) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|n| {
                let mut reader = Caller::new(&live, &credentials);
                let is_over = &is_over;
                scope.spawn(move || {
                    let (mut found, mut lost) = (0u32, 0u32);
                    while !is_over.load(Ordering::Relaxed) {
                        let stage = (n == 2).then_some("ACSPrevious");
                        match reader.value_of("raced", None, stage) {
                            Ok(_) => found += 1,
                            Err(error) => {
                                assert_eq!(error.code, NOT_FOUND);
                                lost += 1;
                            }
                        }
                    }
                    (found, lost)
                })
            })
            .collect();
        for round in 0..60 {
            for version in 1..14 {
                writer
                    .put_value("raced", &format!("v{version}"), &format!("{round} {version}"), &[])
                    .unwrap();
            }
            let forced = json!({ "SecretName": "raced", "ForceDeleteWithoutRecovery": true });
            writer.ask_json("DeleteSecret", forced).unwrap();
            writer.create_secret("raced", "v0", "0").unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        let counts = readers.into_iter().map(|reader| reader.join().unwrap());
        counts.fold((0, 0), |(found, lost), (f, l)| (found + f, lost + l))
    });
    assert!(found > 0 && lost > 0, "{found} reads found it, {lost} did not");
}

#[test]
fn a_secret_whose_record_fails_its_check_is_told_from_one_that_is_not_there() {
    let (live, mut caller, credentials) = begin();
    for name in ["kept", "flipped", "removed"] {
        caller.create_secret(name, "v1", name).unwrap();
    }
    let site = live.halt();
    let rows = Rows::of(&site);
    let path = |name: &str| {
        format!("secret/{}", keymill_crypto::digest::hex(&keymill_crypto::digest::sha256(name.as_bytes())))
    };
    rows.flip(&path("flipped"));
    rows.delete(&path("removed"));
    drop(rows);
    let live = site.start(Setup::new(EngineConfig::default()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.value("kept").unwrap().1, "kept");
    for name in ["flipped", "removed"] {
        assert_eq!(code(caller.value(name)), QUARANTINED, "{name}");
        assert_eq!(code(caller.create_secret(name, "v1", "new")), QUARANTINED, "{name}");
        assert_eq!(code(caller.put_value(name, "v2", "new", &[])), QUARANTINED, "{name}");
    }
    assert_eq!(code(caller.value("never")), NOT_FOUND);
    let grants = serde_json::from_value(json!([{ "Role": "KeyAdministrator" }])).unwrap();
    let mut stranger = Caller::new(&live, &caller.credentials(grants));
    for name in ["kept", "flipped", "never"] {
        assert_eq!(code(stranger.value(name)), NOT_FOUND, "who may not have it is told of none: {name}");
    }
    assert_eq!(names(&caller.ask_json("ListSecrets", json!({})).unwrap()), ["kept"]);
}

#[test]
fn a_list_holds_what_the_caller_may_see_and_its_pages_make_up_the_whole() {
    let (live, mut root, _) = begin();
    for n in 0..25 {
        root.create_secret(&format!("app/{n:02}"), "v1", "x").unwrap();
    }
    root.create_secret("other", "v1", "x").unwrap();
    let (id, secret) = root
        .create_access_key(serde_json::from_value(json!([{ "Role": "SecretAdministrator" }])).unwrap())
        .unwrap();
    let mut all = Caller::new(&live, &Credentials::new(id.clone(), secret));
    // One that its own policy hides.
    let granted = statement("Allow", &[GRANTED], &["kms:*"]);
    let hidden = policy(&[granted, statement("Deny", &[&named(&id)], &["kms:ListSecrets"])]);
    root.ask_json("SetSecretPolicy", json!({ "SecretName": "app/03", "Policy": hidden })).unwrap();
    let some = serde_json::from_value(json!([
        { "Role": "SecretAdministrator", "Resources": ["secret/app/07", "secret/app/09", "secret/none", "secret/other"] },
        { "Effect": "Deny", "Role": "SecretAdministrator", "Resources": ["secret/app/09"] },
    ]))
    .unwrap();
    let mut some = Caller::new(&live, &root.credentials(some));
    assert_eq!(names(&some.ask_json("ListSecrets", json!({})).unwrap()), ["app/07", "other"]);
    let filters = json!([{ "Key": "SecretName", "Values": ["app/"] }]);
    assert_eq!(names(&some.ask_json("ListSecrets", json!({ "Filters": filters })).unwrap()), ["app/07"]);
    let expected: Vec<String> =
        (0..25).filter(|n| *n != 3).map(|n| format!("app/{n:02}")).chain(["other".to_owned()]).collect();
    for size in [1, 7, 26, 100] {
        let mut seen = Vec::new();
        for number in 1.. {
            let page =
                all.ask_json("ListSecrets", json!({ "PageNumber": number, "PageSize": size })).unwrap();
            assert_eq!(page["TotalCount"], expected.len());
            let rows = names(&page);
            if rows.is_empty() {
                break;
            }
            seen.extend(rows);
        }
        assert_eq!(seen, expected, "{size} a page");
    }
    let of = |values: &[&str]| json!({ "Filters": [{ "Key": "SecretName", "Values": values }] });
    let begun = all.ask_json("ListSecrets", of(&["app/1"])).unwrap();
    assert_eq!(names(&begun), (10..20).map(|n| format!("app/{n}")).collect::<Vec<_>>());
    assert_eq!(names(&all.ask_json("ListSecrets", of(&["other", "app/24"])).unwrap()), ["app/24", "other"]);
    assert_eq!(names(&all.ask_json("ListSecrets", of(&["zzz"])).unwrap()), Vec::<String>::new());
}
