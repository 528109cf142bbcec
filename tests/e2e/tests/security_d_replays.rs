//! Group D of the security cases, D3 where the memory of a process does not reach: a signed change that was captured on the wire comes
//! again behind a restart, a crash, or at another listener.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keymill_client::Credentials;
use keymill_core::access::AccessKeyStatus;
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::key::{KeySpec, KeyState, WrappingAlgorithm};
use keymill_core::limit;
use keymill_core::operation::*;
use keymill_core::seam::store::{Change, Entry, Lease, Page, Path, Revision, Row, Store, StoreError, Write};
use keymill_crypto::audit::Stamps;
use keymill_e2e::{Answered, Caller, Captured, Rows, Web, eventually, metric, verified};
use keymill_harness::program::{self, Server, program};
use keymill_harness::{Fuse, Live, Point, Setup, Site, Started};
use keymill_runtime::{EngineConfig, verify};

/// A live engine behind HTTP.
struct Stage {
    web: Web,
    live: Live,
    credentials: Credentials,
}

impl Stage {
    fn begin() -> Self {
        Self::begin_with(Setup::new(EngineConfig::default()))
    }

    fn begin_with(setup: Setup) -> Self {
        let Started { live, credentials } = Live::start_with(setup);
        Self { web: Web::over(&live), live, credentials }
    }

    fn caller(&self) -> Caller {
        Caller::new(&self.live, &self.credentials)
    }

    fn send<'a>(&self, request: impl Into<Request<'a>>) -> (Answered<()>, Captured) {
        Captured::send(self.web.address, &self.credentials, request, |_| ())
    }

    fn capture<'a>(&self, request: impl Into<Request<'a>>) -> Captured {
        let (answered, captured) = self.send(request);
        answered.unwrap();
        captured
    }

    fn replay(&self, captured: &Captured) -> (u16, String) {
        captured.replay(self.web.address)
    }

    fn halt(self) -> (Site, Credentials) {
        drop(self.web);
        (self.live.halt(), self.credentials)
    }

    fn over(site: Site, credentials: Credentials) -> Self {
        let live = site.start(Setup::new(EngineConfig::default()));
        Self { web: Web::over(&live), live, credentials }
    }

    fn restart(self) -> Self {
        let (site, credentials) = self.halt();
        Self::over(site, credentials)
    }
}

fn used() -> (u16, String) {
    (400, "SignatureNonceUsed".into())
}

fn disable(key: CmkId) -> DisableKeyRequest {
    DisableKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None }
}

fn enable(key: CmkId) -> EnableKeyRequest {
    EnableKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None }
}

fn create_alias(name: &str, key: CmkId) -> CreateAliasRequest {
    CreateAliasRequest { alias_name: name.parse().unwrap(), key_id: KeyRef::Id(key), timeout_ms: None }
}

fn state(caller: &mut Caller, key: CmkId) -> KeyState {
    caller.describe(key).unwrap().key_state
}

