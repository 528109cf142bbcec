//! Group F of the security cases at rest: rows and audit lines changed behind the engine's back, and older ones put back.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_core::id::CmkId;
use keymill_core::key::KeyState;
use keymill_crypto::audit::Fault;
use keymill_e2e::{Caller, Logs, Rows, audit_lines, verified};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;

/// An engine with three keys, a blob of each, an alias of each of the first two, and an access key.
struct Scene {
    site: Site,
    credentials: Credentials,
    keys: [CmkId; 3],
    blobs: [Vec<u8>; 3],
    user: (keymill_core::id::AccessKeyId, String),
}

fn scene() -> Scene {
    Logs::keep();
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let keys = [(); 3].map(|()| caller.create_key());
    let blobs = keys.map(|key| caller.encrypt(key, b"x", &[]).unwrap());
    caller.create_alias(&alias(0), keys[0]).unwrap();
    caller.create_alias(&alias(1), keys[1]).unwrap();
    let root = serde_json::from_value(serde_json::json!([{ "Role": "Root" }])).unwrap();
    let user = caller.create_access_key(root).unwrap();
    drop(caller);
    Scene { site: live.halt(), credentials, keys, blobs, user }
}

fn alias(n: usize) -> String {
    format!("alias/row-{n}")
}

fn start(site: Site) -> Live {
    site.start(Setup::new(EngineConfig::default()))
}

fn material(key: CmkId) -> String {
    format!("material/{key}/1")
}

fn cmk(key: CmkId) -> String {
    format!("cmk/{key}")
}

/// The log names the record by its path and says why it is not used.
fn assert_named(path: &str, why: &str) {
    let lines = Logs::keep().lines_with(path);
    assert!(
        lines.iter().any(|line| line.contains("ERROR") && line.contains("quarantined") && line.contains(why)),
        "{path}: {lines:?}"
    );
}

#[test]
fn f1_swapped_material_is_refused_and_the_rest_is_served() {
    let scene = scene();
    let [a, b, c] = scene.keys;
    Rows::of(&scene.site).swap(&material(a), &material(b));
    let live = start(scene.site);
    let mut caller = Caller::new(&live, &scene.credentials);
    for n in 0..2 {
        for error in [
            caller.encrypt(scene.keys[n], b"x", &[]).unwrap_err(),
            caller.decrypt(&scene.blobs[n], &[]).unwrap_err(),
            caller.data_key(scene.keys[n], &[]).unwrap_err(),
            caller.re_encrypt(&scene.blobs[n], c).unwrap_err(),
        ] {
            assert_eq!((error.status, &*error.code), (503, "Rejected.Quarantined"));
            assert!(!error.retryable);
        }
        assert_named(&material(scene.keys[n]), "differs");
    }
    let opened = caller.batch_decrypt(&scene.blobs).unwrap();
    assert_eq!(opened.items.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
    assert!(opened.errors.iter().all(|error| error.1 == "Rejected.Quarantined"));
    assert!(caller.encrypt(c, b"x", &[]).is_ok());
}

#[test]
fn f1_material_of_another_version_in_the_place_of_a_version_is_refused() {
    let Scene { site, credentials, keys, blobs, .. } = scene();
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    caller.rotate(keys[0]).unwrap();
    let newer = caller.encrypt(keys[0], b"y", &[]).unwrap();
    drop(caller);
    let site = live.halt();
    Rows::of(&site).swap(&material(keys[0]), &format!("material/{}/2", keys[0]));
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    for blob in [&blobs[0], &newer] {
        assert_eq!(caller.decrypt(blob, &[]).unwrap_err().code, "Rejected.Quarantined");
    }
    assert_eq!(caller.decrypt(&blobs[1], &[]).unwrap(), b"x");
}

/// Material is read when a key is first used: by then it must still be what the audit says, though its seal may fit.
#[test]
fn f1_material_that_is_exchanged_under_a_running_server_is_refused() {
    let Scene { site, credentials, keys: [flipped, gone, resealed], blobs, .. } = scene();
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    let used = caller.create_key();
    let blob = caller.encrypt(used, b"y", &[]).unwrap();
    let rows = Rows::of(live.site());
    rows.flip(&material(flipped));
    rows.delete(&material(gone));
    let (path, sealer) = (material(resealed), live.site().sealer());
    let before = sealer.open(&path, 2, &rows.get(&path).unwrap()).unwrap();
    let after = sealer.seal(&path, 2, before.sequence, before.payload.expose()).unwrap();
    rows.put(&path, &after.bytes);
    rows.flip(&material(used));
    for (key, blob) in [flipped, gone, resealed].into_iter().zip(&blobs) {
        let errors = [caller.encrypt(key, b"x", &[]).map(drop), caller.decrypt(blob, &[]).map(drop)]
            .map(Result::unwrap_err);
        for error in errors {
            assert_eq!((error.status, &*error.code), (503, "Rejected.Quarantined"));
        }
    }
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"y", "what is in use was read before");
}

