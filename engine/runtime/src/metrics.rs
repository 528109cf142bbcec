//! What Prometheus sees. Names and units as its conventions have them; every label is a closed set, so the number of series is
//! bounded; most are there from the start. Counters are bumped in place; each desk keeps its histograms to itself until the end of a slice.

mod acme;
mod beside;
mod certificates;
mod cluster;
mod desk;
mod tls;
mod token;

use std::time::{Duration, Instant};

use crate::config::EngineConfig;
use crate::pool::TokenReport;
use keymill_core::error::{ErrorClass, ErrorKind};
use keymill_core::id::InstanceId;
use keymill_core::key::Fallback;
use keymill_core::operation::Operation;
use keymill_core::seam::audit::Beside;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

pub(crate) use acme::AcmeSeries;
use beside::BesideSeries;
pub use certificates::CertificateSample;
pub(crate) use certificates::{CertificateSeries, WITHIN_DAYS};
pub use cluster::ClusterSample;
use cluster::ClusterSeries;
pub(crate) use desk::DeskMetrics;
pub use tls::{Handshake, TlsSeries};
use token::TokenSeries;

const OUTCOMES: [&str; 12] = [
    "ok",
    "invalid",
    "unauthenticated",
    "denied",
    "not_found",
    "exists",
    "state",
    "unsupported",
    "busy",
    "unavailable",
    "deadline",
    "internal",
];

/// Seconds, from software AES to a request at its deadline.
const SECONDS: [f64; 17] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0,
];

fn outcome(kind: Option<ErrorKind>) -> usize {
    match kind.map(ErrorKind::class) {
        None => 0,
        Some(ErrorClass::Invalid) => 1,
        Some(ErrorClass::Unauthenticated) => 2,
        Some(ErrorClass::Denied) => 3,
        Some(ErrorClass::NotFound) => 4,
        Some(ErrorClass::Exists) => 5,
        Some(ErrorClass::State) => 6,
        Some(ErrorClass::Unsupported) => 7,
        Some(ErrorClass::Busy) => 8,
        Some(ErrorClass::Unavailable) => 9,
        Some(ErrorClass::Deadline) => 10,
        Some(ErrorClass::Internal) => 11,
    }
}

/// Operations and the row for what is none of ours.
fn row(operation: Option<Operation>) -> usize {
    operation.map_or(Operation::ALL.len(), |operation| operation as usize)
}

/// All series of one engine.
pub struct Metrics {
    registry: Registry,
    requests: Vec<[IntCounter; OUTCOMES.len()]>,
    durations: Vec<Histogram>,
    items_ok: IntCounter,
    items_failed: IntCounter,
    stages: [Histogram; 3],
    batch_items: Histogram,
    /// Done by software copies of HSM keys: while the HSM was unavailable, and while its queue was full.
    fallback_items: [IntCounter; 2],
    authentication_failures: IntCounterVec,
    /// Times that a place was kept out.
    pub(crate) login_lockouts: IntCounter,
    /// What became of work that was over its quota.
    pub(crate) over_quota: OverQuotaSeries,
    /// Uses of keys that wait for their deletion, all of them refused.
    pub(crate) pending_uses: IntCounter,
    /// How rotations of secrets ended, by the kind of rotator.
    pub(crate) rotations: IntCounterVec,
    /// Certificates, and what authorities could not do.
    pub(crate) certificates: CertificateSeries,
    /// ACME.
    pub(crate) acme: AcmeSeries,
    /// Connections, by frontend.
    pub connections: IntGaugeVec,
    /// The TLS of the listeners.
    pub tls: TlsSeries,
    /// Requests taken and not yet answered.
    pub in_flight: IntGauge,
    /// Bytes of requests and answers that were moved in memory, beside what the kernel copies and the cipher writes.
    pub moved_bytes: IntCounter,
    sampled: Sampled,
    rate: Mutex<RateSample>,
}

/// Requests as they were counted when the rate of them was last asked for.
#[derive(Clone, Copy, Default)]
struct RateSample {
    at_ms: u64,
    requests: u64,
    per_second: u64,
}

/// What became of work that was over its quota, of the instance.
#[derive(Clone)]
pub(crate) struct OverQuotaSeries {
    /// Requests let in, since nothing waited.
    pub(crate) admitted: IntCounter,
    /// Requests refused, since something did.
    pub(crate) refused: IntCounter,
    /// Requests, and parts of them, taken out of a full queue for the sake of others.
    pub(crate) shed: IntCounter,
}

/// What software stands in for an HSM for.
const FALLBACKS: [Fallback; 2] = [Fallback::Unavailable, Fallback::Saturated];

