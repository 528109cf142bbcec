//! How nodes share the quotas of callers that came to their limits: as they share that of the instance, each caller by itself.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use keymill_core::access::Caller;

use super::Members;
use super::shares::{self, Asked};
use crate::quota::{Quotas, Rates};
use crate::records::CallerAsked;

/// Callers that a node speaks of, at most: those that ask for most of what they may have.
const MOST: usize = 32;

/// What is known here of a caller.
struct Known {
    limits: Rates,
    /// Units that it had asked for when that was looked at last.
    counted: [u64; 3],
    asked: Asked,
}

impl Known {
    /// Returns what it asks for, in thousandths of the limit that it is nearest to.
    fn nearness(&self) -> u64 {
        let of = |(asked, limit): (&u64, &Option<u64>)| {
            limit.map_or(0, |limit| (u128::from(*asked) * 1_000 / u128::from(limit.max(1))) as u64)
        };
        self.asked.iter().zip(&self.limits).map(of).max().unwrap_or(0)
    }

    fn is_quiet(&self) -> bool {
        !shares::is_news([0; 3], self.asked, self.limits)
    }
}

/// The callers that came to their limits, here or elsewhere.
#[derive(Default)]
pub(super) struct Callers(HashMap<Caller, Known>);

impl Callers {
    /// Takes what each asked for since this was told last, which is so long ago.
    pub(super) fn count(&mut self, watched: Vec<(Caller, Rates, [u64; 3])>, time: Duration) {
        let mut before = std::mem::take(&mut self.0);
        for (caller, limits, counted) in watched {
            let (then, asked) =
                before.remove(&caller).map_or(([0; 3], [0; 3]), |known| (known.counted, known.asked));
            let units = std::array::from_fn(|at| counted[at].saturating_sub(then[at]));
            let asked = shares::asked(asked, units, time, limits);
            self.0.insert(caller, Known { limits, counted, asked });
        }
    }

    /// Returns what the others are to be told.
    pub(super) fn said(&self) -> Vec<CallerAsked> {
        let mut near: Vec<_> = self.0.iter().filter(|(_, known)| !known.is_quiet()).collect();
        near.sort_unstable_by_key(|(_, known)| Reverse(known.nearness()));
        near.iter().take(MOST).map(|(caller, known)| CallerAsked::new(caller, known.asked)).collect()
    }

    /// Tells whether the others should know.
    pub(super) fn are_news(&self, told: &[CallerAsked], said: &[CallerAsked]) -> bool {
        let told = by_caller(told);
        let is_news = |(caller, asked): (Caller, Asked)| {
            let before = told.get(&caller).copied().unwrap_or_default();
            self.0.get(&caller).is_some_and(|known| shares::is_news(before, asked, known.limits))
        };
        told.len() != said.len() || by_caller(said).into_iter().any(is_news)
    }

    /// Puts the part of each in force, by what this node has told and the others say; one of whom nobody speaks any more has its even part again.
    pub(super) fn settle(&self, quotas: &Quotas, told: &[CallerAsked], members: &Members) {
        let told = by_caller(told);
        let others = members.there(|record| by_caller(&record.callers[..record.callers.len().min(MOST)]));
        others.iter().flat_map(HashMap::keys).for_each(|caller| quotas.watch(caller));
        for (caller, limits, _) in quotas.watched() {
            let is_told = told.contains_key(&caller) || others.iter().any(|of| of.contains_key(&caller));
            // One that came a moment ago is told of the next time.
            let is_over = !is_told && self.0.get(&caller).is_some_and(Known::is_quiet);
            let of = |asked: &HashMap<Caller, Asked>| asked.get(&caller).copied().unwrap_or_default();
            let parts = || {
                let others: Vec<Asked> = others.iter().map(of).collect();
                shares::parts(limits, of(&told), &others)
            };
            quotas.set_caller(&caller, (!is_over).then(parts));
        }
    }
}

fn by_caller(asked: &[CallerAsked]) -> HashMap<Caller, Asked> {
    asked.iter().filter_map(|of| Some((of.caller()?, of.asked))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::QuotaConfig;
    use crate::records::{Formats, NodeRecord};
    use keymill_core::quota::{Quota, Rate, Taken};
    use keymill_core::seam::store::Revision;
    use keymill_core::time::Timestamp;
    use std::num::NonZeroU64;
    use std::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);
    const NS: u64 = 1_000_000_000;

    fn caller(n: usize) -> Caller {
        Caller::AccessKey(std::sync::Arc::new(format!("KMAK{n:08}").parse().unwrap()))
    }

    fn quotas() -> Quotas {
        let per_second = NonZeroU64::new(100).unwrap();
        let caller = Quota { requests: Some(Rate::new(per_second, per_second)), ..Quota::default() };
        Quotas::new(&QuotaConfig { caller, ..QuotaConfig::default() }, true)
    }

    fn within(quotas: &Quotas, second: u64) -> usize {
        let one = Taken { items: 0, bytes: 0 };
        (0..300).filter(|_| quotas.take(&caller(1), one, second * NS).is_none()).count()
    }

    fn hear(members: &Members, sequence: u64, callers: Vec<CallerAsked>) {
        let record = NodeRecord {
            process: "p".into(),
            software: "0".into(),
            formats: Formats::OURS,
            started_at: Timestamp::from_ms(0),
            drains: false,
            asked: [0; 3],
            requests_per_s: 0,
            callers,
        };
        members.said("b".parse().unwrap(), record, sequence, Revision(sequence), Instant::now());
    }

    #[test]
    fn one_that_asks_one_node_alone_has_nearly_all_there_and_half_once_it_asks_two() {
        let (quotas, mut callers) = (quotas(), Callers::default());
        let members = Members::new(10 * SECOND, Instant::now());
        hear(&members, 1, Vec::new());
        quotas.set_parts(2, [None; 3]);
        assert_eq!(within(&quotas, 10), 50);
        callers.count(quotas.watched(), SECOND);
        let told = callers.said();
        assert_eq!(told, [CallerAsked::new(&caller(1), [100_000, 0, 0])]);
        assert!(callers.are_news(&[], &told) && !callers.are_news(&told, &told));
        callers.settle(&quotas, &told, &members);
        assert_eq!(within(&quotas, 20), 98);
        // The other says that it is asked as well.
        hear(&members, 2, told.clone());
        callers.settle(&quotas, &told, &members);
        assert_eq!(within(&quotas, 30), 50);
        // It asks here no more: the other has what it needs, and here is a little left.
        callers.settle(&quotas, &[], &members);
        assert_eq!(within(&quotas, 40), 1);
    }

    #[test]
    fn one_that_came_to_its_limit_elsewhere_is_counted_here_and_forgotten_when_nobody_speaks_of_it() {
        let (quotas, mut callers) = (quotas(), Callers::default());
        let members = Members::new(10 * SECOND, Instant::now());
        quotas.set_parts(2, [None; 3]);
        hear(&members, 1, vec![CallerAsked::new(&caller(1), [60_000, 0, 0])]);
        callers.settle(&quotas, &[], &members);
        assert_eq!(within(&quotas, 10), 20, "the even half of what is left");
        callers.count(quotas.watched(), SECOND);
        assert_eq!(callers.said().len(), 1);
        hear(&members, 2, Vec::new());
        for _ in 0..10 {
            callers.count(quotas.watched(), SECOND);
            let told = callers.said();
            callers.settle(&quotas, &told, &members);
        }
        assert!(quotas.watched().is_empty() && callers.said().is_empty());
        assert_eq!(within(&quotas, 20), 50);
    }
}
