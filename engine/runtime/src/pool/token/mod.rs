//! One token as the engine sees it: how to connect to it, whether it serves, the keys loaded in it. It is shared by its session threads,
//! its control thread and its actor; each lock is held for a moment, but for the custody's, which serialises unwrapping.

pub(crate) mod feedback;
mod keys;
mod shift;

pub(crate) use keys::LoadError;
use shift::Shift;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::KeyVersionId;
use keymill_core::seam::provider::{
    CryptoProvider, FailureCode, KeyCustody, KeyHandle, ProviderError, ProviderProfile,
};
use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use super::part::{Connect, ConnectError, TokenConfig, TokenPart, TokenReport, TokenState};
use super::slot::Slot;
use super::turns::Seat;
use crate::work::Fault;

struct State {
    provider: Option<Arc<dyn CryptoProvider>>,
    refused: Option<String>,
    drained: bool,
    /// What went wrong last.
    reason: Option<String>,
    /// Sessions that are open.
    live: usize,
    /// Until when one thread alone tries a token that is out.
    claimed_until: Instant,
    next_try: Instant,
    failures: u32,
    /// Whether it is to be connected anew, though there is a provider.
    anew: bool,
}

/// What loads keys, for one thread at a time.
type Custody = Arc<Mutex<Box<dyn KeyCustody>>>;

/// One token.
pub(crate) struct Token {
    /// Its place in the pool, which is its berth at the lanes.
    pub(crate) at: usize,
    pub(crate) config: TokenConfig,
    /// Sessions that are wanted of it in the end; without any, it is no part of the pool.
    wanted: AtomicUsize,
    /// Sessions that it is to have now: its actor sees to that.
    sessions: AtomicUsize,
    /// Whether no key is made any more that would stay in it.
    closed_to_keys: AtomicBool,
    /// The serial number that it had when it was connected last.
    serial: Mutex<Option<String>>,
    connect: Connect,
    /// Its engine's place among those that use it.
    pub(crate) seat: Seat,
    state: Mutex<State>,
    changed: Condvar,
    /// Loads keys; whoever finds one missing takes it, so that each is unwrapped once.
    custody: Mutex<Option<Custody>>,
    handles: Mutex<LruCache<KeyVersionId, KeyHandle>>,
    /// Handles that are to be unloaded by a thread that may wait.
    leaving: Mutex<Vec<KeyHandle>>,
    pub(crate) slots: Mutex<Vec<Arc<Slot>>>,
    /// Which of its sessions are at work.
    pub(crate) shift: Shift,
    pub(crate) control: Mutex<Option<Arc<Slot>>>,
    /// Threads in calls that do not return; below nothing for a moment where one ends as it is given up.
    pub(crate) abandoned: AtomicI64,
    pub(crate) sessions_lost: AtomicU64,
    pub(crate) items: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    item_ns: AtomicU64,
    /// How often it was connected.
    generation: AtomicU64,
    /// Failures by the number of their code, those without one at the end.
    failures: [AtomicU64; FailureCode::COUNT + 1],
}

/// What failures without a code are counted under: a crash, a call that hangs.
pub(crate) const NO_CODE: &str = "none";

/// How long to wait after so many failures in a row: short, since a token that returns is to serve within a second.
pub(crate) fn back_off(failures: u32) -> Duration {
    Duration::from_millis((10 << failures.min(6)).min(400))
}

fn no_handles(config: &TokenConfig) -> LruCache<KeyVersionId, KeyHandle> {
    LruCache::new(NonZeroUsize::new(config.cached_keys).unwrap_or(NonZeroUsize::MIN))
}

