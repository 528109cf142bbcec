//! Validated names. A name that parsed is a name that can be shown, logged and used as a path.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind};

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

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
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

/// Text as the encodings carry it: borrowed where the input allows, and never bytes in the place of text.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v)))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // As text it is equal, ordered and hashed alike: maps are asked by text, too.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(Error::new(ErrorKind::InvalidParameter, $what)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Text::deserialize(deserializer)?;
                text.0.parse().map_err(|_| de::Error::custom($what))
            }
        }
    };
}

text_id! {
    /// The name of an alias: `alias/` and 1 to 255 letters, digits, `_`, `-`, `/`; `alias/acs…` is the cloud's own.
    AliasName,
    |text| match text.strip_prefix("alias/") {
        Some(rest) => {
            (1..=255).contains(&rest.len())
                && !rest.starts_with("acs")
                && rest.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'/'))
        }
        None => false,
    },
    "an alias is alias/ and 1 to 255 letters, digits, _, - or /, and does not begin with alias/acs"
}
text_id! {
    /// The name of a managed data key: 1 to 128 letters, digits, `_`, `/`, `+`, `=`, `.`, `@`, `-`; `acs/…` is the cloud's own.
    DataKeyName,
    |text| {
        (1..=128).contains(&text.len())
            && !text.starts_with("acs/")
            && text.bytes().all(|c| {
                c.is_ascii_alphanumeric() || matches!(c, b'_' | b'/' | b'+' | b'=' | b'.' | b'@' | b'-')
            })
    },
    "the name of a data key is 1 to 128 letters, digits, _, /, +, =, ., @ or -, and does not begin with acs/"
}
text_id! {
    /// The id of an access key: 8 to 64 letters, digits, `.`, `_`, `-`.
    AccessKeyId,
    |text| {
        (8..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    },
    "an access key id is 8 to 64 letters, digits, ., _ or -"
}
text_id! {
    /// The id of a client key: `KAAP.` and a lower-case UUID. It is unique among the ids of access keys, too.
    ClientKeyId,
    |text| text.strip_prefix("KAAP.").is_some_and(|id| parse_uuid(id).is_some()),
    "a client key id is KAAP. and a lower-case UUID"
}
text_id! {
    /// The name of an application access point: 1 to 128 letters, digits, `_`, `.`, `-`.
    AapName,
    is_plain_name,
    "the name of an application access point is 1 to 128 letters, digits, _, . or -"
}
text_id! {
    /// The name of a permission policy: 1 to 128 letters, digits, `_`, `.`, `-`.
    PolicyName,
    is_plain_name,
    "the name of a policy is 1 to 128 letters, digits, _, . or -"
}
text_id! {
    /// The name of a role of the installation's own: 1 to 128 letters, digits, `_`, `.`, `-`.
    RoleName,
    is_plain_name,
    "the name of a role is 1 to 128 letters, digits, _, . or -"
}
text_id! {
    /// The id of a request that waits for a second caller: `APR.` and 32 lower-case hexadecimal digits.
    ApprovalId,
    |text| text.strip_prefix("APR.").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    }),
    "the id of a request that waits is APR. and 32 hexadecimal digits"
}
text_id! {
    /// The name of a network rule: 1 to 128 letters, digits, `_`, `.`, `-`.
    NetworkRuleName,
    is_plain_name,
    "the name of a network rule is 1 to 128 letters, digits, _, . or -"
}
text_id! {
    /// The name of a certificate authority, a part of the addresses of its lists: 1 to 64 letters, digits, `_`, `.`, `-`, and a letter or digit first.
    AuthorityName,
    |text| text.len() <= 64 && is_plain_name(text) && text.starts_with(|c: char| c.is_ascii_alphanumeric()),
    "the name of a certificate authority is 1 to 64 letters, digits, _, . or -, and begins with a letter or digit"
}
text_id! {
    /// The name of a profile that certificates are issued by: 1 to 64 letters, digits, `_`, `.`, `-`.
    ProfileName,
    |text| text.len() <= 64 && is_plain_name(text),
    "the name of a profile is 1 to 64 letters, digits, _, . or -"
}
text_id! {
    /// The name of a secret: 1 to 192 letters, digits, `_`, `/`, `+`, `=`, `.`, `@`, `-`.
    SecretName,
    |text| (1..=192).contains(&text.len()) && text.bytes().all(is_in_secret_names),
    "the name of a secret is 1 to 192 letters, digits, _, /, +, =, ., @ or -"
}
text_id! {
    /// The name of a version of a secret, as the caller chooses it: 1 to 64 letters, digits, `_`, `/`, `+`, `=`, `.`, `@`, `-`.
    SecretVersionId,
    |text| (1..=64).contains(&text.len()) && text.bytes().all(is_in_secret_names),
    "the VersionId of a secret is 1 to 64 letters, digits, _, /, +, =, ., @ or -"
}
text_id! {
    /// A label that points to a version of a secret: 1 to 128 letters, digits, `_`, `/`, `+`, `=`, `.`, `@`, `-`.
    VersionStage,
    |text| (1..=128).contains(&text.len()) && text.bytes().all(is_in_secret_names),
    "a VersionStage is 1 to 128 letters, digits, _, /, +, =, ., @ or -"
}
text_id! {
    /// The name that the configuration gives a rotator: 1 to 64 letters, digits, `_`, `.`, `-`.
    RotatorName,
    |text| text.len() <= 64 && is_plain_name(text),
    "the name of a rotator is 1 to 64 letters, digits, _, . or -"
}
text_id! {
    /// The id of an instance (a tenant): 1 to 64 lower-case letters, digits, `-`.
    InstanceId,
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    },
    "an instance id is 1 to 64 lower-case letters, digits or -"
}

