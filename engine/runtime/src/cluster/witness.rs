//! What a node leaves in the store for its own next start, and looks for while it runs: a record that its audit remembers. A store that was put back
//! shows by it that it holds less than was left there.

use std::time::{Duration, Instant};

use keymill_core::audit::RecordStamp;
use keymill_core::seam::store::{Path, Revision, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};

use super::Cluster;
use super::history::{lacks, lose, raise};
use crate::records::{self, Kind, WitnessRecord};

/// How long it may be between two witnesses.
const EVERY: Duration = Duration::from_secs(60);

/// What this node leaves in the store for its own next start.
pub(crate) struct Witness {
    sequence: u64,
    /// The commit that it stands by, once that was looked for.
    stands: Option<Option<Revision>>,
    /// The last of which the store said that it is there.
    last: Option<RecordStamp>,
    /// When the last was left, or missed.
    left: Option<Instant>,
}

impl Witness {
    pub(crate) fn new() -> Self {
        Self { sequence: 0, stands: None, last: None, left: None }
    }

    /// Tells whether it is time for another.
    pub(crate) fn is_due(&self) -> bool {
        self.left.is_none_or(|left| left.elapsed() >= EVERY)
    }

    /// Leaves one; returns what the audit is to remember of it.
    ///
    /// # Errors
    /// What the store says; `OtherHistory` where the last one is not there any more, which others know then.
    pub(crate) fn leave(
        &mut self,
        cluster: &Cluster,
        store: &dyn Store,
        sealer: &RecordSealer,
        at: Timestamp,
    ) -> Result<RecordStamp, StoreError> {
        let path = records::witness_path(&cluster.node, cluster.history.accepted());
        // Where it is not known whether that was done, it is looked for the next time.
        if let Some(expected) = self.stands.take() {
            match self.put(&path, expected, store, sealer, at) {
                // Somebody else has written there, or it went back.
                Err(StoreError::Conflict(_)) => {}
                left => return left,
            }
        }
        // Has connections given up to a server that another took the place of: what it says does not count.
        store.revision()?;
        let stored = store.get(&path)?;
        let stands = stored.as_ref().and_then(|stored| sequence_of(&stored.value).zip(tag_of(&stored.value)));
        if let Some(found) = self.last.as_ref().and_then(|last| lacks(last, stands)) {
            let why = format!("this process left {found}");
            lose(cluster, &why);
            raise(cluster, store, sealer, at, &why)?;
            self.left = Some(Instant::now());
            return Err(StoreError::OtherHistory(why));
        }
        self.sequence = self.sequence.max(stands.map_or(0, |(sequence, _)| sequence));
        self.put(&path, stored.map(|stored| stored.revision), store, sealer, at)
    }

    fn put(
        &mut self,
        path: &Path,
        expected: Option<Revision>,
        store: &dyn Store,
        sealer: &RecordSealer,
        at: Timestamp,
    ) -> Result<RecordStamp, StoreError> {
        self.sequence += 1;
        let sealed = records::seal(sealer, path, Kind::Witness, self.sequence, &WitnessRecord { at })
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let write = Write { path: path.clone(), expected, value: Some(sealed.bytes) };
        self.stands = Some(Some(store.commit(&[write])?));
        let stamp =
            RecordStamp { path: path.to_string(), sequence: self.sequence, tag: digest::hex(&sealed.tag) };
        self.last = Some(stamp.clone());
        self.left = Some(Instant::now());
        Ok(stamp)
    }
}
