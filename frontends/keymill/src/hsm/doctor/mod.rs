//! `keymill hsm doctor`: opens a token as keymill does, says what was found out about its module, and tries with known answers
//! whatever keymill needs of it. The report is for the operator at night and for the vendor in the morning.

mod check;
mod keys;
mod known;
mod report;
mod seam;
mod token;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keymill_core::Sensitive;

use super::pin::PinArgs;
use super::slots::Token;
use super::{DomainArgs, TokenArgs, check_pin_state, failed, load, next_after};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::module::{Module, Session, User, number::CK_SLOT_ID};
use crate::plugins::pkcs11::{
    Config, DOMAIN_KEY_LABEL, OpenError, PRIVATE_DOMAIN_KEY_LABEL, Pkcs11Provider, WrapMechanism, label_in,
    open_on,
};
use crate::{output, process};

use check::{Check, Looked, Seen};
use report::{Library, Report};
use seam::Rate;

/// Examine a token and its module: each operation that keymill needs, with known answers; exit code 1 if one is missing
///
/// On a token without keymill's keys (`keymill hsm init` makes them) it examines the module alone. Nothing is changed: what the checks
/// make are session objects, which go with the command. The PIN is tried once. It takes some seconds, and may run beside other users of
/// the token.
#[derive(Args, Clone, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    domain: DomainArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Examines, and prints the report.
pub(super) fn run(args: DoctorArgs) -> Result<()> {
    process::harden()?;
    let module = load(&args.token.module.module)?;
    let Some((slot, info)) = args.token.find(&module)? else { return Err(args.token.absent()) };
    let TokenArgs { module: place, token: label, serial } = args.token;
    check_pin_state(&info)?;
    let pin = args.pin.read(false)?;
    // One login serves the token's every session of this process, the provider's among them: a wrong PIN is tried once.
    let _login = log_in(&module, slot, &label, &pin)?;
    let mut config = Config::new(place.module, label, pin);
    config.token_serial = serial;
    let domain_key = label_in(DOMAIN_KEY_LABEL, args.domain.name().as_deref());
    config.domain = args.domain.name();
    let opened = open_on(module.clone(), config);
    let report = examine(opened, &module, slot, Token::new(info), &domain_key);
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

fn log_in(module: &Module, slot: CK_SLOT_ID, label: &str, pin: &Sensitive) -> Result<Session> {
    let logged_in =
        module.open_session(slot, false).and_then(|session| session.login(User::User, pin).map(|()| session));
    logged_in.map_err(|failure| failed(format!("token {label}: {failure}")))
}

/// Makes every check that can be made: where keymill cannot open the token, those on the module alone.
fn examine(
    opened: Result<Pkcs11Provider, OpenError>,
    module: &Module,
    slot: CK_SLOT_ID,
    token: Token,
    domain_key: &str,
) -> Report {
    let mut round = Round::new(module, slot);
    let (profile, rates) = match &opened {
        Ok(provider) => {
            let profile = provider.module_profile();
            round.add(OPENS, Seen::ok("its keys are found, and its ways are known: see above"));
            alone(&mut round, &[profile.wrap]);
            (Some(profile.clone()), through_the_seam(&mut round, provider, domain_key))
        }
        Err(error) => {
            let why = error.to_string();
            let next = next_after(&why).unwrap_or("the checks below may show what is amiss; ask the vendor");
            round.add(OPENS, Seen::refused(why, next));
            alone(&mut round, &[WrapMechanism::Kwp, WrapMechanism::Pad]);
            (None, Vec::new())
        }
    };
    round.check("100 sessions", || token::sessions(module, slot));
    Report::new(Library::of(module), token, profile, round.end(), token::offers(module, slot), rates)
}

const OPENS: &str = "opens as keymill opens it";

/// What the module computes, against known answers.
fn alone(round: &mut Round<'_>, wraps: &[WrapMechanism]) {
    round.on_session("AES-256-GCM, known answer", known::gcm);
    round.on_session("AES-256-GCM, forged tags", known::forged_tag);
    round.on_session("AES-256-CMAC, known answer", known::cmac);
    round.on_session("AES-128-GCM, known answer", known::gcm_128);
    round.on_session("HMAC-SHA-256, known answer", known::hmac);
    round.on_session("key wrap (RFC 5649), known answer", |session| known::wrap(session, wraps));
}

/// What keymill does with the token.
fn through_the_seam(round: &mut Round<'_>, provider: &Pkcs11Provider, domain_key: &str) -> Vec<Rate> {
    round.check("random bytes", || seam::random(provider));
    round.check("root MAC key", || seam::root(provider));
    let born = "key of its own, wrapped and loaded";
    let mut trial = match seam::trial(provider) {
        Ok(trial) => trial,
        Err(seen) => {
            round.add(born, seen);
            return Vec::new();
        }
    };
    round.check(born, || trial.round_trip());
    let profile = provider.module_profile();
    let forbidden = |session: &Session| token::forbidden_unwrap(session, domain_key, &trial.stored, profile);
    round.on_session("forbidden unwrap", forbidden);
    round.check("1,000 forged ciphertexts", || trial.forged());
    round.check("two sessions, one key", || trial.two_sessions());
    other_kinds(round, provider);
    round.show("speed");
    // A hint, and no check: whatever fails here has failed above.
    trial.rates().unwrap_or_default()
}

/// Keys of every kind but AES-256.
fn other_kinds(round: &mut Round<'_>, provider: &Pkcs11Provider) {
    let pairs = provider.module_profile().private_domain;
    if !pairs {
        let seen = Seen::refused(
            format!(
                "RSA and EC keys are refused: the token has no key {PRIVATE_DOMAIN_KEY_LABEL}, which wraps private keys"
            ),
            "a token that `keymill hsm init` or `hsm ceremony` of this version made ready has it",
        );
        round.add("key pairs", seen.optional());
    }
    for (name, spec, usage) in keys::KINDS {
        if pairs || !spec.is_key_pair() {
            round.check(name, || keys::kind(provider, spec, usage));
        }
    }
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

    fn check(&mut self, name: &'static str, look: impl FnOnce() -> Looked) {
        self.show(name);
        self.add(name, look().unwrap_or_else(|seen| seen));
    }

    /// Makes a check on a session of its own, so that none suffers from what another left behind.
    fn on_session(&mut self, name: &'static str, look: impl FnOnce(&Session) -> Looked) {
        let (module, slot) = (self.module, self.slot);
        self.check(name, || look(&module.open_session(slot, false)?));
    }

    fn end(self) -> Vec<Check> {
        self.shown.finish_and_clear();
        self.checks
    }
}
