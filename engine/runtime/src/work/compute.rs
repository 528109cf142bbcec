//! Work with one version of a key pair, or of a key of MACs: signatures, MACs, and what is encrypted for a private half. What needs the secret
//! goes to a token or to the software lane, as chunks; what the public half is enough for is done at the desk, and so are MACs of software
//! keys, which cost less than to wake a thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use keymill_core::error::{Error, ErrorKind};
use keymill_core::key::{DecryptAlgorithm, KeySpec, ProtectionLevel, SignAlgorithm};
use keymill_core::operation::MessageType;
use keymill_core::seam::provider::{CryptoSession, DecryptJob, JobError, PublicHalf, SignJob};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;
use zeroize::Zeroize;

use super::away::{Away, Place, Segment};
use super::cut;
use super::desk::Desk;
use super::seal::too_long;
use super::{Fault, Items, Job, Served, Sheet, Task};
use crate::keyring::{CmkEntry, Keyring, Use, VersionEntry};
use crate::pool::chunk::Work;
use crate::shared::Shared;

/// Items to be worked on with one key version, pinned when the job was admitted.
pub(crate) struct Computation {
    pub(crate) entry: Arc<CmkEntry>,
    pub(crate) version: Arc<VersionEntry>,
    pub(crate) what: Compute,
    /// Messages or digests, plaintexts, ciphertexts.
    pub(crate) items: Items,
    /// The signatures or MACs that are to be checked.
    pub(crate) claims: Option<Items>,
    pub(crate) max_item_bytes: usize,
    pub(crate) done: u32,
}

/// What is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compute {
    Sign(SignAlgorithm, MessageType),
    Verify(SignAlgorithm, MessageType),
    Mac(SignAlgorithm),
    VerifyMac(SignAlgorithm),
    Encrypt(DecryptAlgorithm),
    Decrypt(DecryptAlgorithm),
}

/// Nanoseconds of one computation at this desk, roughly, so that a slice holds few of the long ones.
const RSA_PUBLIC: u64 = 20_000;
const CURVE_PUBLIC: u64 = 60_000;
const SLOW_PUBLIC: u64 = 300_000;
const DISPATCH: u64 = 1_500;

impl Computation {
    /// Tells whether it goes to a token, or to the software lane.
    pub(super) fn is_sent(&self) -> bool {
        match self.what {
            Compute::Sign(..) | Compute::Decrypt(_) => true,
            Compute::Mac(_) | Compute::VerifyMac(_) => self.entry.cmk.protection == ProtectionLevel::Hsm,
            Compute::Verify(..) | Compute::Encrypt(_) => false,
        }
    }

    /// Returns the estimated nanoseconds of item `i` at this desk.
    pub(super) fn cost_of(&self, i: usize) -> u64 {
        // SM3 is no instruction of the processor's.
        let per_byte = if self.entry.cmk.spec == KeySpec::EcSm2 { 8 } else { 1 };
        let digested = self.items.item_len(i) as u64 * per_byte;
        let public = || match self.entry.cmk.spec {
            KeySpec::EcP384 | KeySpec::EcP256K | KeySpec::EcSm2 => SLOW_PUBLIC,
            spec if spec.modulus_bytes().is_some() => RSA_PUBLIC,
            _ => CURVE_PUBLIC,
        };
        let own = match self.what {
            _ if self.is_sent() => DISPATCH,
            Compute::Verify(..) | Compute::Encrypt(_) => public(),
            Compute::Mac(_) | Compute::VerifyMac(_) | Compute::Sign(..) | Compute::Decrypt(_) => DISPATCH,
        };
        own + digested
    }

    /// Returns how many items one chunk holds, so that it takes a session about two milliseconds in software.
    pub(super) fn chunk_items(&self) -> usize {
        match self.entry.cmk.spec {
            KeySpec::Rsa2048 => 4,
            KeySpec::Rsa3072 => 2,
            KeySpec::Rsa4096 => 1,
            KeySpec::EcP384 | KeySpec::EcP256K | KeySpec::MlDsa65 | KeySpec::EcSm2 => 8,
            KeySpec::EcP256 | KeySpec::Ed25519 => 32,
            _ => 64,
        }
    }

    /// Returns what is asked of whoever holds the secret for item `i`.
    fn input(&self, shared: &Shared, i: usize) -> Result<Vec<u8>, Fault> {
        let item = self.items.get(i);
        if item.len() > self.max_item_bytes {
            return Err(too_long(item.len(), self.max_item_bytes));
        }
        match self.what {
            Compute::Sign(algorithm, kind) => self.signed(shared, algorithm, kind, item),
            Compute::Mac(_) | Compute::VerifyMac(_) | Compute::Decrypt(_) => Ok(item.to_vec()),
            Compute::Verify(..) | Compute::Encrypt(_) => {
                Err(Error::internal("a public half is used at the desk").into())
            }
        }
    }

