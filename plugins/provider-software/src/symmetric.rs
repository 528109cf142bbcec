//! A loaded AES key: the schedules of its uses, prepared once. Their memory is the library's, which wipes it when it is freed.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cmac;
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::JobError;

/// Bytes of an AES-256 key.
const KEY_BYTES: usize = 32;

/// An AES key.
pub(crate) struct SymmetricKey {
    aead: LessSafeKey,
    /// XAES subkeys come from keys of 256 bits alone.
    cmac: Option<cmac::Key>,
}

impl SymmetricKey {
    /// Prepares material; `None` for other than 32 or 16 bytes.
    pub(crate) fn new(material: &Sensitive) -> Option<Self> {
        let (aead, cmac) = match material.len() {
            KEY_BYTES => (&AES_256_GCM, Some(cmac::Key::new(cmac::AES_256, material.expose()).ok()?)),
            16 => (&AES_128_GCM, None),
            _ => return None,
        };
        Some(Self { aead: LessSafeKey::new(UnboundKey::new(aead, material.expose()).ok()?), cmac })
    }

    /// Seals `text` in place and writes its tag behind it; the last 16 bytes of `text_and_tag` are the tag's.
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_BYTES],
    ) -> Result<(), JobError> {
        let made = self
            .aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text)
            .map_err(|_| JobError::Rejected)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// Opens `text` in place; it is zero where the tag does not fit.
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), JobError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        match self.aead.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text) {
            Ok(_) => Ok(()),
            Err(_) => {
                text.fill(0);
                Err(JobError::InvalidCiphertext)
            }
        }
    }

    /// Computes CMAC(K, messages\[0\]) ‖ CMAC(K, messages\[1\]).
    pub(crate) fn derive(&self, messages: &[[u8; 16]; 2]) -> Result<Sensitive, JobError> {
        let key = self.cmac.as_ref().ok_or(JobError::Rejected)?;
        let mut out = Sensitive::zeroed(KEY_BYTES);
        for (half, message) in out.expose_mut().chunks_exact_mut(16).zip(messages) {
            half.copy_from_slice(cmac::sign(key, message).map_err(|_| JobError::Rejected)?.as_ref());
        }
        Ok(out)
    }
}
