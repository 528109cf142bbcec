//! Problems as documents (RFC 7807, RFC 8555 §6.7), and the status of HTTP that goes with each.

use keymill_core::acme::{Problem, ProblemKind};
use serde_json::{Map, Value, json};

use crate::jws::ALGORITHMS;
use crate::reply::identifier;

/// The media type of a document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Returns the status of HTTP.
pub fn status(kind: ProblemKind) -> u16 {
    use ProblemKind::*;
    match kind {
        AccountDoesNotExist
        | AlreadyRevoked
        | BadCsr
        | BadNonce
        | BadPublicKey
        | BadRevocationReason
        | BadSignatureAlgorithm
        | Compound
        | Connection
        | Dns
        | IncorrectResponse
        | InvalidContact
        | Malformed
        | RejectedIdentifier
        | UnsupportedContact
        | UnsupportedIdentifier => 400,
        ExternalAccountRequired | OrderNotReady | Unauthorized => 403,
        RateLimited => 429,
        ServerInternal => 500,
    }
}

/// Writes a document.
pub fn document(problem: &Problem) -> Value {
    let mut document = members(problem);
    document.insert("status".into(), status(problem.kind).into());
    Value::Object(document)
}

/// Writes a document inside another, where it has no status of its own.
pub(crate) fn members(problem: &Problem) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("type".into(), format!("urn:ietf:params:acme:error:{}", problem.kind.name()).into());
    members.insert("detail".into(), problem.detail.clone().into());
    if let Some(name) = &problem.name {
        members.insert("identifier".into(), identifier(name));
    }
    if !problem.each.is_empty() {
        let each = problem.each.iter().map(|problem| Value::Object(self::members(problem)));
        members.insert("subproblems".into(), each.collect());
    }
    // RFC 8555 §6.2.
    if problem.kind == ProblemKind::BadSignatureAlgorithm {
        members.insert("algorithms".into(), json!(ALGORITHMS));
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_tells_type_status_and_what_is_below() {
        let name = "a.example".parse().unwrap();
        let below = Problem::new(ProblemKind::Dns, "no address").of(&name);
        let other = Problem::new(ProblemKind::RejectedIdentifier, "not ours");
        let told = document(&Problem::all(vec![below, other]).unwrap());
        assert_eq!(told["type"], "urn:ietf:params:acme:error:compound");
        assert_eq!(told["status"], 400);
        assert_eq!(told["subproblems"][0]["identifier"], json!({"type": "dns", "value": "a.example"}));
        assert!(told["subproblems"][0].get("status").is_none() && told.get("identifier").is_none());
    }

    #[test]
    fn a_wrong_algorithm_is_told_with_those_that_are_right() {
        let told = document(&Problem::new(ProblemKind::BadSignatureAlgorithm, "no"));
        assert_eq!(told["algorithms"], json!(["ES256", "ES384", "EdDSA", "RS256"]));
        for kind in ProblemKind::ALL {
            assert!((400..=500).contains(&status(*kind)));
        }
    }
}
