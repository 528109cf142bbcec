//! The store itself: the seam of the engine over one writer, a few readers, and a signal between commits and watches.

use std::fmt;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{
    Change, Entry, Goal, Lease, Page, Path, Revision, Row, Store, StoreError, Write,
};
use parking_lot::{Condvar, Mutex};

use crate::config::Config;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::leases::{Answer, Leases};
use crate::readers::{Changed, Readers};
use crate::schema::{COMPANIONS, FILE};
use crate::writer::Writer;

/// How often a watch looks, and says that it is current; the seam asks for at least once a second.
const IDLE: Duration = Duration::from_millis(500);

/// A store in one directory, which this process alone has until the store is dropped.
pub struct SqliteStore {
    // In the order of their drop: the last connection that closes cleans the log, and the lock goes after it.
    readers: Readers,
    writer: Mutex<Writer>,
    leases: Mutex<Leases>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    directory: Directory,
}

struct Progress {
    revision: Revision,
    is_closed: bool,
}

/// Opens the store in a directory, or makes it there.
///
/// # Errors
/// [`OpenError`] where another process has the directory, others could write to it, or the database is not one of ours.
pub fn open(config: Config) -> Result<SqliteStore, OpenError> {
    let directory = Directory::take(&config.directory)?;
    let file = directory.private_file(FILE, COMPANIONS)?;
    let writer = Writer::open(&file, &config)?;
    let revision = writer.revision().map_err(|source| OpenError::Database { file: file.clone(), source })?;
    Ok(SqliteStore {
        readers: Readers::new(file),
        writer: Mutex::new(writer),
        leases: Mutex::default(),
        progress: Mutex::new(Progress { revision, is_closed: false }),
        progressed: Condvar::new(),
        directory,
    })
}

impl SqliteStore {
    /// Ends all watches and refuses writes from now on; reads go on, and the directory is given up with the drop.
    pub fn close(&self) {
        self.progress.lock().is_closed = true;
        self.progressed.notify_all();
    }

    /// Waits until there is something beyond `seen`, for a while at most.
    fn wait_beyond(&self, seen: Revision) {
        let until = Instant::now() + IDLE;
        let mut progress = self.progress.lock();
        while progress.revision <= seen && !progress.is_closed {
            if self.progressed.wait_until(&mut progress, until).timed_out() {
                return;
            }
        }
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Writer) -> Result<Revision, StoreError>,
    ) -> Result<Revision, StoreError> {
        let mut writer = self.writer.lock();
        if self.progress.lock().is_closed {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        let revision = change(&mut writer)?;
        // Still under the writer's lock, so that the revision only grows.
        self.progress.lock().revision = revision;
        self.progressed.notify_all();
        Ok(revision)
    }

    /// Cleans the log where that is due and nobody writes: a commit does it itself.
    fn tidy(&self) {
        if let Some(mut writer) = self.writer.try_lock() {
            writer.clean_if_due(Instant::now());
        }
    }
}

impl Store for SqliteStore {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        self.readers.get(path)
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        self.readers.list(prefix, page)
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        self.readers.scan(each)
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        if writes.is_empty() {
            return self.revision();
        }
        self.write(|writer| writer.commit(writes, Instant::now()))
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let (mut told, mut goal) = (from, Goal::default());
        while !self.progress.lock().is_closed {
            let asked = Instant::now();
            let changes = self.readers.changes(prefix, told)?;
            for commit in changes.rows.chunk_by(|one, next| one.revision == next.revision) {
                let writes: Vec<_> = commit.iter().map(Changed::wrote).collect();
                if !each(Change::Commit { revision: commit[0].revision, writes: &writes }) {
                    return Ok(());
                }
            }
            told = changes.upto;
            if let Some(as_of) = goal.reached(asked, changes.newest, told)
                && !each(Change::Current { as_of })
            {
                return Ok(());
            }
            if told == changes.newest {
                self.tidy();
                self.wait_beyond(told);
            }
        }
        Ok(())
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        let mut leases = self.leases.lock();
        match leases.ask(name, holder, ttl, Instant::now()) {
            Answer::Renewed(lease) => Ok(Some(lease)),
            Answer::Taken => Ok(None),
            Answer::Free => {
                let fence = self.write(Writer::advance)?;
                Ok(Some(leases.give(name, holder, fence, ttl, Instant::now())))
            }
        }
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.progress.lock().revision)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteStore({})", self.directory.path.display())
    }
}
