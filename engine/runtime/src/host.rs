//! The seam to whoever runs the engines of instances: the program that put the installation's engine together makes others like it. The engine
//! of the installation keeps the records of its instances, and asks here for what they come to.

mod starter;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{DomainName, InstanceId};
use keymill_core::instance::{Instance, Networks, Stage, TokenShare};
use tokio::sync::{Mutex, MutexGuard, oneshot};

use crate::engine::Bootstrap;
use crate::gate::Gate;
use crate::shared::Shared;
use starter::{Starter, Tried};

/// Runs the engines of instances. Its methods may take long, but for those that only look.
pub trait InstanceHost: Send + Sync {
    /// Returns the networks that the configuration names.
    fn networks(&self) -> &Networks;
    /// Finds the way into an instance that runs.
    fn gate(&self, id: &InstanceId) -> Option<Gate>;
    /// Checks that an instance of a domain may have these tokens, by what the configuration says of them.
    ///
    /// # Errors
    /// `ResourceNotFound` for one that the configuration does not name, `Unsupported` for one that two engines cannot share safely, or that is of
    /// another domain.
    fn check_tokens(&self, domain: Option<&DomainName>, tokens: &[TokenShare]) -> Result<()>;
    /// Checks that tokens hold the domain of an instance that runs, where it has one of its own: each is connected for it.
    ///
    /// # Errors
    /// `Unsupported` for one that does not, `Unavailable` for one that cannot be asked.
    fn check_domain(&self, instance: &Instance, tokens: &[TokenShare]) -> Result<()>;
    /// Returns what clients trust as the issuer of the server's certificate, in PEM.
    fn issuer(&self) -> Option<&str>;
    /// Starts the engine of a new instance, and returns its first access key.
    ///
    /// # Errors
    /// As of [`start`](Self::start); nothing of it runs then.
    fn create(&self, instance: &Instance) -> Result<Bootstrap>;
    /// Starts the engine of an instance that was made before, unless it runs. Of one it is done by one at a time.
    ///
    /// # Errors
    /// `Unavailable` where it may start later: its token or the store is away, or it is being started already. `InstanceState` where an operator has to
    /// act first, as where a token refused its PIN: by the same terms it is not tried again.
    fn start(&self, instance: &Instance) -> Result<()>;
    /// Forgets why an instance did not start: what refused to may be tried again.
    fn forget(&self, id: &InstanceId);
    /// Has a running instance keep to other terms: its ceilings, its tokens and their sessions, its software workers. It returns at once, and what is
    /// new serves within moments.
    fn change(&self, instance: &Instance);
    /// Stops the engine of an instance that another node releases, where it runs.
    fn leave(&self, id: &InstanceId);
    /// Lists the instances that run.
    fn running(&self) -> Vec<InstanceId>;
    /// Stops the engine of an instance, where it runs, and removes every record of it; its audit stays.
    ///
    /// # Errors
    /// `StoreUnavailable` where records are left; the same may be done again.
    fn release(&self, id: &InstanceId) -> Result<()>;
}

/// The host of an installation, where it has one, and whose turn it is.
#[derive(Default)]
pub(crate) struct Hosting {
    host: OnceLock<Arc<dyn InstanceHost>>,
    /// One instance is made or released at a time.
    turn: Mutex<()>,
    /// The terms of one instance are changed at a time.
    terms: Mutex<()>,
    /// What runs is told of terms by one at a time.
    telling: parking_lot::Mutex<()>,
    /// Starts what may take long, and what did not start.
    starter: Arc<Starter>,
    /// Bumped whenever other requests than before reach an instance.
    version: AtomicU64,
}

impl Hosting {
    /// Takes the host; the first one stays.
    pub(crate) fn set(&self, host: Arc<dyn InstanceHost>) {
        let _set_once = self.host.set(host);
    }

    /// Returns the host, where there is one.
    pub(crate) fn host(&self) -> Option<&Arc<dyn InstanceHost>> {
        self.host.get()
    }

    /// Returns the host.
    ///
    /// # Errors
    /// `Unsupported` where this engine has no instances.
    pub(crate) fn need(&self) -> Result<&Arc<dyn InstanceHost>> {
        self.host().ok_or_else(|| Error::new(ErrorKind::Unsupported, "there are no instances here"))
    }