#[test]
fn d3_a_captured_change_is_refused_behind_a_restart_and_at_every_listener() {
    let stage = Stage::begin();
    let mut caller = stage.caller();
    let key = caller.create_key();
    let external = caller.create_external(KeySpec::Aes256, None).unwrap().key;
    let user = caller.credentials(Vec::new());
    let id = user.access_key_id();
    let mut captured = Vec::new();
    captured.push(stage.capture(CreateKeyRequest::default()));
    captured.push(stage.capture(CreateAccessKeyRequest {
        grants: serde_json::from_value(serde_json::json!([{ "Role": "Root" }])).unwrap(),
        description: None,
        timeout_ms: None,
    }));
    captured.push(stage.capture(RotateKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None }));
    captured.push(stage.capture(disable(key)));
    caller.enable(key).unwrap();
    captured.push(stage.capture(ScheduleKeyDeletionRequest {
        key_id: KeyRef::Id(key),
        pending_window_in_days: 7,
        timeout_ms: None,
    }));
    caller.cancel_deletion(key).unwrap();
    captured.push(stage.capture(create_alias("alias/a", key)));
    caller.delete_alias("alias/a").unwrap();
    captured.push(stage.capture(UpdateKeyDescriptionRequest {
        key_id: KeyRef::Id(key),
        description: "captured".into(),
        timeout_ms: None,
    }));
    caller.update_description(key, "").unwrap();
    captured.push(stage.capture(UpdateAccessKeyRequest {
        access_key_id: id.clone(),
        status: Some(AccessKeyStatus::Inactive),
        grants: None,
        description: None,
        timeout_ms: None,
    }));
    caller.set_status(id, AccessKeyStatus::Active).unwrap();
    captured.push(stage.capture(GetParametersForImportRequest {
        key_id: KeyRef::Id(external),
        wrapping_algorithm: WrappingAlgorithm::RsaesOaepSha256,
        wrapping_key_spec: KeySpec::Rsa2048,
        timeout_ms: None,
    }));
    let parameters = caller.usual_parameters(external).unwrap();
    let look = |caller: &mut Caller| {
        let metadata = caller.describe(key).unwrap();
        let versions = caller.versions(key).unwrap().len();
        let keys: BTreeSet<CmkId> = caller.keys().unwrap().into_iter().collect();
        let aliases = caller.aliases().unwrap();
        (metadata.key_state, metadata.description.clone(), versions, keys, aliases)
    };
    let before = look(&mut caller);

    // Another listener has a memory of its own, as another node has.
    let other = Web::over(&stage.live);
    for request in &captured {
        assert_eq!(request.replay(other.address), used());
    }
    drop(other);
    let refused = || metric(&stage.live, "keymill_authentication_failures_total{reason=\"nonce\"}");
    assert_eq!(refused(), captured.len() as f64, "each is counted");
    assert_eq!(look(&mut caller), before);
    drop(caller);

    let (site, credentials) = stage.halt();
    assert_eq!(Rows::of(&site).paths("nonce/").len(), captured.len());
    let stage = Stage::over(site, credentials);
    let mut caller = stage.caller();
    for request in captured.iter().chain(&captured) {
        assert_eq!(stage.replay(request), used());
    }
    assert_eq!(look(&mut caller), before);
    // The user is active still: a login tells.
    drop(stage.live.connect(&user));
    // What was got for the import was not replaced.
    caller.import_by(external, &parameters, &[7; 32]).unwrap();
    drop(caller);
    let (site, _) = stage.halt();
    verified(&site);
}

#[test]
fn d3_a_change_that_changed_nothing_at_first_changes_nothing_later() {
    let stage = Stage::begin();
    let mut caller = stage.caller();
    let key = caller.create_key();
    let captured = stage.capture(enable(key));
    caller.disable(key).unwrap();
    drop(caller);
    let stage = stage.restart();
    assert_eq!(stage.replay(&captured), used());
    assert_eq!(state(&mut stage.caller(), key), KeyState::Disabled);
}

#[test]
fn d3_a_change_that_failed_is_not_made_up_for_later() {
    let stage = Stage::begin();
    let mut caller = stage.caller();
    let key = caller.create_key();
    caller.create_alias("alias/a", key).unwrap();
    let (answered, alias) = stage.send(create_alias("alias/a", key));
    assert_eq!(answered.unwrap_err().code, "AliasAlreadyExists");
    caller.schedule_deletion(key).unwrap();
    let (answered, disabling) = stage.send(disable(key));
    assert!(answered.is_err(), "a key that waits for its deletion is not disabled");
    caller.cancel_deletion(key).unwrap();
    caller.delete_alias("alias/a").unwrap();
    drop(caller);
    let stage = stage.restart();
    for captured in [&alias, &disabling] {
        assert_eq!(stage.replay(captured), used());
    }
    let mut caller = stage.caller();
    assert_eq!((state(&mut caller, key), caller.aliases().unwrap()), (KeyState::Enabled, vec![]));
}

#[test]
fn d3_who_may_change_nothing_fills_no_store_and_neither_do_reads_and_data() {
    let stage = Stage::begin();
    let mut caller = stage.caller();
    let key = caller.create_key();
    let nobody = caller.credentials(Vec::new());
    for n in 0..20 {
        for request in [Request::from(disable(key)), create_alias(&format!("alias/{n}"), key).into()] {
            let (answered, _) = Captured::send(stage.web.address, &nobody, request, |_| ());
            assert!(answered.is_err());
        }
    }
    stage.capture(DescribeKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None });
    let data = stage.capture(EncryptRequest {
        key_id: KeyRef::Id(key),
        plaintext: Bin::from(&b"x"[..]),
        encryption_context: None,
        timeout_ms: None,
    });
    // A data request is remembered by its listener alone: it changes nothing.
    assert_eq!(stage.replay(&data), used());
    drop(caller);
    let (site, credentials) = stage.halt();
    assert_eq!(Rows::of(&site).paths("nonce/"), Vec::<String>::new());
    assert_eq!(Stage::over(site, credentials).replay(&data), (200, String::new()));
}

