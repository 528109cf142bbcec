//! Starts instances again that did not start, as where the token that their keys derive by was away: one thread, as long as there are any, with a
//! pause between its rounds that grows up to a bound.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use keymill_core::error::ErrorKind;
use keymill_core::id::InstanceId;
use keymill_core::instance::Stage;
use parking_lot::{Condvar, Mutex};

use crate::shared::Shared;

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Starts instances later.
#[derive(Default)]
pub(crate) struct Starter {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that are to be started.
    wanted: BTreeSet<InstanceId>,
    is_over: bool,
    thread: Option<JoinHandle<()>>,
}

impl Starter {
    /// Has an instance started as soon as that can be done.
    pub(crate) fn want(&self, shared: &Arc<Shared>, id: &InstanceId) {
        let mut state = self.state.lock();
        state.wanted.insert(id.clone());
        // Whoever wants it may have done what it waits for: it is tried at once.
        self.changed.notify_all();
        if state.is_over || state.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let shared = shared.clone();
        let thread = std::thread::Builder::new().name("km-starter".into());
        match thread.spawn(move || shared.hosting.starter.run(&shared)) {
            Ok(thread) => state.thread = Some(thread),
            Err(error) => tracing::error!(%error, "there is no thread to start instances later"),
        }
    }

    /// Starts nothing any more, and waits for what is being started.
    pub(crate) fn end(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.is_over = true;
            state.thread.take()
        };
        self.changed.notify_all();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that starts instances panicked");
        }
    }

    fn run(&self, shared: &Shared) {
        let mut pause = PAUSES.0;
        while let Some(wanted) = self.due(pause) {
            pause = (2 * pause).min(PAUSES.1);
            for id in wanted {
                if self.is_settled(shared, &id) {
                    self.state.lock().wanted.remove(&id);
                }
            }
        }
    }

    /// Waits for so long, and returns what is to be started then; `None` where there is nothing, or nothing more is to be.
    fn due(&self, pause: Duration) -> Option<Vec<InstanceId>> {
        let mut state = self.state.lock();
        if !state.is_over && !state.wanted.is_empty() {
            self.changed.wait_for(&mut state, pause);
        }
        if state.is_over || state.wanted.is_empty() {
            // Under the lock, so that whoever wants another finds it gone.
            drop(state.thread.take());
            return None;
        }
        Some(state.wanted.iter().cloned().collect())
    }

    /// Tries to start an instance, and tells whether it is not to be tried again.
    fn is_settled(&self, shared: &Shared, id: &InstanceId) -> bool {
        let Some(host) = shared.hosting.host() else { return true };
        let found = shared.instances.read().instance(id).cloned();
        let Some(instance) = found.filter(|instance| instance.stage == Stage::Made) else { return true };
        match host.start(&instance) {
            Ok(()) => {
                tracing::info!(instance = %id, "the instance runs now");
                shared.hosting.bump();
                // What was changed meanwhile.
                super::tell_running(shared, id);
                true
            }
            Err(error) => error.kind() != ErrorKind::Unavailable,
        }
    }
}
