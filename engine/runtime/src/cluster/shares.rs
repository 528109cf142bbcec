//! How much of the instance's quota this node gives: its part by what all nodes that are there were asked for, itself among them.

use std::time::Duration;

use keymill_core::share;

use super::Cluster;
use crate::quota::Rates;
use crate::shared::Shared;

/// A change of what is asked for by more than this part of the limit is told to the others at once.
const NEWS: u64 = 20;

/// What is asked for, of requests, items and bytes, in thousandths of a unit a second.
pub(crate) type Asked = [u64; 3];

/// Returns the part of each rate for a node that is asked for `own`, beside others.
pub(crate) fn parts(limits: Rates, own: Asked, others: &[Asked]) -> Rates {
    std::array::from_fn(|at| {
        limits[at].map(|limit| share::part(limit, own[at], others.iter().map(|asked| asked[at])))
    })
}

/// Returns what a node says it is asked for, after it counted so many units in a time. More is said at once; less is believed by halves, since the
/// callers of a moment ago may only have drawn breath. More than the limit is as good as the limit.
pub(crate) fn asked(before: Asked, units: [u64; 3], time: Duration, limits: Rates) -> Asked {
    let micros = u128::from(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    std::array::from_fn(|at| {
        let rate = u128::from(units[at]) * 1_000_000_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        limits[at].map_or(0, |limit| rate.min(limit).max(before[at] / 2))
    })
}

/// Tells whether the others should know.
pub(crate) fn is_news(told: Asked, asked: Asked, limits: Rates) -> bool {
    let is_news = |at: usize| limits[at].is_some_and(|limit| told[at].abs_diff(asked[at]) > limit / NEWS);
    (0..told.len()).any(is_news)
}

/// Returns the part of each rate of the instance that this node gives as of now.
fn parts_here(shared: &Shared, cluster: &Cluster) -> Rates {
    let others = cluster.members.there(|record| record.asked);
    parts(shared.quotas.limits(), *cluster.asked.lock(), &others)
}

/// Returns the same as shares of the whole.
pub(crate) fn parts_of_all(shared: &Shared, cluster: &Cluster) -> [Option<f64>; 3] {
    let (limits, parts) = (shared.quotas.limits(), parts_here(shared, cluster));
    std::array::from_fn(|at| Some(parts[at]? as f64 / limits[at]? as f64))
}

/// Puts these parts in force.
pub(super) fn settle(shared: &Shared, cluster: &Cluster) {
    shared.quotas.set_parts(cluster.nodes(), parts_here(shared, cluster));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Rates = [Some(400_000), None, Some(8_000)];
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_rate_is_shared_by_what_is_asked_of_it() {
        let others = [[400_000, 5, 0], [100_000, 5, 0]];
        assert_eq!(parts(LIMITS, [400_000, 0, 0], &others), [Some(150_000), None, Some(2_666)]);
        assert_eq!(parts(LIMITS, [0; 3], &[]), LIMITS);
    }

    #[test]
    fn more_is_said_at_once_and_less_by_halves() {
        assert_eq!(asked([0; 3], [100, 100, 1], SECOND, LIMITS), [100_000, 0, 1_000]);
        assert_eq!(asked([0; 3], [100, 0, 0], SECOND / 2, LIMITS), [200_000, 0, 0]);
        assert_eq!(asked([0; 3], [u64::MAX; 3], Duration::ZERO, LIMITS), [400_000, 0, 8_000]);
        let (mut said, mut times) = ([400_000, 0, 8_000], 0);
        while said != [0; 3] {
            said = asked(said, [0; 3], SECOND, LIMITS);
            times += 1;
        }
        assert!((5..25).contains(&times), "{times}");
    }

    #[test]
    fn others_are_told_of_what_changes_their_parts_and_of_nothing_else() {
        assert!(!is_news([400_000, 0, 0], [380_000, 9, 400], LIMITS));
        assert!(is_news([400_000, 0, 0], [379_999, 0, 0], LIMITS));
        assert!(is_news([0; 3], [0, 0, 401], LIMITS));
    }
}
