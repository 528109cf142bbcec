//! Start: what the store holds is checked against what the audit remembers, opened, and published. A record that fails is
//! quarantined by path, and the rest is served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use keymill_core::access::{AccessKey, AccessSnapshot};
use keymill_core::audit::RecordStamp;
use keymill_core::id::{AccessKeyId, CmkId};
use keymill_core::key::{Cmk, ManagedDataKey};
use keymill_core::seam::store::{Entry, Page, Path, Store, StoreError};
use keymill_crypto::digest;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};

use crate::actor::keyring::{Inherited, Parameters};
use crate::keyring::{AliasEntry, CmkEntry, DataKeyEntry, Invocations, Keyring, Stamp, Usage, VersionEntry};
use crate::records::{
    self, AliasRecord, ImportRecord, InstallationRecord, InvocationsRecord, Kind, UsageRecord,
};

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
pub(crate) fn judge(remembered: Option<&RecordStamp>, sequence: u64, tag: &str) -> Judgement {
    let Some(stamp) = remembered else { return Judgement::Unrecorded };
    if sequence > stamp.sequence {
        Judgement::Unrecorded
    } else if sequence < stamp.sequence {
        Judgement::Rejected("the stored record is older than the audit log says")
    } else if stamp.tag.is_empty() {
        Judgement::Rejected("the stored record was removed and has come back")
    } else if stamp.tag == tag {
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
    stamps: BTreeMap<String, RecordStamp>,
    keyring: &Keyring,
) -> Result<Loaded, StoreError> {
    let remembered = stamps.len();
    let mut needs_bootstrap = !stamps.keys().any(|path| path.starts_with("access-key/"));
    let mut loader =
        Loader { sealer, stamps, unrecorded: Vec::new(), quarantined: Vec::new(), surpassed: HashMap::new() };
    let mut is_empty = true;
    let mut fetch = |prefix: &str| -> Result<Vec<Entry>, StoreError> {
        let entries = all(store, prefix)?;
        is_empty &= entries.is_empty();
        Ok(entries)
    };
    let mut materials: HashMap<Path, Box<[u8]>> = HashMap::new();
    for entry in fetch("material/")? {
        if loader.is_trusted(&entry) {
            materials.insert(entry.path, entry.value.into());
        }
    }
    let mut usages: HashMap<CmkId, UsageRecord> = HashMap::new();
    let mut usage_stamps = HashMap::new();
    for entry in fetch("usage/")? {
        let Some(id) = last_segment(&entry).and_then(CmkId::parse) else { continue };
        match records::open::<UsageRecord>(sealer, &entry.path, Kind::Usage, &entry.value) {
            Ok((usage, sequence, _)) => {
                usages.insert(id, usage);
                usage_stamps.insert(id, Stamp { revision: entry.revision, sequence });
            }
            Err(error) => loader.reject(&entry, &error.to_string()),
        }
    }
    let mut invocations: HashMap<CmkId, Option<InvocationsRecord>> = HashMap::new();
    let mut invocation_stamps = HashMap::new();
    for entry in fetch("invocations/")? {
        let Some(id) = last_segment(&entry).and_then(CmkId::parse) else { continue };
        let opened = loader.open::<InvocationsRecord>(&entry, Kind::Invocations);
        if let Some((_, stamp)) = &opened {
            invocation_stamps.insert(id, *stamp);
        }
        invocations.insert(id, opened.map(|(record, _)| record));
    }
    let mut imports = HashMap::new();
    for entry in fetch("import/")? {
        let Some(id) = last_segment(&entry).and_then(CmkId::parse) else { continue };
        if let Some((record, stamp)) = loader.open::<ImportRecord>(&entry, Kind::Import) {
            imports.insert(id, Parameters::of(&record, stamp));
        }
    }
    let mut cmks = Vec::new();
    for entry in fetch("cmk/")? {
        let Some(id) = last_segment(&entry).and_then(CmkId::parse) else { continue };
        match loader.open::<Cmk>(&entry, Kind::Cmk) {
            Some((cmk, stamp)) if cmk.id == id => cmks.push((cmk, stamp)),
            _ => keyring.quarantine(id, "the stored record of the key failed its check"),
        }
    }
    cmks.sort_by_key(|(cmk, _)| (cmk.created_at, cmk.id));
    for (cmk, stamp) in cmks {
        let counted = invocations.remove(&cmk.id);
        let usage = usages.remove(&cmk.id).unwrap_or_default();
        let versions = cmk
            .versions
            .iter()
            .map(|version| {
                let path = records::material_path(&cmk.id, version.number);
                let (_, encrypted, decrypted, last) =
                    usage.0.iter().find(|row| row.0 == version.number).copied().unwrap_or_default();
                Arc::new(VersionEntry {
                    number: version.number,
                    id: version.id,
                    sealed: materials.remove(&path).unwrap_or_default(),
                    handle: Default::default(),
                    public: Default::default(),
                    epoch: Default::default(),
                    usage: Arc::new(Usage {
                        encrypted: encrypted.into(),
                        decrypted: decrypted.into(),
                        last_ms: last.into(),
                        flushed: (encrypted + decrypted).into(),
                    }),
                    invocations: Arc::new(match &counted {
                        None => Invocations::default(),
                        Some(None) => Invocations::unknown(),
                        Some(Some(rows)) => Invocations::resumed(
                            rows.0.iter().find(|row| row.0 == version.number).map_or(0, |row| row.1),
                        ),
                    }),
                })
            })
            .collect();
        let life = Arc::new(AtomicU64::new(1));
        keyring.publish(Arc::new(CmkEntry { cmk, versions, stamp, generation: 1, life }));
    }
    for entry in fetch("alias/")? {
        if let Some((alias, stamp)) = loader.open::<AliasRecord>(&entry, Kind::Alias) {
            keyring.put_alias(alias.name, AliasEntry { cmk: alias.cmk, stamp });
        }
    }
    for entry in fetch("data-key/")? {
        if let Some((key, stamp)) = loader.open::<ManagedDataKey>(&entry, Kind::DataKey) {
            keyring.put_data_key(DataKeyEntry { key, stamp });
        }
    }
    let mut access = AccessSnapshot::default();
    let mut access_stamps = HashMap::new();
    for entry in fetch("access-key/")? {
        needs_bootstrap = false;
        if let Some((key, stamp)) = loader.open::<AccessKey>(&entry, Kind::AccessKey) {
            access_stamps.insert(key.id.clone(), stamp);
            access.access_keys.insert(key.id.clone(), Arc::new(key));
        }
    }
    let (installation, installation_stamp) = match store.get(&records::installation_path())? {
        None => (InstallationRecord::default(), None),
        Some(entry) => {
            let opened =
                records::open::<InstallationRecord>(sealer, &entry.path, Kind::Installation, &entry.value);
            match opened {
                Ok((record, sequence, _)) => (record, Some(Stamp { revision: entry.revision, sequence })),
                Err(error) => {
                    // Nobody wrote this with our keys; most likely the root is another installation's.
                    return Err(StoreError::Corrupt(format!(
                        "record {}: {error}; is this the root that belongs to this store?",
                        entry.path
                    )));
                }
            }
        }
    };
    if installation_stamp.is_none() && is_empty && remembered > 0 {
        // A fresh root access key over a store that was lost would hand the installation to whoever deleted it.
        return Err(StoreError::Corrupt(format!(
            "the store is empty, though the audit log remembers {remembered} records: restore the store, or move the audit \
             log away to begin anew"
        )));
    }
    let mut ended = loader.surpassed;
    let mut access_ended = HashMap::new();
    for (path, stamp) in loader.stamps {
        if stamp.tag.is_empty() {
            if let Some(id) = path.strip_prefix("access-key/k").and_then(|id| id.parse().ok()) {
                access_ended.insert(id, stamp.sequence);
            }
            ended.insert(path, stamp.sequence);
        } else {
            if let Some(id) = path.strip_prefix("cmk/").and_then(CmkId::parse) {
                keyring.quarantine(id, "the stored record of the key is missing");
            }
            if let Some(entry) =
                path.strip_prefix("invocations/").and_then(CmkId::parse).and_then(|id| keyring.cmk(&id))
            {
                entry.versions.iter().for_each(|version| version.invocations.forget());
            }
            // What takes its place is newer than what the audit log remembers.
            ended.insert(path.clone(), stamp.sequence);
            let why = "the record is missing, though the audit log says that it was written";
            loader.quarantined.push((path, why.to_owned()));
        }
    }
    Ok(Loaded {
        access,
        access_stamps,
        access_ended,
        inherited: Inherited {
            ended,
            usage_stamps,
            invocation_stamps,
            imports,
            installation,
            installation_stamp,
        },
        unrecorded: loader.unrecorded,
        quarantined: loader.quarantined,
        needs_bootstrap,
    })
}

struct Loader<'a> {
    sealer: &'a RecordSealer,
    /// What is remembered of records that were not come upon yet, and of those that ended.
    stamps: BTreeMap<String, RecordStamp>,
    unrecorded: Vec<RecordStamp>,
    quarantined: Vec<(String, String)>,
    /// What is remembered of records that were refused: what takes their place is newer.
    surpassed: HashMap<String, u64>,
}