    /// Returns what a signature is made over: the digest as it was given, or the message as the algorithm wants it.
    fn signed(
        &self,
        shared: &Shared,
        algorithm: SignAlgorithm,
        kind: MessageType,
        item: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        match (kind, algorithm.digest_bytes()) {
            (MessageType::Digest, Some(bytes)) if bytes == item.len() => Ok(item.to_vec()),
            (MessageType::Digest, Some(bytes)) => {
                let why = format!("{} signs digests of {bytes} bytes, not {}", algorithm.name(), item.len());
                Err(Error::new(ErrorKind::InvalidParameter, why).into())
            }
            (MessageType::Digest, None) => {
                let why = format!("{} signs messages, not digests of them", algorithm.name());
                Err(Error::new(ErrorKind::InvalidParameter, why).into())
            }
            (MessageType::Raw, _) => {
                let half = shared.public_half(&self.entry, &self.version)?;
                half.signed(algorithm, item).map_err(refused)
            }
        }
    }

    fn claim(&self, i: usize) -> &[u8] {
        self.claims.as_ref().map_or(&[], |claims| claims.get(i))
    }
}

impl Desk {
    /// Computes items of a job, up to `count`, as far as that is done here; the rest is sent out, and waited for.
    pub(super) fn compute(&mut self, job: &mut Job, count: usize, at: Timestamp) {
        let Task::Compute(task) = &job.task else { return };
        if !task.is_sent() {
            self.compute_here(job, count, at);
            return;
        }
        let mut away = self.trips.open(job);
        if let Err(fault) = self.try_compute_away(job, &mut away, count, at) {
            super::hsm::fail_rest(job, &fault);
        }
        self.trips.close(job, away);
    }

    fn try_compute_away(
        &mut self,
        job: &mut Job,
        away: &mut Away,
        count: usize,
        at: Timestamp,
    ) -> Result<(), Fault> {
        loop {
            cut::again(job, away, &mut self.trips, &self.shared)?;
            while away.segments.front().is_some_and(Segment::is_back) {
                let Some(segment) = away.segments.pop_front() else { break };
                self.metrics.batch(segment.range.len() as u32);
                write(job, &segment, &self.shared.keyring, at);
            }
            if job.next == job.len() {
                return Ok(());
            }
            if cut::compute(job, away, &mut self.trips, &self.shared, count) {
                // The rest is cut in its next turn.
                return Ok(());
            }
            if !away.segments.front().is_some_and(Segment::is_back) {
                job.waits = true;
                return Ok(());
            }
        }
    }

    fn compute_here(&mut self, job: &mut Job, count: usize, at: Timestamp) {
        self.metrics.batch(count as u32);
        let Task::Compute(task) = &mut job.task else { return };
        let range = job.next..job.next + count;
        let mut faults = Vec::new();
        let mut done = 0;
        let means = means(&self.shared, task);
        for i in range.clone() {
            let outcome = match &means {
                // A library that panics over one item takes neither the thread with it nor the request.
                Ok(means) => {
                    let (session, sheet) = (&mut *self.session, &mut job.sheet);
                    catch_unwind(AssertUnwindSafe(|| one(task, i, means, session, sheet)))
                        .unwrap_or_else(|_panic| Err(Error::internal("the crypto library panicked").into()))
                }
                Err(fault) => Err(fault.clone()),
            };
            match outcome {
                Ok(()) => done += 1,
                Err(fault) => {
                    job.sheet.absent();
                    faults.push((i, fault));
                }
            }
        }
        count_uses(task, done, &self.shared.keyring, at);
        if done > 0 {
            job.served.add(Served::SOFTWARE);
        }
        for (i, fault) in faults {
            job.fail_item(i, fault);
        }
        job.next = range.end;
    }
}

/// What items are computed with at the desk.
enum Means {
    Public(Arc<dyn PublicHalf>),
    Secret(keymill_core::seam::provider::KeyHandle),
}

fn means(shared: &Shared, task: &Computation) -> Result<Means, Fault> {
    Ok(match task.what {
        Compute::Verify(..) | Compute::Encrypt(_) => {
            Means::Public(shared.public_half(&task.entry, &task.version)?)
        }
        _ => Means::Secret(shared.handle(&task.entry, &task.version)?),
    })
}

