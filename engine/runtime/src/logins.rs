//! Logins that fail, by the place that they come from: after too many, that place is kept out for a while, before any signature of it is
//! looked at. Who has logged in from there before is let try all the same: a stranger locks nobody out, and no farm behind one address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use keymill_core::login::{Failures, LoginRule};
use parking_lot::Mutex;

/// Parts of the table, so that workers seldom wait for each other.
const SHARDS: usize = 16;
/// Logins that are remembered in the place of one.
const WAYS: usize = 8;

/// How logins are throttled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginConfig {
    /// The rule; `None`: failures are counted and nobody is kept out.
    pub rule: Option<LoginRule>,
    /// Places of which failures are remembered, at most.
    pub sources: usize,
    /// Credentials, with the places that they logged in from, that are remembered, at most.
    pub known: usize,
}

impl Default for LoginConfig {
    fn default() -> Self {
        let rule = LoginRule { failures: 100, window_ms: 60_000, first_wait_ms: 1_000, max_wait_ms: 300_000 };
        Self { rule: Some(rule), sources: 16_384, known: 32_768 }
    }
}

/// What counts as one place: an address of IPv4, the 64 bits of a network of IPv6, of which each host has as many addresses as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Place {
    pub(crate) fn of(source: IpAddr) -> Self {
        match source.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The logins of an engine.
pub(crate) struct Logins {
    rule: Option<LoginRule>,
    shards: [Mutex<HashMap<Place, Failures>>; SHARDS],
    per_shard: usize,
    /// Places in the table: while there are none, nothing is looked up.
    places: AtomicUsize,
    /// Sets of hashes, keyed at random, of credentials with their places; 0: none. Only who logged in well writes here.
    known: Box<[[AtomicU64; WAYS]]>,
    hasher: RandomState,
}

impl Logins {
    pub(crate) fn new(config: &LoginConfig) -> Self {
        let sets = if config.rule.is_some() { config.known.div_ceil(WAYS).max(1) } else { 0 };
        Self {
            rule: config.rule,
            shards: Default::default(),
            per_shard: config.sources.div_ceil(SHARDS).max(1),
            places: AtomicUsize::new(0),
            known: (0..sets).map(|_| Default::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Returns for how many milliseconds a login under `id` is refused; `None` where it may be tried. `now` is steady time in milliseconds.
    pub(crate) fn refused_ms(&self, source: IpAddr, id: &str, now: impl FnOnce() -> u64) -> Option<u64> {
        if self.rule.is_none() || self.places.load(Ordering::Acquire) == 0 {
            return None;
        }
        let place = Place::of(source);
        let wait = self.shard(place).lock().get(&place).and_then(|failures| failures.wait_ms(now()))?;
        (!self.is_known(place, id)).then_some(wait)
    }

    /// Takes a login that failed; tells whether its place is kept out from now on.
    pub(crate) fn failed(&self, source: IpAddr, now: u64) -> bool {
        let Some(rule) = &self.rule else { return false };
        let place = Place::of(source);
        let mut shard = self.shard(place).lock();
        if shard.len() >= self.per_shard && !shard.contains_key(&place) {
            self.make_room(&mut shard, rule, now);
        }
        if !shard.contains_key(&place) {
            self.places.fetch_add(1, Ordering::Release);
        }
        shard.entry(place).or_default().failed(rule, now)
    }

    /// Remembers that a credential logged in from a place.
    pub(crate) fn succeeded(&self, source: IpAddr, id: &str) {
        if self.known.is_empty() {
            return;
        }
        let hash = self.hash(Place::of(source), id);
        let set = self.set(hash);
        if set.iter().any(|known| known.load(Ordering::Relaxed) == hash) {
            return;
        }
        let free = set.iter().find(|known| known.load(Ordering::Relaxed) == 0);
        let at = free.unwrap_or(&set[hash as usize % WAYS]);
        at.store(hash, Ordering::Relaxed);
    }

    /// Returns how many places are kept out.
    pub(crate) fn kept_out(&self, now: u64) -> usize {
        let out = |shard: &Mutex<HashMap<Place, Failures>>| {
            shard.lock().values().filter(|failures| failures.wait_ms(now).is_some()).count()
        };
        self.shards.iter().map(out).sum()
    }

    /// Makes room for another place: those that may be forgotten go, or else the one that was not heard of for longest.
    fn make_room(&self, shard: &mut HashMap<Place, Failures>, rule: &LoginRule, now: u64) {
        let before = shard.len();
        shard.retain(|_, failures| !failures.is_over(rule, now));
        if shard.len() == before {
            let oldest = shard.iter().min_by_key(|(_, failures)| failures.last()).map(|(place, _)| *place);
            oldest.and_then(|place| shard.remove(&place));
        }
        self.places.fetch_sub(before - shard.len(), Ordering::Release);
    }

    fn shard(&self, place: Place) -> &Mutex<HashMap<Place, Failures>> {
        &self.shards[self.hasher.hash_one(place) as usize % SHARDS]
    }

    fn is_known(&self, place: Place, id: &str) -> bool {
        let hash = self.hash(place, id);
        self.set(hash).iter().any(|known| known.load(Ordering::Relaxed) == hash)
    }

    fn hash(&self, place: Place, id: &str) -> u64 {
        self.hasher.hash_one((place, id)).max(1)
    }

    fn set(&self, hash: u64) -> &[AtomicU64; WAYS] {
        &self.known[(hash >> 32) as usize % self.known.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sources: usize) -> LoginConfig {
        let rule = LoginRule { failures: 3, window_ms: 1_000, first_wait_ms: 100, max_wait_ms: 10_000 };
        LoginConfig { rule: Some(rule), sources, ..LoginConfig::default() }
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guess(logins: &Logins, source: &str, times: usize) -> usize {
        (0..times).filter(|_| logins.failed(at(source), 0)).count()
    }

    #[test]
    fn a_place_is_kept_out_and_its_neighbour_is_not() {
        let logins = Logins::new(&config(100));
        assert_eq!(logins.refused_ms(at("10.0.0.1"), "KMAK1", || 0), None);
        assert_eq!(guess(&logins, "10.0.0.1", 3), 1);
        assert_eq!(logins.refused_ms(at("10.0.0.1"), "KMAK1", || 10), Some(90));
        assert_eq!(
            logins.refused_ms(at("::ffff:10.0.0.1"), "KMAK1", || 10),
            Some(90),
            "however it is written"
        );
        assert_eq!(logins.refused_ms(at("10.0.0.2"), "KMAK1", || 10), None);
        assert_eq!(logins.refused_ms(at("10.0.0.1"), "KMAK1", || 100), None, "its time is over");
        assert_eq!((logins.kept_out(99), logins.kept_out(100)), (1, 0));
    }

    #[test]
    fn a_host_has_one_network_of_ipv6_and_not_each_of_its_addresses() {
        let logins = Logins::new(&config(100));
        for address in ["2001:db8:1:2::1", "2001:db8:1:2:ffff::7", "2001:db8:1:2:3:4:5:6"] {
            logins.failed(at(address), 0);
        }
        assert!(logins.refused_ms(at("2001:db8:1:2::99"), "KMAK1", || 0).is_some());
        assert!(logins.refused_ms(at("2001:db8:1:3::1"), "KMAK1", || 0).is_none());
    }

    #[test]
    fn who_logged_in_from_there_before_is_let_try_and_others_are_not() {
        let logins = Logins::new(&config(100));
        logins.succeeded(at("10.0.0.1"), "KMAK1");
        guess(&logins, "10.0.0.1", 3);
        assert_eq!(logins.refused_ms(at("10.0.0.1"), "KMAK1", || 0), None);
        assert!(logins.refused_ms(at("10.0.0.1"), "KMAK2", || 0).is_some(), "another");
        guess(&logins, "10.0.0.2", 3);
        assert!(logins.refused_ms(at("10.0.0.2"), "KMAK1", || 0).is_some(), "it never was there");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_not_heard_of_for_longest() {
        let logins = Logins::new(&config(SHARDS));
        for n in 0..10_000u32 {
            logins.failed(IpAddr::from(n.to_be_bytes()), u64::from(n));
        }
        let held: usize = logins.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(held <= SHARDS, "{held}");
        assert_eq!(logins.places.load(Ordering::Relaxed), held);
        let newest = IpAddr::from(9_999u32.to_be_bytes());
        assert!(logins.shard(Place::of(newest)).lock().contains_key(&Place::of(newest)));
    }

    #[test]
    fn as_many_logins_are_remembered_as_there_is_room_for_and_more_do_no_harm() {
        let logins = Logins::new(&LoginConfig { known: 64, ..config(100) });
        for n in 0..10_000 {
            logins.succeeded(at("10.0.0.1"), &format!("KMAK{n}"));
        }
        guess(&logins, "10.0.0.1", 3);
        let known = |n: &usize| logins.refused_ms(at("10.0.0.1"), &format!("KMAK{n}"), || 0).is_none();
        let known = (0..10_000).filter(known).count();
        assert!((1..=64).contains(&known), "{known}");
    }

    #[test]
    fn without_a_rule_nobody_is_kept_out() {
        let logins = Logins::new(&LoginConfig { rule: None, ..config(100) });
        assert_eq!(guess(&logins, "10.0.0.1", 1_000), 0);
        logins.succeeded(at("10.0.0.1"), "KMAK1");
        assert_eq!(logins.refused_ms(at("10.0.0.1"), "KMAK1", || 0), None);
    }
}
