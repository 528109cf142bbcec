//! What is read: one record, and pages of many as of one revision. Every read is linearizable: it shows all that was committed before it
//! began, by whichever node.

use bytes::Bytes;
use keymill_core::seam::store::{Entry, Path, Revision, StoreError};

use crate::cluster::{Cluster, PAGE_BYTES, method};
use crate::error::Fault;
use crate::keys::{Keys, Span};
use crate::messages::{KeyValue, RangeRequest, RangeResponse};

/// Records of the first page; later ones are as large as what came before allows.
const FIRST_ROWS: i64 = 64;
const MAX_ROWS: i64 = 4_000;

/// What was read of the key of the newest revision.
pub(crate) struct Newest {
    /// The newest commit; zero where there was none.
    pub(crate) commit: i64,
    /// The revision of the whole of etcd then: no commit of ours is between the two.
    pub(crate) as_of: i64,
}

/// Reads one key, or nothing.
pub(crate) async fn key(cluster: &Cluster, key: Bytes) -> Result<Option<KeyValue>, Fault> {
    let request = RangeRequest { key, ..RangeRequest::default() };
    let answer: RangeResponse = cluster.read(method::RANGE, request).await?;
    Ok(answer.kvs.into_iter().next())
}

/// Reads which commit is the newest, and the mark that it left.
pub(crate) async fn newest_and_mark(
    cluster: &Cluster,
    keys: &Keys,
) -> Result<(Newest, Option<Bytes>), Fault> {
    let request = RangeRequest { key: keys.newest(), ..RangeRequest::default() };
    let answer: RangeResponse = cluster.read(method::RANGE, request).await?;
    let as_of = answer.header.map_or(0, |header| header.revision);
    let found = answer.kvs.into_iter().next();
    let commit = found.as_ref().map_or(0, |kv| kv.mod_revision);
    Ok((Newest { commit, as_of }, found.map(|kv| kv.value)))
}

/// Checks that what follows a revision is still known: that it is neither compacted nor yet to come.
pub(crate) async fn check_known(cluster: &Cluster, keys: &Keys, revision: i64) -> Result<(), Fault> {
    // Zero would be the newest, and nothing is written at one.
    let request = RangeRequest {
        key: keys.newest(),
        revision: revision.max(1),
        keys_only: true,
        ..RangeRequest::default()
    };
    let _: RangeResponse = cluster.read(method::RANGE, request).await?;
    Ok(())
}

/// Where the reading of many records stands.
pub(crate) struct Pages {
    rest: Span,
    /// Zero: that of the first page.
    revision: i64,
    rows: i64,
    /// Records that are still wanted.
    wanted: usize,
    pub(crate) is_done: bool,
}

impl Pages {
    pub(crate) fn of(span: Span, wanted: usize) -> Self {
        Self { rest: span, revision: 0, rows: FIRST_ROWS, wanted, is_done: wanted == 0 }
    }

    /// Reads the next page, as of the revision of the first.
    pub(crate) async fn next(&mut self, cluster: &Cluster) -> Result<Vec<KeyValue>, Fault> {
        loop {
            let limit = self.rows.min(i64::try_from(self.wanted).unwrap_or(i64::MAX));
            let request = RangeRequest {
                key: self.rest.from.clone(),
                range_end: self.rest.end.clone(),
                limit,
                revision: self.revision,
                keys_only: false,
            };
            let answer: RangeResponse = match cluster.read(method::RANGE, request).await {
                Err(Fault::LargeAnswer) if limit > 1 => {
                    self.rows = (limit / 8).max(1);
                    continue;
                }
                answer => answer?,
            };
            if self.revision == 0 {
                self.revision = answer.header.map_or(0, |header| header.revision);
            }
            self.wanted -= answer.kvs.len().min(self.wanted);
            self.is_done = !answer.more || self.wanted == 0 || answer.kvs.is_empty();
            if let Some(last) = answer.kvs.last() {
                self.rest.from = [&last.key[..], b"\0"].concat().into();
            }
            self.rows = rows_after(&answer.kvs);
            return Ok(answer.kvs);
        }
    }
}

/// Returns how many records the next page may have, by the largest of the last.
fn rows_after(kvs: &[KeyValue]) -> i64 {
    let largest = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).max().unwrap_or(0);
    let rows = PAGE_BYTES / largest.max(1);
    i64::try_from(rows).unwrap_or(i64::MAX).clamp(1, MAX_ROWS)
}

/// Reads up to `wanted` records of a span, as of one moment.
pub(crate) async fn list(
    cluster: &Cluster,
    keys: &Keys,
    span: Span,
    wanted: usize,
) -> Result<Vec<Entry>, StoreError> {
    // Somebody may compact what is read from, once; not each time.
    for is_last in [false, false, true] {
        let (mut pages, mut entries) = (Pages::of(span.clone(), wanted), Vec::new());
        let failed = loop {
            if pages.is_done {
                return Ok(entries);
            }
            match pages.next(cluster).await {
                Ok(kvs) => entries.extend(kvs.into_iter().filter_map(|kv| entry(keys, &kv))),
                Err(fault) => break fault,
            }
        };
        if is_last || !matches!(failed, Fault::NoSuchRevision) {
            return Err(failed.into_store_error());
        }
    }
    Err(StoreError::Compacted)
}

/// Takes a record; `None` where somebody else wrote it and its key is no path.
pub(crate) fn entry(keys: &Keys, kv: &KeyValue) -> Option<Entry> {
    let path = Path::new(keys.path_of(&kv.key)?).ok()?;
    Some(Entry { path, value: kv.value.to_vec(), revision: revision(kv.mod_revision) })
}

/// Takes a revision of etcd, which is never negative.
pub(crate) fn revision(of: i64) -> Revision {
    Revision(of.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_large_as_the_largest_record_allows() {
        let of = |bytes| KeyValue { value: vec![0; bytes].into(), ..KeyValue::default() };
        assert_eq!(rows_after(&[]), MAX_ROWS);
        assert_eq!(rows_after(&[of(10), of(300)]), MAX_ROWS);
        assert_eq!(rows_after(&[of(10), of(1 << 20)]), 4);
        assert_eq!(rows_after(&[of(64 << 20)]), 1);
    }
}
