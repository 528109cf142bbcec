//! What a measurement is asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::token::Named;

/// Options of `keymill bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Seconds that each row is measured for, over all its pairs
    #[arg(long, default_value_t = 8.0, value_name = "SECONDS")]
    pub seconds_per_row: f64,
    /// Interleaved pairs of a row: ours, ceiling, ours, ceiling, …
    #[arg(long, default_value_t = 7, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub pairs: u16,
    /// Only the rows whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
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

    /// Returns how long one of `legs` lasts in a pair.
    pub(crate) fn slice(&self, legs: usize) -> Duration {
        let row = if self.quick { 0.5 } else { self.seconds_per_row.clamp(0.05, 3600.0) };
        Duration::from_secs_f64(row / (self.pairs() * legs) as f64)
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
            let row = args.slice(legs).as_secs_f64() * (legs * args.pairs()) as f64;
            assert!((row - 8.0).abs() < 1e-6, "{legs} legs take {row} s");
        }
        assert!(BenchArgs { quick: true, ..args }.slice(2) < Duration::from_millis(100));
    }

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name() {
        let args = BenchArgs { only: Some("tcp".into()), ..BenchArgs::default() };
        assert!(args.wants("tcp BatchEncrypt") && !args.wants("http Encrypt"));
    }
}
