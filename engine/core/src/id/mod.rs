//! Validated names. A name that parsed is a name that can be shown, logged and used as a path.

mod reference;
mod uuid;

pub use reference::{CertificateRef, KeyRef, SecretRef};
pub use uuid::{AcmeAccountId, AcmeOrderId, CertificateId, CmkId, DataKeyVersionId, KeyVersionId, RequestId};

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use self::uuid::parse_uuid;
use crate::error::{Error, ErrorKind};

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
text_id! {
    /// The name of a node, one of the servers on a store: 1 to 64 letters, digits, `_`, `.`, `-`, of which one is a letter or digit.
    NodeName,
    |text| {
        text.len() <= 64 && is_plain_name(text) && text.bytes().any(|c| c.is_ascii_alphanumeric())
    },
    "the name of a node is 1 to 64 letters, digits, _, . or -, of which one is a letter or digit"
}

text_id! {
    /// The name of a network that instances are bound to: 1 to 64 letters, digits, `_`, `.`, `-`.
    VpcId,
    |text| text.len() <= 64 && is_plain_name(text),
    "a VpcId is 1 to 64 letters, digits, _, . or -"
}

text_id! {
    /// The name of a domain, whose keys tokens hold: 1 to 32 lower-case letters, digits, `-`.
    DomainName,
    |text| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    },
    "the name of a domain is 1 to 32 lower-case letters, digits or -"
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

impl InstanceId {
    /// Makes the id of an instance of Dedicated KMS from random bytes: `kst-` and 20 letters or digits, 100 bits.
    pub fn from_random(bytes: [u8; 20]) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
        let text = bytes.map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
        Self(format!("kst-{}", String::from_utf8_lossy(&text)).into())
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
