//! The seam to what holds a credential beside us: a rotator makes a new one valid where it is used. Each step can be done again: what was
//! done already is found done, whoever did it, and whether it was answered or not.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::Sensitive;
use crate::error::Result;
use crate::id::{SecretName, SecretVersionId};

/// Rotates credentials of one place: a database, a service. Blocking; a call ends by the deadline of its turn.
pub trait Rotator: Send + Sync {
    /// Returns the kind of rotator, for the log, the audit and metrics.
    fn kind(&self) -> &'static str;
    /// Returns the secret of this server whose value it is handed as [`Turn::admin`], where it needs more than the credential that is rotated.
    fn admin(&self) -> Option<&SecretName>;
    /// Tells whether it rotates a secret of that name: what it does is done for those secrets alone that the configuration leaves to it.
    fn serves(&self, _secret: &SecretName) -> bool {
        true
    }
    /// Checks what a new secret asks for, and returns the value that it begins with. Nothing is reached for.
    ///
    /// # Errors
    /// `InvalidParameter` that names what is wrong, never the value.
    fn admit(&self, settings: &RotationSettings, value: &Sensitive) -> Result<FirstValue>;
    /// Makes the value that comes next; nobody has been told of it yet, and it is kept before [`Rotator::set`] is called. Nothing is reached for.
    /// The previous value is handed in where there is one: of two accounts that take turns, it names the one whose turn it is.
    ///
    /// # Errors
    /// `InvalidParameter` where the values are none that it can go on from, and those of `below`.
    fn draft(
        &self,
        settings: &RotationSettings,
        current: &Sensitive,
        previous: Option<&Sensitive>,
        below: &mut dyn FnMut(u32) -> Result<u32>,
    ) -> Result<Sensitive>;
    /// Makes the pending value valid, unless it is.
    ///
    /// # Errors
    /// [`RotationFault`]; the current value is as valid as before, or the step can be done again.
    fn set(&self, turn: &Turn<'_>) -> Result<(), RotationFault>;
    /// Shows that the pending value is valid, as its consumers will use it.
    ///
    /// # Errors
    /// [`RotationFault`] where it is not.
    fn test(&self, turn: &Turn<'_>) -> Result<(), RotationFault>;
    /// Ends what the rotation leaves behind, once the pending value has become the current one.
    ///
    /// # Errors
    /// [`RotationFault`]; it is done again.
    fn finish(&self, turn: &Turn<'_>) -> Result<(), RotationFault>;
}

/// What a rotation of a secret is to be like, as its `ExtendedConfig` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationSettings {
    /// How accounts take turns; the rotator's own way if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RotationStrategy>,
    /// Text of the caller's own, some of which a rotator may read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, String>,
}

/// How accounts take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotationStrategy {
    /// One account gets another password: who holds the one before is refused from then on.
    SingleUser,
    /// Of two accounts, the one that is not current gets another password and becomes current: the one before stays valid until the next turn.
    AlternatingUsers,
}

/// The value that a secret begins with.
pub struct FirstValue {
    /// What `ACSCurrent` points to.
    pub current: Sensitive,
    /// What `ACSPrevious` points to, where two accounts take turns.
    pub previous: Option<Sensitive>,
}

/// A step of a rotation: what it is of, and the values that it is done with.
pub struct Turn<'t> {
    /// The secret.
    pub secret: &'t SecretName,
    /// The version that is to become the current one: the same in every step of a rotation, and in no other.
    pub version: &'t SecretVersionId,
    /// What the secret asks for.
    pub settings: &'t RotationSettings,
    /// The value that is current until the pending one is: to finish, the one that was.
    pub current: &'t Sensitive,
    /// The value before that, where there is one still.
    pub previous: Option<&'t Sensitive>,
    /// The value that is to become current.
    pub pending: &'t Sensitive,
    /// The value of the secret that [`Rotator::admin`] names.
    pub admin: Option<&'t Sensitive>,
    /// When the step ends, done or not.
    pub deadline: Instant,
}

/// Why a step was not done. It never holds a value, nor what another side said that could hold one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationFault {
    /// What is to be made of it.
    pub kind: RotationFaultKind,
    /// What went wrong, for the log and the audit.
    pub why: String,
}

/// What is to be made of a step that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationFaultKind {
    /// The other side was not reached, or did not answer in time.
    Unreachable,
    /// The other side refused: rights, an unknown account, a rule for passwords.
    Refused,
    /// The credential that was to be shown valid is not.
    NotValid,
    /// A value or the configuration is none that the rotator can work with.
    Misconfigured,
}

impl RotationFault {
    /// Makes one; `why` is for operators.
    pub fn new(kind: RotationFaultKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }
}

impl fmt::Display for RotationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for RotationFault {}
