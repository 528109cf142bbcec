//! A client for callers that want one reply to one request: it keeps connections to each node, makes new ones where they break, spreads requests
//! over the nodes that answer, and repeats what may be repeated, at another node where there is one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::limit;
use keymill_core::operation::{Reply, Request};

use crate::addresses::Addresses;
use crate::backoff::{Backoff, random};
use crate::board::Tried;
use crate::connection::{Connection, Options};
use crate::credentials::Credentials;
use crate::error::{ClientError, Result};
use crate::moves::{Failure, Next, patience};
use crate::nodes::{Nodes, remaining, timed_out};
use crate::pool::{Health, Slot};
use crate::receiver::Answer;

/// How a client reaches its server, or the nodes of a cluster.
#[derive(Debug)]
pub struct Config {
    /// Host and port of each node.
    pub addresses: Addresses,
    /// The access key.
    pub credentials: Credentials,
    /// Connections to each node, at most; each carries one request at a time.
    pub connections: usize,
    /// How each connection is made.
    pub options: Options,
    /// The wait before the first retry, and the first rest of a node that failed; each further one may take twice as long, up to `last_backoff`.
    pub first_backoff: Duration,
    /// The longest wait before a retry, unless the server asks for more.
    pub last_backoff: Duration,
}

impl Config {
    /// Makes a configuration of one server, with two connections and the usual waits.
    pub fn new(address: impl Into<String>, credentials: Credentials) -> Self {
        Self::of_cluster(Addresses::one(address), credentials)
    }

    /// Makes a configuration of the nodes of a cluster, with two connections to each and the usual waits.
    pub fn of_cluster(addresses: Addresses, credentials: Credentials) -> Self {
        Self {
            addresses,
            credentials,
            connections: 2,
            options: Options::default(),
            first_backoff: Duration::from_millis(50),
            last_backoff: Duration::from_secs(2),
        }
    }
}

/// Time for the way there and back, on top of what the server may take.
const SLACK: Duration = Duration::from_secs(2);

/// A client that many threads may share; clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    nodes: Arc<Nodes>,
}

/// A reply in the frame that it came in.
#[derive(Clone, Debug)]
pub struct OwnedReply(Answer);

impl OwnedReply {
    /// Reads the reply; its bytes are borrowed from the frame.
    ///
    /// # Errors
    /// `Protocol` for a reply that is not of its form.
    pub fn reply(&self) -> Result<Reply<'_>> {
        self.0.result()
    }
}

impl Client {
    /// Makes a client and its first connection, so that a wrong address or access key shows at once. Of several nodes one has to answer.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn connect(config: Config) -> Result<Self> {
        let connections = config.connections;
        let nodes = Nodes::with_capacity(config, connections);
        nodes.connect()?.keep();
        Ok(Self { nodes: Arc::new(nodes) })
    }

    /// Sends a request and waits for its reply, up to the request's `TimeoutMs` and two seconds for the way.
    ///
    /// What is idempotent ([`Operation::is_idempotent`](keymill_core::operation::Operation::is_idempotent)) is repeated where a connection is lost or the server says that the same
    /// request may pass later; other requests only where the server cannot have had the whole of them, or says that it did nothing. The next
    /// try goes at once to a node that was not asked yet, and to any after a wait.
    ///
    /// # Errors
    /// `Refused` with the server's reason; `Io` and `Protocol` where there is none; `OutcomeUnknown` where the request may have been carried out
    /// and may not be repeated; `Unsendable` for one that is too long.
    pub fn call<'a>(&self, request: impl Into<Request<'a>>) -> Result<OwnedReply> {
        let request = request.into();
        let is_idempotent = request.operation().is_idempotent();
        let allowed = Duration::from_millis(request.timeout_ms().unwrap_or(limit::DEFAULT_TIMEOUT_MS));
        let deadline = Instant::now() + allowed + SLACK;
        let config = &self.nodes.config;
        let backoff = Backoff { first: config.first_backoff, last: config.last_backoff };
        let (mut tried, mut waits) = (Tried::default(), 0);
        loop {
            let failure = match self.nodes.attempt(&request, is_idempotent, deadline, &mut tried) {
                Ok(answer) => return Ok(OwnedReply(answer)),
                Err(failure) => failure,
            };
            let asked = match failure.next(is_idempotent) {
                Next::Elsewhere | Next::Again(_) if self.nodes.pool.has_fresh(tried) => continue,
                Next::Tell | Next::Elsewhere => return Err(failure.error),
                Next::TellUnknown => return Err(failure.error.with_unknown_outcome()),
                Next::Again(asked) | Next::Later(asked) => asked,
            };
            let wait = backoff.wait(waits, random()).max(asked);
            if Instant::now() + wait >= deadline {
                return Err(failure.error);
            }
            std::thread::sleep(wait);
            waits += 1;
        }
    }
}

