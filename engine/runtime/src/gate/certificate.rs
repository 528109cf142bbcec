//! Certificates at the gate: found by id and by the right to them, and what is told of them.

use std::sync::Arc;

use keymill_core::access::{AccessSnapshot, Decision, Principal, Question, Resource, decide};
use keymill_core::certificate::{AltName, CertificateFacts, ManagedCertificate};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CertificateId, CertificateRef, RequestId};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_crypto::record::tag_of;
use keymill_x509::{SigningRequest, pem};

use super::Gate;
use super::parameters::{one_is_tagged, some, tags};
use super::plan::Plan;
use super::read::cut;
use crate::actor::keyring::CertificateChange;
use crate::certificates::CertificateEntry;
use crate::records::{self, CertificateBodyRecord, Kind};
use crate::work::Job;

/// How often the bytes of a certificate are read that is changed meanwhile.
const TRIES: usize = 16;

/// What a change of a certificate is answered with.
pub(super) type CertificateReply = fn(RequestId) -> Reply<'static>;

impl Gate {
    /// Finds a certificate, if the caller may do `right` with it; one that it may not looks like one that is not there.
    pub(super) fn find_certificate(
        &self,
        job: &mut Job,
        named: CertificateRef,
        right: Operation,
    ) -> Result<Arc<CertificateEntry>> {
        let CertificateRef::Id(id) = named else { return Err(Error::certificate_not_found()) };
        let Decision { allowed, rule } = self.decide(job, right, Resource::Certificate(id));
        job.rule = Some(rule);
        if !allowed {
            return Err(Error::certificate_not_found());
        }
        let found = self.0.shared.keyring.certificates.find(&id);
        if let Ok(entry) = &found
            && !is_for(&self.0.shared.access.read(), &job.call.principal, &entry.certificate)
        {
            return Err(Error::certificate_not_found());
        }
        job.certificate = Some(id);
        found
    }

    /// Reads the bytes of a certificate from the store, which is not trusted: its record knows their tag. Both are written at once, and what is
    /// published follows: where the record in the store is a newer one, the bytes that go with that are read.
    pub(super) fn body_of(&self, entry: &CertificateEntry) -> Result<CertificateBodyRecord> {
        let shared = &self.0.shared;
        let id = entry.certificate.id;
        let damaged = |why: &str| {
            tracing::error!(certificate = %id, why, "the bytes of a certificate are damaged");
            Error::new(ErrorKind::Quarantined, "the stored bytes of the certificate failed their check")
        };
        let (path, body_path) = (records::certificate_path(&id), records::certificate_body_path(&id));
        let (mut tag, mut sequence) = (entry.certificate.body_tag, entry.stamp.sequence);
        // Whoever changes it does not do so for ever.
        for _ in 0..TRIES {
            let stored = shared.stored(&body_path)?;
            if let Some(stored) = stored.filter(|stored| tag_of(&stored.value) == Some(tag)) {
                let kind = Kind::CertificateBody;
                let opened =
                    records::open::<CertificateBodyRecord>(&shared.sealer, &body_path, kind, &stored.value);
                return match opened {
                    Ok((body, ..)) if body.id == id => Ok(body),
                    Ok(_) => Err(damaged("it is of another certificate")),
                    Err(error) => Err(damaged(&error.to_string())),
                };
            }
            let now = shared.stored(&path)?.ok_or_else(Error::certificate_not_found)?;
            let opened =
                records::open::<ManagedCertificate>(&shared.sealer, &path, Kind::Certificate, &now.value);
            match opened {
                Ok((newer, at, _)) if at > sequence => (tag, sequence) = (newer.body_tag, at),
                _ => return Err(damaged("the record is missing, or another")),
            }
        }
        Err(Error::new(ErrorKind::Busy, "the certificate is changed again and again: read it later"))
    }

