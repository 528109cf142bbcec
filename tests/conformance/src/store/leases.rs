//! Who holds a lease, and for how long. The seam has no clock to pass in, so that expiry is waited for, with short times.

use std::thread;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Lease, Store};

use super::{create, path};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);

fn ask(store: &dyn Store, name: &str, holder: &str, ttl: Duration) -> Option<Lease> {
    store.lease(&path(name), holder, ttl).expect("the store takes leases")
}

/// Refuses everyone else.
pub fn a_lease_has_one_holder(store: &dyn Store) {
    assert!(ask(store, "lease/timer", "node-1", LONG).is_some());
    assert_eq!(ask(store, "lease/timer", "node-2", LONG), None);
    assert_eq!(ask(store, "lease/timer", "node-2", SHORT), None);
}

/// Keeps the fence while the lease stays in the same hands.
pub fn a_lease_is_renewed_by_its_holder_under_the_same_fence(store: &dyn Store) {
    let first = ask(store, "lease/timer", "node-1", LONG).expect("it is free");
    assert_eq!(ask(store, "lease/timer", "node-2", LONG), None);
    assert_eq!(ask(store, "lease/timer", "node-1", LONG), Some(first));
}

/// Frees a lease that is not renewed, and fences the writes of its last holder off.
pub fn a_lease_that_ran_out_goes_to_another_under_a_greater_fence(store: &dyn Store) {
    let mut fence = ask(store, "lease/timer", "node-0", SHORT).expect("it is free").fence;
    for holder in ["node-1", "node-2", "node-1"] {
        let asked = Instant::now();
        let lease = loop {
            match ask(store, "lease/timer", holder, SHORT) {
                Some(lease) => break lease,
                None => thread::sleep(SHORT / 10),
            }
            assert!(asked.elapsed() < Duration::from_secs(30), "the lease did not run out");
        };
        assert!(lease.fence > fence);
        fence = lease.fence;
    }
}

/// Gives each name to a holder of its own.
pub fn leases_of_different_names_are_apart(store: &dyn Store) {
    assert!(ask(store, "lease/rotation", "node-1", LONG).is_some());
    assert!(ask(store, "lease/deletion", "node-2", LONG).is_some());
    assert_eq!(ask(store, "lease/rotation", "node-2", LONG), None);
    assert_eq!(ask(store, "lease/deletion", "node-1", LONG), None);
}

/// Gives fences that compare with the revisions of records, so that a write of before the lease can be told from one under it.
pub fn a_fence_stands_between_the_commits_before_and_behind_it(store: &dyn Store) {
    let before = create(store, "key/a", b"");
    let fence = ask(store, "lease/timer", "node-1", LONG).expect("it is free").fence;
    assert!(fence > before);
    assert_eq!(ask(store, "lease/timer", "node-1", LONG).map(|lease| lease.fence), Some(fence));
    assert!(create(store, "key/b", b"") > fence);
}
