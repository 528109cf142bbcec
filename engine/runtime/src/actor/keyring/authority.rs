//! Authorities: each is kept with the certificate that it signs by, what it issues as certificates like any other, and the newest list of what it
//! revoked under a record of its own, whose number only grows. What is signed is signed before it comes here.

use std::sync::Arc;

use actix::{Context, Handler, Message};
use keymill_core::certificate::{
    AccessPointNames, Authority, AuthorityState, CertificateFacts, CertificateProfile, CertificateStatus,
    IssuedSerial, Listed, ManagedCertificate, RevocationReason, Serial,
};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{AuthorityName, CertificateId};
use keymill_core::key::KeySpec;
use keymill_core::limit;

use super::{Draft, KeyringActor, touched};
use crate::actor::Changed;
use crate::audit::TimerTouch;
use crate::authorities::{AuthorityEntry, CrlEntry};
use crate::certificates::CertificateEntry;
use crate::keyring::Stamp;
use crate::records::{self, CertificateBodyRecord, CrlRecord, Kind};

/// Keeps a new authority with its certificate.
pub(crate) struct CreateAuthority {
    pub(crate) authority: Authority,
    pub(crate) certificate: ManagedCertificate,
    pub(crate) body: CertificateBodyRecord,
}

/// Puts the certificate to an authority that one elsewhere signed.
pub(crate) struct ActivateAuthority {
    pub(crate) name: AuthorityName,
    pub(crate) path_length: Option<u8>,
    pub(crate) facts: CertificateFacts,
    pub(crate) body: CertificateBodyRecord,
}

/// Keeps what an authority issued, all or none.
pub(crate) struct PutIssued {
    pub(crate) authority: AuthorityName,
    pub(crate) new: Vec<(ManagedCertificate, CertificateBodyRecord)>,
}

/// Changes an authority; what is none stays.
pub(crate) struct ChangeAuthority {
    pub(crate) name: AuthorityName,
    pub(crate) state: Option<AuthorityState>,
    pub(crate) crl_hours: Option<u32>,
    pub(crate) profiles: Option<Vec<CertificateProfile>>,
    pub(crate) access_points: Option<Vec<AccessPointNames>>,
}

/// Ends an authority with its certificate and key.
pub(crate) struct EndAuthority(pub(crate) AuthorityName);

/// Changes a certificate that an authority issued.
pub(crate) struct ChangeIssued {
    pub(crate) id: CertificateId,
    pub(crate) change: IssuedChange,
}

/// What is changed.
pub(crate) enum IssuedChange {
    /// It is issued anew.
    Renew(Box<Renewed>),
    /// It is revoked; under one number, that alone where it is not the newest.
    Revoke(RevocationReason, Option<Serial>),
}

/// A certificate that was issued anew.
pub(crate) struct Renewed {
    pub(crate) serial: Serial,
    pub(crate) spec: Option<KeySpec>,
    pub(crate) validity_days: u32,
    pub(crate) facts: CertificateFacts,
    pub(crate) body: CertificateBodyRecord,
}

/// Keeps a list of what an authority revoked.
pub(crate) struct PutCrl {
    pub(crate) name: AuthorityName,
    pub(crate) listed: Listed,
    pub(crate) named: Vec<IssuedSerial>,
    pub(crate) der: Vec<u8>,
    pub(crate) seen: u64,
}

macro_rules! messages {
    ($($message:ty => $result:ty;)*) => {
        $(impl Message for $message { type Result = Result<$result>; })*
    };
}

messages! {
    CreateAuthority => Changed<Arc<AuthorityEntry>>;
    ActivateAuthority => Changed<Arc<AuthorityEntry>>;
    PutIssued => Changed<Vec<Arc<CertificateEntry>>>;
    ChangeAuthority => Changed<Arc<AuthorityEntry>>;
    EndAuthority => Changed<()>;
    ChangeIssued => Changed<Arc<CertificateEntry>>;
    PutCrl => Arc<CrlEntry>;
}

impl KeyringActor {
    fn authority(&self, name: &AuthorityName) -> Result<Arc<AuthorityEntry>> {
        self.shared.keyring.certificates.authorities.find(name)
    }

    fn draft_of_authority(&self, before: Option<Stamp>, authority: &Authority) -> Result<Draft> {
        self.draft(records::authority_path(&authority.name), Kind::Authority, before, authority)
    }

