//! How a login gets another password, whatever the database: which account, by whose login, and what was done already.

use std::time::Instant;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::SecretName;
use keymill_core::operation::GetRandomPasswordRequest;
use keymill_core::seam::rotator::{
    FirstValue, RotationFault, RotationFaultKind, RotationSettings, RotationStrategy, Rotator, Turn,
};
use keymill_core::secret::{PasswordRules, password};
use keymill_core::{Sensitive, limit};

use crate::{Accounts, Config, Login, MAX_PASSWORD_BYTES, OpenError};

/// All but those that stand for themselves in addresses, shells and quotes: passwords are put into connection strings.
const LEFT_OUT: &str = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}";
/// Fewer could be guessed from what a server keeps of it.
const LEAST_PASSWORD: u32 = 16;

/// A database whose accounts are rotated.
pub trait Database: Send + Sync {
    /// A login that was let in.
    type Session: Session;
    /// What rotators of it are called.
    const KIND: &'static str;
    /// Bytes of the name of an account, at most.
    const MAX_NAME_BYTES: usize;
    /// Names of the server's own accounts, or what they begin with and `*`.
    const RESERVED: &'static [&'static str];

    /// Logs in.
    ///
    /// # Errors
    /// `NotValid` where the password is not the account's or there is no such account; of every other cause another kind.
    fn log_in(&self, login: &Login, until: Instant) -> Result<Self::Session, RotationFault>;
}

/// A login that was let in.
pub trait Session {
    /// Gives the account that has logged in another password.
    ///
    /// # Errors
    /// [`RotationFault`].
    fn change_own(&mut self, password: &Sensitive) -> Result<(), RotationFault>;
    /// Gives another account another password.
    ///
    /// # Errors
    /// [`RotationFault`].
    fn change(&mut self, account: &str, password: &Sensitive) -> Result<(), RotationFault>;
    /// Shows that the session is that of the account, and of use.
    ///
    /// # Errors
    /// `NotValid` where it is another's.
    fn show(&mut self, account: &str) -> Result<(), RotationFault>;
}

/// Rotates logins of a database.
pub struct DatabaseRotator<D> {
    database: D,
    accounts: Accounts,
    admin: Option<SecretName>,
    password_length: u32,
}

impl<D: Database> DatabaseRotator<D> {
    /// Makes one.
    ///
    /// # Errors
    /// [`OpenError`] for a list of accounts or a length of passwords that makes no sense.
    pub fn new(database: D, config: &Config) -> Result<Self, OpenError> {
        let Config { password_length, .. } = *config;
        let most = (*limit::PASSWORD_CHARACTERS.end()).min(MAX_PASSWORD_BYTES as u32);
        if !(LEAST_PASSWORD..=most).contains(&password_length) {
            return Err(OpenError::new(format!(
                "password_length of {password_length} is not in {LEAST_PASSWORD} to {most}"
            )));
        }
        let accounts = Accounts::read(&config.accounts, D::RESERVED, D::MAX_NAME_BYTES)?;
        Ok(Self { database, accounts, admin: config.admin.clone(), password_length })
    }

    /// Reads a value of a turn, of an account that may be rotated.
    fn login(&self, value: &Sensitive, which: &str) -> Result<Login, RotationFault> {
        let login = read(value, which)?;
        match self.accounts.hold(&login.name) {
            true => Ok(login),
            false => Err(misconfigured(format!("the account of the {which} is none that may be rotated"))),
        }
    }

    /// Reads the value that goes over with the account that is rotated, and the one that it becomes.
    fn turn(&self, turn: &Turn<'_>) -> Result<(Login, Login), RotationFault> {
        let (before, which) = match is_alternating(turn.settings) {
            false => (Some(turn.current), "current value"),
            true => (turn.previous, "previous value"),
        };
        let before =
            before.ok_or_else(|| misconfigured("two accounts take turns, and there is no previous value"))?;
        let (before, pending) = (self.login(before, which)?, self.login(turn.pending, "pending value")?);
        if before.name != pending.name {
            return Err(misconfigured(format!("the {which} is not of the account of the pending one")));
        }
        // Whoever uses the current value must not be shut out.
        if is_alternating(turn.settings) && read(turn.current, "current value")?.name == pending.name {
            return Err(misconfigured("two accounts take turns, and both values are of the same one"));
        }
        Ok((before, pending))
    }

