//! The control file: what a simulated HSM shall be like, and which events have happened to it.
//! A section is named after the module's file; `[default]` holds what sections leave out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::codes::Code;
use crate::faults::Fault;

/// One section, with what it takes from `[default]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) revision: u64,
    pub(crate) seed: u64,
    pub(crate) seed_by_process: bool,
    pub(crate) lazy_control: bool,

    pub(crate) module: Option<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) shared_module: bool,
    pub(crate) only_token: Option<String>,
    pub(crate) init_reserved: Option<String>,

    pub(crate) latency_us: u64,
    pub(crate) latency_us_of: BTreeMap<Pattern, u64>,
    pub(crate) keygen_ms: u64,
    pub(crate) engines: usize,
    pub(crate) calls_per_s: u64,
    pub(crate) free: Vec<Pattern>,
    pub(crate) exclusive: Vec<Pattern>,

    pub(crate) session_limit: Option<usize>,
    pub(crate) session_limit_code: Option<Code>,
    pub(crate) object_limit: Option<usize>,
    pub(crate) object_limit_code: Option<Code>,
    pub(crate) pin_lock_after: Option<u32>,
    pub(crate) reuse_session_handles: bool,

    pub(crate) removed: bool,
    pub(crate) removed_code: Option<Code>,
    pub(crate) slot_shift: u64,
    pub(crate) lose_sessions: u64,
    pub(crate) lose_login: u64,

    pub(crate) faults: Vec<Fault>,
}

impl Settings {
    /// Reads the section of an instance from a control file.
    ///
    /// # Errors
    /// Says what is wrong; a file without the section and without `[default]` is, too, so that half a file is not believed.
    pub(crate) fn read(text: &str, instance: &str) -> Result<Self, String> {
        let mut file: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let own = file.remove(instance);
        let base = file.remove("default");
        let mut merged = match (&own, base) {
            (None, None) => return Err(format!("no section [{instance}] and no [default]")),
            (_, Some(toml::Value::Table(table))) => table,
            (_, Some(_)) => return Err("default is no section".to_owned()),
            (Some(_), None) => toml::Table::new(),
        };
        match own {
            Some(toml::Value::Table(table)) => merged.extend(table),
            Some(_) => return Err(format!("{instance} is no section")),
            None => {}
        }
        let settings: Self = merged.try_into().map_err(|e: toml::de::Error| e.to_string())?;
        settings.faults.iter().try_for_each(Fault::check)?;
        Ok(settings)
    }

    /// Returns the seed of the chances.
    pub(crate) fn seed(&self) -> u64 {
        let process = if self.seed_by_process { u64::from(std::process::id()) } else { 0 };
        self.seed.wrapping_add(process)
    }

    /// Returns whether a call of the function costs neither latency nor an engine.
    pub(crate) fn is_free(&self, function: &str) -> bool {
        matches(&self.free, function)
    }

    /// Returns whether all other calls wait while this one runs.
    pub(crate) fn is_exclusive(&self, function: &str) -> bool {
        matches(&self.exclusive, function)
    }

    /// Returns how long a call of the function takes at least.
    pub(crate) fn latency(&self, function: &str) -> Duration {
        let own = self.latency_us_of.iter().find(|(pattern, _)| pattern.matches(function));
        let mut latency = Duration::from_micros(own.map_or(self.latency_us, |(_, us)| *us));
        if function.starts_with("C_GenerateKey") {
            latency += Duration::from_millis(self.keygen_ms);
        }
        latency
    }
}

fn matches(patterns: &[Pattern], function: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(function))
}

/// A function's name, in which one `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern {
    start: String,
    end: Option<String>,
}

impl Pattern {
    pub(crate) fn matches(&self, function: &str) -> bool {
        match &self.end {
            None => self.start == function,
            Some(end) => function.strip_prefix(&*self.start).is_some_and(|rest| rest.ends_with(&**end)),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pattern = match text.split_once('*') {
            None => Self { start: text.clone(), end: None },
            Some((start, end)) => Self { start: start.to_owned(), end: Some(end.to_owned()) },
        };
        if crate::ffi::NAMES.iter().any(|name| pattern.matches(name)) {
            Ok(pattern)
        } else {
            Err(format!("{text:?} names no function of PKCS#11 3.0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_overrides_the_default_option_by_option() {
        let text = "[default]\nlatency_us = 5\nengines = 2\n[a]\nengines = 3\n[b]\n";
        let a = Settings::read(text, "a").unwrap();
        assert_eq!((a.latency_us, a.engines), (5, 3));
        assert_eq!(Settings::read(text, "elsewhere").unwrap().engines, 2);
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        for (text, reason) in [
            ("", "no section"),
            ("[b]\n", "no section"),
            ("[a]\nlatencyus = 5\n", "unknown field"),
            ("[a]\nfree = ['C_Encript']\n", "names no function"),
            ("[a]\nsession_limit_code = 'CKR_SESION_COUNT'\n", "no return code"),
            ("[a]\nfaults = [{ functions = ['C_Sign'] }]\n", "does nothing"),
        ] {
            let error = Settings::read(text, "a").unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn processes_draw_alike_unless_told_otherwise() {
        assert_eq!(Settings::read("[a]\nseed = 7", "a").unwrap().seed(), 7);
        let apart = Settings::read("[a]\nseed = 7\nseed_by_process = true", "a").unwrap().seed();
        assert_eq!(apart, 7 + u64::from(std::process::id()));
    }

    #[test]
    fn patterns_take_one_star() {
        let settings = Settings::read("[a]\nfree = ['C_*Init', 'C_Sign']\nkeygen_ms = 7", "a").unwrap();
        assert!(settings.is_free("C_EncryptInit") && settings.is_free("C_Sign"));
        assert!(!settings.is_free("C_SignUpdate") && !settings.is_free("C_InitToken"));
        assert_eq!(settings.latency("C_GenerateKeyPair"), Duration::from_millis(7));
        assert_eq!(settings.latency("C_GenerateRandom"), Duration::ZERO);
    }
}
