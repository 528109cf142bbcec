//! A program that we start and outlive, since something is to be cleaned up after it: it gets the signals that are meant for it, and its exit code
//! is ours.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::failure::{Failure, Result};

/// A signal that the kernel sends by itself (sigaction(2)): one of a terminal goes to all who are in its foreground.
const SI_KERNEL: i32 = 0x80;

const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals that end nothing here any more: they are passed on to a program.
pub(super) struct Relay(SignalFd);

impl Relay {
    /// Blocks them, before there is something that a signal must not leave behind.
    pub(super) fn block() -> Result<Self> {
        let set: SigSet = PASSED_ON.into_iter().collect();
        set.thread_block().map_err(Failure::because("signals"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC);
        Ok(Self(signals.map_err(Failure::because("signals"))?))
    }

    /// Begins the command line of a program. What is blocked here would be blocked there, so it is started by this program, which lets the
    /// signals through and becomes the other one.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().map_err(Failure::because("our own program"))?);
        command.args(["exec", "--"]).arg(program);
        Ok(command)
    }

    /// Runs a program to its end.
    pub(super) fn run(self, command: &mut Command) -> Result<ExitStatus> {
        let shown = "the program";
        let mut child = command.spawn().map_err(Failure::because(shown))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let alive = Arc::new(Mutex::new(Some(pid)));
        let named = std::thread::Builder::new().name("km-signals".into());
        let (signals, target) = (self.0, alive.clone());
        let passed = named.spawn(move || {
            while let Ok(Some(signal)) = signals.read_signal() {
                // What a terminal sends, the program has got from there.
                let is_of_a_terminal = signal.ssi_code == SI_KERNEL;
                let signal = Signal::try_from(signal.ssi_signo.cast_signed());
                if let (false, Ok(signal), Some(pid)) = (is_of_a_terminal, signal, *target.lock()) {
                    // It may have ended a moment ago.
                    let _ = kill(pid, signal);
                }
            }
        });
        // Seen before it is taken away: its number stands for it until then.
        let _ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        *alive.lock() = None;
        let status = child.wait().map_err(Failure::because(shown))?;
        passed.map_err(Failure::because("signal thread"))?;
        Ok(status)
    }
}

/// Lets the signals through again, once there is nothing left that one must not leave behind.
pub(super) fn unblock() -> Result<()> {
    let set: SigSet = PASSED_ON.into_iter().collect();
    set.thread_unblock().map_err(Failure::because("signals"))
}

/// Becomes a program, with none of the signals blocked; comes back only where it cannot be started.
pub(crate) fn become_program(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::wrong_use("no command"))?;
    unblock()?;
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::because(program.to_string_lossy())(error))
}

/// Returns the exit code that tells how a program ended: its own, or 128 and the number of the signal that ended it, as shells have it.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_that_of_the_program_or_tells_the_signal() {
        for (line, code) in [("exit 7", 7), ("exit 0", 0), ("kill -TERM $$", 143)] {
            let status = Command::new("sh").args(["-c", line]).status().unwrap();
            assert_eq!(exit_code(status), code, "{line}");
        }
    }
}
