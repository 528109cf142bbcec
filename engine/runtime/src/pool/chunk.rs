//! A chunk: what of one job goes to a session of a token in one go, under one key version. It owns copies of its inputs, so that it can
//! be done again by another session; the job stays with the desk that cut it, which puts its results together.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::access::Caller;
use keymill_core::id::KeyVersionId;
use keymill_core::key::Fallback;
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoSession, DecryptJob, DeriveJob, KeyHandle, SessionLost, SignJob,
};
use zeroize::Zeroize;

use crate::keyring::{CmkEntry, VersionEntry};
use crate::quota::OverQuota;
use crate::ready::{Divisible, Part};
use crate::work::{Cancel, Fault, PairJob, Served};

/// Which chunk it is, for the desk that cut it: an answer that names none of its own is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tag {
    /// Items of a segment of a job.
    Items { trip: u64, segment: usize, chunk: usize },
    /// Subkeys that jobs of the desk wait for.
    Subkeys(u64),
    /// The data key pair of a job.
    Pair(u64),
}

/// What a session is to do.
pub(crate) enum Work {
    Encrypt(AeadBatch),
    Decrypt(AeadBatch),
    Derive(Vec<DeriveJob>),
    /// Signatures or MACs.
    Sign(Vec<SignJob>),
    /// What was encrypted under a public half.
    Open(Vec<DecryptJob>),
    /// A data key pair, of the software lane alone.
    Pair(PairJob),
}

/// A part of a job for one session.
pub(crate) struct Chunk {
    pub(crate) tag: Tag,
    pub(crate) principal: Caller,
    pub(crate) entry: Arc<CmkEntry>,
    pub(crate) version: Arc<VersionEntry>,
    /// The berth of the token that its key stays in, where it does.
    pub(crate) berth: Option<usize>,
    pub(crate) work: Work,
    pub(crate) deadline: Instant,
    pub(crate) cancel: Cancel,
    /// When it was cut.
    pub(crate) since: Instant,
    /// Sessions that were lost over it, though they had lived since it was cut.
    pub(crate) attempts: u32,
    pub(crate) home: Arc<dyn Home>,
    /// That its job is over its quota, where it is.
    pub(crate) over_quota: Option<OverQuota>,
    /// Why none of it could be done.
    pub(crate) fault: Option<Fault>,
    /// Why it is software's to do, where it is.
    pub(crate) fallback: Option<Fallback>,
    /// Who did it.
    pub(crate) served: Served,
}

/// A desk, as sessions see it.
pub(crate) trait Home: Send + Sync {
    /// Takes what comes back; it never waits.
    fn returned(&self, returns: Vec<Return>);
}

/// What comes back to a desk.
pub(crate) enum Return {
    /// A chunk that was done, or that could not be.
    Done(Box<Chunk>),
    /// A chunk that is in the hands of a call that does not return.
    Lost(Tag),
    /// Invocations of a key version were reserved, or not.
    Reserved(KeyVersionId, Result<(), Fault>),
}

impl Chunk {
    /// Returns how many items it holds.
    pub(crate) fn len(&self) -> usize {
        match &self.work {
            Work::Encrypt(batch) | Work::Decrypt(batch) => batch.items.len(),
            Work::Derive(jobs) => jobs.len(),
            Work::Sign(jobs) => jobs.len(),
            Work::Open(jobs) => jobs.len(),
            Work::Pair(_) => 1,
        }
    }

    /// Returns how many operations of the token it takes: a subkey takes two.
    pub(crate) fn operations(&self) -> usize {
        match &self.work {
            Work::Encrypt(batch) | Work::Decrypt(batch) => batch.items.len(),
            Work::Derive(jobs) => 2 * jobs.len(),
            Work::Sign(jobs) => jobs.len(),
            Work::Open(jobs) => jobs.len(),
            // To make one takes as long as to sign so often.
            Work::Pair(job) => match job.spec.modulus_bytes() {
                Some(_) => 256,
                None => 1,
            },
        }
    }

