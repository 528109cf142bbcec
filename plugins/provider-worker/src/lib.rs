#![doc = include_str!("../README.md")]

mod backoff;
mod config;
mod connection;
mod custody;
mod key;
mod pace;
mod passing;
mod process;
mod serve;
mod session;
mod state;
mod supervisor;
pub mod wire;

use std::fmt;
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::seam::provider::{
    CryptoProvider, CryptoSession, KeyCustody, ProviderError, ProviderProfile,
};

pub use config::Config;
pub use serve::{Answer, Refusal, Served, run, serve};
pub use state::WorkerStatus;

use crate::custody::WorkerCustody;
use crate::session::WorkerSession;
use crate::supervisor::Supervisor;

/// Starts a worker and has it open its provider.
///
/// # Errors
/// [`OpenError`] where the program does not start, or its provider does not open.
pub fn open(config: Config) -> Result<WorkerProvider, OpenError> {
    let (supervisor, profile) = Supervisor::start(config)
        .map_err(|failure| OpenError { why: failure.why, needs_operator: failure.needs_operator })?;
    Ok(WorkerProvider {
        profile: ProviderProfile {
            // A few bytes for each provider that is opened, which is once a configured token.
            name: profile.name.leak(),
            protection: profile.protection,
            token_serial: profile.token_serial,
            specs: profile.specs,
            algorithms: profile.algorithms,
            signatures: profile.signatures,
            decryptions: profile.decryptions,
            imports: profile.imports,
            derives: profile.derives,
            // Every call waits for another process.
            inline: false,
            max_batch: profile.max_batch,
            max_item_bytes: profile.max_item_bytes,
            max_sessions: profile.max_sessions,
        },
        supervisor: Arc::new(supervisor),
    })
}

/// A provider in a process of its own.
pub struct WorkerProvider {
    profile: ProviderProfile,
    supervisor: Arc<Supervisor>,
}

impl WorkerProvider {
    /// Tells how the worker is.
    pub fn status(&self) -> WorkerStatus {
        self.supervisor.status()
    }

    /// Asks the worker's program something that is beside the seam, such as what derives from a root key ([`Served::answer`]).
    ///
    /// # Errors
    /// What the program says, or `Unavailable` where there is no answer within `control_timeout`.
    pub fn ask(&self, question: &[u8]) -> Result<Sensitive, ProviderError> {
        self.supervisor.ask(question)
    }

    /// Replaces what later workers are told: after a change of the PIN, a worker that is started again must not try the old one.
    pub fn replace_setup(&self, setup: Sensitive) {
        self.supervisor.replace_setup(setup);
    }
}

impl CryptoProvider for WorkerProvider {
    fn profile(&self) -> &ProviderProfile {
        &self.profile
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        Ok(Box::new(WorkerSession::open(&self.supervisor)?))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        Ok(Box::new(WorkerCustody::open(&self.supervisor)?))
    }
}

/// The worker does not serve.
#[derive(Debug)]
pub struct OpenError {
    why: String,
    needs_operator: bool,
}

impl OpenError {
    /// Tells whether an operator must act before there is another try, as when a PIN was refused.
    pub fn needs_operator(&self) -> bool {
        self.needs_operator
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker does not open its provider: {}", self.why)
    }
}

impl std::error::Error for OpenError {}
