//! The bounded cache of subkeys for opening: whoever presents blobs of many epochs pays a derivation for each, whoever
//! presents blobs of a few pays once. Only a subkey under which a tag has verified may enter, so forged prefixes cannot push
//! real ones out. A value that leaves is wiped by the library when its last user drops it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keymill_core::id::KeyVersionId;
use lru::LruCache;
use parking_lot::Mutex;

use crate::xaes::{PREFIX_BYTES, SubkeyCipher};

// A power of two, and enough that the workers of a large machine seldom meet.
const SHARDS: usize = 16;

type Key = (KeyVersionId, [u8; PREFIX_BYTES]);

struct Opening {
    cipher: Arc<SubkeyCipher>,
    generation: u64,
}

/// A bounded LRU of subkeys by (key version, prefix), each stamped with the generation of the key that it was derived for.
pub struct SubkeyCache {
    shards: [Mutex<LruCache<Key, Opening>>; SHARDS],
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl SubkeyCache {
    /// Makes a cache of at most `capacity` subkeys, rounded up to a multiple of 16. It takes its memory as it fills.
    pub fn new(capacity: NonZeroUsize) -> Self {
        let each = NonZeroUsize::new(capacity.get().div_ceil(SHARDS)).expect("rounded up from at least one");
        Self {
            shards: std::array::from_fn(|_| {
                let mut shard = LruCache::unbounded();
                shard.resize(each);
                Mutex::new(shard)
            }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Returns the subkey of `prefix`, if it is kept for this very generation; one of another generation is evicted.
    pub fn lookup(
        &self,
        version: &KeyVersionId,
        prefix: &[u8; PREFIX_BYTES],
        generation: u64,
    ) -> Option<Arc<SubkeyCipher>> {
        let key = (*version, *prefix);
        let mut shard = self.shard(&key).lock();
        let found = match shard.get(&key) {
            Some(opening) if opening.generation == generation => Some(Arc::clone(&opening.cipher)),
            Some(_) => {
                shard.pop(&key);
                self.evictions.fetch_add(1, Ordering::Relaxed);
                None
            }
            None => None,
        };
        drop(shard);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a subkey. To be called only after a tag has verified under it: a forged blob must not take a place.
    pub fn insert_verified(
        &self,
        version: &KeyVersionId,
        prefix: &[u8; PREFIX_BYTES],
        generation: u64,
        cipher: Arc<SubkeyCipher>,
    ) {
        let key = (*version, *prefix);
        let pushed = self.shard(&key).lock().push(key, Opening { cipher, generation });
        // `push` hands back the value of the same key, too; that one is replaced, not evicted.
        if pushed.is_some_and(|(old, _)| old != key) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Drops every subkey of a key version.
    pub fn evict_version(&self, version: &KeyVersionId) {
        self.evict(|key, _| key.0 == *version);
    }

    /// Drops every subkey of a key version that was derived for a generation before `generation`.
    pub fn evict_older(&self, version: &KeyVersionId, generation: u64) {
        self.evict(|key, opening| key.0 == *version && opening.generation < generation);
    }

    /// Drops every subkey.
    pub fn clear(&self) {
        self.evict(|_, _| true);
    }

    /// Returns the number of subkeys kept.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Tells whether no subkey is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many look-ups found their subkey.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Returns how many look-ups did not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Returns how many subkeys were dropped for want of place, for their generation, or by order.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    fn shard(&self, key: &Key) -> &Mutex<LruCache<Key, Opening>> {
        // Both are random bytes, but for the bits that a UUID fixes; what enters has been verified, so nobody can choose.
        &self.shards[usize::from(key.1[0] ^ key.0.as_bytes()[0]) % SHARDS]
    }

    fn evict(&self, goes: impl Fn(&Key, &Opening) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let keys: Vec<Key> =
                shard.iter().filter(|(key, opening)| goes(key, opening)).map(|(key, _)| *key).collect();
            for key in &keys {
                shard.pop(key);
            }
            self.evictions.fetch_add(keys.len() as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xaes::Subkey;
    use keymill_core::Sensitive;

    fn cipher() -> Arc<SubkeyCipher> {
        Arc::new(SubkeyCipher::new(&Subkey::from_sensitive(Sensitive::zeroed(32)).unwrap()))
    }

    fn version(byte: u8) -> KeyVersionId {
        KeyVersionId::from_bytes([byte; 16])
    }

    fn prefix(n: u32) -> [u8; 12] {
        let mut prefix = [0; 12];
        prefix[..4].copy_from_slice(&n.to_le_bytes());
        prefix
    }

    fn cache(capacity: usize) -> SubkeyCache {
        SubkeyCache::new(NonZeroUsize::new(capacity).unwrap())
    }

    #[test]
    fn a_subkey_is_found_for_its_version_prefix_and_generation_alone() {
        let cache = cache(64);
        let kept = cipher();
        cache.insert_verified(&version(1), &prefix(7), 3, Arc::clone(&kept));
        assert!(Arc::ptr_eq(&cache.lookup(&version(1), &prefix(7), 3).unwrap(), &kept));
        assert!(cache.lookup(&version(2), &prefix(7), 3).is_none());
        assert!(cache.lookup(&version(1), &prefix(8), 3).is_none());
        assert_eq!((cache.hits(), cache.misses(), cache.evictions(), cache.len()), (1, 2, 0, 1));
    }

    #[test]
    fn another_generation_is_a_miss_and_evicts() {
        for asked in [2, 4] {
            let cache = cache(64);
            cache.insert_verified(&version(1), &prefix(7), 3, cipher());
            assert!(cache.lookup(&version(1), &prefix(7), asked).is_none());
            assert!(
                cache.lookup(&version(1), &prefix(7), 3).is_none(),
                "it is gone for its own generation, too"
            );
            assert_eq!((cache.hits(), cache.misses(), cache.evictions(), cache.len()), (0, 2, 1, 0));
        }
    }

    #[test]
    fn the_least_recently_used_leaves_and_the_bound_holds() {
        let cache = cache(32); // two a shard
        let same_shard = |n: u32| prefix(n << 8);
        cache.insert_verified(&version(0), &same_shard(1), 0, cipher());
        cache.insert_verified(&version(0), &same_shard(2), 0, cipher());
        assert!(cache.lookup(&version(0), &same_shard(1), 0).is_some());
        cache.insert_verified(&version(0), &same_shard(3), 0, cipher());
        assert!(cache.lookup(&version(0), &same_shard(2), 0).is_none());
        assert!(cache.lookup(&version(0), &same_shard(1), 0).is_some());
        for n in 0..10_000 {
            cache.insert_verified(&version(0), &prefix(n), 0, cipher());
        }
        assert_eq!(cache.len(), 32);
    }

    #[test]
    fn inserting_again_replaces_without_counting_an_eviction() {
        let cache = cache(64);
        cache.insert_verified(&version(1), &prefix(1), 1, cipher());
        let newer = cipher();
        cache.insert_verified(&version(1), &prefix(1), 2, Arc::clone(&newer));
        assert!(Arc::ptr_eq(&cache.lookup(&version(1), &prefix(1), 2).unwrap(), &newer));
        assert_eq!((cache.len(), cache.evictions()), (1, 0));
    }

    #[test]
    fn evicting_a_version_leaves_its_neighbours_and_lets_go_of_the_subkey() {
        let cache = cache(1024);
        let kept = cipher();
        for n in 0..20 {
            cache.insert_verified(&version(1), &prefix(n), u64::from(n), Arc::clone(&kept));
            cache.insert_verified(&version(2), &prefix(n), 0, cipher());
        }
        cache.evict_older(&version(1), 5);
        assert_eq!((cache.len(), cache.evictions()), (35, 5));
        assert!(cache.lookup(&version(1), &prefix(5), 5).is_some());
        cache.evict_version(&version(1));
        assert_eq!((cache.len(), cache.evictions()), (20, 20));
        assert_eq!(Arc::strong_count(&kept), 1, "no other user is left, so dropping it wipes it");
        cache.clear();
        assert!(cache.is_empty());
    }
}