impl Loader<'_> {
    fn reject(&mut self, entry: &Entry, why: &str) {
        self.quarantined.push((entry.path.to_string(), why.to_owned()));
    }

    fn recall(&mut self, entry: &Entry) -> Option<RecordStamp> {
        let (path, stamp) = self.stamps.remove_entry(entry.path.as_str())?;
        if stamp.tag.is_empty() {
            self.stamps.insert(path, stamp.clone());
        }
        Some(stamp)
    }

    /// Sees that what takes the place of a refused record is newer than what is remembered of it.
    fn surpass(&mut self, remembered: Option<RecordStamp>) {
        self.surpassed.extend(remembered.map(|stamp| (stamp.path, stamp.sequence)));
    }

    /// Judges a record without opening it.
    fn is_trusted(&mut self, entry: &Entry) -> bool {
        let stamp = self.recall(entry);
        let (Some(sequence), Some(tag)) = (sequence_of(&entry.value), tag_of(&entry.value)) else {
            self.reject(entry, "the record is cut");
            return false;
        };
        let tag = digest::hex(&tag);
        match judge(stamp.as_ref(), sequence, &tag) {
            Judgement::Fine => true,
            Judgement::Unrecorded => {
                self.unrecorded.push(RecordStamp { path: entry.path.to_string(), sequence, tag });
                true
            }
            Judgement::Rejected(why) => {
                self.reject(entry, why);
                self.surpass(stamp);
                false
            }
        }
    }

    fn open<T: serde::de::DeserializeOwned>(&mut self, entry: &Entry, kind: Kind) -> Option<(T, Stamp)> {
        match records::open(self.sealer, &entry.path, kind, &entry.value) {
            Ok((record, sequence, _)) if self.is_trusted(entry) => {
                Some((record, Stamp { revision: entry.revision, sequence }))
            }
            Ok(_) => None,
            Err(error) => {
                let stamp = self.recall(entry);
                self.surpass(stamp);
                self.reject(entry, &error.to_string());
                None
            }
        }
    }
}

