//! The leases of a node: that of its name, without which it does not start, and that of the timers, which one node at a time has. One that finds the
//! store to be of another history gives up the timers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keymill_core::id::NodeName;
use keymill_core::seam::store::{Path, Store, StoreError};

use super::{AsOf, Cluster};
use crate::engine::EngineError;
use crate::records;
use crate::shared::Shared;

/// Renewals within the time of a lease.
const RENEWALS: u32 = 3;
/// How long it is asked again for a name that another has, beyond the time of a lease.
const BEYOND: Duration = Duration::from_secs(3);
/// How long between two tries to have a name, or two looks for what others say.
pub(super) const AGAIN: Duration = Duration::from_millis(250);

fn timers_path() -> Path {
    records::prefix("timers")
}

fn founding_path() -> Path {
    records::prefix("founding")
}

/// Takes the name of a node. One of that name that ended without giving it back has it until its lease is over.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn take_name(
    store: &dyn Store,
    node: &NodeName,
    process: &str,
    lease: Duration,
) -> Result<(), EngineError> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match store.lease(&records::node_path(node), process, lease) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if began.elapsed() > lease + BEYOND => {
                // That one may end.
                return Err(EngineError::passing(format!(
                    "another server named {node} uses this store: give each its own name by engine.node"
                )));
            }
            Ok(None) if !is_told => {
                is_told = true;
                tracing::info!(%node, "a server of this name had the store until a moment ago: its lease is waited for");
            }
            Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(AGAIN);
    }
}

/// Makes the first start on an empty store one node's alone: two would make two first access keys.
pub(crate) struct Founding<'a> {
    store: &'a dyn Store,
    process: &'a str,
}

impl<'a> Founding<'a> {
    /// Waits for its turn, where the store was never started on.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn begin(store: &'a dyn Store, process: &'a str) -> Result<Option<Self>, EngineError> {
        const TIME: Duration = Duration::from_secs(60);
        let began = Instant::now();
        loop {
            if store.get(&records::installation_path())?.is_some() {
                return Ok(None);
            }
            if store.lease(&founding_path(), process, TIME)?.is_some() {
                // It may have been founded between the look and the lease.
                let is_founded = store.get(&records::installation_path())?.is_some();
                let founding = Self { store, process };
                return Ok((!is_founded).then_some(founding));
            }
            if began.elapsed() > TIME {
                let why = "another server has been starting on this empty store for a minute";
                return Err(EngineError::passing(why));
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Drop for Founding<'_> {
    fn drop(&mut self) {
        // Where that fails it ends by itself.
        let _ends = self.store.lease(&founding_path(), self.process, Duration::ZERO);
    }
}

/// The thread that renews the leases.
pub(crate) struct Member {
    stop: flume::Sender<()>,
    thread: JoinHandle<()>,
}

impl Member {
    /// Starts it; the name was taken before.
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (stop, stopped) = flume::bounded(1);
        let shared = shared.clone();
        let run = move || {
            let Some(cluster) = &shared.cluster else { return };
            let mut renewal = Renewal { shared: &shared, cluster, is_failing: false };
            loop {
                renewal.go();
                let pause = cluster.config.lease / RENEWALS;
                if !matches!(stopped.recv_timeout(pause), Err(flume::RecvTimeoutError::Timeout)) {
                    break;
                }
            }
            renewal.give_back();
        };
        let thread = std::thread::Builder::new().name("km-member".into()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Has the leases given back; returns the thread that does.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        let _ended = self.stop.send(());
        self.thread
    }
}

struct Renewal<'a> {
    shared: &'a Shared,
    cluster: &'a Cluster,
    is_failing: bool,
}

impl Renewal<'_> {
    fn go(&mut self) {
        if self.cluster.view.is_copied() {
            // The other one has what both take for their own.
            self.cluster.tenure.set(None);
            return;
        }
        let asked = self.name().and_then(|()| self.timers());
        match asked {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "the leases of this node cannot be renewed");
                }
            }
        }
    }

    fn ask(&self, name: &Path) -> Result<bool, StoreError> {
        let Cluster { process, config, .. } = self.cluster;
        self.shared.store.lease(name, process, config.lease).map(|lease| lease.is_some())
    }

    fn name(&self) -> Result<(), StoreError> {
        let is_ours = self.ask(&records::node_path(&self.cluster.node))?;
        if self.cluster.view.displace(!is_ours) {
            let node = &self.cluster.node;
            match is_ours {
                true => tracing::info!(%node, "this node has its name again"),
                false => {
                    tracing::error!(%node, "another server has taken the name of this node: no key is used here until it is free")
                }
            }
        }
        Ok(())
    }

    fn timers(&self) -> Result<(), StoreError> {
        if self.cluster.view.is_forked() {
            // Nothing is done by the clock by what this node knows, nor is it kept from who is started by an operator's word.
            return if self.cluster.tenure.set(None) { self.leave(&timers_path()) } else { Ok(()) };
        }
        // From before it was asked: so it ends here before another can begin.
        let from = AsOf::now(&self.shared.clock);
        let held = self.ask(&timers_path())?.then_some((from, self.cluster.config.lease));
        let had = self.cluster.tenure.set(held);
        match (had, held.is_some()) {
            (false, true) => tracing::info!("what happens by the clock is done by this node"),
            (true, false) => tracing::info!("what happens by the clock is done by another node"),
            _ => {}
        }
        Ok(())
    }

    fn leave(&self, name: &Path) -> Result<(), StoreError> {
        self.shared.store.lease(name, &self.cluster.process, Duration::ZERO).map(drop)
    }

    /// Lets others have at once what they had to wait for.
    fn give_back(&self) {
        let had = self.cluster.tenure.set(None);
        if self.cluster.gives_up() || self.cluster.view.is_copied() {
            return;
        }
        for name in had.then(timers_path).into_iter().chain([records::node_path(&self.cluster.node)]) {
            if let Err(error) = self.leave(&name) {
                tracing::debug!(%error, "a lease was not given back: it ends by itself");
                return;
            }
        }
    }
}
