//! The members of the cluster: a connection and a login to each, made when it is needed, and which of them is asked. One that does not
//! answer is left for the next; a request that it may have carried out is not sent twice from here.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use keymill_core::seam::store::StoreError;
use prost::Message;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use crate::config::{Config, Tls};
use crate::error::{Fault, OpenError};
use crate::messages::{AuthenticateRequest, AuthenticateResponse};

/// Calls under way at the same time; further ones wait.
const MAX_CALLS: usize = 64;
/// Bytes of an answer, at most. etcd takes 1.5 MiB of a value, and pages are made smaller where this is too little.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Bytes that a page of records is meant to have.
pub(crate) const PAGE_BYTES: usize = 4 << 20;
/// Bytes that a member may send before it hears that some were taken: a page.
const WINDOW_BYTES: u32 = 4 << 20;
/// Between two rounds in which no member answered.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// A connection on which calls wait is asked for a sign of life; etcd takes it for an attack more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a call is for.
pub(crate) mod method {
    pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
    pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
    pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
    pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    pub(crate) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
    pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    pub(crate) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
    pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
}

/// The members of the cluster.
pub(crate) struct Cluster {
    config: Config,
    members: Vec<Member>,
    /// The one that is asked first.
    preferred: AtomicUsize,
    calls: Semaphore,
    links: AtomicU64,
}

struct Member {
    endpoint: String,
    link: Mutex<Option<Link>>,
}

/// A connection, and the token of the login over it.
#[derive(Clone)]
struct Link {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    number: u64,
}

/// How long one goes on trying, with pauses that grow.
pub(crate) struct Patience {
    pub(crate) until: Instant,
    faults: usize,
    pause: Duration,
}

impl Patience {
    /// Waits before another try; `Unavailable` where there is no time for one.
    pub(crate) async fn pause(&mut self, members: usize, fault: Fault) -> Result<(), StoreError> {
        self.faults += 1;
        // The next member is asked at once, all of them again after a while.
        let next = match self.faults % members.max(1) {
            0 => {
                let pause = self.pause;
                self.pause = (2 * pause).min(LONGEST_PAUSE);
                Instant::now() + pause
            }
            _ => Instant::now(),
        };
        if next >= self.until {
            return Err(fault.into_store_error());
        }
        sleep_until(next).await;
        Ok(())
    }
}

impl Cluster {
    /// Takes the options, where they can be meant.
    pub(crate) fn new(config: Config) -> Result<Self, OpenError> {
        check(&config)?;
        let member = |endpoint: &String| Member { endpoint: endpoint.clone(), link: Mutex::default() };
        let members = config.endpoints.iter().map(member).collect();
        Ok(Self {
            config,
            members,
            preferred: AtomicUsize::new(0),
            calls: Semaphore::new(MAX_CALLS),
            links: AtomicU64::new(0),
        })
    }

    /// Returns what is waited from now on.
    pub(crate) fn patience(&self) -> Patience {
        Patience { until: Instant::now() + self.config.timeout, faults: 0, pause: FIRST_PAUSE }
    }

    /// Returns how many members are known.
    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Returns the time that one try may take: there is time for others behind it.
    pub(crate) fn try_time(&self) -> Duration {
        self.config.timeout / 3
    }

