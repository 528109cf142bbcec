//! Reads the input and cuts it into runs of rows. Memory holds one record and what was read behind it, never the file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::args::{Format, Place};
use super::checkpoint::{Checkpoint, Identity};
use super::csv::CsvCutter;
use super::error::BatchError;
use super::ndjson::NdjsonCutter;
use super::plan::Plan;
use super::rows::Rows;

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes of a record, at most: a quote left open must not pull the whole file into memory.
pub(super) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of raw rows in a run, where few or none of them have cells for the request.
const RUN_BYTES: usize = 1024 * 1024;

/// Finds the records of a format and the cells in them.
pub(super) trait Cutter: Send + fmt::Debug {
    /// Adds the record that `unread` begins with to `rows` and returns its length; nothing where its end is not there yet.
    fn cut(&mut self, unread: &[u8], ended: bool, rows: &mut Rows) -> Result<Option<usize>, BatchError>;
    /// Tells whether the names of columns are still to be read.
    fn header_missing(&self) -> bool;
    /// Tells the cutter that what follows is not the start of the file.
    fn skip_start(&mut self);
}

/// Returns the length of the mark at the start of a file; nothing where too few bytes are there to tell.
pub(super) fn byte_order_mark(unread: &[u8], ended: bool) -> Option<usize> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    match unread.starts_with(MARK) {
        true => Some(MARK.len()),
        false if !ended && MARK.starts_with(unread) => None,
        false => Some(0),
    }
}

/// Why a run of rows is no longer than it is.
#[derive(Debug)]
pub(super) enum Filled {
    /// It holds as much as a request should.
    Full,
    /// The input ended.
    Ended,
    /// What follows cannot be read; the rows of the run are good.
    Failed(BatchError),
}

/// The input, cut into rows.
#[derive(Debug)]
pub(super) struct Reader<'p> {
    plan: &'p Plan,
    source: Source,
    cutter: Box<dyn Cutter + 'p>,
    /// The header, until it is in a run.
    head: Vec<u8>,
    identity: Option<Identity>,
    rows: u64,
}

impl<'p> Reader<'p> {
    /// Opens the input and reads its header.
    ///
    /// # Errors
    /// Wrong use where the plan's columns are not in the header.
    pub(super) fn open(plan: &'p Plan) -> Result<Self, BatchError> {
        let unreadable = |error| BatchError::io("read", plan.input.path(), error);
        let (input, identity) = match &plan.input {
            Place::Standard => (Input::Standard, None),
            Place::File(path) => {
                let mut file = File::open(path).map_err(unreadable)?;
                let identity = Identity::of(&mut file).map_err(unreadable)?;
                (Input::File(file), identity)
            }
        };
        let cutter: Box<dyn Cutter + 'p> = match plan.format {
            Format::Csv => Box::new(CsvCutter::new(plan)?),
            Format::Ndjson => Box::new(NdjsonCutter::new(plan)?),
        };
        let source = Source::new(input);
        let mut reader = Self { plan, source, cutter, head: Vec::new(), identity, rows: 0 };
        let mut head = Rows::default();
        head.first_row = 1;
        while reader.cutter.header_missing() && reader.record(&mut head)? {}
        reader.head = head.raw().to_vec();
        Ok(reader)
    }

    /// Returns what tells the input from others, where it is a file.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Returns the length of the input, where it is known.
    pub(super) fn input_bytes(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.bytes)
    }

    /// Goes to where an earlier run stopped.
    pub(super) fn resume(&mut self, from: &Checkpoint) -> Result<(), BatchError> {
        self.source.seek(from.input_offset).map_err(|error| self.unreadable(error))?;
        self.cutter.skip_start();
        self.head.clear();
        self.rows = from.rows;
        Ok(())
    }

    /// Fills an empty run.
    pub(super) fn fill(&mut self, rows: &mut Rows) -> Filled {
        rows.first_row = self.rows + 1;
        if !self.head.is_empty() {
            rows.add().pass(&std::mem::take(&mut self.head));
        }
        let filled = loop {
            let full = rows.cells() >= self.plan.batch_items
                || rows.item_bytes() >= self.plan.batch_bytes
                || rows.raw().len() >= RUN_BYTES;
            if full {
                break Filled::Full;
            }
            match self.record(rows) {
                Ok(true) => {}
                Ok(false) => break Filled::Ended,
                Err(error) => break Filled::Failed(error),
            }
        };
        self.rows += rows.count;
        rows.input_offset = self.source.offset;
        filled
    }

    /// Adds the next record to `rows`, or tells that there is none.
    fn record(&mut self, rows: &mut Rows) -> Result<bool, BatchError> {
        loop {
            let (unread, ended) = self.source.unread();
            if unread.is_empty() && ended {
                return Ok(false);
            }
            if let Some(length) = self.cutter.cut(unread, ended, rows)? {
                self.source.consume(length);
                return Ok(true);
            }
            if self.source.unread().0.len() >= MAX_RECORD_BYTES {
                let message =
                    format!("the row is longer than {MAX_RECORD_BYTES} bytes; is a quote left open?");
                return Err(BatchError::row(rows.first_row + rows.count, message));
            }
            self.source.more().map_err(|error| self.unreadable(error))?;
        }
    }

    fn unreadable(&self, error: io::Error) -> BatchError {
        BatchError::io("read", self.plan.input.path(), error)
    }
}

