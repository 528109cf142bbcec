//! The connections that read: a few, lent one at a time, so that no read waits for the sync of a write. Also what is read
//! over them. A row that was altered outside keymill never stops the rest: its seal does not open, or its path is missed.

use std::path::PathBuf;

use keymill_core::seam::store::{Entry, Page, Path, Revision, Row as StoreRow, StoreError, Wrote};
use parking_lot::{Condvar, Mutex};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::error::store_error;
use crate::schema::open_reader;
use crate::writer::stored_revision;

/// Connections that read at the same time, at most; further readers wait for one to come back.
const MAX_READERS: usize = 8;
/// Changes that are read in one go, in rows and bytes of values; the last commit is read to its end, however large it is.
const CHUNK_ROWS: usize = 64;
const CHUNK_BYTES: usize = 1 << 20;

const GET: &str = "SELECT path, value, revision FROM records WHERE path = ?1";
const LIST: &str =
    "SELECT path, value, revision FROM records WHERE path >= ?1 AND path < ?2 ORDER BY path LIMIT ?3";
/// In the order of the rows in the file: a list goes by an index, and from each of its entries to a row elsewhere.
const SCAN: &str = "SELECT path, value, revision FROM records ORDER BY rowid";
/// The upper bound keeps out rows whose revision was altered to one that is yet to come.
const CHANGES: &str = "
    SELECT path, value, revision, position, 0 FROM records
    WHERE revision > ?1 AND revision <= ?2 AND path >= ?3 AND path < ?4
    UNION ALL
    SELECT path, x'', revision, position, 1 FROM removals
    WHERE revision > ?1 AND revision <= ?2 AND path >= ?3 AND path < ?4
    ORDER BY 3, 4";

/// The connections that read.
pub(crate) struct Readers {
    file: PathBuf,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    lent: usize,
}

/// The changes of some whole commits, in order.
pub(crate) struct Changes {
    pub(crate) rows: Vec<Changed>,
    /// The last commit that was read: where to go on.
    pub(crate) upto: Revision,
    /// The newest that there was.
    pub(crate) newest: Revision,
}

/// One change.
pub(crate) struct Changed {
    pub(crate) path: Path,
    /// `None`: the record was removed.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) revision: Revision,
}

impl Changed {
    /// Shows it as a watch tells it.
    pub(crate) fn wrote(&self) -> Wrote<'_> {
        Wrote { path: &self.path, value: self.value.as_deref() }
    }
}

impl Readers {
    /// Makes an empty pool; connections are opened when they are first needed.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Reads one record.
    pub(crate) fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        let read = |connection: &mut Connection| {
            connection.prepare_cached(GET)?.query_row([path.as_str()], entry).optional()
        };
        Ok(self.with(read)?.flatten())
    }

    /// Reads a page of records.
    pub(crate) fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        let (from, end) = (prefix.start_behind(page.after), prefix.end());
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        self.with(|connection| {
            let mut statement = connection.prepare_cached(LIST)?;
            let rows = statement.query_map(params![from, end, limit], entry)?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// Reads all records, as one snapshot of the store.
    pub(crate) fn scan(&self, each: &mut dyn FnMut(StoreRow<'_>) -> bool) -> Result<(), StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(SCAN)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let Some(path) = text_of(row.get_ref(0)?) else { continue };
                let (value, revision) = (bytes_of(row.get_ref(1)?), revision_of(row.get_ref(2)?));
                if !each(StoreRow { path, value, revision }) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Reads the changes under `prefix` that follow the commit `after`, as one snapshot of the store.
    pub(crate) fn changes(&self, prefix: &Path, after: Revision) -> Result<Changes, StoreError> {
        self.with(|connection| {
            let snapshot = connection.transaction()?;
            let newest = stored_revision(&snapshot)?;
            let compacted: i64 =
                snapshot.prepare_cached("SELECT compacted FROM state")?.query_row([], |row| row.get(0))?;
            // A revision that is yet to come was read from another history of this store.
            if after.0 < compacted.cast_unsigned() || after > newest {
                return Ok(None);
            }
            read_changes(&snapshot, prefix, after, newest).map(Some)
        })?
        .ok_or(StoreError::Compacted)
    }

    fn with<T>(&self, read: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut lent = self.lend()?;
        let connection = lent.connection.as_mut().expect("it is there until the drop");
        read(connection).map_err(store_error)
    }

    fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let mut pool = self.pool.lock();
        while pool.lent == MAX_READERS {
            self.returned.wait(&mut pool);
        }
        pool.lent += 1;
        let idle = pool.idle.pop();
        drop(pool);
        let mut lent = Lent { readers: self, connection: idle };
        if lent.connection.is_none() {
            lent.connection = Some(open_reader(&self.file).map_err(store_error)?);
        }
        Ok(lent)
    }
}

struct Lent<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.pool.lock();
        pool.lent -= 1;
        pool.idle.extend(self.connection.take());
        self.readers.returned.notify_one();
    }
}

