//! A live engine in this process, with the shipped plugins over a scratch directory, and a MessagePack listener in front of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use keymill_client::{Connection, Credentials, Options};
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_crypto::root::RootKeys;
use keymill_runtime::clock::Clock;
use keymill_runtime::frontend::Stopper;
use keymill_runtime::{Engine, EngineConfig, Frontend, Gate, Parts};
use tempfile::TempDir;

/// A running engine with a MessagePack listener.
pub struct Live {
    engine: Option<Engine>,
    stopper: Stopper,
    frontend: Option<JoinHandle<()>>,
    /// Where the listener is.
    pub address: SocketAddr,
    /// The clock of the engine, to be set off by tests.
    pub clock: Clock,
    root: Option<RootKeys>,
    directory: Option<TempDir>,
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
        let directory = tempfile::tempdir().expect("a scratch directory");
        let root = RootKeys::generate().expect("random numbers");
        let (live, credentials) = Self::over(directory, root, config);
        Started { live, credentials: credentials.expect("a first start makes an access key") }
    }

    /// Stops and starts again on the same directory and root.
    pub fn restart(mut self, config: EngineConfig) -> Self {
        self.stop();
        let directory = self.directory.take().expect("a live engine has its directory");
        let root = self.root.take().expect("a live engine has its root");
        Self::over(directory, root, config).0
    }

    fn over(directory: TempDir, root: RootKeys, config: EngineConfig) -> (Self, Option<Credentials>) {
        let store =
            keymill_store_sqlite::open(keymill_store_sqlite::Config::new(directory.path().join("data")))
                .expect("the store opens");
        let audit = keymill_audit_file::open(keymill_audit_file::Config::at(directory.path().join("audit")))
            .expect("the audit log opens");
        Self::with(Arc::new(store), Arc::new(audit), directory, root, config)
    }

    fn with(
        store: Arc<dyn Store>,
        audit: Arc<dyn AuditLog>,
        directory: TempDir,
        root: RootKeys,
        config: EngineConfig,
    ) -> (Self, Option<Credentials>) {
        let provider = keymill_provider_software::open(keymill_provider_software::Config {})
            .expect("the software provider opens");
        let authenticator = keymill_auth_credentials::open(keymill_auth_credentials::Config {})
            .expect("the authenticator opens");
        let clock = Clock::default();
        let kept = RootKeys::decode(root.encode().expose()).expect("a root survives its text form");
        let parts = Parts {
            config,
            clock: clock.clone(),
            store,
            provider: Arc::new(provider),
            authenticators: vec![Box::new(authenticator)],
            audit,
            root,
            node: "test".into(),
        };
        let (engine, bootstrap) = Engine::start(parts).expect("the engine starts");
        let listen = keymill_msgpack::Config {
            workers: 2,
            ..keymill_msgpack::Config::new("127.0.0.1:0".parse().expect("an address"))
        };
        let msgpack = keymill_msgpack::bind(listen).expect("the listener binds");
        let address = msgpack.local_addr().expect("a bound listener has an address");
        let (stopper, stop) = Stopper::new();
        let gate = engine.gate();
        let frontend = std::thread::spawn(move || {
            Box::new(msgpack).run(gate, stop).expect("the frontend serves");
        });
        let credentials = bootstrap.map(|bootstrap| {
            Credentials::new(bootstrap.id, String::from_utf8_lossy(bootstrap.secret.expose()).into_owned())
        });
        let live = Self {
            engine: Some(engine),
            stopper,
            frontend: Some(frontend),
            address,
            clock,
            root: Some(kept),
            directory: Some(directory),
        };
        (live, credentials)
    }

    /// Returns the way in.
    pub fn gate(&self) -> Gate {
        self.engine.as_ref().expect("it runs").gate()
    }

    /// Returns the scratch directory.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("it runs").path()
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
