//! `keymill hsm init`: makes a token ready for keymill. A token that exists is never made anew, and keys that exist are never replaced.

use clap::Args;
use serde::Serialize;

use super::pin::{PinArgs, SoPinArgs};
use super::{TokenArgs, check_pin_state, failed, find, load, tokens};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::{
    DOMAIN_KEY_LABEL, Initialize, MAC_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, initialize,
};
use crate::{output, process};

/// Make a token ready for keymill: the token where its slot is empty, its PINs, its domain keys and root MAC key
///
/// Where no token has the label, one is made in the first empty slot, for which the security officer's PIN is needed. Where one has,
/// it keeps all that is on it, and gets the two keys; its PIN is tried once. Both keys are generated inside and never leave. `keymill
/// serve` does not drive tokens yet.
#[derive(Args, Clone, Debug)]
pub(super) struct InitArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    pin: PinArgs,
    #[command(flatten)]
    so_pin: SoPinArgs,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// What was made, as `--json` prints it.
#[derive(Serialize)]
struct Made {
    token: String,
    serial: String,
    /// Whether the token itself was made; else it was there.
    token_made: bool,
    domain_key: &'static str,
    private_domain_key: &'static str,
    root_mac_key: &'static str,
    /// Whether the domain's keys say, through `CKA_UNWRAP_TEMPLATE`, what may come of their unwraps.
    unwraps_limited: bool,
}

/// Makes it ready.
pub(super) fn run(args: InitArgs) -> Result<()> {
    process::harden()?;
    let TokenArgs { module: place, token: label } = args.token;
    let module = load(&place.module)?;
    let so_pin = match find(&module, &label)? {
        Some((_, info)) => {
            check_pin_state(&info)?;
            None
        }
        None => {
            // Before anybody types anything.
            let empty =
                tokens(&module)?.iter().any(|(_, info)| info.as_ref().is_ok_and(|info| !info.initialized));
            if !empty {
                return Err(Failure::new(format!("there is no token {label}, and no slot is empty")).next(
                    format!(
                        "`keymill hsm slots --module {}` shows the tokens there are",
                        place.module.display()
                    ),
                ));
            }
            Some(args.so_pin.read()?)
        }
    };
    let pin = args.pin.read(so_pin.is_some())?;
    let options = Initialize { module: place.module.clone(), token_label: label.clone(), so_pin, pin };
    let done = initialize(options).map_err(failed)?;
    let made = Made {
        token: label,
        serial: done.serial,
        token_made: done.token_made,
        domain_key: DOMAIN_KEY_LABEL,
        private_domain_key: PRIVATE_DOMAIN_KEY_LABEL,
        root_mac_key: MAC_KEY_LABEL,
        unwraps_limited: done.unwraps_limited,
    };
    match args.json {
        true => output::json(&made),
        false => made.print(&place.module.display().to_string()),
    }
}

impl Made {
    fn print(&self, module: &str) -> Result<()> {
        let token = match self.token_made {
            true => "made, with its PINs",
            false => "was there, and keeps what is on it",
        };
        let limited = match self.unwraps_limited {
            true => "limited by CKA_UNWRAP_TEMPLATE: what unwraps can be used, and not read",
            false => "NOT limited: the module takes no CKA_UNWRAP_TEMPLATE",
        };
        output::card(&[
            ("token", &format_args!("{}: {token}", self.token)),
            ("serial number", &self.serial),
            ("domain key", &format_args!("{}: AES-256, made inside; wraps secret keys", self.domain_key)),
            (
                "private domain key",
                &format_args!("{}: AES-256, made inside; wraps private keys", self.private_domain_key),
            ),
            (
                "root MAC key",
                &format_args!("{}: AES-256, made inside; signs the store and the audit", self.root_mac_key),
            ),
            ("unwraps", &limited),
        ])?;
        if !self.unwraps_limited {
            output::line(
                "\nWhoever has this token's PIN and a copy of the store can unwrap the keys of the store as readable ones. Guard the two \
                 apart,\nor use a module that honours CKA_UNWRAP_TEMPLATE.",
            )?;
        }
        output::line(format_args!(
            "\nKeep a copy of the token by the vendor's own means: what it wraps, no other token opens.\n  next: keymill hsm doctor --module {module} --token {}",
            self.token
        ))
    }
}
