//! `/`: the cloud's own dialect, KMS 2016-01-20, for its SDKs. Parameters stand in the query and in a form body alike; a request is
//! signed in its headers (ACS3, ACS4) or in its parameters (RPC version 1). Until its nonce is taken it is a stranger's, as in `/v1`.

mod answer;
mod signature;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use keymill_core::access::Principal;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::operation::Operation;
use keymill_runtime::{Call, SignedNonce};
use keymill_wire::acs3;
use keymill_wire::aliyun::operations;
use keymill_wire::aliyun::parameters::{Decoded, Parameters};
use keymill_wire::aliyun::signature::SIGNATURE;
use keymill_wire::form;

use crate::body::{Announced, Room, Whose};
use crate::error::settle;
use crate::exchange::{Asked, perform};
use crate::server::Worker;
use crate::signature::{self as header_signature, Headers, incomplete};
use crate::stream::QUERY;
use crate::v1::NAME;
use answer::{Answers, Refused};

/// Bytes of a form body, at most: a secret of 30,720 bytes takes thrice as many where each has to be escaped.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long the body of a stranger may take.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
const FORM: &str = "application/x-www-form-urlencoded";

/// Tells whether a request is of this dialect.
pub(crate) fn is_at(path: &str) -> bool {
    path == "/"
}

/// Answers a request.
pub(crate) async fn handle(worker: &Worker, request: HttpRequest, mut payload: Payload) -> HttpResponse {
    let mut taken =
        Taken { answers: Answers::new(worker.gate.request_id(), &request), is_read: false, room: None };
    let response = match serve(worker, &request, &mut payload, &mut taken).await {
        Ok(response) => response,
        Err(refused) => taken.answers.refusal(refused),
    };
    let unread = (!taken.is_read).then_some(payload);
    settle(&request, unread, taken.room, response)
}

/// What a request has come to.
struct Taken {
    answers: Answers,
    is_read: bool,
    room: Option<Room>,
}

/// Who sent a request, and what keeps it from being sent again.
struct Known {
    principal: Principal,
    nonce: SignedNonce,
}

async fn serve(
    worker: &Worker,
    request: &HttpRequest,
    payload: &mut Payload,
    taken: &mut Taken,
) -> Result<HttpResponse, Refused> {
    let gate = &worker.gate;
    let source = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let stranger = |error: &Error| gate.refused_stranger(error.kind(), source);
    if request.method() != Method::POST && request.method() != Method::GET {
        let error = Error::new(ErrorKind::UnsupportedMethod, "requests come by GET or POST");
        stranger(&error);
        return Err(error.into());
    }
    let headers = Headers::of(request);
    let announced = Announced::of(request, MAX_BODY_BYTES).inspect_err(stranger)?;
    // One that is too long for the parser came as a header (see `stream`), and then alone.
    let query = match (request.uri().query(), headers.get(QUERY)) {
        (Some(_), Some(_)) => {
            let error = Error::new(ErrorKind::MalformedRequest, "the request has two queries");
            stranger(&error);
            return Err(error.into());
        }
        (query, None) => query.unwrap_or_default().into(),
        (None, Some(query)) => query,
    };
    let mut pairs = form::decode(query.as_bytes()).inspect_err(stranger)?;
    // What is signed in the headers is verified before the body is read.
    let verified = match request.headers().contains_key("authorization") {
        true => Some(header_signature::verify(gate, request, &headers, &pairs, source)?),
        false => None,
    };
    let (whose, timeout) = match verified {
        Some(_) => (Whose::Known(gate), worker.config.body_timeout),
        None => (Whose::Stranger(&worker.strangers), worker.config.body_timeout.min(STRANGER_TIMEOUT)),
    };
    let (body, room) = announced.read(whose, payload, timeout).await.inspect_err(stranger)?;
    taken.is_read = true;
    taken.room = room;
    if let Some(verified) = &verified {
        verified.check_body(&body).inspect_err(stranger)?;
        // It decides what the body says.
        if !body.is_empty() && !verified.signs("content-type") {
            let error = incomplete("content-type is not signed");
            stranger(&error);
            return Err(error.into());
        }
    }
    pairs.extend(of_body(&headers, &body).inspect_err(stranger)?);
    let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
    let parameters = Parameters::gather(pairs).inspect_err(stranger)?;
    taken.answers.choose_form(&parameters);
    let signed_inside = parameters.get(SIGNATURE).is_some();
    let (known, named) = match verified {
        Some(_) if signed_inside => {
            let error = incomplete("the request is signed twice: in its headers and in its parameters");
            stranger(&error);
            return Err(error.into());
        }
        Some(verified) => {
            let named = [headers.get(acs3::ACTION), headers.get(acs3::ACS_VERSION)];
            let known = Known { principal: verified.principal, nonce: verified.nonce };
            (known, named.map(|name| name.map(|name| name.into_owned())))
        }
        None => {
            let known = signature::verify(gate, request.method().as_str(), &parameters, source)?;
            (known, ["Action", "Version"].map(|name| parameters.get(name).map(str::to_owned)))
        }
    };
    let Known { principal, nonce } = admitted(worker, known, source)?;

    let call = Call {
        request_id: taken.answers.request_id(),
        principal,
        source,
        frontend: NAME,
        received: Instant::now(),
        nonce: Some(nonce),
    };
    let [action, version] = named;
    let operation = action.as_deref().and_then(Operation::by_name);
    let decoded = read(operation, action.as_deref(), version.as_deref(), &parameters);
    let is_text = matches!(decoded, Ok(Decoded { is_text: true, .. }));
    let is_dry_run = matches!(decoded, Ok(Decoded { is_dry_run: true, .. }));
    let opens_text = answer::opens_text(&decoded);
    let asked = Asked {
        operation,
        request: decoded.map(|decoded| decoded.request),
        is_text,
        is_dry_run,
        frame: None,
    };
    let answers = &taken.answers;
    let done = perform(worker, call, asked, |reply| answers.reply(worker, reply, opens_text)).await;
    done.map_err(Refused::from)
}

