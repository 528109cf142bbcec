//! Which signed management requests were carried out. The nonce of each is committed with what it changed, so that the same request is
//! refused behind a restart as well, and by any other node on the same store. It is kept until its request could no longer pass by its date.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::AccessKeyId;
use keymill_core::limit;
use keymill_core::seam::store::{Path, Revision, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;
use keymill_crypto::record::RecordSealer;
use parking_lot::Mutex;

use crate::load::each;
use crate::records::{self, Kind, NonceRecord};
use crate::shared::Shared;

/// Nonces that run out within so many seconds of each other are forgotten together.
const BUCKET_S: u64 = 300;
/// Seconds from now that a nonce may run out at most; what lies beyond was kept while a clock was ahead.
const AHEAD_S: u64 = 3_600;

/// The nonce that a request was signed with.
#[derive(Clone, Debug)]
pub struct SignedNonce {
    /// Its characters.
    pub text: String,
    /// The last moment at which the request passes by its date.
    pub good_until: Timestamp,
}

/// The claim of a signed request that it was never carried out before.
pub(crate) struct Claim {
    key: Arc<AccessKeyId>,
    good_until: Timestamp,
    path: Path,
    is_kept: AtomicBool,
}

impl Claim {
    pub(crate) fn new(key: &Arc<AccessKeyId>, nonce: &SignedNonce) -> Self {
        let path = records::nonce_path(bucket(nonce.good_until), key, &digest::sha256(nonce.text.as_bytes()));
        Self { key: key.clone(), good_until: nonce.good_until, path, is_kept: AtomicBool::new(false) }
    }

    /// Tells whether the nonce is in the store by this claim.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Acquire)
    }

    /// Returns the write that makes the claim good; it fails where another has made it.
    fn write(&self, sealer: &RecordSealer) -> Result<Write> {
        let record = NonceRecord { good_until: self.good_until };
        let sealed = records::seal(sealer, &self.path, Kind::Nonce, 1, &record)?;
        Ok(Write { path: self.path.clone(), expected: None, value: Some(sealed.bytes) })
    }
}

/// Returns the bucket of a moment.
pub(crate) fn bucket(at: Timestamp) -> u64 {
    at.as_s() / BUCKET_S
}

impl Shared {
    /// Checks a claim before anything is done for it.
    ///
    /// # Errors
    /// `NonceUsed` if its request was carried out before, `Busy` if the access key has no room left.
    pub(crate) fn check_claim(&self, claim: &Claim) -> Result<()> {
        if self.store.get(&claim.path)?.is_some() {
            return Err(Error::nonce_used());
        }
        if self.nonces.count(&claim.key, self.clock.now()) >= limit::KEPT_NONCES {
            let why = "the access key has sent more signed management requests than are remembered";
            return Err(Error::new(ErrorKind::Busy, why).retry_after_ms(1_000));
        }
        Ok(())
    }

    /// Commits writes, and with them the nonce of the request that they are made for: all or none.
    ///
    /// # Errors
    /// `NonceUsed` if the request was carried out before; what the store says.
    pub(crate) fn commit(&self, claim: Option<&Claim>, mut writes: Vec<Write>) -> Result<Revision> {
        self.check_open()?;
        // A request of several commits has its nonce in the first.
        let Some(claim) = claim.filter(|claim| !claim.is_kept()) else {
            return Ok(self.store.commit(&writes)?);
        };
        writes.insert(0, claim.write(&self.sealer)?);
        let revision = self.store.commit(&writes).map_err(|error| match error {
            StoreError::Conflict(path) if path == claim.path => Error::nonce_used(),
            error => error.into(),
        })?;
        claim.is_kept.store(true, Ordering::Release);
        self.nonces.add(&claim.key, bucket(claim.good_until));
        Ok(revision)
    }
}

/// How many nonces the store keeps of each access key, by the buckets with which they run out: those that this engine put there, and those
/// that it found at its start.
#[derive(Default)]
pub(crate) struct KeptNonces(Mutex<HashMap<Arc<AccessKeyId>, BTreeMap<u64, usize>>>);

