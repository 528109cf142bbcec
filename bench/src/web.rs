//! The least HTTP/1.1 client: requests signed beforehand, keep-alive, one request in flight a connection. It reads the head of an
//! answer for its status and its length, and nothing else of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::Timestamp;
use keymill_core::id::KeyRef;
use keymill_core::operation::{EncryptRequest, Operation, Request};
use keymill_wire::acs3::{self, Authorization, Signable};
use keymill_wire::aliyun::signature::string_to_sign;
use keymill_wire::request::encode_json;

use crate::error::{BenchError, Result};
use crate::fixture::Fixture;

/// The host that is signed: any, as long as it is sent so.
const HOST: &str = "localhost";

/// Makes signed requests, each with a nonce of its own.
pub struct Signer {
    id: String,
    key: hmac::Key,
    dialect: Dialect,
}

enum Dialect {
    /// `/v1`, signed in the headers.
    V1 { operation: Operation, body: Vec<u8>, body_hash: String },
    /// The cloud's, signed among the parameters.
    Rpc { key_id: String, plaintext: String },
}

impl Signer {
    /// Makes a signer of `Encrypt` of one plaintext by `/v1`.
    ///
    /// # Errors
    /// [`BenchError`] where the request has no encoding.
    pub fn new(fixture: &Fixture, plaintext: &[u8]) -> Result<Self> {
        let key_id: KeyRef = fixture.key();
        let request: Request<'_> = EncryptRequest {
            key_id,
            plaintext: plaintext.into(),
            encryption_context: None,
            timeout_ms: None,
        }
        .into();
        Self::of(fixture, &request)
    }

    /// Makes a signer of one request by `/v1`.
    ///
    /// # Errors
    /// [`BenchError`] where the request has no encoding.
    pub fn of(fixture: &Fixture, request: &Request<'_>) -> Result<Self> {
        let operation = request.operation();
        let body = encode_json(request)?;
        let (id, secret) = fixture.access_key();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let dialect = Dialect::V1 { operation, body_hash: acs3::hex(&sha256(&body)), body };
        Ok(Self { id: id.to_owned(), key, dialect })
    }

    /// Makes one by the cloud's dialect, RPC signature version 1.
    ///
    /// # Errors
    /// [`BenchError`] where the key is not named by its id.
    pub fn rpc(fixture: &Fixture, plaintext: &[u8]) -> Result<Self> {
        let KeyRef::Id(key_id) = fixture.key() else {
            return Err(BenchError::new("the key is named by its id"));
        };
        let (id, secret) = fixture.access_key();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{secret}&").as_bytes());
        let dialect = Dialect::Rpc { key_id: key_id.to_string(), plaintext: STANDARD.encode(plaintext) };
        Ok(Self { id: id.to_owned(), key, dialect })
    }

    /// Returns a request, head and body.
    ///
    /// # Errors
    /// [`BenchError`] where there is no randomness for the nonce.
    pub fn sign(&self) -> Result<Vec<u8>> {
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| BenchError::new("the system gives no random bytes"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = Timestamp::from_ms(now.as_millis() as u64).to_string();
        let nonce = acs3::hex(&nonce);
        match &self.dialect {
            Dialect::V1 { operation, body, body_hash } => {
                self.sign_v1(*operation, &date, &nonce, body, body_hash)
            }
            Dialect::Rpc { key_id, plaintext } => Ok(self.sign_rpc(&date, &nonce, key_id, plaintext)),
        }
    }

    fn sign_rpc(&self, date: &str, nonce: &str, key_id: &str, plaintext: &str) -> Vec<u8> {
        let pairs = [
            ("Action", "Encrypt"),
            ("Version", acs3::API_VERSION),
            ("Format", "JSON"),
            ("KeyId", key_id),
            ("Plaintext", plaintext),
            ("AccessKeyId", &self.id),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", nonce),
            ("Timestamp", date),
        ];
        let signature = hmac::sign(&self.key, string_to_sign("POST", pairs).as_bytes());
        let signature = STANDARD.encode(signature.as_ref());
        let escape =
            |text: &str| text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace(':', "%3A");
        let all = pairs.into_iter().chain([("Signature", &*signature)]);
        let query: Vec<_> = all.map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let query = query.join("&");
        format!("POST /?{query} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 0\r\n\r\n").into_bytes()
    }

    fn sign_v1(
        &self,
        operation: Operation,
        date: &str,
        nonce: &str,
        body: &[u8],
        body_hash: &str,
    ) -> Result<Vec<u8>> {
        let headers = [
            ("host", HOST),
            ("content-type", "application/json"),
            (acs3::ACTION, operation.name()),
            (acs3::ACS_VERSION, acs3::API_VERSION),
            (acs3::DATE, date),
            (acs3::NONCE, nonce),
            (acs3::CONTENT_SHA256, body_hash),
        ];
        let path = format!("/v1/{}", operation.name());
        let signable = Signable { method: "POST", path: &path, query: &[], headers: &headers };
        let signed_headers = signable.all_headers();
        let to_sign = signable.string_to_sign(acs3::SCHEME, &signed_headers, &sha256)?;
        let signature = hmac::sign(&self.key, &to_sign);
        let authorization = Authorization {
            credential: &self.id,
            scope: None,
            signed_headers: signed_headers.into(),
            signature: signature.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"),
        };
        let mut request = format!("POST {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let authorization = authorization.format();
        request
            .push_str(&format!("authorization: {authorization}\r\ncontent-length: {}\r\n\r\n", body.len()));
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        Ok(request)
    }

    /// Returns so many requests, at least one.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_many(&self, count: usize) -> Result<Vec<Vec<u8>>> {
        (0..count.clamp(1, 1 << 18)).map(|_| self.sign()).collect()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Connections to one server, driven by two threads: each writes a request to every connection of its half, then reads the answers.
pub struct Web {
    connections: Vec<Line>,
}

struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Threads that drive the connections.
const THREADS: usize = 2;

impl Web {
    /// Connects so many times.
    ///
    /// # Errors
    /// [`BenchError`] where the server cannot be reached.
    pub fn connect(address: SocketAddr, connections: usize) -> Result<Self> {
        let line = |_| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Ok(Line { stream, buffer: vec![0; 16 * 1024] })
        };
        Ok(Self { connections: (0..connections.max(THREADS)).map(line).collect::<Result<_>>()? })
    }

    /// Sends one request and returns the body of its answer.
    ///
    /// # Errors
    /// [`BenchError`] where the answer is not a success.
    pub fn call(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let line = &mut self.connections[0];
        line.stream.write_all(request)?;
        let body = line.answer()?;
        Ok(line.buffer[body].to_vec())
    }

    /// Sends each request once and returns answers a second.
    ///
    /// # Errors
    /// [`BenchError`] where an answer is not a success.
    pub fn run(&mut self, requests: &[Vec<u8>]) -> Result<f64> {
        let share = requests.len().div_ceil(THREADS).max(1);
        let half = self.connections.len().div_ceil(THREADS);
        let start = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .connections
                .chunks_mut(half)
                .zip(requests.chunks(share))
                .map(|(lines, requests)| scope.spawn(move || drive(lines, requests)))
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a client thread runs to its end"))
        })?;
        Ok(requests.len() as f64 / start.elapsed().as_secs_f64())
    }
}

