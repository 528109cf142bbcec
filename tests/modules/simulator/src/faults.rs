//! Which calls fail, hang or crash. The decision is a pure function of the settings, counters and a seeded generator,
//! so that one thread's calls meet the same faults on each run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cryptoki_sys::CK_RV;
use serde::Deserialize;

use crate::codes::Code;
use crate::control::Pattern;

/// One entry of `faults`: when it strikes, and what it does then.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fault {
    /// Tells apart entries that are otherwise alike: a new name starts new counts.
    id: String,
    functions: Vec<Pattern>,

    every: Option<u64>,
    chance: Option<u64>,
    next: Option<u64>,

    answer: Answers,
    after: bool,
    hang_ms: u64,
    abort: bool,
}

/// One return code, or a list of which each has its chance.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Answers {
    One(Code),
    Any(Vec<Code>),
}

impl Default for Answers {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

impl Answers {
    fn codes(&self) -> &[Code] {
        match self {
            Self::One(code) => std::slice::from_ref(code),
            Self::Any(codes) => codes,
        }
    }
}

impl Fault {
    /// Refuses entries that would strike never or do nothing.
    pub(crate) fn check(&self) -> Result<(), String> {
        let whens = [self.every, self.chance, self.next].iter().flatten().count();
        if self.functions.is_empty() {
            Err("a fault without functions never strikes".to_owned())
        } else if whens > 1 || self.every == Some(0) || self.chance.is_some_and(|chance| chance > 10_000) {
            Err("a fault takes one of every (from 1), chance (to 10000) and next".to_owned())
        } else if self.answer.codes().is_empty() && self.hang_ms == 0 && !self.abort {
            Err("a fault without answer, hang_ms and abort does nothing".to_owned())
        } else {
            Ok(())
        }
    }
}

/// What befalls one call.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Strike {
    /// How long the call hangs before anything else.
    pub(crate) hang: Duration,
    /// What is answered, whatever the module says.
    pub(crate) answer: Option<CK_RV>,
    /// Whether the module is called before that answer is given.
    pub(crate) after: bool,
    /// Whether the process ends here.
    pub(crate) abort: bool,
}

/// The faults of one revision of the control file, with their counts.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    entries: Vec<Counted>,
    draws: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    fault: Fault,
    calls: AtomicU64,
    struck: AtomicU64,
}

impl Faults {
    /// Takes over new entries; those that were there already keep their counts.
    pub(crate) fn replaced(&self, entries: &[Fault], seed: u64) -> Self {
        let counted = |fault: &Fault| {
            let old = self.entries.iter().find(|old| old.fault == *fault);
            let count = |of: fn(&Counted) -> &AtomicU64| {
                AtomicU64::new(old.map_or(0, |old| of(old).load(Ordering::Relaxed)))
            };
            Counted { fault: fault.clone(), calls: count(|c| &c.calls), struck: count(|c| &c.struck) }
        };
        let draws = match self.draws.load(Ordering::Relaxed) {
            0 => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            going_on => going_on,
        };
        Self { entries: entries.iter().map(counted).collect(), draws: AtomicU64::new(draws) }
    }

    /// Decides what befalls a call of the function: the first entry that strikes.
    pub(crate) fn strike(&self, function: &str) -> Option<Strike> {
        for Counted { fault, calls, struck } in &self.entries {
            if !fault.functions.iter().any(|pattern| pattern.matches(function)) {
                continue;
            }
            let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
            let strikes = match (fault.every, fault.chance, fault.next) {
                (Some(every), _, _) => call.is_multiple_of(every),
                (_, Some(chance), _) => self.draw() % 10_000 < chance,
                (_, _, Some(next)) => call <= next,
                _ => true,
            };
            if strikes {
                struck.fetch_add(1, Ordering::Relaxed);
                let codes = fault.answer.codes();
                let answer = match codes {
                    [] => None,
                    [one] => Some(one.0),
                    _ => Some(codes[(self.draw() % codes.len() as u64) as usize].0),
                };
                let hang = Duration::from_millis(fault.hang_ms);
                return Some(Strike { hang, answer, after: fault.after, abort: fault.abort });
            }
        }
        None
    }

    /// Returns how often each entry has struck, in the order of the control file.
    pub(crate) fn struck(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.struck.load(Ordering::Relaxed)).collect()
    }

    // SplitMix64: good enough for chances, and one atomic step a draw.
    fn draw(&self) -> u64 {
        let mut z = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::{CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY};

    use super::*;

    fn faults(text: &str) -> Vec<Fault> {
        crate::control::Settings::read(&format!("[a]\nfaults = [{text}]"), "a").unwrap().faults
    }

    fn answers(faults: &Faults, calls: usize) -> Vec<Option<CK_RV>> {
        (0..calls).map(|_| faults.strike("C_Sign").and_then(|strike| strike.answer)).collect()
    }

    #[test]
    fn every_strikes_each_nth_call_of_the_named_functions() {
        let entries = faults("{ functions = ['C_Sign'], every = 3, answer = 'CKR_DEVICE_ERROR' }");
        let faults = Faults::default().replaced(&entries, 1);
        assert_eq!(faults.strike("C_Verify"), None);
        let error = Some(CKR_DEVICE_ERROR);
        assert_eq!(answers(&faults, 6), [None, None, error, None, None, error]);
        assert_eq!(faults.struck(), [2]);
    }

    #[test]
    fn next_strikes_once_though_the_file_is_read_again_and_again_under_a_new_id() {
        let entry =
            |id| format!("{{ id = '{id}', functions = ['C_*'], next = 1, answer = 'CKR_DEVICE_ERROR' }}");
        let first = Faults::default().replaced(&faults(&entry("first")), 1);
        assert!(first.strike("C_Sign").is_some());
        let again = first.replaced(&faults(&entry("first")), 1);
        assert_eq!(again.strike("C_Sign"), None);
        let second = again.replaced(&faults(&entry("second")), 1);
        assert!(second.strike("C_Sign").is_some());
    }

    #[test]
    fn chances_are_kept_and_codes_drawn_alike_for_the_same_seed() {
        let entries = faults(
            "{ functions = ['C_Sign'], chance = 100, answer = ['CKR_DEVICE_ERROR', 'CKR_DEVICE_MEMORY'] }",
        );
        let run = |seed| answers(&Faults::default().replaced(&entries, seed), 100_000);
        let drawn = run(1);
        for code in [CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY] {
            let count = drawn.iter().filter(|answer| **answer == Some(code)).count();
            assert!((400..600).contains(&count), "{count} of about 500");
        }
        assert_eq!(drawn, run(1));
        assert_ne!(drawn, run(2));
    }
}
