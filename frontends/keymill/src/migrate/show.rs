//! What a person sees of a migration: a bar on a terminal, a line now and then elsewhere, nothing where nobody looks.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use keymill_core::seam::store::{Store, StoreError};

use super::copy::{Side, Step};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Drawings of the bar a second.
const DRAW_HZ: u8 = 5;

/// Shows how far a migration is.
pub(super) struct Shown {
    how: How,
    from: String,
    to: String,
    /// Records of the source, once they were counted.
    total: u64,
    /// Whether to say that it has caught up.
    says_caught_up: bool,
}

enum How {
    Nothing,
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Shown {
    pub(super) fn new(quiet: bool, from: &str, to: &str, says_caught_up: bool) -> Self {
        let how = match quiet {
            true => How::Nothing,
            false if io::stderr().is_terminal() => How::Bar(spinner()),
            false => How::Lines { last: Instant::now() },
        };
        Self { how, from: from.to_owned(), to: to.to_owned(), total: 0, says_caught_up }
    }

    /// Counts what there is to copy, where somebody looks.
    pub(super) fn count(&mut self, source: &dyn Store) -> Result<(), StoreError> {
        let How::Bar(bar) = &self.how else { return Ok(()) };
        let mut total = 0;
        source.scan(&mut |_| {
            total += 1;
            bar.set_message(format!("{} records in {}", HumanCount(total), self.from));
            true
        })?;
        self.total = total;
        bar.set_style(style(
            "{bar:30} {percent}%  {msg}  {human_pos}/{human_len} records  {per_sec}  {eta} left",
        ));
        bar.set_length(total);
        bar.set_message("copying");
        Ok(())
    }

    /// Shows a step; the run goes on.
    pub(super) fn take(&mut self, step: Step<'_>) -> bool {
        match step {
            Step::Compared { records } => self.at("copying", records, self.total),
            Step::Verified { side: Side::Source, records } => self.at("comparing", records, 2 * self.total),
            Step::Verified { side: Side::Target, records } => {
                self.at("comparing", self.total + records, 2 * self.total);
            }
            Step::CaughtUp { changed } => self.follow(changed),
            Step::Waiting { side, why } => {
                let name = if side == Side::Source { &self.from } else { &self.to };
                self.say(&format!("waiting for {name}: {why}"));
            }
        }
        true
    }

    /// Takes the bar away; the summary follows.
    pub(super) fn finish(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }

    fn at(&mut self, what: &'static str, done: u64, total: u64) {
        match &mut self.how {
            How::Nothing => {}
            How::Bar(bar) => {
                bar.set_length(total.max(done));
                bar.set_message(what);
                bar.set_position(done);
            }
            How::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                tell(&format!("{what}: {} records", HumanCount(done)));
            }
            How::Lines { .. } => {}
        }
    }

    fn follow(&mut self, changed: u64) {
        if let How::Bar(bar) = &self.how {
            bar.set_message(format!("following; {} written", HumanCount(changed)));
            bar.tick();
        }
        if std::mem::take(&mut self.says_caught_up) {
            self.say(&format!("caught up with {}, and following it until interrupted", self.from));
        }
    }

    fn say(&self, line: &str) {
        match &self.how {
            How::Nothing => {}
            How::Bar(bar) => bar.println(line),
            How::Lines { .. } => tell(line),
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAW_HZ));
    bar.set_style(style("{spinner} {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are ours")
}

/// A standard error that is closed must not end the run.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
