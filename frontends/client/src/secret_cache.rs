//! Secrets that are read more than once: a value is at hand for its time to live, read anew before that is over, and outlives it where the
//! service is away, for so long and no longer. Whoever is refused keeps nothing.

mod state;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::id::SecretName;
use parking_lot::Mutex;

use crate::flight::{Lead, Role, board};
use crate::secrets::{Asked, SecretValue, Secrets, SecretsError};
use crate::wait;
use state::{Look, State};

/// How long values are used, and how many are kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The time from the request for a value to the one that asks for it again before it is answered: a value that was changed at the service
    /// is in use for so long at most, while the service can be reached.
    pub ttl: Duration,
    /// How long before that it is read anew while the old one is still given out, so that nobody waits.
    pub ahead: Duration,
    /// How long a value outlives its time where the service cannot be reached. A refusal ends it at once.
    pub stale: Duration,
    /// The time between two tries to read a value anew where the service cannot be reached.
    pub retry: Duration,
    /// Values that are kept.
    pub count: NonZeroUsize,
    /// Bytes of all values that are kept; a longer one is given out and not kept.
    pub bytes: usize,
    /// Threads that read values anew ahead of their time.
    pub threads: usize,
}

impl Default for Limits {
    /// 5 minutes, a minute ahead, 15 minutes where the service is away, a try every 5 seconds; 1,024 values, 8 MiB, 4 threads.
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5 * 60),
            ahead: Duration::from_secs(60),
            stale: Duration::from_secs(15 * 60),
            retry: Duration::from_secs(5),
            count: NonZeroUsize::new(1024).expect("it is not zero"),
            bytes: 8 << 20,
            threads: 4,
        }
    }
}

/// What a cache did so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Values that were at hand.
    pub hits: u64,
    /// Of these, values whose time was over while the service could not be reached.
    pub stale: u64,
    /// Values that were asked for and not at hand.
    pub misses: u64,
    /// Values that were read from the service.
    pub reads: u64,
    /// Reads that failed since the service was away.
    pub unavailable: u64,
    /// Reads that the service refused.
    pub refused: u64,
    /// Values that went for others.
    pub evicted: u64,
    /// Values that are kept now.
    pub kept: u64,
    /// Bytes of these.
    pub kept_bytes: u64,
}

/// A cache of secrets in this process; clones lead to the same one. Tasks and threads share it; of those that miss the same value at once,
/// one asks for it.
///
/// A value is wiped once it is dropped (for its age, by another that takes its place, by a refusal, by [`invalidate`](Self::invalidate) or
/// [`clear`](Self::clear)) and whoever uses it at that moment is done. Ages are looked at with each call; who makes none for a long time calls
/// [`expire`](Self::expire).
pub struct SecretCache<S>(Arc<Inner<S>>);

struct Inner<S> {
    secrets: S,
    limits: Limits,
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    state: Mutex<State>,
}

/// A fetch as it began.
struct Begun<'s> {
    lead: Lead<'s, State>,
    at: Instant,
    cleared: u64,
}

