//! A13 of the security cases: random nonces of 96 bits are counted, and the count of a key is never passed, lost or set back. What a key
//! takes years to come to is written into the store of a stopped engine.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::time::Duration;

use keymill_client::{Credentials, ServerError};
use keymill_core::id::CmkId;
use keymill_core::key::{KeySpec, ProtectionLevel};
use keymill_core::operation::*;
use keymill_crypto::payload;
use keymill_e2e::{Answered, Caller, Rows, eventually, verified};
use keymill_harness::{Fuse, Live, Point, Setup, Site, Started, overhead};
use keymill_runtime::EngineConfig;
use keymill_runtime::records::{InvocationsRecord, Kind};

/// What is reserved at once.
const BLOCK: u64 = 1 << 20;
/// Where a new version is made.
const RENEWED: u64 = 1 << 31;
/// SP 800-38D §8.3.
const LIMIT: u64 = 1 << 32;
const MATERIAL: &[u8; 16] = b"0123456789abcdef";

/// An engine that makes no new version by itself while a test runs.
fn at_rest() -> EngineConfig {
    EngineConfig { usage_flush: Duration::from_secs(86_400), ..EngineConfig::default() }
}

fn begin() -> (Live, Credentials, Caller) {
    let Started { live, credentials } = Live::start(at_rest());
    let caller = Caller::new(&live, &credentials);
    (live, credentials, caller)
}

/// Creates a key whose blobs have nonces of 96 bits: in the token, but where tokens only derive.
fn create_counted(caller: &mut Caller) -> CmkId {
    let request = CreateKeyRequest {
        key_spec: Some(KeySpec::Aes128),
        protection_level: (overhead() == 62).then_some(ProtectionLevel::Software),
        ..Default::default()
    };
    let created = caller.ask(request, |reply| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    });
    created.unwrap()
}

/// Creates a key that is counted and never gets a new version.
fn create_counted_external(caller: &mut Caller) -> CmkId {
    let key = caller.create_external(KeySpec::Aes128, None).unwrap().key;
    caller.import(key, MATERIAL, None).unwrap();
    key
}

fn path(key: CmkId) -> String {
    format!("invocations/{key}")
}

/// Reads what was reserved for the first version of a key; nothing where there is no record.
fn reserved(site: &Site, key: CmkId) -> u64 {
    let Some(bytes) = Rows::of(site).get(&path(key)) else { return 0 };
    let opened = site.sealer().open(&path(key), Kind::Invocations as u8, &bytes).unwrap();
    let InvocationsRecord(rows) = payload::decode(&opened.payload).unwrap();
    rows.iter().find(|row| row.0 == 1).unwrap().1
}

/// Lets so many be reserved for the first version of a key that has sealed something.
fn set(site: &Site, key: CmkId, count: u64) {
    let rows = Rows::of(site);
    let (path, sealer) = (path(key), site.sealer());
    let kind = Kind::Invocations as u8;
    let before = sealer.open(&path, kind, &rows.get(&path).unwrap()).unwrap();
    let record = payload::encode(&InvocationsRecord(vec![(1, count)])).unwrap();
    // One that is newer than its audit record is taken: it is what a crash leaves.
    let sealed = sealer.seal(&path, kind, before.sequence + 1, record.expose()).unwrap();
    rows.put(&path, &sealed.bytes);
}

fn nonce(blob: &[u8]) -> [u8; 12] {
    *blob[22..].first_chunk().expect("a blob holds its nonce")
}

fn version(blob: &[u8]) -> u32 {
    u32::from_be_bytes(*blob[18..].first_chunk().expect("a blob has a header"))
}

