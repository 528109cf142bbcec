//! Why a batch run ended early: the cause, and what of it is kept for `--resume`.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::seal::SealError;

/// Why a run ended before its input did.
#[derive(Debug)]
pub(crate) struct BatchError {
    cause: Cause,
    /// Rows that a resumed run need not do again.
    kept: Option<u64>,
}

/// What went wrong.
#[derive(Debug)]
pub(super) enum Cause {
    /// The command line asks for what cannot be.
    Usage(String),
    /// Input, output and checkpoint do not go together.
    Files(String),
    /// A file cannot be read or written.
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// A cell cannot be sealed or opened.
    Cell { row: u64, column: String, code: String, message: String },
    /// A row cannot be read.
    Row { row: u64, message: String },
    /// The server refuses a whole request, or the login.
    Refused { rows: Option<(u64, u64)>, message: String },
    /// The server does not answer, or not well, for too long.
    GaveUp { seconds: u64, message: String },
    /// The user asked to stop.
    Interrupted,
    /// A fault of ours.
    Internal(&'static str),
}

/// The code of a cell that is refused here, before the server sees it.
pub(super) const LOCAL_CODE: &str = "InvalidCell";

impl BatchError {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Cause::Usage(message.into()).into()
    }

    pub(super) fn files(message: impl Into<String>) -> Self {
        Cause::Files(message.into()).into()
    }

    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Cause::Io { what, path: path.to_owned(), source }.into()
    }

    pub(super) fn cell(row: u64, column: &str, message: impl Into<String>) -> Self {
        Cause::Cell { row, column: column.to_owned(), code: LOCAL_CODE.to_owned(), message: message.into() }
            .into()
    }

    pub(super) fn row(row: u64, message: impl Into<String>) -> Self {
        Cause::Row { row, message: message.into() }.into()
    }

    /// Says how many rows are kept for `--resume`, where any are.
    pub(super) fn with_kept(mut self, kept: Option<u64>) -> Self {
        self.kept = kept;
        self
    }

    /// Returns the exit code of the program: 2 for wrong use, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.cause {
            Cause::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Returns how many rows are written for good, where `--resume` continues behind them.
    #[cfg(test)]
    pub(super) fn resumable_rows(&self) -> Option<u64> {
        self.kept
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Usage(message) | Cause::Files(message) => f.write_str(message)?,
            Cause::Io { what, path, source } => write!(f, "cannot {what} {}: {source}", path.display())?,
            Cause::Cell { row, column, code, message } => {
                write!(f, "row {row}, column {column}: {code}: {message}")?;
            }
            Cause::Row { row, message } => write!(f, "row {row}: {message}")?,
            Cause::Refused { rows: Some((first, last)), message } => {
                write!(f, "rows {first} to {last}: {message}")?;
            }
            Cause::Refused { rows: None, message } => f.write_str(message)?,
            Cause::GaveUp { seconds, message } => write!(f, "gave up after {seconds} s: {message}")?,
            Cause::Interrupted => f.write_str("interrupted")?,
            Cause::Internal(message) => write!(f, "internal failure: {message}")?,
        }
        match self.kept {
            Some(rows) => write!(f, "; {rows} rows are written, continue with --resume"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<Cause> for BatchError {
    fn from(cause: Cause) -> Self {
        Self { cause, kept: None }
    }
}

impl From<SealError> for BatchError {
    fn from(error: SealError) -> Self {
        Cause::Refused { rows: None, message: error.to_string() }.into()
    }
}