impl Token {
    pub(crate) fn new(at: usize, part: TokenPart) -> Self {
        let TokenPart { config, connect, seat } = part;
        let now = Instant::now();
        Self {
            at,
            handles: Mutex::new(no_handles(&config)),
            serial: Mutex::default(),
            shift: Shift::new(config.sessions),
            wanted: AtomicUsize::new(config.sessions),
            sessions: AtomicUsize::new(config.sessions),
            closed_to_keys: AtomicBool::new(false),
            config,
            connect,
            seat,
            state: Mutex::new(State {
                provider: None,
                refused: None,
                drained: false,
                reason: None,
                live: 0,
                claimed_until: now,
                next_try: now,
                failures: 0,
                anew: false,
            }),
            changed: Condvar::new(),
            custody: Mutex::new(None),
            leaving: Mutex::default(),
            slots: Mutex::default(),
            control: Mutex::default(),
            abandoned: AtomicI64::new(0),
            sessions_lost: AtomicU64::new(0),
            items: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            // A guess until items were timed: slow, so that the first chunks are small.
            item_ns: AtomicU64::new(500_000),
            generation: AtomicU64::new(0),
            failures: [const { AtomicU64::new(0) }; FailureCode::COUNT + 1],
        }
    }

    /// Connects, where nothing is connected and something may be; for the control thread. Tells whether there is a connection.
    pub(crate) fn connect(&self) -> bool {
        // Dropped at the end, without a lock: the last of a provider closes its sessions, which may take its time.
        let mut stale = None;
        {
            let mut state = self.state.lock();
            if std::mem::take(&mut state.anew) && state.live == 0 {
                stale = state.provider.take();
            }
            if state.provider.is_some() {
                return true;
            }
            if state.refused.is_some() || state.drained || Instant::now() < state.next_try {
                return false;
            }
        }
        let connected = (self.connect)().and_then(|provider| {
            let custody = provider.custody();
            custody.map(|custody| (provider, custody)).map_err(|error| {
                self.failed_with(&error);
                ConnectError::Unavailable(error.to_string())
            })
        });
        let name = &self.config.name;
        match connected {
            Ok((provider, custody)) => {
                let mut state = self.state.lock();
                if state.provider.is_some() {
                    // The thread was given up meanwhile, and another has connected.
                    return true;
                }
                // Another lock than before: whoever is in a call that does not return may hold that one for ever. Handles of another
                // provider mean nothing to this one, and none are added once its custody stands there.
                let custody = self.custody.lock().replace(Arc::new(Mutex::new(custody)));
                let handles = std::mem::replace(&mut *self.handles.lock(), no_handles(&self.config));
                let leaving = std::mem::take(&mut *self.leaving.lock());
                self.serial.lock().clone_from(&provider.profile().token_serial);
                state.provider = Some(provider);
                self.generation.fetch_add(1, Ordering::Relaxed);
                state.failures = 0;
                state.next_try = Instant::now();
                drop(state);
                self.changed.notify_all();
                tracing::info!(token = name, "the token is connected");
                drop((handles, leaving, custody, stale));
                true
            }
            Err(error) => {
                let mut state = self.state.lock();
                if state.provider.is_some() {
                    return true;
                }
                let is_news = state.reason.as_deref() != Some(&error.to_string());
                state.reason = Some(error.to_string());
                match &error {
                    ConnectError::Refused(why) => {
                        state.refused = Some(why.clone());
                        tracing::error!(
                            token = name,
                            why,
                            "the token is not tried again until an operator enables it"
                        );
                    }
                    ConnectError::Unavailable(why) => {
                        state.failures += 1;
                        state.next_try = Instant::now() + back_off(state.failures);
                        if is_news {
                            tracing::warn!(token = name, why, "the token cannot be connected");
                        }
                    }
                }
                false
            }
        }
    }

    /// Waits until there is a provider to open sessions of; `None`: the thread is not wanted any more.
    pub(crate) fn await_provider(&self, slot: &Slot) -> Option<Arc<dyn CryptoProvider>> {
        let mut state = self.state.lock();
        loop {
            if slot.is_retired() {
                return None;
            }
            if !state.drained
                && let Some(provider) = &state.provider
            {
                return Some(Arc::clone(provider));
            }
            self.changed.wait_for(&mut state, Duration::from_millis(500));
        }
    }