/// Checks that nothing seals under a key any more, and what it sealed still opens.
fn assert_worn_out(caller: &mut Caller, key: CmkId, blobs: &[Vec<u8>]) {
    let worn_out = |refused: Option<ServerError>| {
        let ServerError { status, code, message, .. } = refused.expect("nothing is sealed");
        assert_eq!((status, &*code), (409, "Rejected.StateModifiedFailed"), "{message}");
        assert!(message.contains("as many messages as it may"), "{message}");
    };
    worn_out(caller.encrypt(key, b"x", &[]).err());
    worn_out(caller.data_key(key, &[]).err());
    worn_out(caller.data_key_sealed(key).err());
    worn_out(caller.re_encrypt(&blobs[0], key).err());
    let items = caller.ask(keymill_e2e::batch_encrypt(key, &[b"x".to_vec()]), |reply| match reply {
        Reply::BatchEncrypt(reply) => reply.items.iter().flatten().count(),
        other => panic!("{other:?}"),
    });
    assert_eq!(items.unwrap_or_default(), 0, "nor any item of a batch");
    for blob in blobs {
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), b"x");
    }
}

fn seal(caller: &mut Caller, key: CmkId) -> Answered<Vec<u8>> {
    caller.encrypt(key, b"x", &[])
}

#[test]
fn a13_a_key_gets_a_new_version_long_before_the_limit() {
    let (live, credentials, mut caller) = begin();
    let key = create_counted(&mut caller);
    let old = seal(&mut caller, key).unwrap();
    drop(caller);
    let site = live.halt();
    assert_eq!(reserved(&site, key), BLOCK);
    set(&site, key, RENEWED - BLOCK);
    let often = EngineConfig { usage_flush: Duration::from_millis(20), ..EngineConfig::default() };
    let live = site.start(Setup::new(often));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.versions(key).unwrap().len(), 1, "not yet");
    let last = seal(&mut caller, key).unwrap();
    eventually("a second version", || (caller.versions(key).unwrap().len() == 2).then_some(()));
    let new = seal(&mut caller, key).unwrap();
    assert_eq!([&old, &last, &new].map(|blob| version(blob)), [1, 1, 2]);
    for blob in [&old, &last, &new] {
        assert_eq!(caller.decrypt(blob, &[]).unwrap(), b"x");
    }
    drop(caller);
    let site = live.halt();
    assert_eq!(reserved(&site, key), RENEWED, "what the first had is not forgotten");
    verified(&site);
}

#[test]
fn a13_a_key_without_new_versions_stops_at_the_limit_and_not_past_it() {
    let (live, credentials, mut caller) = begin();
    let keys = [create_counted(&mut caller), create_counted_external(&mut caller)];
    let mut blobs = keys.map(|key| vec![seal(&mut caller, key).unwrap()]);
    drop(caller);
    let site = live.halt();
    keys.iter().for_each(|key| set(&site, *key, LIMIT - BLOCK));
    let live = site.start(Setup::new(at_rest()));
    let mut caller = Caller::new(&live, &credentials);
    for (key, blobs) in keys.iter().zip(&mut blobs) {
        blobs.push(seal(&mut caller, *key).expect("the last block"));
    }
    drop(caller);
    let site = live.halt();
    assert_eq!(keys.map(|key| reserved(&site, key)), [LIMIT; 2]);
    let live = site.start(Setup::new(at_rest()));
    let mut caller = Caller::new(&live, &credentials);
    for (key, blobs) in keys.iter().zip(&blobs) {
        assert_worn_out(&mut caller, *key, blobs);
    }
    // Imported material that goes and comes is the same key.
    let [renewed, external] = keys;
    caller.delete_material(external).unwrap();
    caller.import(external, MATERIAL, None).unwrap();
    assert_worn_out(&mut caller, external, &blobs[1]);
    caller.rotate(renewed).unwrap();
    assert_eq!(version(&seal(&mut caller, renewed).unwrap()), 2);
    drop(caller);
    let site = live.halt();
    assert_eq!(keys.map(|key| reserved(&site, key)), [LIMIT; 2], "the record never exceeds it");
    verified(&site);
}

