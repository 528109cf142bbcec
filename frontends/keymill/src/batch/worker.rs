//! One connection at work: several runs of rows are underway at once, what is lost with a connection is sent again on the
//! next, and the outage that lasts too long ends the run. Sealing and opening may be repeated without harm. A connection that had better be at
//! another node is first answered, then left.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::{BatchError, Cause};
use super::pipeline::{Event, Settings, Turn};
use super::plan::Plan;
use super::rows::Rows;
use super::seal::{Connector, Refusal, Results, SealError, Sealer, may_pass};

/// How long a worker bears with a server that does not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The wait before the first retry; each further one takes twice as long.
    pub(super) first: Duration,
    /// The longest wait, unless the server asks for more.
    pub(super) last: Duration,
    /// When to give up, counted from the first failure since the last success.
    pub(super) give_up: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            last: Duration::from_secs(2),
            give_up: Duration::from_secs(60),
        }
    }
}

impl Patience {
    fn wait(&self, attempt: u32) -> Duration {
        self.first.saturating_mul(1 << attempt.min(16)).min(self.last)
    }
}

/// Takes a wait in slices, so that it ends soon after the user asks to stop.
const SLICE: Duration = Duration::from_millis(50);

/// A connection and the runs of rows that it has in hand.
pub(super) struct Worker<'w, C: Connector> {
    pub(super) plan: &'w Plan,
    pub(super) connector: &'w C,
    pub(super) settings: &'w Settings,
    pub(super) jobs: flume::Receiver<Rows>,
    pub(super) events: flume::Sender<Event>,
    pub(super) stop: &'w AtomicBool,
    pub(super) hand: Hand<C::Sealer>,
}

/// What a worker has in hand.
pub(super) struct Hand<S> {
    sealer: Option<S>,
    waiting: VecDeque<Rows>,
    underway: Vec<(u64, Rows)>,
    outage: Option<Outage>,
    results: Results,
}

#[derive(Clone, Copy)]
struct Outage {
    since: Instant,
    attempts: u32,
}

/// What keeps a worker from its work.
enum Setback {
    /// It may pass.
    Passing { message: String, wait: Duration },
    /// It will not.
    Final(SealError),
}

impl<S> Hand<S> {
    /// Makes the hand of a worker that may have a connection already.
    pub(super) fn new(sealer: Option<S>) -> Self {
        let (waiting, underway) = (VecDeque::new(), Vec::new());
        Self { sealer, waiting, underway, outage: None, results: Results::default() }
    }

    fn holds(&self) -> usize {
        self.waiting.len() + self.underway.len()
    }
}

