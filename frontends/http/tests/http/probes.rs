//! What needs no signature.

use std::collections::{HashMap, HashSet};

use keymill_http::{Config, bind};
use serde_json::json;

use crate::site::Site;

#[test]
fn readiness_follows_the_programs_word_and_liveness_does_not() {
    let site = Site::start();
    let mut client = site.client();
    assert_eq!(client.get("/healthz").status, 200);
    let answer = client.get("/readyz");
    assert_eq!((answer.status, &*answer.text()), (503, "not all listeners serve yet\n"));
    site.readiness.set(true);
    let answer = client.get("/readyz");
    assert_eq!((answer.status, &*answer.text()), (200, "ready\n"));
    site.readiness.set(false);
    assert_eq!(client.get("/readyz").status, 503);
    client.send_raw(b"HEAD /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
}

#[test]
fn other_paths_and_methods_are_not_found() {
    let site = Site::start();
    for target in [
        "PUT /v1",
        "GET /v1",
        "GET /v1/",
        "GET /v1/Encrypt",
        "PUT /v1/Encrypt",
        "GET /v1/Encrypt/../ListKeys",
        "GET /v2/Encrypt",
        "POST /metrics",
        "DELETE /healthz",
        "GET /openapi.json",
        "POST /v1/Encrypt/x",
    ] {
        let mut client = site.client();
        client.send_raw(format!("{target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
        assert_eq!(client.read().unwrap().refusal(), (404, "InvalidAction.NotFound".into()), "{target}");
    }
}

#[test]
fn a_listener_outside_loopback_is_refused() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let Err(error) = bind(Config::new(address.parse().unwrap())) else { panic!("{address}") };
        assert!(error.to_string().contains("needs TLS"), "{error}");
    }
}

#[test]
fn the_exposition_is_well_formed_and_counts_what_happened() {
    let site = Site::start();
    let mut client = site.client();
    let key = client.key();
    client.call("Encrypt", &json!({"KeyId": key, "Plaintext": "YQ=="}));
    client.post("Encrypt", &json!({"KeyId": key}));
    client.get("/healthz");
    let answer = client.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    assert!(text.ends_with('\n'));
    let mut series = HashMap::new();
    let mut typed = HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name.to_owned(), value.parse::<f64>().unwrap()).is_none(), "{line}");
        }
    }
    for (name, at_least) in [
        (r#"keymill_requests_total{op="Encrypt",outcome="ok"}"#, 1.0),
        (r#"keymill_requests_total{op="Encrypt",outcome="invalid"}"#, 1.0),
        (r#"keymill_connections{frontend="http"}"#, 1.0),
        (r#"keymill_stage_duration_seconds_count{stage="encode"}"#, 1.0),
    ] {
        assert!(series.get(name).is_some_and(|value| *value >= at_least), "{name}: {:?}", series.get(name));
    }
    assert_eq!(series.get("keymill_requests_in_flight"), Some(&0.0));
}
