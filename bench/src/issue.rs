//! Certificates issued by an authority of keymill, in batches: by several callers at once, each with a request under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keymill_core::certificate::{AltName, AttributeKind, DistinguishedName};
use keymill_core::id::AuthorityName;
use keymill_core::key::{KeySpec, SignAlgorithm};
use keymill_core::operation::{
    BatchIssueCertificateRequest, CertificateAsked, CreateCertificateAuthorityRequest, Reply,
};

use crate::error::{BenchError, Result};
use crate::fixture::Fixture;

/// Callers at once: while the requests of some are checked, those of others are signed, and those of the rest are kept and wait for the audit.
const CALLERS: usize = 8;

/// Issues certificates by one authority.
pub struct Issuing<'f> {
    fixture: &'f Fixture,
    authority: AuthorityName,
    csrs: Vec<String>,
}

impl<'f> Issuing<'f> {
    /// Makes an authority whose key is of that kind, where keys of the fixture are made, and `batch` requests of keys on P-256.
    ///
    /// # Errors
    /// [`BenchError`] where the server refuses.
    pub fn open(fixture: &'f Fixture, spec: KeySpec, batch: usize) -> Result<Self> {
        let authority: AuthorityName = format!("bench-{}", spec.name().to_lowercase().replace('_', "-"))
            .parse()
            .map_err(BenchError::from)?;
        let subject = name("bench authority")?;
        let request: CreateCertificateAuthorityRequest = serde_json::from_value(serde_json::json!({
            "AuthorityName": authority, "Subject": subject, "KeySpec": spec,
        }))
        .map_err(BenchError::because("authority"))?;
        match fixture.client()?.call(request)?.reply()? {
            Reply::CreateCertificateAuthority(_) => {}
            other => return Err(BenchError::new(format!("an authority was answered by {other:?}"))),
        }
        let csrs = (0..batch).map(csr).collect::<Result<_>>()?;
        Ok(Self { fixture, authority, csrs })
    }

    /// Issues for about so long; returns certificates a second.
    ///
    /// # Errors
    /// [`BenchError`] where one is refused.
    pub fn rate(&self, time: Duration) -> Result<f64> {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| self.pump(&stop, &done))).collect();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            for caller in callers {
                caller.join().map_err(|_| BenchError::new("a caller panicked"))??;
            }
            Ok(())
        })?;
        // What was under way at the end is counted, and so is its time.
        Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
    }

    fn pump(&self, stop: &AtomicBool, done: &AtomicU64) -> Result<()> {
        let client = self.fixture.client()?;
        while !stop.load(Ordering::Relaxed) {
            let asked = |csr: &String| CertificateAsked { csr: csr.clone(), subject: None, alt_names: None };
            let request = BatchIssueCertificateRequest {
                authority_name: self.authority.clone(),
                profile: "server".parse().map_err(BenchError::from)?,
                requests: self.csrs.iter().map(asked).collect(),
                validity_days: None,
                timeout_ms: Some(30_000),
            };
            let answered = client.call(request)?;
            let Reply::BatchIssueCertificate(reply) = answered.reply()? else {
                return Err(BenchError::new("a batch was answered by another reply"));
            };
            if let Some(refused) = reply.certificates.iter().find_map(|one| one.message.clone()) {
                return Err(BenchError::new(format!("a certificate was not issued: {refused}")));
            }
            done.fetch_add(reply.certificates.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn name(text: &str) -> Result<DistinguishedName> {
    DistinguishedName::new(vec![(AttributeKind::CommonName, text.to_owned())]).map_err(BenchError::from)
}

/// Makes a request (PEM) with a key of its own.
fn csr(n: usize) -> Result<String> {
    let broken = |_| BenchError::new("no key pair was made");
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(broken)?;
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(broken)?;
    let host = format!("host-{n}.bench.example");
    let names = [AltName::dns(&host).map_err(BenchError::from)?];
    let request = keymill_x509::request(&name(&host)?, &names, public.as_ref(), SignAlgorithm::EcdsaSha256);
    let request = request.map_err(BenchError::from)?;
    let signature = key.sign(&SystemRandom::new(), request.bytes()).map_err(broken)?;
    let der = request.finish(signature.as_ref()).map_err(BenchError::from)?;
    Ok(keymill_x509::pem("CERTIFICATE REQUEST", &der))
}
