//! Authorities at the gate: found by name and by the right to them; what each issues is decided by a pure rule, signed by its key in the lanes like
//! all that is signed, and kept by the keyring actor.

mod issue;
mod life;
mod listener;
mod publish;
mod renew;
mod told;

use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::{Decision, Principal, Resource};
use keymill_core::certificate::{
    Authority, CertificateStatus, DistinguishedName, Issuer, NameConstraints, RevocationReason, Serial, Urls,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AuthorityName, CertificateId};
use keymill_core::key::SignAlgorithm;
use keymill_core::operation::*;
use keymill_x509::Certificate;

pub use listener::OfListener;
pub(super) use publish::PATIENCE;
pub use publish::Published;

use super::manage::Done;
use super::plan::Plan;
use super::{Call, Gate};
use crate::actor::Owners;
use crate::actor::keyring::ChangeAuthority;
use crate::authorities::{AuthorityEntry, Signer};
use crate::certificates::CertificateEntry;
use crate::keyring::CmkEntry;
use crate::work::Job;

/// Whom the audit names where an authority signs by itself: lists, answers, and what is due to be renewed.
const BY_ITSELF: &str = "keymill.authority";

/// What an operation on authorities comes to.
pub(super) enum AuthorityPlan {
    Create(Box<life::WantedAuthority>),
    Activate(Box<life::Signed>),
    Change(ChangeAuthority),
    End(AuthorityName),
    Issue(Box<issue::WantedIssue>),
    IssueMany(BatchIssueCertificateRequest),
    Renew(RenewCertificateRequest),
    Revoke { id: CertificateId, authority: AuthorityName, serial: Option<Serial>, reason: RevocationReason },
}

/// An authority as it signs: with its key, its certificate, and what holds above it.
pub(super) struct Office {
    pub(super) entry: Arc<AuthorityEntry>,
    pub(super) signer: Arc<Signer>,
    pub(super) key: Arc<CmkEntry>,
    pub(super) algorithm: SignAlgorithm,
    pub(super) urls: Urls,
    above: Vec<Arc<AuthorityEntry>>,
}

impl Office {
    pub(super) fn authority(&self) -> &Authority {
        &self.entry.authority
    }

    /// Has a rule decide for it.
    pub(super) fn decide<T>(&self, rule: impl FnOnce(&Issuer<'_>) -> Result<T>) -> Result<T> {
        let above: Vec<&NameConstraints> =
            self.above.iter().map(|entry| &entry.authority.constraints).collect();
        rule(&Issuer {
            authority: &self.entry.authority,
            subject: &self.signer.subject,
            validity: self.signer.certificate.validity,
            above: &above,
        })
    }

    /// Returns what is given out beside what it signs: its own certificate and those above, without the root, which who verifies has.
    pub(super) fn chain(&self) -> Vec<Vec<u8>> {
        let own = &self.signer.certificate;
        let mut chain = Vec::with_capacity(self.signer.chain.len() + 1);
        if !own.is_self_issued() {
            chain.push(own.der.clone());
        }
        let is_root = |der: &&Vec<u8>| Certificate::read(der).is_ok_and(|read| read.is_self_issued());
        chain.extend(self.signer.chain.iter().filter(|der| !is_root(der)).cloned());
        chain
    }
}

impl Gate {
    /// Finds an authority, if the caller may do `right` with it; one that it may not looks like one that is not there.
    pub(super) fn find_authority(
        &self,
        job: &mut Job,
        name: &AuthorityName,
        right: Operation,
    ) -> Result<Arc<AuthorityEntry>> {
        let Decision { allowed, rule } = self.decide(job, right, Resource::Authority(name));
        job.rule = Some(rule);
        if !allowed {
            return Err(Error::authority_not_found());
        }
        self.0.shared.keyring.certificates.authorities.find(name)
    }

