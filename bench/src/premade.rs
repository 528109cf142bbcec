//! The least client that keymill lets in: it logs in, then sends one frame made beforehand and counts the answers. It allocates
//! nothing while it pumps, so that what is counted or profiled is the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use aws_lc_rs::hmac;
use keymill_core::operation::Request;
use keymill_wire::frame::LENGTH_BYTES;
use keymill_wire::hello::{self, Auth, Hello};
use keymill_wire::request::encode_request;

use crate::error::{BenchError, Result};

/// Where the id of the premade frame stands: after its length, the head of the array and the marker of a `u64`.
const ID: std::ops::Range<usize> = LENGTH_BYTES + 2..LENGTH_BYTES + 10;
/// The first id; it takes nine bytes, as every later one.
const FIRST_ID: u64 = 1 << 40;

/// Connects to `address` and logs in with an access key; of the connection nothing is left here but the socket.
///
/// # Errors
/// [`BenchError`] where the server does not let it in.
pub(crate) fn log_in(address: SocketAddr, (id, secret): (&str, &str)) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let greeting = read_frame(&mut stream)?;
    let challenge = hello::decode_challenge(&greeting).map_err(BenchError::from)?;
    let signed = hello::signed_bytes(&challenge.nonce, id, &[]);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &signed);
    let signature = signature.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes");
    let hello = Hello { client: "bench".into(), auth: Auth::AccessKey { id: id.into(), signature } };
    let mut out = Vec::new();
    hello::encode_hello(&hello, &mut out);
    stream.write_all(&out)?;
    read_frame(&mut stream)?;
    Ok(stream)
}

/// Reads one frame and nothing after it, without its length.
///
/// # Errors
/// [`BenchError`] where the connection ends.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// A connection that repeats one request.
pub struct Premade {
    stream: TcpStream,
    frame: Vec<u8>,
    out: Vec<u8>,
    input: Vec<u8>,
    /// What was read and not counted yet.
    unread: std::ops::Range<usize>,
    next_id: u64,
}

impl Premade {
    /// Connects to `address` and logs in with an access key.
    ///
    /// # Errors
    /// [`BenchError`] where the server does not let it in.
    pub fn connect(address: SocketAddr, (id, secret): (&str, &str), request: &Request<'_>) -> Result<Self> {
        let mut frame = Vec::new();
        encode_request(FIRST_ID, request, &mut frame)?;
        let (out, input) = (Vec::with_capacity(4 << 20), vec![0; 4 << 20]);
        let stream = log_in(address, (id, secret))?;
        Ok(Self { stream, frame, out, input, unread: 0..0, next_id: FIRST_ID })
    }

    /// Sends the request `count` times, in bursts of half of `depth`, and waits for all answers.
    ///
    /// # Errors
    /// [`BenchError`] where the connection ends.
    pub fn pump(&mut self, count: usize, depth: usize) -> Result<()> {
        let half = (depth / 2).max(1);
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            self.out.clear();
            while sent < count && sent - answered < 2 * half && self.out.len() < half * self.frame.len() {
                let start = self.out.len();
                self.out.extend_from_slice(&self.frame);
                self.out[start..][ID].copy_from_slice(&self.next_id.to_be_bytes());
                self.next_id += 1;
                sent += 1;
            }
            self.stream.write_all(&self.out)?;
            let due = if sent < count { answered + half } else { count };
            while answered < due.min(sent) {
                self.next_frame()?;
                answered += 1;
            }
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<std::ops::Range<usize>> {
        loop {
            if let Some(prefix) = self.input[self.unread.clone()].first_chunk::<LENGTH_BYTES>() {
                let length = LENGTH_BYTES + u32::from_be_bytes(*prefix) as usize;
                if length <= self.unread.len() {
                    let start = self.unread.start;
                    self.unread.start += length;
                    return Ok(start + LENGTH_BYTES..start + length);
                }
            }
            if self.unread.start > 0 {
                self.input.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
            }
            let read = self.stream.read(&mut self.input[self.unread.end..])?;
            if read == 0 {
                return Err(BenchError::new("the server closed the connection"));
            }
            self.unread.end += read;
        }
    }
}
