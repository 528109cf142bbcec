//! From the tokens of a configuration to the parts of an engine: how each is connected, and the root MAC key in them, by which the keys
//! of the store and the audit are derived.

use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::seam::provider::CryptoProvider;
use keymill_crypto::digest;
use keymill_runtime::pool::Connect;
use keymill_runtime::{ConnectError, TokenPart};
use parking_lot::Mutex;

use crate::config::{Config, TokenSection};
use crate::failure::{Failure, Result};
use crate::hsm::pin;
use crate::plugins::pkcs11::{self, OpenErrorKind, Pkcs11Provider};

/// What two tokens of one domain answer alike; no key of the engine is derived from it.
const DOMAIN_PROBE: [[u8; 16]; 2] = [*b"keymill domain 1", *b"keymill domain 2"];

/// The tokens of a configuration.
pub(crate) struct Tokens {
    sections: Vec<TokenSection>,
    /// What every token has to answer to the probe; that of the first that was connected.
    domain: Arc<Mutex<Option<[u8; 32]>>>,
    /// One that was connected already, by its place.
    connected: Option<(usize, Arc<Pkcs11Provider>)>,
}

impl Tokens {
    /// Checks what the configuration says of tokens; none is touched.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        let sections = config.pool.token.clone();
        for (at, section) in sections.iter().enumerate() {
            let name = &section.name;
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                return Err(Failure::wrong_use(format!(
                    "pool.token: the name {name:?} is not of 1 to 64 letters, digits, - _ ."
                )));
            }
            if sections[..at].iter().any(|other| other.name == *name) {
                return Err(Failure::wrong_use(format!("pool.token: two tokens have the name {name}")));
            }
            if section.module.as_os_str().is_empty() {
                return Err(Failure::wrong_use(format!("pool.token: {name} has no module"))
                    .next("say the path of its PKCS#11 library"));
            }
            if section.sessions == Some(0) || section.sessions.is_some_and(|sessions| sessions > 1_024) {
                return Err(Failure::wrong_use(format!(
                    "pool.token: sessions of {name} are not in 1 to 1024"
                )));
            }
        }
        Ok(Self { sections, domain: Arc::default(), connected: None })
    }

    /// Connects the first token that can be had, and returns what derives by its root MAC key.
    pub(crate) fn root(&mut self) -> Result<keymill_runtime::engine::Root> {
        let provider = self.first()?;
        Ok(keymill_runtime::engine::Root::Token(Box::new(move |messages| {
            provider.root_derive(messages).map_err(|error| error.to_string())
        })))
    }

    /// Connects the first token that can be had.
    pub(crate) fn first(&mut self) -> Result<Arc<Pkcs11Provider>> {
        if self.sections.is_empty() {
            return Err(Failure::wrong_use("root.kind is pkcs11, and the pool has no token")
                .next("add a [[pool.token]] section to the configuration"));
        }
        let mut told = Vec::new();
        for (at, section) in self.sections.iter().enumerate() {
            match connect(section, &self.domain) {
                Ok(provider) => {
                    self.connected = Some((at, provider.clone()));
                    return Ok(provider);
                }
                Err(error) => told.push(format!("{}: {error}", section.name)),
            }
        }
        Err(Failure::new(format!("no token of the pool can be connected: {}", told.join("; ")))
            .next("`keymill hsm slots` and `keymill hsm doctor` look at a module by hand"))
    }

    /// Returns the parts for the engine.
    pub(crate) fn parts(self) -> Vec<TokenPart> {
        let Self { sections, domain, connected } = self;
        let mut connected = connected;
        let parts = sections.into_iter().enumerate().map(|(at, section)| {
            let ready = connected.take_if(|(first, _)| *first == at).map(|(_, provider)| provider);
            TokenPart { config: section.engine(), connect: reconnect(section, domain.clone(), ready) }
        });
        parts.collect()
    }
}

/// Connects a token whenever the engine asks; the first time it may be connected already.
fn reconnect(
    section: TokenSection,
    domain: Arc<Mutex<Option<[u8; 32]>>>,
    ready: Option<Arc<Pkcs11Provider>>,
) -> Connect {
    let ready = Mutex::new(ready);
    Box::new(move || {
        if let Some(provider) = ready.lock().take() {
            return Ok(provider as Arc<dyn CryptoProvider>);
        }
        connect(&section, &domain).map(|provider| provider as Arc<dyn CryptoProvider>)
    })
}

fn connect(
    section: &TokenSection,
    domain: &Mutex<Option<[u8; 32]>>,
) -> std::result::Result<Arc<Pkcs11Provider>, ConnectError> {
    // A file of the PIN that is missing now may be there once its disk is mounted.
    let pin = pin::configured(section.pin_file.as_deref(), section.pin_env.as_deref())
        .map_err(|failure| ConnectError::Unavailable(failure.to_string()))?;
    let provider = pkcs11::open(options(section, pin)).map_err(|error| {
        let text = error.to_string();
        match error.kind() {
            // No try of these helps before somebody has acted; and tokens lock after a few wrong PINs.
            OpenErrorKind::Pin
            | OpenErrorKind::NotInitialized
            | OpenErrorKind::Unfinished
            | OpenErrorKind::Lacking => ConnectError::Refused(text),
            _ => ConnectError::Unavailable(text),
        }
    })?;
    let answer = provider.root_derive(DOMAIN_PROBE).map_err(|e| ConnectError::Unavailable(e.to_string()))?;
    let answer = digest::sha256(answer.expose());
    let mut domain = domain.lock();
    match *domain {
        Some(known) if known != answer => {
            return Err(ConnectError::Refused(format!(
                "token {} belongs to another domain than the other tokens of the pool",
                section.label
            )));
        }
        _ => *domain = Some(answer),
    }
    Ok(Arc::new(provider))
}

fn options(section: &TokenSection, pin: Sensitive) -> pkcs11::Config {
    let theirs = pkcs11::Config::new(&section.module, &section.label, pin);
    pkcs11::Config {
        token_serial: section.serial.clone(),
        cached_keys: section.cached_keys,
        // Sessions that hang are replaced, and give their places back when they return.
        max_sessions: section.engine().sessions + section.max_hung,
        restart_module: section.restart_module,
        ..theirs
    }
}
