//! How long to wait before something is tried again.

use std::time::Duration;

/// The first wait and the longest; each is twice as long as the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

impl Backoff {
    /// Returns the wait after `failures` earlier ones: somewhere in the upper half of it, so that clients that were cut off together do
    /// not come back together.
    pub(crate) fn wait(self, failures: u32, random: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << failures.min(16)).min(self.last);
        whole / 2 + whole.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
    }
}

pub(crate) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the wait is merely not spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_spread_and_end() {
        let backoff = Backoff { first: Duration::from_millis(50), last: Duration::from_secs(2) };
        assert_eq!(backoff.wait(0, 0), Duration::from_millis(25));
        assert_eq!(backoff.wait(0, u32::MAX), backoff.first);
        assert_eq!(backoff.wait(3, u32::MAX), 8 * backoff.first);
        assert_eq!(backoff.wait(6, u32::MAX), backoff.last);
        assert_eq!(backoff.wait(u32::MAX, 0), backoff.last / 2);
    }
}
