//! When certificates are renewed: at two thirds of their time, spread, and with pauses between tries that fail.

use std::time::Duration;

use super::Validity;
use crate::time::Timestamp;

/// Returns when a certificate is renewed: two thirds into its time, and up to a twelfth of it later by `jitter`, of which all values are as likely,
/// so that what was issued at once is not renewed at once.
pub fn renewal_due(validity: Validity, jitter: u16) -> Timestamp {
    let length = validity.length();
    let spread = length / 12;
    let later = spread.as_millis() * u128::from(jitter) / u128::from(u16::MAX);
    validity.not_before.plus(length * 2 / 3).plus(Duration::from_millis(later.try_into().unwrap_or(0)))
}

/// How renewals that failed are tried again: after a minute, then twice as long each time, up to six hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalBackOff {
    /// How many times in a row it failed.
    pub failures: u32,
    /// When it is tried next.
    pub next_at: Timestamp,
}

impl RenewalBackOff {
    /// Returns what a failure makes of it.
    pub fn after(before: Option<Self>, now: Timestamp) -> Self {
        const FIRST: Duration = Duration::from_secs(60);
        const LONGEST: Duration = Duration::from_secs(6 * 3_600);
        let failures = before.map_or(1, |before| before.failures.saturating_add(1));
        let pause = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
        Self { failures, next_at: now.plus(pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_between_two_and_three_quarters() {
        let day = Duration::from_secs(86_400);
        let start = Timestamp::from_ms(1_000_000_000_000);
        let validity = Validity { not_before: start, not_after: start.plus(day * 90) };
        assert_eq!(renewal_due(validity, 0), start.plus(day * 60));
        assert_eq!(renewal_due(validity, u16::MAX), start.plus(day * 135 / 2));
        let nothing = Validity { not_before: start, not_after: start };
        assert_eq!(renewal_due(nothing, u16::MAX), start);
    }

    #[test]
    fn pauses_grow_to_six_hours_and_no_further() {
        let now = Timestamp::from_ms(0);
        let mut back_off = None;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let next = RenewalBackOff::after(back_off, now);
            pauses.push(next.next_at.since(now).as_secs());
            back_off = Some(next);
        }
        assert_eq!(pauses[..4], [60, 120, 240, 480]);
        assert_eq!(pauses[39], 21_600);
        assert_eq!(back_off.unwrap().failures, 40);
    }
}
