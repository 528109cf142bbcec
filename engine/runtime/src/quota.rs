//! Quotas in force: for each caller a few numbers that cores change without a lock, in a table of a fixed size; and what becomes of work
//! that is over its quota. Without a quota there is no table, and nothing is looked up. Of the instance's quota a node that is one of several has
//! a part, which changes with what all of them are asked for.

mod part;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use keymill_core::access::Caller;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::quota::{Quota, Taken, Verdict, ticks};

pub(crate) use part::Rates;
use part::{CallerParts, NodePart};

/// Callers whose numbers may stand in the place of one.
const WAYS: usize = 8;
/// Retries of a number that other cores change at the same time, after which the work is let through: the others are counted.
const TRIES: usize = 64;

/// The quotas of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Of everything that the instance does.
    pub instance: Quota,
    /// Of each caller that has none of its own: an access key, or an application with all its client keys.
    pub caller: Quota,
    /// Of callers that have one of their own.
    pub named: Vec<(Caller, Quota)>,
    /// Jobs that may wait before work that is over its quota is refused.
    pub idle_jobs: usize,
    /// Callers whose use is remembered at a time, at least.
    pub callers: usize,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self {
            instance: Quota::default(),
            caller: Quota::default(),
            named: Vec::new(),
            idle_jobs: 64,
            callers: 16_384,
        }
    }
}

/// That work is over its quota, and how long it would have to wait to be within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverQuota {
    wait_ms: Option<u32>,
}

impl OverQuota {
    fn of(wait_ns: Option<u64>) -> Self {
        let ms = |ns: u64| u32::try_from(ns.div_ceil(1_000_000)).unwrap_or(u32::MAX);
        Self { wait_ms: wait_ns.map(ms) }
    }

    /// Returns what a caller is told whose work is refused for it.
    pub(crate) fn error(self) -> Error {
        match self.wait_ms {
            Some(ms) => {
                let why = "over the quota, and others need what there is: slow down, or try again later";
                Error::new(ErrorKind::OverQuota, why).retry_after_ms(ms)
            }
            None => {
                let why = "the request alone is more than the quota gives at once, and others need what there is: split it";
                Error::new(ErrorKind::OverQuota, why).retry_after_ms(1_000)
            }
        }
    }
}

/// Until when what was taken of each rate is paid back, in ticks.
type Owed = [AtomicU64; 3];

/// The instance's own.
struct Instance {
    quota: Quota,
    owed: Owed,
    /// Where this node is one of several.
    part: Option<Box<NodePart>>,
}

/// The numbers of one caller, or of one that was there before.
#[derive(Default)]
struct Row {
    /// The caller's hash, keyed at random; 0: nobody's yet.
    of: AtomicU64,
    owed: Owed,
}

impl Instance {
    fn new(quota: Quota, is_one_of_several: bool) -> Self {
        Self { quota, owed: Owed::default(), part: is_one_of_several.then(Box::default) }
    }

    /// Returns the same under another quota: what was taken is owed as before, and of each rate this node has the share that it had of the one before.
    fn under(&self, quota: Quota, nodes: u64) -> Self {
        let owed = self.owed.each_ref().map(|owed| AtomicU64::new(owed.load(Ordering::Relaxed)));
        let part = self.part.as_ref().map(|part| Box::new(part.under(&self.quota, &quota, nodes)));
        Self { quota, owed, part }
    }
}

/// The quotas in force.
pub(crate) struct Quotas {
    instance: ArcSwapOption<Instance>,
    is_one_of_several: bool,
    /// Nodes that are there.
    nodes: AtomicU64,
    caller: Quota,
    named: HashMap<Caller, Quota>,
    /// Sets of [`WAYS`] rows; none where no caller has a quota.
    rows: Box<[[Row; WAYS]]>,
    hasher: RandomState,
    /// Where this node is one of several, and callers have quotas.
    parts: Option<CallerParts>,
}

impl Quotas {
    /// Makes those of a node: of one that is one of several, where that is said.
    pub(crate) fn new(config: &QuotaConfig, is_one_of_several: bool) -> Self {
        let named: HashMap<_, _> = config.named.iter().cloned().collect();
        let is_any = !config.caller.is_unlimited() || named.values().any(|quota| !quota.is_unlimited());
        let sets = if is_any { config.callers.div_ceil(WAYS).max(1) } else { 0 };
        Self {
            instance: ArcSwapOption::new(
                (!config.instance.is_unlimited())
                    .then(|| Arc::new(Instance::new(config.instance, is_one_of_several))),
            ),
            is_one_of_several,
            nodes: AtomicU64::new(1),
            caller: config.caller,
            named,
            rows: (0..sets).map(|_| Default::default()).collect(),
            hasher: RandomState::new(),
            parts: (is_one_of_several && is_any).then(CallerParts::default),
        }
    }

