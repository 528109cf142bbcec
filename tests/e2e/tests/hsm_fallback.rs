//! Software standing in for tokens: only for keys that were made for it, only where the pool allows it, and never unsaid. The module
//! behind each simulated HSM is SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_client::Credentials;
use keymill_core::id::CmkId;
use keymill_core::key::{BulkMode, Fallback, ProtectionLevel};
use keymill_core::operation::{CreateKeyRequest, Reply};
use keymill_e2e::{Answered, Caller, audit_lines, eventually, metric, verified};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::{EngineConfig, PoolConfig};

const MODES: [BulkMode; 2] = [BulkMode::InHsm, BulkMode::HsmDerived];
const DOWN: &str = "ServiceUnavailableTemporary";

fn config(pool: PoolConfig) -> EngineConfig {
    EngineConfig {
        pool: PoolConfig { patience: Duration::from_millis(300), ..pool },
        ..EngineConfig::default()
    }
}

fn allowing(fallback: Fallback) -> PoolConfig {
    PoolConfig { fallback, ..PoolConfig::default() }
}

fn setup(farm: &Farm, pool: PoolConfig) -> Setup {
    let tokens = farm.parts_with(|config| {
        config.sessions = 1;
        config.call_timeout = Duration::from_millis(500);
    });
    Setup::new(config(pool)).with_tokens(tokens)
}

fn begin(farm: &Farm, pool: PoolConfig) -> (Live, Credentials, Caller) {
    let Started { live, credentials } = Live::start_with(setup(farm, pool));
    let mut caller = Caller::new(&live, &credentials);
    await_state(&mut caller, "up");
    (live, credentials, caller)
}

fn await_state(caller: &mut Caller, state: &str) {
    eventually("the tokens are as wanted", || {
        caller.tokens().unwrap().iter().all(|token| token.state == state).then_some(())
    });
}

/// Creates a key once the control lane of a token is up, which may be a little after its sessions.
fn create(caller: &mut Caller, mode: BulkMode, fallback: Option<Fallback>) -> Answered<CmkId> {
    eventually("the control lane is up", || match caller.create_with(mode, fallback) {
        Err(error) if error.code == DOWN => None,
        answered => Some(answered),
    })
}

/// Takes all tokens away, and waits until the lane says that it is down.
fn take_away(farm: &Farm, caller: &mut Caller, never: CmkId) {
    farm.control("removed = true");
    eventually("the pool is down", || {
        caller.encrypt(never, b"x", &[]).err().filter(|error| error.code == DOWN)
    });
}

fn bring_back(farm: &Farm, caller: &mut Caller) {
    farm.control("");
    await_state(caller, "up");
}

fn fallen(live: &Live, reason: &str) -> f64 {
    metric(live, &format!("keymill_fallback_items_total{{reason=\"{reason}\"}}"))
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("record {i} ").repeat(1 + i % 40).into_bytes()).collect()
}

/// Opens every blob, and compares.
fn opens(caller: &mut Caller, blobs: &[Vec<u8>], items: &[Vec<u8>]) {
    let opened = caller.batch_decrypt(blobs).unwrap();
    assert_eq!(opened.errors, []);
    assert!(opened.items.iter().zip(items).all(|(got, item)| got.as_ref() == Some(item)));
}

