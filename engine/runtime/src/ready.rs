//! Who is next: deficit round robin (Shreedhar and Varghese, 1996) between principals, so that a bulk load cannot starve a
//! single call. Pure: it holds values and counts, and knows no clock.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Instant;

use keymill_core::id::NameMap;

/// Work that can be taken in parts.
pub trait Divisible {
    /// Returns how many items a part that costs about `budget` holds, at least one, and what it costs.
    fn part(&self, budget: u64) -> Part;

    /// Tells since when it is there, of work that may be shed for the sake of other: it is over its quota, and nothing of it was done.
    fn sheddable_since(&self) -> Option<Instant> {
        None
    }
}

/// A part of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Items of the job, from where it stands.
    pub items: usize,
    /// Estimated cost in nanoseconds.
    pub cost: u64,
    /// Whether the job is done with it.
    pub last: bool,
}

struct Flow<T> {
    jobs: VecDeque<T>,
    deficit: u64,
    weight: u64,
    /// Whether its principal stands in the ring: never twice.
    stands: bool,
    /// How many of its jobs may be shed.
    sheddable: usize,
}

impl<T: Divisible> Flow<T> {
    fn of(jobs: VecDeque<T>, weight: u64, stands: bool) -> Self {
        let sheddable = jobs.iter().filter(|job| job.sheddable_since().is_some()).count();
        Self { jobs, deficit: 0, weight, stands, sheddable }
    }
}

/// Jobs that wait, by principal. A principal stands in the ring while it has jobs, but for the time that an unfinished one of them
/// is in the hands of who took it.
pub struct ReadyQueue<K, T> {
    flows: NameMap<K, Flow<T>>,
    ring: VecDeque<K>,
    /// Whose unfinished jobs the last taker has; by the next take they are put back, or were done early.
    in_hand: Vec<K>,
    quantum: u64,
    len: usize,
    /// How many jobs may be shed.
    sheddable: usize,
}

impl<K: Clone + Eq + Hash, T: Divisible> ReadyQueue<K, T> {
    /// Makes an empty queue that gives each principal about `quantum` nanoseconds of work in turn.
    pub fn new(quantum: u64) -> Self {
        Self {
            flows: NameMap::default(),
            ring: VecDeque::new(),
            in_hand: Vec::new(),
            quantum,
            len: 0,
            sheddable: 0,
        }
    }

    /// Has principals get so much in each turn that begins from now on.
    pub fn set_quantum(&mut self, quantum: u64) {
        self.quantum = quantum.max(1);
    }

    /// Returns the number of jobs that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tells whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a job of `principal` behind its others.
    pub fn push(&mut self, principal: &K, weight: u64, job: T) {
        self.len += 1;
        let sheddable = usize::from(job.sheddable_since().is_some());
        self.sheddable += sheddable;
        if let Some(flow) = self.flows.get_mut(principal) {
            // It stands in the ring already, or will once its job in hand is put back.
            flow.weight = weight;
            flow.sheddable += sheddable;
            flow.jobs.push_back(job);
        } else {
            self.ring.push_back(principal.clone());
            self.flows.insert(principal.clone(), Flow::of(VecDeque::from([job]), weight, true));
        }
    }

    /// Takes back the newest of the jobs that may be shed, where there is one.
    pub fn shed_newest(&mut self) -> Option<T> {
        if self.sheddable == 0 {
            return None;
        }
        let newest_of = |(principal, flow): (&K, &Flow<T>)| {
            let (at, since) = flow
                .jobs
                .iter()
                .enumerate()
                .rev()
                .find_map(|(at, job)| Some((at, job.sheddable_since()?)))?;
            Some((since, principal.clone(), at))
        };
        let flows = self.flows.iter().filter(|(_, flow)| flow.sheddable > 0);
        let (_, principal, at) = flows.filter_map(newest_of).max_by_key(|(since, ..)| *since)?;
        let flow = self.flows.get_mut(&principal)?;
        // A flow that has none left goes when its turn comes.
        let job = flow.jobs.remove(at)?;
        flow.sheddable -= 1;
        self.sheddable -= 1;
        self.len -= 1;
        Some(job)
    }

