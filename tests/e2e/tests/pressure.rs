//! What must hold when there is too little of something: space for the audit log, space in the store, time, or turns; and when
//! the caller is gone.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use keymill_client::{ClientError, Credentials};
use keymill_conformance::MemoryStore;
use keymill_core::id::CmkId;
use keymill_core::key::KeyState;
use keymill_core::operation::*;
use keymill_core::seam::store::Store;
use keymill_e2e::{
    Caller, Named, Raw, audit_lines, batch_encrypt, eventually, metric, requests_of, verified,
};
use keymill_harness::{Disk, Live, Setup, Started};
use keymill_runtime::EngineConfig;
use rmpv::Value;

const UNAVAILABLE: &str = "ServiceUnavailableTemporary";

fn begin_on(disk: &Disk) -> (Live, Credentials, CmkId) {
    let disk = disk.clone();
    let setup = Setup::new(EngineConfig::default()).with_workers(1).with_audit(move |inner| disk.log(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let key = Caller::new(&live, &credentials).create_key();
    (live, credentials, key)
}

fn is_healthy(live: &Live) -> bool {
    metric(live, "keymill_audit_healthy") == 1.0
}

fn encrypt(key: CmkId) -> Request<'static> {
    EncryptRequest {
        key_id: key.key_ref(),
        plaintext: Bin::from(&b"x"[..]),
        encryption_context: None,
        timeout_ms: None,
    }
    .into()
}

#[test]
fn a_full_audit_disk_refuses_what_must_be_audited_and_recovers_by_itself() {
    let disk = Disk::new(64 << 10);
    let (live, credentials, key) = begin_on(&disk);
    let mut caller = Caller::new(&live, &credentials);
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    assert!(is_healthy(&live) && live.gate().troubles().is_empty());
    disk.fill();
    // The first one spends the reserve; from then on nothing new is taken.
    eventually("requests are refused", || caller.encrypt(key, b"x", &[]).is_err().then_some(()));
    assert!(!is_healthy(&live));
    assert!(live.gate().troubles()[0].contains("audit log"), "{:?}", live.gate().troubles());
    let refused = [
        caller.encrypt(key, b"x", &[]).map(drop),
        caller.decrypt(&blob, &[]).map(drop),
        caller.batch_decrypt(std::slice::from_ref(&blob)).map(drop),
        caller.describe(key).map(drop),
        caller.disable(key),
        caller.create_described("").map(drop),
        caller.create_access_key(Vec::new()).map(drop),
    ];
    for answer in refused {
        let error = answer.unwrap_err();
        assert_eq!((error.status, &*error.code, error.retryable), (503, UNAVAILABLE, true));
    }
    disk.free();
    eventually("the log is well again", || is_healthy(&live).then_some(()));
    assert!(live.gate().troubles().is_empty());
    assert_eq!(caller.describe(key).unwrap().key_state, KeyState::Enabled, "nothing was done meanwhile");
    assert_eq!(caller.keys().unwrap(), [key]);
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"x");
    drop(caller);
    let site = live.halt();
    let lines = audit_lines(&site);
    let gaps: Vec<_> = lines.iter().filter(|line| line["note"] == "gap").collect();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0]["refused"].as_u64().is_some_and(|refused| refused >= 8), "{}", gaps[0]);
    verified(&site);
}

