//! The keys that are loaded, as objects of the owner session: a bounded LRU of them, and what happens to one that is put out.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::connect;
use crate::kind::Kind;
use crate::module::{Class, Object, Session};

/// A loaded key: the object behind this provider's handles.
pub(crate) struct Loaded {
    pub(crate) object: Object,
    pub(crate) kind: Kind,
    /// Whether the object is the token's own: it is never destroyed for want of a user.
    on_token: bool,
    /// The token knows the object no longer, though its session lives.
    gone: AtomicBool,
    graveyard: Graveyard,
}

/// Objects without a user, to be destroyed by whoever holds the owner session next: the last user may be on any thread.
#[derive(Clone, Default)]
pub(crate) struct Graveyard(Arc<Mutex<Vec<Object>>>);

impl Graveyard {
    /// Leaves an object to be destroyed.
    pub(crate) fn push(&self, object: Object) {
        self.0.lock().push(object);
    }

    /// Destroys what was left here, and tells whether a failure casts doubt on the connection. What is not destroyed stays, to be
    /// tried again: it counts against the memory of the token, and a key just born can be taken out of it.
    pub(crate) fn bury(&self, owner: &Session) -> bool {
        let mut doubt = false;
        let left = std::mem::take(&mut *self.0.lock());
        for object in left {
            if let Err(failure) = owner.destroy_object(object) {
                doubt |= connect::casts_doubt(&failure);
                if failure.class() != Class::Object {
                    self.push(object);
                }
            }
        }
        doubt
    }
}

impl Loaded {
    /// Says that the token knows the object no longer.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // The handle of one that is gone may name another object by now.
        if !self.on_token && !self.gone.load(Ordering::Acquire) {
            self.graveyard.push(self.object);
        }
    }
}

/// What makes a stored key the one that is loaded: its use, its wrapped material, and its public half, which it was proved to have.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) kind: Kind,
    /// The wrapped material; for an object that is the token's own, what it is known by.
    pub(crate) wrapped: Vec<u8>,
    pub(crate) on_token: bool,
    pub(crate) public: Option<Vec<u8>>,
}

/// The loaded keys.
pub(crate) struct Cache {
    keys: LruCache<Identity, Arc<Loaded>>,
    graveyard: Graveyard,
    pub(crate) generation: u64,
}

impl Cache {
    pub(crate) fn new(limit: usize, generation: u64, graveyard: Graveyard) -> Self {
        Self {
            keys: LruCache::new(NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN)),
            graveyard,
            generation,
        }
    }

    /// Finds a loaded key.
    pub(crate) fn find(&mut self, identity: &Identity) -> Option<Arc<Loaded>> {
        let loaded = self.keys.get(identity).map(Arc::clone)?;
        if loaded.gone.load(Ordering::Acquire) {
            self.keys.pop(identity);
            return None;
        }
        Some(loaded)
    }

    /// Keeps an object that was just unwrapped or found; the one used longest ago leaves where there is no room.
    pub(crate) fn keep(&mut self, identity: &Identity, object: Object) -> Arc<Loaded> {
        let loaded = Arc::new(Loaded {
            object,
            kind: identity.kind,
            on_token: identity.on_token,
            gone: AtomicBool::new(false),
            graveyard: self.graveyard.clone(),
        });
        self.keys.push(identity.clone(), Arc::clone(&loaded));
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
        let same = |key: &&Identity| key.wrapped == wrapped;
        let gone: Vec<_> = self.keys.iter().map(|(key, _)| key).filter(same).cloned().collect();
        gone.iter().for_each(|key| drop(self.keys.pop(key)));
    }

    /// Puts out half of the keys, and tells whether there was one.
    pub(crate) fn make_room(&mut self) -> bool {
        let count = self.keys.len().div_ceil(2);
        (0..count).for_each(|_| drop(self.keys.pop_lru()));
        count > 0
    }
}
