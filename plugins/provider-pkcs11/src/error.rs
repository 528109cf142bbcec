//! Why a token cannot be used or made ready: a sentence, and the kind that tells an operator or a program what to do next.

use std::fmt;

use crate::connect::Refusal;
use crate::module::{Class, Failure};

/// What stands in the way, as far as it decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// The file is no PKCS#11 module, or the module does not start: name another, or look at its configuration.
    Module,
    /// The module shows no such token, or more than one: look at its slots.
    NoSuchToken,
    /// The PIN is refused, locked or not set: no further try until an operator acts.
    Pin,
    /// The token has no PIN or no keys of keymill: make it ready first.
    NotInitialized,
    /// The token has keys of keymill already.
    Occupied,
    /// An earlier run ended in the middle and left something on the token: clean it up first.
    Unfinished,
    /// The module lacks something that keymill needs: ask its vendor.
    Lacking,
    /// What the operator gave is wrong: a share of another set, characters that do not match.
    Input,
    /// Anything else: look at the device and its log.
    Other,
}

/// The token cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    kind: OpenErrorKind,
    why: String,
}

impl OpenError {
    pub(crate) fn new(kind: OpenErrorKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self::new(OpenErrorKind::Other, why)
    }

    /// Makes a function that puts what was tried before the failure.
    pub(crate) fn because(what: impl fmt::Display) -> impl FnOnce(Failure) -> Self {
        move |failure| Self::new(kind(failure.class()), format!("{what}: {failure}"))
    }

    /// Returns what stands in the way.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }
}

fn kind(class: Class) -> OpenErrorKind {
    match class {
        Class::Pin => OpenErrorKind::Pin,
        Class::Unsupported => OpenErrorKind::Lacking,
        _ => OpenErrorKind::Other,
    }
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind.unwrap_or_else(|| kind(refusal.class)), refusal.why)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for OpenError {}
