//! Writes anew what went back, some records at a time; those that belong together in one commit.

use keymill_core::audit::RecordStamp;
use keymill_core::id::CmkId;
use keymill_core::key::Cmk;
use keymill_core::seam::store::{Entry, Path, Row, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{Remembered, RememberedTag};
use keymill_crypto::digest;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};

use super::leap;
use super::lost::Lost;
use super::parent::Parent;
use super::safe::{Anew, gives_rights};
use crate::records::{self, Kind};
use crate::scan;

/// Writes and bytes of one commit, about: what belongs together is not parted.
pub(super) const WRITES: usize = 64;
const BYTES: usize = 256 << 10;
/// Records that the log names; the audit names all.
const LOGGED: usize = 1_000;

/// What is being written.
pub(super) struct Taking<'a> {
    store: &'a dyn Store,
    sealer: &'a RecordSealer,
    now: Timestamp,
    /// Access keys that stay active.
    spared: Vec<String>,
    writes: Vec<Write>,
    bytes: usize,
    /// What the audit is to remember of what was written, and is about to be.
    stamps: Vec<RecordStamp>,
}

/// A record that is to be written.
struct Draft {
    write: Write,
    stamp: RecordStamp,
    bytes: usize,
    tag: [u8; 16],
}

/// Why a record is not accepted.
enum Refused {
    /// For now.
    Store(StoreError),
    /// It stays quarantined.
    Record(String),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Record(why)
    }
}

impl Refused {
    /// Has the log name a record that stays as it is.
    fn told(self, path: &Path) -> Result<(), StoreError> {
        match self {
            Self::Store(error) => Err(error),
            Self::Record(why) => {
                tracing::error!(%path, why, "a record cannot be accepted: it stays quarantined");
                Ok(())
            }
        }
    }
}

