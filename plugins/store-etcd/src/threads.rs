//! Where the asynchronous library meets the seam, which blocks: two threads of our own run it, and callers wait on a plain channel, so that
//! they may be threads of whatever runtime.

use std::future::Future;
use std::io;

use flume::Receiver;
use keymill_core::seam::store::StoreError;
use tokio::runtime::{Builder, Handle, Runtime};

const THREADS: usize = 2;
/// Threads that look up names; the system's way to do it blocks.
const LOOK_UPS: usize = 4;

/// The threads that talk to etcd.
pub(crate) struct Threads(Option<Runtime>);

/// An answer that is under way.
pub(crate) struct Pending<T>(Receiver<T>);

impl Threads {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(LOOK_UPS)
            .thread_name("km-etcd")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is there until the drop").handle()
    }

    /// Begins work; it ends by itself, whether somebody waits for it or not.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Pending<T> {
        let (tell, told) = flume::bounded(1);
        self.handle().spawn(async move {
            let _nobody_waits = tell.send(work.await);
        });
        Pending(told)
    }

    /// Does work, and waits for it.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.begin(work).wait()?
    }
}

impl<T> Pending<T> {
    /// Waits for the answer; all work is bounded in time by itself.
    pub(crate) fn wait(self) -> Result<T, StoreError> {
        self.0.recv().map_err(|_| StoreError::Unavailable("a thread that talks to etcd has panicked".into()))
    }

    /// Waits for the answer for a while.
    pub(crate) fn wait_for(self, time: std::time::Duration) -> Option<T> {
        self.0.recv_timeout(time).ok()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Whoever drops the store may be a thread of another runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
