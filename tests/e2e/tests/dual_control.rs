//! Dual control: what an installation lists waits for a second caller, who has the right to it as well; nobody is two callers, nothing else is
//! carried out than what was approved, and both callers stand in the audit.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::Credentials;
use keymill_core::access::{Grant, ResourcePattern};
use keymill_core::id::CmkId;
use keymill_core::operation::Operation;
use keymill_e2e::{Answered, Caller, Owner, audit_lines, metric, verified};
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;
use serde_json::{Value, json};

const NEEDED: &str = "Rejected.ApprovalNeeded";
const DENIED: &str = "Forbidden.NoPermission";
const NO_KEY: &str = "Forbidden.KeyNotFound";
const NOT_FOUND: &str = "Forbidden.ResourceNotFound";
const HOUR_MS: i64 = 3_600_000;

fn with(dual_control: &[Operation]) -> EngineConfig {
    EngineConfig { dual_control: dual_control.to_vec(), ..EngineConfig::default() }
}

struct Scene {
    live: Live,
    root: Caller,
    of_root: Credentials,
    /// Administers keys, too.
    second: Caller,
    of_second: Credentials,
}

fn granted(role: &str) -> Vec<Grant> {
    serde_json::from_value(json!([{ "Role": role }])).expect("grants")
}

fn scene(dual_control: &[Operation]) -> Scene {
    let Started { live, credentials: of_root } = Live::start(with(dual_control));
    let mut root = Caller::new(&live, &of_root);
    let of_second = root.credentials(granted("KeyAdministrator"));
    let second = Caller::new(&live, &of_second);
    Scene { live, root, of_root, second, of_second }
}

fn code<T>(answered: Answered<T>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

fn delete(caller: &mut Caller, key: CmkId, days: u32) -> Answered<Value> {
    caller.ask_json("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": days }))
}

/// Returns the id of what waits now, as whoever asked is told it.
fn waiting<T>(answered: Answered<T>) -> String {
    let error = answered.map(drop).expect_err("it waits");
    assert_eq!(error.code, NEEDED);
    let id = error.message.split(' ').find(|word| word.starts_with("APR.")).expect("the id is told");
    id.to_owned()
}

fn approve(caller: &mut Caller, id: &str) -> Answered<Value> {
    caller.ask_json("ApproveRequest", json!({ "ApprovalId": id }))
}

fn reject(caller: &mut Caller, id: &str) -> Answered<Value> {
    caller.ask_json("RejectRequest", json!({ "ApprovalId": id }))
}

fn listed(caller: &mut Caller) -> Vec<Value> {
    let reply = caller.ask_json("ListApprovals", json!({})).unwrap();
    reply["Approvals"].as_array().unwrap().clone()
}

fn is_enabled(caller: &mut Caller, key: CmkId) -> bool {
    caller.ask_json("DescribeKey", json!({ "KeyId": key })).unwrap()["KeyMetadata"]["KeyState"] == "Enabled"
}

