//! JSON as it is taken from outside: an object with each member once, at every depth, and errors that name the member and quote nothing.

use std::fmt;

use keymill_core::acme::{Outcome, Problem, ProblemKind};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A value in which no object has a member twice. serde_json alone would keep the last, where a proxy or another reader keeps the first.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(value)) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Value::Array(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut members = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    let Strict(value) = map.next_value()?;
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member stands twice"));
                    }
                }
                Ok(Value::Object(members))
            }
        }
        deserializer.deserialize_any(Any).map(Strict)
    }
}

/// An object whose members are taken out one by one.
pub(crate) struct Members {
    members: Map<String, Value>,
    /// What it is, as errors name it.
    what: &'static str,
}

impl Members {
    /// Reads a text that is one object.
    pub(crate) fn read(bytes: &[u8], what: &'static str) -> Outcome<Self> {
        match serde_json::from_slice::<Strict>(bytes) {
            Ok(Strict(value)) => Self::of(value, what),
            Err(error) => {
                // Of the decoder's words none holds what was read but for its place.
                let why = match error.is_data() {
                    true => "has a member twice, or nests too deep",
                    false => "is not JSON",
                };
                let (line, column) = (error.line(), error.column());
                Err(malformed(format!("{what} {why}, at line {line}, column {column}")))
            }
        }
    }

    /// Takes a value that is an object.
    pub(crate) fn of(value: Value, what: &'static str) -> Outcome<Self> {
        match value {
            Value::Object(members) => Ok(Self { members, what }),
            _ => Err(malformed(format!("{what} is not a JSON object"))),
        }
    }

    /// Tells whether there is a member.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Takes a member; `null` is as none.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Takes text.
    pub(crate) fn text(&mut self, name: &str) -> Outcome<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "is not text")),
        }
    }

    /// Takes text that must be there.
    pub(crate) fn needed(&mut self, name: &str) -> Outcome<String> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// Takes a flag; absent is false.
    pub(crate) fn flag(&mut self, name: &str) -> Outcome<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.wrong(name, "is neither true nor false")),
        }
    }

    /// Takes a list.
    pub(crate) fn list(&mut self, name: &str) -> Outcome<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(name, "is not a list")),
        }
    }

    /// Takes a list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Outcome<Option<Vec<String>>> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(name, "is not a list of texts")),
        };
        list.into_iter().map(text).collect::<Outcome<Vec<_>>>().map(Some)
    }

    /// Checks that nothing else is there.
    pub(crate) fn end(self) -> Outcome<()> {
        match self.members.is_empty() {
            true => Ok(()),
            false => Err(malformed(format!("{} has members that it may not have", self.what))),
        }
    }

    /// Makes the error for a member.
    pub(crate) fn wrong(&self, name: &str, why: &str) -> Problem {
        malformed(format!("{}: {name} {why}", self.what))
    }
}

/// Makes the error for a request that is not of the protocol's form.
pub(crate) fn malformed(why: impl AsRef<str>) -> Problem {
    Problem::new(ProblemKind::Malformed, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Members::read(text.as_bytes(), "it").map(drop).unwrap_err().detail
    }

    #[test]
    fn members_that_stand_twice_are_refused_at_every_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"\u0062":2}]}"#] {
            assert!(refused(text).contains("twice"), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_refused_and_not_quoted() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "{",
            "null",
            "[]",
            "\"secret\"",
            "{\"a\":secret}",
            "{} {}",
            "\u{feff}{}",
            "{\"a\":1e999}",
            &deep,
        ] {
            let why = refused(text);
            assert!(why.starts_with("it ") && !why.contains("secret"), "{why}");
        }
        assert!(Members::read(b"{\"a\":\"\xff\"}", "it").is_err());
        assert!(Members::read(b"{\"a\":\"\\ud800\"}", "it").is_err());
    }

    #[test]
    fn each_member_has_one_type_and_null_is_none() {
        let text = r#"{"t":"x","f":true,"l":[1],"s":["a"],"n":null,"rest":0}"#;
        let mut it = Members::read(text.as_bytes(), "it").unwrap();
        assert_eq!(it.text("n").unwrap(), None);
        assert_eq!(it.needed("t").unwrap(), "x");
        assert!(it.flag("f").unwrap() && !it.flag("f").unwrap());
        assert_eq!(it.texts("s").unwrap().unwrap(), ["a"]);
        assert!(it.texts("l").unwrap_err().detail.contains("list of texts"));
        assert!(it.needed("gone").unwrap_err().detail.contains("it: gone is missing"));
        assert!(it.end().is_err());
        for (name, read) in [("t", r#"{"t":1}"#), ("t", r#"{"t":["x"]}"#)] {
            assert!(Members::read(read.as_bytes(), "it").unwrap().text(name).is_err());
        }
        assert!(Members::read(br#"{"f":1}"#, "it").unwrap().flag("f").is_err());
        assert!(Members::read(br#"{"l":{}}"#, "it").unwrap().list("l").is_err());
    }
}
