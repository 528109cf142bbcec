//! What goes over a connection: one request, one answer, each a header and a body. All integers are big-endian.
//!
//! | offset | size | field of the header |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 3 | zero |
//! | 4 | 4 | bytes of the body, at most 64 MiB |
//! | 8 | 8 | tag: an answer carries that of its question |
//!
//! It is no protocol for others: both ends are one program, and [`PROTOCOL`] tells two builds of it apart.

mod control;
mod failure;
mod incoming;
mod items;
mod jobs;
mod profile;
mod reader;

pub use control::{ControlRequest, Hello, Released, StoredMessage, UnwrappedMessage};
pub(crate) use control::{packed, unpacked};
pub use failure::Failed;
pub use incoming::{Incoming, ReceiveError};
pub use items::{AeadAnswer, AeadRequest, KeyRef, TEXT_BYTES};
pub use jobs::{Job, JobsAnswer, JobsRequest, Output};
pub use profile::ReadyProfile;

use std::fmt;

/// Which format the messages have; raised with each change of it.
pub const PROTOCOL: u32 = 5;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a body, at most.
pub const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Random bytes in one answer, at most.
pub const RANDOM_BYTES: usize = 64 * 1024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $byte:literal,)+) => {
        /// What a message is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $byte,)+
        }

        impl Kind {
            fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Kind::$name),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// The first: protocol, generation, limits, and what opens the provider.
    Start = 1,
    /// Asks for a session.
    OpenSession = 2,
    /// Asks for the control lane.
    OpenCustody = 3,
    /// Asks for a key.
    Generate = 4,
    /// Asks for a handle of a stored key.
    Load = 5,
    /// Gives up a handle.
    Unload = 6,
    /// Asks to destroy what is kept of a stored key.
    Destroy = 7,
    /// Asks for a sign of life.
    Canary = 8,
    /// A batch to seal.
    Encrypt = 9,
    /// A batch to open.
    Decrypt = 10,
    /// Derivations.
    Derive = 11,
    /// Asks for random bytes.
    Random = 12,
    /// Signatures and MACs.
    Sign = 13,
    /// Decryptions by a private key.
    DecryptAsymmetric = 14,
    /// A question of the program's own.
    Ask = 15,
    /// Brings in a key.
    Import = 16,
    /// Asks for a key that stays in its token.
    GenerateToStay = 17,
    /// Takes over a key that is in the token already.
    Adopt = 18,
    /// Asks for a pair that unwraps key material from outside.
    GenerateWrappingKey = 19,
    /// Brings in a key that such a pair unwraps.
    ImportWrapped = 20,
    /// Asks to destroy such a pair.
    DestroyWrappingKey = 21,
    /// The provider is open; its profile.
    Ready = 0x81,
    /// It was not done, and why.
    Failed = 0x82,
    /// It was done.
    Done = 0x83,
    /// A stored key.
    Stored = 0x84,
    /// The number of a handle.
    Loaded = 0x85,
    /// The outcome of each item, and the texts.
    Outcomes = 0x86,
    /// The outcome of each job, with its output.
    Outputs = 0x87,
    /// Random bytes, or the answer to a question.
    Bytes = 0x88,
    /// A key that was unwrapped.
    Unwrapped = 0x89,
}

/// The first bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub kind: Kind,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// The number of the question.
    pub tag: u64,
}

impl Header {
    /// Returns the 16 bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[4..8].copy_from_slice(&length(self.body_bytes).to_be_bytes());
        bytes[8..].copy_from_slice(&self.tag.to_be_bytes());
        bytes
    }

    /// Reads the 16 bytes.
    ///
    /// # Errors
    /// [`Garbled`] for a kind that there is not, or a length above the limit.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Garbled> {
        let [kind, zeroes @ .., _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
        if *zeroes != [0; 3] {
            return Err(Garbled("a header with bytes set that are zero"));
        }
        let kind = Kind::from_byte(*kind).ok_or(Garbled("a message of no kind"))?;
        let (length, tag) = bytes[4..].split_first_chunk().expect("twelve bytes follow");
        let body_bytes = u32::from_be_bytes(*length) as usize;
        if body_bytes > MAX_BODY_BYTES {
            return Err(Garbled("a message above the limit"));
        }
        Ok(Self { kind, body_bytes, tag: u64::from_be_bytes(tag.try_into().expect("eight are left")) })
    }
}

/// Begins a message in an emptied buffer: the header's room, to be filled by [`finish`].
pub fn begin(message: &mut Vec<u8>) {
    message.clear();
    message.resize(HEADER_BYTES, 0);
}

/// Writes the header of a message that [`begin`] began, and that `more` bytes follow.
pub fn finish(message: &mut [u8], kind: Kind, tag: u64, more: usize) {
    let header = Header { kind, body_bytes: message.len() - HEADER_BYTES + more, tag };
    message[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
}

/// Returns a length as it is written; what is sent has been measured against the limit before.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a message is far below 4 GiB")
}

/// Bytes that are no message: whoever sent them is not to be spoken with again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled(pub(crate) &'static str);

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "garbled: {}", self.0)
    }
}

impl std::error::Error for Garbled {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_its_sixteen_bytes() {
        let header = Header { kind: Kind::Outcomes, body_bytes: 0x0102_0304, tag: 0x1122_3344_5566_7788 };
        let bytes = [0x86, 0, 0, 0, 1, 2, 3, 4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(Header::parse(&bytes), Ok(header));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let good = Header { kind: Kind::Done, body_bytes: MAX_BODY_BYTES, tag: 1 }.to_bytes();
        assert!(Header::parse(&good).is_ok());
        for (at, byte) in [(0, 0), (0, 0x80), (0, 0xff), (1, 1), (3, 1), (4, 5)] {
            let mut bad = good;
            bad[at] = byte;
            assert!(Header::parse(&bad).is_err(), "byte {at} is {byte}");
        }
    }
}