    /// Has the instance keep to another quota from now on. To say it once more gives nobody a burst: what it owed it owes, and a node that is one of
    /// several has no more than its share before all have agreed on the parts.
    pub(crate) fn set_instance(&self, quota: Quota) {
        let before = self.instance.load_full();
        if before.as_ref().is_some_and(|before| before.quota == quota) {
            return;
        }
        let nodes = self.nodes.load(Ordering::Relaxed);
        let under = |quota| match before {
            Some(before) => before.under(quota, nodes),
            None => Instance::new(Quota::default(), self.is_one_of_several).under(quota, nodes),
        };
        self.instance.store((!quota.is_unlimited()).then(|| Arc::new(under(quota))));
    }

    /// Tells whether anything is limited.
    pub(crate) fn are_any(&self) -> bool {
        self.instance.load().is_some() || !self.rows.is_empty()
    }

    /// Returns the quota of a caller, where it has one.
    fn quota_of(&self, caller: &Caller) -> Option<&Quota> {
        let quota = || self.named.get(caller).unwrap_or(&self.caller);
        (!self.rows.is_empty()).then(quota).filter(|quota| !quota.is_unlimited())
    }

    /// Takes a caller's work of its quota and of the instance's; of what is over one of them nothing is taken. `now` is steady time.
    pub(crate) fn take(&self, caller: &Caller, taken: Taken, now_ns: u64) -> Option<OverQuota> {
        let now = ticks(now_ns);
        let own = self.quota_of(caller).map(|quota| {
            let hash = self.hasher.hash_one(caller);
            let in_force = self.parts.as_ref().map(|parts| parts.of(tag(hash), quota, taken));
            (hash, quota, in_force, &self.row(hash, now).owed)
        });
        let own = own
            .as_ref()
            .map(|(hash, quota, in_force, owed)| (*hash, *quota, in_force.as_ref().unwrap_or(quota), *owed));
        let mut verdict = own.map_or(Verdict::Within, |(.., quota, owed)| take(owed, quota, taken, now));
        if verdict != Verdict::Within
            && let Some((hash, quota, ..)) = own
            && let Some(parts) = &self.parts
        {
            parts.watch(tag(hash), caller, quota);
        }
        if verdict == Verdict::Within
            && let Some(instance) = &*self.instance.load()
        {
            let Instance { quota, owed, part } = &**instance;
            verdict = match part {
                None => take(owed, quota, taken, now),
                Some(part) => take(owed, &part.of(quota, taken), taken, now),
            };
            if verdict != Verdict::Within
                && let Some((.., quota, owed)) = own
            {
                give_back(owed, quota, taken, 3);
            }
        }
        match verdict {
            Verdict::Within => None,
            Verdict::Over { wait_ns } => Some(OverQuota::of(wait_ns)),
        }
    }

    /// Returns the rates of the instance that all nodes have together.
    pub(crate) fn limits(&self) -> Rates {
        self.instance.load().as_ref().map_or([None; 3], |instance| part::limits(&instance.quota))
    }

    /// Returns the units that this node was asked for so far, where it is one of several.
    pub(crate) fn asked(&self) -> [u64; 3] {
        let instance = self.instance.load();
        let part = instance.as_ref().and_then(|instance| instance.part.as_ref());
        part.map_or([0; 3], |part| part.asked())
    }

    /// Has this node, of so many, give so much of each rate of the instance from now on.
    pub(crate) fn set_parts(&self, nodes: usize, parts: Rates) {
        self.nodes.store(nodes as u64, Ordering::Relaxed);
        if let Some(instance) = &*self.instance.load()
            && let Some(part) = &instance.part
        {
            part.set(&instance.quota, parts);
        }
        if let Some(parts) = &self.parts {
            parts.set_nodes(nodes);
        }
    }

