//! Data keys that are used more than once: many payloads under one, within limits, so that the service is not asked for each. Every
//! payload is a whole envelope all the same, and opens anywhere.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{self, SHA256};
use keymill_core::EncryptionContext;
use keymill_core::id::CmkId;
use lru::LruCache;
use parking_lot::Mutex;

use crate::envelope::{Envelope, EnvelopeError, Header};
use crate::flight::{Flights, Role, Tower, board};
use crate::keys::{DataKeys, KeysError};

/// How long and how often a data key is used, and how many are kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The time from the request for a data key to its last use, for sealing as for opening: what is taken away from a caller at the
    /// service is out of force here after so long.
    pub age: Duration,
    /// Payloads sealed under one data key.
    pub payloads: u64,
    /// Bytes of payloads sealed under one data key; a payload that is longer by itself is refused.
    pub bytes: u64,
    /// Data keys kept for sealing, one a key and context.
    pub sealing: NonZeroUsize,
    /// Data keys kept for opening, one an EDK.
    pub opened: NonZeroUsize,
}

impl Default for Limits {
    /// 5 minutes, 2^20 payloads, 64 GiB, 64 data keys for sealing and 1,024 for opening.
    fn default() -> Self {
        let count = |count| NonZeroUsize::new(count).expect("it is not zero");
        Self {
            age: Duration::from_secs(5 * 60),
            payloads: 1 << 20,
            bytes: 64 << 30,
            sealing: count(64),
            opened: count(1024),
        }
    }
}

/// A cache of data keys in this process. Tasks and threads share it; of those that miss the same data key at once, one asks for it.
///
/// A data key is wiped once it is dropped, for its age, by another that takes its place, or by [`clear`](Self::clear), and whoever uses
/// it at that moment is done. Ages are looked at with each call; who makes none for a long time calls [`expire`](Self::expire).
pub struct Local<K> {
    keys: K,
    limits: Limits,
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    state: Mutex<State>,
}

/// What a data key is kept under: a digest, since headers and contexts are long.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place([u8; 32]);

