//! A crypto pool: tokens, the lane in front of their sessions, the lane of their control work, and what desks need to know of them.
//! Nothing here calls into a module but `Token`, on the threads of the session actors.

mod change;
pub(crate) mod chunk;
mod membership;
pub(crate) mod part;
pub(crate) mod slot;
pub(crate) mod token;
pub(crate) mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_core::access::Caller;
use keymill_core::blob::Algorithm;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::KeyVersionId;
use keymill_core::key::{BulkMode, Cmk, Fallback, KeySpec, KeyUsage, WrappingAlgorithm, sealed_by};
use keymill_core::seam::provider::ProviderProfile;
use keymill_crypto::epoch::EpochLimits;

use crate::actor::CustodyJob;
use crate::keyring::CmkEntry;
use crate::lane::Lane;
use chunk::Chunk;
use token::Token;

pub(crate) use membership::{Closed, leaving};
pub use part::{Connect, ConnectError, InFlight, TokenConfig, TokenPart, TokenReport, TokenState};
pub use turns::{Seat, Turns};

/// Options of a pool of tokens.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Chunks that wait for a session, at most.
    pub queue: usize,
    /// Key generations that wait, at most.
    pub control_queue: usize,
    /// How long requests wait while no session is up, before they are refused at once.
    pub patience: Duration,
    /// How long one sealing epoch of an `HsmDerived` key lasts.
    pub epoch_max_age: Duration,
    /// Nanoseconds of work that one chunk is cut for, by what items were seen to take.
    pub chunk: Duration,
    /// When software may stand in for the tokens, for keys that allow it, too.
    pub fallback: Fallback,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            queue: 65_536,
            control_queue: 256,
            patience: Duration::from_secs(1),
            epoch_max_age: Duration::from_secs(10),
            chunk: Duration::from_millis(1),
            fallback: Fallback::Never,
        }
    }
}

/// Items of one chunk, at most; and prefixes whose subkeys are derived in one go (`spec/ciphertext.md`).
pub(crate) const MAX_CHUNK: usize = 256;

/// Says that a token does not serve that alone could.
fn away(serial: &str) -> Error {
    let message = format!("the key stays in the token of serial number {serial}, which is not connected");
    Error::new(ErrorKind::Unavailable, message).retry_after_ms(500)
}

/// The tokens of an engine and the lanes in front of them.
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    pub(crate) lane: Lane<Caller, Box<Chunk>>,
    pub(crate) control: Lane<Caller, CustodyJob>,
    pub(crate) tokens: Vec<Arc<Token>>,
    stopped: AtomicBool,
}

impl Pool {
    pub(crate) fn new(config: PoolConfig, parts: Vec<TokenPart>) -> Self {
        let (berths, patience) = (parts.len(), config.patience);
        let pool = Self {
            lane: Lane::new(config.queue, MAX_CHUNK).with_patience(patience).with_berths(berths),
            control: Lane::new(config.control_queue, 1).with_patience(patience).with_berths(berths),
            tokens: parts.into_iter().enumerate().map(|(at, part)| Arc::new(Token::new(at, part))).collect(),
            stopped: AtomicBool::new(false),
            config,
        };
        pool.man_lanes();
        pool
    }

    /// Tells whether there are no tokens; those that could be given to it do not count.
    pub(crate) fn is_empty(&self) -> bool {
        self.members().next().is_none()
    }

