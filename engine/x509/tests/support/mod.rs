//! What these tests share: keys that sign, templates, DER of any shape, and `openssl` to ask.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub(crate) mod raw;

use std::path::Path;
use std::process::Command;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ML_DSA_65_SIGNING, PqdsaKeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use keymill_core::certificate::{
    AltName, DistinguishedName, ExtendedUsage, KeyPurpose, NameConstraints, Serial, Template, Validity,
};
use keymill_core::key::{KeySpec, SignAlgorithm};
use keymill_core::time::Timestamp;
use keymill_x509::{Certificate, ToBeSigned, certificate, key_id, name_der, signing_algorithm};
use sm2::dsa::signature::Signer;

/// A moment within what these tests issue; the clock of `openssl` is within, too.
pub(crate) const NOW: Timestamp = Timestamp::from_ms(1_900_000_000_000);

/// A key pair.
pub(crate) struct Key {
    pub(crate) spec: KeySpec,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    MlDsa(PqdsaKeyPair),
    Sm2(sm2::SecretKey),
}

impl Key {
    pub(crate) fn generate(spec: KeySpec) -> Self {
        let pair = match spec {
            KeySpec::Rsa2048 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            KeySpec::Rsa3072 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).unwrap()),
            KeySpec::EcP256 => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()),
            KeySpec::EcP384 => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap()),
            KeySpec::Ed25519 => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
            KeySpec::MlDsa65 => Pair::MlDsa(PqdsaKeyPair::generate(&ML_DSA_65_SIGNING).unwrap()),
            KeySpec::EcSm2 => {
                let mut scalar = [0; 32];
                aws_lc_rs::rand::fill(&mut scalar).unwrap();
                scalar[0] &= 0x7f;
                Pair::Sm2(sm2::SecretKey::from_slice(&scalar).unwrap())
            }
            other => panic!("no {}", other.name()),
        };
        Self { spec, pair }
    }

    pub(crate) fn ec() -> Self {
        Self::generate(KeySpec::EcP256)
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        fn of<'a>(key: &impl AsDer<PublicKeyX509Der<'a>>) -> Vec<u8> {
            key.as_der().unwrap().as_ref().to_vec()
        }
        match &self.pair {
            Pair::Rsa(pair) => of(pair.public_key()),
            Pair::Ec(pair) => of(pair.public_key()),
            Pair::Ed(pair) => of(pair.public_key()),
            Pair::MlDsa(pair) => of(pair.public_key()),
            Pair::Sm2(key) => {
                use sm2::elliptic_curve::sec1::ToSec1Point;
                let header = hex("3059301306072a8648ce3d020106082a811ccf5501822d034200");
                [&header[..], key.public_key().to_sec1_point(false).as_bytes()].concat()
            }
        }
    }

    /// PKCS #8.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        fn of(key: &impl AsDer<Pkcs8V1Der<'static>>) -> Vec<u8> {
            key.as_der().unwrap().as_ref().to_vec()
        }
        match &self.pair {
            Pair::Rsa(pair) => of(pair),
            Pair::Ec(pair) => pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => of(pair),
            _ => panic!("no PKCS #8 of it"),
        }
    }

    pub(crate) fn algorithm(&self) -> SignAlgorithm {
        signing_algorithm(self.spec).unwrap()
    }

    pub(crate) fn sign(&self, algorithm: SignAlgorithm, message: &[u8]) -> Vec<u8> {
        match (&self.pair, algorithm) {
            (Pair::Rsa(pair), _) => {
                let how = match algorithm {
                    SignAlgorithm::RsaPssSha256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(how, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            (Pair::Ec(pair), _) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            (Pair::Ed(pair), _) => pair.sign(message).as_ref().to_vec(),
            (Pair::MlDsa(pair), _) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                pair.sign(message, &mut signature).unwrap();
                signature
            }
            (Pair::Sm2(key), _) => {
                let key = sm2::dsa::SigningKey::new("1234567812345678", key).unwrap();
                let signature: sm2::dsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
        }
    }

    /// Signs and finishes.
    pub(crate) fn finish(&self, part: ToBeSigned) -> Vec<u8> {
        let signature = self.sign(part.algorithm(), part.bytes());
        part.finish(&signature).unwrap()
    }
}

/// What to issue; every field has a usual value.
pub(crate) struct Wanted<'a> {
    pub(crate) subject: &'a str,
    pub(crate) alt_names: &'a [&'a str],
    pub(crate) authority: Option<Option<u8>>,
    pub(crate) constraints: Option<NameConstraints>,
    pub(crate) validity: Validity,
    pub(crate) usages: &'a [ExtendedUsage],
}

impl<'a> Wanted<'a> {
    pub(crate) fn leaf(subject: &'a str, alt_names: &'a [&'a str]) -> Self {
        let validity = Validity {
            not_before: Timestamp::parse("2025-01-01T00:00:00Z").unwrap(),
            not_after: Timestamp::parse("2049-12-31T23:59:59Z").unwrap(),
        };
        Self { subject, alt_names, authority: None, constraints: None, validity, usages: &[] }
    }

    pub(crate) fn authority(subject: &'a str, length: Option<u8>) -> Self {
        Self { authority: Some(length), ..Self::leaf(subject, &[]) }
    }

    /// Issues it for a key, by an authority; by itself where there is none.
    pub(crate) fn issue(self, key: &Key, by: Option<(&Certificate, &Key)>) -> Certificate {
        let subject = DistinguishedName::parse(self.subject).unwrap();
        let names: Vec<AltName> = self.alt_names.iter().map(|name| name.parse().unwrap()).collect();
        let own = name_der(&subject).unwrap();
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).unwrap();
        let purposes: &[_] = match self.authority {
            Some(_) => &[KeyPurpose::KeyCertSign, KeyPurpose::CrlSign, KeyPurpose::DigitalSignature],
            None => &[KeyPurpose::DigitalSignature],
        };
        let (signer, issuer_der) = match by {
            Some((certificate, signer)) => (signer, &certificate.subject_der),
            None => (key, &own),
        };
        let id = key_id(&signer.spki()).unwrap();
        let template = Template {
            serial: Serial::from_random(serial),
            issuer_der,
            subject: &subject,
            alt_names: &names,
            validity: self.validity,
            public_key: &key.spki(),
            authority: self.authority,
            key_purposes: purposes,
            extended_usages: self.usages,
            name_constraints: self.constraints.as_ref(),
            authority_key_id: by.is_some().then_some(&id[..]),
            crl_urls: &[],
            ocsp_urls: &[],
            issuer_urls: &[],
        };
        Certificate::read(&signer.finish(certificate(&template, signer.algorithm()).unwrap())).unwrap()
    }
}

/// Issues a certificate whose key answers about revocation for an authority (RFC 6960 §4.2.2.2).
pub(crate) fn responder(key: &Key, by: (&Certificate, &Key)) -> Certificate {
    let wanted = Wanted::leaf("CN=responder", &[]);
    Wanted { usages: &[ExtendedUsage::OcspSigning], ..wanted }.issue(key, Some(by))
}

/// Runs `openssl` in a folder; returns what it printed, of both kinds, where it ended well.
pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl runs");
    let told = [&output.stdout[..], b"\n", &output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    if output.status.success() { Ok(told) } else { Err(told) }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Tag, length and contents.
pub(crate) fn tlv(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let mut out = vec![tag];
    match contents.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            let bytes = (long as u32).to_be_bytes();
            let skip = bytes.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | (4 - skip) as u8);
            out.extend(&bytes[skip..]);
        }
    }
    out.extend(contents);
    out
}

pub(crate) fn sequence(contents: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, contents)
}
