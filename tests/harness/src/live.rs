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
use keymill_msgpack::Msgpack;
use keymill_runtime::clock::Clock;
use keymill_runtime::frontend::Stopper;
use keymill_runtime::{Engine, EngineConfig, EngineError, Frontend, Gate, Parts, StopSignal};
use keymill_tls::ServerTls;

use crate::site::Whose;
use crate::tenancy::{self, Ground, Own, Tenancy};
use crate::{Farm, Setup, Site};

/// A running engine with a MessagePack listener.
pub struct Live {
    engine: Option<Engine>,
    /// Where the engine is an instance: what runs it, and the one beside it.
    tenancy: Option<Arc<Tenancy>>,
    /// Where the other one listens, and what logs in there as its root.
    neighbour: Option<(SocketAddr, Credentials)>,
    stopper: Stopper,
    frontends: Vec<JoinHandle<()>>,
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

    pub(crate) fn over(mut site: Site, setup: Setup) -> Result<Self, EngineError> {
        let (mut live, whose) = Self::begin(&site, setup)?;
        site.whose = whose;
        live.site = Some(site);
        Ok(live)
    }

    /// Starts an engine on a site, and tells whose that is from now on.
    pub(crate) fn begin(site: &Site, mut setup: Setup) -> Result<(Self, Whose), EngineError> {
        in_tokens(&mut setup);
        match &site.whose {
            Whose::Tenants(_) => Self::over_tenancy(site, setup),
            Whose::Nobody if setup.is_instance || tenancy::is_asked() => Self::over_tenancy(site, setup),
            Whose::Nobody | Whose::Engine => Self::over_engine(site, setup),
        }
    }

    fn over_engine(site: &Site, setup: Setup) -> Result<(Self, Whose), EngineError> {
        let store = setup.shared.map_or_else(|| site.store(), Ok)?;
        let audit = keymill_audit_file::open(keymill_audit_file::Config::at(site.audit()))
            .map_err(|error| EngineError::new(error.to_string()))?;
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
        let front = bind(setup.workers, setup.hello_timeout, setup.tls);
        let address = front.local_addr().expect("a bound listener has an address");
        let (stopper, stop) = Stopper::new();
        let frontends = vec![serve(front, &engine.gate(), &stop)];
        let bootstrap = bootstrap.map(|made| {
            (made.id, String::from_utf8(made.secret.expose().to_vec()).expect("a secret is text"))
        });
        let live = Self {
            engine: Some(engine),
            tenancy: None,
            neighbour: None,
            stopper,
            frontends,
            address,
            clock,
            store: shared,
            site: None,
            bootstrap,
        };
        Ok((live, Whose::Engine))
    }

    /// Has the engine be that of an instance, with another one beside it.
    fn over_tenancy(site: &Site, setup: Setup) -> Result<(Self, Whose), EngineError> {
        let known = match &site.whose {
            Whose::Tenants(tenants) => Some(tenants.clone()),
            Whose::Nobody | Whose::Engine => None,
        };
        let is_first = known.is_none();
        let ground = Ground {
            config: setup.config,
            clock: setup.clock.clone(),
            store: setup.shared.map_or_else(|| site.whole_store(), Ok)?,
            root: site.root().encode(),
            audit: site.whole_audit(),
            node: setup.node,
        };
        let own = Own { store: setup.store, audit: setup.audit, tokens: setup.tokens };
        let front = bind(setup.workers, setup.hello_timeout, setup.tls);
        let side = bind(1, setup.hello_timeout, None);
        let addresses =
            [&front, &side].map(|listener| listener.local_addr().expect("a bound listener has an address"));
        let (tenancy, engine, bootstrap) = Tenancy::start(ground, own, addresses, known.as_ref())?;
        let (stopper, stop) = Stopper::new();
        let gate = engine.gate();
        let mut live = Self {
            engine: Some(engine),
            tenancy: Some(tenancy.clone()),
            neighbour: None,
            stopper,
            frontends: vec![serve(front, &gate, &stop), serve(side, &gate, &stop)],
            address: addresses[0],
            clock: setup.clock,
            store: tenancy.whole_store(),
            site: None,
            bootstrap: None,
        };
        // Where that fails, all is stopped as it goes.
        let tenants = tenancy.tenants(known, bootstrap.as_ref(), addresses[1])?;
        live.store = tenancy.store();
        live.bootstrap = is_first.then(|| tenants.scene.key.clone());
        let (id, secret) = tenants.other.key.clone();
        live.neighbour = Some((addresses[1], Credentials::new(id, secret)));
        Ok((live, Whose::Tenants(tenants)))
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
        match &self.tenancy {
            Some(tenancy) => tenancy.of_scene(),
            None => self.engine.as_ref().expect("it runs").gate(),
        }
    }

    /// Returns the id of the instance that this is the engine of, where it is one (`KEYMILL_TEST_INSTANCES`).
    pub fn instance(&self) -> Option<&str> {
        self.site().tenants().map(|tenants| tenants.scene.id.as_str())
    }

    /// Returns the id of the instance beside this one, where there is one, with its address and what may do everything there.
    pub fn neighbour(&self) -> Option<(&str, SocketAddr, &Credentials)> {
        let id = self.site().tenants()?.other.id.as_str();
        self.neighbour.as_ref().map(|(address, credentials)| (id, *address, credentials))
    }

    /// Starts another node beside this one: on the same store and root, with an audit of its own.
    pub fn beside(&self, setup: Setup) -> Result<Self, EngineError> {
        self.join(self.site().beside(), setup)
    }

    /// Starts a node that was beside this one before, where it has left its things.
    pub fn join(&self, site: Site, setup: Setup) -> Result<Self, EngineError> {
        let whole = self.tenancy.as_ref().map_or_else(|| self.store.clone(), |tenancy| tenancy.whole_store());
        site.try_start(Setup { shared: Some(whole), ..setup })
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
        for frontend in self.frontends.drain(..) {
            frontend.join().expect("the frontend does not panic");
        }
        if let Some(tenancy) = &self.tenancy {
            tenancy.stop();
        }
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

fn bind(workers: usize, hello_timeout: Duration, tls: Option<ServerTls>) -> Msgpack {
    let listen = keymill_msgpack::Config {
        workers,
        hello_timeout,
        tls,
        ..keymill_msgpack::Config::new("127.0.0.1:0".parse().expect("an address"))
    };
    keymill_msgpack::bind(listen).expect("the listener binds")
}

fn serve(listener: Msgpack, gate: &Gate, stop: &StopSignal) -> JoinHandle<()> {
    let (gate, stop) = (gate.clone(), stop.clone());
    std::thread::spawn(move || Box::new(listener).run(gate, stop).expect("the frontend serves"))
}

impl Drop for Live {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}
