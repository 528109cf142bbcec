//! The receiving half of a connection. Answers are not copied out of the buffer that the socket fills: each holds on to it,
//! and the buffer is used again once the answers in it are gone.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keymill_core::operation::{Operation, Reply};
use keymill_wire::answer::{AnswerShape, check_answer, decode_error, decode_reply};
use keymill_wire::frame::{self, LENGTH_BYTES};
use zeroize::Zeroize;

use crate::error::{ClientError, Result, ServerError, undecodable};
use crate::sender::operation_of;
use crate::stream::Incoming;

/// Bytes of a fresh buffer: an answer to 256 items of 1 KiB fits with room to spare.
const BUFFER_BYTES: usize = 512 * 1024;
/// Buffers that wait for their answers to go.
const SPARES: usize = 4;

/// Receives answers, in whatever order the server finishes them.
#[derive(Debug)]
pub struct Receiver {
    frames: Frames,
    sent: Arc<AtomicU64>,
    received: u64,
}

/// An answer in its frame. Plaintexts and data keys are in it, so that `Debug` tells their length alone.
#[derive(Clone)]
pub struct Answer {
    id: u64,
    operation: Operation,
    status: u16,
    buffer: Arc<Vec<u8>>,
    body: Range<usize>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, operation, status, body, .. } = self;
        write!(f, "Answer({id}, {}, status {status}, {} bytes)", operation.name(), body.len())
    }
}

impl Answer {
    /// Returns the id that [`Sender::send`](crate::Sender::send) gave the request.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the operation of the request.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Reads the reply; its bytes are borrowed from the frame.
    ///
    /// # Errors
    /// `Refused` with what the server said, `Protocol` for a reply that is not of its form.
    pub fn result(&self) -> Result<Reply<'_>> {
        match self.refusal() {
            Some(error) => Err(error),
            None => decode_reply(self.operation, self.body()).map_err(undecodable),
        }
    }

    /// Reads the error, where it is one; a reply is not decoded.
    pub(crate) fn refusal(&self) -> Option<ClientError> {
        (self.status != 0).then(|| refusal(self.status, self.body()))
    }

    fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }
}

impl Receiver {
    pub(crate) fn new(frames: Frames, sent: Arc<AtomicU64>) -> Self {
        Self { frames, sent, received: 0 }
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// `Io` for a connection that ended, broke or was silent for too long; `Refused` where the server ends the
    /// connection with a reason; `Protocol` for anything that is not an answer.
    pub fn receive(&mut self) -> Result<Answer> {
        let Frame { buffer, range } = self.frames.next()?;
        let AnswerShape { id, status, body } = check_answer(&buffer[range.clone()])?;
        if id == 0 {
            return Err(match status {
                0 => ClientError::protocol("a welcome after the welcome"),
                _ => refusal(status, body),
            });
        }
        let operation = operation_of(id)
            .filter(|_| self.in_flight() > 0)
            .ok_or_else(|| ClientError::protocol(format!("answer {id} belongs to no request")))?;
        self.received += 1;
        // The body is the end of the frame.
        let body = range.end - body.len()..range.end;
        Ok(Answer { id, operation, status, buffer, body })
    }

    /// Returns how many requests were sent, or wait in the sender's buffer, and are not answered.
    pub fn in_flight(&self) -> u64 {
        self.sent.load(Ordering::Acquire) - self.received
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.frames.stream.socket()
    }
}

/// Reads the error of a frame.
pub(crate) fn refusal(status: u16, body: &[u8]) -> ClientError {
    match decode_error(body) {
        Ok(body) => ServerError::new(status, body).into(),
        Err(error) => undecodable(error),
    }
}

/// A frame without its length, inside the buffer that it came in.
pub(crate) struct Frame {
    pub(crate) buffer: Arc<Vec<u8>>,
    pub(crate) range: Range<usize>,
}

/// Cuts what a socket brings into frames.
pub(crate) struct Frames {
    stream: Incoming,
    /// As long as its capacity: a read needs bytes to write over, and writing zeros first would cost as much as the copy.
    buffer: Arc<Vec<u8>>,
    /// What is read and not cut yet.
    unread: Range<usize>,
    spares: Vec<Arc<Vec<u8>>>,
    max_frame: usize,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames({} bytes unread)", self.unread.len())
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for buffer in std::iter::once(&mut self.buffer).chain(&mut self.spares) {
            // Where an answer is still held, its holder has the buffer.
            if let Some(bytes) = Arc::get_mut(buffer) {
                bytes.zeroize();
            }
        }
    }
}

impl Frames {
    pub(crate) fn new(stream: Incoming, max_frame: usize) -> Self {
        let buffer = Arc::new(vec![0; BUFFER_BYTES]);
        Self { stream, buffer, unread: 0..0, spares: Vec::new(), max_frame }
    }

