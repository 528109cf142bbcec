//! What a command line or a template names: a secret, or a field of one whose value is JSON.

use std::fmt;
use std::str::FromStr;

use keymill_core::id::SecretName;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// A secret, or the field of its value at a path: `shop/db`, `shop/db#user.name`, `shop/db#hosts.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The secret.
    pub(crate) name: SecretName,
    /// The names of fields, and numbers of entries, on the way to the one that is meant.
    pub(crate) path: Option<String>,
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('#') {
            None => (text, None),
            Some((_, "")) => return Err("behind the # stands a field of the value".to_owned()),
            Some((name, path)) => (name, Some(path.to_owned())),
        };
        let name = name.parse().map_err(|error: keymill_core::Error| error.message().to_owned())?;
        Ok(Self { name, path })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            None => self.name.fmt(f),
            Some(path) => write!(f, "{}#{path}", self.name),
        }
    }
}

/// Takes the field at `path` out of a value that is JSON: text as it is, whole numbers and booleans as JSON spells them. The error says what is
/// wrong, and nothing of the value.
pub(crate) fn pick(json: &str, path: &str) -> Result<Zeroizing<String>, &'static str> {
    let names: Vec<&str> = path.split('.').collect();
    let mut decoder = serde_json::Deserializer::from_str(json);
    // Whatever is wrong with it, the decoder's words may hold a part of it.
    let picked = Pick(&names).deserialize(&mut decoder).map_err(|_| "its value is no JSON")?;
    decoder.end().map_err(|_| "its value is no JSON")?;
    match picked {
        Picked::Text(text) => Ok(text),
        Picked::None => Err("its value has no such field"),
        Picked::Null => Err("the field is null"),
        Picked::Nested => Err("the field has fields of its own: name one of them"),
        Picked::Twice => Err("its value has the field twice"),
    }
}

enum Picked {
    Text(Zeroizing<String>),
    None,
    Null,
    Nested,
    Twice,
}

/// Looks for the field at a path.
struct Pick<'p>(&'p [&'p str]);

impl Pick<'_> {
    fn scalar<E>(&self, text: impl FnOnce() -> String) -> Result<Picked, E> {
        Ok(match self.0.is_empty() {
            true => Picked::Text(Zeroizing::new(text())),
            false => Picked::None,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Picked;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Picked, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Picked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Picked, E> {
        self.scalar(|| text.to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Picked, E> {
        self.scalar(|| value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Picked, E> {
        self.scalar(|| value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Picked, E> {
        self.scalar(|| value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Picked, E> {
        match self.0.is_empty() {
            // We would spell it otherwise.
            true => {
                Err(E::custom("a number with a fraction, an exponent or many digits is to be kept as text"))
            }
            false => Ok(Picked::None),
        }
    }

    fn visit_unit<E>(self) -> Result<Picked, E> {
        Ok(if self.0.is_empty() { Picked::Null } else { Picked::None })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Picked, A::Error> {
        let wanted = self.0.split_first();
        let number = wanted.and_then(|(first, _)| first.parse::<usize>().ok());
        let (mut at, mut found) = (0, Picked::None);
        loop {
            let there = match (wanted, number == Some(at)) {
                (Some((_, rest)), true) => match entries.next_element_seed(Pick(rest))? {
                    Some(picked) => {
                        found = picked;
                        true
                    }
                    None => false,
                },
                _ => entries.next_element::<IgnoredAny>()?.is_some(),
            };
            if !there {
                return Ok(if wanted.is_none() { Picked::Nested } else { found });
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Picked, A::Error> {
        let wanted = self.0.split_first();
        let mut found = None;
        while let Some(name) = fields.next_key::<String>()? {
            match wanted {
                Some((first, rest)) if *first == name => {
                    let picked = fields.next_value_seed(Pick(rest))?;
                    found = Some(if found.is_some() { Picked::Twice } else { picked });
                }
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        match (wanted, found) {
            (None, _) => Ok(Picked::Nested),
            (Some(_), None) => Ok(Picked::None),
            (Some(_), Some(picked)) => Ok(picked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_name_and_by_choice_a_field() {
        let place: Place = "shop/db#user.name".parse().unwrap();
        assert_eq!((place.name.as_str(), place.path.as_deref()), ("shop/db", Some("user.name")));
        assert_eq!(place.to_string(), "shop/db#user.name");
        assert_eq!("shop/db".parse::<Place>().unwrap().path, None);
        for bad in ["", "#a", "db#", "no name", "../ü"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_are_picked_at_any_depth() {
        let json = r#"{"user":{"name":"ma\"x","id":7,"on":true,"rate":1.5,"none":null},"hosts":["a",{"b":"c"}],"twice":1,"twice":2}"#;
        let picked = |path: &str| pick(json, path).map(|text| text.to_string());
        assert_eq!(picked("user.name").unwrap(), "ma\"x");
        assert_eq!(picked("user.id").unwrap(), "7");
        assert_eq!(picked("user.on").unwrap(), "true");
        assert!(picked("user.rate").is_err(), "it would be spelled otherwise");
        assert_eq!(picked("hosts.0").unwrap(), "a");
        assert_eq!(picked("hosts.1.b").unwrap(), "c");
        for (path, why) in [
            ("user", "fields of its own"),
            ("hosts", "fields of its own"),
            ("user.other", "no such field"),
            ("user.name.more", "no such field"),
            ("hosts.2", "no such field"),
            ("hosts.x", "no such field"),
            ("user.none", "null"),
            ("twice", "twice"),
        ] {
            let error = picked(path).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_without_a_word_of_it() {
        for json in ["MARKED", "\"MARKED", "{\"a\":MARKED}", "{\"a\":1}MARKED", ""] {
            assert_eq!(pick(json, "a").map(drop).unwrap_err(), "its value is no JSON", "{json}");
        }
        assert_eq!(pick("\"text\"", "a").map(drop).unwrap_err(), "its value has no such field");
    }
}