    /// Tells whether a session may be opened now, or how long to wait: while a token is out, one thread tries for all.
    pub(crate) fn may_open(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        if state.live > 0 {
            return Ok(());
        }
        let from = state.next_try.max(state.claimed_until);
        if now < from {
            return Err((from - now).min(Duration::from_millis(100)));
        }
        state.claimed_until = now + self.config.open_timeout;
        Ok(())
    }

    /// Waits for so long, or until the first session is open: then all others are to follow at once, before a call that hangs may hold
    /// what opening needs.
    pub(crate) fn rest_before_opening(&self, wait: Duration) {
        let mut state = self.state.lock();
        if state.live == 0 {
            self.changed.wait_for(&mut state, wait);
        }
    }

    /// Says that a session was opened.
    pub(crate) fn opened(&self) {
        let mut state = self.state.lock();
        state.live += 1;
        state.failures = 0;
        let now = Instant::now();
        (state.claimed_until, state.next_try) = (now, now);
        drop(state);
        self.changed.notify_all();
    }

    /// Says that no session could be opened.
    pub(crate) fn open_failed(&self, why: &str) {
        let mut state = self.state.lock();
        if state.live == 0 {
            if state.failures == 0 {
                tracing::error!(token = %self.config.name, why, "the token is out");
            }
            state.failures += 1;
            let now = Instant::now();
            state.claimed_until = now;
            state.next_try = now + back_off(state.failures);
        }
        state.reason = Some(why.to_owned());
    }

    /// Says that a session is closed, and why if it was lost.
    pub(crate) fn closed(&self, lost: Option<&str>) {
        let mut state = self.state.lock();
        state.live = state.live.saturating_sub(1);
        if let Some(why) = lost {
            state.reason = Some(why.to_owned());
            self.sessions_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the token out of service: sessions finish what they have.
    pub(crate) fn drain(&self) {
        self.state.lock().drained = true;
        self.changed.notify_all();
        self.shift.wake();
    }

    /// Takes the token into service again; one that was refused, or is out, is connected anew, by its PIN as it is set now.
    pub(crate) fn enable(&self) {
        let mut state = self.state.lock();
        state.drained = false;
        // By the control thread: to drop a provider calls into its module.
        state.anew = state.live == 0;
        state.refused = None;
        state.failures = 0;
        state.next_try = Instant::now();
        drop(state);
        self.changed.notify_all();
    }

    /// Returns how many sessions are wanted of it in the end.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    /// Returns how many sessions it is to have now.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }

    /// Sets how many sessions are wanted of it; one that comes is in service, whatever became of it before.
    pub(crate) fn want(&self, sessions: usize) {
        if self.wanted.swap(sessions, Ordering::AcqRel) == 0 {
            self.enable();
        }
    }

    /// Sets how many sessions it is to have from now on.
    pub(crate) fn allow(&self, sessions: usize) {
        self.sessions.store(sessions, Ordering::Release);
        if sessions > 0 {
            self.shift.set_wanted(sessions);
        }
    }

    /// Has it take keys no longer that would stay in it, or again.
    pub(crate) fn close_to_keys(&self, is_closed: bool) {
        self.closed_to_keys.store(is_closed, Ordering::Release);
    }

    /// Tells whether keys may stay in it.
    pub(crate) fn is_open_to_keys(&self) -> bool {
        self.wanted() > 0 && !self.closed_to_keys.load(Ordering::Acquire)
    }

    /// Tells whether it neither has sessions nor is to have any.
    pub(crate) fn is_out_of_pool(&self) -> bool {
        self.wanted() == 0 && self.sessions() == 0
    }

    /// Tells whether it is a part of the pool, or something of it is left there.
    pub(crate) fn is_about(&self) -> bool {
        !self.is_out_of_pool() || self.is_connected() || !self.slots.lock().is_empty()
    }

    /// Tells whether it is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.state.lock().provider.is_some()
    }

    /// Ends the connection of a token that left the pool: nothing of it stays, be it a worker process. By the control thread, as that calls into
    /// its module, and when its sessions are gone.
    pub(crate) fn let_go(&self) {
        let mut state = self.state.lock();
        let left = state.provider.take();
        (state.refused, state.reason, state.failures) = (None, None, 0);
        let custody = self.custody.lock().take();
        let handles = std::mem::replace(&mut *self.handles.lock(), no_handles(&self.config));
        let leaving = std::mem::take(&mut *self.leaving.lock());
        *self.serial.lock() = None;
        drop(state);
        drop((handles, leaving, custody, left));
        tracing::info!(token = %self.config.name, "the token has left the pool");
    }

    /// Tells whether sessions should end: the token is drained.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.lock().drained
    }

