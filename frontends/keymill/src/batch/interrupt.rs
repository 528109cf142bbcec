//! SIGINT and SIGTERM: the first asks the run to finish what is underway and keep its checkpoint, the second ends the
//! program at once (which loses no more than a crash does, and leaves no unfinished file behind that was named).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use parking_lot::Mutex;

use super::error::{BatchError, Cause};

/// The shell's exit code for a program that a second SIGINT ended.
const ENDED: i32 = 130;

/// Whether the user asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    is_set: AtomicBool,
    /// A file that nobody wants as it is.
    unfinished: Mutex<Option<PathBuf>>,
}

impl Interrupt {
    /// Takes the signals of this thread and of those it starts from now on, for as long as the program runs. All runs of the program share
    /// one answer: a signal goes to one thread, and a second waiting one would keep it from the run that is on.
    pub(crate) fn watch() -> Result<Self, BatchError> {
        static WATCHED: Mutex<Option<Interrupt>> = Mutex::new(None);
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        let failed = |_| BatchError::from(Cause::Internal("signals cannot be waited for"));
        // A signal that no thread lets through waits for the one that asks for it.
        signals.thread_block().map_err(failed)?;
        let mut watched = WATCHED.lock();
        if let Some(interrupt) = &*watched {
            return Ok(interrupt.clone());
        }
        let interrupt = Self::default();
        let told = interrupt.clone();
        let wait = move || {
            while signals.wait().is_ok() {
                if told.0.is_set.swap(true, Ordering::Relaxed) {
                    if let Some(path) = &*told.0.unfinished.lock() {
                        // There is nobody left to tell.
                        let _ = std::fs::remove_file(path);
                    }
                    std::process::exit(ENDED);
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
        thread.map_err(|_| BatchError::from(Cause::Internal("no thread can be started")))?;
        *watched = Some(interrupt.clone());
        Ok(interrupt)
    }

    /// Tells whether the user asked to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed)
    }

    /// Has a file removed where the program ends at once; it takes the place of the one before.
    pub(crate) fn removes(&self, path: &Path) {
        *self.0.unfinished.lock() = Some(path.into());
    }

    /// Asks to stop, as a signal would.
    #[cfg(test)]
    pub(super) fn set(&self) {
        self.0.is_set.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_of_the_program_sees_the_signal_that_the_first_would_have_seen() {
        let (first, second) = (Interrupt::watch().unwrap(), Interrupt::watch().unwrap());
        assert!(Arc::ptr_eq(&first.0, &second.0));
    }
}