    pub(super) fn certificate(&self, job: &mut Job, r: &GetCertificateRequest) -> Result<Reply<'static>> {
        let entry = self.find_certificate(job, r.certificate_id, Operation::GetCertificate)?;
        let body = self.body_of(&entry)?;
        let chain: String = body.chain.iter().map(|der| pem("CERTIFICATE", &der.0)).collect();
        Ok(Reply::GetCertificate(GetCertificateReply {
            certificate_id: entry.certificate.id,
            certificate: body.certificate.map(|der| pem("CERTIFICATE", &der.0)),
            certificate_chain: (!chain.is_empty()).then_some(chain),
            csr: body.csr.map(|der| pem("CERTIFICATE REQUEST", &der.0)),
            request_id: job.call.request_id,
        }))
    }

    pub(super) fn describe_certificate(
        &self,
        job: &mut Job,
        r: &DescribeCertificateRequest,
    ) -> Result<Reply<'static>> {
        let entry = self.find_certificate(job, r.certificate_id, Operation::DescribeCertificate)?;
        let public_key = self.public_key_of(&entry)?;
        let certificate = &entry.certificate;
        let facts = certificate.facts.as_ref();
        let issuance = certificate.issuance.as_deref();
        let revocation = issuance.and_then(|issuance| issuance.revocation());
        let protection = certificate.cmk.and_then(|cmk| self.0.shared.keyring.cmk(&cmk));
        Ok(Reply::DescribeCertificate(DescribeCertificateReply {
            certificate_id: certificate.id,
            arn: self.certificate_arn(&certificate.id),
            status: certificate.status,
            key_spec: certificate.spec,
            protection_level: protection.map(|cmk| cmk.cmk.protection),
            origin: certificate.origin,
            exportable_private_key: certificate.exportable,
            subject: certificate.subject.to_string(),
            subject_alternative_names: names(certificate),
            issuer: facts.map(|facts| facts.issuer.to_string()),
            serial: facts.map(|facts| facts.serial.to_string()),
            not_before: facts.map(|facts| facts.validity.not_before),
            not_after: facts.map(|facts| facts.validity.not_after),
            signature_algorithm: facts.map(|facts| facts.signature_algorithm.to_string()),
            subject_key_identifier: facts
                .and_then(|facts| facts.subject_key_id.as_deref())
                .map(|id| id.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")),
            subject_public_key: public_key.map(|der| pem("PUBLIC KEY", &der)),
            authority_name: issuance.map(|issuance| issuance.authority.clone()),
            profile: issuance.and_then(|issuance| issuance.profile.clone()),
            auto_renew: issuance.map(|issuance| issuance.auto_renew),
            revocation_time: revocation.map(|revocation| revocation.at),
            revocation_reason: revocation.map(|revocation| revocation.reason),
            tags: certificate.tags.clone(),
            created_at: certificate.created_at,
            updated_at: certificate.updated_at,
            request_id: job.call.request_id,
        }))
    }

    /// Returns the public key of a certificate (SubjectPublicKeyInfo in DER), as it says, or as what asks for it says.
    fn public_key_of(&self, entry: &CertificateEntry) -> Result<Option<Vec<u8>>> {
        let body = self.body_of(entry)?;
        let damaged = |error: Error| {
            Error::new(ErrorKind::Quarantined, "the stored bytes of the certificate do not read")
                .caused_by(error.to_string())
        };
        if let Some(der) = &body.certificate {
            let read = keymill_x509::Certificate::read(&der.0).map_err(damaged)?;
            return Ok(Some(read.public_key.clone()));
        }
        let csr = body.csr.as_ref().map(|der| SigningRequest::read(&der.0));
        Ok(csr.transpose().map_err(damaged)?.map(|request| request.public_key))
    }

    pub(super) fn list_certificates(
        &self,
        job: &mut Job,
        r: ListCertificatesRequest,
    ) -> Result<Reply<'static>> {
        let page = PageRequest::new(r.page_number, r.page_size)?;
        let filters = r.filters.unwrap_or_default();
        super::filter::check_of_certificates(&filters)?;
        let (access, principal) = (self.0.shared.access.read(), job.call.principal.clone());
        let asked = Question {
            principal: &principal,
            operation: Operation::ListCertificates,
            resource: Resource::Certificates,
            source: job.call.source,
            now: self.now(),
            spec: None,
            context: None,
        };
        job.rule = Some(decide(&access, &asked, None).rule);
        let may_see = |id: CertificateId| {
            decide(&access, &Question { resource: Resource::Certificate(id), ..asked }, None).allowed
        };
        let ends_in_time = |certificate: &ManagedCertificate| match (r.expires_before, &certificate.facts) {
            (None, _) => true,
            (Some(before), Some(facts)) => facts.validity.not_after < before,
            (Some(_), None) => false,
        };
        let rows = self.0.shared.keyring.certificates.matching(|certificate| {
            ends_in_time(certificate)
                && super::filter::asks_for_certificate(&filters, certificate)
                && may_see(certificate.id)
                && is_for(&access, &principal, certificate)
        });
        let (rows, total_count) = cut(rows, page);
        Ok(Reply::ListCertificates(ListCertificatesReply {
            certificates: CertificateList { certificate: rows.iter().map(|entry| row(entry)).collect() },
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }

    pub(super) fn plan_certificate_status(
        &self,
        job: &mut Job,
        r: &UpdateCertificateStatusRequest,
    ) -> Result<Plan> {
        let right = Operation::UpdateCertificateStatus;
        let entry = self.find_certificate(job, r.certificate_id, right)?;
        entry.certificate.status.changed_to(r.status)?;
        let reply: CertificateReply =
            |request_id| Reply::UpdateCertificateStatus(UpdateCertificateStatusReply { request_id });
        let change = CertificateChange::Status(r.status);
        Ok(Plan::ChangeCertificate { id: entry.certificate.id, change: Box::new(change), reply })
    }

    pub(super) fn plan_certificate_end(&self, job: &mut Job, r: &DeleteCertificateRequest) -> Result<Plan> {
        let entry = self.find_certificate(job, r.certificate_id, Operation::DeleteCertificate)?;
        Ok(Plan::EndCertificate { id: entry.certificate.id })
    }

    pub(super) fn plan_certificate_tags(&self, job: &mut Job, r: TagResourceRequest) -> Result<Plan> {
        let names_another = r.key_id.is_some() || r.secret_name.is_some();
        let id = self.tagged_certificate(job, r.certificate_id, names_another, Operation::TagResource)?;
        some(r.tags.len(), limit::TAGS, "Tags")?;
        let tags = tags(r.tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect())?;
        let reply: CertificateReply = |request_id| Reply::TagResource(TagResourceReply { request_id });
        Ok(Plan::ChangeCertificate { id, change: Box::new(CertificateChange::Tag(tags)), reply })
    }

    pub(super) fn plan_certificate_untagging(&self, job: &mut Job, r: UntagResourceRequest) -> Result<Plan> {
        let names_another = r.key_id.is_some() || r.secret_name.is_some();
        let id = self.tagged_certificate(job, r.certificate_id, names_another, Operation::UntagResource)?;
        some(r.tag_keys.len(), limit::TAGS, "TagKeys")?;
        let reply: CertificateReply = |request_id| Reply::UntagResource(UntagResourceReply { request_id });
        Ok(Plan::ChangeCertificate { id, change: Box::new(CertificateChange::Untag(r.tag_keys)), reply })
    }

    fn tagged_certificate(
        &self,
        job: &mut Job,
        certificate: Option<CertificateRef>,
        names_another: bool,
        right: Operation,
    ) -> Result<CertificateId> {
        match certificate {
            Some(named) if !names_another => Ok(self.find_certificate(job, named, right)?.certificate.id),
            _ => Err(one_is_tagged()),
        }
    }

    /// Returns the tags of a certificate.
    pub(super) fn certificate_tags(&self, job: &mut Job, named: CertificateRef) -> Result<Reply<'static>> {
        let entry = self.find_certificate(job, named, Operation::ListResourceTags)?;
        let row = |(tag_key, tag_value): (&String, &String)| KeyTagRow {
            key_id: None,
            certificate_id: Some(entry.certificate.id),
            tag_key: tag_key.clone(),
            tag_value: tag_value.clone(),
        };
        let tags = TagList { tag: entry.certificate.tags.iter().map(row).collect() };
        Ok(Reply::ListResourceTags(ListResourceTagsReply { tags, request_id: job.call.request_id }))
    }

    pub(super) fn certificate_arn(&self, id: &CertificateId) -> String {
        let config = &self.0.shared.config;
        format!("acs:kms:{}:{}:certificate/{id}", config.region, config.account)
    }
}

