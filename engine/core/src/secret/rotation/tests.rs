//! Whatever is done and fails in whatever order: one version is current, it is the old one until its successor was tested, and the rotation comes
//! to its end once nothing fails any more.

use proptest::prelude::*;

use super::super::tests::{at, new, put, secret};
use super::*;
use crate::seam::rotator::RotationSettings;

const CURRENT: &str = "ACSCurrent";
const PREVIOUS: &str = "ACSPrevious";
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(60), most: Duration::from_secs(3_600) };

fn time(s: u64) -> Timestamp {
    Timestamp::from_ms(s * 1_000)
}

fn id(text: &str) -> SecretVersionId {
    text.parse().unwrap()
}

fn rotated() -> Secret {
    let mut secret = secret();
    put(&mut secret, "v1", &[]).unwrap();
    put(&mut secret, "v2", &[]).unwrap();
    secret.rotation = Some(Box::new(Rotation::new("db".parse().unwrap(), RotationSettings::default())));
    secret
}

fn begin(secret: &mut Secret, version: &str, from: &str, now: u64) -> Result<Put> {
    secret.begin_rotation(new(version, &[]), &id(from), None, time(now))
}

fn pass(secret: &mut Secret, version: &str, step: Step, now: u64) -> Result<()> {
    secret.rotation_passed(&id(version), step, time(now), 0)
}

fn begun() -> Secret {
    let mut secret = rotated();
    begin(&mut secret, "v3", "v2", 10).unwrap();
    secret
}

#[test]
fn a_rotation_keeps_the_version_and_makes_it_current_after_its_test_and_not_before() {
    let mut secret = begun();
    assert_eq!((at(&secret, CURRENT), at(&secret, PREVIOUS)), (Some("v2"), Some("v1")));
    assert_eq!(at(&secret, PENDING), Some("v3"));
    assert_eq!(secret.rotation_due(time(10), true, BACK_OFF), Some(Due::Step(Step::Set)));
    let early = pass(&mut secret, "v3", Step::Test, 11).unwrap_err();
    assert_eq!((early.kind(), at(&secret, CURRENT)), (ErrorKind::Conflict, Some("v2")));
    pass(&mut secret, "v3", Step::Set, 11).unwrap();
    assert_eq!(at(&secret, CURRENT), Some("v2"));
    pass(&mut secret, "v3", Step::Test, 12).unwrap();
    assert_eq!(
        (at(&secret, CURRENT), at(&secret, PREVIOUS), at(&secret, PENDING)),
        (Some("v3"), Some("v2"), None)
    );
    let rotation = secret.rotation.clone().unwrap();
    assert_eq!((rotation.last_at, rotation.is_begun()), (Some(time(12)), false));
    let left = rotation.pending.unwrap().left.unwrap();
    assert_eq!((left.current, left.previous), (id("v2"), Some(id("v1"))));
    pass(&mut secret, "v3", Step::Finish, 13).unwrap();
    assert_eq!(secret.rotation.as_ref().unwrap().pending, None);
    assert_eq!(secret.rotation_due(time(14), false, BACK_OFF), None);
}

