//! Client keys as they are handed out: a certificate that the key signs itself, which shows its public half, and both in a PKCS #12 container
//! under the caller's password, in the shape that the cloud's SDKs load.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use keymill_core::certificate::{
    AttributeKind, DistinguishedName, ExtendedUsage, KeyPurpose, Serial, Template, Validity,
};
use keymill_core::id::ClientKeyId;
use keymill_core::key::SignAlgorithm;
use keymill_core::{Result, Sensitive};

use crate::{certificate, invalid, name_der, pem, pkcs12};

/// A client key as it is handed out.
pub struct Packaged {
    /// The certificate in PEM (RFC 7468 §5).
    pub certificate: String,
    /// Private key and certificate, under the password.
    pub pkcs12: Vec<u8>,
}

/// Packages an RSA key: PKCS #8 in DER, for a span of time. The certificate has a serial number like every other.
///
/// # Errors
/// `InvalidParameter` where the key is none, or the password has characters that the container has not.
pub fn package(
    key: &Sensitive,
    id: &ClientKeyId,
    validity: Validity,
    serial: Serial,
    password: &str,
) -> Result<Packaged> {
    let none = |_| invalid("the client key is none of RSA");
    let pair = RsaKeyPair::from_pkcs8(key.expose()).map_err(|_| invalid("the client key is none of RSA"))?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(none)?;
    let name = DistinguishedName::new(vec![(AttributeKind::CommonName, id.as_str().to_owned())])?;
    let template = Template {
        serial,
        issuer_der: &name_der(&name)?,
        subject: &name,
        alt_names: &[],
        validity,
        public_key: public.as_ref(),
        authority: None,
        key_purposes: &[KeyPurpose::DigitalSignature],
        extended_usages: &[ExtendedUsage::ClientAuth],
        name_constraints: None,
        authority_key_id: None,
        crl_urls: &[],
        ocsp_urls: &[],
        issuer_urls: &[],
    };
    let part = certificate(&template, SignAlgorithm::RsaPkcs1Sha256)?;
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(&RSA_PKCS1_SHA256, &random, part.bytes(), &mut signature).map_err(none)?;
    let der = part.finish(&signature)?;
    let pkcs12 = pkcs12::seal(id.as_str(), key, &[&der], password)?;
    Ok(Packaged { certificate: pem("CERTIFICATE", &der), pkcs12 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rsa::KeySize;
    use keymill_core::time::Timestamp;
    use p12_keystore::{KeyStore, Pkcs12ImportPolicy};

    #[test]
    fn what_is_handed_out_opens_with_its_password_alone_and_holds_the_key() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = Sensitive::copied(pair.as_der().unwrap().as_ref());
        let id = ClientKeyId::from_random([7; 16]);
        let at = Timestamp::from_ms;
        let span = Validity { not_before: at(1_700_000_000_000), not_after: at(1_800_000_000_000) };
        let package = |key: &Sensitive| package(key, &id, span, Serial::from_random([9; 16]), "secret-1234");
        let Packaged { certificate, pkcs12 } = package(&key).unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let read = &crate::read_pem_chain(&certificate, 1).unwrap()[0];
        assert_eq!((read.subject.clone(), read.validity), (format!("CN={}", id.as_str()), span));
        read.is_signed_by(read).unwrap();
        // By the reader that the client has.
        let open = |password| KeyStore::from_pkcs12(&pkcs12, password, Pkcs12ImportPolicy::Strict);
        let store = open("secret-1234").unwrap();
        let (alias, chain) = store.private_key_chain().unwrap();
        assert_eq!((alias, chain.key().as_der()), (id.as_str(), key.expose()));
        assert_eq!(chain.certs()[0].as_der(), read.der);
        assert!(open("secret-1235").is_err() && open("").is_err());
        // The private half stands nowhere in clear.
        let part = &key.expose()[key.expose().len() - 64..];
        assert!(!pkcs12.windows(part.len()).any(|window| window == part));
        assert!(package(&Sensitive::copied(b"none")).is_err());
    }
}
