//! A simulated HSM over SoftHSM2, with a token of its own, and the handles by which a test steers and watches it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use tempfile::TempDir;

pub const PIN: &str = "user-pin";

/// A copy of the simulator under a test's name, with one initialised token.
pub struct Hsm {
    pub pkcs11: Pkcs11,
    pub slot: Slot,
    name: String,
    backend: PathBuf,
    scratch: TempDir,
    revision: std::cell::Cell<u64>,
}

impl Hsm {
    /// Starts one over SoftHSM2; `options` are lines of its section.
    pub fn new(name: &str, options: &str) -> Self {
        Self::over(&softhsm(), name, options)
    }

    /// Starts one over any module.
    pub fn over(backend: &Path, name: &str, options: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let library = scratch.path().join(format!("{name}.so"));
        std::fs::copy(built(), &library).unwrap();
        write_control(&scratch, backend, name, 1, options);
        let pkcs11 = Pkcs11::new(&library).unwrap();
        start(&pkcs11, scratch.path());
        let slot = pkcs11.get_all_slots().unwrap()[0];
        let officer = AuthPin::new("officer-pin".into());
        pkcs11.init_token(slot, &officer, name).unwrap();
        let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
        {
            let session = pkcs11.open_rw_session(slot).unwrap();
            session.login(UserType::So, Some(&officer)).unwrap();
            session.init_pin(&pin(PIN)).unwrap();
        }
        // SoftHSM gives a new token its lasting slot at the next start; and session handles begin at 1.
        pkcs11.clone().finalize().unwrap();
        start(&pkcs11, scratch.path());
        let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
        let (name, backend, revision) = (name.to_owned(), backend.to_owned(), 1.into());
        Self { pkcs11, slot, name, backend, scratch, revision }
    }

    /// Starts it anew, behind a `finalize`.
    pub fn start(&self) {
        start(&self.pkcs11, self.scratch.path());
    }

    /// Writes the control file anew; the next call sees it.
    pub fn control(&self, options: &str) {
        self.revision.set(self.revision.get() + 1);
        write_control(&self.scratch, &self.backend, &self.name, self.revision.get(), options);
    }

    /// Writes the control file anew and returns the statistics as of then.
    pub fn control_and_stats(&self, options: &str) -> serde_json::Value {
        self.control(options);
        let file = self.scratch.path().join(format!(
            "{}.toml.{}.{}.stats",
            self.name,
            self.name,
            std::process::id()
        ));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let stats = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
            match stats {
                Some(serde_json::Value::Object(stats)) if stats["revision"] == self.revision.get() => {
                    return stats.into();
                }
                _ => assert!(Instant::now() < deadline, "{} has no statistics", self.name),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Looks at the statistics, under the same options, until they are as wanted.
    pub fn wait_until(&self, options: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !wanted(&self.control_and_stats(options)) {
            assert!(Instant::now() < deadline, "{} does not come to be as wanted", self.name);
        }
    }

    /// Opens a session without a login.
    pub fn session(&self) -> Session {
        self.pkcs11.open_rw_session(self.slot).unwrap()
    }

    /// Opens a session and logs in.
    pub fn user(&self) -> Session {
        let session = self.session();
        session.login(UserType::User, Some(&pin(PIN))).unwrap();
        session
    }
}

fn write_control(scratch: &TempDir, backend: &Path, name: &str, revision: u64, options: &str) {
    let text = format!(
        "[{name}]\nmodule = \"{}\"\nonly_token = \"{name}\"\nrevision = {revision}\n{options}\n",
        backend.display()
    );
    let fresh = scratch.path().join("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, scratch.path().join(format!("{name}.toml"))).unwrap();
}

/// What Cargo built beside this test.
pub fn built() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libsimulator.so")
}

/// SoftHSM2; a test that starts it says where its tokens lie.
pub fn softhsm() -> PathBuf {
    let named = std::env::var_os("KEYMILL_SIM_BACKEND").map(PathBuf::from);
    let path = named.unwrap_or_else(|| "/usr/lib/softhsm/libsofthsm2.so".into());
    assert!(path.exists(), "{} is not there: see tests/modules/build", path.display());
    path
}

/// Starts a module with its tokens in a folder: each has its own, since SoftHSM shows no slot, or ends the process, where it starts while another
/// makes a token in the same one.
pub fn start(pkcs11: &Pkcs11, folder: &Path) {
    // SoftHSM reads the variable when it starts, and it is the process's.
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let (tokens, config) = (folder.join("tokens"), folder.join("softhsm2.conf"));
    std::fs::create_dir_all(&tokens).unwrap();
    std::fs::write(&config, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()))
        .unwrap();
    // SAFETY: nothing but the module, which starts behind this, reads it around the standard library.
    unsafe { std::env::set_var("SOFTHSM2_CONF", &config) };
    pkcs11.initialize(arguments()).unwrap();
}

pub fn arguments() -> CInitializeArgs {
    CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)
}

pub fn pin(text: &str) -> AuthPin {
    AuthPin::new(text.into())
}

/// The return code of a call that must fail.
pub fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> RvError {
    match result {
        Err(Error::Pkcs11(code, _)) => code,
        other => panic!("not a return code: {other:?}"),
    }
}

/// A session key for everything.
pub fn aes_key(session: &Session) -> ObjectHandle {
    let template: Vec<_> = aes_template().into_iter().chain([Attribute::ValueLen(32.into())]).collect();
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap()
}

/// What [`aes_key`] is; it says nothing of the value.
pub fn aes_template() -> Vec<Attribute> {
    let mut template =
        vec![Attribute::Token(false), Attribute::Sensitive(false), Attribute::Extractable(true)];
    for usage in [
        Attribute::Encrypt,
        Attribute::Decrypt,
        Attribute::Sign,
        Attribute::Verify,
        Attribute::Wrap,
        Attribute::Unwrap,
    ] {
        template.push(usage(true));
    }
    template
}

/// AES-GCM of eight bytes under a fixed IV.
pub fn encrypt(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    let mut iv = [7; 12];
    session.encrypt(&Mechanism::AesGcm(GcmParams::new(&mut iv, b"context", 128.into())?), key, b"a record")
}
