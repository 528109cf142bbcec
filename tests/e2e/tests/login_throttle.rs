//! Logins that fail (D14): after too many from one source further ones are refused before anything is verified, for a time that grows; whoever
//! has logged in from there before is let try all the same. Time stands still but for what a test has pass.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_client::{ClientError, Credentials, HttpClient, ServerError};
use keymill_core::login::LoginRule;
use keymill_core::operation::DescribeLimitsRequest;
use keymill_e2e::{Answered, Caller, Raw, Web, audit_lines, eventually, metric, sign, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::clock::Clock;
use keymill_runtime::{EngineConfig, LoginConfig};

const RULE: LoginRule =
    LoginRule { failures: 5, window_ms: 60_000, first_wait_ms: 60_000, max_wait_ms: 200_000 };

const NOBODY: &str = "KMAKNOBODYNOBODYNOBODY22";

fn begin() -> (Live, Caller, Credentials) {
    let login = LoginConfig { rule: Some(RULE), ..LoginConfig::default() };
    let mut setup = Setup::new(EngineConfig { login, ..EngineConfig::default() });
    setup.clock = Clock::standing();
    let Started { live, credentials } = Live::start_with(setup);
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

/// Says hello with a signature that is none; returns the code of the refusal.
fn guess(live: &Live, id: &str) -> String {
    let mut raw = Raw::connect(live.address);
    let told = raw.hello(id, [7; 32]).expect("a refusal is told");
    assert!(raw.frame().is_none(), "and the connection closed");
    let (status, code, _) = told.face();
    assert_eq!(status, if code == "Throttling" { 429 } else { 400 });
    code
}

fn throttled<T>(answered: Answered<T>) -> ServerError {
    let error = answered.map(drop).expect_err("it is throttled");
    assert_eq!((error.status, &*error.code, error.retryable), (429, "Throttling", true), "{error:?}");
    error
}

fn failures(live: &Live, reason: &str) -> f64 {
    metric(live, &format!("keymill_authentication_failures_total{{reason=\"{reason}\"}}"))
}

#[test]
fn d14_a_source_that_guesses_is_kept_out_whomever_it_says_to_be() {
    let (live, mut root, credentials) = begin();
    let fresh = root.credentials(Vec::new());
    for n in 0..5 {
        let id = if n % 2 == 0 { NOBODY } else { fresh.access_key_id().as_str() };
        assert_eq!(guess(&live, id), "SignatureDoesNotMatch");
    }
    for id in [NOBODY, fresh.access_key_id().as_str(), "", "no id at all"] {
        assert_eq!(guess(&live, id), "Throttling");
    }
    // Nothing is verified: a good signature is told the same, and for how long.
    let error = throttled(Caller::try_new(&live, &fresh));
    assert_eq!(error.retry_after_ms, Some(60_000));
    // Who has logged in from there before, and who is in, are as they were.
    root.keys().unwrap();
    Caller::new(&live, &credentials).keys().unwrap();
    assert_eq!(metric(&live, "keymill_login_sources_throttled"), 1.0);
    live.clock.pass(Duration::from_millis(59_999));
    assert_eq!(throttled(Caller::try_new(&live, &fresh)).retry_after_ms, Some(1));
    live.clock.pass(Duration::from_millis(1));
    Caller::new(&live, &fresh);
    assert_eq!(metric(&live, "keymill_login_sources_throttled"), 0.0);
    assert_eq!(metric(&live, "keymill_login_throttles_total"), 1.0);
    assert_eq!(
        (failures(&live, "signature"), failures(&live, "unknown"), failures(&live, "throttled")),
        (2.0, 3.0, 6.0)
    );
    let of = |line: &serde_json::Value, reason: &str| match line["note"] == "strangers"
        && line["reason"] == reason
    {
        true => line["count"].as_u64().expect("a count"),
        false => 0,
    };
    eventually("what was refused is in the audit", || {
        let lines = audit_lines(live.site());
        (lines.iter().map(|line| of(line, "Throttling")).sum::<u64>() == 6).then_some(())
    });
    drop(root);
    verified(&live.halt());
}

#[test]
fn d14_each_time_outside_is_longer_up_to_the_longest_and_a_quiet_source_begins_anew() {
    let (live, mut root, _) = begin();
    for _ in 0..5 {
        guess(&live, NOBODY);
    }
    let fresh = root.credentials(Vec::new());
    for wait in [60_000, 120_000, 200_000, 200_000] {
        assert_eq!(throttled(Caller::try_new(&live, &fresh)).retry_after_ms, Some(wait));
        live.clock.pass(Duration::from_millis(wait.into()));
        assert_eq!(guess(&live, NOBODY), "SignatureDoesNotMatch", "it may try once");
        assert_eq!(guess(&live, NOBODY), "Throttling");
    }
    live.clock.pass(Duration::from_millis(400_000));
    for _ in 0..5 {
        assert_eq!(guess(&live, NOBODY), "SignatureDoesNotMatch");
    }
    assert_eq!(guess(&live, NOBODY), "Throttling");
    assert_eq!(throttled(Caller::try_new(&live, &fresh)).retry_after_ms, Some(60_000));
}

#[test]
fn d14_nobody_is_locked_out_of_where_it_is_known_by_guesses_at_its_own_key() {
    let (live, _root, credentials) = begin();
    for _ in 0..50 {
        assert_eq!(
            guess(&live, credentials.access_key_id().as_str()),
            "SignatureDoesNotMatch",
            "it is tried"
        );
    }
    assert_eq!(guess(&live, NOBODY), "Throttling");
    Caller::new(&live, &credentials).keys().unwrap();
    // A signature that was good for another connection is a guess like any other.
    let mut raw = Raw::connect(live.address);
    let nonce = Raw::connect(live.address).nonce;
    let id = credentials.access_key_id().as_str();
    let secret = live.bootstrap_secret().unwrap();
    assert_eq!(raw.hello(id, sign(secret, &nonce, id)).unwrap().face().1, "SignatureDoesNotMatch");
}

#[test]
fn d14_every_signed_request_over_http_is_a_login_and_frontends_count_together() {
    let (live, mut root, credentials) = begin();
    let web = Web::over(&live);
    let client = HttpClient::new(&format!("http://{}", web.address), Duration::from_secs(20)).unwrap();
    let call = |credentials: &Credentials| match client.call(DescribeLimitsRequest::default(), credentials) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(error)) => Err(error),
        Err(other) => panic!("{other}"),
    };
    let good = root.credentials(serde_json::from_value(serde_json::json!([{ "Role": "Auditor" }])).unwrap());
    for _ in 0..20 {
        call(&good).unwrap();
    }
    let wrong = Credentials::new(good.access_key_id().clone(), "not the secret".into());
    for _ in 0..3 {
        assert_eq!(call(&wrong).unwrap_err().code, "SignatureDoesNotMatch");
    }
    (0..2).for_each(|_| assert_eq!(guess(&live, NOBODY), "SignatureDoesNotMatch"));
    assert_eq!(guess(&live, NOBODY), "Throttling");
    let fresh = root.credentials(Vec::new());
    assert_eq!(throttled(call(&fresh)).retry_after_ms, Some(60_000));
    throttled(Caller::try_new(&live, &fresh));
    // Known over one frontend is known over the other.
    call(&credentials).unwrap();
    Caller::new(&live, &good);
    call(&good).unwrap();
    live.clock.pass(Duration::from_secs(60));
    call(&fresh).unwrap_err();
    Caller::new(&live, &fresh);
    drop(client);
    drop(web);
}

#[test]
fn d14_without_a_rule_guesses_are_counted_and_nobody_is_kept_out() {
    let login = LoginConfig { rule: None, ..LoginConfig::default() };
    let Started { live, credentials } = Live::start(EngineConfig { login, ..EngineConfig::default() });
    for _ in 0..150 {
        assert_eq!(guess(&live, NOBODY), "SignatureDoesNotMatch");
    }
    Caller::new(&live, &credentials).keys().unwrap();
    assert_eq!(failures(&live, "unknown"), 150.0);
}
