use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::fake_secrets::{FakeSecrets, Mood};

type Cache = SecretCache<Arc<FakeSecrets>>;

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn move_by(&self, seconds: u64) {
        *self.0.lock() += Duration::from_secs(seconds);
    }
}

fn cache_of(secrets: &Arc<FakeSecrets>, limits: Limits) -> (Cache, Clock) {
    let clock = Clock(Arc::new(Mutex::new(Instant::now())));
    let now = clock.clone();
    (SecretCache::with_clock(secrets.clone(), limits, move || *now.0.lock()), clock)
}

fn begin() -> (Arc<FakeSecrets>, Cache, Clock) {
    let secrets = Arc::new(FakeSecrets::default());
    secrets.put("db", "one");
    let (cache, clock) = cache_of(&secrets, Limits::default());
    (secrets, cache, clock)
}

fn asked(name: &str) -> Asked {
    Asked::current(name.parse().unwrap())
}

fn get(cache: &Cache, name: &str) -> Result<String, SecretsError> {
    wait(cache.get(&asked(name))).map(|value| value.expose().to_owned())
}

/// Waits until no thread reads ahead.
fn settle(cache: &Cache) {
    while cache.0.state.lock().is_reading_ahead() {
        std::thread::yield_now();
    }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_value_is_at_hand_for_its_time_and_shown_by_no_debug() {
    let (secrets, cache, clock) = begin();
    for _ in 0..3 {
        assert_eq!(get(&cache, "db").unwrap(), "one");
    }
    assert_eq!(secrets.count(), 1);
    secrets.put("db", "two");
    clock.move_by(239);
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("one".into(), 1));
    let value = wait(cache.get(&asked("db"))).unwrap();
    assert_eq!(format!("{value:?} {cache:?}"), "SecretValue(db, version v1) SecretCache(1 values)");
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses, counts.reads, counts.kept, counts.kept_bytes), (4, 1, 1, 1, 3));
}

#[test]
fn a_value_is_read_anew_ahead_of_its_end_and_nobody_waits() {
    let (go, secrets) = FakeSecrets::held_up();
    let secrets = Arc::new(secrets);
    secrets.put("db", "one");
    let (cache, clock) = cache_of(&secrets, Limits::default());
    go.send(()).unwrap();
    get(&cache, "db").unwrap();
    secrets.put("db", "two");
    clock.move_by(240);
    // The service holds the answer back: the old value is given out, and one thread alone asks.
    for _ in 0..5 {
        assert_eq!(get(&cache, "db").unwrap(), "one");
    }
    go.send(()).unwrap();
    settle(&cache);
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("two".into(), 2));
    // Its time begins anew.
    clock.move_by(239);
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("two".into(), 2));
}

#[test]
fn a_value_whose_time_is_over_is_asked_for_before_it_is_given_out() {
    let (secrets, cache, clock) = begin();
    get(&cache, "db").unwrap();
    secrets.put("db", "two");
    clock.move_by(300);
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("two".into(), 2));
}

#[test]
fn a_value_outlives_its_time_where_the_service_is_away_and_no_longer_than_stated() {
    let (secrets, cache, clock) = begin();
    get(&cache, "db").unwrap();
    secrets.turn(Mood::IsAway);
    clock.move_by(300);
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("one".into(), 2));
    // It is known to be away: nobody asks again before the time for that has come, and then nobody waits.
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("one".into(), 2));
    clock.move_by(5);
    assert_eq!(get(&cache, "db").unwrap(), "one");
    settle(&cache);
    assert_eq!((secrets.count(), cache.counts().stale, cache.counts().unavailable), (3, 3, 2));
    // The last moment: 5 minutes and 15.
    clock.move_by(894);
    assert_eq!(get(&cache, "db").unwrap(), "one");
    settle(&cache);
    clock.move_by(1);
    assert!(matches!(get(&cache, "db"), Err(SecretsError::Unavailable(_))));
    assert_eq!(cache.counts().kept, 0, "what outlived its time is wiped");
    secrets.turn(Mood::Answers);
    assert_eq!(get(&cache, "db").unwrap(), "one");
}