#[test]
fn f1_one_changed_bit_in_any_record_is_refused_by_its_path_and_the_rest_is_served() {
    let scene = scene();
    let [a, b, c] = scene.keys;
    let rows = Rows::of(&scene.site);
    let access_key = format!("access-key/k{}", scene.user.0);
    for path in [&cmk(a), &material(b), "alias/nrow-1", &access_key] {
        rows.flip(path);
    }
    drop(rows);
    let live = start(scene.site);
    let mut caller = Caller::new(&live, &scene.credentials);
    assert_eq!(caller.encrypt(a, b"x", &[]).unwrap_err().code, "Rejected.Quarantined");
    assert_eq!(caller.describe(a).unwrap_err().code, "Rejected.Quarantined");
    assert_eq!(caller.enable(a).unwrap_err().code, "Rejected.Quarantined");
    assert_eq!(caller.encrypt(&*alias(0), b"x", &[]).unwrap_err().code, "Rejected.Quarantined");
    assert_eq!(caller.encrypt(b, b"x", &[]).unwrap_err().code, "Rejected.Quarantined");
    assert_eq!(caller.encrypt(&*alias(1), b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
    assert!(caller.encrypt(c, b"x", &[]).is_ok());
    let user = Credentials::new(scene.user.0.clone(), scene.user.1.clone());
    let login = Connection::open(live.address, &user, &Options::default()).map(drop);
    assert!(matches!(login, Err(ClientError::Refused(error)) if error.code == "SignatureDoesNotMatch"));
    for path in [cmk(a), "alias/nrow-1".into(), access_key] {
        assert_named(&path, "");
    }
    let quarantined = keymill_e2e::metric(&live, "keymill_quarantined_records");
    assert!(quarantined >= 3.0, "each record that is refused at the start is counted: {quarantined}");
}

#[test]
fn f1_a_state_of_another_time_put_back_is_refused() {
    let Scene { site, credentials, keys, .. } = scene();
    let enabled = Rows::of(&site).get(&cmk(keys[0])).unwrap();
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    caller.disable(keys[0]).unwrap();
    drop(caller);
    let site = live.halt();
    Rows::of(&site).put(&cmk(keys[0]), &enabled);
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.encrypt(keys[0], b"x", &[]).unwrap_err().code, "Rejected.Quarantined");
    assert_named(&cmk(keys[0]), "older");
    assert!(caller.encrypt(keys[1], b"x", &[]).is_ok());
}

#[test]
fn f1_swapped_alias_targets_are_refused() {
    let Scene { site, credentials, keys, .. } = scene();
    Rows::of(&site).swap("alias/nrow-0", "alias/nrow-1");
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    for (n, key) in keys[..2].iter().enumerate() {
        assert_eq!(caller.encrypt(&*alias(n), b"x", &[]).unwrap_err().code, "Forbidden.AliasNotFound");
        assert_named(&format!("alias/nrow-{n}"), "");
        assert!(caller.encrypt(*key, b"x", &[]).is_ok());
    }
}

#[test]
fn f1_an_access_key_of_another_time_or_place_does_not_log_in() {
    let Scene { site, credentials, user, .. } = scene();
    let user_path = format!("access-key/k{}", user.0);
    let before = Rows::of(&site).get(&user_path).unwrap();
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    caller.set_grants(&user.0, Vec::new()).unwrap();
    let (other, other_secret) = caller.create_access_key(Vec::new()).unwrap();
    drop(caller);
    let site = live.halt();
    let rows = Rows::of(&site);
    // Its rights of another time, and its record in the place of another's.
    rows.put(&user_path, &before);
    rows.put(&format!("access-key/k{other}"), &before);
    drop(rows);
    let live = start(site);
    for (id, secret) in [(&user.0, &user.1), (&other, &other_secret), (&other, &user.1)] {
        let credentials = Credentials::new(id.clone(), secret.clone());
        let login = Connection::open(live.address, &credentials, &Options::default()).map(drop);
        assert!(matches!(login, Err(ClientError::Refused(error)) if error.code == "SignatureDoesNotMatch"));
    }
    assert_named(&user_path, "older");
    assert!(Caller::new(&live, &credentials).keys().is_ok());
}

#[test]
fn f2_a_removed_row_is_noticed_and_one_that_came_back_is_refused() {
    let Scene { site, credentials, keys, blobs, .. } = scene();
    let rows = Rows::of(&site);
    rows.delete(&cmk(keys[2]));
    rows.delete(&material(keys[1]));
    rows.delete("alias/nrow-1");
    let first = rows.get("alias/nrow-0").unwrap();
    drop(rows);
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    for blob in &blobs[1..] {
        assert_eq!(caller.decrypt(blob, &[]).unwrap_err().code, "Rejected.Quarantined");
    }
    for path in [cmk(keys[2]), material(keys[1]), "alias/nrow-1".into()] {
        assert_named(&path, "missing");
    }
    assert_eq!(caller.decrypt(&blobs[0], &[]).unwrap(), b"x");
    let other = caller.create_key();
    caller.move_alias(&alias(0), other).unwrap();
    caller.delete_alias(&alias(0)).unwrap();
    drop(caller);
    let site = live.halt();
    Rows::of(&site).insert("alias/nrow-0", &first);
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    assert_eq!(caller.describe(&*alias(0)).unwrap_err().code, "Forbidden.AliasNotFound");
    assert_named("alias/nrow-0", "older");
}

#[test]
fn f2_an_older_database_put_back_whole_shows_against_the_audit_log() {
    let Scene { site, credentials, keys, .. } = scene();
    let older = fs::read(site.database()).unwrap();
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    caller.disable(keys[0]).unwrap();
    caller.rotate(keys[1]).unwrap();
    let young = caller.create_key();
    let (revoked, secret) = caller.create_access_key(Vec::new()).unwrap();
    caller.delete_access_key(&revoked).unwrap();
    drop(caller);
    let site = live.halt();
    fs::write(site.database(), &older).unwrap();
    let live = start(site);
    let mut caller = Caller::new(&live, &credentials);
    // What changed since is refused; what did not is served.
    for key in [keys[0], keys[1], young] {
        assert_eq!(caller.encrypt(key, b"x", &[]).unwrap_err().code, "Rejected.Quarantined");
    }
    assert_named(&cmk(keys[0]), "older");
    assert_named(&cmk(keys[1]), "older");
    assert_named(&cmk(young), "missing");
    assert_named(&format!("material/{}/2", keys[1]), "missing");
    assert!(caller.encrypt(keys[2], b"x", &[]).is_ok());
    let login = Connection::open(live.address, &Credentials::new(revoked, secret), &Options::default());
    assert!(login.is_err());
}

#[test]
fn f2_an_audit_log_cut_or_taken_away_shows_against_the_heads_in_the_store() {
    let Scene { site, credentials, .. } = scene();
    let chain = fs::read_dir(site.audit())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("management.jsonl"))
        .unwrap();
    let name = chain.file_stem().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(&chain).unwrap();
    let kept: Vec<&str> = text.lines().collect();
    fs::write(&chain, kept[..kept.len() - 3].join("\n") + "\n").unwrap();
    let live = start(site);
    let lines = Logs::keep().lines_with(&name);
    assert!(lines.iter().any(|line| line.contains("ERROR") && line.contains("cut off")), "{lines:?}");
    assert!(Caller::new(&live, &credentials).keys().is_ok());
    let site = live.halt();
    fs::remove_file(&chain).unwrap();
    let _live = start(site);
    let lines = Logs::keep().lines_with(&name);
    assert!(lines.iter().any(|line| line.contains("ERROR") && line.contains("is gone")), "{lines:?}");
}

