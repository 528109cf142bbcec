//! What a person sees of a run: a bar on a terminal, a line every ten seconds elsewhere, nothing where nobody looks.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::checkpoint::Checkpoint;
use super::plan::Plan;

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Drawings of the bar a second.
const DRAW_HZ: u8 = 5;

/// Shows how far a run is.
#[derive(Debug)]
pub(super) struct Progress {
    shown: Shown,
    total: Option<u64>,
    began: Instant,
    start_rows: u64,
    start_offset: u64,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Begins to show a run that starts at `start`.
    pub(super) fn new(plan: &Plan, total: Option<u64>, start: &Checkpoint) -> Self {
        let now = Instant::now();
        let shown = match plan.silent {
            true => Shown::Nothing,
            false if io::stderr().is_terminal() => Shown::Bar(bar(total, start.input_offset)),
            false => Shown::Lines { last: now },
        };
        Self { shown, total, began: now, start_rows: start.rows, start_offset: start.input_offset }
    }

    /// Shows how far the rows written reach.
    pub(super) fn show(&mut self, at: &Checkpoint) {
        let now = Instant::now();
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(at.input_offset);
                bar.set_message(rows(at.rows, at.rows - self.start_rows, now - self.began));
            }
            Shown::Lines { last } if now - *last >= LINE_EVERY => {
                *last = now;
                let line = self.line(at, now - self.began);
                tell(&line);
            }
            Shown::Lines { .. } => {}
        }
    }

    /// Tells that the run waits for its server.
    pub(super) fn waiting(&self, why: &str) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.println(format!("waiting for the server: {why}")),
            Shown::Lines { .. } => tell(&format!("waiting for the server: {why}")),
        }
    }

    /// Takes the bar away; the summary follows.
    pub(super) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn line(&self, at: &Checkpoint, elapsed: Duration) -> String {
        let done = at.input_offset - self.start_offset;
        let rows = rows(at.rows, at.rows - self.start_rows, elapsed);
        let bytes = HumanBytes(at.input_offset);
        match self.total {
            Some(total) if done > 0 => {
                let left = total.saturating_sub(at.input_offset) as f64 / done as f64;
                let left = HumanDuration(elapsed.mul_f64(left));
                format!("{rows}, {bytes} of {}, {left} left", HumanBytes(total))
            }
            _ => format!("{rows}, {bytes}"),
        }
    }
}

fn rows(all: u64, new: u64, elapsed: Duration) -> String {
    let rate = new as f64 / elapsed.as_secs_f64().max(0.001);
    format!("{} rows, {}/s", HumanCount(all), HumanCount(rate as u64))
}

fn bar(total: Option<u64>, offset: u64) -> ProgressBar {
    let (template, bar) = match total {
        Some(total) => (
            "{bar:30} {percent}%  {msg}  {binary_bytes}/{binary_total_bytes}  {eta} left",
            ProgressBar::new(total),
        ),
        None => ("{spinner} {msg}  {binary_bytes}", ProgressBar::new_spinner()),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAW_HZ));
    bar.set_style(ProgressStyle::with_template(template).expect("the templates are ours"));
    bar.set_position(offset);
    // What an earlier run did says nothing about the pace of this one.
    bar.reset_eta();
    bar
}

/// A standard error that is closed must not end the run.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Direction;
    use crate::batch::tests::plan;
    use std::path::Path;

    #[test]
    fn a_line_tells_rows_rate_bytes_and_time_left_of_this_run() {
        let plan = plan(Direction::Decrypt, Path::new("a.csv"), Path::new("b"), "--columns a");
        let mut start = Checkpoint::start(&plan, None);
        (start.rows, start.input_offset) = (1000, 1 << 20);
        let progress = Progress::new(&plan, Some(4 << 20), &start);
        let mut at = start.clone();
        (at.rows, at.input_offset) = (3000, 2 << 20);
        let line = progress.line(&at, Duration::from_secs(10));
        assert_eq!(line, "3,000 rows, 200/s, 2.00 MiB of 4.00 MiB, 20 seconds left");
        let unknown = Progress::new(&plan, None, &start).line(&at, Duration::from_secs(10));
        assert_eq!(unknown, "3,000 rows, 200/s, 2.00 MiB");
    }
}
