//! A whole keymill in this process, started as `serve` starts it: SQLite, an audit log in files, the software provider, both
//! listeners on loopback, and a CMK to work under. Everything lies in a directory that goes with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use keymill_client::{Client, Config, Connection, Credentials, Options};
use keymill_core::access::{Effect, Grant, Principal, ResourcePattern, Role};
use keymill_core::id::{AccessKeyId, CmkId, KeyRef, KeyVersionId};
use keymill_core::key::{BulkMode, KeySpec, ProtectionLevel};
use keymill_core::operation::{CreateAccessKeyRequest, CreateKeyRequest, Reply, Request};
use keymill_core::quota::{Quota, Rate};
use keymill_crypto::root::RootKeys;
use keymill_runtime::clock::Clock;
use keymill_runtime::frontend::{StopSignal, Stopper};
use keymill_runtime::{Engine, EngineConfig, Frontend, Gate, Parts, QuotaConfig, TokenPart};
use keymill_tls::ServerTls;

use crate::error::{BenchError, Result};

/// Requests for keys that are on their way at the same time.
const MADE_TOGETHER: usize = 64;

/// A running keymill; dropping it stops it.
pub struct Fixture {
    /// Where MessagePack TCP is served.
    pub msgpack: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    key: CmkId,
    access_key: AccessKeyId,
    secret: String,
    engine: Option<Engine>,
    stopper: Stopper,
    frontends: Vec<JoinHandle<()>>,
    /// Goes last.
    _directory: tempfile::TempDir,
}

