//! What the key of a certificate does: it signs and decrypts in the lanes like any other, and its public half checks and encrypts at the desk.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use keymill_core::certificate::{AltName, CertificateUse, DistinguishedName};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{CertificateRef, KeyRef, KeyVersionId};
use keymill_core::key::SignAlgorithm;
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_x509::ToBeSigned;

use super::data_compute::computation;
use super::{Call, Gate};
use crate::keyring::{CmkEntry, VersionEntry};
use crate::work::{Compute, Job, Sheet};

type Found = (Arc<CmkEntry>, Arc<VersionEntry>);

impl Gate {
    /// Admits work with the key of one certificate.
    pub(super) fn admit_certificate(
        &self,
        job: &mut Job,
        request: Request<'_>,
        frame: Option<&Bytes>,
    ) -> Result<()> {
        let (of, what, item, claim) = match request {
            Request::CertificatePrivateKeySign(r) => {
                let kind = message_type(r.message_type, r.message.len())?;
                let what = Compute::Sign(r.algorithm, kind);
                let right = Operation::CertificatePrivateKeySign;
                (self.key_of(job, r.certificate_id, right, what)?, what, r.message, None)
            }
            Request::CertificatePublicKeyVerify(r) => {
                let kind = message_type(r.message_type, r.message.len())?;
                let what = Compute::Verify(r.algorithm, kind);
                let right = Operation::CertificatePublicKeyVerify;
                let of = self.key_of(job, r.certificate_id, right, what)?;
                (of, what, r.message, Some(r.signature_value))
            }
            Request::CertificatePublicKeyEncrypt(r) => {
                let what = Compute::Encrypt(r.algorithm);
                let right = Operation::CertificatePublicKeyEncrypt;
                (self.key_of(job, r.certificate_id, right, what)?, what, r.plaintext, None)
            }
            Request::CertificatePrivateKeyDecrypt(r) => {
                let what = Compute::Decrypt(r.algorithm);
                let right = Operation::CertificatePrivateKeyDecrypt;
                (self.key_of(job, r.certificate_id, right, what)?, what, r.ciphertext_blob, None)
            }
            other => {
                let why = format!("{} is no work with a certificate", other.operation().name());
                return Err(Error::internal(why));
            }
        };
        let claim = claim.as_ref().map(std::slice::from_ref);
        job.task = computation(of, what, &[item], claim, frame, limit::BATCH_ITEM_BYTES);
        Ok(())
    }

