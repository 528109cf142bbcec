//! The section of the configuration that tells of the etcd that keeps records.

use std::path::PathBuf;
use std::time::Duration;

use keymill_store_etcd::{Config, Identity, Tls, User};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::private;

/// Options of the store on etcd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EtcdConfig {
    /// Its members, as `https://HOST:PORT`.
    pub(crate) endpoints: Option<Vec<String>>,
    /// What every key begins with.
    pub(crate) prefix: String,
    /// Certificates of those who may have signed the members'.
    pub(crate) ca_file: Option<PathBuf>,
    /// The name in the members' certificates, where it is not that of the endpoint.
    pub(crate) server_name: Option<String>,
    /// Our certificate chain.
    pub(crate) cert_file: Option<PathBuf>,
    /// The key of it.
    pub(crate) key_file: Option<PathBuf>,
    /// Who logs in.
    pub(crate) user: Option<String>,
    /// The file of the password.
    pub(crate) password_file: Option<PathBuf>,
    /// The variable that holds the password.
    pub(crate) password_env: Option<String>,
    /// Milliseconds after which a call is unavailable.
    pub(crate) timeout_ms: u64,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        let Config { prefix, timeout, .. } = Config::new([""; 0]);
        Self {
            endpoints: None,
            prefix,
            ca_file: None,
            server_name: None,
            cert_file: None,
            key_file: None,
            user: None,
            password_file: None,
            password_env: None,
            timeout_ms: timeout.as_millis() as u64,
        }
    }
}

impl EtcdConfig {
    /// Returns the plugin's own options.
    pub(crate) fn options(&self) -> Result<Config> {
        let endpoints = self.endpoints.as_ref().ok_or_else(|| {
            Failure::new("store.etcd.endpoints is not set")
                .next("name the members of the etcd, https://HOST:PORT")
        })?;
        let identity = match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => {
                Some(Identity { cert_file: cert_file.clone(), key_file: key_file.clone() })
            }
            (None, None) => None,
            _ => {
                return Err(Failure::new("store.etcd.cert_file and key_file are set together or not at all"));
            }
        };
        let tls = match (&self.ca_file, &self.server_name, identity) {
            (Some(ca_file), server_name, identity) => {
                Some(Tls { ca_file: ca_file.clone(), identity, server_name: server_name.clone() })
            }
            (None, None, None) => None,
            _ => {
                return Err(Failure::new("store.etcd.ca_file is not set")
                    .next("name the certificates that the members' are checked against"));
            }
        };
        Ok(Config {
            prefix: self.prefix.clone(),
            tls,
            user: self.user()?,
            timeout: Duration::from_millis(self.timeout_ms),
            ..Config::new(endpoints.clone())
        })
    }

    fn user(&self) -> Result<Option<User>> {
        let (file, variable) = (self.password_file.as_deref(), self.password_env.as_deref());
        let password = private::password_of("store.etcd", file, variable)?;
        match (&self.user, password) {
            (Some(name), Some(password)) => Ok(Some(User { name: name.clone(), password })),
            (None, None) => Ok(None),
            _ => Err(Failure::new("store.etcd.user and its password are set together or not at all")
                .next("name the password by password_file or password_env")),
        }
    }

    /// Every option set.
    #[cfg(test)]
    pub(super) fn all_set() -> Self {
        Self {
            endpoints: Some(vec!["https://etcd-1:2379".into()]),
            ca_file: Some("c".into()),
            server_name: Some("s".into()),
            cert_file: Some("c".into()),
            key_file: Some("k".into()),
            user: Some("u".into()),
            password_file: Some("p".into()),
            password_env: Some("e".into()),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_options(text: &str) -> Result<Config> {
        toml::from_str::<EtcdConfig>(text).expect("options that there are").options()
    }

    #[test]
    fn what_belongs_together_is_set_together() {
        let members = "endpoints = [\"https://e:1\"]\nca_file = \"c\"\n";
        let config = read_options(members).unwrap();
        assert_eq!((config.endpoints.len(), &*config.prefix), (1, "keymill"));
        for half in ["cert_file = \"c\"", "key_file = \"k\"", "user = \"u\"", "password_env = \"PATH\""] {
            assert!(read_options(&format!("{members}{half}")).is_err(), "{half}");
        }
        for alone in ["", "endpoints = [\"https://e:1\"]\nserver_name = \"s\""] {
            assert!(read_options(alone).is_err(), "{alone}");
        }
        let user = format!("{members}user = \"u\"\npassword_env = \"PATH\"\n");
        assert!(read_options(&user).unwrap().user.is_some());
        assert!(read_options(&format!("{user}password_file = \"p\"")).is_err());
    }

    #[test]
    fn a_password_is_read_without_the_end_of_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        private::create(&file, b"a word \n").unwrap();
        let named =
            format!("endpoints = [\"https://e:1\"]\nca_file = \"c\"\nuser = \"u\"\npassword_file = {file:?}");
        assert_eq!(read_options(&named).unwrap().user.unwrap().password.expose(), b"a word ");
    }
}
