//! What is wrong with a request, told by the name of the parameter and never by its value.

use std::borrow::Cow;
use std::fmt;

use keymill_core::error::Limit;
use keymill_core::{Error, ErrorKind};
use serde::de::{self, Expected, Unexpected};

use crate::frame::clip;

/// What is wrong with a request, and where. Boxed: results of good items should stay small.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    path: String,
    text: Cow<'static, str>,
}

impl Problem {
    /// Makes a problem of the value that is being read.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts { kind, path: String::new(), text: text.into() }))
    }

    pub(crate) fn expected(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidParameter, format!("expected {what}"))
    }

    fn of(kind: ErrorKind, field: &str, text: &'static str) -> Self {
        Self(Box::new(Parts { kind, path: clip(field), text: text.into() }))
    }

    /// Makes a problem of a text that is read for itself one of the parameter that holds it.
    pub(crate) fn of_a_value(mut self) -> Self {
        if self.0.kind == ErrorKind::MalformedRequest {
            self.0.kind = ErrorKind::InvalidParameter;
        }
        self
    }

    /// Puts the problem inside the parameter or item `outer`.
    pub(crate) fn inside(mut self, outer: &str) -> Self {
        let joint = if self.0.path.is_empty() || self.0.path.starts_with('[') { "" } else { "." };
        self.0.path = format!("{outer}{joint}{}", self.0.path);
        self
    }

    /// Turns the problem into the error of a request whose parameters are called `whole` when they are wrong as a whole.
    pub(crate) fn into_error(self, whole: &str) -> Error {
        let Parts { kind, path, text } = *self.0;
        match (path.is_empty(), kind) {
            // Nothing has been named: it is not the value of a parameter that is wrong.
            (true, ErrorKind::InvalidParameter) => {
                Error::new(ErrorKind::MalformedRequest, format!("{whole}: {text}"))
            }
            (true, _) => Error::new(kind, text),
            (false, _) => Error::new(kind, format!("{path}: {text}")),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.path, self.0.text)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    // Core's own types speak here; none of them quotes its input.
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        // serde carries text alone, and this limit has a code of its own.
        let kind = if text.starts_with("encryption context of ") {
            ErrorKind::LimitExceeded(Limit::ContextCharacters)
        } else {
            ErrorKind::InvalidParameter
        };
        Self::new(kind, text)
    }
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }
    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }
    fn unknown_variant(_: &str, variants: &'static [&'static str]) -> Self {
        Self::expected(variants.join(" or "))
    }
    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::of(ErrorKind::InvalidParameter, field, "there is no such parameter")
    }
    fn missing_field(field: &'static str) -> Self {
        Self::of(ErrorKind::MissingParameter, field, "the parameter is missing")
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::of(ErrorKind::InvalidParameter, field, "the parameter comes twice")
    }
}
