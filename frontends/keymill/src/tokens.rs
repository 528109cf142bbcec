//! From the tokens of a configuration to the parts of an engine: how each is connected, and the root MAC key in them, by which the keys
//! of the store and the audit are derived.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keymill_core::Sensitive;
use keymill_core::id::DomainName;
use keymill_core::instance::InstanceTerms;
use keymill_core::limit;
use keymill_core::seam::provider::{CryptoProvider, ProviderError};
use keymill_crypto::digest;
use keymill_runtime::pool::{Connect, Turns};
use keymill_runtime::{ConnectError, TokenConfig, TokenPart};
use parking_lot::Mutex;

use crate::config::{Config, Isolation, TokenSection};
use crate::dedicated::Derive;
use crate::failure::{Failure, Result};
use crate::hsm::pin;
use crate::plugins::pkcs11::{self, OpenError, OpenErrorKind, PinSource, Pkcs11Provider};
use crate::plugins::worker::{self, Refusal, Served, WorkerProvider};
use crate::process::{self, EndSignals};

/// What two tokens of one domain answer alike; no key of the engine is derived from it.
const DOMAIN_PROBE: [[u8; 16]; 2] = [*b"keymill domain 1", *b"keymill domain 2"];

/// The tokens of a configuration.
pub(crate) struct Tokens {
    sections: Vec<TokenSection>,
    /// What every token has to answer to the probe; that of the first that was connected.
    domain: Domain,
    /// What came of those that were tried already, each by its place: the engine goes on from there, so that a PIN which was refused is
    /// not tried again.
    tried: Vec<(usize, Tried)>,
}

/// The turns at each token of a configuration: for all engines of the process, also where several sections name one token, as for a domain each. How many
/// there are at a time is as the first of these says.
#[derive(Clone)]
pub(crate) struct TokenTurns(BTreeMap<Device, Arc<Turns>>);

/// What tells one token from another: its module, its label and its serial number.
type Device = (PathBuf, String, Option<String>);

impl TokenTurns {
    /// Makes them.
    pub(crate) fn of(config: &Config) -> Self {
        let mut turns = BTreeMap::new();
        for section in &config.pool.token {
            turns.entry(device(section)).or_insert_with(|| Turns::new(section.engine().in_flight));
        }
        Self(turns)
    }

    fn at(&self, section: &TokenSection) -> Option<&Arc<Turns>> {
        self.0.get(&device(section))
    }
}

fn device(section: &TokenSection) -> Device {
    (section.module.clone(), section.label.clone(), section.serial.clone())
}

/// What tokens of one domain answer to the probe, once it is known.
pub(crate) type Domain = Arc<Mutex<Option<[u8; 32]>>>;

/// What came of connecting a token: the token, or why an operator has to act first.
type Tried = std::result::Result<Driver, String>;

/// Tokens that refused to be connected, by their places, and why.
pub(crate) type Refusals = Vec<(usize, String)>;

/// What drives a token: its module in this process, or in one of its own.
#[derive(Clone)]
pub(crate) enum Driver {
    /// In this process.
    Here(Arc<Pkcs11Provider>),
    /// In a worker.
    Worker(Arc<WorkerProvider>),
}

impl Driver {
    /// Computes two CMACs by the root MAC key of the token.
    pub(crate) fn derive(&self, messages: [[u8; 16]; 2]) -> std::result::Result<Sensitive, ProviderError> {
        match self {
            Driver::Here(provider) => provider.root_derive(messages),
            Driver::Worker(provider) => provider.ask(messages.as_flattened()),
        }
    }

    /// Returns what derives by the root MAC key.
    pub(crate) fn into_derive(self) -> Derive {
        Arc::new(move |messages| self.derive(messages).map_err(|error| error.to_string()))
    }

    fn provider(self) -> Arc<dyn CryptoProvider> {
        match self {
            Driver::Here(provider) => provider,
            Driver::Worker(provider) => provider,
        }
    }
}

