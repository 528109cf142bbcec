//! The sending half of a connection: requests are serialised straight into one buffer, which goes out when it is full or
//! when it is flushed.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keymill_core::operation::{Operation, Request};
use keymill_wire::frame::LENGTH_BYTES;
use keymill_wire::request::encode_request;

use crate::error::{ClientError, Result};
use crate::stream::Outgoing;

/// Bytes in the buffer that are sent without waiting for a flush: a frame of 64 to 256 KiB stays in the L2 cache.
const FLUSH_BYTES: usize = 256 * 1024;
/// Bytes of buffer that are kept between flushes; one large request should not cost its memory for ever.
const KEPT_BYTES: usize = 4 * FLUSH_BYTES;

/// Bits of an id that say which operation it is of, so that the receiving half needs no table of what was sent.
const OPERATION_BITS: u32 = 8;

/// Sends requests; may live on another thread than its [`Receiver`](crate::Receiver).
#[derive(Debug)]
pub struct Sender {
    stream: Outgoing,
    buffer: Vec<u8>,
    sent: Arc<AtomicU64>,
    max_frame: usize,
}

impl Sender {
    pub(crate) fn new(stream: Outgoing, max_frame: usize, sent: Arc<AtomicU64>) -> Self {
        Self { stream, buffer: Vec::new(), sent, max_frame }
    }

    /// Puts a request into the buffer and returns its id. The buffer goes out once it holds 256 KiB.
    ///
    /// # Errors
    /// `Unsendable` for a request that is longer than the server takes, and nothing of it is sent; `Io` where sending fails.
    pub fn send(&mut self, request: &Request<'_>) -> Result<u64> {
        let start = self.buffer.len();
        let number = self.sent.load(Ordering::Relaxed) + 1;
        let id = id_of(number, request.operation());
        encode_request(id, request, &mut self.buffer)
            .map_err(|error| ClientError::Unsendable(error.message().to_owned()))?;
        let length = self.buffer.len() - start - LENGTH_BYTES;
        if length > self.max_frame {
            self.buffer.truncate(start);
            let limit = self.max_frame;
            return Err(ClientError::Unsendable(format!(
                "frame of {length} bytes exceeds the limit of {limit}"
            )));
        }
        self.sent.store(number, Ordering::Release);
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(id)
    }

    /// Sends what is in the buffer.
    ///
    /// # Errors
    /// `Io`; the last request of the buffer has then not reached the server as a whole.
    pub fn flush(&mut self) -> Result<()> {
        let sent = self.stream.write_all(&self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        Ok(sent?)
    }

    /// Sends what is in the buffer and tells the server that nothing follows; answers still come.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        Ok(self.stream.finish()?)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }
}

fn id_of(number: u64, operation: Operation) -> u64 {
    // 2^45 requests of one connection take longer than its machine lives.
    number << OPERATION_BITS | operation as u64
}

/// Returns the operation of an id of ours.
pub(crate) fn operation_of(id: u64) -> Option<Operation> {
    Operation::ALL.get((id & ((1 << OPERATION_BITS) - 1)) as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_operation_and_stays_in_range() {
        for operation in Operation::ALL {
            let id = id_of(1 << 44, operation);
            assert_eq!(operation_of(id), Some(operation));
            assert!((1..=keymill_wire::frame::MAX_ID).contains(&id));
        }
        assert_eq!(operation_of(0x1ff), None);
    }
}
