//! One worker process, from its start to its end. It is killed by its own process id alone, and only while it has not been
//! waited for: until then no other process can have that id.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::seam::provider::ProviderError;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::passing;
use crate::wire::{self, Failed, Hello, Incoming, Kind, ReadyProfile};

/// How long a killed worker is waited for: one that is stuck in a driver goes when the driver lets it.
const KILLED: Duration = Duration::from_secs(1);
/// How long a worker may take to end by itself, for the sessions that it has to close.
const ENDING: Duration = Duration::from_secs(3);
/// How long the end of a process can lag behind that of its connections.
pub(crate) const LAG: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(1);

/// A worker that has opened its provider.
pub(crate) struct Worker {
    child: Option<Child>,
    spine: Option<UnixStream>,
    pub(crate) generation: u64,
    pub(crate) started: Instant,
    /// Sessions with which all is well.
    pub(crate) sessions: usize,
    /// The connections of those that did not answer in time.
    pub(crate) hung: Vec<UnixStream>,
}

impl Worker {
    /// Starts a worker and has it open its provider.
    pub(crate) fn start(
        config: &Config,
        setup: &Sensitive,
        generation: u64,
    ) -> Result<(Self, ReadyProfile), StartFailure> {
        let failed = |what: &str, error: io::Error| StartFailure::new(format!("{what}: {error}"));
        let (spine, theirs) = UnixStream::pair().map_err(|error| failed("no socket for a worker", error))?;
        let mut command = Command::new(&config.program);
        command
            .args(&config.args)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            // A terminal's Ctrl-C is for the parent, which ends its worker when it has drained.
            .process_group(0);
        for name in &config.withheld_variables {
            command.env_remove(name);
        }
        let child = command
            .spawn()
            .map_err(|error| failed(&format!("{} does not start", config.program.display()), error))?;
        // The other end is the worker's alone from here on: only so does its death end the connection.
        drop(command);
        let mut worker = Self {
            child: Some(child),
            spine: None,
            generation,
            started: Instant::now(),
            sessions: 0,
            hung: Vec::new(),
        };
        match worker.greet(&spine, config, setup) {
            Ok(profile) => {
                worker.spine = Some(spine);
                Ok((worker, profile))
            }
            Err(mut failure) => {
                if !failure.answered
                    && let Some(status) = worker.wait(LAG)
                {
                    failure.why = format!("the worker ended with {status}");
                }
                // With that it ends by itself; it is killed where it does not.
                worker.spine = failure.answered.then_some(spine);
                Err(failure)
            }
        }
    }

    fn greet(
        &self,
        spine: &UnixStream,
        config: &Config,
        setup: &Sensitive,
    ) -> Result<ReadyProfile, StartFailure> {
        let failed = |error: io::Error| StartFailure::new(format!("the worker takes no message: {error}"));
        spine.set_read_timeout(Some(config.start_timeout)).map_err(failed)?;
        spine.set_write_timeout(Some(config.call_timeout)).map_err(failed)?;
        let mut message = Zeroizing::new(Vec::with_capacity(wire::HEADER_BYTES + 64 + setup.len()));
        wire::begin(&mut message);
        Hello::encode(self.generation, config.max_keys, setup, &mut message);
        wire::finish(&mut message, Kind::Start, self.generation, 0);
        (&mut &*spine).write_all(&message).map_err(failed)?;
        let mut incoming = Incoming::default();
        let header = incoming
            .receive(&mut &*spine, Some(Instant::now() + config.start_timeout))
            .map_err(|error| StartFailure::new(format!("the worker does not open its provider: {error}")))?;
        let garbled = |garbled: wire::Garbled| StartFailure::new(format!("the worker's answer is {garbled}"));
        if header.tag != self.generation {
            return Err(StartFailure::new("the worker answered another question".into()));
        }
        match header.kind {
            Kind::Ready => ReadyProfile::decode(incoming.body()).map_err(garbled),
            Kind::Failed => {
                let Failed { error, needs_operator } = Failed::decode(incoming.body()).map_err(garbled)?;
                let why = match error {
                    ProviderError::Rejected(why) | ProviderError::Corrupt(why) => why,
                    ProviderError::Unavailable(cause) => cause.reason,
                };
                Err(StartFailure { why, needs_operator, answered: true })
            }
            _ => Err(StartFailure::new("the worker answered something else".into())),
        }
    }

    /// Hands the worker one end of a new connection.
    pub(crate) fn pass(&self, theirs: &UnixStream) -> io::Result<()> {
        passing::pass(self.spine.as_ref().ok_or(io::ErrorKind::NotConnected)?, theirs)
    }

    /// Returns the process id, while it can be that of no other.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Returns how the worker ended, if it ends within `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let deadline = Instant::now() + patience;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.child = None;
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Takes back into the count what answered after all: a call that was slow, not hung.
    pub(crate) fn forget_late_answers(&mut self) {
        self.hung.retain(|stream| {
            let mut byte = [0];
            stream
                .set_nonblocking(true)
                .and_then(|()| io::Read::read(&mut &*stream, &mut byte))
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
    }

    /// Kills the worker, whatever it does.
    pub(crate) fn kill(&mut self) -> Option<ExitStatus> {
        self.spine = None;
        self.child.as_mut()?.kill().ok()?;
        let status = self.wait(KILLED);
        if let Some(mut stuck) = self.child.take() {
            // It must not stay a zombie when it goes at last; where there is no thread for that, it does until we end.
            let _reaper = thread::Builder::new().name("worker-reaper".into()).spawn(move || stuck.wait());
        }
        status
    }
}

impl Drop for Worker {
    /// Lets the worker close its sessions and end, and kills it where it does not.
    fn drop(&mut self) {
        if self.spine.take().is_none() || self.wait(ENDING).is_none() {
            self.kill();
        }
    }
}

/// A worker did not come up.
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) why: String,
    pub(crate) needs_operator: bool,
    /// Whether the worker said so itself.
    answered: bool,
}

impl StartFailure {
    pub(crate) fn new(why: String) -> Self {
        Self { why, needs_operator: false, answered: false }
    }
}