    /// Commits an authority, and its certificate where that changes with it, and publishes both; the certificate first, so that nobody finds an
    /// authority without it.
    fn keep_authority(
        &mut self,
        before: Option<Stamp>,
        authority: Authority,
        certificate: Option<(Option<Stamp>, ManagedCertificate, Option<CertificateBodyRecord>)>,
    ) -> Result<Changed<Arc<AuthorityEntry>>> {
        let mut drafts = vec![self.draft_of_authority(before, &authority)?];
        let certificate = match certificate {
            None => None,
            Some((before, mut certificate, body)) => {
                drafts.extend(self.drafts_of_certificate(before, &mut certificate, body.as_ref())?);
                Some(certificate)
            }
        };
        let (revision, writes) = self.commit(drafts)?;
        let stamp = |at: usize| Stamp { revision, sequence: writes[at].sequence };
        let certificates = &self.shared.keyring.certificates;
        if let Some(certificate) = certificate {
            certificates.put(CertificateEntry { certificate, stamp: stamp(1) });
        }
        let value = certificates.authorities.put(AuthorityEntry { authority, stamp: stamp(0) });
        let keys = self.keys_of(&value.authority.certificate);
        Ok(Changed { value, keys, writes })
    }

    fn keys_of(&self, id: &CertificateId) -> Vec<keymill_core::audit::KeyTouch> {
        let cmk = self.shared.keyring.certificates.certificate(id).and_then(|entry| entry.certificate.cmk);
        cmk.and_then(|cmk| self.shared.keyring.cmk(&cmk)).map(|entry| touched(&entry)).unwrap_or_default()
    }
}

impl Handler<CreateAuthority> for KeyringActor {
    type Result = Result<Changed<Arc<AuthorityEntry>>>;

    fn handle(&mut self, message: CreateAuthority, _: &mut Context<Self>) -> Self::Result {
        let CreateAuthority { authority, certificate, body } = message;
        let authorities = &self.shared.keyring.certificates.authorities;
        match authorities.find(&authority.name) {
            Ok(_) => return Err(authority_exists()),
            Err(error) if error.kind() == ErrorKind::ResourceNotFound => {}
            Err(error) => return Err(error),
        }
        if authorities.len() >= limit::AUTHORITIES {
            let why = format!("there are {} certificate authorities, which is the limit", limit::AUTHORITIES);
            return Err(Error::new(ErrorKind::LimitExceeded(Limit::Certificates), why));
        }
        if let Some(parent) = &authority.parent {
            // Once more: it may have been disabled since it signed.
            authorities.check_issuing(parent)?;
        }
        // One of the name was there before: what takes its place is newer.
        let stamp = self.standing(&records::authority_path(&authority.name))?;
        self.keep_authority(stamp, authority, Some((None, certificate, Some(body))))
    }
}

impl Handler<ActivateAuthority> for KeyringActor {
    type Result = Result<Changed<Arc<AuthorityEntry>>>;

    fn handle(&mut self, message: ActivateAuthority, _: &mut Context<Self>) -> Self::Result {
        let ActivateAuthority { name, path_length, facts, body } = message;
        let before = self.authority(&name)?;
        if before.authority.state != AuthorityState::Pending {
            return Err(Error::new(ErrorKind::StateConflict, "the authority has its certificate already"));
        }
        let of = self.shared.keyring.certificates.find(&before.authority.certificate)?;
        let now = self.shared.clock.now();
        let authority = Authority {
            state: AuthorityState::Enabled,
            path_length,
            updated_at: now,
            ..before.authority.clone()
        };
        let certificate = ManagedCertificate {
            status: CertificateStatus::Active,
            subject: facts.subject.clone(),
            facts: Some(facts),
            updated_at: now,
            ..of.certificate.clone()
        };
        self.keep_authority(Some(before.stamp), authority, Some((Some(of.stamp), certificate, Some(body))))
    }
}

impl Handler<PutIssued> for KeyringActor {
    type Result = Result<Changed<Vec<Arc<CertificateEntry>>>>;

    fn handle(&mut self, PutIssued { authority, new }: PutIssued, _: &mut Context<Self>) -> Self::Result {
        // Once more: it may have been disabled since it signed; what nobody has been given is as if it had never been signed.
        self.shared.keyring.certificates.authorities.check_issuing(&authority)?;
        self.put_certificates(new)
    }
}

impl Handler<ChangeAuthority> for KeyringActor {
    type Result = Result<Changed<Arc<AuthorityEntry>>>;

