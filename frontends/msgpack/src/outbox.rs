//! The way out of a connection: takes finished jobs on the arbiter that did them, encodes their answers, and writes all that there
//! is in one go.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::error::Error;
use keymill_core::id::RequestId;
use keymill_core::operation::{Operation, Reply};
use keymill_runtime::{Finished, Gate, Product, ReplyTo};
use keymill_wire::batch::{self, FrameStart};
use keymill_wire::response;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::flow::Flow;

/// Answers from this size on have their encoding timed; a clock costs more than the encoding of a small one.
const TIMED_BYTES: usize = 16 * 1024;
/// Answers that one system call takes, at most (`IOV_MAX`).
const VECTORS: usize = 1024;
/// Buffers that are kept for further answers, and what they may hold together.
const SPARE_BUFFERS: usize = 1024;
const SPARE_BYTES: usize = 4 * 1024 * 1024;

/// The way out of one connection.
pub(crate) struct Outbox {
    gate: Gate,
    state: Mutex<State>,
    /// Something is there to be written, or nothing more will be.
    pub(crate) filled: Notify,
    /// Something was computed or written: the reader may go on.
    pub(crate) drained: Notify,
}

#[derive(Default)]
struct State {
    flow: Flow,
    /// Frames that are complete, in order; the last one may grow.
    frames: Vec<Vec<u8>>,
    /// Ids whose answers stand in `frames`.
    written: Vec<u64>,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    closed: bool,
}

impl Outbox {
    pub(crate) fn new(gate: Gate) -> Arc<Self> {
        Arc::new(Self { gate, state: Mutex::default(), filled: Notify::new(), drained: Notify::new() })
    }

    /// Takes a request in; false where its id is in flight already.
    pub(crate) fn take_in(&self, id: u64, bytes: usize) -> bool {
        self.state.lock().flow.take_in(id, bytes)
    }

    /// Looks at what is in flight.
    pub(crate) fn flow<T>(&self, look: impl FnOnce(&Flow) -> T) -> T {
        look(&self.state.lock().flow)
    }

