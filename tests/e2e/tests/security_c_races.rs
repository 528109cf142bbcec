//! Group C of the security cases where it is about time: changes while requests run, changes that are cut, changes in a race.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use keymill_client::{ClientError, Connection, Credentials};
use keymill_core::access::Grant;
use keymill_core::id::{CmkId, KeyVersionId};
use keymill_core::key::{KeySpec, SignAlgorithm};
use keymill_core::operation::*;
use keymill_e2e::{Caller, Named, Pair, audit_lines, verified};
use keymill_harness::{Fuse, Live, Point, Setup, Started};
use keymill_runtime::EngineConfig;

const DAY_MS: i64 = 86_400_000;

fn begin() -> (Live, Credentials, Caller) {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let caller = Caller::new(&live, &credentials);
    (live, credentials, caller)
}

fn encrypt(key: impl Named, plaintext: &[u8]) -> Request<'_> {
    EncryptRequest {
        key_id: key.key_ref(),
        plaintext: Bin::from(plaintext),
        encryption_context: None,
        timeout_ms: None,
    }
    .into()
}

/// What became of a pipelined request: done, or refused with a code.
fn outcome(connection: &mut Connection) -> Result<u64, (u64, String)> {
    let answer = connection.receive().expect("an answer");
    match answer.result() {
        Ok(Reply::Encrypt(reply)) => {
            assert_eq!(reply.ciphertext_blob.len(), keymill_harness::overhead() + 8, "an answer is whole");
            Ok(answer.id())
        }
        Ok(Reply::BatchDecrypt(reply)) => {
            for (i, item) in reply.items.iter().enumerate() {
                let failed = reply.errors.iter().any(|error| error.0 as usize == i);
                assert_eq!(item.is_none(), failed, "an item is there or has its error");
            }
            match reply.errors.first() {
                Some(error) => {
                    assert_eq!(reply.errors.len(), reply.items.len(), "nothing of a stale answer is let out");
                    Err((answer.id(), error.1.to_string()))
                }
                None => Ok(answer.id()),
            }
        }
        Ok(other) => panic!("{other:?}"),
        Err(ClientError::Refused(error)) => Err((answer.id(), error.code)),
        Err(other) => panic!("{other}"),
    }
}

