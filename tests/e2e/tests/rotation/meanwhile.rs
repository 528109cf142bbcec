//! What others do while a rotation is under way: rotate as well, disable the key, delete the secret, move stages by hand, give it up.

use keymill_core::operation::*;
use keymill_core::secret::Step;
use keymill_e2e::{Bank, Caller, Instead, eventually, verified};
use keymill_harness::{Live, Started};
use serde_json::json;

use crate::scene::{ONE, SINGLE, begin, code, one, rds};

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
