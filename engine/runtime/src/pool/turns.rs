//! Turns at a device that several engines share, by weight: each has a seat, and a session does its work while it holds a turn. There are as many
//! turns at a time as are seen to do most, so that a device is kept busy and nobody waits inside of it, where weights mean nothing.
//!
//! Start-time fair queueing over the time that turns take: a seat's tag grows by what it took, divided by its weight, and the least tag is next. One that
//! has had nothing to do begins at the tag that was served last, so that it is next at once, and saves up nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_core::limit::INSTANCE_WEIGHT;
use parking_lot::{Condvar, Mutex};

use super::token::feedback::{Feedback, Sample};

/// How long an interval of the feedback is: a hundred turns, so that one more or less is nothing.
const INTERVAL: Duration = Duration::from_millis(250);
/// Turns that a seat makes up for, at most, where it has had more than its share: for a while there was nobody else, or more turns than now.
const DEBT: u64 = 32;
/// What a turn is taken to last before one was seen to end.
const FIRST: u64 = 1_000_000;

/// Turns at one device.
pub struct Turns {
    state: Mutex<State>,
}

struct State {
    seats: BTreeMap<u64, Member>,
    next: u64,
    /// Turns that are held.
    held: usize,
    /// The tag that was served last.
    served: u128,
    /// Nanoseconds that a turn lasts, of late.
    usual: u64,
    feedback: Option<Feedback>,
    /// The sessions of all engines together that the feedback began with.
    of: usize,
    since: Instant,
    /// Operations done in this interval.
    done: u64,
    /// Looks in this interval, and those of them that found a load.
    looks: (u32, u32),
}

/// An engine at the device.
struct Member {
    weight: u32,
    /// Sessions that it has.
    sessions: usize,
    /// Of its sessions, those in calls that take so long that others stand in for them.
    lingering: usize,
    /// Whether its sessions had all they could do when it was looked at.
    is_loaded: bool,
    tag: u128,
    waiting: usize,
    /// Turns that were given to it, and that none of its sessions has taken up: what each was charged with.
    given: VecDeque<u64>,
    held: usize,
    woken: Arc<Condvar>,
}

/// A place of one engine at a device; it is given up with it.
pub struct Seat {
    turns: Arc<Turns>,
    at: u64,
    woken: Arc<Condvar>,
}

/// The right to work at the device, until it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    at: u64,
    since: Instant,
    /// What it was charged with.
    charged: u64,
}

impl State {
    /// Returns how many turns there are: what is held by calls that linger does not count.
    fn places(&self) -> usize {
        let lingering: usize = self.seats.values().map(|member| member.lingering).sum();
        let wanted = match self.feedback.as_ref().map(Feedback::settled) {
            // A try of more: no more than weights allow, since for so long they would mean nothing.
            Some(settled) if self.wanted() > settled => self.wanted().min(self.shared_out().max(settled)),
            _ => self.wanted(),
        };
        wanted.max(1) + lingering
    }

