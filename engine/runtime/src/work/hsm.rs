//! The part of a desk that deals with keys in tokens: it sends items out, sets the job aside, and goes on with it when they are back.

use std::time::Instant;

use keymill_core::Timestamp;
use keymill_core::access::Caller;
use keymill_core::blob::{Algorithm, Blob};
use keymill_core::error::{Error, ErrorKind};
use keymill_core::key::ProtectionLevel;
use keymill_core::limit;
use keymill_core::operation::Operation;
use keymill_crypto::epoch::SealRun;
use zeroize::Zeroizing;

use super::away::{Away, Place, Relay, Segment};
use super::cut::{self, Cut};
use super::desk::{Desk, opener};
use super::open::{self, plaintext_len};
use super::{Destination, Fault, Job, OpenTask, Sealing, Served, Task, seal};
use crate::keyring::{Keyring, Use};
use crate::lane::Lane;
use crate::pool::chunk::Chunk;
use crate::shared::Shared;

/// Where a destination seals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Here,
    HereByEpochOfToken,
    /// In a token, or in the software lane: each item under a counted nonce.
    Away,
}

/// Tells where a destination seals.
pub(super) fn where_sealed(to: &Destination) -> Where {
    match (to.algorithm, to.entry.cmk.protection) {
        (Algorithm::Xaes256Gcm, ProtectionLevel::Software) => Where::Here,
        (Algorithm::Xaes256Gcm, ProtectionLevel::Hsm) => Where::HereByEpochOfToken,
        _ => Where::Away,
    }
}

impl Job {
    /// Returns the lane that its items are for, where they do not stay with its arbiter. Of what is to be opened nobody knows yet.
    pub(crate) fn lane<'s>(&self, shared: &'s Shared) -> Option<&'s Lane<Caller, Box<Chunk>>> {
        let of = |protection| match protection {
            ProtectionLevel::Software => &shared.software,
            ProtectionLevel::Hsm => &shared.pool.lane,
        };
        match &self.task {
            Task::Seal { what: Sealing::Pair(_), .. } => Some(&shared.software),
            Task::Seal { to, .. } if where_sealed(to) == Where::Away => Some(of(to.entry.cmk.protection)),
            Task::Compute(task) => Some(of(task.entry.cmk.protection)),
            Task::Open(_) if !shared.pool.is_empty() => Some(&shared.pool.lane),
            Task::Seal { .. } | Task::Open(_) | Task::Answered(_) | Task::Refused(_) => None,
        }
    }
}

/// Returns the operations whose rights the source of a job needs, all of them.
pub(crate) fn rights_of(job: &Job) -> &'static [Operation] {
    match job.operation {
        Some(Operation::BatchDecrypt) => &[Operation::BatchDecrypt],
        Some(Operation::ExportDataKey) => &[Operation::ExportDataKey, Operation::Decrypt],
        Some(Operation::GetManagedDataKey) => &[Operation::GetManagedDataKey, Operation::Decrypt],
        // The right to a secret is the right to its value; its CMK is the service's to use.
        Some(Operation::GetSecretValue | Operation::BatchGetSecretValue | Operation::ExportSecrets) => &[],
        // To open, and to open for sealing anew; others have no source.
        _ => &[Operation::Decrypt],
    }
}

impl Desk {
    /// Takes part in an epoch whose subkey a token derives; `None` where that has to be derived first, and the job waits for it.
    pub(super) fn begin_by_token(
        &mut self,
        job: &mut Job,
        to: &Destination,
        count: u32,
        now: Instant,
    ) -> Result<Option<SealRun>, Fault> {
        let limits = self.shared.epoch_limits(&to.entry);
        if let Some(run) = to.version.in_use().epoch.try_begin(count, now, &limits).map_err(Error::from)? {
            return Ok(Some(run));
        }
        let mut away = self.trips.open(job);
        let refused = away.refused.take();
        self.trips.close(job, away);
        if let Some(fault) = refused {
            return Err(fault);
        }
        if !to.entry.is_current() {
            // No subkey of a key that may no longer be used: what the caller is told of that is found out at the end.
            return Err(Error::new(ErrorKind::Conflict, "the key was changed meanwhile").into());
        }
        self.trips.derive_epoch(job, &to.entry, &to.version)?;
        job.waits = true;
        Ok(None)
    }

