//! Conditions of a statement: what must hold of a request beside who asks to do what. They are written as the cloud's RAM language has them:
//! `"Condition": {"<operator>": {"<key>": ["<value>", …], …}, …}`. All of them must hold, and each holds for any of its values.
//!
//! | key | what it is of the request | operators |
//! |---|---|---|
//! | `acs:SourceIp` | the address that it came from | `IpAddress`, `NotIpAddress` |
//! | `acs:CurrentTime` | when it is decided | `DateGreaterThan`, `DateGreaterThanEquals`, `DateLessThan`, `DateLessThanEquals` |
//! | `kms:KeySpec` | the specification of the key | those of text |
//! | `kms:EncryptionContext:<name>` | what its encryption context says under that name | those of text |
//!
//! Those of text are `StringEquals`, `StringNotEquals`, `StringLike` and `StringNotLike` (`*` is any text, `?` any character); case matters.
//! What a request does not have (a context, or that name in it; an address, inside this process) equals nothing: a condition holds of it where
//! it is of the `Not` form, and else does not.

use std::fmt;
use std::net::IpAddr;

use serde::de::{self, Deserialize, Deserializer, MapAccess};

use super::Question;
use super::network::{Network, Ranges};
use super::operation_set::clip;
use crate::key::KeySpec;
use crate::limit;
use crate::time::Timestamp;

const CONTEXT: &str = "kms:EncryptionContext:";

/// All that must hold.
#[derive(Debug, Default)]
pub(super) struct Conditions(Box<[Condition]>);

/// One key held against its values.
#[derive(Debug)]
struct Condition {
    operator: Operator,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// The source address is among these.
    Source(Ranges),
    /// The time stands to any of these as the operator says.
    Time(Box<[Timestamp]>),
    /// The name of the key's specification is, or is like, any of these.
    Spec(Box<[Box<str>]>),
    /// What the context has under a name is, or is like, any of these.
    Context { name: Box<str>, values: Box<[Box<str>]> },
}

/// How a key is held against its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    StringEquals,
    StringNotEquals,
    StringLike,
    StringNotLike,
    IpAddress,
    NotIpAddress,
    DateGreaterThan,
    DateGreaterThanEquals,
    DateLessThan,
    DateLessThanEquals,
}

impl Operator {
    const ALL: [Operator; 10] = [
        Operator::StringEquals,
        Operator::StringNotEquals,
        Operator::StringLike,
        Operator::StringNotLike,
        Operator::IpAddress,
        Operator::NotIpAddress,
        Operator::DateGreaterThan,
        Operator::DateGreaterThanEquals,
        Operator::DateLessThan,
        Operator::DateLessThanEquals,
    ];

    fn name(self) -> &'static str {
        match self {
            Operator::StringEquals => "StringEquals",
            Operator::StringNotEquals => "StringNotEquals",
            Operator::StringLike => "StringLike",
            Operator::StringNotLike => "StringNotLike",
            Operator::IpAddress => "IpAddress",
            Operator::NotIpAddress => "NotIpAddress",
            Operator::DateGreaterThan => "DateGreaterThan",
            Operator::DateGreaterThanEquals => "DateGreaterThanEquals",
            Operator::DateLessThan => "DateLessThan",
            Operator::DateLessThanEquals => "DateLessThanEquals",
        }
    }

    fn is_negated(self) -> bool {
        matches!(self, Operator::StringNotEquals | Operator::StringNotLike | Operator::NotIpAddress)
    }

    fn is_pattern(self) -> bool {
        matches!(self, Operator::StringLike | Operator::StringNotLike)
    }

    fn is_of_text(self) -> bool {
        self.is_pattern() || matches!(self, Operator::StringEquals | Operator::StringNotEquals)
    }

    fn is_of_addresses(self) -> bool {
        matches!(self, Operator::IpAddress | Operator::NotIpAddress)
    }

    fn is_of_times(self) -> bool {
        !self.is_of_text() && !self.is_of_addresses()
    }
}

