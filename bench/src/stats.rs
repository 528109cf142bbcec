//! Medians of interleaved pairs, and when a target is met: pure functions.

use serde::Serialize;

/// The ratio of ours to the ceiling, pair by pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The lower end of the median's 95 % interval (all pairs, where they are fewer than six).
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Rates: the more the better.
    AtLeast(f64),
    /// Times: the less the better.
    AtMost(f64),
}

/// Whether a target was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The interval lies on the right side of the target.
    #[serde(rename = "met")]
    Met,
    /// The interval lies on the wrong side.
    #[serde(rename = "missed")]
    Missed,
    /// The interval straddles it: more pairs, or a quieter machine, would tell.
    #[serde(rename = "not resolved")]
    NotResolved,
    /// There is no target.
    #[serde(rename = "none")]
    None,
}

impl Target {
    /// Judges a ratio by its interval.
    pub fn judge(self, ratio: &Ratio) -> Verdict {
        let (met, missed) = match self {
            Target::AtLeast(target) => (ratio.low >= target, ratio.high < target),
            Target::AtMost(target) => (ratio.high <= target, ratio.low > target),
        };
        match (met, missed) {
            (true, _) => Verdict::Met,
            (_, true) => Verdict::Missed,
            _ => Verdict::NotResolved,
        }
    }
}

/// Returns the middle value; of an even number the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let n = sorted.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Returns the value below which a share `at` of `values` lies.
pub(crate) fn percentile(values: &[f64], at: f64) -> f64 {
    let sorted = sorted(values);
    let last = sorted.len().saturating_sub(1);
    sorted.get(((sorted.len() as f64 * at) as usize).min(last)).copied().unwrap_or(f64::NAN)
}

/// Returns the pairwise ratio of two series of one length.
pub fn ratio(ours: &[f64], ceiling: &[f64]) -> Ratio {
    let ratios = sorted(&ours.iter().zip(ceiling).map(|(ours, ceiling)| ours / ceiling).collect::<Vec<_>>());
    let [min, .., max] = ratios[..] else {
        let only = ratios.first().copied().unwrap_or(f64::NAN);
        return Ratio { median: only, min: only, max: only, low: only, high: only };
    };
    let outside = outside_interval(ratios.len());
    let (low, high) = (ratios[outside], ratios[ratios.len() - 1 - outside]);
    Ratio { median: median(&ratios), min, max, low, high }
}

/// Returns how many of `n` sorted values lie on each side of the 95 % interval of their median: the sign test's order
/// statistics, which ask nothing of the distribution.
fn outside_interval(n: usize) -> usize {
    let mut chance = 0.5f64.powi(n as i32);
    let mut tail = chance;
    let mut outside = 0;
    for k in 1..n {
        chance *= (n - k + 1) as f64 / k as f64;
        tail += chance;
        if tail > 0.025 {
            break;
        }
        outside = k;
    }
    outside
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_of_the_sorted_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99)), (50.0, 99.0));
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_the_sign_test() {
        // Tables of the sign test, two-sided at 5 %: n = 5 has none, 6 to 8 leave out none and 0, 31 leaves out 9.
        assert_eq!([5, 7, 8, 9, 11, 31].map(outside_interval), [0, 0, 0, 1, 1, 9]);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let ratio = ratio(&[1.0, 10.0, 3.0], &[2.0, 10.0, 4.0]);
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 0.75, 1.0));
    }

    #[test]
    fn a_target_is_missed_only_if_the_whole_interval_is_on_the_wrong_side() {
        let ratio = Ratio { median: 0.7, min: 0.5, max: 0.9, low: 0.6, high: 0.8 };
        assert_eq!(Target::AtLeast(0.6).judge(&ratio), Verdict::Met);
        assert_eq!(Target::AtLeast(0.7).judge(&ratio), Verdict::NotResolved);
        assert_eq!(Target::AtLeast(0.81).judge(&ratio), Verdict::Missed);
        assert_eq!(Target::AtMost(0.8).judge(&ratio), Verdict::Met);
        assert_eq!(Target::AtMost(0.7).judge(&ratio), Verdict::NotResolved);
        assert_eq!(Target::AtMost(0.59).judge(&ratio), Verdict::Missed);
    }
}
