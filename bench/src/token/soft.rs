//! One token, made for a run and logged in to once: engines share it by turns, and the plain loop beside them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_provider_pkcs11::module::Session;
use keymill_provider_pkcs11::module::number::CK_SLOT_ID;
use keymill_provider_pkcs11::{Config, GcmMethod, Pkcs11Provider, open};
use keymill_runtime::{TokenConfig, TokenPart};

use super::pace::rate;
use super::raw::{Keys, Operation, Worker};
use super::scratch::Pins;
use crate::error::{BenchError, Result};

/// A token that is open.
pub(crate) struct SoftToken {
    /// In metrics.
    name: String,
    // A module has one login in a process: every engine on the token has this provider.
    provider: Arc<Pkcs11Provider>,
    slot: CK_SLOT_ID,
}

impl SoftToken {
    /// Opens a token that [`Pins::make_token`] made, under a name in metrics.
    pub(crate) fn open(module: &Path, label: &str, name: &str, pins: &Pins) -> Result<Self> {
        let config = Config::new(module, label, Sensitive::copied(pins.user.expose()));
        let provider = open(config).map_err(BenchError::because("opening a token"))?;
        let module = provider.module();
        let slots = module.slots().map_err(BenchError::because("a token's slot"))?;
        let ours = |slot: &_| module.token_info(*slot).is_ok_and(|info| info.label == label);
        let slot = slots.into_iter().find(ours).ok_or_else(|| BenchError::new("a token is gone"))?;
        Ok(Self { name: name.to_owned(), provider: Arc::new(provider), slot })
    }

    /// Returns it as a part of an engine, with so many sessions, or with as many as a token has by default.
    pub(crate) fn part(&self, sessions: Option<usize>) -> TokenPart {
        let mut config = TokenConfig::new(self.name.clone());
        config.sessions = sessions.unwrap_or(config.sessions);
        let provider = Arc::clone(&self.provider);
        TokenPart::new(config, Box::new(move || Ok(Arc::clone(&provider) as _)))
    }

    /// Returns the call that seals by itself: messages where the module has the interface, as the provider takes it.
    pub(crate) fn seals_by(&self) -> Operation {
        match self.provider.module_profile().gcm {
            GcmMethod::Message => Operation::SealMessage,
            GcmMethod::Classic => Operation::Seal,
        }
    }

    /// Makes a plain loop over one of the module's own calls.
    pub(crate) fn plain(&self, operation: Operation) -> Result<Plain<'_>> {
        let profile = self.provider.module_profile();
        let (keys, owner) = Keys::make(self.provider.module(), self.slot, profile)
            .map_err(BenchError::because("the keys of the plain loop"))?;
        if let Some(why) = keys.lacks(operation, profile) {
            return Err(BenchError::new(format!("{}: {why}", operation.name())));
        }
        Ok(Plain { token: self, keys, _owner: Mutex::new(owner), operation })
    }
}

/// The module's own calls in a plain loop.
pub(crate) struct Plain<'t> {
    token: &'t SoftToken,
    keys: Keys,
    /// Whose objects the keys are; a session is one thread's at a time.
    _owner: Mutex<Session>,
    operation: Operation,
}

impl Plain<'_> {
    /// Opens sessions, each for one thread.
    pub(crate) fn workers(&self, count: usize) -> Result<Vec<Worker>> {
        let (module, slot) = (self.token.provider.module(), self.token.slot);
        (0..count)
            .map(|number| Worker::open(module, slot, &self.keys, self.operation, number))
            .collect::<Result<_, _>>()
            .map_err(BenchError::because("a session of the plain loop"))
    }

    /// Calls once.
    pub(crate) fn call(&self, worker: &mut Worker) -> Result<u64> {
        worker.call(&self.keys, self.operation).map_err(BenchError::because("the plain loop"))
    }

    /// Runs every worker for about so long, all at once, and returns calls a second.
    pub(crate) fn rate(&self, workers: &mut [Worker], time: Duration) -> Result<f64> {
        rate(workers, time, |worker| self.call(worker))
    }
}
