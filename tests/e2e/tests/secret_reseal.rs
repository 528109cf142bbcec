//! Secrets sealed anew: under another key or the newest version of their own, all values of a secret or none, and read all the while.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_e2e::{Answered, Caller, Rows, audit_lines, eventually, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NOT_FOUND: &str = "Forbidden.ResourceNotFound";

/// An engine that looks at its clock all the time, or never.
fn config(looks: bool) -> EngineConfig {
    let deletion_check = if looks { Duration::from_millis(20) } else { Duration::from_secs(3_600) };
    EngineConfig { deletion_check, ..EngineConfig::default() }
}

fn begin(looks: bool) -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(config(looks));
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

/// Asks for a sealing under a key, or the secret's own; tells whether anything was sealed.
fn reseal(caller: &mut Caller, name: &str, under: Option<CmkId>) -> Answered<bool> {
    let mut parameters = json!({ "SecretName": name, "TimeoutMs": 50_000 });
    if let Some(key) = under {
        parameters["EncryptionKeyId"] = json!(key);
    }
    caller.ask_json("ResealSecret", parameters).map(|reply| reply["IsChanged"] == true)
}

fn key_of(caller: &mut Caller, name: &str) -> Value {
    caller.ask_json("DescribeSecret", json!({ "SecretName": name })).unwrap()["EncryptionKeyId"].clone()
}

fn values(live: Live) -> (Vec<String>, keymill_harness::Site) {
    let site = live.halt();
    let paths = Rows::of(&site).paths("secret-value/");
    (paths, site)
}

#[test]
fn a_secret_goes_to_another_key_whole_and_no_longer_needs_the_one_before() {
    let (live, mut root, credentials) = begin(true);
    let (old, new) = (root.create_key(), root.create_key());
    root.create_secret_under(old, "db", "v1", "one").unwrap();
    root.put_value("db", "v2", "two", &[]).unwrap();
    root.put_value("db", "v3", "three", &["test"]).unwrap();
    let read = |caller: &mut Caller| {
        ["v1", "v2", "v3"].map(|version| caller.value_of("db", Some(version), None).unwrap())
    };
    let before = read(&mut root);
    assert_eq!(reseal(&mut root, "db", Some(new)), Ok(true));
    assert_eq!(key_of(&mut root, "db"), json!(new));
    assert_eq!(read(&mut root), before);
    // Once more: there is nothing to do. By its own key neither, until that has a newer version.
    assert_eq!(reseal(&mut root, "db", Some(new)), Ok(false));
    assert_eq!(reseal(&mut root, "db", None), Ok(false));
    root.ask_json("RotateKey", json!({ "KeyId": new, "TimeoutMs": 50_000 })).unwrap();
    assert_eq!(reseal(&mut root, "db", None), Ok(true));
    assert_eq!(reseal(&mut root, "db", None), Ok(false));
    assert_eq!(read(&mut root), before);
    // The key before may go.
    root.disable(old).unwrap();
    assert_eq!(read(&mut root), before);
    root.put_value("db", "v4", "four", &[]).unwrap();
    assert_eq!(root.value("db").unwrap().1, "four");
    // One under a key that cannot open it stays as it is, and works again with the key.
    root.disable(new).unwrap();
    root.enable(old).unwrap();
    assert_eq!(code(reseal(&mut root, "db", Some(old))), "Rejected.Disabled");
    root.enable(new).unwrap();
    root.disable(old).unwrap();
    assert_eq!(code(reseal(&mut root, "db", Some(old))), "Rejected.Disabled");
    assert_eq!(key_of(&mut root, "db"), json!(new));
    root.enable(old).unwrap();
    assert_eq!(reseal(&mut root, "db", Some(old)), Ok(true));

    // So it is after a restart.
    let live = live.restart(config(true));
    let mut root = Caller::new(&live, &credentials);
    let now = read(&mut root);
    for (before, now) in before.iter().zip(&now) {
        assert_eq!((&before.0, &before.1), (&now.0, &now.1));
    }
    assert_eq!((&now[1].2[..], &now[2].2[..]), (&["ACSPrevious".to_owned()][..], &["test".to_owned()][..]));
    let (_, site) = values(live);
    let lines = audit_lines(&site);
    let of = |operation: &str, principal: &str| {
        lines.iter().filter(|line| line["operation"] == operation && line["principal"] == principal).count()
    };
    assert!(of("GetSecretValue", "keymill.reseal") >= 3 && of("Encrypt", "keymill.reseal") >= 3);
    verified(&site);
}

