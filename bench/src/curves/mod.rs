//! Growth curves: a rate against what it may depend on, with the ceiling beside it at every point, measured by turns.

mod cores;
mod in_process;
mod tcp;

use serde::Serialize;

use crate::error::Result;
use crate::plan::{Leg, Plan, interleaved};
use crate::report::Unit;
use crate::stats::{self, Ratio};

/// A curve, and its ceiling's.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// Its name, which is also its file's.
    pub name: &'static str,
    /// What is measured.
    pub title: String,
    /// What grows, and in which unit.
    pub x: &'static str,
    /// What the figures count.
    pub unit: Unit,
    /// Whose they are.
    pub ours: &'static str,
    /// Whose the ceiling's are.
    pub against: &'static str,
    /// The points, by what grows.
    pub points: Vec<Point>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// How much there is of what grows.
    pub x: f64,
    /// Ours.
    pub ours: Spread,
    /// The ceiling.
    pub ceiling: Spread,
    /// Ours to the ceiling, pair by pair.
    pub ratio: Ratio,
    /// Pairs that were measured.
    pub pairs: usize,
}

/// The median of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    fn of(figures: &[f64]) -> Self {
        let (min, max) = figures.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), figure| {
            (min.min(*figure), max.max(*figure))
        });
        Self { median: stats::median(figures), min, max }
    }
}

/// Points of a curve in a run that asks only whether it works; the least, since they are also the cheapest.
const FEW: usize = 3;

/// A curve before it is measured.
struct Draft {
    name: &'static str,
    title: String,
    x: &'static str,
    unit: Unit,
    against: &'static str,
    xs: Vec<usize>,
}

/// Measures every curve that is wanted.
pub(crate) fn measure(plan: &mut Plan<'_>) -> Result<Vec<Curve>> {
    let mut curves = Vec::new();
    curves.extend(tcp::batch_size(plan)?);
    curves.extend(in_process::item_size(plan)?);
    curves.extend(tcp::connections(plan)?);
    curves.extend(in_process::keys(plan)?);
    curves.extend(tcp::principals(plan)?);
    curves.extend(cores::in_process(plan)?);
    curves.extend(cores::tcp(plan)?);
    Ok(curves)
}

/// Measures a curve, if it is wanted: at each point `legs` makes ours and the ceiling.
fn curve<'l>(
    plan: &mut Plan<'_>,
    draft: Draft,
    mut legs: impl FnMut(&mut Plan<'_>, usize) -> Result<[Leg<'l>; 2]>,
) -> Result<Option<Curve>> {
    let Draft { name, title, x, unit, against, xs } = draft;
    if !plan.args.wants(&format!("curve {name}")) {
        return Ok(None);
    }
    let few = if plan.args.quick { FEW } else { xs.len() };
    let (pairs, slice) = (plan.args.point_pairs(), plan.args.point_slice(xs.len()));
    let mut points = Vec::with_capacity(xs.len());
    for at in xs.into_iter().take(few) {
        plan.say(&format!("curve {name} at {at}"));
        let mut legs = legs(plan, at)?;
        let figures = interleaved(&mut legs, pairs, slice)?;
        points.push(point(at as f64, &figures[0], &figures[1]));
    }
    Ok(Some(Curve { name, title, x, unit, ours: "keymill", against, points }))
}

fn point(x: f64, ours: &[f64], ceiling: &[f64]) -> Point {
    Point {
        x,
        ours: Spread::of(ours),
        ceiling: Spread::of(ceiling),
        ratio: stats::ratio(ours, ceiling),
        pairs: ours.len(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::args::BenchArgs;

    /// Makes a curve of these points: what grows, ours and the ceiling, each 10 % apart.
    pub(crate) fn drawn(xs: &[(f64, f64, f64)]) -> Curve {
        let spread = |figure: f64| [0.9 * figure, figure, 1.1 * figure];
        Curve {
            name: "batch-size",
            title: "A rate by what grows".into(),
            x: "items a batch",
            unit: Unit::Items,
            ours: "keymill",
            against: "bare loop",
            points: xs
                .iter()
                .map(|(x, ours, ceiling)| point(*x, &spread(*ours), &spread(*ceiling)))
                .collect(),
        }
    }

    #[test]
    fn a_point_keeps_the_median_the_least_and_the_greatest_of_both() {
        let point = point(4.0, &[3.0, 1.0, 2.0], &[4.0, 4.0, 8.0]);
        assert_eq!(point.ours, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(point.ceiling, Spread { median: 4.0, min: 4.0, max: 8.0 });
        assert_eq!((point.ratio.median, point.pairs), (0.25, 3));
    }

    #[test]
    fn ours_and_the_ceiling_take_turns_at_each_point_and_few_points_do_in_a_hurry() {
        let args = BenchArgs { quick: true, plot: Some("figures".into()), ..BenchArgs::default() };
        let calls = RefCell::new(String::new());
        let draft = Draft {
            name: "batch-size",
            title: String::new(),
            x: "items",
            unit: Unit::Items,
            against: "raw",
            xs: vec![1, 2, 4, 8],
        };
        let leg = |name: char, figure: usize| -> Leg<'_> {
            let calls = &calls;
            Box::new(move |_| {
                calls.borrow_mut().push(name);
                Ok(figure as f64)
            })
        };
        let curve = curve(&mut Plan::new(&args), draft, |_, at| Ok([leg('a', at), leg('b', 2 * at)]));
        let curve = curve.unwrap().unwrap();
        assert_eq!(*calls.borrow(), "abababab".repeat(3));
        assert_eq!(curve.points.iter().map(|point| point.x).collect::<Vec<_>>(), [1.0, 2.0, 4.0]);
        assert!(curve.points.iter().all(|point| point.ratio.median == 0.5));
    }
}
