//! Certificates that come to be here, and leave: made with a key and a signing request, put to it once they are signed, taken over with their
//! key, and given out with it.

use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::access::Resource;
use keymill_core::certificate::{
    AltName, AttributeKind, CertificateOrigin, CertificateStatus, DistinguishedName, ManagedCertificate,
};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::CertificateId;
use keymill_core::key::{Fallback, KeySpec, ProtectionLevel, Tags};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::provider::KeyMaterial;
use keymill_crypto::random;
use keymill_x509::{Certificate, check_chain, pkcs12, read_pem_chain};

use super::authority::PATIENCE;
use super::certificate::{CertificateReply, facts_of};
use super::manage::{Done, done};
use super::parameters::tags;
use super::plan::Plan;
use super::{Call, Gate};
use crate::actor::keyring::{
    CertificateChange, ChangeCertificate, CreateCertificateKey, CreateCmk, EndCertificateKey, Material,
    PutCertificates, Uploaded,
};
use crate::actor::{Made, Owners, Wanted};
use crate::records::CertificateBodyRecord;
use crate::work::{Job, Served};

/// A certificate whose key is to be made.
pub(super) struct WantedCertificate {
    subject: DistinguishedName,
    alt_names: Vec<AltName>,
    key: Wanted,
    exportable: bool,
    tags: Tags,
}

/// A certificate that is to be taken over.
pub(super) struct WantedImport {
    from: ImportFrom,
    exportable: bool,
    tags: Tags,
}

enum ImportFrom {
    Parts { certificate: String, chain: Option<String>, key: Sensitive },
    Pkcs12 { container: Sensitive, password: Password },
}

