//! The control file as it is now, and the instance's other files beside it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::control::Settings;
use crate::faults::Faults;

/// What one state of the control file says.
#[derive(Debug, Default)]
pub(crate) struct Current {
    seen: Option<Seen>,
    /// Whether any state of the file was understood.
    pub(crate) ever_read: bool,
    /// Why the last state was not.
    pub(crate) error: Option<String>,
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
}

/// Tells two states of a file apart: a renamed file has another inode, a rewritten one other times or another length.
#[derive(Debug, PartialEq)]
struct Seen {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

/// Reads the control file anew whenever it has changed.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) instance: String,
    control: PathBuf,
    current: RwLock<Arc<Current>>,
}

impl Watch {
    /// Watches the file named in `KEYMILL_SIM_CONTROL`, or else that beside the library with `.toml` as its ending.
    pub(crate) fn new(library: &Path) -> Self {
        let control = std::env::var_os("KEYMILL_SIM_CONTROL").map(PathBuf::from);
        Self {
            instance: library
                .file_stem()
                .map_or("unknown".into(), |stem| stem.to_string_lossy())
                .into_owned(),
            control: control.unwrap_or_else(|| library.with_extension("toml")),
            current: RwLock::default(),
        }
    }

    /// Returns what the control file says now; `change` sees old and new before any call sees the new.
    pub(crate) fn refreshed(&self, change: impl FnOnce(&Current, &Current)) -> Arc<Current> {
        let seen = self.look();
        {
            let current = self.current();
            if current.seen == seen && (seen.is_some() || current.error.is_some()) {
                return current;
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Looked at again: another call may have read it meanwhile.
        let seen = self.look();
        if current.seen == seen && (seen.is_some() || current.error.is_some()) {
            return current.clone();
        }
        let read = std::fs::read_to_string(&self.control)
            .map_err(|e| e.to_string())
            .and_then(|text| Settings::read(&text, &self.instance));
        let new = match read {
            Ok(settings) => {
                let faults = current.faults.replaced(&settings.faults, settings.seed());
                Current { seen, ever_read: true, error: None, settings, faults }
            }
            // What was understood last goes on to hold.
            Err(error) => {
                let error = format!("{}: {error}", self.control.display());
                // A file that goes away belongs to a test that is over.
                if seen.is_some() || !current.ever_read {
                    self.complain(&error);
                }
                Current {
                    seen,
                    ever_read: current.ever_read,
                    error: Some(error),
                    settings: current.settings.clone(),
                    faults: current.faults.replaced(&current.settings.faults, current.settings.seed()),
                }
            }
        };
        // The first state is no change: events count from there.
        if current.ever_read {
            change(&current, &new);
        }
        *current = Arc::new(new);
        current.clone()
    }

    /// Returns what was read last.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says on standard error what keeps the simulator from working.
    pub(crate) fn complain(&self, error: &str) {
        eprintln!("simulator {}: {error}", self.instance);
    }

    /// The file with this process's statistics.
    pub(crate) fn stats_file(&self) -> PathBuf {
        self.beside(&format!("{}.stats", std::process::id()))
    }

    /// Returns the user's wrong PINs in a row. They outlive the process, as in a real token.
    pub(crate) fn wrong_pins(&self) -> u32 {
        std::fs::read_to_string(self.beside("pins"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Keeps the number of wrong PINs; none is no file.
    pub(crate) fn set_wrong_pins(&self, count: u32) {
        let file = self.beside("pins");
        let done = match count {
            0 if !file.exists() => Ok(()),
            0 => std::fs::remove_file(&file),
            _ => std::fs::write(&file, format!("{count}\n")),
        };
        if let Err(error) = done {
            self.complain(&format!("{}: {error}", file.display()));
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.control.clone().into_os_string();
        name.push(format!(".{}.{ending}", self.instance));
        name.into()
    }

    fn look(&self) -> Option<Seen> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(&self.control).ok()?;
        Some(Seen { inode: found.ino(), length: found.len(), modified: found.modified().ok() })
    }
}
