use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::fake_keys::{FakeKeys, KEY};
use crate::wait;

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn move_by(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

fn cache(keys: &Arc<FakeKeys>, limits: Limits) -> (Local<Arc<FakeKeys>>, Clock) {
    let clock = Clock::new();
    let now = clock.clone();
    (Local::with_clock(keys.clone(), limits, move || *now.0.lock()), clock)
}

fn small() -> Limits {
    Limits { payloads: 3, bytes: 100, ..Limits::default() }
}

fn context(value: &str) -> EncryptionContext {
    EncryptionContext::from_pairs([("k", value)]).unwrap()
}

fn seal(cache: &Local<Arc<FakeKeys>>, payload: &[u8]) -> Vec<u8> {
    wait(cache.seal(KEY, &context("a"), payload)).unwrap()
}

fn held(cache: &Local<Arc<FakeKeys>>) -> (usize, usize) {
    let state = cache.state.lock();
    (state.sealing.len(), state.opened.len())
}

/// Watches every data key that is kept.
fn watch(cache: &Local<Arc<FakeKeys>>) -> Vec<Weak<Envelope>> {
    let state = cache.state.lock();
    let sealing = state.sealing.iter().map(|(_, kept)| &kept.envelope);
    sealing.chain(state.opened.iter().map(|(_, kept)| &kept.envelope)).map(Arc::downgrade).collect()
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn payloads_share_a_data_key_and_open_with_one_request() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, _) = cache(&keys, Limits::default());
    let sealed: Vec<_> = (0..100u8).map(|n| seal(&cache, &[n; 50])).collect();
    assert_eq!(keys.counts(), (1, 0));
    for (n, one) in sealed.iter().enumerate() {
        assert_eq!(wait(cache.open(one)).unwrap(), [n as u8; 50]);
    }
    assert_eq!(keys.counts(), (1, 1));
    // They are envelopes as any other, each with a stream of its own.
    let header = Header::read(&mut &sealed[0][..]).unwrap();
    let alone = wait(Envelope::decrypt(&keys, header)).unwrap();
    let length = alone.header().as_bytes().len();
    assert_eq!(alone.open(&sealed[7][length..]).unwrap(), [7; 50]);
    assert_ne!(sealed[0][length..length + 40], sealed[1][length..length + 40]);
}

#[test]
fn keys_and_contexts_have_data_keys_of_their_own() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, _) = cache(&keys, Limits::default());
    let other = CmkId::from_bytes([8; 16]);
    for _ in 0..2 {
        for (key, value) in [(KEY, "a"), (KEY, "b"), (other, "a")] {
            wait(cache.seal(key, &context(value), b"text")).unwrap();
        }
        wait(cache.seal(KEY, &EncryptionContext::default(), b"text")).unwrap();
    }
    assert_eq!(keys.counts(), (4, 0));
}

#[test]
fn a_data_key_ends_with_its_age_for_sealing_and_for_opening() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, clock) = cache(&keys, Limits::default());
    let sealed = seal(&cache, b"text");
    wait(cache.open(&sealed)).unwrap();
    let minute = Duration::from_secs(60);
    clock.move_by(5 * minute - Duration::from_nanos(1));
    seal(&cache, b"text");
    wait(cache.open(&sealed)).unwrap();
    assert_eq!(keys.counts(), (1, 1));
    let kept = watch(&cache);
    clock.move_by(Duration::from_nanos(1));
    seal(&cache, b"text");
    assert_eq!(keys.counts(), (2, 1));
    assert_eq!(held(&cache), (1, 0));
    assert!(kept.iter().all(|one| one.strong_count() == 0), "what is old is wiped");
    wait(cache.open(&sealed)).unwrap();
    assert_eq!(keys.counts(), (2, 2));
}

