//! The same through the provider, as the engine does it: batches on its sessions, keys by its custody.

use keymill_bench::token::raw::{AAD, Operation, TEXT_BYTES};
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, DeriveJob, KeyCustody, KeyHandle, ProviderError,
    SessionLost, SignJob, StoredKey,
};

use crate::plugins::pkcs11::{GcmMethod, Pkcs11Provider};

const TAG_BYTES: usize = 16;
/// Derivations of a batch, two CMACs each.
const DERIVATIONS: usize = 128;
/// Signatures of a batch.
const SIGNATURES: usize = 16;

/// What stands in the way of a row.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl From<ProviderError> for Broken {
    fn from(error: ProviderError) -> Self {
        Self(error.to_string())
    }
}

impl From<SessionLost> for Broken {
    fn from(lost: SessionLost) -> Self {
        Self(lost.reason)
    }
}

/// The loaded keys.
pub(super) struct Keys {
    aead: KeyHandle,
    mac: Option<KeyHandle>,
    rsa: Option<KeyHandle>,
    ec: Option<KeyHandle>,
    stored: StoredKey,
}

impl Keys {
    pub(super) fn make(provider: &Pkcs11Provider) -> Result<Self, Broken> {
        let mut custody = provider.custody()?;
        let mut key = |mode| {
            let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(mode))?;
            Ok::<_, ProviderError>((custody.load(&stored)?, stored))
        };
        let (aead, stored) = key(BulkMode::InHsm)?;
        let mac = match provider.profile().derives {
            true => Some(key(BulkMode::HsmDerived)?.0),
            false => None,
        };
        let mut signs = |spec| match provider.profile().offers(spec, KeyUsage::SignVerify) {
            true => custody
                .generate(spec, KeyUsage::SignVerify, None)
                .and_then(|key| custody.load(&key))
                .map(Some),
            false => Ok(None),
        };
        let (rsa, ec) = (signs(KeySpec::Rsa2048)?, signs(KeySpec::EcP256)?);
        Ok(Self { aead, mac, rsa, ec, stored })
    }

    /// How many sessions an operation can take part on, where the provider has it: custody goes one call at a time.
    pub(super) fn sessions(&self, operation: Operation, provider: &Pkcs11Provider) -> Option<usize> {
        let many = provider.profile().max_sessions;
        let message = provider.module_profile().gcm == GcmMethod::Message;
        match operation {
            Operation::Open | Operation::Random => Some(many),
            // Beside the call that the provider makes of it.
            Operation::Seal => (!message).then_some(many),
            Operation::SealMessage => message.then_some(many),
            Operation::Cmac => self.mac.is_some().then_some(many),
            Operation::SignRsa => self.rsa.is_some().then_some(many),
            Operation::SignEc => self.ec.is_some().then_some(many),
            // `load` unwraps, and giving the key back destroys it.
            Operation::Unwrap => Some(1),
            Operation::Wrap | Operation::Generate => None,
        }
    }
}

/// A session of the provider in a thread of its own.
pub(super) struct Worker<'a> {
    provider: &'a Pkcs11Provider,
    session: Box<dyn CryptoSession>,
    custody: Option<Box<dyn KeyCustody>>,
    batch: AeadBatch,
    sealed: Vec<u8>,
    nonces: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn open(
        provider: &'a Pkcs11Provider,
        keys: &Keys,
        operation: Operation,
        number: usize,
    ) -> Result<Self, Broken> {
        let mut worker = Self {
            provider,
            session: provider.open_session()?,
            custody: None,
            batch: AeadBatch::default(),
            sealed: Vec::new(),
            nonces: (number as u64 + 1) << 40,
        };
        worker.batch.aad.extend_from_slice(&AAD);
        for _ in 0..provider.profile().max_batch {
            let start = worker.batch.buffer.len();
            worker.batch.buffer.resize(start + TEXT_BYTES + TAG_BYTES, 7);
            let text = start..start + TEXT_BYTES;
            worker.batch.items.push(AeadItem { nonce: [0; 12], aad: 0..AAD.len(), text, outcome: None });
        }
        if operation == Operation::Unwrap {
            worker.custody = Some(worker.provider.custody()?);
        }
        if operation == Operation::Open {
            worker.anew();
            worker.session.encrypt(&keys.aead, &mut worker.batch)?;
            worker.done()?;
            worker.sealed = worker.batch.buffer.clone();
        }
        Ok(worker)
    }

    /// Gives every item a nonce of its own.
    fn anew(&mut self) {
        for item in &mut self.batch.items {
            self.nonces += 1;
            item.nonce[4..].copy_from_slice(&self.nonces.to_be_bytes());
            item.outcome = None;
        }
    }

    fn done(&self) -> Result<u64, Broken> {
        match self.batch.items.iter().find(|item| item.outcome != Some(Ok(()))) {
            None => Ok(self.batch.items.len() as u64),
            Some(item) => Err(Broken(format!("an item of 1 KiB ends with {:?}", item.outcome))),
        }
    }

    fn sign(&mut self, key: Option<&KeyHandle>, algorithm: SignAlgorithm) -> Result<u64, Broken> {
        let Some(key) = key else { return Err(Broken("the provider makes no such key".into())) };
        let mut jobs: Vec<SignJob> = (0..SIGNATURES).map(|_| SignJob::new(algorithm, vec![7; 32])).collect();
        self.session.sign(key, &mut jobs)?;
        match jobs.iter().all(|job| matches!(job.output, Some(Ok(_)))) {
            true => Ok(SIGNATURES as u64),
            false => Err(Broken("a signature fails".into())),
        }
    }

    /// Does a batch, and returns how many of the module's own operations it stands for.
    pub(super) fn call(&mut self, keys: &Keys, operation: Operation) -> Result<u64, Broken> {
        match operation {
            Operation::Seal | Operation::SealMessage => {
                self.anew();
                self.session.encrypt(&keys.aead, &mut self.batch)?;
                self.done()
            }
            Operation::Open => {
                self.batch.buffer.copy_from_slice(&self.sealed);
                self.batch.items.iter_mut().for_each(|item| item.outcome = None);
                self.session.decrypt(&keys.aead, &mut self.batch)?;
                self.done()
            }
            Operation::Cmac => {
                let Some(key) = &keys.mac else { return Err(Broken("the token has no AES-CMAC".into())) };
                let mut jobs: Vec<DeriveJob> =
                    (0..DERIVATIONS).map(|_| DeriveJob::new([[1; 16], [2; 16]])).collect();
                self.session.derive(key, &mut jobs)?;
                match jobs.iter().all(|job| matches!(job.output, Some(Ok(_)))) {
                    true => Ok(2 * DERIVATIONS as u64),
                    false => Err(Broken("a derivation fails".into())),
                }
            }
            Operation::Random => {
                self.session.random(&mut [0; 32])?;
                Ok(1)
            }
            Operation::Unwrap => {
                let custody = self.custody.as_mut().expect("it was opened for this");
                let key = custody.load(&keys.stored)?;
                custody.unload(key)?;
                Ok(1)
            }
            Operation::SignRsa => self.sign(keys.rsa.as_ref(), SignAlgorithm::RsaPkcs1Sha256),
            Operation::SignEc => self.sign(keys.ec.as_ref(), SignAlgorithm::EcdsaSha256),
            other => Err(Broken(format!("{} has no seam", other.name()))),
        }
    }
}
