#![doc = include_str!("../README.md")]

pub mod dns;
mod dns01;
mod http01;
mod reach;
mod resolver;

use std::net::SocketAddr;
use std::sync::Arc;

use keymill_core::access::Network;
use keymill_core::seam::validator::Validator;

use dns01::Dns01;
use http01::Http01;
use reach::Reach;
use resolver::Resolver;

/// Options of the validators.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whom names are asked of, over TCP, in turn; the system if there is none, and the DNS is no proof then.
    pub resolvers: Vec<SocketAddr>,
    /// Where HTTP may go, alone; unless said, everywhere but to special addresses.
    pub reach: Option<Vec<Network>>,
    /// The port of HTTP. RFC 8555 has 80, and others are for tests.
    pub http_port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { resolvers: Vec::new(), reach: None, http_port: 80 }
    }
}

/// Makes the validators; nothing is reached for.
pub fn open(config: Config) -> Vec<Arc<dyn Validator>> {
    let Config { resolvers, reach, http_port } = config;
    let resolver = Resolver::new(resolvers);
    let http: Arc<dyn Validator> = Arc::new(Http01::new(resolver.clone(), Reach::new(reach), http_port));
    match resolver.asks_dns() {
        true => vec![http, Arc::new(Dns01::new(resolver))],
        false => vec![http],
    }
}
