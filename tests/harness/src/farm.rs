//! A farm of simulated HSMs: copies of the simulator, each over a module of its own, with a token of one domain each. A test sets latency
//! and limits, lets faults strike, takes tokens away and brings them back, and reads what was called.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::seam::provider::CryptoProvider;
use keymill_provider_pkcs11::module::{Attribute, Mechanism, Module, Object, Session, User, number::*};
use keymill_provider_pkcs11::{Ceremony, Config, Initialize, OpenErrorKind, Party, initialize};
use keymill_runtime::{ConnectError, TokenConfig, TokenPart};
use tempfile::TempDir;

const PIN: &[u8] = b"user-pin";
const SO_PIN: &[u8] = b"officer-pin";

/// Tokens of one domain, each in an HSM of its own.
pub struct Farm {
    /// The HSMs.
    pub hsms: Vec<Arc<Simulated>>,
    _scratch: TempDir,
}

/// One simulated HSM with one token.
pub struct Simulated {
    /// The label of its token, and the name of its file.
    pub name: String,
    library: PathBuf,
    fixed: String,
    revision: AtomicU64,
    options: Mutex<String>,
}

/// Returns the module that simulated HSMs stand in front of, and whether it is Kryoptic.
fn backend() -> (PathBuf, bool) {
    match std::env::var_os("KEYMILL_KRYOPTIC_MODULE") {
        Some(kryoptic) => (kryoptic.into(), true),
        None => (built("softhsm"), false),
    }
}

/// Builds a module that a test needs (`softhsm`, `kryoptic`, `simulator`), and returns its path; quick where it is there.
///
/// # Panics
/// Where it is not to be had.
pub fn built(what: &str) -> PathBuf {
    static PATHS: Mutex<Vec<(String, PathBuf)>> = Mutex::new(Vec::new());
    let mut paths = PATHS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, path)) = paths.iter().find(|(name, _)| name == what) {
        return path.clone();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules/build");
    let output = Command::new(script).arg(what).output().expect("tests/modules/build runs");
    assert!(
        output.status.success(),
        "tests/modules/build {what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    paths.push((what.to_owned(), path.clone()));
    path
}

/// Returns the directory that holds SoftHSM's tokens and its configuration: one for the process, as its environment is.
fn softhsm_configuration() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place =
            tempfile::Builder::new().prefix("keymill-softhsm-").tempdir().expect("a scratch directory");
        // Modules are in use to the very end of the process, so nobody could remove it: what is of dead processes goes.
        let place = place.keep();
        sweep(place.parent().expect("it is somewhere"));
        std::fs::write(place.join("pid"), std::process::id().to_string()).expect("a file");
        std::fs::create_dir(place.join("tokens")).expect("a directory");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            place.join("tokens").display()
        );
        std::fs::write(place.join("softhsm2.conf"), text).expect("a file");
        place
    })
}

fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with("keymill-softhsm-");
        let pid = std::fs::read_to_string(entry.path().join("pid")).unwrap_or_default();
        if is_ours && !pid.is_empty() && !Path::new("/proc").join(pid.trim()).exists() {
            let _in_use = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Farm {
    /// Makes so many HSMs, whose tokens share one domain.
    pub fn new(count: usize) -> Self {
        Self::with(count, "")
    }

    /// Makes so many HSMs; `options` are lines of the control file that hold for each.
    pub fn with(count: usize, options: &str) -> Self {
        static FARMS: AtomicUsize = AtomicUsize::new(0);
        // Two makers at once would take one another's uninitialised slots.
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let farm = FARMS.fetch_add(1, Ordering::Relaxed);
        let scratch =
            tempfile::Builder::new().prefix("keymill-farm-").tempdir().expect("a scratch directory");
        let hsms: Vec<_> = (0..count)
            .map(|number| Arc::new(Simulated::make(scratch.path(), farm, number, options)))
            .collect();
        if let [only] = &hsms[..] {
            only.initialize(true);
        } else {
            hsms.iter().for_each(|hsm| hsm.initialize(false));
            let parties: Vec<Party> = hsms.iter().map(|hsm| hsm.party()).collect();
            let mut ceremony = Ceremony::begin(&parties).expect("the ceremony begins");
            ceremony.make_domain(None).expect("the domain is made");
            ceremony.finish().expect("the ceremony is finished");
        }
        Self { hsms, _scratch: scratch }
    }

    /// Returns the parts for an engine.
    pub fn parts(&self, sessions: usize) -> Vec<TokenPart> {
        self.parts_with(|config| config.sessions = sessions)
    }

    /// Returns the parts for an engine, each module in a process of its own.
    pub fn isolated_parts_with(&self, set: impl Fn(&mut TokenConfig)) -> Vec<TokenPart> {
        let part = |hsm: &Arc<Simulated>| {
            let mut config = TokenConfig::new(hsm.name.clone());
            set(&mut config);
            let (hsm, options) = (Arc::clone(hsm), config.clone());
            // The worker ends calls that hang by itself; the thread that asked is given up only where it does not.
            config.call_timeout += Duration::from_secs(1);
            TokenPart::new(config, Box::new(move || hsm.connect_isolated(&options)))
        };
        self.hsms.iter().map(part).collect()
    }

    /// Returns the parts for an engine, with other options than the defaults.
    pub fn parts_with(&self, set: impl Fn(&mut TokenConfig)) -> Vec<TokenPart> {
        let part = |hsm: &Arc<Simulated>| {
            let mut config = TokenConfig::new(hsm.name.clone());
            set(&mut config);
            let (hsm, options) = (Arc::clone(hsm), config.clone());
            TokenPart::new(config, Box::new(move || hsm.connect(&options, PIN)))
        };
        self.hsms.iter().map(part).collect()
    }

    /// Writes the control file of each anew.
    pub fn control(&self, options: &str) {
        self.hsms.iter().for_each(|hsm| hsm.control(options));
    }
}

impl Simulated {
    fn make(scratch: &Path, farm: usize, number: usize, options: &str) -> Self {
        let name = format!("hsm-{farm}-{number}");
        let library = scratch.join(format!("{name}.so"));
        std::fs::copy(built("simulator"), &library).expect("the simulator can be copied");
        let (module, is_kryoptic) = backend();
        let place = match is_kryoptic {
            true => {
                let configuration = scratch.join(format!("{name}.kryoptic"));
                let text = format!(
                    "[[slots]]\nslot = {number}\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
                    scratch.join(format!("{name}.sql")).display()
                );
                std::fs::write(&configuration, text).expect("a file");
                format!("init_reserved = \"kryoptic_conf={}\"", configuration.display())
            }
            false => format!(
                "env = {{ SOFTHSM2_CONF = \"{}\" }}",
                softhsm_configuration().join("softhsm2.conf").display()
            ),
        };
        let fixed = format!(
            "[{name}]\nmodule = \"{}\"\nonly_token = \"{name}\"\nseed_by_process = true\n{place}\n",
            module.display()
        );
        let hsm = Self { name, library, fixed, revision: AtomicU64::new(0), options: Mutex::default() };
        hsm.control(options);
        hsm
    }

    /// Writes the control file anew; the next call into the module sees it.
    pub fn control(&self, options: &str) {
        *self.options.lock().unwrap_or_else(PoisonError::into_inner) = options.to_owned();
        self.write();
    }

    fn write(&self) -> u64 {
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        let text = format!("{}revision = {revision}\n{options}\n", self.fixed);
        let fresh = self.library.with_extension("fresh");
        std::fs::write(&fresh, text).expect("a file");
        std::fs::rename(fresh, self.library.with_extension("toml")).expect("a file can be renamed");
        revision
    }

    /// Returns the file of its module.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Returns the statistics as of now.
    pub fn stats(&self) -> serde_json::Value {
        let revision = self.write();
        let file = format!("{}.toml.{}.{}.stats", self.name, self.name, std::process::id());
        let file = self.library.with_file_name(file);
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let read = std::fs::read_to_string(&file).ok();
            match read.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()) {
                Some(stats) if stats["revision"] == revision => return stats,
                _ => assert!(Instant::now() < patience, "{} has no statistics", self.name),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns how often a function was called, whatever it answered.
    pub fn calls(&self, function: &str) -> u64 {
        let stats = self.stats();
        stats["calls"][function]
            .as_object()
            .into_iter()
            .flat_map(|codes| codes.values())
            .filter_map(|n| n.as_u64())
            .sum()
    }

    /// Opens its token with a PIN.
    pub fn connect(&self, config: &TokenConfig, pin: &[u8]) -> Result<Arc<dyn CryptoProvider>, ConnectError> {
        let options = Config {
            cached_keys: config.cached_keys,
            max_sessions: config.sessions + config.max_abandoned,
            ..Config::new(&self.library, &self.name, Sensitive::copied(pin))
        };
        match keymill_provider_pkcs11::open(options) {
            Ok(provider) => Ok(Arc::new(provider)),
            Err(error) if error.kind() == OpenErrorKind::Pin => Err(ConnectError::Refused(error.to_string())),
            Err(error) => Err(ConnectError::Unavailable(error.to_string())),
        }
    }

    /// Opens its token in a worker: the program itself, as `isolation = "process"` has it.
    fn connect_isolated(&self, config: &TokenConfig) -> Result<Arc<dyn CryptoProvider>, ConnectError> {
        let section = serde_json::json!({
            "name": self.name,
            "module": self.library,
            "label": self.name,
            "sessions": config.sessions,
            "cached_keys": config.cached_keys,
        });
        let setup = |profile: &[u8]| {
            Sensitive::new([section.to_string().as_bytes(), b"\n", profile, b"\n", PIN].concat())
        };
        let options = keymill_provider_worker::Config {
            args: vec!["hsm-worker".into()],
            call_timeout: config.call_timeout,
            max_backoff: Duration::from_millis(400),
            ..keymill_provider_worker::Config::new(crate::program::program(), setup(b""))
        };
        match keymill_provider_worker::open(options) {
            Ok(provider) => {
                // As the program does it: later workers need not find everything out again.
                let profile =
                    provider.ask(b"profile").map_err(|e| ConnectError::Unavailable(e.to_string()))?;
                provider.replace_setup(setup(profile.expose()));
                Ok(Arc::new(provider))
            }
            Err(error) if error.needs_operator() => Err(ConnectError::Refused(error.to_string())),
            Err(error) => Err(ConnectError::Unavailable(error.to_string())),
        }
    }

    /// Makes a key of AES-256 in the token as another program would, which can encrypt and decrypt.
    pub fn make_foreign_key(&self, label: &str, id: &[u8]) {
        let flags = [
            (CKA_TOKEN, true),
            (CKA_PRIVATE, true),
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_ENCRYPT, true),
            (CKA_DECRYPT, true),
            (CKA_SIGN, false),
            (CKA_VERIFY, false),
            (CKA_WRAP, false),
            (CKA_UNWRAP, false),
            (CKA_DERIVE, false),
        ];
        let mut template = vec![Attribute::number(CKA_VALUE_LEN, 32)];
        template.extend(flags.map(|(kind, value)| Attribute::flag(kind, value)));
        template.extend([Attribute::bytes(CKA_LABEL, label.as_bytes()), Attribute::bytes(CKA_ID, id)]);
        self.log_in().generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &template).expect("a key is made");
    }

    /// Returns how many secret keys the token has whose label begins so.
    pub fn count_keys(&self, label: &str) -> usize {
        self.count(CKO_SECRET_KEY, label)
    }

    /// Returns how many private keys the token has whose label begins so.
    pub fn count_private_keys(&self, label: &str) -> usize {
        self.count(CKO_PRIVATE_KEY, label)
    }

    fn count(&self, class: CK_OBJECT_CLASS, label: &str) -> usize {
        let session = self.log_in();
        let of_token = [Attribute::number(CKA_CLASS, class), Attribute::flag(CKA_TOKEN, true)];
        let begins = |object: &&Object| {
            let mut read = [0; 255];
            let bytes = session.attribute(**object, CKA_LABEL, &mut read).unwrap_or(0);
            read[..bytes].starts_with(label.as_bytes())
        };
        session.find_objects(&of_token).expect("keys are found").iter().filter(begins).count()
    }

    /// Destroys the secret keys of this id.
    pub fn destroy_keys(&self, id: &[u8]) {
        let session = self.log_in();
        let named = [Attribute::number(CKA_CLASS, CKO_SECRET_KEY), Attribute::bytes(CKA_ID, id)];
        for object in session.find_objects(&named).expect("keys are found") {
            session.destroy_object(object).expect("a key is destroyed");
        }
    }

    /// Opens a session of its own, logged in.
    pub fn log_in(&self) -> Session {
        let module = Module::load(&self.library).expect("the simulator loads");
        let slots = module.slots().expect("slots are listed");
        let is_this =
            |slot: &CK_SLOT_ID| module.token_info(*slot).is_ok_and(|token| token.label == self.name);
        let slot = slots.into_iter().find(is_this).expect("the token is there");
        let session = module.open_session(slot, true).expect("a session opens");
        // The engine of this process may be logged in, which holds for all of it.
        let _already = session.login(User::User, &Sensitive::copied(PIN));
        session
    }

    fn initialize(&self, keys: bool) {
        initialize(Initialize {
            module: self.library.clone(),
            token_label: self.name.clone(),
            token_serial: None,
            domain: None,
            so_pin: Some(Sensitive::copied(SO_PIN)),
            pin: Sensitive::copied(PIN),
            keys,
        })
        .expect("a token is made ready");
    }

    fn party(&self) -> Party {
        Party {
            module: Module::load(&self.library).expect("the simulator loads"),
            token_label: self.name.clone(),
            token_serial: None,
            domain: None,
            pin: Sensitive::copied(PIN),
        }
    }
}