    /// Opens items of a job from where it stands, up to `count`; those that need a token are sent out, and waited for.
    pub(super) fn open_items(&mut self, job: &mut Job, count: usize, at: Timestamp) {
        let mut away = job.trip.is_some().then(|| self.trips.open(job));
        let end = job.next + count;
        let (principal, source) = (job.call.principal.clone(), job.call.source);
        let rights = rights_of(job);
        let mut failed = None;
        while job.next < end {
            if let Some(away) = &mut away
                && let Err(fault) = cut::again(job, away, &mut self.trips, &self.shared)
            {
                failed = Some(fault);
                break;
            }
            let mut opener = opener!(self, &principal, source, rights);
            let left = end - job.next;
            job.next += open::open(job, left, &mut opener, away.as_mut(), at);
            if job.next == end {
                break;
            }
            let mut going = match away.take() {
                Some(going) => going,
                None => self.trips.open(job),
            };
            if going.segments.is_empty() {
                going.cut_to = job.next;
            }
            cut::open(job, &mut going, &mut self.trips, &mut opener);
            job.waits = !going.segments.front().is_some_and(Segment::is_back);
            away = Some(going);
            if job.waits {
                break;
            }
        }
        if let Some(fault) = failed {
            fail_rest(job, &fault);
        }
        if let Some(away) = away {
            self.trips.close(job, away);
        }
    }

    /// Seals a job's items in tokens, as far as they are back, and sends out more.
    pub(super) fn seal_in_token(&mut self, job: &mut Job, at: Timestamp) {
        let mut away = self.trips.open(job);
        if let Err(fault) = self.try_seal_in_token(job, &mut away, at) {
            fail_rest(job, &fault);
        }
        self.trips.close(job, away);
    }

    fn try_seal_in_token(&mut self, job: &mut Job, away: &mut Away, at: Timestamp) -> Result<(), Fault> {
        let Task::Seal { to, .. } = &job.task else { return Ok(()) };
        let to = to.clone();
        loop {
            if let Some(fault) = away.refused.take() {
                return Err(fault);
            }
            cut::again(job, away, &mut self.trips, &self.shared)?;
            while away.segments.front().is_some_and(Segment::is_back) {
                let Some(segment) = away.segments.pop_front() else { break };
                self.metrics.batch(segment.range.len() as u32);
                write_sealed(job, &segment, &to, &self.shared.keyring, at);
            }
            if job.next == job.len() {
                return Ok(());
            }
            if let Cut::Reserve = cut::seal(job, away, &mut self.trips, &self.shared)? {
                self.trips.reserve(job, &to.entry, &to.version)?;
                job.waits = true;
                return Ok(());
            }
            if to.version.in_use().invocations.left() < limit::RESERVED_INVOCATIONS / 4 {
                // Ahead of need; where it fails now, it is told when they are needed.
                let _later = self.trips.reserve_ahead(&to.entry, &to.version);
            }
            if !away.segments.front().is_some_and(Segment::is_back) {
                job.waits = true;
                return Ok(());
            }
        }
    }

    /// Re-encrypts a job's items where a token takes part, some at a time: opened, then sealed.
    pub(super) fn relay(&mut self, job: &mut Job, now: Instant, at: Timestamp) {
        let mut away = self.trips.open(job);
        if let Err(fault) = self.try_relay(job, &mut away, now, at) {
            fail_rest(job, &fault);
        }
        self.trips.close(job, away);
    }

