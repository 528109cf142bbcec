//! The one connection that writes: compare and commit, the growing revision, and the cleaning of the write-ahead log.

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Path, Revision, StoreError, Write, check_distinct};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::config::Config;
use crate::error::{OpenError, store_error};
use crate::schema::{BUSY, open_writer};

/// How long a replaced value may stay in the write-ahead log before it is cleaned.
pub(crate) const CLEAN_AFTER: Duration = Duration::from_secs(1);
/// How long the cleaning waits for readers; it is tried again later.
const CLEAN_WAIT: Duration = Duration::from_millis(50);

/// The connection that writes.
pub(crate) struct Writer {
    connection: Connection,
    kept_removals: u32,
    /// Since when the log holds values that the store does not.
    stale_since: Option<Instant>,
}

/// What a transaction did to values that were there before.
#[derive(Default)]
struct Effect {
    removed: bool,
    replaced: bool,
}

impl Writer {
    /// Opens the database, and cleans what a crash left in the log.
    pub(crate) fn open(file: &FilePath, config: &Config) -> Result<Self, OpenError> {
        let connection = open_writer(file, config)?;
        let mut writer = Self { connection, kept_removals: config.kept_removals, stale_since: None };
        writer.clean(Instant::now());
        Ok(writer)
    }

    /// Returns the revision of the newest commit.
    pub(crate) fn revision(&self) -> Result<Revision, StoreError> {
        stored_revision(&self.connection).map_err(store_error)
    }

    /// Writes all or none; the commit is durable, and what it removed is gone from the files, when this returns.
    pub(crate) fn commit(&mut self, writes: &[Write], now: Instant) -> Result<Revision, StoreError> {
        check_distinct(writes)?;
        let kept = self.kept_removals;
        let (revision, effect) = self.transact(|transaction, revision| {
            let mut effect = Effect::default();
            for (position, write) in writes.iter().enumerate() {
                apply(transaction, write, revision, position, &mut effect)?;
            }
            if effect.removed {
                forget_removals(transaction, kept).map_err(store_error)?;
            }
            Ok(effect)
        })?;
        if effect.removed || effect.replaced {
            self.stale_since.get_or_insert(now);
        }
        if effect.removed {
            self.clean(now);
        } else {
            self.clean_if_due(now);
        }
        Ok(revision)
    }

    /// Takes a new revision without writing a record.
    pub(crate) fn advance(&mut self) -> Result<Revision, StoreError> {
        self.transact(|_, _| Ok(())).map(|(revision, ())| revision)
    }

    /// Cleans the log where values that are no longer stored have been in it for long enough.
    pub(crate) fn clean_if_due(&mut self, now: Instant) {
        if self.stale_since.is_some_and(|since| now.duration_since(since) >= CLEAN_AFTER) {
            self.clean(now);
        }
    }

    /// Moves the log into the database and truncates it. A failure costs no commit: it is tried again when it is due.
    fn clean(&mut self, now: Instant) {
        let cleaned = self.connection.busy_timeout(CLEAN_WAIT).and_then(|()| {
            let busy = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy: i64 = self.connection.query_row(busy, [], |row| row.get(0))?;
            Ok(busy == 0)
        });
        // It only sets a number in the connection; were it to fail, commits would wait for less.
        let _ = self.connection.busy_timeout(BUSY);
        self.stale_since = if cleaned.unwrap_or(false) { None } else { Some(now) };
    }

    fn transact<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, i64) -> Result<T, StoreError>,
    ) -> Result<(Revision, T), StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
        let revision: i64 = transaction
            .prepare_cached("UPDATE state SET revision = revision + 1 RETURNING revision")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(store_error)?;
        let done = change(&transaction, revision)?;
        transaction.commit().map_err(store_error)?;
        Ok((Revision(revision.cast_unsigned()), done))
    }
}

/// Reads the revision that the connection sees.
pub(crate) fn stored_revision(connection: &Connection) -> rusqlite::Result<Revision> {
    let mut statement = connection.prepare_cached("SELECT revision FROM state")?;
    statement.query_row([], |row| Ok(Revision(row.get::<_, i64>(0)?.cast_unsigned())))
}

fn apply(
    transaction: &Transaction<'_>,
    write: &Write,
    revision: i64,
    position: usize,
    effect: &mut Effect,
) -> Result<(), StoreError> {
    let present = present_revision(transaction, &write.path).map_err(store_error)?;
    if present != write.expected {
        return Err(StoreError::Conflict(write.path.clone()));
    }
    let position = i64::try_from(position).expect("a commit in memory has fewer than 2^63 writes");
    let path = write.path.as_str();
    match (&write.value, present) {
        (Some(value), _) => {
            effect.replaced |= present.is_some();
            transaction
                .prepare_cached(
                    "INSERT INTO records (path, value, revision, position) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (path) DO UPDATE
                     SET value = excluded.value, revision = excluded.revision, position = excluded.position",
                )
                .and_then(|mut statement| statement.execute(params![path, value, revision, position]))
                .map_err(store_error)?;
        }
        (None, Some(_)) => {
            effect.removed = true;
            transaction
                .prepare_cached("DELETE FROM records WHERE path = ?1")
                .and_then(|mut statement| statement.execute([path]))
                .map_err(store_error)?;
            transaction
                .prepare_cached("INSERT INTO removals (revision, position, path) VALUES (?1, ?2, ?3)")
                .and_then(|mut statement| statement.execute(params![revision, position, path]))
                .map_err(store_error)?;
        }
        (None, None) => {}
    }
    Ok(())
}

