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
    /// Opens the chain `name` for reading, from its first line.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be read.
    fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError>;
    /// Calls `each` with every line of the chain `name`, as [`AuditReader::next_line`] gives them, until it returns false.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be read.
    fn read(&self, name: &str, each: &mut dyn FnMut(Line<'_>) -> bool) -> Result<(), AuditError> {
        let mut reader = self.reader(name)?;
        while let Some(line) = reader.next_line()? {
            if !each(line) {
                break;
            }
        }
        Ok(())
    }
    /// Returns how many bytes the chain `name` takes.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be looked at.
    fn bytes(&self, name: &str) -> Result<u64, AuditError>;
    /// Removes the chain `name` for good, durably. Whoever calls this has recorded it before.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be removed.
    fn remove(&self, name: &str) -> Result<(), AuditError>;
    /// Returns how the place is that lines are sent to beside this one, where there is one.
    fn beside(&self) -> Option<Beside> {
        None
    }
    /// Has what is on its way beside this log sent, once all chains are closed, and lets others write where it did. It may be read on.
    ///
    /// # Errors
    /// [`AuditError`] where some of it was not.
    fn close(&self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// How a place is that lines are sent to beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Its name.
    pub name: &'static str,
    /// Whether there is a connection.
    pub is_connected: bool,
    /// Why there is none.
    pub trouble: Option<String>,
    /// Lines that wait to be sent.
    pub queued_lines: u64,
    /// The bytes of them.
    pub queued_bytes: u64,
    /// Lines sent.
    pub sent: u64,
    /// Lines that were not sent since there was no room for them.
    pub shed: u64,
    /// Connections that took the place of others.
    pub reconnects: u64,
}

/// Lines of one chain that a place beside the log did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The place.
    pub sink: &'static str,
    /// How many.
    pub lines: u64,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}

/// Reads one chain, line by line.
pub trait AuditReader {
    /// Returns the next line without its line end; a last line without one comes with `torn` true. A line longer than is ever written comes
    /// cut, as the last one.
    ///
    /// # Errors
    /// [`AuditError`] where it cannot be read.
    fn next_line(&mut self) -> Result<Option<Line<'_>>, AuditError>;
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
    /// Tries to have the reserve again; true where it stands, and lines would be taken.
    fn restore_reserve(&mut self) -> bool;
    /// Takes what is to be said of lines that a place beside the log did not get; at the end of the chain all of it, else when it suits.
    fn take_shed(&mut self, is_end: bool) -> Option<Shed> {
        let _nothing_beside = is_end;
        None
    }
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
    /// The log would take it, and a place beside it does not; nothing is kept.
    Blocked(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditError::Full(why) => write!(f, "no space for the audit log: {why}"),
            AuditError::Taken(why) => write!(f, "the audit log is taken: {why}"),
            AuditError::Blocked(why) => write!(f, "the audit log waits: {why}"),
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
