//! A login, and the few statements that are made in it. The password itself is never sent: SCRAM shows that it is known, and what is set is
//! what the server would keep of it.

use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::seam::rotator::{RotationFault, RotationFaultKind};
use keymill_rotate_database::{Login, Session, Way, Wire};

use crate::message::{self, Message};
use crate::scram::{self, verifier};
use crate::{fault, fault::strange};

/// A server says some dozen things of itself at a login; one that says more has another plan.
const MAX_MESSAGES: usize = 256;

/// A login that was let in.
pub(crate) struct PostgresSession {
    wire: Wire,
    body: Vec<u8>,
}

impl PostgresSession {
    /// Logs in.
    pub(crate) fn open(
        way: &Way,
        database: Option<&str>,
        login: &Login,
        until: Instant,
    ) -> Result<Self, RotationFault> {
        let mut wire = way.connect(until)?;
        if way.wants_tls() {
            wire.write(&message::tls_request())?;
            let mut answer = [0];
            wire.read(&mut answer)?;
            match answer {
                [b'S'] => wire = way.secure(wire)?,
                [b'N'] => return Err(misconfigured("the server has no TLS")),
                _ => return Err(strange()),
            }
        }
        wire.write(&message::startup(&login.name, database))?;
        let mut session = Self { wire, body: Vec::new() };
        session.show_password(&login.password)?;
        Ok(session)
    }

    fn show_password(&mut self, password: &Sensitive) -> Result<(), RotationFault> {
        let mut begun = None;
        let mut shown = None;
        let (mut is_proven, mut is_in) = (false, false);
        for _ in 0..MAX_MESSAGES {
            let answer = match self.next()? {
                Message::Sasl(true) if begun.is_none() => {
                    let login = scram::Login::begin().ok_or_else(no_randomness)?;
                    let first = message::sasl_first(login.first().as_bytes());
                    begun = Some(login);
                    first
                }
                Message::SaslContinue(text) => {
                    let login = begun.take().ok_or_else(strange)?;
                    let (last, proof) = login.show(password, text).ok_or_else(strange)?;
                    shown = Some(proof);
                    message::sasl_next(last.as_bytes())
                }
                Message::SaslFinal(text) => {
                    is_proven = shown.take().is_some_and(|shown| shown.is_answered_by(text));
                    match is_proven {
                        true => continue,
                        false => return Err(strange()),
                    }
                }
                // A login that was not asked for anything shows nothing, and a password that is not hashed is for nobody to see.
                Message::LoggedIn if !is_proven => {
                    return Err(misconfigured("the server lets the account in without its password"));
                }
                Message::LoggedIn => {
                    is_in = true;
                    continue;
                }
                Message::Sasl(_) => return Err(misconfigured("the server does not offer SCRAM-SHA-256")),
                Message::Asks(way) => {
                    return Err(misconfigured(format!(
                        "the server asks for the password by way {way} in place of SCRAM-SHA-256 (3 is in clear, 5 is MD5)"
                    )));
                }
                Message::Error(state) => return Err(fault::of_login(state)),
                Message::Ready if is_in => return Ok(()),
                Message::Ready | Message::Row(_) => return Err(strange()),
                Message::Other => continue,
            };
            self.wire.write(&answer)?;
        }
        Err(strange())
    }

    fn next(&mut self) -> Result<Message<'_>, RotationFault> {
        let mut head = [0; 5];
        self.wire.read(&mut head)?;
        let (kind, length) = message::head(head).ok_or_else(strange)?;
        self.body.resize(length, 0);
        self.wire.read(&mut self.body)?;
        message::read(kind, &self.body).ok_or_else(strange)
    }

    /// Has a statement carried out, and returns its last row.
    fn ask(&mut self, sql: &str) -> Result<Vec<Vec<u8>>, RotationFault> {
        self.wire.write(&message::query(sql))?;
        let mut last = Vec::new();
        let mut refused = None;
        for _ in 0..MAX_MESSAGES {
            match self.next()? {
                Message::Row(row) => {
                    last = row.into_iter().map(|column| column.unwrap_or_default().to_vec()).collect();
                }
                Message::Error(state) => refused = Some(fault::of_statement(state)),
                // The transaction has ended with this, and not before.
                Message::Ready => return refused.map_or(Ok(last), Err),
                Message::Other => {}
                _ => return Err(strange()),
            }
        }
        Err(strange())
    }

    /// Sets what a password is known by. The server gives up a little before we do: a statement that comes late could undo what came after it.
    fn alter(&mut self, role: &str, password: &Sensitive) -> Result<(), RotationFault> {
        let verifier = verifier(password).ok_or_else(no_randomness)?;
        let left_ms = self.wire.left().mul_f64(0.9).as_millis().clamp(1, i32::MAX as u128);
        // A role may have been told to act as another at every login, which may not be allowed to do this. Nothing is left behind in a session
        // that a pool gives to others.
        self.ask(&format!(
            "BEGIN; SET LOCAL ROLE NONE; SET LOCAL statement_timeout = {left_ms}; ALTER ROLE {role} PASSWORD '{verifier}'; COMMIT"
        ))
        .map(drop)
    }
}

impl Session for PostgresSession {
    fn change_own(&mut self, password: &Sensitive) -> Result<(), RotationFault> {
        self.alter("SESSION_USER", password)
    }

    fn change(&mut self, account: &str, password: &Sensitive) -> Result<(), RotationFault> {
        self.alter(&quoted(account), password)
    }

    fn show(&mut self, account: &str) -> Result<(), RotationFault> {
        let row = self.ask("SELECT 1, session_user::text")?;
        match row.iter().map(Vec::as_slice).eq([b"1", account.as_bytes()]) {
            true => Ok(()),
            false => {
                Err(RotationFault::new(RotationFaultKind::NotValid, "the login is that of another account"))
            }
        }
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        let _gone = self.wire.write(&message::terminate());
    }
}

/// Quotes a name, whose quotes are doubled; there are none in those that we take.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn misconfigured(why: impl Into<String>) -> RotationFault {
    RotationFault::new(RotationFaultKind::Misconfigured, why)
}

fn no_randomness() -> RotationFault {
    misconfigured("the system has no randomness for us")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_name() {
        assert_eq!(quoted("app.x"), "\"app.x\"");
        assert_eq!(quoted("a\" SUPERUSER --"), "\"a\"\" SUPERUSER --\"");
    }
}