#[derive(Debug)]
enum Input {
    Standard,
    File(File),
}

/// A buffer over the input.
#[derive(Debug)]
struct Source {
    input: Input,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// Bytes of the input before `start`.
    offset: u64,
}

impl Source {
    fn new(input: Input) -> Self {
        Self { input, buffer: vec![0; READ_BYTES], start: 0, end: 0, ended: false, offset: 0 }
    }

    /// Returns what is read and not consumed, and whether nothing follows it.
    fn unread(&self) -> (&[u8], bool) {
        (&self.buffer[self.start..self.end], self.ended)
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
        self.offset += length as u64;
    }

    /// Reads once.
    fn more(&mut self) -> io::Result<()> {
        if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            // Twice as much each time, so that a long record is scanned a few times and not many.
            if self.end * 2 > self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            } else if self.end < READ_BYTES && self.buffer.len() > 2 * READ_BYTES {
                self.buffer.truncate(2 * READ_BYTES);
                self.buffer.shrink_to_fit();
            }
        }
        let read = loop {
            let into = &mut self.buffer[self.end..];
            let read = match &mut self.input {
                Input::Standard => io::stdin().lock().read(into),
                Input::File(file) => file.read(into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.ended = read == 0;
        self.end += read;
        Ok(())
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        if let Input::File(file) = &mut self.input {
            file.seek(SeekFrom::Start(offset))?;
        }
        (self.start, self.end, self.ended, self.offset) = (0, 0, false, offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_told_once_enough_bytes_are_there() {
        assert_eq!(byte_order_mark(b"\xef\xbb\xbfa", false), Some(3));
        assert_eq!(byte_order_mark(b"\xef\xbb", false), None);
        assert_eq!(byte_order_mark(b"", false), None);
        assert_eq!(byte_order_mark(b"\xef\xbb", true), Some(0));
        assert_eq!(byte_order_mark(b"a", false), Some(0));
    }

    #[test]
    fn the_buffer_grows_for_a_long_record_and_shrinks_after_it() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..6_000_000_u32).map(|i| (i % 251) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        file.rewind().unwrap();
        let mut source = Source::new(Input::File(file));
        while source.unread().0.len() < 3_000_000 {
            source.more().unwrap();
        }
        assert_eq!(source.unread().0[..3_000_000], bytes[..3_000_000]);
        let mut read = 0;
        while !(source.unread().1 && source.unread().0.is_empty()) {
            let length = source.unread().0.len().min(100_000);
            assert_eq!(source.unread().0[..length], bytes[read..read + length]);
            source.consume(length);
            read += length;
            if length < 100_000 {
                source.more().unwrap();
            }
        }
        assert_eq!(read, bytes.len());
        assert!(source.buffer.len() <= 2 * READ_BYTES, "{}", source.buffer.len());
    }
}
