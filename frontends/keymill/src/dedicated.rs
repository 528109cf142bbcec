//! The instances of an installation as this process runs them (Dedicated KMS): each has an engine of its own over its part of the store, with
//! keys that are derived for it, audit chains in a directory of its own, and nothing else of the installation's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::InstanceId;
use keymill_core::instance::{Instance, Networks, TokenShare};
use keymill_core::seam::store::Store;
use keymill_runtime::engine::{Bootstrap, Root};
use keymill_runtime::scoped::Scoped;
use keymill_runtime::{Ceilings, Engine, EngineConfig, EngineError, Gate, InstanceHost, Parts};
use parking_lot::{Mutex, RwLock};

use crate::config::{Config, Isolation};
use crate::failure::Failure;
use crate::plugins;
use crate::tokens::Tokens;

/// Computes two CMACs by the root MAC key of the installation.
pub(crate) type Derive = Arc<dyn Fn([[u8; 16]; 2]) -> std::result::Result<Sensitive, String> + Send + Sync>;

/// Runs the instances.
pub(crate) struct Dedicated {
    config: Config,
    /// The engine options of the installation.
    engine: EngineConfig,
    store: Arc<dyn Store>,
    derive: Derive,
    /// The directory of the installation's audit.
    audit: PathBuf,
    networks: Networks,
    issuer: Option<String>,
    /// The ways in, for those who only look.
    gates: RwLock<HashMap<InstanceId, Gate>>,
    engines: Mutex<HashMap<InstanceId, Engine>>,
}

/// Returns the directory of an instance's audit, beside that of the installation.
pub(crate) fn audit_of(audit: &Path, id: &InstanceId) -> PathBuf {
    audit.join("instances").join(id.as_str())
}

/// Whether the engine of an instance has to be the first of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Yes,
    No,
}

impl Dedicated {
    /// Takes what engines of instances are made of; none is started.
    pub(crate) fn of(
        config: &Config,
        store: Arc<dyn Store>,
        derive: Derive,
        audit: PathBuf,
    ) -> std::result::Result<Self, Failure> {
        Ok(Self {
            engine: config.engine()?,
            networks: config.networks()?,
            issuer: config.issuer()?,
            config: config.clone(),
            store,
            derive,
            audit,
            gates: RwLock::default(),
            engines: Mutex::default(),
        })
    }

    /// Stops every engine. The frontends are stopped before.
    pub(crate) fn stop(&self) {
        self.gates.write().clear();
        let engines = std::mem::take(&mut *self.engines.lock());
        engines.into_values().for_each(Engine::stop);
    }

    fn parts(&self, instance: &Instance) -> std::result::Result<Parts, Failure> {
        let derive = self.derive.clone();
        let audit = plugins::audit(&self.config.audit, &audit_of(&self.audit, &instance.id))?;
        Ok(Parts {
            config: self.engine.of_instance(instance.id.clone(), &instance.terms),
            clock: keymill_runtime::clock::Clock::default(),
            store: Arc::new(Scoped::of(self.store.clone(), &instance.id)),
            provider: plugins::provider(&self.config.provider)?,
            authenticators: plugins::authenticators()?,
            audit: plugins::audit_beside(&self.config, audit)?,
            tokens: Tokens::of(&self.shareable())?.parts_of(&instance.terms),
            root: Root::Token(Box::new(move |messages| derive(messages))),
            node: self.config.engine.node.clone(),
        })
    }

    /// Returns the configuration with those tokens alone that instances may have, each in a process of its own.
    fn shareable(&self) -> Config {
        let mut config = self.config.clone();
        config.pool.token.retain(|section| section.isolation == Isolation::Process);
        config
    }

    fn run(&self, instance: &Instance, first: First) -> Result<Option<Bootstrap>> {
        let unavailable = |why: String| {
            tracing::error!(instance = %instance.id, why, "an instance does not start");
            Error::new(ErrorKind::Unavailable, "the instance does not start")
        };
        let mut engines = self.engines.lock();
        if engines.contains_key(&instance.id) {
            return Ok(None);
        }
        let parts = self.parts(instance).map_err(|failure| unavailable(failure.to_string()))?;
        // One that was made before has an access key that somebody knows: another would be a way in for nobody.
        let mut tell = |_: &Bootstrap| match first {
            First::Yes => Ok(()),
            First::No => Err("its access keys are missing from the store".to_owned()),
        };
        let (engine, bootstrap) =
            Engine::start_telling(parts, &mut tell).map_err(|EngineError(why)| unavailable(why))?;
        self.gates.write().insert(instance.id.clone(), engine.gate());
        engines.insert(instance.id.clone(), engine);
        Ok(bootstrap)
    }
}

impl InstanceHost for Dedicated {
    fn networks(&self) -> &Networks {
        &self.networks
    }

    fn gate(&self, id: &InstanceId) -> Option<Gate> {
        self.gates.read().get(id).cloned()
    }

    fn check_tokens(&self, tokens: &[TokenShare]) -> Result<()> {
        for TokenShare { name, .. } in tokens {
            let section = self.config.pool.token.iter().find(|section| section.name == *name);
            let isolation = section.map(|section| section.isolation).ok_or_else(|| {
                Error::new(ErrorKind::ResourceNotFound, "Tokens: the configuration names no such token")
            })?;
            // Whoever is logged in to a token is so for a whole process, and its module is finalised for all who use it there.
            if isolation != Isolation::Process {
                let why = format!(
                    "Tokens: {name} is not shared with instances unless it has isolation = \"process\""
                );
                return Err(Error::new(ErrorKind::Unsupported, why));
            }
        }
        Ok(())
    }

    fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    fn create(&self, instance: &Instance) -> Result<Bootstrap> {
        let first = self.run(instance, First::Yes)?;
        first.ok_or_else(|| Error::internal("a new instance has access keys already"))
    }

    fn start(&self, instance: &Instance) -> Result<()> {
        self.run(instance, First::No).map(drop)
    }

    fn change(&self, instance: &Instance) {
        if let Some(gate) = self.gate(&instance.id) {
            gate.keep_to(&Ceilings::of(&instance.terms, &self.engine));
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
        if let Some(cluster) = &self.engine.cluster {
            // Other nodes follow within moments: what is removed while one still serves it, it takes for lost. One that has not seen this by then
            // uses no key any more.
            std::thread::sleep(cluster.view);
        }
        Scoped::of(self.store.clone(), id).clear()?;
        tracing::info!(instance = %id, audit = %audit_of(&self.audit, id).display(), "released; its audit stays");
        Ok(())
    }
}
