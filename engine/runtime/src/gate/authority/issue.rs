//! Issuing: what is asked for is read and decided on, all of it signed in one batch of the authority's key, and kept by one commit.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::{Decision, Resource};
use keymill_core::certificate::{
    AltName, CertificateOrigin, CertificateProfile, CertificateStatus, Decided, DistinguishedName, Issuance,
    IssuedSerial, ManagedCertificate, ProfileUsage, Serial, Wanted as Asked,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AapName, AuthorityName, CertificateId, CmkId, ProfileName};
use keymill_core::key::{KeySpec, ProtectionLevel, Tags};
use keymill_core::operation::*;
use keymill_core::time::Timestamp;
use keymill_crypto::random;
use keymill_x509::{Certificate, SigningRequest, pem};

use super::super::certificate::facts_of;
use super::super::certificate_make::tags_of;
use super::super::manage::{Done, done};
use super::super::{Call, Gate};
use super::{AuthorityPlan, Office};
use crate::actor::keyring::{CreateCertificateKey, PutIssued};
use crate::actor::{Changed, Owners, Wanted};
use crate::certificates::CertificateEntry;
use crate::records::CertificateBodyRecord;
use crate::work::Job;

/// The most characters of a request in PEM.
const CSR_CHARACTERS: usize = 64 << 10;

/// A certificate that is to be issued.
pub(in super::super) struct WantedIssue {
    authority: AuthorityName,
    profile: ProfileName,
    key: KeyOf,
    subject: Option<DistinguishedName>,
    alt_names: Option<Vec<AltName>>,
    validity_days: Option<u32>,
    auto_renew: bool,
    exportable: bool,
    tags: Tags,
}

impl WantedIssue {
    /// Returns what a listener of this installation asks for.
    pub(super) fn for_listener(
        authority: AuthorityName,
        profile: ProfileName,
        csr: String,
        tags: Tags,
    ) -> Self {
        Self {
            authority,
            profile,
            key: KeyOf::Csr(csr),
            subject: None,
            alt_names: None,
            validity_days: None,
            auto_renew: false,
            exportable: false,
            tags,
        }
    }

    pub(super) fn authority(&self) -> &AuthorityName {
        &self.authority
    }
}

enum KeyOf {
    /// A request (PKCS #10).
    Csr(String),
    /// One that is made here.
    Made(Wanted),
}

/// What is signed, decided on.
pub(super) struct Drafted {
    pub(super) decided: Decided,
    pub(super) serial: Serial,
    pub(super) public_key: Vec<u8>,
    pub(super) spec: KeySpec,
}

/// What becomes of it beside.
struct Kept {
    id: CertificateId,
    profile: ProfileName,
    cmk: Option<CmkId>,
    validity_days: u32,
    auto_renew: bool,
    exportable: bool,
    tags: Tags,
}

/// A request as it is decided on.
struct Request<'a> {
    profile: &'a ProfileName,
    subject: Option<&'a DistinguishedName>,
    alt_names: &'a [AltName],
    public_key: Vec<u8>,
    spec: KeySpec,
    validity_days: Option<u32>,
    access_point: Option<&'a AapName>,
}

