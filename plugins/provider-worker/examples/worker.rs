//! A worker process for tests and measurements: serves the software provider, or a token, and misbehaves where it is told to. A
//! program of its own would do the same with its own configuration, after it has hardened itself.
//!
//! The setup is words, a line each: `software`, or `token`, module, label, PIN; `pin`, a file that each try adds a line to and a
//! file that is there when the PIN is wrong; `stuck`, whose control lane hangs; `silent`, where a file is there; `dies`;
//! `panics`.
//!
//! With the argument `babble` it speaks what no parent understands. With `parent` it is a parent instead, with a worker that hangs in a
//! call, until it is killed.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, AeadBatch, AeadItem, CryptoProvider, CryptoSession, DecryptJob, DeriveJob, FailureCode,
    KeyCustody, KeyHandle, ProviderError, ProviderProfile, SessionLost, SignJob, StoredKey, Unwrapped,
    WrappedImport,
};
use keymill_provider_worker::{Config, Refusal, Served, run};
use rustix::process::{Signal, getpid, kill_process};

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("parent") => parent(),
        Some("babble") => babble().map_err(Into::into),
        _ => run(open).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _told = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn babble() -> io::Result<()> {
    UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?).write_all(&[0x5a; 100])?;
    hang()
}

fn open(setup: Sensitive) -> Result<Served, Refusal> {
    let refusal = |why: &str| Refusal { why: why.into(), needs_operator: false };
    let setup = std::str::from_utf8(setup.expose()).map_err(|_| refusal("the setup is not text"))?;
    let words: Vec<_> = setup.lines().collect();
    match words[..] {
        ["software"] => software(false),
        ["stuck"] => software(true),
        ["token", module, label, pin] => {
            let config =
                keymill_provider_pkcs11::Config::new(module, label, Sensitive::copied(pin.as_bytes()));
            let provider = keymill_provider_pkcs11::open(config).map_err(|error| Refusal {
                needs_operator: error.kind() == keymill_provider_pkcs11::OpenErrorKind::Pin,
                why: error.to_string(),
            })?;
            let provider = Arc::new(provider);
            let asked = Arc::clone(&provider);
            let derives = Arc::clone(&provider);
            Ok(Served {
                answer: Box::new(move |question| derive(&derives, question)),
                needs_operator: Box::new(move || asked.pin_refused()),
                ..Served::new(provider)
            })
        }
        ["pin", tries, wrong] => {
            let file = OpenOptions::new().create(true).append(true).open(tries);
            file.and_then(|mut file| writeln!(file, "tried")).map_err(|error| refusal(&error.to_string()))?;
            if fs::exists(wrong).unwrap_or(true) {
                return Err(Refusal { why: "the PIN is wrong".into(), needs_operator: true });
            }
            software(false)
        }
        ["silent", file] if fs::exists(file).unwrap_or(true) => hang(),
        ["silent", _] => software(false),
        ["panics"] => panic!("as told"),
        ["dies"] => die(Signal::SEGV),
        _ => Err(refusal("the setup is none")),
    }
}

/// Answers two blocks with what derives of them by the token's root MAC key.
fn derive(
    provider: &keymill_provider_pkcs11::Pkcs11Provider,
    question: &[u8],
) -> Result<Sensitive, ProviderError> {
    let (blocks, _) = question.as_chunks();
    let messages = blocks.try_into().map_err(|_| ProviderError::Rejected("other than two blocks".into()))?;
    provider.root_derive(messages)
}

fn software(stuck: bool) -> Result<Served, Refusal> {
    let provider = keymill_provider_software::open(keymill_provider_software::Config {})
        .map_err(|error| Refusal { why: error.to_string(), needs_operator: false })?;
    Ok(Served::new(Arc::new(Module { provider, stuck })))
}

