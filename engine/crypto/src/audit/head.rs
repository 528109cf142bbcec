//! The head of a chain: what the store and a witness remember of it, so that a cut tail or a missing chain is noticed.

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

/// Tells which remembered chains are not among those `present`.
pub fn missing_chains<'a>(remembered: &'a [ChainHead], present: &[String]) -> Vec<&'a ChainHead> {
    remembered.iter().filter(|head| !present.contains(&head.chain)).collect()
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

    #[test]
    fn a_chain_without_a_file_is_named() {
        let heads = ["a", "b"].map(|chain| ChainHead { chain: chain.into(), sequence: 1, mac: [0; 16] });
        assert_eq!(missing_chains(&heads, &["b".to_owned()]), [&heads[0]]);
    }
}
