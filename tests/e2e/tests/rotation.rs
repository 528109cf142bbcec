//! Secrets that are rotated: to a new version that was set and tested where it is used, whatever fails, whoever crashes between two steps, and
//! whoever asks at the same time.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_client::{Credentials, ServerError};
use keymill_core::access::Grant;
use keymill_core::operation::*;
use keymill_core::secret::Step;
use keymill_e2e::{
    Bank, Caller, Instead, Logs, MARK, audit_lines, create_secret, eventually, find_in_files, metric,
    verified,
};
use keymill_harness::{Fuse, Live, Point, Setup, Started};
use keymill_runtime::{EngineConfig, Rotators};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;
const SINGLE: &str = r#"{"SecretSubType":"SingleUser","DBInstanceId":"bank"}"#;
const DOUBLE: &str = r#"{"SecretSubType":"DoubleUsers","DBInstanceId":"bank"}"#;
const ONE: &str = r#"{"Accounts":[{"AccountName":"app","AccountPassword":"marked-first"}]}"#;
const TWO: &str = r#"{"Accounts":[{"AccountName":"app","AccountPassword":"marked-first"},{"AccountName":"app2","AccountPassword":"marked-other"}]}"#;

fn account(value: &str, name: &str) -> bool {
    serde_json::from_str::<Value>(value).unwrap()["AccountName"] == name
}

fn code<T>(answered: Result<T, ServerError>) -> String {
    answered.map(drop).expect_err("it is refused").code
}

fn rds<'a>(secret: &str, extended: &str, value: &'a str) -> CreateSecretRequest<'a> {
    CreateSecretRequest {
        secret_type: Some(SecretType::Rds),
        extended_config: Some(extended.to_owned()),
        ..create_secret(secret, "v1", value)
    }
}

/// An engine with a bank whose account `app` the secret `db` holds.
fn begin(config: EngineConfig) -> (Live, Caller, Credentials) {
    let Started { live, credentials } = Live::start(config);
    let mut caller = Caller::new(&live, &credentials);
    caller.create_secret_as(rds("db", SINGLE, ONE)).unwrap();
    (live, caller, credentials)
}

fn one() -> Bank {
    Bank::of(&[("app", "marked-first")])
}