#[test]
fn a_deletion_waits_for_a_second_caller_and_is_approved_once() {
    let Scene { live, mut root, mut second, .. } = scene(&[Operation::ScheduleKeyDeletion]);
    let key = root.create_key();
    let id = waiting(delete(&mut root, key, 7));
    assert!(is_enabled(&mut root, key));
    // The same request is the same wait, by whatever time-out.
    assert_eq!(waiting(delete(&mut root, key, 7)), id);
    let same = json!({ "KeyId": key, "PendingWindowInDays": 7, "TimeoutMs": 9_000 });
    assert_eq!(waiting(root.ask_json("ScheduleKeyDeletion", same)), id);
    let rows = listed(&mut second);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["ApprovalId"], &rows[0]["Operation"]), (&json!(id), &json!("ScheduleKeyDeletion")));
    let parameters: Value = serde_json::from_str(rows[0]["Parameters"].as_str().unwrap()).unwrap();
    assert_eq!(parameters, json!({ "KeyId": key, "PendingWindowInDays": 7 }));
    assert!(rows[0].get("ApprovedBy").is_none());
    assert_eq!(metric(&live, "keymill_approvals_waiting"), 1.0);
    // Nobody approves its own.
    assert_eq!(code(approve(&mut root, &id)), DENIED);
    assert_eq!(waiting(delete(&mut root, key, 7)), id);
    approve(&mut second, &id).unwrap();
    assert_eq!(metric(&live, "keymill_approvals_waiting"), 0.0);
    assert_eq!(code(approve(&mut second, &id)), "Rejected.StateModifiedFailed");
    // What is approved is that request of that caller's, and no other.
    let other = root.create_key();
    for (key, days) in [(key, 8), (other, 7)] {
        assert_ne!(waiting(delete(&mut root, key, days)), id);
    }
    assert_ne!(waiting(delete(&mut second, key, 7)), id);
    assert!(is_enabled(&mut root, key));
    delete(&mut root, key, 7).unwrap();
    assert!(!is_enabled(&mut root, key));
    // Once.
    root.ask_json("CancelKeyDeletion", json!({ "KeyId": key })).unwrap();
    assert_eq!(waiting(delete(&mut root, key, 7)), id);
    assert_eq!(code(delete(&mut root, key, 6)), "InvalidParameter", "what is wrong does not wait");

    let site = live.halt();
    let lines = audit_lines(&site);
    let of = |operation: &str| lines.iter().filter(|line| line["operation"] == operation).collect::<Vec<_>>();
    let done: Vec<_> = of("ScheduleKeyDeletion").into_iter().filter(|line| line["outcome"] == "ok").collect();
    assert_eq!(done.len(), 1);
    let by = of("ApproveRequest").into_iter().find(|line| line["outcome"] == "ok").unwrap();
    assert_eq!(done[0]["approved_by"], by["principal"], "both stand in the audit");
    assert_ne!(done[0]["approved_by"], done[0]["principal"]);
    let waited = of("ScheduleKeyDeletion").into_iter().filter(|line| line["outcome"] == "ApprovalNeeded");
    assert!(waited.count() >= 3, "that it was asked for stands there, too");
    // What was asked, approved and done is one by what was written.
    let path = format!("approval/{id}");
    for line in [by, done[0]] {
        assert!(line["writes"].to_string().contains(&path), "{line}");
    }
    verified(&site);
}

#[test]
fn the_second_caller_has_the_right_to_what_it_approves() {
    let Scene { mut root, live, .. } = scene(&[Operation::ScheduleKeyDeletion]);
    let (key, other) = (root.create_key(), root.create_key());
    // Without the right to it, nothing waits: the answer is that of a key that is not there.
    let mut stranger =
        Caller::new(&live, &root.credentials(granted("RbacPermission/Template/CryptoServiceKeyUser")));
    assert_eq!(code(delete(&mut stranger, key, 7)), NO_KEY);
    assert_eq!(listed(&mut root), Vec::<Value>::new());
    let id = waiting(delete(&mut root, key, 7));
    // One that may not approve, one that may and not this, one that may this of another key.
    assert_eq!(code(approve(&mut stranger, &id)), DENIED);
    assert_eq!(code(stranger.ask_json("ListApprovals", json!({}))), DENIED);
    let mut of_secrets = Caller::new(&live, &root.credentials(granted("SecretAdministrator")));
    assert_eq!(code(approve(&mut of_secrets, &id)), DENIED);
    let grants =
        vec![Grant { resources: vec![ResourcePattern::Key(other)], ..granted("KeyAdministrator").remove(0) }];
    let mut of_other = Caller::new(&live, &root.credentials(grants));
    assert_eq!(code(approve(&mut of_other, &id)), DENIED);
    assert_eq!(waiting(delete(&mut root, key, 7)), id);
    // Who has lost the right meanwhile has nothing carried out for an approval.
    let (asker_id, secret) = root.create_access_key(granted("KeyAdministrator")).unwrap();
    let mut asker = Caller::new(&live, &Credentials::new(asker_id.clone(), secret));
    let id = waiting(delete(&mut asker, key, 7));
    approve(&mut root, &id).unwrap();
    root.set_grants(&asker_id, granted("RbacPermission/Template/CryptoServiceKeyUser")).unwrap();
    assert_eq!(code(delete(&mut asker, key, 7)), NO_KEY);
    assert!(is_enabled(&mut root, key));
    verified(&live.halt());
}

