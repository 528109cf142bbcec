//! Certificates: what they are is kept under one record, and their bytes under another. The key of one is a CMK that nothing else leads to: it is
//! made first, since it signs what asks for the certificate, and goes again where that fails.

use std::sync::Arc;

use actix::{Context, Handler, Message};
use keymill_core::certificate::{CertificateFacts, CertificateStatus, ManagedCertificate, RevocationReason};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{CertificateId, CmkId};
use keymill_core::key::check_tags;
use keymill_core::time::Timestamp;

use super::{CreateCmk, Draft, KeyringActor, touched};
use crate::actor::Changed;
use keymill_crypto::record::sequence_of;

use crate::certificates::CertificateEntry;
use crate::keyring::{CmkEntry, Stamp};
use crate::load;
use crate::records::{self, CertificateBodyRecord, Kind};

/// Makes the CMK that is the key of a certificate that is yet to be put.
pub(crate) struct CreateCertificateKey(pub(crate) CreateCmk, pub(crate) CertificateId);

/// Takes such a CMK back: its certificate does not come.
pub(crate) struct EndCertificateKey(pub(crate) CmkId);

/// Keeps new certificates with their bytes, all or none.
pub(crate) struct PutCertificates(pub(crate) Vec<(ManagedCertificate, CertificateBodyRecord)>);

/// Changes a certificate.
pub(crate) struct ChangeCertificate {
    pub(crate) id: CertificateId,
    pub(crate) change: CertificateChange,
}

/// What an authority elsewhere signed.
pub(crate) struct Uploaded {
    pub(crate) facts: CertificateFacts,
    pub(crate) certificate: Vec<u8>,
    pub(crate) chain: Vec<Vec<u8>>,
    /// What was kept before.
    pub(crate) before: CertificateBodyRecord,
}

/// What is changed.
pub(crate) enum CertificateChange {
    /// What an authority signed, with those that signed it.
    Upload(Box<Uploaded>),
    /// The state.
    Status(CertificateStatus),
    /// Puts tags on it; those of the same name are replaced.
    Tag(Vec<(String, String)>),
    /// Takes tags off.
    Untag(Vec<String>),
}

/// Ends a certificate with its bytes and its key.
pub(crate) struct EndCertificate(pub(crate) CertificateId);

/// How long before a process was last seen a key may have been made whose certificate never came.
const STRAY: std::time::Duration = std::time::Duration::from_secs(3_600);

/// How long the making of a certificate may take, from its key on.
const IN_THE_MAKING: std::time::Duration = std::time::Duration::from_secs(600);

macro_rules! messages {
    ($($message:ty => $result:ty;)*) => {
        $(impl Message for $message { type Result = Result<$result>; })*
    };
}

messages! {
    CreateCertificateKey => Changed<Arc<CmkEntry>>;
    EndCertificateKey => Changed<()>;
    PutCertificates => Changed<Vec<Arc<CertificateEntry>>>;
    ChangeCertificate => Changed<Arc<CertificateEntry>>;
    EndCertificate => Changed<()>;
}

impl KeyringActor {
    /// Drafts a certificate, and its bytes where they are given; the certificate comes first.
    pub(super) fn drafts_of_certificate(
        &self,
        before: Option<Stamp>,
        certificate: &mut ManagedCertificate,
        body: Option<&CertificateBodyRecord>,
    ) -> Result<Vec<Draft>> {
        let mut drafts = Vec::with_capacity(2);
        if let Some(body) = body {
            let path = records::certificate_body_path(&certificate.id);
            // Where the certificate is new, its id was drawn, and nothing ever stood under it.
            let standing = before.map(|_| self.standing(&path)).transpose()?.flatten();
            let draft = self.draft(path, Kind::CertificateBody, standing, body)?;
            let tag = draft.tag();
            certificate.body_tag = tag.ok_or_else(|| Error::internal("a sealed record has a tag"))?;
            drafts.push(draft);
        }
        let path = records::certificate_path(&certificate.id);
        drafts.insert(0, self.draft(path, Kind::Certificate, before, certificate)?);
        Ok(drafts)
    }

    /// Drafts the end of a certificate with its bytes.
    pub(super) fn drafts_of_certificate_end(&self, entry: &CertificateEntry) -> Result<Vec<Draft>> {
        let id = entry.certificate.id;
        let mut drafts = vec![Draft::removal(&self.shared, records::certificate_path(&id), entry.stamp)?];
        drafts.extend(self.removal_of(records::certificate_body_path(&id))?);
        Ok(drafts)
    }