impl Gate {
    pub(super) fn plan_new_certificate(&self, job: &mut Job, r: CreateCertificateRequest) -> Result<Plan> {
        self.require(job, Operation::CreateCertificate, Resource::Certificates)?;
        let subject = DistinguishedName::parse(&r.subject).map_err(|error| at("Subject", &error))?;
        let needed = [
            AttributeKind::CommonName,
            AttributeKind::Organization,
            AttributeKind::OrganizationalUnit,
            AttributeKind::Country,
        ];
        if let Some(missing) = needed.into_iter().find(|kind| subject.first(*kind).is_none()) {
            let why = format!("Subject: {} is missing; CN, O, OU and C are needed", missing.name());
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        let alt_names = alt_names(r.subject_alternative_names.unwrap_or_default())?;
        let key = self.key_of_certificate(r.key_spec, r.protection_level)?;
        let exportable = exportable(key.protection, r.exportable_private_key)?;
        let tags = tags_of(r.tags)?;
        let wanted = WantedCertificate { subject, alt_names, key, exportable, tags };
        Ok(Plan::MakeCertificate(Box::new(wanted)))
    }

    /// Checks that certificates have keys of that kind, and that they are made here.
    pub(super) fn key_of_certificate(
        &self,
        spec: KeySpec,
        protection: Option<ProtectionLevel>,
    ) -> Result<Wanted> {
        if keymill_x509::signing_algorithm(spec).is_none() {
            let why = format!("KeySpec: certificates have no key of {}", spec.name());
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        let usage = spec.usage_of_certificate();
        let shared = &self.0.shared;
        let protection = protection.unwrap_or(shared.protection());
        match protection {
            ProtectionLevel::Hsm => shared.pool.check(spec, usage, None)?,
            ProtectionLevel::Software if shared.provider.profile().offers(spec, usage) => {}
            ProtectionLevel::Software => {
                let why = format!("this installation makes no keys of KeySpec {}", spec.name());
                return Err(Error::new(ErrorKind::Unsupported, why));
            }
        }
        Ok(Wanted { spec, usage, protection, bulk_mode: None, fallback: Fallback::Never, stays: false })
    }

    pub(super) async fn make_certificate(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        wanted: WantedCertificate,
        deadline: Instant,
    ) -> Result<Done> {
        let WantedCertificate { subject, alt_names, key, exportable, tags } = wanted;
        let made = self.generate(call, key, None, deadline).await?;
        actors.served_by(made.by);
        let id = CertificateId::from_random(random::array()?);
        let create = self.create_of(call, key.protection, made);
        let new_key = self.0.actors.keyring(CreateCertificateKey(create, id)).await?;
        let cmk = new_key.value.cmk.id;
        let put = async {
            let csr = self.request_of(call, &new_key.value, &subject, &alt_names, deadline).await?;
            let now = self.now();
            let certificate = ManagedCertificate {
                id,
                cmk: Some(cmk),
                spec: Some(key.spec),
                origin: CertificateOrigin::Created,
                status: CertificateStatus::Pending,
                exportable,
                is_authority: false,
                subject: subject.to_string().into(),
                alt_names,
                facts: None,
                issuance: None,
                tags,
                creator: (*call.principal.access_key).clone(),
                created_at: now,
                updated_at: now,
                body_tag: [0; 16],
            };
            let body = CertificateBodyRecord {
                id,
                csr: Some(csr.clone().into()),
                certificate: None,
                chain: Vec::new(),
            };
            let changed = actors.keyring(PutCertificates(vec![(certificate, body)])).await?;
            Ok::<_, Error>((csr, changed))
        };
        match put.await {
            Ok((csr, mut changed)) => {
                changed.writes.splice(..0, new_key.writes);
                let reply = CreateCertificateReply {
                    certificate_id: id,
                    arn: self.certificate_arn(&id),
                    csr: keymill_x509::pem("CERTIFICATE REQUEST", &csr),
                    request_id: call.request_id,
                };
                Ok(done(Reply::CreateCertificate(reply), changed))
            }
            Err(error) => {
                self.take_key_back(cmk).await;
                Err(error)
            }
        }
    }

    /// Returns how the key of a certificate becomes a CMK.
    pub(super) fn create_of(&self, call: &Call, protection: ProtectionLevel, made: Made) -> CreateCmk {
        CreateCmk {
            material: Material::Made(Box::new(made)),
            protection,
            fallback: Fallback::Never,
            description: String::new(),
            creator: (*call.principal.access_key).clone(),
            rotation: None,
            tags: Tags::new(),
            policy: None,
        }
    }

    /// Ends the key of a certificate that does not come. Where that fails, the next start does it.
    pub(super) async fn take_key_back(&self, cmk: keymill_core::id::CmkId) {
        if let Err(error) = self.0.actors.keyring(EndCertificateKey(cmk)).await {
            tracing::warn!(key = %cmk, ?error, "the key of a certificate that was not made is still there");
        }
    }

    pub(super) fn plan_upload(&self, job: &mut Job, r: &UploadCertificateRequest) -> Result<Plan> {
        let entry = self.find_certificate(job, r.certificate_id, Operation::UploadCertificate)?;
        entry.certificate.check_upload()?;
        if entry.certificate.is_authority {
            let why = "an authority signs by it: ActivateCertificateAuthority brings its certificate";
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        let chain = read_chain(&r.certificate, r.certificate_chain.as_deref())?;
        let leaf = &chain[0];
        let of_key = entry.certificate.cmk.and_then(|cmk| self.0.shared.keyring.cmk(&cmk));
        let of_key = of_key.ok_or_else(|| {
            Error::new(ErrorKind::StateConflict, "the certificate has no key here that another could be for")
        })?;
        let own = self.0.shared.stored_key(&of_key, of_key.primary()).map_err(|fault| match fault.kind {
            ErrorKind::KeyNotFound => Error::certificate_not_found(),
            _ => fault.into(),
        })?;
        if own.public_key.as_ref().is_none_or(|public| public.as_der() != leaf.public_key) {
            let why = "Certificate: its key is another than the one that was made for it";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        self.check_signed(&chain)?;
        let before = self.body_of(&entry)?;
        let facts = facts_of(leaf);
        let ders: Vec<Vec<u8>> = chain.iter().map(|one| one.der.clone()).collect();
        let (certificate, chain) = (ders[0].clone(), ders[1..].to_vec());
        let change = CertificateChange::Upload(Box::new(Uploaded { facts, certificate, chain, before }));
        let reply: CertificateReply =
            |request_id| Reply::UploadCertificate(UploadCertificateReply { request_id });
        Ok(Plan::ChangeCertificate { id: entry.certificate.id, change: Box::new(change), reply })
    }

    /// Checks that each of a chain signed the one before it, and that all are valid now.
    fn check_signed(&self, chain: &[Certificate]) -> Result<()> {
        check_chain(chain, self.now())
    }

    pub(super) fn plan_certificate_import(
        &self,
        job: &mut Job,
        r: ImportCertificateRequest<'_>,
    ) -> Result<Plan> {
        self.require(job, Operation::ImportCertificate, Resource::Certificates)?;
        let from = match (r.certificate, r.private_key, r.pkcs12, r.password) {
            (Some(certificate), Some(key), None, None) => {
                let key = Sensitive::copied(&key);
                ImportFrom::Parts { certificate, chain: r.certificate_chain, key }
            }
            (None, None, Some(container), Some(password)) if r.certificate_chain.is_none() => {
                if container.len() > limit::PEM_CHARACTERS {
                    let why = format!("Pkcs12: it is longer than {} bytes", limit::PEM_CHARACTERS);
                    return Err(Error::new(ErrorKind::InvalidParameter, why));
                }
                ImportFrom::Pkcs12 { container: Sensitive::copied(&container), password }
            }
            _ => {
                let why = "either Certificate and PrivateKey are given, or Pkcs12 and Password";
                return Err(Error::new(ErrorKind::InvalidParameter, why));
            }
        };
        let exportable = r.exportable_private_key.unwrap_or(false);
        let tags = tags_of(r.tags)?;
        Ok(Plan::ImportCertificate(Box::new(WantedImport { from, exportable, tags })))
    }

    pub(super) async fn import_certificate(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        wanted: WantedImport,
    ) -> Result<Done> {
        let WantedImport { from, exportable, tags } = wanted;
        let gate = self.clone();
        // What opens a container is slow on purpose.
        let opened = tokio::task::spawn_blocking(move || gate.open_import(from)).await;
        let (made, spec, chain) = opened.map_err(|_| Error::internal("an import was cut off"))??;
        actors.served_by(made.by);
        let id = CertificateId::from_random(random::array()?);
        let create = self.create_of(call, ProtectionLevel::Software, made);
        let new_key = self.0.actors.keyring(CreateCertificateKey(create, id)).await?;
        let cmk = new_key.value.cmk.id;
        let facts = facts_of(&chain[0]);
        let now = self.now();
        let certificate = ManagedCertificate {
            id,
            cmk: Some(cmk),
            spec: Some(spec),
            origin: CertificateOrigin::Imported,
            status: CertificateStatus::Active,
            exportable,
            is_authority: false,
            subject: facts.subject.clone(),
            alt_names: facts.alt_names.clone(),
            facts: Some(facts),
            issuance: None,
            tags,
            creator: (*call.principal.access_key).clone(),
            created_at: now,
            updated_at: now,
            body_tag: [0; 16],
        };
        let mut ders = chain.into_iter().map(|one| one.der);
        let body = CertificateBodyRecord {
            id,
            csr: None,
            certificate: ders.next().map(Into::into),
            chain: ders.map(Into::into).collect(),
        };
        match actors.keyring(PutCertificates(vec![(certificate, body)])).await {
            Ok(mut changed) => {
                changed.writes.splice(..0, new_key.writes);
                let arn = self.certificate_arn(&id);
                let reply = ImportCertificateReply { certificate_id: id, arn, request_id: call.request_id };
                Ok(done(Reply::ImportCertificate(reply), changed))
            }
            Err(error) => {
                self.take_key_back(cmk).await;
                Err(error)
            }
        }
    }

    /// Opens what is imported, and checks that key and certificate belong together. Blocks.
    fn open_import(&self, from: ImportFrom) -> Result<(Made, KeySpec, Vec<Certificate>)> {
        let (key, chain) = match from {
            ImportFrom::Parts { certificate, chain, key } => {
                (key, read_chain(&certificate, chain.as_deref())?)
            }
            ImportFrom::Pkcs12 { container, password } => {
                let (key, ders) = pkcs12::open(container.expose(), password.expose())
                    .map_err(|error| at("Pkcs12", &error))?;
                let read = |der: &Vec<u8>| Certificate::read(der).map_err(|error| at("Pkcs12", &error));
                (key, ders.iter().map(read).collect::<Result<Vec<_>>>()?)
            }
        };
        let leaf = chain.first().ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, "Pkcs12: it holds no certificate of its key")
        })?;
        let spec = leaf.key_spec.filter(|spec| keymill_x509::signing_algorithm(*spec).is_some());
        let spec = spec.ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, "Certificate: its key is of no kind that is kept here")
        })?;
        let shared = &self.0.shared;
        let stored = shared.custody.lock().import(spec, spec.usage_of_certificate(), None, &key);
        // Of what is wrong with a private key nothing is told.
        let stored = stored.map_err(|error| {
            tracing::debug!(%error, "the private key of a certificate was refused");
            Error::new(
                ErrorKind::InvalidParameter,
                "PrivateKey: it is no key of the certificate's kind in PKCS #8",
            )
        })?;
        if stored.public_key.as_ref().is_none_or(|public| public.as_der() != leaf.public_key) {
            let why = "PrivateKey: it is not the key of the certificate";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        self.check_signed(&chain)?;
        let made = Made { key: stored, copy: None, check: None, by: Served::SOFTWARE };
        Ok((made, spec, chain))
    }

    pub(super) fn plan_certificate_export(&self, job: &mut Job, r: ExportCertificateRequest) -> Result<Plan> {
        let entry = self.find_certificate(job, r.certificate_id, Operation::ExportCertificate)?;
        let refused = |why: &'static str| Err(Error::new(ErrorKind::Denied, why));
        if entry.certificate.cmk.is_none() {
            return refused("the private key of the certificate is not here");
        }
        if !entry.certificate.exportable {
            return refused(
                "the private key of the certificate may not leave: ExportablePrivateKey is false",
            );
        }
        if entry.certificate.facts.is_none() {
            let why = "the certificate is PENDING: nobody has signed it yet";
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        if !(8..=64).contains(&r.password.expose().chars().count()) {
            let why = "Password has 8 to 64 characters";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        Ok(Plan::ExportCertificate { id: entry.certificate.id, password: r.password })
    }

    pub(super) async fn export_certificate(
        &self,
        call: &Call,
        (id, password): (CertificateId, Password),
    ) -> Result<Done> {
        let gate = self.clone();
        let sealed = tokio::task::spawn_blocking(move || gate.seal_export(id, &password)).await;
        let (pkcs12, keys) = sealed.map_err(|_| Error::internal("an export was cut off"))??;
        let pkcs12 = pkcs12.into();
        let reply = ExportCertificateReply { certificate_id: id, pkcs12, request_id: call.request_id };
        Ok((Reply::ExportCertificate(reply), keys, Vec::new()))
    }

    /// Packs a certificate, its chain and its private key. Blocks.
    fn seal_export(
        &self,
        id: CertificateId,
        password: &Password,
    ) -> Result<(Vec<u8>, Vec<keymill_core::audit::KeyTouch>)> {
        let shared = &self.0.shared;
        let entry = shared.keyring.certificates.find(&id)?;
        let cmk = entry.certificate.cmk.and_then(|cmk| shared.keyring.cmk(&cmk));
        let cmk = cmk.filter(|_| entry.certificate.exportable).ok_or_else(Error::certificate_not_found)?;
        let stored = shared.stored_key(&cmk, cmk.primary())?;
        let KeyMaterial::Clear(key) = stored.material else {
            return Err(Error::new(ErrorKind::Denied, "the private key of the certificate is in an HSM"));
        };
        let body = self.body_of(&entry)?;
        let chain: Vec<&[u8]> = body.certificate.iter().chain(&body.chain).map(|der| &*der.0).collect();
        let sealed = pkcs12::seal(&id.to_string(), &key, &chain, password.expose())?;
        Ok((sealed, crate::actor::keyring::touched(&cmk)))
    }

    pub(super) async fn change_certificate(
        &self,
        call: &Call,
        actors: &Owners<'_>,
        (id, change, reply): (CertificateId, CertificateChange, CertificateReply),
    ) -> Result<Done> {
        let is_revoked = matches!(change, CertificateChange::Status(CertificateStatus::Revoked));
        let changed = actors.keyring(ChangeCertificate { id, change }).await?;
        let issuance = changed.value.certificate.issuance.as_ref().filter(|_| is_revoked);
        if let Some(issuance) = issuance {
            self.list_soon(&issuance.authority, Instant::now() + PATIENCE).await;
        }
        Ok(done(reply(call.request_id), changed))
    }
}

/// Reads a certificate and those that signed it.
fn read_chain(certificate: &str, chain: Option<&str>) -> Result<Vec<Certificate>> {
    for (text, name) in [(Some(certificate), "Certificate"), (chain, "CertificateChain")] {
        if text.is_some_and(|text| text.len() > limit::PEM_CHARACTERS) {
            let why = format!("{name}: it is longer than {} characters", limit::PEM_CHARACTERS);
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
    }
    let mut all = read_pem_chain(certificate, 1).map_err(|error| at("Certificate", &error))?;
    if let Some(chain) = chain.filter(|chain| !chain.trim().is_empty()) {
        let rest = read_pem_chain(chain, limit::CHAIN_CERTIFICATES - 1);
        all.extend(rest.map_err(|error| at("CertificateChain", &error))?);
    }
    Ok(all)
}

/// Reads alternative names.
///
/// # Errors
/// `InvalidParameter` for too many, for one that is none, and for one that comes twice.
pub(super) fn alt_names(names: Vec<String>) -> Result<Vec<AltName>> {
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
    if names.len() > limit::ALT_NAMES {
        return invalid(format!("SubjectAlternativeNames has up to {} names", limit::ALT_NAMES));
    }
    let read = |name: &String| name.parse().map_err(|error| at("SubjectAlternativeNames", &error));
    let read = names.iter().map(read).collect::<Result<Vec<AltName>>>()?;
    match read.iter().enumerate().find(|(i, name)| read[..*i].contains(name)) {
        Some((_, twice)) => invalid(format!("SubjectAlternativeNames: {twice} comes twice")),
        None => Ok(read),
    }
}

fn exportable(protection: ProtectionLevel, asked: Option<bool>) -> Result<bool> {
    match (protection, asked) {
        (ProtectionLevel::Hsm, Some(true)) => {
            let why = "ExportablePrivateKey: a private key of ProtectionLevel HSM never leaves";
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
        (ProtectionLevel::Hsm, _) => Ok(false),
        (ProtectionLevel::Software, asked) => Ok(asked.unwrap_or(true)),
    }
}

pub(super) fn tags_of(given: Option<Vec<TagPair>>) -> Result<Tags> {
    let pairs = given.unwrap_or_default().into_iter().map(|tag| (tag.tag_key, tag.tag_value));
    Ok(tags(pairs.collect())?.into_iter().collect())
}

/// Names the parameter that an error is about.
pub(super) fn at(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{name}: {}", error.message()))
}