#[test]
fn without_tokens_keys_with_a_copy_go_on_and_what_either_side_sealed_the_other_opens() {
    let farm = Farm::new(2);
    let (live, _, mut caller) = begin(&farm, allowing(Fallback::Unavailable));
    let items = texts(700);
    let keys = MODES.map(|mode| create(&mut caller, mode, Some(Fallback::Unavailable)).unwrap());
    let nevers = MODES.map(|mode| create(&mut caller, mode, None).unwrap());
    for (key, mode) in keys.into_iter().zip(MODES) {
        let shown = caller.describe(key).unwrap();
        assert_eq!((shown.protection_level, shown.bulk_mode), (ProtectionLevel::Hsm, Some(mode)));
        assert_eq!(shown.fallback, Some(Fallback::Unavailable));
    }
    for never in nevers {
        assert_eq!(caller.describe(never).unwrap().fallback, Some(Fallback::Never));
    }
    let software = caller.create_key();
    assert_eq!(caller.describe(software).unwrap().fallback, None);
    let by_token = keys.map(|key| caller.batch_encrypt(key, &items).unwrap());
    let refused = nevers.map(|key| caller.encrypt(key, b"only in the HSM", &[]).unwrap());
    let of_software = caller.encrypt(software, b"moves", &[]).unwrap();
    assert_eq!(fallen(&live, "unavailable"), 0.0);

    take_away(&farm, &mut caller, nevers[0]);
    // The epoch of before may be in force: a prefix that no cache holds is derived by software all the same.
    let by_software = keys.map(|key| caller.batch_encrypt(key, &items).unwrap());
    for (blobs, mode) in by_software.iter().zip(MODES) {
        let algorithm = if mode == BulkMode::InHsm { 2 } else { 1 };
        assert!(blobs.iter().all(|blob| blob[1] == algorithm), "the algorithm stays");
    }
    for blobs in by_token.iter().chain(&by_software) {
        opens(&mut caller, blobs, &items);
    }
    assert!(fallen(&live, "unavailable") >= 3.0 * items.len() as f64);
    assert_eq!(fallen(&live, "saturated"), 0.0);
    for key in keys {
        let (clear, sealed) = caller.data_key(key, &[("a", "b")]).unwrap();
        assert_eq!(caller.decrypt(&sealed, &[("a", "b")]).unwrap(), clear);
        assert_eq!(caller.decrypt(&sealed, &[]).unwrap_err().code, "InvalidParameter", "another context");
        let mut forged = sealed.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(caller.decrypt(&forged, &[("a", "b")]).unwrap_err().code, "InvalidParameter");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let (moved, errors) = caller.batch_re_encrypt(&by_token[from], keys[to]).unwrap();
        assert_eq!(errors, []);
        let moved: Vec<Vec<u8>> = moved.into_iter().map(Option::unwrap).collect();
        opens(&mut caller, &moved, &items);
    }
    for key in keys {
        let moved = caller.re_encrypt(&of_software, key).unwrap();
        assert_eq!(caller.decrypt(&moved, &[]).unwrap(), b"moves");
    }
    for (never, blob) in nevers.into_iter().zip(&refused) {
        // Of an HsmDerived key a subkey may be at hand, which needs no token; a new one does.
        let moved = caller.re_encrypt(&of_software, never).and_then(|_| caller.encrypt(never, b"x", &[]));
        assert!(moved.is_err() || caller.describe(never).unwrap().bulk_mode == Some(BulkMode::HsmDerived));
        let _cached = caller.decrypt(blob, &[]);
    }
    assert_eq!(caller.encrypt(nevers[0], b"x", &[]).unwrap_err().code, DOWN);
    assert_eq!(caller.decrypt(&refused[0], &[]).unwrap_err().code, DOWN);

    bring_back(&farm, &mut caller);
    let before = fallen(&live, "unavailable");
    for blobs in by_token.iter().chain(&by_software) {
        opens(&mut caller, blobs, &items);
    }
    assert_eq!(caller.decrypt(&refused[0], &[]).unwrap(), b"only in the HSM");
    assert_eq!(fallen(&live, "unavailable"), before, "the tokens do it again");
}

/// The blobs of one process are opened by another, whose caches are empty: each way, in both modes.
#[test]
fn after_a_restart_the_hsm_opens_what_software_sealed_and_software_what_the_hsm_did() {
    let farm = Farm::new(1);
    let pool = || allowing(Fallback::Saturated);
    let (live, credentials, mut caller) = begin(&farm, pool());
    let items = texts(300);
    let never = create(&mut caller, BulkMode::InHsm, None).unwrap();
    let keys = MODES.map(|mode| create(&mut caller, mode, Some(Fallback::Unavailable)).unwrap());
    // A version of after a rotation has a copy of its own.
    keys.iter().for_each(|key| caller.rotate(*key).unwrap());
    let by_token = keys.map(|key| caller.batch_encrypt(key, &items).unwrap());
    drop(caller);
    let site = live.halt();
    farm.control("removed = true");
    let live = site.start(setup(&farm, pool()));
    let mut caller = Caller::new(&live, &credentials);
    take_away(&farm, &mut caller, never);
    for blobs in &by_token {
        opens(&mut caller, blobs, &items);
    }
    let by_software = keys.map(|key| caller.batch_encrypt(key, &items).unwrap());
    assert!(by_software.iter().all(|blobs| blobs.iter().all(|blob| blob[18..22] == [0, 0, 0, 2])));
    assert!(caller.rotate(keys[0]).is_err(), "a new version has to come to be in the HSM");
    drop(caller);
    let site = live.halt();
    farm.control("");
    let live = site.start(setup(&farm, pool()));
    let mut caller = Caller::new(&live, &credentials);
    await_state(&mut caller, "up");
    for blobs in by_token.iter().chain(&by_software) {
        opens(&mut caller, blobs, &items);
    }
    assert_eq!(fallen(&live, "unavailable"), 0.0);
}

