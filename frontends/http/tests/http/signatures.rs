//! Who is refused: D1 to D5 of the security cases, as far as they concern a signature over HTTP.

use serde_json::{Value, json};

use crate::client::{Client, Credentials, Signed, now};
use crate::site::{Site, three_guesses};

fn limits() -> Signed {
    Signed::new("DescribeLimits", "{}")
}

// D1
#[test]
fn absent_broken_and_downgraded_signatures_are_refused() {
    let site = Site::start();
    let mut client = site.client();
    let good = limits().sign(&site.root);
    let value = good.headers.last().unwrap().1.clone();
    let (head, signature) = value.split_once(",Signature=").unwrap();
    for (authorization, code) in [
        ("".to_owned(), "UnsupportedAuthentication"),
        ("none".to_owned(), "UnsupportedAuthentication"),
        ("Basic YTpi".to_owned(), "UnsupportedAuthentication"),
        (value.replace("SHA256 ", "SM3 "), "UnsupportedAuthentication"),
        (value.replace("ACS3", "ACS4"), "IncompleteSignature"),
        (head.to_owned(), "IncompleteSignature"),
        (format!("{head},Signature="), "IncompleteSignature"),
        (format!("{head},Signature={}", &signature[1..]), "IncompleteSignature"),
        (format!("{head},Signature={}", signature.to_uppercase()), "IncompleteSignature"),
        (format!("{head},Signature={}", "0".repeat(64)), "SignatureDoesNotMatch"),
    ] {
        let answer = client.send(&good.clone().with("authorization", authorization.clone()));
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{authorization}");
        assert_eq!(answer.header("connection"), Some("close"), "a stranger's connection ends");
    }
    let answer = client.send(&good.clone().without("authorization"));
    assert_eq!(answer.refusal(), (400, "IncompleteSignature".into()));
    assert_eq!(client.send(&good).status, 200, "nothing of this burnt the nonce");
}

#[test]
fn a_wrong_secret_and_an_unknown_id_are_refused() {
    let site = Site::start();
    let mut client = site.client();
    let wrong = Credentials { secret: site.root.secret.clone() + "x", ..site.root.clone() };
    assert_eq!(client.send(&limits().sign(&wrong)).refusal(), (400, "SignatureDoesNotMatch".into()));
    let unknown = Credentials { id: "nobody-knows-me".into(), ..site.root.clone() };
    assert_eq!(client.send(&limits().sign(&unknown)).refusal(), (404, "InvalidAccessKeyId.NotFound".into()));
}

// D2
#[test]
fn whatever_is_changed_behind_the_signature_is_noticed() {
    let site = Site::start();
    let mut client = site.client();
    let good = limits().sign(&site.root);
    for (name, value) in [
        ("host", "b"),
        ("content-type", "application/msgpack"),
        ("x-acs-action", "ListKeys"),
        ("x-acs-version", "2016-01-21"),
        ("x-acs-signature-nonce", "another"),
        ("x-acs-content-sha256", "0000000000000000000000000000000000000000000000000000000000000000"),
    ] {
        let answer = client.send(&good.clone().with(name, value));
        assert_eq!(answer.refusal(), (400, "SignatureDoesNotMatch".into()), "{name}");
    }
    for changed in [
        Signed { path: "/v1/ListKeys".into(), ..good.clone() },
        Signed { path: "/v1/DescribeLimits/".into(), ..good.clone() },
        Signed { path: "/v1/%44escribeLimits".into(), ..good.clone() },
        Signed { query: vec![("a", "b")], ..good.clone() },
        Signed { body: b"{} ".to_vec(), ..good.clone() },
        Signed { body: Vec::new(), ..good.clone() },
    ] {
        let answer = client.send(&changed);
        assert!((400..500).contains(&answer.status) && !answer.refusal().1.is_empty(), "{}", changed.head());
    }
    let mut doubled = good.clone();
    doubled.headers.push(("x-acs-action".into(), "DescribeLimits".into()));
    assert_eq!(client.send(&doubled).refusal(), (400, "SignatureDoesNotMatch".into()));
    assert_eq!(client.send(&good).status, 200);
}

#[test]
fn a_header_with_a_meaning_must_be_signed() {
    let site = Site::start();
    let mut client = site.client();
    for name in ["host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce"] {
        let request = limits();
        let value = request.headers.iter().find(|(found, _)| found == name).unwrap().1.clone();
        let request = request.without(name).sign(&site.root).with(name, value);
        assert_eq!(client.send(&request).refusal(), (400, "IncompleteSignature".into()), "{name}");
    }
}

