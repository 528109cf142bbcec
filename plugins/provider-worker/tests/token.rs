//! The suite for `CryptoProvider`, over workers that serve tokens: of SoftHSM, or of the module that `TEST_PKCS11_MODULE` or, for
//! Kryoptic, `KEYMILL_KRYOPTIC_MODULE` names; and what a wrong PIN comes to.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keymill_conformance::provider::Fixture;
use keymill_core::seam::provider::{CryptoProvider, KeyMaterial, ProviderError, StoredKey};
use keymill_provider_worker::{Config, OpenError, WorkerProvider, open};

const LABEL: &str = "token";
const PIN: &str = "4711-user";

/// A directory of tokens that only the processes that are told of it know.
struct Place(tempfile::TempDir);

impl Place {
    /// Makes one with a token.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let tokens = place.0.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let tokens = tokens.display();
        let text = if is_kryoptic() {
            format!("[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = \"{tokens}/token.sql\"\n")
        } else {
            format!("directories.tokendir = {tokens}\nlog.level = ERROR\n")
        };
        fs::write(place.0.path().join("module.conf"), text).unwrap();
        place.tool(&["new", module(), LABEL, PIN]);
        place
    }

    /// Says where the module finds its configuration.
    fn variable(&self) -> String {
        let name = if is_kryoptic() { "KRYOPTIC_CONF" } else { "SOFTHSM2_CONF" };
        format!("{name}={}", self.0.path().join("module.conf").display())
    }

    /// Runs the tool of these tests, and returns what it prints.
    fn tool(&self, args: &[&str]) -> String {
        let tool = support::program().with_file_name("token");
        let done = Command::new("env").arg(self.variable()).arg(tool).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Opens the token in a worker.
    fn open(&self, pin: &str) -> Result<WorkerProvider, OpenError> {
        let Config { program, setup, .. } = support::config(&["token", module(), LABEL, pin]);
        open(Config {
            args: vec![self.variable().into(), program.into()],
            ..Config::new(PathBuf::from("/usr/bin/env"), setup)
        })
    }
}

fn is_kryoptic() -> bool {
    std::env::var_os("KEYMILL_KRYOPTIC_MODULE").is_some()
}

/// Finds the module under test.
fn module() -> &'static str {
    static MODULE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let usual = [
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
            "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/local/lib/softhsm/libsofthsm2.so",
        ];
        ["KEYMILL_KRYOPTIC_MODULE", "TEST_PKCS11_MODULE"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok())
            .or_else(|| usual.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned))
            .expect("SoftHSM is installed (package softhsm2), or TEST_PKCS11_MODULE names a module")
    });
    &MODULE
}

fn fixture() -> Fixture {
    let (place, other) = (Place::new(), Place::new());
    let (provider, stranger) = (place.open(PIN).unwrap(), other.open(PIN).unwrap());
    Fixture::new(provider, stranger, move |spec, material, bulk_mode| {
        // Lives as long as the fixture.
        let _other = &other;
        let hex: String = material.iter().map(|byte| format!("{byte:02x}")).collect();
        let wrapped = place.tool(&["bring", module(), LABEL, PIN, spec.name(), &hex]);
        let bytes = (0..wrapped.len() / 2).map(|at| u8::from_str_radix(&wrapped[2 * at..][..2], 16).unwrap());
        StoredKey {
            spec,
            usage: spec.usages()[0],
            bulk_mode,
            material: KeyMaterial::Wrapped(bytes.collect()),
            public_key: None,
        }
    })
}

keymill_conformance::provider_suite!(fixture);

#[test]
fn a_wrong_pin_is_told_apart_and_the_right_one_still_opens() {
    let place = Place::new();
    let error = place.open("not-the-pin").err().unwrap();
    assert!(error.needs_operator(), "{error}");
    let provider = place.open(PIN).unwrap();
    assert_eq!(provider.profile().name, "hsm");
    // What is beside the seam: the root MAC key derives alike in every worker.
    let derived = provider.ask(&[7; 32]).unwrap();
    assert_eq!(
        (derived.len(), derived.expose()),
        (32, place.open(PIN).unwrap().ask(&[7; 32]).unwrap().expose())
    );
    assert_ne!(derived.expose(), provider.ask(&[8; 32]).unwrap().expose());
    assert!(matches!(provider.ask(b"other than two blocks").err(), Some(ProviderError::Rejected(_))));
    let status = provider.status();
    assert!(!status.needs_operator && status.starts == 1);
    // A token that is not there is no matter of the PIN.
    fs::remove_dir_all(place.0.path().join("tokens")).unwrap();
    fs::create_dir(place.0.path().join("tokens")).unwrap();
    let error = place.open(PIN).err().unwrap();
    assert!(!error.needs_operator(), "{error}");
}
