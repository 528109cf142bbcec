//! TLS certificates: whom one stands for that a channel has verified.

use keymill_core::access::{AccessSnapshot, Principal};
use keymill_core::id::AccessKeyId;
use keymill_core::seam::auth::{AuthError, Authenticator, Credential};

/// Finds the client key that a TLS certificate stands for. That it is good, and that the caller holds its key, the channel has shown; here it is
/// only asked whose it is.
pub struct CertificateAuthenticator;

impl Authenticator for CertificateAuthenticator {
    fn scheme(&self) -> &'static str {
        "certificate"
    }

    fn authenticate(
        &self,
        offered: &Credential<'_>,
        _signed: &[u8],
        known: &AccessSnapshot,
    ) -> Result<Principal, AuthError> {
        let Credential::Certificate(peer) = *offered else { return Err(AuthError::Unknown) };
        let key = known.certificate(peer).ok_or(AuthError::Unknown)?;
        Ok(Principal::of_client_key(AccessKeyId::from(&key.id), key.aap.clone()))
    }
}

#[cfg(test)]
mod tests {
    use keymill_core::Timestamp;
    use keymill_core::access::{ClientKey, ClientKeyAlgorithm, ClientKeyOrigin, Edit, KnownBy};
    use keymill_core::id::ClientKeyId;
    use keymill_core::seam::auth::PeerCertificate;

    use super::*;

    fn key(number: u8, by: KnownBy) -> ClientKey {
        ClientKey {
            id: ClientKeyId::from_random([number; 16]),
            aap: format!("app-{number}").parse().unwrap(),
            algorithm: ClientKeyAlgorithm::Certificate,
            origin: ClientKeyOrigin::User,
            public_key: Vec::new(),
            shown: String::new(),
            certificate: Some(by),
            not_before: Timestamp::from_ms(0),
            not_after: Timestamp::from_ms(u64::MAX),
            created_at: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn a_certificate_is_whose_fingerprint_or_one_uri_it_has() {
        let mut known = AccessSnapshot::default();
        let (loader, cron) =
            (KnownBy::uri("spiffe://a/loader").unwrap(), KnownBy::uri("spiffe://a/cron").unwrap());
        let pinned = KnownBy::fingerprint(&"07".repeat(32)).unwrap();
        for (number, by) in [(1, loader), (2, cron), (3, pinned)] {
            known.apply(Edit::PutClientKey(key(number, by)));
        }
        let who = |known: &AccessSnapshot, fingerprint: u8, uris: &[&str]| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            let peer = PeerCertificate { fingerprint: [fingerprint; 32], uris };
            let found = CertificateAuthenticator.authenticate(&Credential::Certificate(&peer), b"", known);
            found.map(|principal| principal.aap.unwrap().to_string())
        };
        let app = |name: &str| Ok(name.to_owned());
        assert_eq!(who(&known, 1, &["spiffe://a/loader"]), app("app-1"));
        assert_eq!(who(&known, 1, &["urn:other", "spiffe://a/cron"]), app("app-2"));
        // The pin comes first; two at once are nobody.
        assert_eq!(who(&known, 7, &["spiffe://a/loader"]), app("app-3"));
        assert_eq!(who(&known, 7, &[]), app("app-3"));
        assert_eq!(who(&known, 1, &["spiffe://a/loader", "spiffe://a/cron"]), Err(AuthError::Unknown));
        for stranger in
            [&[][..], &["spiffe://a/loader2"], &["SPIFFE://a/loader"], &["spiffe://a/loader/"], &[""]]
        {
            assert_eq!(who(&known, 1, stranger), Err(AuthError::Unknown), "{stranger:?}");
        }
        // Revoked is unknown; and no signature is one of a certificate.
        let id = ClientKeyId::from_random([1; 16]);
        known.apply(Edit::RemoveClientKey(id.clone()));
        assert_eq!(who(&known, 1, &["spiffe://a/loader"]), Err(AuthError::Unknown));
        let signed = Credential::ClientKey { id: id.as_str(), signature: b"" };
        assert_eq!(CertificateAuthenticator.authenticate(&signed, b"", &known), Err(AuthError::Unknown));
        let second = ClientKeyId::from_random([2; 16]);
        let signed = Credential::ClientKey { id: second.as_str(), signature: b"" };
        let by_key = crate::ClientKeyAuthenticator.authenticate(&signed, b"", &known);
        assert_eq!(by_key, Err(AuthError::Unknown));
    }
}