impl Place {
    fn of(purpose: u8, parts: [&[u8]; 2]) -> Self {
        let mut digest = digest::Context::new(&SHA256);
        digest.update(&[purpose]);
        // The first part has one length for each purpose.
        parts.iter().for_each(|part| digest.update(part));
        Self(digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

struct State {
    sealing: LruCache<Place, Sealing>,
    opened: LruCache<Place, Opened>,
    flights: Flights<Place, KeysError>,
    /// How often everything was thrown away: what was asked for before is not kept after.
    cleared: u64,
    /// The time at which the oldest has its age; `None` where there is none.
    next_expiry: Option<Instant>,
}

/// A data key that payloads are sealed under, and what it was used for.
struct Sealing {
    envelope: Arc<Envelope>,
    asked: Instant,
    payloads: u64,
    bytes: u64,
}

struct Opened {
    envelope: Arc<Envelope>,
    asked: Instant,
}

impl<K: DataKeys> Local<K> {
    /// Makes a cache before `keys`.
    pub fn new(keys: K, limits: Limits) -> Self {
        Self::with_clock(keys, limits, Instant::now)
    }

    /// Makes a cache that takes the time from `now`.
    pub fn with_clock(keys: K, limits: Limits, now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let state = State {
            sealing: LruCache::new(limits.sealing),
            opened: LruCache::new(limits.opened),
            flights: Flights::default(),
            cleared: 0,
            next_expiry: None,
        };
        Self { keys, limits, now: Box::new(now), state: Mutex::new(state) }
    }

    /// Seals a payload under a data key of `key_id` and `context`.
    ///
    /// # Errors
    /// `Keys` where a data key is needed and not to be had, `TooLong` past the limit of a data key's bytes, `NoRandomness`.
    pub async fn seal(
        &self,
        key_id: CmkId,
        context: &EncryptionContext,
        payload: &[u8],
    ) -> Result<Vec<u8>, EnvelopeError> {
        let bytes = payload.len() as u64;
        if bytes > self.limits.bytes {
            return Err(EnvelopeError::TooLong);
        }
        let place = Place::of(0, [key_id.as_bytes(), context.canonical()]);
        let envelope = self
            .find(
                place,
                |state| state.sealing_under(place, bytes, &self.limits),
                Envelope::generate_with(&self.keys, key_id, context),
                |state, envelope, asked| {
                    state.sealing.push(place, Sealing { envelope, asked, payloads: 1, bytes });
                },
            )
            .await?;
        envelope.seal(payload)
    }

    /// Opens an envelope, whoever sealed it.
    ///
    /// # Errors
    /// `NotAnEnvelope`; `Unopenable` where it was altered or its data key does not decrypt; `Keys` where nobody could try.
    pub async fn open(&self, envelope: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut stream = envelope;
        let header = Header::read(&mut stream)?;
        let place = Place::of(1, [&[], header.as_bytes()]);
        let envelope = self
            .find(
                place,
                |state| state.opened.get(&place).map(|opened| opened.envelope.clone()),
                Envelope::decrypt_with(&self.keys, header),
                |state, envelope, asked| {
                    state.opened.push(place, Opened { envelope, asked });
                },
            )
            .await?;
        envelope.open(stream)
    }

    /// Throws every data key away; what is asked for at this moment is not kept.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.cleared += 1;
        state.sealing.clear();
        state.opened.clear();
        state.next_expiry = None;
    }

    /// Throws away the data keys that have their age, and returns when the next one has it; `None` where there is none.
    pub fn expire(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        state.expire((self.now)(), self.limits.age);
        state.next_expiry
    }

    /// Takes the data key that `look` finds, or fetches and keeps it; of several at once, one fetches and the others wait for it.
    async fn find(
        &self,
        place: Place,
        look: impl Fn(&mut State) -> Option<Arc<Envelope>>,
        fetch: impl Future<Output = Result<Envelope, KeysError>>,
        keep: impl FnOnce(&mut State, Arc<Envelope>, Instant),
    ) -> Result<Arc<Envelope>, KeysError> {
        let (lead, asked, cleared) = loop {
            let flight = {
                let mut state = self.state.lock();
                let now = (self.now)();
                state.expire(now, self.limits.age);
                if let Some(envelope) = look(&mut state) {
                    return Ok(envelope);
                }
                match board(&mut *state, &self.state, place) {
                    Role::Leads(lead) => break (lead, now, state.cleared),
                    Role::Follows(flight) => flight,
                }
            };
            // Where the one that led went away without an answer, another takes its part.
            if let Some(Err(error)) = flight.landed().await {
                return Err(error);
            }
        };
        match fetch.await {
            Ok(envelope) => {
                let envelope = Arc::new(envelope);
                let mut state = self.state.lock();
                if state.cleared == cleared {
                    keep(&mut state, envelope.clone(), asked);
                    // An age beyond all time is none.
                    let expiry = asked.checked_add(self.limits.age);
                    state.next_expiry = state.next_expiry.into_iter().chain(expiry).min();
                }
                drop(state);
                lead.land(Ok(()));
                Ok(envelope)
            }
            Err(error) => {
                lead.land(Err(error.clone()));
                Err(error)
            }
        }
    }
}

impl Tower for State {
    type Place = Place;
    type Error = KeysError;

    fn flights(&mut self) -> &mut Flights<Place, KeysError> {
        &mut self.flights
    }
}

impl State {
    /// Takes the data key of `place` for a payload more; one that is used up goes.
    fn sealing_under(&mut self, place: Place, bytes: u64, limits: &Limits) -> Option<Arc<Envelope>> {
        let sealing = self.sealing.get_mut(&place)?;
        let used = sealing.bytes.saturating_add(bytes);
        if sealing.payloads >= limits.payloads || used > limits.bytes {
            self.sealing.pop(&place);
            return None;
        }
        sealing.payloads += 1;
        sealing.bytes = used;
        Some(sealing.envelope.clone())
    }

    fn expire(&mut self, now: Instant, age: Duration) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        let is_old = |asked: Instant| asked.checked_add(age).is_some_and(|expiry| expiry <= now);
        sweep(&mut self.sealing, |sealing| is_old(sealing.asked));
        sweep(&mut self.opened, |opened| is_old(opened.asked));
        let sealing = self.sealing.iter().map(|(_, sealing)| sealing.asked);
        let opened = self.opened.iter().map(|(_, opened)| opened.asked);
        self.next_expiry = sealing.chain(opened).min().and_then(|oldest| oldest.checked_add(age));
    }
}

fn sweep<T>(kept: &mut LruCache<Place, T>, goes: impl Fn(&T) -> bool) {
    let going: Vec<Place> = kept.iter().filter(|(_, one)| goes(one)).map(|(place, _)| *place).collect();
    going.iter().for_each(|place| drop(kept.pop(place)));
}

impl<K> fmt::Debug for Local<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "Local({} for sealing, {} for opening)", state.sealing.len(), state.opened.len())
    }
}

#[cfg(test)]
mod tests;