/// What was known to be away long ago says nothing of now: where nobody asked since, whoever asks first waits for the answer.
#[test]
fn a_value_past_its_time_is_asked_for_where_nobody_did_for_long() {
    let (secrets, cache, clock) = begin();
    get(&cache, "db").unwrap();
    secrets.turn(Mood::IsAway);
    clock.move_by(245);
    assert_eq!(get(&cache, "db").unwrap(), "one");
    settle(&cache);
    secrets.turn(Mood::Answers);
    secrets.put("db", "two");
    clock.move_by(900);
    assert_eq!(get(&cache, "db").unwrap(), "two");
}

#[test]
fn one_that_is_back_is_believed_at_once() {
    let (secrets, cache, clock) = begin();
    get(&cache, "db").unwrap();
    secrets.turn(Mood::IsAway);
    clock.move_by(301);
    get(&cache, "db").unwrap();
    secrets.turn(Mood::Answers);
    secrets.put("db", "two");
    clock.move_by(5);
    assert_eq!(get(&cache, "db").unwrap(), "one");
    settle(&cache);
    assert_eq!(get(&cache, "db").unwrap(), "two");
}

#[test]
fn a_refusal_ends_a_value_whether_it_is_found_ahead_or_when_its_time_is_over() {
    for seconds in [240, 300] {
        let (secrets, cache, clock) = begin();
        let value = Arc::downgrade(&wait(cache.get(&asked("db"))).unwrap());
        secrets.turn(Mood::SaysNo);
        clock.move_by(seconds);
        let first = get(&cache, "db");
        settle(&cache);
        assert_eq!(first.is_ok(), seconds < 300, "ahead of its end it is given out once more");
        assert!(matches!(get(&cache, "db"), Err(SecretsError::Refused(_))));
        assert_eq!((value.strong_count(), cache.counts().kept), (0, 0));
        // That the service goes away then brings nothing back.
        secrets.turn(Mood::IsAway);
        assert!(matches!(get(&cache, "db"), Err(SecretsError::Unavailable(_))));
    }
}

#[test]
fn a_refusal_after_the_service_was_away_ends_a_stale_value() {
    let (secrets, cache, clock) = begin();
    get(&cache, "db").unwrap();
    secrets.turn(Mood::IsAway);
    clock.move_by(300);
    get(&cache, "db").unwrap();
    secrets.turn(Mood::SaysNo);
    clock.move_by(5);
    get(&cache, "db").unwrap();
    settle(&cache);
    assert!(matches!(get(&cache, "db"), Err(SecretsError::Refused(_))));
}

#[test]
fn of_many_that_miss_at_once_one_asks_and_a_failure_is_told_to_all() {
    let (go, secrets) = FakeSecrets::held_up();
    let secrets = Arc::new(secrets);
    secrets.put("db", "one");
    let (cache, _) = cache_of(&secrets, Limits::default());
    for mood in [Mood::IsAway, Mood::Answers] {
        secrets.turn(mood);
        let before = secrets.count();
        let ask = asked("db");
        let mut all: Vec<_> = (0..20).map(|_| Box::pin(cache.get(&ask))).collect();
        assert!(all.iter_mut().all(|one| poll(one.as_mut()).is_pending()));
        go.send(()).unwrap();
        let came: Vec<_> = all.into_iter().map(wait).collect();
        assert!(came.iter().all(|one| one.is_ok() == (mood == Mood::Answers)));
        assert_eq!(secrets.count(), before + 1);
    }
}

