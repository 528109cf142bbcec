//! Start: what the store holds is checked against what the audit remembers, opened, and published. A record that fails is
//! quarantined by path, and the rest is served.

use std::collections::HashMap;
use std::sync::Arc;

use keymill_core::access::{
    Aap, AccessKey, AccessSnapshot, Approval, ClientKey, CustomRole, NetworkRule, PermissionPolicy,
};
use keymill_core::acme::{Account, Order};
use keymill_core::audit::RecordStamp;
use keymill_core::certificate::{Authority, ManagedCertificate};
use keymill_core::id::{AccessKeyId, CmkId, NameMap, NodeName};
use keymill_core::instance::Instance;
use keymill_core::key::ManagedDataKey;
use keymill_core::seam::store::{Entry, Page, Revision, Store, StoreError};
use keymill_core::secret::Secret;
use keymill_crypto::audit::{Remembered, RememberedTag, Stamps};
use keymill_crypto::digest;
use keymill_crypto::record::RecordSealer;

use crate::actor::keyring::{Inherited, Parameters};
use crate::assembly::{Assembly, Tag};
use crate::authorities::{AuthorityEntry, CrlEntry};
use crate::certificates::CertificateEntry;
use crate::keyring::{AliasEntry, DataKeyEntry, Ended, Keyring, Stamp, Uses};
use crate::records::{
    self, AliasRecord, CrlRecord, EndedRecord, ImportRecord, InstallationRecord, InvocationsRecord, Kind,
    UsageRecord,
};
use crate::scan::{self, Found, Opened, What};
use crate::secrets::SecretEntry;

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
            let why = "the record is missing, though the audit log says that it was written";
            loader.quarantined.push((path, why.to_owned()));
        }
    }
    // In an order that does not depend on which thread was first.
    loader.unrecorded.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    loader.quarantined.sort_unstable();
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

/// Judges records as they come, in any order.
struct Loader<'a> {
    keyring: &'a Keyring,
    /// This node, where it is one of several.
    node: Option<&'a str>,
    /// What is remembered of records that were not come upon yet, and of those that ended.
    stamps: Stamps,
    unrecorded: Vec<RecordStamp>,
    quarantined: Vec<(String, String)>,
    /// What is remembered of records that were refused, and what stands where records ended: what takes their place is newer.
    ended: HashMap<String, Ended>,
    usages: Vec<(CmkId, UsageRecord)>,
    usage_stamps: HashMap<CmkId, Stamp>,
    /// Without a record where it failed its check.
    invocations: Vec<(CmkId, Option<InvocationsRecord>)>,
    invocation_stamps: HashMap<CmkId, Stamp>,
    imports: HashMap<CmkId, Parameters>,
    access: Access,
    access_stamps: HashMap<String, Stamp>,
    has_access_keys: bool,
    acme: AcmeRecords,
    instances: InstanceRecords,
}

/// Who may do what, as it was read: what names something else may come before it.
#[derive(Default)]
struct Access {
    access_keys: NameMap<AccessKeyId, Arc<AccessKey>>,
    aaps: Vec<Aap>,
    client_keys: Vec<ClientKey>,
    policies: Vec<PermissionPolicy>,
    network_rules: Vec<NetworkRule>,
    roles: Vec<CustomRole>,
    approvals: Vec<Approval>,
}

impl Access {
    fn published(self) -> AccessSnapshot {
        let Self { access_keys, aaps, client_keys, policies, network_rules, roles, approvals } = self;
        AccessSnapshot::of(access_keys, client_keys, aaps, policies, network_rules, roles, approvals)
    }
}

impl<'a> Loader<'a> {
    fn new(keyring: &'a Keyring, stamps: Stamps, node: Option<&'a str>) -> Self {
        Self {
            keyring,
            node,
            stamps,
            unrecorded: Vec::new(),
            quarantined: Vec::new(),
            ended: HashMap::new(),
            usages: Vec::new(),
            usage_stamps: HashMap::new(),
            invocations: Vec::new(),
            invocation_stamps: HashMap::new(),
            imports: HashMap::new(),
            access: Access::default(),
            access_stamps: HashMap::new(),
            has_access_keys: false,
            acme: AcmeRecords::default(),
            instances: InstanceRecords::default(),
        }
    }