    /// Authorises an operation on authorities and checks its parameters.
    pub(super) fn plan_authority(&self, job: &mut Job, request: Request<'_>) -> Result<Plan> {
        let plan = match request {
            Request::CreateCertificateAuthority(r) => self.plan_new_authority(job, r)?,
            Request::ActivateCertificateAuthority(r) => self.plan_activation(job, &r)?,
            Request::UpdateCertificateAuthority(r) => {
                let entry =
                    self.find_authority(job, &r.authority_name, Operation::UpdateCertificateAuthority)?;
                if let Some(state) = r.status {
                    entry.authority.state_after(state)?;
                }
                AuthorityPlan::Change(ChangeAuthority {
                    name: r.authority_name,
                    state: r.status,
                    crl_hours: r.crl_hours,
                    profiles: r.profiles,
                    access_points: r.access_points,
                })
            }
            Request::DeleteCertificateAuthority(r) => {
                self.find_authority(job, &r.authority_name, Operation::DeleteCertificateAuthority)?;
                AuthorityPlan::End(r.authority_name)
            }
            Request::IssueCertificate(r) => self.plan_issue(job, r)?,
            Request::BatchIssueCertificate(r) => self.plan_batch(job, r)?,
            Request::RenewCertificate(r) => {
                let entry = self.issued_here(job, r.certificate_id, Operation::RenewCertificate)?;
                job.certificate = Some(entry.certificate.id);
                AuthorityPlan::Renew(r)
            }
            Request::RevokeCertificate(r) => self.plan_revocation(job, &r)?,
            other => {
                let why = format!("{} is no change of authorities", other.operation().name());
                return Err(Error::internal(why));
            }
        };
        Ok(Plan::Authority(Box::new(plan)))
    }

    /// Carries out what an operation on authorities came to.
    pub(super) async fn carry_out_authority(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        plan: AuthorityPlan,
        deadline: Instant,
    ) -> Result<Done> {
        match plan {
            AuthorityPlan::Create(wanted) => self.create_authority(call, actors, *wanted, deadline).await,
            AuthorityPlan::Activate(signed) => self.activate_authority(call, actors, *signed).await,
            AuthorityPlan::Change(change) => self.change_authority(call, actors, change).await,
            AuthorityPlan::End(name) => self.end_authority(call, actors, name).await,
            AuthorityPlan::Issue(wanted) => self.issue_one(call, actors, *wanted, deadline).await,
            AuthorityPlan::IssueMany(wanted) => self.issue_many(call, actors, wanted, deadline).await,
            AuthorityPlan::Renew(r) => {
                let days = r.validity_days;
                self.renew(call, actors, (r.certificate_id, r.csr, days), deadline).await
            }
            AuthorityPlan::Revoke { id, authority, serial, reason } => {
                self.revoke(call, actors, (id, authority, serial, reason), deadline).await
            }
        }
    }

    /// Finds a certificate that an authority here issued, where the caller may do `right` with those of it. An application finds its own.
    fn issued_here(
        &self,
        job: &mut Job,
        id: CertificateId,
        right: Operation,
    ) -> Result<Arc<CertificateEntry>> {
        let found = self.0.shared.keyring.certificates.find(&id);
        let authority = match &found {
            Ok(entry) => entry.certificate.issuance.as_ref().map(|issuance| issuance.authority.clone()),
            Err(_) => None,
        };
        let Some(authority) = authority else {
            // Whoever may do it to all is told what it is that there is.
            self.require(job, right, Resource::Certificates).map_err(|_| Error::certificate_not_found())?;
            return Err(found.err().unwrap_or_else(crate::actor::keyring::not_issued));
        };
        let Decision { allowed, rule } = self.decide(job, right, Resource::Authority(&authority));
        job.rule = Some(rule);
        let entry = found?;
        if !allowed || !is_its_own(&job.call.principal, &entry) {
            return Err(Error::certificate_not_found());
        }
        if right == Operation::RenewCertificate {
            self.check_renews(job, &entry)?;
        }
        Ok(entry)
    }