#[test]
fn what_waits_outlives_a_restart_ends_by_rejection_and_by_the_clock() {
    let Scene { live, mut root, mut second, of_root, of_second } = scene(&[Operation::ScheduleKeyDeletion]);
    let key = root.create_key();
    let id = waiting(delete(&mut root, key, 7));
    approve(&mut second, &id).unwrap();
    // Rejected by whoever asked, and by another; each may.
    reject(&mut root, &id).unwrap();
    assert_eq!(code(reject(&mut root, &id)), NOT_FOUND);
    assert_eq!(waiting(delete(&mut root, key, 7)), id);
    reject(&mut second, &id).unwrap();
    assert_eq!(code(approve(&mut second, &id)), NOT_FOUND);
    assert_eq!(waiting(delete(&mut root, key, 7)), id);

    let live = live.restart(with(&[Operation::ScheduleKeyDeletion]));
    let (mut root, mut second) = (Caller::new(&live, &of_root), Caller::new(&live, &of_second));
    approve(&mut second, &id).unwrap();
    live.clock.jump_to_offset_ms(24 * HOUR_MS + 60_000);
    assert_eq!(listed(&mut second), Vec::<Value>::new());
    assert_eq!(waiting(delete(&mut root, key, 7)), id, "an approval ends after 24 hours");
    assert!(listed(&mut second)[0].get("ApprovedBy").is_none());
    live.clock.jump_to_offset_ms(49 * HOUR_MS);
    assert_eq!(code(approve(&mut second, &id)), NOT_FOUND, "so does a wait");
    assert!(is_enabled(&mut root, key));
    verified(&live.halt());
}

#[test]
fn an_export_waits_and_may_then_be_done_again_until_its_time_is_over() {
    let listed = [Operation::ExportDataKey, Operation::GenerateAndExportDataKey];
    let Scene { live, mut root, mut second, .. } = scene(&listed);
    let (key, decoy) = (root.create_key(), root.create_key());
    let (_, sealed) = root.data_key(key, &[]).unwrap();
    let to = Owner::shared().recipient();
    let id = waiting(root.export(&sealed, &[], &to));
    // Who administers keys may not use them, and approves no use of one.
    assert_eq!(code(approve(&mut second, &id)), DENIED);
    let mut user = Caller::new(&live, &root.credentials(granted("Root")));
    approve(&mut user, &id).unwrap();
    let exported = root.export(&sealed, &[], &to).unwrap();
    assert_ne!(root.export(&sealed, &[], &to).unwrap(), exported, "the same was given out before");
    let (_, another) = root.data_key(key, &[]).unwrap();
    assert_ne!(waiting(root.export(&another, &[], &to)), id);
    // An alias that is moved has nothing done with another key than was approved.
    root.create_alias("alias/for-export", key).unwrap();
    let id = waiting(root.generate_and_export("alias/for-export", 16, &to));
    approve(&mut user, &id).unwrap();
    root.move_alias("alias/for-export", decoy).unwrap();
    assert_ne!(waiting(root.generate_and_export("alias/for-export", 16, &to)), id);
    root.generate_and_export(key, 16, &to).unwrap();

    let site = live.halt();
    let lines = audit_lines(&site);
    let done = lines.iter().filter(|line| line["operation"] == "ExportDataKey" && line["outcome"] == "ok");
    let done: Vec<_> = done.collect();
    assert!(!done.is_empty() && done.iter().all(|line| line["approved_by"].is_string()));
    verified(&site);
}

