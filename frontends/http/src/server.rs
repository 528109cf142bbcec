//! The listener: takes connections, spreads them over arbiters, and on shutdown lets each finish what it accepted before the
//! arbiter's software actor closes its audit chain.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::AppConfig;
use actix_web::http::Method;
use actix_web::web::{self, Payload};
use actix_web::{App, HttpRequest, HttpResponse};
use keymill_core::error::{Error, ErrorKind, Result as CoreResult};
use keymill_core::seam::auth::PeerCertificate;
use keymill_listen::{Came, Line, Secured, secure};
use keymill_runtime::actor::ArbiterHandle;
use keymill_runtime::{Door, Doors, Frontend, FrontendError, Gate, StopSignal};
use keymill_tls::ServerTls;
use tokio::sync::{mpsc, oneshot};

use crate::acme::{self, Acme};
use crate::body::Strangers;
use crate::error::{refusal, settle};
use crate::nonces::Nonces;
use crate::probes::{self, Readiness};
use crate::stream::{LONG_LINE_BYTES, Stream};
use crate::{aliyun, gateway, pki, v1};

/// How long a connection that is to be closed may go on sending what nobody reads.
const LINGER: Duration = Duration::from_secs(1);

/// What is spoken under TLS, as ALPN names it.
pub const ALPN: &[u8] = b"http/1.1";

/// Options of the frontend.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes any.
    pub address: SocketAddr,
    /// Arbiters; each serves its share of the connections.
    pub workers: usize,
    /// Connections, at most; further ones are closed at once.
    pub max_connections: usize,
    /// From the first byte of a head (or the accept) to its last.
    pub head_timeout: Duration,
    /// From the head of a request to the last byte of its body.
    pub body_timeout: Duration,
    /// How long a connection may stay without a request.
    pub keep_alive: Duration,
    /// How long a client may leave its answers unread.
    pub write_timeout: Duration,
    /// How long a shutdown waits for answers to be written.
    pub drain_timeout: Duration,
    /// Signed requests of one access key that are remembered against replays, at most; past that it is throttled.
    pub max_nonces: usize,
    /// TLS; without it, the listener must be on loopback.
    pub tls: Option<ServerTls>,
    /// Whether all listeners of the program serve, for `/readyz`.
    pub readiness: Readiness,
}

impl Config {
    /// Returns the defaults for an address.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_connections: 10_240,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            max_nonces: 1 << 22,
            tls: None,
            readiness: Readiness::default(),
        }
    }
}

/// The HTTP frontend, bound and ready to run.
pub struct Http {
    config: Config,
    listener: TcpListener,
}

/// Binds the listener.
///
/// # Errors
/// [`FrontendError`] where the address is taken, or lies outside loopback without TLS.
pub fn bind(config: Config) -> Result<Http, FrontendError> {
    let listener = keymill_listen::bind(config.address, config.tls.as_ref(), "http.tls")?;
    Ok(Http { config, listener })
}

impl Http {
    /// Returns the address that was bound.
    ///
    /// # Errors
    /// [`FrontendError`] where the operating system does not tell.
    pub fn local_addr(&self) -> Result<SocketAddr, FrontendError> {
        self.listener.local_addr().map_err(|error| FrontendError(error.to_string()))
    }
}

impl Frontend for Http {
    fn name(&self) -> &'static str {
        v1::NAME
    }

    fn run(self: Box<Self>, gate: Gate, stop: StopSignal) -> Result<(), FrontendError> {
        actix_rt::System::new().block_on(self.serve(gate, stop))
    }
}

/// What the requests of one arbiter share.
pub(crate) struct Worker {
    pub(crate) gate: Gate,
    pub(crate) arbiter: ArbiterHandle,
    pub(crate) nonces: Arc<Nonces>,
    pub(crate) strangers: Strangers,
    pub(crate) acme: Option<Arc<Acme>>,
    pub(crate) config: Config,
    stop: StopSignal,
}

/// What one arbiter serves: the installation, and the instances that requests reached on it so far.
struct Site {
    doors: Doors,
    installation: Rc<Worker>,
    instances: RefCell<Vec<Rc<Worker>>>,
}

impl Site {
    /// Returns who handles a request: it is decided for each, since instances are bound to networks and unbound while connections stay.
    fn worker(&self, request: &HttpRequest) -> CoreResult<Rc<Worker>> {
        let Some(came) = request.conn_data::<Arc<Came>>() else { return Ok(self.installation.clone()) };
        let Some(Door { gate, arbiter }) = self.doors.instance(&came.arrival())? else {
            return Ok(self.installation.clone());
        };
        let mut workers = self.instances.borrow_mut();
        if let Some(worker) = workers.iter().find(|worker| worker.gate.is(&gate)) {
            return Ok(worker.clone());
        }
        workers.retain(|worker| !worker.gate.is_closed());
        let Worker { nonces, strangers, config, stop, .. } = &*self.installation;
        let (nonces, strangers) = (nonces.clone(), strangers.clone());
        let (config, stop) = (config.clone(), stop.clone());
        let worker = Rc::new(Worker { gate, arbiter, nonces, strangers, acme: None, config, stop });
        workers.push(worker.clone());
        Ok(worker)
    }

