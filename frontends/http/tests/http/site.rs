//! A running engine with the HTTP frontend before it, on a store in memory and an audit log in a directory of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use keymill_conformance::MemoryStore;
use keymill_core::login::LoginRule;
use keymill_core::seam::auth::Authenticator;
use keymill_crypto::root::RootKeys;
use keymill_http::{Config, Readiness, bind};
use keymill_runtime::clock::Clock;
use keymill_runtime::frontend::Stopper;
use keymill_runtime::{Engine, EngineConfig, Frontend, FrontendError, Parts};
use tempfile::TempDir;

use crate::client::{Client, Credentials};
use crate::gateway::ClientKeys;

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Clock,
    pub(crate) readiness: Readiness,
    pub(crate) root: Credentials,
    engine: Option<Engine>,
    stopper: Stopper,
    frontend: Option<JoinHandle<Result<(), FrontendError>>>,
    store: Arc<MemoryStore>,
    keys: RootKeys,
    directory: TempDir,
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Config, &mut EngineConfig)) -> Self {
        Self::start_behind(authenticator(), change)
    }

    pub(crate) fn start_behind(
        authenticator: Box<dyn Authenticator>,
        change: impl FnOnce(&mut Config, &mut EngineConfig),
    ) -> Self {
        let (store, keys) = (Arc::default(), RootKeys::generate().unwrap());
        Self::start_on(store, keys, None, authenticator, change)
    }

    /// Starts another node on the same store.
    pub(crate) fn neighbour(&self) -> Self {
        let keys = copied(&self.keys);
        Self::start_on(self.store.clone(), keys, Some(self.root.clone()), authenticator(), |_, _| {})
    }

    /// Starts a node on a store; `root` is who was told at its first start.
    fn start_on(
        store: Arc<MemoryStore>,
        keys: RootKeys,
        root: Option<Credentials>,
        authenticator: Box<dyn Authenticator>,
        change: impl FnOnce(&mut Config, &mut EngineConfig),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new("127.0.0.1:0".parse().unwrap());
        let mut engine = EngineConfig::default();
        change(&mut config, &mut engine);
        let clock = Clock::default();
        let audit = keymill_audit_file::Config::at(directory.path().join("audit"));
        let (engine, bootstrap) = Engine::start(Parts {
            config: engine,
            clock: clock.clone(),
            store: store.clone(),
            provider: Arc::new(keymill_provider_software::open(Default::default()).unwrap()),
            authenticators: vec![authenticator, Box::new(ClientKeys)],
            audit: Arc::new(keymill_audit_file::open(audit).unwrap()),
            tokens: Vec::new(),
            root: copied(&keys).into(),
            node: "test".into(),
        })
        .unwrap();
        let told = bootstrap.map(|bootstrap| Credentials {
            id: bootstrap.id.to_string(),
            secret: String::from_utf8(bootstrap.secret.expose().to_vec()).unwrap(),
        });
        let root = told.or(root).expect("a first start tells who is root");
        let readiness = config.readiness.clone();
        let http = bind(config).unwrap();
        let address = http.local_addr().unwrap();
        let (stopper, stop) = Stopper::new();
        let gate = engine.gate();
        let frontend = Some(std::thread::spawn(move || Box::new(http).run(gate, stop)));
        Self {
            address,
            clock,
            readiness,
            root,
            engine: Some(engine),
            stopper,
            frontend,
            store,
            keys,
            directory,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address, self.root.clone())
    }

    /// Tells the frontend to stop, without waiting for it.
    pub(crate) fn tell_to_stop(&self) {
        self.stopper.stop();
    }

    /// Stops everything and returns the lines of all audit chains.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.halt();
        audit_lines(self.directory.path())
    }

    fn halt(&mut self) {
        self.stopper.stop();
        if let Some(frontend) = self.frontend.take() {
            frontend.join().unwrap().unwrap();
        }
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.halt();
        }
    }
}

fn authenticator() -> Box<dyn Authenticator> {
    Box::new(keymill_auth_credentials::open(Default::default()).unwrap())
}

fn copied(keys: &RootKeys) -> RootKeys {
    RootKeys::decode(keys.encode().expose()).unwrap()
}

fn audit_lines(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory.join("audit")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines
}

/// Has a source kept out for an hour after three guesses.
pub(crate) fn three_guesses(_: &mut Config, engine: &mut EngineConfig) {
    engine.login.rule =
        Some(LoginRule { failures: 3, window_ms: 600_000, first_wait_ms: 3_600_000, max_wait_ms: 3_600_000 });
}
