#![doc = include_str!("../README.md")]

mod custody;
mod exponent;
mod import;
mod key;
mod public;
mod random;
mod self_test;
mod session;
mod sm2;
mod spki;
mod symmetric;

use std::fmt;
use std::sync::Arc;

use keymill_core::blob::Algorithm;
use keymill_core::key::{DecryptAlgorithm, KeySpec, ProtectionLevel, SignAlgorithm};
use keymill_core::limit;
use keymill_core::seam::provider::{
    CryptoProvider, CryptoSession, KeyCustody, ProviderError, ProviderProfile, PublicHalf, PublicKey,
};

use crate::custody::SoftwareCustody;
use crate::public::SoftwareHalf;
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
            algorithms: vec![
                Algorithm::Aes256Gcm,
                Algorithm::Aes192Gcm,
                Algorithm::Aes128Gcm,
                Algorithm::Sm4Gcm,
            ],
            signatures: vec![
                SignAlgorithm::RsaPssSha256,
                SignAlgorithm::RsaPkcs1Sha256,
                SignAlgorithm::EcdsaSha256,
                SignAlgorithm::EcdsaSha384,
                SignAlgorithm::Ed25519,
                SignAlgorithm::MlDsa65,
                SignAlgorithm::Sm2Dsa,
                SignAlgorithm::HmacSha256,
                SignAlgorithm::HmacSha384,
                SignAlgorithm::HmacSha512,
            ],
            decryptions: vec![
                DecryptAlgorithm::RsaesOaepSha256,
                DecryptAlgorithm::RsaesOaepSha1,
                DecryptAlgorithm::Sm2Pke,
            ],
            // It is unwrapped before it comes here.
            imports: Vec::new(),
            derives: true,
            inline: true,
            max_batch: limit::BATCH_ITEMS,
            max_item_bytes: usize::MAX,
            max_sessions: MAX_SESSIONS,
        },
    })
}

/// Decodes the public half of a key pair, whoever keeps the private one.
///
/// # Errors
/// `Rejected` for a specification without public halves here, `Corrupt` for an encoding that is no public half of `spec`.
pub fn public_half(spec: KeySpec, public: &PublicKey) -> Result<Arc<dyn PublicHalf>, ProviderError> {
    if !spec.is_key_pair() {
        return Err(ProviderError::Rejected(format!("a key of {} has no public half", spec.name())));
    }
    match SoftwareHalf::decode(spec, public) {
        Some(half) => Ok(Arc::new(half)),
        None => {
            let bytes = public.as_der().len();
            Err(ProviderError::Corrupt(format!("{bytes} bytes are no public half of {}", spec.name())))
        }
    }
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

    fn public_half(&self, spec: KeySpec, public: &PublicKey) -> Result<Arc<dyn PublicHalf>, ProviderError> {
        public_half(spec, public)
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
