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
    /// Names the nodes; nothing is connected yet. How many connections there are is up to the caller.
    pub fn new(config: Config) -> Self {
        Self::with_capacity(config, usize::MAX)
    }

    /// Names nodes that take `capacity` requests each, from callers that take turns.
    pub(crate) fn with_capacity(config: Config, capacity: usize) -> Self {
        let backoff = Backoff { first: config.first_backoff, last: config.last_backoff };
        let pool = Pool::new(config.addresses.len(), capacity, backoff);
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
        let mut tried = Tried::default();
        loop {
            let failure = match self.join(&mut tried)? {
                Ok(member) => return Ok(member),
                Err(failure) => failure,
            };
            let may_move = matches!(failure.next(true), Next::Elsewhere | Next::Again(_));
            if !may_move || !self.pool.has_fresh(tried) {
                return Err(failure.error);
            }
        }
    }

    /// Connects to a better node than that of a member that [had better leave](Member::should_leave); `None` where there is none after all.
    pub fn move_from(&self, member: &Member) -> Option<Member> {
        let mut tried = Tried::default();
        tried.add(member.slot.node());
        // Another that is better, too, is for the next time.
        member.should_leave().then(|| self.join(&mut tried))?.ok()?.ok()
    }

    /// Tries a node.
    fn join(&self, tried: &mut Tried) -> Result<Result<Member, Failure>> {
        // Each node has its own time: the one before may have taken all of it to fail.
        let deadline = Instant::now() + self.config.options.connect_timeout;
        let slot = self.pool.take(tried, deadline);
        let mut slot = slot.ok_or_else(|| timed_out("every connection is in use"))?;
        let opened = self.open(slot.node(), deadline).map_err(Failure::unsent);
        Ok(match opened {
            Ok(connection) => Ok(Member { connection, slot }),
            Err(failure) => {
                slot.report(failure.health());
                Err(failure)
            }
        })
    }

    /// Connects to a node, within the time of a request.
    pub(crate) fn open(&self, node: usize, deadline: Instant) -> Result<Connection> {
        self.open_address(self.config.addresses.at(node), deadline).map_err(|error| self.named(node, error))
    }

    fn open_address(&self, address: &str, deadline: Instant) -> Result<Connection> {
        let left = remaining(deadline)?;
        let mut options = for_node(&self.config.options, address);
        options.connect_timeout = options.connect_timeout.min(left);
        options.read_timeout = options.read_timeout.min(left);
        if self.config.addresses.len() > 1 {
            // A node that takes connections and says nothing is left for another.
            options.read_timeout = options.read_timeout.min(options.connect_timeout);
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

/// Returns the options of a connection to a node: its certificate has to hold its host, unless a name is given for all.
fn for_node(options: &Options, address: &str) -> Options {
    let mut options = options.clone();
    if let Some(Tls { host: host @ None, .. }) = &mut options.tls {
        *host = Some(addresses::host(address).to_owned());
    }
    options
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, SECRET};
    use crate::fake_node::{FakeNode, Mood};
    use keymill_core::ErrorKind;
    use keymill_core::operation::DescribeLimitsRequest;

    fn cluster(count: usize) -> (Vec<FakeNode>, Nodes) {
        let (nodes, addresses) = FakeNode::several(count);
        let mut config = Config::of_cluster(addresses, fake::credentials(SECRET));
        (config.first_backoff, config.last_backoff) = (Duration::from_millis(1), Duration::from_millis(5));
        (nodes, Nodes::new(config))
    }

    fn logins(nodes: &[FakeNode]) -> Vec<usize> {
        nodes.iter().map(FakeNode::logins).collect()
    }

    /// Asks, and says how the node did.
    fn ask(member: &mut Member) -> bool {
        let connection = member.connection();
        connection.send(&DescribeLimitsRequest::default().into()).unwrap();
        let answered = connection.receive().and_then(|answer| answer.result().map(|_| ()));
        match &answered {
            Ok(()) => member.answered(),
            Err(error) => member.failed(error),
        }
        answered.is_ok()
    }

    #[test]
    fn connections_spread_over_the_nodes_and_pass_over_one_that_is_away() {
        let (nodes, cluster) = cluster(3);
        let mut members: Vec<_> = (0..9).map(|_| cluster.connect().unwrap()).collect();
        assert!(members.iter_mut().all(ask) && !members.iter().any(Member::should_leave));
        assert_eq!(logins(&nodes), [3, 3, 3]);
        drop(members);
        nodes[1].is(Mood::Away);
        let mut members: Vec<_> = (0..8).map(|_| cluster.connect().unwrap()).collect();
        assert!(members.iter_mut().all(ask));
        assert_eq!(logins(&nodes), [7, 3, 7]);
    }

    #[test]
    fn a_connection_leaves_a_node_that_cannot_serve_and_returns_once_it_can() {
        let (nodes, cluster) = cluster(2);
        let mut members: Vec<_> = (0..4).map(|_| cluster.connect().unwrap()).collect();
        nodes[0].is(Mood::Refuses(ErrorKind::Unavailable));
        let good: Vec<_> = members.iter_mut().map(ask).collect();
        assert_eq!(good.iter().filter(|good| **good).count(), 2);
        for (member, good) in members.iter().zip(&good) {
            assert_eq!(member.should_leave(), !good);
        }
        let mut kept: Vec<_> = members.into_iter().zip(good).filter(|(_, good)| *good).collect();
        assert_eq!(kept.len(), 2);
        nodes[0].is(Mood::Well);
        // Its rest is over within milliseconds, and it has two connections less.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !kept[0].0.should_leave() {
            assert!(Instant::now() < deadline, "it is left alone for good");
            std::thread::yield_now();
        }
        kept[0].0 = cluster.move_from(&kept[0].0).expect("a better place");
        assert!(ask(&mut kept[0].0));
        assert!(!kept.iter().any(|(member, _)| member.should_leave()), "one each is even");
    }

    #[test]
    fn a_connection_stays_where_the_better_node_is_away_after_all() {
        let (nodes, cluster) = cluster(3);
        nodes[0].is(Mood::Away);
        // Two at each of the others, and none where one had better be.
        let mut members: Vec<_> = (0..4).map(|_| cluster.connect().unwrap()).collect();
        assert!(members.iter_mut().all(ask));
        let deadline = Instant::now() + Duration::from_secs(30);
        for _ in 0..20 {
            while !members[0].should_leave() {
                assert!(Instant::now() < deadline);
                std::thread::yield_now();
            }
            assert!(cluster.move_from(&members[0]).is_none());
        }
        assert_eq!(logins(&nodes), [0, 2, 2], "nobody went in circles");
    }

    #[test]
    fn a_node_that_takes_no_login_in_time_is_left_for_another() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (nodes, addresses) = FakeNode::several(1);
        let silent_one = silent.local_addr().unwrap().to_string();
        let addresses = Addresses::new([silent_one, addresses.to_string()]).unwrap();
        let mut config = Config::of_cluster(addresses, fake::credentials(SECRET));
        config.options.connect_timeout = Duration::from_millis(50);
        let cluster = Nodes::new(config);
        let mut members: Vec<_> = (0..4).map(|_| cluster.connect().unwrap()).collect();
        assert!(members.iter_mut().all(ask));
        assert_eq!(nodes[0].logins(), 4);
    }

    #[test]
    fn each_host_is_the_name_of_its_node_unless_one_is_given_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let (ca, own) = (directory.path().join("ca.pem"), "node-1.example");
        std::fs::write(&ca, rcgen::generate_simple_self_signed([own.to_owned()]).unwrap().cert.pem())
            .unwrap();
        let read_key = |_: &std::path::Path| unreachable!("there is no certificate of our own");
        let options = keymill_tls::ClientOptions { ca, identity: None, read_key };
        let tls = keymill_tls::ClientTls::open(&options, crate::ALPN).unwrap();
        let named = |host: Option<&str>| {
            let options = Options {
                tls: Some(Tls { tls: tls.clone(), host: host.map(str::to_owned) }),
                ..Options::default()
            };
            for_node(&options, "node-1.example:8471").tls.unwrap().host
        };
        assert_eq!(named(None).as_deref(), Some(own));
        assert_eq!(named(Some("cluster")).as_deref(), Some("cluster"));
    }
}