#[test]
fn f4_the_first_line_that_was_touched_is_named() {
    let Scene { site, .. } = scene();
    verified(&site);
    let chain = fs::read_dir(site.audit())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("management.jsonl"))
        .unwrap();
    let text = fs::read_to_string(&chain).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > 6);
    let altered = lines[3].replacen("\"outcome\":\"ok\"", "\"outcome\":\"no\"", 1);
    assert_ne!(altered, lines[3]);
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    let mut doubled = lines.clone();
    doubled.insert(4, lines[3]);
    let removed = [&lines[..3], &lines[4..]].concat();
    let changed = [&lines[..3], &[&*altered], &lines[4..]].concat();
    let cases = [
        (removed, 4, Fault::Missing { found: 5 }),
        (changed, 4, Fault::Altered),
        (swapped, 4, Fault::Missing { found: 5 }),
        (doubled, 5, Fault::OutOfOrder { found: 4 }),
        (lines[1..].to_vec(), 1, Fault::Missing { found: 2 }),
    ];
    let report_of = |lines: &[&str]| {
        fs::write(&chain, lines.join("\n") + "\n").unwrap();
        let reports = site.verify();
        reports.into_iter().find(|report| report.head.chain.ends_with("management")).unwrap()
    };
    for (lines, number, fault) in cases {
        let bad = report_of(&lines).bad.expect("it is noticed");
        assert_eq!((bad.number, &bad.fault), (number, &fault), "{bad}");
    }
    let other = fs::read_dir(site.audit())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some() && *path != chain)
        .unwrap();
    let other = fs::read_to_string(other).unwrap();
    let bad = report_of(&other.lines().collect::<Vec<_>>()).bad.expect("it is noticed");
    assert_eq!(bad.number, 1, "another chain in its place: {bad}");
    assert!(report_of(&lines).is_good());
}

