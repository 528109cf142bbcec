//! The nodes of a cluster as connections to them: which one the next goes to, and for callers that pipeline, one that stays.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addresses::{self, Addresses};
use crate::backoff::Backoff;
use crate::board::Tried;
use crate::client::Config;
use crate::connection::{Connection, Options, Tls};
use crate::error::{ClientError, Result};
use crate::moves::{self, Failure, Next};
use crate::pool::{Health, Pool, Slot};

/// The nodes of a cluster, for callers that drive connections themselves. Connections spread over the nodes that are well.
#[derive(Debug)]
pub struct Nodes {
    pub(crate) config: Config,
    pub(crate) pool: Arc<Pool<Connection>>,
}

/// A connection to one of the nodes, counted as long as it is there.
#[derive(Debug)]
pub struct Member {
    connection: Connection,
    slot: Slot<Connection>,
}

impl Nodes {
    /// Names the nodes; nothing is connected yet.
    pub fn new(config: Config) -> Self {
        let backoff = Backoff { first: config.first_backoff, last: config.last_backoff };
        let pool = Pool::new(config.addresses.len(), config.connections, backoff);
        Self { config, pool }
    }

    /// Returns their addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.config.addresses
    }

    /// Connects to the node with the fewest connections that is well, or to another where that fails.
    ///
    /// # Errors
    /// As [`Connection::open`], of the last node that was tried; a refusal that no other node would take back ends it at once.
    pub fn connect(&self) -> Result<Member> {
        let deadline = Instant::now() + self.config.options.connect_timeout.saturating_mul(2);
        let mut tried = Tried::default();
        loop {
            let slot = self.pool.take(&mut tried, deadline);
            let mut slot = slot.ok_or_else(|| timed_out("every connection is in use"))?;
            // Each node has its own time: the first may be one that takes all of it to fail.
            let deadline = Instant::now() + self.config.options.connect_timeout;
            let failure = match self.open(slot.node(), deadline) {
                Ok(connection) => return Ok(Member { connection, slot }),
                Err(error) => Failure::unsent(error),
            };
            slot.report(failure.health());
            let may_move = matches!(failure.next(true), Next::Elsewhere | Next::Again(_));
            if !may_move || !self.pool.has_fresh(tried) {
                return Err(failure.error);
            }
        }
    }

    /// Connects to a node, within the time of a request.
    pub(crate) fn open(&self, node: usize, deadline: Instant) -> Result<Connection> {
        self.open_address(self.config.addresses.at(node), deadline).map_err(|error| self.named(node, error))
    }

    fn open_address(&self, address: &str, deadline: Instant) -> Result<Connection> {
        let left = remaining(deadline)?;
        let mut options: Options = self.config.options.clone();
        options.connect_timeout = options.connect_timeout.min(left);
        options.read_timeout = options.read_timeout.min(left);
        if self.config.addresses.len() > 1 {
            // A node that takes connections and says nothing is left for another.
            options.read_timeout = options.read_timeout.min(options.connect_timeout);
        }
        if let Some(Tls { host: host @ None, .. }) = &mut options.tls {
            *host = Some(addresses::host(address).to_owned());
        }
        let mut failed = ClientError::Io(std::io::Error::other("the host has no address"));
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        for address in addresses {
            match Connection::open(address, &self.config.credentials, &options) {
                Err(ClientError::Io(error)) => failed = error.into(),
                Ok(connection) => {
                    connection.set_read_timeout(self.config.options.read_timeout)?;
                    return Ok(connection);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// Says at which node it went wrong, where there are several.
    pub(crate) fn named(&self, node: usize, error: ClientError) -> ClientError {
        match self.config.addresses.len() {
            1 => error,
            _ => error.at(self.config.addresses.at(node)),
        }
    }
}

impl Member {
    /// Lends the connection.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Says that the node answered.
    pub fn answered(&mut self) {
        self.slot.report(Health::Well);
    }

    /// Says what went wrong: a node that does not answer, or answers that it cannot serve, rests.
    pub fn failed(&mut self, error: &ClientError) {
        self.slot.report(moves::health(error));
    }

    /// Says that the node refused an item with `code`.
    pub fn refused_item(&mut self, code: &str) {
        if moves::is_unavailable(code) {
            self.slot.report(Health::Troubled);
        }
    }

    /// Tells whether another connection had better take its place, once what is in flight is answered: the node rests and another does not,
    /// or another has two connections less.
    pub fn should_leave(&self) -> bool {
        self.slot.should_leave()
    }

    /// Keeps the connection for a caller that takes turns.
    pub(crate) fn keep(mut self) {
        self.slot.report(Health::Well);
        self.slot.connection = Some(self.connection);
    }
}

/// Returns the time until `deadline`.
pub(crate) fn remaining(deadline: Instant) -> Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(remaining) if !remaining.is_zero() => Ok(remaining),
        _ => Err(timed_out("the time of the request is over")),
    }
}

pub(crate) fn timed_out(message: &str) -> ClientError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, message).into()
}
