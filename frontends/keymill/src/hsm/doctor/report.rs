//! The report: who made the token, what was found out about its module, every check, and what is to be done.

use std::fmt;

use serde::Serialize;

use super::check::{Check, Outcome};
use super::seam::Rate;
use super::token::Offer;
use crate::failure::Result;
use crate::hsm::slots::Token;
use crate::output::{self, Rows, grouped, or_dash};
use crate::plugins::pkcs11::module::Module;
use crate::plugins::pkcs11::{CancelMethod, GcmMethod, ModuleProfile, WrapMechanism};

/// A second session is worth its place where it adds as much as this, in percent.
const WORTH: u64 = 15;

/// All that was found, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Report {
    /// Whether all that keymill needs is there.
    pub(super) good: bool,
    module: Library,
    token: Token,
    /// `None` where keymill cannot open the token.
    profile: Option<ModuleProfile>,
    checks: Vec<Check>,
    /// What later features use.
    offers: Vec<Offer>,
    /// AES-GCM of 1 KiB, sealed through the provider; a hint, measured in less than a second.
    rates: Vec<Rate>,
    /// The number of sessions, of those measured, that is best.
    best_sessions: Option<usize>,
}

/// The module as it says of itself.
#[derive(Serialize)]
pub(super) struct Library {
    path: String,
    description: Option<String>,
    version: Option<String>,
    cryptoki: Option<String>,
}

impl Library {
    pub(super) fn of(module: &Module) -> Self {
        let info = module.info().ok();
        let text = |field: fn(crate::plugins::pkcs11::module::LibraryInfo) -> String| info.clone().map(field);
        Self {
            path: module.path().display().to_string(),
            description: text(|info| format!("{}, {}", info.manufacturer, info.description)),
            version: text(|info| info.version),
            cryptoki: text(|info| info.cryptoki),
        }
    }
}

impl Report {
    pub(super) fn new(
        module: Library,
        token: Token,
        profile: Option<ModuleProfile>,
        checks: Vec<Check>,
        offers: Vec<Offer>,
        rates: Vec<Rate>,
    ) -> Self {
        let good = !checks.iter().any(Check::blocks);
        let best_sessions = best(&rates);
        Self { good, module, token, profile, checks, offers, rates, best_sessions }
    }

    /// Prints it for a person.
    pub(super) fn print(&self) -> Result<()> {
        self.print_head()?;
        output::line("")?;
        let mut rows = Rows::new(&["check", "result", "what it means"]);
        for check in &self.checks {
            rows.add(&[&check.check, &check.result.name(), &check.means]);
        }
        rows.print("no check was made")?;
        output::line("")?;
        let mut rows = Rows::new(&["for later features", "mechanism", "offered"]);
        for offer in &self.offers {
            rows.add(&[&offer.feature, &offer.mechanism, &offer.shown()]);
        }
        rows.print("nothing is listed")?;
        if let Some(speed) = self.speed() {
            output::line(format_args!("\n{speed}"))?;
        }
        output::line(format_args!("\n{}", self.verdict()))
    }

    fn print_head(&self) -> Result<()> {
        let Library { path, description, version, cryptoki } = &self.module;
        let [description, version, cryptoki] =
            [description, version, cryptoki].map(|text| or_dash(text.as_ref()));
        let library = format!("{description}, version {version}, PKCS#11 {cryptoki}");
        let mut pairs =
            vec![("module", path.clone()), ("library", library), ("token", self.token.to_string())];
        pairs.extend(self.profile.iter().flat_map(profile_pairs));
        let shown: Vec<(&str, &dyn fmt::Display)> =
            pairs.iter().map(|(name, value)| (*name, value as _)).collect();
        output::card(&shown)
    }

    fn speed(&self) -> Option<String> {
        let best = self.best_sessions?;
        let rate =
            |rate: &Rate| format!("{} a second by {}", grouped(rate.items_per_s), sessions(rate.sessions));
        let rates: Vec<String> = self.rates.iter().map(rate).collect();
        Some(format!(
            "AES-256-GCM of 1 KiB: {}; best of these: {} (a hint, on this machine as busy as it is)",
            rates.join(", "),
            sessions(best)
        ))
    }

