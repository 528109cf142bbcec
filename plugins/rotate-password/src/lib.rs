#![doc = include_str!("../README.md")]

use keymill_core::Sensitive;
use keymill_core::error::Result;
use keymill_core::id::SecretName;
use keymill_core::seam::rotator::{
    FirstValue, RotationFault, RotationFaultKind, RotationSettings, Rotator, Turn,
};
use keymill_core::secret::Generated;

/// Options of the rotator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What passwords are like of which the secret says nothing else.
    pub passwords: Generated,
}

/// Why the rotator does not open.
#[derive(Debug)]
pub struct OpenError(String);

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// Makes the rotator.
///
/// # Errors
/// [`OpenError`] where no password could be as the options say.
pub fn open(config: Config) -> Result<Passwords, OpenError> {
    let any = Sensitive::copied(b"any");
    config
        .passwords
        .check(&Default::default(), &any)
        .map_err(|error| OpenError(error.message().to_owned()))?;
    Ok(Passwords(config.passwords))
}

/// Makes passwords, and tells nobody.
#[derive(Debug)]
pub struct Passwords(Generated);

impl Rotator for Passwords {
    fn kind(&self) -> &'static str {
        "password"
    }

    fn admin(&self) -> Option<&SecretName> {
        None
    }

    fn admit(&self, settings: &RotationSettings, value: &Sensitive) -> Result<FirstValue> {
        self.0.check(&settings.custom, value)?;
        Ok(FirstValue { current: Sensitive::copied(value.expose()), previous: None })
    }

    fn draft(
        &self,
        settings: &RotationSettings,
        current: &Sensitive,
        _: Option<&Sensitive>,
        below: &mut dyn FnMut(u32) -> Result<u32>,
    ) -> Result<Sensitive> {
        self.0.next(&settings.custom, current, below)
    }

    fn set(&self, _: &Turn<'_>) -> Result<(), RotationFault> {
        Ok(())
    }

    fn test(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        match turn.pending.expose() == turn.current.expose() {
            false => Ok(()),
            true => {
                let why = "the new value is that which is current";
                Err(RotationFault::new(RotationFaultKind::NotValid, why))
            }
        }
    }

    fn finish(&self, _: &Turn<'_>) -> Result<(), RotationFault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_password_follows_another_and_is_tested_to_be_one() {
        let rotator = open(Config::default()).unwrap();
        let settings = RotationSettings::default();
        let first = rotator.admit(&settings, &Sensitive::copied(b"first")).unwrap();
        let mut drawn = 0;
        let mut below = |bound: u32| {
            drawn += 1;
            Ok(drawn % bound)
        };
        let next = rotator.draft(&settings, &first.current, None, &mut below).unwrap();
        assert_eq!((next.len(), first.previous.is_none()), (32, true));
        let (secret, version) = ("s".parse().unwrap(), "v".parse().unwrap());
        let turn = |pending| Turn {
            secret: &secret,
            version: &version,
            settings: &settings,
            current: &first.current,
            previous: None,
            pending,
            admin: None,
            deadline: Instant::now(),
        };
        assert_eq!((rotator.set(&turn(&next)), rotator.test(&turn(&next))), (Ok(()), Ok(())));
        assert!(rotator.test(&turn(&first.current)).is_err());
    }

    #[test]
    fn options_that_no_password_meets_are_refused() {
        let passwords = Generated { length: Some(200), ..Generated::default() };
        assert!(open(Config { passwords }).unwrap_err().to_string().contains("200"));
    }
}
