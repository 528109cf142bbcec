//! What can go wrong between a program and its server: the way there, the protocol, or a refusal.

use std::{fmt, io};

use keymill_core::Error;
use keymill_wire::error::ErrorBody;
use keymill_wire::frame::Fault;

/// A result whose error is [`ClientError`].
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why there is no reply.
#[derive(Debug)]
pub enum ClientError {
    /// The connection could not be made, broke, or took too long.
    Io(io::Error),
    /// There is no safe channel: the server is not the one that was asked for, or takes no client like us, or speaks no TLS that we do.
    Tls(String),
    /// The server does not keep to the protocol, or does not speak ours.
    Protocol(String),
    /// The request cannot be sent: it has no encoding, or is longer than the server takes.
    Unsendable(String),
    /// The server refused.
    Refused(ServerError),
    /// The connection broke after the request was sent, which may have been carried out and must not be twice.
    OutcomeUnknown(io::Error),
}

/// A refusal, as the server told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The HTTP status.
    pub status: u16,
    /// The code, for programs.
    pub code: String,
    /// The message, for people.
    pub message: String,
    /// The id of the request in the server's log.
    pub request_id: String,
    /// Whether the same request may pass later.
    pub retryable: bool,
    /// After how many milliseconds, where known.
    pub retry_after_ms: Option<u32>,
    /// Whether it is certain that nothing was done.
    pub nothing_done: bool,
}

impl ServerError {
    pub(crate) fn new(status: u16, body: ErrorBody) -> Self {
        let ErrorBody { code, message, request_id, retryable, retry_after_ms, nothing_done } = body;
        Self { status, code, message, request_id, retryable, retry_after_ms, nothing_done }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (request {})", self.code, self.message, self.request_id)
    }
}

impl std::error::Error for ServerError {}

impl ClientError {
    /// Makes the error of a server that broke the protocol.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::Protocol(message.into())
    }

    /// Says at which of several nodes it went wrong; a refusal has the id of its request.
    pub(crate) fn at(self, address: &str) -> Self {
        let told = |message| format!("{address}: {message}");
        match self {
            ClientError::Io(error) => ClientError::Io(io::Error::new(error.kind(), told(error.to_string()))),
            ClientError::Tls(message) => ClientError::Tls(told(message)),
            ClientError::Protocol(message) => ClientError::Protocol(told(message)),
            error @ (ClientError::Unsendable(_)
            | ClientError::Refused(_)
            | ClientError::OutcomeUnknown(_)) => error,
        }
    }

    /// Says that what was sent may have been carried out.
    pub(crate) fn with_unknown_outcome(self) -> Self {
        match self {
            ClientError::Io(error) => ClientError::OutcomeUnknown(error),
            error => error,
        }
    }

    /// Returns the refusal, where it is one.
    pub fn refusal(&self) -> Option<&ServerError> {
        match self {
            ClientError::Refused(error) => Some(error),
            ClientError::Io(_)
            | ClientError::Tls(_)
            | ClientError::Protocol(_)
            | ClientError::Unsendable(_)
            | ClientError::OutcomeUnknown(_) => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Io(error) => write!(f, "no answer from the server: {error}"),
            ClientError::Tls(message) => write!(f, "no safe channel to the server: {message}"),
            ClientError::Protocol(message) => write!(f, "the server breaks the protocol: {message}"),
            ClientError::Unsendable(message) => write!(f, "the request cannot be sent: {message}"),
            ClientError::Refused(error) => error.fmt(f),
            ClientError::OutcomeUnknown(error) => {
                write!(
                    f,
                    "no answer from the server, and whether it did what it was asked is not known: {error}"
                )
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Io(error) | ClientError::OutcomeUnknown(error) => Some(error),
            ClientError::Refused(error) => Some(error),
            ClientError::Tls(_) | ClientError::Protocol(_) | ClientError::Unsendable(_) => None,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match keymill_tls::is_of_tls(&error) {
            true => Self::Tls(error.to_string()),
            false => Self::Io(error),
        }
    }
}

impl From<ServerError> for ClientError {
    fn from(error: ServerError) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for ClientError {
    fn from(fault: Fault) -> Self {
        Self::Protocol(fault.to_string())
    }
}

/// What our own decoders say of the server's frames.
pub(crate) fn undecodable(error: Error) -> ClientError {
    ClientError::Protocol(error.message().to_owned())
}
