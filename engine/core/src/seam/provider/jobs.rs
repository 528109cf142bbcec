//! What a session is given to do, each job with its own result.

use std::ops::Range;

use crate::key::{DecryptAlgorithm, SignAlgorithm};
use crate::sensitive::Sensitive;

/// Items of one key and algorithm with 96-bit nonces, as ranges over one owned buffer.
#[derive(Default)]
pub struct AeadBatch {
    /// The texts, each followed by 16 bytes for its tag.
    pub buffer: Vec<u8>,
    /// The associated data of all items.
    pub aad: Vec<u8>,
    /// The items.
    pub items: Vec<AeadItem>,
}

/// One item of an [`AeadBatch`].
pub struct AeadItem {
    /// The nonce.
    pub nonce: [u8; 12],
    /// Where its associated data stands in `aad`.
    pub aad: Range<usize>,
    /// Where its text stands in `buffer`; the 16 bytes behind it are the tag.
    pub text: Range<usize>,
    /// What became of it; `None` until it is done.
    pub outcome: Option<Result<(), JobError>>,
}

/// One derivation of 32 bytes.
pub struct DeriveJob {
    /// The two CMAC inputs, a block each.
    pub messages: [[u8; 16]; 2],
    /// What became of it; `None` until it is done.
    pub output: Option<Result<Sensitive, JobError>>,
}

impl DeriveJob {
    /// Makes a job that is yet to be done.
    pub fn new(messages: [[u8; 16]; 2]) -> Self {
        Self { messages, output: None }
    }
}

/// One signature or MAC.
pub struct SignJob {
    /// How it is made.
    pub algorithm: SignAlgorithm,
    /// The digest that is signed, of exactly the algorithm's length; for Ed25519, ML-DSA and MACs, the message.
    pub input: Vec<u8>,
    /// What became of it; `None` until it is done. RSA: as many bytes as the modulus (RFC 8017). ECDSA: `ECDSA-Sig-Value` in DER
    /// (RFC 3279, 2.2.3). SM2: r and s in DER, too (GB/T 35276). Ed25519: 64 bytes (RFC 8032). ML-DSA-65: 3,309 bytes (FIPS 204). HMAC: the
    /// whole MAC.
    pub output: Option<Result<Vec<u8>, JobError>>,
}

impl SignJob {
    /// Makes a job that is yet to be done.
    pub fn new(algorithm: SignAlgorithm, input: Vec<u8>) -> Self {
        Self { algorithm, input, output: None }
    }
}

/// One text to be opened by a private key.
pub struct DecryptJob {
    /// How it was encrypted.
    pub algorithm: DecryptAlgorithm,
    /// What was encrypted under the public half: of RSA as many bytes as the modulus, of SM2 what [`DecryptAlgorithm::Sm2Pke`] says.
    pub ciphertext: Vec<u8>,
    /// What became of it; `None` until it is done. Whatever does not open is `InvalidCiphertext`, for one reason or another.
    pub output: Option<Result<Sensitive, JobError>>,
}

impl DecryptJob {
    /// Makes a job that is yet to be done.
    pub fn new(algorithm: DecryptAlgorithm, ciphertext: Vec<u8>) -> Self {
        Self { algorithm, ciphertext, output: None }
    }
}

/// Why one job failed while its session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobError {
    /// The ciphertext does not open.
    InvalidCiphertext,
    /// The provider refuses the job: blame the job.
    Rejected,
    /// The handle belongs to an older generation: load the key again.
    StaleHandle,
}