#[test]
fn whoever_makes_no_calls_is_told_when_to_expire() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, clock) = cache(&keys, Limits::default());
    assert_eq!(cache.expire(), None);
    let first = *clock.0.lock() + Duration::from_secs(300);
    let sealed = seal(&cache, b"text");
    clock.move_by(Duration::from_secs(100));
    wait(cache.open(&sealed)).unwrap();
    assert_eq!(cache.expire(), Some(first));
    clock.move_by(Duration::from_secs(200));
    assert_eq!((cache.expire(), held(&cache)), (Some(first + Duration::from_secs(100)), (0, 1)));
    clock.move_by(Duration::from_secs(100));
    assert_eq!((cache.expire(), held(&cache)), (None, (0, 0)));
}

#[test]
fn a_data_key_ends_with_its_payloads_and_its_bytes() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, _) = cache(&keys, small());
    (0..3).for_each(|_| drop(seal(&cache, b"")));
    assert_eq!(keys.counts().0, 1);
    let used = watch(&cache);
    seal(&cache, &[0; 60]);
    assert_eq!(keys.counts().0, 2);
    assert_eq!(used[0].strong_count(), 0);
    seal(&cache, &[0; 40]);
    assert_eq!(keys.counts().0, 2, "100 bytes are allowed");
    seal(&cache, &[0; 1]);
    assert_eq!(keys.counts().0, 3);
    assert!(matches!(wait(cache.seal(KEY, &context("a"), &[0; 101])), Err(EnvelopeError::TooLong)));
    assert_eq!(keys.counts().0, 3);
}

#[test]
fn what_is_kept_is_bounded_and_the_longest_unused_goes() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, _) = cache(&keys, Limits::default());
    let sealed: Vec<_> =
        (0..1100).map(|n| wait(cache.seal(KEY, &context(&n.to_string()), b"text")).unwrap()).collect();
    assert_eq!((keys.counts().0, held(&cache).0), (1100, 64));
    let kept = watch(&cache);
    sealed.iter().for_each(|one| drop(wait(cache.open(one)).unwrap()));
    assert_eq!((keys.counts().1, held(&cache).1), (1100, 1024));
    wait(cache.open(&sealed[1099])).unwrap();
    assert_eq!(keys.counts().1, 1100);
    wait(cache.open(&sealed[0])).unwrap();
    assert_eq!(keys.counts().1, 1101);
    wait(cache.seal(KEY, &context("0"), b"text")).unwrap();
    assert_eq!(kept.iter().filter(|one| one.strong_count() == 0).count(), 1);
    assert_eq!(format!("{cache:?}"), "Local(64 for sealing, 1024 for opening)");
}

#[test]
fn clear_throws_everything_away_and_also_what_is_on_its_way() {
    let (go, keys) = FakeKeys::held_up();
    let keys = Arc::new(keys);
    let (cache, _) = cache(&keys, Limits::default());
    go.send(()).unwrap();
    seal(&cache, b"text");
    let kept = watch(&cache);
    cache.clear();
    assert_eq!((kept[0].strong_count(), held(&cache)), (0, (0, 0)));
    let on = context("a");
    let mut on_its_way = Box::pin(cache.seal(KEY, &on, b"text"));
    assert!(poll(on_its_way.as_mut()).is_pending());
    cache.clear();
    go.send(()).unwrap();
    wait(on_its_way).unwrap();
    assert_eq!((keys.counts().0, held(&cache)), (2, (0, 0)));
    go.send(()).unwrap();
    seal(&cache, b"text");
    assert_eq!((keys.counts().0, held(&cache)), (3, (1, 0)));
    let kept = watch(&cache);
    drop(cache);
    assert_eq!(kept[0].strong_count(), 0);
}

