//! Instances whose keys live in a token of the pool that the installation uses, too: by a worker process each, since whoever is logged in to a
//! token is so for a whole process. One that ends harms neither the other nor the installation. On SoftHSM, or the module that
//! `TEST_PKCS11_MODULE` names.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keymill_client::{Connection, Credentials, Options};
use keymill_e2e::{Caller, From, eventually};
use keymill_harness::program::{self, Server, program};
use serde_json::{Value, json};
use tempfile::TempDir;

const NETWORKS: [(&str, &str); 2] = [("one", "127.0.0.2"), ("two", "127.0.0.3")];

fn module() -> Option<PathBuf> {
    let named = std::env::var_os("TEST_PKCS11_MODULE").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from("/usr/lib/softhsm/libsofthsm2.so")).filter(|path| path.exists()))
}

/// Makes a token ready, and starts a server whose pool has it in a worker.
fn start(place: &TempDir, module: &std::path::Path) -> Server {
    let path = |name: &str| place.path().join(name);
    fs::create_dir(path("tokens")).unwrap();
    let found = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        path("tokens").display()
    );
    fs::write(path("softhsm2.conf"), found).unwrap();
    for (name, pin) in [("pin", "4711-user"), ("so-pin", "0815-officer")] {
        fs::write(path(name), format!("{pin}\n")).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut init = Command::new(program());
    init.args(["hsm", "init", "--token", "shared", "--module"]).arg(module);
    init.arg("--pin-file").arg(path("pin")).arg("--so-pin-file").arg(path("so-pin"));
    let init = init.env("SOFTHSM2_CONF", path("softhsm2.conf")).stdin(Stdio::null()).output().unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let token = |name: &str, isolation: &str| {
        format!(
            "[[pool.token]]\nname = {name:?}\nmodule = {module:?}\nlabel = \"shared\"\npin_file = {:?}\nsessions = 2\nisolation = {isolation:?}\n",
            path("pin")
        )
    };
    let networks = NETWORKS.map(|(name, source)| format!("[networks.{name}]\nsources = [\"{source}\"]\n"));
    let config = format!(
        "[root]\nkind = \"pkcs11\"\n[pool]\npatience_ms = 20000\n{}{}",
        token("apart", "process"),
        networks.concat()
    );
    fs::write(path("keymill.toml"), config).unwrap();
    let mut command = program::serve(place.path());
    command.arg("--config").arg(path("keymill.toml")).env("SOFTHSM2_CONF", path("softhsm2.conf"));
    Server::start_by(command, place.path())
}

fn caller(source: &str, server: &Server, credentials: &Credentials) -> Caller {
    let way = From::address(source, server.msgpack);
    Caller::of(Connection::open(way.address, credentials, &Options::default()).unwrap())
}

#[test]
fn two_instances_and_their_installation_have_keys_in_one_token() {
    let Some(module) = module() else {
        eprintln!("skipped: TEST_PKCS11_MODULE is not set, and SoftHSM is not there");
        return;
    };
    let place = TempDir::new().unwrap();
    let server = start(&place, &module);
    let mut root = caller("127.0.0.1", &server, &program::credentials(place.path()));
    let hsm = || json!({ "ProtectionLevel": "HSM", "TimeoutMs": 50_000 });
    let key = |caller: &mut Caller| {
        let made = caller.ask_json("CreateKey", hsm()).unwrap();
        assert_eq!(made["KeyMetadata"]["ProtectionLevel"], json!("HSM"));
        made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    };
    let own = key(&mut root);
    let own_blob = root.encrypt(&*own, b"the installation's", &[]).unwrap();
    let unknown =
        root.ask_json("CreateKmsInstance", json!({ "Tokens": [{ "TokenName": "none", "Sessions": 1 }] }));
    assert_eq!(unknown.unwrap_err().code, "Forbidden.ResourceNotFound");

    let mut made = |vpc: &str, tokens: Value| {
        let made =
            root.ask_json("CreateKmsInstance", json!({ "Tokens": tokens, "TimeoutMs": 50_000 })).unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let id = text("KmsInstanceId");
        root.ask_json("ConnectKmsInstance", json!({ "KmsInstanceId": id, "VpcId": vpc })).unwrap();
        (id, Credentials::new(text("AccessKeyId").parse().unwrap(), text("AccessKeySecret")))
    };
    let shares = || json!([{ "TokenName": "apart", "Sessions": 1 }]);
    let (first_id, first) = made("one", shares());
    let (_, second) = made("two", shares());
    let mut first = caller("127.0.0.2", &server, &first);
    let mut second = caller("127.0.0.3", &server, &second);
    // The worker of an instance is started with it.
    eventually("the token is up", || {
        let tokens = first.ask_json("ListTokens", json!({})).unwrap();
        (tokens["Tokens"][0]["State"] == json!("up")).then_some(())
    });
    let (of_first, of_second) = (key(&mut first), key(&mut second));
    let blobs = [
        first.encrypt(&*of_first, b"the first's", &[]).unwrap(),
        second.encrypt(&*of_second, b"the second's", &[]).unwrap(),
    ];
    assert_eq!(first.decrypt(&blobs[0], &[]).unwrap(), b"the first's");
    assert_eq!(first.decrypt(&blobs[1], &[]).unwrap_err().code, "Forbidden.KeyNotFound");
    // By a label, each key of the token could be had.
    let adopt = json!({ "ObjectLabel": "keymill domain key", "TokenName": "apart" });
    assert_eq!(first.ask_json("AdoptKey", adopt).unwrap_err().code, "UnsupportedOperation");

    let release =
        json!({ "KmsInstanceId": first_id, "ForceDeleteWithoutBackup": "true", "TimeoutMs": 50_000 });
    root.ask_json("ReleaseKmsInstance", release).unwrap();
    for _ in 0..20 {
        assert_eq!(second.decrypt(&blobs[1], &[]).unwrap(), b"the second's");
        assert_eq!(root.decrypt(&own_blob, &[]).unwrap(), b"the installation's");
    }
    key(&mut second);
    let told = server.stop_and_read();
    assert!(!told.contains("panicked"), "{told}");
}