impl KeptNonces {
    /// Counts what a store keeps.
    pub(crate) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let kept = Self::default();
        each(store, "nonce/", |entry| {
            if let Some((bucket, key)) = records::nonce_at(&entry.path) {
                kept.add(&Arc::new(key), bucket);
            }
        })?;
        Ok(kept)
    }

    fn add(&self, key: &Arc<AccessKeyId>, bucket: u64) {
        let mut kept = self.0.lock();
        *kept.entry(key.clone()).or_default().entry(bucket).or_default() += 1;
    }

    /// Returns how many are kept of an access key; those of a clock that had run ahead leave their room to others.
    fn count(&self, key: &Arc<AccessKeyId>, now: Timestamp) -> usize {
        let last = (now.as_s() + AHEAD_S) / BUCKET_S;
        self.0.lock().get(key).map_or(0, |buckets| buckets.range(..=last).map(|(_, count)| count).sum())
    }

    /// Forgets what runs out before a bucket: the store keeps it no longer.
    pub(crate) fn forget(&self, before: u64) {
        self.0.lock().retain(|_, buckets| {
            *buckets = buckets.split_off(&before);
            !buckets.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(s * 1_000)
    }

    fn key(id: &str) -> Arc<AccessKeyId> {
        Arc::new(id.parse().unwrap())
    }

    fn claim(id: &str, text: &str, good_until: u64) -> Claim {
        Claim::new(&key(id), &SignedNonce { text: text.to_owned(), good_until: at(good_until) })
    }

    #[test]
    fn the_same_request_claims_the_same_place_and_another_one_another() {
        let path = |id, text, until| claim(id, text, until).path.to_string();
        let it = path("access-key-a", "n", NOW);
        assert_eq!(it, path("access-key-a", "n", NOW));
        assert_eq!(it, "nonce/0006000000/kaccess-key-a/1b16b1df538ba12dc3f97edbb85caa70");
        for other in [path("access-key-b", "n", NOW), path("access-key-a", "N", NOW)] {
            assert_ne!(it, other);
        }
        // Whatever a caller takes for a nonce, it is one segment of a path.
        for text in ["/../", "", "é\0", &"n".repeat(128)] {
            assert_eq!(path("access-key-a", text, NOW).len(), it.len());
        }
    }

    #[test]
    fn a_path_tells_whose_nonce_it_is_and_the_soonest_forgotten_stands_first() {
        let [soon, late] = [NOW, NOW + BUCKET_S].map(|until| claim("access.key_a", "n", until).path);
        assert!(soon < late && claim("access.key_z", "z", 0).path < soon);
        assert_eq!(records::nonce_at(&soon), Some((NOW / BUCKET_S, "access.key_a".parse().unwrap())));
        for other in [
            "nonce/",
            "nonce/x/kaccess-key-a/00",
            "nonce/1/access-key-a/00",
            "nonce/1/kaccess-key-a",
            "cmk/1",
        ] {
            assert_eq!(records::nonce_at(&records::prefix(other)), None, "{other}");
        }
    }

    #[test]
    fn each_access_key_is_counted_alone_until_its_nonces_run_out() {
        let kept = KeptNonces::default();
        let (a, b) = (key("access-key-a"), key("access-key-b"));
        for until in [NOW, NOW, NOW + BUCKET_S] {
            kept.add(&a, bucket(at(until)));
        }
        kept.add(&b, bucket(at(NOW)));
        let counts = |now| (kept.count(&a, at(now)), kept.count(&b, at(now)));
        assert_eq!(counts(NOW), (3, 1));
        // Time alone frees nothing: they count for as long as the store has them.
        assert_eq!(counts(NOW + 10 * BUCKET_S), (3, 1));
        kept.forget(bucket(at(NOW)));
        assert_eq!(counts(NOW), (3, 1));
        kept.forget(bucket(at(NOW + BUCKET_S)));
        assert_eq!(counts(NOW), (1, 0));
        assert_eq!(kept.0.lock().len(), 1);
    }

    #[test]
    fn what_was_kept_while_a_clock_was_ahead_takes_no_room() {
        let (kept, a) = (KeptNonces::default(), key("access-key-a"));
        kept.add(&a, bucket(at(NOW + 86_400)));
        kept.add(&a, bucket(at(NOW)));
        assert_eq!(kept.count(&a, at(NOW)), 1);
        assert_eq!(kept.count(&a, at(NOW + 86_400)), 2);
    }
}
