//! Start: what the store holds is checked against what the audit remembers, opened, and published. A record that fails is
//! quarantined by path, and the rest is served.

mod loader;

use std::collections::HashMap;

use keymill_core::access::AccessSnapshot;
use keymill_core::acme::{Account, Order};
use keymill_core::audit::RecordStamp;
use keymill_core::id::{CmkId, NodeName};
use keymill_core::instance::Instance;
use keymill_core::seam::store::{Entry, Page, Revision, Store, StoreError};
use keymill_crypto::audit::{Remembered, RememberedTag, Stamps};
use keymill_crypto::record::RecordSealer;

use self::loader::Loader;
use crate::actor::keyring::Inherited;
use crate::assembly::{Assembly, Tag};
use crate::keyring::{Ended, Keyring, Stamp};
use crate::records::{self, InstallationRecord, Kind};
use crate::scan::{self, Found, What};

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

/// Judges the mark of a record that ended, in the same way.
pub(crate) fn judge_end(remembered: Option<Remembered>, sequence: u64) -> Judgement {
    match remembered {
        Some(known) if sequence < known.sequence => {
            Judgement::Rejected("the end of the record is older than the audit log says")
        }
        Some(known) if sequence == known.sequence && known.tag == RememberedTag::Removed => Judgement::Fine,
        Some(known) if sequence == known.sequence => {
            Judgement::Rejected("the record has not ended, as the audit log says")
        }
        _ => Judgement::Unrecorded,
    }
}

/// What was loaded, beside the keyring itself.
pub(crate) struct Loaded {
    pub(crate) access: AccessSnapshot,
    pub(crate) access_stamps: HashMap<String, Stamp>,
    pub(crate) access_ended: HashMap<String, Ended>,
    pub(crate) acme: AcmeRecords,
    pub(crate) instances: InstanceRecords,
    pub(crate) inherited: Inherited,
    /// Records that no audit record speaks of.
    pub(crate) unrecorded: Vec<RecordStamp>,
    pub(crate) quarantined: Vec<(String, String)>,
    /// Those of them that the audit remembers otherwise than they stand.
    pub(crate) lost: Vec<String>,
    /// Whether there never was an access key.
    pub(crate) needs_bootstrap: bool,
}

/// Accounts and orders of ACME, and where their records stand.
#[derive(Default)]
pub(crate) struct AcmeRecords {
    pub(crate) accounts: Vec<Account>,
    pub(crate) orders: Vec<Order>,
    pub(crate) stamps: HashMap<String, Stamp>,
    pub(crate) ended: HashMap<String, Ended>,
}

/// Instances, and where their records stand.
#[derive(Default)]
pub(crate) struct InstanceRecords {
    pub(crate) instances: Vec<Instance>,
    pub(crate) stamps: HashMap<String, Stamp>,
    pub(crate) ended: HashMap<String, Ended>,
}

/// What was read of the store, and published where that can be; nothing of it is judged yet, and nobody uses the keyring.
pub(crate) struct Read {
    /// CMKs that were published, by id, with their sequence numbers and tags.
    cmks: Vec<(CmkId, u64, Tag)>,
    /// The same of material, by key and number.
    materials: Vec<(CmkId, u32, u64, Tag)>,
    others: Vec<Other>,
    is_empty: bool,
}

/// A record of another kind, or one that is not as it should be.
struct Other {
    path: String,
    mark: Option<(u64, Tag)>,
    revision: Revision,
    what: What,
}

/// Reads and opens everything, and publishes CMKs with their material. What the audit remembers is not needed for that: it is read
/// meanwhile.
pub(crate) fn read(store: &dyn Store, sealer: &RecordSealer, keyring: &Keyring) -> Result<Read, StoreError> {
    let mut assembly = Assembly::default();
    let mut read = Read { cmks: Vec::new(), materials: Vec::new(), others: Vec::new(), is_empty: true };
    let is_any = scan::all(store, sealer, &mut |Found { path, mark, revision, what }| match (what, mark) {
        (What::Cmk(id, Ok((entry, _))), Some((sequence, tag))) if entry.cmk.id == id => {
            read.cmks.push((id, sequence, tag));
            assembly.cmk(entry, keyring);
        }
        (What::Material(Some((id, number))), Some((sequence, tag))) => {
            read.materials.push((id, number, sequence, tag));
            assembly.material(id, number, tag, keyring);
        }
        (what, mark) => read.others.push(Other { path: path.to_owned(), mark, revision, what }),
    })?;
    assembly.finish(keyring);
    read.is_empty = !is_any;
    Ok(read)
}

