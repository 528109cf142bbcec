//! What was measured, a line a figure.

use keymill_bench::stats::{self, Target};

/// Pairs of rates: ours, and what it is measured against.
#[derive(Default)]
pub(crate) struct Row {
    ours: Vec<f64>,
    against: Vec<f64>,
}

impl Row {
    pub(crate) fn push(&mut self, ours: f64, against: f64) {
        self.ours.push(ours);
        self.against.push(against);
    }

    /// Prints medians, and the ratio pair by pair.
    pub(crate) fn print(&self, name: &str, unit: &str, target: Option<f64>) {
        let ratio = stats::ratio(&self.ours, &self.against);
        let (ours, against) = (median(&self.ours), median(&self.against));
        let judged = target.map_or(String::new(), |least| {
            format!(", at least {least} asked: {:?}", Target::AtLeast(least).judge(&ratio))
        });
        println!(
            "{name}: {ours:.0} {unit} against {against:.0}, {:.2} ({:.2} to {:.2}){judged}",
            ratio.median, ratio.min, ratio.max
        );
    }
}

/// Prints a figure that is bounded by itself.
pub(crate) fn figure(name: &str, unit: &str, ours: f64, with_few: f64, most: f64) {
    let verdict = if ours <= most { "met" } else { "missed" };
    let beside = if with_few.is_nan() { String::new() } else { format!(" ({with_few:.2} {unit} with ten)") };
    println!("{name}: {ours:.2} {unit}{beside}, at most {most} asked: {verdict}");
}

pub(crate) fn median(values: &[f64]) -> f64 {
    stats::median(values)
}