fn is_in_secret_names(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'/' | b'+' | b'=' | b'.' | b'@' | b'-')
}

fn is_plain_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

impl ClientKeyId {
    /// Makes an id from random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("KAAP.{}", RequestId::from_random(bytes)).into())
    }
}

impl SecretVersionId {
    /// Makes a name from random bytes, for a version that no caller names.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(RequestId::from_random(bytes).to_string().into())
    }
}

impl From<&ClientKeyId> for AccessKeyId {
    /// Takes it for the id of the credential that signs, whichever kind that is.
    fn from(id: &ClientKeyId) -> Self {
        Self(id.0.clone())
    }
}

/// Hashes names that were made here, at random: nobody can choose what stands in a map of them, so a fast hash does.
#[derive(Default)]
pub struct NameHasher(u64);

impl std::hash::Hasher for NameHasher {
    fn finish(&self) -> u64 {
        // The low bits choose the place in a table; the product's high bits have seen every byte.
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}

/// A map by names that were made here.
pub type NameMap<K, V> = std::collections::HashMap<K, V, std::hash::BuildHasherDefault<NameHasher>>;

/// How a request names a key: by id, by ARN (read as its id or alias), or by alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRef {
    /// A key id.
    Id(CmkId),
    /// An alias.
    Alias(AliasName),
    /// Text that can name no key of ours; it is looked up in vain, so that the answer is the not-found error.
    Unknown,
}

impl KeyRef {
    /// Reads a key id, an alias, or the ARN of either.
    pub fn parse(text: &str) -> Self {
        let name = match text.strip_prefix("acs:kms:") {
            // acs:kms:<region>:<account>:key/<id> or …:alias/<name>
            Some(rest) => match rest.splitn(3, ':').nth(2) {
                Some(resource) => resource.strip_prefix("key/").unwrap_or(resource),
                None => return KeyRef::Unknown,
            },
            None => text,
        };
        if let Some(id) = CmkId::parse(name) {
            KeyRef::Id(id)
        } else if let Ok(alias) = name.parse() {
            KeyRef::Alias(alias)
        } else {
            KeyRef::Unknown
        }
    }
}

impl Serialize for KeyRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            KeyRef::Id(id) => id.serialize(serializer),
            KeyRef::Alias(alias) => alias.serialize(serializer),
            KeyRef::Unknown => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(KeyRef::parse(&Text::deserialize(deserializer)?.0))
    }
}

/// How a request names a secret that is there: by its name, or by its ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef(pub SecretName);

impl FromStr for SecretRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let resource = text.strip_prefix("acs:kms:").and_then(|rest| rest.splitn(3, ':').nth(2));
        // acs:kms:<region>:<account>:secret/<name>; no name holds a colon.
        resource.map_or(text, |resource| resource.strip_prefix("secret/").unwrap_or("")).parse().map(Self)
    }
}

