//! The target of a migration, and the marker that keeps servers, and other migrations, from it until it is whole.
//!
//! Every commit writes the marker too, at the revision that it was left at: whoever has taken the target over, or released it, is not overwritten.

use keymill_core::seam::store::{Entry, Page, Path, Revision, Store, StoreError, Write};
use keymill_crypto::{digest, random};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

use super::copy::{Side, Trouble};

/// Where the marker stands. No record of the engine has that path.
const MARKER: &str = "migration";
/// What a commit holds beside the marker: well below what etcd takes of a transaction, unless a single record has more.
const MAX_WRITES: usize = 100;
const MAX_BYTES: usize = 512 << 10;

/// The content of the marker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    /// What the source is called.
    from: String,
    /// Which process migrates.
    run: String,
}

/// Returns the path of the marker, which is no part of what is migrated.
pub(super) fn marker_path() -> Path {
    Path::new(MARKER).expect("a constant that is a path")
}

/// Refuses a store that is the target of a migration which is not finished.
pub(crate) fn refuse_unfinished(store: &dyn Store) -> Result<()> {
    match store.get(&marker_path()).map_err(Failure::because("store"))? {
        None => Ok(()),
        Some(entry) => {
            let from = Marker::read(&entry).map_or_else(|| "another store".to_owned(), |marker| marker.from);
            Err(Failure::new(format!("a migration from {from} to this store is not finished"))
                .next("finish it: `keymill migrate --from OLD --to NEW --finish`"))
        }
    }
}

impl Marker {
    fn read(entry: &Entry) -> Option<Self> {
        serde_json::from_slice(&entry.value).ok()
    }
}

/// The target, as long as this run has it.
pub(super) struct Target<'a> {
    pub(super) store: &'a dyn Store,
    marker: Vec<u8>,
    run: String,
    revision: Revision,
    writes: Vec<Write>,
    bytes: usize,
    /// Records that were written or removed.
    pub(super) changed: u64,
}

impl<'a> Target<'a> {
    /// Takes an empty store, or one that an earlier run of the same migration has left.
    pub(super) fn take(store: &'a dyn Store, from: &str) -> Result<Self, Trouble> {
        let failed = |error| Trouble::Store(Side::Target, error);
        let found = store.get(&marker_path()).map_err(failed)?;
        match &found {
            None => {
                let first = store.list(&Path::all(), Page { after: None, limit: 1 }).map_err(failed)?;
                if !first.is_empty() {
                    return Err(Trouble::refused(
                        "the target holds records, and none of a migration that is under way",
                        "name an empty store: another directory, prefix or schema",
                    ));
                }
            }
            Some(entry) => match Marker::read(entry) {
                Some(marker) if marker.from == from => {}
                Some(marker) => {
                    return Err(Trouble::refused(
                        format!(
                            "a migration from {} to the target is under way, not from {from}",
                            marker.from
                        ),
                        "name that source, or an empty target",
                    ));
                }
                None => {
                    return Err(Trouble::refused(
                        "the marker of the target is damaged",
                        "name an empty target",
                    ));
                }
            },
        }
        let random =
            random::array::<8>().map_err(|error| Trouble::Refused(Failure::new(error.to_string())))?;
        let run = digest::hex(&random);
        let marker = serde_json::to_vec(&Marker { from: from.to_owned(), run: run.clone() })
            .map_err(|error| Trouble::Refused(Failure::new(error.to_string())))?;
        let mut target =
            Self { store, marker, run, revision: Revision(0), writes: Vec::new(), bytes: 0, changed: 0 };
        target.commit(found.map(|entry| entry.revision))?;
        Ok(target)
    }

    /// Looks where the marker is, behind a commit whose outcome is not known. What was not committed is forgotten.
    pub(super) fn again(&mut self) -> Result<(), Trouble> {
        self.writes.clear();
        self.bytes = 0;
        let found = self.store.get(&marker_path()).map_err(|error| Trouble::Store(Side::Target, error))?;
        match found.map(|entry| (Marker::read(&entry), entry.revision)) {
            Some((Some(marker), revision)) if marker.run == self.run => {
                self.revision = revision;
                Ok(())
            }
            _ => Err(taken_over()),
        }
    }

    /// Has a record written, or removed; the revision is that which was read.
    pub(super) fn write(
        &mut self,
        path: Path,
        expected: Option<Revision>,
        value: Option<Vec<u8>>,
    ) -> Result<(), Trouble> {
        let bytes = path.as_str().len() + value.as_ref().map_or(0, Vec::len);
        if self.writes.len() >= MAX_WRITES || self.bytes + bytes > MAX_BYTES {
            self.flush()?;
        }
        self.bytes += bytes;
        self.writes.push(Write { path, expected, value });
        Ok(())
    }

    /// Commits what is to be written.
    pub(super) fn flush(&mut self) -> Result<(), Trouble> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let changed = self.writes.len() as u64;
        self.commit(Some(self.revision))?;
        self.changed += changed;
        Ok(())
    }

    fn commit(&mut self, expected: Option<Revision>) -> Result<(), Trouble> {
        self.writes.push(Write { path: marker_path(), expected, value: Some(self.marker.clone()) });
        let committed = self.store.commit(&self.writes);
        let largest = self.writes.iter().max_by_key(|write| write.value.as_ref().map_or(0, Vec::len));
        self.revision = committed.map_err(|error| match error {
            StoreError::Conflict(path) if path == marker_path() => taken_over(),
            StoreError::Conflict(path) => Trouble::refused(
                format!("{path} was changed in the target by somebody else"),
                "stop what uses the target, and run the same again",
            ),
            StoreError::Full(why) => {
                let of = largest.map_or("nothing", |write| write.path.as_str());
                Trouble::Store(Side::Target, StoreError::Full(format!("{why} (the largest record was {of})")))
            }
            error => Trouble::Store(Side::Target, error),
        })?;
        self.writes.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Removes the marker: the target may be used from now on.
    pub(super) fn release(self) -> Result<(), Trouble> {
        let removal = Write { path: marker_path(), expected: Some(self.revision), value: None };
        match self.store.commit(&[removal]) {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => Err(taken_over()),
            // Its outcome may not be known.
            Err(error) => match self.store.get(&marker_path()) {
                Ok(None) => Ok(()),
                _ => Err(Trouble::Store(Side::Target, error)),
            },
        }
    }
}

fn taken_over() -> Trouble {
    Trouble::refused(
        "another process has taken over this migration, or has finished it",
        "see what that process says; one at a time",
    )
}