impl Tokens {
    /// Takes those of the installation; what the configuration says of any is checked, and none is touched.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        Self::that(config, |section| section.domain.is_none())
    }

    /// Takes those that instances of a domain may have, or of the installation's own: each in a process of its own, whose module lets as many sessions
    /// be opened as terms may ever say.
    pub(crate) fn of_instances(config: &Config, domain: Option<&DomainName>) -> Result<Self> {
        let is_theirs = |section: &TokenSection| {
            section.domain.as_ref() == domain && section.isolation == Isolation::Process
        };
        let mut tokens = Self::that(config, is_theirs)?;
        let most = Some(limit::INSTANCE_SESSIONS as usize);
        tokens.sections.iter_mut().for_each(|section| section.sessions = most);
        Ok(tokens)
    }

    fn that(config: &Config, is_taken: impl Fn(&TokenSection) -> bool) -> Result<Self> {
        check(&config.pool.token)?;
        let sections = config.pool.token.iter().filter(|section| is_taken(section)).cloned().collect();
        Ok(Self { sections, domain: Domain::default(), tried: Vec::new() })
    }

    /// Returns those that refused to be connected, by their places, and why.
    pub(crate) fn refusals(&self) -> Refusals {
        self.tried.iter().filter_map(|(at, tried)| Some((*at, tried.as_ref().err()?.clone()))).collect()
    }

    /// Has those not be tried again that refused before: tokens lock after a few wrong PINs.
    pub(crate) fn not_again(mut self, refusals: Refusals) -> Self {
        self.tried.extend(refusals.into_iter().map(|(at, why)| (at, Err(why))));
        self
    }

    /// Has them answer to the probe as those do that are known already.
    pub(crate) fn of_same_domain(self, domain: Domain) -> Self {
        Self { domain, ..self }
    }

    /// Returns what they all have to answer, once one has.
    pub(crate) fn domain(&self) -> Domain {
        self.domain.clone()
    }

    /// Connects the first token that can be had, and returns what derives by its root MAC key.
    pub(crate) fn root(&mut self) -> Result<Derive> {
        Ok(self.first()?.into_derive())
    }

    /// Connects the first token that can be had.
    pub(crate) fn first(&mut self) -> Result<Driver> {
        if self.sections.is_empty() {
            return Err(Failure::wrong_use("the pool has no token whose root MAC key could be used")
                .next("add a [[pool.token]] section to the configuration"));
        }
        let all: Vec<_> = self.sections.iter().map(|section| section.name.clone()).collect();
        self.first_of(all.iter().map(String::as_str)).map_err(|error| {
            Failure::new(format!("no token of the pool can be connected: {error}"))
                .next("`keymill hsm slots` and `keymill hsm doctor` look at a module by hand")
        })
    }

    /// Connects the first of these tokens that can be had.
    ///
    /// # Errors
    /// `Refused` where an operator has to act first on every one of them.
    pub(crate) fn first_of<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
    ) -> std::result::Result<Driver, ConnectError> {
        let (mut told, mut is_refused) = (Vec::new(), true);
        for name in names {
            match self.connect(name) {
                Ok(driver) => return Ok(driver),
                Err(error) => {
                    told.push(format!("{name}: {error}"));
                    is_refused &= matches!(error, ConnectError::Refused(_));
                }
            }
        }
        let told = told.join("; ");
        Err(if is_refused { ConnectError::Refused(told) } else { ConnectError::Unavailable(told) })
    }

    /// Connects a token, unless that was tried before.
    pub(crate) fn connect(&mut self, name: &str) -> std::result::Result<Driver, ConnectError> {
        let Some(at) = self.sections.iter().position(|section| section.name == name) else {
            return Err(ConnectError::Refused("the configuration has no such token".to_owned()));
        };
        if let Some((_, tried)) = self.tried.iter().find(|(of, _)| *of == at) {
            return tried.clone().map_err(ConnectError::Refused);
        }
        let connected = connect(&self.sections[at], &self.domain);
        match &connected {
            Ok(driver) => self.tried.push((at, Ok(driver.clone()))),
            Err(ConnectError::Refused(why)) => self.tried.push((at, Err(why.clone()))),
            Err(ConnectError::Unavailable(_)) => {}
        }
        connected
    }

    /// Returns the parts for the engine of an instance: all of them, with sessions as its terms say, be it none. Terms change while it runs, and a
    /// token that they come to name is connected then.
    pub(crate) fn parts_of(self, terms: &InstanceTerms, turns: &TokenTurns) -> Vec<TokenPart> {
        self.seated(turns, terms.weight.unwrap_or(1), |config| terms.sessions_of(&config.name))
    }

    /// Returns the parts for the engine of the installation, of such a weight.
    pub(crate) fn parts(self, turns: &TokenTurns, weight: u32) -> Vec<TokenPart> {
        self.seated(turns, weight, |config| config.sessions)
    }

    /// Returns the parts for an engine, which takes its turns at each token beside others.
    fn seated(
        self,
        turns: &TokenTurns,
        weight: u32,
        sessions: impl Fn(&TokenConfig) -> usize,
    ) -> Vec<TokenPart> {
        let Self { sections, domain, mut tried } = self;
        let parts = sections.into_iter().enumerate().map(|(at, section)| {
            let first = tried.iter().position(|(of, _)| *of == at).map(|i| tried.swap_remove(i).1);
            let (mut config, turns) = (section.engine(), turns.at(&section));
            config.sessions = sessions(&config);
            let connect = reconnect(section, domain.clone(), first);
            match turns.map(|turns| turns.sit(weight, config.sessions)) {
                Some(seat) => TokenPart { config, connect, seat },
                None => TokenPart::new(config, connect),
            }
        });
        parts.collect()
    }
}