    /// Tells whether it is work of a symmetric cipher.
    pub(crate) fn is_symmetric(&self) -> bool {
        matches!(self.work, Work::Encrypt(_) | Work::Decrypt(_) | Work::Derive(_))
    }

    /// Tells whether an item has no outcome yet.
    pub(crate) fn is_unfinished(&self) -> bool {
        match &self.work {
            Work::Encrypt(batch) | Work::Decrypt(batch) => batch.items.iter().any(|i| i.outcome.is_none()),
            Work::Derive(jobs) => jobs.iter().any(|job| job.output.is_none()),
            Work::Sign(jobs) => jobs.iter().any(|job| job.output.is_none()),
            Work::Open(jobs) => jobs.iter().any(|job| job.output.is_none()),
            Work::Pair(job) => job.output.is_none(),
        }
    }

    /// Tells whether two chunks are the same work under the same key, which a session does best in a row.
    pub(crate) fn is_akin(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.version, &other.version)
            && std::mem::discriminant(&self.work) == std::mem::discriminant(&other.work)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        match &mut self.work {
            Work::Encrypt(batch) | Work::Decrypt(batch) => batch.buffer.zeroize(),
            // A message may be as secret as a plaintext is.
            Work::Sign(jobs) => jobs.iter_mut().for_each(|job| job.input.zeroize()),
            // What was opened wipes itself.
            Work::Derive(_) | Work::Open(_) | Work::Pair(_) => {}
        }
    }
}

impl Divisible for Box<Chunk> {
    fn part(&self, _budget: u64) -> Part {
        Part { items: 1, cost: self.operations() as u64, last: true }
    }

    fn sheddable_since(&self) -> Option<Instant> {
        self.over_quota.is_some().then_some(self.since)
    }
}

/// Does a chunk in a session, under the key's handle there.
///
/// # Errors
/// [`SessionLost`] where the session is gone.
pub(crate) fn call(
    session: &mut dyn CryptoSession,
    handle: &KeyHandle,
    work: &mut Work,
) -> Result<(), SessionLost> {
    match work {
        Work::Encrypt(batch) => session.encrypt(handle, batch),
        Work::Decrypt(batch) => session.decrypt(handle, batch),
        Work::Derive(jobs) => session.derive(handle, jobs),
        Work::Sign(jobs) => session.sign(handle, jobs),
        Work::Open(jobs) => session.decrypt_asymmetric(handle, jobs),
        // No key takes part in it: the software lane makes it.
        Work::Pair(_) => Ok(()),
    }
}

/// Bytes behind each text for its tag.
pub(crate) const TAG_BYTES: usize = 16;

/// Adds an item of `text` and its associated data to a batch; `tag` stands behind the text of one that is to be opened.
pub(crate) fn push(batch: &mut AeadBatch, nonce: [u8; 12], aad: &[&[u8]], text: &[u8], tag: Option<&[u8]>) {
    let aad_start = batch.aad.len();
    aad.iter().for_each(|part| batch.aad.extend_from_slice(part));
    let start = batch.buffer.len();
    batch.buffer.extend_from_slice(text);
    let end = batch.buffer.len();
    match tag {
        Some(tag) => batch.buffer.extend_from_slice(tag),
        None => batch.buffer.resize(end + TAG_BYTES, 0),
    }
    batch.items.push(AeadItem { nonce, aad: aad_start..batch.aad.len(), text: start..end, outcome: None });
}

/// Gives returns to their homes, those of one home together.
pub(crate) fn send_home(chunks: Vec<Box<Chunk>>) {
    let mut groups: Vec<(Arc<dyn Home>, Vec<Return>)> = Vec::new();
    for chunk in chunks {
        let home = Arc::clone(&chunk.home);
        match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &home)) {
            Some((_, returns)) => returns.push(Return::Done(chunk)),
            None => groups.push((home, vec![Return::Done(chunk)])),
        }
    }
    for (home, returns) in groups {
        home.returned(returns);
    }
}
