//! The slots of this process: each commit leaves a mark of its own in one, in the same transaction. So that it can be told afterwards whether
//! a commit whose answer was lost was made, and that one which was not made never will be: taking its slot away is a transaction, too.
//!
//! Slots hang on a lease of etcd, so that those of a process that has ended go away. It is long: a process that was stopped for less than that
//! finds its marks as it left them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use keymill_core::seam::store::StoreError;
use parking_lot::Mutex;

use crate::cluster::{Cluster, method};
use crate::error::Fault;
use crate::keys::Keys;
use crate::messages::{
    Empty, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest,
};

/// How long the marks of a process outlive it.
const TTL: Duration = Duration::from_secs(3600);
const RENEWAL: Duration = Duration::from_secs(300);

/// The slots of this process.
pub(crate) struct Slots {
    /// A name that no other process has.
    process: String,
    state: Mutex<State>,
    granting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    lease: Option<i64>,
    free: Vec<Slot>,
    made: u64,
    marks: u64,
}

/// Where the mark of one commit at a time is.
pub(crate) struct Slot {
    pub(crate) key: Bytes,
    /// The revision that it was last left at; zero: it is not there yet.
    pub(crate) known: i64,
    /// What it hangs on.
    pub(crate) lease: i64,
}

impl Slots {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let process = format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
        Ok(Self { process, state: Mutex::default(), granting: tokio::sync::Mutex::default() })
    }

    /// Lends a slot that nobody else has; there are as many as commits at the same time.
    pub(crate) async fn take(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        keys: &Keys,
    ) -> Result<Slot, StoreError> {
        if let Some(slot) = self.state.lock().free.pop() {
            return Ok(slot);
        }
        let lease = self.lease(cluster).await?;
        let mut state = self.state.lock();
        state.made += 1;
        Ok(Slot { key: keys.slot(&self.process, state.made), known: 0, lease })
    }

    /// Takes a slot back whose mark is known. One whose mark is not is never used again.
    pub(crate) fn give(&self, slot: Slot) {
        let mut state = self.state.lock();
        if state.lease == Some(slot.lease) {
            state.free.push(slot);
        }
    }

    /// Returns a mark that no other commit has.
    pub(crate) fn mark(&self) -> Bytes {
        let mut state = self.state.lock();
        state.marks += 1;
        format!("{}/{}", self.process, state.marks).into()
    }

    /// Forgets a lease that is gone, and the slots that hung on it.
    pub(crate) fn forget(&self, lease: i64) {
        let mut state = self.state.lock();
        if state.lease == Some(lease) {
            state.lease = None;
            state.free.clear();
        }
    }

    async fn lease(self: &Arc<Self>, cluster: &Arc<Cluster>) -> Result<i64, StoreError> {
        let _one_at_a_time = self.granting.lock().await;
        if let Some(lease) = self.state.lock().lease {
            return Ok(lease);
        }
        let id = grant(cluster, TTL).await.map_err(Fault::into_store_error)?;
        self.state.lock().lease = Some(id);
        tokio::spawn(keep_alive(Arc::downgrade(self), Arc::downgrade(cluster), id));
        Ok(id)
    }

    /// Has the marks of this process removed, since it ends.
    pub(crate) async fn end(&self, cluster: &Cluster) {
        let lease = self.state.lock().lease.take();
        if let Some(id) = lease {
            let until = cluster.patience().until;
            // Otherwise they go with their time.
            let _: Result<Empty, _> =
                cluster.ask(method::LEASE_REVOKE, LeaseRevokeRequest { id }, until).await;
        }
    }
}

/// Makes a lease of etcd. Its id is chosen here, so that asking twice makes one.
pub(crate) async fn grant(cluster: &Cluster, ttl: Duration) -> Result<i64, Fault> {
    let random = getrandom::u64()
        .map_err(|error| Fault::Refused(StoreError::Unavailable(format!("no random numbers: {error}"))))?;
    // Positive, as etcd's own are.
    let id = (random >> 1).max(1).cast_signed();
    let ttl = seconds(ttl);
    match cluster.read::<_, LeaseGrantResponse>(method::LEASE_GRANT, LeaseGrantRequest { ttl, id }).await {
        Ok(_) | Err(Fault::LeaseExists) => Ok(id),
        Err(fault) => Err(fault),
    }
}

/// Returns a time in seconds, not less; etcd takes nine billion.
pub(crate) fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).clamp(1, 9_000_000_000)
}

/// Renews a lease of etcd; false where there is none any more.
pub(crate) async fn renew(cluster: &Cluster, id: i64) -> Result<bool, Fault> {
    let mut patience = cluster.patience();
    loop {
        let answer: Result<LeaseKeepAliveResponse, _> =
            cluster.keep_alive(LeaseKeepAliveRequest { id }, patience.until).await;
        match answer {
            Ok(answer) => return Ok(answer.ttl > 0),
            Err(Fault::NoSuchLease) => return Ok(false),
            Err(fault @ (Fault::NotDone(_) | Fault::Lost(_) | Fault::LoggedOut(_))) => {
                patience.pause(cluster.members(), fault).await.map_err(Fault::Refused)?;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// Renews the lease of the slots, as long as there is somebody who commits.
async fn keep_alive(slots: Weak<Slots>, cluster: Weak<Cluster>, id: i64) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let (Some(slots), Some(cluster)) = (slots.upgrade(), cluster.upgrade()) else { return };
        if slots.state.lock().lease != Some(id) {
            return;
        }
        // Where nobody answers, there is time for many more tries.
        if let Ok(false) = renew(&cluster, id).await {
            slots.forget(id);
            return;
        }
    }
}