/// Runs requests on several connections while `change` is made on another; returns done and refused, with the code that all
/// refusals must have. Each connection sends on until well after the answer of the change.
fn under_load(
    live: &Live,
    credentials: &Credentials,
    key: CmkId,
    change: impl FnOnce(&mut Caller),
    code: &str,
) -> (usize, usize) {
    const DEPTH: usize = 64;
    const BEFORE: usize = 2_500;
    let blobs = {
        let mut caller = Caller::new(live, credentials);
        caller.batch_encrypt(key, &vec![b"12345678".to_vec(); 20]).unwrap()
    };
    let changed = AtomicBool::new(false);
    let (done, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let running = Barrier::new(5);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (changed, done, refused, running) = (&changed, &done, &refused, &running);
            let blobs = &blobs;
            scope.spawn(move || {
                let mut connection = Caller::new(live, credentials).connection;
                let mut late = std::collections::HashSet::new();
                let mut sent = 0;
                loop {
                    let is_late = changed.load(Ordering::SeqCst);
                    while connection.in_flight() < DEPTH as u64 {
                        let request = if (sent + n) % 8 == 0 {
                            Request::from(BatchDecryptRequest {
                                items: blobs.iter().map(|blob| Bin::from(&blob[..])).collect(),
                                key_id: None,
                                encryption_context: None,
                                encryption_contexts: None,
                                timeout_ms: None,
                            })
                        } else {
                            encrypt(key, b"12345678")
                        };
                        let id = connection.send(&request).unwrap();
                        sent += 1;
                        if is_late {
                            late.insert(id);
                        }
                    }
                    match outcome(&mut connection) {
                        Ok(id) => {
                            assert!(!late.contains(&id), "done, though sent after the change was answered");
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Err((_, got)) => {
                            assert_eq!(got, code);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if sent == BEFORE / 5 {
                        sent += 1;
                        running.wait();
                    }
                    if late.len() > 4 * DEPTH {
                        break;
                    }
                }
                while connection.in_flight() > 0 {
                    if outcome(&mut connection).is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut caller = Caller::new(live, credentials);
        running.wait();
        change(&mut caller);
        changed.store(true, Ordering::SeqCst);
    });
    (done.into_inner(), refused.into_inner())
}

#[test]
fn c2_c3_nothing_is_done_on_any_connection_once_a_disable_was_answered() {
    let (live, credentials, mut caller) = begin();
    let key = caller.create_key();
    for _ in 0..3 {
        let (done, refused) =
            under_load(&live, &credentials, key, |c| c.disable(key).unwrap(), "Rejected.Disabled");
        assert!(done > 500 && refused > 500, "{done} done, {refused} refused");
        caller.enable(key).unwrap();
        assert!(caller.encrypt(key, b"x", &[]).is_ok());
    }
    drop(caller);
    let site = live.halt();
    verified(&site);
}

#[test]
fn c3_the_same_goes_for_a_scheduled_deletion() {
    let (live, credentials, mut caller) = begin();
    let key = caller.create_key();
    let change = |c: &mut Caller| c.schedule_deletion(key).unwrap();
    let (done, refused) = under_load(&live, &credentials, key, change, "Rejected.PendingDeletion");
    assert!(done > 500 && refused > 500, "{done} done, {refused} refused");
}

#[test]
fn c3_the_same_goes_for_the_deletion_of_imported_material() {
    let (live, credentials, mut caller) = begin();
    // It is a key of software, whatever the others are: of the kind whose blobs are as long as theirs.
    let (spec, material) = match keymill_harness::overhead() {
        62 => (KeySpec::Aes256, &[7; 32][..]),
        _ => (KeySpec::Aes128, &[7; 16][..]),
    };
    let key = caller.create_external(spec, None).unwrap().key;
    for _ in 0..2 {
        caller.import(key, material, None).unwrap();
        let change = |c: &mut Caller| c.delete_material(key).unwrap();
        let (done, refused) = under_load(&live, &credentials, key, change, "Rejected.PendingImport");
        assert!(done > 500 && refused > 500, "{done} done, {refused} refused");
    }
    drop(caller);
    verified(&live.halt());
}

#[test]
fn c2_subkeys_and_handles_that_were_kept_do_not_outlive_a_disable() {
    let (live, credentials, mut caller) = begin();
    let key = caller.create_key();
    let blobs: Vec<Vec<u8>> = (0..8)
        .map(|_| {
            // An epoch ends with a disable: each blob has a prefix of its own.
            let blob = caller.encrypt(key, b"x", &[]).unwrap();
            caller.disable(key).unwrap();
            caller.enable(key).unwrap();
            blob
        })
        .collect();
    let mut connections: Vec<Caller> = (0..4).map(|_| Caller::new(&live, &credentials)).collect();
    for other in &mut connections {
        assert_eq!(other.batch_decrypt(&blobs).unwrap().errors, []);
    }
    // Where every item goes to the token there is none.
    let has_subkeys = keymill_harness::overhead() == 62;
    assert!(
        keymill_e2e::metric(&live, "keymill_subkey_cache_entries") >= if has_subkeys { 8.0 } else { 0.0 }
    );
    caller.disable(key).unwrap();
    for other in &mut connections {
        let opened = other.batch_decrypt(&blobs).unwrap();
        assert!(opened.items.iter().all(Option::is_none));
        assert!(opened.errors.iter().all(|error| error.1 == "Rejected.Disabled"));
        assert_eq!(other.decrypt(&blobs[0], &[]).unwrap_err().code, "Rejected.Disabled");
        assert_eq!(other.data_key(key, &[]).unwrap_err().code, "Rejected.Disabled");
    }
    assert_eq!(keymill_e2e::metric(&live, "keymill_subkey_cache_entries"), 0.0);
}

#[test]
fn c8_a_rotation_that_is_cut_anywhere_leaves_one_version_or_the_other() {
    const RECORD: &str = "\"operation\":\"RotateKey\"";
    let points = [
        (Point::BeforeCommit("cmk/"), 1),
        (Point::BeforeCommit("material/"), 1),
        (Point::AfterCommit("cmk/"), 2),
        (Point::BeforeRecord(RECORD), 2),
        (Point::AfterRecord(RECORD), 2),
    ];
    for (point, versions) in points {
        let fuse = Fuse::new();
        let (store, log) = (fuse.clone(), fuse.clone());
        let setup = Setup::new(EngineConfig::default())
            .with_store(move |inner| store.store(inner))
            .with_audit(move |inner| log.log(inner));
        let Started { live, credentials } = Live::start_with(setup);
        let mut caller = Caller::new(&live, &credentials);
        let key = caller.create_key();
        let old = caller.encrypt(key, b"old", &[]).unwrap();
        fuse.arm(point);
        assert!(caller.rotate(key).is_err(), "{point:?}: what did not last is not answered as done");
        assert!(fuse.is_blown());
        drop(caller);

        let live = live.halt().start(Setup::new(EngineConfig::default()));
        let mut caller = Caller::new(&live, &credentials);
        let numbers = |caller: &mut Caller| -> Vec<u32> {
            caller.versions(key).unwrap().iter().map(|(number, _)| *number).collect()
        };
        assert_eq!(numbers(&mut caller), (1..=versions).collect::<Vec<_>>(), "{point:?}");
        assert_eq!(caller.decrypt(&old, &[]).unwrap(), b"old");
        let new = caller.encrypt(key, b"new", &[]).unwrap();
        assert_eq!(new[18..22], versions.to_be_bytes());
        caller.rotate(key).unwrap();
        assert_eq!(numbers(&mut caller), (1..=versions + 1).collect::<Vec<_>>(), "no number is given twice");
        for (blob, plaintext) in [(&old, b"old"), (&new, b"new")] {
            assert_eq!(caller.decrypt(blob, &[]).unwrap(), plaintext);
        }
        drop(caller);
        let site = live.halt();
        verified(&site);
        let recovered = audit_lines(&site)
            .iter()
            .any(|line| line["note"] == "recovered" && line["writes"].to_string().contains(&key.to_string()));
        let unrecorded = matches!(point, Point::AfterCommit(_) | Point::BeforeRecord(_));
        assert_eq!(recovered, unrecorded, "{point:?}: what a crash kept out of the audit is noted");
    }
}

#[test]
fn c8_a_new_version_of_a_key_pair_that_is_cut_anywhere_is_there_or_not() {
    const RECORD: &str = "\"operation\":\"CreateKeyVersion\"";
    const ECDSA: SignAlgorithm = SignAlgorithm::EcdsaSha256;
    let points = [
        (Point::BeforeCommit("cmk/"), 1),
        (Point::BeforeCommit("material/"), 1),
        (Point::AfterCommit("cmk/"), 2),
        (Point::BeforeRecord(RECORD), 2),
        (Point::AfterRecord(RECORD), 2),
    ];
    let after_days = |days| Setup::new(EngineConfig::default()).at_offset_ms(days * DAY_MS);
    for (point, versions) in points {
        let (live, credentials, mut caller) = begin();
        let first = caller.create_pair(KeySpec::EcP256, None, None).unwrap();
        let old = caller.sign_digest(first, ECDSA, &[7; 32]).unwrap();
        drop(caller);
        let fuse = Fuse::new();
        let (store, log) = (fuse.clone(), fuse.clone());
        let setup =
            after_days(8).with_store(move |inner| store.store(inner)).with_audit(move |inner| log.log(inner));
        let live = live.halt().start(setup);
        let mut caller = Caller::new(&live, &credentials);
        fuse.arm(point);
        assert!(caller.create_version(first.key).is_err(), "{point:?}: what did not last is not answered");
        assert!(fuse.is_blown());
        drop(caller);

        let live = live.halt().start(after_days(8));
        let mut caller = Caller::new(&live, &credentials);
        let before = caller.versions(first.key).unwrap();
        let numbers = |rows: &[(u32, KeyVersionId)]| rows.iter().map(|row| row.0).collect::<Vec<_>>();
        assert_eq!(numbers(&before), (1..=versions).collect::<Vec<_>>(), "{point:?}");
        let digest = (Some(&[7; 32][..]), None);
        assert_eq!(caller.verify(first, ECDSA, digest, &old), Ok(true));
        // What is there is whole.
        for (_, version) in &before {
            let pair = Pair { version: *version, ..first };
            let signature = caller.sign_digest(pair, ECDSA, &[7; 32]).unwrap();
            assert_eq!(caller.verify(pair, ECDSA, digest, &signature), Ok(true));
        }
        drop(caller);
        let live = live.halt().start(after_days(16));
        let mut caller = Caller::new(&live, &credentials);
        let next = caller.create_version(first.key).unwrap();
        assert!(before.iter().all(|(_, version)| *version != next), "no id is given twice");
        let after = caller.versions(first.key).unwrap();
        assert_eq!(numbers(&after), (1..=versions + 1).collect::<Vec<_>>(), "nor a number");
        assert!(after.contains(&(versions + 1, next)));
        assert_eq!(caller.verify(first, ECDSA, digest, &old), Ok(true));
        drop(caller);
        let site = live.halt();
        verified(&site);
        let key = first.key.to_string();
        let recovered = audit_lines(&site)
            .iter()
            .any(|line| line["note"] == "recovered" && line["writes"].to_string().contains(&key));
        let unrecorded = matches!(point, Point::AfterCommit(_) | Point::BeforeRecord(_));
        assert_eq!(recovered, unrecorded, "{point:?}: what a crash kept out of the audit is noted");
    }
}

#[test]
fn c8_two_rotations_at_once_give_two_numbers() {
    let (live, credentials, mut caller) = begin();
    let key = caller.create_key();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut caller = Caller::new(&live, &credentials);
                (0..5).for_each(|_| caller.rotate(key).unwrap());
            });
        }
    });
    let numbers: Vec<u32> = caller.versions(key).unwrap().iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=21).collect::<Vec<_>>());
}

