//! A slot: what one session thread is doing, where whoever watches over it can see. A call into a module can hang for minutes and cannot
//! be called off; its thread is then given up, what it held goes elsewhere, and whatever it still brings is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::chunk::{Home, Tag};
use super::turns::Turn;

/// The part of its time after which a call is taken for one that may hang: an eighth.
const LINGERS: u32 = 8;

/// The place of one thread that calls into a module.
pub(crate) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    busy: Option<Busy>,
    /// Its turn at a token that engines share.
    turn: Option<Turn>,
    /// Whether the thread counts as a session of the lane.
    joined: bool,
    /// Since when its session is open.
    open_since: Option<Instant>,
    retired: bool,
    abandoned: bool,
    ended: bool,
}

struct Busy {
    since: Instant,
    allowed: Duration,
    held: Vec<(Arc<dyn Home>, Tag)>,
}

impl State {
    fn abandon(&mut self, now: Instant) -> Option<Abandoned> {
        if std::mem::replace(&mut self.abandoned, true) {
            return None;
        }
        let joined = std::mem::take(&mut self.joined);
        let open = self.open_since.take().is_some();
        let (since, held) = match self.busy.take() {
            Some(busy) => (now.saturating_duration_since(busy.since), busy.held),
            None => (Duration::ZERO, Vec::new()),
        };
        Some(Abandoned { held, joined, open, since, turn: self.turn.take() })
    }
}

/// What an abandoned thread held.
pub(crate) struct Abandoned {
    /// Chunks that are to be done elsewhere.
    pub(crate) held: Vec<(Arc<dyn Home>, Tag)>,
    /// Whether it counted as a session of the lane.
    pub(crate) joined: bool,
    /// Whether it had a session open.
    pub(crate) open: bool,
    /// How long its call has taken.
    pub(crate) since: Duration,
    /// Its turn at a token that engines share, for others.
    pub(crate) turn: Option<Turn>,
}

/// What a thread is doing, at a glance.
#[derive(Clone, Copy)]
pub(crate) struct Glance {
    /// Whether it counts as a session of the lane.
    pub(crate) joined: bool,
    /// Whether it is in a call.
    pub(crate) busy: bool,
    /// Whether that has taken a good part of what it may: maybe it hangs.
    pub(crate) lingers: bool,
}

