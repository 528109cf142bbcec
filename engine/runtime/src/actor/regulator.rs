//! What a token actor feeds the feedback on the number of sessions at work with: at each look whether they had all they could do, and
//! every few looks what they got done. Kept apart from the decision, which has no clock and sees no session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::Pool;
use crate::pool::part::{InFlight, TokenConfig};
use crate::pool::slot::{Glance, Slot};
use crate::pool::token::Token;
use crate::pool::token::feedback::{Feedback, Sample};

/// How long an interval is: a hundred batches, so that one more or less is nothing.
const INTERVAL: Duration = Duration::from_millis(250);

/// Sets how many sessions of a token are at work.
pub(super) struct Regulator {
    /// `None` where all are.
    feedback: Option<Feedback>,
    since: Instant,
    /// Operations done when the interval began.
    done: u64,
    /// Looks at the sessions in this interval, and those of them that found a load.
    looks: (u32, u32),
    generation: u64,
}

impl Regulator {
    pub(super) fn new(config: &TokenConfig) -> Self {
        let feedback = match config.in_flight {
            InFlight::Feedback => Some(Feedback::new(config.sessions)),
            InFlight::All => None,
        };
        Self { feedback, since: Instant::now(), done: 0, looks: (0, 0), generation: 0 }
    }

    /// Looks at the sessions, and sets how many are to be at work from now on.
    pub(super) fn look(&mut self, pool: &Pool, token: &Token, slots: &[Arc<Slot>], now: Instant) {
        let Some(feedback) = &mut self.feedback else { return };
        if self.generation != token.generation() {
            // Maybe another device, or the same with other firmware.
            self.generation = token.generation();
            *feedback = Feedback::new(token.config.sessions);
        }
        let glances: Vec<Glance> = slots.iter().map(|slot| slot.glance(now)).filter(|g| g.joined).collect();
        let enough = feedback.wanted().min(token.open_sessions());
        let has_load = !pool.lane.is_empty() || glances.iter().all(|glance| glance.busy);
        self.looks.0 += 1;
        self.looks.1 += u32::from(has_load && enough > 0 && glances.len() == enough);
        let took = now.saturating_duration_since(self.since);
        if took >= INTERVAL {
            let done = token.operations();
            let rate = done.saturating_sub(self.done) as f64 / took.as_secs_f64();
            // Four looks of five: between two batches a lane may be empty for a moment.
            feedback.observe(Sample { rate, loaded: self.looks.1 * 5 >= self.looks.0 * 4 });
            (self.since, self.done, self.looks) = (now, done, (0, 0));
        }
        // One whose call may hang has another stand in for it, long before it is given up.
        let lingering = glances.iter().filter(|glance| glance.lingers).count();
        if token.shift.set_wanted((feedback.wanted() + lingering).min(token.config.sessions)) {
            // Those that wait at an empty lane look whether they are too many.
            pool.lane.wake();
        }
    }
}
