//! The queue before the threads. A rotator whose other side says nothing holds up its own secrets alone: it has half of the threads, and of the
//! places that wait, at most.

use std::collections::{HashMap, VecDeque};

use keymill_core::id::{RotatorName, SecretName};
use parking_lot::{Condvar, Mutex};

/// A secret that is to be rotated, or whose rotation is to go on.
pub(crate) struct RotationJob {
    pub(crate) name: SecretName,
    pub(crate) rotator: RotatorName,
    /// Whether a version is to be drafted first.
    pub(crate) draft: bool,
}

/// What became of a job that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It waits.
    Queued,
    /// Its rotator has as many that wait as it may.
    ShareIsFull,
    /// There is no room for any.
    IsFull,
}

/// The queue.
pub(crate) struct RotationQueue {
    state: Mutex<State>,
    changed: Condvar,
    bound: usize,
    threads: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<RotationJob>,
    waiting: HashMap<RotatorName, usize>,
    at_work: HashMap<RotatorName, usize>,
    is_over: bool,
}

impl RotationQueue {
    pub(crate) fn new(bound: usize, threads: usize) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { state, changed, bound: bound.max(1), threads: threads.max(1) }
    }

    /// Queues a job.
    pub(crate) fn submit(&self, job: RotationJob) -> Submitted {
        let mut state = self.state.lock();
        if state.is_over || state.jobs.len() >= self.bound {
            return Submitted::IsFull;
        }
        let waiting = state.waiting.entry(job.rotator.clone()).or_default();
        if *waiting >= half(self.bound) {
            return Submitted::ShareIsFull;
        }
        *waiting += 1;
        state.jobs.push_back(job);
        self.changed.notify_one();
        Submitted::Queued
    }

    /// Waits for a job whose rotator is not at work on as many as it may; `None` once it is over. What is returned is given back to
    /// [`RotationQueue::done`].
    pub(super) fn next(&self) -> Option<RotationJob> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.take(half(self.threads)) {
                return Some(job);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Notes that a job of a rotator is done.
    pub(super) fn done(&self, rotator: &RotatorName) {
        less_one(&mut self.state.lock().at_work, rotator);
        // One that waited for this may be another's to take.
        self.changed.notify_all();
    }

    /// Ends it: what waits is left.
    pub(super) fn close(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }
}

impl State {
    fn take(&mut self, most: usize) -> Option<RotationJob> {
        let may = |job: &RotationJob| self.at_work.get(&job.rotator).is_none_or(|at_work| *at_work < most);
        let at = self.jobs.iter().position(may)?;
        let job = self.jobs.remove(at)?;
        less_one(&mut self.waiting, &job.rotator);
        *self.at_work.entry(job.rotator.clone()).or_default() += 1;
        Some(job)
    }
}

/// Returns the share of one rotator.
fn half(of: usize) -> usize {
    of.div_ceil(2)
}

fn less_one(counts: &mut HashMap<RotatorName, usize>, rotator: &RotatorName) {
    if let Some(count) = counts.get_mut(rotator) {
        *count -= 1;
        if *count == 0 {
            counts.remove(rotator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(rotator: &str, name: &str) -> RotationJob {
        RotationJob { name: name.parse().unwrap(), rotator: rotator.parse().unwrap(), draft: false }
    }

    fn taken(queue: &RotationQueue) -> Option<String> {
        queue.state.lock().take(half(queue.threads)).map(|job| job.name.to_string())
    }

    #[test]
    fn a_rotator_has_half_of_the_threads_and_leaves_the_others_to_others() {
        let queue = RotationQueue::new(16, 4);
        for name in ["a1", "a2", "a3"] {
            assert_eq!(queue.submit(job("a", name)), Submitted::Queued);
        }
        assert_eq!(queue.submit(job("b", "b1")), Submitted::Queued);
        assert_eq!([taken(&queue), taken(&queue), taken(&queue)], ["a1", "a2", "b1"].map(|n| Some(n.into())));
        assert_eq!(taken(&queue), None, "two of a are at work");
        queue.done(&"a".parse().unwrap());
        assert_eq!(taken(&queue).as_deref(), Some("a3"));
        for rotator in ["a", "a", "b"] {
            queue.done(&rotator.parse().unwrap());
        }
        let state = queue.state.lock();
        assert!(state.at_work.is_empty() && state.waiting.is_empty() && state.jobs.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_in_all_and_for_each() {
        let queue = RotationQueue::new(4, 1);
        for (rotator, told) in [
            ("a", Submitted::Queued),
            ("a", Submitted::Queued),
            ("a", Submitted::ShareIsFull),
            ("b", Submitted::Queued),
            ("b", Submitted::Queued),
            ("c", Submitted::IsFull),
        ] {
            assert_eq!(queue.submit(job(rotator, "x")), told, "{rotator}");
        }
        assert_eq!(queue.next().map(|job| job.rotator.to_string()).as_deref(), Some("a"));
        queue.close();
        assert_eq!(queue.submit(job("c", "x")), Submitted::IsFull);
        assert!(queue.next().is_none() && queue.is_over());
    }
}
