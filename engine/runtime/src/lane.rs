//! A lane: a bounded queue in front of the sessions of a pool, fair between principals, and the batching rule.
//!
//! A session takes `min(max_batch, 1 + queued / sessions)` jobs: batches grow with load by themselves, no session starves its
//! siblings, and no timer is needed. A lock and a condition variable stand here instead of a channel, since a fair queue
//! reorders and a channel cannot.

use std::hash::Hash;
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind};
use parking_lot::{Condvar, Mutex};

use crate::ready::{Divisible, ReadyQueue};

struct State<K, T> {
    queue: ReadyQueue<K, T>,
    closed: bool,
    sessions: usize,
    /// Since when there has been no session.
    bare_since: Instant,
}

/// A bounded, fair queue in front of sessions.
pub struct Lane<K, T> {
    state: Mutex<State<K, T>>,
    ready: Condvar,
    capacity: usize,
    max_batch: usize,
    /// How long jobs wait while there is no session at all; `None`: for ever.
    patience: Option<Duration>,
}

/// What came of waiting for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There is a batch.
    Batch,
    /// Nothing came within the time.
    Idle,
    /// The lane is closed and drained.
    Closed,
}

impl<K: Clone + Eq + Hash, T: Divisible> Lane<K, T> {
    /// Makes a lane for at most `capacity` waiting jobs, of which a session takes at most `max_batch` in one go.
    pub fn new(capacity: usize, max_batch: usize) -> Self {
        let state =
            State { queue: ReadyQueue::new(1), closed: false, sessions: 0, bare_since: Instant::now() };
        Self { state: Mutex::new(state), ready: Condvar::new(), capacity, max_batch, patience: None }
    }

    /// Has jobs refused once there has been no session for so long.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Adds a job, or hands it back at once.
    ///
    /// # Errors
    /// `Busy` where the lane is full, `Unavailable` where it is closed or has had no session for longer than its patience; the job
    /// comes back with the error.
    pub fn submit(&self, principal: &K, weight: u64, job: T) -> Result<(), (Error, T)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((Error::new(ErrorKind::Unavailable, "the crypto pool is shut down"), job));
        }
        if self.is_down_in(&state) {
            return Err((down(), job));
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

    /// Puts a job that a session could not finish before its principal's others, however full the lane is: it was admitted.
    pub fn restore(&self, principal: &K, weight: u64, job: T) {
        self.state.lock().queue.put_back(principal, weight, job);
        self.ready.notify_one();
    }

    /// Waits for jobs and takes a batch; an empty batch means that the lane is closed and drained.
    pub fn take(&self, batch: &mut Vec<T>) {
        while self.take_within(Duration::from_secs(3600), self.max_batch, batch) == Taken::Idle {}
    }

    /// Waits so long for jobs, and takes a batch that costs at most about `max_batch`.
    pub fn take_within(&self, wait: Duration, max_batch: usize, batch: &mut Vec<T>) -> Taken {
        batch.clear();
        let mut state = self.state.lock();
        if state.queue.is_empty() && !state.closed {
            self.ready.wait_for(&mut state, wait);
        }
        if state.queue.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        let fair = (1 + state.queue.len() / state.sessions.max(1)).min(max_batch).min(self.max_batch);
        // A turn is worth half of what a session takes in one go, so that two who load the lane share it, however their jobs are cut.
        state.queue.set_quantum(max_batch.min(self.max_batch).div_ceil(2) as u64);
        let mut parts = Vec::with_capacity(fair);
        state.queue.take(fair.max(1) as u64, &mut parts);
        batch.extend(parts.into_iter().map(|(job, _)| job));
        let more = !state.queue.is_empty();
        drop(state);
        if more {
            self.ready.notify_one();
        }
        Taken::Batch
    }

    /// Returns the number of jobs that wait.
    pub fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Tells whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> usize {
        self.state.lock().sessions
    }

    /// Counts a session in; the fair share follows.
    pub fn join(&self) {
        self.state.lock().sessions += 1;
    }

    /// Says that a session is about to join: patience begins anew.
    pub fn expect(&self) {
        self.state.lock().bare_since = Instant::now();
    }

    /// Counts a session out.
    pub fn leave(&self) {
        let mut state = self.state.lock();
        state.sessions = state.sessions.saturating_sub(1);
        if state.sessions == 0 {
            state.bare_since = Instant::now();
        }
    }

    /// Tells whether there has been no session for longer than the lane's patience, or will be none any more.
    pub fn is_down(&self) -> bool {
        self.is_down_in(&self.state.lock())
    }

    fn is_down_in(&self, state: &State<K, T>) -> bool {
        let is_over = |patience| state.closed || state.bare_since.elapsed() > patience;
        state.sessions == 0 && self.patience.is_some_and(is_over)
    }

    /// Takes the jobs of a lane that is down, so that they are refused and need not wait for their deadlines.
    pub fn take_stranded(&self) -> Vec<T> {
        let mut state = self.state.lock();
        if self.is_down_in(&state) { state.queue.drain() } else { Vec::new() }
    }

    /// Wakes all sessions, so that they look whether they are still wanted.
    pub fn wake(&self) {
        self.ready.notify_all();
    }

    /// Takes no more jobs; sessions finish those that wait.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }
}

