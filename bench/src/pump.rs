//! Keeps requests in flight over MessagePack TCP by keymill's own client, which is the same for keymill and for its ceilings: it
//! encodes each request, decodes each answer, and its cost is on both sides of the ratio.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use keymill_client::{Connection, Credentials, Options, Receiver, Sender};
use keymill_core::id::{KeyRef, KeyVersionId};
use keymill_core::key::SignAlgorithm;
use keymill_core::operation::{
    BatchDecryptRequest, BatchEncryptRequest, BatchSignRequest, Bin, DecryptRequest, EncryptRequest,
    MessageType, Reply, Request,
};

use crate::error::{BenchError, Result};

/// The operation of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `Encrypt`, an item a request.
    Encrypt,
    /// `Decrypt`, an item a request.
    Decrypt,
    /// `BatchEncrypt`.
    BatchEncrypt,
    /// `BatchDecrypt`.
    BatchDecrypt,
    /// `BatchSign` of digests, with that version of a key pair.
    BatchSign(SignAlgorithm, KeyVersionId),
}

/// Requests of one kind, and how many of them are on their way.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The operation.
    pub what: What,
    /// Items of a request; 1 where it takes one.
    pub items: usize,
    /// Plaintext bytes of an item.
    pub item_len: usize,
    /// Requests in flight on a connection.
    pub depth: usize,
    /// Connections, each driven by a thread of its own.
    pub connections: usize,
}

/// Connections to one server, with the requests that are sent over them.
pub struct Pump {
    lines: Vec<Line>,
}

struct Line {
    sender: Sender,
    receiver: Receiver,
    key: KeyRef,
    payloads: Vec<Vec<u8>>,
    shape: Shape,
}

impl Pump {
    /// Connects, and has the server seal what is to be opened.
    ///
    /// # Errors
    /// [`BenchError`] where the server does not answer as it should.
    pub fn open(address: SocketAddr, credentials: &Credentials, key: &KeyRef, shape: Shape) -> Result<Self> {
        Self::open_by(&Options::default(), address, credentials, key, shape)
    }

    /// The same with options of one's own, such as TLS.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(
        options: &Options,
        address: SocketAddr,
        credentials: &Credentials,
        key: &KeyRef,
        shape: Shape,
    ) -> Result<Self> {
        let line = |_| Line::open(options, address, credentials, key.clone(), shape);
        Ok(Self { lines: (0..shape.connections).map(line).collect::<Result<_>>()? })
    }

    /// Sends and receives for `time` and returns items answered a second.
    ///
    /// # Errors
    /// [`BenchError`] where an answer is not a success.
    pub fn run(&mut self, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let answered: Result<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.lines.iter_mut().map(|line| scope.spawn(move || line.run(start, time))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client thread runs to its end")).sum()
        });
        Ok(answered? as f64 / start.elapsed().as_secs_f64())
    }
}

impl Line {
    fn open(
        options: &Options,
        address: SocketAddr,
        credentials: &Credentials,
        key: KeyRef,
        shape: Shape,
    ) -> Result<Self> {
        let mut connection = Connection::open(address, credentials, options)?;
        let mut payloads: Vec<Vec<u8>> = (0..shape.items).map(|i| vec![i as u8; shape.item_len]).collect();
        if matches!(shape.what, What::Decrypt | What::BatchDecrypt) {
            let seal = request(What::BatchEncrypt, &key, &payloads);
            connection.send(&seal)?;
            let answer = connection.receive()?;
            let Reply::BatchEncrypt(sealed) = answer.result()? else {
                return Err(BenchError::new("BatchEncrypt was answered by another reply"));
            };
            payloads = sealed
                .items
                .into_iter()
                .map(|item| item.map(Bin::into_vec).ok_or_else(|| BenchError::new("an item was not sealed")))
                .collect::<Result<_>>()?;
        }
        let (sender, receiver) = connection.split();
        Ok(Self { sender, receiver, key, payloads, shape })
    }

    /// Sends in halves of the depth, so that as many answers are on their way as requests, and a system call serves many.
    fn run(&mut self, start: Instant, time: Duration) -> Result<usize> {
        let half = (self.shape.depth / 2).max(1);
        let mut answered = 0;
        let second = if self.shape.depth > 1 { half } else { 0 };
        self.send(half)?;
        loop {
            let last = start.elapsed() >= time;
            if !last {
                self.send(second)?;
            }
            answered += self.receive(half)?;
            if last {
                return Ok(answered);
            }
            if second == 0 {
                self.send(half)?;
            }
        }
    }

    fn send(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.sender.send(&request(self.shape.what, &self.key, &self.payloads))?;
        }
        Ok(self.sender.flush()?)
    }

    fn receive(&mut self, count: usize) -> Result<usize> {
        let mut items = 0;
        for _ in 0..count {
            items += answered(&self.receiver.receive()?.result()?)?;
        }
        Ok(items)
    }
}

/// Makes the request that a load repeats.
pub fn request<'a>(what: What, key: &KeyRef, payloads: &'a [Vec<u8>]) -> Request<'a> {
    let items = || payloads.iter().map(|payload| Bin::from(&payload[..])).collect();
    let first = || Bin::from(&payloads[0][..]);
    let (key_id, timeout_ms) = (key.clone(), None);
    match what {
        What::Encrypt => {
            EncryptRequest { key_id, plaintext: first(), encryption_context: None, timeout_ms }.into()
        }
        What::Decrypt => {
            DecryptRequest { ciphertext_blob: first(), key_id: None, encryption_context: None, timeout_ms }
                .into()
        }
        What::BatchEncrypt => BatchEncryptRequest {
            key_id,
            items: items(),
            encryption_context: None,
            encryption_contexts: None,
            timeout_ms,
        }
        .into(),
        What::BatchDecrypt => BatchDecryptRequest {
            items: items(),
            key_id: None,
            encryption_context: None,
            encryption_contexts: None,
            timeout_ms,
        }
        .into(),
        What::BatchSign(algorithm, key_version_id) => BatchSignRequest {
            key_id: Some(key_id),
            key_version_id: Some(key_version_id),
            certificate_id: None,
            algorithm,
            message_type: MessageType::Digest,
            messages: items(),
            timeout_ms,
        }
        .into(),
    }
}

/// Counts the items of a reply; a failed one is an error, since only good data is measured.
pub(crate) fn answered(reply: &Reply<'_>) -> Result<usize> {
    let (items, errors) = match reply {
        Reply::Encrypt(_) | Reply::Decrypt(_) => return Ok(1),
        Reply::BatchEncrypt(reply) => (reply.items.len(), reply.errors.len()),
        Reply::BatchDecrypt(reply) => (reply.items.len(), reply.errors.len()),
        Reply::BatchSign(reply) => (reply.items.len(), reply.errors.len()),
        other => return Err(BenchError::new(format!("unexpected {:?}", other.operation()))),
    };
    if errors > 0 {
        return Err(BenchError::new(format!("{errors} of {items} items failed")));
    }
    Ok(items)
}
