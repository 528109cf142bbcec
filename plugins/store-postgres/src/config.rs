//! The options of the store, with their defaults.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use keymill_core::Sensitive;

use crate::error::OpenError;

/// The port of PostgreSQL.
const PORT: u16 = 5432;
/// The channel of the notifications has the name of the schema and a word before it, and the server takes 63 bytes.
const MAX_SCHEMA_BYTES: usize = 48;
/// A scan and a watch may each have one while whom they tell uses the store.
const MIN_CONNECTIONS: usize = 4;
/// A watch that looked less often could not say once a second that it is current.
const MAX_POLL: Duration = Duration::from_millis(900);

/// What [`open`](crate::open) needs to know.
pub struct Config {
    /// Servers of one cluster. They are tried in this order from the one that was right last, and one that takes no writes is passed over.
    pub places: Vec<Place>,
    /// The database.
    pub database: String,
    /// The role that logs in.
    pub user: String,
    /// Its password, where the server asks for one.
    pub password: Option<Sensitive>,
    /// Whom to trust over TLS; without it, servers on this machine alone.
    pub tls: Option<Tls>,
    /// The schema that has the tables. It is made where it is absent; one schema is one installation.
    pub schema: String,
    /// How long an operation may take, with every attempt; a commit whose answer was lost takes up to twice that.
    pub timeout: Duration,
    /// How often a watch asks the server, whether or not it was notified; less than a second.
    pub poll: Duration,
    /// Connections, at most; one more listens for notifications.
    pub max_connections: usize,
    /// Removals that a watch can still be told of, at most; a watch from before them is told to list again.
    pub kept_removals: u32,
    /// Commits whose ids are known: a lost answer is looked up among them.
    pub kept_commits: u32,
    /// Whether commits notify and watches listen. Without it watches ask, and that alone.
    pub notify: bool,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host.
    Tcp {
        /// Its name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The directory of a socket of this machine.
    Socket {
        /// The directory.
        directory: PathBuf,
        /// The port that the socket has in its name.
        port: u16,
    },
}

/// Whom to trust.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates of those who may have signed the servers', in PEM.
    pub ca_file: PathBuf,
    /// The name in the servers' certificates, where it is not that of the host.
    pub server_name: Option<String>,
}

impl Config {
    /// Returns the defaults for a cluster: the database, the role and the schema are named `keymill`.
    pub fn new(places: impl IntoIterator<Item = Place>) -> Self {
        Self {
            places: places.into_iter().collect(),
            database: "keymill".into(),
            user: "keymill".into(),
            password: None,
            tls: None,
            schema: "keymill".into(),
            timeout: Duration::from_secs(5),
            poll: Duration::from_millis(500),
            max_connections: 8,
            kept_removals: 4096,
            kept_commits: 65_536,
            notify: true,
        }
    }

    /// Refuses what makes no sense before anything is connected.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |why: String| Err(OpenError::Options(why));
        let is_name = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        let schema = self.schema.as_bytes();
        if !(1..=MAX_SCHEMA_BYTES).contains(&schema.len())
            || !schema.iter().all(|c| is_name(*c))
            || schema[0].is_ascii_digit()
            || self.schema.starts_with("pg_")
        {
            return refuse(format!(
                "{:?} is no name of a schema: a-z, 0-9 and _, of at most {MAX_SCHEMA_BYTES} bytes, not beginning with a digit or pg_",
                self.schema
            ));
        }
        if self.places.is_empty() {
            return refuse("no server is named".into());
        }
        if self.timeout < Duration::from_millis(100) || self.timeout > Duration::from_secs(3600) {
            return refuse("a timeout is from 100 ms to an hour".into());
        }
        if self.poll.is_zero() || self.poll > MAX_POLL {
            return refuse(format!("a watch asks at least every {} ms", MAX_POLL.as_millis()));
        }
        if self.max_connections < MIN_CONNECTIONS {
            return refuse(format!("a store needs at least {MIN_CONNECTIONS} connections"));
        }
        if self.kept_commits < 1024 {
            return refuse("at least 1024 commits are kept: a lost answer is looked up among them".into());
        }
        Ok(())
    }
}

impl FromStr for Place {
    type Err = OpenError;

    /// Reads `host`, `host:port`, `[address]:port`, or the directory of a socket, which begins with a slash and may end in `:port`.
    fn from_str(text: &str) -> Result<Self, OpenError> {
        let odd = || OpenError::Options(format!("{text:?} is no server: host, host:port, or /directory"));
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, PORT),
            Some((address, rest)) => {
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
                (address, port.ok_or_else(odd)?)
            }
            // An address of IPv6 without brackets has more than one colon.
            None if text.matches(':').count() > 1 => (text, PORT),
            None => match text.rsplit_once(':') {
                Some((name, port)) => (name, port.parse().map_err(|_| odd())?),
                None => (text, PORT),
            },
        };
        if name.is_empty() || port == 0 || name.contains(char::is_whitespace) {
            return Err(odd());
        }
        Ok(match name.starts_with('/') {
            true => Place::Socket { directory: name.into(), port },
            false => Place::Tcp { host: name.into(), port },
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "{host}:{port}"),
            Place::Socket { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let tcp = |host: &str, port| Place::Tcp { host: host.into(), port };
        for (text, place) in [
            ("db", tcp("db", 5432)),
            ("db.example.com:6432", tcp("db.example.com", 6432)),
            ("::1", tcp("::1", 5432)),
            ("[::1]", tcp("::1", 5432)),
            ("[::1]:6432", tcp("::1", 6432)),
            ("/run/postgresql", Place::Socket { directory: "/run/postgresql".into(), port: 5432 }),
            ("/run/postgresql:6432", Place::Socket { directory: "/run/postgresql".into(), port: 6432 }),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), place, "{text}");
            assert_eq!(place.to_string().parse::<Place>().unwrap(), place, "{text}");
        }
        for odd in ["", ":5432", "db:", "db:x", "db:70000", "db:0", "a b", "[::1]5432"] {
            assert!(odd.parse::<Place>().is_err(), "{odd}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let fine = || Config::new(["db".parse().unwrap()]);
        fine().check().unwrap();
        let long = "a".repeat(49);
        for schema in ["", "Keymill", "a b", "a\"b", "1a", "pg_keys", &long] {
            assert!(Config { schema: schema.into(), ..fine() }.check().is_err(), "{schema}");
        }
        for odd in [
            Config { places: Vec::new(), ..fine() },
            Config { timeout: Duration::from_millis(99), ..fine() },
            Config { poll: Duration::from_secs(1), ..fine() },
            Config { poll: Duration::ZERO, ..fine() },
            Config { max_connections: 3, ..fine() },
            Config { kept_commits: 0, ..fine() },
        ] {
            assert!(odd.check().is_err());
        }
    }
}
