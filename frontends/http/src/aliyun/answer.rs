//! Answers of the cloud's dialect: one flat object, in JSON or XML; of a refusal the union of what the gateway and the service of the
//! cloud tell, since SDKs read either.

use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::{HttpRequest, HttpResponse};
use keymill_core::blob;
use keymill_core::error::{Error, ErrorClass, ErrorKind, Result};
use keymill_core::id::RequestId;
use keymill_core::operation::{Reply, Request};
use keymill_wire::aliyun::parameters::{Decoded, Parameters};
use keymill_wire::aliyun::{self, xml};
use keymill_wire::error::status;
use keymill_wire::response::json_reply;

use crate::error::{JSON, answer, log_fault, tell_retry};
use crate::server::Worker;

const XML: HeaderValue = HeaderValue::from_static("text/xml;charset=utf-8");

/// Why a request is refused.
pub(super) enum Refused {
    /// As the error says.
    Error(Error),
    /// The signature among the parameters differs: the caller is shown what should have been signed, which one SDK compares with its own.
    Mismatch {
        /// It holds the caller's own parameters, so it goes back to the caller and nowhere else.
        to_sign: String,
    },
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Error(error)
    }
}

/// How one request is answered.
pub(super) struct Answers {
    request_id: RequestId,
    host: String,
    is_xml: bool,
    is_dry_run: bool,
}

impl Answers {
    pub(super) fn new(request_id: RequestId, request: &HttpRequest) -> Self {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        // It is shown; no host has more characters (RFC 1035 §2.3.4).
        let host = host.chars().take(255).collect();
        Self { request_id, host, is_xml: false, is_dry_run: false }
    }

    pub(super) fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// Takes the form that the caller wants: JSON unless it is XML; and whether the request is only tried, whose refusals have codes of their own.
    pub(super) fn choose_form(&mut self, parameters: &Parameters<'_>) {
        self.is_xml = parameters.get("Format").is_some_and(|format| format.eq_ignore_ascii_case("xml"));
        self.is_dry_run = parameters.is_dry_run().unwrap_or(true);
    }

    /// Encodes a reply; `opens_text`: the plaintext that it holds is text.
    pub(super) fn reply(&self, worker: &Worker, reply: &Reply<'_>, opens_text: bool) -> HttpResponse {
        let started = Instant::now();
        let json = match reply {
            Reply::Decrypt(reply) if opens_text => aliyun::text_reply(reply),
            other => json_reply(other),
        };
        let response = self.encode(StatusCode::OK, "KMS", json);
        worker.gate.metrics().encoded(started.elapsed());
        response
    }

    /// Encodes a refusal.
    pub(super) fn refusal(&self, refused: Refused) -> HttpResponse {
        let (error, message) = match refused {
            Refused::Error(error) => {
                let message = error.message().to_owned();
                (error, message)
            }
            Refused::Mismatch { to_sign } => {
                let message = aliyun::mismatch(&to_sign);
                (
                    Error::new(ErrorKind::SignatureMismatch, "the signature does not match the request"),
                    message,
                )
            }
        };
        log_fault(&error, self.request_id);
        let number = status(error.kind());
        let code = match (self.is_dry_run, error.kind(), error.kind().class()) {
            (true, ErrorKind::DryRun, _) | (false, ..) => error.kind().code(),
            (true, _, ErrorClass::Invalid) => "ValidationError",
            (true, _, ErrorClass::Denied) => "AccessDeniedError",
            (true, ..) => error.kind().code(),
        };
        let json = aliyun::error(code, number, &message, self.request_id, &self.host);
        let status = StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.encode(status, "Error", json);
        tell_retry(&mut response, &error);
        response
    }

    fn encode(&self, status: StatusCode, root: &str, json: Vec<u8>) -> HttpResponse {
        match self.is_xml.then(|| xml::write(root, &json)).flatten() {
            Some(xml) => answer(status, XML, self.request_id, xml.into_bytes()),
            None => answer(status, JSON, self.request_id, json),
        }
    }
}

/// Tells whether a request is to open a blob whose plaintext is text: if it opens, its header said the truth.
pub(super) fn opens_text(decoded: &Result<Decoded<'_>>) -> bool {
    match decoded {
        Ok(Decoded { request: Request::Decrypt(request), .. }) => blob::says_text(&request.ciphertext_blob),
        _ => false,
    }
}
