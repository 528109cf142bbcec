//! A certificate of this machine's loopback address, signed by itself, for what is measured over TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keymill_core::certificate::{
    AltName, AttributeKind, DistinguishedName, ExtendedUsage, KeyPurpose, Serial, Template, Validity,
};
use keymill_core::key::SignAlgorithm;
use keymill_core::time::Timestamp;

use crate::error::{BenchError, Result};

/// A certificate and its key.
pub(crate) struct Identity {
    /// The certificate in DER.
    pub(crate) certificate: Vec<u8>,
    /// The key in DER (PKCS #8).
    pub(crate) key: Vec<u8>,
}

impl Identity {
    /// Makes one on P-256, for a day.
    pub(crate) fn new(now: Timestamp) -> Result<Self> {
        let broken = |_| BenchError::new("no key pair was made");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(broken)?;
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(broken)?;
        let subject = vec![(AttributeKind::CommonName, "bench".to_owned())];
        let subject = DistinguishedName::new(subject).map_err(BenchError::from)?;
        let issuer_der = keymill_x509::name_der(&subject).map_err(BenchError::from)?;
        let address = AltName::ip(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(BenchError::from)?;
        let day = Duration::from_secs(86_400);
        let template = Template {
            serial: Serial::from_random([1; 16]),
            issuer_der: &issuer_der,
            subject: &subject,
            alt_names: &[address],
            validity: Validity { not_before: now.minus(day), not_after: now.plus(day) },
            public_key: public.as_ref(),
            authority: None,
            key_purposes: &[KeyPurpose::DigitalSignature],
            extended_usages: &[ExtendedUsage::ServerAuth],
            name_constraints: None,
            authority_key_id: None,
            crl_urls: &[],
            ocsp_urls: &[],
            issuer_urls: &[],
        };
        let to_be_signed =
            keymill_x509::certificate(&template, SignAlgorithm::EcdsaSha256).map_err(BenchError::from)?;
        let signature = key.sign(&SystemRandom::new(), to_be_signed.bytes()).map_err(broken)?;
        let certificate = to_be_signed.finish(signature.as_ref()).map_err(BenchError::from)?;
        let key = key.to_pkcs8v1().map_err(broken)?.as_ref().to_vec();
        Ok(Self { certificate, key })
    }
}
