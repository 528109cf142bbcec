//! What is told of authorities: of one, and in lists of those that a caller may see.

use std::sync::Arc;
use std::time::Duration;

use keymill_core::access::{Question, Resource, decide};
use keymill_core::certificate::Urls;
use keymill_core::error::Result;
use keymill_core::key::{KeySpec, ProtectionLevel};
use keymill_core::operation::*;
use keymill_x509::pem;

use super::super::Gate;
use super::super::read::cut;
use super::issue::chain_pem;
use crate::authorities::AuthorityEntry;
use crate::certificates::CertificateEntry;
use crate::metrics::{CertificateSample, WITHIN_DAYS};
use crate::work::Job;

impl Gate {
    pub(in super::super) fn describe_authority(
        &self,
        job: &mut Job,
        r: &DescribeCertificateAuthorityRequest,
    ) -> Result<Reply<'static>> {
        let entry = self.find_authority(job, &r.authority_name, Operation::DescribeCertificateAuthority)?;
        let (certificates, name) = (&self.0.shared.keyring.certificates, &r.authority_name);
        let own = certificates.find(&entry.authority.certificate)?;
        let body = self.body_of(&own)?;
        let authority = &entry.authority;
        let crl = certificates.authorities.crl(name);
        let (issued, revoked) = certificates.authorities.counts(name, self.now());
        let public = self.0.shared.config.authorities.public_url.as_deref();
        let urls = Urls::of(public, authority);
        let CertificateAuthorityRow {
            authority_name,
            certificate_id,
            parent,
            status,
            subject,
            key_spec,
            protection_level,
            not_before,
            not_after,
        } = self.row_of_authority(&entry, &own)?;
        let chain: Vec<Vec<u8>> = body.chain.into_iter().map(|der| der.0.into_vec()).collect();
        Ok(Reply::DescribeCertificateAuthority(DescribeCertificateAuthorityReply {
            authority_name,
            certificate_id,
            parent,
            status,
            subject,
            key_spec,
            protection_level,
            not_before,
            not_after,
            path_length: authority.path_length,
            name_constraints: (!authority.constraints.is_empty()).then(|| (&authority.constraints).into()),
            crl_hours: authority.crl_hours,
            profiles: authority.all_profiles().collect(),
            access_points: authority.access_points.clone(),
            certificate: body.certificate.map(|der| pem("CERTIFICATE", &der.0)),
            certificate_chain: (!chain.is_empty()).then(|| chain_pem(&chain)),
            csr: body.csr.map(|der| pem("CERTIFICATE REQUEST", &der.0)),
            issued,
            revoked,
            crl_number: crl.as_ref().map(|crl| crl.listed.number),
            crl_this_update: crl.as_ref().map(|crl| crl.listed.this_update),
            crl_next_update: crl.as_ref().map(|crl| crl.listed.next_update),
            crl_url: urls.crl.into_iter().next(),
            ocsp_url: urls.ocsp.into_iter().next(),
            create_time: authority.created_at,
            update_time: authority.updated_at,
            request_id: job.call.request_id,
        }))
    }

    pub(in super::super) fn list_authorities(
        &self,
        job: &mut Job,
        r: &ListCertificateAuthoritiesRequest,
    ) -> Result<Reply<'static>> {
        let page = PageRequest::new(r.page_number, r.page_size)?;
        let (access, principal) = (self.0.shared.access.read(), job.call.principal.clone());
        let asked = Question {
            principal: &principal,
            operation: Operation::ListCertificateAuthorities,
            resource: Resource::Certificates,
            source: job.call.source,
            now: self.now(),
            spec: None,
            context: None,
        };
        job.rule = Some(decide(&access, &asked, None).rule);
        let certificates = &self.0.shared.keyring.certificates;
        let may_see = |entry: &Arc<AuthorityEntry>| {
            let asked = Question { resource: Resource::Authority(&entry.authority.name), ..asked };
            decide(&access, &asked, None).allowed
        };
        let seen: Vec<_> = certificates.authorities.all().into_iter().filter(may_see).collect();
        let (seen, total_count) = cut(seen, page);
        // One whose certificate failed its check says so where it is asked for by name; the others are told of.
        let row = |entry: Arc<AuthorityEntry>| {
            let own = certificates.certificate(&entry.authority.certificate)?;
            self.row_of_authority(&entry, &own).ok()
        };
        Ok(Reply::ListCertificateAuthorities(ListCertificateAuthoritiesReply {
            authorities: seen.into_iter().filter_map(row).collect(),
            page_number: page.number,
            page_size: page.size,
            total_count,
            request_id: job.call.request_id,
        }))
    }

    /// Returns how certificates stand, for metrics.
    pub(in super::super) fn sample_of_certificates(&self) -> CertificateSample {
        const DAY: Duration = Duration::from_secs(86_400);
        let (certificates, now) = (&self.0.shared.keyring.certificates, self.now());
        let within = WITHIN_DAYS.map(|days| now.plus(DAY * days as u32));
        let (first, ended, ending) = certificates.ends(now, within);
        CertificateSample {
            managed: certificates.len(),
            first_end_s: first.map_or(0, |first| first.as_s()),
            ended,
            ending,
            failing: certificates.authorities.failing(),
            authorities: certificates.authorities.len(),
        }
    }

    fn row_of_authority(
        &self,
        entry: &AuthorityEntry,
        own: &CertificateEntry,
    ) -> Result<CertificateAuthorityRow> {
        let (authority, certificate) = (&entry.authority, &own.certificate);
        let cmk = certificate.cmk.and_then(|cmk| self.0.shared.keyring.cmk(&cmk));
        let validity = certificate.facts.as_ref().map(|facts| facts.validity);
        Ok(CertificateAuthorityRow {
            authority_name: authority.name.clone(),
            certificate_id: authority.certificate,
            parent: authority.parent.clone(),
            status: authority.state,
            subject: keymill_core::certificate::DistinguishedName::parse(&certificate.subject)?,
            key_spec: certificate.spec.unwrap_or(KeySpec::EcP256),
            protection_level: cmk.map_or(ProtectionLevel::Software, |cmk| cmk.cmk.protection),
            not_before: validity.map(|validity| validity.not_before),
            not_after: validity.map(|validity| validity.not_after),
        })
    }
}