impl<C: Connector> Worker<'_, C> {
    /// Works until there is no more to do, or no way to do it.
    pub(super) fn run(mut self) {
        let _obituary = Obituary(self.events.clone());
        while !self.stop.load(Ordering::Relaxed) && self.gather() {
            let setback = match self.step() {
                Ok(None) => continue,
                Ok(Some(refusal)) => Setback::Passing { message: refusal.message, wait: refusal.wait },
                Err(error) => {
                    self.drop_connection();
                    match error {
                        SealError::Lost(message) => Setback::Passing { message, wait: Duration::ZERO },
                        SealError::Refused(refusal) if refusal.passing => {
                            Setback::Passing { message: refusal.message, wait: refusal.wait }
                        }
                        error => Setback::Final(error),
                    }
                }
            };
            if !self.endure(setback) {
                return;
            }
        }
    }

    /// Takes as many runs of rows as may be underway, and waits for one where there is none; tells whether there is any.
    fn gather(&mut self) -> bool {
        while self.hand.holds() < self.settings.depth {
            let job = match self.hand.holds() {
                0 => self.jobs.recv().ok(),
                _ => self.jobs.try_recv().ok(),
            };
            match job {
                Some(rows) => self.hand.waiting.push_back(rows),
                None => break,
            }
        }
        self.hand.holds() > 0
    }

    /// Sends what waits and handles one answer; a refusal that may pass is returned.
    fn step(&mut self) -> Result<Option<Refusal>, SealError> {
        let hand = &mut self.hand;
        let mut is_leaving = hand.sealer.as_ref().is_some_and(Sealer::should_leave);
        if is_leaving
            && hand.underway.is_empty()
            && let Some(sealer) = &mut hand.sealer
        {
            if let Some(moved) = self.connector.move_from(sealer) {
                *sealer = moved;
            }
            is_leaving = false;
        }
        let sealer = match &mut hand.sealer {
            Some(sealer) => sealer,
            none => none.insert(self.connector.connect()?),
        };
        while !is_leaving && let Some(rows) = hand.waiting.pop_front() {
            match sealer.send(&rows) {
                Ok(ticket) => hand.underway.push((ticket, rows)),
                Err(error @ SealError::Unsendable(_)) => {
                    let message = error.to_string();
                    let rows_of = Some((rows.first_row, rows.last_row()));
                    end(&self.events, rows.number, Cause::Refused { rows: rows_of, message }.into());
                }
                Err(error) => {
                    hand.waiting.push_front(rows);
                    return Err(error);
                }
            }
        }
        if hand.underway.is_empty() {
            return Ok(None);
        }
        let (ticket, answer) = sealer.receive(&mut hand.results)?;
        let Some(place) = hand.underway.iter().position(|(sent, _)| *sent == ticket) else {
            return Err(SealError::Broken("the server answers what was not asked".to_owned()));
        };
        let (_, rows) = hand.underway.remove(place);
        match answer {
            Ok(()) => self.settle(rows),
            Err(refusal) if refusal.passing => {
                hand.waiting.push_back(rows);
                Ok(Some(refusal))
            }
            Err(refusal) => {
                let rows_of = Some((rows.first_row, rows.last_row()));
                let cause = Cause::Refused { rows: rows_of, message: refusal.message };
                end(&self.events, rows.number, cause.into());
                Ok(None)
            }
        }
    }

    /// Passes on rows whose cells are answered.
    fn settle(&mut self, mut rows: Rows) -> Result<Option<Refusal>, SealError> {
        let hand = &mut self.hand;
        let (answered, asked) = (hand.results.len(), rows.cells());
        if answered != asked {
            hand.waiting.push_back(rows);
            return Err(SealError::Broken(format!("the server answers {asked} cells with {answered}")));
        }
        if let Some((item, code, message)) = hand
            .results
            .failures
            .iter()
            .filter(|(item, code, _)| *item >= asked || !may_pass(code))
            .min_by_key(|f| f.0)
        {
            if *item >= asked {
                let error = SealError::Broken("the server refuses a cell that was not asked".to_owned());
                hand.waiting.push_back(rows);
                return Err(error);
            }
            let (row, column) = rows.locate(*item);
            let column = self.plan.selection[column].clone();
            let cause = Cause::Cell { row, column, code: code.clone(), message: message.clone() };
            end(&self.events, rows.number, cause.into());
            return Ok(None);
        }
        if let Some((_, _, message)) = hand.results.failures.first() {
            let refusal = Refusal { message: message.clone(), passing: true, wait: Duration::ZERO };
            hand.waiting.push_back(rows);
            return Ok(Some(refusal));
        }
        hand.outage = None;
        let turn = match rows.render(self.plan.direction, &self.plan.selection, hand.results.iter()) {
            Ok(()) => (rows.number, Turn::Write(rows)),
            Err(error) => (rows.number, Turn::End(Err(error))),
        };
        // Where nobody listens the run is over.
        let _ = self.events.send(Event::Turn(turn.0, turn.1));
        Ok(None)
    }

    fn drop_connection(&mut self) {
        self.hand.sealer = None;
        let lost = self.hand.underway.drain(..).map(|(_, rows)| rows);
        self.hand.waiting.extend(lost);
        // The writer waits for the first ones first.
        self.hand.waiting.make_contiguous().sort_by_key(|rows| rows.number);
    }

    /// Waits for a setback to pass; tells whether to go on.
    fn endure(&mut self, setback: Setback) -> bool {
        let patience = self.settings.patience;
        let (message, asked) = match setback {
            Setback::Final(error) => {
                self.give_up(|| Cause::Refused { rows: None, message: error.to_string() });
                return false;
            }
            Setback::Passing { message, wait } => (message, wait),
        };
        let now = Instant::now();
        let outage = self.hand.outage.get_or_insert(Outage { since: now, attempts: 0 });
        let left = patience.give_up.saturating_sub(now - outage.since);
        let interrupted = self.settings.interrupt.is_set();
        if interrupted || left.is_zero() {
            let seconds = patience.give_up.as_secs();
            self.give_up(|| match interrupted {
                true => Cause::Interrupted,
                false => Cause::GaveUp { seconds, message: message.clone() },
            });
            return false;
        }
        let wait = patience.wait(outage.attempts).max(asked).min(left);
        outage.attempts += 1;
        if outage.attempts == 1 {
            let _ = self.events.send(Event::Waiting(message));
        }
        self.pause(wait);
        true
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let over = || self.stop.load(Ordering::Relaxed) || self.settings.interrupt.is_set();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if over() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    fn give_up(&mut self, cause: impl Fn() -> Cause) {
        self.drop_connection();
        for rows in self.hand.waiting.drain(..) {
            end(&self.events, rows.number, cause().into());
        }
    }
}

fn end(events: &flume::Sender<Event>, number: u64, error: BatchError) {
    // Where nobody listens the run is over.
    let _ = events.send(Event::Turn(number, Turn::End(Err(error))));
}

/// Tells the writer of a thread that panicked, lest it wait for rows that never come.
pub(super) struct Obituary(pub(super) flume::Sender<Event>);

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Event::Died);
        }
    }
}
