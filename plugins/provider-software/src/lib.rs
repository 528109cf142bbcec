#![doc = include_str!("../README.md")]

mod custody;
mod key;
mod random;
mod self_test;
mod session;
mod symmetric;

use std::fmt;

use keymill_core::blob::Algorithm;
use keymill_core::key::{DecryptAlgorithm, KeySpec, ProtectionLevel, SignAlgorithm};
use keymill_core::limit;
use keymill_core::seam::provider::{
    CryptoProvider, CryptoSession, KeyCustody, ProviderError, ProviderProfile,
};

use crate::custody::SoftwareCustody;
use crate::session::SoftwareSession;

/// Options of the software provider; there are none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {}

/// Opens the provider, after its self-test.
///
/// # Errors
/// [`OpenError`] where there is no randomness, or the library computes wrongly.
pub fn open(_config: Config) -> Result<SoftwareProvider, OpenError> {
    let mut generation = [0; 8];
    random::fill(&mut generation).map_err(OpenError)?;
    self_test::run().map_err(OpenError)?;
    Ok(SoftwareProvider {
        generation: u64::from_be_bytes(generation),
        profile: ProviderProfile {
            name: "software",
            protection: ProtectionLevel::Software,
            token_serial: None,
            specs: KeySpec::ALL.to_vec(),
            algorithms: vec![Algorithm::Aes256Gcm, Algorithm::Aes128Gcm],
            signatures: vec![
                SignAlgorithm::RsaPssSha256,
                SignAlgorithm::RsaPkcs1Sha256,
                SignAlgorithm::EcdsaSha256,
                SignAlgorithm::EcdsaSha384,
                SignAlgorithm::HmacSha256,
            ],
            decryptions: vec![DecryptAlgorithm::RsaesOaepSha256, DecryptAlgorithm::RsaesOaepSha1],
            derives: true,
            inline: true,
            max_batch: limit::BATCH_ITEMS,
            max_item_bytes: usize::MAX,
            max_sessions: MAX_SESSIONS,
        },
    })
}

/// A session holds nothing, so this is only a number that no configuration reaches.
const MAX_SESSIONS: usize = 4096;

/// This process's memory as a provider.
pub struct SoftwareProvider {
    profile: ProviderProfile,
    /// Drawn anew at each opening, so that a handle of an earlier one is told apart.
    generation: u64,
}

impl CryptoProvider for SoftwareProvider {
    fn profile(&self) -> &ProviderProfile {
        &self.profile
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        Ok(Box::new(SoftwareSession::new(self.generation)))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        Ok(Box::new(SoftwareCustody::new(self.generation)))
    }
}

/// The provider cannot be used.
#[derive(Debug)]
pub struct OpenError(ProviderError);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the software provider does not open: {}", self.0)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
