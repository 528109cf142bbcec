//! Group C of the security cases: the life of keys, to the end of it and past that. What each operation answers in each state, and changes
//! under load and races, have files of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use keymill_core::id::CmkId;
use keymill_core::key::{KeySpec, KeyState};
use keymill_e2e::{Caller, Logs, Rows, audit_lines, eventually, find_in_files, metric, verified};
use keymill_harness::{Fuse, Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;

const DAY_MS: i64 = 86_400_000;

/// An engine that looks for deletions often.
fn config() -> EngineConfig {
    EngineConfig { deletion_check: Duration::from_millis(20), ..EngineConfig::default() }
}

fn begin() -> (Live, Caller) {
    let Started { live, credentials } = Live::start(config());
    let caller = Caller::new(&live, &credentials);
    (live, caller)
}
const MODIFIED: &str = "Rejected.StateModifiedFailed";
const PENDING: &str = "Rejected.PendingDeletion";
const MATERIAL: &[u8] = b"0123456789abcdef0123456789abcdef";

#[test]
fn what_is_sealed_anew_is_a_use_of_both_versions() {
    let (_live, mut caller) = begin();
    let key = caller.create_key();
    let items: Vec<Vec<u8>> = (0..300).map(|i| vec![1; i]).collect();
    let blobs = caller.batch_encrypt(key, &items).unwrap();
    caller.rotate(key).unwrap();
    assert_eq!(caller.batch_re_encrypt(&blobs, key).unwrap().1, []);
    caller.re_encrypt(&blobs[7], key).unwrap();
    assert_eq!(caller.uses(key).unwrap(), [(300, 301), (301, 0)]);
}

#[test]
fn c4_a_key_that_waits_for_its_deletion_refuses_changes_and_comes_back_whole() {
    let (live, mut caller) = begin();
    let (key, other) = (caller.create_key(), caller.create_key());
    let old = caller.encrypt(key, b"old", &[]).unwrap();
    caller.rotate(key).unwrap();
    let new = caller.encrypt(key, b"new", &[]).unwrap();
    caller.create_alias("alias/waits", key).unwrap();
    caller.create_alias("alias/else", other).unwrap();
    caller.schedule_deletion(key).unwrap();
    let before = caller.describe(key).unwrap();
    assert_eq!((before.key_state, before.delete_date.is_empty()), (KeyState::PendingDeletion, false));
    let refused = [
        (caller.encrypt(key, b"x", &[]).map(drop), PENDING),
        (caller.encrypt("alias/waits", b"x", &[]).map(drop), PENDING),
        (caller.decrypt(&old, &[]).map(drop), PENDING),
        (caller.create_alias("alias/another", key), MODIFIED),
        (caller.move_alias("alias/else", key), PENDING),
        (caller.rotate(key), PENDING),
        (caller.enable(key), MODIFIED),
        (caller.disable(key), MODIFIED),
        (caller.schedule_deletion(key), MODIFIED),
    ];
    for (answered, code) in refused {
        assert_eq!(answered.unwrap_err().code, code);
    }
    // Two that would have encrypted, one that would have decrypted: somebody still needs it.
    assert_eq!(metric(&live, "keymill_pending_deletion_uses_total"), 3.0);
    let after = caller.describe(key).unwrap();
    assert_eq!((after.key_state, &after.delete_date), (KeyState::PendingDeletion, &before.delete_date));
    caller.cancel_deletion(key).unwrap();
    let back = caller.describe(key).unwrap();
    assert_eq!((back.key_state, &*back.delete_date), (KeyState::Enabled, ""));
    assert_eq!(caller.decrypt(&old, &[]).unwrap(), b"old");
    assert_eq!(caller.decrypt(&new, &[]).unwrap(), b"new");
    let by_alias = caller.encrypt("alias/waits", b"x", &[]).unwrap();
    assert_eq!(caller.decrypt(&by_alias, &[]).unwrap(), b"x");
}

#[test]
fn c5_a_date_that_passed_while_stopped_is_kept_at_the_start_and_not_before_it() {
    let Started { live, credentials } = Live::start(config());
    let mut caller = Caller::new(&live, &credentials);
    let (due, kept) = (caller.create_key(), caller.create_key());
    let blob = caller.encrypt(due, b"x", &[]).unwrap();
    caller.create_alias("alias/due", due).unwrap();
    caller.schedule_deletion(due).unwrap();
    drop(caller);

    let fuse = Fuse::new();
    let around = fuse.clone();
    let early =
        Setup::new(config()).at_offset_ms(7 * DAY_MS - 60_000).with_store(move |inner| around.store(inner));
    let live = live.halt().start(early);
    let looked = fuse.commits();
    eventually("three looks at what is due", || (fuse.commits() >= looked + 3).then_some(()));
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.describe(due).unwrap().key_state, KeyState::PendingDeletion);
    drop(caller);

    let live = live.halt().start(Setup::new(config()).at_offset_ms(7 * DAY_MS + 60_000));
    let mut caller = Caller::new(&live, &credentials);
    eventually("the key is gone", || caller.describe(due).is_err().then_some(()));
    for error in [
        caller.describe(due).unwrap_err(),
        caller.encrypt(due, b"x", &[]).unwrap_err(),
        caller.decrypt(&blob, &[]).unwrap_err(),
        caller.cancel_deletion(due).unwrap_err(),
    ] {
        assert_eq!((error.status, &*error.code), (404, "Forbidden.KeyNotFound"));
    }
    assert_eq!(caller.encrypt("alias/due", b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
    assert!(caller.encrypt(kept, b"x", &[]).is_ok());
    drop(caller);
    let site = live.halt();
    let deleted = |line: &serde_json::Value| {
        line["operation"] == "DeleteKey" && line["keys"][0]["cmk"] == due.to_string()
    };
    assert_eq!(audit_lines(&site).iter().filter(|line| deleted(line)).count(), 1);
    verified(&site);
}

/// Starts an engine that counts its looks at the clock, and schedules the deletion of a key.
fn begin_waiting(config: EngineConfig) -> (Live, Caller, CmkId, Fuse) {
    let fuse = Fuse::new();
    let around = fuse.clone();
    let setup = Setup::new(config).with_store(move |inner| around.store(inner));
    let Started { live, credentials } = Live::start_with(setup);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    caller.schedule_deletion(key).unwrap();
    (live, caller, key, fuse)
}

fn jumps(site: &Site) -> usize {
    audit_lines(site).iter().filter(|line| line["note"] == "clock-jump").count()
}

#[test]
fn c5_a_clock_that_jumps_a_year_either_way_is_noted_and_deletions_rest() {
    for offset_ms in [365 * DAY_MS, -365 * DAY_MS] {
        let (live, mut caller, key, fuse) = begin_waiting(config());
        live.clock.jump_to_offset_ms(offset_ms);
        let looked = fuse.commits();
        eventually("five looks at the clock", || (fuse.commits() >= looked + 5).then_some(()));
        assert_eq!(caller.describe(key).unwrap().key_state, KeyState::PendingDeletion, "{offset_ms}");
        caller.cancel_deletion(key).unwrap();
        assert!(caller.encrypt(key, b"x", &[]).is_ok());
        drop(caller);
        let site = live.halt();
        assert_eq!(jumps(&site), 1, "{offset_ms}");
        // The rest outlives a restart: the clock is where it jumped to.
        let live = site.start(Setup::new(config()).at_offset_ms(offset_ms));
        drop(live);
    }
}

#[test]
fn c5_deletions_rest_over_a_restart_too_and_go_on_when_the_rest_is_over() {
    let rests = EngineConfig { clock_jump_rest: Duration::from_secs(2), ..config() };
    let (live, mut caller, key, fuse) = begin_waiting(rests.clone());
    live.clock.jump_to_offset_ms(8 * DAY_MS);
    let looked = fuse.commits();
    eventually("a look at the clock", || (fuse.commits() >= looked + 2).then_some(()));
    assert_eq!(caller.describe(key).unwrap().key_state, KeyState::PendingDeletion);
    drop(caller);
    let site = live.halt();
    assert_eq!(jumps(&site), 1);
    let live = site.start(Setup::new(rests).at_offset_ms(8 * DAY_MS));
    // Two seconds after the jump, by the engine's clock.
    eventually("the key is deleted", || (metric(&live, "keymill_keys") == 0.0).then_some(()));
}

#[test]
fn c5_a_clock_set_back_by_a_year_while_stopped_is_noted_at_the_start() {
    let (live, caller, key, _fuse) = begin_waiting(config());
    drop(caller);
    let live = live.halt().start(Setup::new(config()).at_offset_ms(-365 * DAY_MS));
    let credentials_gone = live.bootstrap().is_none();
    assert!(credentials_gone, "it is the same store");
    assert_eq!(metric(&live, "keymill_keys"), 1.0, "{key} is still there");
    let site = live.halt();
    assert_eq!(jumps(&site), 1, "the store was last seen a year later than now");
}

#[test]
fn c6_what_was_destroyed_is_in_no_file_of_the_store_and_usable_from_nothing() {
    let Started { live, credentials } = Live::start(config());
    let mut caller = Caller::new(&live, &credentials);
    let (key, kept) = (caller.create_key(), caller.create_key());
    let blob = caller.encrypt(key, b"x", &[]).unwrap();
    caller.rotate(key).unwrap();
    let newer = caller.encrypt(key, b"y", &[]).unwrap();
    // One that was brought, and is about to be brought again.
    let brought = caller.create_external(KeySpec::Aes128, None).unwrap().key;
    caller.import(brought, &MATERIAL[..16], None).unwrap();
    let foreign = caller.encrypt(brought, b"z", &[]).unwrap();
    let by = caller.usual_parameters(brought).unwrap();
    for (name, key) in [("alias/first", key), ("alias/second", brought)] {
        caller.create_alias(name, key).unwrap();
        caller.schedule_deletion(key).unwrap();
    }
    drop(caller);
    let site = live.halt();
    let of_keys = |site: &Site| {
        let rows = Rows::of(site);
        let prefixes = ["cmk/", "material/", "usage/", "invocations/", "import/"];
        let mut paths: Vec<String> = prefixes
            .iter()
            .flat_map(|prefix| [key, brought].map(|key| rows.paths(&format!("{prefix}{key}"))))
            .flatten()
            .collect();
        paths.extend(rows.paths("alias/"));
        paths.into_iter().map(|path| (rows.get(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let rows = of_keys(&site);
    let secret: Vec<&[u8]> = rows
        .iter()
        .filter(|(_, path)| path.starts_with("material/") || path.starts_with("import/"))
        .map(|(value, _)| &value[..])
        .collect();
    assert_eq!(secret.len(), 4);
    for value in &secret {
        assert!(!find_in_files(&site.data(), &value[10..]).is_empty(), "the search finds what is there");
    }

    let live = site.start(Setup::new(config()).at_offset_ms(8 * DAY_MS));
    eventually("the keys are deleted", || (metric(&live, "keymill_keys") == 1.0).then_some(()));
    let gone = |caller: &mut Caller, codes: &[&str]| {
        let mut told = Vec::new();
        for blob in [&blob, &newer, &foreign] {
            told.push(caller.decrypt(blob, &[]).unwrap_err().code);
        }
        for key in [key, brought] {
            told.push(caller.encrypt(key, b"x", &[]).unwrap_err().code);
            told.push(caller.describe(key).unwrap_err().code);
            told.push(caller.cancel_deletion(key).unwrap_err().code);
            told.push(caller.enable(key).unwrap_err().code);
        }
        told.push(caller.import_by(brought, &by, &MATERIAL[..16]).unwrap_err().code);
        assert!(told.iter().all(|code| codes.contains(&&**code)), "{told:?}");
        for name in ["alias/first", "alias/second"] {
            assert_eq!(caller.encrypt(name, b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
        }
        assert!(caller.encrypt(kept, b"x", &[]).is_ok());
    };
    let mut caller = Caller::new(&live, &credentials);
    gone(&mut caller, &["Forbidden.KeyNotFound"]);
    drop(caller);
    let site = live.halt();
    for value in &secret {
        // Any part of the record that is long enough to be no accident: nonce, ciphertext, tag.
        for part in [&value[10..34], &value[34..value.len() - 16], &value[value.len() - 16..]] {
            assert_eq!(find_in_files(&site.data(), part), Vec::<std::path::PathBuf>::new());
        }
    }
    assert_eq!(of_keys(&site), []);
    // Brought back by one who kept the rows, all of them: refused by name, and the keys stay gone.
    for (value, path) in &rows {
        Rows::of(&site).insert(path, value);
    }
    let logs = Logs::keep();
    let live = site.start(Setup::new(config()).at_offset_ms(8 * DAY_MS));
    let mut caller = Caller::new(&live, &credentials);
    gone(&mut caller, &["Forbidden.KeyNotFound", "Rejected.Quarantined"]);
    // Use counts alone are not remembered by the audit.
    for (_, path) in rows.iter().filter(|(_, path)| !path.starts_with("usage/")) {
        let lines = logs.lines_with(path);
        let named = |line: &String| line.contains("ERROR") && line.contains("quarantined");
        assert!(lines.iter().any(named), "{path}: {lines:?}");
    }
    drop(caller);
    verified(&live.halt());
}
