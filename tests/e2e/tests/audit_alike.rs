//! Requests that are answered in one moment share a line of the audit where they differ in nothing but id and time: each keeps its
//! record, and none is told under another's name.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use keymill_client::{ClientError, Connection};
use keymill_core::access::{Effect, Grant, ResourcePattern, Role};
use keymill_core::id::CmkId;
use keymill_core::operation::*;
use keymill_e2e::{Caller, Named, audit_lines, context, requests_of, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::EngineConfig;
use serde_json::Value;

const PLAINTEXT: &[u8] = b"x";

/// What a record must say of a request.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    principal: String,
    operation: &'static str,
    outcome: &'static str,
    cmk: Option<CmkId>,
    has_context: bool,
    items: u64,
    providers: Value,
}

fn encrypt(key: CmkId, pairs: &[(&str, &str)]) -> Request<'static> {
    EncryptRequest {
        key_id: key.key_ref(),
        plaintext: Bin::from(PLAINTEXT),
        encryption_context: context(pairs),
        timeout_ms: None,
    }
    .into()
}

/// Sends all requests in one go, and returns the ids of their answers in the order of the requests.
fn pipelined(connection: &mut Connection, requests: &[&Request<'_>]) -> Vec<String> {
    let sent: Vec<u64> = requests.iter().map(|request| connection.send(request).unwrap()).collect();
    let mut ids = HashMap::new();
    for _ in requests {
        let answer = connection.receive().unwrap();
        let number = answer.id();
        let id = match answer.result() {
            Ok(Reply::Encrypt(reply)) => reply.request_id.to_string(),
            Ok(other) => panic!("{other:?}"),
            Err(ClientError::Refused(error)) => error.request_id,
            Err(other) => panic!("{other}"),
        };
        ids.insert(number, id);
    }
    sent.iter().map(|number| ids.remove(number).expect("each request is answered")).collect()
}

/// Whether the keys of this run are in a token, whose part in it depends on their bulk mode.
fn in_tokens() -> bool {
    std::env::var_os("KEYMILL_TEST_HSM").is_some()
}

/// What a record says of who served a request: in software the name, in a token that somebody did.
fn served(is_ok: bool) -> Value {
    match (is_ok, in_tokens()) {
        (true, false) => serde_json::json!(["software"]),
        (true, true) => Value::Bool(true),
        (false, _) => Value::Null,
    }
}

fn providers_of(line: &Value) -> Value {
    let providers = &line["providers"];
    let is_any = providers.as_array().is_some_and(|names| !names.is_empty());
    if in_tokens() && is_any { Value::Bool(true) } else { providers.clone() }
}

fn told(line: &Value) -> Told {
    Told {
        principal: line["principal"].as_str().unwrap().to_owned(),
        operation: match line["operation"].as_str() {
            Some("Encrypt") => "Encrypt",
            _ => "another",
        },
        outcome: match line["outcome"].as_str() {
            Some("ok") => "ok",
            _ => "another",
        },
        cmk: line["keys"][0]["cmk"].as_str().map(|cmk| CmkId::parse(cmk).unwrap()),
        has_context: line.get("context").is_some(),
        items: line["items"].as_u64().unwrap(),
        providers: providers_of(line),
    }
}

#[test]
fn each_of_many_pipelined_requests_has_its_own_record_with_its_own_facts() {
    // One worker, so that two callers meet at one desk.
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_workers(1));
    let mut caller = Caller::new(&live, &credentials);
    let (one, two) = (caller.create_key(), caller.create_key());
    let other = caller.credentials(vec![Grant {
        effect: Effect::Allow,
        role: Role::Root.into(),
        resources: vec![ResourcePattern::All],
    }]);
    let gone = CmkId::from_bytes([7; 16]);
    let mut expected: HashMap<String, Told> = HashMap::new();
    for credentials in [&credentials, &other] {
        let mut connection = live.connect(credentials);
        let facts = |outcome, cmk, has_context| Told {
            principal: credentials.access_key_id().to_string(),
            operation: "Encrypt",
            outcome,
            cmk,
            has_context,
            items: if outcome == "ok" { 1 } else { 0 },
            providers: served(outcome == "ok"),
        };
        let kinds = [
            (encrypt(one, &[]), facts("ok", Some(one), false)),
            (encrypt(two, &[]), facts("ok", Some(two), false)),
            (encrypt(one, &[("row", "1")]), facts("ok", Some(one), true)),
            (encrypt(gone, &[]), facts("another", None, false)),
        ];
        // Runs of every length from one to more than a line holds, and each kind beside each other.
        let order: Vec<usize> = (0..700).map(|i| if i < 300 { 0 } else { i * i / 7 % kinds.len() }).collect();
        let requests: Vec<&Request<'_>> = order.iter().map(|kind| &kinds[*kind].0).collect();
        for (id, kind) in pipelined(&mut connection, &requests).into_iter().zip(&order) {
            let twice = expected.insert(id.clone(), kinds[*kind].1.clone());
            assert!(twice.is_none(), "{id} answered two requests");
        }
    }
    assert_eq!(expected.len(), 1_400);
    drop(caller);
    let site = live.halt();
    let lines: Vec<Value> =
        audit_lines(&site).into_iter().filter(|line| line["operation"] == "Encrypt").collect();
    assert!(lines.len() < 1_400 * 3 / 4, "{} lines for 1,400 requests", lines.len());
    for line in &lines {
        for id in requests_of(line) {
            assert_eq!(expected.remove(&id).as_ref(), Some(&told(line)), "{line}");
        }
    }
    assert!(expected.is_empty(), "{} requests have no record", expected.len());
    let counted: u64 = verified(&site).iter().filter_map(|report| report.outcomes.get("ok")).sum();
    assert!(counted >= 1_050, "{counted}");
}

#[test]
fn re_encryptions_under_unlike_contexts_are_told_apart() {
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_workers(1));
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let contexts: [&[(&str, &str)]; 3] = [&[("a", "1")], &[("b", "2")], &[]];
    let blobs: Vec<Vec<u8>> =
        contexts.iter().map(|pairs| caller.encrypt(key, PLAINTEXT, pairs).unwrap()).collect();
    let mut connection = live.connect(&credentials);
    let mut sent = 0;
    for (blob, source) in blobs.iter().zip(contexts) {
        for destination in contexts {
            let request: Request<'_> = ReEncryptRequest {
                ciphertext_blob: Bin::from(&blob[..]),
                source_encryption_context: context(source),
                destination_key_id: key.key_ref(),
                destination_encryption_context: context(destination),
                timeout_ms: None,
            }
            .into();
            connection.send(&request).unwrap();
            sent += 1;
        }
    }
    for _ in 0..sent {
        connection.receive().unwrap().result().unwrap();
    }
    drop((caller, connection));
    let site = live.halt();
    let lines = audit_lines(&site);
    let told: std::collections::BTreeSet<String> = lines
        .iter()
        .filter(|line| line["operation"] == "ReEncrypt")
        .map(|line| line["context"].as_str().unwrap_or("none").to_owned())
        .collect();
    assert_eq!(told.len(), 9, "each pair of contexts has a record of its own: {told:?}");
}
