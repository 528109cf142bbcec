//! `keymill hsm ceremony clean`: destroys what a ceremony that was cut short has left on a token, after it has told what that is.

use clap::Args;
use serde::Serialize;

use super::party;
use crate::failure::{Failure, Result};
use crate::hsm::pin::PinArgs;
use crate::hsm::{DomainArgs, TokenArgs, prompt, refused};
use crate::plugins::pkcs11::{Found, clean};
use crate::{output, process};

/// Destroy what an unfinished ceremony left on a token: its wrapping key, and keys that are not all there
///
/// Where the token has all of a domain's keys, say what becomes of them: --keep-keys if every token of that ceremony has them (`keymill
/// hsm doctor` opens each), so that only the wrapping key goes; --destroy-keys if one has not, so that the ceremony can be held
/// again. Whatever those keys wrapped is lost then.
#[derive(Args, Clone, Debug)]
pub(super) struct CleanArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    domain: DomainArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// Keep the domain's keys where they are all there
    #[arg(long, conflicts_with = "destroy_keys")]
    keep_keys: bool,
    /// Destroy the domain's keys even where they are all there; only where an unfinished ceremony left its wrapping key beside them
    #[arg(long)]
    destroy_keys: bool,
    /// The token's serial number, instead of typing it at the terminal
    #[arg(long, value_name = "SERIAL")]
    confirm: Option<String>,
    /// Print what was destroyed as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Done {
    token: String,
    serial: String,
    wrapping_halves: usize,
    destroyed: Vec<String>,
    kept: Vec<String>,
}

pub(super) fn run(args: CleanArgs) -> Result<()> {
    process::harden()?;
    if args.confirm.is_none() && !prompt::possible() {
        return Err(Failure::wrong_use("there is no terminal to ask at").next(
            "--confirm SERIAL says that you mean this token; `keymill hsm slots` shows serial numbers",
        ));
    }
    let party = party(args.token, args.domain, &args.pin)?;
    let mut asked = Ok(());
    let (found, cleaned) = clean(&party, args.destroy_keys, |found| {
        if found.wrapping_halves == 0 && (found.keys.is_empty() || found.complete) {
            return false;
        }
        asked = match found.complete && !args.keep_keys && !args.destroy_keys {
            true => Err(undecided(found)),
            false => confirmed(found, args.destroy_keys, args.confirm.as_deref()),
        };
        asked.is_ok()
    })
    .map_err(refused)?;
    asked?;
    let (wrapping_halves, destroyed) =
        cleaned.map_or((0, Vec::new()), |cleaned| (cleaned.wrapping_halves, cleaned.keys));
    let kept = if destroyed.is_empty() { found.keys } else { Vec::new() };
    let done = Done { token: found.token, serial: found.serial, wrapping_halves, destroyed, kept };
    if args.json {
        return output::json(&done);
    }
    if done.wrapping_halves == 0 && done.destroyed.is_empty() {
        return output::line(format_args!("token {}: nothing was left of a ceremony", done.token));
    }
    let list = |labels: &[String]| if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
    output::card(&[
        ("token", &done.token),
        ("serial number", &done.serial),
        ("wrapping key", &"destroyed"),
        ("keys destroyed", &list(&done.destroyed)),
        ("keys kept", &list(&done.kept)),
    ])
}

/// Asks for what nobody but the operator knows.
fn undecided(found: &Found) -> Failure {
    Failure::wrong_use(format!(
        "token {} has the wrapping key of an unfinished ceremony, and all keys of a domain: {}; nothing was destroyed",
        found.token,
        found.keys.join(", ")
    ))
    .next("--keep-keys if every token of that ceremony has all of them, --destroy-keys if one has not")
}

/// Says what is there and what will go, and asks for the serial number.
fn confirmed(found: &Found, destroy_keys: bool, given: Option<&str>) -> Result<()> {
    if given.is_none() {
        let keys = found.keys.join(", ");
        let what = match (found.keys.is_empty(), found.complete, destroy_keys) {
            (true, ..) => "its wrapping key goes; it has no other keys".to_owned(),
            (_, false, _) => format!("its wrapping key goes, and {keys}, which were never in use"),
            (_, true, false) => format!("its wrapping key goes; {keys} stay"),
            (_, true, true) => {
                format!(
                    "its wrapping key goes, and {keys}: WHATEVER THEY WRAPPED IS LOST, unless another token has them"
                )
            }
        };
        output::note(format_args!("token {}, serial number {}: {what}", found.token, found.serial))?;
    }
    let typed = match given {
        Some(given) => given.to_owned(),
        None => prompt::line("Type the serial number to go on")?,
    };
    match typed.trim() == found.serial {
        true => Ok(()),
        false => Err(Failure::wrong_use(format!(
            "token {} has another serial number than {}; nothing was destroyed",
            found.token,
            typed.trim()
        ))
        .next("`keymill hsm slots` shows serial numbers")),
    }
}
