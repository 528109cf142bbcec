//! The published keyring: every CMK and alias, read by all, written by the keyring actor alone.
//!
//! An entry is replaced whole when its key changes, and carries the generation that it was made in. What was computed under an
//! older generation is discarded when it would be released, so that nothing leaves after a disable has been answered.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use keymill_core::access::KeyPolicy;
use keymill_core::id::{AliasName, CmkId, DataKeyName, KeyVersionId};
use keymill_core::key::{Cmk, ManagedDataKey};
use keymill_core::seam::provider::{KeyHandle, PublicHalf};
use keymill_core::seam::store::Revision;
use keymill_crypto::epoch::EpochSlot;
use parking_lot::{Mutex, RwLock};

const SHARDS: usize = 64;

type Shard = HashMap<CmkId, Arc<CmkEntry>, BuildHasherDefault<RandomIdHasher>>;

/// Takes the first eight bytes of an id for its hash: ids are random and made here, so nobody can choose what stands in the map.
#[derive(Default)]
struct RandomIdHasher(u64);

impl Hasher for RandomIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _length: usize) {}
}

/// Where a stored record stands: what the next write must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The store's revision of it.
    pub revision: Revision,
    /// Its own sequence number.
    pub sequence: u64,
}

/// A CMK as it was published.
pub struct CmkEntry {
    /// The key.
    pub cmk: Cmk,
    /// Its versions, as in `cmk.versions`.
    pub versions: Vec<Arc<VersionEntry>>,
    /// Where its record stands.
    pub stamp: Stamp,
    /// The generation that this entry was made in.
    pub generation: u64,
    /// The generation now; shared by all entries of the key.
    pub life: Arc<AtomicU64>,
}

impl CmkEntry {
    /// Tells whether the entry is still the one in force.
    pub fn is_current(&self) -> bool {
        self.life.load(Ordering::Acquire) == self.generation
    }

    /// Returns the version that encrypts.
    pub fn primary(&self) -> &Arc<VersionEntry> {
        self.versions.last().expect("a CMK is created with its first version")
    }

    /// Returns the version of that number.
    pub fn version(&self, number: u32) -> Option<&Arc<VersionEntry>> {
        // Versions are numbered from 1 without gaps.
        self.versions.get((number as usize).checked_sub(1)?).filter(|v| v.number == number)
    }
}

/// One version of a CMK: its sealed material, and what was made of it so far.
pub struct VersionEntry {
    /// The number in blobs.
    pub number: u32,
    /// The id.
    pub id: KeyVersionId,
    /// The sealed record of the material; empty where it is quarantined, or was not imported.
    pub sealed: Box<[u8]>,
    /// The loaded key.
    pub handle: Mutex<Option<KeyHandle>>,
    /// The public half of a key pair, decoded.
    pub public: OnceLock<Arc<dyn PublicHalf>>,
    /// The sealing epoch.
    pub epoch: EpochSlot,
    /// How much it was used; goes on where imported material comes again.
    pub usage: Arc<Usage>,
    /// For a key whose blobs have random 96-bit nonces: how many more it may seal.
    pub invocations: Arc<Invocations>,
}

impl VersionEntry {
    /// Makes the entry of a version that was never used; nothing was made of its material yet.
    pub(crate) fn new(number: u32, id: KeyVersionId, sealed: Box<[u8]>) -> Self {
        Self {
            number,
            id,
            sealed,
            handle: Mutex::default(),
            public: OnceLock::new(),
            epoch: EpochSlot::default(),
            usage: Arc::default(),
            invocations: Arc::default(),
        }
    }

    /// Makes the entry of the same version with other sealed material, of which nothing was made yet; its uses go on being counted.
    pub(crate) fn resealed(&self, sealed: Box<[u8]>) -> Self {
        let (usage, invocations) = (self.usage.clone(), self.invocations.clone());
        Self { usage, invocations, ..Self::new(self.number, self.id, sealed) }
    }
}

/// How many messages a key version may still seal under random 96-bit nonces: what was reserved, durably, and is not used yet.
#[derive(Default)]
pub struct Invocations {
    left: AtomicU64,
    /// What was reserved in all; never set back.
    pub reserved: AtomicU64,
}

impl Invocations {
    /// Goes on where so many had been reserved: what of them was not used is lost on purpose.
    pub fn resumed(reserved: u64) -> Self {
        Self { left: AtomicU64::new(0), reserved: AtomicU64::new(reserved) }
    }

    /// Stands for a count that cannot be trusted: none may be taken, nor reserved.
    pub fn unknown() -> Self {
        Self::resumed(u64::MAX / 2)
    }

    /// Makes the count one that cannot be trusted.
    pub fn forget(&self) {
        self.left.store(0, Ordering::Relaxed);
        self.reserved.store(u64::MAX / 2, Ordering::Relaxed);
    }

    /// Takes `count` invocations, all or none.
    pub fn take(&self, count: u64) -> bool {
        self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
    }

    /// Returns how many are left.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Gives out what was reserved: `total` in all, `count` of it just now.
    pub fn grant(&self, total: u64, count: u64) {
        self.reserved.store(total, Ordering::Relaxed);
        self.left.fetch_add(count, Ordering::Relaxed);
    }
}

/// Use counts of a key version. Encrypt counts are rounded up after a crash, never down.
#[derive(Default)]
pub struct Usage {
    /// Items encrypted, signed or authenticated.
    pub encrypted: AtomicU64,
    /// Items decrypted or verified.
    pub decrypted: AtomicU64,
    /// Milliseconds since the epoch of the last use; zero: never.
    pub last_ms: AtomicU64,
    /// What was last written to the store: encrypted + decrypted.
    pub flushed: AtomicU64,
}