/// Disables a key with a process that dies at a point; returns the key, the request, and the restarted stage.
fn died_while_disabling(point: Point) -> (CmkId, Captured, Stage) {
    let fuse = Fuse::new();
    let (store, log) = (fuse.clone(), fuse.clone());
    let setup = Setup::new(EngineConfig::default())
        .with_store(move |inner| store.store(inner))
        .with_audit(move |inner| log.log(inner));
    let stage = Stage::begin_with(setup);
    let key = stage.caller().create_key();
    fuse.arm(point);
    let (answered, captured) = stage.send(disable(key));
    assert!(answered.is_err() && fuse.is_blown());
    let stage = stage.restart();
    (key, captured, stage)
}

#[test]
fn d3_the_nonce_and_the_change_are_durable_together_or_not_at_all() {
    // Whichever of the two is held up holds up the other: it is one commit.
    for point in [Point::BeforeCommit("cmk/"), Point::BeforeCommit("nonce/")] {
        let (key, captured, stage) = died_while_disabling(point);
        assert_eq!(state(&mut stage.caller(), key), KeyState::Enabled, "{point:?}");
        let (site, credentials) = stage.halt();
        assert_eq!(Rows::of(&site).paths("nonce/"), Vec::<String>::new(), "{point:?}");
        // It was never carried out, and so comes for the first time.
        let stage = Stage::over(site, credentials);
        assert_eq!(stage.replay(&captured), (200, String::new()));
    }
    for point in [Point::AfterCommit("cmk/"), Point::AfterCommit("nonce/")] {
        let (key, captured, stage) = died_while_disabling(point);
        let mut caller = stage.caller();
        assert_eq!(state(&mut caller, key), KeyState::Disabled, "{point:?}");
        caller.enable(key).unwrap();
        assert_eq!(stage.replay(&captured), used(), "{point:?}");
        assert_eq!(state(&mut caller, key), KeyState::Enabled, "{point:?}");
        // Who was not answered signs anew.
        stage.capture(disable(key));
        assert_eq!(state(&mut caller, key), KeyState::Disabled, "{point:?}");
    }
}

/// A store in which nobody sees a nonce: as if both of two nodes had looked before either wrote.
struct Blind(Arc<dyn Store>);

impl Store for Blind {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        match path.as_str().starts_with("nonce/") {
            true => Ok(None),
            false => self.0.get(path),
        }
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix, page)
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        self.0.scan(&mut |row| row.path.starts_with("nonce/") || each(row))
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        self.0.commit(writes)
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        self.0.watch(prefix, from, each)
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.0.lease(name, holder, ttl)
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        self.0.revision()
    }
}

#[test]
fn d3_of_two_that_come_at_the_same_moment_the_commit_takes_one() {
    let setup = Setup::new(EngineConfig::default()).with_store(|store| Arc::new(Blind(store)));
    let stage = Stage::begin_with(setup);
    let mut caller = stage.caller();
    let key = caller.create_key();
    let user = caller.credentials(Vec::new());
    let id = user.access_key_id();
    let status = Some(AccessKeyStatus::Inactive);
    let (access_key_id, grants, description, timeout_ms) = (id.clone(), None, None, None);
    let captured = [
        stage.capture(disable(key)),
        // Changes nothing.
        stage.capture(disable(key)),
        stage.capture(CreateKeyRequest::default()),
        stage.capture(UpdateAccessKeyRequest { access_key_id, status, grants, description, timeout_ms }),
    ];
    caller.enable(key).unwrap();
    caller.set_status(id, AccessKeyStatus::Active).unwrap();
    let before = (caller.keys().unwrap(), state(&mut caller, key));
    let other = Web::over(&stage.live);
    for request in &captured {
        assert_eq!(request.replay(other.address), used());
    }
    assert_eq!((caller.keys().unwrap(), state(&mut caller, key)), before);
    // The user is active still: a login tells.
    drop(stage.live.connect(&user));
}

