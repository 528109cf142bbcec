//! A TCP proxy that loses what a test tells it to: answers, requests, or time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to what comes from the client next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    /// It passes, and what is answered does not; then the connection ends.
    Answer,
    /// It does not pass, and the connection ends.
    Request,
    /// It is held back, and nothing is answered, until [`Proxy::deliver`].
    Late,
}

/// A proxy before one port.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    next: Mutex<Option<Loss>>,
    /// Where held back bytes go, and what they are.
    held: Mutex<Vec<(TcpStream, Vec<u8>)>>,
    lost: AtomicUsize,
}

impl Proxy {
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let of_all = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                pass(client, server, &of_all);
            }
        });
        Self { address, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Loses what comes next.
    pub(crate) fn lose(&self, loss: Loss) {
        *self.state.next.lock().expect("no test panics here") = Some(loss);
    }

    /// Returns how often something was lost.
    pub(crate) fn lost(&self) -> usize {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Delivers what was held back.
    pub(crate) fn deliver(&self) -> usize {
        let held = std::mem::take(&mut *self.state.held.lock().expect("no test panics here"));
        let bytes = held.iter().map(|(_, bytes)| bytes.len()).sum();
        for (mut server, bytes) in held {
            server.write_all(&bytes).expect("etcd is still there");
            // Its answers are read by nobody; it is given the time to do what it was asked.
            thread::sleep(Duration::from_millis(500));
        }
        bytes
    }
}

fn pass(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let fate: Arc<Mutex<Option<Loss>>> = Arc::default();
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be shared");
    let (mut from, mut to, of_both, state) = (copy(&client), copy(&server), fate.clone(), state.clone());
    thread::spawn(move || {
        let mut held = Vec::new();
        let mut buffer = [0; 65536];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let mut fate = of_both.lock().expect("no test panics here");
            if fate.is_none()
                && let Some(loss) = state.next.lock().expect("no test panics here").take()
            {
                *fate = Some(loss);
                state.lost.fetch_add(1, Ordering::SeqCst);
                if loss != Loss::Late {
                    let both = [copy(&from), copy(&to)];
                    thread::spawn(move || {
                        // As long as etcd needs to do what it was asked.
                        thread::sleep(Duration::from_millis(500));
                        both.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
                    });
                }
            }
            match *fate {
                None | Some(Loss::Answer) => {
                    if to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                Some(Loss::Request) => {}
                Some(Loss::Late) => held.extend_from_slice(&buffer[..read]),
            }
            drop(fate);
        }
        if held.is_empty() {
            let _gone = to.shutdown(Shutdown::Both);
        } else {
            state.held.lock().expect("no test panics here").push((to, held));
        }
    });
    let (mut from, mut to) = (server, client);
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let is_lost = fate.lock().expect("no test panics here").is_some();
            if !is_lost && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _gone = to.shutdown(Shutdown::Both);
    });
}
