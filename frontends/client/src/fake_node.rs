//! A node of a cluster for tests: it takes any number of connections, does with each request what its mood says, and counts.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use keymill_core::id::{KeyRef, KeyVersionId};
use keymill_core::limit::MaxRecords;
use keymill_core::operation::{DescribeLimitsReply, Reply, Request, RotateKeyReply};
use keymill_core::{Error, ErrorKind};
use parking_lot::Mutex;

use crate::addresses::Addresses;
use crate::fake::{self, Session};

/// What a node does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Carries it out and answers.
    Well,
    /// Carries it out and breaks the connection.
    Dies,
    /// Breaks the connection, and takes no login.
    Away,
    /// Answers nothing.
    Silent,
    /// Refuses it, having done nothing, and says so.
    Drains,
    /// Refuses it with this kind, and does not say whether anything was done.
    Refuses(ErrorKind),
}

/// A node; it ends when it is dropped.
pub(crate) struct FakeNode {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    mood: Mutex<Mood>,
    is_over: AtomicBool,
    asked: AtomicUsize,
    logins: AtomicUsize,
    rotated: Mutex<Vec<String>>,
}

impl FakeNode {
    pub(crate) fn new(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mood: Mutex::new(mood),
            is_over: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            rotated: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || state.serve(stream));
            }
        });
        Self { address, state, accepting: Some(accepting) }
    }

    /// Makes nodes that are well, and the list of their addresses.
    pub(crate) fn several(count: usize) -> (Vec<Self>, Addresses) {
        let nodes: Vec<_> = (0..count).map(|_| Self::new(Mood::Well)).collect();
        let addresses = Addresses::new(nodes.iter().map(|node| node.address.to_string())).unwrap();
        (nodes, addresses)
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.state.mood.lock() = mood;
    }

    /// Returns how many requests came.
    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Returns how many logins were good.
    pub(crate) fn logins(&self) -> usize {
        self.state.logins.load(Ordering::SeqCst)
    }

    /// Returns the keys that were rotated, in their order.
    pub(crate) fn rotated(&self) -> Vec<String> {
        self.state.rotated.lock().clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        let _ended = self.accepting.take().map(JoinHandle::join);
    }
}

impl State {
    fn mood(&self) -> Mood {
        *self.mood.lock()
    }

    fn serve(&self, stream: TcpStream) {
        if self.mood() == Mood::Away {
            return;
        }
        let Some(mut session) = Session::on(stream) else { return };
        self.logins.fetch_add(1, Ordering::SeqCst);
        while let Some((id, key)) = session.with_request(|id, request| (id, key(request))) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.mood() {
                Mood::Well => {
                    self.carry_out(&key);
                    answer(&mut session, id, key.is_some());
                }
                Mood::Dies => return self.carry_out(&key),
                Mood::Away => return,
                Mood::Silent => {}
                Mood::Drains => {
                    session.refuse(id, Error::new(ErrorKind::Unavailable, "stopping").nothing_done());
                }
                Mood::Refuses(kind) => session.refuse(id, Error::new(kind, "not now")),
            }
        }
    }

    fn carry_out(&self, key: &Option<String>) {
        self.rotated.lock().extend(key.clone());
    }
}

/// Returns the key that a request would rotate; other requests change nothing.
fn key(request: &Request<'_>) -> Option<String> {
    match request {
        Request::RotateKey(request) => match &request.key_id {
            KeyRef::Alias(alias) => Some(alias.to_string()),
            KeyRef::Id(_) | KeyRef::Unknown => None,
        },
        _ => None,
    }
}

fn answer(session: &mut Session, id: u64, is_rotation: bool) {
    let request_id = fake::REQUEST;
    session.reply(
        id,
        &match is_rotation {
            true => {
                let key_version_id = KeyVersionId::from_bytes([3; 16]);
                Reply::RotateKey(RotateKeyReply { key_version_id, request_id })
            }
            false => Reply::DescribeLimits(DescribeLimitsReply::gather(
                request_id,
                1 << 24,
                1024,
                MaxRecords::default(),
            )),
        },
    );
}
