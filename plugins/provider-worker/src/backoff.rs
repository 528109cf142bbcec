//! When a worker that ended may be started again: at once if it lived a while, else later each time.

use std::time::{Duration, Instant};

/// The memory of starts that went wrong.
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// Workers in a row that did not live long.
    young: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, young: 0, not_before: None }
    }

    /// Returns how long to wait yet, if there is to wait.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.not_before.map(|at| at.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Notes the end of a worker that was started at `started`.
    pub(crate) fn ended(&mut self, started: Instant, now: Instant) {
        if now.saturating_duration_since(started) >= self.max {
            self.young = 0;
            self.not_before = None;
            return;
        }
        let doubled = self.first.saturating_mul(1 << self.young.min(20));
        self.young = self.young.saturating_add(1);
        self.not_before = now.checked_add(doubled.min(self.max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn a_worker_that_dies_at_once_is_started_ever_more_seldom_up_to_a_limit() {
        let mut backoff = Backoff::new(FIRST, MAX);
        let mut now = Instant::now();
        assert_eq!(backoff.wait(now), None);
        let mut waits = Vec::new();
        for _ in 0..100 {
            backoff.ended(now, now);
            waits.push(backoff.wait(now).unwrap());
            now += waits[waits.len() - 1];
            assert_eq!(backoff.wait(now), None);
        }
        assert_eq!(waits[..4], [1, 2, 4, 8].map(|factor| FIRST * factor));
        assert!(waits[6..].iter().all(|wait| *wait == MAX));
    }

    #[test]
    fn one_that_lived_is_started_again_at_once() {
        let mut backoff = Backoff::new(FIRST, MAX);
        let start = Instant::now();
        backoff.ended(start, start);
        backoff.ended(start + FIRST, start + FIRST + MAX);
        assert_eq!(backoff.wait(start + FIRST + MAX), None);
        backoff.ended(start + MAX, start + MAX);
        assert_eq!(backoff.wait(start + MAX), Some(FIRST), "the count began anew");
    }
}
