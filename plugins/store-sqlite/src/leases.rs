//! Who holds which lease, by a clock that is passed in. Only the process that has the data directory can hold one, so
//! they live in memory: a crash frees them, and a clock that jumps does not end them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Lease, Path, Revision};

/// The leases that are held.
#[derive(Default)]
pub(crate) struct Leases {
    held: HashMap<Path, Held>,
}

struct Held {
    holder: String,
    fence: Revision,
    /// `None`: further off than the clock can count.
    until: Option<Instant>,
}

/// What becomes of a wish for a lease.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The holder has it, and for longer now.
    Renewed(Lease),
    /// Another has it.
    Taken,
    /// Nobody has it: give it under a new fence.
    Free,
}

impl Leases {
    /// Renews the lease where `holder` has it.
    pub(crate) fn ask(&mut self, name: &Path, holder: &str, ttl: Duration, now: Instant) -> Answer {
        self.held.retain(|_, held| held.until.is_none_or(|until| now < until));
        match self.held.get_mut(name) {
            None => Answer::Free,
            Some(held) if held.holder == holder => {
                held.until = now.checked_add(ttl);
                Answer::Renewed(Lease { fence: held.fence })
            }
            Some(_) => Answer::Taken,
        }
    }

    /// Gives a free lease to `holder`.
    pub(crate) fn give(
        &mut self,
        name: &Path,
        holder: &str,
        fence: Revision,
        ttl: Duration,
        now: Instant,
    ) -> Lease {
        let held = Held { holder: holder.to_owned(), fence, until: now.checked_add(ttl) };
        self.held.insert(name.clone(), held);
        Lease { fence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn a_lease_is_renewed_by_its_holder_and_free_when_its_time_is_over() {
        let (start, name) = (Instant::now(), Path::new("lease/timer").expect("a path"));
        let mut leases = Leases::default();
        assert_eq!(leases.ask(&name, "a", TTL, start), Answer::Free);
        let lease = leases.give(&name, "a", Revision(7), TTL, start);
        let later = start + TTL - Duration::from_nanos(1);
        assert_eq!(leases.ask(&name, "b", TTL, later), Answer::Taken);
        assert_eq!(leases.ask(&name, "a", TTL, later), Answer::Renewed(lease));
        assert_eq!(leases.ask(&name, "b", TTL, start + TTL), Answer::Taken);
        assert_eq!(leases.ask(&name, "b", TTL, later + TTL), Answer::Free);
    }

    #[test]
    fn an_endless_lease_does_not_overflow() {
        let (now, name) = (Instant::now(), Path::new("lease/timer").expect("a path"));
        let mut leases = Leases::default();
        leases.give(&name, "a", Revision(1), Duration::MAX, now);
        assert_eq!(leases.ask(&name, "b", TTL, now + TTL), Answer::Taken);
    }
}
