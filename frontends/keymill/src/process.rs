//! Hardening of the process, before any key is in its memory: no core files, no tracing by others, no swap where the system
//! allows that, files for us alone. And its signals, which one thread waits for.

use std::io;

use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

use crate::failure::{Failure, Result};

/// Keeps what is in memory out of core files, debuggers of other users and files that others can read, and raises the
/// number of connections that can be open.
pub(crate) fn harden() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(Failure::because("no core files"))?;
    prctl::set_dumpable(false).map_err(Failure::because("not dumpable"))?;
    umask(Mode::from_bits_truncate(0o077));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Failure::because("open files"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(Failure::because("open files"))
}

/// Keeps what is in our memory from debuggers and core files, and changes nothing for a program that we start: it is as it would be without us.
pub(crate) fn keep_memory_private() -> Result<()> {
    prctl::set_dumpable(false).map_err(Failure::because("not dumpable"))
}

/// Keeps memory out of swap. Returns what to tell where the system does not allow it.
pub(crate) fn lock_memory() -> Option<String> {
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or((0, 0));
    // Under a finite limit the call would succeed now, and allocations would fail later, once the limit is reached.
    let locked = if most == RLIM_INFINITY || may_lock_any_amount() {
        // The soft limit counts, too. On fault: pages that are never touched, such as most of each stack, cost nothing.
        let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
        setrlimit(Resource::RLIMIT_MEMLOCK, most, most)
            .and_then(|()| mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault))
            .map_err(|errno| errno.desc().to_owned())
    } else {
        Err(format!("RLIMIT_MEMLOCK is {} KiB", most / 1024))
    };
    let why = locked.err()?;
    Some(format!(
        "memory is not locked, so keys could reach the swap space ({why}): allow it (LimitMEMLOCK=infinity, or the \
         capability CAP_IPC_LOCK), or run without swap"
    ))
}

/// Tells whether the limit on locked memory does not bind us: CAP_IPC_LOCK is bit 14 of the effective set (capabilities(7)).
fn may_lock_any_amount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|effective| effective >> 14 & 1 == 1)
}

/// The signals that ask the process to end, and by choice the one that asks it to read its certificates again; blocked in every thread,
/// and waited for by one.
pub(crate) struct EndSignals(SigSet);

impl EndSignals {
    /// Blocks them. To be called before the first thread is made, since threads inherit what is blocked.
    /// SIGHUP ends the process where `with_hangup` is not said.
    pub(crate) fn block(with_hangup: bool) -> Result<Self> {
        let mut set: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        if with_hangup {
            set.add(Signal::SIGHUP);
        }
        set.thread_block().map_err(Failure::because("signals"))?;
        Ok(Self(set))
    }

    /// Calls `end` at the first that asks to end, and `hangup` at each SIGHUP. A second SIGINT ends the process at once with exit code
    /// 1: someone at a terminal does not want to wait; a second SIGTERM is what supervisors repeat, and changes nothing.
    pub(crate) fn watch(
        self,
        end: impl FnOnce(Signal) + Send + 'static,
        hangup: impl Fn() + Send + 'static,
    ) -> Result<()> {
        let wait = move || {
            let mut end = Some(end);
            while let Ok(signal) = self.0.wait() {
                match (signal, end.take()) {
                    (Signal::SIGHUP, still) => {
                        end = still;
                        hangup();
                    }
                    (signal, Some(end)) => end(signal),
                    (Signal::SIGINT, None) => std::process::exit(1),
                    (_, None) => {}
                }
            }
        };
        let named = std::thread::Builder::new().name("km-signals".into());
        named
            .spawn(wait)
            .map(drop)
            .map_err(|error: io::Error| Failure::new(format!("signal thread: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_leaves_no_core_and_opens_what_it_may() {
        harden().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