#[test]
fn every_answer_that_was_given_has_its_record_though_the_disk_fills_under_load() {
    let disk = Disk::new(1 << 20);
    let (live, credentials, key) = begin_on(&disk);
    let mut connection = Caller::new(&live, &credentials).connection;
    let mut answered = HashSet::new();
    let mut refused = 0;
    for round in 0..3_000 {
        if round == 1_000 {
            disk.fill();
        }
        while connection.in_flight() < 100 {
            connection.send(&encrypt(key)).unwrap();
        }
        match connection.receive().unwrap().result() {
            Ok(Reply::Encrypt(reply)) => {
                answered.insert(reply.request_id.to_string());
            }
            Ok(other) => panic!("{other:?}"),
            Err(ClientError::Refused(error)) => {
                assert_eq!(error.code, UNAVAILABLE);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(answered.len() >= 900 && refused > 1_000, "{} answered, {refused} refused", answered.len());
    disk.free();
    eventually("the log is well again", || is_healthy(&live).then_some(()));
    drop(connection);
    let site = live.halt();
    let recorded: HashSet<String> = audit_lines(&site)
        .iter()
        .filter(|line| line["outcome"] == "ok" && line["operation"] == "Encrypt")
        .flat_map(requests_of)
        .collect();
    assert!(answered.is_subset(&recorded));
    verified(&site);
}

#[test]
fn refusals_while_the_audit_disk_is_full_are_counted_and_not_hoarded() {
    let disk = Disk::new(16 << 10);
    let (live, credentials, key) = begin_on(&disk);
    let mut connection = Caller::new(&live, &credentials).connection;
    disk.fill();
    let mut refused = 0;
    for _ in 0..5_000 {
        while connection.in_flight() < 200 {
            connection.send(&encrypt(key)).unwrap();
        }
        refused += usize::from(connection.receive().unwrap().result().is_err());
    }
    assert!(refused > 4_000, "{refused}");
    disk.free();
    eventually("the log is well again", || is_healthy(&live).then_some(()));
    drop(connection);
    let site = live.halt();
    let lines = audit_lines(&site);
    let told: u64 = lines.iter().filter_map(|line| line["refused"].as_u64()).sum();
    assert!(told >= 4_000, "the gap says how many: {told}");
    let hoarded = lines.iter().filter(|line| line["outcome"] == "AuditUnavailable");
    let hoarded: usize = hoarded.map(|line| line.to_string().len()).sum();
    assert!(hoarded < 160 << 10, "{hoarded} bytes of records waited in memory for the disk");
    verified(&site);
}

#[test]
fn the_reserve_serves_each_outage_again() {
    let disk = Disk::new(64 << 10);
    let (live, credentials, key) = begin_on(&disk);
    let mut caller = Caller::new(&live, &credentials);
    let mut caught = 0;
    for _ in 0..4 {
        let releases = disk.releases();
        disk.fill();
        // In flight when the disk fills: recorded from the reserve, and answered. Now and then the engine's own tick comes first.
        caught += usize::from(caller.encrypt(key, b"x", &[]).is_ok());
        assert!(disk.releases() > releases, "the reserve is given up in each outage");
        disk.free();
        eventually("the log is well again", || is_healthy(&live).then_some(()));
    }
    assert!(caught >= 3, "{caught} of 4 were recorded from the reserve");
}

#[test]
fn a_full_store_refuses_writes_keeps_encrypting_and_recovers_by_itself() {
    let store = Arc::new(MemoryStore::new());
    let around = store.clone();
    let setup = Setup::new(EngineConfig::default()).with_store(move |_shipped| -> Arc<dyn Store> { around });
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    caller.create_alias("alias/kept", key).unwrap();
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    store.set_full(true);
    let refused = [
        caller.create_described("").map(drop),
        caller.disable(key),
        caller.rotate(key),
        caller.schedule_deletion(key),
        caller.create_alias("alias/new", key),
        caller.delete_alias("alias/kept"),
        caller.create_access_key(Vec::new()).map(drop),
    ];
    for answer in refused {
        let error = answer.unwrap_err();
        assert_eq!((error.status, &*error.code, error.retryable), (503, UNAVAILABLE, true));
    }
    // Nothing of it was done, and use goes on.
    assert_eq!(caller.describe("alias/kept").unwrap().key_state, KeyState::Enabled);
    assert_eq!(caller.versions(key).unwrap().len(), 1);
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"x");
    assert_eq!(caller.batch_encrypt(key, &vec![vec![1; 100]; 100]).unwrap().len(), 100);
    eventually("it shows", || (metric(&live, "keymill_store_healthy") == 0.0).then_some(()));
    assert!(live.gate().troubles()[0].contains("store"), "{:?}", live.gate().troubles());
    store.set_full(false);
    caller.disable(key).unwrap();
    assert_eq!(caller.encrypt(key, b"x", &[]).unwrap_err().code, "Rejected.Disabled");
    eventually("it is well again", || (metric(&live, "keymill_store_healthy") == 1.0).then_some(()));
}

#[test]
fn single_calls_of_one_principal_pass_the_bulk_of_another() {
    const CONNECTIONS: usize = 10;
    const BATCHES: usize = 12;
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_workers(1));
    let mut root = Caller::new(&live, &credentials);
    let key = root.create_key();
    let user = serde_json::json!([{ "Role": "RbacPermission/Template/CryptoServiceKeyUser" }]);
    let grants = || serde_json::from_value(user.clone()).expect("grants");
    let (bulk, single) = (root.credentials(grants()), root.credentials(grants()));
    let items = vec![vec![7; 1_024]; 900];
    let done = AtomicUsize::new(0);
    let queued = Barrier::new(CONNECTIONS + 1);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = Caller::new(&live, &bulk).connection;
                for batch in 0..BATCHES {
                    connection.send(&batch_encrypt(key, &items).into()).unwrap();
                    if batch == 0 {
                        connection.flush().unwrap();
                        queued.wait();
                    } else {
                        connection.receive().unwrap().result().unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                }
                connection.receive().unwrap().result().unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut caller = Caller::new(&live, &single);
        queued.wait();
        for _ in 0..4 {
            let before = done.load(Ordering::SeqCst);
            caller.describe(key).unwrap();
            caller.encrypt(key, b"x", &[]).unwrap();
            let passed = done.load(Ordering::SeqCst) - before;
            assert!(passed <= 2 * CONNECTIONS, "{passed} batches were done before two single calls");
        }
        let done = done.load(Ordering::SeqCst);
        assert!(done < CONNECTIONS * BATCHES / 2, "the bulk was half done: {done}");
    });
}

