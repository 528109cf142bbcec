//! The life of authorities: made with their key and certificate, changed, and ended.

use std::time::Instant;

use keymill_core::access::Resource;
use keymill_core::certificate::{
    Authority, AuthorityState, CertificateOrigin, CertificateStatus, Decided, DistinguishedName, Issuance,
    IssuedSerial, KeyPurpose, ManagedCertificate, NameConstraints, Serial, Urls,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AuthorityName, CertificateId};
use keymill_core::key::{KeySpec, KeyUsage, Tags};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_crypto::random;
use keymill_x509::{Certificate, check_chain, pem, read_pem_chain};

use super::super::certificate::facts_of;
use super::super::certificate_make::at;
use super::super::manage::{Done, done};
use super::super::{Call, Gate};
use super::issue::body;
use super::{AuthorityPlan, Office};
use crate::actor::keyring::{
    ActivateAuthority, ChangeAuthority, CreateAuthority, CreateCertificateKey, CreateCmk, EndAuthority,
    authority_exists,
};
use crate::actor::{Owners, Wanted};
use crate::keyring::CmkEntry;
use crate::records::CertificateBodyRecord;
use crate::work::Job;

/// Days that an authority's certificate is valid where the request does not say.
const DAYS: u32 = 3_650;
/// Hours that its lists are good for, then.
const CRL_HOURS: u32 = 72;

/// An authority that is to be made.
pub(in super::super) struct WantedAuthority {
    authority: Authority,
    subject: DistinguishedName,
    key: Wanted,
    days: u32,
    is_signed_elsewhere: bool,
}

/// A certificate of an authority that one elsewhere signed.
pub(in super::super) struct Signed {
    name: AuthorityName,
    certificate: Certificate,
    chain: Vec<Vec<u8>>,
}

/// What becomes of a new authority's certificate.
struct Certified {
    certificate: Option<Certificate>,
    serial: Option<Serial>,
    chain: Vec<Vec<u8>>,
    csr: Option<Vec<u8>>,
    path_length: Option<u8>,
}

