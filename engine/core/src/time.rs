//! A point in time as the API shows it. Core has no clock: the engine passes `now` in.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since 1970-01-01T00:00:00Z, shown as `YYYY-MM-DDTHH:MM:SSZ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

const DAY_S: i64 = 86_400;

impl Timestamp {
    /// Makes a timestamp from milliseconds since the epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Returns milliseconds since the epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Returns whole seconds since the epoch.
    pub const fn as_s(self) -> u64 {
        self.0 / 1000
    }

    /// Returns this time plus `by`, at most the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_millis().try_into().unwrap_or(u64::MAX)))
    }

    /// Returns this time minus `by`, at least the epoch.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_millis().try_into().unwrap_or(u64::MAX)))
    }

    /// Returns how long after `earlier` this is, zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the text to the millisecond, `YYYY-MM-DDTHH:MM:SS.mmmZ`, as audit lines have it: texts are in the order of their times.
    pub fn to_ms_text(self) -> String {
        let mut text = self.to_string();
        text.pop();
        format!("{text}.{:03}Z", self.0 % 1000)
    }

    /// Reads exactly `YYYY-MM-DDTHH:MM:SSZ` with a real date of the years 1970 to 9999.
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.len() != 20 || b[4] != b'-' || b[7] != b'-' || b[10] != b'T' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        if b[19] != b'Z' {
            return None;
        }
        let number = |range: std::ops::Range<usize>| -> Option<i64> {
            b[range].iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        let s = days * DAY_S + hour * 3600 + minute * 60 + second;
        u64::try_from(s).ok().map(|s| Self(s * 1000))
    }
}

// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": proleptic Gregorian calendar, era of 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = (self.0 / 1000) as i64;
        let (year, month, day) = civil_from_days(s.div_euclid(DAY_S));
        let t = s.rem_euclid(DAY_S);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t / 3600, t / 60 % 60, t % 60)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("time is not of the form YYYY-MM-DDTHH:MM:SSZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_stand_behind_a_point_and_keep_the_order() {
        let texts = [0, 1, 999, 1_000, 1_795_521_617_042].map(|ms| Timestamp::from_ms(ms).to_ms_text());
        assert_eq!(texts[4], "2026-11-24T12:00:17.042Z");
        assert_eq!(texts[2], "1970-01-01T00:00:00.999Z");
        assert!(texts.is_sorted());
    }

    #[test]
    fn text_and_number_agree_across_leap_days_and_centuries() {
        for (s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_478_399, "2026-11-23T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_ms(s * 1000).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_ms(s * 1000)));
        }
    }

    #[test]
    fn time_ends_at_both_ends() {
        let at = Timestamp::from_ms(5_000);
        assert_eq!(
            (at.plus(Duration::from_secs(1)), at.minus(Duration::from_secs(1))),
            (Timestamp(6_000), Timestamp(4_000))
        );
        assert_eq!(
            (at.plus(Duration::MAX), at.minus(Duration::from_secs(6))),
            (Timestamp(u64::MAX), Timestamp(0))
        );
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
