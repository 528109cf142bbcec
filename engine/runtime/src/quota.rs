//! Quotas in force: for each caller a few numbers that cores change without a lock, in a table of a fixed size; and what becomes of work
//! that is over its quota. Without a quota there is no table, and nothing is looked up.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use keymill_core::access::Caller;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::quota::{Quota, Taken, Verdict, ticks};

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

/// The numbers of one caller, or of one that was there before.
#[derive(Default)]
struct Row {
    /// The caller's hash, keyed at random; 0: nobody's yet.
    of: AtomicU64,
    owed: Owed,
}

fn of_instance(quota: Quota) -> Option<Arc<(Quota, Owed)>> {
    (!quota.is_unlimited()).then(|| Arc::new((quota, Owed::default())))
}

/// The quotas in force.
pub(crate) struct Quotas {
    instance: ArcSwapOption<(Quota, Owed)>,
    caller: Quota,
    named: HashMap<Caller, Quota>,
    /// Sets of [`WAYS`] rows; none where no caller has a quota.
    rows: Box<[[Row; WAYS]]>,
    hasher: RandomState,
}

impl Quotas {
    pub(crate) fn new(config: &QuotaConfig) -> Self {
        let named: HashMap<_, _> = config.named.iter().cloned().collect();
        let is_any = !config.caller.is_unlimited() || named.values().any(|quota| !quota.is_unlimited());
        let sets = if is_any { config.callers.div_ceil(WAYS).max(1) } else { 0 };
        Self {
            instance: ArcSwapOption::new(of_instance(config.instance)),
            caller: config.caller,
            named,
            rows: (0..sets).map(|_| Default::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Has the instance keep to another quota from now on; what it owed is forgotten.
    pub(crate) fn set_instance(&self, quota: Quota) {
        self.instance.store(of_instance(quota));
    }

    /// Tells whether anything is limited.
    pub(crate) fn are_any(&self) -> bool {
        self.instance.load().is_some() || !self.rows.is_empty()
    }

    /// Takes a caller's work of its quota and of the instance's; of what is over one of them nothing is taken. `now` is steady time.
    pub(crate) fn take(&self, caller: &Caller, taken: Taken, now_ns: u64) -> Option<OverQuota> {
        let now = ticks(now_ns);
        let quota = match self.rows.is_empty() {
            true => None,
            false => {
                Some(self.named.get(caller).unwrap_or(&self.caller)).filter(|quota| !quota.is_unlimited())
            }
        };
        let own = quota.map(|quota| (quota, &self.row(self.hasher.hash_one(caller), now).owed));
        let mut verdict = own.map_or(Verdict::Within, |(quota, owed)| take(owed, quota, taken, now));
        if verdict == Verdict::Within
            && let Some(instance) = &*self.instance.load()
        {
            let (quota, owed) = &**instance;
            verdict = take(owed, quota, taken, now);
            if verdict != Verdict::Within
                && let Some((quota, owed)) = own
            {
                give_back(owed, quota, taken, 3);
            }
        }
        match verdict {
            Verdict::Within => None,
            Verdict::Over { wait_ns } => Some(OverQuota::of(wait_ns)),
        }
    }

    /// Finds a caller's row, or gives it that of whoever owes least: of one that owes nothing, nothing is forgotten.
    fn row(&self, hash: u64, now: u64) -> &Row {
        let tag = hash.max(1);
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
        let quotas = Quotas::new(&QuotaConfig::default());
        assert!(!quotas.are_any() && quotas.rows.is_empty());
        assert_eq!(quotas.take(&key(1), one(u64::MAX, u64::MAX), 0), None);
    }

    #[test]
    fn callers_have_shares_of_their_own_and_those_that_are_named_their_own_quota() {
        let named = vec![(key(7), requests(5)), (key(8), Quota::default())];
        let quotas = Quotas::new(&QuotaConfig { caller: requests(2), named, ..QuotaConfig::default() });
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
        let quotas = Quotas::new(&QuotaConfig { caller, instance, ..QuotaConfig::default() });
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
            Quotas::new(&QuotaConfig { caller: requests(2), callers: WAYS, ..QuotaConfig::default() });
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
        let quotas = Quotas::new(&QuotaConfig { caller: requests(1_000), ..QuotaConfig::default() });
        let taking = || (0..10_000).filter(|_| quotas.take(&key(1), one(0, 0), 0).is_none()).count();
        let within: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taking)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(within, 1_000);
    }
}
