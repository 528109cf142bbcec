//! What callers may take and make, and how failed logins are throttled, as a file has it.

use std::num::NonZeroU64;

use keymill_core::access::Caller;
use keymill_core::limit::MaxRecords;
use keymill_core::login::LoginRule;
use keymill_core::quota::{Quota, Rate};
use keymill_runtime::{LoginConfig, QuotaConfig};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// The quotas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuotaSection {
    /// Jobs that may wait before work that is over its quota is refused.
    pub(crate) idle_jobs: usize,
    /// Callers whose use is remembered at a time.
    pub(crate) callers: usize,
    /// Of everything that the instance does.
    pub(crate) instance: Rates,
    /// Of each caller that has none of its own.
    pub(crate) caller: Rates,
    /// Of callers that have one of their own.
    pub(crate) of: Vec<QuotaOf>,
}

/// Rates; what is absent is unlimited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rates {
    /// Requests a second.
    pub(crate) requests_per_s: Option<NonZeroU64>,
    /// Items of data requests a second.
    pub(crate) items_per_s: Option<NonZeroU64>,
    /// Bytes of these items a second.
    pub(crate) bytes_per_s: Option<NonZeroU64>,
    /// Milliseconds of each rate that may come at once.
    pub(crate) burst_ms: u64,
}

/// The quota of one caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuotaOf {
    /// The application access point.
    pub(crate) aap: Option<String>,
    /// Or the access key.
    pub(crate) access_key: Option<String>,
    /// Requests a second.
    pub(crate) requests_per_s: Option<NonZeroU64>,
    /// Items of data requests a second.
    pub(crate) items_per_s: Option<NonZeroU64>,
    /// Bytes of these items a second.
    pub(crate) bytes_per_s: Option<NonZeroU64>,
    /// Milliseconds of each rate that may come at once; 1000 where it is absent.
    pub(crate) burst_ms: Option<u64>,
}

/// How failed logins are throttled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoginSection {
    /// Failures within the window that are one too many; 0: nobody is kept out.
    pub(crate) failures: u32,
    /// Milliseconds that failures are counted together.
    pub(crate) window_ms: u64,
    /// Milliseconds that a source is kept out the first time.
    pub(crate) first_wait_ms: u64,
    /// Milliseconds that it is kept out at most.
    pub(crate) max_wait_ms: u64,
    /// Sources that are remembered, at most.
    pub(crate) sources: usize,
    /// Credentials, with the sources that they logged in from, that are remembered, at most.
    pub(crate) known: usize,
}

/// How much callers may make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsSection {
    /// Customer master keys.
    pub(crate) keys: usize,
    /// Aliases.
    pub(crate) aliases: usize,
    /// Managed data keys.
    pub(crate) data_keys: usize,
    /// Access keys.
    pub(crate) access_keys: usize,
    /// Secrets.
    pub(crate) secrets: usize,
    /// Certificates.
    pub(crate) certificates: usize,
}

const BURST_MS: u64 = 1_000;

impl Default for QuotaSection {
    fn default() -> Self {
        let QuotaConfig { idle_jobs, callers, .. } = QuotaConfig::default();
        Self { idle_jobs, callers, instance: Rates::default(), caller: Rates::default(), of: Vec::new() }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self { requests_per_s: None, items_per_s: None, bytes_per_s: None, burst_ms: BURST_MS }
    }
}

impl Default for LoginSection {
    fn default() -> Self {
        let LoginConfig { rule, sources, known } = LoginConfig::default();
        let off = LoginRule { failures: 0, window_ms: 0, first_wait_ms: 0, max_wait_ms: 0 };
        let LoginRule { failures, window_ms, first_wait_ms, max_wait_ms } = rule.unwrap_or(off);
        Self { failures, window_ms, first_wait_ms, max_wait_ms, sources, known }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        let MaxRecords { keys, aliases, data_keys, access_keys, secrets, certificates } =
            MaxRecords::default();
        Self { keys, aliases, data_keys, access_keys, secrets, certificates }
    }
}

impl Rates {
    fn quota(&self) -> Quota {
        let rate = |per_second: Option<NonZeroU64>| {
            let per_second = per_second?;
            let burst = u128::from(per_second.get()) * u128::from(self.burst_ms) / 1_000;
            // A rate that lets nothing through at once would let nothing through at all.
            let burst = u64::try_from(burst).unwrap_or(u64::MAX).max(1);
            Some(Rate::new(per_second, NonZeroU64::new(burst).unwrap_or(NonZeroU64::MIN)))
        };
        Quota {
            requests: rate(self.requests_per_s),
            items: rate(self.items_per_s),
            bytes: rate(self.bytes_per_s),
        }
    }
}

impl QuotaOf {
    fn read(&self) -> Result<(Caller, Quota)> {
        let wrong = |why: String| Failure::new(format!("quota.of: {why}"));
        let caller = match (&self.aap, &self.access_key) {
            (Some(name), None) => Caller::Aap(name.parse().map_err(Failure::because("quota.of.aap"))?),
            (None, Some(id)) => {
                let id: keymill_core::id::AccessKeyId =
                    id.parse().map_err(Failure::because("quota.of.access_key"))?;
                if id.as_str().parse::<keymill_core::id::ClientKeyId>().is_ok() {
                    return Err(wrong(format!(
                        "{id} is a client key: its application has the quota, by aap"
                    )));
                }
                id.into()
            }
            _ => return Err(wrong("each names an aap or an access_key, and not both".into())),
        };
        let Self { requests_per_s, items_per_s, bytes_per_s, burst_ms, .. } = *self;
        let rates =
            Rates { requests_per_s, items_per_s, bytes_per_s, burst_ms: burst_ms.unwrap_or(BURST_MS) };
        Ok((caller, rates.quota()))
    }
}