    /// Returns an authority as it signs.
    ///
    /// # Errors
    /// `StateConflict` where it does not, and those of its key.
    pub(super) fn office(&self, name: &AuthorityName) -> Result<Office> {
        let shared = &self.0.shared;
        let authorities = &shared.keyring.certificates.authorities;
        let entry = authorities.find(name)?;
        let own = shared.keyring.certificates.find(&entry.authority.certificate)?;
        let signer = self.signer(&entry, &own)?;
        let key = self.key_of_authority(&own)?;
        let algorithm = keymill_x509::signing_algorithm(key.cmk.spec)
            .ok_or_else(|| Error::internal("a key that certificates have signs them"))?;
        let mut above = Vec::new();
        let mut parent = entry.authority.parent.clone();
        while let Some(name) = parent.take() {
            let entry = authorities.find(&name)?;
            parent = entry.authority.parent.clone();
            above.push(entry);
            if above.len() > keymill_x509::MAX_CHAIN {
                return Err(Error::internal("authorities stand above each other without end"));
            }
        }
        let urls = Urls::of(shared.config.authorities.public_url.as_deref(), &entry.authority);
        Ok(Office { entry, signer, key, algorithm, urls, above })
    }

    /// Returns the key that an authority signs with.
    fn key_of_authority(&self, own: &CertificateEntry) -> Result<Arc<CmkEntry>> {
        let gone = || {
            Error::new(ErrorKind::Quarantined, "the stored record of the authority's key failed its check")
        };
        let cmk = own.certificate.cmk.ok_or_else(gone)?;
        let key = self.0.shared.keyring.cmk(&cmk).ok_or_else(gone)?;
        self.0.shared.check_view()?;
        self.0.shared.check_usable(&key.cmk)?;
        Ok(key)
    }

    /// Returns what the certificate of an authority says; it is read once.
    fn signer(&self, entry: &AuthorityEntry, own: &CertificateEntry) -> Result<Arc<Signer>> {
        let authorities = &self.0.shared.keyring.certificates.authorities;
        let (name, body_tag) = (&entry.authority.name, own.certificate.body_tag);
        if let Some(signer) = authorities.signer(name, body_tag) {
            return Ok(signer);
        }
        let body = self.body_of(own)?;
        let der = body.certificate.ok_or_else(|| {
            let why = format!("the authority {name} is Pending: nobody has signed its certificate yet");
            Error::new(ErrorKind::StateConflict, why)
        })?;
        let certificate = Certificate::read(&der.0)?;
        let subject = DistinguishedName::parse(&certificate.subject)?;
        let key_id = match &certificate.subject_key_id {
            Some(id) => id.clone(),
            None => keymill_x509::key_id(&certificate.public_key)?.to_vec(),
        };
        let chain = body.chain.into_iter().map(|der| der.0.into_vec()).collect();
        Ok(authorities.put_signer(name, Signer { body_tag, certificate, subject, key_id, chain }))
    }

    /// Checks that a certificate of an authority is one that it signs by now: what is revoked or switched off signs nothing, nor what
    /// stands below one that is revoked.
    pub(super) fn check_signs(&self, entry: &AuthorityEntry) -> Result<()> {
        self.0.shared.keyring.certificates.authorities.check_issuing(&entry.authority.name)?;
        let own = self.0.shared.keyring.certificates.find(&entry.authority.certificate)?;
        match own.certificate.status {
            CertificateStatus::Active => Ok(()),
            other => {
                let why =
                    format!("the certificate of the authority {} is {}", entry.authority.name, other.name());
                Err(Error::new(ErrorKind::StateConflict, why))
            }
        }
    }

    /// Makes a call of what is done by itself.
    pub(super) fn call_by_itself(&self) -> Result<Call> {
        Ok(Call {
            request_id: self.request_id(),
            principal: Principal::of_access_key(BY_ITSELF.parse()?),
            source: None,
            frontend: "timer",
            received: Instant::now(),
            nonce: None,
        })
    }
}

/// Tells whether a certificate is one that the caller may change: an access point, those that it asked for itself.
fn is_its_own(principal: &Principal, entry: &CertificateEntry) -> bool {
    let asked_by = entry.certificate.issuance.as_ref().and_then(|issuance| issuance.access_point.as_ref());
    principal.aap.as_ref().is_none_or(|aap| asked_by == Some(aap))
}
