//! A scene as an instance (`KEYMILL_TEST_INSTANCES=1`): its engine is that of an instance of an installation, beside which another instance of the
//! same installation is at work. What holds of an engine has to hold of it, whatever its neighbour does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, DomainName, InstanceId};
use keymill_core::instance::{Instance, Networks, TokenShare, Vpc};
use keymill_core::key::ProtectionLevel;
use keymill_core::operation::*;
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_crypto::root::RootKeys;
use keymill_runtime::clock::Clock;
use keymill_runtime::engine::Bootstrap;
use keymill_runtime::scoped::Scoped;
use keymill_runtime::{Ceilings, Engine, EngineConfig, EngineError, Gate, InstanceHost, Parts, TokenPart};
use parking_lot::{Mutex, RwLock};

use crate::alone;
use crate::setup::Wrap;

/// Has scenes be instances, where it is `1`.
const SWITCH: &str = "KEYMILL_TEST_INSTANCES";
/// The network of the scene's instance, and that of the other.
const NETWORKS: [&str; 2] = ["scene", "beside"];

/// Tells whether the scene that the current test begins is to be an instance.
pub(crate) fn is_asked() -> bool {
    std::env::var(SWITCH).is_ok_and(|asked| asked == "1") && alone::reason().is_none()
}

/// The two instances of an installation: the scene, and the one beside it.
#[derive(Clone)]
pub(crate) struct Tenants {
    pub(crate) scene: Tenant,
    pub(crate) other: Tenant,
}

/// An instance, and the access key that it was made with.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) id: InstanceId,
    pub(crate) key: (AccessKeyId, String),
}

/// Returns the directory of an instance's audit, beside that of its installation.
pub(crate) fn audit_of(installation: &Path, id: &InstanceId) -> PathBuf {
    installation.join("instances").join(id.as_str())
}

/// What the scene's engine alone has.
pub(crate) struct Own {
    pub(crate) store: Wrap<dyn Store>,
    pub(crate) audit: Wrap<dyn AuditLog>,
    pub(crate) tokens: Vec<TokenPart>,
}

/// What the engines of an installation are made of.
pub(crate) struct Ground {
    /// The options of the scene.
    pub(crate) config: EngineConfig,
    pub(crate) clock: Clock,
    /// All of the store.
    pub(crate) store: Arc<dyn Store>,
    /// The root keys in their text form.
    pub(crate) root: Sensitive,
    /// The directory of the installation's audit.
    pub(crate) audit: PathBuf,
    pub(crate) node: String,
}

impl Ground {
    /// Returns the options of the installation itself: the tokens are the scene's, and what is limited is the scene as well.
    fn of_installation(&self) -> EngineConfig {
        EngineConfig {
            protection: ProtectionLevel::Software,
            quota: Default::default(),
            ..self.config.clone()
        }
    }

    fn parts(
        &self,
        config: EngineConfig,
        store: Arc<dyn Store>,
        audit: &Path,
        own: Option<Own>,
    ) -> std::result::Result<(Parts, Arc<dyn Store>), EngineError> {
        let failed = |error: &dyn std::fmt::Display| EngineError::new(error.to_string());
        let audit = keymill_audit_file::open(keymill_audit_file::Config::at(audit.to_owned()))
            .map_err(|error| failed(&error))?;
        let mut audit: Arc<dyn AuditLog> = Arc::new(audit);
        let (mut store, mut tokens) = (store, Vec::new());
        if let Some(own) = own {
            (store, audit, tokens) = ((own.store)(store), (own.audit)(audit), own.tokens);
        }
        let provider = keymill_provider_software::open(keymill_provider_software::Config {})
            .map_err(|error| failed(&error))?;
        let parts = Parts {
            config,
            clock: self.clock.clone(),
            store: store.clone(),
            provider: Arc::new(provider),
            authenticators: keymill_auth_credentials::all(keymill_auth_credentials::Config {})
                .map_err(|error| failed(&error))?,
            audit,
            tokens,
            root: RootKeys::decode(self.root.expose()).map_err(|error| failed(&error))?.into(),
            node: self.node.clone(),
        };
        Ok((parts, store))
    }
}

