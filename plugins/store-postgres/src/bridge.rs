//! From the threads of the engine, which wait, to a small runtime of our own, which drives the connections. A thread may belong to
//! another runtime: nothing here is tokio's `block_on`, which would panic there.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;

/// The runtime, as long as the store lives.
pub(crate) struct Bridge {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Bridge {
    /// Starts it: one thread for all connections, since they wait for the server most of the time.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("km-postgres")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Returns what tasks are started by.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits on this thread for a future, until a moment at most.
    pub(crate) fn wait_until<F: Future>(&self, until: Instant, future: F) -> Result<F::Output, Elapsed> {
        // Within, since a timer is made where the runtime is.
        self.wait(async { timeout_at(until.into(), future).await })
    }

    /// Waits on this thread for a future, whatever the thread is.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        // On a thread of another runtime its budget would run out in the middle, and no future of tokio's would ever be ready again.
        let mut future = pin!(tokio::task::unconstrained(future));
        let sleeper = Arc::new(Sleeper::default());
        let waker = Waker::from(sleeper.clone());
        loop {
            // Timers and sockets are of our runtime. The guard is gone before anybody else's code runs on the thread.
            let polled = {
                let _entered = self.handle.enter();
                future.as_mut().poll(&mut Context::from_waker(&waker))
            };
            match polled {
                Poll::Ready(output) => return output,
                Poll::Pending => sleeper.sleep(),
            }
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // A plain drop waits for the threads, which panics on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Default)]
struct Sleeper {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Sleeper {
    fn sleep(&self) {
        let mut is_woken = self.is_woken.lock();
        while !*is_woken {
            self.woken.wait(&mut is_woken);
        }
        *is_woken = false;
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.is_woken.lock() = true;
        self.woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_of_another_runtime_may_wait_longer_than_its_budget() {
        let other = Builder::new_current_thread().build().expect("a runtime");
        other.block_on(async {
            let bridge = Bridge::start().expect("a runtime");
            for i in 0..500 {
                let slept = bridge.wait(async {
                    tokio::time::sleep(Duration::from_micros(10)).await;
                    i
                });
                assert_eq!(slept, i);
            }
        });
    }
}
