//! The steps of a rotation: set, tested, finished, whichever of them fails, hangs or is cut off by a crash.

use keymill_core::operation::*;
use keymill_core::secret::Step;
use keymill_e2e::{Bank, Caller, Instead, audit_lines, create_secret, eventually, metric, verified};
use keymill_harness::{Fuse, Live, Point, Setup, Started};

use crate::scene::{DOUBLE, ONE, SINGLE, TWO, account, begin, code, one, rds};

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
