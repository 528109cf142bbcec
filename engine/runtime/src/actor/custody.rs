//! The software lane's workers: threads that take jobs on the life of keys (later also private-key work) from their lane.

use std::sync::Arc;
use std::time::Instant;

use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::AccessKeyId;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::StoredKey;
use tokio::sync::oneshot;

use crate::lane::Lane;
use crate::ready::{Divisible, Part};
use crate::shared::Shared;

/// Key material to be generated.
pub(crate) struct CustodyJob {
    pub(crate) spec: KeySpec,
    pub(crate) usage: KeyUsage,
    pub(crate) bulk_mode: Option<BulkMode>,
    pub(crate) deadline: Instant,
    pub(crate) principal: Arc<AccessKeyId>,
    /// Sessions that could not do it.
    pub(crate) attempts: u32,
    pub(crate) reply: oneshot::Sender<Result<StoredKey>>,
}

impl Divisible for CustodyJob {
    fn part(&self, _budget: u64) -> Part {
        Part { items: 1, cost: 1, last: true }
    }
}

/// A worker of the software lane, on a thread of its own.
pub(crate) struct CustodyActor {
    shared: Arc<Shared>,
    lane: Arc<Lane<Arc<AccessKeyId>, CustodyJob>>,
}

impl CustodyActor {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        lane: &Arc<Lane<Arc<AccessKeyId>, CustodyJob>>,
        number: usize,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let actor = Self { shared: shared.clone(), lane: lane.clone() };
        lane.join();
        std::thread::Builder::new().name(format!("km-custody-{number}")).spawn(move || actor.run())
    }

    fn run(self) {
        let mut batch = Vec::new();
        loop {
            self.lane.take(&mut batch);
            if batch.is_empty() {
                self.lane.leave();
                return;
            }
            for job in batch.drain(..) {
                // Expired and abandoned jobs are dropped before they reach the provider.
                if job.reply.is_closed() {
                    continue;
                }
                let outcome = if Instant::now() >= job.deadline {
                    Err(Error::new(ErrorKind::Deadline, "not done within the time allowed"))
                } else {
                    self.shared
                        .custody
                        .lock()
                        .generate(job.spec, job.usage, job.bulk_mode)
                        .map_err(Error::from)
                };
                let _gone = job.reply.send(outcome);
            }
        }
    }
}
