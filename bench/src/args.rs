//! What a measurement is asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::token::Named;

/// Pairs of a row where everything is measured: what a target is judged by.
const ALL_PAIRS: u16 = 31;
/// Pairs of a point of a curve, at most.
const POINT_PAIRS: usize = 7;
/// What a run of everything may last, in seconds.
const ALL_SECONDS: f64 = 600.0;
/// What is left of that for servers that start, keys that are made, what is counted, and legs that outlast their slice, since they wait for what
/// is under way.
const BESIDE_SECONDS: f64 = 120.0;
/// The shortest leg that says something: system calls, wake-ups and the audit's sync (each 50 ms) are a small part of it.
const SHORTEST_LEG: Duration = Duration::from_millis(60);

/// Options of `keymill bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Seconds that each row is measured for, over all its pairs
    #[arg(long, default_value_t = 8.0, value_name = "SECONDS")]
    pub seconds_per_row: f64,
    /// Interleaved pairs of a row: ours, ceiling, ours, ceiling, …
    #[arg(long, default_value_t = 7, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub pairs: u16,
    /// Only the rows, counts, memory and curves whose name contains this: "tcp", "count", "memory", "curve"
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Everything at once: every row by 31 pairs, the growth curves, memory; ten minutes at most
    #[arg(long, conflicts_with_all = ["only", "pairs", "seconds_per_row"])]
    pub all: bool,
    /// Measure the growth curves, too, and draw each as DIR/NAME.svg, with their numbers in DIR/curves.json
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Three short pairs a row: whether it runs, not how fast it is
    #[arg(long)]
    pub quick: bool,
    /// A PKCS#11 module for the rows that need a token: softhsm (found by itself where it is installed), kryoptic or simulator
    #[arg(long = "module", value_name = "NAME=PATH")]
    pub modules: Vec<Named>,
    /// The scratch directory for tokens, for the bench that the bench started
    #[arg(long = "token-place", value_name = "DIR", hide = true)]
    pub place: Option<PathBuf>,
}

impl Default for BenchArgs {
    fn default() -> Self {
        Self {
            seconds_per_row: 8.0,
            pairs: 7,
            only: None,
            all: false,
            plot: None,
            json: false,
            quick: false,
            modules: Vec::new(),
            place: None,
        }
    }
}

impl BenchArgs {
    pub(crate) fn pairs(&self) -> usize {
        if self.quick { 3 } else { usize::from(self.pairs.max(1)) }
    }

    /// Returns pairs of a point of a curve.
    pub(crate) fn point_pairs(&self) -> usize {
        self.pairs().min(POINT_PAIRS)
    }

    /// Returns how long one of `legs` of a row of so many seconds lasts in a pair.
    pub(crate) fn slice(&self, row: f64, legs: usize) -> Duration {
        self.share(row, self.pairs() * legs)
    }

    /// Returns how long each of the two legs of one of `points` lasts in a pair: a curve lasts as long as a row does.
    pub(crate) fn point_slice(&self, row: f64, points: usize) -> Duration {
        self.share(row, 2 * self.point_pairs() * points)
    }

    fn share(&self, row: f64, legs: usize) -> Duration {
        let row = if self.quick { 0.5 } else { row.clamp(0.05, 3600.0) };
        let leg = Duration::from_secs_f64(row / legs.max(1) as f64);
        if self.all && !self.quick { leg.max(SHORTEST_LEG) } else { leg }
    }

    /// Tells whether the growth curves are measured.
    pub(crate) fn curves(&self) -> bool {
        self.all || self.plot.is_some()
    }

    /// Returns what `--all` stands for, where it was given, in a run of so many rows and curves: they share the time of the run alike.
    pub(crate) fn settled(&self, rows_and_curves: usize) -> Self {
        match self.all {
            false => self.clone(),
            true => Self {
                pairs: ALL_PAIRS,
                seconds_per_row: (ALL_SECONDS - BESIDE_SECONDS) / rows_and_curves.max(1) as f64,
                ..self.clone()
            },
        }
    }