#[test]
fn of_many_that_miss_at_once_one_asks() {
    let (go, keys) = FakeKeys::held_up();
    let keys = Arc::new(keys);
    let (cache, _) = cache(&keys, Limits::default());
    let (on, other) = (context("a"), context("b"));
    let mut all: Vec<_> = (0..20).map(|_| Box::pin(cache.seal(KEY, &on, b"text"))).collect();
    assert!(all.iter_mut().all(|one| poll(one.as_mut()).is_pending()));
    let mut apart = Box::pin(cache.seal(KEY, &other, b"text"));
    assert!(poll(apart.as_mut()).is_pending());
    assert_eq!(keys.counts(), (2, 0), "one a context");
    go.send(()).unwrap();
    go.send(()).unwrap();
    let sealed: Vec<_> = all.into_iter().map(|one| wait(one).unwrap()).collect();
    wait(apart).unwrap();
    let mut opening: Vec<_> = sealed.iter().map(|one| Box::pin(cache.open(one))).collect();
    assert!(opening.iter_mut().all(|one| poll(one.as_mut()).is_pending()));
    go.send(()).unwrap();
    opening.into_iter().for_each(|one| assert_eq!(wait(one).unwrap(), b"text"));
    assert_eq!(keys.counts(), (2, 1));
}

#[test]
fn threads_share_one_request() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, _) = cache(&keys, Limits::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..200u8 {
                    let sealed = seal(&cache, &[n]);
                    assert_eq!(wait(cache.open(&sealed)).unwrap(), [n]);
                }
            });
        }
    });
    assert_eq!(keys.counts(), (1, 1));
    let state = cache.state.lock();
    let (_, sealing) = state.sealing.iter().next().unwrap();
    assert_eq!((sealing.payloads, sealing.bytes), (1600, 1600), "each payload is counted once");
}

#[test]
fn one_that_leads_and_goes_away_leaves_its_part_to_another() {
    let (go, keys) = FakeKeys::held_up();
    let keys = Arc::new(keys);
    let (cache, _) = cache(&keys, Limits::default());
    let on = context("a");
    let mut leads = Box::pin(cache.seal(KEY, &on, b"text"));
    let mut follows = Box::pin(cache.seal(KEY, &on, b"text"));
    assert!(poll(leads.as_mut()).is_pending() && poll(follows.as_mut()).is_pending());
    assert_eq!(keys.counts().0, 1);
    drop(leads);
    assert!(poll(follows.as_mut()).is_pending());
    assert_eq!(keys.counts().0, 2);
    go.send(()).unwrap();
    wait(follows).unwrap();
}

#[test]
fn a_failure_is_told_to_all_that_waited_and_is_not_kept() {
    let (go, keys) = FakeKeys::held_up();
    let keys = Arc::new(keys);
    keys.is_away.store(true, Ordering::SeqCst);
    let (cache, _) = cache(&keys, Limits::default());
    let on = context("a");
    let mut all: Vec<_> = (0..5).map(|_| Box::pin(cache.seal(KEY, &on, b"text"))).collect();
    assert!(all.iter_mut().all(|one| poll(one.as_mut()).is_pending()));
    go.send(()).unwrap();
    for one in all {
        let error = wait(one).unwrap_err();
        assert!(matches!(&error, EnvelopeError::Keys(why) if why.to_string() == "away"), "{error}");
    }
    assert_eq!(keys.counts().0, 1);
    keys.is_away.store(false, Ordering::SeqCst);
    go.send(()).unwrap();
    seal(&cache, b"text");
    assert_eq!(keys.counts().0, 2);
}

#[test]
fn an_altered_envelope_opens_no_more_with_a_data_key_that_is_there() {
    let keys = Arc::new(FakeKeys::default());
    let (cache, _) = cache(&keys, Limits::default());
    let sealed = seal(&cache, b"text");
    wait(cache.open(&sealed)).unwrap();
    for at in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        let error = wait(cache.open(&altered)).unwrap_err();
        assert!(matches!(error, EnvelopeError::Unopenable | EnvelopeError::NotAnEnvelope), "{at}");
    }
    assert_eq!(held(&cache), (1, 1), "what does not decrypt is not kept");
}
