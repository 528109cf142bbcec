//! A fail point: the process "dies" at one step of a change. From there on neither the store nor the audit log takes another
//! byte, and the next start finds what a kill at that step would have left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keymill_core::seam::audit::{AuditError, AuditLog, AuditReader, AuditSink, AuditSync};
use keymill_core::seam::store::{Change, Entry, Lease, Page, Path, Revision, Row, Store, StoreError, Write};
use parking_lot::Mutex;

/// The step at which the process dies: a commit to a path of that beginning, or the append of a line that holds that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the commit.
    BeforeCommit(&'static str),
    /// After the commit, before anyone learns of it.
    AfterCommit(&'static str),
    /// Before the line.
    BeforeRecord(&'static str),
    /// After the line, before anyone learns of it.
    AfterRecord(&'static str),
}

/// A fail point, shared by a store and an audit log.
#[derive(Clone, Default)]
pub struct Fuse(Arc<State>);

#[derive(Default)]
struct State {
    armed: Mutex<Armed>,
    commits: AtomicU64,
}

#[derive(Default)]
struct Armed {
    point: Option<Point>,
    is_blown: bool,
}

impl Fuse {
    /// Makes a fuse that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the process die at the next step of that kind.
    pub fn arm(&self, point: Point) {
        self.0.armed.lock().point = Some(point);
    }

    /// Tells whether the process is dead.
    pub fn is_blown(&self) -> bool {
        self.0.armed.lock().is_blown
    }

    /// Returns the number of commits that were made.
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::Relaxed)
    }

    /// Puts the fuse around a store.
    pub fn store(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(FusedStore { fuse: self.clone(), inner })
    }

    /// Puts the fuse around an audit log.
    pub fn log(&self, inner: Arc<dyn AuditLog>) -> Arc<dyn AuditLog> {
        Arc::new(FusedLog { fuse: self.clone(), inner })
    }

    /// Blows where the armed point is one of those that `is_here` recognises; tells whether the process is dead.
    fn pass(&self, is_here: impl Fn(Point) -> bool) -> bool {
        let mut armed = self.0.armed.lock();
        if armed.point.is_some_and(is_here) {
            armed.is_blown = true;
        }
        armed.is_blown
    }
}

struct FusedStore {
    fuse: Fuse,
    inner: Arc<dyn Store>,
}

impl Store for FusedStore {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        self.inner.get(path)
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        self.inner.list(prefix, page)
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        self.inner.scan(each)
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        let dead = || StoreError::Unavailable("the process is dead".into());
        let touches = |prefix: &str| writes.iter().any(|write| write.path.as_str().starts_with(prefix));
        if self.fuse.pass(|point| matches!(point, Point::BeforeCommit(prefix) if touches(prefix))) {
            return Err(dead());
        }
        let revision = self.inner.commit(writes)?;
        self.fuse.0.commits.fetch_add(1, Ordering::Relaxed);
        match self.fuse.pass(|point| matches!(point, Point::AfterCommit(prefix) if touches(prefix))) {
            true => Err(dead()),
            false => Ok(revision),
        }
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        self.inner.watch(prefix, from, each)
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.inner.lease(name, holder, ttl)
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision()
    }
}

struct FusedLog {
    fuse: Fuse,
    inner: Arc<dyn AuditLog>,
}

impl AuditLog for FusedLog {
    fn open_chain(&self, name: &str) -> Result<Box<dyn AuditSink>, AuditError> {
        Ok(Box::new(FusedSink { fuse: self.fuse.clone(), inner: self.inner.open_chain(name)? }))
    }

    fn chains(&self) -> Result<Vec<String>, AuditError> {
        self.inner.chains()
    }

    fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
        self.inner.reader(name)
    }

    fn bytes(&self, name: &str) -> Result<u64, AuditError> {
        self.inner.bytes(name)
    }

    fn remove(&self, name: &str) -> Result<(), AuditError> {
        self.inner.remove(name)
    }
}

struct FusedSink {
    fuse: Fuse,
    inner: Box<dyn AuditSink>,
}

fn dead() -> AuditError {
    AuditError::Failed("the process is dead".into())
}

impl AuditSink for FusedSink {
    fn append(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        let holds = |text: &str| lines.windows(text.len()).any(|window| window == text.as_bytes());
        if self.fuse.pass(|point| matches!(point, Point::BeforeRecord(text) if holds(text))) {
            return Err(dead());
        }
        self.inner.append(lines)?;
        match self.fuse.pass(|point| matches!(point, Point::AfterRecord(text) if holds(text))) {
            true => Err(dead()),
            false => Ok(()),
        }
    }

    fn syncer(&self) -> Result<Box<dyn AuditSync>, AuditError> {
        Ok(Box::new(FusedSync { fuse: self.fuse.clone(), inner: self.inner.syncer()? }))
    }

    fn release_reserve(&mut self) {
        self.inner.release_reserve();
    }

    fn restore_reserve(&mut self) -> bool {
        !self.fuse.is_blown() && self.inner.restore_reserve()
    }
}

struct FusedSync {
    fuse: Fuse,
    inner: Box<dyn AuditSync>,
}

impl AuditSync for FusedSync {
    fn sync(&mut self) -> Result<(), AuditError> {
        if self.fuse.is_blown() { Err(dead()) } else { self.inner.sync() }
    }
}