// D4
#[test]
fn a_date_passes_up_to_15_minutes_either_side_of_the_servers_clock() {
    let site = Site::start();
    let mut client = site.client();
    let minutes = 60_000;
    for (offset, outcome) in [
        (15 * minutes - 5_000, None),
        (-15 * minutes + 5_000, None),
        (15 * minutes + 5_000, Some("InvalidTimeStamp.Expired")),
        (-15 * minutes - 5_000, Some("InvalidTimeStamp.Expired")),
        (365 * 24 * 60 * minutes, Some("InvalidTimeStamp.Expired")),
    ] {
        site.clock.jump_to_offset_ms(offset);
        let answer = client.send(&limits().sign(&site.root));
        match outcome {
            None => assert_eq!(answer.status, 200, "{offset}"),
            Some(code) => assert_eq!(answer.refusal(), (400, code.to_owned()), "{offset}"),
        }
    }
    site.clock.jump_to_offset_ms(0);
    for date in ["", "now", "2026-01-02", "0001-01-01T00:00:00Z", "99999-01-01T00:00:00Z"] {
        let answer = client.send(&limits().with("x-acs-date", date).sign(&site.root));
        assert_eq!(answer.refusal(), (400, "IllegalTimestamp".into()), "{date}");
    }
}

// D3
#[test]
fn a_replay_is_refused_on_every_worker_for_as_long_as_its_date_passes() {
    let site = Site::start();
    let date = now().as_ms();
    let request = limits().dated(date).sign(&site.root);
    assert_eq!(site.client().send(&request).status, 200);
    let used = (400, "SignatureNonceUsed".to_owned());
    for _ in 0..4 {
        assert_eq!(site.client().send(&request).refusal(), used);
    }
    let nonce = request.headers.iter().find(|(name, _)| name == "x-acs-signature-nonce").unwrap().1.clone();
    let other = Signed::new("ListKeys", "{}").with("x-acs-signature-nonce", nonce).sign(&site.root);
    assert_eq!(site.client().send(&other).refusal(), used, "a nonce serves one request");
    site.clock.jump_to_offset_ms(14 * 60_000);
    assert_eq!(site.client().send(&request).refusal(), used);
    site.clock.jump_to_offset_ms(16 * 60_000);
    assert_eq!(site.client().send(&request).refusal(), (400, "InvalidTimeStamp.Expired".into()));
}

#[test]
fn a_request_for_one_front_is_none_for_another_and_a_nonce_serves_all_of_them_once() {
    let site = Site::start();
    // Each front has its own form of a refusal; both have this.
    let code = |request: &Signed| site.client().send(request).json()["Code"].clone();
    let ours = limits().sign(&site.root);
    let theirs = Signed { path: "/".into(), ..Signed::new("ListKeys", "") }.without("content-type");
    let theirs = theirs.sign(&site.root);
    for (request, path) in [(&ours, "/"), (&theirs, "/v1/ListKeys")] {
        let elsewhere = Signed { path: path.into(), ..request.clone() };
        assert_eq!(code(&elsewhere), "SignatureDoesNotMatch", "{path}");
    }
    for request in [&ours, &theirs] {
        assert_eq!(site.client().send(request).status, 200, "{}", request.head());
        assert_eq!(code(request), "SignatureNonceUsed");
    }
    // Signed well for the other front, under a nonce that this one took.
    let nonce = ours.headers.iter().find(|(name, _)| name == "x-acs-signature-nonce").unwrap().1.clone();
    let theirs = theirs.without("authorization").with("x-acs-signature-nonce", nonce).sign(&site.root);
    assert_eq!(code(&theirs), "SignatureNonceUsed");
}

