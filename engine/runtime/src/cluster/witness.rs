//! What a node leaves in the store for its own next start: a record that its audit remembers. A store that was put back while nobody ran shows by it
//! that it holds less than was left there.

use std::time::{Duration, Instant};

use keymill_core::audit::RecordStamp;
use keymill_core::seam::store::{Revision, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;
use keymill_crypto::record::{RecordSealer, sequence_of};

use super::Cluster;
use crate::records::{self, Kind, WitnessRecord};

/// How long it may be between two witnesses.
const EVERY: Duration = Duration::from_secs(60);

/// What this node leaves in the store for its own next start.
pub(crate) struct Witness {
    sequence: u64,
    /// The commit that it stands by, once that was looked for.
    stands: Option<Option<Revision>>,
    left: Option<Instant>,
}

impl Witness {
    pub(crate) fn new() -> Self {
        Self { sequence: 0, stands: None, left: None }
    }

    /// Tells whether it is time for another.
    pub(crate) fn is_due(&self) -> bool {
        self.left.is_none_or(|left| left.elapsed() >= EVERY)
    }

    /// Leaves one; returns what the audit is to remember of it.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn leave(
        &mut self,
        cluster: &Cluster,
        store: &dyn Store,
        sealer: &RecordSealer,
        at: Timestamp,
    ) -> Result<RecordStamp, StoreError> {
        let path = records::witness_path(&cluster.node, cluster.history.accepted());
        let expected = match self.stands {
            Some(stands) => stands,
            None => {
                let stored = store.get(&path)?;
                let sequence = stored.as_ref().and_then(|stored| sequence_of(&stored.value));
                self.sequence = self.sequence.max(sequence.unwrap_or(0));
                stored.map(|stored| stored.revision)
            }
        };
        self.sequence += 1;
        let sealed = records::seal(sealer, &path, Kind::Witness, self.sequence, &WitnessRecord { at })
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let stamp =
            RecordStamp { path: path.to_string(), sequence: self.sequence, tag: digest::hex(&sealed.tag) };
        // Where it is not known whether that was done, it is looked for the next time.
        self.stands = None;
        self.stands = Some(Some(store.commit(&[Write { path, expected, value: Some(sealed.bytes) }])?));
        self.left = Some(Instant::now());
        Ok(stamp)
    }
}
