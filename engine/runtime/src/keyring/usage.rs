//! How much key versions were used, and how often they may still be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keymill_core::time::Timestamp;

/// How many messages a key version may still seal under random 96-bit nonces: what was reserved, durably, and is not used yet.
#[derive(Default)]
pub struct Invocations {
    left: AtomicU64,
    /// What was reserved in all; never set back.
    reserved: AtomicU64,
}

impl Invocations {
    /// Goes on where so many had been reserved: what of them was not used is lost on purpose.
    pub fn resume(&self, reserved: u64) {
        self.left.store(0, Ordering::Relaxed);
        self.reserved.store(reserved, Ordering::Relaxed);
    }

    /// Makes the count one that cannot be trusted: none may be taken, nor reserved.
    pub fn forget(&self) {
        self.resume(u64::MAX / 2);
    }

    /// Takes `count` invocations, all or none.
    pub fn take(&self, count: u64) -> bool {
        self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
    }

    /// Returns how many are left.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Returns how many were reserved in all.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Takes note that so many were reserved in all, by whichever node: of what others reserved none is left here.
    pub fn raise(&self, total: u64) {
        self.reserved.fetch_max(total, Ordering::Relaxed);
    }

    /// Gives out what was reserved: `total` in all, `count` of it just now.
    pub fn grant(&self, total: u64, count: u64) {
        self.raise(total);
        self.left.fetch_add(count, Ordering::Relaxed);
    }
}

/// Use counts of a key version. Encrypt counts are rounded up after a crash, never down.
#[derive(Default)]
pub struct Usage {
    encrypted: AtomicU64,
    decrypted: AtomicU64,
    last_ms: AtomicU64,
    /// What was last written to the store: encrypted + decrypted.
    flushed: AtomicU64,
    /// Whether the keyring was told that there is something to write.
    is_noted: AtomicBool,
}

/// How much a key version was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Items encrypted, signed or authenticated.
    pub encrypted: u64,
    /// Items decrypted or verified.
    pub decrypted: u64,
    /// Milliseconds since the epoch of the last use; zero: never.
    pub last_ms: u64,
}

impl Uses {
    /// Returns these and others together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            encrypted: self.encrypted + other.encrypted,
            decrypted: self.decrypted + other.decrypted,
            last_ms: self.last_ms.max(other.last_ms),
        }
    }

    /// Returns all uses.
    pub fn total(&self) -> u64 {
        self.encrypted + self.decrypted
    }
}

/// A way to use a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Encrypted, signed or authenticated.
    Encrypted,
    /// Decrypted or verified.
    Decrypted,
}

impl Usage {
    /// Returns the counts.
    pub fn read(&self) -> Uses {
        // In one order with `is_noted`, of which each side writes its own first and then reads the other's.
        Uses {
            encrypted: self.encrypted.load(Ordering::SeqCst),
            decrypted: self.decrypted.load(Ordering::SeqCst),
            last_ms: self.last_ms.load(Ordering::Relaxed),
        }
    }

    /// Counts items.
    pub(super) fn add(&self, what: Use, items: u32, at: Timestamp) {
        let counter = match what {
            Use::Encrypted => &self.encrypted,
            Use::Decrypted => &self.decrypted,
        };
        counter.fetch_add(u64::from(items), Ordering::SeqCst);
        self.last_ms.store(at.as_ms(), Ordering::Relaxed);
    }

    /// Notes that there is something to write; true where that was not noted yet.
    pub(super) fn note(&self) -> bool {
        !self.is_noted.load(Ordering::SeqCst) && !self.is_noted.swap(true, Ordering::SeqCst)
    }

    /// Has what is counted from here on noted anew; to be said before the counts are read.
    pub(super) fn unnote(&self) {
        self.is_noted.swap(false, Ordering::SeqCst);
    }

    /// Goes on from counts that were stored.
    pub(crate) fn resume(&self, uses: Uses) {
        self.encrypted.store(uses.encrypted, Ordering::Relaxed);
        self.decrypted.store(uses.decrypted, Ordering::Relaxed);
        self.last_ms.store(uses.last_ms, Ordering::Relaxed);
        self.flushed.store(uses.total(), Ordering::Relaxed);
    }

    /// Tells whether these counts are in the store.
    pub(crate) fn is_flushed(&self, uses: &Uses) -> bool {
        self.flushed.load(Ordering::Relaxed) == uses.total()
    }

    /// Remembers that these counts are in the store.
    pub(crate) fn flushed(&self, uses: &Uses) {
        self.flushed.store(uses.total(), Ordering::Relaxed);
    }
}
