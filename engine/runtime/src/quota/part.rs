//! What a node that is one of several has of a quota. Of the instance's, and of the quotas of callers that came to their limits here or elsewhere,
//! that changes with what each node is asked for; all other callers have an even part of theirs on each node.

use std::sync::atomic::{AtomicU64, Ordering};

use keymill_core::access::Caller;
use keymill_core::quota::{Quota, Rate, Taken};
use parking_lot::Mutex;

/// Places of callers that came to their limits. Of two that have the same place one keeps to its even part.
const PLACES: usize = 64;

/// Thousandths of a unit a second, of requests, items and bytes; nothing where there is no limit.
pub(crate) type Rates = [Option<u64>; 3];

/// Lists the rates of a quota.
fn rates(quota: &Quota) -> [Option<Rate>; 3] {
    [quota.requests, quota.items, quota.bytes]
}

/// Returns what a quota gives on all nodes together.
pub(super) fn limits(quota: &Quota) -> Rates {
    rates(quota).map(|rate| rate.map(Rate::milli_per_second))
}

/// What this node has of the rates of a quota, and what it is asked for.
#[derive(Default)]
pub(super) struct NodePart {
    /// Ticks that a unit takes here; 0: as of the whole rate.
    each: [AtomicU64; 3],
    /// Units that were asked for so far, also those that were over.
    asked: [AtomicU64; 3],
}

impl NodePart {
    /// Returns what of a quota is in force here, and counts what is asked of it.
    pub(super) fn of(&self, quota: &Quota, taken: Taken) -> Quota {
        for ((rate, units), asked) in quota.asked(taken).into_iter().zip(&self.asked) {
            if rate.is_some() {
                asked.fetch_add(units, Ordering::Relaxed);
            }
        }
        let part = |rate: Option<Rate>, at: usize| Some(rate?.part(self.each[at].load(Ordering::Relaxed)));
        Quota { requests: part(quota.requests, 0), items: part(quota.items, 1), bytes: part(quota.bytes, 2) }
    }

    /// Returns what this node has under another quota, before all nodes have agreed on that: of each rate the share that it had of the one before,
    /// and of one that there was not before an even part.
    pub(super) fn under(&self, before: &Quota, after: &Quota, nodes: u64) -> Self {
        let nodes = nodes.max(1);
        let share = |at: usize| match rates(before)[at] {
            Some(rate) => {
                let part = rate.part(self.each[at].load(Ordering::Relaxed));
                (part.milli_per_second(), rate.milli_per_second())
            }
            None => (1, nodes),
        };
        let after = rates(after);
        let each = |at: usize| match (after[at], share(at)) {
            // Of the whole, as long as nobody said anything else.
            (None, _) => 0,
            (Some(_), (part, whole)) if part >= whole => 0,
            (Some(rate), (part, whole)) => {
                let milli = u128::from(rate.milli_per_second()) * u128::from(part) / u128::from(whole.max(1));
                rate.each_at(milli as u64)
            }
        };
        let asked = self.asked().map(AtomicU64::new);
        Self { each: std::array::from_fn(|at| AtomicU64::new(each(at))), asked }
    }

    /// Returns the units that were asked for so far.
    pub(super) fn asked(&self) -> [u64; 3] {
        self.asked.each_ref().map(|asked| asked.load(Ordering::Relaxed))
    }

    /// Has so much of each rate be in force here.
    pub(super) fn set(&self, quota: &Quota, parts: Rates) {
        for ((rate, milli), each) in rates(quota).into_iter().zip(parts).zip(&self.each) {
            if let Some((rate, milli)) = rate.zip(milli) {
                each.store(rate.each_at(milli), Ordering::Relaxed);
            }
        }
    }
}

/// The place of a caller that came to its limit.
#[derive(Default)]
struct Place {
    /// The caller's hash; 0: nobody's.
    of: AtomicU64,
    part: NodePart,
    who: Mutex<Option<Caller>>,
}

/// What this node has of the quotas of callers.
pub(super) struct CallerParts {
    /// Nodes that are there.
    nodes: AtomicU64,
    places: Box<[Place]>,
}

impl Default for CallerParts {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| Place::default()).collect();
        Self { nodes: AtomicU64::new(1), places }
    }
}

impl CallerParts {
    fn place(&self, tag: u64) -> &Place {
        &self.places[tag as usize % PLACES]
    }

    /// Returns what is in force here of a caller's quota.
    pub(super) fn of(&self, tag: u64, quota: &Quota, taken: Taken) -> Quota {
        let place = self.place(tag);
        if place.of.load(Ordering::Acquire) == tag {
            return place.part.of(quota, taken);
        }
        let nodes = self.nodes.load(Ordering::Relaxed);
        let part = |rate: Option<Rate>| Some(rate?.nth(nodes));
        Quota { requests: part(quota.requests), items: part(quota.items), bytes: part(quota.bytes) }
    }

    /// Gives a caller a place of its own, where that is free: from here on it is counted what it asks for.
    pub(super) fn watch(&self, tag: u64, caller: &Caller, quota: &Quota) {
        let place = self.place(tag);
        let nodes = self.nodes.load(Ordering::Relaxed).max(1);
        if nodes == 1 || place.of.load(Ordering::Relaxed) != 0 {
            return;
        }
        // Whoever has it locked gives it to somebody.
        let Some(mut who) = place.who.try_lock().filter(|who| who.is_none()) else { return };
        place.part.set(quota, limits(quota).map(|limit| limit.map(|milli| milli / nodes)));
        place.part.asked.iter().for_each(|asked| asked.store(0, Ordering::Relaxed));
        *who = Some(caller.clone());
        place.of.store(tag, Ordering::Release);
    }

    /// Lists the callers that have a place, with what they asked for so far.
    pub(super) fn watched(&self) -> Vec<(Caller, [u64; 3])> {
        let of = |place: &Place| Some((place.who.lock().clone()?, place.part.asked()));
        self.places.iter().filter_map(of).collect()
    }

    /// Has so much of a caller's quota be in force here, where it has a place; without parts it has none from here on.
    pub(super) fn set(&self, tag: u64, quota: &Quota, parts: Option<Rates>) {
        let place = self.place(tag);
        if place.of.load(Ordering::Acquire) != tag {
            return;
        }
        match parts {
            Some(parts) => place.part.set(quota, parts),
            None => {
                let mut who = place.who.lock();
                place.of.store(0, Ordering::Release);
                *who = None;
            }
        }
    }

    pub(super) fn set_nodes(&self, nodes: usize) {
        self.nodes.store(nodes as u64, Ordering::Relaxed);
    }
}
