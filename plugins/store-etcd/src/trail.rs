//! What this process has seen of the history of the store: its newest commit, and the mark that no other commit has, which each leaves in the key of
//! the newest revision. An etcd that was restored from a snapshot does not hold it, or has another in its place. Whoever finds that out goes no
//! further: what was read before may be of a history that is no more.
//!
//! Of what etcd has compacted it does not say what stood there. The mark of the last commit of this process still stands in its slot then, or one that
//! it has left there since, unless its lease is over.

use std::sync::OnceLock;

use bytes::Bytes;
use keymill_core::seam::store::StoreError;
use parking_lot::Mutex;

use crate::cluster::{Cluster, method};
use crate::error::Fault;
use crate::keys::Keys;
use crate::messages::{KeyValue, RangeRequest, RangeResponse};
use crate::reads::{self, Newest};

/// A commit that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Zero: none.
    commit: i64,
    mark: Bytes,
}

/// The last commit of this process, by the slot that has its mark.
#[derive(Clone)]
struct Own {
    slot: Bytes,
    commit: i64,
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
    own: Option<Own>,
}

impl Trail {
    /// Takes note of a commit.
    pub(crate) fn saw(&self, commit: i64, mark: &Bytes) {
        let newest = &mut self.state.lock().newest;
        if commit > newest.commit {
            *newest = Seen { commit, mark: mark.clone() };
        }
    }

    /// Takes note of a commit that this process has made.
    pub(crate) fn made(&self, commit: i64, mark: &Bytes, slot: &Bytes) {
        self.saw(commit, mark);
        let own = &mut self.state.lock().own;
        if own.as_ref().is_none_or(|own| commit > own.commit) {
            *own = Some(Own { slot: slot.clone(), commit });
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

    /// The same before each try of a commit. `known`: where its slot was left, which the transaction compares: where that is the newest commit of all
    /// that were seen, it says by itself whether the store holds it. Otherwise the store is asked: no time is short enough for it not to have been
    /// restored meanwhile.
    ///
    /// # Errors
    /// `OtherHistory`, and as of any read.
    pub(crate) async fn check_for(&self, known: i64, cluster: &Cluster, keys: &Keys) -> Result<(), Fault> {
        self.check()?;
        if self.state.lock().newest.commit == known {
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
        let seen = self.state.lock().newest.clone();
        let (newest, mark) = reads::newest_and_mark(cluster, keys).await?;
        let found = match &mark {
            // The one that was seen is what stands there, or should be: no history is needed.
            _ if newest.commit <= seen.commit => Found::at(newest.commit, mark.clone()),
            _ => self.read_at(cluster, keys, seen.commit).await?,
        };
        if let Some(why) = lacks(&seen, newest.as_of, &found) {
            let _the_first_is_told = self.lost.set(why);
            self.check()?;
        }
        self.saw(newest.commit, &mark.unwrap_or_default());
        Ok(newest)
    }

    /// Reads the key of the newest revision as it was at a commit.
    async fn read_at(&self, cluster: &Cluster, keys: &Keys, commit: i64) -> Result<Found, Fault> {
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
            Err(Fault::NoSuchRevision) => {
                let own = self.state.lock().own.clone();
                let Some(Own { slot, commit }) = own else { return Ok(Found::Forgotten { own: None }) };
                let stands = reads::key(cluster, slot).await?.map(|kv| kv.mod_revision);
                Ok(Found::Forgotten { own: stands.map(|stands| (commit, stands)) })
            }
            Err(fault) => Err(fault),
        }
    }
}

/// What stands at the revision of a commit that was seen.
enum Found {
    /// The commit that was the newest then, and its mark.
    Commit(Seen),
    /// It was compacted. `own`: the last commit of this process, and which of them its slot was left by; none where it has left none, or where its
    /// lease is over.
    Forgotten { own: Option<(i64, i64)> },
}

impl Found {
    fn at(commit: i64, mark: Option<Bytes>) -> Self {
        Self::Commit(Seen { commit, mark: mark.unwrap_or_default() })
    }
}

/// Tells why a store does not hold a commit that was seen, if it does not. `as_of`: the revision of the whole of etcd.
fn lacks(seen: &Seen, as_of: i64, found: &Found) -> Option<String> {
    let Seen { commit, .. } = seen;
    match found {
        // Nobody else writes there, and later ones only replace it.
        Found::Forgotten { own: Some((last, stands)) } if stands < last => {
            Some(format!("commit {last} was made, and its mark is not where it was left"))
        }
        Found::Forgotten { .. } => None,
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
    fn a_commit_is_held_where_its_mark_stands() {
        let ours = seen(10, "p/3");
        assert!(lacks(&ours, 10, &Found::Commit(seen(10, "p/3"))).is_none());
        assert!(lacks(&Seen::default(), 4, &Found::at(0, None)).is_none(), "nothing was seen");
        for (as_of, found) in
            [(9, seen(8, "p/2")), (99, seen(10, "q/3")), (99, seen(8, "p/2")), (99, seen(0, ""))]
        {
            assert!(lacks(&ours, as_of, &Found::Commit(found)).is_some());
        }
        assert!(lacks(&ours, 9, &Found::Commit(seen(8, "p/2"))).is_some_and(|why| why.contains("is 9")));
    }

    #[test]
    fn one_that_was_compacted_is_held_where_the_own_last_mark_stands_or_is_gone_with_its_lease() {
        let ours = seen(10, "q/3");
        for (own, holds) in [(None, true), (Some((9, 9)), true), (Some((9, 12)), true), (Some((9, 8)), false)]
        {
            assert_eq!(lacks(&ours, 99, &Found::Forgotten { own }).is_none(), holds, "{own:?}");
        }
    }

    #[test]
    fn the_newest_commit_is_kept_and_the_newest_of_this_process() {
        let trail = Trail::default();
        trail.made(8, &"p/2".into(), &"slot/1".into());
        trail.saw(10, &"q/3".into());
        trail.made(9, &"p/3".into(), &"slot/2".into());
        trail.made(7, &"p/1".into(), &"slot/3".into());
        let State { newest, own } = &*trail.state.lock();
        assert_eq!(*newest, seen(10, "q/3"));
        assert!(own.as_ref().is_some_and(|own| (own.commit, &own.slot[..]) == (9, b"slot/2")));
        assert!(trail.check().is_ok());
    }
}