#[test]
fn d3_the_nonce_of_a_change_of_access_keys_is_committed_with_it() {
    let fuse = Fuse::new();
    let store = fuse.clone();
    let setup = Setup::new(EngineConfig::default()).with_store(move |inner| store.store(inner));
    let stage = Stage::begin_with(setup);
    let before = fuse.commits();
    let request = CreateAccessKeyRequest { grants: Vec::new(), description: None, timeout_ms: None };
    stage.capture(request);
    assert_eq!(fuse.commits(), before + 1);
    let (site, _) = stage.halt();
    let rows = Rows::of(&site);
    assert_eq!((rows.paths("nonce/").len(), rows.paths("access-key/").len()), (1, 2));
}

/// An engine that looks quickly for what it may forget, and its store.
fn forgetful() -> (Stage, Arc<dyn Store>) {
    let kept: Arc<OnceLock<Arc<dyn Store>>> = Arc::default();
    let keep = kept.clone();
    let config = EngineConfig { usage_flush: Duration::from_millis(20), ..EngineConfig::default() };
    let stage = Stage::begin_with(Setup::new(config).with_store(move |store| {
        assert!(keep.set(store.clone()).is_ok());
        store
    }));
    let store = kept.get().unwrap().clone();
    (stage, store)
}

fn nonces(store: &dyn Store) -> usize {
    let page = Page { after: None, limit: 10_000 };
    store.list(&Path::new("nonce/").unwrap(), page).unwrap().len()
}

/// Waits until the engine has looked for what it may forget: it always takes away what is nobody's.
fn look_has_passed(store: &dyn Store) {
    let path = Path::new("nonce/0").unwrap();
    store.commit(&[Write { path: path.clone(), expected: None, value: Some(vec![0]) }]).unwrap();
    eventually("a look has passed", || store.get(&path).unwrap().is_none().then_some(()));
}

const MINUTE_MS: i64 = 60_000;

#[test]
fn d3_a_nonce_is_kept_until_its_request_can_no_longer_pass_and_not_much_longer() {
    let (stage, store) = forgetful();
    let key = stage.caller().create_key();
    let captured = stage.capture(disable(key));
    stage.capture(enable(key));
    assert_eq!(nonces(&*store), 2);
    stage.live.clock.jump_to_offset_ms(14 * MINUTE_MS);
    look_has_passed(&*store);
    assert_eq!(nonces(&*store), 2);
    assert_eq!(captured.replay(Web::over(&stage.live).address), used());
    // Nor may the clock be so far ahead that nobody noticed.
    for minutes in [40, 74] {
        stage.live.clock.jump_to_offset_ms(minutes * MINUTE_MS);
        look_has_passed(&*store);
        assert_eq!(nonces(&*store), 2, "{minutes}");
    }
    stage.live.clock.jump_to_offset_ms(30 * MINUTE_MS);
    look_has_passed(&*store);
    stage.live.clock.jump_to_offset_ms(0);
    assert_eq!(captured.replay(Web::over(&stage.live).address), used());
    // Another day, by steps that count as no jump.
    for minutes in [50, 85] {
        stage.live.clock.jump_to_offset_ms(minutes * MINUTE_MS);
        look_has_passed(&*store);
    }
    eventually("they are forgotten", || (nonces(&*store) == 0).then_some(()));
    let expired = (400, "InvalidTimeStamp.Expired".into());
    assert_eq!(captured.replay(Web::over(&stage.live).address), expired);
    assert_eq!(state(&mut stage.caller(), key), KeyState::Enabled);
}

#[test]
fn d3_many_nonces_that_ran_out_are_forgotten_in_steps_between_which_others_have_their_turn() {
    let stage = Stage::begin();
    let id = stage.credentials.access_key_id().clone();
    let key = stage.caller().create_key();
    let captured = stage.capture(disable(key));
    let (site, credentials) = stage.halt();
    Rows::of(&site).fill((0..5_000).map(|n| format!("nonce/0000000001/k{id}/{n:032x}")));
    let kept: Arc<OnceLock<Arc<dyn Store>>> = Arc::default();
    let keep = kept.clone();
    let live = site.start(Setup::new(EngineConfig::default()).with_store(move |store| {
        assert!(keep.set(store.clone()).is_ok());
        store
    }));
    let stage = Stage { web: Web::over(&live), live, credentials };
    let store = kept.get().unwrap();
    // Who asks as much as there can be.
    let (mut caller, mut changes) = (Caller::of(stage.live.connect(&stage.credentials)), 0);
    eventually("they are forgotten", || {
        caller.update_description(key, &changes.to_string()).unwrap();
        changes += 1;
        (nonces(&**store) == 1).then_some(())
    });
    assert!(changes > 10, "{changes} changes meanwhile");
    assert_eq!(stage.replay(&captured), used());
}

