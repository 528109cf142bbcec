//! What one desk counts, and keeps to itself until the end of a slice.

use std::time::Duration;

use keymill_core::error::ErrorKind;
use keymill_core::operation::Operation;
use prometheus::local::LocalHistogram;
use prometheus::{Histogram, IntCounter};

use super::{Metrics, OUTCOMES, outcome, row};

/// The series that one desk bumps, with histograms of its own until [`Self::flush`].
pub(crate) struct DeskMetrics {
    requests: Vec<[IntCounter; OUTCOMES.len()]>,
    durations: Vec<LocalHistogram>,
    touched: Vec<usize>,
    queue: LocalHistogram,
    crypto: LocalHistogram,
    batch: LocalHistogram,
    items_ok: IntCounter,
    items_failed: IntCounter,
}

impl Metrics {
    /// Makes what one desk counts by.
    pub(crate) fn desk(&self) -> DeskMetrics {
        DeskMetrics {
            requests: self.requests.clone(),
            durations: self.durations.iter().map(Histogram::local).collect(),
            touched: Vec::new(),
            queue: self.stages[0].local(),
            crypto: self.stages[1].local(),
            batch: self.batch_items.local(),
            items_ok: self.items_ok.clone(),
            items_failed: self.items_failed.clone(),
        }
    }
}

impl DeskMetrics {
    pub(crate) fn queued(&mut self, waited: Duration) {
        self.queue.observe(waited.as_secs_f64());
    }

    pub(crate) fn worked(&mut self, took: Duration) {
        self.crypto.observe(took.as_secs_f64());
    }

    pub(crate) fn batch(&mut self, items: u32) {
        self.batch.observe(f64::from(items));
    }

    pub(crate) fn answered(
        &mut self,
        operation: Option<Operation>,
        kind: Option<ErrorKind>,
        items: usize,
        failed: usize,
        took: Duration,
    ) {
        let row = row(operation);
        self.requests[row][outcome(kind)].inc();
        self.durations[row].observe(took.as_secs_f64());
        if !self.touched.contains(&row) {
            self.touched.push(row);
        }
        self.items_ok.inc_by((items - failed) as u64);
        self.items_failed.inc_by(failed as u64);
    }

    pub(crate) fn flush(&mut self) {
        for row in self.touched.drain(..) {
            self.durations[row].flush();
        }
        self.queue.flush();
        self.crypto.flush();
        self.batch.flush();
    }
}