/// Computes item `i` here, and writes what came of it.
fn one(
    task: &Computation,
    i: usize,
    means: &Means,
    session: &mut dyn CryptoSession,
    sheet: &mut Sheet,
) -> Result<(), Fault> {
    let item = task.items.get(i);
    if item.len() > task.max_item_bytes {
        return Err(too_long(item.len(), task.max_item_bytes));
    }
    match (task.what, means) {
        (Compute::Verify(algorithm, kind), Means::Public(half)) => {
            let signed;
            let signed = match (kind, algorithm.digest_bytes()) {
                (MessageType::Raw, _) => {
                    signed = half.signed(algorithm, item).map_err(refused)?;
                    &signed[..]
                }
                (MessageType::Digest, Some(bytes)) if bytes == item.len() => item,
                (MessageType::Digest, _) => {
                    let why = format!("{} bytes are no digest that {} signs", item.len(), algorithm.name());
                    return Err(Error::new(ErrorKind::InvalidParameter, why).into());
                }
            };
            let valid = half.verify(algorithm, signed, task.claim(i)).map_err(refused)?;
            sheet.truth(valid);
        }
        (Compute::Encrypt(algorithm), Means::Public(half)) => {
            let most = half.max_plaintext_bytes(algorithm).unwrap_or(0);
            if item.len() > most {
                let why = format!("plaintext of {} bytes exceeds the {most} that fit", item.len());
                let limit = keymill_core::error::Limit::PlaintextBytes;
                return Err(Error::new(ErrorKind::LimitExceeded(limit), why).into());
            }
            let sealed = half.encrypt(algorithm, item).map_err(refused)?;
            put(sheet, &sealed);
        }
        (Compute::Mac(algorithm) | Compute::VerifyMac(algorithm), Means::Secret(handle)) => {
            let mut jobs = [SignJob::new(algorithm, item.to_vec())];
            session.sign(handle, &mut jobs).map_err(|lost| {
                Error::new(ErrorKind::Unavailable, "the crypto session was lost").caused_by(lost.reason)
            })?;
            let [mut made] = jobs;
            // A message may be as secret as a plaintext is, and so is the right MAC of one that came with another.
            made.input.zeroize();
            let mac = made.output.take().ok_or_else(|| Error::internal("a MAC was not made"))?;
            let mut mac = mac.map_err(refused)?;
            match task.what {
                Compute::VerifyMac(_) => sheet.truth(digest::equal(&mac, task.claim(i))),
                _ => put(sheet, &mac),
            }
            mac.zeroize();
        }
        _ => return Err(Error::internal("the desk lacks what this takes").into()),
    }
    Ok(())
}

/// Writes the items of a segment that came back.
fn write(job: &mut Job, segment: &Segment, keyring: &Keyring, at: Timestamp) {
    let Task::Compute(task) = &mut job.task else { return };
    let mut faults = Vec::new();
    let mut done = 0;
    for i in segment.range.clone() {
        let made = match segment.place(i) {
            Place::In { chunk, item } => segment.computed(*chunk, *item),
            Place::Failed(fault) => Err(fault.clone()),
            Place::Here => Err(Error::internal("an item was not sent out").into()),
        };
        match (made, task.what) {
            (Ok(mac), Compute::VerifyMac(_)) => job.sheet.truth(digest::equal(mac, task.claim(i))),
            (Ok(made), _) => put(&mut job.sheet, made),
            (Err(fault), _) => {
                job.sheet.absent();
                faults.push((i, fault));
                continue;
            }
        }
        done += 1;
    }
    count_uses(task, done, keyring, at);
    for (i, fault) in faults {
        job.fail_item(i, fault);
    }
    job.next = job.next.max(segment.range.end);
}

/// Returns what goes out of a segment as one chunk, and where each item is then.
pub(super) fn work(
    task: &Computation,
    shared: &Shared,
    segment: &Segment,
    places: Option<usize>,
) -> (Work, Vec<Place>) {
    let mut signs = Vec::new();
    let mut opens = Vec::new();
    let mut found = Vec::with_capacity(segment.range.len());
    for i in segment.range.clone() {
        // Cut anew, the chunk holds the same items in the same places.
        if places.is_some() && !matches!(segment.place(i), Place::In { .. }) {
            continue;
        }
        let place = match task.input(shared, i) {
            Ok(input) => match task.what {
                Compute::Decrypt(algorithm) => {
                    opens.push(DecryptJob::new(algorithm, input));
                    Place::In { chunk: 0, item: opens.len() - 1 }
                }
                Compute::Sign(algorithm, _)
                | Compute::Verify(algorithm, _)
                | Compute::Mac(algorithm)
                | Compute::VerifyMac(algorithm) => {
                    signs.push(SignJob::new(algorithm, input));
                    Place::In { chunk: 0, item: signs.len() - 1 }
                }
                Compute::Encrypt(_) => Place::Failed(Error::internal("it is done at the desk").into()),
            },
            Err(fault) => Place::Failed(fault),
        };
        found.push(place);
    }
    let work = match task.what {
        Compute::Decrypt(_) => Work::Open(opens),
        _ => Work::Sign(signs),
    };
    (work, found)
}

fn put(sheet: &mut Sheet, made: &[u8]) {
    let copy = |out: &mut [u8]| {
        out.copy_from_slice(made);
        Ok::<(), Fault>(())
    };
    sheet.put(made.len(), copy).expect("copying cannot fail");
}

fn count_uses(task: &mut Computation, done: u32, keyring: &Keyring, at: Timestamp) {
    task.done += done;
    let what = match task.what {
        Compute::Sign(..) | Compute::Mac(_) | Compute::Encrypt(_) => Use::Encrypted,
        Compute::Verify(..) | Compute::VerifyMac(_) | Compute::Decrypt(_) => Use::Decrypted,
    };
    keyring.count(&task.entry.cmk.id, &task.version, what, done, at);
}

fn refused(error: JobError) -> Fault {
    super::away::job_fault(error)
}
