//! The least of a client: frames made beforehand, only their ids change, so that what is timed is the server.
//! It checks id, status and item count of each answer and nothing else. One thread, blocking, so what is in
//! flight must fit the socket buffers (about 2 MiB each way).

use std::io::{self, Error, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

use crate::bare_loop::Input;
use crate::pack::{Output, Reader};

/// A request frame made once and sent many times.
pub struct Request {
    frame: Vec<u8>,
    items: usize,
}

impl Request {
    /// Where the id stands: after the frame length, the head of the array and the marker of a `u64`.
    const ID: std::ops::Range<usize> = 6..14;

    /// A request of one `bin`: `Encrypt` with `Plaintext`, `Decrypt` with `CiphertextBlob`.
    pub fn single(operation: &str, field: &str, payload: &[u8]) -> Self {
        Self::new(operation, 1, |out| {
            out.str(field);
            out.bin(payload.len()).copy_from_slice(payload);
        })
    }

    /// A request of many: `BatchEncrypt` or `BatchDecrypt` with `Items`.
    pub fn batch<I: AsRef<[u8]>>(operation: &str, items: &[I]) -> Self {
        Self::new(operation, items.len(), |out| {
            out.str("Items");
            out.array(items.len());
            for item in items {
                out.bin(item.as_ref().len()).copy_from_slice(item.as_ref());
            }
        })
    }

    fn new(operation: &str, items: usize, payload: impl FnOnce(&mut Output)) -> Self {
        let mut out = Output::default();
        let start = out.begin_frame();
        out.array(3);
        out.uint(u64::MAX); // nine bytes, overwritten when sent
        out.str(operation);
        let with_key = operation.ends_with("Encrypt");
        out.map(1 + u8::from(with_key));
        if with_key {
            out.str("KeyId");
            out.str("6b6d0000-0000-4000-8000-000000000001");
        }
        payload(&mut out);
        out.end_frame(start);
        Self { frame: out.filled().to_vec(), items }
    }
}

/// A connection to a bare loop.
pub struct RawClient {
    stream: TcpStream,
    input: Input,
    output: Output,
    sent: u64,
}

impl RawClient {
    /// Connects and says hello, without a signature: the bare loop takes any.
    ///
    /// # Errors
    /// If the server cannot be reached or greets otherwise.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, input: Input::new(), output: Output::default(), sent: 0 };
        client.receive()?;
        let start = client.output.begin_frame();
        client.output.array(3);
        client.output.uint(0);
        client.output.str("Hello");
        client.output.map(0);
        client.output.end_frame(start);
        client.flush()?;
        client.receive()?;
        Ok(client)
    }

    /// Sends `request` once and returns the answer's frame, without its length.
    ///
    /// # Errors
    /// If the connection ends.
    pub fn call(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        self.push(request);
        self.flush()?;
        self.receive()
    }

    /// Sends `request` `count` times with `depth` in flight, and returns the items answered.
    ///
    /// # Errors
    /// If the connection ends, or an answer is not the success that was due.
    pub fn pump(&mut self, request: &Request, count: u64, depth: u64) -> io::Result<u64> {
        let mut received = self.sent;
        let last = self.sent + count;
        while received < last {
            while self.sent < last && self.sent - received < depth {
                self.push(request);
            }
            self.flush()?;
            if !self.input.fill(&mut self.stream)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            while let Some(frame) = self.input.frame() {
                received += 1;
                if answered_items(frame, received) != Some(request.items) {
                    return Err(Error::new(
                        ErrorKind::InvalidData,
                        format!("answer {received} is not a success"),
                    ));
                }
            }
        }
        Ok(count * request.items as u64)
    }

    fn push(&mut self, request: &Request) {
        self.sent += 1;
        let frame = self.output.room(request.frame.len());
        frame.copy_from_slice(&request.frame);
        frame[Request::ID].copy_from_slice(&self.sent.to_be_bytes());
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(self.output.filled())?;
        self.output.clear();
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.input.frame() {
                return Ok(frame.to_vec());
            }
            if !self.input.fill(&mut self.stream)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Walks an answer that should have the id `id` and status 0, and counts its payloads.
fn answered_items(frame: &[u8], id: u64) -> Option<usize> {
    let mut answer = Reader::new(frame);
    if answer.array()? != 3 || answer.uint()? != id || answer.uint()? != 0 || answer.map()? == 0 {
        return None;
    }
    if answer.str()? != b"Items" {
        return answer.bin().map(|_| 1);
    }
    let items = answer.array()?;
    for _ in 0..items {
        answer.bin()?;
    }
    Some(items)
}
