//! The options of the store, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use keymill_core::Sensitive;

/// What [`open`](crate::open) needs to know.
pub struct Config {
    /// Members of the cluster, as `https://HOST:PORT`; `http://` only where they are on this machine. Whichever answers is used.
    pub endpoints: Vec<String>,
    /// What every key begins with, before a `/`; whatever is under it is this store's alone.
    pub prefix: String,
    /// How members are known over TLS; needed where an endpoint is `https://`.
    pub tls: Option<Tls>,
    /// Who logs in, where etcd asks for that.
    pub user: Option<User>,
    /// The time after which a call is `Unavailable`, whatever the cluster does; of a list and a scan, each page.
    pub timeout: Duration,
}

/// Files (PEM) for TLS. They are read anew with each connection, so that a renewed certificate needs no restart.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates of those who may have signed the members'.
    pub ca_file: PathBuf,
    /// Our certificate chain and its key, where etcd wants one.
    pub identity: Option<Identity>,
    /// The name in the members' certificates, where it is not that of the endpoint.
    pub server_name: Option<String>,
}

/// Our certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate chain.
    pub cert_file: PathBuf,
    /// The key of it.
    pub key_file: PathBuf,
}

/// Who logs in.
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Sensitive,
}

impl Config {
    /// Returns the defaults for a cluster.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "keymill".into(),
            tls: None,
            user: None,
            timeout: Duration::from_secs(5),
        }
    }
}