    /// Returns the time after which a call is unavailable.
    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Asks until there is an answer, or no more time: for what may be done twice.
    pub(crate) async fn read<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Fault>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut patience = self.patience();
        loop {
            match self.ask(method, request.clone(), patience.until).await {
                Err(fault @ (Fault::NotDone(_) | Fault::Lost(_) | Fault::LoggedOut(_))) => {
                    patience.pause(self.members(), fault).await.map_err(Fault::Refused)?;
                }
                answer => return answer,
            }
        }
    }

    /// Asks one member, once; a second time only where it says that it did nothing, for want of a good token.
    pub(crate) async fn ask<Q, A>(&self, method: &'static str, request: Q, until: Instant) -> Result<A, Fault>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let until = until.min(Instant::now() + self.try_time());
        let late = |_| Fault::NotDone(format!("{MAX_CALLS} calls are under way and none has ended"));
        let _call = timeout_at(until, self.calls.acquire()).await.map_err(late)?;
        match self.ask_once(method, request.clone(), until).await {
            Err(Fault::LoggedOut(_)) if self.config.user.is_some() => {
                self.ask_once(method, request, until).await
            }
            answer => answer,
        }
    }

    async fn ask_once<Q, A>(&self, method: &'static str, request: Q, until: Instant) -> Result<A, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (at, link) = self.link(until).await?;
        let answered = timeout_at(until, link.unary(method, request)).await;
        let answer = match answered {
            Ok(answer) => answer,
            Err(_) => Err(Fault::Lost(format!("{} does not answer", self.members[at].endpoint))),
        };
        self.judge(at, &link, answer).await
    }

    /// Renews a lease, once; returns the seconds that it has, none where there is no such lease.
    pub(crate) async fn keep_alive<Q, A>(&self, request: Q, until: Instant) -> Result<A, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let until = until.min(Instant::now() + self.try_time());
        let (at, link) = self.link(until).await?;
        let asked = async {
            let mut answers = link.streaming(method::LEASE_KEEP_ALIVE, tokio_stream::once(request)).await?;
            let answer = answers.message().await.map_err(|status| Fault::of(&status))?;
            answer.ok_or_else(|| Fault::Lost("the stream ended".into()))
        };
        let answer = match timeout_at(until, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::Lost(format!("{} does not answer", self.members[at].endpoint))),
        };
        self.judge(at, &link, answer).await
    }

    /// Opens a stream of answers to a request that stays open.
    pub(crate) async fn follow<Q, A>(&self, method: &'static str, request: Q) -> Result<Followed<A>, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let until = Instant::now() + self.try_time();
        let (at, link) = self.link(until).await?;
        // The end of the requests would end the answers.
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let opened = match timeout_at(until, link.streaming(method, requests)).await {
            Ok(opened) => opened,
            Err(_) => Err(Fault::Lost(format!("{} does not answer", self.members[at].endpoint))),
        };
        let answers = self.judge(at, &link, opened).await?;
        Ok(Followed { answers, at, number: link.number })
    }

    /// Leaves the member that a stream came from, so that another is asked.
    pub(crate) async fn leave<A>(&self, followed: &Followed<A>) {
        self.drop_link(followed.at, followed.number).await;
    }

    /// Leaves a member that did not answer, and a login that is good no longer.
    async fn judge<A>(&self, at: usize, link: &Link, answer: Result<A, Fault>) -> Result<A, Fault> {
        match &answer {
            Err(Fault::Lost(_)) => self.drop_link(at, link.number).await,
            Err(Fault::LoggedOut(_)) => {
                let mut held = self.members[at].link.lock().await;
                if let Some(held) = held.as_mut().filter(|held| held.number == link.number) {
                    held.token = None;
                    held.number = self.links.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        answer
    }

    async fn drop_link(&self, at: usize, number: u64) {
        let mut held = self.members[at].link.lock().await;
        // Whoever was faster may have made a new one.
        if held.as_ref().is_none_or(|held| held.number == number) {
            *held = None;
            self.pass_over(at);
        }
    }

    /// Has the next member asked first.
    fn pass_over(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _already = self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns a connection to the member that is asked first, with a login where one is needed.
    async fn link(&self, until: Instant) -> Result<(usize, Link), Fault> {
        let at = self.preferred.load(Ordering::Relaxed);
        let late = || Fault::NotDone(format!("{} is not reached in time", self.members[at].endpoint));
        let made = match timeout_at(until, self.connected(at)).await {
            Ok(made) => made,
            Err(_) => Err(late()),
        };
        match made {
            Ok(link) => Ok((at, link)),
            Err(fault) => {
                self.pass_over(at);
                // Whatever became of the login, the request itself was not sent.
                Err(match fault {
                    Fault::Lost(why) | Fault::LoggedOut(why) => Fault::NotDone(why),
                    fault => fault,
                })
            }
        }
    }

    async fn connected(&self, at: usize) -> Result<Link, Fault> {
        let member = &self.members[at];
        let mut held = member.link.lock().await;
        if held.is_none() {
            let channel = self.connect(&member.endpoint).await?;
            let number = self.links.fetch_add(1, Ordering::Relaxed);
            *held = Some(Link { channel, token: None, number });
        }
        let link = held.as_mut().expect("it was made just now");
        if let (Some(user), None) = (&self.config.user, &link.token) {
            let password = std::str::from_utf8(user.password.expose()).map_err(|_| {
                Fault::Refused(StoreError::Unavailable("the password of the user is no text".into()))
            })?;
            let request = AuthenticateRequest { name: user.name.clone(), password: password.to_owned() };
            match link.unary::<_, AuthenticateResponse>(method::AUTHENTICATE, request).await {
                Ok(answer) => {
                    let token = answer.token.parse();
                    link.token = Some(token.map_err(|_| Fault::NotDone("the token is no header".into()))?);
                }
                Err(fault) => {
                    if matches!(fault, Fault::Lost(_)) {
                        *held = None;
                    }
                    return Err(fault);
                }
            }
        }
        Ok(link.clone())
    }

    async fn connect(&self, endpoint: &str) -> Result<Channel, Fault> {
        let not_done = |why: String| Fault::NotDone(format!("{endpoint}: {why}"));
        let mut made = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| not_done(error.to_string()))?
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(self.try_time())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .tcp_nodelay(true);
        if let Some(tls) = self.config.tls.as_ref().filter(|_| endpoint.starts_with("https://")) {
            let tls = read(tls).map_err(|error| not_done(error.to_string()))?;
            made = made.tls_config(tls).map_err(|error| not_done(chain(&error)))?;
        }
        made.connect().await.map_err(|error| not_done(chain(&error)))
    }
}

impl Link {
    /// Returns what calls go through, once it takes one.
    async fn ready(&self) -> Result<Grpc<Channel>, Fault> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| Fault::NotDone(chain(&error)))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // A member without a leader says so, in place of what it knew last.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn unary<Q, A>(&self, method: &'static str, message: Q) -> Result<A, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (mut grpc, path) = (self.ready().await?, PathAndQuery::from_static(method));
        let answer = grpc.unary(self.request(message), path, ProstCodec::<Q, A>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Fault::of(&status))
    }

    async fn streaming<Q, A>(
        &self,
        method: &'static str,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (mut grpc, path) = (self.ready().await?, PathAndQuery::from_static(method));
        let answers = grpc.streaming(self.request(messages), path, ProstCodec::<Q, A>::default()).await;
        answers.map(tonic::Response::into_inner).map_err(|status| Fault::of(&status))
    }
}

