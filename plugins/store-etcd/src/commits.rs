//! A commit: one transaction of etcd, all or none. A lost answer is not guessed at: whether the commit was made is looked up by its mark, and
//! where it was not, it is kept from being made later.
//!
//! etcd takes 128 comparisons and operations of a transaction (`--max-txn-ops`), in all of its levels together along any way down. A commit
//! that fits compares each record. A larger one compares the key of the newest revision, which every commit writes: nothing was committed since
//! its records were read and compared here; and its writes stand in transactions within that transaction. Either way it is one transaction
//! and one revision. Above the bytes that etcd takes of a request (1.5 MiB, `--max-request-bytes`) it is refused, and nothing is written.

use std::sync::Arc;

use bytes::Bytes;
use keymill_core::seam::store::{Path, Revision, StoreError, Write, check_distinct};
use tokio::time::{Instant, timeout_at};

use crate::cluster::{Cluster, Patience, method};
use crate::error::Fault;
use crate::keys::Keys;
use crate::messages::{
    Compare, DeleteRangeRequest, Header, Op, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse,
};
use crate::reads::revision;
use crate::slots::{Slot, Slots};
use crate::trail::Trail;

/// Writes of a commit that compares each of its records: 128 less those of the slot and of the newest revision.
const SMALL: usize = 126;
/// Writes of one transaction within others, and such transactions of one: 60 + 56 + (8 + 2) make 126.
const LEAF: usize = 60;
const BRANCH: usize = 56;
const TOP: usize = 8;
/// Writes of a commit, at most.
const LARGEST: usize = LEAF * BRANCH * TOP;
/// Reads of one transaction.
const READS: usize = 120;

/// A write, as etcd is told of it.
pub(crate) struct Planned {
    path: Path,
    key: Bytes,
    /// Zero: it must not be there.
    expected: i64,
    /// Nothing where the absence of a record is all that is asked.
    op: Option<Op>,
}

/// Plans the writes of a commit.
///
/// # Errors
/// `Conflict` where a path is named twice, or at a revision that no record can have; `Full` where there are too many.
pub(crate) fn plan(keys: &Keys, writes: &[Write]) -> Result<Vec<Planned>, StoreError> {
    if writes.len() > LARGEST {
        return Err(StoreError::Full(format!(
            "a commit of {} writes exceeds the limit of {LARGEST}",
            writes.len()
        )));
    }
    check_distinct(writes)?;
    writes
        .iter()
        .map(|write| {
            let conflict = || StoreError::Conflict(write.path.clone());
            let expected = match write.expected {
                None => 0,
                // Zero is what etcd says of a key that is not there.
                Some(Revision(0)) => return Err(conflict()),
                Some(Revision(at)) => i64::try_from(at).map_err(|_| conflict())?,
            };
            let key = keys.record(&write.path);
            let op = match &write.value {
                Some(value) => {
                    let value = Bytes::copy_from_slice(value);
                    Some(Op::Put(PutRequest { key: key.clone(), value, lease: 0 }))
                }
                None if expected == 0 => None,
                None => Some(Op::Delete(DeleteRangeRequest { key: key.clone() })),
            };
            Ok(Planned { path: write.path.clone(), key, expected, op })
        })
        .collect()
}

/// What is needed to commit.
pub(crate) struct Committer {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) trail: Arc<Trail>,
}

/// What became of a commit whose answer was lost.
enum Outcome {
    Made(i64),
    /// It was not made, and will not be.
    NotMade,
}