impl Conditions {
    /// Reads what was written.
    pub(super) fn of(written: &Written) -> Result<Self, String> {
        if let Some((operator, _)) = written.0.iter().find(|(_, keys)| keys.0.is_empty()) {
            return Err(format!("Condition: {:?} names no key, and would always hold", clip(operator)));
        }
        let all = written
            .0
            .iter()
            .flat_map(|(operator, keys)| keys.0.iter().map(move |(key, values)| (operator, key, values)));
        all.map(|(operator, key, values)| Condition::of(operator, key, values))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Tells whether all of them hold.
    pub(super) fn hold(&self, asked: &Question<'_>) -> bool {
        self.0.iter().all(|condition| condition.holds(asked))
    }

    /// Returns the first that does not hold, as it was written.
    pub(super) fn unmet(&self, asked: &Question<'_>) -> Option<String> {
        self.0.iter().find(|condition| !condition.holds(asked)).map(Condition::to_string)
    }

    /// Tells whether any of them is about the encryption context.
    pub(super) fn read_context(&self) -> bool {
        self.0.iter().any(|condition| matches!(condition.test, Test::Context { .. }))
    }

    /// Tells whether any of them is about the specification of the key.
    pub(super) fn read_spec(&self) -> bool {
        self.0.iter().any(|condition| matches!(condition.test, Test::Spec(_)))
    }
}

impl Condition {
    fn of(operator: &str, key: &str, values: &[String]) -> Result<Self, String> {
        let known = Operator::ALL.into_iter().find(|known| known.name() == operator);
        let operator = known.ok_or_else(|| {
            let names: Vec<_> = Operator::ALL.iter().map(|known| known.name()).collect();
            format!("Condition: operator {:?} is none of {}", clip(operator), names.join(", "))
        })?;
        let wrong = |why: &str| format!("Condition: {} of {:?} {why}", operator.name(), clip(key));
        if values.is_empty() {
            return Err(wrong("has no value"));
        }
        if operator.is_pattern() && values.iter().any(|value| value.len() > limit::PATTERN_BYTES) {
            return Err(wrong(&format!("has a pattern of more than {} bytes", limit::PATTERN_BYTES)));
        }
        let texts = || values.iter().map(|value| value.as_str().into()).collect();
        let fits = |fits: bool, test: Test| match fits {
            true => Ok(Self { operator, test }),
            false => Err(wrong("compares what cannot be compared")),
        };
        match key {
            "acs:SourceIp" => {
                let networks = values.iter().map(|value| value.parse::<Network>());
                let networks =
                    networks.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error.to_string()));
                fits(operator.is_of_addresses(), Test::Source(Ranges::of(&networks?)))
            }
            "acs:CurrentTime" => {
                let times = values.iter().map(|value| {
                    let why = || format!("{:?} is not of the form YYYY-MM-DDTHH:MM:SSZ", clip(value));
                    Timestamp::parse(value).ok_or_else(|| wrong(&why()))
                });
                fits(operator.is_of_times(), Test::Time(times.collect::<Result<_, _>>()?))
            }
            "kms:KeySpec" => {
                let is_known = |value: &String| {
                    operator.is_pattern() || KeySpec::ALL.iter().any(|spec| spec.name() == value)
                };
                match values.iter().find(|value| !is_known(value)) {
                    Some(odd) => Err(wrong(&format!("{:?} is no KeySpec", clip(odd)))),
                    None => fits(operator.is_of_text(), Test::Spec(texts())),
                }
            }
            _ => match key.strip_prefix(CONTEXT) {
                Some("") => Err(wrong("names nothing of the context")),
                Some(name) => {
                    fits(operator.is_of_text(), Test::Context { name: name.into(), values: texts() })
                }
                None => Err(wrong(
                    "is not known: there are acs:SourceIp, acs:CurrentTime, kms:KeySpec and kms:EncryptionContext:<name>",
                )),
            },
        }
    }

    fn holds(&self, asked: &Question<'_>) -> bool {
        let is_found = match &self.test {
            Test::Source(ranges) => asked.source.is_some_and(|address: IpAddr| ranges.has(address)),
            Test::Time(times) => times.iter().any(|time| match self.operator {
                Operator::DateGreaterThan => asked.now > *time,
                Operator::DateGreaterThanEquals => asked.now >= *time,
                Operator::DateLessThan => asked.now < *time,
                _ => asked.now <= *time,
            }),
            Test::Spec(values) => asked.spec.is_some_and(|spec| self.is_any(values, spec.name())),
            Test::Context { name, values } => {
                let mut pairs = asked.context.into_iter().flat_map(|context| context.pairs());
                pairs.find(|(key, _)| **key == **name).is_some_and(|(_, value)| self.is_any(values, value))
            }
        };
        is_found != self.operator.is_negated()
    }

    fn is_any(&self, values: &[Box<str>], text: &str) -> bool {
        values.iter().any(|value| match self.operator.is_pattern() {
            true => is_like(text, value),
            false => **value == *text,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = self.operator.name();
        let texts = |f: &mut fmt::Formatter<'_>, key: fmt::Arguments<'_>, values: &[Box<str>]| {
            let values: Vec<_> = values.iter().map(|value| format!("{:?}", clip(value))).collect();
            write!(f, "{key} {operator} {}", values.join(", "))
        };
        match &self.test {
            Test::Source(_) => write!(f, "acs:SourceIp {operator} of its addresses"),
            Test::Time(times) => {
                let times: Vec<_> = times.iter().map(Timestamp::to_string).collect();
                write!(f, "acs:CurrentTime {operator} {}", times.join(", "))
            }
            Test::Spec(values) => texts(f, format_args!("kms:KeySpec"), values),
            Test::Context { name, values } => texts(f, format_args!("{CONTEXT}{}", clip(name)), values),
        }
    }
}

/// Tells whether a text is what a pattern says: `*` is any text, `?` any character. It takes as long as the two lengths' product, at most.
fn is_like(text: &str, pattern: &str) -> bool {
    let (mut text, mut pattern) = (text.chars(), pattern.chars());
    // Where to go on when what follows the last `*` does not fit: the pattern behind it, and the text from one character further.
    let mut again: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let before = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = before.clone();
                again = Some((pattern.clone(), before));
                continue;
            }
            (Some('?'), Some(_)) => continue,
            (Some(wanted), Some(is)) if wanted == is => continue,
            _ => {}
        }
        let Some((behind, from)) = &mut again else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (behind.clone(), from.clone());
    }
}

