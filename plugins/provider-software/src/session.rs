//! The use of keys: a session holds nothing but the generation that its handles must have, and computes where it is called.

use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::{
    AeadBatch, CryptoSession, DecryptJob, DeriveJob, JobError, KeyHandle, ProviderError, SessionLost, SignJob,
};

use crate::key::SoftwareKey;
use crate::random;
use crate::symmetric::SymmetricKey;

pub(crate) struct SoftwareSession {
    generation: u64,
}

impl SoftwareSession {
    pub(crate) fn new(generation: u64) -> Self {
        Self { generation }
    }

    /// Returns the key of a handle that this opening of the provider made.
    fn key<'a>(&self, handle: &'a KeyHandle) -> Result<&'a SoftwareKey, JobError> {
        match handle.object.downcast_ref() {
            Some(key) if handle.generation == self.generation => Ok(key),
            _ => Err(JobError::StaleHandle),
        }
    }

    fn symmetric<'a>(&self, handle: &'a KeyHandle) -> Result<&'a SymmetricKey, JobError> {
        self.key(handle)?.symmetric()
    }
}

/// One direction of GCM over a text and the tag behind it.
type Transform = fn(&SymmetricKey, [u8; 12], &[u8], &mut [u8], &mut [u8; TAG_BYTES]) -> Result<(), JobError>;

impl CryptoSession for SoftwareSession {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        each(self.symmetric(key), batch, SymmetricKey::seal);
        Ok(())
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        each(self.symmetric(key), batch, |key, nonce, aad, text, tag| key.open(nonce, aad, text, tag));
        Ok(())
    }

    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        let key = self.symmetric(key);
        for job in jobs.iter_mut().filter(|job| job.output.is_none()) {
            job.output = Some(key.and_then(|key| key.derive(&job.messages)));
        }
        Ok(())
    }

    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        let key = self.key(key);
        for job in jobs.iter_mut().filter(|job| job.output.is_none()) {
            job.output = Some(key.and_then(|key| key.sign(job.algorithm, &job.input)));
        }
        Ok(())
    }

    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        let key = self.key(key);
        for job in jobs.iter_mut().filter(|job| job.output.is_none()) {
            job.output = Some(key.and_then(|key| key.decrypt(job.algorithm, &job.ciphertext)));
        }
        Ok(())
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        random::fill(out)
    }
}

/// Does every item that has no outcome yet: one that has was done by a session now lost, and its text has changed.
fn each(key: Result<&SymmetricKey, JobError>, batch: &mut AeadBatch, transform: Transform) {
    let AeadBatch { buffer, aad, items } = batch;
    for item in items.iter_mut().filter(|item| item.outcome.is_none()) {
        item.outcome = Some(key.and_then(|key| {
            let aad = aad.get(item.aad.clone()).ok_or(JobError::Rejected)?;
            let (text, behind) = buffer
                .get_mut(item.text.start..)
                .and_then(|rest| rest.split_at_mut_checked(item.text.len()))
                .ok_or(JobError::Rejected)?;
            let tag = behind.first_chunk_mut().ok_or(JobError::Rejected)?;
            transform(key, item.nonce, aad, text, tag)
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::Sensitive;
    use keymill_core::key::KeySpec;
    use keymill_core::seam::provider::AeadItem;
    use std::ops::Range;
    use std::sync::Arc;

    fn item(aad: Range<usize>, text: Range<usize>) -> AeadItem {
        AeadItem { nonce: [0; 12], aad, text, outcome: None }
    }

    #[test]
    fn ranges_outside_the_batch_are_rejected_and_leave_the_rest_alone() {
        let key = SoftwareKey::Symmetric(SymmetricKey::new(KeySpec::Aes256, &Sensitive::zeroed(32)).unwrap());
        let handle = KeyHandle { generation: 1, object: Arc::new(key) };
        #[allow(clippy::reversed_empty_ranges)]
        let outside = [
            item(0..9, 0..4),
            item(0..0, 0..5),
            item(0..0, 20..20),
            item(0..0, 21..21),
            item(0..0, usize::MAX - 1..usize::MAX),
            item(2..1, 0..4),
        ];
        let mut batch = AeadBatch { buffer: vec![9; 20], aad: vec![0; 8], items: outside.into() };
        SoftwareSession::new(1).encrypt(&handle, &mut batch).unwrap();
        assert!(batch.items.iter().all(|item| item.outcome == Some(Err(JobError::Rejected))));
        assert_eq!(batch.buffer, [9; 20]);
    }

    #[test]
    fn an_item_that_has_its_outcome_is_not_sealed_again() {
        let key = SoftwareKey::Symmetric(SymmetricKey::new(KeySpec::Aes256, &Sensitive::zeroed(32)).unwrap());
        let handle = KeyHandle { generation: 1, object: Arc::new(key) };
        let mut batch = AeadBatch { buffer: vec![9; 20], aad: vec![], items: vec![item(0..0, 0..4)] };
        let mut session = SoftwareSession::new(1);
        session.encrypt(&handle, &mut batch).unwrap();
        let once = batch.buffer.clone();
        session.encrypt(&handle, &mut batch).unwrap();
        assert_eq!(batch.buffer, once);
        assert_eq!(batch.items[0].outcome, Some(Ok(())));
    }
}
