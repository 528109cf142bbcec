//! How keys are kept: rotated by policy over restarts and clocks that jump, protected against deletion, tagged.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_core::id::CmkId;
use keymill_core::key::{AutomaticRotation, KeyState, RotationInterval};
use keymill_core::operation::*;
use keymill_e2e::{Caller, audit_lines, eventually, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;

const DAY_MS: i64 = 86_400_000;

fn setup() -> Setup {
    let quick = Duration::from_millis(20);
    Setup::new(EngineConfig { usage_flush: quick, deletion_check: quick, ..EngineConfig::default() })
}

fn rotated(caller: &mut Caller, interval: &str) -> CmkId {
    let request = CreateKeyRequest {
        enable_automatic_rotation: Some(true),
        rotation_interval: Some(RotationInterval::parse(interval).unwrap()),
        ..Default::default()
    };
    let take = |reply: Reply<'_>| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    };
    caller.ask(request, take).unwrap()
}

#[test]
fn a_key_is_rotated_when_its_time_comes_and_not_while_it_may_not_be_used() {
    let Started { live, credentials } = Live::start_with(setup());
    let mut caller = Caller::new(&live, &credentials);
    let (weekly, monthly, disabled) =
        (rotated(&mut caller, "7d"), rotated(&mut caller, "30d"), rotated(&mut caller, "7d"));
    caller.disable(disabled).unwrap();
    let blob = caller.encrypt(weekly, b"old", &[]).unwrap();
    let before = caller.describe(weekly).unwrap();
    drop(caller);

    // It stands still for eight days.
    let live = live.halt().start(setup().at_offset_ms(8 * DAY_MS));
    let mut caller = Caller::new(&live, &credentials);
    eventually("it is rotated", || (caller.versions(weekly).unwrap().len() == 2).then_some(()));
    let after = caller.describe(weekly).unwrap();
    assert!(after.last_rotation_date > before.last_rotation_date);
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(after.next_rotation_date, Some(after.last_rotation_date.plus(week)));
    assert_ne!(after.primary_key_version, before.primary_key_version);
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"old");
    assert_eq!(caller.versions(monthly).unwrap().len(), 1);
    let suspended = caller.describe(disabled).unwrap();
    assert_eq!(
        (suspended.key_state, suspended.automatic_rotation),
        (KeyState::Disabled, AutomaticRotation::Suspended)
    );
    assert_eq!(caller.versions(disabled).unwrap().len(), 1);
    // What was missed is made up for.
    caller.enable(disabled).unwrap();
    eventually("it is rotated, too", || (caller.versions(disabled).unwrap().len() == 2).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        (caller.versions(weekly).unwrap().len(), caller.versions(disabled).unwrap().len()),
        (2, 2),
        "once"
    );
    drop(caller);
    let site = live.halt();
    let by_policy =
        |line: &serde_json::Value| line["operation"] == "RotateKey" && line["rule"] == "rotation policy";
    assert_eq!(audit_lines(&site).iter().filter(|line| by_policy(line)).count(), 2);
    verified(&site);
}

#[test]
fn many_that_are_due_at_once_are_ended_and_rotated_in_one_go_that_others_come_between() {
    const MANY: usize = 400;
    let Started { live, credentials } = Live::start_with(setup());
    let mut caller = Caller::new(&live, &credentials);
    let doomed: Vec<CmkId> = (0..MANY).map(|_| caller.create_key()).collect();
    doomed.iter().for_each(|key| caller.schedule_deletion(*key).unwrap());
    let weekly: Vec<CmkId> = (0..MANY / 4).map(|_| rotated(&mut caller, "7d")).collect();
    drop(caller);
    // It is looked once, and not again within the test.
    let once = Duration::from_secs(3_600);
    let config =
        EngineConfig { usage_flush: Duration::from_secs(2), deletion_check: once, ..EngineConfig::default() };
    let live = live.halt().start(Setup::new(config).at_offset_ms(8 * DAY_MS));
    let mut caller = Caller::new(&live, &credentials);
    eventually("all are deleted", || doomed.iter().all(|key| caller.describe(*key).is_err()).then_some(()));
    eventually("all are rotated", || {
        weekly.iter().all(|key| caller.versions(*key).unwrap().len() == 2).then_some(())
    });
}

#[test]
fn a_clock_that_jumps_rotates_nothing_at_once() {
    let Started { live, credentials } = Live::start_with(setup());
    let mut caller = Caller::new(&live, &credentials);
    let key = rotated(&mut caller, "7d");
    live.clock.jump_to_offset_ms(365 * DAY_MS);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(caller.versions(key).unwrap().len(), 1);
    drop(caller);
    verified(&live.halt());
}
