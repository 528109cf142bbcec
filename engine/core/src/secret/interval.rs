//! How often a secret is rotated by itself.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};
use crate::key::interval_seconds;
use crate::limit;

/// Seconds between two rotations: `<integer>d`, `h`, `m` or `s` in requests, of 6 to 8,760 hours, and seconds in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretInterval(u64);

impl SecretInterval {
    /// Reads it.
    ///
    /// # Errors
    /// `InvalidParameter` for another form, and outside 6 to 8,760 hours.
    pub fn parse(text: &str) -> Result<Self> {
        let seconds = interval_seconds(text)?;
        let hours = limit::SECRET_ROTATION_HOURS;
        match (hours.start() * 3_600..=hours.end() * 3_600).contains(&seconds) {
            true => Ok(Self(seconds)),
            false => {
                let why = format!("RotationInterval is {} to {} hours", hours.start(), hours.end());
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
        }
    }

    /// Returns it as a duration.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl std::str::FromStr for SecretInterval {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl std::fmt::Display for SecretInterval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0)
    }
}

impl Serialize for SecretInterval {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = SecretInterval;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an interval as 30d")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                SecretInterval::parse(text).map_err(|error| E::custom(error.message()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_of_six_hours_to_a_year_of_them() {
        for (text, seconds) in
            [("6h", 21_600), ("21600s", 21_600), ("365d", 31_536_000), ("8760h", 31_536_000)]
        {
            let interval = SecretInterval::parse(text).unwrap();
            assert_eq!(interval.duration().as_secs(), seconds, "{text}");
            let json = serde_json::to_string(&interval).unwrap();
            assert_eq!(json, format!("\"{seconds}s\""));
            assert_eq!(serde_json::from_str::<SecretInterval>(&json).unwrap(), interval);
        }
        for text in ["", "6", "5h", "21599s", "8761h", "366d", "-6h", "6.5h", "6H", "99999999999999999999d"] {
            let error = SecretInterval::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{text}");
        }
    }
}
