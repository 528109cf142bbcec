//! What Prometheus sees of a node that is one of several.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge};

use super::Maker;

/// How a node stands to the others.
#[derive(Clone, Copy, Debug)]
pub struct ClusterSample {
    /// How long ago the store confirmed its view.
    pub view_age: Duration,
    /// Whether it does what is done by the clock.
    pub keeps_time: bool,
    /// Records of others that it took over, and that it refused.
    pub records: [u64; 2],
}

/// The series of a node that is one of several.
pub(super) struct ClusterSeries {
    view_age: Gauge,
    timers: IntGauge,
    followed: IntCounter,
    rejected: IntCounter,
}

impl ClusterSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        let age = "Seconds since the store confirmed the view of this node; zero for one that is alone.";
        Self {
            view_age: make.keep(Gauge::new("keymill_cluster_view_age_seconds", age).expect("the name is valid")),
            timers: make.gauge(
                "keymill_cluster_timers",
                "1 while this node does what is done by the clock, else 0.",
            ),
            followed: make.counter(
                "keymill_cluster_followed_records_total",
                "Records that other nodes wrote and this one took over.",
            ),
            rejected: make.counter(
                "keymill_cluster_rejected_records_total",
                "Records that came to stand in the store and were refused: altered, older, or removed by no node.",
            ),
        }
    }

    pub(super) fn set(&self, sample: Option<&ClusterSample>) {
        let Some(sample) = sample else { return self.timers.set(1) };
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        self.view_age.set(sample.view_age.as_secs_f64());
        self.timers.set(i64::from(sample.keeps_time));
        raise(&self.followed, sample.records[0]);
        raise(&self.rejected, sample.records[1]);
    }
}
