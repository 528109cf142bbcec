//! How fast something goes: workers that do it side by side for a moment, and the median of several such moments.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Moments of which the median counts.
pub const RUNS: usize = 5;
/// How long a worker goes on before it looks at the clock again.
const SLICE: Duration = Duration::from_millis(1);

/// A rate, by the number of sessions.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Sessions at once.
    pub sessions: usize,
    /// The median of the runs.
    pub per_s: f64,
    /// Each run, in their order.
    pub runs: Vec<f64>,
}

impl Rate {
    /// Takes the median of several runs.
    pub fn of(sessions: usize, runs: Vec<f64>) -> Self {
        Self { sessions, per_s: median(&runs), runs }
    }

    /// Returns by how much the slowest run falls short of the fastest.
    pub fn spread(&self) -> f64 {
        let least = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.runs.iter().copied().fold(0.0, f64::max);
        if most > 0.0 { 1.0 - least / most } else { 0.0 }
    }

    /// Returns this rate by another that was measured in turn with it: what else went on met both runs of a pair.
    pub fn by(&self, other: &Self) -> f64 {
        let pairs: Vec<f64> = self.runs.iter().zip(&other.runs).map(|(run, other)| run / other).collect();
        median(&pairs)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Has each worker do `work` again and again for about `moment`, all at once, and returns how many were done a second. `work` returns
/// how many it did.
///
/// # Errors
/// What one of them fails with.
///
/// # Panics
/// Where `work` does.
pub fn rate<W: Send, E: Send>(
    workers: &mut [W],
    moment: Duration,
    work: impl Fn(&mut W) -> Result<u64, E> + Sync,
) -> Result<f64, E> {
    let start = Barrier::new(workers.len());
    let (start, work) = (&start, &work);
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                scope.spawn(move || {
                    start.wait();
                    let began = Instant::now();
                    let (mut done, mut at_once, mut looked) = (0, 1u32, began);
                    loop {
                        for _ in 0..at_once {
                            done += work(worker)?;
                        }
                        let now = Instant::now();
                        if now - began >= moment {
                            return Ok(done as f64 / (now - began).as_secs_f64());
                        }
                        // The clock costs a twentieth of the fastest call.
                        if now - looked < SLICE / 2 && at_once < 1 << 16 {
                            at_once *= 2;
                        }
                        looked = now;
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_counts_and_a_failure_is_told() {
        let mut workers = [0u64; 3];
        let counted = rate(&mut workers, Duration::from_millis(20), |done| {
            *done += 2;
            Ok::<_, ()>(2)
        })
        .unwrap();
        let done: u64 = workers.iter().sum();
        assert!(workers.iter().all(|done| *done > 0) && counted > 0.0 && done > 100, "{workers:?} {counted}");
        let failed = rate(&mut workers, Duration::from_secs(60), |done| match *done {
            0 => Ok(1),
            _ => Err("full"),
        });
        assert_eq!(failed, Err("full"));
    }

    #[test]
    fn the_median_of_runs_counts() {
        let rate = Rate::of(2, vec![3.0, 1.0, 10.0]);
        assert_eq!((rate.sessions, rate.per_s, rate.spread()), (2, 3.0, 0.9));
        // Run by run: whatever slowed one run down slowed down the other of its pair.
        assert_eq!(rate.by(&Rate::of(2, vec![6.0, 2.0, 10.0])), 0.5);
    }
}
