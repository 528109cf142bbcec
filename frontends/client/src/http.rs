//! A minimal blocking HTTP client for `/v1/<Operation>` in JSON, signed by ACS3-HMAC-SHA256 or sent over a channel whose certificate says who calls, and for the pages that need no
//! signature. Of one server it asks once; of several nodes each at most once, by the same rule as over MessagePack TCP.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use keymill_core::Timestamp;
use keymill_core::operation::{Operation, Reply, Request};
use keymill_tls::{CertificateDer, ClientTls};
use keymill_wire::acs3::{self, Authorization, Signable};
use keymill_wire::answer::{decode_json_error, decode_json_reply};
use keymill_wire::request::encode_json;

use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::addresses::Addresses;
use crate::backoff::Backoff;
use crate::board::Tried;
use crate::credentials::Credentials;
use crate::error::{ClientError, Result, ServerError, undecodable};
use crate::moves::{Failure, Next, Reached, patience};
use crate::nodes::{remaining, timed_out};
use crate::pool::{Health, Pool};

/// Bytes of an answer, at most.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Requests under way at one node, at most.
const PER_NODE: usize = 1024;
/// How long a node rests that failed.
const REST: Backoff = Backoff { first: Duration::from_millis(50), last: Duration::from_secs(2) };

/// An HTTP client of one server, or of the nodes of a cluster.
#[derive(Debug)]
pub struct HttpClient {
    agent: ureq::Agent,
    nodes: Vec<Node>,
    pool: Arc<Pool<()>>,
    /// Time for a call, at however many nodes.
    timeout: Duration,
}

/// Where a node is.
#[derive(Debug)]
struct Node {
    base: String,
    host: String,
}

/// A reply in the body that it came in.
#[derive(Clone, Debug)]
pub struct HttpReply {
    operation: Operation,
    body: Vec<u8>,
}

