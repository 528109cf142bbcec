//! One request at the gate: opened, awaited, and answered in the form of its dialect.

use std::sync::Arc;

use actix_web::HttpResponse;
use bytes::Bytes;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::operation::{Operation, Reply, Request};
use keymill_runtime::gate::Ask;
use keymill_runtime::work::Cancel;
use keymill_runtime::{Call, Finished, Job, Opened, ReplyTo, Sheet};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::server::Worker;

/// A request as a dialect has read it, or why it could not.
pub(crate) struct Asked<'a> {
    /// What it asks for, where that is known.
    pub(crate) operation: Option<Operation>,
    /// Its parameters.
    pub(crate) request: Result<Request<'a>>,
    /// Whether the plaintext of an `Encrypt` is text.
    pub(crate) is_text: bool,
    /// Whether it is only tried.
    pub(crate) is_dry_run: bool,
    /// What the request borrows its bytes from.
    pub(crate) frame: Option<&'a Bytes>,
}

/// Opens a request at the gate, awaits what becomes of it, and has that encoded. A request that could not be read is recorded like any
/// other refusal.
///
/// # Errors
/// Those of the request.
pub(crate) async fn perform(
    worker: &Worker,
    call: Call,
    asked: Asked<'_>,
    encode: impl FnOnce(&Reply<'_>) -> HttpResponse,
) -> Result<HttpResponse> {
    let gate = &worker.gate;
    let (waiter, finished) = Waiter::new();
    let cancel = CancelOnDrop::default();
    let Asked { operation, request, is_text, is_dry_run, frame } = asked;
    let opened = match request {
        Ok(request) => gate.open(Ask {
            call,
            request,
            is_text,
            is_dry_run,
            frame,
            sheet: Sheet::plain(Some(gate.max_frame_bytes())),
            reply_to: Some(waiter),
            cancel: cancel.0.clone(),
            ticket: 0,
        }),
        Err(error) => Opened::Job(gate.refuse(call, operation, error, Some(waiter), cancel.0.clone(), 0)),
    };
    match opened {
        Opened::Managed(managed) => Ok(encode(&gate.manage(*managed).await?)),
        Opened::Job(job) => {
            let finished = worker.await_job(job, finished).await?;
            let encoded = finished.reply().map(|reply| encode(&reply)).ok();
            match (encoded, finished.result) {
                (Some(response), _) => Ok(response),
                (None, Err(error)) => Err(error),
                (None, Ok(_)) => Err(Error::internal("an answer has no reply")),
            }
        }
    }
}

impl Worker {
    async fn await_job(&self, job: Box<Job>, finished: oneshot::Receiver<Finished>) -> Result<Finished> {
        let in_flight = &self.gate.metrics().in_flight;
        in_flight.inc();
        self.arbiter.submit(vec![job]);
        let finished = finished.await;
        in_flight.dec();
        finished.map_err(|_| Error::new(ErrorKind::Unavailable, "the server is stopping"))
    }
}

/// Hands a finished job to the task that awaits it.
struct Waiter(Mutex<Option<oneshot::Sender<Finished>>>);

impl Waiter {
    fn new() -> (Arc<Self>, oneshot::Receiver<Finished>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Self(Mutex::new(Some(sender)))), receiver)
    }
}

impl ReplyTo for Waiter {
    fn finished(&self, finished: Finished) {
        if let Some(sender) = self.0.lock().take() {
            let _gone = sender.send(finished);
        }
    }
}

/// Calls off the job of a connection that went away; of a finished one nothing is left to call off.
#[derive(Default)]
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
