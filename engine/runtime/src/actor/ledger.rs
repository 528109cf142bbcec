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

use super::follow::{self, News};
use crate::cluster::Written;
use crate::keyring::{Ended, Stamp};
use crate::nonces::Claim;
use crate::records::{self, EndedRecord, Kind};
use crate::scan::What;
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
        ended: Option<Ended>,
        record: &T,
    ) -> Result<Self> {
        let last = before.map(|stamp| stamp.sequence).or(ended.map(|ended| ended.sequence));
        let sequence = last.unwrap_or(0) + 1;
        let sealed = records::seal(&shared.sealer, &path, kind, sequence, record)?;
        let stamp = RecordStamp { path: path.to_string(), sequence, tag: digest::hex(&sealed.tag) };
        let standing = ended.and_then(|ended| ended.revision());
        let expected = before.map(|stamp| stamp.revision).or(standing);
        Ok(Self { write: Write { path, expected, value: Some(sealed.bytes) }, stamp })
    }

    /// Removes the record that stands at a path.
    pub(super) fn removal(shared: &Shared, path: Path, before: Stamp) -> Result<Self> {
        Self::removal_named(shared, path, before, None)
    }

    /// The same of one whose path has only a hash of its name. Where other nodes are to know of it, a mark of the end takes the place of the
    /// record: that nothing is there any more could be anybody's doing.
    pub(super) fn removal_named(
        shared: &Shared,
        path: Path,
        before: Stamp,
        name: Option<&str>,
    ) -> Result<Self> {
        let sequence = before.sequence + 1;
        let mark = shared.cluster.as_ref().map(|_| {
            let record = EndedRecord { at: shared.clock.now(), name: name.map(Box::from) };
            records::seal(&shared.sealer, &path, Kind::Ended, sequence, &record)
        });
        let stamp = RecordStamp { path: path.to_string(), sequence, tag: String::new() };
        let value = mark.transpose()?.map(|sealed| sealed.bytes);
        Ok(Self { write: Write { path, expected: Some(before.revision), value }, stamp })
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

/// Returns what is left of a record that was removed with a commit.
pub(super) fn ended_by(shared: &Shared, stamp: &RecordStamp, revision: Revision) -> Ended {
    match shared.cluster {
        Some(_) => Ended::marked(Stamp { revision, sequence: stamp.sequence }, shared.clock.now()),
        None => Ended::gone(stamp.sequence),
    }
}

/// Removes marks of ended records that no node can have missed; some at a time.
pub(super) fn purge(shared: &Shared, ended: &mut HashMap<String, Ended>) -> Result<()> {
    const AT_ONCE: usize = 256;
    let Some(cluster) = &shared.cluster else { return Ok(()) };
    let before = shared.clock.now().minus(cluster.config.keep_ended);
    let is_due = |(path, ended): (&String, &Ended)| {
        let (revision, _) = ended.mark.filter(|(_, since)| *since < before)?;
        Some(Write { path: records::prefix(path), expected: Some(revision), value: None })
    };
    let due: Vec<Write> = ended.iter().filter_map(is_due).take(AT_ONCE).collect();
    if due.is_empty() {
        return Ok(());
    }
    shared.store.commit(&due)?;
    for write in due {
        ended.entry(write.path.to_string()).and_modify(|ended| ended.mark = None);
    }
    Ok(())
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
    /// How records ended.
    ended: HashMap<String, Ended>,
}

impl Ledger {
    pub(super) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<String, Stamp>,
        ended: HashMap<String, Ended>,
    ) -> Self {
        Self { shared, stamps, ended }
    }

    /// Seals a record for its path.
    pub(super) fn put<T: Serialize>(&self, path: Path, kind: Kind, record: &T) -> Result<Draft> {
        let (before, ended) = (self.stamps.get(path.as_str()), self.ended.get(path.as_str()));
        Draft::put(&self.shared, path, kind, before.copied(), ended.copied(), record)
    }

    /// Seals a mark for a path at which nothing is to stand that was not known here.
    pub(super) fn put_end(&self, path: Path, record: &EndedRecord) -> Result<Draft> {
        let Draft { write, stamp } = self.put(path, Kind::Ended, record)?;
        Ok(Draft { write, stamp: RecordStamp { tag: String::new(), ..stamp } })
    }

    /// Removes the record at a path.
    pub(super) fn remove(&self, path: Path) -> Result<Draft> {
        let before = self.stamps.get(path.as_str()).copied();
        let before = before.ok_or_else(|| Error::internal(format!("{path} has no stamp")))?;
        Draft::removal(&self.shared, path, before)
    }

    /// Returns where the record at a path stands, as far as is known.
    pub(super) fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.stamps.get(path.as_str()).copied()
    }

    /// Takes over what other nodes wrote, where it follows what is known: `change_of` says what a record comes to, and its sequence number,
    /// and `removal_of` what its end does. Returns
    /// what the audit remembers of it, and what is to be done.
    pub(super) fn follow<C>(
        &mut self,
        commit: Vec<Written>,
        change_of: impl Fn(&str, What) -> std::result::Result<(C, u64), String>,
        removal_of: impl Fn(&str) -> Option<C>,
    ) -> (Vec<RecordStamp>, Vec<C>) {
        let shared = self.shared.clone();
        let Some(cluster) = &shared.cluster else { return Default::default() };
        let (mut taken, mut changes) = (Vec::new(), Vec::new());
        for Written { path, mark, revision, what } in commit {
            let (before, ended) = (self.stamps.get(&*path).copied(), self.ended.get(&*path).copied());
            // What stands there is not to be relied on, nor is what was known: something newer may be hidden by it.
            let refuse = |ledger: &mut Self, at: Option<Revision>, why: &str| {
                cluster.reject(&path, why);
                ledger.stamps.remove(&*path);
                ledger.ended.insert(path.to_string(), follow::refused(before, ended, at));
                removal_of(&path)
            };
            let Some(what) = what else {
                if follow::vanished(self.ended.get_mut(&*path)) {
                    changes.extend(refuse(self, None, "it was removed, and no node says that it ended"));
                }
                continue;
            };
            let ending = match &what {
                What::Ended(Ok((record, _))) => Some(record.at),
                _ => None,
            };
            let judged = change_of(&path, what)
                .map(|(change, sequence)| (follow::judge(before, ended, revision, sequence), change));
            match judged {
                Ok((News::Known, _)) => {}
                Ok((News::Touched(stamp), _)) => drop(self.stamps.insert(path.into(), stamp)),
                Ok((News::Newer(stamp), change)) => {
                    changes.push(change);
                    let tag = mark.map(|(_, tag)| tag).filter(|_| ending.is_none());
                    taken.push(follow::seen(&path, stamp, tag));
                    match ending {
                        Some(at) => {
                            self.stamps.remove(&*path);
                            self.ended.insert(path.into(), Ended::marked(stamp, at));
                        }
                        None => drop(self.stamps.insert(path.into(), stamp)),
                    }
                }
                Ok((News::Refused(why), _)) => changes.extend(refuse(self, Some(revision), why)),
                Err(why) => changes.extend(refuse(self, Some(revision), &why)),
            }
        }
        (taken, changes)
    }

    /// Removes marks of ended records that no node can have missed.
    pub(super) fn purge(&mut self) {
        if self.shared.keeps_time()
            && let Err(error) = purge(&self.shared, &mut self.ended)
        {
            tracing::warn!(?error, "marks of records that ended long ago could not be removed");
        }
    }

    /// Commits drafts, all or none.
    pub(super) fn commit(&mut self, claim: Option<&Claim>, drafts: Vec<Draft>) -> Result<Vec<RecordStamp>> {
        let (revision, stamps) = Draft::commit(&self.shared, claim, drafts)?;
        for stamp in &stamps {
            match is_removal(stamp) {
                true => {
                    self.stamps.remove(&stamp.path);
                    let ended = ended_by(&self.shared, stamp, revision);
                    self.ended.insert(stamp.path.clone(), ended);
                }
                false => {
                    self.stamps.insert(stamp.path.clone(), Stamp { revision, sequence: stamp.sequence });
                }
            }
        }
        Ok(stamps)
    }
}
