//! `keymill hsm doctor`: opens a token as keymill does, says what was found out about its module, and tries with known answers
//! whatever keymill needs of it. The report is for the operator at night and for the vendor in the morning.

mod check;
mod known;
mod report;
mod seam;
mod token;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::pin::PinArgs;
use super::slots::Token;
use super::{TokenArgs, check_pin_state, find, load, not_open};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::module::{Module, Session, number::CK_SLOT_ID};
use crate::plugins::pkcs11::{Config, Pkcs11Provider, open_on};
use crate::{output, process};

use check::{Check, Seen};
use report::{Library, Report};

/// Examine a token and its module: each operation that keymill needs, with known answers; exit code 1 if one is missing
///
/// The token must have keymill's keys (`keymill hsm init`). Nothing on it is changed: what the checks make are session objects, which go
/// with the command. It takes some seconds, and may run beside other users of the token. `keymill serve` does not drive tokens yet.
#[derive(Args, Clone, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Examines, and prints the report.
pub(super) fn run(args: DoctorArgs) -> Result<()> {
    process::harden()?;
    let TokenArgs { module: place, token: label } = args.token;
    let module = load(&place.module)?;
    let Some((slot, info)) = find(&module, &label)? else {
        return Err(Failure::new(format!("there is no token {label}")).next(format!(
            "`keymill hsm slots --module {}` shows the tokens there are",
            place.module.display()
        )));
    };
    check_pin_state(&info)?;
    let config = Config::new(place.module, label, args.pin.read(false)?);
    let provider = open_on(module.clone(), config).map_err(not_open)?;
    let report = examine(&provider, &module, slot, Token::new(info));
    match args.json {
        true => output::json(&report)?,
        false => report.print()?,
    }
    match report.good {
        true => Ok(()),
        false => Err(Failure::new(
            "this token does not have all that keymill needs: the report says what is missing",
        )),
    }
}

/// Makes every check.
fn examine(provider: &Pkcs11Provider, module: &Module, slot: CK_SLOT_ID, token: Token) -> Report {
    let profile = provider.module_profile();
    let mut round = Round::new(module, slot);
    round.on_session("AES-256-GCM, known answer", known::gcm);
    round.on_session("AES-256-GCM, forged tags", known::forged_tag);
    round.on_session("AES-256-CMAC, known answer", known::cmac);
    round.on_session("key wrap (RFC 5649), known answer", |session| known::wrap(session, profile));
    round.check("random bytes", || seam::random(provider));
    round.check("root MAC key", || seam::root(provider));
    let mut rates = Vec::new();
    match seam::trial(provider) {
        Err(seen) => round.add("key of its own, wrapped and loaded", seen),
        Ok(mut trial) => {
            round.check("key of its own, wrapped and loaded", || trial.round_trip());
            round.on_session("forbidden unwrap", |session| {
                token::forbidden_unwrap(session, &trial.stored, profile)
            });
            round.check("1,000 forged ciphertexts", || trial.forged());
            round.check("two sessions, one key", || trial.two_sessions());
            round.show("speed");
            rates = trial.rates().unwrap_or_default();
        }
    }
    round.check("100 sessions", || token::sessions(module, slot));
    Report::new(Library::of(module), token, profile.clone(), round.end(), token::offers(module, slot), rates)
}

/// The checks made so far. What is under way is shown at the terminal: a module that hangs or crashes leaves no report, but that.
struct Round<'a> {
    module: &'a Module,
    slot: CK_SLOT_ID,
    checks: Vec<Check>,
    shown: ProgressBar,
}

impl<'a> Round<'a> {
    fn new(module: &'a Module, slot: CK_SLOT_ID) -> Self {
        let style = ProgressStyle::with_template("checking: {msg}").expect("the template is well formed");
        Self { module, slot, checks: Vec::new(), shown: ProgressBar::new_spinner().with_style(style) }
    }

    fn show(&self, name: &'static str) {
        self.shown.set_message(name);
        self.shown.tick();
    }

    fn add(&mut self, name: &'static str, seen: Seen) {
        self.checks.push(seen.named(name));
    }

    fn check(&mut self, name: &'static str, look: impl FnOnce() -> Result<Seen, Seen>) {
        self.show(name);
        self.add(name, look().unwrap_or_else(|seen| seen));
    }

    /// Makes a check on a session of its own, so that none suffers from what another left behind.
    fn on_session(&mut self, name: &'static str, look: impl FnOnce(&Session) -> Result<Seen, Seen>) {
        let (module, slot) = (self.module, self.slot);
        self.check(name, || look(&module.open_session(slot, false)?));
    }

    fn end(self) -> Vec<Check> {
        self.shown.finish_and_clear();
        self.checks
    }
}
