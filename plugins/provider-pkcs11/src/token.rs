//! One token: found by its label, logged in to once, held by an anchor session and by the owner session whose objects the loaded
//! keys are. When it is lost it is connected again, by the label, and everything of before is void.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cryptoki_sys::{CK_SLOT_ID, CKA_CLASS, CKA_EXTRACTABLE, CKA_LABEL, CKA_SENSITIVE, CKO_SECRET_KEY};
use cryptoki_sys::{CKA_TOKEN, CKR_USER_ALREADY_LOGGED_IN};
use keymill_core::Sensitive;
use keymill_core::seam::provider::ProviderError;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::cache::{Cache, Canary};
use crate::module::{Attachment, Attribute, Class, Failure, Module, Object, Session, TokenInfo, User};
use crate::profile::{ModuleProfile, Overrides, Probe};
use crate::{DOMAIN_KEY_LABEL, MAC_KEY_LABEL, OpenError};

/// How long connecting again waits for the batches under way.
const QUIESCE: Duration = Duration::from_secs(5);

/// Options of the PKCS#11 provider.
pub struct Config {
    /// The module's file.
    pub module: PathBuf,
    /// The token's label; slots are numbered anew at whim.
    pub token_label: String,
    /// Its serial number, where two tokens have one label.
    pub token_serial: Option<String>,
    /// The user's PIN.
    pub pin: Sensitive,
    /// Keys held loaded in the token, at most.
    pub cached_keys: usize,
    /// Items that one call takes, at most.
    pub max_batch: usize,
    /// Sessions for the use of keys, at most; the token's own limit holds beside it.
    pub max_sessions: usize,
    /// Whether the module may be finalised and initialised again when none of its tokens serves; some come back by that alone.
    pub restart_module: bool,
    /// What the operator knows better than the probes.
    pub overrides: Overrides,
}

impl Config {
    /// Makes the configuration of a token, with the defaults for the rest.
    pub fn new(module: impl Into<PathBuf>, token_label: impl Into<String>, pin: Sensitive) -> Self {
        Self {
            module: module.into(),
            token_label: token_label.into(),
            token_serial: None,
            pin,
            cached_keys: 1000,
            max_batch: 256,
            max_sessions: 16,
            restart_module: true,
            overrides: Overrides::default(),
        }
    }
}

/// A token that is to be had whenever its device is.
pub(crate) struct Token {
    pub(crate) module: Module,
    pub(crate) config: Config,
    pub(crate) profile: ModuleProfile,
    state: Mutex<State>,
    /// What the handles of now carry. It starts at random, so that those of another opening are told apart, and grows with
    /// each connection.
    generation: AtomicU64,
    /// Held shared by each batch, and alone while connecting again: no batch may go on with handles that a new object could get.
    pub(crate) using: RwLock<()>,
    /// Something failed in a way that casts doubt on more than one session.
    suspect: AtomicBool,
    pub(crate) sessions: AtomicUsize,
}

struct State {
    attachment: Attachment,
    link: Option<Link>,
    /// The PIN was refused. Tokens lock after a few such tries, so there is none until an operator opens the provider again.
    pin_refused: Option<String>,
}

/// A connection to the token. The sessions come last, so that they are closed last.
pub(crate) struct Link {
    pub(crate) cache: Cache,
    pub(crate) canary: Canary,
    pub(crate) domain_key: Object,
    pub(crate) mac_key: Option<Object>,
    pub(crate) slot: CK_SLOT_ID,
    /// Owns every loaded key: they would go with it.
    pub(crate) owner: Session,
    /// Does nothing: with the last session the login goes, and with that every private object.
    _anchor: Session,
}

/// A connection that still lacks what the profile says how to make.
struct Bare {
    slot: CK_SLOT_ID,
    anchor: Session,
    owner: Session,
    domain_key: Object,
    mac_key: Option<Object>,
}

