//! What callers have seen of keys that are disabled and enabled all the time, and whether it can have been so: no use may begin later than the
//! stated time after a disable was acknowledged, and end before anybody asked to enable the key again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use keymill_core::id::CmkId;

/// What was seen.
#[derive(Default)]
pub struct History {
    disables: Mutex<Vec<Disabled>>,
    uses: Mutex<Vec<Used>>,
}

/// A time in which a key was certainly disabled: from the answer to that, to the request for the opposite.
#[derive(Clone, Copy, Debug)]
pub struct Disabled {
    /// The key.
    pub key: CmkId,
    /// When the disable was acknowledged.
    pub from: Instant,
    /// When it was asked to enable it again.
    pub until: Instant,
}

/// A use of a key that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// The key.
    pub key: CmkId,
    /// At which node.
    pub node: usize,
    /// When it was asked for.
    pub asked: Instant,
    /// When it was answered.
    pub answered: Instant,
}

impl History {
    /// Notes that a key was disabled.
    pub fn disabled(&self, disabled: Disabled) {
        self.disables.lock().expect("nobody panics with it").push(disabled);
    }

    /// Notes that a key was used.
    pub fn used(&self, used: Used) {
        self.uses.lock().expect("nobody panics with it").push(used);
    }

    /// Returns the uses that were not to be, where a key may be used for so long after its disable was acknowledged; and how many uses and disables
    /// there were.
    pub fn check(&self, bound: Duration) -> (Vec<(Disabled, Used)>, usize, usize) {
        let disables = self.disables.lock().expect("nobody panics with it");
        let uses = self.uses.lock().expect("nobody panics with it");
        let is_wrong = |disabled: &Disabled, used: &Used| {
            disabled.key == used.key && used.asked > disabled.from + bound && used.answered < disabled.until
        };
        let of = |disabled: &Disabled| {
            let disabled = *disabled;
            uses.iter().filter(move |used| is_wrong(&disabled, used)).map(move |used| (disabled, *used))
        };
        (disables.iter().flat_map(of).collect(), uses.len(), disables.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_within_the_bound_or_beside_the_time_is_none_of_ours_and_any_other_is_found() {
        let (began, key) = (Instant::now(), CmkId::from_bytes([1; 16]));
        let at = |s: u64| began + Duration::from_secs(s);
        let history = History::default();
        history.disabled(Disabled { key, from: at(10), until: at(20) });
        let other = CmkId::from_bytes([2; 16]);
        for (key, asked, answered) in [
            (key, 1, 2),
            (key, 9, 14),
            // Within the bound.
            (key, 13, 19),
            // It may have been enabled meanwhile.
            (key, 19, 20),
            (other, 15, 16),
        ] {
            history.used(Used { key, node: 0, asked: at(asked), answered: at(answered) });
        }
        let bound = Duration::from_secs(3);
        assert_eq!(history.check(bound).0.len(), 0);
        history.used(Used { key, node: 2, asked: at(14), answered: at(15) });
        let (wrong, uses, disables) = history.check(bound);
        assert_eq!((wrong.len(), wrong[0].1.node, uses, disables), (1, 2, 6, 1));
    }
}
