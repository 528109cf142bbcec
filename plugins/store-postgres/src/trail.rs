//! What this process has seen of the history of the store: its newest commit, by the id that no other has. A server that took over without all that
//! was acknowledged, or that was put back to an earlier time, does not hold it, or has another in its place. Whoever finds that out goes no further:
//! what was read before may be of a history that is no more.

use std::sync::OnceLock;

use keymill_core::seam::store::StoreError;
use parking_lot::Mutex;
use tokio_postgres::{Error, Row};

/// The newest revision, the id of the commit that this process has seen last, the oldest that is kept, and the id of the newest.
pub(crate) const HELD: &str = "SELECT s.revision, seen.id, (SELECT min(revision) FROM commits), newest.id
    FROM state s LEFT JOIN commits seen ON seen.revision = $1 LEFT JOIN commits newest ON newest.revision = s.revision";

/// A commit that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Zero: none.
    pub(crate) revision: i64,
    pub(crate) id: Vec<u8>,
}

/// What a server says of a commit that was seen.
pub(crate) struct Said {
    /// Its newest revision.
    pub(crate) newest: i64,
    /// The oldest revision whose id it keeps.
    pub(crate) oldest: Option<i64>,
    /// The id at the revision that was asked for.
    pub(crate) id: Option<Vec<u8>>,
}

impl Said {
    /// Reads a row of [`HELD`].
    pub(crate) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self { newest: row.try_get(0)?, id: row.try_get(1)?, oldest: row.try_get(2)? })
    }

    /// Tells whether it holds the commit; where it no longer keeps an id of that age, it is not known not to.
    pub(crate) fn holds(&self, seen: &Seen) -> bool {
        match &self.id {
            _ if seen.revision == 0 => true,
            _ if self.newest < seen.revision => false,
            Some(id) => *id == seen.id,
            None => self.oldest.is_none_or(|oldest| oldest > seen.revision),
        }
    }
}

/// What this process has seen, and whether a server did not hold it.
#[derive(Default)]
pub(crate) struct Trail {
    newest: Mutex<Seen>,
    lost: OnceLock<String>,
}

impl Trail {
    /// Takes note of a commit.
    pub(crate) fn saw(&self, revision: i64, id: &[u8]) {
        let mut newest = self.newest.lock();
        if revision > newest.revision {
            *newest = Seen { revision, id: id.to_owned() };
        }
    }

    /// Returns the newest commit that was seen: what a server is asked for must be known before it is asked.
    pub(crate) fn newest(&self) -> Seen {
        self.newest.lock().clone()
    }

    /// Judges what a server said over a connection that was made to ask it: one that was kept may lead to a server that another took the place of.
    ///
    /// # Errors
    /// `OtherHistory` where it does not hold what was seen, then and from then on.
    pub(crate) fn judge(&self, seen: &Seen, said: &Said) -> Result<(), StoreError> {
        if !said.holds(seen) {
            let Seen { revision, .. } = seen;
            let newest = said.newest;
            let _the_first_is_told = self.lost.set(match newest < *revision {
                true => format!("commit {revision} was seen, and its newest is {newest}"),
                false => format!("commit {revision} was seen, and another stands in its place"),
            });
        }
        self.check()
    }

    /// Checks that no server was found not to hold what was seen.
    ///
    /// # Errors
    /// `OtherHistory`.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.lost.get().map_or(Ok(()), |why| Err(StoreError::OtherHistory(why.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(newest: i64, oldest: i64, id: Option<u8>) -> Said {
        Said { newest, oldest: Some(oldest), id: id.map(|id| vec![id]) }
    }

    #[test]
    fn a_commit_is_held_where_its_id_stands_or_is_too_old_to_be_kept() {
        let seen = Seen { revision: 10, id: vec![7] };
        for (said, holds) in [
            (said(10, 1, Some(7)), true),
            (said(99, 10, Some(7)), true),
            (said(9, 1, None), false),
            (said(10, 1, Some(8)), false),
            (said(99, 11, None), true),
            (said(99, 10, None), false),
        ] {
            assert_eq!(said.holds(&seen), holds);
        }
        assert!(said(0, 1, None).holds(&Seen::default()), "nothing was seen");
    }

    #[test]
    fn what_was_found_out_once_stays() {
        let trail = Trail::default();
        trail.saw(10, &[7]);
        trail.saw(9, &[6]);
        let seen = trail.newest();
        assert_eq!(seen.revision, 10);
        trail.judge(&seen, &said(12, 1, Some(7))).unwrap();
        assert!(matches!(trail.judge(&seen, &said(12, 1, Some(8))), Err(StoreError::OtherHistory(_))));
        assert!(matches!(trail.judge(&seen, &said(12, 1, Some(7))), Err(StoreError::OtherHistory(_))));
    }
}
