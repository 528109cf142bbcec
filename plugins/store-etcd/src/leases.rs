//! Leases of the seam: a key that hangs on a lease of etcd, so that the cluster's clock ends it and nobody's else. The fence is the revision
//! that made the key: it stays while the key is renewed, and grows when it has gone and comes again.
//!
//! etcd counts in seconds, two at least, and begins anew when its leader changes: a lease lasts as long as was asked for or longer, never less.
//! So whoever counts from before it asked gives up before another can begin.

use std::time::Duration;

use bytes::Bytes;
use keymill_core::seam::store::{Lease, StoreError};
use tokio::time::timeout;

use crate::cluster::{Cluster, method};
use crate::error::Fault;
use crate::messages::{
    Compare, Empty, KeyValue, LeaseRevokeRequest, Op, PutRequest, TxnRequest, TxnResponse,
};
use crate::reads::{key, revision};
use crate::slots::{grant, renew, seconds};

/// Times that a lease may run out, or be taken, between two steps.
const TRIES: usize = 4;

/// Takes or renews a lease.
pub(crate) async fn ask(
    cluster: &Cluster,
    name: &Bytes,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    // What was begun ends by itself: a lease of etcd on which nothing hangs, or a key of this holder.
    match timeout(cluster.timeout(), ask_in_time(cluster, name, holder, ttl)).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable("the lease was not given in time".into())),
    }
}

async fn ask_in_time(
    cluster: &Cluster,
    name: &Bytes,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    // The time comes first: another one needs another lease of etcd.
    let wanted = Bytes::from(format!("{} {holder}", seconds(ttl)));
    let mut last = None;
    for _ in 0..TRIES {
        let held = key(cluster, name.clone()).await.map_err(Fault::into_store_error)?;
        let step = match &held {
            Some(held) if holder_of(&held.value) != Some(holder.as_bytes()) => return Ok(None),
            Some(held) if held.value == wanted => renew(cluster, held.lease).await,
            held => put(cluster, name, held.as_ref(), &wanted, ttl).await,
        };
        match (step, held) {
            (Ok(true), Some(held)) => return Ok(Some(lease(&held))),
            // Read again at which revision it is; and whether it was given, where the answer was lost.
            (Ok(_), _) => {}
            (Err(fault @ (Fault::NotDone(_) | Fault::Lost(_) | Fault::LoggedOut(_))), _) => {
                last = Some(fault)
            }
            (Err(fault), _) => return Err(fault.into_store_error()),
        }
    }
    Err(last.map_or_else(
        || StoreError::Unavailable("the lease comes and goes all the time".into()),
        Fault::into_store_error,
    ))
}

/// Puts the key under a lease of etcd of its own, where it is as it was read.
async fn put(
    cluster: &Cluster,
    name: &Bytes,
    held: Option<&KeyValue>,
    value: &Bytes,
    ttl: Duration,
) -> Result<bool, Fault> {
    let id = grant(cluster, ttl).await?;
    let put = PutRequest { key: name.clone(), value: value.clone(), lease: id };
    let request = TxnRequest {
        compare: vec![Compare::is_at(name.clone(), held.map_or(0, |held| held.mod_revision))],
        success: vec![Op::Put(put).into()],
        failure: Vec::new(),
    };
    let until = cluster.patience().until;
    let answer: TxnResponse = cluster.ask(method::TXN, request, until).await?;
    // Of the two leases of etcd one has nothing hanging on it any more; where this fails, it goes with its time.
    let spare = if answer.succeeded { held.map(|held| held.lease) } else { Some(id) };
    if let Some(id) = spare {
        let _: Result<Empty, _> = cluster.ask(method::LEASE_REVOKE, LeaseRevokeRequest { id }, until).await;
    }
    // Its revision has not changed where it was there before.
    Ok(answer.succeeded && held.is_some())
}

fn holder_of(value: &[u8]) -> Option<&[u8]> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    Some(&value[space + 1..])
}

fn lease(held: &KeyValue) -> Lease {
    Lease { fence: revision(held.create_revision) }
}
