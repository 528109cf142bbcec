//! What this process has seen of the history of the store: its newest commit, and the mark that no other commit has, which each leaves in the key of
//! the newest revision. An etcd that was restored from a snapshot does not hold it, or has another in its place. Whoever finds that out goes no
//! further: what was read before may be of a history that is no more.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use keymill_core::seam::store::StoreError;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{Cluster, method};
use crate::error::Fault;
use crate::keys::Keys;
use crate::messages::{KeyValue, RangeRequest, RangeResponse};
use crate::reads::Newest;

/// For how long it counts that the store was found to hold what was seen: no etcd is stopped, restored and started within that.
const FRESH: Duration = Duration::from_millis(800);

/// A commit that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Zero: none.
    commit: i64,
    mark: Bytes,
}

/// What this process has seen, and whether the store did not hold it.
#[derive(Default)]
pub(crate) struct Trail {
    state: Mutex<State>,
    lost: OnceLock<String>,
}

#[derive(Default)]
struct State {
    newest: Seen,
    /// As of when the store held it.
    held: Option<Instant>,
}

impl Trail {
    /// Takes note of a commit.
    pub(crate) fn saw(&self, commit: i64, mark: &Bytes) {
        let newest = &mut self.state.lock().newest;
        if commit > newest.commit {
            *newest = Seen { commit, mark: mark.clone() };
        }
    }

    /// Checks that the store was never found not to hold what was seen.
    ///
    /// # Errors
    /// `OtherHistory`.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let refused = |why: &String| Err(Fault::Refused(StoreError::OtherHistory(why.clone())));
        self.lost.get().map_or(Ok(()), refused)
    }

    /// The same before a commit: where that was not found out of late, the store is asked.
    ///
    /// # Errors
    /// `OtherHistory`, and as of any read.
    pub(crate) async fn check_fresh(&self, cluster: &Cluster, keys: &Keys) -> Result<(), Fault> {
        self.check()?;
        if self.state.lock().held.is_some_and(|held| held.elapsed() < FRESH) {
            return Ok(());
        }
        self.newest(cluster, keys).await.map(drop)
    }

    /// Reads which commit is the newest, and takes note of it, where the store holds what was seen.
    ///
    /// # Errors
    /// `OtherHistory`, and as of any read.
    pub(crate) async fn newest(&self, cluster: &Cluster, keys: &Keys) -> Result<Newest, Fault> {
        self.check()?;
        let (seen, asked) = (self.state.lock().newest.clone(), Instant::now());
        let (newest, mark) = crate::reads::newest_and_mark(cluster, keys).await?;
        let found = match &mark {
            // The one that was seen is what stands there, or should be: no history is needed.
            _ if newest.commit <= seen.commit => Found::at(newest.commit, mark.clone()),
            _ => read_at(cluster, keys, seen.commit).await?,
        };
        if let Some(why) = lacks(&seen, newest.as_of, &found) {
            let _the_first_is_told = self.lost.set(why);
            self.check()?;
        }
        self.saw(newest.commit, &mark.unwrap_or_default());
        self.state.lock().held = Some(asked);
        Ok(newest)
    }
}

/// What stands at the revision of a commit that was seen.
enum Found {
    /// The commit that was the newest then, and its mark.
    Commit(Seen),
    /// It was compacted.
    Forgotten,
}

impl Found {
    fn at(commit: i64, mark: Option<Bytes>) -> Self {
        Self::Commit(Seen { commit, mark: mark.unwrap_or_default() })
    }
}

/// Reads the key of the newest revision as it was at a commit.
async fn read_at(cluster: &Cluster, keys: &Keys, commit: i64) -> Result<Found, Fault> {
    if commit == 0 {
        return Ok(Found::at(0, None));
    }
    let request = RangeRequest { key: keys.newest(), revision: commit, ..RangeRequest::default() };
    match cluster.read::<_, RangeResponse>(method::RANGE, request).await {
        Ok(answer) => Ok(match answer.kvs.into_iter().next() {
            Some(KeyValue { mod_revision, value, .. }) => Found::at(mod_revision, Some(value)),
            None => Found::at(0, None),
        }),
        // A later commit was read before: this one is past.
        Err(Fault::NoSuchRevision) => Ok(Found::Forgotten),
        Err(fault) => Err(fault),
    }
}

/// Tells why a store does not hold a commit that was seen, if it does not; of one that it has compacted that is not known. `as_of`: the revision of
/// the whole of etcd.
fn lacks(seen: &Seen, as_of: i64, found: &Found) -> Option<String> {
    let Seen { commit, .. } = seen;
    match found {
        Found::Forgotten => None,
        Found::Commit(found) if found == seen => None,
        Found::Commit(_) if as_of < *commit => {
            Some(format!("commit {commit} was seen, and its newest revision is {as_of}"))
        }
        Found::Commit(_) => Some(format!("commit {commit} was seen, and does not stand there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(commit: i64, mark: &'static str) -> Seen {
        Seen { commit, mark: mark.into() }
    }

    #[test]
    fn a_commit_is_held_where_its_mark_stands_or_was_compacted() {
        let ours = seen(10, "p/3");
        assert!(lacks(&ours, 10, &Found::Commit(seen(10, "p/3"))).is_none());
        assert!(lacks(&ours, 99, &Found::Forgotten).is_none());
        assert!(lacks(&Seen::default(), 4, &Found::at(0, None)).is_none(), "nothing was seen");
        for (as_of, found) in
            [(9, seen(8, "p/2")), (99, seen(10, "q/3")), (99, seen(8, "p/2")), (99, seen(0, ""))]
        {
            assert!(lacks(&ours, as_of, &Found::Commit(found)).is_some());
        }
        assert!(lacks(&ours, 9, &Found::Commit(seen(8, "p/2"))).is_some_and(|why| why.contains("is 9")));
    }

    #[test]
    fn the_newest_commit_is_kept() {
        let trail = Trail::default();
        trail.saw(10, &"p/3".into());
        trail.saw(9, &"p/2".into());
        assert_eq!(trail.state.lock().newest, seen(10, "p/3"));
        assert!(trail.check().is_ok());
    }
}
