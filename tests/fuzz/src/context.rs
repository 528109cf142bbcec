//! The encryption context: one canonical encoding whatever the order, none shared by two contexts, and an exact limit.

use std::collections::BTreeMap;

use keymill_core::error::Limit;
use keymill_core::{EncryptionContext, ErrorKind, limit};

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Reads texts between bytes of 0xff as keys and values in turn. The first byte repeats the last value, so that short inputs
/// reach the limit.
pub(crate) fn check(bytes: &[u8]) {
    let Some((times, bytes)) = bytes.split_first() else { return };
    let texts: Result<Vec<&str>, _> = bytes.split(|byte| *byte == 0xff).map(std::str::from_utf8).collect();
    let Ok(texts) = texts else { return };
    let mut pairs: Vec<(&str, &str)> =
        texts.chunks(2).map(|pair| (pair[0], pair.get(1).copied().unwrap_or(""))).collect();
    let long = pairs.last().expect("a split has a part").1.repeat(usize::from(*times));
    pairs.last_mut().expect("a split has a part").1 = &long;

    let length = bytes.len() + long.len();
    let made = within(room(length), || EncryptionContext::from_pairs(pairs.iter().copied()));
    let map: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    let json = serde_json::to_string(&map).expect("a map of texts has a JSON form");
    match made {
        Ok(context) => {
            assert_eq!(map.len(), pairs.len(), "a key came twice");
            assert!(json.chars().count() <= limit::CONTEXT_CHARACTERS);
            assert_eq!(
                context.pairs().collect::<Vec<_>>(),
                map.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>()
            );
            assert_eq!(context.canonical(), canonical(&map));
            assert_eq!(context.is_empty(), map.is_empty());
            pairs.reverse();
            assert_eq!(EncryptionContext::from_pairs(pairs).ok().as_ref(), Some(&context));
            assert_eq!(serde_json::to_string(&context).ok().as_ref(), Some(&json));
            assert_eq!(serde_json::from_str(&json).ok(), Some(context));
        }
        Err(error) => {
            tells(&error);
            match error.kind() {
                ErrorKind::InvalidParameter => assert!(map.len() < pairs.len()),
                kind => {
                    assert_eq!(kind, ErrorKind::LimitExceeded(Limit::ContextCharacters));
                    assert!(json.chars().count() > limit::CONTEXT_CHARACTERS);
                    assert!(serde_json::from_str::<EncryptionContext>(&json).is_err());
                }
            }
        }
    }
}

/// The encoding again, straight from its specification.
fn canonical(map: &BTreeMap<&str, &str>) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).expect("it fits").to_be_bytes();
    let mut bytes = number(map.len()).to_vec();
    for part in map.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend(number(part.len()));
        bytes.extend(part.as_bytes());
    }
    bytes
}

/// Returns contexts that are fine, doubled, escaped, and about as long as the limit.
pub(crate) fn seeds() -> Vec<Seed> {
    let value = "x".repeat(34);
    vec![
        ("two", b"\x01b\xff2\xffa\xff1".to_vec()),
        ("doubled", b"\x01a\xff1\xffa\xff1".to_vec()),
        ("escaped", "\u{1}\u{0}\n\u{7f}\"\\ä\u{1F600}".as_bytes().to_vec()),
        ("limit", [b"\xf0k\xff", value.as_bytes()].concat()),
    ]
}
