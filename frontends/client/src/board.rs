//! Which node the next request goes to: a pure account of what each has in flight and how it last did.
//!
//! The node with the least in flight is chosen, and chance among those alike. This side knows its own count exactly, so that two
//! choices at random, which are for counts that are out of date, would only be worse. A node that failed rests, longer each time, and
//! is asked meanwhile only where all of them rest; then one request tries it, and the others follow where that is answered.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// The longest rest of a node whose failures take long to show.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The nodes that one request was sent to already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried(u64);

impl Tried {
    pub(crate) fn add(&mut self, node: usize) {
        self.0 |= 1 << node;
    }

    fn holds(self, node: usize) -> bool {
        self.0 & (1 << node) != 0
    }
}

/// All nodes; there are 64 at most.
#[derive(Debug)]
pub(crate) struct Board {
    nodes: Vec<Standing>,
    capacity: usize,
    backoff: Backoff,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    in_flight: usize,
    rest: Option<Rest>,
}

#[derive(Clone, Debug)]
struct Rest {
    since: Instant,
    until: Instant,
    /// Failures in a row before this one.
    failures: u32,
    /// Whether a request is finding out how the node does.
    is_tried: bool,
}

impl Standing {
    /// Tells whether requests may go there without need.
    fn is_ready(&self, now: Instant) -> bool {
        self.rest.as_ref().is_none_or(|rest| now >= rest.until && !rest.is_tried)
    }
}

