//! One thing at a time with each instance: while it is being started or ended by one thread, nobody else does either.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use keymill_core::id::InstanceId;
use parking_lot::{Condvar, Mutex};

/// Which instances somebody is at.
#[derive(Default)]
pub(super) struct Alone {
    taken: Mutex<BTreeSet<InstanceId>>,
    freed: Condvar,
}

/// The right to start or end an instance, until it is dropped.
pub(super) struct Held<'a> {
    of: &'a Alone,
    id: &'a InstanceId,
}

impl Alone {
    /// Takes an instance; `None` where somebody else is at it for longer than may be waited.
    pub(super) fn take<'a>(&'a self, id: &'a InstanceId, wait: Duration) -> Option<Held<'a>> {
        let until = Instant::now() + wait;
        let mut taken = self.taken.lock();
        while taken.contains(id) {
            if Instant::now() >= until {
                return None;
            }
            self.freed.wait_until(&mut taken, until);
        }
        taken.insert(id.clone());
        Some(Held { of: self, id })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.of.taken.lock().remove(self.id);
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_instance_is_one_s_at_a_time_and_another_is_no_matter_to_it() {
        let alone = Alone::default();
        let [one, other] = ["kst-1", "kst-2"].map(|id| id.parse::<InstanceId>().unwrap());
        let held = alone.take(&one, Duration::ZERO).unwrap();
        assert!(alone.take(&one, Duration::from_millis(5)).is_none());
        assert!(alone.take(&other, Duration::ZERO).is_some());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| alone.take(&one, LONG).is_some());
            drop(held);
            assert!(waits.join().unwrap());
        });
        assert!(alone.take(&one, Duration::ZERO).is_some(), "it was given back");
    }
}
