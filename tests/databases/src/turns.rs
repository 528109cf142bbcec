//! A rotation as a test has it: the values, and the steps of a rotator over them.

use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::seam::rotator::{RotationFault, RotationSettings, RotationStrategy, Rotator, Turn};

/// How long a step may take that is to be done.
const PATIENCE: Duration = Duration::from_secs(60);

/// An account, and a password of it.
pub type Pair<'a> = (&'a str, &'a str);

/// The values of a rotation, and the configuration of the rotator.
pub struct Rotation<'a, C> {
    /// The configuration.
    pub config: C,
    /// Makes the rotator.
    pub open: fn(&C) -> Box<dyn Rotator>,
    /// How accounts take turns.
    pub strategy: RotationStrategy,
    /// The current value.
    pub current: Pair<'a>,
    /// The value before it.
    pub previous: Option<Pair<'a>>,
    /// The value that is to become current.
    pub pending: Pair<'a>,
    /// The value of the secret that the rotator works by.
    pub admin: Option<Pair<'a>>,
}

impl<C> Rotation<'_, C> {
    /// Does a step by a deadline.
    pub fn turn<T>(&self, left: Duration, step: impl FnOnce(&dyn Rotator, &Turn<'_>) -> T) -> T {
        step(
            &*(self.open)(&self.config),
            &Turn {
                secret: &"app".parse().expect("it is a name"),
                version: &"v2".parse().expect("it is a version"),
                settings: &RotationSettings { strategy: Some(self.strategy), ..RotationSettings::default() },
                current: &value(self.current),
                previous: self.previous.map(value).as_ref(),
                pending: &value(self.pending),
                admin: self.admin.map(value).as_ref(),
                deadline: Instant::now() + left,
            },
        )
    }

    /// Makes the pending value valid.
    ///
    /// # Errors
    /// The rotator's.
    pub fn set(&self) -> Result<(), RotationFault> {
        self.turn(PATIENCE, |rotator, turn| rotator.set(turn))
    }

    /// Shows that it is.
    ///
    /// # Errors
    /// The rotator's.
    pub fn test(&self) -> Result<(), RotationFault> {
        self.turn(PATIENCE, |rotator, turn| rotator.test(turn))
    }
}

fn value((name, password): Pair<'_>) -> Sensitive {
    let quoted = password.replace('\\', r"\\").replace('"', "\\\"");
    Sensitive::new(format!(r#"{{"AccountName":"{name}","AccountPassword":"{quoted}"}}"#).into_bytes())
}
