//! The seam to whatever holds keys and computes with them: a token, or this process's memory.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

mod cause;
mod import;
mod jobs;
mod public;
mod stored;

pub use cause::{Cause, FailureCode};
pub use import::{Unwrapped, WrappedImport};
pub use jobs::{AeadBatch, AeadItem, DecryptJob, DeriveJob, JobError, SignJob};
pub use public::PublicHalf;
pub use stored::{Adopt, KeyMaterial, PublicKey, StoredKey, TokenObject, private_key_pem};

use crate::blob::Algorithm;
use crate::error::{Error, ErrorKind};
use crate::key::{
    BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, ProtectionLevel, SignAlgorithm, WrappingAlgorithm,
};
use crate::sensitive::Sensitive;

/// A token, or this process's memory.
pub trait CryptoProvider: Send + Sync {
    /// Returns what the provider can do, found by probing.
    fn profile(&self) -> &ProviderProfile;
    /// Opens a session for the use of keys.
    ///
    /// # Errors
    /// [`ProviderError`] where the provider has no session to give.
    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError>;
    /// Opens a lane for the life of keys. There may be several, and they share what is loaded: one that generates, which can take
    /// seconds, keeps none of the others from loading.
    ///
    /// # Errors
    /// [`ProviderError`] where the provider is down.
    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError>;
    /// Decodes the public half of a key pair of `spec`, to be used for what the private half is not needed for. Nothing of it is secret, and
    /// a token would be slower: the provider of software does this for the keys of all.
    ///
    /// # Errors
    /// `Corrupt` for an encoding that is no public half of `spec`; `Rejected` where the provider does not do this.
    fn public_half(&self, spec: KeySpec, public: &PublicKey) -> Result<Arc<dyn PublicHalf>, ProviderError> {
        let _ = (spec, public);
        Err(ProviderError::Rejected("public keys are used in software".into()))
    }
}

/// What a provider can do.
#[derive(Clone, Debug)]
pub struct ProviderProfile {
    /// The name of the provider in audit records and metrics.
    pub name: &'static str,
    /// Where its keys live in clear.
    pub protection: ProtectionLevel,
    /// The serial number of the token, where keys can stay in it as its objects.
    pub token_serial: Option<String>,
    /// Key specifications that it generates.
    pub specs: Vec<KeySpec>,
    /// Algorithms of `encrypt` and `decrypt`.
    pub algorithms: Vec<Algorithm>,
    /// Algorithms of `sign`, for those keys that have them.
    pub signatures: Vec<SignAlgorithm>,
    /// Algorithms of `decrypt_asymmetric`, for those keys that have them.
    pub decryptions: Vec<DecryptAlgorithm>,
    /// How key material may come wrapped into it (`import_wrapped`).
    pub imports: Vec<WrappingAlgorithm>,
    /// Whether `derive` computes XAES subkeys.
    pub derives: bool,
    /// Whether its sessions compute at once on the caller's thread, so that a lane would cost more than the work.
    pub inline: bool,
    /// Items that one call takes, at most.
    pub max_batch: usize,
    /// Bytes of one item's text, at most: some modules do worse than to refuse a longer one.
    pub max_item_bytes: usize,
    /// Sessions that it gives, at most.
    pub max_sessions: usize,
}

impl ProviderProfile {
    /// Tells whether keys of `spec` are made for `usage`, and something can be done with them then.
    pub fn offers(&self, spec: KeySpec, usage: KeyUsage) -> bool {
        let opens = || {
            !spec.is_key_pair()
                || self.decryptions.iter().any(|algorithm| spec.decryptions().contains(algorithm))
        };
        let signs = || self.signatures.iter().any(|algorithm| spec.signatures().contains(algorithm));
        let works = (!usage.encrypts() || opens()) && (!usage.signs() || signs());
        works && self.specs.contains(&spec) && spec.allows(usage)
    }

    /// Tells whether material of `spec` comes into it wrapped by `algorithm`: a private key under AES alone, since modules differ in what of
    /// one they unwrap by RSA; and a key of RSA alone, since no module was seen to tell the public half of another.
    pub fn imports(&self, spec: KeySpec, algorithm: WrappingAlgorithm) -> bool {
        let carries = !spec.is_key_pair() || (spec.modulus_bytes().is_some() && algorithm.is_hybrid());
        carries && self.imports.contains(&algorithm)
    }
}

