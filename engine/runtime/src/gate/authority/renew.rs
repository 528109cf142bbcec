//! Renewal and revocation of what authorities issued: asked for by callers, and of what is due, by itself.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::audit::Outcome;
use keymill_core::certificate::{
    AuthorityState, Decided, RenewalBackOff, RevocationReason, Serial, Wanted as Asked,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AuthorityName, CertificateId};
use keymill_core::operation::*;
use keymill_crypto::random;
use keymill_x509::{Certificate, pem};

use super::super::certificate::facts_of;
use super::super::manage::{Done, done};
use super::super::{Call, Gate};
use super::AuthorityPlan;
use super::issue::{Drafted, body, chain_pem, is_shortened, newest_of, read_csr, spec_of};
use super::life::whole_chain;
use super::publish::PATIENCE;
use crate::actor::Owners;
use crate::actor::keyring::{ChangeIssued, IssuedChange, Renewed, not_issued};
use crate::audit::ManagementRecord;
use crate::records::CertificateBodyRecord;
use crate::work::{Job, Served};

/// Certificates that are renewed by themselves at one look, at most.
const AT_ONCE: usize = 256;

/// A certificate that was signed anew, and what is given out above it.
struct Anew {
    change: Renewed,
    chain: Vec<Vec<u8>>,
}

impl Gate {
    pub(super) fn plan_revocation(
        &self,
        job: &mut Job,
        r: &RevokeCertificateRequest,
    ) -> Result<AuthorityPlan> {
        let right = Operation::RevokeCertificate;
        let (id, serial) = match r.named()? {
            Revoked::Certificate(id) => (id, None),
            Revoked::Serial(authority, serial) => {
                self.find_authority(job, &authority, right)?;
                let authorities = &self.0.shared.keyring.certificates.authorities;
                let issued = authorities.issued(&authority, &serial);
                (issued.ok_or_else(Error::certificate_not_found)?.id, Some(serial))
            }
        };
        let entry = self.issued_here(job, id, right)?;
        job.certificate = Some(id);
        let issuance = entry.certificate.issuance.as_ref().ok_or_else(not_issued)?;
        let authority = issuance.authority.clone();
        Ok(AuthorityPlan::Revoke { id, authority, serial, reason: r.reason.unwrap_or_default() })
    }

    pub(super) async fn revoke(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        (id, authority, serial, reason): (CertificateId, AuthorityName, Option<Serial>, RevocationReason),
        deadline: Instant,
    ) -> Result<Done> {
        let change = IssuedChange::Revoke(reason, serial);
        let changed = actors.keyring(ChangeIssued { id, change }).await?;
        let crl_number = self.list_soon(&authority, deadline).await;
        let issuance = changed.value.certificate.issuance.as_ref();
        let revocation = issuance.and_then(|issuance| match &serial {
            Some(serial) => issuance.revocation_of(serial),
            None => issuance.revocation(),
        });
        let revocation = revocation.ok_or_else(|| Error::internal("what was revoked is not"))?;
        let reply = RevokeCertificateReply {
            certificate_id: id,
            revocation_time: revocation.at,
            reason: revocation.reason,
            crl_number,
            request_id: call.request_id,
        };
        Ok(done(Reply::RevokeCertificate(reply), changed))
    }

    pub(super) async fn renew(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        (id, csr, days): (CertificateId, Option<String>, Option<u32>),
        deadline: Instant,
    ) -> Result<Done> {
        let Anew { change, chain } = self.sign_anew(call, id, csr.as_deref(), days, deadline).await?;
        let der = change.body.certificate.as_ref().map(|der| der.0.to_vec()).unwrap_or_default();
        let change = IssuedChange::Renew(Box::new(change));
        let changed = actors.keyring(ChangeIssued { id, change }).await?;
        let newest = newest_of(&changed.value)?;
        let reply = RenewCertificateReply {
            certificate_id: id,
            certificate: pem("CERTIFICATE", &der),
            certificate_chain: chain_pem(&chain),
            serial_number: newest.serial,
            not_before: newest.validity.not_before,
            not_after: newest.validity.not_after,
            is_shortened: is_shortened(&changed.value),
            request_id: call.request_id,
        };
        Ok(done(Reply::RenewCertificate(reply), changed))
    }

