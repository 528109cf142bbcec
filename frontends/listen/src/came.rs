//! How a connection came in: what says which instance its requests reach.

use std::net::{IpAddr, SocketAddr};

use keymill_core::instance::Arrival;

/// How a connection came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// The address that it was accepted at.
    pub local: Option<SocketAddr>,
    /// The name that the client asked the TLS server for.
    pub server_name: Option<Box<str>>,
    /// Where it comes from.
    pub source: Option<IpAddr>,
}

impl Came {
    /// Returns it as what is decided by.
    pub fn arrival(&self) -> Arrival<'_> {
        Arrival { local: self.local, server_name: self.server_name.as_deref(), source: self.source }
    }
}