/// Gauges that are set when they are looked at.
struct Sampled {
    queue_depth: IntGauge,
    pool_saturation: Gauge,
    lane_depth: IntGauge,
    buffered: IntGauge,
    keys: IntGauge,
    failing_rotations: IntGauge,
    waiting: IntGauge,
    quarantined: IntGauge,
    kept_out: IntGauge,
    subkeys: IntGauge,
    subkey_lookups: [IntCounter; 2],
    subkey_evictions: IntCounter,
    audit_records: IntCounter,
    audit_bytes: IntCounter,
    audit_failures: IntCounter,
    audit_beside: BesideSeries,
    cluster: ClusterSeries,
    audit_rotated: IntCounter,
    audit_retired: IntCounter,
    audit_healthy: IntGauge,
    store_healthy: IntGauge,
    hsm_lane: IntGauge,
    software_lane: IntGauge,
    token: TokenSeries,
}

/// A look at the engine, for the gauges.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Jobs that wait on arbiters.
    pub queue_depth: usize,
    /// Jobs that may wait on arbiters.
    pub queue_limit: usize,
    /// Jobs that wait in the software lane.
    pub lane_depth: usize,
    /// Bytes of requests and answers held.
    pub buffered: usize,
    /// CMKs.
    pub keys: usize,
    /// Records that failed their check.
    pub quarantined: usize,
    /// Secrets whose rotation was tried in vain.
    pub failing_rotations: usize,
    /// Certificates.
    pub certificates: CertificateSample,
    /// Accounts and orders of ACME.
    pub acme: (usize, usize),
    /// Requests that wait for a second caller.
    pub waiting: usize,
    /// Places that failed to log in too often and are kept out.
    pub kept_out: usize,
    /// Subkeys kept for opening.
    pub subkeys: usize,
    /// Hits, misses and evictions of that cache.
    pub subkey_counts: [u64; 3],
    /// Audit records, bytes and failures; files that were followed by others, and that were removed.
    pub audit_counts: [u64; 5],
    /// How this node stands to others, where it is one of several.
    pub cluster: Option<ClusterSample>,
    /// The place that audit lines are sent to beside the log, where there is one.
    pub audit_beside: Option<Beside>,
    /// Whether the audit log can be written.
    pub audit_healthy: bool,
    /// Whether the store takes writes.
    pub store_healthy: bool,
    /// Chunks that wait for a session of a token.
    pub hsm_lane_depth: usize,
    /// Chunks that wait for a thread of the software lane.
    pub software_lane_depth: usize,
    /// How each token is.
    pub tokens: Vec<TokenReport>,
}

struct Maker<'r>(&'r Registry);

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect("every name is registered once");
        collector
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help).expect("the name is valid"))
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help).expect("the name is valid"))
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid"))
    }
    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, labels).expect("the name is valid"))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::of(&EngineConfig::default().instance, false)
    }
}

