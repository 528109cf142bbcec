//! How a server is one of several on a store: on etcd and on PostgreSQL each is taken for one, since others may be there.

use std::time::Duration;

use keymill_runtime::ClusterConfig;
use serde::{Deserialize, Serialize};

use super::options::{StoreKind, ms};
use crate::failure::{Failure, Result};

/// Shorter leases would be lost by a store that is busy.
const MIN_LEASE_MS: u64 = 1_000;
/// A watch says at least once a second that it is current.
const MIN_VIEW_MS: u64 = 1_500;

/// How a server is one of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterSection {
    /// Milliseconds since the store confirmed what this server knows, past which it uses no key.
    pub(crate) view_ms: u64,
    /// Milliseconds for which its name and the timers are taken.
    pub(crate) lease_ms: u64,
    /// Seconds for which it is kept that a record ended.
    pub(crate) keep_ended_s: u64,
    /// Whether a store that was put back is accepted at this start: a word of the moment, and so no option of the file.
    #[serde(skip)]
    pub(crate) accept_history: bool,
}

impl Default for ClusterSection {
    fn default() -> Self {
        let ClusterConfig { view, lease, keep_ended, accept_history } = ClusterConfig::default();
        Self { view_ms: ms(view), lease_ms: ms(lease), keep_ended_s: keep_ended.as_secs(), accept_history }
    }
}

impl ClusterSection {
    /// Returns the engine's options; none where the store is one server's alone.
    pub(crate) fn of_store(&self, kind: StoreKind) -> Result<Option<ClusterConfig>> {
        if self.lease_ms < MIN_LEASE_MS || self.view_ms < MIN_VIEW_MS {
            return Err(Failure::new(format!(
                "cluster.lease_ms is at least {MIN_LEASE_MS}, and cluster.view_ms at least {MIN_VIEW_MS}"
            )));
        }
        let config = ClusterConfig {
            view: Duration::from_millis(self.view_ms),
            lease: Duration::from_millis(self.lease_ms),
            keep_ended: Duration::from_secs(self.keep_ended_s),
            accept_history: self.accept_history,
        };
        if self.accept_history && kind == StoreKind::Sqlite {
            let why = "--accept-history is for a store that several servers use: here what went back is quarantined by its path, and the rest \
                       is served";
            return Err(Failure::new(why));
        }
        Ok((kind != StoreKind::Sqlite).then_some(config))
    }
}
