//! The encryption context: authenticated pairs of text, kept in their one canonical encoding (`spec/ciphertext.md`), so that
//! order and spelling of the request cannot matter and no two contexts share an encoding.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::Text;
use crate::limit;

/// Authenticated key-value pairs of text in canonical form: `u32` number of pairs, then for each pair, sorted by key as raw
/// UTF-8 bytes, `u32` key length, key, `u32` value length, value (big-endian). Absent and empty are the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EncryptionContext {
    canonical: Box<[u8]>,
}

/// The canonical form of no context.
pub const EMPTY_CANONICAL: [u8; 4] = [0; 4];

impl Default for EncryptionContext {
    fn default() -> Self {
        Self { canonical: Box::new(EMPTY_CANONICAL) }
    }
}

impl EncryptionContext {
    /// Makes a context from pairs in any order.
    ///
    /// # Errors
    /// `InvalidParameter` for a key that comes twice, `LimitExceeded` past 8,192 characters as compact JSON.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> =
            pairs.into_iter().map(|(k, v)| (Cow::Borrowed(k), Cow::Borrowed(v))).collect();
        Self::from_unsorted(&mut pairs)
    }

    fn from_unsorted(pairs: &mut [(Cow<'_, str>, Cow<'_, str>)]) -> Result<Self> {
        // str orders by its bytes, which is what the canonical form asks for.
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if pairs.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                "a key comes twice in the encryption context",
            ));
        }
        let characters: usize =
            pairs.iter().map(|(k, v)| json_characters(k) + json_characters(v) + 1).sum::<usize>()
                + pairs.len().saturating_sub(1)
                + 2;
        if characters > limit::CONTEXT_CHARACTERS {
            return Err(Error::new(
                ErrorKind::LimitExceeded(Limit::ContextCharacters),
                format!(
                    "encryption context of {characters} characters exceeds the limit of {}",
                    limit::CONTEXT_CHARACTERS
                ),
            ));
        }
        let bytes: usize = pairs.iter().map(|(k, v)| 8 + k.len() + v.len()).sum();
        let mut canonical = Vec::with_capacity(4 + bytes);
        canonical.extend((pairs.len() as u32).to_be_bytes());
        for (key, value) in pairs.iter() {
            for part in [key, value] {
                canonical.extend((part.len() as u32).to_be_bytes());
                canonical.extend(part.as_bytes());
            }
        }
        Ok(Self { canonical: canonical.into() })
    }

    /// Returns the canonical bytes, which follow the header in the associated data.
    pub fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// Tells whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.canonical[..4] == EMPTY_CANONICAL
    }

    /// Returns the pairs in canonical order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.canonical[4..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let mut part = || {
                let (len, tail) = rest.split_first_chunk::<4>().expect("the canonical form was built here");
                let (text, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
                rest = tail;
                std::str::from_utf8(text).expect("the canonical form holds the caller's UTF-8")
            };
            Some((part(), part()))
        })
    }
}

/// Length of `text` as a compact JSON string with its quotes, in characters (RFC 8259 §7, shortest escapes).
fn json_characters(text: &str) -> usize {
    2 + text
        .chars()
        .map(|c| match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            c if (c as u32) < 0x20 => 6,
            _ => 1,
        })
        .sum::<usize>()
}

// A context may name persons; its hash goes into the audit, its text nowhere.
impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionContext({} bytes)", self.canonical.len())
    }
}

impl Serialize for EncryptionContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = u32::from_be_bytes(*self.canonical.first_chunk().expect("a canonical form has a count"));
        let mut map = serializer.serialize_map(Some(count as usize))?;
        for (key, value) in self.pairs() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EncryptionContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = EncryptionContext;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of text to text")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    pairs.push((key.0, value.0));
                }
                EncryptionContext::from_unsorted(&mut pairs).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        EncryptionContext::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn order_does_not_matter_and_the_bytes_are_as_specified() {
        let a = context(&[("b", "2"), ("a", "1")]);
        assert_eq!(a, context(&[("a", "1"), ("b", "2")]));
        assert_eq!(
            a.canonical(),
            [0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 1, b'1', 0, 0, 0, 1, b'b', 0, 0, 0, 1, b'2']
        );
        assert_eq!(a.pairs().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(EncryptionContext::default().canonical(), context(&[]).canonical());
    }

    #[test]
    fn contexts_that_collide_under_naive_joins_stay_distinct() {
        let all = [
            context(&[("a", "bc")]),
            context(&[("ab", "c")]),
            context(&[("a", "1"), ("b", "2")]),
            context(&[("a", "1b2")]),
            context(&[("a", "1\",\"b\":\"2")]),
            context(&[("a\0", "")]),
            context(&[("a", "\0")]),
            context(&[("", "a")]),
            context(&[("a", "")]),
            context(&[]),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.canonical(), b.canonical());
            }
        }
    }

    #[test]
    fn a_doubled_key_is_refused_and_the_limit_is_exact() {
        assert!(EncryptionContext::from_pairs([("a", "1"), ("a", "1")]).is_err());
        // {"k":"…"} is eight characters around the value
        let value = "x".repeat(limit::CONTEXT_CHARACTERS - 8);
        assert!(EncryptionContext::from_pairs([("k", value.as_str())]).is_ok());
        let error = EncryptionContext::from_pairs([("k", format!("{value}x").as_str())]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::ContextCharacters));
        assert!(error.message().contains("8193"), "{error}");
    }
}
