//! Migrations of stores in memory and on SQLite: sources that change under the copy, and copies that die at any moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keymill_conformance::memory_store::MemoryStore;
use keymill_core::seam::store::{Change, Entry, Lease, Page, Path, Revision, Row, Store, StoreError, Write};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::copy::{End, Manner, Side, Step, Trouble, migrate};
use super::target::{marker_path, refuse_unfinished};

const FROM: &str = "the old store";

fn manner(finish: bool) -> Manner {
    Manner { finish, quiet: Duration::ZERO, tries: 0, pause: Duration::ZERO }
}

fn path(text: &str) -> Path {
    Path::new(text).unwrap()
}

fn set(store: &dyn Store, at: &str, value: Option<&[u8]>) {
    let at = path(at);
    let expected = store.get(&at).unwrap().map(|entry| entry.revision);
    store.commit(&[Write { path: at, expected, value: value.map(<[u8]>::to_vec) }]).unwrap();
}

fn held(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
    let page = Page { after: None, limit: usize::MAX };
    let entries = store.list(&Path::all(), page).unwrap();
    entries.into_iter().map(|entry| (entry.path.to_string(), entry.value)).collect()
}

fn finished(outcome: Result<End, Trouble>) -> (u64, u64) {
    match outcome.unwrap() {
        End::Finished { held, changed } => (held.records, changed),
        End::Stopped { .. } => panic!("it was not told to stop"),
    }
}

fn refusal(outcome: Result<End, Trouble>) -> String {
    match outcome {
        Err(Trouble::Refused(failure)) => failure.to_string(),
        other => panic!("it is refused, not {other:?}"),
    }
}

/// A store under which things happen: to a source, changes; to a target, the end of the process.
struct Eventful<'a> {
    inner: &'a dyn Store,
    /// What is still to be changed, from the last to the first: a path and its value.
    changes: Mutex<Vec<(String, Option<Vec<u8>>)>>,
    /// How many calls happen before each of them.
    every: u64,
    calls: AtomicU64,
    /// Commits until the process dies; odd: the last of them is made, and its answer is lost.
    fuse: Option<u64>,
    commits: AtomicU64,
    /// Watches that find their past forgotten.
    forgetful: AtomicU64,
}

impl<'a> Eventful<'a> {
    fn new(inner: &'a dyn Store) -> Self {
        Self {
            inner,
            changes: Mutex::default(),
            every: 1,
            calls: AtomicU64::new(0),
            fuse: None,
            commits: AtomicU64::new(0),
            forgetful: AtomicU64::new(0),
        }
    }

    fn happen(&self) {
        if !self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) {
            return;
        }
        let next = self.changes.lock().pop();
        if let Some((at, value)) = next {
            set(self.inner, &at, value.as_deref());
        }
    }
}

impl Store for Eventful<'_> {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        self.inner.get(path)
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        self.happen();
        // Small pages, so that much happens between them.
        self.inner.list(prefix, Page { limit: page.limit.min(3), ..page })
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        self.inner.scan(each)
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        let dead = || Err(StoreError::Unavailable("the process is dead".into()));
        let count = self.commits.fetch_add(1, Ordering::Relaxed);
        match self.fuse {
            Some(fuse) if count > fuse / 2 => dead(),
            Some(fuse) if count == fuse / 2 && fuse % 2 == 0 => dead(),
            Some(fuse) if count == fuse / 2 => self.inner.commit(writes).and_then(|_| dead()),
            _ => self.inner.commit(writes),
        }
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let forgets = |left: u64| left.checked_sub(1);
        if self.forgetful.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forgets).is_ok() {
            return Err(StoreError::Compacted);
        }
        self.inner.watch(prefix, from, &mut |change| {
            self.happen();
            each(change)
        })
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.inner.lease(name, holder, ttl)
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        self.happen();
        self.inner.revision()
    }
}

