//! One writer's chain: its lines on their way to the log, the files that follow one another, and the reserve that holds what is in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keymill_core::audit::{AuditRecord, Outcome};
use keymill_core::error::{ErrorKind, Result};
use keymill_core::seam::audit::{AuditError, AuditSink, AuditSync, Shed};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{ChainHead, ChainWriter, Note, Opening};

use super::{AuditHub, MANAGEMENT, Watched};
use crate::config::AuditFiles;

/// Bytes of refusals that one chain holds for a log that cannot be written.
const MAX_PENDING: usize = 64 << 10;

/// The file that follows another, and where the chain in that one ended.
struct NextFile {
    ended: ChainHead,
    sink: Box<dyn AuditSink>,
    sync: Box<dyn AuditSync>,
}

/// How long after it failed the change to another file is tried again.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// One writer's chain with its sink; it has one owner. A file that is large or old is followed by another, and so is its chain.
pub struct DeskChain {
    pub(super) hub: Arc<AuditHub>,
    kind: Box<str>,
    writer: ChainWriter,
    pub(super) sink: Box<dyn AuditSink>,
    watched: Watched,
    /// Bytes in the file, and since when it is written to, or tried to be followed by another.
    file_bytes: u64,
    file_since: Timestamp,
    /// Lines that the sink does not have yet.
    pending: Vec<u8>,
    records: u64,
    pub(super) reserve_released: bool,
}

impl DeskChain {
    /// Opens a chain of its own for a writer of that kind.
    ///
    /// # Errors
    /// [`AuditError`] where the sink cannot be opened.
    pub fn open(hub: &Arc<AuditHub>, kind: &str) -> Result<Self, AuditError> {
        let name = hub.next_name(kind);
        let sink = hub.log.open_chain(&name)?;
        let mut pending = Vec::new();
        let now = hub.clock.now();
        let opening = Opening {
            time: now,
            node: &hub.node,
            software: env!("CARGO_PKG_VERSION"),
            previous: if kind == MANAGEMENT { &hub.previous } else { &[] },
        };
        let writer = ChainWriter::new(&hub.keys, &name, &opening, &mut pending)
            .map_err(|error| AuditError::Failed(error.to_string()))?;
        // Nothing is durable yet; the first hand-over says how far it has come.
        let watched = hub.watch(sink.syncer()?, ChainHead { sequence: 0, ..writer.head() });
        let mut chain = Self {
            hub: hub.clone(),
            kind: kind.into(),
            writer,
            sink,
            watched,
            file_bytes: 0,
            file_since: now,
            pending,
            records: 0,
            reserve_released: false,
        };
        chain.flush().map_err(|error| AuditError::Failed(error.to_string()))?;
        Ok(chain)
    }

    /// Adds a record; it is kept once [`Self::flush`] has returned.
    pub fn append(&mut self, record: &AuditRecord<'_>) {
        // Memory does not stand in for the disk: past this, refusals are counted alone, and the gap says how many.
        let is_refusal = matches!(record.outcome, Outcome::Failed(_));
        if is_refusal && self.pending.len() >= MAX_PENDING && !self.hub.is_healthy() {
            if record.outcome != Outcome::Failed(ErrorKind::AuditUnavailable) {
                self.hub.refused.fetch_add(1 + record.alike.len() as u64, Ordering::Relaxed);
            }
            return;
        }
        if self.hub.enabled {
            self.records += 1 + record.alike.len() as u64;
            self.writer.append(record, &mut self.pending);
        }
    }

    /// Adds a note.
    pub fn note(&mut self, note: &Note<'_>) {
        self.writer.note(self.hub.clock.now(), note, &mut self.pending);
    }

    /// Hands all lines to the sink, with a checkpoint where one is due.
    ///
    /// # Errors
    /// `AuditUnavailable`: the lines are kept for the next try, and audited requests are refused until it succeeds.
    pub fn flush(&mut self) -> Result<()> {
        let now = self.hub.clock.now();
        if self.writer.due(now) {
            self.writer.checkpoint(now, &mut self.pending);
        }
        self.hand_over()?;
        if self.tell_shed(false) {
            self.hand_over()?;
        }
        if self.is_file_over(now) {
            self.rotate(now)?;
        }
        Ok(())
    }

    /// Adds a note of lines that a place beside the log did not get; tells whether there is one.
    fn tell_shed(&mut self, is_end: bool) -> bool {
        let Some(Shed { sink, lines, first, last }) = self.sink.take_shed(is_end) else { return false };
        self.note(&Note::Shed { sink, lines, first, last });
        true
    }

