//! Answers about revocation, signed once and given to whoever asks while they are fresh. Strangers ask, and so it is bounded what their questions
//! cost: an answer is signed about a certificate that was issued here and about nothing else, at most once in half of its time, and all of an
//! authority's together at a bounded rate. What somebody puts into a question to have it answered anew (a nonce) is passed over (RFC 5019 §2.2.1).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keymill_core::certificate::Serial;
use keymill_core::id::AuthorityName;
use keymill_core::time::Timestamp;
use keymill_x509::ocsp::IdHash;
use parking_lot::Mutex;

/// How long an answer is good for.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Answers of one authority that are kept.
const KEPT: usize = 1 << 16;
/// Answers of one authority that are signed in a second, and at once after a pause.
const RATE: f64 = 100.0;
const BURST: f64 = 400.0;

/// A signed answer.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    /// The whole in DER.
    pub(crate) der: Bytes,
    /// When it was made.
    pub(crate) this_update: Timestamp,
}

impl Signed {
    /// Tells whether it is given out still: for half of its time, so that who has it can go on for the other half.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.this_update <= now && now.since(self.this_update) * 2 < GOOD_FOR
    }
}

/// Which answer: of what number, and by what hashes the question names its authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    pub(crate) serial: Serial,
    pub(crate) hash: IdHash,
}

#[derive(Default)]
struct OfAuthority {
    kept: HashMap<AnswerKey, Signed>,
    /// Answers that may be signed, and when that was counted.
    left: f64,
    counted: Option<Instant>,
    /// One is signed at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The answers of all authorities.
#[derive(Default)]
pub(crate) struct Answers(Mutex<HashMap<AuthorityName, OfAuthority>>);

impl Answers {
    /// Returns the answer that was signed, where it is fresh.
    pub(crate) fn fresh(&self, name: &AuthorityName, key: &AnswerKey, now: Timestamp) -> Option<Bytes> {
        let all = self.0.lock();
        let signed = all.get(name)?.kept.get(key).filter(|signed| signed.is_fresh(now))?;
        Some(signed.der.clone())
    }

    /// Returns the turn to sign one.
    pub(crate) fn turn(&self, name: &AuthorityName) -> Arc<tokio::sync::Mutex<()>> {
        self.0.lock().entry(name.clone()).or_default().turn.clone()
    }

    /// Takes leave to sign one; there is none where too many were signed just now.
    pub(crate) fn admit(&self, name: &AuthorityName, now: Instant) -> bool {
        let mut all = self.0.lock();
        let own = all.entry(name.clone()).or_default();
        own.left = match own.counted {
            None => BURST,
            Some(then) => (own.left + now.saturating_duration_since(then).as_secs_f64() * RATE).min(BURST),
        };
        own.counted = Some(now);
        let is_left = own.left >= 1.0;
        if is_left {
            own.left -= 1.0;
        }
        is_left
    }

    /// Keeps an answer; where there is no room, those go that are not fresh, and then all.
    pub(crate) fn keep(&self, name: &AuthorityName, key: AnswerKey, signed: Signed, now: Timestamp) {
        let mut all = self.0.lock();
        let kept = &mut all.entry(name.clone()).or_default().kept;
        if kept.len() >= KEPT {
            kept.retain(|_, signed| signed.is_fresh(now));
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, signed);
    }

    /// Forgets what was said of a number: it is not so any more.
    pub(crate) fn forget_serial(&self, name: &AuthorityName, serial: &Serial) {
        if let Some(own) = self.0.lock().get_mut(name) {
            own.kept.retain(|key, _| key.serial != *serial);
        }
    }

    /// Forgets an authority.
    pub(crate) fn forget(&self, name: &AuthorityName) {
        self.0.lock().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> AnswerKey {
        AnswerKey { serial: Serial::from_random([n; 16]), hash: IdHash::Sha1 }
    }

    fn name() -> AuthorityName {
        "issuing".parse().unwrap()
    }

    #[test]
    fn an_answer_is_given_for_half_of_its_time_and_not_once_it_is_forgotten() {
        let answers = Answers::default();
        let made = Timestamp::from_ms(1_000_000_000_000);
        let signed = Signed { der: Bytes::from_static(b"answer"), this_update: made };
        answers.keep(&name(), key(1), signed, made);
        let half = made.plus(GOOD_FOR / 2);
        assert!(answers.fresh(&name(), &key(1), half.minus(Duration::from_millis(1))).is_some());
        assert!(answers.fresh(&name(), &key(1), half).is_none());
        assert!(answers.fresh(&name(), &key(1), made.minus(Duration::from_secs(1))).is_none());
        assert!(answers.fresh(&name(), &key(2), made).is_none());
        answers.forget_serial(&name(), &key(2).serial);
        assert!(answers.fresh(&name(), &key(1), made).is_some());
        answers.forget_serial(&name(), &key(1).serial);
        assert!(answers.fresh(&name(), &key(1), made).is_none());
    }

    #[test]
    fn no_more_are_signed_than_the_rate_lets_through() {
        let answers = Answers::default();
        let start = Instant::now();
        let admitted = |at| (0..1_000).filter(|_| answers.admit(&name(), at)).count();
        assert_eq!(admitted(start), 400);
        assert_eq!(admitted(start), 0);
        assert_eq!(admitted(start + Duration::from_secs(1)), 100);
        assert_eq!(admitted(start + Duration::from_secs(100)), 400);
        // Another authority's are its own.
        assert!(answers.admit(&"other".parse().unwrap(), start));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let answers = Answers::default();
        let made = Timestamp::from_ms(1_000_000_000_000);
        let signed = Signed { der: Bytes::new(), this_update: made };
        for n in 0..=KEPT {
            let serial = Serial::from_random((n as u128).to_be_bytes());
            answers.keep(&name(), AnswerKey { serial, ..key(1) }, signed.clone(), made);
        }
        assert!(answers.0.lock()[&name()].kept.len() <= KEPT);
    }
}