impl Slot {
    pub(crate) fn new() -> Self {
        let state = State {
            busy: None,
            turn: None,
            joined: false,
            open_since: None,
            retired: false,
            abandoned: false,
            ended: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Returns what the thread is doing.
    pub(crate) fn glance(&self, now: Instant) -> Glance {
        let state = self.state.lock();
        let lingers = |busy: &Busy| now.saturating_duration_since(busy.since) > busy.allowed / LINGERS;
        Glance {
            joined: state.joined,
            busy: state.busy.is_some(),
            lingers: state.busy.as_ref().is_some_and(lingers),
        }
    }

    /// Keeps the turn in which the thread works; one that was given up has none.
    pub(crate) fn hold(&self, turn: Turn) {
        let mut state = self.state.lock();
        if !state.abandoned {
            state.turn = Some(turn);
        }
    }

    /// Gives the turn back.
    pub(crate) fn let_go(&self) {
        self.state.lock().turn = None;
    }

    /// Says that a call begins which may take so long, and what chunks depend on it. False: the thread was given up.
    pub(crate) fn begin(&self, allowed: Duration, held: Vec<(Arc<dyn Home>, Tag)>) -> bool {
        let mut state = self.state.lock();
        state.busy = Some(Busy { since: Instant::now(), allowed, held });
        !state.abandoned
    }

    /// Says that another part of the call begins, which may take so long. False: the thread was given up.
    pub(crate) fn go_on(&self, allowed: Duration) -> bool {
        let mut state = self.state.lock();
        if let Some(busy) = &mut state.busy {
            (busy.since, busy.allowed) = (Instant::now(), allowed);
        }
        !state.abandoned
    }

    /// Says that the call has returned. False: the thread was given up meanwhile, and what it brings is dropped.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.state.lock();
        state.busy = None;
        !state.abandoned
    }

    /// Marks the thread as a session of the lane, or no longer one; tells whether that is news.
    pub(crate) fn set_joined(&self, joined: bool) -> bool {
        let mut state = self.state.lock();
        !state.abandoned && std::mem::replace(&mut state.joined, joined) != joined
    }

    /// Says since when the thread has a session open, or that it has none. False: the thread was given up, and counted out by whoever did it.
    pub(crate) fn set_open(&self, since: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        if !state.abandoned {
            state.open_since = since;
        }
        !state.abandoned
    }

    /// Returns since when the thread has a session open.
    pub(crate) fn open_since(&self) -> Option<Instant> {
        self.state.lock().open_since
    }

    /// Gives the thread up if its call has taken longer than it may.
    pub(crate) fn abandon_if_hung(&self, now: Instant) -> Option<Abandoned> {
        let mut state = self.state.lock();
        let busy = state.busy.as_ref()?;
        (now.saturating_duration_since(busy.since) > busy.allowed).then(|| state.abandon(now)).flatten()
    }

    /// Gives the thread up whatever it does: it panicked.
    pub(crate) fn abandon(&self) -> Option<Abandoned> {
        self.state.lock().abandon(Instant::now())
    }

    /// Tells the thread that it is not wanted any more.
    pub(crate) fn retire(&self) {
        self.state.lock().retired = true;
        self.changed.notify_all();
    }

    /// Tells whether the thread is not wanted any more, or was given up.
    pub(crate) fn is_retired(&self) -> bool {
        let state = self.state.lock();
        state.retired || state.abandoned
    }

    /// Tells whether the thread was given up.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.state.lock().abandoned
    }

    /// Waits for so long, or until retired.
    pub(crate) fn rest(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.retired && !time.is_zero() {
            self.changed.wait_for(&mut state, time);
        }
    }

    /// Says that the thread ends.
    pub(crate) fn set_ended(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for the thread to end, until then at most; tells whether it has.
    pub(crate) fn await_end(&self, until: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.ended {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return state.ended;
            }
        }
        true
    }

    /// Tells whether the thread has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.state.lock().ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_within_its_time_is_left_alone_and_one_beyond_it_is_given_up_once() {
        let slot = Slot::new();
        assert!(slot.set_joined(true) && !slot.set_joined(true) && slot.set_open(Some(Instant::now())));
        assert!(slot.begin(Duration::from_secs(1), Vec::new()));
        let now = Instant::now();
        assert!(slot.glance(now).busy && !slot.glance(now).lingers);
        assert!(slot.glance(now + Duration::from_millis(500)).lingers);
        assert!(slot.abandon_if_hung(now).is_none());
        let abandoned = slot.abandon_if_hung(now + Duration::from_secs(2)).unwrap();
        assert!(slot.open_since().is_none() && !slot.set_open(Some(now)));
        assert!(abandoned.joined && abandoned.open && abandoned.since > Duration::from_secs(1));
        assert!(slot.abandon_if_hung(now + Duration::from_secs(9)).is_none());
        assert!(!slot.end(), "what it brings now is dropped");
        assert!(slot.is_retired());
        assert!(!slot.set_joined(false), "it was counted out when it was given up");
        assert!(!slot.begin(Duration::from_secs(1), Vec::new()));
    }

    #[test]
    fn an_idle_thread_is_never_given_up() {
        let slot = Slot::new();
        slot.begin(Duration::ZERO, Vec::new());
        assert!(slot.end());
        assert!(slot.abandon_if_hung(Instant::now() + Duration::from_secs(9)).is_none());
        slot.retire();
        assert!(slot.is_retired());
        slot.rest(Duration::from_secs(3600));
    }
}
