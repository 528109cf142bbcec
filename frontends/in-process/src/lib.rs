#![doc = include_str!("../README.md")]

mod handle;

use std::sync::Arc;

use keymill_core::access::Principal;
use keymill_core::id::AccessKeyId;
use keymill_runtime::{Engine, Gate};
use tokio::runtime::Runtime;

pub use handle::Handle;
pub use keymill_runtime::engine::Bootstrap;
pub use keymill_runtime::{EngineError, Parts};

/// An engine inside this program.
pub struct InProcess {
    engine: Engine,
    gate: Gate,
    waiting: Arc<Runtime>,
}

impl InProcess {
    /// Starts an engine. On a store that was never used it makes the bootstrap access key, which has `Root`.
    ///
    /// # Errors
    /// [`EngineError`] where a part cannot be used.
    pub fn start(parts: Parts) -> Result<(Self, Option<Bootstrap>), EngineError> {
        // Management operations are awaited; their deadlines need a clock, and nothing runs on this but the waiting.
        let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let waiting = Arc::new(waiting.map_err(|error| EngineError::new(format!("timer: {error}")))?);
        let (engine, bootstrap) = Engine::start(parts)?;
        let gate = engine.gate();
        Ok((Self { engine, gate, waiting }, bootstrap))
    }

    /// Returns the way in, for a frontend that runs beside.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Returns a handle that acts as an access key, with its rights and for as long as it is active.
    pub fn as_principal(&self, access_key_id: AccessKeyId) -> Handle {
        Handle::new(self.gate.clone(), Principal::of_access_key(access_key_id), self.waiting.clone())
    }

    /// Writes what is to be kept, closes the audit chains, and stops. Calls through handles end before.
    pub fn stop(self) {
        self.engine.stop();
    }
}