    /// Lists the callers that came to their limits, where this node is one of several: what all nodes have for each, and the units that each asked
    /// for here since it is counted.
    pub(crate) fn watched(&self) -> Vec<(Caller, Rates, [u64; 3])> {
        let watched = self.parts.as_ref().map(CallerParts::watched).unwrap_or_default();
        let of = |(caller, asked): (Caller, _)| {
            let limits = part::limits(self.quota_of(&caller)?);
            Some((caller, limits, asked))
        };
        watched.into_iter().filter_map(of).collect()
    }

    /// Counts what a caller asks for from now on, which came to its limit on another node.
    pub(crate) fn watch(&self, caller: &Caller) {
        if let Some((quota, parts)) = self.quota_of(caller).zip(self.parts.as_ref()) {
            parts.watch(tag(self.hasher.hash_one(caller)), caller, quota);
        }
    }

    /// Has this node give so much of each rate of a caller that is counted; without parts it is counted no more.
    pub(crate) fn set_caller(&self, caller: &Caller, rates: Option<Rates>) {
        if let Some((quota, parts)) = self.quota_of(caller).zip(self.parts.as_ref()) {
            parts.set(tag(self.hasher.hash_one(caller)), quota, rates);
        }
    }

    /// Finds a caller's row, or gives it that of whoever owes least: of one that owes nothing, nothing is forgotten.
    fn row(&self, hash: u64, now: u64) -> &Row {
        let tag = tag(hash);
        let set = &self.rows[(hash >> 32) as usize % self.rows.len()];
        if let Some(row) = set.iter().find(|row| row.of.load(Ordering::Relaxed) == tag) {
            return row;
        }
        let owes = |row: &Row| {
            let most = row.owed.iter().map(|owed| owed.load(Ordering::Relaxed)).max();
            most.unwrap_or(0).saturating_sub(now)
        };
        let row = set.iter().min_by_key(|row| owes(row)).expect("a set has rows");
        // What the one before owed is owed on: nobody gets a burst by pushing others out.
        row.of.store(tag, Ordering::Relaxed);
        row
    }
}

/// Returns what says whose a row is: never 0, which is nobody's.
fn tag(hash: u64) -> u64 {
    hash.max(1)
}

/// Takes work of each rate of a quota, or of none.
fn take(owed: &Owed, quota: &Quota, taken: Taken, now: u64) -> Verdict {
    let asked = quota.asked(taken);
    // Looked at first, so that work that is over one of them does not disturb the others.
    let looked = asked.iter().zip(owed).fold(Verdict::Within, |verdict, ((rate, units), owed)| match rate {
        Some(rate) => verdict.or(rate.judge(owed.load(Ordering::Relaxed), now, *units).0),
        None => verdict,
    });
    if looked != Verdict::Within {
        return looked;
    }
    for (at, (rate, units)) in asked.into_iter().enumerate() {
        let Some(rate) = rate else { continue };
        for _ in 0..TRIES {
            let before = owed[at].load(Ordering::Relaxed);
            let (verdict, after) = rate.judge(before, now, units);
            if verdict != Verdict::Within {
                give_back(owed, quota, taken, at);
                return verdict;
            }
            let changed = owed[at].compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed);
            if changed.is_ok() {
                break;
            }
        }
    }
    Verdict::Within
}

