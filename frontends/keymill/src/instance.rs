//! An engine with its frontends in this process: what `serve` and `demo` both start and stop, in the same order.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_crypto::derived::cmac_pair;
use keymill_runtime::engine::Bootstrap;
use keymill_runtime::frontend::Stopper;
use keymill_runtime::{Engine, Frontend, FrontendError, Gate, StopSignal};

use crate::config::{Config, Places, RootKind};
use crate::dedicated::{Dedicated, Derive};
use crate::failure::{Failure, Result};
use crate::root::{self, Existing, Root};
use crate::tokens::{TokenTurns, Tokens};
use crate::{migrate, plugins};

/// A running engine and the threads of its frontends.
pub(crate) struct Instance {
    engine: Engine,
    stopper: Stopper,
    signal: StopSignal,
    frontends: Vec<(&'static str, JoinHandle<()>)>,
    dedicated: Arc<Dedicated>,
}

/// A frontend ended before it was told to.
pub(crate) struct Ended {
    /// Its name.
    pub(crate) name: &'static str,
    /// Why.
    pub(crate) outcome: Result<(), FrontendError>,
}

/// What a start found and made.
pub(crate) struct Started {
    /// The engine, without frontends yet.
    pub(crate) instance: Instance,
    /// The first access key, where this was the first start.
    pub(crate) bootstrap: Option<Bootstrap>,
    /// Whether the root file was made just now.
    pub(crate) is_new_root: bool,
}

/// The places of an instance, which this process alone has from here on.
pub(crate) struct Taken {
    store: Arc<dyn Store>,
    audit: Arc<dyn AuditLog>,
    /// Whether they were used before.
    pub(crate) existing: Existing,
}

impl Taken {
    /// Opens the store, whose lock keeps a second process away, and the audit.
    pub(crate) fn take(config: &Config, places: &Places) -> Result<Self> {
        if config.root.kind == RootKind::File {
            root::check_apart(&places.root, &places.data)?;
        }
        let store = plugins::store(&config.store, &places.data)?;
        migrate::refuse_unfinished(&*store)?;
        let audit = plugins::audit(&config.audit, &places.audit)?;
        let is_unused = store.revision().map_err(Failure::because("store"))?.0 == 0
            && audit.chains().map_err(Failure::because("audit"))?.is_empty();
        let existing = if is_unused { Existing::Nothing } else { Existing::Data };
        Ok(Self { store, audit, existing })
    }
}

impl Instance {
    /// Reads the root, or makes it at the first start, and starts the engine.
    pub(crate) fn start(
        config: &Config,
        places: &Places,
        taken: Taken,
        tell: &mut dyn FnMut(&Bootstrap) -> Result<()>,
    ) -> Result<Started> {
        let mut tokens = Tokens::of(config)?;
        let (root, is_new_root) = match config.root.kind {
            RootKind::File => {
                let Root { keys, is_new } = root::open_or_make(&places.root, taken.existing)?;
                let derive: Derive = Arc::new(move |messages| Ok(cmac_pair(&keys.mac, messages)));
                (derive, is_new)
            }
            RootKind::Pkcs11 => (tokens.root()?, false),
        };
        let turns = TokenTurns::of(config);
        let shared = (turns.clone(), tokens.domain());
        let dedicated =
            Dedicated::of(config, taken.store.clone(), root.clone(), shared, places.audit.clone())?;
        let parts = keymill_runtime::Parts {
            config: config.engine()?,
            clock: keymill_runtime::clock::Clock::default(),
            store: taken.store,
            provider: plugins::provider(&config.provider)?,
            authenticators: plugins::authenticators()?,
            audit: plugins::audit_beside(config, taken.audit)?,
            tokens: tokens.parts(&turns, config.engine.weight),
            root: keymill_runtime::engine::Root::Token(Box::new(move |messages| root(messages))),
            node: config.engine.node.clone(),
        };
        let mut untold = None;
        let started = Engine::start_telling(parts, &mut |bootstrap| {
            tell(bootstrap).map_err(|failure| {
                untold = Some(failure);
                "it could not be told".to_owned()
            })
        });
        let (engine, bootstrap) = match (started, untold) {
            (Err(_), Some(failure)) => return Err(failure),
            (started, _) => started.map_err(Failure::because("the engine does not start"))?,
        };
        let (stopper, signal) = Stopper::new();
        let dedicated = Arc::new(dedicated);
        dedicated.accept_of(engine.instances());
        engine.host(dedicated.clone());
        let instance = Self { engine, stopper, signal, frontends: Vec::new(), dedicated };
        Ok(Started { instance, bootstrap, is_new_root })
    }

    /// Returns the way in.
    pub(crate) fn gate(&self) -> Gate {
        self.engine.gate()
    }

    /// Runs a frontend on a thread of its own; its end is told to `ended`.
    pub(crate) fn run<F: Frontend + 'static>(
        &mut self,
        frontend: F,
        ended: impl FnOnce(Ended) + Send + 'static,
    ) -> Result<()> {
        let (gate, stop, name) = (self.engine.gate(), self.signal.clone(), frontend.name());
        let run = move || {
            let outcome = Box::new(frontend).run(gate, stop);
            ended(Ended { name, outcome });
        };
        let spawned = std::thread::Builder::new().name(format!("km-{name}")).spawn(run);
        let thread =
            spawned.map_err(|error: io::Error| Failure::new(format!("thread of {name}: {error}")))?;
        self.frontends.push((name, thread));
        Ok(())
    }

    /// Has the frontends finish what they accepted, then stops the engine.
    pub(crate) fn stop(self) {
        self.stopper.stop();
        for (name, thread) in self.frontends {
            if thread.join().is_err() {
                tracing::error!(frontend = name, "the frontend panicked");
            }
        }
        self.engine.end_hosting();
        self.dedicated.stop();
        self.engine.stop();
    }
}
