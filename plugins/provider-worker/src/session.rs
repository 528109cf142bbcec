//! The parent's side of a session: a batch goes over as one message, or a few where it is large or the device slow, and what comes
//! back is written where it belongs.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoSession, DeriveJob, JobError, KeyHandle, ProviderError, SessionLost,
};

use crate::connection::{Connection, Trouble};
use crate::pace::Pace;
use crate::supervisor::Supervisor;
use crate::wire::{AeadAnswer, AeadRequest, DeriveAnswer, DeriveRequest, Kind, KeyRef, RANDOM_BYTES, TEXT_BYTES};

/// Bytes of a message, where its first item is not larger by itself: what stays in the cache of a core goes fastest.
const MESSAGE_BYTES: usize = 512 * 1024;
/// Derivations of a message.
const MESSAGE_JOBS: usize = 4096;

pub(crate) struct WorkerSession {
    supervisor: Arc<Supervisor>,
    generation: u64,
    /// `None` once it is lost.
    connection: Option<Connection>,
    aead: Pace,
    derive: Pace,
}

impl WorkerSession {
    pub(crate) fn open(supervisor: &Arc<Supervisor>) -> Result<Self, ProviderError> {
        let timeout = supervisor.config.call_timeout;
        let (generation, connection) = supervisor.converse(Kind::OpenSession, timeout)?;
        supervisor.session_opened(generation);
        Ok(Self {
            supervisor: Arc::clone(supervisor),
            generation,
            connection: Some(connection),
            aead: Pace::default(),
            derive: Pace::default(),
        })
    }

    /// Returns the key of a handle, if it is of the worker that the session speaks with.
    fn key(&mut self, handle: &KeyHandle) -> Result<Result<KeyRef, JobError>, SessionLost> {
        let key = match self.supervisor.owner.key(handle) {
            Ok(key) if key.generation == self.generation => Ok(key),
            // The handle is fine, or will be after another load; it is the session that is of before.
            _ if self.supervisor.generation() != self.generation => {
                return Err(self.lose(&Trouble::Gone("another has been started".into())));
            }
            Ok(_) => Err(JobError::StaleHandle),
            Err(error) => Err(error),
        };
        Ok(key)
    }

    fn connection(&mut self) -> Result<&mut Connection, SessionLost> {
        self.connection.as_mut().ok_or_else(|| SessionLost { reason: "the session was lost before".into() })
    }

    /// Gives the session up.
    fn lose(&mut self, trouble: &Trouble) -> SessionLost {
        let timeout = self.supervisor.config.call_timeout;
        let reason = self.supervisor.reason(self.generation, trouble, timeout);
        if let Some(connection) = self.connection.take() {
            self.supervisor.session_closed(self.generation);
            if matches!(trouble, Trouble::Hung) {
                self.supervisor.hung(self.generation, connection.into_stream(), false);
            }
        }
        SessionLost { reason }
    }

    /// Does every item that has no outcome yet.
    fn each(&mut self, kind: Kind, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        let key = match self.key(key)? {
            Ok(key) => key,
            Err(error) => {
                let undone = batch.items.iter_mut().filter(|item| item.outcome.is_none());
                undone.for_each(|item| item.outcome = Some(Err(error)));
                return Ok(());
            }
        };
        let mut from = 0;
        while let Some(message) = self.next_message(batch, from) {
            from = message.last().map_or(from, |at| at + 1);
            self.message(kind, key, batch, &message)?;
        }
        Ok(())
    }

    /// Chooses the undone items from `from` on that go together; those that no message can carry are rejected.
    fn next_message(&self, batch: &mut AeadBatch, from: usize) -> Option<Vec<usize>> {
        let AeadBatch { buffer, aad, items } = batch;
        let limit = self.aead.items(self.supervisor.config.call_timeout);
        let (mut message, mut bytes) = (Vec::new(), 0);
        for (at, item) in items.iter_mut().enumerate().skip(from) {
            if item.outcome.is_some() {
                continue;
            }
            let Some(item_bytes) = measured(item, buffer.len(), aad.len()) else {
                item.outcome = Some(Err(JobError::Rejected));
                continue;
            };
            if message.len() == limit || (!message.is_empty() && bytes + item_bytes > MESSAGE_BYTES) {
                break;
            }
            bytes += item_bytes;
            message.push(at);
        }
        (!message.is_empty()).then_some(message)
    }

