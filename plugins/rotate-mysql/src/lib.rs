#![doc = include_str!("../README.md")]

mod fault;
mod hash;
pub mod packet;
mod session;
mod statement;

use std::time::Instant;

use keymill_core::seam::rotator::{RotationFault, Rotator};
use keymill_rotate_database::{Database, DatabaseRotator, Login, Way};

pub use keymill_rotate_database::{Config, OpenError, Place, Tls};

use session::MysqlSession;

/// The longest name of a host that an account is bound to.
const MAX_HOST_BYTES: usize = 255;

/// Makes the rotator. Accounts are those of `account_host`, as `%`; the server need not be there yet.
///
/// # Errors
/// [`OpenError`] where the options do not make sense, or a certificate cannot be read.
pub fn open(config: &Config, account_host: &str) -> Result<impl Rotator + use<>, OpenError> {
    let is_host = |c: u8| c.is_ascii_alphanumeric() || b"%_-.:/".contains(&c);
    if !(1..=MAX_HOST_BYTES).contains(&account_host.len()) || !account_host.bytes().all(is_host) {
        return Err(OpenError::new(format!("account_host {account_host:?} is no host of an account")));
    }
    let mysql = Mysql {
        way: Way::prepare(config)?,
        database: config.database.clone(),
        account_host: account_host.into(),
    };
    DatabaseRotator::new(mysql, config)
}

/// A server.
struct Mysql {
    way: Way,
    database: Option<String>,
    account_host: String,
}

impl Database for Mysql {
    type Session = MysqlSession;
    const KIND: &'static str = "mysql";
    /// MySQL's; MariaDB takes more.
    const MAX_NAME_BYTES: usize = 32;
    const RESERVED: &'static [&'static str] = &["root", "mysql", "mysql.*", "mariadb.*"];

    fn log_in(&self, login: &Login, until: Instant) -> Result<MysqlSession, RotationFault> {
        MysqlSession::open(&self.way, self.database.as_deref(), &self.account_host, login, until)
    }
}
