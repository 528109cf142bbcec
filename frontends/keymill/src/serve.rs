//! `keymill serve`: hardens the process, starts the engine and both listeners, says where they are, and drains on SIGTERM.

use std::io::{IsTerminal, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use keymill_http::{Http, Readiness};
use keymill_msgpack::Msgpack;
use keymill_runtime::FrontendError;
use keymill_runtime::engine::Bootstrap;
use serde::Serialize;

use crate::config::{Config, Places, RootKind};
use crate::credentials::CredentialsFile;
use crate::failure::{Failure, Result};
use crate::instance::{Ended, Instance, Started, Taken};
use crate::own_certificate::OwnCertificate;
use crate::process::{self, EndSignals};
use crate::renewal::{self, Watched};
use crate::root::Existing;
use crate::{log, output, private};

/// The flags that say where everything lies; `audit verify` has them, too.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Places")]
pub(crate) struct PlaceArgs {
    /// Configuration in TOML; config/keymill.toml in the repository lists every option
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the data [default: $XDG_DATA_HOME/keymill]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File of the root keys, outside the data directory [default: the data directory's name and .root]
    #[arg(long, value_name = "FILE")]
    root_file: Option<PathBuf>,
    /// Directory of the audit log [default: audit in the data directory]
    #[arg(long, value_name = "DIR")]
    audit_dir: Option<PathBuf>,
}

impl PlaceArgs {
    /// Reads the configuration, and sets in it what the flags say.
    pub(crate) fn config(&self) -> Result<Config> {
        let mut config = Config::read(self.config.as_deref())?;
        let set = |into: &mut Option<PathBuf>, flag: &Option<PathBuf>| {
            if flag.is_some() {
                into.clone_from(flag);
            }
        };
        set(&mut config.data_dir, &self.data_dir);
        set(&mut config.root.file.path, &self.root_file);
        set(&mut config.audit.file.directory, &self.audit_dir);
        Ok(config)
    }
}

/// Starts the server; without any flag on embedded defaults.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// HTTP listens here [default: 127.0.0.1:8470]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// MessagePack TCP listens here [default: 127.0.0.1:8471]
    #[arg(long, value_name = "ADDR:PORT")]
    msgpack: Option<SocketAddr>,
    /// The name of this server among those on its store, and in the audit [default: keymill]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// At the first start, writes the bootstrap access key there (mode 0600) rather than to the terminal
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Take a store that was put back (etcd restored, PostgreSQL failed over) as it stands; once, when it was looked at
    #[arg(long)]
    accept_history: bool,
    /// Worker threads of each listener [default: one a core for HTTP, two for MessagePack TCP]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    #[command(flatten)]
    places: PlaceArgs,
}

/// How long a listener may take until it answers for the first time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The content of `addresses.json`: where the listeners are, and how a client is told of them.
#[derive(Serialize)]
struct Addresses {
    http: SocketAddr,
    msgpack: SocketAddr,
    url: String,
    tcp: String,
}

/// What the main thread waits for.
enum Event {
    Signal(nix::sys::signal::Signal),
    Ended(Ended),
}

/// Serves until told to stop.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    process::harden()?;
    let config = configure(args)?;
    // Without TLS there is nothing to read again, and the end of a terminal ends what was started in it.
    let signals = EndSignals::block(config.http.tls.is_some() || config.msgpack.tls.is_some())?;
    log::begin(&config.log.filter)?;
    let (events, happened) = mpsc::channel();
    let signalled = events.clone();
    let (read_now, asked) = renewal::Now::new();
    let end = move |signal| drop(signalled.send(Event::Signal(signal)));
    signals.watch(end, move || read_now.ask())?;
    if let Some(warning) = config.dual_control.warning() {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = config.authorities.warning(config.http.tls.is_some()) {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = config.process.lock_memory.then(process::lock_memory).flatten() {
        tracing::warn!("{warning}");
    }
    let places = config.places()?;
    let key_goes = KeyGoes::choose(&config, &places);
    let taken = Taken::take(&config, &places)?;
    // What a killed server left behind names listeners that are gone.
    let _absent = std::fs::remove_file(&places.addresses);
    if taken.existing == Existing::Nothing {
        key_goes.check()?;
    }
    // Bound before the first start makes a root and an access key: a port that is taken should cost nothing.
    let listeners = Listeners::bind(&config)?;
    // A first start that was cut short has left a file with a key that was never kept: it is replaced.
    let replace = taken.existing != Existing::Nothing;
    let mut tell = |bootstrap: &Bootstrap| key_goes.tell(bootstrap, replace);
    let Started { mut instance, is_new_root, .. } = Instance::start(&config, &places, taken, &mut tell)?;
    if config.root.kind == RootKind::File {
        tell_of_root(&places, is_new_root);
    }
    let own = listeners.own(&config);
    renewal::watch(listeners.watched.clone(), own, instance.gate(), asked)?;
    let served = listeners.serve(&places, &mut instance, &events);
    let outcome = served.and_then(|ready| {
        let outcome = wait(&happened);
        ready.set(false);
        instance.gate().drain();
        outcome
    });
    // Before the listeners close: who reads the file should not find an address where nobody answers.
    let _absent = std::fs::remove_file(&places.addresses);
    instance.stop();
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

fn configure(args: &ServeArgs) -> Result<Config> {
    let mut config = args.places.config()?;
    config.http.address = args.http.unwrap_or(config.http.address);
    config.msgpack.address = args.msgpack.unwrap_or(config.msgpack.address);
    if let Some(workers) = args.workers {
        config.http.workers = Some(workers.into());
        config.msgpack.workers = Some(workers.into());
    }
    if let Some(node) = &args.node {
        config.engine.node.clone_from(node);
    }
    config.cluster.accept_history = args.accept_history;
    if args.credentials.is_some() {
        config.credentials.clone_from(&args.credentials);
    }
    Ok(config)
}

/// Both listeners, bound and not serving yet.
struct Listeners {
    http: Http,
    msgpack: Msgpack,
    addresses: Addresses,
    readiness: Readiness,
    /// Those that have TLS.
    watched: Watched,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self> {
        let refused = |error: FrontendError| {
            Failure::new(error.to_string())
                .next("name other addresses with --http ADDR:PORT and --msgpack ADDR:PORT")
        };
        let readiness = Readiness::default();
        let (http, msgpack) = (config.http(readiness.clone())?, config.msgpack()?);
        let (url, tcp) = (
            if http.tls.is_some() { "https" } else { "http" },
            if msgpack.tls.is_some() { "tls://" } else { "" },
        );
        let tls = [("http", http.tls.clone()), ("msgpack", msgpack.tls.clone())];
        let watched = tls.into_iter().filter_map(|(name, tls)| Some((name, tls?))).collect();
        let http = keymill_http::bind(http).map_err(refused)?;
        let msgpack = keymill_msgpack::bind(msgpack).map_err(refused)?;
        let (at, msgpack_at) = (http.local_addr().map_err(refused)?, msgpack.local_addr().map_err(refused)?);
        let addresses = Addresses {
            http: at,
            msgpack: msgpack_at,
            url: format!("{url}://{at}"),
            tcp: format!("{tcp}{msgpack_at}"),
        };
        Ok(Self { http, msgpack, addresses, readiness, watched })
    }

    /// Returns the certificates that authorities of this installation are asked for.
    fn own(&self, config: &Config) -> Vec<OwnCertificate> {
        let sections = [("http", &config.http.tls), ("msgpack", &config.msgpack.tls)];
        let own = sections.into_iter().filter_map(|(name, section)| {
            let (_, tls) = self.watched.iter().find(|(known, _)| *known == name)?;
            OwnCertificate::of(name, section.as_ref()?, tls)
        });
        own.collect()
    }

    /// Has them run, and says where they are once they answer.
    fn serve(
        self,
        places: &Places,
        instance: &mut Instance,
        events: &mpsc::Sender<Event>,
    ) -> Result<Readiness> {
        let Self { http, msgpack, addresses, readiness, watched } = self;
        let tell = |events: mpsc::Sender<Event>| move |ended| drop(events.send(Event::Ended(ended)));
        instance.run(http, tell(events.clone()))?;
        instance.run(msgpack, tell(events.clone()))?;
        let has_tls = |name| watched.iter().any(|(known, _)| *known == name);
        await_answer("msgpack", addresses.msgpack, has_tls("msgpack"), b"")?;
        await_answer("http", addresses.http, has_tls("http"), b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let text = serde_json::to_vec(&addresses).map_err(Failure::because("addresses"))?;
        private::replace(&places.addresses, &text)?;
        readiness.set(true);
        let Addresses { url: http, tcp: msgpack, .. } = addresses;
        tracing::info!(%http, %msgpack, data = %places.data.display(), "serving");
        Ok(readiness)
    }
}

/// Waits until a listener answers: a port that is bound takes connections before anybody serves them. Under TLS we may have no certificate
/// to come in with; whoever serves closes on a client that goes away.
fn await_answer(name: &str, address: SocketAddr, has_tls: bool, question: &[u8]) -> Result<()> {
    let asked = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        match has_tls {
            true => stream.shutdown(Shutdown::Write)?,
            false => stream.write_all(question)?,
        }
        stream.read(&mut [0]).map(drop)
    };
    asked().map_err(|error| Failure::new(format!("the {name} listener does not answer: {error}")))
}

/// Waits for a signal, or for a listener that ends by itself.
fn wait(happened: &mpsc::Receiver<Event>) -> Result<()> {
    match happened.recv() {
        Ok(Event::Signal(signal)) => {
            tracing::info!(signal = signal.as_str(), "stopping: finishing what was accepted");
            Ok(())
        }
        Ok(Event::Ended(Ended { name, outcome })) => Err(match outcome {
            Ok(()) => Failure::new(format!("the {name} listener ended by itself")),
            Err(error) => Failure::new(format!("the {name} listener failed: {error}")),
        }),
        Err(_) => Err(Failure::new("nothing is left to wait for")),
    }
}

fn tell_of_root(places: &Places, is_new: bool) {
    let path = places.root.display();
    if is_new {
        tracing::warn!(%path, "a root file was made: keep a copy of it apart from the data, which nobody can open without it");
    }
    tracing::warn!(%path, "the root keys lie in a file: this is for development, or for disks that protect it");
}

/// Where the bootstrap access key goes.
enum KeyGoes {
    Terminal,
    File(PathBuf),
}

impl KeyGoes {
    fn choose(config: &Config, places: &Places) -> Self {
        if config.credentials.is_none() && std::io::stdout().is_terminal() {
            Self::Terminal
        } else {
            Self::File(places.bootstrap.clone())
        }
    }

    /// Refuses a place that cannot be written, before there is a key to write.
    fn check(&self) -> Result<()> {
        match self {
            Self::File(path) => private::check_new(path).map_err(|failure| {
                failure.next("the bootstrap access key is to be written there: move what is there, or name another file with --credentials FILE")
            }),
            Self::Terminal => Ok(()),
        }
    }

    fn tell(&self, bootstrap: &Bootstrap, replace: bool) -> Result<()> {
        let secret = String::from_utf8_lossy(bootstrap.secret.expose()).into_owned();
        let file = CredentialsFile::of(bootstrap.id.to_string(), secret);
        match self {
            Self::Terminal => output::line(format_args!(
                "The first access key, which may do everything. It is shown this once:\n\n  \
                 export KEYMILL_ACCESS_KEY_ID={}\n  export KEYMILL_ACCESS_KEY_SECRET={}\n\n\
                 In another terminal, with these set: keymill key create --alias alias/first\n",
                file.access_key_id, file.access_key_secret
            )),
            Self::File(path) => {
                match replace {
                    true => private::replace(path, file.encode().expose())?,
                    false => private::create(path, file.encode().expose())?,
                }
                output::line(format_args!("bootstrap access key: {}", path.display()))
            }
        }
    }
}