    fn try_relay(
        &mut self,
        job: &mut Job,
        away: &mut Away,
        now: Instant,
        at: Timestamp,
    ) -> Result<(), Fault> {
        let Task::Seal { to, .. } = &job.task else { return Ok(()) };
        let to = to.clone();
        if job.next < job.len() {
            if let Some(fault) = away.refused.take() {
                return Err(fault);
            }
            cut::again(job, away, &mut self.trips, &self.shared)?;
            if away.relay.is_none() && !self.open_relayed(job, away) {
                job.waits = true;
                return Ok(());
            }
            let range = away.relay.as_ref().expect("it was just opened").range.clone();
            let sealed = match where_sealed(&to) {
                Where::Away => self.seal_relayed_in_token(job, away, &to, range.end, at)?,
                Where::Here => {
                    let count = range.len() as u32;
                    let mut run = seal::begin(&self.shared, &mut *self.session, &to, count, now)?;
                    write_relayed(job, away, &to, &mut run, &self.shared.keyring, at);
                    true
                }
                Where::HereByEpochOfToken => {
                    let limits = self.shared.epoch_limits(&to.entry);
                    let run = to.version.in_use().epoch.try_begin(range.len() as u32, now, &limits);
                    match run.map_err(Error::from)? {
                        Some(mut run) => {
                            write_relayed(job, away, &to, &mut run, &self.shared.keyring, at);
                            true
                        }
                        None => {
                            self.trips.derive_epoch(job, &to.entry, &to.version)?;
                            false
                        }
                    }
                }
            };
            if !sealed {
                job.waits = true;
                return Ok(());
            }
            self.metrics.batch(range.len() as u32);
            away.relay = None;
            away.segments.clear();
            job.next = range.end;
            away.cut_to = range.end;
        }
        // The rest in its next turn: others wait for theirs.
        Ok(())
    }

    /// Opens the next items to be re-encrypted; false where they are not back yet.
    fn open_relayed(&mut self, job: &mut Job, away: &mut Away) -> bool {
        let (principal, source) = (job.call.principal.clone(), job.call.source);
        let rights = rights_of(job);
        let mut opener = opener!(self, &principal, source, rights);
        if away.segments.is_empty() {
            away.cut_to = job.next;
            let end = job.len().min(job.next + cut::RELAYED);
            cut::open_segment(job, away, &mut self.trips, &mut opener, end);
        }
        if !away.segments.front().is_some_and(Segment::is_back) {
            return false;
        }
        let segment = away.segments.pop_front().expect("it was just looked at");
        let Task::Seal { what: Sealing::Blobs(task), .. } = &mut job.task else { return true };
        let OpenTask { items, keys, .. } = &mut **task;
        let bytes = segment.range.clone().map(|i| plaintext_len(items.get(i))).sum();
        let mut buffer = Zeroizing::new(vec![0; bytes]);
        let mut texts = Vec::with_capacity(segment.range.len());
        let mut start = 0;
        for i in segment.range.clone() {
            let place = start..start + plaintext_len(items.get(i));
            let opened = match Blob::parse(items.get(i)) {
                None => Err(open::opaque()),
                Some(blob) => opener.way(keys, &blob, i, Some(&segment)).and_then(|way| {
                    if matches!(way, open::Way::Subkey { .. }) {
                        job.served.add(Served::SOFTWARE);
                    }
                    opener.open(&way, &blob, keys, i, Some(&segment), &mut buffer[place.clone()])
                }),
            };
            start = place.end;
            texts.push(opened.map(|_| place));
        }
        away.cut_to = segment.range.start;
        away.relay = Some(Relay { range: segment.range, buffer, texts });
        true
    }

    /// Has opened items sealed in tokens; false where they are not back yet.
    fn seal_relayed_in_token(
        &mut self,
        job: &mut Job,
        away: &mut Away,
        to: &Destination,
        end: usize,
        at: Timestamp,
    ) -> Result<bool, Fault> {
        while away.cut_to < end {
            if let Cut::Reserve = cut::seal_segment(job, away, &mut self.trips, &self.shared, end)? {
                self.trips.reserve(job, &to.entry, &to.version)?;
                return Ok(false);
            }
        }
        if !away.segments.iter().all(Segment::is_back) {
            return Ok(false);
        }
        for segment in std::mem::take(&mut away.segments) {
            write_sealed(job, &segment, to, &self.shared.keyring, at);
        }
        Ok(true)
    }
}