#[test]
fn one_under_way_is_begun_by_nobody_again_and_by_its_own_version_goes_on() {
    let mut secret = begun();
    assert_eq!(begin(&mut secret, "v4", "v2", 11).unwrap_err().kind(), ErrorKind::StateConflict);
    assert_eq!(begin(&mut secret, "v3", "v2", 11).unwrap_err().kind(), ErrorKind::Conflict);
    secret.check_rotation(&id("v3")).unwrap();
    let mut other = rotated();
    put(&mut other, "by-hand", &[]).unwrap();
    assert_eq!(
        begin(&mut other, "v3", "v2", 11).unwrap_err().kind(),
        ErrorKind::Conflict,
        "v2 is not current"
    );
    // What could not be finished is left by the next.
    for step in [Step::Set, Step::Test] {
        pass(&mut secret, "v3", step, 12).unwrap();
    }
    secret.rotation_failed(Some((&id("v3"), Step::Finish)), time(13), BACK_OFF, 0).unwrap();
    begin(&mut secret, "v4", "v3", 14).unwrap();
    assert_eq!(pass(&mut secret, "v3", Step::Finish, 15).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(secret.rotation_due(time(15), true, BACK_OFF), Some(Due::Step(Step::Set)));
}

#[test]
fn what_failed_rests_twice_as_long_each_time_up_to_an_hour_and_is_shortened_by_a_tenth_at_most() {
    let mut secret = begun();
    for (attempt, rest) in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600].into_iter().enumerate() {
        let trouble = secret.rotation_failed(Some((&id("v3"), Step::Set)), time(100), BACK_OFF, 0).unwrap();
        assert_eq!((trouble.attempts, trouble.retry_at), (attempt as u32 + 1, time(100 + rest)));
        assert_eq!(secret.rotation_due(time(100 + rest - 1), false, BACK_OFF), None);
        assert_eq!(secret.rotation_due(time(100 + rest), false, BACK_OFF), Some(Due::Step(Step::Set)));
    }
    assert_eq!(BACK_OFF.rest(1, u32::MAX), Duration::from_secs(54));
    assert_eq!(BACK_OFF.rest(u32::MAX, u32::MAX), Duration::from_secs(3_240));
    // A clock that was a year ahead does not put it off for a year.
    secret.rotation_failed(Some((&id("v3"), Step::Set)), time(31_536_000), BACK_OFF, 0).unwrap();
    assert_eq!(secret.rotation_due(time(200), true, BACK_OFF), Some(Due::Step(Step::Set)));
    pass(&mut secret, "v3", Step::Set, 201).unwrap();
    assert_eq!(secret.rotation.as_ref().unwrap().trouble, None);
}

#[test]
fn a_secret_is_due_by_its_interval_unless_the_clock_rests() {
    let mut secret = rotated();
    let interval = Some(SecretInterval::parse("10h").unwrap());
    let hour = 3_600;
    secret.rotation.as_mut().unwrap().schedule(interval, time(0), time(hour), u32::MAX);
    // Up to a tenth of ten hours before its time.
    assert_eq!(secret.rotation_due(time(9 * hour - 1), false, BACK_OFF), None);
    assert_eq!(secret.rotation_due(time(9 * hour), false, BACK_OFF), Some(Due::Draft));
    assert_eq!(secret.rotation_due(time(9 * hour), true, BACK_OFF), None, "the clock rests");
    secret.rotation_failed(None, time(9 * hour), BACK_OFF, 0).unwrap();
    assert_eq!(secret.rotation_due(time(9 * hour + 59), false, BACK_OFF), None);
    assert_eq!(secret.rotation_due(time(9 * hour + 60), false, BACK_OFF), Some(Due::Draft));
    // A time that a clock ahead had set is no time, nor is one of a version that a clock ahead has made.
    secret.rotation.as_mut().unwrap().next_at = Some(time(10_000 * hour));
    assert_eq!(secret.rotation_due(time(100 * hour), false, BACK_OFF), Some(Due::Draft));
    secret.rotation.as_mut().unwrap().schedule(interval, time(10_000 * hour), time(hour), 0);
    assert_eq!(secret.rotation.as_ref().unwrap().next_at, Some(time(11 * hour)));
    begin(&mut secret, "v3", "v2", 100 * hour).unwrap();
    for step in [Step::Set, Step::Test] {
        pass(&mut secret, "v3", step, 100 * hour).unwrap();
    }
    assert_eq!(secret.rotation.as_ref().unwrap().next_at, Some(time(110 * hour)));
    // What cannot be finished keeps the next from nothing.
    secret.rotation_failed(Some((&id("v3"), Step::Finish)), time(110 * hour), BACK_OFF, 0).unwrap();
    assert_eq!(secret.rotation_due(time(110 * hour), false, BACK_OFF), Some(Due::Draft));
    secret.delete_at = Some(time(0));
    assert_eq!(secret.rotation_due(time(500 * hour), false, BACK_OFF), None);
}