    /// Judges a CMK that was published, and takes it back where it fails.
    fn cmk(&mut self, id: &CmkId, sequence: u64, tag: Tag) {
        let known = self.stamps.recall_at("cmk", id, 0);
        if judge(known, sequence, &tag) == Judgement::Fine {
            return;
        }
        let path = records::cmk_path(id);
        if self.verdict(path.as_str(), known, sequence, tag).is_none() {
            self.keyring.withdraw(id);
            self.quarantine(*id);
        }
    }

    /// Judges material whose tag was published, and takes that back where it fails.
    fn material(&mut self, id: &CmkId, number: u32, sequence: u64, tag: Tag) {
        let known = self.stamps.recall_at("material", id, number);
        if judge(known, sequence, &tag) == Judgement::Fine {
            return;
        }
        let path = records::material_path(id, number);
        if self.verdict(path.as_str(), known, sequence, tag).is_none() {
            self.keyring.withdraw_material(id, number);
        }
    }

    fn quarantine(&self, id: CmkId) {
        self.keyring.quarantine(id, "the stored record of the key failed its check");
    }

    fn take(&mut self, Found { path, mark, revision, what }: Found<'_>) {
        let place = Place { path, mark };
        let stamp = |sequence| Stamp { revision, sequence };
        match what {
            // One that does not open, or is another's; those that are as they should be were published.
            What::Cmk(id, opened) => {
                let _refused = self.trusted(place, opened);
                self.quarantine(id);
            }
            What::Material(_) => drop(self.judged(place)),
            // Each node goes on with its own counts.
            What::Usage(id, node, opened) if node.as_deref() != self.node => match opened {
                Ok((counts, _)) => {
                    self.keyring.elsewhere.put(id, node.as_deref().unwrap_or_default(), counts)
                }
                Err(why) => self.reject(path, &why),
            },
            What::Usage(id, _, Ok((usage, sequence))) => {
                self.usages.push((id, usage));
                self.usage_stamps.insert(id, stamp(sequence));
            }
            What::Usage(_, _, Err(why)) => self.reject(path, &why),
            What::Installation(_) => {}
            What::Ended(opened) => self.ended(place, opened, revision),
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
            What::DataKey(opened) => {
                if let Some((key, sequence)) = self.trusted::<ManagedDataKey>(place, opened) {
                    self.keyring.put_data_key(DataKeyEntry { key, stamp: stamp(sequence) });
                }
            }
            What::Secret(opened) => {
                if let Some((secret, sequence)) = self.trusted::<Secret>(place, opened) {
                    self.keyring.secrets.put(SecretEntry { secret, stamp: stamp(sequence) });
                }
            }
            What::SecretValue | What::CertificateBody => drop(self.judged(place)),
            What::Certificate(id, opened) => match self.trusted::<ManagedCertificate>(place, opened) {
                Some((certificate, sequence)) if certificate.id == id => {
                    self.keyring.certificates.put(CertificateEntry { certificate, stamp: stamp(sequence) });
                }
                _ => self.keyring.certificates.quarantine(id),
            },
            What::Authority(opened) => {
                if let Some((authority, sequence)) = self.trusted::<Authority>(place, opened) {
                    let entry = AuthorityEntry { authority, stamp: stamp(sequence) };
                    self.keyring.certificates.authorities.put(entry);
                }
            }
            What::Crl(opened) => {
                if let Some((record, sequence)) = self.trusted::<CrlRecord>(place, opened) {
                    let (authority, entry) = CrlEntry::of(record, stamp(sequence));
                    self.keyring.certificates.authorities.put_crl(authority, entry);
                }
            }
            What::AccessKey(opened) => {
                self.has_access_keys = true;
                if let Some((key, sequence)) = self.trusted::<AccessKey>(place, opened) {
                    self.access_stamps.insert(path.to_owned(), stamp(sequence));
                    self.access.access_keys.insert(key.id.clone(), Arc::new(key));
                }
            }
            What::AccessEpoch(opened) => {
                self.trusted_access(place, opened, revision);
            }
            What::Aap(opened) => {
                let trusted = self.trusted_access(place, opened, revision);
                self.access.aaps.extend(trusted);
            }
            What::ClientKey(opened) => {
                let trusted = self.trusted_access(place, opened, revision);
                self.access.client_keys.extend(trusted);
            }
            What::Policy(opened) => {
                let trusted = self.trusted_access(place, opened, revision);
                self.access.policies.extend(trusted);
            }
            What::NetworkRule(opened) => {
                let trusted = self.trusted_access(place, opened, revision);
                self.access.network_rules.extend(trusted);
            }
            What::Role(opened) => {
                let trusted = self.trusted_access(place, opened, revision);
                self.access.roles.extend(trusted);
            }
            What::AcmeAccount(opened) => {
                if let Some((account, sequence)) = self.trusted(place, opened) {
                    self.acme.stamps.insert(path.to_owned(), stamp(sequence));
                    self.acme.accounts.push(account);
                }
            }
            What::AcmeOrder(opened) => {
                if let Some((order, sequence)) = self.trusted(place, opened) {
                    self.acme.stamps.insert(path.to_owned(), stamp(sequence));
                    self.acme.orders.push(order);
                }
            }
            What::Instance(opened) => {
                if let Some((instance, sequence)) = self.trusted(place, opened) {
                    self.instances.stamps.insert(path.to_owned(), stamp(sequence));
                    self.instances.instances.push(instance);
                }
            }
            What::Approval(opened) => {
                let trusted = self.trusted_access(place, opened, revision);
                self.access.approvals.extend(trusted);
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

    /// Sees that what takes the place of a refused record is newer than what is remembered of it.
    fn surpass(&mut self, path: &str, remembered: Option<Remembered>) {
        self.ended.extend(remembered.map(|known| (path.to_string(), Ended::gone(known.sequence))));
    }

    /// Takes note that a record ended.
    fn ended(&mut self, Place { path, .. }: Place<'_>, opened: Opened<EndedRecord>, revision: Revision) {
        let known = self.stamps.recall(path);
        let (record, sequence) = match opened {
            Ok(opened) => opened,
            Err(why) => {
                self.surpass(path, known);
                return self.reject(path, &why);
            }
        };
        match judge_end(known, sequence) {
            Judgement::Fine => {}
            Judgement::Unrecorded => {
                self.unrecorded.push(RecordStamp { path: path.to_owned(), sequence, tag: String::new() });
            }
            Judgement::Rejected(why) => {
                self.surpass(path, known);
                return self.reject(path, why);
            }
        }
        self.ended.insert(path.to_owned(), Ended::marked(Stamp { revision, sequence }, record.at));
    }

    /// Judges a record without opening it; returns its sequence number and tag where it is trusted.
    fn judged(&mut self, Place { path, mark }: Place<'_>) -> Option<(u64, Tag)> {
        let known = self.stamps.recall(path);
        let Some((sequence, tag)) = mark else {
            self.reject(path, "the record is cut");
            return None;
        };
        self.verdict(path, known, sequence, tag)
    }

    /// Judges a record against what is remembered of it, and notes what is to be said.
    fn verdict(
        &mut self,
        path: &str,
        known: Option<Remembered>,
        sequence: u64,
        tag: Tag,
    ) -> Option<(u64, Tag)> {
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

    /// The same of one of the policy actor's, whose stamp is kept.
    fn trusted_access<T>(&mut self, place: Place<'_>, opened: Opened<T>, revision: Revision) -> Option<T> {
        let path = place.path;
        let (record, sequence) = self.trusted(place, opened)?;
        self.access_stamps.insert(path.to_owned(), Stamp { revision, sequence });
        Some(record)
    }

    /// Judges a record that was opened; returns it with its sequence number where it is trusted.
    fn trusted<T>(&mut self, place: Place<'_>, opened: Opened<T>) -> Option<(T, u64)> {
        match opened {
            Ok((record, sequence)) => self.judged(place).map(|_| (record, sequence)),
            Err(why) => {
                let known = self.stamps.recall(place.path);
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
