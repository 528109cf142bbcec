#![doc = include_str!("../README.md")]

mod directory;
mod reader;
mod reserve;
mod sink;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keymill_core::seam::audit::{AuditError, AuditLog, AuditReader, AuditSink};
use parking_lot::Mutex;

pub use directory::OpenError;

use reader::FileReader;
use reserve::Reserve;
use sink::FileSink;

/// The longest line that is read whole; a chain ends, badly, where one is longer.
pub const MAX_LINE_BYTES: usize = 4 << 20;

const SUFFIX: &str = ".jsonl";
const DEFAULT_RESERVE_BYTES: u64 = 1 << 20;

/// The options of this plugin.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the chains lie.
    pub directory: PathBuf,
    /// Bytes held back for the time after the disk has filled.
    pub reserve_bytes: u64,
}

impl Config {
    /// Returns the defaults with the directory given.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), reserve_bytes: DEFAULT_RESERVE_BYTES }
    }
}

/// Opens the directory, making it where it is absent. Nothing is locked before a chain is opened.
///
/// # Errors
/// [`OpenError`] where the directory cannot be had or others may write to it.
pub fn open(config: Config) -> Result<FileAuditLog, OpenError> {
    directory::prepare(&config.directory)?;
    Ok(FileAuditLog { config, reserve: Mutex::new(None) })
}

/// Audit chains as files of a directory.
pub struct FileAuditLog {
    config: Config,
    reserve: Mutex<Option<Arc<Reserve>>>,
}

impl FileAuditLog {
    fn path(&self, chain: &str) -> Result<PathBuf, AuditError> {
        if is_chain_name(chain) {
            Ok(self.config.directory.join(format!("{chain}{SUFFIX}")))
        } else {
            Err(AuditError::Failed("a chain's name is not 1 to 128 letters, digits, -, _ or .".into()))
        }
    }

    /// Takes the reserve, and with it the right to write, at the first chain.
    fn reserve(&self) -> Result<Arc<Reserve>, AuditError> {
        let mut reserve = self.reserve.lock();
        if let Some(reserve) = &*reserve {
            return Ok(Arc::clone(reserve));
        }
        let directory = &self.config.directory;
        let taken = Arc::new(Reserve::take(directory, self.config.reserve_bytes)?);
        // What a process that was killed had appended may be in memory alone, and the first line of the next chain will say that it is there.
        match directory::sync_file_system(directory) {
            Err(error) if !is_full(&error) => return Err(failed(directory, &error)),
            // A full disk is served, also at a start.
            _ => {}
        }
        *reserve = Some(Arc::clone(&taken));
        Ok(taken)
    }
}

impl AuditLog for FileAuditLog {
    fn open_chain(&self, name: &str) -> Result<Box<dyn AuditSink>, AuditError> {
        let path = self.path(name)?;
        let reserve = self.reserve()?;
        let sink = FileSink::create(&path, reserve)?;
        directory::sync(&self.config.directory).map_err(|e| failed(&self.config.directory, &e))?;
        Ok(Box::new(sink))
    }

    fn chains(&self) -> Result<Vec<String>, AuditError> {
        let directory = &self.config.directory;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, &e))? {
            let name = entry.map_err(|e| failed(directory, &e))?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX))
                && is_chain_name(name)
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
        let path = self.path(name)?;
        let file = directory::open_for_reading(&path).map_err(|e| failed(&path, &e))?;
        Ok(Box::new(FileReader::new(path, file)))
    }

    fn bytes(&self, name: &str) -> Result<u64, AuditError> {
        let path = self.path(name)?;
        Ok(path.symlink_metadata().map_err(|e| failed(&path, &e))?.len())
    }

    fn remove(&self, name: &str) -> Result<(), AuditError> {
        let path = self.path(name)?;
        // Whoever does not write here removes nothing either.
        let _lock = self.reserve()?;
        std::fs::remove_file(&path).map_err(|e| failed(&path, &e))?;
        directory::sync(&self.config.directory).map_err(|e| failed(&self.config.directory, &e))
    }

    fn close(&self) -> Result<(), AuditError> {
        // Others may write here from now on, whoever still has this to read by.
        *self.reserve.lock() = None;
        Ok(())
    }
}

fn is_chain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn failed(path: &Path, error: &std::io::Error) -> AuditError {
    AuditError::Failed(format!("{}: {error}", path.display()))
}

/// Says whether an error means that there is no space: the disk's, the quota's, or the limit on a file's size.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests;
