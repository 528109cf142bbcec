//! A loaded key: the schedules of its two uses, prepared once. Their memory is the library's, which wipes it when it is freed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::{JobError, ProviderError};
use zeroize::Zeroizing;

/// Bytes of an AES-256 key.
pub(crate) const KEY_BYTES: usize = 32;

/// The object behind this provider's handles.
pub(crate) struct SoftwareKey {
    aead: LessSafeKey,
    cmac: cmac::Key,
}

impl SoftwareKey {
    /// Prepares material; `None` for other than 32 bytes.
    pub(crate) fn new(material: &Sensitive) -> Option<Self> {
        Some(Self {
            aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, material.expose()).ok()?),
            cmac: cmac::Key::new(cmac::AES_256, material.expose()).ok()?,
        })
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
        let mut out = Sensitive::zeroed(KEY_BYTES);
        for (half, message) in out.expose_mut().chunks_exact_mut(16).zip(messages) {
            half.copy_from_slice(cmac::sign(&self.cmac, message).map_err(|_| JobError::Rejected)?.as_ref());
        }
        Ok(out)
    }
}

/// Fills `out` with getrandom(2) XOR the library's generator: what a resumed clone of the machine repeats of one, it does not
/// repeat of the other.
pub(crate) fn random(out: &mut [u8]) -> Result<(), ProviderError> {
    let drawn = getrandom::fill(out)
        .map_err(|_| ProviderError::Unavailable("the operating system gave no random bytes".into()))
        .and_then(|()| {
            let mut scratch = Zeroizing::new([0; 512]);
            out.chunks_mut(scratch.len()).try_for_each(|chunk| {
                let scratch = &mut scratch[..chunk.len()];
                SystemRandom::new().fill(scratch).map_err(|_| {
                    ProviderError::Unavailable("the generator of the cryptographic library failed".into())
                })?;
                chunk.iter_mut().zip(scratch.iter()).for_each(|(byte, other)| *byte ^= other);
                Ok(())
            })
        });
    if drawn.is_err() {
        out.fill(0);
    }
    drawn
}

/// Computes what is known: the one-block CMAC example of SP 800-38B, and AES-256-GCM sealed and opened again.
pub(crate) fn self_test() -> Result<(), ProviderError> {
    const KEY: [u8; KEY_BYTES] = [
        0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f,
        0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
    ];
    const BLOCK: [u8; 16] = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
    const CMAC: [u8; 16] = 0x28a7_023f_452e_8f82_bd4b_f28d_8c37_c35c_u128.to_be_bytes();
    let wrong = |what: &str| ProviderError::Unavailable(format!("the self-test of {what} failed"));
    let key = SoftwareKey::new(&Sensitive::copied(&KEY)).ok_or_else(|| wrong("the key schedule"))?;
    let derived = key.derive(&[BLOCK; 2]).map_err(|_| wrong("CMAC"))?;
    if derived.expose() != [CMAC; 2].as_flattened() {
        return Err(wrong("CMAC"));
    }
    let (mut text, mut tag) = (BLOCK, [0; TAG_BYTES]);
    let sealed = key.seal([1; 12], &CMAC, &mut text, &mut tag);
    let differs = text != BLOCK;
    if sealed.is_err() || !differs || key.open([1; 12], &CMAC, &mut text, &tag).is_err() || text != BLOCK {
        return Err(wrong("AES-GCM"));
    }
    Ok(())
}
