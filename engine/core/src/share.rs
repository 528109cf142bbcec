//! How nodes that do not ask each other share a limit: each computes its own part from what all of them said that they were asked for. Pure, and
//! the same on each, so that the parts are no more than the limit together.

/// One part of so many is divided evenly among all nodes before anything else: a node that was idle serves its first callers while the others do
/// not know of them.
const FLOOR: u64 = 32;

/// Returns the part of a limit for a node that is asked for `own`, beside others that are asked for so much: max-min fair. Who asks for less than
/// an even part gets that, and who asks for more shares what is left evenly. What nobody asks for is divided evenly as well.
pub fn part(limit: u64, own: u64, others: impl IntoIterator<Item = u64>) -> u64 {
    let mut others: Vec<u64> = others.into_iter().map(|asked| asked.min(limit)).collect();
    let nodes = others.len() as u64 + 1;
    let floor = limit / FLOOR / nodes;
    let own = own.min(limit).saturating_sub(floor);
    others.iter_mut().for_each(|asked| *asked = asked.saturating_sub(floor));
    let rest = limit - floor * nodes;
    let asked: u128 = others.iter().copied().map(u128::from).sum::<u128>() + u128::from(own);
    floor
        + match u128::from(rest).checked_sub(asked) {
            Some(left) => own + (left / u128::from(nodes)) as u64,
            None => own.min(level(rest, own, others)),
        }
}

/// Returns the most that anybody gets of what is too little for all.
fn level(mut rest: u64, own: u64, mut asked: Vec<u64>) -> u64 {
    asked.push(own);
    asked.sort_unstable();
    let mut left = asked.len() as u64;
    for asked in asked {
        if asked > rest / left {
            break;
        }
        rest -= asked;
        left -= 1;
    }
    rest / left.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each of several gets.
    fn parts(limit: u64, asked: &[u64]) -> Vec<u64> {
        let others =
            |at: usize| asked.iter().enumerate().filter(move |(n, _)| *n != at).map(|(_, asked)| *asked);
        (0..asked.len()).map(|at| part(limit, asked[at], others(at))).collect()
    }

    #[test]
    fn who_asks_for_little_leaves_the_rest_and_who_asks_for_nothing_has_a_little_all_the_same() {
        assert_eq!(parts(6_400, &[0]), [6_400]);
        assert_eq!(parts(6_400, &[0, 0]), [3_200, 3_200]);
        assert_eq!(parts(6_400, &[9_000, 9_000]), [3_200, 3_200]);
        assert_eq!(parts(6_400, &[9_000, 0]), [6_300, 100]);
        assert_eq!(parts(6_400, &[9_000, 1_000]), [5_400, 1_000]);
        assert_eq!(parts(6_400, &[1_000, 2_000]), [2_700, 3_700]);
        assert_eq!(parts(9_600, &[9_000, 1_000, 7_000]), [4_300, 1_000, 4_300]);
    }

    #[test]
    fn a_limit_of_nothing_or_of_all_there_is_divides_as_well() {
        assert_eq!(parts(0, &[5, 0]), [0, 0]);
        assert_eq!(parts(1, &[5, 5]), [0, 0]);
        assert_eq!(parts(u64::MAX, &[u64::MAX, u64::MAX]), [u64::MAX / 2; 2]);
    }

    fn asked() -> impl Strategy<Value = (u64, Vec<u64>)> {
        let limit = prop_oneof![0u64..100, 0u64..1_000_000_000, Just(u64::MAX)];
        limit.prop_flat_map(|limit| {
            let one = prop_oneof![Just(0), 0..=limit, 0..=limit.saturating_mul(2), Just(u64::MAX)];
            (Just(limit), proptest::collection::vec(one, 1..12))
        })
    }

    proptest! {
        #[test]
        fn all_parts_together_are_the_limit_but_for_what_does_not_divide((limit, asked) in asked()) {
            let sum: u128 = parts(limit, &asked).into_iter().map(u128::from).sum();
            prop_assert!(sum <= u128::from(limit), "{sum} of {limit}");
            prop_assert!(sum + 2 * asked.len() as u128 > u128::from(limit), "{sum} of {limit}");
        }

        #[test]
        fn nobody_is_refused_for_the_sake_of_one_who_has_more((limit, asked) in asked()) {
            let parts = parts(limit, &asked);
            let most = parts.iter().copied().max().unwrap_or(0);
            let is_short = |at: usize| parts[at] < asked[at].min(limit);
            let short = (0..asked.len()).filter(|at| is_short(*at)).map(|at| parts[at]).min();
            prop_assert!(short.is_none_or(|short| short + 1 >= most), "{parts:?} of {asked:?}");
        }

        #[test]
        fn who_asks_for_more_gets_no_less_and_leaves_others_no_more(
            (limit, mut asked) in asked(), at: prop::sample::Index, more: u64,
        ) {
            let before = parts(limit, &asked);
            let at = at.index(asked.len());
            asked[at] = asked[at].saturating_add(more);
            for (n, (before, after)) in before.into_iter().zip(parts(limit, &asked)).enumerate() {
                prop_assert!(if n == at { after >= before } else { after <= before }, "{n}: {before}, {after}");
            }
        }

        #[test]
        fn one_that_is_alone_has_all(limit: u64, own: u64) {
            prop_assert_eq!(part(limit, own, []), limit);
        }
    }
}
