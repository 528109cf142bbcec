//! Chains of certificates: read from PEM, and checked as RFC 5280 §6.1 says, with the last certificate taken for the anchor.

use keymill_core::Result;
use keymill_core::certificate::{AltName, KeyPurpose};
use keymill_core::time::Timestamp;

use crate::{Certificate, MAX_CHAIN, MAX_DER_BYTES, invalid, pem, shown};

/// Reads certificates in PEM, in their order.
///
/// # Errors
/// `InvalidParameter` for a text without any, with more than `most`, with anything but certificates in PEM, and what
/// [`Certificate::read`] refuses, with the number of the certificate.
pub fn read_pem_chain(text: &str, most: usize) -> Result<Vec<Certificate>> {
    let blocks = pem::read("chain", text, most, MAX_DER_BYTES)?;
    if blocks.is_empty() {
        return Err(invalid("chain: no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    }
    let mut chain = Vec::with_capacity(blocks.len());
    for (number, (label, der)) in (1..).zip(blocks) {
        // Labels are the sender's, and may be those of keys.
        if !matches!(label, "CERTIFICATE" | "X509 CERTIFICATE") {
            return Err(invalid(format!("chain: block {number} is no certificate")));
        }
        let certificate = Certificate::read(&der)
            .map_err(|error| invalid(format!("chain: certificate {number}: {error}")))?;
        chain.push(certificate);
    }
    Ok(chain)
}

/// Checks a chain: the leaf first, each next one the issuer of the one before, the root last if it is there.
///
/// # Errors
/// `InvalidParameter`, naming the certificate and what is wrong with it: its place, its time, a signature, an issuer that is no authority
/// or may not have so many below it, a name that an authority above may not certify.
pub fn check_chain(chain: &[Certificate], now: Timestamp) -> Result<()> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(invalid(format!("chain: 1 to {MAX_CHAIN} certificates, not {}", chain.len())));
    }
    for (at, certificate) in chain.iter().enumerate() {
        let wrong = |why: String| wrong(chain, at, &why);
        if chain[..at].iter().any(|earlier| earlier.der == certificate.der) {
            return Err(wrong("it is there twice".into()));
        }
        if now < certificate.validity.not_before {
            return Err(wrong(format!("it is not valid before {}", certificate.validity.not_before)));
        }
        if now > certificate.validity.not_after {
            return Err(wrong(format!("it expired on {}", certificate.validity.not_after)));
        }
        match chain.get(at + 1) {
            Some(issuer) => check_issuer(chain, at, issuer)?,
            None if certificate.is_self_issued() => {
                certificate.is_signed_by(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            None => {}
        }
    }
    check_names(chain)
}

/// Checks that what follows a certificate is its issuer, and may be.
fn check_issuer(chain: &[Certificate], at: usize, issuer: &Certificate) -> Result<()> {
    let certificate = &chain[at];
    let wrong = |at, why: &str| Err(wrong(chain, at, why));
    if !crate::name::is_same(&certificate.issuer_der, &issuer.subject_der) {
        let why = format!(
            "it was issued by {}, and {} follows: the chain is out of order, or lacks a certificate",
            shown(&certificate.issuer),
            shown(&issuer.subject)
        );
        return wrong(at, &why);
    }
    // The identifier says which of several keys of that name it was.
    if let (Some(id), Some(own)) = (&certificate.authority_key_id, &issuer.subject_key_id)
        && id != own
    {
        return wrong(
            at,
            "it was signed by another key of its issuer than that of the certificate that follows",
        );
    }
    certificate.is_signed_by(issuer)?;
    let Some(length) = issuer.authority else {
        return wrong(at + 1, "it is no authority (basic constraints), and a certificate stands below it");
    };
    if !issuer.key_purposes.is_empty() && !issuer.key_purposes.contains(&KeyPurpose::KeyCertSign) {
        return wrong(at + 1, "its key may not sign certificates (key usage)");
    }
    // RFC 5280 §6.1.4 (l): those that their own name issued do not count; nor does the last of the path.
    let below = chain[1..=at].iter().filter(|certificate| !certificate.is_self_issued()).count();
    match length {
        Some(length) if below > usize::from(length) => {
            let why = format!("{length} authorities may stand below it (path length), and {below} do");
            wrong(at + 1, &why)
        }
        _ => Ok(()),
    }
}

/// Checks the names of each certificate against the constraints of all above it (RFC 5280 §6.1.3 (b) and (c)).
fn check_names(chain: &[Certificate]) -> Result<()> {
    for (above, authority) in chain.iter().enumerate().skip(1) {
        let Some(constraints) = &authority.constraints else { continue };
        for (at, certificate) in chain[..above].iter().enumerate() {
            if at > 0 && certificate.is_self_issued() {
                continue;
            }
            let mut names = certificate.alt_names.clone();
            // A common name that is a host's is taken for one where there is no alternative name, by clients of old.
            if at == 0
                && names.is_empty()
                && let Some(Ok(name)) = certificate.common_name.as_deref().map(AltName::dns)
            {
                names.push(name);
            }
            if let Err(why) = constraints.check(&certificate.subject_der, &names) {
                let why = format!("{why} by the name constraints of {}", shown(&authority.subject));
                return Err(wrong(chain, at, &why));
            }
        }
    }
    Ok(())
}

fn wrong(chain: &[Certificate], at: usize, why: &str) -> keymill_core::Error {
    invalid(format!("chain: certificate {} ({}): {why}", at + 1, shown(&chain[at].subject)))
}