#[test]
fn items_that_are_late_say_so_and_finished_ones_stand() {
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_workers(1));
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let items: Vec<Vec<u8>> = (0..65_536u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let mut seal = |timeout_ms| {
        let request = BatchEncryptRequest { timeout_ms: Some(timeout_ms), ..batch_encrypt(key, &items) };
        let (sealed, errors) = caller
            .ask(request, |reply| match reply {
                Reply::BatchEncrypt(reply) => {
                    let items: Vec<_> = reply.items.into_iter().map(|item| item.map(Bin::into_vec)).collect();
                    (items, reply.errors)
                }
                other => panic!("{other:?}"),
            })
            .unwrap();
        let finished = sealed.iter().take_while(|item| item.is_some()).count();
        assert_eq!(finished + errors.len(), items.len(), "each item is there or late");
        assert!(sealed[finished..].iter().all(Option::is_none), "what is late is at the end");
        for (i, ItemError(index, code, _)) in errors.iter().enumerate() {
            assert_eq!((*index as usize, &**code), (finished + i, "RequestTimeout"));
        }
        sealed.into_iter().flatten().collect::<Vec<_>>()
    };
    assert!(seal(1).len() < items.len(), "65,536 items take longer than a millisecond");
    // However fast the machine is, between too early and too late there is a time-out that comes in the middle.
    let (mut early, mut late) = (1, 4_000);
    let finished = loop {
        assert!(early + 1 < late, "no time-out came in the middle of the batch");
        let timeout_ms = (early + late) / 2;
        match seal(timeout_ms) {
            none if none.is_empty() => early = timeout_ms,
            all if all.len() == items.len() => late = timeout_ms,
            some => break some,
        }
    };
    let opened = caller.batch_decrypt(&finished).unwrap();
    assert_eq!(opened.errors, []);
    assert!(opened.items.iter().flatten().eq(&items[..finished.len()]), "finished ones stand");
}

#[test]
fn a_request_that_is_late_behind_a_load_is_dropped_before_its_work() {
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_workers(1));
    let key = Caller::new(&live, &credentials).create_key();
    let mut connection = Caller::new(&live, &credentials).connection;
    let items = vec![Vec::new(); 30_000];
    let load = connection.send(&batch_encrypt(key, &items).into()).unwrap();
    let mut late = HashSet::new();
    for _ in 0..50 {
        let request = EncryptRequest {
            key_id: key.key_ref(),
            plaintext: Bin::from(&b"x"[..]),
            encryption_context: None,
            timeout_ms: Some(1),
        };
        late.insert(connection.send(&request.into()).unwrap());
    }
    let mut in_time = 0;
    for _ in 0..51 {
        let answer = connection.receive().unwrap();
        let is_load = answer.id() == load;
        match answer.result() {
            Ok(_) if is_load => {}
            Ok(_) => in_time += 1,
            Err(ClientError::Refused(error)) => {
                assert!(late.remove(&answer.id()), "the load itself has time");
                assert_eq!((error.status, &*error.code), (408, "RequestTimeout"));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(in_time < 50, "none of them waited for its turn");
    let mut caller = Caller::new(&live, &credentials);
    let used = caller.describe(key).unwrap().use_count;
    assert_eq!(used, 30_000 + in_time, "nothing was computed for the late ones");
}

#[test]
fn what_a_vanished_caller_had_queued_is_dropped_and_recorded() {
    const REQUESTS: u64 = 400;
    let Started { live, credentials } = Live::start_with(Setup::new(EngineConfig::default()).with_workers(1));
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    let root = serde_json::from_value(serde_json::json!([{ "Role": "Root" }])).unwrap();
    let (id, secret) = caller.create_access_key(root).unwrap();
    let mut raw = Raw::log_in(live.address, &id, &secret);
    for n in 1..=REQUESTS {
        let parameters = vec![
            ("KeyId".into(), key.to_string().into()),
            ("Count".into(), 4_000.into()),
            ("WithoutPlaintext".into(), true.into()),
        ];
        raw.send_value(&Value::Array(vec![n.into(), "BatchGenerateDataKey".into(), Value::Map(parameters)]));
    }
    eventually("the work is queued", || (metric(&live, "keymill_queue_jobs") > 300.0).then_some(()));
    raw.reset();
    eventually("nothing waits any more", || (metric(&live, "keymill_queue_jobs") == 0.0).then_some(()));
    assert!(caller.encrypt(key, b"x", &[]).is_ok(), "others are served");
    assert_eq!(metric(&live, "keymill_connections{frontend=\"msgpack\"}"), 1.0);
    let dropped = metric(&live, "keymill_requests_total{op=\"BatchGenerateDataKey\",outcome=\"deadline\"}");
    assert!(dropped > 100.0, "{dropped} requests were dropped");
    let made = caller.describe(key).unwrap().use_count;
    assert!(made < REQUESTS * 4_000 / 2, "{made} data keys were made for nobody");
    drop(caller);
    let site = live.halt();
    let lines = audit_lines(&site);
    let cancelled = lines.iter().filter(|line| line["outcome"] == "Cancelled");
    let cancelled: usize = cancelled.map(|line| requests_of(line).len()).sum();
    assert_eq!(cancelled as f64, dropped);
    verified(&site);
}