impl Board {
    /// Makes the account of nodes that take `capacity` requests each.
    pub(crate) fn new(nodes: usize, capacity: usize, backoff: Backoff) -> Self {
        Self { nodes: vec![Standing::default(); nodes], capacity, backoff }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Chooses a node; `None` where all that may be asked have enough to do.
    pub(crate) fn choose(&self, tried: Tried, now: Instant, random: u32) -> Option<usize> {
        let any_ready = self.nodes.iter().any(|node| node.is_ready(now));
        let key = |at: usize| (tried.holds(at), self.nodes[at].in_flight);
        let open = |at: &usize| {
            let node = &self.nodes[*at];
            node.in_flight < self.capacity && (node.is_ready(now) || !any_ready)
        };
        let least = (0..self.nodes.len()).filter(open).map(key).min()?;
        let alike: Vec<usize> = (0..self.nodes.len()).filter(open).filter(|at| key(*at) == least).collect();
        alike.get(random as usize % alike.len()).copied()
    }

    /// Tells whether a node is ready that the request was not sent to.
    pub(crate) fn has_fresh(&self, tried: Tried, now: Instant) -> bool {
        self.nodes.iter().enumerate().any(|(at, node)| !tried.holds(at) && node.is_ready(now))
    }

    /// Returns when the next rest ends.
    pub(crate) fn next_ready(&self, now: Instant) -> Option<Instant> {
        self.nodes
            .iter()
            .filter_map(|node| node.rest.as_ref())
            .map(|rest| rest.until)
            .filter(|at| *at > now)
            .min()
    }

    /// Tells whether a connection that stays for long had better be at another node: its own rests, or another has two less.
    pub(crate) fn should_leave(&self, node: usize, now: Instant) -> bool {
        let own = &self.nodes[node];
        self.nodes.iter().enumerate().any(|(at, other)| {
            at != node && other.is_ready(now) && (own.rest.is_some() || other.in_flight + 1 < own.in_flight)
        })
    }

    /// Takes note of a request that goes to a node; tells whether it is to find out how the node does.
    pub(crate) fn begin(&mut self, node: usize, now: Instant) -> bool {
        let standing = &mut self.nodes[node];
        standing.in_flight += 1;
        match &mut standing.rest {
            Some(rest) if now >= rest.until && !rest.is_tried => {
                rest.is_tried = true;
                true
            }
            _ => false,
        }
    }

    /// Takes note of its end.
    pub(crate) fn end(&mut self, node: usize, is_trial: bool) {
        let standing = &mut self.nodes[node];
        standing.in_flight -= 1;
        if let Some(rest) = &mut standing.rest
            && is_trial
        {
            rest.is_tried = false;
        }
    }

    /// Takes note of an answer: the node is well.
    pub(crate) fn answered(&mut self, node: usize) {
        self.nodes[node].rest = None;
    }

    /// Takes note of a failure of what began at `began`: the node rests. Many that fail together count once.
    pub(crate) fn failed(&mut self, node: usize, began: Instant, now: Instant, random: u32) {
        let standing = &mut self.nodes[node];
        let failures = match &standing.rest {
            Some(rest) if began < rest.since => return,
            Some(rest) => rest.failures.saturating_add(1),
            None => 0,
        };
        // A node that costs a long wait to be found away is tried less often.
        let cost = now.saturating_duration_since(began).saturating_mul(2).min(LONGEST_REST);
        let until = now + self.backoff.wait(failures, random).max(cost);
        standing.rest = Some(Rest { since: now, until, failures, is_tried: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(nodes: usize, capacity: usize) -> (Board, Instant) {
        let backoff = Backoff { first: Duration::from_millis(100), last: Duration::from_secs(2) };
        (Board::new(nodes, capacity, backoff), Instant::now())
    }

    fn tried(nodes: &[usize]) -> Tried {
        let mut tried = Tried::default();
        nodes.iter().for_each(|node| tried.add(*node));
        tried
    }

    const ANY: Tried = Tried(0);

    #[test]
    fn the_least_in_flight_is_chosen_and_chance_among_those_alike() {
        let (mut board, now) = board(3, 2);
        let chosen: Vec<_> = (0..6).map(|random| board.choose(ANY, now, random).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
        board.begin(0, now);
        board.begin(2, now);
        assert_eq!(board.choose(ANY, now, 5), Some(1));
        board.end(2, false);
        assert_eq!([board.choose(ANY, now, 0), board.choose(ANY, now, 1)], [Some(1), Some(2)]);
    }

    #[test]
    fn work_is_spread_evenly_whatever_chance_says() {
        let (mut board, now) = board(3, 100);
        for random in (0..300_u32).map(|at| at.wrapping_mul(2_654_435_761)) {
            let node = board.choose(ANY, now, random).unwrap();
            board.begin(node, now);
        }
        assert!(board.nodes.iter().all(|node| node.in_flight == 100));
        assert_eq!(board.choose(ANY, now, 0), None, "all have enough to do");
    }

    #[test]
    fn a_node_that_failed_rests_longer_each_time_and_is_then_tried_by_one() {
        let (mut board, now) = board(2, 9);
        board.failed(0, now, now, u32::MAX);
        assert!((0..9).all(|random| board.choose(ANY, now, random) == Some(1)));
        assert_eq!(board.next_ready(now), Some(now + Duration::from_millis(100)));
        let later = now + Duration::from_millis(100);
        assert_eq!(board.choose(tried(&[1]), later, 0), Some(0));
        assert!(board.begin(0, later), "the first one tries it");
        assert!((0..9).all(|random| board.choose(ANY, later, random) == Some(1)));
        board.failed(0, later, later, u32::MAX);
        board.end(0, true);
        assert_eq!(board.next_ready(later), Some(later + Duration::from_millis(200)));
        let later = later + Duration::from_millis(200);
        assert!(board.begin(0, later));
        board.answered(0);
        board.end(0, true);
        assert_eq!(board.choose(ANY, later, 0), Some(0), "it has work again");
        assert!(!board.begin(0, later));
    }

    #[test]
    fn a_trial_that_ends_without_a_word_leaves_another_to_try() {
        let (mut board, now) = board(2, 9);
        board.failed(0, now, now, 0);
        let later = now + Duration::from_secs(1);
        assert!(board.begin(0, later));
        board.end(0, true);
        assert!(board.begin(0, later));
    }

    #[test]
    fn failures_of_requests_that_were_under_way_together_count_once() {
        let (mut board, now) = board(2, 9);
        let later = now + Duration::from_millis(1);
        for _ in 0..5 {
            board.failed(0, now, later, u32::MAX);
        }
        assert_eq!(board.next_ready(later), Some(later + Duration::from_millis(100)));
    }

    #[test]
    fn a_failure_that_took_long_to_show_rests_for_twice_as_long_within_bounds() {
        let (mut board, now) = board(2, 9);
        let later = now + Duration::from_secs(5);
        board.failed(0, now, later, 0);
        assert_eq!(board.next_ready(later), Some(later + Duration::from_secs(10)));
        let end = later + Duration::from_secs(3600);
        board.failed(0, later, end, 0);
        assert_eq!(board.next_ready(end), Some(end + LONGEST_REST));
    }

    #[test]
    fn where_all_rest_they_are_asked_none_the_less_those_not_tried_first() {
        let (mut board, now) = board(2, 1);
        board.failed(0, now, now, 0);
        board.failed(1, now, now, 0);
        assert_eq!(board.choose(tried(&[0]), now, 0), Some(1));
        assert!(!board.has_fresh(tried(&[0]), now), "but none of them without a wait");
        board.begin(1, now);
        assert_eq!(board.choose(tried(&[0]), now, 0), Some(0));
    }

    #[test]
    fn a_full_node_is_waited_for_rather_than_one_that_rests() {
        let (mut board, now) = board(2, 1);
        board.failed(0, now, now, 0);
        board.begin(1, now);
        assert_eq!(board.choose(ANY, now, 0), None);
    }

    #[test]
    fn a_connection_leaves_a_node_that_rests_or_has_two_more_than_another() {
        let (mut board, now) = board(2, 9);
        board.begin(0, now);
        assert!(!board.should_leave(0, now));
        board.begin(0, now);
        assert!(board.should_leave(0, now) && !board.should_leave(1, now));
        board.begin(1, now);
        assert!(!board.should_leave(0, now));
        board.failed(0, now, now, 0);
        assert!(board.should_leave(0, now) && !board.should_leave(1, now));
        board.failed(1, now, now, 0);
        assert!(!board.should_leave(0, now), "there is no better place");
    }
}
