//! The section of the configuration that tells of a database whose logins are rotated.

use std::path::PathBuf;

use keymill_core::id::SecretName;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::plugins::database::{Config, Place, Tls};

/// Logins of a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DatabaseRotator {
    /// The name or address of the server.
    pub(crate) host: Option<String>,
    /// Its port; that of the kind if absent.
    pub(crate) port: Option<u16>,
    /// Its socket, in place of a host.
    pub(crate) socket: Option<PathBuf>,
    /// The database that is logged in to.
    pub(crate) database: Option<String>,
    /// Certificates of those who may have signed the server's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The name in the server's certificate, where it is not that of the host.
    pub(crate) server_name: Option<String>,
    /// The accounts that may be rotated.
    pub(crate) accounts: Vec<String>,
    /// Of MariaDB and MySQL: the host of the accounts; `%` if absent.
    pub(crate) account_host: Option<String>,
    /// The secret with a login that may change the passwords of others.
    pub(crate) admin: Option<SecretName>,
    /// Characters of a password.
    pub(crate) password_length: u32,
}

impl Default for DatabaseRotator {
    fn default() -> Self {
        let theirs = Config::new(Place::Socket(PathBuf::new()), [""; 0]);
        let (host, port, socket, database, ca_file) = (None, None, None, None, None);
        let (server_name, accounts, account_host, admin) = (None, Vec::new(), None, None);
        let password_length = theirs.password_length;
        Self {
            host,
            port,
            socket,
            database,
            ca_file,
            server_name,
            accounts,
            account_host,
            admin,
            password_length,
        }
    }
}

impl DatabaseRotator {
    /// Returns the plugin's own options; `port` is that of the kind.
    pub(crate) fn options(&self, port: u16) -> Result<Config> {
        let place = match (&self.host, &self.socket) {
            (Some(host), None) => Place::Tcp { host: host.clone(), port: self.port.unwrap_or(port) },
            (None, Some(_)) if self.port.is_some() => {
                return Err(Failure::new("port is of a host, and a socket has none"));
            }
            (None, Some(socket)) => Place::Socket(socket.clone()),
            _ => return Err(Failure::new("one of host and socket is named: where the database is")),
        };
        let tls = match (&self.ca_file, &self.server_name) {
            (Some(ca_file), server_name) => {
                Some(Tls { ca_file: ca_file.clone(), server_name: server_name.clone() })
            }
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Failure::new(
                    "server_name is of a certificate: ca_file names who may have signed it",
                ));
            }
        };
        Ok(Config {
            tls,
            database: self.database.clone(),
            admin: self.admin.clone(),
            password_length: self.password_length,
            ..Config::new(place, self.accounts.clone())
        })
    }
}

/// One of PostgreSQL and one of MySQL, with every option between them.
#[cfg(test)]
pub(super) fn all_set() -> (DatabaseRotator, DatabaseRotator) {
    let postgresql = DatabaseRotator {
        host: Some("db.example.com".into()),
        port: Some(5432),
        database: Some("orders".into()),
        ca_file: Some("/etc/keymill/db-ca.pem".into()),
        server_name: Some("db.example.com".into()),
        accounts: vec!["orders_*".into()],
        admin: Some("db-admin".parse().expect("a good name")),
        ..DatabaseRotator::default()
    };
    let mysql = DatabaseRotator {
        socket: Some("/run/mysqld/mysqld.sock".into()),
        accounts: vec!["shop_a".into(), "shop_b".into()],
        account_host: Some("%".into()),
        ..DatabaseRotator::default()
    };
    (postgresql, mysql)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        toml::from_str::<DatabaseRotator>(text).expect("options that there are").options(5432)
    }

    #[test]
    fn a_database_is_in_one_place() {
        let config = read("host = \"localhost\"\naccounts = [\"a\"]").unwrap();
        assert_eq!(config.place, Place::Tcp { host: "localhost".into(), port: 5432 });
        let config = read("socket = \"/run/s\"\naccounts = [\"a\"]").unwrap();
        assert_eq!(config.place, Place::Socket("/run/s".into()));
        for odd in [
            "",
            "host = \"h\"\nsocket = \"/s\"",
            "socket = \"/s\"\nport = 1",
            "host = \"h\"\nserver_name = \"n\"",
        ] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }
}