impl Nodes {
    /// Has a node answer the request; one that was tried before only where no other does.
    fn attempt(
        &self,
        request: &Request<'_>,
        is_idempotent: bool,
        deadline: Instant,
        tried: &mut Tried,
    ) -> Result<Answer, Failure> {
        let slot = self.pool.take(tried, deadline);
        let mut slot = slot.ok_or_else(|| Failure::unsent(timed_out("every connection is in use")))?;
        let may_move = is_idempotent && self.pool.has_fresh(*tried);
        let patience = patience(remaining(deadline).map_err(Failure::unsent)?, may_move);
        let answered = self.exchange(&mut slot, request, Instant::now() + patience);
        let answered = answered.and_then(|answer| match answer.refusal() {
            None => Ok(answer),
            Some(error) => Err(Failure::sent(error)),
        });
        match &answered {
            Ok(_) => slot.report(Health::Well),
            Err(failure) => slot.report(failure.health()),
        }
        answered
    }

    fn exchange(
        &self,
        slot: &mut Slot<Connection>,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let node = slot.node();
        let named = |error| self.named(node, error);
        let mut connection = match slot.connection.take().filter(Connection::is_alive) {
            Some(connection) => connection,
            None => self.open(node, deadline).map_err(Failure::unsent)?,
        };
        let id = remaining(deadline)
            .and_then(|left| self.set_patience(&connection, left))
            .and_then(|()| connection.send(request))
            .and_then(|id| connection.flush().map(|()| id))
            .map_err(|error| Failure::unsent(named(error)))?;
        let answer = connection.receive().map_err(|error| Failure::sent(named(error)))?;
        if answer.id() != id {
            let message = format!("answer {} to request {id}", answer.id());
            return Err(Failure::sent(named(ClientError::protocol(message))));
        }
        slot.connection = Some(connection);
        Ok(answer)
    }

    fn set_patience(&self, connection: &Connection, left: Duration) -> Result<()> {
        if self.config.addresses.len() > 1 {
            connection.set_write_timeout(left.min(self.config.options.write_timeout))?;
        }
        connection.set_read_timeout(left)
    }
}

#[cfg(test)]
mod tests {
    mod cluster;

    use std::net::SocketAddr;

    use super::*;
    use crate::fake::{self, SECRET, Session};
    use keymill_core::id::RequestId;
    use keymill_core::limit::MaxRecords;
    use keymill_core::operation::{
        DescribeLimitsReply, DescribeLimitsRequest, Operation, RotateKeyReply, RotateKeyRequest,
    };
    use keymill_core::{Error, ErrorKind};

    fn client(address: SocketAddr) -> Client {
        let mut config = Config::new(address.to_string(), fake::credentials(SECRET));
        config.connections = 1;
        config.first_backoff = Duration::from_millis(1);
        Client::connect(config).unwrap()
    }

    fn limits(session: &mut Session, id: u64) {
        session.reply(
            id,
            &Reply::DescribeLimits(DescribeLimitsReply::gather(
                fake::REQUEST,
                1 << 24,
                1024,
                MaxRecords::default(),
            )),
        );
    }

    fn rotate() -> RotateKeyRequest {
        RotateKeyRequest { key_id: keymill_core::id::KeyRef::parse("alias/a"), timeout_ms: None }
    }

