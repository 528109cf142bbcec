//! Why a payload is not sealed or not opened. What an altered envelope did wrong is told nobody: it is one error.

use std::error::Error;
use std::sync::Arc;
use std::{fmt, io};

/// A failure to seal or to open.
#[derive(Debug)]
pub enum EnvelopeError {
    /// The bytes do not begin as an envelope of a version that is known here.
    NotAnEnvelope,
    /// The envelope was altered, cut or made longer, or its data key is not to be had under the key and context that it names.
    Unopenable,
    /// A payload is longer than a stream (2^32 segments) or the limit of a data key's bytes.
    TooLong,
    /// The system gives no random bytes.
    NoRandomness,
    /// The service gave no data key.
    Keys(Arc<dyn Error + Send + Sync>),
    /// The input cannot be read.
    Read(io::Error),
    /// The output cannot be written.
    Write(io::Error),
    /// The caller asked to stop.
    Interrupted,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::NotAnEnvelope => f.write_str("no envelope of a version that is known here"),
            EnvelopeError::Unopenable => f.write_str(
                "the envelope does not open: it was altered or cut, or its key is not one that this caller may use",
            ),
            EnvelopeError::TooLong => f.write_str("the payload is longer than one data key may seal"),
            EnvelopeError::NoRandomness => f.write_str("the system gives no random bytes"),
            EnvelopeError::Keys(error) => error.fmt(f),
            EnvelopeError::Read(error) => write!(f, "the input cannot be read: {error}"),
            EnvelopeError::Write(error) => write!(f, "the output cannot be written: {error}"),
            EnvelopeError::Interrupted => f.write_str("stopped as asked"),
        }
    }
}

impl Error for EnvelopeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            EnvelopeError::Keys(error) => Some(error),
            EnvelopeError::Read(error) | EnvelopeError::Write(error) => Some(error),
            _ => None,
        }
    }
}