    /// Answers a request whose instance cannot be reached on this arbiter.
    fn unreached(&self, error: &Error) -> HttpResponse {
        refusal(error, self.installation.gate.request_id())
    }
}

/// An arbiter as the accept loop sees it.
struct Running {
    arbiter: actix_rt::Arbiter,
    connections: mpsc::UnboundedSender<std::net::TcpStream>,
    stopped: oneshot::Receiver<()>,
}

impl Http {
    async fn serve(self, gate: Gate, mut stop: StopSignal) -> Result<(), FrontendError> {
        let open = Arc::new(AtomicUsize::new(0));
        let nonces = Arc::new(Nonces::new(self.config.max_nonces));
        let strangers = Strangers::default();
        let acme = Acme::of(&gate)?;
        let mut workers = Vec::new();
        for _ in 0..self.config.workers.max(1) {
            workers
                .push(start_worker(&gate, &self.config, &stop, (&nonces, &strangers, &acme), &open).await?);
        }
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|error| FrontendError(format!("listening: {error}")))?;
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.given() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: take a breath rather than spin.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            if open.load(Ordering::Relaxed) >= self.config.max_connections {
                tracing::debug!("too many connections");
                continue;
            }
            let _nodelay = stream.set_nodelay(true);
            let Ok(stream) = stream.into_std() else { continue };
            open.fetch_add(1, Ordering::Relaxed);
            next = (next + 1) % workers.len();
            if workers[next].connections.send(stream).is_err() {
                return Err(FrontendError("an arbiter of the frontend is gone".into()));
            }
        }
        drop(listener);
        for Running { arbiter, connections, stopped } in workers {
            drop(connections);
            let _gone = stopped.await;
            arbiter.stop();
            let _panicked = arbiter.join();
        }
        Ok(())
    }
}

/// Starts an arbiter with its software actor and returns once it takes connections.
async fn start_worker(
    gate: &Gate,
    config: &Config,
    stop: &StopSignal,
    (nonces, strangers, acme): (&Arc<Nonces>, &Strangers, &Option<Arc<Acme>>),
    open: &Arc<AtomicUsize>,
) -> Result<Running, FrontendError> {
    let (connections, incoming) = mpsc::unbounded_channel();
    let (ready, is_ready) = oneshot::channel();
    let (stopped_sender, stopped) = oneshot::channel();
    let (gate, config, stop) = (gate.clone(), config.clone(), stop.clone());
    let (nonces, strangers, open) = (nonces.clone(), strangers.clone(), open.clone());
    let acme = acme.clone();
    let arbiter = actix_rt::Arbiter::new();
    // What runs on the arbiter stays there: it is spawned from within, so that it need not be `Send`.
    let spawned = arbiter.spawn_fn(move || {
        let _detached = actix_rt::spawn(async move {
            match Doors::open(gate.clone()) {
                Ok(doors) => {
                    let _gone = ready.send(Ok(()));
                    let arbiter = doors.installation().arbiter.clone();
                    let installation =
                        Rc::new(Worker { gate, arbiter, nonces, strangers, acme, config, stop });
                    let site = Rc::new(Site { doors, installation, instances: RefCell::default() });
                    take_connections(site, incoming, open).await;
                }
                Err(error) => {
                    let _gone = ready.send(Err(error));
                }
            }
            let _gone = stopped_sender.send(());
        });
    });
    if !spawned {
        return Err(FrontendError("an arbiter of the frontend did not start".into()));
    }
    match is_ready.await {
        Ok(Ok(())) => Ok(Running { arbiter, connections, stopped }),
        Ok(Err(error)) => Err(FrontendError(error.to_string())),
        Err(_gone) => Err(FrontendError("an arbiter of the frontend did not start".into())),
    }
}