    /// Puts a job that is not finished back before its principal's others.
    pub fn put_back(&mut self, principal: &K, weight: u64, job: T) {
        self.len += 1;
        let flow =
            self.flows.entry(principal.clone()).or_insert_with(|| Flow::of(VecDeque::new(), weight, false));
        let sheddable = usize::from(job.sheddable_since().is_some());
        flow.sheddable += sheddable;
        self.sheddable += sheddable;
        // Who has something left of its turn goes on with it; who has not waits for the next.
        if std::mem::replace(&mut flow.stands, true) {
            // A job that was done and has to be done again: its principal did not leave the ring.
        } else if flow.deficit > 0 {
            self.ring.push_front(principal.clone());
        } else {
            self.ring.push_back(principal.clone());
        }
        flow.jobs.push_front(job);
    }

    /// Takes parts of jobs worth about `budget`, fairly; a job comes out whole, with the part of it to do now.
    pub fn take(&mut self, budget: u64, out: &mut Vec<(T, Part)>) {
        let mut left = budget;
        self.settle();
        // Whose job is in hand and unfinished, and where it stands in `out`: in the next round it is this job that grows.
        let mut in_hand: VecDeque<(K, usize)> = VecDeque::new();
        while left > 0 {
            let Some(principal) = self.ring.pop_front() else { break };
            let is_alone = self.ring.is_empty() && in_hand.is_empty();
            let flow = self.flows.get_mut(&principal).expect("who stands in the ring has a flow");
            flow.stands = false;
            if flow.deficit == 0 {
                flow.deficit = self.quantum * flow.weight;
            }
            if is_alone {
                // Nobody is there to be fair to.
                flow.deficit = flow.deficit.max(left);
            }
            let mut unfinished = false;
            while left > 0 && flow.deficit > 0 && !unfinished {
                let Some(job) = flow.jobs.pop_front() else { break };
                let sheddable = usize::from(job.sheddable_since().is_some());
                flow.sheddable -= sheddable;
                self.sheddable -= sheddable;
                let part = job.part(flow.deficit.min(left));
                flow.deficit = flow.deficit.saturating_sub(part.cost);
                left = left.saturating_sub(part.cost);
                self.len -= 1;
                unfinished = !part.last;
                out.push((job, part));
            }
            // A turn that the budget cut short is gone on with in the next slice; otherwise a turn is over.
            let cut_short = left == 0 && flow.deficit > 0;
            if !cut_short {
                flow.deficit = 0;
            }
            if unfinished {
                in_hand.push_back((principal, out.len() - 1));
            } else if flow.jobs.is_empty() {
                // An idle flow saves nothing up.
                self.flows.remove(&principal);
            } else if cut_short {
                flow.stands = true;
                self.ring.push_front(principal);
            } else {
                flow.stands = true;
                self.ring.push_back(principal);
            }
        }
        let mut full = Vec::new();
        while left > 0 {
            let Some((principal, at)) = in_hand.pop_front() else { break };
            let flow = self.flows.get_mut(&principal).expect("who has a job in hand has a flow");
            let (job, part) = &mut out[at];
            flow.deficit = self.quantum * flow.weight;
            let more = job.part(part.cost + flow.deficit.min(left));
            if more.items == part.items {
                // What it may still have holds none of its items: it goes on in the next slice, before others where the budget ended its turn.
                if left >= flow.deficit {
                    flow.deficit = 0;
                }
                full.push(principal);
                continue;
            }
            let cost = more.cost.saturating_sub(part.cost).max(1);
            left = left.saturating_sub(cost);
            flow.deficit = if left == 0 { flow.deficit.saturating_sub(cost) } else { 0 };
            *part = more;
            if !more.last {
                in_hand.push_back((principal, at));
            } else if flow.jobs.is_empty() {
                self.flows.remove(&principal);
            } else {
                flow.stands = true;
                self.ring.push_back(principal);
            }
        }
        self.in_hand.extend(in_hand.into_iter().map(|(principal, _)| principal).chain(full));
    }

    /// Lets those go on whose job in hand did not come back: it expired or was called off, and was answered at once.
    fn settle(&mut self) {
        for principal in self.in_hand.drain(..) {
            let Some(flow) = self.flows.get_mut(&principal) else { continue };
            if flow.stands {
                continue;
            }
            if flow.jobs.is_empty() {
                self.flows.remove(&principal);
            } else {
                flow.stands = true;
                self.ring.push_back(principal);
            }
        }
    }

