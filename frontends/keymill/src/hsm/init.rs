//! `keymill hsm init`: makes a token ready for keymill. A token that exists is never made anew, and keys that exist are never replaced.

use clap::Args;
use serde::Serialize;

use super::pin::{PinArgs, SoPinArgs};
use super::{DomainArgs, TokenArgs, check_pin_state, load, refused, tokens};
use crate::failure::{Failure, Result};
use crate::plugins::pkcs11::module::TokenInfo;
use crate::plugins::pkcs11::{
    DOMAIN_KEY_LABEL, Initialize, MAC_KEY_LABEL, PRIVATE_DOMAIN_KEY_LABEL, initialize, label_in,
};
use crate::{output, process};

/// Make a token ready for keymill: the token where its slot is empty, its PINs, its domain keys and root MAC key
///
/// Where no token has the label, one is made in the first empty slot, for which the security officer's PIN is needed. Where one has,
/// it keeps all that is on it, and gets the three keys of the domain; its PIN is tried once. They are generated inside and never leave. A run that
/// was cut short is completed by the next.
#[derive(Args, Clone, Debug)]
pub(super) struct InitArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    domain: DomainArgs,
    #[command(flatten)]
    pin: PinArgs,
    #[command(flatten)]
    so_pin: SoPinArgs,
    /// Make the token and its PINs, and no keys: `keymill hsm ceremony` gives it those of a domain
    #[arg(long)]
    no_keys: bool,
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
    #[serde(flatten)]
    keys: Option<Keys>,
}

#[derive(Serialize)]
struct Keys {
    domain_key: String,
    private_domain_key: String,
    root_mac_key: String,
    /// Keys that an interrupted run had left, and that were kept.
    kept: Vec<&'static str>,
    /// Whether the domain's keys say, through `CKA_UNWRAP_TEMPLATE`, what may come of their unwraps.
    unwraps_limited: bool,
}

/// Makes it ready.
pub(super) fn run(args: InitArgs) -> Result<()> {
    process::harden()?;
    let module = load(&args.token.module.module)?;
    let so_pin = match args.token.find(&module)? {
        // An earlier run ended before the user had a PIN.
        Some((_, TokenInfo { pin_set: false, .. })) => Some(args.so_pin.read()?),
        Some((_, info)) => {
            check_pin_state(&info)?;
            None
        }
        None if args.token.serial.is_some() => return Err(args.token.absent()),
        None => {
            // Before anybody types anything.
            let empty =
                tokens(&module)?.iter().any(|(_, info)| info.as_ref().is_ok_and(|info| !info.initialized));
            if !empty {
                return Err(Failure::new(format!(
                    "there is no token {}, and no slot is empty",
                    args.token.token
                ))
                .next(format!(
                    "`keymill hsm slots --module {}` shows the tokens there are",
                    args.token.module.module.display()
                )));
            }
            Some(args.so_pin.read()?)
        }
    };
    let pin = args.pin.read(so_pin.is_some())?;
    let TokenArgs { module: place, token: label, serial: token_serial } = args.token;
    let domain = args.domain.name();
    let options = Initialize {
        module: place.module.clone(),
        token_label: label.clone(),
        token_serial,
        domain: domain.clone(),
        so_pin,
        pin,
        keys: !args.no_keys,
    };
    let done = initialize(options).map_err(refused)?;
    let made = Made {
        token: label,
        serial: done.serial,
        token_made: done.token_made,
        keys: done.keys.map(|keys| Keys {
            domain_key: label_in(DOMAIN_KEY_LABEL, domain.as_deref()),
            private_domain_key: label_in(PRIVATE_DOMAIN_KEY_LABEL, domain.as_deref()),
            root_mac_key: label_in(MAC_KEY_LABEL, domain.as_deref()),
            kept: keys.kept,
            unwraps_limited: keys.unwraps_limited,
        }),
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
        let token = format!("{}: {token}", self.token);
        let Some(keys) = &self.keys else {
            output::card(&[("token", &token), ("serial number", &self.serial), ("keys", &"none yet")])?;
            return output::line(format_args!(
                "\n  next: keymill hsm ceremony --module {module} --token {} …, with the other tokens of its domain",
                self.token
            ));
        };
        let limited = match keys.unwraps_limited {
            true => "limited by CKA_UNWRAP_TEMPLATE: what unwraps can be used, and not read",
            false => "NOT limited: the module takes no CKA_UNWRAP_TEMPLATE",
        };
        let made = |label| match keys.kept.contains(&label) {
            true => "AES-256, left by a run that was cut short, and kept",
            false => "AES-256, made inside",
        };
        output::card(&[
            ("token", &token),
            ("serial number", &self.serial),
            (
                "domain key",
                &format_args!("{}: {}; wraps secret keys", keys.domain_key, made(DOMAIN_KEY_LABEL)),
            ),
            (
                "private domain key",
                &format_args!(
                    "{}: {}; wraps private keys",
                    keys.private_domain_key,
                    made(PRIVATE_DOMAIN_KEY_LABEL)
                ),
            ),
            (
                "root MAC key",
                &format_args!(
                    "{}: {}; signs the store and the audit",
                    keys.root_mac_key,
                    made(MAC_KEY_LABEL)
                ),
            ),
            ("unwraps", &limited),
        ])?;
        if !keys.unwraps_limited {
            output::line(
                "\nWhoever has this token's PIN and a copy of the store can unwrap the keys of the store as readable ones. Guard the two \
                 apart,\nor use a module that honours CKA_UNWRAP_TEMPLATE.",
            )?;
        }
        output::line(format_args!(
            "\nThis token's keys are its own: what it wraps, no other token opens. Keep a copy of the token by the vendor's own means, or\n\
             begin with `keymill hsm ceremony`, which gives several tokens the same keys.\n  next: keymill hsm doctor --module {module} --token {}",
            self.token
        ))
    }
}
