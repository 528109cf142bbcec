//! The connections to each node, and who has one: the board says where a request goes, and a slot stands for its turn there.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::backoff::{Backoff, random};
use crate::board::{Board, Tried};

/// The nodes with what is kept for each.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    state: Mutex<State<C>>,
    freed: Condvar,
}

#[derive(Debug)]
struct State<C> {
    board: Board,
    /// For each node, no more than it takes requests.
    idle: Vec<Vec<C>>,
}

/// How a node did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answered.
    Well,
    /// It answered that it cannot serve.
    Troubled,
    /// It did not answer, or not as it should.
    Lost,
    /// Nothing is known of it.
    Unknown,
}

impl<C> Pool<C> {
    /// Makes a pool of nodes that take `capacity` requests each.
    pub(crate) fn new(nodes: usize, capacity: usize, backoff: Backoff) -> Arc<Self> {
        let board = Board::new(nodes, capacity.max(1), backoff);
        let idle = std::iter::repeat_with(Vec::new).take(nodes).collect();
        Arc::new(Self { state: Mutex::new(State { board, idle }), freed: Condvar::new() })
    }

    /// Chooses a node, waits for a turn at it, and adds it to those that were tried; `None` where there was none until the deadline.
    pub(crate) fn take(self: &Arc<Self>, tried: &mut Tried, deadline: Instant) -> Option<Slot<C>> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            let random = if state.board.len() > 1 { random() } else { 0 };
            if let Some(node) = state.board.choose(*tried, now, random) {
                tried.add(node);
                let is_trial = state.board.begin(node, now);
                let connection = state.idle[node].pop();
                return Some(Slot { pool: Arc::clone(self), node, began: now, is_trial, connection });
            }
            if now >= deadline {
                return None;
            }
            let until = state.board.next_ready(now).map_or(deadline, |ready| ready.min(deadline));
            let _late = self.freed.wait_until(&mut state, until);
        }
    }

    /// Tells whether there is a node that the request was not sent to, and that does not rest.
    pub(crate) fn has_fresh(&self, tried: Tried) -> bool {
        self.state.lock().board.has_fresh(tried, Instant::now())
    }
}

/// A turn at a node; it ends whatever happens.
#[derive(Debug)]
pub(crate) struct Slot<C> {
    pool: Arc<Pool<C>>,
    node: usize,
    began: Instant,
    is_trial: bool,
    /// A connection that was kept, and is kept again where it is still here at the end.
    pub(crate) connection: Option<C>,
}

impl<C> Slot<C> {
    /// Returns the place of the node among the addresses.
    pub(crate) fn node(&self) -> usize {
        self.node
    }

    /// Tells how the node did.
    pub(crate) fn report(&mut self, health: Health) {
        let mut state = self.pool.state.lock();
        match health {
            Health::Unknown => {}
            Health::Well => {
                state.board.answered(self.node);
                // What fails later took no longer than since now, and is no trial.
                (self.began, self.is_trial) = (Instant::now(), false);
            }
            Health::Troubled | Health::Lost => {
                state.board.failed(self.node, self.began, Instant::now(), random());
                // Connections that are kept have ended with it, or will not show that they have.
                if health == Health::Lost {
                    state.idle[self.node].clear();
                }
                // Who waits may have to go elsewhere.
                self.pool.freed.notify_all();
            }
        }
    }

    /// Tells whether a connection that stays had better be at another node.
    pub(crate) fn should_leave(&self) -> bool {
        self.pool.state.lock().board.should_leave(self.node, Instant::now())
    }
}

impl<C> Drop for Slot<C> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.board.end(self.node, self.is_trial);
        if let Some(connection) = self.connection.take() {
            state.idle[self.node].push(connection);
        }
        self.pool.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pool(nodes: usize, capacity: usize) -> Arc<Pool<u32>> {
        Pool::new(
            nodes,
            capacity,
            Backoff { first: Duration::from_millis(1), last: Duration::from_millis(2) },
        )
    }

    fn take(pool: &Arc<Pool<u32>>) -> Option<Slot<u32>> {
        pool.take(&mut Tried::default(), Instant::now())
    }

    #[test]
    fn a_connection_is_kept_for_the_next_turn_and_not_beyond_a_loss() {
        let pool = pool(1, 1);
        let mut slot = take(&pool).unwrap();
        assert!(take(&pool).is_none(), "its only turn is taken");
        slot.connection = Some(7);
        drop(slot);
        let slot = take(&pool).unwrap();
        assert_eq!(slot.connection, Some(7));
        drop(slot);
        let mut slot = take(&pool).unwrap();
        slot.connection = None;
        slot.report(Health::Lost);
        drop(slot);
        assert_eq!(take(&pool).unwrap().connection, None);
    }

    #[test]
    fn a_turn_that_ends_wakes_who_waits_for_it() {
        let pool = pool(1, 1);
        let slot = take(&pool).unwrap();
        let waiting = {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || {
                pool.take(&mut Tried::default(), Instant::now() + Duration::from_secs(60)).is_some()
            })
        };
        drop(slot);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn who_waits_goes_to_a_node_whose_rest_ends() {
        let pool = pool(2, 1);
        let mut first = take(&pool).unwrap();
        let second = take(&pool).unwrap();
        first.report(Health::Lost);
        let gone = first.node();
        drop(first);
        let third = pool.take(&mut Tried::default(), Instant::now() + Duration::from_secs(60)).unwrap();
        assert_eq!(third.node(), gone);
        drop(second);
    }
}
