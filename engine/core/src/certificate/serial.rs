//! The text form of serial numbers: hexadecimal, as records, answers and lists have it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Serial;
use crate::error::{Error, ErrorKind};
use crate::id::Text;

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serial {
    /// Takes the bytes of a serial number that was made here, as a certificate, a list or a question has them; none for any other.
    pub fn from_der(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        let serial = Self::from_random(bytes);
        (*serial.as_bytes() == bytes).then_some(serial)
    }
}

impl FromStr for Serial {
    type Err = Error;

    /// Reads 32 hexadecimal digits of either case, perhaps with colons between the bytes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let odd = || {
            let why = "a serial number of an authority here is 32 hexadecimal digits, perhaps with colons";
            Error::new(ErrorKind::InvalidParameter, why)
        };
        let is_colons = text.len() == 47 && text.bytes().skip(2).step_by(3).all(|c| c == b':');
        let digits: Vec<u8> = match is_colons {
            true => text.bytes().filter(|c| *c != b':').collect(),
            false => text.bytes().collect(),
        };
        if digits.len() != 32 {
            return Err(odd());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).ok_or_else(odd);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Self::from_der(&bytes).ok_or_else(odd)
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map_err(|error: Error| de::Error::custom(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_reads_back_as_it_was_written_and_others_are_none_of_ours() {
        let serial = Serial::from_random([0x9a; 16]);
        let text = serial.to_string();
        assert_eq!(text, format!("5a{}", "9a".repeat(15)));
        assert_eq!(text.parse::<Serial>().unwrap(), serial);
        assert_eq!(text.to_uppercase().parse::<Serial>().unwrap(), serial);
        let pairs: Vec<&str> = (0..16).map(|at| &text[at * 2..at * 2 + 2]).collect();
        assert_eq!(pairs.join(":").parse::<Serial>().unwrap(), serial);
        for odd in
            ["", "5a", &"9a".repeat(16), &"00".repeat(16), &"zz".repeat(16), &text.replacen('a', ":", 1)]
        {
            assert!(odd.parse::<Serial>().is_err(), "{odd}");
        }
        assert_eq!(Serial::from_der(serial.as_bytes()), Some(serial));
        assert_eq!(Serial::from_der(&[1]), None);
        assert_eq!(Serial::from_der(&[0xff; 16]), None);
    }
}
