//! The clock, passed in: real in the program, set by hand in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keymill_core::Timestamp;

/// Tells wall time, monotonic time, and steady time: how long the engine has been there.
#[derive(Clone)]
pub struct Clock {
    /// Milliseconds that wall time is set off by; tests jump with it.
    offset_ms: Arc<AtomicI64>,
    /// Whence steady time is counted; `None` where it stands still but for what tests add.
    began: Option<Instant>,
    /// Nanoseconds of steady time that tests have added.
    added_ns: Arc<AtomicU64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset_ms: Arc::default(), began: Some(Instant::now()), added_ns: Arc::default() }
    }
}

impl Clock {
    /// Makes a clock whose steady time stands still until a test has it [pass](Self::pass): quotas and throttles then go by the test's word.
    pub fn standing() -> Self {
        Self { began: None, ..Self::default() }
    }

    /// Returns wall time.
    pub fn now(&self) -> Timestamp {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Timestamp::from_ms((real + self.offset_ms.load(Ordering::Relaxed)).max(0) as u64)
    }

    /// Returns monotonic time.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Returns steady time: nanoseconds since the clock was made. It never goes back, whatever is done to wall time.
    pub fn steady_ns(&self) -> u64 {
        self.steady_ns_at(Instant::now)
    }

    /// Returns steady time at a moment that was taken already, or is taken where that is needed.
    pub(crate) fn steady_ns_at(&self, moment: impl FnOnce() -> Instant) -> u64 {
        let passed =
            self.began.map_or(0, |began| moment().saturating_duration_since(began).as_nanos() as u64);
        passed.saturating_add(self.added_ns.load(Ordering::Relaxed))
    }

    /// Sets wall time off by so many milliseconds against the real one, as a clock that jumps.
    pub fn jump_to_offset_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// Lets so much steady time pass at once.
    pub fn pass(&self, time: Duration) {
        self.added_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}