#[test]
fn of_two_that_use_an_approval_one_goes_on() {
    let Scene { live, mut root, mut second, of_root, .. } = scene(&[Operation::DisableKey]);
    for _ in 0..10 {
        let key = root.create_key();
        let disable = json!({ "KeyId": key });
        let id = waiting(root.ask_json("DisableKey", disable.clone()));
        approve(&mut second, &id).unwrap();
        let done: usize = std::thread::scope(|scope| {
            let ask = || {
                let mut caller = Caller::new(&live, &of_root);
                let disable = &disable;
                scope.spawn(move || match caller.ask_json("DisableKey", disable.clone()) {
                    Ok(_) => 1,
                    Err(error) => {
                        assert_eq!(error.code, NEEDED);
                        0
                    }
                })
            };
            let asked: Vec<_> = (0..4).map(|_| ask()).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).sum()
        });
        assert_eq!(done, 1);
    }
    verified(&live.halt());
}

#[test]
fn what_one_caller_has_wait_is_bounded_and_others_still_can() {
    let Scene { live, mut root, mut second, .. } = scene(&[Operation::ScheduleKeyDeletion]);
    let keys: Vec<_> = (0..5).map(|_| root.create_key()).collect();
    let mut waits = 0;
    let refused =
        keys.iter().flat_map(|key| (7..=30).map(move |days| (*key, days))).find_map(|(key, days)| {
            let error = delete(&mut root, key, days).unwrap_err();
            waits += usize::from(error.code == NEEDED);
            (error.code != NEEDED).then_some(error.code)
        });
    assert_eq!((waits, refused.as_deref()), (100, Some("Rejected.LimitExceeded.Approvals")));
    waiting(delete(&mut second, keys[0], 7));
    assert_eq!(
        root.ask_json("ListApprovals", json!({ "PageSize": 7, "PageNumber": 2 })).unwrap()["TotalCount"],
        101
    );
    // What ends makes room.
    let first = listed(&mut root)[0]["ApprovalId"].as_str().unwrap().to_owned();
    reject(&mut root, &first).unwrap();
    waiting(delete(&mut root, keys[4], 30));
    verified(&live.halt());
}

#[test]
fn a_policy_by_alias_is_approved_for_the_key_that_it_names_then() {
    let Scene { live, mut root, .. } = scene(&[Operation::CreatePolicy]);
    let (key, decoy) = (root.create_key(), root.create_key());
    let mut second = Caller::new(&live, &root.credentials(granted("Root")));
    root.create_alias("alias/orders", key).unwrap();
    let wanted = || {
        json!({
            "Name": "shop", "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"], "Resources": ["alias/orders"],
        })
    };
    let id = waiting(root.ask_json("CreatePolicy", wanted()));
    assert!(listed(&mut second)[0]["Parameters"].as_str().unwrap().contains(&format!("key/{key}")));
    approve(&mut second, &id).unwrap();
    root.move_alias("alias/orders", decoy).unwrap();
    assert_ne!(waiting(root.ask_json("CreatePolicy", wanted())), id);
    root.move_alias("alias/orders", key).unwrap();
    let made = root.ask_json("CreatePolicy", wanted()).unwrap();
    assert!(made["Resources"].to_string().contains(&format!("key/{key}")), "{made}");
    verified(&live.halt());
}

