//! The end of jobs at a desk: they are looked at once more, recorded, and only then answered.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::audit::{Alike, AuditRecord, Outcome, SecretTouch};
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::{CmkId, KeyVersionId};
use keymill_core::operation::{Class, Operation};
use keymill_core::time::Timestamp;

use super::Desk;
use crate::keyring::{Keyring, Use};
use crate::metrics::DeskMetrics;
use crate::work::export::export;
use crate::work::pair;
use crate::work::{
    Compute, Destination, Finished, Job, KeySlot, Product, ReplyTo, Sealing, Served, Tally, Task,
};

/// Requests that one line of the audit holds beside its first, at most.
const MAX_ALIKE: usize = 255;

impl Desk {
    /// Checks, records and answers jobs that are done; none is left in `done`.
    pub(super) fn finish(&mut self, done: &mut Vec<Box<Job>>, unfinished: &mut Vec<Box<Job>>) {
        if done.is_empty() {
            return;
        }
        let mut i = 0;
        while i < done.len() {
            match stale(&done[i].task) {
                Stale::No => i += 1,
                Stale::Destination(cmk) => {
                    let error = self.unusable(cmk);
                    done[i].refuse(error);
                    i += 1;
                }
                Stale::Source(_) => {
                    let mut job = done.remove(i);
                    self.trips.forget(&mut job);
                    job.restart();
                    unfinished.push(job);
                }
            }
        }
        for job in &mut *done {
            export(job);
            pair::append(job);
        }
        for job in done.iter_mut().filter(|job| job.is_dry_run) {
            if matches!(outcome(job), Outcome::Done) {
                job.refuse(Error::new(
                    ErrorKind::DryRun,
                    "the request would have been carried out, but DryRun is set",
                ));
            }
        }
        let (at, now) = (self.shared.clock.now(), Instant::now());
        done.iter().for_each(|job| count_relayed(&job.task, &self.shared.keyring, at));
        if let Some(chain) = &mut self.chain {
            let mut jobs = done.iter().peekable();
            let software = [self.shared.provider.profile().name];
            let mut of_tokens = Vec::new();
            while let Some(job) = jobs.next() {
                self.touches.clear();
                Tally::of(&job.task, &mut self.touches);
                self.alike.clear();
                while let Some(next) = jobs.peek()
                    && self.alike.len() < MAX_ALIKE
                    && is_alike(job, next)
                {
                    self.other_touches.clear();
                    Tally::of(&next.task, &mut self.other_touches);
                    if self.other_touches != self.touches {
                        break;
                    }
                    self.alike.push(Alike(next.call.request_id, micros(next, now)));
                    jobs.next();
                }
                // Neighbours are mostly let in by one rule; its text is made once.
                let rule = job.decided_by();
                if self.rule.0.as_ref() != rule {
                    let text = rule.map_or("none".into(), |rule| rule.to_string().into());
                    self.rule = (rule.cloned(), text);
                }
                let (keys, alike) = (&self.touches, &self.alike);
                let providers = match job.served {
                    Served::SOFTWARE => &software[..],
                    served => {
                        self.shared.provider_names(served, &mut of_tokens);
                        &of_tokens
                    }
                };
                chain.append(&AuditRecord {
                    rule: (&*self.rule.1).into(),
                    keys,
                    providers,
                    alike,
                    ..record(job, at, now)
                });
            }
            if let Err(error) = chain.flush() {
                for job in &mut *done {
                    job.refuse(Error::new(error.kind(), error.message().to_owned()));
                }
            }
        }
        // This node may have been cut off from what others do meanwhile.
        if self.shared.check_view().is_err() {
            let is_use = |job: &&mut Box<Job>| job.operation.is_some_and(|of| of.class() == Class::Data);
            for job in done.iter_mut().filter(is_use) {
                if let Err(error) = self.shared.check_view() {
                    job.refuse(error);
                }
            }
        }
        // A key may have been disabled while the log was written: what is recorded as done is then not given out all the same.
        for job in &mut *done {
            if let Stale::Destination(cmk) | Stale::Source(cmk) = stale(&job.task) {
                let error = self.unusable(cmk);
                job.refuse(error);
            }
        }
        self.shared.metrics.in_flight.sub(done.len() as i64);
        for mut job in done.drain(..) {
            self.trips.forget(&mut job);
            let (finished, reply_to) = into_finished(job, now, &mut self.metrics);
            if let Some(reply_to) = reply_to {
                reply_to.finished(finished);
            }
        }
        self.metrics.flush();
    }