#[test]
fn a_secret_is_rotated_and_its_current_value_logs_in() {
    let bank = one();
    let (live, mut caller, credentials) = begin(bank.config());
    let (version, value, stages) = caller.value("db").unwrap();
    assert_eq!((&*version, &stages[..]), ("v1", &["ACSCurrent".to_owned()][..]));
    assert!(bank.takes(&value), "the value is the account's, not the list of accounts: {version}");
    caller.rotate_secret("db", "v2").unwrap();
    let (version, next, _) = caller.value("db").unwrap();
    assert_eq!((&*version, bank.takes(&next), bank.takes(&value)), ("v2", true, false));
    assert_eq!(caller.value_of("db", None, Some("ACSPrevious")).unwrap().1, value);
    // The same again is done, and changes nothing.
    caller.rotate_secret("db", "v2").unwrap();
    caller.rotate_secret("db", "v1").unwrap();
    assert_eq!(caller.value("db").unwrap().1, next);
    eventually("it is finished", || (bank.count(Step::Finish) == 1).then_some(()));
    let told = caller.describe_secret("db").unwrap();
    assert_eq!(
        (told.secret_type, told.automatic_rotation),
        (SecretType::Rds, keymill_core::key::AutomaticRotation::Disabled)
    );
    assert!(told.last_rotation_date.is_some() && told.next_rotation_date.is_none());
    assert_eq!(
        told.extended_config.unwrap(),
        r#"{"SecretSubType":"SingleUser","DBInstanceId":"bank","CustomData":{}}"#
    );
    assert_eq!(code(caller.put_value("db", "v9", "mine", &[])), "UnsupportedOperation");
    let mut site = live.halt();
    verified(&site);
    let live = site.start(Setup::new(bank.config()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.value("db").unwrap().1, next);
    caller.rotate_secret("db", "v3").unwrap();
    assert!(bank.takes(&caller.value("db").unwrap().1));
    site = live.halt();
    verified(&site);
}

#[test]
fn two_accounts_take_turns_and_the_one_before_stays_valid() {
    let bank = Bank::of(&[("app", "marked-first"), ("app2", "marked-other")]);
    let Started { live, credentials } = Live::start(bank.config());
    let mut caller = Caller::new(&live, &credentials);
    caller.create_secret_as(rds("pair", DOUBLE, TWO)).unwrap();
    let mut before = caller.value("pair").unwrap().1;
    assert!(
        account(&before, "app")
            && account(&caller.value_of("pair", None, Some("ACSPrevious")).unwrap().1, "app2")
    );
    for (round, name) in ["app2", "app", "app2"].into_iter().enumerate() {
        caller.rotate_secret("pair", &format!("r{round}")).unwrap();
        let now = caller.value("pair").unwrap().1;
        assert!(account(&now, name) && bank.takes(&now) && bank.takes(&before), "{round}");
        before = now;
    }
}

/// Each step fails, panics, or is done and its answer lost: the current value is as it was, and the same rotation ends well once it may.
#[test]
fn whichever_step_fails_the_current_value_stays_and_the_rotation_goes_on() {
    for step in ["set", "test", "finish"] {
        for instead in [Instead::Fails, Instead::IsLost, Instead::Panics] {
            let bank = one();
            let (live, mut caller, _) = begin(bank.config());
            let before = caller.value("db").unwrap();
            bank.instead(step, Some(instead));
            let answered = caller.rotate_secret("db", "v2");
            if step == "finish" {
                answered.unwrap();
            } else {
                let error = answered.unwrap_err();
                assert_eq!(
                    (&*error.code, caller.value("db").unwrap()),
                    ("ServiceUnavailableTemporary", before),
                    "{step}"
                );
                assert!(error.message.contains("v2") && error.message.contains(step), "{}", error.message);
                let pending = caller.value_of("db", None, Some("ACSPending")).unwrap();
                assert_eq!(pending.0, "v2");
                assert_eq!(metric(&live, "keymill_secrets_failing_rotation"), 1.0);
            }
            let name =
                |name: &str| format!("keymill_secret_rotations_total{{kind=\"bank\",outcome=\"{name}\"}}");
            eventually("it is tried again", || (metric(&live, &name("failed")) >= 3.0).then_some(()));
            bank.instead(step, None);
            eventually("it ends", || {
                (metric(&live, "keymill_secrets_failing_rotation") == 0.0).then_some(())
            });
            eventually("it is current", || (caller.value("db").unwrap().0 == "v2").then_some(()));
            assert!(bank.takes(&caller.value("db").unwrap().1));
            assert_eq!((bank.versions(), metric(&live, &name("rotated"))), (vec!["v2".to_owned()], 1.0));
            let site = live.halt();
            let failed = audit_lines(&site).into_iter().find(|line| {
                line["operation"] == "RotateSecret"
                    && line["frontend"] == "rotation"
                    && line["outcome"] != "ok"
            });
            let failed = failed.unwrap();
            assert_eq!(failed["secrets"][0]["version"], "v2");
            assert!(
                failed["principal"].is_string() && failed["rule"].as_str().unwrap().contains(step),
                "{failed}"
            );
            verified(&site);
        }
    }
}

/// The process dies before or after each commit of a rotation: the next one goes on from what was kept, with the same version.
#[test]
fn whoever_dies_between_two_steps_is_followed_by_one_who_goes_on() {
    for step in [Step::Set, Step::Test, Step::Finish] {
        for point in [Point::BeforeCommit("secret/"), Point::AfterCommit("secret/")] {
            let (bank, fuse) = (one(), Fuse::new());
            let around = fuse.clone();
            let setup = Setup::new(bank.config()).with_store(move |inner| around.store(inner));
            let Started { live, credentials } = Live::start_with(setup);
            let mut caller = Caller::new(&live, &credentials);
            caller.create_secret_as(rds("db", SINGLE, ONE)).unwrap();
            bank.hold(step);
            std::thread::scope(|scope| {
                let (live, credentials) = (&live, &credentials);
                let asked = scope.spawn(move || {
                    let mut caller = Caller::new(live, credentials);
                    caller.rotate_secret_within("db", "v2", 2_000).map_err(|error| error.code)
                });
                bank.await_held();
                fuse.arm(point);
                bank.let_go();
                eventually("it dies", || fuse.is_blown().then_some(()));
                let _whatever = asked.join().unwrap();
            });
            let live = live.halt().start(Setup::new(bank.config()));
            let mut caller = Caller::new(&live, &credentials);
            // Whatever was kept, what is current now logs in, or is about to.
            eventually("it is current", || (caller.value("db").unwrap().0 == "v2").then_some(()));
            assert!(bank.takes(&caller.value("db").unwrap().1), "{step:?} {point:?}");
            assert_eq!(bank.versions(), ["v2"], "{step:?} {point:?}");
            eventually("it is finished", || (bank.count(Step::Finish) > 0).then_some(()));
            let rows = caller.secret_versions("db").unwrap();
            let stages: Vec<_> = rows.into_iter().map(|(id, stages)| (id, stages.join(","))).collect();
            assert_eq!(stages, [("v2".into(), "ACSCurrent".into()), ("v1".into(), "ACSPrevious".to_owned())]);
            caller.rotate_secret("db", "v3").unwrap();
            verified(&live.halt());
        }
    }
}

#[test]
fn of_two_who_rotate_at_once_both_get_one_rotation_or_one_is_told_of_the_other() {
    let bank = one();
    let (live, mut caller, credentials) = begin(bank.config());
    bank.hold(Step::Set);
    std::thread::scope(|scope| {
        let rotate = |version: &'static str| {
            let (live, credentials) = (&live, &credentials);
            scope.spawn(move || {
                Caller::new(live, credentials)
                    .rotate_secret_within("db", version, 20_000)
                    .map_err(|error| error.code)
            })
        };
        let first = rotate("v2");
        bank.await_held();
        let again = rotate("v2");
        let other = caller.rotate_secret("db", "other").unwrap_err();
        assert_eq!(other.code, "Rejected.StateModifiedFailed");
        assert!(other.message.contains("v2"), "{}", other.message);
        let late = caller.rotate_secret_within("db", "v2", 300).unwrap_err();
        assert!(late.message.contains("goes on"), "{}", late.message);
        bank.let_go();
        assert_eq!((first.join().unwrap(), again.join().unwrap()), (Ok(()), Ok(())));
    });
    assert_eq!((bank.count(Step::Set), bank.versions()), (1, vec!["v2".to_owned()]));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    // Eight at once, each by its own version: one after the other at most, and what is current logs in.
    let ended: Vec<_> = std::thread::scope(|scope| {
        let rotations: Vec<_> = (0..8)
            .map(|n| {
                let (live, credentials) = (&live, &credentials);
                scope.spawn(move || {
                    Caller::new(live, credentials).rotate_secret("db", &format!("r{n}")).is_ok()
                })
            })
            .collect();
        rotations.into_iter().map(|rotation| rotation.join().unwrap()).collect()
    });
    let done = ended.iter().filter(|done| **done).count();
    assert!(done >= 1 && bank.versions().len() == done + 1, "{ended:?} {:?}", bank.versions());
    assert!(bank.takes(&caller.value("db").unwrap().1));
}