/// The life of keys.
pub trait KeyCustody: Send {
    /// Generates material of `spec` for one usage, and returns it as it is to be stored.
    ///
    /// # Errors
    /// `Rejected` for a specification that the profile does not list, a usage that it does not have, or a bulk mode that the
    /// provider does not do.
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError>;
    /// Takes material that was made elsewhere, and returns it as it is to be stored: the bytes of a secret key, or PKCS #8 of a private
    /// one (RFC 5208, RFC 5958), whose public half is derived from it.
    ///
    /// # Errors
    /// `Rejected` as of [`Self::generate`], where it is no key of `spec`, and where the provider takes no such key from outside. What is
    /// wrong with it is said in words, without a byte of it.
    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        material: &Sensitive,
    ) -> Result<StoredKey, ProviderError>;
    /// Generates a pair of `spec` that stays in the token until it is destroyed there, to unwrap material by `algorithm` and for nothing else;
    /// neither half is ever used outside but to wrap. Where that fails, nothing is left there, or the error says that something may be.
    ///
    /// # Errors
    /// `Rejected` for what the profile does not list, and where the provider takes no wrapped material.
    fn generate_wrapping_key(
        &mut self,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError>;
    /// Takes material in that was wrapped by such a pair: it is unwrapped in the token, wrapped there as one that is generated, and at no
    /// time seen outside.
    ///
    /// # Errors
    /// `Rejected` for whatever does not unwrap as a key of its specification, and for other material than `check` is of; why is for the log
    /// alone. `Corrupt` where the token has no such pair any more.
    fn import_wrapped(&mut self, import: &WrappedImport) -> Result<Unwrapped, ProviderError>;
    /// Destroys such a pair; one that is gone already counts as destroyed.
    ///
    /// # Errors
    /// `Rejected` where it is of another token; `Unavailable` where this one is down.
    fn destroy_wrapping_key(&mut self, wrapping: &StoredKey) -> Result<(), ProviderError>;
    /// Generates a key that stays in the token, as one of its objects, and returns where it is: no other token has it. Where that fails,
    /// nothing is left there, or the error says that something may be.
    ///
    /// # Errors
    /// `Rejected` as of [`Self::generate`], and where the provider keeps no keys.
    fn generate_to_stay(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError>;
    /// Takes over a key that is in the token already: finds it, sees that it can neither leave nor do more than one thing, and pins it
    /// by what it does. Nothing is changed there. The key is bound to the token: no other has it.
    ///
    /// # Errors
    /// `Rejected` where there is no such key or more than one, it is not as a key must be, or the provider keeps no keys.
    fn adopt(&mut self, wanted: &Adopt) -> Result<StoredKey, ProviderError>;
    /// Makes stored material usable.
    ///
    /// # Errors
    /// `Corrupt` for material that is not of its specification.
    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError>;
    /// Gives up a handle; the object goes when the last user has dropped it.
    ///
    /// # Errors
    /// [`ProviderError`] where the provider is down.
    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError>;
    /// Destroys whatever the provider itself keeps of a stored key; a key that was adopted is somebody else's, and stays.
    ///
    /// # Errors
    /// [`ProviderError`] where the provider is down.
    fn destroy(&mut self, key: &StoredKey) -> Result<(), ProviderError>;
    /// Does a real operation with a real key: the sign of life.
    ///
    /// # Errors
    /// [`ProviderError`] where it fails.
    fn canary(&mut self) -> Result<(), ProviderError>;
}

/// The use of keys: one conversation, one owner. Each job carries its own result; `SessionLost` means that jobs without a
/// result were not done.
pub trait CryptoSession: Send {
    /// Seals every item of the batch in place and writes its tag.
    ///
    /// # Errors
    /// [`SessionLost`] where the session is gone.
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost>;
    /// Opens every item of the batch in place.
    ///
    /// # Errors
    /// [`SessionLost`] where the session is gone.
    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost>;
    /// Computes 32 bytes for each job: CMAC(K, messages\[0\]) ‖ CMAC(K, messages\[1\]) (SP 800-38B, SP 800-108r1 counter mode).
    ///
    /// # Errors
    /// [`SessionLost`] where the session is gone.
    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost>;
    /// Signs each digest, or computes the MAC of each message.
    ///
    /// # Errors
    /// [`SessionLost`] where the session is gone.
    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost>;
    /// Opens what was encrypted under the public half of a key.
    ///
    /// # Errors
    /// [`SessionLost`] where the session is gone.
    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost>;
    /// Fills `out` with random bytes of the provider.
    ///
    /// # Errors
    /// [`ProviderError`] where its generator fails.
    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError>;
}

/// A loaded key; opaque to all but the provider that made it.
#[derive(Clone)]
pub struct KeyHandle {
    /// The generation of the provider that it belongs to; a handle of an older one is refused, never used.
    pub generation: u64,
    /// The provider's own object.
    pub object: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHandle(generation {})", self.generation)
    }
}

/// The session is gone: close it, open another, and do the unfinished jobs there.
#[derive(Debug)]
pub struct SessionLost {
    /// What the provider said, for the log.
    pub reason: String,
    /// The code that its device returned, as of [`Cause`].
    pub code: Option<FailureCode>,
}

impl<T: Into<Cause>> From<T> for SessionLost {
    fn from(cause: T) -> Self {
        let Cause { reason, code } = cause.into();
        Self { reason, code }
    }
}

/// Why a provider could not do what it was asked.
#[derive(Debug)]
pub enum ProviderError {
    /// The request is not one that the provider takes: blame the request.
    Rejected(String),
    /// The provider is down or has nothing to give: try later.
    Unavailable(Cause),
    /// Stored material is damaged: stop.
    Corrupt(String),
}

impl ProviderError {
    /// Makes an `Unavailable`.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        ProviderError::Unavailable(cause.into())
    }
}

impl From<SessionLost> for ProviderError {
    fn from(lost: SessionLost) -> Self {
        let SessionLost { reason, code } = lost;
        ProviderError::Unavailable(Cause { reason, code })
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProviderError::Rejected(why) => write!(f, "rejected by the provider: {why}"),
            ProviderError::Unavailable(why) => write!(f, "provider unavailable: {why}"),
            ProviderError::Corrupt(why) => write!(f, "stored key material is damaged: {why}"),
        }
    }
}

impl std::error::Error for ProviderError {}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        match &error {
            ProviderError::Rejected(_) => {
                Error::new(ErrorKind::Unsupported, "the crypto provider does not offer this").caused_by(error)
            }
            ProviderError::Unavailable(_) => {
                Error::new(ErrorKind::Unavailable, "the crypto provider is unavailable").caused_by(error)
            }
            ProviderError::Corrupt(_) => {
                Error::new(ErrorKind::Quarantined, "the stored key material is damaged").caused_by(error)
            }
        }
    }
}
