//! What stands between a server and its database: it passes what they say to each other, up to the message that a test has chosen. That one is
//! held, with all that comes after it, until the connection is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which message is held, and which was.
#[derive(Default)]
struct State {
    passed: usize,
    hold_at: Option<usize>,
    is_held: bool,
    connections: Vec<TcpStream>,
    is_over: bool,
}

/// A proxy on a port of 127.0.0.1.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    /// Starts one before a port of 127.0.0.1.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let ours = Self { address, shared };
        let shared = ours.shared.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if lock(&shared).is_over {
                    return;
                }
                // A database that is down hangs up.
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                join(&shared, near, far);
            }
        });
        ours
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Counts messages from now on, in either direction, and holds the one of that number, counted from 0.
    pub fn hold_at(&self, message: Option<usize>) {
        let mut state = lock(&self.shared);
        (state.passed, state.hold_at, state.is_held) = (0, message, false);
    }

    /// Returns how many messages have passed.
    pub fn passed(&self) -> usize {
        lock(&self.shared).passed
    }

    /// Waits until the message is held; false where it does not come.
    pub fn is_held_within(&self, patience: Duration) -> bool {
        let (_, changed) = &*self.shared;
        let state = lock(&self.shared);
        let waited = changed.wait_timeout_while(state, patience, |state| !state.is_held);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_held
    }

    /// Cuts every connection, and passes everything from now on.
    pub fn cut(&self) {
        let mut state = lock(&self.shared);
        (state.hold_at, state.is_held) = (None, false);
        for connection in state.connections.drain(..) {
            let _gone = connection.shutdown(Shutdown::Both);
        }
        self.shared.1.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        lock(&self.shared).is_over = true;
        self.cut();
        let _woken = TcpStream::connect(self.address);
    }
}

fn lock(shared: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(shared: &Arc<(Mutex<State>, Condvar)>, near: TcpStream, far: TcpStream) {
    let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor is left");
    lock(shared).connections.extend([copy(&near), copy(&far)]);
    for (from, to) in [(copy(&near), copy(&far)), (far, near)] {
        let shared = shared.clone();
        std::thread::spawn(move || pass(&shared, from, to));
    }
}

/// Passes one direction. Both sides speak in turn, so that what is read at once is what was said at once.
fn pass(shared: &(Mutex<State>, Condvar), mut from: TcpStream, mut to: TcpStream) {
    let mut message = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut message) {
        let mut state = lock(shared);
        if state.hold_at == Some(state.passed) {
            state.is_held = true;
            shared.1.notify_all();
        }
        while state.is_held {
            state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.passed += 1;
        drop(state);
        if to.write_all(&message[..length]).is_err() {
            break;
        }
    }
    // One side that hangs up, or was cut, is the other's end, too.
    let _gone = to.shutdown(Shutdown::Both);
}
