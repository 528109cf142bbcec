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

/// Jobs that wait for the same sessions.
struct Queue<K, T> {
    jobs: ReadyQueue<K, T>,
    /// Sessions that take of it.
    sessions: usize,
    /// Since when there has been none.
    bare_since: Instant,
}

struct State<K, T> {
    /// What any session does.
    shared: Queue<K, T>,
    /// What is bound to the sessions of one berth, by its number.
    bound: Vec<Queue<K, T>>,
    /// Whether the next turn of a berth's session is for what is bound to it, where there is both.
    bound_next: Vec<bool>,
    closed: bool,
    /// Whether sessions are to come where there is none; nothing waits for those that are not.
    is_manned: bool,
    /// How often all sessions were woken to look whether they are still wanted.
    wakes: u64,
}

/// A bounded, fair queue in front of sessions. Sessions stand at berths, a token's at one; a job may be bound to a berth.
pub struct Lane<K, T> {
    state: Mutex<State<K, T>>,
    ready: Condvar,
    /// Jobs that wait for any session, at most, and so many more for those of each berth.
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

impl<K: Clone + Eq + Hash, T: Divisible> Queue<K, T> {
    fn new() -> Self {
        Self { jobs: ReadyQueue::new(1), sessions: 0, bare_since: Instant::now() }
    }

    fn joined(&mut self) {
        self.sessions += 1;
    }

    fn left(&mut self) {
        self.sessions = self.sessions.saturating_sub(1);
        if self.sessions == 0 {
            self.bare_since = Instant::now();
        }
    }
}

impl<K: Clone + Eq + Hash, T: Divisible> State<K, T> {
    fn queue(&mut self, berth: Option<usize>) -> &mut Queue<K, T> {
        match berth {
            Some(berth) => &mut self.bound[berth],
            None => &mut self.shared,
        }
    }

    /// Tells whether a session at `berth` has something to take.
    fn has_jobs(&self, berth: usize) -> bool {
        !self.shared.jobs.is_empty() || self.bound.get(berth).is_some_and(|queue| !queue.jobs.is_empty())
    }

    /// Tells whether no session comes any more.
    fn is_left(&self) -> bool {
        self.closed || !self.is_manned
    }

    /// Tells which queue a session at `berth` takes of next; `None` where neither has a job.
    fn next(&mut self, berth: usize) -> Option<Option<usize>> {
        let bound = self.bound.get(berth).is_some_and(|queue| !queue.jobs.is_empty());
        let take_bound = match (bound, !self.shared.jobs.is_empty()) {
            (false, false) => return None,
            (true, true) => {
                self.bound_next[berth] = !self.bound_next[berth];
                !self.bound_next[berth]
            }
            (bound, _) => bound,
        };
        Some(take_bound.then_some(berth))
    }
}

impl<K: Clone + Eq + Hash, T: Divisible> Lane<K, T> {
    /// Makes a lane for at most `capacity` waiting jobs, of which a session takes at most `max_batch` in one go.
    pub fn new(capacity: usize, max_batch: usize) -> Self {
        let state = State {
            shared: Queue::new(),
            bound: Vec::new(),
            bound_next: Vec::new(),
            closed: false,
            is_manned: true,
            wakes: 0,
        };
        Self { state: Mutex::new(state), ready: Condvar::new(), capacity, max_batch, patience: None }
    }

    /// Has jobs refused once there has been no session for so long.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Gives the lane so many berths that jobs can be bound to.
    pub fn with_berths(mut self, berths: usize) -> Self {
        let state = self.state.get_mut();
        state.bound = (0..berths).map(|_| Queue::new()).collect();
        state.bound_next = vec![true; berths];
        self
    }

