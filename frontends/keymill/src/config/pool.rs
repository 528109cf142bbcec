//! The sections of the configuration that tell of tokens and of the keys in them.

use std::path::PathBuf;
use std::time::Duration;

use keymill_core::id::DomainName;
use keymill_core::key::{BulkMode, Fallback, ProtectionLevel};
use keymill_runtime::{EngineConfig, InFlight, PoolConfig, TokenConfig};
use serde::{Deserialize, Serialize};

use crate::plugins::pkcs11::Overrides;

/// The tokens, and the lanes in front of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PoolSection {
    /// Chunks that wait for a session, at most.
    pub(crate) queue: usize,
    /// Key generations that wait, at most.
    pub(crate) control_queue: usize,
    /// Milliseconds that requests wait while no session is up, before they are refused at once.
    pub(crate) patience_ms: u64,
    /// Seconds that one sealing epoch of an `HsmDerived` key lasts.
    pub(crate) epoch_max_age_s: u64,
    /// Microseconds of a session's time that one chunk is cut for.
    pub(crate) chunk_us: u64,
    /// When software copies of keys may stand in for the tokens.
    pub(crate) fallback: Fallback,
    /// The tokens.
    pub(crate) token: Vec<TokenSection>,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TokenSection {
    /// Its name in metrics, logs and commands.
    pub(crate) name: String,
    /// The PKCS#11 module.
    pub(crate) module: PathBuf,
    /// The token's label.
    pub(crate) label: String,
    /// Its serial number, where two have one label.
    pub(crate) serial: Option<String>,
    /// The domain whose keys are used; with one, the token is for instances of that domain alone.
    pub(crate) domain: Option<DomainName>,
    /// The file of the user's PIN.
    pub(crate) pin_file: Option<PathBuf>,
    /// The variable of the user's PIN.
    pub(crate) pin_env: Option<String>,
    /// Sessions for the use of keys; without it, what suits the token.
    pub(crate) sessions: Option<usize>,
    /// How many of them are at work.
    pub(crate) in_flight: InFlight,
    /// Keys loaded in it, at most.
    pub(crate) cached_keys: usize,
    /// Milliseconds that one call may take before its session is given up.
    pub(crate) call_timeout_ms: u64,
    /// Milliseconds that the opening of a session may take.
    pub(crate) open_timeout_ms: u64,
    /// Milliseconds that the generation of a key may take.
    pub(crate) generate_timeout_ms: u64,
    /// Milliseconds between two tries of an idle token.
    pub(crate) probe_interval_ms: u64,
    /// Threads in calls that do not return, at most.
    pub(crate) max_hung: usize,
    /// Whether the module may be finalised and initialised again when none of its tokens serves.
    pub(crate) restart_module: bool,
    /// Which process the module is loaded into.
    pub(crate) isolation: Isolation,
    /// What the operator knows better of the module than the probes find.
    pub(crate) profile: Overrides,
}

/// Which process a module is loaded into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Isolation {
    /// The server's.
    #[default]
    None,
    /// One of its own.
    Process,
}

/// What keys are like of which nobody says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeysConfig {
    /// Where their material lives.
    pub(crate) protection_level: ProtectionLevel,
    /// Where AES-GCM of one in a token runs.
    pub(crate) bulk_mode: BulkMode,
}

impl PoolSection {
    /// Returns the options of the lanes.
    pub(crate) fn lanes(&self) -> PoolConfig {
        PoolConfig {
            queue: self.queue,
            control_queue: self.control_queue,
            patience: Duration::from_millis(self.patience_ms),
            epoch_max_age: Duration::from_secs(self.epoch_max_age_s),
            chunk: Duration::from_micros(self.chunk_us),
            fallback: self.fallback,
        }
    }
}

impl TokenSection {
    /// Returns the options that the engine has for the token.
    pub(crate) fn engine(&self) -> TokenConfig {
        let theirs = TokenConfig::new(self.name.clone());
        // A worker ends calls that hang by itself, and says so; only where it does not, the thread that asked is given up.
        let grace = match self.isolation {
            Isolation::None => Duration::ZERO,
            Isolation::Process => Duration::from_secs(1),
        };
        TokenConfig {
            sessions: self.sessions.unwrap_or(theirs.sessions),
            in_flight: self.in_flight,
            cached_keys: self.cached_keys,
            call_timeout: Duration::from_millis(self.call_timeout_ms) + grace,
            open_timeout: Duration::from_millis(self.open_timeout_ms),
            generate_timeout: Duration::from_millis(self.generate_timeout_ms),
            probe_interval: Duration::from_millis(self.probe_interval_ms),
            max_abandoned: self.max_hung,
            ..theirs
        }
    }
}

impl Default for PoolSection {
    fn default() -> Self {
        let theirs = PoolConfig::default();
        Self {
            queue: theirs.queue,
            control_queue: theirs.control_queue,
            patience_ms: theirs.patience.as_millis() as u64,
            epoch_max_age_s: theirs.epoch_max_age.as_secs(),
            chunk_us: theirs.chunk.as_micros() as u64,
            fallback: theirs.fallback,
            token: Vec::new(),
        }
    }
}

impl Default for TokenSection {
    fn default() -> Self {
        let theirs = TokenConfig::new("hsm");
        Self {
            name: theirs.name,
            module: PathBuf::new(),
            label: "keymill".into(),
            serial: None,
            domain: None,
            pin_file: None,
            pin_env: None,
            sessions: None,
            in_flight: theirs.in_flight,
            cached_keys: theirs.cached_keys,
            call_timeout_ms: theirs.call_timeout.as_millis() as u64,
            open_timeout_ms: theirs.open_timeout.as_millis() as u64,
            generate_timeout_ms: theirs.generate_timeout.as_millis() as u64,
            probe_interval_ms: theirs.probe_interval.as_millis() as u64,
            max_hung: theirs.max_abandoned,
            restart_module: true,
            isolation: Isolation::None,
            profile: Overrides::default(),
        }
    }
}

impl Default for KeysConfig {
    fn default() -> Self {
        let theirs = EngineConfig::default();
        Self { protection_level: theirs.protection, bulk_mode: theirs.bulk_mode }
    }
}
