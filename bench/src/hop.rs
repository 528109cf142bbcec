//! One lane hop: submit, a worker's thread, the reply; beside the same way over a plain channel of the standard library.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keymill_core::id::AccessKeyId;
use keymill_runtime::lane::Lane;
use keymill_runtime::ready::{Divisible, Part};

use crate::error::{BenchError, Result};

/// Jobs that the replies' channel holds; more are never in flight.
const MAX_IN_FLIGHT: usize = 1024;

struct Ping;

impl Divisible for Ping {
    fn part(&self, _budget: u64) -> Part {
        Part { items: 1, cost: 1, last: true }
    }
}

/// A lane with one worker that answers at once.
pub struct LaneHop {
    lane: Arc<Lane<Arc<AccessKeyId>, Ping>>,
    principal: Arc<AccessKeyId>,
    replies: Receiver<usize>,
    worker: Option<JoinHandle<()>>,
}

impl LaneHop {
    /// Starts the worker.
    ///
    /// # Errors
    /// [`BenchError`] where the thread does not start.
    pub fn start() -> Result<Self> {
        let lane = Arc::new(Lane::new(2 * MAX_IN_FLIGHT, 64));
        let (reply, replies) = mpsc::sync_channel(MAX_IN_FLIGHT);
        let jobs = Arc::clone(&lane);
        jobs.join(0);
        let worker = std::thread::Builder::new().name("bench-lane".into()).spawn(move || {
            let mut batch = Vec::new();
            loop {
                jobs.take(&mut batch);
                if batch.is_empty() || reply.send(batch.len()).is_err() {
                    return;
                }
            }
        })?;
        let principal = Arc::new("AK.bench0000".parse().map_err(BenchError::new)?);
        Ok(Self { lane, principal, replies, worker: Some(worker) })
    }

    /// Sends `in_flight` jobs and waits for all their replies, `rounds` times.
    ///
    /// # Errors
    /// [`BenchError`] where the lane refuses or its worker is gone.
    pub fn rounds(&self, rounds: u64, in_flight: usize) -> Result<()> {
        for _ in 0..rounds {
            for _ in 0..in_flight.min(MAX_IN_FLIGHT) {
                self.lane.submit(&self.principal, None, Ping).map_err(|(error, _)| error)?;
            }
            let mut answered = 0;
            while answered < in_flight {
                answered += self.replies.recv().map_err(BenchError::because("the lane's worker"))?;
            }
        }
        Ok(())
    }
}

impl Drop for LaneHop {
    fn drop(&mut self) {
        self.lane.close();
        if let Some(worker) = self.worker.take() {
            let _panicked = worker.join();
        }
    }
}

/// The ceiling: two bounded channels and a thread.
pub struct ChannelHop {
    jobs: Option<SyncSender<()>>,
    replies: Receiver<()>,
    worker: Option<JoinHandle<()>>,
}

impl ChannelHop {
    /// Starts the worker.
    ///
    /// # Errors
    /// [`BenchError`] where the thread does not start.
    pub fn start() -> Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(MAX_IN_FLIGHT);
        let (reply, replies) = mpsc::sync_channel(MAX_IN_FLIGHT);
        let worker = std::thread::Builder::new().name("bench-channel".into()).spawn(move || {
            while let Ok(job) = queue.recv() {
                if reply.send(job).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), replies, worker: Some(worker) })
    }

    /// Sends `in_flight` jobs and waits for all their replies, `rounds` times.
    ///
    /// # Errors
    /// [`BenchError`] where the worker is gone.
    pub fn rounds(&self, rounds: u64, in_flight: usize) -> Result<()> {
        let jobs = self.jobs.as_ref().expect("the channel is open until it is dropped");
        for _ in 0..rounds {
            for _ in 0..in_flight.min(MAX_IN_FLIGHT) {
                jobs.send(()).map_err(BenchError::because("the channel's worker"))?;
            }
            for _ in 0..in_flight {
                self.replies.recv().map_err(BenchError::because("the channel's worker"))?;
            }
        }
        Ok(())
    }
}

impl Drop for ChannelHop {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            let _panicked = worker.join();
        }
    }
}

/// Repeats `rounds(64)` for `time` and returns nanoseconds a job.
pub(crate) fn nanoseconds(
    time: Duration,
    in_flight: usize,
    mut rounds: impl FnMut(u64) -> Result<()>,
) -> Result<f64> {
    const ROUNDS: u64 = 64;
    let (start, mut jobs) = (Instant::now(), 0);
    while start.elapsed() < time {
        rounds(ROUNDS)?;
        jobs += ROUNDS * in_flight as u64;
    }
    Ok(start.elapsed().as_nanos() as f64 / jobs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_answered_one_by_one_and_many_at_a_time() {
        let (lane, channel) = (LaneHop::start().unwrap(), ChannelHop::start().unwrap());
        for in_flight in [1, 7, 256] {
            lane.rounds(10, in_flight).unwrap();
            channel.rounds(10, in_flight).unwrap();
        }
    }
}
