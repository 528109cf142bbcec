//! Randomness for keys and for whoever asks a session.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use keymill_core::seam::provider::ProviderError;
use zeroize::Zeroizing;

/// Fills `out` with getrandom(2) XOR the library's generator: what a resumed clone of the machine repeats of one, it does not
/// repeat of the other.
pub(crate) fn fill(out: &mut [u8]) -> Result<(), ProviderError> {
    let drawn = getrandom::fill(out)
        .map_err(|_| ProviderError::unavailable("the operating system gave no random bytes"))
        .and_then(|()| {
            let mut scratch = Zeroizing::new([0; 512]);
            out.chunks_mut(scratch.len()).try_for_each(|chunk| {
                let scratch = &mut scratch[..chunk.len()];
                SystemRandom::new().fill(scratch).map_err(|_| {
                    ProviderError::unavailable("the generator of the cryptographic library failed")
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