/// Runs the two instances, as the program runs those that it has.
pub(crate) struct Tenancy {
    ground: Ground,
    networks: Networks,
    /// Taken by the scene's engine.
    own: Mutex<Option<Own>>,
    /// Which instance the scene is: the first that is made.
    scene: OnceLock<InstanceId>,
    /// The scene's store, with what was put around it.
    store: OnceLock<Arc<dyn Store>>,
    gates: RwLock<HashMap<InstanceId, Gate>>,
    engines: Mutex<HashMap<InstanceId, Engine>>,
    /// Why an engine does not start.
    trouble: Mutex<Option<EngineError>>,
}

impl Tenancy {
    /// Starts the installation and the instances that it has. Requests that come in at the first address reach the scene, those at the second the
    /// other. With it comes the first access key of an installation that is new.
    pub(crate) fn start(
        ground: Ground,
        own: Own,
        addresses: [SocketAddr; 2],
        known: Option<&Tenants>,
    ) -> std::result::Result<(Arc<Self>, Engine, Option<Bootstrap>), EngineError> {
        let (parts, _) = ground.parts(ground.of_installation(), ground.store.clone(), &ground.audit, None)?;
        let (engine, bootstrap) = Engine::start(parts)?;
        let network = |(name, address): (&str, SocketAddr)| Vpc {
            id: name.parse().expect("the name is valid"),
            sources: Vec::new(),
            listen: vec![address.to_string().parse().expect("an address is one")],
            server_names: Vec::new(),
        };
        let tenancy = Arc::new(Self {
            ground,
            networks: Networks::of(NETWORKS.into_iter().zip(addresses).map(network).collect()),
            own: Mutex::new(Some(own)),
            scene: known.map_or_else(OnceLock::new, |known| known.scene.id.clone().into()),
            store: OnceLock::new(),
            gates: RwLock::default(),
            engines: Mutex::default(),
            trouble: Mutex::default(),
        });
        engine.host(tenancy.clone());
        Ok((tenancy, engine, bootstrap))
    }

    /// Returns the instances, which are made where the installation is new: then its first access key comes in by a way that is bound to neither.
    pub(crate) fn tenants(
        &self,
        known: Option<Tenants>,
        bootstrap: Option<&Bootstrap>,
        way: SocketAddr,
    ) -> std::result::Result<Tenants, EngineError> {
        let tenants = match (known, bootstrap) {
            (Some(known), _) => Ok(known),
            (None, Some(root)) => make(way, root),
            (None, None) => Err(EngineError::new("nobody knows the instances of an installation")),
        };
        let is_there = tenants.and_then(|tenants| match self.gate(&tenants.scene.id) {
            Some(_) => Ok(tenants),
            None => Err(EngineError::new("the scene's instance does not run")),
        });
        is_there.map_err(|error| self.trouble.lock().take().unwrap_or(error))
    }

    /// Returns the way into the scene.
    pub(crate) fn of_scene(&self) -> Gate {
        let gate = self.scene.get().and_then(|id| self.gate(id));
        gate.expect("the scene's instance runs")
    }

    /// Returns the scene's store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store.get().expect("the scene's instance was started").clone()
    }

    /// Returns all of the store.
    pub(crate) fn whole_store(&self) -> Arc<dyn Store> {
        self.ground.store.clone()
    }

    /// Stops both. Whoever serves is stopped before.
    pub(crate) fn stop(&self) {
        self.gates.write().clear();
        let engines = std::mem::take(&mut *self.engines.lock());
        engines.into_values().for_each(Engine::stop);
    }

    fn start_one(&self, instance: &Instance) -> std::result::Result<Option<Bootstrap>, EngineError> {
        let mut engines = self.engines.lock();
        if engines.contains_key(&instance.id) {
            return Ok(None);
        }
        let ground = &self.ground;
        let is_scene = *self.scene.get_or_init(|| instance.id.clone()) == instance.id;
        let own = self.own.lock().take_if(|_| is_scene);
        let mut config = ground.config.of_instance(instance.id.clone(), &instance.terms);
        if is_scene {
            // Which callers have quotas of their own nobody can say before they are there, and so it is said for those of the scene.
            config.quota = ground.config.quota.clone();
            config.protection = ground.config.protection;
        }
        let store: Arc<dyn Store> = Arc::new(Scoped::of(ground.store.clone(), &instance.id));
        let (parts, store) = ground.parts(config, store, &audit_of(&ground.audit, &instance.id), own)?;
        if is_scene {
            let _first = self.store.set(store);
        }
        let (engine, bootstrap) = Engine::start(parts)?;
        self.gates.write().insert(instance.id.clone(), engine.gate());
        engines.insert(instance.id.clone(), engine);
        Ok(bootstrap)
    }

    fn run(&self, instance: &Instance) -> Result<Option<Bootstrap>> {
        self.start_one(instance).map_err(|why| {
            *self.trouble.lock() = Some(why);
            Error::new(ErrorKind::Unavailable, "the instance does not start")
        })
    }
}

