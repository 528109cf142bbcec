//! A login, and the few statements that are made in it.

use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::seam::rotator::{RotationFault, RotationFaultKind};
use keymill_rotate_database::{Login, Session, Way, Wire};
use zeroize::Zeroizing;

use crate::fault::{self, misconfigured, strange};
use crate::hash::proof;
use crate::packet::{self, Hello, Method, Packet};
use crate::statement::{self, Account, Dialect};

/// A login is done within a few packets, and what is asked has one row.
const MAX_PACKETS: usize = 64;

/// A login that was let in.
pub(crate) struct MysqlSession {
    talk: Talk,
    dialect: Dialect,
    account_host: String,
}

impl MysqlSession {
    /// Logs in.
    pub(crate) fn open(
        way: &Way,
        database: Option<&str>,
        account_host: &str,
        login: &Login,
        until: Instant,
    ) -> Result<Self, RotationFault> {
        let mut talk = Talk { wire: way.connect(until)?, number: 0, body: Vec::new() };
        talk.receive()?;
        if let Some(Packet::Error(number)) = packet::read(&talk.body) {
            return Err(fault::of_login(number));
        }
        let greeting = packet::greeting(&talk.body).ok_or_else(strange)?;
        if !greeting.is_recent {
            return Err(misconfigured("the server is too old to be talked to"));
        }
        if way.wants_tls() {
            if !greeting.has_tls {
                return Err(misconfigured("the server has no TLS"));
            }
            talk.send(&packet::tls_request(talk.number, database))?;
            talk.wire = way.secure(talk.wire)?;
        }
        let method = greeting.method.unwrap_or(Method::Native);
        let hello = Hello {
            user: &login.name,
            database,
            tls: way.wants_tls(),
            method,
            proof: &proof(method, &login.password, &greeting.nonce),
        };
        talk.send(&packet::hello(talk.number, &hello))?;
        let backslash_escapes = talk.show_password(method, login)?;
        let dialect = Dialect { is_mariadb: greeting.is_mariadb, backslash_escapes };
        Ok(Self { talk, dialect, account_host: account_host.into() })
    }

    fn set(&mut self, account: Account<'_>, password: &Sensitive) -> Result<(), RotationFault> {
        // MySQL is told the password, and whoever holds a port of this machine may not be the server.
        if !self.dialect.is_mariadb && !self.talk.wire.is_hidden() {
            return Err(misconfigured("MySQL takes TLS or a socket: it is told the password in clear"));
        }
        self.talk.limit(self.dialect)?;
        let sql = statement::set(self.dialect, account, password);
        match self.talk.ask(&sql)? {
            None => Ok(()),
            Some(_) => Err(strange()),
        }
    }
}

/// What goes to and fro.
struct Talk {
    wire: Wire,
    number: u8,
    body: Vec<u8>,
}

impl Talk {
    fn send(&mut self, packet: &[u8]) -> Result<(), RotationFault> {
        self.number = self.number.wrapping_add(1);
        self.wire.write(packet)
    }

    fn receive(&mut self) -> Result<(), RotationFault> {
        let mut head = [0; 4];
        self.wire.read(&mut head)?;
        let (length, number) =
            packet::head(head).filter(|(_, number)| *number == self.number).ok_or_else(strange)?;
        self.number = number.wrapping_add(1);
        self.body.resize(length, 0);
        self.wire.read(&mut self.body)
    }

    /// Shows the password as the server wants it, and returns whether a backslash in quotes escapes.
    fn show_password(&mut self, mut method: Method, login: &Login) -> Result<bool, RotationFault> {
        for _ in 0..MAX_PACKETS {
            self.receive()?;
            let answer = match packet::read(&self.body).ok_or_else(strange)? {
                Packet::Done { backslash_escapes } => return Ok(backslash_escapes),
                Packet::Error(number) => return Err(fault::of_login(number)),
                Packet::Switch(Some((other, nonce))) => {
                    method = other;
                    Zeroizing::new(proof(other, &login.password, &nonce))
                }
                Packet::Switch(None) => {
                    return Err(misconfigured(
                        "the account logs in neither by mysql_native_password nor by caching_sha2_password",
                    ));
                }
                // The server knows the password from an earlier login.
                Packet::More([3]) if method == Method::CachingSha2 => continue,
                Packet::More([4]) if method == Method::CachingSha2 && self.wire.is_hidden() => {
                    Zeroizing::new([login.password.expose(), &[0]].concat())
                }
                Packet::More([4]) if method == Method::CachingSha2 => {
                    return Err(misconfigured("caching_sha2_password takes TLS or a socket"));
                }
                Packet::More(_) | Packet::Other(_) => return Err(strange()),
            };
            let packet = Zeroizing::new(packet::more(self.number, &answer));
            self.send(&packet)?;
        }
        Err(strange())
    }

    /// Has a statement carried out, and returns the row that it answers with, if any.
    fn ask(&mut self, sql: &str) -> Result<Option<Vec<Vec<u8>>>, RotationFault> {
        self.number = 0;
        self.send(&Zeroizing::new(packet::query(sql)))?;
        self.receive()?;
        match packet::read(&self.body) {
            Some(Packet::Done { .. }) => return Ok(None),
            Some(Packet::Error(number)) => return Err(fault::of_statement(number)),
            _ => {}
        }
        let columns = packet::columns(&self.body).ok_or_else(strange)?;
        let (mut ends, mut last) = (0, Vec::new());
        for _ in 0..MAX_PACKETS {
            self.receive()?;
            if let Some(Packet::Error(number)) = packet::read(&self.body) {
                return Err(fault::of_statement(number));
            }
            match packet::is_end(&self.body) {
                true if ends == 1 => return Ok(Some(last)),
                true => ends += 1,
                false if ends == 0 => {}
                false => {
                    let row = packet::row(&self.body, columns).ok_or_else(strange)?;
                    last = row.into_iter().map(|column| column.unwrap_or_default().to_vec()).collect();
                }
            }
        }
        Err(strange())
    }

    /// Has the server give up when we do: a statement that comes late could undo what came after it.
    fn limit(&mut self, dialect: Dialect) -> Result<(), RotationFault> {
        let left = self.wire.left().as_secs().clamp(1, 3_600);
        self.ask(&format!("SET SESSION lock_wait_timeout = {left}"))?;
        if dialect.is_mariadb {
            self.ask(&format!("SET SESSION max_statement_time = {left}"))?;
        }
        Ok(())
    }
}

impl Session for MysqlSession {
    fn change_own(&mut self, password: &Sensitive) -> Result<(), RotationFault> {
        self.set(None, password)
    }

    fn change(&mut self, account: &str, password: &Sensitive) -> Result<(), RotationFault> {
        let host = self.account_host.clone();
        self.set(Some((account, &host)), password)
    }

    fn show(&mut self, account: &str) -> Result<(), RotationFault> {
        let row = self.talk.ask("SELECT 1, CURRENT_USER()")?.ok_or_else(strange)?;
        let is_so = match &row[..] {
            [one, user] => {
                let name = user.iter().rposition(|byte| *byte == b'@').map(|at| &user[..at]);
                one == b"1" && name == Some(account.as_bytes())
            }
            _ => false,
        };
        // A server may take an account without a name for anybody's.
        match is_so {
            true => Ok(()),
            false => {
                Err(RotationFault::new(RotationFaultKind::NotValid, "the login is that of another account"))
            }
        }
    }
}

impl Drop for MysqlSession {
    fn drop(&mut self) {
        let _gone = self.talk.wire.write(&packet::quit());
    }
}
