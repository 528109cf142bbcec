//! Why the store does not open, and what an answer of SQLite means for the engine. Texts of SQLite name no bound value,
//! so nothing that is stored can reach a log through them.

use std::path::PathBuf;
use std::{fmt, io};

use keymill_core::seam::store::StoreError;
use rusqlite::{ErrorCode, ffi};

/// Why the store does not open.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the data directory.
    InUse {
        /// The data directory.
        directory: PathBuf,
        /// Its process, where the lock file tells.
        pid: Option<u32>,
    },
    /// Others could read, change or replace what is stored.
    Unsafe {
        /// The file or directory at fault.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A newer keymill has written the database.
    Newer {
        /// The database.
        file: PathBuf,
        /// The version of its schema.
        found: i32,
        /// The newest version that is known here.
        known: i32,
    },
    /// The database belongs to another program.
    Foreign {
        /// The database.
        file: PathBuf,
    },
    /// The operating system says no.
    Io {
        /// What was opened or made.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// SQLite says no.
    Database {
        /// The database.
        file: PathBuf,
        /// Why not.
        source: StoreError,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { directory, pid: Some(pid) } => write!(
                f,
                "the data directory {} is in use by process {pid}: stop it, or choose another directory",
                directory.display()
            ),
            OpenError::InUse { directory, pid: None } => write!(
                f,
                "the data directory {} is in use by another process: stop it, or choose another directory",
                directory.display()
            ),
            OpenError::Unsafe { path, why } => write!(f, "{} {why}", path.display()),
            OpenError::Newer { file, found, known } => write!(
                f,
                "{} has schema version {found}, and this program knows versions up to {known}: \
                 use the keymill that wrote it, or a newer one",
                file.display()
            ),
            OpenError::Foreign { file } => {
                write!(f, "{} is a database of another program", file.display())
            }
            OpenError::Io { path, source } => write!(f, "{}: {source}", path.display()),
            OpenError::Database { file, source } => write!(f, "{}: {source}", file.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::Database { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Sorts an answer of SQLite by what to do next.
pub(crate) fn store_error(error: rusqlite::Error) -> StoreError {
    let why = error.to_string();
    let Some(code) = error.sqlite_error().copied() else {
        // A column of the wrong type or a missing row: nothing that this crate wrote reads so.
        return StoreError::Corrupt(why);
    };
    match (code.code, code.extended_code) {
        (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full(why),
        (_, ffi::SQLITE_IOERR_CORRUPTFS) => StoreError::Corrupt(why),
        // `Unknown` is SQLITE_ERROR: our statements are fixed, so the tables are not ours any more.
        (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown, _) => {
            StoreError::Corrupt(why)
        }
        _ => StoreError::Unavailable(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(code: i32) -> StoreError {
        store_error(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn an_answer_of_sqlite_says_what_to_do_next() {
        assert!(matches!(sorted(ffi::SQLITE_FULL), StoreError::Full(_)));
        assert!(matches!(sorted(ffi::SQLITE_IOERR_SHMSIZE), StoreError::Full(_)));
        assert!(matches!(sorted(ffi::SQLITE_CORRUPT_INDEX), StoreError::Corrupt(_)));
        assert!(matches!(sorted(ffi::SQLITE_NOTADB), StoreError::Corrupt(_)));
        assert!(matches!(sorted(ffi::SQLITE_ERROR), StoreError::Corrupt(_)));
        assert!(matches!(sorted(ffi::SQLITE_BUSY), StoreError::Unavailable(_)));
        assert!(matches!(sorted(ffi::SQLITE_IOERR_FSYNC), StoreError::Unavailable(_)));
    }
}
