//! Wrapped key material, and how it is opened: by the provider of software, which made the wrapping key.

use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::key::WrappingAlgorithm;
use keymill_core::seam::provider::{CryptoProvider, DecryptJob, ProviderError, StoredKey};
use keymill_crypto::import;

/// Key material as it comes.
pub(crate) struct Wrapped {
    pub(crate) provider: Arc<dyn CryptoProvider>,
    pub(crate) key: StoredKey,
    pub(crate) algorithm: WrappingAlgorithm,
    pub(crate) bytes: Vec<u8>,
}

/// Whatever does not open, for one reason or another.
fn refused() -> ProviderError {
    ProviderError::Rejected("the key material does not unwrap".into())
}

impl Wrapped {
    /// Opens it.
    ///
    /// # Errors
    /// `Rejected` for whatever does not open, in the same words for all; `Corrupt` for a wrapping key that is damaged.
    pub(crate) fn open(&self) -> Result<Sensitive, ProviderError> {
        let algorithm = self.algorithm.decryption().ok_or_else(refused)?;
        let has_key = self.algorithm == WrappingAlgorithm::RsaAesKeyWrapSha256;
        let (first, rest) = match self.key.spec.modulus_bytes().filter(|_| has_key) {
            Some(modulus) => self.bytes.split_at_checked(modulus).ok_or_else(refused)?,
            None => (&*self.bytes, &[][..]),
        };
        let mut custody = self.provider.custody()?;
        let handle = custody.load(&self.key)?;
        let mut jobs = [DecryptJob::new(algorithm, first.to_vec())];
        let done = self.provider.open_session()?.decrypt_asymmetric(&handle, &mut jobs);
        custody.unload(handle)?;
        done?;
        let [DecryptJob { output, .. }] = jobs;
        let opened = output.and_then(Result::ok).ok_or_else(refused)?;
        let material = match has_key {
            true => import::unwrap(&opened, rest),
            false => Some(opened),
        };
        // What was never filled in is nobody's key.
        material.filter(|material| !import::is_blank(material)).ok_or_else(refused)
    }
}
