//! Starts instances beside all else: those whose keys derive by tokens of their own, which may hang, and those that did not start, as where such a
//! token was away. Each has a thread until it runs, so that one which hangs keeps no other from starting, and a pause between its tries that grows
//! up to a bound. There are no more of them than instances.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::id::InstanceId;
use parking_lot::{Condvar, Mutex};

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How long the end waits for what is being started; what takes longer may hang, and is left behind.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Whether one that was tried is to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It runs, or does not start until somebody has acted.
    Settled,
    /// What it waits for may come back.
    Again,
}

/// Starts instances beside all else.
#[derive(Default)]
pub(crate) struct Starter {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that are to be started, each of which has a thread; and whether it was wanted since the try that is under way began.
    wanted: BTreeMap<InstanceId, bool>,
    is_over: bool,
}

impl Starter {
    /// Has an instance tried until it is settled. Whoever wants it may have done what it waits for: it is tried at once, and once more where a try is
    /// under way.
    pub(crate) fn want(self: &Arc<Self>, id: &InstanceId, attempt: impl Fn() -> Tried + Send + 'static) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        let has_thread = state.wanted.insert(id.clone(), true).is_some();
        self.changed.notify_all();
        if has_thread {
            return;
        }
        let (starter, of) = (self.clone(), id.clone());
        let thread = std::thread::Builder::new().name("km-starter".into());
        if let Err(error) = thread.spawn(move || starter.run(&of, attempt)) {
            state.wanted.remove(id);
            tracing::error!(instance = %id, %error, "there is no thread to start an instance");
        }
    }

    /// Starts nothing any more. What is being started is waited for, but no longer than for a moment.
    pub(crate) fn end(&self) {
        let until = Instant::now() + ENDS_WITHIN;
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        self.changed.notify_all();
        while !state.wanted.is_empty() && !self.changed.wait_until(&mut state, until).timed_out() {}
        for id in state.wanted.keys() {
            tracing::warn!(instance = %id, "the start of an instance takes long, and is left behind");
        }
    }

    fn run(&self, id: &InstanceId, attempt: impl Fn() -> Tried) {
        let mut pause = PAUSES.0;
        while self.begins(id) {
            // Nothing is tried again of what panicked.
            let tried = catch_unwind(AssertUnwindSafe(&attempt)).unwrap_or(Tried::Settled);
            if !self.goes_on(id, tried, pause) {
                return;
            }
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    /// Tells whether there is to be another try.
    fn begins(&self, id: &InstanceId) -> bool {
        let mut state = self.state.lock();
        if state.is_over {
            self.forget(&mut state, id);
            return false;
        }
        state.wanted.insert(id.clone(), false);
        true
    }

    /// Rests for so long, unless it is wanted at once; tells whether it goes on at all.
    fn goes_on(&self, id: &InstanceId, tried: Tried, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        let is_wanted = |state: &State| state.is_over || state.wanted.get(id) == Some(&true);
        if tried == Tried::Settled && !is_wanted(&state) {
            self.forget(&mut state, id);
            return false;
        }
        while !is_wanted(&state) && !self.changed.wait_until(&mut state, until).timed_out() {}
        true
    }

    /// Under the lock, so that whoever wants it again finds its thread gone.
    fn forget(&self, state: &mut State, id: &InstanceId) {
        state.wanted.remove(id);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    /// An attempt that says that it began, and ends as it is told to.
    fn told() -> (impl Fn() -> Tried + Send + 'static, flume::Receiver<()>, flume::Sender<Tried>) {
        let (begun, begins) = flume::unbounded();
        let (tell, told) = flume::unbounded();
        let attempt = move || {
            begun.send(()).unwrap();
            told.recv().unwrap()
        };
        (attempt, begins, tell)
    }

    #[test]
    fn one_that_hangs_keeps_neither_another_from_starting_nor_the_end_from_coming() {
        let starter = Arc::<Starter>::default();
        let ((hangs, begun, go_on), (attempt, begun_too, go_on_too)) = (told(), told());
        starter.want(&id("kst-1"), hangs);
        begun.recv_timeout(LONG).unwrap();
        starter.want(&id("kst-2"), attempt);
        begun_too.recv_timeout(LONG).unwrap();
        go_on_too.send(Tried::Settled).unwrap();
        starter.end();
        assert_eq!(starter.state.lock().wanted.keys().collect::<Vec<_>>(), [&id("kst-1")], "it hangs on");
        // It is not tried again when it returns, and nor is any other from now on.
        go_on.send(Tried::Again).unwrap();
        assert!(begun.recv_timeout(LONG).is_err(), "its thread has ended");
        let (attempt, begun, _) = told();
        starter.want(&id("kst-3"), attempt);
        assert!(begun.recv_timeout(LONG).is_err(), "nobody has it");
    }

    #[test]
    fn what_is_wanted_while_a_try_is_under_way_is_tried_once_more() {
        let starter = Arc::<Starter>::default();
        let (attempt, begun, go_on) = told();
        starter.want(&id("kst-1"), attempt);
        begun.recv_timeout(LONG).unwrap();
        // An operator mends what this try has met already.
        starter.want(&id("kst-1"), || Tried::Settled);
        go_on.send(Tried::Settled).unwrap();
        begun.recv_timeout(LONG).unwrap();
        go_on.send(Tried::Settled).unwrap();
        assert!(begun.recv_timeout(LONG).is_err(), "it is settled");
    }

    #[test]
    fn one_whose_token_is_away_is_tried_until_it_runs() {
        let starter = Arc::<Starter>::default();
        let (attempt, begun, go_on) = told();
        starter.want(&id("kst-1"), attempt);
        for tried in [Tried::Again, Tried::Again, Tried::Settled] {
            begun.recv_timeout(LONG).unwrap();
            go_on.send(tried).unwrap();
        }
        assert!(begun.recv_timeout(LONG).is_err() && starter.state.lock().wanted.is_empty());
    }
}
