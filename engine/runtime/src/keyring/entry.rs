//! A CMK and its versions as they are published. What is made of a version when it is used is made then: most of a million are not in use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use keymill_core::blob::TAG_BYTES;
use keymill_core::id::KeyVersionId;
use keymill_core::key::Cmk;
use keymill_core::seam::provider::{KeyHandle, PublicHalf};
use keymill_core::seam::store::Revision;
use keymill_core::time::Timestamp;
use keymill_crypto::epoch::EpochSlot;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::usage::{Invocations, Usage, Uses};

/// Where a stored record stands: what the next write must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The store's revision of it.
    pub revision: Revision,
    /// Its own sequence number.
    pub sequence: u64,
}

/// How a record ended: one that comes again at its path goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The sequence number of its end.
    pub sequence: u64,
    /// What stands in its place until no node can have missed that: at which revision, and since when.
    pub mark: Option<(Revision, Timestamp)>,
}

impl Ended {
    /// Says that nothing stands in its place.
    pub(crate) fn gone(sequence: u64) -> Self {
        Self { sequence, mark: None }
    }

    /// Says that a mark stands in its place.
    pub(crate) fn marked(stamp: Stamp, since: Timestamp) -> Self {
        Self { sequence: stamp.sequence, mark: Some((stamp.revision, since)) }
    }

    /// Returns the revision of what stands in its place.
    pub(crate) fn revision(&self) -> Option<Revision> {
        self.mark.map(|(revision, _)| revision)
    }
}

/// The versions of a published CMK; most have one.
pub type VersionEntries = SmallVec<[Arc<VersionEntry>; 2]>;

/// A CMK as it was published.
pub struct CmkEntry {
    /// The key.
    pub cmk: Cmk,
    /// Its versions, as in `cmk.versions`.
    pub versions: VersionEntries,
    /// Where its record stands.
    pub stamp: Stamp,
    /// The generation that this entry was made in.
    pub generation: u64,
    /// The generation now; shared by all entries of the key, once there is a second.
    life: OnceLock<Arc<AtomicU64>>,
}

impl CmkEntry {
    /// Makes the first entry of a key.
    pub(crate) fn first(cmk: Cmk, versions: VersionEntries, stamp: Stamp) -> Self {
        Self { cmk, versions, stamp, generation: 1, life: OnceLock::new() }
    }

    /// Makes the entry that is to follow this one.
    pub(crate) fn next(&self, cmk: Cmk, versions: VersionEntries, stamp: Stamp, generation: u64) -> Self {
        Self { cmk, versions, stamp, generation, life: OnceLock::from(self.life().clone()) }
    }

    /// Tells whether the entry is still the one in force.
    pub fn is_current(&self) -> bool {
        self.life.get().is_none_or(|life| life.load(Ordering::Acquire) == self.generation)
    }

    /// Makes this entry the one in force.
    pub(super) fn begin(&self) {
        if let Some(life) = self.life.get() {
            life.store(self.generation, Ordering::Release);
        }
    }

    /// Sees that no entry of the key is in force any more.
    pub(super) fn end(&self) {
        self.life().store(u64::MAX, Ordering::Release);
    }

    fn life(&self) -> &Arc<AtomicU64> {
        self.life.get_or_init(|| Arc::new(AtomicU64::new(self.generation)))
    }

    /// Returns the version that encrypts.
    pub fn primary(&self) -> &Arc<VersionEntry> {
        self.versions.last().expect("a CMK is created with its first version")
    }

    /// Returns the version of that number.
    pub fn version(&self, number: u32) -> Option<&Arc<VersionEntry>> {
        // Versions are numbered from 1 without gaps.
        self.versions.get((number as usize).checked_sub(1)?).filter(|v| v.number == number)
    }
}

/// One version of a CMK: by what its material is known, and what was made of it so far.
pub struct VersionEntry {
    /// The number in blobs.
    pub number: u32,
    /// The id.
    pub id: KeyVersionId,
    /// The tag of the stored record of the material, which no other record has; `None` where that is quarantined, or was not imported.
    pub material: Option<[u8; TAG_BYTES]>,
    in_use: OnceLock<Box<InUse>>,
}

/// What there is of a version that was used.
#[derive(Default)]
pub struct InUse {
    /// The loaded key.
    pub handle: Mutex<Option<KeyHandle>>,
    /// The public half of a key pair, decoded.
    pub public: OnceLock<Arc<dyn PublicHalf>>,
    /// The sealing epoch.
    pub epoch: EpochSlot,
    /// How much it was used; goes on where imported material comes again.
    pub usage: Arc<Usage>,
    /// For a key whose blobs have random 96-bit nonces: how many more it may seal.
    pub invocations: Arc<Invocations>,
}

impl VersionEntry {
    /// Makes the entry of a version that was never used; nothing was made of its material yet.
    pub(crate) fn new(number: u32, id: KeyVersionId, material: Option<[u8; TAG_BYTES]>) -> Self {
        Self { number, id, material, in_use: OnceLock::new() }
    }

    /// Makes the entry of the same version with other material, of which nothing was made yet; its uses go on being counted.
    pub(crate) fn resealed(&self, material: Option<[u8; TAG_BYTES]>) -> Self {
        // Also where it was not used yet: somebody may be about to.
        let InUse { usage, invocations, .. } = self.in_use();
        let (usage, invocations) = (usage.clone(), invocations.clone());
        let in_use = Box::new(InUse { usage, invocations, ..InUse::default() });
        Self { in_use: in_use.into(), ..Self::new(self.number, self.id, material) }
    }

    /// Returns what there is of the version, for using it.
    pub fn in_use(&self) -> &InUse {
        self.in_use.get_or_init(Box::default)
    }

    /// The same where it was used, and nothing where it never was.
    pub fn if_used(&self) -> Option<&InUse> {
        self.in_use.get().map(|in_use| &**in_use)
    }

    /// Returns how much it was used.
    pub fn uses(&self) -> Uses {
        self.if_used().map_or_else(Uses::default, |in_use| in_use.usage.read())
    }
}
