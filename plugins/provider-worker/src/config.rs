//! What the parent's side is told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use keymill_core::Sensitive;

/// Options of a provider in a worker process.
pub struct Config {
    /// The program that is the worker.
    pub program: PathBuf,
    /// Its arguments. Everyone on the machine can read them: no secrets.
    pub args: Vec<OsString>,
    /// Variables of this process that the worker must not inherit, such as one that holds a PIN.
    pub withheld_variables: Vec<OsString>,
    /// What opens the provider there: module, token, PIN. It goes over a socket that only the worker has.
    pub setup: Sensitive,
    /// How long a worker may take to open its provider.
    pub start_timeout: Duration,
    /// How long a session may take to answer.
    pub call_timeout: Duration,
    /// How long the control lane may take: some devices make an RSA key in half a minute.
    pub control_timeout: Duration,
    /// Sessions with a call that does not come back, at which the worker is killed; it is killed before where none is left.
    pub max_hung: usize,
    /// Handles that the worker holds at once, at most.
    pub max_keys: usize,
    /// How long to wait before a worker that died young is started again; it doubles each time.
    pub first_backoff: Duration,
    /// How long to wait, at most; a worker that lived so long was none that dies young.
    pub max_backoff: Duration,
}

impl Config {
    /// Makes the configuration of a worker, with the defaults for the rest.
    pub fn new(program: impl Into<PathBuf>, setup: Sensitive) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            withheld_variables: Vec::new(),
            setup,
            start_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(10),
            control_timeout: Duration::from_secs(60),
            max_hung: 4,
            max_keys: 65_536,
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
        }
    }
}