impl Committer {
    /// Commits what was planned, where the store holds what this process has seen, or where that is the alarm.
    ///
    /// # Errors
    /// `Conflict` with the first path that is at another revision, `Full`, `OtherHistory`, and `Unavailable` after the time that is configured:
    /// then nothing was written, unless it says that the outcome is not known.
    pub(crate) async fn commit(&self, planned: Vec<Planned>, is_alarm: bool) -> Result<Revision, StoreError> {
        let mut patience = self.cluster.patience();
        let until = patience.until;
        let mut slot = in_time(until, self.slots.take(&self.cluster, &self.keys)).await?;
        loop {
            let mark = self.slots.mark();
            let asked = match in_time(until, self.transaction(&planned, &slot, &mark, is_alarm)).await {
                Ok(request) => self.cluster.ask::<_, TxnResponse>(method::TXN, request, patience.until).await,
                Err(error) => {
                    self.slots.give(slot);
                    return Err(error);
                }
            };
            let fault = match asked {
                Ok(answer) if answer.succeeded => {
                    slot.known = revision_of(answer.header.as_ref())?;
                    self.trail.made(slot.known, &mark, &slot.key);
                    let made = revision(slot.known);
                    self.slots.give(slot);
                    return Ok(made);
                }
                Ok(answer) => {
                    let found = ranges(&answer);
                    if found.first().is_some_and(|found| *found == slot.known) {
                        let differs = |(planned, found): (&Planned, &i64)| {
                            (planned.expected != *found).then(|| planned.path.clone())
                        };
                        if let Some(path) = planned.iter().zip(&found[1..]).find_map(differs) {
                            self.slots.give(slot);
                            return Err(StoreError::Conflict(path));
                        }
                        // A large one, and something was committed since its records were read.
                    } else {
                        // Its lease ran out, or etcd was restored, and nothing was written.
                        self.slots.forget(slot.lease);
                        slot = in_time(until, self.slots.take(&self.cluster, &self.keys)).await?;
                    }
                    Fault::NotDone("others commit all the time".into())
                }
                Err(Fault::NoSuchLease) => {
                    self.slots.forget(slot.lease);
                    slot = in_time(until, self.slots.take(&self.cluster, &self.keys)).await?;
                    Fault::NotDone("the lease of the slots is lost again and again".into())
                }
                Err(Fault::Lost(why)) => match self.resolve(&mut slot, &mark, &why, &mut patience).await? {
                    Outcome::Made(at) => {
                        self.trail.made(at, &mark, &slot.key);
                        self.slots.give(slot);
                        return Ok(revision(at));
                    }
                    Outcome::NotMade => Fault::NotDone(why),
                },
                Err(fault @ (Fault::NotDone(_) | Fault::LoggedOut(_))) => fault,
                Err(fault) => {
                    self.slots.give(slot);
                    return Err(self.said_better(fault, &planned));
                }
            };
            if let Err(error) = patience.pause(self.cluster.members(), fault).await {
                self.slots.give(slot);
                return Err(error);
            }
        }
    }

    /// Makes the transaction of a try to commit, once it is known that the store holds what was seen; of a large one after its records were read.
    async fn transaction(
        &self,
        planned: &[Planned],
        slot: &Slot,
        mark: &Bytes,
        is_alarm: bool,
    ) -> Result<TxnRequest, StoreError> {
        let put = |key: Bytes, value: Bytes, lease| Op::Put(PutRequest { key, value, lease }).into();
        // Last of all, so that whoever watches and is told of it has been told of everything.
        let marks =
            [put(slot.key.clone(), mark.clone(), slot.lease), put(self.keys.newest(), mark.clone(), 0)];
        let mut compare = vec![Compare::is_at(slot.key.clone(), slot.known)];
        let mut failure = vec![revision_at(slot.key.clone())];
        let mut ops: Vec<RequestOp> =
            planned.iter().filter_map(|write| write.op.clone().map(Into::into)).collect();
        if planned.len() <= SMALL {
            if !is_alarm {
                let checked = self.trail.check_for(slot.known, &self.cluster, &self.keys);
                checked.await.map_err(Fault::into_store_error)?;
            }
            compare.extend(planned.iter().map(|write| Compare::is_at(write.key.clone(), write.expected)));
            failure.extend(planned.iter().map(|write| revision_at(write.key.clone())));
        } else {
            let newest = self.trail.newest(&self.cluster, &self.keys).await;
            let newest = newest.map_err(Fault::into_store_error)?;
            self.compare(planned).await?;
            compare.push(Compare::is_at(self.keys.newest(), newest.commit));
            ops = nested(nested(ops, LEAF), BRANCH);
        }
        ops.extend(marks);
        Ok(TxnRequest { compare, success: ops, failure })
    }

    /// Reads at which revisions records are, and compares.
    async fn compare(&self, planned: &[Planned]) -> Result<(), StoreError> {
        for some in planned.chunks(READS) {
            let reads = some.iter().map(|write| revision_at(write.key.clone())).collect();
            let request = TxnRequest { success: reads, ..TxnRequest::default() };
            let answer: TxnResponse =
                self.cluster.read(method::TXN, request).await.map_err(Fault::into_store_error)?;
            let found = ranges(&answer);
            let differs =
                |(write, found): (&Planned, i64)| (write.expected != found).then(|| write.path.clone());
            if let Some(path) = some.iter().zip(found).find_map(differs) {
                return Err(StoreError::Conflict(path));
            }
        }
        Ok(())
    }