/// Checks what the configuration says of tokens.
fn check(sections: &[TokenSection]) -> Result<()> {
    let wrong = |why: String| Err(Failure::wrong_use(format!("pool.token: {why}")));
    for (at, section) in sections.iter().enumerate() {
        let name = &section.name;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return wrong(format!("the name {name:?} is not of 1 to 64 letters, digits, - _ ."));
        }
        if sections[..at].iter().any(|other| other.name == *name) {
            return wrong(format!("two tokens have the name {name}"));
        }
        if section.module.as_os_str().is_empty() {
            return Err(Failure::wrong_use(format!("pool.token: {name} has no module"))
                .next("say the path of its PKCS#11 library"));
        }
        if section.sessions == Some(0) || section.sessions.is_some_and(|sessions| sessions > 1_024) {
            return wrong(format!("sessions of {name} are not in 1 to 1024"));
        }
        if let Some(domain) = section.domain.as_ref().filter(|_| section.isolation != Isolation::Process) {
            return wrong(format!(
                "{name} is of the domain {domain}, which instances alone use, and needs isolation = \"process\""
            ));
        }
    }
    Ok(())
}

/// Connects a token whenever the engine asks; the first time it may have been tried already.
fn reconnect(section: TokenSection, domain: Domain, first: Option<Tried>) -> Connect {
    let first = Mutex::new(first);
    Box::new(move || {
        if let Some(tried) = first.lock().take() {
            return tried.map(Driver::provider).map_err(ConnectError::Refused);
        }
        connect(&section, &domain).map(Driver::provider)
    })
}

fn connect(
    section: &TokenSection,
    domain: &Mutex<Option<[u8; 32]>>,
) -> std::result::Result<Driver, ConnectError> {
    // A file of the PIN that is missing now may be there once its disk is mounted.
    let pin = pin::configured(section.pin_file.as_deref(), section.pin_env.as_deref())
        .map_err(|failure| ConnectError::Unavailable(failure.to_string()))?;
    let token = match section.isolation {
        Isolation::None => {
            let provider = pkcs11::open(options(section, pin)).map_err(|error| {
                let text = error.to_string();
                match needs_operator(&error) {
                    true => ConnectError::Refused(text),
                    false => ConnectError::Unavailable(text),
                }
            })?;
            Driver::Here(Arc::new(provider))
        }
        Isolation::Process => {
            let unavailable = |failure: Failure| ConnectError::Unavailable(failure.to_string());
            let options = worker_options(section, &pin).map_err(unavailable)?;
            let provider = worker::open(options).map_err(|error| match error.needs_operator() {
                true => ConnectError::Refused(error.to_string()),
                false => ConnectError::Unavailable(error.to_string()),
            })?;
            // Later workers are told what the first found out: to try it all again takes seconds, and beside a device that fails now and
            // then it would find something else each time.
            let profile = provider.ask(PROFILE).map_err(|e| ConnectError::Unavailable(e.to_string()))?;
            provider.replace_setup(setup(section, profile.expose(), &pin).map_err(unavailable)?);
            Driver::Worker(Arc::new(provider))
        }
    };
    let answer = token.derive(DOMAIN_PROBE).map_err(|e| ConnectError::Unavailable(e.to_string()))?;
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
    Ok(token)
}

/// Tells whether there must be no other try before somebody has acted: tokens lock after a few wrong PINs. Whatever else is wrong may right
/// itself (what a module seems to lack may have failed just then), and to try again costs nothing.
fn needs_operator(error: &OpenError) -> bool {
    error.kind() == OpenErrorKind::Pin
}

