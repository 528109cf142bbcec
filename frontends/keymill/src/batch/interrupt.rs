//! SIGINT and SIGTERM: the first asks the run to finish what is underway and keep its checkpoint, the second ends the
//! program at once (which loses no more than a crash does).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use parking_lot::Mutex;

use super::error::{BatchError, Cause};

/// The shell's exit code for a program that a second SIGINT ended.
const ENDED: i32 = 130;

/// Whether the user asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

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
                if told.0.swap(true, Ordering::Relaxed) {
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
        self.0.load(Ordering::Relaxed)
    }

    /// Asks to stop, as a signal would.
    #[cfg(test)]
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
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
