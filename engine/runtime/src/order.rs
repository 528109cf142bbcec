//! Keys in the order of their creation: a page of a list is found by its number, whatever the number.

use keymill_core::id::CmkId;
use keymill_core::time::Timestamp;

/// Ids in the order of their creation; those of one moment by themselves.
#[derive(Default)]
pub(crate) struct Order(Vec<(Timestamp, CmkId)>);

impl Order {
    /// Makes the order of about `count` keys.
    pub(crate) fn of(count: usize, places: impl Iterator<Item = (Timestamp, CmkId)>) -> Self {
        let mut sorted = Vec::with_capacity(count);
        sorted.extend(places);
        sorted.sort_unstable();
        Self(sorted)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a key; mostly it is the newest.
    pub(crate) fn insert(&mut self, created_at: Timestamp, id: CmkId) {
        if let Err(at) = self.0.binary_search(&(created_at, id)) {
            self.0.insert(at, (created_at, id));
        }
    }

    pub(crate) fn remove(&mut self, created_at: Timestamp, id: &CmkId) {
        if let Ok(at) = self.0.binary_search(&(created_at, *id)) {
            self.0.remove(at);
        }
    }

    /// Returns where keys stand, in order.
    pub(crate) fn find(&self, keys: Vec<(Timestamp, CmkId)>) -> Vec<usize> {
        let mut found: Vec<_> = keys.iter().filter_map(|key| self.0.binary_search(key).ok()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns `most` ids from `skip` on, as if those at the places `hidden`, in order, were not there.
    pub(crate) fn page(&self, hidden: &[usize], skip: usize, most: usize) -> Vec<CmkId> {
        // Each that is hidden before the first row moves it on by one.
        let mut before = 0;
        while hidden.get(before).is_some_and(|place| *place <= skip.saturating_add(before)) {
            before += 1;
        }
        let mut hidden = hidden[before..].iter().copied().peekable();
        let rows = self.0.iter().enumerate().skip(skip.saturating_add(before));
        let rows = rows.filter(|(place, _)| hidden.next_if_eq(place).is_none());
        rows.map(|(_, (_, id))| *id).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> (Timestamp, CmkId) {
        // Two at a time.
        (Timestamp::from_ms(u64::from(n) / 2), CmkId::from_bytes([n; 16]))
    }

    fn order(keys: impl IntoIterator<Item = u8>) -> Order {
        let mut order = Order::default();
        for (created_at, id) in keys.into_iter().map(key) {
            order.insert(created_at, id);
        }
        order
    }

    fn ids(order: &Order, hidden: &[usize], skip: usize, most: usize) -> Vec<u8> {
        order.page(hidden, skip, most).iter().map(|id| id.as_bytes()[0]).collect()
    }

    #[test]
    fn keys_stand_by_their_age_however_they_came_and_none_twice() {
        let all: Vec<u8> = (0..9).collect();
        let came = [4, 2, 8, 0, 1, 2, 7, 6, 3, 5];
        assert_eq!(ids(&order(came), &[], 0, 100), all);
        let at_once = Order::of(9, [4, 2, 8, 0, 1, 7, 6, 3, 5].into_iter().map(key));
        assert_eq!(ids(&at_once, &[], 0, 100), all);
    }

    #[test]
    fn a_key_that_goes_leaves_the_others_where_they_are() {
        let mut order = order(0..6);
        for gone in [3, 0, 3, 5] {
            let (created_at, id) = key(gone);
            order.remove(created_at, &id);
        }
        assert_eq!((ids(&order, &[], 0, 9), order.len()), (vec![1, 2, 4], 3));
    }

    #[test]
    fn pages_of_what_is_not_hidden_are_those_of_a_list_without_it() {
        let all = order(0..12);
        // Every choice of what is hidden.
        for mask in 0..1u32 << 12 {
            let keys = (0..12).rev().filter(|n| mask >> n & 1 == 1).map(key).collect();
            let hidden = all.find(keys);
            let rest: Vec<u8> = (0..12).filter(|n| mask >> n & 1 == 0).collect();
            for (skip, most) in [(0, 100), (0, 1), (1, 3), (3, 2), (11, 5), (12, 1), (usize::MAX, 1)] {
                let expected: Vec<u8> = rest.iter().copied().skip(skip).take(most).collect();
                assert_eq!(ids(&all, &hidden, skip, most), expected, "{mask:b} from {skip}");
            }
        }
    }

    #[test]
    fn who_is_not_there_is_not_found() {
        let order = order([1, 2, 5]);
        assert_eq!(order.find(vec![key(5), key(3), key(1), key(5)]), [0, 2]);
    }
}
