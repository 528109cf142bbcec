//! What Prometheus sees of the place that audit lines are sent to beside the log.

use keymill_core::seam::audit::Beside;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts};

use super::Maker;

/// The series of the place that audit lines are sent to beside the log, by its name.
pub(super) struct BesideSeries {
    connected: IntGaugeVec,
    lines: IntGaugeVec,
    bytes: IntGaugeVec,
    sent: IntCounterVec,
    shed: IntCounterVec,
    reconnects: IntCounterVec,
}

impl BesideSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        let gauges = |name: &str, help: &str| {
            make.keep(IntGaugeVec::new(Opts::new(name, help), &["sink"]).expect("the name is valid"))
        };
        let counters = |name: &str, help: &str| {
            make.keep(IntCounterVec::new(Opts::new(name, help), &["sink"]).expect("the name is valid"))
        };
        Self {
            connected: gauges("keymill_audit_sink_connected", "1 while the sink has a connection, else 0."),
            lines: gauges("keymill_audit_sink_queue_lines", "Audit lines that wait to be sent."),
            bytes: gauges("keymill_audit_sink_queue_bytes", "Bytes of audit lines that wait to be sent."),
            sent: counters("keymill_audit_sink_sent_total", "Audit lines sent."),
            shed: counters(
                "keymill_audit_sink_dropped_total",
                "Audit lines that were not sent since the queue was full; the files have them.",
            ),
            reconnects: counters(
                "keymill_audit_sink_reconnects_total",
                "Connections that took the place of others.",
            ),
        }
    }

    pub(super) fn set(&self, beside: Option<&Beside>) {
        let Some(beside) = beside else { return };
        let of = [beside.name];
        let raise = |counter: IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        self.connected.with_label_values(&of).set(i64::from(beside.is_connected));
        self.lines.with_label_values(&of).set(beside.queued_lines as i64);
        self.bytes.with_label_values(&of).set(beside.queued_bytes as i64);
        raise(self.sent.with_label_values(&of), beside.sent);
        raise(self.shed.with_label_values(&of), beside.shed);
        raise(self.reconnects.with_label_values(&of), beside.reconnects);
    }
}
