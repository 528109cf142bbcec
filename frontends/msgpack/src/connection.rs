//! One connection: logs in, reads frames, takes their requests to the gate, and lets the outbox answer.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::operation::{Operation, Request};
use keymill_listen::{Came, Line, secure};
use keymill_runtime::actor::ArbiterHandle;
use keymill_runtime::gate::{Ask, Buffered};
use keymill_runtime::work::Cancel;
use keymill_runtime::{Call, Door, Doors, Framing, Gate, Job, Opened, ReplyTo, Sheet, StopSignal};
use keymill_wire::frame::{self, Fault, LENGTH_BYTES, Shape};
use keymill_wire::hello::EXPORTER_LABEL;
use keymill_wire::{batch, response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::flow::MAX_BYTES;
use crate::login::{self, Channel, NoLogin};
use crate::outbox::Outbox;
use crate::server::Config;

/// The frontend's name in audit records and metrics.
pub(crate) const NAME: &str = "msgpack";

/// Room for one read, at first and at most: it grows with what a client sends at a time.
const READ_BYTES: usize = 16 * 1024;
const MAX_READ_BYTES: usize = 1024 * 1024;
/// What one read may bring of small frames.
const MIN_BURST_BYTES: usize = 128 * 1024;
/// While more than this is not computed yet, nothing further is read.
const MAX_UNCOMPUTED: usize = 1024 * 1024;
/// Global room for requests and answers is taken in steps of this size.
const LEASE_BYTES: usize = 1024 * 1024;
/// A connection that brings nothing for so long gives back what it holds beyond the room for a first read.
const IDLE: Duration = Duration::from_millis(250);
/// After an error that ends the connection, what the client still sends is read away for so long, so that it sees the error.
const LINGER: Duration = Duration::from_secs(1);

static FRAMING: Framing = Framing { item: batch::bin_header, absent: batch::NIL, pair: batch::PAIR };

/// Serves one connection until it ends.
pub(crate) async fn serve(
    stream: std::net::TcpStream,
    doors: Rc<Doors>,
    config: Config,
    mut stop: StopSignal,
) {
    let gate = doors.installation().gate.clone();
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
    let login_until = tokio::time::Instant::now() + config.hello_timeout;
    let source = stream.peer_addr().ok().map(|peer| peer.ip());
    let gauge = gate.metrics().connections.with_label_values(&[NAME]);
    gauge.inc();
    let secured = tokio::select! {
        secured = secure(stream, config.tls.as_ref(), NAME, &gate, source) => secured,
        () = stop.given() => None,
    };
    if let Some(secured) = secured {
        match secured.exporter(EXPORTER_LABEL) {
            Ok(exporter) => {
                let channel = Channel { source, exporter, peer: secured.peer };
                let reach = Reach {
                    version: gate.reach_version(),
                    is_same: true,
                    installation: gate,
                    came: secured.came,
                };
                let door = match doors.instance(&reach.came.arrival()) {
                    Ok(Some(door)) => door,
                    Ok(None) => doors.installation().clone(),
                    Err(error) => {
                        tracing::debug!(?error, "an instance cannot be reached");
                        refuse(secured.line, &error, &doors.installation().gate).await;
                        gauge.dec();
                        return;
                    }
                };
                let visit = Visit { door, reach, config, stop, channel, login_until };
                // Each kind of line has code of its own: the plain one pays nothing for the other.
                match secured.line {
                    Line::Plain(stream) => {
                        let (read, write) = stream.into_split();
                        visit.receive(read, write).await;
                    }
                    Line::Tls(stream) => {
                        let (read, write) = tokio::io::split(*stream);
                        visit.receive(read, write).await;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "a TLS channel exports nothing"),
        }
    }
    gauge.dec();
}

/// Tells a client why it is not served, in the place of the challenge.
async fn refuse(line: Line, error: &Error, gate: &Gate) {
    let mut out = Vec::new();
    response::encode_error(0, error, gate.request_id(), &mut out);
    // A client that is gone needs not be told.
    let _gone = match line {
        Line::Plain(mut stream) => stream.write_all(&out).await,
        Line::Tls(mut stream) => match stream.write_all(&out).await {
            Ok(()) => stream.shutdown().await,
            failed => failed,
        },
    };
}

/// Whether a connection still reaches what it reached when it was opened.
struct Reach {
    installation: Gate,
    came: Came,
    /// As of which that was looked at.
    version: u64,
    is_same: bool,
}

impl Reach {
    /// Finds out anew, where requests may reach another instance than before; a connection that once reached another stays so.
    fn is_still(&mut self, gate: &Gate) -> bool {
        let version = self.installation.reach_version();
        if self.is_same && version != self.version {
            self.version = version;
            let reached = self.installation.reached(&self.came.arrival());
            self.is_same =
                reached.is_ok_and(|reached| reached.as_ref().unwrap_or(&self.installation).is(gate));
        }
        self.is_same
    }
}

/// A connection that may be spoken on, before its login.
struct Visit {
    door: Door,
    reach: Reach,
    config: Config,
    stop: StopSignal,
    channel: Channel,
    login_until: tokio::time::Instant,
}

impl Visit {
    /// Has the client log in, and serves it.
    async fn receive<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(self, mut read: R, mut write: W) {
        let Self { door: Door { gate, arbiter }, reach, config, mut stop, channel, login_until } = self;
        let mut buffer = BytesMut::new();
        let login = tokio::time::timeout_at(
            login_until,
            login::log_in(&mut read, &mut write, &mut buffer, &gate, &channel),
        );
        let principal = tokio::select! {
            outcome = login => match outcome {
                Ok(Ok(principal)) => Some(principal),
                Ok(Err(NoLogin::Refused(words))) => {
                    let _gone = write.write_all(&words).await;
                    None
                }
                Ok(Err(NoLogin::Gone)) | Err(_) => None,
            },
            () = stop.given() => None,
        };
        if let Some(principal) = principal {
            let outbox = Outbox::new(gate.clone());
            let cancel = Cancel::default();
            let mut reader = Reader {
                gate,
                reach,
                arbiter,
                outbox: outbox.clone(),
                cancel: cancel.clone(),
                principal,
                source: channel.source,
                buffer,
                read_bytes: READ_BYTES,
                leases: Vec::new(),
                largest_frame: 0,
                head: Vec::new(),
                admitted: (0, false),
            };
            reader.look_up();
            let writing = async {
                let all = outbox.write(&mut write, config.write_timeout).await;
                if !all {
                    cancel.cancel();
                }
                all
            };
            let reading = reader.run(&mut read, &mut stop);
            tokio::pin!(writing, reading);
            // The reader ends first in every orderly end; a writer that ends first has lost the client.
            tokio::select! {
                () = &mut reading => {
                    writing.await;
                }
                _ = &mut writing => {}
            }
        }
        linger(&mut read, write).await;
    }
}

/// Closes so that the client can read what was written: unread bytes would make the system reset the connection.
async fn linger<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(read: &mut R, mut write: W) {
    let mut waste = [0; 4096];
    let _late = tokio::time::timeout(LINGER, async {
        // Under TLS, the end has to be written, too.
        let _gone = write.shutdown().await;
        while matches!(read.read(&mut waste).await, Ok(n) if n > 0) {}
    })
    .await;
}

struct Reader {
    gate: Gate,
    reach: Reach,
    arbiter: ArbiterHandle,
    outbox: Arc<Outbox>,
    cancel: Cancel,
    principal: Principal,
    source: Option<IpAddr>,
    buffer: BytesMut,
    read_bytes: usize,
    leases: Vec<Buffered>,
    largest_frame: usize,
    /// The head of the answer that is begun.
    head: Vec<u8>,
    /// Whether the principal was admitted, and under which version of the access keys that was found.
    admitted: (u64, bool),
}

impl Reader {
    /// Reads until the client has sent all, breaks the protocol, or the server stops.
    async fn run<R: AsyncRead + Unpin>(mut self, read: &mut R, stop: &mut StopSignal) {
        loop {
            if let Err(fault) = self.take_frames() {
                let mut words = Vec::new();
                response::encode_fault(fault, self.gate.request_id(), &mut words);
                // What was asked before the fault is answered first.
                self.wait_until(|outbox| outbox.flow(|flow| flow.uncomputed() == 0)).await;
                self.outbox.last_words(words);
                return;
            }
            let max_in_flight = self.gate.max_in_flight();
            self.wait_until(|outbox| {
                outbox.flow(|flow| {
                    flow.len() < max_in_flight
                        && flow.bytes() < MAX_BYTES
                        && flow.uncomputed() < MAX_UNCOMPUTED
                })
            })
            .await;
            self.lease().await;
            let (place, kept) = (self.buffer.as_ptr(), self.buffer.len());
            self.buffer.reserve(self.read_bytes);
            if kept > 0 && place != self.buffer.as_ptr() {
                // The begun frame moved on with the buffer.
                self.gate.metrics().moved_bytes.inc_by(kept as u64);
            }
            let room = self.buffer.capacity() - self.buffer.len();
            let holds_much = self.buffer.capacity().max(self.outbox.held()) > READ_BYTES;
            let outcome = tokio::select! {
                outcome = read.read_buf(&mut self.buffer) => outcome,
                () = stop.given() => return self.part().await,
                () = async { tokio::time::sleep(IDLE).await }, if holds_much => {
                    self.rest();
                    continue;
                }
            };
            match outcome {
                Ok(0) => {
                    self.outbox.close();
                    return;
                }
                Ok(read) if read == room => {
                    // Four frames at a time keep both sides busy; more than that falls out of the cache before it is computed.
                    let most = (4 * self.largest_frame).clamp(MIN_BURST_BYTES, MAX_READ_BYTES);
                    self.read_bytes = (2 * self.read_bytes).min(most);
                }
                Ok(_) => {}
                Err(_) => {
                    self.cancel.cancel();
                    self.outbox.close();
                    return;
                }
            }
        }
    }

    /// Gives back what the connection holds, where nothing is under way.
    fn rest(&mut self) {
        if self.buffer.is_empty() && self.outbox.rest() {
            self.buffer = BytesMut::new();
            self.read_bytes = READ_BYTES;
        }
    }

    /// Answers what was read, and says that nothing else was: whatever the client asked beyond that, it may ask another node.
    async fn part(&self) {
        self.wait_until(|outbox| outbox.flow(|flow| flow.uncomputed() == 0)).await;
        let stopping = Error::new(
            ErrorKind::Unavailable,
            "the server is stopping: what it did not answer it did not do",
        );
        let mut words = Vec::new();
        response::encode_error(0, &stopping.nothing_done(), self.gate.request_id(), &mut words);
        self.outbox.last_words(words);
    }

    async fn wait_until(&self, ready: impl Fn(&Outbox) -> bool) {
        while !ready(&self.outbox) {
            self.outbox.drained.notified().await;
        }
    }

    /// Has global room for what is in flight, and gives back what is no longer needed.
    async fn lease(&mut self) {
        loop {
            let needed =
                (self.outbox.flow(crate::flow::Flow::bytes) + self.buffer.len()).div_ceil(LEASE_BYTES);
            // The first step comes with the connection; idle connections hold nothing.
            let needed = if needed <= 1 { 0 } else { needed };
            if needed <= self.leases.len() {
                self.leases.truncate(needed);
                return;
            }
            match self.gate.buffer(LEASE_BYTES) {
                Some(lease) => self.leases.push(lease),
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Takes every complete frame of the buffer to the gate.
    fn take_frames(&mut self) -> Result<(), Fault> {
        let received = Instant::now();
        let mut jobs = Vec::new();
        let max = self.gate.max_frame_bytes();
        let outcome = loop {
            let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { break Ok(()) };
            let length = match frame::length(*prefix, max) {
                Ok(length) => length,
                Err(fault) => break Err(fault),
            };
            if self.buffer.len() < LENGTH_BYTES + length {
                break Ok(());
            }
            self.buffer.advance(LENGTH_BYTES);
            let frame = self.buffer.split_to(length).freeze();
            if let Err(fault) = self.take_frame(frame, received, &mut jobs) {
                break Err(fault);
            }
        };
        if !jobs.is_empty() {
            self.arbiter.submit(jobs);
        }
        outcome
    }

    fn take_frame(&mut self, frame: Bytes, received: Instant, jobs: &mut Vec<Box<Job>>) -> Result<(), Fault> {
        let shape = frame::check(&frame)?;
        let id = shape.id;
        self.largest_frame = self.largest_frame.max(frame.len());
        if !self.outbox.take_in(id, frame.len()) {
            return Err(Fault::IdInFlight(id));
        }
        let call = Call {
            request_id: self.gate.request_id(),
            principal: self.principal.clone(),
            source: self.source,
            frontend: NAME,
            received,
            nonce: None,
        };
        let reply_to: Arc<dyn ReplyTo> = self.outbox.clone();
        let operation = Operation::by_name(shape.operation);
        let request = match self.decode(&shape, operation) {
            Ok(request) => request,
            Err(error) => {
                jobs.push(self.gate.refuse(call, operation, error, Some(reply_to), self.cancel.clone(), id));
                return Ok(());
            }
        };
        let sheet = self.sheet(id, &request);
        let ask = Ask {
            call,
            request,
            is_text: false,
            is_dry_run: false,
            frame: Some(&frame),
            sheet,
            reply_to: Some(reply_to),
            cancel: self.cancel.clone(),
            ticket: id,
        };
        match self.gate.open(ask) {
            Opened::Job(job) => jobs.push(job),
            Opened::Managed(managed) => {
                let (gate, outbox) = (self.gate.clone(), self.outbox.clone());
                let request_id = managed.call().request_id;
                actix_rt::spawn(async move {
                    let answer = gate.manage(*managed).await;
                    outbox.managed(id, request_id, &answer);
                });
            }
        }
        Ok(())
    }

    /// Makes the sheet that a request's results go to: what is sealed or opened is so in its place in the answer.
    fn sheet(&mut self, id: u64, request: &Request<'_>) -> Sheet {
        let max = self.gate.max_frame_bytes();
        self.head.clear();
        let _start = match request {
            Request::BatchEncrypt(r) => batch::begin_batch(id, r.items.len(), &mut self.head),
            Request::BatchDecrypt(r) => batch::begin_batch(id, r.items.len(), &mut self.head),
            Request::BatchReEncrypt(r) => batch::begin_batch(id, r.items.len(), &mut self.head),
            Request::BatchSign(r) => batch::begin_batch(id, r.messages.len(), &mut self.head),
            Request::BatchAsymmetricEncrypt(r) => batch::begin_batch(id, r.items.len(), &mut self.head),
            Request::BatchAsymmetricDecrypt(r) => batch::begin_batch(id, r.items.len(), &mut self.head),
            Request::BatchGenerateDataKey(r) => batch::begin_batch(id, r.count as usize, &mut self.head),
            Request::Encrypt(_) | Request::ReEncrypt(_) => {
                batch::begin_single(id, "CiphertextBlob", &mut self.head)
            }
            Request::Decrypt(_) => batch::begin_single(id, "Plaintext", &mut self.head),
            _ => return Sheet::plain_over(self.outbox.buffer(), Some(max)),
        };
        Sheet::framed(self.outbox.buffer(), &self.head, &FRAMING, max)
    }

    /// Finds out anew whether the principal is let in, where access keys have changed, or the networks of instances.
    fn look_up(&mut self) -> bool {
        if !self.reach.is_still(&self.gate) {
            return false;
        }
        let version = self.gate.access_version();
        if self.admitted.0 != version || !self.admitted.1 {
            self.admitted = (version, self.gate.is_admitted(&self.principal));
        }
        self.admitted.1
    }

    /// Reads the parameters, once it is clear that the caller is still let in.
    fn decode<'a>(&mut self, shape: &Shape<'a>, operation: Option<Operation>) -> Result<Request<'a>, Error> {
        if !self.look_up() {
            return Err(Error::new(ErrorKind::AccessKeyInactive, "the access key is inactive or gone"));
        }
        let operation =
            operation.ok_or_else(|| Error::new(ErrorKind::OperationNotFound, "no operation of this name"))?;
        shape.decode(operation)
    }
}
