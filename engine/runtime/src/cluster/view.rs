//! How far a node sees, and what it may do by that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::time::Timestamp;

use super::Owner;
use crate::clock::Clock;

/// A moment by two clocks: monotonic time stands still while a machine sleeps, or while one is copied, and wall time does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsOf {
    at: Instant,
    wall: Timestamp,
}

impl AsOf {
    /// Returns the moment that is now.
    pub(crate) fn now(clock: &Clock) -> Self {
        Self { at: clock.instant(), wall: clock.now() }
    }

    /// Returns a moment that is past, and was not before `last`. Where the machine slept since, wall time has gone on and monotonic time has not: of
    /// the two ways to find out what wall time it was the earlier one is taken.
    pub(crate) fn past(clock: &Clock, at: Instant, last: &Self) -> Self {
        let now = Self::now(clock);
        let from_now = now.wall.minus(now.at.saturating_duration_since(at));
        let from_last = last.wall.plus(at.saturating_duration_since(last.at));
        Self { at, wall: from_now.min(from_last) }
    }

    /// Returns it by monotonic time.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Returns how long before this moment another was, by whichever clock that is longer.
    fn since(&self, before: &Self) -> Duration {
        self.at.saturating_duration_since(before.at).max(self.wall.since(before.wall))
    }
}

/// A watch says at least once a second that it is current, and is late on a busy machine.
const BEHIND: Duration = Duration::from_secs(3);

/// Until when all that was committed is in force here.
pub(crate) struct View {
    max_age: Duration,
    began: AsOf,
    /// For each owner of records: milliseconds since `began` by monotonic time, and wall time in milliseconds.
    seen: [(AtomicU64, AtomicU64); Owner::ALL.len()],
    /// Another process has the name of this node.
    is_displaced: AtomicBool,
    /// Another process goes by the same name, and takes itself for this one.
    is_copied: AtomicBool,
    /// Why the store is not the one that this node knows, once it was found not to be.
    forked: OnceLock<String>,
}

impl View {
    pub(crate) fn new(max_age: Duration, as_of: AsOf) -> Self {
        let seen = Owner::ALL.map(|_| (AtomicU64::new(0), AtomicU64::new(as_of.wall.as_ms())));
        Self {
            max_age,
            began: as_of,
            seen,
            is_displaced: AtomicBool::new(false),
            is_copied: AtomicBool::new(false),
            forked: OnceLock::new(),
        }
    }

    /// Notes that all of an owner's that was committed before a moment is in force.
    pub(crate) fn applied(&self, owner: Owner, as_of: AsOf) {
        let (at, wall) = &self.seen[owner as usize];
        let since = as_of.at.saturating_duration_since(self.began.at);
        at.fetch_max(since.as_millis() as u64, Ordering::AcqRel);
        // Wall time may be set back: what counts is what it was when the store said so.
        wall.store(as_of.wall.as_ms(), Ordering::Release);
    }

    /// Returns how old the view is.
    pub(crate) fn age(&self, now: AsOf) -> Duration {
        let since = now.at.saturating_duration_since(self.began.at);
        let age = |(at, wall): &(AtomicU64, AtomicU64)| {
            let by_monotonic = since.saturating_sub(Duration::from_millis(at.load(Ordering::Acquire)));
            let by_wall = now.wall.since(Timestamp::from_ms(wall.load(Ordering::Acquire)));
            by_monotonic.max(by_wall)
        };
        self.seen.iter().map(age).max().unwrap_or_default()
    }

    /// Says whether another process has the name of this node; tells whether that is news.
    pub(crate) fn displace(&self, is_displaced: bool) -> bool {
        self.is_displaced.swap(is_displaced, Ordering::AcqRel) != is_displaced
    }

    /// Tells whether another process has the name of this node.
    pub(crate) fn is_displaced(&self) -> bool {
        self.is_displaced.load(Ordering::Acquire)
    }

    /// Says that a copy of this process speaks in its name, from now on until its end; tells whether that is news.
    pub(crate) fn copy(&self) -> bool {
        !self.is_copied.swap(true, Ordering::AcqRel)
    }

    /// Tells whether a copy of this process speaks in its name.
    pub(crate) fn is_copied(&self) -> bool {
        self.is_copied.load(Ordering::Acquire)
    }

    /// Tells whether the store has not confirmed the view for longer than it does while it is there.
    pub(crate) fn is_behind(&self, now: AsOf) -> bool {
        self.age(now) > BEHIND
    }

    /// Says that the store is of another history, from now on until the end of the process; tells whether that is news.
    pub(crate) fn fork(&self, why: impl Into<String>) -> bool {
        self.forked.set(why.into()).is_ok()
    }

    /// Tells whether the store is of another history.
    pub(crate) fn is_forked(&self) -> bool {
        self.forked.get().is_some()
    }

    /// Returns why keys are not to be used now, if they are not.
    pub(crate) fn trouble(&self, now: AsOf) -> Option<String> {
        if self.is_displaced() {
            return Some("another server has taken the name of this node (engine.node)".to_owned());
        }
        if let Some(why) = self.forked.get() {
            return Some(why.clone());
        }
        if self.is_copied() {
            return Some("a copy of this process uses its name: its machine was cloned, and one of them is to be ended".to_owned());
        }
        let age = self.age(now);
        (age > self.max_age).then(|| {
            let (age, max_age) = (age.as_millis(), self.max_age.as_millis());
            format!("the store has not confirmed the view of this node for {age} ms, of {max_age} ms allowed")
        })
    }