#[test]
fn a13_a_crash_around_the_reservation_does_not_set_the_count_back() {
    for is_first in [true, false] {
        for (point, is_counted) in
            [(Point::BeforeCommit("invocations/"), false), (Point::AfterCommit("invocations/"), true)]
        {
            let (live, credentials, mut caller) = begin();
            let key = create_counted(&mut caller);
            let mut blobs = Vec::new();
            if !is_first {
                blobs.push(seal(&mut caller, key).unwrap());
            }
            drop(caller);
            let site = live.halt();
            let before = reserved(&site, key);
            let fuse = Fuse::new();
            let (store, log) = (fuse.clone(), fuse.clone());
            let setup = Setup::new(at_rest())
                .with_store(move |inner| store.store(inner))
                .with_audit(move |inner| log.log(inner));
            let live = site.start(setup);
            let mut caller = Caller::new(&live, &credentials);
            fuse.arm(point);
            assert!(seal(&mut caller, key).is_err(), "{point:?}: nothing is sealed on what did not last");
            assert!(fuse.is_blown());
            drop(caller);

            let site = live.halt();
            let after = reserved(&site, key);
            assert_eq!(after, before + if is_counted { BLOCK } else { 0 }, "{point:?}");
            let live = site.start(Setup::new(at_rest()));
            let mut caller = Caller::new(&live, &credentials);
            blobs.extend((0..100).map(|_| seal(&mut caller, key).unwrap()));
            let nonces: HashSet<_> = blobs.iter().map(|blob| nonce(blob)).collect();
            assert_eq!(nonces.len(), blobs.len());
            drop(caller);
            let site = live.halt();
            assert_eq!(reserved(&site, key), after + BLOCK, "{point:?}: what was reserved is not used again");
            verified(&site);
        }
    }
}

#[test]
fn a13_a_count_that_was_tampered_with_is_none_to_seal_by() {
    type Tamper = fn(&Rows, CmkId, &[u8]);
    let tamper: [(&str, Tamper); 3] = [
        ("flipped", |rows, key, _| rows.flip(&path(key))),
        ("deleted", |rows, key, _| rows.delete(&path(key))),
        ("older", |rows, key, older| rows.put(&path(key), older)),
    ];
    for (how, tamper) in tamper {
        let (live, credentials, mut caller) = begin();
        let keys = [create_counted(&mut caller), create_counted_external(&mut caller)];
        let mut blobs = keys.map(|key| vec![seal(&mut caller, key).unwrap()]);
        drop(caller);
        let site = live.halt();
        let older = keys.map(|key| Rows::of(&site).get(&path(key)).unwrap());
        let live = site.start(Setup::new(at_rest()));
        let mut caller = Caller::new(&live, &credentials);
        for (key, blobs) in keys.iter().zip(&mut blobs) {
            blobs.push(seal(&mut caller, *key).unwrap());
        }
        drop(caller);
        let site = live.halt();
        let rows = Rows::of(&site);
        for (key, older) in keys.iter().zip(&older) {
            tamper(&rows, *key, older);
        }
        drop(rows);
        let mut live = site.start(Setup::new(at_rest()));
        // A restart does not make it one, nor does a new version whose own count takes the record's place.
        for round in 0..2 {
            let mut caller = Caller::new(&live, &credentials);
            let [renewed, external] = keys;
            if round == 0 {
                assert_worn_out(&mut caller, renewed, &blobs[0]);
                caller.rotate(renewed).unwrap();
            }
            assert_eq!(version(&seal(&mut caller, renewed).unwrap()), 2, "{how}");
            assert_worn_out(&mut caller, external, &blobs[1]);
            caller.delete_material(external).unwrap();
            caller.import(external, MATERIAL, None).unwrap();
            assert_worn_out(&mut caller, external, &blobs[1]);
            drop(caller);
            live = live.restart(at_rest());
        }
    }
}