#[test]
fn c12_an_alias_that_moves_while_it_encrypts_gives_wholly_the_one_key_or_the_other() {
    let (live, credentials, mut caller) = begin();
    let (a, b) = (caller.create_key(), caller.create_key());
    caller.create_alias("alias/moves", a).unwrap();
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let stop = &stop;
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (live, credentials) = (&live, &credentials);
                scope.spawn(move || {
                    let mut caller = Caller::new(live, credentials);
                    let items = vec![b"x".to_vec(); 50];
                    let mut seen = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let request = keymill_e2e::batch_encrypt("alias/moves", &items);
                        let answered = caller.ask(request, |reply| match reply {
                            Reply::BatchEncrypt(reply) => {
                                let ids = reply.items.iter().flatten().map(|blob| {
                                    CmkId::from_bytes(*blob[2..].first_chunk().expect("a header"))
                                });
                                assert!(ids.clone().all(|id| id == reply.key_id), "all of one key");
                                assert_eq!(ids.count(), 50);
                                reply.key_id
                            }
                            other => panic!("{other:?}"),
                        });
                        seen.push(answered.unwrap());
                    }
                    seen
                })
            })
            .collect();
        for round in 0..40 {
            let to = if round % 2 == 0 { b } else { a };
            caller.move_alias("alias/moves", to).unwrap();
            // From the answer on it is the new one.
            let blob = caller.encrypt("alias/moves", b"x", &[]).unwrap();
            assert_eq!(blob[2..18], *to.as_bytes());
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(seen.contains(&a) && seen.contains(&b) && seen.iter().all(|id| *id == a || *id == b));
}

