//! The byte layout of a ciphertext, version 1 (`spec/ciphertext.md`). All integers are big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format version, `0x01` |
//! | 1 | 1 | algorithm; bit `0x80`: the plaintext is text that the cloud dialect took as it stood |
//! | 2 | 16 | CMK id |
//! | 18 | 4 | CMK version number, from 1 |
//! | 22 | 24 or 12 | nonce |
//! | .. | n | ciphertext, as long as the plaintext |
//! | .. | 16 | authentication tag |

use crate::id::CmkId;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 22;
/// Bytes of the authentication tag; never chosen by a request.
pub const TAG_BYTES: usize = 16;
/// The one format version.
pub const FORMAT: u8 = 1;
/// The bit of the algorithm byte that marks text of the cloud dialect.
const TEXT: u8 = 0x80;

/// Tells whether bytes that may be a blob say that their plaintext is text; only once they opened is it so.
pub fn says_text(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|algorithm| algorithm & TEXT != 0)
}

/// Sets or clears the mark of text in a header.
pub fn mark_text(mut header: [u8; HEADER_BYTES], text: bool) -> [u8; HEADER_BYTES] {
    header[1] = header[1] & !TEXT | if text { TEXT } else { 0 };
    header
}

/// How a blob is sealed; it belongs to the CMK version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// XAES-256-GCM (C2SP), 192-bit nonces, by sealing epochs.
    Xaes256Gcm = 1,
    /// AES-256-GCM with random 96-bit nonces, counted.
    Aes256Gcm = 2,
    /// SM4-GCM.
    Sm4Gcm = 3,
    /// AES-128-GCM with random 96-bit nonces, counted.
    Aes128Gcm = 4,
    /// AES-192-GCM with random 96-bit nonces, counted.
    Aes192Gcm = 5,
}

impl Algorithm {
    /// Returns the number of nonce bytes.
    pub const fn nonce_bytes(self) -> usize {
        match self {
            Algorithm::Xaes256Gcm => 24,
            _ => 12,
        }
    }

    /// Returns how much longer a blob is than its plaintext.
    pub const fn overhead(self) -> usize {
        HEADER_BYTES + self.nonce_bytes() + TAG_BYTES
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Algorithm::Xaes256Gcm,
            2 => Algorithm::Aes256Gcm,
            3 => Algorithm::Sm4Gcm,
            4 => Algorithm::Aes128Gcm,
            5 => Algorithm::Aes192Gcm,
            _ => return None,
        })
    }
}

/// The first 22 bytes of a blob; together with the canonical context they are its associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the blob is sealed.
    pub algorithm: Algorithm,
    /// Whether the plaintext is text that the cloud dialect took as it stood.
    pub text: bool,
    /// The CMK.
    pub cmk: CmkId,
    /// The version of the CMK, from 1.
    pub version: u32,
}

impl Header {
    /// Returns the 22 bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = FORMAT;
        bytes[1] = self.algorithm as u8 | if self.text { TEXT } else { 0 };
        bytes[2..18].copy_from_slice(self.cmk.as_bytes());
        bytes[18..].copy_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

/// A blob taken apart: nothing of it is trusted before its tag has been verified.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// What the header says.
    pub header: Header,
    /// The header as it stands, for the associated data.
    pub header_bytes: &'a [u8; HEADER_BYTES],
    /// The nonce, 24 or 12 bytes.
    pub nonce: &'a [u8],
    /// The ciphertext without its tag.
    pub ciphertext: &'a [u8],
    /// The tag.
    pub tag: &'a [u8; TAG_BYTES],
}

impl<'a> Blob<'a> {
    /// Takes a blob apart; `None` for anything that is not of the form, whatever the part.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header_bytes, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        if header_bytes[0] != FORMAT {
            return None;
        }
        let header = Header {
            algorithm: Algorithm::from_byte(header_bytes[1] & !TEXT)?,
            text: header_bytes[1] & TEXT != 0,
            cmk: CmkId::from_bytes(
                *header_bytes[2..].first_chunk().expect("the header holds 16 bytes of id"),
            ),
            version: u32::from_be_bytes(
                *header_bytes[18..].first_chunk().expect("the header ends in 4 bytes"),
            ),
        };
        if header.version == 0 || rest.len() < header.algorithm.nonce_bytes() + TAG_BYTES {
            return None;
        }
        let (nonce, rest) = rest.split_at(header.algorithm.nonce_bytes());
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        Some(Self { header, header_bytes, nonce, ciphertext, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(algorithm: Algorithm, n: usize) -> Vec<u8> {
        let header =
            Header { algorithm, text: false, cmk: CmkId::from_bytes([0xab; 16]), version: 0x0102_0304 };
        let mut blob = header.to_bytes().to_vec();
        blob.resize(algorithm.overhead() + n, 7);
        blob
    }

    #[test]
    fn the_header_is_laid_out_as_specified() {
        let blob = sample(Algorithm::Xaes256Gcm, 3);
        assert_eq!(blob[..2], [1, 1]);
        assert_eq!(blob[2..18], [0xab; 16]);
        assert_eq!(blob[18..22], [1, 2, 3, 4]);
        let parsed = Blob::parse(&blob).unwrap();
        assert_eq!(
            (parsed.nonce.len(), parsed.ciphertext.len(), parsed.header.version),
            (24, 3, 0x0102_0304)
        );
        assert_eq!(Blob::parse(&sample(Algorithm::Aes256Gcm, 0)).unwrap().nonce.len(), 12);
    }

    #[test]
    fn every_shorter_length_and_every_foreign_byte_is_refused() {
        let blob = sample(Algorithm::Xaes256Gcm, 0);
        for n in 0..blob.len() {
            assert!(Blob::parse(&blob[..n]).is_none(), "{n}");
        }
        for (at, byte) in [(0, 0), (0, 2), (0, 255), (1, 0), (1, 6), (1, 0x7f), (1, 0xff)] {
            let mut bad = blob.clone();
            bad[at] = byte;
            assert!(Blob::parse(&bad).is_none(), "{at} {byte}");
        }
        let mut zero_version = blob.clone();
        zero_version[18..22].fill(0);
        assert!(Blob::parse(&zero_version).is_none());
    }

    #[test]
    fn the_text_bit_stands_beside_the_algorithm() {
        let mut blob = sample(Algorithm::Xaes256Gcm, 1);
        blob[1] |= 0x80;
        let parsed = Blob::parse(&blob).unwrap();
        assert!(parsed.header.text && says_text(parsed.header_bytes));
        assert!(!says_text(&[]) && !says_text(&[1]));
        let plain = mark_text(*parsed.header_bytes, false);
        assert_eq!((says_text(&plain), mark_text(plain, true)), (false, *parsed.header_bytes));
        assert_eq!(parsed.header.to_bytes(), blob[..22]);
    }
}