/// Serves connections until no more can come, lets them finish, and then has the software actor close its desk.
async fn take_connections(
    site: Rc<Site>,
    mut incoming: mpsc::UnboundedReceiver<std::net::TcpStream>,
    open: Arc<AtomicUsize>,
) {
    let worker = &site.installation;
    let config = &worker.config;
    let stop = worker.stop.clone();
    let http = HttpService::build()
        .keep_alive(KeepAlive::Timeout(config.keep_alive))
        .client_request_timeout(config.head_timeout)
        .client_disconnect_timeout(LINGER)
        .graceful_shutdown_signal(move || {
            let mut stop = stop.clone();
            async move { stop.given().await }
        })
        // Whoever handles a request finds there who is at the other end.
        .on_connect_ext(|stream: &Stream<Line>, extensions| {
            extensions.insert::<Arc<Came>>(stream.came().clone());
            if let Some(peer) = stream.peer() {
                extensions.insert::<Arc<PeerCertificate>>(peer.clone());
            }
        })
        .h1(app(site.clone()))
        .new_service(())
        .await;
    let Ok(http) = http else {
        tracing::error!("the routes of the HTTP frontend cannot be built");
        return site.doors.stop().await;
    };
    let http = Rc::new(http);
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(stream) = incoming.recv().await {
        // Finished connections leave the set as others come.
        while tasks.try_join_next().is_some() {}
        let (http, worker, open) = (http.clone(), worker.clone(), open.clone());
        tasks.spawn_local(async move {
            let connections = worker.gate.metrics().connections.with_label_values(&[v1::NAME]);
            connections.inc();
            if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                let address = stream.peer_addr().ok();
                if let Some(stream) = open_stream(stream, address, &worker).await
                    && let Err(error) = http.call((stream, address)).await
                {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            connections.dec();
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let drained =
        tokio::time::timeout(config.drain_timeout, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("connections were closed with answers unread: the time to drain was over");
        tasks.abort_all();
    }
    site.doors.stop().await;
}

/// Shakes hands, where there is TLS, and watches what comes out of it; `None` where that fails, or the server stops first.
async fn open_stream(
    stream: tokio::net::TcpStream,
    address: Option<SocketAddr>,
    worker: &Worker,
) -> Option<Stream<Line>> {
    let Config { head_timeout, write_timeout, ref tls, .. } = worker.config;
    let mut stop = worker.stop.clone();
    let secured = tokio::select! {
        secured = secure(stream, tls.as_ref(), v1::NAME, &worker.gate, address.map(|peer| peer.ip())) => secured,
        () = stop.given() => None,
    };
    let Secured { line, peer, came } = secured?;
    Some(Stream::new(line, head_timeout, write_timeout, LONG_LINE_BYTES).with_peer(peer).with_came(came))
}

/// Makes the routes; a dialect adds its own here.
fn app(
    site: Rc<Site>,
) -> impl ServiceFactory<
    actix_http::Request,
    Config = (),
    Response = impl Into<actix_http::Response<BoxBody>>,
    Error = HttpResponse,
    InitError = (),
    Service = impl Service<
        actix_http::Request,
        Response = impl Into<actix_http::Response<BoxBody>>,
        Error = HttpResponse,
    >,
> {
    let probe = |path: &'static str, answer: fn(&Worker) -> HttpResponse| {
        let (get, head, other) = (site.clone(), site.clone(), site.clone());
        let told = move |site: &Site, request: &HttpRequest| {
            std::future::ready(
                site.worker(request).map_or_else(|error| site.unreached(&error), |worker| answer(&worker)),
            )
        };
        web::resource(path)
            .route(web::get().to(move |request: HttpRequest| told(&get, &request)))
            .route(web::head().to(move |request: HttpRequest| told(&head, &request)))
            .default_service(web::to(move |request: HttpRequest, payload: Payload| {
                std::future::ready(not_found(&other.installation, &request, payload))
            }))
    };
    let app = App::new()
        .service(probe("/metrics", |worker| probes::metrics(&worker.gate)))
        .service(probe("/healthz", |_| probes::healthz()))
        .service(probe("/readyz", |worker| {
            probes::readyz(&worker.gate, &worker.config.readiness, worker.stop.is_given())
        }))
        .default_service(web::to(move |request: HttpRequest, payload: Payload| {
            let site = site.clone();
            async move {
                let worker = match site.worker(&request) {
                    Ok(worker) => worker,
                    Err(error) => return settle(&request, Some(payload), None, site.unreached(&error)),
                };
                // Told apart here: a pattern with a name in it would be matched as a regular expression.
                let (path, method) = (request.uri().path(), request.method());
                if method == Method::POST && v1::is_at(path) {
                    v1::handle(&worker, request, payload).await
                } else if let Some(acme) = worker.acme.as_ref().filter(|_| acme::is_at(path)) {
                    acme::handle(&worker, acme, request, payload).await
                } else if pki::is_at(path) {
                    pki::handle(&worker, request, payload).await
                } else if method == Method::POST && aliyun::is_at(path) && gateway::is_meant(&request) {
                    gateway::handle(&worker, request, payload).await
                } else if aliyun::is_at(path) {
                    aliyun::handle(&worker, request, payload).await
                } else {
                    not_found(&worker, &request, payload)
                }
            }
        }));
    let app = app.into_factory().map_err(|error| error.error_response());
    map_config(app, |()| AppConfig::default())
}

fn not_found(worker: &Worker, request: &HttpRequest, payload: Payload) -> HttpResponse {
    let error = Error::new(ErrorKind::OperationNotFound, "there is nothing at this path for this method");
    settle(request, Some(payload), None, refusal(&error, worker.gate.request_id()))
}