    /// Takes everything, for a shutdown or a drain.
    pub fn drain(&mut self) -> Vec<T> {
        self.ring.clear();
        self.in_hand.clear();
        (self.len, self.sheddable) = (0, 0);
        self.flows.drain().flat_map(|(_, flow)| flow.jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Debug)]
    struct Bulk {
        who: &'static str,
        items: usize,
    }

    impl Divisible for Bulk {
        fn part(&self, budget: u64) -> Part {
            let items = (budget as usize / 100).clamp(1, self.items);
            Part { items, cost: items as u64 * 100, last: items == self.items }
        }
    }

    fn serve(queue: &mut ReadyQueue<&'static str, Bulk>, budget: u64) -> HashMap<&'static str, usize> {
        let mut parts = Vec::new();
        queue.take(budget, &mut parts);
        let mut served = HashMap::new();
        for (mut job, part) in parts {
            *served.entry(job.who).or_default() += part.items;
            job.items -= part.items;
            if job.items > 0 {
                let who = job.who;
                queue.put_back(&who, 1, job);
            }
        }
        served
    }

    #[test]
    fn a_job_that_ends_while_in_hand_does_not_hold_up_its_principals_others() {
        let mut queue = ReadyQueue::new(1_000);
        queue.push(&"a", 1, Bulk { who: "a", items: 1_000 });
        queue.push(&"a", 1, Bulk { who: "a", items: 1 });
        let mut parts = Vec::new();
        queue.take(500, &mut parts);
        assert!(matches!(&parts[..], [(_, part)] if !part.last));
        // Expired: it is never put back.
        parts.clear();
        assert_eq!(serve(&mut queue, 500)["a"], 1);
        assert!(queue.is_empty());
        queue.push(&"a", 1, Bulk { who: "a", items: 1_000 });
        queue.take(500, &mut parts);
        parts.clear();
        queue.push(&"a", 1, Bulk { who: "a", items: 2 });
        assert_eq!(serve(&mut queue, 500)["a"], 2, "nor those that come later");
    }

    #[test]
    fn a_job_that_is_done_and_put_back_again_gives_its_principal_no_second_place() {
        let mut queue = ReadyQueue::new(1_000);
        for items in [1, 1, 50] {
            queue.push(&"a", 1, Bulk { who: "a", items });
        }
        let mut parts = Vec::new();
        queue.take(150, &mut parts);
        let redone: Vec<Bulk> = parts.drain(..).map(|(job, _)| job).collect();
        for job in redone.into_iter().rev() {
            queue.put_back(&"a", 1, job);
        }
        let mut served = 0;
        while !queue.is_empty() {
            served += serve(&mut queue, 300)["a"];
        }
        assert_eq!(served, 52);
    }

    #[test]
    fn a_single_call_passes_a_bulk_load_within_one_round() {
        let mut queue = ReadyQueue::new(2_500);
        queue.push(&"bulk", 1, Bulk { who: "bulk", items: 1_000_000 });
        serve(&mut queue, 10_000);
        queue.push(&"single", 1, Bulk { who: "single", items: 1 });
        let served = serve(&mut queue, 10_000);
        assert_eq!(served.get("single"), Some(&1));
        assert!(served["bulk"] >= 70, "the rest of the slice is not wasted: {served:?}");
    }

    /// Items that cost 700 each, and how often they were counted.
    struct Coarse<'c>(usize, &'c std::cell::Cell<usize>);

