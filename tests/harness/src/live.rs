//! A live engine in this process, with the shipped plugins over a scratch directory, and a MessagePack listener in front of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use keymill_client::{Connection, Credentials, Options};
use keymill_core::key::{BulkMode, ProtectionLevel};
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_runtime::clock::Clock;
use keymill_runtime::frontend::Stopper;
use keymill_runtime::{Engine, EngineConfig, EngineError, Frontend, Gate, Parts};

use crate::{Farm, Setup, Site};

/// A running engine with a MessagePack listener.
pub struct Live {
    engine: Option<Engine>,
    stopper: Stopper,
    frontend: Option<JoinHandle<()>>,
    /// Where the listener is.
    pub address: SocketAddr,
    /// The clock of the engine, to be set off by tests.
    pub clock: Clock,
    store: Arc<dyn Store>,
    site: Option<Site>,
    bootstrap: Option<(keymill_core::id::AccessKeyId, String)>,
}

/// Has keys in a token, of which nobody says where they are, where `KEYMILL_TEST_HSM` names a bulk mode: what holds for software keys
/// then has to hold for those.
fn in_tokens(setup: &mut Setup) {
    static FARM: OnceLock<Farm> = OnceLock::new();
    let mode = match std::env::var("KEYMILL_TEST_HSM").as_deref() {
        Ok("InHsm") => BulkMode::InHsm,
        Ok("HsmDerived") => BulkMode::HsmDerived,
        Ok(other) => panic!("KEYMILL_TEST_HSM is {other}, and not InHsm or HsmDerived"),
        Err(_) => return,
    };
    if setup.tokens.is_empty() {
        setup.tokens = FARM.get_or_init(|| Farm::new(1)).parts(1);
        setup.config.protection = ProtectionLevel::Hsm;
        setup.config.bulk_mode = mode;
        // A first request does not find the token connected yet.
        setup.config.pool.patience = Duration::from_secs(10);
    }
}

/// Returns how much longer the blobs of keys are of which nobody says where they are.
pub fn overhead() -> usize {
    match std::env::var("KEYMILL_TEST_HSM").as_deref() {
        Ok("InHsm") => 22 + 12 + 16,
        _ => 22 + 24 + 16,
    }
}

/// A first start, with the access key that it made.
pub struct Started {
    /// The engine.
    pub live: Live,
    /// The bootstrap access key.
    pub credentials: Credentials,
}

impl Live {
    /// Starts an engine on a fresh scratch directory.
    pub fn start(config: EngineConfig) -> Started {
        Self::start_with(Setup::new(config))
    }

    /// Starts an engine on a fresh scratch directory, with other parts than the shipped ones.
    pub fn start_with(setup: Setup) -> Started {
        let live = Site::fresh().start(setup);
        let credentials = live.bootstrap().expect("a first start makes an access key");
        Started { live, credentials }
    }

    /// Stops and starts again on the same directory and root.
    pub fn restart(self, config: EngineConfig) -> Self {
        self.halt().start(Setup::new(config))
    }

    /// Stops, and leaves what is kept on disk.
    pub fn halt(mut self) -> Site {
        self.stop();
        self.site.take().expect("a live engine has its site")
    }

    pub(crate) fn over(site: Site, setup: Setup) -> Result<Self, EngineError> {
        let mut live = Self::begin(&site, setup)?;
        live.site = Some(site);
        Ok(live)
    }

    pub(crate) fn begin(site: &Site, mut setup: Setup) -> Result<Self, EngineError> {
        in_tokens(&mut setup);
        let store = site.store()?;
        let audit = keymill_audit_file::open(keymill_audit_file::Config::at(site.audit()))
            .map_err(|error| EngineError(error.to_string()))?;
        let store: Arc<dyn Store> = (setup.store)(store);
        let shared = store.clone();
        let audit: Arc<dyn AuditLog> = (setup.audit)(Arc::new(audit));
        let provider = keymill_provider_software::open(keymill_provider_software::Config {})
            .expect("the software provider opens");
        let authenticators = keymill_auth_credentials::all(keymill_auth_credentials::Config {})
            .expect("the authenticators open");
        let clock = setup.clock;
        let parts = Parts {
            config: setup.config,
            clock: clock.clone(),
            store,
            provider: Arc::new(provider),
            authenticators,
            audit,
            tokens: setup.tokens,
            root: site.root().into(),
            node: setup.node,
        };
        let (engine, bootstrap) = Engine::start(parts)?;
        let listen = keymill_msgpack::Config {
            workers: setup.workers,
            hello_timeout: setup.hello_timeout,
            tls: setup.tls,
            ..keymill_msgpack::Config::new("127.0.0.1:0".parse().expect("an address"))
        };
        let msgpack = keymill_msgpack::bind(listen).expect("the listener binds");
        let address = msgpack.local_addr().expect("a bound listener has an address");
        let (stopper, stop) = Stopper::new();
        let gate = engine.gate();
        let frontend = std::thread::spawn(move || {
            Box::new(msgpack).run(gate, stop).expect("the frontend serves");
        });
        let bootstrap = bootstrap.map(|made| {
            (made.id, String::from_utf8(made.secret.expose().to_vec()).expect("a secret is text"))
        });
        Ok(Self {
            engine: Some(engine),
            stopper,
            frontend: Some(frontend),
            address,
            clock,
            store: shared,
            site: None,
            bootstrap,
        })
    }

    /// Returns the access key that a first start made.
    pub fn bootstrap(&self) -> Option<Credentials> {
        self.bootstrap.as_ref().map(|(id, secret)| Credentials::new(id.clone(), secret.clone()))
    }

    /// Returns the id of the access key that a first start made.
    pub fn bootstrap_id(&self) -> Option<&str> {
        self.bootstrap.as_ref().map(|(id, _)| id.as_str())
    }

    /// Returns the secret of the access key that a first start made.
    pub fn bootstrap_secret(&self) -> Option<&str> {
        self.bootstrap.as_ref().map(|(_, secret)| secret.as_str())
    }

    /// Returns the way in.
    pub fn gate(&self) -> Gate {
        self.engine.as_ref().expect("it runs").gate()
    }

    /// Starts another node beside this one: on the same store and root, with an audit of its own.
    pub fn beside(&self, setup: Setup) -> Result<Self, EngineError> {
        let (store, wrap) = (self.store.clone(), setup.store);
        let setup = Setup { store: Box::new(move |_| wrap(store)), ..setup };
        self.site().beside().try_start(setup)
    }

    /// Returns the store, which others use as well.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Returns where the engine keeps its things.
    pub fn site(&self) -> &Site {
        self.site.as_ref().expect("a live engine has its site")
    }

    /// Returns the scratch directory.
    pub fn directory(&self) -> &Path {
        self.site().path()
    }

    /// Logs in.
    pub fn connect(&self, credentials: &Credentials) -> Connection {
        Connection::open(self.address, credentials, &Options::default()).expect("the login is good")
    }

    /// Stops the listener and the engine.
    pub fn stop(&mut self) {
        self.stopper.stop();
        if let Some(frontend) = self.frontend.take() {
            frontend.join().expect("the frontend does not panic");
        }
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}
