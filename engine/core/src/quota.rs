//! Quotas: how many requests, items and bytes a second are within somebody's share. One rule, the generic cell rate algorithm
//! (ITU-T I.371, annex A): a number for each rate says until when what was taken is paid back. Pure: time is the caller's, in ticks.

use std::num::NonZeroU64;

/// Ticks of a nanosecond: fine enough that rates up to a thousand million a second are met to within two percent.
pub const TICKS_PER_NS: u64 = 64;

const TICKS_PER_S: u64 = 1_000_000_000 * TICKS_PER_NS;

/// Returns the ticks of so many nanoseconds; there are enough of them for nine years, and beyond stands the end of time.
pub fn ticks(ns: u64) -> u64 {
    ns.saturating_mul(TICKS_PER_NS)
}

/// So many units a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks that a unit takes to be paid back.
    each: u64,
    /// Ticks that may stand to be paid back.
    room: u64,
    /// Units that a request may be of at most.
    burst: u64,
}

/// What a rule says of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the share.
    Within,
    /// It is over the share.
    Over {
        /// Nanoseconds until the same would be within it; `None`: never, it is more than may come at once.
        wait_ns: Option<u64>,
    },
}

impl Verdict {
    /// Returns the one of two that is harder to meet.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Within, verdict) | (verdict, Self::Within) => verdict,
            (Self::Over { wait_ns: Some(one) }, Self::Over { wait_ns: Some(other) }) => {
                Self::Over { wait_ns: Some(one.max(other)) }
            }
            _ => Self::Over { wait_ns: None },
        }
    }
}

impl Rate {
    /// Makes a rate of `per_second` units, of which `burst` may come at once. A unit takes a whole number of ticks, rounded up.
    pub fn new(per_second: NonZeroU64, burst: NonZeroU64) -> Self {
        let each = TICKS_PER_S.div_ceil(per_second.get()).max(1);
        Self { each, room: each.saturating_mul(burst.get()), burst: burst.get() }
    }

    /// Returns the thousandths of a unit that it gives a second.
    pub fn milli_per_second(self) -> u64 {
        TICKS_PER_S * 1_000 / self.each
    }

    /// Returns the ticks that a unit takes where so many thousandths of one come a second: never fewer than it takes of the whole rate.
    pub fn each_at(self, milli_per_second: u64) -> u64 {
        match milli_per_second {
            0 => u64::MAX,
            milli => (TICKS_PER_S * 1_000).div_ceil(milli).max(self.each),
        }
    }

    /// Returns the part of the rate of which a unit takes `each` ticks. Of it comes at once what the same time gives. A request that is within
    /// the burst of the whole rate, but not of the part, is within it where nothing else is owed: a part makes no request impossible.
    #[must_use]
    pub fn part(self, each: u64) -> Self {
        Self { each: each.max(self.each), ..self }
    }

    /// Returns an even part of the rate, for each of so many.
    #[must_use]
    pub fn nth(self, of: u64) -> Self {
        self.part(self.each.saturating_mul(of))
    }

    /// Returns the ticks that so many units take to be paid back.
    pub fn cost(self, units: u64) -> u64 {
        self.each.saturating_mul(units)
    }

    /// Judges so many units at tick `now`, where what was taken before is paid back at tick `owed`; with the verdict comes the tick at which
    /// it is from now on. Of units that are over nothing is taken. For a clock that went back everything that may be owed is owed, and no more.
    pub fn judge(self, owed: u64, now: u64, units: u64) -> (Verdict, u64) {
        let cost = self.cost(units);
        let owed = owed.clamp(now, now.saturating_add(self.room.max(self.cost(self.burst))));
        let over = |wait_ns| (Verdict::Over { wait_ns }, owed);
        if units > self.burst {
            return over(None);
        }
        let most = now.saturating_add(self.room.max(cost));
        match owed.checked_add(cost) {
            Some(next) if next <= most => (Verdict::Within, next),
            Some(next) => over(Some((next - most).div_ceil(TICKS_PER_NS))),
            // The end of time.
            None => over(None),
        }
    }
}

