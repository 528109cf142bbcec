//! How an owner takes over what other nodes wrote: in the order of their commits, before whatever else it is asked to do, and each record only where
//! it is newer than the one that is known, and follows it.

use keymill_core::audit::RecordStamp;
use keymill_core::seam::store::Revision;
use keymill_crypto::digest;

use crate::assembly::Tag;
use crate::cluster::{Cluster, Owner, Told, Written};
use crate::keyring::{Ended, Stamp};
use crate::shared::Shared;

/// An owner of records that other nodes write as well.
pub(super) trait Follows {
    const OWNER: Owner;

    /// Takes over what one commit wrote; returns what was taken.
    fn follow(&mut self, commit: Vec<Written>) -> Vec<RecordStamp>;
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
            Told::Current(as_of) => cluster.view.applied(A::OWNER, as_of),
        }
    }
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
    match sequence > known {
        true => News::Newer(Stamp { revision, sequence }),
        false => News::Refused("it is older than the one that is known"),
    }
}

/// Returns what the audit remembers of a record that was taken over; without a tag, of its end.
pub(super) fn seen(path: &str, stamp: Stamp, tag: Option<Tag>) -> RecordStamp {
    let tag = tag.map(|tag| digest::hex(&tag)).unwrap_or_default();
    RecordStamp { path: path.to_owned(), sequence: stamp.sequence, tag }
}

/// What becomes of the row of a path at which nothing stands any more. A mark that nobody can have missed goes in time; whatever goes without one
/// was no node's doing.
pub(super) fn vanished(cluster: &Cluster, path: &str, ended: Option<&mut Ended>) {
    match ended {
        Some(ended) => ended.mark = None,
        None => cluster.reject(path, "it was removed, and no node says that it ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::time::Timestamp;

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
        assert!(matches!(judged(Some(stamp(5, 2)), None, (6, 2)), News::Refused(_)));
        assert!(matches!(judged(None, Some(marked), (9, 3)), News::Refused(_)));
        assert!(matches!(judged(None, Some(Ended::gone(4)), (9, 4)), News::Refused(_)));
        assert_eq!(judged(None, Some(Ended::gone(4)), (9, 5)), News::Newer(stamp(9, 5)));
        // One that came again is known by itself, whatever ended there before.
        assert_eq!(judged(Some(stamp(9, 5)), Some(marked), (9, 5)), News::Known);
    }
}
