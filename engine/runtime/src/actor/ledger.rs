//! Records as they will be committed, and where those stand that an actor owns whole. A record comes after whatever was at its path before,
//! though that was removed: an older copy put back by hand is found by its sequence number.

use std::collections::HashMap;
use std::sync::Arc;

use keymill_core::audit::RecordStamp;
use keymill_core::blob::TAG_BYTES;
use keymill_core::error::{Error, Result};
use keymill_core::seam::store::{Path, Revision, Write};
use keymill_crypto::digest;
use keymill_crypto::record::tag_of;
use serde::Serialize;

use crate::keyring::Stamp;
use crate::nonces::Claim;
use crate::records::{self, Kind};
use crate::shared::Shared;

/// A record as it will be committed, and what the audit log says of it.
pub(super) struct Draft {
    write: Write,
    stamp: RecordStamp,
}

impl Draft {
    /// Seals a record for its path: one that stands there (`before`), or ended there by a sequence number, or neither.
    pub(super) fn put<T: Serialize>(
        shared: &Shared,
        path: Path,
        kind: Kind,
        before: Option<Stamp>,
        ended: Option<u64>,
        record: &T,
    ) -> Result<Self> {
        let sequence = before.map(|stamp| stamp.sequence).or(ended).unwrap_or(0) + 1;
        let sealed = records::seal(&shared.sealer, &path, kind, sequence, record)?;
        let stamp = RecordStamp { path: path.to_string(), sequence, tag: digest::hex(&sealed.tag) };
        let expected = before.map(|stamp| stamp.revision);
        Ok(Self { write: Write { path, expected, value: Some(sealed.bytes) }, stamp })
    }

    /// Removes the record that stands at a path.
    pub(super) fn removal(path: Path, before: Stamp) -> Self {
        let stamp = RecordStamp { path: path.to_string(), sequence: before.sequence + 1, tag: String::new() };
        Self { write: Write { path, expected: Some(before.revision), value: None }, stamp }
    }

    /// Returns the tag that the record is sealed with, by which another record names it.
    pub(super) fn tag(&self) -> Option<[u8; TAG_BYTES]> {
        self.write.value.as_deref().and_then(tag_of)
    }

    /// Commits drafts, all or none, and with them what the signed request claims; returns what the audit log says of each, in their order.
    pub(super) fn commit(
        shared: &Shared,
        claim: Option<&Claim>,
        drafts: Vec<Self>,
    ) -> Result<(Revision, Vec<RecordStamp>)> {
        let (writes, stamps): (Vec<_>, Vec<_>) = drafts.into_iter().map(|d| (d.write, d.stamp)).unzip();
        Ok((shared.commit(claim, writes)?, stamps))
    }
}

/// Tells whether a record was removed by what is said of it.
pub(super) fn is_removal(stamp: &RecordStamp) -> bool {
    stamp.tag.is_empty()
}

/// Where the records of one actor stand.
pub(super) struct Ledger {
    shared: Arc<Shared>,
    /// Of each record, by its path.
    stamps: HashMap<String, Stamp>,
    /// The sequence numbers with which records ended.
    ended: HashMap<String, u64>,
}

impl Ledger {
    pub(super) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<String, Stamp>,
        ended: HashMap<String, u64>,
    ) -> Self {
        Self { shared, stamps, ended }
    }

    /// Seals a record for its path.
    pub(super) fn put<T: Serialize>(&self, path: Path, kind: Kind, record: &T) -> Result<Draft> {
        let (before, ended) = (self.stamps.get(path.as_str()), self.ended.get(path.as_str()));
        Draft::put(&self.shared, path, kind, before.copied(), ended.copied(), record)
    }

    /// Removes the record at a path.
    pub(super) fn remove(&self, path: Path) -> Result<Draft> {
        let before = self.stamps.get(path.as_str()).copied();
        let before = before.ok_or_else(|| Error::internal(format!("{path} has no stamp")))?;
        Ok(Draft::removal(path, before))
    }

    /// Commits drafts, all or none.
    pub(super) fn commit(&mut self, claim: Option<&Claim>, drafts: Vec<Draft>) -> Result<Vec<RecordStamp>> {
        let (revision, stamps) = Draft::commit(&self.shared, claim, drafts)?;
        for stamp in &stamps {
            match is_removal(stamp) {
                true => {
                    self.stamps.remove(&stamp.path);
                    self.ended.insert(stamp.path.clone(), stamp.sequence);
                }
                false => {
                    self.stamps.insert(stamp.path.clone(), Stamp { revision, sequence: stamp.sequence });
                }
            }
        }
        Ok(stamps)
    }
}
