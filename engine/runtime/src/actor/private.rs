//! Workers of the software lane: threads that use software keys where that would hold up an arbiter. They take chunks as sessions of tokens
//! do, and give back each done, or with the fault that kept it from that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::error::{Error, ErrorKind};
use keymill_core::seam::provider::CryptoSession;

use crate::lane::Taken;
use crate::pool::chunk::{Chunk, Work, call, send_home};
use crate::shared::Shared;
use crate::work::{Fault, Served};

/// How long a worker sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(60);
/// Chunks that a worker takes at a time: what waits behind them could be done by another.
const BATCH: usize = 4;

/// A worker of the software lane, on a thread of its own.
pub(crate) struct PrivateActor {
    shared: Arc<Shared>,
    number: usize,
    session: Box<dyn CryptoSession>,
}

impl PrivateActor {
    /// Starts a worker.
    ///
    /// # Errors
    /// A sentence, where the provider gives no session or the system no thread.
    pub(crate) fn start(shared: &Arc<Shared>, number: usize) -> Result<std::thread::JoinHandle<()>, String> {
        let session = shared.provider.open_session().map_err(|error| error.to_string())?;
        let actor = Self { shared: shared.clone(), number, session };
        let builder = std::thread::Builder::new().name(format!("km-software-{number}"));
        let started = builder.spawn(move || actor.run()).map_err(|error| error.to_string())?;
        shared.software.join(0);
        Ok(started)
    }

    fn run(mut self) {
        let mut batch = Vec::new();
        while !self.shared.crew.lets_go(self.number) {
            match self.shared.clone().software.take_within(0, IDLE, BATCH, &mut batch) {
                Taken::Closed => break,
                Taken::Idle => {}
                Taken::Batch => {
                    // To make a pair of RSA takes a thousand times as long as to use one.
                    batch.sort_by_key(|chunk| matches!(chunk.work, Work::Pair(_)));
                    for mut chunk in batch.drain(..) {
                        if let Err(fault) = self.do_chunk(&mut chunk) {
                            chunk.fault = Some(fault);
                        }
                        // One by one: who waits for the first need not wait for the others.
                        send_home(vec![chunk]);
                    }
                }
            }
        }
        self.shared.software.leave(0);
    }

    fn do_chunk(&mut self, chunk: &mut Chunk) -> Result<(), Fault> {
        // Expired and abandoned chunks are dropped before they reach the provider.
        if chunk.cancel.is_cancelled() || Instant::now() >= chunk.deadline {
            return Err(Error::new(ErrorKind::Deadline, "not done within the time allowed").into());
        }
        chunk.served.add(Served::SOFTWARE);
        // A library that panics over a key or an item takes neither the thread with it nor the request.
        let called = catch_unwind(AssertUnwindSafe(|| {
            if let Work::Pair(job) = &mut chunk.work {
                return job.make(&*self.shared.provider);
            }
            let handle = self.shared.handle(&chunk.entry, &chunk.version)?;
            call(&mut *self.session, &handle, &mut chunk.work).map_err(|lost| {
                let error = Error::new(ErrorKind::Unavailable, "the crypto session was lost");
                Fault::from(error.caused_by(lost.reason))
            })
        }));
        called.unwrap_or_else(|_panic| Err(Error::internal("the crypto library panicked").into()))
    }
}