impl Gate {
    pub(super) fn plan_new_authority(
        &self,
        job: &mut Job,
        r: CreateCertificateAuthorityRequest,
    ) -> Result<AuthorityPlan> {
        self.require(job, Operation::CreateCertificateAuthority, Resource::Certificates)?;
        let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidParameter, why));
        let rule = job.rule.take();
        let is_signed_elsewhere = r.is_signed_elsewhere.unwrap_or(false);
        if let Some(parent) = &r.parent {
            if is_signed_elsewhere {
                return invalid("Parent and IsSignedElsewhere exclude each other");
            }
            let parent = self.find_authority(job, parent, Operation::IssueCertificate)?;
            self.check_signs(&parent)?;
            if job.call.principal.aap.is_some() {
                return invalid("an access point makes no authorities: it asks one for certificates");
            }
        }
        job.rule = rule;
        if self.0.shared.keyring.certificates.authorities.authority(&r.authority_name).is_some() {
            return Err(authority_exists());
        }
        let mut key = self.key_of_certificate(r.key_spec.unwrap_or(KeySpec::EcP256), r.protection_level)?;
        // It signs, and decrypts nothing.
        key.usage = KeyUsage::SignVerify;
        self.check_offered(key.spec, key.usage, key.protection, None)?;
        key.fallback = self.fallback(key.protection, None, r.fallback)?;
        let constraints =
            r.name_constraints.map_or_else(|| Ok(NameConstraints::default()), |own| own.read())?;
        let now = self.now();
        let authority = Authority {
            name: r.authority_name,
            // It is yet to be known.
            certificate: CertificateId::from_bytes([0; 16]),
            parent: r.parent,
            state: if is_signed_elsewhere { AuthorityState::Pending } else { AuthorityState::Enabled },
            path_length: r.path_length,
            constraints,
            crl_hours: r.crl_hours.unwrap_or(CRL_HOURS),
            profiles: r.profiles.unwrap_or_default(),
            access_points: r.access_points.unwrap_or_default(),
            creator: (*job.call.principal.access_key).clone(),
            created_at: now,
            updated_at: now,
        };
        authority.check()?;
        let days = r.validity_days.unwrap_or(DAYS);
        // Before a key is made for it.
        match &authority.parent {
            Some(parent) => {
                let office = self.office(parent)?;
                office.decide(|issuer| issuer.decide_authority(&r.subject, days, r.path_length, now))?;
            }
            None => drop(Decided::of_root(&r.subject, days, r.path_length, now)?),
        }
        let subject = r.subject;
        let wanted = WantedAuthority { authority, subject, key, days, is_signed_elsewhere };
        Ok(AuthorityPlan::Create(Box::new(wanted)))
    }

    pub(super) async fn create_authority(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        wanted: WantedAuthority,
        deadline: Instant,
    ) -> Result<Done> {
        let made = self.generate(call, wanted.key, None, deadline).await?;
        actors.served_by(made.by);
        let id = CertificateId::from_random(random::array()?);
        let create = self.create_of(call, wanted.key.protection, made);
        let create = CreateCmk { fallback: wanted.key.fallback, ..create };
        let new_key = self.0.actors.keyring(CreateCertificateKey(create, id)).await?;
        let cmk = new_key.value.cmk.id;
        let name = wanted.authority.name.clone();
        let put = async {
            let certified = self.certify(call, &wanted, &new_key.value, deadline).await?;
            let told = (
                certified.certificate.as_ref().map(Certificate::pem),
                certified.csr.as_ref().map(|csr| pem("CERTIFICATE REQUEST", csr)),
            );
            let message = records_of(call, wanted, (id, new_key.value.cmk.id), certified);
            Ok::<_, Error>((actors.keyring(message).await?, told))
        };
        match put.await {
            Ok((mut changed, (certificate, csr))) => {
                changed.writes.splice(..0, new_key.writes);
                if certificate.is_some() {
                    self.list_soon(&name, deadline).await;
                }
                let reply = CreateCertificateAuthorityReply {
                    authority_name: name,
                    certificate_id: id,
                    certificate,
                    csr,
                    request_id: call.request_id,
                };
                Ok(done(Reply::CreateCertificateAuthority(reply), changed))
            }
            Err(error) => {
                self.take_key_back(cmk).await;
                Err(error)
            }
        }
    }

    /// Has the certificate of a new authority signed: by its parent, by itself, or, where one elsewhere does that, a request for it.
    async fn certify(
        &self,
        call: &Call,
        wanted: &WantedAuthority,
        key: &std::sync::Arc<CmkEntry>,
        deadline: Instant,
    ) -> Result<Certified> {
        let WantedAuthority { authority, subject, days, .. } = wanted;
        if wanted.is_signed_elsewhere {
            let csr = Some(self.request_of(call, key, subject, &[], deadline).await?);
            let path_length = authority.path_length;
            return Ok(Certified { certificate: None, serial: None, chain: Vec::new(), csr, path_length });
        }
        let public_key = self.public_key_of_cmk(key)?;
        let serial = Serial::from_random(random::array()?);
        let certificate = match &authority.parent {
            None => {
                let decided = Decided::of_root(subject, *days, authority.path_length, self.now())?;
                let constraints = &authority.constraints;
                self.sign_root(call, key, (&decided, serial, &public_key, constraints), deadline).await?
            }
            Some(parent) => {
                let office = self.office(parent)?;
                let decided = office.decide(|issuer| {
                    issuer.decide_authority(subject, *days, authority.path_length, self.now())
                })?;
                let of = (&decided, serial, &public_key[..], &authority.constraints);
                let der = self.sign_authority(call, &office, of, deadline).await?;
                let chain = whole_chain(&office);
                let certificate = Certificate::read(&der)?;
                let path_length = decided.authority.flatten();
                return Ok(Certified {
                    certificate: Some(certificate),
                    serial: Some(serial),
                    chain,
                    csr: None,
                    path_length,
                });
            }
        };
        Ok(Certified {
            certificate: Some(certificate),
            serial: Some(serial),
            chain: Vec::new(),
            csr: None,
            path_length: authority.path_length,
        })
    }

    /// Has a root sign its own certificate: of that no list tells, and nobody stands above it.
    pub(super) async fn sign_root(
        &self,
        call: &Call,
        key: &std::sync::Arc<CmkEntry>,
        (decided, serial, public_key, constraints): (&Decided, Serial, &[u8], &NameConstraints),
        deadline: Instant,
    ) -> Result<Certificate> {
        let algorithm = keymill_x509::signing_algorithm(key.cmk.spec)
            .ok_or_else(|| Error::internal("a key that certificates have signs them"))?;
        let own = keymill_x509::name_der(&decided.subject)?;
        let urls = Urls::default();
        let template = decided.template(serial, public_key, (&own, None), Some(constraints), &urls);
        let part = keymill_x509::certificate(&template, algorithm)?;
        let ders = self.sign_all(call, key.clone(), algorithm, vec![part], deadline).await?;
        Certificate::read(ders.first().ok_or_else(|| Error::internal("a root was not signed"))?)
    }

    /// Has an authority sign the certificate of one below it; returns it in DER.
    pub(super) async fn sign_authority(
        &self,
        call: &Call,
        office: &Office,
        (decided, serial, public_key, constraints): (&Decided, Serial, &[u8], &NameConstraints),
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let own = &office.signer;
        let issuer = (&own.certificate.subject_der[..], Some(&own.key_id[..]));
        let template = decided.template(serial, public_key, issuer, Some(constraints), &office.urls);
        let part = keymill_x509::certificate(&template, office.algorithm)?;
        let ders = self.sign_all(call, office.key.clone(), office.algorithm, vec![part], deadline).await?;
        ders.into_iter().next().ok_or_else(|| Error::internal("an authority was not signed"))
    }

    pub(super) fn public_key_of_cmk(&self, key: &CmkEntry) -> Result<Vec<u8>> {
        let stored = self.0.shared.stored_key(key, key.primary())?;
        let public = stored.public_key.ok_or_else(|| Error::internal("a pair has no public half"))?;
        Ok(public.as_der().to_vec())
    }

    pub(super) fn plan_activation(
        &self,
        job: &mut Job,
        r: &ActivateCertificateAuthorityRequest,
    ) -> Result<AuthorityPlan> {
        let entry = self.find_authority(job, &r.authority_name, Operation::ActivateCertificateAuthority)?;
        let conflict = |why: &'static str| Err(Error::new(ErrorKind::StateConflict, why));
        let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidParameter, why));
        if entry.authority.state != AuthorityState::Pending {
            return conflict("the authority has its certificate already");
        }
        for (text, name) in
            [(Some(&r.certificate), "Certificate"), (r.certificate_chain.as_ref(), "CertificateChain")]
        {
            if text.is_some_and(|text| text.len() > limit::PEM_CHARACTERS) {
                let why = format!("{name}: it is longer than {} characters", limit::PEM_CHARACTERS);
                return Err(Error::new(ErrorKind::InvalidParameter, why));
            }
        }
        let mut all = read_pem_chain(&r.certificate, 1).map_err(|error| at("Certificate", &error))?;
        if let Some(chain) = r.certificate_chain.as_ref().filter(|chain| !chain.trim().is_empty()) {
            let rest = read_pem_chain(chain, limit::CHAIN_CERTIFICATES - 1);
            all.extend(rest.map_err(|error| at("CertificateChain", &error))?);
        }
        let own = self.0.shared.keyring.certificates.find(&entry.authority.certificate)?;
        let key = self.key_of_authority(&own)?;
        if all[0].public_key != self.public_key_of_cmk(&key)? {
            return invalid("Certificate: its key is another than the one that was made for it");
        }
        if all[0].authority.is_none() {
            return invalid("Certificate: it is none of an authority (RFC 5280 §4.2.1.9)");
        }
        check_purposes(&all[0].key_purposes)?;
        if DistinguishedName::parse(&all[0].subject)? != DistinguishedName::parse(&own.certificate.subject)? {
            return invalid("Certificate: its subject is another than the authority's");
        }
        check_chain(&all, self.now())?;
        let certificate = all.remove(0);
        let chain = all.into_iter().map(|one| one.der).collect();
        let signed = Signed { name: r.authority_name.clone(), certificate, chain };
        Ok(AuthorityPlan::Activate(Box::new(signed)))
    }

    pub(super) async fn activate_authority(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        Signed { name, certificate, chain }: Signed,
    ) -> Result<Done> {
        let entry = self.0.shared.keyring.certificates.authorities.find(&name)?;
        let own = self.0.shared.keyring.certificates.find(&entry.authority.certificate)?;
        let before = self.body_of(&own)?;
        let kept = CertificateBodyRecord { id: before.id, csr: before.csr, ..body(&certificate, &chain) };
        let path_length = certificate.authority.flatten();
        let facts = facts_of(&certificate);
        let message = ActivateAuthority { name: name.clone(), path_length, facts, body: kept };
        let changed = actors.keyring(message).await?;
        self.list_soon(&name, Instant::now() + super::publish::PATIENCE).await;
        let reply = ActivateCertificateAuthorityReply { authority_name: name, request_id: call.request_id };
        Ok(done(Reply::ActivateCertificateAuthority(reply), changed))
    }

    pub(super) async fn change_authority(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        change: ChangeAuthority,
    ) -> Result<Done> {
        let name = change.name.clone();
        let changed = actors.keyring(change).await?;
        let reply = UpdateCertificateAuthorityReply { authority_name: name, request_id: call.request_id };
        Ok(done(Reply::UpdateCertificateAuthority(reply), changed))
    }

    pub(super) async fn end_authority(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        name: AuthorityName,
    ) -> Result<Done> {
        let changed = actors.keyring(EndAuthority(name.clone())).await?;
        let reply = DeleteCertificateAuthorityReply { authority_name: name, request_id: call.request_id };
        Ok(done(Reply::DeleteCertificateAuthority(reply), changed))
    }
}

