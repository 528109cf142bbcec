//! Policies of keys: what they give and take, beside what access keys are granted (D7, D8, C12).
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::Credentials;
use keymill_core::access::Grant;
use keymill_core::context::EncryptionContext;
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{
    BatchDecryptRequest, BatchEncryptRequest, Bin, CreateKeyRequest, ExplainAccessRequest, Reply,
};
use keymill_e2e::{Caller, GRANTED, audit_lines, batch_encrypt, named, policy, statement, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::json;

const NO_KEY: &str = "Forbidden.KeyNotFound";
const INVALID: &str = "InvalidParameter";

fn begin() -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn grants(value: serde_json::Value) -> Vec<Grant> {
    serde_json::from_value(value).expect("grants")
}

/// An access key that may use every key, and its caller.
fn user(live: &Live, root: &mut Caller) -> (Caller, Credentials) {
    let all = json!([{ "Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": ["key/*"] }]);
    let credentials = root.credentials(grants(all));
    (Caller::new(live, &credentials), credentials)
}

fn code<T>(answered: Result<T, keymill_client::ServerError>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

#[test]
fn a_key_without_one_is_left_to_grants_and_says_so() {
    let (live, mut root, _) = begin();
    let (mut user, _) = user(&live, &mut root);
    let key = root.create_key();
    let document = root.policy(key).unwrap();
    assert!(document.contains(GRANTED) && document.contains("kms:*"), "{document}");
    user.encrypt(key, b"x", &[]).unwrap();
    // What is told can be set, and changes nothing.
    root.set_policy(key, &document).unwrap();
    user.encrypt(key, b"x", &[]).unwrap();
    assert_eq!(root.policy(key).unwrap(), document);
}

#[test]
fn a_policy_is_in_force_with_the_next_request_on_every_connection_and_after_a_restart() {
    let (live, mut root, credentials) = begin();
    let (mut user, of_user) = user(&live, &mut root);
    let mut second = Caller::new(&live, &of_user);
    let key = root.create_key();
    let blob = user.encrypt(key, b"x", &[]).unwrap();
    let unable = policy(&[
        statement("Allow", &[GRANTED], &["kms:*"]),
        statement("Deny", &[&named(of_user.access_key_id())], &["kms:Decrypt", "kms:GenerateDataKey"]),
    ]);
    root.set_policy(key, &unable).unwrap();
    for caller in [&mut user, &mut second] {
        caller.encrypt(key, b"x", &[]).unwrap();
        assert_eq!(code(caller.decrypt(&blob, &[])), NO_KEY);
        assert_eq!(code(caller.re_encrypt(&blob, key)), NO_KEY);
        assert_eq!(code(caller.data_key(key, &[])), NO_KEY);
    }
    root.decrypt(&blob, &[]).unwrap();
    let live = live.restart(EngineConfig::default());
    let (mut root, mut user) = (Caller::new(&live, &credentials), Caller::new(&live, &of_user));
    assert_eq!(root.policy(key).unwrap(), unable);
    assert_eq!(code(user.decrypt(&blob, &[])), NO_KEY);
    user.encrypt(key, b"x", &[]).unwrap();
    root.set_policy(key, &policy(&[statement("Allow", &[GRANTED], &["kms:*"])])).unwrap();
    user.decrypt(&blob, &[]).unwrap();
    let site = live.halt();
    let told = audit_lines(&site).iter().filter(|line| line["rule"] == "key-policy 1").count();
    assert_eq!(told, 7, "the audit names the statement that refused, also where an item names the key");
    verified(&site);
}

/// A batch may name many keys: those that the caller may not use are not there for it, the others are served.
#[test]
fn d7b_items_of_a_forbidden_key_are_not_found_beside_those_that_are_allowed() {
    let (live, mut root, _) = begin();
    let (mut user, of_user) = user(&live, &mut root);
    let (open, shut) = (root.create_key(), root.create_key());
    let blobs = [open, shut, open]
        .map(|key| root.encrypt(key, b"item", &[]).unwrap())
        .into_iter()
        .collect::<Vec<_>>();
    let mut unknown = blobs[1].clone();
    unknown[2..18].fill(7);
    let denied = policy(&[
        statement("Allow", &[GRANTED], &["kms:*"]),
        statement("Deny", &[&named(of_user.access_key_id())], &["kms:Decrypt"]),
    ]);
    root.set_policy(shut, &denied).unwrap();
    let items = [blobs, vec![unknown]].concat();
    let opened = user.batch_decrypt(&items).unwrap();
    let texts: Vec<_> = opened.items.iter().map(|item| item.as_deref()).collect();
    assert_eq!(texts, [Some(&b"item"[..]), None, Some(b"item"), None]);
    let told: Vec<_> = opened.errors.iter().map(|error| (error.0, &*error.1)).collect();
    assert_eq!(told, [(1, NO_KEY), (3, NO_KEY)]);
    assert_eq!(opened.keys, [open]);
    // Lists leave out what may not be seen, and count it not.
    let of_auditor = root.credentials(grants(json!([{ "Role": "Auditor" }])));
    let mut auditor = Caller::new(&live, &of_auditor);
    // Made in one moment they stand in the order of their ids.
    let both = |caller: &mut Caller| {
        let mut keys = caller.keys().unwrap();
        keys.sort_by_key(|key| *key != open);
        keys == [open, shut]
    };
    assert!(both(&mut auditor));
    let hidden = policy(&[
        statement("Allow", &[GRANTED], &["kms:*"]),
        statement("Deny", &[&named(of_auditor.access_key_id())], &["kms:DescribeKey", "kms:ListKeys"]),
    ]);
    root.set_policy(shut, &hidden).unwrap();
    assert_eq!(code(auditor.describe(shut)), NO_KEY);
    assert_eq!(auditor.keys().unwrap(), [open]);
    // One whom no grant lets list is let by the policy, that key alone.
    let of_guest = root.credentials(Vec::new());
    let mut guest = Caller::new(&live, &of_guest);
    assert_eq!(guest.keys().unwrap(), []);
    root.set_policy(
        shut,
        &policy(&[statement("Allow", &[&named(of_guest.access_key_id())], &["kms:ListKeys"])]),
    )
    .unwrap();
    assert_eq!(guest.keys().unwrap(), [shut]);
    // Root finds what it may have to mend.
    assert!(both(&mut root));
}

#[test]
fn who_is_named_needs_no_grant_and_who_is_left_out_has_none_that_counts() {
    let (live, mut root, _) = begin();
    let (mut granted, _) = user(&live, &mut root);
    let of_guest = root.credentials(Vec::new());
    let mut guest = Caller::new(&live, &of_guest);
    let (key, other) = (root.create_key(), root.create_key());
    assert_eq!(code(guest.encrypt(key, b"x", &[])), NO_KEY);
    root.set_policy(
        key,
        &policy(&[statement("Allow", &[&named(of_guest.access_key_id())], &["kms:Encrypt"])]),
    )
    .unwrap();
    let blob = guest.encrypt(key, b"x", &[]).unwrap();
    guest.batch_encrypt(key, &[vec![1]]).unwrap();
    assert_eq!(code(guest.decrypt(&blob, &[])), NO_KEY);
    assert_eq!(code(guest.encrypt(other, b"x", &[])), NO_KEY);
    assert_eq!(code(granted.encrypt(key, b"x", &[])), NO_KEY);
    // Root mends it, and does nothing else with it meanwhile.
    assert_eq!(code(root.encrypt(key, b"x", &[])), NO_KEY);
    root.describe(key).unwrap();
    root.set_policy(key, &policy(&[statement("Allow", &[GRANTED], &["kms:*"])])).unwrap();
    granted.decrypt(&blob, &[]).unwrap();
    // An access key that is gone takes nothing along.
    root.delete_access_key(of_guest.access_key_id()).unwrap();
    assert_eq!(code(guest.encrypt(key, b"x", &[])), "InvalidAccessKeyId.Inactive");
}

#[test]
fn c12_rights_are_those_of_the_key_wherever_its_alias_points() {
    let (live, mut root, _) = begin();
    let (mut user, of_user) = user(&live, &mut root);
    let (a, b) = (root.create_key(), root.create_key());
    root.create_alias("alias/moves", a).unwrap();
    let denied = policy(&[
        statement("Allow", &[GRANTED], &["kms:*"]),
        statement("Deny", &[&named(of_user.access_key_id())], &["kms:*"]),
    ]);
    root.set_policy(a, &denied).unwrap();
    assert_eq!(code(user.encrypt("alias/moves", b"x", &[])), "Forbidden.AliasNotFound");
    root.move_alias("alias/moves", b).unwrap();
    user.encrypt("alias/moves", b"x", &[]).unwrap();
}

#[test]
fn what_cannot_stand_is_refused_and_changes_nothing() {
    let (live, mut root, _) = begin();
    let key = root.create_key();
    let administrator = json!([{ "Role": "PolicyAdministrator", "Resources": ["*"] }]);
    let of_administrator = root.credentials(grants(administrator));
    let mut administrator = Caller::new(&live, &of_administrator);
    let all = statement("Allow", &[GRANTED], &["kms:*"]);
    administrator.set_policy(key, &policy(std::slice::from_ref(&all))).unwrap();
    let before = administrator.policy(key).unwrap();
    let arn = root.describe(key).unwrap().arn;
    let locks_out = [
        policy(&[statement("Allow", &[GRANTED], &["kms:Encrypt"])]),
        policy(&[all.clone(), statement("Deny", &["*"], &["kms:SetKeyPolicy"])]),
    ];
    for document in &locks_out {
        let error = administrator.set_policy(key, document).unwrap_err();
        assert!(error.message.contains("could not set it again"), "{error}");
    }
    let nobody = policy(&[statement("Allow", &["acs:ram::0:access-key/KMAK00000000"], &["kms:*"])]);
    let elsewhere = policy(&[
        json!({ "Effect": "Allow", "Principal": { "RAM": [GRANTED] }, "Action": ["kms:*"], "Resource": [format!("{arn}0")] }),
    ]);
    for (document, told) in
        [(nobody, "no access key"), (elsewhere, "neither * nor the ARN"), ("{}".into(), "missing")]
    {
        let error = administrator.set_policy(key, &document).unwrap_err();
        assert_eq!(error.code, INVALID);
        assert!(error.message.contains(told), "{error}");
    }
    assert_eq!(administrator.policy(key).unwrap(), before);
    // Who may not set policies does not say by one what it may do with a key of its own making.
    let of_maker = root.credentials(grants(json!([{ "Role": "KeyAdministrator" }])));
    let mut maker = Caller::new(&live, &of_maker);
    let own = policy(&[all, statement("Allow", &[&named(of_maker.access_key_id())], &["kms:*"])]);
    let create = || CreateKeyRequest { policy: Some(own.clone()), ..Default::default() };
    assert_eq!(code(maker.ask(create(), |_| ())), "Forbidden.NoPermission");
    let made = maker.create_key();
    assert_eq!(code(maker.set_policy(made, &own)), NO_KEY);
    assert_eq!(code(maker.encrypt(made, b"x", &[])), NO_KEY);
    // Root may lock itself out of the use of a key, and is the one to let itself in again.
    root.set_policy(key, &locks_out[1]).unwrap();
    assert_eq!(code(administrator.set_policy(key, &before)), NO_KEY);
    root.set_policy(key, &before).unwrap();
    let request = CreateKeyRequest { policy: Some(before.clone()), ..Default::default() };
    let made = root.ask(request, |_| ()).map(|()| root.keys().unwrap()).unwrap();
    assert_eq!(root.policy(*made.last().unwrap()).unwrap(), before);
    verified(&live.halt());
}

/// `GRANTED` may do everything, but to decrypt only under the context of its tenant, or from nowhere but this machine.
fn under(conditions: serde_json::Value) -> String {
    let mut deny = statement("Deny", &["*"], &["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*"]);
    deny["Condition"] = conditions;
    policy(&[statement("Allow", &[GRANTED], &["kms:*"]), deny])
}

/// Each item of a batch is decided under its own context: what holds under one says nothing of the next.
#[test]
fn a_condition_on_the_context_is_asked_of_each_item() {
    let (live, mut root, _) = begin();
    let (mut user, _) = user(&live, &mut root);
    let key = root.create_key();
    let tenant = |name| EncryptionContext::from_pairs([("tenant", name)]).unwrap();
    let sealed = |root: &mut Caller, name| root.encrypt(key, b"x", &[("tenant", name)]).unwrap();
    let (ours, theirs) = (sealed(&mut root, "a"), sealed(&mut root, "b"));
    let bare = root.encrypt(key, b"x", &[]).unwrap();
    let document = under(json!({ "StringNotEquals": { "kms:EncryptionContext:tenant": "a" } }));
    root.set_policy(key, &document).unwrap();

    assert_eq!(user.decrypt(&ours, &[("tenant", "a")]).unwrap(), b"x");
    assert_eq!(code(user.decrypt(&theirs, &[("tenant", "b")])), NO_KEY);
    assert_eq!(code(user.decrypt(&bare, &[])), NO_KEY);
    user.encrypt(key, b"x", &[("tenant", "a"), ("row", "7")]).unwrap();
    assert_eq!(code(user.encrypt(key, b"x", &[("tenant", "b")])), NO_KEY);
    assert_eq!(code(user.encrypt(key, b"x", &[("Tenant", "a")])), NO_KEY);
    assert_eq!(code(user.data_key(key, &[])), NO_KEY);
    user.data_key(key, &[("tenant", "a")]).unwrap();
    // Out of one tenant's context into none: neither side is forgotten.
    assert_eq!(code(user.re_encrypt(&bare, key)), NO_KEY);

    let mut open = |contexts: [Option<&'static str>; 4], blobs: [&Vec<u8>; 4]| {
        let request = BatchDecryptRequest {
            items: blobs.iter().map(|blob| Bin::from(&blob[..])).collect(),
            key_id: None,
            encryption_context: None,
            encryption_contexts: Some(contexts.iter().map(|name| name.map(tenant)).collect()),
            timeout_ms: None,
        };
        let told = user.ask(request, |reply| match reply {
            Reply::BatchDecrypt(reply) => {
                let told: Vec<_> = reply.errors.iter().map(|error| (error.0, error.1.to_string())).collect();
                (reply.items.iter().map(Option::is_some).collect::<Vec<_>>(), told)
            }
            _ => unreachable!(),
        });
        told.unwrap()
    };
    let not_found = |at: u32| (at, NO_KEY.to_owned());
    for order in [[&ours, &theirs, &ours, &bare], [&theirs, &ours, &bare, &ours]] {
        let name = |blob: &&Vec<u8>| match *blob {
            blob if *blob == ours => Some("a"),
            blob if *blob == theirs => Some("b"),
            _ => None,
        };
        let (opened, told) = open(order.each_ref().map(name), order);
        let is_ours: Vec<_> = order.iter().map(|blob| **blob == ours).collect();
        assert_eq!(opened, is_ours);
        let refused = (0..).zip(&is_ours).filter(|(_, ours)| !**ours).map(|(at, _)| not_found(at));
        assert_eq!(told, refused.collect::<Vec<_>>());
    }
    // To seal is all or nothing: the key is there for all of the items, or it is not.
    let items = [b"x".to_vec(), b"y".to_vec()];
    for (contexts, allowed) in [(["a", "a"], true), (["a", "b"], false), (["b", "a"], false)] {
        let request = BatchEncryptRequest {
            encryption_contexts: Some(contexts.map(|name| Some(tenant(name))).to_vec()),
            ..batch_encrypt(key, &items)
        };
        assert_eq!(
            user.ask(request, |_| ()).map_err(|error| error.code),
            match allowed {
                true => Ok(()),
                false => Err(NO_KEY.into()),
            }
        );
    }
    verified(&live.halt());
}

#[test]
fn a_condition_reads_address_time_and_key_and_is_explained() {
    let (live, mut root, _) = begin();
    let (mut user, of_user) = user(&live, &mut root);
    let key = root.create_key();
    for (conditions, allowed, told) in [
        (json!({ "IpAddress": { "acs:SourceIp": ["127.0.0.0/8", "::1"] } }), false, "statement 1"),
        (json!({ "NotIpAddress": { "acs:SourceIp": ["127.0.0.0/8", "::1"] } }), true, ""),
        (json!({ "DateLessThan": { "acs:CurrentTime": "2001-01-01T00:00:00Z" } }), true, ""),
        (json!({ "DateGreaterThan": { "acs:CurrentTime": "2001-01-01T00:00:00Z" } }), false, "statement 1"),
        (json!({ "StringLike": { "kms:KeySpec": "RSA_*" } }), true, ""),
        (json!({ "StringEquals": { "kms:KeySpec": "Aliyun_AES_256" } }), false, "statement 1"),
    ] {
        root.set_policy(key, &under(conditions.clone())).unwrap();
        let answered = user.encrypt(key, b"x", &[]);
        assert_eq!(answered.is_ok(), allowed, "{conditions}");
        let explained = explain(&mut root, &of_user, key, None);
        assert_eq!(explained.0, allowed, "{conditions}");
        assert!(explained.1.contains(told), "{conditions}: {}", explained.1);
    }
    // An allow under a condition names the one that does not hold.
    let mut allow = statement("Allow", &[&named(of_user.access_key_id())], &["kms:Encrypt"]);
    allow["Condition"] = json!({ "StringEquals": { "kms:EncryptionContext:tenant": "a" } });
    let all = statement("Allow", &[&named(&"KMAK00000000".parse().unwrap())], &["kms:*"]);
    let unknown = root.set_policy(key, &policy(&[allow.clone(), all])).unwrap_err();
    assert!(unknown.message.contains("no access key"), "{unknown}");
    root.set_policy(key, &policy(&[allow])).unwrap();
    let (allowed, why) = explain(&mut root, &of_user, key, None);
    assert!(!allowed && why.contains(r#"kms:EncryptionContext:tenant StringEquals "a""#), "{why}");
    assert!(explain(&mut root, &of_user, key, Some("a")).0);
    user.encrypt(key, b"x", &[("tenant", "a")]).unwrap();
    assert_eq!(code(user.encrypt(key, b"x", &[])), NO_KEY);
    let site = live.halt();
    let told = audit_lines(&site).iter().filter(|line| line["rule"] == "key-policy 0 condition").count();
    assert_eq!(told, 1, "the audit names the statement whose condition did not hold");
    verified(&site);
}

fn explain(root: &mut Caller, who: &Credentials, key: CmkId, tenant: Option<&str>) -> (bool, String) {
    let request = ExplainAccessRequest {
        operation: "Encrypt".into(),
        key_id: Some(KeyRef::Id(key)),
        secret_name: None,
        certificate_id: None,
        access_key_id: Some(who.access_key_id().clone()),
        client_key_id: None,
        source: Some("127.0.0.1".into()),
        encryption_context: tenant.map(|name| EncryptionContext::from_pairs([("tenant", name)]).unwrap()),
        policy: None,
        timeout_ms: None,
    };
    root.ask(request, |reply| match reply {
        Reply::ExplainAccess(reply) => (reply.allowed, reply.explanation),
        _ => unreachable!(),
    })
    .unwrap()
}