impl<'a> Taking<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        sealer: &'a RecordSealer,
        now: Timestamp,
        spared: Vec<String>,
    ) -> Self {
        Self { store, sealer, now, spared, writes: Vec::new(), bytes: 0, stamps: Vec::new() }
    }

    /// Accepts one record, or those that belong together.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read or written.
    pub(super) fn take(&mut self, family: &[Lost]) -> Result<(), StoreError> {
        let Some(Lost { head, .. }) = family.first() else { return Ok(()) };
        match self.drafts(head, family) {
            Ok(drafts) => self.push(drafts),
            Err(refused) => refused.told(head),
        }
    }

    /// Writes the rest; returns what the audit is to remember.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    pub(super) fn finish(mut self) -> Result<Vec<RecordStamp>, StoreError> {
        self.commit()?;
        Ok(self.stamps)
    }

    fn drafts(&self, head: &Path, family: &[Lost]) -> Result<Vec<Draft>, Refused> {
        let stored = self.store.get(head)?;
        let own = family.iter().find(|lost| lost.path == *head);
        let was_removed = own.is_some_and(|own| own.known.tag == RememberedTag::Removed);
        let mut parent = match &stored {
            Some(stored) if !was_removed => Parent::open(self.sealer, stored)?,
            _ => None,
        };
        let mut drafts = Vec::with_capacity(family.len() + 1);
        for lost in family.iter().filter(|lost| lost.path != *head) {
            match self.named(lost, parent.as_mut()) {
                Ok(draft) => drafts.push(draft),
                Err(refused) => refused.told(&lost.path)?,
            }
        }
        let known = own.map_or(0, |own| own.known.sequence);
        let anew = match (parent, own) {
            // What it names has other tags now.
            (Some(parent), own) if own.is_some() || !drafts.is_empty() => parent.anew(self.now)?,
            (None, Some(own)) => self.alone(own, stored.as_ref())?,
            _ => return Ok(drafts),
        };
        drafts.push(self.draft(head, stored.as_ref(), known, &anew)?);
        Ok(drafts)
    }

    /// Returns what becomes of a record that another names by its tag, and has that name it as it is then. One that nobody names has ended.
    fn named(&self, Lost { path, known, .. }: &Lost, parent: Option<&mut Parent>) -> Result<Draft, Refused> {
        let stored = self.store.get(path)?;
        let tag = parent.and_then(|parent| parent.tag_of(path));
        let standing = stored.as_ref().filter(|stored| !records::says_ended(&stored.value));
        let (Some(tag), Some(standing)) = (tag, standing) else {
            return self.draft(path, stored.as_ref(), known.sequence, &Anew::end(self.now, None)?);
        };
        if tag_of(&standing.value) != Some(*tag) {
            return Err(Refused::Record("another record names another one there".to_owned()));
        }
        let anew = self.opened(standing)?;
        let draft = self.draft(path, stored.as_ref(), known.sequence, &anew)?;
        *tag = draft.tag;
        Ok(draft)
    }

    /// Returns what a record comes to that is named by none, and names none.
    fn alone(&self, Lost { path, known, .. }: &Lost, stored: Option<&Entry>) -> Result<Anew, Refused> {
        let Some(stored) = stored else { return self.in_place_of_nothing(path, *known) };
        let Anew { kind, payload } = self.opened(stored)?;
        if kind == Kind::Ended as u8 {
            return Ok(Anew { kind, payload });
        }
        if known.tag == RememberedTag::Removed || gives_rights(path) {
            let row = Row { path: path.as_str(), value: &stored.value, revision: stored.revision };
            return Ok(Anew::end(self.now, scan::open(self.sealer, row).and_then(|what| what.name()))?);
        }
        let stands = sequence_of(&stored.value).unwrap_or(0);
        let is_spared = self.spared.iter().any(|spared| spared == path.as_str());
        if is_spared {
            tracing::warn!(%path, "an access key that went back stays active, since nobody could administer the rest without: look at its grants");
        }
        Ok(Anew::safe(kind, payload, known.sequence.saturating_sub(stands), is_spared)?)
    }

    /// Returns what stands where a record is missing: its end, or the most that can have been counted there.
    fn in_place_of_nothing(&self, path: &Path, known: Remembered) -> Result<Anew, Refused> {
        let end = || Ok(Anew::end(self.now, None)?);
        let counted = path.as_str().strip_prefix("invocations/").and_then(CmkId::parse);
        let Some(id) = counted else { return end() };
        let Some(stored) = self.store.get(&records::cmk_path(&id))? else { return end() };
        match records::open::<Cmk>(self.sealer, &stored.path, Kind::Cmk, &stored.value) {
            Ok((cmk, ..)) => Ok(Anew::most(&cmk, known.sequence)?),
            Err(_) => end(),
        }
    }

    /// Opens a record as it stands.
    fn opened(&self, Entry { path, value, .. }: &Entry) -> Result<Anew, String> {
        let kind = *value.get(1).ok_or("it is cut")?;
        let opened = self.sealer.open(path.as_str(), kind, value).map_err(|error| error.to_string())?;
        Ok(Anew { kind, payload: opened.payload })
    }

    fn draft(&self, path: &Path, stored: Option<&Entry>, known: u64, anew: &Anew) -> Result<Draft, Refused> {
        let stands = stored.and_then(|stored| sequence_of(&stored.value)).unwrap_or(0);
        let sequence = leap(known.max(stands));
        let sealed = self.sealer.seal(path.as_str(), anew.kind, sequence, anew.payload.expose());
        let sealed = sealed.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        if self.stamps.len() < LOGGED {
            let says = if anew.has_ended() { "it has ended" } else { "it stands" };
            tracing::warn!(%path, remembered = known, stands, says, "a record that went back is accepted");
        }
        let tag = if anew.has_ended() { String::new() } else { digest::hex(&sealed.tag) };
        Ok(Draft {
            bytes: sealed.bytes.len(),
            tag: sealed.tag,
            write: Write {
                path: path.clone(),
                expected: stored.map(|stored| stored.revision),
                value: Some(sealed.bytes),
            },
            stamp: RecordStamp { path: path.to_string(), sequence, tag },
        })
    }

    fn push(&mut self, drafts: Vec<Draft>) -> Result<(), StoreError> {
        let bytes: usize = drafts.iter().map(|draft| draft.bytes).sum();
        if self.writes.len() + drafts.len() > WRITES || self.bytes + bytes > BYTES {
            self.commit()?;
        }
        self.bytes += bytes;
        for Draft { write, stamp, .. } in drafts {
            self.writes.push(write);
            self.stamps.push(stamp);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        match std::mem::take(&mut self.writes) {
            writes if writes.is_empty() => Ok(()),
            writes => self.store.commit(&writes).map(drop),
        }
    }
}
