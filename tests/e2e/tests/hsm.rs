//! Keys in tokens, end to end: every data operation in both bulk modes, beside software keys, over restarts and changes. The module is
//! SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names it.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::key::{BulkMode, KeySpec, KeyStorageMechanism, ProtectionLevel};
use keymill_e2e::{Caller, audit_lines, metric, verified};
use keymill_harness::{Farm, Live, Setup, Started};
use keymill_runtime::EngineConfig;

const MODES: [BulkMode; 2] = [BulkMode::InHsm, BulkMode::HsmDerived];

fn begin(farm: &Farm) -> (Live, Caller) {
    let setup = Setup::new(EngineConfig::default()).with_tokens(farm.parts(2));
    let Started { live, credentials } = Live::start_with(setup);
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}

/// Waits for the first token; requests before it wait a while by themselves, too.
fn create(caller: &mut Caller, mode: BulkMode) -> keymill_core::id::CmkId {
    keymill_e2e::eventually("a token comes up", || match caller.create_in_hsm(mode) {
        Ok(key) => Some(key),
        Err(refused) => {
            assert_eq!(refused.code, "ServiceUnavailableTemporary", "{refused:?}");
            None
        }
    })
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("record {i} ").repeat(i % 40).into_bytes()).collect()
}

#[test]
fn every_data_operation_works_under_both_kinds_of_hsm_keys() {
    let farm = Farm::new(1);
    let (_live, mut caller) = begin(&farm);
    for mode in MODES {
        let key = create(&mut caller, mode);
        let shown = caller.describe(key).unwrap();
        assert_eq!((shown.protection_level, shown.bulk_mode), (ProtectionLevel::Hsm, Some(mode)));
        assert_eq!(shown.key_storage_mechanism, Some(KeyStorageMechanism::HsmEncryptedDatabase));
        let pairs = [("table", "people")];
        for text in [&b""[..], b"a", &[7; 32 * 1024 - 6 * 1024][..6 * 1024]] {
            let blob = caller.encrypt(key, text, &pairs).unwrap();
            let overhead = if mode == BulkMode::InHsm { 50 } else { 62 };
            assert_eq!(blob.len(), text.len() + overhead);
            assert_eq!(blob[1], if mode == BulkMode::InHsm { 2 } else { 1 }, "the algorithm");
            assert_eq!(caller.decrypt(&blob, &pairs).unwrap(), text);
            assert_eq!(caller.decrypt(&blob, &[]).unwrap_err().code, "InvalidParameter", "another context");
            for at in [0, 1, 2, 18, 22, blob.len() - 1] {
                let mut forged = blob.clone();
                forged[at] ^= 1;
                assert!(caller.decrypt(&forged, &pairs).is_err(), "byte {at}");
            }
        }
        let (clear, sealed) = caller.data_key(key, &pairs).unwrap();
        assert_eq!(caller.decrypt(&sealed, &pairs).unwrap(), clear);
        let sealed = caller.data_key_sealed(key).unwrap();
        assert_eq!(caller.decrypt(&sealed, &[]).unwrap().len(), 32);
        for (clear, sealed) in caller.data_keys(key, 700).unwrap() {
            assert_eq!(caller.decrypt(&sealed, &[]).unwrap(), clear);
        }
        let items = texts(1_500);
        let blobs = caller.batch_encrypt(key, &items).unwrap();
        let opened = caller.batch_decrypt(&blobs).unwrap();
        assert_eq!(opened.errors, []);
        assert!(opened.items.iter().zip(&items).all(|(got, item)| got.as_ref() == Some(item)));
        // Old versions open, new ones seal.
        caller.rotate(key).unwrap();
        let newer = caller.encrypt(key, b"newer", &[]).unwrap();
        assert_eq!(newer[18..22], [0, 0, 0, 2]);
        assert_eq!(caller.decrypt(&newer, &[]).unwrap(), b"newer");
        assert_eq!(caller.decrypt(&blobs[3], &[]).unwrap(), items[3]);
        let shown = caller.describe(key).unwrap();
        assert!(shown.use_count > 4_000, "{}", shown.use_count);
    }
}

