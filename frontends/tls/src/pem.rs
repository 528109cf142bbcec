//! Certificates, revocation lists and keys in PEM. What is of another kind in the same file is passed over; a part that is cut short or
//! is no base64 is an error, and so is a file without any of what is wanted.

use rustls::RootCertStore;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::error::TlsError;

/// Parts of one file, at most: a bundle of all public CAs has some 150.
const MAX_PARTS: usize = 1024;
/// Certificates of one's own chain, at most.
const MAX_CHAIN: usize = 16;

fn parts<T: PemObject>(text: &[u8], what: &str) -> Result<Vec<T>, TlsError> {
    let mut found = Vec::new();
    for part in T::pem_slice_iter(text) {
        if found.len() == MAX_PARTS {
            return Err(TlsError::new(format!("more than {MAX_PARTS} {what}s")));
        }
        found.push(part.map_err(|error| unreadable(&error))?);
    }
    match found.is_empty() {
        true => Err(TlsError::new(format!("no {what} in PEM"))),
        false => Ok(found),
    }
}

/// The crate's own text may quote the file, and a key might stand there.
fn unreadable(error: &pem::Error) -> TlsError {
    TlsError::new(match error {
        pem::Error::MissingSectionEnd { .. } => "a part of the PEM has no end",
        pem::Error::Base64Decode(_) => "a part of the PEM is no base64",
        _ => "not in PEM",
    })
}

/// Reads a chain, the end entity first.
pub(crate) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<CertificateDer<'static>> = certificates(text)?;
    match chain.len() > MAX_CHAIN {
        true => Err(TlsError::new(format!(
            "a chain of {} certificates exceeds the limit of {MAX_CHAIN}",
            chain.len()
        ))),
        false => Ok(chain),
    }
}

/// Reads certificates, as many as there are.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parts(text, "certificate")
}

/// Reads certificates and adds them to those that are trusted.
pub(crate) fn trust(text: &[u8], roots: &mut RootCertStore) -> Result<(), TlsError> {
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(TlsError::because("a certificate cannot be trusted"))?;
    }
    Ok(())
}

/// Reads revocation lists.
pub(crate) fn revocations(text: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    parts(text, "revocation list")
}

/// Reads the first private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
pub(crate) fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            Err(TlsError::new("no private key in PEM; one that is encrypted is not read"))
        }
        Err(error) => Err(unreadable(&error)),
    }
}

/// Returns from when to when a certificate is valid, in seconds since 1970.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<(u64, u64), TlsError> {
    let read =
        Certificate::from_der(certificate).map_err(TlsError::because("the certificate cannot be read"))?;
    let validity = read.tbs_certificate().validity();
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    Ok((seconds(validity.not_before), seconds(validity.not_after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T>(outcome: Result<T, TlsError>) -> String {
        outcome.err().expect("it is refused").to_string()
    }

    #[test]
    fn a_chain_is_read_and_what_is_none_is_told_without_what_is_in_it() {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, private) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let both = format!("{certificate}{private}");
        assert_eq!(chain(both.as_bytes()).unwrap().len(), 1);
        assert!(key(both.as_bytes()).is_ok());
        assert!(told(chain(private.as_bytes())).contains("no certificate in PEM"));
        assert!(told(key(certificate.as_bytes())).contains("no private key"));
        assert!(told(chain(b"")).contains("no certificate"));
        assert!(
            told(chain(certificate.repeat(MAX_CHAIN + 1).as_bytes())).contains("exceeds the limit of 16")
        );
        assert!(told(chain(certificate.repeat(MAX_PARTS + 1).as_bytes())).contains("more than 1024"));
        let cut = &private[..private.len() / 2];
        let shown = told(key(cut.as_bytes()));
        assert_eq!(shown, "a part of the PEM has no end");
        let broken =
            private.replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n!marked!");
        let shown = told(key(broken.as_bytes()));
        assert_eq!(shown, "a part of the PEM is no base64");
    }

    #[test]
    fn validity_is_that_of_the_certificate() {
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2001, 9, 9);
        parameters.not_after = rcgen::date_time_ymd(2033, 5, 18);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(validity(certificate.der()).unwrap(), (999_993_600, 1_999_987_200));
        assert!(validity(&CertificateDer::from(vec![0x30, 0])).is_err());
    }
}
