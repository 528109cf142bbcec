//! Envelope encryption on this side of the network: the service makes a data key, payloads of any size are sealed here under it, and
//! what opens them stands before them. The format: `ENVELOPE.md`.

mod error;
mod header;
mod output;
mod pipe;
mod stream;

use std::fmt;
use std::io::{Read, Write};
use std::ops::ControlFlow;

use keymill_core::id::CmkId;
use keymill_core::{EncryptionContext, Sensitive};

use crate::keys::{DataKeys, KeysError};

pub use error::EnvelopeError;
pub use header::{Header, MAX_CONTEXT_BYTES, MAX_EDK_BYTES};
pub use output::Output;
pub use pipe::Totals;

pub(crate) use stream::DATA_KEY_BYTES;

use pipe::{Pipe, Way};
use stream::{SEGMENT_BYTES, START_BYTES, Segments, Start};

/// A data key, with the header that names it. Each payload that is sealed under it is an envelope of its own.
///
/// SP 800-38D's limits on invocations do not add up over payloads: each has a key derived with 32 random bytes.
pub struct Envelope {
    header: Header,
    data_key: Sensitive,
}

impl Envelope {
    /// Has a data key made.
    ///
    /// # Errors
    /// `Keys` where there is none to be had, and where what came is no data key.
    pub async fn generate(
        keys: &impl DataKeys,
        key_id: CmkId,
        context: &EncryptionContext,
    ) -> Result<Self, EnvelopeError> {
        Ok(Self::generate_with(keys, key_id, context).await?)
    }

    pub(crate) async fn generate_with(
        keys: &impl DataKeys,
        key_id: CmkId,
        context: &EncryptionContext,
    ) -> Result<Self, KeysError> {
        let made = keys.generate(key_id, context).await?;
        let header = Header::new(key_id, &made.edk, context.clone());
        let header = header.ok_or_else(|| KeysError::of("the encrypted data key has no fitting length"))?;
        if made.data_key.len() != DATA_KEY_BYTES {
            return Err(KeysError::of("the data key has not 32 bytes"));
        }
        Ok(Self { header, data_key: made.data_key })
    }

    /// Has the data key of an envelope decrypted.
    ///
    /// # Errors
    /// `Unopenable` where it does not decrypt under the key and context of the header, for whatever reason; `Keys` where nobody could
    /// try.
    pub async fn decrypt(keys: &impl DataKeys, header: Header) -> Result<Self, EnvelopeError> {
        Ok(Self::decrypt_with(keys, header).await?)
    }

    pub(crate) async fn decrypt_with(keys: &impl DataKeys, header: Header) -> Result<Self, KeysError> {
        let data_key = keys.decrypt(header.key_id(), header.context(), header.edk()).await?;
        match data_key.len() {
            DATA_KEY_BYTES => Ok(Self { header, data_key }),
            _ => Err(KeysError::Unopenable),
        }
    }

    /// Returns the header that payloads begin with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Seals a payload in memory: header and stream.
    ///
    /// # Errors
    /// `NoRandomness`, `TooLong`.
    pub fn seal(&self, payload: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.seal_into(payload, &mut out)?;
        Ok(out)
    }

    /// Seals a payload into a buffer, which is overwritten; one that is used again needs no zeroes first.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_into(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let start = Start::random()?;
        let header = self.header.as_bytes();
        out.resize(header.len() + stream::sealed_bytes(payload.len(), SEGMENT_BYTES), 0);
        let (before, stream) = out.split_at_mut(header.len());
        before.copy_from_slice(header);
        stream::seal_slice(&self.data_key, header, &start, payload, SEGMENT_BYTES, stream)
    }

    /// Opens a stream in memory: what follows the header.
    ///
    /// # Errors
    /// `Unopenable` for anything but a whole stream that was sealed behind this header.
    pub fn open(&self, stream: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.open_into(stream, &mut out)?;
        Ok(out)
    }

    /// Opens a stream into a buffer, which is overwritten, and holds zeroes where the stream does not open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_into(&self, stream: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let bytes = stream::opened_bytes(stream.len(), SEGMENT_BYTES).ok_or(EnvelopeError::Unopenable)?;
        out.resize(bytes, 0);
        stream::open_slice(&self.data_key, self.header.as_bytes(), stream, SEGMENT_BYTES, out)
    }

    /// Seals `input` to its end, and writes header and stream to `output`, in a few MiB of memory. Reading, sealing and writing
    /// overlap; `progress` is told the bytes of input that are sealed, and may stop it.
    ///
    /// # Errors
    /// `Read`, `Write`, `NoRandomness`, `TooLong`, `Interrupted`; what was written is then no envelope that opens.
    pub fn seal_stream(
        &self,
        input: impl Read + Send,
        mut output: impl Write + Send,
        progress: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Totals, EnvelopeError> {
        let start = Start::random()?;
        let before = [self.header.as_bytes(), start.as_bytes()].concat();
        output.write_all(&before).map_err(EnvelopeError::Write)?;
        let pipe = Pipe { way: Way::Seal, segments: self.segments(&start) };
        let totals = pipe.run(input, output, progress)?;
        Ok(Totals { written: totals.written + before.len() as u64, ..totals })
    }

    /// Opens `input`, which stands behind the header, to its end, and writes the payload to `output`, in a few MiB of memory. Only
    /// bytes that were sealed are written, **but whether they are all is known at the end alone**: before `Ok`, what was written may
    /// be the beginning of a longer payload. [`Output`] keeps it from its name until then. `progress` is told the bytes of input that
    /// are opened, and may stop it.
    ///
    /// # Errors
    /// `Unopenable` for anything but a whole stream that was sealed behind this header; `Read`, `Write`, `Interrupted`.
    pub fn open_stream(
        &self,
        mut input: impl Read + Send,
        output: impl Write + Send,
        progress: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Totals, EnvelopeError> {
        let mut start = [0; START_BYTES];
        input.read_exact(&mut start).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => EnvelopeError::Unopenable,
            _ => EnvelopeError::Read(error),
        })?;
        let start = Start::parse(&start).ok_or(EnvelopeError::Unopenable)?;
        let pipe = Pipe { way: Way::Open, segments: self.segments(&start) };
        let totals = pipe.run(input, output, progress)?;
        let before = self.header.as_bytes().len() + START_BYTES;
        Ok(Totals { read: totals.read + before as u64, ..totals })
    }

    fn segments(&self, start: &Start) -> Segments {
        Segments::new(&self.data_key, self.header.as_bytes(), start)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({})", self.header.key_id())
    }
}

#[cfg(test)]
mod tests;