    /// Checks that keys may be used.
    ///
    /// # Errors
    /// `Unavailable` where the view is too old; nothing was done, and another node may do it.
    pub(crate) fn check(&self, clock: &Clock) -> Result<()> {
        match self.trouble(AsOf::now(clock)) {
            None => Ok(()),
            // Another node would not do it either.
            Some(why) if self.is_forked() => Err(Error::new(ErrorKind::Unavailable, why)),
            Some(why) => {
                let why = format!("{why}: no key is used, since it may have been disabled; ask another node");
                Err(Error::new(ErrorKind::Unavailable, why).retry_after_ms(1_000))
            }
        }
    }
}

/// Until when this node does what is done by the clock.
#[derive(Default)]
pub(crate) struct Tenure(parking_lot::RwLock<Option<(AsOf, Duration)>>);

impl Tenure {
    /// Takes it for so long from a moment on, or leaves it; tells whether it was had before.
    pub(crate) fn set(&self, held: Option<(AsOf, Duration)>) -> bool {
        std::mem::replace(&mut *self.0.write(), held).is_some()
    }

    /// Tells whether this node has it.
    pub(crate) fn is_held(&self, clock: &Clock) -> bool {
        let now = AsOf::now(clock);
        self.0.read().is_some_and(|(from, time)| now.since(&from) < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn at(began: AsOf, mono: u64, wall: u64) -> AsOf {
        AsOf { at: began.at + MS(mono), wall: began.wall.plus(MS(wall)) }
    }

    fn begin() -> (AsOf, View) {
        let began = AsOf { at: Instant::now(), wall: Timestamp::from_ms(1_800_000_000_000) };
        (began, View::new(MS(3_000), began))
    }

    #[test]
    fn a_view_is_as_old_as_that_of_the_owner_who_lags_most() {
        let (began, view) = begin();
        for (owner, seen) in Owner::ALL.into_iter().zip([2_000, 1_000, 2_500, 1_500]) {
            view.applied(owner, at(began, seen, seen));
        }
        assert_eq!(view.age(at(began, 3_500, 3_500)), MS(2_500));
        assert!(view.trouble(at(began, 4_000, 4_000)).is_none());
        assert!(view.trouble(at(began, 4_001, 4_001)).is_some_and(|why| why.contains("3001 ms")));
    }

    #[test]
    fn a_machine_that_slept_is_found_out_by_wall_time_and_one_whose_clock_was_set_back_by_the_other() {
        let (began, view) = begin();
        let all = |as_of| Owner::ALL.into_iter().for_each(|owner| view.applied(owner, as_of));
        all(at(began, 1_000, 1_000));
        assert_eq!(view.age(at(began, 1_001, 61_000)), MS(60_000), "it slept for a minute");
        all(at(began, 1_500, 61_500));
        assert_eq!(view.age(at(began, 1_501, 61_501)), MS(1));
        // Set back by an hour: monotonic time goes on, and what is confirmed then counts.
        let back = AsOf { at: began.at + MS(5_000), wall: began.wall.minus(Duration::from_secs(3_600)) };
        assert_eq!(view.age(back), MS(3_500));
        all(back);
        assert_eq!(view.age(AsOf { at: back.at + MS(7), wall: back.wall.plus(MS(7)) }), MS(7));
    }

    #[test]
    fn a_node_whose_name_another_has_uses_no_key_however_new_its_view_is() {
        let (began, view) = begin();
        assert!(view.displace(true) && !view.displace(true));
        assert!(view.trouble(began).is_some_and(|why| why.contains("engine.node")));
        assert!(view.displace(false) && view.trouble(began).is_none());
    }

    #[test]
    fn a_process_that_was_copied_uses_no_key_again_whoever_has_the_lease() {
        let (began, view) = begin();
        assert!(view.copy() && !view.copy());
        view.displace(false);
        assert!(view.trouble(began).is_some_and(|why| why.contains("cloned")));
    }

    #[test]
    fn a_node_whose_store_is_of_another_history_uses_no_key_again() {
        let (began, view) = begin();
        assert!(view.fork("it went back") && !view.fork("and again"));
        Owner::ALL.into_iter().for_each(|owner| view.applied(owner, at(began, 100, 100)));
        assert_eq!(view.trouble(at(began, 100, 100)).as_deref(), Some("it went back"));
    }

    #[test]
    fn a_tenure_ends_by_either_clock() {
        let clock = Clock::default();
        let tenure = Tenure::default();
        assert!(!tenure.is_held(&clock));
        assert!(!tenure.set(Some((AsOf::now(&clock), Duration::from_secs(60)))));
        assert!(tenure.is_held(&clock));
        clock.jump_to_offset_ms(61_000);
        assert!(!tenure.is_held(&clock), "the machine slept");
        assert!(tenure.set(None) && !tenure.set(None));
    }
}