/// Checks that a key may sign certificates and lists, where it is said what it is for (RFC 5280 §4.2.1.3).
fn check_purposes(purposes: &[KeyPurpose]) -> Result<()> {
    for (needed, name) in [(KeyPurpose::KeyCertSign, "keyCertSign"), (KeyPurpose::CrlSign, "cRLSign")] {
        if !purposes.is_empty() && !purposes.contains(&needed) {
            let why = format!("Certificate: its key usage has no {name} (RFC 5280 §4.2.1.3)");
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
    }
    Ok(())
}

/// Returns all that stands above what an authority signs.
pub(super) fn whole_chain(office: &Office) -> Vec<Vec<u8>> {
    let own = std::iter::once(office.signer.certificate.der.clone());
    own.chain(office.signer.chain.iter().cloned()).collect()
}

fn records_of(
    call: &Call,
    wanted: WantedAuthority,
    (id, cmk): (CertificateId, keymill_core::id::CmkId),
    certified: Certified,
) -> CreateAuthority {
    let WantedAuthority { mut authority, subject, key, days, .. } = wanted;
    authority.certificate = id;
    authority.path_length = certified.path_length;
    let issuer = authority.parent.clone().unwrap_or_else(|| authority.name.clone());
    let issuance = certified.certificate.as_ref().zip(certified.serial).map(|(read, serial)| {
        Box::new(Issuance {
            authority: issuer,
            profile: None,
            subject: subject.clone(),
            alt_names: Vec::new(),
            validity_days: days,
            // To renew an authority is to tell all who trust it: somebody decides on that.
            auto_renew: false,
            asked_by: (*call.principal.access_key).clone(),
            access_point: None,
            serials: vec![IssuedSerial { serial, validity: read.validity, revocation: None }],
        })
    });
    let certificate = ManagedCertificate {
        id,
        cmk: Some(cmk),
        spec: Some(key.spec),
        origin: match certified.certificate {
            Some(_) => CertificateOrigin::Issued,
            None => CertificateOrigin::Created,
        },
        status: match certified.certificate {
            Some(_) => CertificateStatus::Active,
            None => CertificateStatus::Pending,
        },
        exportable: false,
        is_authority: true,
        subject: subject.to_string().into(),
        alt_names: Vec::new(),
        facts: certified.certificate.as_ref().map(facts_of),
        issuance,
        tags: Tags::new(),
        creator: (*call.principal.access_key).clone(),
        created_at: authority.created_at,
        updated_at: authority.created_at,
        body_tag: [0; 16],
    };
    let body = CertificateBodyRecord {
        id,
        csr: certified.csr.map(Into::into),
        certificate: certified.certificate.map(|read| read.der.into()),
        chain: certified.chain.into_iter().map(Into::into).collect(),
    };
    CreateAuthority { authority, certificate, body }
}