#[test]
fn items_of_a_batch_may_name_keys_of_all_kinds_and_a_bad_one_fails_alone() {
    let farm = Farm::new(1);
    let (_live, mut caller) = begin(&farm);
    let keys = [create(&mut caller, MODES[0]), create(&mut caller, MODES[1]), caller.create_key()];
    let items = texts(900);
    let sealed: Vec<_> = keys.iter().map(|key| caller.batch_encrypt(*key, &items).unwrap()).collect();
    // The n-th item under the n-th key, round and round, and every fiftieth is spoilt.
    let mut blobs: Vec<_> = (0..items.len()).map(|i| sealed[i % 3][i].clone()).collect();
    let spoilt: Vec<usize> = (0..items.len()).step_by(50).collect();
    for i in &spoilt {
        *blobs[*i].last_mut().unwrap() ^= 1;
    }
    blobs.push(vec![1, 2, 3]);
    let opened = caller.batch_decrypt(&blobs).unwrap();
    let failed: Vec<usize> = opened.errors.iter().map(|error| error.0 as usize).collect();
    assert_eq!(failed, [&spoilt[..], &[items.len()]].concat());
    assert!(opened.errors.iter().all(|error| error.1 == "InvalidParameter"));
    for (i, item) in items.iter().enumerate().filter(|(i, _)| i % 50 != 0) {
        assert_eq!(opened.items[i].as_ref(), Some(item), "item {i}");
    }
    assert_eq!(opened.keys.len(), 3);
    // From each kind to each kind.
    for to in keys {
        let (moved, errors) = caller.batch_re_encrypt(&blobs, to).unwrap();
        let failed: Vec<usize> = errors.iter().map(|error| error.0 as usize).collect();
        assert_eq!(failed, [&spoilt[..], &[items.len()]].concat(), "to {to}");
        let good: Vec<usize> = (0..items.len()).filter(|i| i % 50 != 0).collect();
        let moved: Vec<Vec<u8>> = good.iter().map(|i| moved[*i].clone().unwrap()).collect();
        let opened = caller.batch_decrypt(&moved).unwrap();
        assert_eq!((opened.errors.len(), opened.keys.len()), (0, 1));
        assert!(opened.items.iter().zip(&good).all(|(got, i)| got.as_ref() == Some(&items[*i])));
        let one = caller.re_encrypt(&blobs[1], to).unwrap();
        assert_eq!(caller.decrypt(&one, &[]).unwrap(), items[1]);
    }
}

#[test]
fn blobs_of_before_a_restart_open_after_it_and_a_disabled_key_opens_nothing() {
    let farm = Farm::new(1);
    let (live, mut caller) = begin(&farm);
    let credentials = live.bootstrap().unwrap();
    let keys = MODES.map(|mode| create(&mut caller, mode));
    let blobs = keys.map(|key| caller.encrypt(key, b"kept", &[]).unwrap());
    drop(caller);
    let site = live.halt();
    verified(&site);
    let touched = audit_lines(&site);
    for (operation, lines) in [("CreateKey", 2), ("Encrypt", 2), ("ReserveInvocations", 1)] {
        let of_hsm = |line: &&serde_json::Value| {
            line["operation"] == operation && line["keys"][0]["protection"] == "HSM"
        };
        assert_eq!(touched.iter().filter(of_hsm).count(), lines, "{operation}: {touched:?}");
    }
    // In bulk mode InHsm the token did it, under HsmDerived the processor under a subkey of the token's, and it made both keys.
    let providers = |operation: &str| -> Vec<Vec<&str>> {
        let of = touched
            .iter()
            .filter(|line| line["operation"] == operation && line["keys"][0]["protection"] == "HSM");
        let names = |line: &serde_json::Value| line["providers"].as_array().unwrap().len();
        let mut of: Vec<_> = of
            .map(|line| (0..names(line)).map(|at| line["providers"][at].as_str().unwrap()).collect())
            .collect();
        of.sort();
        of
    };
    let token = &*farm.parts(1)[0].config.name.clone();
    assert_eq!(providers("CreateKey"), [[token], [token]]);
    assert_eq!(providers("Encrypt"), [vec![token], vec![token, "software"]]);
    let live = site.start(Setup::new(EngineConfig::default()).with_tokens(farm.parts(1)));
    let mut caller = Caller::new(&live, &credentials);
    for (key, blob) in keys.into_iter().zip(&blobs) {
        let opened = keymill_e2e::eventually("the token comes up", || caller.decrypt(blob, &[]).ok());
        assert_eq!(opened, b"kept");
        caller.disable(key).unwrap();
        assert_eq!(caller.decrypt(blob, &[]).unwrap_err().code, "Rejected.Disabled");
        assert_eq!(caller.encrypt(key, b"x", &[]).unwrap_err().code, "Rejected.Disabled");
        caller.enable(key).unwrap();
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), b"kept");
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    let name = &farm.hsms[0].name;
    assert_eq!(metric(&live, &format!("keymill_hsm_token_state{{state=\"up\",token=\"{name}\"}}")), 1.0);
    assert!(metric(&live, &format!("keymill_hsm_items_total{{token=\"{name}\"}}")) >= 3.0);
}

#[test]
fn what_no_token_can_hold_is_refused_when_it_is_to_be_made() {
    let farm = Farm::new(1);
    let (_live, mut caller) = begin(&farm);
    create(&mut caller, BulkMode::InHsm);
    let refused = caller.create_of(Some(KeySpec::Aes128), Some(BulkMode::HsmDerived)).unwrap_err();
    assert!(refused.message.contains("Aliyun_AES_128"), "{refused:?}");
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let refused = Caller::new(&live, &credentials).create_in_hsm(BulkMode::InHsm).unwrap_err();
    assert!(refused.message.contains("hardware security module"), "{refused:?}");
}