/// Gives back what was taken of the first rates.
fn give_back(owed: &Owed, quota: &Quota, taken: Taken, rates: usize) {
    for ((rate, units), owed) in quota.asked(taken).into_iter().zip(owed).take(rates) {
        if let Some(rate) = rate {
            let less = |owed: u64| Some(owed.saturating_sub(rate.cost(units)));
            let _always = owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::quota::Rate;
    use std::num::NonZeroU64;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u64, burst: u64) -> Option<Rate> {
        Some(Rate::new(NonZeroU64::new(per_second).unwrap(), NonZeroU64::new(burst).unwrap()))
    }

    fn requests(per_second: u64) -> Quota {
        Quota { requests: rate(per_second, per_second), ..Quota::default() }
    }

    fn key(n: usize) -> Caller {
        Caller::AccessKey(std::sync::Arc::new(format!("KMAK{n:08}").parse().unwrap()))
    }

    fn one(items: u64, bytes: u64) -> Taken {
        Taken { items, bytes }
    }

    #[test]
    fn without_a_quota_there_is_no_table_and_nothing_is_over() {
        let quotas = Quotas::new(&QuotaConfig::default(), false);
        assert!(!quotas.are_any() && quotas.rows.is_empty());
        assert_eq!(quotas.take(&key(1), one(u64::MAX, u64::MAX), 0), None);
    }

    #[test]
    fn callers_have_shares_of_their_own_and_those_that_are_named_their_own_quota() {
        let named = vec![(key(7), requests(5)), (key(8), Quota::default())];
        let quotas =
            Quotas::new(&QuotaConfig { caller: requests(2), named, ..QuotaConfig::default() }, false);
        let within = |n| (0..10).filter(|_| quotas.take(&key(n), one(0, 0), 0).is_none()).count();
        assert_eq!([within(1), within(2), within(7), within(8)], [2, 2, 5, 10]);
        let over = quotas.take(&key(1), one(0, 0), 0).unwrap();
        assert_eq!((over.error().kind(), over.error().retry_after()), (ErrorKind::OverQuota, Some(500)));
        assert_eq!(quotas.take(&key(1), one(0, 0), SECOND / 2), None, "it waited as it was told");
    }

    #[test]
    fn what_is_over_one_rate_or_over_the_instances_takes_nothing_of_the_others() {
        let caller = Quota { requests: rate(10, 10), items: rate(100, 100), bytes: rate(1_000, 1_000) };
        let instance = Quota { bytes: rate(1_500, 1_500), ..Quota::default() };
        let quotas = Quotas::new(&QuotaConfig { caller, instance, ..QuotaConfig::default() }, false);
        for _ in 0..50 {
            let never = quotas.take(&key(1), one(101, 1), 0).unwrap();
            assert!(never.error().message().contains("split it"));
            assert!(quotas.take(&key(1), one(1, 1_001), 0).is_some());
        }
        assert_eq!(quotas.take(&key(1), one(100, 1_000), 0), None, "its whole burst");
        // The instance has 500 bytes left: of what is over that, the caller keeps its own.
        for _ in 0..50 {
            assert!(quotas.take(&key(2), one(100, 1_000), 0).is_some());
        }
        assert_eq!(quotas.take(&key(2), one(100, 500), 0), None);
    }

    #[test]
    fn a_table_that_is_full_forgets_those_who_owe_nothing_and_gives_nobody_a_second_burst() {
        let quotas =
            Quotas::new(&QuotaConfig { caller: requests(2), callers: WAYS, ..QuotaConfig::default() }, false);
        assert_eq!(quotas.rows.len(), 1);
        // One who owes much, among many who come and go: its row is no idle one.
        assert!(quotas.take(&key(0), one(0, 0), 0).is_none() && quotas.take(&key(0), one(0, 0), 0).is_none());
        for n in 1..WAYS {
            assert_eq!(quotas.take(&key(n), one(0, 0), 0), None, "{n}");
        }
        for n in 100..1_000 {
            quotas.take(&key(n), one(0, 0), 0);
        }
        assert!(quotas.take(&key(0), one(0, 0), 0).is_some());
        assert_eq!((0..1_000).filter(|n| quotas.take(&key(*n), one(0, 0), 0).is_none()).count(), 0);
        assert_eq!(quotas.take(&key(0), one(0, 0), 10 * SECOND), None);
    }

    #[test]
    fn cores_that_take_at_the_same_time_get_no_more_than_one_alone() {
        let quotas = Quotas::new(&QuotaConfig { caller: requests(1_000), ..QuotaConfig::default() }, false);
        let taking = || (0..10_000).filter(|_| quotas.take(&key(1), one(0, 0), 0).is_none()).count();
        let within: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taking)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(within, 1_000);
    }

    #[test]
    fn a_node_that_is_one_of_several_gives_its_part_and_counts_what_it_is_asked_for() {
        let config = QuotaConfig { instance: requests(100), ..QuotaConfig::default() };
        let quotas = Quotas::new(&config, true);
        let within = |quotas: &Quotas, now| {
            (0..200).filter(|_| quotas.take(&key(1), one(3, 0), now).is_none()).count()
        };
        assert_eq!(
            quotas.limits().map(|limit| limit.map(|milli| milli.div_ceil(1_000))),
            [Some(100), None, None]
        );
        assert_eq!(within(&quotas, SECOND), 100, "until it knows of others it gives the whole");
        assert_eq!(quotas.asked(), [200, 0, 0], "also what was over, and nothing that has no limit");
        quotas.set_parts(2, [Some(25_000), None, None]);
        assert_eq!(within(&quotas, 5 * SECOND), 25);
        assert_eq!(within(&quotas, 6 * SECOND), 25);
        quotas.set_parts(2, [Some(100_000), None, None]);
        assert_eq!(within(&quotas, 9 * SECOND), 100);
        quotas.set_parts(2, [Some(0), None, None]);
        assert_eq!(within(&quotas, 9 * SECOND), 0);
        // One that is alone counts nothing, and has no parts.
        let alone = Quotas::new(&config, false);
        alone.set_parts(2, [Some(1_000), None, None]);
        assert_eq!((within(&alone, SECOND), alone.asked()), (100, [0; 3]));
    }

    #[test]
    fn a_quota_that_changes_gives_no_second_burst_and_no_node_more_than_its_share() {
        let limited = |per_second| QuotaConfig { instance: requests(per_second), ..QuotaConfig::default() };
        let within = |quotas: &Quotas, now| {
            (0..900).filter(|_| quotas.take(&key(1), one(0, 0), now).is_none()).count()
        };
        // One that is alone.
        let quotas = Quotas::new(&limited(100), false);
        assert_eq!(within(&quotas, SECOND), 100);
        quotas.set_instance(requests(100));
        assert_eq!(within(&quotas, SECOND), 0, "it was said once more");
        quotas.set_instance(requests(200));
        assert_eq!(within(&quotas, SECOND), 0, "what it took it owes");
        assert_eq!(within(&quotas, 3 * SECOND), 200);
        quotas.set_instance(Quota::default());
        assert_eq!(within(&quotas, 3 * SECOND), 900);
        // One of two, which is asked for a quarter.
        let quotas = Quotas::new(&limited(100), true);
        quotas.set_parts(2, [Some(25_000), None, None]);
        assert_eq!(within(&quotas, SECOND), 25);
        let asked = quotas.asked();
        quotas.set_instance(requests(200));
        assert_eq!(quotas.asked(), asked, "what it was asked for is not counted anew");
        assert_eq!(within(&quotas, 5 * SECOND), 50, "a quarter, before they agree on anything");
        let items = Quota { items: rate(300, 300), ..requests(200) };
        quotas.set_instance(items);
        assert_eq!(within(&quotas, 9 * SECOND), 50);
        quotas.set_instance(Quota::default());
        quotas.set_instance(requests(100));
        assert_eq!(within(&quotas, 20 * SECOND), 50, "of what is new an even part");
    }

    #[test]
    fn a_caller_has_an_even_part_until_it_comes_to_its_limit_and_then_what_the_nodes_agree_on() {
        let config = QuotaConfig { caller: requests(100), ..QuotaConfig::default() };
        let quotas = Quotas::new(&config, true);
        let within =
            |n, now| (0..200).filter(|_| quotas.take(&key(n), one(0, 0), now * SECOND).is_none()).count();
        assert_eq!((within(1, 1), quotas.watched().len()), (100, 0), "it knows of nobody else");
        quotas.set_parts(4, [None; 3]);
        assert_eq!((within(1, 5), within(2, 5)), (25, 25));
        let mut watched = quotas.watched();
        watched.sort_by_key(|(caller, ..)| *caller != key(1));
        assert_eq!(watched[0].0, key(1));
        assert!(
            watched
                .iter()
                .all(|(_, limits, asked)| *limits == [Some(100_000), None, None] && *asked < [200; 3])
        );
        quotas.set_caller(&key(1), Some([Some(80_000), None, None]));
        assert_eq!(within(1, 9), 80);
        // One that is not counted any more has its even part again.
        quotas.set_caller(&key(1), None);
        assert!(quotas.watched().iter().all(|(caller, ..)| *caller != key(1)));
        assert_eq!(within(1, 15), 25);
        // One that came to its limit elsewhere is counted here.
        let count = quotas.watched().len();
        (100..110).for_each(|n| quotas.watch(&key(n)));
        assert!(quotas.watched().len() > count);
    }

    #[test]
    fn however_many_come_to_their_limits_few_are_counted() {
        let config = QuotaConfig { caller: requests(1), ..QuotaConfig::default() };
        let quotas = Quotas::new(&config, true);
        quotas.set_parts(2, [None; 3]);
        for n in 0..2_000 {
            assert!((0..3).any(|_| quotas.take(&key(n), one(0, 0), SECOND).is_some()));
        }
        assert!((32..=64).contains(&quotas.watched().len()));
    }
}