#[test]
fn callers_ask_fifty_times_an_hour() {
    let mut secret = rotated();
    let by: AccessKeyId = "KMAK00000001".parse().unwrap();
    secret.begin_rotation(new("v3", &[]), &id("v2"), Some(by), time(0)).unwrap();
    for n in 1..50 {
        secret.hasten_rotation(&id("v3"), time(n)).unwrap();
    }
    let error = secret.hasten_rotation(&id("v3"), time(3_599)).unwrap_err();
    assert_eq!((error.kind(), error.message().contains("50")), (ErrorKind::OverQuota, true));
    secret.hasten_rotation(&id("v3"), time(3_600)).unwrap();
    // A clock that was ahead keeps nobody out.
    secret.rotation.as_mut().unwrap().asked = vec![time(9_000_000); 50];
    secret.hasten_rotation(&id("v3"), time(4_000)).unwrap();
}

#[test]
fn by_hand_the_pending_version_is_given_no_stage_and_given_up() {
    let mut secret = begun();
    let stage = |text: &str| text.parse::<VersionStage>().unwrap();
    let v3 = id("v3");
    for (moved, kind) in [
        (secret.clone().move_stage(&stage(CURRENT), Some(&v3), None, time(11)), ErrorKind::StateConflict),
        (secret.clone().move_stage(&stage("own"), Some(&v3), None, time(11)), ErrorKind::StateConflict),
        (
            secret.clone().move_stage(&stage(PENDING), Some(&id("v1")), None, time(11)),
            ErrorKind::InvalidParameter,
        ),
        (
            secret.clone().move_stage(&stage(PENDING), Some(&id("v1")), Some(&v3), time(11)),
            ErrorKind::InvalidParameter,
        ),
        (
            secret.clone().move_stage(&stage(PENDING), None, Some(&id("v1")), time(11)),
            ErrorKind::InvalidParameter,
        ),
        (put(&mut secret.clone(), "v9", &[PENDING]).map(drop), ErrorKind::InvalidParameter),
    ] {
        assert_eq!(moved.unwrap_err().kind(), kind);
    }
    // What is put by hand is current until the rotation is done, and is what it leaves.
    put(&mut secret, "by-hand", &[]).unwrap();
    assert_eq!((at(&secret, CURRENT), at(&secret, PENDING)), (Some("by-hand"), Some("v3")));
    let mut given_up = secret.clone();
    given_up.move_stage(&stage(PENDING), None, Some(&v3), time(12)).unwrap();
    assert!(given_up.version(&v3).is_some_and(|version| version.stages.is_empty()));
    assert_eq!(given_up.rotation.as_ref().unwrap().pending, None);
    assert_eq!(pass(&mut given_up, "v3", Step::Set, 13).unwrap_err().kind(), ErrorKind::Conflict);
    for step in [Step::Set, Step::Test] {
        pass(&mut secret, "v3", step, 13).unwrap();
    }
    assert_eq!((at(&secret, CURRENT), at(&secret, PREVIOUS)), (Some("v3"), Some("by-hand")));
}

#[test]
fn what_waits_for_its_deletion_is_not_rotated_and_goes_on_once_it_is_back() {
    let secret = begun().with_deletion(Some(time(1_000_000))).unwrap();
    assert_eq!(secret.rotation_due(time(11), false, BACK_OFF), None);
    let error = pass(&mut secret.clone(), "v3", Step::Set, 11).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceInDeleteWindow);
    let mut back = secret.with_deletion(None).unwrap();
    assert_eq!(back.rotation_due(time(12), false, BACK_OFF), Some(Due::Step(Step::Set)));
    pass(&mut back, "v3", Step::Set, 12).unwrap();
}

