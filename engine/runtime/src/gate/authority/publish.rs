//! What authorities say of revocation to everybody who asks: lists, made ahead of their ends and with each revocation, and signed answers about
//! single certificates. Strangers are served from what is there; what their questions may have signed is bounded (`answers.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keymill_core::certificate::{Answer, Listed, Revocation, RevocationReason, Serial, begins};
use keymill_core::error::{Error, Result};
use keymill_core::id::AuthorityName;
use keymill_core::time::Timestamp;
use keymill_x509::crl::{self, Reason, Revoked};
use keymill_x509::ocsp::{self, Failure, Status};

use super::super::Gate;
use crate::actor::keyring::PutCrl;
use crate::answers::{AnswerKey, GOOD_FOR, Signed};
use crate::authorities::CrlEntry;

/// How long a signature that nobody waits for may take.
pub(in super::super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long somebody who asks about revocation waits.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// What is given out to everybody.
#[derive(Clone, Debug)]
pub struct Published {
    /// The bytes.
    pub der: Bytes,
    /// For how long they may be kept.
    pub max_age: Duration,
}

impl Gate {
    /// Returns the certificate of an authority in DER, where there is one of that name.
    pub fn authority_certificate(&self, name: &str) -> Option<Published> {
        let entry = self.0.shared.keyring.certificates.authorities.authority(&name.parse().ok()?)?;
        let own = self.0.shared.keyring.certificates.certificate(&entry.authority.certificate)?;
        let signer = self.signer(&entry, &own).ok()?;
        let der = signer.certificate.der.clone().into();
        Some(Published { der, max_age: Duration::from_secs(3_600) })
    }

    /// Returns the newest list of what an authority revoked, in DER; also where it is past its time, which whoever reads it sees.
    pub fn authority_crl(&self, name: &str) -> Option<Published> {
        let crl = self.0.shared.keyring.certificates.authorities.crl(&name.parse().ok()?)?;
        // Another may come at any time, with the next revocation.
        let left = crl.listed.next_update.since(self.now());
        Some(Published { der: crl.der.clone(), max_age: left.min(Duration::from_secs(300)) })
    }

    /// Answers a question about a certificate of an authority (RFC 6960, as RFC 5019 has it); `None` where there is no authority of that name.
    pub async fn answer_ocsp(&self, name: &str, question: &[u8]) -> Option<Published> {
        let name: AuthorityName = name.parse().ok()?;
        self.0.shared.keyring.certificates.authorities.authority(&name)?;
        Some(match self.ocsp(&name, question).await {
            Ok(answered) => answered,
            Err(failure) => Published { der: ocsp::failure(failure).into(), max_age: Duration::ZERO },
        })
    }

    async fn ocsp(&self, name: &AuthorityName, question: &[u8]) -> Result<Published, Failure> {
        let asked = ocsp::read_request(question).map_err(|_| Failure::MalformedRequest)?;
        // RFC 5019 §2.1.1: one. An answer about several is one of too many that could be asked for.
        let [id] = &asked.ids[..] else { return Err(Failure::MalformedRequest) };
        let authorities = &self.0.shared.keyring.certificates.authorities;
        let entry = authorities.authority(name).ok_or(Failure::Unauthorized)?;
        let certificates = &self.0.shared.keyring.certificates;
        let own = certificates.certificate(&entry.authority.certificate).ok_or(Failure::InternalError)?;
        let signer = self.signer(&entry, &own).map_err(|_| Failure::TryLater)?;
        let read = &signer.certificate;
        let is_ours = id.is_of(&read.subject_der, &read.public_key).map_err(|_| Failure::InternalError)?;
        let (Some(hash), Some(serial), true) = (id.hash, Serial::from_der(&id.serial), is_ours) else {
            return Err(Failure::Unauthorized);
        };
        let known = || Answer::of(authorities.told(name, &serial).as_ref());
        if known() == Answer::Unknown {
            return Err(Failure::Unauthorized);
        }
        let key = AnswerKey { serial, hash };
        let fresh = || authorities.answers.fresh(name, &key, self.now()).map(published);
        if let Some(answer) = fresh() {
            return Ok(answer);
        }
        // One at a time: whoever asks the same meanwhile finds the answer.
        let turn = authorities.answers.turn(name);
        let waited = tokio::time::timeout(ANSWERED_WITHIN, turn.lock()).await;
        let _turn = waited.map_err(|_| Failure::TryLater)?;
        if let Some(answer) = fresh() {
            return Ok(answer);
        }
        if !authorities.answers.admit(name, self.0.shared.clock.instant()) {
            return Err(Failure::TryLater);
        }
        let before = known();
        let status = match before {
            Answer::Good => Status::Good,
            Answer::Revoked(revocation) => Status::Revoked(revocation.at, reason(&revocation)),
            Answer::Unknown => return Err(Failure::Unauthorized),
        };
        let made = whole_seconds(self.now());
        let next_update = made.plus(GOOD_FOR);
        let answer = ocsp::Answer { id, status, this_update: begins(made), next_update };
        let office = self.office(name).map_err(|_| Failure::TryLater)?;
        let part = ocsp::answer(&read.subject_der, made, &[answer], None, &[], office.algorithm);
        let part = part.map_err(|_| Failure::InternalError)?;
        let call = self.call_by_itself().map_err(|_| Failure::InternalError)?;
        let deadline = Instant::now() + ANSWERED_WITHIN;
        let signed = self.sign_all(&call, office.key.clone(), office.algorithm, vec![part], deadline).await;
        let der = signed.map_err(|error| {
            tracing::warn!(authority = %name, ?error, "an answer about revocation could not be signed");
            Failure::TryLater
        })?;
        let der: Bytes = der.into_iter().next().ok_or(Failure::InternalError)?.into();
        // It may have been revoked while that was signed: what is not so any more is given to nobody.
        if known() != before {
            return Err(Failure::TryLater);
        }
        let kept = Signed { der: der.clone(), this_update: made };
        authorities.answers.keep(name, key, kept, self.now());
        Ok(published(der))
    }

    /// Tells whether another list of what an authority revoked is to be made.
    pub(super) fn is_list_due(&self, name: &AuthorityName) -> bool {
        let authorities = &self.0.shared.keyring.certificates.authorities;
        authorities
            .crl(name)
            .is_none_or(|crl| crl.listed.is_due(self.now()) || crl.seen < authorities.changes(name))
    }

    /// Has a list made where one is due, and returns the number of the newest; none where that fails, and it is tried again with the next look, since
    /// nothing that was done depends on it.
    pub(crate) async fn list_soon(&self, name: &AuthorityName, deadline: Instant) -> Option<u64> {
        match self.list_revoked(name, deadline).await {
            Ok(crl) => Some(crl.listed.number),
            Err(error) => {
                tracing::error!(authority = %name, ?error, "a list of what was revoked could not be made, and is tried again");
                self.0.shared.metrics.certificates.failed_lists.inc();
                None
            }
        }
    }

    /// Makes the list of what an authority revoked, unless one is there that names all of it and is not due.
    async fn list_revoked(&self, name: &AuthorityName, deadline: Instant) -> Result<Arc<CrlEntry>> {
        let authorities = &self.0.shared.keyring.certificates.authorities;
        // One at a time, so that a hundred revocations come to two lists rather than to a hundred.
        let turn = authorities.turn(name);
        let _turn = turn.lock().await;
        let before = authorities.crl(name);
        if let Some(before) = before.as_ref().filter(|_| !self.is_list_due(name)) {
            return Ok(before.clone());
        }
        let office = self.office(name)?;
        let now = self.now();
        let before = before.as_deref();
        let listed = Listed::next(before.map(|before| &before.listed), now, office.authority().crl_hours);
        let (named, seen) = authorities.listed(name, before, now);
        let revoked: Vec<Revoked> = named
            .iter()
            .filter_map(|issued| {
                let revocation = issued.revocation?;
                let serial = issued.serial.as_bytes().to_vec();
                Some(Revoked { serial, at: revocation.at, reason: reason(&revocation) })
            })
            .collect();
        let Listed { number, this_update, next_update } = listed;
        let own = &office.signer;
        let part = crl::list(
            &own.certificate.subject_der,
            &own.key_id,
            number,
            this_update,
            next_update,
            &revoked,
            office.algorithm,
        )?;
        let call = self.call_by_itself()?;
        let signed = self.sign_all(&call, office.key.clone(), office.algorithm, vec![part], deadline).await?;
        let der = signed.into_iter().next().ok_or_else(|| Error::internal("a list was not signed"))?;
        self.0.actors.keyring(PutCrl { name: name.clone(), listed, named, der, seen }).await
    }
}

fn published(der: Bytes) -> Published {
    // Not for as long as it is good: it may be revoked meanwhile.
    Published { der, max_age: Duration::from_secs(300) }
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_ms(at.as_s() * 1_000)
}

/// Returns a reason as lists and answers have it: that it is not said why is said by saying nothing (RFC 5280 §5.3.1).
fn reason(revocation: &Revocation) -> Option<Reason> {
    match revocation.reason {
        RevocationReason::Unspecified => None,
        other => Reason::from_number(other.code()),
    }
}
