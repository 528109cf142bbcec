//! A token as a part of an engine: its options, how it is connected, and how it reports itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keymill_core::seam::provider::CryptoProvider;
use serde::{Deserialize, Serialize};

use super::turns::{Seat, Turns};

/// Options of one token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Its name in metrics, logs and the audit.
    pub name: String,
    /// Sessions for the use of keys, all of them open.
    pub sessions: usize,
    /// How many of them are at work.
    pub in_flight: InFlight,
    /// Keys loaded in it, at most.
    pub cached_keys: usize,
    /// How long one call may take before its session is given up.
    pub call_timeout: Duration,
    /// How long the opening of a session may take: it may have to connect first, or start a worker.
    pub open_timeout: Duration,
    /// How long the generation of a key may take.
    pub generate_timeout: Duration,
    /// How often an idle token is tried.
    pub probe_interval: Duration,
    /// Threads in calls that do not return, at most: then the token gets no new session until one of them does.
    pub max_abandoned: usize,
}

impl TokenConfig {
    /// Returns the defaults for a token of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sessions: 4,
            in_flight: InFlight::Feedback,
            cached_keys: 1_000,
            call_timeout: Duration::from_secs(2),
            open_timeout: Duration::from_secs(15),
            generate_timeout: Duration::from_secs(60),
            probe_interval: Duration::from_secs(5),
            max_abandoned: 32,
        }
    }
}

/// How many sessions of a token are at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InFlight {
    /// As many as are seen to do most, up to all.
    #[default]
    Feedback,
    /// All.
    All,
}

/// Why a token cannot be connected.
#[derive(Debug)]
pub enum ConnectError {
    /// It may come back: it is tried again.
    Unavailable(String),
    /// An operator has to act first (a refused PIN, another domain's token): it is not tried again until told to.
    Refused(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unavailable(why) | ConnectError::Refused(why) => f.write_str(why),
        }
    }
}

/// What connects a token; called on a thread that may wait.
pub type Connect = Box<dyn Fn() -> Result<Arc<dyn CryptoProvider>, ConnectError> + Send + Sync>;

/// A token as a part of an engine.
pub struct TokenPart {
    /// Its options.
    pub config: TokenConfig,
    /// What connects it.
    pub connect: Connect,
    /// The engine's place among those that use the token.
    pub seat: Seat,
}

impl TokenPart {
    /// Makes the part of an engine that has the token for itself.
    pub fn new(config: TokenConfig, connect: Connect) -> Self {
        let seat = Turns::new(config.in_flight).sit(1, config.sessions);
        Self { config, connect, seat }
    }
}

/// Whether a token serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// It is connected and has a session.
    Up,
    /// It is not, and is being tried.
    Out,
    /// An operator has taken it out.
    Drained,
    /// It refused to be connected; an operator has to act.
    Refused,
}

impl TokenState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Up, Self::Out, Self::Drained, Self::Refused];

    /// Returns the name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            TokenState::Up => "up",
            TokenState::Out => "out",
            TokenState::Drained => "drained",
            TokenState::Refused => "refused",
        }
    }
}

/// How a token is.
#[derive(Clone, Debug, Serialize)]
pub struct TokenReport {
    /// Its name.
    pub name: String,
    /// Whether it serves.
    pub state: TokenState,
    /// Why it does not, or what went wrong last.
    pub reason: Option<String>,
    /// Sessions that are open.
    pub sessions: usize,
    /// Those of them that take work; the others rest.
    pub sessions_at_work: usize,
    /// How long ago the oldest of them was opened; `None` where none is.
    pub oldest_session: Option<Duration>,
    /// How often the token was connected since the start: sessions and loaded keys of before mean nothing to it.
    pub generation: u64,
    /// Sessions that are wanted.
    pub sessions_wanted: usize,
    /// Threads in calls that do not return.
    pub hung: usize,
    /// Failures of the token since the start, by the code that it returned: its name, `other`, or `none`; those that there were.
    pub failures: Vec<(&'static str, u64)>,
    /// Sessions lost since the start.
    pub sessions_lost: u64,
    /// Items done since the start.
    pub items: u64,
    /// Keys loaded.
    pub keys_loaded: usize,
    /// Look-ups of loaded keys that hit, and that missed.
    pub key_lookups: [u64; 2],
    /// Nanoseconds that one item takes, of late.
    pub item_ns: u64,
}