#[test]
fn records_say_what_software_did_and_those_of_other_requests_say_nothing() {
    let farm = Farm::new(1);
    let (live, _, mut caller) = begin(&farm, allowing(Fallback::Unavailable));
    let never = create(&mut caller, BulkMode::InHsm, None).unwrap();
    let keys = MODES.map(|mode| create(&mut caller, mode, Some(Fallback::Unavailable)).unwrap());
    let in_hsm = caller.batch_encrypt(keys[0], &texts(3)).unwrap();
    take_away(&farm, &mut caller, never);
    caller.data_keys(keys[0], 5).unwrap();
    caller.data_keys(keys[1], 7).unwrap();
    opens(&mut caller, &in_hsm, &texts(3));
    drop(caller);
    let site = live.halt();
    verified(&site);
    let lines = audit_lines(&site);
    let of = |operation: &str| -> Vec<_> {
        lines.iter().filter(|line| line["operation"] == operation).map(|line| line.get("fallback")).collect()
    };
    let said = serde_json::json!("unavailable");
    assert_eq!(of("BatchGenerateDataKey"), [Some(&said), Some(&said)]);
    assert_eq!(of("BatchDecrypt"), [Some(&said)]);
    assert_eq!(of("BatchEncrypt"), [None]);
    assert!(of("Encrypt").iter().chain(&of("CreateKey")).all(Option::is_none), "{lines:?}");
    let by = |operation: &str| -> Vec<_> {
        lines.iter().filter(|line| line["operation"] == operation).map(|line| &line["providers"]).collect()
    };
    let software = serde_json::json!(["software"]);
    assert_eq!(by("BatchGenerateDataKey"), [&software, &software]);
    assert_eq!(by("BatchEncrypt"), [&serde_json::json!([farm.parts(1)[0].config.name])]);
}

#[test]
fn a_key_may_ask_for_at_most_what_the_pool_allows() {
    for (allowed, most) in [(Fallback::Never, 0), (Fallback::Unavailable, 1), (Fallback::Saturated, 2)] {
        let farm = Farm::new(1);
        let (_live, _, mut caller) = begin(&farm, allowing(allowed));
        for (rank, asked) in
            [Fallback::Never, Fallback::Unavailable, Fallback::Saturated].into_iter().enumerate()
        {
            match create(&mut caller, BulkMode::InHsm, Some(asked)) {
                Ok(key) if rank <= most => {
                    assert_eq!(caller.describe(key).unwrap().fallback, Some(asked));
                }
                Err(refused) if rank > most => {
                    assert_eq!(refused.code, "InvalidParameter");
                    assert!(refused.message.contains(allowed.name()), "{refused:?}");
                }
                other => panic!("{asked:?} where {allowed:?} is allowed: {other:?}"),
            }
        }
        let of_software = CreateKeyRequest {
            protection_level: Some(ProtectionLevel::Software),
            fallback: Some(Fallback::Never),
            ..Default::default()
        };
        assert_eq!(caller.ask(of_software, |_| ()).unwrap_err().code, "InvalidParameter");
    }
}

