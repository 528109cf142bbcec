//! The run: which rows are wanted, the servers that they share, and the interleaving of their legs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymill_ceilings::{BareLoop, Mode};

use crate::args::BenchArgs;
use crate::error::Result;
use crate::fixture::Fixture;
use crate::report::{NotMeasured, Row, Unit};
use crate::stats::{self, Target, Verdict};

/// One run under way.
pub(crate) struct Plan<'a> {
    pub(crate) args: Choice<'a>,
    pub(crate) rows: Vec<Row>,
    pub(crate) not_measured: Vec<NotMeasured>,
    begun: Instant,
    /// Rows and curves that are still to be measured.
    left: usize,
    fixture: Option<Arc<Fixture>>,
    bare: Option<Arc<BareLoop>>,
    echo: Option<Arc<BareLoop>>,
}

/// What was asked for. In a run that only counts what that comes to, nothing is wanted, and what would have been is noted.
pub(crate) struct Choice<'a> {
    args: &'a BenchArgs,
    noted: Option<RefCell<BTreeSet<String>>>,
}

impl Deref for Choice<'_> {
    type Target = BenchArgs;

    fn deref(&self) -> &BenchArgs {
        self.args
    }
}

impl Choice<'_> {
    /// Tells whether what has this name is to be measured now.
    pub(crate) fn wants(&self, name: &str) -> bool {
        match &self.noted {
            None => self.args.wants(name),
            Some(noted) => {
                if self.args.wants(name) {
                    noted.borrow_mut().insert(name.to_owned());
                }
                false
            }
        }
    }
}

