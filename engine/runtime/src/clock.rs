//! The clock, passed in: real in the program, set by hand in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use keymill_core::Timestamp;

/// Tells wall time and monotonic time.
#[derive(Clone, Default)]
pub struct Clock {
    /// Milliseconds that wall time is set off by; tests jump with it.
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Returns wall time.
    pub fn now(&self) -> Timestamp {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Timestamp::from_ms((real + self.offset_ms.load(Ordering::Relaxed)).max(0) as u64)
    }

    /// Returns monotonic time.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Sets wall time off by so many milliseconds against the real one, as a clock that jumps.
    pub fn jump_to_offset_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}
