//! The threads of a run and what passes between them: a reader, a worker for each connection, and the writer, which is the
//! calling thread. A fixed number of runs of rows goes round, and that is the backpressure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::{BatchError, Cause};
use super::interrupt::Interrupt;
use super::output::{Cadence, Output};
use super::plan::Plan;
use super::progress::Progress;
use super::reader::{Filled, Reader};
use super::rows::Rows;
use super::seal::Connector;
use super::worker::{Hand, Obituary, Patience, Worker};

/// Requests underway on one connection, at most.
const MAX_DEPTH: usize = 8;
/// Bytes underway on one connection: far below the 64 MiB at which a server stops reading, so that writing never waits
/// for answers that nobody reads.
const UNDERWAY_BYTES: usize = 4 * 1024 * 1024;
/// Runs of rows beyond those underway, so that nobody waits for the writer.
const SPARE_RUNS: usize = 4;
/// Bytes of raw rows between reader and writer, where rows are large; one more run may be on top.
const BETWEEN_BYTES: usize = 24 * 1024 * 1024;
/// How often the checkpoint and the progress are looked after while nothing comes.
const TICK: Duration = Duration::from_millis(500);

/// How a run goes about it, apart from what it does.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) depth: usize,
    pub(super) patience: Patience,
    pub(super) cadence: Cadence,
    pub(super) interrupt: Interrupt,
}

impl Settings {
    /// Makes the settings of `plan`.
    pub(super) fn new(plan: &Plan, interrupt: Interrupt) -> Self {
        Self {
            depth: (UNDERWAY_BYTES / plan.batch_bytes).clamp(1, MAX_DEPTH),
            patience: Patience::default(),
            cadence: Cadence::default(),
            interrupt,
        }
    }
}

/// What the writer hears of.
#[derive(Debug)]
pub(super) enum Event {
    /// It is known what becomes of a place in the order of runs.
    Turn(u64, Turn),
    /// A worker waits for the server, for this reason.
    Waiting(String),
    /// A thread panicked.
    Died,
}

/// What becomes of a place in the order of runs.
#[derive(Debug)]
pub(super) enum Turn {
    /// Rows to be written.
    Write(Rows),
    /// The end, good or bad, of all that comes before.
    End(Result<(), BatchError>),
}

/// Carries rows from `reader` to `output` until the input ends or something fails; what is written then is whole rows, all
/// that come before the failure.
pub(super) fn run<C: Connector>(
    plan: &Plan,
    connector: &C,
    settings: &Settings,
    first: C::Sealer,
    reader: &mut Reader<'_>,
    output: &mut Output,
    progress: &mut Progress,
) -> Result<(), BatchError> {
    let runs = plan.connections * settings.depth + SPARE_RUNS;
    let (give_free, free) = flume::bounded(runs);
    let (give_jobs, jobs) = flume::bounded(runs);
    let (give_events, events) = flume::bounded(runs);
    for _ in 0..runs {
        give_free.send(Rows::default()).expect("the channel has room for every run");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let to_writer = give_events.clone();
        scope.spawn(move || {
            let _obituary = Obituary(to_writer.clone());
            feed(plan, &settings.interrupt, reader, &free, &give_jobs, &to_writer);
        });
        for sealer in
            std::iter::once(Some(first)).chain(std::iter::repeat_with(|| None)).take(plan.connections)
        {
            let (jobs, events, hand) = (jobs.clone(), give_events.clone(), Hand::new(sealer));
            let worker = Worker { plan, connector, settings, jobs, events, stop: &stop, hand };
            scope.spawn(move || worker.run());
        }
        drop((jobs, give_events));
        let outcome = write(settings, events, &give_free, output, progress);
        stop.store(true, Ordering::Relaxed);
        drop(give_free);
        outcome
    })
}

/// Reads runs of rows and hands them to the workers; those without cells go to the writer.
fn feed(
    plan: &Plan,
    interrupt: &Interrupt,
    reader: &mut Reader<'_>,
    free: &flume::Receiver<Rows>,
    jobs: &flume::Sender<Rows>,
    events: &flume::Sender<Event>,
) {
    let mut spare = Vec::new();
    let mut between = 0;
    for number in 0.. {
        // A run comes back with its rows still in it.
        let mut rows = loop {
            for rows in free.try_iter() {
                between -= rows.raw().len();
                spare.push(rows);
            }
            match spare.pop() {
                Some(rows) if between <= BETWEEN_BYTES => break rows,
                unused => spare.extend(unused),
            }
            let Ok(rows) = free.recv() else { return };
            between -= rows.raw().len();
            spare.push(rows);
        };
        rows.clear();
        rows.number = number;
        let (filled, cells) = match interrupt.is_set() {
            true => (Filled::Failed(Cause::Interrupted.into()), 0),
            false => (reader.fill(&mut rows), rows.cells()),
        };
        between += rows.raw().len();
        let mut next = number;
        if !rows.raw().is_empty() {
            next += 1;
            let passed = if cells > 0 {
                jobs.send(rows).is_ok()
            } else {
                let rendered = rows.render(plan.direction, &plan.selection, std::iter::empty());
                events
                    .send(Event::Turn(
                        number,
                        rendered.map_or_else(|e| Turn::End(Err(e)), |()| Turn::Write(rows)),
                    ))
                    .is_ok()
            };
            if !passed {
                return;
            }
        }
        let end = match filled {
            Filled::Full => continue,
            Filled::Ended => Ok(()),
            Filled::Failed(error) => Err(error),
        };
        let _ = events.send(Event::Turn(next, Turn::End(end)));
        return;
    }
}

/// Writes runs of rows in their order and returns their buffers to the reader.
fn write(
    settings: &Settings,
    events: flume::Receiver<Event>,
    free: &flume::Sender<Rows>,
    output: &mut Output,
    progress: &mut Progress,
) -> Result<(), BatchError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    loop {
        match events.recv_timeout(TICK) {
            Ok(Event::Turn(number, turn)) => {
                early.insert(number, turn);
            }
            Ok(Event::Waiting(why)) => progress.waiting(&why),
            Err(flume::RecvTimeoutError::Timeout) => {}
            Ok(Event::Died) | Err(flume::RecvTimeoutError::Disconnected) => {
                return Err(Cause::Internal("a thread ended early").into());
            }
        }
        while let Some(turn) = early.remove(&next) {
            match turn {
                Turn::Write(rows) => {
                    output.write(&rows)?;
                    // After its end the reader takes none back.
                    let _ = free.send(rows);
                    next += 1;
                }
                Turn::End(end) => return end,
            }
        }
        output.keep_up(settings.cadence)?;
        progress.show(output.written());
    }
}