/// Judges what was read, and takes back what fails; uses up the `stamps` of what is there.
pub(crate) fn judge_all(
    store: &dyn Store,
    sealer: &RecordSealer,
    read: Read,
    stamps: Stamps,
    keyring: &Keyring,
    node: Option<&NodeName>,
) -> Result<Loaded, StoreError> {
    let remembered = stamps.len();
    let mut needs_bootstrap = !stamps.has_under("access-key");
    let mut loader = Loader::new(keyring, stamps, node.map(NodeName::as_str));
    let Read { cmks, materials, others, is_empty } = read;
    for (id, sequence, tag) in cmks {
        loader.cmk(&id, sequence, tag);
    }
    for (id, number, sequence, tag) in materials {
        loader.material(&id, number, sequence, tag);
    }
    for Other { path, mark, revision, what } in others {
        loader.take(Found { path: &path, mark, revision, what });
    }
    keyring.order();
    loader.count();
    needs_bootstrap &= !loader.has_access_keys;
    let (installation, installation_stamp) = installation(store, sealer)?;
    keyring.secrets.set_cmk(installation.secret_cmk);
    if installation_stamp.is_none() && is_empty && remembered > 0 {
        // A fresh root access key over a store that was lost would hand the installation to whoever deleted it.
        return Err(StoreError::Corrupt(format!(
            "the store is empty, though the audit log remembers {remembered} records: restore the store, or move the audit \
             log away to begin anew"
        )));
    }
    let mut ended = loader.ended;
    for stamp in loader.stamps.iter() {
        let RecordStamp { path, sequence, tag } = stamp;
        if tag.is_empty() {
            ended.entry(path).or_insert(Ended::gone(sequence));
        } else {
            if let Some(id) = path.strip_prefix("cmk/").and_then(CmkId::parse) {
                keyring.quarantine(id, "the stored record of the key is missing");
            }
            if let Some(id) = path.strip_prefix("invocations/").and_then(CmkId::parse) {
                forget_invocations(keyring, &id);
            }
            // What takes its place is newer than what the audit log remembers.
            ended.insert(path.clone(), Ended::gone(sequence));
            loader.lost.push(path.clone());
            let why = "the record is missing, though the audit log says that it was written";
            loader.quarantined.push((path, why.to_owned()));
        }
    }
    // In an order that does not depend on which thread was first.
    loader.unrecorded.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    loader.quarantined.sort_unstable();
    loader.lost.sort_unstable();
    // One that is missing, too: its key is no stray one.
    for id in loader.quarantined.iter().filter_map(|(path, _)| records::certificate_at(path)) {
        keyring.certificates.quarantine(id);
    }
    for (path, _) in loader.quarantined.iter().filter(|(path, _)| path.starts_with("authority/")) {
        keyring.certificates.authorities.quarantine(path);
    }
    for (path, _) in loader.quarantined.iter().filter(|(path, _)| path.starts_with("secret/")) {
        keyring.secrets.quarantine(path);
    }
    loader.acme.ended = ended.extract_if(|path, _| path.starts_with("acme-")).collect();
    loader.instances.ended = ended.extract_if(|path, _| path.starts_with("instance/")).collect();
    let access_ended = ended.extract_if(|path, _| records::is_of_access(path)).collect();
    Ok(Loaded {
        access: loader.access.published(),
        access_stamps: loader.access_stamps,
        access_ended,
        acme: loader.acme,
        instances: loader.instances,
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
        lost: loader.lost,
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
pub(crate) fn forget_invocations(keyring: &Keyring, id: &CmkId) {
    if let Some(entry) = keyring.cmk(id) {
        entry.versions.iter().for_each(|version| version.in_use().invocations.forget());
    }
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
