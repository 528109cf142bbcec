//! The one error of this crate: a measurement that could not be made, in words.

use std::fmt;

/// Why there is no measurement.
#[derive(Debug)]
pub struct BenchError(String);

/// What measuring gives.
pub(crate) type Result<T, E = BenchError> = std::result::Result<T, E>;

impl BenchError {
    /// Says what was tried and why it failed.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }

    /// Makes a closure that puts what was tried before why it failed, for `map_err`.
    pub(crate) fn because<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |why| Self(format!("{what}: {why}"))
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

impl From<keymill_client::ClientError> for BenchError {
    fn from(error: keymill_client::ClientError) -> Self {
        Self(format!("client: {error}"))
    }
}

impl From<std::io::Error> for BenchError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<keymill_core::Error> for BenchError {
    fn from(error: keymill_core::Error) -> Self {
        Self(format!("engine: {}", error.message()))
    }
}