impl Usage {
    /// Returns all uses.
    pub fn total(&self) -> u64 {
        self.encrypted.load(Ordering::Relaxed) + self.decrypted.load(Ordering::Relaxed)
    }
}

/// An alias as it was published.
#[derive(Clone, Debug)]
pub struct AliasEntry {
    /// The key that it names.
    pub cmk: CmkId,
    /// Where its record stands.
    pub stamp: Stamp,
}

/// A managed data key as it was published.
pub struct DataKeyEntry {
    /// The data key, its versions encrypted.
    pub key: ManagedDataKey,
    /// Where its record stands.
    pub stamp: Stamp,
}

/// All CMKs, aliases and managed data keys.
pub struct Keyring {
    cmks: Vec<RwLock<Shard>>,
    aliases: RwLock<HashMap<AliasName, AliasEntry>>,
    data_keys: RwLock<HashMap<DataKeyName, Arc<DataKeyEntry>>>,
    /// Keys in the order of their creation, for lists.
    order: RwLock<Vec<CmkId>>,
    /// The keys that have a policy of their own, for decisions.
    policies: RwLock<HashMap<CmkId, KeyPolicy>>,
    /// Keys whose record failed its check.
    quarantined: RwLock<HashMap<CmkId, &'static str>>,
}

impl Default for Keyring {
    fn default() -> Self {
        Self {
            cmks: (0..SHARDS).map(|_| RwLock::default()).collect(),
            aliases: RwLock::default(),
            data_keys: RwLock::default(),
            order: RwLock::default(),
            policies: RwLock::default(),
            quarantined: RwLock::default(),
        }
    }
}

impl Keyring {
    fn shard(&self, id: &CmkId) -> &RwLock<Shard> {
        // Ids are random; byte 15 has no fixed bits.
        &self.cmks[usize::from(id.as_bytes()[15]) % SHARDS]
    }

    /// Returns a key.
    pub fn cmk(&self, id: &CmkId) -> Option<Arc<CmkEntry>> {
        self.shard(id).read().get(id).cloned()
    }

    /// Returns the policy of a key, where it was given one.
    pub fn policy(&self, id: &CmkId) -> Option<KeyPolicy> {
        self.policies.read().get(id).cloned()
    }

    /// Returns what an alias names.
    pub fn alias(&self, name: &AliasName) -> Option<AliasEntry> {
        self.aliases.read().get(name).cloned()
    }

    /// Returns a managed data key.
    pub fn data_key(&self, name: &DataKeyName) -> Option<Arc<DataKeyEntry>> {
        self.data_keys.read().get(name).cloned()
    }

    /// Returns the managed data keys, by name, of whose CMKs `keep` is true.
    pub fn data_keys(&self, keep: impl Fn(&CmkId) -> bool) -> Vec<Arc<DataKeyEntry>> {
        let mut rows: Vec<_> =
            self.data_keys.read().values().filter(|entry| keep(&entry.key.cmk)).cloned().collect();
        rows.sort_unstable_by(|a, b| a.key.name.cmp(&b.key.name));
        rows
    }

    /// Tells why a key is quarantined, if it is.
    pub fn quarantined(&self, id: &CmkId) -> Option<&'static str> {
        self.quarantined.read().get(id).copied()
    }

    /// Returns the number of keys that are quarantined.
    pub fn quarantined_len(&self) -> usize {
        self.quarantined.read().len()
    }

    /// Returns the ids of all keys, the oldest first.
    pub fn ids(&self) -> Vec<CmkId> {
        self.order.read().clone()
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.order.read().len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the aliases, by name, of which `keep` is true.
    pub fn aliases(&self, keep: impl Fn(&CmkId) -> bool) -> Vec<(AliasName, CmkId)> {
        let aliases = self.aliases.read();
        let mut rows: Vec<_> =
            aliases.iter().filter(|(_, e)| keep(&e.cmk)).map(|(name, e)| (name.clone(), e.cmk)).collect();
        rows.sort_unstable();
        rows
    }

    /// Publishes a key, new or changed. Where it replaces an entry, what was made under that one is no longer released.
    pub(crate) fn publish(&self, entry: Arc<CmkEntry>) {
        let id = entry.cmk.id;
        let (life, generation) = (entry.life.clone(), entry.generation);
        match &entry.cmk.policy {
            Some(policy) => drop(self.policies.write().insert(id, policy.clone())),
            None => drop(self.policies.write().remove(&id)),
        }
        let before = self.shard(&id).write().insert(id, entry);
        if before.is_none() {
            self.order.write().push(id);
        }
        life.store(generation, Ordering::Release);
    }

    /// Forgets a key that was deleted.
    pub(crate) fn remove(&self, id: &CmkId) {
        if let Some(entry) = self.shard(id).write().remove(id) {
            entry.life.store(u64::MAX, Ordering::Release);
            self.order.write().retain(|other| other != id);
            self.policies.write().remove(id);
        }
    }

    pub(crate) fn quarantine(&self, id: CmkId, why: &'static str) {
        self.quarantined.write().insert(id, why);
    }

    pub(crate) fn put_alias(&self, name: AliasName, entry: AliasEntry) {
        self.aliases.write().insert(name, entry);
    }

    pub(crate) fn put_data_key(&self, entry: DataKeyEntry) {
        self.data_keys.write().insert(entry.key.name.clone(), Arc::new(entry));
    }

    pub(crate) fn remove_data_key(&self, name: &DataKeyName) {
        self.data_keys.write().remove(name);
    }

    pub(crate) fn remove_alias(&self, name: &AliasName) {
        self.aliases.write().remove(name);
    }
}