/// Makes both instances, as the administrator of the installation, who comes in where nobody is bound yet.
fn make(way: SocketAddr, root: &Bootstrap) -> std::result::Result<Tenants, EngineError> {
    let secret = String::from_utf8_lossy(root.secret.expose()).into_owned();
    let failed = |error: ClientError| EngineError::new(error.to_string());
    let root = Credentials::new(root.id.clone(), secret);
    let mut installation = Connection::open(way, &root, &Options::default()).map_err(failed)?;
    let scene = made(&mut installation).map_err(failed)?;
    let other = made(&mut installation).map_err(failed)?;
    for (tenant, vpc) in [&scene, &other].into_iter().zip(NETWORKS) {
        let request = ConnectKmsInstanceRequest {
            kms_instance_id: tenant.id.to_string(),
            vpc_id: vpc.to_owned(),
            km_provider: None,
            v_switch_ids: None,
            zone_ids: None,
            timeout_ms: None,
        };
        installation.send(&request.into()).map_err(failed)?;
        installation.receive().map_err(failed)?.result().map_err(failed)?;
    }
    Ok(Tenants { scene, other })
}

/// Asks for an instance.
fn made(installation: &mut Connection) -> std::result::Result<Tenant, ClientError> {
    let request = CreateKmsInstanceRequest { timeout_ms: Some(50_000), ..Default::default() };
    installation.send(&request.into())?;
    let answer = installation.receive()?;
    match answer.result()? {
        Reply::CreateKmsInstance(made) => {
            Ok(Tenant { id: made.kms_instance_id, key: (made.access_key_id, made.access_key_secret) })
        }
        other => panic!("answered as {:?}", other.operation()),
    }
}

impl InstanceHost for Tenancy {
    fn networks(&self) -> &Networks {
        &self.networks
    }

    fn gate(&self, id: &InstanceId) -> Option<Gate> {
        self.gates.read().get(id).cloned()
    }

    fn check_tokens(&self, _: Option<&DomainName>, _: &[TokenShare]) -> Result<()> {
        Ok(())
    }

    fn check_domain(&self, _: &Instance, _: &[TokenShare]) -> Result<()> {
        Ok(())
    }

    fn issuer(&self) -> Option<&str> {
        None
    }

    fn create(&self, instance: &Instance) -> Result<Bootstrap> {
        self.run(instance)?.ok_or_else(|| Error::internal("a new instance has access keys already"))
    }

    fn start(&self, instance: &Instance) -> Result<()> {
        self.run(instance).map(drop)
    }

    fn forget(&self, _: &InstanceId) {}

    fn change(&self, instance: &Instance) {
        // The scene keeps to the options of its test.
        if self.scene.get() != Some(&instance.id)
            && let Some(gate) = self.gate(&instance.id)
        {
            gate.keep_to(&Ceilings::of(&instance.terms, &self.ground.config));
            gate.keep_pool(&instance.terms);
        }
    }

    fn leave(&self, id: &InstanceId) {
        self.gates.write().remove(id);
        let engine = self.engines.lock().remove(id);
        if let Some(engine) = engine {
            engine.end();
        }
    }

    fn running(&self) -> Vec<InstanceId> {
        self.gates.read().keys().cloned().collect()
    }

    fn release(&self, id: &InstanceId) -> Result<()> {
        self.leave(id);
        Ok(Scoped::of(self.ground.store.clone(), id).clear()?)
    }
}
