//! The instances of an installation as this process runs them (Dedicated KMS): each has an engine of its own over its part of the store, with
//! keys that are derived for it, audit chains in a directory of its own, and nothing else of the installation's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{DomainName, InstanceId};
use keymill_core::instance::{Instance, Networks, TokenShare};
use keymill_core::seam::store::Store;
use keymill_runtime::engine::{Bootstrap, Root};
use keymill_runtime::scoped::Scoped;
use keymill_runtime::{Ceilings, ConnectError, Engine, EngineConfig, EngineError, Gate, InstanceHost, Parts};
use parking_lot::{Mutex, RwLock};

use crate::config::{Config, Isolation};
use crate::failure::Failure;
use crate::plugins;
use crate::tokens::{Domain, Refusals, TokenTurns, Tokens};

/// Computes two CMACs by the root MAC key of the installation.
pub(crate) type Derive = Arc<dyn Fn([[u8; 16]; 2]) -> std::result::Result<Sensitive, String> + Send + Sync>;

/// Runs the instances.
pub(crate) struct Dedicated {
    config: Config,
    /// The engine options of the installation; that a history is accepted is none of them.
    engine: EngineConfig,
    /// Whether an operator's word accepts the histories of instances that start now.
    accepts_history: AtomicBool,
    store: Arc<dyn Store>,
    derive: Derive,
    /// The turns at the tokens, which the engines take beside the installation's.
    turns: TokenTurns,
    /// The directory of the installation's audit.
    audit: PathBuf,
    networks: Networks,
    issuer: Option<String>,
    /// The ways in, for those who only look.
    gates: RwLock<HashMap<InstanceId, Gate>>,
    engines: Mutex<HashMap<InstanceId, Running>>,
    /// Why instances did not start when that was tried last.
    told: Mutex<HashMap<InstanceId, String>>,
    /// The tokens of those that refused then, until an operator changes what they have.
    refused: Mutex<HashMap<InstanceId, Refusals>>,
}

/// An instance that runs.
struct Running {
    engine: Engine,
    /// What its tokens answer to the probe.
    domain: Domain,
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
        turns: TokenTurns,
        audit: PathBuf,
    ) -> std::result::Result<Self, Failure> {
        let mut engine = config.engine()?;
        let cluster = engine.cluster.as_mut();
        let accepts_history = cluster.is_some_and(|cluster| std::mem::take(&mut cluster.accept_history));
        Ok(Self {
            engine,
            accepts_history: accepts_history.into(),
            networks: config.networks()?,
            issuer: config.issuer()?,
            config: config.clone(),
            store,
            derive,
            turns,
            audit,
            gates: RwLock::default(),
            engines: Mutex::default(),
            told: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// Has the word that histories are accepted be of those instances alone that were there when it was given: they have been gone through.
    pub(crate) fn accept_no_more(&self) {
        self.accepts_history.store(false, Ordering::Release);
    }

    /// Stops every engine. The frontends are stopped before.
    pub(crate) fn stop(&self) {
        self.gates.write().clear();
        let engines = std::mem::take(&mut *self.engines.lock());
        // Together: each may wait for a store that is away.
        std::thread::scope(|scope| {
            engines.into_values().for_each(|running| drop(scope.spawn(|| running.engine.stop())));
        });
    }

    fn parts(
        &self,
        instance: &Instance,
        first: First,
        root: Derive,
        tokens: Tokens,
    ) -> std::result::Result<Parts, Failure> {
        let audit = plugins::audit(&self.config.audit, &audit_of(&self.audit, &instance.id))?;
        let mut config = self.engine.of_instance(instance.id.clone(), &instance.terms);
        if let Some(cluster) = &mut config.cluster {
            // A new one has no history.
            cluster.accept_history = first == First::No && self.accepts_history.load(Ordering::Acquire);
        }
        Ok(Parts {
            config,
            clock: keymill_runtime::clock::Clock::default(),
            store: Arc::new(Scoped::of(self.store.clone(), &instance.id)),
            provider: plugins::provider(&self.config.provider)?,
            authenticators: plugins::authenticators()?,
            audit: plugins::audit_beside(&self.config, audit)?,
            tokens: tokens.parts_of(&instance.terms, &self.turns),
            root: Root::Token(Box::new(move |messages| root(messages))),
            node: self.config.engine.node.clone(),
        })
    }

    /// Returns what the keys of an instance derive by: the root of the installation, or that of its own domain, in a token of its own.
    fn root(&self, instance: &Instance, tokens: &mut Tokens) -> std::result::Result<Derive, ConnectError> {
        match &instance.domain {
            None => Ok(self.derive.clone()),
            Some(_) => {
                let names = instance.terms.tokens.iter().map(|share| share.name.as_str());
                Ok(tokens.first_of(names)?.into_derive())
            }
        }
    }

    /// Takes the tokens of an instance; of the first start of one with a domain of its own, each has to be there and to hold it.
    fn tokens(&self, instance: &Instance, first: First) -> Result<Tokens> {
        let tokens = Tokens::of_instances(&self.config, instance.domain.as_ref())
            .map_err(|failure| self.not_started(instance, ErrorKind::Unavailable, failure.to_string()))?;
        let refusals = self.refused.lock().get(&instance.id).cloned().unwrap_or_default();
        let mut tokens = tokens.not_again(refusals);
        if first == First::Yes && instance.domain.is_some() {
            hold(&mut tokens, &instance.terms.tokens)?;
        }
        Ok(tokens)
    }

    /// Says that an instance does not start; the log tells why, where that is news.
    fn not_started(&self, instance: &Instance, kind: ErrorKind, why: String) -> Error {
        if self.told.lock().insert(instance.id.clone(), why.clone()).as_ref() != Some(&why) {
            tracing::error!(instance = %instance.id, why, "an instance does not start");
        }
        Error::new(kind, "the instance does not start")
    }

    /// Forgets what was noted of starts that failed.
    fn forget(&self, id: &InstanceId) {
        self.told.lock().remove(id);
        self.refused.lock().remove(id);
    }

    fn run(&self, instance: &Instance, first: First) -> Result<Option<Bootstrap>> {
        let unavailable = |why: String| self.not_started(instance, ErrorKind::Unavailable, why);
        if self.engines.lock().contains_key(&instance.id) {
            return Ok(None);
        }
        // Without the lock: a token may take its time, and is no matter to other instances.
        let mut tokens = self.tokens(instance, first)?;
        let root = self.root(instance, &mut tokens);
        self.refused.lock().insert(instance.id.clone(), tokens.refusals());
        let root = root.map_err(|error| match error {
            ConnectError::Unavailable(why) => unavailable(why),
            ConnectError::Refused(why) => self.not_started(instance, ErrorKind::InstanceState, why),
        })?;
        let domain = tokens.domain();
        let mut engines = self.engines.lock();
        if engines.contains_key(&instance.id) {
            return Ok(None);
        }
        let parts =
            self.parts(instance, first, root, tokens).map_err(|failure| unavailable(failure.to_string()))?;
        // One that was made before has an access key that somebody knows: another would be a way in for nobody.
        let mut tell = |_: &Bootstrap| match first {
            First::Yes => Ok(()),
            First::No => Err("its access keys are missing from the store".to_owned()),
        };
        let (engine, bootstrap) =
            Engine::start_telling(parts, &mut tell).map_err(|EngineError(why)| unavailable(why))?;
        self.gates.write().insert(instance.id.clone(), engine.gate());
        engines.insert(instance.id.clone(), Running { engine, domain });
        self.forget(&instance.id);
        Ok(bootstrap)
    }
}

/// Connects tokens, and checks that they hold the domain that they are taken for.
fn hold(tokens: &mut Tokens, shares: &[TokenShare]) -> Result<()> {
    shares.iter().try_for_each(|TokenShare { name, .. }| match tokens.connect(name) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("Tokens: {name} cannot be had for the domain of the instance: {error}");
            Err(Error::new(ErrorKind::InvalidParameter, why))
        }
    })
}

