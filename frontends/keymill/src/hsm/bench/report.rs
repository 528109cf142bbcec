//! What a bench found: a table for people, the best setting in words, and the same as JSON.

use keymill_bench::token::pace::Rate;
use keymill_bench::token::raw::Operation;
use serde::Serialize;

use crate::failure::Result;
use crate::output::{self, Rows, grouped, or_dash};

/// What is better by less than this is not better: the noise of a quiet machine.
const NOISE: f64 = 1.05;

/// Runs of one thing that differ by more are of a machine that does something else.
const NOISY: f64 = 0.15;

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) token: String,
    pub(super) serial: String,
    pub(super) model: String,
    pub(super) library: String,
    /// Seconds that were asked for.
    pub(super) seconds: u64,
    pub(super) runs: usize,
    pub(super) text_bytes: usize,
    pub(super) batch_items: usize,
    pub(super) sessions: Vec<usize>,
    pub(super) operations: Vec<Row>,
    /// Whether this program was built without optimisation, so that its own share is much too large.
    pub(super) unoptimised: bool,
}

/// One operation.
#[derive(Serialize)]
pub(super) struct Row {
    operation: &'static str,
    /// The module's own calls in a plain loop, by sessions.
    raw: Vec<Rate>,
    /// The same through the provider's batches, where it has them.
    seam: Vec<Rate>,
    best: Option<Best>,
    /// The provider by the plain loop, with as many sessions as are best for that, or as the provider takes.
    ratio: Option<f64>,
    ratio_sessions: Option<usize>,
    /// Why there are no rates, or no more of them.
    failure: Option<String>,
    #[serde(skip)]
    name: &'static str,
}

/// The setting to choose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Best {
    sessions: usize,
    per_s: f64,
    /// What more sessions do.
    more: &'static str,
}

impl Row {
    pub(super) fn new(
        operation: Operation,
        raw: Vec<Rate>,
        seam: Vec<Rate>,
        failure: Option<String>,
    ) -> Self {
        let best = best(&raw);
        let most = best.as_ref().map_or(0, |best| best.sessions);
        let ours = seam.iter().rev().find(|rate| rate.sessions <= most);
        let pair =
            ours.and_then(|ours| Some((ours, raw.iter().find(|rate| rate.sessions == ours.sessions)?)));
        let (ratio, ratio_sessions) =
            (pair.map(|(ours, raw)| ours.by(raw)), pair.map(|(ours, _)| ours.sessions));
        let name = operation.name();
        Self { operation: operation.id(), raw, seam, best, ratio, ratio_sessions, failure, name }
    }
}

/// Returns the fewest sessions with which it goes as fast as it goes.
fn best(rates: &[Rate]) -> Option<Best> {
    let top = rates.iter().map(|rate| rate.per_s).max_by(f64::total_cmp)?;
    let chosen = rates.iter().find(|rate| rate.per_s * NOISE >= top)?;
    let after = rates.iter().filter(|rate| rate.sessions > chosen.sessions).map(|rate| rate.per_s);
    let more = match after.max_by(f64::total_cmp) {
        None if rates.len() > 1 => "more may be faster yet",
        None => "",
        Some(fastest) if fastest * NOISE < chosen.per_s => "more makes it slower",
        Some(_) => "more changes nothing",
    };
    Some(Best { sessions: chosen.sessions, per_s: chosen.per_s, more })
}

/// Writes a rate with three figures, which is as much as it is worth.
fn figure(per_s: f64) -> String {
    let digits = if per_s >= 1.0 { per_s.log10().floor() as i32 } else { 0 };
    let unit = 10f64.powi((digits - 2).max(0));
    grouped(((per_s / unit).round() * unit) as u64)
}

fn sessions(count: usize) -> String {
    format!("{count} session{}", if count == 1 { "" } else { "s" })
}