    /// Returns a buffer that served before, or a new one.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        let buffer = state.spare.pop().unwrap_or_default();
        state.spare_bytes -= buffer.capacity();
        buffer
    }

    /// Returns the bytes of what is in flight and of buffers that are kept.
    pub(crate) fn held(&self) -> usize {
        self.state.lock().held()
    }

    /// Gives back the buffers that are kept, unless something is in flight; tells whether it did.
    pub(crate) fn rest(&self) -> bool {
        self.state.lock().rest()
    }

    /// Answers a management operation.
    pub(crate) fn managed(&self, id: u64, request_id: RequestId, answer: &Result<Reply<'static>, Error>) {
        let mut frame = Vec::new();
        match answer {
            Ok(reply) => response::encode_reply(id, reply, &mut frame),
            Err(error) => response::encode_error(id, error, request_id, &mut frame),
        }
        self.push(id, frame);
    }

    /// Sends last words: nothing is taken after them.
    pub(crate) fn last_words(&self, frame: Vec<u8>) {
        let mut state = self.state.lock();
        state.frames.push(frame);
        state.closed = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Sends nothing more than what is in flight.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    fn push(&self, id: u64, frame: Vec<u8>) {
        let mut state = self.state.lock();
        state.flow.computed(id, frame.len());
        state.written.push(id);
        state.frames.push(frame);
        drop(state);
        self.filled.notify_one();
        self.drained.notify_one();
    }

    /// Writes answers until the connection closes or a client leaves them unread for too long; returns whether all were written.
    pub(crate) async fn write<W: AsyncWrite + Unpin>(&self, write: &mut W, patience: Duration) -> bool {
        let (mut ids, mut frames) = (Vec::new(), Vec::new());
        loop {
            {
                let mut state = self.state.lock();
                std::mem::swap(&mut ids, &mut state.written);
                std::mem::swap(&mut frames, &mut state.frames);
            }
            if frames.is_empty() {
                if self.state.lock().is_done() {
                    return true;
                }
                self.filled.notified().await;
                continue;
            }
            match tokio::time::timeout(patience, write_all(write, &frames)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return false,
            }
            let mut state = self.state.lock();
            for id in ids.drain(..) {
                state.flow.let_go(id);
            }
            for frame in frames.drain(..) {
                state.keep(frame);
            }
            drop(state);
            self.drained.notify_one();
        }
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.closed && self.flow.len() == 0 && self.frames.is_empty()
    }

    fn held(&self) -> usize {
        self.flow.bytes() + self.spare_bytes
    }

    fn rest(&mut self) -> bool {
        if self.flow.len() > 0 {
            return false;
        }
        self.spare = Vec::new();
        self.spare_bytes = 0;
        true
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && self.spare_bytes + buffer.capacity() <= SPARE_BYTES {
            self.spare_bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }
}

async fn write_all<W: AsyncWrite + Unpin>(write: &mut W, frames: &[Vec<u8>]) -> std::io::Result<()> {
    if let [frame] = frames {
        write.write_all(frame).await?;
        return write.flush().await;
    }
    for frames in frames.chunks(VECTORS) {
        let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let written = write.write_vectored(rest).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    // Under TLS, what was written may wait to be sent.
    write.flush().await
}

impl ReplyTo for Outbox {
    fn finished(&self, finished: Finished) {
        let id = finished.ticket;
        let timed = (finished.sheet.written_bytes() > TIMED_BYTES).then(Instant::now);
        let frame = encode(finished);
        if let Some(started) = timed {
            self.gate.metrics().encoded(started.elapsed());
        }
        self.push(id, frame);
    }
}

/// Encodes the answer to a finished job; batches stand in the frame already, but for their tail.
fn encode(finished: Finished) -> Vec<u8> {
    use Operation::*;
    let Finished { ticket, call, operation, result, sheet } = finished;
    match (result, operation) {
        (Err(error), _) => {
            let mut frame = sheet.into_buffer();
            frame.clear();
            response::encode_error(ticket, &error, call.request_id, &mut frame);
            frame
        }
        (
            Ok(Product::Made { key, version, errors, .. }),
            Some(
                BatchEncrypt
                | BatchReEncrypt
                | BatchGenerateDataKey
                | BatchSign
                | BatchAsymmetricEncrypt
                | BatchAsymmetricDecrypt,
            ),
        ) => {
            let mut frame = sheet.into_written();
            batch::finish_batch(FrameStart::moved_to(0), &errors, key, version, &mut frame);
            frame
        }
        (Ok(Product::Made { key, version, .. }), Some(Encrypt | ReEncrypt)) => {
            let mut frame = sheet.into_written();
            batch::finish_single(FrameStart::moved_to(0), key, version, call.request_id, &mut frame);
            frame
        }
        (Ok(Product::Opened { keys, .. }), Some(Decrypt)) => {
            let mut frame = sheet.into_written();
            let (key, version) = keys.first().copied().expect("what was opened names its key");
            batch::finish_single(FrameStart::moved_to(0), key, version, call.request_id, &mut frame);
            frame
        }
        (Ok(Product::Opened { keys, index, errors, .. }), Some(BatchDecrypt)) => {
            let mut frame = sheet.into_written();
            let ids = keys.iter().map(|(id, _)| *id);
            batch::finish_batch_decrypt(FrameStart::moved_to(0), &errors, ids, &index, &mut frame);
            frame
        }
        (result, _) => {
            let finished = Finished { ticket, call, operation, result, sheet };
            let mut frame = Vec::new();
            match finished.reply() {
                Ok(reply) => response::encode_reply(ticket, &reply, &mut frame),
                Err(error) => response::encode_error(ticket, error, finished.call.request_id, &mut frame),
            }
            frame
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_given_back_once_nothing_is_in_flight() {
        let mut state = State::default();
        state.keep(Vec::with_capacity(1_000));
        assert!(state.flow.take_in(7, 100));
        assert!(state.held() >= 1_100);
        assert!(!state.rest(), "an answer is still to be made");
        state.flow.computed(7, 50);
        assert!(!state.rest(), "and to be written");
        state.flow.let_go(7);
        assert!(state.rest());
        assert_eq!((state.held(), state.spare.capacity()), (0, 0));
    }
}
