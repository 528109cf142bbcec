//! Certificates of this installation's own listeners: asked for by whoever runs them, and recorded like what is done by itself.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use keymill_core::audit::Outcome;
use keymill_core::certificate::{CertificateStatus, Validity};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AuthorityName, CertificateId, ProfileName};
use keymill_core::key::Tags;
use keymill_core::operation::{Operation, Reply};

use super::super::Gate;
use super::issue::WantedIssue;
use super::publish::PATIENCE;
use crate::actor::Owners;
use crate::actor::keyring::{CertificateChange, ChangeCertificate};
use crate::audit::ManagementRecord;
use crate::work::Served;

/// The tag that says which listener a certificate is of.
const TAG: &str = "keymill:listener";

/// A certificate of a listener.
pub struct OfListener {
    /// Its id.
    pub id: CertificateId,
    /// It and those above it, in PEM.
    pub chain: String,
    /// From when to when.
    pub validity: Validity,
}

impl Gate {
    /// Has an authority sign the request (PEM) of a listener of this installation, and waits for it. Blocks.
    ///
    /// # Errors
    /// Those of `IssueCertificate`; `Unavailable` where the engine is shutting down.
    pub fn issue_for_listener(
        &self,
        listener: &str,
        (authority, profile): (&AuthorityName, &ProfileName),
        csr: String,
    ) -> Result<OfListener> {
        let gone = || Error::new(ErrorKind::Unavailable, "the engine is shutting down");
        let (sender, issued) = std::sync::mpsc::sync_channel(1);
        let gate = self.clone();
        let tags = Tags::from([(TAG.to_owned(), listener.to_owned())]);
        let wanted = WantedIssue::for_listener(authority.clone(), profile.clone(), csr, tags);
        let listener = listener.to_owned();
        let spawned = self.0.actors.control.spawn(async move {
            let _nobody_waits = sender.send(gate.issue_recorded(wanted, &listener).await);
        });
        if !spawned {
            return Err(gone());
        }
        issued.recv_timeout(2 * PATIENCE).map_err(|_| gone())?
    }

    /// Tells whether a certificate was revoked, or is not there any more.
    pub fn is_revoked(&self, id: &CertificateId) -> bool {
        let entry = self.0.shared.keyring.certificates.certificate(id);
        entry.is_none_or(|entry| entry.certificate.status == CertificateStatus::Revoked)
    }

    async fn issue_recorded(&self, wanted: WantedIssue, listener: &str) -> Result<OfListener> {
        let authority = wanted.authority().clone();
        let entry = self.0.shared.keyring.certificates.authorities.find(&authority)?;
        self.check_signs(&entry)?;
        let call = self.call_by_itself()?;
        let served = AtomicU64::new(0);
        let owners = Owners { actors: &self.0.actors, claim: None, served: &served };
        let (reply, keys, mut writes) =
            self.issue_one(&call, &owners, wanted, Instant::now() + PATIENCE).await?;
        let Reply::IssueCertificate(reply) = reply else {
            return Err(Error::internal("a certificate is issued by IssueCertificate"));
        };
        let mut certificates = vec![reply.certificate_id];
        // The keys of those before are gone with the process that made them, or will not be used again.
        for before in self.0.shared.keyring.certificates.matching(|certificate| {
            let is_ours = certificate.tags.get(TAG).is_some_and(|of| of == listener);
            is_ours
                && certificate.status == CertificateStatus::Active
                && certificate.id != reply.certificate_id
        }) {
            let id = before.certificate.id;
            let change = CertificateChange::Status(CertificateStatus::Inactive);
            let changed = self.0.actors.keyring(ChangeCertificate { id, change }).await?;
            writes.extend(changed.writes);
            certificates.push(id);
        }
        self.record(ManagementRecord {
            request: call.request_id,
            principal: Some(call.principal.access_key.clone()),
            source: None,
            frontend: call.frontend,
            operation: Operation::IssueCertificate.name(),
            outcome: Outcome::Done,
            rule: "of a listener here".into(),
            keys,
            secrets: Vec::new(),
            certificates,
            approved_by: None,
            served: Served::of_bits(served.into_inner()),
            micros: call.received.elapsed().as_micros() as u64,
            writes,
        })
        .await?;
        let validity = Validity { not_before: reply.not_before, not_after: reply.not_after };
        let id = reply.certificate_id;
        Ok(OfListener { id, chain: format!("{}{}", reply.certificate, reply.certificate_chain), validity })
    }
}