#[test]
fn a_change_that_one_node_made_is_refused_by_another_on_the_same_store() {
    let site = Site::start();
    let mut client = site.client();
    let key = client.key();
    let other = site.neighbour();
    let disabling = Signed::json("DisableKey", &json!({ "KeyId": key })).sign(&site.root);
    let creating = Signed::new("CreateKey", "{}").sign(&site.root);
    for request in [&disabling, &creating] {
        assert_eq!(site.client().send(request).status, 200);
    }
    let used = (400, "SignatureNonceUsed".to_owned());
    for _ in 0..2 {
        for request in [&disabling, &creating] {
            assert_eq!(other.client().send(request).refusal(), used);
        }
    }
    let metadata = other.client().call("DescribeKey", &json!({ "KeyId": key }));
    assert_eq!(metadata["KeyMetadata"]["KeyState"], "Enabled", "nothing was done there");
    // The first of each reached the gate, and is in the audit as its principal's; the second did not.
    let lines = other.stop();
    let recorded = |operation: &str| {
        let of_it = format!("\"operation\":\"{operation}\",\"outcome\":\"NonceUsed\"");
        lines.iter().filter(|line| line.contains(&of_it)).count()
    };
    assert_eq!(["DisableKey", "CreateKey"].map(recorded), [1, 1]);
}

#[test]
fn an_access_key_that_sent_too_many_is_throttled_and_its_neighbour_is_not() {
    let site = Site::start_with(|config, _| config.max_nonces = 16);
    let mut client = site.client();
    let mut neighbour = client_of(&site, &new_access_key(&mut client));
    let refused: Vec<_> = (0..200)
        .filter_map(|_| {
            let answer = client.send(&limits().sign(&site.root));
            (answer.status != 200).then(|| (answer.refusal(), answer.header("retry-after").is_some()))
        })
        .collect();
    assert!(refused.len() >= 200 - 16, "{} refused", refused.len());
    let throttled = ((429, "Rejected.Throttling".to_owned()), true);
    assert!(refused.iter().all(|refusal| *refusal == throttled), "{refused:?}");
    assert_eq!(neighbour.send(&limits().sign(&neighbour.credentials.clone())).status, 200);
}

// D10
#[test]
fn a_right_that_is_taken_away_ends_with_the_next_request_of_a_kept_connection() {
    let site = Site::start();
    let mut root = site.client();
    let made = new_access_key(&mut root);
    let mut client = client_of(&site, &made);
    client.call("DescribeLimits", &json!({}));
    let id = &made["AccessKeyId"];
    root.call("UpdateAccessKey", &json!({"AccessKeyId": id, "Status": "Inactive"}));
    assert_eq!(
        client.post("DescribeLimits", &json!({})).refusal(),
        (400, "InvalidAccessKeyId.Inactive".into())
    );
    root.call("UpdateAccessKey", &json!({"AccessKeyId": id, "Status": "Active"}));
    client.call("DescribeLimits", &json!({}));
    root.call("DeleteAccessKey", &json!({"AccessKeyId": id}));
    assert_eq!(
        client.post("DescribeLimits", &json!({})).refusal(),
        (404, "InvalidAccessKeyId.NotFound".into())
    );
}

fn new_access_key(root: &mut Client) -> Value {
    root.call("CreateAccessKey", &json!({"Grants": [{"Role": "Root"}]}))
}

fn client_of(site: &Site, made: &Value) -> Client {
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let credentials = Credentials { id: text("AccessKeyId"), secret: text("AccessKeySecret") };
    Client::connect(site.address, credentials)
}

// D14
#[test]
fn a_source_of_guesses_is_throttled_before_a_signature_is_verified_and_whoever_it_knows_is_not() {
    let site = Site::start_with(three_guesses);
    let mut client = site.client();
    let made = client.call("CreateAccessKey", &json!({"Grants": [{"Role": "Auditor"}]}));
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let fresh = Credentials { id: text("AccessKeyId"), secret: text("AccessKeySecret") };
    // A request of long ago that somebody kept is signed well, and makes nobody known here.
    let old = limits().dated(now().as_ms() - 3_600_000).sign(&fresh);
    assert_eq!(client.send(&old).refusal(), (400, "InvalidTimeStamp.Expired".into()));
    let wrong = Credentials { secret: "x".into(), ..fresh.clone() };
    for _ in 0..3 {
        assert_eq!(client.send(&limits().sign(&wrong)).refusal(), (400, "SignatureDoesNotMatch".into()));
    }
    for credentials in [&wrong, &fresh] {
        let answer = client.send(&limits().sign(credentials));
        assert_eq!(answer.refusal(), (429, "Throttling".into()));
        let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3_500..=3_600).contains(&seconds) && answer.json()["RetryAfterMs"].is_u64(), "{seconds}");
    }
    assert_eq!(client.send(&limits().sign(&site.root)).status, 200);
    site.clock.pass(std::time::Duration::from_secs(3_600));
    assert_eq!(client.send(&limits().sign(&fresh)).status, 200);
}
