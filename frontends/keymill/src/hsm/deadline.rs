//! An end to commands whose module does not answer: PKCS#11 knows no time-outs, and a call that hangs would hang the command for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::failure::Failure;

/// How often the time is taken.
const TICK: Duration = Duration::from_millis(100);
/// How long the process has to end in order, its module's own exit handlers included, which may hang as well.
const LAST: Duration = Duration::from_secs(2);

/// Whoever is being asked something at the terminal just now.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Ends the process with exit code 1 once it has run for `limit`; the time that people take to answer does not count.
pub(super) fn start(limit: Duration) {
    thread::spawn(move || {
        // They are for the thread that works.
        let _ = SigSet::all().thread_block();
        let mut ran = Duration::ZERO;
        while ran < limit {
            thread::sleep(TICK);
            if WAITING.load(Ordering::Acquire) == 0 {
                ran += TICK;
            }
        }
        let told = Failure::new(format!("no end after {} s: the module does not answer", limit.as_secs()))
            .next("look at the device and its connection; give it longer with --timeout SECONDS. If keys were being made, the command tells, run again, what is left of them");
        let _ = told.tell();
        thread::spawn(|| {
            thread::sleep(LAST);
            let _ = kill(Pid::this(), Signal::SIGKILL);
        });
        std::process::exit(1);
    });
}

/// Somebody is asked something, until this is dropped.
pub(super) struct Waiting(());

impl Waiting {
    pub(super) fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::AcqRel);
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs `work` with interrupts held back: what it does is not to be left half done by somebody's Ctrl-C.
pub(super) fn uninterrupted<T>(work: impl FnOnce() -> T) -> T {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    let before = signals.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let done = work();
    if let Ok(before) = before {
        // What came meanwhile ends the process now.
        let _ = before.thread_set_mask();
    }
    done
}