fn present_revision(transaction: &Transaction<'_>, path: &Path) -> rusqlite::Result<Option<Revision>> {
    transaction
        .prepare_cached("SELECT revision FROM records WHERE path = ?1")?
        .query_row([path.as_str()], |row| Ok(Revision(row.get::<_, i64>(0)?.cast_unsigned())))
        .optional()
}

/// Keeps the newest removals, and notes up to where they are no longer known.
fn forget_removals(transaction: &Transaction<'_>, kept: u32) -> rusqlite::Result<()> {
    let beyond: Option<i64> = transaction
        .prepare_cached(
            "SELECT revision FROM removals ORDER BY revision DESC, position DESC LIMIT 1 OFFSET ?1",
        )?
        .query_row([kept], |row| row.get(0))
        .optional()?;
    if let Some(revision) = beyond {
        transaction.prepare_cached("DELETE FROM removals WHERE revision <= ?1")?.execute([revision])?;
        transaction.prepare_cached("UPDATE state SET compacted = ?1")?.execute([revision])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::schema::FILE;

    fn fresh(kept_removals: u32) -> (TempDir, Writer) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join(FILE);
        fs::File::create(&file).expect("the file is made");
        let config = Config { kept_removals, ..Config::new(directory.path()) };
        let writer = Writer::open(&file, &config).expect("it opens");
        (directory, writer)
    }

    fn put(path: &str, expected: Option<Revision>, value: &[u8]) -> Write {
        Write { path: Path::new(path).expect("a path"), expected, value: Some(value.to_vec()) }
    }

    fn holds(directory: &TempDir, marker: &[u8]) -> bool {
        fs::read_dir(directory.path()).expect("it is there").any(|file| {
            let bytes = fs::read(file.expect("a file").path()).expect("it is readable");
            bytes.windows(marker.len()).any(|window| window == marker)
        })
    }

    /// Values in cells of one page, and one on overflow pages, each with the marker at both ends.
    fn marked(marker: &[u8], bytes: usize) -> Vec<u8> {
        [marker, &vec![0x20; bytes][..], marker].concat()
    }

    #[test]
    fn removed_values_are_gone_from_all_files_when_the_commit_is_answered() {
        let (directory, mut writer) = fresh(16);
        let now = Instant::now();
        let sizes = [0, 300, 900, 40_000, 300_000];
        let puts: Vec<_> = (0..50)
            .map(|i| put(&format!("key/{i:02}"), None, &marked(b"MARKED-MATERIAL", sizes[i % sizes.len()])))
            .collect();
        let revision = writer.commit(&puts, now).expect("it commits");
        assert!(holds(&directory, b"MARKED-MATERIAL"));
        let removals: Vec<_> = puts
            .into_iter()
            .map(|put| Write { path: put.path, expected: Some(revision), value: None })
            .collect();
        writer.commit(&removals, now).expect("it commits");
        assert!(!holds(&directory, b"MARKED-MATERIAL"));
    }

    #[test]
    fn replaced_values_are_gone_from_all_files_after_a_second() {
        let (directory, mut writer) = fresh(16);
        let start = Instant::now();
        for bytes in [0, 900, 40_000] {
            let path = format!("key/{bytes}");
            let first = writer
                .commit(&[put(&path, None, &marked(b"OLD-MATERIAL", bytes))], start)
                .expect("it commits");
            writer.commit(&[put(&path, Some(first), b"destroyed")], start).expect("it commits");
        }
        writer.clean_if_due(start + CLEAN_AFTER / 2);
        assert!(holds(&directory, b"OLD-MATERIAL"));
        writer.clean_if_due(start + CLEAN_AFTER);
        assert!(!holds(&directory, b"OLD-MATERIAL"));
        assert!(holds(&directory, b"destroyed"));
    }

    #[test]
    fn a_cleaning_that_a_reader_holds_up_costs_no_commit_and_is_made_up_for() {
        let (directory, mut writer) = fresh(16);
        let start = Instant::now();
        let first = writer.commit(&[put("key/a", None, b"OLD-MATERIAL")], start).expect("it commits");
        let mut reader = crate::schema::open_reader(&directory.path().join(FILE)).expect("it opens");
        let reading = reader.transaction().expect("it begins");
        stored_revision(&reading).expect("it reads");
        let removal = Write { value: None, ..put("key/a", Some(first), b"") };
        writer.commit(&[removal], start).expect("it commits");
        assert!(holds(&directory, b"OLD-MATERIAL"));
        drop(reading);
        writer.clean_if_due(start + CLEAN_AFTER);
        assert!(!holds(&directory, b"OLD-MATERIAL"));
    }

    #[test]
    fn removals_are_forgotten_beyond_those_that_are_kept() {
        let (_directory, mut writer) = fresh(3);
        for i in 0..10 {
            let path = format!("key/{i}");
            let revision = writer.commit(&[put(&path, None, b"")], Instant::now()).expect("it commits");
            let removal = Write { value: None, ..put(&path, Some(revision), b"") };
            writer.commit(&[removal], Instant::now()).expect("it commits");
        }
        let count =
            |sql: &str| -> i64 { writer.connection.query_row(sql, [], |row| row.get(0)).expect("it reads") };
        assert_eq!(count("SELECT count(*) FROM removals"), 3);
        assert_eq!(count("SELECT compacted FROM state"), 14);
    }
}
