//! Instances with a domain of their own: their keys derive in, and are wrapped by, tokens that neither the installation nor one of another domain uses.
//! What they keep does not open by any other, be it of the same name; and where their token is away, the rest serves on. On SoftHSM, or the module
//! that `TEST_PKCS11_MODULE` names.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use keymill_client::{ClientError, Connection, Credentials, Options};
use keymill_core::key::BulkMode;
use keymill_e2e::{Caller, From, SoftHsm, eventually};
use keymill_harness::program::{self, Server, program};
use serde_json::{Value, json};
use tempfile::TempDir;

const NETWORKS: [(&str, &str); 2] = [("one", "127.0.0.2"), ("two", "127.0.0.3")];
const AWAY: &str = "ServiceUnavailableTemporary";
/// Names in the configuration, labels of tokens, and the domains that they are said to hold.
const TOKENS: [(&str, &str, &str); 6] = [
    ("own", "main", ""),
    ("a", "acme-1", "acme"),
    ("a-too", "acme-2", "acme"),
    ("b", "globex", "globex"),
    // It holds no domain of that name, and one of that name with other keys.
    ("liar", "globex", "acme"),
    ("namesake", "namesake", "acme"),
];

struct Scene {
    place: TempDir,
    hsm: SoftHsm,
    server: Option<Server>,
}

struct Made {
    id: String,
    credentials: Credentials,
}

impl Scene {
    fn start() -> Option<Self> {
        let place = TempDir::new().unwrap();
        let hsm = SoftHsm::below(place.path())?;
        hsm.init("main", &[]);
        for label in ["acme-1", "acme-2"] {
            hsm.init(label, &["--no-keys"]);
        }
        hsm.ceremony(["acme-1", "acme-2"], &["--domain", "acme"]);
        hsm.init("globex", &["--domain", "globex"]);
        hsm.init("namesake", &["--domain", "acme"]);
        let mut scene = Self { place, hsm, server: None };
        scene.configure(&TOKENS);
        scene.serve();
        Some(scene)
    }

    fn configure(&self, tokens: &[(&str, &str, &str)]) {
        let section = |(name, label, domain): &(&str, &str, &str)| {
            let domain = if domain.is_empty() { String::new() } else { format!("domain = {domain:?}") };
            self.hsm.section(name, label, &format!("sessions = 1\n{domain}"))
        };
        let sections: String = tokens.iter().map(section).collect();
        let networks =
            NETWORKS.map(|(name, source)| format!("[networks.{name}]\nsources = [\"{source}\"]\n"));
        let config = format!(
            "[root]\nkind = \"pkcs11\"\n[pool]\npatience_ms = 20000\n{sections}{}",
            networks.concat()
        );
        fs::write(self.place.path().join("keymill.toml"), config).unwrap();
    }

    fn serve(&mut self) {
        let mut command = program::serve(self.place.path());
        command.arg("--config").arg(self.place.path().join("keymill.toml"));
        command.env("SOFTHSM2_CONF", self.hsm.configuration());
        self.server = Some(Server::start_by(command, self.place.path()));
    }