#[test]
fn c12_rights_are_those_on_the_key_and_do_not_follow_the_alias() {
    let (live, _, mut caller) = begin();
    let (a, b) = (caller.create_key(), caller.create_key());
    caller.create_alias("alias/rights", a).unwrap();
    let grants: Vec<Grant> = serde_json::from_value(serde_json::json!([
        { "Role": "RbacPermission/Template/CryptoServiceKeyUser", "Resources": [format!("key/{a}")] },
        { "Role": "KeyAdministrator", "Resources": [format!("key/{a}")] }
    ]))
    .unwrap();
    let credentials = caller.credentials(grants);
    let mut user = Caller::new(&live, &credentials);
    let old = user.encrypt("alias/rights", b"x", &[]).unwrap();
    assert_eq!(user.move_alias("alias/rights", b).unwrap_err().code, "Forbidden.KeyNotFound");
    caller.move_alias("alias/rights", b).unwrap();
    assert_eq!(user.encrypt("alias/rights", b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
    assert_eq!(user.move_alias("alias/rights", a).unwrap_err().code, "Forbidden.AliasNotFound");
    assert_eq!(user.delete_alias("alias/rights").unwrap_err().code, "Forbidden.AliasNotFound");
    assert_eq!(user.decrypt(&old, &[]).unwrap(), b"x", "old blobs open");
    assert!(user.encrypt(a, b"x", &[]).is_ok());
}

#[test]
fn c13_of_two_creates_of_one_alias_one_wins_and_the_other_is_told_that_it_exists() {
    let (live, credentials, mut caller) = begin();
    let (a, b) = (caller.create_key(), caller.create_key());
    for round in 0..20 {
        let name = format!("alias/race-{round}");
        let start = Arc::new(Barrier::new(2));
        let race = |key: CmkId| {
            let (start, name) = (start.clone(), name.clone());
            let (live, credentials) = (&live, &credentials);
            move || {
                let mut caller = Caller::new(live, credentials);
                start.wait();
                caller.create_alias(&name, key)
            }
        };
        let (one, other) = std::thread::scope(|scope| {
            let (one, other) = (scope.spawn(race(a)), scope.spawn(race(b)));
            (one.join().unwrap(), other.join().unwrap())
        });
        let (winner, error) = match (one, other) {
            (Ok(()), Err(error)) => (a, error),
            (Err(error), Ok(())) => (b, error),
            both => panic!("{both:?}"),
        };
        assert_eq!((error.status, &*error.code), (400, "AliasAlreadyExists"));
        assert_eq!(caller.describe(&*name).unwrap().key_id, winner);
    }
}

#[test]
fn c13_a_delete_and_a_create_in_a_race_end_in_one_of_the_two_orders() {
    let (live, credentials, mut caller) = begin();
    let (a, b) = (caller.create_key(), caller.create_key());
    for _ in 0..20 {
        caller.create_alias("alias/race", a).unwrap();
        let start = Barrier::new(2);
        let (deleted, created) = std::thread::scope(|scope| {
            let delete = scope.spawn(|| {
                let mut caller = Caller::new(&live, &credentials);
                start.wait();
                caller.delete_alias("alias/race")
            });
            let mut caller = Caller::new(&live, &credentials);
            start.wait();
            let created = caller.create_alias("alias/race", b);
            (delete.join().unwrap(), created)
        });
        deleted.unwrap();
        match created {
            Ok(()) => {
                assert_eq!(caller.describe("alias/race").unwrap().key_id, b);
                caller.delete_alias("alias/race").unwrap();
            }
            Err(error) => {
                assert_eq!(error.code, "AliasAlreadyExists");
                assert_eq!(caller.describe("alias/race").unwrap_err().code, "Forbidden.AliasNotFound");
            }
        }
    }
}