    /// Has a certificate signed anew: of the same subject and names, by the profile as it is now; an authority's, as it was made.
    async fn sign_anew(
        &self,
        call: &Call,
        id: CertificateId,
        csr: Option<&str>,
        days: Option<u32>,
        deadline: Instant,
    ) -> Result<Anew> {
        let entry = self.0.shared.keyring.certificates.find(&id)?;
        let certificate = &entry.certificate;
        let issuance = certificate.issuance.as_deref().ok_or_else(not_issued)?;
        if issuance.revocation().is_some() {
            return Err(Error::new(ErrorKind::StateConflict, "the certificate is revoked"));
        }
        let before = self.body_of(&entry)?;
        let old = before.certificate.as_ref().ok_or_else(|| Error::internal("what was issued has bytes"))?;
        let old = Certificate::read(&old.0)?;
        let (public_key, spec) = match csr {
            None => (old.public_key.clone(), certificate.spec),
            Some(_) if certificate.cmk.is_some() => {
                let why = "Csr: the key of the certificate is kept here, and stays";
                return Err(Error::new(ErrorKind::InvalidParameter, why));
            }
            Some(csr) => {
                let csr = read_csr(csr)?;
                let spec = spec_of(&csr)?;
                (csr.public_key, Some(spec))
            }
        };
        self.0.shared.keyring.certificates.authorities.check_key(&public_key)?;
        let office = Arc::new(self.office(&issuance.authority)?);
        self.check_signs(&office.entry)?;
        let days = days.unwrap_or(issuance.validity_days);
        let (serial, now) = (Serial::from_random(random::array()?), self.now());
        let of_authority = self.0.shared.keyring.certificates.authorities.signing_by(&id);
        let (read, chain) = match (&issuance.profile, of_authority) {
            (Some(profile), _) => {
                let profile = office.authority().profile(profile)?;
                let asked = Asked {
                    subject: Some(&issuance.subject),
                    alt_names: &issuance.alt_names,
                    key_spec: spec.ok_or_else(|| Error::internal("what was issued has a kind of key"))?,
                    validity_days: Some(days),
                    access_point: issuance.access_point.as_ref(),
                };
                let decided = office.decide(|issuer| issuer.decide(&profile, &asked, now))?;
                let drafted = Drafted { decided, serial, public_key, spec: asked.key_spec };
                let mut signed = self.sign_drafts(call, &office, vec![(drafted, ())], deadline).await?;
                let signed = signed.pop().ok_or_else(|| Error::internal("a certificate was not issued"))?;
                let (_, (), read) = signed;
                (read, office.chain())
            }
            (None, Some(own)) if own.authority.parent.is_none() => {
                let length = own.authority.path_length;
                let decided = Decided::of_root(&issuance.subject, days, length, now)?;
                let of = (&decided, serial, &public_key[..], &own.authority.constraints);
                (self.sign_root(call, &office.key, of, deadline).await?, Vec::new())
            }
            (None, Some(own)) => {
                let length = own.authority.path_length;
                let decided =
                    office.decide(|issuer| issuer.decide_authority(&issuance.subject, days, length, now))?;
                let of = (&decided, serial, &public_key[..], &own.authority.constraints);
                let der = self.sign_authority(call, &office, of, deadline).await?;
                (Certificate::read(&der)?, whole_chain(&office))
            }
            (None, None) => {
                let why = "the authority whose certificate it was is gone";
                return Err(Error::new(ErrorKind::StateConflict, why));
            }
        };
        let kept = CertificateBodyRecord { id, csr: before.csr, ..body(&read, &chain) };
        let change = Renewed { serial, spec, validity_days: days, facts: facts_of(&read), body: kept };
        Ok(Anew { change, chain })
    }

    /// Makes what authorities owe by now: lists that are due, and certificates that are to be renewed.
    pub(crate) async fn look_after_authorities(&self) {
        if !self.0.shared.keeps_time() {
            return;
        }
        let authorities = &self.0.shared.keyring.certificates.authorities;
        for entry in authorities.all() {
            let signs = matches!(entry.authority.state, AuthorityState::Enabled | AuthorityState::Disabled);
            if signs && self.is_list_due(&entry.authority.name) {
                self.list_soon(&entry.authority.name, Instant::now() + PATIENCE).await;
            }
        }
        let now = self.now();
        let due = authorities.due(now).into_iter().filter(|id| authorities.may_try(id, now));
        for id in due.take(AT_ONCE).collect::<Vec<_>>() {
            match self.renew_by_itself(id).await {
                Ok(()) => authorities.note_try(id, None),
                Err(error) => {
                    let back_off = RenewalBackOff::after(authorities.last_try(&id), self.now());
                    let failures = back_off.failures;
                    tracing::error!(certificate = %id, ?error, failures, again = %back_off.next_at, "a certificate could not be renewed");
                    self.0.shared.metrics.certificates.failed_renewals.inc();
                    authorities.note_try(id, Some(back_off));
                }
            }
        }
    }

    async fn renew_by_itself(&self, id: CertificateId) -> Result<()> {
        let call = self.call_by_itself()?;
        let deadline = Instant::now() + PATIENCE;
        let Anew { change, .. } = self.sign_anew(&call, id, None, None, deadline).await?;
        let change = IssuedChange::Renew(Box::new(change));
        let changed = self.0.actors.keyring(ChangeIssued { id, change }).await?;
        self.record(ManagementRecord {
            request: call.request_id,
            principal: Some(call.principal.access_key.clone()),
            source: None,
            frontend: call.frontend,
            operation: Operation::RenewCertificate.name(),
            outcome: Outcome::Done,
            rule: "due to be renewed".into(),
            keys: changed.keys,
            secrets: Vec::new(),
            certificates: vec![id],
            approved_by: None,
            served: Served::default(),
            micros: call.received.elapsed().as_micros() as u64,
            writes: changed.writes,
        })
        .await
    }
}