impl Token {
    /// Connects for the first time, and finds out what the module can do.
    pub(crate) fn open(module: Module, config: Config) -> Result<Self, OpenError> {
        let mut generation = [0; 8];
        getrandom::fill(&mut generation)
            .map_err(|_| OpenError::new("the operating system gave no random bytes"))?;
        let bare = connect(&module, &config).map_err(|refusal| OpenError::new(refusal.why))?;
        let probe = Probe {
            module: &module,
            slot: bare.slot,
            owner: &bare.owner,
            domain_key: bare.domain_key,
            overrides: &config.overrides,
        };
        let profile = probe.run().map_err(OpenError::new)?;
        let generation = u64::from_be_bytes(generation);
        let link = finish(bare, &profile, &config, generation)
            .map_err(|failure| OpenError::new(failure.to_string()))?;
        let state = State { attachment: module.attach(), link: Some(link), pin_refused: None };
        Ok(Self {
            module,
            config,
            profile,
            state: Mutex::new(state),
            generation: AtomicU64::new(generation),
            using: RwLock::new(()),
            suspect: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
        })
    }

    /// Returns what the handles of now carry.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Says that a failure casts doubt on the connection: it is tried before its next use.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Destroys the objects that have no user left.
    pub(crate) fn bury(&self, link: &mut Link) {
        if link.cache.bury(&link.owner) {
            self.suspect();
        }
    }

    /// Runs `work` on the connection, and once more on a new one where the first turns out to be gone.
    pub(crate) fn with_link<T>(
        &self,
        mut work: impl FnMut(&mut Link) -> Result<T, Failure>,
    ) -> Result<T, Refusal> {
        let mut state = self.state.lock();
        self.ready(&mut state)?;
        let failure = match work(linked(&mut state)) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        if !casts_doubt(&failure) {
            return Err(failure.into());
        }
        self.suspect();
        let before = self.generation();
        self.ready(&mut state)?;
        if self.generation() == before {
            // The connection lives: it was the call.
            return Err(failure.into());
        }
        work(linked(&mut state)).map_err(Refusal::from)
    }

    /// Sees to it that there is a connection that works.
    fn ready(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Refusal> {
        if let Some(link) = &mut state.link {
            let current = link.owner.is_current();
            if current && !self.suspect.load(Ordering::Acquire) {
                return Ok(());
            }
            // Cleared first: what fails meanwhile casts doubt anew.
            self.suspect.store(false, Ordering::Release);
            if current && link.canary.unwrap_and_open(&link.owner, link.domain_key, &self.profile).is_ok() {
                return Ok(());
            }
        }
        if let Some(why) = &state.pin_refused {
            return Err(Refusal { why: why.clone(), class: Class::Pin });
        }
        let _alone = self.using.try_write_for(QUIESCE).ok_or_else(|| Refusal {
            why: "calls to the token are under way that do not come back".into(),
            class: Class::Busy,
        })?;
        // Every handle of before is void from here on, whether connecting succeeds or not.
        let generation = self.generation.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        state.link = None;
        state.attachment.set_out(true);
        let mut connected = connect(&self.module, &self.config);
        let gone = |refusal: &Refusal| {
            matches!(
                refusal.class,
                Class::SessionGone | Class::TokenGone | Class::ModuleGone | Class::Ambiguous
            )
        };
        if self.config.restart_module
            && connected.as_ref().is_err_and(gone)
            && self.module.restart_if_idle()?
        {
            connected = connect(&self.module, &self.config);
        }
        match connected {
            Ok(bare) => {
                state.link = Some(finish(bare, &self.profile, &self.config, generation)?);
                state.attachment.set_out(false);
                Ok(())
            }
            Err(refusal) => {
                if refusal.class == Class::Pin {
                    state.pin_refused = Some(refusal.why.clone());
                }
                Err(refusal)
            }
        }
    }
}

fn linked<'a>(state: &'a mut MutexGuard<'_, State>) -> &'a mut Link {
    state.link.as_mut().expect("a token that is ready is connected")
}

/// Tells whether a failure may be one of the connection, not of the call.
pub(crate) fn casts_doubt(failure: &Failure) -> bool {
    matches!(
        failure.class(),
        Class::SessionGone
            | Class::TokenGone
            | Class::ModuleGone
            | Class::Login
            | Class::Object
            | Class::Active
            | Class::Ambiguous
    )
}

/// Why the token does not serve.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) why: String,
    pub(crate) class: Class,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { why: failure.to_string(), class: failure.class() }
    }
}

impl From<Refusal> for ProviderError {
    fn from(refusal: Refusal) -> Self {
        match refusal.class {
            Class::Unsupported => ProviderError::Rejected(refusal.why),
            _ => ProviderError::Unavailable(refusal.why),
        }
    }
}