    /// Drafts the end of a key of a certificate, with its material and its counts.
    pub(super) fn drafts_of_key_end(&self, entry: &CmkEntry) -> Result<Vec<Draft>> {
        let id = entry.cmk.id;
        let mut drafts = vec![Draft::removal(&self.shared, records::cmk_path(&id), entry.stamp)?];
        for version in &entry.versions {
            drafts.extend(self.removal_of(records::material_path(&id, version.number))?);
        }
        drafts.extend(self.drafts_of_counts_end(&id)?);
        Ok(drafts)
    }

    /// Drafts the end of what is counted of a key, by whichever node.
    pub(super) fn drafts_of_counts_end(&self, id: &CmkId) -> Result<Vec<Draft>> {
        let invocations = self.invocation_stamps.get(id).map(|stamp| (records::invocations_path(id), *stamp));
        let usage =
            self.usage_stamps.get(id).map(|stamp| (records::usage_path(id, self.shared.node()), *stamp));
        let mut counted: Vec<_> = invocations.into_iter().chain(usage).collect();
        if self.shared.cluster.is_some() {
            let own = counted.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
            load::each(&*self.shared.store, &format!("usage/{id}/"), |entry| {
                let sequence = sequence_of(&entry.value).unwrap_or(0);
                if !own.contains(&entry.path) && !records::says_ended(&entry.value) {
                    counted.push((entry.path, Stamp { revision: entry.revision, sequence }));
                }
            })?;
        }
        counted.into_iter().map(|(path, stamp)| Draft::removal(&self.shared, path, stamp)).collect()
    }

    pub(super) fn forget_key(&mut self, entry: &CmkEntry) {
        let id = entry.cmk.id;
        self.usage_stamps.remove(&id);
        self.invocation_stamps.remove(&id);
        self.shared.forget(entry);
        self.shared.keyring.remove(&id);
    }

    fn end_key(&mut self, entry: &CmkEntry) -> Result<Changed<()>> {
        let drafts = self.drafts_of_key_end(entry)?;
        let (_, writes) = self.commit(drafts)?;
        self.forget_key(entry);
        Ok(Changed { value: (), keys: touched(entry), writes })
    }

    /// Ends keys of certificates that were never put: the process ended between the two.
    pub(super) fn end_stray_keys(&mut self) -> Result<()> {
        let keyring = &self.shared.keyring;
        let keys: Vec<_> = keyring.certificates.keys().iter().filter_map(|id| keyring.cmk(id)).collect();
        for entry in keys {
            let Some(id) = entry.cmk.certificate.as_deref() else { continue };
            let certificates = &self.shared.keyring.certificates;
            if certificates.certificate(id).is_some() || certificates.is_quarantined(id) {
                continue;
            }
            // Another node may be about to make it.
            let is_young = entry.cmk.created_at.plus(IN_THE_MAKING) > self.shared.clock.now();
            if is_young && self.shared.cluster.is_some() {
                continue;
            }
            // One that was left over was made just before the process ended. An older one has lost its certificate, and may be all that is left of an
            // authority.
            let last_seen = Timestamp::from_ms(self.installation.seen_ms);
            if entry.cmk.created_at.plus(STRAY) < last_seen {
                tracing::error!(key = %entry.cmk.id, certificate = %id, "the record of a certificate is missing: its key is kept");
                self.shared.keyring.certificates.quarantine(*id);
                continue;
            }
            let writes = self.end_key(&entry)?.writes;
            tracing::warn!(key = %entry.cmk.id, certificate = %id, "the key of a certificate that was never made was deleted");
            self.record("DeleteKey", "its certificate was never made", &entry, writes)?;
        }
        Ok(())
    }
}

impl CertificateChange {
    /// Returns what becomes of a certificate, and of its bytes where they change.
    ///
    /// # Errors
    /// `StateConflict` where its state does not allow it, `LimitExceeded` for too many tags.
    fn apply(
        self,
        mut certificate: ManagedCertificate,
        now: Timestamp,
    ) -> Result<(ManagedCertificate, Option<CertificateBodyRecord>)> {
        certificate.updated_at = now;
        let mut body = None;
        match self {
            CertificateChange::Upload(uploaded) => {
                let Uploaded { facts, certificate: leaf, chain, before } = *uploaded;
                certificate.check_upload()?;
                certificate.subject = facts.subject.clone();
                certificate.facts = Some(facts);
                if certificate.status == CertificateStatus::Pending {
                    certificate.status = CertificateStatus::Active;
                }
                let chain = chain.into_iter().map(Into::into).collect();
                body = Some(CertificateBodyRecord { certificate: Some(leaf.into()), chain, ..before });
            }
            CertificateChange::Status(CertificateStatus::Revoked) => {
                certificate.revoke(RevocationReason::Unspecified, now)?;
            }
            CertificateChange::Status(to) => certificate.status = certificate.status.changed_to(to)?,
            CertificateChange::Tag(tags) => {
                certificate.tags.extend(tags);
                check_tags(&certificate.tags)?;
            }
            CertificateChange::Untag(names) => {
                names.iter().for_each(|name| drop(certificate.tags.remove(name)));
            }
        }
        Ok((certificate, body))
    }
}