    #[test]
    fn a_read_is_repeated_on_a_new_connection_after_a_loss() {
        let (address, server) = fake::serve(|listener| {
            let mut first = Session::accept(&listener);
            first.request().unwrap();
            drop(first);
            let mut second = Session::accept(&listener);
            let (id, operation) = second.request().unwrap();
            assert_eq!(operation, Operation::DescribeLimits);
            limits(&mut second, id);
        });
        let client = client(address);
        let reply = client.call(DescribeLimitsRequest::default()).unwrap();
        assert!(
            matches!(reply.reply().unwrap(), Reply::DescribeLimits(limits) if limits.max_in_flight == 1024)
        );
        server.join().unwrap();
    }

    #[test]
    fn a_management_request_that_was_sent_is_never_repeated() {
        let (address, server) = fake::serve(|listener| {
            let mut first = Session::accept(&listener);
            assert_eq!(first.request().unwrap().1, Operation::RotateKey);
            drop(first);
            // What comes next is the other request, not the first one again.
            let mut second = Session::accept(&listener);
            let (id, operation) = second.request().unwrap();
            assert_eq!(operation, Operation::DescribeLimits);
            limits(&mut second, id);
            let (id, _) = second.request().unwrap();
            second.refuse(id, Error::new(ErrorKind::StoreUnavailable, "the store is full"));
            assert_eq!(second.request(), None);
        });
        let client = client(address);
        assert!(matches!(client.call(rotate()), Err(ClientError::OutcomeUnknown(_))));
        client.call(DescribeLimitsRequest::default()).unwrap();
        assert!(client.call(rotate()).unwrap_err().refusal().unwrap().retryable);
        drop(client);
        server.join().unwrap();
    }

    #[test]
    fn a_management_request_goes_out_on_a_new_connection_where_the_idle_one_was_closed() {
        let (closed, wait_closed) = flume::bounded(1);
        let (address, server) = fake::serve(move |listener| {
            drop(Session::accept(&listener));
            closed.send(()).unwrap();
            let mut second = Session::accept(&listener);
            let (id, operation) = second.request().unwrap();
            assert_eq!(operation, Operation::RotateKey);
            let key_version_id = keymill_core::id::KeyVersionId::from_bytes([3; 16]);
            second.reply(id, &Reply::RotateKey(RotateKeyReply { key_version_id, request_id: fake::REQUEST }));
        });
        let client = client(address);
        wait_closed.recv().unwrap();
        assert!(client.call(rotate()).is_ok());
        server.join().unwrap();
    }

    #[test]
    fn a_busy_server_is_asked_again_and_a_refusal_is_final() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            for _ in 0..3 {
                let (id, _) = session.request().unwrap();
                session.refuse(id, Error::new(ErrorKind::Busy, "the lane is full").retry_after_ms(2));
            }
            let (id, _) = session.request().unwrap();
            session.refuse(id, Error::new(ErrorKind::Denied, "no"));
            assert_eq!(session.request(), None);
        });
        let client = client(address);
        let error = client.call(DescribeLimitsRequest::default()).unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status, refusal.code.as_str()), (403, "Forbidden.NoPermission"));
        assert_eq!(refusal.request_id, RequestId::to_string(&fake::REQUEST));
        drop(client);
        server.join().unwrap();
    }

    #[test]
    fn a_wait_that_passes_the_deadline_is_not_begun() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            let (id, _) = session.request().unwrap();
            session.refuse(id, Error::new(ErrorKind::Busy, "the lane is full").retry_after_ms(3_600_000));
            assert_eq!(session.request(), None);
        });
        let client = client(address);
        let request = DescribeLimitsRequest { timeout_ms: Some(60_000) };
        assert_eq!(client.call(request).unwrap_err().refusal().unwrap().status, 429);
        drop(client);
        server.join().unwrap();
    }

    #[test]
    fn a_wrong_address_or_secret_shows_at_once() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = Config::new(nobody.to_string(), fake::credentials(SECRET));
        assert!(matches!(Client::connect(config), Err(ClientError::Io(_))));
        let (address, server) = fake::serve(|listener| assert!(Session::login(&listener).is_none()));
        let error =
            Client::connect(Config::new(address.to_string(), fake::credentials("wrong"))).unwrap_err();
        assert_eq!(error.refusal().unwrap().code, "SignatureDoesNotMatch");
        server.join().unwrap();
    }
}
