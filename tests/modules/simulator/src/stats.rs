//! What has happened: calls by function and code, sessions, objects, logins; written as JSON beside the control file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::CK_RV;
use serde::Serialize;

use crate::codes;
use crate::ffi::{Function, NAMES};

/// Counters of one instance since its module was loaded into this process.
#[derive(Debug)]
pub(crate) struct Stats {
    calls: Vec<AtomicU64>,
    pub(crate) in_flight: AtomicU64,
    pub(crate) in_flight_peak: AtomicU64,
    pub(crate) sessions_opened: AtomicU64,
    pub(crate) sessions_peak: AtomicU64,
    pub(crate) objects_peak: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) initialisations: AtomicU64,
    pub(crate) overlaps: AtomicU64,
    pub(crate) panics: AtomicU64,
}

const CODES: usize = codes::CODES.len() + 1;

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            calls: (0..NAMES.len() * CODES).map(|_| AtomicU64::new(0)).collect(),
            in_flight: AtomicU64::new(0),
            in_flight_peak: AtomicU64::new(0),
            sessions_opened: AtomicU64::new(0),
            sessions_peak: AtomicU64::new(0),
            objects_peak: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            initialisations: AtomicU64::new(0),
            overlaps: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Counts a call that begins; the guard counts its end.
    pub(crate) fn enter(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_peak.fetch_max(now, Ordering::Relaxed);
        InFlight(self)
    }

    /// Counts a call's outcome.
    pub(crate) fn count(&self, function: Function, code: CK_RV) {
        self.calls[function as usize * CODES + codes::index(code)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the outcomes of the functions that have been called.
    pub(crate) fn calls(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
        let mut calls: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (place, count) in self.calls.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let of = calls.entry(NAMES[place / CODES]).or_default();
                of.insert(codes::name(place % CODES), count);
            }
        }
        calls
    }
}

/// Counts down when dropped.
pub(crate) struct InFlight<'a>(&'a Stats);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The statistics file.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) instance: String,
    pub(crate) pid: u32,
    pub(crate) revision: u64,
    pub(crate) control_error: Option<String>,
    pub(crate) initialisations: u64,
    pub(crate) initialised: bool,
    pub(crate) sessions: usize,
    pub(crate) sessions_opened: u64,
    pub(crate) sessions_peak: u64,
    pub(crate) objects: usize,
    pub(crate) objects_peak: u64,
    pub(crate) logins: u64,
    pub(crate) wrong_pins: u32,
    pub(crate) in_flight: u64,
    pub(crate) in_flight_peak: u64,
    pub(crate) overlaps: u64,
    pub(crate) panics: u64,
    pub(crate) faults: Vec<u64>,
    pub(crate) calls: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

impl Report {
    /// Writes the file in one go: a reader sees the old one or the new one.
    pub(crate) fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).expect("a report is plain data");
        let fresh = path.with_extension("fresh");
        let written = std::fs::write(&fresh, text + "\n").and_then(|()| std::fs::rename(&fresh, path));
        // Without the folder there is no one left to read it.
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("simulator {}: {}: {error}", self.instance, path.display());
        }
    }
}