/// Returns what a lane without sessions answers.
pub fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "no session of the crypto pool is up").retry_after_ms(500)
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

    #[derive(Debug, PartialEq)]
    struct Large(&'static str, u64);

    impl Divisible for Large {
        fn part(&self, _budget: u64) -> Part {
            Part { items: 1, cost: self.1, last: true }
        }
    }

    #[test]
    fn many_single_calls_get_as_much_of_a_session_as_one_bulk_load() {
        let lane = Lane::new(10_000, 256);
        lane.join();
        for _ in 0..100 {
            lane.submit(&"bulk", 1, Large("bulk", 100)).unwrap();
        }
        for _ in 0..5_000 {
            lane.submit(&"singles", 1, Large("single", 1)).unwrap();
        }
        let (mut batch, mut bulk, mut singles) = (Vec::new(), 0, 0);
        while bulk < 2_000 {
            assert_eq!(lane.take_within(Duration::ZERO, 200, &mut batch), Taken::Batch);
            for Large(whose, cost) in &batch {
                *(if *whose == "bulk" { &mut bulk } else { &mut singles }) += cost;
            }
        }
        assert!(singles * 2 > bulk, "{singles} beside {bulk}");
    }

    #[test]
    fn a_lane_without_sessions_waits_a_while_and_then_refuses() {
        let lane = Lane::new(10, 4).with_patience(Duration::from_secs(3600));
        lane.submit(&"a", 1, One("a")).unwrap();
        assert!(lane.take_stranded().is_empty(), "a session may come back");
        lane.close();
        assert_eq!(lane.take_stranded(), [One("a")], "nobody comes back to a lane that is closed");
        let impatient = Lane::new(10, 4).with_patience(Duration::ZERO);
        impatient.join();
        impatient.submit(&"a", 1, One("a")).unwrap();
        impatient.leave();
        assert_eq!(impatient.take_stranded(), [One("a")]);
        let brief = Lane::<&str, One>::new(10, 4).with_patience(Duration::from_secs(5));
        brief.state.lock().bare_since -= Duration::from_secs(10);
        assert!(brief.is_down());
        brief.expect();
        assert!(!brief.is_down());
        assert_eq!(impatient.submit(&"a", 1, One("a")).unwrap_err().0.kind(), ErrorKind::Unavailable);
        impatient.join();
        impatient.submit(&"a", 1, One("a")).unwrap();
    }

    #[test]
    fn what_is_restored_comes_first_and_is_never_refused() {
        let lane = Lane::new(1, 4);
        lane.join();
        lane.submit(&"a", 1, One("second")).unwrap();
        lane.restore(&"a", 1, One("first"));
        let mut batch = Vec::new();
        assert_eq!(lane.take_within(Duration::ZERO, 1, &mut batch), Taken::Batch);
        assert_eq!(batch, [One("first")]);
        assert_eq!(lane.take_within(Duration::ZERO, 1, &mut batch), Taken::Batch);
        assert_eq!(lane.take_within(Duration::ZERO, 1, &mut batch), Taken::Idle);
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
