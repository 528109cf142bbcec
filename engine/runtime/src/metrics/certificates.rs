//! Series on certificates: when the first of them ends, how many end soon, and what authorities could not do.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};

use super::Maker;

/// Days ahead that certificates are counted that end.
pub(crate) const WITHIN_DAYS: [u64; 3] = [7, 30, 90];

/// What is counted as it happens.
pub(crate) struct CertificateSeries {
    /// Tries of renewals that failed.
    pub(crate) failed_renewals: IntCounter,
    /// Lists of what was revoked that could not be made.
    pub(crate) failed_lists: IntCounter,
    managed: IntGauge,
    first_end: IntGauge,
    ended: IntGauge,
    ending: [IntGauge; 3],
    failing: IntGauge,
    authorities: IntGauge,
}

/// A look at the certificates.
#[derive(Clone, Debug, Default)]
pub struct CertificateSample {
    /// Certificates.
    pub managed: usize,
    /// When the first of those in use ends that has not ended, in seconds since 1970; 0 where there is none.
    pub first_end_s: u64,
    /// How many of those in use have ended.
    pub ended: usize,
    /// How many of those in use end within 7, 30 and 90 days.
    pub ending: [usize; 3],
    /// Certificates whose renewal failed and is not made yet.
    pub failing: usize,
    /// Authorities.
    pub authorities: usize,
}

impl CertificateSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        let ending =
            Opts::new("keymill_certificates_expiring", "Certificates in use that end within so many days.");
        let ending = make.keep(IntGaugeVec::new(ending, &["days"]).expect("the name is valid"));
        Self {
            failed_renewals: make.counter(
                "keymill_certificate_renewal_failures_total",
                "Tries to renew certificates of authorities here ahead of their ends that failed; they are tried again.",
            ),
            failed_lists: make.counter(
                "keymill_revocation_list_failures_total",
                "Lists of revoked certificates that could not be made when they were due; they are tried again.",
            ),
            managed: make.gauge("keymill_certificates", "Certificates that are managed here."),
            first_end: make.gauge(
                "keymill_certificate_earliest_expiry_timestamp_seconds",
                "When the first of the certificates in use ends that has not ended, in seconds since 1970; 0 where there is none.",
            ),
            ended: make.gauge(
                "keymill_certificates_expired",
                "Certificates in use that have ended: renew them, or set them INACTIVE.",
            ),
            ending: WITHIN_DAYS.map(|days| ending.with_label_values(&[&*days.to_string()])),
            failing: make.gauge(
                "keymill_certificates_failing_renewal",
                "Certificates whose renewal failed and is tried again: they end unless it is made.",
            ),
            authorities: make.gauge("keymill_certificate_authorities", "Certificate authorities."),
        }
    }

    pub(super) fn set(&self, sample: &CertificateSample) {
        self.managed.set(sample.managed as i64);
        self.first_end.set(sample.first_end_s as i64);
        self.ended.set(sample.ended as i64);
        for (gauge, count) in self.ending.iter().zip(sample.ending) {
            gauge.set(count as i64);
        }
        self.failing.set(sample.failing as i64);
        self.authorities.set(sample.authorities as i64);
    }
}
