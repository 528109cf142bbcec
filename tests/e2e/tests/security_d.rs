//! Group D of the security cases: who calls, and what that one may do. Signatures over HTTP are tested with that frontend.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_core::access::{AccessKeyStatus, Grant};
use keymill_core::id::{AccessKeyId, CmkId};
use keymill_core::operation::ItemError;
use keymill_e2e::{Caller, Raw, Told, audit_lines, eventually, metric, sign, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use rmpv::Value;
use serde_json::json;

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

fn grants(value: serde_json::Value) -> Vec<Grant> {
    serde_json::from_value(value).expect("grants")
}

const USER: &str = "RbacPermission/Template/CryptoServiceKeyUser";

/// The right to use and to administer these keys.
fn all_of(keys: &[CmkId]) -> Vec<Grant> {
    let resources: Vec<String> = keys.iter().map(|key| format!("key/{key}")).collect();
    grants(json!([
        { "Role": USER, "Resources": resources },
        { "Role": "KeyAdministrator", "Resources": resources },
        { "Role": "Auditor", "Resources": resources }
    ]))
}

/// The one error of a login that is not good.
fn refused() -> (u64, String, String) {
    (
        400,
        "SignatureDoesNotMatch".into(),
        "no access key, client key, token or certificate is known by what was shown".into(),
    )
}

fn hello(live: &Live, id: &str, signature: [u8; 32]) -> Told {
    let mut raw = Raw::connect(live.address);
    let told = raw.hello(id, signature).expect("a refusal is told");
    assert!(raw.frame().is_none(), "and the connection closed");
    told
}

fn log_in(live: &Live, id: &AccessKeyId, secret: &str) -> Result<(), (String, u16)> {
    let credentials = Credentials::new(id.clone(), secret.to_owned());
    match Connection::open(live.address, &credentials, &Options::default()) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(error)) => Err((error.code, error.status)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn d1_a_login_without_a_good_signature_is_refused_and_closed() {
    let (live, mut caller) = begin();
    let (id, secret) = caller.create_access_key(grants(json!([{ "Role": "Root" }]))).unwrap();
    let auth = |fields: Vec<(&str, Value)>| {
        Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    };
    let id_field = || ("AccessKeyId", Value::from(id.as_str()));
    let kind = |name: &str| ("Type", Value::from(name));
    let bytes = |n: usize| ("Signature", Value::Binary(vec![0; n]));
    let bad = [
        auth(vec![]),
        auth(vec![kind("AccessKey"), id_field()]),
        auth(vec![kind("AccessKey"), id_field(), bytes(0)]),
        auth(vec![kind("AccessKey"), id_field(), bytes(31)]),
        auth(vec![kind("AccessKey"), id_field(), bytes(32)]),
        auth(vec![kind("AccessKey"), id_field(), ("Signature", Value::Nil)]),
        auth(vec![kind("AccessKey"), id_field(), ("Signature", "".into())]),
        auth(vec![kind("none"), id_field()]),
        auth(vec![kind("None")]),
        auth(vec![kind("accesskey"), id_field(), bytes(32)]),
        auth(vec![kind("Certificate")]),
        auth(vec![kind("ClientKey"), ("ClientKeyId", "KAAP.x".into()), bytes(256)]),
    ];
    let hello = |version: u64, auth: Value| {
        let fields =
            vec![("Version".into(), version.into()), ("Client".into(), "raw".into()), ("Auth".into(), auth)];
        Value::Array(vec![0.into(), "Hello".into(), Value::Map(fields)])
    };
    for auth in bad {
        let mut raw = Raw::connect(live.address);
        raw.send_value(&hello(1, auth.clone()));
        let told = raw.last_words();
        assert!((400..500).contains(&told.status), "{auth}: {told:?}");
    }
    // A good signature under another version of the protocol.
    for version in [0, 2, u64::MAX] {
        let mut raw = Raw::connect(live.address);
        let signature = Value::Binary(sign(&secret, &raw.nonce, id.as_str()).into());
        raw.send_value(&hello(version, auth(vec![kind("AccessKey"), id_field(), ("Signature", signature)])));
        assert!((400..500).contains(&raw.last_words().status));
    }
    log_in(&live, &id, &secret).unwrap();
}

#[test]
fn d1_a_disabled_or_deleted_access_key_does_not_log_in() {
    let (live, mut caller) = begin();
    let (id, secret) = caller.create_access_key(Vec::new()).unwrap();
    log_in(&live, &id, &secret).unwrap();
    caller.set_status(&id, AccessKeyStatus::Inactive).unwrap();
    assert_eq!(log_in(&live, &id, &secret).unwrap_err().0, "InvalidAccessKeyId.Inactive");
    let guessed = log_in(&live, &id, "not the secret").unwrap_err();
    assert_eq!(guessed.0, "SignatureDoesNotMatch", "who cannot sign is not told that it is switched off");
    caller.set_status(&id, AccessKeyStatus::Active).unwrap();
    log_in(&live, &id, &secret).unwrap();
    caller.delete_access_key(&id).unwrap();
    assert_eq!(log_in(&live, &id, &secret).unwrap_err().0, "SignatureDoesNotMatch");
}

#[test]
fn d2_a_signature_covers_nonce_and_id() {
    let (live, mut caller) = begin();
    let (one, secret) = caller.create_access_key(Vec::new()).unwrap();
    let (other, _) = caller.create_access_key(Vec::new()).unwrap();
    let mut raw = Raw::connect(live.address);
    let told = raw.hello(other.as_str(), sign(&secret, &raw.nonce, one.as_str())).unwrap();
    assert_eq!(told.face(), refused(), "signed for another id");
    let mut raw = Raw::connect(live.address);
    let told = raw.hello(one.as_str(), sign(&secret, &raw.nonce, other.as_str())).unwrap();
    assert_eq!(told.face(), refused());
    for bit in [0, 100, 255] {
        let mut raw = Raw::connect(live.address);
        let mut signature = sign(&secret, &raw.nonce, one.as_str());
        signature[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(raw.hello(one.as_str(), signature).unwrap().face(), refused(), "bit {bit}");
    }
}

#[test]
fn d5_an_unknown_key_id_and_a_wrong_signature_have_one_face() {
    let (live, mut caller) = begin();
    let (id, _) = caller.create_access_key(Vec::new()).unwrap();
    let faces = [
        hello(&live, id.as_str(), [7; 32]),
        hello(&live, "KMAKNOBODYNOBODYNOBODY22", [7; 32]),
        hello(&live, "no id at all", [7; 32]),
        hello(&live, "", [7; 32]),
        hello(&live, "\u{1b}[31m\n", [7; 32]),
    ];
    for told in &faces {
        assert_eq!(told.face().1, refused().1);
        assert_eq!(told.face(), faces[0].face());
        assert_eq!(told.text("RequestId").len(), 36);
    }
}

#[test]
fn d6_one_sees_and_uses_ones_own_alone_and_cannot_tell_forbidden_from_absent() {
    let (live, mut root) = begin();
    let (own, foreign) = (root.create_key(), root.create_key());
    let nowhere = CmkId::from_random([9; 16]);
    root.create_alias("alias/own", own).unwrap();
    root.create_alias("alias/foreign", foreign).unwrap();
    let credentials = root.credentials(all_of(&[own]));
    let mut user = Caller::new(&live, &credentials);
    assert_eq!(user.keys().unwrap(), [own]);
    assert_eq!(user.aliases().unwrap(), [("alias/own".to_owned(), own)]);
    assert_eq!(user.describe("alias/own").unwrap().key_id, own);

    let mut faces = |key: CmkId, alias: &str| {
        let answers = [
            user.describe(key).map(drop),
            user.versions(key).map(drop),
            user.encrypt(key, b"x", &[]).map(drop),
            user.data_key(key, &[]).map(drop),
            user.data_keys(key, 2).map(drop),
            user.batch_encrypt(key, &[vec![1]]).map(drop),
            user.enable(key),
            user.disable(key),
            user.rotate(key),
            user.schedule_deletion(key),
            user.cancel_deletion(key),
            user.update_description(key, "mine"),
            user.create_alias("alias/mine", key),
            user.move_alias("alias/own", key),
            user.move_alias(alias, own),
            user.delete_alias(alias),
            user.describe(alias).map(drop),
            user.encrypt(alias, b"x", &[]).map(drop),
        ];
        answers.map(|answer| {
            let error = answer.expect_err("it is not the caller's");
            (error.status, error.code, error.message)
        })
    };
    let forbidden = faces(foreign, "alias/foreign");
    assert_eq!(forbidden, faces(nowhere, "alias/nowhere"));
    assert!(forbidden.iter().all(|(status, ..)| *status == 404));
    let denied = [
        user.create_described("mine").map(drop),
        user.create_access_key(Vec::new()).map(drop),
        user.delete_access_key(credentials.access_key_id()),
        user.set_grants(credentials.access_key_id(), all_of(&[own, foreign])),
        user.set_status(credentials.access_key_id(), AccessKeyStatus::Active),
    ];
    for answer in denied {
        assert_eq!(answer.unwrap_err().code, "Forbidden.NoPermission");
    }
    assert_eq!(root.describe(foreign).unwrap().description, "", "nothing of it was done");
    assert_eq!(root.aliases().unwrap().len(), 2);
}

#[test]
fn d7_re_encryption_needs_the_right_to_both_keys() {
    let (live, mut root) = begin();
    let (own, foreign) = (root.create_key(), root.create_key());
    let from_own = root.encrypt(own, b"own", &[]).unwrap();
    let from_foreign = root.encrypt(foreign, b"foreign", &[]).unwrap();
    let credentials = root.credentials(all_of(&[own]));
    let mut user = Caller::new(&live, &credentials);
    let used = root.describe(foreign).unwrap().use_count;
    assert_eq!(user.re_encrypt(&from_foreign, own).unwrap_err().code, "Forbidden.KeyNotFound");
    assert_eq!(user.re_encrypt(&from_own, foreign).unwrap_err().code, "Forbidden.KeyNotFound");
    assert!(user.re_encrypt(&from_own, own).is_ok());
    assert_eq!(
        user.batch_re_encrypt(std::slice::from_ref(&from_own), foreign).unwrap_err().code,
        "Forbidden.KeyNotFound"
    );
    let (items, errors) = user.batch_re_encrypt(&[from_own, from_foreign], own).unwrap();
    assert_eq!(items.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    assert_eq!(errors.iter().map(|e| (e.0, &*e.1)).collect::<Vec<_>>(), [(1, "Forbidden.KeyNotFound")]);
    assert_eq!(root.describe(foreign).unwrap().use_count, used, "nothing was computed under it");
}

#[test]
fn d7_a_context_binds_a_blob_to_its_tenant() {
    let (live, mut root) = begin();
    let key = root.create_key();
    // A service with the right to the key passes its own caller's tenant as context.
    let credentials = root.credentials(all_of(&[key]));
    let mut service = Caller::new(&live, &credentials);
    let of_b = service.encrypt(key, b"b's", &[("tenant", "b")]).unwrap();
    assert_eq!(service.decrypt(&of_b, &[("tenant", "a")]).unwrap_err().code, "InvalidParameter");
    assert_eq!(service.decrypt(&of_b, &[("tenant", "b")]).unwrap(), b"b's");
}

#[test]
fn d7b_a_mixed_batch_serves_what_is_allowed_and_treats_forbidden_and_absent_alike() {
    let (live, mut root) = begin();
    let (own, foreign) = (root.create_key(), root.create_key());
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    for i in 0..30 {
        let key = if i % 3 == 0 { own } else { foreign };
        let mut blob = root.encrypt(key, &[i; 9], &[]).unwrap();
        if i % 3 == 2 {
            blob[2..18].copy_from_slice(CmkId::from_random([i; 16]).as_bytes());
        }
        blobs.push(blob);
    }
    let used = root.describe(foreign).unwrap().use_count;
    let credentials = root.credentials(all_of(&[own]));
    let mut user = Caller::new(&live, &credentials);
    let opened = user.batch_decrypt(&blobs).unwrap();
    assert_eq!(opened.keys, [own]);
    for (i, item) in opened.items.iter().enumerate() {
        let expected = [i as u8; 9];
        assert_eq!(item.as_deref(), (i % 3 == 0).then_some(&expected[..]), "item {i}");
    }
    assert_eq!(opened.errors.len(), 20);
    for ItemError(_, code, message) in &opened.errors {
        assert_eq!((&**code, &**message), ("Forbidden.KeyNotFound", "the specified key is not found"));
    }
    assert_eq!(root.describe(foreign).unwrap().use_count, used, "nothing was computed under it");
}

#[test]
fn d8_a_deny_wins_an_empty_list_gives_nothing_and_names_are_exact() {
    let (live, mut root) = begin();
    let (a, b) = (root.create_key(), root.create_key());
    let deny_a = json!({ "Effect": "Deny", "Role": USER, "Resources": [format!("key/{a}")] });
    let allow = json!({ "Role": USER });
    for order in [[&deny_a, &allow], [&allow, &deny_a]] {
        let credentials = root.credentials(grants(json!(order)));
        let mut user = Caller::new(&live, &credentials);
        assert_eq!(user.encrypt(a, b"x", &[]).unwrap_err().code, "Forbidden.KeyNotFound");
        assert!(user.encrypt(b, b"x", &[]).is_ok());
    }
    for nothing in [json!([]), json!([{ "Role": USER, "Resources": [] }])] {
        let credentials = root.credentials(grants(nothing));
        let mut user = Caller::new(&live, &credentials);
        assert_eq!(user.encrypt(b, b"x", &[]).unwrap_err().code, "Forbidden.KeyNotFound");
        assert_eq!(user.keys().unwrap(), []);
    }

    let (id, secret) = root.create_access_key(grants(json!([{ "Role": "Root" }]))).unwrap();
    let mut raw = Raw::log_in(live.address, &id, &secret);
    let grant = |role: &str, effect: &str, resource: String| {
        Value::Array(vec![Value::Map(vec![
            ("Role".into(), role.into()),
            ("Effect".into(), effect.into()),
            ("Resources".into(), Value::Array(vec![resource.into()])),
        ])])
    };
    let any = || "*".to_owned();
    let refused = [
        grant("Encrypt", "Allow", any()),
        grant("root", "Allow", any()),
        grant("ROOT", "Allow", any()),
        grant("*", "Allow", any()),
        grant("", "Allow", any()),
        grant("Root", "allow", any()),
        grant("Root", "Maybe", any()),
        grant(USER, "Allow", "key/".into()),
        grant(USER, "Allow", "key/a*".into()),
        grant(USER, "Allow", format!("key/{}", &a.to_string()[..35])),
        grant(USER, "Allow", format!("key/{a}b")),
        grant(USER, "Allow", format!("KEY/{a}")),
        grant(USER, "Allow", format!("key/{}", a.to_string().to_uppercase())),
        grant(USER, "Allow", format!("key/{a}/../*")),
        grant(USER, "Allow", "alias/*".into()),
        grant(USER, "Allow", "".into()),
        grant(USER, "Allow", "**".into()),
    ];
    for bad in refused {
        let told = raw.ask("CreateAccessKey", vec![("Grants", bad.clone())]);
        assert_eq!(told.status, 400, "{bad}: {told:?}");
        assert!(told.text("Message").contains("Grants"), "{bad}: {told:?}");
    }
}

#[test]
fn d8_nobody_gives_out_more_than_it_has_and_the_last_root_stays() {
    let Started { live, credentials: bootstrap } = Live::start(EngineConfig::default());
    let mut root = Caller::new(&live, &bootstrap);
    let policy = root.credentials(grants(json!([{ "Role": "PolicyAdministrator" }])));
    let mut policy_admin = Caller::new(&live, &policy);
    let root_grant = || grants(json!([{ "Role": "Root" }]));
    let denied = [
        policy_admin.create_access_key(root_grant()).map(drop),
        policy_admin.set_grants(policy.access_key_id(), root_grant()),
        policy_admin.set_grants(bootstrap.access_key_id(), Vec::new()),
        policy_admin.set_status(bootstrap.access_key_id(), AccessKeyStatus::Inactive),
        policy_admin.delete_access_key(bootstrap.access_key_id()),
    ];
    for answer in denied {
        assert_eq!(answer.unwrap_err().code, "Forbidden.NoPermission");
    }
    let key = root.create_key();
    assert_eq!(policy_admin.encrypt(key, b"x", &[]).unwrap_err().code, "Forbidden.KeyNotFound");
    let locked_out = [
        root.set_status(bootstrap.access_key_id(), AccessKeyStatus::Inactive),
        root.set_grants(bootstrap.access_key_id(), Vec::new()),
        root.delete_access_key(bootstrap.access_key_id()),
    ];
    for answer in locked_out {
        assert_eq!(answer.unwrap_err().code, "Rejected.StateModifiedFailed");
    }
}

#[test]
fn d10_what_is_taken_away_is_refused_with_the_next_request_on_live_connections() {
    let (live, mut root) = begin();
    let key = root.create_key();
    let credentials = root.credentials(all_of(&[key]));
    let id = credentials.access_key_id();
    let mut connections: Vec<Caller> = (0..4).map(|_| Caller::new(&live, &credentials)).collect();
    let blob = connections[0].encrypt(key, b"x", &[]).unwrap();
    root.set_grants(id, Vec::new()).unwrap();
    for user in &mut connections {
        assert_eq!(user.encrypt(key, b"x", &[]).unwrap_err().code, "Forbidden.KeyNotFound");
        assert_eq!(user.decrypt(&blob, &[]).unwrap_err().code, "Forbidden.KeyNotFound");
        assert_eq!(user.batch_decrypt(std::slice::from_ref(&blob)).unwrap().errors.len(), 1);
    }
    root.set_grants(id, all_of(&[key])).unwrap();
    for user in &mut connections {
        assert_eq!(user.decrypt(&blob, &[]).unwrap(), b"x");
    }
    root.set_status(id, AccessKeyStatus::Inactive).unwrap();
    for user in &mut connections {
        let error = user.encrypt(key, b"x", &[]).unwrap_err();
        assert_eq!(error.code, "InvalidAccessKeyId.Inactive");
        assert_eq!(user.keys().unwrap_err().code, "InvalidAccessKeyId.Inactive");
    }
    root.set_status(id, AccessKeyStatus::Active).unwrap();
    assert!(connections[0].encrypt(key, b"x", &[]).is_ok());
    root.delete_access_key(id).unwrap();
    for user in &mut connections {
        assert_eq!(user.encrypt(key, b"x", &[]).unwrap_err().code, "InvalidAccessKeyId.Inactive");
    }
}

#[test]
fn d11_a_challenge_is_good_for_one_login_of_its_own_connection() {
    let (live, mut caller) = begin();
    let (id, secret) = caller.create_access_key(grants(json!([{ "Role": "Root" }]))).unwrap();
    let (mut one, mut other) = (Raw::connect(live.address), Raw::connect(live.address));
    assert_ne!(one.nonce, other.nonce);
    let signature = sign(&secret, &one.nonce, id.as_str());
    assert_eq!(other.hello(id.as_str(), signature).unwrap().face(), refused(), "of another connection");
    assert!(other.frame().is_none());
    assert_eq!(one.hello(id.as_str(), signature).unwrap().status, 0);
    // The same hello again on the same connection ends it, and on a new one is refused.
    assert!(one.hello(id.as_str(), signature).is_some_and(|told| told.id == 0 && told.status != 0));
    assert!(one.frame().is_none(), "a second login ends the connection");
    assert_eq!(hello(&live, id.as_str(), signature).face(), refused(), "replayed");
}

#[test]
fn d11_a_request_before_the_login_is_refused_and_not_done() {
    let (live, mut caller) = begin();
    let mut raw = Raw::connect(live.address);
    raw.send_value(&Value::Array(vec![1.into(), "CreateKey".into(), Value::Map(Vec::new())]));
    assert!((400..500).contains(&raw.last_words().status));
    assert_eq!(caller.keys().unwrap(), []);
}

#[test]
fn d11_a_silent_connection_is_closed_when_its_time_is_over() {
    let setup = Setup::new(EngineConfig::default()).with_hello_timeout(Duration::from_millis(300));
    let Started { live, credentials } = Live::start_with(setup);
    let silent_from = Instant::now();
    let mut silent = Raw::connect(live.address);
    // One that sends a byte at a time has no more time than one that sends none.
    let mut slow = Raw::connect(live.address);
    slow.send(&[0, 0]);
    let mut user = Caller::new(&live, &credentials);
    assert!(user.keys().is_ok(), "others are served meanwhile");
    assert!(silent.frame().is_none() && slow.frame().is_none());
    let waited = silent_from.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(8), "{waited:?}");
    assert!(user.keys().is_ok(), "who is logged in may be silent");
}

#[test]
fn d14_guesses_are_counted_noted_and_lock_nobody_out() {
    let (live, mut caller) = begin();
    let (id, secret) = caller.create_access_key(Vec::new()).unwrap();
    for i in 0..50 {
        let told = match i % 2 {
            0 => hello(&live, id.as_str(), [i; 32]),
            _ => hello(&live, "KMAKNOBODYNOBODYNOBODY22", [i; 32]),
        };
        assert_eq!(told.face(), refused());
    }
    log_in(&live, &id, &secret).expect("the owner is not locked out");
    let counted = |reason: &str| {
        metric(&live, &format!("keymill_authentication_failures_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!((counted("signature"), counted("unknown")), (25.0, 25.0));
    let strangers = |line: &serde_json::Value| match line["note"] == "strangers" {
        true => line["count"].as_u64().expect("a count"),
        false => 0,
    };
    eventually("the guesses are in the audit", || {
        let lines = audit_lines(live.site());
        (lines.iter().map(strangers).sum::<u64>() == 50).then_some(())
    });
    let site = live.halt();
    let lines = audit_lines(&site);
    let notes: Vec<_> = lines.iter().filter(|line| line["note"] == "strangers").collect();
    assert!(notes.len() <= 8, "a note a second and reason, not one a guess: {}", notes.len());
    assert!(notes.iter().all(|note| note["source"] == "127.0.0.0/24"));
    verified(&site);
}