/// Takes the parameters of a form body; another body has none, and none may be taken for what it is not.
fn of_body<'b>(headers: &Headers<'_>, body: &'b Bytes) -> Result<Vec<form::Pair<'b>>> {
    let media_type = headers.get("content-type").unwrap_or_default();
    let is_form = media_type.split(';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(FORM);
    match (body.is_empty(), is_form) {
        (true, _) => Ok(Vec::new()),
        (false, true) => form::decode(body),
        (false, false) => Err(Error::new(ErrorKind::MalformedRequest, format!("a body is of type {FORM}"))),
    }
}

/// Lets a caller in whose signature holds: the access key is active still, and the nonce was not seen before.
fn admitted(worker: &Worker, known: Known, source: Option<IpAddr>) -> Result<Known> {
    let gate = &worker.gate;
    let stranger = |error: &Error| gate.refused_stranger(error.kind(), source);
    // The body may have taken its time.
    if !gate.is_admitted(&known.principal) {
        let error = Error::new(ErrorKind::AccessKeyInactive, "the access key is inactive");
        stranger(&error);
        return Err(error);
    }
    let key = &known.principal.access_key;
    worker.nonces.take(key, &known.nonce, gate.now()).inspect_err(stranger)?;
    gate.logged_in(key.as_str(), source);
    Ok(known)
}

/// Reads the request of a caller who is known.
fn read<'p>(
    operation: Option<Operation>,
    action: Option<&str>,
    version: Option<&str>,
    parameters: &Parameters<'p>,
) -> Result<Decoded<'p>> {
    let missing = |name| Error::new(ErrorKind::MissingParameter, format!("{name}: the parameter is missing"));
    match version {
        None => return Err(missing("Version")),
        Some(acs3::API_VERSION) => {}
        Some(_) => {
            let message = format!("the version of this API is {}", acs3::API_VERSION);
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
    }
    match (operation, action) {
        (Some(operation), _) => parameters.decode(operation),
        (None, None) => Err(missing("Action")),
        (None, Some(action)) => Err(match operations::by_name(action) {
            Some(known) => Error::new(ErrorKind::Unsupported, known.refusal()),
            None => Error::new(ErrorKind::OperationNotFound, "no operation of this name"),
        }),
    }
}