impl Metrics {
    /// Makes the series of an engine; each of an instance of Dedicated KMS names it.
    pub(crate) fn of(instance: &InstanceId, is_dedicated: bool) -> Self {
        let labels = is_dedicated.then(|| [("instance".to_owned(), instance.to_string())].into());
        let registry = Registry::new_custom(None, labels).expect("no prefix is a good one");
        let make = Maker(&registry);
        let names = || Operation::ALL.iter().map(|operation| operation.name()).chain(["unknown"]);
        let requests = make.counters(
            "keymill_requests_total",
            "Requests answered, by operation and outcome.",
            &["op", "outcome"],
        );
        let durations = make.histograms(
            "keymill_request_duration_seconds",
            "Seconds from the last byte of a request to its answer, by operation.",
            &SECONDS,
            &["op"],
        );
        let items = make.counters("keymill_items_total", "Items of data requests, by outcome.", &["outcome"]);
        let stages = make.histograms(
            "keymill_stage_duration_seconds",
            "Seconds that work spends waiting (queue), being computed a slice at a time (crypto), and being encoded (encode).",
            &SECONDS,
            &["stage"],
        );
        let batch = make.histograms(
            "keymill_batch_items",
            "Items that were computed in one go under one key version.",
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0],
            &[],
        );
        let lookups =
            make.counters("keymill_subkey_lookups_total", "Look-ups of subkeys for opening.", &["result"]);
        let build = make.keep(
            IntGaugeVec::new(Opts::new("keymill_build_info", "The version that runs."), &["version"])
                .expect("the name is valid"),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let sampled = Sampled {
            queue_depth: make.gauge("keymill_queue_jobs", "Jobs that wait for their turn on the arbiters."),
            pool_saturation: make.keep(
                Gauge::new(
                    "keymill_pool_saturation_ratio",
                    "Jobs that wait in the software pool, as a share of what may wait.",
                )
                .expect("the name is valid"),
            ),
            lane_depth: make.gauge("keymill_lane_jobs", "Keys that wait to be made."),
            buffered: make.gauge("keymill_buffered_bytes", "Bytes of requests and answers held."),
            keys: make.gauge("keymill_keys", "Customer master keys."),
            failing_rotations: make.gauge(
                "keymill_secrets_failing_rotation",
                "Secrets whose rotation was tried in vain and is tried again: their current values stay.",
            ),
            waiting: make.gauge(
                "keymill_approvals_waiting",
                "Requests that wait for a second caller to approve them.",
            ),
            quarantined: make.gauge(
                "keymill_quarantined_records",
                "Stored records that failed their check and are refused.",
            ),
            kept_out: make.gauge(
                "keymill_login_sources_throttled",
                "Sources (an IPv4 address, or a /64 of IPv6) of which logins are refused for now: too many failed.",
            ),
            subkeys: make.gauge("keymill_subkey_cache_entries", "Subkeys kept for opening."),
            subkey_lookups: ["hit", "miss"].map(|result| lookups.with_label_values(&[result])),
            subkey_evictions: make
                .counter("keymill_subkey_evictions_total", "Subkeys dropped from the cache for opening."),
            audit_records: make.counter("keymill_audit_records_total", "Audit records written."),
            audit_bytes: make.counter("keymill_audit_bytes_total", "Bytes of audit log written."),
            audit_failures: make
                .counter("keymill_audit_failures_total", "Writes that the audit log refused."),
            audit_beside: BesideSeries::make(&make),
            cluster: ClusterSeries::make(&make),
            audit_rotated: make.counter(
                "keymill_audit_files_rotated_total",
                "Audit files that were followed by another, by size or age.",
            ),
            audit_retired: make.counter(
                "keymill_audit_files_retired_total",
                "Audit files that were removed, their time being over.",
            ),
            audit_healthy: make.gauge(
                "keymill_audit_healthy",
                "1 while the audit log can be written, else 0: requests are refused.",
            ),
            store_healthy: make.gauge("keymill_store_healthy", "1 while the store takes writes, else 0."),
            hsm_lane: make.gauge("keymill_hsm_lane_chunks", "Chunks that wait for a session of a token."),
            software_lane: make.gauge(
                "keymill_software_lane_chunks",
                "Chunks of private-key work, and of AES-GCM and SM4-GCM under software keys, that wait for a thread.",
            ),
            token: TokenSeries::make(&make),
        };
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("every name is registered once");
        Self {
            requests: names()
                .map(|op| OUTCOMES.map(|outcome| requests.with_label_values(&[op, outcome])))
                .collect(),
            durations: names().map(|op| durations.with_label_values(&[op])).collect(),
            items_ok: items.with_label_values(&["ok"]),
            items_failed: items.with_label_values(&["failed"]),
            stages: ["queue", "crypto", "encode"].map(|stage| stages.with_label_values(&[stage])),
            batch_items: batch.with_label_values::<&str>(&[]),
            fallback_items: {
                let items = make.counters(
                    "keymill_fallback_items_total",
                    "Items and subkeys under HSM keys that their software copies did, by what kept the HSM from it.",
                    &["reason"],
                );
                FALLBACKS.map(|reason| items.with_label_values(&[reason.name()]))
            },
            pending_uses: make.counter(
                "keymill_pending_deletion_uses_total",
                "Requests that would have used a key that waits for its deletion: somebody still needs it.",
            ),
            authentication_failures: {
                let failures = make.counters(
                    "keymill_authentication_failures_total",
                    "Callers who were not let in, by reason.",
                    &["reason"],
                );
                for reason in ["unknown", "inactive", "signature", "time", "nonce", "throttled", "form"] {
                    failures.with_label_values(&[reason]);
                }
                failures
            },
            login_lockouts: make.counter(
                "keymill_login_throttles_total",
                "Times that a source was throttled since too many of its logins failed: somebody guesses, or has an old key.",
            ),
            over_quota: {
                let work = make.counters(
                    "keymill_over_quota_total",
                    "Work over its quota: requests admitted since nothing waited, requests refused, and requests or chunks of them shed from a full queue.",
                    // Of an instance of Dedicated KMS, every series names it.
                    if is_dedicated { &["outcome"][..] } else { &["instance", "outcome"] },
                );
                let of = |outcome| match is_dedicated {
                    true => work.with_label_values(&[outcome]),
                    false => work.with_label_values(&[instance.as_str(), outcome]),
                };
                OverQuotaSeries { admitted: of("admitted"), refused: of("refused"), shed: of("shed") }
            },
            rotations: make.counters(
                "keymill_secret_rotations_total",
                "Rotations of secrets, by the kind of rotator: rotated to a new current version, and tries that failed.",
                &["kind", "outcome"],
            ),
            certificates: CertificateSeries::make(&make),
            acme: AcmeSeries::make(&make),
            connections: {
                let connections = make.keep(
                    IntGaugeVec::new(Opts::new("keymill_connections", "Open connections."), &["frontend"])
                        .expect("the name is valid"),
                );
                for frontend in ["msgpack", "http"] {
                    connections.with_label_values(&[frontend]);
                }
                connections
            },
            tls: TlsSeries::make(&make),
            moved_bytes: make.counter(
                "keymill_moved_bytes_total",
                "Bytes of requests and answers moved in memory, beside what the kernel copies and the cipher writes.",
            ),
            in_flight: make.gauge("keymill_requests_in_flight", "Requests taken and not yet answered."),
            sampled,
            rate: Mutex::default(),
            registry,
        }
    }
}