    /// Returns up to how many turns all who have something to do can hold their share of them. Where there were more, whoever has too few sessions for
    /// his would lose to those who hold the rest.
    fn shared_out(&self) -> usize {
        let active = || self.seats.values().filter(|member| member.waiting + member.held > 0);
        let all: u64 = active().map(|member| u64::from(member.weight)).sum();
        let held = active().map(|member| member.sessions as u64 * all / u64::from(member.weight.max(1)));
        held.min().map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    fn wanted(&self) -> usize {
        self.feedback.as_ref().map_or_else(|| self.sessions(), Feedback::wanted).max(1)
    }

    /// Returns how many sessions all engines have together.
    fn sessions(&self) -> usize {
        self.seats.values().map(|member| member.sessions).sum()
    }

    /// Gives turns that are free to whom they are due.
    fn give(&mut self) {
        while self.held < self.places() {
            let waiting = self.seats.values_mut().filter(|member| member.waits());
            let Some(next) = waiting.min_by_key(|member| (member.tag, member.held)) else { return };
            // With what a turn takes usually: how long this one will is not known yet.
            next.given.push_back(self.usual);
            self.served = self.served.max(next.tag);
            next.tag += share(self.usual, next.weight);
            next.held += 1;
            self.held += 1;
            next.woken.notify_one();
        }
    }

    fn end(&mut self, at: u64, took: u64, charged: u64) {
        self.held = self.held.saturating_sub(1);
        if let Some(member) = self.seats.get_mut(&at) {
            member.held = member.held.saturating_sub(1);
            // By what it took more, or less, than it was charged with.
            let (more, less) = (share(took, member.weight), share(charged, member.weight));
            member.tag = (member.tag + more).saturating_sub(less);
        }
        self.give();
    }

    /// Has the feedback begin anew where there are other sessions than it began with. Who comes and goes without any, as an engine that may come to
    /// have the token, is no matter; nor is one that connects again: what the device does now the feedback finds by itself.
    fn count(&mut self, now: Instant) {
        let all = self.sessions();
        if std::mem::replace(&mut self.of, all) == all {
            return;
        }
        if self.feedback.is_some() {
            self.feedback = Some(Feedback::new(all));
        }
        (self.since, self.done, self.looks) = (now, 0, (0, 0));
    }
}

impl Member {
    /// Tells whether a session of it waits that no turn was given to.
    fn waits(&self) -> bool {
        self.waiting > self.given.len()
    }
}

/// Returns what a time counts for a weight.
pub(crate) fn share(ns: u64, weight: u32) -> u128 {
    u128::from(ns) * u128::from(INSTANCE_WEIGHT) / u128::from(weight.clamp(1, INSTANCE_WEIGHT))
}

impl Turns {
    /// Makes turns at a device: as many at a time as are found to do most, or one for each session.
    pub fn new(in_flight: super::InFlight) -> Arc<Self> {
        let now = Instant::now();
        let feedback = (in_flight == super::InFlight::Feedback).then(|| Feedback::new(1));
        let state = State {
            seats: BTreeMap::new(),
            next: 0,
            held: 0,
            served: 0,
            usual: FIRST,
            feedback,
            of: 0,
            since: now,
            done: 0,
            looks: (0, 0),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Takes a seat for an engine that has so many sessions at the device. Between seats that have all they can do, time at the device goes by
    /// `weight`, of 1 to [`INSTANCE_WEIGHT`].
    pub fn sit(self: &Arc<Self>, weight: u32, sessions: usize) -> Seat {
        let woken = Arc::new(Condvar::new());
        let mut state = self.state.lock();
        let at = state.next;
        state.next += 1;
        let member = Member {
            weight,
            sessions,
            lingering: 0,
            is_loaded: false,
            tag: state.served,
            waiting: 0,
            given: VecDeque::new(),
            held: 0,
            woken: woken.clone(),
        };
        state.seats.insert(at, member);
        state.count(Instant::now());
        drop(state);
        Seat { turns: self.clone(), at, woken }
    }
}

impl Seat {
    /// Sets what the seat weighs.
    pub(crate) fn set_weight(&self, weight: u32) {
        if let Some(member) = self.turns.state.lock().seats.get_mut(&self.at) {
            member.weight = weight;
        }
    }

    /// Sets how many sessions the engine has at the device.
    pub(crate) fn set_sessions(&self, sessions: usize, now: Instant) {
        let mut state = self.turns.state.lock();
        let Some(member) = state.seats.get_mut(&self.at) else { return };
        if std::mem::replace(&mut member.sessions, sessions) != sessions {
            state.count(now);
        }
    }

    /// Returns how many turns there are at a time.
    pub(crate) fn turns(&self) -> usize {
        self.turns.state.lock().wanted()
    }

    /// Takes a turn, waiting for it for so long at most.
    pub(crate) fn take(&self, wait: Duration) -> Option<Turn> {
        let until = Instant::now() + wait;
        let mut state = self.turns.state.lock();
        let (served, usual) = (state.served, state.usual);
        let member = state.seats.get_mut(&self.at)?;
        if member.waiting == 0 && member.held == 0 {
            member.tag = member.tag.max(served);
        }
        member.tag = member.tag.min(served + share(DEBT * usual, member.weight));
        member.waiting += 1;
        state.give();
        loop {
            let member = state.seats.get_mut(&self.at)?;
            if let Some(charged) = member.given.pop_front() {
                member.waiting -= 1;
                let turns = self.turns.clone();
                return Some(Turn { turns, at: self.at, since: Instant::now(), charged });
            }
            if Instant::now() >= until {
                member.waiting -= 1;
                return None;
            }
            self.woken.wait_until(&mut state, until);
        }
    }

    /// Tells whether another engine waits whose turn comes before one more of this.
    pub(crate) fn gives_way(&self) -> bool {
        let state = self.turns.state.lock();
        let Some(own) = state.seats.get(&self.at) else { return true };
        state.seats.iter().any(|(at, other)| *at != self.at && other.waits() && other.tag < own.tag)
    }

    /// Notes that so many operations were done.
    pub(crate) fn did(&self, operations: usize) {
        self.turns.state.lock().done += operations as u64;
    }

    /// Notes how the engine gets on: whether its sessions have all they can do, and how many of their calls may hang. Every few looks of all engines
    /// the number of turns is found by what was done. Returns it.
    pub(crate) fn look(&self, is_loaded: bool, lingering: usize, now: Instant) -> usize {
        let mut state = self.turns.state.lock();
        if let Some(member) = state.seats.get_mut(&self.at) {
            (member.is_loaded, member.lingering) = (is_loaded, lingering);
        }
        let is_loaded = state.seats.values().any(|member| member.is_loaded || member.waits());
        state.looks.0 += 1;
        state.looks.1 += u32::from(is_loaded);
        let took = now.saturating_duration_since(state.since);
        if took >= INTERVAL {
            let rate = state.done as f64 / took.as_secs_f64();
            // Four looks of five: between two batches a lane may be empty for a moment.
            let loaded = state.looks.1 * 5 >= state.looks.0 * 4;
            if let Some(feedback) = &mut state.feedback {
                feedback.observe(Sample { rate, loaded });
            }
            (state.since, state.done, state.looks) = (now, 0, (0, 0));
        }
        // There may be more turns than before.
        state.give();
        state.wanted()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        if let Some(member) = state.seats.remove(&self.at) {
            // What was given and is not taken up is nobody's any more; what is held ends by itself.
            state.held = state.held.saturating_sub(member.given.len());
        }
        state.count(Instant::now());
        state.give();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.turns.state.lock();
        // An exponential mean over some eight turns.
        state.usual = (state.usual * 7 + took) / 8;
        state.end(self.at, took, self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::InFlight;

    const CALL: u64 = 1_000_000;
    const LONG: Duration = Duration::from_secs(60);

    /// Seats whose sessions are always there for one more turn, at a device of which every turn takes as long as is said.
    struct Scene {
        turns: Arc<Turns>,
        seats: Vec<Seat>,
        /// Turns that are held: when each ends, whose it is, when it began, what it was charged with.
        held: Vec<(u64, usize, u64, u64)>,
        now: u64,
        served: Vec<usize>,
    }

    impl Scene {
        fn new(places: usize, weights: &[u32]) -> Self {
            let turns = Turns::new(InFlight::Feedback);
            let seats: Vec<_> = weights.iter().map(|weight| turns.sit(*weight, 8)).collect();
            turns.state.lock().feedback = Some(Feedback::new(places));
            let served = vec![0; seats.len()];
            Self { turns, seats, held: Vec::new(), now: 0, served }
        }

        fn wait(&self, of: usize, waiting: usize) {
            let mut state = self.turns.state.lock();
            let served = state.served;
            let member = state.seats.get_mut(&self.seats[of].at).unwrap();
            if member.waiting == 0 && member.held == 0 {
                member.tag = member.tag.max(served);
            }
            member.waiting = waiting;
            state.give();
        }

        /// Takes up what was given.
        fn begin(&mut self, takes: &impl Fn(usize, u64) -> u64) {
            let mut state = self.turns.state.lock();
            for (of, seat) in self.seats.iter().enumerate() {
                let member = state.seats.get_mut(&seat.at).unwrap();
                while let Some(charged) = member.given.pop_front() {
                    self.served[of] += 1;
                    self.held.push((self.now + takes(of, self.now), of, self.now, charged));
                }
            }
        }

        fn step(&mut self, takes: &impl Fn(usize, u64) -> u64) {
            self.begin(takes);
            let at = (0..self.held.len()).min_by_key(|at| self.held[*at].0).expect("somebody has a turn");
            let (until, of, since, charged) = self.held.swap_remove(at);
            self.now = until;
            self.turns.state.lock().end(self.seats[of].at, until - since, charged);
            self.begin(takes);
        }
    }

    #[test]
    fn time_goes_by_weight_however_many_turns_there_are_and_however_long_they_take() {
        for places in [1, 2, 4, 7] {
            let mut scene = Scene::new(places, &[3, 1]);
            (0..2).for_each(|of| scene.wait(of, 8));
            (0..8_000).for_each(|_| scene.step(&|_, _| CALL));
            let ratio = scene.served[0] as f64 / scene.served[1] as f64;
            assert!((2.9..3.1).contains(&ratio), "{places} turns: {ratio}");

            // Turns of the first take twice as long: it has half as many for the same time.
            let mut scene = Scene::new(places, &[1, 1]);
            (0..2).for_each(|of| scene.wait(of, 8));
            (0..8_000).for_each(|_| scene.step(&|of, now| (2 - of as u64) * CALL + now % 1_000));
            let ratio = scene.served[1] as f64 / scene.served[0] as f64;
            assert!((1.9..2.1).contains(&ratio), "{places} turns: {ratio}");
        }
    }

    #[test]
    fn how_many_turns_do_most_is_found_anew_only_where_there_are_other_sessions() {
        let scene = Scene::new(3, &[1, 1]);
        let (first, now) = (&scene.seats[0], Instant::now());
        assert_eq!(first.turns(), 3);
        // An engine that has no session at the device, and one that says once more what it has.
        drop(scene.turns.sit(1, 0));
        first.set_sessions(8, now);
        assert_eq!(first.turns(), 3);
        let third = scene.turns.sit(1, 2);
        assert_eq!(first.turns(), 18);
        scene.turns.state.lock().feedback = Some(Feedback::new(3));
        third.set_sessions(0, now);
        assert_eq!(first.turns(), 16);
        scene.turns.state.lock().feedback = Some(Feedback::new(3));
        drop(third);
        assert_eq!(first.turns(), 3);
    }

    #[test]
    fn more_turns_are_not_tried_than_those_of_whom_all_can_hold_their_share() {
        let scene = Scene::new(4, &[4, 1]);
        scene.wait(0, 8);
        assert_eq!(scene.turns.state.lock().shared_out(), 8, "alone, all of its sessions");
        scene.wait(1, 8);
        assert_eq!(scene.turns.state.lock().shared_out(), 10, "eight and two");
    }

    #[test]
    fn who_has_had_more_than_its_share_makes_up_for_a_few_turns_of_it_at_most() {
        let mut scene = Scene::new(2, &[1, 1]);
        scene.wait(0, 8);
        scene.turns.state.lock().seats.get_mut(&scene.seats[1].at).unwrap().tag = u128::from(u64::MAX);
        assert!(scene.seats[1].take(Duration::ZERO).is_none(), "both turns are taken");
        scene.wait(1, 8);
        (0..200).for_each(|_| scene.step(&|_, _| CALL));
        assert!(scene.served[1] > 70, "{:?}", scene.served);
    }

    #[test]
    fn nothing_is_left_idle_for_one_who_has_nothing_to_do_and_who_comes_is_next() {
        let mut scene = Scene::new(4, &[100, 1]);
        scene.wait(0, 8);
        (0..1_000).for_each(|_| scene.step(&|_, _| CALL));
        assert_eq!(scene.held.len(), 4, "all turns are taken by whoever is there");
        for _ in 0..100 {
            scene.wait(1, 1);
            scene.begin(&|_, _| CALL);
            assert!(scene.seats[0].gives_way());
            let before = scene.served[1];
            scene.step(&|_, _| CALL);
            assert_eq!(scene.served[1], before + 1, "at the end of the next turn, whatever it weighs");
            scene.wait(1, 0);
            (0..400).for_each(|_| scene.step(&|_, _| CALL));
        }
    }

    #[test]
    fn a_turn_is_waited_for_and_is_given_back_by_whoever_drops_it() {
        let turns = Turns::new(InFlight::All);
        let (one, other) = (turns.sit(1, 1), turns.sit(1, 1));
        let first = one.take(LONG).unwrap();
        let _second = one.take(LONG).unwrap();
        assert!(other.take(Duration::from_millis(5)).is_none(), "there are two");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| other.take(LONG).is_some());
            while !one.gives_way() && !waits.is_finished() {
                std::thread::yield_now();
            }
            drop(first);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn a_call_that_lingers_takes_no_turn_from_others() {
        let turns = Turns::new(InFlight::All);
        let seat = turns.sit(1, 1);
        let _hung = seat.take(LONG).unwrap();
        assert!(seat.take(Duration::ZERO).is_none());
        seat.look(true, 1, Instant::now());
        assert!(seat.take(LONG).is_some());
    }

    #[test]
    fn whoever_leaves_takes_nothing_along() {
        let turns = Turns::new(InFlight::All);
        let (one, other) = (turns.sit(1, 1), turns.sit(1, 1));
        let kept = other.take(LONG).unwrap();
        drop(other);
        assert_eq!(turns.state.lock().held, 1);
        assert!(one.take(Duration::ZERO).is_none(), "one session is left, and the device is busy");
        drop(kept);
        assert!(one.take(Duration::ZERO).is_some());
    }
}