    /// Logs in, and tells a refused password from everything else.
    fn try_login(&self, login: &Login, until: Instant) -> Result<Option<D::Session>, RotationFault> {
        match self.database.log_in(login, until) {
            Ok(session) => Ok(Some(session)),
            Err(fault) if fault.kind == RotationFaultKind::NotValid => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Has the admin give the account its password.
    fn set_as_admin(&self, admin: &Sensitive, pending: &Login, until: Instant) -> Result<(), RotationFault> {
        let admin = read(admin, "admin secret")?;
        if admin.name == pending.name {
            return Err(misconfigured(
                "the account is that of the admin secret, which is rotated by no other",
            ));
        }
        let Some(mut session) = self.try_login(&admin, until)? else {
            return Err(misconfigured("the server refuses the login of the admin secret"));
        };
        session.change(&pending.name, &pending.password)
    }
}

impl<D: Database> Rotator for DatabaseRotator<D> {
    fn kind(&self) -> &'static str {
        D::KIND
    }

    fn admin(&self) -> Option<&SecretName> {
        self.admin.as_ref()
    }

    fn admit(&self, settings: &RotationSettings, value: &Sensitive) -> Result<FirstValue> {
        let all = Login::read_all(value.expose()).map_err(invalid)?;
        if !all.iter().all(|login| self.accounts.hold(&login.name)) {
            return Err(invalid("an account of the value is none that may be rotated here"));
        }
        match (is_alternating(settings), &all[..]) {
            (false, [current]) => Ok(FirstValue { current: current.write(), previous: None }),
            (true, [current, other]) if current.name != other.name => {
                Ok(FirstValue { current: current.write(), previous: Some(other.write()) })
            }
            (false, _) => Err(invalid("one account is rotated by itself, and the value has two")),
            (true, _) => Err(invalid("two accounts take turns, and the value does not have two")),
        }
    }

    fn draft(
        &self,
        settings: &RotationSettings,
        current: &Sensitive,
        previous: Option<&Sensitive>,
        below: &mut dyn FnMut(u32) -> Result<u32>,
    ) -> Result<Sensitive> {
        let Login { name: current, .. } = Login::read(current.expose()).map_err(invalid)?;
        let name = match (is_alternating(settings), previous) {
            (false, _) => current,
            (true, None) => {
                return Err(invalid(
                    "two accounts take turns, and there is no previous value to name the other",
                ));
            }
            (true, Some(previous)) => match Login::read(previous.expose()).map_err(invalid)?.name {
                other if other != current => other,
                _ => return Err(invalid("two accounts take turns, and both values are of the same one")),
            },
        };
        let rules = PasswordRules::of(&GetRandomPasswordRequest {
            password_length: Some(self.password_length),
            exclude_characters: Some(LEFT_OUT.into()),
            ..GetRandomPasswordRequest::default()
        })?;
        let password = Sensitive::new(password(&rules, below)?.into_bytes());
        Ok(Login { name, password }.write())
    }

    fn set(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        let (before, pending) = self.turn(turn)?;
        // The account itself first: it needs no rights, and where nothing was done yet no login fails, which somebody may watch for.
        let refused = match self.try_login(&before, turn.deadline)? {
            Some(mut session) => match session.change_own(&pending.password) {
                Err(fault) if fault.kind == RotationFaultKind::Refused => fault,
                done => return done,
            },
            None if self.try_login(&pending, turn.deadline)?.is_some() => return Ok(()),
            None => RotationFault::new(
                RotationFaultKind::Refused,
                "the server takes neither the account's password before nor the one to come",
            ),
        };
        match turn.admin {
            Some(admin) => self.set_as_admin(admin, &pending, turn.deadline),
            None => Err(refused),
        }
    }

    fn test(&self, turn: &Turn<'_>) -> Result<(), RotationFault> {
        let pending = self.login(turn.pending, "pending value")?;
        self.database.log_in(&pending, turn.deadline)?.show(&pending.name)
    }

    /// There is nothing to end: the password before went with the change, or is that of the account whose turn is next.
    fn finish(&self, _: &Turn<'_>) -> Result<(), RotationFault> {
        Ok(())
    }
}

fn is_alternating(settings: &RotationSettings) -> bool {
    settings.strategy == Some(RotationStrategy::AlternatingUsers)
}

fn read(value: &Sensitive, which: &str) -> Result<Login, RotationFault> {
    Login::read(value.expose()).map_err(|why| misconfigured(format!("{which}: {why}")))
}

fn misconfigured(why: impl Into<String>) -> RotationFault {
    RotationFault::new(RotationFaultKind::Misconfigured, why)
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidParameter, why)
}
