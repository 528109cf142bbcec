//! The signal between commits and watches of this process, and from notifications of the server to them.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Something may have happened, or everything is over.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    count: u64,
    is_closed: bool,
}

impl Signal {
    /// Wakes all watches.
    pub(crate) fn wake(&self) {
        self.state.lock().count += 1;
        self.changed.notify_all();
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Tells whether all is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Returns how often watches were woken: what happens after this is told by a greater number.
    pub(crate) fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// Waits until there was more than `seen`, until a moment at most.
    pub(crate) fn wait_beyond(&self, seen: u64, until: Instant) {
        let mut state = self.state.lock();
        while state.count <= seen && !state.is_closed {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}
