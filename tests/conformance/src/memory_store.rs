//! A store in memory: the simplest thing that keeps the promises of the seam, for tests that need no disk. It stands
//! apart from the suite since other crates' tests use it too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{
    Change, Entry, Lease, Page, Path, Revision, Row, Store, StoreError, Write, Wrote, check_distinct,
};
use parking_lot::{Condvar, Mutex};

/// How often a watch says that it is current.
const IDLE: Duration = Duration::from_millis(500);
/// Changes that a watch can be told of, at most.
const KEPT_CHANGES: usize = 4096;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Path, (Vec<u8>, Revision)>,
    commits: VecDeque<Committed>,
    /// Writes of those commits.
    kept: usize,
    /// Commits up to here are no longer all known.
    compacted: Revision,
    revision: Revision,
    leases: HashMap<Path, Held>,
    is_full: bool,
}

struct Committed {
    revision: Revision,
    writes: Vec<(Path, Option<Vec<u8>>)>,
}

struct Held {
    holder: String,
    lease: Lease,
    until: Option<Instant>,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the store refuse writes as `Full`, or take them again.
    pub fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    /// Replaces the bytes of a record behind the back of its revision and of all watches, as a damaged disk would;
    /// false where there is no such record.
    pub fn tamper(&self, path: &Path, value: &[u8]) -> bool {
        match self.state.lock().records.get_mut(path) {
            Some(record) => {
                record.0 = value.to_vec();
                true
            }
            None => false,
        }
    }
}

impl State {
    fn check(&self, writes: &[Write]) -> Result<(), StoreError> {
        if self.is_full {
            return Err(StoreError::Full("the test says so".into()));
        }
        check_distinct(writes)?;
        let fits = |write: &Write| self.records.get(&write.path).map(|record| record.1) == write.expected;
        match writes.iter().find(|write| !fits(write)) {
            Some(write) => Err(StoreError::Conflict(write.path.clone())),
            None => Ok(()),
        }
    }

    fn apply(&mut self, writes: &[Write]) {
        let mut done = Vec::new();
        for write in writes {
            let was_there = match &write.value {
                Some(value) => {
                    self.records.insert(write.path.clone(), (value.clone(), self.revision));
                    true
                }
                None => self.records.remove(&write.path).is_some(),
            };
            if was_there {
                done.push((write.path.clone(), write.value.clone()));
            }
        }
        self.kept += done.len();
        self.commits.push_back(Committed { revision: self.revision, writes: done });
        // The commit itself goes, too, where it is larger than what is kept.
        while self.kept > KEPT_CHANGES
            && let Some(oldest) = self.commits.pop_front()
        {
            self.kept -= oldest.writes.len();
            self.compacted = oldest.revision;
        }
    }

    /// Returns what was committed under a prefix behind a revision.
    fn commits_under(&self, prefix: &Path, after: Revision) -> Result<Vec<Committed>, StoreError> {
        if after < self.compacted || after > self.revision {
            return Err(StoreError::Compacted);
        }
        let first = self.commits.partition_point(|commit| commit.revision <= after);
        let under = |commit: &Committed| {
            let is_under = |write: &&(Path, _)| write.0.as_str().starts_with(prefix.as_str());
            let writes: Vec<_> = commit.writes.iter().filter(is_under).cloned().collect();
            (!writes.is_empty()).then_some(Committed { revision: commit.revision, writes })
        };
        Ok(self.commits.range(first..).filter_map(under).collect())
    }
}

impl Store for MemoryStore {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        Ok(self.state.lock().records.get(path).map(|record| entry(path, record)))
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        let from = match page.after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.state.lock();
        let found = state.records.range((from, Bound::Unbounded));
        let under = found.take_while(|(path, _)| path.as_str().starts_with(prefix.as_str()));
        Ok(under.take(page.limit).map(|(path, record)| entry(path, record)).collect())
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        // Copied, since `each` may use the store.
        let records = self.state.lock().records.clone();
        let _stopped = records
            .iter()
            .all(|(path, (value, revision))| each(Row { path: path.as_str(), value, revision: *revision }));
        Ok(())
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        let mut state = self.state.lock();
        if writes.is_empty() {
            return Ok(state.revision);
        }
        state.check(writes)?;
        state.revision.0 += 1;
        state.apply(writes);
        self.changed.notify_all();
        Ok(state.revision)
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let mut seen = from;
        loop {
            let as_of = Instant::now();
            let state = self.state.lock();
            let commits = state.commits_under(prefix, seen)?;
            seen = state.revision;
            // `each` may use the store.
            drop(state);
            for Committed { revision, writes } in &commits {
                let writes: Vec<_> =
                    writes.iter().map(|(path, value)| Wrote { path, value: value.as_deref() }).collect();
                if !each(Change::Commit { revision: *revision, writes: &writes }) {
                    return Ok(());
                }
            }
            if !each(Change::Current { as_of }) {
                return Ok(());
            }
            let mut state = self.state.lock();
            if state.revision <= seen {
                self.changed.wait_for(&mut state, IDLE);
            }
        }
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let now = Instant::now();
        let state = &mut *self.state.lock();
        state.leases.retain(|_, held| held.until.is_none_or(|until| now < until));
        if let Some(held) = state.leases.get_mut(name) {
            if held.holder != holder {
                return Ok(None);
            }
            held.until = now.checked_add(ttl);
            return Ok(Some(held.lease));
        }
        state.check(&[])?;
        state.revision.0 += 1;
        let lease = Lease { fence: state.revision };
        let held = Held { holder: holder.to_owned(), lease, until: now.checked_add(ttl) };
        state.leases.insert(name.clone(), held);
        Ok(Some(lease))
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.state.lock().revision)
    }
}

fn entry(path: &Path, (value, revision): &(Vec<u8>, Revision)) -> Entry {
    Entry { path: path.clone(), value: value.clone(), revision: *revision }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fixture;

    crate::store_suite!(|| Fixture::new(MemoryStore::new()));

    #[test]
    fn a_full_store_refuses_writes_and_keeps_reading() {
        let (store, path) = (MemoryStore::new(), Path::new("key/a").expect("a path"));
        let write = Write { path: path.clone(), expected: None, value: Some(b"1".to_vec()) };
        store.set_full(true);
        assert!(matches!(store.commit(std::slice::from_ref(&write)), Err(StoreError::Full(_))));
        assert!(store.get(&path).expect("it reads").is_none());
        store.set_full(false);
        store.commit(&[write]).expect("there is space");
    }

    #[test]
    fn tampering_leaves_the_revision() {
        let (store, path) = (MemoryStore::new(), Path::new("key/a").expect("a path"));
        assert!(!store.tamper(&path, b"2"));
        let write = Write { path: path.clone(), expected: None, value: Some(b"1".to_vec()) };
        let revision = store.commit(&[write]).expect("it commits");
        assert!(store.tamper(&path, b"2"));
        let entry = store.get(&path).expect("it reads").expect("it is there");
        assert_eq!((entry.value, entry.revision), (b"2".to_vec(), revision));
    }
}
