#![doc = include_str!("../README.md")]

mod custody;
mod key;
mod session;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::blob::Algorithm;
use keymill_core::key::{KeySpec, ProtectionLevel};
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
    key::random(&mut generation).map_err(OpenError)?;
    key::self_test().map_err(OpenError)?;
    Ok(SoftwareProvider {
        generation: u64::from_be_bytes(generation),
        custody_taken: Arc::default(),
        profile: ProviderProfile {
            name: "software",
            protection: ProtectionLevel::Software,
            specs: vec![KeySpec::Aes256],
            algorithms: vec![Algorithm::Aes256Gcm],
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
    custody_taken: Arc<AtomicBool>,
}

impl CryptoProvider for SoftwareProvider {
    fn profile(&self) -> &ProviderProfile {
        &self.profile
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        Ok(Box::new(SoftwareSession::new(self.generation)))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        if self.custody_taken.swap(true, Ordering::AcqRel) {
            return Err(ProviderError::Unavailable("the control lane is taken".into()));
        }
        Ok(Box::new(SoftwareCustody::new(self.generation, Arc::clone(&self.custody_taken))))
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
