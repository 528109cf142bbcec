//! A value that one actor writes and everyone reads without waiting.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

/// A snapshot: replaced whole by its owner, read without a lock.
pub struct Published<T>(ArcSwap<T>);

impl<T> Published<T> {
    /// Publishes the first value.
    pub fn new(value: T) -> Self {
        Self(ArcSwap::from_pointee(value))
    }

    /// Lends the newest value.
    pub fn read(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// Replaces the value; readers that hold the older one keep it until they are done.
    pub fn publish(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}