    /// Tells whether the file is to be followed by another. One that holds no more than what begins it is not, however old it is.
    fn is_file_over(&self, now: Timestamp) -> bool {
        const BEGINNING: u64 = 2;
        let AuditFiles { rotate_bytes, rotate_age, .. } = self.hub.files;
        let is_large = self.file_bytes >= rotate_bytes;
        (is_large || now.since(self.file_since) >= rotate_age) && self.writer.position().0 > BEGINNING
    }

    /// Ends the chain and goes on with another in a file of its own, which names the end of this one. Where that cannot be, this one goes on.
    ///
    /// # Errors
    /// As [`Self::flush`], of the first line of the new chain.
    fn rotate(&mut self, now: Timestamp) -> Result<()> {
        if self.tell_shed(true) {
            self.hand_over()?;
        }
        let name = self.hub.next_name(&self.kind);
        let NextFile { ended, sink, sync } = match self.end_file(now, &name) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, chain = self.writer.head().chain, "the audit file cannot be followed by another yet");
                // Not with every flush.
                self.file_since = now.minus(self.hub.files.rotate_age).plus(ROTATE_AGAIN);
                self.file_bytes = self.file_bytes.min(self.hub.files.rotate_bytes / 2);
                return Ok(());
            }
        };
        let opening = Opening {
            time: now,
            node: &self.hub.node,
            software: env!("CARGO_PKG_VERSION"),
            previous: std::slice::from_ref(&ended),
        };
        self.writer = ChainWriter::new(&self.hub.keys, &name, &opening, &mut self.pending)?;
        let watched = self.hub.watch(sync, ChainHead { sequence: 0, ..self.writer.head() });
        let before = std::mem::replace(&mut self.watched, watched);
        // All of it is durable.
        self.hub.syncs.lock().retain(|sync| !Arc::ptr_eq(&sync.dirty, &before.dirty));
        *before.reached.head.lock() = ended;
        before.reached.has_ended.store(true, Ordering::Release);
        self.sink = sink;
        (self.file_bytes, self.file_since) = (0, now);
        self.hub.rotated.fetch_add(1, Ordering::Relaxed);
        self.hand_over()
    }

    /// Opens the next file, ends the chain in this one, and has all of it durable: the next chain says that it is there.
    fn end_file(&mut self, now: Timestamp, next: &str) -> Result<NextFile, AuditError> {
        let sink = self.hub.log.open_chain(next)?;
        // On a copy: where the sink does not take the end, the chain has none.
        let (mut ended, mut end) = (self.writer.clone(), Vec::new());
        ended.close(now, &mut end);
        // Once it is taken nothing may follow in this file.
        let ready = sink.syncer().and_then(|sync| self.sink.append(&end).map(|()| sync));
        let sync = match ready {
            Ok(sync) => sync,
            Err(error) => {
                drop(sink);
                if let Err(error) = self.hub.log.remove(next) {
                    tracing::warn!(%error, chain = next, "an empty audit file is left behind");
                }
                return Err(error);
            }
        };
        self.hub.bytes.fetch_add(end.len() as u64, Ordering::Relaxed);
        if let Err(error) = self.sink.syncer().and_then(|mut syncer| syncer.sync()) {
            tracing::error!(%error, "audit log: sync failed");
            self.hub.fail();
        }
        Ok(NextFile { ended: ended.head(), sink, sync })
    }

    pub(super) fn hand_over(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // While the log is well the reserve stands, whoever had given it up before.
        self.reserve_released &= !self.hub.is_healthy();
        let mut outcome = self.sink.append(&self.pending);
        // Space is no help where something else than the disk refuses.
        let needs_space = !matches!(outcome, Ok(()) | Err(AuditError::Blocked(_)));
        if needs_space && !self.reserve_released {
            // What is in flight can still be recorded; from here on nothing new is taken.
            self.sink.release_reserve();
            self.reserve_released = true;
            self.hub.fail();
            outcome = self.sink.append(&self.pending);
        }
        match outcome {
            Ok(()) => {
                self.hub.bytes.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
                self.hub.records.fetch_add(std::mem::take(&mut self.records), Ordering::Relaxed);
                self.file_bytes += self.pending.len() as u64;
                self.pending.clear();
                self.watched.dirty.store(true, Ordering::Release);
                let mut head = self.watched.reached.head.lock();
                (head.sequence, head.mac) = self.writer.position();
                Ok(())
            }
            Err(error) => {
                self.hub.fail();
                Err(error.into())
            }
        }
    }

    /// Closes the chain: nothing may follow its last checkpoint.
    pub fn close(&mut self) {
        self.tell_shed(true);
        self.writer.close(self.hub.clock.now(), &mut self.pending);
        if let Err(error) = self.hand_over() {
            tracing::error!(%error, "audit log: the chain could not be closed");
        }
    }
}