impl Gate {
    pub(super) fn plan_issue(&self, job: &mut Job, r: IssueCertificateRequest) -> Result<AuthorityPlan> {
        let entry = self.find_authority(job, &r.authority_name, Operation::IssueCertificate)?;
        let profile = entry.authority.profile(&r.profile)?;
        self.check_makes_authority(job, &entry.authority.name, &profile)?;
        self.check_signs(&entry)?;
        if profile.usage == ProfileUsage::Ca && r.csr.is_none() {
            let why = "Csr is missing: CreateCertificateAuthority makes authorities whose keys are here";
            return Err(Error::new(ErrorKind::MissingParameter, why));
        }
        let (key, exportable) = match r.csr {
            Some(csr) => {
                let beside = r.key_spec.is_some() || r.protection_level.is_some();
                if beside || r.exportable_private_key == Some(true) {
                    let why = "Csr has its key elsewhere: KeySpec, ProtectionLevel and ExportablePrivateKey are of one that is made here";
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                (KeyOf::Csr(csr), false)
            }
            None => {
                let spec = r.key_spec.unwrap_or(KeySpec::EcP256);
                let wanted = self.key_of_certificate(spec, r.protection_level)?;
                let exportable = r.exportable_private_key.unwrap_or(false);
                if exportable && wanted.protection == ProtectionLevel::Hsm {
                    let why = "ExportablePrivateKey: a private key of ProtectionLevel HSM never leaves";
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                (KeyOf::Made(wanted), exportable)
            }
        };
        let auto_renew = r.auto_renew.unwrap_or(matches!(key, KeyOf::Made(_)));
        Ok(AuthorityPlan::Issue(Box::new(WantedIssue {
            authority: r.authority_name,
            profile: r.profile,
            key,
            subject: r.subject,
            alt_names: r.alt_names,
            validity_days: r.validity_days,
            auto_renew,
            exportable,
            tags: tags_of(r.tags)?,
        })))
    }

    pub(super) fn plan_batch(&self, job: &mut Job, r: BatchIssueCertificateRequest) -> Result<AuthorityPlan> {
        let entry = self.find_authority(job, &r.authority_name, Operation::BatchIssueCertificate)?;
        check_requests(&r.requests)?;
        let profile = entry.authority.profile(&r.profile)?;
        self.check_makes_authority(job, &r.authority_name, &profile)?;
        Ok(AuthorityPlan::IssueMany(r))
    }

    /// Checks the right that is needed beside that of issuing where what is issued is an authority: whoever holds its key certifies what it wants.
    fn check_makes_authority(
        &self,
        job: &mut Job,
        authority: &AuthorityName,
        profile: &CertificateProfile,
    ) -> Result<()> {
        match profile.usage {
            ProfileUsage::Ca => {
                let what = format!("the profile {} makes authorities", profile.name);
                self.check_beside(job, Operation::CreateCertificateAuthority, authority, &what)
            }
            _ => Ok(()),
        }
    }

    /// Checks the rights that are needed beside that of renewing: to make authorities, where it is one of another's, and to change one, where it signs by
    /// this.
    pub(super) fn check_renews(&self, job: &mut Job, entry: &CertificateEntry) -> Result<()> {
        let authorities = &self.0.shared.keyring.certificates.authorities;
        if let Some(own) = authorities.signing_by(&entry.certificate.id) {
            let name = &own.authority.name;
            let what = format!("the authority {name} signs by the certificate");
            return self.check_beside(job, Operation::UpdateCertificateAuthority, name, &what);
        }
        let issuance = entry.certificate.issuance.as_deref();
        let Some((authority, profile)) =
            issuance.and_then(|issuance| Some((&issuance.authority, issuance.profile.as_ref()?)))
        else {
            return Ok(());
        };
        // What is not there any more is refused where it is signed.
        let profile = authorities.find(authority).and_then(|entry| entry.authority.profile(profile));
        profile.map_or(Ok(()), |profile| self.check_makes_authority(job, authority, &profile))
    }

    /// Checks a right that is needed beside another, which the caller has: it knows of the authority.
    fn check_beside(
        &self,
        job: &mut Job,
        right: Operation,
        authority: &AuthorityName,
        what: &str,
    ) -> Result<()> {
        let Decision { allowed, rule } = self.decide(job, right, Resource::Authority(authority));
        match allowed {
            true => Ok(()),
            false => {
                job.rule = Some(rule);
                let why =
                    format!("{what}: the right to {} of authority/{authority} is missing", right.name());
                Err(Error::new(ErrorKind::Denied, why))
            }
        }
    }

    pub(super) async fn issue_one(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        wanted: WantedIssue,
        deadline: Instant,
    ) -> Result<Done> {
        let office = Arc::new(self.office(&wanted.authority)?);
        let id = CertificateId::from_random(random::array()?);
        let WantedIssue { profile, subject, alt_names, validity_days, key, .. } = &wanted;
        let access_point = call.principal.aap.as_ref();
        let (asked, new_key) = match key {
            KeyOf::Csr(csr) => {
                let csr = read_csr(csr)?;
                let beside = (subject.as_ref(), alt_names.as_deref());
                let asked = csr_asked(profile, beside, &csr, *validity_days, access_point)?;
                (self.draft(&office, asked)?, None)
            }
            KeyOf::Made(key) => {
                let request = |public_key| Request {
                    profile,
                    subject: subject.as_ref(),
                    alt_names: alt_names.as_deref().unwrap_or_default(),
                    public_key,
                    spec: key.spec,
                    validity_days: *validity_days,
                    access_point,
                };
                // Before a key is made for it.
                self.draft(&office, request(Vec::new()))?;
                let made = self.generate(call, *key, None, deadline).await?;
                actors.served_by(made.by);
                let public = made.key.public_key.as_ref().map(|public| public.as_der().to_vec());
                let public = public.ok_or_else(|| Error::internal("a pair has no public half"))?;
                let create = self.create_of(call, key.protection, made);
                let new_key = self.0.actors.keyring(CreateCertificateKey(create, id)).await?;
                let drafted = self.draft(&office, request(public));
                match drafted {
                    Ok(drafted) => (drafted, Some(new_key)),
                    Err(error) => {
                        self.take_key_back(new_key.value.cmk.id).await;
                        return Err(error);
                    }
                }
            }
        };
        let cmk = new_key.as_ref().map(|key| key.value.cmk.id);
        let kept = Kept {
            id,
            profile: wanted.profile.clone(),
            cmk,
            validity_days: days_of(wanted.validity_days, &office, &wanted.profile)?,
            auto_renew: wanted.auto_renew,
            exportable: wanted.exportable,
            tags: wanted.tags,
        };
        match self.sign_and_keep(call, actors, &office, vec![(asked, kept)], deadline).await {
            Ok((mut changed, mut ders)) => {
                if let Some(new_key) = new_key {
                    changed.writes.splice(..0, new_key.writes);
                }
                let der = ders.pop().ok_or_else(|| Error::internal("a certificate was not issued"))?;
                let entry = &changed.value[0];
                let reply = Reply::IssueCertificate(issued_reply(call, entry, &der, &office)?);
                Ok(done(reply, changed))
            }
            Err(error) => {
                if let Some(cmk) = cmk {
                    self.take_key_back(cmk).await;
                }
                Err(error)
            }
        }
    }

    pub(super) async fn issue_many(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        r: BatchIssueCertificateRequest,
        deadline: Instant,
    ) -> Result<Done> {
        let office = Arc::new(self.office(&r.authority_name)?);
        office.authority().profile(&r.profile)?;
        self.check_signs(&office.entry)?;
        let BatchIssueCertificateRequest { profile, requests, validity_days, .. } = r;
        let (at, aap) = (office.clone(), call.principal.aap.clone());
        // Each request is signed by its key, and that is checked: a batch of them takes a while.
        let drafted =
            self.aside(move |gate| Ok(gate.draft_all(&at, (profile, requests, validity_days), aap.as_ref())));
        let drafted = drafted.await?;
        let mut outcomes = Vec::with_capacity(drafted.len());
        let mut new = Vec::with_capacity(drafted.len());
        for one in drafted {
            match one {
                Ok(one) => {
                    outcomes.push(None);
                    new.push(one);
                }
                Err(error) => outcomes.push(Some(CertificateOutcome::refused(&error))),
            }
        }
        let (changed, ders) = match new.is_empty() {
            true => (Changed { value: Vec::new(), keys: Vec::new(), writes: Vec::new() }, Vec::new()),
            false => self.sign_and_keep(call, actors, &office, new, deadline).await?,
        };
        let mut issued = changed.value.iter().zip(ders);
        let certificates = outcomes.into_iter().map(|refused| match refused {
            Some(refused) => Ok(refused),
            None => {
                let (entry, der) =
                    issued.next().ok_or_else(|| Error::internal("a certificate was not issued"))?;
                let newest = newest_of(entry)?;
                Ok(CertificateOutcome {
                    certificate_id: Some(entry.certificate.id),
                    certificate: Some(pem("CERTIFICATE", &der)),
                    serial_number: Some(newest.serial),
                    not_after: Some(newest.validity.not_after),
                    is_shortened: is_shortened(entry),
                    code: None,
                    message: None,
                })
            }
        });
        let reply = BatchIssueCertificateReply {
            certificates: certificates.collect::<Result<_>>()?,
            certificate_chain: chain_pem(&office.chain()),
            request_id: call.request_id,
        };
        Ok(done(Reply::BatchIssueCertificate(reply), changed))
    }

    /// Reads and decides on all requests of a batch. Blocks.
    #[allow(clippy::type_complexity)]
    fn draft_all(
        &self,
        office: &Office,
        (profile, requests, days): (ProfileName, Vec<CertificateAsked>, Option<u32>),
        aap: Option<&AapName>,
    ) -> Vec<Result<(Drafted, Kept)>> {
        let one = |asked: &CertificateAsked| {
            let csr = read_csr(&asked.csr)?;
            let beside = (asked.subject.as_ref(), asked.alt_names.as_deref());
            let drafted = self.draft(office, csr_asked(&profile, beside, &csr, days, aap)?)?;
            let kept = Kept {
                id: CertificateId::from_random(random::array()?),
                profile: profile.clone(),
                cmk: None,
                validity_days: days_of(days, office, &profile)?,
                auto_renew: false,
                exportable: false,
                tags: Tags::new(),
            };
            Ok((drafted, kept))
        };
        // To check a signature takes as long as to make one: all processors do.
        let threads =
            std::thread::available_parallelism().map_or(1, usize::from).min(requests.len().div_ceil(16));
        let part = requests.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let parts: Vec<_> = requests
                .chunks(part)
                .map(|part| scope.spawn(|| part.iter().map(one).collect::<Vec<_>>()))
                .collect();
            let joined = parts
                .into_iter()
                .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect()
        })
    }

