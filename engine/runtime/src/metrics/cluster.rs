//! What Prometheus sees of a node that is one of several.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, Opts};

use super::Maker;
use crate::records::Formats;

/// What a quota limits.
const LIMITS: [&str; 3] = ["requests", "items", "bytes"];

/// How a node stands to the others.
#[derive(Clone, Debug)]
pub struct ClusterSample {
    /// How long ago the store confirmed its view.
    pub view_age: Duration,
    /// Whether it does what is done by the clock.
    pub keeps_time: bool,
    /// Whether the store is of another history than was seen.
    pub is_forked: bool,
    /// Nodes that are there, itself among them.
    pub nodes: usize,
    /// The record format that is written.
    pub format: u16,
    /// Its part of the requests, items and bytes that the instance may have, of those that are limited.
    pub parts: [Option<f64>; LIMITS.len()],
    /// Records of others that it took over, and that it refused.
    pub records: [u64; 2],
}

/// The series of a node that is one of several.
pub(super) struct ClusterSeries {
    view_age: Gauge,
    timers: IntGauge,
    forked: IntGauge,
    nodes: IntGauge,
    format: IntGauge,
    parts: [Gauge; LIMITS.len()],
    followed: IntCounter,
    rejected: IntCounter,
}

impl ClusterSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        let age = "Seconds since the store confirmed the view of this node; zero for one that is alone.";
        let part = "The part of a limit of the instance that this node gives, by what all nodes are asked for; 1 for one that is alone.";
        let part = GaugeVec::new(Opts::new("keymill_cluster_share", part), &["limit"]);
        let parts = make.keep(part.expect("the name is valid"));
        Self {
            nodes: make.gauge(
                "keymill_cluster_nodes",
                "Nodes that are there and do not drain, by what this one has heard, itself included.",
            ),
            format: make.gauge(
                "keymill_cluster_record_format",
                "The newest record format that all nodes read which are there.",
            ),
            parts: LIMITS.map(|limit| parts.with_label_values(&[limit])),
            view_age: make.keep(Gauge::new("keymill_cluster_view_age_seconds", age).expect("the name is valid")),
            timers: make.gauge(
                "keymill_cluster_timers",
                "1 while this node does what is done by the clock, else 0.",
            ),
            forked: make.gauge(
                "keymill_cluster_other_history",
                "1 once the store was found not to hold what was seen of it: no key is used until an operator accepts that; else 0.",
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
        let Some(sample) = sample else {
            self.parts.iter().for_each(|part| part.set(1.0));
            self.nodes.set(1);
            self.format.set(Formats::OURS.newest.into());
            return self.timers.set(1);
        };
        self.nodes.set(sample.nodes as i64);
        self.format.set(sample.format.into());
        // What is not limited is no node's part.
        for (gauge, part) in self.parts.iter().zip(&sample.parts) {
            gauge.set(part.unwrap_or(1.0));
        }
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        self.view_age.set(sample.view_age.as_secs_f64());
        self.timers.set(i64::from(sample.keeps_time));
        self.forked.set(i64::from(sample.is_forked));
        raise(&self.followed, sample.records[0]);
        raise(&self.rejected, sample.records[1]);
    }
}
