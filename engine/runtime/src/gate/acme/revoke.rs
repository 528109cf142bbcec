//! Revocation over ACME (RFC 8555 §7.6): by the account that ordered a certificate, by one that holds all its names now, or by its own key.

use std::net::IpAddr;
use std::time::Instant;

use keymill_core::access::Principal;
use keymill_core::acme::{Account, Outcome, Problem, ProblemKind, holds_all};
use keymill_core::certificate::{RevocationReason, Serial};
use keymill_core::error::{Error, Result};
use keymill_core::id::{AuthorityName, CertificateId};
use keymill_core::operation::Operation;
use keymill_x509::Certificate;

use super::super::authority::AuthorityPlan;
use super::super::manage::Managed;
use super::super::plan::Plan;
use super::super::{Call, Gate};
use super::NAME;
use crate::work::{Job, Task};

/// Whom the audit names where a certificate's own key asks.
const KEY_OF_CERTIFICATE: &str = "keymill.acme";

/// Who asks.
pub enum Revoker<'a> {
    /// An account, by its request.
    Account(&'a Account, Call),
    /// Who holds a key: its SubjectPublicKeyInfo in DER, and where from and when they ask.
    Key(&'a [u8], Option<IpAddr>, Instant),
}

impl Gate {
    /// Revokes a certificate, in DER.
    ///
    /// # Errors
    /// `Malformed` for what no authority here has issued, `AlreadyRevoked`, `Unauthorized` for who may not.
    pub async fn revoke_by_acme(
        &self,
        by: Revoker<'_>,
        certificate: &[u8],
        reason: Option<u8>,
    ) -> Outcome<()> {
        let malformed = |why: &str| Problem::new(ProblemKind::Malformed, why);
        let read = Certificate::read(certificate).map_err(|error| malformed(error.message()))?;
        let unknown = || malformed("no authority here has issued the certificate");
        let serial = Serial::from_der(&read.serial_bytes()).ok_or_else(unknown)?;
        let (authority, id, is_revoked) = self.issued_by_any(&serial).ok_or_else(unknown)?;
        // Whoever makes one up under a number of ours holds no key of it.
        let signer = self.office(&authority).map_err(Problem::from)?.signer;
        read.is_signed_by(&signer.certificate).map_err(|_| unknown())?;
        if !self.may_revoke(&by, &read, &id) {
            let why = "the certificate is another's: its account, who holds all its names, or its key may revoke it";
            return Err(Problem::new(ProblemKind::Unauthorized, why));
        }
        if is_revoked {
            return Err(Problem::new(ProblemKind::AlreadyRevoked, "the certificate is revoked already"));
        }
        let reason = reason.unwrap_or(0);
        let reason = RevocationReason::ALL.into_iter().find(|known| known.code() == reason);
        let reason = reason.ok_or_else(|| malformed("there is no such reason"))?;
        let call = self.revoker(by).map_err(Problem::from)?;
        let unopened = Task::Refused(Error::internal("it is done elsewhere"));
        let mut job = Job::new(call, Some(Operation::RevokeCertificate), unopened);
        job.certificate = Some(id);
        let plan =
            Plan::Authority(Box::new(AuthorityPlan::Revoke { id, authority, serial: Some(serial), reason }));
        self.manage(Managed::new(job, plan)).await.map(drop).map_err(Problem::from)
    }

    /// Finds what was issued under a number, by any authority; and whether it is revoked.
    fn issued_by_any(&self, serial: &Serial) -> Option<(AuthorityName, CertificateId, bool)> {
        let authorities = &self.0.shared.keyring.certificates.authorities;
        authorities.all().iter().find_map(|entry| {
            let name = &entry.authority.name;
            let issued = authorities.issued(name, serial)?;
            Some((name.clone(), issued.id, issued.serial.revocation.is_some()))
        })
    }

    fn may_revoke(&self, by: &Revoker<'_>, read: &Certificate, id: &CertificateId) -> bool {
        match by {
            Revoker::Key(spki, ..) => read.public_key == *spki,
            Revoker::Account(account, _) => {
                let book = &self.0.shared.acme;
                let is_own = book.order_of_certificate(id).is_some_and(|order| order.account == account.id);
                let orders = book.orders_of(&account.id);
                is_own || holds_all(orders.iter().map(|order| &**order), &read.alt_names, self.now())
            }
        }
    }

    fn revoker(&self, by: Revoker<'_>) -> Result<Call> {
        Ok(match by {
            Revoker::Account(_, call) => call,
            Revoker::Key(_, source, received) => Call {
                request_id: self.request_id(),
                principal: Principal::of_access_key(KEY_OF_CERTIFICATE.parse()?),
                source,
                frontend: NAME,
                received,
                nonce: None,
            },
        })
    }
}
