//! One connection, driven by its caller: requests are sent ahead of the answers, which come in any order. No threads; for
//! two of them the connection splits into halves.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use keymill_core::limit;
use keymill_core::operation::Request;
use keymill_tls::ClientTls;
use keymill_wire::answer::{AnswerShape, check_answer};
use keymill_wire::frame::MAX_HELLO_BYTES;
use keymill_wire::hello::{self, Hello};

use crate::credentials::Credentials;
use crate::error::{ClientError, Result, undecodable};
use crate::receiver::{Answer, Frame, Frames, Receiver, refusal};
use crate::sender::Sender;
use crate::stream::{Incoming, Outgoing};

/// How a connection is made and how long it may be silent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time for the TCP connection, and without a byte within the TLS handshake.
    pub connect_timeout: Duration,
    /// Time without a byte from the server, while an answer is awaited. Longer than any `TimeoutMs`, by default.
    pub read_timeout: Duration,
    /// Time in which the server takes no byte.
    pub write_timeout: Duration,
    /// Bytes of an answer, at most.
    pub max_answer_bytes: usize,
    /// What the client calls itself, for the server's log.
    pub client_name: String,
    /// TLS, where the server speaks it.
    pub tls: Option<Tls>,
}

/// TLS to a server of some name.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whom we trust, and who we are.
    pub tls: ClientTls,
    /// The name, or address, that the server's certificate has to hold; the host of each node's address, if absent.
    pub host: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_millis(limit::MAX_TIMEOUT_MS + 10_000),
            write_timeout: Duration::from_secs(30),
            max_answer_bytes: limit::MAX_FRAME_BYTES,
            client_name: concat!("keymill-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            tls: None,
        }
    }
}

/// A connection that is logged in.
///
/// The server stops reading while 1,024 requests or 64 MiB of a connection are not written out: a caller that sends
/// more than that before it receives waits for itself. Receive as you send, or split.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
    principal: String,
    max_in_flight: u64,
}

