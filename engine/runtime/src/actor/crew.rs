//! The crew of the software lane: as many workers as are wanted, which come and go while the engine runs. One that is too many leaves when it has
//! done what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::private::PrivateActor;
use crate::shared::Shared;

/// The workers of an engine.
#[derive(Default)]
pub(crate) struct Crew {
    /// Workers have numbers below it.
    wanted: AtomicUsize,
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    at_work: Vec<(usize, JoinHandle<()>)>,
    /// Those that were too many: they end, if they have not.
    left: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Has so many workers from now on.
    ///
    /// # Errors
    /// A sentence, where one cannot be started; there are fewer then.
    pub(crate) fn keep_to(&self, shared: &Arc<Shared>, wanted: usize) -> Result<(), String> {
        let mut workers = self.workers.lock();
        self.wanted.store(wanted, Ordering::Release);
        workers.left.retain(|thread| !thread.is_finished());
        for number in 0..wanted {
            if workers.at_work.iter().all(|(of, _)| *of != number) {
                workers.at_work.push((number, PrivateActor::start(shared, number)?));
            }
        }
        drop(workers);
        // Those that wait at an empty lane look whether they are too many.
        shared.software.wake();
        Ok(())
    }

    /// Tells a worker whether it is too many; it leaves then.
    pub(crate) fn lets_go(&self, number: usize) -> bool {
        if number < self.wanted.load(Ordering::Acquire) {
            return false;
        }
        // Under the lock, so that whoever wants more finds it gone, or it finds itself wanted.
        let mut workers = self.workers.lock();
        if number < self.wanted.load(Ordering::Acquire) {
            return false;
        }
        if let Some(at) = workers.at_work.iter().position(|(of, _)| *of == number) {
            let (_, thread) = workers.at_work.swap_remove(at);
            workers.left.push(thread);
        }
        true
    }

    /// Returns the number of workers.
    pub(crate) fn len(&self) -> usize {
        self.workers.lock().at_work.len()
    }

    /// Waits for all of them, once their lane is closed.
    pub(crate) fn join(&self) {
        let Workers { at_work, left } = std::mem::take(&mut *self.workers.lock());
        for thread in at_work.into_iter().map(|(_, thread)| thread).chain(left) {
            if thread.join().is_err() {
                tracing::error!("a worker of the software lane panicked");
            }
        }
    }
}