/// Finds the token, opens its two sessions, logs in, finds its keys.
fn connect(module: &Module, config: &Config) -> Result<Bare, Refusal> {
    module.initialize()?;
    let (slot, info) = find_token(module, config)?;
    let pin = |why: &str| Refusal { why: format!("token {}: {why}", config.token_label), class: Class::Pin };
    if !info.pin_set {
        return Err(pin("its PIN has not been set"));
    }
    if info.pin_locked {
        return Err(pin("its PIN is locked"));
    }
    if info.pin_final_try {
        return Err(pin("one more wrong PIN locks it, so none is tried"));
    }
    let anchor = module.open_session(slot, false)?;
    let owner = module.open_session(slot, false)?;
    match owner.login(User::User, &config.pin) {
        Ok(()) => {}
        Err(failure) if failure.is(CKR_USER_ALREADY_LOGGED_IN) => {}
        Err(failure) if failure.class() == Class::Pin => {
            return Err(pin(&format!("{failure}; it is not tried again until the provider is opened anew")));
        }
        Err(failure) => return Err(failure.into()),
    }
    let domain_key = find_key(&owner, DOMAIN_KEY_LABEL)?.ok_or_else(|| Refusal {
        why: format!(
            "token {} has no key {DOMAIN_KEY_LABEL}: it was not initialised for keymill",
            config.token_label
        ),
        class: Class::Other,
    })?;
    let mac_key = find_key(&owner, MAC_KEY_LABEL)?;
    Ok(Bare { slot, anchor, owner, domain_key, mac_key })
}

fn finish(bare: Bare, profile: &ModuleProfile, config: &Config, generation: u64) -> Result<Link, Failure> {
    let Bare { slot, anchor, owner, domain_key, mac_key } = bare;
    Ok(Link {
        canary: Canary::new(&owner, domain_key, profile)?,
        cache: Cache::new(config.cached_keys, generation),
        domain_key,
        mac_key,
        slot,
        owner,
        _anchor: anchor,
    })
}

/// Finds the one token of the label, and serial number where one is said.
pub(crate) fn find_token(module: &Module, config: &Config) -> Result<(CK_SLOT_ID, TokenInfo), Refusal> {
    let mut found = Vec::new();
    let mut failed = None;
    for slot in module.slots()? {
        match module.token_info(slot) {
            Ok(info) => {
                let serial = config.token_serial.as_ref().is_none_or(|serial| *serial == info.serial);
                if info.initialized && info.label == config.token_label && serial {
                    found.push((slot, info));
                }
            }
            // Another token's trouble is not ours, unless ours is not found.
            Err(failure) => failed = Some(failure),
        }
    }
    match (found.len(), failed) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(failure)) => Err(failure.into()),
        (0, None) => {
            Err(Refusal { why: format!("there is no token {}", config.token_label), class: Class::TokenGone })
        }
        (count, _) => Err(Refusal {
            why: format!("{count} tokens have the label {}: say the serial number", config.token_label),
            class: Class::Other,
        }),
    }
}

/// Finds the one key of a label, and refuses it where it could leave the token.
fn find_key(session: &Session, label: &str) -> Result<Option<Object>, Refusal> {
    let refused = |why: String| Refusal { why, class: Class::Other };
    let found = session.find_objects(&[
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::flag(CKA_TOKEN, true),
        Attribute::bytes(CKA_LABEL, label.as_bytes()),
    ])?;
    match found[..] {
        [] => Ok(None),
        [key] => {
            if session.flag(key, CKA_EXTRACTABLE)? || !session.flag(key, CKA_SENSITIVE)? {
                return Err(refused(format!("key {label} could be taken out of the token")));
            }
            Ok(Some(key))
        }
        _ => Err(refused(format!("{} keys have the label {label}", found.len()))),
    }
}

/// A place in the count of sessions, given back when dropped.
pub(crate) struct Place(Arc<Token>);

impl Place {
    /// Takes a place, where there is one.
    pub(crate) fn take(token: &Arc<Token>) -> Option<Self> {
        let limit = token.max_sessions();
        let taken = token
            .sessions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < limit).then_some(count + 1));
        taken.is_ok().then(|| Self(Arc::clone(token)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Token {
    /// Returns how many sessions there may be for the use of keys: what the token gives, less the anchor, the owner, and one to
    /// replace a poisoned one with.
    pub(crate) fn max_sessions(&self) -> usize {
        let given = self.profile.max_sessions.map_or(usize::MAX, |limit| limit.saturating_sub(3).max(1));
        self.config.max_sessions.min(given)
    }
}