#[test]
fn everything_is_copied_and_the_target_is_free_then() {
    let directory = tempfile::tempdir().unwrap();
    let source = keymill_store_sqlite::open(keymill_store_sqlite::Config::new(directory.path())).unwrap();
    let target = MemoryStore::new();
    for i in 0..1300 {
        set(&source, &format!("cmk/{i:04}"), Some(format!("value {i}").as_bytes()));
    }
    set(&source, "a", Some(b""));
    set(&source, "zz/9", Some(&vec![7; 600 << 10]));
    set(&source, "cmk/0007", None);
    let mut seen = false;
    let outcome = migrate(&source, &target, FROM, &manner(true), &mut |step| {
        if matches!(step, Step::Verified { side: Side::Target, .. }) {
            seen = true;
            assert!(refuse_unfinished(&target).unwrap_err().to_string().contains(FROM));
        }
        true
    });
    assert_eq!(finished(outcome), (1301, 1301));
    assert!(seen);
    assert_eq!(held(&source), held(&target));
    refuse_unfinished(&target).unwrap();
    // A second one finds a store that is in use.
    let again = migrate(&source, &target, FROM, &manner(true), &mut |_| true);
    assert!(refusal(again).contains("holds records"));
}

#[test]
fn a_migration_follows_its_source_until_it_is_told_to_stop() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    for at in ["a", "b", "c"] {
        set(&source, at, Some(b"1"));
    }
    let mut caught_up = 0;
    let outcome = migrate(&source, &target, FROM, &manner(false), &mut |step| {
        if let Step::CaughtUp { .. } = step {
            let mut there = held(&target);
            assert!(there.remove(marker_path().as_str()).is_some());
            assert_eq!(there, held(&source));
            caught_up += 1;
            match caught_up {
                1 => set(&source, "b", None),
                2 => set(&source, "d", Some(b"2")),
                3 => set(&source, "a", Some(b"3")),
                _ => return false,
            }
        }
        true
    });
    assert!(matches!(outcome, Ok(End::Stopped { changed: 6 })), "{outcome:?}");
    assert!(refuse_unfinished(&target).is_err());
    // What was removed and made while nobody followed.
    set(&source, "c", None);
    set(&source, "e", Some(b"4"));
    assert_eq!(finished(migrate(&source, &target, FROM, &manner(true), &mut |_| true)), (3, 2));
    assert_eq!(held(&source), held(&target));
}

#[test]
fn a_target_of_something_else_is_refused_and_left_alone() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    set(&source, "a", Some(b"1"));
    set(&target, "b", Some(b"2"));
    let refused = refusal(migrate(&source, &target, FROM, &manner(true), &mut |_| true));
    assert!(refused.contains("holds records"), "{refused}");
    assert_eq!(held(&target), [("b".to_owned(), b"2".to_vec())].into());

    let target = MemoryStore::new();
    let stopped = migrate(&source, &target, FROM, &manner(false), &mut |_| false);
    assert!(matches!(stopped, Err(Trouble::Interrupted)), "{stopped:?}");
    let refused = refusal(migrate(&source, &target, "another store", &manner(true), &mut |_| true));
    assert!(refused.contains(FROM) && refused.contains("another store"), "{refused}");
    finished(migrate(&source, &target, FROM, &manner(true), &mut |_| true));
}

#[test]
fn a_source_that_is_written_to_at_the_end_is_not_left() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    set(&source, "a", Some(b"1"));
    let mut outcome = migrate(&source, &target, FROM, &manner(true), &mut |step| {
        if let Step::Verified { side: Side::Target, .. } = step {
            set(&source, "late", Some(b"2"));
        }
        true
    });
    assert!(refusal(outcome).contains("still written to"));
    assert!(refuse_unfinished(&target).is_err());
    outcome = migrate(&source, &target, FROM, &manner(true), &mut |_| true);
    assert_eq!(finished(outcome).0, 2);
}

#[test]
fn a_target_that_does_not_hold_the_same_is_never_released() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    set(&source, "a", Some(b"1"));
    let outcome = migrate(&source, &target, FROM, &manner(true), &mut |step| {
        if let Step::Verified { side: Side::Source, .. } = step {
            assert!(target.tamper(&path("a"), b"9"));
        }
        true
    });
    assert!(refusal(outcome).contains("not the same"));
    assert!(refuse_unfinished(&target).is_err());
}