#[test]
fn a_secret_without_a_rotator_is_not_rotated() {
    let mut secret = secret();
    put(&mut secret, "v1", &[]).unwrap();
    assert_eq!(begin(&mut secret, "v2", "v1", 1).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!((secret.rotation_due(time(1), false, BACK_OFF), secret.rotation_told(true)), (None, None));
}

#[test]
fn ten_versions_with_stages_leave_no_room_and_the_pending_stage_counts_for_none() {
    let mut full = rotated();
    for n in 0..9 {
        put(&mut full, &format!("s{n}"), &[&format!("s{n}")]).unwrap_or(Put::Same);
    }
    let error = begin(&mut full, "v3", "v2", 1).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::LimitExceeded(_)), "{error}");
    let mut staged = rotated();
    for n in 0..limit::SECRET_STAGES {
        let stage: VersionStage = format!("s{n}").parse().unwrap();
        staged.move_stage(&stage, Some(&id("v1")), None, time(1)).unwrap();
    }
    begin(&mut staged, "v3", "v2", 1).unwrap();
}

/// What may happen in any order; versions are small numbers, and most of it is refused most of the time.
#[derive(Clone, Debug)]
enum Event {
    Begin(u8),
    Pass(u8, Step),
    Fail(u8, Step),
    Put(u8),
    Move(u8),
    GiveUp(u8),
    Delete,
    Restore,
}

fn event() -> impl Strategy<Value = Event> {
    let (version, step) = (0u8..6, prop::sample::select(vec![Step::Set, Step::Test, Step::Finish]));
    prop_oneof![
        4 => version.clone().prop_map(Event::Begin),
        8 => (version.clone(), step.clone()).prop_map(|(v, s)| Event::Pass(v, s)),
        3 => (version.clone(), step).prop_map(|(v, s)| Event::Fail(v, s)),
        1 => version.clone().prop_map(Event::Put),
        1 => version.clone().prop_map(Event::Move),
        1 => version.prop_map(Event::GiveUp),
        1 => Just(Event::Delete),
        1 => Just(Event::Restore),
    ]
}

