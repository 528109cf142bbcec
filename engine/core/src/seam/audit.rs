//! The seam to where audit lines are kept. Lines arrive chained and authenticated; a sink only makes them last.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// A place that keeps chains of lines.
pub trait AuditLog: Send + Sync {
    /// Opens the chain `name` for appending; there is one writer a chain.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be written.
    fn open_chain(&self, name: &str) -> Result<Box<dyn AuditSink>, AuditError>;
    /// Names the chains that are kept, in order.
    ///
    /// # Errors
    /// [`AuditError`] where they cannot be read.
    fn chains(&self) -> Result<Vec<String>, AuditError>;
    /// Calls `each` with every line of the chain `name`, in order, without its line end, until it returns false; a last line without one
    /// comes with `torn` true. A line longer than is ever written comes cut, as the last one.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be read.
    fn read(&self, name: &str, each: &mut dyn FnMut(Line<'_>) -> bool) -> Result<(), AuditError>;
}

/// A line as it is kept.
pub struct Line<'a> {
    /// Its bytes without the line end.
    pub bytes: &'a [u8],
    /// Whether the line end is missing: a crash cut it, and its request was never answered.
    pub torn: bool,
}

/// One chain, open for appending.
pub trait AuditSink: Send {
    /// Appends whole lines; returns once the operating system has them all.
    ///
    /// # Errors
    /// `Full` where there was no space: nothing of `lines` is kept then.
    fn append(&mut self, lines: &[u8]) -> Result<(), AuditError>;
    /// Returns a handle that makes what was appended durable, for another thread.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be had.
    fn syncer(&self) -> Result<Box<dyn AuditSync>, AuditError>;
    /// Gives up the reserve, so that what is in flight can still be recorded after the disk has filled.
    fn release_reserve(&mut self);
    /// Tries to have the reserve again; true where it stands.
    fn restore_reserve(&mut self) -> bool;
}

/// Makes a chain durable.
pub trait AuditSync: Send {
    /// Returns once all that was appended before the call is durable.
    ///
    /// # Errors
    /// [`AuditError`] where the disk says no.
    fn sync(&mut self) -> Result<(), AuditError>;
}

/// Why audit lines could not be kept or read.
#[derive(Debug)]
pub enum AuditError {
    /// There is no space.
    Full(String),
    /// Another process writes the chain.
    Taken(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditError::Full(why) => write!(f, "no space for the audit log: {why}"),
            AuditError::Taken(why) => write!(f, "the audit log is taken: {why}"),
            AuditError::Failed(why) => write!(f, "the audit log failed: {why}"),
        }
    }
}

impl std::error::Error for AuditError {}

impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        Error::new(ErrorKind::AuditUnavailable, "the audit log cannot be written, so the request is refused")
            .caused_by(error)
    }
}
