//! What a cache of secrets holds, and the rules of it: when a value is given out, when it is read anew, when it goes.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use lru::LruCache;

use super::{Counts, Limits};
use crate::flight::{Flights, Tower};
use crate::secrets::{Asked, SecretValue, SecretsError};

pub(super) struct State {
    values: LruCache<Asked, Kept>,
    bytes: usize,
    flights: Flights<Asked, SecretsError>,
    /// How often values were thrown away on demand: what was asked for before is not kept after.
    pub(super) cleared: u64,
    /// The time at which the oldest has outlived its time; `None` where there is none.
    pub(super) next_expiry: Option<Instant>,
    /// Threads that read ahead.
    threads: usize,
    counts: Counts,
}

struct Kept {
    value: Arc<SecretValue>,
    /// When it was asked for.
    at: Instant,
    /// Where the last try to read it anew found the service away: when the next one is due.
    away_until: Option<Instant>,
    /// Whether a thread reads it anew.
    is_read_anew: bool,
}

/// What there is for somebody who asks.
pub(super) enum Look {
    /// A value, which is to be read anew beside that.
    AtHand { value: Arc<SecretValue>, read_anew: bool },
    /// Nothing that may be given out unasked.
    Ask,
}

impl Tower for State {
    type Place = Asked;
    type Error = SecretsError;

    fn flights(&mut self) -> &mut Flights<Asked, SecretsError> {
        &mut self.flights
    }
}

impl State {
    pub(super) fn new(count: NonZeroUsize) -> Self {
        Self {
            values: LruCache::new(count),
            bytes: 0,
            flights: Flights::default(),
            cleared: 0,
            next_expiry: None,
            threads: 0,
            counts: Counts::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_reading_ahead(&self) -> bool {
        self.threads > 0
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { kept: self.values.len() as u64, kept_bytes: self.bytes as u64, ..self.counts }
    }

    /// Looks for a value: fresh ones are given out; so are those whose time is over while the service is known to be away.
    pub(super) fn look(&mut self, asked: &Asked, now: Instant, limits: &Limits) -> Look {
        self.expire(now, limits);
        let Some(kept) = self.values.get_mut(asked) else {
            self.counts.misses += 1;
            return Look::Ask;
        };
        let age = now.saturating_duration_since(kept.at);
        let is_stale = age >= limits.ttl;
        // Where nobody has asked for a while the service may be back: whoever asks now finds out.
        let is_away = |until: Instant| until.checked_add(limits.retry).is_some_and(|known| now < known);
        if is_stale && !kept.away_until.is_some_and(is_away) {
            self.counts.misses += 1;
            return Look::Ask;
        }
        let is_due = age >= limits.ttl.saturating_sub(limits.ahead)
            && kept.away_until.is_none_or(|until| until <= now)
            && !kept.is_read_anew
            && self.threads < limits.threads;
        if is_due {
            kept.is_read_anew = true;
            self.threads += 1;
        }
        self.counts.hits += 1;
        self.counts.stale += u64::from(is_stale);
        Look::AtHand { value: kept.value.clone(), read_anew: is_due }
    }

    /// Returns a value whose time is over, if it may be given out where the service is away.
    pub(super) fn stale(&mut self, asked: &Asked, now: Instant, limits: &Limits) -> Option<Arc<SecretValue>> {
        self.expire(now, limits);
        let kept = self.values.get(asked)?;
        self.counts.stale += 1;
        Some(kept.value.clone())
    }

    /// Keeps a value that was read, if it is to be kept and fits.
    pub(super) fn read(
        &mut self,
        asked: &Asked,
        value: &Arc<SecretValue>,
        at: Instant,
        keep: bool,
        limits: &Limits,
    ) {
        self.counts.reads += 1;
        if !keep {
            return;
        }
        self.remove(asked);
        let bytes = value.expose().len();
        if bytes > limits.bytes {
            return;
        }
        while self.bytes + bytes > limits.bytes {
            let Some((_, gone)) = self.values.pop_lru() else { break };
            self.bytes -= gone.value.expose().len();
            self.counts.evicted += 1;
        }
        let kept = Kept { value: value.clone(), at, away_until: None, is_read_anew: false };
        if let Some((_, gone)) = self.values.push(asked.clone(), kept) {
            self.bytes -= gone.value.expose().len();
            self.counts.evicted += 1;
        }
        self.bytes += bytes;
        let expiry = at.checked_add(limits.ttl).and_then(|end| end.checked_add(limits.stale));
        self.next_expiry = self.next_expiry.into_iter().chain(expiry).min();
    }

    /// Notes a read that failed: what the service refuses is nobody's any more.
    pub(super) fn failed(&mut self, asked: &Asked, error: &SecretsError, now: Instant, limits: &Limits) {
        match error {
            SecretsError::Refused(_) => {
                self.counts.refused += 1;
                self.remove(asked);
            }
            SecretsError::Unavailable(_) => {
                self.counts.unavailable += 1;
                if let Some(kept) = self.values.peek_mut(asked) {
                    kept.away_until = now.checked_add(limits.retry);
                }
            }
        }
    }

    /// Notes that a thread which read ahead is done.
    pub(super) fn read_apart_ended(&mut self, asked: &Asked) {
        self.threads -= 1;
        if let Some(kept) = self.values.peek_mut(asked) {
            kept.is_read_anew = false;
        }
    }

    /// Throws away what `goes` names; what is on its way is not kept.
    pub(super) fn forget(&mut self, goes: impl Fn(&Asked) -> bool) {
        self.cleared += 1;
        self.sweep(|asked, _| goes(asked));
    }

    /// Throws away what outlived its time.
    pub(super) fn expire(&mut self, now: Instant, limits: &Limits) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        // A time beyond all time is none.
        let end = |kept: &Kept| kept.at.checked_add(limits.ttl).and_then(|end| end.checked_add(limits.stale));
        self.sweep(|_, kept| end(kept).is_some_and(|end| end <= now));
        self.next_expiry = self.values.iter().filter_map(|(_, kept)| end(kept)).min();
    }

    fn sweep(&mut self, goes: impl Fn(&Asked, &Kept) -> bool) {
        let going = self.values.iter().filter(|(asked, kept)| goes(asked, kept));
        let going: Vec<Asked> = going.map(|(asked, _)| asked.clone()).collect();
        going.iter().for_each(|asked| self.remove(asked));
    }

    fn remove(&mut self, asked: &Asked) {
        if let Some(gone) = self.values.pop(asked) {
            self.bytes -= gone.value.expose().len();
        }
    }
}