proptest! {
    #[test]
    fn whatever_fails_and_whoever_crashes_one_version_is_current_and_none_is_before_its_test(
        events in prop::collection::vec(event(), 1..80), draw in any::<u32>()
    ) {
        let mut secret = rotated();
        let name = |n: u8| format!("r{n}");
        let mut now = 100;
        for event in events {
            now += 1;
            // A crash keeps what was committed, and what was not is lost: each event is on a copy.
            let mut next = secret.clone();
            let pending = secret.rotation.as_ref().unwrap().pending.clone();
            let done = match &event {
                Event::Begin(n) => {
                    let from = secret.at(&VersionStage::current()).unwrap().id.clone();
                    next.begin_rotation(new(&name(*n), &[]), &from, None, time(now)).map(drop)
                }
                Event::Pass(n, step) => next.rotation_passed(&id(&name(*n)), *step, time(now), draw),
                Event::Fail(n, step) => {
                    next.rotation_failed(Some((&id(&name(*n)), *step)), time(now), BACK_OFF, draw).map(drop)
                }
                Event::Put(n) => put(&mut next, &name(*n), &[]).map(drop),
                Event::Move(n) => next.move_stage(&VersionStage::current(), Some(&id(&name(*n))), None, time(now)),
                Event::GiveUp(n) => next.move_stage(&VersionStage::pending(), None, Some(&id(&name(*n))), time(now)),
                Event::Delete => secret.with_deletion(Some(time(now + 1_000_000))).map(|ending| next = ending),
                Event::Restore => secret.with_deletion(None).map(|back| next = back),
            };
            if done.is_err() {
                continue;
            }
            // A version of a rotation becomes current by its passed test, and by nothing else.
            if let Some(pending) = pending.filter(|pending| pending.left.is_none()) {
                let is_current = at(&next, CURRENT) == Some(pending.version.as_str());
                let was_tested = matches!(&event, Event::Pass(_, Step::Test)) && pending.step == Step::Test;
                prop_assert_eq!(is_current, was_tested, "{:?}", event);
            }
            if matches!(event, Event::Fail(..) | Event::Begin(_)) {
                prop_assert_eq!(at(&next, CURRENT), at(&secret, CURRENT));
                prop_assert_eq!(at(&next, PREVIOUS), at(&secret, PREVIOUS));
            }
            secret = next;
            let holders = |stage: &str| {
                let has = |v: &&super::super::SecretVersion| v.stages.iter().any(|s| s.as_str() == stage);
                secret.versions.iter().filter(has).count()
            };
            prop_assert_eq!(holders(CURRENT), 1);
            let begun = secret.rotation.as_ref().unwrap().is_begun();
            prop_assert_eq!(holders(PENDING), usize::from(begun));
            prop_assert!(at(&secret, CURRENT) != at(&secret, PREVIOUS));
            prop_assert!(secret.versions.len() <= limit::SECRET_VERSIONS);
        }
        // Nothing fails any more: it comes to its end, or there is none.
        secret.delete_at = None;
        for _ in 0..4 {
            let Some(pending) = secret.rotation.as_ref().unwrap().pending.clone() else { break };
            secret.rotation_passed(&pending.version, pending.step, time(now + 1), draw).unwrap();
            prop_assert!(pending.step == Step::Set || at(&secret, CURRENT) == Some(pending.version.as_str()) || pending.left.is_some());
        }
        prop_assert_eq!(secret.rotation.as_ref().unwrap().pending.clone(), None);
    }
}

#[test]
fn what_was_lost_after_it_was_set_is_set_anew_after_a_rest() {
    let mut secret = begun();
    let early = secret.rotation_lost(&id("v3"), time(10), BACK_OFF, 0).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Conflict, "nothing was set yet");
    pass(&mut secret, "v3", Step::Set, 11).unwrap();
    secret.rotation_lost(&id("v3"), time(12), BACK_OFF, 0).unwrap();
    assert_eq!(secret.rotation_due(time(13), false, BACK_OFF), None);
    assert_eq!(secret.rotation_due(time(72), false, BACK_OFF), Some(Due::Step(Step::Set)));
    assert_eq!(at(&secret, CURRENT), Some("v2"));
    pass(&mut secret, "v3", Step::Set, 72).unwrap();
    pass(&mut secret, "v3", Step::Test, 73).unwrap();
    assert_eq!(at(&secret, CURRENT), Some("v3"));
}

#[test]
fn one_that_was_given_up_is_not_begun_at_once_again_and_without_a_schedule_nothing_is_in_trouble() {
    let mut secret = rotated();
    let interval = "6h".parse().unwrap();
    let schedule = |secret: &mut Secret, interval| {
        secret.rotation.as_mut().unwrap().schedule(interval, time(0), time(0), 0);
    };
    schedule(&mut secret, Some(interval));
    let due = 6 * 3_600;
    assert_eq!(secret.rotation_due(time(due), false, BACK_OFF), Some(Due::Draft));
    begin(&mut secret, "v3", "v2", due).unwrap();
    secret.give_up_rotation(&id("v3"), time(due + 1)).unwrap();
    assert_eq!(secret.rotation_due(time(due + 60), false, BACK_OFF), None);
    assert!(!secret.was_rotated_to(&id("v3")) && secret.was_rotated_to(&id("v2")));
    secret.rotation_failed(None, time(due), BACK_OFF, 0).unwrap();
    assert!(secret.rotation.as_ref().unwrap().trouble.is_some());
    schedule(&mut secret, None);
    assert_eq!(secret.rotation.as_ref().unwrap().trouble, None);
}
