//! The replay window: which nonces were seen, for as long as a request that bears one could still pass by its date. Memory is
//! bounded for each access key; one that has filled its share is throttled, and nothing is forgotten early.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::AccessKeyId;
use keymill_core::time::Timestamp;
use keymill_runtime::SignedNonce;
use parking_lot::Mutex;

/// Nonces that run out within so many seconds of each other are forgotten together.
const BUCKET_S: u64 = 300;
/// Parts of the table, so that workers seldom wait for each other, nor long while one grows.
const SHARDS: usize = 16;

/// The nonces of all access keys.
pub(crate) struct Nonces {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    per_shard: usize,
}

#[derive(Default)]
struct Shard {
    keys: HashMap<Arc<AccessKeyId>, Seen>,
    /// The bucket that was the oldest when the shard was last cleaned.
    cleaned: u64,
}

/// The nonces of one access key, the soonest forgotten first.
#[derive(Default)]
struct Seen {
    buckets: VecDeque<(u64, HashSet<u64, BuildHasherDefault<Hashed>>)>,
    count: usize,
}

impl Nonces {
    /// Makes a table of about `per_key` nonces for each access key.
    pub(crate) fn new(per_key: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            per_shard: per_key.div_ceil(SHARDS).max(1),
        }
    }

    /// Takes the nonce of a request that was verified and is within its window.
    ///
    /// # Errors
    /// `NonceUsed` if it was taken before, `Busy` if the access key has no room left.
    pub(crate) fn take(&self, key: &Arc<AccessKeyId>, nonce: &SignedNonce, now: Timestamp) -> Result<()> {
        // Keyed at random: only chance makes two nonces alike, once in 2^64, and then a request is refused, never let in.
        let hash = self.hasher.hash_one(&nonce.text);
        let mut shard = self.shards[(hash >> 32) as usize % SHARDS].lock();
        shard.clean(now.as_s() / BUCKET_S);
        if !shard.keys.contains_key(key) {
            shard.keys.insert(key.clone(), Seen::default());
        }
        let seen = shard.keys.get_mut(key).expect("it was just put there");
        if seen.buckets.iter().any(|(_, nonces)| nonces.contains(&hash)) {
            return Err(Error::nonce_used());
        }
        if seen.count >= self.per_shard {
            return Err(Error::new(
                ErrorKind::Busy,
                "the access key has sent more signed requests than are remembered within half an hour",
            )
            .retry_after_ms(1000));
        }
        seen.put(nonce.good_until.as_s() / BUCKET_S, hash);
        Ok(())
    }
}

impl Shard {
    /// Forgets what no request can be replayed with any more.
    fn clean(&mut self, bucket: u64) {
        if bucket <= self.cleaned {
            return;
        }
        self.cleaned = bucket;
        self.keys.retain(|_, seen| {
            while let Some((_, nonces)) = seen.buckets.pop_front_if(|(at, _)| *at < bucket) {
                seen.count -= nonces.len();
            }
            seen.count > 0
        });
    }
}

impl Seen {
    fn put(&mut self, bucket: u64, hash: u64) {
        let at = self.buckets.partition_point(|(at, _)| *at < bucket);
        if self.buckets.get(at).is_none_or(|(at, _)| *at != bucket) {
            self.buckets.insert(at, (bucket, HashSet::default()));
        }
        self.buckets[at].1.insert(hash);
        self.count += 1;
    }
}

/// Takes a hash as the hash of itself.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are put in")
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::WINDOW_S;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(s * 1000)
    }

    fn signed(text: &str, date: u64) -> SignedNonce {
        SignedNonce { text: text.to_owned(), good_until: at(date + WINDOW_S) }
    }

    fn key(id: &str) -> Arc<AccessKeyId> {
        Arc::new(id.parse().unwrap())
    }

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_nonce_is_taken_once_by_each_access_key_whatever_its_date() {
        let nonces = Nonces::new(1000);
        nonces.take(&key("access-key-a"), &signed("n", NOW), at(NOW)).unwrap();
        for date in [NOW, NOW + 1, NOW - WINDOW_S, NOW + WINDOW_S] {
            let error = nonces.take(&key("access-key-a"), &signed("n", date), at(NOW)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NonceUsed);
        }
        nonces.take(&key("access-key-a"), &signed("N", NOW), at(NOW)).unwrap();
        nonces.take(&key("access-key-b"), &signed("n", NOW), at(NOW)).unwrap();
    }

    #[test]
    fn a_nonce_is_remembered_until_its_request_can_no_longer_pass() {
        for date in (NOW - WINDOW_S..NOW + WINDOW_S).step_by(97) {
            let nonces = Nonces::new(1000);
            nonces.take(&key("access-key-a"), &signed("n", date), at(NOW)).unwrap();
            let last = date + WINDOW_S;
            assert!(nonces.take(&key("access-key-a"), &signed("n", date), at(last)).is_err(), "{date}");
            nonces.take(&key("access-key-a"), &signed("n", last + BUCKET_S), at(last + BUCKET_S)).unwrap();
        }
    }

    #[test]
    fn a_full_access_key_is_throttled_alone_and_until_its_nonces_run_out() {
        let nonces = Nonces::new(64);
        let (full, other) = (key("access-key-a"), key("access-key-b"));
        let refused = (0..10_000)
            .filter(|n| match nonces.take(&full, &signed(&n.to_string(), NOW), at(NOW)) {
                Ok(()) => false,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy);
                    true
                }
            })
            .count();
        assert_eq!(refused, 10_000 - 64, "every shard is full");
        assert_eq!(nonces.take(&full, &signed("0", NOW), at(NOW)).unwrap_err().kind(), ErrorKind::NonceUsed);
        nonces.take(&other, &signed("0", NOW), at(NOW)).unwrap();
        let later = NOW + WINDOW_S + BUCKET_S;
        nonces.take(&full, &signed("0", later), at(later)).unwrap();
        let kept: usize =
            nonces.shards.iter().map(|s| s.lock().keys.values().map(|k| k.count).sum::<usize>()).sum();
        assert!(kept < 64 + 2, "{kept} nonces are kept");
    }
}
