//! The two domain keys of `root.kind = "file"` and their text form. Reading and writing the file is the program's; here is
//! what stands in it:
//!
//! | line | text |
//! |---|---|
//! | 1 | `keymill-root-1` |
//! | 2 | `domain ` and 64 lower-case hexadecimal digits |
//! | 3 | `mac ` and 64 lower-case hexadecimal digits |
//! | 4 | `check ` and the first 16 hexadecimal digits of the SHA-256 of lines 1 to 3 with their line ends |

use std::fmt;

use keymill_core::{Error, ErrorKind, Sensitive};

use crate::digest;
use crate::random::{self, RandomFailed};
use crate::xaes::KEY_BYTES;

const NAME: &[u8] = b"keymill-root-";
const VERSION: &[u8] = b"1";
const CHECK_BYTES: usize = 8;

/// The keys that everything hangs on, 32 bytes each.
pub struct RootKeys {
    /// Wraps and unwraps CMKs, nothing else.
    pub domain: Sensitive,
    /// Is the key of the CMACs that derive the engine's own keys.
    pub mac: Sensitive,
}

impl RootKeys {
    /// Makes new ones.
    ///
    /// # Errors
    /// [`RandomFailed`] where a source of randomness fails.
    pub fn generate() -> Result<Self, RandomFailed> {
        let key = || {
            let mut key = Sensitive::zeroed(KEY_BYTES);
            random::draw(key.expose_mut()).map(|()| key)
        };
        Ok(Self { domain: key()?, mac: key()? })
    }

    /// Returns the text form.
    pub fn encode(&self) -> Sensitive {
        // Reserved at once: a growing buffer would leave copies of the keys behind.
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(NAME);
        text.extend_from_slice(VERSION);
        text.push(b'\n');
        for (name, key) in [("domain", &self.domain), ("mac", &self.mac)] {
            push_line(&mut text, name, key.expose());
        }
        let check = digest::sha256(&text);
        push_line(&mut text, "check", &check[..CHECK_BYTES]);
        Sensitive::new(text)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`RootError`], which says what is wrong and never what was read.
    pub fn decode(text: &[u8]) -> Result<Self, RootError> {
        if text.is_empty() {
            return Err(RootError::Empty);
        }
        let mut lines = Lines { text, number: 0 };
        let version = lines.next()?.strip_prefix(NAME).ok_or(RootError::Foreign)?;
        if version != VERSION {
            return Err(RootError::Version);
        }
        let domain = lines.field("domain", KEY_BYTES)?;
        let mac = lines.field("mac", KEY_BYTES)?;
        let checked = &text[..text.len() - lines.text.len()];
        let check = lines.field("check", CHECK_BYTES)?;
        if !lines.text.is_empty() {
            return Err(RootError::Trailing);
        }
        if !digest::equal(check.expose(), &digest::sha256(checked)[..CHECK_BYTES]) {
            return Err(RootError::Checksum);
        }
        Ok(Self { domain, mac })
    }
}

fn push_line(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.extend_from_slice(name.as_bytes());
    text.push(b' ');
    for byte in value {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    text.push(b'\n');
}

struct Lines<'a> {
    text: &'a [u8],
    number: u8,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a [u8], RootError> {
        self.number += 1;
        let end = self.text.iter().position(|byte| *byte == b'\n').ok_or(RootError::Cut(self.number))?;
        let (line, rest) = self.text.split_at(end);
        self.text = &rest[1..];
        Ok(line)
    }

    fn field(&mut self, name: &'static str, len: usize) -> Result<Sensitive, RootError> {
        let line = self.next()?;
        let wrong = RootError::Line { number: self.number, name, digits: 2 * len };
        let digits =
            line.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b" ")).ok_or(wrong)?;
        if digits.len() != 2 * len {
            return Err(wrong);
        }
        let mut value = Sensitive::zeroed(len);
        for (byte, pair) in value.expose_mut().iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]).ok_or(wrong)? << 4 | digit(pair[1]).ok_or(wrong)?;
        }
        Ok(value)
    }
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