    /// Finds the key that a batch is computed with: one that is named with its version, or the one of a certificate.
    pub(super) fn named_key(
        &self,
        job: &mut Job,
        (key, version): (Option<KeyRef>, Option<KeyVersionId>),
        certificate: Option<CertificateRef>,
        right: Operation,
        what: Compute,
    ) -> Result<Found> {
        match (key, version, certificate) {
            (Some(key), Some(version), None) => self.computed_with(job, &key, Some(&version), right, what),
            (None, None, Some(certificate)) => self.key_of(job, certificate, right, what),
            (_, _, Some(_)) => {
                let why = "CertificateId stands in the place of KeyId and KeyVersionId";
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            (None, _, None) => {
                Err(Error::new(ErrorKind::MissingParameter, "KeyId: the parameter is missing"))
            }
            (_, None, None) => {
                Err(Error::new(ErrorKind::MissingParameter, "KeyVersionId: the parameter is missing"))
            }
        }
    }

    /// Finds the key of a certificate, and checks that it may do that now.
    fn key_of(&self, job: &mut Job, named: CertificateRef, right: Operation, what: Compute) -> Result<Found> {
        let entry = self.find_certificate(job, named, right)?;
        let does = match what {
            Compute::Sign(..) | Compute::Mac(_) => CertificateUse::Sign,
            Compute::Verify(..) | Compute::VerifyMac(_) => CertificateUse::Verify,
            Compute::Encrypt(_) => CertificateUse::Encrypt,
            Compute::Decrypt(_) => CertificateUse::Decrypt,
        };
        entry.certificate.check_use(does, self.now())?;
        let is_made = matches!(does, CertificateUse::Sign | CertificateUse::Decrypt);
        if entry.certificate.is_authority && is_made {
            // Whoever signs with it whatever they like issues whatever they like. That it is one is a fact of its own record: the authority's may be
            // damaged.
            let why = "the key of an authority signs what that issues, and nothing else";
            return Err(Error::new(ErrorKind::Denied, why));
        }
        let cmk = entry.certificate.cmk.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the private key of the certificate is not here")
        })?;
        let key = self.0.shared.keyring.cmk(&cmk).ok_or_else(|| {
            Error::new(ErrorKind::Quarantined, "the stored record of the certificate's key failed its check")
        })?;
        super::data_compute::check_does(&key.cmk, what)?;
        let version = key.primary().clone();
        Ok((key, version))
    }

    /// Has the key of a certificate sign what asks for the certificate.
    pub(super) async fn request_of(
        &self,
        call: &Call,
        key: &Arc<CmkEntry>,
        subject: &DistinguishedName,
        alt_names: &[AltName],
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let spec = key.cmk.spec;
        let algorithm = keymill_x509::signing_algorithm(spec)
            .ok_or_else(|| Error::internal("a key that certificates have signs them"))?;
        let stored = self.0.shared.stored_key(key, key.primary())?;
        let public = stored.public_key.ok_or_else(|| Error::internal("a pair has no public half"))?;
        let request = keymill_x509::request(subject, alt_names, public.as_der(), algorithm)?;
        let signed = self.sign_all(call, key.clone(), algorithm, vec![request], deadline).await?;
        signed.into_iter().next().ok_or_else(|| Error::internal("a request was not signed"))
    }

    /// Has a key sign parts of certificates, lists or answers, all in one batch of the lane, and returns the wholes in DER; the use of the key has
    /// its own record.
    pub(crate) async fn sign_all(
        &self,
        call: &Call,
        key: Arc<CmkEntry>,
        algorithm: SignAlgorithm,
        parts: Vec<ToBeSigned>,
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>> {
        let call = call.clone();
        self.aside(move |gate| gate.sign_now(&call, key, algorithm, parts, deadline)).await
    }

    /// Does what takes a while, or waits for a lane, on a thread where nobody else waits for it.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gate = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&gate));
        done.await.map_err(|_| Error::internal("what was under way was cut off"))?
    }

    /// As [`sign_all`](Self::sign_all); waits for the lane on the thread that it is on.
    pub(crate) fn sign_now(
        &self,
        call: &Call,
        key: Arc<CmkEntry>,
        algorithm: SignAlgorithm,
        parts: Vec<ToBeSigned>,
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>> {
        let version = key.primary().clone();
        let items: Vec<Bin<'_>> = parts.iter().map(|part| Bin::from(part.bytes())).collect();
        let what = Compute::Sign(algorithm, MessageType::Raw);
        let certificate = key.cmk.certificate.as_deref().copied();
        // What is signed is made here: a list of what was revoked is longer than what callers send.
        let longest = items.iter().map(|item| item.len()).max().unwrap_or_default();
        let task = computation((key, version), what, &items, None, None, longest);
        let operation = Some(Operation::CertificatePrivateKeySign);
        let job = Job {
            deadline,
            sheet: Sheet::plain(None),
            certificate,
            ..Job::new(call.clone(), operation, task)
        };
        let finished = self.perform(Box::new(job))?;
        finished.result?;
        let mut signatures = finished.sheet.items();
        let whole = |part: ToBeSigned| {
            let signature = signatures.next().flatten();
            part.finish(signature.ok_or_else(|| Error::internal("a signature was not made"))?)
        };
        parts.into_iter().map(whole).collect()
    }
}

/// Returns what is signed or checked, within the bounds that the cloud documents.
fn message_type(asked: Option<MessageType>, bytes: usize) -> Result<MessageType> {
    let kind = asked.unwrap_or(MessageType::Raw);
    if kind == MessageType::Raw && bytes > limit::CERTIFICATE_MESSAGE_BYTES {
        let most = limit::CERTIFICATE_MESSAGE_BYTES;
        let why = format!("Message of {bytes} bytes exceeds the limit of {most}: send its digest");
        return Err(Error::new(ErrorKind::LimitExceeded(Limit::PlaintextBytes), why));
    }
    Ok(kind)
}