/// The values of secrets are given out where each of them may be: whoever approves may read all of them.
#[test]
fn an_export_of_secrets_waits_as_a_whole() {
    let Scene { live, mut root, mut second, .. } =
        scene(&[Operation::ExportSecrets, Operation::ResealSecret]);
    root.create_secret("a", "v1", "one").unwrap();
    root.create_secret("b", "v1", "two").unwrap();
    let list = |names: &[&str]| {
        let asked: Vec<Value> = names.iter().map(|name| json!({ "SecretName": name })).collect();
        json!({ "SecretsList": asked })
    };
    assert_eq!(
        code(root.ask_json("ExportSecrets", list(&["a", "none"]))),
        NOT_FOUND,
        "nothing waits of what is not there"
    );
    let id = waiting(root.ask_json("ExportSecrets", list(&["a", "b"])));
    assert_eq!(code(approve(&mut second, &id)), DENIED);
    let some = json!([{ "Role": "Root", "Resources": ["secret/a"] }, { "Role": "SecretAdministrator" }]);
    let mut some = Caller::new(&live, &root.credentials(serde_json::from_value(some).unwrap()));
    assert_eq!(code(approve(&mut some, &id)), DENIED, "it may read one of them");
    let mut other = Caller::new(&live, &root.credentials(granted("Root")));
    approve(&mut other, &id).unwrap();
    let told = root.ask_json("ExportSecrets", list(&["a", "b"])).unwrap();
    assert_eq!(told["SecretValues"].as_array().unwrap().len(), 2);
    assert!(
        listed(&mut other).iter().all(|row| !row.to_string().contains("two")),
        "no value is kept with it"
    );
    assert_ne!(waiting(root.ask_json("ExportSecrets", list(&["b"]))), id);
    waiting(root.ask_json("ResealSecret", json!({ "SecretName": "a" })));
    verified(&live.halt());
}

/// What stands for an alias is told to nobody who may not see the key: with what waits no more than without.
#[test]
fn an_alias_that_waits_says_no_more_than_one_that_does_not() {
    let listed =
        [Operation::CreatePolicy, Operation::ScheduleKeyDeletion, Operation::GenerateAndExportDataKey];
    let Scene { live, mut root, .. } = scene(&listed);
    let key = root.create_key();
    root.create_alias("alias/there", key).unwrap();
    let mut admin = Caller::new(&live, &root.credentials(granted("PolicyAdministrator")));
    let mut stranger = Caller::new(&live, &root.credentials(granted("Auditor")));
    for name in ["alias/there", "alias/none"] {
        let policy = json!({
            "Name": "shop", "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"], "Resources": [name],
        });
        assert_eq!(code(admin.ask_json("CreatePolicy", policy)), "Forbidden.AliasNotFound", "{name}");
        let deletion = json!({ "KeyId": name, "PendingWindowInDays": 7 });
        assert_eq!(
            code(stranger.ask_json("ScheduleKeyDeletion", deletion.clone())),
            "Unsupported.Alias",
            "{name}"
        );
        assert_eq!(code(root.ask_json("ScheduleKeyDeletion", deletion)), "Unsupported.Alias", "{name}");
        let to = Owner::shared().recipient();
        assert_eq!(code(stranger.generate_and_export(name, 16, &to)), "Forbidden.AliasNotFound", "{name}");
    }
    assert_eq!(
        code(stranger.ask_json("CreatePolicy", json!({ "Name": "p", "Permissions": [], "Resources": [] }))),
        DENIED
    );
    verified(&live.halt());
}

/// Whoever was taken away approves nothing any more; and nobody becomes two callers by a client key that needs no second one.
#[test]
fn an_approval_ends_with_whoever_gave_it_and_client_keys_are_registered() {
    let listed = [Operation::ScheduleKeyDeletion, Operation::RegisterClientKey];
    let Scene { live, mut root, mut second, of_second, .. } = scene(&listed);
    let key = root.create_key();
    let id = waiting(delete(&mut root, key, 7));
    approve(&mut second, &id).unwrap();
    root.set_status(of_second.access_key_id(), keymill_core::access::AccessKeyStatus::Inactive).unwrap();
    assert_eq!(waiting(delete(&mut root, key, 7)), id);
    let mut third = Caller::new(&live, &root.credentials(granted("KeyAdministrator")));
    approve(&mut third, &id).unwrap();
    delete(&mut root, key, 7).unwrap();
    let made = json!({ "AapName": "x", "Password": "secret-1234" });
    assert_eq!(code(root.ask_json("CreateClientKey", made)), DENIED);
    verified(&live.halt());
}
