//! Turns of the engines that work on one arbiter: each has an actor of its own there, and slices of those that have all they can do go by their
//! weights. As of the turns at a token, but that there is one at a time and nobody waits: whose turn it is not lets the arbiter go on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::pool::turns::share;

thread_local! {
    static TURNS: RefCell<Ledger> = RefCell::default();
}

/// What the engines of one arbiter have had.
#[derive(Default)]
struct Ledger {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// The tag that was served last.
    served: u128,
}

#[derive(Default)]
struct Entry {
    tag: u128,
    /// Whether it has something to do.
    is_ready: bool,
}

impl Ledger {
    fn enter(&mut self) -> u64 {
        let at = self.next;
        self.next += 1;
        self.entries.insert(at, Entry { tag: self.served, is_ready: false });
        at
    }

    /// Says that there is something to do; tells whether it is next.
    fn is_next(&mut self, at: u64) -> bool {
        let served = self.served;
        let Some(own) = self.entries.get_mut(&at) else { return true };
        if !std::mem::replace(&mut own.is_ready, true) {
            // Whoever had nothing to do has saved up nothing.
            own.tag = own.tag.max(served);
        }
        let tag = own.tag;
        !self.entries.iter().any(|(other, entry)| *other != at && entry.is_ready && entry.tag < tag)
    }

    fn had(&mut self, at: u64, took: Duration, weight: u32) {
        let Some(own) = self.entries.get_mut(&at) else { return };
        self.served = self.served.max(own.tag);
        own.tag += share(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), weight);
    }

    fn rest(&mut self, at: u64) {
        if let Some(own) = self.entries.get_mut(&at) {
            own.is_ready = false;
        }
    }
}

/// The place of an engine on the arbiter of this thread; it is given up with it.
pub(super) struct Place(u64);

impl Place {
    /// Takes one.
    pub(super) fn take() -> Self {
        Self(TURNS.with_borrow_mut(Ledger::enter))
    }

    /// Says that there is something to do; tells whether it is next.
    pub(super) fn is_next(&self) -> bool {
        TURNS.with_borrow_mut(|turns| turns.entries.len() < 2 || turns.is_next(self.0))
    }

    /// Notes what a turn took.
    pub(super) fn had(&self, took: Duration, weight: u32) {
        TURNS.with_borrow_mut(|turns| turns.had(self.0, took, weight));
    }

    /// Says that there is nothing to do.
    pub(super) fn rest(&self) {
        TURNS.with_borrow_mut(|turns| turns.rest(self.0));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // At the very end of a thread there is no ledger any more.
        let _gone = TURNS.try_with(|turns| turns.borrow_mut().entries.remove(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_micros(100);

    /// Has those who are ready ask in turns, and counts who worked.
    fn run(ledger: &mut Ledger, of: &[(u64, u32)], rounds: usize) -> Vec<usize> {
        let mut worked = vec![0; of.len()];
        for _ in 0..rounds {
            for (i, (at, weight)) in of.iter().enumerate() {
                if ledger.is_next(*at) {
                    ledger.had(*at, SLICE, *weight);
                    worked[i] += 1;
                }
            }
        }
        worked
    }

    #[test]
    fn slices_of_engines_that_have_all_they_can_do_go_by_weight() {
        let mut ledger = Ledger::default();
        let (heavy, light) = (ledger.enter(), ledger.enter());
        let worked = run(&mut ledger, &[(heavy, 3), (light, 1)], 4_000);
        let ratio = worked[0] as f64 / worked[1] as f64;
        assert!((2.95..3.05).contains(&ratio), "{worked:?}");
    }

    #[test]
    fn one_alone_has_all_and_one_that_comes_is_next_and_has_saved_up_nothing() {
        let mut ledger = Ledger::default();
        let (bulk, single) = (ledger.enter(), ledger.enter());
        assert_eq!(run(&mut ledger, &[(bulk, 1)], 1_000), [1_000]);
        assert!(ledger.is_next(single), "at once");
        ledger.had(single, SLICE, 1);
        let worked = run(&mut ledger, &[(bulk, 1), (single, 1)], 1_000);
        assert!(worked[0].abs_diff(worked[1]) < 5, "{worked:?}");
        ledger.rest(single);
        assert_eq!(run(&mut ledger, &[(bulk, 1)], 100), [100], "nobody waits for one that has nothing to do");
    }
}
