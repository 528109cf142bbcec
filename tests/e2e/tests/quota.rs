//! Quotas: what is over one is let in while nothing waits, refused while something does, and goes first where a queue is full. Time stands still
//! but for what a test has pass. With `idle_jobs` of 0 nothing ever counts as idle.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use keymill_client::{ClientError, Credentials, HttpClient, ServerError};
use keymill_core::access::{Grant, Principal};
use keymill_core::id::CmkId;
use keymill_core::operation::*;
use keymill_core::quota::{Quota, Rate};
use keymill_e2e::{Answered, Caller, Named, Web, audit_lines, metric, requests_of, verified};
use keymill_harness::{Live, Setup, Started};
use keymill_runtime::clock::Clock;
use keymill_runtime::gate::Ask;
use keymill_runtime::work::Cancel;
use keymill_runtime::{Call, EngineConfig, Finished, Gate, Job, Opened, QuotaConfig, ReplyTo, Sheet};
use serde_json::{Value, json};

fn rate(per_second: u64) -> Option<Rate> {
    let per_second = NonZeroU64::new(per_second)?;
    Some(Rate::new(per_second, per_second))
}

fn items(per_second: u64) -> Quota {
    Quota { items: rate(per_second), ..Quota::default() }
}

fn begin(quota: QuotaConfig) -> (Live, Caller, Credentials) {
    begin_with(EngineConfig { quota, ..EngineConfig::default() })
}

fn begin_with(config: EngineConfig) -> (Live, Caller, Credentials) {
    let mut setup = Setup::new(config).with_workers(1);
    setup.clock = Clock::standing();
    let Started { live, credentials } = Live::start_with(setup);
    let caller = Caller::new(&live, &credentials);
    (live, caller, credentials)
}

fn user_of(key: CmkId) -> Vec<Grant> {
    let resource = format!("key/{key}");
    let role = "RbacPermission/Template/CryptoServiceKeyUser";
    serde_json::from_value(json!([{ "Role": role, "Resources": [resource] }])).unwrap()
}

fn over_quota(live: &Live, outcome: &str) -> f64 {
    metric(live, &format!("keymill_over_quota_total{{instance=\"default\",outcome=\"{outcome}\"}}"))
}

fn refused<T>(answered: Answered<T>) -> ServerError {
    let error = answered.map(drop).expect_err("it is over the quota");
    assert_eq!((error.status, &*error.code, error.retryable), (429, "Throttling.User", true), "{error:?}");
    error
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    vec![vec![7; 16]; count]
}

#[test]
fn what_is_over_a_quota_is_done_while_nothing_waits() {
    let quota = QuotaConfig { caller: items(10), ..QuotaConfig::default() };
    let (live, mut caller, _) = begin(quota);
    let key = caller.create_key();
    caller.batch_encrypt(key, &texts(10)).unwrap();
    assert_eq!(over_quota(&live, "admitted"), 0.0);
    for _ in 0..20 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    // Also where a request alone is more than may come at once.
    caller.batch_encrypt(key, &texts(11)).unwrap();
    let outcomes = ["admitted", "refused", "shed"].map(|outcome| over_quota(&live, outcome));
    assert_eq!(outcomes, [21.0, 0.0, 0.0]);
    // What was let in like that is not owed: the share is there again with its time.
    live.clock.pass(Duration::from_secs(1));
    caller.batch_encrypt(key, &texts(10)).unwrap();
    assert_eq!(over_quota(&live, "admitted"), 21.0);
}