impl Report {
    pub(super) fn print(&self) -> Result<()> {
        output::line(format_args!(
            "{}: {}, serial number {}, {}",
            self.token, self.model, self.serial, self.library
        ))?;
        output::line(format_args!(
            "calls a second by sessions, the median of {} runs; keymill: the same through the provider, {} at a time; ratio: keymill by raw\n",
            self.runs, self.batch_items
        ))?;
        let heads: Vec<String> = self.sessions.iter().map(ToString::to_string).collect();
        let mut head = vec!["operation", ""];
        head.extend(heads.iter().map(String::as_str));
        head.push("ratio");
        let numbers: Vec<usize> = (2..head.len()).collect();
        let mut rows = Rows::new(&head).numbers(&numbers);
        for row in &self.operations {
            let cells = |rates: &[Rate]| -> Vec<String> {
                let rate = |count: &usize| rates.iter().find(|rate| rate.sessions == *count);
                self.sessions
                    .iter()
                    .map(|count| or_dash(rate(count).map(|rate| figure(rate.per_s))))
                    .collect()
            };
            let mut add = |name: &str, who: &str, rates: &[Rate], ratio: Option<f64>| {
                let cells = cells(rates);
                let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
                let mut line: Vec<&dyn std::fmt::Display> = vec![&name, &who];
                line.extend(cells.iter().map(|cell| cell as &dyn std::fmt::Display));
                line.push(&ratio);
                rows.add(&line);
            };
            add(row.name, "raw", &row.raw, None);
            if !row.seam.is_empty() {
                add("", "keymill", &row.seam, row.ratio);
            }
        }
        rows.print("nothing was measured")?;
        output::line("")?;
        for row in &self.operations {
            match (&row.best, &row.failure) {
                (_, Some(failure)) => {
                    output::line(format_args!("{}: {}", row.name, output::harmless(failure)))?;
                }
                (Some(Best { sessions: count, per_s, more }), None) => {
                    let more = if more.is_empty() { String::new() } else { format!("; {more}") };
                    output::line(format_args!(
                        "{}: {}: {}/s{more}",
                        row.name,
                        sessions(*count),
                        figure(*per_s)
                    ))?;
                }
                (None, None) => {}
            }
        }
        let spreads =
            self.operations.iter().flat_map(|row| row.raw.iter().chain(&row.seam)).map(Rate::spread);
        let mut spreads: Vec<f64> = spreads.collect();
        spreads.sort_by(f64::total_cmp);
        // Of most rows: a single one may have met something.
        if let Some(spread) = spreads.get(spreads.len() / 2).filter(|spread| **spread > NOISY) {
            output::line(format_args!(
                "\nRuns differ by {:.0} % and more: something else uses the machine or the token; measure again when it is quiet.",
                100.0 * spread
            ))?;
        }
        if self.unoptimised {
            output::line(
                "\nThis program was built without optimisation: the figures of keymill are too low.",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_s: &[f64]) -> Vec<Rate> {
        per_s.iter().enumerate().map(|(at, per_s)| Rate::of(1 << at, vec![*per_s])).collect()
    }

    #[test]
    fn the_fewest_sessions_that_go_as_fast_are_the_best_setting() {
        let best = |per_s: &[f64]| best(&rates(per_s)).map(|best| (best.sessions, best.more));
        assert_eq!(best(&[97.0, 80.0, 90.0]), Some((1, "more makes it slower")));
        assert_eq!(best(&[97.0, 60.0, 96.0]), Some((1, "more changes nothing")));
        assert_eq!(best(&[50.0, 97.0, 98.0, 99.0]), Some((2, "more changes nothing")));
        assert_eq!(best(&[50.0, 97.0, 180.0]), Some((4, "more may be faster yet")));
        assert_eq!(best(&[50.0]), Some((1, "")));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn figures_have_as_many_digits_as_they_are_worth() {
        let told = [0.4, 7.6, 97.2, 996.0, 97_438.0, 1_134_567.0].map(figure);
        assert_eq!(told, ["0", "8", "97", "996", "97,400", "1,130,000"]);
    }

    #[test]
    fn the_ratio_is_that_of_the_same_number_of_sessions() {
        let ratio = |raw: &[f64], seam: &[f64]| {
            let row = Row::new(Operation::Seal, rates(raw), rates(seam), None);
            row.ratio_sessions.zip(row.ratio)
        };
        assert_eq!(ratio(&[100.0, 80.0], &[50.0, 90.0]), Some((1, 0.5)));
        assert_eq!(ratio(&[100.0, 200.0], &[50.0, 150.0]), Some((2, 0.75)));
        assert_eq!(ratio(&[100.0, 200.0], &[50.0]), Some((1, 0.5)), "custody has one lane");
        assert_eq!(ratio(&[100.0], &[]), None);
    }
}
