//! What the provider is told.

use std::path::PathBuf;
use std::time::Duration;

use keymill_core::Sensitive;

use crate::profile::{ModuleProfile, Overrides};

/// Reads a PIN.
pub type PinSource = Box<dyn Fn() -> Option<Sensitive> + Send + Sync>;

/// Options of the PKCS#11 provider.
pub struct Config {
    /// The module's file.
    pub module: PathBuf,
    /// The token's label; slots are numbered anew at whim.
    pub token_label: String,
    /// Its serial number, where two tokens have one label.
    pub token_serial: Option<String>,
    /// The name of the domain whose keys are used; `None`: of that without one.
    pub domain: Option<String>,
    /// The user's PIN.
    pub pin: Sensitive,
    /// Reads the PIN again where the token has to be connected anew, so that one that was changed meanwhile is known, and none is tried
    /// that was refused; `None`, or where it gives nothing: the one that is known stays.
    pub pin_again: Option<PinSource>,
    /// Keys held loaded in the token, at most.
    pub cached_keys: usize,
    /// Items that one call takes, at most.
    pub max_batch: usize,
    /// Sessions for the use of keys, at most; the token's own limit holds beside it.
    pub max_sessions: usize,
    /// Whether the module may be finalised and initialised again when none of its tokens serves; some come back by that alone.
    pub restart_module: bool,
    /// How long connecting again waits for the calls under way; one that hangs keeps the token out for as long as it does.
    pub quiesce: Duration,
    /// What the operator knows better than the probes.
    pub overrides: Overrides,
    /// What the probes found of this token earlier; they are not made again then: beside a device that fails now and then they would find
    /// something else each time.
    pub known_profile: Option<ModuleProfile>,
}

impl Config {
    /// Makes the configuration of a token, with the defaults for the rest.
    pub fn new(module: impl Into<PathBuf>, token_label: impl Into<String>, pin: Sensitive) -> Self {
        Self {
            module: module.into(),
            token_label: token_label.into(),
            token_serial: None,
            domain: None,
            pin,
            pin_again: None,
            cached_keys: 1000,
            max_batch: 256,
            max_sessions: 16,
            restart_module: true,
            quiesce: Duration::from_secs(5),
            overrides: Overrides::default(),
            known_profile: None,
        }
    }
}