/// Counts what `measure` would measure, without measuring.
pub(crate) fn counted(args: &BenchArgs, measure: impl FnOnce(&mut Plan<'_>) -> Result<()>) -> Result<usize> {
    let mut plan = Plan::new(args, 0);
    plan.args.noted = Some(RefCell::default());
    measure(&mut plan)?;
    Ok(plan.args.noted.map_or(0, |noted| noted.into_inner().len()))
}

/// A row before it is measured.
pub(crate) struct Spec {
    pub(crate) name: String,
    /// Its ceilings, each with what the ratio to it should be.
    pub(crate) against: Vec<(&'static str, Option<Target>)>,
    pub(crate) unit: Unit,
}

/// Measures once for about so long and gives the figure.
pub(crate) type Leg<'l> = Box<dyn FnMut(Duration) -> Result<f64> + 'l>;

impl<'a> Plan<'a> {
    pub(crate) fn new(args: &'a BenchArgs, rows_and_curves: usize) -> Self {
        let args = Choice { args, noted: None };
        Self {
            args,
            rows: Vec::new(),
            not_measured: Vec::new(),
            begun: Instant::now(),
            left: rows_and_curves,
            fixture: None,
            bare: None,
            echo: None,
        }
    }

    /// Returns the keymill that the rows share, started by the first that asks.
    pub(crate) fn fixture(&mut self) -> Result<Arc<Fixture>> {
        shared(&mut self.fixture, Fixture::start)
    }

    pub(crate) fn bare(&mut self) -> Result<Arc<BareLoop>> {
        shared(&mut self.bare, || Ok(BareLoop::start(Mode::Seal)?))
    }

    pub(crate) fn echo(&mut self) -> Result<Arc<BareLoop>> {
        shared(&mut self.echo, || Ok(BareLoop::start(Mode::Echo)?))
    }

    /// Measures a row: ours, then each ceiling, then ours again, as many times as pairs were asked for. One row of the report a
    /// ceiling comes of it.
    pub(crate) fn measure<'l>(&mut self, spec: Spec, mut legs: Vec<Leg<'l>>) -> Result<&mut [Row]> {
        assert_eq!(legs.len(), 1 + spec.against.len(), "a leg of ours and one a ceiling");
        self.say(&spec.name);
        let seconds = self.next_seconds();
        let slice = self.args.slice(seconds, legs.len());
        let figures = interleaved(&mut legs, self.args.pairs(), slice)?;
        drop(legs);
        let (ours, ceilings) = figures.split_first().expect("there is a leg of ours");
        let first = self.rows.len();
        for ((against, target), ceiling) in spec.against.into_iter().zip(ceilings) {
            let ratio = stats::ratio(ours, ceiling);
            self.rows.push(Row {
                name: spec.name.clone(),
                against,
                unit: spec.unit,
                ours: stats::median(ours),
                ceiling: stats::median(ceiling),
                ratio,
                pairs: ours.len(),
                target,
                verdict: target.map_or(Verdict::None, |target| target.judge(&ratio)),
                also: std::collections::BTreeMap::new(),
            });
        }
        Ok(&mut self.rows[first..])
    }

    /// Returns how many seconds the row or curve that is begun now may last.
    pub(crate) fn next_seconds(&mut self) -> f64 {
        let seconds = self.args.seconds_of_next(self.begun.elapsed(), self.left);
        self.left = self.left.saturating_sub(1);
        seconds
    }

    /// Has the last `count` rows, which are one path beside several ceilings, become one beside the highest of them; what the others
    /// reached stands in it.
    pub(crate) fn keep_the_highest(&mut self, count: usize) {
        let mut rows = self.rows.split_off(self.rows.len() - count);
        rows.sort_by(|one, other| one.ceiling.total_cmp(&other.ceiling));
        if let Some(mut row) = rows.pop() {
            row.also.extend(rows.into_iter().map(|lower| (lower.against, lower.ceiling)));
            self.rows.push(row);
        }
    }

    /// Adds a row of what was counted once, beside what it is counted by.
    pub(crate) fn counted(
        &mut self,
        name: String,
        (against, target): (&'static str, Target),
        unit: Unit,
        ours: f64,
        ceiling: f64,
    ) {
        let ratio = stats::ratio(&[ours], &[ceiling]);
        self.rows.push(Row {
            name,
            against,
            unit,
            ours,
            ceiling,
            ratio,
            pairs: 1,
            target: Some(target),
            verdict: target.judge(&ratio),
            also: std::collections::BTreeMap::new(),
        });
    }

    pub(crate) fn say(&self, name: &str) {
        if io::stderr().is_terminal() {
            // Progress is a courtesy: nobody is harmed where it cannot be shown.
            drop(writeln!(io::stderr(), "measuring {name}"));
        }
    }
}

/// Measures each of `legs` for a `slice` in turn, so many times after a warm-up, and returns each one's figures.
pub(crate) fn interleaved(legs: &mut [Leg<'_>], pairs: usize, slice: Duration) -> Result<Vec<Vec<f64>>> {
    for leg in &mut *legs {
        leg(slice / 4)?;
    }
    let mut figures = vec![Vec::with_capacity(pairs); legs.len()];
    for _ in 0..pairs {
        for (leg, figures) in legs.iter_mut().zip(&mut figures) {
            figures.push(leg(slice)?);
        }
    }
    Ok(figures)
}

fn shared<T>(slot: &mut Option<Arc<T>>, start: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    if slot.is_none() {
        *slot = Some(Arc::new(start()?));
    }
    Ok(Arc::clone(slot.as_ref().expect("it was just filled")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_counts_notes_each_wanted_name_once_and_measures_nothing() {
        let args = BenchArgs { only: Some("tcp".into()), ..BenchArgs::default() };
        let count = counted(&args, |plan| {
            for name in ["tcp a", "tcp b", "tcp a", "http"] {
                assert!(!plan.args.wants(name));
            }
            Ok(())
        });
        assert_eq!(count.unwrap(), 2);
        assert!(Plan::new(&args, 1).args.wants("tcp a"));
    }

    #[test]
    fn legs_take_turns_after_one_warm_up_each() {
        let args = BenchArgs { pairs: 2, ..BenchArgs::default() };
        let mut plan = Plan::new(&args, 1);
        let calls = RefCell::new(String::new());
        let leg = |name: char, figure: f64| -> Leg<'_> {
            let calls = &calls;
            Box::new(move |_| {
                calls.borrow_mut().push(name);
                Ok(figure)
            })
        };
        let against = vec![("b", Some(Target::AtLeast(0.4))), ("c", None)];
        let spec = Spec { name: "row".into(), against, unit: Unit::Items };
        plan.measure(spec, vec![leg('a', 1.0), leg('b', 2.0), leg('c', 4.0)]).unwrap();
        assert_eq!(*calls.borrow(), "abcabcabc");
        let [b, c] = &plan.rows[..] else { panic!() };
        assert_eq!((b.ratio.median, b.verdict), (0.5, Verdict::Met));
        assert_eq!((c.ratio.median, c.verdict, c.pairs), (0.25, Verdict::None, 2));
    }
    #[test]
    fn of_several_ceilings_the_highest_is_kept_and_the_others_are_told() {
        let args = BenchArgs { pairs: 1, ..BenchArgs::default() };
        let mut plan = Plan::new(&args, 1);
        let leg = |figure: f64| -> Leg<'_> { Box::new(move |_| Ok(figure)) };
        let target = Some(Target::AtLeast(0.9));
        let against = vec![("one thread", target), ("two", target), ("three", target)];
        let spec = Spec { name: "row".into(), against, unit: Unit::Items };
        plan.measure(spec, vec![leg(9.0), leg(5.0), leg(12.0), leg(10.0)]).unwrap();
        plan.keep_the_highest(3);
        let [row] = &plan.rows[..] else { panic!() };
        assert_eq!(
            (row.against, row.ceiling, row.ratio.median, row.verdict),
            ("two", 12.0, 0.75, Verdict::Missed)
        );
        assert_eq!(row.also.clone().into_iter().collect::<Vec<_>>(), [("one thread", 5.0), ("three", 10.0)]);
    }

    #[test]
    fn what_is_counted_is_judged_at_once() {
        let args = BenchArgs::default();
        let mut plan = Plan::new(&args, 1);
        for (calls, verdict) in [(20.0, Verdict::Met), (21.0, Verdict::Missed)] {
            plan.counted("row".into(), ("epochs", Target::AtMost(2.0)), Unit::Calls, calls, 10.0);
            assert_eq!(plan.rows.last().unwrap().verdict, verdict);
        }
    }
}
