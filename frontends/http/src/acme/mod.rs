//! ACME (RFC 8555) below `/acme/`, where the configuration offers it. A request is read and checked in this order: its form, its URL, its nonce,
//! who signed it, what it says. What it changes goes to the gate.

mod answer;
mod resource;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use keymill_acme::{Jwk, Jws, Nonces, Route, Signer, Urls, Verified, reply};
use keymill_core::acme::{Account, Problem, ProblemKind};
use keymill_core::limit;
use keymill_runtime::{Call, FrontendError, Gate};
use parking_lot::Mutex;

use crate::body::{Announced, Whose};
use crate::error::settle;
use crate::server::Worker;
use answer::{Answer, Refused};

const PREFIX: &str = "/acme/";
const REQUEST: &str = "application/jose+json";

/// What all workers share of the dialect.
pub(crate) struct Acme {
    urls: Urls,
    nonces: Mutex<Nonces>,
}

impl Acme {
    /// Makes it, where ACME is offered.
    pub(crate) fn of(gate: &Gate) -> Result<Option<Arc<Self>>, FrontendError> {
        let Some(config) = gate.acme() else { return Ok(None) };
        let wrong = |why: &str| FrontendError(format!("acme.url {}: {why}", config.url));
        let urls = Urls::new(&config.url).map_err(wrong)?;
        let key = gate.challenge().map_err(|error| FrontendError(format!("nonces of ACME: {error}")))?;
        Ok(Some(Arc::new(Self { urls, nonces: Mutex::new(Nonces::new(&key)) })))
    }
}

/// Tells whether a path is of this dialect.
pub(crate) fn is_at(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// One request on its way.
struct Exchange<'w> {
    gate: &'w Gate,
    acme: &'w Acme,
    route: Route,
    source: Option<IpAddr>,
    received: Instant,
}

/// Who signed a request.
enum Who {
    /// A key, told whole: of no account, or of one that is looked for by it.
    Key(Jwk),
    /// An account.
    Account(Box<Requester>),
}

/// An account whose key signed a request.
struct Requester {
    account: Arc<Account>,
    key: Jwk,
    call: Call,
}

/// Answers a request.
pub(crate) async fn handle(
    worker: &Worker,
    acme: &Acme,
    request: HttpRequest,
    mut payload: Payload,
) -> HttpResponse {
    let mut is_read = false;
    let answered = serve(worker, acme, &request, &mut payload, &mut is_read).await;
    // RFC 8555 §6.5: with each answer to a POST, be it an error, comes a nonce.
    let is_nonced =
        *request.method() == Method::POST || Route::parse(request.path()) == Some(Route::NewNonce);
    let nonce = is_nonced.then(|| acme.nonces.lock().give());
    let response = answered.unwrap_or_else(Answer::from).response(&acme.urls, nonce);
    settle(&request, (!is_read).then_some(payload), None, response)
}

async fn serve(
    worker: &Worker,
    acme: &Acme,
    request: &HttpRequest,
    payload: &mut Payload,
    is_read: &mut bool,
) -> Result<Answer, Refused> {
    let route = Route::parse(request.uri().path()).ok_or_else(Refused::not_found)?;
    let source = request.peer_addr().map(|peer| peer.ip());
    let exchange = Exchange { gate: &worker.gate, acme, route, source, received: Instant::now() };
    match *request.method() {
        Method::GET | Method::HEAD => exchange.open_to_all(*request.method() == Method::HEAD),
        Method::POST => {
            let body = read_body(worker, request, payload).await?;
            *is_read = true;
            exchange.signed(&body).await
        }
        _ => Err(Refused::method()),
    }
}

async fn read_body(
    worker: &Worker,
    request: &HttpRequest,
    payload: &mut Payload,
) -> Result<bytes::Bytes, Refused> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    // RFC 8555 §6.2.
    if !media_type.eq_ignore_ascii_case(REQUEST) {
        return Err(Refused::media_type(REQUEST));
    }
    let announced = Announced::of(request, limit::ACME_BODY_BYTES)?;
    let whose = Whose::Stranger(&worker.strangers);
    let (body, _) = announced.read(whose, payload, worker.config.body_timeout).await?;
    Ok(body)
}

impl Exchange<'_> {
    /// Answers what is asked for without a signature.
    fn open_to_all(&self, is_head: bool) -> Result<Answer, Refused> {
        match self.route {
            Route::Directory => Ok(Answer::json(reply::directory(&self.acme.urls, true))),
            Route::NewNonce if is_head => Ok(Answer::empty(200)),
            Route::NewNonce => Ok(Answer::empty(204)),
            _ => Err(Refused::method()),
        }
    }

    async fn signed(&self, body: &[u8]) -> Result<Answer, Refused> {
        let jws = Jws::read(body)?;
        jws.check_url(&self.acme.urls.of(self.route))?;
        self.acme.nonces.lock().take(jws.nonce.as_deref().unwrap_or_default())?;
        let (who, said) = self.verify(jws)?;
        self.answer(who, said).await
    }

    /// Finds out who signed. A new account's request is signed by a key that it tells whole, a revocation may be; every other names its account
    /// (RFC 8555 §6.2).
    fn verify(&self, jws: Jws) -> Result<(Who, Verified), Refused> {
        let malformed = |why: &str| Problem::new(ProblemKind::Malformed, why);
        let strange = |problem: Problem| {
            self.gate.refused_by_acme(self.source);
            problem
        };
        match jws.signer.clone() {
            Signer::Key(key) if matches!(self.route, Route::NewAccount | Route::RevokeCert) => {
                let thumbprint = key.account_key().thumbprint;
                self.gate.check_acme_source(&thumbprint, self.source)?;
                let said = jws.verify(&key).map_err(strange)?;
                Ok((Who::Key(key), said))
            }
            Signer::Key(_) => Err(malformed("the request names its account by kid").into()),
            Signer::Account(_) if self.route == Route::NewAccount => {
                Err(malformed("a new account's request tells its key by jwk").into())
            }
            Signer::Account(url) => {
                let unknown = || Problem::new(ProblemKind::AccountDoesNotExist, "the account does not exist");
                let Some(Route::Account(id)) = self.acme.urls.read(&url) else {
                    return Err(strange(unknown()).into());
                };
                self.gate.check_acme_source(&id.to_string(), self.source)?;
                let account = self.gate.acme_account(&id).ok_or_else(|| strange(unknown()))?;
                let key = Jwk::parse(&account.key.jwk)?;
                let said = jws.verify(&key).map_err(strange)?;
                let call = self.gate.acme_call(&account, self.source, self.received)?;
                Ok((Who::Account(Box::new(Requester { account, key, call })), said))
            }
        }
    }
}