#[test]
fn a_token_that_takes_no_key_from_outside_makes_none_that_could_fall_back() {
    let farm = Farm::new(1);
    let (_live, _, mut caller) = begin(&farm, allowing(Fallback::Saturated));
    create(&mut caller, MODES[0], None).unwrap();
    // The probes of the connection ask for some, too.
    let before = farm.hsms[0].calls("C_CreateObject");
    for code in ["CKR_TEMPLATE_INCONSISTENT", "CKR_FUNCTION_NOT_SUPPORTED", "CKR_ATTRIBUTE_VALUE_INVALID"] {
        farm.control(&format!("faults = [{{ functions = [\"C_CreateObject\"], answer = \"{code}\" }}]"));
        for mode in MODES {
            let refused = create(&mut caller, mode, Some(Fallback::Unavailable)).unwrap_err();
            assert!(refused.code.starts_with("Unsupported"), "{code}: {refused:?}");
            create(&mut caller, mode, Some(Fallback::Never)).unwrap();
        }
    }
    assert_eq!(farm.hsms[0].calls("C_CreateObject") - before, 6, "each is asked for once");
}

/// Whatever the pool is set to, a key of before that never had a copy has nothing to be served from, and one whose pool allows less
/// than it did is not served.
#[test]
fn a_key_of_never_is_not_served_by_software_whatever_the_pool_is_set_to() {
    let farm = Farm::new(1);
    let (live, credentials, mut caller) = begin(&farm, allowing(Fallback::Never));
    let nevers = MODES.map(|mode| create(&mut caller, mode, None).unwrap());
    let blobs = nevers.map(|key| caller.encrypt(key, b"secret", &[]).unwrap());
    drop(caller);
    let mut site = live.halt();
    let mut copied = None;
    for allowed in [Fallback::Saturated, Fallback::Never] {
        let live = site.start(setup(&farm, allowing(allowed)));
        let mut caller = Caller::new(&live, &credentials);
        await_state(&mut caller, "up");
        copied = copied.or_else(|| create(&mut caller, BulkMode::InHsm, Some(Fallback::Saturated)).ok());
        take_away(&farm, &mut caller, nevers[0]);
        for (key, blob) in nevers.into_iter().zip(&blobs) {
            for _ in 0..3 {
                assert_eq!(caller.encrypt(key, b"x", &[]).unwrap_err().code, DOWN);
                assert_eq!(caller.decrypt(blob, &[]).unwrap_err().code, DOWN);
                assert_eq!(caller.data_key(key, &[]).unwrap_err().code, DOWN);
                assert_eq!(caller.re_encrypt(blob, key).unwrap_err().code, DOWN);
            }
            // A batch that names a key with a copy, too, fails for the items under the other alone.
            let mixed = vec![blob.clone(); 40];
            let opened = caller.batch_decrypt(&mixed).unwrap();
            assert_eq!(opened.errors.len(), mixed.len());
            assert!(caller.rotate(key).is_err());
        }
        let with_copy = caller.encrypt(copied.unwrap(), b"x", &[]);
        assert_eq!(with_copy.is_ok(), allowed == Fallback::Saturated);
        assert_eq!(fallen(&live, "unavailable"), f64::from(u8::from(with_copy.is_ok())));
        drop(caller);
        site = live.halt();
        farm.control("");
    }
}

#[test]
fn a_full_queue_is_software_s_for_keys_of_saturated_alone() {
    let farm = Farm::with(1, "latency_us = 20000");
    let pool = PoolConfig { queue: 1, ..allowing(Fallback::Saturated) };
    let (live, _, mut caller) = begin(&farm, pool);
    let keys = [Fallback::Unavailable, Fallback::Saturated]
        .map(|fallback| create(&mut caller, BulkMode::InHsm, Some(fallback)).unwrap());
    // Reserves invocations, and takes the first turn.
    keys.iter().for_each(|key| drop(caller.encrypt(*key, b"x", &[]).unwrap()));
    let items = texts(64);
    let refused = caller
        .ask(keymill_e2e::batch_encrypt(keys[0], &items), |reply| match reply {
            Reply::BatchEncrypt(reply) => reply.errors,
            other => panic!("answered as {:?}", other.operation()),
        })
        .unwrap();
    assert!(refused.iter().any(|error| error.1.contains("Throttling")), "{refused:?}");
    assert_eq!(fallen(&live, "saturated"), 0.0);
    let blobs = caller.batch_encrypt(keys[1], &items).unwrap();
    assert!(fallen(&live, "saturated") > 0.0);
    assert_eq!(fallen(&live, "unavailable"), 0.0);
    opens(&mut caller, &blobs, &items);
}
