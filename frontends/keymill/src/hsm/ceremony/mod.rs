//! `keymill hsm ceremony`: gives several tokens the keys of one domain, leaves a copy with custodians, and lets a token that was bought
//! later join by it.

mod clean;
mod copy;
mod custodians;
mod hold;
mod join;
mod key;
mod shamir;
mod transcript;

use clap::{Args, Subcommand};

use super::pin::PinArgs;
use super::{DomainArgs, TokenArgs, load};
use crate::failure::Result;
use crate::plugins::pkcs11::Party;

/// Give several tokens the keys of one domain, so that each opens what any of them has wrapped
///
/// The keys are made in the first token as objects that may leave it, wrapped there under each token's own RSA-3072 key, unwrapped on
/// every token as objects that never leave, and destroyed where they were made. Each token then proves that it has the same keys. The
/// tokens have their PINs and no keys of keymill: `keymill hsm init --no-keys` makes them so.
///
/// So that nobody puts a key of their own in the place of a token's, you type the last 4 characters of each fingerprint as you read
/// them at that token: `keymill hsm ceremony wrapping-key` shows it on the machine beside it.
///
/// If a step fails, what was made is destroyed. If the machine dies, the next run says what is left, and `ceremony clean` destroys it.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CeremonyArgs {
    #[command(subcommand)]
    command: Option<CeremonyCommand>,
    #[command(flatten)]
    hold: hold::HoldArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum CeremonyCommand {
    WrappingKey(key::KeyArgs),
    Join(join::JoinArgs),
    Clean(clean::CleanArgs),
}

/// Does what the command says.
pub(super) fn run(args: CeremonyArgs) -> Result<()> {
    match args.command {
        None => hold::run(args.hold),
        Some(CeremonyCommand::WrappingKey(args)) => key::run(args),
        Some(CeremonyCommand::Join(args)) => join::run(args),
        Some(CeremonyCommand::Clean(args)) => clean::run(args),
    }
}

/// Looks at the token, and only then reads its PIN.
fn party(token: TokenArgs, domain: DomainArgs, pin: &PinArgs) -> Result<Party> {
    let module = load(&token.module.module)?;
    token.present(&module)?;
    let pin = pin.read_of(&token.token)?;
    Ok(Party { module, token_label: token.token, token_serial: token.serial, domain: domain.name(), pin })
}

/// Writes a fingerprint in groups of four, as people compare it.
fn grouped(fingerprint: &str) -> String {
    let groups: Vec<&str> =
        (0..fingerprint.len()).step_by(4).map(|at| &fingerprint[at..fingerprint.len().min(at + 4)]).collect();
    groups.join(" ")
}