    /// Sends some items, and writes back what became of them.
    fn message(
        &mut self,
        kind: Kind,
        key: KeyRef,
        batch: &mut AeadBatch,
        message: &[usize],
    ) -> Result<(), SessionLost> {
        let AeadBatch { buffer, aad, items } = batch;
        let ranges = texts(items, message);
        let bytes = ranges.iter().map(|range| range.len()).sum();
        let connection = self.connection()?;
        AeadRequest::encode(key, aad, message.iter().map(|at| &items[*at]), connection.begin());
        let asked = Instant::now();
        let answered = connection.ask(kind, ranges.iter().map(|range| &buffer[range.clone()]));
        let elapsed = asked.elapsed();
        let answer = answered.and_then(move |header| {
            connection.read(header, Kind::Outcomes, |body| AeadAnswer::decode(body, message.len(), bytes))
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(trouble) => return Err(self.lose(&trouble)),
        };
        let mut at_text = 0;
        for (at, outcome) in message.iter().zip(answer.outcomes()) {
            let item = &mut items[*at];
            let tagged = item.text.start..item.text.end + TAG_BYTES;
            if outcome == Some(Ok(())) {
                buffer[tagged.clone()].copy_from_slice(&answer.texts[at_text..at_text + tagged.len()]);
            }
            at_text += tagged.len();
            item.outcome = outcome;
        }
        let lost = answer.lost;
        self.aead.took(message.len(), elapsed);
        self.end_of_message(lost)
    }

    /// Wipes what came, and gives the session up where the worker did.
    fn end_of_message(&mut self, lost: Option<SessionLost>) -> Result<(), SessionLost> {
        self.connection()?.wipe();
        let Some(lost) = lost else { return Ok(()) };
        if self.connection.take().is_some() {
            self.supervisor.session_closed(self.generation);
        }
        Err(lost)
    }
}

/// Returns the bytes of an item, if its ranges lie inside the batch and a message can carry it.
fn measured(item: &AeadItem, buffer: usize, aad: usize) -> Option<usize> {
    let text = item.text.end.checked_sub(item.text.start)?;
    let associated = item.aad.end.checked_sub(item.aad.start)?;
    let inside = item.text.end.checked_add(TAG_BYTES)? <= buffer && item.aad.end <= aad;
    let bytes = text.checked_add(associated)?.checked_add(TAG_BYTES)?;
    (inside && bytes <= TEXT_BYTES).then_some(bytes)
}

/// Returns where the texts and tags of some items stand; neighbours are joined.
fn texts(items: &[AeadItem], message: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::with_capacity(1);
    for item in message.iter().map(|at| &items[*at]) {
        let tagged = item.text.start..item.text.end + TAG_BYTES;
        match ranges.last_mut() {
            Some(last) if last.end == tagged.start => last.end = tagged.end,
            _ => ranges.push(tagged),
        }
    }
    ranges
}

impl CryptoSession for WorkerSession {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.each(Kind::Encrypt, key, batch)
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.each(Kind::Decrypt, key, batch)
    }

    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        let key = self.key(key)?;
        let mut undone: Vec<&mut DeriveJob> = jobs.iter_mut().filter(|job| job.output.is_none()).collect();
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                undone.iter_mut().for_each(|job| job.output = Some(Err(error)));
                return Ok(());
            }
        };
        let mut undone = undone.as_mut_slice();
        while !undone.is_empty() {
            let limit = self.derive.items(self.supervisor.config.call_timeout);
            let (message, rest) = undone.split_at_mut(undone.len().min(limit).min(MESSAGE_JOBS));
            undone = rest;
            let connection = self.connection()?;
            DeriveRequest::encode(key, message.iter().map(|job| &**job), connection.begin());
            let asked = Instant::now();
            let answered = connection.ask(Kind::Derive, [].into_iter());
            let elapsed = asked.elapsed();
            let answer = answered.and_then(|header| {
                connection.read(header, Kind::Derived, |body| DeriveAnswer::decode(body, message.len()))
            });
            let DeriveAnswer { lost, outputs } = match answer {
                Ok(answer) => answer,
                Err(trouble) => return Err(self.lose(&trouble)),
            };
            message.iter_mut().zip(outputs).for_each(|(job, output)| job.output = output);
            self.derive.took(message.len(), elapsed);
            self.end_of_message(lost)?;
        }
        Ok(())
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        let drawn = out.chunks_mut(RANDOM_BYTES).try_for_each(|chunk| self.random_chunk(chunk));
        if drawn.is_err() {
            out.fill(0);
        }
        drawn
    }
}

impl WorkerSession {
    fn random_chunk(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        let unavailable = |lost: SessionLost| ProviderError::Unavailable(lost.reason);
        let connection = self.connection().map_err(unavailable)?;
        connection.begin().extend((out.len() as u32).to_be_bytes());
        let answer = match connection.ask_for(Kind::Random, Kind::Bytes) {
            Ok(Ok(bytes)) if bytes.len() == out.len() => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            Ok(Ok(_)) => Err(connection.unexpected()),
            Ok(Err(failed)) => return Err(self.supervisor.judged(failed)),
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok(()) => self.end_of_message(None).map_err(unavailable),
            Err(trouble) => Err(unavailable(self.lose(&trouble))),
        }
    }
}

impl Drop for WorkerSession {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close();
            self.supervisor.session_closed(self.generation);
        }
    }
}