    /// Returns the seconds of the next row where everything is measured, `left` remain of it, and `passed` is how long the run lasts already: what
    /// was not foreseen is taken from those that follow.
    pub(crate) fn seconds_of_next(&self, passed: Duration, left: usize) -> f64 {
        match self.all {
            false => self.seconds_per_row,
            true => {
                ((ALL_SECONDS - passed.as_secs_f64()) / left.max(1) as f64).clamp(0.0, self.seconds_per_row)
            }
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|text| name.contains(text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lasts_as_long_as_asked_for_however_many_legs_share_it() {
        let args = BenchArgs::default();
        for legs in [1, 2, 3] {
            let row = args.slice(args.seconds_per_row, legs).as_secs_f64() * (legs * args.pairs()) as f64;
            assert!((row - 8.0).abs() < 1e-6, "{legs} legs take {row} s");
        }
        assert!(BenchArgs { quick: true, ..args }.slice(8.0, 2) < Duration::from_millis(100));
    }

    #[test]
    fn everything_takes_ten_minutes_at_most_by_legs_that_are_long_enough() {
        let all = BenchArgs { all: true, ..BenchArgs::default() };
        // As many as there are, and half as many again; three legs are the most that a row has, seven points a curve.
        for rows in [1, 40, 60, 78] {
            let args = all.settled(rows);
            assert_eq!(args.pairs(), 31);
            let (leg, point) =
                (args.slice(args.seconds_per_row, 3), args.point_slice(args.seconds_per_row, 7));
            assert!(leg >= SHORTEST_LEG && point >= SHORTEST_LEG);
            let row = leg.as_secs_f64() * (3 * args.pairs()) as f64;
            let curve = point.as_secs_f64() * (2 * 7 * args.point_pairs()) as f64;
            let longest = row.max(curve) * rows as f64 + BESIDE_SECONDS;
            assert!(longest <= ALL_SECONDS + 0.1, "{rows} rows and curves take {longest} s");
        }
        // More of them take longer, and are measured no worse.
        let many = all.settled(1000);
        assert_eq!(many.slice(many.seconds_per_row, 3), SHORTEST_LEG);
    }

    #[test]
    fn rows_that_took_longer_than_foreseen_shorten_those_that_follow() {
        let all = BenchArgs { all: true, ..BenchArgs::default() }.settled(48);
        let next = |passed, left| all.seconds_of_next(Duration::from_secs(passed), left);
        // 480 seconds of 48 rows; no row gets more than its share, however early.
        assert_eq!([next(0, 48), next(120, 48), next(240, 48), next(570, 10)], [10.0, 10.0, 7.5, 3.0]);
        assert_eq!((next(700, 5), next(600, 0)), (0.0, 0.0));
        assert_eq!(all.slice(next(700, 5), 3), SHORTEST_LEG);
        assert_eq!(BenchArgs::default().seconds_of_next(Duration::from_secs(9_000), 1), 8.0);
    }

    #[test]
    fn everything_in_a_hurry_is_as_short_as_some_of_it() {
        let args = BenchArgs { all: true, quick: true, ..BenchArgs::default() }.settled(60);
        assert_eq!((args.pairs(), args.point_pairs()), (3, 3));
        assert!(args.slice(args.seconds_per_row, 3) < SHORTEST_LEG);
        assert_eq!(BenchArgs::default().settled(60).pairs(), 7);
    }

    #[test]
    fn curves_are_measured_where_they_are_drawn_or_where_everything_is() {
        let args = BenchArgs::default();
        assert!(!args.curves());
        assert!(BenchArgs { all: true, ..args.clone() }.curves());
        assert!(BenchArgs { plot: Some("figures".into()), ..args }.curves());
    }

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name() {
        let args = BenchArgs { only: Some("tcp".into()), ..BenchArgs::default() };
        assert!(args.wants("tcp BatchEncrypt") && !args.wants("http Encrypt"));
    }
}