    /// Decides what is signed for a request.
    fn draft(&self, office: &Office, request: Request<'_>) -> Result<Drafted> {
        // It is empty where the key is yet to be made here.
        if !request.public_key.is_empty() {
            self.0.shared.keyring.certificates.authorities.check_key(&request.public_key)?;
        }
        let profile = office.authority().profile(request.profile)?;
        let asked = Asked {
            subject: request.subject,
            alt_names: request.alt_names,
            key_spec: request.spec,
            validity_days: request.validity_days,
            access_point: request.access_point,
        };
        let decided = office.decide(|issuer| issuer.decide(&profile, &asked, self.now()))?;
        let serial = Serial::from_random(random::array()?);
        Ok(Drafted { decided, serial, public_key: request.public_key, spec: request.spec })
    }

    /// Signs what was decided on, in one batch; returns each with what came with it and the certificate that it became.
    pub(super) async fn sign_drafts<K: Send + 'static>(
        &self,
        call: &Call,
        office: &Arc<Office>,
        drafts: Vec<(Drafted, K)>,
        deadline: Instant,
    ) -> Result<Vec<(Drafted, K, Certificate)>> {
        let (call, office) = (call.clone(), office.clone());
        let signed = move |gate: &Self| {
            let own = &office.signer;
            let issuer = (&own.certificate.subject_der[..], Some(&own.key_id[..]));
            let part = |(drafted, _): &(Drafted, K)| {
                let template =
                    drafted.decided.template(drafted.serial, &drafted.public_key, issuer, None, &office.urls);
                keymill_x509::certificate(&template, office.algorithm)
            };
            let parts = drafts.iter().map(part).collect::<Result<Vec<_>>>()?;
            let ders = gate.sign_now(&call, office.key.clone(), office.algorithm, parts, deadline)?;
            let whole = |((drafted, beside), der): ((Drafted, K), Vec<u8>)| {
                Ok((drafted, beside, Certificate::read(&der)?))
            };
            drafts.into_iter().zip(ders).map(whole).collect()
        };
        self.aside(signed).await
    }

    async fn sign_and_keep(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        office: &Arc<Office>,
        new: Vec<(Drafted, Kept)>,
        deadline: Instant,
    ) -> Result<(Changed<Vec<Arc<CertificateEntry>>>, Vec<Vec<u8>>)> {
        let (chain, now) = (office.chain(), self.now());
        let (mut records, mut ders) = (Vec::with_capacity(new.len()), Vec::with_capacity(new.len()));
        for (drafted, kept, read) in self.sign_drafts(call, office, new, deadline).await? {
            let body = CertificateBodyRecord { id: kept.id, ..body(&read, &chain) };
            records.push((record_of(call, office, (drafted, kept), &read, now), body));
            ders.push(read.der);
        }
        let put = PutIssued { authority: office.authority().name.clone(), new: records };
        Ok((actors.keyring(put).await?, ders))
    }
}

