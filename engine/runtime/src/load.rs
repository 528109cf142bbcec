//! Start: what the store holds is checked against what the audit remembers, opened, and published. A record that fails is
//! quarantined by path, and the rest is served.

use std::collections::HashMap;
use std::sync::Arc;

use keymill_core::access::{AccessKey, AccessSnapshot};
use keymill_core::audit::RecordStamp;
use keymill_core::id::{AccessKeyId, CmkId};
use keymill_core::seam::store::{Entry, Page, Store, StoreError};
use keymill_crypto::audit::{Remembered, RememberedTag, Stamps};
use keymill_crypto::digest;
use keymill_crypto::record::RecordSealer;

use crate::actor::keyring::{Inherited, Parameters};
use crate::assembly::{Assembly, Tag};
use crate::keyring::{AliasEntry, Keyring, Stamp, Uses};
use crate::records::{
    self, AliasRecord, ImportRecord, InstallationRecord, InvocationsRecord, Kind, UsageRecord,
};
use crate::scan::{self, Found, Opened, What};

/// What a stored record looks like beside what the audit remembers of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// As remembered, or of a kind that is not remembered.
    Fine,
    /// Newer than remembered: a crash came between the commit and its record, and it was never acknowledged.
    Unrecorded,
    /// Older than remembered, altered, or back after its removal.
    Rejected(&'static str),
}

/// Judges a record of `sequence` and `tag` against what the audit remembers.
pub(crate) fn judge(remembered: Option<Remembered>, sequence: u64, tag: &Tag) -> Judgement {
    let Some(known) = remembered else { return Judgement::Unrecorded };
    if sequence > known.sequence {
        Judgement::Unrecorded
    } else if sequence < known.sequence {
        Judgement::Rejected("the stored record is older than the audit log says")
    } else if known.tag == RememberedTag::Removed {
        Judgement::Rejected("the stored record was removed and has come back")
    } else if known.tag == RememberedTag::Is(*tag) {
        Judgement::Fine
    } else {
        Judgement::Rejected("the stored record differs from what the audit log says")
    }
}

/// What was loaded, beside the keyring itself.
pub(crate) struct Loaded {
    pub(crate) access: AccessSnapshot,
    pub(crate) access_stamps: HashMap<AccessKeyId, Stamp>,
    pub(crate) access_ended: HashMap<AccessKeyId, u64>,
    pub(crate) inherited: Inherited,
    /// Records that no audit record speaks of.
    pub(crate) unrecorded: Vec<RecordStamp>,
    pub(crate) quarantined: Vec<(String, String)>,
    /// Whether there never was an access key.
    pub(crate) needs_bootstrap: bool,
}

/// Reads and opens everything, and uses up the `stamps` of what is there.
pub(crate) fn load(
    store: &dyn Store,
    sealer: &RecordSealer,
    stamps: Stamps,
    keyring: &Keyring,
) -> Result<Loaded, StoreError> {
    let remembered = stamps.len();
    let mut needs_bootstrap = !stamps.has_under("access-key");
    // Most are of CMKs and their material.
    keyring.reserve(remembered / 2);
    let mut loader = Loader::new(keyring, stamps);
    let is_empty = !scan::all(store, sealer, &mut |found| loader.take(found))?;
    loader.assembly.finish(keyring);
    loader.count();
    needs_bootstrap &= !loader.has_access_keys;
    let (installation, installation_stamp) = installation(store, sealer)?;
    if installation_stamp.is_none() && is_empty && remembered > 0 {
        // A fresh root access key over a store that was lost would hand the installation to whoever deleted it.
        return Err(StoreError::Corrupt(format!(
            "the store is empty, though the audit log remembers {remembered} records: restore the store, or move the audit \
             log away to begin anew"
        )));
    }
    let mut ended = loader.surpassed;
    let mut access_ended = HashMap::new();
    for stamp in loader.stamps.iter() {
        let RecordStamp { path, sequence, tag } = stamp;
        if tag.is_empty() {
            if let Some(id) = path.strip_prefix("access-key/k").and_then(|id| id.parse().ok()) {
                access_ended.insert(id, sequence);
            }
            ended.insert(path, sequence);
        } else {
            if let Some(id) = path.strip_prefix("cmk/").and_then(CmkId::parse) {
                keyring.quarantine(id, "the stored record of the key is missing");
            }
            if let Some(id) = path.strip_prefix("invocations/").and_then(CmkId::parse) {
                forget_invocations(keyring, &id);
            }
            // What takes its place is newer than what the audit log remembers.
            ended.insert(path.clone(), sequence);
            let why = "the record is missing, though the audit log says that it was written";
            loader.quarantined.push((path, why.to_owned()));
        }
    }
    // In an order that does not depend on which thread was first.
    loader.unrecorded.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    loader.quarantined.sort_unstable();
    Ok(Loaded {
        access: loader.access,
        access_stamps: loader.access_stamps,
        access_ended,
        inherited: Inherited {
            ended,
            usage_stamps: loader.usage_stamps,
            invocation_stamps: loader.invocation_stamps,
            imports: loader.imports,
            installation,
            installation_stamp,
        },
        unrecorded: loader.unrecorded,
        quarantined: loader.quarantined,
        needs_bootstrap,
    })
}

