//! The keys that are loaded, as objects of the owner session: a bounded LRU of them, what happens to one that is put out, and the
//! canary, a key of the same kind whose answer is known.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::CKM_AES_KEY_GEN;
use keymill_core::key::BulkMode;
use lru::LruCache;
use parking_lot::Mutex;

use crate::module::template::{newborn, unwrapped};
use crate::module::{Failure, Mechanism, Object, Session};
use crate::profile::{ModuleProfile, WRAPPED_BYTES};
use crate::{connect, probe};

/// A loaded key: the object behind this provider's handles.
pub(crate) struct Loaded {
    pub(crate) object: Object,
    pub(crate) mode: BulkMode,
    /// The token knows the object no longer, though its session lives.
    gone: AtomicBool,
    graveyard: Graveyard,
}

/// Objects without a user, to be destroyed by whoever holds the owner session next: the last user may be on any thread.
type Graveyard = Arc<Mutex<Vec<Object>>>;

impl Loaded {
    /// Says that the token knows the object no longer.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // The handle of one that is gone may name another object by now.
        if !self.gone.load(Ordering::Acquire) {
            self.graveyard.lock().push(self.object);
        }
    }
}

/// The loaded keys, by wrapped material and use.
pub(crate) struct Cache {
    keys: LruCache<(BulkMode, Vec<u8>), Arc<Loaded>>,
    graveyard: Graveyard,
    pub(crate) generation: u64,
}

impl Cache {
    pub(crate) fn new(limit: usize, generation: u64) -> Self {
        Self {
            keys: LruCache::new(NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN)),
            graveyard: Graveyard::default(),
            generation,
        }
    }

    /// Finds a loaded key.
    pub(crate) fn find(&mut self, mode: BulkMode, wrapped: &[u8]) -> Option<Arc<Loaded>> {
        let key = (mode, wrapped.to_vec());
        let loaded = self.keys.get(&key).map(Arc::clone)?;
        if loaded.gone.load(Ordering::Acquire) {
            self.keys.pop(&key);
            return None;
        }
        Some(loaded)
    }

    /// Keeps an object that was just unwrapped; the one used longest ago leaves where there is no room.
    pub(crate) fn keep(&mut self, mode: BulkMode, wrapped: &[u8], object: Object) -> Arc<Loaded> {
        let loaded = Arc::new(Loaded {
            object,
            mode,
            gone: AtomicBool::new(false),
            graveyard: Arc::clone(&self.graveyard),
        });
        self.keys.push((mode, wrapped.to_vec()), Arc::clone(&loaded));
        loaded
    }

    /// Puts out what is the same object as `loaded`.
    pub(crate) fn put_out(&mut self, loaded: &Arc<Loaded>) {
        let same = self.keys.iter().find(|(_, kept)| Arc::ptr_eq(kept, loaded)).map(|(key, _)| key.clone());
        if let Some(key) = same {
            self.keys.pop(&key);
        }
    }

    /// Puts out whatever has this material.
    pub(crate) fn forget(&mut self, wrapped: &[u8]) {
        for mode in [BulkMode::InHsm, BulkMode::HsmDerived] {
            self.keys.pop(&(mode, wrapped.to_vec()));
        }
    }

    /// Puts out half of the keys, and tells whether there was one.
    pub(crate) fn make_room(&mut self) -> bool {
        let count = self.keys.len().div_ceil(2);
        (0..count).for_each(|_| drop(self.keys.pop_lru()));
        count > 0
    }

    /// Destroys the objects that have no user left, and tells whether a failure casts doubt on the connection. One that cannot be
    /// destroyed is gone, or goes with the session.
    #[must_use]
    pub(crate) fn bury(&mut self, owner: &Session) -> bool {
        let dead = std::mem::take(&mut *self.graveyard.lock());
        let failures = dead.into_iter().filter_map(|object| owner.destroy_object(object).err());
        failures.fold(false, |doubt, failure| doubt | connect::casts_doubt(&failure))
    }
}

/// A key of the token's own with a known answer.
pub(crate) struct Canary {
    pub(crate) key: Object,
    blob: Vec<u8>,
    sealed: Vec<u8>,
}

/// What the canary's answer is.
const SONG: &[u8] = b"the canary of keymill lives";
const NONCE: u8 = 1;

impl Canary {
    /// Makes a key, wraps it, and seals one text under it: the only one ever.
    pub(crate) fn new(owner: &Session, domain_key: Object, profile: &ModuleProfile) -> Result<Self, Failure> {
        let born = owner.generate_key(Mechanism::Plain(CKM_AES_KEY_GEN), &newborn(BulkMode::InHsm))?;
        let made = (|| {
            let sealed = probe::seal(owner, born, NONCE, SONG)?;
            let blob = wrap(owner, domain_key, born, profile)?;
            let key = unwrap(owner, domain_key, &blob, BulkMode::InHsm, profile)?;
            Ok(Self { key, blob, sealed })
        })();
        let destroyed = owner.destroy_object(born);
        let canary: Self = made?;
        destroyed?;
        Ok(canary)
    }

    /// Returns what opens to the known answer under the loaded canary key.
    pub(crate) fn song(&self) -> Song {
        Song { key: self.key, sealed: self.sealed.clone() }
    }

    /// Unwraps the canary by the domain key and opens its text: a sign of life of all that stored keys need.
    pub(crate) fn unwrap_and_open(
        &self,
        owner: &Session,
        domain_key: Object,
        profile: &ModuleProfile,
    ) -> Result<(), Failure> {
        let key = unwrap(owner, domain_key, &self.blob, BulkMode::InHsm, profile)?;
        let heard = Song { key, sealed: self.sealed.clone() }.hear(owner);
        owner.destroy_object(key)?;
        heard
    }
}

/// The canary's text, for a session to open.
pub(crate) struct Song {
    key: Object,
    sealed: Vec<u8>,
}

impl Song {
    /// Opens the text on `session`. Opening it twice does no harm, as sealing it twice would.
    pub(crate) fn hear(&self, session: &Session) -> Result<(), Failure> {
        match probe::open(session, self.key, NONCE, &self.sealed)? {
            text if text == SONG => Ok(()),
            text => Err(Failure::Overlong { call: "C_Decrypt", bytes: text.len() }),
        }
    }
}

/// Wraps a key under the domain key.
pub(crate) fn wrap(
    owner: &Session,
    domain_key: Object,
    key: Object,
    profile: &ModuleProfile,
) -> Result<Vec<u8>, Failure> {
    let mut blob = vec![0; 2 * WRAPPED_BYTES];
    match owner.wrap_key(profile.wrap.mechanism(), domain_key, key, &mut blob)? {
        WRAPPED_BYTES => {
            blob.truncate(WRAPPED_BYTES);
            Ok(blob)
        }
        bytes => Err(Failure::Overlong { call: "C_WrapKey", bytes }),
    }
}

/// Unwraps a key into an object of the owner session, for one use.
pub(crate) fn unwrap(
    owner: &Session,
    domain_key: Object,
    blob: &[u8],
    mode: BulkMode,
    profile: &ModuleProfile,
) -> Result<Object, Failure> {
    let template = unwrapped(mode, profile.unwrap_value_len);
    owner.unwrap_key(profile.wrap.mechanism(), domain_key, blob, &template)
}