fn drive(lines: &mut [Line], requests: &[Vec<u8>]) -> Result<()> {
    for round in requests.chunks(lines.len()) {
        for (line, request) in lines.iter_mut().zip(round) {
            line.stream.write_all(request)?;
        }
        for line in &mut lines[..round.len()] {
            line.answer()?;
        }
    }
    Ok(())
}

impl Line {
    /// Reads one answer and returns where its body lies in the buffer.
    fn answer(&mut self) -> Result<std::ops::Range<usize>> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(BenchError::new("the server closed the connection, or its answer is too long"));
            }
            filled += read;
            let Some(head) = head_len(&self.buffer[..filled]) else { continue };
            let end = head + body_len(&self.buffer[..head])?;
            if filled >= end {
                return Ok(head..end);
            }
        }
    }
}

fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads the length of the body, and refuses an answer that is no success.
fn body_len(head: &[u8]) -> Result<usize> {
    let head = String::from_utf8_lossy(head);
    if !head.starts_with("HTTP/1.1 200") {
        return Err(BenchError::new(format!(
            "the server answered {}",
            head.lines().next().unwrap_or_default()
        )));
    }
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse().ok())
        .ok_or_else(|| BenchError::new("the server answered without a length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_by_its_length_and_only_a_success_counts() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(head_len(&[head, &b"hello"[..]].concat()), Some(head.len()));
        assert_eq!(body_len(head).unwrap(), 5);
        assert!(body_len(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").is_err());
        assert_eq!(head_len(b"HTTP/1.1 200 OK\r\n"), None);
    }

    #[test]
    fn requests_reach_an_echo_and_come_back_counted() {
        let echo = keymill_ceilings::HttpEcho::start(1).unwrap();
        let mut web = Web::connect(echo.addr, 4).unwrap();
        let request = b"POST / HTTP/1.1\r\nhost: e\r\ncontent-length: 2\r\n\r\nhi".to_vec();
        assert_eq!(web.call(&request).unwrap(), b"hi");
        assert!(web.run(&vec![request; 101]).unwrap() > 0.0);
    }
}