/// Reads what the installation knows of itself.
fn installation(
    store: &dyn Store,
    sealer: &RecordSealer,
) -> Result<(InstallationRecord, Option<Stamp>), StoreError> {
    let Some(entry) = store.get(&records::installation_path())? else { return Ok(Default::default()) };
    match records::open::<InstallationRecord>(sealer, &entry.path, Kind::Installation, &entry.value) {
        Ok((record, sequence, _)) => Ok((record, Some(Stamp { revision: entry.revision, sequence }))),
        // Nobody wrote this with our keys; most likely the root is another installation's.
        Err(error) => Err(StoreError::Corrupt(format!(
            "record {}: {error}; is this the root that belongs to this store?",
            entry.path
        ))),
    }
}

/// Makes the counts of reserved invocations of a key ones that cannot be trusted.
fn forget_invocations(keyring: &Keyring, id: &CmkId) {
    if let Some(entry) = keyring.cmk(id) {
        entry.versions.iter().for_each(|version| version.in_use().invocations.forget());
    }
}

/// Judges records as they come, in any order.
struct Loader<'a> {
    keyring: &'a Keyring,
    assembly: Assembly,
    /// What is remembered of records that were not come upon yet, and of those that ended.
    stamps: Stamps,
    unrecorded: Vec<RecordStamp>,
    quarantined: Vec<(String, String)>,
    /// What is remembered of records that were refused: what takes their place is newer.
    surpassed: HashMap<String, u64>,
    usages: Vec<(CmkId, UsageRecord)>,
    usage_stamps: HashMap<CmkId, Stamp>,
    /// Without a record where it failed its check.
    invocations: Vec<(CmkId, Option<InvocationsRecord>)>,
    invocation_stamps: HashMap<CmkId, Stamp>,
    imports: HashMap<CmkId, Parameters>,
    access: AccessSnapshot,
    access_stamps: HashMap<AccessKeyId, Stamp>,
    has_access_keys: bool,
}

impl<'a> Loader<'a> {
    fn new(keyring: &'a Keyring, stamps: Stamps) -> Self {
        Self {
            keyring,
            assembly: Assembly::default(),
            stamps,
            unrecorded: Vec::new(),
            quarantined: Vec::new(),
            surpassed: HashMap::new(),
            usages: Vec::new(),
            usage_stamps: HashMap::new(),
            invocations: Vec::new(),
            invocation_stamps: HashMap::new(),
            imports: HashMap::new(),
            access: AccessSnapshot::default(),
            access_stamps: HashMap::new(),
            has_access_keys: false,
        }
    }

    fn take(&mut self, Found { path, mark, revision, what }: Found<'_>) {
        let place = Place { path, mark };
        let stamp = |sequence| Stamp { revision, sequence };
        match what {
            What::Cmk(id, opened) => match self.trusted(place, opened) {
                Some((entry, _)) if entry.cmk.id == id => self.assembly.cmk(entry, self.keyring),
                _ => self.keyring.quarantine(id, "the stored record of the key failed its check"),
            },
            What::Material(version) => {
                if let (Some((_, tag)), Some((id, number))) = (self.judged(place), version) {
                    self.assembly.material(id, number, tag, self.keyring);
                }
            }
            What::Usage(id, Ok((usage, sequence))) => {
                self.usages.push((id, usage));
                self.usage_stamps.insert(id, stamp(sequence));
            }
            What::Usage(_, Err(why)) => self.reject(path, &why),
            What::Invocations(id, opened) => {
                let trusted = self.trusted(place, opened);
                self.invocation_stamps.extend(trusted.as_ref().map(|(_, sequence)| (id, stamp(*sequence))));
                self.invocations.push((id, trusted.map(|(record, _)| record)));
            }
            What::Import(id, opened) => {
                if let Some((record, sequence)) = self.trusted::<ImportRecord>(place, opened) {
                    self.imports.insert(id, Parameters::of(&record, stamp(sequence)));
                }
            }
            What::Alias(opened) => {
                if let Some((AliasRecord { cmk, name }, sequence)) = self.trusted(place, opened) {
                    self.keyring.put_alias(name, AliasEntry { cmk, stamp: stamp(sequence) });
                }
            }
            What::AccessKey(opened) => {
                self.has_access_keys = true;
                if let Some((key, sequence)) = self.trusted::<AccessKey>(place, opened) {
                    self.access_stamps.insert(key.id.clone(), stamp(sequence));
                    self.access.access_keys.insert(key.id.clone(), Arc::new(key));
                }
            }
        }
    }

