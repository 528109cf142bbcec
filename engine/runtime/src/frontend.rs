//! The trait that frontends implement, and the signal that stops them.

use std::fmt;
use std::sync::Arc;

use crate::gate::Gate;

/// A way in: runs on a thread of its own until told to stop.
pub trait Frontend: Send {
    /// Returns the name in audit records and metrics.
    fn name(&self) -> &'static str;
    /// Serves until `stop` is given, then finishes what it accepted and returns.
    ///
    /// # Errors
    /// [`FrontendError`] where it cannot serve.
    fn run(self: Box<Self>, gate: Gate, stop: StopSignal) -> Result<(), FrontendError>;
}

/// Why a frontend cannot serve.
#[derive(Debug)]
pub struct FrontendError(pub String);

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FrontendError {}

/// Tells when to stop; clones tell alike.
#[derive(Clone)]
pub struct StopSignal {
    watch: tokio::sync::watch::Receiver<bool>,
}

/// Gives the stop signal.
pub struct Stopper {
    watch: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Stopper {
    /// Makes a stopper and its signal.
    pub fn new() -> (Self, StopSignal) {
        let (sender, watch) = tokio::sync::watch::channel(false);
        (Self { watch: Arc::new(sender) }, StopSignal { watch })
    }

    /// Tells all to stop.
    pub fn stop(&self) {
        self.watch.send_replace(true);
    }
}

impl StopSignal {
    /// Tells whether it was given.
    pub fn is_given(&self) -> bool {
        *self.watch.borrow()
    }

    /// Returns once it is given, or nobody is left to give it.
    pub async fn given(&mut self) {
        let _gone = self.watch.wait_for(|stop| *stop).await;
    }
}
