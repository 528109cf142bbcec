//! Several nodes on one store. Each keeps all that is published in its own memory and follows what the others commit; who changes what first is
//! decided by the store, which takes a write only where it names the revision that is there. So nodes need not know each other: what they share is
//! the store, and two kinds of leases on it.
//!
//! - Each node has its name by a lease, so that no two of one name count, audit and use up nonces as one.
//! - One node at a time has the lease of the timers: what happens by the clock is done there. A node that was paused and still takes itself for that
//!   one changes nothing that has changed meanwhile, since its writes name older revisions.
//!
//! Each node says of itself what it is in a record of its own (`node/NAME`): which process and software, since when, which record formats it reads,
//! whether it drains, how many requests it answers, and what it is asked for of the instance's quota, and by the few callers that came to limits of their own. It is written anew three times within a lease, and when that changes. The
//! others follow it as they follow all records. A node that said nothing within two leases, or drains, is not there. From what those say that are
//! there each computes its own part of the quotas, so that all together give no more than one alone would. A caller of whom nobody speaks has an
//! even part of its quota on each.
//!
//! A node whose software reads no record format in common with one that is there does not start. What is written is the newest format that all
//! read; today there is one.
//!
//! A node that finds the store to be of another history than it has seen uses no key any more, and has no other use one, until an operator says that it
//! may be so (`history`, `accept`).
//!
//! A node that was not told of late that its view is the newest refuses to use keys: one may have been disabled elsewhere.

mod accept;
mod callers;
mod follow;
mod formats;
mod herald;
mod history;
mod member;
mod members;
mod shares;
mod view;
mod witness;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keymill_core::audit::RecordStamp;
use keymill_core::id::NodeName;
use parking_lot::Mutex;

pub(crate) use accept::{accept, finish as finish_accepting};
pub(crate) use follow::{CatchUp, Follower, Line, Owner, Told, Written};
pub(crate) use formats::check as check_formats;
pub(crate) use herald::Herald;
pub(crate) use history::{check as check_history, check_known};
pub(crate) use member::{Founding, Member, take_name};
pub(crate) use members::Members;
pub(crate) use shares::{Asked, parts_of_all};
pub(crate) use view::{AsOf, Tenure, View};
pub(crate) use witness::Witness;

use crate::audit::AuditMessage;
use crate::records::Formats;

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
    /// At this start, by an operator's word: a store that was put back is accepted as it stands.
    pub accept_history: bool,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            view: Duration::from_secs(5),
            lease: Duration::from_secs(5),
            keep_ended: Duration::from_secs(30 * 86_400),
            accept_history: false,
        }
    }
}

/// Leases within which a node says something, or is not there.
const PATIENCE: u32 = 2;

/// What an engine has of its cluster.
pub(crate) struct Cluster {
    pub(crate) node: NodeName,
    /// Whose the leases are: this process, and no other of the same name.
    pub(crate) process: String,
    pub(crate) config: ClusterConfig,
    pub(crate) view: View,
    pub(crate) tenure: Tenure,
    pub(crate) history: history::History,
    /// The other nodes.
    pub(crate) members: Members,
    /// What the others were told that this node is asked for.
    pub(crate) asked: Mutex<Asked>,
    drains: AtomicBool,
    /// The node ends while the store is away: nothing is asked of it any more.
    gives_up: AtomicBool,
    /// Wakes the thread that tells the others.
    waker: (flume::Sender<()>, flume::Receiver<()>),
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
            history: history::History::default(),
            members: Members::new(config.lease * PATIENCE, as_of.at()),
            asked: Mutex::default(),
            drains: AtomicBool::new(false),
            gives_up: AtomicBool::new(false),
            waker: flume::bounded(1),
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

    /// Returns how many nodes are there, this one among them.
    pub(crate) fn nodes(&self) -> usize {
        self.members.there(|_| ()).len() + 1
    }

    /// Returns the record format to write: the newest that all nodes read that are there. So a new one is written once the last node reads it.
    pub(crate) fn writable_format(&self) -> u16 {
        formats::writable(Formats::OURS, self.members.there(|record| record.formats))
    }

    /// Returns how long a node may say nothing before it counts as gone.
    fn patience(&self) -> Duration {
        self.config.lease * PATIENCE
    }

    /// Has the others know that this node takes nothing new: they give its part of the quota, too.
    pub(crate) fn drain(&self) {
        self.drains.store(true, Ordering::Release);
        self.wake();
    }

    fn drains(&self) -> bool {
        self.drains.load(Ordering::Acquire)
    }

    /// Has nothing asked of the store any more: the node ends, and it is away.
    pub(crate) fn give_up(&self) {
        self.gives_up.store(true, Ordering::Release);
    }

    pub(crate) fn gives_up(&self) -> bool {
        self.gives_up.load(Ordering::Acquire)
    }

    /// Has this node's part in quotas looked at now.
    pub(crate) fn wake(&self) {
        let _is_woken = self.waker.0.try_send(());
    }

    /// Waits so long, or until it is woken.
    fn wait(&self, time: Duration) {
        let _in_time = self.waker.1.recv_timeout(time);
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
