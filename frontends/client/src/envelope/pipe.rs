//! Segments on their way from an input to an output: one thread reads ahead, the caller's seals or opens, one writes behind. The
//! same few buffers go round, so that memory does not follow the input.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::thread::Builder;

use zeroize::Zeroizing;

use super::error::EnvelopeError;
use super::stream::{SEGMENT_BYTES, Segments, TAG_BYTES, room};

/// Buffers that go round: one held back until it is known whether it is the last, and for each of the three one to work on and one that
/// waits.
const BUFFERS: usize = 6;

/// Which way segments go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Seal,
    Open,
}

/// The bytes that came in and went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// A stream that is under way.
pub(super) struct Pipe {
    pub(super) way: Way,
    pub(super) segments: Segments,
}

/// A segment, with room for its tag; wiped when it goes.
struct Buffer {
    bytes: Zeroizing<Box<[u8]>>,
    length: usize,
}

impl Pipe {
    /// Passes `input` to its end.
    ///
    /// # Errors
    /// As the two callers say. Where several things go wrong, the first along the way of the bytes is told.
    pub(super) fn run(
        mut self,
        input: impl Read + Send,
        output: impl Write + Send,
        mut progress: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Totals, EnvelopeError> {
        let (free, take_free) = flume::bounded(BUFFERS);
        for _ in 0..BUFFERS {
            let bytes = Zeroizing::new(vec![0; SEGMENT_BYTES].into_boxed_slice());
            free.send(Buffer { bytes, length: 0 }).expect("there is a place for each buffer");
        }
        let (read, take_read) = flume::bounded(BUFFERS);
        let (done, take_done) = flume::bounded(BUFFERS);
        let way = self.way;
        let space = move |number| match way {
            Way::Seal => room(number, SEGMENT_BYTES) - TAG_BYTES,
            Way::Open => room(number, SEGMENT_BYTES),
        };
        std::thread::scope(|scope| {
            let reader = Builder::new()
                .name("envelope-read".to_owned())
                .spawn_scoped(scope, move || read_ahead(input, space, &take_free, &read))
                .map_err(EnvelopeError::Read)?;
            let writer = Builder::new()
                .name("envelope-write".to_owned())
                .spawn_scoped(scope, move || write_behind(output, &take_done, &free))
                .map_err(EnvelopeError::Write)?;
            let passed = self.pass(&take_read, &done, &mut progress);
            // What waits for us waits in vain from here on.
            drop((take_read, done));
            let read = reader.join().expect("reading does not panic").map_err(EnvelopeError::Read);
            let written = writer.join().expect("writing does not panic").map_err(EnvelopeError::Write);
            let read = read?;
            let passed = passed?;
            let written = written?;
            passed.expect("where reading and writing went well, the last segment came by");
            Ok(Totals { read, written })
        })
    }

    /// Seals or opens what was read; nothing comes of it where one of the others stopped first.
    fn pass(
        &mut self,
        read: &flume::Receiver<(Buffer, bool)>,
        done: &flume::Sender<Buffer>,
        progress: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<()>, EnvelopeError> {
        let mut total = 0;
        while let Ok((mut buffer, is_last)) = read.recv() {
            total += buffer.length as u64;
            buffer.length = match self.way {
                Way::Seal => {
                    let length = buffer.length + TAG_BYTES;
                    self.segments.seal(&mut buffer.bytes[..length], is_last)?;
                    length
                }
                Way::Open => self.segments.open(&mut buffer.bytes[..buffer.length], is_last)?,
            };
            if done.send(buffer).is_err() {
                return Ok(None);
            }
            if progress(total).is_break() {
                return Err(EnvelopeError::Interrupted);
            }
            if is_last {
                return Ok(Some(()));
            }
        }
        Ok(None)
    }
}

/// Reads segments, each handed on once it is known whether it is the last; returns how many bytes there were.
fn read_ahead(
    mut input: impl Read,
    space: impl Fn(u64) -> usize,
    free: &flume::Receiver<Buffer>,
    read: &flume::Sender<(Buffer, bool)>,
) -> io::Result<u64> {
    let mut total = 0;
    let mut held: Option<Buffer> = None;
    for number in 0.. {
        // Nobody takes or gives where the others have stopped.
        let Ok(mut buffer) = free.recv() else { break };
        let space = space(number);
        buffer.length = fill(&mut input, &mut buffer.bytes[..space])?;
        total += buffer.length as u64;
        let is_end = buffer.length < space;
        let before = match (held.take(), buffer.length) {
            (Some(before), 0) => {
                let _ = read.send((before, true));
                break;
            }
            (before, _) => before,
        };
        if let Some(before) = before
            && read.send((before, false)).is_err()
        {
            break;
        }
        if is_end {
            let _ = read.send((buffer, true));
            break;
        }
        held = Some(buffer);
    }
    Ok(total)
}

/// Reads until the buffer is full or the input at its end.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Writes what is done, and returns how many bytes there were.
fn write_behind(
    mut output: impl Write,
    done: &flume::Receiver<Buffer>,
    free: &flume::Sender<Buffer>,
) -> io::Result<u64> {
    let mut total = 0;
    while let Ok(buffer) = done.recv() {
        output.write_all(&buffer.bytes[..buffer.length])?;
        total += buffer.length as u64;
        // The reader may be at its end.
        let _ = free.send(buffer);
    }
    output.flush()?;
    Ok(total)
}
