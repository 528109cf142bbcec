//! How an owner takes over what other nodes wrote: in the order of their commits, before whatever else it is asked to do, and each record only where
//! it is newer than the one that is known, and follows it.

use std::cmp::Ordering;

use keymill_core::audit::RecordStamp;
use keymill_core::error::Result;
use keymill_core::seam::store::{Entry, Revision, Row};
use keymill_core::time::Timestamp;
use keymill_crypto::digest;
use keymill_crypto::record::{sequence_of, tag_of};

use crate::assembly::Tag;
use crate::cluster::{Owner, Told, Written};
use crate::keyring::{Ended, Stamp};
use crate::records;
use crate::scan;
use crate::shared::Shared;

/// An owner of records that other nodes write as well.
pub(super) trait Follows {
    const OWNER: Owner;

    /// Takes over what one commit wrote; returns what was taken.
    fn follow(&mut self, commit: Vec<Written>) -> Vec<RecordStamp>;

    /// Does what could not be done at once.
    fn caught_up(&mut self) {}
}

/// Has an owner take what waits for it.
pub(super) fn catch_up<A: Follows>(owner: &mut A, shared: &Shared) {
    let Some(cluster) = &shared.cluster else { return };
    for told in cluster.line(A::OWNER).take() {
        match told {
            Told::Commit(commit) => {
                let seen = owner.follow(commit);
                cluster.witness(seen);
            }
            Told::Current(as_of) => {
                owner.caught_up();
                cluster.view.applied(A::OWNER, as_of);
            }
        }
    }
}

/// Takes over what stands at a path now, before it comes by itself.
///
/// # Errors
/// What the store says.
pub(super) fn refresh<A: Follows>(owner: &mut A, shared: &Shared, path: &str) -> Result<()> {
    let stored = shared.store.get(&records::prefix(path))?;
    let Some(Entry { value, revision, .. }) = stored else { return Ok(()) };
    let row = Row { path, value: &value, revision };
    let Some(what) = scan::open(&shared.sealer, row) else { return Ok(()) };
    let mark = sequence_of(&value).zip(tag_of(&value));
    let seen = owner.follow(vec![Written { path: path.into(), mark, revision, what: Some(what) }]);
    shared.cluster.iter().for_each(|cluster| cluster.witness(seen.clone()));
    Ok(())
}

macro_rules! catches_up {
    ($actor:ty) => {
        impl actix::Handler<crate::cluster::CatchUp> for $actor {
            type Result = ();

            fn handle(&mut self, _: crate::cluster::CatchUp, _: &mut actix::Context<Self>) {
                let shared = self.shared.clone();
                crate::actor::follow::catch_up(self, &shared);
            }
        }
    };
}
pub(super) use catches_up;

/// A record that somebody wrote, beside what is known of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is to be taken over, at this place.
    Newer(Stamp),
    /// It is what this node wrote, or has taken over already.
    Known,
    /// It is the one that is known, and was written once more: what is to replace it names this place.
    Touched(Stamp),
    /// It is none that may follow what is known.
    Refused(&'static str),
}

/// Judges a record that opened: `before` is what stands at its path as far as is known, or how that ended.
pub(super) fn judge(before: Option<Stamp>, ended: Option<Ended>, revision: Revision, sequence: u64) -> News {
    let ended = before.is_none().then_some(ended).flatten();
    let known_at = before.map(|before| before.revision).or(ended.and_then(|ended| ended.revision()));
    if known_at.is_some_and(|known| known >= revision) {
        return News::Known;
    }
    let known = before.map(|before| before.sequence).or(ended.map(|ended| ended.sequence)).unwrap_or(0);
    match sequence.cmp(&known) {
        Ordering::Greater => News::Newer(Stamp { revision, sequence }),
        // Of each number there is one: no two commits of it succeed.
        Ordering::Equal if before.is_some() => News::Touched(Stamp { revision, sequence }),
        _ => News::Refused("it is older than the one that is known"),
    }
}

/// Returns what the audit remembers of a record that was taken over; without a tag, of its end.
pub(super) fn seen(path: &str, stamp: Stamp, tag: Option<Tag>) -> RecordStamp {
    let tag = tag.map(|tag| digest::hex(&tag)).unwrap_or_default();
    RecordStamp { path: path.to_owned(), sequence: stamp.sequence, tag }
}

/// Takes note that nothing stands at a path any more; tells whether that was no node's doing: a mark that nobody can have missed goes in time, and
/// nothing else goes without one.
pub(super) fn vanished(ended: Option<&mut Ended>) -> bool {
    ended.map(|ended| ended.mark = None).is_none()
}

/// Returns what is known where a record was refused: what takes its place is newer than the last good one, and names what stands there.
pub(super) fn refused(before: Option<Stamp>, ended: Option<Ended>, revision: Option<Revision>) -> Ended {
    let sequence = before.map(|before| before.sequence).or(ended.map(|ended| ended.sequence)).unwrap_or(0);
    let since = Timestamp::from_ms(u64::MAX);
    Ended { sequence, mark: revision.map(|revision| (revision, since)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(revision: u64, sequence: u64) -> Stamp {
        Stamp { revision: Revision(revision), sequence }
    }

    #[test]
    fn what_follows_is_taken_once_and_nothing_that_is_older() {
        let judged = |before, ended, (revision, sequence)| judge(before, ended, Revision(revision), sequence);
        let marked = Ended::marked(stamp(7, 4), Timestamp::from_ms(1));
        assert_eq!(judged(None, None, (3, 1)), News::Newer(stamp(3, 1)));
        assert_eq!(judged(Some(stamp(5, 2)), None, (6, 3)), News::Newer(stamp(6, 3)));
        // Its own write, and one that was read at the start.
        assert_eq!(judged(Some(stamp(5, 2)), None, (5, 2)), News::Known);
        assert_eq!(judged(Some(stamp(5, 2)), None, (4, 1)), News::Known);
        assert_eq!(judged(None, Some(marked), (7, 4)), News::Known);
        // One put back by hand.
        assert_eq!(judged(Some(stamp(5, 2)), None, (6, 2)), News::Touched(stamp(6, 2)));
        assert!(matches!(judged(Some(stamp(5, 2)), None, (6, 1)), News::Refused(_)));
        assert!(matches!(judged(None, Some(marked), (9, 3)), News::Refused(_)));
        assert!(matches!(judged(None, Some(Ended::gone(4)), (9, 4)), News::Refused(_)));
        assert_eq!(judged(None, Some(Ended::gone(4)), (9, 5)), News::Newer(stamp(9, 5)));
        // One that came again is known by itself, whatever ended there before.
        assert_eq!(judged(Some(stamp(9, 5)), Some(marked), (9, 5)), News::Known);
    }
}