/// Writes the items of a segment that was sealed in tokens.
fn write_sealed(job: &mut Job, segment: &Segment, to: &Destination, keyring: &Keyring, at: Timestamp) {
    let Task::Seal { what, done, .. } = &mut job.task else { return };
    let mut faults = Vec::new();
    let mut sealed = 0;
    for i in segment.range.clone() {
        let made = match segment.place(i) {
            Place::In { chunk, item } => segment.made(*chunk, *item),
            Place::Failed(fault) => Err(fault.clone()),
            Place::Here => Err(Error::internal("an item was not sent to its token").into()),
        };
        let made = match made {
            Ok(made) => made,
            Err(fault) => {
                seal::absent(&mut job.sheet, what);
                faults.push((i, fault));
                continue;
            }
        };
        let is_text = what.is_text(i);
        let write = |out: &mut [u8]| {
            let (header, rest) = out.split_at_mut(to.header.len());
            let (nonce, text) = rest.split_at_mut(made.nonce.len());
            header.copy_from_slice(&to.header(is_text));
            nonce.copy_from_slice(made.nonce);
            text.copy_from_slice(made.text);
            Ok::<(), Fault>(())
        };
        let len = to.header.len() + made.nonce.len() + made.text.len();
        let sheet = &mut job.sheet;
        if let Sealing::DataKeys { bytes, with_plaintext, .. } = what {
            sheet.pair();
            sheet.put(len, write).expect("copying cannot fail");
            let at = (i - segment.range.start) * *bytes;
            match &segment.secrets {
                Some(secrets) if *with_plaintext => {
                    let key = &secrets.expose()[at..at + *bytes];
                    let copy = |out: &mut [u8]| {
                        out.copy_from_slice(key);
                        Ok::<(), Fault>(())
                    };
                    sheet.put(key.len(), copy).expect("copying cannot fail");
                }
                _ => sheet.absent(),
            }
        } else {
            sheet.put(len, write).expect("copying cannot fail");
        }
        sealed += 1;
    }
    *done += sealed;
    keyring.count(&to.entry.cmk.id, &to.version, Use::Encrypted, sealed, at);
    for (i, fault) in faults {
        job.fail_item(i, fault);
    }
    if job.next < segment.range.end {
        job.next = segment.range.end;
    }
}

/// Seals what was opened, here.
fn write_relayed(
    job: &mut Job,
    away: &Away,
    to: &Destination,
    run: &mut SealRun,
    keyring: &Keyring,
    at: Timestamp,
) {
    let Some(relay) = &away.relay else { return };
    let Task::Seal { contexts, what, done, .. } = &mut job.task else { return };
    let mut faults = Vec::new();
    let mut sealed = 0;
    let mut aad = Vec::new();
    for (i, text) in relay.range.clone().zip(&relay.texts) {
        aad.clear();
        aad.extend_from_slice(&to.header(what.is_text(i)));
        aad.extend_from_slice(contexts.canonical(i));
        let outcome = match text {
            Ok(place) => {
                let text = &relay.buffer[place.clone()];
                let len = to.algorithm.overhead() + text.len();
                let put = job.sheet.put(len, |out| run.seal_to(&aad, text, out));
                put.map_err(|exhausted| Fault::from(Error::from(exhausted)))
            }
            Err(fault) => {
                job.sheet.absent();
                Err(fault.clone())
            }
        };
        match outcome {
            Ok(()) => sealed += 1,
            Err(fault) => faults.push((i, fault)),
        }
    }
    *done += sealed;
    if sealed > 0 {
        job.served.add(Served::SOFTWARE);
    }
    keyring.count(&to.entry.cmk.id, &to.version, Use::Encrypted, sealed, at);
    for (i, fault) in faults {
        job.fail_item(i, fault);
    }
}

/// Fails all items that are not done.
pub(super) fn fail_rest(job: &mut Job, fault: &Fault) {
    for i in job.next..job.len() {
        match &mut job.task {
            Task::Open(task) => {
                job.sheet.absent();
                task.index.push(None);
            }
            Task::Seal { what, .. } => seal::absent(&mut job.sheet, what),
            Task::Compute(_) => job.sheet.absent(),
            Task::Answered(_) | Task::Refused(_) => return,
        }
        job.fail_item(i, fault.clone());
    }
    job.next = job.len();
    job.waits = false;
}