fn record_of(
    call: &Call,
    office: &Office,
    (drafted, kept): (Drafted, Kept),
    read: &Certificate,
    now: Timestamp,
) -> ManagedCertificate {
    let Drafted { decided, serial, spec, .. } = drafted;
    let issued = IssuedSerial { serial, validity: decided.validity, revocation: None };
    ManagedCertificate {
        id: kept.id,
        cmk: kept.cmk,
        spec: Some(spec),
        origin: CertificateOrigin::Issued,
        status: CertificateStatus::Active,
        exportable: kept.exportable,
        is_authority: false,
        subject: read.subject.as_str().into(),
        alt_names: Vec::new(),
        facts: Some(facts_of(read)),
        issuance: Some(Box::new(Issuance {
            authority: office.authority().name.clone(),
            profile: Some(kept.profile),
            subject: decided.subject,
            alt_names: decided.alt_names,
            validity_days: kept.validity_days,
            auto_renew: kept.auto_renew,
            asked_by: (*call.principal.access_key).clone(),
            access_point: call.principal.aap.clone(),
            serials: vec![issued],
        })),
        tags: kept.tags,
        creator: (*call.principal.access_key).clone(),
        created_at: now,
        updated_at: now,
        body_tag: [0; 16],
    }
}

/// Returns the bytes that are kept of a certificate; whose they are is yet to be said.
pub(super) fn body(read: &Certificate, chain: &[Vec<u8>]) -> CertificateBodyRecord {
    CertificateBodyRecord {
        id: CertificateId::from_bytes([0; 16]),
        csr: None,
        certificate: Some(read.der.clone().into()),
        chain: chain.iter().cloned().map(Into::into).collect(),
    }
}

