//! One token: found by its label, logged in to once, held by an anchor session and by the owner session whose objects the loaded
//! keys are. When it is lost it is connected again, by the label, and everything of before is void.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use cryptoki_sys::CK_SLOT_ID;
use keymill_core::Sensitive;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::cache::{Cache, Graveyard};
use crate::canary::Canary;
use crate::config::Config;
use crate::connect::{Bare, Refusal, casts_doubt, connect};
use crate::domain::Domain;
use crate::error::{OpenError, OpenErrorKind};
use crate::module::{Attachment, Class, Failure, Module, Object, Session};
use crate::probe::Probe;
use crate::profile::ModuleProfile;

/// How often the canary is listened to before the connection is given up.
const CANARIES: usize = 3;

/// A token that is to be had whenever its device is.
pub(crate) struct Token {
    pub(crate) module: Module,
    pub(crate) config: Config,
    /// What logs in next: it can be changed while the token is served.
    pub(crate) pin: Mutex<Sensitive>,
    pub(crate) profile: ModuleProfile,
    state: Mutex<State>,
    /// What the handles of now carry. It starts at random, so that those of another opening are told apart, and grows with
    /// each connection.
    generation: AtomicU64,
    /// Held shared by each batch, and alone while connecting again: no batch may go on with handles that a new object could get.
    pub(crate) using: RwLock<()>,
    /// Held by whoever generates, and by nobody who holds anything else.
    pub(crate) births: Mutex<()>,
    /// Something failed in a way that casts doubt on more than one session.
    suspect: AtomicBool,
    pub(crate) sessions: AtomicUsize,
    /// What the state says of the PIN, for those who must not wait for it.
    pin_refused: AtomicBool,
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
    pub(crate) graveyard: Graveyard,
    pub(crate) domain: Domain,
    pub(crate) mac_key: Option<Object>,
    pub(crate) slot: CK_SLOT_ID,
    /// Owns every loaded key: they would go with it.
    pub(crate) owner: Session,
    /// Does nothing: with the last session the login goes, and with that every private object.
    _anchor: Session,
}

impl Token {
    /// Connects for the first time, and finds out what the module can do.
    pub(crate) fn open(module: Module, mut config: Config) -> Result<Self, OpenError> {
        let pin = std::mem::replace(&mut config.pin, Sensitive::zeroed(0));
        let known = config.known_profile.take();
        let mut generation = [0; 8];
        getrandom::fill(&mut generation)
            .map_err(|_| OpenError::other("the operating system gave no random bytes"))?;
        let bare = connect(&module, &config, &pin)?;
        let probe = Probe {
            module: &module,
            slot: bare.slot,
            owner: &bare.owner,
            domain: bare.domain,
            overrides: &config.overrides,
        };
        let profile = match known {
            Some(known) => Ok(known),
            None => probe.run(),
        }
        .map_err(|why| OpenError::new(OpenErrorKind::Lacking, why))?;
        let generation = u64::from_be_bytes(generation);
        let link = finish(bare, &profile, &config, generation).map_err(OpenError::because("the canary"))?;
        let state = State { attachment: module.attach(), link: Some(link), pin_refused: None };
        Ok(Self {
            module,
            config,
            pin: Mutex::new(pin),
            profile,
            state: Mutex::new(state),
            generation: AtomicU64::new(generation),
            using: RwLock::new(()),
            births: Mutex::new(()),
            suspect: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            pin_refused: AtomicBool::new(false),
        })
    }

    /// Returns what the handles of now carry.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells whether the PIN was refused.
    pub(crate) fn pin_refused(&self) -> bool {
        self.pin_refused.load(Ordering::Acquire)
    }

    /// Says that a failure casts doubt on the connection: it is tried before its next use.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Destroys the objects that have no user left.
    pub(crate) fn bury(&self, link: &mut Link) {
        if link.graveyard.bury(&link.owner) {
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

    /// Tells whether the canary lives. A device that fails now and then, or is short of memory, is not worth every loaded key.
    fn lives(&self, link: &Link) -> bool {
        for _ in 0..CANARIES {
            let heard = link.canary.unwrap_and_open(&link.owner, link.domain, &self.profile);
            match heard.map_err(|failure| failure.class()) {
                Ok(()) | Err(Class::Busy) => return true,
                Err(Class::Ambiguous) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Takes the PIN as it is set now; where it is another than the one that was refused, an operator has acted.
    fn read_pin_again(&self, state: &mut MutexGuard<'_, State>) {
        let Some(now) = self.config.pin_again.as_ref().and_then(|read| read()) else { return };
        let mut pin = self.pin.lock();
        if pin.expose() != now.expose() {
            *pin = now;
            state.pin_refused = None;
            self.pin_refused.store(false, Ordering::Release);
        }
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
            if current && self.lives(link) {
                return Ok(());
            }
        }
        self.read_pin_again(state);
        if let Some(why) = &state.pin_refused {
            return Err(Refusal { why: why.clone(), class: Class::Pin, code: None, kind: None });
        }
        let _alone = self.using.try_write_for(self.config.quiesce).ok_or_else(|| Refusal {
            why: "calls to the token are under way that do not come back".into(),
            class: Class::Busy,
            code: None,
            kind: None,
        })?;
        // Every handle of before is void from here on, whether connecting succeeds or not.
        let generation = self.generation.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        state.link = None;
        state.attachment.set_out(true);
        let mut connected = connect(&self.module, &self.config, &self.pin.lock());
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
            connected = connect(&self.module, &self.config, &self.pin.lock());
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
                    self.pin_refused.store(true, Ordering::Release);
                }
                Err(refusal)
            }
        }
    }
}

fn linked<'a>(state: &'a mut MutexGuard<'_, State>) -> &'a mut Link {
    state.link.as_mut().expect("a token that is ready is connected")
}

fn finish(bare: Bare, profile: &ModuleProfile, config: &Config, generation: u64) -> Result<Link, Failure> {
    let Bare { slot, anchor, owner, domain, mac_key } = bare;
    let graveyard = Graveyard::default();
    Ok(Link {
        canary: Canary::new(&owner, domain, profile, graveyard.clone())?,
        cache: Cache::new(config.cached_keys, generation, graveyard.clone()),
        graveyard,
        domain,
        mac_key,
        slot,
        owner,
        _anchor: anchor,
    })
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
    /// Returns how many sessions there may be for the use of keys: what the token gives, less the anchor, the owner, one to
    /// replace a poisoned one with, one that keys are born on, and one that pairs are proved on.
    pub(crate) fn max_sessions(&self) -> usize {
        let given = self.profile.max_sessions.map_or(usize::MAX, |limit| limit.saturating_sub(5).max(1));
        self.config.max_sessions.min(given)
    }
}
