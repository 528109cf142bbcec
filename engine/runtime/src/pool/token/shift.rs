//! Who of a token's sessions is at work and who rests: a number of places, which whoever comes first takes. Those that rest keep their
//! session open, take nothing from the lane, and are there at once where a place becomes free: its session was lost, or hangs.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

struct State {
    wanted: usize,
    at_work: usize,
}

/// The places of a token's sessions at work.
pub(crate) struct Shift {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shift {
    /// Makes so many places.
    pub(crate) fn new(wanted: usize) -> Self {
        Self { state: Mutex::new(State { wanted, at_work: 0 }), changed: Condvar::new() }
    }

    /// Sets the number of places, and tells whether it is less than before: whoever is too many leaves by [`Self::leave_surplus`].
    pub(crate) fn set_wanted(&self, wanted: usize) -> bool {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.wanted, wanted);
        if wanted > before {
            self.changed.notify_all();
        }
        wanted < before
    }

    /// Takes a place, resting until there is one for so long at most, or until `is_wanted` is false after [`Self::wake`]; tells whether one
    /// was taken. `is_wanted` is called under this lock, so nothing that it locks may be held where the shift is asked.
    pub(crate) fn enter(&self, wait: Duration, is_wanted: impl Fn() -> bool) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        while is_wanted() {
            if state.at_work < state.wanted {
                state.at_work += 1;
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            self.changed.wait_until(&mut state, until);
        }
        false
    }

    /// Gives a place back where there are too few for all at work; tells whether the caller is to rest.
    pub(crate) fn leave_surplus(&self) -> bool {
        let mut state = self.state.lock();
        let is_surplus = state.at_work > state.wanted;
        state.at_work -= usize::from(is_surplus);
        is_surplus
    }

    /// Gives a place back, to whoever rests.
    pub(crate) fn leave(&self) {
        let mut state = self.state.lock();
        state.at_work = state.at_work.saturating_sub(1);
        self.changed.notify_all();
    }

    /// Wakes all that rest, so that they look whether they are still wanted.
    pub(crate) fn wake(&self) {
        // Under the lock: whoever has looked, and does not wait yet, would miss it.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Returns the number of places.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> usize {
        self.state.lock().wanted
    }

    /// Returns the number of sessions at work.
    pub(crate) fn at_work(&self) -> usize {
        self.state.lock().at_work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn there_is_work_for_as_many_as_wanted() {
        let shift = Shift::new(2);
        assert!(shift.enter(Duration::ZERO, || true) && shift.enter(Duration::ZERO, || true));
        assert!(!shift.enter(Duration::ZERO, || true));
        assert!(shift.set_wanted(1));
        assert!(shift.leave_surplus() && !shift.leave_surplus());
        assert_eq!(shift.at_work(), 1);
        assert!(!shift.set_wanted(2));
        assert!(!shift.enter(Duration::ZERO, || false), "one that is not wanted takes no place");
        assert!(shift.enter(Duration::ZERO, || true));
    }

    #[test]
    fn whoever_rests_takes_the_place_of_one_that_is_lost() {
        let shift = Arc::new(Shift::new(1));
        assert!(shift.enter(LONG, || true));
        let resting = shift.clone();
        let thread = std::thread::spawn(move || resting.enter(LONG, || true));
        shift.leave();
        assert!(thread.join().unwrap());
        assert_eq!(shift.at_work(), 1);
    }

    #[test]
    fn whoever_rests_wakes_when_more_are_wanted_or_it_is_not() {
        let shift = Arc::new(Shift::new(0));
        let wanted = Arc::new(AtomicBool::new(true));
        let (resting, is_wanted) = (shift.clone(), wanted.clone());
        let retired = std::thread::spawn(move || resting.enter(LONG, || is_wanted.load(Ordering::Relaxed)));
        wanted.store(false, Ordering::Relaxed);
        shift.wake();
        assert!(!retired.join().unwrap());
        let resting = shift.clone();
        let called = std::thread::spawn(move || resting.enter(LONG, || true));
        shift.set_wanted(1);
        assert!(called.join().unwrap());
    }
}
