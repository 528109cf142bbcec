//! The instances of an installation as this process runs them (Dedicated KMS): each has an engine of its own over its part of the store, with
//! keys that are derived for it, audit chains in a directory of its own, and nothing else of the installation's.

mod alone;
mod notes;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{DomainName, InstanceId};
use keymill_core::instance::{Instance, Networks, TokenShare};
use keymill_core::seam::store::Store;
use keymill_runtime::engine::{Bootstrap, Root};
use keymill_runtime::scoped::Scoped;
use keymill_runtime::{Ceilings, ConnectError, Engine, EngineConfig, Gate, InstanceHost, Parts};
use parking_lot::{Mutex, RwLock};

use crate::config::{Config, Isolation};
use crate::failure::Failure;
use crate::plugins;
use crate::tokens::{Domain, TokenTurns, Tokens};
use alone::Alone;
use notes::Notes;

/// Computes two CMACs by the root MAC key of the installation.
pub(crate) type Derive = Arc<dyn Fn([[u8; 16]; 2]) -> std::result::Result<Sensitive, String> + Send + Sync>;

/// How long the end of an instance waits for a start of it that is under way. A token that hangs may take longer.
const BEING_STARTED: Duration = Duration::from_secs(10);

/// Runs the instances.
pub(crate) struct Dedicated {
    config: Config,
    /// The engine options of the installation; that a history is accepted is none of them.
    engine: EngineConfig,
    /// Whether the operator's word was given that histories are accepted.
    accepts_history: bool,
    /// The instances that it is of, and that have not started since.
    to_accept: Mutex<HashSet<InstanceId>>,
    store: Arc<dyn Store>,
    derive: Derive,
    /// The turns at the tokens, which the engines take beside the installation's.
    turns: TokenTurns,
    /// What the installation's own tokens answer to the probe: instances without a domain of their own have of them.
    domain: Domain,
    /// The directory of the installation's audit.
    audit: PathBuf,
    networks: Networks,
    issuer: Option<String>,
    /// The ways in, for those who only look.
    gates: RwLock<HashMap<InstanceId, Gate>>,
    engines: Mutex<Engines>,
    /// Each is started or ended by one at a time.
    alone: Alone,
    /// Why instances did not start when that was tried last.
    notes: Notes,
}

