//! What eight threads at once can and cannot do to each other.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use keymill_core::seam::store::{Store, StoreError};

use super::{create, path, put, value_at};

const THREADS: usize = 8;

/// Runs `work` on eight threads that begin together, and returns what each made.
fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (start, work) = (Barrier::new(THREADS), &work);
    thread::scope(|scope| {
        let start = &start;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the thread ends")).collect()
    })
}

/// Lets one create it, tells the others of the conflict, and keeps the value of the one that was told it won.
pub fn of_eight_creations_of_a_record_one_wins(store: &dyn Store) {
    for round in 0..20 {
        let at = format!("key/{round}");
        let results = at_once(|thread| store.commit(&[put(&at, None, &[thread.to_le_bytes()[0]])]));
        let winners: Vec<_> = (0..THREADS).filter(|&thread| results[thread].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_eq!(value_at(store, &at), Some(vec![winners[0].to_le_bytes()[0]]));
        for result in results {
            assert!(matches!(result, Ok(_) | Err(StoreError::Conflict(_))), "{result:?}");
        }
    }
}

/// Makes compare-and-commit enough to count with, and gives each commit a revision of its own.
pub fn no_increment_of_eight_threads_is_lost(store: &dyn Store) {
    const EACH: u64 = 25;
    create(store, "counter", &0_u64.to_le_bytes());
    let increment = || loop {
        let entry = store.get(&path("counter")).expect("the store reads").expect("it was created");
        let count = u64::from_le_bytes(entry.value.try_into().expect("the counter has 8 bytes"));
        match store.commit(&[put("counter", Some(entry.revision), &(count + 1).to_le_bytes())]) {
            Ok(revision) => return revision,
            Err(StoreError::Conflict(_)) => {}
            Err(other) => panic!("the commit failed: {other}"),
        }
    };
    let revisions = at_once(|_| (0..EACH).map(|_| increment()).collect::<Vec<_>>());
    let total = EACH * THREADS as u64;
    assert_eq!(value_at(store, "counter"), Some(total.to_le_bytes().to_vec()));
    let distinct: BTreeSet<_> = revisions.into_iter().flatten().collect();
    assert_eq!(distinct.len() as u64, total);
}

/// Grants a free lease to one of those that ask at the same time.
pub fn of_eight_wishes_for_a_lease_one_is_granted(store: &dyn Store) {
    for round in 0..20 {
        let name = path(&format!("lease/{round}"));
        let wish = |thread| store.lease(&name, &format!("node-{thread}"), Duration::from_secs(600));
        let granted =
            at_once(wish).into_iter().filter_map(|lease| lease.expect("the store takes leases")).count();
        assert_eq!(granted, 1);
    }
}
