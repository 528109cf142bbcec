//! Start: puts CMKs and the material of their versions together, whichever comes first. One that is whole is published at once, so that
//! nothing is held twice.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use keymill_core::blob::TAG_BYTES;
use keymill_core::id::{AccessKeyId, CmkId, NameHasher};

use crate::keyring::{CmkEntry, Keyring, RandomIdHasher};

/// The tag of a record.
pub(crate) type Tag = [u8; TAG_BYTES];

/// What waits for its other half.
#[derive(Default)]
pub(crate) struct Assembly {
    /// Without the tags of their material.
    entries: HashMap<CmkId, Arc<CmkEntry>, BuildHasherDefault<RandomIdHasher>>,
    /// By key and number.
    materials: HashMap<(CmkId, u32), Tag, BuildHasherDefault<RandomIdHasher>>,
    /// Who created keys: a few, whose ids are kept once.
    creators: HashSet<AccessKeyId, BuildHasherDefault<NameHasher>>,
}

impl Assembly {
    /// Takes the entry of a CMK that nobody else has yet, without the tags of its material.
    pub(crate) fn cmk(&mut self, entry: Arc<CmkEntry>, keyring: &Keyring) {
        match self.is_whole(&entry) {
            true => self.publish(entry, keyring),
            false => drop(self.entries.insert(entry.cmk.id, entry)),
        }
    }

    /// Takes the tag of the material of a version.
    pub(crate) fn material(&mut self, id: CmkId, number: u32, tag: Tag, keyring: &Keyring) {
        self.materials.insert((id, number), tag);
        if self.entries.get(&id).is_some_and(|entry| self.is_whole(entry))
            && let Some(entry) = self.entries.remove(&id)
        {
            self.publish(entry, keyring);
        }
    }

    /// Publishes those whose material did not come.
    pub(crate) fn finish(&mut self, keyring: &Keyring) {
        for (_, entry) in std::mem::take(&mut self.entries) {
            self.publish(entry, keyring);
        }
    }

    fn is_whole(&self, entry: &CmkEntry) -> bool {
        let id = entry.cmk.id;
        entry.versions.iter().all(|version| self.materials.contains_key(&(id, version.number)))
    }

    fn publish(&mut self, mut entry: Arc<CmkEntry>, keyring: &Keyring) {
        let made = Arc::get_mut(&mut entry).expect("nobody has it yet");
        for version in &mut made.versions {
            let version = Arc::get_mut(version).expect("nobody has it yet");
            version.material = self.materials.remove(&(made.cmk.id, version.number));
        }
        match self.creators.get(&made.cmk.creator) {
            Some(known) => made.cmk.creator = known.clone(),
            None => drop(self.creators.insert(made.cmk.creator.clone())),
        }
        keyring.add(entry);
    }
}