    /// Adds a job for any session, or for those of one berth, or hands it back at once. Where the lane is full and holds work that is over its
    /// quota, the newest of that is returned in the place of a job that is not: the caller has it answered.
    ///
    /// # Errors
    /// `Busy` where the lane is full, `Unavailable` where it is closed or has had no such session for longer than its patience; the
    /// job comes back with the error.
    pub fn submit(&self, principal: &K, berth: Option<usize>, job: T) -> Result<Option<T>, (Error, T)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((Error::new(ErrorKind::Unavailable, "the crypto pool is shut down"), job));
        }
        // Sessions that are yet to leave finish what waits, and nothing more.
        if !state.is_manned {
            return Err((down(), job));
        }
        let queue = state.queue(berth);
        if self.is_bare(queue, false) {
            return Err((down(), job));
        }
        let mut shed = None;
        if queue.jobs.len() >= self.capacity {
            if job.sheddable_since().is_none() {
                shed = queue.jobs.shed_newest();
            }
            if shed.is_none() {
                let message =
                    format!("the queue of the crypto pool holds its limit of {} jobs", self.capacity);
                return Err((Error::new(ErrorKind::Busy, message).retry_after_ms(50), job));
            }
        }
        queue.jobs.push(principal, 1, job);
        drop(state);
        self.notify(berth);
        Ok(shed)
    }

    /// Puts a job that a session could not finish before its principal's others, however full the lane is: it was admitted.
    pub fn restore(&self, principal: &K, berth: Option<usize>, job: T) {
        self.state.lock().queue(berth).jobs.put_back(principal, 1, job);
        self.notify(berth);
    }

    fn notify(&self, berth: Option<usize>) {
        match berth {
            None => drop(self.ready.notify_one()),
            // The one that wakes might stand elsewhere.
            Some(_) => drop(self.ready.notify_all()),
        }
    }

    /// Waits for jobs and takes a batch; an empty batch means that the lane is closed and drained.
    pub fn take(&self, batch: &mut Vec<T>) {
        while self.take_within(0, Duration::from_secs(3600), self.max_batch, batch) == Taken::Idle {}
    }

    /// Waits so long for jobs that a session at `berth` may do, and takes a batch that costs at most about `max_batch`. Where there are
    /// both, what is bound to the berth and what is not take turns.
    pub fn take_within(&self, berth: usize, wait: Duration, max_batch: usize, batch: &mut Vec<T>) -> Taken {
        batch.clear();
        let max_batch = max_batch.min(self.max_batch);
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        let (mut late, wakes) = (false, state.wakes);
        let next = loop {
            match state.next(berth) {
                Some(next) => break next,
                None if state.closed => return Taken::Closed,
                None if late || state.wakes != wakes => return Taken::Idle,
                // Woken for what is bound elsewhere, it waits on.
                None => late = self.ready.wait_until(&mut state, until).timed_out(),
            }
        };
        let queue = state.queue(next);
        let fair = (1 + queue.jobs.len() / queue.sessions.max(1)).min(max_batch);
        // A turn is worth half of what a session takes in one go, so that two who load the lane share it, however their jobs are cut.
        queue.jobs.set_quantum(max_batch.div_ceil(2) as u64);
        let mut parts = Vec::with_capacity(fair);
        queue.jobs.take(fair.max(1) as u64, &mut parts);
        batch.extend(parts.into_iter().map(|(job, _)| job));
        let more = !state.shared.jobs.is_empty();
        drop(state);
        if more {
            self.ready.notify_one();
        }
        Taken::Batch
    }

    /// Waits so long for jobs that a session at `berth` may do, and leaves them where they are: [`Taken::Batch`] says that there are.
    pub fn await_within(&self, berth: usize, wait: Duration) -> Taken {
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        let (mut late, wakes) = (false, state.wakes);
        loop {
            match () {
                () if state.has_jobs(berth) => return Taken::Batch,
                () if state.closed => return Taken::Closed,
                () if late || state.wakes != wakes => return Taken::Idle,
                () => late = self.ready.wait_until(&mut state, until).timed_out(),
            }
        }
    }

    /// Wakes a session, where there are jobs: one that was woken has not taken them.
    pub fn nudge(&self) {
        if !self.is_empty() {
            self.ready.notify_all();
        }
    }

    /// Returns the number of jobs that wait.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.shared.jobs.len() + state.bound.iter().map(|queue| queue.jobs.len()).sum::<usize>()
    }

    /// Tells whether any wait that are bound to a berth.
    pub fn has_bound(&self, berth: usize) -> bool {
        self.state.lock().bound.get(berth).is_some_and(|queue| !queue.jobs.is_empty())
    }

    /// Tells whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> usize {
        self.state.lock().shared.sessions
    }

    /// Counts a session in; the fair share follows.
    pub fn join(&self, berth: usize) {
        let mut state = self.state.lock();
        state.shared.joined();
        if let Some(queue) = state.bound.get_mut(berth) {
            queue.joined();
        }
    }

    /// Says that a session is about to join: patience begins anew.
    pub fn expect(&self, berth: usize) {
        let mut state = self.state.lock();
        state.shared.bare_since = Instant::now();
        if let Some(queue) = state.bound.get_mut(berth) {
            queue.bare_since = Instant::now();
        }
    }

    /// Counts a session out.
    pub fn leave(&self, berth: usize) {
        let mut state = self.state.lock();
        state.shared.left();
        if let Some(queue) = state.bound.get_mut(berth) {
            queue.left();
        }
    }

    /// Says whether there are to be sessions at all: where there are to be none, jobs are refused at once.
    pub fn set_manned(&self, is_manned: bool) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_manned, is_manned) || !is_manned {
            return;
        }
        let State { shared, bound, .. } = &mut *state;
        std::iter::once(shared).chain(bound).for_each(|queue| queue.bare_since = Instant::now());
    }

    /// Tells whether there has been no session for longer than the lane's patience, or will be none any more.
    pub fn is_down(&self) -> bool {
        let state = self.state.lock();
        self.is_bare(&state.shared, state.is_left())
    }

    fn is_bare(&self, queue: &Queue<K, T>, is_left: bool) -> bool {
        let is_over = |patience| is_left || queue.bare_since.elapsed() > patience;
        queue.sessions == 0 && self.patience.is_some_and(is_over)
    }

    /// Takes the jobs that no session has come for in time, so that they are refused and need not wait for their deadlines.
    pub fn take_stranded(&self) -> Vec<T> {
        let mut state = self.state.lock();
        let is_left = state.is_left();
        let State { shared, bound, .. } = &mut *state;
        let queues = std::iter::once(shared).chain(bound).filter(|queue| self.is_bare(queue, is_left));
        queues.flat_map(|queue| queue.jobs.drain()).collect()
    }

    /// Wakes all sessions, so that they look whether they are still wanted.
    pub fn wake(&self) {
        self.state.lock().wakes += 1;
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
        lane.submit(&"a", None, One("a")).unwrap();
        lane.submit(&"a", None, One("a")).unwrap();
        let (error, job) = lane.submit(&"b", None, One("b")).unwrap_err();
        assert_eq!((error.kind(), job), (ErrorKind::Busy, One("b")));
        assert!(error.retry_after().is_some());
    }

    #[derive(Debug, PartialEq)]
    struct Extra(&'static str, Option<Instant>);

    impl Divisible for Extra {
        fn part(&self, _budget: u64) -> Part {
            Part { items: 1, cost: 1, last: true }
        }

        fn sheddable_since(&self) -> Option<Instant> {
            self.1
        }
    }

    #[test]
    fn a_full_lane_sheds_what_is_over_its_quota_for_what_is_not() {
        let lane = Lane::new(2, 8);
        let now = Some(Instant::now());
        assert_eq!(lane.submit(&"bulk", None, Extra("over 1", now)).unwrap(), None);
        let later = now.map(|now| now + Duration::from_secs(1));
        assert_eq!(lane.submit(&"bulk", None, Extra("over 2", later)).unwrap(), None);
        let (error, _) = lane.submit(&"bulk", None, Extra("over 3", later)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "it displaces nobody");
        let single = |name| lane.submit(&"single", None, Extra(name, None));
        assert_eq!(single("within 1").unwrap(), Some(Extra("over 2", later)));
        assert_eq!(single("within 2").unwrap(), Some(Extra("over 1", now)));
        assert_eq!(single("within 3").unwrap_err().0.kind(), ErrorKind::Busy);
        assert_eq!(lane.len(), 2);
    }

    #[test]
    fn a_session_takes_its_share_and_no_more() {
        let lane = Lane::new(100, 16);
        for _ in 0..4 {
            lane.join(0);
        }
        for _ in 0..20 {
            lane.submit(&"a", None, One("a")).unwrap();
        }
        let mut batch = Vec::new();
        lane.take(&mut batch);
        assert_eq!(batch.len(), 6, "1 + 20 / 4");
        lane.take(&mut batch);
        assert_eq!(batch.len(), 4, "1 + 14 / 4");
        let alone = Lane::new(100, 16);
        alone.join(0);
        for _ in 0..50 {
            alone.submit(&"a", None, One("a")).unwrap();
        }
        alone.take(&mut batch);
        assert_eq!(batch.len(), 16, "never over the batch limit");
    }

    #[test]
    fn a_bulk_caller_does_not_hold_up_another() {
        let lane = Lane::new(1_000, 4);
        lane.join(0);
        for _ in 0..500 {
            lane.submit(&"bulk", None, One("bulk")).unwrap();
        }
        lane.submit(&"single", None, One("single")).unwrap();
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
        lane.join(0);
        for _ in 0..100 {
            lane.submit(&"bulk", None, Large("bulk", 100)).unwrap();
        }
        for _ in 0..5_000 {
            lane.submit(&"singles", None, Large("single", 1)).unwrap();
        }
        let (mut batch, mut bulk, mut singles) = (Vec::new(), 0, 0);
        while bulk < 2_000 {
            assert_eq!(lane.take_within(0, Duration::ZERO, 200, &mut batch), Taken::Batch);
            for Large(whose, cost) in &batch {
                *(if *whose == "bulk" { &mut bulk } else { &mut singles }) += cost;
            }
        }
        assert!(singles * 2 > bulk, "{singles} beside {bulk}");
    }

    #[test]
    fn a_lane_without_sessions_waits_a_while_and_then_refuses() {
        let lane = Lane::new(10, 4).with_patience(Duration::from_secs(3600));
        lane.submit(&"a", None, One("a")).unwrap();
        assert!(lane.take_stranded().is_empty(), "a session may come back");
        lane.close();
        assert_eq!(lane.take_stranded(), [One("a")], "nobody comes back to a lane that is closed");
        let impatient = Lane::new(10, 4).with_patience(Duration::ZERO);
        impatient.join(0);
        impatient.submit(&"a", None, One("a")).unwrap();
        impatient.leave(0);
        assert_eq!(impatient.take_stranded(), [One("a")]);
        let brief = Lane::<&str, One>::new(10, 4).with_patience(Duration::from_secs(5));
        brief.state.lock().shared.bare_since -= Duration::from_secs(10);
        assert!(brief.is_down());
        brief.expect(0);
        assert!(!brief.is_down());
        assert_eq!(impatient.submit(&"a", None, One("a")).unwrap_err().0.kind(), ErrorKind::Unavailable);
        impatient.join(0);
        impatient.submit(&"a", None, One("a")).unwrap();
    }

    #[test]
    fn a_lane_that_nobody_is_to_come_to_refuses_at_once_and_is_finished_by_those_who_are_there() {
        let lane = Lane::new(10, 4).with_patience(Duration::from_secs(3600)).with_berths(1);
        lane.join(0);
        lane.submit(&"a", None, One("before")).unwrap();
        lane.set_manned(false);
        assert_eq!(lane.submit(&"a", None, One("after")).unwrap_err().0.kind(), ErrorKind::Unavailable);
        assert!(lane.take_stranded().is_empty(), "there is a session yet");
        let mut batch = Vec::new();
        assert_eq!(lane.take_within(0, Duration::ZERO, 4, &mut batch), Taken::Batch);
        lane.restore(&"a", None, One("again"));
        lane.restore(&"a", Some(0), One("bound"));
        lane.leave(0);
        assert_eq!(lane.take_stranded(), [One("again"), One("bound")]);
        lane.set_manned(true);
        lane.submit(&"a", None, One("waits")).unwrap();
        lane.submit(&"a", Some(0), One("waits")).unwrap();
        assert!(lane.take_stranded().is_empty() && !lane.is_down());
    }

    #[test]
    fn what_is_bound_goes_to_its_berth_alone_in_turns_with_the_rest() {
        let lane = Lane::new(10, 1).with_berths(2);
        lane.join(0);
        lane.join(1);
        for _ in 0..2 {
            lane.submit(&"a", Some(1), One("bound")).unwrap();
            lane.submit(&"a", None, One("free")).unwrap();
        }
        let mut batch = Vec::new();
        let mut take = |berth| match lane.take_within(berth, Duration::ZERO, 1, &mut batch) {
            Taken::Batch => batch[0].0,
            _ => "",
        };
        assert_eq!([take(1), take(1)], ["bound", "free"]);
        assert_eq!([take(0), take(0), take(1), take(1)], ["free", "", "bound", ""]);
        lane.restore(&"a", Some(1), One("again"));
        assert_eq!([take(0), take(1)], ["", "again"]);
    }

    #[test]
    fn what_is_bound_waits_for_its_berth_alone_and_has_a_limit_of_its_own() {
        let lane = Lane::new(1, 4).with_patience(Duration::from_secs(5)).with_berths(2);
        lane.join(0);
        lane.submit(&"a", Some(1), One("waits")).unwrap();
        assert_eq!(lane.submit(&"a", Some(1), One("a")).unwrap_err().0.kind(), ErrorKind::Busy);
        lane.submit(&"a", None, One("free")).unwrap();
        assert!(lane.take_stranded().is_empty());
        lane.state.lock().bound[1].bare_since -= Duration::from_secs(10);
        assert!(!lane.is_down());
        assert_eq!(lane.take_stranded(), [One("waits")]);
        assert_eq!(lane.submit(&"a", Some(1), One("a")).unwrap_err().0.kind(), ErrorKind::Unavailable);
        lane.expect(1);
        lane.submit(&"a", Some(1), One("a")).unwrap();
    }

    /// A session of another berth that wakes for bound work must not swallow the call.
    #[test]
    fn a_session_is_woken_for_what_is_bound_to_it() {
        let lane = Arc::new(Lane::new(100, 4).with_berths(3));
        let waiting: Vec<_> = (0..3)
            .map(|berth| {
                lane.join(berth);
                let lane = lane.clone();
                std::thread::spawn(move || {
                    let mut batch = Vec::new();
                    lane.take_within(berth, Duration::from_secs(60), 4, &mut batch);
                    batch
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        for berth in [2, 0, 1] {
            lane.submit(&"a", Some(berth), One("a")).unwrap();
        }
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == [One("a")]));
    }

    #[test]
    fn what_is_restored_comes_first_and_is_never_refused() {
        let lane = Lane::new(1, 4);
        lane.join(0);
        lane.submit(&"a", None, One("second")).unwrap();
        lane.restore(&"a", None, One("first"));
        let mut batch = Vec::new();
        assert_eq!(lane.take_within(0, Duration::ZERO, 1, &mut batch), Taken::Batch);
        assert_eq!(batch, [One("first")]);
        assert_eq!(lane.take_within(0, Duration::ZERO, 1, &mut batch), Taken::Batch);
        assert_eq!(lane.take_within(0, Duration::ZERO, 1, &mut batch), Taken::Idle);
    }

    #[test]
    fn a_closed_lane_is_drained_and_then_empty_for_ever() {
        let lane = Arc::new(Lane::new(10, 4));
        lane.submit(&"a", None, One("a")).unwrap();
        lane.close();
        assert_eq!(lane.submit(&"a", None, One("a")).unwrap_err().0.kind(), ErrorKind::Unavailable);
        let mut batch = Vec::new();
        lane.take(&mut batch);
        assert_eq!(batch.len(), 1);
        lane.take(&mut batch);
        assert!(batch.is_empty());
    }
}