    /// Gives the keys, once all are there, what is stored of their uses.
    fn count(&mut self) {
        for (id, usage) in self.usages.drain(..) {
            let Some(entry) = self.keyring.cmk(&id) else { continue };
            for version in &entry.versions {
                let Some(row) = usage.0.iter().find(|row| row.0 == version.number) else { continue };
                let uses = Uses { encrypted: row.1, decrypted: row.2, last_ms: row.3 };
                version.in_use().usage.resume(uses);
                self.keyring.note(&id, &version.in_use().usage);
            }
        }
        for (id, reserved) in self.invocations.drain(..) {
            let (Some(entry), Some(rows)) = (self.keyring.cmk(&id), reserved) else {
                forget_invocations(self.keyring, &id);
                continue;
            };
            for version in &entry.versions {
                let Some(row) = rows.0.iter().find(|row| row.0 == version.number) else { continue };
                version.in_use().invocations.resume(row.1);
                self.keyring.note(&id, &version.in_use().usage);
            }
        }
    }

    fn reject(&mut self, path: &str, why: &str) {
        self.quarantined.push((path.to_string(), why.to_owned()));
    }

    fn recall(&mut self, path: &str) -> Option<Remembered> {
        let known = self.stamps.take(path)?;
        if known.tag == RememberedTag::Removed {
            self.stamps.put(path, known.sequence, "");
        }
        Some(known)
    }

    /// Sees that what takes the place of a refused record is newer than what is remembered of it.
    fn surpass(&mut self, path: &str, remembered: Option<Remembered>) {
        self.surpassed.extend(remembered.map(|known| (path.to_string(), known.sequence)));
    }

    /// Judges a record without opening it; returns its sequence number and tag where it is trusted.
    fn judged(&mut self, Place { path, mark }: Place<'_>) -> Option<(u64, Tag)> {
        let known = self.recall(path);
        let Some((sequence, tag)) = mark else {
            self.reject(path, "the record is cut");
            return None;
        };
        match judge(known, sequence, &tag) {
            Judgement::Fine => {}
            Judgement::Unrecorded => {
                let tag = digest::hex(&tag);
                self.unrecorded.push(RecordStamp { path: path.to_string(), sequence, tag });
            }
            Judgement::Rejected(why) => {
                self.reject(path, why);
                self.surpass(path, known);
                return None;
            }
        }
        Some((sequence, tag))
    }

    /// Judges a record that was opened; returns it with its sequence number where it is trusted.
    fn trusted<T>(&mut self, place: Place<'_>, opened: Opened<T>) -> Option<(T, u64)> {
        match opened {
            Ok((record, sequence)) => self.judged(place).map(|_| (record, sequence)),
            Err(why) => {
                let known = self.recall(place.path);
                self.surpass(place.path, known);
                self.reject(place.path, &why);
                None
            }
        }
    }
}

/// Where a record stands, and what it was sealed with, unverified; nothing where it is too short to say.
struct Place<'a> {
    path: &'a str,
    mark: Option<(u64, Tag)>,
}

/// Reads all records under a prefix.
pub(crate) fn all(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    const ROWS: usize = 4_096;
    let prefix = records::prefix(prefix);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.path.clone());
        let mut page = store.list(&prefix, Page { after: after.as_ref(), limit: ROWS })?;
        let last = page.len() < ROWS;
        entries.append(&mut page);
        if last {
            return Ok(entries);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AA: Tag = [0xaa; 16];
    const BB: Tag = [0xbb; 16];

    fn known(sequence: u64, tag: Tag) -> Remembered {
        Remembered { sequence, tag: RememberedTag::Is(tag) }
    }

    fn removed(sequence: u64) -> Remembered {
        Remembered { sequence, tag: RememberedTag::Removed }
    }

    #[test]
    fn an_older_altered_or_returned_record_is_rejected_and_a_newer_one_is_noted() {
        assert_eq!(judge(Some(known(3, AA)), 3, &AA), Judgement::Fine);
        assert_eq!(judge(Some(known(3, AA)), 4, &BB), Judgement::Unrecorded);
        assert_eq!(judge(None, 1, &AA), Judgement::Unrecorded);
        let odd = Remembered { sequence: 3, tag: RememberedTag::None };
        for (remembered, sequence) in
            [(known(3, AA), 2), (known(3, BB), 3), (removed(3), 3), (removed(3), 2), (odd, 3)]
        {
            assert!(matches!(judge(Some(remembered), sequence, &AA), Judgement::Rejected(_)));
        }
    }
}
