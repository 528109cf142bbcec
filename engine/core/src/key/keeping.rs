//! What a key is kept by: its rotation, and its tags.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Limit, Result};
use crate::limit;
use crate::time::Timestamp;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// How often a key is rotated: seconds; `<integer>d`, `h`, `m` or `s` in requests, of 7 to 730 days, and seconds in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationInterval(u64);

impl RotationInterval {
    /// Reads it.
    ///
    /// # Errors
    /// `InvalidParameter` for another form, and outside 7 to 730 days.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| Error::new(ErrorKind::InvalidParameter, why);
        let seconds = interval_seconds(text)?;
        let days = limit::ROTATION_DAYS;
        match (days.start() * DAY_S..=days.end() * DAY_S).contains(&seconds) {
            true => Ok(Self(seconds)),
            false => Err(invalid(format!("RotationInterval is {} to {} days", days.start(), days.end()))),
        }
    }

    /// Returns it as a duration.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

/// Reads `<integer>d`, `h`, `m` or `s`, whatever its length.
///
/// # Errors
/// `InvalidParameter` for another form.
pub(crate) fn interval_seconds(text: &str) -> Result<u64> {
    let units = [('d', DAY_S), ('h', 3_600), ('m', 60), ('s', 1)];
    let read = units.into_iter().find_map(|(unit, seconds)| {
        let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<u64>().ok()?.checked_mul(seconds)
    });
    let why = "RotationInterval is a number and d, h, m or s";
    read.ok_or_else(|| Error::new(ErrorKind::InvalidParameter, why))
}

impl Serialize for RotationInterval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", self.0))
    }
}

impl<'de> Deserialize<'de> for RotationInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = RotationInterval;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an interval as 30d")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                RotationInterval::parse(text).map_err(|error| E::custom(error.message()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// That a key is rotated by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationPolicy {
    /// How often.
    pub interval: RotationInterval,
    /// When the next version is due.
    pub next_at: Timestamp,
}

/// Tags by their names.
pub type Tags = BTreeMap<String, String>;

/// Checks a tag.
///
/// # Errors
/// `InvalidParameter` for one that is empty, too long, or has a name of the cloud's own.
pub fn check_tag(key: &str, value: &str) -> Result<()> {
    let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidParameter, why));
    if key.is_empty() || key.chars().count() > limit::TAG_CHARACTERS {
        return invalid("TagKey has 1 to 128 characters");
    }
    if value.chars().count() > limit::TAG_CHARACTERS {
        return invalid("TagValue has up to 128 characters");
    }
    // As ASCII, in any case: a name that only looks alike is another.
    let begins = |with: &str| key.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if begins("acs:") || begins("aliyun") {
        return invalid("TagKey does not begin with acs: or aliyun");
    }
    if key.chars().chain(value.chars()).any(char::is_control) {
        return invalid("tags have no control characters");
    }
    Ok(())
}

/// Checks how many tags a key would have.
///
/// # Errors
/// `LimitExceeded` for more than 20.
pub fn check_tags(tags: &Tags) -> Result<()> {
    match tags.len() {
        0..=limit::TAGS => Ok(()),
        count => Err(Error::new(
            ErrorKind::LimitExceeded(Limit::Tags),
            format!("{count} tags exceed the limit of {} a key", limit::TAGS),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_a_unit_and_is_within_its_bounds() {
        for (text, seconds) in [
            ("7d", 604_800),
            ("168h", 604_800),
            ("604800s", 604_800),
            ("730d", 63_072_000),
            ("10080m", 604_800),
        ] {
            let interval = RotationInterval::parse(text).unwrap();
            assert_eq!(interval.duration().as_secs(), seconds, "{text}");
            let json = serde_json::to_string(&interval).unwrap();
            assert_eq!(json, format!("\"{seconds}s\""));
            assert_eq!(serde_json::from_str::<RotationInterval>(&json).unwrap(), interval);
        }
        for text in [
            "",
            "d",
            "7",
            "7w",
            "-7d",
            "+7d",
            "7 d",
            "7.0d",
            "6d",
            "731d",
            "604799s",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(RotationInterval::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tag_is_bounded_and_not_the_clouds_own() {
        let long = "ü".repeat(128);
        for (key, value) in [("a", ""), (&*long, &*long), ("x acs:", "acs:"), ("al", "1")] {
            check_tag(key, value).unwrap();
        }
        let longer = "ü".repeat(129);
        for (key, value) in [
            ("", "a"),
            (&*longer, ""),
            ("a", &*longer),
            ("ACS:x", ""),
            ("aliyunx", ""),
            ("a\n", ""),
            ("a", "\0"),
        ] {
            assert_eq!(check_tag(key, value).unwrap_err().kind(), ErrorKind::InvalidParameter, "{key:?}");
        }
    }
}
