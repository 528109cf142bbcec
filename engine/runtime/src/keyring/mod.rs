//! The published keyring: every CMK and alias, read by all, written by the keyring actor alone.
//!
//! An entry is replaced whole when its key changes, and carries the generation that it was made in. What was computed under an
//! older generation is discarded when it would be released, so that nothing leaves after a disable has been answered.
//!
//! A million CMKs fit, since few of them are in use at a time: what is made of a key when it is used is made then, its material stays in the
//! store until then, and what looks after keys by the clock, or writes how much they were used, walks those alone that it is about.

mod elsewhere;
mod entry;
#[cfg(test)]
mod tests;
mod usage;

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use keymill_core::access::KeyPolicy;
use keymill_core::id::{AliasName, CmkId, DataKeyName};
use keymill_core::key::{Cmk, KeyState, ManagedDataKey};
use keymill_core::time::Timestamp;
use parking_lot::{Mutex, RwLock};

pub use elsewhere::Elsewhere;
pub use entry::{CmkEntry, Ended, InUse, Stamp, VersionEntries, VersionEntry};
pub use usage::{Invocations, Usage, Use, Uses};

use crate::certificates::Certificates;
use crate::order::Order;
use crate::secrets::Secrets;

const SHARDS: usize = 64;

type Shard = HashSet<ById, BuildHasherDefault<RandomIdHasher>>;

/// An entry that is found by its id, which is not kept beside it.
struct ById(Arc<CmkEntry>);

impl Borrow<CmkId> for ById {
    fn borrow(&self) -> &CmkId {
        &self.0.cmk.id
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.cmk.id == other.0.cmk.id
    }
}

impl Eq for ById {}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.cmk.id.hash(state);
    }
}

/// Takes the first eight bytes of an id for its hash: ids are random and made here, so nobody can choose what stands in the map.
#[derive(Default)]
pub(crate) struct RandomIdHasher(u64);

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
    /// Secrets, which the same actor owns.
    pub(crate) secrets: Secrets,
    /// Certificates, which the same actor owns.
    pub(crate) certificates: Certificates,
    /// Keys in the order of their creation, for lists.
    order: RwLock<Order>,
    /// The keys that have a policy of their own, for decisions.
    policies: RwLock<HashMap<CmkId, KeyPolicy>>,
    /// Keys that something happens to by the clock.
    timed: RwLock<HashSet<CmkId>>,
    /// Keys that were used, and their counts not written since.
    used: Mutex<Vec<CmkId>>,
    /// How much keys were used on other nodes.
    pub(crate) elsewhere: Elsewhere,
    /// Keys whose record failed its check.
    quarantined: RwLock<HashMap<CmkId, &'static str>>,
}

