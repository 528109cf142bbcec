//! The instance gateway at `/`, for the SDKs of dedicated instances: Protocol Buffers, signed by a client key. The order keeps a stranger
//! blind: form, client key and signature, then date; the signature covers the body's hash, so that the body is read behind it.

use std::net::IpAddr;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::RequestId;
use keymill_core::operation::Reply;
use keymill_core::seam::auth::Credential;
use keymill_runtime::{Call, Gate};
use keymill_wire::gateway::headers::{self, MEDIA_TYPE, Offered};
use keymill_wire::gateway::{Api, Form, Said, error};

use crate::body::{Announced, Room, Whose};
use crate::error::{answer, log_fault, settle, tell_retry};
use crate::exchange::{Asked, perform};
use crate::server::Worker;
use crate::signature::{Headers, sha256};
use crate::v1::NAME;

/// The scheme of the authenticator that checks client keys.
const SCHEME: &str = "client-key";
/// Bytes of a body, at most, as documented.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
const PROTOBUF: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);

/// Tells whether a request is of this dialect: it shares its path with the cloud's.
pub(crate) fn is_meant(request: &HttpRequest) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    request.headers().contains_key(headers::API_NAME) || content_type.is_some_and(headers::is_media_type)
}

/// Answers a request.
pub(crate) async fn handle(worker: &Worker, request: HttpRequest, mut payload: Payload) -> HttpResponse {
    let mut taken = Taken { request_id: worker.gate.request_id(), is_read: false, room: None };
    let response = match serve(worker, &request, &mut payload, &mut taken).await {
        Ok(response) => response,
        Err(error) => refusal(&error, taken.request_id),
    };
    let unread = (!taken.is_read).then_some(payload);
    settle(&request, unread, taken.room, response)
}

/// What a request has come to.
struct Taken {
    request_id: RequestId,
    is_read: bool,
    room: Option<Room>,
}

async fn serve(
    worker: &Worker,
    request: &HttpRequest,
    payload: &mut Payload,
    taken: &mut Taken,
) -> Result<HttpResponse> {
    let gate = &worker.gate;
    let source = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let stranger = |error: &Error| gate.refused_stranger(error.kind(), source);
    let headers = Headers::of(request);
    let announced = Announced::of(request, MAX_BODY_BYTES).inspect_err(stranger)?;
    let listed = headers.listed();
    let offered = headers::read(request.method().as_str(), &listed).inspect_err(stranger)?;
    // It is not signed, and so it may not say anything.
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        let error = Error::new(ErrorKind::MalformedRequest, "the query must be empty");
        stranger(&error);
        return Err(error);
    }
    let principal = verify(gate, &offered, source)?;
    let read = announced.read(Whose::Known(gate), payload, worker.config.body_timeout).await;
    let (body, room) = read.inspect_err(stranger)?;
    taken.is_read = true;
    taken.room = room;
    offered.check_body(&sha256(&body)).inspect_err(stranger)?;
    // The body may have taken its time.
    if !gate.is_admitted(&principal) {
        let error = Error::new(ErrorKind::AccessKeyInactive, "the client key is inactive");
        stranger(&error);
        return Err(error);
    }
    gate.logged_in(offered.client_key, source);
    let call = Call {
        request_id: taken.request_id,
        principal,
        source,
        frontend: NAME,
        received: Instant::now(),
        nonce: None,
    };
    carry_out(worker, call, &offered, &body).await
}

/// Tells whose client key signed the headers, and checks their date.
fn verify(gate: &Gate, offered: &Offered<'_>, source: Option<IpAddr>) -> Result<Principal> {
    let credential = Credential::ClientKey { id: offered.client_key, signature: &offered.signature };
    let principal = gate.authenticate(SCHEME, &credential, &[&offered.to_sign], source)?;
    offered.check_date(gate.now()).inspect_err(|error| gate.refused_stranger(error.kind(), source))?;
    Ok(principal)
}

/// Carries out the request of a caller who is known; whatever becomes of it is recorded.
async fn carry_out(worker: &Worker, call: Call, offered: &Offered<'_>, body: &Bytes) -> Result<HttpResponse> {
    let request_id = call.request_id;
    let api = offered.check_version().and_then(|()| Api::by_name(offered.api));
    let operation = api.as_ref().ok().map(|api| api.operation());
    let said = api.and_then(|api| api.decode(body));
    let known = said.as_ref().ok().and_then(|said: &Said| {
        let key = said.key()?;
        worker.gate.sketch(&call, &key, said.api().rights(), said.context().as_ref())
    });
    let read = match &said {
        Ok(said) => said.ask(known.as_ref()),
        Err(error) => Err(Error::new(error.kind(), error.message().to_owned())),
    };
    let form = read.as_ref().ok().map(|asked| asked.form());
    let operation = read.as_ref().map_or(operation, |asked| Some(asked.request.operation()));
    let request = read.map(|asked| asked.request);
    let asked = Asked { operation, request, is_text: false, is_dry_run: false, frame: Some(body) };
    perform(worker, call, asked, |reply| encode(worker, form, request_id, reply)).await
}

fn encode(worker: &Worker, form: Option<Form>, request_id: RequestId, reply: &Reply<'_>) -> HttpResponse {
    let started = Instant::now();
    let none = || Error::internal("a request without a form was carried out");
    let response = match form.ok_or_else(none).and_then(|form| form.encode(reply)) {
        Ok(body) => answer(StatusCode::OK, PROTOBUF, request_id, body),
        Err(error) => refusal(&error, request_id),
    };
    worker.gate.metrics().encoded(started.elapsed());
    response
}

fn refusal(refused: &Error, request_id: RequestId) -> HttpResponse {
    log_fault(refused, request_id);
    let (status, body) = error::encode(refused, request_id);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer(status, PROTOBUF, request_id, body);
    tell_retry(&mut response, refused);
    response
}
