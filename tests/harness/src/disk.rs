//! The disk that an audit log lies on, as a test fills and frees it: nothing is appended to a full one but what fits the
//! reserve, once that was given up.

use std::sync::Arc;

use keymill_core::seam::audit::{AuditError, AuditLog, AuditReader, AuditSink, AuditSync};
use parking_lot::Mutex;

/// A disk with a reserve.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    is_full: bool,
    reserve_bytes: usize,
    /// What is left of a reserve that was given up.
    left: usize,
    releases: u64,
}

impl Disk {
    /// Makes a disk with space, of which so many bytes are held back.
    pub fn new(reserve_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(State { is_full: false, reserve_bytes, left: 0, releases: 0 })))
    }

    /// Takes all space but the reserve.
    pub fn fill(&self) {
        self.0.lock().is_full = true;
    }

    /// Gives the space back.
    pub fn free(&self) {
        self.0.lock().is_full = false;
    }

    /// Returns how many times the reserve was given up.
    pub fn releases(&self) -> u64 {
        self.0.lock().releases
    }

    /// Puts an audit log on the disk.
    pub fn log(&self, inner: Arc<dyn AuditLog>) -> Arc<dyn AuditLog> {
        Arc::new(DiskLog { disk: self.clone(), inner })
    }

    fn takes(&self, bytes: usize) -> bool {
        let mut state = self.0.lock();
        if !state.is_full {
            return true;
        }
        match state.left.checked_sub(bytes) {
            Some(left) => {
                state.left = left;
                true
            }
            None => false,
        }
    }
}

struct DiskLog {
    disk: Disk,
    inner: Arc<dyn AuditLog>,
}

impl AuditLog for DiskLog {
    fn open_chain(&self, name: &str) -> Result<Box<dyn AuditSink>, AuditError> {
        Ok(Box::new(DiskSink { disk: self.disk.clone(), inner: self.inner.open_chain(name)? }))
    }

    fn chains(&self) -> Result<Vec<String>, AuditError> {
        self.inner.chains()
    }

    fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
        self.inner.reader(name)
    }

    fn bytes(&self, name: &str) -> Result<u64, AuditError> {
        self.inner.bytes(name)
    }

    fn remove(&self, name: &str) -> Result<(), AuditError> {
        self.inner.remove(name)
    }
}

struct DiskSink {
    disk: Disk,
    inner: Box<dyn AuditSink>,
}

impl AuditSink for DiskSink {
    fn append(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        match self.disk.takes(lines.len()) {
            true => self.inner.append(lines),
            false => Err(AuditError::Full("the test says so".into())),
        }
    }

    fn syncer(&self) -> Result<Box<dyn AuditSync>, AuditError> {
        self.inner.syncer()
    }

    fn release_reserve(&mut self) {
        let mut state = self.disk.0.lock();
        state.releases += 1;
        state.left = state.reserve_bytes;
    }

    fn restore_reserve(&mut self) -> bool {
        let mut state = self.disk.0.lock();
        if !state.is_full {
            state.left = 0;
        }
        !state.is_full
    }
}