/// The command that is the worker of a module; nobody types it.
pub(crate) const WORKER: &str = "hsm-worker";

fn worker_options(section: &TokenSection, pin: &Sensitive) -> Result<worker::Config> {
    let program = std::env::current_exe().map_err(Failure::because("the program's own path"))?;
    let theirs = worker::Config::new(program, setup(section, b"", pin)?);
    let engine = section.engine();
    Ok(worker::Config {
        args: vec![WORKER.into()],
        withheld_variables: section.pin_env.iter().map(Into::into).collect(),
        call_timeout: Duration::from_millis(section.call_timeout_ms),
        control_timeout: engine.generate_timeout,
        // Keys in the hands of batches stay until those are done.
        max_keys: engine.cached_keys + 1_024,
        max_backoff: Duration::from_millis(400),
        ..theirs
    })
}

/// What a worker is asked for its module's profile, in JSON.
const PROFILE: &[u8] = b"profile";

/// Returns what opens a token in a worker: a line with its section and one with its profile, both in JSON, the second empty where it is yet
/// to be found; and the PIN behind them. It goes over a socket that only the worker has.
fn setup(section: &TokenSection, profile: &[u8], pin: &Sensitive) -> Result<Sensitive> {
    let section = serde_json::to_vec(section).map_err(Failure::because("the worker's setup"))?;
    let mut setup = Vec::with_capacity(section.len() + profile.len() + pin.expose().len() + 2);
    for part in [&section[..], b"\n", profile, b"\n", pin.expose()] {
        setup.extend_from_slice(part);
    }
    Ok(Sensitive::new(setup))
}

/// Serves a module to the process that started this one, until that is gone.
pub(crate) fn run_worker() -> Result<()> {
    process::harden()?;
    // Whoever asks a whole group for something means the parent, which drains before it ends, and then closes its socket.
    let _blocked = EndSignals::block(true)?;
    worker::run(open_in_worker).map_err(Failure::because("the worker"))
}

fn open_in_worker(setup: Sensitive) -> std::result::Result<Served, Refusal> {
    let refusal = |why: String| Refusal { why, needs_operator: false };
    let mut parts = setup.expose().splitn(3, |byte| *byte == b'\n');
    let (Some(section), Some(profile), Some(given)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(refusal("no setup".into()));
    };
    let section: TokenSection =
        serde_json::from_slice(section).map_err(|error| refusal(error.to_string()))?;
    let known_profile = match profile {
        [] => None,
        _ => Some(serde_json::from_slice(profile).map_err(|error| refusal(error.to_string()))?),
    };
    // A worker that is started again is told what the first one was; the file knows better.
    let pin =
        section.pin_file.clone().and_then(|file| reader(file)()).unwrap_or_else(|| Sensitive::copied(given));
    let provider = pkcs11::open(pkcs11::Config { known_profile, ..options(&section, pin) })
        .map_err(|error| Refusal { needs_operator: needs_operator(&error), why: error.to_string() })?;
    let provider = Arc::new(provider);
    let (derives, refused) = (provider.clone(), provider.clone());
    Ok(Served {
        answer: Box::new(move |question| {
            if question == PROFILE {
                let profile = serde_json::to_vec(derives.module_profile());
                return profile
                    .map(Sensitive::new)
                    .map_err(|error| ProviderError::Rejected(error.to_string()));
            }
            let (blocks, _) = question.as_chunks();
            let messages = blocks.try_into().map_err(|_| ProviderError::Rejected("no two blocks".into()))?;
            derives.root_derive(messages)
        }),
        needs_operator: Box::new(move || refused.pin_refused()),
        ..Served::new(provider)
    })
}

/// Reads the file of a PIN anew, so that a token is connected again by the PIN that was set meanwhile.
fn reader(file: PathBuf) -> PinSource {
    Box::new(move || pin::configured(Some(&file), None).ok())
}

