//! The worker's side: opens a provider as it is told, and serves it to the one that started it, a thread for each conversation. The
//! thread that watches for the end of the parent never calls the provider, so that a call that hangs keeps no orphan alive.

mod custody;
mod keys;
mod session;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::seam::provider::{CryptoProvider, ProviderError};
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use zeroize::Zeroizing;

use crate::passing;
use crate::serve::keys::Keys;
use crate::wire::{self, Failed, Hello, Incoming, Kind, ReadyProfile};

/// How long the sessions may take to close when the parent is gone.
const GRACE: Duration = Duration::from_secs(1);
/// Conversations at once, at most: a thread each.
const CONVERSATIONS: usize = 4096;

/// What a worker serves.
pub struct Served {
    /// The provider.
    pub provider: Arc<dyn CryptoProvider>,
    /// Answers questions that are beside the seam, such as what derives from a root key.
    pub answer: Answer,
    /// Tells whether a PIN was refused, now or before: the parent must then start no other worker to try it again.
    pub needs_operator: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What answers a question of the program's own.
pub type Answer = Box<dyn Fn(&[u8]) -> Result<Sensitive, ProviderError> + Send + Sync>;

impl Served {
    /// Serves a provider that no operator is ever needed for, and no questions beside it.
    pub fn new(provider: Arc<dyn CryptoProvider>) -> Self {
        let rejected = || ProviderError::Rejected("this worker answers no such questions".into());
        Self { provider, answer: Box::new(move |_| Err(rejected())), needs_operator: Box::new(|| false) }
    }
}

/// Why a worker cannot open its provider.
#[derive(Debug)]
pub struct Refusal {
    /// What to tell the operator.
    pub why: String,
    /// Whether an operator must act before there is another try, as when a PIN was refused.
    pub needs_operator: bool,
}

/// Runs the worker process: serves the one that started it, over its standard input, and ends. It ends by SIGKILL, as nothing of a
/// module that misbehaves may hinder that: no destructor, no exit handler. The program hardens itself before it calls this.
///
/// # Errors
/// Where there is no parent to serve, and nothing has been opened.
pub fn run(open: impl FnOnce(Sensitive) -> Result<Served, Refusal> + Send + 'static) -> io::Result<()> {
    let spine = passing::inherited()?;
    let (tag, hello) = greeted(&spine)?;
    // However it ended, it is over.
    let _ended = hold(&spine, tag, hello, open);
    kill_process(getpid(), Signal::KILL)?;
    Ok(())
}

/// Serves the parent at the other end of `spine` until that is closed. Threads may be left whose calls do not come back.
///
/// # Errors
/// Where the first message does not come or is none, or a thread cannot be started.
pub fn serve(
    spine: &UnixStream,
    open: impl FnOnce(Sensitive) -> Result<Served, Refusal> + Send + 'static,
) -> io::Result<()> {
    let (tag, hello) = greeted(spine)?;
    hold(spine, tag, hello, open)
}

/// Receives the first message, and its tag.
fn greeted(spine: &UnixStream) -> io::Result<(u64, Hello)> {
    let mut incoming = Incoming::default();
    let header = incoming.receive(&mut &*spine, None).map_err(io::Error::other)?;
    if header.kind != Kind::Start {
        return Err(io::ErrorKind::InvalidData.into());
    }
    match Hello::decode(incoming.body()) {
        Ok(hello) => Ok((header.tag, hello)),
        Err(garbled) => {
            // Such as another build of the program: the parent is told.
            let error = ProviderError::unavailable(garbled.to_string());
            answer_failed(&mut &*spine, header.tag, &Failed { error, needs_operator: false })?;
            Err(io::Error::other(garbled))
        }
    }
}

/// Opens the provider, and holds conversations until there is nobody to have them with.
fn hold(
    spine: &UnixStream,
    tag: u64,
    hello: Hello,
    open: impl FnOnce(Sensitive) -> Result<Served, Refusal> + Send + 'static,
) -> io::Result<()> {
    // Every thread holds one end; when all are gone the other says so.
    let (held, gone) = flume::bounded::<()>(0);
    let place: Arc<Mutex<Option<Arc<Serving>>>> = Arc::default();
    {
        let (place, held, spine) = (Arc::clone(&place), held.clone(), spine.try_clone()?);
        spawn("worker-open", move || {
            let _held = held;
            // A parent that cannot be written to is gone, which the other thread sees.
            let _told = opened(&spine, tag, hello, open, &place);
        })?;
    }
    while let Some(stream) = passing::accept(spine)? {
        // The parent asks for nothing before the provider is open.
        let Some(serving) = place.lock().clone() else { return Err(io::ErrorKind::InvalidData.into()) };
        // Where there is no place or no thread, the stream closes, and the parent sees that.
        if held.sender_count() <= CONVERSATIONS {
            let held = held.clone();
            let _started = spawn("worker-talk", move || {
                let _held = held;
                converse(stream, &serving);
            });
        }
    }
    drop(held);
    if place.lock().is_none() {
        // What is yet being opened has nothing to close; and while a module is being loaded that hangs, no thread can be started.
        return Ok(());
    }
    let _closed = gone.recv_timeout(GRACE);
    // Its last owner closes what the provider holds, which may hang as any call.
    let (held, gone) = flume::bounded::<()>(0);
    let _closing = spawn("worker-close", move || {
        let _held = held;
        drop(place);
    });
    let _closed = gone.recv_timeout(GRACE);
    Ok(())
}

/// Opens the provider and tells the parent of it.
fn opened(
    mut spine: &UnixStream,
    tag: u64,
    hello: Hello,
    open: impl FnOnce(Sensitive) -> Result<Served, Refusal>,
    place: &Mutex<Option<Arc<Serving>>>,
) -> io::Result<()> {
    let Hello { generation, max_keys, setup } = hello;
    // A panic is an answer, too: the parent would wait for its whole patience.
    let opened = catch_unwind(AssertUnwindSafe(|| open(setup)))
        .unwrap_or_else(|_| Err(Refusal { why: "the worker panicked".into(), needs_operator: false }));
    match opened {
        Ok(served) => {
            let mut message = Vec::new();
            wire::begin(&mut message);
            ReadyProfile::encode(served.provider.profile(), &mut message);
            wire::finish(&mut message, Kind::Ready, tag, 0);
            *place.lock() = Some(Arc::new(Serving { served, keys: Keys::new(generation, max_keys) }));
            spine.write_all(&message)
        }
        Err(Refusal { why, needs_operator }) => {
            answer_failed(&mut spine, tag, &Failed { error: ProviderError::unavailable(why), needs_operator })
        }
    }
}

/// What all conversations share.
struct Serving {
    served: Served,
    keys: Keys,
}

/// Holds one conversation to its end.
fn converse(mut stream: UnixStream, serving: &Serving) {
    let mut incoming = Incoming::default();
    let Ok(header) = incoming.receive(&mut stream, None) else { return };
    match header.kind {
        Kind::OpenSession => session::hold(stream, incoming, header.tag, serving),
        Kind::OpenCustody => custody::hold(stream, incoming, header.tag, serving),
        Kind::Ask => {
            let told = match (serving.served.answer)(incoming.body()) {
                Ok(answer) => answer_bytes(&mut stream, header.tag, &answer),
                Err(error) => answer_failed(&mut stream, header.tag, &serving.failed(error)),
            };
            // The parent may be gone, which is the end, too.
            drop(told);
        }
        _ => {}
    }
}

impl Serving {
    /// Says why something was not done, and whether it is a matter of the PIN.
    fn failed(&self, error: ProviderError) -> Failed {
        Failed { error, needs_operator: (self.served.needs_operator)() }
    }
}

fn answer_failed(to: &mut impl Write, tag: u64, failed: &Failed) -> io::Result<()> {
    let mut message = Vec::new();
    wire::begin(&mut message);
    failed.encode(&mut message);
    wire::finish(&mut message, Kind::Failed, tag, 0);
    to.write_all(&message)
}

fn answer_bytes(to: &mut impl Write, tag: u64, bytes: &Sensitive) -> io::Result<()> {
    let mut message = Zeroizing::new(Vec::with_capacity(wire::HEADER_BYTES + bytes.len()));
    wire::begin(&mut message);
    message.extend(bytes.expose());
    wire::finish(&mut message, Kind::Bytes, tag, 0);
    to.write_all(&message)
}

fn answer_done(to: &mut impl Write, tag: u64) -> io::Result<()> {
    let mut message = Vec::new();
    wire::begin(&mut message);
    wire::finish(&mut message, Kind::Done, tag, 0);
    to.write_all(&message)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}