impl Default for Keyring {
    fn default() -> Self {
        Self {
            cmks: (0..SHARDS).map(|_| RwLock::default()).collect(),
            aliases: RwLock::default(),
            data_keys: RwLock::default(),
            secrets: Secrets::default(),
            certificates: Certificates::default(),
            policies: RwLock::default(),
            order: RwLock::default(),
            timed: RwLock::default(),
            used: Mutex::default(),
            elsewhere: Elsewhere::default(),
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
        self.shard(id).read().get(id).map(|by_id| by_id.0.clone())
    }

    /// Returns the policy of a key, where it was given one.
    pub fn policy(&self, id: &CmkId) -> Option<KeyPolicy> {
        self.policies.read().get(id).cloned()
    }

    /// Returns the keys that have a policy of their own.
    pub fn with_policies(&self) -> Vec<CmkId> {
        self.policies.read().keys().copied().collect()
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
        self.order.read().page(&[], 0, usize::MAX)
    }

    /// Returns `most` ids of keys from `skip` on, the oldest first, leaving out those that are `hidden`; and how many there are in all.
    pub fn page_without(&self, hidden: &[CmkId], skip: usize, most: usize) -> (Vec<CmkId>, usize) {
        let places = hidden.iter().filter_map(|id| self.place(id)).collect::<Vec<_>>();
        let order = self.order.read();
        let hidden = order.find(places);
        (order.page(&hidden, skip, most), order.len() - hidden.len())
    }

    /// Orders keys as lists have them, leaving out those that are not there.
    pub fn in_order(&self, ids: &[CmkId]) -> Vec<CmkId> {
        let mut places: Vec<_> = ids.iter().filter_map(|id| self.place(id)).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, id)| id).collect()
    }

    fn place(&self, id: &CmkId) -> Option<(Timestamp, CmkId)> {
        // The keys of certificates are in no list.
        let listed = self.cmk(id).filter(|entry| entry.cmk.certificate.is_none());
        listed.map(|entry| (entry.cmk.created_at, *id))
    }

    /// Returns the keys that something happens to by the clock.
    pub(crate) fn timed(&self) -> Vec<Arc<CmkEntry>> {
        let ids: Vec<CmkId> = self.timed.read().iter().copied().collect();
        ids.iter().filter_map(|id| self.cmk(id)).collect()
    }

    /// Counts uses of a key version.
    pub(crate) fn count(&self, id: &CmkId, version: &VersionEntry, what: Use, items: u32, at: Timestamp) {
        if items == 0 {
            return;
        }
        let usage = &version.in_use().usage;
        usage.add(what, items, at);
        self.note(id, usage);
    }

    /// Returns how much a version of a key was used, on whichever node.
    pub fn uses(&self, id: &CmkId, version: &VersionEntry) -> Uses {
        version.uses().with(self.elsewhere.of(id, version.number))
    }

    /// Has the counts of a key looked at.
    pub(crate) fn note(&self, id: &CmkId, usage: &Usage) {
        if usage.note() {
            self.used.lock().push(*id);
        }
    }

    /// Takes the keys whose counts are to be looked at; what is used from here on is noted anew.
    pub(crate) fn take_used(&self) -> Vec<Arc<CmkEntry>> {
        let mut ids = std::mem::take(&mut *self.used.lock());
        // A key is noted once for each of its versions.
        ids.sort_unstable();
        ids.dedup();
        let entries: Vec<_> = ids.iter().filter_map(|id| self.cmk(id)).collect();
        for in_use in entries.iter().flat_map(|entry| &entry.versions).filter_map(|version| version.if_used())
        {
            in_use.usage.unnote();
        }
        entries
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.order.read().len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of aliases.
    pub(crate) fn alias_count(&self) -> usize {
        self.aliases.read().len()
    }

    /// Returns the number of managed data keys.
    pub(crate) fn data_key_count(&self) -> usize {
        self.data_keys.read().len()
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
        let (id, created_at) = (entry.cmk.id, entry.cmk.created_at);
        let is_new = self.put(entry.clone()).is_none();
        match entry.cmk.certificate {
            // Lists leave it out.
            Some(_) => self.certificates.put_key(id),
            None if is_new => self.order.write().insert(created_at, id),
            None => {}
        }
        entry.begin();
    }

    /// Adds a key at the start; [`Self::order`] is called after the last.
    pub(crate) fn add(&self, entry: Arc<CmkEntry>) {
        self.put(entry);
    }

    /// Takes a key back that was added, and failed its check.
    pub(crate) fn withdraw(&self, id: &CmkId) {
        self.shard(id).write().remove(id);
        self.timed.write().remove(id);
        self.policies.write().remove(id);
    }

    /// Takes the material of a version of a key that was added back, since it failed its check.
    pub(crate) fn withdraw_material(&self, id: &CmkId, number: u32) {
        let mut shard = self.shard(id).write();
        let Some(ById(mut entry)) = shard.take(id) else { return };
        let added = Arc::get_mut(&mut entry).expect("nobody else has an entry before the start is over");
        for version in added.versions.iter_mut().filter(|version| version.number == number) {
            Arc::get_mut(version).expect("nor one of its versions").material = None;
        }
        shard.insert(ById(entry));
    }

    /// Puts the keys that were added in order.
    pub(crate) fn order(&self) {
        let shards: Vec<_> = self.cmks.iter().map(|shard| shard.read()).collect();
        let all = || shards.iter().flat_map(|shard| shard.iter());
        let of_certificates = all().filter(|by_id| by_id.0.cmk.certificate.is_some());
        of_certificates.for_each(|by_id| self.certificates.put_key(by_id.0.cmk.id));
        let places = all().filter(|by_id| by_id.0.cmk.certificate.is_none());
        let count = shards.iter().map(|shard| shard.len()).sum();
        *self.order.write() = Order::of(count, places.map(|by_id| (by_id.0.cmk.created_at, by_id.0.cmk.id)));
    }

    fn put(&self, entry: Arc<CmkEntry>) -> Option<ById> {
        let (id, is_timed) = (entry.cmk.id, is_timed(&entry.cmk));
        match &entry.cmk.policy {
            Some(policy) => drop(self.policies.write().insert(id, policy.clone())),
            None => {
                // Few keys have one: the others look, and write nothing.
                if self.policies.read().contains_key(&id) {
                    self.policies.write().remove(&id);
                }
            }
        }
        let before = self.shard(&id).write().replace(ById(entry));
        match is_timed {
            true => drop(self.timed.write().insert(id)),
            false if before.as_ref().is_some_and(|before| self::is_timed(&before.0.cmk)) => {
                self.timed.write().remove(&id);
            }
            false => {}
        }
        before
    }

    /// Forgets a key that was deleted.
    pub(crate) fn remove(&self, id: &CmkId) {
        let removed = self.shard(id).write().take(id);
        if let Some(ById(entry)) = removed {
            entry.end();
            self.order.write().remove(entry.cmk.created_at, id);
            self.certificates.remove_key(id);
            self.timed.write().remove(id);
            self.policies.write().remove(id);
            self.elsewhere.remove(id);
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

/// Tells whether something happens to a key by the clock: its deletion, its rotation, or the end of its material.
fn is_timed(cmk: &Cmk) -> bool {
    let expires = cmk.external.as_ref().is_some_and(|external| external.expires_at.is_some());
    cmk.state == KeyState::PendingDeletion || cmk.rotation.is_some() || expires
}
