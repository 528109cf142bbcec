//! An authority elsewhere, which signs what keymill asks it to.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keymill_core::Timestamp;
use keymill_core::certificate::{AttributeKind, DistinguishedName, KeyPurpose, Serial, Template, Validity};
use keymill_core::key::SignAlgorithm;
use keymill_x509::{SigningRequest, certificate, key_id, name_der, pem};

/// An authority with a key of its own.
pub struct Elsewhere {
    key: EcdsaKeyPair,
    spki: Vec<u8>,
    name: DistinguishedName,
    /// Its own certificate in DER.
    pub der: Vec<u8>,
}

/// What P-256's SubjectPublicKeyInfo begins with (RFC 5480): the point follows.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl Elsewhere {
    /// Makes one whose root is valid for a year around `now`.
    pub fn new(name: &str, now: Timestamp) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).expect("a key");
        let spki = [&P256[..], key.public_key().as_ref()].concat();
        let name = DistinguishedName::new(vec![(AttributeKind::CommonName, name.into())]).expect("a name");
        let mut made = Self { key, spki, name, der: Vec::new() };
        let validity = days(now, -1, 365);
        made.der = made.sign(&Template {
            serial: Serial::from_random([1; 16]),
            issuer_der: &name_der(&made.name).expect("a name"),
            subject: &made.name,
            alt_names: &[],
            validity,
            public_key: &made.spki,
            authority: Some(None),
            key_purposes: &[KeyPurpose::KeyCertSign, KeyPurpose::CrlSign],
            extended_usages: &[],
            name_constraints: None,
            authority_key_id: None,
            crl_urls: &[],
            ocsp_urls: &[],
            issuer_urls: &[],
        });
        made
    }

    fn sign(&self, template: &Template<'_>) -> Vec<u8> {
        let part = certificate(template, SignAlgorithm::EcdsaSha256).expect("a certificate");
        let signature = self.key.sign(&SystemRandom::new(), part.bytes()).expect("a signature");
        part.finish(signature.as_ref()).expect("a certificate")
    }

    /// Signs a request (PEM), for a span of days around `now`; returns the certificate in PEM.
    pub fn certify(&self, csr: &str, now: Timestamp, (from, to): (i64, i64)) -> String {
        let request = SigningRequest::read(csr.as_bytes()).expect("a request whose signature is right");
        let subject = request.subject.expect("a subject");
        let der = self.sign(&Template {
            serial: Serial::from_random([2; 16]),
            issuer_der: &name_der(&self.name).expect("a name"),
            subject: &subject,
            alt_names: &request.alt_names,
            validity: days(now, from, to),
            public_key: &request.public_key,
            authority: None,
            key_purposes: &[KeyPurpose::DigitalSignature],
            extended_usages: &[],
            name_constraints: None,
            authority_key_id: Some(&key_id(&self.spki).expect("a key")),
            crl_urls: &[],
            ocsp_urls: &[],
            issuer_urls: &[],
        });
        pem("CERTIFICATE", &der)
    }

    /// Returns its own certificate in PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }
}

fn days(now: Timestamp, from: i64, to: i64) -> Validity {
    let at = |days: i64| Timestamp::from_ms((now.as_ms() as i64 + days * 86_400_000) as u64 / 1_000 * 1_000);
    Validity { not_before: at(from), not_after: at(to) }
}