/// Returns how long a certificate was asked for, for when it is renewed.
fn days_of(asked: Option<u32>, office: &Office, profile: &ProfileName) -> Result<u32> {
    match asked {
        Some(days) => Ok(days),
        None => Ok(office.authority().profile(profile)?.validity_days),
    }
}

pub(super) fn read_csr(text: &str) -> Result<SigningRequest> {
    if text.len() > CSR_CHARACTERS {
        let why = format!("Csr: it is longer than {CSR_CHARACTERS} characters");
        return Err(Error::new(ErrorKind::InvalidParameter, why));
    }
    SigningRequest::read(text.as_bytes()).map_err(|error| super::super::certificate_make::at("Csr", &error))
}

pub(super) fn spec_of(csr: &SigningRequest) -> Result<KeySpec> {
    csr.key_spec.ok_or_else(|| {
        Error::new(ErrorKind::InvalidParameter, "Csr: its key is of no kind that is certified here")
    })
}

fn csr_asked<'a>(
    profile: &'a ProfileName,
    (subject, alt_names): (Option<&'a DistinguishedName>, Option<&'a [AltName]>),
    csr: &'a SigningRequest,
    validity_days: Option<u32>,
    access_point: Option<&'a AapName>,
) -> Result<Request<'a>> {
    Ok(Request {
        profile,
        subject: subject.or(csr.subject.as_ref()),
        alt_names: alt_names.unwrap_or(&csr.alt_names),
        public_key: csr.public_key.clone(),
        spec: spec_of(csr)?,
        validity_days,
        access_point,
    })
}

pub(super) fn newest_of(entry: &CertificateEntry) -> Result<IssuedSerial> {
    let issuance = entry.certificate.issuance.as_ref();
    issuance
        .and_then(|issuance| issuance.newest().copied())
        .ok_or_else(|| Error::internal("what was issued has a number"))
}

/// Tells whether it ends earlier than was asked for, where it does.
pub(super) fn is_shortened(entry: &CertificateEntry) -> Option<bool> {
    entry.certificate.issuance.as_ref().and_then(|issuance| issuance.is_shortened().then_some(true))
}

pub(super) fn chain_pem(chain: &[Vec<u8>]) -> String {
    chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

fn issued_reply(
    call: &Call,
    entry: &CertificateEntry,
    der: &[u8],
    office: &Office,
) -> Result<IssueCertificateReply> {
    let newest = newest_of(entry)?;
    Ok(IssueCertificateReply {
        certificate_id: entry.certificate.id,
        certificate: pem("CERTIFICATE", der),
        certificate_chain: chain_pem(&office.chain()),
        serial_number: newest.serial,
        not_before: newest.validity.not_before,
        not_after: newest.validity.not_after,
        is_shortened: is_shortened(entry),
        request_id: call.request_id,
    })
}
