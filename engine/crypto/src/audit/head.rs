//! The head of a chain: what the store, a later chain and a witness remember of it, so that a cut tail or a missing chain is
//! noticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Mac, json};

/// How far a chain has come. Store it only once the lines up to it are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// The name of the chain.
    pub chain: String,
    /// The number of its last line.
    pub sequence: u64,
    /// The MAC of that line; hexadecimal in text.
    #[serde(with = "hexadecimal")]
    pub mac: Mac,
}

impl ChainHead {
    /// Appends it as an object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"chain\":");
        json::whole_text(out, &self.chain);
        out.extend_from_slice(b",\"sequence\":");
        json::number(out, self.sequence);
        out.extend_from_slice(b",\"mac\":\"");
        json::hex(out, &self.mac);
        out.extend_from_slice(b"\"}");
    }
}

/// The farthest head that is known of each chain, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Heads(BTreeMap<String, ChainHead>);

impl Heads {
    /// Takes heads, where they are farther than what is known.
    pub fn learn(&mut self, heads: impl IntoIterator<Item = ChainHead>) {
        for head in heads {
            if !self.covers(&head) {
                self.0.insert(head.chain.clone(), head);
            }
        }
    }

    /// Returns the head of a chain.
    pub fn get(&self, chain: &str) -> Option<&ChainHead> {
        self.0.get(chain)
    }

    /// Tells whether the head's chain is known to come as far as it, or farther.
    pub fn covers(&self, head: &ChainHead) -> bool {
        self.0.get(&head.chain).is_some_and(|known| known.sequence >= head.sequence)
    }

    /// Tells whether the head is known to be one of the chain's, or to lie before the one that is known.
    pub fn accounts_for(&self, head: &ChainHead) -> bool {
        self.0.get(&head.chain).is_some_and(|known| known.sequence > head.sequence || known == head)
    }

    /// Returns the heads.
    pub fn iter(&self) -> impl Iterator<Item = &ChainHead> {
        self.0.values()
    }
}

mod hexadecimal {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::{Mac, json};

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&json::hex_text(mac))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = <Cow<'_, str>>::deserialize(deserializer)?;
        json::unhex(text.as_bytes())
            .ok_or_else(|| de::Error::custom("a MAC is 32 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_its_text_form() {
        let head = ChainHead { chain: "20261124T053017Z-a3f91c02-03".into(), sequence: 7, mac: [0xa5; 16] };
        let text = serde_json::to_string(&head).unwrap();
        assert!(text.contains("\"mac\":\"a5a5a5a5"), "{text}");
        assert_eq!(serde_json::from_str::<ChainHead>(&text).unwrap(), head);
        assert!(serde_json::from_str::<ChainHead>(&text.replace("a5a5", "A5A5")).is_err());
    }

    fn head(chain: &str, sequence: u64) -> ChainHead {
        ChainHead { chain: chain.into(), sequence, mac: [sequence as u8; 16] }
    }

    #[test]
    fn the_farthest_head_of_a_chain_is_the_one_to_reach() {
        let mut heads = Heads::default();
        heads.learn([head("a", 3), head("a", 7), head("a", 5), head("b", 1)]);
        assert_eq!(heads.iter().collect::<Vec<_>>(), [&head("a", 7), &head("b", 1)]);
        assert!(heads.covers(&head("a", 7)) && heads.covers(&head("a", 1)));
        assert!(!heads.covers(&head("a", 8)) && !heads.covers(&head("c", 0)));
    }

    #[test]
    fn a_head_accounts_for_itself_and_for_those_before_it_alone() {
        let mut heads = Heads::default();
        heads.learn([head("a", 3)]);
        assert!(heads.accounts_for(&head("a", 3)) && heads.accounts_for(&head("a", 2)));
        let other = ChainHead { mac: [0; 16], ..head("a", 3) };
        for unknown in [head("a", 4), head("b", 1), other] {
            assert!(!heads.accounts_for(&unknown), "{unknown:?}");
        }
    }
}