impl Connection {
    /// Connects to `address` and logs in.
    ///
    /// # Errors
    /// `Io` where there is no connection, `Tls` where there is none that is safe, `Refused` for a login that the server does not take, `Protocol` for a server
    /// that does not speak ours.
    pub fn open(address: SocketAddr, credentials: &Credentials, options: &Options) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, options.connect_timeout)?;
        // Requests are gathered in the sender's buffer; what is flushed should leave.
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(options.write_timeout))?;
        let (incoming, mut outgoing, exporter) = match &options.tls {
            None => (Incoming::Plain(stream.try_clone()?), Outgoing::Plain(stream), None),
            Some(Tls { tls, host }) => {
                stream.set_read_timeout(Some(options.connect_timeout))?;
                let host = host.clone().unwrap_or_else(|| address.ip().to_string());
                let (read, write, exporter) = tls.connect(stream, &host, hello::EXPORTER_LABEL)?;
                (Incoming::Tls(read), Outgoing::Tls(write), Some(exporter))
            }
        };
        incoming.socket().set_read_timeout(Some(options.read_timeout))?;
        let mut frames = Frames::new(incoming, MAX_HELLO_BYTES);

        let Frame { buffer, range } = frames.next()?;
        let greeting = &buffer[range];
        let challenge = match hello::decode_challenge(greeting) {
            Ok(challenge) => challenge,
            // A server that is full says so instead of greeting.
            Err(error) => {
                return Err(match check_answer(greeting) {
                    Ok(AnswerShape { id: 0, status, body }) if status != 0 => refusal(status, body),
                    _ => undecodable(error),
                });
            }
        };
        let id = credentials.signed_id();
        // What ties the login to its channel; there is none without TLS.
        let exporter = exporter.as_ref().map_or(&[][..], |exported| exported);
        let auth = credentials.auth(&hello::signed_bytes(&challenge.nonce, id, exporter));
        let no_randomness =
            || ClientError::Io(std::io::Error::other("the system has no randomness to offer"));
        let auth = auth.ok_or_else(no_randomness)?;
        let mut out = Vec::new();
        hello::encode_hello(&Hello { client: options.client_name.as_str().into(), auth }, &mut out);
        outgoing.write_all(&out)?;

        let Frame { buffer: answer, range } = frames.next()?;
        let welcome = match check_answer(&answer[range.clone()])? {
            AnswerShape { id: 0, status: 0, body } => hello::decode_welcome(body).map_err(undecodable)?,
            AnswerShape { id: 0, status, body } => return Err(refusal(status, body)),
            _ => return Err(ClientError::protocol("an answer before the welcome")),
        };
        frames.set_max_frame(options.max_answer_bytes);
        let sent = Arc::new(AtomicU64::new(0));
        let max_frame = usize::try_from(challenge.max_frame).unwrap_or(usize::MAX);
        Ok(Self {
            sender: Sender::new(outgoing, max_frame, Arc::clone(&sent)),
            receiver: Receiver::new(frames, sent),
            principal: welcome.principal,
            max_in_flight: challenge.max_in_flight,
        })
    }

    /// Puts a request into the send buffer and returns its id. The buffer goes out once it holds 256 KiB.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send(&mut self, request: &Request<'_>) -> Result<u64> {
        self.sender.send(request)
    }

    /// Sends what is in the send buffer.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn flush(&mut self) -> Result<()> {
        self.sender.flush()
    }

    /// Sends what is in the send buffer and waits for the next answer.
    ///
    /// # Errors
    /// As [`Sender::flush`] and [`Receiver::receive`].
    pub fn receive(&mut self) -> Result<Answer> {
        self.sender.flush()?;
        self.receiver.receive()
    }

    /// Returns how many requests are not answered.
    pub fn in_flight(&self) -> u64 {
        self.receiver.in_flight()
    }

    /// Returns how many requests the server reads ahead of their answers.
    pub fn max_in_flight(&self) -> u64 {
        self.max_in_flight
    }

    /// Returns who the server takes us for.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Takes the connection apart, for a thread that sends and one that receives.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Sets the time without a byte from the server, while an answer is awaited.
    ///
    /// # Errors
    /// `Io` for a time of zero.
    pub fn set_read_timeout(&self, timeout: Duration) -> Result<()> {
        Ok(self.receiver.socket().set_read_timeout(Some(timeout))?)
    }

    /// Sets the time in which the server takes no byte.
    pub(crate) fn set_write_timeout(&self, timeout: Duration) -> Result<()> {
        Ok(self.sender.socket().set_write_timeout(Some(timeout))?)
    }

    /// Tells whether an idle connection is still good: nothing to read, and not closed by the server meanwhile.
    pub(crate) fn is_alive(&self) -> bool {
        let stream = self.sender.socket();
        let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        let blocking = stream.set_nonblocking(false);
        let quiet = peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        quiet && blocking.is_ok() && self.in_flight() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, SECRET, Session};
    use keymill_core::id::KeyRef;
    use keymill_core::operation::{
        BatchEncryptReply, BatchEncryptRequest, Bin, DescribeLimitsRequest, Operation, Reply,
    };
    use keymill_core::{Error, ErrorKind};
    use std::io::ErrorKind::{UnexpectedEof, WouldBlock};
    use std::io::Write;

    fn open(address: SocketAddr) -> Result<Connection> {
        Connection::open(address, &fake::credentials(SECRET), &Options::default())
    }

    fn batch(items: &[Vec<u8>]) -> Request<'_> {
        let items = items.iter().map(|item| Bin::from(&item[..])).collect();
        let key_id = KeyRef::parse("alias/a");
        BatchEncryptRequest {
            key_id,
            items,
            encryption_context: None,
            encryption_contexts: None,
            timeout_ms: None,
        }
        .into()
    }

    /// The fake's cipher: it gives the items back.
    fn echo(request: &Request<'_>) -> Reply<'static> {
        let Request::BatchEncrypt(request) = request else { panic!("{request:?}") };
        let items = request.items.iter().map(|item| Some(item.clone().into_owned())).collect();
        let (key_id, key_version_id) = (fake::KEY, fake::VERSION);
        Reply::BatchEncrypt(BatchEncryptReply { items, errors: vec![], key_id, key_version_id })
    }

    fn items(answer: &Answer) -> Vec<Vec<u8>> {
        let Reply::BatchEncrypt(reply) = answer.result().unwrap() else { panic!() };
        reply.items.into_iter().map(|item| item.unwrap().into_vec()).collect()
    }

    #[test]
    fn a_login_names_the_principal() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            assert_eq!(session.request(), None);
        });
        let connection = open(address).unwrap();
        assert_eq!(connection.principal(), "access-key/AK.12345678");
        assert_eq!((connection.in_flight(), connection.max_in_flight()), (0, 1024));
        assert!(connection.is_alive());
        drop(connection);
        server.join().unwrap();
    }

    #[test]
    fn answers_find_their_requests_in_whatever_order_they_come() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            let mut answers = Vec::new();
            for _ in 0..100 {
                session.with_request(|id, request| answers.push((id, echo(request)))).unwrap();
            }
            for (id, reply) in answers.iter().rev() {
                session.reply(*id, reply);
            }
        });
        let mut connection = open(address).unwrap();
        let mut sent = std::collections::HashMap::new();
        for i in 0..100u8 {
            let plaintexts = vec![vec![i; 1024]; usize::from(i)];
            sent.insert(connection.send(&batch(&plaintexts)).unwrap(), plaintexts);
        }
        assert_eq!(connection.in_flight(), 100);
        for left in (0..100).rev() {
            let answer = connection.receive().unwrap();
            assert_eq!(answer.operation(), Operation::BatchEncrypt);
            assert_eq!(items(&answer), sent.remove(&answer.id()).unwrap());
            assert_eq!(connection.in_flight(), left);
        }
        server.join().unwrap();
    }

    #[test]
    fn halves_work_on_two_threads() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            while let Some((id, reply)) = session.with_request(|id, request| (id, echo(request))) {
                session.reply(id, &reply);
            }
        });
        let (mut sender, mut receiver) = open(address).unwrap().split();
        let sending = std::thread::spawn(move || {
            for i in 0..200u8 {
                sender.send(&batch(&vec![vec![i; 1024]; 64])).unwrap();
            }
            sender.finish().unwrap();
        });
        for i in 0..200u8 {
            assert_eq!(items(&receiver.receive().unwrap()), vec![vec![i; 1024]; 64]);
        }
        sending.join().unwrap();
        assert_eq!(receiver.in_flight(), 0);
        assert!(matches!(receiver.receive(), Err(ClientError::Io(error)) if error.kind() == UnexpectedEof));
        server.join().unwrap();
    }

    #[test]
    fn a_request_that_is_too_long_fails_alone() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            let (id, reply) = session.with_request(|id, request| (id, echo(request))).unwrap();
            session.reply(id, &reply);
        });
        let mut connection = open(address).unwrap();
        let too_long = vec![vec![0; 65_536]; 17];
        let error = connection.send(&batch(&too_long)).unwrap_err();
        assert!(error.to_string().contains("exceeds the limit of 1048576"), "{error}");
        assert_eq!(connection.in_flight(), 0);
        connection.send(&batch(&[vec![1]])).unwrap();
        assert_eq!(items(&connection.receive().unwrap()), [[1]]);
        server.join().unwrap();
    }

    #[test]
    fn a_refusal_is_that_requests_alone_and_a_fault_ends_the_connection() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            let (id, _) = session.request().unwrap();
            session.refuse(id, Error::key_not_found());
            session.request().unwrap();
            session.refuse(0, Error::new(ErrorKind::MalformedRequest, "the id is in flight already"));
        });
        let mut connection = open(address).unwrap();
        let limits = Request::from(DescribeLimitsRequest::default());
        connection.send(&limits).unwrap();
        let error = connection.receive().unwrap().result().map(|_| ()).unwrap_err();
        assert_eq!(error.refusal().unwrap().status, 404);
        connection.send(&limits).unwrap();
        let error = connection.receive().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("in flight already"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn an_answer_nobody_asked_for_breaks_the_protocol() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            session.refuse(1 << 8, Error::key_not_found());
        });
        let mut connection = open(address).unwrap();
        assert!(matches!(connection.receive(), Err(ClientError::Protocol(_))));
        server.join().unwrap();
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let (address, server) = fake::serve(|listener| {
            let mut session = Session::accept(&listener);
            while session.request().is_some() {}
        });
        let mut connection = open(address).unwrap();
        connection.set_read_timeout(Duration::from_millis(20)).unwrap();
        connection.send(&DescribeLimitsRequest::default().into()).unwrap();
        assert!(matches!(connection.receive(), Err(ClientError::Io(error)) if error.kind() == WouldBlock));
        drop(connection);
        server.join().unwrap();
    }

    #[test]
    fn another_kind_of_server_is_told_from_ours() {
        for greeting in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"\0\0\0\x01\xc0",
            b"\0\0\0\x0d\x93\0\xa9Challenge\x80",
        ] {
            let (address, server) = fake::serve(move |listener| {
                listener.accept().unwrap().0.write_all(greeting).unwrap();
            });
            let error = open(address).map(|_| ()).unwrap_err();
            assert!(matches!(error, ClientError::Protocol(_)), "{error}");
            server.join().unwrap();
        }
    }
}
