//! What a connection has in flight, and when it stops reading: 1,024 requests or 64 MiB that are not yet written out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

/// Bytes of requests and answers that a connection may have in flight before it stops reading.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Requests in flight, by id.
#[derive(Default)]
pub(crate) struct Flow {
    in_flight: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
    bytes: usize,
    /// Bytes of requests that are not computed yet.
    uncomputed: usize,
}

impl Flow {
    /// Takes a request of so many bytes in; false where its id is in flight already.
    pub(crate) fn take_in(&mut self, id: u64, bytes: usize) -> bool {
        match self.in_flight.entry(id) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(place) => place.insert(bytes as u32),
        };
        self.bytes += bytes;
        self.uncomputed += bytes;
        true
    }

    /// Notes that a request was computed and has an answer of so many bytes.
    pub(crate) fn computed(&mut self, id: u64, answer: usize) {
        if let Some(bytes) = self.in_flight.get_mut(&id) {
            self.uncomputed -= *bytes as usize;
            *bytes += answer as u32;
            self.bytes += answer;
        }
    }

    /// Lets a request go: its answer was written out.
    pub(crate) fn let_go(&mut self, id: u64) {
        if let Some(bytes) = self.in_flight.remove(&id) {
            self.bytes -= bytes as usize;
        }
    }

    /// Returns the requests in flight.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns bytes of requests and answers in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns bytes of requests that are not computed yet.
    pub(crate) fn uncomputed(&self) -> usize {
        self.uncomputed
    }
}

/// Spreads ids over a table that holds at most 1,024 of them, so that nobody gains by choosing ids.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, id: u64) {
        // SplitMix64's finaliser (Steele, Lea, Flood, 2014).
        let mut z = (self.0 ^ id).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ z >> 31;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_until_the_answer_is_written() {
        let mut flow = Flow::default();
        assert!(flow.take_in(7, 100));
        assert!(!flow.take_in(7, 1), "an id in flight is not taken twice");
        assert_eq!((flow.len(), flow.bytes(), flow.uncomputed()), (1, 100, 100));
    }

    #[test]
    fn an_id_may_come_again_once_it_was_let_go() {
        let mut flow = Flow::default();
        assert!(flow.take_in(7, 100));
        flow.computed(7, 50);
        assert_eq!((flow.bytes(), flow.uncomputed()), (150, 0));
        flow.let_go(7);
        assert_eq!((flow.len(), flow.bytes()), (0, 0));
        assert!(flow.take_in(7, 1));
    }
}
