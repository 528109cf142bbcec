//! `keymill hsm ceremony join`: a token that was bought later gets the keys of a domain, from the copy and the shares of its custodians.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::copy::CopyFile;
use super::custodians::{Share, combine};
use super::party;
use crate::failure::{Failure, Result};
use crate::hsm::deadline::uninterrupted;
use crate::hsm::pin::PinArgs;
use crate::hsm::{DomainArgs, TokenArgs, prompt, refused};
use crate::plugins::pkcs11::join;
use crate::{output, process};

/// Give a token that was bought later the keys of a domain, from the custodians' copy and their shares
///
/// A token that lives in the domain has nothing to give: its keys never leave it, which is what they are there for. Without a copy, a
/// new token needs a new domain (`keymill hsm ceremony`), or the vendor's own means of cloning. The new token has its PIN and no keys
/// of keymill (`keymill hsm init --no-keys`). After the join it opens whatever the domain has wrapped.
#[derive(Args, Clone, Debug)]
pub(super) struct JoinArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    domain: DomainArgs,
    #[command(flatten)]
    pin: PinArgs,
    /// The custodians' copy, which `ceremony --custodians` wrote
    #[arg(long, value_name = "FILE")]
    copy: Option<PathBuf>,
    /// File of a share; as many as it takes. Without any, they are typed at the terminal
    #[arg(long, value_name = "FILE")]
    share: Vec<PathBuf>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Joined {
    token: String,
    serial: String,
    model: String,
    domain: String,
    set: String,
    unwraps_limited: bool,
}

pub(super) fn run(args: JoinArgs) -> Result<()> {
    process::harden()?;
    let Some(copy_file) = &args.copy else {
        return Err(Failure::wrong_use(
            "a token joins a domain by its custodians' copy alone: a living token gives nothing, since its keys never leave it",
        )
        .next("--copy FILE with --share FILE for each custodian; without a copy, the vendor's own cloning, or a new domain"));
    };
    let file = CopyFile::read(copy_file)?;
    let copy = file.copy()?;
    // All that needs no token first.
    let mut shares = args.share.iter().map(|path| Share::read(path)).collect::<Result<Vec<_>>>()?;
    if shares.is_empty() {
        shares = typed(&file)?;
    }
    let kek = combine(&shares, Some(&file.set))?;
    drop(shares);
    let module = args.token.module.module.display().to_string();
    let party = party(args.token, args.domain, &args.pin)?;
    let report = uninterrupted(|| join(&party, &kek, &copy)).map_err(refused)?;
    let joined = Joined {
        token: report.token,
        serial: report.serial,
        model: report.model,
        domain: keymill_crypto::digest::hex(&copy.id),
        set: file.set,
        unwraps_limited: report.unwraps_limited,
    };
    if args.json {
        return output::json(&joined);
    }
    let limited = match joined.unwraps_limited {
        true => "can be used, and not read (CKA_UNWRAP_TEMPLATE)",
        false => "CAN BE READ by whoever has this token's PIN: the module takes no CKA_UNWRAP_TEMPLATE",
    };
    output::card(&[
        ("token", &joined.token),
        ("serial number", &joined.serial),
        ("domain", &joined.domain),
        ("keys", &"came from the custodians' copy, and give the answers that the domain gives"),
        ("what unwraps", &limited),
    ])?;
    output::line(format_args!("\n  next: keymill hsm doctor --module {module} --token {}", joined.token))
}

/// Has the custodians type their shares, one after the other, unseen.
fn typed(file: &CopyFile) -> Result<Vec<Share>> {
    if !prompt::possible() {
        return Err(Failure::wrong_use("no --share, and no terminal to type shares at").next(format!(
            "give --share FILE for {} of the {} shares of set {}",
            file.threshold, file.shares, file.set
        )));
    }
    let ask = |number| {
        let text = prompt::ask(&format!("share {number} of {} (it is not shown)", file.threshold), false)?;
        let text = std::str::from_utf8(text.expose())
            .map_err(|_| Failure::wrong_use("what was typed is no share"))?;
        Share::parse(text, "what was typed")
    };
    (1..=file.threshold).map(ask).collect()
}