impl Metrics {
    /// Counts an answered request that no desk saw.
    pub(crate) fn answered(&self, operation: Option<Operation>, kind: Option<ErrorKind>, received: Instant) {
        self.requests[row(operation)][outcome(kind)].inc();
        self.durations[row(operation)].observe(received.elapsed().as_secs_f64());
    }

    /// Returns requests a second, since that was last asked for; within a second of that, the same is told. `now_ms` is steady time.
    pub(crate) fn requests_a_second(&self, now_ms: u64) -> u64 {
        let requests = self.requests.iter().flatten().map(IntCounter::get).sum::<u64>();
        let mut sample = self.rate.lock();
        let passed = now_ms.saturating_sub(sample.at_ms);
        if passed >= 1_000 {
            let per_second = requests.saturating_sub(sample.requests) * 1_000 / passed;
            *sample = RateSample { at_ms: now_ms, requests, per_second };
        }
        sample.per_second
    }

    /// Counts items that software did for an HSM.
    pub(crate) fn fell_back(&self, reason: Fallback, items: usize) {
        let of_reason = FALLBACKS.iter().zip(&self.fallback_items).filter(|(other, _)| **other == reason);
        of_reason.for_each(|(_, counter)| counter.inc_by(items as u64));
    }

    /// Counts a caller who was not let in.
    pub fn authentication_failed(&self, kind: ErrorKind) {
        let reason = match kind {
            ErrorKind::AccessKeyUnknown => "unknown",
            ErrorKind::AccessKeyInactive => "inactive",
            ErrorKind::SignatureMismatch => "signature",
            ErrorKind::TimestampExpired | ErrorKind::TimestampInvalid => "time",
            ErrorKind::NonceUsed => "nonce",
            ErrorKind::LoginThrottled => "throttled",
            _ => "form",
        };
        self.authentication_failures.with_label_values(&[reason]).inc();
    }

    /// Records how long an answer took to encode.
    pub fn encoded(&self, took: Duration) {
        self.stages[2].observe(took.as_secs_f64());
    }

    /// Writes the exposition text (format 0.0.4) with the gauges as `sample` has them.
    pub(crate) fn expose(&self, sample: Sample) -> String {
        let s = &self.sampled;
        s.queue_depth.set(sample.queue_depth as i64);
        s.pool_saturation.set(sample.queue_depth as f64 / sample.queue_limit.max(1) as f64);
        s.lane_depth.set(sample.lane_depth as i64);
        s.buffered.set(sample.buffered as i64);
        s.keys.set(sample.keys as i64);
        s.failing_rotations.set(sample.failing_rotations as i64);
        self.certificates.set(&sample.certificates);
        self.acme.set(sample.acme);
        s.waiting.set(sample.waiting as i64);
        s.quarantined.set(sample.quarantined as i64);
        s.kept_out.set(sample.kept_out as i64);
        s.subkeys.set(sample.subkeys as i64);
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&s.subkey_lookups[0], sample.subkey_counts[0]);
        raise(&s.subkey_lookups[1], sample.subkey_counts[1]);
        raise(&s.subkey_evictions, sample.subkey_counts[2]);
        raise(&s.audit_records, sample.audit_counts[0]);
        raise(&s.audit_bytes, sample.audit_counts[1]);
        raise(&s.audit_failures, sample.audit_counts[2]);
        raise(&s.audit_rotated, sample.audit_counts[3]);
        s.audit_beside.set(sample.audit_beside.as_ref());
        s.cluster.set(sample.cluster.as_ref());
        raise(&s.audit_retired, sample.audit_counts[4]);
        s.audit_healthy.set(i64::from(sample.audit_healthy));
        s.store_healthy.set(i64::from(sample.store_healthy));
        s.hsm_lane.set(sample.hsm_lane_depth as i64);
        s.software_lane.set(sample.software_lane_depth as i64);
        s.token.set(&sample.tokens);
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("what was gathered is well formed")
    }
}