fn die(signal: Signal) -> ! {
    loop {
        let _dead = kill_process(getpid(), signal);
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts a worker, tells its process id, and waits for a call that does not come back.
fn parent() -> Result<(), Box<dyn Error>> {
    let config = Config {
        call_timeout: Duration::from_secs(600),
        ..Config::new(std::env::current_exe()?, Sensitive::copied(b"software"))
    };
    let provider = keymill_provider_worker::open(config)?;
    let mut custody = provider.custody()?;
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, None)?;
    let key = custody.load(&stored)?;
    let mut session = provider.open_session()?;
    writeln!(io::stdout(), "{}", provider.status().pid.unwrap_or_default())?;
    let item = AeadItem { nonce: [HANGS; 12], aad: 0..0, text: 0..0, outcome: None };
    let mut batch = AeadBatch { buffer: vec![0; 16], aad: Vec::new(), items: vec![item] };
    session.encrypt(&key, &mut batch).map_err(|lost| lost.reason)?;
    Ok(())
}

/// The software provider, with the manners of a bad module: a nonce of twelve such bytes has it misbehave in mid-batch.
struct Module {
    provider: keymill_provider_software::SoftwareProvider,
    stuck: bool,
}

const CRASHES: u8 = 0xc1;
const EXITS: u8 = 0xc2;
const HANGS: u8 = 0xc3;
const IS_SLOW: u8 = 0xc4;
const PANICS: u8 = 0xc5;
const LOSES: u8 = 0xc6;

impl CryptoProvider for Module {
    fn profile(&self) -> &ProviderProfile {
        self.provider.profile()
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        Ok(Box::new(Session(self.provider.open_session()?)))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        let custody = self.provider.custody()?;
        Ok(if self.stuck { Box::new(Stuck(custody)) } else { custody })
    }
}

/// A control lane whose sign of life never comes.
struct Stuck(Box<dyn KeyCustody>);

impl KeyCustody for Stuck {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        self.0.generate(spec, usage, bulk_mode)
    }

    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        material: &Sensitive,
    ) -> Result<StoredKey, ProviderError> {
        self.0.import(spec, usage, bulk_mode, material)
    }

    fn generate_wrapping_key(
        &mut self,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError> {
        self.0.generate_wrapping_key(spec, algorithm)
    }

    fn import_wrapped(&mut self, import: &WrappedImport) -> Result<Unwrapped, ProviderError> {
        self.0.import_wrapped(import)
    }

    fn destroy_wrapping_key(&mut self, wrapping: &StoredKey) -> Result<(), ProviderError> {
        self.0.destroy_wrapping_key(wrapping)
    }

    fn generate_to_stay(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        self.0.generate_to_stay(spec, usage, bulk_mode)
    }

    fn adopt(&mut self, wanted: &Adopt) -> Result<StoredKey, ProviderError> {
        self.0.adopt(wanted)
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        self.0.load(key)
    }

    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError> {
        self.0.unload(key)
    }

    fn destroy(&mut self, key: &StoredKey) -> Result<(), ProviderError> {
        self.0.destroy(key)
    }

    fn canary(&mut self) -> Result<(), ProviderError> {
        hang()
    }
}

struct Session(Box<dyn CryptoSession>);

impl Session {
    /// Does the items before the one that is bad as they should be done, and leaves the others.
    fn each(
        &mut self,
        key: &KeyHandle,
        batch: &mut AeadBatch,
        mut work: impl FnMut(&mut dyn CryptoSession, &KeyHandle, &mut AeadBatch) -> Result<(), SessionLost>,
    ) -> Result<(), SessionLost> {
        let bad = |byte: u8| (CRASHES..=LOSES).contains(&byte);
        let at = batch.items.iter().position(|item| bad(item.nonce[0]) && item.nonce == [item.nonce[0]; 12]);
        let Some(at) = at else { return work(&mut *self.0, key, batch) };
        let left = batch.items.split_off(at);
        work(&mut *self.0, key, batch)?;
        match left[0].nonce[0] {
            CRASHES => die(Signal::SEGV),
            EXITS => std::process::exit(3),
            HANGS => hang(),
            IS_SLOW => std::thread::park_timeout(Duration::from_millis(1500)),
            PANICS => panic!("as told"),
            _ => {
                batch.items.extend(left);
                let code = Some(FailureCode::named("CKR_TOKEN_NOT_PRESENT"));
                return Err(SessionLost { reason: "the token is gone".into(), code });
            }
        }
        batch.items.extend(left);
        work(&mut *self.0, key, batch)
    }
}

impl CryptoSession for Session {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.each(key, batch, |session, key, batch| session.encrypt(key, batch))
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.each(key, batch, |session, key, batch| session.decrypt(key, batch))
    }

    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        self.0.derive(key, jobs)
    }

    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        self.0.sign(key, jobs)
    }

    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        self.0.decrypt_asymmetric(key, jobs)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        self.0.random(out)
    }
}