impl HttpReply {
    /// Reads the reply.
    ///
    /// # Errors
    /// `Protocol` for a reply that is not of its form.
    pub fn reply(&self) -> Result<Reply<'_>> {
        decode_json_reply(self.operation, &self.body).map_err(undecodable)
    }

    /// Returns the JSON text as the server sent it.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl HttpClient {
    /// Makes a client of the server at `url`, which is `http://host:port`.
    ///
    /// # Errors
    /// `Unsendable` for any other form.
    pub fn new(url: &str, timeout: Duration) -> Result<Self> {
        Self::of_cluster(&Addresses::one(url), timeout, None)
    }

    /// Makes a client of the server at `url`, which is `https://host:port`.
    ///
    /// # Errors
    /// `Unsendable` for any other form.
    pub fn over_tls(url: &str, timeout: Duration, tls: &ClientTls) -> Result<Self> {
        Self::of_cluster(&Addresses::one(url), timeout, Some(tls))
    }

    /// Makes a client of the nodes at `urls`, each `http://host:port`, or with TLS `https://host:port`.
    ///
    /// # Errors
    /// `Unsendable` for any other form.
    pub fn of_cluster(urls: &Addresses, timeout: Duration, tls: Option<&ClientTls>) -> Result<Self> {
        let (scheme, tls) = match tls {
            Some(tls) => ("https://", tls_config(tls)),
            None => ("http://", TlsConfig::builder().build()),
        };
        let nodes: Vec<Node> = urls.iter().map(|url| Node::new(url, scheme)).collect::<Result<_>>()?;
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            // A refusal has a body that says why.
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        let pool = Pool::new(nodes.len(), PER_NODE, REST);
        Ok(Self { agent, nodes, pool, timeout })
    }

    /// Sends a signed request and waits for its reply. Where there are several nodes, what may be repeated goes to the next one that was not
    /// asked, as long as there is time.
    ///
    /// # Errors
    /// `Refused` with the server's reason, `Io` and `Protocol` where there is none, `OutcomeUnknown` for a change that may have been made.
    pub fn call<'a>(&self, request: impl Into<Request<'a>>, credentials: &Credentials) -> Result<HttpReply> {
        let request = request.into();
        let operation = request.operation();
        let body =
            encode_json(&request).map_err(|error| ClientError::Unsendable(error.message().to_owned()))?;
        self.at_any_node(operation.is_idempotent(), |node, patience| {
            let (status, body) = self.post(node, operation, &body, credentials, patience)?;
            if status == 200 {
                return Ok(HttpReply { operation, body });
            }
            Err(Failure::sent(match decode_json_error(&body) {
                Ok(error) => ServerError::new(status, error).into(),
                Err(_) => ClientError::protocol(format!("status {status} without an error in JSON")),
            }))
        })
    }

    /// Fetches a page without a signature, such as `/readyz` or `/metrics`, and returns status and text; of several nodes, of one that
    /// answers.
    ///
    /// # Errors
    /// `Io` where there is no answer, `Protocol` for one that is not text.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.at_any_node(true, |node, patience| {
            let get = self.agent.get(format!("{}{path}", node.base));
            let (status, body) = answer(get.config().timeout_global(Some(patience)).build().call())?;
            let text = String::from_utf8(body)
                .map_err(|_| Failure::sent(ClientError::protocol(format!("{path} is not UTF-8"))))?;
            Ok((status, text))
        })
    }

    /// Asks one node after another, for as long as another may do.
    fn at_any_node<T>(
        &self,
        is_idempotent: bool,
        ask: impl Fn(&Node, Duration) -> Result<T, Failure>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        let mut tried = Tried::default();
        loop {
            let slot = self.pool.take(&mut tried, deadline);
            let mut slot = slot.ok_or_else(|| timed_out("too many requests are under way"))?;
            let may_move = is_idempotent && self.pool.has_fresh(tried);
            let node = &self.nodes[slot.node()];
            let failure = match ask(node, patience(remaining(deadline)?, may_move)) {
                Ok(answer) => {
                    slot.report(Health::Well);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            slot.report(failure.health());
            match failure.next(is_idempotent) {
                Next::Elsewhere | Next::Again(_) if self.pool.has_fresh(tried) => {}
                Next::TellUnknown => return Err(self.named(node, failure.error).with_unknown_outcome()),
                Next::Tell | Next::Elsewhere | Next::Again(_) | Next::Later(_) => {
                    return Err(self.named(node, failure.error));
                }
            }
        }
    }

    fn named(&self, node: &Node, error: ClientError) -> ClientError {
        match self.nodes.len() {
            1 => error,
            _ => error.at(&node.base),
        }
    }

    fn post(
        &self,
        node: &Node,
        operation: Operation,
        body: &[u8],
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| {
            Failure::unsent(ClientError::Unsendable("the system gives no random bytes".to_owned()))
        })?;
        let signed = Signed {
            operation,
            host: &node.host,
            body,
            date: Timestamp::from_ms(now.as_millis() as u64),
            nonce: acs3::hex(&nonce),
        };
        let mut post = self.agent.post(format!("{}{}", node.base, signed.path()));
        for (name, value) in signed.headers(credentials).map_err(Failure::unsent)? {
            post = post.header(name, value);
        }
        answer(post.config().timeout_global(Some(patience)).build().send(body))
    }
}

impl Node {
    fn new(url: &str, scheme: &str) -> Result<Self> {
        let base = url.strip_suffix('/').unwrap_or(url);
        let host = base
            .strip_prefix(scheme)
            .filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']))
            .ok_or_else(|| ClientError::Unsendable(format!("a URL is {scheme}host:port here")))?;
        Ok(Self { base: base.to_owned(), host: host.to_owned() })
    }
}

/// Says in the words of ureq what is trusted and who we are.
fn tls_config(tls: &ClientTls) -> TlsConfig {
    let owned = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
    // It takes keys in PEM alone.
    let identity = tls.identity().and_then(|(chain, key)| {
        let chain: Vec<_> = chain.iter().map(owned).collect();
        Some(ClientCert::new_with_certs(&chain, PrivateKey::from_pem(key.expose()).ok()?))
    });
    let roots: Vec<_> = tls.roots().iter().map(owned).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(tls.provider())
        .build()
}

/// What a request signs.
struct Signed<'a> {
    operation: Operation,
    host: &'a str,
    body: &'a [u8],
    date: Timestamp,
    nonce: String,
}