impl<S> Clone for SecretCache<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Secrets + 'static> SecretCache<S> {
    /// Makes a cache before `secrets`.
    pub fn new(secrets: S, limits: Limits) -> Self {
        Self::with_clock(secrets, limits, Instant::now)
    }

    /// Makes a cache that takes the time from `now`.
    pub fn with_clock(secrets: S, limits: Limits, now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State::new(limits.count));
        Self(Arc::new(Inner { secrets, limits, now: Box::new(now), state }))
    }

    /// Returns a value: the one at hand, or the service's.
    ///
    /// # Errors
    /// `Refused` where the service says no; `Unavailable` where it is away, and has been for longer than a value outlives its time.
    pub async fn get(&self, asked: &Asked) -> Result<Arc<SecretValue>, SecretsError> {
        let inner = &*self.0;
        let begun = loop {
            let flight = {
                let mut state = inner.state.lock();
                let now = (inner.now)();
                match state.look(asked, now, &inner.limits) {
                    Look::AtHand { value, read_anew } => {
                        drop(state);
                        if read_anew {
                            self.read_apart(asked);
                        }
                        return Ok(value);
                    }
                    Look::Ask => {}
                }
                match board(&mut *state, &inner.state, asked.clone()) {
                    Role::Leads(lead) => break Begun { lead, at: now, cleared: state.cleared },
                    Role::Follows(flight) => flight,
                }
            };
            // Where the one that led went away without an answer, another takes its part.
            if let Some(Err(error)) = flight.landed().await {
                return inner.or_stale(asked, error);
            }
        };
        match inner.fetch(asked, begun).await {
            Ok(value) => Ok(value),
            Err(error) => inner.or_stale(asked, error),
        }
    }

    /// Reads a value from the service, whatever is at hand, and keeps it.
    ///
    /// # Errors
    /// As the service says; what was at hand is kept where it is away.
    pub async fn refresh(&self, asked: &Asked) -> Result<Arc<SecretValue>, SecretsError> {
        let inner = &*self.0;
        let begun = loop {
            let flight = {
                let mut state = inner.state.lock();
                match board(&mut *state, &inner.state, asked.clone()) {
                    Role::Leads(lead) => break Begun { lead, at: (inner.now)(), cleared: state.cleared },
                    Role::Follows(flight) => flight,
                }
            };
            // One that began before us may bring what was there before: we ask once more.
            flight.landed().await;
        };
        inner.fetch(asked, begun).await
    }

    /// Throws the values of a secret away, those that are on their way among them.
    pub fn invalidate(&self, name: &SecretName) {
        self.0.state.lock().forget(|asked| asked.name == *name);
    }

    /// Throws every value away; what is asked for at this moment is not kept.
    pub fn clear(&self) {
        self.0.state.lock().forget(|_| true);
    }

    /// Throws away what outlived its time, and returns when the next one has; `None` where there is none.
    pub fn expire(&self) -> Option<Instant> {
        let mut state = self.0.state.lock();
        state.expire((self.0.now)(), &self.0.limits);
        state.next_expiry
    }

    /// Returns what it did so far.
    pub fn counts(&self) -> Counts {
        self.0.state.lock().counts()
    }

    /// Reads a value on a thread of its own: whoever asked has one at hand and does not wait.
    fn read_apart(&self, asked: &Asked) {
        let (this, name) = (self.clone(), asked.clone());
        let read = move || {
            let inner = &*this.0;
            let role = {
                let mut state = inner.state.lock();
                let cleared = state.cleared;
                match board(&mut *state, &inner.state, name.clone()) {
                    Role::Leads(lead) => Some(Begun { lead, at: (inner.now)(), cleared }),
                    // Somebody is at it.
                    Role::Follows(_) => None,
                }
            };
            if let Some(begun) = role {
                // What comes of it is found in the cache.
                drop(wait(inner.fetch(&name, begun)));
            }
            inner.state.lock().read_apart_ended(&name);
        };
        if std::thread::Builder::new().name("keymill-secret".to_owned()).spawn(read).is_err() {
            self.0.state.lock().read_apart_ended(asked);
        }
    }
}

impl<S: Secrets> Inner<S> {
    /// Reads a value and keeps it, or what is to be known of the failure.
    async fn fetch(&self, asked: &Asked, begun: Begun<'_>) -> Result<Arc<SecretValue>, SecretsError> {
        let Begun { lead, at, cleared } = begun;
        let outcome = self.secrets.read(asked).await.map(Arc::new);
        let mut state = self.state.lock();
        let keep = state.cleared == cleared;
        match &outcome {
            Ok(value) => state.read(asked, value, at, keep, &self.limits),
            Err(error) => state.failed(asked, error, (self.now)(), &self.limits),
        }
        drop(state);
        lead.land(outcome.as_ref().map(drop).map_err(Clone::clone));
        outcome
    }

    /// Returns the value that outlives its time, where the service is away.
    fn or_stale(&self, asked: &Asked, error: SecretsError) -> Result<Arc<SecretValue>, SecretsError> {
        let value = match error {
            SecretsError::Unavailable(_) => self.state.lock().stale(asked, (self.now)(), &self.limits),
            SecretsError::Refused(_) => None,
        };
        value.ok_or(error)
    }
}

impl<S> fmt::Debug for SecretCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretCache({} values)", self.0.state.lock().counts().kept)
    }
}

#[cfg(test)]
mod tests;
