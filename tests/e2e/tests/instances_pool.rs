//! The pool of an instance changed as it runs: sessions of a token, another token, none, software workers. Not one request fails over it, of those
//! that the pool can serve before and after; and no key is left behind. On SoftHSM, or the module that `TEST_PKCS11_MODULE` names.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keymill_client::{Connection, Credentials, Options};
use keymill_core::id::CmkId;
use keymill_core::key::{BulkMode, Fallback, KeySpec, ProtectionLevel, SignAlgorithm};
use keymill_e2e::{Caller, From, SoftHsm, eventually, workers_of};
use keymill_harness::program::{self, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

const WITHIN: &str = "127.0.0.2";
const STATE: &str = "Forbidden.DKMSInstanceStateInvalid";

/// A server with two tokens of one domain, and an instance.
struct Scene {
    place: TempDir,
    hsm: SoftHsm,
    server: Option<Server>,
    id: String,
    credentials: Credentials,
}

impl Scene {
    fn start() -> Option<Self> {
        let place = TempDir::new().unwrap();
        let hsm = SoftHsm::below(place.path())?;
        for label in ["one", "two"] {
            hsm.init(label, &["--no-keys"]);
        }
        hsm.ceremony(["one", "two"], &[]);
        let config = format!(
            "[pool]\nfallback = \"unavailable\"\npatience_ms = 3000\n{}{}[networks.within]\nsources = [\"{WITHIN}\"]\n",
            hsm.section("a", "one", "sessions = 1"),
            hsm.section("b", "two", "sessions = 1")
        );
        fs::write(place.path().join("keymill.toml"), config).unwrap();
        let nobody = Credentials::new("nobody-yet".parse().unwrap(), "none".to_owned());
        let mut scene = Self { place, hsm, server: None, id: String::new(), credentials: nobody };
        scene.serve();
        let made = scene
            .administrator()
            .ask_json("CreateKmsInstance", json!({ "Tokens": share("a", 1), "TimeoutMs": 50_000 }))
            .unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        scene.id = text("KmsInstanceId");
        scene.credentials = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
        let connect = json!({ "KmsInstanceId": scene.id, "VpcId": "within" });
        scene.administrator().ask_json("ConnectKmsInstance", connect).unwrap();
        Some(scene)
    }

    fn serve(&mut self) {
        let mut command = program::serve(self.place.path());
        command.arg("--config").arg(self.place.path().join("keymill.toml"));
        command.env("SOFTHSM2_CONF", self.hsm.configuration());
        self.server = Some(Server::start_by(command, self.place.path()));
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn administrator(&self) -> Caller {
        let root = program::credentials(self.place.path());
        Caller::of(Connection::open(self.server().msgpack, &root, &Options::default()).unwrap())
    }

    fn inside(&self) -> Caller {
        let way = From::address(WITHIN, self.server().msgpack);
        Caller::of(Connection::open(way.address, &self.credentials, &Options::default()).unwrap())
    }

    fn update(&self, terms: Value) -> Result<Value, keymill_client::ServerError> {
        let mut parameters = json!({ "KmsInstanceId": self.id });
        parameters.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        self.administrator().ask_json("UpdateKmsInstancePool", parameters)
    }

    fn tokens(&self, administrator: &mut Caller) -> Value {
        let shown = administrator.ask_json("GetKmsInstance", json!({ "KmsInstanceId": self.id })).unwrap();
        shown["KmsInstance"]["Tokens"].clone()
    }

    /// Waits until the tokens of the instance are these, with all their sessions, and nothing of another is left.
    fn await_tokens(&self, tokens: &[(&str, u64)]) {
        let row = |(name, sessions): &(&str, u64)| json!({ "TokenName": name, "Sessions": sessions, "OpenSessions": sessions, "State": "up" });
        let wanted: Value = tokens.iter().map(row).collect();
        let mut administrator = self.administrator();
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.tokens(&mut administrator);
            if seen == wanted {
                break;
            }
            assert!(Instant::now() < patience, "{seen} and not {wanted}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // The installation has a worker for each of its tokens.
        eventually("workers come and go with the tokens", || {
            (workers_of(self.server().id()) == 2 + tokens.len()).then_some(())
        });
    }
}

fn share(token: &str, sessions: u32) -> Value {
    json!([{ "TokenName": token, "Sessions": sessions }])
}

/// A caller who does the same again and again, until told to stop.
struct Load {
    what: &'static str,
    done: Arc<AtomicU64>,
    stops: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Load {
    fn of(what: &'static str, mut once: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let (done, stops) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let (counted, told) = (done.clone(), stops.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                once()?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { what, done, stops, thread }
    }

    /// Encrypts and decrypts batches.
    fn ciphers(what: &'static str, scene: &Scene, key: CmkId) -> Self {
        let mut caller = scene.inside();
        let items: Vec<_> = (0..64_u8).map(|i| vec![i; 48]).collect();
        Self::of(what, move || {
            let blobs = caller.batch_encrypt(key, &items).map_err(|error| format!("{error:?}"))?;
            let opened = caller.batch_decrypt(&blobs).map_err(|error| format!("{error:?}"))?;
            match opened.errors.is_empty()
                && opened.items.iter().zip(&items).all(|(got, item)| got.as_ref() == Some(item))
            {
                true => Ok(()),
                false => Err(format!("{:?}", opened.errors)),
            }
        })
    }

    fn stop(self) {
        self.stops.store(true, Ordering::Relaxed);
        let outcome = self.thread.join().unwrap();
        assert_eq!(outcome, Ok(()), "{}, after {}", self.what, self.done.load(Ordering::Relaxed));
    }
}

/// Waits until each has done some more, and so none waits for what is gone.
fn go_on(loads: &[Load]) {
    let before: Vec<_> = loads.iter().map(|load| load.done.load(Ordering::Relaxed)).collect();
    for (load, before) in loads.iter().zip(before) {
        eventually(load.what, || {
            (load.done.load(Ordering::Relaxed) >= before + 10 || load.thread.is_finished()).then_some(())
        });
        assert!(!load.thread.is_finished(), "{} has ended", load.what);
    }
}

/// Counts the threads of the software lane, of the instance and of its installation.
fn software_workers(scene: &Scene) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", scene.server().id())).unwrap().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.starts_with("km-software")).count()
}

#[test]
fn tokens_sessions_and_workers_come_and_go_and_not_one_request_fails() {
    let Some(mut scene) = Scene::start() else { return };
    scene.await_tokens(&[("a", 1)]);
    let mut inside = scene.inside();
    let create = |inside: &mut Caller, mode, fallback| {
        eventually("the control lane is up", || inside.create_with(mode, fallback).ok())
    };
    let [never, derived] =
        [BulkMode::InHsm, BulkMode::HsmDerived].map(|mode| create(&mut inside, mode, None));
    let fallback = create(&mut inside, BulkMode::InHsm, Some(Fallback::Unavailable));
    let pair = inside.create_pair(KeySpec::EcP256, None, Some(ProtectionLevel::Software)).unwrap();
    let kept = inside.encrypt(never, b"kept in a token", &[]).unwrap();
    let mut signs = scene.inside();
    let signatures = Load::of("signatures by software", move || {
        let signed = signs.sign_digest(pair, SignAlgorithm::EcdsaSha256, &[7; 32]);
        signed.map(drop).map_err(|error| format!("{error:?}"))
    });
    let mut all = vec![signatures, Load::ciphers("a key with a copy", &scene, fallback)];
    let of_tokens = || {
        vec![
            Load::ciphers("a key in tokens", &scene, never),
            Load::ciphers("a key by epochs", &scene, derived),
        ]
    };
    let hsm = of_tokens();
    let both_go_on = |hsm: &[Load], all: &[Load]| {
        go_on(hsm);
        go_on(all);
    };
    both_go_on(&hsm, &all);

    // Sessions and software workers, more and fewer.
    let workers = software_workers(&scene);
    scene.update(json!({ "Tokens": share("a", 4), "SoftwareWorkers": 3 })).unwrap();
    scene.await_tokens(&[("a", 4)]);
    eventually("workers come", || (software_workers(&scene) == workers + 2).then_some(()));
    both_go_on(&hsm, &all);
    scene.update(json!({ "Tokens": share("a", 1), "SoftwareWorkers": 1 })).unwrap();
    scene.await_tokens(&[("a", 1)]);
    eventually("workers go", || (software_workers(&scene) == workers).then_some(()));
    both_go_on(&hsm, &all);

    // Another token.
    scene.update(json!({ "Tokens": share("b", 2) })).unwrap();
    both_go_on(&hsm, &all);
    scene.await_tokens(&[("b", 2)]);
    let listed = inside.tokens().unwrap();
    assert_eq!(listed.iter().map(|token| &*token.token_name).collect::<Vec<_>>(), ["b"]);
    both_go_on(&hsm, &all);
    hsm.into_iter().for_each(Load::stop);

    // None: keys with a copy go on, and new keys are as those of an instance without tokens.
    scene.update(json!({ "Tokens": [] })).unwrap();
    go_on(&all);
    scene.await_tokens(&[]);
    go_on(&all);
    assert_eq!(inside.decrypt(&kept, &[]).unwrap_err().code, "ServiceUnavailableTemporary");
    assert_eq!(inside.create_in_hsm(BulkMode::InHsm).unwrap_err().code, "UnsupportedOperation");
    let plain = inside.create_key();
    assert_eq!(inside.describe(plain).unwrap().protection_level, ProtectionLevel::Software);

    // And the first again.
    scene.update(json!({ "Tokens": share("a", 2) })).unwrap();
    go_on(&all);
    scene.await_tokens(&[("a", 2)]);
    assert_eq!(inside.decrypt(&kept, &[]).unwrap(), b"kept in a token");
    let hsm = of_tokens();
    both_go_on(&hsm, &all);
    hsm.into_iter().for_each(Load::stop);
    all.drain(..).for_each(Load::stop);
    let infos = json!({ "KmsInstanceId": scene.id, "ResourceType": "hsmSession" });
    let infos = scene.administrator().ask_json("GetKmsInstanceQuotaInfos", infos).unwrap();
    assert_eq!(
        infos["KmsInstanceQuotaInfos"][0],
        json!({ "ResourceType": "hsmSession", "ResourceQuota": 2, "UsedQuantity": 2 })
    );

    // After a start it is as it was changed to.
    drop(inside);
    let told = scene.server.take().unwrap().stop_and_read();
    assert!(!told.contains("panicked") && !told.contains("given up"), "{told}");
    scene.serve();
    scene.await_tokens(&[("a", 2)]);
    assert_eq!(scene.inside().decrypt(&kept, &[]).unwrap(), b"kept in a token");
}

#[test]
fn a_token_is_not_taken_away_in_which_keys_stay_that_no_other_has() {
    let Some(scene) = Scene::start() else { return };
    scene.await_tokens(&[("a", 1)]);
    let mut inside = scene.inside();
    let mut internal =
        || eventually("a key is made to stay", || inside.create_internal(BulkMode::InHsm, None).ok());
    let keys = [internal(), internal()];
    for terms in [json!({ "Tokens": share("b", 1) }), json!({ "Tokens": [] })] {
        let refused = scene.update(terms).unwrap_err();
        assert_eq!(refused.code, STATE);
        assert!(refused.message.contains("without a, 2 keys"), "{}", refused.message);
    }
    // It serves on, and takes keys as before.
    let third = internal();
    let blob = inside.encrypt(third.key_id, b"stays", &[]).unwrap();
    scene
        .update(
            json!({ "Tokens": [{ "TokenName": "a", "Sessions": 2 }, { "TokenName": "b", "Sessions": 1 }] }),
        )
        .unwrap();
    scene.await_tokens(&[("a", 2), ("b", 1)]);
    // What stays in the first is no matter for the other.
    scene.update(json!({ "Tokens": share("a", 1) })).unwrap();
    scene.await_tokens(&[("a", 1)]);
    assert_eq!(inside.decrypt(&blob, &[]).unwrap(), b"stays");
    for key in keys {
        inside.encrypt(key.key_id, b"x", &[]).unwrap();
    }
}