    /// Returns why a key that was in use a moment ago no longer is.
    fn unusable(&self, cmk: CmkId) -> Error {
        match self.shared.keyring.cmk(&cmk) {
            Some(entry) => entry
                .cmk
                .state
                .check_usable()
                .err()
                .unwrap_or_else(|| Error::new(ErrorKind::Conflict, "the key was changed meanwhile")),
            None => Error::key_not_found(),
        }
    }
}

/// Counts what was opened to be sealed anew as uses of the versions that it was under.
fn count_relayed(task: &Task, keyring: &Keyring, at: Timestamp) {
    let Task::Seal { what: Sealing::Blobs(open), .. } = task else { return };
    for slot in open.keys.slots.iter().filter(|slot| slot.done > 0) {
        if let Ok((_, version)) = &slot.state {
            keyring.count(&slot.cmk, version, Use::Decrypted, slot.done, at);
        }
    }
}

enum Stale {
    No,
    Destination(CmkId),
    Source(CmkId),
}

/// Tells whether a key was disabled, or worse, since the job was admitted: nothing of it may be released then.
fn stale(task: &Task) -> Stale {
    let source = |slots: &[KeySlot]| {
        let stale = slots.iter().find(|slot| matches!(&slot.state, Ok((entry, _)) if !entry.is_current()));
        stale.map_or(Stale::No, |slot| Stale::Source(slot.cmk))
    };
    match task {
        Task::Seal { to: Destination { entry, .. }, .. } if !entry.is_current() => {
            Stale::Destination(entry.cmk.id)
        }
        Task::Seal { what: Sealing::Blobs(open), .. } => source(&open.keys.slots),
        Task::Open(open) => source(&open.keys.slots),
        Task::Compute(task) if !task.entry.is_current() => Stale::Destination(task.entry.cmk.id),
        _ => Stale::No,
    }
}

fn outcome(job: &Job) -> Outcome {
    match (&job.task, &job.first_fault) {
        (Task::Refused(error), _) => Outcome::Failed(error.kind()),
        (_, Some(fault)) if job.is_single() => Outcome::Failed(fault.kind),
        _ => Outcome::Done,
    }
}

fn micros(job: &Job, now: Instant) -> u64 {
    now.saturating_duration_since(job.call.received).as_micros() as u64
}

/// Tells whether the records of two jobs differ in nothing but their ids and times, the keys that they touched left aside.
fn is_alike(a: &Job, b: &Job) -> bool {
    a.operation == b.operation
        && a.decided_by() == b.decided_by()
        && a.call.principal == b.call.principal
        && a.call.source == b.call.source
        && a.call.frontend == b.call.frontend
        && a.len() == b.len()
        && a.errors.len() == b.errors.len()
        && a.context_digest == b.context_digest
        && a.fallback == b.fallback
        && a.served == b.served
        && recipient(a) == recipient(b)
        && a.approved_by == b.approved_by
        && secrets(a) == secrets(b)
        && a.certificate == b.certificate
        && outcome(a) == outcome(b)
}

fn recipient(job: &Job) -> Option<&str> {
    job.export.as_ref().map(|export| &*export.recipient)
}

/// Returns the secrets that the audit names with a job.
fn secrets(job: &Job) -> &[SecretTouch] {
    match (&job.secret, &job.secrets) {
        (Some(secret), _) => std::slice::from_ref(&secret.touch),
        (None, Some(secrets)) => &secrets.touches,
        (None, None) => &[],
    }
}

