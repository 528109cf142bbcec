//! The listener: takes connections, spreads them over arbiters, and on shutdown lets each finish what it accepted.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keymill_runtime::{Doors, Frontend, FrontendError, Gate, StopSignal};
use keymill_tls::ServerTls;
use tokio::sync::mpsc;

use crate::connection;

/// Options of the frontend.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes any.
    pub address: SocketAddr,
    /// Arbiters; each serves its share of the connections. Twice the cores: a single caller then mostly has one that no bulk load is on,
    /// and the operating system is fair between them.
    pub workers: usize,
    /// Connections, at most; further ones are closed at once.
    pub max_connections: usize,
    /// TLS; without it, the listener must be on loopback.
    pub tls: Option<ServerTls>,
    /// From the accept to the last byte of the hello, with the TLS handshake in it.
    pub hello_timeout: Duration,
    /// How long a client may leave its answers unread.
    pub write_timeout: Duration,
    /// How long a shutdown waits for answers to be written.
    pub drain_timeout: Duration,
}

impl Config {
    /// Returns the defaults for an address.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            workers: 2 * std::thread::available_parallelism().map_or(1, usize::from),
            max_connections: 10_240,
            tls: None,
            hello_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The MessagePack TCP frontend, bound and ready to run.
pub struct Msgpack {
    config: Config,
    listener: TcpListener,
}

/// Binds the listener.
///
/// # Errors
/// [`FrontendError`] where the address is taken, or lies outside loopback without TLS.
pub fn bind(config: Config) -> Result<Msgpack, FrontendError> {
    let listener = keymill_listen::bind(config.address, config.tls.as_ref(), "msgpack.tls")?;
    Ok(Msgpack { config, listener })
}

impl Msgpack {
    /// Returns the address that was bound.
    ///
    /// # Errors
    /// [`FrontendError`] where the operating system does not tell.
    pub fn local_addr(&self) -> Result<SocketAddr, FrontendError> {
        self.listener.local_addr().map_err(|error| FrontendError(error.to_string()))
    }
}

type Accepted = (tokio::net::TcpStream, SocketAddr);

/// One arbiter as the accept loop sees it.
struct Worker {
    arbiter: actix_rt::Arbiter,
    connections: mpsc::UnboundedSender<std::net::TcpStream>,
    stopped: tokio::sync::oneshot::Receiver<()>,
    /// Connections that it serves.
    load: Arc<AtomicUsize>,
}

impl Frontend for Msgpack {
    fn name(&self) -> &'static str {
        connection::NAME
    }

    fn run(self: Box<Self>, gate: Gate, stop: StopSignal) -> Result<(), FrontendError> {
        actix_rt::System::new().block_on(self.serve(gate, stop))
    }
}

impl Msgpack {
    async fn serve(self, gate: Gate, mut stop: StopSignal) -> Result<(), FrontendError> {
        let open = Arc::new(AtomicUsize::new(0));
        let mut workers = Vec::new();
        for _ in 0..self.config.workers.max(1) {
            workers.push(start_worker(&gate, &self.config, &stop, &open).await?);
        }
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|error| FrontendError(format!("listening: {error}")))?;
        loop {
            let accepted: std::io::Result<Accepted> = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.given() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: take a breath rather than spin.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            if open.load(Ordering::Relaxed) >= self.config.max_connections {
                tracing::debug!(%peer, "too many connections");
                continue;
            }
            open.fetch_add(1, Ordering::Relaxed);
            let _nodelay = stream.set_nodelay(true);
            let Ok(stream) = stream.into_std() else { continue };
            let Some(idlest) = workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)) else {
                continue;
            };
            idlest.load.fetch_add(1, Ordering::Relaxed);
            if idlest.connections.send(stream).is_err() {
                return Err(FrontendError("an arbiter of the frontend is gone".into()));
            }
        }
        drop(listener);
        for Worker { arbiter, connections, stopped, .. } in workers {
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
    open: &Arc<AtomicUsize>,
) -> Result<Worker, FrontendError> {
    let (connections, incoming) = mpsc::unbounded_channel::<std::net::TcpStream>();
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (stopped_sender, stopped) = tokio::sync::oneshot::channel();
    let (gate, config, stop, open) = (gate.clone(), config.clone(), stop.clone(), open.clone());
    let load = Arc::new(AtomicUsize::new(0));
    let served_here = load.clone();
    let arbiter = actix_rt::Arbiter::new();
    // What runs on the arbiter stays there: it is spawned from within, so that it need not be `Send`.
    arbiter.spawn_fn(move || {
        let _detached = actix_rt::spawn(async move {
            match Doors::open(gate) {
                Ok(doors) => {
                    let _gone = ready.send(Ok(()));
                    take_connections(doors, incoming, config, stop, (open, served_here)).await;
                }
                Err(error) => {
                    let _gone = ready.send(Err(error));
                }
            }
            let _gone = stopped_sender.send(());
        });
    });
    match is_ready.await {
        Ok(Ok(())) => Ok(Worker { arbiter, connections, stopped, load }),
        Ok(Err(error)) => Err(FrontendError(error.to_string())),
        Err(_gone) => Err(FrontendError("an arbiter of the frontend did not start".into())),
    }
}

/// Serves connections until no more can come, lets them finish, and then has the software actors close their desks.
async fn take_connections(
    doors: Doors,
    mut incoming: mpsc::UnboundedReceiver<std::net::TcpStream>,
    config: Config,
    stop: StopSignal,
    (open, load): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let doors = Rc::new(doors);
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(stream) = incoming.recv().await {
        // Finished connections leave the set as others come.
        while tasks.try_join_next().is_some() {}
        let served = connection::serve(stream, doors.clone(), config.clone(), stop.clone());
        let (open, load) = (open.clone(), load.clone());
        tasks.spawn_local(async move {
            served.await;
            open.fetch_sub(1, Ordering::Relaxed);
            load.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let drained =
        tokio::time::timeout(config.drain_timeout, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("connections were closed with answers unread: the time to drain was over");
        tasks.abort_all();
    }
    doors.stop().await;
}
