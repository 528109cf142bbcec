//! What Prometheus sees of the tokens.

use keymill_core::seam::provider::FailureCode;
use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts};

use super::Maker;
use crate::pool::token::NO_CODE;
use crate::pool::{TokenReport, TokenState};

/// How look-ups of loaded keys end.
const LOOKUPS: [&str; 2] = ["hit", "miss"];

/// The series of each token, by the name that the configuration gives it.
pub(super) struct TokenSeries {
    state: IntGaugeVec,
    sessions: IntGaugeVec,
    at_work: IntGaugeVec,
    oldest: GaugeVec,
    generation: IntGaugeVec,
    hung: IntGaugeVec,
    loaded: IntGaugeVec,
    item_seconds: GaugeVec,
    failures: IntCounterVec,
    lost: IntCounterVec,
    items: IntCounterVec,
    lookups: IntCounterVec,
    /// The names of those that are told of.
    told: Mutex<Vec<String>>,
}

impl TokenSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            make.keep(IntGaugeVec::new(Opts::new(name, help), labels).expect("the name is valid"))
        };
        let reals = |name: &str, help: &str| {
            make.keep(GaugeVec::new(Opts::new(name, help), &["token"]).expect("the name is valid"))
        };
        Self {
            state: gauges(
                "keymill_hsm_token_state",
                "1 for the state that the token is in: up, out (being tried), drained, refused (an operator has to act).",
                &["token", "state"],
            ),
            sessions: gauges("keymill_hsm_sessions", "Sessions of the token that are open.", &["token"]),
            at_work: gauges(
                "keymill_hsm_sessions_at_work",
                "Sessions of the token that take work; the others rest.",
                &["token"],
            ),
            oldest: reals(
                "keymill_hsm_oldest_session_age_seconds",
                "Seconds since the oldest open session of the token was opened; 0 where none is.",
            ),
            generation: gauges(
                "keymill_hsm_token_generation",
                "How often the token was connected: sessions and loaded keys of before are gone.",
                &["token"],
            ),
            hung: gauges("keymill_hsm_hung_calls", "Calls into the module that do not return.", &["token"]),
            loaded: gauges("keymill_hsm_loaded_keys", "Keys loaded in the token.", &["token"]),
            item_seconds: reals(
                "keymill_hsm_item_seconds",
                "Seconds that one item takes in the token, of late.",
            ),
            failures: make.counters(
                "keymill_hsm_failures_total",
                "Failures of the token, by the code that it returned; other: a code without a name, none: no code, as of a crash or a hang.",
                &["token", "code"],
            ),
            lost: make.counters("keymill_hsm_sessions_lost_total", "Sessions that were lost.", &["token"]),
            items: make.counters("keymill_hsm_items_total", "Items done in the token.", &["token"]),
            lookups: make.counters(
                "keymill_hsm_key_lookups_total",
                "Look-ups of loaded keys: a miss is unwrapped.",
                &["token", "result"],
            ),
            told: Mutex::default(),
        }
    }

    /// Tells what these are like; one that is no part of the pool any more is told of no longer.
    pub(super) fn set(&self, reports: &[TokenReport]) {
        let mut told = self.told.lock();
        let is_gone = |name: &String| reports.iter().all(|report| report.name != *name);
        told.extract_if(.., |name| is_gone(name)).for_each(|name| self.remove(&name));
        for report in reports {
            self.set_one(report);
            if !told.contains(&report.name) {
                told.push(report.name.clone());
            }
        }
    }

    fn remove(&self, name: &str) {
        let gauges = [&self.sessions, &self.at_work, &self.generation, &self.hung, &self.loaded];
        let of_failures = (0..FailureCode::COUNT).filter_map(FailureCode::from_index).map(FailureCode::name);
        // A series that there is not is none to be removed.
        for gauge in gauges {
            let _absent = gauge.remove_label_values(&[name]);
        }
        for gauge in [&self.oldest, &self.item_seconds] {
            let _absent = gauge.remove_label_values(&[name]);
        }
        for counter in [&self.lost, &self.items] {
            let _absent = counter.remove_label_values(&[name]);
        }
        for state in TokenState::ALL {
            let _absent = self.state.remove_label_values(&[name, state.name()]);
        }
        for code in of_failures.chain([NO_CODE]) {
            let _absent = self.failures.remove_label_values(&[name, code]);
        }
        for result in LOOKUPS {
            let _absent = self.lookups.remove_label_values(&[name, result]);
        }
    }

    fn set_one(&self, report: &TokenReport) {
        let name = report.name.as_str();
        for state in TokenState::ALL {
            let is = i64::from(report.state == state);
            self.state.with_label_values(&[name, state.name()]).set(is);
        }
        self.sessions.with_label_values(&[name]).set(report.sessions as i64);
        self.at_work.with_label_values(&[name]).set(report.sessions_at_work as i64);
        let oldest = report.oldest_session.unwrap_or_default();
        self.oldest.with_label_values(&[name]).set(oldest.as_secs_f64());
        self.generation.with_label_values(&[name]).set(report.generation as i64);
        self.hung.with_label_values(&[name]).set(report.hung as i64);
        self.loaded.with_label_values(&[name]).set(report.keys_loaded as i64);
        self.item_seconds.with_label_values(&[name]).set(report.item_ns as f64 / 1e9);
        let raise = |counter: IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(self.lost.with_label_values(&[name]), report.sessions_lost);
        raise(self.items.with_label_values(&[name]), report.items);
        for (code, count) in &report.failures {
            raise(self.failures.with_label_values(&[name, code]), *count);
        }
        for (result, count) in LOOKUPS.into_iter().zip(report.key_lookups) {
            raise(self.lookups.with_label_values(&[name, result]), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Metrics, Sample};
    use super::*;

    fn report() -> TokenReport {
        TokenReport {
            name: "hsm-1".into(),
            state: TokenState::Up,
            reason: Some("token hsm-1: C_Encrypt returned CKR_DEVICE_ERROR (0x30)".into()),
            sessions: 8,
            sessions_at_work: 2,
            oldest_session: Some(Duration::from_millis(1_500)),
            generation: 3,
            sessions_wanted: 8,
            hung: 1,
            failures: vec![("other", 1), ("CKR_DEVICE_ERROR", 4), ("none", 2)],
            sessions_lost: 5,
            items: 1_000,
            keys_loaded: 10,
            key_lookups: [90, 10],
            item_ns: 250_000,
        }
    }

    #[test]
    fn every_series_of_a_token_tells_what_its_report_says() {
        let metrics = Metrics::default();
        let text = metrics.expose(Sample { tokens: vec![report()], ..Sample::default() });
        for line in [
            "keymill_hsm_token_state{state=\"up\",token=\"hsm-1\"} 1",
            "keymill_hsm_token_state{state=\"out\",token=\"hsm-1\"} 0",
            "keymill_hsm_token_state{state=\"drained\",token=\"hsm-1\"} 0",
            "keymill_hsm_token_state{state=\"refused\",token=\"hsm-1\"} 0",
            "keymill_hsm_sessions{token=\"hsm-1\"} 8",
            "keymill_hsm_sessions_at_work{token=\"hsm-1\"} 2",
            "keymill_hsm_oldest_session_age_seconds{token=\"hsm-1\"} 1.5",
            "keymill_hsm_token_generation{token=\"hsm-1\"} 3",
            "keymill_hsm_hung_calls{token=\"hsm-1\"} 1",
            "keymill_hsm_failures_total{code=\"CKR_DEVICE_ERROR\",token=\"hsm-1\"} 4",
            "keymill_hsm_failures_total{code=\"other\",token=\"hsm-1\"} 1",
            "keymill_hsm_failures_total{code=\"none\",token=\"hsm-1\"} 2",
            "keymill_hsm_sessions_lost_total{token=\"hsm-1\"} 5",
            "keymill_hsm_items_total{token=\"hsm-1\"} 1000",
            "keymill_hsm_loaded_keys{token=\"hsm-1\"} 10",
            "keymill_hsm_key_lookups_total{result=\"hit\",token=\"hsm-1\"} 90",
            "keymill_hsm_key_lookups_total{result=\"miss\",token=\"hsm-1\"} 10",
            "keymill_hsm_item_seconds{token=\"hsm-1\"} 0.00025",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("C_Encrypt"), "what went wrong is for the log and the status");
    }

    #[test]
    fn a_token_that_leaves_the_pool_is_told_of_no_longer_and_goes_on_where_it_was_when_it_is_back() {
        let metrics = Metrics::default();
        let other = || TokenReport { name: "hsm-2".into(), ..report() };
        metrics.expose(Sample { tokens: vec![report(), other()], ..Sample::default() });
        let text = metrics.expose(Sample { tokens: vec![other()], ..Sample::default() });
        assert!(!text.contains("hsm-1") && text.contains("hsm-2"), "{text}");
        let text = metrics.expose(Sample { tokens: vec![report(), other()], ..Sample::default() });
        assert!(text.contains("keymill_hsm_items_total{token=\"hsm-1\"} 1000"), "{text}");
    }

    #[test]
    fn counters_follow_the_reports_and_gauges_fall_with_them() {
        let metrics = Metrics::default();
        let expose = |report| metrics.expose(Sample { tokens: vec![report], ..Sample::default() });
        expose(report());
        let text = expose(TokenReport {
            state: TokenState::Out,
            sessions: 0,
            sessions_at_work: 0,
            oldest_session: None,
            failures: vec![("CKR_DEVICE_ERROR", 6)],
            ..report()
        });
        for line in [
            "keymill_hsm_token_state{state=\"up\",token=\"hsm-1\"} 0",
            "keymill_hsm_token_state{state=\"out\",token=\"hsm-1\"} 1",
            "keymill_hsm_sessions{token=\"hsm-1\"} 0",
            "keymill_hsm_oldest_session_age_seconds{token=\"hsm-1\"} 0",
            "keymill_hsm_failures_total{code=\"CKR_DEVICE_ERROR\",token=\"hsm-1\"} 6",
            "keymill_hsm_failures_total{code=\"other\",token=\"hsm-1\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