impl InstanceHost for Dedicated {
    fn networks(&self) -> &Networks {
        &self.networks
    }

    fn gate(&self, id: &InstanceId) -> Option<Gate> {
        self.gates.read().get(id).cloned()
    }

    fn check_tokens(&self, domain: Option<&DomainName>, tokens: &[TokenShare]) -> Result<()> {
        let unsupported = |why: String| Err(Error::new(ErrorKind::Unsupported, why));
        for TokenShare { name, .. } in tokens {
            let section = self.config.pool.token.iter().find(|section| section.name == *name);
            let section = section.ok_or_else(|| {
                Error::new(ErrorKind::ResourceNotFound, "Tokens: the configuration names no such token")
            })?;
            // Whoever is logged in to a token is so for a whole process, and its module is finalised for all who use it there.
            if section.isolation != Isolation::Process {
                return unsupported(format!(
                    "Tokens: {name} is not shared with instances unless it has isolation = \"process\""
                ));
            }
            match &section.domain {
                of if of.as_ref() == domain => {}
                Some(of) => {
                    return unsupported(format!("Tokens: {name} is for instances of the domain {of} alone"));
                }
                None => {
                    return unsupported(format!("Tokens: {name} is not of the domain of the instance"));
                }
            }
        }
        Ok(())
    }

    fn check_domain(&self, instance: &Instance, tokens: &[TokenShare]) -> Result<()> {
        if instance.domain.is_none() {
            return Ok(());
        }
        let failed = |failure: Failure| Error::new(ErrorKind::Unavailable, failure.to_string());
        let asked = Tokens::of_instances(&self.config, instance.domain.as_ref()).map_err(failed)?;
        let known = self.engines.lock().get(&instance.id).map(|running| running.domain.clone());
        hold(&mut asked.of_same_domain(known.unwrap_or_default()), tokens)
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
        } else {
            self.forget(&instance.id);
        }
    }

    fn leave(&self, id: &InstanceId) {
        self.gates.write().remove(id);
        let engine = self.engines.lock().remove(id);
        if let Some(Running { engine, .. }) = engine {
            engine.end();
        }
        self.forget(id);
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