    /// Lists the tokens that are part of the pool.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.tokens.iter().filter(|token| token.wanted() > 0)
    }

    /// Without a token nobody ever comes, nor is there an actor to refuse what waits.
    fn man_lanes(&self) {
        let is_manned = !self.is_empty();
        self.lane.set_manned(is_manned);
        self.control.set_manned(is_manned);
    }

    /// Returns the limits of sealing epochs whose subkeys a token derives.
    pub(crate) fn epoch_limits(&self) -> EpochLimits {
        EpochLimits { max_age: self.config.epoch_max_age, ..EpochLimits::default() }
    }

    /// Returns how many items a chunk should hold, so that it takes about as long as one is cut for.
    pub(crate) fn chunk_items(&self) -> usize {
        let fastest = self.members().map(|token| token.item_ns()).min().unwrap_or(1).max(1);
        (self.config.chunk.as_nanos() as u64 / fastest).clamp(1, MAX_CHUNK as u64) as usize
    }

    /// Returns how many chunks of one job may be under way: enough for every session, and one more each while it comes back.
    pub(crate) fn window(&self) -> usize {
        (2 * self.lane.sessions() + 2).clamp(4, 1_024)
    }

    /// Returns the longest text that every token takes, in bytes.
    pub(crate) fn max_item_bytes(&self) -> usize {
        self.tokens.iter().filter_map(|token| token.max_item_bytes()).min().unwrap_or(usize::MAX)
    }

    /// Returns the berth of the token that a key stays in; `None` for a key that any token serves.
    ///
    /// # Errors
    /// `Unavailable` where no token of this serial number was connected since the start.
    pub(crate) fn berth(&self, cmk: &Cmk) -> Result<Option<usize>> {
        cmk.token_serial.as_deref().map(|serial| self.berth_of(serial)).transpose()
    }

    /// Returns the berth of the token of this serial number.
    ///
    /// # Errors
    /// `Unavailable` where none was connected since the start.
    pub(crate) fn berth_of(&self, serial: &str) -> Result<usize> {
        self.tokens.iter().position(|token| token.is_of(serial)).ok_or_else(|| away(serial))
    }

    /// Returns the berth of the token of this serial number, if it serves.
    ///
    /// # Errors
    /// `Unavailable` where it does not.
    pub(crate) fn berth_up(&self, serial: &str) -> Result<usize> {
        let berth = self.berth_of(serial)?;
        match self.tokens[berth].open_sessions() {
            0 => Err(away(serial)),
            _ => Ok(berth),
        }
    }

    /// Returns the berth of a token into which material of `spec` comes wrapped by `algorithm`; of one that serves, where there is one.
    ///
    /// # Errors
    /// `Unsupported` where none of them takes it; `Unavailable` where one may that is not connected yet.
    pub(crate) fn importer(&self, spec: KeySpec, algorithm: WrappingAlgorithm) -> Result<usize> {
        let takes =
            |token: &&Arc<Token>| token.profile().is_some_and(|profile| profile.imports(spec, algorithm));
        let found = self.members().filter(takes).max_by_key(|token| token.open_sessions() > 0);
        found.map(|token| token.at).ok_or_else(|| match self.all_are_known() {
            true => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "no token of the crypto pool takes key material of {} that is wrapped by {}",
                    spec.name(),
                    algorithm.name()
                ),
            ),
            false => crate::lane::down(),
        })
    }

    /// Checks that material of `spec` can come wrapped into a token, one way or another; one that is not connected yet may take it.
    ///
    /// # Errors
    /// `Unsupported` where none of them takes it.
    pub(crate) fn check_imports(&self, spec: KeySpec) -> Result<()> {
        let takes = |profile: ProviderProfile| profile.imports.iter().any(|way| profile.imports(spec, *way));
        let takes = |token: &Arc<Token>| token.profile().is_some_and(takes);
        match self.members().any(takes) || !self.all_are_known() {
            true => Ok(()),
            false => {
                let why =
                    format!("no token of the crypto pool takes key material of {} from outside", spec.name());
                Err(Error::new(ErrorKind::Unsupported, why))
            }
        }
    }

    fn all_are_known(&self) -> bool {
        self.members().all(|token| token.profile().is_some())
    }

    /// Checks that the tokens can hold a key of this kind; one that is not connected yet says so when it is to make the key.
    ///
    /// # Errors
    /// `Unsupported` where there is no token, or one lacks what it takes.
    pub(crate) fn check(&self, spec: KeySpec, usage: KeyUsage, mode: Option<BulkMode>) -> Result<()> {
        let unsupported = |what: String| Err(Error::new(ErrorKind::Unsupported, what));
        if self.is_empty() {
            return unsupported("no crypto pool of this installation has a hardware security module".into());
        }
        for token in self.members() {
            let Some(profile) = token.profile() else { continue };
            let lacks = match mode.and_then(|mode| sealed_by(spec, Some(mode))) {
                Some(Algorithm::Xaes256Gcm) => !profile.derives,
                Some(algorithm) => !profile.algorithms.contains(&algorithm),
                None => false,
            } || !profile.offers(spec, usage);
            if lacks {
                let mode = mode.map_or(String::new(), |mode| format!(" in bulk mode {mode:?}"));
                let (token, spec, usage) = (&token.config.name, spec.name(), usage.name());
                return unsupported(format!("token {token} does not offer {spec} for {usage}{mode}"));
            }
        }
        Ok(())
    }

    /// Tells whether software stands in for tokens that did not take work under `cmk`, and what for; pool and key must both allow it.
    pub(crate) fn fallback(&self, cmk: &Cmk, refusal: ErrorKind) -> Option<Fallback> {
        let reason = match refusal {
            ErrorKind::Unavailable => Fallback::Unavailable,
            ErrorKind::Busy => Fallback::Saturated,
            _ => return None,
        };
        (self.config.fallback.min(cmk.fallback) >= reason).then_some(reason)
    }

    /// Has every token forget a key that may no longer be used; it is unloaded within a second.
    pub(crate) fn forget(&self, entry: &CmkEntry) {
        let versions: Vec<KeyVersionId> = entry.versions.iter().map(|version| version.id).collect();
        self.tokens.iter().for_each(|token| token.forget(&versions));
    }

    /// Has sessions and control threads end once the lanes are drained, and waits for them, for a while.
    pub(crate) fn end(&self, within: Duration) {
        self.stopped.store(true, Ordering::Release);
        self.lane.close();
        self.control.close();
        let until = Instant::now() + within;
        for token in &self.tokens {
            let control = token.control.lock().clone();
            let slots: Vec<_> = token.slots.lock().iter().cloned().chain(control).collect();
            slots.iter().for_each(|slot| slot.retire());
            token.shift.wake();
            for slot in slots {
                if !slot.await_end(until) {
                    tracing::warn!(token = %token.config.name, "a thread in a call that does not return is left behind");
                }
            }
        }
        // Threads of the host program may wait for it.
        self.refuse_stranded();
    }

    /// Refuses what waits at lanes that are down.
    pub(crate) fn refuse_stranded(&self) {
        let mut stranded = self.lane.take_stranded();
        for chunk in &mut stranded {
            chunk.fault = Some(crate::lane::down().into());
        }
        chunk::send_home(stranded);
        for job in self.control.take_stranded() {
            job.answer(Err(crate::lane::down()));
        }
    }

    /// Tells whether it was told to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
