//! Failed logins of one source: how many are one too many, and for how long the source is kept out then. Pure: time is the caller's, in
//! milliseconds of a clock that does not jump.

/// When a source is kept out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRule {
    /// Failures within the window that are one too many; at least one.
    pub failures: u32,
    /// Milliseconds that failures are counted together.
    pub window_ms: u64,
    /// Milliseconds that a source is kept out the first time; each further time twice as long.
    pub first_wait_ms: u64,
    /// Milliseconds that it is kept out at most.
    pub max_wait_ms: u64,
}

/// The failed logins of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    count: u32,
    /// When the first of those that count came.
    since: u64,
    /// How often it was kept out without a pause between.
    times: u32,
    /// Until when it is.
    until: u64,
}

impl LoginRule {
    /// Returns how long a source is kept out for the `times`th time.
    fn wait_ms(&self, times: u32) -> u64 {
        let doubled = 1u64.checked_shl(times.saturating_sub(1)).unwrap_or(u64::MAX);
        self.first_wait_ms.saturating_mul(doubled).min(self.max_wait_ms)
    }
}

impl Failures {
    /// Returns how many milliseconds longer the source is kept out; `None` where it is not.
    pub fn wait_ms(&self, now: u64) -> Option<u64> {
        (self.times > 0 && now < self.until).then(|| self.until - now)
    }

    /// Returns when it was last heard of.
    pub fn last(&self) -> u64 {
        self.until.max(self.since)
    }

    /// Tells whether everything may be forgotten: the window is over, and after a time outside as much again as that was.
    pub fn is_over(&self, rule: &LoginRule, now: u64) -> bool {
        match self.times {
            0 => now.saturating_sub(self.since) >= rule.window_ms,
            times => {
                now.saturating_sub(self.until) >= rule.window_ms.max(rule.wait_ms(times)) && now >= self.until
            }
        }
    }

    /// Takes a failure; tells whether it is the one too many. While a source is kept out, further ones change nothing: they are of callers
    /// who are let try all the same. Afterwards the first one is one too many already.
    pub fn failed(&mut self, rule: &LoginRule, now: u64) -> bool {
        if self.wait_ms(now).is_some() {
            return false;
        }
        if self.count == 0 || self.is_over(rule, now) {
            *self = Self { since: now, ..Self::default() };
        }
        self.count = self.count.saturating_add(1);
        if self.times == 0 && self.count < rule.failures {
            return false;
        }
        self.times = self.times.saturating_add(1);
        self.until = now.saturating_add(rule.wait_ms(self.times));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: LoginRule =
        LoginRule { failures: 3, window_ms: 60_000, first_wait_ms: 1_000, max_wait_ms: 100_000 };

    #[test]
    fn the_third_within_the_window_is_one_too_many_and_each_time_outside_is_twice_as_long() {
        let mut source = Failures::default();
        assert!(!source.failed(&RULE, 10) && !source.failed(&RULE, 20) && source.wait_ms(25).is_none());
        assert!(source.failed(&RULE, 30));
        let (mut now, mut waits) = (30, Vec::new());
        for _ in 0..9 {
            let wait = source.wait_ms(now).unwrap();
            waits.push(wait);
            assert!(!source.failed(&RULE, now + wait - 1), "one that was let try changes nothing");
            assert_eq!(source.wait_ms(now + wait - 1), Some(1));
            now += wait;
            assert_eq!(source.wait_ms(now), None);
            assert!(source.failed(&RULE, now), "on probation the first is one too many");
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 100_000, 100_000]);
    }

    #[test]
    fn who_fails_now_and_then_is_never_kept_out() {
        let mut source = Failures::default();
        for n in 0..1_000 {
            assert!(!source.failed(&RULE, n * 30_000 + 5), "{n}");
        }
    }

    #[test]
    fn a_source_that_was_quiet_for_as_long_as_it_was_outside_begins_anew() {
        let mut source = Failures::default();
        for _ in 0..3 {
            source.failed(&RULE, 0);
        }
        assert!(!source.is_over(&RULE, 60_999) && source.is_over(&RULE, 61_000));
        assert!(!source.failed(&RULE, 61_000), "one of three again");
        assert_eq!(source.wait_ms(61_000), None);
    }

    #[test]
    fn the_first_is_one_too_many_where_one_is() {
        let rule = LoginRule { failures: 1, ..RULE };
        assert!(Failures::default().failed(&rule, 0));
    }

    proptest! {
        /// However failures come, between two times outside there is none too few, no wait is longer than the longest, and nothing overflows.
        #[test]
        fn a_source_tries_no_more_often_than_it_may(
            steps in proptest::collection::vec(0u64..200_000, 1..400),
            failures in 1u32..20, window_ms in 1u64..100_000, first_wait_ms in 1u64..10_000, longer in 0u64..1_000_000,
        ) {
            let rule = LoginRule { failures, window_ms, first_wait_ms, max_wait_ms: first_wait_ms + longer };
            let (mut source, mut now, mut tries, mut locked_once) = (Failures::default(), 0u64, 0u32, false);
            for step in steps {
                now += step;
                if let Some(wait) = source.wait_ms(now) {
                    prop_assert!(wait <= rule.max_wait_ms);
                    continue;
                }
                if source.is_over(&rule, now) {
                    locked_once = false;
                    tries = 0;
                }
                tries += 1;
                let locked = source.failed(&rule, now);
                prop_assert!(locked || !locked_once, "on probation one is too many");
                prop_assert!(tries <= rule.failures || locked_once);
                locked_once |= locked;
            }
        }

        #[test]
        fn every_number_has_an_answer(
            count: u32, since: u64, times: u32, until: u64, now: u64,
            failures: u32, window_ms: u64, first_wait_ms: u64, max_wait_ms: u64,
        ) {
            let rule = LoginRule { failures, window_ms, first_wait_ms, max_wait_ms };
            let mut source = Failures { count, since, times, until };
            source.is_over(&rule, now);
            source.failed(&rule, now);
            prop_assert!(source.wait_ms(now).is_none_or(|wait| wait > 0));
        }
    }
}