/// Tells whether a certificate is for a caller at all: what another application had issued is that one's, unless a policy of the caller's own names
/// it by its id.
fn is_for(access: &AccessSnapshot, principal: &Principal, certificate: &ManagedCertificate) -> bool {
    let asked_by = certificate.issuance.as_ref().and_then(|issuance| issuance.access_point.as_ref());
    match (&principal.aap, asked_by) {
        (Some(own), Some(other)) => own == other || access.names_certificate(own, &certificate.id),
        _ => true,
    }
}

/// Returns what a certificate says, as far as it is looked for.
pub(super) fn facts_of(read: &keymill_x509::Certificate) -> CertificateFacts {
    CertificateFacts {
        subject: read.subject.as_str().into(),
        issuer: read.issuer.as_str().into(),
        serial: read.serial.as_str().into(),
        validity: read.validity,
        alt_names: read.alt_names.clone(),
        signature_algorithm: signed_by(read).into(),
        subject_key_id: read.subject_key_id.clone(),
    }
}

/// Returns how a certificate was signed, as the cloud writes it; of RSA with the bits of the key that signed.
fn signed_by(read: &keymill_x509::Certificate) -> String {
    let bits = 8 * read.signature_bytes();
    match read.signature_algorithm {
        "SM2DSA" => "SM2-SM3".to_owned(),
        other => match other.strip_prefix("RSA_PKCS1_SHA_").or(other.strip_prefix("RSA_PSS_SHA_")) {
            Some(hash) => format!("RSA{bits}-SHA{hash}"),
            None => match other.strip_prefix("ECDSA_SHA_") {
                Some(hash) => format!("ECDSA-SHA{hash}"),
                None => other.to_owned(),
            },
        },
    }
}

/// Returns the other names of a certificate: those that it says once it is signed. DNS names stand alone, as the cloud writes them.
fn names(certificate: &ManagedCertificate) -> Vec<String> {
    let names = certificate.facts.as_ref().map_or(&certificate.alt_names, |facts| &facts.alt_names);
    names.iter().map(written).collect()
}

fn written(name: &AltName) -> String {
    match name {
        AltName::Dns(name) => name.clone(),
        other => other.to_string(),
    }
}

fn row(entry: &CertificateEntry) -> CertificateRow {
    let certificate = &entry.certificate;
    let facts = certificate.facts.as_ref();
    CertificateRow {
        certificate_id: certificate.id,
        status: certificate.status,
        origin: certificate.origin,
        key_spec: certificate.spec,
        subject: certificate.subject.to_string(),
        subject_alternative_names: names(certificate),
        issuer: facts.map(|facts| facts.issuer.to_string()),
        serial: facts.map(|facts| facts.serial.to_string()),
        not_after: facts.map(|facts| facts.validity.not_after),
    }
}
