//! The nodes that are there, by what each says of itself in a record of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keymill_core::id::NodeName;
use keymill_core::seam::store::{Entry, Revision, Store, StoreError};
use keymill_crypto::record::RecordSealer;
use parking_lot::Mutex;

use crate::load;
use crate::records::{self, Kind, NodeRecord};

/// Nodes that are known of at a time, at most.
const MOST: usize = 1_024;

/// What a node said last.
struct Said {
    record: NodeRecord,
    sequence: u64,
    revision: Revision,
    /// When that came here.
    at: Instant,
}

/// The other nodes of a cluster.
pub(crate) struct Members {
    /// How long a node may say nothing before it counts as gone.
    patience: Duration,
    known: Mutex<Known>,
}

struct Known {
    said: BTreeMap<NodeName, Said>,
    /// Until when all that was said has come here: while the store is not heard of, nobody goes.
    heard: Instant,
}

impl Members {
    pub(crate) fn new(patience: Duration, now: Instant) -> Self {
        Self { patience, known: Mutex::new(Known { said: BTreeMap::new(), heard: now }) }
    }

    /// Takes what a node says of itself. What one process has said before is not taken again.
    pub(crate) fn said(
        &self,
        node: NodeName,
        record: NodeRecord,
        sequence: u64,
        revision: Revision,
        at: Instant,
    ) {
        let said = &mut self.known.lock().said;
        let is_news = said.get(&node).is_none_or(|before| {
            revision > before.revision
                && (before.record.process != record.process || sequence > before.sequence)
        });
        if is_news && (said.len() < MOST || said.contains_key(&node)) {
            said.insert(node, Said { record, sequence, revision, at });
        }
    }

    /// Reads what all others than one have said. What does not open is named once it is written anew.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub(crate) fn read(
        &self,
        store: &dyn Store,
        sealer: &RecordSealer,
        but: &NodeName,
    ) -> Result<(), StoreError> {
        load::each(store, "node/", |Entry { path, value, revision }| {
            let node = records::node_at(path.as_str()).filter(|node| node != but);
            let opened = records::open::<NodeRecord>(sealer, &path, Kind::Node, &value);
            if let (Some(node), Ok((record, sequence, _))) = (node, opened) {
                self.said(node, record, sequence, revision, Instant::now());
            }
        })
    }

    /// Takes that a node has ended.
    pub(crate) fn ended(&self, node: &NodeName) {
        self.known.lock().said.remove(node);
    }

    /// Takes that everything has come here that was said before a moment.
    pub(crate) fn heard(&self, as_of: Instant) {
        let heard = &mut self.known.lock().heard;
        *heard = as_of.max(*heard);
    }

    /// Returns what each of those says that are there and do not drain.
    pub(crate) fn there<T>(&self, each: impl Fn(&NodeRecord) -> T) -> Vec<T> {
        let known = self.known.lock();
        let is_there = |said: &&Said| known.has_patience(said, self.patience) && !said.record.drains;
        known.said.values().filter(is_there).map(|said| each(&said.record)).collect()
    }

    /// Lists those of which something holds, whether they are there or not, with the commit that wrote what they said last.
    pub(crate) fn list(&self, holds: impl Fn(&NodeRecord) -> bool) -> Vec<(NodeName, Revision, NodeRecord)> {
        let known = self.known.lock();
        let listed = known.said.iter().filter(|(_, said)| holds(&said.record));
        listed.map(|(node, said)| (node.clone(), said.revision, said.record.clone())).collect()
    }

    /// Lists those that went without a word, with the commit that wrote what they said last.
    pub(crate) fn gone(&self) -> Vec<(NodeName, Revision)> {
        let known = self.known.lock();
        let is_gone = |said: &Said| !known.has_patience(said, self.patience);
        let gone = known.said.iter().filter(|(_, said)| is_gone(said));
        gone.map(|(node, said)| (node.clone(), said.revision)).collect()
    }
}

impl Known {
    fn has_patience(&self, said: &Said, patience: Duration) -> bool {
        self.heard.saturating_duration_since(said.at) <= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Formats;
    use keymill_core::time::Timestamp;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn record(process: &str, asked: u64) -> NodeRecord {
        NodeRecord {
            process: process.into(),
            software: "0".into(),
            formats: Formats::OURS,
            started_at: Timestamp::from_ms(0),
            drains: false,
            asked: [asked, 0, 0],
            requests_per_s: 0,
            callers: Vec::new(),
        }
    }

    fn asked(members: &Members) -> Vec<u64> {
        members.there(|record| record.asked[0])
    }

    #[test]
    fn a_node_is_there_while_it_says_something_and_does_not_drain() {
        let began = Instant::now();
        let members = Members::new(S(10), began);
        members.said(node("a"), record("p", 1), 1, Revision(1), began);
        members.said(node("b"), record("q", 2), 1, Revision(2), began);
        assert_eq!(asked(&members), [1, 2]);
        members.said(node("b"), record("q", 3), 2, Revision(3), began + S(5));
        members.heard(began + S(11));
        assert_eq!((asked(&members), members.gone()), (vec![3], vec![(node("a"), Revision(1))]));
        members.said(node("a"), record("p", 4), 2, Revision(4), began + S(11));
        let drains = NodeRecord { drains: true, ..record("q", 3) };
        members.said(node("b"), drains, 3, Revision(5), began + S(11));
        assert_eq!((asked(&members), members.gone()), (vec![4], vec![]));
        members.ended(&node("a"));
        assert!(asked(&members).is_empty());
    }

    #[test]
    fn nobody_goes_while_the_store_is_not_heard_of() {
        let began = Instant::now();
        let members = Members::new(S(10), began);
        members.said(node("a"), record("p", 1), 1, Revision(1), began);
        members.heard(began + S(9));
        // The wire is cut for an hour; what came meanwhile comes before the store is current.
        assert_eq!(asked(&members), [1]);
        members.said(node("a"), record("p", 5), 700, Revision(900), began + S(3_600));
        members.heard(began + S(3_600));
        assert_eq!(asked(&members), [5]);
    }

    #[test]
    fn what_was_said_before_is_not_taken_again_and_a_new_process_begins_anew() {
        let began = Instant::now();
        let members = Members::new(S(10), began);
        members.said(node("a"), record("p", 7), 7, Revision(7), began);
        members.said(node("a"), record("p", 6), 6, Revision(8), began);
        members.said(node("a"), record("p", 5), 9, Revision(6), began);
        assert_eq!(asked(&members), [7]);
        members.said(node("a"), record("q", 1), 1, Revision(9), began);
        assert_eq!(asked(&members), [1]);
    }
}
