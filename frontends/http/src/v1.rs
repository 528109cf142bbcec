//! `POST /v1/<Operation>`: our own dialect, in JSON and MessagePack. Until its nonce is taken a request is a stranger's, and its
//! refusal is counted; from there on it is a principal's, and whatever becomes of it is recorded.

use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::RequestId;
use keymill_core::operation::{Operation, Reply, Request};
use keymill_runtime::Call;
use keymill_wire::acs3;
use keymill_wire::request::{decode_body, decode_json};
use keymill_wire::response::{encode_body, json_reply};

use crate::body::{Announced, Room, Whose};
use crate::error::{JSON, answer, refusal, settle};
use crate::exchange::{Asked, perform};
use crate::server::Worker;
use crate::signature::{self, Headers, Known, Verified};

const PREFIX: &str = "/v1/";
/// The name of this frontend in audit records and metrics.
pub(crate) const NAME: &str = "http";

const MSGPACK: HeaderValue = HeaderValue::from_static("application/msgpack");
/// Room for all of a JSON body but its base64.
const JSON_FRAMING_BYTES: usize = 64 * 1024;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Msgpack,
}

impl Form {
    fn of(media_type: &str) -> Option<Self> {
        let name = media_type.split(';').next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case("application/json") {
            Some(Form::Json)
        } else if name.eq_ignore_ascii_case("application/msgpack") {
            Some(Form::Msgpack)
        } else {
            None
        }
    }

    /// Returns the first form that an `accept` header names.
    fn accepted(header: &str) -> Option<Self> {
        header.split(',').find_map(Form::of)
    }

    fn decode(self, operation: Operation, body: &[u8]) -> Result<Request<'_>> {
        match self {
            Form::Json => decode_json(operation, body),
            Form::Msgpack => decode_body(operation, body),
        }
    }
}

/// Tells whether a path is of this dialect.
pub(crate) fn is_at(path: &str) -> bool {
    operation_at(path).is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

fn operation_at(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX)
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
    let form = headers.get("content-type").and_then(|media_type| Form::of(&media_type));
    let limit = match form {
        Some(Form::Msgpack) => gate.max_frame_bytes(),
        _ => gate.max_frame_bytes().div_ceil(3) * 4 + JSON_FRAMING_BYTES,
    };
    let announced = Announced::of(request, limit).inspect_err(stranger)?;
    let known = signature::know(gate, request, &headers, request.uri().query().unwrap_or_default(), source)?;
    let (body, room) = announced
        .read(Whose::Known(gate), payload, worker.config.body_timeout)
        .await
        .inspect_err(stranger)?;
    taken.is_read = true;
    taken.room = room;
    if let Known::Signed(verified) = &known {
        verified.check_body(&body).inspect_err(stranger)?;
    }
    // The body may have taken its time.
    if !gate.is_admitted(known.principal()) {
        let error = Error::new(ErrorKind::AccessKeyInactive, "the access key is inactive");
        stranger(&error);
        return Err(error);
    }
    let (principal, nonce) = match known {
        Known::Shown(principal) => (principal, None),
        Known::Signed(Verified { principal, nonce, .. }) => {
            worker.nonces.take(&principal.access_key, &nonce, gate.now()).inspect_err(stranger)?;
            (principal, Some(nonce))
        }
    };
    gate.logged_in(principal.access_key.as_str(), source);

    let call = Call {
        request_id: taken.request_id,
        principal,
        source,
        frontend: NAME,
        received: Instant::now(),
        nonce,
    };
    let answer_form = headers.get("accept").and_then(|accept| Form::accepted(&accept)).or(form);
    let answer_form = answer_form.unwrap_or(Form::Json);
    let operation = operation_at(request.uri().path()).and_then(Operation::by_name);
    let read = read(request, &headers, operation, form, &body);
    let asked = Asked { operation, request: read, is_text: false, is_dry_run: false, frame: Some(&body) };
    let request_id = taken.request_id;
    perform(worker, call, asked, |reply| encode(worker, answer_form, request_id, reply)).await
}

/// Reads the request of a caller who is known.
fn read<'b>(
    request: &HttpRequest,
    headers: &Headers<'_>,
    operation: Option<Operation>,
    form: Option<Form>,
    body: &'b [u8],
) -> Result<Request<'b>> {
    if headers.get(acs3::ACS_VERSION).as_deref() != Some(acs3::API_VERSION) {
        return Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("x-acs-version is {}", acs3::API_VERSION),
        ));
    }
    let operation =
        operation.ok_or_else(|| Error::new(ErrorKind::OperationNotFound, "no operation of this name"))?;
    if headers.get(acs3::ACTION).as_deref() != Some(operation.name()) {
        return Err(Error::new(ErrorKind::InvalidParameter, "x-acs-action is not the operation of the path"));
    }
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(Error::new(
            ErrorKind::InvalidParameter,
            "parameters are taken from the body alone, and the query must be empty",
        ));
    }
    let form = form.ok_or_else(|| {
        Error::new(ErrorKind::MalformedRequest, "content-type is application/json or application/msgpack")
    })?;
    form.decode(operation, body)
}

fn encode(worker: &Worker, form: Form, request_id: RequestId, reply: &Reply<'_>) -> HttpResponse {
    let started = Instant::now();
    let (content_type, body) = match form {
        Form::Json => (JSON, json_reply(reply)),
        Form::Msgpack => {
            let mut body = Vec::with_capacity(512);
            encode_body(reply, &mut body);
            (MSGPACK, body)
        }
    };
    worker.gate.metrics().encoded(started.elapsed());
    answer(StatusCode::OK, content_type, request_id, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_named_by_its_media_type_alone() {
        for (text, form) in [
            ("application/json", Some(Form::Json)),
            ("Application/JSON; charset=utf-8", Some(Form::Json)),
            (" application/msgpack ", Some(Form::Msgpack)),
            ("application/jsonp", None),
            ("text/json", None),
            ("", None),
        ] {
            assert_eq!(Form::of(text), form, "{text:?}");
        }
        assert_eq!(
            Form::accepted("text/html, application/msgpack;q=1, application/json"),
            Some(Form::Msgpack)
        );
        assert_eq!(Form::accepted("*/*"), None);
    }
}
