//! How fast the simulated HSM is: a rate, a number of engines, and calls that keep all others out.

use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// What a caller of [`Pace::run`] asks for.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Calls that run side by side; 0 is no limit.
    pub(crate) engines: usize,
    /// Calls that begin in a second; 0 is no limit.
    pub(crate) calls_per_s: u64,
    /// How long the call holds its engine at least.
    pub(crate) latency: Duration,
    /// Whether it keeps all others out.
    pub(crate) exclusive: bool,
}

/// The one gate before the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    busy: Mutex<usize>,
    freed: Condvar,
    next: Mutex<Option<Instant>>,
    alone: RwLock<()>,
}

impl Pace {
    /// Runs the call when it is its turn, and returns when its time is over.
    pub(crate) fn run<T>(&self, cost: &Cost, call: impl FnOnce() -> T) -> T {
        self.wait_for_rate(cost.calls_per_s);
        let (_alone, _with_others);
        if cost.exclusive {
            _alone = self.alone.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _with_others = self.alone.read().unwrap_or_else(PoisonError::into_inner);
        }
        let _engine = self.engine(cost.engines);
        if cost.latency.is_zero() {
            return call();
        }
        let end = Instant::now() + cost.latency;
        let result = call();
        sleep_until(end);
        result
    }

    // Each call takes the next tick. Sleeps end late, so up to 10 ms of missed ticks may be caught up with.
    fn wait_for_rate(&self, calls_per_s: u64) {
        if calls_per_s == 0 {
            return;
        }
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(Duration::from_millis(10)).unwrap_or(now);
        let tick = next.map_or(now, |next| next.max(earliest));
        *next = Some(tick + Duration::from_secs(1) / u32::try_from(calls_per_s).unwrap_or(u32::MAX));
        drop(next);
        sleep_until(tick);
    }

    fn engine(&self, engines: usize) -> Option<Engine<'_>> {
        if engines == 0 {
            return None;
        }
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy >= engines {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy += 1;
        Some(Engine(self))
    }
}

struct Engine<'a>(&'a Pace);

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

fn sleep_until(end: Instant) {
    crate::ffi::sleep_precisely();
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Runs 8 threads with 4 calls each; returns how many ran at once at most, and how long all took.
    fn crowd(cost: &Cost) -> (usize, Duration) {
        let (pace, inside, most) = (Pace::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        pace.run(cost, || {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            thread::sleep(Duration::from_millis(2));
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        (most.into_inner(), start.elapsed())
    }

    #[test]
    fn no_more_calls_run_than_there_are_engines() {
        let (most, took) = crowd(&Cost { engines: 3, ..Cost::default() });
        assert_eq!(most, 3);
        assert!(took >= Duration::from_millis(32 * 2 / 3), "{took:?}");
    }

    #[test]
    fn an_exclusive_call_runs_alone() {
        assert_eq!(crowd(&Cost { exclusive: true, ..Cost::default() }).0, 1);
    }

    #[test]
    fn calls_keep_to_the_rate() {
        let (_, took) = crowd(&Cost { calls_per_s: 1000, ..Cost::default() });
        assert!(took >= Duration::from_millis(31), "32 ticks of 1 ms: {took:?}");
        assert!(took < Duration::from_millis(300), "{took:?}");
    }
}