    /// Finds out what became of a commit whose answer was lost, and keeps it from being made where it was not: it compares the slot.
    async fn resolve(
        &self,
        slot: &mut Slot,
        mark: &Bytes,
        why: &str,
        patience: &mut Patience,
    ) -> Result<Outcome, StoreError> {
        let unknown = |then: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("the outcome of the commit is not known: {why}, then: {then}"))
        };
        let nobody = Bytes::new();
        loop {
            let put = PutRequest { key: slot.key.clone(), value: nobody.clone(), lease: slot.lease };
            let request = TxnRequest {
                compare: vec![Compare::is_at(slot.key.clone(), slot.known)],
                success: vec![Op::Put(put).into()],
                failure: vec![
                    Op::Range(RangeRequest { key: slot.key.clone(), ..RangeRequest::default() }).into(),
                ],
            };
            match self.cluster.ask::<_, TxnResponse>(method::TXN, request, patience.until).await {
                Ok(answer) if answer.succeeded => {
                    slot.known = revision_of(answer.header.as_ref())?;
                    return Ok(Outcome::NotMade);
                }
                Ok(answer) => {
                    let first = answer.responses.into_iter().next().and_then(|response| response.range);
                    let Some(found) = first.and_then(|range| range.kvs.into_iter().next()) else {
                        return Err(unknown(&"its mark is gone"));
                    };
                    slot.known = found.mod_revision;
                    return match found.value {
                        value if value == mark => Ok(Outcome::Made(found.mod_revision)),
                        // By an earlier try of this.
                        value if value == nobody => Ok(Outcome::NotMade),
                        _ => Err(unknown(&"its slot holds the mark of another")),
                    };
                }
                Err(fault @ (Fault::NotDone(_) | Fault::Lost(_) | Fault::LoggedOut(_))) => {
                    let paused = patience.pause(self.cluster.members(), fault).await;
                    paused.map_err(|error| unknown(&error))?;
                }
                Err(fault) => return Err(unknown(&fault.into_store_error())),
            }
        }
    }

    /// Says of a commit that is too large how large it is.
    fn said_better(&self, fault: Fault, planned: &[Planned]) -> StoreError {
        match fault.into_store_error() {
            StoreError::Full(why) if why.contains("too large") || why.contains("larger") => {
                let bytes: usize = planned
                    .iter()
                    .map(|write| match &write.op {
                        Some(Op::Put(put)) => put.key.len() + put.value.len(),
                        _ => write.key.len(),
                    })
                    .sum();
                StoreError::Full(format!("{} writes, {bytes} bytes: {why}", planned.len()))
            }
            error => error,
        }
    }
}

/// Does what goes before the transaction of a commit, while there is time for it.
async fn in_time<T>(
    until: Instant,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable("etcd was not asked to commit in time".into());
    timeout_at(until, work).await.map_err(late)?
}

/// Puts operations into transactions of so many.
fn nested(ops: Vec<RequestOp>, of: usize) -> Vec<RequestOp> {
    let mut ops = ops.into_iter().peekable();
    let mut made = Vec::new();
    while ops.peek().is_some() {
        let success = ops.by_ref().take(of).collect();
        made.push(Op::Txn(TxnRequest { success, ..TxnRequest::default() }).into());
    }
    made
}

/// Asks at which revision a key is, without its value.
fn revision_at(key: Bytes) -> RequestOp {
    Op::Range(RangeRequest { key, keys_only: true, ..RangeRequest::default() }).into()
}

/// Returns the revisions that were asked for; zero of a key that is not there.
fn ranges(answer: &TxnResponse) -> Vec<i64> {
    let at = |range: &RangeResponse| range.kvs.first().map_or(0, |kv| kv.mod_revision);
    answer.responses.iter().map(|response| response.range.as_ref().map_or(0, at)).collect()
}

fn revision_of(header: Option<&Header>) -> Result<i64, StoreError> {
    let header = header.ok_or_else(|| StoreError::Unavailable("etcd answered without a revision".into()))?;
    Ok(header.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the longest way down, in comparisons and operations, as etcd counts.
    fn depth(txn: &TxnRequest) -> usize {
        let below = |op: &RequestOp| match &op.request {
            Some(Op::Txn(txn)) => depth(txn),
            _ => 0,
        };
        let here = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
        here + txn.success.iter().map(below).max().unwrap_or(0)
    }

    #[test]
    fn the_largest_commit_is_within_what_etcd_takes() {
        let op = |_| Op::Delete(DeleteRangeRequest::default()).into();
        let mut success = nested(nested((0..LARGEST).map(op).collect(), LEAF), BRANCH);
        success.extend((0..2).map(op));
        assert!(depth(&TxnRequest { success, ..TxnRequest::default() }) <= 128);
    }

    #[test]
    fn what_cannot_be_is_a_conflict_without_asking() {
        let keys = Keys::under("km");
        let write =
            |expected| Write { path: Path::new("a").expect("a path"), expected, value: Some(Vec::new()) };
        for never in [0, u64::MAX] {
            let planned = plan(&keys, &[write(Some(Revision(never)))]);
            assert!(matches!(planned, Err(StoreError::Conflict(_))), "{never}");
        }
        assert!(matches!(plan(&keys, &[write(None), write(None)]), Err(StoreError::Conflict(_))));
        let many = vec![write(None); LARGEST + 1];
        assert!(matches!(plan(&keys, &many), Err(StoreError::Full(_))));
    }
}