#[test]
fn what_is_over_a_quota_is_refused_while_others_wait_and_told_for_how_long() {
    let quota = QuotaConfig { caller: items(10), idle_jobs: 0, ..QuotaConfig::default() };
    let (live, mut caller, _) = begin(quota);
    let key = caller.create_key();
    caller.batch_encrypt(key, &texts(9)).unwrap();
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    let error = refused(caller.encrypt(key, b"x", &[]));
    assert_eq!(error.retry_after_ms, Some(100), "of ten a second the next");
    // Nothing of it is done, whichever operation it is; what has no items goes on.
    refused(caller.decrypt(&blob, &[]));
    refused(caller.data_key(key, &[]));
    refused(caller.batch_encrypt(key, &texts(1)));
    caller.describe(key).unwrap();
    let alone = refused(caller.batch_encrypt(key, &texts(11)));
    assert!(alone.message.contains("split it"), "{}", alone.message);
    live.clock.pass(Duration::from_millis(99));
    refused(caller.encrypt(key, b"x", &[]));
    live.clock.pass(Duration::from_millis(1));
    caller.encrypt(key, b"x", &[]).unwrap();
    refused(caller.encrypt(key, b"x", &[]));
    live.clock.pass(Duration::from_secs(3600));
    caller.batch_encrypt(key, &texts(10)).unwrap();
    refused(caller.encrypt(key, b"x", &[]));
    assert_eq!(["admitted", "refused", "shed"].map(|outcome| over_quota(&live, outcome)), [0.0, 8.0, 0.0]);
    drop(caller);
    let site = live.halt();
    let recorded = audit_lines(&site)
        .iter()
        .filter(|line| line["outcome"] == "OverQuota")
        .map(|line| requests_of(line).len())
        .sum::<usize>();
    assert_eq!(recorded, 8, "each refusal has its record");
    verified(&site);
}

#[test]
fn requests_and_bytes_are_counted_as_items_are_and_over_every_frontend() {
    let caller = Quota { requests: rate(10), bytes: rate(1_000), ..Quota::default() };
    let (live, mut root, credentials) = begin(QuotaConfig { caller, idle_jobs: 0, ..QuotaConfig::default() });
    let key = root.create_key();
    let other = root.credentials(user_of(key));
    let mut user = Caller::new(&live, &other);
    user.batch_encrypt(key, &vec![vec![7; 100]; 9]).unwrap();
    refused(user.encrypt(key, &[7; 101], &[]));
    user.encrypt(key, &[7; 100], &[]).unwrap();
    refused(user.encrypt(key, &[7; 1], &[]));
    user.encrypt(key, &[], &[]).unwrap();
    // Root has made two requests: what it may do is counted, too, and a login is no request.
    let web = Web::over(&live);
    let client = HttpClient::new(&format!("http://{}", web.address), Duration::from_secs(20)).unwrap();
    let over_http =
        || client.call(DescribeKeyRequest { key_id: key.key_ref(), timeout_ms: None }, &credentials);
    for _ in 2..10 {
        over_http().unwrap();
    }
    let reads = match over_http() {
        Err(ClientError::Refused(error)) => Err::<(), _>(error),
        _ => panic!("it is over the quota"),
    };
    // A read has no lane to wait for, and yet its arbiter is never idle here.
    assert_eq!(refused(reads).retry_after_ms, Some(100));
    refused(root.describe(key));
    refused(root.create_described(""));
    refused(root.disable(key));
    live.clock.pass(Duration::from_millis(100));
    root.disable(key).unwrap();
    refused(root.enable(key));
    drop(client);
    drop(web);
}

#[test]
fn client_keys_of_one_application_share_and_access_keys_do_not() {
    let quota = QuotaConfig { caller: items(4), idle_jobs: 0, ..QuotaConfig::default() };
    let (live, mut root, _) = begin(quota);
    let key = root.create_key();
    let mut ask = |operation: &str, parameters: Value| -> Value {
        let operation = Operation::by_name(operation).unwrap();
        let request = Request::deserialize(operation, &parameters).unwrap();
        root.ask(request, |reply| serde_json::to_value(reply).unwrap()).unwrap()
    };
    ask(
        "CreatePolicy",
        json!({
            "Name": "shop", "KmsInstance": "shared",
            "Permissions": ["RbacPermission/Template/CryptoServiceKeyUser"], "Resources": [format!("key/{key}")],
        }),
    );
    ask("CreateApplicationAccessPoint", json!({ "Name": "shop", "Policies": ["shop"] }));
    let mut client_key = || {
        let password = "secret-1234";
        let reply =
            ask("CreateClientKey", json!({ "AapName": "shop", "Password": password, "TimeoutMs": 60_000 }));
        let file = json!({ "KeyId": reply["ClientKeyId"], "PrivateKeyData": reply["PrivateKeyData"] });
        Credentials::of_client_key_file(file.to_string().as_bytes(), password).unwrap()
    };
    let mut tills = [client_key(), client_key()].map(|credentials| Caller::new(&live, &credentials));
    for turn in 0..4 {
        tills[turn % 2].encrypt(key, b"x", &[]).unwrap();
    }
    for till in &mut tills {
        refused(till.encrypt(key, b"x", &[]));
    }
    for _ in 0..2 {
        let credentials = root.credentials(user_of(key));
        let mut user = Caller::new(&live, &credentials);
        user.batch_encrypt(key, &texts(4)).unwrap();
        refused(user.encrypt(key, b"x", &[]));
    }
}