impl Signed<'_> {
    fn path(&self) -> String {
        format!("/v1/{}", self.operation.name())
    }

    /// Returns the headers to send, with the signature over all of them; with none where the certificate of the channel says who calls.
    fn headers(&self, credentials: &Credentials) -> Result<Vec<(&'static str, String)>> {
        let mut headers = vec![
            ("host", self.host.to_owned()),
            ("content-type", "application/json".to_owned()),
            (acs3::ACTION, self.operation.name().to_owned()),
            (acs3::ACS_VERSION, acs3::API_VERSION.to_owned()),
        ];
        if credentials.is_certificate() {
            return Ok(headers);
        }
        headers.extend([
            (acs3::DATE, self.date.to_string()),
            (acs3::NONCE, self.nonce.clone()),
            (acs3::CONTENT_SHA256, acs3::hex(&sha256(self.body))),
        ]);
        let shown: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = self.path();
        let signable = Signable { method: "POST", path: &path, query: &[], headers: &shown };
        let signed_headers = signable.all_headers();
        let to_sign = signable.string_to_sign(acs3::SCHEME, &signed_headers, &sha256).map_err(undecodable)?;
        let signature = credentials.mac(&to_sign).ok_or_else(|| {
            ClientError::Unsendable(
                "a client key and a token sign over MessagePack TCP, not over HTTP here".into(),
            )
        })?;
        let authorization = Authorization {
            credential: credentials.access_key_id().as_str(),
            scope: None,
            signed_headers: signed_headers.into(),
            signature,
        };
        headers.push(("authorization", authorization.format()));
        Ok(headers)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn answer(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, Vec<u8>), Failure> {
    let mut response =
        sent.map_err(|error| Failure { reached: reached(&error), error: unanswered(error) })?;
    let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
    let body = body.map_err(|error| Failure::sent(unanswered(error)))?;
    Ok((response.status().as_u16(), body))
}

/// Tells what came of a request before there was an answer: nothing, where there was no connection.
fn reached(error: &ureq::Error) -> Reached {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let is_before = match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(when) => matches!(when, ureq::Timeout::Resolve | ureq::Timeout::Connect),
        ureq::Error::Io(error) => {
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        }
        _ => false,
    };
    if is_before { Reached::Nothing } else { Reached::Server }
}

