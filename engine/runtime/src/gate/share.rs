//! Shares and throttles at the gate: what is over a quota is let in while nothing waits, and who fails to log in too often is kept out.

use std::net::IpAddr;

use keymill_core::error::{Error, ErrorKind, Result};

use super::Gate;
use crate::quota::OverQuota;
use crate::work::Job;

impl Gate {
    /// Takes what a job asks for of its caller's quota and of the instance's.
    fn take_share(&self, job: &Job) -> Option<OverQuota> {
        let shared = &self.0.shared;
        if !shared.quotas.are_any() {
            return None;
        }
        let now = shared.clock.steady_ns_at(|| job.call.received);
        shared.quotas.take(&job.call.principal.caller(), job.taken(), now)
    }

    /// Has a data request counted. One that is over its quota is marked so, or refused where the lane that it is for is not idle; its arbiter
    /// does the same for its own queue.
    pub(super) fn share_data(&self, job: &mut Job) {
        let Some(over) = self.take_share(job) else { return };
        let shared = &self.0.shared;
        let waiting = job.lane(shared).map_or(0, |lane| lane.len());
        if waiting < shared.config.quota.idle_jobs {
            job.over_quota = Some(over);
        } else {
            shared.metrics.over_quota.refused.inc();
            job.refuse(over.error());
        }
    }

    /// Has a management request counted.
    ///
    /// # Errors
    /// `OverQuota` where it is over its quota and others wait to have keys made.
    pub(super) fn share_managed(&self, job: &Job) -> Result<()> {
        let Some(over) = self.take_share(job) else { return Ok(()) };
        let shared = &self.0.shared;
        let waiting = self.0.actors.lane_len() + shared.pool.control.len();
        if waiting < shared.config.quota.idle_jobs {
            shared.metrics.over_quota.admitted.inc();
            return Ok(());
        }
        shared.metrics.over_quota.refused.inc();
        Err(over.error())
    }

    /// Has a request counted that was refused: it took its time, too.
    pub(super) fn share_refused(&self, job: &Job) {
        let _refused_anyhow = self.take_share(job);
    }

    /// Checks that a login under `id` may be tried from there, before anything of it is verified.
    ///
    /// # Errors
    /// `LoginThrottled` where too many from there failed, unless this one has logged in from there before.
    pub(super) fn check_login(&self, id: &str, source: Option<IpAddr>) -> Result<()> {
        let shared = &self.0.shared;
        let Some(source) = source else { return Ok(()) };
        match shared.logins.refused_ms(source, id, || self.steady_ms()) {
            None => Ok(()),
            Some(ms) => {
                let why = "too many logins from this address have failed: try again later";
                let ms = u32::try_from(ms).unwrap_or(u32::MAX);
                Err(Error::new(ErrorKind::LoginThrottled, why).retry_after_ms(ms))
            }
        }
    }

    /// Takes why a login failed. Whoever signs well guesses nothing, be it that the key is not taken at this time.
    pub(super) fn note_failed_login(&self, failed: ErrorKind, source: Option<IpAddr>) {
        let shared = &self.0.shared;
        let Some(source) = source else { return };
        if matches!(failed, ErrorKind::AccessKeyUnknown | ErrorKind::SignatureMismatch)
            && shared.logins.failed(source, self.steady_ms())
        {
            shared.metrics.login_lockouts.inc();
            tracing::debug!(%source, "too many logins from there failed: it is throttled");
        }
    }

    /// Takes that a login under `id` is complete: signed well, of this time, and by no replay. From now on it may be tried from there also where
    /// others are kept out.
    pub fn logged_in(&self, id: &str, source: Option<IpAddr>) {
        if let Some(source) = source {
            self.0.shared.logins.succeeded(source, id);
        }
    }

    /// Returns steady time in milliseconds.
    pub(super) fn steady_ms(&self) -> u64 {
        self.0.shared.clock.steady_ns() / 1_000_000
    }
}