#[test]
fn a_disabled_key_makes_a_rotation_wait_and_loses_nothing() {
    let bank = one();
    let Started { live, credentials } = Live::start(bank.config());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let encryption_key_id = Some(keymill_core::id::KeyRef::Id(key));
    caller.create_secret_as(CreateSecretRequest { encryption_key_id, ..rds("db", SINGLE, ONE) }).unwrap();
    caller.disable(key).unwrap();
    assert_eq!(code(caller.rotate_secret("db", "v2")), "Rejected.Disabled");
    caller.enable(key).unwrap();
    // In the midst of it: the value is set, and cannot be opened to be tested.
    bank.hold(Step::Set);
    std::thread::scope(|scope| {
        let (live, credentials) = (&live, &credentials);
        let asked = scope.spawn(move || {
            Caller::new(live, credentials).rotate_secret("db", "v2").map_err(|error| error.message)
        });
        bank.await_held();
        caller.disable(key).unwrap();
        bank.let_go();
        let told = asked.join().unwrap().unwrap_err();
        assert!(told.contains("is not usable") && told.contains("test"), "{told}");
    });
    caller.enable(key).unwrap();
    eventually("it is current", || (caller.value("db").unwrap().0 == "v2").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
}

#[test]
fn by_itself_a_secret_is_rotated_in_its_time_and_rests_while_the_clock_does() {
    let bank = one();
    let mut config = bank.config();
    config.clock_jump_rest = Duration::from_secs(3_600);
    // Each look for deletions, which are as often as those for rotations, keeps when it was.
    let fuse = Fuse::new();
    let around = fuse.clone();
    let setup = Setup::new(config.clone()).with_store(move |inner| around.store(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    let automatic = CreateSecretRequest {
        enable_automatic_rotation: Some(true),
        rotation_interval: Some("6h".parse().unwrap()),
        ..rds("db", SINGLE, ONE)
    };
    caller.create_secret_as(automatic).unwrap();
    let told = caller.describe_secret("db").unwrap();
    assert_eq!(told.rotation_interval.unwrap().to_string(), "21600s");
    let until = told.next_rotation_date.unwrap().since(live.clock.now()).as_secs();
    assert!((19_400..=21_600).contains(&until), "{until}");
    let value =
        caller.ask_json("GetSecretValue", json!({"SecretName": "db", "FetchExtendedConfig": true})).unwrap();
    assert_eq!((&value["AutomaticRotation"], &value["SecretType"]), (&json!("Enabled"), &json!("Rds")));
    assert!(
        value["ExtendedConfig"].as_str().unwrap().contains("SingleUser")
            && value["NextRotationDate"].is_string()
    );
    // The clock jumps a day ahead: what would be due rests.
    live.clock.jump_to_offset_ms(DAY_MS);
    let looked = fuse.commits();
    eventually("ten looks at the clock", || (fuse.commits() >= looked + 10).then_some(()));
    assert!(bank.versions().is_empty());
    caller.rotate_secret("db", "by-hand").unwrap();
    assert_eq!(bank.versions(), ["by-hand"], "who asks is served");
    // A second start finds the clock where it was, and the rest over: the timer rotates.
    let live = live.halt().start(Setup::new(config.clone()).at_offset_ms(DAY_MS + 7 * 3_600_000));
    let mut caller = Caller::new(&live, &credentials);
    eventually("it is rotated", || (caller.value("db").unwrap().0 != "by-hand").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    caller
        .ask_json("UpdateSecretRotationPolicy", json!({"SecretName": "db", "EnableAutomaticRotation": false}))
        .unwrap();
    let told = caller.describe_secret("db").unwrap();
    assert_eq!((told.next_rotation_date, told.rotation_interval), (None, None));
    let missing = json!({"SecretName": "db", "EnableAutomaticRotation": true});
    assert_eq!(code(caller.ask_json("UpdateSecretRotationPolicy", missing)), "MissingParameter");
    let site = live.halt();
    let by_timer = audit_lines(&site).into_iter().any(|line| {
        line["operation"] == "RotateSecret" && line["frontend"] == "timer" && line["principal"].is_null()
    });
    assert!(by_timer);
    // Without its rotator it says so, and nothing is lost.
    let live = site.start(Setup::new(EngineConfig::default()).at_offset_ms(DAY_MS + 7 * 3_600_000));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(code(caller.rotate_secret("db", "v9")), "InvalidParameter");
    assert!(bank.takes(&caller.value("db").unwrap().1));
}

#[test]
fn a_secret_that_is_deleted_under_its_rotation_rests_and_one_that_is_gone_is_left() {
    let bank = one();
    let (live, mut caller, credentials) = begin(bank.config());
    let rotate = |version: &'static str, then: &mut dyn FnMut()| {
        bank.hold(Step::Set);
        std::thread::scope(|scope| {
            let (live, credentials) = (&live, &credentials);
            let asked = scope.spawn(move || {
                Caller::new(live, credentials).rotate_secret_within("db", version, 1_000).is_ok()
            });
            bank.await_held();
            then();
            bank.let_go();
            assert!(!asked.join().unwrap());
        });
    };
    rotate("v2", &mut || caller.delete_secret("db", Some(7)).unwrap());
    assert_eq!(code(caller.rotate_secret("db", "v2")), "Rejected.ResourceInDeleteWindow");
    caller.restore_secret("db").unwrap();
    eventually("it goes on", || (caller.value("db").unwrap().0 == "v2").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    eventually("it is finished", || (bank.count(Step::Finish) > 0).then_some(()));
    rotate("v3", &mut || caller.delete_secret("db", None).unwrap());
    assert_eq!(code(caller.rotate_secret("db", "v3")), "Forbidden.ResourceNotFound");
    // The name is free, and its next secret is rotated like any.
    let current = serde_json::to_string(
        &json!({"Accounts": [{"AccountName": "app", "AccountPassword": bank.password("app")}]}),
    )
    .unwrap();
    caller.create_secret_as(rds("db", SINGLE, &current)).unwrap();
    caller.rotate_secret("db", "v2").unwrap();
    assert!(bank.takes(&caller.value("db").unwrap().1));
    verified(&live.halt());
}

#[test]
fn what_is_put_or_staged_by_hand_is_current_until_the_rotation_is_done_and_one_can_be_given_up() {
    let bank = one();
    let (_live, mut caller, _) = begin(bank.config());
    caller.rotate_secret("db", "v2").unwrap();
    bank.instead("test", Some(Instead::Fails));
    caller.rotate_secret("db", "v3").unwrap_err();
    assert_eq!(code(caller.move_stage("db", "ACSCurrent", Some("v3"), None)), "Rejected.StateModifiedFailed");
    assert_eq!(code(caller.move_stage("db", "ACSPending", Some("v1"), Some("v3"))), "InvalidParameter");
    caller.move_stage("db", "ACSCurrent", Some("v1"), None).unwrap();
    assert_eq!(caller.value("db").unwrap().0, "v1");
    bank.instead("test", None);
    eventually("the rotation ends", || (caller.value("db").unwrap().0 == "v3").then_some(()));
    assert_eq!(caller.value_of("db", None, Some("ACSPrevious")).unwrap().0, "v1");
    bank.instead("set", Some(Instead::Fails));
    caller.rotate_secret("db", "v4").unwrap_err();
    // Between two steps, that is.
    eventually("it is given up", || caller.move_stage("db", "ACSPending", None, Some("v4")).ok());
    bank.instead("set", None);
    // It was given up, and is not what it was rotated to.
    assert_eq!(code(caller.rotate_secret("db", "v4")), "Rejected.StateModifiedFailed");
    caller.rotate_secret("db", "v5").unwrap();
    assert!(
        bank.takes(&caller.value("db").unwrap().1)
            && !bank.takes(&caller.value_of("db", Some("v4"), None).unwrap().1)
    );
}

/// What a step sets after its rotation was given up would be valid where it is used, and no version that is current.
#[test]
fn nobody_gives_a_rotation_up_while_it_is_at_a_step() {
    let bank = one();
    let (live, mut caller, _) = begin(bank.config());
    bank.hold(Step::Set);
    assert_eq!(code(caller.rotate_secret_within("db", "v2", 100)), "RequestTimeout");
    bank.await_held();
    let refusal = caller.move_stage("db", "ACSPending", None, Some("v2")).unwrap_err();
    assert_eq!(refusal.code, "Rejected.ConcurrentModification");
    assert!(refusal.message.contains("at its step set"), "{}", refusal.message);
    bank.let_go();
    eventually("the rotation ends", || (caller.value("db").unwrap().0 == "v2").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    verified(&live.halt());
}

/// What was set is lost where somebody sets another meanwhile, or a database is put back: the test says so, and it is set anew.
#[test]
fn a_value_that_is_lost_after_it_was_set_is_set_anew() {
    let bank = one().by("admin");
    let Started { live, credentials } = Live::start(bank.config());
    let mut caller = Caller::new(&live, &credentials);
    caller.create_secret("admin", "v1", "marked-admin-password").unwrap();
    caller.create_secret_as(rds("db", SINGLE, ONE)).unwrap();
    bank.instead("test", Some(Instead::Fails));
    caller.rotate_secret("db", "v2").unwrap_err();
    bank.change("app", "somebody else's");
    bank.instead("test", None);
    eventually("the rotation ends", || (caller.value("db").unwrap().0 == "v2").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    assert!(bank.count(Step::Set) >= 2);
    verified(&live.halt());
}

#[test]
fn while_two_accounts_take_turns_nobody_moves_what_they_go_by() {
    let bank = Bank::of(&[("a", "first-a"), ("b", "first-b")]);
    let Started { live, credentials } = Live::start(bank.config());
    let mut caller = Caller::new(&live, &credentials);
    let two = r#"{"Accounts":[{"AccountName":"a","AccountPassword":"first-a"},{"AccountName":"b","AccountPassword":"first-b"}]}"#;
    let settings = r#"{"SecretSubType":"DoubleUsers","DBInstanceId":"bank"}"#;
    caller.create_secret_as(rds("db", settings, two)).unwrap();
    let previous = caller.value_of("db", None, Some("ACSPrevious")).unwrap().0;
    bank.instead("set", Some(Instead::IsLost));
    caller.rotate_secret("db", "v2").unwrap_err();
    let moved = caller.move_stage("db", "ACSCurrent", Some(&previous), None);
    assert_eq!(code(moved), "Rejected.StateModifiedFailed");
    bank.instead("set", None);
    eventually("the rotation ends", || (caller.value("db").unwrap().0 == "v2").then_some(()));
    assert!(bank.takes(&caller.value("db").unwrap().1));
    caller.move_stage("db", "ACSCurrent", Some("v1"), None).unwrap();
    assert!(bank.takes(&caller.value("db").unwrap().1), "the account before is valid still");
    verified(&live.halt());
}

/// A database that takes connections and says nothing holds up its own secrets, and those of no other rotator.
#[test]
fn a_rotator_that_hangs_leaves_threads_to_the_others() {
    let accounts = ["a0", "a1", "a2", "a3", "a4", "a5"];
    let bank = Bank::of(&accounts.map(|name| (name, "first")));
    let mut config = bank.config();
    let passwords = keymill_rotate_password::open(Default::default()).unwrap();
    config.rotators.add("passwords".parse().unwrap(), std::sync::Arc::new(passwords));
    let Started { live, credentials } = Live::start(config);
    let mut caller = Caller::new(&live, &credentials);
    for name in accounts {
        let value = format!(r#"{{"Accounts":[{{"AccountName":"{name}","AccountPassword":"first"}}]}}"#);
        caller.create_secret_as(rds(name, SINGLE, &value)).unwrap();
    }
    let extended_config = Some(r#"{"Rotator":"passwords"}"#.to_owned());
    caller
        .create_secret_as(CreateSecretRequest { extended_config, ..create_secret("cookie", "v1", "first") })
        .unwrap();
    bank.hold(Step::Set);
    for name in accounts {
        assert_eq!(code(caller.rotate_secret_within(name, "v2", 100)), "RequestTimeout");
    }
    bank.await_held();
    caller.rotate_secret("cookie", "v2").unwrap();
    assert_eq!(caller.value("cookie").unwrap().0, "v2");
    assert_eq!(bank.count(Step::Test), 0, "the others still hang");
    bank.let_go();
    for name in accounts {
        eventually("the rotation ends", || (caller.value(name).unwrap().0 == "v2").then_some(()));
        assert!(bank.takes(&caller.value(name).unwrap().1));
    }
    verified(&live.halt());
}

#[test]
fn callers_rotate_a_secret_fifty_times_an_hour() {
    let bank = one();
    let (_live, mut caller, _) = begin(bank.config());
    for n in 0..50 {
        caller.rotate_secret("db", &format!("r{n}")).unwrap();
    }
    assert_eq!(code(caller.rotate_secret("db", "r50")), "Throttling.User");
    assert!(bank.takes(&caller.value("db").unwrap().1));
}

/// D7: a rotator is configured, and works by a secret that only who may read it can make it use; nobody is handed that value.
#[test]
fn d7_no_caller_reaches_by_a_rotator_what_it_could_not_by_itself() {
    let logs = Logs::keep();
    let bank = one().by("admin");
    let Started { live, credentials } = Live::start(bank.config());
    let mut root = Caller::new(&live, &credentials);
    root.create_secret("admin", "v1", "marked-admin-password").unwrap();
    let grants: Vec<Grant> =
        serde_json::from_value(json!([{ "Role": "SecretAdministrator", "Resources": ["*"] }])).unwrap();
    let mut administrator = Caller::new(&live, &root.credentials(grants));
    assert_eq!(code(administrator.create_secret_as(rds("db", SINGLE, ONE))), "Forbidden.NoPermission");
    root.create_secret_as(rds("db", SINGLE, ONE)).unwrap();
    let custom = json!({"SecretName": "db", "ExtendedConfig": {"CustomData": {"Host": "elsewhere"}}});
    assert_eq!(code(administrator.ask_json("UpdateSecret", custom.clone())), "Forbidden.NoPermission");
    root.ask_json("UpdateSecret", custom).unwrap();
    assert!(root.describe_secret("db").unwrap().extended_config.unwrap().contains("elsewhere"));
    // Who may rotate may: it learns nothing by it.
    administrator.rotate_secret("db", "v2").unwrap();
    assert_eq!(bank.admins()[0], "marked-admin-password");
    let user: Vec<Grant> = serde_json::from_value(
        json!([{ "Role": "RbacPermission/Template/CryptoServiceSecretUser", "Resources": ["secret/db"] }]),
    )
    .unwrap();
    let mut user = Caller::new(&live, &root.credentials(user));
    assert_eq!(code(user.rotate_secret("db", "v3")), "Forbidden.ResourceNotFound");
    let policy = json!({"SecretName": "db", "EnableAutomaticRotation": true, "RotationInterval": "6h"});
    assert_eq!(code(user.ask_json("UpdateSecretRotationPolicy", policy)), "Forbidden.ResourceNotFound");
    assert!(!user.value("db").unwrap().1.contains("admin"));
    for (extended, told) in [
        (r#"{"SecretSubType":"SingleUser","DBInstanceId":"elsewhere"}"#, "InvalidParameter"),
        (r#"{"SecretSubType":"SingleUser","DBInstanceId":"http://127.0.0.1:1/"}"#, "InvalidParameter"),
        (r#"{"SecretSubType":"SingleUser","DBInstanceId":"bank","Host":"127.0.0.1"}"#, "InvalidParameter"),
    ] {
        assert_eq!(code(root.create_secret_as(rds("other", extended, ONE))), told, "{extended}");
    }
    // Nor by a value that it puts: the rotation would go on from that, by the admin.
    let extended_config = Some(r#"{"Rotator":"bank"}"#.to_owned());
    root.create_secret_as(CreateSecretRequest { extended_config, ..create_secret("put", "v1", ONE) })
        .unwrap();
    let other = r#"{"AccountName":"payments","AccountPassword":"x"}"#;
    assert_eq!(code(administrator.put_value("put", "v2", other, &[])), "Forbidden.NoPermission");
    root.put_value("put", "v2", other, &[]).unwrap();
    let own = rds("admin", SINGLE, ONE);
    root.delete_secret("admin", None).unwrap();
    assert_eq!(
        code(root.create_secret_as(own)),
        "InvalidParameter",
        "a rotator does not rotate what it works by"
    );
    // Without it the rotation waits, and says so to the log alone.
    assert_eq!(code(administrator.rotate_secret("db", "v3")), "ServiceUnavailableTemporary");
    assert!(!logs.lines_with("which the rotator works by, is not there").is_empty());
    let text = live.gate().expose_metrics();
    let site = live.halt();
    for hidden in ["marked-admin-password", "marked-first", MARK] {
        assert!(!logs.text().contains(hidden) && !text.contains(hidden), "{hidden}");
        assert!(find_in_files(site.path(), hidden.as_bytes()).is_empty(), "{hidden}");
    }
    let reads: Vec<_> = audit_lines(&site)
        .into_iter()
        .filter(|line| line["operation"] == "GetSecretValue" && line["secrets"][0]["name"] == "admin")
        .collect();
    assert!(
        !reads.is_empty() && reads.iter().all(|line| line["principal"] == "keymill.rotation"),
        "{reads:?}"
    );
    verified(&site);
}

/// A generic secret names a rotator beyond the cloud, and is put as well; one that names none is as it ever was.
#[test]
fn a_generic_secret_with_a_rotator_is_rotated_and_put() {
    let mut config = EngineConfig::default();
    let mut rotators = Rotators::default();
    let passwords = keymill_rotate_password::open(Default::default()).unwrap();
    rotators.add("passwords".parse().unwrap(), std::sync::Arc::new(passwords));
    config.rotators = rotators;
    let Started { live, credentials } = Live::start(config);
    let mut caller = Caller::new(&live, &credentials);
    let extended_config =
        Some(r#"{"Rotator":"passwords","CustomData":{"PasswordLength":"40"},"Else":[1]}"#.to_owned());
    caller
        .create_secret_as(CreateSecretRequest { extended_config, ..create_secret("cookie", "v1", "first") })
        .unwrap();
    caller.rotate_secret("cookie", "v2").unwrap();
    assert_eq!(caller.value("cookie").unwrap().1.len(), 40);
    caller.put_value("cookie", "v3", "by hand", &[]).unwrap();
    caller.rotate_secret("cookie", "v4").unwrap();
    assert_eq!(caller.value_of("cookie", None, Some("ACSPrevious")).unwrap().1, "by hand");
    caller.create_secret("plain", "v1", "value").unwrap();
    assert_eq!(code(caller.rotate_secret("plain", "v2")), "UnsupportedOperation");
    let policy = json!({"SecretName": "plain", "EnableAutomaticRotation": true, "RotationInterval": "6h"});
    assert_eq!(code(caller.ask_json("UpdateSecretRotationPolicy", policy)), "UnsupportedOperation");
    let automatic = CreateSecretRequest {
        enable_automatic_rotation: Some(true),
        rotation_interval: Some("6h".parse().unwrap()),
        ..create_secret("other", "v1", "value")
    };
    assert_eq!(code(caller.create_secret_as(automatic)), "UnsupportedOperation");
    let ignored = CreateSecretRequest {
        extended_config: Some("no JSON".into()),
        ..create_secret("ignored", "v1", "x")
    };
    caller.create_secret_as(ignored).unwrap();
    let listed = json!([{ "Key": "SecretType", "Values": ["Rds"] }]);
    let rows = caller.ask_json("ListSecrets", json!({ "Filters": listed })).unwrap();
    assert_eq!(rows["TotalCount"], 0);
}