/// Conditions as they are written; what stands twice is refused, where a map would keep the last and lose a condition.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<(String, Keys)>);

#[derive(Debug)]
struct Keys(Vec<(String, Vec<String>)>);

/// A value, or a list of them.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::key_policy::OneOrMany::deserialize(deserializer).map(|values| Self(values.into_list()))
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        pairs(deserializer)
            .map(|all| Self(all.into_iter().map(|(key, Values(values))| (key, values)).collect()))
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        pairs(deserializer).map(Self)
    }
}

/// Reads a map whose keys all differ.
fn pairs<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<(String, T)>, D::Error> {
    struct Visitor<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
        type Value = Vec<(String, T)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a Condition of the form {\"<operator>\": {\"<key>\": [\"<value>\"]}}")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs: Self::Value = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, T>()? {
                if pairs.iter().any(|(other, _)| *other == key) {
                    return Err(de::Error::custom(format_args!(
                        "{:?} stands twice in a Condition",
                        clip(&key)
                    )));
                }
                pairs.push((key, value));
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Visitor(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Principal, Resource};
    use super::*;
    use crate::context::EncryptionContext;
    use crate::operation::Operation;

    fn read(text: &str) -> Result<Conditions, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Conditions::of(&written)
    }

    fn holds(text: &str, from: &str, pairs: &[(&str, &str)], spec: Option<KeySpec>) -> bool {
        let principal = Principal::of_access_key("KMAK00000001".parse().unwrap());
        let context = EncryptionContext::from_pairs(pairs.iter().copied()).unwrap();
        let asked = Question {
            principal: &principal,
            operation: Operation::Encrypt,
            resource: Resource::Keys,
            source: from.parse().ok(),
            now: Timestamp::parse("2026-11-29T12:00:00Z").unwrap(),
            spec,
            context: Some(&context),
        };
        let conditions = read(text).unwrap();
        assert_eq!(conditions.unmet(&asked).is_none(), conditions.hold(&asked));
        conditions.hold(&asked)
    }

    #[test]
    fn each_key_is_held_against_its_values() {
        let of =
            |text: &str| holds(text, "10.0.0.7", &[("tenant", "a"), ("zone", "eu-1")], Some(KeySpec::Aes256));
        for (text, expected) in [
            (r#"{"StringEquals":{"kms:EncryptionContext:tenant":"a"}}"#, true),
            (r#"{"StringEquals":{"kms:EncryptionContext:tenant":["b","a"]}}"#, true),
            (r#"{"StringEquals":{"kms:EncryptionContext:tenant":"A"}}"#, false),
            (r#"{"StringEquals":{"kms:EncryptionContext:Tenant":"a"}}"#, false),
            (r#"{"StringNotEquals":{"kms:EncryptionContext:tenant":["b","c"]}}"#, true),
            (r#"{"StringNotEquals":{"kms:EncryptionContext:tenant":["b","a"]}}"#, false),
            (r#"{"StringLike":{"kms:EncryptionContext:zone":"eu-*"}}"#, true),
            (r#"{"StringLike":{"kms:EncryptionContext:zone":"us-*"}}"#, false),
            (r#"{"StringNotLike":{"kms:EncryptionContext:zone":"us-?"}}"#, true),
            (r#"{"StringEquals":{"kms:EncryptionContext:zone":"eu-*"}}"#, false),
            (r#"{"StringEquals":{"kms:KeySpec":"Aliyun_AES_256"}}"#, true),
            (r#"{"StringNotLike":{"kms:KeySpec":"RSA_*"}}"#, true),
            (r#"{"IpAddress":{"acs:SourceIp":["192.168.0.0/16","10.0.0.0/24"]}}"#, true),
            (r#"{"IpAddress":{"acs:SourceIp":"::ffff:10.0.0.7"}}"#, true),
            (r#"{"NotIpAddress":{"acs:SourceIp":"10.0.0.0/24"}}"#, false),
            (r#"{"DateGreaterThan":{"acs:CurrentTime":"2026-11-29T12:00:00Z"}}"#, false),
            (r#"{"DateGreaterThanEquals":{"acs:CurrentTime":"2026-11-29T12:00:00Z"}}"#, true),
            (r#"{"DateLessThan":{"acs:CurrentTime":"2026-11-29T12:00:01Z"}}"#, true),
            (r#"{"DateLessThanEquals":{"acs:CurrentTime":"2026-11-29T11:59:59Z"}}"#, false),
            // All must hold.
            (
                r#"{"StringEquals":{"kms:EncryptionContext:tenant":"a","kms:EncryptionContext:zone":"us-1"}}"#,
                false,
            ),
            (
                r#"{"StringEquals":{"kms:EncryptionContext:tenant":"a"},"NotIpAddress":{"acs:SourceIp":"10.0.0.7"}}"#,
                false,
            ),
            ("{}", true),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    /// What is not there equals nothing: an allow by it is not given, and a deny of all others holds.
    #[test]
    fn what_a_request_does_not_have_equals_nothing() {
        for (text, expected) in [
            (r#"{"StringEquals":{"kms:EncryptionContext:tenant":""}}"#, false),
            (r#"{"StringLike":{"kms:EncryptionContext:tenant":"*"}}"#, false),
            (r#"{"StringNotEquals":{"kms:EncryptionContext:tenant":"a"}}"#, true),
            (r#"{"StringNotLike":{"kms:EncryptionContext:tenant":"*"}}"#, true),
            (r#"{"IpAddress":{"acs:SourceIp":"::/0"}}"#, false),
            (r#"{"NotIpAddress":{"acs:SourceIp":"10.0.0.0/8"}}"#, true),
            (r#"{"StringEquals":{"kms:KeySpec":"EC_P256"}}"#, false),
            (r#"{"StringNotEquals":{"kms:KeySpec":"EC_P256"}}"#, true),
        ] {
            assert_eq!(holds(text, "nowhere", &[], None), expected, "{text}");
        }
    }

    #[test]
    fn d8_what_a_condition_may_not_say_is_named() {
        let long = "*".repeat(limit::PATTERN_BYTES + 1);
        let like = |pattern: &str| format!(r#"{{"StringLike":{{"kms:EncryptionContext:a":"{pattern}"}}}}"#);
        assert!(read(&like(&long)).unwrap_err().contains("more than 256 bytes"));
        read(&like(&long[1..])).unwrap();
        for (text, told) in [
            (r#"{"StringEqualsIgnoreCase":{"kms:KeySpec":"EC_P256"}}"#, "is none of StringEquals"),
            (r#"{"stringEquals":{"kms:KeySpec":"EC_P256"}}"#, "is none of"),
            (r#"{"StringEquals":{"kms:KeySpec":"EC_P257"}}"#, "is no KeySpec"),
            (r#"{"StringEquals":{"kms:Keyspec":"EC_P256"}}"#, "is not known"),
            (r#"{"StringEquals":{"kms:EncryptionContext:":"a"}}"#, "names nothing"),
            (r#"{"StringEquals":{"kms:EncryptionContext":"a"}}"#, "is not known"),
            (r#"{"StringEquals":{"acs:SourceIp":"10.0.0.1"}}"#, "cannot be compared"),
            (r#"{"IpAddress":{"kms:KeySpec":"EC_P256"}}"#, "cannot be compared"),
            (r#"{"IpAddress":{"acs:CurrentTime":"2026-11-29T12:00:00Z"}}"#, "cannot be compared"),
            (r#"{"IpAddress":{"acs:SourceIp":"10.0.0.1/8"}}"#, "bits behind its prefix"),
            (r#"{"IpAddress":{"acs:SourceIp":"office"}}"#, "is no address"),
            (r#"{"DateLessThan":{"acs:CurrentTime":"2026-02-30T00:00:00Z"}}"#, "YYYY-MM-DD"),
            (r#"{"StringEquals":{"kms:EncryptionContext:a":[]}}"#, "has no value"),
            (r#"{"StringEquals":{}}"#, "names no key"),
            (r#"{"StringEquals":{"kms:EncryptionContext:a":[1]}}"#, "did not match"),
            (
                r#"{"StringEquals":{"kms:EncryptionContext:a":"b"},"StringEquals":{"kms:KeySpec":"EC_P256"}}"#,
                "stands twice",
            ),
            (
                r#"{"StringEquals":{"kms:EncryptionContext:a":"b","kms:EncryptionContext:a":"c"}}"#,
                "stands twice",
            ),
            ("[]", "a Condition of the form"),
            (r#"{"StringEquals":["kms:KeySpec"]}"#, "a Condition of the form"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(told), "{text}: {why}");
        }
    }

    proptest! {
        /// A pattern means what the obvious recursion says that it means.
        #[test]
        fn a_pattern_is_what_it_says(text in "[ab?*é]{0,8}", pattern in "[ab?*é]{0,8}") {
            fn plain(text: &[char], pattern: &[char]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some(('*', rest)) => (0..=text.len()).any(|n| plain(&text[n..], rest)),
                    Some((wanted, rest)) => text
                        .split_first()
                        .is_some_and(|(is, behind)| (*wanted == '?' || wanted == is) && plain(behind, rest)),
                }
            }
            let (t, p): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
            prop_assert_eq!(is_like(&text, &pattern), plain(&t, &p));
        }

        /// A condition and its opposite never hold together, and one of them always does.
        #[test]
        fn a_condition_and_its_opposite_share_out_all_requests(
            value in "[ab]{0,2}", has in prop::option::of("[ab]{0,2}"), pattern in any::<bool>(),
        ) {
            let pairs: Vec<_> = has.iter().map(|is| ("k", is.as_str())).collect();
            let (one, other) = if pattern { ("StringLike", "StringNotLike") } else { ("StringEquals", "StringNotEquals") };
            let text = |operator: &str| format!(r#"{{"{operator}":{{"kms:EncryptionContext:k":"{value}"}}}}"#);
            let of = |operator: &str| holds(&text(operator), "10.0.0.1", &pairs, None);
            prop_assert_ne!(of(one), of(other));
        }
    }
}
