//! The handles that the parent knows by number: a bounded table, whose numbers are never used twice.

use std::collections::HashMap;

use keymill_core::seam::provider::{JobError, KeyHandle};
use parking_lot::RwLock;

use crate::wire::KeyRef;

/// The table. Its lock is held for a look at it alone, never during a call.
pub(crate) struct Keys {
    generation: u64,
    limit: usize,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    handles: HashMap<u64, KeyHandle>,
}

impl Keys {
    pub(crate) fn new(generation: u64, limit: usize) -> Self {
        Self { generation, limit, table: RwLock::default() }
    }

    /// Enters a handle; `None` where the table is full.
    pub(crate) fn enter(&self, handle: KeyHandle) -> Option<u64> {
        let mut table = self.table.write();
        if table.handles.len() >= self.limit {
            return None;
        }
        table.last += 1;
        let number = table.last;
        table.handles.insert(number, handle);
        Some(number)
    }

    /// Returns the handle of a key.
    pub(crate) fn handle(&self, key: KeyRef) -> Result<KeyHandle, JobError> {
        match self.table.read().handles.get(&key.number) {
            Some(handle) if key.generation == self.generation => Ok(handle.clone()),
            _ => Err(JobError::StaleHandle),
        }
    }

    /// Drops handles that have no user left.
    pub(crate) fn release(&self, numbers: &[u64]) {
        let released: Vec<_> = {
            let mut table = self.table.write();
            numbers.iter().filter_map(|number| table.handles.remove(number)).collect()
        };
        // Outside the lock: what a handle does when it is dropped is the provider's business.
        drop(released);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn handle() -> KeyHandle {
        KeyHandle { generation: 9, object: Arc::new(()) }
    }

    #[test]
    fn the_table_is_bounded_and_uses_no_number_twice() {
        let keys = Keys::new(4, 2);
        let (one, two) = (keys.enter(handle()).unwrap(), keys.enter(handle()).unwrap());
        assert_eq!(keys.enter(handle()), None);
        keys.release(&[one, one, 99]);
        let three = keys.enter(handle()).unwrap();
        assert!(three != one && three != two);
        let known = |number| keys.handle(KeyRef { generation: 4, number }).is_ok();
        assert!(!known(one) && known(two));
    }

    #[test]
    fn a_key_of_another_start_is_stale() {
        let keys = Keys::new(4, 2);
        let number = keys.enter(handle()).unwrap();
        assert!(keys.handle(KeyRef { generation: 4, number }).is_ok());
        assert_eq!(keys.handle(KeyRef { generation: 3, number }).err(), Some(JobError::StaleHandle));
    }
}
