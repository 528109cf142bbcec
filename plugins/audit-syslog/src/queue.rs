//! The bounded queue between the writers of chains and the one thread that sends. What is taken from it counts until it was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::seam::audit::Beside;
use parking_lot::{Condvar, Mutex};

use crate::NAME;

/// Whole lines of one chain that were appended in one go.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) chain: Arc<str>,
    pub(crate) lines: Arc<[u8]>,
    pub(crate) count: u64,
}

/// The queue, and what there is to count.
pub(crate) struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    /// Bytes and lines that wait, are reserved, or are being sent.
    bytes: usize,
    lines: u64,
    /// Whether what waits is still sent, and nothing after it.
    is_ending: bool,
    /// Whether nothing is sent any more.
    is_over: bool,
    is_connected: bool,
    trouble: Option<String>,
    sent: u64,
    shed: u64,
    reconnects: u64,
}

impl Queue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Keeps room for so many bytes, waiting so long for it; false where there is none. One batch has room in an empty queue, however long.
    pub(crate) fn reserve(&self, bytes: usize, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        while !self.has_room_for(&state, bytes) {
            if self.changed.wait_until(&mut state, deadline).timed_out() && !self.has_room_for(&state, bytes)
            {
                return false;
            }
        }
        state.bytes += bytes;
        true
    }

    fn has_room_for(&self, state: &State, bytes: usize) -> bool {
        state.bytes == 0 || state.bytes + bytes <= self.max_bytes
    }

    /// Tells whether half of it is free, so that it does not stand at the brim.
    pub(crate) fn has_room(&self) -> bool {
        self.state.lock().bytes <= self.max_bytes / 2
    }

    /// Gives room back that nothing came for.
    pub(crate) fn release(&self, bytes: usize) {
        self.state.lock().bytes -= bytes;
        self.changed.notify_all();
    }

    /// Puts lines in, for which room was kept.
    pub(crate) fn push(&self, batch: Batch) {
        let mut state = self.state.lock();
        state.lines += batch.count;
        state.batches.push_back(batch);
        drop(state);
        self.changed.notify_all();
    }

    /// Counts lines that had no room.
    pub(crate) fn count_shed(&self, lines: u64) {
        self.state.lock().shed += lines;
    }

    /// Takes the next lines, waiting for them; `None` at the end.
    pub(crate) fn next(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            match state.batches.pop_front() {
                Some(batch) => return Some(batch),
                None if state.is_ending => return None,
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Counts lines as sent, and gives their room back.
    pub(crate) fn sent(&self, batch: &Batch) {
        let mut state = self.state.lock();
        state.bytes -= batch.lines.len();
        state.lines -= batch.count;
        state.sent += batch.count;
        drop(state);
        self.changed.notify_all();
    }

    /// Says that there is a connection; `is_again` where there was one before.
    pub(crate) fn connected(&self, is_again: bool) {
        let mut state = self.state.lock();
        state.is_connected = true;
        state.trouble = None;
        state.reconnects += u64::from(is_again);
    }

    /// Says that there is none, and why.
    pub(crate) fn disconnected(&self, why: String) {
        let mut state = self.state.lock();
        state.is_connected = false;
        state.trouble = Some(why);
    }

    /// Rests before the next try to connect; false where nothing is sent any more.
    pub(crate) fn rest(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.is_over && !self.changed.wait_until(&mut state, deadline).timed_out() {}
        !state.is_over
    }

    /// Has what waits sent, and waits so long for it; returns how many lines were not.
    pub(crate) fn drain(&self, wait: Duration) -> u64 {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        state.is_ending = true;
        self.changed.notify_all();
        while state.lines > 0 && !self.changed.wait_until(&mut state, deadline).timed_out() {}
        state.is_over = true;
        let left = state.lines;
        drop(state);
        self.changed.notify_all();
        left
    }

    /// Has nothing sent any more.
    pub(crate) fn give_up(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    pub(crate) fn report(&self) -> Beside {
        let state = self.state.lock();
        Beside {
            name: NAME,
            is_connected: state.is_connected,
            trouble: state.trouble.clone(),
            queued_lines: state.lines,
            queued_bytes: state.bytes as u64,
            sent: state.sent,
            shed: state.shed,
            reconnects: state.reconnects,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize) -> Batch {
        Batch { chain: "c".into(), lines: vec![b'x'; bytes].into(), count: 1 }
    }

    #[test]
    fn it_takes_what_fits_and_one_batch_of_any_length_when_empty() {
        let queue = Queue::new(10);
        assert!(queue.reserve(100, Duration::ZERO));
        assert!(!queue.reserve(1, Duration::ZERO));
        queue.release(100);
        assert!(queue.reserve(6, Duration::ZERO) && queue.reserve(4, Duration::ZERO));
        assert!(!queue.reserve(1, Duration::ZERO) && !queue.has_room());
        queue.push(batch(6));
        assert!(!queue.reserve(1, Duration::from_millis(1)), "what waits counts");
        let taken = queue.next().unwrap();
        assert!(!queue.reserve(1, Duration::ZERO), "and so does what is being sent");
        queue.sent(&taken);
        assert!(queue.reserve(6, Duration::ZERO));
        let report = queue.report();
        assert_eq!((report.sent, report.queued_lines, report.queued_bytes), (1, 0, 10));
    }

    #[test]
    fn whoever_waits_for_room_has_it_once_something_was_sent() {
        let queue = Arc::new(Queue::new(10));
        assert!(queue.reserve(10, Duration::ZERO));
        queue.push(batch(10));
        let taken = queue.next().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.reserve(5, Duration::from_secs(20)));
            queue.sent(&taken);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn an_end_waits_for_what_is_left_and_says_how_much_it_was() {
        let queue = Queue::new(10);
        assert!(queue.reserve(5, Duration::ZERO));
        queue.push(batch(5));
        assert_eq!(queue.drain(Duration::from_millis(1)), 1);
        assert!(queue.next().is_none());
        assert_eq!(Queue::new(10).drain(Duration::ZERO), 0);
    }
}
