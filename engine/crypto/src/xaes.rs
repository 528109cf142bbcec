//! XAES-256-GCM (C2SP): AES-256-GCM under a subkey for each 12-byte prefix of a 24-byte nonce. The subkey is
//! CMAC(K, M1) ‖ CMAC(K, M2) (SP 800-108r1 counter mode), computed by a provider or here; what runs under it is here.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cmac;
use keymill_core::blob::TAG_BYTES;
use keymill_core::{Error, Sensitive};
use zeroize::Zeroize;

/// Bytes of a key and of a subkey.
pub const KEY_BYTES: usize = 32;
/// Bytes of the nonce that choose the subkey.
pub const PREFIX_BYTES: usize = 12;
/// Bytes of the whole nonce.
pub const XAES_NONCE_BYTES: usize = 24;

/// Returns the two blocks whose CMACs are the subkey of `prefix`.
pub fn subkey_messages(prefix: &[u8; PREFIX_BYTES]) -> [[u8; 16]; 2] {
    [1, 2].map(|counter| {
        // counter 16 bits ‖ label 'X' ‖ separator 0 ‖ context
        let mut message = [0, counter, 0x58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message[4..].copy_from_slice(prefix);
        message
    })
}

/// The 32 bytes of a derived key, on their way into a [`SubkeyCipher`].
pub struct Subkey(Sensitive);

impl Subkey {
    /// Takes what a provider derived.
    ///
    /// # Errors
    /// [`WrongLength`] for other than 32 bytes.
    pub fn from_sensitive(bytes: Sensitive) -> Result<Self, WrongLength> {
        if bytes.len() == KEY_BYTES { Ok(Self(bytes)) } else { Err(WrongLength(bytes.len())) }
    }
}

/// AES-256-GCM under one subkey. Its memory is the library's, which wipes it when the last user drops it.
pub struct SubkeyCipher(LessSafeKey);

impl SubkeyCipher {
    /// Prepares the key schedule, once for many messages.
    pub fn new(subkey: &Subkey) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, subkey.0.expose()).expect("a subkey has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Appends ciphertext ‖ tag to `out`, reading the plaintext from where it lies.
    ///
    /// # Panics
    /// Past the 2^36 - 32 bytes that one nonce takes (SP 800-38D §5.2.1.1); callers have limits far below.
    #[inline]
    pub fn seal_into(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + plaintext.len() + TAG_BYTES, 0);
        self.seal_to(nonce, aad, plaintext, &mut out[start..]);
    }

    /// Writes ciphertext ‖ tag to `out`, reading the plaintext from where it lies; for buffers that are used again and need
    /// no zeroes first.
    ///
    /// # Panics
    /// Where `out` is not 16 bytes longer than the plaintext; past the bytes that one nonce takes.
    #[inline]
    pub fn seal_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .seal_out_of_place_scatter(nonce, Aad::from(aad), plaintext, ciphertext, &[], tag)
            .expect("16 bytes follow, and a plaintext is far below the 64 GiB that one nonce takes");
    }

    /// Appends the plaintext to `out`, reading the ciphertext from where it lies.
    ///
    /// # Errors
    /// [`Opaque`] where the tag does not fit; `out` is as it was, and what was computed is wiped.
    #[inline]
    pub fn open_into(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut Vec<u8>,
    ) -> Result<(), Opaque> {
        let start = out.len();
        out.resize(start + ciphertext.len(), 0);
        let opened = self.open_to(nonce, aad, ciphertext, tag, &mut out[start..]);
        if opened.is_err() {
            out.truncate(start);
        }
        opened
    }

    /// Writes the plaintext to `out`, reading the ciphertext from where it lies; for buffers that are used again and need no
    /// zeroes first.
    ///
    /// # Errors
    /// [`Opaque`] where the tag does not fit, or `out` is not as long as the ciphertext; `out` is zero then.
    #[inline]
    pub fn open_to(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        out: &mut [u8],
    ) -> Result<(), Opaque> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out).map_err(|_| {
            out.zeroize();
            Opaque
        })
    }
}

/// XAES-256-GCM under one key in this process's memory, a derivation for each message: for records, not for bulk.
pub struct Xaes(cmac::Key);

impl Xaes {
    /// Prepares the key.
    ///
    /// # Errors
    /// [`WrongLength`] for other than 32 bytes.
    pub fn new(key: &Sensitive) -> Result<Self, WrongLength> {
        cmac_key(key).map(Self)
    }

    /// Returns ciphertext ‖ tag; the nonce must be fresh for each message.
    ///
    /// # Panics
    /// Past the 2^36 - 32 bytes that one nonce takes (SP 800-38D §5.2.1.1).
    pub fn seal(&self, nonce: &[u8; XAES_NONCE_BYTES], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (cipher, nonce) = self.cipher(nonce);
        let mut out = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        cipher.seal_into(nonce, aad, plaintext, &mut out);
        out
    }