#[test]
fn d3_a_clock_that_jumps_makes_nobody_forget() {
    let (stage, store) = forgetful();
    let key = stage.caller().create_key();
    let captured = stage.capture(disable(key));
    stage.live.clock.jump_to_offset_ms(24 * 60 * MINUTE_MS);
    look_has_passed(&*store);
    stage.caller().enable(key).unwrap();
    stage.live.clock.jump_to_offset_ms(0);
    assert_eq!(captured.replay(Web::over(&stage.live).address), used());
    assert_eq!((state(&mut stage.caller(), key), nonces(&*store)), (KeyState::Enabled, 1));
}

#[test]
fn d3_an_access_key_whose_nonces_fill_their_room_is_throttled_alone_and_loses_none() {
    let stage = Stage::begin();
    let mut caller = stage.caller();
    let key = caller.create_key();
    let other = caller.credentials(serde_json::from_value(serde_json::json!([{ "Role": "Root" }])).unwrap());
    let captured = stage.capture(disable(key));
    drop(caller);
    let (site, credentials) = stage.halt();
    let mut rows = Rows::of(&site);
    let [path] = &rows.paths("nonce/")[..] else { panic!("one nonce is kept") };
    let (folder, _) = path.rsplit_once('/').unwrap();
    let (folder, room) = (folder.to_owned(), limit::KEPT_NONCES - 1);
    rows.fill((0..room).map(|n| format!("{folder}/{n:032x}")));
    drop(rows);
    let stage = Stage::over(site, credentials);
    let (answered, _) = stage.send(enable(key));
    let error = answered.unwrap_err();
    assert_eq!((error.status, &*error.code, error.retryable), (429, "Rejected.Throttling", true));
    assert_eq!(stage.replay(&captured), used(), "what is kept is not forgotten for what comes");
    stage.capture(DescribeKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None });
    let (answered, _) = Captured::send(stage.web.address, &other, enable(key), |_| ());
    assert!(answered.is_ok(), "its neighbour is not throttled");
    // A login is signed once, and has no nonces that fill anything.
    stage.caller().disable(key).unwrap();
}

#[test]
fn d3_a_damaged_nonce_counts_as_used_and_shows_when_the_store_is_verified() {
    let stage = Stage::begin();
    let key = stage.caller().create_key();
    let captured = stage.capture(disable(key));
    stage.caller().enable(key).unwrap();
    let (site, credentials) = stage.halt();
    let rows = Rows::of(&site);
    let path = rows.paths("nonce/").remove(0);
    let wrong = |site: &Site| -> Vec<String> {
        let (_, findings) =
            verify::compare(&*site.store().unwrap(), &site.sealer(), &Stamps::default()).unwrap();
        findings.into_iter().filter(|finding| finding.is_wrong).map(|finding| finding.path).collect()
    };
    assert_eq!(wrong(&site), Vec::<String>::new());
    rows.flip(&path);
    drop(rows);
    assert_eq!(wrong(&site), [path]);
    let stage = Stage::over(site, credentials);
    assert_eq!(stage.replay(&captured), used());
    assert_eq!(state(&mut stage.caller(), key), KeyState::Enabled);
}

#[test]
fn d3_a_captured_change_is_refused_behind_a_kill_9_and_the_store_verifies() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start(place.path());
    let credentials = program::credentials(place.path());
    let created = |reply: Reply<'_>| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    };
    let described = |reply: Reply<'_>| match reply {
        Reply::DescribeKey(reply) => reply.key_metadata.key_state,
        other => panic!("{other:?}"),
    };
    let (key, creation) = Captured::send(server.http, &credentials, CreateKeyRequest::default(), created);
    let key = key.unwrap();
    let (disabled, disabling) = Captured::send(server.http, &credentials, disable(key), |_| ());
    disabled.unwrap();
    Captured::send(server.http, &credentials, enable(key), |_| ()).0.unwrap();
    server.kill();
    let server = Server::start(place.path());
    for captured in [&creation, &disabling] {
        assert_eq!(captured.replay(server.http), used());
    }
    let request = DescribeKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None };
    let (state, _) = Captured::send(server.http, &credentials, request, described);
    assert_eq!(state.unwrap(), KeyState::Enabled);
    assert!(server.stop().success());
    let verified = Command::new(program())
        .args(["audit", "verify", "--store", "--data-dir"])
        .arg(place.path().join("data"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success(), "{told}");
}
