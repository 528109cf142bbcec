//! JSON: one object of names and values. Text is taken as it is, whole numbers and booleans as JSON spells them, objects and lists as compact JSON;
//! `{"Binary": "<base64>"}` is bytes, as `keymill secret export` writes them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use zeroize::Zeroizing;

use super::source::{Entry, MAX_ENTRIES, Unreadable, checked, clipped};

/// Reads a file.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, Unreadable> {
    let mut decoder = serde_json::Deserializer::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    // The decoder's own words may hold a value.
    let wrong = |error: serde_json::Error| {
        Unreadable::at(error.line(), "expected one JSON object of names and values")
    };
    let pairs = decoder.deserialize_map(Pairs).map_err(wrong)?;
    decoder.end().map_err(wrong)?;
    checked(pairs.into_iter().map(entry).collect::<Result<_, _>>()?)
}

fn entry((key, value): (String, Value)) -> Result<Entry, Unreadable> {
    let wrong = |why: &str| Unreadable::at(0, format!("{}: {why}", clipped(&key)));
    if let Value::Object(fields) = &value
        && let Some(bytes) = fields.get("Binary").filter(|_| fields.len() == 1)
    {
        let base64 = bytes.as_str().filter(|text| STANDARD.decode(text).is_ok());
        let base64 = base64.ok_or_else(|| wrong("Binary is bytes in base64"))?;
        return Ok(Entry { value: Zeroizing::new(base64.to_owned()), is_binary: true, key });
    }
    let text = match value {
        Value::Null => return Err(wrong("null is no value")),
        Value::String(text) => text,
        // We would spell it otherwise, and a value is kept as it came.
        other if has_fraction(&other) => {
            return Err(wrong("a number with a fraction, an exponent or many digits is to be given as text"));
        }
        other => other.to_string(),
    };
    Ok(Entry::text(key, Zeroizing::new(text)))
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(entries) => entries.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = fields.next_entry()? {
            pairs.push(pair);
            // One more than is allowed tells that there are too many.
            if pairs.len() > MAX_ENTRIES {
                break;
            }
        }
        while fields.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_each_kind_are_read() {
        let json =
            r#"{"a":"x \u00e4","b":7,"c":true,"d":{"user":"me","n":[1]},"e":{"Binary":"AAE="},"f":[1]}"#;
        let entries = read(json).unwrap();
        let shown: Vec<_> =
            entries.iter().map(|entry| (&*entry.key, &**entry.value, entry.is_binary)).collect();
        let expected = [
            ("a", "x ä", false),
            ("b", "7", false),
            ("c", "true", false),
            ("d", r#"{"n":[1],"user":"me"}"#, false),
            ("e", "AAE=", true),
            ("f", "[1]", false),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_number_that_would_be_spelled_otherwise_is_refused_by_its_name() {
        for number in ["1.10", "1e2", "12345678901234567890123", "[1.5]", "{\"n\":[0.0]}"] {
            let error = read(&format!("{{\"pin\":{number}}}")).unwrap_err();
            assert!(error.why.contains("pin") && !error.why.contains(number), "{error:?}");
        }
        assert_eq!(read("{\"pin\":-7}").unwrap()[0].value.as_str(), "-7");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_value() {
        for bad in [
            "MARKED",
            "[\"MARKED\"]",
            "\"MARKED\"",
            "{\"a\":\"MARKED\"",
            "{\"a\":\"MARKED\"}MARKED",
            "{\"a\":\"MARKED\",\"a\":\"MARKED\"}",
            "{\"a\":null}",
            "{\"a\":{\"Binary\":\"MARKED!\"}}",
            "{\"a\":{\"Binary\":7}}",
            "",
        ] {
            let error = read(bad).unwrap_err();
            assert!(!error.why.contains("MARKED"), "{bad}: {error:?}");
        }
    }
}