    fn handle(&mut self, message: ChangeAuthority, _: &mut Context<Self>) -> Self::Result {
        let ChangeAuthority { name, state, crl_hours, profiles, access_points } = message;
        let before = self.authority(&name)?;
        let mut authority = before.authority.clone();
        if let Some(state) = state {
            authority.state = authority.state_after(state)?;
        }
        authority.crl_hours = crl_hours.unwrap_or(authority.crl_hours);
        authority.profiles = profiles.unwrap_or(authority.profiles);
        authority.access_points = access_points.unwrap_or(authority.access_points);
        authority.check()?;
        authority.updated_at = self.shared.clock.now();
        self.keep_authority(Some(before.stamp), authority, None)
    }
}

impl Handler<EndAuthority> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, EndAuthority(name): EndAuthority, _: &mut Context<Self>) -> Self::Result {
        let before = self.authority(&name)?;
        let certificates = &self.shared.keyring.certificates;
        if before.authority.state == AuthorityState::Enabled {
            return Err(Error::new(ErrorKind::StateConflict, "the authority is Enabled: disable it first"));
        }
        let authorities = &certificates.authorities;
        if authorities.all().iter().any(|other| other.authority.parent.as_ref() == Some(&name)) {
            return Err(Error::new(ErrorKind::ResourceInUse, "another authority stands below it"));
        }
        let own = certificates.certificate(&before.authority.certificate);
        let is_root = before.authority.parent.is_none();
        let (alive, revoked) = authorities.counts(&name, self.shared.clock.now());
        // A root's own certificate is the first that it issued.
        let own_alive =
            u64::from(is_root && own.as_ref().is_some_and(|own| own.certificate.issuance.is_some()));
        if alive - revoked > own_alive {
            let why = format!(
                "{} certificates that it issued are valid: revoke them, or wait for their ends",
                alive - revoked - own_alive
            );
            return Err(Error::new(ErrorKind::ResourceInUse, why));
        }
        let is_disowned =
            !is_root && own.as_ref().is_some_and(|own| own.certificate.status == CertificateStatus::Revoked);
        if !is_disowned && authorities.has_to_tell(&name, self.shared.clock.now()) {
            let why = "what it revoked has not ended, and nobody would say so any more: wait for the ends, or have its own certificate revoked";
            return Err(Error::new(ErrorKind::ResourceInUse, why));
        }
        let mut drafts = vec![Draft::removal(&self.shared, records::authority_path(&name), before.stamp)?];
        if let Some(crl) = authorities.crl(&name) {
            drafts.push(Draft::removal(&self.shared, records::crl_path(&name), crl.stamp)?);
        }
        let ended = match &own {
            // Its parent still answers for it: the certificate stays until then, without its key.
            Some(own) if !is_root && own.certificate.check_end(self.shared.clock.now()).is_err() => None,
            Some(own) => Some(own.certificate.id),
            None => None,
        };
        let key =
            own.as_ref().and_then(|own| own.certificate.cmk).and_then(|cmk| self.shared.keyring.cmk(&cmk));
        let mut kept = None;
        match (&own, ended) {
            (Some(own), Some(_)) => drafts.extend(self.drafts_of_certificate_end(own)?),
            (Some(own), None) => {
                let mut certificate = ManagedCertificate { cmk: None, ..own.certificate.clone() };
                kept = Some((drafts.len(), certificate.clone()));
                drafts.extend(self.drafts_of_certificate(Some(own.stamp), &mut certificate, None)?);
            }
            (None, _) => {}
        }
        if let Some(key) = &key {
            drafts.extend(self.drafts_of_key_end(key)?);
        }
        let (revision, writes) = self.commit(drafts)?;
        let certificates = &self.shared.keyring.certificates;
        certificates.authorities.remove(&name);
        if let Some(id) = ended {
            certificates.remove(&id);
        }
        if let Some((at, certificate)) = kept {
            let stamp = Stamp { revision, sequence: writes[at].sequence };
            certificates.put(CertificateEntry { certificate, stamp });
        }
        let keys = key.as_deref().map(touched).unwrap_or_default();
        key.iter().for_each(|key| self.forget_key(key));
        Ok(Changed { value: (), keys, writes })
    }
}

impl Handler<ChangeIssued> for KeyringActor {
    type Result = Result<Changed<Arc<CertificateEntry>>>;

