//! `keymill hsm change-pin`: changes the user's PIN of a token on the user's own login, and says where else the PIN stands.

use clap::Args;
use serde::Serialize;

use super::deadline::uninterrupted;
use super::pin::{NewPinArgs, PinArgs};
use super::{TokenArgs, load, refused};
use crate::failure::Result;
use crate::plugins::pkcs11::{Party, change_pin};
use crate::{output, process};

/// Change the user's PIN of a token: the old one is tried once, the new one is verified by a login
///
/// Nothing is tried where one more wrong PIN would lock the token. Each server that logs in to the token reads its PIN from its own
/// configuration: write the new one there before it is started anew. Servers that are logged in go on as they are.
#[derive(Args, Clone, Debug)]
pub(super) struct ChangePinArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    pin: PinArgs,
    #[command(flatten)]
    new_pin: NewPinArgs,
    /// Print what was changed as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Changed {
    token: String,
    serial: String,
    verified: bool,
    /// Where the old PIN was read from, which holds it still.
    update: Option<String>,
}

pub(super) fn run(args: ChangePinArgs) -> Result<()> {
    process::harden()?;
    let module = load(&args.token.module.module)?;
    args.token.present(&module)?;
    let old = args.pin.read(false)?;
    let new = args.new_pin.read()?;
    let party = Party {
        module,
        token_label: args.token.token,
        token_serial: args.token.serial,
        domain: None,
        pin: old,
    };
    let changed = uninterrupted(|| change_pin(&party, &new)).map_err(refused)?;
    let changed =
        Changed { token: changed.token, serial: changed.serial, verified: true, update: args.pin.place() };
    if args.json {
        return output::json(&changed);
    }
    output::card(&[
        ("token", &changed.token),
        ("serial number", &changed.serial),
        ("user PIN", &"changed, and verified by a login"),
    ])?;
    let holds = match &changed.update {
        Some(place) => format!("{place} holds the old PIN still: write the new one there now.\n"),
        None => String::new(),
    };
    output::line(format_args!(
        "\n{holds}Write it also into the PIN file or secret of every server that logs in to this token, before one of them is started \
         anew: a\nwrong PIN is tried once, and counts."
    ))
}
