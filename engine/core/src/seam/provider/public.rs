//! What the public half of a key pair is good for.

use super::JobError;
use crate::key::{DecryptAlgorithm, SignAlgorithm};

/// A public key, decoded once; it may be shared by threads.
pub trait PublicHalf: Send + Sync {
    /// Returns what [`SignJob`](super::SignJob) takes for a message: its digest, of the algorithm's length, or where the algorithm signs
    /// messages the message itself. SM2: SM3(ZA ‖ M) with the default identity (GB/T 35276).
    ///
    /// # Errors
    /// `Rejected` for an algorithm that keys of this specification do not have.
    fn signed(&self, algorithm: SignAlgorithm, message: &[u8]) -> Result<Vec<u8>, JobError>;
    /// Tells whether a signature is one of what was signed. The forms are those of [`SignJob`](super::SignJob); bytes that are no signature
    /// at all do not verify.
    ///
    /// # Errors
    /// `Rejected` for an algorithm that keys of this specification do not have, and for a digest of another length.
    fn verify(&self, algorithm: SignAlgorithm, signed: &[u8], signature: &[u8]) -> Result<bool, JobError>;
    /// Encrypts for the private half; what comes out is as [`DecryptJob`](super::DecryptJob) takes it.
    ///
    /// # Errors
    /// `Rejected` for an algorithm that keys of this specification do not have, for a text that is longer than
    /// [`Self::max_plaintext_bytes`], and for one of no bytes where the algorithm has no ciphertext of that: SM2.
    fn encrypt(&self, algorithm: DecryptAlgorithm, plaintext: &[u8]) -> Result<Vec<u8>, JobError>;
    /// Returns the bytes of a text that may be encrypted, at most; `None` for an algorithm that keys of this specification do not have.
    fn max_plaintext_bytes(&self, algorithm: DecryptAlgorithm) -> Option<usize>;
}
