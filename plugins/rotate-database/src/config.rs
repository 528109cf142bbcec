//! The options that the rotators of databases have in common.

use std::fmt;
use std::path::PathBuf;

use keymill_core::id::SecretName;

/// The options of a rotator, whatever the database.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server, as those who use the credentials reach it.
    pub place: Place,
    /// TLS. None is for this machine alone.
    pub tls: Option<Tls>,
    /// The database that is logged in to, where one must be named.
    pub database: Option<String>,
    /// The accounts that may be rotated: their names, or what a name begins with and `*`.
    pub accounts: Vec<String>,
    /// The secret of this server that holds a login which may change the passwords of others.
    pub admin: Option<SecretName>,
    /// Characters of a password that is made.
    pub password_length: u32,
}

impl Config {
    /// Returns the defaults for a server and the accounts that may be rotated there.
    pub fn new(place: Place, accounts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let accounts = accounts.into_iter().map(Into::into).collect();
        Self { place, tls: None, database: None, accounts, admin: None, password_length: 32 }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or an address, and a port.
    Tcp {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket of this machine.
    Socket(PathBuf),
}

/// Whom to trust.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificates of those who may have signed the server's, in PEM.
    pub ca_file: PathBuf,
    /// The name in the server's certificate, where it is not that of the place.
    pub server_name: Option<String>,
}

/// Why a rotator cannot be had.
#[derive(Debug)]
pub struct OpenError(pub(crate) String);

impl OpenError {
    /// Makes one.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}