    /// Takes the turn to make or release an instance.
    ///
    /// # Errors
    /// `Busy` while another is made or released.
    pub(crate) fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        self.turn.try_lock().map_err(|_| {
            Error::new(ErrorKind::Busy, "another instance is made or released just now").retry_after_ms(1_000)
        })
    }

    /// Waits for the turn to change the terms of an instance.
    pub(crate) async fn turn_of_terms(&self) -> MutexGuard<'_, ()> {
        self.terms.lock().await
    }

    /// Starts no instance any more.
    pub(crate) fn end(&self) {
        self.starter.end();
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn bump(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// Does what takes long on a thread of its own. Who calls has the turn, so that there is one.
///
/// # Errors
/// Those of `work`, and `Unavailable` where there is no thread to be had.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("km-instance".into());
    let unavailable = || Error::new(ErrorKind::Unavailable, "there is no thread for the instance");
    thread
        .spawn(move || {
            let _gone = sender.send(work());
        })
        .map_err(|error| unavailable().caused_by(error))?;
    done.await.map_err(|_| Error::internal("the work on an instance ended without an outcome"))?
}

/// Starts an instance, and has it tried again where it does not start. One whose keys derive by tokens of its own, which may hang, is started beside
/// all else.
pub(crate) fn start(shared: &Arc<Shared>, instance: &Instance) {
    if instance.domain.is_some() || attempt(shared, &instance.id) == Tried::Again {
        want(shared, &instance.id);
    }
}

/// Has an instance started as soon as that can be done.
pub(crate) fn want(shared: &Arc<Shared>, id: &InstanceId) {
    let (of, which) = (shared.clone(), id.clone());
    shared.hosting.starter.want(id, move || attempt(&of, &which));
}

/// Tries to start an instance, if it is to run at all.
fn attempt(shared: &Shared, id: &InstanceId) -> Tried {
    let Some(host) = shared.hosting.host() else { return Tried::Settled };
    let made = || {
        let book = shared.instances.read();
        book.instance(id).filter(|instance| instance.stage == Stage::Made).cloned()
    };
    let Some(instance) = made() else { return Tried::Settled };
    match host.start(&instance) {
        Ok(()) => {
            if made().is_none() {
                // It was released while it started, when there was nothing yet to stop.
                host.leave(id);
            }
            shared.hosting.bump();
            // What was changed while it started.
            tell_running(shared, id);
            Tried::Settled
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => Tried::Again,
        Err(_) => Tried::Settled,
    }
}

/// Has an instance keep to its terms as they are published now, so that of several changes the order does not matter. One that does not run is tried
/// once more: what it waits for may be what was changed.
pub(crate) fn tell_terms(shared: &Arc<Shared>, id: &InstanceId) {
    if let Some(host) = shared.hosting.host()
        && !tell_running(shared, id)
    {
        host.forget(id);
        want(shared, id);
    }
}

/// Has an instance that runs keep to its terms, and tells whether it does run.
fn tell_running(shared: &Shared, id: &InstanceId) -> bool {
    let Some(host) = shared.hosting.host() else { return true };
    let _one = shared.hosting.telling.lock();
    let known = shared.instances.read().instance(id).cloned();
    if let Some(instance) = known {
        host.change(&instance);
    }
    host.gate(id).is_some()
}

/// Has what runs be what is published, after another node has changed that: on a thread of its own, and as it is published then, so that of several
/// the order does not matter.
pub(crate) fn reconcile(shared: &Arc<Shared>) {
    let shared = shared.clone();
    let run = move || {
        let Some(host) = shared.hosting.host() else { return };
        let known = shared.instances.read().clone();
        for instance in known.instances().filter(|instance| instance.stage == Stage::Made) {
            // Whoever has changed it may have done what it waits for.
            if !tell_running(&shared, &instance.id) {
                want(&shared, &instance.id);
            }
        }
        let running = host.running();
        // As it is by now: one that was made meanwhile stands there before it runs.
        let book = shared.instances.read().clone();
        let is_over = |id: &InstanceId| book.instance(id).is_none_or(|known| known.stage == Stage::Ending);
        running.iter().filter(|id| is_over(id)).for_each(|id| host.leave(id));
        shared.hosting.bump();
    };
    if let Err(error) = std::thread::Builder::new().name("km-instance".into()).spawn(run) {
        tracing::error!(%error, "there is no thread for the instances of other nodes");
    }
}