    fn handle(&mut self, ChangeIssued { id, change }: ChangeIssued, _: &mut Context<Self>) -> Self::Result {
        let certificates = &self.shared.keyring.certificates;
        let (before, now) = (certificates.find(&id)?, self.shared.clock.now());
        let mut certificate = before.certificate.clone();
        let issuance = certificate.issuance.as_mut().ok_or_else(not_issued)?;
        certificates.authorities.find(&issuance.authority)?;
        certificate.updated_at = now;
        let body = match change {
            IssuedChange::Renew(renewed) => {
                let Renewed { serial, spec, validity_days, facts, body } = *renewed;
                certificates.authorities.check_issuing(&issuance.authority)?;
                issuance.renew(serial, facts.validity, now)?;
                issuance.validity_days = validity_days;
                certificate.spec = spec;
                certificate.facts = Some(facts);
                Some(body)
            }
            IssuedChange::Revoke(reason, serial) => {
                let is_revoked = match &serial {
                    Some(serial) => issuance.revocation_of(serial),
                    None => issuance.revocation(),
                };
                if is_revoked.is_some() {
                    self.confirm(records::certificate_path(&before.certificate.id), before.stamp)?;
                    return Ok(Changed { value: before, keys: Vec::new(), writes: Vec::new() });
                }
                match serial {
                    Some(serial) => certificate.revoke_serial(&serial, reason, now)?,
                    None => certificate.revoke(reason, now)?,
                }
                None
            }
        };
        self.keep_issued(&before, certificate, body)
    }
}

impl KeyringActor {
    /// Commits a changed certificate that an authority issued; where it is revoked, and another authority's own, that one issues no more.
    pub(super) fn keep_issued(
        &mut self,
        before: &CertificateEntry,
        mut certificate: ManagedCertificate,
        body: Option<CertificateBodyRecord>,
    ) -> Result<Changed<Arc<CertificateEntry>>> {
        let authorities = &self.shared.keyring.certificates.authorities;
        let signing = authorities.signing_by(&certificate.id);
        let is_revoked = certificate.status == CertificateStatus::Revoked;
        if let Some(signing) =
            signing.filter(|signing| is_revoked && signing.authority.state != AuthorityState::Revoked)
        {
            if signing.authority.parent.is_none() {
                let why = "nobody would be told that a root is revoked: disable it, and take it out of where it is trusted";
                return Err(Error::new(ErrorKind::StateConflict, why));
            }
            let authority = Authority {
                state: AuthorityState::Revoked,
                updated_at: certificate.updated_at,
                ..signing.authority.clone()
            };
            let id = certificate.id;
            let kept = Some((Some(before.stamp), certificate, body));
            let Changed { keys, writes, .. } = self.keep_authority(Some(signing.stamp), authority, kept)?;
            let value = self.shared.keyring.certificates.find(&id)?;
            return Ok(Changed { value, keys, writes });
        }
        let drafts = self.drafts_of_certificate(Some(before.stamp), &mut certificate, body.as_ref())?;
        let (revision, writes) = self.commit(drafts)?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let value = self.shared.keyring.certificates.put(CertificateEntry { certificate, stamp });
        Ok(Changed { value, keys: Vec::new(), writes })
    }
}

impl Handler<PutCrl> for KeyringActor {
    type Result = Result<Arc<CrlEntry>>;

    fn handle(&mut self, message: PutCrl, _: &mut Context<Self>) -> Self::Result {
        let PutCrl { name, listed, named, der, seen } = message;
        let entry = self.authority(&name)?;
        let authorities = &self.shared.keyring.certificates.authorities;
        let before = authorities.crl(&name);
        if before.as_ref().is_some_and(|before| before.listed.number >= listed.number) {
            return Err(Error::new(ErrorKind::Conflict, "a newer list was made meanwhile"));
        }
        let path = records::crl_path(&name);
        let stamp = match &before {
            Some(before) => Some(before.stamp),
            None => self.standing(&path)?,
        };
        let Listed { number, this_update, next_update } = listed;
        let kept = der.clone().into();
        let record =
            CrlRecord { authority: name.clone(), number, this_update, next_update, named, der: kept };
        let draft = self.draft(path, Kind::Crl, stamp, &record)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let authorities = &self.shared.keyring.certificates.authorities;
        let named = record.named.into_iter().map(|issued| (issued.serial, issued)).collect();
        let value = authorities.put_crl(name, CrlEntry { listed, named, der: der.into(), stamp, seen });
        let touch = TimerTouch::Certificate(entry.authority.certificate);
        self.record_touch("MakeRevocationList", "the list of its authority was due", touch, writes)?;
        Ok(value)
    }
}

pub(crate) fn authority_exists() -> Error {
    Error::new(ErrorKind::ResourceExists, "the name of the authority is taken")
}

pub(crate) fn not_issued() -> Error {
    Error::new(ErrorKind::StateConflict, "no authority of this installation issued the certificate")
}
