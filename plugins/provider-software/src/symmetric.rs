//! A loaded key of AES or SM4: the schedules of its uses, prepared once. Their memory is the libraries', which wipe it when it is freed.

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cmac;
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::key::KeySpec;
use keymill_core::seam::provider::JobError;

/// Bytes of an AES-256 key.
const KEY_BYTES: usize = 32;

/// A key of AES or SM4.
pub(crate) struct SymmetricKey {
    aead: Aead,
    /// XAES subkeys come from keys of 256 bits alone.
    cmac: Option<cmac::Key>,
}

enum Aead {
    Aes(LessSafeKey),
    /// SM4-GCM (RFC 8998): the mode is that of AES, the block is as long.
    Sm4(Box<AesGcm<sm4::Sm4, U12>>),
}

impl SymmetricKey {
    /// Prepares material; `None` for a specification that does not encrypt so, or material of another length than its.
    pub(crate) fn new(spec: KeySpec, material: &Sensitive) -> Option<Self> {
        let aes = |algorithm| Some(LessSafeKey::new(UnboundKey::new(algorithm, material.expose()).ok()?));
        let (aead, cmac) = match spec {
            KeySpec::Aes256 => {
                (Aead::Aes(aes(&AES_256_GCM)?), Some(cmac::Key::new(cmac::AES_256, material.expose()).ok()?))
            }
            KeySpec::Aes192 => (Aead::Aes(aes(&AES_192_GCM)?), None),
            KeySpec::Aes128 => (Aead::Aes(aes(&AES_128_GCM)?), None),
            KeySpec::Sm4 => (Aead::Sm4(Box::new(AesGcm::new_from_slice(material.expose()).ok()?)), None),
            _ => return None,
        };
        Some(Self { aead, cmac })
    }

    /// Seals `text` in place and writes its tag behind it; the last 16 bytes of `text_and_tag` are the tag's.
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_BYTES],
    ) -> Result<(), JobError> {
        match &self.aead {
            Aead::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
                tag.copy_from_slice(made.map_err(|_| JobError::Rejected)?.as_ref());
            }
            Aead::Sm4(key) => {
                let made = key.encrypt_inout_detached(&nonce.into(), aad, text.into());
                tag.copy_from_slice(&made.map_err(|_| JobError::Rejected)?);
            }
        }
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
        let opened = match &self.aead {
            Aead::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text).is_ok()
            }
            Aead::Sm4(key) => {
                key.decrypt_inout_detached(&nonce.into(), aad, (&mut *text).into(), &(*tag).into()).is_ok()
            }
        };
        if opened {
            return Ok(());
        }
        text.fill(0);
        Err(JobError::InvalidCiphertext)
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
