//! What is made of each record that was read: judged by what the audit remembers of it, and published or quarantined.

use std::collections::HashMap;
use std::sync::Arc;

use keymill_core::access::{
    Aap, AccessKey, AccessSnapshot, Approval, ClientKey, CustomRole, NetworkRule, PermissionPolicy,
};
use keymill_core::audit::RecordStamp;
use keymill_core::certificate::{Authority, ManagedCertificate};
use keymill_core::id::{AccessKeyId, CmkId, NameMap};
use keymill_core::key::ManagedDataKey;
use keymill_core::seam::store::Revision;
use keymill_core::secret::Secret;
use keymill_crypto::audit::{Remembered, Stamps};
use keymill_crypto::digest;

use super::{AcmeRecords, InstanceRecords, Judgement, forget_invocations, judge, judge_end};
use crate::actor::keyring::Parameters;
use crate::assembly::Tag;
use crate::authorities::{AuthorityEntry, CrlEntry};
use crate::certificates::CertificateEntry;
use crate::keyring::{AliasEntry, DataKeyEntry, Ended, Keyring, Stamp, Uses};
use crate::records::{
    self, AliasRecord, CrlRecord, EndedRecord, ImportRecord, InvocationsRecord, UsageRecord,
};
use crate::scan::{Found, Opened, What};
use crate::secrets::SecretEntry;

/// Judges records as they come, in any order.
pub(super) struct Loader<'a> {
    pub(super) keyring: &'a Keyring,
    /// This node, where it is one of several.
    pub(super) node: Option<&'a str>,
    /// What is remembered of records that were not come upon yet, and of those that ended.
    pub(super) stamps: Stamps,
    pub(super) unrecorded: Vec<RecordStamp>,
    pub(super) quarantined: Vec<(String, String)>,
    /// Those of them that the audit remembers otherwise than they stand.
    pub(super) lost: Vec<String>,
    /// What is remembered of records that were refused, and what stands where records ended: what takes their place is newer.
    pub(super) ended: HashMap<String, Ended>,
    pub(super) usages: Vec<(CmkId, UsageRecord)>,
    pub(super) usage_stamps: HashMap<CmkId, Stamp>,
    /// Without a record where it failed its check.
    pub(super) invocations: Vec<(CmkId, Option<InvocationsRecord>)>,
    pub(super) invocation_stamps: HashMap<CmkId, Stamp>,
    pub(super) imports: HashMap<CmkId, Parameters>,
    pub(super) access: Access,
    pub(super) access_stamps: HashMap<String, Stamp>,
    pub(super) has_access_keys: bool,
    pub(super) acme: AcmeRecords,
    pub(super) instances: InstanceRecords,
}

/// Who may do what, as it was read: what names something else may come before it.
#[derive(Default)]
pub(super) struct Access {
    access_keys: NameMap<AccessKeyId, Arc<AccessKey>>,
    aaps: Vec<Aap>,
    client_keys: Vec<ClientKey>,
    policies: Vec<PermissionPolicy>,
    network_rules: Vec<NetworkRule>,
    roles: Vec<CustomRole>,
    approvals: Vec<Approval>,
}

impl Access {
    pub(super) fn published(self) -> AccessSnapshot {
        let Self { access_keys, aaps, client_keys, policies, network_rules, roles, approvals } = self;
        AccessSnapshot::of(access_keys, client_keys, aaps, policies, network_rules, roles, approvals)
    }
}

impl<'a> Loader<'a> {
    pub(super) fn new(keyring: &'a Keyring, stamps: Stamps, node: Option<&'a str>) -> Self {
        Self {
            keyring,
            node,
            stamps,
            unrecorded: Vec::new(),
            quarantined: Vec::new(),
            lost: Vec::new(),
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
    pub(super) fn cmk(&mut self, id: &CmkId, sequence: u64, tag: Tag) {
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
    pub(super) fn material(&mut self, id: &CmkId, number: u32, sequence: u64, tag: Tag) {
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

    pub(super) fn take(&mut self, Found { path, mark, revision, what }: Found<'_>) {
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
    pub(super) fn count(&mut self) {
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
                self.lost.push(path.to_owned());
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
                self.lost.push(path.to_owned());
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
