//! Tokens for tests: SoftHSM, or Kryoptic where `KEYMILL_KRYOPTIC_MODULE` names its library, in a directory of the process; and the
//! way to bring a key of known bytes into one.

// Each test binary uses its part, and all of it is test.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod faults;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey};
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec};
use keymill_core::seam::provider::{KeyMaterial, StoredKey};
use keymill_provider_pkcs11::module::{Attribute, Module, Object, Session};
use keymill_provider_pkcs11::{
    Config, DOMAIN_KEY_LABEL, Initialize, ModuleProfile, Pkcs11Provider, initialize, open_on,
};

use cryptoki_sys::*;

pub(crate) const PIN: &[u8] = b"4711-user";
pub(crate) const SO_PIN: &[u8] = b"0815-officer";
/// Slots that Kryoptic is told of; SoftHSM makes them as needed.
const SLOTS: usize = 96;

/// Whether the module under test is Kryoptic.
pub(crate) fn is_kryoptic() -> bool {
    std::env::var_os("KEYMILL_KRYOPTIC_MODULE").is_some()
}

/// Finds the module under test.
pub(crate) fn module_path() -> PathBuf {
    let named = ["KEYMILL_KRYOPTIC_MODULE", "TEST_PKCS11_MODULE"].into_iter().find_map(std::env::var_os);
    let usual = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    named
        .map(PathBuf::from)
        .or_else(|| usual.into_iter().map(PathBuf::from).find(|path| path.exists()))
        .expect("SoftHSM is installed (package softhsm2), or TEST_PKCS11_MODULE names a module")
}

/// Writes the module's configuration and points the module at it, before it is loaded.
fn configured() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = parent.join(format!("tokens-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        // What earlier runs left behind, which could not remove it under a module that was in use to the end.
        for entry in fs::read_dir(parent).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let ended = |pid: &str| !Path::new("/proc").join(pid).exists();
            if name.strip_prefix("tokens-").is_some_and(ended) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        fs::create_dir_all(directory.join("tokens")).unwrap();
        let file = directory.join("module.conf");
        let text = if is_kryoptic() {
            (0..SLOTS)
                .map(|slot| {
                    let file = directory.join(format!("tokens/{slot}.sql"));
                    format!(
                        "[[slots]]\nslot = {slot}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
                        file.display()
                    )
                })
                .collect()
        } else {
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                directory.join("tokens").display()
            )
        };
        fs::write(&file, text).unwrap();
        for variable in ["SOFTHSM2_CONF", "KRYOPTIC_CONF"] {
            // SAFETY: modules read their environment when they are initialised, which comes after; what else reads it here goes
            // through the standard library, which takes turns with this.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var(variable, &file);
            }
        }
        directory
    })
}

/// Returns the directory that holds the tokens of this process.
pub(crate) fn directory() -> PathBuf {
    configured().join("tokens")
}

pub(crate) fn module() -> Module {
    configured();
    Module::load(&module_path()).unwrap()
}

/// Two tests must not make a token of the same slot.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Makes a token of this label that has neither the user's PIN nor keys.
pub(crate) fn new_bare_token(label: &str) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let module = module();
    let empty = |slot: &CK_SLOT_ID| !module.token_info(*slot).unwrap().initialized;
    let slot = module.slots().unwrap().into_iter().find(empty).unwrap();
    module.init_token(slot, &Sensitive::copied(SO_PIN), label).unwrap();
}

/// Makes a token ready, and returns its label.
pub(crate) fn new_token() -> String {
    make_token(true)
}

/// Makes a token that has its PINs and no keys, and returns its label.
pub(crate) fn new_token_without_keys() -> String {
    make_token(false)
}

fn make_token(keys: bool) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    configured();
    let label = format!("token-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let made = initialize(Initialize {
        module: module_path(),
        token_label: label.clone(),
        token_serial: None,
        domain: None,
        so_pin: Some(Sensitive::copied(SO_PIN)),
        pin: Sensitive::copied(PIN),
        keys,
    });
    assert!(made.unwrap().token_made);
    label
}

pub(crate) fn config(label: &str) -> Config {
    Config::new(module_path(), label, Sensitive::copied(PIN))
}

pub(crate) fn open_token(label: &str) -> Pkcs11Provider {
    open_on(module(), config(label)).unwrap()
}

/// Finds the slot of a token.
pub(crate) fn slot(label: &str) -> CK_SLOT_ID {
    let module = module();
    let slots = module.slots().unwrap();
    slots.into_iter().find(|slot| module.token_info(*slot).is_ok_and(|info| info.label == label)).unwrap()
}

/// Stores a key of known bytes as the custody would: made in the token as an extractable object, wrapped, destroyed. Somebody must
/// be logged in.
pub(crate) fn bring(
    label: &str,
    profile: &ModuleProfile,
    spec: KeySpec,
    material: &[u8],
    bulk_mode: Option<BulkMode>,
) -> StoredKey {
    let session = module().open_session(slot(label), false).unwrap();
    let domain = domain_key(&session);
    let known = session
        .create_object(&[
            Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
            Attribute::number(
                CKA_KEY_TYPE,
                if spec.signatures().is_empty() { CKK_AES } else { CKK_GENERIC_SECRET },
            ),
            Attribute::flag(CKA_TOKEN, false),
            Attribute::flag(CKA_EXTRACTABLE, true),
            Attribute::bytes(CKA_VALUE, material),
        ])
        .unwrap();
    let mut wrapped = vec![0; 128];
    let len = session.wrap_key(profile.wrap.mechanism(), domain, known, &mut wrapped).unwrap();
    session.destroy_object(known).unwrap();
    assert_eq!(len, material.len() + 8);
    wrapped.truncate(len);
    StoredKey {
        spec,
        usage: spec.usages()[0],
        bulk_mode,
        material: KeyMaterial::Wrapped(wrapped),
        public_key: None,
    }
}

/// Wraps material by RSA-OAEP with SHA-1, which every module under test unwraps.
pub(crate) fn wrapped(wrapping: &StoredKey, material: &[u8]) -> Vec<u8> {
    encrypt(wrapping, &OAEP_SHA1_MGF1SHA1, material)
}

/// Encrypts a text for a wrapping key.
pub(crate) fn encrypt(wrapping: &StoredKey, oaep: &'static OaepAlgorithm, text: &[u8]) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(wrapping.public_key.as_ref().unwrap().as_der()).unwrap();
    let key = OaepPublicEncryptingKey::new(key).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(oaep, text, &mut out, None).unwrap().to_vec()
}

pub(crate) fn domain_key(session: &Session) -> Object {
    token_key(session, DOMAIN_KEY_LABEL)
}

/// Finds a key of the domain by its label.
pub(crate) fn token_key(session: &Session, label: &str) -> Object {
    let found = session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::bytes(CKA_LABEL, label.as_bytes()),
    ]);
    found.unwrap()[0]
}

/// Counts the session objects of a token that are secret keys.
pub(crate) fn session_objects(label: &str) -> usize {
    objects(&module().open_session(slot(label), false).unwrap(), CKO_SECRET_KEY)
}

/// Counts the session objects of a class.
pub(crate) fn objects(session: &Session, class: CK_OBJECT_CLASS) -> usize {
    let found = session
        .find_objects(&[Attribute::number(CKA_CLASS, class), Attribute::flag(CKA_TOKEN, false)])
        .unwrap();
    assert!(found.len() < 64, "a search returns no more");
    found.len()
}
