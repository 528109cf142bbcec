//! `keymill hsm ceremony wrapping-key`: makes the RSA key by which a token takes part, or shows it, for people to read beside the token.

use clap::Args;
use keymill_crypto::digest;
use serde::Serialize;

use super::super::pin::PinArgs;
use super::super::{DomainArgs, TokenArgs, refused};
use super::{grouped, party};
use crate::failure::Result;
use crate::plugins::pkcs11::wrapping_key;
use crate::{output, process};

/// Make the wrapping key of a token for a ceremony, or show its fingerprint
///
/// Run it on the machine beside the token, or wherever nothing stands between you and it, and read the fingerprint to whoever holds
/// the ceremony. The vendor's own tool shows the key by its label, keymill-ceremony; the fingerprint is the SHA-256 of its
/// SubjectPublicKeyInfo in DER. The ceremony destroys the key at its end.
#[derive(Args, Clone, Debug)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    domain: DomainArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    token: String,
    serial: String,
    sha256: String,
    /// Whether it was made just now.
    made: bool,
}

pub(super) fn run(args: KeyArgs) -> Result<()> {
    process::harden()?;
    let party = party(args.token, args.domain, &args.pin)?;
    let key = wrapping_key(&party).map_err(refused)?;
    let sha256 = digest::hex(&digest::sha256(&key.spki));
    if args.json {
        return output::json(&Shown { token: key.token, serial: key.serial, sha256, made: key.made });
    }
    let made = if key.made { "made just now" } else { "was there" };
    output::card(&[
        ("token", &key.token),
        ("serial number", &key.serial),
        ("wrapping key", &format_args!("RSA-3072, {made}")),
        ("SHA-256", &grouped(&sha256)),
    ])?;
    output::line(format_args!(
        "\nRead it to whoever holds the ceremony: its last 4 characters are {}.",
        &sha256[sha256.len() - 4..]
    ))
}