    /// Waits for the next frame.
    pub(crate) fn next(&mut self) -> Result<Frame> {
        loop {
            let needed = match self.buffer[self.unread.clone()].first_chunk::<LENGTH_BYTES>() {
                None => LENGTH_BYTES,
                Some(prefix) => {
                    let needed = LENGTH_BYTES + frame::length(*prefix, self.max_frame)?;
                    if needed <= self.unread.len() {
                        let start = self.unread.start;
                        self.unread.start += needed;
                        let range = start + LENGTH_BYTES..start + needed;
                        return Ok(Frame { buffer: Arc::clone(&self.buffer), range });
                    }
                    needed
                }
            };
            self.read(needed)?;
        }
    }

    /// Reads once, after making room for more of a frame of `needed` bytes.
    fn read(&mut self, needed: usize) -> Result<()> {
        self.make_room(needed);
        let end = self.unread.end;
        let buffer = Arc::get_mut(&mut self.buffer).expect("a buffer with room is ours alone");
        let read = loop {
            match self.stream.read(&mut buffer[end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            let within = if self.unread.is_empty() { "between" } else { "within" };
            let message = format!("the server closed the connection {within} answers");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
        }
        self.unread.end += read;
        Ok(())
    }

    /// Makes the buffer ours alone, with the unread bytes in it and room behind them.
    fn make_room(&mut self, needed: usize) {
        let unread = self.unread.clone();
        // Memory follows the bytes that came, not the length announced.
        let wanted = needed.min(2 * unread.len()).max(BUFFER_BYTES);
        if let Some(buffer) = Arc::get_mut(&mut self.buffer) {
            if unread.start + needed <= buffer.len() {
                return;
            }
            if wanted <= buffer.len() && unread.len() < buffer.len() {
                if unread.start > 0 {
                    buffer.copy_within(unread.clone(), 0);
                    self.unread = 0..unread.len();
                }
                return;
            }
        }
        let mut fresh = self.spare(wanted);
        let into = Arc::get_mut(&mut fresh).expect("a spare is ours alone");
        into[..unread.len()].copy_from_slice(&self.buffer[unread.clone()]);
        let full = std::mem::replace(&mut self.buffer, fresh);
        if self.spares.len() < SPARES {
            self.spares.push(full);
        }
        self.unread = 0..unread.len();
    }

    /// Returns a buffer of at least `length` bytes that nobody else holds on to.
    fn spare(&mut self, length: usize) -> Arc<Vec<u8>> {
        // Too small ones are given up, so that a stream of large answers ends up with large buffers.
        self.spares.retain(|spare| spare.len() >= length);
        match self.spares.iter_mut().position(|spare| Arc::get_mut(spare).is_some()) {
            Some(free) => self.spares.swap_remove(free),
            None => Arc::new(vec![0; length]),
        }
    }

    pub(crate) fn set_max_frame(&mut self, max_frame: usize) {
        self.max_frame = max_frame;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn pair(max_frame: usize) -> (TcpStream, Frames) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, Frames::new(Incoming::Plain(stream), max_frame))
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes(), payload].concat()
    }

    #[test]
    fn frames_of_any_size_come_whole_whether_answers_are_held_or_dropped() {
        let sizes: Vec<usize> =
            (0..200).map(|i| [1, 7, 300, 70_000, 600_000, 3_000_000][i % 6] + i).collect();
        for hold in [0, 1, 50] {
            let (mut server, mut frames) = pair(16 << 20);
            let sent = sizes.clone();
            let writer = std::thread::spawn(move || {
                for (i, size) in sent.into_iter().enumerate() {
                    server.write_all(&framed(&vec![i as u8; size])).unwrap();
                }
            });
            let mut held = std::collections::VecDeque::new();
            for (i, size) in sizes.iter().enumerate() {
                held.push_back((i, *size, frames.next().unwrap()));
                while held.len() > hold {
                    let (i, size, frame) = held.pop_front().unwrap();
                    assert_eq!(frame.range.len(), size);
                    assert!(frame.buffer[frame.range].iter().all(|byte| *byte == i as u8));
                }
            }
            for (i, size, frame) in held {
                assert_eq!(frame.range.len(), size);
                assert!(frame.buffer[frame.range].iter().all(|byte| *byte == i as u8));
            }
            writer.join().unwrap();
        }
    }

    #[test]
    fn buffers_of_dropped_answers_are_used_again() {
        let (mut server, mut frames) = pair(1024);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            server.write_all(&framed(&[0; 1000])).unwrap();
            seen.insert(frames.next().unwrap().buffer.as_ptr());
        }
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let (mut server, mut frames) = pair(1 << 30);
        server.write_all(&[0x3f, 0xff, 0xff, 0xff, 1, 2, 3]).unwrap();
        drop(server);
        let error = frames.next().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("within answers"), "{error}");
        assert_eq!(frames.buffer.len(), BUFFER_BYTES);
    }

    #[test]
    fn a_frame_past_the_limit_is_a_fault() {
        let (mut server, mut frames) = pair(1024);
        server.write_all(&[0, 0, 4, 1]).unwrap();
        assert!(matches!(frames.next(), Err(ClientError::Protocol(_))));
    }
}