impl QuotaSection {
    /// Returns the engine's options.
    ///
    /// # Errors
    /// Where a caller is named twice, or not as it should be.
    pub(crate) fn read(&self) -> Result<QuotaConfig> {
        let mut named = Vec::with_capacity(self.of.len());
        for of in &self.of {
            let (caller, quota) = of.read()?;
            if named.iter().any(|(other, _)| *other == caller) {
                return Err(Failure::new(format!("quota.of: {caller} is named twice")));
            }
            named.push((caller, quota));
        }
        Ok(QuotaConfig {
            instance: self.instance.quota(),
            caller: self.caller.quota(),
            named,
            idle_jobs: self.idle_jobs,
            callers: self.callers,
        })
    }
}

impl LoginSection {
    /// Returns the engine's options.
    ///
    /// # Errors
    /// Where waits would not grow.
    pub(crate) fn read(&self) -> Result<LoginConfig> {
        let Self { failures, window_ms, first_wait_ms, max_wait_ms, sources, known } = *self;
        if failures > 0 && !(0 < first_wait_ms && first_wait_ms <= max_wait_ms && window_ms > 0) {
            let why = "login: first_wait_ms and window_ms are at least 1, and max_wait_ms is at least first_wait_ms";
            return Err(Failure::new(why));
        }
        let rule = (failures > 0).then_some(LoginRule { failures, window_ms, first_wait_ms, max_wait_ms });
        Ok(LoginConfig { rule, sources, known })
    }
}

impl LimitsSection {
    /// Returns the engine's options.
    pub(crate) fn read(&self) -> MaxRecords {
        let Self { keys, aliases, data_keys, access_keys, secrets, certificates } = *self;
        MaxRecords { keys, aliases, data_keys, access_keys, secrets, certificates }
    }
}

#[cfg(test)]
impl QuotaSection {
    /// Returns a section in which everything is set.
    pub(super) fn all_set() -> Self {
        let one = NonZeroU64::new(1);
        let rates = Rates { requests_per_s: one, items_per_s: one, bytes_per_s: one, ..Rates::default() };
        let of = QuotaOf {
            aap: Some("a".into()),
            access_key: Some("k".into()),
            requests_per_s: one,
            items_per_s: one,
            bytes_per_s: one,
            burst_ms: Some(1),
        };
        Self { instance: rates.clone(), caller: rates, of: vec![of], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(text: &str) -> Result<QuotaConfig> {
        toml::from_str::<QuotaSection>(text).unwrap().read()
    }

    #[test]
    fn a_rate_has_its_burst_and_what_is_absent_is_unlimited() {
        let read =
            quotas("[caller]\nrequests_per_s = 1000\nburst_ms = 250\n[instance]\nbytes_per_s = 7\n").unwrap();
        let rate = |per_second, burst| {
            Some(Rate::new(NonZeroU64::new(per_second).unwrap(), NonZeroU64::new(burst).unwrap()))
        };
        assert_eq!(read.caller, Quota { requests: rate(1_000, 250), ..Quota::default() });
        assert_eq!(read.instance, Quota { bytes: rate(7, 7), ..Quota::default() });
        // A tenth of a unit is one.
        let read = quotas("[caller]\nitems_per_s = 1\nburst_ms = 100\n").unwrap();
        assert_eq!(read.caller.items, rate(1, 1));
    }

    #[test]
    fn a_caller_is_named_once_and_by_one_name() {
        let read =
            quotas("[[of]]\naap = \"shop\"\nitems_per_s = 5\n[[of]]\naccess_key = \"KMAK0001\"\n").unwrap();
        assert_eq!(read.named.len(), 2);
        assert!(read.named[1].1.is_unlimited(), "a caller can be freed of the quota of all");
        for (bad, why) in [
            ("[[of]]\nitems_per_s = 5\n", "an aap or an access_key"),
            ("[[of]]\naap = \"a\"\naccess_key = \"KMAK0001\"\n", "not both"),
            ("[[of]]\naap = \"a b\"\n", "quota.of.aap"),
            ("[[of]]\naccess_key = \"k\"\n", "quota.of.access_key"),
            ("[[of]]\naccess_key = \"KAAP.01234567-89ab-4cde-8f01-23456789abcd\"\n", "client key"),
            ("[[of]]\naap = \"a\"\n[[of]]\naap = \"a\"\n", "named twice"),
        ] {
            let told = quotas(bad).unwrap_err().to_string();
            assert!(told.contains(why), "{bad}: {told}");
        }
        for bad in ["[caller]\nitems_per_s = 0\n", "[caller]\nitems_per_s = -1\n", "[caller]\nitems = 1\n"] {
            assert!(toml::from_str::<QuotaSection>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_throttle_is_off_or_grows() {
        let read = |text: &str| toml::from_str::<LoginSection>(text).unwrap().read();
        assert_eq!(read("").unwrap(), LoginConfig::default());
        assert_eq!(read("failures = 0\nfirst_wait_ms = 0\n").unwrap().rule, None);
        for bad in ["first_wait_ms = 0\n", "max_wait_ms = 999\n", "window_ms = 0\n"] {
            assert!(read(bad).unwrap_err().to_string().contains("first_wait_ms"), "{bad}");
        }
    }
}
