//! A client for callers that want one reply to one request: it keeps connections, makes new ones where they break, and
//! repeats what may be repeated.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::limit;
use keymill_core::operation::{Class, Reply, Request};

use crate::connection::{Connection, Options};
use crate::credentials::Credentials;
use crate::error::{ClientError, Result};
use crate::receiver::Answer;

/// How a client reaches its server.
#[derive(Debug)]
pub struct Config {
    /// Host and port.
    pub address: String,
    /// The access key.
    pub credentials: Credentials,
    /// Connections, at most; each carries one request at a time.
    pub connections: usize,
    /// How each connection is made.
    pub options: Options,
    /// The wait before the first retry; each further one may take twice as long, up to `last_backoff`.
    pub first_backoff: Duration,
    /// The longest wait before a retry, unless the server asks for more.
    pub last_backoff: Duration,
}

impl Config {
    /// Makes a configuration with two connections and the usual waits.
    pub fn new(address: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            address: address.into(),
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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    /// As many slots as connections; an empty one stands for a connection that is yet to be made.
    give: flume::Sender<Option<Connection>>,
    take: flume::Receiver<Option<Connection>>,
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
    /// Makes a client and its first connection, so that a wrong address or access key shows at once.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn connect(config: Config) -> Result<Self> {
        let slots = config.connections.max(1);
        let (give, take) = flume::bounded(slots);
        let shared = Shared { config, give, take };
        let first = shared.open(Instant::now() + shared.config.options.connect_timeout)?;
        for slot in std::iter::once(Some(first)).chain(std::iter::repeat_with(|| None)).take(slots) {
            shared.put_back(slot);
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends a request and waits for its reply, up to the request's `TimeoutMs` and two seconds for the way.
    ///
    /// Operations that use or read keys are repeated where a connection is lost or the server says that the same request
    /// may pass later; others only where the server cannot have had the whole request.
    ///
    /// # Errors
    /// `Refused` with the server's reason; `Io` and `Protocol` where there is none; `Unsendable` for a request that is
    /// too long.
    pub fn call<'a>(&self, request: impl Into<Request<'a>>) -> Result<OwnedReply> {
        let request = request.into();
        let allowed = Duration::from_millis(request.timeout_ms().unwrap_or(limit::DEFAULT_TIMEOUT_MS));
        let deadline = Instant::now() + allowed + SLACK;
        let mut attempt = 0;
        loop {
            let failure = match self.shared.attempt(&request, deadline) {
                Ok(answer) => return Ok(OwnedReply(answer)),
                Err(failure) => failure,
            };
            let Some(asked) = failure.retry_after(request.operation().class()) else {
                return Err(failure.error);
            };
            let config = &self.shared.config;
            let wait = backoff(attempt, config.first_backoff, config.last_backoff, random()).max(asked);
            if Instant::now() + wait >= deadline {
                return Err(failure.error);
            }
            std::thread::sleep(wait);
            attempt += 1;
        }
    }
}

/// A failed attempt, and how far it came.
struct Failure {
    error: ClientError,
    reached: Reached,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// The server cannot have had the whole request.
    Nothing,
    /// The server may have carried it out.
    Server,
}

impl Failure {
    /// Returns the least wait before a retry, `None` where there must not be one.
    fn retry_after(&self, class: Class) -> Option<Duration> {
        let repeatable = self.reached == Reached::Nothing
            || match class {
                Class::Data | Class::Read => true,
                Class::Management => false,
            };
        let (passing, asked_ms) = match &self.error {
            ClientError::Io(_) => (true, 0),
            ClientError::Refused(error) => (error.retryable, error.retry_after_ms.unwrap_or(0)),
            ClientError::Tls(_) | ClientError::Protocol(_) | ClientError::Unsendable(_) => (false, 0),
        };
        (repeatable && passing).then(|| Duration::from_millis(asked_ms.into()))
    }
}

impl Shared {
    fn attempt(&self, request: &Request<'_>, deadline: Instant) -> Result<Answer, Failure> {
        let unsent = |error| Failure { error, reached: Reached::Nothing };
        let mut slot = self.slot(deadline).map_err(unsent)?;
        let mut connection = match slot.connection.take().filter(Connection::is_alive) {
            Some(connection) => connection,
            None => self.open(deadline).map_err(unsent)?,
        };
        connection
            .set_read_timeout(remaining(deadline).map_err(unsent)?)
            .and_then(|()| connection.send(request))
            .and_then(|id| connection.flush().map(|()| id))
            .map_err(unsent)
            .and_then(|id| self.answer(&mut connection, id))
            .inspect(|_| slot.connection = Some(connection))
            .and_then(|answer| match answer.refusal() {
                None => Ok(answer),
                Some(error) => Err(Failure { error, reached: Reached::Server }),
            })
    }

    fn answer(&self, connection: &mut Connection, id: u64) -> Result<Answer, Failure> {
        let sent = |error| Failure { error, reached: Reached::Server };
        let answer = connection.receive().map_err(sent)?;
        if answer.id() != id {
            return Err(sent(ClientError::protocol(format!("answer {} to request {id}", answer.id()))));
        }
        Ok(answer)
    }

    fn open(&self, deadline: Instant) -> Result<Connection> {
        let mut options = self.config.options.clone();
        options.connect_timeout = options.connect_timeout.min(remaining(deadline)?);
        options.read_timeout = options.read_timeout.min(remaining(deadline)?);
        let addresses: Vec<SocketAddr> = self.config.address.to_socket_addrs()?.collect();
        let mut failed = ClientError::Io(std::io::Error::other("the host has no address"));
        for address in addresses {
            match Connection::open(address, &self.config.credentials, &options) {
                Err(ClientError::Io(error)) => failed = error.into(),
                answered => return answered,
            }
        }
        Err(failed)
    }

    fn slot(&self, deadline: Instant) -> Result<Slot<'_>> {
        match self.take.recv_deadline(deadline) {
            Ok(connection) => Ok(Slot { shared: self, connection }),
            Err(_) => Err(timed_out("every connection is in use")),
        }
    }

    fn put_back(&self, connection: Option<Connection>) {
        self.give.try_send(connection).expect("there are as many places as slots");
    }
}

/// A slot that is in use; it goes back whatever happens.
struct Slot<'s> {
    shared: &'s Shared,
    connection: Option<Connection>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.shared.put_back(self.connection.take());
    }
}

fn remaining(deadline: Instant) -> Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(remaining) if !remaining.is_zero() => Ok(remaining),
        _ => Err(timed_out("the time of the request is over")),
    }
}

fn timed_out(message: &str) -> ClientError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, message).into()
}

/// Returns the wait before retry `attempt`: somewhere in the upper half of twice the wait before, so that clients that were
/// cut off together do not come back together.
fn backoff(attempt: u32, first: Duration, last: Duration, random: u32) -> Duration {
    let whole = first.saturating_mul(1 << attempt.min(16)).min(last);
    whole / 2 + whole.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the wait is merely not spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(client.call(rotate()), Err(ClientError::Io(_))));
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

    #[test]
    fn waits_grow_are_spread_and_end() {
        let (first, last) = (Duration::from_millis(50), Duration::from_secs(2));
        assert_eq!(backoff(0, first, last, 0), Duration::from_millis(25));
        assert_eq!(backoff(0, first, last, u32::MAX), first);
        assert_eq!(backoff(3, first, last, u32::MAX), 8 * first);
        assert_eq!(backoff(6, first, last, u32::MAX), last);
        assert_eq!(backoff(u32::MAX, first, last, 0), last / 2);
    }
}
