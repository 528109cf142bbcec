//! Batches on the caller's own thread, with nothing between it and the engine but the gate: policy, audit and metrics are on.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keymill_core::id::{KeyRef, KeyVersionId};
use keymill_core::key::SignAlgorithm;
use keymill_core::operation::{
    BatchDecryptRequest, BatchEncryptRequest, BatchSignRequest, Bin, MessageType, Request,
};
use keymill_runtime::gate::Ask;
use keymill_runtime::work::{Cancel, Job};
use keymill_runtime::{Call, Gate, Opened, Product, Sheet};

use crate::error::{BenchError, Result};
use crate::fixture::Fixture;

/// A caller on one thread: a batch of equal items end to end in one buffer, and the buffer that answers come back in.
pub struct Caller<'f> {
    fixture: &'f Fixture,
    gate: Gate,
    /// Under which to seal: each batch under another, in no order.
    keys: Vec<KeyRef>,
    /// The state of that.
    drawn: u64,
    frame: Bytes,
    item_len: usize,
    work: Work,
    buffer: Vec<u8>,
}

/// What is done with each item.
#[derive(Clone, Copy)]
enum Work {
    Seal,
    Open,
    Sign(SignAlgorithm, KeyVersionId),
}

/// Bytes of a digest that is signed.
const DIGEST_BYTES: usize = 32;

impl<'f> Caller<'f> {
    /// Makes a caller that seals `items` × `item_len` bytes.
    pub fn sealing(fixture: &'f Fixture, items: usize, item_len: usize) -> Self {
        Self::sealing_under(fixture, vec![fixture.key()], items, item_len)
    }

    /// Makes a caller that seals each batch under one of `keys`, at random.
    pub fn sealing_under(fixture: &'f Fixture, keys: Vec<KeyRef>, items: usize, item_len: usize) -> Self {
        Self::over(fixture, keys, vec![0x5a; items * item_len], item_len, Work::Seal)
    }

    /// Makes a caller that signs `items` digests of SHA-256 with a version of a key pair.
    pub fn signing(
        fixture: &'f Fixture,
        (key, version): (KeyRef, KeyVersionId),
        algorithm: SignAlgorithm,
        items: usize,
    ) -> Self {
        let digests = vec![0x5a; items * DIGEST_BYTES];
        Self::over(fixture, vec![key], digests, DIGEST_BYTES, Work::Sign(algorithm, version))
    }

    /// Makes a caller that opens blobs of one length, which stand end to end.
    pub(crate) fn opening_blobs(fixture: &'f Fixture, blobs: Vec<u8>, blob_len: usize) -> Self {
        Self::over(fixture, vec![fixture.key()], blobs, blob_len, Work::Open)
    }

    fn over(fixture: &'f Fixture, keys: Vec<KeyRef>, items: Vec<u8>, item_len: usize, work: Work) -> Self {
        let frame = Bytes::from(items);
        let gate = fixture.gate();
        Self { fixture, gate, keys, drawn: 1, frame, item_len, work, buffer: Vec::new() }
    }

    /// Makes a caller that opens what it had sealed.
    ///
    /// # Errors
    /// [`BenchError`] where sealing fails.
    pub fn opening(fixture: &'f Fixture, items: usize, item_len: usize) -> Result<Self> {
        let blobs = Self::sealing(fixture, items, item_len).blobs()?;
        let blob_len = blobs.len() / items.max(1);
        Ok(Self::opening_blobs(fixture, blobs, blob_len))
    }

    /// Performs one batch and returns what came of its items, end to end.
    ///
    /// # Errors
    /// [`BenchError`] where any item fails.
    pub(crate) fn blobs(&mut self) -> Result<Vec<u8>> {
        let job = self.queued()?;
        Ok(self.perform(job)?.items().flatten().flatten().copied().collect())
    }

    /// Performs one batch and returns its items.
    ///
    /// # Errors
    /// [`BenchError`] where any item fails.
    pub fn batch(&mut self) -> Result<usize> {
        let job = self.queued()?;
        let sheet = self.perform(job)?;
        let items = sheet.items().len();
        self.buffer = sheet.into_buffer();
        Ok(items)
    }

    /// Draws a key: by a linear congruential generator, whose upper bits are as good as any here.
    fn key(&mut self) -> KeyRef {
        self.drawn =
            self.drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.keys[(self.drawn >> 33) as usize % self.keys.len()].clone()
    }

    fn queued(&mut self) -> Result<Box<Job>> {
        let buffer = std::mem::take(&mut self.buffer);
        self.queued_into(buffer)
    }

    /// Has the gate take one batch whose answer goes into `buffer`, and returns it as it waits for its turn.
    pub(crate) fn queued_into(&mut self, buffer: Vec<u8>) -> Result<Box<Job>> {
        let key_id = self.key();
        let items = self.frame.chunks_exact(self.item_len).map(Bin::from).collect();
        let request: Request<'_> = match self.work {
            Work::Open => BatchDecryptRequest {
                items,
                key_id: None,
                encryption_context: None,
                encryption_contexts: None,
                timeout_ms: None,
            }
            .into(),
            Work::Seal => BatchEncryptRequest {
                key_id,
                items,
                encryption_context: None,
                encryption_contexts: None,
                timeout_ms: None,
            }
            .into(),
            Work::Sign(algorithm, version) => BatchSignRequest {
                key_id: Some(key_id),
                key_version_id: Some(version),
                certificate_id: None,
                algorithm,
                message_type: MessageType::Digest,
                messages: items,
                timeout_ms: None,
            }
            .into(),
        };
        let call = Call {
            request_id: self.gate.request_id(),
            principal: self.fixture.principal(),
            source: None,
            frontend: "in-process",
            received: Instant::now(),
            nonce: None,
        };
        let opened = self.gate.open(Ask {
            call,
            request,
            is_text: false,
            is_dry_run: false,
            frame: Some(&self.frame),
            sheet: Sheet::plain_over(buffer, None),
            reply_to: None,
            cancel: Cancel::default(),
            ticket: 0,
        });
        match opened {
            Opened::Job(job) => Ok(job),
            Opened::Managed(_) => Err(BenchError::new("a batch is no management operation")),
        }
    }

    /// Performs a batch that waited.
    pub(crate) fn perform(&self, job: Box<Job>) -> Result<Sheet> {
        let finished = self.gate.perform(job)?;
        match finished.result? {
            Product::Made { errors, .. } | Product::Opened { errors, .. } if errors.is_empty() => {
                Ok(finished.sheet)
            }
            _ => Err(BenchError::new("an item of a batch failed")),
        }
    }
}

/// Runs `make`'s caller on each of `threads` threads for `time` and returns items a second over all of them.
///
/// # Errors
/// [`BenchError`] where a caller fails.
pub fn rate<'f>(threads: usize, time: Duration, make: impl Fn() -> Result<Caller<'f>> + Sync) -> Result<f64> {
    let ready = Barrier::new(threads);
    let one = || {
        // Nobody may fail before the barrier that the others wait at.
        let caller = make().and_then(|mut caller| caller.batch().map(|_| caller));
        ready.wait();
        let (mut caller, start, mut items) = (caller?, Instant::now(), 0);
        while start.elapsed() < time {
            items += caller.batch()?;
        }
        Ok((items, start.elapsed()))
    };
    let results: Vec<(usize, Duration)> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("a measuring thread runs to its end"))
            .collect::<Result<_>>()
    })?;
    let slowest = results.iter().map(|(_, took)| *took).max().unwrap_or_default();
    Ok(results.iter().map(|(items, _)| *items as f64).sum::<f64>() / slowest.as_secs_f64())
}
