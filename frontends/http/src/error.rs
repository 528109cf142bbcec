//! Answers of the HTTP frontend: every error is the JSON body of the wire crate, and every answer names its request.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::ConnectionType;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::RequestId;
use keymill_wire::error::status;
use keymill_wire::response::json_error;

use crate::body::Room;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-acs-request-id");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=utf-8");

/// Answers with a body that is there already.
pub(crate) fn answer(
    status: StatusCode,
    content_type: HeaderValue,
    request_id: RequestId,
    body: Vec<u8>,
) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((REQUEST_ID, request_id_value(request_id)))
        .body(body)
}

/// Answers with an error.
pub(crate) fn refusal(error: &Error, request_id: RequestId) -> HttpResponse {
    log_fault(error, request_id);
    let status = StatusCode::from_u16(status(error.kind())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer(status, JSON, request_id, json_error(error, request_id));
    tell_retry(&mut response, error);
    response
}

/// Logs what is our own fault.
pub(crate) fn log_fault(error: &Error, request_id: RequestId) {
    if error.kind() == ErrorKind::Internal {
        tracing::error!(request = %request_id, ?error, "a request failed by a fault of ours");
    }
}

/// Says when the request may be made again, where that is known.
pub(crate) fn tell_retry(response: &mut HttpResponse, error: &Error) {
    if let Some(ms) = error.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
}

fn request_id_value(request_id: RequestId) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(request_id.to_string())).expect("hexadecimal digits are ASCII")
}

/// Makes the connection close behind an answer to a request that is partly `unread`, and behind chunks, which the stream does
/// not follow; holds `room` until the answer is written.
pub(crate) fn settle(
    request: &HttpRequest,
    unread: Option<Payload>,
    room: Option<Room>,
    mut response: HttpResponse,
) -> HttpResponse {
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    if unread.is_none() && room.is_none() {
        return response;
    }
    response.map_body(|_, body| BoxBody::new(Settled { body, _unread: unread, _room: room }))
}

/// A body that keeps hold of its request. Of a payload that was dropped actix drains chunks for as long as they come; where one
/// is still held, it closes.
struct Settled {
    body: BoxBody,
    _unread: Option<Payload>,
    _room: Option<Room>,
}

impl MessageBody for Settled {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
