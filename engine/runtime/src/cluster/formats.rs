//! Which record formats nodes read and write while some of them run other software. Today there is one format, and nothing to choose; what is here
//! sees to it that the next one can come without a stop of all nodes.

use std::time::Instant;

use keymill_core::id::NodeName;
use keymill_core::seam::store::{Revision, Store};
use keymill_crypto::record::RecordSealer;

use super::Cluster;
use super::member::AGAIN;
use crate::engine::EngineError;
use crate::records::{Formats, NodeRecord};

/// Returns the newest format that all nodes read: in it records are written.
pub(crate) fn writable(ours: Formats, others: impl IntoIterator<Item = Formats>) -> u16 {
    others.into_iter().fold(ours.newest, |least, formats| least.min(formats.newest))
}

/// Tells whether two nodes can use one store: there is a format that both read.
fn overlap(one: Formats, other: Formats) -> bool {
    one.oldest <= other.newest && other.oldest <= one.newest
}

/// Checks that this node can use the store beside those that run on it. What one has left that went without a word is waited out.
///
/// # Errors
/// Names a node with which it cannot.
pub(crate) fn check(
    cluster: &Cluster,
    store: &dyn Store,
    sealer: &RecordSealer,
    ours: Formats,
) -> Result<(), EngineError> {
    let began = Instant::now();
    let at_first = cluster.members.list(|record| !overlap(ours, record.formats));
    while !at_first.is_empty() && began.elapsed() <= cluster.patience() {
        cluster.members.read(store, sealer, &cluster.node)?;
        let now = cluster.members.list(|record| !overlap(ours, record.formats));
        if let Some((node, _, record)) = now.iter().find(|now| is_alive(now, &at_first)) {
            let Formats { oldest, newest } = record.formats;
            return Err(EngineError::new(format!(
                "node {node} (keymill {}) reads record formats {oldest} to {newest}, and this software {} to {}: start one that reads a format of \
                 both, or stop that node first",
                record.software, ours.oldest, ours.newest
            )));
        }
        std::thread::sleep(AGAIN);
    }
    Ok(())
}

/// A node, the commit of what it said last, and that.
type Spoken = (NodeName, Revision, NodeRecord);

/// Tells whether a node has said something since others were listed.
fn is_alive((node, revision, _): &Spoken, before: &[Spoken]) -> bool {
    before.iter().all(|(other, known, _)| other != node || known < revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(oldest: u16, newest: u16) -> Formats {
        Formats { oldest, newest }
    }

    #[test]
    fn written_is_the_newest_that_all_read() {
        assert_eq!(writable(formats(1, 3), []), 3);
        assert_eq!(writable(formats(1, 3), [formats(2, 4), formats(1, 2)]), 2);
        assert_eq!(writable(formats(1, 1), [formats(1, 9)]), 1);
    }

    #[test]
    fn two_that_read_no_format_of_each_other_cannot_use_one_store() {
        for (one, other, can) in [
            (formats(1, 1), formats(1, 1), true),
            (formats(1, 2), formats(2, 3), true),
            (formats(1, 9), formats(3, 4), true),
            (formats(1, 1), formats(2, 3), false),
        ] {
            assert_eq!((overlap(one, other), overlap(other, one)), (can, can), "{one:?} {other:?}");
        }
    }
}