#[test]
fn f5_text_with_line_ends_and_escapes_stays_in_its_record() {
    Logs::keep();
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let forged = "x\n{\"seq\":999,\"type\":\"request\"}\r\n\u{1b}[2J\u{1b}[31mFORGED\u{7}\u{0}\u{85}\u{2028}";
    let long = "y".repeat(8_192);
    for description in [forged, &long] {
        let key = caller.create_described(description).unwrap();
        assert_eq!(caller.describe(key).unwrap().description, description);
    }
    let (id, secret) = caller
        .create_access_key(serde_json::from_value(serde_json::json!([{ "Role": "Root" }])).unwrap())
        .unwrap();
    let mut raw = keymill_e2e::Raw::log_in(live.address, &id, &secret);
    for text in [forged, &long] {
        assert_eq!(raw.ask(text, Vec::new()).status, 404, "an operation of that name");
        assert_eq!(raw.ask("DescribeKey", vec![("KeyId", text.into())]).status, 404);
        let field = raw.ask("DescribeKey", vec![("KeyId", "x".into()), (text, "x".into())]);
        assert_eq!(field.status, 400, "a parameter of that name");
    }
    let mut stranger = keymill_e2e::Raw::connect(live.address);
    assert_ne!(stranger.hello(forged, [0; 32]).unwrap().status, 0);
    drop((caller, raw, stranger));
    let site = live.halt();
    for line in audit_lines(&site) {
        assert!(!line.to_string().contains("FORGED"), "{line}");
        assert!(line["seq"].as_u64().is_some_and(|seq| seq < 100));
    }
    for (path, bytes) in keymill_e2e::files(&site.audit()) {
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            assert!(bytes.iter().all(|byte| *byte == b'\n' || (b' '..=b'~').contains(byte)), "{path:?}");
        }
    }
    verified(&site);
    assert_eq!(Logs::keep().lines_with("FORGED"), Vec::<String>::new(), "nor a line of the program's log");
}

#[test]
fn f9_every_file_is_ours_alone_whatever_the_umask_and_links_and_loose_places_are_refused() {
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    assert!(caller.encrypt(key, b"x", &[]).is_ok());
    drop(caller);
    fn check(directory: &std::path::Path) -> usize {
        let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory), 0o700, "{directory:?}");
        let mut count = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => count += check(&path),
                false => {
                    assert_eq!(mode(&path), 0o600, "{path:?}");
                    count += 1;
                }
            }
        }
        count
    }
    assert!(check(&live.site().data()) >= 3 && check(&live.site().audit()) >= 3);
    let site = live.halt();
    nix::sys::stat::umask(before);
    assert!(check(&site.data()) + check(&site.audit()) >= 4);

    let refused = |site: Site| {
        let setup = Setup::new(EngineConfig::default());
        site.try_start(setup).err().expect("it does not start").to_string()
    };
    let loose = scene().site;
    fs::set_permissions(loose.data(), fs::Permissions::from_mode(0o777)).unwrap();
    let why = refused(loose);
    assert!(why.contains("data"), "{why}");
    let linked = scene().site;
    let moved = linked.path().join("elsewhere");
    fs::rename(linked.data(), &moved).unwrap();
    symlink(&moved, linked.data()).unwrap();
    let why = refused(linked);
    assert!(why.contains("link"), "{why}");
    let open_file = scene().site;
    fs::set_permissions(open_file.database(), fs::Permissions::from_mode(0o644)).unwrap();
    let why = refused(open_file);
    assert!(why.contains("keymill.db"), "{why}");
    let state = Caller::new(&start(site), &credentials).describe(key).unwrap().key_state;
    assert_eq!(state, KeyState::Enabled);
}