/// A stream of answers, and where it comes from.
pub(crate) struct Followed<A> {
    pub(crate) answers: Streaming<A>,
    at: usize,
    number: u64,
}

/// Says an error with what it comes from: the outer ones of the library say no more than "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text = format!("{text}: {error}");
        inner = error.source();
    }
    text
}

fn read(tls: &Tls) -> Result<ClientTlsConfig, OpenError> {
    let of = |path: &std::path::Path| {
        std::fs::read(path)
            .map(Zeroizing::new)
            .map_err(|error| OpenError::File { path: path.to_owned(), why: error.to_string() })
    };
    let mut made = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(of(&tls.ca_file)?.as_slice()));
    if let Some(name) = &tls.server_name {
        made = made.domain_name(name);
    }
    if let Some(identity) = &tls.identity {
        let (cert, key) = (of(&identity.cert_file)?, of(&identity.key_file)?);
        made = made.identity(Identity::from_pem(cert.as_slice(), key.as_slice()));
    }
    Ok(made)
}

/// Checks what can be checked without a connection.
fn check(config: &Config) -> Result<(), OpenError> {
    let refuse = |why: String| Err(OpenError::Config(why));
    if config.endpoints.is_empty() {
        return refuse("no endpoint of etcd is named".into());
    }
    for endpoint in &config.endpoints {
        let is_host = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@']);
        match (endpoint.strip_prefix("https://"), endpoint.strip_prefix("http://")) {
            (Some(host), _) if is_host(host) && config.tls.is_some() => {}
            (Some(host), _) if is_host(host) => {
                return refuse(format!("{endpoint} needs the certificates that it is checked against"));
            }
            (_, Some(host)) if is_host(host) && is_local(host) => {}
            (_, Some(host)) if is_host(host) => {
                return refuse(format!(
                    "{endpoint} is on another machine, which is reached by https:// alone"
                ));
            }
            _ => return refuse(format!("{endpoint} is no https://HOST:PORT")),
        }
    }
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/');
    let prefix = &config.prefix;
    if !(1..=256).contains(&prefix.len()) || prefix.ends_with('/') || !prefix.bytes().all(is_plain) {
        return refuse(format!(
            "the prefix {prefix:?} is not of letters, digits, ., _, - and /, without / at its end, of at most 256 bytes"
        ));
    }
    if config.timeout < Duration::from_millis(100) {
        return refuse("the time that etcd has is less than 100 ms".into());
    }
    if let Some(tls) = &config.tls {
        read(tls)?;
    }
    Ok(())
}

/// Tells whether a host, maybe with its port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(config: Config) -> String {
        Cluster::new(config).err().expect("it is refused").to_string()
    }

    #[test]
    fn plain_connections_stay_on_this_machine() {
        for local in
            ["http://127.0.0.1:2379", "http://localhost:2379", "http://[::1]:2379", "http://localhost"]
        {
            assert!(Cluster::new(Config::new([local])).is_ok(), "{local}");
        }
        for far in ["http://10.0.0.1:2379", "http://etcd-1:2379", "http://127.0.0.1.example.com:1"] {
            assert!(why(Config::new([far])).contains("https://"), "{far}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_connected() {
        assert!(why(Config::new([""; 0])).contains("no endpoint"));
        assert!(why(Config::new(["https://etcd-1:2379"])).contains("certificates"));
        for odd in ["etcd-1:2379", "ftp://h:1", "https://", "http://u@localhost:1", "http://localhost:1/x"] {
            why(Config::new([odd]));
        }
        for prefix in ["", "a/", "a b", "é"] {
            let config = Config { prefix: prefix.into(), ..Config::new(["http://localhost:1"]) };
            assert!(why(config).contains("prefix"), "{prefix}");
        }
    }
}