#[test]
fn all_callers_together_have_what_the_instance_has() {
    let quota = QuotaConfig { instance: items(10), idle_jobs: 0, ..QuotaConfig::default() };
    let (live, mut root, _) = begin(quota);
    let key = root.create_key();
    let mut users = [(); 2].map(|()| Caller::new(&live, &root.credentials(user_of(key))));
    users[0].batch_encrypt(key, &texts(6)).unwrap();
    refused(users[1].batch_encrypt(key, &texts(5)));
    users[1].batch_encrypt(key, &texts(4)).unwrap();
    for user in &mut users {
        refused(user.encrypt(key, b"x", &[]));
    }
    live.clock.pass(Duration::from_millis(200));
    for user in &mut users {
        user.encrypt(key, b"x", &[]).unwrap();
    }
}

/// Takes answers down, by their tickets.
#[derive(Default)]
struct Answers(Mutex<Vec<(u64, &'static str)>>);

impl ReplyTo for Answers {
    fn finished(&self, finished: Finished) {
        let code = finished.result.as_ref().map_or_else(|error| error.kind().code(), |_| "ok");
        self.0.lock().unwrap().push((finished.ticket, code));
    }
}

fn encrypting(gate: &Gate, who: &Credentials, key: CmkId, ticket: u64, answers: &Arc<Answers>) -> Box<Job> {
    let call = Call {
        request_id: gate.request_id(),
        principal: Principal::of_access_key(who.access_key_id().clone()),
        source: None,
        frontend: "test",
        received: Instant::now(),
        nonce: None,
    };
    let request = EncryptRequest {
        key_id: key.key_ref(),
        plaintext: Bin::from(&b"x"[..]),
        encryption_context: None,
        timeout_ms: None,
    };
    let opened = gate.open(Ask {
        call,
        request: request.into(),
        is_text: false,
        is_dry_run: false,
        frame: None,
        sheet: Sheet::plain(None),
        reply_to: Some(answers.clone()),
        cancel: Cancel::default(),
        ticket,
    });
    match opened {
        Opened::Job(job) => job,
        Opened::Managed(_) => panic!("data requests are jobs"),
    }
}

#[test]
fn a_full_queue_sheds_the_newest_of_what_is_over_its_quota_for_what_is_within() {
    let config = EngineConfig {
        quota: QuotaConfig { caller: items(4), ..QuotaConfig::default() },
        max_queued_jobs: 8,
        ..EngineConfig::default()
    };
    let (live, mut root, _) = begin_with(config);
    let key = root.create_key();
    let [bulk, single, late] = [(); 3].map(|()| root.credentials(user_of(key)));
    let (gate, answers) = (live.gate(), Arc::new(Answers::default()));
    // Eight of one caller, of which four are over; four of another; and one more.
    let tickets = [&bulk; 8].into_iter().chain([&single; 4]).chain([&late]).zip(0..);
    let jobs: Vec<_> = tickets.map(|(who, ticket)| encrypting(&gate, who, key, ticket, &answers)).collect();
    actix_rt::System::new().block_on(async {
        let arbiter = gate.arbiter().unwrap();
        arbiter.submit(jobs);
        arbiter.stop().await;
    });
    let mut answered = answers.0.lock().unwrap().clone();
    answered.sort_unstable();
    let codes: Vec<_> = answered.iter().map(|(_, code)| *code).collect();
    let expected = [&["ok"; 4][..], &["Throttling.User"; 4], &["ok"; 4], &["Rejected.Throttling"]].concat();
    assert_eq!(codes, expected, "{answered:?}");
    assert_eq!(["admitted", "refused", "shed"].map(|outcome| over_quota(&live, outcome)), [4.0, 0.0, 4.0]);
}
