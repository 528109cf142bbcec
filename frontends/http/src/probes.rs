//! What is answered without a signature: metrics, liveness, readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use keymill_runtime::Gate;

const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Whether all listeners of the program serve; clones share it. It begins as not ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether all listeners serve.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Tells whether all listeners serve.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

pub(crate) fn metrics(gate: &Gate) -> HttpResponse {
    text(StatusCode::OK, EXPOSITION, gate.expose_metrics())
}

pub(crate) fn healthz() -> HttpResponse {
    text(StatusCode::OK, TEXT, "alive\n".into())
}

/// Answers 200 while everything is served, else 503 with a sentence for each trouble.
pub(crate) fn readyz(gate: &Gate, readiness: &Readiness, is_stopping: bool) -> HttpResponse {
    let mut troubles = gate.troubles();
    if is_stopping {
        troubles.push("the server is stopping".into());
    } else if !readiness.is_ready() {
        troubles.push("not all listeners serve yet".into());
    }
    match troubles.is_empty() {
        true => text(StatusCode::OK, TEXT, "ready\n".into()),
        false => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, troubles.join("\n") + "\n"),
    }
}

fn text(status: StatusCode, content_type: HeaderValue, body: String) -> HttpResponse {
    HttpResponse::build(status).insert_header((header::CONTENT_TYPE, content_type)).body(body)
}
