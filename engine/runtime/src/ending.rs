//! How an engine ends while its store is away. What can be written is written; nothing is waited for that cannot, since whoever stops a server waits
//! for it, and kills it in the end.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::AsOf;
use crate::shared::Shared;

/// How long is waited for a store that is away, all in all.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often it is looked whether it is worth to wait.
const LOOK: Duration = Duration::from_millis(20);

/// The end of an engine.
pub(crate) struct Ending<'a> {
    shared: &'a Shared,
    until: Instant,
    /// Whether the store is away, once nobody looks for it any more.
    is_settled: Option<bool>,
}

impl<'a> Ending<'a> {
    pub(crate) fn begin(shared: &'a Shared) -> Self {
        Self { shared, until: Instant::now() + PATIENCE, is_settled: None }
    }

    /// Tells whether the store is away; then nothing is asked of it from here on.
    pub(crate) fn is_store_away(&self) -> bool {
        let Some(cluster) = &self.shared.cluster else { return false };
        let is_away = self.is_settled.unwrap_or_else(|| {
            let view = &cluster.view;
            cluster.gives_up() || view.is_forked() || view.is_behind(AsOf::now(&self.shared.clock))
        });
        if is_away {
            cluster.give_up();
        }
        is_away
    }

    /// Keeps to what is known of the store: it is not watched any more.
    pub(crate) fn settle(&mut self) {
        self.is_settled = Some(self.is_store_away());
    }

    fn is_over(&self) -> bool {
        self.is_store_away() && Instant::now() >= self.until
    }

    /// Waits for an answer; none where it hangs on a store that is away.
    pub(crate) fn wait<T>(&self, answer: &flume::Receiver<T>) -> Option<T> {
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Some(answer),
                Err(flume::RecvTimeoutError::Disconnected) => return None,
                Err(flume::RecvTimeoutError::Timeout) if self.is_over() => return None,
                Err(flume::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for the end of a thread; one that hangs on a store that is away is left behind.
    pub(crate) fn join(&self, thread: JoinHandle<()>) {
        while !thread.is_finished() {
            if self.is_over() {
                let name = thread.thread().name().unwrap_or_default();
                return tracing::warn!(
                    name,
                    "a thread waits for the store, which is away: it is left behind"
                );
            }
            std::thread::sleep(LOOK / 10);
        }
        if let Err(panicked) = thread.join() {
            drop(panicked);
            tracing::error!("a thread of the engine panicked");
        }
    }
}