#[test]
fn of_two_migrations_the_first_is_told_that_the_second_has_taken_over() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    set(&source, "a", Some(b"1"));
    let mut looks = 0;
    let outcome = migrate(&source, &target, FROM, &manner(false), &mut |step| {
        if matches!(step, Step::CaughtUp { .. }) {
            looks += 1;
        }
        if looks == 1 {
            finished(migrate(&source, &target, FROM, &manner(true), &mut |_| true));
            looks += 1;
            // The target is in use now, and what happens to the source is nothing to it any more.
            set(&target, "a", Some(b"newer"));
            set(&source, "a", Some(b"2"));
        }
        looks < 5
    });
    let refused = refusal(outcome);
    assert!(refused.contains("target") || refused.contains("taken over"), "{refused}");
    assert_eq!(held(&target), [("a".to_owned(), b"newer".to_vec())].into());
}

#[test]
fn a_store_that_is_away_for_a_while_is_waited_for() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    for i in 0..500 {
        set(&source, &format!("key/{i}"), Some(b"1"));
    }
    target.set_full(true);
    let full = migrate(&source, &target, FROM, &manner(true), &mut |_| true);
    assert!(matches!(full, Err(Trouble::Store(Side::Target, StoreError::Full(_)))), "{full:?}");
    target.set_full(false);
    let manner = Manner { tries: 3, ..manner(true) };
    let mut waits = 0;
    let dying = Eventful { fuse: Some(5), ..Eventful::new(&target) };
    let outcome = migrate(&source, &dying, FROM, &manner, &mut |step| {
        waits += u64::from(matches!(step, Step::Waiting { side: Side::Target, .. }));
        true
    });
    assert!(matches!(outcome, Err(Trouble::Store(Side::Target, StoreError::Unavailable(_)))), "{outcome:?}");
    assert_eq!(waits, 3);
    assert_eq!(finished(migrate(&source, &target, FROM, &manner, &mut |_| true)).0, 500);
}

fn change() -> impl Strategy<Value = (String, Option<Vec<u8>>)> {
    let at = (0..4_u8, 0..8_u8)
        .prop_map(|(kind, n)| format!("{}/{n}", ["a", "cmk", "nonce", "z"][usize::from(kind)]));
    (at, proptest::option::weighted(0.7, proptest::collection::vec(0..3_u8, 0..3)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to the source, and whenever the copy is killed: run again often enough, it ends with the same in both.
    #[test]
    fn a_copy_of_a_living_source_that_is_killed_and_run_again_ends_right(
        before in proptest::collection::vec(change(), 0..40),
        meanwhile in proptest::collection::vec(change(), 0..60),
        fuses in proptest::collection::vec(0..16_u64, 0..6),
        every in 1..4_u64,
        forgetful in 0..2_u64,
    ) {
        let (source, target) = (MemoryStore::new(), MemoryStore::new());
        for (at, value) in &before {
            set(&source, at, value.as_deref());
        }
        let mut left = meanwhile;
        let mut fuses = fuses.into_iter().fuse();
        let mut runs = 0;
        let records = loop {
            runs += 1;
            prop_assert!(runs < 100, "it ends");
            let living = Eventful {
                changes: Mutex::new(std::mem::take(&mut left)),
                every,
                forgetful: AtomicU64::new(forgetful),
                ..Eventful::new(&source)
            };
            let dying = Eventful { fuse: fuses.next(), ..Eventful::new(&target) };
            let manner = Manner { tries: 2, ..manner(true) };
            let outcome = migrate(&living, &dying, FROM, &manner, &mut |_| true);
            left = living.changes.into_inner();
            match outcome {
                Ok(End::Finished { held, .. }) => break held.records,
                // Run again.
                Err(Trouble::Store(..) | Trouble::Refused(_)) => {
                    prop_assert!(refuse_unfinished(&target).is_err() || held(&target).is_empty());
                }
                other => prop_assert!(false, "{other:?}"),
            }
        };
        prop_assert_eq!(held(&source), held(&target));
        prop_assert_eq!(records, held(&target).len() as u64);
        prop_assert!(refuse_unfinished(&target).is_ok());
    }
}
