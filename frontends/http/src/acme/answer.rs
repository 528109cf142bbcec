//! Answers of the dialect: their statuses, headers and bodies.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use keymill_acme::{Route, Urls, problem};
use keymill_core::acme::{Problem, ProblemKind};
use keymill_core::error::{Error, ErrorKind};
use serde_json::Value;

const NONCE: HeaderName = HeaderName::from_static("replay-nonce");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static(problem::CONTENT_TYPE);
/// RFC 8555 §9.1.
const CHAIN: HeaderValue = HeaderValue::from_static("application/pem-certificate-chain");

/// An answer.
pub(super) struct Answer {
    status: u16,
    body: Option<(HeaderValue, String)>,
    location: Option<String>,
    up: Option<String>,
    retry_after_s: Option<u32>,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, body: None, location: None, up: None, retry_after_s: None }
    }

    pub(super) fn json(body: Value) -> Self {
        Self { body: Some((JSON, body.to_string())), ..Self::empty(200) }
    }

    /// Answers with certificates in PEM.
    pub(super) fn chain(pem: String) -> Self {
        Self { body: Some((CHAIN, pem)), ..Self::empty(200) }
    }

    pub(super) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) fn location(self, url: String) -> Self {
        Self { location: Some(url), ..self }
    }

    /// Says of what the answer is a part.
    pub(super) fn up(self, url: String) -> Self {
        Self { up: Some(url), ..self }
    }

    pub(super) fn retry_after(self, seconds: Option<u32>) -> Self {
        Self { retry_after_s: seconds, ..self }
    }

    pub(super) fn response(self, urls: &Urls, nonce: Option<String>) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        // RFC 8555 §7.1, §7.2.
        let index = urls.of(Route::Directory);
        response.append_header((header::LINK, format!("<{index}>;rel=\"index\"")));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(up) = self.up {
            response.append_header((header::LINK, format!("<{up}>;rel=\"up\"")));
        }
        if let Some(nonce) = nonce {
            response.insert_header((NONCE, nonce));
        }
        if let Some(location) = self.location {
            response.insert_header((header::LOCATION, location));
        }
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        match self.body {
            None => response.finish(),
            Some((media_type, body)) => response.insert_header((header::CONTENT_TYPE, media_type)).body(body),
        }
    }
}

/// Why a request is refused.
pub(super) struct Refused {
    problem: Box<Problem>,
    /// Where it is another than goes with the problem.
    status: Option<u16>,
    location: Option<String>,
}

impl Refused {
    fn with(status: u16, why: &str) -> Self {
        Self { status: Some(status), ..Problem::new(ProblemKind::Malformed, why).into() }
    }

    /// There is nothing at the place, or it is another account's.
    pub(super) fn not_found() -> Self {
        Self::with(404, "there is nothing here")
    }

    /// The place is asked in another way.
    pub(super) fn method() -> Self {
        Self::with(405, "this place is asked by another method, or by a request that names its account")
    }

    /// The body is of another media type.
    pub(super) fn media_type(needed: &str) -> Self {
        Self::with(415, &format!("content-type is {needed}"))
    }

    /// Something of the kind is there.
    pub(super) fn conflict(problem: Problem, location: String) -> Self {
        Self { problem: problem.into(), status: Some(409), location: Some(location) }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem: problem.into(), status: None, location: None }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::BodyTooLarge => Some(413),
            ErrorKind::Deadline => Some(408),
            ErrorKind::Busy => Some(503),
            _ => None,
        };
        Self { problem: Box::new(error.into()), status, location: None }
    }
}

impl From<Refused> for Answer {
    fn from(Refused { problem, status, location }: Refused) -> Self {
        let mut document = problem::document(&problem);
        let status = status.unwrap_or_else(|| problem::status(problem.kind));
        document["status"] = status.into();
        Self {
            body: Some((PROBLEM, document.to_string())),
            location,
            retry_after_s: problem.retry_after_s,
            ..Self::empty(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'r>(response: &'r HttpResponse, name: &str) -> Option<&'r str> {
        response.headers().get(name)?.to_str().ok()
    }

    #[test]
    fn a_problem_is_told_with_its_status_when_to_come_again_and_where_to_begin() {
        let urls = Urls::new("https://ca.example").unwrap();
        let problem = Problem::new(ProblemKind::RateLimited, "too many").retry_after_s(7);
        let response = Answer::from(Refused::from(problem)).response(&urls, Some("n".into()));
        assert_eq!(response.status(), 429);
        assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&response, "retry-after"), Some("7"));
        assert_eq!(header(&response, "replay-nonce"), Some("n"));
        assert_eq!(header(&response, "link"), Some("<https://ca.example/acme/directory>;rel=\"index\""));
        let large = Error::new(ErrorKind::BodyTooLarge, "large");
        assert_eq!(Answer::from(Refused::from(large)).response(&urls, None).status(), 413);
        let taken = Refused::conflict(Problem::new(ProblemKind::Malformed, "taken"), "https://x".into());
        let response = Answer::from(taken).response(&urls, None);
        assert_eq!((response.status().as_u16(), header(&response, "location")), (409, Some("https://x")));
    }
}