fn options(section: &TokenSection, pin: Sensitive) -> pkcs11::Config {
    let theirs = pkcs11::Config::new(&section.module, &section.label, pin);
    pkcs11::Config {
        token_serial: section.serial.clone(),
        domain: section.domain.as_ref().map(DomainName::to_string),
        cached_keys: section.cached_keys,
        // Sessions that hang are replaced, and give their places back when they return.
        max_sessions: section.engine().sessions + section.max_hung,
        restart_module: section.restart_module,
        pin_again: section.pin_file.clone().map(reader),
        overrides: section.profile.clone(),
        ..theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> TokenTurns {
        TokenTurns(BTreeMap::new())
    }

    #[test]
    fn sections_of_one_token_share_its_turns() {
        let section = |name: &str, label: &str, serial: Option<&str>| TokenSection {
            name: name.into(),
            module: "/nowhere/module.so".into(),
            label: label.into(),
            serial: serial.map(str::to_owned),
            ..Default::default()
        };
        let mut config = Config::default();
        config.pool.token = vec![
            section("own", "one", None),
            section("acme", "one", None),
            section("other", "two", None),
            section("twin", "two", Some("4711")),
        ];
        let turns = TokenTurns::of(&config);
        let [own, acme, other, twin] = [0, 1, 2, 3].map(|at| turns.at(&config.pool.token[at]).unwrap());
        assert!(Arc::ptr_eq(own, acme));
        assert!(!Arc::ptr_eq(own, other) && !Arc::ptr_eq(other, twin));
    }

    #[test]
    fn what_refused_once_is_not_tried_by_a_later_start() {
        let section = |name: &str| TokenSection {
            name: name.into(),
            module: "/nowhere/module.so".into(),
            isolation: Isolation::Process,
            ..Default::default()
        };
        let mut config = Config::default();
        config.pool.token = vec![section("a"), section("b")];
        let refusals = vec![(1, "its PIN was refused".to_owned())];
        let mut tokens = Tokens::of_instances(&config, None).unwrap().not_again(refusals.clone());
        assert!(
            matches!(tokens.connect("b"), Err(ConnectError::Refused(why)) if why == "its PIN was refused")
        );
        assert!(matches!(tokens.first_of(["b"].into_iter()), Err(ConnectError::Refused(_))));
        // The other may come back, and with it the instance.
        assert!(matches!(tokens.first_of(["a", "b"].into_iter()), Err(ConnectError::Unavailable(_))));
        assert_eq!(tokens.refusals(), refusals);
    }

    #[test]
    fn a_token_of_a_domain_is_for_the_instances_of_that_domain_alone() {
        let section = |name: &str, domain: Option<&str>| TokenSection {
            name: name.into(),
            module: "/nowhere/module.so".into(),
            domain: domain.map(|domain| domain.parse().unwrap()),
            isolation: Isolation::Process,
            ..Default::default()
        };
        let mut config = Config::default();
        config.pool.token =
            vec![section("own", None), section("a", Some("acme")), section("b", Some("other"))];
        let here = TokenSection { isolation: Isolation::None, ..section("here", None) };
        config.pool.token.push(here);
        let names = |tokens: Result<Tokens>| -> Vec<String> {
            tokens.unwrap().parts(&turns(), 1).into_iter().map(|part| part.config.name).collect()
        };
        assert_eq!(names(Tokens::of(&config)), ["own", "here"]);
        assert_eq!(names(Tokens::of_instances(&config, None)), ["own"]);
        let acme = "acme".parse().unwrap();
        assert_eq!(names(Tokens::of_instances(&config, Some(&acme))), ["a"]);
        let share = keymill_core::instance::TokenShare { name: "own".into(), sessions: 3 };
        let terms = InstanceTerms { tokens: vec![share], ..InstanceTerms::default() };
        let parts = Tokens::of_instances(&config, None).unwrap().parts_of(&terms, &turns());
        assert_eq!(parts[0].config.sessions, 3);
        let parts =
            Tokens::of_instances(&config, None).unwrap().parts_of(&InstanceTerms::default(), &turns());
        assert_eq!(parts[0].config.sessions, 0, "it may come to have it");
        config.pool.token[1].isolation = Isolation::None;
        let told = Tokens::of(&config).err().unwrap().to_string();
        assert!(told.contains("isolation = \"process\""), "{told}");
    }

    #[test]
    fn a_token_whose_pin_was_refused_while_the_root_was_sought_is_not_tried_again_by_the_engine() {
        let section =
            TokenSection { name: "one".into(), module: "/nowhere/module.so".into(), ..Default::default() };
        let tokens = Tokens {
            sections: vec![section],
            domain: Arc::default(),
            tried: vec![(0, Err("its PIN was refused".into()))],
        };
        let part = tokens.parts(&turns(), 1).remove(0);
        assert!(matches!((part.connect)(), Err(ConnectError::Refused(why)) if why == "its PIN was refused"));
        // An operator who enables the token has it tried.
        assert!(matches!((part.connect)(), Err(ConnectError::Unavailable(_))));
    }
}
