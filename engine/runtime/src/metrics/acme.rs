//! Series on ACME: what was asked for, what proofs were found, and how many accounts and orders there are.

use keymill_core::acme::ChallengeKind;
use prometheus::{IntCounterVec, IntGauge};

use super::Maker;

/// What is counted as it happens.
pub(crate) struct AcmeSeries {
    changes: IntCounterVec,
    validations: IntCounterVec,
    accounts: IntGauge,
    orders: IntGauge,
}

impl AcmeSeries {
    pub(super) fn make(make: &Maker<'_>) -> Self {
        Self {
            changes: make.counters(
                "keymill_acme_changes_total",
                "Changes of accounts and orders of ACME, and revocations, that were asked for.",
                &["change", "outcome"],
            ),
            validations: make.counters(
                "keymill_acme_validations_total",
                "Challenges of ACME that were settled, by their types.",
                &["type", "outcome"],
            ),
            accounts: make.gauge("keymill_acme_accounts", "Accounts of ACME."),
            orders: make.gauge("keymill_acme_orders", "Orders of ACME that are kept."),
        }
    }

    /// Counts a change that was asked for: its name is one of ours.
    pub(crate) fn changed(&self, change: &'static str, is_done: bool) {
        self.changes.with_label_values(&[change, if is_done { "done" } else { "refused" }]).inc();
    }

    /// Counts a challenge that was settled.
    pub(crate) fn validated(&self, kind: ChallengeKind, is_found: bool) {
        self.validations.with_label_values(&[kind.name(), if is_found { "valid" } else { "invalid" }]).inc();
    }

    pub(super) fn set(&self, (accounts, orders): (usize, usize)) {
        self.accounts.set(accounts as i64);
        self.orders.set(orders as i64);
    }
}
