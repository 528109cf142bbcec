//! What Prometheus sees of the TLS of the listeners. The engine knows no TLS: the listeners and the program tell it.

use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::Maker;

/// How a handshake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// There is a channel.
    Ok,
    /// What the other side sent is no TLS, or none that is spoken, or its certificate is not taken.
    Refused,
    /// The other side went away, or did not like our certificate.
    Gone,
    /// It took too long.
    Timeout,
}

impl Handshake {
    const ALL: [Self; 4] = [Self::Ok, Self::Refused, Self::Gone, Self::Timeout];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Timeout => "timeout",
        }
    }
}

/// The series of the TLS of each listener.
pub struct TlsSeries {
    handshakes: IntCounterVec,
    reloads: IntCounterVec,
    days_left: IntGaugeVec,
}

impl TlsSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        let days = Opts::new(
            "keymill_tls_certificate_expiry_days",
            "Days until the listener's certificate expires; negative ones are past.",
        );
        Self {
            handshakes: make.counters(
                "keymill_tls_handshakes_total",
                "TLS handshakes, by how they ended: ok, refused, gone (the other side), timeout.",
                &["frontend", "outcome"],
            ),
            reloads: make.counters(
                "keymill_tls_reloads_total",
                "Certificates that were read again: taken over (ok), or broken, so that those before stay in force (failed).",
                &["frontend", "outcome"],
            ),
            days_left: make.keep(IntGaugeVec::new(days, &["frontend"]).expect("the name is valid")),
        }
    }

    /// Counts a handshake.
    pub fn shaken(&self, frontend: &str, outcome: Handshake) {
        self.handshakes.with_label_values(&[frontend, outcome.label()]).inc();
    }

    /// Tells how the certificate of a listener is, and how often it was read again, with success and without.
    pub fn certificate(&self, frontend: &str, days_left: i64, reloads: [u64; 2]) {
        for outcome in Handshake::ALL {
            // There from the start, so that the first one shows as a rise.
            let _series = self.handshakes.with_label_values(&[frontend, outcome.label()]);
        }
        self.days_left.with_label_values(&[frontend]).set(days_left);
        for (outcome, count) in ["ok", "failed"].into_iter().zip(reloads) {
            let counter = self.reloads.with_label_values(&[frontend, outcome]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