#[test]
fn what_is_left_by_it_goes_once_nobody_reads_it_also_after_a_crash() {
    let (live, mut root, credentials) = begin(false);
    let keys = [root.create_key(), root.create_key()];
    root.create_secret_under(keys[0], "db", "v1", "one").unwrap();
    root.put_value("db", "v2", "two", &[]).unwrap();
    // What may be left is bounded: two values a time.
    let done = (0..).take_while(|n| reseal(&mut root, "db", Some(keys[(n + 1) % 2])).is_ok()).count();
    assert_eq!(done, 30);
    assert_eq!(code(reseal(&mut root, "db", Some(keys[(done + 1) % 2]))), "Rejected.Throttling");
    let (paths, site) = values(live);
    assert_eq!(paths.len(), 62);
    let live = site.start(keymill_harness::Setup::new(config(true)));
    let mut root = Caller::new(&live, &credentials);
    eventually("the values before are removed", || reseal(&mut root, "db", Some(keys[(done + 1) % 2])).ok());
    assert_eq!(root.value_of("db", Some("v1"), None).unwrap().1, "one");
    let (paths, site) = values(live);
    assert!(paths.len() <= 4, "{paths:?}");
    verified(&site);
    assert!(audit_lines(&site).iter().any(|line| line["rule"] == "values before removed"));
}

#[test]
fn who_seals_anew_needs_the_right_to_it_and_to_the_key() {
    let (live, mut root, _) = begin(true);
    let (old, new) = (root.create_key(), root.create_key());
    root.create_secret_under(old, "db", "v1", "one").unwrap();
    let with = |root: &mut Caller, grants: Value| {
        Caller::new(&live, &root.credentials(serde_json::from_value(grants).unwrap()))
    };
    let user = "RbacPermission/Template/CryptoServiceKeyUser";
    let reader = "RbacPermission/Template/CryptoServiceSecretUser";
    let mut reads = with(&mut root, json!([{ "Role": reader }, { "Role": user }]));
    assert_eq!(code(reseal(&mut reads, "db", Some(new))), NOT_FOUND);
    let mut admin = with(&mut root, json!([{ "Role": "SecretAdministrator" }]));
    assert_eq!(code(reseal(&mut admin, "db", Some(new))), "Forbidden.KeyNotFound");
    assert_eq!(reseal(&mut admin, "db", None), Ok(false));
    assert_eq!(code(admin.value("db")), NOT_FOUND, "it is no right to the value");
    let grant = json!({ "Role": user, "Resources": [format!("key/{new}")] });
    let mut both = with(&mut root, json!([{ "Role": "SecretAdministrator" }, grant]));
    assert_eq!(reseal(&mut both, "db", Some(new)), Ok(true));
    assert_eq!(code(reseal(&mut both, "db", Some(old))), "Forbidden.KeyNotFound");
    assert_eq!(code(reseal(&mut root, "none", None)), NOT_FOUND);
    root.ask_json("DeleteSecret", json!({ "SecretName": "db" })).unwrap();
    assert_eq!(code(reseal(&mut root, "db", Some(old))), "Rejected.ResourceInDeleteWindow");
    root.ask_json("RestoreSecret", json!({ "SecretName": "db" })).unwrap();
    let pair = root.create_of(Some(keymill_core::key::KeySpec::EcP256), None).unwrap();
    assert_eq!(code(reseal(&mut root, "db", Some(pair))), "InvalidParameter");
    verified(&live.halt());
}

/// Tells readers to end, also where a test fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Of a put and a sealing at once one wins, and the other is told; no read fails meanwhile.
#[test]
fn it_is_read_and_written_all_the_while() {
    let (live, mut root, credentials) = begin(true);
    let keys = [root.create_key(), root.create_key()];
    root.create_secret_under(keys[0], "db", "v0", "0").unwrap();
    let is_over = AtomicBool::new(false);
    let reads: u32 = std::thread::scope(|scope| {
        let is_over = &is_over;
        let ends = Over(is_over);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = Caller::new(&live, &credentials);
                scope.spawn(move || {
                    let mut reads = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        reader.value("db").unwrap();
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let mut writer = Caller::new(&live, &credentials);
        let writer = scope.spawn(move || {
            for n in 1..=20 {
                let value = n.to_string();
                eventually("the value is put", || {
                    writer
                        .put_value("db", &format!("v{n}"), &value, &[])
                        .inspect_err(|error| assert_eq!(error.code, "Rejected.ConcurrentModification"))
                        .ok()
                });
                assert_eq!(writer.value("db").unwrap().1, value);
            }
        });
        for n in 1..=12 {
            eventually("it is sealed anew", || {
                let sealed = reseal(&mut root, "db", Some(keys[n % 2]));
                let is_told =
                    |code: &str| ["Rejected.ConcurrentModification", "Rejected.Throttling"].contains(&code);
                sealed.inspect_err(|error| assert!(is_told(&error.code), "{error:?}")).ok()
            });
        }
        writer.join().unwrap();
        drop(ends);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    assert!(reads > 0);
    assert_eq!(root.value("db").unwrap().1, "20");
    verified(&live.halt());
}