/// What is wrong with a root file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootError {
    /// It holds nothing.
    Empty,
    /// It is something else.
    Foreign,
    /// It is of a version that this program does not know.
    Version,
    /// It ends within the line of this number.
    Cut(u8),
    /// A line is not of its form.
    Line {
        /// Which one, from 1.
        number: u8,
        /// The word that it begins with.
        name: &'static str,
        /// The hexadecimal digits that follow.
        digits: usize,
    },
    /// Something follows the last line.
    Trailing,
    /// The lines are well formed, but are not those that were written.
    Checksum,
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootError::Empty => f.write_str("the root file is empty"),
            RootError::Foreign => {
                f.write_str("this is not a root file: it does not begin with keymill-root-")
            }
            RootError::Version => {
                f.write_str("the root file is of a version that this program does not know")
            }
            RootError::Cut(line) => write!(f, "the root file is cut short: line {line} has no end"),
            RootError::Line { number, name, digits } => write!(
                f,
                "line {number} of the root file is not {name}, a space and {digits} lower-case hexadecimal digits"
            ),
            RootError::Trailing => f.write_str("something follows the last line of the root file"),
            RootError::Checksum => f.write_str("the checksum of the root file differs: a digit was changed"),
        }
    }
}

impl std::error::Error for RootError {}

impl From<RootError> for Error {
    fn from(error: RootError) -> Self {
        Error::new(ErrorKind::Unavailable, "the root keys cannot be read").caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        RootKeys { domain: Sensitive::copied(&[0xd0; 32]), mac: Sensitive::copied(&[0x3a; 32]) }
            .encode()
            .expose()
            .to_vec()
    }

    fn error(text: &[u8]) -> RootError {
        RootKeys::decode(text).err().expect("it is refused")
    }

    #[test]
    fn the_text_is_as_documented_and_reads_back() {
        let lines = format!("keymill-root-1\ndomain {}\nmac {}\n", "d0".repeat(32), "3a".repeat(32));
        let check = &digest::hex(&digest::sha256(lines.as_bytes()))[..16];
        assert_eq!(String::from_utf8(text()).unwrap(), format!("{lines}check {check}\n"));
        let keys = RootKeys::decode(&text()).unwrap();
        assert_eq!((keys.domain.expose(), keys.mac.expose()), (&[0xd0; 32][..], &[0x3a; 32][..]));
    }

    #[test]
    fn new_keys_differ_from_each_other_and_from_the_next() {
        let (a, b) = (RootKeys::generate().unwrap(), RootKeys::generate().unwrap());
        let all = [&a.domain, &a.mac, &b.domain, &b.mac].map(Sensitive::expose);
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert!(all.iter().all(|key| key.len() == 32));
    }

    #[test]
    fn what_is_wrong_is_said_plainly() {
        let good = String::from_utf8(text()).unwrap();
        let wrong = |number, name, digits| RootError::Line { number, name, digits };
        assert_eq!(error(b""), RootError::Empty);
        assert_eq!(error(b"\n"), RootError::Foreign);
        assert_eq!(error(b"-----BEGIN PRIVATE KEY-----\n"), RootError::Foreign);
        assert_eq!(error(good.replace("root-1", "root-2").as_bytes()), RootError::Version);
        assert_eq!(error(good.replace('\n', "\r\n").as_bytes()), RootError::Version);
        assert_eq!(error(good.replace("domain", "Domain").as_bytes()), wrong(2, "domain", 64));
        assert_eq!(error(good.replace("3a3a", "3A3A").as_bytes()), wrong(3, "mac", 64));
        assert_eq!(error(good.replace("3a3a\n", "3a3\n").as_bytes()), wrong(3, "mac", 64));
        assert_eq!(error(good.replace("3a3a\n", "3a3b\n").as_bytes()), RootError::Checksum);
        assert_eq!(error(format!("{good}\n").as_bytes()), RootError::Trailing);
        assert_eq!(error(good.trim_end().as_bytes()), RootError::Cut(4));
        let shown = error(good.replace("d0d0\n", "d0xx\n").as_bytes()).to_string();
        assert_eq!(
            shown,
            "line 2 of the root file is not domain, a space and 64 lower-case hexadecimal digits"
        );
    }

    #[test]
    fn every_shorter_file_and_every_flipped_bit_is_refused() {
        let good = text();
        for len in 0..good.len() {
            assert!(RootKeys::decode(&good[..len]).is_err(), "{len} bytes");
        }
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RootKeys::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
