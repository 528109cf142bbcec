//! The keys loaded in a token: each is unwrapped once, by whoever finds it missing, and forgotten as soon as it may not be used.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keymill_core::error::Error;
use keymill_core::id::KeyVersionId;
use keymill_core::seam::provider::{Cause, KeyHandle, ProviderError};

use super::Token;
use crate::keyring::{CmkEntry, VersionEntry};
use crate::shared::Shared;
use crate::work::Fault;

/// Keys that are unloaded in one go.
const UNLOADED: usize = 16;

/// Why a key is not loaded.
pub(crate) enum LoadError {
    /// The key cannot be used.
    Fault(Fault),
    /// The token cannot be used just now.
    Token(Cause),
    /// Another thread is loading one, and takes its time.
    Busy,
}

impl Token {
    /// Returns the handle of a key version in this token, loading it where it is not: its record's seal is checked before.
    pub(crate) fn handle(
        &self,
        shared: &Shared,
        entry: &CmkEntry,
        version: &VersionEntry,
    ) -> Result<KeyHandle, LoadError> {
        if let Some(handle) = self.handles.lock().get(&version.id) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(handle.clone());
        }
        let Some(current) = self.custody.lock().clone() else {
            return Err(LoadError::Token("the token is not connected".into()));
        };
        // Whoever holds it may be in a call that does not return: keys that are loaded are used all the same.
        let Some(mut custody) = current.try_lock_for(self.config.call_timeout / 2) else {
            return Err(LoadError::Busy);
        };
        if let Some(handle) = self.handles.lock().get(&version.id) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(handle.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let stored = shared.stored_key(entry, version).map_err(LoadError::Fault)?;
        let handle = custody.load(&stored).map_err(|error| match error {
            ProviderError::Unavailable(cause) => LoadError::Token(cause),
            other => {
                tracing::error!(key = %entry.cmk.id, version = version.number, token = %self.config.name, error = %other,
                    "a stored key does not load");
                LoadError::Fault(Error::from(other).into())
            }
        })?;
        let evicted = {
            let mut handles = self.handles.lock();
            // A key that was disabled meanwhile is used by nobody, so nothing is kept for it. Asked under the lock: whoever disables a key
            // has it forgotten after that.
            match entry.is_current()
                && self.custody.lock().as_ref().is_some_and(|now| Arc::ptr_eq(now, &current))
            {
                true => handles.push(version.id, handle.clone()).filter(|(id, _)| *id != version.id),
                false => None,
            }
        };
        // The lock is given back before the module is called, which may not return: whoever only looks takes it, too.
        if let Some((_, evicted)) = evicted
            && let Err(error) = custody.unload(evicted)
        {
            tracing::debug!(%error, token = %self.config.name, "unloading a key failed");
        }
        Ok(handle)
    }

    /// Forgets a handle that the token did not know any more.
    pub(crate) fn forget_stale(&self, version: &VersionEntry, stale: &KeyHandle) {
        let mut handles = self.handles.lock();
        let same = |kept: &KeyHandle| {
            kept.generation == stale.generation && Arc::ptr_eq(&kept.object, &stale.object)
        };
        if handles.peek(&version.id).is_some_and(same) {
            handles.pop(&version.id);
        }
    }

    /// Forgets keys that may no longer be used.
    pub(crate) fn forget(&self, versions: &[KeyVersionId]) {
        let mut handles = self.handles.lock();
        let left: Vec<KeyHandle> = versions.iter().filter_map(|version| handles.pop(version)).collect();
        drop(handles);
        if !left.is_empty() {
            self.leaving.lock().extend(left);
        }
    }

    /// Unloads some of what was forgotten, and tells whether there is more; for the control thread. Not all at once: a thousand keys take
    /// a slow token longer than a call may, and others want to load theirs.
    pub(crate) fn unload_forgotten(&self) -> bool {
        if self.leaving.lock().is_empty() {
            return false;
        }
        let Some(current) = self.custody.lock().clone() else { return false };
        let Some(mut custody) = current.try_lock_for(self.config.call_timeout / 2) else { return false };
        let (leaving, more) = {
            let mut leaving = self.leaving.lock();
            let kept = leaving.len().saturating_sub(UNLOADED);
            (leaving.split_off(kept), kept > 0)
        };
        for handle in leaving {
            if let Err(error) = custody.unload(handle) {
                tracing::debug!(%error, token = %self.config.name, "unloading a key failed");
            }
        }
        more
    }
}
