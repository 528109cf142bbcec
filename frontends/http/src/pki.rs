//! What certificate authorities tell everybody, without a signature: `/pki/<authority>.crt`, `/pki/<authority>.crl`, and answers about single
//! certificates (RFC 6960, appendix A): `POST /pki/<authority>/ocsp` and `GET /pki/<authority>/ocsp/<base64>`.

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_runtime::gate::Published;

use crate::body::{Announced, Whose};
use crate::error::{refusal, settle};
use crate::server::Worker;

const PREFIX: &str = "/pki/";
/// Bytes of a question, at most; it has about a hundred.
const QUESTION_BYTES: usize = 4 * 1024;
const CERTIFICATE: HeaderValue = HeaderValue::from_static("application/pkix-cert");
const LIST: HeaderValue = HeaderValue::from_static("application/pkix-crl");
const QUESTION: &str = "application/ocsp-request";
const ANSWER: HeaderValue = HeaderValue::from_static("application/ocsp-response");
/// Clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    Certificate(&'p str),
    List(&'p str),
    /// With the question, where that is a part of the path.
    Answer(&'p str, Option<&'p str>),
}

/// Tells whether a path is of this kind.
pub(crate) fn is_at(path: &str) -> bool {
    place(path).is_some()
}

fn place(path: &str) -> Option<Place<'_>> {
    let rest = path.strip_prefix(PREFIX)?;
    match rest.split_once('/') {
        None => {
            let name = |suffix| rest.strip_suffix(suffix).filter(|name| !name.is_empty());
            name(".crt").map(Place::Certificate).or_else(|| name(".crl").map(Place::List))
        }
        Some((name, "ocsp" | "ocsp/")) => Some(Place::Answer(name, None)),
        Some((name, rest)) => Some(Place::Answer(name, Some(rest.strip_prefix("ocsp/")?))),
    }
}

/// Answers a request.
pub(crate) async fn handle(worker: &Worker, request: HttpRequest, mut payload: Payload) -> HttpResponse {
    let mut is_read = false;
    let response = match serve(worker, &request, &mut payload, &mut is_read).await {
        Ok(response) => response,
        Err(error) => refusal(&error, worker.gate.request_id()),
    };
    settle(&request, (!is_read).then_some(payload), None, response)
}

async fn serve(
    worker: &Worker,
    request: &HttpRequest,
    payload: &mut Payload,
    is_read: &mut bool,
) -> Result<HttpResponse> {
    let (gate, method) = (&worker.gate, request.method());
    let is_get = method == Method::GET || method == Method::HEAD;
    let no_such =
        || Error::new(ErrorKind::ResourceNotFound, "there is no such authority, or it has none yet");
    let not_so = || Error::new(ErrorKind::OperationNotFound, "there is nothing at this path for this method");
    let place = place(request.uri().path()).ok_or_else(no_such)?;
    match place {
        Place::Certificate(name) if is_get => {
            Ok(found(CERTIFICATE, gate.authority_certificate(name).ok_or_else(no_such)?))
        }
        Place::List(name) if is_get => Ok(found(LIST, gate.authority_crl(name).ok_or_else(no_such)?)),
        Place::Answer(name, Some(question)) if is_get => {
            let question = decoded(question)?;
            Ok(found(ANSWER, gate.answer_ocsp(name, &question).await.ok_or_else(no_such)?))
        }
        Place::Answer(name, None) if method == Method::POST => {
            let media_type =
                request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
            if !media_type.eq_ignore_ascii_case(QUESTION) {
                let why = format!("content-type is {QUESTION}");
                return Err(Error::new(ErrorKind::MalformedRequest, why));
            }
            let announced = Announced::of(request, QUESTION_BYTES)?;
            let timeout = worker.config.body_timeout;
            let (body, _): (Bytes, _) =
                announced.read(Whose::Stranger(&worker.strangers), payload, timeout).await?;
            *is_read = true;
            Ok(found(ANSWER, gate.answer_ocsp(name, &body).await.ok_or_else(no_such)?))
        }
        Place::Certificate(_) | Place::List(_) | Place::Answer(..) => Err(not_so()),
    }
}

fn found(media_type: HeaderValue, Published { der, max_age }: Published) -> HttpResponse {
    let cached = match max_age.as_secs() {
        0 => "no-store".to_owned(),
        seconds => format!("public, max-age={seconds}"),
    };
    HttpResponse::build(StatusCode::OK)
        .insert_header((header::CONTENT_TYPE, media_type))
        .insert_header((header::CACHE_CONTROL, cached))
        .body(der)
}

/// Reads a question in a path: base64, of which what a path cannot hold is written as `%2F` and the like.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let odd = || Error::new(ErrorKind::MalformedRequest, "the question is no base64 of up to 4096 bytes");
    if text.len() > 2 * QUESTION_BYTES {
        return Err(odd());
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |c: u8| (c as char).to_digit(16).ok_or_else(odd);
                plain.push((digit(*high)? << 4 | digit(*low)?) as u8);
                after
            }
            (byte, after) => {
                plain.push(*byte);
                after
            }
        };
    }
    BASE64.decode(plain).map_err(|_| odd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_others_are_none() {
        for (path, at) in [
            ("/pki/corp.crt", Some(Place::Certificate("corp"))),
            ("/pki/corp.crl", Some(Place::List("corp"))),
            ("/pki/a.crl.crl", Some(Place::List("a.crl"))),
            ("/pki/corp/ocsp", Some(Place::Answer("corp", None))),
            ("/pki/corp/ocsp/", Some(Place::Answer("corp", None))),
            ("/pki/corp/ocsp/MEUw/a+b=", Some(Place::Answer("corp", Some("MEUw/a+b=")))),
            ("/pki/.crl", None),
            ("/pki/corp", None),
            ("/pki/corp/crl", None),
            ("/pki/", None),
            ("/pkix/corp.crl", None),
        ] {
            assert_eq!(place(path), at, "{path}");
        }
    }

    #[test]
    fn a_question_in_a_path_is_base64_as_a_path_holds_it() {
        assert_eq!(decoded("_").ok(), None);
        assert_eq!(decoded("+/8=").unwrap(), [0xfb, 0xff]);
        assert_eq!(decoded("%2B%2f8%3D").unwrap(), [0xfb, 0xff]);
        assert_eq!(decoded("+/8").unwrap(), [0xfb, 0xff]);
        for odd in ["%", "%2", "%zz", "a", "a b=", &"A".repeat(8_193)] {
            assert!(decoded(odd).is_err(), "{odd:.10}");
        }
    }
}
