//! How many sessions of a token should be at work, found by what so many get done: modules in software serialise short calls and do most
//! by one, HSMs behind a network want some thirty. A pure decision: it is fed with one [`Sample`] an interval, and has no clock.
//!
//! It climbs from where it stands: now and then it tries another number for a few intervals. What seems to win is checked by a look back at
//! the number before, so that a load which changed meanwhile decides nothing. A tie goes to fewer sessions; more of them must gain. Tries
//! that come to nothing become rarer, and frequent again once the token does much more or less than it did.

/// What an interval has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Operations done a second.
    pub(crate) rate: f64,
    /// Whether the sessions at work had all they could do, and were as many as wanted. Otherwise the rate is that of the callers, which is a
    /// lower bound of what the token can do.
    pub(crate) loaded: bool,
}

/// Samples that tell what a number of sessions does.
const ENOUGH: usize = 3;
/// Samples of the look back.
const ENOUGH_BACK: usize = 2;
/// What may be given away for fewer sessions, in all, since the most was last seen.
const GIVEN: f64 = 0.03;
/// What more sessions have to gain.
const GAIN: f64 = 0.05;
/// What one sample has to lose, or to gain by more sessions, to end a try at once.
const CLEAR: (f64, f64) = (0.15, 0.25);
/// How far the rate before and after a try may differ for it to decide anything.
const STEADY: f64 = 0.2;
/// How far the rate has to move for a token, or its load, to count as changed.
const CHANGE: f64 = 0.25;
/// Intervals under load between two tries, and that many at most: 15 s, where an interval is 250 ms.
const PAUSE: (u32, u32) = (3, 60);
/// Intervals without load after which a try is broken off.
const PATIENCE: u32 = 4;

/// Which number is tried.
#[derive(Clone, Copy)]
enum Step {
    Half,
    Less,
    More,
    All,
}

const STEPS: [Step; 4] = [Step::Half, Step::Less, Step::More, Step::All];
const FIRST_UP: usize = 2;

#[derive(Clone, Copy)]
enum Phase {
    /// Until the next try there are so many intervals under load.
    Rest { left: u32 },
    /// So many are tried.
    Trial { of: usize },
    /// They seemed to win, at such a rate; the number before is looked at again.
    LookBack { of: usize, rate: f64 },
}

/// Finds the number of sessions at work.
pub(crate) struct Feedback {
    most: usize,
    number: usize,
    phase: Phase,
    /// Samples of this phase; at rest the last of them.
    rates: Vec<f64>,
    /// The rate of `number` before the try.
    before: f64,
    /// Whether the next sample is of sessions that only come or go.
    mixed: bool,
    /// Intervals of the try that had no load.
    idle: u32,
    pause: u32,
    next: usize,
    /// The rate as a share of the most that was seen on the way.
    kept: f64,
    /// The rate when the last try came to nothing; 0 where none has.
    settled: f64,
    /// Intervals in a row in which the rate was another.
    odd: u32,
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}

fn differs(rate: f64, from: f64, by: f64) -> bool {
    (rate - from).abs() > by * from
}