    /// Returns what the token can do, once it was connected.
    pub(crate) fn profile(&self) -> Option<ProviderProfile> {
        self.state.lock().provider.as_ref().map(|provider| provider.profile().clone())
    }

    /// Returns the provider, once it was connected.
    pub(crate) fn provider(&self) -> Option<Arc<dyn CryptoProvider>> {
        self.state.lock().provider.clone()
    }

    /// Returns the serial number that it had when it was connected last.
    pub(crate) fn serial(&self) -> Option<String> {
        self.serial.lock().clone()
    }

    /// Tells whether it had this serial number when it was connected last.
    pub(crate) fn is_of(&self, serial: &str) -> bool {
        self.serial.lock().as_deref() == Some(serial)
    }

    /// Returns the longest text that it takes, in bytes, once it was connected.
    pub(crate) fn max_item_bytes(&self) -> Option<usize> {
        self.state.lock().provider.as_ref().map(|provider| provider.profile().max_item_bytes)
    }

    /// Notes that so many items were done, of so many operations, and how long they took where they were sealed, opened or derived.
    pub(crate) fn timed(&self, items: usize, operations: usize, took: Option<Duration>) {
        self.items.fetch_add(items as u64, Ordering::Relaxed);
        self.seat.did(operations);
        let Some(took) = took else { return };
        let each = took.as_nanos() as u64 / operations.max(1) as u64;
        // An exponential mean over some eight batches; that two threads lose one another's is no harm.
        let before = self.item_ns.load(Ordering::Relaxed);
        self.item_ns.store((before * 7 + each) / 8, Ordering::Relaxed);
    }

    /// Returns how often the token was connected.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Returns the number of sessions that are open.
    pub(crate) fn open_sessions(&self) -> usize {
        self.state.lock().live
    }

    /// Counts a failure of the token, by what it returned; whoever answers for it calls this, once.
    pub(crate) fn failed(&self, code: Option<FailureCode>) {
        let at = code.map_or(FailureCode::COUNT, FailureCode::index);
        self.failures[at].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error where it is the token's: one that blames what it was asked is none.
    pub(crate) fn failed_with(&self, error: &ProviderError) {
        if let ProviderError::Unavailable(cause) = error {
            self.failed(cause.code);
        }
    }

    fn failures(&self) -> Vec<(&'static str, u64)> {
        let names = (0..FailureCode::COUNT).filter_map(FailureCode::from_index).map(FailureCode::name);
        let counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        names.chain([NO_CODE]).zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// Notes that a call was given up: it may be slow rather than dead, and is to have more time then.
    pub(crate) fn seems_slower(&self) {
        let more = self.item_ns().saturating_mul(4).min(100_000_000);
        self.item_ns.fetch_max(more, Ordering::Relaxed);
    }

    /// Returns how long a call may take that does so many operations.
    pub(crate) fn allowed(&self, operations: usize) -> Duration {
        self.config.call_timeout + Duration::from_nanos(2 * self.item_ns() * operations as u64)
    }

    /// Returns the nanoseconds that one item takes, of late.
    pub(crate) fn item_ns(&self) -> u64 {
        self.item_ns.load(Ordering::Relaxed)
    }

    /// Returns how many items a session should take in one go: some two milliseconds' worth.
    pub(crate) fn batch_items(&self) -> usize {
        (2_000_000 / self.item_ns().max(1)).clamp(1, 2 * super::MAX_CHUNK as u64) as usize
    }

    /// Returns the number of threads in calls that do not return.
    pub(crate) fn hung(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed).max(0) as usize
    }

    /// Tells how the token is.
    pub(crate) fn report(&self) -> TokenReport {
        let keys_loaded = self.handles.lock().len();
        let oldest = self.slots.lock().iter().filter_map(|slot| slot.open_since()).min();
        // Before the state is locked: whoever rests asks for the state under the lock of the shift.
        let sessions_at_work = self.shift.at_work();
        let state = self.state.lock();
        let now = match () {
            () if state.drained => TokenState::Drained,
            () if state.refused.is_some() => TokenState::Refused,
            () if state.live > 0 => TokenState::Up,
            () => TokenState::Out,
        };
        TokenReport {
            name: self.config.name.clone(),
            state: now,
            reason: state.reason.clone(),
            sessions: state.live,
            sessions_at_work,
            oldest_session: oldest.map(|since| since.elapsed()),
            generation: self.generation(),
            sessions_wanted: self.wanted(),
            hung: self.hung(),
            failures: self.failures(),
            sessions_lost: self.sessions_lost.load(Ordering::Relaxed),
            items: self.items.load(Ordering::Relaxed),
            keys_loaded,
            key_lookups: [self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed)],
            item_ns: self.item_ns(),
        }
    }
}

