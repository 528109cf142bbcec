//! Data keys for somebody else's key pair: what a job has in clear is encrypted under a public key that the caller gave, before anything of
//! it is recorded or answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::key::{DecryptAlgorithm, KeySpec};
use keymill_core::seam::provider::{CryptoProvider, JobError, ProviderError, PublicHalf, PublicKey};
use keymill_crypto::digest;

use super::{Fault, Job, Sealing, Sheet, Task};

/// For whom a data key is encrypted.
pub(crate) struct Export {
    half: Arc<dyn PublicHalf>,
    algorithm: DecryptAlgorithm,
    /// The SHA-256 of the public key, in hexadecimal.
    pub(super) recipient: String,
}

impl Export {
    /// Reads the public key that a data key is to be encrypted for.
    ///
    /// # Errors
    /// `InvalidParameter`, naming the parameter that is wrong.
    pub(crate) fn to(
        provider: &dyn CryptoProvider,
        spec: KeySpec,
        algorithm: DecryptAlgorithm,
        public: &[u8],
    ) -> Result<Self> {
        let invalid = |why: String| Error::new(ErrorKind::InvalidParameter, why);
        if !spec.is_key_pair() || spec.decryptions().is_empty() {
            return Err(invalid(format!(
                "WrappingKeySpec: nothing is encrypted for a key of {}",
                spec.name()
            )));
        }
        if !spec.decryptions().contains(&algorithm) {
            let why = format!("WrappingAlgorithm: a key of {} has no {}", spec.name(), algorithm.name());
            return Err(invalid(why));
        }
        let public_key = PublicKey::from_der(public.to_vec());
        // What comes from outside is parsed here: a library that panics over it takes the request alone.
        let half = catch_unwind(AssertUnwindSafe(|| provider.public_half(spec, &public_key)))
            .unwrap_or_else(|_panic| Err(ProviderError::Rejected("the crypto library panicked".into())));
        let none =
            || invalid(format!("PublicKeyBlob: it is no public key of {} that is accepted", spec.name()));
        let half = half.map_err(|error| match error {
            ProviderError::Corrupt(_) | ProviderError::Rejected(_) => none(),
            other => other.into(),
        })?;
        // Nothing is encrypted under a weak one.
        half.max_plaintext_bytes(algorithm).ok_or_else(none)?;
        Ok(Self { half, algorithm, recipient: digest::hex(&digest::sha256(public)) })
    }

    /// Checks that a data key of so many bytes fits.
    ///
    /// # Errors
    /// `LimitExceeded` where it does not.
    pub(crate) fn check(&self, bytes: usize) -> Result<()> {
        let most = self.half.max_plaintext_bytes(self.algorithm).unwrap_or(0);
        match bytes <= most {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::LimitExceeded(Limit::DataKeyBytes),
                format!("data key of {bytes} bytes exceeds the {most} that fit the public key"),
            )),
        }
    }

    fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, Fault> {
        self.check(key.len())?;
        self.half.encrypt(self.algorithm, key).map_err(|error| match error {
            JobError::Rejected => Error::internal("a public key that was accepted does not encrypt").into(),
            other => super::away::job_fault(other),
        })
    }
}

/// Puts the encrypted data key in the place of the clear one, on the sheet of a job that is done; wipes that where it cannot.
pub(super) fn export(job: &mut Job) {
    if job.export.is_none() || job.first_fault.is_some() {
        return;
    }
    // Where the clear key stands: behind the ciphertext of a new one.
    let at = match &job.task {
        Task::Open(_) => 0,
        Task::Seal { what: Sealing::DataKeys { .. }, .. } => 1,
        _ => return,
    };
    let Some(export) = job.export.take() else { return };
    let outcome = replace(&mut job.sheet, at, &export);
    job.export = Some(export);
    if let Err(fault) = outcome {
        job.refuse(fault.into());
    }
}

fn replace(sheet: &mut Sheet, at: usize, export: &Export) -> Result<(), Fault> {
    let clear = sheet.item(at).map(Sensitive::copied);
    let before = match at {
        0 => None,
        _ => sheet.item(0).map(<[u8]>::to_vec),
    };
    sheet.restart();
    let clear = clear.ok_or_else(|| Error::internal("there is no data key to be exported"))?;
    let wrapped = export.wrap(clear.expose())?;
    for item in before.iter().chain([&wrapped]) {
        let copy = |out: &mut [u8]| {
            out.copy_from_slice(item);
            Ok::<(), Fault>(())
        };
        sheet.put(item.len(), copy)?;
    }
    Ok(())
}
