//! Several nodes on one store. Each keeps all that is published in its own memory and follows what the others commit; who changes what first is
//! decided by the store, which takes a write only where it names the revision that is there. So nodes need not know each other: what they share is
//! the store, and two kinds of leases on it.
//!
//! - Each node has its name by a lease, so that no two of one name count, audit and use up nonces as one.
//! - One node at a time has the lease of the timers: what happens by the clock is done there. A node that was paused and still takes itself for that
//!   one changes nothing that has changed meanwhile, since its writes name older revisions.
//!
//! A node that was not told of late that its view is the newest refuses to use keys: one may have been disabled elsewhere.

mod follow;
mod member;
mod view;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keymill_core::audit::RecordStamp;
use keymill_core::id::NodeName;

pub(crate) use follow::{CatchUp, Follower, Line, Owner, Told, Written};
pub(crate) use member::{Founding, Member, take_name};
pub(crate) use view::{AsOf, Tenure, View};

use crate::audit::AuditMessage;

/// How a node is one of several.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// How long ago the store must have confirmed the view of the node for keys to be used: so long at most a key is still used on one node that
    /// another has disabled.
    pub view: Duration,
    /// For how long the name of the node and the timers are taken; both are renewed three times meanwhile.
    pub lease: Duration,
    /// How long it is kept that a record ended. A node that was away for longer takes it for lost.
    pub keep_ended: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            view: Duration::from_secs(5),
            lease: Duration::from_secs(5),
            keep_ended: Duration::from_secs(30 * 86_400),
        }
    }
}

/// What an engine has of its cluster.
pub(crate) struct Cluster {
    pub(crate) node: NodeName,
    /// Whose the leases are: this process, and no other of the same name.
    pub(crate) process: String,
    pub(crate) config: ClusterConfig,
    pub(crate) view: View,
    pub(crate) tenure: Tenure,
    lines: [Line; Owner::ALL.len()],
    audit: OnceLock<flume::Sender<AuditMessage>>,
    /// Records of other nodes that were taken over, and those that were not, since they failed their check.
    pub(crate) followed: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

impl Cluster {
    pub(crate) fn new(node: NodeName, process: String, config: ClusterConfig, as_of: AsOf) -> Self {
        Self {
            node,
            process,
            view: View::new(config.view, as_of),
            tenure: Tenure::default(),
            config,
            lines: Owner::ALL.map(|_| Line::default()),
            audit: OnceLock::new(),
            followed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    pub(crate) fn line(&self, owner: Owner) -> &Line {
        &self.lines[owner as usize]
    }

    /// Says where it is written down what the node has seen of others.
    pub(crate) fn set_audit(&self, audit: flume::Sender<AuditMessage>) {
        let _set_once = self.audit.set(audit);
    }

    /// Has the audit of this node remember what it has seen of others: so each is a witness of all.
    pub(crate) fn witness(&self, seen: Vec<RecordStamp>) {
        self.followed.fetch_add(seen.len() as u64, Ordering::Relaxed);
        if let Some(audit) = self.audit.get().filter(|_| !seen.is_empty()) {
            let _closed = audit.send(AuditMessage::Followed(seen));
        }
    }

    /// Counts a record that another may have written and that is not what it should be.
    pub(crate) fn reject(&self, path: &str, why: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            path,
            why,
            "a record that was written to the store is refused; what was known before stays in force"
        );
    }
}