/// What is within somebody's share; what has no rate is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests.
    pub requests: Option<Rate>,
    /// Items of data requests.
    pub items: Option<Rate>,
    /// Bytes of these items.
    pub bytes: Option<Rate>,
}

/// What a request takes of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Quota {
    /// Tells whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Lists the three rates with what a request takes of each.
    pub fn asked(&self, taken: Taken) -> [(Option<Rate>, u64); 3] {
        [(self.requests, 1), (self.items, taken.items), (self.bytes, taken.bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = TICKS_PER_S;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate::new(NonZeroU64::new(per_second).unwrap(), NonZeroU64::new(burst).unwrap())
    }

    /// A bucket that remembers what it let through.
    struct Bucket {
        rate: Rate,
        owed: u64,
        within: u64,
    }

    impl Bucket {
        fn new(rate: Rate) -> Self {
            Self { rate, owed: 0, within: 0 }
        }

        fn ask(&mut self, now: u64, units: u64) -> Verdict {
            let (verdict, owed) = self.rate.judge(self.owed, now, units);
            self.owed = owed;
            if verdict == Verdict::Within {
                self.within += units;
            }
            verdict
        }
    }

    #[test]
    fn a_burst_comes_at_once_and_then_the_rate() {
        let mut bucket = Bucket::new(rate(3, 3));
        for _ in 0..3 {
            assert_eq!(bucket.ask(SECOND, 1), Verdict::Within);
        }
        let Verdict::Over { wait_ns: Some(wait) } = bucket.ask(SECOND, 1) else { panic!("over") };
        assert!((333_333_333..333_333_340).contains(&wait), "{wait}");
        assert_eq!(bucket.ask(SECOND + ticks(wait) - TICKS_PER_NS, 1), Verdict::Over { wait_ns: Some(1) });
        assert_eq!(bucket.ask(SECOND + ticks(wait), 1), Verdict::Within, "it waited as it was told");
    }

    #[test]
    fn a_clock_that_stands_still_gives_the_burst_and_nothing_more() {
        let mut bucket = Bucket::new(rate(1_000_000, 10));
        assert_eq!((0..1_000).filter(|_| bucket.ask(77, 1) == Verdict::Within).count(), 10);
    }

    #[test]
    fn a_clock_that_jumped_back_costs_the_bucket_and_not_the_time_that_it_jumped() {
        let mut bucket = Bucket::new(rate(10, 10));
        assert_eq!(bucket.ask(1_000 * SECOND, 1), Verdict::Within);
        let Verdict::Over { wait_ns: Some(wait) } = bucket.ask(SECOND, 1) else { panic!("over") };
        assert!(wait <= 100_000_001, "a unit's time, not a thousand seconds: {wait}");
        assert_eq!(bucket.ask(2 * SECOND, 10), Verdict::Within, "a second later the burst is there again");
    }

    #[test]
    fn more_than_may_come_at_once_never_is_within() {
        let mut bucket = Bucket::new(rate(1, 5));
        assert_eq!(bucket.ask(u64::MAX / 2, 6), Verdict::Over { wait_ns: None });
        assert_eq!(bucket.ask(u64::MAX / 2, 5), Verdict::Within);
    }

    #[test]
    fn the_harder_of_two_verdicts_counts() {
        let over = |wait_ns| Verdict::Over { wait_ns };
        assert_eq!(Verdict::Within.or(Verdict::Within), Verdict::Within);
        assert_eq!(Verdict::Within.or(over(Some(3))), over(Some(3)));
        assert_eq!(over(Some(5)).or(over(Some(3))), over(Some(5)));
        assert_eq!(over(Some(5)).or(over(None)), over(None));
    }

    #[test]
    fn a_request_asks_each_rate_that_there_is_for_its_own() {
        let quota = Quota { items: Some(rate(5, 5)), ..Quota::default() };
        assert!(!quota.is_unlimited() && Quota::default().is_unlimited());
        let asked = quota.asked(Taken { items: 7, bytes: 9 });
        assert_eq!(asked.map(|(rate, units)| (rate.is_some(), units)), [(false, 1), (true, 7), (false, 9)]);
    }

    proptest! {
        /// However requests come, also with a clock that goes back: what was within is at most what the time that passed forwards gives, and
        /// one burst.
        #[test]
        fn never_more_is_within_than_rate_and_burst_give(
            per_second in 1u64..2_000_000_000, burst in 1u64..100_000,
            steps in proptest::collection::vec((-2_000_000_000i64..4_000_000_000, 0u64..2_000), 1..200),
        ) {
            let mut bucket = Bucket::new(rate(per_second, burst));
            let (mut now, mut passed) = (1u64 << 40, 0u128);
            for (step, units) in steps {
                now = now.saturating_add_signed(step);
                passed += u128::from(step.max(0).unsigned_abs());
                bucket.ask(now, units);
            }
            let allowed = passed * u128::from(per_second) / u128::from(SECOND) + u128::from(burst);
            prop_assert!(u128::from(bucket.within) <= allowed, "{} within of {allowed}", bucket.within);
        }

        /// What is within at a moment is within later, and less of it is as well; who waits as long as was said is within.
        #[test]
        fn time_and_less_work_only_help_and_a_wait_is_enough(
            per_second in 1u64..2_000_000_000, burst in 1u64..1_000_000, owed in 0u64..1 << 50,
            now in 0u64..1 << 50, later in 0u64..1 << 50, units in 0u64..2_000_000, less in 0u64..2_000_000,
        ) {
            let rate = rate(per_second, burst);
            let within = |owed, now, units| rate.judge(owed, now, units).0 == Verdict::Within;
            let (verdict, next) = rate.judge(owed, now, units);
            prop_assert!(next >= now && next - now <= rate.room);
            match verdict {
                Verdict::Within => {
                    prop_assert!(within(owed, now + later, units));
                    prop_assert!(within(owed, now, units.min(less)));
                }
                Verdict::Over { wait_ns: Some(wait) } => prop_assert!(within(next, now + ticks(wait), units)),
                Verdict::Over { wait_ns: None } => prop_assert!(rate.cost(units) > rate.room),
            }
        }

        /// A part gives no more than its rate, and one request that is larger than its burst; it refuses none for ever that the whole would let in.
        #[test]
        fn a_part_gives_its_rate_and_makes_no_request_impossible(
            per_second in 1u64..1_000_000, burst in 1u64..10_000, milli in 1u64..1_000_000_000,
            steps in proptest::collection::vec((0u64..4_000_000_000, 0u64..12_000), 1..200),
        ) {
            let whole = rate(per_second, burst);
            let milli = milli.min(whole.milli_per_second());
            let part = whole.part(whole.each_at(milli));
            let (mut bucket, mut now, began) = (Bucket::new(part), 1u64 << 40, 1u64 << 40);
            for (step, units) in steps {
                now += step;
                match bucket.ask(now, units) {
                    Verdict::Over { wait_ns: None } => prop_assert!(units > burst),
                    Verdict::Over { wait_ns: Some(wait) } => {
                        prop_assert_eq!(part.judge(bucket.owed, now + ticks(wait), units).0, Verdict::Within);
                    }
                    Verdict::Within => {}
                }
            }
            let passed = u128::from(now - began) + u128::from(whole.room);
            let allowed = passed * u128::from(milli) / (u128::from(SECOND) * 1_000) + u128::from(burst);
            prop_assert!(u128::from(bucket.within) <= allowed, "{} within of {allowed}", bucket.within);
        }

        /// The whole is a part of itself.
        #[test]
        fn a_part_that_is_all_of_it_judges_as_the_whole(
            per_second in 1u64..2_000_000_000, burst in 1u64..1_000_000,
            owed in 0u64..1 << 50, now in 0u64..1 << 50, units in 0u64..2_000_000,
        ) {
            let whole = rate(per_second, burst);
            for each in [0, whole.each_at(whole.milli_per_second()).min(whole.each)] {
                prop_assert_eq!(whole.part(each).judge(owed, now, units), whole.judge(owed, now, units));
            }
        }

        /// Nothing overflows.
        #[test]
        fn every_number_has_a_verdict(
            per_second in 1u64.., burst in 1u64.., owed: u64, now: u64, units: u64,
        ) {
            prop_assert!(rate(per_second, burst).judge(owed, now, units).1 >= now);
        }
    }
}