    /// Says what it comes to, and what to do about each check that is not ok.
    fn verdict(&self) -> String {
        let mut text = String::new();
        for check in self.checks.iter().filter(|check| check.result != Outcome::Ok) {
            if let Some(next) = check.next {
                text += &format!("{}: {next}\n", check.check);
            }
        }
        let bad = |blocks: bool| {
            let bad = |check: &&Check| {
                matches!(check.result, Outcome::Refused | Outcome::Wrong) && check.blocks() == blocks
            };
            self.checks.iter().filter(bad).count()
        };
        let untried = self.checks.iter().filter(|check| check.result == Outcome::NotTried).count();
        text += &match (bad(true), bad(false)) {
            (0, 0) => "all that keymill needs is there".to_owned(),
            (0, weak) => format!("all that keymill needs is there, with {weak} to think about"),
            (missing, _) => format!("{missing} of {} checks failed that keymill needs", self.checks.len()),
        };
        if untried > 0 {
            text += &format!("; {untried} not tried");
        }
        text
    }
}

fn profile_pairs(profile: &ModuleProfile) -> [(&'static str, String); 11] {
    let wrap = match profile.wrap {
        WrapMechanism::Kwp => "CKM_AES_KEY_WRAP_KWP",
        WrapMechanism::Pad => "CKM_AES_KEY_WRAP_PAD",
    };
    let length = if profile.unwrap_value_len { "wants CKA_VALUE_LEN" } else { "without CKA_VALUE_LEN" };
    let gcm = match profile.gcm {
        GcmMethod::Classic => "C_EncryptInit and C_Encrypt for each item",
        GcmMethod::Message => "C_EncryptMessage (PKCS#11 3.0)",
    };
    let derive = if profile.derives { "AES-CMAC" } else { "nothing: no keys in bulk mode HsmDerived" };
    let cancel = match profile.cancel {
        CancelMethod::SessionCancel => "C_SessionCancel (PKCS#11 3.0)",
        CancelMethod::ReplaceSession => "another session in its place",
    };
    let limit = profile.max_sessions.map_or("no limit stated".to_owned(), |limit| format!("{limit} at most"));
    [
        ("wraps by", format!("{wrap}; unwraps {length}")),
        ("seals by", gcm.to_owned()),
        ("derives by", derive.to_owned()),
        ("holds", names(&profile.specs, |spec| spec.name())),
        ("signs by", names(&profile.signatures, |algorithm| algorithm.name())),
        ("decrypts by", names(&profile.decryptions, |algorithm| algorithm.name())),
        ("cancels by", cancel.to_owned()),
        ("item", format!("{} bytes at most", grouped(profile.max_item_bytes as u64))),
        ("sessions", limit),
        ("bad tag", format!("answered by {}", or_dash(profile.bad_tag))),
        ("bad key", format!("damaged material, answered by {}", or_dash(profile.damaged_blob))),
    ]
}

fn names<T: Copy>(what: &[T], name: fn(T) -> &'static str) -> String {
    match what {
        [] => "nothing".to_owned(),
        _ => what.iter().map(|each| name(*each)).collect::<Vec<_>>().join(", "),
    }
}

fn sessions(count: usize) -> String {
    format!("{count} session{}", if count == 1 { "" } else { "s" })
}

/// The smallest number of sessions that no larger one beats by enough.
fn best(rates: &[Rate]) -> Option<usize> {
    let mut best = *rates.first()?;
    for rate in &rates[1..] {
        if rate.items_per_s * 100 > best.items_per_s * (100 + WORTH) {
            best = *rate;
        }
    }
    Some(best.sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_session_must_be_worth_its_place() {
        let rates =
            |one, two| [Rate { sessions: 1, items_per_s: one }, Rate { sessions: 2, items_per_s: two }];
        assert_eq!(best(&rates(100_000, 110_000)), Some(1));
        assert_eq!(best(&rates(100_000, 190_000)), Some(2));
        assert_eq!(best(&rates(100_000, 60_000)), Some(1));
        assert_eq!(best(&[]), None);
    }
}