    impl Divisible for Coarse<'_> {
        fn part(&self, budget: u64) -> Part {
            self.1.set(self.1.get() + 1);
            let items = (budget as usize / 700).clamp(1, self.0);
            Part { items, cost: items as u64 * 700, last: items == self.0 }
        }
    }

    #[test]
    fn what_is_left_of_a_slice_and_holds_no_item_is_not_looked_at_again_and_again() {
        let counted = std::cell::Cell::new(0);
        // Who is alone has the slice, whatever a turn is; two have an item each where a turn holds none.
        for (quantum, callers, items) in [(2_500, 1, 14), (500, 1, 14), (2_500, 2, 14), (500, 2, 2)] {
            let mut queue = ReadyQueue::new(quantum);
            (0..callers).for_each(|caller| queue.push(&caller, 1, Coarse(1_000, &counted)));
            counted.set(0);
            let mut parts = Vec::new();
            queue.take(10_000, &mut parts);
            assert!(counted.get() < 10, "{} times", counted.get());
            assert_eq!(parts.len(), callers, "quantum {quantum}");
            let taken: usize = parts.iter().map(|(_, part)| part.items).sum();
            assert_eq!(taken, items, "quantum {quantum}, {callers} callers");
            for (caller, (mut job, part)) in parts.drain(..).enumerate().rev() {
                // And it goes on.
                job.0 -= part.items;
                queue.put_back(&caller, 1, job);
            }
            queue.take(10_000, &mut parts);
            assert!(parts[0].1.items >= 1);
        }
    }

    #[test]
    fn equals_get_equal_shares_and_weights_count() {
        let mut queue = ReadyQueue::new(2_500);
        for (who, weight) in [("a", 1), ("b", 1), ("c", 3)] {
            queue.push(&who, weight, Bulk { who, items: 1_000_000 });
        }
        let mut total: HashMap<&str, usize> = HashMap::new();
        for _ in 0..1_000 {
            let mut parts = Vec::new();
            queue.take(10_000, &mut parts);
            for (mut job, part) in parts {
                *total.entry(job.who).or_default() += part.items;
                job.items -= part.items;
                let (who, weight) = (job.who, if job.who == "c" { 3 } else { 1 });
                queue.put_back(&who, weight, job);
            }
        }
        let (a, b, c) = (total["a"] as f64, total["b"] as f64, total["c"] as f64);
        assert!((a / b - 1.0).abs() < 0.05 && (c / a - 3.0).abs() < 0.2, "{total:?}");
    }

    /// A job that is over its quota since then, or is not.
    struct Extra(&'static str, Option<Instant>);

    impl Divisible for Extra {
        fn part(&self, _budget: u64) -> Part {
            Part { items: 1, cost: 100, last: true }
        }

        fn sheddable_since(&self) -> Option<Instant> {
            self.1
        }
    }

    #[test]
    fn what_is_over_its_quota_is_shed_newest_first_and_nothing_else_ever() {
        let mut queue = ReadyQueue::new(2_500);
        let at = |s| Some(Instant::now() + std::time::Duration::from_secs(s));
        for (who, name, since) in [
            ("a", "a1", at(10)),
            ("b", "b1", at(30)),
            ("a", "a2", at(40)),
            ("a", "a3", None),
            ("c", "c1", None),
            ("b", "b2", at(20)),
        ] {
            queue.push(&who, 1, Extra(name, since));
        }
        // b's order is not that of its times: its last one goes before.
        let shed: Vec<_> = std::iter::from_fn(|| queue.shed_newest()).map(|job| job.0).collect();
        assert_eq!(shed, ["a2", "b2", "b1", "a1"]);
        assert_eq!(queue.len(), 2);
        let mut parts = Vec::new();
        queue.take(10_000, &mut parts);
        let left: Vec<_> = parts.drain(..).map(|(job, _)| job.0).collect();
        assert_eq!((left, queue.is_empty()), (vec!["a3", "c1"], true));
        queue.push(&"b", 1, Extra("b3", None));
        queue.take(10_000, &mut parts);
        assert_eq!(parts.len(), 1, "one whose jobs were all shed comes back as any other");
    }

    #[test]
    fn what_was_taken_is_shed_no_more_and_what_is_put_back_is() {
        let mut queue = ReadyQueue::new(2_500);
        queue.push(&"a", 1, Extra("a1", Some(Instant::now())));
        let mut parts = Vec::new();
        queue.take(100, &mut parts);
        assert!(queue.shed_newest().is_none());
        queue.put_back(&"a", 1, parts.pop().unwrap().0);
        assert_eq!(queue.shed_newest().map(|job| job.0), Some("a1"));
        assert!(queue.shed_newest().is_none() && queue.is_empty());
        queue.push(&"a", 1, Extra("a2", Some(Instant::now())));
        assert_eq!(queue.drain().len(), 1);
        assert!(queue.shed_newest().is_none(), "nor what was drained");
    }

    #[test]
    fn nothing_is_lost_and_order_within_a_principal_is_kept() {
        let mut queue = ReadyQueue::new(2_500);
        for n in 1..=50 {
            queue.push(&"a", 1, Bulk { who: "a", items: n });
        }
        let mut parts = Vec::new();
        while !queue.is_empty() {
            queue.take(10_000, &mut parts);
        }
        assert_eq!(parts.iter().map(|(job, _)| job.items).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    }
}
