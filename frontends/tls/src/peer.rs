//! Who is at the other end, by its certificate: the fingerprint, and the URIs of its subject alternative name. Bounded, since a CA may
//! sign what it likes.

use aws_lc_rs::digest::{SHA256, digest};
use keymill_core::seam::auth::PeerCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::error::TlsError;

/// Bytes of a certificate, at most.
const MAX_BYTES: usize = 64 * 1024;
/// URIs of a certificate, at most.
const MAX_URIS: usize = 16;
/// Bytes of a URI, at most: as SPIFFE has it.
const MAX_URI_BYTES: usize = 2048;

/// Reads what identifies the holder of a certificate, whose chain was verified before.
///
/// # Errors
/// [`TlsError`] for a certificate that cannot be read, or names more than is looked at.
pub fn read_peer(der: &[u8]) -> Result<PeerCertificate, TlsError> {
    if der.len() > MAX_BYTES {
        return Err(TlsError::new(format!(
            "certificate of {} bytes exceeds the limit of {MAX_BYTES}",
            der.len()
        )));
    }
    let unreadable = || TlsError::because("the certificate cannot be read");
    let read = Certificate::from_der(der).map_err(unreadable())?;
    let names = read.tbs_certificate().get_extension::<SubjectAltName>().map_err(unreadable())?;
    let mut uris = Vec::new();
    for name in names.map_or_else(Vec::new, |(_, names)| names.0) {
        let GeneralName::UniformResourceIdentifier(uri) = name else { continue };
        if uris.len() == MAX_URIS {
            return Err(TlsError::new(format!("a certificate of more than {MAX_URIS} URIs")));
        }
        let uri = uri.as_str();
        if uri.len() > MAX_URI_BYTES {
            return Err(TlsError::new(format!(
                "URI of {} bytes exceeds the limit of {MAX_URI_BYTES}",
                uri.len()
            )));
        }
        uris.push(uri.to_owned());
    }
    let fingerprint = digest(&SHA256, der).as_ref().try_into().expect("SHA-256 has 32 bytes");
    Ok(PeerCertificate { fingerprint, uris })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::SanType;

    fn certificate(uris: impl IntoIterator<Item = String>) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(["client.example".to_owned()]).unwrap();
        parameters
            .subject_alt_names
            .extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_fingerprint_is_of_the_whole_and_the_uris_come_in_order() {
        let uris = ["spiffe://example/a", "urn:b"].map(str::to_owned);
        let der = certificate(uris.clone());
        let peer = read_peer(&der).unwrap();
        assert_eq!(peer.uris, uris);
        assert_eq!(peer.fingerprint[..], *digest(&SHA256, &der).as_ref());
        assert_ne!(read_peer(&certificate(uris)).unwrap().fingerprint, peer.fingerprint);
        assert_eq!(read_peer(&certificate([])).unwrap().uris, [""; 0]);
    }

    #[test]
    fn more_than_is_looked_at_and_what_is_no_certificate_is_refused() {
        let many = (0..=MAX_URIS).map(|number| format!("urn:{number}"));
        assert!(read_peer(&certificate(many)).unwrap_err().to_string().contains("more than 16 URIs"));
        let long = format!("urn:{}", "a".repeat(MAX_URI_BYTES));
        assert!(read_peer(&certificate([long])).unwrap_err().to_string().contains("limit of 2048"));
        let der = certificate(["urn:a".to_owned()]);
        for bad in [&der[..der.len() - 1], &[&der[..], &[0]].concat(), b"", &[0; MAX_BYTES + 1]] {
            assert!(read_peer(bad).is_err());
        }
    }
}