    /// Returns the plaintext of ciphertext ‖ tag.
    ///
    /// # Errors
    /// [`Opaque`] where it does not open, whatever the part.
    pub fn open(
        &self,
        nonce: &[u8; XAES_NONCE_BYTES],
        aad: &[u8],
        ciphertext_and_tag: &[u8],
    ) -> Result<Sensitive, Opaque> {
        let (ciphertext, tag) = ciphertext_and_tag.split_last_chunk::<TAG_BYTES>().ok_or(Opaque)?;
        let (cipher, nonce) = self.cipher(nonce);
        // With its capacity fixed the buffer does not move, so no copy of the plaintext stays behind.
        let mut plaintext = Vec::with_capacity(ciphertext.len());
        cipher.open_into(nonce, aad, ciphertext, tag, &mut plaintext)?;
        Ok(Sensitive::new(plaintext))
    }

    fn cipher<'a>(&self, nonce: &'a [u8; XAES_NONCE_BYTES]) -> (SubkeyCipher, &'a [u8; NONCE_LEN]) {
        let prefix = nonce.first_chunk().expect("24 bytes begin with 12");
        let rest = nonce.last_chunk().expect("24 bytes end in 12");
        (SubkeyCipher::new(&Subkey(pair(&self.0, subkey_messages(prefix)))), rest)
    }
}

pub(crate) fn cmac_key(key: &Sensitive) -> Result<cmac::Key, WrongLength> {
    cmac::Key::new(cmac::AES_256, key.expose()).map_err(|_| WrongLength(key.len()))
}

/// Computes CMAC(K, messages\[0\]) ‖ CMAC(K, messages\[1\]).
pub(crate) fn pair(key: &cmac::Key, messages: [[u8; 16]; 2]) -> Sensitive {
    let mut out = Sensitive::zeroed(KEY_BYTES);
    for (half, message) in out.expose_mut().chunks_exact_mut(16).zip(messages) {
        let tag = cmac::sign(key, &message).expect("CMAC takes any message under a prepared key");
        half.copy_from_slice(tag.as_ref());
    }
    out
}

/// A message does not open; nothing tells why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opaque;

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message does not open")
    }
}

impl std::error::Error for Opaque {}

impl From<Opaque> for Error {
    fn from(_: Opaque) -> Self {
        Error::invalid_ciphertext()
    }
}

/// Key material has another length than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength(pub usize);

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key material of {} bytes where {KEY_BYTES} are needed", self.0)
    }
}

impl std::error::Error for WrongLength {}

impl From<WrongLength> for Error {
    fn from(error: WrongLength) -> Self {
        Error::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> SubkeyCipher {
        SubkeyCipher::new(&Subkey::from_sensitive(Sensitive::copied(&[6; 32])).unwrap())
    }

    #[test]
    fn appending_and_writing_in_place_agree_and_leave_what_stood_before() {
        let mut appended = b"frame".to_vec();
        cipher().seal_into(&[1; 12], b"aad", b"plaintext", &mut appended);
        let mut written = [0xee; 25];
        cipher().seal_to(&[1; 12], b"aad", b"plaintext", &mut written);
        assert_eq!(appended, [&b"frame"[..], &written].concat());

        let (ciphertext, tag) = written.split_last_chunk().unwrap();
        let mut opened = b"frame".to_vec();
        cipher().open_into(&[1; 12], b"aad", ciphertext, tag, &mut opened).unwrap();
        assert_eq!(opened, b"frameplaintext");
    }

    #[test]
    fn a_failed_opening_leaves_the_buffer_as_it_was_and_no_plaintext_behind_it() {
        let mut sealed = [0; 25];
        cipher().seal_to(&[1; 12], b"aad", b"plaintext", &mut sealed);
        let (ciphertext, tag) = sealed.split_last_chunk().unwrap();
        let mut out = b"frame".to_vec();
        for (nonce, aad) in [([1; 12], &b"other"[..]), ([2; 12], b"aad")] {
            assert_eq!(cipher().open_into(&nonce, aad, ciphertext, tag, &mut out), Err(Opaque));
            assert_eq!(out, b"frame");
            let mut place = [0xee; 9];
            assert_eq!(cipher().open_to(&nonce, aad, ciphertext, tag, &mut place), Err(Opaque));
            assert_eq!(place, [0; 9]);
        }
        let mut short = [0xee; 8];
        assert_eq!(cipher().open_to(&[1; 12], b"aad", ciphertext, tag, &mut short), Err(Opaque));
        assert_eq!(short, [0; 8]);
    }

    #[test]
    fn material_of_another_length_is_refused_by_its_length_alone() {
        for len in [0, 16, 31, 33, 64] {
            assert_eq!(Subkey::from_sensitive(Sensitive::zeroed(len)).err(), Some(WrongLength(len)));
            assert_eq!(Xaes::new(&Sensitive::zeroed(len)).err(), Some(WrongLength(len)));
        }
        assert_eq!(WrongLength(31).to_string(), "key material of 31 bytes where 32 are needed");
    }
}