impl Feedback {
    /// Begins with `most` sessions: that is what an operator asked for, and nothing is known of the token yet.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            number: most.max(1),
            phase: Phase::Rest { left: PAUSE.0 },
            rates: Vec::with_capacity(ENOUGH + 1),
            before: 0.0,
            mixed: true,
            idle: 0,
            pause: PAUSE.0,
            next: 0,
            kept: 1.0,
            settled: 0.0,
            odd: 0,
        }
    }

    /// Returns how many sessions should be at work.
    pub(crate) fn wanted(&self) -> usize {
        match self.phase {
            Phase::Trial { of } => of,
            Phase::Rest { .. } | Phase::LookBack { .. } => self.number,
        }
    }

    /// Returns how many were at work before the try under way, if there is one.
    pub(crate) fn settled(&self) -> usize {
        self.number
    }

    /// Takes what an interval with [`Self::wanted`] sessions has shown.
    pub(crate) fn observe(&mut self, sample: Sample) {
        if self.most == 1 || std::mem::take(&mut self.mixed) {
            return;
        }
        match self.phase {
            Phase::Rest { left } => self.rest(left, sample),
            Phase::Trial { of } => self.trial(of, sample),
            Phase::LookBack { of, rate } => self.look_back((of, rate), sample),
        }
    }

    fn rest(&mut self, left: u32, sample: Sample) {
        if !sample.loaded {
            return;
        }
        if self.rates.len() == ENOUGH {
            self.rates.remove(0);
        }
        self.rates.push(sample.rate);
        let mut left = left.saturating_sub(1);
        let is_odd = self.settled > 0.0 && differs(sample.rate, self.settled, CHANGE);
        self.odd = if is_odd { self.odd + 1 } else { 0 };
        if self.odd as usize >= ENOUGH {
            (self.odd, self.settled, self.pause) = (0, mean(&self.rates), PAUSE.0);
            left = left.min(PAUSE.0);
        }
        self.phase = Phase::Rest { left };
        if left > 0 || self.rates.len() < ENOUGH {
            return;
        }
        if let Some(of) = self.next_try() {
            self.before = mean(&self.rates);
            self.enter(Phase::Trial { of }, true);
        }
    }

    /// Returns the number that is next to be tried; after a round of them tries become rarer, and what was given away is slowly forgotten.
    fn next_try(&mut self) -> Option<usize> {
        for _ in STEPS {
            let step = STEPS[self.next];
            self.next = (self.next + 1) % STEPS.len();
            if self.next == 0 {
                self.pause = (2 * self.pause).min(PAUSE.1);
                self.kept = self.kept.sqrt();
            }
            let (half, less) = (self.number / 2, self.number - (self.number / 4).max(1));
            let of = match step {
                Step::Half => half,
                // The same, or one too few for work at all.
                Step::Less if less == half => continue,
                Step::Less => less,
                Step::More => (self.number + (self.number / 2).max(1)).min(self.most),
                Step::All => self.most,
            };
            if of > 0 && of != self.number {
                return Some(of);
            }
        }
        None
    }

    /// Returns the rate that `of` sessions must reach, as a share of what `number` does.
    fn needed(&self, of: usize) -> f64 {
        if of > self.number { 1.0 + GAIN } else { (1.0 - GIVEN) / self.kept }
    }

    fn trial(&mut self, of: usize, sample: Sample) {
        let needed = self.needed(of) * self.before;
        // A rate without load is a lower bound: it says something only where it is enough.
        if !sample.loaded && sample.rate < needed {
            return self.go_idle();
        }
        self.rates.push(sample.rate);
        if sample.rate < (1.0 - CLEAR.0) * self.before {
            return self.stay();
        }
        if of > self.number && sample.rate > (1.0 + CLEAR.1) * self.before {
            return self.go(of, sample.rate / self.before);
        }
        if self.rates.len() < ENOUGH {
            return;
        }
        let rate = mean(&self.rates);
        if rate < needed {
            return self.stay();
        }
        self.enter(Phase::LookBack { of, rate }, true);
    }

    fn look_back(&mut self, (of, rate): (usize, f64), sample: Sample) {
        if !sample.loaded {
            return self.go_idle();
        }
        self.rates.push(sample.rate);
        if self.rates.len() < ENOUGH_BACK {
            return;
        }
        let after = mean(&self.rates);
        let base = (self.before + after) / 2.0;
        if differs(after, self.before, STEADY) {
            // The load is another: nothing was learnt, and the same is tried again soon.
            self.next = (self.next + STEPS.len() - 1) % STEPS.len();
            self.enter(Phase::Rest { left: PAUSE.0 }, false);
        } else if rate >= self.needed(of) * base {
            self.go(of, rate / base);
        } else {
            self.stay();
        }
    }

    /// Counts an interval without load; too many of them end the try.
    fn go_idle(&mut self) {
        self.idle += 1;
        if self.idle >= PATIENCE {
            self.stay();
        }
    }

    /// Has the number that was tried.
    fn go(&mut self, of: usize, ratio: f64) {
        self.next = if of > self.number { FIRST_UP } else { 0 };
        self.kept = (self.kept * ratio).min(1.0);
        (self.number, self.pause, self.settled) = (of, PAUSE.0, 0.0);
        self.enter(Phase::Rest { left: PAUSE.0 }, true);
    }

    /// Has the number before.
    fn stay(&mut self) {
        let comes_back = matches!(self.phase, Phase::Trial { .. });
        self.settled = self.before;
        self.enter(Phase::Rest { left: self.pause }, comes_back);
    }

    fn enter(&mut self, phase: Phase, mixed: bool) {
        self.rates.clear();
        (self.phase, self.mixed, self.idle, self.odd) = (phase, mixed, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token as a rate by the number of sessions, under more load than it can do, with noise from a fixed seed.
    struct Model {
        feedback: Feedback,
        noise: f64,
        seed: u64,
    }

    impl Model {
        fn new(most: usize, noise: f64) -> Self {
            Self { feedback: Feedback::new(most), noise, seed: 42 }
        }

        fn noisy(&mut self, rate: f64) -> f64 {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (self.seed >> 11) as f64 / (1_u64 << 53) as f64;
            rate * (1.0 + self.noise * (2.0 * unit - 1.0))
        }

        /// Lets so many intervals pass, and returns the mean rate.
        fn run(&mut self, intervals: u32, rate: impl Fn(usize) -> f64) -> f64 {
            let mut sum = 0.0;
            for _ in 0..intervals {
                let now = rate(self.feedback.wanted());
                sum += now;
                let rate = self.noisy(now);
                self.feedback.observe(Sample { rate, loaded: true });
            }
            sum / f64::from(intervals)
        }

        fn number(&self) -> usize {
            self.feedback.number
        }
    }

    /// SoftHSM as it was measured: the second session makes it slower.
    fn serial(sessions: usize) -> f64 {
        if sessions == 1 { 110_000.0 } else { 80_000.0 }
    }

    /// A millisecond a call, and an engine for each.
    fn parallel(sessions: usize) -> f64 {
        1_000.0 * sessions as f64
    }

    fn eight_engines(sessions: usize) -> f64 {
        1_000.0 * sessions.min(8) as f64
    }

    #[test]
    fn a_module_that_serialises_its_calls_ends_up_with_one() {
        for (most, noise) in [(2, 0.0), (4, 0.05), (30, 0.05), (64, 0.1), (1_024, 0.05)] {
            let mut model = Model::new(most, noise);
            model.run(400, serial);
            assert_eq!(model.number(), 1, "of {most} at a noise of {noise}");
            let mean = model.run(2_000, serial);
            assert!(mean > 0.97 * serial(1), "of {most}: {mean}");
        }
    }

    #[test]
    fn a_device_with_an_engine_a_session_keeps_all() {
        for noise in [0.0, 0.05, 0.1] {
            let mut model = Model::new(30, noise);
            for _ in 0..40 {
                model.run(100, parallel);
                assert_eq!(model.number(), 30, "at a noise of {noise}");
            }
            let mean = model.run(2_000, parallel);
            assert!(mean > 0.97 * parallel(30), "{mean}");
        }
    }

    #[test]
    fn a_device_with_eight_engines_gets_about_as_many() {
        for noise in [0.0, 0.02, 0.05] {
            let mut model = Model::new(32, noise);
            model.run(400, eight_engines);
            assert!((8..=12).contains(&model.number()), "{} at {noise}", model.number());
            let mean = model.run(2_000, eight_engines);
            assert!(mean > 0.97 * eight_engines(8), "{mean}");
        }
    }

    #[test]
    fn small_losses_do_not_add_up() {
        // Every session adds a little, up to the last.
        let saturating = |sessions: usize| 10_000.0 * (1.0 - 0.85_f64.powi(sessions as i32));
        for noise in [0.0, 0.02, 0.05] {
            let mut model = Model::new(64, noise);
            model.run(400, saturating);
            let mean = model.run(4_000, saturating);
            assert!(mean > 0.94 * saturating(64), "{mean} by {}", model.number());
            assert!(model.number() < 64);
        }
    }

    #[test]
    fn a_token_that_becomes_another_is_found_out() {
        let mut model = Model::new(30, 0.05);
        model.run(2_000, serial);
        assert_eq!(model.number(), 1);
        model.run(400, parallel);
        assert_eq!(model.number(), 30, "a step up gains at once");
        model.run(600, serial);
        assert_eq!(model.number(), 1);
    }

    #[test]
    fn a_module_that_got_more_engines_and_shows_it_by_nothing_else_is_found_out_within_some_minutes() {
        let mut model = Model::new(30, 0.05);
        let one = |sessions: usize| 1_000.0 * sessions.min(1) as f64;
        model.run(2_000, one);
        assert_eq!(model.number(), 1);
        model.run(4 * 4 * PAUSE.1, parallel);
        assert_eq!(model.number(), 30);
    }

    #[test]
    fn an_idle_lane_teaches_nothing() {
        let mut feedback = Feedback::new(8);
        for rate in (0..1_000).map(f64::from) {
            feedback.observe(Sample { rate, loaded: false });
            assert_eq!(feedback.wanted(), 8);
        }
    }

    #[test]
    fn a_try_that_finds_no_load_is_broken_off() {
        let mut model = Model::new(8, 0.0);
        while model.feedback.wanted() == 8 {
            model.run(1, serial);
        }
        for _ in 0..=PATIENCE {
            model.feedback.observe(Sample { rate: 10.0, loaded: false });
        }
        assert_eq!(model.feedback.wanted(), 8);
    }

    #[test]
    fn more_sessions_that_clear_the_lane_have_won_though_it_is_idle_then() {
        let mut model = Model::new(8, 0.0);
        model.run(400, serial);
        assert_eq!(model.number(), 1);
        // The callers want twice of what one session does; two do it, and the lane has nothing left.
        for _ in 0..4 * PAUSE.1 {
            let wanted = model.feedback.wanted();
            let rate = 220_000.0_f64.min(110_000.0 * wanted as f64);
            model.feedback.observe(Sample { rate, loaded: wanted == 1 });
        }
        assert!(model.number() > 1);
    }

    #[test]
    fn a_load_that_comes_and_goes_decides_nothing() {
        // A device that needs all its sessions, and requests that become cheaper and dearer by a half.
        let mut model = Model::new(16, 0.05);
        for turn in 0..200 {
            let cost = if turn % 2 == 0 { 1.0 } else { 1.5 };
            model.run(37, |sessions| parallel(sessions) / cost);
        }
        assert!(model.number() >= 12, "{}", model.number());
    }

    #[test]
    fn one_session_is_always_one() {
        for most in [0, 1] {
            let mut model = Model::new(most, 0.1);
            model.run(100, parallel);
            assert_eq!(model.feedback.wanted(), 1);
        }
    }
}