/// The engines of the instances that run.
#[derive(Default)]
struct Engines {
    running: HashMap<InstanceId, Running>,
    /// Whether none is to run any more.
    is_over: bool,
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
        (turns, domain): (TokenTurns, Domain),
        audit: PathBuf,
    ) -> std::result::Result<Self, Failure> {
        let mut engine = config.engine()?;
        let cluster = engine.cluster.as_mut();
        let accepts_history = cluster.is_some_and(|cluster| std::mem::take(&mut cluster.accept_history));
        Ok(Self {
            engine,
            accepts_history,
            to_accept: Mutex::default(),
            networks: config.networks()?,
            issuer: config.issuer()?,
            config: config.clone(),
            store,
            derive,
            turns,
            domain,
            audit,
            gates: RwLock::default(),
            engines: Mutex::default(),
            alone: Alone::default(),
            notes: Notes::default(),
        })
    }

    /// Has the operator's word that histories are accepted, where it was given, be of these instances: those that there were then.
    pub(crate) fn accept_of(&self, instances: impl IntoIterator<Item = InstanceId>) {
        if self.accepts_history {
            self.to_accept.lock().extend(instances);
        }
    }

    /// Stops every engine, and has one that is yet being started end at once. The frontends are stopped before.
    pub(crate) fn stop(&self) {
        let running = {
            let mut engines = self.engines.lock();
            self.gates.write().clear();
            engines.is_over = true;
            std::mem::take(&mut engines.running)
        };
        // Together: each may wait for a store that is away.
        std::thread::scope(|scope| {
            running.into_values().for_each(|running| drop(scope.spawn(|| running.engine.stop())));
        });
    }

    fn parts(
        &self,
        instance: &Instance,
        root: Derive,
        tokens: Tokens,
    ) -> std::result::Result<Parts, Failure> {
        let audit = plugins::audit(&self.config.audit, &audit_of(&self.audit, &instance.id))?;
        let mut config = self.engine.of_instance(instance.id.clone(), &instance.terms);
        if let Some(cluster) = &mut config.cluster {
            cluster.accept_history = self.to_accept.lock().contains(&instance.id);
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
            .map_err(|failure| self.not_started(instance, ErrorKind::InstanceState, failure.to_string()))?;
        let mut tokens = tokens.not_again(self.notes.refusals(instance));
        if instance.domain.is_none() {
            tokens = tokens.of_same_domain(self.domain.clone());
        } else if first == First::Yes {
            hold(&mut tokens, &instance.terms.tokens)?;
        }
        Ok(tokens)
    }

    /// Says that an instance does not start; the log tells why, where that is news.
    fn not_started(&self, instance: &Instance, kind: ErrorKind, why: String) -> Error {
        if self.notes.failed(instance, &why, kind == ErrorKind::InstanceState) {
            tracing::error!(instance = %instance.id, why, "an instance does not start");
        }
        Error::new(kind, "the instance does not start")
    }

    fn run(&self, instance: &Instance, first: First) -> Result<Option<Bootstrap>> {
        let Some(_held) = self.alone.take(&instance.id, Duration::ZERO) else {
            return Err(Error::new(ErrorKind::Unavailable, "the instance is being started, or ended"));
        };
        if self.is_there(&instance.id)? {
            return Ok(None);
        }
        if self.notes.stays(instance) {
            return Err(Error::new(ErrorKind::InstanceState, "the instance does not start"));
        }
        // Without the lock of all: a token or the store may take its time, and is no matter to other instances.
        let started = self.begin(instance, first);
        let (running, bootstrap) = started?;
        let mut engines = self.engines.lock();
        if engines.is_over {
            drop(engines);
            running.engine.stop();
            return Err(over());
        }
        self.gates.write().insert(instance.id.clone(), running.engine.gate());
        engines.running.insert(instance.id.clone(), running);
        drop(engines);
        self.notes.forget(&instance.id);
        Ok(bootstrap)
    }

    /// Tells whether an instance runs.
    ///
    /// # Errors
    /// `Unavailable` where none is to run any more.
    fn is_there(&self, id: &InstanceId) -> Result<bool> {
        let engines = self.engines.lock();
        match engines.is_over {
            true => Err(over()),
            false => Ok(engines.running.contains_key(id)),
        }
    }

    /// Starts the engine of an instance; nobody else does.
    fn begin(&self, instance: &Instance, first: First) -> Result<(Running, Option<Bootstrap>)> {
        let stays = |why: String| self.not_started(instance, ErrorKind::InstanceState, why);
        let may_pass = |why: String| self.not_started(instance, ErrorKind::Unavailable, why);
        let mut tokens = self.tokens(instance, first)?;
        let root = self.root(instance, &mut tokens);
        self.notes.refused(instance, tokens.refusals());
        let root = root.map_err(|error| match error {
            ConnectError::Unavailable(why) => may_pass(why),
            ConnectError::Refused(why) => stays(why),
        })?;
        // A token may have taken so long that nobody wants it any more.
        self.is_there(&instance.id)?;
        let domain = tokens.domain();
        let parts = self.parts(instance, root, tokens).map_err(|failure| stays(failure.to_string()))?;
        // One that was made before has an access key that somebody knows: another would be a way in for nobody.
        let mut tell = |_: &Bootstrap| match first {
            First::Yes => Ok(()),
            First::No => Err("its access keys are missing from the store".to_owned()),
        };
        let started = Engine::start_telling(parts, &mut tell);
        let (engine, bootstrap) = started.map_err(|error| match error.may_pass() {
            true => may_pass(error.to_string()),
            false => stays(error.to_string()),
        })?;
        self.to_accept.lock().remove(&instance.id);
        Ok((Running { engine, domain }, bootstrap))
    }

    /// Stops the engine of an instance, where it runs.
    fn take_out(&self, id: &InstanceId) {
        let running = {
            let mut engines = self.engines.lock();
            // With it, so that nobody finds a way into what has gone.
            self.gates.write().remove(id);
            engines.running.remove(id)
        };
        if let Some(Running { engine, .. }) = running {
            engine.end();
        }
        self.notes.forget(id);
    }

    /// Returns what the tokens of an instance have to answer to the probe, as far as that is known.
    fn domain_of(&self, instance: &Instance) -> Option<[u8; 32]> {
        match &instance.domain {
            None => *self.domain.lock(),
            Some(_) => {
                let engines = self.engines.lock();
                engines.running.get(&instance.id).and_then(|running| *running.domain.lock())
            }
        }
    }
}