impl Handler<CreateCertificateKey> for KeyringActor {
    type Result = Result<Changed<Arc<CmkEntry>>>;

    fn handle(&mut self, message: CreateCertificateKey, _: &mut Context<Self>) -> Self::Result {
        let CreateCertificateKey(create, certificate) = message;
        self.create(create, super::Owner::Certificate(certificate))
    }
}

impl Handler<EndCertificateKey> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, EndCertificateKey(id): EndCertificateKey, _: &mut Context<Self>) -> Self::Result {
        let entry = self.entry(&id)?;
        self.end_key(&entry)
    }
}

impl Handler<PutCertificates> for KeyringActor {
    type Result = Result<Changed<Vec<Arc<CertificateEntry>>>>;

    fn handle(&mut self, PutCertificates(new): PutCertificates, _: &mut Context<Self>) -> Self::Result {
        self.put_certificates(new)
    }
}

impl KeyringActor {
    /// Commits new certificates with their bytes, all or none, and publishes them.
    pub(super) fn put_certificates(
        &mut self,
        new: Vec<(ManagedCertificate, CertificateBodyRecord)>,
    ) -> Result<Changed<Vec<Arc<CertificateEntry>>>> {
        let max = self.shared.max_records.read().certificates;
        if self.shared.keyring.certificates.len() + new.len() > max {
            let why = format!("there are to be no more than {max} certificates, which is the limit");
            return Err(Error::new(ErrorKind::LimitExceeded(Limit::Certificates), why));
        }
        let (mut drafts, mut made, mut keys) = (Vec::new(), Vec::with_capacity(new.len()), Vec::new());
        for (mut certificate, body) in new {
            if let Some(cmk) = &certificate.cmk {
                keys.extend(touched(&*self.entry(cmk)?));
            }
            let at = drafts.len();
            drafts.extend(self.drafts_of_certificate(None, &mut certificate, Some(&body))?);
            made.push((certificate, at));
        }
        let (revision, writes) = self.commit(drafts)?;
        let mut value = Vec::with_capacity(made.len());
        for (certificate, at) in made {
            let stamp = Stamp { revision, sequence: writes[at].sequence };
            value.push(self.shared.keyring.certificates.put(CertificateEntry { certificate, stamp }));
        }
        Ok(Changed { value, keys, writes })
    }
}

impl Handler<ChangeCertificate> for KeyringActor {
    type Result = Result<Changed<Arc<CertificateEntry>>>;

    fn handle(&mut self, message: ChangeCertificate, _: &mut Context<Self>) -> Self::Result {
        let ChangeCertificate { id, change } = message;
        let before = self.shared.keyring.certificates.find(&id)?;
        if let CertificateChange::Status(to) = &change
            && before.certificate.status == *to
        {
            self.confirm(records::certificate_path(&id), before.stamp)?;
            return Ok(Changed { value: before, keys: Vec::new(), writes: Vec::new() });
        }
        let (certificate, body) = change.apply(before.certificate.clone(), self.shared.clock.now())?;
        self.keep_issued(&before, certificate, body)
    }
}

impl Handler<EndCertificate> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, EndCertificate(id): EndCertificate, _: &mut Context<Self>) -> Self::Result {
        let entry = self.shared.keyring.certificates.find(&id)?;
        if entry.certificate.is_authority {
            let why = "an authority signs by it: DeleteCertificateAuthority deletes both";
            return Err(Error::new(ErrorKind::ResourceInUse, why));
        }
        entry.certificate.check_end(self.shared.clock.now())?;
        let mut drafts = self.drafts_of_certificate_end(&entry)?;
        let key = entry.certificate.cmk.and_then(|cmk| self.shared.keyring.cmk(&cmk));
        if let Some(key) = &key {
            drafts.extend(self.drafts_of_key_end(key)?);
        }
        let (_, writes) = self.commit(drafts)?;
        self.shared.keyring.certificates.remove(&id);
        let keys = key.as_deref().map(touched).unwrap_or_default();
        key.iter().for_each(|key| self.forget_key(key));
        Ok(Changed { value: (), keys, writes })
    }
}