fn read_changes(
    snapshot: &Transaction<'_>,
    prefix: &Path,
    after: Revision,
    newest: Revision,
) -> rusqlite::Result<Changes> {
    let (from, to) = (after.0.cast_signed(), newest.0.cast_signed());
    let mut changes = Changes { rows: Vec::new(), upto: newest, newest };
    let mut statement = snapshot.prepare_cached(CHANGES)?;
    let mut found = statement.query(params![from, to, prefix.as_str(), prefix.end()])?;
    let (mut rows, mut bytes, mut last) = (0, 0, after);
    while let Some(row) = found.next()? {
        let revision = revision_of(row.get_ref(2)?);
        if revision != last && (rows >= CHUNK_ROWS || bytes > CHUNK_BYTES) {
            changes.upto = last;
            break;
        }
        (rows, last) = (rows + 1, revision);
        let is_removal: bool = row.get(4)?;
        if let Some(Entry { path, value, revision }) = entry(row)? {
            bytes += value.len();
            changes.rows.push(Changed { path, value: (!is_removal).then_some(value), revision });
        }
    }
    Ok(changes)
}

/// Reads a row of path, value and revision; `None` where the path was altered to something that is no path.
fn entry(row: &Row<'_>) -> rusqlite::Result<Option<Entry>> {
    let path = text_of(row.get_ref(0)?).and_then(|text| Path::new(text).ok());
    let (value, revision) = (bytes_of(row.get_ref(1)?), revision_of(row.get_ref(2)?));
    Ok(path.map(|path| Entry { path, value: value.to_vec(), revision }))
}

fn text_of(value: ValueRef<'_>) -> Option<&str> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

fn bytes_of(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes,
        _ => &[],
    }
}

fn revision_of(value: ValueRef<'_>) -> Revision {
    match value {
        ValueRef::Integer(number) => Revision(number.cast_unsigned()),
        _ => Revision(0),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::config::Config;
    use crate::schema::{FILE, open_writer};

    fn fresh() -> (TempDir, Connection, Readers) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join(FILE);
        std::fs::File::create(&file).expect("the file is made");
        let writer = open_writer(&file, &Config::new(directory.path())).expect("it opens");
        (directory, writer, Readers::new(file))
    }

    fn plan(connection: &Connection, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("it prepares");
        let steps = statement.query_map(parameters, |row| row.get(3)).expect("it runs");
        steps.collect::<Result<_, _>>().expect("it reads")
    }

    #[test]
    fn lists_and_watches_walk_an_index_and_sort_nothing() {
        let (_directory, writer, _readers) = fresh();
        let list = plan(&writer, LIST, &[&"a", &"b", &1]);
        assert!(list.iter().all(|step| step.starts_with("SEARCH records USING INDEX")), "{list:?}");
        let watch = plan(&writer, CHANGES, &[&0, &1, &"a", &"b"]);
        assert!(watch.iter().any(|step| step.contains("USING INDEX records_by_change")), "{watch:?}");
        assert!(watch.iter().any(|step| step.contains("removals USING PRIMARY KEY")), "{watch:?}");
        assert!(!watch.iter().any(|step| step.contains("SCAN") || step.contains("TEMP B-TREE")), "{watch:?}");
    }

    #[test]
    fn a_scan_reads_the_file_from_its_begin_to_its_end() {
        let (_directory, writer, _readers) = fresh();
        assert_eq!(plan(&writer, SCAN, &[]), ["SCAN records"]);
    }

    #[test]
    fn an_altered_row_does_not_stop_the_rest() {
        let (_directory, writer, readers) = fresh();
        writer
            .execute_batch(
                "UPDATE state SET revision = 3;
                 INSERT INTO records VALUES ('key/a', x'01', 1, 0), ('key/../b', x'02', 2, 0),
                     ('key/c', x'03', 9000, 0), ('key/d', x'04', 3, 0);",
            )
            .expect("it is written");
        let prefix = Path::new("key/").expect("a path");
        let listed = readers.list(&prefix, Page { after: None, limit: 9 }).expect("it lists");
        let paths: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["key/a", "key/c", "key/d"]);
        let mut scanned = Vec::new();
        readers
            .scan(&mut |row| {
                scanned.push((row.path.to_owned(), row.value.to_vec(), row.revision));
                true
            })
            .expect("it scans");
        let of = |path: &str, value, revision| (path.to_owned(), vec![value], Revision(revision));
        let altered = of("key/../b", 2, 2);
        assert_eq!(scanned, [of("key/a", 1, 1), altered, of("key/c", 3, 9000), of("key/d", 4, 3)]);
        let changes = readers.changes(&prefix, Revision(0)).expect("it reads");
        let paths: Vec<_> = changes.rows.iter().map(|changed| changed.path.as_str()).collect();
        assert_eq!(paths, ["key/a", "key/d"]);
        assert_eq!((changes.upto, changes.newest), (Revision(3), Revision(3)));
    }

    #[test]
    fn readers_beyond_the_bound_wait_for_one_to_come_back() {
        let (_directory, _writer, readers) = fresh();
        let mut all: Vec<_> = (0..MAX_READERS).map(|_| readers.lend().expect("it opens")).collect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| readers.get(&Path::new("key/a").expect("a path")));
            all.pop();
            assert!(waiting.join().expect("it ends").expect("it reads").is_none());
        });
        drop(all);
        assert_eq!(readers.pool.lock().idle.len(), MAX_READERS);
    }
}