#[test]
fn what_is_thrown_away_is_wiped_and_not_kept_if_it_was_on_its_way() {
    let (go, secrets) = FakeSecrets::held_up();
    let secrets = Arc::new(secrets);
    (0..4).for_each(|_| go.send(()).unwrap());
    for name in ["db", "other"] {
        secrets.put(name, "x");
    }
    let (cache, _) = cache_of(&secrets, Limits::default());
    let value = Arc::downgrade(&wait(cache.get(&asked("db"))).unwrap());
    let staged = Asked { stage: Some("test".parse().unwrap()), ..asked("db") };
    wait(cache.get(&staged)).unwrap();
    get(&cache, "other").unwrap();
    cache.invalidate(&"db".parse().unwrap());
    assert_eq!((value.strong_count(), cache.counts().kept), (0, 1), "every version and stage of it goes");
    get(&cache, "db").unwrap();
    assert_eq!(secrets.count(), 4);
    cache.clear();
    assert_eq!((cache.counts().kept, cache.counts().kept_bytes), (0, 0));
    let ask = asked("db");
    let mut on_its_way = Box::pin(cache.get(&ask));
    assert!(poll(on_its_way.as_mut()).is_pending());
    cache.invalidate(&"db".parse().unwrap());
    go.send(()).unwrap();
    wait(on_its_way).unwrap();
    assert_eq!(cache.counts().kept, 0);
}

#[test]
fn refreshed_now_it_is_what_the_service_says_now() {
    let (secrets, cache, _) = begin();
    get(&cache, "db").unwrap();
    secrets.put("db", "two");
    assert_eq!(wait(cache.refresh(&asked("db"))).unwrap().expose(), "two");
    assert_eq!((get(&cache, "db").unwrap(), secrets.count()), ("two".into(), 2));
    secrets.turn(Mood::IsAway);
    assert!(wait(cache.refresh(&asked("db"))).is_err());
    assert_eq!(get(&cache, "db").unwrap(), "two", "its time is not over");
}

#[test]
fn values_and_their_bytes_are_bounded_and_the_ones_used_last_stay() {
    let secrets = Arc::new(FakeSecrets::default());
    for n in 0..4 {
        secrets.put(&format!("s{n}"), "0123456789");
    }
    secrets.put("long", &"x".repeat(36));
    let count = NonZeroUsize::new(3).unwrap();
    let (cache, _) = cache_of(&secrets, Limits { count, bytes: 35, ..Limits::default() });
    for name in ["s0", "s1", "s2", "s0", "s3"] {
        get(&cache, name).unwrap();
    }
    assert_eq!((cache.counts().kept, cache.counts().kept_bytes, cache.counts().evicted), (3, 30, 1));
    get(&cache, "s0").unwrap();
    assert_eq!(secrets.count(), 4, "the one that was used last stayed");
    // One that is too long is given out, and is not kept.
    get(&cache, "long").unwrap();
    get(&cache, "long").unwrap();
    assert_eq!((secrets.count(), cache.counts().kept), (6, 3));
    secrets.put("s4", &"x".repeat(20));
    get(&cache, "s4").unwrap();
    assert_eq!((cache.counts().kept, cache.counts().kept_bytes), (2, 30), "bytes are made room for");
}

#[test]
fn threads_that_read_ahead_are_bounded() {
    let (go, secrets) = FakeSecrets::held_up();
    let secrets = Arc::new(secrets);
    for n in 0..3 {
        secrets.put(&format!("s{n}"), "x");
        go.send(()).unwrap();
    }
    let (cache, clock) = cache_of(&secrets, Limits { threads: 1, ..Limits::default() });
    (0..3).for_each(|n| drop(get(&cache, &format!("s{n}")).unwrap()));
    clock.move_by(250);
    (0..3).for_each(|n| drop(get(&cache, &format!("s{n}")).unwrap()));
    go.send(()).unwrap();
    settle(&cache);
    assert_eq!(secrets.count(), 4);
}

#[test]
fn whoever_makes_no_calls_is_told_when_to_expire() {
    let (_secrets, cache, clock) = begin();
    assert_eq!(cache.expire(), None);
    let end = *clock.0.lock() + Duration::from_secs(1200);
    let value = Arc::downgrade(&wait(cache.get(&asked("db"))).unwrap());
    assert_eq!(cache.expire(), Some(end));
    clock.move_by(1200);
    assert_eq!((cache.expire(), value.strong_count()), (None, 0));
}

#[test]
fn threads_share_one_request() {
    let (secrets, cache, _) = begin();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..200).for_each(|_| assert_eq!(get(&cache, "db").unwrap(), "one")));
        }
    });
    assert_eq!(secrets.count(), 1);
}
