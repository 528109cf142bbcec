//! How much keys were used on other nodes, as each of them has written it.

use std::collections::HashMap;

use keymill_core::id::CmkId;
use parking_lot::RwLock;

use super::Uses;
use crate::records::UsageRecord;

/// What nodes have counted of one key, by their names.
type OfKey = Vec<(Box<str>, UsageRecord)>;

/// The counts of other nodes, by key and by node.
#[derive(Default)]
pub struct Elsewhere(RwLock<HashMap<CmkId, OfKey>>);

impl Elsewhere {
    /// Takes what a node has written.
    pub(crate) fn put(&self, id: CmkId, node: &str, counts: UsageRecord) {
        let mut all = self.0.write();
        let of_key = all.entry(id).or_default();
        match of_key.iter_mut().find(|(name, _)| **name == *node) {
            Some((_, known)) => *known = counts,
            None => of_key.push((node.into(), counts)),
        }
    }

    /// Forgets a key.
    pub(crate) fn remove(&self, id: &CmkId) {
        if !self.0.read().is_empty() {
            self.0.write().remove(id);
        }
    }

    /// Returns how much a version was used on other nodes, in all.
    pub fn of(&self, id: &CmkId, number: u32) -> Uses {
        let all = self.0.read();
        let rows = all.get(id).into_iter().flatten().flat_map(|(_, UsageRecord(rows))| rows);
        rows.filter(|row| row.0 == number).fold(Uses::default(), |sum, row| {
            sum.with(Uses { encrypted: row.1, decrypted: row.2, last_ms: row.3 })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_node_is_added_up() {
        let elsewhere = Elsewhere::default();
        let id = CmkId::from_bytes([1; 16]);
        elsewhere.put(id, "a", UsageRecord(vec![(1, 1, 1, 5), (2, 9, 9, 9)]));
        elsewhere.put(id, "b", UsageRecord(vec![(1, 10, 20, 3)]));
        elsewhere.put(id, "a", UsageRecord(vec![(1, 2, 3, 7)]));
        assert_eq!(elsewhere.of(&id, 1), Uses { encrypted: 12, decrypted: 23, last_ms: 7 });
        assert_eq!(elsewhere.of(&id, 2), Uses::default());
        elsewhere.remove(&id);
        assert_eq!(elsewhere.of(&id, 1), Uses::default());
    }
}
