//! Ids of 16 bytes, as UUIDs in text (RFC 9562): written several times for each request, and read by millions at a start.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Text;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes an id from random bytes: the version and variant bits of a random UUID are set (RFC 9562 §5.4).
            pub fn from_random(mut bytes: [u8; 16]) -> Self {
                bytes[6] = bytes[6] & 0x0f | 0x40;
                bytes[8] = bytes[8] & 0x3f | 0x80;
                Self(bytes)
            }

            /// Takes the 16 bytes as they are.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Returns the text form as ASCII.
            pub fn to_ascii(&self) -> [u8; 36] {
                uuid_text(&self.0)
            }

            /// Reads the lower-case text form, 8-4-4-4-12.
            pub fn parse(text: &str) -> Option<Self> {
                parse_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&uuid_text(&self.0)).expect("hexadecimal digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(
                    std::str::from_utf8(&uuid_text(&self.0)).expect("hexadecimal digits are ASCII"),
                )
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Text::deserialize(deserializer)?;
                Self::parse(&text.0).ok_or_else(|| de::Error::custom("not a lower-case UUID"))
            }
        }
    };
}

uuid_id! {
    /// The id of a customer master key.
    CmkId
}
uuid_id! {
    /// The id of one version of a customer master key.
    KeyVersionId
}
uuid_id! {
    /// The id of one version of a managed data key.
    DataKeyVersionId
}
uuid_id! {
    /// The id of an account of ACME.
    AcmeAccountId
}
uuid_id! {
    /// The id of an order of ACME; its authorizations and challenges are named by it, too.
    AcmeOrderId
}
uuid_id! {
    /// The id of a certificate.
    CertificateId
}
uuid_id! {
    /// The id of one request, through every layer and into the audit.
    RequestId
}

fn uuid_text(bytes: &[u8; 16]) -> [u8; 36] {
    let mut digits = [0; 32];
    for (digits, four) in digits.chunks_exact_mut(8).zip(bytes.chunks_exact(4)) {
        let four = u32::from_be_bytes(four.try_into().expect("chunks of four"));
        digits.copy_from_slice(&hex_digits(four));
    }
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&digits[..8]);
    text[9..13].copy_from_slice(&digits[8..12]);
    text[14..18].copy_from_slice(&digits[12..16]);
    text[19..23].copy_from_slice(&digits[16..20]);
    text[24..].copy_from_slice(&digits[20..]);
    text
}

/// Returns the eight digits of four bytes, all at once: ids are written several times for each request.
fn hex_digits(four: u32) -> [u8; 8] {
    // A nibble to each byte, then '0' added, and 39 more ('a' - '0' - 10) where it is ten or above.
    let mut nibbles = u64::from(four);
    nibbles = (nibbles << 16 | nibbles) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles << 8 | nibbles) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles << 4 | nibbles) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

pub(super) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    let text: &[u8; 36] = text.try_into().ok()?;
    // Where each byte begins, and all that was read of what is no digit: looked at once, since a start reads millions.
    const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut odd = 0;
    let mut bytes = [0; 16];
    for (byte, at) in bytes.iter_mut().zip(AT) {
        let (high, low) = (DIGITS[usize::from(text[at])], DIGITS[usize::from(text[at + 1])]);
        odd |= (high | low) & NO_DIGIT;
        *byte = high << 4 | low & 0x0f;
    }
    let is_joined = [8, 13, 18, 23].iter().all(|at| text[*at] == b'-');
    (odd == 0 && is_joined).then_some(bytes)
}

const NO_DIGIT: u8 = 0x80;

/// What each character is worth as a lower-case hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = CmkId::parse(ID).unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(id.as_bytes()[..4], [0x0a, 0x1b, 0x2c, 0x3d]);
        for bad in ["", &ID.to_uppercase(), &ID.replace('-', ""), &format!("{ID} "), &ID.replace("0a", "0é")]
        {
            assert_eq!(CmkId::parse(bad), None, "{bad}");
        }
        for at in 0..ID.len() {
            for odd in ["g", "/", ":", "`", "A", "-", "0"] {
                let mut text = ID.to_owned();
                text.replace_range(at..=at, odd);
                // A digit in the place of a digit, a dash in that of a dash.
                let is_fine = (ID.as_bytes()[at] == b'-') == (odd == "-") && matches!(odd, "-" | "0");
                assert_eq!(CmkId::parse(&text).is_some(), is_fine, "{text}");
            }
        }
    }
}
