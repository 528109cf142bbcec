//! An axis of a figure: its range, whether it is logarithmic, and where it is marked.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use crate::report::Unit;

/// An axis of what grows is logarithmic where that doubles at least three times, one of figures where they differ more than so much.
const GROWN: f64 = 8.0;
const APART: f64 = 20.0;
/// Marks that a linear axis of figures has, about.
const MARKS: f64 = 5.0;

/// A range of values, as they lie on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    range: Range<f64>,
    is_logarithmic: bool,
    marks: Vec<f64>,
}

impl Axis {
    /// Makes the axis of what grows, marked where it was measured.
    pub(super) fn of_points(points: &[f64]) -> Self {
        let (min, max) = ends(points);
        let is_logarithmic = max >= GROWN * min;
        let range = match is_logarithmic {
            true => min / 1.3..max * 1.3,
            false => {
                let margin = if max > min { 0.08 * (max - min) } else { 0.5 };
                min - margin..max + margin
            }
        };
        Self { range, is_logarithmic, marks: points.to_vec() }
    }

    /// Makes the axis of figures, marked at round ones, with room above the greatest. A linear one begins at zero.
    pub(super) fn of_figures(figures: &[f64]) -> Self {
        let (min, max) = ends(figures);
        let is_logarithmic = max > APART * min;
        let (range, candidates) = match is_logarithmic {
            true => (min / 1.5..max * 2.5, decades(min / 1.5, max * 2.5)),
            false => {
                let (top, step) = (1.18 * max, step(max / MARKS));
                (0.0..top, (0..).map(|n| f64::from(n) * step).take_while(|mark| *mark <= top).collect())
            }
        };
        let marks = candidates.into_iter().filter(|mark| range.contains(mark)).collect();
        Self { range, is_logarithmic, marks }
    }

    /// Returns the value so far along the axis: 0 at its beginning, 1 at its end.
    pub(super) fn at(&self, share: f64) -> f64 {
        let Range { start, end } = self.range;
        match self.is_logarithmic {
            true => start * (end / start).powf(share),
            false => start + share * (end - start),
        }
    }

    fn share(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        match self.is_logarithmic {
            true => (value / start).ln() / (end / start).ln(),
            false => (value - start) / (end - start),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.marks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Returns the least and the greatest; what is not above zero has no place on any axis here.
fn ends(values: &[f64]) -> (f64, f64) {
    let values = || values.iter().copied().filter(|value| value.is_finite() && *value > 0.0);
    let max = values().fold(0.0, f64::max);
    match values().reduce(f64::min) {
        Some(min) => (min, max),
        None => (1.0, 1.0),
    }
}

/// Returns 1, 2 or 5 times a power of ten: the least that is no less than `least`.
fn step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|n| n * decade)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(10.0 * decade)
}

/// Returns 1, 2 and 5 times powers of ten from `start` to `end`, or powers of ten alone where those would be many.
fn decades(start: f64, end: f64) -> Vec<f64> {
    let powers = start.log10().floor() as i32..=end.log10().ceil() as i32;
    let of: &[f64] = if (end / start).log10() > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    powers.flat_map(|power| of.iter().map(move |n| n * 10f64.powi(power))).collect()
}

/// Writes a mark of an axis of figures: `1.5 M` for 1,500,000.
pub(super) fn mark(value: f64) -> String {
    let (value, scale) = match value {
        1e6.. => (value / 1e6, " M"),
        1e3.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.2}");
    format!("{}{scale}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Says what an axis of figures counts.
pub(super) fn counts(unit: Unit) -> &'static str {
    match unit {
        Unit::Items => "items a second",
        Unit::Requests => "requests a second",
        Unit::Mebibytes => "MiB a second",
        Unit::Nanoseconds => "nanoseconds",
        Unit::Microseconds => "microseconds",
        Unit::Calls => "calls",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_of_decades_is_logarithmic_and_marked_where_it_was_measured() {
        let axis = Axis::of_points(&[1.0, 10.0, 100.0]);
        assert!(axis.is_logarithmic);
        assert_eq!(axis.marks, [1.0, 10.0, 100.0]);
        let at = |value| axis.map(&value, (0, 1000));
        assert!(((at(10.0) - at(1.0)) - (at(100.0) - at(10.0))).abs() <= 1);
        assert!(at(1.0) > 0 && at(100.0) < 1000);
    }

    #[test]
    fn an_axis_of_few_is_linear_and_one_point_lies_in_its_middle() {
        let axis = Axis::of_points(&[1.0, 2.0]);
        assert!(!axis.is_logarithmic && axis.range.start < 1.0 && axis.range.end > 2.0);
        assert_eq!(Axis::of_points(&[1.0]).map(&1.0, (0, 100)), 50);
    }

    #[test]
    fn figures_of_one_size_begin_at_zero_and_have_round_marks() {
        let axis = Axis::of_figures(&[800_000.0, 1_400_000.0]);
        assert_eq!(axis.range.start, 0.0);
        assert_eq!(axis.marks, [0.0, 5e5, 1e6, 1.5e6]);
        assert!(axis.range.end > 1.6e6);
    }

    #[test]
    fn figures_of_many_sizes_are_logarithmic() {
        let axis = Axis::of_figures(&[30.0, 8_000.0]);
        assert!(axis.is_logarithmic);
        for mark in [50.0, 100.0, 1_000.0, 10_000.0] {
            assert!(axis.marks.contains(&mark), "{mark} is not among {:?}", axis.marks);
        }
        assert!(axis.marks.iter().all(|mark| axis.range.contains(mark)));
        assert!((axis.at(0.0), axis.at(1.0)) == (axis.range.start, axis.range.end));
    }

    #[test]
    fn nothing_that_was_measured_is_an_axis_nonetheless() {
        let axis = Axis::of_figures(&[]);
        assert!(axis.range.start < axis.range.end && axis.marks.len() < 20);
    }

    #[test]
    fn marks_are_short() {
        let marks = [0.0, 50.0, 1_000.0, 250_000.0, 1_500_000.0, 20_000_000.0].map(mark);
        assert_eq!(marks, ["0", "50", "1 k", "250 k", "1.5 M", "20 M"]);
    }
}
