//! The wire between a node and its store, which a test cuts and mends: while it is cut nothing gets through, and nobody says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keymill_core::seam::store::{Change, Entry, Lease, Page, Path, Revision, Row, Store, StoreError, Write};

/// A wire, shared by a test and the store at its end.
#[derive(Clone, Default)]
pub struct Wire(Arc<State>);

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    is_deaf: AtomicBool,
}

impl Wire {
    /// Cuts it.
    pub fn cut(&self) {
        self.0.is_cut.store(true, Ordering::SeqCst);
    }

    /// Has nothing of what others do come through, and all else.
    pub fn deafen(&self) {
        self.0.is_deaf.store(true, Ordering::SeqCst);
    }

    /// Mends it.
    pub fn mend(&self) {
        self.0.is_cut.store(false, Ordering::SeqCst);
        self.0.is_deaf.store(false, Ordering::SeqCst);
    }

    /// Puts it before a store.
    pub fn to(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Behind { wire: self.clone(), store })
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.0.is_cut.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("the wire is cut".into())),
            false => Ok(()),
        }
    }
}

struct Behind {
    wire: Wire,
    store: Arc<dyn Store>,
}

impl Store for Behind {
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        self.wire.check()?;
        self.store.get(path)
    }

    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError> {
        self.wire.check()?;
        self.store.list(prefix, page)
    }

    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError> {
        self.wire.check()?;
        self.store.scan(each)
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        self.wire.check()?;
        self.store.commit(writes)
    }

    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError> {
        self.wire.check()?;
        let mut is_cut = false;
        self.store.watch(prefix, from, &mut |change| {
            // What comes while it is cut is lost: the watch begins anew behind what was told last.
            is_cut |= self.wire.check().is_err() || self.wire.0.is_deaf.load(Ordering::SeqCst);
            !is_cut && each(change)
        })?;
        if is_cut {
            std::thread::sleep(Duration::from_millis(20));
            return Err(StoreError::Unavailable("the wire was cut".into()));
        }
        Ok(())
    }

    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.wire.check()?;
        self.store.lease(name, holder, ttl)
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        self.wire.check()?;
        self.store.revision()
    }
}
