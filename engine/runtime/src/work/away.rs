//! What a job has under way in tokens: segments of its items, each with the chunks and subkeys that it waits for. Segments are
//! finished in order; what has come back of later ones waits here.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::KeyVersionId;
use keymill_core::key::Fallback;
use keymill_core::seam::provider::{AeadItem, JobError, PublicKey};
use keymill_crypto::xaes::{PREFIX_BYTES, SubkeyCipher};
use zeroize::Zeroizing;

use super::{Fault, Served};
use crate::pool::chunk::{Chunk, TAG_BYTES, Work};

/// Which subkey: of which key version, for which prefix.
pub(super) type SubkeyId = (KeyVersionId, [u8; PREFIX_BYTES]);

/// Everything that one job has under way.
#[derive(Default)]
pub(super) struct Away {
    pub(super) segments: VecDeque<Segment>,
    /// Items before this one are in a segment or done.
    pub(super) cut_to: usize,
    /// Chunks that are out.
    pub(super) out: usize,
    /// Of a re-encryption: what was opened and is yet to be sealed.
    pub(super) relay: Option<Relay>,
    /// The data key pair that it waited for, or why there is none.
    pub(super) pair: Option<Result<(Sensitive, PublicKey), Fault>>,
    /// Why what the job waited for beside its chunks (a sealing epoch, invocations) was not to be had.
    pub(super) refused: Option<Fault>,
    /// Why software did some of it, where it did.
    pub(super) fallback: Option<Fallback>,
    /// Who did what came back of it.
    pub(super) served: Served,
}

/// Consecutive items of a job that went out together.
pub(super) struct Segment {
    pub(super) range: Range<usize>,
    /// Chunks and subkeys that have not come back.
    pub(super) waiting: usize,
    pub(super) places: Vec<Place>,
    pub(super) chunks: Vec<Option<Box<Chunk>>>,
    pub(super) subkeys: HashMap<SubkeyId, Result<Arc<SubkeyCipher>, Fault>>,
    /// Data keys in clear.
    pub(super) secrets: Option<Sensitive>,
    /// Chunks that are in the hands of a call which does not return: they are to be cut anew.
    pub(super) lost: Vec<usize>,
    /// How often that happened.
    pub(super) hangs: u32,
}

/// Where the result of one item is.
#[derive(Clone)]
pub(super) enum Place {
    /// Nowhere yet: it is computed here, in its turn.
    Here,
    /// In a chunk.
    In { chunk: usize, item: usize },
    /// It was not sent out.
    Failed(Fault),
}

/// Plaintexts on their way from one key to another.
pub(super) struct Relay {
    pub(super) range: Range<usize>,
    pub(super) buffer: Zeroizing<Vec<u8>>,
    pub(super) texts: Vec<Result<Range<usize>, Fault>>,
}

/// What a token made of one item.
pub(super) struct Made<'a> {
    pub(super) nonce: &'a [u8; 12],
    /// Of a sealed item with its tag, of an opened one without.
    pub(super) text: &'a [u8],
}

impl Away {
    /// Tells whether more may be cut, where so many chunks may be out: as many segments, too, for some wait for chunks of other jobs.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.segments.is_empty() || self.out < window && self.segments.len() < window
    }
}

impl Segment {
    pub(super) fn new(range: Range<usize>) -> Self {
        Self {
            places: Vec::with_capacity(range.len()),
            range,
            waiting: 0,
            chunks: Vec::new(),
            subkeys: HashMap::new(),
            secrets: None,
            lost: Vec::new(),
            hangs: 0,
        }
    }

    /// Tells whether nothing is waited for.
    pub(super) fn is_back(&self) -> bool {
        self.waiting == 0
    }

    /// Returns where item `i` of the job is.
    pub(super) fn place(&self, i: usize) -> &Place {
        &self.places[i - self.range.start]
    }

    /// Returns what a token made of an item.
    ///
    /// # Errors
    /// The fault of the item, or of the whole chunk.
    pub(super) fn made(&self, chunk: usize, item: usize) -> Result<Made<'_>, Fault> {
        let chunk = self.chunks[chunk].as_ref().expect("a segment that is back has all its chunks");
        if let Some(fault) = &chunk.fault {
            return Err(fault.clone());
        }
        let (batch, tag_bytes) = match &chunk.work {
            Work::Encrypt(batch) => (batch, TAG_BYTES),
            Work::Decrypt(batch) => (batch, 0),
            Work::Derive(_) | Work::Sign(_) | Work::Open(_) | Work::Pair(_) => {
                return Err(Error::internal("the chunk holds no sealed items").into());
            }
        };
        let AeadItem { nonce, text, outcome, .. } = &batch.items[item];
        match outcome {
            Some(Ok(())) => Ok(Made { nonce, text: &batch.buffer[text.start..text.end + tag_bytes] }),
            Some(Err(error)) => Err(job_fault(*error)),
            None => Err(Error::internal("an item came back undone").into()),
        }
    }
}

impl Segment {
    /// Returns what was computed of an item: a signature, a MAC, a plaintext.
    ///
    /// # Errors
    /// The fault of the item, or of the whole chunk.
    pub(super) fn computed(&self, chunk: usize, item: usize) -> Result<&[u8], Fault> {
        let chunk = self.chunks[chunk].as_ref().expect("a segment that is back has all its chunks");
        if let Some(fault) = &chunk.fault {
            return Err(fault.clone());
        }
        let output = match &chunk.work {
            Work::Sign(jobs) => jobs[item].output.as_ref().map(|made| made.as_deref()),
            Work::Open(jobs) => {
                jobs[item].output.as_ref().map(|made| made.as_ref().map(|text| text.expose()))
            }
            Work::Encrypt(_) | Work::Decrypt(_) | Work::Derive(_) | Work::Pair(_) => None,
        };
        match output {
            Some(Ok(made)) => Ok(made),
            Some(Err(error)) => Err(job_fault(*error)),
            None => Err(Error::internal("an item came back undone").into()),
        }
    }
}

/// Returns what a caller is told of a job that a provider refused.
pub(super) fn job_fault(error: JobError) -> Fault {
    match error {
        JobError::InvalidCiphertext => Error::invalid_ciphertext().into(),
        JobError::Rejected => {
            Error::new(ErrorKind::Unsupported, "the key refuses an item of this form").into()
        }
        JobError::StaleHandle => Error::internal("a stale key came back from a token").into(),
    }
}