fn last_segment(entry: &Entry) -> Option<&str> {
    entry.path.as_str().rsplit('/').next()
}

/// Reads all records under a prefix.
pub(crate) fn all(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    each(store, prefix, |entry| entries.push(entry))?;
    Ok(entries)
}

/// Calls `take` for each record under a prefix; some at a time are held in memory.
pub(crate) fn each(store: &dyn Store, prefix: &str, mut take: impl FnMut(Entry)) -> Result<(), StoreError> {
    const ROWS: usize = 4_096;
    let prefix = records::prefix(prefix);
    let mut after = None;
    loop {
        let page = store.list(&prefix, Page { after: after.as_ref(), limit: ROWS })?;
        let is_last = page.len() < ROWS;
        after = page.last().map(|entry| entry.path.clone());
        page.into_iter().for_each(&mut take);
        if is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64, tag: &str) -> RecordStamp {
        RecordStamp { path: "cmk/x".into(), sequence, tag: tag.into() }
    }

    #[test]
    fn an_older_altered_or_returned_record_is_rejected_and_a_newer_one_is_noted() {
        assert_eq!(judge(Some(&stamp(3, "aa")), 3, "aa"), Judgement::Fine);
        assert_eq!(judge(Some(&stamp(3, "aa")), 4, "bb"), Judgement::Unrecorded);
        assert_eq!(judge(None, 1, "aa"), Judgement::Unrecorded);
        for (remembered, sequence) in
            [(stamp(3, "aa"), 2), (stamp(3, "bb"), 3), (stamp(3, ""), 3), (stamp(3, ""), 2)]
        {
            assert!(matches!(judge(Some(&remembered), sequence, "aa"), Judgement::Rejected(_)));
        }
    }
}