impl Fixture {
    /// Starts one with everything on.
    ///
    /// # Errors
    /// [`BenchError`] where a part does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(EngineConfig::default(), Vec::new())
    }

    /// Starts one without an audit, to be measured against.
    ///
    /// # Errors
    /// [`BenchError`] where a part does not start.
    pub fn start_without_audit() -> Result<Self> {
        Self::start_with(EngineConfig { audit: false, ..EngineConfig::default() }, Vec::new())
    }

    /// Starts one with quotas of requests, items and bytes for callers and for the instance, which nobody exceeds.
    ///
    /// # Errors
    /// [`BenchError`] where a part does not start.
    pub fn start_with_quotas() -> Result<Self> {
        let rate = |per_second| Some(Rate::new(per_second, per_second));
        let plenty = rate(NonZeroU64::MAX);
        let quota = Quota { requests: plenty, items: plenty, bytes: plenty };
        let quota = QuotaConfig { instance: quota, caller: quota, ..QuotaConfig::default() };
        Self::start_with(EngineConfig { quota, ..EngineConfig::default() }, Vec::new())
    }

    /// Starts one whose CMK is in tokens.
    ///
    /// # Errors
    /// [`BenchError`] where a part does not start, or no token makes the key.
    pub fn start_in_tokens(tokens: Vec<TokenPart>, bulk_mode: BulkMode) -> Result<Self> {
        Self::start_with(in_tokens(bulk_mode), tokens)
    }

    /// Starts one whose CMK derives subkeys in tokens, each of which seals for so long at most.
    pub(crate) fn start_with_epochs(tokens: Vec<TokenPart>, max_age: Duration) -> Result<Self> {
        let mut config = in_tokens(BulkMode::HsmDerived);
        config.pool.epoch_max_age = max_age;
        Self::start_with(config, tokens)
    }

    fn start_with(config: EngineConfig, tokens: Vec<TokenPart>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let store = keymill_store_sqlite::Config::new(directory.path().join("data"));
        let audit = keymill_audit_file::Config::at(directory.path().join("audit"));
        let authenticators = keymill_auth_credentials::all(Default::default());
        let parts = Parts {
            config,
            clock: Clock::default(),
            store: Arc::new(keymill_store_sqlite::open(store).map_err(BenchError::because("store"))?),
            provider: Arc::new(
                keymill_provider_software::open(Default::default())
                    .map_err(BenchError::because("provider"))?,
            ),
            authenticators: authenticators.map_err(BenchError::because("authenticators"))?,
            audit: Arc::new(keymill_audit_file::open(audit).map_err(BenchError::because("audit log"))?),
            tokens,
            root: RootKeys::generate().map_err(BenchError::because("root"))?.into(),
            node: "bench".into(),
        };
        let (engine, bootstrap) = Engine::start(parts).map_err(BenchError::because("engine"))?;
        let bootstrap = bootstrap.ok_or_else(|| BenchError::new("the data directory was used before"))?;
        let secret =
            std::str::from_utf8(bootstrap.secret.expose()).map_err(BenchError::because("access key"))?;

        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let msgpack = keymill_msgpack::bind(keymill_msgpack::Config::new(any));
        let msgpack = msgpack.map_err(BenchError::because("MessagePack frontend"))?;
        let http = keymill_http::bind(keymill_http::Config::new(any))
            .map_err(BenchError::because("HTTP frontend"))?;
        let (stopper, stop) = Stopper::new();
        let mut fixture = Self {
            msgpack: msgpack.local_addr().map_err(BenchError::because("MessagePack frontend"))?,
            http: http.local_addr().map_err(BenchError::because("HTTP frontend"))?,
            key: CmkId::from_bytes([0; 16]),
            access_key: bootstrap.id,
            secret: secret.to_owned(),
            engine: Some(engine),
            stopper,
            frontends: Vec::new(),
            _directory: directory,
        };
        for frontend in [Box::new(msgpack) as Box<dyn Frontend>, Box::new(http)] {
            fixture.frontends.push(run(frontend, fixture.gate(), stop.clone())?);
        }
        fixture.key = fixture.create(None)?;
        Ok(fixture)
    }

    /// Has MessagePack TCP be served over TLS as well, at an address of its own.
    ///
    /// # Errors
    /// [`BenchError`] where it cannot be bound.
    pub(crate) fn listen(&self, tls: ServerTls) -> Result<Listening> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = keymill_msgpack::Config { tls: Some(tls), ..keymill_msgpack::Config::new(any) };
        let frontend = keymill_msgpack::bind(config).map_err(BenchError::because("MessagePack frontend"))?;
        let address = frontend.local_addr().map_err(BenchError::because("MessagePack frontend"))?;
        let (stopper, stop) = Stopper::new();
        let thread = run(Box::new(frontend), self.gate(), stop)?;
        Ok(Listening { address, stopper, thread: Some(thread) })
    }

    /// Returns the way into the engine.
    pub fn gate(&self) -> Gate {
        self.engine.as_ref().expect("the engine runs until the fixture is dropped").gate()
    }

    /// Returns the CMK to work under.
    pub fn key(&self) -> KeyRef {
        KeyRef::Id(self.key)
    }

    /// Returns the bootstrap access key, which may do anything.
    pub fn credentials(&self) -> Credentials {
        Credentials::new(self.access_key.clone(), self.secret.clone())
    }

    /// Returns who the bootstrap access key is.
    pub fn principal(&self) -> Principal {
        Principal::of_access_key(self.access_key.clone())
    }

    /// Returns the id and the secret of the bootstrap access key.
    pub fn access_key(&self) -> (&str, &str) {
        (self.access_key.as_str(), &self.secret)
    }

    /// Logs in over MessagePack TCP.
    ///
    /// # Errors
    /// [`BenchError`] where the login fails.
    pub fn connect(&self) -> Result<Connection> {
        Ok(Connection::open(self.msgpack, &self.credentials(), &Options::default())?)
    }

    /// Makes an access key for a second caller.
    ///
    /// # Errors
    /// [`BenchError`] where the server refuses.
    pub fn another_caller(&self) -> Result<Credentials> {
        self.callers(1)?.pop().ok_or_else(|| BenchError::new("CreateAccessKey made none"))
    }

    /// Makes access keys for so many callers more, each of which may do anything.
    ///
    /// # Errors
    /// [`BenchError`] where the server refuses.
    pub fn callers(&self, count: usize) -> Result<Vec<Credentials>> {
        let grant =
            Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
        let request =
            CreateAccessKeyRequest { grants: vec![grant], description: None, timeout_ms: Some(60_000) };
        self.made(count, &request.into(), |reply| match reply {
            Reply::CreateAccessKey(made) => {
                Some(Credentials::new(made.access_key_id.clone(), made.access_key_secret.clone()))
            }
            _ => None,
        })
    }

    /// Makes a key pair that signs, and returns it with its version.
    ///
    /// # Errors
    /// [`BenchError`] where the server refuses.
    pub fn key_pair(&self, spec: KeySpec) -> Result<(KeyRef, KeyVersionId)> {
        let request = CreateKeyRequest { key_spec: Some(spec), ..Default::default() };
        match self.client()?.call(request)?.reply()? {
            Reply::CreateKey(made) => {
                Ok((KeyRef::Id(made.key_metadata.key_id), made.key_metadata.primary_key_version))
            }
            other => Err(BenchError::new(format!("CreateKey was answered by {other:?}"))),
        }
    }

    /// Makes so many CMKs more.
    ///
    /// # Errors
    /// [`BenchError`] where the server refuses.
    pub fn keys(&self, count: usize) -> Result<Vec<KeyRef>> {
        let request = CreateKeyRequest { timeout_ms: Some(60_000), ..Default::default() };
        self.made(count, &request.into(), |reply| match reply {
            Reply::CreateKey(made) => Some(KeyRef::Id(made.key_metadata.key_id)),
            _ => None,
        })
    }

    /// Sends a request `count` times and returns what `made` finds in the replies.
    fn made<T>(
        &self,
        count: usize,
        request: &Request<'_>,
        made: impl Fn(&Reply<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let (mut sender, mut receiver) = self.connect()?.split();
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            // Those that are on their way together are committed together.
            let together = MADE_TOGETHER.min(count - all.len());
            for _ in 0..together {
                sender.send(request)?;
            }
            sender.flush()?;
            for _ in 0..together {
                let answer = receiver.receive()?;
                let reply = answer.result()?;
                all.push(made(&reply).ok_or_else(|| {
                    BenchError::new(format!("{:?} was answered by {reply:?}", request.operation()))
                })?);
            }
        }
        Ok(all)
    }

    /// Makes a CMK in software, where others are in tokens.
    pub(crate) fn software_key(&self) -> Result<KeyRef> {
        self.create(Some(ProtectionLevel::Software)).map(KeyRef::Id)
    }

    fn create(&self, protection_level: Option<ProtectionLevel>) -> Result<CmkId> {
        let description = Some("bench".into());
        let request = CreateKeyRequest { description, protection_level, ..Default::default() };
        match self.client()?.call(request)?.reply()? {
            Reply::CreateKey(made) => Ok(made.key_metadata.key_id),
            other => Err(BenchError::new(format!("CreateKey was answered by {other:?}"))),
        }
    }

    /// Makes a client of one caller at a time, over MessagePack TCP.
    ///
    /// # Errors
    /// [`BenchError`] where the login fails.
    pub fn client(&self) -> Result<Client> {
        let options = Options { read_timeout: Duration::from_secs(30), ..Options::default() };
        Ok(Client::connect(Config { options, ..Config::new(self.msgpack.to_string(), self.credentials()) })?)
    }
}

/// Returns the options of an engine whose keys are in tokens.
fn in_tokens(bulk_mode: BulkMode) -> EngineConfig {
    let mut config = EngineConfig { protection: ProtectionLevel::Hsm, bulk_mode, ..EngineConfig::default() };
    // Tokens are connected while the engine starts.
    config.pool.patience = Duration::from_secs(30);
    config
}

fn run(frontend: Box<dyn Frontend>, gate: Gate, stop: StopSignal) -> Result<JoinHandle<()>> {
    let run = move || {
        if let Err(error) = frontend.run(gate, stop) {
            // What was measured meanwhile fails by itself, without the reason.
            drop(std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{error}\n")));
        }
    };
    Ok(std::thread::Builder::new().name("bench-front".into()).spawn(run)?)
}

/// A further listener; dropping it stops it.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stopper.stop();
        for frontend in self.frontends.drain(..) {
            let _panicked = frontend.join();
        }
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}
