//! What a token actor tells the turns at its token, at each look: whether the engine's sessions had all they could do. How many are to be at work
//! is found there, for all engines that use the token.

use std::sync::Arc;
use std::time::Instant;

use crate::pool::Pool;
use crate::pool::slot::{Glance, Slot};
use crate::pool::token::Token;

/// Looks at the sessions of a token, and sets how many are to be at work from now on.
pub(super) fn look(pool: &Pool, token: &Token, slots: &[Arc<Slot>], now: Instant) {
    let sessions = token.sessions();
    token.seat.set_sessions(sessions, now);
    let glances: Vec<Glance> = slots.iter().map(|slot| slot.glance(now)).filter(|g| g.joined).collect();
    let enough = token.seat.turns().min(token.open_sessions());
    let has_load = !pool.lane.is_empty() || glances.iter().all(|glance| glance.busy);
    // One whose call may hang has another stand in for it, long before it is given up.
    let lingering = glances.iter().filter(|glance| glance.lingers).count();
    let turns = token.seat.look(has_load && enough > 0 && glances.len() >= enough, lingering, now);
    if token.shift.set_wanted((turns + lingering).min(sessions.max(1))) {
        // Those that wait at an empty lane look whether they are too many.
        pool.lane.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::{ConnectError, InFlight, PoolConfig, TokenConfig, TokenPart};

    const LOOK: Duration = Duration::from_millis(25);
    /// Longer than any test seems to last.
    const ALLOWED: Duration = Duration::from_secs(10 * 24 * 3600);

    /// A token under load, at a time of its own: sessions that are wanted are in calls, and do what `rate` says.
    struct Scene {
        pool: Pool,
        slots: Vec<Arc<Slot>>,
        now: Instant,
    }

    impl Scene {
        fn new(sessions: usize, in_flight: InFlight) -> Self {
            let config = TokenConfig { sessions, in_flight, ..TokenConfig::new("t") };
            let connect = Box::new(|| Err(ConnectError::Unavailable("nothing is connected here".into())));
            let pool = Pool::new(PoolConfig::default(), vec![TokenPart::new(config, connect)]);
            let slots: Vec<_> = (0..sessions).map(|_| Arc::new(Slot::new())).collect();
            slots.iter().for_each(|_| pool.tokens[0].opened());
            Self { pool, slots, now: Instant::now() }
        }

        fn wanted(&self) -> usize {
            self.pool.tokens[0].shift.wanted()
        }

        fn run(&mut self, looks: usize, rate: impl Fn(usize) -> usize) {
            for _ in 0..looks {
                let wanted = self.wanted();
                for (at, slot) in self.slots.iter().enumerate() {
                    slot.set_joined(at < wanted);
                    slot.begin(ALLOWED, Vec::new());
                }
                let done = rate(wanted) / 40;
                self.pool.tokens[0].timed(done, done, Some(LOOK));
                self.now += LOOK;
                look(&self.pool, &self.pool.tokens[0], &self.slots, self.now);
            }
        }
    }

    #[test]
    fn a_token_whose_calls_serialise_ends_up_with_one_session_at_work() {
        let mut scene = Scene::new(8, InFlight::Feedback);
        scene.run(2_000, |_| 40_000);
        let mut one = 0;
        for _ in 0..10_000 {
            scene.run(1, |_| 40_000);
            one += usize::from(scene.wanted() == 1);
        }
        // Now and then more are tried, to no avail.
        assert!(one > 9_000, "{one} of 10000 looks");
    }

    #[test]
    fn a_token_with_an_engine_for_each_session_keeps_all_at_work() {
        let mut scene = Scene::new(30, InFlight::Feedback);
        let mut all = 0;
        for _ in 0..10_000 {
            scene.run(1, |sessions| 1_000 * sessions);
            all += usize::from(scene.wanted() == 30);
        }
        assert!(all > 9_500, "{all} of 10000 looks");
    }

    #[test]
    fn sessions_that_have_little_to_do_are_left_at_work() {
        let mut scene = Scene::new(8, InFlight::Feedback);
        for _ in 0..1_000 {
            scene.run(1, |_| 40);
            // At the next look this one has nothing to do.
            scene.slots[0].end();
            scene.now += LOOK;
            look(&scene.pool, &scene.pool.tokens[0], &scene.slots, scene.now);
            assert_eq!(scene.wanted(), 8);
        }
    }

    #[test]
    fn a_token_that_has_other_sessions_than_before_begins_with_all_of_them() {
        let mut scene = Scene::new(8, InFlight::Feedback);
        while scene.wanted() > 1 {
            scene.run(1, |_| 40_000);
        }
        for sessions in [4, 12, 2] {
            scene.pool.tokens[0].allow(sessions);
            scene.run(1, |_| 40_000);
            assert_eq!(scene.wanted(), sessions);
        }
        let mut all = Scene::new(8, InFlight::All);
        for sessions in [4, 12] {
            all.pool.tokens[0].allow(sessions);
            all.run(100, |_| 40_000);
            assert_eq!(all.wanted(), sessions);
        }
    }

    #[test]
    fn another_stands_in_for_a_session_whose_call_lingers() {
        let mut scene = Scene::new(8, InFlight::Feedback);
        while scene.wanted() > 1 {
            scene.run(1, |_| 40_000);
        }
        let call = Duration::from_millis(800);
        scene.slots[0].begin(call, Vec::new());
        scene.now = Instant::now() + call / 2;
        look(&scene.pool, &scene.pool.tokens[0], &scene.slots, scene.now);
        assert_eq!(scene.wanted(), 2);
        scene.slots[0].end();
        look(&scene.pool, &scene.pool.tokens[0], &scene.slots, scene.now);
        assert_eq!(scene.wanted(), 1);
    }

    #[test]
    fn with_all_in_flight_nothing_is_regulated() {
        let mut scene = Scene::new(8, InFlight::All);
        scene.run(1_000, |_| 40_000);
        assert_eq!(scene.wanted(), 8);
    }
}
