//! A lane: a bounded queue in front of the sessions of a pool, fair between principals, and the batching rule.
//!
//! A session takes `min(max_batch, 1 + queued / sessions)` jobs: batches grow with load by themselves, no session starves its
//! siblings, and no timer is needed. A lock and a condition variable stand here instead of a channel, since a fair queue
//! reorders and a channel cannot.

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};

use keymill_core::error::{Error, ErrorKind};
use parking_lot::{Condvar, Mutex};

use crate::ready::{Divisible, ReadyQueue};

struct State<K, T> {
    queue: ReadyQueue<K, T>,
    closed: bool,
}

/// A bounded, fair queue in front of sessions.
pub struct Lane<K, T> {
    state: Mutex<State<K, T>>,
    ready: Condvar,
    capacity: usize,
    sessions: AtomicUsize,
    max_batch: usize,
}

impl<K: Clone + Eq + Hash, T: Divisible> Lane<K, T> {
    /// Makes a lane for at most `capacity` waiting jobs, of which a session takes at most `max_batch` in one go.
    pub fn new(capacity: usize, max_batch: usize) -> Self {
        Self {
            state: Mutex::new(State { queue: ReadyQueue::new(1), closed: false }),
            ready: Condvar::new(),
            capacity,
            sessions: AtomicUsize::new(0),
            max_batch,
        }
    }

    /// Adds a job, or hands it back at once.
    ///
    /// # Errors
    /// `Busy` where the lane is full, `Unavailable` where it is closed; the job comes back with the error.
    pub fn submit(&self, principal: &K, weight: u64, job: T) -> Result<(), (Error, T)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((Error::new(ErrorKind::Unavailable, "the crypto pool is shut down"), job));
        }
        if state.queue.len() >= self.capacity {
            let message = format!("the queue of the crypto pool holds its limit of {} jobs", self.capacity);
            return Err((Error::new(ErrorKind::Busy, message).retry_after_ms(50), job));
        }
        state.queue.push(principal, weight, job);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes a batch; an empty batch means that the lane is closed and drained.
    pub fn take(&self, batch: &mut Vec<T>) {
        batch.clear();
        let mut state = self.state.lock();
        while state.queue.is_empty() {
            if state.closed {
                return;
            }
            self.ready.wait(&mut state);
        }
        let sessions = self.sessions.load(Ordering::Relaxed).max(1);
        let fair = (1 + state.queue.len() / sessions).min(self.max_batch);
        let mut parts = Vec::with_capacity(fair);
        state.queue.take(fair as u64, &mut parts);
        batch.extend(parts.into_iter().map(|(job, _)| job));
        let more = !state.queue.is_empty();
        drop(state);
        if more {
            self.ready.notify_one();
        }
    }

    /// Returns the number of jobs that wait.
    pub fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Tells whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts a session in; the fair share follows.
    pub fn join(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a session out.
    pub fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes no more jobs; sessions finish those that wait.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::Part;
    use std::sync::Arc;

    #[derive(Debug, PartialEq)]
    struct One(&'static str);

    impl Divisible for One {
        fn part(&self, _budget: u64) -> Part {
            Part { items: 1, cost: 1, last: true }
        }
    }

    #[test]
    fn a_full_lane_says_busy_at_once_and_gives_the_job_back() {
        let lane = Lane::new(2, 8);
        lane.submit(&"a", 1, One("a")).unwrap();
        lane.submit(&"a", 1, One("a")).unwrap();
        let (error, job) = lane.submit(&"b", 1, One("b")).unwrap_err();
        assert_eq!((error.kind(), job), (ErrorKind::Busy, One("b")));
        assert!(error.retry_after().is_some());
    }

    #[test]
    fn a_session_takes_its_share_and_no_more() {
        let lane = Lane::new(100, 16);
        for _ in 0..4 {
            lane.join();
        }
        for _ in 0..20 {
            lane.submit(&"a", 1, One("a")).unwrap();
        }
        let mut batch = Vec::new();
        lane.take(&mut batch);
        assert_eq!(batch.len(), 6, "1 + 20 / 4");
        lane.take(&mut batch);
        assert_eq!(batch.len(), 4, "1 + 14 / 4");
        let alone = Lane::new(100, 16);
        alone.join();
        for _ in 0..50 {
            alone.submit(&"a", 1, One("a")).unwrap();
        }
        alone.take(&mut batch);
        assert_eq!(batch.len(), 16, "never over the batch limit");
    }

    #[test]
    fn a_bulk_caller_does_not_hold_up_another() {
        let lane = Lane::new(1_000, 4);
        lane.join();
        for _ in 0..500 {
            lane.submit(&"bulk", 1, One("bulk")).unwrap();
        }
        lane.submit(&"single", 1, One("single")).unwrap();
        let mut batch = Vec::new();
        lane.take(&mut batch);
        assert!(batch.contains(&One("single")), "{batch:?}");
    }

    #[test]
    fn a_closed_lane_is_drained_and_then_empty_for_ever() {
        let lane = Arc::new(Lane::new(10, 4));
        lane.submit(&"a", 1, One("a")).unwrap();
        lane.close();
        assert_eq!(lane.submit(&"a", 1, One("a")).unwrap_err().0.kind(), ErrorKind::Unavailable);
        let mut batch = Vec::new();
        lane.take(&mut batch);
        assert_eq!(batch.len(), 1);
        lane.take(&mut batch);
        assert!(batch.is_empty());
    }
}