/// Returns the record of a job, but for its rule and its keys.
fn record(job: &Job, time: keymill_core::Timestamp, now: Instant) -> AuditRecord<'_> {
    AuditRecord {
        time,
        request: job.call.request_id,
        principal: Some(&job.call.principal.access_key),
        source: job.call.source,
        frontend: job.call.frontend,
        operation: job.operation.map_or("unknown", Operation::name),
        outcome: outcome(job),
        rule: "".into(),
        keys: &[],
        secrets: secrets(job),
        certificates: job.certificate.as_slice(),
        items: job.len() as u32,
        failed: job.errors.len() as u32,
        context: job.context_digest.as_deref().map(std::borrow::Cow::Borrowed),
        fallback: job.fallback,
        providers: &[],
        recipient: recipient(job).map(std::borrow::Cow::Borrowed),
        approved_by: job.approved_by.as_deref().map(std::borrow::Cow::Borrowed),
        micros: micros(job, now),
        alike: &[],
        writes: &[],
    }
}

#[allow(clippy::boxed_local, reason = "it is taken apart in its box, not moved out first")]
fn into_finished(
    job: Box<Job>,
    now: Instant,
    metrics: &mut DeskMetrics,
) -> (Finished, Option<Arc<dyn ReplyTo>>) {
    let single = job.is_single();
    let items = job.len();
    let failed = job.errors.len();
    let Job {
        call,
        operation,
        task,
        mut sheet,
        errors,
        first_fault,
        reply_to,
        ticket,
        data_key,
        secret,
        secrets,
        pair,
        ..
    } = *job;
    let result = match (task, first_fault) {
        (Task::Refused(error), _) => Err(error),
        (_, Some(fault)) if single => {
            sheet.wipe();
            Err(fault.into())
        }
        (Task::Answered(reply), _) => Ok(Product::Reply(reply)),
        (Task::Seal { to, .. }, _) => {
            let pair = pair.map(|pair| pair.spec);
            let (key, version) = (to.entry.cmk.id, to.version.id);
            Ok(Product::Made { key, version, mac: None, pair, certificate: None, errors })
        }
        (Task::Compute(task), _) => {
            let mac = match task.what {
                Compute::Mac(algorithm) | Compute::VerifyMac(algorithm) => Some(algorithm),
                _ => None,
            };
            let (key, version) = (task.entry.cmk.id, task.version.id);
            let certificate = task.entry.cmk.certificate.as_deref().copied();
            Ok(Product::Made { key, version, mac, pair: None, certificate, errors })
        }
        (Task::Open(open), _) => {
            // Several versions of one key are one row of the answer.
            let slots = &open.keys.slots;
            let mut keys: Vec<(CmkId, KeyVersionId)> = Vec::with_capacity(slots.len());
            let mut algorithm = None;
            let mut place_of = |slot: &KeySlot| {
                let (entry, version) = slot.state.as_ref().ok().filter(|_| slot.done > 0)?;
                let at = keys.iter().position(|(id, _)| *id == entry.cmk.id).unwrap_or_else(|| {
                    keys.push((entry.cmk.id, version.id));
                    algorithm = algorithm.or(entry.cmk.algorithm());
                    keys.len() - 1
                });
                Some(at as u32)
            };
            let mut index = open.index;
            match &slots[..] {
                // One key is the rule, and its place is the first.
                [slot] if slot.done > 0 => drop(place_of(slot)),
                slots => {
                    let places: Vec<Option<u32>> = slots.iter().map(place_of).collect();
                    for slot in &mut index {
                        *slot = slot.and_then(|at| places[at as usize]);
                    }
                }
            }
            Ok(Product::Opened { keys, index, errors, algorithm, data_key, secret, secrets })
        }
    };
    let took = now.saturating_duration_since(call.received);
    metrics.answered(operation, result.as_ref().err().map(Error::kind), items, failed, took);
    (Finished { ticket, call, operation, result, sheet }, reply_to)
}
