//! What a store holds: read page by page in the order of the paths, and one digest over all of it.

use aws_lc_rs::digest::{Context, SHA256};
use keymill_core::seam::store::{Entry, Page, Path, Store};
use keymill_crypto::digest::hex;

use super::copy::{Side, Step, Trouble};
use super::target::marker_path;

/// Records of a page.
const PAGE: usize = 500;

/// Reads all records but the marker, in the order of their paths.
pub(super) struct Pages<'a> {
    store: &'a dyn Store,
    side: Side,
    page: std::iter::Peekable<std::vec::IntoIter<Entry>>,
    after: Option<Path>,
    is_last: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn of(store: &'a dyn Store, side: Side) -> Self {
        Self { store, side, page: Vec::new().into_iter().peekable(), after: None, is_last: false }
    }

    /// Shows the next record.
    pub(super) fn peek(&mut self) -> Result<Option<&Entry>, Trouble> {
        while self.page.peek().is_none() && !self.is_last {
            let page = Page { after: self.after.as_ref(), limit: PAGE };
            let mut entries =
                self.store.list(&Path::all(), page).map_err(|e| Trouble::Store(self.side, e))?;
            // A page may lack what is no path any more: only one of nothing is the last.
            self.is_last = entries.is_empty();
            self.after = entries.last().map(|entry| entry.path.clone());
            let marker = marker_path();
            entries.retain(|entry| entry.path != marker);
            self.page = entries.into_iter().peekable();
        }
        Ok(self.page.peek())
    }

    /// Returns the next record.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Trouble> {
        self.peek()?;
        Ok(self.page.next())
    }
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) records: u64,
    /// Of paths and values.
    pub(super) bytes: u64,
    /// Over each path and value, in the order of the paths, each behind its length.
    pub(super) sha256: String,
}

impl Holdings {
    /// Reads all of it.
    pub(super) fn of(
        store: &dyn Store,
        side: Side,
        step: &mut dyn FnMut(Step<'_>) -> bool,
    ) -> Result<Self, Trouble> {
        let (mut pages, mut digest) = (Pages::of(store, side), Context::new(&SHA256));
        let (mut records, mut bytes) = (0, 0);
        while let Some(Entry { path, value, .. }) = pages.next()? {
            for part in [path.as_str().as_bytes(), &value[..]] {
                digest.update(&(part.len() as u64).to_be_bytes());
                digest.update(part);
                bytes += part.len() as u64;
            }
            records += 1;
            if !step(Step::Verified { side, records }) {
                return Err(Trouble::Interrupted);
            }
        }
        Ok(Self { records, bytes, sha256: hex(digest.finish().as_ref()) })
    }
}
