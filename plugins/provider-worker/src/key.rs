//! The parent's handles: numbers that the worker knows a key by, and that go back to it when their last user has dropped them.

use std::sync::Arc;

use keymill_core::seam::provider::{JobError, KeyHandle};
use parking_lot::Mutex;

use crate::wire::KeyRef;

/// Who handles belong to, and what is left of those without a user: dropped on any thread, given back with the next control request.
#[derive(Clone, Default)]
pub(crate) struct Owner(Arc<Mutex<Vec<KeyRef>>>);

/// The object behind a handle.
pub(crate) struct WorkerKey {
    owner: Owner,
    key: KeyRef,
}

impl Owner {
    /// Makes the handle of a key that the worker has loaded.
    pub(crate) fn handle(&self, key: KeyRef) -> KeyHandle {
        let object = WorkerKey { owner: self.clone(), key };
        KeyHandle { generation: key.generation, object: Arc::new(object) }
    }

    /// Returns what the worker knows the key of a handle by.
    pub(crate) fn key(&self, handle: &KeyHandle) -> Result<KeyRef, JobError> {
        match handle.object.downcast_ref::<WorkerKey>() {
            Some(WorkerKey { owner, key })
                if Arc::ptr_eq(&owner.0, &self.0) && key.generation == handle.generation =>
            {
                Ok(*key)
            }
            _ => Err(JobError::StaleHandle),
        }
    }

    /// Takes the numbers of this generation that were dropped; those of others went with their worker.
    pub(crate) fn take_dropped(&self, generation: u64) -> Vec<u64> {
        let dropped = std::mem::take(&mut *self.0.lock());
        dropped.into_iter().filter(|key| key.generation == generation).map(|key| key.number).collect()
    }

    /// Puts back what was not given back.
    pub(crate) fn put_back(&self, generation: u64, numbers: Vec<u64>) {
        self.0.lock().extend(numbers.into_iter().map(|number| KeyRef { generation, number }));
    }
}

impl Drop for WorkerKey {
    fn drop(&mut self) {
        self.owner.0.lock().push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_its_owners_and_is_given_back_once_when_its_last_user_is_gone() {
        let (owner, other) = (Owner::default(), Owner::default());
        let key = KeyRef { generation: 3, number: 7 };
        let handle = owner.handle(key);
        let user = handle.clone();
        assert_eq!(owner.key(&handle), Ok(key));
        assert_eq!(other.key(&handle), Err(JobError::StaleHandle));
        let older = KeyHandle { generation: 2, ..handle.clone() };
        assert_eq!(owner.key(&older), Err(JobError::StaleHandle));
        drop((handle, older));
        assert!(owner.take_dropped(3).is_empty(), "there is a user yet");
        drop(user);
        assert_eq!(owner.take_dropped(3), [7]);
        assert!(owner.take_dropped(3).is_empty());
        drop(owner.handle(key));
        assert!(owner.take_dropped(4).is_empty(), "it went with its worker");
    }
}
