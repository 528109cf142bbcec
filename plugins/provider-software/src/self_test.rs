//! What the library computes of what is known, before anything is entrusted to it.

use aws_lc_rs::hmac;
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::ProviderError;

use crate::symmetric::SymmetricKey;

/// Computes what is known: the one-block CMAC example of SP 800-38B, AES-256-GCM sealed and opened again, and an HMAC of RFC 4231.
pub(crate) fn run() -> Result<(), ProviderError> {
    const KEY: [u8; 32] = [
        0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f,
        0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
    ];
    const BLOCK: [u8; 16] = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
    const CMAC: [u8; 16] = 0x28a7_023f_452e_8f82_bd4b_f28d_8c37_c35c_u128.to_be_bytes();
    let wrong = |what: &str| ProviderError::unavailable(format!("the self-test of {what} failed"));
    let key = SymmetricKey::new(&Sensitive::copied(&KEY)).ok_or_else(|| wrong("the key schedule"))?;
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
    const HMAC: [u8; 32] = [
        0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, 0x88,
        0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7,
    ];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[0x0b; 20]);
    if hmac::sign(&key, b"Hi There").as_ref() != HMAC {
        return Err(wrong("HMAC"));
    }
    Ok(())
}