impl From<SecretName> for SecretRef {
    fn from(name: SecretName) -> Self {
        Self(name)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map_err(|error: Error| de::Error::custom(error.message()))
    }
}

/// How a request names a certificate that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRef {
    /// Its id.
    Id(CertificateId),
    /// Text that can name no certificate of ours; it is looked up in vain, so that the answer is the not-found error.
    Unknown,
}

impl CertificateRef {
    /// Reads an id, or an ARN: `acs:kms:<region>:<account>:certificate/<id>`.
    pub fn parse(text: &str) -> Self {
        let resource = text.strip_prefix("acs:kms:").and_then(|rest| rest.splitn(3, ':').nth(2));
        let id = resource.map_or(text, |resource| resource.strip_prefix("certificate/").unwrap_or(""));
        CertificateId::parse(id).map_or(CertificateRef::Unknown, CertificateRef::Id)
    }
}

impl From<CertificateId> for CertificateRef {
    fn from(id: CertificateId) -> Self {
        CertificateRef::Id(id)
    }
}

impl Serialize for CertificateRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            CertificateRef::Id(id) => id.serialize(serializer),
            CertificateRef::Unknown => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for CertificateRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(CertificateRef::parse(&Text::deserialize(deserializer)?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_by_its_id_or_arn_and_anything_else_is_nobodys() {
        let id = CertificateId::parse(ID).unwrap();
        for named in [ID.to_owned(), format!("acs:kms:cn-hangzhou:1234:certificate/{ID}")] {
            assert_eq!(CertificateRef::parse(&named), CertificateRef::Id(id));
        }
        for other in ["", "a", "acs:kms:r:1:key/", &format!("acs:kms:r:1:key/{ID}"), &ID.to_uppercase()] {
            assert_eq!(CertificateRef::parse(other), CertificateRef::Unknown, "{other}");
        }
    }

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

    #[test]
    fn a_key_is_named_by_id_arn_or_alias_and_anything_else_names_none() {
        let id = CmkId::parse(ID).unwrap();
        assert_eq!(KeyRef::parse(ID), KeyRef::Id(id));
        assert_eq!(KeyRef::parse(&format!("acs:kms:cn-hangzhou:1234:key/{ID}")), KeyRef::Id(id));
        assert_eq!(KeyRef::parse("alias/people"), KeyRef::Alias("alias/people".parse().unwrap()));
        assert_eq!(
            KeyRef::parse("acs:kms:cn-hangzhou:1234:alias/people"),
            KeyRef::Alias("alias/people".parse().unwrap())
        );
        for other in ["", "people", "alias/", "alias/acs/x", "acs:kms:key/x", "key-hzz62f1cb66fa42qo2c4d"] {
            assert_eq!(KeyRef::parse(other), KeyRef::Unknown, "{other}");
        }
    }

    #[test]
    fn look_alike_and_path_like_aliases_are_refused() {
        for bad in
            ["alias/pеople", "alias/a b", "alias/a\0", "alias/%2e", "alias/a\n", "alias/../x", "ALIAS/a"]
        {
            assert!(bad.parse::<AliasName>().is_err(), "{bad:?}");
        }
        assert!(format!("alias/{}", "a".repeat(255)).parse::<AliasName>().is_ok());
        assert!(format!("alias/{}", "a".repeat(256)).parse::<AliasName>().is_err());
    }

    #[test]
    fn a_secret_is_named_by_its_name_or_arn_and_tricks_with_names_are_refused() {
        let name = |text: &str| text.parse::<SecretRef>().map(|secret| secret.0.to_string());
        assert_eq!(name("db/orders").unwrap(), "db/orders");
        assert_eq!(name("acs:kms:cn-hangzhou:1234:secret/db/orders").unwrap(), "db/orders");
        for odd in [
            "",
            "a b",
            "a\nb",
            "a\0",
            "secret:a",
            "acs:kms:r:1:key/a",
            "acs:kms:r:1:secret/",
            "acs:kms:a",
            "пароль",
        ] {
            assert_eq!(name(odd).unwrap_err().kind(), ErrorKind::InvalidParameter, "{odd:?}");
        }
        assert!(name(&"x".repeat(192)).is_ok() && name(&"x".repeat(193)).is_err());
        assert!("v".repeat(64).parse::<SecretVersionId>().is_ok());
        assert!("v".repeat(65).parse::<SecretVersionId>().is_err());
    }
}
