//! The cipher suites and groups that are spoken: those of aws-lc-rs that rustls has, all of them AEAD with an ephemeral exchange.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Returns the provider; it is a value, so that no process-wide default can stand in its place.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::SupportedCipherSuite;
    use rustls::crypto::KeyExchangeAlgorithm;

    // D12: no RC4, no CBC, nothing without forward secrecy, also where 1.2 is allowed.
    #[test]
    fn every_suite_is_aead_with_an_ephemeral_exchange() {
        let suites = provider().cipher_suites.clone();
        assert!(suites.iter().any(|suite| suite.tls13().is_some()));
        for suite in suites {
            let name = format!("{:?}", suite.suite());
            assert!(["_GCM_", "_CHACHA20_POLY1305_"].iter().any(|aead| name.contains(aead)), "{name}");
            if let SupportedCipherSuite::Tls12(suite) = suite {
                assert_eq!(suite.kx, KeyExchangeAlgorithm::ECDHE, "{name}");
            }
        }
    }
}