/// Returns the fault of items that no session could do.
pub(crate) fn out_of_sessions() -> Fault {
    Error::new(ErrorKind::Unavailable, "no session of the crypto pool could do it").retry_after_ms(500).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::seam::provider::Cause;

    fn token() -> Token {
        Token::new(
            0,
            TokenPart::new(
                TokenConfig::new("t"),
                Box::new(|| Err(ConnectError::Refused("wrong PIN".into()))),
            ),
        )
    }

    #[test]
    fn a_refused_token_is_tried_once_until_an_operator_enables_it() {
        use std::sync::atomic::AtomicU32;
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        let token = Token::new(
            0,
            TokenPart::new(
                TokenConfig::new("t"),
                Box::new(move || {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Err(ConnectError::Refused("wrong PIN".into()))
                }),
            ),
        );
        assert!((0..100).all(|_| !token.connect()));
        assert_eq!(tries.load(Ordering::Relaxed), 1);
        assert_eq!(token.report().state, TokenState::Refused);
        token.enable();
        assert!(!token.connect());
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn while_a_token_is_out_one_thread_tries_and_the_rest_wait() {
        let token = token();
        let now = Instant::now() + Duration::from_secs(1);
        assert!(token.may_open(now).is_ok());
        assert!(token.may_open(now).is_err());
        // One that hangs there does not keep the others away for ever.
        assert!(token.may_open(now + token.config.open_timeout).is_ok());
        token.opened();
        assert!(token.may_open(now).is_ok() && token.may_open(now).is_ok());
        token.closed(Some("gone"));
        assert_eq!((token.report().sessions_lost, token.report().state), (1, TokenState::Out));
    }

    #[test]
    fn failures_are_counted_by_their_code() {
        let token = token();
        assert_eq!(token.report().failures, []);
        let device = FailureCode::named("CKR_DEVICE_ERROR");
        let cause = Cause { reason: "C_OpenSession returned it".into(), code: Some(device) };
        token.failed_with(&ProviderError::Unavailable(cause));
        token.failed(Some(device));
        token.failed(Some(FailureCode::OTHER));
        token.failed(None);
        token.failed_with(&ProviderError::Rejected("the request's own fault".into()));
        assert_eq!(token.report().failures, [("other", 1), ("CKR_DEVICE_ERROR", 2), ("none", 1)]);
    }

    #[test]
    fn a_token_that_returns_is_tried_within_a_second_however_long_it_was_gone() {
        assert!((0..100).all(|failures| back_off(failures) <= Duration::from_millis(400)));
        assert!(back_off(0) < back_off(3));
    }
}