/// Says that no instance is started any more.
fn over() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is shutting down")
}

/// Connects tokens, and checks that they hold the domain that they are taken for.
fn hold(tokens: &mut Tokens, shares: &[TokenShare]) -> Result<()> {
    shares.iter().try_for_each(|TokenShare { name, .. }| match tokens.connect(name) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("Tokens: {name} cannot be had for the domain of the instance: {error}");
            let kind = match error {
                ConnectError::Refused(_) => ErrorKind::InvalidParameter,
                // It may be there later.
                ConnectError::Unavailable(_) => ErrorKind::Unavailable,
            };
            Err(Error::new(kind, why))
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
        let failed = |why: String| Error::new(ErrorKind::Unavailable, why);
        let asked = Tokens::of_instances(&self.config, instance.domain.as_ref());
        let known = self.domain_of(instance);
        // A copy: whatever is answered here says nothing of others.
        let domain = Domain::new(Mutex::new(known));
        let mut asked = asked.map_err(|failure| failed(failure.to_string()))?.of_same_domain(domain);
        hold(&mut asked, tokens)?;
        if known.is_some() || instance.domain.is_none() {
            return Ok(());
        }
        // It does not run, and none of its tokens was asked: what it keeps tells whose it is.
        let names = tokens.iter().map(|share| share.name.as_str());
        let derive = asked.first_of(names).map_err(|error| failed(error.to_string()))?.into_derive();
        let mut root = Root::Token(Box::new(move |messages| derive(messages)));
        match root.opens(&Scoped::of(self.store.clone(), &instance.id), &instance.id) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let why =
                    "Tokens: what the instance keeps does not open by the keys of the domain that these hold";
                Err(Error::new(ErrorKind::InvalidParameter, why))
            }
            Err(error) => Err(failed(error.to_string())),
        }
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

    fn forget(&self, id: &InstanceId) {
        self.notes.forget(id);
    }

    fn change(&self, instance: &Instance) {
        if let Some(gate) = self.gate(&instance.id) {
            gate.keep_to(&Ceilings::of(&instance.terms, &self.engine));
            gate.keep_pool(&instance.terms);
        }
    }

    fn leave(&self, id: &InstanceId) {
        if self.is_there(id).unwrap_or(false) {
            // Nobody starts it anew before it has ended.
            let _held = self.alone.take(id, BEING_STARTED);
            self.take_out(id);
        }
    }

    fn running(&self) -> Vec<InstanceId> {
        self.gates.read().keys().cloned().collect()
    }

    fn release(&self, id: &InstanceId) -> Result<()> {
        // What is started meanwhile would write where all is removed.
        let Some(_held) = self.alone.take(id, BEING_STARTED) else {
            let why = "the instance is being started, which takes long: release it once more in a while";
            return Err(Error::new(ErrorKind::Unavailable, why));
        };
        self.take_out(id);
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

#[cfg(test)]
mod tests;
