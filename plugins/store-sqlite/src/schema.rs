//! The tables, their version, and how a connection is set up. A live record is its own latest change; only removals need
//! a log of their own, so that no value is ever kept twice.

use std::path::Path;
use std::time::Duration;

use keymill_core::seam::store::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::config::Config;
use crate::error::{OpenError, store_error};

/// The name of the database in the data directory.
pub(crate) const FILE: &str = "keymill.db";
/// What SQLite puts beside it.
pub(crate) const COMPANIONS: &[&str] = &["-wal", "-shm", "-journal"];
/// How long a connection waits for a lock; only another program on the same file can hold one for long.
pub(crate) const BUSY: Duration = Duration::from_secs(1);

const APPLICATION_ID: i32 = i32::from_be_bytes(*b"kmil");
const VERSION: i32 = 1;

/// `revision` is the commit that wrote a row, `position` its place in that commit.
const TABLES: &str = "
    CREATE TABLE records (
        path     TEXT    NOT NULL PRIMARY KEY COLLATE BINARY,
        value    BLOB    NOT NULL,
        revision INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX records_by_change ON records (revision, position);
    CREATE TABLE removals (
        revision INTEGER NOT NULL,
        position INTEGER NOT NULL,
        path     TEXT    NOT NULL COLLATE BINARY,
        PRIMARY KEY (revision, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE state (
        id        INTEGER PRIMARY KEY CHECK (id = 1),
        revision  INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    ) STRICT;
    INSERT INTO state VALUES (1, 0, 0);
";

/// Opens the one connection that writes, and makes the tables where they are absent.
pub(crate) fn open_writer(file: &Path, config: &Config) -> Result<Connection, OpenError> {
    let database = |error| OpenError::Database { file: file.to_owned(), source: store_error(error) };
    let mut connection = connect(file).map_err(database)?;
    check(&connection, file)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(database)?;
    if mode != "wal" {
        let why = format!("the file system does not allow WAL mode, only {mode}");
        return Err(OpenError::Database { file: file.to_owned(), source: StoreError::Unavailable(why) });
    }
    // FULL: a commit is on the disk before it is answered.
    connection.pragma_update(None, "synchronous", "FULL").map_err(database)?;
    if let Some(pages) = config.max_pages {
        connection.pragma_update(None, "max_page_count", pages).map_err(database)?;
    }
    make_tables(&mut connection).map_err(database)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    // What is removed or replaced is overwritten with zeros, in pages and cells.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Refuses what a newer keymill or another program wrote, before anything is changed.
fn check(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let database = |error| OpenError::Database { file: file.to_owned(), source: store_error(error) };
    let number = |name: &str| -> Result<i32, OpenError> {
        connection.pragma_query_value(None, name, |row| row.get(0)).map_err(database)
    };
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(database)?;
    match (number("application_id")?, number("user_version")?) {
        (0, 0) if tables == 0 => Ok(()),
        (APPLICATION_ID, VERSION) => Ok(()),
        (APPLICATION_ID, found) if found > VERSION => {
            Err(OpenError::Newer { file: file.to_owned(), found, known: VERSION })
        }
        _ => Err(OpenError::Foreign { file: file.to_owned() }),
    }
}

fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    fn fresh() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join(FILE);
        std::fs::File::create(&file).expect("the file is made");
        (directory, file)
    }

    fn open(file: &Path) -> Result<Connection, OpenError> {
        open_writer(file, &Config::new("unused"))
    }

    #[test]
    fn the_connections_are_set_up_to_last_and_to_forget() {
        let (_directory, file) = fresh();
        let writer = open(&file).expect("it opens");
        let number =
            |name: &str| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).expect(name);
        assert_eq!((number("synchronous"), number("secure_delete")), (2, 1));
        let mode: String = writer.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a mode");
        assert_eq!(mode, "wal");
        let reader = open_reader(&file).expect("it opens");
        assert!(reader.execute("DELETE FROM records", []).is_err());
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let (_directory, file) = fresh();
        let writer = open(&file).expect("it opens");
        writer.pragma_update(None, "user_version", VERSION + 6).expect("it is written");
        drop(writer);
        let refused = open(&file).expect_err("it is refused").to_string();
        assert!(refused.contains("schema version 7") && refused.contains("up to 1"), "{refused}");
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let (_directory, file) = fresh();
        let other = Connection::open(&file).expect("it opens");
        other.execute_batch("CREATE TABLE theirs (x)").expect("the table is made");
        drop(other);
        assert!(matches!(open(&file), Err(OpenError::Foreign { .. })));
    }

    #[test]
    fn a_file_that_is_no_database_is_corrupt() {
        let (_directory, file) = fresh();
        std::fs::write(&file, [0x5a; 8192]).expect("it is written");
        let refused = open(&file).expect_err("it is refused");
        assert!(matches!(refused, OpenError::Database { source: StoreError::Corrupt(_), .. }), "{refused}");
    }
}
