//! The published secrets, read by all and written by the keyring actor alone. Their values stay in the store until they are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use keymill_core::access::KeyPolicy;
use keymill_core::id::{CmkId, SecretName};
use keymill_core::secret::{Rotation, Secret};
use keymill_core::time::Timestamp;
use parking_lot::RwLock;

use crate::keyring::Stamp;

/// A secret as it was published.
#[derive(Debug)]
pub struct SecretEntry {
    /// The secret, without its values.
    pub secret: Secret,
    /// Where its record stands.
    pub stamp: Stamp,
}

/// All secrets, in the order of their names.
#[derive(Default)]
pub struct Secrets {
    all: RwLock<BTreeMap<SecretName, Arc<SecretEntry>>>,
    /// Those that wait for their deletion.
    ending: RwLock<BTreeSet<SecretName>>,
    /// Those that are rotated by themselves, or whose rotation is under way.
    rotated: RwLock<BTreeSet<SecretName>>,
    /// Those whose rotation was tried in vain.
    failing: RwLock<BTreeSet<SecretName>>,
    /// Of those that have one of their own, for decisions.
    policies: RwLock<HashMap<SecretName, KeyPolicy>>,
    /// The CMK of those that name none.
    cmk: RwLock<Option<CmkId>>,
}

impl Secrets {
    /// Returns a secret.
    pub fn secret(&self, name: &SecretName) -> Option<Arc<SecretEntry>> {
        self.all.read().get(name).cloned()
    }

    /// Returns the policy of a secret, where it was given one.
    pub fn policy(&self, name: &SecretName) -> Option<KeyPolicy> {
        self.policies.read().get(name).cloned()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.read().is_empty()
    }

    /// Returns those of which `keep` is true, by their names.
    pub fn list(&self, keep: impl Fn(&Secret) -> bool) -> Vec<Arc<SecretEntry>> {
        self.all.read().values().filter(|entry| keep(&entry.secret)).cloned().collect()
    }

    /// Returns the CMK that secrets are sealed under that name none, once there is one.
    pub fn cmk(&self) -> Option<CmkId> {
        *self.cmk.read()
    }

    /// Returns those whose time has come.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Arc<SecretEntry>> {
        let ending = self.ending.read();
        let entries = ending.iter().filter_map(|name| self.secret(name));
        entries.filter(|entry| entry.secret.delete_at.is_some_and(|at| at <= now)).collect()
    }

    /// Returns those that are rotated by themselves, or whose rotation is under way.
    pub(crate) fn rotated(&self) -> Vec<Arc<SecretEntry>> {
        self.rotated.read().iter().filter_map(|name| self.secret(name)).collect()
    }

    /// Returns how many there are whose rotation was tried in vain, and is not done yet.
    pub fn failing(&self) -> usize {
        self.failing.read().len()
    }

    fn note_rotation(&self, name: &SecretName, rotation: Option<&Rotation>) {
        let note = |set: &RwLock<BTreeSet<SecretName>>, is_of: bool| match is_of {
            true => drop(set.write().insert(name.clone())),
            false if set.read().contains(name) => drop(set.write().remove(name)),
            false => {}
        };
        let is_at_work = |rotation: &Rotation| rotation.interval.is_some() || rotation.pending.is_some();
        note(&self.rotated, rotation.is_some_and(is_at_work));
        note(&self.failing, rotation.is_some_and(|rotation| rotation.trouble.is_some()));
    }

    pub(crate) fn put(&self, entry: SecretEntry) -> Arc<SecretEntry> {
        let (name, entry) = (entry.secret.name.clone(), Arc::new(entry));
        match entry.secret.delete_at {
            Some(_) => drop(self.ending.write().insert(name.clone())),
            None => drop(self.ending.write().remove(&name)),
        }
        self.note_rotation(&name, entry.secret.rotation.as_deref());
        // Before the secret itself: nobody finds it without its policy.
        match &entry.secret.policy {
            Some(policy) => drop(self.policies.write().insert(name.clone(), policy.clone())),
            None => drop(self.policies.write().remove(&name)),
        }
        self.all.write().insert(name, entry.clone());
        entry
    }

    pub(crate) fn remove(&self, name: &SecretName) {
        self.ending.write().remove(name);
        self.note_rotation(name, None);
        self.all.write().remove(name);
        self.policies.write().remove(name);
    }

    pub(crate) fn set_cmk(&self, cmk: Option<CmkId>) {
        *self.cmk.write() = cmk;
    }
}
