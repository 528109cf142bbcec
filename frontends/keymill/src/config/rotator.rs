//! The sections of the configuration that tell how secrets are rotated, and by what: each `[rotators.NAME]` is one rotator, whose `kind` says
//! which plugin it is. Callers name it, and say nothing of where it reaches.

use std::time::Duration;

use keymill_core::secret::{BackOff, Generated};
use keymill_runtime::RotationConfig;
use serde::{Deserialize, Serialize};

/// How secrets are rotated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RotationSection {
    /// Rotations at once.
    pub(crate) threads: usize,
    /// Rotations that wait for a thread.
    pub(crate) queue: usize,
    /// Milliseconds between two looks for secrets whose time has come.
    pub(crate) check_ms: u64,
    /// Milliseconds that a rotator may take for one step.
    pub(crate) step_timeout_ms: u64,
    /// Milliseconds until a rotation is tried again the first time.
    pub(crate) first_retry_ms: u64,
    /// Milliseconds between two tries, at most.
    pub(crate) max_retry_ms: u64,
}

impl Default for RotationSection {
    fn default() -> Self {
        let theirs = RotationConfig::default();
        let ms = |duration: Duration| duration.as_millis() as u64;
        Self {
            threads: theirs.threads,
            queue: theirs.queue,
            check_ms: ms(theirs.check),
            step_timeout_ms: ms(theirs.step_timeout),
            first_retry_ms: ms(theirs.back_off.first),
            max_retry_ms: ms(theirs.back_off.most),
        }
    }
}

impl RotationSection {
    /// Returns the engine's own options.
    pub(crate) fn read(&self) -> RotationConfig {
        RotationConfig {
            threads: self.threads,
            queue: self.queue,
            check: Duration::from_millis(self.check_ms.max(1)),
            step_timeout: Duration::from_millis(self.step_timeout_ms),
            back_off: BackOff {
                first: Duration::from_millis(self.first_retry_ms),
                most: Duration::from_millis(self.max_retry_ms),
            },
        }
    }
}

/// One rotator; `plugins.rs` opens it. A further kind is a variant here and an arm there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum RotatorSection {
    /// A generated password.
    Password(PasswordRotator),
}

/// A generated password.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PasswordRotator {
    /// Characters; 32 if absent.
    pub(crate) length: Option<u32>,
    /// Characters that are left out.
    pub(crate) exclude_characters: Option<String>,
    /// Whether characters but letters and digits are left out.
    pub(crate) exclude_punctuation: bool,
}

/// One of each kind, with every option.
#[cfg(test)]
pub(crate) fn all_set() -> std::collections::BTreeMap<String, RotatorSection> {
    let password = PasswordRotator {
        length: Some(32),
        exclude_characters: Some(String::new()),
        exclude_punctuation: false,
    };
    [("passwords".to_owned(), RotatorSection::Password(password))].into()
}

impl PasswordRotator {
    /// Returns what passwords are like.
    pub(crate) fn passwords(&self) -> Generated {
        Generated {
            length: self.length,
            exclude_characters: self.exclude_characters.clone(),
            exclude_punctuation: self.exclude_punctuation,
        }
    }
}
