//! The section of the configuration that tells of the store on PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use keymill_store_postgres::{Config, Place, Tls};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::private;

/// Options of the store on PostgreSQL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PostgresConfig {
    /// The servers of the cluster.
    pub(crate) hosts: Vec<String>,
    /// The database.
    pub(crate) database: String,
    /// The role that logs in.
    pub(crate) user: String,
    /// The file that holds its password.
    pub(crate) password_file: Option<PathBuf>,
    /// The environment variable that holds its password.
    pub(crate) password_env: Option<String>,
    /// Certificates of those who may have signed the servers'.
    pub(crate) ca_file: Option<PathBuf>,
    /// The name in the servers' certificates, where it is not that of the host.
    pub(crate) server_name: Option<String>,
    /// The schema that has the tables.
    pub(crate) schema: String,
    /// Milliseconds that an operation may take, with every attempt.
    pub(crate) timeout_ms: u64,
    /// Milliseconds between two questions of a watch.
    pub(crate) poll_ms: u64,
    /// Connections, at most.
    pub(crate) max_connections: usize,
    /// Removals that a watch can still be told of.
    pub(crate) kept_removals: u32,
    /// Commits whose lost answer can be looked up.
    pub(crate) kept_commits: u32,
    /// Whether commits notify and watches listen.
    pub(crate) notify: bool,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        let theirs = Config::new([]);
        let (password_file, password_env, ca_file, server_name) = (None, None, None, None);
        Self {
            hosts: vec!["localhost".into()],
            database: theirs.database,
            user: theirs.user,
            password_file,
            password_env,
            ca_file,
            server_name,
            schema: theirs.schema,
            timeout_ms: u64::try_from(theirs.timeout.as_millis()).expect("it is seconds"),
            poll_ms: u64::try_from(theirs.poll.as_millis()).expect("it is less than a second"),
            max_connections: theirs.max_connections,
            kept_removals: theirs.kept_removals,
            kept_commits: theirs.kept_commits,
            notify: theirs.notify,
        }
    }
}

impl PostgresConfig {
    /// Returns the plugin's own options. The password is read.
    pub(crate) fn options(&self) -> Result<Config> {
        let mut places = Vec::new();
        for host in &self.hosts {
            places.push(host.parse::<Place>().map_err(Failure::because("store.postgres.hosts"))?);
        }
        let tls = match (&self.ca_file, &self.server_name) {
            (None, Some(_)) => {
                return Err(Failure::new(
                    "store.postgres.server_name is of a certificate: ca_file names who may have signed it",
                ));
            }
            (ca_file, server_name) => {
                let with =
                    |ca_file: &PathBuf| Tls { ca_file: ca_file.clone(), server_name: server_name.clone() };
                ca_file.as_ref().map(with)
            }
        };
        Ok(Config {
            database: self.database.clone(),
            user: self.user.clone(),
            password: private::password_of(
                "store.postgres",
                self.password_file.as_deref(),
                self.password_env.as_deref(),
            )?,
            tls,
            schema: self.schema.clone(),
            timeout: Duration::from_millis(self.timeout_ms),
            poll: Duration::from_millis(self.poll_ms),
            max_connections: self.max_connections,
            kept_removals: self.kept_removals,
            kept_commits: self.kept_commits,
            notify: self.notify,
            ..Config::new(places)
        })
    }

    /// The defaults, with something in the place of each option that has none.
    #[cfg(test)]
    pub(super) fn all_set() -> Self {
        Self {
            password_file: Some("p".into()),
            password_env: Some("E".into()),
            ca_file: Some("c".into()),
            server_name: Some("s".into()),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        toml::from_str::<PostgresConfig>(text).expect("options that there are").options()
    }

    #[test]
    fn servers_and_who_signed_for_them_are_named() {
        let config = read("hosts = [\"db-1:6432\", \"db-2\"]\nca_file = \"ca.pem\"").unwrap();
        assert_eq!(config.places, ["db-1:6432", "db-2"].map(|text| text.parse().unwrap()));
        assert!(config.tls.is_some() && config.password.is_none());
        for odd in ["hosts = [\"a b\"]", "server_name = \"n\""] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_password_comes_from_a_private_file_or_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        private::create(&file, b"a password\n").unwrap();
        let named = format!("password_file = {file:?}");
        assert_eq!(read(&named).unwrap().password.unwrap().expose(), b"a password");
        assert!(read(&format!("{named}\npassword_env = \"X\"")).is_err());
        let why = read("password_env = \"KEYMILL_NO_SUCH_VARIABLE\"").err().unwrap().to_string();
        assert!(why.contains("KEYMILL_NO_SUCH_VARIABLE"), "{why}");
        assert!(toml::from_str::<PostgresConfig>("password = \"plain\"").is_err(), "it is not in the file");
    }
}