    fn stop(&mut self) {
        let told = self.server.take().unwrap().stop_and_read();
        assert!(!told.contains("panicked"), "{told}");
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn root(&self) -> Caller {
        let root = program::credentials(self.place.path());
        Caller::of(Connection::open(self.server().msgpack, &root, &Options::default()).unwrap())
    }

    fn create(&self, terms: Value) -> Result<Made, String> {
        let mut terms = terms;
        terms["TimeoutMs"] = json!(50_000);
        let made = self.root().ask_json("CreateKmsInstance", terms);
        let made = made.map_err(|error| format!("{}: {}", error.code, error.message))?;
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let credentials = Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret"));
        Ok(Made { id: text("KmsInstanceId"), credentials })
    }

    fn connected(&self, domain: &str, token: &str, vpc: &str) -> Made {
        let made = self.create(json!({ "Domain": domain, "Tokens": share(&[token]) })).unwrap();
        self.root()
            .ask_json("ConnectKmsInstance", json!({ "KmsInstanceId": made.id, "VpcId": vpc }))
            .unwrap();
        made
    }

    fn update(&self, made: &Made, tokens: &[&str]) -> Result<Value, String> {
        let terms = json!({ "KmsInstanceId": made.id, "Tokens": share(tokens), "TimeoutMs": 50_000 });
        let updated = self.root().ask_json("UpdateKmsInstancePool", terms);
        updated.map_err(|error| format!("{}: {}", error.code, error.message))
    }

    fn try_inside(&self, vpc: usize, credentials: &Credentials) -> Result<Caller, String> {
        let way = From::address(NETWORKS[vpc].1, self.server().msgpack);
        match Connection::open(way.address, credentials, &Options::default()) {
            Ok(connection) => Ok(Caller::of(connection)),
            Err(ClientError::Refused(error)) => Err(error.code),
            Err(other) => panic!("{other}"),
        }
    }

    fn inside(&self, vpc: usize, made: &Made) -> Caller {
        self.try_inside(vpc, &made.credentials).unwrap()
    }

    /// As [`Self::inside`] once it runs: it starts beside the server.
    fn inside_soon(&self, vpc: usize, made: &Made) -> Caller {
        eventually("the instance starts", || self.try_inside(vpc, &made.credentials).ok())
    }

    fn status(&self, made: &Made) -> Value {
        self.shown(made)["Status"].clone()
    }

    /// Gives the first token of the first domain a file of its PIN that is its own.
    fn own_pin(&self, pin: &str) {
        let (file, config) = (self.hsm.path("pin-1"), self.place.path().join("keymill.toml"));
        fs::write(&file, format!("{pin}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let text = fs::read_to_string(&config).unwrap();
        let (before, own) = text.split_once("label = \"acme-1\"\n").unwrap();
        let (shared, own_pin) = (self.hsm.path("pin"), file);
        let own = own.replacen(&format!("pin_file = {shared:?}"), &format!("pin_file = {own_pin:?}"), 1);
        fs::write(&config, format!("{before}label = \"acme-1\"\n{own}")).unwrap();
    }

    fn shown(&self, made: &Made) -> Value {
        let shown = self.root().ask_json("GetKmsInstance", json!({ "KmsInstanceId": made.id })).unwrap();
        shown["KmsInstance"].clone()
    }

    /// Has the audit of an instance compared with its part of the store, by the keys of a domain; the server is stopped.
    fn verify(&self, made: &Made, whose: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(["audit", "verify", "--store", "--config"]).arg(self.place.path().join("keymill.toml"));
        command.arg("--data-dir").arg(self.place.path().join("data"));
        command.args(["--instance", &made.id]).args(whose).env("SOFTHSM2_CONF", self.hsm.configuration());
        command.output().unwrap()
    }
}

fn share(tokens: &[&str]) -> Value {
    tokens.iter().map(|token| json!({ "TokenName": token, "Sessions": 1 })).collect()
}

#[test]
fn what_an_instance_keeps_opens_by_its_own_domain_alone() {
    let Some(mut scene) = Scene::start() else { return };
    // A domain is what the configuration says, and what the token holds.
    for (terms, why) in [
        (json!({ "Domain": "acme" }), "InvalidParameter: Tokens: an instance of the domain acme has a token"),
        (
            json!({ "Domain": "acme", "Tokens": share(&["own"]) }),
            "UnsupportedOperation: Tokens: own is not of the domain of the instance",
        ),
        (
            json!({ "Domain": "acme", "Tokens": share(&["b"]) }),
            "UnsupportedOperation: Tokens: b is for instances of the domain globex",
        ),
        (
            json!({ "Tokens": share(&["a"]) }),
            "UnsupportedOperation: Tokens: a is for instances of the domain acme",
        ),
        (json!({ "Domain": "acme", "Tokens": share(&["a", "liar"]) }), "does not hold the domain acme"),
        (json!({ "Domain": "acme", "Tokens": share(&["a", "namesake"]) }), "another domain"),
    ] {
        let told = scene.create(terms).err().unwrap();
        assert!(told.contains(why), "{told} and not {why}");
    }
    let listed = scene.root().ask_json("ListKmsInstances", json!({})).unwrap();
    assert_eq!(listed["TotalCount"], json!(0), "nothing is left of them");

    let first = scene.connected("acme", "a", "one");
    let second = scene.connected("globex", "b", "two");
    assert_eq!(scene.shown(&first)["Domain"], json!("acme"));
    let mut blobs = Vec::new();
    for (vpc, made) in [&first, &second].into_iter().enumerate() {
        let mut inside = scene.inside(vpc, made);
        let key = eventually("the token is up", || inside.create_in_hsm(BulkMode::InHsm).ok());
        blobs.push(inside.encrypt(key, b"a tenant's", &[]).unwrap());
        assert_eq!(inside.decrypt(&blobs[vpc], &[]).unwrap(), b"a tenant's");
    }
    // What comes later has to hold it as well, and one has to remain.
    for (tokens, why) in [
        ("a liar", "does not hold the domain acme"),
        ("a namesake", "another domain"),
        ("a b", "the domain globex alone"),
        ("", "has a token of it"),
    ] {
        let tokens: Vec<_> = tokens.split_whitespace().collect();
        let told = scene.update(&first, &tokens).unwrap_err();
        assert!(told.contains(why), "{told} and not {why}");
    }
    scene.update(&first, &["a-too"]).unwrap();
    eventually("the other token of the domain serves", || {
        let tokens = scene.shown(&first)["Tokens"].clone();
        (tokens == json!([{ "TokenName": "a-too", "Sessions": 1, "OpenSessions": 1, "State": "up" }]))
            .then_some(())
    });
    assert_eq!(scene.inside(0, &first).decrypt(&blobs[0], &[]).unwrap(), b"a tenant's");

    // Everything that it wrote is under the keys of its domain, and of no other.
    scene.stop();
    let good = scene.verify(&first, &["--domain", "acme"]);
    assert!(
        good.status.success(),
        "{}{}",
        String::from_utf8_lossy(&good.stdout),
        String::from_utf8_lossy(&good.stderr)
    );
    for whose in [&[][..], &["--domain", "globex"]] {
        assert!(!scene.verify(&first, whose).status.success(), "{whose:?}");
    }
    // Nor does it run by the keys of another that has its name; the rest does.
    let mut swapped = TOKENS;
    (swapped[1].1, swapped[2].1) = ("namesake", "namesake");
    scene.configure(&swapped);
    scene.serve();
    let mut of_second = scene.inside_soon(1, &second);
    assert_eq!(scene.status(&first), json!("Error"));
    assert_eq!(scene.try_inside(0, &first.credentials).err().unwrap(), AWAY);
    let root = program::credentials(scene.place.path());
    assert_eq!(scene.try_inside(0, &root).err().unwrap(), AWAY, "its network leads to no other");
    assert_eq!(of_second.decrypt(&blobs[1], &[]).unwrap(), b"a tenant's");
    drop(of_second);
    // And as long as it does not run, no token comes to it that holds the keys of another.
    let told = scene.update(&first, &["a", "liar"]).unwrap_err();
    assert!(told.contains("does not hold the domain acme"), "{told}");
    let told = scene.update(&first, &["a", "namesake"]).unwrap_err();
    assert!(told.contains("does not open by the keys"), "{told}");
    let key = scene.root().create_key();
    scene.root().encrypt(key, b"the installation's", &[]).unwrap();
    scene.stop();
    scene.configure(&TOKENS);
    scene.serve();
    assert_eq!(scene.inside_soon(0, &first).decrypt(&blobs[0], &[]).unwrap(), b"a tenant's");
    scene.stop();
}

/// A module that does not answer: the worker that is to open it waits for somebody to write to it.
#[test]
fn a_token_that_hangs_keeps_the_server_neither_from_serving_nor_from_stopping() {
    /// Shorter than a worker is given to start.
    const SHORT: Duration = Duration::from_secs(25);
    let Some(mut scene) = Scene::start() else { return };
    let (first, second) = (scene.connected("acme", "a", "one"), scene.connected("globex", "b", "two"));
    scene.stop();
    let (module, away) = (scene.hsm.module("acme-1"), scene.hsm.path("away"));
    fs::rename(&module, &away).unwrap();
    assert!(Command::new("mkfifo").arg(&module).status().unwrap().success());
    let began = Instant::now();
    scene.serve();
    let own = scene.root().create_key();
    scene.root().encrypt(own, b"the installation's", &[]).unwrap();
    drop(scene.inside_soon(1, &second));
    assert_eq!(scene.status(&first), json!("Error"));
    scene.stop();
    let took = began.elapsed();
    assert!(took < SHORT, "{took:?}: it has waited for what hangs");
    fs::rename(&away, &module).unwrap();
    scene.serve();
    drop(scene.inside_soon(0, &first));
    scene.stop();
}

#[test]
fn a_pin_that_was_refused_is_tried_again_when_the_terms_change_and_by_no_other_change() {
    let Some(mut scene) = Scene::start() else { return };
    let made = scene.connected("acme", "a", "one");
    scene.stop();
    scene.own_pin("1234-wrong");
    scene.serve();
    // Another one has the time to start: what comes of the first is known by then.
    let meanwhile = |scene: &Scene| {
        let other = scene.create(json!({ "Domain": "globex", "Tokens": share(&["b"]) })).unwrap();
        let release =
            json!({ "KmsInstanceId": other.id, "ForceDeleteWithoutBackup": "true", "TimeoutMs": 50_000 });
        scene.root().ask_json("ReleaseKmsInstance", release).unwrap();
    };
    meanwhile(&scene);
    assert_eq!(scene.status(&made), json!("Error"));
    scene.own_pin("4711-user");
    let protect = json!({ "KmsInstanceId": made.id, "EnableDeletionProtection": true, "DeletionProtectionDescription": "x" });
    scene.root().ask_json("SetDeletionProtection", protect).unwrap();
    let bind = json!({ "KmsInstanceId": made.id, "BindVpcs": [{ "VpcId": "two" }] });
    scene.root().ask_json("UpdateKmsInstanceBindVpc", bind).unwrap();
    meanwhile(&scene);
    assert_eq!(scene.status(&made), json!("Error"), "nobody has said that it is right now");
    scene.update(&made, &["a"]).unwrap();
    drop(scene.inside_soon(0, &made));
    scene.stop();
}

#[test]
fn no_token_comes_to_an_instance_that_holds_the_keys_of_another_installation() {
    let Some(mut scene) = Scene::start() else { return };
    scene.stop();
    scene.hsm.init("stranger", &[]);
    let tokens: Vec<_> = TOKENS.into_iter().chain([("stranger", "stranger", "")]).collect();
    scene.configure(&tokens);
    scene.serve();
    let made = scene.create(json!({ "Tokens": share(&["own"]) })).unwrap();
    let told = scene.update(&made, &["own", "stranger"]).unwrap_err();
    assert!(told.starts_with("InvalidParameter") && told.contains("another domain"), "{told}");
    assert_eq!(scene.shown(&made)["Tokens"].as_array().unwrap().len(), 1);
    scene.stop();
}

#[test]
fn an_instance_whose_token_is_away_starts_when_it_is_back_and_the_rest_serves_meanwhile() {
    let Some(mut scene) = Scene::start() else { return };
    let made = scene.connected("acme", "a", "one");
    let mut inside = scene.inside(0, &made);
    let key = eventually("the token is up", || inside.create_in_hsm(BulkMode::InHsm).ok());
    let blob = inside.encrypt(key, b"a tenant's", &[]).unwrap();
    drop(inside);
    scene.stop();
    let (module, away) = (scene.hsm.module("acme-1"), scene.hsm.path("away"));
    fs::rename(&module, &away).unwrap();
    scene.serve();
    assert_eq!(scene.shown(&made)["Status"], json!("Error"));
    assert_eq!(scene.try_inside(0, &made.credentials).err().unwrap(), AWAY);
    let own = scene.root().create_key();
    let of_installation = scene.root().encrypt(own, b"the installation's", &[]).unwrap();
    assert_eq!(scene.root().decrypt(&of_installation, &[]).unwrap(), b"the installation's");
    fs::rename(&away, &module).unwrap();
    let mut inside = eventually("the instance starts", || scene.try_inside(0, &made.credentials).ok());
    assert_eq!(scene.shown(&made)["Status"], json!("Connected"));
    eventually("its token is up", || inside.decrypt(&blob, &[]).ok().filter(|text| text == b"a tenant's"));
    scene.stop();
}
