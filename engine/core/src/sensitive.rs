//! Bytes that must not outlive their use: key material, PINs, secrets of access keys. Wiped on drop, compared in constant
//! time, and without `Clone`, `Debug` or `Serialize`, so that they cannot slip into a log.

use zeroize::{Zeroize, Zeroizing};

/// Key material or another secret, wiped when dropped.
pub struct Sensitive(Zeroizing<Vec<u8>>);

impl Sensitive {
    /// Takes bytes over; they are wiped when the value is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Makes `len` zero bytes, to be filled in place.
    pub fn zeroed(len: usize) -> Self {
        Self::new(vec![0; len])
    }

    /// Copies bytes; the source stays the caller's to wipe.
    pub fn copied(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// Lends the bytes to code that computes with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Lends the bytes for filling.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wipes the bytes now.
    pub fn wipe(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiping_leaves_nothing_behind() {
        let mut secret = Sensitive::copied(b"material");
        assert_eq!(secret.expose(), b"material");
        secret.wipe();
        assert!(secret.is_empty());
    }
}
