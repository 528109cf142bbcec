//! The published secrets, read by all and written by the keyring actor alone. Their values stay in the store until they are read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use keymill_core::access::KeyPolicy;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, SecretName};
use keymill_core::secret::{Rotation, Secret};
use keymill_core::time::Timestamp;
use parking_lot::RwLock;

use crate::keyring::Stamp;
use crate::records;

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
    /// Those of which values are left to be removed.
    left: RwLock<BTreeSet<SecretName>>,
    /// Of those that have one of their own, for decisions.
    policies: RwLock<HashMap<SecretName, KeyPolicy>>,
    /// The CMK of those that name none.
    cmk: RwLock<Option<CmkId>>,
    /// Where the records stand of those that failed their check: which names these are is known to who asks for them.
    quarantined: RwLock<HashSet<String>>,
}

impl Secrets {
    /// Returns a secret.
    pub fn secret(&self, name: &SecretName) -> Option<Arc<SecretEntry>> {
        self.all.read().get(name).cloned()
    }

    /// Returns a secret, or why there is none.
    ///
    /// # Errors
    /// `ResourceNotFound`, or `Quarantined` where its record failed its check.
    pub fn find(&self, name: &SecretName) -> Result<Arc<SecretEntry>> {
        self.secret(name).ok_or_else(|| {
            match self.quarantined.read().contains(records::secret_path(name).as_str()) {
                true => {
                    Error::new(ErrorKind::Quarantined, "the stored record of the secret failed its check")
                }
                false => Error::secret_not_found(),
            }
        })
    }

    /// Keeps the name of a secret from being found and from being made anew.
    pub(crate) fn quarantine(&self, path: &str) {
        self.quarantined.write().insert(path.to_owned());
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

    /// Returns the names of those that have a policy of their own.
    pub fn with_policies(&self) -> Vec<SecretName> {
        self.policies.read().keys().cloned().collect()
    }

    /// Returns up to `most` from `skip` on, by their names, of all but the `hidden` ones, and how many there are of them.
    pub fn page_without(
        &self,
        hidden: &BTreeSet<SecretName>,
        skip: usize,
        most: usize,
    ) -> (Vec<Arc<SecretEntry>>, usize) {
        let all = self.all.read();
        let there = hidden.iter().filter(|name| all.contains_key(*name)).count();
        let visible = all.iter().filter(|(name, _)| !hidden.contains(*name)).map(|(_, entry)| entry);
        (visible.skip(skip).take(most).cloned().collect(), all.len() - there)
    }

    /// Returns those of which `keep` is true and whose names begin with `prefix`, by their names. Whoever changes one waits for a part of
    /// them alone, so that what is changed meanwhile may be seen as it was or as it is.
    pub fn matching(&self, prefix: &str, keep: impl Fn(&Secret) -> bool) -> Vec<Arc<SecretEntry>> {
        const AT_ONCE: usize = 4_096;
        let mut kept = Vec::new();
        let mut after: Option<SecretName> = None;
        loop {
            let all = self.all.read();
            let from = match &after {
                Some(name) => Bound::Excluded(name.as_str()),
                None => Bound::Included(prefix),
            };
            let mut seen = 0;
            let in_order = all.range::<str, _>((from, Bound::Unbounded));
            let mut last = None;
            for (name, entry) in
                in_order.take(AT_ONCE).take_while(|(name, _)| name.as_str().starts_with(prefix))
            {
                seen += 1;
                last = Some(name);
                if keep(&entry.secret) {
                    kept.push(entry.clone());
                }
            }
            match last {
                Some(name) if seen == AT_ONCE => after = Some(name.clone()),
                _ => return kept,
            }
        }
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

    /// Returns the names of those of which values are left to be removed.
    pub(crate) fn with_left(&self) -> BTreeSet<SecretName> {
        self.left.read().clone()
    }

    pub(crate) fn put(&self, entry: SecretEntry) -> Arc<SecretEntry> {
        let (name, entry) = (entry.secret.name.clone(), Arc::new(entry));
        match entry.secret.left.is_empty() {
            false => drop(self.left.write().insert(name.clone())),
            true => drop(self.left.write().remove(&name)),
        }
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
        self.left.write().remove(name);
        self.ending.write().remove(name);
        self.note_rotation(name, None);
        self.all.write().remove(name);
        self.policies.write().remove(name);
    }

    pub(crate) fn set_cmk(&self, cmk: Option<CmkId>) {
        *self.cmk.write() = cmk;
    }
}