fn unanswered(error: ureq::Error) -> ClientError {
    match error {
        ureq::Error::Io(error) => error.into(),
        ureq::Error::Timeout(_) => io::Error::new(io::ErrorKind::TimedOut, error.to_string()).into(),
        ureq::Error::Rustls(error) => ClientError::Tls(error.to_string()),
        ureq::Error::Tls(what) => ClientError::Tls(what.to_owned()),
        ureq::Error::Protocol(_) | ureq::Error::BodyExceedsLimit(_) => {
            ClientError::Protocol(error.to_string())
        }
        error => io::Error::other(error.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, SECRET};
    use keymill_core::id::{KeyRef, RequestId};
    use keymill_core::limit::MaxRecords;
    use keymill_core::operation::{
        DescribeLimitsReply, DescribeLimitsRequest, EncryptRequest, RotateKeyRequest,
    };
    use keymill_core::{Error, ErrorKind};
    use keymill_wire::request::decode_json;
    use keymill_wire::response::{json_error, json_reply};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// Reads one request: its first line, its headers, its body.
    fn read_request(stream: &TcpStream) -> (String, Vec<(String, String)>, Vec<u8>) {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let first = line();
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        (first, headers, body)
    }

    fn respond(mut stream: &TcpStream, status: &str, body: &[u8]) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    }

    fn serve(handle: impl FnOnce(TcpStream) + Send + 'static) -> (HttpClient, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || handle(listener.accept().unwrap().0));
        (HttpClient::new(&url, Duration::from_secs(10)).unwrap(), server)
    }

    #[test]
    fn a_call_is_signed_over_all_that_matters() {
        let (client, server) = serve(|stream| {
            let (first, headers, body) = read_request(&stream);
            assert_eq!(first, "POST /v1/Encrypt HTTP/1.1");
            let headers: Vec<_> = headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let request = Signable { method: "POST", path: "/v1/Encrypt", query: &[], headers: &headers };
            let offered = request.header("authorization").unwrap().into_owned();
            let offered = Authorization::parse(&offered).unwrap();
            assert!(offered.signed_headers.contains("content-type"));
            let to_sign = request.string_to_sign(acs3::SCHEME, &offered.signed_headers, &sha256).unwrap();
            assert_eq!(offered.signature, fake::credentials(SECRET).mac(&to_sign).unwrap());
            assert_eq!(request.header(acs3::CONTENT_SHA256).unwrap(), acs3::hex(&sha256(&body)));
            assert!(Timestamp::parse(&request.header(acs3::DATE).unwrap()).is_some());
            let Request::Encrypt(request) = decode_json(Operation::Encrypt, &body).unwrap() else { panic!() };
            assert_eq!(&*request.plaintext, b"hello");
            let error = Error::new(ErrorKind::KeyDisabled, "the key is disabled");
            respond(&stream, "409 Conflict", &json_error(&error, fake::REQUEST));
        });
        let request = EncryptRequest {
            key_id: KeyRef::parse("alias/a"),
            plaintext: b"hello"[..].into(),
            encryption_context: None,
            timeout_ms: None,
        };
        let error = client.call(request, &fake::credentials(SECRET)).unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status, refusal.code.as_str()), (409, "Rejected.Disabled"));
        assert_eq!(refusal.request_id, RequestId::to_string(&fake::REQUEST));
        server.join().unwrap();
    }

    #[test]
    fn a_reply_is_read() {
        let (client, server) = serve(|stream| {
            read_request(&stream);
            let limits = DescribeLimitsReply::gather(fake::REQUEST, 1 << 24, 1024, MaxRecords::default());
            respond(&stream, "200 OK", &json_reply(&Reply::DescribeLimits(limits)));
        });
        let reply = client.call(DescribeLimitsRequest::default(), &fake::credentials(SECRET)).unwrap();
        assert!(
            matches!(reply.reply().unwrap(), Reply::DescribeLimits(limits) if limits.max_in_flight == 1024)
        );
        server.join().unwrap();
    }

    #[test]
    fn a_page_is_fetched_with_its_status_and_without_a_signature() {
        let (client, server) = serve(|stream| {
            let (first, headers, _) = read_request(&stream);
            assert_eq!(first, "GET /readyz HTTP/1.1");
            assert!(!headers.iter().any(|(name, _)| name == "authorization"));
            respond(&stream, "503 Service Unavailable", b"starting");
        });
        assert_eq!(client.get("/readyz").unwrap(), (503, "starting".to_owned()));
        server.join().unwrap();
    }

    #[test]
    fn what_is_no_answer_of_ours_is_told() {
        let (client, server) = serve(|stream| {
            read_request(&stream);
            respond(&stream, "502 Bad Gateway", b"<html>");
        });
        let error = client.call(DescribeLimitsRequest::default(), &fake::credentials(SECRET)).unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)), "{error}");
        server.join().unwrap();
    }

    /// Takes one connection, reads a request, and closes without an answer.
    fn dies(listener: TcpListener) {
        read_request(&listener.accept().unwrap().0);
    }

    /// Answers requests with the limits, `count` of them.
    fn answers(listener: TcpListener, count: usize) {
        for _ in 0..count {
            let stream = listener.accept().unwrap().0;
            read_request(&stream);
            let limits = DescribeLimitsReply::gather(fake::REQUEST, 1 << 24, 1024, MaxRecords::default());
            respond(&stream, "200 OK", &json_reply(&Reply::DescribeLimits(limits)));
        }
    }

    fn cluster(addresses: [std::net::SocketAddr; 2]) -> HttpClient {
        let urls = Addresses::new(addresses.map(|address| format!("http://{address}"))).unwrap();
        HttpClient::of_cluster(&urls, Duration::from_secs(10), None).unwrap()
    }

    fn absent() -> std::net::SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn what_is_idempotent_goes_to_the_other_node() {
        let (good, server) = fake::serve(|listener| answers(listener, 20));
        let (bad, dead) = fake::serve(dies);
        let client = cluster([bad, good]);
        for _ in 0..20 {
            client.call(DescribeLimitsRequest::default(), &fake::credentials(SECRET)).unwrap();
        }
        server.join().unwrap();
        drop(dead);
    }

    #[test]
    fn a_change_moves_only_from_a_node_that_had_nothing_of_it() {
        let rotate = || RotateKeyRequest { key_id: KeyRef::parse("alias/a"), timeout_ms: None };
        let (bad, dead) = fake::serve(dies);
        let client = cluster([absent(), bad]);
        let error = client.call(rotate(), &fake::credentials(SECRET)).unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown(_)), "{error}");
        assert!(error.to_string().contains(&bad.to_string()), "{error}");
        dead.join().unwrap();
        let client = cluster([absent(), absent()]);
        let error = client.call(rotate(), &fake::credentials(SECRET)).unwrap_err();
        assert!(matches!(error, ClientError::Io(_)), "{error}");
    }

    #[test]
    fn only_plain_http_urls_of_a_host_are_taken() {
        for bad in
            ["https://host:1", "host:1", "http://", "http://host/path", "http://user@host", "ftp://host"]
        {
            assert!(HttpClient::new(bad, Duration::from_secs(1)).is_err(), "{bad}");
        }
    }
}
